import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from minivdm.errors import UserError
from minivdm.vae import CONV3D_NUMEL_LIMIT, ChannelChunkConv3D, chunk_convolutions
from minivdm.vae.chunked_conv import ceil_to_divisible, conv3d_in_chunks, conv3d_output_numel, num_chunks

few = settings(deadline=None, max_examples=60)
sizes = st.integers(1, 3)


@pytest.fixture
def calls(monkeypatch):
    """Every F.conv3d: elements read and written, and channels on both sides."""
    seen, convolve = [], F.conv3d

    def spy(x, weight, *args, **options):
        y = convolve(x, weight, *args, **options)
        seen.append((x.numel(), y.numel(), weight.shape[1], weight.shape[0]))
        return y

    monkeypatch.setattr(F, "conv3d", spy)
    return seen


@st.composite
def convolutions(draw):
    """Arguments of nn.Conv3d, and an input of a size that every padding mode accepts."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels = [groups * draw(st.integers(1, 7)) for _ in range(2)]
    kernel = tuple(draw(sizes) for _ in range(3))
    padding = draw(st.sampled_from(["same", "valid", 0, 1, (0, 1, 2)]))
    named = isinstance(padding, str)
    options = {
        "stride": 1 if named else tuple(draw(st.integers(1, 2)) for _ in range(3)),
        "padding": padding,
        "dilation": tuple(draw(st.integers(1, 2)) for _ in range(3)),
        "groups": groups,
        "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"])),
    }
    shape = (draw(st.integers(1, 2)), channels[0], 5, 6, 7)
    return (*channels, kernel), options, shape


def with_values_and_gradients(conv, x):
    x = x.clone().requires_grad_()
    y = conv(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    found = torch.autograd.grad((y * weights).sum(), [x, *conv.parameters()])
    with torch.no_grad():
        assert torch.allclose(conv(x), y, rtol=1e-12, atol=1e-12)  # another path: every chunk into its place
    return y, *found


@few
@given(convolutions(), st.integers(1, 3000), st.integers(0, 99))
def test_equal_to_the_plain_convolution_in_values_and_gradients(convolution, limit, seed):
    arguments, options, shape = convolution
    torch.manual_seed(seed)
    plain = nn.Conv3d(*arguments, **options, dtype=torch.float64)
    chunked = ChannelChunkConv3D(*arguments, **options, dtype=torch.float64, numel_limit=limit)
    chunked.load_state_dict(plain.state_dict())
    x = torch.randn(shape, dtype=torch.float64)
    expected = with_values_and_gradients(plain, x)
    for ours, theirs in zip(with_values_and_gradients(chunked, x), expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert (ours - theirs).abs().max() <= 1e-12 * max(1, theirs.abs().max())
    read, written = chunked.geometry.numel(shape, arguments[1])
    assert written == plain(x).numel() == chunked(x).numel()
    if options["padding_mode"] != "zeros":
        assert read == F.pad(x, plain._reversed_padding_repeated_twice).numel()


@few
@given(convolutions(), st.integers(1, 3000))
def test_no_small_convolution_passes_the_limit_while_it_could_be_cut(convolution, limit):
    arguments, options, shape = convolution
    conv = ChannelChunkConv3D(*arguments, **options, numel_limit=limit)
    with pytest.MonkeyPatch.context() as patch:
        seen, convolve = [], F.conv3d

        def spy(x, weight, *args, **options):
            y = convolve(x, weight, *args, **options)
            seen.append((x.numel(), x.shape[1], y.numel(), y.shape[1]))
            return y

        patch.setattr(F, "conv3d", spy)
        conv(torch.randn(shape))
    for read, channels_in, written, channels_out in seen:
        assert read <= limit or channels_in == 1
        assert written <= limit or channels_out == 1


def test_below_the_limit_it_is_one_plain_convolution_to_the_last_bit(calls):
    x = torch.randn(2, 6, 4, 5, 7)
    plain, chunked = nn.Conv3d(6, 8, 3, padding=1), ChannelChunkConv3D(6, 8, 3, padding=1)
    chunked.load_state_dict(plain.state_dict())
    assert chunked.numel_limit == CONV3D_NUMEL_LIMIT == 2_147_483_648
    assert torch.equal(chunked(x), plain(x)) and len(calls) == 2
    chunked.numel_limit = 2 * 8 * 4 * 5 * 7  # exactly what it writes
    assert torch.equal(chunked(x), plain(x)) and len(calls) == 4
    chunked.numel_limit -= 1
    chunked(x)
    assert len(calls) == 4 + 2


def test_a_large_output_of_a_small_input_is_cut_as_well(calls):
    """The published gate looks at the input of one sample, and lets an output of 32 times the limit pass whole."""
    x = torch.randn(1, 1, 4, 5, 7)
    ours = ChannelChunkConv3D(1, 32, 3, padding=1, numel_limit=x.numel())
    theirs = ChannelChunkConv3D(1, 32, 3, padding=1, numel_limit=x.numel() + 1, gate="upstream")
    ours(x)
    assert len(calls) == 32
    theirs(x)
    assert len(calls) == 33


@pytest.mark.parametrize("gate", ["both", "upstream"])
def test_more_chunks_than_channels_and_no_bias(gate):
    """Three channels, asked for in ten chunks, without a bias: two crashes of the published class."""
    x = torch.randn(2, 3, 4, 5, 6)
    conv = ChannelChunkConv3D(3, 2, 3, bias=False, numel_limit=x.numel() // 10, gate=gate)
    assert torch.allclose(conv(x), F.conv3d(x, conv.weight), atol=1e-5)


def test_a_clip_without_batch_and_channels_last():
    conv = ChannelChunkConv3D(4, 6, 3, padding=1, numel_limit=300)
    plain = nn.Conv3d(4, 6, 3, padding=1)
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(4, 5, 6, 7)
    assert conv(x).shape == (6, 5, 6, 7) and torch.allclose(conv(x), plain(x), atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(conv(x), plain(x), atol=1e-5)
        last = x[None].to(memory_format=torch.channels_last_3d)
        assert torch.allclose(conv(last), plain(last), atol=1e-5)
        assert conv(last).stride() == plain(last).stride()


def test_half_precision_is_summed_in_float32():
    """Thirty-two sums in bfloat16 would lose a digit; in float32 the error stays that of a single rounding or two."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 64, 4, 6, 6).bfloat16(), torch.randn(4, 64, 3, 3, 3).bfloat16()
    exact = F.conv3d(x.double(), weight.double())
    chunked = conv3d_in_chunks(x, weight, None, 32, 1)
    naive = sum(F.conv3d(a, w) for a, w in zip(x.chunk(32, 1), weight.chunk(32, 1), strict=True))
    error, naive_error = ((y.double() - exact).square().mean().sqrt() for y in (chunked, naive))
    assert chunked.dtype == torch.bfloat16 and error < 0.75 * naive_error


@few
@given(st.integers(1, 40), st.integers(1, 40))
def test_ceil_to_divisible_divides(n, channels):
    count = ceil_to_divisible(n, channels)
    assert channels % count == 0 and count >= min(n, channels)
    assert not any(channels % smaller == 0 for smaller in range(min(n, channels), count))
    if n <= channels:
        assert ceil_to_divisible(n, channels, divide=False) == math.ceil(channels / (channels // n)) >= n


def test_the_published_count_often_does_not_divide():
    """Section 3 of the course's list of traps: 547 of the 2080 pairs up to 64."""
    pairs = [(n, channels) for channels in range(1, 65) for n in range(1, channels + 1)]
    bad = [pair for pair in pairs if pair[1] % ceil_to_divisible(*pair, divide=False)]
    assert len(pairs) == 2080 and len(bad) == 547 and (5, 16) in bad


@few
@given(st.integers(0, 10**4), st.integers(1, 40), st.integers(1, 10**4))
def test_num_chunks_keeps_to_the_limit(per_channel, channels, limit):
    count = num_chunks(per_channel * channels, channels, limit)
    assert channels % count == 0
    assert per_channel * channels // count <= limit or count == channels
    assert num_chunks(2**53 + 2, 2**20, 2**52 + 1) == 2  # whole numbers all the way: no float rounds


def test_output_numel_counts_what_is_written():
    shape, kernel, stride, padding, dilation = (2, 3, 7, 9, 12), (3, 2, 4), (2, 1, 3), (1, 0, 2), (1, 3, 2)
    y = F.conv3d(torch.zeros(shape), torch.zeros(5, 3, *kernel), None, stride, padding, dilation)
    assert conv3d_output_numel(shape, 5, kernel, stride, padding, dilation) == y.numel()


def test_the_true_limit_without_the_memory():
    """2³¹ elements, 4 GiB or 16 of them, depending on the type; only their number counts."""
    conv = ChannelChunkConv3D(128, 128, 3, padding=1, device="meta", dtype=torch.bfloat16)
    shape = (1, 128, 16, 1024, 1024)
    assert math.prod(shape) == CONV3D_NUMEL_LIMIT
    assert not conv.passes_gate(shape) and conv.passes_gate((1, 128, 17, 1024, 1024))
    assert not conv.double().passes_gate(shape)


def test_every_plain_convolution_of_a_network_is_replaced(calls):
    torch.manual_seed(1)
    inner = nn.Sequential(nn.Conv3d(4, 6, 3, padding=1), nn.SiLU())
    network = nn.Sequential(nn.Conv3d(3, 4, (1, 3, 3), bias=False), inner, nn.Conv3d(6, 6, 3, groups=2)).eval()
    x = torch.randn(2, 3, 5, 6, 8)
    weights, expected = dict(network.named_parameters()), network(x)
    calls.clear()
    assert chunk_convolutions(network, numel_limit=400) is network
    assert sum(isinstance(layer, ChannelChunkConv3D) for layer in network.modules()) == 3
    assert all(weights[name] is value for name, value in network.named_parameters())
    assert torch.allclose(network(x), expected, atol=1e-5) and len(calls) > 6
    assert not network[0].training


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"numel_limit": 0}, "numel_limit is 0"),
        ({"numel_limit": 2.5}, "numel_limit is 2.5"),
        ({"gate": "input"}, "gate 'input' is unknown"),
        ({"gate": "upstream", "groups": 2}, "knows no groups"),
        ({"gate": "upstream", "padding": "same"}, "no padding by name"),
    ],
)
def test_impossible_settings_are_one_line(options, says):
    with pytest.raises(UserError, match=says) as caught:
        ChannelChunkConv3D(4, 6, 3, **options)
    assert "\n" not in str(caught.value)
