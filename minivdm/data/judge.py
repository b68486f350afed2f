"""The judge: which fireworks are in this clip, and is it the one that the prompt asked for?

    verdicts = judge(video)                       # one Verdict per clip: shells, order, legal, confidence
    match(verdicts[0], parse_caption("a large red peony high on the left, then a small blue ring low on the right"))
    prompt_accuracy(video, scenes)                # shares of a whole batch, beside what guessing would give

The judge is a small network trained by `python -m minivdm.data.train_judge` on rendered clips, some of them blurred,
noisy or spoilt; it has never seen a generated one. How often it is right is in `checkpoints/toy/judge/MODEL_CARD.md`:
know that before you trust a figure of its. It is lenient (a ring with a gap is still a ring), so look at the clips too.
"""

import functools
import json
from collections.abc import Sequence

import torch
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

from minivdm.data.judge_network import PLACES, JudgeNetwork, Reading
from minivdm.data.scenes import COLOURS, SHAPES, SIZES, Scene, Shell, in_order
from minivdm.data.verdicts import Verdict, accuracy, match
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir

__all__ = ["Verdict", "attribute_accuracy", "judge", "load_judge", "match", "prompt_accuracy", "read"]

BATCH = 64
SURE = 0.5  # the least probability of an answer that counts
EARLIEST_BURST = 1.5  # ticks: before that there was no time to rise


@functools.lru_cache(maxsize=1)
def load_judge() -> JudgeNetwork:
    """The shipped network, on the CPU. Raises UserError when its checkpoint is missing."""
    folder = checkpoint_dir("toy/judge")
    network = JudgeNetwork(**json.loads((folder / "config.json").read_text(encoding="utf-8"))["network"])
    weights = load_file(folder / "judge.safetensors")
    network.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return network.eval().requires_grad_(False)


@torch.no_grad()
def read(video: Tensor, network: JudgeNetwork | None = None) -> Reading:
    """The raw answers for clips (B, 3, T, H, W) in [-1, 1] of any size and number of frames, on the CPU.

    network: another one than the shipped judge, as `train_judge` needs it. Raises UserError for another kind of tensor.
    """
    if video.ndim != 5 or video.shape[1] != 3 or not len(video):
        raise UserError(f"the judge was given a tensor of shape {tuple(video.shape)}: expected clips (B, 3, T, H, W)")
    network = network or load_judge()
    readings = [network(part.detach().cpu().float()) for part in video.split(BATCH)]
    return Reading(*(torch.cat(answers) for answers in zip(*(vars(one).values() for one in readings), strict=True)))


def judge(video: Tensor, network: JudgeNetwork | None = None) -> list[Verdict]:
    """One Verdict per clip. video (B, 3, T, H, W) in [-1, 1], any size and number of frames over ticks 0 ... 16."""
    reading = read(video, network)
    names = [[table[index] for index in logits.argmax(-1).flatten()] for table, logits in _answers(reading)]
    sure = torch.stack(
        [
            reading.there.sigmoid(),
            reading.genuine.sigmoid(),
            reading.risen.sigmoid(),
            reading.colour.softmax(-1).amax(-1),
            reading.shape.softmax(-1).amax(-1),
        ]
    )
    legal = (sure > SURE).all(0) & (reading.burst > EARLIEST_BURST)
    verdicts = []
    for clip in range(len(video)):
        found = [place for place in range(len(PLACES)) if sure[0, clip, place] > SURE]
        shells = []
        for place in found:
            colour, shape, size = (column[clip * len(PLACES) + place] for column in names)
            shells.append(Shell(colour, shape, *PLACES[place], size, round(reading.burst[clip, place].item(), 2)))
        scene = in_order(shells)
        confidence = sure[:, clip, found].prod(0).max().item() if found else 0.0
        verdicts.append(Verdict(scene.shells, scene.order, bool(legal[clip, found].any()), confidence))
    return verdicts


def _answers(reading: Reading) -> list[tuple[Sequence[str], Tensor]]:
    return [(COLOURS, reading.colour), (SHAPES, reading.shape), (SIZES, reading.size)]


def prompt_accuracy(
    videos: Tensor, scenes: Sequence[Scene], network: JudgeNetwork | None = None
) -> dict[str, float | dict[str, float]]:
    """How well clips keep to their prompts, as a dictionary of shares: see `verdicts.accuracy` for its keys.

    videos (B, 3, T, H, W) in [-1, 1]; scenes: what each clip was asked to be, for example from `parse_caption`.
    """
    return accuracy(judge(videos, network), scenes)


def attribute_accuracy(
    videos: Tensor, scenes: Sequence[Scene], network: JudgeNetwork | None = None
) -> dict[str, float]:
    """Share of clips of ONE shell each whose colour, place, shape and size can still be read, however spoilt they are.

    Unlike `judge` it always answers: it names the most probable place, and the most probable colour given all that it
    believes about the place. On pure noise it is therefore at chance: 1/8, 1/6, 1/6, 1/2. It has been trained on clips
    under every amount of Gaussian noise, which makes it a gauge for how much of a clip is left in x_t.

    videos (B, 3, T, H, W): clips, or noised clips as `q_sample` makes them (values beyond [-1, 1] are fine).
    Raises UserError when a scene has another number of shells.
    """
    if any(len(scene.shells) != 1 for scene in scenes) or len(scenes) != len(videos):
        raise UserError(
            "attribute_accuracy reads clips of one shell: expected as many scenes as clips, one shell in each"
        )
    reading = read(videos, network)
    where = reading.there.softmax(-1)  # one shell, so the six places share one certainty
    said = {"place": [PLACES[index] for index in where.argmax(-1)]}
    for name, (table, logits) in zip(("colour", "shape", "size"), _answers(reading), strict=True):
        belief = (rearrange(where, "b p -> b p 1") * logits.softmax(-1)).sum(1)
        said[name] = [table[index] for index in belief.argmax(-1)]
    right = {
        name: sum(getattr(scene.shells[0], name) == answer for scene, answer in zip(scenes, answers, strict=True))
        for name, answers in said.items()
    }
    return {name: right[name] / len(scenes) for name in ("colour", "place", "shape", "size")}
