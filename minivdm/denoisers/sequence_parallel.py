"""One clip on several processes: an STDiT3 whose tokens are shared out, so that a large film fits and takes less time.

    with sequence_parallel(pipeline.denoiser):  # in every process, as torchrun starts them
        film = pipeline("a large red peony", seed=0)

Each process keeps some places of every frame. All layers but one treat places apart: norms, MLPs, the look at the text,
and attention along time, which sees all frames of its own places. Only attention within a frame needs all places, and
needs them frame by frame. So around it processes exchange places for frames:

    all frames, some places  --all-to-all-->  some frames, all places  --attention, all-to-all-->  and back

Open-Sora 1.2 shares out the places too (`enable_sequence_parallelism`), and exchanges heads for them around that
attention. Exchanging frames (DSP, Zhao et al. 2024) suits any number of heads, and moves one tensor there and one back
instead of three and one. What processes cannot share evenly is filled up with zeros, which no attention sees.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minivdm.denoisers.stdit3 import STDiT3
from minivdm.errors import UserError

Group = dist.ProcessGroup | None  # None: all processes


@contextlib.contextmanager
def sequence_parallel(model: STDiT3, group: Group = None) -> Iterator[STDiT3]:
    """Within, the processes of a group compute `model` together: for sampling, without gradients.

    Every process calls the model with the same inputs, and gets the whole prediction, which is that of one process up
    to rounding. Any number of places and frames will do. Under torchrun the processes find each other here, if they
    have not yet.

    Raises UserError where there is nobody to share with, and when gradients are asked for.
    """
    _join()
    ranks, rank = dist.get_world_size(group), dist.get_rank(group)
    places = 0  # of the clip that passes through now

    def take_share(block: nn.Module, inputs: tuple) -> tuple:
        nonlocal places
        if torch.is_grad_enabled():
            raise UserError("sequence parallelism is for sampling and knows no gradients: call it in torch.no_grad()")
        tokens, *others = inputs
        places = tokens.shape[2]
        return (_fill(tokens, 2, ranks).chunk(ranks, dim=2)[rank], *others)

    def look(whole_look: Callable, x: Tensor, rotation: None) -> Tensor:
        all_places = places_for_frames(x, places, group)
        return frames_for_places(whole_look(all_places, rotation), x.shape[1], group)

    def put_together(layer: nn.Module, inputs: tuple, out: Tensor) -> Tensor:
        parts = [torch.empty_like(out) for _ in range(ranks)]
        dist.all_gather(parts, out.contiguous(), group=group)
        return torch.cat(parts, dim=2)[:, :, :places]

    hooks = [
        model.spatial_blocks[0].register_forward_pre_hook(take_share),
        model.final_layer.register_forward_hook(put_together),
    ]
    for block in model.spatial_blocks:
        block.look = partial(look, block.look)
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
        for block in model.spatial_blocks:
            del block.look  # the method of its class is back


def places_for_frames(x: Tensor, places: int, group: Group = None) -> Tensor:
    """All frames of my places, (B, T, s, D), -> all places of my frames, (B, t, places, D)."""
    ranks = dist.get_world_size(group)
    parts = rearrange(_fill(x, 1, ranks), "b (rank t) s d -> rank b t s d", rank=ranks)
    return rearrange(_all_to_all(parts, group), "rank b t s d -> b t (rank s) d")[:, :, :places]


def frames_for_places(x: Tensor, frames: int, group: Group = None) -> Tensor:
    """And back: all places of my frames, (B, t, S, D), -> all frames of my places, (B, frames, s, D)."""
    ranks = dist.get_world_size(group)
    parts = rearrange(_fill(x, 2, ranks), "b t (rank s) d -> rank b t s d", rank=ranks)
    return rearrange(_all_to_all(parts, group), "rank b t s d -> b (rank t) s d")[:, :frames]


def _all_to_all(parts: Tensor, group: Group) -> Tensor:
    """Part k goes to process k; what has come from it takes the place."""
    received = torch.empty_like(parts, memory_format=torch.contiguous_format)
    dist.all_to_all_single(received, parts.contiguous(), group=group)
    return received


def _fill(x: Tensor, axis: int, ranks: int) -> Tensor:
    """Zeros at the end of an axis of x (B, T, S, D), until `ranks` divides it."""
    missing = -x.shape[axis] % ranks
    return F.pad(x, (0, 0, 0, missing) if axis == 2 else (0, 0, 0, 0, 0, missing))


def _join() -> None:
    if dist.is_initialized():
        return
    if "RANK" not in os.environ:
        raise UserError(
            "no processes to share a clip with: start them with torchrun --nproc_per_node N, "
            "or call torch.distributed.init_process_group"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
