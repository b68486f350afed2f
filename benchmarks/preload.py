"""Everything that a measured process needs, imported once in the server that it is forked from."""

from benchmarks import measure, rows  # noqa: F401
from benchmarks.peers import DIFFUSERS, VIDEO_DIFFUSION, installed, video_diffusion

if installed(VIDEO_DIFFUSION):
    video_diffusion()
if installed(DIFFUSERS):
    from diffusers import AutoencoderKL, LatteTransformer3DModel  # noqa: F401
