"""How big a clip may be: a few bytes of a hostile or broken file can announce more pixels than a machine has memory."""

MAX_FRAME_PIXELS = 2**25  # an 8K frame has 2**25 pixels
MAX_CLIP_PIXELS = 2**27  # 400 MB of RGB: 64 frames of 1080p, 2048 frames of 256×256
MAX_FILE_BYTES = 2**29  # of a GIF, WebP or npz, which are read whole


def check_frame_size(width: int, height: int) -> None:
    """Raise ValueError when one frame is empty or larger than an 8K picture."""
    if width < 1 or height < 1:
        raise ValueError(f"a frame of {width}×{height} pixels")
    if width * height > MAX_FRAME_PIXELS:
        raise ValueError(f"frames of {width}×{height} pixels, more than the {MAX_FRAME_PIXELS:,} allowed")
