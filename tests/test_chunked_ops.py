import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from minivdm.errors import UserError
from minivdm.vae import (
    PadConv3D,
    chunked_avg_pool1d,
    chunked_interpolate,
    chunked_ops,
    pad_for_conv3d,
    pad_for_conv3d_kernel_3x3x3,
)

few = settings(deadline=None, max_examples=30)


def padded(x, width, height, time):
    x = F.pad(x, (width, width, height, height, 0, 0))
    return torch.cat([x[:, :, :1]] * time + [x] + [x[:, :, -1:]] * time, dim=2)


@few
@given(st.tuples(*[st.integers(0, 3)] * 3), st.integers(1, 6), st.integers(1, 5000), st.booleans())
def test_padding_is_zeros_in_space_and_repetition_in_time(amounts, channels, limit, with_gradient):
    x = torch.randn(2, channels, 3, 4, 5, requires_grad=with_gradient)
    y = pad_for_conv3d(x, *amounts, numel_limit=limit)
    assert torch.equal(y, padded(x, *amounts))
    if with_gradient:
        weights = torch.randn_like(y)
        ours, theirs = (torch.autograd.grad((out * weights).sum(), x)[0] for out in (y, padded(x, *amounts)))
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_padding_for_a_kernel_of_three_whole_and_in_chunks():
    x = torch.randn(2, 6, 3, 4, 5)
    whole = pad_for_conv3d_kernel_3x3x3(x)
    assert whole.shape == (2, 6, 5, 6, 7)
    assert torch.equal(whole[:, :, 0, 1:-1, 1:-1], x[:, :, 0]) and torch.equal(whole[:, :, -1], whole[:, :, -2])
    assert all(torch.equal(pad_for_conv3d_kernel_3x3x3(x, numel_limit=limit), whole) for limit in (1, 500, 10**6))


def test_compilation_is_asked_for_and_never_by_default(monkeypatch):
    """Traced whole, without a break; the compiler's own work (minutes, and a C++ compiler) is left out."""
    asked, compile = [], torch.compile

    def trace_only(function, **options):
        asked.append(options)
        return compile(function, backend="eager", fullgraph=True, dynamic=True)

    monkeypatch.setattr(torch, "compile", trace_only)
    chunked_ops._compiled_pad.cache_clear()
    x = torch.randn(1, 2, 3, 4, 5)
    plain = pad_for_conv3d_kernel_3x3x3(x)
    assert not asked
    assert torch.equal(pad_for_conv3d_kernel_3x3x3(x, compile=True), plain)
    assert asked == [{"mode": "max-autotune-no-cudagraphs", "dynamic": True}]
    chunked_ops._compiled_pad.cache_clear()


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_pad_conv_keeps_the_size(kernel):
    torch.manual_seed(0)
    whole, cut = PadConv3D(4, 6, kernel), PadConv3D(4, 6, kernel, numel_limit=200)
    cut.load_state_dict(whole.state_dict())
    assert set(whole.state_dict()) == {"conv.weight", "conv.bias"}
    x = torch.randn(2, 4, 3, 5, 7)
    margin = kernel // 2
    expected = F.conv3d(padded(x, margin, margin, margin), whole.conv.weight, whole.conv.bias)
    for layer in (whole, cut):
        assert layer(x).shape == (2, 6, 3, 5, 7) and torch.allclose(layer(x), expected, atol=1e-5)


@pytest.mark.parametrize("limit", [1, 700, 10**6])
def test_resizing_and_pooling_are_exactly_the_plain_ones(limit):
    x = torch.randn(2, 6, 4, 5, 6)
    assert torch.equal(chunked_interpolate(x, 2.0, numel_limit=limit), F.interpolate(x, scale_factor=2.0))
    wider = chunked_interpolate(x, (1.0, 2.0, 2.0), "trilinear", numel_limit=limit)
    assert torch.equal(wider, F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="trilinear"))
    flat = x.flatten(2)
    assert torch.equal(chunked_avg_pool1d(flat, 4, numel_limit=limit), F.avg_pool1d(flat, 4))
    assert torch.equal(chunked_avg_pool1d(flat, 3, 2, numel_limit=limit), F.avg_pool1d(flat, 3, 2))


def test_impossible_settings_are_one_line():
    with pytest.raises(UserError, match="odd one is needed"):
        PadConv3D(2, 3, 4)
    with pytest.raises(UserError, match="numel_limit is 0"):
        pad_for_conv3d_kernel_3x3x3(torch.zeros(1, 2, 3, 4, 5), numel_limit=0)
