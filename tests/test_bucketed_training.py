"""Training on clips of several sizes, on growing sizes, and on latents and texts that are kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_films import folder_dataset, write_folder
from tiny_runs import assert_same_runs, tiny_config, train, write_parts
from video_pipelines import tiny_vae, write_t5

from minivdm.cli import main
from minivdm.config import load_config
from minivdm.data.bucketed import Bucketed
from minivdm.data.io import write_video
from minivdm.errors import UserError
from minivdm.text.encoder import TextEmbedder
from minivdm.training import texts as texts_module
from minivdm.training.checkpoint import list_checkpoints, read_tensors
from minivdm.training.films import LatentFilms, fingerprint
from minivdm.training.latents import LatentClips
from minivdm.training.stdit3_task import Stdit3Task
from minivdm.training.tasks import collate
from minivdm.training.texts import CachedTexts, encoder_name

BUCKETS = [
    {"size": "16px", "frames": 5, "batch": 2},
    {"size": "32px", "frames": 1, "batch": 4},
    {"size": "32px", "frames": 9, "batch": 2, "keep": 1.0},
]
CLIPS = {"a": (6, 16, 16), "b": (9, 40, 24), "c": (1, 32, 32), "d": (12, 24, 44), "e": (5, 18, 20), "f": (1, 40, 40)}
LATENTS = {(3, 2, 8, 8), (3, 1, 16, 16), (3, 3, 22, 12), (3, 3, 12, 22)}  # half as large, four times shorter


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of all sizes with captions; "bad" cannot be read, and "g" fits nowhere."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, (name, shape) in enumerate({**CLIPS, "g": (3, 32, 32)}.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
        write_video(folder / f"{name}.npz", pixels, fps=8)
    (folder / "bad.gif").write_text("no")
    rows = [{"file": f"{name}.npz", "caption": f"a red ring, number {name}"} for name in CLIPS]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where .cache is made


def config_of(parts, clips, **changes):
    return tiny_config("stdit3", parts, data__folder=str(clips), data__buckets=BUCKETS, data__fit="cut", **changes)


def test_each_clip_has_the_latents_and_the_words_of_its_bucket(parts, clips, tmp_path):
    config = config_of(parts, clips, flow__cache=str(tmp_path / "latents"))
    films = Stdit3Task(config).dataset
    assert isinstance(films, Bucketed) and len(films) == 6
    assert {tuple(films[index]["latents"].shape) for index in range(6)} == LATENTS
    assert sorted(films[index, 3]["caption"][-1] for index in range(6)) == list("abcdef")
    assert len(list((tmp_path / "latents").iterdir())) == 4  # a file for each size
    (again,) = [Stdit3Task(config).dataset]
    assert all(torch.equal(again[index]["latents"], films[index]["latents"]) for index in range(6))
    with pytest.raises(IndexError):
        films[6]


def test_the_network_is_told_the_size_of_each_batch(parts, clips):
    task = Stdit3Task(config_of(parts, clips, flow__shift=True))
    told = []

    def listen(module, arguments, options):
        pixels = [int(options[name]) for name in ("height", "width")]
        told.append((*arguments[0].shape[2:], *pixels))

    task.model.register_forward_pre_hook(listen, with_kwargs=True)
    for batch in task.dataset.batches(seed=0, first=0, stop=4, rank=0, world=1):
        with torch.no_grad():
            loss = task.loss(task.model, collate([task.dataset[which] for which in batch]), range(len(batch)))
        assert loss.shape == (len(batch),) and loss.isfinite().all()
    assert set(told) <= {(t, h, w, 2 * h, 2 * w) for _, t, h, w in LATENTS}
    assert len(told) == 4 and len(set(told)) > 1


def test_a_run_on_three_sizes_resumes_as_if_it_had_not_stopped(parts, clips, tmp_path):
    config = config_of(parts, clips, training__batch_size=1)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop=5)
    saved = load_config(tmp_path / "parts" / "config.yaml")
    assert saved.data.buckets == config.data.buckets
    train(saved, tmp_path / "parts", resume=True)
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    "changes, complaint",
    [
        ({"data__buckets": [{"size": "32px"}]}, "data.buckets"),
        ({"data__buckets": [{"size": "32px", "frames": 0, "batch": 1}]}, "frames 0; expected a number from 1 on"),
        ({"data__folder": None}, "no folder; expected task stdit3, and a folder"),
        ({"data__buckets": [{"size": "64px", "frames": 30, "batch": 1}]}, "none of the 7 clips .* up to 12 frames"),
    ],
)
def test_buckets_that_cannot_work_are_one_line(parts, clips, changes, complaint):
    settings = {"data__folder": str(clips), "data__buckets": BUCKETS} | changes
    with pytest.raises(UserError, match=complaint) as error:
        Stdit3Task(tiny_config("stdit3", parts, **settings))
    assert "\n" not in str(error.value)


def test_from_16_to_32_to_48_pixels_each_stage_begins_with_the_last_ones_weights(parts, tmp_path):
    """From the command line, as its user: each size continues the run of the one before."""
    tiny = {**parts, "stdit3.hidden_size": 16, "stdit3.depth": 1, "stdit3.num_heads": 2, "training.batch_size": 2}
    tiny |= {"data.clips": 2, "data.frames": 5, "sampling.steps": 1, "sampling.clips": 1, "training.steps": 1}
    before = None
    for size in (16, 32, 48):
        run = tmp_path / f"px{size}"
        settings = tiny | {"data.size": size} | ({"flow.init": before} if before else {})
        options = [
            part for name, value in settings.items() for part in (f"--{name}", "null" if value is None else str(value))
        ]
        assert main(["train", "stdit3", "--run", str(run), *options]) == 0
        if before:
            begun = Stdit3Task(load_config(run / "config.yaml"))
            last = read_tensors(list_checkpoints(before)[-1] / "ema.safetensors")
            assert all(torch.equal(weight, last[name]) for name, weight in begun.model.state_dict().items())
            assert begun.dataset[0]["latents"].shape == (3, 2, size // 2, size // 2)
            now = read_tensors(list_checkpoints(run)[-1] / "model.safetensors")
            assert any(not torch.equal(weight, last[name]) for name, weight in now.items())
        before = run


# What is kept


def test_a_mirrored_clip_and_its_kept_latents_agree_in_every_epoch(tmp_path):
    clips = folder_dataset(write_folder(tmp_path / "clips"), flip=True, fit="cut", frames=3)
    vae = tiny_vae().vae2d
    kept = LatentClips(clips, vae)
    seen = {
        torch.equal(clips[index, epoch]["video"], clips[index, 0]["video"]) for index in range(5) for epoch in range(6)
    }
    assert seen == {True, False}  # what would disagree
    for index in range(5):
        for epoch in (0, 1, 4):
            item = kept[index, epoch]
            with torch.no_grad():
                expected = vae.encode(item["video"][None], sample=False)[0]
            torch.testing.assert_close(item["latents"], expected, rtol=1e-5, atol=1e-5)
            assert item["caption"] == clips.caption(index, epoch)


def test_the_same_weights_in_another_vae_are_another_file(tmp_path):
    clips, one, other = folder_dataset(write_folder(tmp_path)), tiny_vae(), tiny_vae()
    assert fingerprint(clips, one) == fingerprint(clips, other)
    norm = "group" if one.temporal.config.norm == "frame" else "frame"
    other.temporal.config = replace(other.temporal.config, norm=norm)
    assert fingerprint(clips, one) != fingerprint(clips, other)


def test_kept_latents_are_read_when_they_are_looked_at(tmp_path):
    films = LatentFilms(folder_dataset(write_folder(tmp_path / "clips")), tiny_vae(), tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    before = films[3]["latents"].clone()
    with open(file, "r+b") as out:
        out.seek(512 + 3 * films.latents[0].nbytes)
        out.write(bytes(films.latents[0].nbytes))
    assert before.any() and not films[3]["latents"].any()


@pytest.fixture
def embedder(tmp_path):
    return TextEmbedder(write_t5(tmp_path / "t5"), 11)


def test_texts_of_a_large_encoder_are_kept_on_disk(tmp_path, embedder, monkeypatch):
    monkeypatch.setattr(texts_module, "LARGE", 1)
    texts = ["a red ring", "", "a large blue palm high right"]
    first = CachedTexts(embedder, cache=tmp_path / "cache")
    first.prepare([*texts, texts[0]])
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 3
    expected = first(texts)
    again = CachedTexts(embedder, cache=tmp_path / "cache")
    monkeypatch.setattr(TextEmbedder, "forward", lambda *arguments: pytest.fail("asked again"))
    again.prepare(texts)
    assert all(torch.equal(one, other) for one, other in zip(again(texts), expected, strict=True))


def test_a_damaged_text_is_encoded_again(tmp_path, embedder, monkeypatch):
    monkeypatch.setattr(texts_module, "LARGE", 1)
    expected = CachedTexts(embedder, cache=tmp_path / "cache")(["red"])
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    assert torch.equal(CachedTexts(embedder, cache=tmp_path / "cache")(["red"])[0], expected[0])
    assert file.stat().st_size > 100 and torch.equal(
        CachedTexts(embedder, cache=tmp_path / "cache")(["red"])[0], expected[0]
    )


def test_another_encoder_is_another_folder_and_a_small_one_none(tmp_path, embedder):
    assert CachedTexts(embedder, cache=tmp_path).folder is None
    names = [encoder_name(embedder), encoder_name(TextEmbedder(tmp_path / "t5", 9))]
    names.append(encoder_name(TextEmbedder(tmp_path / "t5", 11, attention_mask=False)))
    names.append(encoder_name(TextEmbedder(tmp_path / "t5", 11, dtype=torch.bfloat16)))
    assert encoder_name(TextEmbedder(tmp_path / "t5", 11)) == names[0]
    with torch.no_grad():
        embedder.model.encoder.final_layer_norm.weight[0] += 1
    assert len({*names, encoder_name(embedder)}) == 5
