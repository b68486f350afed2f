"""Tests run on every core, one process each (pytest-xdist), so each computes on one thread."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported, and for the processes that tests start
    os.environ["OMP_NUM_THREADS"] = "1"
