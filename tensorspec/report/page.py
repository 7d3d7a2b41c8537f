"""One self-contained HTML file: a template filled, figures within it, written whole or not at all."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from tensorspec.errors import MissingDependency, MissingFile

__all__ = ["embedded", "write_page"]


def write_page(path: str | PathLike[str], template: str, contents: Callable[[], dict[str, Any]]) -> Path:
    """Fill a template of this folder and write it; an older file is replaced when the new one is complete.

    Parameters
    ----------
    path : path-like
        Where to.
    template : str
        File name; it fills the block ``body`` of ``frame.html``.
    contents : callable
        Returns what the template shows; asked for when nothing is missing any more.

    Raises
    ------
    MissingDependency
        If Jinja2 is not installed.
    MissingFile
        If the folder does not exist.
    """
    try:
        from jinja2 import Environment, PackageLoader
    except ImportError as error:
        raise MissingDependency('reports need Jinja2: pip install "tensorspec[report]"') from error
    path = Path(path)
    if not path.parent.is_dir():
        raise MissingFile(f"there is no folder {str(path.parent)!r} to write the report in")
    pages = Environment(loader=PackageLoader("tensorspec.report", ""), autoescape=True, trim_blocks=True)
    text = pages.get_template(template).render(contents())
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def embedded(figure: Figure) -> str:
    """Return a figure as a data address: sharp at every size, and nothing to load."""
    buffer = io.StringIO()
    # The last bits of a layout differ from one drawing to the next, and with them the names of parts of the file.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.axes:
        ax.set_position(tuple(np.round(ax.get_position().bounds, 6)))
    with rc_context({"svg.hashsalt": "tensorspec"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue().encode()).decode()
