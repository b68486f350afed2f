import json
from pathlib import Path

import pytest
import temporal_by_hand as by_hand
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from minivdm import parity
from minivdm.errors import UserError
from minivdm.vae import VAE_TEMPORAL_SD, TemporalVAE, TemporalVAEConfig

SIZES = {"in_out_channels": 3, "latent_embed_dim": 2, "embed_dim": 5, "filters": 4, "num_res_blocks": 1}
SIZES |= {"channel_multipliers": (1, 2, 3), "temporal_downsample": (True, True), "num_groups": 2}
FULL_SIZES = json.loads((Path(__file__).parent / "golden" / "full_size_keys.json").read_text())


def make(**changes):
    torch.manual_seed(0)
    vae = TemporalVAE(**SIZES | changes).eval()
    for parameter in vae.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5)
    return vae


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "shortcut"])
def vae(request):
    return make(shortcut=request.param)


@pytest.mark.parametrize("norm", ["frame", "group"])
@pytest.mark.parametrize(("frames", "down"), [(6, (True, False)), (11, (True, True)), (1, (True, True))])
def test_equal_to_plain_functions(norm, frames, down):
    vae = make(norm=norm, temporal_downsample=down, num_res_blocks=2)
    config = SIZES | {"norm": norm, "temporal_downsample": down, "num_res_blocks": 2}
    x, weights = torch.randn(2, 3, frames, 4, 6), vae.state_dict()
    z, posterior = vae.encode(x, sample=False, return_posterior=True)
    assert z.shape == (2, 5, *vae.get_latent_size((frames, 4, 6)))
    torch.testing.assert_close(posterior.moments, by_hand.moments(weights, x, config), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vae.decode(z, frames), by_hand.decode(weights, z, frames, config), atol=1e-5, rtol=1e-5)


def test_parity_on_another_seed_size_and_frame_count(tmp_path, capsys):
    model = SIZES | {"embed_dim": 2, "channel_multipliers": [2, 1], "temporal_downsample": [True]}
    vae, config = make(**model, norm="group"), model | {"norm": "group"}
    weights = vae.state_dict()
    x, z = torch.randn(3, 3, 7, 5, 2), torch.randn(3, 2, 4, 5, 2)
    tensors = {f"sd/{key}": value for key, value in weights.items()} | {"odd/in/x": x, "odd/in/z": z}
    tensors |= {"odd/in/noise": torch.randn(3, 2, 4, 5, 2), "odd/out/moments": by_hand.moments(weights, x, config)}
    tensors["odd/out/decoded"] = by_hand.decode(weights, z, 7, config)
    metadata = {"config": json.dumps({"model": model}), "cases": json.dumps({"odd": {"T": 7}})}
    metadata["reference"] = "hpcaitech/Open-Sora v1.2 opensora/models/vae/vae_temporal.py VAE_Temporal"
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "odd.safetensors", metadata)
    assert parity.run([tmp_path / "odd.safetensors"]) == 0
    assert "2 outputs compared, all ok" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "config"),
    [("VAE_Temporal_SD", VAE_TEMPORAL_SD), ("VAE_Temporal (class defaults)", TemporalVAEConfig())],
)
def test_full_sizes_have_the_published_names_and_counts(name, config):
    with torch.device("meta"):
        vae = TemporalVAE(config)
    expected = FULL_SIZES[name]
    assert sum(parameter.numel() for parameter in vae.parameters()) == expected["parameters"]
    theirs = expected["state_dict"]
    assert {key: list(tensor.shape) for key, tensor in vae.state_dict().items()} == theirs


@pytest.mark.parametrize(("frames", "front"), [(11, 1), (8, 0), (1, 3)])
def test_a_shortcut_is_added_past_both_halves(frames, front):
    """Frames under a latent frame stand side by side: one matrix makes a vector of them, another makes frames of it."""
    vae, plain = make(shortcut=True), TemporalVAE(**SIZES).eval()
    weights = vae.state_dict()
    past = {name: weights.pop(name) for name in list(weights) if name.startswith("shortcut")}
    plain.load_state_dict(weights)
    x = torch.randn(2, 3, frames, 4, 6)
    one, other = (model.encode(x, sample=False, return_posterior=True)[1] for model in (vae, plain))
    matrix, bias = past["shortcut_in.weight"].flatten(1), past["shortcut_in.bias"]
    padded = torch.cat([torch.zeros(2, 3, front, 4, 6), x], dim=2)
    groups = padded.unflatten(2, (-1, 4)).permute(0, 2, 4, 5, 1, 3).flatten(-2)  # (B, T', h, w, 3 channels of 4 frames)
    added = (groups @ matrix.T + bias).permute(0, 4, 1, 2, 3)
    torch.testing.assert_close(one.mean - other.mean, added, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.logvar, other.logvar, atol=0, rtol=0)
    z = torch.randn(2, 5, len(added[0, 0]), 4, 6)
    matrix, bias = past["shortcut_out.weight"].flatten(1), past["shortcut_out.bias"]
    frames_of = (z.permute(0, 2, 3, 4, 1) @ matrix.T + bias).unflatten(-1, (3, 4)).permute(0, 4, 1, 5, 2, 3)
    expected = frames_of.flatten(2, 3)[:, :, front:]
    torch.testing.assert_close(vae.decode(z, frames) - plain.decode(z, frames), expected, atol=1e-5, rtol=1e-5)


@given(st.integers(1, 13), st.integers(0, 12))
@settings(max_examples=15, deadline=None)
def test_no_frame_looks_beyond_its_group(vae, frames, which):
    which %= frames
    x = torch.randn(1, 3, frames, 2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(vae(x, sample_posterior=False)[0][:, :, which].sum(), x)
    seen = gradient.abs().amax((0, 1, 3, 4)) > 0
    front = -frames % 4
    last = (which + front) // 4 * 4 + 3 - front  # the last frame of the same latent frame
    assert not seen[last + 1 :].any() and seen[last]


def test_the_norm_of_upstream_looks_at_all_frames():
    vae = make(norm="group")
    x = torch.randn(1, 3, 9, 2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(vae(x, sample_posterior=False)[0][:, :, 0].square().sum(), x)
    assert (gradient.abs().amax((0, 1, 3, 4)) > 0).all()


@given(st.integers(1, 14), st.lists(st.integers(1, 5), min_size=14, max_size=14))
@settings(max_examples=20, deadline=None)
def test_in_pieces_as_in_one(vae, frames, lengths):
    x = torch.randn(2, 3, frames, 2, 4)

    def cut(clip):
        ends = torch.tensor(lengths).cumsum(0)
        return clip.tensor_split([end for end in ends.tolist() if end < clip.shape[2]], dim=2)

    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    with torch.no_grad():
        z = vae.encode(x, generator=generators[0])
        pieces = list(vae.encode_stream(cut(x), frames, generator=generators[1]))
        torch.testing.assert_close(torch.cat(pieces, dim=2), z, atol=1e-5, rtol=0)
        frames_out = torch.cat(list(vae.decode_stream(cut(z), frames)), dim=2)
        torch.testing.assert_close(frames_out, vae.decode(z, frames), atol=1e-5, rtol=0)


def test_frames_come_out_as_soon_as_their_latent_is_there(vae):
    z, arrived = torch.randn(1, 5, 3, 2, 4), []

    def pieces():
        for piece in z.split(1, dim=2):
            arrived.append(piece)
            yield piece

    counts = [(len(arrived), frames.shape[2]) for frames in vae.decode_stream(pieces(), num_frames=9)]
    assert counts == [(1, 1), (2, 4), (3, 4)]


def test_a_picture_is_the_first_frame_of_a_film(vae):
    x = torch.randn(2, 3, 9, 4, 6)
    with torch.no_grad():
        picture, film = vae.encode(x[:, :, :1], sample=False), vae.encode(x, sample=False)
        torch.testing.assert_close(film[:, :, :1], picture, atol=1e-6, rtol=0)
        torch.testing.assert_close(vae.decode(film, 9)[:, :, :1], vae.decode(picture, 1), atol=1e-5, rtol=0)


def test_lengths_and_sizes(vae):
    known = {1: 1, 4: 1, 5: 2, 16: 4, 17: 5, 34: 9}
    assert {frames: vae.get_latent_size((frames, 7, 3))[0] for frames in known} == known
    assert vae.get_latent_size((None, None, 3)) == (None, None, 3)
    assert vae.time_downsample_factor == 4 and vae.patch_size == (4, 1, 1)
    assert vae.encoder.conv_in.conv.bias is None and vae.last_layer is vae.decoder.conv_out.conv.weight


def test_noise_and_seeds(vae):
    x, noise = torch.randn(2, 3, 5, 2, 4), torch.randn(2, 5, 2, 2, 4)
    recon, posterior, z = vae(x, noise=noise)
    assert torch.equal(z, posterior.mean + posterior.std * noise) and recon.shape == x.shape
    draws = [vae.encode(x, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(vae(x, sample_posterior=False)[2], posterior.mode())


def test_gradients_reach_every_weight(vae):
    x = torch.randn(2, 3, 6, 2, 4)
    recon, posterior, _ = vae(x)
    loss = (recon - x).square().mean() + 1e-3 * posterior.kl().mean()
    for name, gradient in zip(dict(vae.named_parameters()), torch.autograd.grad(loss, vae.parameters()), strict=True):
        assert gradient.isfinite().all() and gradient.abs().sum() > 0, name


def test_saved_and_loaded(vae, tmp_path):
    vae.save_pretrained(tmp_path)
    again = TemporalVAE.from_pretrained(tmp_path)
    assert again.config == vae.config
    x = torch.randn(1, 3, 5, 2, 4)
    assert torch.equal(again(x, False)[0], vae(x, False)[0])


def test_mistakes_are_told_in_one_line(vae):
    z, x = torch.randn(1, 5, 3, 2, 4), torch.randn(1, 3, 9, 2, 4)
    for call, line in [
        (lambda: vae.decode(z), "decode needs num_frames, .* 9 to 12 would fit"),
        (lambda: vae.decode(z, 13), "num_frames 13 belongs to 4 latent frames, but there are 3: .* 9 to 12"),
        (lambda: vae.decode(z, 0), "num_frames is 0"),
        (lambda: vae.decode(x, 9), r"latent of shape \(1, 3, 9, 2, 4\): expected \(B, 5, T"),
        (lambda: vae.encode(z), r"clip of shape .*: expected \(B, 3, T, h, w\)"),
        (lambda: vae.encode(x[:, :, :0]), "T from 1 on"),
        (lambda: vae.encode(x, noise=z[:, :, :2]), "noise has shape"),
        (lambda: list(vae.decode_stream([z], 5)), "the stream has 3 latent frames or more: expected 2"),
        (lambda: list(vae.encode_stream([x], 11)), "the stream ended after 9 frames: expected 11"),
        (lambda: list(make(norm="group").decode_stream([z], 9)), "cannot stream: use norm='frame'"),
        (lambda: make(norm="layer"), "norm is 'layer'"),
        (lambda: make(num_groups=3), "num_groups 3 does not divide"),
        (lambda: make(temporal_downsample=(True,)), "temporal_downsample has 1 entries for the 3 levels .* expected 2"),
        (lambda: make(filter=4), "TemporalVAEConfig has no filter"),
        (lambda: make(filters=0), "filters is 0"),
    ]:
        with pytest.raises(UserError, match=line) as error:
            call()
        assert "\n" not in str(error.value)
