"""The comparison with other projects: does every row run, and do both sides compute the same? No times are asserted."""

import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
BENCH = ROOT / ".venv-bench" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.fixture
def main(monkeypatch):
    """`python -m benchmarks` in this process, measuring without processes of its own."""
    monkeypatch.syspath_prepend(ROOT)
    import benchmarks.__main__ as module

    monkeypatch.setattr(module, "in_fresh_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(module, "commands", lambda tiny, notebooks: [])
    return module


@pytest.fixture
def interpreter() -> tuple[str, bool]:
    """The Python that `make bench` uses if it has been set up, and whether it has the peers."""
    python = str(BENCH) if BENCH.exists() else sys.executable
    code = "from importlib.util import find_spec as f; print(all(map(f, ('video_diffusion_pytorch', 'diffusers'))))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "True"
    return python, found


def run(python: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}  # compiling takes minutes
    return subprocess.run([python, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)


def test_every_row_runs_and_both_sides_compute_the_same(interpreter):
    python, has_peers = interpreter
    done = run(python, "-m", "benchmarks", "--tiny", "--threads", "1")
    assert done.returncode == 0, done.stderr[-2000:]
    for row in ("Unet3D training", "Unet3D sampling", "STDiT3 training", "2D VAE", "temporal VAE", "two films", "GIFs"):
        assert f"| {row}" in done.stdout or f" {row}" in done.stdout, row
    missing = "is not installed: make bench" in done.stdout
    if has_peers:
        assert not missing
    else:
        assert missing
        warnings.warn("nothing was compared: the peers are not installed; `make bench` sets them up", stacklevel=1)


def test_the_gpu_table_runs_without_a_gpu(interpreter):
    done = run(interpreter[0], "-m", "benchmarks.gpu", "--tiny")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = done.stdout.strip().splitlines()[2:]
    assert len(rows) >= 12
    assert all(" ms " in row for row in rows), done.stdout


def test_sides_that_disagree_are_an_error(main, monkeypatch, capsys):
    from benchmarks.work import Work

    @dataclass(frozen=True)
    class Wrong(Work):
        def ours(self):
            return lambda: torch.tensor([1.0, 2.0])

        def theirs(self):
            return lambda: torch.tensor([1.0, 2.1])

    monkeypatch.setattr(main, "works", lambda tiny: [Wrong("wrong", "a wrong one", None, time=1.0)])
    assert main.main(["--tiny", "--only", "wrong", "--threads", "1"]) == 1
    assert "not the same work: wrong: outputs differ by 4.8e-02" in capsys.readouterr().err


def test_an_unknown_row_is_named_with_those_there_are(main, capsys):
    with pytest.raises(SystemExit):
        main.main(["--tiny", "--only", "speed"])
    said = capsys.readouterr().err
    assert "no row speed" in said and "guided" in said and "growth" in said


def test_a_missed_target_is_said_and_none_is_not(main):
    from benchmarks.report import verdict

    assert verdict(0.4, 0.5) == "**0.4** ≤ 0.5"
    assert verdict(0.51, 0.5) == "**0.51** > 0.5, missed"
    assert verdict(0.51, None) == "**0.51**"
