"""Pictures for notebooks: they show the right pixels, say what they show, and stay small."""

import base64
import json
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from minivdm import viz
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.io import to_uint8
from minivdm.data.webp import read_webp
from minivdm.errors import UserError
from minivdm.viz import words
from minivdm.viz.sheets import PANEL

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def some_videos(batch=2, frames=5, height=8, width=12) -> torch.Tensor:
    return torch.rand(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Images(HTMLParser):
    """The attributes of every <img>, and all text."""

    def __init__(self, page: str):
        super().__init__()
        self.images, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_data(self, data):
        self.text += data


# Player


def test_player_holds_the_very_clips():
    videos = some_videos()
    images = Images(viz.player(videos, ["one", "two"], fps=5, scale=3).data).images
    assert len(images) == 2
    for image, video in zip(images, videos, strict=True):
        kind, data = image["src"].split(",")
        assert kind == "data:image/webp;base64"
        frames = list(read_webp(base64.b64decode(data)))
        np.testing.assert_array_equal(np.stack([frame for frame, _ in frames]), to_uint8(video))
        assert {float(seconds) for _, seconds in frames} == {0.2}
        assert (image["width"], image["height"]) == ("36", "24") and "pixelated" in image["style"]


def test_player_says_what_it_shows():
    page = Images(viz.player(some_videos(), ["a <red> ring & more", ""]).data)
    assert "a <red> ring & more" in page.text
    assert [image["alt"] for image in page.images] == [
        "a <red> ring & more (clip 1 of 2, 5 frames, playing for ever)",
        "video (clip 2 of 2, 5 frames, playing for ever)",
    ]
    page = Images(viz.player(some_videos()[0], "label", alt='noise "melts"').data)
    assert page.images[0]["alt"] == 'noise "melts" (5 frames, playing for ever)' and page.text == "label"


def test_player_needs_no_network_and_sets_no_colours():
    page = viz.player(some_videos(), ["one", "two"], columns=2).data
    assert "http" not in page and "<script" not in page and "color:" not in page
    assert "repeat(2," in page and "auto-fill" in viz.player(some_videos()).data


def test_players_are_small():
    dataset = FireworksDataset(8, frames=9, size=32)
    page = viz.player([dataset[i]["video"] for i in range(8)], dataset.captions()).data
    assert len(page) < 100_000


def test_clips_of_several_sizes():
    clips = [some_videos(1, frames=2 + i, height=4 + i, width=6)[0] for i in range(3)]
    assert len(Images(viz.player(clips).data).images) == 3
    assert viz.contact_sheet(clips, columns=2).mode == viz.filmstrip(clips).mode == "RGB"


@pytest.mark.parametrize("show", [viz.player, viz.filmstrip, viz.contact_sheet])
def test_what_cannot_be_shown(show):
    with pytest.raises(UserError, match=r"shape \(1, 5, 8, 12\)"):
        show(torch.zeros(2, 1, 5, 8, 12))
    with pytest.raises(UserError, match="no clips"):
        show([])
    with pytest.raises(UserError, match="3 labels for 2 clips"):
        show(some_videos(), ["a", "b", "c"])
    with pytest.raises(UserError, match="NaN"):
        show(torch.full((3, 2, 4, 4), torch.nan))


# Sheets


def find(sheet: Image.Image, patch: np.ndarray) -> list[tuple[int, int]]:
    """(y, x) of every place where `patch` occurs in the sheet."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(sheet), patch.shape)[:, :, 0]
    return [tuple(place) for place in np.argwhere((windows == patch).all(axis=(2, 3, 4)))]


def test_filmstrip_shows_frames_from_left_to_right():
    videos = some_videos()
    sheet = viz.filmstrip(videos, ["first", "second"], titles=[f"t={i}" for i in range(5)], scale=2)
    places = []
    for frames in to_uint8(videos):
        found = [find(sheet, frame.repeat(2, 0).repeat(2, 1)) for frame in frames]
        assert [len(place) for place in found] == [1] * 5
        ys, xs = zip(*[place[0] for place in found], strict=True)
        assert len(set(ys)) == 1 and set(np.diff(xs)) == {2 * 12 + 2}
        places.append((ys[0], xs))
    assert places[0][0] < places[1][0] and places[0][1] == places[1][1]


def test_moments_are_spread_over_the_clip():
    video = some_videos(1, frames=9)[0]
    sheet = viz.filmstrip(video, moments=3, scale=1)
    shown = [i for i, frame in enumerate(to_uint8(video)) if find(sheet, frame)]
    assert shown == [1, 4, 7]
    assert viz.filmstrip(video, moments=20).width > sheet.width  # more than there are: some twice
    with pytest.raises(UserError, match="2 titles for 3 frames"):
        viz.filmstrip(video, titles=["a", "b"], moments=3)


def test_contact_sheet_shows_every_clip_in_reading_order():
    videos = some_videos(5)
    sheet = viz.contact_sheet(videos, [f"a clip with number {i}" for i in range(5)], columns=3, moments=1, scale=2)
    places = [find(sheet, frames[2].repeat(2, 0).repeat(2, 1)) for frames in to_uint8(videos)]
    assert all(len(place) == 1 for place in places)
    order = [place[0] for place in places]
    assert order == sorted(order) and len({y for y, _ in order}) == 2


def test_labels_are_written():
    video = some_videos(1)
    bare, labelled = (
        viz.contact_sheet(video),
        viz.contact_sheet(video, ["a label that needs several lines of text to fit"]),
    )
    assert labelled.height > bare.height + 20
    below = np.asarray(labelled)[bare.height - 8 :]
    assert (below != PANEL).any() and below.max() > 200
    assert viz.filmstrip(video, ["label"]).width > viz.filmstrip(video).width


# Plots


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        levels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_colours_differ_and_show_on_the_panel():
    fig, axes = viz.figure()
    panel = plt.matplotlib.colors.to_hex(axes.get_facecolor())
    meanings = [viz.SPACE, viz.TIME, viz.TEXT, viz.DATA, viz.NOISE]
    assert len(set(meanings)) == 5
    assert min(contrast(colour, panel) for colour in meanings) > 2.9 and contrast(viz.INK, panel) > 7
    assert fig.get_facecolor()[3] == 1  # opaque: the page behind does not matter
    plt.close(fig)


def test_figures_do_not_change_the_readers_settings():
    before = dict(plt.rcParams)
    fig, axes = viz.figure(2, 3)
    assert axes.shape == (2, 3) and dict(plt.rcParams) == before
    plt.close(fig)


def test_loss_curve_from_rows_and_from_a_file(tmp_path):
    rows = [{"step": 5 * i, "loss": 1 / i, "learning_rate": 0.1} for i in range(1, 40)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 200, "lo')
    fig = viz.loss_curve(tmp_path / "metrics.jsonl", tmp_path / "new" / "loss.png", floor=0.02)
    measured, mean, floor = fig.axes[0].lines
    np.testing.assert_array_equal(measured.get_xdata(), [row["step"] for row in rows])
    np.testing.assert_array_equal(measured.get_ydata(), [row["loss"] for row in rows])
    assert len(mean.get_ydata()) == 39 and set(floor.get_ydata()) == {0.02}
    assert Image.open(tmp_path / "new" / "loss.png").size[0] > 600
    assert len(viz.loss_curve(rows).axes[0].lines) == 2
    assert not plt.get_fignums()  # nothing is left open in a long training


@pytest.mark.parametrize("count", [0, 1, 3])
def test_loss_curve_of_a_young_run(tmp_path, count):
    viz.loss_curve([{"step": i, "loss": 1.0} for i in range(count)], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").exists()


def test_running_mean_is_a_mean():
    fig = viz.loss_curve([{"step": i, "loss": 1.0 + i % 2} for i in range(40)])
    mean = fig.axes[0].lines[1].get_ydata()
    np.testing.assert_allclose(mean[2:-2], 1.5)


def test_pictures_are_saved(tmp_path):
    sheet = viz.contact_sheet(some_videos())
    path = viz.save_png(sheet, tmp_path / "sheets" / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(sheet))
    assert re.fullmatch("a.png", *[file.name for file in path.parent.iterdir()])


# Words for those who cannot see


def test_picture_is_an_image_with_alternative_text():
    fig, ax = viz.figure()
    ax.plot([1, 2])
    for shown in (fig, Image.new("RGB", (3, 2)), PNG):
        made = viz.picture(shown, 'two "curves"\n  & a dot')
        (image,) = Images(made.data).images
        assert image["alt"] == repr(made) == 'two "curves" & a dot'
        kind, data = image["src"].split(",")
        assert kind == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG")


def test_figures_say_what_stands_in_them(monkeypatch):
    fig, (left, middle, right) = viz.figure(1, 3)
    left.plot([1, 2], label="a <curve>")
    left.set(title="growth", xlabel="step", ylabel="the\nloss")
    middle.imshow(np.zeros((2, 3)))
    middle.set(title="a frame")
    right.set_axis_off()
    said = []
    monkeypatch.setattr(words, "display", said.append)
    fig._ipython_display_()
    assert repr(said[0]) == "growth: the loss against step: curves a <curve>; a frame: picture"
    assert words.in_words(viz.figure()[0]) == "a drawing without words"
    assert "a <curve>" in Images(said[0].data).images[0]["alt"]
