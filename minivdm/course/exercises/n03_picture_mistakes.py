"""Wrong answers that newcomers really give about attention in pictures, padding and PSNR, and what to say to each."""

import torch
import torch.nn.functional as F
from einops import rearrange

from minivdm.course.exercise import Mistake


def _attention(q, k, v, scale=None, dim=2):
    """Over tokens (B, N, C)."""
    scale = q.shape[2] ** -0.5 if scale is None else scale
    return torch.softmax(q @ k.transpose(1, 2) * scale, dim) @ v


def _in_pixels(q, k, v, **options):
    height, width = q.shape[2:]
    if "scale" in options:
        options["scale"] = options["scale"](q.shape[1], height * width)
    out = _attention(*(rearrange(each, "b c h w -> b (h w) c") for each in (q, k, v)), **options)
    return rearrange(out, "b (h w) c -> b c h w", h=height)


def _channels_attend(q, k, v):
    out = _attention(*(rearrange(each, "b c h w -> b c (h w)") for each in (q, k, v)), scale=q.shape[1] ** -0.5)
    return out.reshape(q.shape)


def _reshaped_in(q, k, v):
    b, c, h, w = q.shape
    out = _attention(*(each.reshape(b, h * w, c) for each in (q, k, v)))
    return out.reshape(b, c, h, w)


def _reshaped_out(q, k, v):
    out = _attention(*(rearrange(each, "b c h w -> b (h w) c") for each in (q, k, v)))
    return out.reshape(q.shape)


def _whole_batch(q, k, v):
    b, _, h, _ = q.shape
    out = _attention(*(rearrange(each, "b c h w -> 1 (b h w) c") for each in (q, k, v)))
    return rearrange(out, "1 (b h w) c -> b c h w", b=b, h=h)


def _row_by_row(q, k, v):
    b = len(q)
    out = _attention(*(rearrange(each, "b c h w -> (b h) w c") for each in (q, k, v)))
    return rearrange(out, "(b h) w c -> b c h w", b=b)


def _no_softmax(q, k, v):
    height, channels = q.shape[2], q.shape[1]
    q, k, v = (rearrange(each, "b c h w -> b (h w) c") for each in (q, k, v))
    return rearrange(q @ k.transpose(1, 2) * channels**-0.5 @ v, "b (h w) c -> b c h w", h=height)


SPATIAL_ATTENTION = (
    Mistake(
        "scale forgotten",
        lambda q, k, v: _in_pixels(q, k, v, scale=lambda c, n: 1.0),
        "Your scores are too large by √C: the scale is missing.",
        "A sum of C products grows like √C. Unscaled, the softmax picks one pixel and stops learning.",
        "what is the variance of a dot product of two standard normal vectors of width C?",
    ),
    Mistake(
        "1/C for 1/√C",
        lambda q, k, v: _in_pixels(q, k, v, scale=lambda c, n: 1 / c),
        "You divide by C instead of √C, so all pixels look nearly alike.",
        "Variance C means a typical size of √C.",
        "which divisor gives scores of variance 1?",
    ),
    Mistake(
        "scaled by the number of pixels",
        lambda q, k, v: _in_pixels(q, k, v, scale=lambda c, n: n**-0.5),
        "You scale by 1/√(H·W).",
        "The products are summed over the channels, so it is their number that makes the scores grow.",
        "over which axis does `q @ k.transpose(1, 2)` sum?",
    ),
    Mistake(
        "softmax over queries",
        lambda q, k, v: _in_pixels(q, k, v, dim=1),
        "Your weights add up to 1 over the pixels that ask.",
        "Each pixel shares its attention among all pixels: in scores (B, query, key) the sum over the last axis is 1.",
        "which axis of the weights is summed away by `@ v`?",
    ),
    Mistake(
        "query and key exchanged",
        lambda q, k, v: _in_pixels(k, q, v),
        "Query and key have changed places in your scores.",
        "Row i belongs to the pixel that asks, column j to the pixel that is asked.",
        "in `einsum`, which letter of the result comes from q?",
    ),
    Mistake(
        "channels attend",
        _channels_attend,
        "In your version channels attend to channels.",
        "The tokens here are pixels; a channel is one number of a token's vector.",
        "should the table of scores be C × C or H·W × H·W?",
    ),
    Mistake(
        "reshaped where axes had to move",
        _reshaped_in,
        "You reshaped (B, C, H, W) to (B, H·W, C) without moving the channels to the end.",
        "A reshape keeps the order in memory: your tokens are C neighbouring pixels of one channel.",
        "which pattern says “channels last” to `rearrange`?",
    ),
    Mistake(
        "not moved back",
        _reshaped_out,
        "The attention is right, but you reshaped (B, H·W, C) straight to (B, C, H, W).",
        "The channels are last there; they have to move back in front of the pixels.",
        "where in memory do the C numbers of one pixel lie before and after?",
    ),
    Mistake(
        "the whole batch in one sequence",
        _whole_batch,
        "Pixels of one picture attend to those of another.",
        "A picture must not depend on what else is in the batch.",
        "would your result change if the batch were split in two?",
    ),
    Mistake(
        "row by row",
        _row_by_row,
        "Each pixel attends within its own row only.",
        "H and W together make one sequence of H·W tokens, so that any pixel can see any other.",
        "how would the spark at the top learn of the one at the bottom?",
    ),
    Mistake(
        "no softmax",
        _no_softmax,
        "You multiplied the raw scores with v.",
        "Softmax turns scores into weights: none negative, sum 1.",
        "what would a weight of −2 for a pixel mean?",
    ),
)

DOWNSAMPLE_PAD = (
    Mistake(
        "all around",
        lambda x: F.pad(x, (1, 1, 1, 1)),
        "You pad all four sides.",
        "One extra row and column are enough here, and the published weights expect them at the bottom and the right.",
        "how large is a 4 × 4 picture after `padding=1`, and how large should it be here?",
    ),
    Mistake(
        "left and top",
        lambda x: F.pad(x, (1, 0, 1, 0)),
        "Your zeros are at the left and at the top.",
        "`F.pad` counts from the last axis: (left, right, top, bottom).",
        "by how much would every picture shift against weights trained the other way?",
    ),
    Mistake(
        "width only",
        lambda x: F.pad(x, (0, 1)),
        "You padded the width only.",
        "Two numbers pad the last axis; the height needs two more.",
        "which shape comes out of your function for (1, 3, 4, 4)?",
    ),
    Mistake(
        "height only",
        lambda x: F.pad(x, (0, 0, 0, 1)),
        "You padded the height only.",
        "`F.pad` reads from the last axis backwards: the first two numbers belong to the width.",
        "which of the four numbers stands for the right edge?",
    ),
    Mistake(
        "edge repeated",
        lambda x: F.pad(x, (0, 1, 0, 1), mode="replicate"),
        "The place is right, but you repeat the edge instead of adding zeros.",
        "Repeating is kinder to pictures, but the published weights learnt with zeros.",
        "what does the night sky look like in [−1, 1], and what is 0 there?",
    ),
    Mistake(
        "night for zero",
        lambda x: F.pad(x, (0, 1, 0, 1), value=-1.0),
        "You pad with −1, the colour of the night.",
        "Inside a network numbers are features, no longer brightness, and zero is what its padding means.",
        "is the input of this function always a picture?",
    ),
    Mistake(
        "odd sizes only",
        lambda x: F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)),
        "You pad odd sizes up to even ones and leave even sizes alone.",
        "The extra row is for the window, three wide, at the end of an even picture: it is always added.",
        "where does the last 3 × 3 window of a 4 × 4 picture in steps of two end?",
    ),
)


def _psnr(error, peak=2.0):
    return 10 * torch.log10(peak**2 / error)


def _lit(x, threshold):
    return x.amax(1) > threshold


def _faults(x, x_rec):
    return ((x - x_rec) ** 2).mean(1)


PSNR_LIT = (
    Mistake(
        "all pixels",
        lambda x, x_rec, threshold: _psnr(_faults(x, x_rec).mean()),
        "You count every pixel, the night included.",
        "That is the trap: most pixels are black and easy, and they hide a blurred shell.",
        "what PSNR would a decoder get that paints everything black?",
    ),
    Mistake(
        "peak 1",
        lambda x, x_rec, threshold: _psnr(_faults(x, x_rec)[_lit(x, threshold)].mean(), peak=1.0),
        "You are low by 6.02 dB everywhere: you took 1 for the peak.",
        "Here pictures live in [−1, 1], so black and white are 2 apart.",
        "what is the largest error a pixel can have?",
    ),
    Mistake(
        "mask from the reconstruction",
        lambda x, x_rec, threshold: _psnr(_faults(x, x_rec)[_lit(x_rec, threshold)].mean()),
        "You asked the reconstruction which pixels are lit.",
        "The truth decides. Otherwise a shell that was painted away costs nothing.",
        "which of your pixels count when `x_rec` is all black?",
    ),
    Mistake(
        "colour by colour",
        lambda x, x_rec, threshold: _psnr(((x - x_rec) ** 2)[x > threshold].mean()),
        "You mask each colour on its own.",
        "A red pixel is lit, and green that leaks into it is an error too: a pixel counts with all its colours.",
        "what shape should the mask have, (B, C, H, W) or (B, H, W)?",
    ),
    Mistake(
        "mean brightness",
        lambda x, x_rec, threshold: _psnr(_faults(x, x_rec)[x.mean(1) > threshold].mean()),
        "You compare the mean of the colours with the threshold.",
        "A pure blue spark has two dark colours and a low mean, and shines all the same: the maximum decides.",
        "is (1, −1, −1) lit, if the threshold is −0.2?",
    ),
    Mistake(
        "divided by all pixels",
        lambda x, x_rec, threshold: _psnr((_faults(x, x_rec) * _lit(x, threshold)).mean()),
        "You masked the errors and then divided by the number of all pixels.",
        "So the night counts again, as pixels without error.",
        "how many pixels did you add up, and by how many did you divide?",
    ),
    Mistake(
        "natural logarithm",
        lambda x, x_rec, threshold: 10 * torch.log(4 / _faults(x, x_rec)[_lit(x, threshold)].mean()),
        "You are too high by a factor 2.303 everywhere: a natural logarithm.",
        "Decibels count powers of ten.",
        "how many dB is an error ten times smaller worth?",
    ),
    Mistake(
        "peak not squared",
        lambda x, x_rec, threshold: _psnr(_faults(x, x_rec)[_lit(x, threshold)].mean(), peak=2**0.5),
        "You are low by 3.01 dB everywhere: the peak is not squared.",
        "The error is squared, so the peak is as well.",
        "what is the unit of your quotient?",
    ),
    Mistake(
        "averaged over samples",
        lambda x, x_rec, threshold: torch.stack(
            [_psnr(_faults(a[None], b[None])[_lit(a[None], threshold)].mean()) for a, b in zip(x, x_rec, strict=True)]
        ).mean(),
        "You took the PSNR of each sample and averaged the decibels.",
        "Here all lit pixels of the batch share one mean error, and the logarithm comes last.",
        "does a mean of logarithms equal the logarithm of the mean?",
    ),
)
