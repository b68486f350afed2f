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
