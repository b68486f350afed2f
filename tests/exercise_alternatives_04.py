"""Right answers to the exercises of lesson 04, written in another way: loops, other algebra, other idioms."""

import torch
import torch.nn.functional as F
from einops import einsum


def token_count(num_frames, height, width, time_factor, space_factor, patch):
    tokens = -(-num_frames // time_factor)
    for size in (height, width):
        latent = size // space_factor
        tokens *= (latent + patch - 1) // patch
    return tokens


def token_count_by_slicing(num_frames, height, width, time_factor, space_factor, patch):
    latent = torch.empty(num_frames, height, width)[::time_factor, ::space_factor, ::space_factor]
    return latent[:, ::patch, ::patch].numel()


def causal_pad(kernel_size, stride=1, dilation=1):
    kernel = torch.tensor(kernel_size).expand(3).tolist()
    sides = [size // 2 for size in kernel[:0:-1] for _ in range(2)]
    return [*sides, dilation * kernel[0] - dilation - stride + 1, 0]


def causal_conv3d(x, weight, bias, stride_t=1):
    """Symmetric zeros, as many as the kernel is long, then only the windows that end where they should."""
    k = weight.shape[2]
    out = F.conv3d(x, weight, bias, padding=(k - 1, weight.shape[3] // 2, weight.shape[4] // 2))
    return out[:, :, stride_t - 1 : x.shape[2] : stride_t]


def causal_conv3d_frames(x, weight, bias, stride_t=1):
    """Frame by frame as a sum of pictures' convolutions."""
    out = []
    for last in range(stride_t - 1, x.shape[2], stride_t):
        total = 0 if bias is None else bias.reshape(1, -1, 1, 1)
        for back, tap in enumerate(reversed(weight.unbind(2))):
            if last >= back:
                total = total + F.conv2d(x[:, :, last - back], tap, padding=(tap.shape[2] // 2, tap.shape[3] // 2))
        out.append(total if torch.is_tensor(total) else torch.tensor(0.0))
    return torch.stack(out, dim=2)


def causal_conv3d_windows(x, weight, bias, stride_t=1):
    kt, kh, kw = weight.shape[2:]
    padded = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2, kt - stride_t, 0))
    windows = padded.unfold(2, kt, stride_t).unfold(3, kh, 1).unfold(4, kw, 1)
    out = einsum(windows, weight, "b c t h w i j k, o c i j k -> b o t h w")
    return out if bias is None else out + bias[:, None, None, None]


def latent_frames(num_frames, factor):
    return -(-num_frames // factor)


def latent_frames_first_alone(num_frames, factor):
    return 1 + (num_frames - 1) // factor


def latent_frames_slices(num_frames, factor):
    return len(range(0, num_frames, factor))


def pad_front(x, factor):
    missing = (factor - x.shape[2] % factor) % factor
    return torch.cat([x.new_zeros(*x.shape[:2], missing, *x.shape[3:]), x], dim=2)


def pad_front_loop(x, factor):
    while x.shape[2] % factor:
        x = torch.cat([torch.zeros_like(x[:, :, :1]), x], dim=2)
    return x


def pad_front_negative(x, factor):
    out = torch.zeros(*x.shape[:2], -(-x.shape[2] // factor) * factor, *x.shape[3:], dtype=x.dtype)
    out[:, :, -x.shape[2] :] = x
    return out


def depth_to_time(x, factor):
    b, c, t, h, w = x.shape
    return x.view(b, c // factor, factor, t, h, w).transpose(2, 3).reshape(b, c // factor, t * factor, h, w)


def depth_to_time_interleaved(x, factor):
    return torch.stack([x[:, f::factor] for f in range(factor)], dim=3).flatten(2, 3)


def stream_conv3d(chunk, carried, weight, bias):
    """New frames with what is carried in front, one output frame at a time."""
    k = weight.shape[2]
    frames = [*carried.unbind(2), *chunk.unbind(2)]
    space = (0, weight.shape[3] // 2, weight.shape[4] // 2)
    out = [F.conv3d(torch.stack(frames[i : i + k], dim=2), weight, bias, padding=space) for i in range(chunk.shape[2])]
    return torch.cat(out, dim=2), torch.stack(frames[len(frames) - k + 1 :], dim=2) if k > 1 else carried


def stream_conv3d_narrow(chunk, carried, weight, bias):
    seen = torch.cat((carried, chunk), 2)
    kw, kh = weight.shape[4] // 2, weight.shape[3] // 2
    keep = weight.shape[2] - 1
    return F.conv3d(F.pad(seen, (kw, kw, kh, kh)), weight, bias), seen.narrow(2, seen.shape[2] - keep, keep).clone()


def is_causal(fn, shape):
    """By gradients of a random mixture of every output frame."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=generator, requires_grad=True)
    y = fn(x)
    weights = torch.randn(y.shape, generator=generator)
    for t in range(shape[2]):
        (grad,) = torch.autograd.grad((y * weights)[:, :, t].sum(), x, retain_graph=True)
        if grad[:, :, t + 1 :].abs().any():
            return False
    return True


def is_causal_plain_sum(fn, shape):
    x = torch.linspace(-1, 2, torch.Size(shape).numel()).sin().reshape(shape).requires_grad_()
    leak = 0.0
    for t, frame in enumerate(fn(x).unbind(2)):
        leak += float(torch.autograd.grad(frame.sum(), x, retain_graph=True)[0][:, :, t + 1 :].abs().sum())
    return leak < 1e-6


def is_causal_jacrev(fn, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda x: fn(x).sum((0, 1, 3, 4)))(x)
    return all(not jacobian[t][:, :, t + 1 :].any() for t in range(shape[2]))


def is_causal_jacfwd(fn, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for t in range(1, shape[2]):
        direction = torch.zeros_like(x)
        direction[:, :, t:] = torch.randn(direction[:, :, t:].shape, generator=torch.Generator().manual_seed(t))
        if torch.func.jvp(fn, (x,), (direction,))[1][:, :, :t].abs().max() > 1e-7:
            return False
    return True


def is_causal_nan(fn, shape):
    """NaN is contagious: whatever touches the future becomes NaN."""
    for t in range(1, shape[2]):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(t))
        x[:, :, t:] = float("nan")
        if fn(x)[:, :, :t].isnan().any():
            return False
    return True


def is_causal_one_frame_at_a_time(fn, shape):
    """Adds 1 to a single frame; every output frame before it has to stay."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        y = fn(x)
        for t in range(shape[2]):
            other = x.clone()
            other[:, :, t] += 1
            if (fn(other) - y)[:, :, :t].abs().sum() > 1e-4:
                return False
    return True


def is_causal_blackened(fn, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    y = fn(x)
    return all(
        torch.equal(fn(torch.where(torch.arange(shape[2])[:, None, None] < t, x, 0.0))[:, :, :t], y[:, :, :t])
        for t in range(1, shape[2])
    )


ALTERNATIVES = {
    "04.token_count": [token_count, token_count_by_slicing],
    "04.causal_pad": [causal_pad],
    "04.causal_conv3d": [causal_conv3d, causal_conv3d_frames, causal_conv3d_windows],
    "04.latent_frames": [latent_frames, latent_frames_first_alone, latent_frames_slices],
    "04.pad_front": [pad_front, pad_front_loop, pad_front_negative],
    "04.depth_to_time": [depth_to_time, depth_to_time_interleaved],
    "04.stream_conv3d": [stream_conv3d, stream_conv3d_narrow],
    "04.is_causal": [
        is_causal,
        is_causal_plain_sum,
        is_causal_jacrev,
        is_causal_jacfwd,
        is_causal_nan,
        is_causal_one_frame_at_a_time,
        is_causal_blackened,
    ],
}

# Mutants that compute the same thing: another seed will do, and before frame 0 there is nothing to compare.
EQUIVALENT = {"04.is_causal": r"manual_seed\((1|-1)\)|range\(0, "}
