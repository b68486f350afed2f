"""Grades that a perfect model and a deaf one would get, distances that are known, and a card that tells the truth."""

import json
import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny_runs import tiny_config, train

from minivdm.config import load_preset
from minivdm.data.captions import caption, parse_caption
from minivdm.data.judge import prompt_accuracy
from minivdm.errors import UserError
from minivdm.pipelines import TextToVideoPipeline
from minivdm.training.checkpoint import list_checkpoints, read_tensors
from minivdm.training.compare_encoders import _of_two
from minivdm.training.evaluate_text_to_video import KINDS, draw, features, frechet, graded, rendered, unseen_prompts
from minivdm.training.lineage import Stage, stages
from minivdm.training.publish_text_to_video import publish
from minivdm.training.text_to_video_card import SHOWN

FILMS = 48


def normal(count, mean, deviation, seed):
    generator = torch.Generator().manual_seed(seed)
    return mean + deviation * torch.randn(count, len(mean), generator=generator, dtype=torch.float64)


# Distances


def test_a_set_is_no_distance_from_itself():
    mean, deviation = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.1, 3.0, 1.0])
    for count in (3, 500):  # of 3, the covariance is not of full rank
        one = normal(count, mean, deviation, 0)
        assert abs(frechet(one, one)) < 1e-6


def test_the_distance_of_two_gaussians_is_the_one_that_is_known():
    means = torch.tensor([[1.0, -2.0, 0.5, 0.0], [0.0, -1.0, 0.5, 2.0]], dtype=torch.float64)
    deviations = torch.tensor([[0.5, 2.0, 1.0, 1.5], [1.0, 0.5, 1.0, 3.0]], dtype=torch.float64)
    one, other = (normal(200_000, means[k], deviations[k], k) for k in range(2))
    expected = ((means[0] - means[1]).square() + (deviations[0] - deviations[1]).square()).sum().item()
    assert frechet(one, other) == pytest.approx(expected, rel=0.01)
    assert frechet(one, other) == pytest.approx(frechet(other, one), rel=1e-9)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64))[0]
    assert frechet(one @ turn, other @ turn) == pytest.approx(frechet(one, other), rel=1e-9)
    assert frechet(one + 3, one) == pytest.approx(4 * 9, rel=1e-6)


# Grades


@pytest.fixture(scope="module")
def clips():
    """Rendered clips of unseen scenes, with their captions."""
    prompts, scenes = unseen_prompts(FILMS, "scene", seed=5)
    return rendered(scenes, 17, (32, 32), seed=6), prompts, scenes


def test_prompts_say_what_the_scenes_hold_and_every_second_one_was_never_shown(clips):
    _, prompts, scenes = clips
    assert [scene.held_out for scene in scenes] == [False, True] * (FILMS // 2)
    for prompt, scene in zip(prompts, scenes, strict=True):
        asked = parse_caption(prompt)
        assert len(asked.shells) == len(scene.shells) and asked.order == scene.order
    assert unseen_prompts(FILMS, "scene", seed=5)[0] == prompts != unseen_prompts(FILMS, "scene", seed=6)[0]


def test_encoders_are_compared_on_as_many_captions_of_two_shells_as_are_asked_for():
    texts = _of_two(30)
    assert len(texts) == len(set(texts)) == 30
    assert {len(parse_caption(text).shells) for text in texts} == {2}


def test_rendered_clips_are_nearly_all_right_and_of_every_kind(clips):
    results = graded(*clips)
    assert set(results) == set(KINDS) and sum(kind["films"] for kind in results.values()) == FILMS
    assert sum(kind["joint"] * kind["films"] for kind in results.values()) > 0.9 * FILMS
    for kind in results.values():
        assert min(kind["seen"], kind["unseen"]) <= kind["joint"] <= max(kind["seen"], kind["unseen"])
    total = prompt_accuracy(clips[0], [parse_caption(prompt) for prompt in clips[1]])
    assert sum(kind["joint"] * kind["films"] for kind in results.values()) == pytest.approx(total["joint"] * FILMS)


def test_films_of_other_prompts_are_nearly_all_wrong(clips):
    videos, prompts, scenes = clips
    results = graded(videos.roll(1, 0), prompts, scenes)
    assert sum(kind["joint"] * kind["films"] for kind in results.values()) < 0.05 * FILMS


def test_seen_and_unseen_are_told_apart(clips):
    videos, prompts, scenes = clips
    spoilt = videos.clone()
    spoilt[[scene.held_out for scene in scenes]] = -1.0
    for kind in graded(spoilt, prompts, scenes).values():
        assert kind["unseen"] == 0 and kind["seen"] > 0.5


def test_other_clips_of_the_same_scenes_are_nearer_than_a_night_without_fireworks(clips):
    videos, _, scenes = clips
    seen = features(videos)
    assert seen.shape == (FILMS, 96) and seen.dtype == torch.float64
    again = frechet(features(rendered(scenes, 17, (32, 32), seed=7)), seen)
    dark = frechet(features(videos * 0.5 - 0.5), seen)
    assert 0 < again < 0.2 * dark


# Publishing


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A tiny run on the shipped parts, its published folder, and the results."""
    root = tmp_path_factory.mktemp("published")
    config = tiny_config("stdit3", flow__cache=None, training__steps=2, flow__image_head=0.25)
    run = train(config, root / "run").run_dir
    return run, root / "out", publish(run, root / "out", films=4, drawn=8, machine="In no time.")


def test_what_is_published_is_what_was_trained_in_half_precision(published):
    run, out, _ = published
    expected = {"denoiser", "pipeline.json", "config.yaml", "loss.png", "metrics.jsonl"}
    expected |= {"evaluation.json", "MODEL_CARD.md", "samples.gif", "contact_sheet.png"}
    assert {path.name for path in out.iterdir()} == expected
    settings = json.loads((out / "pipeline.json").read_text())
    assert settings["text"] == settings["vae"] == "toy"
    stored = safetensors.torch.load_file(out / "denoiser" / "model.safetensors")
    averages = read_tensors(list_checkpoints(run)[-1] / "ema.safetensors")
    assert stored.keys() == averages.keys()
    assert all(torch.equal(stored[name], weight.half()) for name, weight in averages.items())
    pipe = TextToVideoPipeline.from_pretrained(out)
    assert pipe("a red ring", seed=1).shape == (1, 3, 5, 16, 16)


def test_the_card_says_what_was_measured(published):
    run, out, results = published
    assert json.loads((out / "evaluation.json").read_text()) == json.loads(json.dumps(results))
    card = (out / "MODEL_CARD.md").read_text()
    assert "In no time." in card and SHOWN[4] in card
    made = stages(run)
    assert len(made) == 1 and [Stage(**stage) for stage in results["stages"]] == made
    assert "2 steps on 16×16 pixels, with Muon at a learning rate of 0.002 (" in card
    assert "Each step took 3 rendered clips" in card and "training out of 7, as" in card
    short = results["short"]
    assert short["films"] == 48 and f'of 48 such as "a red ring" {short["joint"]:.0%} are obeyed' in card
    assert "32% of the clips with a first frame" in card  # 0.25 + 0.05 + 0.02
    assert f"{results['parameters']['denoiser']:,} parameters" in card
    assert "on films drawn from 4 captions" in card and "trunk sees of 8 films" in card and "on 8 films: 1: " in card
    distances = results["frechet"]
    assert all(math.isfinite(distances[name]) for name in ("drawn", "rendered", "reconstructed"))
    drawn, again = (1000 * distances[name] for name in ("drawn", "reconstructed"))
    assert f"thousandths: drawn {drawn:.1f}, rendered clips that went through the VAEs {again:.1f}, other" in card
    cells = [row.strip("| ").split(" | ") for row in card.splitlines() if row.startswith("| ")]
    rows = {row[0]: row for row in cells}
    for name, kind in results["drawn"].items():
        assert rows[name][1:3] == [str(kind["films"]), f"{kind['joint']:.1%}"]
        assert rows[name][-2:] == [f"{results['reconstructed'][name]['joint']:.1%}", f"{kind['chance']['joint']:.2%}"]
        assert len(rows[name]) == len(rows["films"]), "a column is missing or too many"


def test_a_model_that_began_as_another_says_so_and_may_take_a_decoder_that_went_on(tmp_path):
    tiny = {"data__clips": 2, "data__size": 16, "vae2d__ch": 8, "temporal_vae__filters": 8, "training__steps": 2}
    tiny |= {"training__batch_size": 2, "vae_loss__init": None}
    begin = {name: str(tmp_path / name) for name in ("vae2d", "temporal", "other", "longer", "before", "run", "again")}

    def of_64(task, run, **more):
        settings = {name.replace("__", "."): value for name, value in (tiny | more).items()}
        return train(load_preset("toy_64", settings, task=task), Path(begin[run]))

    of_64("vae2d", "vae2d")
    of_64("temporal_vae", "temporal", vae_loss__vae2d=begin["vae2d"])
    of_64("temporal_vae", "other", vae_loss__vae2d=begin["vae2d"], seed=1)
    decoder = {"vae_loss__init": begin["temporal"], "vae_loss__decoder_only": True}
    of_64("temporal_vae", "longer", vae_loss__vae2d=begin["vae2d"], **decoder)
    flow = {"stdit3__hidden_size": 16, "stdit3__depth": 1, "stdit3__num_heads": 2, "sampling__steps": 1}
    flow |= {"flow__cache": None, "flow__vae": begin["temporal"], "data__frames": 5}
    of_64("stdit3", "before", **flow, training__optimizer="adam")
    of_64("stdit3", "run", **flow, flow__init=begin["before"], training__steps=1)

    results = publish(Path(begin["run"]), tmp_path / "out", films=2, drawn=4, vae=Path(begin["longer"]))
    assert [stage["steps"] for stage in results["stages"]] == [2, 1]
    assert not list((tmp_path / "out").rglob("README.md"))
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert (
        "2 steps on 16×16 pixels, with Adam" in card
        and "; then 1 steps on 16×16 pixels from those weights, with Muon" in card
    )
    assert "minivdm train stdit3 --preset toy_64 --run runs/stdit3-2 --flow.init runs/stdit3-1 --data.clips 2" in card
    assert "publish_text_to_video runs/stdit3-2 checkpoints/toy/text_to_video --vae runs/decoder-toy_64" in card
    own_vae = {"flow__vae": str(tmp_path / "out" / "vae"), "flow__init": str(tmp_path / "out")}
    of_64("stdit3", "again", **(flow | own_vae))
    once_more = publish(Path(begin["again"]), tmp_path / "next", films=2, drawn=4)
    assert once_more["decoder"] == results["decoder"] is not None, "the decoder's training is told on"
    assert once_more["minutes"].keys() == results["minutes"].keys()
    assert stages(Path(begin["again"]))[:2] == stages(Path(begin["run"])), "a published folder tells its trainings"
    assert stages(Path(begin["again"]))[2].optimizer == "muon"
    assert "--vae_loss.decoder_only true --data.clips 2 --training.steps 2" in card
    assert f"come back at {results['psnr']:.1f} dB" in card and "minivdm train vae2d --preset toy_64" in card
    shipped = TextToVideoPipeline.from_pretrained(tmp_path / "out").vae.temporal.decoder.conv_out.conv.weight
    averages = read_tensors(list_checkpoints(Path(begin["longer"]))[-1] / "ema.safetensors")
    assert torch.equal(shipped, averages["vae.decoder.conv_out.conv.weight"].half().float())
    with pytest.raises(UserError, match="other makes other latents than the denoiser knows"):
        publish(Path(begin["run"]), tmp_path / "no", films=2, drawn=4, vae=Path(begin["other"]))


def test_the_grades_are_those_of_the_weights_that_were_written(published):
    _, out, results = published
    prompts, scenes = unseen_prompts(8, "scene", seed=1)
    films = draw(TextToVideoPipeline.from_pretrained(out), prompts, seed=0)
    assert graded(films[:4], prompts[:4], scenes[:4]) == results["drawn"]
    assert frechet(features(films), features(rendered(scenes, 5, (16, 16), 8))) == results["frechet"]["drawn"]


def test_films_do_not_depend_on_how_many_are_drawn_at_once(published):
    pipe = TextToVideoPipeline.from_pretrained(published[1])
    prompts = [caption(scene, torch.Generator().manual_seed(3)) for scene in unseen_prompts(18, "single", 2)[1]]
    films = draw(pipe, prompts, seed=4, steps=1)
    assert films.shape == (18, 3, 5, 16, 16)
    torch.testing.assert_close(films[17], pipe(prompts[17], seed=4 + 17, steps=1)[0], atol=1e-4, rtol=0)
