"""Where a fit starts from: one idea a file."""
