"""The fireworks world: what it draws, what it holds back from training, and that a seed always gives the same."""

import itertools
from collections import Counter

import pytest
import torch
from einops import reduce

from minivdm.data.fireworks import COLOURS, SHAPES, Scene, Shell, render, sample_scenes
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.scenes import ATTRIBUTES, HELD_OUT_KINDS, pair_is_held_out
from minivdm.errors import UserError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one(**changes: str) -> Scene:
    attributes = {"colour": "green", "shape": "ring", "column": "left", "row": "high", "size": "large"} | changes
    return Scene((Shell(**attributes),))


@pytest.mark.parametrize("frames, size", [(17, 32), (9, 32), (5, (24, 40)), (1, 16), (10, 64)])
def test_any_frame_count_and_size(frames, size):
    height, width = (size, size) if isinstance(size, int) else size
    video = render(sample_scenes(3, "scene", generator=seeded()), frames, size, generator=seeded(1))
    assert video.shape == (3, 3, frames, height, width)
    assert video.dtype == torch.float32
    assert video.min() >= -1 and video.max() <= 1


def test_a_seed_gives_the_same_clip_and_another_seed_another():
    scenes = sample_scenes(4, "scene", generator=seeded())
    first, again, other = (render(scenes, 9, 32, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert scenes == sample_scenes(4, "scene", generator=seeded())


def test_nine_frames_are_every_second_of_seventeen():
    scenes = sample_scenes(6, "scene", generator=seeded())
    slow, fast = (render(scenes, frames, 32, generator=seeded(1)) for frames in (17, 9))
    torch.testing.assert_close(fast, slow[:, :, ::2], atol=1e-4, rtol=0)


def test_other_frame_rates_and_sizes_show_the_same_firework():
    scenes = sample_scenes(6, "single", generator=seeded())
    usual = (render(scenes, 17, 32, generator=seeded(1)) + 1) / 2
    faster = (render(scenes, 33, 32, generator=seeded(1)) + 1) / 2
    larger = (render(scenes, 17, 64, generator=seeded(1)) + 1) / 2
    assert (faster[:, :, ::2] - usual).abs().mean() < 0.004
    assert (reduce(larger, "b c t (h 2) (w 2) -> b c t h w", "mean") - usual).abs().mean() < 0.01


def test_light_is_where_the_scene_says():
    scenes = [one(column=column, row=row) for column in ("left", "centre", "right") for row in ("high", "low")]
    light = reduce(render(scenes, 17, 32, generator=seeded()) + 1, "b c t h w -> b t h w", "mean")[:, 6]
    light = (light - 0.1).clamp(min=0)
    across = (light.sum(1) * torch.arange(32)).sum(1) / light.sum((1, 2))
    down = (light.sum(2) * torch.arange(32)).sum(1) / light.sum((1, 2))
    torch.testing.assert_close(across, torch.tensor([8.0, 8, 16, 16, 24, 24]) - 0.5, atol=2.0, rtol=0)
    torch.testing.assert_close(down, torch.tensor([9.0, 18.5] * 3) - 0.5, atol=2.0, rtol=0)


def test_colour_is_what_the_scene_says():
    red, green, blue = (one(colour=colour, shape="peony") for colour in ("red", "green", "blue"))
    video = render([red, green, blue], 17, 32, generator=seeded())
    brightest = (video - video[:, :, :1]).sum((2, 3, 4)).argmax(1)  # without the bluish sky of the first frame
    assert brightest.tolist() == [0, 1, 2]


def test_sky_is_dark_until_the_spark_and_brightest_after_the_burst():
    video = render([one()], 17, 32, generator=seeded())[0].amax((0, 2, 3))
    assert video[0] < -0.8
    assert video[4:7].max() > 0.3
    assert video[16] < video[6]


def test_rendering_leaves_the_number_of_threads_alone():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        render([one()], 3, 16, generator=seeded())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_empty_scene_is_an_empty_sky():
    assert render([Scene(())], 5, 16, generator=seeded()).amax() < -0.85


def test_train_never_holds_what_is_held_out_and_test_does_in_half():
    for level in ("single", "scene"):
        assert not any(scene.held_out for scene in sample_scenes(600, level, "train", generator=seeded()))
        for count in (2, 100):
            tested = sample_scenes(count, level, "test", generator=seeded())
            assert sum(scene.held_out for scene in tested) == count / 2


def test_train_still_shows_every_colour_and_shape_with_most_partners():
    seen = Counter(scene.shells[0].kind for scene in sample_scenes(4000, "single", generator=seeded()))
    assert set(seen) == set(itertools.product(COLOURS, SHAPES)) - HELD_OUT_KINDS
    assert all(sum(kind[0] == colour for kind in HELD_OUT_KINDS) <= 1 for colour in COLOURS)
    assert all(sum(kind[1] == shape for kind in HELD_OUT_KINDS) <= 2 for shape in SHAPES)
    kinds = list(itertools.product(COLOURS, SHAPES))
    for one_kind in kinds:
        lost = sum(pair_is_held_out(one_kind, other) for other in kinds)
        assert lost == sum(pair_is_held_out(other, one_kind) for other in kinds)
        assert 4 <= lost <= 8


def test_attributes_are_drawn_evenly():
    shells = [shell for scene in sample_scenes(3000, "scene", generator=seeded()) for shell in scene.shells]
    for attribute, names in ATTRIBUTES.items():
        counts = Counter(getattr(shell, attribute) for shell in shells)
        assert set(counts) == set(names)
        assert max(counts.values()) < 1.4 * min(counts.values())


def test_scenes_have_one_to_three_shells_at_distinct_places_in_order():
    scenes = sample_scenes(800, "scene", "test", generator=seeded())
    counts = Counter(len(scene.shells) for scene in scenes)
    assert 0.4 < counts[2] / 800 < 0.6 and 0.15 < counts[1] / 800 < 0.35 and set(counts) == {1, 2, 3}
    orders = Counter(scene.order for scene in scenes if len(scene.shells) > 1)
    assert 0.4 < orders["then"] / sum(orders.values()) < 0.6
    for scene in scenes:
        assert len({shell.place for shell in scene.shells}) == len(scene.shells)
        if scene.order == "then":
            assert list(scene.shells) == sorted(scene.shells, key=lambda shell: shell.burst)
        assert Scene.from_dict(scene.to_dict()) == scene


def test_mistakes_are_told_in_one_line():
    mistakes = [
        lambda: render([Scene((Shell(colour="red"),))], generator=seeded()),
        lambda: render([one()], frames=0, generator=seeded()),
        lambda: render([one()], size=4, generator=seeded()),
        lambda: sample_scenes(1, "double", generator=seeded()),
        lambda: sample_scenes(1, "scene", "validation", generator=seeded()),
        lambda: Shell(colour="pink"),
        lambda: Scene.from_dict({"shell": []}),
        lambda: Scene.from_dict({"shells": [{"color": "red"}]}),
    ]
    for mistake in mistakes:
        with pytest.raises(UserError) as error:
            mistake()
        assert "\n" not in str(error.value)


def test_dataset_items_are_the_same_whenever_they_are_asked_for():
    dataset = FireworksDataset(70, "scene", "test", frames=5, size=(16, 24), seed=3)
    again = FireworksDataset(70, "scene", "test", frames=5, size=(16, 24), seed=3)
    item = dataset[66]
    assert item["video"].shape == (3, 5, 16, 24)
    assert item["video"].min() >= -1 and item["video"].max() <= 1
    assert item["scene"] == dataset.scenes[66] and item["fps"] == 2.0
    for index in (66, 2):
        assert torch.equal(dataset[index]["video"], again[index]["video"])
        assert dataset[index, 4]["caption"] == again[index, 4]["caption"]
    assert len({dataset[66, epoch]["caption"] for epoch in range(8)}) > 1
    assert dataset.captions()[66] == item["caption"]


def test_splits_and_seeds_are_different_data():
    train, test, other = (
        FireworksDataset(4, "single", split, frames=3, size=16, seed=seed)
        for split, seed in (("train", 0), ("test", 0), ("train", 1))
    )
    assert train.scenes[::2] != test.scenes[::2] and train.scenes != other.scenes
