"""Golden files of Open-Sora's VAE and GAN losses, versions 1.2 and 2.0."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.parity import state_dict
from minivdm.vae import losses
from minivdm.vae.distributions import DiagonalGaussianDistribution
from minivdm.vae.lpips import LPIPS, ConvTrunk

Outputs = Iterator[tuple[str, Tensor]]
# Weights of the adversarial losses, the same in every file: of both sides, of the generator's, of the critic's.
FACTOR, GENERATOR_WEIGHT, CRITIC_FACTOR = 0.9, 0.5, 0.7
LECAM_DECAY, LECAM_START, LECAM_WEIGHT, PENALTY_WEIGHT = 0.9, (0.2, -0.1), 0.3, 10.0
# Their names, and ours.
KINDS = {"hinge": "hinge", "vanilla": "vanilla", "non_saturating": "vanilla", "wgan_gp": "wgan"}


class MeanSquare(nn.Module):
    """What stands for LPIPS in these files: mean square over a picture, (N, 1, 1, 1)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square().mean((1, 2, 3), keepdim=True)


def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """Both versions share most cases; `vae` differs, and is told apart by what is recorded."""
    functions: dict[str, Callable[[dict, dict[str, Tensor], dict[str, Tensor]], Outputs]] = {
        "gan": _gan, "vae": _vae, "lpips": _lpips, "adaptive": _adaptive, "generator": _generator, "disc": _disc,
        "lecam": _lecam, "gp": _penalty, "perplexity": _perplexity, "lecam_gp": _lecam_penalty,
    }  # fmt: skip
    for case in cases:
        name = "vae" if case.startswith("vae") else case
        if name not in functions:
            raise UserError(f"unknown case {case!r}; known are {', '.join(functions)}")
        inputs, expected = state_dict(tensors, f"{case}/in/"), state_dict(tensors, f"{case}/out/")
        settings = config | {"case": case, "weights": state_dict(tensors)}
        for output, ours in functions[name](settings, inputs, expected):
            kind = "gradient" if output.endswith("_gradw") else "layer"
            yield f"{case}/out/{output}", ours, expected[output], kind


def _gan(config: dict, x: dict[str, Tensor], expected: dict[str, Tensor]) -> Outputs:
    real, fake, threshold = x["real"], x["fake"], config["thr"]
    ours = {
        "hinge": losses.hinge_d_loss(real, fake),
        "vanilla": losses.vanilla_d_loss(real, fake),
        "wgan": losses.wgan_d_loss(real, fake),
        "sce_ones": losses.sigmoid_cross_entropy(fake, torch.ones_like(fake)),
        "sce_zeros": losses.sigmoid_cross_entropy(fake, torch.zeros_like(fake)),
        "l1": losses.l1(real, fake),
        "l2": losses.l2(real, fake),
        "batch_mean": losses.batch_mean(real),
        "adopt_before": torch.tensor(losses.adopt_weight(0.8, threshold - 1, threshold)),
        "adopt_at": torch.tensor(losses.adopt_weight(0.8, threshold, threshold)),
        "adopt_value": torch.tensor(losses.adopt_weight(0.8, threshold - 1, threshold, 0.3)),
    }
    yield from ((name, ours[name]) for name in expected)


def _vae(config: dict, x: dict[str, Tensor], expected: dict[str, Tensor]) -> Outputs:
    version2 = "recon_loss" in expected
    loss = losses.VAELoss(
        0.0 if config["case"] == "vae_noperceptual" else config["pw"],
        config["kl"],
        MeanSquare(),
        config["logvar_init"],
        kl_per="frame" if version2 else "clip",
    )
    video, reconstruction = x["video"], x["recon"]
    posterior = DiagonalGaussianDistribution(x["moments"])
    if version2:
        without = {f"noposterior_{name}": value for name, value in loss.terms(video, reconstruction).items()}
        ours = loss.terms(video, reconstruction, posterior) | without
    else:
        plain = loss(video, reconstruction, posterior)
        weighted = loss(video, reconstruction, posterior, x["nll_weights"])
        ours = {"nll": plain.nll, "weighted_nll": plain.nll_weighted, "weighted_kl": plain.kl}
        ours |= {"nll_w": weighted.nll, "weighted_nll_w": weighted.nll_weighted}
    yield from ((name, ours[name]) for name in expected)


def _lpips(config: dict, x: dict[str, Tensor], expected: dict[str, Tensor]) -> Outputs:
    theirs, levels = state_dict(config["weights"], "lpips."), range(len(config["chns"]))
    lpips = LPIPS(ConvTrunk(config["chns"]))
    trunk = {f"trunk.convs.{k}.{part}": theirs[f"net.cs.{k}.{part}"] for k in levels for part in ("weight", "bias")}
    heads = {f"heads.{k}": theirs[f"lin{k}.model.1.weight"].flatten() for k in levels}
    constants = {name: theirs[f"scaling_layer.{name}"] for name in ("shift", "scale")}
    lpips.load_state_dict(trunk | heads | constants)
    yield "d", lpips(x["a"], x["b"])
    yield "same", lpips(x["a"], x["a"])
    yield from ((f"feat{k}", seen) for k, seen in enumerate(lpips.features(x["a"])))


def _autoencoder(x: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest VAE with a critic: its one weight, the reconstruction loss, the critic's scores."""
    weight = x["weight"].clone().requires_grad_(True)
    reconstruction = x["h"] @ weight.T
    return weight, losses.l1(reconstruction, x["target"]).sum(), torch.tanh(reconstruction @ x["dw"])


def _adaptive(config: dict, x: dict[str, Tensor], expected: dict[str, Tensor]) -> Outputs:
    for name in ("hinge", "non_saturating"):
        adversary = losses.AdversarialLoss(KINDS[name], GENERATOR_WEIGHT, FACTOR, start=config["thr"])
        weight, rec_loss, scores = _autoencoder(x)
        balance = losses.adaptive_weight(rec_loss, losses.generator_loss(scores, KINDS[name]), weight)
        yield f"weight_{name}", GENERATOR_WEIGHT * balance
        for when, step in (("before", config["thr"] - 1), ("after", config["thr"])):
            weight, rec_loss, scores = _autoencoder(x)
            loss, _ = adversary.generator(scores, rec_loss, weight, step)
            yield f"{name}_{when}", loss
            yield f"{name}_{when}_gradw", torch.autograd.grad(loss, weight)[0]


def _generator(config: dict, x: dict[str, Tensor], expected: dict[str, Tensor]) -> Outputs:
    weight, rec_loss, scores = _autoencoder(x)
    yield "adaptive_weight", GENERATOR_WEIGHT * losses.adaptive_weight(rec_loss, -scores.mean(), weight)
    for when, factor, step in (("before", FACTOR, -1), ("after", FACTOR, 0), ("factor0", 0.0, 0)):
        weight, rec_loss, scores = _autoencoder(x)
        adversary = losses.AdversarialLoss("hinge", GENERATOR_WEIGHT, factor, start=config["thr"])
        loss, raw = adversary.generator(scores, rec_loss, weight, config["thr"] + step)
        yield f"{when}_weighted", loss
        yield f"{when}_raw", raw
        if f"{when}_gradw" in expected:
            yield f"{when}_gradw", torch.autograd.grad(loss, weight)[0]


def _disc(config: dict, x: dict[str, Tensor], expected: dict[str, Tensor]) -> Outputs:
    for output in expected:
        name, when = output.rsplit("_", 1)
        adversary = losses.AdversarialLoss(KINDS[name], factor=CRITIC_FACTOR, start=config["thr"])
        yield output, adversary.discriminator(x["real"], x["fake"], config["thr"] - (when == "before"))


def _lecam(config: dict, x: dict[str, Tensor], expected: dict[str, Tensor]) -> Outputs:
    lecam = losses.LeCam(LECAM_DECAY)
    lecam.load_state_dict(dict(zip(("real", "fake"), map(torch.tensor, LECAM_START), strict=True)))
    for step in range(sum(name.startswith("ema_real") for name in expected)):
        lecam.update(x["real"] + step, x["fake"] - step)
        yield f"ema_real{step}", lecam.real.clone()
        yield f"ema_fake{step}", lecam.fake.clone()
    raw = lecam(x["real"], x["fake"])
    yield from (("lecam_raw", raw), ("lecam", LECAM_WEIGHT * raw), ("gp", raw.new_zeros(())))  # no penalty in this case
    yield "adv", losses.vanilla_d_loss(x["real"], x["fake"])


def _waves(x: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """A critic with a known slope: the weighted sum of sines, one score per sample."""
    return lambda images: (images.sin() * x["w"]).flatten(1).sum(1, keepdim=True)


def _penalty_at(x: dict[str, Tensor]) -> Tensor:
    return losses.gradient_penalty(_waves(x), x["images"], x["images"], torch.ones(len(x["images"])))


def _penalty(config: dict, x: dict[str, Tensor], expected: dict[str, Tensor]) -> Outputs:
    logits, raw = _waves(x)(x["images"]), _penalty_at(x)
    yield from (("logits", logits), ("raw", raw), ("weighted", PENALTY_WEIGHT * raw))
    yield "adv", losses.vanilla_d_loss(logits, logits - 1)  # its generated scores are one below the real ones


def _lecam_penalty(config: dict, x: dict[str, Tensor], expected: dict[str, Tensor]) -> Outputs:
    lecam = losses.LeCam()
    lecam.load_state_dict({"real": x["ema_real"], "fake": x["ema_fake"]})
    yield from (("lecam", lecam(x["real"], x["fake"])), ("gp", _penalty_at(x)))


def _perplexity(config: dict, x: dict[str, Tensor], expected: dict[str, Tensor]) -> Outputs:
    yield from zip(("perplexity", "cluster_use"), losses.measure_perplexity(x["idx"], config["n_embed"]), strict=True)
    every_code_once = torch.arange(config["n_embed"])
    uniform = losses.measure_perplexity(every_code_once, config["n_embed"])
    yield from zip(("uniform", "uniform_use"), uniform, strict=True)
