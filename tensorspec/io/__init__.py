"""Files: instruments' formats, HyperSpy signals, and saved fits."""
