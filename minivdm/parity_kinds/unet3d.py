"""Golden files of video-diffusion-pytorch's `Unet3D`, with and without a condition."""

from collections.abc import Iterator

import torch
from torch import Tensor

from minivdm.convert import unet3d_from_lucidrains, unet3d_to_lucidrains
from minivdm.denoisers.unet3d import Unet3D
from minivdm.parity import state_dict


def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """Build our Unet3D with the reference's two peculiarities, each an argument of its own, and run every case."""
    weights = state_dict(tensors)
    model = Unet3D(**config["model"], spatial_dim_head=32, mask_initial_attention=False)
    model.load_state_dict(unet3d_from_lucidrains(weights))
    model.eval()
    for case, parameters in cases.items():
        if case == "time_mlp":
            yield f"{case}/out/y", model.time_embedding(tensors[f"{case}/in/time"]), tensors[f"{case}/out/y"], "layer"
            continue
        yield from _forward(model, case, parameters, tensors)


def _forward(model: Unet3D, case: str, parameters: dict, tensors: dict[str, Tensor]) -> Iterator:
    needs_gradients = any(key.startswith(f"{case}/grad/") for key in tensors)
    x = tensors[f"{case}/in/x"].clone().requires_grad_(needs_gradients)
    options = {
        "focus_present_mask": tensors.get(f"{case}/in/focus_present_mask"),
        "prob_focus_present": parameters.get("prob_focus", 0.0),
    }
    cond = tensors.get(f"{case}/in/cond")
    with torch.set_grad_enabled(needs_gradients):
        if "cond_scale" in parameters:
            y = model.forward_with_cond_scale(
                x, tensors[f"{case}/in/time"], cond, cond_scale=parameters["cond_scale"], **options
            )
        else:
            null_cond_prob = parameters.get("null_cond_prob", 0.0)
            y = model(x, tensors[f"{case}/in/time"], cond, null_cond_prob=null_cond_prob, **options)
    yield f"{case}/out/y", y, tensors[f"{case}/out/y"], "model"
    if not needs_gradients:
        return
    model.zero_grad()
    (y * tensors[f"{case}/in/w"]).sum().backward()
    # gradients have the shape of their parameter: the map of the weights is the map of the gradients
    gradients = unet3d_to_lucidrains({name: p.grad for name, p in model.named_parameters()}) | {"x": x.grad}
    for key, expected in tensors.items():
        if key.startswith(f"{case}/grad/"):
            yield key, gradients[key.removeprefix(f"{case}/grad/")], expected, "gradient"
