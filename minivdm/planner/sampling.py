"""How much memory and computing a film takes, from its text to its frames."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minivdm.denoisers.stdit3 import STDiT3
from minivdm.errors import UserError
from minivdm.planner.kernels import Kernels
from minivdm.planner.ledger import Ledger, without_contents
from minivdm.planner.memory import SHORT, Moment, byte_size, count
from minivdm.planner.parts import text_encoder, video_vae
from minivdm.planner.workloads import clip_shape, unet_pipeline
from minivdm.settings import Config
from minivdm.vae.video import VideoAutoencoder


@dataclass(frozen=True)
class FilmPlan:
    """What it takes to draw films together.

    parameters: of each part. moments: phases, with the bytes of each part. flops: of each phase.
    """

    parameters: dict[str, float]
    moments: tuple[Moment, ...]
    flops: dict[str, float]

    @property
    def peak(self) -> Moment:
        """The highest moment, with the films decoded whole, as the pipeline does."""
        return max((m for m in self.moments if "streaming" not in m.name), key=lambda moment: moment.total)


def plan_films(config: Config, device: str, films: int = 1, streaming: bool = True) -> FilmPlan:
    """The plan for films like the data of `config`, with its sampler. UserError for a task that draws none.

    streaming: look at decoding piece by piece as well.
    """
    if config.task == "unet3d":
        return _unet_films(config, device, films)
    if config.task == "stdit3":
        return _text_to_video_films(config, device, films, streaming)
    raise UserError(f"task {config.task} draws no films: expected unet3d or stdit3")


def _unet_films(config: Config, device: str, films: int) -> FilmPlan:
    pipeline, words = None, 0

    def build() -> nn.Module:
        nonlocal pipeline, words
        pipeline = unet_pipeline(config)
        words = pipeline.words.dim
        return pipeline.unet

    def denoise(unet: nn.Module, clips: int) -> Tensor:
        told = {"cond": torch.rand(clips, words), "null_cond": torch.zeros(clips, dtype=torch.bool)} if words else {}
        return unet(torch.rand(clip_shape(config, clips)), torch.zeros(clips, dtype=torch.long), **told)

    clips = films * (2 if words_guided(config) else 1)
    unet, (peak, flops) = _run(config, device, build, denoise, clips)
    parts = {"weights": byte_size(unet), "activations": peak}
    return FilmPlan(
        {"denoiser": count(unet)}, (Moment("denoising", parts),), {"denoising": flops * config.sampling.steps}
    )


def words_guided(config: Config) -> bool:
    """Whether a step of the sampler asks the network twice, with and without the text."""
    return config.sampling.guidance != 1 and (config.task == "stdit3" or config.unet3d.captions)


def _text_to_video_films(config: Config, device: str, films: int, streaming: bool) -> FilmPlan:
    data, flow = config.data, config.flow

    def read(net: nn.Module, texts: int) -> Tensor:
        return net(torch.zeros(texts, flow.tokens, dtype=torch.long))

    def decode(vae: VideoAutoencoder, films: int) -> Tensor:
        return vae.decode(_latents(vae, config, films), num_frames=data.frames)

    def stream(vae: VideoAutoencoder, films: int) -> None:
        for _ in vae.decode_stream(_latents(vae, config, films).split(1, dim=2), data.frames):
            pass

    encoder, (reading, reading_flops) = _run(config, device, lambda: text_encoder(flow.text), read, films)
    vae, (whole, decoding_flops) = _run(config, device, lambda: video_vae(flow.vae, config), decode, films)
    decoding = {"decoding whole": whole}
    if streaming and (vae.temporal is None or vae.temporal.streams or vae.micro_frame_size):
        decoding["decoding, streaming"] = _run(config, device, lambda: video_vae(flow.vae, config), stream, films)[1][0]
    width = encoder.config.d_model
    latent = vae.get_latent_size((data.frames, data.size, data.size))
    sizes = {"in_channels": vae.channels, "caption_channels": width, "model_max_length": flow.tokens}

    def denoise(net: nn.Module, clips: int) -> Tensor:
        told = {name: torch.full((1,), float(data.size)) for name in ("height", "width", "fps")}
        y, mask = torch.zeros(clips, flow.tokens, width), torch.ones(clips, flow.tokens, dtype=torch.bool)
        return net(torch.randn(clips, vae.channels, *latent), torch.full((clips,), 500.0), y, mask, **told)

    shallow = []
    for depth in SHORT:
        build = lambda depth=depth: STDiT3(replace(config.stdit3, **sizes, depth=depth))  # noqa: E731
        net, (peak, operations) = _run(config, device, build, denoise, films * (2 if words_guided(config) else 1))
        shallow.append(np.array([byte_size(net), count(net), peak, operations], dtype=float))
    share = (config.stdit3.depth - SHORT[0]) / (SHORT[1] - SHORT[0])
    weights, parameters, peak, operations = shallow[0] + (shallow[1] - shallow[0]) * share
    standing = {"denoiser": weights, "VAE": byte_size(vae), "text encoder": byte_size(encoder)}
    moments = [Moment("reading the text", standing | {"activations": reading})]
    moments.append(Moment("denoising", standing | {"activations": peak}))
    moments += [Moment(name, standing | {"activations": size}) for name, size in decoding.items()]
    flops = {"text": reading_flops, "denoising": operations * config.sampling.steps, "decoding": decoding_flops}
    counts = {"denoiser": parameters, "VAE": count(vae), "text encoder": count(encoder)}
    return FilmPlan(counts, tuple(moments), flops)


def _latents(vae: VideoAutoencoder, config: Config, films: int) -> Tensor:
    size = (config.data.frames, config.data.size, config.data.size)
    return torch.randn(films, vae.channels, *vae.get_latent_size(size))


def _run(
    config: Config, device: str, build: Callable[[], nn.Module], run: Callable[[nn.Module, int], Any], clips: int
) -> tuple[nn.Module, tuple[float, float]]:
    """The network, and for so many clips the bytes at its highest moment above its weights, and the operations."""
    ledger = Ledger()
    with without_contents(ledger, Kernels(device, "fp32")), torch.no_grad():
        network = build().eval()
        started = len(ledger.events)
        run(network, clips)
    return network, (float(np.max(ledger.course(started).fixed, initial=0)), float(ledger.flop_count().fixed))
