"""A process of its own in which answers of other people are tried; the other end of `classroom.py`.

It reads one job as JSON from its standard input, and says on what was its standard output, one JSON line each, what it
is about to try and what came of it. Before it runs a line of theirs it gives up what an answer does not need: memory,
large files, the network, other programs, and writing anywhere but in the folder made for it.

The guard is an audit hook and a few resource limits. It stops accidents and careless code. It is no sandbox: who means
harm finds a way round it (`ctypes`, for one), so run the code of people you do not trust in a virtual machine.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

MOST_WRITTEN = 64 * 2**20  # bytes in one file
MOST_PROBLEMS = 4  # that are told; the first one is mostly the cause of the rest
MUCH_PRINTED = 10_000  # characters; a line or two while trying things out is nobody's business
NETWORK = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo")
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn")
PROGRAMS += ("os.startfile", "os.kill", "os.killpg")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
CHANGES += ("os.chown", "os.utime", "shutil.rmtree")


@dataclass(frozen=True)
class Finding:
    """What came of one answer.

    outcome: passed, wrong, not written, missing, never ends, out of memory, or left the process.
    said: the first line of the verdict; of a missing answer, what in its notebook would not run.
    beside: what the answer did that was not asked for.
    """

    outcome: str
    said: str = ""
    beside: str = ""


class Silence:
    """A standard output that counts what it is told and keeps nothing."""

    encoding, errors = "utf-8", "replace"

    def __init__(self) -> None:
        self.characters = 0

    def write(self, text: str) -> int:
        self.characters += len(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is kept, so there is nothing to write."""

    def isatty(self) -> bool:
        return False


class Watched:
    """The answer, which remembers how its last call failed: a verdict says it in words only."""

    def __init__(self, answer: Callable[..., Any]):
        self.answer = answer
        self.error: BaseException | None = None

    def __call__(self, *args: Any) -> Any:
        try:
            return self.answer(*args)
        except BaseException as error:
            self.error = self.error or error
            raise


def main() -> None:
    job = json.load(sys.stdin)
    tell = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    printed = sys.stdout = sys.stderr = Silence()
    from minivdm.course import judging, runner  # torch takes its seconds and its memory before the limits begin
    from minivdm.course.definitions import define
    from minivdm.course.exercise import get

    runner.TIME_LIMIT_S = job["seconds"]
    runner.CLOCK = ("SIGVTALRM", "ITIMER_VIRTUAL")  # a busy machine makes no right answer late; who sleeps is ended
    limit(job["memory"])
    folder = Path.cwd()
    guard(folder.parent)
    for index, source in enumerate(job["sources"]):
        say(tell, start=[index, None])
        space: dict[str, Any] = {"__name__": "submission"}
        problems = define(source["name"], source["cells"], space)
        for exercise_id in source["exercises"]:
            say(tell, start=[index, exercise_id])
            printed.characters, files = 0, set(os.listdir(folder))
            exercise = get(exercise_id)
            if exercise.name in space:
                finding = tried(judging.examine, exercise, space[exercise.name])
            else:
                finding = Finding("missing", "; ".join(problems[:MOST_PROBLEMS]))
            beside = []
            if printed.characters > MUCH_PRINTED:
                beside.append(f"It printed {printed.characters:,} characters.")
            os.chdir(folder)
            if written := set(os.listdir(folder)) - files:
                beside.append(f"It wrote {', '.join(sorted(written)[:3])}; thrown away.")
            say(tell, finding=asdict(replace(finding, beside=" ".join(beside))))
    say(tell, finished=True)


def tried(examine: Callable[..., Any], exercise: Any, answer: Any) -> Finding:
    """The verdict on one answer as a finding."""
    import torch

    from minivdm.course.runner import OutOfTime

    watched = Watched(answer)
    try:
        verdict = examine(exercise, watched if callable(answer) else answer)
    except BaseException as error:  # such as a KeyboardInterrupt that the answer raised itself
        return Finding("wrong", f"{type(error).__name__}: {error}")
    finally:
        torch.set_default_dtype(torch.float32)  # an answer may have changed what the next one meets
        torch.set_default_device(None)
    error, said = watched.error, verdict.message.splitlines()[0]
    if verdict.passed:
        return Finding("passed")
    if isinstance(error, OutOfTime):
        return Finding("never ends", said)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return Finding("out of memory", said)
    if isinstance(error, SystemExit):
        return Finding("left the process", "It calls sys.exit.")
    return Finding("not written" if verdict.not_written or isinstance(error, NotImplementedError) else "wrong", said)


def limit(memory: int) -> None:
    """Allows `memory` bytes beyond what is in use now, and files of MOST_WRITTEN. Where the system has no such limits
    (Windows) or counts address space that nobody asked for (macOS), time alone is limited."""
    try:
        import resource
    except ModuleNotFoundError:
        return
    import psutil

    allowed = psutil.Process().memory_info().vms + memory
    for name, most in (("FSIZE", MOST_WRITTEN), ("CORE", 0), ("AS", allowed)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def guard(folder: Path) -> None:
    """Refuses the network, other programs, and changes of files outside `folder`, for as long as the process lives."""
    own = os.path.realpath(folder)

    def inside(path: Any) -> bool:
        return isinstance(path, int) or os.path.realpath(os.fsdecode(path)).startswith((own + os.sep, os.devnull))

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in NETWORK:
            raise PermissionError("an answer has no network")
        if event in PROGRAMS:
            raise PermissionError("an answer starts and ends no programs")
        writes = event == "open" and (
            set(args[1] or "") & set("wax+") or args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        paths = (
            args[:1]
            if writes
            else args[:2]
            if event in ("os.rename", "os.link")
            else args[:1]
            if event in CHANGES
            else ()
        )
        for path in paths:
            if not inside(path):
                raise PermissionError(f"an answer writes only into its own folder, not to {path}")

    sys.addaudithook(hook)


def say(tell: TextIO, **what: Any) -> None:
    tell.write(json.dumps(what) + "\n")
    tell.flush()


if __name__ == "__main__":
    main()
