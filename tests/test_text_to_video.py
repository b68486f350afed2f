"""From a text to a film: repeatable, guided, of any length and size, clip after clip, and open to be taken apart."""

import pytest
import torch
from video_pipelines import tiny_denoiser, tiny_pipeline, tiny_vae, write_t5

from minivdm.diffusion.guidance import image_and_text
from minivdm.errors import UserError
from minivdm.pipelines import TextToVideoPipeline, VideoSettings, no_text, text_for_denoiser
from minivdm.pipelines.prompts import split_clips, with_motion_score
from minivdm.pipelines.velocity import GuidedVelocity
from minivdm.pipelines.video_settings import frame_count, picture_size
from minivdm.text.encoder import TextEmbedder

CLOSE = {"atol": 2e-4, "rtol": 1e-3}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return tiny_pipeline(tmp_path_factory.mktemp("t5"))


def by_hand(pipe, prompt, seed, scale, steps, **shape):
    """The sampling loop as a learner writes it."""
    parts = pipe.parts(**shape)
    z = torch.randn((1, *parts.latent_shape), generator=torch.Generator().manual_seed(seed))
    (y, mask), (null, null_mask) = parts.encode([prompt]), parts.null(1)
    for i in range(steps):
        t = torch.full((1,), 1000 * (1 - i / steps))
        with_text, without = parts.velocity(z, t, y, mask), parts.velocity(z, t, null, null_mask)
        z = z + (without + scale * (with_text - without)) / steps
    return parts.decode(z).clamp(-1, 1)


def test_a_prompt_becomes_a_film_that_a_seed_repeats(pipe):
    first, again, other = (pipe(["a red ring", "blue"], seed=seed) for seed in (7, 7, 8))
    assert first.shape == (2, 3, 5, 8, 12) and first.dtype == torch.float32 and not first.requires_grad
    assert torch.equal(first, again) and not torch.isclose(first, other).all()
    assert -1 <= first.min() < first.max() <= 1
    assert pipe("a red ring", seed=7).shape == (1, 3, 5, 8, 12)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_film_k_of_a_call_is_the_film_alone_with_seed_plus_k(pipe, eta):
    prompts = ["a red ring", "", "small blue palm then a large green willow"]
    together = pipe(prompts, seed=3, eta=eta)
    for k, prompt in enumerate(prompts):
        torch.testing.assert_close(together[k : k + 1], pipe(prompt, seed=3 + k, eta=eta), **CLOSE)
    assert (together - pipe(prompts, seed=3, eta=1 - eta)).abs().max() > 1e-2


@pytest.mark.parametrize("shape", [{}, {"frames": 9, "size": (4, 6)}, {"frames": 1}])
def test_the_loop_written_by_hand_gives_the_same_film(pipe, shape):
    for prompt, scale in (("a red ring", 2.5), ("", 3.0), ("a blue palm", 1.0)):
        made = pipe(prompt, seed=5, guidance=scale, steps=4, **shape)
        torch.testing.assert_close(made, by_hand(pipe, prompt, 5, scale, 4, **shape), **CLOSE)


def test_guidance_1_is_the_conditional_model_0_the_free_one_and_more_goes_beyond(pipe):
    zero, one, nearly, more = (pipe("a red ring", guidance=g, seed=2) for g in (0, 1, 1 + 1e-6, 4))
    torch.testing.assert_close(one, nearly, **CLOSE)
    torch.testing.assert_close(zero, pipe("", guidance=3, seed=2), **CLOSE)
    assert (one - zero).abs().max() > 0.01 and (more - one).abs().max() > 0.01


def test_no_text_is_the_models_own_null_text_all_of_it_visible(pipe):
    y, mask = text_for_denoiser(pipe.denoiser, pipe.text, ["a red ring", " ", "blue"])
    assert y.shape == (3, 11, 12) and mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [4, 11, 2]  # words, and the sign that closes the text
    assert torch.equal(y[1], pipe.denoiser.y_embedder.y_embedding)
    null, everything = no_text(pipe.denoiser, 2)
    assert null.untyped_storage().data_ptr() == pipe.denoiser.y_embedder.y_embedding.untyped_storage().data_ptr()
    assert everything.all() and everything.shape == (2, 11)


def test_null_tokens_of_the_prompt_show_as_many_as_it_has(pipe):
    upstream = TextToVideoPipeline(pipe.denoiser, pipe.text, pipe.vae, VideoSettings(5, 8, 12, null_tokens="prompt"))
    parts = upstream.parts()
    (y, mask), (null, _) = parts.encode(["a red ring"]), parts.null(1)
    z = torch.randn((1, *parts.latent_shape), generator=torch.Generator().manual_seed(4))
    t = torch.tensor([1000.0])
    free = parts.velocity(z, t, null, mask)
    by_hand = parts.decode(z + free + 3 * (parts.velocity(z, t, y, mask) - free)).clamp(-1, 1)
    made = upstream("a red ring", seed=4, steps=1, guidance=3)
    torch.testing.assert_close(made, by_hand, **CLOSE)
    assert (made - pipe("a red ring", seed=4, steps=1, guidance=3)).abs().max() > 1e-3


def test_every_length_from_1_to_34_frames_is_drawn_from_times_above_0(pipe, monkeypatch):
    """Open-Sora 1.2 counts 17 frames as 5 and 16 as none, which moved every time to 0."""
    times = []

    def silent(asked, z, t, y, mask, frames=None):
        times.append(t[0].item())
        return torch.zeros_like(z)

    shifting = TextToVideoPipeline(pipe.denoiser, pipe.text, pipe.vae, VideoSettings(5, 8, 12, shift=True))
    monkeypatch.setattr(shifting, "_denoise", silent)
    monkeypatch.setattr(pipe.vae, "decode", lambda z, num_frames: torch.zeros(1, 3, num_frames, 8, 12))
    middles = {}
    for frames in range(1, 35):
        times.clear()
        assert shifting("a", frames=frames, steps=2).shape == (1, 3, frames, 8, 12)
        assert times[0] == pytest.approx(1000, abs=0.01) and 0 < times[1] < 1000
        middles[frames] = times[1]
    assert middles[1] == middles[4] < middles[5] == middles[8] < middles[17] < middles[34]


def test_frame_rate_and_size_reach_the_network(pipe, monkeypatch):
    told = {}
    forward = pipe.denoiser.forward
    monkeypatch.setattr(pipe.denoiser, "forward", lambda *inputs, **more: told.update(more) or forward(*inputs, **more))
    pipe("a", fps=24, size=(4, 6), steps=1)
    assert {name: value.tolist() for name, value in told.items()} == {"fps": [24], "height": [4], "width": [6]}
    assert not torch.equal(pipe("a", fps=24), pipe("a", fps=8))
    settings = VideoSettings(fps=24, image_fps=120)
    assert (settings.told_fps, VideoSettings(frames=1, fps=24, image_fps=120).told_fps) == (24, 120)
    assert VideoSettings(frames=1, fps=24).told_fps == 24


def test_with_silent_temporal_blocks_every_latent_frame_is_drawn_as_a_picture(pipe):
    denoiser = tiny_denoiser()
    with torch.no_grad():
        for block in denoiser.temporal_blocks:
            for layer in (block.attn.proj, block.mlp.fc2, block.cross_attn.proj):
                layer.weight.zero_()
                layer.bias.zero_()
    parts = TextToVideoPipeline(denoiser, pipe.text, pipe.vae, pipe.settings).parts(frames=9)
    z, t = torch.randn(1, *parts.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([400.0])
    y, mask = parts.encode(["a red ring"])
    film = parts.velocity(z, t, y, mask)
    for k in range(3):
        picture = parts.velocity(z[:, :, k : k + 1], t, y, mask)
        torch.testing.assert_close(film[:, :, k : k + 1], picture, atol=1e-5, rtol=1e-5)
    awake = pipe.parts(frames=9)
    assert not torch.allclose(awake.velocity(z, t, y, mask)[:, :, :1], awake.velocity(z[:, :, :1], t, y, mask))


def test_midpoint_steps_cost_two_calls_each(pipe, monkeypatch):
    times = []
    denoise = pipe._denoise
    monkeypatch.setattr(pipe, "_denoise", lambda *inputs: times.append(inputs[2][0].item()) or denoise(*inputs))
    pipe("a red ring", steps=2, method="midpoint")
    assert times == [1000, 750, 500, 250]
    with pytest.raises(UserError, match="sampler 'ddim': expected euler or midpoint"):
        pipe("a", method="ddim")


def analytic(z, t, y, mask, frames):
    """A network whose every input matters and can be followed by hand."""
    shown = 0 if frames is None else 0.1 * frames.float()[:, None, :, None, None]
    return 0.5 * z + t[:, None, None, None, None] / 1000 + y.mean((1, 2))[:, None, None, None, None] + shown


def test_three_branches_are_text_and_image_image_alone_and_neither():
    generator = torch.Generator().manual_seed(1)
    z, ref_noise = torch.randn(2, 2, 3, 4, 5, 6, generator=generator)
    y, null = torch.randn(2, 2, 7, 8, generator=generator)
    mask, t = torch.ones(2, 7, dtype=torch.bool), torch.tensor([300.0, 800.0])
    frames = torch.tensor([[False, True, True, True], [True, True, True, False]])
    hide = lambda z, t, frames: z + ref_noise  # noqa: E731
    velocity = GuidedVelocity(analytic, (y, mask), (null, mask), 3.0, 1.5, hide)
    full, image = analytic(z, t, y, mask, frames), analytic(z, t, null, mask, frames)
    none = analytic(z + ref_noise, t, null, mask, torch.ones_like(frames))
    torch.testing.assert_close(velocity(z, t, frames), image_and_text(full, image, none, 3.0, 1.5))
    plain = GuidedVelocity(analytic, (y, mask), (null, mask), 1.0, 1.0, hide)
    assert torch.equal(plain(z, t, frames), full)
    text_only = GuidedVelocity(analytic, (y, mask), (null, mask), 3.0, 1.0, hide)
    torch.testing.assert_close(text_only(z, t, frames), image + 3 * (full - image))
    assert not velocity(z, t, torch.zeros_like(frames)).any()


def test_scales_oscillate_after_the_first_ten_steps_midpoints_with_their_step():
    y, mask = torch.zeros(1, 7, 8), torch.ones(1, 7, dtype=torch.bool)
    times = torch.tensor([1000 * (1 - k / 16) for k in range(16)])
    velocity = GuidedVelocity(analytic, (y, mask), (y, mask), 7.5, 3.0, times=times)
    scales = [velocity._scales(times[k : k + 1]) for k in range(16)]
    assert scales == [(7.5, 3.0)] * 10 + [(7.5, 3.0), (1.0, 1.0)] * 3
    assert [velocity._scales(times[k : k + 1] - 20) for k in range(16)] == scales


def test_guidance_by_given_frames_and_oscillation_change_films_that_have_them(pipe):
    picture = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    options = {"image": picture, "frames": 9, "steps": 12}
    plain = pipe("a red ring", **options)
    assert torch.equal(plain, pipe("a red ring", image_guidance=1.0, **options))
    assert (pipe("a red ring", image_guidance=2.0, **options) - plain).abs().max() > 1e-3
    assert (pipe("a red ring", oscillate=True, **options) - plain).abs().max() > 1e-3
    one = {"guidance": 1.0} | options
    assert torch.equal(pipe("a red ring", oscillate=True, **one), pipe("a red ring", **one))


def test_clips_of_a_film_are_joined_without_showing_a_frame_twice(pipe, monkeypatch):
    decoded = []
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda z, num_frames: decoded.append(decode(z, num_frames)) or decoded[-1])
    for frames, overlap in ((9, 1), (8, 4), (10, 2)):
        decoded.clear()
        film = pipe(["|0| a red ring |1| a blue palm", "|0| blue |1| green"], frames=frames, steps=2)
        first, second = (clip.clamp(-1, 1) for clip in decoded)
        assert film.shape[2] == 2 * frames - overlap
        assert torch.equal(film, torch.cat([first, second[:, :, overlap:]], dim=2))
        end = first[:, :, -overlap:]
        again = decode(pipe.vae.encode(end, sample=False), num_frames=overlap).clamp(-1, 1)
        torch.testing.assert_close(second[:, :, :overlap], again, atol=1e-4, rtol=1e-4)
        alone = pipe(["a red ring", "blue"], frames=frames, steps=2)
        torch.testing.assert_close(first, alone, **CLOSE)


def test_a_loop_of_clips_begins_and_ends_with_the_picture(pipe, monkeypatch):
    latents = []
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda z, num_frames: latents.append(z) or decode(z, num_frames))
    picture = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pipe("|0| a red ring |2| a blue palm", frames=9, steps=1, image=picture, last_image=picture)
    still = pipe.vae.encode(picture[None, :, None].expand(-1, -1, 9, -1, -1), sample=False)
    assert len(latents) == 3
    torch.testing.assert_close(latents[0][:, :, :1], still[:, :, :1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(latents[2][:, :, -1:], still[:, :, -1:], atol=1e-5, rtol=1e-5)


def test_prompts_for_several_clips():
    assert split_clips("a red ring | b") == ["a red ring | b"]
    assert split_clips(" |0| a red ring |1| a blue palm ") == ["a red ring", "a blue palm"]
    assert split_clips("|0|a|2|b|3|") == ["a", "a", "b", ""]
    for prompt, line in [("|1| a", "expected |0|"), ("|0| a |0| b", "larger"), ("|0| a |999| b", "at most 100")]:
        with pytest.raises(UserError) as error:
            split_clips(prompt)
        assert line in str(error.value)


def test_the_motion_score_stands_in_the_prompt(pipe, monkeypatch):
    assert with_motion_score("a red ring", 5) == "a red ring motion score: 5.0."
    assert with_motion_score("a ring motion score: 2.0.", 5) == "a ring motion score: 2.0."
    assert with_motion_score("a ring", None) == "a ring" and with_motion_score("", 5) == ""
    heard = []
    forward = pipe.text.forward
    monkeypatch.setattr(pipe.text, "forward", lambda texts: heard.extend(texts) or forward(texts))
    pipe(["a red ring", ""], motion_score=3, steps=1)
    assert heard == ["a red ring motion score: 3.0.", ""]


def test_sizes_are_sides_pairs_or_ratios():
    def of(size, factor=8):
        return picture_size(size, 48, 96, factor)

    assert of(None) == (48, 96) and of(64) == of("64") == (64, 64) and of((16, 24)) == of("16x24") == (16, 24)
    assert of("1:1") == (64, 64) and of("2:1") == (48, 96) and of("1:2") == (96, 48)
    assert of("16:9", 4) == (52, 92) and of("9:16", 4) == (92, 52)
    for size, line in [
        ((20, 24), r"size \(20, 24\): .* divisible by 8; nearest are \((16|24), 24\)"),
        (0, "nearest are .8, 8."),
        ("16:x", "expected a ratio"),
        ("1:0", "expected a ratio"),
        ("wide", "expected a side in pixels"),
        ((8, 8, 8), "expected a side in pixels"),
        (7.5, "expected a side in pixels"),
    ]:
        with pytest.raises(UserError, match=line) as error:
            of(size)
        assert "\n" not in str(error.value)


def test_lengths_are_frames_or_seconds(pipe):
    assert [frame_count(length, 24, 4) for length in (7, "7", "5s", "0.1s", "0s")] == [7, 7, 121, 1, 1]
    assert frame_count("2s", 8, 4) == 17 and frame_count("2s", 8, 1) == 16
    assert pipe("a", frames="1s", fps=6, steps=1).shape[2] == 5
    for length in ("long", "4.5", "xs", "infs"):
        with pytest.raises(UserError, match="expected a whole number, or seconds such as '5s'"):
            frame_count(length, 24, 4)


def test_impossible_films_are_one_line(pipe):
    for options, line in [
        ({"frames": 0}, "frames is 0: expected a whole number from 1 on, such as 1"),
        ({"frames": 4.6}, "frames is 4.6: .* such as 5"),
        ({"size": 9}, r"divisible by 2; nearest are \(8, 8\)"),
        ({"fps": 0}, "fps is 0"),
        ({"steps": 0}, "steps is 0"),
    ]:
        with pytest.raises(UserError, match=line) as error:
            pipe("a red ring", **options)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no prompts"):
        pipe([])
    with pytest.raises(UserError, match="films of 1, 2 clips in one call"):
        pipe(["a", "|0| a |1| b"])
    with pytest.raises(UserError, match="2 clips of 4 frames: too short"):
        pipe("|0| a |1| b", frames=4)
    with pytest.raises(UserError, match="strength with a film of 2 clips"):
        pipe("|0| a |1| b", strength=0.5, video=torch.zeros(3, 5, 8, 12))


def test_parts_that_do_not_fit_are_named_with_both_sizes(pipe, tmp_path):
    wide = TextEmbedder(write_t5(tmp_path, width=20), 11)
    with pytest.raises(UserError, match="width of the text encoder 20, but the denoiser was made for 12"):
        TextToVideoPipeline(pipe.denoiser, wide, pipe.vae)
    with pytest.raises(UserError, match="number of text tokens 11, but the denoiser was made for 7"):
        TextToVideoPipeline(tiny_denoiser(model_max_length=7), pipe.text, pipe.vae)
    with pytest.raises(UserError, match="latents 3, but the denoiser was made for 5"):
        TextToVideoPipeline(tiny_denoiser(in_channels=5), pipe.text, tiny_vae())
