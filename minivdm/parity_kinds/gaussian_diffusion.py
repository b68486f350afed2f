"""Golden files of video-diffusion-pytorch's `GaussianDiffusion`, with a conditional `Unet3D` inside."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from minivdm.convert import unet3d_from_lucidrains
from minivdm.data.folder import choose_frames
from minivdm.data.ranges import from_unit, to_unit
from minivdm.denoisers.unet3d import Unet3D
from minivdm.diffusion import GaussianDiffusion, Model, cosine_betas
from minivdm.errors import UserError
from minivdm.parity import state_dict
from minivdm.parity_kinds.analytic import analytic_network
from minivdm.training.ema import EMA

Outputs = Iterator[tuple[str, Tensor, str]]  # name, our value, tolerance


def compare(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """Recompute every case; the tables of the state dict are compared as well, under their names there."""
    reference = _Reference(config, tensors)
    for name, table in reference.diffusion().named_buffers():
        yield f"sd/{name}", table, tensors[f"sd/{name}"], "table"
    for case in cases:
        family = re.match(r"[a-z]+", case).group()  # pmean_noclip -> pmean, buffers1000 -> buffers
        if family not in _FAMILIES:
            raise UserError(f"unknown case {case!r}: known are {', '.join(_FAMILIES)}, with variants")
        with torch.no_grad():
            for name, ours, kind in _FAMILIES[family](reference, case):
                yield f"{case}/out/{name}", ours, tensors[f"{case}/out/{name}"], kind


class _Reference:
    """The settings and weights of a file, as our objects."""

    def __init__(self, config: dict, tensors: dict[str, Tensor]) -> None:
        self.config, self.tensors = config, tensors
        self.unet = Unet3D(**config["unet"], spatial_dim_head=32, mask_initial_attention=False).eval()
        self.unet.load_state_dict(unet3d_from_lucidrains(state_dict(tensors, "sd/denoise_fn.")))

    def diffusion(self, loss: str = "l2", case: str = "") -> GaussianDiffusion:
        """The process with the threshold that a case is named after."""
        threshold = "dynamic" if "dynamic" in case else None if "noclip" in case else "static"
        betas = cosine_betas(self.config["timesteps"])
        return GaussianDiffusion(betas, "noise", loss, threshold, self.config["percentile"])

    def inputs(self, case: str, *names: str) -> list[Tensor]:
        return [self.tensors[f"{case}/in/{name}"] for name in names]

    def outputs(self, case: str) -> list[str]:
        prefix = f"{case}/out/"
        return [key.removeprefix(prefix) for key in self.tensors if key.startswith(prefix)]

    def guided(self, cond: Tensor, scale: float) -> Model:
        return lambda x, t: self.unet.forward_with_cond_scale(x, t, cond, cond_scale=scale)


def _betas(reference: _Reference, case: str) -> Outputs:
    """Tables are called T<steps>_s<s>."""
    for name in reference.outputs(case):
        num_steps, s = re.fullmatch(r"T(\d+)_s([\d.e-]+)", name).groups()
        yield name, cosine_betas(int(num_steps), float(s)), "table"


def _buffers(reference: _Reference, case: str) -> Outputs:
    diffusion = GaussianDiffusion(cosine_betas(int(case.removeprefix("buffers"))))
    for name, table in diffusion.named_buffers():
        yield name, table, "table"


def _qsample(reference: _Reference, case: str) -> Outputs:
    diffusion = reference.diffusion()
    x0, t, noise = reference.inputs(case, "x_start", "t", "noise")
    x_t = diffusion.q_sample(x0, t, noise)
    yield "x_t", x_t, "table"
    for name, ours in diffusion.q_mean_variance(x0, t)._asdict().items():
        yield name, ours, "table"
    # Dividing by a vanishing signal magnifies the last digit of x_t: start from the recorded one.
    recorded = reference.tensors[f"{case}/out/x_t"]
    yield "x0_from_noise", diffusion.predict_start_from_noise(recorded, t, noise), "layer"
    posterior = diffusion.q_posterior(x0, x_t, t)
    yield "posterior_mean", posterior.mean, "table"
    yield "posterior_variance", posterior.variance, "table"
    yield "posterior_log_variance_clipped", posterior.log_variance, "table"


def _losses(reference: _Reference, case: str) -> Outputs:
    x0, t, noise, cond = reference.inputs(case, "x_start", "t", "noise", "cond")
    variants = {"": {}, "_null": {"null_cond_prob": 1.0}, "_focus": {"prob_focus_present": 1.0}}
    yield "eps_pred", reference.unet(reference.diffusion().q_sample(x0, t, noise), t, cond), "model"
    for loss in ("l1", "l2"):
        for suffix, options in variants.items():
            model = lambda x, t, options=options: reference.unet(x, t, cond, **options)  # noqa: E731
            yield loss + suffix, reference.diffusion(loss).loss(model, x0, t, noise).mean(), "layer"


def _pmean(reference: _Reference, case: str) -> Outputs:
    x, t, cond = reference.inputs(case, "x", "t", "cond")
    model = reference.guided(cond, reference.config["cond_scale"])
    step = reference.diffusion(case=case).p_mean_variance(model, x, t)
    yield "mean", step.mean, "model"
    yield "variance", step.variance, "table"
    yield "log_variance", step.log_variance, "table"


def _loop(reference: _Reference, case: str) -> Outputs:
    (noises,) = reference.inputs(case, "noises")
    model, kind = analytic_network, "table"
    if "analytic" not in case:
        scale = reference.config["cond_scale"] if "cfg" in case else 1.0
        model, kind = reference.guided(*reference.inputs(case, "cond"), scale), "loop"
    states = reference.diffusion(case=case).p_sample_loop(model, noises[0], noises=noises[1:], return_all=True)
    yield "trajectory", states[1:], kind
    yield "video", to_unit(states[-1]), kind


def _interpolate(reference: _Reference, case: str) -> Outputs:
    x1, x2, noises = reference.inputs(case, "x1", "x2", "noises")
    diffusion = reference.diffusion(case=case)
    last = diffusion.num_steps - 1
    # The reference noises to level t but starts its walk at t - 1, one step too late for the noise that is there.
    y = diffusion.interpolate(
        analytic_network, x1, x2, t=last, weight=reference.config["lam"], noises=noises, first_step=last - 1
    )
    yield "y", y, "table"


def _misc(reference: _Reference, case: str) -> Outputs:
    video, a, b = reference.inputs(case, "video", "a", "b")
    yield "normalize", from_unit(video), "table"
    yield "unnormalize", to_unit(video), "table"
    clip, stored = video[0], video.shape[2]
    yield "cast_shorter", clip[:, choose_frames(stored, 1, "repeat", torch.Generator())], "table"
    # Where the reference appends black frames, ours repeat the last one: black them out to compare.
    longer = clip[:, choose_frames(stored, stored + 2, "repeat", torch.Generator())]
    longer[:, stored:] = 0
    yield "cast_longer", longer, "table"
    average = nn.ParameterDict({"weight": a})
    ema = EMA(average, decay=0.9)
    average["weight"] = b
    ema.update(average, step=1000)  # late enough for the full decay
    yield "ema", ema.module["weight"], "table"


_FAMILIES = {
    "betas": _betas,
    "buffers": _buffers,
    "qsample": _qsample,
    "losses": _losses,
    "pmean": _pmean,
    "loop": _loop,
    "interpolate": _interpolate,
    "misc": _misc,
}
