"""What the factor of a mode must obey: one idea a file, usable by every solver."""
