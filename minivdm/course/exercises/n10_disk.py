"""A disk in memory that knows what a power cut could leave of each file, and the rule of a save that survives one."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minivdm.course.compare import Problem
from minivdm.course.exercise import Case
from minivdm.course.runner import call


@dataclass
class Disk:
    """Files by name. What is written reaches the platter at some time later, unless it is flushed.

    files: what a reader sees. flushed: names of the files whose bytes are on the platter. history: after each
    operation, its name, its arguments, and what would be found of every file if the power failed then.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    flushed: set[str] = field(default_factory=set)
    history: list[tuple[str, tuple[str, ...], dict[str, set[bytes]]]] = field(default_factory=list)

    def write(self, name: str, data: bytes) -> int:
        """Replaces what the file held, or begins a new one; returns the number of bytes."""
        self.files[name] = bytes(data)
        self.flushed.discard(name)
        self._note("write", name)
        return len(data)

    def flush(self, name: str) -> None:
        """Returns when the bytes of the file are on the platter."""
        self.flushed.add(self._known(name))
        self._note("flush", name)

    def rename(self, old: str, new: str) -> None:
        """Gives a file another name, in one go; a file that had that name is gone. Bytes stay where they are."""
        self.files[new] = self.files.pop(self._known(old))
        self.flushed.discard(new)
        if old in self.flushed:
            self.flushed = self.flushed - {old} | {new}
        self._note("rename", old, new)

    def delete(self, name: str) -> None:
        """The file is gone."""
        del self.files[self._known(name)]
        self.flushed.discard(name)
        self._note("delete", name)

    def read(self, name: str) -> bytes:
        """What the file holds."""
        return self.files[self._known(name)]

    def after_a_power_cut(self, name: str) -> set[bytes]:
        """Everything that could be found under this name; nothing at all when there is no such file."""
        if name not in self.files:
            return set()
        data = self.files[name]
        return {data} if name in self.flushed else {data, data[: len(data) // 2], b""}

    def _note(self, operation: str, *names: str) -> None:
        self.history.append((operation, names, {name: self.after_a_power_cut(name) for name in self.files}))

    def _known(self, name: str) -> str:
        if name not in self.files:
            raise FileNotFoundError(f"there is no file {name!r} on this disk")
        return name

    def __repr__(self) -> str:
        return f"a disk with {', '.join(sorted(self.files)) or 'nothing on it'}"


def disk_with(files: dict[str, bytes]) -> Disk:
    """A disk on which these files have been for a long time."""
    return Disk(dict(files), set(files))


def with_own_disk(args: dict[str, Any]) -> dict[str, Any]:
    """Every call gets a disk of its own."""
    return {**args, "disk": copy.deepcopy(args["disk"])}


def survives_a_power_cut(answer: Callable[..., Any], case: Case) -> Problem | None:
    """After every operation the file is whole: the old one or the new one; in the end the new one, and no other."""
    outcome = call(answer, case.args, tie=case.tie)
    if outcome.error is not None:
        return Problem("second call", f"The value is right, but a second call raised `{outcome.error}`.")
    disk, name, data = outcome.inputs.values()
    before = case.args["disk"]
    old = before.after_a_power_cut(name)
    for operation, names, found in disk.history:
        if problem := _torn(f"{operation}({', '.join(map(repr, names))})", found.get(name), old, data, disk, operation):
            return problem
    if disk.after_a_power_cut(name) != {data}:
        text = f"In the end {name!r} does not hold the new bytes for certain."
        return Problem("not saved", f"{text}\nThink: what would be read back after a power cut a minute later?")
    others = {other: held for other, held in disk.files.items() if other != name}
    if left := sorted(set(others) - set(before.files)):
        text = f"The file is safe, but {', '.join(map(repr, left))} stays behind on the disk."
        return Problem("left over", f"{text}\nThink: how full is the disk after a thousand checkpoints?")
    if any(before.files.get(other) != data for other, data in others.items()) or len(others) < len(before.files) - 1:
        return Problem(
            "others", "The file is safe, but another file on the disk is not what it was.\nThink: whose was it?"
        )
    return None


def _torn(
    said: str, found: set[bytes] | None, old: set[bytes], data: bytes, disk: Disk, operation: str
) -> Problem | None:
    """What is wrong with the file if the power fails after this operation."""
    if found is None:
        text = f"If the power fails after {said}, there is no file: the old one is gone, the new one not yet there."
        question = "which single operation replaces one file by another?"
        return Problem("gone", f"{text}\nThink: {question}") if old else None
    if found <= old | {data}:
        return None
    text = f"If the power fails after {said}, half a file may bear the name of a whole one."
    question = "which bytes are certain to be on the disk at that moment?"
    late = operation == "rename" and disk.history[-1][0] == "flush"
    return Problem(f"torn by {operation}{', flushed later' if late else ''}", f"{text}\nThink: {question}")
