"""`minivdm data fireworks`: a folder of rendered clips with `captions.jsonl`."""

import json
from pathlib import Path

import torch
from tqdm import tqdm

from minivdm.data.captions import canonical, caption
from minivdm.data.fireworks import render, sample_scenes
from minivdm.data.io import EXTENSIONS, to_uint8, write_atomically, write_video
from minivdm.data.scenes import Scene
from minivdm.errors import UserError
from minivdm.seeds import generator_for

BLOCK = 64  # clips drawn and rendered at once
WORDINGS = 4  # of each clip: the plain one first


def write_fireworks(
    out: str | Path,
    clips: int,
    level: str = "single",
    size: int = 32,
    frames: int = 17,
    seed: int = 0,
    split: str = "train",
    format: str = "gif",
    fps: float = 8.0,
) -> Path:
    """Render `clips` clips into the folder `out` and return it.

    level "single" or "scene", split "train" or "test": see `sample_scenes`. size: pixels, both ways. format: one of
    `io.EXTENSIONS`. A clip depends on its number and on level, split, seed, size and frames: the first 10 clips of 300
    are the same files as the 10 of 10, on every run.

    `captions.jsonl` has a line per clip: `file`, `caption` (several wordings, the plain one first) and the scene
    (`shells`, `order`, `held_out`). Raises UserError for impossible arguments, a full disk, and a folder that holds
    other files, which would be taken for clips of this set.
    """
    out = Path(out)
    if clips < 1:
        raise UserError(f"{clips} clips; expected at least 1")
    if format not in EXTENSIONS:
        raise UserError(f"format {format!r} is not known; expected one of {', '.join(EXTENSIONS)}")
    names = [f"{number:06d}.{format}" for number in range(clips)]
    _refuse_strangers(out, {*names, "captions.jsonl"})
    blocks = [(seed, start // BLOCK) for start in range(0, clips, BLOCK)]
    # Whole blocks are drawn, also when fewer clips are wanted: so that a clip does not depend on how many there are.
    scenes = [sample_scenes(BLOCK, level, split, generator=generator_for(*block, 0)) for block in blocks]
    lines = []
    for block, drawn in zip(blocks, scenes, strict=True):
        words = generator_for(*block, 1)
        lines += [_wordings(scene, words) | scene.to_dict() | {"held_out": scene.held_out} for scene in drawn]
    # Captions first: whenever this is interrupted, every clip that is there has its words.
    table = [json.dumps({"file": name} | line) + "\n" for name, line in zip(names, lines, strict=False)]
    write_atomically(out / "captions.jsonl", "".join(table).encode())
    with tqdm(total=clips, desc=f"rendering {clips} clips", unit="clip", delay=1) as progress:
        for (_, number), drawn in zip(blocks, scenes, strict=True):
            videos = render(drawn, frames, size, generator=generator_for(seed, number, 2))
            for name, pixels in zip(names[number * BLOCK :], to_uint8(videos), strict=False):
                write_video(out / name, pixels, fps)
                progress.update()
    return out


def _wordings(scene: Scene, generator: torch.Generator) -> dict[str, list[str]]:
    others = [caption(scene, generator) for _ in range(WORDINGS - 1)]
    return {"caption": list(dict.fromkeys([canonical(scene), *others]))}


def _refuse_strangers(out: Path, ours: set[str]) -> None:
    if not out.is_dir():
        return
    others = sorted(path.name for path in out.iterdir() if path.name not in ours and not path.name.startswith("."))
    if others:
        raise UserError(f"{out} holds {len(others)} other files, such as {others[0]}; give --out a new or empty folder")
