"""Numbers in prose are numbers that were measured: on the front page, on the data card, on the models' cards."""

import json
import re
from pathlib import Path

import claims
import pytest
from claims import CLAIMS, PAGES, ROOT, TAG, TOY, config_of, minutes, printed_like, results
from safetensors import safe_open

from minivdm.denoisers import STDiT3
from minivdm.pipelines import UnetPipeline
from minivdm.training import publish, publish_t5, publish_vae, text_to_video_card

TAGS = [(page, tag) for page in PAGES for tag in TAG.finditer(page.read_text(encoding="utf-8"))]
UNITS = (
    r"%|[kKMG]i?B|dB|ms|s|h|sec\w*|min\w*|hours?|million|billion|parameters|times|captions|"
    r"(?:of|in) 1000?|films (?:show|are)"
)
LOOKS_MEASURED = re.compile(rf"\d[\d,.]*(?: to \d[\d,.]*)? ?(?:{UNITS})(?![\w])")
NOT_MEASURED = (  # what looks like it, and is a setting, a rule or somebody else's
    "4 GB free",  # tests/test_notebooks.py refuses a lesson that takes more
    "8 to 24 GB", "48 GB",  # kinds of GPUs
    "40 GB free",  # the question of lesson 05
    "1.8 levels of 255 on average, but 8.3 on lit pixels, and 75 at worst",
)  # fmt: skip


@pytest.mark.parametrize("page, tag", TAGS, ids=[tag["name"] for _, tag in TAGS])
def test_number_is_what_was_measured(page, tag):
    line = tag.string[: tag.start()].count("\n") + 1
    where = f"{page.relative_to(ROOT)}:{line}"
    assert tag["name"] in CLAIMS, f"{where}: no function computes {tag['name']}; add one to tests/claims.py"
    now = printed_like(CLAIMS[tag["name"]](), tag["number"])
    assert tag["number"] == now, f"{where}: write {now}{tag[0][len(tag['number']) :]} (or run python tests/claims.py)"


def test_every_function_and_every_tag_is_used():
    assert set(CLAIMS) == {tag["name"] for _, tag in TAGS}, "functions whose numbers nobody prints, or tags without one"
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(TAG.findall(text)) == text.count("claim:"), "a tag without a number right before it, or misspelt"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_what_looks_measured_has_a_tag(page):
    text = re.sub(
        r"```.*?```|<!--.*?-->|^    .*?$",
        lambda cut: "" if cut[0][:1] in "` " else "<>",
        page.read_text(encoding="utf-8"),
        flags=re.S | re.M,
    )
    for phrase in NOT_MEASURED:
        text = text.replace(phrase, "")
    assert [found[0] for found in LOOKS_MEASURED.finditer(text)] == []


def test_where_we_lose_the_page_says_so():
    rows = re.findall(r"(\d+\.\d+)<!-- claim: bench\.[\w.]+ -->(: we lose)?", PAGES[0].read_text(encoding="utf-8"))
    assert len(rows) >= 10
    assert [ratio for ratio, lost in rows if bool(lost) != (float(ratio) > 1.1)] == [], '": we lose", or no longer'


def test_numbers_are_written_anew_at_the_precision_that_is_printed(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("in 80<!-- claim: a --> of 100, 3.10<!-- claim: b --> dB, 9,000<!-- claim: a --> and 7", "utf-8")
    monkeypatch.setattr(claims, "CLAIMS", {"a": lambda: 1234.5, "b": lambda: 3.14159})
    expected = "in 1,234<!-- claim: a --> of 100, 3.14<!-- claim: b --> dB, 1,234<!-- claim: a --> and 7"
    assert claims.written(page) == expected.replace("in 1,234", "in 1234")


def test_a_number_that_is_off_or_bare_is_found():
    assert (
        printed_like(83.78, "84") == "84"
        and printed_like(1280, "1,279") == "1,280"
        and printed_like(0.035, "0.1") == "0.0"
    )
    assert printed_like(2352560.0, "2,352,560") == "2,352,560" and printed_like(1397, "1390") == "1397"
    bare = ["takes 84 %", "12.5 dB", "3 to 4 minutes", "2.3 million", "97 films show", "9 of 100", "5 GiB", "1.5 times"]
    assert all(LOOKS_MEASURED.search(text) for text in bare)
    assert not any(
        LOOKS_MEASURED.search(text) for text in ["84<> %", "17 frames of 64×64", "0.7.0", "5 lessons", "2 seas"]
    )


# The models' cards are written by their publishers from `evaluation.json`, `config.yaml` and the weights: all but one
# sentence, which tells where it was trained and for how long.


def card_of(model: str, machine: str) -> str:
    found, config = results(model), config_of(model)
    steps = json.loads((TOY / model / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"]
    if model == "text_to_video":
        return text_to_video_card.card(config, found, machine)
    if model == "unet3d":
        return publish._card(UnetPipeline.from_pretrained(TOY / model), steps, found, machine)
    facts = {name: found[name] for name in ("parameters", "divergence", "silent", "latents")}
    kinds = {name: kind for name, kind in found.items() if name not in facts}
    return publish_vae._card(config, steps, kinds, facts, machine)


@pytest.mark.parametrize("model", ["unet3d", "vae2d", "temporal_vae", "text_to_video"])
def test_a_models_card_is_what_its_results_say(model):
    stored = (TOY / model / "MODEL_CARD.md").read_text(encoding="utf-8")
    before, after = card_of(model, "@@").split("@@")
    assert stored.startswith(before) and stored.endswith(after)
    sentence = stored[len(before) : len(stored) - len(after)]
    took = results(model).get("minutes", {model: minutes(model)})
    took = took | {f"stage {i}": stage["minutes"] for i, stage in enumerate(results(model).get("stages", []), 1)}
    for number in map(int, re.findall(r"\b(\d+)(?= min)", sentence)):  # by the clock, so a little more than by the log
        assert any(each - 1 <= number <= 1.1 * each + 1 for each in took.values()), f"{number} min; by the logs {took}"


@pytest.mark.parametrize("model", ["unet3d", "vae2d", "temporal_vae", "judge"])
def test_parameters_are_those_of_the_stored_weights(model):
    (path,) = (TOY / model).glob("*.safetensors")
    with safe_open(path, "pt") as weights:
        count = sum(weights.get_tensor(name).numel() for name in weights.keys())
    assert f"{count:,} parameters" in (TOY / model / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_parameters_of_the_text_to_video_model():
    model = STDiT3.from_pretrained(TOY / "text_to_video" / "denoiser")  # its file holds more than parameters
    assert sum(weight.numel() for weight in model.parameters()) == results("text_to_video")["parameters"]["denoiser"]


def test_the_t5s_card():
    stored, found = (TOY / "t5" / "MODEL_CARD.md").read_text(encoding="utf-8"), results("t5")
    shares = " | ".join(f"{share:.2%}" for share in found["read"].values())
    assert f"| {shares} |" in stored and f'"{publish_t5.PROMPT.format("…")}": {found["cosine"]:.2f} (1' in stored
    assert "three minutes" in stored and round(minutes("t5")) == 3
    assert f"{results('text_to_video')['parameters']['text']:,} parameters" in stored


# Links


def pages() -> list[Path]:
    return [
        *PAGES,
        ROOT / "CONTRIBUTING.md",
        *sorted(TOY.glob("*/MODEL_CARD.md")),
        *sorted(ROOT.glob("solutions/*.py")),
    ]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_other_projects_name_a_commit(page):
    for link in re.findall(r"https?://(?:github|gitlab)\.com/[^\s)>\"'`]+", page.read_text(encoding="utf-8")):
        assert re.search(r"/(?:blob|tree|commit)/[0-9a-f]{40}(?:/|$)", link), f"{link} names no commit"
