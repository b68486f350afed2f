"""One training on several processes. The engine is accelerate's; here is what our models and checkpoints need of it.

    torchrun --nproc_per_node 2 -m minivdm.cli train stdit3
    accelerate launch --use_fsdp --num_processes 2 -m minivdm.cli train stdit3

In the first, every process holds the whole model and takes its share of each batch (DDP); gradients are averaged. In
the second the weights, their gradients, the moments of the optimizer and the average of the weights are shared out too
(FSDP2, Zhao et al. 2023), and a block's weights are put together only while it runs. `ACCELERATE_USE_FSDP=true` before
`torchrun` says the same; other choices of accelerate's FSDP configuration, such as its version, do not matter here.
Processes talk through NCCL on GPUs and through gloo on CPUs.

In both, the batch is `training.batch_size` clips whatever the number of processes, the same clips with the same noise.
Checkpoints are whole: a run may go on with any number of processes, sharded or not.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import FullyShardedDataParallelPlugin, gather_object
from torch import Tensor, nn

from minivdm.training.ema import EMA

# Classes whose weights are gathered at a time. Models that are not listed are gathered as one.
UNITS = {"STDiT3": ["STDiT3Block"], "Unet3D": ["Level", "Middle"]}


def make_accelerator(precision: str, model: nn.Module) -> Accelerator:
    """Devices, processes and precision for training `model`; precision is "fp32", "bf16" or "fp16"."""
    under_torchrun, sharded = "LOCAL_RANK" in os.environ, os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    plugin = None
    if under_torchrun and sharded:
        from torch.distributed.fsdp import MixedPrecisionPolicy  # its import takes a second

        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            reshard_after_forward=True,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=UNITS.get(type(model).__name__, []),
            cpu_ram_efficient_loading=False,  # it knows weights only, and our models have buffers
            mixed_precision_policy=MixedPrecisionPolicy(),  # autocast decides, as without sharding; times stay exact
        )
    accelerator = Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=under_torchrun and not torch.cuda.is_available(),  # else processes without GPUs do not find each other
        fsdp_plugin=plugin,
    )
    known: dict[str, Any] = {}
    if accelerator.device.type == "cpu":
        known["device"] = torch.device("cpu")  # of several processes it is "cpu:0", which torch.load refuses
    if plugin is not None:  # accelerate takes it on GPUs only, and only from the first Accelerator of a process
        known |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}
    for state in (PartialState(), accelerator.state):
        vars(state).update(known)
    return accelerator


def prepare(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, decay: float
) -> tuple[nn.Module, AcceleratedOptimizer, EMA]:
    """The model and its optimizer ready for the processes, and an average of the weights, sharded if they are."""
    if not accelerator.is_fsdp2:
        model, optimizer = accelerator.prepare(model, optimizer)
        return model, optimizer, EMA(accelerator.unwrap_model(model), decay)
    ema = EMA(model, decay)  # before, because a sharded model cannot be copied
    model, optimizer = accelerator.prepare(model, optimizer)
    for name, weight in model.named_parameters():
        _replace(ema.module, name, weight.detach().clone())
    for average, buffer in zip(ema.module.buffers(), model.buffers(), strict=True):
        average.data = buffer.clone()  # on the device of the model
    return model, optimizer, ema


def whole(values: Any, keep: bool = True) -> Any:
    """A state dict, or anything like one, with its sharded tensors put together, on the CPU.

    All processes must call this; those with `keep` off only lend their shares, and get empty tensors instead.
    """
    if isinstance(values, dict):
        return {name: whole(value, keep) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(whole(value, keep) for value in values)
    if not is_sharded(values):
        return values
    together = values.detach().full_tensor()
    return together.cpu() if keep else together.new_empty(0)


def load_model(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a whole state dict into a module, sharded or not."""
    current = module.state_dict()
    module.load_state_dict({name: share(value, current.get(name)) for name, value in state.items()})


def load_optimizer(optimizer: AcceleratedOptimizer, saved: dict[str, Any]) -> None:
    """Load a whole state into an optimizer of whole or sharded weights."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state = {
        number: {name: share(value, weights[number]) for name, value in entry.items()}
        for number, entry in saved["state"].items()
    }
    optimizer.load_state_dict(saved | {"state": state})


@contextlib.contextmanager
def put_together(module: nn.Module, keep: bool) -> Iterator[None]:
    """Within, the weights of `module` are whole where `keep` is on. All processes must enter."""
    shares = {name: weight for name, weight in module.named_parameters() if is_sharded(weight)}
    for name, share in shares.items():
        together = share.full_tensor()
        if keep:
            _replace(module, name, together)
    try:
        yield
    finally:
        for name, share in shares.items():
            _replace(module, name, share)


def mean_over_processes(accelerator: Accelerator, numbers: dict[str, float]) -> dict[str, float]:
    """The mean of each number over the processes that know it. All processes must call this."""
    if accelerator.num_processes == 1:
        return numbers
    everyone = gather_object([numbers])
    names = dict.fromkeys(name for each in everyone for name in each)
    known = {name: [each[name] for each in everyone if name in each] for name in names}
    return {name: sum(values) / len(values) for name, values in known.items()}


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether `flag` is set on some process. All processes must call this."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device)))


def is_sharded(value: Any) -> bool:
    """Whether it is a DTensor, of which a process holds a share; asked without importing that class."""
    return hasattr(value, "full_tensor")


def share(value: Any, like: Tensor | None) -> Any:
    """This process's share of a whole tensor, where `like` is one of the same shape."""
    if not is_sharded(like) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def _replace(module: nn.Module, name: str, weight: Tensor) -> None:
    """Put another tensor in the place of a weight that is not trained."""
    path, _, last = name.rpartition(".")
    setattr(module.get_submodule(path), last, nn.Parameter(weight, requires_grad=False))
