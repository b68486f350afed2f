"""Train the network behind `LPIPS("fireworks")`: `python -m minivdm.training.train_trunk [--out DIR] [--steps N]`.

About two minutes on one thread. Single frames are rendered, some are blurred or buried under noise, and the network
has to name colour, shape, place, size and age of the burst, and how sharp the picture is. What it looks at in order to
do that is what a perceptual distance compares. Then each of its channels gets a weight (`trunk_heads`).
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from minivdm.data.fireworks import render, sample_scenes
from minivdm.data.scenes import COLOURS, COLUMNS, ROWS, SHAPES, SIZES, TICKS
from minivdm.paths import repo_root
from minivdm.training.randomness import seeded_modules
from minivdm.training.trunk_heads import blur, weigh_channels
from minivdm.vae.lpips import LPIPS, ConvTrunk

SEED = 0
CLIPS, BATCH, LEARNING_RATE = 4096, 96, 3e-3
WIDTHS = (16, 24, 32, 48, 64)
SHIFT, SCALE = -0.6, 0.5  # of frames in [-1, 1]: most of each is night, all of the interest is above it
AGES = 6  # classes of two ticks since the burst
BLURS = (0.0, 0.6, 1.0, 1.6, 2.5)  # pixels
QUESTIONS = {"colour": len(COLOURS), "shape": len(SHAPES), "place": len(COLUMNS) * len(ROWS), "size": 2}
QUESTIONS |= {"age": AGES, "sharpness": len(BLURS)}


def make_frames(clips: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Frames (N, 3, 32, 32) as bytes, up to ten ticks after the burst, and the answers (N,) to QUESTIONS."""
    scenes = sample_scenes(clips // 2, "single", "train", generator=generator)
    scenes += sample_scenes(clips - clips // 2, "single", "test", generator=generator)
    frames, answers = [], {name: [] for name in QUESTIONS if name != "sharpness"}
    for start in tqdm(range(0, clips, 64), desc="rendering"):
        part = scenes[start : start + 64]
        video = render(part, TICKS + 1, generator=generator).add(1).mul(127.5).round().byte()
        for clip, (shell,) in zip(video, (scene.shells for scene in part), strict=True):
            ticks = torch.arange(int(shell.burst) + 2, TICKS + 1)[: 2 * AGES - 2]
            frames.append(rearrange(clip[:, ticks], "c t h w -> t c h w"))
            indices = {
                "colour": COLOURS.index(shell.colour),
                "shape": SHAPES.index(shell.shape),
                "place": COLUMNS.index(shell.column) * len(ROWS) + ROWS.index(shell.row),
                "size": SIZES.index(shell.size),
            }
            for name, index in indices.items():
                answers[name].append(torch.full((len(ticks),), index))
            answers["age"].append(((ticks - shell.burst) / 2).long())
    return torch.cat(frames), {name: torch.cat(parts) for name, parts in answers.items()}


class Namer(nn.Module):
    """The trunk, and a linear answer to each question from its last two levels."""

    def __init__(self, distance: LPIPS):
        super().__init__()
        self.distance = distance
        width = WIDTHS[-1] * 4 + WIDTHS[-2]
        self.answers = nn.ModuleDict({name: nn.Linear(width, count) for name, count in QUESTIONS.items()})

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        *_, fine, coarse = self.distance.features(frames)
        seen = torch.cat([coarse.flatten(1), fine.amax((2, 3))], dim=1)
        return {name: answer(seen) for name, answer in self.answers.items()}


def train(steps: int) -> tuple[LPIPS, dict[str, float], list[str]]:
    """The distance, the share of right answers on frames it has not learnt from, and a log."""
    generator = torch.Generator().manual_seed(SEED)
    frames, answers = make_frames(CLIPS, generator)
    held_out = len(frames) // 16
    with seeded_modules(SEED):
        distance = LPIPS(ConvTrunk(WIDTHS))
        namer = Namer(distance)
    distance.shift.fill_(SHIFT)
    distance.scale.fill_(SCALE)
    namer.requires_grad_(True)
    distance.heads.requires_grad_(False)
    weights = [weight for weight in namer.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    log, running, start = [], 0.0, time.process_time()
    for step in tqdm(range(1, steps + 1), desc="training the trunk"):
        rows = torch.randint(held_out, len(frames), (BATCH,), generator=generator)
        spoilt, blurred = spoil(frames[rows].float() / 127.5 - 1, generator)
        asked = {name: answer[rows] for name, answer in answers.items()} | {"sharpness": blurred}
        said = namer(spoilt)
        wrong = sum(F.cross_entropy(said[name], asked[name]) for name in QUESTIONS)
        optimizer.zero_grad()
        wrong.backward()
        optimizer.step()
        schedule.step()
        running += wrong.item() / 100
        if step % 100 == 0:
            log.append(f"step {step:5d}  loss {running:.3f}  seconds {time.process_time() - start:.0f}")
            print(log[-1], flush=True)
            running = 0.0
    namer.requires_grad_(False)
    said = namer(frames[:held_out].float() / 127.5 - 1)
    right = {
        name: (said[name].argmax(1) == answer[:held_out]).float().mean().item() for name, answer in answers.items()
    }
    return distance, right, log


def spoil(frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Frames (N, 3, H, W), half of them blurred and half of them under noise of up to 0.3; and how blurred (N,)."""
    blurred = torch.randint(2 * len(BLURS), (len(frames),), generator=generator).sub(len(BLURS)).clamp(min=0)
    for kind, sigma in enumerate(BLURS):
        if kind:
            frames = torch.where(rearrange(blurred == kind, "n -> n 1 1 1"), blur(frames, sigma), frames)
    strength = 0.6 * (torch.rand(len(frames), generator=generator) - 0.5).clamp(min=0)
    return frames + rearrange(strength, "n -> n 1 1 1") * torch.randn(frames.shape, generator=generator), blurred


def model_card(right: dict[str, float], before: dict[str, float], after: dict[str, float], log: list[str]) -> str:
    """What the network is, what it was trained on and how well it does, as Markdown."""
    lines = [
        "# The trunk of the perceptual distance",
        "",
        f"`LPIPS()` compares pictures by what this network sees in them: five convolutions of {WIDTHS} channels,",
        "trained by `python -m minivdm.training.train_trunk` on single frames of rendered fireworks (32 x 32 pixels,",
        "sharp, blurred and noisy), and by nothing else. It is ours, it is small, and it is not VGG: its distances are",
        "not comparable with published LPIPS figures, and on photographs they mean little. Use `LPIPS('vgg16')` there.",
        "",
        "Asked about sharp frames of clips that it has not learned from, it is right in this share of cases:",
        "",
        "| question | right | by chance |",
        "|---|---|---|",
        *(f"| {name} | {share:.2f} | {1 / QUESTIONS[name]:.2f} |" for name, share in right.items()),
        "",
        "Asked which of two spoilt copies of a frame is nearer to it, on shells that it has not learned from, with all",
        "channels counting the same and with the weights that ship. *Other sparks* is the same shell rendered again.",
        "",
        "| nearer should be | all the same | shipped |",
        "|---|---|---|",
        *(f"| {name} | {before[name]:.2f} | {after[name]:.2f} |" for name in before),
        "",
        "Seconds are of one thread's computing.",
        "",
        "```",
        *log,
        "```",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=repo_root() / "checkpoints" / "toy" / "perceptual")
    parser.add_argument("--steps", type=int, default=700, help="of training, default %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # vanishing numbers slow a CPU down
    distance, right, log = train(options.steps)
    before, after = weigh_channels(distance, torch.Generator().manual_seed(SEED + 1))
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(distance.state_dict(), options.out / "lpips.safetensors")
    (options.out / "config.json").write_text(
        json.dumps({"widths": WIDTHS, "seed": SEED, "steps": options.steps}) + "\n"
    )
    card = model_card(right, before, after, log)
    (options.out / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    main()
