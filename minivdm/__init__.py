"""minivdm: video diffusion from nothing, a course of ten notebooks and the package they import."""

import os

from minivdm.allocator import keep_freed_memory

__version__ = "0.1.0"

# PyTorch's threads wait for each other at the end of every operation, in a loop that keeps their cores busy. Where
# another program needs one of two cores, that loop takes longer than all the work: a film takes 16 seconds, not 1.
# Waiting asleep from the start makes small operations a fifth slower; so they look a thousand times, then sleep. GNU's
# OpenMP, which PyTorch has on Linux, reads this once, when it is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

keep_freed_memory()
