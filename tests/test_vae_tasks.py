"""Training the VAEs: what is repeated exactly, what stays frozen, and when the critic comes."""

import json

import pytest
import torch
from einops import rearrange
from run_weights import run_weights

from minivdm.config import load_preset
from minivdm.errors import UserError
from minivdm.training.checkpoint import list_checkpoints, read_tensors
from minivdm.training.critic_switch import CriticSwitch
from minivdm.training.latents import LatentClips, find_vae2d
from minivdm.training.start import make_task
from minivdm.training.tasks import collate
from minivdm.training.trainer import Trainer
from minivdm.vae.autoencoder2d import AutoEncoder2D

TINY = {
    "data.clips": 7,
    "data.size": 16,
    "data.frames": 7,
    "vae2d.ch": 8,
    "vae2d.ch_mult": [1, 2],
    "temporal_vae.filters": 8,
    "temporal_vae.num_groups": 4,
    "vae_loss.critic": "hinge",
    "vae_loss.critic_width": 4,
    "vae_loss.critic_layers": 1,
    "vae_loss.critic_penalty": 1.0,
    "vae_loss.plateau_steps": 2,
    "vae_loss.plateau_gain": 1.0,  # any gain is too little: the critic comes after the second window
    "training.batch_size": 3,
    "training.warmup": 2,
    "training.log_every": 2,
    "training.milestone_every": 4,
    "training.steps": 10,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The folder of a 2D VAE for the temporal one to stand on."""
    folder = tmp_path_factory.mktemp("vae2d")
    torch.manual_seed(0)
    AutoEncoder2D(ch=8, ch_mult=(1, 2), num_res_blocks=1, scale_factor=1.0).save_pretrained(folder)
    return folder


def _config(task, pictures, **overrides):
    overrides = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_preset("toy", TINY | {"vae_loss.vae2d": str(pictures)} | overrides, task=task)


def _train(task, folder, pictures, **overrides):
    config = _config(task, pictures, **overrides)
    trainer = Trainer(make_task(config), config, folder, progress=False)
    trainer.run()
    return trainer


@pytest.mark.parametrize("task", ["vae2d", "temporal_vae"])
def test_the_log_of_a_run_tells_of_both_sides(tmp_path, pictures, task):
    whole = _train(task, tmp_path, pictures)
    assert whole.task.model.adversary.switch.is_on, "the critic never came: this test would prove little"
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"psnr", "psnr_lit", "ssim", "kl", "reconstruction", "critic_loss"} <= set().union(*rows)


@pytest.mark.parametrize("kind", ["hinge", "vanilla", "wgan"])
def test_neither_side_of_the_game_trains_the_other(pictures, kind):
    config = _config("vae2d", pictures, vae_loss__critic=kind)
    task = make_task(config)
    batch = collate([task.dataset[index] for index in range(3)])
    adversary = task.model.adversary
    vae_weights, critic_weights = list(task.model.vae.parameters()), list(adversary.critic.parameters())

    def gradients(switched_on):
        task.model.zero_grad()
        adversary.switch.started.fill_(1.0 if switched_on else -1.0)
        task.loss(task.model, batch, [5, 6, 7]).backward()
        return [[weight.grad.clone() for weight in side] for side in (vae_weights, critic_weights)]

    (vae_alone, critic_idle), (vae_judged, critic_busy) = gradients(False), gradients(True)
    assert all((gradient == 0).all() for gradient in critic_idle), "before the start the critic learns nothing"
    assert any((gradient != 0).any() for gradient in critic_busy)
    assert any(not torch.equal(one, other) for one, other in zip(vae_alone, vae_judged, strict=True))
    adversary.config = type(adversary.config)(**{**vars(adversary.config), "critic_weight": 0.0})
    vae_deaf, critic_alone = gradients(True)
    for one, other in zip(vae_alone, vae_deaf, strict=True):
        torch.testing.assert_close(one, other, msg="the critic's own loss reached the VAE")
    for one, other in zip(critic_busy, critic_alone, strict=True):
        torch.testing.assert_close(one, other, msg="the VAE's side of the game reached the critic")


def test_the_2d_vae_stays_as_it_was_while_time_is_learnt(tmp_path, pictures):
    before = AutoEncoder2D.from_pretrained(pictures).state_dict()
    trainer = _train("temporal_vae", tmp_path / "run", pictures, vae_loss__perceptual=0.0, vae_loss__critic=None)
    after = trainer.task.vae2d.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any("2d" in name for name in run_weights(tmp_path / "run")), "its weights do not belong into this run"


@pytest.mark.parametrize("task", ["vae2d", "temporal_vae"])
def test_a_decoder_can_go_on_alone_from_another_run(tmp_path, pictures, task):
    plain = {"vae_loss__critic": None, "vae_loss__perceptual": 0.0, "training__steps": 2}
    _train(task, tmp_path / "first", pictures, **plain)
    more = {"vae_loss__init": str(tmp_path / "first"), "vae_loss__decoder_only": True}
    _train(task, tmp_path / "more", pictures, **plain, **more)
    # averages in, averages out: both runs tell what they would be used as
    first, last = (read_tensors(list_checkpoints(tmp_path / run)[-1] / "ema.safetensors") for run in ("first", "more"))
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    kept = {name for name in first if name.startswith(("vae.encoder.", "vae.quant_conv.", "vae.shortcut_in."))}
    assert kept and changed and not changed & kept
    assert changed | kept >= {name for name in first if name.startswith("vae.")}, "all of the decoder learns"


def test_batches_have_one_frame_or_any_number_of_them(pictures):
    task = make_task(_config("temporal_vae", pictures, vae_loss__images=0.25))
    lengths = [task._length(7, torch.Generator().manual_seed(seed)) for seed in range(2000)]
    assert set(lengths) == {1, 2, 3, 4, 5, 6, 7}
    assert abs(lengths.count(1) / 2000 - 0.25) < 0.03
    assert abs(lengths.count(7) / 2000 - 0.375 - 0.375 / 6) < 0.04


def test_each_clip_has_its_own_frames_and_noise(pictures):
    task = make_task(_config("vae2d", pictures, vae_loss__critic=None, vae_loss__perceptual=0.0))
    batch = collate([task.dataset[index] for index in range(5)])
    with torch.no_grad():
        alone = [
            task.loss(task.model, {"video": batch["video"][index : index + 1]}, [20 + index]) for index in range(5)
        ]
        together = task.loss(task.model, batch, [20, 21, 22, 23, 24])
    torch.testing.assert_close(torch.stack(alone).mean(), together)
    assert torch.stack(alone).unique().numel() == 5


def test_cached_latents_are_those_of_the_clips(pictures):
    vae = find_vae2d(str(pictures))
    task = make_task(_config("vae2d", pictures))
    cached = LatentClips(task.dataset, vae)
    item = cached[3, 1]
    expected = vae.encode(rearrange(item["video"], "c t h w -> 1 c t h w"), sample=False)[0]
    torch.testing.assert_close(item["latents"], expected, atol=1e-5, rtol=1e-5)
    assert item["caption"] == task.dataset[3, 1]["caption"]
    assert collate([cached[0], cached[1]])["latents"].shape == (2, 4, 7, 8, 8)


def test_a_run_can_be_stood_on(tmp_path, pictures):
    _train("vae2d", tmp_path / "run", pictures, vae_loss__critic=None)
    vae = find_vae2d(str(tmp_path / "run"))
    averages = read_tensors(list_checkpoints(tmp_path / "run")[-1] / "ema.safetensors")
    assert torch.equal(vae.encoder.conv_in.weight, averages["vae.encoder.conv_in.weight"])
    assert not any(weight.requires_grad for weight in vae.parameters())


@pytest.mark.parametrize(("source", "words"), [(None, "train vae2d"), ("nowhere", "no 2D VAE in nowhere")])
def test_a_missing_2d_vae_is_one_line(source, words):
    with pytest.raises(UserError, match=words) as error:
        find_vae2d(source)
    assert "\n" not in str(error.value)


def test_the_critic_waits_for_a_plateau():
    switch = CriticSwitch(window=50, gain=0.05)
    for step in range(600):
        falling = max(1.0 - step / 300, 0.2)  # gets better until step 240
        switch.watch(torch.tensor(falling))
        if switch.is_on:
            break
    assert 250 < switch.started.item() < 600
    restored = CriticSwitch(window=50, gain=0.05)
    restored.load_state_dict(switch.state_dict())
    assert restored.is_on and restored.at_start == switch.at_start


def test_alarms_ring_when_the_critic_does_harm_and_not_before():
    switch = CriticSwitch(window=2, gain=1.0)
    for _ in range(6):
        switch.watch(torch.tensor(0.5))
    assert switch.is_on and switch.alarm() is None
    real, fake = torch.full((3, 1, 4, 5), 2.0), torch.full((3, 1, 4, 5), -2.0)
    for _ in range(300):
        switch.watch_critic(real, fake)
    assert "teaches nothing" in switch.alarm()
    for _ in range(300):
        switch.watch(torch.tensor(1.0))
    assert "rose from 0.5 to 0.9" in switch.alarm()
