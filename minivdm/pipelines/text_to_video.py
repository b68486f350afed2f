"""From text, pictures and clips to a film: text encoder, denoiser and video autoencoder put together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.denoisers.stdit3 import STDiT3
from minivdm.diffusion.masks import apply_mask_strategy
from minivdm.diffusion.rectified_flow import RectifiedFlow, shift_ratio
from minivdm.errors import UserError
from minivdm.pipelines.given import Given, Picture, gather, head_frames, time_factor
from minivdm.pipelines.loading import load_open_sora, load_pipeline, save_pipeline
from minivdm.pipelines.prompts import no_text, split_clips, text_for_denoiser, with_motion_score
from minivdm.pipelines.velocity import GuidedVelocity
from minivdm.pipelines.video_settings import Size, VideoSettings, frame_count, picture_size
from minivdm.vae.video import VideoAutoencoder


@dataclass(frozen=True)
class Parts:
    """A pipeline taken apart: all that it takes to write its sampling loop oneself.

    encode: list of B texts -> y (B, L, D), mask (B, L) bool, True for tokens to look at.
    null: B -> the same for no text.
    velocity: (z (B, C, T', h, w), t (B,), y, mask) -> v, shaped like z.
    decode: z -> film (B, 3, T, H, W), not clamped.
    latent_shape: (C, T', h, w).
    """

    encode: Callable[[Sequence[str]], tuple[Tensor, Tensor]]
    null: Callable[[int], tuple[Tensor, Tensor]]
    velocity: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    latent_shape: tuple[int, int, int, int]


class TextToVideoPipeline:
    """Draws films from texts with an `STDiT3` that works on the latents of a `VideoAutoencoder`.

        pipe = TextToVideoPipeline.from_pretrained("toy")
        video = pipe("a large red peony high on the left", seed=0)             # (1, 3, 17, 32, 32) in [-1, 1]
        video = pipe("a small blue ring", image="first.png", frames=33)        # begins with that picture

    Args:
        denoiser: the network; text: its text encoder, a `TextEmbedder`; vae: what makes and reads its latents.
        settings: what a film is like where a call does not say.

    Raises UserError where text encoder or VAE do not fit the denoiser.
    """

    def __init__(
        self, denoiser: STDiT3, text: nn.Module, vae: VideoAutoencoder, settings: VideoSettings | None = None
    ) -> None:
        config = denoiser.config
        for what, found, expected in (
            ("width of the text encoder", text.dim, config.caption_channels),
            ("number of text tokens", text.max_length, config.model_max_length),
            ("channels of the VAE's latents", vae.channels, config.in_channels),
        ):
            if found != expected:
                raise UserError(f"{what} {found}, but the denoiser was made for {expected}: choose parts that fit")
        self.denoiser, self.text, self.vae = denoiser, text, vae
        self.flow, self.settings = RectifiedFlow(), settings or VideoSettings()

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "TextToVideoPipeline":
        """The shipped pipeline ("toy"), a run folder of `minivdm train stdit3` (its newest checkpoint), or a saved one.

        Raises UserError when the folder holds none of these.
        """
        return cls(*load_pipeline(source))

    @classmethod
    def from_open_sora(
        cls,
        denoiser: str | Path = "hpcai-tech/OpenSora-STDiT-v3",
        vae: str | Path = "hpcai-tech/OpenSora-VAE-v1.2",
        vae2d: str | Path | None = None,
        text: str | Path = "DeepFloyd/t5-v1_1-xxl",
    ) -> "TextToVideoPipeline":
        """Open-Sora 1.2 from its published pieces: local folders, or names on the Hugging Face Hub.

        vae holds the weights of both VAEs; vae2d only says what the 2D one is like, in diffusers' config.json, where it
        is not that of Stable Diffusion XL. Raises UserError where the pieces do not belong together.
        """
        return cls(*load_open_sora(denoiser, vae, vae2d, text))

    def save_pretrained(
        self, folder: str | Path, *, shipped: Sequence[str] = (), dtype: torch.dtype | None = None
    ) -> None:
        """Write `pipeline.json`, `denoiser/`, `text_encoder/` and `vae/`, for `from_pretrained`.

        shipped: "text", "vae" or both are the shipped ones, and named instead of written.
        dtype: to store denoiser and VAE in; torch.float16 takes half the room.
        """
        save_pipeline(Path(folder), (self.denoiser, self.text, self.vae, self.settings), tuple(shipped), dtype)

    def to(self, device: torch.device | str) -> "TextToVideoPipeline":
        """Move all parts."""
        for part in (self.denoiser, self.text, self.vae):
            part.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        frames: int | str | None = None,
        size: Size | None = None,
        fps: float | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        eta: float | None = None,
        method: str = "euler",
        seed: int = 0,
        progress: bool = False,
        image: Picture | None = None,
        last_image: Picture | None = None,
        video: Tensor | str | Path | None = None,
        condition: str | None = None,
        strength: float | None = None,
        image_guidance: float = 1.0,
        oscillate: bool = False,
        motion_score: float | None = None,
    ) -> Tensor:
        """One film per prompt, (B, 3, T, H, W) in [-1, 1]. What is not given comes from `settings`.

        Args:
            prompts: an empty one leaves the choice to the model. "|0| a red ring |1| a blue palm" is a film of two
                clips, where the second goes on from the end of the first.
            frames, size, fps: of one clip; one frame is a picture. frames may be seconds, such as "5s"; size is a side
                in pixels, (height, width), or "width:height" for as many pixels as in the settings.
            steps, method: of the sampler, "euler" or "midpoint" with two evaluations per step.
            guidance: 1 is the conditional model, more exaggerates the text.
            eta: how much noise is renewed on the way: 0 follows the first noise to the end, with 1 each step forgets as
                much of it as the forward process would.
            seed: film k starts from noise of the seed `seed + k`, whatever else is in the call.
            image, last_image: the first and the last frame of all films, from a file, a PIL image or (3, H, W) in
                [-1, 1]. The same for both makes a loop.
            video: a file or (3, T, H, W) in [-1, 1] to go on from, or to work from with `strength`.
            condition: which frames are given, a name of `diffusion.CONDITIONS`, or "v2v" for "v2v_head"; by default
                the one that image, last_image and video suggest. A clip gives half of the film at most.
            strength: work from all frames of `video`, or of `image` standing still: 0 is what the VAE makes of
                them, 1 ignores them.
            image_guidance: more than 1 exaggerates what the given frames say.
            oscillate: guide in every second step only, after the first ten.
            motion_score: a score to append to the prompt, for models that were trained with them.

        Raises UserError for sizes that the VAE cannot make, unreadable files, and conditions that lack their input.
        """
        texts = [split_clips(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        clips = len(texts[0]) if texts else 0
        if any(len(text) != clips for text in texts):
            found = ", ".join(str(len(text)) for text in texts)
            raise UserError(f"films of {found} clips in one call: expected as many in each; call once for each length")
        if not clips:
            raise UserError("no prompts: expected at least one; an empty text leaves the choice to the model")
        if strength is not None and clips > 1:
            raise UserError(f"strength with a film of {clips} clips: work from one clip at a time")
        asked = self._asked(frames, size, fps=fps, steps=steps, guidance=guidance, eta=eta)
        given = gather(
            self.vae,
            asked.frames,
            (asked.height, asked.width),
            clips=clips,
            image=image,
            last_image=last_image,
            video=video,
            condition=condition,
            strength=strength,
        )
        if image_guidance != 1 and not given.references:
            raise UserError(f"image_guidance {image_guidance} without image or video: pass one, or leave it at 1")
        generators = [torch.Generator().manual_seed(seed + k) for k in range(len(texts))]
        carried = min(asked.carried, self._latent_shape(asked)[1] // 2)
        if clips > 1 and not carried:
            raise UserError(
                f"{clips} clips of {asked.frames} frames: too short to go on from one another; ask for more"
            )
        overlap, film = head_frames(self.vae, asked.frames, carried), None
        for loop in range(clips):
            prompts_now = [with_motion_score(text[loop], motion_score) for text in texts]
            if film is not None:
                given = self._carry_on(given, film[:, :, -overlap:], loop, carried)
            start = self._start(given, generators, asked, loop)
            z = self._sample(prompts_now, start, generators, asked, method, image_guidance, oscillate, progress)
            clip = self.vae.decode(z, num_frames=asked.frames).clamp(-1, 1)
            film = clip if film is None else torch.cat([film, clip[:, :, overlap:]], dim=2)
        return film

    def parts(self, frames: int | str | None = None, size: Size | None = None) -> Parts:
        """Encoder, denoiser and decoder for films of these frames and size, to write the sampling loop oneself.

        Euler steps from t = 1000, evenly spaced, guided by `null`, give what a call with eta = 0 gives, where
        `settings.shift` is off and `null_tokens` is "all".
        """
        asked, without_gradients = self._asked(frames, size), torch.no_grad()
        return Parts(
            encode=without_gradients(lambda texts: text_for_denoiser(self.denoiser, self.text, texts)),
            null=without_gradients(lambda batch: no_text(self.denoiser, batch)),
            velocity=without_gradients(lambda z, t, y, mask: self._denoise(asked, z, t, y, mask)),
            decode=without_gradients(lambda z: self.vae.decode(z, num_frames=asked.frames)),
            latent_shape=self._latent_shape(asked),
        )

    def _asked(self, frames: int | str | None, size: Size | None, **others: float | None) -> VideoSettings:
        """The settings with what a call asks for; UserError for what cannot be made."""
        factor = self.vae.vae2d.downsampling
        height, width = picture_size(size, self.settings.height, self.settings.width, factor)
        given = {name: value for name, value in others.items() if value is not None}
        if frames is not None:
            given["frames"] = frame_count(frames, given.get("fps", self.settings.fps), time_factor(self.vae))
        return replace(self.settings, height=height, width=width, **given)

    def _latent_shape(self, asked: VideoSettings) -> tuple[int, int, int, int]:
        return (self.vae.channels, *self.vae.get_latent_size((asked.frames, asked.height, asked.width)))

    def _start(
        self, given: Given, generators: Sequence[torch.Generator], asked: VideoSettings, loop: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noise, the same with given frames put in (both (B, C, T', h, w)), and edit ratios (B, T')."""
        noise = self._noise(generators, asked)
        films = [
            apply_mask_strategy(film, [several[k % len(several)] for several in given.references], given.strategy, loop)
            for k, film in enumerate(noise)
        ]
        z, ratios = (torch.stack(each) for each in zip(*films, strict=True))
        return noise, z, ratios

    def _noise(self, generators: Sequence[torch.Generator], asked: VideoSettings) -> Tensor:
        """(B, C, T', h, w), every film's from its own generator."""
        shape = (1, *self._latent_shape(asked))
        noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
        return noise.to(self.vae.shift.device)

    def _carry_on(self, given: Given, end: Tensor, loop: int, carried: int) -> Given:
        """Let clip number `loop` begin with the last frames of the clip before, encoded anew as a beginning."""
        latents = self.vae.encode(end, sample=False)
        entry = f"{loop},{len(given.references)},0,0,{carried}"
        return Given((*given.references, latents), f"{given.strategy};{entry}")

    def _sample(
        self,
        prompts: Sequence[str],
        start: tuple[Tensor, Tensor, Tensor],
        generators: Sequence[torch.Generator],
        asked: VideoSettings,
        method: str,
        image_guidance: float,
        oscillate: bool,
        progress: bool,
    ) -> Tensor:
        """From the noise of one clip to its latents."""
        noise, z, ratios = start
        latent_frames = z.shape[2]
        ratio = shift_ratio(asked.height, asked.width, latent_frames) if asked.shift else None
        y, tokens = text_for_denoiser(self.denoiser, self.text, prompts)
        velocity = GuidedVelocity(
            denoise=lambda z, t, y, mask, frames: self._denoise(asked, z, t, y, mask, frames),
            text=(y, tokens),
            null=no_text(self.denoiser, len(y), tokens if asked.null_tokens == "prompt" else None),
            scale=asked.guidance,
            image_scale=image_guidance,
            hide=lambda z, t, frames: torch.where(
                rearrange(frames, "b t -> b 1 t 1 1"), z, self.flow.add_noise(z, noise, t)
            ),
            times=torch.cat(self.flow.timesteps(asked.steps, 1, ratio)) if oscillate else None,
        )
        return self.flow.sample(
            velocity,
            z,
            asked.steps,
            method,
            ratio,
            mask=None if (ratios == 1).all() else ratios,
            noises=[noise] * asked.steps,  # a frame that opens on the way is as noisy as the film's own noise makes it
            progress=progress,
            eta=asked.eta,
            fresh=lambda: self._noise(generators, asked),
        )

    def _denoise(
        self, asked: VideoSettings, z: Tensor, t: Tensor, y: Tensor, mask: Tensor, frames: Tensor | None = None
    ) -> Tensor:
        """The prediction of the network. frames (B, T') bool: False for given ones."""
        told = {"fps": asked.told_fps, "height": asked.height, "width": asked.width}
        told = {name: torch.tensor([float(number)], device=z.device) for name, number in told.items()}
        return self.denoiser(z, t, y, mask, frames, **told)[:, : z.shape[1]]
