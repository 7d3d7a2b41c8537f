"""Restore what noise and blur hide: locally smoothest images and spectra, weak features, Richardson-Lucy."""
