"""The batches of a run by their number. Worker processes that die are replaced, and nothing changes."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from minivdm.config import Config
from minivdm.data.bucket_batches import BucketBatches
from minivdm.data.bucketed import Bucketed
from minivdm.errors import UserError
from minivdm.training.interrupts import out_of_earshot
from minivdm.training.randomness import CountedBatches, stream_seed
from minivdm.training.tasks import collate

Batch = tuple[dict[str, Any], list[int]]  # what a task's loss takes; "seed" in it is the whole batch's; one per clip
MOST_DEATHS = 3  # of workers at one batch


class Batches:
    """One process's share of each batch: a function of the batch's number, whoever loads it and when."""

    def __init__(self, dataset: Dataset, config: Config, accelerator: Accelerator):
        self.dataset, self.config, self.accelerator = dataset, config, accelerator

    def from_number(self, first: int, say: Callable[[str], None] = print) -> Iterator[Batch]:
        """Batches `first`, `first + 1`, … to the end of the run; `say` hears of workers that died.

        Raises UserError when workers die at the same batch again and again.
        """
        number, deaths, stop = first, 0, self._sampler(first).stop
        while number < stop:
            try:
                for batch in _start(self._loader(number)):
                    yield self._ready(batch, number)
                    number, deaths = number + 1, 0
            except RuntimeError as error:
                died = re.search(r"DataLoader worker \(pid.*?(exited unexpectedly|killed by signal: \w+)", str(error))
                if died is None:
                    raise
                deaths += 1
                if deaths == MOST_DEATHS:
                    raise UserError(
                        f"a data worker died {deaths} times at batch {number} ({died[1]}), which is what happens when "
                        f"memory runs out: use fewer with --data.workers, then --resume"
                    ) from None
                say(f"a data worker died ({died[1]}); new ones go on at batch {number}")
            except UserError as error:  # from a worker, wrapped in its traceback
                raise UserError(str(error).rpartition("UserError: ")[2].removesuffix(r"\n")) from None

    def again(self, number: int) -> tuple[Batch, list[str]]:
        """Batch `number`, loaded here, and a name for each clip in it."""
        chosen = next(iter(self._sampler(number)))
        items = [self.dataset[which] for which in chosen]
        names = []
        for (index, _), item in zip(chosen, items, strict=True):
            caption = f'"{item["caption"]}"' if item.get("caption") else ""
            names.append(" ".join(filter(None, [f"clip {index}", item.get("path"), caption])))
        return self._ready(collate(items), number), names

    def _sampler(self, first: int) -> CountedBatches | BucketBatches:
        training, accelerator = self.config.training, self.accelerator
        share = {"rank": accelerator.process_index, "world": accelerator.num_processes}
        share |= {"first": first, "stop": training.steps * training.accumulate}
        if isinstance(self.dataset, Bucketed):
            return self.dataset.batches(self.config.seed, **share)
        return CountedBatches(len(self.dataset), self.config.seed, training.batch_size, **share)

    def _loader(self, first: int) -> DataLoader:
        workers = self.config.data.workers
        return DataLoader(
            self.dataset,
            batch_sampler=self._sampler(first),
            collate_fn=collate,
            num_workers=workers,
            pin_memory=self.accelerator.device.type == "cuda",
            generator=torch.Generator(),
            multiprocessing_context="spawn" if workers else None,
        )

    def _ready(self, batch: dict[str, Any], number: int) -> Batch:
        """On the device, with the seeds: of its clips, and of the first one of all processes, for what they share."""
        counters = self._sampler(number).counters(number)
        first = counters.start - self.accelerator.process_index * len(counters)
        shared, *seeds = (stream_seed(self.config.seed, "noise", counter) for counter in (first, *counters))
        return self._on_device(batch) | {"seed": shared}, seeds

    def _on_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {
            name: part.to(self.accelerator.device, non_blocking=True) if isinstance(part, torch.Tensor) else part
            for name, part in batch.items()
        }


def _start(loader: DataLoader) -> Iterator[dict[str, Any]]:
    """An iterator whose workers do not hear Ctrl-C, and whose death is noticed when a batch is asked for.

    Torch would raise at the instant of the death, in the middle of whatever the training is at: an optimiser step, say.
    """
    if not loader.num_workers:
        return iter(loader)
    with out_of_earshot():
        iterator = iter(loader)
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return iterator
