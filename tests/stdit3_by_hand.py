"""STDiT3 written a second time, from the formulas: float64, one clip, frame and head at a time, no module of ours."""

import math

import torch


def linear(sd, name, x):
    bias = sd.get(f"{name}.bias")
    return x @ sd[f"{name}.weight"].T + (0 if bias is None else bias)


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + torch.exp(-x))


def norm(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-6)


def rms(x, gain):
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-6) * gain


def number(sd, name, value):
    waves = [f(value * 10000 ** (-k / 128)) for f in (math.cos, math.sin) for k in range(128)]
    hidden = silu(linear(sd, f"{name}.mlp.0", torch.tensor(waves, dtype=torch.float64)))
    return linear(sd, f"{name}.mlp.2", hidden)


def softmax_mix(q, k, v):
    return (q @ k.T / math.sqrt(q.shape[-1])).softmax(-1) @ v


def turn(x):
    """x (positions, head_dim): interleaved pairs, one at a time."""
    out = x.clone()
    for position in range(len(x)):
        for pair in range(x.shape[1] // 2):
            angle = position * 10000 ** (-2 * pair / x.shape[1])
            a, b = x[position, 2 * pair], x[position, 2 * pair + 1]
            out[position, 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
            out[position, 2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
    return out


def self_attention(sd, name, x, heads, temporal):
    q, k, v = linear(sd, f"{name}.qkv", x).chunk(3, -1)
    out = []
    for qh, kh, vh in zip(*(part.chunk(heads, -1) for part in (q, k, v)), strict=True):
        if f"{name}.q_norm.weight" in sd:
            qh, kh = rms(qh, sd[f"{name}.q_norm.weight"]), rms(kh, sd[f"{name}.k_norm.weight"])
        out.append(softmax_mix(turn(qh), turn(kh), vh) if temporal else softmax_mix(qh, kh, vh))
    return linear(sd, f"{name}.proj", torch.cat(out, -1))


def cross_attention(sd, name, x, text, heads):
    q, (k, v) = linear(sd, f"{name}.q_linear", x), linear(sd, f"{name}.kv_linear", text).chunk(2, -1)
    parts = zip(*(part.chunk(heads, -1) for part in (q, k, v)), strict=True)
    return linear(sd, f"{name}.proj", torch.cat([softmax_mix(*part) for part in parts], -1))


def block(sd, name, x, text, tables, heads, temporal):
    """x (T, S, D); tables: the (6, D) of each frame."""
    six = [torch.stack([sd[f"{name}.scale_shift_table"][k] + table[k] for table in tables])[:, None] for k in range(6)]
    u = norm(x) * (1 + six[1]) + six[0]
    if temporal:
        looked = torch.stack([self_attention(sd, f"{name}.attn", u[:, s], heads, True) for s in range(x.shape[1])], 1)
    else:
        looked = torch.stack([self_attention(sd, f"{name}.attn", frame, heads, False) for frame in u])
    x = x + six[2] * looked
    x = x + torch.stack([cross_attention(sd, f"{name}.cross_attn", frame, text, heads) for frame in x])
    u = norm(x) * (1 + six[4]) + six[3]
    return x + six[5] * linear(sd, f"{name}.mlp.fc2", gelu(linear(sd, f"{name}.mlp.fc1", u)))


def positions(dim, rows, columns, scale):
    base = round(math.sqrt(rows * columns))
    out = torch.zeros(rows, columns, dim, dtype=torch.float64)
    for r in range(rows):
        for c in range(columns):
            halves = [c / scale * base / columns, r / scale * base / rows]
            half_dim = dim // 2
            out[r, c] = torch.tensor(
                [
                    f(place * 10000 ** (-2 * k / half_dim))
                    for place in halves
                    for f in (math.sin, math.cos)
                    for k in range(dim // 4)
                ]
            )
    return out.reshape(rows * columns, dim)


def one_clip(sd, model, x, t, text, keep, moving, fps, scale):
    """x (C, T, H, W), text (L, C), keep: numbers of the visible tokens, moving: per frame, False if it is clean."""
    channels = len(x)
    patch, dim, heads = model["patch_size"], model["hidden_size"], model["num_heads"]
    cells = [-(-side // p) for side, p in zip(x.shape[1:], patch, strict=True)]
    padded = torch.zeros(channels, *(n * p for n, p in zip(cells, patch, strict=True)), dtype=torch.float64)
    padded[:, : x.shape[1], : x.shape[2], : x.shape[3]] = x
    tokens = torch.zeros(*cells, dim, dtype=torch.float64)
    weight, bias = sd["x_embedder.proj.weight"], sd["x_embedder.proj.bias"]
    boxes = {
        (i, j, k): tuple(slice(n * p, n * p + p) for n, p in zip((i, j, k), patch, strict=True))
        for i in range(cells[0])
        for j in range(cells[1])
        for k in range(cells[2])
    }
    for cell, box in boxes.items():
        tokens[cell] = (weight * padded[(slice(None), *box)]).sum((1, 2, 3, 4)) + bias
    tokens = tokens.reshape(cells[0], cells[1] * cells[2], dim) + positions(dim, cells[1], cells[2], scale)
    rate = number(sd, "fps_embedder", fps)
    vectors = [number(sd, "t_embedder", t if moves else 0.0) + rate for moves in moving]
    tables = [linear(sd, "t_block.1", silu(vector)).reshape(6, dim) for vector in vectors]
    text = linear(sd, "y_embedder.y_proj.fc2", gelu(linear(sd, "y_embedder.y_proj.fc1", text[keep])))
    for depth in range(model["depth"]):
        tokens = block(sd, f"spatial_blocks.{depth}", tokens, text, tables, heads, False)
        tokens = block(sd, f"temporal_blocks.{depth}", tokens, text, tables, heads, True)

    def last(frame, vector):
        shift, scale = sd["final_layer.scale_shift_table"] + vector
        return norm(frame) * (1 + scale) + shift

    normal = number(sd, "t_embedder", t) + rate
    frames = [last(frame, normal) for frame in tokens]
    frames = [frame if moves else last(frame, v) for frame, v, moves in zip(frames, vectors, moving, strict=True)]
    numbers = linear(sd, "final_layer.linear", torch.stack(frames)).reshape(*cells, *patch, -1)
    out = torch.zeros(numbers.shape[-1], *padded.shape[1:], dtype=torch.float64)
    for cell, box in boxes.items():
        out[(slice(None), *box)] = numbers[cell].movedim(-1, 0)
    return out[:, : x.shape[1], : x.shape[2], : x.shape[3]]


def stdit3(sd, model, x, timestep, y, mask=None, x_mask=None, *, fps, height, width):
    """Upstream's outputs, with its two peculiarities, from a state dict; a text mask of b rows serves k·b clips."""
    sd = {key: value.double() for key, value in sd.items()}
    scale = math.sqrt(float(height[0]) * float(width[0])) / model["input_sq_size"]
    frames = -(-x.shape[2] // model["patch_size"][0])
    out = []
    for b in range(len(x)):
        seen = range(y.shape[-2]) if mask is None else mask[b % len(mask)].nonzero().flatten().tolist()
        moving = [True] * frames if x_mask is None else x_mask[b].tolist()
        arguments = x[b].double(), float(timestep[b]), y[b, 0].double(), list(seen), moving
        out.append(one_clip(sd, model, *arguments, float(fps[b]), scale))
    return torch.stack(out)
