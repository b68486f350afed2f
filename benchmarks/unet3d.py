"""Unet3D against video-diffusion-pytorch's, with the same weights: training steps and sampling steps."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from benchmarks.peers import VIDEO_DIFFUSION, video_diffusion
from benchmarks.work import Run, Work, random, training_step
from minivdm.convert import unet3d_from_lucidrains
from minivdm.denoisers.unet3d import Unet3D
from minivdm.diffusion.gaussian import GaussianDiffusion
from minivdm.diffusion.schedules import make_betas

STEPS = 1000


@dataclass(frozen=True)
class UnetWork(Work):
    """A noise predictor and its diffusion, on both sides.

    sizes: arguments of the network. clips: (B, C, T, H, W).
    """

    peer: str = VIDEO_DIFFUSION
    sizes: dict = field(default_factory=dict)
    clips: tuple[int, ...] = (4, 3, 8, 32, 32)
    checks: int = 2

    def our_parts(self) -> tuple[Unet3D, GaussianDiffusion]:
        torch.manual_seed(0)
        # as upstream, where the first attention along time does not heed the mask; nothing is masked here
        unet = Unet3D(**self.sizes, channels=self.clips[1], mask_initial_attention=False)
        return unet, GaussianDiffusion(make_betas("cosine", STEPS))

    def their_parts(self) -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        theirs = video_diffusion()
        unet = theirs.Unet3D(**self.sizes, channels=self.clips[1])
        _, channels, frames, size, _ = self.clips
        diffusion = theirs.GaussianDiffusion(
            unet, image_size=size, num_frames=frames, channels=channels, timesteps=STEPS, loss_type="l2"
        )
        return unet, diffusion

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Clips, timesteps and noise."""
        t = torch.linspace(10, STEPS - 10, self.clips[0]).long()
        return random(*self.clips, seed=1).clamp(-1, 1), t, random(*self.clips, seed=2)

    def our_run(self, unet: Unet3D, diffusion: GaussianDiffusion) -> Run:
        raise NotImplementedError

    def their_run(self, unet: nn.Module, diffusion: nn.Module) -> Run:
        raise NotImplementedError

    def ours(self) -> Run:
        return self.our_run(*self.our_parts())

    def theirs(self) -> Run:
        return self.their_run(*self.their_parts())

    def pair(self) -> tuple[Run, Run]:
        ours, theirs = self.our_parts(), self.their_parts()
        ours[0].load_state_dict(unet3d_from_lucidrains(theirs[0].state_dict()))
        return self.our_run(*ours), self.their_run(*theirs)


class UnetTraining(UnetWork):
    """Noise the clips, predict, mean squared error, backward, Adam."""

    training = True

    def our_run(self, unet: Unet3D, diffusion: GaussianDiffusion) -> Run:
        x0, t, noise = self.inputs()
        return training_step(unet, lambda: diffusion.loss(unet, x0, t, noise).mean())

    def their_run(self, unet: nn.Module, diffusion: nn.Module) -> Run:
        x0, t, noise = self.inputs()
        return training_step(unet, lambda: diffusion.p_losses(x0, t, noise=noise))


class UnetSampling(UnetWork):
    """One step of ancestral sampling with classifier-free guidance 2, at t = 0, where no noise is added."""

    guidance = 2.0

    def condition(self) -> Tensor:
        return random(self.clips[0], self.sizes["cond_dim"], seed=3)

    def our_run(self, unet: Unet3D, diffusion: GaussianDiffusion) -> Run:
        unet.eval()
        x, cond, t = self.inputs()[2], self.condition(), torch.zeros(self.clips[0], dtype=torch.long)
        noise = torch.zeros_like(x)

        @torch.inference_mode()
        def run() -> Tensor:
            guided = lambda x_t, t: unet.forward_with_cond_scale(x_t, t, cond, self.guidance)  # noqa: E731
            return diffusion.p_sample(guided, x, t, noise)

        return run

    def their_run(self, unet: nn.Module, diffusion: nn.Module) -> Run:
        unet.eval()
        x, cond, t = self.inputs()[2], self.condition(), torch.zeros(self.clips[0], dtype=torch.long)
        return lambda: diffusion.p_sample(x, t, cond=cond, cond_scale=self.guidance)


def works(tiny: bool) -> list[Work]:
    """The rows."""
    if tiny:
        sizes, clips = {"dim": 8, "dim_mults": (1, 2)}, (2, 3, 3, 8, 8)
        return [
            UnetTraining("unet3d", "Unet3D training step, tiny", time=0.5, memory=0.6, sizes=sizes, clips=clips),
            UnetSampling("guided", "Unet3D sampling step, tiny", time=0.5, sizes=sizes | {"cond_dim": 5}, clips=clips),
        ]
    small, large = {"dim": 16, "dim_mults": (1, 2, 4)}, {"dim": 64, "dim_mults": (1, 2, 4, 8)}
    return [
        UnetTraining(
            "unet3d-16",
            "Unet3D training step, dim 16 (1, 2, 4), 4 clips of 8×32×32",
            time=0.5,
            memory=0.6,
            sizes=small,
            clips=(4, 3, 8, 32, 32),
        ),
        UnetTraining(
            "unet3d-64",
            "Unet3D training step, dim 64 (1, 2, 4, 8), 1 clip of 10×64×64",
            time=0.5,
            memory=0.6,
            sizes=large,
            clips=(1, 3, 10, 64, 64),
            checks=1,  # that gradients agree is shown above
            why="Convolutions and products are most of ours, near to the rate at which this machine multiplies "
            "matrices, and there are as many on both sides. Gradients and Adam's averages take the same memory.",
        ),
        UnetSampling(
            "guided",
            "Unet3D sampling step, guidance 2, dim 16 (1, 2, 4), 4 clips of 8×32×32",
            time=0.5,
            sizes=small | {"cond_dim": 64},
            clips=(4, 3, 8, 32, 32),
        ),
    ]
