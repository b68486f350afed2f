"""The VAEs: pictures against diffusers' AutoencoderKL with the same weights, streaming against all at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.peers import DIFFUSERS
from benchmarks.vae_memory import small_vae
from benchmarks.work import Run, Work, options, random, relative
from minivdm.vae import AutoEncoder2D, TemporalVAE


@dataclass(frozen=True)
class ThereAndBack(Work):
    """Encode a picture to the mean of its latent, and decode that. The size is Stable Diffusion's."""

    peer: str = DIFFUSERS
    size: int = 256
    widths: tuple[int, ...] = (128, 256, 512, 512)

    def _theirs(self):
        from diffusers import AutoencoderKL

        torch.manual_seed(0)
        levels = len(self.widths)
        return AutoencoderKL(
            block_out_channels=self.widths,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=2,
            latent_channels=4,
        ).eval()

    def _run(self, ours: AutoEncoder2D) -> Run:
        x = self._picture()
        return torch.inference_mode()(lambda: ours.decode(ours.encode(x, sample=False)))

    def _their_run(self, theirs) -> Run:
        x = self._picture()
        return torch.inference_mode()(lambda: theirs.decode(theirs.encode(x).latent_dist.mode()).sample)

    def _picture(self) -> Tensor:
        return random(1, 3, self.size, self.size).clamp(-1, 1)

    def ours(self) -> Run:
        torch.manual_seed(0)
        multipliers = [width // self.widths[0] for width in self.widths]
        return self._run(AutoEncoder2D(ch=self.widths[0], ch_mult=multipliers, quant_conv=True).eval())

    def theirs(self) -> Run:
        return self._their_run(self._theirs())

    def pair(self) -> tuple[Run, Run]:
        theirs = self._theirs()
        ours = AutoEncoder2D.from_diffusers(theirs.state_dict(), dict(theirs.config))
        return self._run(ours), self._their_run(theirs)

    def difference(self, ours: Run, theirs: Run) -> float:
        return relative(ours(), theirs())


@dataclass(frozen=True)
class Streaming(Work):
    """The temporal VAE decodes a clip latent by latent, against all of it at once."""

    frames: int = 68
    size: int = 64

    def _vae(self) -> tuple[TemporalVAE, Tensor]:
        """One of the toy's sizes, and latents of a clip of 512×512 pixels."""
        torch.manual_seed(0)
        vae = small_vae().temporal
        return vae, random(1, vae.config.embed_dim, *vae.get_latent_size((self.frames, self.size, self.size)))

    def ours(self) -> Run:
        """Only the sum of every frame is kept, as a program that shows or writes them would keep none."""
        vae, z = self._vae()

        @torch.inference_mode()
        def run() -> Tensor:
            pieces = vae.decode_stream(z.split(1, dim=2), self.frames)
            return torch.cat([piece.sum(dim=(0, 1, 3, 4)) for piece in pieces])

        return run

    def theirs(self) -> Run:
        vae, z = self._vae()
        return torch.inference_mode()(lambda: vae.decode(z, self.frames).sum(dim=(0, 1, 3, 4)))

    def difference(self, ours: Run, theirs: Run) -> float:
        return relative(ours(), theirs())

    def remark(self) -> str:
        return f"{options(self._vae()[0])}; the peer is its own decoding of the whole clip"


def works(tiny: bool) -> list[Work]:
    """The rows."""
    if tiny:
        return [
            ThereAndBack("vae2d", "2D VAE, tiny", time=1.0, memory=0.7, size=16, widths=(32, 64)),
            Streaming("stream", "temporal VAE, tiny", None, time=1.1, memory=0.35, frames=9, size=8),
        ]
    widest = (
        "In the decoder's last level a block takes in 256 channels of 256×256, 64 MiB, and holds its input, what comes "
        "of norm and activation, and the output of a convolution at once, on both sides."
    )
    waiting = (
        "At every convolution the last frames of a piece wait for the next one and are put in front of it, which "
        "copies both; and convolutions of few frames reach less of the machine."
    )
    large = "2D VAE of Stable Diffusion, encode and decode 256×256"
    stream = "temporal VAE, decode 68 frames of 64×64 latents, streaming"
    return [
        ThereAndBack("vae2d", large, time=1.0, memory=0.7, why=widest),
        Streaming("stream", stream, None, time=1.1, memory=0.35, why=waiting),
    ]
