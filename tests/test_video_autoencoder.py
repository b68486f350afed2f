import json

import pytest
import temporal_by_hand as by_hand
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from minivdm import parity
from minivdm.errors import UserError
from minivdm.vae import (
    AutoEncoder2D,
    TemporalVAE,
    VideoAutoencoder,
    autoencoder_to_diffusers,
    video_autoencoder_from_opensora,
)

TEMPORAL = {"in_out_channels": 3, "latent_embed_dim": 2, "embed_dim": 5, "filters": 4, "num_res_blocks": 1}
TEMPORAL |= {"channel_multipliers": (1, 2, 1), "temporal_downsample": (True, True), "num_groups": 2}
SCALES = {"shift": [0.1, -0.4, 0.0, 0.2, 0.3], "scale": [2.0, 0.5, 1.0, 1.5, 0.8]}


def make(norm="frame", **options):
    torch.manual_seed(0)
    vae2d = AutoEncoder2D(ch=4, ch_mult=(1, 2, 1), num_res_blocks=1, z_channels=3, scale_factor=0.7, shift_factor=0.2)
    temporal = TemporalVAE(**TEMPORAL, norm=norm) if options.pop("temporal", True) else None
    if temporal is None:
        options["shift"], options["scale"] = 0.3, 2.0
    return VideoAutoencoder(vae2d, temporal, **{**SCALES, **options}).eval()


def clip(frames, batch=2):
    return torch.rand(batch, 3, frames, 8, 12, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_sizes_there_and_back():
    vae = make()
    recon, posterior, z = vae(clip(6), generator=seeded())
    assert z.shape == (2, 5, *vae.get_latent_size((6, 8, 12))) == (2, 5, 2, 2, 3)
    assert recon.shape == (2, 3, 6, 8, 12) and posterior.mean.shape == z.shape
    latents = z * vae.scale + vae.shift
    torch.testing.assert_close(vae.vae2d.decode(vae.temporal.decode(latents, 6)), recon, atol=1e-5, rtol=0)
    assert vae.get_latent_size((None, 8, None)) == (None, 2, None)


@pytest.mark.parametrize("temporal", [True, False])
def test_micro_batches_change_nothing(temporal):
    with torch.no_grad():  # in double precision: in single, kernels for other batch sizes round differently
        results = [
            make(micro_batch_size=size, temporal=temporal).double()(clip(6).double(), generator=seeded())
            for size in (None, 1, 2, 5)
        ]
    for recon, posterior, z in results[1:]:
        torch.testing.assert_close(z, results[0][2], atol=1e-10, rtol=0)
        torch.testing.assert_close(recon, results[0][0], atol=1e-10, rtol=0)
        torch.testing.assert_close(posterior.moments, results[0][1].moments, atol=1e-10, rtol=0)


@given(
    st.sampled_from([{}, {"micro_frame_size": 5}, {"micro_frame_size": 3, "norm": "group"}, {"temporal": False}]),
    st.integers(1, 12),
    st.lists(st.integers(1, 5), min_size=12, max_size=12),
)
@settings(max_examples=10, deadline=None)
def test_streamed_as_whole(options, frames, lengths):
    # in double precision: in single, kernels for pieces of other lengths round differently
    vae, video = make(micro_batch_size=3, **options).double(), clip(frames).double()

    def cut(x):
        ends = torch.tensor(lengths).cumsum(0).tolist()
        return x.tensor_split([end for end in ends if end < x.shape[2]], dim=2)

    with torch.no_grad():
        z = vae.encode(video, generator=seeded())
        assert z.shape[2:] == vae.get_latent_size((frames, 8, 12))
        streamed = torch.cat(list(vae.encode_stream(cut(video), generator=seeded())), dim=2)
        torch.testing.assert_close(streamed, z, atol=1e-10, rtol=0)
        films = torch.cat(list(vae.decode_stream(cut(z), frames)), dim=2)
        torch.testing.assert_close(films, vae.decode(z, frames), atol=1e-10, rtol=0)


def test_noise_given_streamed_as_whole():
    vae, video, noise = make(), clip(6), torch.randn(2, 5, 2, 2, 3)
    with torch.no_grad():
        pieces = vae.encode_stream(iter(video.split(4, dim=2)), 6, noise=noise)
        torch.testing.assert_close(torch.cat(list(pieces), dim=2), vae.encode(video, noise=noise), atol=1e-5, rtol=0)


def test_pieces_of_micro_frame_size_know_nothing_of_each_other():
    vae = make(micro_frame_size=5)
    video = clip(12)
    z = vae.encode(video, sample=False)
    torch.testing.assert_close(z[:, :, 2:4], vae.encode(video[:, :, 5:10], sample=False), atol=1e-5, rtol=0)
    assert [vae.get_latent_size((frames, 8, 8))[0] for frames in (4, 5, 6, 10, 12)] == [1, 2, 3, 4, 5]


def test_pictures_are_clips_of_one_frame():
    vae, pictures = make(), clip(1)[:, :, 0]
    recon, _, z = vae(pictures, sample=False)
    torch.testing.assert_close(vae.encode(pictures[:, :, None], sample=False), z)
    assert z.shape == (2, 5, 1, 2, 3) and recon.shape == (2, 3, 1, 8, 12)
    torch.testing.assert_close(vae.encode(clip(9), sample=False)[:, :, :1], vae.encode(clip(9)[:, :, :1], sample=False))


def test_the_2d_vae_stays_as_it_is_while_the_temporal_one_learns():
    vae = make().train()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    optimizer = torch.optim.SGD([parameter for parameter in vae.parameters() if parameter.requires_grad], lr=0.01)
    recon, _, _ = vae(clip(5))
    (recon - clip(5)).square().mean().backward()
    optimizer.step()
    changed = {name.split(".")[0] for name, value in vae.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"temporal"} and vae.last_layer is vae.temporal.last_layer
    free = make(freeze_2d=False)
    assert all(parameter.requires_grad for parameter in free.parameters()) and free.last_layer is free.vae2d.last_layer


@pytest.mark.parametrize("temporal", [True, False])
def test_saved_and_loaded(temporal, tmp_path):
    vae = make(temporal=temporal, micro_batch_size=4)
    vae.save_pretrained(tmp_path)
    again = VideoAutoencoder.from_pretrained(tmp_path, micro_batch_size=1)
    assert again.micro_batch_size == 1 and not again.training
    torch.testing.assert_close(again(clip(5), sample=False)[0], vae(clip(5), sample=False)[0], atol=5e-5, rtol=0)


def test_parity_on_another_seed_size_and_frame_count(tmp_path, capsys):
    """A file like the golden one, recorded from the 2D VAE (tested elsewhere) and the temporal one by hand."""
    torch.manual_seed(3)
    vae2d = AutoEncoder2D(ch=4, ch_mult=(1, 2), num_res_blocks=1, z_channels=2, norm_groups=2, quant_conv=True).eval()
    sizes = {"in_out_channels": 2, "latent_embed_dim": 2, "embed_dim": 2, "filters": 4, "num_res_blocks": 1}
    sizes |= {"channel_multipliers": [1, 1], "temporal_downsample": [True], "num_groups": 2}
    temporal = TemporalVAE(**sizes).eval().state_dict()
    kl = {"block_out_channels": [4, 8], "layers_per_block": 1, "latent_channels": 2, "norm_num_groups": 2}
    shift, scale = torch.randn(1, 2, 1, 1, 1), torch.rand(1, 2, 1, 1, 1) + 1

    x, z = clip(7, batch=1), torch.randn(1, 2, 4, 4, 6)
    noise2d, noise = torch.randn(7, 2, 4, 6), [torch.randn(1, 2, 2, 4, 6) for _ in range(2)]
    latents = vae2d.encode(x, sample=True, noise=rearrange(noise2d, "(b t) c h w -> b c t h w", b=1))
    out = []
    for piece, draw in zip(latents.split(4, dim=2), noise, strict=True):
        mean, logvar = by_hand.moments(temporal, piece, sizes | {"norm": "group"}).chunk(2, dim=1)
        out.append(mean + (logvar / 2).exp() * draw)
    lengths = zip((z * scale + shift).split(2, dim=2), (4, 3), strict=True)
    films = [by_hand.decode(temporal, piece, length, sizes | {"norm": "group"}) for piece, length in lengths]
    tensors = {f"sd/spatial_vae.module.{k}": v for k, v in autoencoder_to_diffusers(vae2d.state_dict()).items()}
    tensors |= {f"sd/temporal_vae.{k}": v for k, v in temporal.items()} | {"sd/shift": shift, "sd/scale": scale}
    tensors |= {"a/in/x": x, "a/in/z": z, "a/in/noise2d_0": noise2d[:5], "a/in/noise2d_1": noise2d[5:]}
    tensors |= {f"a/in/noiset_{i}": draw for i, draw in enumerate(noise)}
    tensors["a/out/z"] = (torch.cat(out, dim=2) - shift) / scale
    tensors["a/out/decoded"] = vae2d.decode(torch.cat(films, dim=2))
    metadata = {"config": json.dumps({"kl": kl, "temporal": sizes}), "cases": json.dumps({"a": {"mfs": 4, "mbs": 5}})}
    metadata["reference"] = "hpcaitech/Open-Sora v1.2 opensora/models/vae/vae.py VideoAutoencoderPipeline"
    tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    assert parity.run([tmp_path / "a.safetensors"]) == 0
    assert "2 outputs compared, all ok" in capsys.readouterr().out


def test_mistakes_are_told_in_one_line(tmp_path):
    vae, z = make(), torch.randn(1, 5, 2, 2, 3)
    vae.vae2d.save_pretrained(tmp_path)
    weights = {f"temporal_vae.{key}": value for key, value in vae.temporal.state_dict().items()}
    for call, line in [
        (lambda: vae.encode(clip(3)[..., :11]), "multiples of 4; resize or pad to 8×12"),
        (lambda: vae.encode(clip(3)[:, :2]), r"expected \(B, 3, H, W\)"),
        (lambda: vae.encode(clip(3)[:, :, :0]), "a clip of 0 frames"),
        (lambda: vae.encode(clip(3)[0, 0]), r"expected \(B, 3, T, H, W\)"),
        (lambda: vae.decode(z), "decode needs num_frames"),
        (lambda: vae.decode(z, 9), "num_frames 9 belongs to 3 latent frames, but there are 2"),
        (lambda: vae.decode(z[:, :3], 5), r"expected \(B, 5, T', h, w\)"),
        (lambda: list(vae.encode_stream(iter([clip(3)]))), "encode_stream needs num_frames"),
        (lambda: list(vae.decode_stream([z], 9)), "the stream ended after 2 latent frames: expected 3"),
        (lambda: list(make(norm="group").decode_stream([z], 5)), "cannot stream: use norm='frame'"),
        (lambda: make(micro_batch_size=0), "micro_batch_size is 0"),
        (lambda: make(scale=[1.0, 2.0]), "scale has 2 values: .* 5 channels"),
        (lambda: make(scale=0.0), "scale has a 0"),
        (lambda: VideoAutoencoder(AutoEncoder2D(ch=4, ch_mult=(1,), z_channels=2), vae.temporal), "have 2: choose two"),
        (lambda: VideoAutoencoder.from_pretrained(tmp_path), "is not that of a VideoAutoencoder"),
        (lambda: video_autoencoder_from_opensora(weights), "no key starts with spatial_vae.module."),
    ]:
        with pytest.raises(UserError, match=line) as error:
            call()
        assert "\n" not in str(error.value)
