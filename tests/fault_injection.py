"""Kill a training again and again, and see that nothing is lost but the steps since its last checkpoint.

    python tests/fault_injection.py --kills 100

A tiny training runs in a child process and is killed (SIGKILL: nothing can be caught, nothing cleaned up) after a
random amount of computing, just before a random file operation, or with a file of a checkpoint half written. After each
kill all checkpoints are compared with those of a training that nobody disturbed, then it is resumed, and killed again,
until it gets to its end, where everything it leaves must be what the other one leaves. Children are forked from a
process that has loaded PyTorch already, so that a hundred kills take minutes.
"""

import argparse
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import safetensors.torch
import torch
import torch._dynamo  # the optimizer would load it, in every child
import yaml
from tqdm import tqdm

from minivdm.config import load_preset
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.text.words import BagOfWords
from minivdm.training import trainer as trainer_module
from minivdm.training.checkpoint import list_checkpoints, load_newest
from minivdm.training.tasks import NoisePredictionTask
from minivdm.training.trainer import Trainer
from minivdm.viz.plots import read_rows

STEPS, EVERY = 12, 3  # a checkpoint every three steps
TINY = {
    "data.clips": 5,
    "data.size": 8,
    "data.frames": 3,
    "unet3d.dim": 8,
    "unet3d.dim_mults": [1],
    "unet3d.patch": 1,
    "unet3d.attn_dim_head": 8,
    "training.steps": STEPS,
    "training.batch_size": 2,
    "training.log_every": 2,
    "training.milestone_every": EVERY,
    "training.keep_checkpoints": 2,
    "sampling.steps": 1,
    "sampling.clips": 1,
    "diffusion.num_steps": 20,
}
KINDS = ("after some computing", "before a file operation", "with half a file written")
CONFIG = load_preset("toy", TINY)
torch.set_num_threads(1)  # several threads do not survive a fork
DATA = FireworksDataset(TINY["data.clips"], frames=TINY["data.frames"], size=TINY["data.size"])


class Watched(Trainer):
    """Tells how far it has come: 2n before step n, 2n + 1 when its checkpoint is there."""

    tell: Callable[[int], None]

    def save(self) -> None:
        super().save()
        self.tell(2 * self.step + 1)

    def _optimiser_step(self, batches):
        self.tell(2 * self.step)
        return super()._optimiser_step(batches)


def train(run: Path, tell: Callable[[int], None], keep: int) -> None:
    """As the command line does it: with --resume if there is a checkpoint, anew if there is none."""
    trainer_module.loss_curve = lambda *_: None  # half of the time, and nothing of what is looked at here
    resume, config = bool(list_checkpoints(run)), copy.deepcopy(CONFIG)
    config.training.keep_checkpoints = keep
    if resume:
        assert yaml.safe_load((run / "config.yaml").read_text()) == config.to_dict()
    task = NoisePredictionTask(config, DATA, BagOfWords.load(run / "vocabulary.json") if resume else None)
    trainer = Watched(task, config, run, resume=resume, progress=False)
    trainer.tell = tell
    trainer.run()


def child(run: Path, prepare: Callable[[], None] = lambda: None, keep: int = 2) -> tuple[int, int]:
    """Start `train` in a process of its own: its number, and a pipe on which it tells one byte at a time."""
    hear, speak = os.pipe()
    number = os.fork()
    if number:
        os.close(speak)
        return number, hear
    status = 1
    try:
        os.close(hear)
        log = os.open(run.parent / "child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        prepare()
        train(run, lambda what: os.write(speak, bytes([what])), keep)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait(number: int, hear: int) -> tuple[int, list[int]]:
    """How a child ended (-9: killed), and what it told."""
    told = b""
    while part := os.read(hear, 4096):
        told += part
    os.close(hear)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), list(told)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_operation(which: int, run: Path) -> Callable[[], None]:
    """Has the child killed when it is about to open, make, rename or remove for the `which`-th time within `run`."""
    seen = Counter()

    def hook(event: str, arguments: tuple) -> None:
        if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            return
        if any(str(run) in str(path) for path in arguments[:2]):
            seen["operations"] += 1
            if seen["operations"] == which:
                die()

    return lambda: sys.addaudithook(hook)


def die_in_file(which: int, share: float) -> Callable[[], None]:
    """Has the child killed when the `which`-th file of tensors is partly written."""
    write, seen = safetensors.torch.save_file, Counter()

    def half(tensors, path):
        write(tensors, path)
        seen["files"] += 1
        if seen["files"] == which:
            os.truncate(path, int(path.stat().st_size * share))
            die()

    def prepare() -> None:
        safetensors.torch.save_file = half

    return prepare


def kill_after_computing(number: int, seconds: float) -> None:
    """kill -9 once a child has used that much of a processor's time; other work on the machine does not matter."""
    process = psutil.Process(number)
    while process.status() != psutil.STATUS_ZOMBIE:
        used = process.cpu_times()
        if used.user + used.system >= seconds:
            break
        time.sleep(0.002)
    os.kill(number, signal.SIGKILL)


def same_files(one: Path, other: Path, names: list[str]) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def logged(run: Path) -> list[dict[str, float]]:
    return [row | {"clips_per_second": None} for row in read_rows(run / "metrics.jsonl")]


def check_checkpoints(run: Path, whole: Path) -> int:
    """The newest step that can be resumed. AssertionError if a checkpoint is not that of the undisturbed run."""
    found = list_checkpoints(run)
    for path in found:
        files = sorted(file.name for file in path.iterdir() if file.name != "optimizer.pt")
        expected = whole / "checkpoints" / path.name
        assert files == sorted(file.name for file in expected.iterdir() if file.name != "optimizer.pt"), path
        assert same_files(path, expected, [name for name in files if name.endswith("safetensors")]), path
    if not found:
        return 0
    _, state, damaged = load_newest(run)
    assert not damaged, damaged
    return state["step"]


def check_end(run: Path, whole: Path) -> None:
    """AssertionError unless two finished runs are the same: weights, optimiser, log, films, settings."""
    assert check_checkpoints(run, whole) == STEPS
    last = Path("checkpoints") / list_checkpoints(run)[-1].name / "optimizer.pt"
    one, other = (torch.load(folder / last, weights_only=True)["optimizer"]["state"] for folder in (run, whole))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k][name], other[k][name]) for k in one for name in one[k])
    assert logged(run) == logged(whole) and len(logged(run)) == STEPS // 2
    films = sorted(path.name for path in (whole / "samples").iterdir())
    assert len(films) == STEPS // EVERY and same_files(run / "samples", whole / "samples", films)
    assert same_files(run, whole, ["vocabulary.json"])
    assert [path.name for path in list_checkpoints(run)] == ["step-00000009", "step-00000012"]


def main(kills: int, seed: int, folder: Path) -> None:
    """Print a table of what happened; AssertionError at the first thing that must not happen."""
    luck, whole = random.Random(seed), folder / "whole"
    started = time.perf_counter()
    status, _ = wait(*child(whole, keep=STEPS))
    assert status == 0, (folder / "child.log").read_text()
    computing = os.times().children_user + os.times().children_system  # what an undisturbed run takes
    table = {kind: Counter() for kind in KINDS}
    finished, done, run = 0, 0, folder / "run-0"
    bar = tqdm(total=kills, desc="kills")
    while done < kills or run.exists():
        kind = KINDS[done % 3] if done < kills else None
        before = check_checkpoints(run, whole) if run.exists() else 0
        prepare = lambda: None  # noqa: E731
        if kind == KINDS[1]:
            prepare = die_before_operation(luck.randint(1, 40), run)
        elif kind == KINDS[2]:
            prepare = die_in_file(luck.randint(1, 4), luck.random())
        number, hear = child(run, prepare)
        if kind == KINDS[0]:
            kill_after_computing(number, luck.uniform(0, computing))
        status, told = wait(number, hear)
        if status == 0:
            check_end(run, whole)
            shutil.rmtree(run)
            finished, run = finished + 1, folder / f"run-{finished + 1}"
            continue
        assert status == -signal.SIGKILL, (folder / "child.log").read_text()
        row, newest = table[kind], check_checkpoints(run, whole)
        reached = max([before, *(what // 2 for what in told)])
        promised = max([before, *(what // 2 for what in told if what % 2)])
        assert promised <= newest, f"the checkpoint of step {promised} was there, and {newest} is the newest"
        assert reached - newest <= EVERY, f"killed at step {reached}, newest checkpoint {newest}"
        row["kills"] += 1
        row["lost"] += reached - newest
        row["most"] = max(row["most"], reached - newest)
        row["unfinished"] += any((run / "checkpoints").glob(".step-*"))
        done += 1
        bar.update()
    bar.close()
    print(f"{'killed':<26}{'times':>6}{'in a checkpoint':>17}{'steps lost, mean':>18}{'most':>6}")
    for kind, row in table.items():
        mean = row["lost"] / max(1, row["kills"])
        print(f"{kind:<26}{row['kills']:>6}{row['unfinished']:>17}{mean:>18.2f}{row['most']:>6}")
    minutes = (time.perf_counter() - started) / 60
    print(
        f"{done} kills: no checkpoint was damaged; {finished} trainings got to their end and left, bit for bit, what "
        f"an undisturbed one leaves ({minutes:.1f} minutes, {computing:.1f} s of computing each)"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(options.kills, options.seed, Path(temporary))
