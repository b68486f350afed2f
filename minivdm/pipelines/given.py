"""What a film is given to begin, to end or to work from: pictures and clips as latents, and which of them go where."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from minivdm.data.fit import fit_frame
from minivdm.data.io import from_uint8, read_video, to_uint8
from minivdm.diffusion.conditions import condition_strategy
from minivdm.errors import UserError
from minivdm.vae.video import VideoAutoencoder

Picture = Tensor | Image.Image | str | Path


@dataclass(frozen=True)
class Given:
    """Latents (1, C, T', h, w) to take frames from, and the mask strategy that says which go where."""

    references: tuple[Tensor, ...] = ()
    strategy: str = ""


def read_picture(picture: Picture, size: tuple[int, int]) -> Tensor:
    """A file, a PIL image or a tensor (3, h, w) in [-1, 1] -> a clip of one frame (1, 3, 1, H, W).

    Other sizes are cut around the centre to the wanted shape, and scaled.
    """
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or picture.shape[0] != 3:
            raise UserError(f"picture of shape {tuple(picture.shape)}: expected (3, H, W) in [-1, 1]")
        return _fit(picture[None, :, None], size)
    if not isinstance(picture, Image.Image):
        try:
            with Image.open(picture) as file:
                picture = file.convert("RGB")
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise UserError(f"cannot read the picture {picture}: {reason}") from None
    return _fit(from_uint8(np.array(picture.convert("RGB"))[None])[None], size)


def read_clip(video: Tensor | str | Path, size: tuple[int, int]) -> Tensor:
    """A file or a tensor (3, T, h, w) in [-1, 1] -> (1, 3, T, H, W), cut and scaled as pictures are."""
    if not isinstance(video, Tensor):
        return _fit(from_uint8(read_video(video).frames)[None], size)
    if video.ndim != 4 or video.shape[0] != 3 or not video.shape[1]:
        raise UserError(f"video of shape {tuple(video.shape)}: expected (3, T, H, W) in [-1, 1]")
    return _fit(video[None], size)


def time_factor(vae: VideoAutoencoder) -> int:
    """How many frames a latent frame stands for."""
    return 1 if vae.temporal is None else vae.temporal.time_downsample_factor


def head_frames(vae: VideoAutoencoder, frames: int, latents: int) -> int:
    """How many frames of a film of `frames` frames its first `latents` latent frames stand for.

    With zeros padded in front to fill them up, the first latent frame may stand for fewer frames than the others.
    """
    factor = time_factor(vae)
    piece = min(vae.micro_frame_size or frames, frames)
    pieces, rest = divmod(latents, -(-piece // factor))
    length = min(piece, frames - pieces * piece)
    return min(pieces * piece + (rest * factor - -length % factor if rest else 0), frames)


def gather(
    vae: VideoAutoencoder,
    frames: int,
    size: tuple[int, int],
    *,
    clips: int = 1,
    image: Picture | None = None,
    last_image: Picture | None = None,
    video: Tensor | str | Path | None = None,
    condition: str | None = None,
    strength: float | None = None,
) -> Given:
    """The latents of what is given, and the strategy that puts them into a film. See `TextToVideoPipeline.__call__`."""
    first = None if image is None else read_picture(image, size)
    last = None if last_image is None else read_picture(last_image, size)
    clip = None if video is None else read_clip(video, size)
    condition = _condition(condition, first, last, clip, strength)
    encode = _Encoder(vae, frames)
    references: list[Tensor] = []
    kept, latents = 1, vae.get_latent_size((frames, None, None))[0]
    if condition != "t2v" and strength is None and latents < (3 if condition == "i2v_loop" else 2):
        raise UserError(
            f"{frames} frames are {latents} latent frames, all given with {condition}: ask for more frames, or "
            "pass strength to work from what is given"
        )
    if condition in ("i2v_head", "i2v_loop"):
        references.append(encode.head(clip[:, :, :1] if first is None else first, 1))
    if condition in ("i2v_tail", "i2v_loop"):
        given = next((picture for picture in (last, first) if picture is not None), None)
        references.append(encode.tail(clip[:, :, -1:] if given is None else given, 1))
    if condition in ("v2v_head", "v2v_tail"):
        at_head = condition == "v2v_head"
        stretch = encode.head_length if at_head else encode.tail_length
        kept = max([k for k in range(1, latents // 2 + 1) if stretch(k) <= clip.shape[2]], default=1)
        references.append((encode.head if at_head else encode.tail)(clip, kept))
    strategy = condition_strategy(condition, kept=kept, clips=clips)
    if strength is not None and strength < 1:
        whole = first if clip is None else clip
        whole_entry = f"0,{len(references)},0,0,{latents},{strength}"
        references.append(encode.head(whole, latents))
        strategy = f"{whole_entry};{strategy}"  # what is kept is put over it
    return Given(tuple(references), strategy)


def _condition(
    condition: str | None, first: Tensor | None, last: Tensor | None, clip: Tensor | None, strength: float | None
) -> str:
    """The name of the condition; a UserError where it does not fit what is given."""
    if strength is not None and not 0 <= strength <= 1:
        raise UserError(f"strength is {strength}: expected 0, which keeps the input, to 1, which ignores it")
    if strength is not None and clip is None and first is None:
        raise UserError("strength without image or video: there is nothing to work from; pass one of them")
    if condition is None and strength is not None:
        condition = "t2v"
    elif condition is None:
        pictures = (first is not None, last is not None)
        still = {(True, True): "i2v_loop", (True, False): "i2v_head", (False, True): "i2v_tail", (False, False): "t2v"}
        condition = "v2v_head" if clip is not None and not any(pictures) else still[pictures]
    condition = "v2v_head" if condition == "v2v" else condition
    condition_strategy(condition)
    needs = {"i2v_head": (first, clip), "i2v_tail": (last, first, clip), "i2v_loop": (first, clip)}
    needs |= {"v2v_head": (clip,), "v2v_tail": (clip,)}
    if condition in needs and all(given is None for given in needs[condition]):
        names = "a video" if condition.startswith("v2v") else "an image or a video"
        raise UserError(f"condition {condition!r} needs {names}: pass it, or leave the condition out")
    if condition == "t2v" and strength is None and not (first is last is clip is None):
        raise UserError("condition 't2v' takes neither image nor video: leave them out, or choose another condition")
    return condition


@dataclass(frozen=True)
class _Encoder:
    """Clips to the latents that stand for them in a film of `frames` frames."""

    vae: VideoAutoencoder
    frames: int

    def head_length(self, latents: int) -> int:
        """How many frames the first `latents` latent frames stand for."""
        return head_frames(self.vae, self.frames, latents)

    def tail_length(self, latents: int) -> int:
        """How many frames the last `latents` latent frames stand for."""
        total = self.vae.get_latent_size((self.frames, None, None))[0]
        return self.frames - self.head_length(total - latents)

    def head(self, clip: Tensor, latents: int) -> Tensor:
        """The first `latents` latent frames of a film that begins with this clip.

        As many frames as they stand for are encoded, so that as many zeros stand in front of them as in the film.
        """
        wanted = self.head_length(latents)
        still = clip[:, :, -1:].expand(-1, -1, max(wanted - clip.shape[2], 0), -1, -1)
        return self._encode(torch.cat([clip[:, :, :wanted], still], dim=2))

    def tail(self, clip: Tensor, latents: int) -> Tensor:
        """The last `latents` latent frames of a film that stands still at this clip's first frame and ends with it.

        Such a latent continues what was before it. Open-Sora 1.2 takes that of the picture alone, which is a latent of
        a beginning: the shipped VAE shows the last picture of a film 5 dB worse then.
        """
        clip = clip[:, :, -self.frames :]
        still = clip[:, :, :1].expand(-1, -1, self.frames - clip.shape[2], -1, -1)
        return self._encode(torch.cat([still, clip], dim=2))[:, :, -latents:]

    def _encode(self, clip: Tensor) -> Tensor:
        return self.vae.encode(clip.to(self.vae.shift.device), sample=False)


def _fit(clip: Tensor, size: tuple[int, int]) -> Tensor:
    if not torch.isfinite(clip).all() or clip.abs().max() > 1.5:
        raise UserError(f"pictures with values from {clip.min():.3g} to {clip.max():.3g}: expected floats in [-1, 1]")
    if tuple(clip.shape[-2:]) == tuple(size):
        return clip.float()
    frames: Sequence[np.ndarray] = to_uint8(clip[0])
    return from_uint8(np.stack([fit_frame(frame, size) for frame in frames]))[None]
