"""Content of clips that are damaged, lie about their size, or hold what no clip should: see `hostile_corpus`."""

import io
import pickle
import shutil
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import av
import numpy as np
from gif_by_hand import colour_table, gif, lzw, picture
from PIL import Image

from minivdm.data.gif import write_gif
from minivdm.data.mp4 import write_mp4
from minivdm.data.npz import write_npz
from minivdm.data.webp import write_webp

FRAMES = 5
TABLE = colour_table([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)])
WRITERS = {"gif": write_gif, "mp4": write_mp4, "webp": write_webp, "npz": write_npz}


def noise(count: int = FRAMES, height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@cache
def whole(kind: str, count: int = FRAMES, height: int = 24, width: int = 32) -> bytes:
    """A sound clip."""
    return WRITERS[kind](noise(count, height, width), 8)


def cut(kind: str, share: float) -> bytes:
    return whole(kind)[: int(len(whole(kind)) * share)]


def patched(data: bytes, tag: bytes, offset: int, form: str, *values: int) -> bytes:
    """The bytes with numbers written over those that lie `offset` after the end of the first `tag`."""
    changed = bytearray(data)
    struct.pack_into(form, changed, data.index(tag) + len(tag) + offset, *values)
    return bytes(changed)


# GIF


def squares(**options) -> bytes:
    """Three pictures with the same options, two of them smaller than the canvas."""
    index = np.arange(16).reshape(4, 4) % 4
    return gif(4, 4, *[picture(index[i:, i:], (i, i), **options) for i in range(3)], table=TABLE)


def many_pictures(count: int, side: int = 1) -> bytes:
    return gif(side, side, *[picture(np.ones((1, 1), int), code_size=2)] * count, table=TABLE)


def picture_with(code_size: int, side: int = 2) -> bytes:
    """One picture whose LZW stream begins with any code size."""
    good = picture(np.ones((2, 2), int))
    head, stream = good[: -len(lzw(np.ones((2, 2), int), 8))], lzw(np.ones((2, 2), int), 8)
    return gif(side, side, head + bytes([code_size]) + stream[1:], table=TABLE)


# Pictures that are no clips, or are clips of another kind


def still(kind: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(1)[0]).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def animated(kind: str, mode: str = "RGB", **options) -> bytes:
    images = [Image.fromarray(frame).convert(mode) for frame in noise()]
    buffer = io.BytesIO()
    images[0].save(buffer, kind, save_all=True, append_images=images[1:], **options)
    return buffer.getvalue()


def huge_webp(width: int, height: int, frames: int = 1) -> bytes:
    """An animation of one pixel on a canvas of any size."""
    one = whole("webp", 1, 1, 1)
    start = one.index(b"ANMF")
    body = one[12:start] + one[start:] * frames
    data = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    place = data.index(b"VP8X") + 12
    return data[:place] + size + data[place + 6 :]


# MP4


def movie(codec: str = "libx264", sound: bool = False, packets: tuple[bytes, ...] = (), **options) -> bytes:
    """A film that FFmpeg writes, of noise or of packets that somebody else has encoded."""
    path = Path(tempfile.mkdtemp(), "film.mov")  # with "faststart" FFmpeg reads what it wrote
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height = 32, 24
        stream.pix_fmt = "yuv420p" if codec == "libx264" else stream.codec_context.codec.video_formats[0].name
        listener = container.add_stream("pcm_s16le", rate=8000, layout="mono") if sound else None
        if packets:
            container.start_encoding()
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe, packet.duration = stream.time_base or 1 / 8, True, 1
            container.mux(packet)
        if not packets:
            for frame in noise():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        if listener:
            wave = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
            wave.sample_rate = 8000
            container.mux(listener.encode(wave))
            container.mux(listener.encode(None))
    data = path.read_bytes()
    shutil.rmtree(path.parent)
    return data


def huge_jpeg() -> bytes:
    """A small JPEG whose header says 65,500 × 65,500."""
    return patched(still("JPEG"), b"\xff\xc0", 3, ">HH", 65500, 65500)


# npz


class Payload:
    """What a pickle does when it is read: it makes a file."""

    def __init__(self, trace: Path | str):
        self.trace = str(trace)

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(self.trace),)


def array(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value)
    return buffer.getvalue()


def header(shape: tuple, descr: str = "|u1") -> bytes:
    """An array's header without its content."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def pickled_array(trace: Path | str) -> bytes:
    return header((1,), "|O") + pickle.dumps(np.array([Payload(trace)], dtype=object))


def npz(compression: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


def crowded_npz(entries: int = 2000) -> bytes:
    return npz(frames__npy=array(noise()), **{f"entry{i}": b"" for i in range(entries)})
