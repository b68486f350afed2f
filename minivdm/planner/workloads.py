"""What each task computes in a step, ready to be run: without contents for a plan, with random ones for a probe.

The networks and losses are those of the training; only the clips are made up. Everything is built on the device that is
the default when it is built (`with torch.device(...)`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.data.captions import VOCABULARY
from minivdm.denoisers.stdit3 import STDiT3
from minivdm.diffusion.rectified_flow import RectifiedFlow
from minivdm.pipelines.unet import UnetPipeline
from minivdm.planner.parts import new_vae2d, perceptual_distance, text_encoder, vae2d, video_vae
from minivdm.settings import GIVEN, Config
from minivdm.text.words import MAX_WORDS, BagOfWords
from minivdm.training.films import BLOCK
from minivdm.training.temporal_vae_task import TemporalTrainee
from minivdm.training.texts import CachedTexts
from minivdm.training.vae2d_task import Vae2dTrainee
from minivdm.vae.losses import VAELoss
from minivdm.vae.temporal import TemporalVAE

TOKENS = 24  # of a caption, in the mean; only these are kept of a text
LONGEST = {"single": 16, "scene": 37}  # tokens of the longest caption in a batch, in the mean


@dataclass
class Workload:
    """A task to be measured.

    model: what trains. step: number of clips -> loss. frozen: parts that stand by, by name.
    encode: computes the latents of so many clips, where these are computed once at the beginning.
    kept: bytes in RAM for the clips, latents and texts that are kept during the training.
    """

    model: nn.Module
    step: Callable[[int], Tensor]
    frozen: dict[str, nn.Module] = field(default_factory=dict)
    encode: Callable[[int], object] | None = None
    kept: int = 0


def workload(config: Config) -> Workload:
    """That of `config.task`."""
    return _TASKS[config.task](config)


def unet_pipeline(config: Config) -> UnetPipeline:
    """An untrained one, with as many words as captions have: those of fireworks, or the most that a folder can have."""
    words = 0 if not config.unet3d.captions else MAX_WORDS if config.data.folder else len(VOCABULARY)
    # for the prediction of noise the tables would be asked for numbers, which they do not have without contents
    config = replace(config, diffusion=replace(config.diffusion, prediction="v"))
    return UnetPipeline.from_config(config, BagOfWords([str(number) for number in range(words)]))


def unet3d(config: Config) -> Workload:
    """A clip of pixels, noised, and the noise (or v) predicted."""
    pipeline = unet_pipeline(config)
    words = pipeline.words.dim

    def step(clips: int) -> Tensor:
        video = torch.rand(clip_shape(config, clips))
        x0, noise = pipeline.diffusion.normalize(video), torch.randn_like(video)
        t = torch.zeros(clips, dtype=torch.long)
        told = {"cond": torch.rand(clips, words), "null_cond": torch.zeros(clips, dtype=torch.bool)} if words else {}
        return pipeline.diffusion.loss(lambda x_t, t: pipeline.unet(x_t, t, **told), x0, t, noise).mean()

    return Workload(pipeline.unet, step, kept=_rendered(config))


def vae2d_task(config: Config) -> Workload:
    """Some pictures of each clip, there and back."""
    losses = config.vae_loss
    model = Vae2dTrainee(new_vae2d(config.vae2d), replace(losses, perceptual=0.0))
    if losses.perceptual:
        perceptual = {"perceptual_weight": losses.perceptual, "perceptual": perceptual_distance(losses)}
        model.distance = VAELoss(kl_weight=losses.kl, **perceptual).requires_grad_(False)
    frames = min(config.vae_loss.frames_per_clip, config.data.frames)

    def step(clips: int) -> Tensor:
        video = torch.rand(clip_shape(config, clips))
        pictures = torch.cat([video[:, :, frame] for frame in range(frames)])
        size = model.vae.get_latent_size(pictures.shape[-2:])
        noise = torch.randn(len(pictures), config.vae2d.z_channels, *size)
        return model(pictures, noise, torch.rand(len(pictures)))[0]

    return Workload(model, step, kept=_rendered(config))


def temporal_vae(config: Config) -> Workload:
    """Whole clips of 2D latents, there and back; shorter ones, which training has too, take less."""
    below = vae2d(config.vae_loss.vae2d, config).eval().requires_grad_(False)
    model = TemporalTrainee(TemporalVAE(config.temporal_vae), below, replace(config.vae_loss, perceptual=0.0))
    if config.vae_loss.perceptual:
        model.config = config.vae_loss
        model.tools["lpips"] = perceptual_distance(config.vae_loss)
    latent = (below.config.z_channels, config.data.frames, *below.get_latent_size([config.data.size] * 2))

    def step(clips: int) -> Tensor:
        video, latents = torch.rand(clip_shape(config, clips)), torch.randn(clips, *latent)
        noise = torch.randn(clips, config.temporal_vae.embed_dim, *model.vae.get_latent_size(latent[1:]))
        return model(latents, video, noise, torch.rand(clips), True)[0]

    def encode(clips: int) -> Tensor:
        return below.encode(torch.rand(clip_shape(config, clips)), sample=False)

    kept = 4 * config.data.clips * _numel(latent)
    return Workload(model, step, {"2D VAE": below}, encode, kept=_rendered(config) + kept)


def toy_t5(config: Config) -> Workload:
    """Captions as long as the longest, with questions about every word."""
    from minivdm.training.toy_t5_task import Listener, Reader, make_tokenizer, t5_config  # imports transformers

    length, reading = LONGEST[config.data.level], config.toy_t5.objective == "reading"
    model = (Reader if reading else Listener)(t5_config(config.toy_t5, make_tokenizer()))

    def step(clips: int) -> Tensor:
        shape = (clips, length, 6) if reading else (clips, length)
        return model(torch.ones(clips, length, dtype=torch.long), torch.zeros(shape, dtype=torch.long)).mean()

    return Workload(model, step)


def stdit3(config: Config) -> Workload:
    """Latents, noised, and the velocity predicted; VAE and text encoder stand by."""
    flow, data = config.flow, config.data
    vae, encoder = video_vae(flow.vae, config), text_encoder(flow.text).requires_grad_(False)
    width = encoder.config.d_model
    sizes = {"in_channels": vae.channels, "caption_channels": width, "model_max_length": flow.tokens}
    model = STDiT3(replace(config.stdit3, **sizes), gradient_checkpointing=flow.gradient_checkpointing)
    latent = (vae.channels, *vae.get_latent_size((data.frames, data.size, data.size)))
    path, some_given = RectifiedFlow(), any(getattr(flow, kind) for kind in GIVEN)

    def step(clips: int) -> Tensor:
        x0, noise = torch.randn(clips, *latent), torch.randn(clips, *latent)
        y, mask = torch.zeros(clips, flow.tokens, width), torch.ones(clips, flow.tokens, dtype=torch.bool)
        told = {name: torch.full((1,), float(data.size)) for name in ("height", "width", "fps")}
        told["drop_text"] = torch.zeros(clips, dtype=torch.bool)
        frames = torch.rand(clips, latent[1]) < 0.5 if some_given else None

        def velocity(x_t: Tensor, t: Tensor, frames: Tensor | None) -> Tensor:
            return model(x_t, t, y, mask, frames, **told)[:, : latent[0]]

        return path.loss(velocity, x0, torch.full((clips,), 500.0), noise, frames).mean()

    def encode(clips: int) -> None:
        video = torch.rand(clip_shape(config, clips))
        if vae.micro_batch_size is None:
            vae.encode(video, sample=False)
            return
        pictures = rearrange(video, "b c t h w -> (b t) c h w")
        vae.vae2d.encode(pictures[: vae.micro_batch_size], sample=False)  # the others take as much, one after another
        frames = torch.randn(clips, vae.vae2d.config.z_channels, data.frames, *latent[2:])
        for piece in frames.split(vae.micro_frame_size or data.frames, dim=2):
            vae.temporal.encode(piece, sample=False)

    wordings = min(CachedTexts.__init__.__defaults__[0], config.training.steps * config.training.batch_size)
    latents = 2 * data.clips * _numel(latent)
    return Workload(
        model,
        step,
        {"VAE": vae, "text encoder": encoder},
        encode,
        kept=latents + wordings * min(TOKENS, flow.tokens) * width * 4,
    )


def clip_shape(config: Config, clips: int) -> tuple[int, ...]:
    """(clips, 3, T, H, W) as the data have them."""
    return clips, 3, config.data.frames, config.data.size, config.data.size


def _rendered(config: Config) -> int:
    """Bytes of the rendered clips, which are kept; clips of a folder are read when they are needed."""
    return 0 if config.data.folder else _numel(clip_shape(config, config.data.clips))


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


_TASKS: dict[str, Callable[[Config], Workload]] = {
    "unet3d": unet3d,
    "vae2d": vae2d_task,
    "temporal_vae": temporal_vae,
    "toy_t5": toy_t5,
    "stdit3": stdit3,
}
ENCODED_AT_ONCE = BLOCK
