import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivdm.diffusion.guidance import image_and_text, oscillating
from minivdm.diffusion.masks import KINDS, apply_mask_strategy, training_mask
from minivdm.diffusion.rectified_flow import RectifiedFlow, open_sora_latent_frames, shift_ratio
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.vae.autoencoder2d import AutoEncoder2D
from minivdm.vae.temporal import VAE_TEMPORAL_SD, TemporalVAE
from minivdm.vae.video import VideoAutoencoder

SHAPE = (2, 3, 5, 4, 6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(seed, *shape):
    return torch.randn(*(shape or SHAPE), generator=generator(seed))


def toy_vae():
    vae2d, temporal = (checkpoint_dir(f"toy/{name}") for name in ("vae2d", "temporal_vae"))
    return VideoAutoencoder(AutoEncoder2D.from_pretrained(vae2d), TemporalVAE.from_pretrained(temporal))


def full_size_vae(micro_frame_size=None):
    with torch.device("meta"):
        vae2d, temporal = AutoEncoder2D(), TemporalVAE(VAE_TEMPORAL_SD)
    return VideoAutoencoder(vae2d, temporal, micro_frame_size)


def latent_frames(vae, frames=range(1, 35)):
    return [vae.get_latent_size((count, None, None))[0] for count in frames]


@pytest.fixture(
    scope="module", params=[toy_vae, full_size_vae, lambda: full_size_vae(17)], ids=["toy", "full", "pieces"]
)
def vae(request):
    return request.param()


def test_no_clip_length_collapses_the_times(vae):
    t = torch.linspace(0, 1000, 41, dtype=torch.float64)
    for length in latent_frames(vae):
        for height, width in ((32, 32), (144, 256), (720, 1280)):
            shifted = RectifiedFlow().shift(t, shift_ratio(height, width, length))
            inside = shifted[1:-1]
            assert shifted[0] == 0 and shifted[-1] == pytest.approx(1000, abs=1e-3)
            assert ((0 < inside) & (inside < 1000)).all() and (shifted.diff() > 0).all()
            drawn_times = RectifiedFlow().sample_t(50, shift_ratio(height, width, length), generator())
            assert ((0 < drawn_times) & (drawn_times < 1000)).all() and len(drawn_times.unique()) > 45


def test_longer_clips_move_the_times_further(vae):
    lengths = latent_frames(vae)
    assert lengths == sorted(lengths) and lengths[-1] > lengths[0]
    t = torch.linspace(50, 950, 7)
    moved = [RectifiedFlow().shift(t, shift_ratio(144, 256, length)) for length in lengths]
    for (short, less), (long, more) in pairwise(zip(lengths, moved, strict=True)):
        assert (more > less).all() if long > short else torch.equal(more, less)


@given(
    frames=st.integers(1, 34),
    size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    times=st.lists(st.floats(1, 999), min_size=2, max_size=2, unique=True),
    more=st.integers(1, 100),
)
def test_times_stay_inside_for_any_size(vae, frames, size, times, more):
    (height, width), (length,) = size, latent_frames(vae, [frames])
    early, late = RectifiedFlow().shift(torch.tensor(sorted(times)).double(), shift_ratio(height, width, length))
    assert 0 < early <= late < 1000
    for larger in (shift_ratio(height + more, width, length), shift_ratio(height, width + more, length)):
        assert early < RectifiedFlow().shift(torch.tensor(min(times)).double(), larger) < 1000


def test_the_length_of_version_1_2_collapses_short_clips():
    """The VAE's own length agrees with it where both make sense: on whole pieces of 17 frames, and on pictures."""
    counted = [int(open_sora_latent_frames(torch.tensor([frames]))) for frames in range(1, 35)]
    assert counted == [1] + [0] * 15 + [5] * 17 + [10]
    own = latent_frames(full_size_vae(17))
    assert [own[k] for k in (0, 16, 33)] == [1, 5, 10] and min(own) == 1
    t = torch.linspace(0, 999, 8)
    for frames in range(2, 17):
        collapsed = RectifiedFlow().shift(t, torch.tensor(float(counted[frames - 1])))
        assert torch.equal(collapsed, torch.zeros(8))
        with pytest.raises(UserError, match="latent frames"):
            shift_ratio(64, 48, open_sora_latent_frames(torch.tensor([frames])))
    whole_batch = open_sora_latent_frames(torch.tensor([1, 5, 40]))  # the first one decides: all are pictures
    assert whole_batch.tolist() == [1, 1, 1]


@pytest.mark.parametrize("method", ["euler", "midpoint"])
@pytest.mark.parametrize("steps", [1, 7])
def test_straight_paths_are_exact(method, steps):
    x0, z = drawn(0), drawn(1)
    out = RectifiedFlow().sample(lambda x, t, mask: x0 - z, z, steps, method, ratio=2.5)
    torch.testing.assert_close(out, x0, atol=1e-5, rtol=0)


@pytest.mark.parametrize("ratio", [None, 2.0])
@pytest.mark.parametrize(("method", "gain"), [("euler", 2), ("midpoint", 4)])
def test_error_when_steps_double(method, gain, ratio):
    """dx/ds = cos(s) x for s = 1 - t/1000 ends at x exp(sin 1): Euler is of first order, midpoint of second."""
    z = drawn(1).double()

    def error(steps):
        def velocity(x, t, mask):
            return torch.cos(1 - t.double() / 1000)[:, None, None, None, None] * x

        return (RectifiedFlow().sample(velocity, z, steps, method, ratio) - z * math.exp(math.sin(1))).abs().max()

    assert error(32) / error(64) == pytest.approx(gain, rel=0.1)
    assert error(16) / error(32) == pytest.approx(gain, rel=0.15)


def test_midpoint_is_closer_at_equal_cost():
    z = drawn(1)

    def error(method, steps):
        out = RectifiedFlow().sample(lambda x, t, mask: -x, z, steps, method)
        return (out - z * math.exp(-1)).abs().max()

    assert error("midpoint", 8) < error("euler", 16) / 4


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


@given(ratio=st.floats(0.02, 0.98), steps=st.integers(1, 9), method=st.sampled_from(["euler", "midpoint"]))
def test_edit_ratios_keep_a_frame_until_the_noise_has_fallen_to_them(ratio, steps, method):
    z, noises = drawn(1, 1, 2, 3, 2, 2), drawn(2, steps, 1, 2, 3, 2, 2)
    flow, mask, seen = RectifiedFlow(), torch.tensor([[1.0, ratio, 0.0]]), []

    def velocity(x, t, open_now):
        seen.append((t.item(), open_now[0].tolist(), x))
        return torch.cos(x)

    out = flow.sample(velocity, z, steps, method, mask=mask, noises=noises)
    evaluations = 1 if method == "euler" else 2
    opened = False
    for k, (t, open_now, x) in enumerate(seen[::evaluations]):
        assert open_now == [True, (mask[0, 1] * 1000 >= t).item(), False]
        assert torch.equal(x[:, :, 2], z[:, :, 2])
        if not open_now[1]:
            assert torch.equal(x[:, :, 1], z[:, :, 1])
        elif not opened:
            at = flow.add_noise(z, noises[k], torch.tensor([t]))
            assert torch.equal(x[:, :, 1], at[:, :, 1])
        opened = open_now[1]
    assert opened == (ratio >= 1 / steps) or ratio == pytest.approx(1 / steps)
    assert torch.equal(out[:, :, 1], z[:, :, 1]) != opened
    assert torch.equal(out[:, :, 2], z[:, :, 2]) and not torch.equal(out[:, :, 0], z[:, :, 0])


def of_a_gaussian(mean, deviation):
    """The exact velocity where data are normal, each number for itself."""

    def velocity(x, t, mask):
        u = (t / 1000).reshape(-1, 1, 1, 1, 1)
        pull = (x - (1 - u) * mean) / ((1 - u) ** 2 * deviation**2 + u**2)
        return mean + (1 - u) * deviation**2 * pull - u * pull

    return velocity


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_renewed_noise_leads_to_the_same_data_by_another_way(eta):
    start = drawn(5, 40, 3, 5, 4, 7)
    made = RectifiedFlow().sample(of_a_gaussian(0.7, 0.3), start, 400, generator=generator(6), eta=eta)
    assert made.mean().item() == pytest.approx(0.7, abs=0.01)
    assert made.std().item() == pytest.approx(0.3, rel=0.03)
    alike = torch.corrcoef(torch.stack([start.flatten(), made.flatten()]))[0, 1].item()
    low, high = {0.0: (0.999, 1.001), 0.5: (0.1, 0.9), 1.0: (-0.05, 0.05)}[eta]
    assert low < alike < high


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_renewing_leaves_given_frames_alone_and_repeats(method):
    z, mask = drawn(7, 2, 3, 4, 5, 6), torch.tensor([[0.0, 1, 1, 1], [1, 1, 0.0, 1]])
    walk = [
        RectifiedFlow().sample(of_a_gaussian(0.2, 0.5), z, 6, method, mask=mask, generator=generator(seed), eta=1.0)
        for seed in (1, 1, 2)
    ]
    given = (mask == 0)[:, None, :, None, None].expand_as(z)
    assert torch.equal(walk[0], walk[1]) and all(torch.equal(each[given], z[given]) for each in walk)
    assert (walk[0] - walk[2])[~given].abs().min() > 0
    crowded = RectifiedFlow().sample(of_a_gaussian(0.2, 0.5), z[:, :1, :1], 2100, discrete=True, eta=1.0)
    assert crowded.isfinite().all(), "two times of 1000 in a row"
    with pytest.raises(UserError, match="eta is 1.5: expected a share from 0 to 1"):
        RectifiedFlow().sample(of_a_gaussian(0.2, 0.5), z, 6, eta=1.5)


@pytest.mark.parametrize("size", [(32, 32, 5), (16, 16, 3), (144, 256, 5), (512, 496, 7)])
@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_a_mask_that_generates_all_frames_changes_nothing(size, method):
    z, ratio, flow = drawn(1), shift_ratio(*size), RectifiedFlow()
    plain, masked = (
        flow.sample(lambda x, t, m: torch.cos(x), z, 4, method, ratio, mask=mask) for mask in (None, torch.ones(2, 5))
    )
    assert torch.equal(plain, masked)


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
