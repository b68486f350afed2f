"""`minivdm sample` with a text-to-video model: files, options, mistakes, and several processes."""

import os
import subprocess
import sys

import pytest
from PIL import Image
from video_pipelines import tiny_pipeline

from minivdm import cli
from minivdm.data.io import read_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    tiny_pipeline(folder / "t5", steps=2, fps=5.0).save_pretrained(folder / "pipe")
    return folder / "pipe"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_films_are_written_as_gif_and_mp4(folder, tmp_path, capsys):
    out = tmp_path / "films"
    arguments = ["sample", "a red ring", "blue xylophone", "--checkpoint", str(folder), "--out", str(out)]
    assert cli.main([*arguments, "--clips", "2", "--frames", "9", "--size", "4x6", "--scale", "2"]) == 0
    names = ["000-a-red-ring", "001-a-red-ring", "002-blue-xylophone", "003-blue-xylophone"]
    assert sorted(contents(out)) == sorted(f"{name}{suffix}" for name in names for suffix in (".gif", ".mp4"))
    printed = capsys.readouterr()
    assert printed.out.split() == [str(out / f"{name}.gif") for name in names]
    assert printed.err.count("this model does not know: xylophone\n") == 1 and "ring" not in printed.err
    film = read_video(out / "000-a-red-ring.gif")
    assert film.frames.shape == (9, 8, 12, 3) and film.fps == 5


def test_a_picture_to_begin_with_and_work_from(folder, tmp_path):
    Image.new("RGB", (30, 20), (250, 20, 20)).save(tmp_path / "red.png")
    first = ["--image", str(tmp_path / "red.png")]
    for name, options in {"free": [], "first": first, "kept": [*first, "--strength", "0"]}.items():
        arguments = ["sample", "blue", "--checkpoint", str(folder), "--out", str(tmp_path / name), *options]
        assert cli.main([*arguments, "--scale", "1"]) == 0
    free, begun, kept = (read_video(tmp_path / name / "000-blue.gif").frames for name in ("free", "first", "kept"))
    assert (begun[0] == kept[0]).all() and (free[0] != kept[0]).any() and (begun[-1] != kept[-1]).any()


def test_two_processes_write_the_files_that_one_writes(folder, tmp_path):
    prompts = ["a red ring", "blue", "", "|0| a palm |1| a willow", "a green palm", "blue ring"]
    command = ["-m", "minivdm.cli", "sample", *prompts, "--checkpoint", str(folder), "--seed", "3", "--out"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    together = ["--sequence-parallel"]
    for out, before, after in (("one", [], []), ("two", launch, []), ("together", launch, together)):
        run = [sys.executable, *before, *command, str(tmp_path / out), *after]
        subprocess.run(run, check=True, env=environment, capture_output=True, timeout=600)
    one, two, together = (contents(tmp_path / out) for out in ("one", "two", "together"))
    assert len(one) == 2 * len(prompts) and len(set(one.values())) == len(one)
    assert sorted(two) == sorted(together) == sorted(one)
    gifs = [name for name in one if name.endswith(".gif")]
    assert len(gifs) == len(prompts) and {name: two[name] for name in gifs} == {name: one[name] for name in gifs}
    # A GIF of so few pixels is exact, so the films are equal. An encoder may still write other bytes for an equal film:
    # x264 did so once, on one machine. MP4s are therefore compared as they are seen.
    for name in set(one) - set(gifs):
        alone, shared, split = (
            read_video(tmp_path / out / name).frames.astype(int) for out in ("one", "together", "two")
        )
        for other in (shared, split):
            apart = abs(alone - other)
            assert apart[:5].max() <= 8, "more than rounding, as the codec leaves it"
            assert apart.mean() < 0.5, "a second clip begins with the first one's rounding; other prompts are 35 apart"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--frames", "0"], "frames is 0"),
        (["--size", "7"], "divisible by 2; nearest are (8, 8)"),
        (["--image", "nowhere.png"], "cannot read the picture nowhere.png"),
        (["--method", "ddim"], "sampler 'ddim': expected euler or midpoint"),
        (["--eta", "1.5"], "eta is 1.5: expected a share from 0 to 1"),
        (["--strength", "0.5"], "nothing to work from"),
        (["--model", "stdit4"], "stdit4"),
        (["--model", "unet3d", "--sequence-parallel"], "a Unet3D is drawn by one process"),
        (["--sequence-parallel"], "torchrun"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(folder, tmp_path, capsys, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", "blue", "--checkpoint", str(folder), *options]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert words in printed[-1] and printed[-1].startswith("minivdm: ")


def test_options_that_a_unet_does_not_have_are_told(tmp_path, capsys):
    assert cli.main(["sample", "blue", "--model", "unet3d", "--frames", "5", "--last-image", "a.png"]) == 2
    assert "--frames, --last-image: a Unet3D cannot do that" in capsys.readouterr().err
