"""Which latent frames are given and which are generated: strategies in words, and random masks for training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from minivdm.errors import UserError

_DEFAULTS = ["0", "0", "0", "0", "1", "0"]
KINDS = (
    "identity",
    "image_head",
    "image_tail",
    "image_head_tail",
    "image_random",
    "quarter_head",
    "quarter_tail",
    "quarter_head_tail",
    "quarter_random",
    "interpolate",
)


def find_nearest_point(value: int, point: int, end: int) -> int:
    """The multiple of `point` at or below `value`, or the next one if it is nearer and a whole block remains there."""
    block = value // point
    if value % point > point / 2 and block < end // point - 1:
        block += 1
    return block * point


def apply_mask_strategy(
    z: Tensor, references: Sequence[Tensor], strategy: str, loop: int = 0, align: int | None = None
) -> tuple[Tensor, Tensor]:
    """Put reference frames into one clip z (C, T, H, W); returns (z, edit ratio (T,): 0 is kept, 1 is generated).

    `strategy` is a list separated by ";" of "loop, reference, its start, start in z, length, edit ratio" (Open-Sora
    1.2); what is left out at the end is 0,0,0,0,1,0. References are (C, T', H, W). Negative starts count from the end;
    `align` moves starts to whole blocks; a length that is too long is cut. Raises UserError for an unreadable entry.
    """
    z, mask = z.clone(), torch.ones(z.shape[1], dtype=z.dtype, device=z.device)
    for entry in filter(str.strip, strategy.split(";")):
        of_loop, index, start, target, length, ratio = _parse(entry)
        if of_loop != loop:
            continue
        if not 0 <= index < len(references):
            raise UserError(f"mask strategy {entry!r}: there is no reference {index}, found {len(references)}")
        reference = references[index]
        start = _start(start, reference.shape[1], align, entry)
        target = _start(target, z.shape[1], align, entry)
        length = min(length, z.shape[1] - target, reference.shape[1] - start)
        z[:, target : target + length] = reference[:, start : start + length]
        mask[target : target + length] = ratio
    return z, mask


def _parse(entry: str) -> tuple[int, int, int, int, int, float]:
    fields = [field.strip() for field in entry.split(",")]
    try:
        *whole, ratio = fields + _DEFAULTS[len(fields) :]
        of_loop, index, start, target, length = map(int, whole)
        parsed = (of_loop, index, start, target, length, float(ratio))
    except ValueError:
        parsed = None
    if parsed is None or parsed[4] < 1 or not 0 <= parsed[5] <= 1:
        raise UserError(
            f"mask strategy {entry!r}: expected up to 6 numbers 'loop,reference,start,target,length,edit ratio'"
        )
    return parsed


def _start(start: int, end: int, align: int | None, entry: str) -> int:
    start = start + end if start < 0 else start
    if not 0 <= start < end:
        raise UserError(f"mask strategy {entry!r}: a start lies outside the {end} frames; choose one within")
    return start if align is None else find_nearest_point(start, align, end)


def training_mask(kind: str, frames: int, generator: torch.Generator | None = None) -> Tensor:
    """A mask (T,) of one of `KINDS`: True frames are generated, False frames are given. One frame is always True.

    "image" gives one frame at a place, "quarter" 1 to T // 4 frames, "interpolate" every second frame.
    """
    if kind not in KINDS:
        raise UserError(f"mask {kind!r}: expected one of {', '.join(KINDS)}")
    mask = torch.ones(frames, dtype=torch.bool)
    if frames == 1 or kind == "identity":
        return mask
    if kind == "interpolate":
        mask[_integer(0, 1, generator) :: 2] = False
        return mask
    size = 1 if kind.startswith("image") else _integer(1, max(1, frames // 4), generator)
    place = kind.split("_", 1)[1]
    if place == "random":
        start = _integer(0, frames - size, generator)
        mask[start : start + size] = False
    if "head" in place:
        mask[:size] = False
    if "tail" in place:
        mask[-size:] = False
    return mask


def _integer(low: int, high: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))
