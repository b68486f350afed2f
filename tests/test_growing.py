"""A grown model computes what the small one did, and the rest of it can learn."""

import pytest
import torch
import torch.nn.functional as F
from einops import repeat

from minivdm.config import load_preset
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.denoisers import STDiT3
from minivdm.errors import UserError
from minivdm.pipelines import load_video_autoencoder
from minivdm.training.growing import load_or_grow
from minivdm.training.latents import find_temporal_vae
from minivdm.training.vae2d_task import Vae2dTask
from minivdm.vae import AutoEncoder2D, TemporalVAE


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def awake(model, seed=1):
    """Zero-initialised layers drawn as well, so that nothing hides."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    return model.double().eval()


def test_a_2d_vae_of_squares_is_the_small_one_at_half_the_size():
    sizes = {"ch": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "norm_groups": 4}
    small = awake(AutoEncoder2D(**sizes, z_channels=3))
    large = AutoEncoder2D(**sizes, z_channels=5, patch=2).double().eval()
    load_or_grow(large, small.state_dict(), "small")
    assert large.get_latent_size((24, 40)) == (6, 10)
    pictures = noise(2, 3, 24, 40).double()
    halved = F.avg_pool2d(pictures, 2)
    one, other = small.posterior(halved), large.posterior(pictures)
    for part in ("mean", "logvar"):
        torch.testing.assert_close(getattr(other, part)[:, :3], getattr(one, part), rtol=1e-12, atol=1e-12)
    z = other.mode()
    assert z.shape == (2, 5, 6, 10) and z[:, 3:].std() > 1e-3  # what is new sees something from the start
    again = repeat(small.decode(one.mode()), "b c h w -> b c (h p) (w q)", p=2, q=2)
    torch.testing.assert_close(large.decode(z), again, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shortcut", [False, True])
def test_a_temporal_vae_of_more_channels_is_the_small_one(shortcut):
    sizes = {"filters": 8, "num_res_blocks": 1, "channel_multipliers": (1, 1), "temporal_downsample": (True,)}
    sizes["shortcut"] = shortcut
    small = awake(TemporalVAE(**sizes, num_groups=4, in_out_channels=3, latent_embed_dim=2, embed_dim=2))
    large = TemporalVAE(**sizes, num_groups=4, in_out_channels=5, latent_embed_dim=4, embed_dim=3).double().eval()
    load_or_grow(large, small.state_dict(), "small")
    clip = noise(2, 5, 7, 6, 10).double()
    one = small.encode(clip[:, :3], sample=False, return_posterior=True)[1]
    other = large.encode(clip, sample=False, return_posterior=True)[1]
    for part in ("mean", "logvar"):
        torch.testing.assert_close(getattr(other, part)[:, :2], getattr(one, part), rtol=1e-12, atol=1e-12)
    again = large.decode(other.mode(), num_frames=7)
    torch.testing.assert_close(again[:, :3], small.decode(one.mode(), num_frames=7), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pred_sigma", [False, True])
def test_a_denoiser_of_more_channels_is_the_small_one(pred_sigma):
    sizes = {"hidden_size": 24, "depth": 1, "num_heads": 2, "caption_channels": 7, "model_max_length": 6}
    sizes |= {"patch_size": (1, 2, 3), "pred_sigma": pred_sigma, "input_sq_size": 32}
    small = awake(STDiT3(in_channels=3, **sizes))
    large = STDiT3(in_channels=5, **sizes).double().eval()
    load_or_grow(large, small.state_dict(), "small")
    x, text = noise(2, 5, 4, 6, 9).double(), noise(2, 1, 6, 7, seed=2).double()
    size = {name: torch.tensor([32.0]) for name in ("fps", "height", "width")}
    t = torch.tensor([300.0, 700.0])
    one, other = small(x[:, :3], t, text, **size), large(x, t, text, **size)
    for start, first in ((0, 0), (3, 5))[: 1 + pred_sigma]:
        torch.testing.assert_close(other[:, first : first + 3], one[:, start : start + 3], rtol=1e-6, atol=1e-6)
    assert other[:, 3:5].abs().max() == 0  # the new channels say nothing yet


def test_equal_sizes_are_simply_loaded_and_others_are_refused():
    sizes = {"ch": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "norm_groups": 4}
    small, same = awake(AutoEncoder2D(**sizes, z_channels=3)), AutoEncoder2D(**sizes, z_channels=3)
    load_or_grow(same, small.state_dict(), "small")
    for name, weight in small.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], weight.float())
    with pytest.raises(UserError, match="conv_out.weight in small has shape"):
        load_or_grow(AutoEncoder2D(**sizes, z_channels=2), small.state_dict(), "small")
    with pytest.raises(UserError, match=r"small has shape \(8,"):
        load_or_grow(AutoEncoder2D(**(sizes | {"ch": 16}), z_channels=3), small.state_dict(), "small")


def test_toy_64_has_the_sizes_that_the_shipped_models_of_half_the_size_grow_into():
    few = {"data.clips": 2, "training.batch_size": 2}
    begun = Vae2dTask(load_preset("toy_64", few, task="vae2d")).model.vae.eval()
    shipped, video = (
        load_video_autoencoder("toy"),
        FireworksDataset(2, "scene", "test", size=64).videos.float() / 128 - 1,
    )
    halved = F.avg_pool2d(video.flatten(1, 2), 2).unflatten(1, (3, 17))
    with torch.no_grad():
        z = shipped.vae2d.encode(halved, sample=False)
        torch.testing.assert_close(begun.encode(video, sample=False)[:, :4], z, rtol=1e-4, atol=1e-4)
    begun_in_time = TemporalVAE(load_preset("toy_64", task="temporal_vae").temporal_vae).eval()
    load_or_grow(begun_in_time, find_temporal_vae("toy").state_dict(), "toy")
    with torch.no_grad():
        wider = torch.cat([z, noise(*z.shape)], dim=1)
        one = shipped.temporal.encode(z, sample=False)
        torch.testing.assert_close(begun_in_time.encode(wider, sample=False)[:, :4], one, rtol=1e-4, atol=1e-4)


def test_a_vae_to_begin_with_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=f"no temporal VAE in {tmp_path}"):
        find_temporal_vae(str(tmp_path))
    with pytest.raises(UserError, match=f"no 2D VAE in {tmp_path}"):
        Vae2dTask(load_preset("toy_64", {"data.clips": 2, "vae_loss.init": str(tmp_path)}, task="vae2d"))
