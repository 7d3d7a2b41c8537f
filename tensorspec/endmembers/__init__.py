"""Endmembers: spectra from the geometry of the data alone. Arrays in, arrays out."""
