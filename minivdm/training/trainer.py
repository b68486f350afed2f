"""The training loop: steps, averages, logs, milestones, and resuming as if nothing had happened.

    trainer = Trainer(NoisePredictionTask(config), config, Path("runs/fireworks"))
    trainer.run()

A run folder holds `config.yaml`, `metrics.jsonl`, a TensorBoard log, `loss.png`, `samples/` and `checkpoints/`. A
resumed run equals an uninterrupted one bit for bit on CPU: the order of the clips and all noise are functions of the
clip's number in the run (`randomness.py`), and the checkpoint holds the rest. Devices, precision and processes are
accelerate's work.
"""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from minivdm.allocator import keep_freed_memory
from minivdm.config import Config
from minivdm.errors import UserError
from minivdm.training.batches import Batch, Batches
from minivdm.training.checkpoint import (
    list_checkpoints,
    load_newest,
    read_optimizer,
    read_tensors,
    replace_files,
    save_checkpoint,
)
from minivdm.training.interrupts import Interrupted, finish_the_step, stopped
from minivdm.training.learning_rate import learning_rate
from minivdm.training.not_finite import blame, restore
from minivdm.training.optimizers import make_optimizer
from minivdm.training.precision import autocast, choose_precision, forget_precision
from minivdm.training.run_log import RunLog
from minivdm.training.sharding import (
    any_process,
    load_model,
    load_optimizer,
    make_accelerator,
    mean_over_processes,
    prepare,
    put_together,
    whole,
)
from minivdm.training.tasks import Task
from minivdm.viz import loss_curve

MOST_LEFT_OUT = 5  # steps in a row; then it is not the batch
SHOWN = ("loss", "clips_per_second")  # beside the progress bar


class Trainer:
    """Trains `task.model` as `config.training` says and keeps everything in the folder `run`.

    Where the precision is "auto", `config` is told what was chosen, so that the run goes on with that.
    """

    def __init__(self, task: Task, config: Config, run: Path, resume: bool = False, progress: bool = True):
        """With `resume` the newest whole checkpoint of `run` is loaded.

        Raises UserError when there is nothing to resume, or when `run` holds a run and `resume` is off.
        """
        self.task, self.config, self.run_dir = task, config, Path(run)
        self.show_progress = progress
        training = config.training
        if list_checkpoints(self.run_dir) and not resume:
            raise UserError(
                f"{self.run_dir} already holds {list_checkpoints(self.run_dir)[-1].name}; "
                f"add --resume to go on, or choose another --run"
            )
        setting, (training.precision, why) = training.precision, choose_precision(training.precision)
        forget_precision(training.precision)
        self.accelerator: Accelerator = make_accelerator(training.precision, task.model)
        if setting == "auto":
            self.accelerator.print(f"training.precision auto: {training.precision}, because {why}")
        world = self.accelerator.num_processes
        if training.batch_size % world:
            raise UserError(
                f"training.batch_size {training.batch_size} cannot be shared by {world} processes; "
                f"use {training.batch_size // world * world + world}"
            )
        optimizer = make_optimizer(task.model, training)
        self.model, self.optimizer, self.ema = prepare(self.accelerator, task.model, optimizer, training.ema_decay)
        self._batches = Batches(task.dataset, config, self.accelerator)
        self.step, self._loss_sum, self._loss_count = 0, 0.0, 0
        self._left_out, self._left_out_in_a_row = 0, 0
        self._stop, self._alarm = False, None
        if resume:
            self._load()

    @property
    def _unwrapped(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.model)

    @property
    def is_main(self) -> bool:
        """True on the one process that writes files."""
        return self.accelerator.is_main_process

    def run(self) -> Path:
        """Train up to `training.steps`; returns the run folder.

        Raises UserError when a loss or gradient is not finite (but see `training.not_finite`), when data workers die
        again and again, and when the disk is full or not writable; Interrupted after Ctrl-C or SIGTERM.
        """
        training = self.config.training
        keep_freed_memory()  # again, since `watch_memory` undoes it
        log = None
        if self.is_main:
            replace_files(self.run_dir, self.task.save)
            log = RunLog(self.run_dir, self.step, self._loss_count > 0 and self.step < training.steps)
        bar = tqdm(
            total=training.steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=not (self.show_progress and self.is_main),
        )
        batches, since = self._batches.from_number(self.step * training.accumulate, self._say), time.perf_counter()
        with finish_the_step(self._stop_soon, alone=self.accelerator.num_processes == 1), bar, log or nullcontext():
            if self._is_milestone() and not any((self.run_dir / "samples").glob(f"step-{self.step:08d}.*")):
                self._show(log)  # the run was killed after its checkpoint was written and before that
            while self.step < training.steps:
                rate = self.learning_rate(self.step)
                taken = self._optimiser_step(batches)
                self._stop = any_process(self.accelerator, self._stop)
                self.step += 1
                if taken:
                    self._loss_sum, self._loss_count = self._loss_sum + taken[0], self._loss_count + 1
                bar.update()
                due = self.step % training.log_every == 0
                if due or self.step == training.steps:
                    elapsed, since = time.perf_counter() - since, time.perf_counter()
                    row = {"step": self.step} | self._numbers(rate, taken, elapsed)
                    if due:  # else these losses count again if the run is made longer
                        self._loss_sum, self._loss_count = 0.0, 0
                    self._ring()
                    bar.set_postfix_str(", ".join(f"{name} {row[name]:.4g}" for name in SHOWN if name in row))
                    if log:
                        log.write(row)
                if self._is_milestone():
                    self._milestone(log)
                elif self._stop:
                    self.save()
                if self._stop and self.step < training.steps:
                    raise Interrupted(stopped(self.step, self.task.name, self.run_dir))
        return self.run_dir

    def learning_rate(self, step: int) -> float:
        """The rate of step number `step`, 0-based."""
        return learning_rate(self.config.training, step)

    def save(self) -> None:
        """Write a checkpoint of the present step. Every process must call this; one writes."""
        states = (self._unwrapped.state_dict(), self.ema.module.state_dict(), self.optimizer.state_dict())
        model, ema, optimizer = whole(states, keep=self.is_main)
        if not self.is_main:
            return
        saved = {"optimizer": optimizer}
        if self.accelerator.scaler is not None:
            saved["scaler"] = self.accelerator.scaler.state_dict()
        state = {"loss_sum": self._loss_sum, "loss_count": self._loss_count}
        state |= {"left_out": self._left_out, "left_out_in_a_row": self._left_out_in_a_row}
        state |= {"next_rate": self.learning_rate(self.step), "clips": len(self.task.dataset)}
        keep = self.config.training.keep_checkpoints
        save_checkpoint(self.run_dir, self.step, model, ema, saved, state, keep, self.task.save)

    def _optimiser_step(self, batches: Iterator[Batch]) -> tuple[float, float] | None:
        """One step of `accumulate` batches: the mean loss and the gradient norm. None when it was left out."""
        training = self.config.training
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        self.model.train()
        buffers = [buffer.clone() for buffer in self._unwrapped.buffers()]
        total = 0.0
        for micro in range(training.accumulate):
            last = micro == training.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model), autocast(self.accelerator):
                loss = self._loss(next(batches)).mean() / training.accumulate
                self.accelerator.backward(loss)
            total += self.accelerator.reduce(loss.detach(), "mean").item()
        gradient_norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), training.clip_grad))
        # fp16 skips a step whose gradients overflow and lowers its scale; at 1 there is nothing left to lower
        scaled = self.accelerator.scaler is not None and self.accelerator.scaler.get_scale() > 1
        if not math.isfinite(total) or not (math.isfinite(gradient_norm) or scaled):
            self._leave_out(buffers, total)
            return None
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self._unwrapped, self.step)
        self._left_out_in_a_row = 0
        return total, gradient_norm

    def _loss(self, batch: Batch) -> Tensor:
        return self.task.loss(self.model, *batch)

    def _leave_out(self, buffers: list[Tensor], total: float) -> None:
        """Undo a step that is not finite, say where it broke, and raise UserError if that is to end the run."""
        training = self.config.training
        numbers = range(self.step * training.accumulate, (self.step + 1) * training.accumulate)
        restore(self._unwrapped, buffers)
        with autocast(self.accelerator):
            found = blame(self._unwrapped, self._batches, numbers, self._loss)
        found = f"step {self.step}: {found or 'the sum of the gradients is not finite'} (loss {total:.4g})"
        if training.not_finite == "stop" or self._left_out_in_a_row + 1 == MOST_LEFT_OUT:
            self.save()
            raise UserError(
                f"{found}; the state before this step is saved in {self.run_dir}; lower training.learning_rate, set "
                f"training.precision fp32 or training.not_finite skip, or take out those clips, then --resume"
            )
        self._left_out, self._left_out_in_a_row = self._left_out + 1, self._left_out_in_a_row + 1
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.update()
        self._say(f"{found}; left out ({self._left_out} so far)")

    def _numbers(self, rate: float, taken: tuple[float, float] | None, elapsed: float) -> dict[str, float]:
        """What is logged: means since the last line, and numbers of the last step if it was taken."""
        training, row = self.config.training, {}
        if self._loss_count:
            row["loss"] = self._loss_sum / self._loss_count
        row["learning_rate"] = rate
        if taken and math.isfinite(taken[1]):
            row["gradient_norm"] = taken[1]
        row["clips_per_second"] = round(self._loss_count * training.batch_size * training.accumulate / elapsed, 2)
        if training.not_finite == "skip":
            row["left_out"] = self._left_out
        numbers = self.task.metrics() if taken else {}
        return row | mean_over_processes(self.accelerator, numbers)

    def _is_milestone(self) -> bool:
        training = self.config.training
        return self.step > 0 and (self.step % training.milestone_every == 0 or self.step == training.steps)

    def _milestone(self, log: RunLog | None) -> None:
        """Checkpoint first, then what a person looks at."""
        if log:
            log.settle()
        self.save()
        self._show(log)

    def _show(self, log: RunLog | None) -> None:
        """Write sample clips and the loss curve."""
        with put_together(self.ema.module, keep=self.is_main):
            if log is None:
                return
            folder = self.run_dir / "samples"
            folder.mkdir(exist_ok=True)
            self.task.show(self.ema.module, folder / f"step-{self.step:08d}", self.config.seed)
        loss_curve(log.path, self.run_dir / "loss.png")

    def _ring(self) -> None:
        """Say what goes wrong, once."""
        alarm = self.task.alarm()
        if alarm and not self._alarm:
            self._say(f"step {self.step}: {alarm}")
        self._alarm = alarm

    def _say(self, line: str) -> None:
        """Print beside the progress bar."""
        if self.is_main:
            tqdm.write(line)

    def _load(self) -> None:
        folder, state, damaged = load_newest(self.run_dir)
        for line in damaged:
            self.accelerator.print(line)
        load_model(self._unwrapped, read_tensors(folder / "model.safetensors"))
        load_model(self.ema.module, read_tensors(folder / "ema.safetensors"))
        saved = read_optimizer(folder / "optimizer.pt", self.accelerator.device)
        if len(saved["optimizer"]["param_groups"]) != len(self.optimizer.param_groups):
            kind = self.config.training.optimizer
            raise UserError(f"{self.run_dir} was not begun with training.optimizer {kind}; a run keeps its optimizer")
        load_optimizer(self.optimizer, saved["optimizer"])
        if self.accelerator.scaler is not None and "scaler" in saved:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        self.step, self._loss_sum, self._loss_count = state["step"], state["loss_sum"], state["loss_count"]
        self._left_out, self._left_out_in_a_row = state.get("left_out", 0), state.get("left_out_in_a_row", 0)
        rate, clips = self.learning_rate(self.step), len(self.task.dataset)
        if self.step < self.config.training.steps and (planned := state.get("next_rate", rate)) != rate:
            self.accelerator.print(
                f"from step {self.step} the learning rate is {rate:.3g}, not {planned:.3g} as planned"
            )
        if (before := state.get("clips", clips)) != clips:
            self.accelerator.print(f"the data set has {clips} clips, not {before} as before: their order changes")

    def _stop_soon(self) -> None:
        self._stop = True
