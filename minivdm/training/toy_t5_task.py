"""Teach the toy T5 to read, from captions alone, before any picture is made.

The encoder is what ships. A decoder, or a linear layer, is there to ask: it turns the encoder's vectors into hidden
words, a list of shells, or answers about each word's shell, and so makes the encoder put into a word's vector what the
answers need.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel, T5ForConditionalGeneration

from minivdm.config import Config
from minivdm.data.captions import parse_caption
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.folder import VideoFolder
from minivdm.errors import UserError
from minivdm.settings import ToyT5Config
from minivdm.text.toy_t5 import (
    MAX_TOKENS,
    NOBODY,
    QUESTIONS,
    SENTINELS,
    answers_for,
    corrupt_spans,
    listing,
    make_tokenizer,
)
from minivdm.training.parts import averages
from minivdm.training.randomness import seeded_modules
from minivdm.training.tasks import make_dataset

PAD = 0
SHOWN = 12  # captions answered at a milestone


def t5_config(sizes: ToyT5Config, tokenizer: PreTrainedTokenizerFast) -> T5Config:
    """A T5 v1.1 of these sizes: gated GELU, no dropout."""
    return T5Config(
        vocab_size=len(tokenizer),
        d_model=sizes.d_model,
        d_kv=sizes.d_kv,
        d_ff=sizes.d_ff,
        num_layers=sizes.num_layers,
        num_decoder_layers=sizes.num_decoder_layers,
        num_heads=sizes.num_heads,
        relative_attention_max_distance=MAX_TOKENS,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        decoder_start_token_id=PAD,
    )


class Captions(Dataset):
    """The captions of a data set without its pictures, another wording in each epoch: {"caption": str}.

    With `tokenizer` there is also "answers" (L, 6): what each token is asked, see `answers_for`. Only rendered
    fireworks know that.
    """

    def __init__(self, dataset: FireworksDataset | VideoFolder, tokenizer: PreTrainedTokenizerFast | None = None):
        self.dataset, self.tokenizer = dataset, tokenizer

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, which: int | tuple[int, int]) -> dict[str, Any]:
        index, epoch = which if isinstance(which, tuple) else (which, 0)
        if self.tokenizer is None:
            return {"caption": self.dataset.caption(index, epoch)}
        text, owners = self.dataset.caption_with_owners(index, epoch)
        scene = self.dataset.scenes[index]
        said = scene if len(scene.shells) > 1 else parse_caption(text)  # of one shell something may be left unsaid
        return {"caption": text, "answers": answers_for(self.tokenizer.tokenize(text), owners, said)}


class Listener(nn.Module):
    """The whole T5 with its loss as forward: text to text."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.t5 = T5ForConditionalGeneration(config)

    @property
    def encoder(self) -> nn.Module:
        """What ships."""
        return self.t5.encoder

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy per token of targets (B, M), given inputs (B, L) padded with 0; of each caption, (B,)."""
        return mean_per_row(self.t5(input_ids=inputs, attention_mask=inputs != PAD, labels=targets).logits, targets)


class Reader(nn.Module):
    """The encoder, and a linear layer that reads from every token's vector what is asked about its shell."""

    def __init__(self, config: T5Config):
        super().__init__()
        self.t5 = T5EncoderModel(config)
        self.choices = [1 + len(names) for names in QUESTIONS.values()]
        self.heads = nn.Linear(config.d_model, sum(self.choices))

    @property
    def encoder(self) -> nn.Module:
        """What ships."""
        return self.t5.encoder

    def read(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Token numbers (B, L) padded with 0 -> for each of QUESTIONS logits (B, L, choices)."""
        vectors = self.t5(input_ids=inputs, attention_mask=(inputs != PAD).long()).last_hidden_state
        return self.heads(vectors).split(self.choices, dim=-1)

    def forward(self, inputs: Tensor, answers: Tensor) -> Tensor:
        """Sum over the questions of the cross-entropy per word asked, of each caption (B,); answers (B, L, 6)."""
        read = zip(self.read(inputs), answers.unbind(-1), strict=True)
        return torch.stack([mean_per_row(logits, right) for logits, right in read]).sum(0)


def mean_per_row(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (B,): of each row's own targets that are not NOBODY; 0 for a row of none.

    logits (B, M, K), targets (B, M). Captions count alike, long or short, so that a batch that several processes share
    has the same loss as a whole one.
    """
    wrong = F.cross_entropy(rearrange(logits, "b m k -> b k m"), targets, ignore_index=NOBODY, reduction="none")
    return wrong.sum(1) / (targets != NOBODY).sum(1).clamp(min=1)


class ToyT5Task:
    """What the Trainer needs to train a toy T5."""

    name = "toy_t5"

    def __init__(self, config: Config, dataset: FireworksDataset | VideoFolder | None = None):
        """Raises UserError when the data has no captions, or when nobody knows what they mean and that is asked."""
        self.config, self.tokenizer = config, make_tokenizer()
        reading, data = config.toy_t5.objective == "reading", make_dataset(config) if dataset is None else dataset
        if reading and not isinstance(data, FireworksDataset):
            raise UserError(
                "only of rendered fireworks it is known which word speaks of which shell: with clips of your own "
                "use --toy_t5.objective spans"
            )
        self.dataset = Captions(data, self.tokenizer if reading else None)
        if not any(self.dataset[index]["caption"] for index in range(min(64, len(data)))):
            raise UserError("the clips have no captions to learn language from: write captions.jsonl beside them")
        with seeded_modules(config.seed):
            self.model = (Reader if reading else Listener)(t5_config(config.toy_t5, self.tokenizer))

    def loss(self, model: nn.Module, batch: dict[str, Any], seeds: Sequence[int]) -> Tensor:
        """Loss of every caption, (B,); what is hidden of one comes from its seed."""
        device = next(model.parameters()).device
        texts = [torch.tensor(self.tokenizer(text)["input_ids"]) for text in batch["caption"]]
        if self.config.toy_t5.objective == "spans":
            pairs = [self._hide(text, seed) for text, seed in zip(texts, seeds, strict=True)]
            texts, targets = zip(*pairs, strict=True)
        elif self.config.toy_t5.objective == "listing":
            targets = [torch.tensor(self.tokenizer(listing(text))["input_ids"]) for text in batch["caption"]]
        else:  # the closing token belongs to nobody
            targets = [F.pad(answers, (0, 0, 0, 1), value=NOBODY) for answers in batch["answers"]]
        return model(pad_sequence(texts, True, PAD).to(device), pad_sequence(targets, True, NOBODY).to(device))

    def _hide(self, tokens: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        if len(tokens) == 1:  # only the closing token: there is nothing to hide
            return tokens, tokens
        first = self.tokenizer.convert_tokens_to_ids(SENTINELS[0])
        return corrupt_spans(tokens, torch.Generator().manual_seed(seed), first)

    def metrics(self) -> dict[str, float]:
        """The loss says it all."""
        return {}

    def alarm(self) -> str | None:
        """Nothing that the Trainer does not notice by itself."""
        return None

    def show(self, model: nn.Module, path: Path, seed: int) -> None:
        """Write what it makes of some captions."""
        texts = [self.dataset[index]["caption"] for index in range(min(SHOWN, len(self.dataset)))]
        said = (words_read if isinstance(model, Reader) else lists_written)(model, self.tokenizer, texts)
        lines = [f"caption  {text}\n{reading}\n" for text, reading in zip(texts, said, strict=True)]
        path.with_suffix(".txt").write_text("\n".join(lines), encoding="utf-8")

    def save(self, folder: Path) -> None:
        """Write the configuration and the tokenizer."""
        self.config.save(folder / "config.yaml")
        self.tokenizer.save_pretrained(folder / "tokenizer")


@torch.no_grad()
def lists_written(model: Listener, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[str]:
    """The list of shells that a Listener makes of each caption, word after word, always the most probable."""
    asked = tokenizer(list(texts), padding=True, return_tensors="pt").to(model.t5.device)
    said = model.t5.generate(**asked, max_new_tokens=MAX_TOKENS, do_sample=False, num_beams=1)
    words = [tokenizer.convert_ids_to_tokens([number for number in row if number > 2]) for row in said.tolist()]
    return [" ".join(row) for row in words]


@torch.no_grad()
def words_read(model: Reader, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[str]:
    """What a Reader answers for each word of each caption, a line per word, asked or not."""
    readings = []
    for text in texts:
        tokens = tokenizer(text, return_tensors="pt")["input_ids"].to(model.t5.device)
        answers = torch.stack([logits[0].argmax(-1) for logits in model.read(tokens)], dim=1).tolist()
        names = [("-", *names) for names in QUESTIONS.values()]
        lines = [
            f"  {token:<12}" + " ".join(f"{known[number]:<9}" for known, number in zip(names, row, strict=True))
            for token, row in zip(tokenizer.tokenize(text), answers, strict=False)
        ]
        readings.append("\n".join(lines))
    return readings


@torch.no_grad()
def share_read(model: Reader, tokenizer: PreTrainedTokenizerFast, clips: int = 512) -> dict[str, float]:
    """Share of the words of unseen captions that answer rightly, by question, and of captions without one mistake.

    The captions are of the test split: half of them speak of combinations that training never shows.
    """
    items = Captions(FireworksDataset(clips, "scene", "test", seed=1), tokenizer)
    right, whole = [], []
    for index in range(clips):
        item = items[index]
        tokens = tokenizer(item["caption"], return_tensors="pt")["input_ids"]
        said = torch.stack([logits[0, :-1].argmax(-1) for logits in model.read(tokens)], dim=1)
        asked = item["answers"] != NOBODY
        right.append(torch.where(asked, (said == item["answers"]).float(), torch.nan))
        whole.append(bool(right[-1][asked].all()))
    shares = torch.cat(right).nanmean(0).tolist()
    return dict(zip(QUESTIONS, shares, strict=True)) | {"whole captions": sum(whole) / clips}


def trained_t5(run: Path) -> tuple[Reader | Listener, PreTrainedTokenizerFast]:
    """The averaged model of a run, whole."""
    config, weights = averages(run, "toy_t5")
    tokenizer = make_tokenizer()
    model = (Reader if config.toy_t5.objective == "reading" else Listener)(t5_config(config.toy_t5, tokenizer))
    model.load_state_dict(weights)
    return model.eval(), tokenizer


def export_encoder(run: Path, folder: Path | None = None) -> Path:
    """The encoder of a run in transformers' layout and in half precision, as any text encoder is stored."""
    folder = run / "encoder" if folder is None else folder
    model, tokenizer = trained_t5(run)
    weights = {f"encoder.{name}": weight for name, weight in model.encoder.state_dict().items()}
    encoder = T5EncoderModel(model.t5.config)
    encoder.load_state_dict(weights | {"shared.weight": weights["encoder.embed_tokens.weight"]})
    encoder.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
