"""The temporal VAE once more, in plain functions on a state dict, from the description of the reference alone."""

import torch
import torch.nn.functional as F


def causal_conv(weights, name, x, stride=1):
    weight, bias = weights[f"{name}.conv.weight"], weights.get(f"{name}.conv.bias")
    time, height, width = weight.shape[2:]
    x = torch.cat([x.new_zeros(*x.shape[:2], time - stride, *x.shape[3:]), x], dim=2)
    x = F.pad(x, (width // 2, width // 2, height // 2, height // 2))
    return F.conv3d(x, weight, bias, stride=(stride, 1, 1))


def norm(weights, name, x, config):
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if config["norm"] == "frame":
        x = torch.stack([F.group_norm(frame, config["num_groups"], scale, shift) for frame in x.unbind(2)], dim=2)
    else:
        x = F.group_norm(x, config["num_groups"], scale, shift)
    return x * torch.sigmoid(x)


def res_block(weights, name, x, config):
    h = causal_conv(weights, f"{name}.conv1", norm(weights, f"{name}.norm1", x, config))
    h = causal_conv(weights, f"{name}.conv2", norm(weights, f"{name}.norm2", h, config))
    return h + (causal_conv(weights, f"{name}.conv3", x) if f"{name}.conv3.conv.weight" in weights else x)


def res_blocks(weights, name, x, config):
    for i in range(config["num_res_blocks"]):
        x = res_block(weights, f"{name}.{i}", x, config)
    return x


def moments(weights, x, config):
    factor = 2 ** sum(config["temporal_downsample"])
    while x.shape[2] % factor:
        x = torch.cat([torch.zeros_like(x[:, :, :1]), x], dim=2)
    x = causal_conv(weights, "encoder.conv_in", x)
    for i in range(len(config["channel_multipliers"])):
        x = res_blocks(weights, f"encoder.block_res_blocks.{i}", x, config)
        if f"encoder.conv_blocks.{i}.conv.weight" in weights:
            x = causal_conv(weights, f"encoder.conv_blocks.{i}", x, stride=2)
    x = res_blocks(weights, "encoder.res_blocks", x, config)
    x = causal_conv(weights, "encoder.conv2", norm(weights, "encoder.norm1", x, config))
    return causal_conv(weights, "quant_conv", x)


def decode(weights, z, num_frames, config):
    x = causal_conv(weights, "decoder.conv1", causal_conv(weights, "post_quant_conv", z))
    x = res_blocks(weights, "decoder.res_blocks", x, config)
    for i in reversed(range(len(config["channel_multipliers"]))):
        x = res_blocks(weights, f"decoder.block_res_blocks.{i}", x, config)
        if f"decoder.conv_blocks.{i - 1}.conv.weight" in weights:
            x = causal_conv(weights, f"decoder.conv_blocks.{i - 1}", x)
            both = torch.stack([x[:, 0::2], x[:, 1::2]], dim=3)  # even channels are the first of two frames
            x = both.flatten(2, 3)
    x = causal_conv(weights, "decoder.conv_out", norm(weights, "decoder.norm1", x, config))
    return x[:, :, x.shape[2] - num_frames :]
