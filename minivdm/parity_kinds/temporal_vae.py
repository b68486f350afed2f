"""Golden files of Open-Sora 1.2's video autoencoder: causal convolutions, the temporal VAE, the whole pipeline."""

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from minivdm.parity import state_dict
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.causal_conv import CausalConv3d
from minivdm.vae.distributions import DiagonalGaussianDistribution
from minivdm.vae.open_sora import video_autoencoder_from_opensora
from minivdm.vae.temporal import TemporalVAE, TemporalVAEConfig
from minivdm.vae.temporal_blocks import ResBlock
from minivdm.weights import load_weights

Outputs = Iterator[tuple[str, Tensor, Tensor, str]]


@torch.no_grad()
def compare_convolutions(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Outputs:
    """`CausalConv3d` with each of the arguments in `config["convs"]`, and `ResBlock` for each of `config["res"]`."""
    modules = {}
    for name, arguments in config["convs"].items():
        # padding="same" of a 1×1×1 convolution pads nothing
        arguments = {key: value for key, value in arguments.items() if (key, value) != ("padding", "same")}
        modules[name] = CausalConv3d(config["cin"], config["cout"], **arguments)
    for width_in, width_out, groups in config["res"]:
        sizes = TemporalVAEConfig(
            filters=groups, channel_multipliers=(1,), temporal_downsample=(), num_groups=groups, norm="group"
        )
        modules[f"res_{width_in}_{width_out}"] = ResBlock(sizes, width_in, width_out)
    for name, module in modules.items():
        load_weights(module, state_dict(tensors, f"sd/{name}."))
        yield f"{name}/out/y", module(tensors[f"{name}/in/x"]), tensors[f"{name}/out/y"], "layer"


def compare_temporal(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Outputs:
    """`TemporalVAE(norm="group")`: encode, decode, and the whole with noise and gradients."""
    vae = TemporalVAE(**config["model"], norm="group").eval()
    load_weights(vae, state_dict(tensors))
    for case in cases:
        if f"{case}/in/x" not in tensors:
            continue
        inputs, outputs = state_dict(tensors, f"{case}/in/"), state_dict(tensors, f"{case}/out/")
        x = inputs["x"].requires_grad_()
        posterior = vae.encode(x, sample=False, return_posterior=True)[1]
        recon, _, z = vae(x, sample_posterior=False)
        ours = {"moments": posterior.moments, "forward_mode_recon": recon, "forward_mode_z": z}
        ours["decoded"] = vae.decode(inputs["z"], num_frames=x.shape[2])
        recon, posterior, z = vae(x, noise=inputs["noise"])
        ours |= {"forward_recon": recon, "forward_z": z, "forward_kl": posterior.kl()}
        for name, expected in outputs.items():
            yield f"{case}/out/{name}", ours[name], expected, "vae"
        if gradients := state_dict(tensors, f"{case}/grad/"):
            parameters = dict(vae.named_parameters()) | {"x": x}
            found = torch.autograd.grad(
                recon.square().sum() + posterior.kl().sum(), [parameters[name] for name in gradients]
            )
            for (name, expected), gradient in zip(gradients.items(), found, strict=True):
                yield f"{case}/grad/{name}", gradient, expected, "gradient"
    yield from _latent_sizes(vae, (8, 9), tensors)
    if "posterior/in/moments" in tensors:
        yield from _posteriors(tensors)


def _posteriors(tensors: dict[str, Tensor]) -> Outputs:
    inputs = state_dict(tensors, "posterior/in/")
    drawn, other = (DiagonalGaussianDistribution(inputs[name]) for name in ("moments", "other"))
    flipped = DiagonalGaussianDistribution(inputs["other"].flip(0))
    point = DiagonalGaussianDistribution(inputs["moments"], deterministic=True)
    ours = {name: getattr(drawn, name) for name in ("mean", "logvar", "std", "var")}
    ours |= {"sample": drawn.sample(noise=inputs["noise"])}
    ours |= {"kl": other.kl(), "kl_other": other.kl(flipped), "nll": other.nll(inputs["sample"])}
    # upstream's is a single zero, ours one per clip
    ours |= {"std_deterministic": point.std, "kl_deterministic": point.kl()[:1]}
    for name, expected in state_dict(tensors, "posterior/out/").items():
        yield f"posterior/out/{name}", ours[name], expected, "layer"


@torch.no_grad()
def compare_pipeline(config: dict, cases: dict, tensors: dict[str, Tensor]) -> Outputs:
    """`VideoAutoencoder` on Open-Sora's weights, with the recorded noise of both stages."""
    for case, arguments in cases.items():
        settings = {"micro_frame_size": arguments["mfs"], "micro_batch_size": arguments["mbs"]}
        training = arguments.get("cal_loss", False)
        if training:  # upstream's training mode leaves shift and scale out, and shows the latents between the stages
            settings |= {"shift": 0.0, "scale": 1.0}
        vae = video_autoencoder_from_opensora(
            state_dict(tensors), config["kl"], {**config["temporal"], "norm": "group"}, **settings
        )
        if f"{case}/in/x" not in tensors:
            yield from _latent_sizes(vae, (64, 40), tensors)
            continue
        inputs, outputs = state_dict(tensors, f"{case}/in/"), state_dict(tensors, f"{case}/out/")
        x = inputs["x"]
        noise_frames = rearrange(torch.cat(_drawn(inputs, "noise2d_")), "(b t) c h w -> b c t h w", b=len(x))
        noise = {"noise": torch.cat(_drawn(inputs, "noiset_"), dim=2), "noise_frames": noise_frames}
        z, posterior = vae.encode(x, sample_frames=True, return_posterior=True, **noise)
        ours = {"z": z, "decoded": vae.decode(inputs["z"], num_frames=x.shape[2])}
        if training:
            length = _drawn(inputs, "noiset_")[-1].shape[2]
            ours["last_moments"] = posterior.moments[:, :, -length:]
            ours["x_z"] = vae.vae2d.encode(x, sample=True, noise=noise_frames)
            ours["decoded_x_z"] = torch.cat(list(vae.decode_pieces([inputs["z"]], x.shape[2])), dim=2)
        for name, expected in outputs.items():
            yield f"{case}/out/{name}", ours[name], expected, "vae"


def _drawn(inputs: dict[str, Tensor], name: str) -> list[Tensor]:
    """The draws `name`0, `name`1, … in their order."""
    return [inputs[f"{name}{i}"] for i in range(sum(key.startswith(name) for key in inputs))]


def _latent_sizes(vae: TemporalVAE | AutoEncoder2D, size: tuple[int, int], tensors: dict[str, Tensor]) -> Outputs:
    if "latent_size/out/latent" not in tensors:
        return
    frames = tensors["latent_size/out/frames"]
    yield "latent_size/out/frames", frames, frames, "exact"
    ours = torch.tensor([vae.get_latent_size((int(count), *size)) for count in frames])
    yield "latent_size/out/latent", ours, tensors["latent_size/out/latent"], "exact"
