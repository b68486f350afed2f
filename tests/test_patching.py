"""Folding pixels into channels is a rearrangement: nothing is lost, nothing is mixed."""

import torch
from torch import nn

from minivdm.denoisers.patching import Patched


class Recorder(nn.Module):
    def forward(self, x, t, *, scale):
        self.shape = tuple(x.shape)
        return x * scale + t[:, None, None, None, None]


def test_the_network_sees_folded_clips_and_the_caller_does_not():
    network = Recorder()
    x, t = torch.randn(2, 3, 5, 8, 12), torch.tensor([10, 20])
    out = Patched(network, 2)(x, t, scale=3.0)
    assert network.shape == (2, 12, 5, 4, 6)
    torch.testing.assert_close(out, 3 * x + t[:, None, None, None, None])


def test_one_folded_pixel_is_one_square_of_pixels():
    x = torch.zeros(1, 3, 2, 4, 6)
    x[0, 1, 1, 2:4, 4:6] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    seen = {}

    class Look(nn.Module):
        def forward(self, folded):
            seen["where"], seen["values"] = folded.nonzero()[:, 2:].unique(dim=0).tolist(), folded[folded > 0].tolist()
            return folded

    Patched(Look(), 2)(x)
    assert seen == {"where": [[1, 1, 2]], "values": [1.0, 2.0, 3.0, 4.0]}
