"""What a film is given: which latent frames, what stands for them, and that they are kept."""

import pytest
import torch
from PIL import Image
from video_pipelines import tiny_pipeline, tiny_vae

from minivdm.data.io import write_video
from minivdm.diffusion import CONDITIONS, apply_mask_strategy, condition_strategy
from minivdm.diffusion.open_sora2 import given_frames
from minivdm.errors import UserError
from minivdm.pipelines import load_video_autoencoder
from minivdm.pipelines.given import gather, head_frames, read_clip, read_picture


def clip(frames, size=(8, 12), seed=0):
    return torch.rand(3, frames, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def psnr(a, b):
    return -10 * torch.log10((a - b).square().mean() / 4)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return tiny_pipeline(tmp_path_factory.mktemp("t5"))


def placed(condition, frames=7, loop=0, **options):
    """What of the references 0 (latent frames 0, 1, ...) and 1 (100, 101, ...) lies where; -1 is generated."""
    references = [
        torch.arange(4.0).expand(2, 4)[..., None, None],
        torch.arange(100.0, 103).expand(2, 3)[..., None, None],
    ]
    z = torch.full((2, frames, 1, 1), -1.0)
    z, mask = apply_mask_strategy(z, references, condition_strategy(condition, **options), loop)
    assert ((mask == 0) == (z[0, :, 0, 0] >= 0)).all()
    return z[0, :, 0, 0].int().tolist()


def test_each_condition_gives_its_frames():
    assert placed("t2v") == [-1] * 7
    assert placed("i2v_head") == [0, -1, -1, -1, -1, -1, -1]
    assert placed("i2v_tail") == [-1, -1, -1, -1, -1, -1, 3]
    assert placed("i2v_loop") == [0, -1, -1, -1, -1, -1, 102]
    assert placed("v2v_head", kept=3) == [0, 1, 2, -1, -1, -1, -1]
    assert placed("v2v_tail", kept=2) == [-1, -1, -1, -1, -1, 2, 3]
    assert placed("i2v_loop", clips=3, loop=0) == [0, -1, -1, -1, -1, -1, -1]
    assert placed("i2v_loop", clips=3, loop=1) == [-1] * 7
    assert placed("i2v_loop", clips=3, loop=2) == [-1, -1, -1, -1, -1, -1, 102]
    with pytest.raises(UserError, match="'i2v': expected one of t2v, i2v_head"):
        condition_strategy("i2v")


@pytest.mark.parametrize("condition", CONDITIONS[:4])
def test_pictures_are_given_where_open_sora_2_gives_them(condition):
    for frames in (5, 8):
        assert [place >= 0 for place in placed(condition, frames)] == given_frames(condition, frames).tolist()


@pytest.mark.parametrize("micro", [None, 5, 17])
def test_latents_are_counted_back_to_frames(micro):
    vae = tiny_vae(micro_frame_size=micro)
    for frames in range(1, 35):
        latents = vae.get_latent_size((frames, None, None))[0]
        ends = [head_frames(vae, frames, count) for count in range(1, latents + 1)]
        assert ends[-1] == frames and all(0 < b - a <= 4 for a, b in zip([0, *ends], ends, strict=False))
    assert head_frames(tiny_vae(), 17, 1) == 1 and head_frames(tiny_vae(), 17, 3) == 9
    assert head_frames(tiny_vae(micro_frame_size=17), 34, 6) == 18


@pytest.mark.parametrize("frames", [5, 6, 8, 9])
def test_a_head_is_what_the_film_itself_begins_with_and_a_tail_what_it_ends_with(frames):
    vae, film = tiny_vae(), clip(frames)
    whole = vae.encode(film[None], sample=False)
    options = {"video": film, "condition": "v2v_head"}
    head = gather(vae, frames, (8, 12), **options).references[0]
    torch.testing.assert_close(head, whole[:, :, : head.shape[2]], atol=1e-5, rtol=1e-5)
    still = film[:, :1].expand(-1, frames, -1, -1)
    first = gather(vae, frames, (8, 12), image=still[:, 0]).references[0]
    torch.testing.assert_close(first, vae.encode(still[None], sample=False)[:, :, :1], atol=1e-5, rtol=1e-5)
    tail = gather(vae, frames, (8, 12), **options | {"condition": "v2v_tail"}).references[0]
    torch.testing.assert_close(tail, whole[:, :, -tail.shape[2] :], atol=1e-5, rtol=1e-5)
    assert head.shape[2] == tail.shape[2] == whole.shape[2] // 2


def test_a_short_clip_gives_as_many_latents_as_it_fills():
    vae = tiny_vae()

    def kept(length, condition):
        return gather(vae, 21, (8, 12), video=clip(length), condition=condition).references[0].shape[2]

    assert [kept(length, "v2v_head") for length in (1, 4, 5, 8, 9, 13, 21)] == [1, 1, 2, 2, 3, 3, 3]
    assert [kept(length, "v2v_tail") for length in (1, 4, 7, 8, 11, 12, 21)] == [1, 1, 1, 2, 2, 3, 3]


def test_given_latents_come_through_untouched(pipe, monkeypatch):
    latents = []
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda z, num_frames: latents.append(z) or decode(z, num_frames))
    first, last = clip(1, seed=1)[:, 0], clip(1, seed=2)[:, 0]
    pipe(["a red ring", "blue"], frames=17, image=first, last_image=last)
    given = gather(pipe.vae, 17, (8, 12), image=first, last_image=last).references
    assert latents[0].shape == (2, 3, 5, 4, 6)
    assert torch.equal(latents[0][:, :, :1], given[0].expand(2, -1, -1, -1, -1))
    assert torch.equal(latents[0][:, :, -1:], given[1].expand(2, -1, -1, -1, -1))
    assert not torch.isclose(latents[0][:, :, 1:-1], given[0]).any(dim=(0, 1, 3, 4)).all()


def test_pictures_are_kept_to_30_db_by_the_shipped_vae_whatever_is_generated_between(pipe):
    vae = load_video_autoencoder("toy")
    from minivdm.data.fireworks import render, sample_scenes

    generator = torch.Generator().manual_seed(3)
    first, last = render(sample_scenes(2, "single", "test", generator=generator), 17, 32, generator=generator)[:, :, 9]
    given = gather(vae, 17, (32, 32), image=first, last_image=last).references
    z = torch.randn(1, 4, 5, 8, 8, generator=generator)
    z[:, :, :1], z[:, :, -1:] = given
    with torch.no_grad():
        film = vae.decode(z, num_frames=17)[0].clamp(-1, 1)
        head = vae.decode(vae.encode(first[None], sample=False), num_frames=1)[0, :, 0].clamp(-1, 1)
        still = last[None, :, None].expand(-1, -1, 17, -1, -1)
        tail = vae.decode(vae.encode(still, sample=False), num_frames=17)[0, :, -1].clamp(-1, 1)
    torch.testing.assert_close(film[:, 0], head, atol=1e-4, rtol=1e-4)
    assert psnr(film[:, -1], tail) > 30


def test_the_frame_mask_reaches_the_network_in_both_halves(pipe, monkeypatch):
    masks = []
    denoise = pipe._denoise
    monkeypatch.setattr(pipe, "_denoise", lambda *inputs: masks.append(inputs[5]) or denoise(*inputs))
    pipe(["a red ring", "blue"], frames=9, image=clip(1)[:, 0], steps=2)
    assert [mask.tolist() for mask in masks] == [[[False, True, True]] * 4] * 2
    pipe("a red ring", frames=9, steps=1)
    assert masks[-1] is None


def test_strength_0_is_the_round_trip_and_1_ignores_the_input(pipe):
    film = clip(5)
    kept = pipe.vae.decode(pipe.vae.encode(film[None], sample=False), num_frames=5).clamp(-1, 1)
    torch.testing.assert_close(pipe("a red ring", video=film, strength=0), kept, atol=1e-5, rtol=1e-5)
    assert torch.equal(pipe("a red ring", video=film, strength=1), pipe("a red ring"))
    distances = [(pipe("", video=film, strength=s, steps=10, guidance=1) - kept).abs().mean() for s in (0.1, 0.5, 1)]
    assert 0 < distances[0] < distances[1] < distances[2]
    still = pipe("a red ring", image=film[:, 0], strength=0, frames=1)
    torch.testing.assert_close(still, pipe.vae.decode(pipe.vae.encode(film[None, :, 0], sample=False), 1).clamp(-1, 1))


def test_sdedit_starts_where_straight_noise_of_that_strength_would(pipe):
    film, strength, steps = clip(5), 0.5, 4
    parts = pipe.parts()
    z0 = pipe.vae.encode(film[None], sample=False)
    noise = torch.randn((1, *parts.latent_shape), generator=torch.Generator().manual_seed(6))
    z, (y, mask) = (z0 + noise) / 2, parts.encode(["a red ring"])
    for t in (500.0, 250.0):
        z = z + parts.velocity(z, torch.tensor([t]), y, mask) / steps
    by_hand = parts.decode(z).clamp(-1, 1)
    made = pipe("a red ring", video=film, strength=strength, steps=steps, guidance=1, seed=6)
    torch.testing.assert_close(made, by_hand, atol=1e-4, rtol=1e-4)


def test_conditions_that_lack_their_input_are_told_in_one_line(pipe, tmp_path):
    picture, film = clip(1)[:, 0], clip(5)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for options, line in [
        ({"condition": "i2v_head"}, "'i2v_head' needs an image or a video"),
        ({"condition": "v2v", "image": picture}, "'v2v_head' needs a video"),
        ({"condition": "t2v", "image": picture}, "takes neither image nor video"),
        ({"condition": "i2v", "image": picture}, "expected one of t2v"),
        ({"strength": 0.5}, "nothing to work from"),
        ({"strength": 1.5, "video": film}, "strength is 1.5: expected 0"),
        ({"image": picture, "frames": 1}, "1 frames are 1 latent frames"),
        ({"image_guidance": 2.0}, "image_guidance 2.0 without image or video"),
        ({"image": tmp_path / "broken.png"}, "cannot read the picture .*broken.png"),
        ({"image": tmp_path / "nowhere.png"}, "cannot read the picture .*nowhere.png: No such file"),
        ({"image": film}, r"picture of shape \(3, 5, 8, 12\): expected \(3, H, W\)"),
        ({"video": picture}, r"video of shape \(3, 8, 12\): expected \(3, T, H, W\)"),
        ({"image": picture * 255}, r"expected floats in \[-1, 1\]"),
    ]:
        with pytest.raises(UserError, match=line) as error:
            pipe("a red ring", **options)
        assert "\n" not in str(error.value)


def test_pictures_come_from_files_and_are_cut_around_the_centre(tmp_path):
    picture = Image.new("RGB", (20, 8), "red")
    picture.paste("blue", (4, 0, 16, 8))
    picture.save(tmp_path / "wide.png")
    for source in (picture, tmp_path / "wide.png", str(tmp_path / "wide.png")):
        read = read_picture(source, (8, 12))
        assert read.shape == (1, 3, 1, 8, 12) and (read[0, 2] == 1).all() and (read[0, :2] == -1).all()
    write_video(tmp_path / "film.npz", clip(4, (16, 24)))
    assert read_clip(tmp_path / "film.npz", (8, 12)).shape == (1, 3, 4, 8, 12)
