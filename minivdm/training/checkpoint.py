"""Checkpoints that survive a power cut: written under another name, then renamed; read back only when whole.

    run/checkpoints/step-00000500/   model.safetensors  ema.safetensors  optimizer.pt  config.yaml …  state.json

The folder gets its name in one rename after every byte is on disk, so a folder with that name is a whole checkpoint.
`state.json` records the SHA-256 of the other files; one that rots afterwards is noticed, and the one before it is used.
Folders whose names begin with a dot are on their way in or out; if their run was killed, the next save removes them.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
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
    run: Path,
    step: int,
    model: Tensors,
    ema: Tensors,
    optimizer: dict[str, Any],
    state: dict[str, Any],
    keep: int,
    describe: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Write the checkpoint of `step`, then delete all but the newest `keep`; `describe` writes what else belongs to it.

    A whole checkpoint of this step is left as it is. Raises UserError when the disk is full or not writable; earlier
    checkpoints are untouched then.
    """
    final = run / "checkpoints" / checkpoint_name(step)
    if final.is_dir() and _problem(final) is None:
        return final
    partial = final.with_name(f".{final.name}.partial")
    try:
        for left in final.parent.glob(".step-*"):
            shutil.rmtree(left)
        partial.mkdir(parents=True)
        safetensors.torch.save_file(_plain(model), partial / "model.safetensors")
        safetensors.torch.save_file(_plain(ema), partial / "ema.safetensors")
        torch.save(optimizer, partial / "optimizer.pt")
        describe(partial)
        hashes = {path.relative_to(partial).as_posix(): _sha256(path) for path in _files(partial)}
        (partial / "state.json").write_text(json.dumps(state | {"step": step, "sha256": hashes}, indent=1))
        _flush(partial)
        if final.exists():  # a damaged one: `load_newest` passed it over
            os.replace(final, final.with_name(f".{final.name}.old"))
        os.replace(partial, final)
        _flush_folder(final.parent)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        full = partial.exists() and shutil.disk_usage(partial).free < FULL  # torch and safetensors do not say so
        shutil.rmtree(partial, ignore_errors=True)
        reason = "the disk is full" if full else getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(
            f"could not write checkpoint {final}: {reason}; make room, or make the folder writable, then add --resume "
            f"(earlier checkpoints are whole)"
        ) from None
    for old in [path for path in list_checkpoints(run) if path.name <= final.name][:-keep]:
        gone = old.with_name(f".{old.name}.old")  # renamed first: half a checkpoint must not bear the name of one
        os.replace(old, gone)
        shutil.rmtree(gone, ignore_errors=True)
    return final


def replace_files(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder of its own, then move its files into `folder`: each is the old one or the new one."""
    aside = folder / ".partial"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        write(aside)
        _flush(aside)
        for path in _files(aside):
            target = folder / path.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}; make room, or make it writable"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load_newest(run: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """The newest checkpoint that is whole: its folder, its state, and a line for each newer one that was passed over.

    Raises UserError when the run has none.
    """
    damaged = []
    for path in reversed(list_checkpoints(run)):
        problem = _problem(path)
        if problem is None:
            return path, json.loads((path / "state.json").read_text(encoding="utf-8")), damaged
        damaged.append(f"checkpoint {path.name} is damaged ({problem}); using the one before it")
    found = f"{len(damaged)} damaged checkpoints" if damaged else "no checkpoint"
    raise UserError(f"nothing to resume: {found} in {run / 'checkpoints'}; start the run without --resume")


def read_tensors(path: Path) -> Tensors:
    """Weights of a safetensors file. Raises UserError when it is missing or damaged."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot read weights {path}: {' '.join(str(error).split())}") from None


def read_optimizer(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save_checkpoint` was given as `optimizer`. Raises UserError for anything but tensors, numbers and names."""
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        if "optimizer" not in saved:
            raise KeyError("optimizer")
        return saved
    except Exception as error:  # of a pickle that would run code, or is damaged, there are many kinds
        kind = type(error).__name__
        advice = "expected numbers alone, from a run of yours: start the run without --resume"
        raise UserError(
            f"{path} is not the state of an optimiser ({kind}), and nothing in it was run; {advice}"
        ) from None


def _problem(path: Path) -> str | None:
    try:
        hashes = dict(json.loads((path / "state.json").read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return "state.json is unreadable"
    for name, expected in hashes.items():
        file = path / name
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


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _flush(folder: Path) -> None:
    """Bring a folder and all that is in it to the disk."""
    for path in _files(folder):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    """The names in it: renaming is a change of the folder, not of the file."""
    if os.name == "posix":  # elsewhere folders cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
