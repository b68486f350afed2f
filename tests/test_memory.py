import subprocess
import sys

import pytest
import torch

from minivdm.memory import watch_memory

MIB = 2**20


def test_sees_what_is_used_only_for_a_while():
    with watch_memory() as seen:
        kept = torch.ones(8 * MIB)  # 32 MiB
        passing = torch.ones(16 * MIB)
        passing.sum()
        del passing
        torch.ones(2 * MIB).sum()
    assert 80 * MIB < seen.peak < 120 * MIB
    assert seen.bytes[-1] < 50 * MIB
    assert len(seen.bytes) == len(seen.seconds) and seen.seconds == sorted(seen.seconds)
    del kept
    with watch_memory() as again:
        torch.ones(8 * MIB).sum()
    assert 25 * MIB < again.peak < 45 * MIB, "memory that was handed back counts again"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is glibc, the C library of Linux, that is told")
def test_what_tensors_free_is_kept_from_the_import_on():
    """Six tensors of 32 MiB, made again and again, soon lie where others lay: the system gives no page for them."""
    code = """
import resource, torch, minivdm
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**23) for _ in range(6)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(6):
    pages()
print(pages())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # of 49,152
