"""Ways to overlook a look into the future, and what to say to each."""

import torch

from minivdm.course.exercise import Mistake


def _films(shape):
    return torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))


def _agree(fn, film, changed, frames, tolerance=1e-5):
    """Whether fn says the same about both films in these output frames."""
    return bool(((fn(film) - fn(changed))[:, :, frames].abs() <= tolerance).all())


def _cut(film, other, now):
    return torch.cat([film[:, :, :now], other[:, :, now:]], 2)


def _first_frame(fn, shape):
    film, other = _films(shape)
    return _agree(fn, film, _cut(film, other, 1), slice(0, 1))


def _middle(fn, shape):
    film, other = _films(shape)
    now = max(shape[2] // 2, 1)
    return _agree(fn, film, _cut(film, other, now), slice(0, now))


def _last_frame(fn, shape):
    film, other = _films(shape)
    return _agree(fn, film, _cut(film, other, shape[2] - 1), slice(0, shape[2] - 1))


def _lenient(fn, shape):
    film, other = _films(shape)
    return all(_agree(fn, film, _cut(film, other, t), slice(0, t), 2e-2) for t in range(1, shape[2]))


def _black(fn, shape):
    film = torch.zeros(shape)
    other = _films(shape)[0]
    return all(_agree(fn, film, _cut(film, other, t), slice(0, t)) for t in range(1, shape[2]))


def _next_frame(fn, shape):
    film, other = _films(shape)
    changes = (torch.cat([film[:, :, :t], other[:, :, t : t + 1], film[:, :, t + 1 :]], 2) for t in range(1, shape[2]))
    return all(_agree(fn, film, one, slice(t, t + 1)) for t, one in enumerate(changes))


def _past_changed(fn, shape):
    film, other = _films(shape)
    return all(_agree(fn, film, _cut(other, film, t), slice(t, None)) for t in range(1, shape[2]))


def _present_too(fn, shape):
    film, other = _films(shape)
    return all(_agree(fn, film, _cut(film, other, t), slice(0, t + 1)) for t in range(1, shape[2]))


def _same_film(fn, shape):
    film, _ = _films(shape)
    return all(_agree(fn, film, _cut(film, film, t), slice(0, t)) for t in range(1, shape[2]))


def _single_pixel(fn, shape):
    film, other = _films(shape)
    return all(
        _agree(lambda x: fn(x)[:1, :1, :, :1, :1], film, _cut(film, other, t), slice(0, t)) for t in range(shape[2])
    )


IS_CAUSAL = (
    Mistake(
        "first frame only",
        _first_frame,
        "You look at output frame 0 only.",
        "Some leaks spare it: a convolution that sees one frame ahead from frame 1 on, for example.",
        "at which places can a film be cut into past and future?",
    ),
    Mistake(
        "cut in the middle only",
        _middle,
        "You cut the film in one place, the middle, and see only what crosses it.",
        "A leak can stay within the first half, or within the second.",
        "how many cuts does a film of T frames have?",
    ),
    Mistake(
        "last frame only",
        _last_frame,
        "You change the last frame only.",
        "A network that peeks from frame 1 into frame 0 never touches it.",
        "after which frames can the future begin?",
    ),
    Mistake(
        "too lenient",
        _lenient,
        "You let small differences pass, and a leak of 0.001 with them.",
        "A causal network gives the same numbers before the cut, but for rounding (about 10⁻⁷), however different the "
        "rest.",
        "what else than a leak could change the past by 0.001?",
    ),
    Mistake(
        "tried on black films",
        _black,
        "You try it on a film of zeros, and a leak that multiplies stays unseen there.",
        "Zero times anything is zero. A film of random numbers has no such blind spot.",
        "what does x · sigmoid(next x) say about the future when x is 0?",
    ),
    Mistake(
        "next frame only",
        _next_frame,
        "You look only for what passes from a frame to the one just before it.",
        "A leak may jump: from the last frame straight into the first.",
        "which later frames should be changed, and which earlier ones watched?",
    ),
    Mistake(
        "the past changed",
        _past_changed,
        "You change the past and watch the future.",
        "That the past acts on the future is what memory is for. Forbidden is the other direction.",
        "may a running sum remember frame 0?",
    ),
    Mistake(
        "the present watched too",
        _present_too,
        "You also watch the first frame that was changed, so nearly everything looks like a leak.",
        "Output frame t may depend on input frame t; only frames before the change must stay.",
        "if frames from t on differ, what is the last output frame that must not?",
    ),
    Mistake(
        "nothing changed",
        _same_film,
        "You call everything causal.",
        "Nothing of the future was changed, or it was compared with itself.",
        "how do your two films differ?",
    ),
    Mistake(
        "part of a frame",
        _single_pixel,
        "You watch only a part of each output frame: one sample, one channel or one pixel.",
        "A leak can sit in any corner of any of them.",
        "how many numbers does an output frame have, and how many do you compare?",
    ),
)
