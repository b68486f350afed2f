"""Recompute Open-Sora 2.0's sampling: schedule, guidance, tokens, sizes, given frames, and its two samplers."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from minivdm.diffusion import latent_tokens, open_sora2
from minivdm.diffusion.flow_euler import euler_flow, shift_sigma
from minivdm.diffusion.guidance import oscillating
from minivdm.errors import UserError
from minivdm.parity import state_dict

Outputs = Iterator[tuple[str, Tensor, str]]  # name, our value, tolerance

_SCALES = (7.5, 3.0)  # of the rows of the table of oscillation
_LINE = ((100, 0.5), (900, 1.15))
_NAMED = [(name, ratio) for name in ("256px", "768px", "360p") for ratio in ("16:9", "9:16", "1:1", "4:3", "2.39:1")]


@torch.no_grad()
def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """A case is named after what it shows; conditions and samplers have their settings at the end."""
    for case, settings in cases.items():
        family = next((name for name in _FAMILIES if case.startswith(name)), None)
        if family is None:
            raise UserError(f"unknown case {case!r}: known are {', '.join(_FAMILIES)}")
        inputs, outputs = (state_dict(tensors, f"{case}/{part}/") for part in ("in", "out"))
        arguments = {"case": case, "config": config, "settings": settings, "inputs": inputs, "outputs": outputs}
        for name, ours, kind in _FAMILIES[family](**arguments):
            yield f"{case}/out/{name}", ours, tensors[f"{case}/out/{name}"], kind


def _schedule(config: dict, outputs: dict, **rest) -> Outputs:
    shifts = {"": None, "_noshift": 1.0, "_alpha": config["flow_shift"]}
    for name in outputs:
        if match := re.fullmatch(r"n(\d+)_seq(\d+)_f(\d+)(|_noshift|_alpha)", name):
            steps, tokens, frames = map(int, match.groups()[:3])
            yield name, _table(open_sora2.schedule(steps, tokens, frames, shifts[match[4]])), "table"
    for name, points in (("lin_y", ()), ("lin_y_custom", _LINE)):
        yield name, _table([open_sora2.line_through(x, *points) for x in outputs["lin_x"].tolist()]), "table"
    yield "lin_x", outputs["lin_x"], "exact"  # recorded among the outputs, though it is what goes in


def _time_shift(inputs: dict, outputs: dict, **rest) -> Outputs:
    for name in outputs:
        yield name, shift_sigma(inputs["t"], float(name.removeprefix("alpha"))), "table"


def _oscillation(outputs: dict, **rest) -> Outputs:
    for name, table in outputs.items():
        forced = (int(name.removeprefix("table_force")),) if "force" in name else ()
        rows = [[oscillating(scale, step, *forced) for step in range(table.shape[-1])] for scale in _SCALES]
        yield name, _table(rows if table.ndim == 2 else rows[0]), "table"


def _pack(config: dict, inputs: dict, outputs: dict, **rest) -> Outputs:
    x, patch = inputs["x"], config["ps"]
    frames, height, width = x.shape[2], *(side // patch * latent_tokens.PIXELS for side in x.shape[3:])
    packed = latent_tokens.pack(x, patch)
    yield "packed", packed, "table"
    yield "pixel_hw", torch.tensor([height, width]), "exact"
    yield "unpacked", latent_tokens.unpack(packed, height, width, frames, patch), "table"
    yield "unpacked_nonmultiple", latent_tokens.unpack(packed, height - 5, width - 15, frames, patch), "table"


def _noise(config: dict, **rest) -> Outputs:
    batch, height, width, frames, seed, patch, channels = config["noise"]
    yield "noise", latent_tokens.start_noise(batch, channels, frames, height, width, seed, patch), "exact"


def _positions(config: dict, inputs: dict, outputs: dict, **rest) -> Outputs:
    x, patch = inputs["x"], config["ps"]
    yield "img", latent_tokens.pack(x, patch), "table"
    rows, columns = (side // patch for side in x.shape[3:])
    yield "img_ids", latent_tokens.token_positions(x.shape[2], rows, columns, len(x)), "exact"
    yield "txt_ids", torch.zeros(len(x), outputs["txt_ids"].shape[1], 3), "exact"


def _reference_noise(inputs: dict, outputs: dict, **rest) -> Outputs:
    for name in outputs:
        t = float(name.removeprefix("t"))
        yield name, open_sora2.noised_references(inputs["ref"], inputs["masks"], inputs["noise"], t), "table"


def _sizes(config: dict, **rest) -> Outputs:
    yield "hw", torch.tensor([latent_tokens.whole_size(*size) for size in config["sanitize"]]), "exact"
    yield "named", torch.tensor([latent_tokens.named_size(*name) for name in _NAMED]), "exact"


def _condition(case: str, settings: dict, inputs: dict, outputs: dict, **rest) -> Outputs:
    kind = re.fullmatch(r"cond(?:long)?_(\w+?)(?:_causal[01])?", case)[1]
    references = [inputs[name] for name in sorted(inputs) if name.startswith("ref")]

    def placed(z: Tensor) -> tuple[Tensor, ...]:
        causal = settings.get("causal", True)
        clips = [open_sora2.place_references(kind, clip, references, causal) for clip in z]
        return tuple(torch.stack(part) for part in zip(*clips, strict=True))

    masks, latents = placed(inputs["z"])
    yield "masks", masks, "exact"
    yield "masked_z", latents, "table"
    if "masks_single" in outputs:
        yield "masks_single", placed(inputs["z"][:, :, :1])[0], "exact"


class _Network:
    """The closed form that stands for a network in these files; it keeps what it was given."""

    def __init__(self, txt: Tensor) -> None:
        self.text = txt.flatten(1).mean(1).reshape(-1, 1, 1)
        self.x, self.scale, self.condition = [], None, None

    def __call__(self, x: Tensor, t: Tensor, scale: Tensor, condition: Tensor | None = None) -> Tensor:
        self.x.append(x.chunk(3)[0] if condition is not None else x)
        self.scale, self.condition = scale, condition
        t = t.reshape(-1, 1, 1)
        seen = 0.0 if condition is None else 0.2 * condition.mean(-1, keepdim=True)
        return 0.7 * torch.cos(x + 2 * t) - 0.3 * x * t + self.text + seen


def _distilled(config: dict, inputs: dict, **rest) -> Outputs:
    x, network = inputs["img"], _Network(inputs["txt"])
    frames, scale = config["latent"][2], x.new_full((len(x),), config["guidance"])
    levels = open_sora2.schedule(config["steps"], x.shape[1] // frames, frames)
    result = euler_flow(lambda x, t: network(x, x.new_full((len(x),), t), scale), x, levels)
    yield from _walk(network, levels, result)


def _three_passes(config: dict, settings: dict, inputs: dict, **rest) -> Outputs:
    x, network = inputs["img"].chunk(3)[0], _Network(inputs["txt"])
    frames = inputs["masks"].shape[2]
    levels = open_sora2.schedule(config["steps"], x.shape[1] // frames, frames)
    switches = settings["text_osci"], settings["image_osci"], settings["scale_temporal_osci"]
    scales = open_sora2.GuidanceScales(config["guidance"], config["guidance_img"], *switches)
    condition = latent_tokens.pack(torch.cat([inputs["masks"], inputs["masked_ref"]], dim=1), config["ps"])
    result = open_sora2.sample_guided(network, x, levels, scales, condition, frames)
    yield from _walk(network, levels, result)
    yield "cond", network.condition, "table"


def _walk(network: _Network, levels: list[float], result: Tensor) -> Outputs:
    yield "timesteps", _table(levels), "table"
    yield "traj", torch.stack(network.x), "loop"
    yield "guidance_vec", network.scale, "exact"
    yield "img", result, "loop"


def _table(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


_FAMILIES = {
    "schedule": _schedule,
    "time_shift": _time_shift,
    "osci": _oscillation,
    "pack": _pack,
    "noise": _noise,
    "ids": _positions,
    "ref_noise": _reference_noise,
    "sanitize": _sizes,
    "cond": _condition,
    "denoise_distill": _distilled,
    "denoise_t": _three_passes,
}
