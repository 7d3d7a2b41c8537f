"""The gallery: figures of fits, which are not known to pyplot, where sphinx-gallery looks for them; and its order."""

from sphinx_gallery.scrapers import figure_rst
from sphinx_gallery.sorting import FunctionSortKey

import tensorspec.plot

ORDER = ["plot_nmf.py", "plot_fusion.py", "plot_order3.py", "plot_missing.py", "plot_custom_constraint.py"]

reading_order = FunctionSortKey(ORDER.index, "reading order")
drawn = []
make = tensorspec.plot._new_figure


def remember(width, height):
    """Make a figure as ever, and keep it until its block of the example has ended."""
    drawn.append(make(width, height))
    return drawn[-1]


def scrape(block, block_vars, gallery_conf):
    """Save what was drawn since the last block, and return the lines that show it."""
    del block
    paths = []
    for figure, path in zip(drawn, block_vars["image_path_iterator"], strict=False):
        figure.savefig(path, dpi=100)
        paths.append(path)
    drawn.clear()
    return figure_rst(paths, gallery_conf["src_dir"])


def _get_sg_image_scraper():
    tensorspec.plot._new_figure = remember
    return scrape
