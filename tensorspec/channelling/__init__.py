"""Channelling: dynamical diffraction turns orientation-dependent EDX and EELS into occupancies and spectra of sites."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

del lazy_loader
