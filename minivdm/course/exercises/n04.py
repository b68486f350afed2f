"""Exercises of notebook 04, the causal temporal VAE: fewer frames, none of which has seen the next."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from minivdm.course.exercise import Case, Exercise
from minivdm.course.exercises import n04_causality_mistakes as causality_mistakes
from minivdm.course.exercises import n04_convolution_mistakes as convolution_mistakes
from minivdm.course.exercises import n04_films as films
from minivdm.course.exercises import n04_frame_mistakes as frame_mistakes
from minivdm.course.inputs import randn


def token_count(num_frames: int, height: int, width: int, time_factor: int, space_factor: int, patch: int) -> int:
    rows, columns = (math.ceil(size / (space_factor * patch)) for size in (height, width))
    return math.ceil(num_frames / time_factor) * rows * columns


def causal_pad(kernel_size: int | tuple[int, int, int], stride: int = 1, dilation: int = 1) -> tuple[int, ...]:
    time, height, width = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
    h, w = height // 2, width // 2
    return w, w, h, h, dilation * (time - 1) + 1 - stride, 0


def causal_conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, stride_t: int = 1) -> Tensor:
    padded = F.pad(x, causal_pad(tuple(weight.shape[2:]), stride_t))
    return F.conv3d(padded, weight, bias, stride=(stride_t, 1, 1))


def latent_frames(num_frames: int, factor: int) -> int:
    return math.ceil(num_frames / factor)


def pad_front(x: Tensor, factor: int) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, -x.shape[2] % factor, 0))


def depth_to_time(x: Tensor, factor: int) -> Tensor:
    return rearrange(x, "b (c f) t h w -> b c (t f) h w", f=factor)


def stream_conv3d(chunk: Tensor, carried: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    seen = torch.cat([carried, chunk], dim=2)
    out = F.conv3d(seen, weight, bias, padding=(0, weight.shape[3] // 2, weight.shape[4] // 2))
    return out, seen[:, :, chunk.shape[2] :]


def is_causal(fn: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> bool:
    film, other = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    before = fn(film)
    for now in range(1, shape[2]):
        after = fn(torch.cat([film[:, :, :now], other[:, :, now:]], dim=2))
        if not torch.allclose(after[:, :, :now], before[:, :, :now]):
            return False
    return True


def _token_cases(g: torch.Generator) -> list[Case]:
    names = ("num_frames", "height", "width", "time_factor", "space_factor", "patch")
    listed = {
        (17, 64, 96, 4, 8, 2): "17 frames of 64 × 96",
        (17, 64, 96, 1, 8, 2): "the same without compression in time",
        (51, 360, 640, 4, 8, 2): "51 frames of 360 × 640: patches that hang over the edge",
        (1, 240, 424, 4, 8, 1): "a picture, patches of one latent pixel",
        (32, 48, 80, 2, 4, 3): "other factors",
    }
    return [Case(dict(zip(names, numbers, strict=True)), note) for numbers, note in listed.items()]


def _pad_cases(g: torch.Generator) -> list[Case]:
    def case(kernel_size: int | tuple[int, int, int], note: str, **options: int) -> Case:
        return Case({"kernel_size": kernel_size, **options}, note)

    return [
        case((2, 3, 7), "kernel (2, 3, 7)"),
        case(3, "kernel 3"),
        case(5, "kernel 5, stride 2", stride=2),
        case((4, 5, 3), "kernel (4, 5, 3), stride 1, dilation 3", stride=1, dilation=3),
        case((3, 1, 5), "kernel (3, 1, 5), stride 2, dilation 2", stride=2, dilation=2),
        case((1, 3, 3), "kernel (1, 3, 3), which sees one frame"),
    ]


def _conv_cases(g: torch.Generator) -> list[Case]:
    def case(
        shape: tuple[int, ...], kernel: tuple[int, ...], note: str, bias: bool = True, stride: int = 0, **dtype
    ) -> Case:
        args = {"x": 1 + randn(g, *shape, **dtype), "weight": randn(g, *kernel, **dtype)}
        args["bias"] = randn(g, kernel[0], **dtype) if bias else None
        return Case({**args, **({"stride_t": stride} if stride else {})}, note)

    return [
        case((2, 4, 7, 5, 6), (8, 4, 3, 5, 1), "kernel (3, 5, 1)"),
        case((1, 3, 8, 4, 5), (2, 3, 4, 1, 5), "stride 2 on 8 frames, no bias", bias=False, stride=2),
        case((3, 2, 5, 6, 4), (4, 2, 3, 5, 7), "stride 2 on 5 frames, float64", stride=2, dtype=torch.float64),
        case((1, 2, 1, 3, 4), (5, 2, 3, 1, 7), "a single frame"),
        case((2, 3, 4, 7, 5), (6, 3, 1, 5, 7), "a kernel of one frame, stride 1", stride=1),
    ]


def _latent_cases(g: torch.Generator) -> list[Case]:
    pairs = [(17, 4), (16, 4), (1, 4), (34, 4), (18, 4), (7, 2), (9, 8), (5, 1), (3, 8)]
    return [Case({"num_frames": n, "factor": f}, f"{n} frames, factor {f}") for n, f in pairs]


def _front_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], factor: int, note: str, **dtype: torch.dtype) -> Case:
        return Case({"x": 3 + randn(g, *shape, **dtype), "factor": factor}, note)

    return [
        case((2, 3, 5, 4, 6), 4, "5 frames, factor 4"),
        case((1, 3, 8, 2, 5), 4, "8 frames, factor 4: nothing to add"),
        case((3, 2, 6, 5, 4), 4, "6 frames, factor 4, float64", dtype=torch.float64),
        case((2, 4, 1, 3, 5), 8, "one frame, factor 8"),
        case((4, 2, 7, 3, 5), 1, "factor 1"),
    ]


def _depth_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], factor: int, note: str, **dtype: torch.dtype) -> Case:
        return Case({"x": randn(g, *shape, **dtype), "factor": factor}, note)

    return [
        case((2, 6, 3, 4, 5), 2, "factor 2"),
        case((1, 12, 2, 5, 3), 3, "factor 3, float64", dtype=torch.float64),
        case((3, 4, 1, 2, 6), 4, "one frame, one channel out"),
        case((2, 3, 5, 4, 6), 1, "factor 1"),
    ]


def _stream_cases(g: torch.Generator) -> list[Case]:
    def case(shape: tuple[int, ...], kernel: tuple[int, ...], note: str, bias: bool = True, **dtype) -> Case:
        before = (*shape[:2], kernel[2] - 1, *shape[3:])
        args = {"chunk": randn(g, *shape, **dtype), "carried": 2 + randn(g, *before, **dtype)}
        args["weight"] = randn(g, *kernel, **dtype)
        return Case({**args, "bias": randn(g, kernel[0], **dtype) if bias else None}, note)

    return [
        case((2, 4, 6, 5, 7), (8, 4, 3, 5, 1), "a chunk of 6 frames, 2 carried"),
        case((3, 2, 1, 6, 5), (7, 2, 4, 3, 5), "a chunk of one frame, 3 carried, float64", dtype=torch.float64),
        case((1, 3, 2, 4, 5), (2, 3, 4, 1, 5), "a chunk of 2 frames, 3 carried, no bias", bias=False),
        case((2, 3, 4, 6, 5), (4, 3, 1, 5, 7), "a kernel of one frame, nothing carried"),
    ]


def _causality_cases(g: torch.Generator) -> list[Case]:
    listed = {
        "frames by themselves": films.frame_by_frame,
        "a running sum": films.running_sum,
        "a film that comes three frames late": films.delayed,
        "a convolution padded in front": films.convolution(g, 3, ahead=0),
        "a convolution that sees the next frame": films.convolution(g, 3, ahead=1),
        "a norm over all frames": films.norm_over_time,
        "a film played backwards": films.backwards,
        "a leak that spares frame 0": films.all_but_the_first,
        "a leak inside each half of the film": films.within_halves,
        "a leak of size 0.001": films.faint,
        "a leak from frame 1 into frame 0": films.second_into_first,
        "a leak from the last frame into the first": films.last_into_first,
        "a leak from frame 2 into frame 1": films.third_into_second,
        "a leak in one corner of one sample": films.one_corner,
        "a leak into the last frame but two": films.late,
        "a leak that no black frame shows": films.gated,
    }
    shapes = [(2, 3, 7, 4, 5), (4, 3, 6, 2, 5)]  # an odd and an even number of frames, in turn
    cases = [Case({"fn": fn, "shape": shapes[i % 2]}, note) for i, (note, fn) in enumerate(listed.items())]
    picture = Case({"fn": films.all_frames, "shape": (3, 2, 1, 5, 4)}, "a single frame, which has no future")
    return [*cases, picture]


EXERCISES = (
    Exercise(
        "04.token_count",
        token_count,
        _token_cases,
        frame_mistakes.TOKEN_COUNT,
        (
            "A transformer sees patches of the latent film, one token each. Count them along each axis; what hangs "
            "over the edge is a patch too.",
            "⌈T / time_factor⌉ · ⌈H / (space_factor · patch)⌉ · ⌈W / (space_factor · patch)⌉",
            "`math.ceil(num_frames / time_factor) * math.ceil(height / (space_factor * patch)) * …`",
        ),
    ),
    Exercise(
        "04.causal_pad",
        causal_pad,
        _pad_cases,
        convolution_mistakes.CAUSAL_PAD,
        (
            "In space a window looks both ways, so both sides get half of it. In time it may look back only: all of "
            "its reach goes in front.",
            "(w, w, h, h, dilation·(k_t − 1) + 1 − stride, 0) with w and h half the spatial kernel, rounded down",
            "`kt, kh, kw = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size`, then "
            "`(kw // 2, kw // 2, kh // 2, kh // 2, dilation * (kt - 1) + 1 - stride, 0)`",
        ),
        outputs=("left", "right", "top", "bottom", "front", "back"),
    ),
    Exercise(
        "04.causal_conv3d",
        causal_conv3d,
        _conv_cases,
        convolution_mistakes.CAUSAL_CONV3D,
        (
            "Pad first, by the rule you have just written, and let the convolution itself pad nothing.",
            "conv3d(pad(x, causal_pad((k_t, k_h, k_w), stride_t)), weight, bias) with stride (stride_t, 1, 1)",
            "`x = F.pad(x, causal_pad(tuple(weight.shape[2:]), stride_t))`, then "
            "`F.conv3d(x, weight, bias, stride=(stride_t, 1, 1))`",
        ),
    ),
    Exercise(
        "04.latent_frames",
        latent_frames,
        _latent_cases,
        frame_mistakes.LATENT_FRAMES,
        (
            "Every latent frame holds up to so many frames of the film; a group that is not full needs one as well.",
            "⌈num_frames / factor⌉, so 1 + 4k frames with factor 4 become 1 + k",
            "`-(-num_frames // factor)` or `math.ceil(num_frames / factor)`",
        ),
    ),
    Exercise(
        "04.pad_front",
        pad_front,
        _front_cases,
        frame_mistakes.PAD_FRONT,
        (
            "Complete the first group with black frames before the film begins, as few as will do, and none when all "
            "groups are full.",
            "front = ⌈T / factor⌉ · factor − T frames of zeros, then x",
            "`F.pad(x, (0, 0, 0, 0, -x.shape[2] % factor, 0))`",
        ),
    ),
    Exercise(
        "04.depth_to_time",
        depth_to_time,
        _depth_cases,
        frame_mistakes.DEPTH_TO_TIME,
        (
            "Each frame carries its neighbours in its channels. Take them out and line them up in time.",
            "out[b, c, t·factor + f] = x[b, c·factor + f, t]",
            '`rearrange(x, "b (c f) t h w -> b c (t f) h w", f=factor)`',
        ),
    ),
    Exercise(
        "04.is_causal",
        is_causal,
        _causality_cases,
        causality_mistakes.IS_CAUSAL,
        (
            "Play two films that are the same up to some frame and different afterwards. Whoever cannot see the future "
            "must say the same about both up to there, wherever the cut lies.",
            "for every t: x′ = x before t and other noise from t on; fn(x′) and fn(x) must agree before t",
            "`torch.cat([x[:, :, :t], other[:, :, t:]], dim=2)` with `x` and `other` from your own generator, then "
            "`torch.allclose` on `[:, :, :t]`",
        ),
        makes_inputs=True,
    ),
    Exercise(
        "04.stream_conv3d",
        stream_conv3d,
        _stream_cases,
        convolution_mistakes.STREAM_CONV3D,
        (
            "What stands in front of the first chunk is padding; in front of every later one it is the end of what has "
            "been seen. Remember just as much as the kernel can look back.",
            "seen = carried then chunk; out = conv3d(seen) padded in space only; carry the last k_t − 1 frames of seen",
            "`seen = torch.cat([carried, chunk], dim=2)`, and carry `seen[:, :, chunk.shape[2]:]` (the slice `-0:` "
            "would keep all)",
        ),
        outputs=("out", "carried"),
    ),
)
