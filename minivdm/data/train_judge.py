"""Train the judge from nothing and write its model card: `python -m minivdm.data.train_judge [--out DIR] [--steps N]`.

About a quarter of an hour on one thread (one, so that the same seed gives the same weights again). Half of each batch
are good clips; an eighth lack the rising spark; a fifth is buried under Gaussian noise of every strength, and still
asked for its attributes, so that the judge can say how long a noised clip stays readable; the rest is spoilt in the
ways of `corruptions.TRAINED`.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import repeat
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from minivdm.data.corruptions import TRAINED, Spoil, imperfect, noised, unrisen
from minivdm.data.examine_judge import examine, model_card
from minivdm.data.fireworks import render, sample_scenes
from minivdm.data.judge_network import PLACES, JudgeNetwork, Reading, to_canvas
from minivdm.data.scenes import COLOURS, SHAPES, SIZES, Scene
from minivdm.paths import repo_root

SEED = 0
BATCH = 64
GOOD, NOISY, UNRISEN = 32, 12, 8  # of a batch; the rest is spoilt otherwise
LEARNING_RATE = 2e-3
FRAME_COUNTS = (17, 17, 17, 9, 9, 10, 13)  # some batches have fewer frames, which the network sees interpolated
UNSURE = -100  # the label that cross-entropy skips

Part = tuple[Tensor, dict[str, Tensor]]  # some clips, and their answers


@dataclass(frozen=True)
class Clips:
    """Rendered clips as bytes (B, 3, 17, 32, 32), and for each of the six places an index into the names, or UNSURE.

    answers: "there" (B, 6) 0 or 1; "colour", "shape", "size" (B, 6) index; "burst" (B, 6) ticks.
    """

    video: Tensor
    answers: dict[str, Tensor]

    def take(self, count: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """`count` clips drawn at random, as floats in [-1, 1], with their answers."""
        rows = torch.randint(len(self.video), (count,), generator=generator)
        return self.video[rows].float() / 127.5 - 1, {name: answer[rows] for name, answer in self.answers.items()}


def label(scenes: list[Scene]) -> dict[str, Tensor]:
    """The answers of `Clips` for scenes."""
    answers = {name: torch.full((len(scenes), len(PLACES)), UNSURE) for name in ("colour", "shape", "size")}
    answers |= {name: torch.zeros(len(scenes), len(PLACES)) for name in ("there", "burst")}
    for clip, scene in enumerate(scenes):
        for shell in scene.shells:
            at = clip, PLACES.index(shell.place)
            answers["there"][at] = 1.0
            answers["burst"][at] = shell.burst
            answers["colour"][at] = COLOURS.index(shell.colour)
            answers["shape"][at] = SHAPES.index(shell.shape)
            answers["size"][at] = SIZES.index(shell.size)
    return answers


def make_clips(level: str, count: int, generator: torch.Generator) -> Clips:
    """Render clips to learn from: all combinations, for a judge must know what the pupils have never seen."""
    scenes = sample_scenes(2 * count // 3, level, "train", generator=generator)
    # Half of the test split is held out: a third of it makes a sixth in all, as many as if nothing were held out.
    scenes += sample_scenes(count - len(scenes), level, "test", generator=generator)
    scenes = [scenes[index] for index in torch.randperm(count, generator=generator)]
    sizes = [(32, 32)] * 8 + [(64, 64), (64, 64), (24, 36)]
    blocks = [
        to_canvas(render(scenes[start : start + 64], 17, sizes[block % len(sizes)], generator=generator))
        for block, start in enumerate(tqdm(range(0, count, 64), desc=f"rendering {level} clips"))
    ]
    video = torch.cat([block.add(1).mul(127.5).round().clamp(0, 255).byte() for block in blocks])
    return Clips(video, label(scenes))


def make_batch(lone: Clips, several: Clips, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """A batch of good, spoilt and noised clips, and their answers.

    With three more answers (B, 6): "genuine" and "risen", 1, 0 or UNSURE; "shell", whether one was there before the
    clip was spoilt.
    """
    length = FRAME_COUNTS[int(torch.randint(len(FRAME_COUNTS), (), generator=generator))]
    frames = torch.linspace(0, 16, length).round().long()

    def draw(count: int) -> Part:
        halves = [clips.take(count // 2, generator) for clips in (lone, several)]
        answers = {name: torch.cat([half[1][name] for half in halves]) for name in lone.answers}
        return torch.cat([video for video, _ in halves])[:, :, frames], answers | {"shell": answers["there"]}

    def spoilt() -> Part:
        spoil = tuple(TRAINED.values())[int(torch.randint(len(TRAINED), (), generator=generator))]
        return _spoilt(*draw(2), spoil, generator)

    video, answers = draw(GOOD)
    parts = [_good(video, answers, generator)]
    # A missing rise is shown on clips that the same batch shows with it: nothing else can explain the difference.
    parts.append(_unrisen(video[:UNRISEN], {name: answer[:UNRISEN] for name, answer in answers.items()}, generator))
    parts += [spoilt() for _ in range((BATCH - GOOD - NOISY - UNRISEN) // 2)]
    parts.append(_noised(*draw(NOISY), generator))
    videos = torch.cat([video for video, _ in parts])
    return videos, {name: torch.cat([answers[name] for _, answers in parts]) for name in parts[0][1]}


def _good(video: Tensor, answers: dict[str, Tensor], generator: torch.Generator) -> Part:
    risen = torch.where(answers["there"] == 1, 1.0, UNSURE)
    return imperfect(video, generator), answers | {"genuine": answers["there"], "risen": risen}


def _unrisen(video: Tensor, answers: dict[str, Tensor], generator: torch.Generator) -> Part:
    risen = torch.where(answers["there"] == 1, 0.0, UNSURE)
    genuine = torch.full_like(risen, UNSURE)
    return imperfect(unrisen(video, generator), generator), answers | {"genuine": genuine, "risen": risen}


def _spoilt(video: Tensor, answers: dict[str, Tensor], spoil: Spoil, generator: torch.Generator) -> Part:
    unsure = {name: torch.full_like(answer, UNSURE) for name, answer in answers.items()}
    known = {"genuine": torch.zeros_like(answers["there"]), "risen": unsure["there"], "shell": answers["shell"]}
    return imperfect(spoil(video, generator), generator), unsure | known


def _noised(video: Tensor, answers: dict[str, Tensor], generator: torch.Generator) -> Part:
    """Any amount of noise. A little is still genuine, much is not, and between the two nothing is asked."""
    amount = 0.05 + 0.95 * torch.rand(len(video), generator=generator)
    clean = repeat(torch.where(amount < 0.15, 1.0, torch.where(amount > 0.3, 0.0, UNSURE)), "b -> b p", p=len(PLACES))
    genuine = torch.where(clean == 1, answers["there"], clean)
    risen = torch.where((clean == 1) & (answers["there"] == 1), 1.0, UNSURE)
    return noised(video, amount, generator), answers | {"genuine": genuine, "risen": risen}


def loss(reading: Reading, answers: dict[str, Tensor]) -> Tensor:
    """How wrong a reading is: cross-entropies, and the error of the burst in units of three ticks."""
    total = torch.zeros(())
    # Whether something is genuine is a question about shells first of all.
    counts = {"there": 1.0, "risen": 1.0, "genuine": 1 + 7 * answers["shell"]}
    for name, weight in counts.items():
        weight = weight * (answers[name] != UNSURE)
        wrong = F.binary_cross_entropy_with_logits(getattr(reading, name).float(), answers[name], reduction="none")
        total = total + (weight * wrong).sum() / weight.sum()
    present = answers["there"] == 1
    for name in ("colour", "shape", "size"):
        total = total + F.cross_entropy(getattr(reading, name).float()[present], answers[name][present])
    return total + F.smooth_l1_loss(reading.burst.float()[present] / 3, answers["burst"][present] / 3)


def train(steps: int, clips: int = 6144) -> tuple[JudgeNetwork, list[str]]:
    """The trained network and its log: a line per hundred steps."""
    generator = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)  # for the initial weights: modules draw them from the global generator
    network = JudgeNetwork()
    lone, several = make_clips("single", clips, generator), make_clips("scene", clips, generator)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    log, running, start = [], 0.0, time.monotonic()
    for step in tqdm(range(1, steps + 1), desc="training the judge"):
        video, answers = make_batch(lone, several, generator)
        with torch.autocast("cpu", torch.bfloat16):
            reading = network(video)
        wrong = loss(reading, answers)
        optimizer.zero_grad()
        wrong.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running += wrong.item() / 100
        if step % 100 == 0:
            log.append(f"step {step:5d}  loss {running:.4f}  minutes {(time.monotonic() - start) / 60:.1f}")
            print(log[-1], flush=True)
            running = 0.0
    return network.eval().requires_grad_(False), log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=repo_root() / "checkpoints" / "toy" / "judge")
    parser.add_argument("--steps", type=int, default=3000, help="of training, default %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network, log = train(options.steps)
    weights = {name: weight.half() for name, weight in network.state_dict().items()}
    network.load_state_dict({name: weight.float() for name, weight in weights.items()})  # examine what is shipped
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, options.out / "judge.safetensors")
    (options.out / "config.json").write_text(
        json.dumps({"network": {"width": 64}, "seed": SEED, "steps": options.steps})
    )
    card = model_card(network, examine(network), log)
    (options.out / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    main()
