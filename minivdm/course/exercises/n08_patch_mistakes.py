"""Wrong answers that newcomers really give about cutting films into tokens, and what to say to each."""

import torch.nn.functional as F
from einops import rearrange

from minivdm.course.exercise import Mistake

CUT = "b c (t pt) (h ph) (w pw) -> b (t h w) (pt ph pw c)"
LAY = "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)"


def _missing(x, patch):
    return [-n % p for n, p in zip(x.shape[2:], patch, strict=True)]


def _padded(x, patch, missing=None, front=False):
    t, h, w = missing or _missing(x, patch)
    return F.pad(x, (w, 0, h, 0, t, 0) if front else (0, w, 0, h, 0, t))


def _cut(x, patch, pattern=CUT):
    return rearrange(x, pattern, pt=patch[0], ph=patch[1], pw=patch[2])


def _cropped(x, patch):
    t, h, w = (n // p * p for n, p in zip(x.shape[2:], patch, strict=True))
    return _cut(x[:, :, :t, :h, :w], patch)


def _always_padded(x, patch):
    return _cut(_padded(x, patch, [p - n % p for n, p in zip(x.shape[2:], patch, strict=True)]), patch)


def _reshaped(x, patch):
    x = _padded(x, patch)
    return x.reshape(len(x), -1, patch[0] * patch[1] * patch[2] * x.shape[1])


def _with_pattern(pattern):
    return lambda x, patch: _cut(_padded(x, patch), patch, pattern)


PATCHIFY = (
    Mistake(
        "channel slowest",
        _with_pattern("b c (t pt) (h ph) (w pw) -> b (t h w) (c pt ph pw)"),
        "Your tokens hold one channel after the other: the channel runs slowest.",
        "Both orders are in use, and a trained final layer knows only its own; here the channel runs fastest, "
        "(pt ph pw c).",
        "which two numbers stand first in your token, and how do they differ?",
    ),
    Mistake(
        "no padding",
        lambda x, patch: _cut(x, patch),
        "Your code fails where the patch does not divide the film: zeros are missing, or lie at the wrong axis.",
        "A latent of 5 frames and patches of 2 needs 3 patches; zeros at the end fill the last one. `F.pad` counts "
        "axes from the last.",
        "how many zeros are missing to the next multiple of p?",
    ),
    Mistake(
        "the rest cut off",
        _cropped,
        "You cut off what does not fill a patch.",
        "The last frames, rows and columns would never be seen, nor be painted. Zeros are added instead.",
        "how many tokens should 5 frames in patches of 2 give?",
    ),
    Mistake(
        "padded at the front",
        lambda x, patch: _cut(_padded(x, patch, front=True), patch),
        "Your zeros lie before the first frame, above and left; they belong behind the end.",
        "`F.pad` counts from the last axis: (left, right, top, bottom, first, last).",
        "in which token does the very first pixel of your film lie, and where in it?",
    ),
    Mistake(
        "padded once too often",
        _always_padded,
        "Where the patch divides an axis you add a whole patch of zeros.",
        "p − n mod p is p when nothing is missing. (p − n mod p) mod p, or −n mod p, is 0.",
        "what is missing to 8 frames in patches of 2?",
    ),
    Mistake(
        "pixels far apart",
        _with_pattern("b c (pt t) (ph h) (pw w) -> b (t h w) (pt ph pw c)"),
        "The pixels of one of your tokens lie far apart: every t-th frame, every h-th row.",
        "In (t pt) the last letter runs fastest: t says which patch, pt where in it. You wrote (pt t).",
        "which frames of 8 does the first patch of 2 hold?",
    ),
    Mistake(
        "rows and columns of a patch exchanged",
        _with_pattern("b c (t pt) (h ph) (w pw) -> b (t h w) (pt pw ph c)"),
        "Within your tokens columns come before rows.",
        "Right tokens in the right place, but each is read as if it stood on its side.",
        "is the second pixel in a token the right neighbour of the first, or the one below?",
    ),
    Mistake(
        "places before frames",
        _with_pattern("b c (t pt) (h ph) (w pw) -> b (h w t) (pt ph pw c)"),
        "Your tokens run through time first: all frames of one place stand together.",
        "Tokens are ordered like pages of a book: frame by frame, row by row.",
        "which token follows the first one, its neighbour at the right or its future?",
    ),
    Mistake(
        "columns before rows",
        _with_pattern("b c (t pt) (h ph) (w pw) -> b (t w h) (pt ph pw c)"),
        "Your tokens run down the columns.",
        "Tokens are ordered as one reads: along a row, then the next row.",
        "in (t h w), which letter runs fastest?",
    ),
    Mistake(
        "reshaped",
        _reshaped,
        "You reshaped without moving anything.",
        "A reshape cuts memory into equal runs, and one run is a piece of a row, not a brick of frames, rows and "
        "columns.",
        "which pixels stand side by side in memory?",
    ),
)


def _lay(tokens, patch, channels, grid, pattern=LAY):
    sizes = dict(zip(("t", "h", "w", "pt", "ph", "pw"), (*grid, *patch), strict=True))
    return rearrange(tokens, pattern, c=channels, **sizes)


def _laid(pattern):
    return lambda *args: _lay(*args, pattern)


def _reshaped_back(tokens, patch, channels, grid):
    sizes = [n * p for n, p in zip(grid, patch, strict=True)]
    return tokens.reshape(len(tokens), channels, *sizes)


UNPATCHIFY = (
    Mistake(
        "channel slowest",
        _laid("b (t h w) (c pt ph pw) -> b c (t pt) (h ph) (w pw)"),
        "You read each token one channel after the other.",
        "In a token the channel runs fastest: (pt ph pw c).",
        "which channel is the second number of a token?",
    ),
    Mistake(
        "patches interleaved",
        _laid("b (t h w) (pt ph pw c) -> b c (pt t) (ph h) (pw w)"),
        "You scatter each token over the whole film.",
        "A token is a brick: t says where it lies, pt where in it. In (t pt) the last letter runs fastest.",
        "where should the second pixel of the first token lie?",
    ),
    Mistake(
        "rows and columns of a patch exchanged",
        _laid("b (t h w) (pt pw ph c) -> b c (t pt) (h ph) (w pw)"),
        "Each patch lies on its side: rows and columns within it are exchanged.",
        "With square patches the shapes would fit and the picture would be a mosaic of mirrored tiles.",
        "does your `patchify` write rows first, too?",
    ),
    Mistake(
        "rows and columns of the grid exchanged",
        _laid("b (t w h) (pt ph pw c) -> b c (t pt) (h ph) (w pw)"),
        "You lay the patches down the columns.",
        "Tokens are ordered as one reads: along a row, then the next row.",
        "where does the second token lie, right of the first or below it?",
    ),
    Mistake(
        "places before frames",
        _laid("b (h w t) (pt ph pw c) -> b c (t pt) (h ph) (w pw)"),
        "You take the tokens as if all frames of one place stood together.",
        "They are ordered frame by frame: (t h w).",
        "how many tokens lie between a place and the same place one frame later?",
    ),
    Mistake(
        "reshaped",
        _reshaped_back,
        "You reshaped without moving anything.",
        "The shape is right and the film is torn: a token would become a piece of a row.",
        "which axes stand side by side in memory, and which should?",
    ),
    Mistake(
        "frames before channels",
        _laid("b (t h w) (pt ph pw c) -> b (t pt) c (h ph) (w pw)"),
        "Your film has its frames before its channels.",
        "In this course a video is (B, C, T, H, W).",
        "which axis of your result has `out_channels` entries?",
    ),
)


def _fold(space, time):
    return lambda tokens, T, S, axis: rearrange(tokens, space if axis == "space" else time, t=T, s=S)


FOLD = (
    Mistake(
        "space and time exchanged",
        _fold("b (t s) d -> (b s) t d", "b (t s) d -> (b t) s d"),
        "“space” and “time” have changed places.",
        "The axis that is named is the one that is looked along; the other goes into the batch.",
        "attention in space: which tokens does one token see?",
    ),
    Mistake(
        "axis ignored",
        _fold("b (t s) d -> (b t) s d", "b (t s) d -> (b t) s d"),
        "You fold frames into the batch in both cases.",
        'For "time" every place becomes a sequence of its own: (B·S, T, D).',
        "how would your tokens ever learn what the next frame shows?",
    ),
    Mistake(
        "reshaped for time",
        lambda tokens, T, S, axis: tokens.reshape(-1, S if axis == "space" else T, tokens.shape[2]),
        "Right in space; for “time” you reshaped where axes have to be swapped.",
        "Memory runs through a frame first. Runs of T tokens are pieces of a frame, with the right shape.",
        "which tokens of the first frame stand in your first sequence?",
    ),
    Mistake(
        "tokens read place by place",
        _fold("b (s t) d -> (b t) s d", "b (s t) d -> (b s) t d"),
        "You take the tokens as (s t): all frames of one place together.",
        "They lie as `patchify` made them: frame by frame, (t s).",
        "which token stands at index S?",
    ),
    Mistake(
        "clips woven together",
        _fold("b (t s) d -> (t b) s d", "b (t s) d -> (s b) t d"),
        "The sequences are right, but their order is not: clips alternate.",
        "(b t) keeps the frames of a clip together, and the way back expects that.",
        "in (b t), which letter runs fastest?",
    ),
    Mistake(
        "batch left alone",
        _fold("b (t s) d -> b t s d", "b (t s) d -> b s t d"),
        "You return four axes.",
        "Attention wants (batch, sequence, D): what is not looked along has to be folded into the batch.",
        "how many sequences does attention in space see, for B clips of T frames?",
    ),
)
