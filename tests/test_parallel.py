"""Parallel convolutions, in two and four processes that talk over loopback."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from minivdm.errors import UserError
from minivdm.vae import (
    AutoEncoder2D,
    ChannelChunkConv3D,
    ColumnParallelConv3d,
    RowParallelConv3d,
    TemporalVAE,
    parallelize,
    run_processes,
)
from minivdm.vae.parallel import share

LAYERS = {
    "even": ((8, 4, 3), {"padding": 1}),
    "uneven": ((7, 5, (1, 3, 2)), {"stride": (1, 2, 1), "dilation": (2, 1, 1), "bias": False}),
    "mirrored": ((6, 9, 3), {"padding": (1, 0, 2), "padding_mode": "reflect"}),
}
KINDS = {"column": ColumnParallelConv3d, "row": RowParallelConv3d}


def gradients(layer, x, weights):
    """Output, and the gradients of (output · weights) for the input and the parameters."""
    x = x.clone().requires_grad_()
    y = layer(x)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()])]


def worst(pairs):
    assert all(a.shape == b.shape for a, b in pairs)
    return max((a - b).abs().max().item() for a, b in pairs)


def single_layers(rank, ranks):
    found = {}
    for name, (sizes, options) in LAYERS.items():
        torch.manual_seed(7)
        whole = nn.Conv3d(*sizes, **options)
        x = torch.randn(2, sizes[0], 5, 6, 7)
        weights = torch.randn_like(whole(x))
        y, dx, dw, *db = gradients(whole, x, weights)
        for kind, layer in KINDS.items():
            mine = share(sizes[layer.axis == 0], ranks, rank)
            if kind == "column":
                expected = [y, dx, dw[mine], *(b[mine] for b in db)]
            else:
                expected = [y, dx, dw[:, mine], *db]
            ours = gradients(layer.from_conv(whole), x, weights)
            found[f"{name} {kind}"] = worst(list(zip(ours, expected, strict=True)))
    return found


def pair_of_layers(rank, ranks):
    """Column, then something for each channel alone, then row: nothing is exchanged in between."""
    torch.manual_seed(8)
    whole = nn.Sequential(nn.Conv3d(3, 10, 3), nn.SiLU(), nn.Conv3d(10, 2, (1, 3, 3)))
    x = torch.randn(2, 3, 4, 6, 7)
    first = ColumnParallelConv3d.from_conv(whole[0], paired=True)
    second = RowParallelConv3d.from_conv(whole[2], paired=True)
    assert first(x).shape[1] == second.weight.shape[1] <= -(-10 // ranks)
    weights = torch.randn_like(whole(x))
    both = [gradients(network, x, weights)[:2] for network in (whole, nn.Sequential(first, whole[1], second))]
    return worst(list(zip(*both, strict=True)))


def first_process_counts(rank, ranks):
    """Layers made without a common seed are parts of one convolution nevertheless: the first process's."""
    torch.manual_seed(100 + rank)
    layer = RowParallelConv3d(5, 4, 3)
    x = torch.ones(1, 5, 4, 5, 6)
    torch.manual_seed(100)
    return worst([(layer(x), nn.Conv3d(5, 4, 3)(x))])


def whole_decoder(rank, ranks):
    torch.manual_seed(9)
    sizes = {"filters": 12, "channel_multipliers": (1, 1), "temporal_downsample": (True,)}
    sizes |= {"num_res_blocks": 1, "num_groups": 4}
    vae = TemporalVAE(**sizes).eval()
    z = torch.randn(1, 4, 3, 5, 6)
    found = {}
    with torch.no_grad():
        expected = vae.decode(z, num_frames=5)
        numbers = sum(p.numel() for p in vae.decoder.parameters())
        for split in KINDS:
            torch.manual_seed(9)
            spread = TemporalVAE(**sizes).eval()
            parallelize(spread.decoder, split=split)
            held = sum(p.numel() for p in spread.decoder.parameters()) / numbers
            found[split] = [worst([(spread.decode(z, num_frames=5), expected)]), held]
    return found


def whole_2d_decoder(rank, ranks):
    """Also 2D convolutions, attention's 1×1 among them, and a last layer of 3 channels for up to 4 processes."""
    torch.manual_seed(11)
    vae = AutoEncoder2D(ch=8, ch_mult=(1, 2), num_res_blocks=1, z_channels=4).eval()
    z = torch.randn(2, 4, 3, 5)
    with torch.no_grad():
        expected = vae.decode(z)
        parallelize(vae.decoder)
        assert not any(type(layer) is nn.Conv2d for layer in vae.decoder.modules())
        return worst([(vae.decode(z), expected)])


def chunks_inside(rank, ranks):
    """Spread over processes, and cut into chunks within each."""
    torch.manual_seed(10)
    conv, seen, convolve = ChannelChunkConv3D(8, 8, 3, padding=1, numel_limit=300), [], F.conv3d
    x = torch.randn(1, 8, 3, 5, 7)
    layer = parallelize(nn.Sequential(conv))[0]
    F.conv3d = lambda *args: seen.append(args[0].shape[1]) or convolve(*args)
    y = layer(x)
    F.conv3d = convolve
    assert layer.numel_limit == 300 and len(seen) > 1
    return worst([(y, convolve(x, conv.weight, conv.bias, padding=1))])


def everything(rank, ranks):
    torch.set_default_dtype(torch.float64)
    checks = (single_layers, pair_of_layers, first_process_counts, whole_decoder, whole_2d_decoder, chunks_inside)
    found = {check.__name__: check(rank, ranks) for check in checks}
    with pytest.raises(UserError, match="1 output channels for"):
        ColumnParallelConv3d(4, 1, 3)
    with pytest.raises(UserError, match="1 input channels for"):
        RowParallelConv3d(1, 4, 3)
    with pytest.raises(UserError, match="2 groups"):
        ColumnParallelConv3d.from_conv(nn.Conv3d(8, 8, 3, groups=2))
    with pytest.raises(UserError, match="split is 'both'"):
        parallelize(nn.Sequential(), split="both")
    torch.manual_seed(12)
    mirrored = nn.Conv2d(4, 6, (3, 5), padding=(1, 2), dilation=(1, 1), stride=(2, 1), padding_mode="reflect")
    x = torch.randn(2, 4, 6, 8)
    assert torch.allclose(parallelize(nn.Sequential(mirrored))(x), mirrored(x))
    left = parallelize(nn.Sequential(nn.Conv3d(1, 1, 3), nn.Conv3d(8, 8, 3, groups=8), nn.Conv3d(8, 1, 3)))
    assert [type(layer) for layer in left] == [nn.Conv3d, nn.Conv3d, RowParallelConv3d]
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_equal_to_one_process(ranks):
    results = run_processes(everything, ranks, ranks)
    assert len(results) == ranks
    for result in results:
        assert all(error < 1e-12 for error in result["single_layers"].values()), result["single_layers"]
        assert result["pair_of_layers"] < 1e-12
        assert result["first_process_counts"] < 1e-12
        assert result["chunks_inside"] < 1e-12
        assert result["whole_2d_decoder"] < 1e-11
        for error, held in result["whole_decoder"].values():
            assert error < 1e-11 and 1 / ranks < held < 1.1 / ranks + 0.05


def failing(rank):
    if rank == 1:
        raise ValueError("the second process stumbled")


def test_what_goes_wrong_in_a_process_is_raised_here():
    with pytest.raises(Exception, match="the second process stumbled"):
        run_processes(failing, 2, timeout_s=10)


@pytest.mark.parametrize(("channels", "ranks", "sizes"), [(8, 4, [2, 2, 2, 2]), (7, 3, [3, 2, 2]), (2, 3, [1, 1, 0])])
def test_shares_cover_all_channels(channels, ranks, sizes):
    shares = [share(channels, ranks, rank) for rank in range(ranks)]
    assert [part.stop - part.start for part in shares] == sizes
    assert [c for part in shares for c in range(part.start, part.stop)] == list(range(channels))


def test_without_processes_it_is_one_line():
    with pytest.raises(UserError, match="torchrun") as caught:
        ColumnParallelConv3d(4, 6, 3)
    assert "\n" not in str(caught.value)
