"""Tensor algebra by mode: Gram matrices, MTTKRP, reconstruction, as sums over blocks."""
