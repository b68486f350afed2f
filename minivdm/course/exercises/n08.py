"""Exercises of notebook 08, tokens and flow: how a film becomes tokens and back, and what a block does to them.

The other half, rectified flow, is in `n08_flow.py`.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n08_modulation_mistakes as modulation_mistakes
from minivdm.course.exercises import n08_patch_mistakes as patch_mistakes
from minivdm.course.exercises import n08_place_mistakes as place_mistakes
from minivdm.course.exercises.n08_flow import FLOW_EXERCISES
from minivdm.course.inputs import randn

Triple = tuple[int, int, int]


def patchify(x: Tensor, patch: Triple) -> Tensor:
    t, h, w = (-side % one for side, one in zip(x.shape[2:], patch, strict=True))  # what is missing at the ends
    whole = F.pad(x, (0, w, 0, h, 0, t))
    sizes = dict(zip(("pt", "ph", "pw"), patch, strict=True))
    return rearrange(whole, "b c (t pt) (h ph) (w pw) -> b (t h w) (pt ph pw c)", **sizes)


def unpatchify(tokens: Tensor, patch: Triple, out_channels: int, grid: Triple) -> Tensor:
    sizes = dict(zip(("t", "h", "w", "pt", "ph", "pw"), (*grid, *patch), strict=True))
    return rearrange(tokens, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", **sizes, c=out_channels)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale[:, None]) + shift[:, None]


def masked_modulate(x: Tensor, shift: Tensor, scale: Tensor, shift0: Tensor, scale0: Tensor, mask: Tensor) -> Tensor:
    def of_each_frame(noisy: Tensor, clean: Tensor) -> Tensor:
        chosen = torch.where(rearrange(mask, "b t -> b t 1"), noisy[:, None], clean[:, None])
        return rearrange(chosen, "b t d -> b t 1 d")

    return x * (1 + of_each_frame(scale, scale0)) + of_each_frame(shift, shift0)


def space_time_rearrange(tokens: Tensor, T: int, S: int, axis: str) -> Tensor:
    pattern = "b (t s) d -> (b t) s d" if axis == "space" else "b (t s) d -> (b s) t d"
    return rearrange(tokens, pattern, t=T, s=S)


def pos_embed_2d(h: int, w: int, dim: int, scale: float, base_size: int | None) -> Tensor:
    half = dim // 2
    frequencies = 10000.0 ** (-torch.arange(0, half, 2, dtype=torch.float64) / half)

    def waves(count: int) -> Tensor:
        stretch = 1 if base_size is None else base_size / count
        places = torch.arange(count, dtype=torch.float64) / scale * stretch
        angles = places[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    columns, rows = repeat(waves(w), "w d -> 1 (h w) d", h=h), repeat(waves(h), "h d -> 1 (h w) d", w=w)
    return torch.cat([columns, rows], dim=2)


def attention_cost(frames: int, spatial: int, width: int, factorised: bool) -> int:
    tokens = frames * spatial
    seen_by_each = frames + spatial if factorised else tokens
    return 2 * tokens * seen_by_each * width


def _patchify_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], patch: Triple, note: str, **dtype: torch.dtype) -> Case:
        return Case({"x": randn(g, *shape, **dtype), "patch": patch}, note)

    return [
        case((2, 3, 8, 6, 5), (2, 3, 1), "a patch that divides"),
        case((1, 4, 3, 7, 10), (2, 2, 4), "a patch that divides no axis"),
        case((3, 2, 1, 9, 8), (1, 2, 2), "the model's own patch, one frame, float64", dtype=torch.float64),
        case((2, 1, 5, 3, 7), (4, 3, 5), "only time and width to be padded"),
    ]


def _unpatchify_cases(g: torch.Generator) -> list[Case]:
    def case(batch: int, patch: Triple, channels: int, grid: Triple, note: str, **dtype: torch.dtype) -> Case:
        count, volume = grid[0] * grid[1] * grid[2], patch[0] * patch[1] * patch[2]
        tokens = randn(g, batch, count, volume * channels, **dtype)
        return Case({"tokens": tokens, "patch": patch, "out_channels": channels, "grid": grid}, note)

    return [
        case(2, (2, 3, 1), 3, (4, 2, 5), "three different sides"),
        case(1, (1, 2, 2), 8, (1, 5, 4), "the model's own patch, one frame"),
        case(3, (3, 2, 4), 2, (2, 4, 3), "a large patch in float64", dtype=torch.float64),
    ]


def _modulate_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, int, int], note: str, **dtype: torch.dtype) -> Case:
        shift, scale = (2 * randn(g, shape[0], shape[2], **dtype) for _ in range(2))
        return Case({"x": randn(g, *shape, **dtype), "shift": shift, "scale": scale}, note)

    return [
        case((2, 5, 6), "a batch of tokens"),
        case((1, 3, 4), "one clip in float64", dtype=torch.float64),
        case((4, 7, 3), "more tokens than features"),
    ]


def _masked_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, int, int, int], mask: list[list[bool]], note: str, **dtype: torch.dtype) -> Case:
        names = ("shift", "scale", "shift0", "scale0")
        modulation = {name: 2 * randn(g, shape[0], shape[3], **dtype) for name in names}
        return Case({"x": randn(g, *shape, **dtype), **modulation, "mask": torch.tensor(mask)}, note)

    first, last, middle = [False, True, True, True], [True, True, True, False], [True, False, True, True]
    return [
        case((3, 4, 5, 6), [first, last, [True] * 4], "the first frame given, or the last, or none"),
        case((1, 4, 3, 2), [middle], "one clip in float64", dtype=torch.float64),
        case((2, 3, 4, 5), [[True, False, False], [True, True, False]], "frames that follow a single one"),
    ]


def _fold_cases(g: torch.Generator) -> list[Case]:
    def case(batch: int, frames: int, spatial: int, width: int, axis: str, note: str, **dtype: torch.dtype) -> Case:
        tokens = randn(g, batch, frames * spatial, width, **dtype)
        return Case({"tokens": tokens, "T": frames, "S": spatial, "axis": axis}, note)

    return [
        case(2, 3, 5, 4, "space", '"space"'),
        case(2, 3, 5, 4, "time", '"time"'),
        case(3, 4, 2, 5, "time", '"time" in float64', dtype=torch.float64),
        case(3, 2, 7, 6, "space", '"space", two frames'),
    ]


def _position_cases(g: torch.Generator) -> list[Case]:
    def case(h: int, w: int, dim: int, scale: float, base_size: int | None, note: str) -> Case:
        return Case({"h": h, "w": w, "dim": dim, "scale": scale, "base_size": base_size}, note)

    return [
        case(3, 5, 8, 1.0, None, "scale 1"),
        case(7, 2, 16, 0.25, None, "scale 1/4"),
        case(4, 6, 12, 0.5, 5, "scale 1/2, base size 5"),
        case(5, 3, 4, 1.5, 4, "scale 3/2, base size 4, the smallest width"),
    ]


def _cost_cases(g: torch.Generator) -> list[Case]:
    def case(frames: int, spatial: int, width: int, factorised: bool, note: str) -> Case:
        return Case({"frames": frames, "spatial": spatial, "width": width, "factorised": factorised}, note)

    return [
        case(5, 16, 96, False, "full attention in the toy"),
        case(5, 16, 96, True, "factorised attention in the toy"),
        case(30, 3600, 1152, False, "full attention in a film of 720p"),
        case(30, 3600, 1152, True, "factorised attention in a film of 720p"),
        case(1, 7, 4, True, "one frame, factorised"),
    ]


TOKEN_EXERCISES = (
    Exercise(
        "08.patchify",
        patchify,
        _patchify_cases,
        patch_mistakes.PATCHIFY,
        (
            "Cut the film into bricks of a few frames, rows and columns. Each brick becomes one token: all its numbers "
            "in a row. If the film does not divide, lay on night behind its end first.",
            "pad each axis at its end to a multiple of p; token (t, h, w), and in it (pt, ph, pw, c): the last letter "
            "runs fastest",
            "`-n % p` zeros per axis by `F.pad(x, (0, w, 0, h, 0, t))`, then "
            '`rearrange(x, "b c (t pt) (h ph) (w pw) -> b (t h w) (pt ph pw c)", pt=…, ph=…, pw=…)`',
        ),
    ),
    Exercise(
        "08.unpatchify",
        unpatchify,
        _unpatchify_cases,
        patch_mistakes.UNPATCHIFY,
        (
            "Lay the bricks back where they came from. It is the same pattern, read from right to left; what the "
            "tokens no longer show, how many bricks there were each way, has to be told.",
            "x[c, t·pt + i, h·ph + j, w·pw + k] = tokens[(t, h, w), (i, j, k, c)]",
            '`rearrange(tokens, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", t=…, h=…, w=…, pt=…, ph=…, '
            "pw=…)`",
        ),
    ),
    Exercise(
        "08.modulate",
        modulate,
        _modulate_cases,
        modulation_mistakes.MODULATE,
        (
            "The timestep speaks to every feature of every token of a clip alike: how much louder, how much higher. "
            "Saying nothing (0, 0) must change nothing.",
            "out[b, n, d] = x[b, n, d] · (1 + scale[b, d]) + shift[b, d]",
            "`x * (1 + scale[:, None]) + shift[:, None]`",
        ),
    ),
    Exercise(
        "08.masked_modulate",
        masked_modulate,
        _masked_cases,
        modulation_mistakes.MASKED,
        (
            "Some frames are noisy, others were given and are clean. Each frame is told the truth about itself: the "
            "noisy ones the clip's t, the clean ones t = 0.",
            "out[b, t] = x[b, t] · (1 + scale[b]) + shift[b] where mask[b, t], else x[b, t] · (1 + scale0[b]) + "
            "shift0[b]",
            "`torch.where(mask[:, :, None, None], x * (1 + scale[:, None, None]) + shift[:, None, None], "
            "x * (1 + scale0[:, None, None]) + shift0[:, None, None])`",
        ),
    ),
    Exercise(
        "08.space_time_rearrange",
        space_time_rearrange,
        _fold_cases,
        patch_mistakes.FOLD,
        (
            "Attention looks along one axis of its input and does not know the batch. Whatever is folded into the "
            "batch cannot be seen: frames, for attention in space; places, for attention in time.",
            "space: out[b·T + t, s] = tokens[b, t·S + s]; time: out[b·S + s, t] = tokens[b, t·S + s]",
            '`rearrange(tokens, "b (t s) d -> (b t) s d", t=T)` or `rearrange(tokens, "b (t s) d -> (b s) t d", s=S)`',
        ),
    ),
    Exercise(
        "08.pos_embed_2d",
        pos_embed_2d,
        _position_cases,
        place_mistakes.POSITIONS,
        (
            "Tell each token its column and its row, each by a clock of many hands. Measure in the units of a "
            "reference picture, so that the middle of a frame is the middle at every size.",
            "place = index / scale · base_size/h (rows) or base_size/w (columns); f_i = 10000^(−2i/(dim/2)); "
            "[sin(column·f), cos(column·f), sin(row·f), cos(row·f)]",
            '`repeat(waves(w), "w d -> (h w) d", h=h)` and `repeat(waves(h), "h d -> (h w) d", w=w)`, side by side, '
            "where `waves(n)` are sines and cosines of `torch.arange(n)[:, None] / scale * f`, `dim // 2` in all",
        ),
        rtol=0.0,
        atol=1e-4,
    ),
    Exercise(
        "08.attention_cost",
        attention_cost,
        _cost_cases,
        place_mistakes.COST,
        (
            "Every token asks, and is answered by, all that it can see; each question is a product of two rows, and "
            "so is each answer. How many can a token see: the whole film, or its own frame and its own place in the "
            "other frames?",
            "two matrix products of T·S tokens with what each sees, of width D: full 2·(T·S)²·D, factorised "
            "2·T·S·(T + S)·D",
            "`2 * frames * spatial * (frames + spatial if factorised else frames * spatial) * width`",
        ),
    ),
)
EXERCISES = (*TOKEN_EXERCISES, *FLOW_EXERCISES)
