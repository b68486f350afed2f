"""Training an STDiT3: what is repeated exactly, what stays frozen, and what the network is shown."""

import hashlib
import itertools

import pytest
import torch
from tiny_runs import tiny_config, train, write_parts

from minivdm.denoisers import STDiT3
from minivdm.diffusion.rectified_flow import open_sora_latent_frames
from minivdm.errors import UserError
from minivdm.pipelines import TextToVideoPipeline
from minivdm.pipelines.prompts import text_for_denoiser
from minivdm.training.checkpoint import list_checkpoints, read_tensors
from minivdm.training.randomness import stream_seed
from minivdm.training.stdit3_task import Stdit3Task
from minivdm.training.tasks import collate

SHARES = {"flow__image_head": 0.3, "flow__image_tail": 0.2, "flow__image_head_tail": 0.15}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("parts"))


def digest(module):
    """SHA-256 of all weights."""
    total = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        total.update(name.encode() + weight.numpy().tobytes())
    return total.hexdigest()


def batch_of(task, clips):
    return collate([task.dataset[index] for index in range(clips)])


def awaken(model):
    """No layer is silent, as some are at the beginning."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return model


def watch(model):
    """Lists that fill with what the model is given and what it answers."""
    seen = {"x": [], "t": [], "mask": [], "frames": [], "y": [], "out": []}

    def remember(module, arguments, options, out):
        for name, value in zip(("x", "t", None, "mask", "frames"), arguments, strict=True):
            if name:
                seen[name].append(value)
        seen["out"].append(out)

    model.register_forward_hook(remember, with_kwargs=True)
    model.y_embedder.y_proj.register_forward_pre_hook(lambda module, arguments: seen["y"].append(arguments[0]))
    return seen


# Runs


def test_a_run_trains_the_denoiser_and_nothing_else(tmp_path, parts):
    config = tiny_config("stdit3", parts, training__steps=2)
    task = Stdit3Task(config)
    frozen = {"vae": task.pipeline.vae, "text": task.pipeline.text}
    before = {name: digest(part) for name, part in frozen.items()} | {"denoiser": digest(task.model)}
    trained = train(config, tmp_path / "run").task
    after = {name: digest(getattr(trained.pipeline, name)) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["denoiser"]
    for part in frozen.values():
        assert not part.training and not any(weight.requires_grad for weight in part.parameters())
    assert not any(name.startswith(("vae", "text")) for name in read_tensors(_newest(tmp_path / "run")))


def test_the_loss_falls(tmp_path, parts):
    settings = {"data__clips": 2, "training__steps": 50, "training__learning_rate": 0.01, "training__batch_size": 2}
    config = tiny_config("stdit3", parts, training__milestone_every=50, training__ema_decay=0.9, **settings)
    trained, fresh = train(config, tmp_path / "run").task, Stdit3Task(config)
    batch, seeds = {name: part * 12 for name, part in batch_of(fresh, 2).items() if name == "caption"}, range(70, 94)
    batch["latents"] = batch_of(fresh, 2)["latents"].repeat(12, 1, 1, 1, 1)
    with torch.no_grad():
        now, at_first = (task.loss(task.model, batch, seeds).mean() for task in (trained, fresh))
    assert now < 0.8 * at_first


def test_a_clip_has_its_own_draws_whatever_its_neighbours(parts):
    task = Stdit3Task(tiny_config("stdit3", parts, training__null_cond_prob=0.5, **SHARES))
    awaken(task.model)
    batch = batch_of(task, 5)
    with torch.no_grad():
        together = task.loss(task.model, batch, [11, 12, 13, 14, 15])
        few = {"latents": batch["latents"][2:4], "caption": batch["caption"][2:4]}
        alone = task.loss(task.model, few, [13, 14])
    torch.testing.assert_close(together[2:4], alone, atol=1e-5, rtol=1e-5)
    assert together.unique().numel() == 5


def test_fewer_clips_than_are_shown_at_a_milestone(parts):
    task = Stdit3Task(tiny_config("stdit3", parts, data__clips=3, sampling__clips=8))
    films, prompts = task.sample(task.model, seed=0)
    assert len(films) == len(prompts) == 3


# What the network is shown


def test_no_text_is_in_training_what_it_is_in_sampling(parts):
    task = Stdit3Task(tiny_config("stdit3", parts, training__null_cond_prob=0.5))
    batch, seeds = batch_of(task, 7), [stream_seed(0, "noise", counter) for counter in range(7)]
    dropped = [bool(task._draw(seed, batch["latents"].shape[1:])[3]) for seed in seeds]
    heard = dropped.index(False)
    batch["caption"][heard] = "  "  # has no text of its own
    assert dropped.count(True) > 1 and dropped.count(False) > 2
    seen = watch(task.model)
    with torch.no_grad():
        task.loss(task.model, batch, seeds)
    texts = ["" if drop else text for text, drop in zip(batch["caption"], dropped, strict=True)]
    y, mask = text_for_denoiser(task.model, task.pipeline.text, texts)
    torch.testing.assert_close(torch.where(mask[..., None], seen["y"][0], 0), torch.where(mask[..., None], y, 0))
    assert torch.equal(seen["mask"][0], mask)
    without = torch.tensor([not text.strip() for text in texts])
    assert torch.equal(seen["y"][0][without], task.model.null_text(int(without.sum()))[:, 0])
    assert mask[without].all() and not mask[~without].all(1).any()


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 500)])
def test_as_many_texts_are_dropped_as_the_settings_say(parts, share, expected):
    task = Stdit3Task(tiny_config("stdit3", parts, training__null_cond_prob=share))
    dropped = sum(int(task._draw(seed, torch.Size((3, 2, 1, 1)))[3]) for seed in range(2000))
    assert abs(dropped - expected) <= 3.5 * (2000 * share * (1 - share)) ** 0.5


def test_given_frames_are_clean_and_do_not_count(parts):
    task = Stdit3Task(tiny_config("stdit3", parts, data__frames=13, **SHARES | {"flow__image_head": 0.5}))
    awaken(task.model)
    batch, seeds = batch_of(task, 7), range(30, 37)
    seen = watch(task.model)
    with torch.no_grad():
        losses = task.loss(task.model, batch, seeds)
    x0, x_t, frames, v = batch["latents"], seen["x"][0], seen["frames"][0], seen["out"][0]
    assert frames.shape == (7, 4) and frames.any(1).all() and not frames.all()
    assert torch.equal((x_t == x0).all(4).all(3).all(1), ~frames)
    for k, seed in enumerate(seeds):
        t, noise, mask, _ = task._draw(seed, x0.shape[1:])
        u = t / 1000
        torch.testing.assert_close(x_t[k][:, mask], ((1 - u) * x0[k] + u * noise)[:, mask])
        torch.testing.assert_close(losses[k], (v[k] - (x0[k] - noise))[:, mask].square().mean())


def test_kinds_of_given_frames_come_as_often_as_the_settings_say_with_a_text_or_without(parts):
    task = Stdit3Task(tiny_config("stdit3", parts, training__null_cond_prob=0.4, **SHARES))
    draws = [task._draw(seed, torch.Size((3, 4, 1, 1)))[2:] for seed in range(3000)]
    found = [(tuple(mask.tolist()), bool(drop)) for mask, drop in draws]
    head, tail = (False, True, True, True), (True, True, True, False)
    both, none = (False, True, True, False), (True,) * 4
    kinds, texts = {head: 0.3, tail: 0.2, both: 0.15, none: 0.35}, {True: 0.4, False: 0.6}
    assert {kind for kind, _ in found} == set(kinds)
    for (kind, of_kinds), (drop, of_texts) in itertools.product(kinds.items(), texts.items()):
        share = of_kinds * of_texts
        assert abs(found.count((kind, drop)) / 3000 - share) < 3.5 * (share * (1 - share) / 3000) ** 0.5


def test_without_given_frames_the_network_gets_no_mask(parts):
    task = Stdit3Task(tiny_config("stdit3", parts, flow__image_head=0.0, flow__image_tail=0.0, flow__image_head_tail=0))
    seen = watch(task.model)
    with torch.no_grad():
        task.loss(task.model, batch_of(task, 2), [1, 2])
    assert seen["frames"] == [None]


def test_times_are_shifted_by_the_length_that_the_vae_makes(parts):
    """5 frames are 2 latent ones; Open-Sora 1.2 counts none, which would put every time to 0."""
    settings = {"flow__shift": True, "flow__t_sampling": "uniform"}
    task = Stdit3Task(tiny_config("stdit3", parts, **settings))
    plain = Stdit3Task(tiny_config("stdit3", parts, flow__t_sampling="uniform"))
    assert open_sora_latent_frames(torch.tensor([5])).item() == 0
    shape = torch.Size((3, 2, 8, 8))
    shifted, times = (torch.stack([one._draw(seed, shape)[0] for seed in range(500)]) for one in (task, plain))
    ratio, u = (16 * 16 / 512**2) ** 0.5 * 2**0.5, times / 1000
    torch.testing.assert_close(shifted, 1000 * ratio * u / (1 + (ratio - 1) * u))
    assert (shifted > 0).all() and shifted.max() > 800 and shifted.unique().numel() > 490
    assert task.pipeline.settings.shift and not plain.pipeline.settings.shift


# Beginning with weights that are there


def test_a_larger_film_begins_with_the_weights_of_a_smaller_one(tmp_path, parts):
    train(tiny_config("stdit3", parts, training__steps=2), tmp_path / "small")
    averages = read_tensors(_newest(tmp_path / "small", "ema"))
    assert not _equal(averages, read_tensors(_newest(tmp_path / "small")))
    changes = {"flow__init": str(tmp_path / "small"), "data__size": 32, "data__clips": 3, "training__steps": 1}
    larger = tiny_config("stdit3", parts, seed=5, **changes)
    assert _equal(Stdit3Task(larger).model.state_dict(), averages)
    task = train(larger, tmp_path / "large").task
    assert task.dataset[0]["latents"].shape == (3, 2, 16, 16)
    assert TextToVideoPipeline.from_pretrained(tmp_path / "large")("a ring", steps=1).shape == (1, 3, 5, 32, 32)


def test_a_saved_pipeline_or_denoiser_is_a_beginning_too(tmp_path, parts):
    task = Stdit3Task(tiny_config("stdit3", parts, seed=3))
    task.pipeline.save_pretrained(tmp_path / "saved")
    task.model.save_pretrained(tmp_path / "denoiser")
    for source in ("saved", "denoiser"):
        begun = Stdit3Task(tiny_config("stdit3", parts, flow__init=str(tmp_path / source)))
        assert _equal(begun.model.state_dict(), task.model.state_dict())


def test_weights_of_another_size_are_one_line(tmp_path, parts):
    STDiT3(Stdit3Task(tiny_config("stdit3", parts, stdit3__depth=2)).model.config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="too many for STDiT3, first .*build the model with the sizes") as error:
        Stdit3Task(tiny_config("stdit3", parts, flow__init=str(tmp_path)))
    assert "\n" not in str(error.value)


def _newest(run, name="model"):
    return list_checkpoints(run)[-1] / f"{name}.safetensors"


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
