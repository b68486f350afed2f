"""minivdm beside the projects that it follows: `make bench`, or `python -m benchmarks --help`."""
