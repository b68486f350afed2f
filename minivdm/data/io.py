"""Clips in files: read and write GIF, MP4, WebP and npz.

In files a clip is uint8 `(T, H, W, 3)`, 0..255; in the package it is float `(3, T, H, W)` in [-1, 1]. This is the door.

Which format to choose: npz and WebP keep every pixel; GIF has 256 colours per frame and is shown everywhere; MP4 is
small for large clips, and lossy.
"""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from minivdm.data import gif, limits, webp
from minivdm.data.gif import read_gif, write_gif
from minivdm.data.mp4 import read_mp4, write_mp4
from minivdm.data.npz import read_npz, write_npz
from minivdm.data.webp import read_webp, write_webp
from minivdm.errors import UserError

EXTENSIONS = ("gif", "mp4", "webp", "npz")
DEFAULT_FPS = 8.0
_ENCODERS: dict[str, Callable[[np.ndarray, float], bytes]] = {
    "gif": write_gif,
    "mp4": write_mp4,
    "webp": write_webp,
    "npz": write_npz,
}
# What Pillow, FFmpeg, zipfile and NumPy raise, between them, when bytes are damaged.
_DAMAGE = (ValueError, OSError, EOFError, KeyError, SyntaxError, RuntimeError, MemoryError, struct.error, zlib.error)
_FILE_FAULTS = (*_DAMAGE, av.FFmpegError, zipfile.BadZipFile, Image.DecompressionBombError)


@dataclass(frozen=True)
class Video:
    """A clip as it lies in a file."""

    frames: np.ndarray  # (T, H, W, 3) uint8
    fps: float


def to_uint8(video: Tensor) -> np.ndarray:
    """Float `(..., C, T, H, W)` in [-1, 1] -> uint8 array `(..., T, H, W, C)`, rounded to nearest.

    A sampler may overshoot a little, so values beyond [-1, 1] are clamped. Raises UserError on NaN, and on values so
    large that the video must be in another range.
    """
    video = video.detach().to("cpu", torch.float32)
    if not torch.isfinite(video).all():
        raise UserError("the video has NaN or infinite values; expected floats in [-1, 1]: see what produced it")
    if video.numel() and video.abs().max() > 16:
        raise UserError(f"video values reach {video.abs().max():.0f}; expected floats in [-1, 1]: see from_uint8")
    levels = ((video.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return rearrange(levels, "... c t h w -> ... t h w c").contiguous().numpy()


def from_uint8(frames: np.ndarray | Tensor) -> Tensor:
    """uint8 `(..., T, H, W, C)` -> float32 `(..., C, T, H, W)` in [-1, 1]; `to_uint8` gives exactly `frames` back."""
    frames = torch.as_tensor(frames)
    if frames.dtype != torch.uint8:
        raise UserError(f"from_uint8 got {frames.dtype}; expected uint8 frames with values 0..255")
    return rearrange(frames, "... t h w c -> ... c t h w").contiguous().float().div_(127.5).sub_(1)


def read_video(
    path: str | Path, each_frame: Callable[[np.ndarray], np.ndarray] | None = None, inside: Path | None = None
) -> Video:
    """Read a GIF, MP4, WebP or npz file: every frame it stores, in order, and its frames per second.

    The content decides the kind, not the name: many a `.gif` from the web is a WebP. Frames that a file shows for
    different times stay one frame each; `fps` is then the average. `each_frame` is applied to every (H, W, 3) frame as
    it is read, so that a long film can be made small before it fills the memory. A link is not followed out of the
    folder `inside`: somebody else's folder of clips does not get at the files around it.

    Raises UserError, one line with the file's name, when the file is missing, damaged, empty or beyond `limits`.
    """
    path = Path(path)
    frames, seconds, decoded, kept = [], Fraction(0), 0, 0
    try:
        if inside and path.is_symlink() and not path.resolve().is_relative_to(inside.resolve()):
            raise ValueError("a link that leads out of the folder; put the clip itself there")
        stored, tick = _open(path)
        for frame, duration in stored:
            decoded += frame.shape[0] * frame.shape[1]
            frame = each_frame(frame) if each_frame else frame
            frames.append(frame)
            seconds += duration
            limits.check_film_size(len(frames), decoded)
            kept += frame.shape[0] * frame.shape[1]
            if kept > limits.MAX_CLIP_PIXELS:
                raise ValueError(f"more than {limits.MAX_CLIP_PIXELS:,} pixels; cut it, or make it smaller")
        if not frames:
            raise ValueError("no frames")
        stacked = np.stack(frames)  # fails when a film changes its size on the way
    except _FILE_FAULTS as fault:
        raise UserError(f"cannot read the clip {path}: {_one_line(fault)}") from None
    return Video(stacked, _frame_rate(len(frames), seconds, tick))


def write_video(path: str | Path, video: Tensor | np.ndarray, fps: float = DEFAULT_FPS) -> Path:
    """Write one clip; the suffix chooses GIF, MP4, WebP or npz.

    `video` is float `(3, T, H, W)` in [-1, 1] or uint8 `(T, H, W, 3)`. What is read back has the same frames in the
    same order, also when frames are equal: npz and WebP pixel by pixel, GIF with at most 256 colours per frame, MP4
    approximately and with odd sizes grown by one. Raises UserError for another suffix, shape or rate, and when the disk
    is full or not writable.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in EXTENSIONS:
        raise UserError(f"cannot write {path}: expected a name that ends in .{', .'.join(EXTENSIONS)}")
    frames = _as_frames(video)
    if not fps > 0:
        raise UserError(f"cannot write {path}: {fps} frames per second; expected a rate above 0")
    try:
        data = _ENCODERS[kind](frames, fps)
    except _FILE_FAULTS as fault:
        raise UserError(f"cannot write {path}: {_one_line(fault)}") from None
    return write_atomically(path, data)


def write_atomically(path: str | Path, data: bytes) -> Path:
    """Write `data` under a temporary name beside `path`, then rename: `path` is the old file or the whole new one.

    Folders are made as needed. Raises UserError when that fails; nothing half-written stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # some disks report that they are full only here
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as fault:
        raise UserError(f"cannot write {path}: {fault.strerror or fault}; make room or choose another folder") from None
    return path


def _open(path: Path) -> tuple[Iterator[tuple[np.ndarray, Fraction]], Fraction]:
    """The frames of a file with the seconds each is shown, and the tick to which its format rounds times (0: exact)."""
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ValueError("not a file")  # a pipe would keep us waiting; what a folder is, `open` says
    with open(path, "rb") as file:
        head = file.read(12)
    if not head:
        raise ValueError("the file is empty")
    if status.st_size > limits.MAX_FILE_BYTES:
        raise ValueError(f"{status.st_size:,} bytes, more than the {limits.MAX_FILE_BYTES:,} allowed")
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
        return read_mp4(path.read_bytes()), Fraction(0)
    if head[:4] == b"GIF8":
        return read_gif(path.read_bytes()), gif.TICK
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return read_webp(path.read_bytes()), webp.TICK
    if head[:2] == b"PK":
        return read_npz(path), Fraction(0)
    raise ValueError(f"expected a GIF, MP4, WebP or npz file, but it starts with {head[:8]!r}")


def _frame_rate(count: int, seconds: Fraction, tick: Fraction) -> float:
    """Frames per second. Files round times to ticks: a whole rate that would round to these times is the true one."""
    rate = count / seconds
    whole = round(rate)
    return float(whole if whole and abs(count / Fraction(whole) - seconds) <= tick / 2 else rate)


def _as_frames(video: Tensor | np.ndarray) -> np.ndarray:
    """Whatever `write_video` accepts -> uint8 (T, H, W, 3)."""
    if isinstance(video, Tensor) and video.is_floating_point() and video.ndim == 4 and video.shape[0] == 3:
        frames = to_uint8(video)
    elif video.ndim == 4 and video.shape[3] == 3 and str(video.dtype).endswith("uint8"):
        frames = np.asarray(video)
    else:
        raise UserError(
            f"cannot write a video of shape {tuple(video.shape)} {video.dtype}: "
            "expected float (3, T, H, W) in [-1, 1] or uint8 (T, H, W, 3)"
        )
    if 0 in frames.shape:
        raise UserError(f"cannot write an empty video of shape {tuple(video.shape)}; expected one frame or more")
    return frames


def _one_line(fault: BaseException) -> str:
    """The reason without the path and the trailing clutter that libraries add."""
    reason = getattr(fault, "strerror", None) or str(fault)
    return " ".join(reason.split()) or type(fault).__name__
