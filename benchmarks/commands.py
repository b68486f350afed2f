"""What a user waits for: whole commands, each a process of its own, with the most memory it ever had."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
ROOT = Path(__file__).parents[1]
# The environment of a user, without the peers: a torchvision for another torch keeps transformers from importing T5.
PYTHON = ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

# As `minivdm.course.build` runs a lesson, but into a folder that is thrown away.
NOTEBOOKS = """
import pathlib
from minivdm.course.build import executed, solved_edition, sources
for source in sources(pathlib.Path(".")):
    executed(solved_edition(source), pathlib.Path("solutions"))
    print(source.stem, flush=True)
"""


@dataclass(frozen=True)
class Command:
    """A command line of Python. time: seconds that it should take at most. memory: bytes. None: no target."""

    key: str
    name: str
    arguments: tuple[str, ...]
    time: float | None = None
    memory: float | None = None
    repeats: int | None = None  # None: as often as every other row


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock, seconds of the processor, and the highest memory in bytes, of a process."""

    wall: float
    cpu: float
    memory: int


def spend(command: Command) -> Spent:
    """Run it once. Raises RuntimeError with what it said when it fails."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        arguments = [argument.replace("OUT", folder) for argument in command.arguments]
        start = time.perf_counter()
        python = str(PYTHON) if PYTHON.exists() else sys.executable
        process = subprocess.Popen([python, *arguments], stdout=said, stderr=said, cwd=ROOT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{command.name} failed:\n{said.read().decode()[-2000:]}")
    return Spent(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def commands(tiny: bool, notebooks: bool) -> list[Command]:
    """The rows."""
    cli = ("-m", "minivdm.cli")
    help_text = Command("help", "minivdm --help", (*cli, "--help"), 0.5)
    if tiny:
        return [help_text]
    prompt = "a large red peony high on the left, then a small blue ring low on the right"
    rows = [
        help_text,
        Command("import", "import minivdm", ("-c", "import minivdm"), 2.0),
        Command("sample", "a prompt -> GIF and MP4, toy", (*cli, "sample", prompt, "--out", "OUT"), 3.0, 1.5 * 2**30),
        Command("torch", "of which: import torch", ("-c", "import torch")),
        Command("t5", "and with the class that reads a T5", ("-c", "from transformers import T5EncoderModel")),
    ]
    if notebooks:
        rows += [Command("notebooks", "the nine lessons, toy", ("-c", NOTEBOOKS), 12 * 60.0, 4 * 2**30, repeats=1)]
    return rows
