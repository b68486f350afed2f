import pytest
import torch
from torch import nn

from minivdm.errors import UserError
from minivdm.training.randomness import seeded_modules
from minivdm.vae.discriminator import (
    NLayerDiscriminator2D,
    NLayerDiscriminator3D,
    receptive_field,
    weights_init,
    weights_init_conv,
)
from minivdm.vae.style_discriminator import BlurPool3D, StyleDiscriminator3D


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_default_critic_of_films_is_the_published_one():
    with torch.device("meta"):
        critic = NLayerDiscriminator3D(input_nc=3)
        scores = critic(torch.zeros(1, 3, 16, 64, 64))
    assert scores.shape == (1, 1, 4, 2, 2)
    assert len(critic.convolutions) == 7
    assert round(sum(p.numel() for p in critic.parameters()) / 1e6, 1) == 18.8
    assert sum(isinstance(m, nn.Dropout) and m.p == 0.3 for m in critic.modules()) == 5


def test_another_kind_of_convolution_is_refused():
    with pytest.raises(AssertionError, match="conv_cls is 'conv2d'; expected 'conv3d'"):
        NLayerDiscriminator3D(conv_cls="conv2d")


CRITICS = {
    "2d": (lambda: NLayerDiscriminator2D(3, 2, 2, norm="group"), (1, 3, 40, 44)),
    "open-sora 2": (lambda: NLayerDiscriminator3D(3, 2, 2, norm="group", dropout=None), (1, 3, 24, 26, 28)),
    "open-sora 1.2": (
        lambda: NLayerDiscriminator3D(3, 2, 2, kernel_size=4, halve_time=1, dropout=None, norm="group"),
        (1, 3, 26, 40, 44),
    ),
}


class Still(nn.Module):
    """A norm without statistics, so that only convolutions carry influence."""

    def forward(self, x):
        return x


@pytest.mark.parametrize("build, shape", CRITICS.values(), ids=CRITICS)
def test_a_score_depends_on_its_receptive_field_and_on_nothing_else(build, shape):
    critic = build()
    for name, module in list(critic.main.named_children()):
        if isinstance(module, nn.GroupNorm):
            critic.main[int(name)] = Still()
    x = normal(*shape).requires_grad_(True)
    scores = critic(x)
    middle = tuple(side // 2 for side in scores.shape[2:])
    scores[(0, 0, *middle)].backward()
    touched = (x.grad[0].abs().sum(0) > 0).nonzero()
    span = (touched.amax(0) - touched.amin(0) + 1).tolist()
    assert tuple(span) == critic.receptive_field


def test_receptive_field_by_hand():
    assert receptive_field([3], [2]) == 3
    assert receptive_field([3, 3], [2, 1]) == 7
    assert receptive_field([4, 4, 4, 4, 4], [2, 2, 2, 1, 1]) == 70  # the critic that gave PatchGAN its 70 pixels


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_critic_of_pictures_judges_a_film_frame_by_frame(norm):
    critic, film = NLayerDiscriminator2D(3, 4, 2, norm).eval(), normal(2, 3, 5, 16, 20)
    scores = critic(film)
    assert scores.shape == (2, 1, 5, 2, 3)
    assert torch.allclose(scores[:, :, 3], critic(film[:, :, 3]), atol=1e-6)


def test_shuffled_frames_fool_a_critic_of_pictures_only():
    film, order = normal(2, 3, 9, 24, 20), torch.tensor([4, 0, 8, 2, 6, 1, 3, 7, 5])
    with seeded_modules(1):
        flat, deep = NLayerDiscriminator2D(3, 4, 2).eval(), NLayerDiscriminator3D(3, 4, 2).eval()
    assert torch.allclose(flat(film[:, :, order]), flat(film)[:, :, order], atol=1e-6)
    assert torch.allclose(flat(film[:, :, order]).mean(), flat(film).mean(), atol=1e-6)
    assert (deep(film[:, :, order]).mean() - deep(film).mean()).abs() > 1e-6


def test_with_group_norm_a_sample_does_not_depend_on_the_others():
    critic, films = NLayerDiscriminator3D(3, 4, 2, norm="group", dropout=None), normal(3, 3, 5, 16, 12)
    assert torch.allclose(critic(films)[1:2], critic(films[1:2]), atol=1e-6)


def test_initial_weights_are_those_of_dcgan():
    critic = NLayerDiscriminator3D(3, 32, 3)
    for module in critic.modules():
        if isinstance(module, nn.Conv3d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        if isinstance(module, nn.BatchNorm3d):
            assert (module.bias == 0).all() and module.weight.mean().item() == pytest.approx(1, abs=0.02)


def test_biases_of_convolutions_are_left_alone():
    conv = nn.Conv2d(3, 5, 3)
    before = conv.bias.clone()
    weights_init(conv)
    assert torch.equal(conv.bias, before)


def test_a_wrapped_convolution_is_reached():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(8, 64, 3)

    wrapper = Wrapper()
    nn.init.ones_(wrapper.conv.weight)
    weights_init_conv(wrapper)
    assert wrapper.conv.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    "critic, shape, message",
    [
        (NLayerDiscriminator2D(3, 2, 3), (1, 3, 16, 40), "got 16x40 and needs 24x24 or more"),
        (
            NLayerDiscriminator3D(3, 2, 3, kernel_size=4, halve_time=1, dropout=None),
            (1, 3, 9, 32, 32),
            "got 9x32x32 and needs 10x24x24 or more",
        ),
        (NLayerDiscriminator3D(3, 2, 2), (1, 1, 5, 32, 32), "built for 3 channels"),
        (NLayerDiscriminator3D(3, 2, 2), (1, 3, 32, 32), "takes films"),
        (NLayerDiscriminator2D(3, 2, 2), (3, 32, 32), r"takes \(N, C, H, W\)"),
    ],
)
def test_unfit_inputs_are_one_line(critic, shape, message):
    with pytest.raises(UserError, match=message):
        critic(torch.zeros(shape))


def test_an_unknown_norm_is_one_line():
    with pytest.raises(UserError, match="norm is 'layer'; choose one of batch, group"):
        NLayerDiscriminator2D(norm="layer")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_the_blur_keeps_what_is_constant_and_halves_every_axis(size):
    x = torch.full((2, 3, 5, 8, 7), 0.7)
    y = BlurPool3D(3, size)(x)
    assert y.shape == (2, 3, 3, 4, 4)
    assert torch.allclose(y, torch.full_like(y, 0.7))


def test_the_critic_of_whole_films_gives_one_score_each():
    critic = StyleDiscriminator3D((16, 20), 5, filters=4, channel_multipliers=(1, 2), num_groups=2)
    assert critic(normal(2, 3, 5, 16, 20)).shape == (2, 1)
    with pytest.raises(UserError, match=r"built for films \('B', 3, 5, 16, 20\), got \(2, 3, 4, 16, 20\)"):
        critic(normal(2, 3, 4, 16, 20))
