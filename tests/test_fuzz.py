"""Random damage and random text: what comes back is a result or one line, within the memory that is documented."""

import struct

import numpy as np
import pytest
import yaml
from hostile_bytes import animated, crowded_npz, movie, npz, squares, whole
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minivdm.config import Config, load_config, load_preset, parse_overrides
from minivdm.data import limits
from minivdm.data.caption_files import swap_left_right
from minivdm.data.captions import ANY_SHAPE, MEANING, VOCABULARY, canonical, parse_caption, tokenize, unknown_words
from minivdm.data.io import read_video
from minivdm.errors import UserError, printable

try:
    import resource
except ImportError:  # Windows
    resource = None

WHOLE = {
    "gif": [lambda: whole("gif"), squares, lambda: squares(disposal=3, transparent=1, interlaced=True)],
    "webp": [lambda: whole("webp"), lambda: animated("WEBP", "RGBA", quality=50)],
    "mp4": [lambda: whole("mp4"), lambda: movie(sound=True)],
    "npz": [lambda: whole("npz"), crowded_npz, lambda: npz(frames__npy=b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', }\n")],
}
EXTREMES = st.sampled_from([0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1])


@st.composite
def damaged(draw, data: bytes) -> bytes:
    """The bytes with a few changed, numbers of four bytes made extreme, and stretches cut out, doubled or cut off."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(changed) - 5))
        kind = draw(st.sampled_from(["byte", "number", "number", "cut", "double", "end"]))
        if kind == "byte":
            changed[place] = draw(st.integers(0, 255))
        elif kind == "number":
            struct.pack_into(draw(st.sampled_from(["<I", ">I"])), changed, place, draw(EXTREMES))
        elif kind == "end":
            del changed[max(place, 8) :]
        else:
            stretch = changed[place : place + draw(st.integers(1, 64))]
            changed[place : place + (len(stretch) if kind == "cut" else 0)] = stretch if kind == "double" else b""
        if len(changed) < 8:
            break
    return bytes(changed)


@pytest.mark.parametrize("kind", WHOLE)
def test_readers(tmp_path_factory, kind):
    path = tmp_path_factory.mktemp("fuzz") / f"a.{kind}"
    whole_files = [make() for make in WHOLE[kind]]
    before = _peak()

    @given(data=st.data(), which=st.sampled_from(whole_files))
    @settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
    def read(data, which):
        path.write_bytes(data.draw(damaged(which)))
        try:
            frames = read_video(path).frames
        except UserError as error:
            assert str(error) == printable(str(error)) and str(error).startswith("cannot read the clip")
        else:
            assert frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3] == 3 and frames.size
            assert frames.size <= 3 * limits.MAX_CLIP_PIXELS

    read()
    assert _peak() - before <= limits.MAX_MEMORY


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if resource else 0


HEADS = [b"GIF89a", b"RIFF0000WEBP", b"PK\x03\x04", b"\0\0\0\x20ftypisom"]


@given(head=st.sampled_from(HEADS), rest=st.binary(min_size=1, max_size=300))
@settings(deadline=None, max_examples=100)
def test_anything_behind_the_right_first_bytes(tmp_path_factory, head, rest):
    path = tmp_path_factory.mktemp("fuzz") / "a"
    path.write_bytes(head + rest)
    with pytest.raises(UserError):
        read_video(path)


# Settings

NAMES = st.text(max_size=20) | st.sampled_from(
    "training.steps training.learning_rate data.size data.folder unet3d.dim_mults vae2d.ch_mult stdit3.patch_size "
    "flow.location training.precision data.flip seed task preset data training.stpes".split()
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.binary(max_size=5) | st.dates()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
TRICKS = ["&a [*a, *a]", "[", "{", "@", "!!python/object:os.system {}", "!!timestamp x", "2001-99-99", "1" * 5000]
OPTIONS = st.text(max_size=12) | NAMES.map(lambda name: f"--{name}") | st.sampled_from(TRICKS)


def is_config_or_one_line(make) -> None:
    try:
        assert isinstance(make(), Config)
    except UserError as error:
        assert str(error) == printable(str(error))


@given(overrides=st.dictionaries(NAMES, VALUES, max_size=3))
@settings(deadline=None, max_examples=80)
def test_overrides(overrides):
    is_config_or_one_line(lambda: load_preset("toy", overrides))


@given(arguments=st.lists(OPTIONS, max_size=4))
@settings(deadline=None, max_examples=100)
def test_the_command_line(arguments):
    is_config_or_one_line(lambda: load_preset("toy", parse_overrides(arguments)))


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
FILES = [
    b"training: " + b"[" * 5000,
    b"training: {steps: " + b"9" * 5000 + b"}",
    LAUGHS.encode(),
    b"!!python/object/apply:os.system ['touch ran']",
    b"a: !!timestamp x",
    b"? [a]\n: b",
    b"seed: 0\0",
    b"\xff\xfe",
    b"- a",
]


@pytest.mark.parametrize("content", FILES, ids=lambda content: ascii(content[:20]))
def test_files_of_settings_that_are_none(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "config.yaml")
    assert len(str(caught.value)) < 1000
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@given(values=st.dictionaries(st.text(max_size=10) | st.sampled_from(["training", "data", "seed"]), VALUES, max_size=4))
@settings(deadline=None, max_examples=60)
def test_files_of_settings(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("fuzz") / "config.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    is_config_or_one_line(lambda: load_config(path))


# Captions

SIGNS = [",", ".", "\0", "\u202e", "İ"]  # the last one is two letters in lower case
WORDS = st.sampled_from([*VOCABULARY, *(word.upper() for word in MEANING), *SIGNS])
TEXTS = st.lists(WORDS | st.text(max_size=8), max_size=30).map(" ".join) | st.text(max_size=200)


@given(text=TEXTS)
@settings(deadline=None, max_examples=250)
def test_captions(text):
    scene = parse_caption(text)
    if scene is not None:
        assert any(word in MEANING or word in ANY_SHAPE for word in tokenize(text))
        assert len(parse_caption(canonical(scene)).shells) == len(scene.shells)
    assert set(unknown_words(text)) <= set(tokenize(text)) - set(VOCABULARY)
    assert tokenize(swap_left_right(swap_left_right(text))) == tokenize(text)


def test_a_caption_of_ten_thousand_words_takes_no_time():
    assert len(parse_caption("a red ring, then " * 2_500).shells) == 2_500
    assert swap_left_right("left " * 10_000) == "right " * 10_000
