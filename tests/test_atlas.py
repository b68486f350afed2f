"""The atlas of symptoms: entries are mistakes of exercises, stages draw what the package draws, the page is whole."""

import re
from dataclasses import replace

import pytest
import torch

from minivdm.course import book, check
from minivdm.course.atlas import flow_stages, ideal_stages, page, unet_stages, vae_stages
from minivdm.course.atlas.__main__ import main
from minivdm.course.atlas.choices import CHOICES
from minivdm.course.atlas.entries import ENTRIES, PAGE, where_to_look
from minivdm.course.exercise import get
from minivdm.data.io import read_video
from minivdm.diffusion.samplers import ddim_sample
from minivdm.errors import UserError
from minivdm.paths import repo_root
from minivdm.vae import temporal_blocks

FOLDER = (repo_root() / PAGE).parent
TEXT = (repo_root() / PAGE).read_text(encoding="utf-8")
NAMES = [entry.name for entry in ENTRIES]
ALL = (*ENTRIES, *CHOICES)


def entry_of(name):
    return ENTRIES[NAMES.index(name)]


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_an_entry_is_a_listed_mistake_with_a_stage_and_a_picture(entry):
    assert page.mistake_of(entry).name == entry.mistake and callable(page.stage_of(entry))
    for exercise, mistake in entry.also:
        assert mistake in [listed.name for listed in get(exercise).mistakes]
    frames = read_video(FOLDER / f"{entry.name}.webp").frames
    assert frames.shape[1:] == (page.HEIGHT, 2 * page.HEIGHT + page.GAP, 3) and len(frames) in (9, 17)
    assert f'src="{entry.name}.webp" width="260" height="128" alt="{entry.alt}"' in TEXT
    assert f"`minivdm hint {entry.exercise}`" in TEXT
    mean, worst = page.apart(frames)
    assert mean < 1 if entry.unseen else mean > 1 and worst > 90


@pytest.mark.parametrize("choice", CHOICES, ids=[choice.name for choice in CHOICES])
def test_a_choice_differs_in_one_thing_that_was_asked_and_shows(choice):
    asked = [choice.left, choice.right]
    assert asked[0].keys() == asked[1].keys() and sum(asked[0][name] != asked[1][name] for name in asked[0]) == 1
    for call in choice.calls():
        assert f"`{call}`" in TEXT
        assert eval(call, {"pipe": lambda prompts, **options: {"prompts": prompts} | options}) in asked
    mean, worst = page.apart(read_video(FOLDER / f"{choice.name}.webp").frames)
    assert mean > 1 and worst > 90


def test_names_and_headings_are_unique_and_pictures_are_small():
    names = [entry.name for entry in ALL]
    assert len(set(names)) == len({entry.anchor for entry in ALL}) == len(ALL)
    pairs = [pair for entry in ENTRIES for pair in ((entry.exercise, entry.mistake), *entry.also)]
    assert len(set(pairs)) == len(pairs)
    pictures = sorted(path.name for path in FOLDER.iterdir() if path.name != "README.md")
    assert pictures == sorted(f"{name}.webp" for name in names)
    sizes = [sum((FOLDER / f"{each.name}.webp").stat().st_size for each in some) for some in (ENTRIES, CHOICES)]
    assert sizes[0] < 1_500_000 and sizes[1] < 200_000


def test_the_page_is_what_its_entries_and_pictures_say_and_its_links_lead_somewhere():
    assert page.page(FOLDER) == TEXT
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("#")
    }
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) == 2 * len(ENTRIES) + len(CHOICES)
    for link in links:
        assert link[1:] in headings if link.startswith("#") else (FOLDER / link).exists(), link
    for entry in ENTRIES:
        assert where_to_look(entry.exercise, entry.mistake) == f"What it looks like: {PAGE}#{entry.anchor}"
        assert entry.anchor in headings


def test_a_check_leads_to_the_picture_of_the_mistake_that_it_names(capsys):
    swapped = check("07.guided", lambda cond, uncond, scale: cond + scale * (uncond - cond))
    line = "What it looks like: docs/symptoms/README.md#a-fine-film-of-something-else"
    assert swapped.message.splitlines()[-1] == line and line in capsys.readouterr().out
    assert "What it looks like" not in check("07.guided", lambda cond, uncond, scale: cond).message  # no listed mistake
    assert "What it looks like" not in check("01.snr", lambda a: a).message  # listed, and not in the atlas
    assert where_to_look("07.guided", None) is None and where_to_look("nonsense", "uncond forgotten") is None


@pytest.mark.parametrize("name", ["stutter", "firework-behind-snow"])
def test_a_picture_drawn_again_is_the_stored_one(name):
    stored = read_video(FOLDER / f"{name}.webp").frames.astype(int)
    off = abs(page.picture(entry_of(name)) - stored)
    assert off.mean() < 0.05  # other machines round differently


def close(one, other, atol=1e-4):
    torch.testing.assert_close(one, other, atol=atol, rtol=0)


@pytest.mark.parametrize(
    "stage", ["latent_scale", "frames_to_batch", "depth_to_time", "causal_conv3d", "chunked_conv3d", "stream_conv3d"]
)
def test_autoencoder_stages_decode_as_the_package_does(stage):
    entry = next(entry for entry in ENTRIES if get(entry.exercise).name == stage)
    which = 1 if stage == "stream_conv3d" else 0  # of the two clips
    film = vae_stages.decoded(vae_stages.latents()[which:])
    close(page.right_film(page.stage_of(entry), entry.exercise), film)


def test_drawn_latents_show_the_clip():
    film = vae_stages.reparameterize(get("03.reparameterize").reference)
    assert (film - vae_stages.clips()[:1]).abs().mean() < 0.02


def test_flow_stages_draw_the_film_that_the_pipeline_draws(monkeypatch):
    monkeypatch.setattr(flow_stages, "STEPS", 2)
    how = {"steps": 2, "guidance": flow_stages.SCALE, "seed": flow_stages.SEED, "eta": 0.0}
    film = flow_stages.pipeline()(flow_stages.PROMPT, **how)
    for exercise in ("09.generate", "08.euler_sample", "09.masked_cross_attention", "08.unpatchify"):
        close(getattr(flow_stages, get(exercise).name)(get(exercise).reference), film, atol=1e-3)


def library_film(steps, eta, draws):
    """The package's own sampler from the same noise, in units of the film."""
    pipe = unet_stages.pipeline()
    scale, shift = pipe.diffusion.scale_factor, pipe.diffusion.shift_factor
    first, *rest = [scale * next(draws) for _ in range(steps + 1)]
    # film units keep their mean as noise comes in; normalised clips have it taken off beforehand
    start = first - unet_stages.schedule()[-1].sqrt().float() * shift * scale
    model = pipe._guided([unet_stages.PROMPT], unet_stages.SCALE, torch.device("cpu"))
    times = unet_stages.evenly(steps)
    x0 = ddim_sample(pipe.diffusion, model, start, times, eta=eta, noises=rest)
    return pipe.diffusion.denormalize(x0).clamp(-1, 1)


def test_unet_stages_draw_the_film_that_the_package_draws(monkeypatch):
    monkeypatch.setattr(unet_stages, "DDIM_STEPS", 2)
    monkeypatch.setattr(unet_stages, "DDPM_STEPS", 3)
    film = library_film(2, 0.0, unet_stages.noises())
    for exercise in ("02.ddim_step", "01.alphas_cumprod", "07.guided", "02.predict_v", "07.focus_present_mask"):
        close(getattr(unet_stages, get(exercise).name)(get(exercise).reference), film, atol=2e-3)
    close(unet_stages.p_sample(get("02.p_sample").reference), library_film(3, 1.0, unet_stages.noises()), atol=2e-3)


def test_the_perfect_network_draws_a_clip_that_it_knows():
    film = ideal_stages.q_sample(get("02.q_sample").reference)
    known = unet_stages.pipeline().diffusion.denormalize(ideal_stages._known())
    assert (film - known).abs().amax((1, 2, 3, 4)).min() < 1e-3


@pytest.mark.parametrize(("exercise", "stage"), [("07.ema_update", "ema_update"), ("10.ema_warmup", "ema_warmup")])
def test_the_right_average_of_weights_that_stand_still_is_these_weights(exercise, stage, monkeypatch):
    monkeypatch.setattr(ideal_stages, "_film", lambda unet: unet.state_dict())
    averaged = getattr(ideal_stages, stage)(get(exercise).reference)
    for name, weight in unet_stages.pipeline().unet.state_dict().items():
        close(averaged[name], weight, atol=2e-3)


def test_a_stage_leaves_the_package_as_it_was():
    own, before = temporal_blocks.depth_to_time, vae_stages.decoded(vae_stages.latents())
    with pytest.raises(ZeroDivisionError):
        vae_stages.depth_to_time(lambda x, factor: 1 / 0)
    vae_stages.causal_conv3d(page.mistake_of(entry_of("the-future-shows")).wrong)
    assert temporal_blocks.depth_to_time is own
    assert torch.equal(vae_stages.decoded(vae_stages.latents()), before)


def test_numbers_that_no_picture_can_show_are_black_and_pixels_stay_squares():
    film = torch.full((1, 3, 2, 64, 64), float("nan"))
    frames = page.side_by_side(film, torch.ones(1, 3, 2, 32, 32))
    assert frames.shape == (2, 64, 130, 3)
    assert frames[:, :, :64].max() == 0 and frames[:, :, 66:].min() == 255
    assert page.apart(frames) == (255.0, 255)


def test_mistakes_of_the_user_are_said_in_a_line(tmp_path, capsys):
    assert main(["snowstorm", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("no symptom 'snowstorm': there are snow, ") and said.count("\n") == 1
    assert main(["stutter", "--out", str(tmp_path)]) == 2  # the others are missing, so there can be no page
    assert f"lacks snow.webp, and {len(ALL) - 2} more" in capsys.readouterr().err
    assert not (tmp_path / "README.md").exists()
    (tmp_path / "file").write_text("in the way")
    assert main(["stutter", "--out", str(tmp_path / "file")]) == 2
    assert "file" in capsys.readouterr().err
    with pytest.raises(UserError, match="02.q_sample lists no mistake 'typo': it has no square roots"):
        page.mistake_of(replace(entry_of("firework-behind-snow"), mistake="typo"))


def test_the_book_has_the_atlas_with_its_pictures_and_headings():
    lesson = book.atlas(repo_root() / PAGE)
    html = book.body(lesson, lambda target: f"page-of-{target}")
    assert lesson.page == "symptoms.html" and lesson.title == "Your video looks like this? Look here."
    assert html.count("data:image/webp;base64,") == len(ALL)
    links = re.findall(r'href="#([^"]+)">[^#]', html)
    assert len(links) == len(ALL) and all(f'id="{link}"' in html for link in links)
    assert "page-of-../../notebooks/09_text_to_video.ipynb" in html
