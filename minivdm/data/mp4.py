"""MP4 files through PyAV: H.264, which every browser and player shows."""

import io
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from minivdm.data.limits import MAX_FRAME_PIXELS, check_frame_size
from minivdm.data.mp4_index import video_tracks

QUALITY = "12"  # x264's constant rate factor: 0 is lossless, 18 looks so, 23 is its default


def read_mp4(data: bytes) -> Iterator[tuple[np.ndarray, Fraction]]:
    """Yield (frame (H, W, 3) uint8, seconds it is shown) in the order of display; sound is ignored.

    Every stored frame is one frame, whatever time it stays, so the seconds are those of the average rate. A phone's
    rotation mark is obeyed. Raises ValueError, or PyAV's OSError or ValueError, when the file is damaged.
    """
    # The format is named because FFmpeg would else guess from the content: a play-list can name any other file.
    options = {"max_pixels": str(MAX_FRAME_PIXELS)}  # a stream can grow on its way
    with av.open(video_tracks(data), format="mov", options=options, metadata_errors="replace") as container:
        if not container.streams.video:
            raise ValueError("MP4 without a video stream")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise ValueError("MP4 with a video codec that FFmpeg does not know")
        check_frame_size(stream.width, stream.height)
        stream.codec_context.options = options
        rate = stream.average_rate or stream.guessed_rate or Fraction(10)
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise ValueError("damaged MP4: a frame cannot be decoded")
            pixels = frame.to_ndarray(format="rgb24")
            yield np.rot90(pixels, round(frame.rotation / 90)), 1 / rate


def write_mp4(frames: np.ndarray, fps: float) -> bytes:
    """H.264 of `frames` (T, H, W, 3) uint8, 4:2:0 as browsers need it, so colours are stored at half the resolution.

    The format has even sizes only: an odd width or height grows by one, repeating the last column or row.
    """
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": QUALITY, "threads": "1"}  # x264 cuts pictures by the number of threads
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()
