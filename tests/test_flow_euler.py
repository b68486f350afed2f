import pytest
import torch

from minivdm.diffusion.flow_euler import euler_flow, flow_mix, flow_sigmas, shift_sigma
from minivdm.errors import UserError

SHAPE = (3, 2, 5, 4, 6)  # B C T H W


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(shape or SHAPE, generator=generator, dtype=torch.float64)


def test_shifted_sigmas_keep_their_ends():
    assert flow_sigmas(4, smallest=0.25) == [1.0, 0.75, 0.5, 0.25, 0.0]
    shifted = flow_sigmas(4, shift=3.0, smallest=0.25)
    assert shifted == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])
    assert [shift_sigma(s, 1 / 3) for s in shifted] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_euler_is_exact_on_straight_paths(generator):
    x0, noise = normal(generator), normal(generator)
    seen = []
    x = euler_flow(
        lambda x, sigma: noise - x0, noise, flow_sigmas(5, shift=2.0), callback=lambda *state: seen.append(state)
    )
    torch.testing.assert_close(x, x0)
    for _, sigma, state in seen:
        torch.testing.assert_close(state, flow_mix(x0, noise, sigma))
    assert [k for k, _, _ in seen] == list(range(5)) and [sigma for _, sigma, _ in seen] == flow_sigmas(5, 2.0)[1:]


def test_euler_is_first_order():
    """dx/dsigma = x grows by e from 0 to 1; walked back from e it ends at 1."""
    start = torch.full((3, 2), torch.e, dtype=torch.float64)
    coarse, fine = (euler_flow(lambda x, s: x, start, flow_sigmas(n, smallest=1 / n)) for n in (50, 100))
    assert 1.8 < ((coarse - 1) / (fine - 1)).max() < 2.2
    seen = []
    euler_flow(lambda x, sigma: seen.append(sigma) or x, start, [1.0, 0.6, 0.1])
    assert seen == [1.0, 0.6]


def test_impossible_schedules_are_named():
    with pytest.raises(UserError, match="0 steps"):
        flow_sigmas(0)
    with pytest.raises(UserError, match="shift 0"):
        flow_sigmas(3, shift=0)
