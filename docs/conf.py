"""Sphinx: MyST pages, the gallery from ``examples/``, the reference from docstrings.  Builds without a network."""

import sys
import warnings
from pathlib import Path

import tensorspec

sys.path.insert(0, str(Path(__file__).parent))  # for gallery_figures

project = "tensorspec"
author = "tensorspec developers"
copyright = "2026, tensorspec developers"  # noqa: A001
release = version = tensorspec.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",  # after mathjax, whose path it sets
]
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # numpydoc states types, shapes and units in words
autodoc_member_order = "bysource"
templates_path = ["_templates"]
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_filename_map = {"tensorspec.Fit": "tensorspec.Fit_class"}  # for disks that take fit and Fit for one name
numpydoc_show_class_members = False

# Docstrings are tested by pytest; here only the examples of the pages are.
doctest_test_doctest_blocks = ""
doctest_global_setup = "import numpy as np\nimport xarray as xr\nimport tensorspec as ts"

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r".*\.py$",
    "ignore_pattern": r"(^|/)_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "image_scrapers": ("matplotlib", "gallery_figures"),
    "ignore_repr_types": r"matplotlib|tensorspec\.plot|list|tuple",
    "within_subsection_order": "gallery_figures.reading_order",
}
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive", category=UserWarning)

html_theme = "pydata_sphinx_theme"
html_title = "tensorspec"
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2}
html_show_sourcelink = False
html_sidebars = {"development": []}  # pages without sections below them
