"""Open-Sora 2.0's sampling: files of other seeds and sizes, real mistakes, and what its parts promise."""

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from os2_sampling_by_hand import write

from minivdm import parity
from minivdm.diffusion import latent_tokens, open_sora2
from minivdm.diffusion.flow_euler import euler_flow
from minivdm.diffusion.open_sora2 import CONDITIONS, GuidanceScales, given_frames, place_references
from minivdm.diffusion.rectified_flow import RectifiedFlow
from minivdm.errors import UserError
from minivdm.parity_kinds import os2_sampling as kind

SMALL = {
    "seed": 3,
    "latent": [1, 3, 4, 6, 4],
    "ps": 2,
    "steps": 15,
    "guidance": 6.5,
    "guidance_img": 2.25,
    "noise": [1, 33, 47, 2, 99, 2, 5],
    "sched": [[3, 300, 2], [12, 2000, 5], [1, 64, 1]],
    "alpha": [0.25, 1.0, 4.5],
    "flow_shift": 1.75,
    "long": [1, 3, 20, 3, 2],
    "sanitize": [[17, 16], [719, 1281]],
}
OTHERS = [
    SMALL,
    SMALL | {"seed": 4, "latent": [2, 5, 3, 2, 8], "steps": 21, "guidance_img": 1.0, "long": [2, 2, 31, 1, 3]},
    SMALL | {"seed": 5, "latent": [1, 2, 2, 3, 5], "ps": 1, "steps": 1, "noise": [3, 16, 100, 1, 7, 1, 2]},
    SMALL | {"seed": 6, "latent": [1, 1, 7, 6, 9], "ps": 3, "steps": 4, "guidance": 1.0, "guidance_img": 8.0},
]


def verdicts(path, capsys):
    """The exit status of a comparison, and which outputs are off."""
    status = parity.run([path])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    return status, {line[1] for line in lines if "OFF" in line}


@pytest.mark.parametrize("config", OTHERS, ids=lambda config: f"seed{config['seed']}")
def test_other_seeds_and_sizes(config, tmp_path, capsys):
    write(tmp_path / "other.safetensors", **config)
    assert verdicts(tmp_path / "other.safetensors", capsys) == (0, set())


PASSES = {f"denoise_t{ends}" for ends in ("0_i0_s0", "1_i1_s0", "1_i1_s1", "0_i0_s1", "0_i1_s1")}
WALKS = PASSES | {"denoise_distill"}
V2V = {f"condlong_v2v_{kind}_causal" for kind in ("head", "tail", "head_easy", "tail_easy")}
MISTAKES = {
    "the sign of version 1.2": (
        [(kind, "euler_flow"), (open_sora2, "euler_flow")],
        lambda walk: lambda velocity, x, times: walk(lambda *state: -velocity(*state), x, times),
        WALKS,
    ),
    "no shift": ([(open_sora2, "schedule_shift")], lambda right: lambda tokens, frames: 1.0, WALKS | {"schedule"}),
    "a shift without frames": (
        [(open_sora2, "schedule_shift")],
        lambda right: lambda tokens, frames: right(tokens),
        WALKS | {"schedule"},
    ),
    "branches in another order": (
        [(open_sora2, "image_and_text")],
        lambda right: lambda full, image, none, *scales: right(image, full, none, *scales),
        PASSES,
    ),
    "text and image scale exchanged": (
        [(open_sora2, "image_and_text")],
        lambda right: lambda full, image, none, text, per_token: right(full, image, none, per_token, text),
        PASSES,
    ),
    "odd steps guided": (
        [(open_sora2, "oscillating"), (kind, "oscillating")],
        lambda right: lambda scale, step, forced=10: right(scale, step + 1, forced + 1),
        {"osci", "denoise_t1_i1_s0", "denoise_t1_i1_s1", "denoise_t0_i1_s1"},
    ),
    "rows of a patch before channels": (
        [(latent_tokens, "pack")],
        lambda right: lambda z, patch=2: rearrange(z, "b c t (h p) (w q) -> b (t h w) (p q c)", p=patch, q=patch),
        {"pack", "ids", *PASSES},
    ),
    "one causal frame forgotten": (
        [(open_sora2, "place_references")],
        lambda right: lambda name, z, references, causal: right(name, z, references, False),
        {name + "1" for name in V2V},
    ),
    "the tail from the first reference": (
        [(open_sora2, "place_references")],
        lambda right: lambda name, z, references, causal: right(name, z, references[:1], causal),
        {"cond_i2v_tail", "cond_i2v_loop"},
    ),
    "sizes rounded down": (
        [(latent_tokens, "whole_size")],
        lambda right: lambda height, width: (height // 16 * 16, width // 16 * 16),
        {"sanitize"},
    ),
    "width before height": (
        [(latent_tokens, "token_positions")],
        lambda right: lambda frames, rows, columns, batch: right(frames, rows, columns, batch)[..., [0, 2, 1]],
        {"ids"},
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_real_mistakes_are_seen(mistake, tmp_path, capsys, monkeypatch):
    places, wrong, cases = MISTAKES[mistake]
    write(tmp_path / "other.safetensors", **SMALL)
    for module, name in places:
        monkeypatch.setattr(module, name, wrong(getattr(module, name)))
    status, off = verdicts(tmp_path / "other.safetensors", capsys)
    assert status == 1 and {output.split("/")[0] for output in off} == cases


def test_the_path_is_that_of_version_1_2_with_another_clock():
    x0, noise = drawn(0, 2, 12, 5), drawn(1, 2, 12, 5)
    shift = open_sora2.schedule_shift(700, 6)

    def velocity(x, t):  # dx/dt, t in [0, 1]; bent, so that each time counts
        return noise - x0 + torch.sin(3 * t + x)

    walked = euler_flow(velocity, noise, open_sora2.schedule(9, 700, 6))
    flow = RectifiedFlow().sample(lambda x, t, mask: -velocity(x, t[:, None, None] / 1000), noise, 9, ratio=shift)
    torch.testing.assert_close(walked, flow, atol=1e-5, rtol=0)
    assert (walked - x0).abs().max() > 0.1


@given(st.integers(1, 60), st.integers(1, 9000), st.integers(1, 40))
def test_schedules_fall_from_noise_to_data_and_rise_with_size(steps, tokens, frames):
    levels = open_sora2.schedule(steps, tokens, frames)
    assert levels[0] == 1 and levels[-1] == 0 and len(levels) == steps + 1
    assert all(high > low for high, low in zip(levels, levels[1:], strict=False))
    for larger in (open_sora2.schedule(steps, tokens + 50, frames), open_sora2.schedule(steps, tokens, frames + 1)):
        assert all(more > less for more, less in zip(larger[1:-1], levels[1:-1], strict=True))
    even = open_sora2.schedule(steps, tokens, frames, shift=1.0)
    assert even == pytest.approx([1 - k / steps for k in range(steps + 1)], abs=1e-9)


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(texts):
    """Each third of the rows answers from its own text and from what it is given."""

    def predict(x, t, scale, condition):
        assert (scale == 4.0).all() and t.shape == scale.shape == (len(x),)
        return torch.cos(x + t[:, None, None]) + texts[:, None, None] + condition.mean(-1, keepdim=True)

    return predict


def test_films_of_a_batch_know_nothing_of_each_other():
    x, condition, texts = drawn(0, 2, 12, 5), drawn(1, 2, 12, 7), drawn(2, 3, 2)
    levels, scales = open_sora2.schedule(13, 4, 3), GuidanceScales(4.0, 2.5, True, True, True)
    both = open_sora2.sample_guided(network(texts.flatten()), x, levels, scales, condition, frames=3)
    for k in range(2):
        alone = open_sora2.sample_guided(
            network(texts[:, k]), x[k : k + 1], levels, scales, condition[k : k + 1], frames=3
        )
        torch.testing.assert_close(both[k : k + 1], alone, atol=1e-5, rtol=0)


def test_scales_of_one_are_the_prediction_from_text_and_image():
    x, condition, texts = drawn(0, 1, 12, 5), drawn(1, 1, 12, 7), drawn(2, 3)
    levels, predict = open_sora2.schedule(6, 4, 3), network(texts[:1])
    scales = GuidanceScales(4.0, 1.0)
    plain = euler_flow(lambda x, t: predict(x, torch.tensor([t]), torch.tensor([4.0]), condition), x, levels)
    given_twice = network(torch.cat([texts[:1], texts[:1], texts[2:]]))  # text changes nothing
    walked = open_sora2.sample_guided(given_twice, x, levels, scales, condition, frames=3)
    torch.testing.assert_close(walked, plain, atol=1e-5, rtol=0)
    strong = open_sora2.sample_guided(given_twice, x, levels, GuidanceScales(4.0, 3.0), condition, frames=3)
    assert (strong - plain).abs().max() > 0.1


@given(st.integers(2, 40), st.integers(2, 9), st.floats(1.25, 9))
def test_the_ramp_spares_the_first_frame_and_sinks(steps, frames, scale):
    ramps = [GuidanceScales(7.5, scale, ramp=True).at(step, steps, frames)[1] for step in range(steps)]
    assert all(ramp[0] == 1 and (ramp.diff() > 0).all() for ramp in ramps)
    peaks = torch.stack([ramp[-1] for ramp in ramps])
    assert peaks[0] == pytest.approx(scale) and (peaks.diff() < 0).all() and peaks[-1] > 1
    assert GuidanceScales(7.5, scale).at(3, steps, frames) == (7.5, pytest.approx(torch.full((frames,), scale)))
    unguided = GuidanceScales(7.5, scale, oscillate_text=True, oscillate_image=True, ramp=True).at(11, 40, frames)
    assert unguided[0] == 1 and torch.equal(unguided[1], torch.ones(frames))


@given(st.sampled_from(CONDITIONS), st.integers(1, 40), st.booleans())
def test_which_frames_are_given(name, frames, causal):
    mask = given_frames(name, frames, causal)
    length = 1 if name.startswith("i2v") else (16 if name.endswith("easy") else 8) + causal
    head = [k < length for k in range(frames)]
    expected = [False] * frames
    if frames > 1 and name != "t2v":
        ends = {"head": [head], "tail": [head[::-1]], "loop": [head, head[::-1]]}[name.split("_")[1]]
        expected = [any(places) for places in zip(*ends, strict=True)]
    assert mask.tolist() == expected


@given(st.sampled_from(CONDITIONS), st.integers(2, 30), st.booleans())
@settings(max_examples=40)
def test_given_latents_are_the_references_bit_for_bit(name, frames, causal):
    z, references = drawn(0, 3, frames, 2, 5), [drawn(1, 3, 33, 2, 5), drawn(2, 3, 31, 2, 5)]
    mask, latents = place_references(name, z, references, causal)
    given = given_frames(name, frames, causal)
    assert torch.equal(mask, given[None, :, None, None].expand_as(mask).float())
    assert not latents[:, ~given].any()
    for k in given.nonzero().flatten().tolist():
        from_head = torch.equal(latents[:, k], references[0][:, k])
        from_tail = torch.equal(latents[:, k], references[-1][:, 31 - frames + k])
        assert from_tail if "tail" in name or (name == "i2v_loop" and k == frames - 1) else from_head


def test_noised_references_end_as_noise():
    reference, noise, mask = drawn(0, 2, 3, 4, 2, 5), drawn(1, 2, 3, 4, 2, 5), torch.tensor([1.0, 0, 0, 1])
    over = mask[:, None, None]
    assert torch.equal(open_sora2.noised_references(reference, over, noise, 0.0), reference * over)
    last = open_sora2.noised_references(reference, over, noise, 1.0)
    torch.testing.assert_close(last, (noise + 1e-5 * reference) * over, atol=1e-6, rtol=0)


@given(st.tuples(*[st.integers(1, 4)] * 5), st.integers(1, 3))
def test_tokens_and_back(sizes, patch):
    batch, channels, frames, rows, columns = sizes
    z = drawn(0, batch, channels, frames, rows * patch, columns * patch)
    tokens = latent_tokens.pack(z, patch)
    assert tokens.shape == (batch, frames * rows * columns, channels * patch**2)
    for off in (0, 15):
        height, width = 16 * rows - off, 16 * columns - off
        assert torch.equal(latent_tokens.unpack(tokens, height, width, frames, patch), z)
        assert latent_tokens.whole_size(height, width) == (16 * rows, 16 * columns)
    grid = torch.cartesian_prod(*map(torch.arange, (frames, rows, columns))).reshape(frames, rows, columns, 3)
    located = grid.permute(3, 0, 1, 2).repeat_interleave(patch, 2).repeat_interleave(patch, 3)[None].float()
    positions = latent_tokens.token_positions(frames, rows, columns)
    assert torch.equal(latent_tokens.pack(located, patch)[..., :: patch**2], positions)


@given(st.integers(64, 1500), st.sampled_from(("px", "p")), st.sampled_from(latent_tokens.RATIOS))
def test_named_sizes_fit_and_turn_round(side, unit, ratio):
    height, width = latent_tokens.named_size(f"{side}{unit}", ratio)
    pixels = latent_tokens.pixel_count(f"{side}{unit}")
    assert height % 16 == width % 16 == 0 and 0 < height * width <= pixels
    assert (height + 16) * (width + 16) > pixels
    reverse = ":".join(ratio.split(":")[::-1])
    if reverse in latent_tokens.RATIOS:  # 16:9 and 9:16 each come from the other: both are there
        return
    assert latent_tokens.named_size(f"{side}{unit}", reverse) == (width, height)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: given_frames("i2v", 5), "condition 'i2v': expected one of t2v"),
        (lambda: place_references("i2v_head", drawn(0, 3, 5, 2, 2), []), "reference None: expected latents"),
        (lambda: place_references("v2v_tail", drawn(0, 3, 20, 2, 2), [drawn(0, 3, 8, 2, 2)]), "at least 9"),
        (lambda: place_references("i2v_loop", drawn(0, 3, 5, 2, 2), [drawn(0, 3, 1, 2, 4)]), r"\(3, 1, 2, 4\)"),
        (lambda: open_sora2.schedule(0, 256), "0 steps"),
        (lambda: open_sora2.schedule(5, 0), "0 tokens"),
        (lambda: latent_tokens.unpack(drawn(0, 1, 7, 4), 32, 32, 2), "7 tokens: expected 2 frames of 2 x 2"),
        (lambda: latent_tokens.named_size("256", "16:9"), "resolution '256'"),
        (lambda: latent_tokens.named_size("256px", "7:3"), "ratio '7:3'"),
        (lambda: latent_tokens.named_size("9px", "1:1"), "narrower than a token"),
        (lambda: latent_tokens.named_size("22px", "2.39:1"), "narrower than a token"),
        (
            lambda: open_sora2.sample_guided(None, drawn(0, 1, 7, 4), [1, 0], GuidanceScales(), drawn(1, 1, 7, 4), 2),
            "7 tokens",
        ),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
