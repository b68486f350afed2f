"""Checkpoints that survive a power cut: written under another name, then renamed; read back only when whole.

    run/checkpoints/step-00000500/   model.safetensors  ema.safetensors  optimizer.pt  state.json

The folder gets its name in one rename after every byte is on disk, so a folder with that name is a whole checkpoint.
`state.json` records the SHA-256 of the other files; one that rots afterwards is noticed, and the one before it is used.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from minivdm.errors import UserError

Tensors = dict[str, Tensor]
FULL = 2**20  # bytes: with less left than that, no space is why a write failed


def checkpoint_name(step: int) -> str:
    """Folder name after `step` optimiser steps."""
    return f"step-{step:08d}"


def list_checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step-*") if (path / "state.json").is_file())


def save_checkpoint(
    run: Path, step: int, model: Tensors, ema: Tensors, optimizer: dict[str, Any], state: dict[str, Any], keep: int
) -> Path:
    """Write the checkpoint of `step`, then delete all but the newest `keep`.

    Raises UserError when the disk is full or not writable; earlier checkpoints are untouched then.
    """
    final = run / "checkpoints" / checkpoint_name(step)
    partial = final.with_name(f".{final.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        safetensors.torch.save_file(_plain(model), partial / "model.safetensors")
        safetensors.torch.save_file(_plain(ema), partial / "ema.safetensors")
        torch.save(optimizer, partial / "optimizer.pt")
        hashes = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
        (partial / "state.json").write_text(json.dumps(state | {"step": step, "sha256": hashes}, indent=1))
        for path in partial.iterdir():
            _flush(path)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        full = partial.exists() and shutil.disk_usage(partial).free < FULL  # torch and safetensors do not say so
        shutil.rmtree(partial, ignore_errors=True)
        reason = "the disk is full" if full else getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(
            f"could not write checkpoint {final}: {reason}; make room or pick another --run, then add --resume "
            f"(earlier checkpoints are whole)"
        ) from None
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_newest(run: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """The newest checkpoint that is whole: its folder, its state, and a line for each newer one that was passed over.

    Raises UserError when the run has none.
    """
    damaged = []
    for path in reversed(list_checkpoints(run)):
        problem = _problem(path)
        if problem is None:
            return path, json.loads((path / "state.json").read_text()), damaged
        damaged.append(f"checkpoint {path.name} is damaged ({problem}); using the one before it")
    found = f"{len(damaged)} damaged checkpoints" if damaged else "no checkpoint"
    raise UserError(f"nothing to resume: {found} in {run / 'checkpoints'}; start the run without --resume")


def read_tensors(path: Path) -> Tensors:
    """Weights of a safetensors file. Raises UserError when it is missing or damaged."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot read weights {path}: {' '.join(str(error).split())}") from None


def _problem(path: Path) -> str | None:
    try:
        hashes = json.loads((path / "state.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError):
        return "state.json is unreadable"
    for name, expected in hashes.items():
        file = path / Path(name).name
        if not file.is_file():
            return f"{name} is missing"
        if _sha256(file) != expected:
            return f"{name} has changed since it was written"
    return None


def _plain(tensors: Tensors) -> Tensors:
    """On the CPU and each with memory of its own: safetensors takes no tensor twice, as tied weights would be."""
    plain, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous().cpu()
        plain[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return plain


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
