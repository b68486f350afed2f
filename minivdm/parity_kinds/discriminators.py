"""Golden files of Open-Sora's critics: 1.2's patch critics and its blurring critic of whole films, and 2.0's."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.parity import state_dict
from minivdm.vae.discriminator import NLayerDiscriminator2D, NLayerDiscriminator3D
from minivdm.vae.style_discriminator import BlurPool3D, StyleDiscriminator3D

Compared = Iterator[tuple[str, Tensor, Tensor, str]]
INIT_WIDTH = 16  # of the critic whose initial weights a file describes


def compare_os12(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Compared:
    """A case is named after its critic: `nlayer3d_train` runs the weights under `sd/nlayer3d.`."""
    for case in cases:
        x = tensors[f"{case}/in/x"]
        if case.startswith("blur"):
            blur = BlurPool3D(x.shape[1], int(case.removeprefix("blur")))
            yield f"{case}/out/filt", blur.filt, tensors[f"{case}/out/filt"], "table"
            yield f"{case}/out/y", blur(x), tensors[f"{case}/out/y"], "layer"
            continue
        module = case.split("_")[0]
        match module:
            case "style":
                critic = StyleDiscriminator3D(**config["style"])
            case "nlayer3d":
                # Kernel 4, time halved once, and nothing dropped: the critic of version 1.2.
                critic = NLayerDiscriminator3D(**config["nlayer"], kernel_size=4, halve_time=1, dropout=None)
            case "nlayer2d":
                critic = NLayerDiscriminator2D(**config["nlayer"])
            case unknown:
                raise UserError(f"unknown critic {unknown!r}; known are style, nlayer3d, nlayer2d and blur")
        critic.load_state_dict(state_dict(tensors, f"sd/{module}."))
        yield from _run(critic, case, tensors)


def compare_os2(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Compared:
    """Cases eval and train run the critic, init_stats looks at fresh weights."""
    for case in cases:
        if case == "init_stats":
            yield from _initial_weights(case, tensors)
            continue
        critic = NLayerDiscriminator3D(**config["model"])
        critic.load_state_dict(state_dict(tensors))
        yield from _run(critic, case, tensors)


def _run(critic: nn.Module, case: str, tensors: dict[str, Tensor]) -> Compared:
    critic.train("train" in case)
    x = tensors[f"{case}/in/x"].clone().requires_grad_(True)
    logits = critic(x)
    yield f"{case}/out/logits", logits, tensors[f"{case}/out/logits"], "vae"
    if any(key.startswith(f"{case}/grad/") for key in tensors):
        (logits * tensors[f"{case}/in/w"]).sum().backward() if f"{case}/in/w" in tensors else logits.mean().backward()
    gradients = {name: weight.grad for name, weight in critic.named_parameters()} | {"x": x.grad}
    found = {"grad": gradients, "after": dict(critic.named_buffers())}
    for key, expected in tensors.items():
        place, kind, name = (*key.split("/", 2), "", "")[:3]
        if place == case and kind in found:
            yield key, found[kind][name], expected, "gradient"


def _initial_weights(case: str, tensors: dict[str, Tensor]) -> Compared:
    """Fresh weights are other numbers every time: their means and spreads must agree as far as chance allows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        critic = NLayerDiscriminator3D(input_nc=3, ndf=INIT_WIDTH, n_layers=3)
    first, norms = critic.convolutions[0], [m for m in critic.modules() if isinstance(m, nn.BatchNorm3d)]
    drawn = {
        "conv_weight_mean_std": torch.cat([conv.weight.detach().flatten() for conv in critic.convolutions]),
        "bn_weight_mean_std": torch.cat([norm.weight.detach() for norm in norms]),
    }
    for name, values in drawn.items():
        # a mean and a spread of n numbers are off by spread / sqrt(n) and by 0.7 of that; two draws, and five sigmas
        chance = max(0.1, 5 * 2**0.5 * len(values) ** -0.5) * 0.02
        yield from _alike(f"{case}/out/{name}", torch.stack([values.mean(), values.std()]), chance, tensors)
    yield from _alike(f"{case}/out/bn_bias_absmax", torch.cat([norm.bias for norm in norms]).abs().max(), 0.0, tensors)
    # torch draws a bias evenly from +-1 / sqrt(inputs of a unit): the largest of sixteen comes close to the end
    end = first.weight[0].numel() ** -0.5
    yield from _alike(f"{case}/out/first_conv_bias_absmax", first.bias.abs().max(), end / 2, tensors)


def _alike(key: str, ours: Tensor, slack: float, tensors: dict[str, Tensor]) -> Compared:
    """Yield the recorded value itself where ours is no further from it than `slack`."""
    expected = tensors[key]
    yield key, torch.where((ours - expected).abs() <= slack, expected, ours), expected, "exact"
