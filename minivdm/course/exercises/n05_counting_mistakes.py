"""Wrong answers that newcomers really give about counting elements, parts and padding, and what to say to each."""

import math

import torch
import torch.nn.functional as F

from minivdm.course.exercise import Mistake


def _numel(shape, out_channels, kernel, stride, padding, dilation, size=None, batch=True):
    size = size or _size
    sizes = [size(*axis) for axis in zip(shape[2:], kernel, stride, padding, dilation, strict=True)]
    return (shape[0] if batch else 1) * out_channels * math.prod(sizes)


def _size(n, k, s, p, d):
    return (n + 2 * p - d * (k - 1) - 1) // s + 1


OUTPUT_NUMEL = (
    Mistake(
        "batch forgotten",
        lambda *args: _numel(*args, batch=False),
        "You counted the output of one sample.",
        "The whole batch lies in one tensor, and the index that overflows runs through all of it.",
        "does a batch of 8 write as many numbers as a batch of 1?",
    ),
    Mistake(
        "input channels counted",
        lambda shape, out, *rest: _numel(shape, shape[1], *rest),
        "You multiplied by the channels of the input.",
        "The output has `out_channels`. In a decoder's last layers the two differ by a factor of many.",
        "what shape has the output of a convolution from 3 to 128 channels?",
    ),
    Mistake(
        "dilation ignored",
        lambda *args: _numel(*args, size=lambda n, k, s, p, d: _size(n, k, s, p, 1)),
        "Right without dilation only.",
        "A dilated kernel has gaps: k taps reach over dilation·(k − 1) + 1 places.",
        "from the first tap to the last, how far reach 3 taps at dilation 2?",
    ),
    Mistake(
        "dilated kernel too long",
        lambda *args: _numel(*args, size=lambda n, k, s, p, d: (n + 2 * p - d * k) // s + 1),
        "You made the dilated kernel dilation·k long.",
        "Between k taps there are k − 1 gaps, so it is dilation·(k − 1) + 1 long.",
        "how long is a kernel of one tap, whatever its dilation?",
    ),
    Mistake(
        "padded on one side",
        lambda *args: _numel(*args, size=lambda n, k, s, p, d: (n + p - d * (k - 1) - 1) // s + 1),
        "You added the padding once.",
        "Padding is laid on at both ends of an axis: n + 2·padding.",
        "how wide is a picture of 8 columns with padding 1?",
    ),
    Mistake(
        "first window forgotten",
        lambda *args: _numel(*args, size=lambda n, k, s, p, d: (n + 2 * p - d * (k - 1) - 1) // s),
        "Every axis is one too short: the + 1 at the end is missing.",
        "The division counts the moves of the window; it also stands somewhere before its first move.",
        "how many places has a window that fits exactly and cannot move?",
    ),
    Mistake(
        "rounded up",
        lambda *args: _numel(*args, size=lambda n, k, s, p, d: -(-(n + 2 * p - d * (k - 1) - 1) // s) + 1),
        "Right where the stride comes out even; elsewhere you count a window that hangs over the edge.",
        "A window that does not fit is left out: round down.",
        "8 columns, kernel 3, stride 2: at which columns do windows start?",
    ),
    Mistake(
        "stride forgotten",
        lambda *args: _numel(*args, size=lambda n, k, s, p, d: _size(n, k, 1, p, d)),
        "Right for stride 1 only.",
        "A stride of s leaves out all places but each s-th.",
        "which of the arguments does your function never use?",
    ),
    Mistake(
        "same size as the input",
        lambda shape, out, *rest: shape[0] * out * math.prod(shape[2:]),
        "You took the size of the input.",
        "Only with padding = dilation·(kernel − 1)/2 and stride 1 does a convolution keep its size.",
        "which of the arguments does your function never use?",
    ),
)


def _wanted(numel, limit):
    return -(-numel // limit)


def _divisors(channels):
    return [n for n in range(1, channels + 1) if channels % n == 0]


def _divisor_from(channels, wanted, otherwise=None):
    return next((n for n in _divisors(channels) if n >= wanted), otherwise or channels)


NUM_CHUNKS = (
    Mistake(
        "does not divide",
        lambda numel, channels, limit: min(_wanted(numel, limit), channels),
        "You return ⌈numel / limit⌉, whether it divides the channels or not.",
        "With parts of unequal size the largest can be over the limit again: 10 channels in 3 parts are 4, 3 and 3.",
        "into how many equal parts can 12 channels be cut, if 5 are too few?",
    ),
    Mistake(
        "rounded twice",
        lambda numel, channels, limit: math.ceil(channels / (channels // _wanted(numel, limit))),
        "This is the `ceil_to_divisible` of the published code: ⌈channels / ⌊channels / n⌋⌉.",
        "Its result does not always divide (10 channels, 3 parts: it says 4), and with more parts than channels it "
        "divides by zero.",
        "what is 10 mod 4?",
    ),
    Mistake(
        "rounded down",
        lambda numel, channels, limit: _divisor_from(channels, max(numel // limit, 1)),
        "You rounded numel / limit down.",
        "Then a part may be nearly twice the limit: 1001 elements at a limit of 1000 need two parts.",
        "into how many parts must 1999 elements go at a limit of 1000?",
    ),
    Mistake(
        "one part too many",
        lambda numel, channels, limit: _divisor_from(channels, numel // limit + 1),
        "You cut once more even when numel / limit comes out even.",
        "A tensor of exactly `limit` elements is allowed: round up, do not add one.",
        "what is ⌈1000 / 1000⌉?",
    ),
    Mistake(
        "largest divisor below",
        lambda numel, channels, limit: max(n for n in _divisors(channels) if n <= _wanted(numel, limit)),
        "Your number divides the channels, but it lies below ⌈numel / limit⌉ where that is no divisor.",
        "Fewer parts are larger parts, and those do not fit. Go up to the next divisor.",
        "5 parts are needed of 12 channels: are 4 enough?",
    ),
    Mistake(
        "more parts than channels",
        lambda numel, channels, limit: _divisor_from(channels, _wanted(numel, limit), otherwise=_wanted(numel, limit)),
        "Right until the parts outnumber the channels.",
        "A channel is the smallest part there is. When even single channels are too large, take single channels.",
        "what would part 8 of 6 channels hold?",
    ),
    Mistake(
        "always single channels",
        lambda numel, channels, limit: 1 if numel <= limit else channels,
        "You cut into single channels as soon as the tensor is too large.",
        "That is safe, but each part costs a call: take the fewest that are small enough.",
        "5000 elements, 12 channels, limit 1000: how large is a part if you cut into 6?",
    ),
    Mistake(
        "channels per part",
        lambda numel, channels, limit: channels // _divisor_from(channels, _wanted(numel, limit)),
        "You return how many channels a part has.",
        "Asked for is the number of parts, the argument of `chunk` (and not of `split`).",
        "into how many parts should a tensor go that is below the limit?",
    ),
)


def _framed(x, *frames):
    """Zeros around each picture; `x` stands for the whole film, a number for one frame of it."""
    wide = F.pad(x, (1, 1, 1, 1))
    return torch.cat([wide if frame == "x" else wide[:, :, [frame]] for frame in frames], dim=2)


PAD = (
    Mistake(
        "zeros everywhere",
        lambda x: F.pad(x, (1, 1, 1, 1, 1, 1)),
        "Time is padded with black frames.",
        "The network would see the film flash on and off at its ends. Repeat the first and the last frame instead.",
        "what does a convolution over 3 frames see when the film starts?",
    ),
    Mistake(
        "repeated everywhere",
        lambda x: F.pad(x, (1, 1, 1, 1, 1, 1), mode="replicate"),
        "The edges of the picture are repeated as well.",
        "In space zeros are asked for; only time repeats.",
        "what should stand in row 0 of your result?",
    ),
    Mistake(
        "space and time exchanged",
        lambda x: F.pad(F.pad(x, (1, 1, 1, 1, 0, 0), mode="replicate"), (0, 0, 0, 0, 1, 1)),
        "You repeated the edges in space and put zeros in time: it is the other way round.",
        "`F.pad` counts its pairs from the last axis backwards: W, H, then T.",
        "which axes do the first four numbers of `F.pad` belong to?",
    ),
    Mistake(
        "both frames in front",
        lambda x: _framed(x, 0, 0, "x"),
        "Both additional frames stand in front, as in a causal convolution.",
        "This layer is not causal: one frame before, one after.",
        "which input frames does the last output frame of your layer see?",
    ),
    Mistake(
        "first and last exchanged",
        lambda x: _framed(x, -1, "x", 0),
        "The last frame stands in front and the first at the end.",
        "That is a film in a loop. Here it stands still at its ends: the neighbour of the first frame is the first "
        "frame again.",
        "which frame was nearest to the beginning?",
    ),
    Mistake(
        "space only",
        lambda x: F.pad(x, (1, 1, 1, 1)),
        "Height and width are padded, time is not.",
        "A kernel of 3 takes one frame from each end too: T frames would come out as T − 2.",
        "how many frames are left after a 3×3×3 convolution without padding in time?",
    ),
    Mistake(
        "time only",
        lambda x: torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2),
        "Time is padded, height and width are not.",
        "A kernel of 3 takes one pixel from each edge as well.",
        "how large is a 5×5 picture after a 3×3 convolution without padding?",
    ),
    Mistake(
        "mirrored in time",
        lambda x: F.pad(F.pad(x, (1, 1, 1, 1)), (0, 0, 0, 0, 1, 1), mode="reflect"),
        "The second frame stands before the first: you mirrored time.",
        "Repeat the frame at the edge itself; a single frame could not be mirrored at all.",
        "what would your function do with an image, a film of one frame?",
    ),
)
