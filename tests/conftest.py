"""Tests run on two cores, a process each (pytest-xdist): each computes on one thread, the longest tests come first."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported, and for the processes that tests start
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items):
    """The first process begins with the solved lessons, the second one takes over what the first has left."""
    items.sort(key=lambda item: not item.name.startswith("test_solved_lesson"))
