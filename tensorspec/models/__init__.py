"""Which factorization: from factors to data, and to normal equations."""
