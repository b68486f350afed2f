"""The command line as a person meets it: what it makes, and what it says when something is wrong."""

import os
import resource
import subprocess
import sys

import pytest
from PIL import Image

from minivdm import cli

TINY = [
    "--data.size",
    "8",
    "--data.frames",
    "5",
    "--unet3d.dim",
    "8",
    "--unet3d.dim_mults",
    "[1, 2]",
    "--unet3d.attn_dim_head",
    "8",
    "--unet3d.init_kernel_size",
    "3",
    "--training.batch_size",
    "3",
    "--sampling.clips",
    "2",
    "--sampling.steps",
    "2",
]


def _fails(capsys, *arguments: str) -> str:
    """The one line that a command answers a mistake with."""
    assert cli.main(list(arguments)) == cli.EXIT_USER_ERROR
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("minivdm: "), lines
    return lines[0]


def _write_gif(path, frames=5, size=(9, 12)):
    images = [Image.new("RGB", size, (40 * i, 10, 250 - 40 * i)) for i in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, loop=0)


def test_data_train_resume_sample_judge(tmp_path, capsys):
    clips, run, films = tmp_path / "clips", tmp_path / "run", tmp_path / "films"
    assert cli.main(["data", "fireworks", "--out", str(clips), "--clips", "6", "--size", "16", "--frames", "9"]) == 0
    assert len(list(clips.glob("**/*.gif"))) == 6 and (clips / "captions.jsonl").is_file()
    train = ["train", "unet3d", "--data", str(clips), "--run", str(run), *TINY]
    assert cli.main([*train, "--training.steps", "2"]) == 0
    assert cli.main(["train", "unet3d", "--run", str(run), "--resume", "--training.steps", "3"]) == 0
    assert "step 2 of 3" in capsys.readouterr().out
    assert (
        cli.main(
            ["sample", "a red ring", "--checkpoint", str(run), "--out", str(films), "--steps", "2", "--clips", "2"]
        )
        == 0
    )
    assert sorted(path.name for path in films.iterdir()) == [
        "000-a-red-ring.gif",
        "000-a-red-ring.mp4",
        "001-a-red-ring.gif",
        "001-a-red-ring.mp4",
    ]
    capsys.readouterr()
    for suffix in ("gif", "mp4"):
        (films / f"001-a-red-ring.{suffix}").rename(
            films / f"\u202e1\x1b[2J.{suffix}"
        )  # turns the line, clears the screen
    assert cli.main(["judge", str(films)]) == 0
    printed = capsys.readouterr().out
    assert "000-a-red-ring.gif" in printed and "\x1b" not in printed and "\u202e" not in printed


def test_words_the_model_does_not_know_are_named(tmp_path, capsys):
    clips, run = tmp_path / "clips", tmp_path / "run"
    cli.main(["data", "fireworks", "--out", str(clips), "--clips", "5", "--size", "16"])
    cli.main(["train", "unet3d", "--data", str(clips), "--run", str(run), *TINY, "--training.steps", "1"])
    cli.main(["sample", "a red xylophone", "--checkpoint", str(run), "--out", str(tmp_path / "films"), "--steps", "1"])
    assert "xylophone" in capsys.readouterr().err


def test_training_without_captions(tmp_path, capsys):
    for number in range(4):
        _write_gif(tmp_path / f"{number}.gif")
    assert (
        cli.main(
            ["train", "unet3d", "--data", str(tmp_path), "--run", str(tmp_path / "run"), *TINY, "--training.steps", "1"]
        )
        == 0
    )
    assert "no captions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["'trian'", "train"]),
        (["train", "unet4d"], ["unet3d"]),
        (["train", "unet3d", "--preset", "toi"], ["toi", "did you mean 'toy'"]),
        (["train", "unet3d", "--training.stpes", "3"], ["training.stpes", "training.steps"]),
        (["train", "unet3d", "--training.steps"], ["--training.steps", "no value"]),
        (["sample", "--checkpoint", "nowhere"], ["no trained model in nowhere"]),
        (["sample", "--clips", "0"], ["--clips 0"]),
        (["data", "fireworks"], ["--out"]),
        (["check", "10"], ["10"]),
        (["hint", "02.q_simple"], ["02.q_simple", "02.q_sample"]),
        (["parity", "nowhere.safetensors"], ["nowhere.safetensors"]),
        (["judge", "nowhere"], ["nowhere"]),
    ],
)
def test_mistakes_are_one_line(arguments, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    line = _fails(capsys, *arguments)
    for word in words:
        assert word in line


def test_resume_without_a_run(tmp_path, capsys):
    line = _fails(capsys, "train", "unet3d", "--run", str(tmp_path / "run"), "--resume")
    assert "nothing to resume" in line and "without --resume" in line
    assert not (tmp_path / "run").exists()


def test_folders_without_clips(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "empty" in _fails(
        capsys, "train", "unet3d", "--data", str(tmp_path / "empty"), "--run", str(tmp_path / "run")
    )
    assert "missing" in _fails(
        capsys, "train", "unet3d", "--data", str(tmp_path / "missing"), "--run", str(tmp_path / "run")
    )
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.gif").write_text("this is not a picture")
    line = _fails(capsys, "train", "unet3d", "--data", str(tmp_path / "text"), "--run", str(tmp_path / "run"), *TINY)
    assert "a.gif" in line
    assert not (tmp_path / "run").exists()


def test_bad_clips_among_good_ones_are_named_and_passed_over(tmp_path, capsys, caplog):
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(4):
        _write_gif(clips / f"good{number}.gif", frames=6)
    whole = (clips / "good0.gif").read_bytes()
    (clips / "truncated.gif").write_bytes(whole[: len(whole) // 3])
    (clips / "text.gif").write_text("this is not a picture")
    assert (
        cli.main(
            ["train", "unet3d", "--data", str(clips), "--run", str(tmp_path / "run"), *TINY, "--training.steps", "4"]
        )
        == 0
    )
    assert "text.gif" in caplog.text and "truncated.gif" in caplog.text
    assert "Traceback" not in "".join(capsys.readouterr())


def test_a_disk_that_fills_up_loses_nothing(tmp_path):
    """A limit on file sizes makes the second checkpoint fail half-way, as a full disk would."""
    clips, run = tmp_path / "clips", tmp_path / "run"
    cli.main(["data", "fireworks", "--out", str(clips), "--clips", "4", "--size", "16"])
    train = [sys.executable, "-m", "minivdm.cli", "train", "unet3d", "--run", str(run)]
    subprocess.run([*train, "--data", str(clips), *TINY, "--training.steps", "1"], check=True, capture_output=True)
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    full = subprocess.run(
        [*train, "--resume", "--training.steps", "2"], capture_output=True, text=True, preexec_fn=limit
    )
    assert full.returncode == cli.EXIT_USER_ERROR
    message = [line for line in full.stderr.splitlines() if line.startswith("minivdm: ")]
    assert len(message) == 1 and "could not write checkpoint" in message[0]
    assert "Traceback" not in full.stderr
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == kept
    subprocess.run([*train, "--resume", "--training.steps", "2"], check=True, capture_output=True)


def test_help_is_quick_and_complete(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, minivdm.cli; minivdm.cli.main(['--help']); print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert loaded.strip().endswith("False"), "help should not wait for torch"


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe without a reader is another error there")
@pytest.mark.parametrize("arguments", [["--help"], ["progress"]])
def test_a_reader_that_has_seen_enough_is_no_mistake(arguments):
    """As in `minivdm --help | head -1`, with a reader that goes before anything is written."""
    command = [sys.executable, "-m", "minivdm.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


@pytest.mark.parametrize(("own", "then"), [(None, "1000"), ("5", "5")])
def test_threads_soon_wait_asleep_unless_somebody_said_otherwise(own, then):
    """Said before PyTorch is there, which the package itself does not import."""
    told = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    told |= {"GOMP_SPINCOUNT": own} if own else {}
    code = "import os, sys, minivdm; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", code], env=told, capture_output=True, text=True, check=True)
    assert seen.stdout.split() == [then, "False"]
