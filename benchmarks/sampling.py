"""Films of the shipped Unet3D: our few steps against the thousand that video-diffusion-pytorch takes.

    python -m benchmarks.sampling --films 16        judge the thousand-step films too, and keep the figures: minutes

Both sides use the shipped weights, converted. A thousand steps take minutes, so that few of them are timed; every one
costs the same. What they would look like is known: `method="ddpm"` walks the same thousand steps, and its films are
judged beside those of our sampler by the command above.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from benchmarks.peers import VIDEO_DIFFUSION, video_diffusion
from benchmarks.work import Run, Work, random, relative
from minivdm.convert import unet3d_to_lucidrains
from minivdm.data.captions import parse_caption
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.judge import prompt_accuracy
from minivdm.pipelines import UnetPipeline

QUALITY = Path(__file__).with_name("sampling_quality.json")
PROMPTS = ["a large red peony high on the left", "a small blue ring low on the right"]
THEIR_STEPS = 1000
GUIDANCE = 2.0


@dataclass(frozen=True)
class Films(Work):
    """Two films with guidance 2. steps: ours, deterministic DDIM. few: how many of the peer's are timed."""

    peer: str = VIDEO_DIFFUSION
    steps: int = 25
    few: int = 5

    @property
    def times_theirs(self) -> float:
        """A thousand steps are that many of the few."""
        return THEIR_STEPS / self.few

    def ours(self) -> Run:
        pipeline = UnetPipeline.from_pretrained("toy")
        return lambda: pipeline(PROMPTS, method="ddim", steps=self.steps, guidance=GUIDANCE)

    def theirs(self) -> Run:
        theirs, (unet, cond) = video_diffusion(), self._their_unet()
        data = UnetPipeline.from_pretrained("toy").config.data
        x = random(len(PROMPTS), unet.channels, data.frames, data.size // 2, data.size // 2)
        diffusion = theirs.GaussianDiffusion(
            unet, image_size=x.shape[-1], num_frames=x.shape[2], channels=unet.channels, timesteps=THEIR_STEPS
        )

        def run() -> Tensor:
            state = x
            for step in range(self.few):
                t = torch.full((len(x),), THEIR_STEPS - 1 - step)
                state = diffusion.p_sample(state, t, cond=cond, cond_scale=GUIDANCE)
            return state

        return run

    def _their_unet(self):
        """The shipped weights in the peer's network, and the prompts as it wants them."""
        pipeline = UnetPipeline.from_pretrained("toy")
        settings = dict(vars(pipeline.config.unet3d), cond_dim=pipeline.words.dim)
        patch = settings.pop("patch")
        for name in ("captions", "gradient_checkpointing", "spatial_dim_head"):  # it has no such choice
            del settings[name]
        settings["channels"] *= patch**2
        unet = video_diffusion().Unet3D(**settings).eval()
        unet.load_state_dict(unet3d_to_lucidrains(pipeline.unet.network.state_dict()))
        return unet, pipeline.words.encode(PROMPTS)

    @torch.no_grad()
    def difference(self, ours: Run, theirs: Run) -> float:
        """Of one call of the networks: the samplers are different on purpose."""
        pipeline, (unet, cond) = UnetPipeline.from_pretrained("toy"), self._their_unet()
        data, t = pipeline.config.data, torch.tensor([100, 900])
        x = random(len(PROMPTS), 3, data.frames, data.size, data.size)
        folded = rearrange(x, "b c t (h p) (w q) -> b (c p q) t h w", p=2, q=2)
        expected = rearrange(unet(folded, t, cond), "b (c p q) t h w -> b c t (h p) (w q)", p=2, q=2)
        ours()
        theirs()
        return relative(pipeline.unet(x, t, cond), expected)

    def remark(self) -> str:
        text = f"{self.steps} network calls against {THEIR_STEPS}, of which {self.few} are timed"
        if not QUALITY.is_file():
            return f"{text}; not judged yet: python -m benchmarks.sampling"
        found = json.loads(QUALITY.read_text())
        shares = ", ".join(f"{one['joint']:.0%} by {name}" for name, one in found["samplers"].items())
        return f"{text}; films as asked, by the judge, of {found['films']}: {shares}"


def judge_samplers(films: int, seed: int = 1, batch: int = 25) -> dict:
    """Shares of films as asked, for captions of the test split: our sampler's settings, and a thousand steps."""
    pipeline = UnetPipeline.from_pretrained("toy")
    data = pipeline.config.data
    prompts = FireworksDataset(
        films, level=data.level, split="test", frames=data.frames, size=data.size, seed=seed
    ).captions()
    wanted = [parse_caption(prompt) for prompt in prompts]
    found = {}
    for method, steps in (("ddim", 25), ("dpmpp", 15), ("ddpm", THEIR_STEPS)):
        starts = range(0, films, batch)
        options = {"method": method, "steps": steps, "guidance": GUIDANCE, "progress": True}
        videos = torch.cat([pipeline(prompts[i : i + batch], seed=seed * 1000 + i, **options) for i in starts])
        accuracy = prompt_accuracy(videos, wanted)
        found[f"{method} in {steps} steps"] = {name: accuracy[name] for name in ("joint", "legal")}
        print(method, steps, found[f"{method} in {steps} steps"], flush=True)
    return {"films": films, "guidance": GUIDANCE, "samplers": found}


def works(tiny: bool) -> list[Work]:
    """The row."""
    steps = {"steps": 2, "few": 1} if tiny else {}
    return [Films("films", "two films of 9×32×32, the shipped Unet3D, equal quality", time=1 / 25, **steps)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=16)
    films = parser.parse_args().films
    QUALITY.write_text(json.dumps(judge_samplers(films), indent=1) + "\n")


if __name__ == "__main__":
    main()
