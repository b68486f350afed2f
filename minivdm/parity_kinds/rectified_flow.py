"""Recompute Open-Sora 1.2's rectified flow: shift, noising, losses and sampling with masks."""

from collections.abc import Iterator

import torch
from torch import Tensor

from minivdm.diffusion.guidance import classifier_free
from minivdm.diffusion.rectified_flow import RectifiedFlow, mean_per_sample, open_sora_latent_frames, shift_ratio

Lines = Iterator[tuple[str, Tensor, Tensor, str]]


def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Lines:
    """Lines for every case of the file."""
    flow = RectifiedFlow()
    for key in [key for key in tensors if key.startswith(("transform/out/", "transform_degenerate/out/"))]:
        case, scale = key.split("/")[0], float(key.rsplit("scale", 1)[1])
        frames = cases[case]["frames"] if "degenerate" in case else config["grid_frames"]
        t = tensors[f"{case}/in/t"]
        rows = [[_shifted(flow, t, hw, n, scale) for n in frames] for hw in config["grid_res"]]
        # 0/0 is recorded where the reference's length is 0; -1 never occurs otherwise.
        ours = torch.stack([torch.stack(row) for row in rows]).nan_to_num(-1.0)
        yield key, ours, tensors[key].nan_to_num(-1.0), "table"

    given = {key.removeprefix("add_noise/in/"): tensors[key] for key in tensors if key.startswith("add_noise/in/")}
    for name, time in (("x_t", "t"), ("x_t_int", "t_int")):
        ours = flow.add_noise(given["x0"], given["noise"], given[time])
        yield f"add_noise/out/{name}", ours, tensors[f"add_noise/out/{name}"], "table"
    x, mask = tensors["mean_flat/in/x"], tensors["mean_flat/in/mask"]
    yield "mean_flat/out/plain", mean_per_sample(x), tensors["mean_flat/out/plain"], "layer"
    yield "mean_flat/out/masked", mean_per_sample(x, mask), tensors["mean_flat/out/masked"], "layer"

    for case in sorted({key.split("/")[0] for key in tensors}):
        if case.startswith("losses"):
            yield from _losses(flow, case, tensors)
        elif case.startswith("sample"):
            yield from _sample(flow, case, config, tensors)


def _shifted(flow: RectifiedFlow, t: Tensor, hw: list[int], frames: int, scale: float) -> Tensor:
    length = open_sora_latent_frames(torch.tensor([frames]))
    # The package refuses a length of 0; the reference goes on with a ratio of 0.
    return flow.shift(t, shift_ratio(*hw, length, scale) if length else torch.zeros(1))


def _velocity(x: Tensor, t: Tensor, mask: Tensor | None, y: Tensor) -> Tensor:
    """The closed form that stands for a network in these files."""
    u, s = (value.reshape(-1, 1, 1, 1, 1) for value in (t / 1000, y.flatten(1).mean(1)))
    m = 0.0 if mask is None else mask[:, None, :, None, None].float()
    return 0.7 * torch.cos(x + 2 * u) - 0.3 * x * u + s * (1 + u) + 0.05 * m


def _losses(flow: RectifiedFlow, case: str, tensors: dict[str, Tensor]) -> Lines:
    x0, t, noise, y = (tensors[f"{case}/in/{name}"] for name in ("x0", "t", "noise", "y"))
    seen = {}

    def velocity(x: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
        seen.update(x_t=x, t_model=t)
        return _velocity(x, t, mask, y)

    seen["loss"] = flow.loss(velocity, x0, t, noise, tensors.get(f"{case}/in/mask"))
    for name, ours in seen.items():
        yield f"{case}/out/{name}", ours, tensors[f"{case}/out/{name}"], "layer"


def _sample(flow: RectifiedFlow, case: str, config: dict, tensors: dict[str, Tensor]) -> Lines:
    z, y, y_null = (tensors[f"{case}/in/{name}"] for name in ("z", "y", "y_null"))
    scale = 1.0 if "guidance1" in case else config["cfg_scale"]
    ratio = None
    if "transform" in case:
        meta = {name: torch.tensor(values) for name, values in config["meta"].items()}
        ratio = shift_ratio(meta["height"], meta["width"], open_sora_latent_frames(meta["num_frames"]))
    inputs, times, masks = [], [], []

    def guided(x: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
        inputs.append(x)
        times.append(torch.cat([t, t]))
        masks.append(mask if mask is None else torch.cat([mask, mask]))
        return classifier_free(_velocity(x, t, mask, y), _velocity(x, t, mask, y_null), scale)

    mask, noises = tensors.get(f"{case}/in/mask"), tensors.get(f"{case}/in/noises")
    steps, discrete = config["steps"], "discrete" in case
    result = flow.sample(guided, z, steps, ratio=ratio, discrete=discrete, mask=mask, noises=noises)
    ours = {"z": result, "traj_in": torch.stack(inputs), "t": torch.stack(times)}
    if mask is not None:
        ours["x_mask"] = torch.stack(masks)
    for name, value in ours.items():
        yield f"{case}/out/{name}", value, tensors[f"{case}/out/{name}"], "table" if name == "t" else "loop"
