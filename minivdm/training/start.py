"""The task that a configuration names, whether the machine has room for it, and a line about it."""

import os
from pathlib import Path

from minivdm.config import Config
from minivdm.text.words import BagOfWords
from minivdm.training.stdit3_task import Stdit3Task
from minivdm.training.tasks import NoisePredictionTask, Task
from minivdm.training.temporal_vae_task import TemporalVaeTask
from minivdm.training.trainer import Trainer
from minivdm.training.vae2d_task import Vae2dTask


def make_task(config: Config, run: Path | None = None) -> Task:
    """The task of a configuration. With `run`, a folder to resume, its own vocabulary is taken."""
    if config.task == "unet3d":
        return NoisePredictionTask(config, words=BagOfWords.load(run / "vocabulary.json") if run else None)
    if config.task == "toy_t5":
        from minivdm.training.toy_t5_task import ToyT5Task  # it imports transformers, which takes seconds

        return ToyT5Task(config)
    return {"vae2d": Vae2dTask, "temporal_vae": TemporalVaeTask, "stdit3": Stdit3Task}[config.task](config)


def check_memory(config: Config) -> str:
    """A line about the memory that this training will take, before any is; UserError when there is too little here."""
    from minivdm.planner.report import check_training

    return check_training(config, processes=int(os.environ.get("WORLD_SIZE", "1")))


def describe(task: Task, trainer: Trainer) -> str:
    """What is about to be trained, on what, where."""
    parameters = sum(weight.numel() for weight in task.model.parameters() if weight.requires_grad)
    words = task.words.dim if isinstance(task, NoisePredictionTask) else None
    captions = "" if words is None else f"captions heard as {words} words, " if words else "no captions, "
    where = f"{trainer.accelerator.device.type}, {trainer.config.training.precision}"
    return (
        f"{parameters:,} parameters, {len(task.dataset):,} clips, {captions}{where}, "
        f"step {trainer.step} of {trainer.config.training.steps}"
    )
