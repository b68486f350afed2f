import pytest
import torch
from safetensors.torch import save_file

from minivdm.data.fireworks import render, sample_scenes
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.training.trunk_heads import blur
from minivdm.vae.lpips import LPIPS, VGG16_LAYERS, ConvTrunk, Vgg16Trunk


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def lpips():
    return LPIPS()


@pytest.fixture(scope="module")
def films():
    scenes = sample_scenes(6, "single", "test", generator=torch.Generator().manual_seed(3))
    return render(scenes, 5, 32, generator=torch.Generator().manual_seed(4))


def test_equal_pictures_are_no_distance_apart_and_order_does_not_matter(lpips, films):
    x, y = films[:3], films[3:]
    assert (lpips(x, x) == 0).all()
    assert torch.allclose(lpips(x, y), lpips(y, x))
    assert (lpips(x[:, :, 3:], y[:, :, 3:]) > 0).all()


def test_a_film_is_measured_frame_by_frame(lpips, films):
    x, y = films[:2], films[2:4]
    found = lpips(x, y)
    assert found.shape == (10, 1, 1, 1)
    assert torch.allclose(found[7], lpips(x[1:, :, 2], y[1:, :, 2])[0], atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (48, 40), (9, 64)])
def test_the_distance_grows_with_blur_and_with_noise_at_any_size(lpips, size):
    scenes = sample_scenes(4, "single", "test", generator=torch.Generator().manual_seed(5))
    frames = render(scenes, 3, size, generator=torch.Generator().manual_seed(6))[:, :, 2]
    blurred = [lpips(frames, blur(frames, sigma)).mean() for sigma in (0.5, 1.0, 2.0, 3.0)]
    noisy = [lpips(frames, frames + s * normal(*frames.shape)).mean() for s in (0.02, 0.1, 0.3)]
    assert blurred == sorted(blurred)
    assert noisy == sorted(noisy)


def test_it_is_frozen_small_and_loaded_without_a_network(lpips):
    assert not any(weight.requires_grad for weight in lpips.parameters())
    assert not lpips.train().training
    weights = checkpoint_dir("toy/perceptual") / "lpips.safetensors"
    assert weights.stat().st_size < 300_000


def test_gradients_are_finite_where_there_is_nothing_to_see(lpips):
    night = torch.full((1, 3, 32, 32), -0.97)
    x = night.clone().requires_grad_(True)
    lpips(x, night).sum().backward()
    assert x.grad.isfinite().all()
    silent = LPIPS(ConvTrunk((2, 3)))
    for weight in silent.trunk.parameters():
        weight.zero_()
    x = night.clone().requires_grad_(True)
    silent(x, x.detach() + 1).sum().backward()
    assert x.grad.isfinite().all()


def test_a_gradient_pulls_a_blurred_frame_towards_the_sharp_one(lpips, films):
    sharp = films[:, :, 3]
    x = blur(sharp, 1.5).requires_grad_(True)
    before = lpips(x, sharp).sum()
    (slope,) = torch.autograd.grad(before, x)
    assert lpips(x - 0.02 * slope / slope.abs().max(), sharp).sum() < before


def test_grey_pictures_are_taken_as_colourless_ones(lpips, films):
    grey, other = films[:3, :1, 2], films[3:, :1, 2]
    assert torch.allclose(lpips(grey, other), lpips(grey.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("shapes", [((2, 3, 8, 9), (2, 3, 9, 8)), ((2, 4, 8, 8),) * 2, ((3, 8, 8),) * 2])
def test_other_shapes_are_one_line(lpips, shapes):
    with pytest.raises(UserError, match="LPIPS compares two"):
        lpips(*(torch.zeros(shape) for shape in shapes))


def test_an_unknown_trunk_is_one_line():
    with pytest.raises(UserError, match="unknown trunk 'alexnet'; choose fireworks"):
        LPIPS("alexnet")


def test_vgg16_is_read_from_files_and_never_fetched(tmp_path):
    with pytest.raises(UserError, match="no weights for VGG16"):
        LPIPS("vgg16")
    with pytest.raises(UserError, match="no such file"):
        LPIPS("vgg16", [tmp_path / "vgg.pth"])
    trunk = Vgg16Trunk()
    torch.save(dict(trunk.state_dict()), tmp_path / "vgg16.pth")
    with pytest.raises(UserError, match="no lin0.model.1.weight"):
        LPIPS("vgg16", [tmp_path / "vgg16.pth"])
    heads = {f"lin{k}.model.1.weight": normal(1, w, 1, 1, seed=k).abs() for k, w in enumerate(trunk.widths)}
    save_file(heads, tmp_path / "heads.safetensors")
    lpips = LPIPS("vgg16", [tmp_path / "vgg16.pth", tmp_path / "heads.safetensors"])
    assert torch.equal(lpips.heads[4], heads["lin4.model.1.weight"].flatten())
    assert torch.equal(lpips.trunk.features["28"].weight, trunk.features["28"].weight)
    assert [level.shape[-2:] for level in lpips.features(normal(1, 3, 16, 17))] == [
        (16, 17),
        (8, 8),
        (4, 4),
        (2, 2),
        (1, 1),
    ]
    with pytest.raises(UserError, match="15x40 is too small"):
        lpips(torch.zeros(1, 3, 15, 40), torch.zeros(1, 3, 15, 40))


def test_vgg16_has_the_published_places_and_size():
    with torch.device("meta"):
        trunk = Vgg16Trunk()
    assert len(VGG16_LAYERS) == 13
    assert sum(weight.numel() for weight in trunk.parameters()) == 14_714_688
    assert trunk.state_dict()["features.10.weight"].shape == (256, 128, 3, 3)
