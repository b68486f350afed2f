"""GIF: what we write comes back, and files of other origin are read as browsers show them."""

import io

import numpy as np
import pytest
from gif_by_hand import colour_table, gif, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minivdm.data.gif import TICK, even_delays, read_gif, write_gif
from minivdm.data.io import read_video
from minivdm.errors import UserError

BLACK, RED, GREEN, BLUE, WHITE = (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
COLOURS = [BLACK, RED, GREEN, BLUE, WHITE]
TABLE = colour_table(COLOURS)


def frames_of(data: bytes) -> np.ndarray:
    return np.stack([frame for frame, _ in read_gif(data)])


def paint(index) -> np.ndarray:
    return np.array(COLOURS, np.uint8)[np.asarray(index)]


def some_frames(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


# What we write


@given(
    order=st.lists(st.integers(0, 2), min_size=1, max_size=9),
    height=st.integers(1, 9),
    width=st.integers(1, 11),
    fps=st.sampled_from([1, 7, 8, 12.5, 24, 30, 50]),
)
@settings(deadline=None, max_examples=40)
def test_what_we_write_comes_back_exactly(order, height, width, fps):
    frames = some_frames(3, height, width)[order]  # with repeats, in any order
    frames[:, 0, 0] = 7
    data = write_gif(frames, fps)
    np.testing.assert_array_equal(frames_of(data), frames)
    seconds = sum(seconds for _, seconds in read_gif(data))
    assert abs(float(seconds) - len(order) / fps) <= 0.005 + 1e-9


def test_equal_frames_are_not_merged():
    ten = some_frames(1, 8, 12).repeat(10, axis=0)
    assert len(frames_of(write_gif(ten, 8))) == 10
    ten[4:6] = 9
    np.testing.assert_array_equal(frames_of(write_gif(ten, 8)), ten)
    assert len(frames_of(write_gif(np.zeros((5, 8, 12, 3), np.uint8), 8))) == 5


def test_other_readers_see_the_same():
    frames = some_frames(4, 8, 12)
    frames[2] = frames[1]
    frames[3, 2:4, 5:7] = 200
    image = Image.open(io.BytesIO(write_gif(frames, 8)))
    assert image.n_frames == 4 and image.info["loop"] == 0
    for position in range(4):
        image.seek(position)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), frames[position])


def test_many_colours_stay_close():
    ramp = np.linspace(0, 255, 48, dtype=np.uint8)
    frames = np.stack(np.meshgrid(ramp, ramp, ramp[:5], indexing="ij"), axis=-1).transpose(2, 0, 1, 3)
    error = np.abs(frames_of(write_gif(frames, 8)).astype(int) - frames)
    assert error.max() <= 32 and error.mean() < 8


def test_delays_add_up():
    assert sum(even_delays(4, 8, TICK)) == 50 and set(even_delays(4, 8, TICK)) == {12, 13}
    assert sum(even_delays(30, 30, TICK)) == 100 and set(even_delays(30, 30, TICK)) == {3, 4}


def test_a_rate_that_gif_cannot_have():
    with pytest.raises(ValueError, match="at most 50"):
        write_gif(some_frames(2, 3, 4), 60)


# Files of other origin


def test_interlaced_rows_are_put_in_order():
    index = np.random.default_rng(1).integers(0, 5, (23, 17))
    data = gif(23, 17, picture(index, interlaced=True), table=TABLE)
    np.testing.assert_array_equal(frames_of(data)[0], paint(index))


@pytest.mark.parametrize("height", [1, 2, 3, 5, 8, 9])
def test_interlaced_pictures_of_few_rows(height):
    index = np.random.default_rng(height).integers(0, 5, (height, 3))
    data = gif(height, 3, picture(index, interlaced=True), table=TABLE)
    np.testing.assert_array_equal(frames_of(data)[0], paint(index))


def test_local_palette_wins_over_the_global_one():
    swapped = colour_table([BLACK, BLUE, WHITE])
    index = np.array([[1, 2, 0]])
    data = gif(1, 3, picture(index), picture(index, table=swapped), picture(index), table=TABLE)
    first, second, third = frames_of(data)
    np.testing.assert_array_equal(first, paint([[1, 2, 0]]))
    np.testing.assert_array_equal(second, paint([[3, 4, 0]]))
    np.testing.assert_array_equal(third, first)


@pytest.mark.parametrize("disposal, under", [(0, 2), (1, 2), (2, 0), (3, 1)])
def test_disposal(disposal, under):
    """A red sky; a green 2×3 patch with this disposal; then one blue pixel elsewhere: what is where the patch was?"""
    sky, patch, dot = np.full((5, 7), 1), np.full((2, 3), 2), np.full((1, 1), 3)
    data = gif(5, 7, picture(sky), picture(patch, (1, 2), disposal=disposal), picture(dot, (4, 6)), table=TABLE)
    expected = np.stack([sky, sky, sky])
    expected[1, 1:3, 2:5] = 2
    expected[2, 1:3, 2:5] = under
    expected[2, 4, 6] = 3
    np.testing.assert_array_equal(frames_of(data), paint(expected))


def test_cleared_means_black_whatever_the_background_colour_says():
    """As browsers do: "restore to background" makes transparent, and transparent is shown over black."""
    white = np.full((2, 2), 4)
    data = gif(2, 3, picture(white, disposal=2), picture(np.full((1, 1), 1), (0, 2)), table=TABLE, background=4)
    np.testing.assert_array_equal(frames_of(data)[1], paint([[0, 0, 1], [0, 0, 0]]))


def test_transparent_pixels_show_what_was_there():
    below, above = np.array([[1, 2], [3, 4]]), np.array([[0, 3], [3, 0]])
    data = gif(2, 2, picture(below), picture(above, transparent=0), table=TABLE)
    np.testing.assert_array_equal(frames_of(data)[1], paint([[1, 3], [3, 4]]))


def test_transparent_first_picture_is_over_black():
    data = gif(1, 3, picture(np.array([[1, 4, 2]]), transparent=4), table=TABLE)
    np.testing.assert_array_equal(frames_of(data)[0], paint([[1, 0, 2]]))


def test_restore_previous_on_the_first_picture():
    data = gif(1, 2, picture(np.array([[1, 1]]), disposal=3), picture(np.array([[2]])), table=TABLE)
    np.testing.assert_array_equal(frames_of(data), paint([[[1, 1]], [[2, 0]]]))


def test_pictures_that_leave_the_canvas():
    data = gif(2, 3, picture(np.full((2, 3), 1)), picture(np.full((4, 5), 2), (1, 2)), table=TABLE)
    np.testing.assert_array_equal(frames_of(data)[1], paint([[1, 1, 1], [1, 1, 2]]))
    data = gif(2, 3, picture(np.full((2, 3), 1)), picture(np.full((2, 2), 2), (7, 9)), table=TABLE)
    np.testing.assert_array_equal(frames_of(data)[1], paint([[1, 1, 1], [1, 1, 1]]))


def test_canvas_smaller_than_the_first_picture():
    assert frames_of(gif(0, 0, picture(np.full((3, 5), 1)), table=TABLE)).shape == (1, 3, 5, 3)


@pytest.mark.parametrize("code_size", [1, 2])
def test_one_bit_pictures(code_size):
    index = np.random.default_rng(2).integers(0, 2, (7, 13))
    data = gif(7, 13, picture(index, code_size=code_size), table=colour_table([BLACK, WHITE]))
    np.testing.assert_array_equal(frames_of(data)[0], paint(4 * index))


def test_grey_ramp_palette():
    """Pillow would turn this one into a picture of another kind."""
    index = np.random.default_rng(3).integers(0, 256, (5, 7))
    data = gif(5, 7, picture(index), table=colour_table([(i, i, i) for i in range(256)]))
    np.testing.assert_array_equal(frames_of(data)[0], index[..., None].repeat(3, 2))


def test_index_beyond_the_palette_is_black():
    data = gif(1, 2, picture(np.array([[1, 77]])), table=TABLE)
    np.testing.assert_array_equal(frames_of(data)[0], paint([[1, 0]]))


def test_frames_of_different_length_stay_one_frame_each(tmp_path):
    pictures = [picture(np.full((2, 3), i % 5), delay=delay) for i, delay in enumerate([5, 100, 0, 1, 35])]
    path = tmp_path / "a.gif"
    path.write_bytes(gif(2, 3, *pictures, table=TABLE))
    clip = read_video(path)
    assert clip.frames.shape == (5, 2, 3, 3)
    assert clip.fps == pytest.approx(5 / 1.6)  # 0 and 1 count as browsers count them, a tenth of a second


def test_files_by_pillow(tmp_path):
    frames = some_frames(6, 33, 31)
    images = [Image.fromarray(frame).quantize(200) for frame in frames]
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=120, disposal=2)
    expected = np.stack([np.asarray(image.convert("RGB")) for image in images])
    np.testing.assert_array_equal(read_video(path).frames, expected)


# Damaged files


def test_a_cut_anywhere_is_found():
    index = np.random.default_rng(4).integers(0, 5, (6, 7))
    pictures = [picture(index, (i, i)) for i in range(3)]
    whole = gif(9, 10, *pictures, table=TABLE)
    ends = {len(whole) - 1 - sum(map(len, pictures[i:])): i for i in (1, 2, 3)}
    for cut in range(len(whole)):
        if cut in ends:  # only the end mark is missing: all that is there is whole
            assert len(frames_of(whole[:cut])) == ends[cut]
        else:
            with pytest.raises((ValueError, OSError)):
                frames_of(whole[:cut])


def test_pixels_that_stop_early_are_found(tmp_path):
    index = np.random.default_rng(5).integers(0, 5, (6, 7))
    short = picture(index[:4]).replace(b"\x07\x00\x04\x00\x00", b"\x07\x00\x06\x00\x00", 1)
    path = tmp_path / "short.gif"
    path.write_bytes(gif(6, 7, short, table=TABLE))
    with pytest.raises(UserError, match="short.gif"):
        read_video(path)


def test_no_picture_and_no_gif():
    with pytest.raises(ValueError, match="without a picture"):
        list(read_gif(gif(3, 4, table=TABLE)))
    with pytest.raises(ValueError, match="no GIF"):
        list(read_gif(b"hello, I am a text"))


def test_a_bomb_is_refused_before_it_is_unpacked():
    huge = picture(np.ones((1, 1), int)).replace(b"\x01\x00\x01\x00\x00", b"\xff\xff\xff\xff\x00")
    with pytest.raises(ValueError, match="65535×65535"):
        list(read_gif(gif(4, 4, huge, table=TABLE)))
    with pytest.raises(ValueError, match="60000×60000"):
        list(read_gif(gif(60000, 60000, picture(np.ones((2, 2), int)), table=TABLE)))
