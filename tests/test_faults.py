"""What goes wrong around a training: signals, disks, workers, damaged files. One line each, and nothing is lost."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from any_task import SIZES, assert_same
from tiny_runs import train

from minivdm import cli
from minivdm.config import load_preset
from minivdm.errors import UserError
from minivdm.training import batches as batches_module
from minivdm.training.batches import MOST_DEATHS, Batches
from minivdm.training.checkpoint import list_checkpoints, load_newest, replace_files
from minivdm.training.interrupts import finish_the_step, out_of_earshot
from minivdm.training.start import make_task
from minivdm.training.tasks import NoisePredictionTask
from minivdm.training.trainer import Trainer

SETTINGS = SIZES | {"training.accumulate": 1, "training.milestone_every": 2}
CONFIG = load_preset("toy", SETTINGS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happened to."""
    run = tmp_path_factory.mktemp("whole")
    train(CONFIG, run)
    return run


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_killed_at_any_instant_nothing_is_lost_but_time():
    script = Path(__file__).with_name("fault_injection.py")
    done = subprocess.run([sys.executable, script, "--kills", "8"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "8 kills: no checkpoint was damaged" in done.stdout


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_step_saves_exits_130_and_prints_the_command(tmp_path, monkeypatch, capsys, whole, number):
    run = tmp_path / "my run"
    options = [f"--{name}={value}" for name, value in SETTINGS.items()]
    loss, calls = NoisePredictionTask.loss, []
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def interrupted(self, model, batch, seeds):
        calls.append(seeds)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return loss(self, model, batch, seeds)

    monkeypatch.setattr(NoisePredictionTask, "loss", interrupted)
    assert cli.main(["train", "unet3d", "--preset", "toy", "--run", str(run), *options]) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    message, _, command = line.partition("go on with: ")
    assert message == f"minivdm: stopped after step 3, saved in {run}; "
    assert list_checkpoints(run)[-1].name == "step-00000003"
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert cli.main(shlex.split(command)[1:]) == 0
    assert_same(run, whole)


def test_the_second_ctrl_c_stops_at_once_but_not_what_a_launcher_repeats():
    asked = []
    with pytest.raises(KeyboardInterrupt, match="at once"), finish_the_step(lambda: asked.append(1)):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert len(asked) == 2
        os.kill(os.getpid(), signal.SIGINT)
    with finish_the_step(lambda: asked.append(1), alone=False):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert len(asked) == 4
    thread = threading.Thread(target=lambda: finish_the_step(asked.clear).__enter__())
    thread.start()  # a thread cannot listen to signals, and need not fail over that
    thread.join()
    assert len(asked) == 4


def test_children_do_not_hear_ctrl_c():
    with out_of_earshot():
        child = subprocess.Popen([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"],
                                 stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdout.readline() == b"here\n"
    child.send_signal(signal.SIGINT)
    time.sleep(0.1)
    assert child.poll() is None
    child.terminate()
    assert child.wait(10) == -signal.SIGTERM
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


# Disks


@contextlib.contextmanager
def full(folder):
    """Within, `folder` is a file system of its own; the call fills it up."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")

    def fill():
        with contextlib.suppress(OSError), (folder / "other").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    try:
        yield fill, (folder / "other").unlink
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder):
    """The call makes the folders of a run read-only: for the superuser by a flag, since permissions do not bind him."""

    def switch(on):
        folders = [folder / "run", folder / "run" / "checkpoints"]
        if os.geteuid() != 0:
            for each in folders:
                each.chmod(0o555 if on else 0o755)
        elif subprocess.run(["chattr", "+i" if on else "-i", *folders], capture_output=True).returncode != 0:
            pytest.skip("needs a file system that has an immutable flag")

    try:
        yield lambda: switch(True), lambda: switch(False)
    finally:
        switch(False)


@pytest.mark.parametrize("fault", [full, read_only])
def test_a_disk_that_takes_nothing_more_ends_the_run_in_one_line(tmp_path, monkeypatch, whole, fault):
    take_step, run = Trainer._optimiser_step, tmp_path / "run"
    with fault(tmp_path) as (spoil, mend):

        def spoilt(self, batches):
            if self.step == 3:  # with a checkpoint of step 2 on the disk
                spoil()
            return take_step(self, batches)

        monkeypatch.setattr(Trainer, "_optimiser_step", spoilt)
        with pytest.raises(UserError, match="make room, or make .* writable, then add --resume") as error:
            train(CONFIG, run)
        monkeypatch.setattr(Trainer, "_optimiser_step", take_step)
        reasons = {full: ("disk is full", "No space left"), read_only: ("Permission denied", "Operation not permitted")}
        assert any(reason in one_line(error) for reason in reasons[fault])
        _, state, damaged = load_newest(run)
        assert state["step"] == 2 and not damaged
        with pytest.raises(UserError, match="; make room, or make it writable") as error:
            train(CONFIG, run, resume=True)
        one_line(error)
        mend()
        train(CONFIG, run, resume=True)
        assert_same(run, whole)


def test_settings_are_the_old_ones_or_the_new_ones_and_never_half(tmp_path):
    def fail(folder):
        CONFIG.save(folder / "config.yaml")
        raise OSError(28, "No space left on device")

    (tmp_path / "config.yaml").write_text("old")
    with pytest.raises(UserError, match="cannot write to .*: No space left on device; make room") as error:
        replace_files(tmp_path, fail)
    one_line(error)
    assert (tmp_path / "config.yaml").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["config.yaml"]
    replace_files(tmp_path, lambda folder: ((folder / "a").mkdir(), (folder / "a" / "b").write_text("new")))
    replace_files(tmp_path, lambda folder: (folder / "config.yaml").write_text("new"))
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")} == {"config.yaml"}
    assert (tmp_path / "a" / "b").read_text() == (tmp_path / "config.yaml").read_text() == "new"


# Checkpoints


def test_a_damaged_checkpoint_is_passed_over_and_written_again(tmp_path, capsys, whole):
    train(CONFIG, tmp_path / "run", stop=5)
    newest = list_checkpoints(tmp_path / "run")[-1]
    with (newest / "optimizer.pt").open("rb+") as file:
        file.seek(100)
        file.write(b"\xff\x00\xff")
    train(CONFIG, tmp_path / "run", stop=5, resume=True)
    said = (
        "checkpoint step-00000005 is damaged (optimizer.pt has changed since it was written); using the one before it"
    )
    assert said in capsys.readouterr().out.splitlines()
    _, state, damaged = load_newest(tmp_path / "run")
    assert state["step"] == 5 and not damaged
    train(CONFIG, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)


# Workers


class Deadly(batches_module.Dataset):
    """A clip that kills whoever loads it, as long as a file is there; `once` removes the file first."""

    def __init__(self, dataset, clip, file, once):
        self.dataset, self.clip, self.file, self.once = dataset, clip, file, once

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, which):
        if which[0] == self.clip and self.file.exists():
            if self.once:
                self.file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.dataset[which]

    def captions(self):
        return self.dataset.captions()


def test_a_worker_that_dies_is_replaced_and_nothing_changes(tmp_path, capsys, whole):
    config = load_preset("toy", SETTINGS | {"data.workers": 1})
    task = make_task(config)
    task.dataset = Deadly(task.dataset, 4, tmp_path / "deadly", once=True)
    (tmp_path / "deadly").touch()
    Trainer(task, config, tmp_path / "run", progress=False).run()
    assert "a data worker died (exited unexpectedly); new ones go on at batch " in capsys.readouterr().out
    assert_same(tmp_path / "run", whole)
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_workers_that_keep_dying_end_the_run_in_one_line(monkeypatch, tmp_path):
    def die(loader):
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
        yield

    task, said = make_task(CONFIG), []
    trainer = Trainer(task, CONFIG, tmp_path, progress=False)
    monkeypatch.setattr(batches_module, "_start", die)
    with pytest.raises(
        UserError, match=f"died {MOST_DEATHS} times at batch 4 .*--data.workers, then --resume"
    ) as error:
        next(Batches(task.dataset, CONFIG, trainer.accelerator).from_number(4, said.append))
    one_line(error)
    assert len(said) == MOST_DEATHS - 1

    def other(loader):
        raise RuntimeError("shapes do not match")
        yield

    monkeypatch.setattr(batches_module, "_start", other)
    with pytest.raises(RuntimeError, match="shapes"):
        next(Batches(task.dataset, CONFIG, trainer.accelerator).from_number(4, said.append))

    def from_worker(loader):
        raise UserError(
            "Caught UserError in DataLoader worker 0.\nTraceback\nminivdm.errors.UserError: no clip can be read\n"
        )
        yield

    monkeypatch.setattr(batches_module, "_start", from_worker)
    with pytest.raises(UserError) as error:
        next(Batches(task.dataset, CONFIG, trainer.accelerator).from_number(4, said.append))
    assert one_line(error) == "no clip can be read"
