"""The 2D autoencoder once more, as plain functions of a state dict: what ours must equal at every size."""

import torch
import torch.nn.functional as F


def norm(weights, name, x, groups):
    return F.group_norm(x, groups, weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)


def conv(weights, name, x, **options):
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)


def resnet(weights, name, x, groups=32):
    h = x
    for i in "12":
        h = norm(weights, f"{name}.norm{i}", h, groups)
        h = conv(weights, f"{name}.conv{i}", h * torch.sigmoid(h), padding=1)
    return h + (conv(weights, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in weights else x)


def attention(weights, name, x, groups=32):
    n, c, height, width = x.shape
    h = norm(weights, f"{name}.norm", x, groups)
    q, k, v = (conv(weights, f"{name}.{part}", h).reshape(n, c, height * width) for part in "qkv")
    shares = torch.softmax(torch.einsum("ncq,nck->nqk", q, k) / c**0.5, dim=-1)
    mixed = torch.einsum("nqk,nck->ncq", shares, v).reshape(n, c, height, width)
    return x + conv(weights, f"{name}.proj_out", mixed)


def middle(weights, side, x, groups):
    x = resnet(weights, f"{side}.mid.block_1", x, groups)
    return resnet(weights, f"{side}.mid.block_2", attention(weights, f"{side}.mid.attn_1", x, groups), groups)


def finish(weights, side, x, groups):
    x = norm(weights, f"{side}.norm_out", x, groups)
    return conv(weights, f"{side}.conv_out", x * torch.sigmoid(x), padding=1)


def encode(weights, x, levels, blocks, groups=32):
    """Pictures -> moments."""
    x = conv(weights, "encoder.conv_in", x, padding=1)
    for i in range(levels):
        for j in range(blocks):
            x = resnet(weights, f"encoder.down.{i}.block.{j}", x, groups)
        if i < levels - 1:
            x = conv(weights, f"encoder.down.{i}.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
    return finish(weights, "encoder", middle(weights, "encoder", x, groups), groups)


def decode(weights, latent, levels, blocks, groups=32):
    """Latents before scale and shift -> pictures."""
    x = middle(weights, "decoder", conv(weights, "decoder.conv_in", latent, padding=1), groups)
    for i in reversed(range(levels)):
        for j in range(blocks + 1):
            x = resnet(weights, f"decoder.up.{i}.block.{j}", x, groups)
        if i > 0:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            x = conv(weights, f"decoder.up.{i}.upsample.conv", x, padding=1)
    return finish(weights, "decoder", x, groups)


def frames(video):
    """(B, C, T, H, W) -> (B·T, C, H, W)."""
    return video.transpose(1, 2).flatten(0, 1)


def clips(pictures, batch):
    """(B·T, C, H, W) -> (B, C, T, H, W)."""
    return pictures.unflatten(0, (batch, -1)).transpose(1, 2)
