"""Teaching the toy T5: runs that can be stopped, captions of one's own, and an encoder that ships as it was trained."""

import functools
import json

import pytest
import torch
from test_films import write_folder
from tiny_runs import tiny_config, train

from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.folder import VideoFolder
from minivdm.errors import UserError
from minivdm.text.encoder import TextEmbedder
from minivdm.text.toy_t5 import QUESTIONS, make_tokenizer
from minivdm.training import publish_t5 as publication
from minivdm.training.checkpoint import list_checkpoints, read_tensors
from minivdm.training.compare_encoders import random_encoder
from minivdm.training.toy_t5_task import (
    Captions,
    ToyT5Task,
    export_encoder,
    lists_written,
    share_read,
    trained_t5,
    words_read,
)

TOKENIZER = make_tokenizer()
OBJECTIVES = ("reading", "listing", "spans")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_shows_answers_to_captions(tmp_path, objective):
    train(tiny_config("toy_t5", toy_t5__objective=objective), tmp_path)
    shown = sorted((tmp_path / "samples").glob("*.txt"))
    assert [path.stem for path in shown] == ["step-00000004", "step-00000008", "step-00000010"]
    assert all(path.read_text().count("caption  ") == 7 for path in shown)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_falls(tmp_path, objective):
    settings = {"toy_t5__objective": objective, "data__clips": 4, "training__batch_size": 4, "training__steps": 40}
    config = tiny_config("toy_t5", **settings, training__learning_rate=0.02, training__milestone_every=40)
    trained, fresh = train(config, tmp_path).task, ToyT5Task(config)
    batch = {name: [fresh.dataset[index][name] for index in range(4)] for name in fresh.dataset[0]}
    with torch.no_grad():
        now, at_first = (task.loss(task.model, batch, [1, 2, 3, 4]).mean() for task in (trained, fresh))
    assert now < 0.7 * at_first


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_caption_has_its_own_loss_whatever_is_beside_it(objective):
    task = ToyT5Task(tiny_config("toy_t5", toy_t5__objective=objective, data__level="scene"))
    items = [task.dataset[index] for index in range(5)]
    with torch.no_grad():
        together = task.loss(task.model, {name: [item[name] for item in items] for name in items[0]}, range(5))
        for index, item in enumerate(items):
            alone = task.loss(task.model, {name: [part] for name, part in item.items()}, [index])
            torch.testing.assert_close(alone, together[index : index + 1])
    assert together.unique().numel() == 5


def test_pads_change_no_answer():
    task = ToyT5Task(tiny_config("toy_t5"))
    short, long = (
        torch.tensor([TOKENIZER(text)["input_ids"]]) for text in ("a red ring", "a large red peony high, then a ring")
    )
    padded = torch.cat([torch.nn.functional.pad(short, (0, long.shape[1] - 4)), long])
    with torch.no_grad():
        for alone, together in zip(task.model.read(short), task.model.read(padded), strict=True):
            torch.testing.assert_close(together[:1, :4], alone, atol=1e-5, rtol=1e-5)


def test_what_is_hidden_comes_from_the_seed_of_the_clip():
    task = ToyT5Task(tiny_config("toy_t5", toy_t5__objective="spans"))
    batch = {"caption": [task.dataset[0]["caption"]]}
    with torch.no_grad():
        losses = [task.loss(task.model, batch, [seed]).item() for seed in (5, 6, 5)]
    assert losses[0] == losses[2] != losses[1]


def test_a_reader_that_is_right_scores_one():
    items, dim = Captions(FireworksDataset(9, "scene", "test", seed=1), TOKENIZER), list(map(len, QUESTIONS.values()))
    right = {tuple(TOKENIZER(items[k]["caption"])["input_ids"]): items[k]["answers"].clamp(min=0) for k in range(9)}

    class Oracle:
        mistakes = 0

        def read(self, tokens):
            answers = torch.nn.functional.pad(right[tuple(tokens[0].tolist())], (0, 0, 0, 1)).clone()
            answers[:, 1] = (answers[:, 1] + self.mistakes) % (1 + dim[1])
            return [torch.nn.functional.one_hot(answers[None, :, k], 1 + count).float() for k, count in enumerate(dim)]

    assert share_read(Oracle(), TOKENIZER, clips=9) == dict.fromkeys([*QUESTIONS, "whole captions"], 1.0)
    Oracle.mistakes = 1
    shares = share_read(Oracle(), TOKENIZER, clips=9)
    assert [name for name, share in shares.items() if share < 1] == ["shape", "whole captions"]
    assert shares["shape"] == shares["whole captions"] == 0


def test_the_encoder_of_a_run_ships_as_it_was_trained(tmp_path):
    run = train(tiny_config("toy_t5", training__steps=3, training__milestone_every=3), tmp_path / "run").run_dir
    model, tokenizer = trained_t5(run)
    averages = read_tensors(list_checkpoints(run)[-1] / "ema.safetensors")
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in averages.items())
    texts = ["a large red peony high on the left", "moonlight", "a tiny palm, then a ring"]
    y, mask = TextEmbedder(export_encoder(run), 20)(texts)
    tokens = tokenizer(texts, padding="max_length", max_length=20, return_tensors="pt")
    with torch.no_grad():
        rounded = model.encoder.half().float()
        expected = rounded(tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    torch.testing.assert_close(y[mask], expected[mask], atol=1e-5, rtol=1e-5)
    assert torch.equal(mask, tokens["attention_mask"].bool()) and mask.sum(1).tolist() == [9, 2, 8]


def test_a_published_encoder_says_what_it_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(publication, "share_read", functools.partial(share_read, clips=8))
    run = train(tiny_config("toy_t5", training__steps=2), tmp_path / "run").run_dir
    shares = publication.publish_t5(run, tmp_path / "t5", machine="In no time.")
    found = json.loads((tmp_path / "t5" / "evaluation.json").read_text())
    card = (tmp_path / "t5" / "MODEL_CARD.md").read_text()
    assert found["read"] == shares and -1 <= found["cosine"] <= 1
    assert "| " + " | ".join(f"{share:.2%}" for share in shares.values()) + " |" in card
    assert "In no time." in card and "2 steps of 3 captions" in card and f"{found['cosine']:.2f} (1 would" in card
    assert TextEmbedder(tmp_path / "t5", 9)(["a red ring"])[0].shape == (1, 9, 16)
    listens = train(tiny_config("toy_t5", training__steps=1, toy_t5__objective="spans"), tmp_path / "spans").run_dir
    with pytest.raises(UserError, match="another objective.*--toy_t5.objective reading"):
        publication.publish_t5(listens, tmp_path / "other")


def test_an_encoder_that_has_learnt_nothing_is_one_too(tmp_path):
    y, mask = TextEmbedder(random_encoder(tmp_path), 9)(["a red ring"])
    assert y.shape == (1, 9, 96) and mask.sum() == 4


def test_what_is_shown_of_a_text_has_a_line_per_word():
    for objective in OBJECTIVES:
        model = ToyT5Task(tiny_config("toy_t5", toy_t5__objective=objective)).model
        texts = ["a red ring", "a small palm, low"]
        if objective == "reading":
            lines = [reading.splitlines() for reading in words_read(model, TOKENIZER, texts)]
            assert [[line.split()[0] for line in reading] for reading in lines] == [
                ["a", "red", "ring"], ["a", "small", "palm", ",", "low"],
            ]  # fmt: skip
        else:
            assert len(lists_written(model, TOKENIZER, texts)) == 2


# Clips of one's own


def test_who_speaks_of_what_is_not_known_of_clips_of_ones_own(tmp_path):
    with pytest.raises(UserError, match="use --toy_t5.objective spans") as error:
        ToyT5Task(tiny_config("toy_t5", data__folder=str(write_folder(tmp_path))))
    assert "\n" not in str(error.value)


def test_hidden_words_teach_the_language_of_any_captions(tmp_path):
    folder = write_folder(tmp_path / "clips")
    (folder / "captions.jsonl").write_text('{"file": "3.npz", "caption": "a red ring in moonlight"}\n')
    config = tiny_config("toy_t5", data__folder=str(folder), toy_t5__objective="spans")
    task = ToyT5Task(config, VideoFolder(folder, 16, 5))
    batch = {"caption": [task.dataset[index]["caption"] for index in range(5)]}
    assert batch["caption"] == ["", "", "", "a red ring in moonlight", ""]
    assert task.loss(task.model, batch, range(5)).isfinite().all()
    (folder / "captions.jsonl").unlink()
    with pytest.raises(UserError, match="no captions .* write captions.jsonl") as error:
        ToyT5Task(config)
    assert "\n" not in str(error.value)
