"""One module per kind of golden file: how to recompute its outputs with our code (see `minivdm.parity`)."""
