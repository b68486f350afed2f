"""How long a step takes: some real ones, on random clips of the right shape."""

import time

import torch

from minivdm.planner.kernels import HALVES
from minivdm.planner.machine import synchronize
from minivdm.planner.workloads import workload
from minivdm.settings import Config
from minivdm.training.ema import EMA
from minivdm.training.optimizers import make_optimizer

WARM_UP = 2


def seconds_per_step(config: Config, device: torch.device, steps: int = 10) -> float:
    """Mean time of an optimizer step with all its batches, after two that are not counted."""
    training, half = config.training, HALVES.get(config.training.precision)
    with torch.device(device):
        work = workload(config)
        weights = [weight for weight in work.model.parameters() if weight.requires_grad]
        optimizer = make_optimizer(work.model, training)
        average = EMA(work.model, training.ema_decay)
        for step in range(WARM_UP + steps):
            if step == WARM_UP:
                synchronize(device)
                start = time.perf_counter()
            for _ in range(training.accumulate):
                with torch.autocast(device.type, half, enabled=half is not None):
                    loss = work.step(training.batch_size)
                loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, training.clip_grad)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(work.model, step)
        synchronize(device)
    return (time.perf_counter() - start) / steps
