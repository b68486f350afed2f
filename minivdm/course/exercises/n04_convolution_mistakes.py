"""Wrong answers that newcomers really give about causal convolutions, and what to say to each."""

import torch
import torch.nn.functional as F

from minivdm.course.exercise import Mistake


def _sizes(kernel):
    return (kernel,) * 3 if isinstance(kernel, int) else kernel


def _pad(kernel, stride=1, dilation=1):
    time, height, width = _sizes(kernel)
    return width // 2, width // 2, height // 2, height // 2, dilation * (time - 1) + 1 - stride, 0


def _both_sides(kernel, stride=1, dilation=1):
    half = dilation * (_sizes(kernel)[0] - 1) // 2
    return (*_pad(kernel)[:4], half, half)


def _behind(kernel, stride=1, dilation=1):
    *space, front, _ = _pad(kernel, stride, dilation)
    return (*space, 0, front)


def _time_first(kernel, stride=1, dilation=1):
    *space, front, _ = _pad(kernel, stride, dilation)
    return (front, 0, *space[2:], *space[:2])


def _exchanged(kernel, stride=1, dilation=1):
    w, _, h, _, front, _ = _pad(kernel, stride, dilation)
    return h, h, w, w, front, 0


CAUSAL_PAD = (
    Mistake(
        "time on both sides",
        _both_sides,
        "You pad time like space: half in front, half behind.",
        "Half of such a window lies in the future. All of it has to go in front.",
        "which frames does output frame 0 see in your version?",
    ),
    Mistake(
        "time behind",
        _behind,
        "You put the padding of time behind the film.",
        "Then output frame t is made of frames t and later: only the future. In each pair the first number is the "
        "beginning.",
        "is frame 0 allowed to see frame 2?",
    ),
    Mistake(
        "time first",
        _time_first,
        "The numbers are right, in the order time, height, width.",
        "`F.pad` reads from the last axis backwards: width, height, time.",
        "which axis would your first two numbers pad?",
    ),
    Mistake(
        "height and width exchanged",
        _exchanged,
        "Height and width have changed places.",
        "The kernel is (time, height, width), and `F.pad` starts with the width.",
        "would you have noticed with a square kernel?",
    ),
    Mistake(
        "stride forgotten",
        lambda kernel, stride=1, dilation=1: _pad(kernel, 1, dilation),
        "Right for stride 1; a larger stride needs less in front.",
        "With stride s the first window should end at frame s − 1, so that every window has s new frames.",
        "how many frames come out of 8 with kernel 3, stride 2 and your padding, and which are the last it saw?",
    ),
    Mistake(
        "dilation forgotten",
        lambda kernel, stride=1, dilation=1: _pad(kernel, stride),
        "Right for dilation 1; spread out, the kernel reaches farther back.",
        "The k − 1 steps of the kernel are `dilation` frames long each.",
        "how many frames lie between the first and the last that a kernel of 3 with dilation 4 touches?",
    ),
    Mistake(
        "dilation times kernel",
        lambda kernel, stride=1, dilation=1: (
            *_pad(kernel)[:4],
            dilation * _sizes(kernel)[0] - stride,
            0,
        ),
        "Right for dilation 1; otherwise you pad too much.",
        "Between k frames there are k − 1 steps, and only the steps grow with the dilation.",
        "how much padding does a kernel of one frame need, whatever the dilation?",
    ),
    Mistake(
        "space forgotten",
        lambda kernel, stride=1, dilation=1: (0, 0, 0, 0, _pad(kernel, stride, dilation)[4], 0),
        "Time is right, but height and width are not padded.",
        "Every layer would trim the picture.",
        "how large is a 32 × 32 picture after ten 3 × 3 layers without padding?",
    ),
)


def _conv(x, weight, bias, stride_t=1, pad=_pad, stride=None):
    padded = F.pad(x, pad(tuple(weight.shape[2:]), stride_t))
    return F.conv3d(padded, weight, bias, stride=stride or (stride_t, 1, 1))


def _repeat_first(x, weight, bias, stride_t=1):
    *space, front, _ = _pad(tuple(weight.shape[2:]), stride_t)
    x = torch.cat([x[:, :, :1].expand(-1, -1, front, -1, -1), x], 2)
    return F.conv3d(F.pad(x, space), weight, bias, stride=(stride_t, 1, 1))


def _no_space(kernel, stride=1, dilation=1):
    return 0, 0, 0, 0, _pad(kernel, stride, dilation)[4], 0


CAUSAL_CONV3D = (
    Mistake(
        "looks both ways",
        lambda x, weight, bias, stride_t=1: F.conv3d(
            x, weight, bias, (stride_t, 1, 1), padding=tuple(size // 2 for size in weight.shape[2:])
        ),
        "This is an ordinary convolution: its window is centred in time.",
        "Half of it lies in the future. Pad time in front only, with your `causal_pad`, and let the convolution pad "
        "nothing.",
        "which is the last frame that your output frame 0 has seen?",
    ),
    Mistake(
        "sees only the future",
        lambda x, weight, bias, stride_t=1: _conv(x, weight, bias, stride_t, _behind),
        "Your padding of time lies behind the film.",
        "So every frame is made of itself and later ones, the exact opposite of causal.",
        "in a pair of `F.pad`, which number is the beginning?",
    ),
    Mistake(
        "stride in space too",
        lambda x, weight, bias, stride_t=1: _conv(x, weight, bias, stride_t, stride=(stride_t,) * 3),
        "Right for stride 1. Otherwise you also skip rows and columns.",
        "`stride_t` is for time alone: (stride_t, 1, 1).",
        "should the picture become smaller when the film gets shorter?",
    ),
    Mistake(
        "stride forgotten",
        lambda x, weight, bias, stride_t=1: _conv(x, weight, bias),
        "`stride_t` is not used: as many frames come out as go in.",
        "The stride is what halves the film.",
        "where else than in the padding does a convolution need its stride?",
    ),
    Mistake(
        "padded as for stride 1",
        lambda x, weight, bias, stride_t=1: _conv(x, weight, bias, stride_t, lambda k, s: _pad(k)),
        "Right for stride 1. With a larger one your windows start one frame too early.",
        "A strided window needs less in front: k_t − stride_t frames.",
        "does the last frame of an even number of frames reach your output?",
    ),
    Mistake(
        "bias forgotten",
        lambda x, weight, bias, stride_t=1: _conv(x, weight, None, stride_t),
        "Right when `bias` is None; otherwise it is missing.",
        "It is one number per output channel, added everywhere.",
        "what does the layer give for an input of zeros?",
    ),
    Mistake(
        "kernel turned round in time",
        lambda x, weight, bias, stride_t=1: _conv(x, weight.flip(2), bias, stride_t),
        "You flipped the kernel in time.",
        "What deep learning calls convolution does not flip: the last tap belongs to the newest frame.",
        "which tap should multiply frame t when output frame t is made?",
    ),
    Mistake(
        "first frame repeated",
        _repeat_first,
        "Right where nothing is padded in time; elsewhere you repeat the first frame.",
        "Here what comes before the film is zero.",
        "what did the weights see there while they learnt?",
    ),
    Mistake(
        "picture trimmed",
        lambda x, weight, bias, stride_t=1: _conv(x, weight, bias, stride_t, _no_space),
        "Height and width are not padded, so the picture shrinks.",
        "In space both sides get half of the kernel.",
        "how large is a 32 × 32 picture after ten 3 × 3 layers without padding?",
    ),
)


def _stream(chunk, carried, weight, bias):
    seen = torch.cat([carried, chunk], 2)
    return F.conv3d(seen, weight, bias, padding=(0, weight.shape[3] // 2, weight.shape[4] // 2)), seen


def _start_afresh(chunk, carried, weight, bias):
    out, _ = _stream(chunk, torch.zeros_like(carried), weight, bias)
    return out, _stream(chunk, carried, weight, bias)[1][:, :, chunk.shape[2] :]


def _minus_zero(chunk, carried, weight, bias):
    out, seen = _stream(chunk, carried, weight, bias)
    return out, seen[:, :, -(weight.shape[2] - 1) :]


def _end_of_chunk(chunk, carried, weight, bias):
    return _stream(chunk, carried, weight, bias)[0], chunk[:, :, max(chunk.shape[2] - weight.shape[2] + 1, 0) :]


def _end_of_chunk_minus_zero(chunk, carried, weight, bias):
    return _stream(chunk, carried, weight, bias)[0], chunk[:, :, -(weight.shape[2] - 1) :]


def _one_too_many(chunk, carried, weight, bias):
    out, seen = _stream(chunk, carried, weight, bias)
    return out, seen[:, :, -weight.shape[2] :]


def _wrong_end(chunk, carried, weight, bias):
    _, seen = _stream(chunk, carried, weight, bias)
    turned = torch.cat([chunk, carried], 2)
    out = F.conv3d(turned, weight, bias, padding=(0, weight.shape[3] // 2, weight.shape[4] // 2))
    return out, seen[:, :, chunk.shape[2] :]


def _padded_again(chunk, carried, weight, bias):
    _, seen = _stream(chunk, carried, weight, bias)
    return F.conv3d(F.pad(seen, _pad(tuple(weight.shape[2:]))), weight, bias), seen[:, :, chunk.shape[2] :]


STREAM_CONV3D = (
    Mistake(
        "starts afresh",
        _start_afresh,
        "Your output does not use `carried`: you put zeros in front of every chunk.",
        "Zeros are right before the first chunk only. Later ones would each begin like a new film, with a seam.",
        "which frames were just before the first one of this chunk?",
    ),
    Mistake(
        "carries only this chunk",
        _end_of_chunk,
        "You carry frames of this chunk only, and a short chunk has too few.",
        "With chunks of one frame and a kernel of four, the window reaches over three chunks.",
        "from which tensor, then, should the last k_t − 1 frames be taken?",
    ),
    Mistake(
        "carries only this chunk, and −0",
        _end_of_chunk_minus_zero,
        "You carry the end of this chunk: too little when it is short, and everything when k_t = 1.",
        "Take the frames from all that was seen. And `x[-0:]` is the whole of x, not nothing.",
        "how many frames must be carried for a kernel of one frame, and how many for chunks of one frame?",
    ),
    Mistake(
        "−0",
        _minus_zero,
        "Right unless the kernel is one frame long: then you carry everything.",
        "k_t − 1 is 0 there, and `x[:, :, -0:]` is the whole of x, not nothing.",
        "from which index on, counted from the front, are the frames to be carried?",
    ),
    Mistake(
        "carries the old frames again",
        lambda chunk, carried, weight, bias: (_stream(chunk, carried, weight, bias)[0], carried),
        "You hand on `carried` as it came.",
        "The next chunk needs the frames just before it, and those are the newest.",
        "what has happened to the film since then?",
    ),
    Mistake(
        "one frame too many",
        _one_too_many,
        "You carry k_t frames.",
        "The newest frame of the window comes with the next chunk, so k_t − 1 are enough; one more gives an output "
        "frame twice.",
        "how many frames come out of k_t carried and T new ones?",
    ),
    Mistake(
        "carried frames behind",
        _wrong_end,
        "You joined `carried` behind the chunk.",
        "It is the past, so it stands in front.",
        "in which order were the frames filmed?",
    ),
    Mistake(
        "padded as well",
        _padded_again,
        "You put zeros in front of the carried frames too, so there are too many frames.",
        "The carried frames take the place of the padding.",
        "how many frames should come out for T that come in?",
    ),
)
