"""Our own npz: `frames` (T, H, W, 3) uint8 and `fps`, as `numpy.savez_compressed` writes them.

A zip file can announce far more than it holds, and an array in it can be a pickle, which runs code when it is read. So
what is announced is checked before anything is unpacked, and no pickle is.
"""

import io
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from minivdm.data import limits

DEFAULT_FPS = 8.0
MAX_DIRECTORY = 2**16  # bytes of the zip's table of contents; of two arrays it is about a hundred
END_BYTES, LOCATOR_BYTES = 22, 20  # of the zip's last record, and of the one before it in a zip of over 4 GB


def read_npz(path: Path) -> Iterator[tuple[np.ndarray, Fraction]]:
    """Yield (frame (H, W, 3) uint8, seconds it is shown). Raises ValueError and zipfile's and NumPy's own errors."""
    _check_directory(path)
    with zipfile.ZipFile(path) as archive:
        shape, kind = _announced(archive, "frames.npy")
        if kind != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise ValueError(f"npz with frames {shape} {kind}; expected (T, H, W, 3) uint8")
        limits.check_frame_size(shape[2], shape[1])
        if shape[0] * shape[1] * shape[2] > limits.MAX_CLIP_PIXELS:
            raise ValueError(f"more than {limits.MAX_CLIP_PIXELS:,} pixels; cut it, or make it smaller")
        fps = DEFAULT_FPS
        if "fps.npy" in archive.namelist():
            shape_of_fps, kind = _announced(archive, "fps.npy")
            if shape_of_fps != () or kind != np.float64:
                raise ValueError(f"npz with fps {shape_of_fps} {kind}; expected one float64")
            fps = float(_read(archive, "fps.npy"))
        if not 0 < fps < 1e6:
            raise ValueError(f"npz with fps {fps}; expected a rate above 0")
        for frame in _read(archive, "frames.npy"):
            yield frame, 1 / Fraction(fps)


def write_npz(frames: np.ndarray, fps: float) -> bytes:
    """`frames` (T, H, W, 3) uint8, pixel by pixel."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, frames=frames, fps=np.float64(fps))
    return buffer.getvalue()


def _check_directory(path: Path) -> None:
    """Refuse a zip whose table of contents would fill the memory: `zipfile` makes an object of 500 bytes per entry."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - END_BYTES - LOCATOR_BYTES))
        locator, end = (tail := file.read())[:-END_BYTES], tail[-END_BYTES:]
    if end[:4] != b"PK\x05\x06" or locator[:4] == b"PK\x06\x07":
        raise ValueError("truncated npz, or not one that NumPy wrote: it does not end as a zip file does")
    if int.from_bytes(end[12:16], "little") > MAX_DIRECTORY:
        raise ValueError("npz with too many entries; expected frames and fps")


def _announced(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, from its header."""
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("npz in a compression that NumPy does not write")
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, _, kind = read_header(member)
        except Exception as fault:  # the header is a line of Python: whatever its parser raises
            raise ValueError(f"npz with a damaged header ({type(fault).__name__})") from None
    return shape, kind


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
