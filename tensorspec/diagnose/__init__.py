"""Judge a fit: compare fits, look at what they leave over."""
