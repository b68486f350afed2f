"""Golden files of Open-Sora 1.2's `STDiT3`."""

from collections.abc import Iterator

import torch
from torch import Tensor

from minivdm.denoisers.stdit3 import STDiT3
from minivdm.parity import state_dict
from minivdm.weights import load_weights


def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """Build our STDiT3 with the reference's two peculiarities, each an argument of its own, and run every case."""
    model = STDiT3(config["model"], double_modulate=True, first_size_only=True)
    load_weights(model, state_dict(tensors), "the file")
    model.eval()
    for case in cases:
        wanted = [key for key in tensors if key.startswith(f"{case}/grad/")]
        inputs = state_dict(tensors, f"{case}/in/")
        weight = inputs.pop("w", None)
        inputs["x"] = inputs["x"].clone().requires_grad_(bool(wanted))
        with torch.set_grad_enabled(bool(wanted)):
            y = model(**inputs)
        yield f"{case}/out/y", y, tensors[f"{case}/out/y"], "model"
        if not wanted:
            continue
        model.zero_grad()
        (y.sum() if weight is None else (y * weight).sum()).backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()} | {"x": inputs["x"].grad}
        for key in wanted:
            yield key, gradients[key.removeprefix(f"{case}/grad/")], tensors[key], "gradient"
