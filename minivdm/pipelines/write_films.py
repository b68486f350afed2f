"""`minivdm sample`: films for prompts, as GIF and MP4, by one process or shared out over several."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minivdm.data.io import write_video
from minivdm.denoisers.sequence_parallel import sequence_parallel
from minivdm.errors import UserError
from minivdm.pipelines.device import pick_device
from minivdm.pipelines.loading import holds_text_to_video
from minivdm.pipelines.prompts import split_clips
from minivdm.pipelines.text_to_video import TextToVideoPipeline
from minivdm.pipelines.unet import UnetPipeline
from minivdm.text.words import split_words

GROUP = 4  # films drawn at once: the same ones however many processes there are, so that rounding is the same too
UNET_OPTIONS = ("method", "steps", "guidance", "eta")


def sample_films(
    prompts: Sequence[str],
    out: Path,
    *,
    checkpoint: str,
    model: str | None = None,
    clips: int = 1,
    scale: int = 4,
    seed: int = 0,
    sequence_parallel: bool = False,
    **asked: Any,
) -> Iterator[Path]:
    """Draw `clips` films for each prompt from what lies in `checkpoint`, and yield the GIFs as they are written.

    model: "stdit3" or "unet3d", for the shipped ones; else the contents of the folder say what it is.
    scale: how many times larger pixels are drawn. asked: options of the pipelines; None is as if it were not given.

    Under torchrun or `accelerate launch` the films of an STDiT3 are shared out over the processes: the files are the
    same as with one. A Unet3D leaves the work to the first. With `sequence_parallel` all processes draw every film
    together, where one is too large or too slow for one of them, and the first writes; they are equal up to rounding.
    """
    asked = {name: value for name, value in asked.items() if value is not None}
    prompts = [prompt for prompt in prompts for _ in range(clips)]
    rank, processes = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if model == "stdit3" or (model is None and holds_text_to_video(checkpoint)):
        share = slice(None) if sequence_parallel else slice(rank, None, processes)
        films, fps = _draw_text_to_video(prompts, checkpoint, seed, asked, share, sequence_parallel)
    elif sequence_parallel:
        raise UserError(
            "--sequence-parallel is for text-to-video models: a Unet3D is drawn by one process; leave it out"
        )
    elif rank == 0:
        films, fps = _draw_unet(prompts, checkpoint, seed, asked)
    else:
        return
    for number, film in films:
        if sequence_parallel and rank:
            continue
        large = film.repeat_interleave(scale, -1).repeat_interleave(scale, -2).cpu()
        path = out / f"{number:03d}-{'-'.join(split_words(prompts[number])[:8]) or 'clip'}"
        write_video(path.with_suffix(".mp4"), large, fps=fps)
        yield write_video(path.with_suffix(".gif"), large, fps=fps)


def _draw_text_to_video(
    prompts: list[str], checkpoint: str, seed: int, asked: dict[str, Any], share: slice, together: bool
) -> tuple[Iterator[tuple[int, Tensor]], float]:
    """Films with their numbers, of this process's share of the groups; and frames per second."""
    pipe = TextToVideoPipeline.from_pretrained(checkpoint).to(pick_device())
    tokenizer = pipe.text.tokenizer
    _warn_of_unknown(prompts, lambda word: tokenizer.unk_token_id in tokenizer(word)["input_ids"])

    def draw() -> Iterator[tuple[int, Tensor]]:
        with sequence_parallel(pipe.denoiser) if together else nullcontext():
            for group in _groups(prompts)[share]:
                texts = [prompts[number] for number in group]
                yield from zip(group, pipe(texts, seed=seed + group[0], progress=True, **asked), strict=True)

    return draw(), asked.get("fps", pipe.settings.fps)


def _draw_unet(
    prompts: list[str], checkpoint: str, seed: int, asked: dict[str, Any]
) -> tuple[Iterator[tuple[int, Tensor]], float]:
    if unknown := [f"--{name.replace('_', '-')}" for name in asked if name not in UNET_OPTIONS]:
        raise UserError(f"{', '.join(unknown)}: a Unet3D cannot do that; take a text-to-video model with --checkpoint")
    pipeline = UnetPipeline.from_pretrained(checkpoint).to(pick_device())
    _warn_of_unknown(prompts, lambda word: bool(pipeline.words.unknown(word)))
    return enumerate(pipeline(prompts, seed=seed, progress=True, **asked)), pipeline.config.data.fps


def _groups(prompts: Sequence[str]) -> list[list[int]]:
    """Numbers of the prompts that are drawn together: at most GROUP neighbours whose films have as many clips."""
    groups: list[list[int]] = []
    lengths = [len(split_clips(prompt)) for prompt in prompts]
    for number, length in enumerate(lengths):
        if not groups or len(groups[-1]) == GROUP or lengths[groups[-1][0]] != length:
            groups.append([])
        groups[-1].append(number)
    return groups


def _warn_of_unknown(prompts: Sequence[str], is_unknown: Callable[[str], bool]) -> None:
    """Say which words of each prompt are strange to the model."""
    for prompt in dict.fromkeys(prompts):
        words = dict.fromkeys(word for text in split_clips(prompt) for word in split_words(text) if is_unknown(word))
        if words:
            print(f"this model does not know: {', '.join(words)}", file=sys.stderr)
