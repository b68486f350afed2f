import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minivdm.errors import UserError
from minivdm.vae import CausalConv3d, pad_at_dim


def conv_of(kernel, stride, dilation, pad_mode="constant"):
    torch.manual_seed(0)
    return CausalConv3d(2, 3, kernel, pad_mode, stride=stride, dilation=dilation)


kernels = st.sampled_from([1, 3, 5, (3, 1, 1), (1, 3, 5), (2, 3, 1), (4, 1, 3)])


@given(kernels, st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 10))
@settings(max_examples=25, deadline=None)
def test_output_frames_depend_on_the_past_only(kernel, stride, dilation, groups_of_frames, later):
    conv = conv_of(kernel, stride, dilation)
    frames = groups_of_frames * stride
    x = torch.randn(2, 2, frames, 4, 5, requires_grad=True)
    y = conv(x)
    assert y.shape == (2, 3, groups_of_frames, 4, 5)
    which = later % groups_of_frames
    (gradient,) = torch.autograd.grad(y[:, :, which].sum(), x)
    seen = gradient.abs().amax((0, 1, 3, 4)) > 0
    newest = which * stride + stride - 1  # an output of stride 2 has seen the pair that it stands for
    assert seen[newest] and not seen[newest + 1 :].any()


@given(
    kernels,
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from(["constant", "replicate"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
)
@settings(max_examples=12, deadline=None)
def test_in_pieces_as_in_one(kernel, stride, dilation, pad_mode, lengths):
    conv = conv_of(kernel, stride, dilation, pad_mode)
    lengths = [stride, *(stride * length for length in lengths)]
    lengths = [length for length in lengths if length]
    x, tails = torch.randn(2, 2, sum(lengths), 4, 5), {}
    pieces = [conv(piece, tails) for piece in x.split(lengths, dim=2)]
    torch.testing.assert_close(torch.cat(pieces, dim=2), conv(x), atol=1e-6, rtol=0)


def test_the_front_is_padded_like_the_modes_of_torch():
    conv = conv_of(3, 1, 1, "reflect")
    x = torch.randn(2, 2, 5, 4, 6)
    expected = F.conv3d(F.pad(x, (1, 1, 1, 1, 2, 0), mode="reflect"), conv.conv.weight, conv.conv.bias)
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("dim", range(-5, 5))
def test_pad_at_dim_is_torchs_pad_of_that_axis(dim):
    x = torch.randn(2, 3, 5, 4, 6)
    y = pad_at_dim(x, (2, 1), dim)
    assert y.shape[dim] == x.shape[dim] + 3 and torch.equal(y.narrow(dim, 2, x.shape[dim]), x)
    assert (y != 0).sum() == (x != 0).sum()


def test_an_odd_last_frame_is_ignored_by_stride_2():
    conv = conv_of(3, 2, 1)
    x = torch.randn(1, 2, 5, 4, 4)
    assert torch.equal(conv(x), conv(x[:, :, :4]))
    with pytest.raises(UserError, match="a piece of 5 frames: send a multiple of 2"):
        conv(x, {})


@pytest.mark.parametrize("kernel", [(3, 2, 3), (3, 3, 4), 2])
def test_even_kernels_in_space_are_refused(kernel):
    with pytest.raises(AssertionError, match="height and width must be odd"):
        CausalConv3d(2, 3, kernel)


@given(
    kernels, st.integers(1, 3), st.sampled_from([(1, 1, 1), (2, 1, 1), (3, 2, 1)]), st.booleans(), st.integers(1, 3)
)
@settings(max_examples=40, deadline=None)
def test_in_2d_as_in_3d(kernel, dilation, strides, bias, batch):
    """Small clips are convolved in 2D: the same numbers, and the same gradients."""
    torch.manual_seed(1)
    conv = CausalConv3d(2, 5, kernel, strides=strides, dilation=dilation, bias=bias).double()
    x = torch.randn(batch, 2, conv.time_pad + 7, 4, 6, dtype=torch.float64, requires_grad=True)
    flat, deep = conv._in_2d(x), conv.conv(x)
    torch.testing.assert_close(flat, deep, rtol=1e-12, atol=1e-12)
    weights = [x, *conv.parameters()]
    for one, other in zip(*(torch.autograd.grad(y.square().sum(), weights) for y in (flat, deep)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("rows", "in_2d"), [(20_480 // (2 * 5), True), (20_480 // (2 * 5) + 1, False)])
def test_only_small_clips_are_convolved_in_2d(monkeypatch, rows, in_2d):
    conv, called = CausalConv3d(2, 3, (1, 3, 1)), []
    monkeypatch.setattr(conv, "_in_2d", lambda x: called.append(x) or x)
    conv(torch.randn(1, 2, 5, rows, 1))
    assert bool(called) == in_2d
