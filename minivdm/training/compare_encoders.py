"""The same denoiser on three text encoders: random, span-corrupted, and one that learnt to read.

    python -m minivdm.training.compare_encoders runs/encoders checkpoints/toy/text_to_video/encoders.json

Three small STDiT3s are trained alike on scenes of one to three shells. Their losses look alike; what the films do with
two shells does not: the colours that were asked for, on the wrong shells. The record holds both, for lesson 09.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from minivdm.config import load_preset
from minivdm.data.captions import parse_caption
from minivdm.data.judge import judge
from minivdm.data.verdicts import accuracy
from minivdm.pipelines.text_to_video import TextToVideoPipeline
from minivdm.text.toy_t5 import make_tokenizer
from minivdm.training.evaluate_text_to_video import draw, unseen_prompts
from minivdm.training.randomness import seeded_modules
from minivdm.training.stdit3_task import Stdit3Task
from minivdm.training.toy_t5_task import Reader, ToyT5Task, export_encoder, t5_config
from minivdm.training.trainer import Trainer

SMALL = {"stdit3.hidden_size": 96, "stdit3.depth": 3, "stdit3.num_heads": 3, "training.batch_size": 16}
PLAN = {"training.learning_rate": 4.0e-3, "training.decay_from": 0.4, "training.ema_decay": 0.99}
GUIDANCE, SAMPLING_STEPS = 2.0, 10


def random_encoder(folder: Path) -> Path:
    """A T5 of the toy's sizes that has learnt nothing."""
    from transformers import T5EncoderModel

    tokenizer = make_tokenizer()
    with seeded_modules(0):
        model = Reader(t5_config(load_preset("toy", task="toy_t5").toy_t5, tokenizer))
    encoder = T5EncoderModel(model.t5.config)
    encoder.load_state_dict(model.t5.state_dict())
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def span_encoder(run: Path, steps: int) -> Path:
    """A T5 that has learnt to fill in hidden words, and nothing else."""
    overrides = {"toy_t5.objective": "spans", "training.steps": steps, "training.milestone_every": steps}
    config = load_preset("toy", overrides, task="toy_t5")
    return export_encoder(Trainer(ToyT5Task(config), config, run).run())


def compare(folder: Path, steps: int, prompts: int) -> dict[str, Any]:
    """Train the three, and grade each on `prompts` unseen captions of one shell and as many of two."""
    encoders = {
        "random": str(random_encoder(folder / "random_t5")),
        "span-corrupted": str(span_encoder(folder / "spans_t5", steps=1000)),
        "taught": "toy",
    }
    asked = {"one shell": unseen_prompts(prompts, "single", seed=5)[0], "two shells": _of_two(prompts)}
    record: dict[str, Any] = {"steps": steps, "guidance": GUIDANCE, "asked": asked, "encoders": {}}
    for name, text in encoders.items():
        overrides = SMALL | PLAN | {"flow.text": text, "flow.cache": str(folder / "cache")}
        overrides |= {"training.steps": steps, "training.milestone_every": steps}
        config = load_preset("toy", overrides, task="stdit3")
        run = folder / name
        Trainer(Stdit3Task(config), config, run).run()
        pipeline = TextToVideoPipeline.from_pretrained(run)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        record["encoders"][name] = {
            "loss": [[row["step"], round(row["loss"], 4)] for row in rows],
            **{kind: _grade(pipeline, texts) for kind, texts in asked.items()},
        }
    return record


def _of_two(count: int) -> list[str]:
    texts, scenes = unseen_prompts(3 * count, "scene", seed=6)
    return [text for text, scene in zip(texts, scenes, strict=True) if len(scene.shells) == 2][:count]


def _grade(pipeline: TextToVideoPipeline, texts: list[str]) -> dict[str, Any]:
    """Numbers of `accuracy`, and "seen": in each film the row, column, colour and shape of every shell."""
    verdicts = judge(draw(pipeline, texts, seed=0, steps=SAMPLING_STEPS, guidance=GUIDANCE))
    seen = [[(s.row, s.column, s.colour, s.shape) for s in verdict.shells] for verdict in verdicts]
    return accuracy(verdicts, [parse_caption(text) for text in texts]) | {"seen": seen}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the runs")
    parser.add_argument("out", type=Path, help="the record, a JSON file")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--prompts", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = compare(options.folder, options.steps, options.prompts)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found) + "\n", encoding="utf-8")
