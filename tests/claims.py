"""What the front page and the data card say in numbers, computed again from what was measured.

    python tests/claims.py       writes the right number before every tag, and says which ones it changed

In Markdown a number stands before a tag that nobody sees when the page is shown: `84<!-- claim: t2v.one --> of 100`.
Its name leads to a function here. `tests/test_claims.py` computes them all, and compares at the precision printed.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean

from minivdm.config import Config, load_config
from minivdm.data.captions import canonical, parse_caption, tokenize
from minivdm.data.io import read_video
from minivdm.data.scenes import COLOURS, COLUMNS, HELD_OUT_KINDS, ROWS, SHAPES, SIZES, Scene
from minivdm.training.lineage import minutes_by

ROOT = Path(__file__).parents[1]
TOY = ROOT / "checkpoints" / "toy"
CLIPS = ROOT / "datasets" / "fireworks_toy"
PAGES = (ROOT / "README.md", ROOT / "datasets" / "README.md")
TAG = re.compile(r"(?P<number>\d[\d,]*(?:\.\d+)?)<!-- claim: (?P<name>[\w.]+) -->")


def printed_like(value: float, sample: str) -> str:
    """The value with as many decimals as `sample` has, and commas between thousands where it has them."""
    decimals = len(sample.partition(".")[2])
    return f"{value:{',' if ',' in sample or value < 1000 else ''}.{decimals}f}"


# What was stored when something was measured


@cache
def results(model: str) -> dict:
    return json.loads((TOY / model / "evaluation.json").read_text(encoding="utf-8"))


@cache
def config_of(model: str) -> Config:
    return load_config(TOY / model / "config.yaml")


@cache
def minutes(model: str) -> float:
    """What the steps of a training took, by its log."""
    return minutes_by(TOY / model / "metrics.jsonl", config_of(model).training)


@cache
def benchmark(row: str) -> dict[str, float]:
    """A row of benchmarks/RESULTS.md: the number that stands first in each column, by the column's name."""
    columns: list[str] = []
    found: dict[str, float] = {}
    for line in (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith(("| work", "| command")):
            columns = cells
        elif line.startswith(f"| {row}"):
            for column, cell in zip(columns, cells, strict=True):
                if number := re.match(r"\**(\d[\d,]*\.?\d*)", cell):
                    found[column] = float(number[1].replace(",", ""))
    return found


def planner_off() -> float:
    """By how many percent the plan of a training as it runs is off at most, in benchmarks/PLANNER.md."""
    page = (ROOT / "benchmarks" / "PLANNER.md").read_text(encoding="utf-8")
    return max(abs(float(off)) for off in re.findall(r"^\| \w+:\w+:\d+ \|.*?\|.*?\| (\S+)% \|", page, flags=re.M))


@cache
def lesson_seconds() -> dict[str, float]:
    """CPU seconds of the lessons that `benchmarks/lessons.py` has measured, by their number."""
    stored = json.loads((ROOT / "benchmarks" / "lessons.json").read_text(encoding="utf-8"))
    return {number: lesson["cpu_seconds"] for number, lesson in stored.items()}


def most_seconds(number: str) -> float:
    """CPU seconds that a lesson may take in `tests/test_notebooks.py`."""
    import test_notebooks

    return test_notebooks.LONGER.get(number, test_notebooks.MOST_CPU_SECONDS)


# The models


def joint(*kinds: str) -> float:
    """Films in 100 that are all that was asked, of these kinds together."""
    drawn = [results("text_to_video")["drawn"][kind] for kind in kinds]
    return 100 * sum(kind["joint"] * kind["films"] for kind in drawn) / sum(kind["films"] for kind in drawn)


def binding() -> float:
    drawn = results("text_to_video")["drawn"].values()
    return 100 * sum(kind["binding"] * kind["films"] for kind in drawn) / sum(kind["films"] for kind in drawn)


def numbers_in_a_clip(latent: bool) -> int:
    data, pictures, time = config_of("vae2d").data, config_of("vae2d").vae2d, config_of("temporal_vae").temporal_vae
    if not latent:
        return 3 * config_of("temporal_vae").data.frames * data.size**2
    side = data.size // (pictures.patch * 2 ** (len(pictures.ch_mult) - 1))
    frames = -(-config_of("temporal_vae").data.frames // 2 ** sum(time.temporal_downsample))
    return time.embed_dim * frames * side**2


# The clips of the data card


@cache
def rows() -> list[dict]:
    return [json.loads(line) for line in (CLIPS / "captions.jsonl").read_text(encoding="utf-8").splitlines()]


@cache
def captions() -> list[str]:
    return [caption for row in rows() for caption in row["caption"]]


@cache
def shells() -> list[dict]:
    return [row["shells"][0] for row in rows()]


def pairs() -> Counter:
    return Counter((shell["colour"], shell["shape"]) for shell in shells())


def leaves_out() -> float:
    """Percent of the worded captions (all but each clip's first) that do not say everything."""
    worded = [(row, caption) for row in rows() for caption in row["caption"][1:]]
    whole = [canonical(parse_caption(caption)) == canonical(Scene.from_dict(row)) for row, caption in worded]
    return 100 * (1 - mean(whole))


@cache
def bright() -> float:
    """Percent of the pixels that are brighter, in their brightest channel, than a tenth of white."""
    return 100 * mean((read_video(path).frames.max(-1) > 25.5).mean() for path in sorted(CLIPS.glob("*.gif")))


MODELS: dict[str, Callable[[], float]] = {
    "t2v.hours": lambda: sum(results("text_to_video")["minutes"].values()) / 60,
    "t2v.seconds": lambda: results("text_to_video")["seconds"]["prompt to GIF"],
    "t2v.one": lambda: joint("one shell"),
    "t2v.two": lambda: joint("two"),
    "t2v.three": lambda: joint("three together", "three, one by one"),
    "t2v.binding": binding,
    "t2v.short": lambda: 100 * results("text_to_video")["short"]["joint"],
    "unet3d.minutes": lambda: minutes("unet3d"),
    "unet3d.legal": lambda: 100 * results("unet3d")["prompted"]["legal"],
    "unet3d.joint": lambda: 100 * results("unet3d")["prompted"]["joint"],
    "unet3d.unseen": lambda: 100 * results("unet3d")["joint_held_out"],
    "vae2d.minutes": lambda: minutes("vae2d"),
    "vae.minutes": lambda: minutes("temporal_vae"),
    "vae.clip": lambda: numbers_in_a_clip(latent=False),
    "vae.latent": lambda: numbers_in_a_clip(latent=True),
    "vae.psnr.one": lambda: results("temporal_vae")["single"]["psnr"],
    "vae.psnr.three": lambda: results("temporal_vae")["scene of 3"]["psnr"],
}
BENCHMARKS = {
    "bench.command": ("a prompt -> GIF and MP4", "seconds"),
    "bench.unet3d": ("Unet3D training step, dim 16", "time ratio"),
    "bench.unet3d.helped": ("Unet3D training step, dim 16", "with our allocator"),
    "bench.unet3d.memory": ("Unet3D training step, dim 16", "memory ratio"),
    "bench.unet3d.large": ("Unet3D training step, dim 64", "time ratio"),
    "bench.unet3d.large.helped": ("Unet3D training step, dim 64", "with our allocator"),
    "bench.unet3d.large.memory": ("Unet3D training step, dim 64", "memory ratio"),
    "bench.guided": ("Unet3D sampling step", "time ratio"),
    "bench.films": ("two films", "time ratio"),
    "bench.gifs": ("32 GIFs of 10×64×64", "time ratio"),
    "bench.gifs.again": ("the same, decoded before", "time ratio"),
    "bench.gifs.resized": ("32 GIFs of 10×128×128", "time ratio"),
    "bench.stdit3": ("STDiT3 training step, 192", "time ratio"),
    "bench.stdit3.memory": ("STDiT3 training step, 192", "memory ratio"),
    "bench.stdit3.large": ("STDiT3 training step, 384", "time ratio"),
    "bench.stdit3.large.memory": ("STDiT3 training step, 384", "memory ratio"),
    "bench.vae2d": ("2D VAE of Stable Diffusion", "time ratio"),
    "bench.vae2d.memory": ("2D VAE of Stable Diffusion", "memory ratio"),
    "bench.stream": ("temporal VAE, decode", "time ratio"),
    "bench.stream.memory": ("temporal VAE, decode", "memory ratio"),
}
LESSONS: dict[str, Callable[[], float]] = {  # what was measured, or what a test allows: "≤ 6"
    f"lesson.{n:02}": lambda n=f"{n:02}": lesson_seconds().get(n, most_seconds(n)) / 60 for n in range(1, 11)
}
DATA: dict[str, Callable[[], float]] = {
    "data.clips": lambda: len(rows()),
    "data.captions": lambda: len(captions()),
    "data.captions.different": lambda: len(set(captions())),
    "data.captions.most": lambda: max(len(row["caption"]) for row in rows()),
    "data.megabytes": lambda: sum(path.stat().st_size for path in CLIPS.iterdir()) / 1e6,
    "data.words": lambda: len({word for caption in captions() for word in tokenize(caption)}),
    "data.words.mean": lambda: mean(len(tokenize(caption)) for caption in captions()),
    "data.words.most": lambda: max(len(tokenize(caption)) for caption in captions()),
    "data.leaves_out": leaves_out,
    "data.burst.first": lambda: min(shell["burst"] for shell in shells()),
    "data.burst.last": lambda: max(shell["burst"] for shell in shells()),
    "data.burst.mean": lambda: mean(shell["burst"] for shell in shells()),
    "data.pairs": lambda: len(pairs()),
    "data.pairs.least": lambda: min(pairs().values()),
    "data.pairs.most": lambda: max(pairs().values()),
    "data.combinations": lambda: len(
        list(product(set(product(COLOURS, SHAPES)) - set(HELD_OUT_KINDS), COLUMNS, ROWS, SIZES))
    ),
    "data.combinations.seen": lambda: len(
        {tuple(shell[name] for name in ("colour", "shape", "column", "row", "size")) for shell in shells()}
    ),
    "data.bright": bright,
    "data.megabytes.shown": lambda: sum(read_video(path).frames.size for path in CLIPS.glob("*.gif")) / 1e6,
}
CLAIMS: dict[str, Callable[[], float]] = (
    MODELS
    | {name: lambda row=row, column=column: benchmark(row)[column] for name, (row, column) in BENCHMARKS.items()}
    | LESSONS
    | DATA
    | {"plan.off": planner_off}
)


def written(page: Path) -> str:
    """The page with every number as it is now."""

    def number(tag: re.Match) -> str:
        return f"{printed_like(CLAIMS[tag['name']](), tag['number'])}<!-- claim: {tag['name']} -->"

    return TAG.sub(number, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for page in PAGES:
        old, new = page.read_text(encoding="utf-8"), written(page)
        for before, after in zip(TAG.finditer(old), TAG.finditer(new), strict=True):
            if before["number"] != after["number"]:
                print(f"{page.relative_to(ROOT)}: {after['name']} was {before['number']}, is {after['number']}")
        page.write_text(new, encoding="utf-8")
