"""What measured spectra need before a factorization can be right: new arrays or masks, each step recorded."""
