"""Tensor factorizations of spectrum images: named modes, and tensors that share a mode share its factor.

The public names stand in `__init__.pyi`, one table for this package and for type checkers.  A name loads its file when
it is first used, so that ``import tensorspec`` stays light.
"""

import gc

import lazy_loader

__version__ = "0.1.0.dev0"

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    # A hundred thousand objects are made while packages load, none of them garbage: looking through them again and
    # again would take a fifth of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _load(name)
    finally:
        if collects:
            gc.enable()
