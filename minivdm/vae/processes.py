"""Several processes on this machine that can talk to each other, for trying out parallel layers."""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

LOOPBACK = {"linux": "lo", "darwin": "lo0"}


def run_processes(function: Callable[..., Any], ranks: int, *args: Any, timeout_s: float = 120) -> list[Any]:
    """Starts `ranks` processes, runs `function(rank, *args)` in each, and returns what they returned, by rank.

    `function` must be importable (a notebook's is not: write it to a file first); it finds `torch.distributed`
    initialised (gloo, CPU). Results may be tensors, numbers, strings, and lists and dicts of them. The processes meet
    through a file and talk over loopback, so no network is needed. What goes wrong in one ends all and is raised here,
    as does waiting for another longer than `timeout_s`.
    """
    threads = max(1, torch.get_num_threads() // ranks)
    with tempfile.TemporaryDirectory() as folder:
        try:
            mp.spawn(_work, (function, ranks, folder, threads, timeout_s, args), nprocs=ranks)
        except Exception as error:
            # The others fail as well, since one has left them, and may be heard first: tell what came first.
            failures = sorted(Path(folder).glob("*.failed"), key=lambda path: path.stat().st_mtime_ns)
            if not failures:
                raise
            text = failures[0].read_text(encoding="utf-8")
            raise RuntimeError(f"in process {failures[0].stem}: {text}") from error
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


def _work(rank: int, function: Callable, ranks: int, folder: str, threads: int, timeout_s: float, args: tuple) -> None:
    torch.set_num_threads(threads)
    if sys.platform in LOOPBACK:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK[sys.platform])
    meeting_place = (Path(folder) / "meet").as_uri()
    dist.init_process_group("gloo", meeting_place, timedelta(seconds=timeout_s), ranks, rank)
    try:
        torch.save(function(rank, *args), Path(folder) / f"{rank}.pt")
        dist.barrier()  # nobody leaves while another still listens
    except Exception:
        (Path(folder) / f"{rank}.failed").write_text(traceback.format_exc(), encoding="utf-8")
        raise
    finally:
        dist.destroy_process_group()
