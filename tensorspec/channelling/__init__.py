"""Channelling: dynamical diffraction that turns orientation-dependent EDX and EELS into site occupancies."""
