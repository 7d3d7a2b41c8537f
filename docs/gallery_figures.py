"""The gallery: figures of fits, which are not known to pyplot, where sphinx-gallery looks for them; and its order."""

from sphinx_gallery.scrapers import figure_rst
from sphinx_gallery.sorting import FunctionSortKey

from tensorspec.plot.canvas import NotebookFigure

ORDER = [
    "plot_nmf.py",
    "plot_poisson.py",
    "plot_sparse_counts.py",
    "plot_fusion.py",
    "plot_order3.py",
    "plot_tucker.py",
    "plot_drift.py",
    "plot_prepare.py",
    "plot_unmix.py",
    "plot_tofsims_grid.py",
    "plot_layer_stack.py",
    "plot_thin_film.py",
    "plot_battery_cathode.py",
    "plot_phases.py",
    "plot_polymer_blend.py",
    "plot_channelling.py",
    "plot_pixon.py",
    "plot_missing.py",
    "plot_larger_than_memory.py",
    "plot_custom_constraint.py",
]

reading_order = FunctionSortKey(ORDER.index, "reading order")
drawn = []
make = NotebookFigure.__init__


def remember(figure, *args, **kwargs):
    """Make a figure as ever, and keep it until its block of the example has ended."""
    make(figure, *args, **kwargs)
    drawn.append(figure)


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
    NotebookFigure.__init__ = remember
    return scrape
