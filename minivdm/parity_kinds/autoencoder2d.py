"""Golden files of Open-Sora 2's 2D autoencoder (`autoencoder_2d.py`)."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

from minivdm.errors import UserError
from minivdm.parity import state_dict
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.autoencoder_kl import autoencoder_from_upstream
from minivdm.vae.distributions import DiagonalGaussianDistribution
from minivdm.weights import load_weights

Outputs = Iterator[tuple[str, Tensor, str]]  # name, our value, tolerance


def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """Build our AutoEncoder2D from the file's config and run every case; its name says what it does."""
    model = AutoEncoder2D(**config["model"]).eval()
    load_weights(model, autoencoder_from_upstream(state_dict(tensors)), "the file")
    for case in cases:
        inputs = {key.rpartition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{case}/in/")}
        for name, ours, kind in _outputs(case)(model, inputs):
            yield f"{case}/{name}", ours, tensors[f"{case}/{name}"], kind
        if case == "forward_sampled":
            yield from _gradients(model, case, inputs, tensors)


def _outputs(case: str) -> Callable[[AutoEncoder2D, dict[str, Tensor]], Outputs]:
    families = {
        "decode": _decode,
        "forward": _forward,
        "odd": partial(_round_trip, decode=False),
        "posterior": _posterior,
        "tiny": _middle,
        "video": _round_trip,
        "image": _round_trip,
    }
    for family, outputs in families.items():
        if case.startswith(family):
            return outputs
    raise UserError(f"unknown case {case!r}: known are {', '.join(families)}, with variants")


@torch.no_grad()
def _round_trip(model: AutoEncoder2D, inputs: dict[str, Tensor], decode: bool = True) -> Outputs:
    z, posterior = model.encode(inputs["x"], sample=False, return_posterior=True, drop_odd=True)
    yield "out/moments", posterior.moments, "vae"
    yield "out/mean", posterior.mean, "vae"
    yield "out/z", z, "vae"
    if decode:
        yield "out/recon", model.decode(z), "vae"


@torch.no_grad()
def _decode(model: AutoEncoder2D, inputs: dict[str, Tensor]) -> Outputs:
    yield "out/x", model.decode(inputs["z"]), "vae"


@torch.no_grad()
def _forward(model: AutoEncoder2D, inputs: dict[str, Tensor]) -> Outputs:
    recon, posterior, z = model(inputs["x"], sample=True, noise=inputs["noise"])
    yield "out/moments", posterior.moments, "vae"
    yield "out/z", z, "vae"
    yield "out/recon", recon, "vae"
    yield "out/kl", _kl_per_frame(posterior), "vae"


def _gradients(
    model: AutoEncoder2D, case: str, inputs: dict[str, Tensor], tensors: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """Gradients of Σ recon² + Σ kl, by the reference's name of each parameter, which is ours."""
    model.zero_grad()
    x = inputs["x"].clone().requires_grad_()
    recon, posterior, _ = model(x, sample=True, noise=inputs["noise"])
    (recon.square().sum() + posterior.kl().sum()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()} | {"x": x.grad}
    for key, expected in tensors.items():
        if key.startswith(f"{case}/grad/"):
            yield key, gradients[key.removeprefix(f"{case}/grad/")], expected, "gradient"


def _posterior(model: AutoEncoder2D, inputs: dict[str, Tensor]) -> Outputs:
    posterior = DiagonalGaussianDistribution(inputs["moments"])
    for name in ("mean", "logvar", "std", "var"):
        yield f"out/{name}", getattr(posterior, name), "layer"
    yield "out/mode", posterior.mode(), "layer"
    other = DiagonalGaussianDistribution(inputs["other"])
    yield "out/kl", _kl_per_frame(other), "layer"
    yield "out/kl_other", _kl_per_frame(other, DiagonalGaussianDistribution(inputs["other"].flip(0))), "layer"


@torch.no_grad()
def _middle(model: AutoEncoder2D, inputs: dict[str, Tensor]) -> Outputs:
    """Inputs so small that the epsilon of the norms counts."""
    yield "out/block_1", model.encoder.mid.block_1(inputs["x"]), "layer"
    yield "out/attn_1", model.encoder.mid.attn_1(inputs["x"]), "layer"


def _kl_per_frame(posterior: DiagonalGaussianDistribution, *others: DiagonalGaussianDistribution) -> Tensor:
    """The reference sums KL over one frame, not over the clip: (B·T,). Ours sums what comes in, so frames come in."""
    moments = [one.moments for one in (posterior, *others)]
    frames = [rearrange(m, "b c t h w -> (b t) c h w") if m.ndim == 5 else m for m in moments]
    first, *rest = [DiagonalGaussianDistribution(m) for m in frames]
    return first.kl(*rest)
