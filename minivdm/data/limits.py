"""How big a clip may be: a few bytes of a hostile or broken file can announce more pixels than a machine has memory.

With these limits reading one clip takes at most `MAX_MEMORY`: the file, decoded frames and a copy of them, and what a
decoder keeps. (FFmpeg is the hungriest: up to 17 frames at 6 bytes a pixel.) Time is limited by `MAX_FILM_PIXELS`.
"""

MAX_FRAME_PIXELS = 2**24  # twice a 4K frame
MAX_CLIP_PIXELS = 2**27  # that are kept. 400 MB of RGB: 64 frames of 1080p, 2048 frames of 256×256
MAX_FILM_PIXELS = 2**32  # that are decoded, and may be made small on the way: 2048 frames of 1080p
MAX_FRAMES = 2**16
MAX_FILE_BYTES = 2**29
MAX_MEMORY = 2 * MAX_FILE_BYTES + 2 * 3 * MAX_CLIP_PIXELS + 17 * 6 * MAX_FRAME_PIXELS  # bytes: 3.6 GB


def check_frame_size(width: int, height: int) -> None:
    """Raise ValueError when one frame is empty or larger than MAX_FRAME_PIXELS."""
    if width < 1 or height < 1:
        raise ValueError(f"a frame of {width}×{height} pixels")
    if width * height > MAX_FRAME_PIXELS:
        raise ValueError(f"frames of {width}×{height} pixels, more than the {MAX_FRAME_PIXELS:,} allowed")


def check_film_size(frames: int, pixels: int) -> None:
    """Raise ValueError when there is more to decode, in `frames` of together so many pixels, than is worth the time."""
    if frames > MAX_FRAMES:
        raise ValueError(f"more than {MAX_FRAMES:,} frames; cut it")
    if pixels > MAX_FILM_PIXELS:
        raise ValueError(f"more than {MAX_FILM_PIXELS:,} pixels in all; cut it, or make it smaller")
