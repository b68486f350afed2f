import pytest
import torch

from minivdm.diffusion.guidance import image_and_text, oscillating
from minivdm.diffusion.masks import KINDS, apply_mask_strategy, training_mask
from minivdm.diffusion.rectified_flow import RectifiedFlow, open_sora_latent_frames, shift_ratio
from minivdm.errors import UserError

SHAPE = (2, 3, 5, 4, 6)


def drawn(seed, *shape):
    return torch.randn(*(shape or SHAPE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("frames", range(1, 35))
def test_no_clip_length_collapses_the_times(frames):
    latent_frames = (frames + 3) // 4
    t = torch.linspace(0, 1000, 7)
    shifted = RectifiedFlow().shift(t, shift_ratio(64, 48, latent_frames))
    assert shifted.isfinite().all() and (shifted.diff() > 0).all() and shifted[-1] == pytest.approx(1000)


def test_a_length_of_zero_is_refused():
    with pytest.raises(UserError, match="latent frames"):
        shift_ratio(64, 48, open_sora_latent_frames(torch.tensor([9])))


@pytest.mark.parametrize("method", ["euler", "midpoint"])
@pytest.mark.parametrize("steps", [1, 7])
def test_straight_paths_are_exact(method, steps):
    x0, z = drawn(0), drawn(1)
    out = RectifiedFlow().sample(lambda x, t, mask: x0 - z, z, steps, method, ratio=2.5)
    torch.testing.assert_close(out, x0, atol=1e-5, rtol=0)


def test_midpoint_is_closer_on_a_curved_field_and_both_converge():
    z = drawn(1)

    def error(method, steps):
        out = RectifiedFlow().sample(lambda x, t, mask: -x, z, steps, method)
        return (out - z * torch.exp(torch.tensor(-1.0))).abs().max()

    assert error("midpoint", 8) < error("euler", 16) / 4
    assert error("euler", 400) < 3e-3 and error("midpoint", 40) < 3e-4


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_kept_frames_are_untouched_and_seeds_repeat(method):
    z, mask = drawn(1), torch.tensor([[0.0, 1, 0.5, 1, 0], [1, 1, 0, 0.3, 1]])
    flow = RectifiedFlow()

    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return flow.sample(lambda x, t, m: torch.cos(x), z, 6, method, mask=mask, generator=generator)

    out = run(3)
    kept, generated = (mask == 0)[:, None, :, None, None].expand(SHAPE), (mask > 0)[:, None, :, None, None]
    assert torch.equal(out[kept], z[kept])
    assert (out != z)[generated.expand(SHAPE)].all()
    assert torch.equal(out, run(3)) and not torch.equal(out, run(4))


def test_masked_frames_are_clean_and_do_not_count():
    x0, noise, t = drawn(0), drawn(1), torch.tensor([300.0, 900.0])
    mask = torch.tensor([[True, False, True, True, False], [False] * 5])

    def velocity(x, t, m):
        given = ~m[:, None, :, None, None].expand(SHAPE)
        assert torch.equal(x[given], x0[given])
        return torch.where(given, 100.0, x0 - noise)

    assert torch.equal(RectifiedFlow().loss(velocity, x0, t, noise, mask), torch.zeros(2))


def test_drawn_times():
    generator = torch.Generator().manual_seed(0)
    for kind, deviation in (("uniform", 288.7), ("logit-normal", 208.0)):
        t = RectifiedFlow(kind).sample_t(20000, generator=generator)
        assert t.min() >= 0 and t.max() <= 1000
        assert t.mean() == pytest.approx(500, abs=8) and t.std() == pytest.approx(deviation, abs=6)
    assert RectifiedFlow().sample_t(5000, 3.0, generator).mean() > 600


def test_guidance():
    full, image, none = drawn(0), drawn(1), drawn(2)
    torch.testing.assert_close(image_and_text(full, image, none, 1.0, 1.0), full)
    assert torch.equal(image_and_text(full, image, none, 0.0, 0.0), none)
    torch.testing.assert_close(image_and_text(full, image, none, 4.0, 1.0), image + 4 * (full - image))
    assert [oscillating(7.5, step) for step in (0, 9, 10, 11, 12)] == [7.5, 7.5, 7.5, 1.0, 7.5]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 2, 3, 9])
def test_training_masks(kind, frames):
    mask = training_mask(kind, frames, torch.Generator().manual_seed(0))
    assert mask.shape == (frames,) and mask.dtype == torch.bool
    assert mask.all() == (frames == 1 or kind == "identity")


@pytest.mark.parametrize("strategy", ["a", "0,3", "0,0,0,9", "0,0,0,0,0", "0,0,0,0,1,2", "0,0,0,0,1,0,0"])
def test_unreadable_strategies_are_one_line(strategy):
    with pytest.raises(UserError, match="mask strategy") as caught:
        apply_mask_strategy(torch.zeros(2, 5, 1, 1), [torch.ones(2, 3, 1, 1)], strategy)
    assert "\n" not in str(caught.value)
