"""Numbers in the prose of a lesson are numbers that its cells print.

`test_notebooks.py` runs every solved lesson and compares what it prints with what is stored. Here every number of the
prose that looks measured has to stand in those outputs, at the precision it is told with, or in the code as a setting.
What is neither is computed here, or is listed with its reason.
"""

import json
import math
import re
from collections.abc import Callable
from functools import cache

import nbformat
import pytest
import torch
from claims import TOY, config_of, minutes

from minivdm.config import load_preset
from minivdm.course.build import sources
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.diffusion.schedules import alphas_cumprod, linear_betas, snr
from minivdm.paths import repo_root

LESSONS = [path.with_suffix(".ipynb") for path in sources(repo_root())]
UNITS = (
    r"%|dB|ms|s|seconds?|min|minutes?|hours?|[kKMG]i?B|G?FLOPs?|nats?|bits?|levels?|times|parameters|weights|"
    r"steps?|clips|films?|prompts|captions|pixels|tokens|frames a second"
)
NUMBER = r"\d[\d,]*(?:\.\d+)?"
COUNTED = rf"(?P<counted>{NUMBER})[ -]?(?:{UNITS})(?!\w)"
MEASURED = re.compile(rf"(?<![\w.,^_{{/(×-])(?:{COUNTED}|(?P<decimal>\d+\.\d+)|(?P<of>\d+) of \d+)(?![\w.]\d)")
NOT_PROSE = re.compile(r"\$\$.*?\$\$|\$[^$\n]*\$|```.*?```|`[^`]*`|\]\([^)]*\)|<!--.*?-->|^\|.*?$", re.S | re.M)
ELSEWHERE = "the section of a paper"
QUESTION = "what lesson 05 asks: the memory of one GPU"


def snr_of_the_linear_schedule() -> float:
    return snr(alphas_cumprod(linear_betas(1000)))[500].item()


@cache
def rendered_clips() -> torch.Tensor:
    """Some of those that lesson 07 takes."""
    data = load_preset("toy").data
    clips = FireworksDataset(256, data.level, frames=data.frames, size=data.size)
    return torch.stack([clips[index]["video"] for index in range(len(clips))])


def growth_of_the_first_layer() -> float:
    """How much more the first layer of the decoder of Open-Sora's size writes than it reads."""
    full = load_preset("fireworks_a6000").temporal_vae
    return full.filters * full.channel_multipliers[-1] / full.latent_embed_dim


# lesson: {number in the prose: what computes it, or why nothing does}
TOLD: dict[str, dict[str, Callable[[], float] | str]] = {
    "01": {
        "0.0004": lambda: 0.02**2,
        "0.96": lambda: (1 - 0.02) ** 2,
        "0.0101": lambda: 0.02 / (2 - 0.02),
        "0.37": lambda: math.exp(-1),
        "0.08": snr_of_the_linear_schedule,
        "700": "a step that is only spoken of",
    },
    "03": {"1.44": lambda: 1 / math.log(2), "3.1": ELSEWHERE},
    "04": {"0.1": "a VAE that was given up", "0.95": "a VAE that was given up", "40": QUESTION, "3.1": ELSEWHERE},
    "05": {"40": QUESTION, "128": growth_of_the_first_layer},
    "07": {
        "0.92": lambda: -rendered_clips().mean().item(),
        "0.18": lambda: rendered_clips().std().item(),
        "7,000": lambda: config_of("unet3d").training.steps,
        "16": lambda: config_of("unet3d").training.batch_size,
        "90": lambda: minutes("unet3d"),
    },
    "08": {"4,352": lambda: 17 * (64 // 4) ** 2, "180": lambda: 5 * (48 // 4 // 2) ** 2},
    "09": {
        "1.2": "a version of Open-Sora",
        "2,400": lambda: json.loads((TOY / "text_to_video" / "encoders.json").read_text(encoding="utf-8"))["steps"],
    },
    "10": {"0.999": lambda: load_preset("toy", task="stdit3").training.ema_decay, "1.0078": lambda: 1 + 2**-7},
}


def said(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Every number that looks measured, as it is written, and the words around it."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = NOT_PROSE.sub("<>", cell.source)
            for number in MEASURED.finditer(text):
                percent = "%" if number[0].endswith("%") else ""
                written = (number["counted"] or number["decimal"] or number["of"]) + percent
                around = " ".join(text[max(0, number.start() - 70) : number.end() + 30].split())
                found.append((written, around))
    return found


def printed(notebook: nbformat.NotebookNode) -> list[float]:
    """Every number in the cells of code and in what they print: text, tables, and the words of pictures."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/plain", ""), data.get("text/markdown", "")]
            texts.append(re.sub(r"data:[\w/+;]*base64,[^\"')]*|<[^>]*style=[^>]*>", "", data.get("text/html", "")))
    return [float(number.replace(",", "")) for number in re.findall(rf"{NUMBER}(?:e-?\d+)?", "\n".join(texts))]


def is_told(written: str, value: float) -> bool:
    """Whether `value` is written like this: rounded to as many decimals; where this is in percent, as a share too."""
    number = written.rstrip("%").replace(",", "")
    decimals, units = len(number.partition(".")[2]), (1, 100) if written.endswith("%") else (1,)
    return any(math.isclose(round(value * unit, decimals), float(number)) for unit in units)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_what_looks_measured_is_printed(lesson):
    notebook, told = nbformat.read(lesson, as_version=4), TOLD.get(lesson.stem[:2], {})
    shown, unseen = printed(notebook), []
    for written, around in said(notebook):
        known = told.get(written)
        wrong = not isinstance(known, str) and not is_told(written, known()) if known else None
        if wrong or known is None and not any(is_told(written, number) for number in shown):
            unseen.append(f"{written}: … {around} …" + (f" (is {known():.4g})" if wrong else ""))
    assert unseen == []


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_what_is_listed_is_said(lesson):
    written = {written for written, _ in said(nbformat.read(lesson, as_version=4))}
    assert set(TOLD.get(lesson.stem[:2], {})) <= written
