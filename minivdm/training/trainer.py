"""The training loop: steps, averages, logs, milestones, and resuming as if nothing had happened.

    trainer = Trainer(NoisePredictionTask(config), config, Path("runs/fireworks"))
    trainer.run()

A run folder holds `config.yaml`, `metrics.jsonl`, a TensorBoard log, `loss.png`, `samples/` and `checkpoints/`. A
resumed run equals an uninterrupted one bit for bit on CPU: the order of the clips and all noise are functions of the
clip's number in the run (`randomness.py`), and the checkpoint holds the rest. Devices, precision and processes are
accelerate's work.
"""

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from minivdm.config import Config
from minivdm.errors import UserError
from minivdm.training.allocator import keep_freed_memory
from minivdm.training.checkpoint import list_checkpoints, load_newest, read_tensors, save_checkpoint
from minivdm.training.randomness import CountedBatches, stream_seed
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
from minivdm.training.tasks import Task, collate
from minivdm.viz import loss_curve


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came; the step was finished and saved. The message holds the command that goes on."""


class Trainer:
    """Trains `task.model` as `config.training` says and keeps everything in the folder `run`."""

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
        self.accelerator: Accelerator = make_accelerator(training.precision, task.model)
        world = self.accelerator.num_processes
        if training.batch_size % world:
            raise UserError(
                f"training.batch_size {training.batch_size} cannot be shared by {world} processes; "
                f"use {training.batch_size // world * world + world}"
            )
        weights = [weight for weight in task.model.parameters() if weight.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=training.learning_rate, betas=(0.9, 0.99), foreach=True)
        self.model, self.optimizer, self.ema = prepare(self.accelerator, task.model, optimizer, training.ema_decay)
        self.step, self._loss_sum, self._loss_count = 0, 0.0, 0
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

        Raises UserError when a loss or gradient is not finite or the disk is full, Interrupted after Ctrl-C.
        """
        training = self.config.training
        keep_freed_memory()
        if self.is_main:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self.task.save(self.run_dir)
            self._forget_lines_after(self.step)
        writer = SummaryWriter(self.run_dir / "tensorboard", purge_step=self.step + 1) if self.is_main else None
        bar = tqdm(
            total=training.steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=not (self.show_progress and self.is_main),
        )
        batches, since = self._batches(), time.perf_counter()
        with self._finish_step_on_ctrl_c(), bar:
            while self.step < training.steps:
                loss, gradient_norm, rate = self._optimiser_step(batches)
                self._stop = any_process(self.accelerator, self._stop)
                self.step += 1
                self._loss_sum, self._loss_count = self._loss_sum + loss, self._loss_count + 1
                bar.update()
                if self.step % training.log_every == 0 or self.step == training.steps:
                    elapsed, since = time.perf_counter() - since, time.perf_counter()
                    speed = self._loss_count * training.batch_size * training.accumulate / elapsed
                    row = {
                        "step": self.step,
                        "loss": self._loss_sum / self._loss_count,
                        "learning_rate": rate,
                        "gradient_norm": gradient_norm,
                        "clips_per_second": round(speed, 2),
                    }
                    row |= mean_over_processes(self.accelerator, self.task.metrics())
                    self._loss_sum, self._loss_count = 0.0, 0
                    self._ring(bar)
                    bar.set_postfix_str(f"loss {row['loss']:.4f}, {speed:.0f} clips/s")
                    if writer:
                        self._log(writer, row)
                if self.step % training.milestone_every == 0 or self.step == training.steps:
                    self._milestone(writer)
                elif self._stop:
                    self.save()
                if self._stop and self.step < training.steps:
                    raise Interrupted(
                        f"stopped after step {self.step}, saved in {self.run_dir}; go on with: "
                        f"minivdm train {self.task.name} --run {self.run_dir} --resume"
                    )
        if writer:
            writer.close()
        return self.run_dir

    def learning_rate(self, step: int) -> float:
        """Rises over `warmup` steps, stays, and after the fraction `decay_from` of all steps falls to 0 (cosine)."""
        training = self.config.training
        start = training.decay_from * training.steps
        fall = (
            1.0 if step < start else 0.5 * (1 + math.cos(math.pi * (step - start) / max(1.0, training.steps - start)))
        )
        return training.learning_rate * min(1.0, (step + 1) / (training.warmup + 1)) * fall

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
        keep = self.config.training.keep_checkpoints
        folder = save_checkpoint(self.run_dir, self.step, model, ema, saved, state, keep)
        self.task.save(folder)

    def _optimiser_step(self, batches: Iterator[tuple[dict[str, Any], list[int]]]) -> tuple[float, float, float]:
        """One step of `accumulate` batches. Returns the mean loss, the gradient norm and the learning rate."""
        training = self.config.training
        rate = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        total = 0.0
        for micro in range(training.accumulate):
            batch, seeds = next(batches)
            last = micro == training.accumulate - 1
            with (
                contextlib.nullcontext() if last else self.accelerator.no_sync(self.model),
                self.accelerator.autocast(),
            ):
                loss = self.task.loss(self.model, batch, seeds).mean() / training.accumulate
                self.accelerator.backward(loss)
            total += self.accelerator.reduce(loss.detach(), "mean").item()
        gradient_norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), training.clip_grad))
        scaled = self.accelerator.scaler is not None  # fp16 skips a step whose gradients overflow and lowers its scale
        if not math.isfinite(total) or not (math.isfinite(gradient_norm) or scaled):
            self.save()
            raise UserError(
                f"step {self.step}: {self._first_broken(total)}; the weights before this step are saved in "
                f"{self.run_dir}; lower training.learning_rate or set training.precision fp32, then --resume"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self._unwrapped, self.step)
        return total, gradient_norm, rate

    def _batches(self) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Batches from the present step on, each with one seed per clip."""
        training, accelerator = self.config.training, self.accelerator
        sampler = CountedBatches(
            len(self.task.dataset),
            self.config.seed,
            training.batch_size,
            first=self.step * training.accumulate,
            stop=training.steps * training.accumulate,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        workers = self.config.data.workers
        loader = DataLoader(
            self.task.dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=accelerator.device.type == "cuda",
            generator=torch.Generator(),
            multiprocessing_context="spawn" if workers else None,
        )
        for number, batch in enumerate(loader, start=sampler.first):
            for name, part in batch.items():
                if isinstance(part, torch.Tensor):
                    batch[name] = part.to(accelerator.device, non_blocking=True)
            yield batch, [stream_seed(self.config.seed, "noise", counter) for counter in sampler.counters(number)]

    def _milestone(self, writer: SummaryWriter | None) -> None:
        """Checkpoint first, then what a person looks at: sample clips and the loss curve."""
        self.save()
        with put_together(self.ema.module, keep=self.is_main):
            if writer is None:
                return
            folder = self.run_dir / "samples"
            folder.mkdir(exist_ok=True)
            self.task.show(self.ema.module, folder / f"step-{self.step:08d}", self.config.seed)
        loss_curve(self.run_dir / "metrics.jsonl", self.run_dir / "loss.png")

    def _ring(self, bar: tqdm) -> None:
        """Say what goes wrong, once."""
        alarm = self.task.alarm()
        if alarm and not self._alarm and self.is_main:
            bar.write(f"step {self.step}: {alarm}")
        self._alarm = alarm

    def _load(self) -> None:
        folder, state, damaged = load_newest(self.run_dir)
        for line in damaged:
            self.accelerator.print(line)
        load_model(self._unwrapped, read_tensors(folder / "model.safetensors"))
        load_model(self.ema.module, read_tensors(folder / "ema.safetensors"))
        saved = torch.load(folder / "optimizer.pt", map_location=self.accelerator.device, weights_only=True)
        load_optimizer(self.optimizer, saved["optimizer"])
        if self.accelerator.scaler is not None and "scaler" in saved:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        self.step, self._loss_sum, self._loss_count = state["step"], state["loss_sum"], state["loss_count"]

    def _log(self, writer: SummaryWriter, row: dict[str, float]) -> None:
        with (self.run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if name != "step":
                writer.add_scalar(name, value, row["step"])

    def _forget_lines_after(self, step: int) -> None:
        """Log lines of steps that a resumed run is about to take again."""
        path = self.run_dir / "metrics.jsonl"
        if path.is_file():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
            path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def _first_broken(self, loss: float) -> str:
        """Which number stopped being finite, and the first module whose gradient holds it."""
        for name, parameter in self._unwrapped.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                return f"the loss is {loss} and the gradient of {name} is not finite"
        return f"the loss is {loss}"

    @contextlib.contextmanager
    def _finish_step_on_ctrl_c(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def remember(signum: int, frame: Any) -> None:
            self._stop = True

        previous = signal.signal(signal.SIGINT, remember)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
