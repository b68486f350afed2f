"""The door between files and tensors: every format, real files of other origin, bad files, a full disk."""

import io
import struct
import zipfile
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minivdm.data import limits
from minivdm.data.io import from_uint8, read_video, to_uint8, write_atomically, write_video
from minivdm.errors import UserError


def some_frames(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def grey_steps(count: int, height: int, width: int) -> np.ndarray:
    """Frame i is grey of level 20·i with a brighter top-left quarter, so that order and direction can be read off."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = 20 * np.arange(count)[:, None, None, None]
    frames[:, : height // 2, : width // 2] += 60
    return frames


# Values


def test_values_survive_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(2, 16, 16, 3)
    video = from_uint8(levels)
    assert video.shape == (3, 2, 16, 16) and video.min() == -1 and video.max() == 1
    np.testing.assert_array_equal(to_uint8(video), levels.numpy())


def test_batches_keep_their_leading_axes():
    video = torch.rand(2, 3, 5, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    frames = to_uint8(video)
    assert frames.shape == (2, 5, 8, 12, 3)
    assert (from_uint8(frames) - video).abs().max() <= 1 / 255 + 1e-6
    assert frames[1, 4, 7, 11, 2] == round((float(video[1, 2, 4, 7, 11]) + 1) * 127.5)


def test_overshoot_is_clamped_and_nonsense_refused():
    video = torch.tensor([-1.2, 1.3, 0.0]).reshape(3, 1, 1, 1)
    assert to_uint8(video).reshape(-1).tolist() == [0, 255, 128]
    with pytest.raises(UserError, match="NaN"):
        to_uint8(torch.full((3, 1, 2, 2), torch.nan))
    with pytest.raises(UserError, match=r"reach 255; expected floats in \[-1, 1\]"):
        to_uint8(torch.full((3, 1, 2, 2), 255.0))
    with pytest.raises(UserError, match="expected uint8"):
        from_uint8(torch.zeros(1, 2, 2, 3))


# What we write comes back


@pytest.mark.parametrize("kind", ["gif", "webp", "npz"])
@given(order=st.lists(st.integers(0, 2), min_size=1, max_size=7), size=st.tuples(st.integers(1, 9), st.integers(1, 11)))
@settings(deadline=None, max_examples=15)
def test_lossless_formats(tmp_path_factory, kind, order, size):
    frames = some_frames(3, *size)[order]
    path = write_video(tmp_path_factory.mktemp("clips") / f"a.{kind}", frames, fps=12.5)
    clip = read_video(path)
    np.testing.assert_array_equal(clip.frames, frames)


@pytest.mark.parametrize("kind", ["gif", "webp", "npz", "mp4"])
@pytest.mark.parametrize("fps", [1, 7, 8, 12, 25, 30, 50])
def test_rate_is_kept(tmp_path, kind, fps):
    assert read_video(write_video(tmp_path / f"a.{kind}", some_frames(17, 8, 12), fps)).fps == fps


def test_tensors_are_written_as_they_are(tmp_path):
    video = torch.rand(3, 5, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    np.testing.assert_array_equal(read_video(write_video(tmp_path / "new" / "a.WEBP", video)).frames, to_uint8(video))
    frames = torch.from_numpy(to_uint8(video))
    np.testing.assert_array_equal(read_video(write_video(tmp_path / "a.npz", frames)).frames, frames.numpy())


def test_mp4_keeps_number_and_order(tmp_path):
    frames = grey_steps(9, 32, 48)
    frames[3:6] = frames[3]
    clip = read_video(write_video(tmp_path / "a.mp4", frames, 8))
    assert clip.frames.shape == frames.shape
    assert np.abs(clip.frames.astype(int) - frames).mean() < 2


def test_mp4_is_the_same_file_however_many_cores_there_are(tmp_path):
    data = write_video(tmp_path / "a.mp4", some_frames(3, 256, 192), 8).read_bytes()
    assert b" threads=1 " in data and b" sliced_threads=0 " in data  # x264 writes its settings into the stream


def test_mp4_grows_odd_sizes_by_one(tmp_path):
    frames = grey_steps(5, 31, 47)
    clip = read_video(write_video(tmp_path / "a.mp4", frames, 8))
    assert clip.frames.shape == (5, 32, 48, 3)
    np.testing.assert_array_equal(clip.frames[:, 30, :40] // 8, clip.frames[:, 31, :40] // 8)
    assert np.abs(clip.frames[:, :31, :47].astype(int) - frames).mean() < 2


def test_same_bytes_every_time(tmp_path):
    for kind in ("gif", "webp", "npz"):
        first, second = (write_video(tmp_path / f"{i}.{kind}", some_frames(3, 8, 12)) for i in range(2))
        assert first.read_bytes() == second.read_bytes()


def test_what_cannot_be_written(tmp_path):
    frames = some_frames(2, 4, 5)
    with pytest.raises(UserError, match=r"ends in .gif, .mp4"):
        write_video(tmp_path / "a.avi", frames)
    with pytest.raises(UserError, match="at most 50"):
        write_video(tmp_path / "a.gif", frames, fps=60)
    with pytest.raises(UserError, match="above 0"):
        write_video(tmp_path / "a.gif", frames, fps=0)
    with pytest.raises(UserError, match=r"\(2, 4, 5, 3\) float64"):
        write_video(tmp_path / "a.gif", frames / 255)
    with pytest.raises(UserError, match="empty video"):
        write_video(tmp_path / "a.gif", frames[:0])
    assert not list(tmp_path.iterdir())


# Files of other origin


def test_a_webp_named_gif(tmp_path):
    path = write_video(tmp_path / "a.webp", some_frames(2, 4, 5)).rename(tmp_path / "a.gif")
    np.testing.assert_array_equal(read_video(path).frames, some_frames(2, 4, 5))


def test_webp_with_alpha_is_over_black(tmp_path):
    pixels = some_frames(3, 6, 7).repeat(4, axis=3)[..., :4]
    pixels[..., 3] = np.array([0, 51, 255], np.uint8)[:, None, None]
    images = [Image.fromarray(frame, "RGBA") for frame in pixels]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], lossless=True, exact=True, duration=40)
    clip = read_video(tmp_path / "a.webp")
    # Pillow's animations blend over what was there, so the second frame is a fifth of itself over black.
    np.testing.assert_array_equal(clip.frames[0], 0 * pixels[0, ..., :3])
    np.testing.assert_allclose(clip.frames[1].astype(int), pixels[1, ..., :3] * 0.2, atol=1)
    np.testing.assert_array_equal(clip.frames[2], pixels[2, ..., :3])
    assert clip.fps == 25


def test_still_webp_is_one_frame(tmp_path):
    Image.fromarray(some_frames(1, 5, 7)[0]).save(tmp_path / "a.webp", lossless=True)
    clip = read_video(tmp_path / "a.webp")
    np.testing.assert_array_equal(clip.frames, some_frames(1, 5, 7))
    assert clip.fps == 10


def encode_mp4(frames, times=None, rate=8, pixel_format="yuv420p", audio=False, **options) -> bytes:
    """An MP4 with x264's `options`; `times` are the frames' moments in milliseconds."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.options = pixel_format, {"crf": "1", **options}
        sound = container.add_stream("aac", rate=8000, layout="mono") if audio else None
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            wave = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            wave.sample_rate = 8000
            container.mux(sound.encode(wave))
            container.mux(sound.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"bf": "3", "b_strategy": "0"},
        {"bf": "0", "g": "1"},
        {"pixel_format": "yuv444p"},
        {"audio": True},
        {"times": [0, 10, 20, 400, 410, 900, 910, 1000]},
        {"movflags": "faststart"},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(32, 48), (34, 50)])
def test_mp4_of_other_origin(tmp_path, options, size):
    frames = grey_steps(8, *size)
    (tmp_path / "a.mp4").write_bytes(encode_mp4(frames, **options))
    clip = read_video(tmp_path / "a.mp4")
    assert clip.frames.shape == frames.shape
    assert np.abs(clip.frames.astype(int) - frames).mean() < 2.5
    if "times" not in options:
        assert clip.fps == 8
    else:
        assert 6 < clip.fps < 9  # eight frames in about a second


def test_mp4_of_odd_size(tmp_path):
    frames = grey_steps(4, 33, 47)
    (tmp_path / "a.mp4").write_bytes(encode_mp4(frames, pixel_format="yuv444p"))
    clip = read_video(tmp_path / "a.mp4")
    assert clip.frames.shape == frames.shape
    assert np.abs(clip.frames.astype(int) - frames).mean() < 2.5


@pytest.mark.parametrize(
    "matrix, turns",
    [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
    ids=["quarter clockwise", "half", "quarter anticlockwise"],
)
def test_mp4_rotated_by_a_phone(tmp_path, matrix, turns):
    """The track header's matrix maps stored x and y to shown ones: (0, 1, -1, 0) is a quarter turn clockwise."""
    frames = grey_steps(4, 32, 48)
    data = bytearray(encode_mp4(frames))
    a, b, c, d = matrix
    place = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of flags, times, ids and volume come first
    struct.pack_into(">9i", data, place, a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(data)
    expected = np.rot90(frames, turns, axes=(1, 2))
    clip = read_video(tmp_path / "a.mp4")
    assert clip.frames.shape == expected.shape
    assert np.abs(clip.frames.astype(int) - expected).mean() < 2.5


# Bad files


def whole_file(kind: str, tmp_path) -> bytes:
    return write_video(tmp_path / f"whole.{kind}", some_frames(5, 24, 32), 8).read_bytes()


@pytest.mark.parametrize("kind", ["gif", "webp", "npz", "mp4"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_one_line(tmp_path, kind, share):
    data = whole_file(kind, tmp_path)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=f"cut.{kind}") as caught:
        read_video(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_mp4_with_its_index_first(tmp_path):
    data = encode_mp4(some_frames(8, 32, 48), movflags="faststart")
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(UserError, match="cut.mp4"):
        read_video(tmp_path / "cut.mp4")


@pytest.mark.parametrize("kind", ["gif", "webp", "npz", "mp4"])
@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_damage_never_gives_a_traceback(tmp_path_factory, kind, seed):
    """Bytes changed at random: the clip is read, or there is one line."""
    folder = tmp_path_factory.mktemp("damaged")
    data = bytearray(whole_file(kind, folder))
    generator = np.random.default_rng(seed)
    for place in generator.integers(0, len(data), 6):
        data[place] = generator.integers(256)
    (folder / f"a.{kind}").write_bytes(data)
    try:
        assert read_video(folder / f"a.{kind}").frames.ndim == 4
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"hello, this is a text", b"ffconcat version 1.0\nfile a.mp4", b"GIF89a"]
)
@pytest.mark.parametrize("kind", ["gif", "webp", "npz", "mp4"])
def test_what_is_no_clip(tmp_path, kind, content):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"a.{kind}: "):
        read_video(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_video(tmp_path / "none.gif")
    with pytest.raises(UserError, match="directory"):
        read_video(tmp_path)


def test_sound_without_pictures(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        wave.sample_rate = 8000
        container.mux(sound.encode(wave))
        container.mux(sound.encode(None))
    with pytest.raises(UserError, match="without a video stream"):
        read_video(tmp_path / "a.mp4")


def test_npz_of_another_kind(tmp_path):
    np.savez(tmp_path / "a.npz", frames=np.zeros((2, 4, 5, 3)))
    with pytest.raises(UserError, match=r"frames \(2, 4, 5, 3\) float64"):
        read_video(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", other=np.zeros(3))
    with pytest.raises(UserError, match="b.npz"):
        read_video(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", frames=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="c.npz"):
        read_video(tmp_path / "c.npz")


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 4096, 4096, 3)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("frames.npy", header.getvalue())
    with pytest.raises(UserError, match="a.npz: more than"):
        read_video(tmp_path / "a.npz")


def test_long_clips_are_refused_unless_made_small_on_the_way(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.gif", some_frames(5, 8, 12))
    monkeypatch.setattr(limits, "MAX_CLIP_PIXELS", 4 * 8 * 12)
    with pytest.raises(UserError, match="a.gif: more than 384 pixels"):
        read_video(path)
    assert read_video(path, each_frame=lambda frame: frame[::2, ::2]).frames.shape == (5, 4, 6, 3)


# A full disk


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.npz"
    write_atomically(path, b"the old one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # no file may grow beyond 1000 bytes
        with pytest.raises(UserError, match=r"cannot write .*a\.npz: .*; make room or choose another folder"):
            write_video(path, some_frames(5, 24, 32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
    assert path.read_bytes() == b"the old one"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "file" / "a.gif", b"x")
