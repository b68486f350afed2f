"""Make the shipped toy T5 out of a run of `minivdm train toy_t5`, measured, with a model card.

python -m minivdm.training.publish_t5 runs/toy_t5 checkpoints/toy/t5
"""

import argparse
import json
import shutil
from pathlib import Path

from torch import Tensor, nn
from torch.nn.functional import normalize

from minivdm.config import load_config
from minivdm.data.scenes import COLOURS
from minivdm.errors import UserError
from minivdm.text.encoder import TextEmbedder
from minivdm.training.checkpoint import load_newest
from minivdm.training.toy_t5_task import Reader, export_encoder, share_read, trained_t5

PROMPT = "a large {} peony high on the left"

CARD = """# Toy T5: sentences about fireworks, word by word

A `text.T5Encoder` of {parameters:,} parameters ({layers} layers, width {width}) with a tokenizer of {words} whole
words, stored as transformers stores any T5, in half precision:

    from minivdm.text.encoder import TextEmbedder
    y, mask = TextEmbedder("checkpoints/toy/t5", max_length=48)(["a large red peony high on the left"])

## Recipe
{steps:,} steps of {batch} captions out of {clips:,} scenes of the training split, with a new wording in each epoch;
{precision}, learning rate {rate}. {machine} Objective: *reading*. A linear layer, which is not shipped, asks every
word of a shell where that shell is and when it bursts, and a colour, shape or size word also for what it says itself.
That is supervised: the grammar that writes the captions knows whose word each one is. Trained on span corruption alone,
a T5 makes colours exchangeable; asked for a list of all shells at once, text to text, it learnt which words occur but
not whose they are (see `text/toy_t5.py` for all three, and `--toy_t5.objective`). Asked of *every* word for all
attributes of its shell, it left no word to stand for itself, and a denoiser learnt shapes and colours more slowly
behind it. To make it again:

    minivdm train toy_t5 --preset toy --run runs/toy_t5
    python -m minivdm.training.publish_t5 runs/toy_t5 checkpoints/toy/t5

## Measured quality
On captions of the test split, half of which speak of combinations that training never showed: of the words that are
asked, the share whose answer is right.

| {names} |
|{rules}|
| {shares} |

Mean cosine between the vectors of the eight colour words in "{prompt}": {cosine:.2f} (1 would mean that they are one
word).

## Limits
It knows the words of `data.captions` and nothing else; any other word is <unk>. Licence: Apache-2.0.
"""


def publish_t5(run: Path, out: Path, machine: str = "") -> dict[str, float]:
    """Export the newest checkpoint of `run`, a run with the objective "reading", to `out`, and write the card."""
    model, tokenizer = trained_t5(run)
    if not isinstance(model, Reader):
        raise UserError(f"{run} was trained with another objective; publish one with --toy_t5.objective reading")
    export_encoder(run, out)
    config, step = load_config(run / "config.yaml"), load_newest(run)[1]["step"]
    for name in ("loss.png", "metrics.jsonl"):
        shutil.copy(run / name, out / name)
    config.save(out / "config.yaml")
    shares = share_read(model, tokenizer)
    facts = {"cosine": _likeness(TextEmbedder(out, max_length=48)), "read": shares}
    (out / "evaluation.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    training = config.training
    card = CARD.format(
        parameters=sum(weight.numel() for weight in model.encoder.parameters()),
        layers=config.toy_t5.num_layers,
        width=config.toy_t5.d_model,
        words=len(tokenizer),
        steps=step,
        batch=training.batch_size * training.accumulate,
        clips=config.data.clips,
        precision=training.precision,
        rate=training.learning_rate,
        machine=machine,
        names=" | ".join(shares),
        rules="---|" * (len(shares) - 1) + "---",
        shares=" | ".join(f"{share:.2%}" for share in shares.values()),
        prompt=PROMPT.format("…"),
        cosine=facts["cosine"],
    )
    (out / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    return shares


def _likeness(embedder: nn.Module) -> float:
    """Mean cosine between the vectors of two colour words, each in the same sentence."""
    vectors: Tensor = normalize(embedder([PROMPT.format(colour) for colour in COLOURS])[0][:, 2], dim=-1)
    cosines = vectors @ vectors.T
    return ((cosines.sum() - len(COLOURS)) / (len(COLOURS) * (len(COLOURS) - 1))).item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--machine", default="", help="a sentence for the card: where it was trained and for how long")
    options = parser.parse_args()
    print(publish_t5(options.run, options.out, options.machine))
