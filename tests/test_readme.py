"""Every command, snippet and link of the front page works."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from minivdm import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CARDS = [ROOT / "README.md", ROOT / "datasets" / "README.md", *sorted((ROOT / "checkpoints").glob("**/MODEL_CARD.md"))]
QUICK = {  # the same commands, made small
    "data fireworks": ["--clips", "6", "--size", "16"],
    "train unet3d": ["--training.steps", "1", "--data.size", "16", "--unet3d.dim", "8", "--sampling.steps", "1"],
    "train vae2d": ["--training.steps", "1", "--data.size", "16", "--vae2d.ch", "8", "--data.frames", "5"],
    "train temporal_vae": ["--training.steps", "1", "--data.size", "16", "--data.frames", "5"],
    "train stdit3": ["--training.steps", "1", "--data.size", "16", "--data.frames", "5", "--sampling.steps", "1"],
    "train all": ["--training.steps", "1", "--data.clips", "16", "--data.size", "16", "--sampling.steps", "1"],
    "sample": ["--steps", "1"],
}


def _commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.S)
    return [line.partition("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_make_commands_exist():
    targets = {command.split()[1] for command in _commands() if command.startswith("make ")}
    assert {"demo", "test", "lab", "notebooks", "book", "bench"} == targets
    for target in sorted(targets):
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_minivdm_commands_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = 0
    for command in _commands():
        if not command.startswith("minivdm "):
            continue
        words = shlex.split(command)[1:]
        words = [str(ROOT / word) if word.startswith("tests/golden/") else word for word in words]
        extra = QUICK.get(" ".join(words[:2]), QUICK.get(words[0], []))
        if "--resume" in words:
            extra = ["--training.steps", "2"]
        assert cli.main([*words, *extra]) == 0, command
        ran += 1
    assert ran == 21
    assert list((tmp_path / "films").glob("*.gif"))


def test_every_other_command_is_known():
    assert {command.split()[0] for command in _commands()} == {"make", "minivdm"}


def test_inline_commands_are_commands():
    for words in re.findall(r"`minivdm (\w+)", README):
        assert words in cli.COMMANDS


def test_the_snippet_ends_in_the_shape_it_says():
    snippet = re.search(r"```python\n(.*?)```", README, flags=re.S).group(1)
    *body, last = snippet.strip().splitlines()
    names: dict = {}
    exec("\n".join(body), names)
    expression, said = (part.strip() for part in last.split("#"))
    assert repr(eval(expression, names)) == said


@pytest.mark.parametrize("page", CARDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif target.startswith("https://"):
            assert "github.com" not in target or re.search(r"/(blob|tree)/[0-9a-f]{40}/", target), (
                f"{target} names no commit"
            )
        else:
            assert (page.parent / target).exists(), target


def test_nothing_is_left_to_fill_in():
    assert "@@" not in README
