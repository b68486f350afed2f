import json

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import nn

from minivdm.denoisers import Unet3D
from minivdm.denoisers.attention import TemporalAttention
from minivdm.errors import UserError

BATCH, CHANNELS, FRAMES, HEIGHT, WIDTH, COND = 2, 3, 5, 4, 6, 7


def build(**changes):
    torch.manual_seed(0)
    return Unet3D(**dict(dim=8, dim_mults=(1, 2), attn_heads=2, attn_dim_head=10, init_kernel_size=3) | changes)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def x(generator):
    return torch.randn(BATCH, CHANNELS, FRAMES, HEIGHT, WIDTH, generator=generator)


@pytest.fixture
def cond(generator):
    return torch.randn(BATCH, COND, generator=generator)


T = torch.tensor([3, 700])


def same(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_published_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = Unet3D(dim=64, dim_mults=(1, 2, 4, 8))
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M" == "35.71M"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"init_dim": 12},
        {"out_dim": 4},
        {"channels": 1},
        {"dim_mults": (1,)},
        {"dim_mults": (2, 3)},
        {"use_sparse_linear_attn": False},
        {"attn_heads": 3, "attn_dim_head": 34, "spatial_dim_head": 6},
        {"init_kernel_size": 7},
    ],
    ids=str,
)
def test_every_option_builds_a_model_that_trains_all_its_weights(changes, generator):
    model = build(**changes)
    channels = changes.get("channels", CHANNELS)
    x = torch.randn(BATCH, channels, FRAMES, HEIGHT, WIDTH, generator=generator)
    y = model(x, T)
    assert y.shape == (BATCH, changes.get("out_dim", channels), FRAMES, HEIGHT, WIDTH)
    assert y.is_contiguous() and y.dtype == x.dtype
    y.square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_any_number_of_frames_and_any_size_that_fits(generator):
    model = build()
    for frames, height, width in [(1, 2, 8), (9, 6, 2)]:
        shape = (1, CHANNELS, frames, height, width)
        assert model(torch.randn(shape, generator=generator), T[:1]).shape == shape


@pytest.mark.parametrize(
    ("shape", "levels", "says"),
    [
        ((2, 3, 5, 18, 32), 3, "18×32.*multiples of 4.*20×32"),
        ((2, 3, 5, 6, 9), 2, "6×9.*multiples of 2.*6×10"),
        ((2, 1, 5, 4, 6), 2, r"\(2, 1, 5, 4, 6\).*\(B, 3, T, H, W\)"),
        ((2, 3, 4, 6), 2, r"\(B, 3, T, H, W\)"),
        ((3, 3, 5, 4, 6), 2, r"one step per clip, \(3,\)"),
    ],
)
def test_clips_that_do_not_fit_are_refused_at_the_door(shape, levels, says):
    with pytest.raises(UserError, match=says) as caught:
        build(dim_mults=(1, 2, 4)[:levels])(torch.zeros(shape), T)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"init_kernel_size": 4}, {"attn_dim_head": 9}, {"dim": 7}], ids=str)
def test_impossible_widths_are_refused(changes):
    with pytest.raises(UserError):
        build(**changes)


def test_condition_is_a_vector_or_the_mean_of_the_tokens_that_count(x, cond, generator):
    model = build(cond_dim=COND)
    plain = model(x, T, cond)
    tokens = torch.randn(BATCH, 4, COND, generator=generator)
    same(model(x, T, tokens), model(x, T, tokens.mean(dim=1)))
    mask = torch.tensor([[True, False, True, False], [False, False, True, False]])
    mean = torch.stack([(tokens[0, 0] + tokens[0, 2]) / 2, tokens[1, 2]])
    same(model(x, T, tokens, cond_mask=mask), model(x, T, mean))
    assert not torch.allclose(plain, model(x, T, mean), atol=1e-3)
    nothing = model(x, T, tokens, cond_mask=torch.zeros(BATCH, 4, dtype=torch.bool))
    same(nothing, model(x, T, torch.zeros(BATCH, COND)))


def test_null_condition_is_chosen_per_clip(x, cond):
    model = build(cond_dim=COND)
    given, null = model(x, T, cond), model(x, T, cond, null_cond_prob=1.0)
    mixed = model(x, T, cond, null_cond=torch.tensor([False, True]))
    same(mixed[0], given[0])
    same(mixed[1], null[1])
    same(null, model(x, T, torch.full_like(cond, 9.0), null_cond_prob=1.0))
    assert not torch.allclose(given, null, atol=1e-3)


def test_probabilities_0_and_1_draw_nothing_and_others_follow_the_generator(x, cond, generator):
    model = build(cond_dim=COND)
    before = generator.get_state()
    for probability in (0.0, 1.0):
        model(x, T, cond, null_cond_prob=probability, prob_focus_present=probability, generator=generator)
    assert torch.equal(generator.get_state(), before)
    draws = [
        model(x, T, cond, null_cond_prob=0.5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1, 2, 3)
    ]
    assert torch.equal(draws[0], draws[1])
    assert any(not torch.equal(draws[0], other) for other in draws[2:])


@pytest.mark.parametrize(
    ("cond_dim", "cond", "says"),
    [
        (None, torch.zeros(2, 7), "takes none"),
        (7, None, "7 numbers"),
        (7, torch.zeros(2, 6), r"\(2, 6\).*\(2, 7\)"),
        (7, torch.zeros(3, 7), r"\(3, 7\).*\(2, 7\)"),
        (7, torch.zeros(2, 1, 4, 7), r"\(2, L, 7\)"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(cond_dim, cond, says, x):
    model = build(cond_dim=cond_dim)
    for forward in (model, model.forward_with_cond_scale):
        with pytest.raises(UserError, match=says):
            forward(x, T, cond)


def test_guidance_is_one_doubled_batch_and_linear_in_its_scale(x, cond):
    model = build(cond_dim=COND)
    batches = []
    model.init_conv.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    given, null = model(x, T, cond), model(x, T, cond, null_cond_prob=1.0)
    batches.clear()
    guided = {scale: model.forward_with_cond_scale(x, T, cond, cond_scale=scale) for scale in (0, 1, 3)}
    assert batches == [2 * BATCH * FRAMES, BATCH * FRAMES, 2 * BATCH * FRAMES]
    same(guided[0], null)
    assert torch.equal(guided[1], given)
    torch.testing.assert_close(guided[3], null + 3 * (given - null), atol=1e-5, rtol=1e-4)


def test_guidance_doubles_masks_and_draws_focus_once(x, cond, generator):
    model = build(cond_dim=COND)
    tokens = torch.randn(BATCH, 4, COND, generator=generator)
    mask = torch.tensor([[True, False, True, False], [True, True, True, True]])
    focused = torch.tensor([True, False])
    options = dict(cond_mask=mask, focus_present_mask=focused)
    given, null = model(x, T, tokens, **options), model(x, T, tokens, null_cond_prob=1.0, **options)
    guided = model.forward_with_cond_scale(x, T, tokens, cond_scale=2.0, **options)
    torch.testing.assert_close(guided, 2 * given - null, atol=1e-5, rtol=1e-4)
    all_focused = model.forward_with_cond_scale(x, T, tokens, prob_focus_present=1.0)
    same(all_focused, model.forward_with_cond_scale(x, T, tokens, focus_present_mask=torch.ones(BATCH).bool()))


def test_model_without_condition_ignores_the_scale(x):
    model = build()
    assert torch.equal(model.forward_with_cond_scale(x, T, cond_scale=5.0), model(x, T))


def frames_reached(model, x, frame, **options):
    """Which input frames change output frame `frame`: (B, T) bool, by gradient."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x, T, **options)[:, :, frame].square().sum(), x)
    return gradient.abs().sum(dim=(1, 3, 4)) > 0


def test_frames_of_focused_clips_know_nothing_of_each_other(x):
    model = build()
    only_frame_2 = [frame == 2 for frame in range(FRAMES)]
    assert frames_reached(model, x, 2, focus_present_mask=torch.tensor([True, True])).tolist() == [only_frame_2] * 2
    assert frames_reached(model, x, 2, prob_focus_present=1.0).tolist() == [only_frame_2] * 2
    half = frames_reached(model, x, 2, focus_present_mask=torch.tensor([True, False]))
    assert half.tolist() == [only_frame_2, [True] * FRAMES]


def test_the_reference_lets_frames_of_focused_clips_mix_once(x):
    model = build(mask_initial_attention=False)
    assert frames_reached(model, x, 2, prob_focus_present=1.0).all()


def test_frames_meet_in_temporal_attention_only(x):
    """Without it, shuffled frames come out shuffled and otherwise unchanged; with it they do not."""
    order = torch.tensor([3, 0, 4, 1, 2])
    model = build()
    assert not torch.allclose(model(x[:, :, order], T), model(x, T)[:, :, order], atol=1e-3)
    for module in model.modules():
        if isinstance(module, TemporalAttention):
            nn.init.zeros_(module.to_out.weight)
    same(model(x[:, :, order], T), model(x, T)[:, :, order])
    assert frames_reached(model, x, 2).sum() == BATCH


def test_clips_of_a_batch_do_not_see_each_other(x, cond):
    model = build(cond_dim=COND)
    same(model(x, T, cond)[1:], model(x[1:], T[1:], cond[1:]))


def gradients_and_saved(model, x, cond):
    """Gradients of all weights, and the numbers kept between forward and backward pass."""
    saved = []

    def keep(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(x, T, cond).square().mean()
    kept = sum(saved)
    loss.backward()
    return [p.grad for p in model.parameters()], kept


def test_checkpointing_keeps_less_and_changes_no_gradient(x, cond):
    full, kept_full = gradients_and_saved(build(cond_dim=COND), x, cond)
    cheap, kept_cheap = gradients_and_saved(build(cond_dim=COND, gradient_checkpointing=True), x, cond)
    assert kept_cheap < 0.5 * kept_full
    for a, b in zip(full, cheap, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_autocast_and_low_precision_weights_stay_close(x, cond):
    model = build(cond_dim=COND)
    exact = model(x, T, cond)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(x, T, cond)
    assert mixed.dtype == x.dtype
    low = build(cond_dim=COND).to(torch.bfloat16)(x.bfloat16(), T, cond.bfloat16())
    for other in (mixed, low.float()):
        assert (other - exact).abs().max() < 0.05 * exact.abs().max()


def test_saved_model_comes_back_the_same_without_a_network(tmp_path, x, cond, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = build(cond_dim=COND, init_dim=12, dim_mults=(1, 3), mask_initial_attention=False)
    model.save_pretrained(tmp_path / "unet")
    assert {path.name for path in (tmp_path / "unet").iterdir()} >= {"config.json", "model.safetensors"}
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    assert config["dim_mults"] == [1, 3] and config["init_dim"] == 12
    again = Unet3D.from_pretrained(tmp_path / "unet").train(model.training)
    assert torch.equal(again(x, T, cond), model(x, T, cond))
    weights = model.state_dict() | {"stranger": torch.zeros(2)}
    del weights[next(iter(weights))]
    save_file({name: weight.contiguous() for name, weight in weights.items()}, tmp_path / "unet" / "model.safetensors")
    with pytest.raises(UserError, match="lacks 1 of"):
        Unet3D.from_pretrained(tmp_path / "unet")


def test_time_changes_the_answer_and_repeats_exactly(x):
    model = build()
    assert torch.equal(model(x, T), model(x, T))
    assert not torch.allclose(model(x, T), model(x, T.flip(0)), atol=1e-3)


def test_frames_and_channels_are_not_swapped(generator):
    """Each output frame follows its own input frame most: a transposed layout would follow another."""
    model = build()
    x = torch.randn(1, CHANNELS, FRAMES, HEIGHT, WIDTH, generator=generator)
    y = model(x, T[:1])
    changed = x.clone()
    changed[:, :, 3] += 1
    moved = rearrange((model(changed, T[:1]) - y).abs(), "1 c t h w -> t (c h w)").sum(-1)
    assert moved.argmax() == 3
