"""From sentences to the vectors that a denoiser looks at: T5 or CLIP, frozen, through transformers.

A text encoder turns L tokens into L vectors. Prompts of a batch differ in length, so the short ones are padded to L,
and that is where text-to-video systems go wrong quietly: pads are tokens like any other, and an encoder that is not
told which they are lets every real token look at them. The same prompt then means something else at another length.
`TextEmbedder` hands the mask to the encoder and returns it, so that the denoiser can leave the pads out as well.
"""

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minivdm.errors import UserError

if TYPE_CHECKING:  # importing transformers takes seconds: it is done when the first encoder is loaded
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# what a config.json calls the model -> the class that reads its text half
ENCODERS = {"t5": "T5EncoderModel", "clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel"}
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "vocab.json")
EXPECTED = "expected a folder of T5 or CLIP (config.json, model.safetensors, tokenizer) or the name of one on the Hub"
# what else a published file may hold: the decoder, the half for pictures, and what joins the halves
OTHER_WEIGHTS = ("decoder.", "lm_head.", "vision_model.", "visual_projection.", "text_projection.", "logit_scale")
QUIET_BYTES = 500_000_000  # smaller weights are read in about a second: no progress bar


class TextEmbedder(nn.Module):
    """`embedder(texts) -> (y (B, L, D), mask (B, L))`, without gradients, for T5 and for CLIP.

    source: a folder in transformers' layout (safetensors weights only), or the name of one on the Hugging Face Hub
    max_length: tokens per text, the closing one included. Shorter texts are padded, longer ones cut with a warning;
        CLIP has a table of positions and takes no more than that (77 in the published ones).
    attention_mask: True hides the pads from the encoder. False is Open-Sora 2's way, where they steer the real tokens.
    seq_align: pad on until L (plus `added_tokens` of a call) is a multiple of this
    dtype: of the weights and of y. In float16 the feed-forward of T5 stays in float32, where it would overflow; so
        choose the precision here and not by `.half()` afterwards.
    optimize: compile the encoder at the first call, for many texts (if it cannot be compiled, a warning and as before)
    local_files_only: do not look for the model on the network

    `dim` is D, `max_length` the limit in force, `tokenizer` and `model` are transformers'.
    Raises UserError if there is no such model, it is of another kind, or its weights are incomplete or pickled.
    """

    def __init__(
        self,
        source: str | Path,
        max_length: int = 300,
        *,
        attention_mask: bool = True,
        seq_align: int = 1,
        dtype: torch.dtype = torch.float32,
        optimize: bool = False,
        local_files_only: bool = False,
    ):
        super().__init__()
        self.model, self.tokenizer = _load(str(source), dtype, local_files_only)
        self.is_clip = self.model.config.model_type != "t5"
        self.positions = self.model.config.max_position_embeddings if self.is_clip else None
        self.max_length = min(max_length, self.positions or max_length)
        self.attention_mask = attention_mask
        self.seq_align = seq_align
        special = self.tokenizer.num_special_tokens_to_add()
        if self.max_length <= special:
            raise UserError(f"max_length={max_length} leaves no room for words beside {special} special tokens")
        if seq_align < 1:
            raise UserError(f"seq_align={seq_align}; expected 1 or more, the multiple to which texts are padded")
        self.requires_grad_(False).train()
        self._compiled = torch.compile(self.model.forward, dynamic=True) if optimize else None

    @property
    def dim(self) -> int:
        """D, the width of a token's vector."""
        return self.model.config.hidden_size

    def forward(self, texts: Sequence[str] | str, added_tokens: int = 0) -> tuple[Tensor, Tensor]:
        """B texts to the vectors of their tokens y (B, L, D) and mask (B, L) bool, True where a token is no pad.

        added_tokens: how many other tokens share the sequence later, counted when it is padded to `seq_align`
        """
        ids, mask = self.tokenize(texts, added_tokens)
        return self._encode(ids, mask).last_hidden_state, mask

    def pooled(self, texts: Sequence[str] | str) -> Tensor:
        """CLIP's one vector for each whole text, (B, D): what it saw at the closing token. T5 has none: UserError."""
        if not self.is_clip:
            raise UserError("found a T5 encoder, expected CLIP: T5 has no vector for a whole text, use embedder(texts)")
        return self._encode(*self.tokenize(texts)).pooler_output

    def tokenize(self, texts: Sequence[str] | str, added_tokens: int = 0) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) and mask (B, L) bool, cut and padded, on the model's device."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise UserError("found no texts; expected at least one, which may be empty")
        self._warn_of_cuts(texts)
        tokens = self.tokenizer(
            texts, max_length=self.max_length, truncation=True, padding="max_length", return_tensors="pt"
        )
        more = -(self.max_length + added_tokens) % self.seq_align
        if self.positions and self.max_length + more > self.positions:
            raise UserError(
                f"seq_align={self.seq_align} pads {self.max_length} tokens to {self.max_length + more}, "
                f"this CLIP has {self.positions} positions: take a smaller max_length"
            )
        ids = F.pad(tokens["input_ids"], (0, more), value=self.tokenizer.pad_token_id)
        mask = F.pad(tokens["attention_mask"], (0, more)).bool()
        device = self.model.device
        return ids.to(device), mask.to(device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model and its tokenizer, in transformers' layout: a `source` for another TextEmbedder."""
        with _quiet(sum(weight.nbytes for weight in self.model.parameters())):
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def train(self, mode: bool = True) -> "TextEmbedder":
        """Stay as it is: a frozen encoder has no dropout either, whatever the model around it does."""
        return super().train(False)

    @torch.no_grad()
    def _encode(self, ids: Tensor, mask: Tensor):
        inputs = {"input_ids": ids, "attention_mask": mask.long() if self.attention_mask else None}
        if self._compiled is not None:
            try:
                return self._compiled(**inputs)
            except Exception as error:  # of many kinds: no C compiler, an old GPU, a backend that gives up
                reason = (str(error).splitlines() or [""])[0]
                warnings.warn(f"the text encoder runs uncompiled ({type(error).__name__}: {reason})", stacklevel=5)
                self._compiled = None
        return self.model(**inputs)

    def _warn_of_cuts(self, texts: list[str]) -> None:
        """Say, once for all texts, that words are lost, and which."""
        whole = self.tokenizer(texts, return_offsets_mapping=True, verbose=False)
        too_long = [row for row, ids in enumerate(whole["input_ids"]) if len(ids) > self.max_length]
        if too_long:
            # the last place belongs to the closing token, so the token that stood there is the first one lost
            row = too_long[0]
            start = whole["offset_mapping"][row][self.max_length - 1][0]
            lost = textwrap.shorten(texts[row][start:], 60, placeholder=" ...")
            warnings.warn(
                f"{len(too_long)} of {len(texts)} texts are longer than {self.max_length} tokens; cut off: {lost!r}",
                stacklevel=6,  # points at the line that says embedder(texts), beyond two frames of nn.Module
            )


def _load(
    source: str, dtype: torch.dtype, local_files_only: bool
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """An encoder and its tokenizer, every weight accounted for. Code that comes with a model is never run."""
    import transformers

    weights_bytes = _check_folder(Path(source)) if Path(source).is_dir() else QUIET_BYTES
    options = {"local_files_only": local_files_only, "trust_remote_code": False}
    try:
        kind = transformers.AutoConfig.from_pretrained(source, **options).model_type
        if kind in ENCODERS:
            encoder = getattr(transformers, ENCODERS[kind])
            checked = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
            with _quiet(weights_bytes):
                model, report = encoder.from_pretrained(source, torch_dtype=dtype, **checked, **options)
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # transformers raises nearly every kind for files that are missing, torn or of others
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        where = "" if Path(source).is_dir() else "no such folder, and from the Hub: "
        raise UserError(f"cannot load the text encoder {source} ({where}{reason}); {EXPECTED}") from error
    if kind not in ENCODERS:
        raise UserError(f"{source} is a model of type {kind!r}; {EXPECTED}")
    problems = {
        "lacks": report["missing_keys"],
        "holds, in another shape than its config.json says,": [key for key, *_ in report["mismatched_keys"]],
        "holds, beyond what its config.json says,": [
            key for key in report["unexpected_keys"] if not key.startswith(OTHER_WEIGHTS) and "position_ids" not in key
        ],
    }
    for verb, keys in problems.items():
        if keys:
            raise UserError(f"{source} {verb} {len(keys)} weights of {ENCODERS[kind]}, first {min(keys)}; {EXPECTED}")
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"the tokenizer of {source} has {len(tokenizer)} tokens and its model {model.config.vocab_size}: "
            "expected the tokenizer that the model was trained with"
        )
    if dtype == torch.float16:
        _keep_feed_forward_in_float32(model)
    return model, tokenizer


def _check_folder(folder: Path) -> int:
    """How many bytes of weights are there. UserError says which part of an encoder is missing."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json; {EXPECTED}")
    weights = list(folder.glob("*.safetensors"))
    if not weights and (pickles := sorted(folder.glob("*.bin"))):
        raise UserError(
            f"{folder} holds pickled weights ({pickles[0].name}), which can run code when they are read; expected "
            "model.safetensors: have whoever made them save them again with safe_serialization=True"
        )
    if not weights:
        raise UserError(f"{folder} holds no model.safetensors; {EXPECTED}")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise UserError(f"{folder} holds no tokenizer ({', '.join(TOKENIZER_FILES)}); {EXPECTED}")
    return sum(file.stat().st_size for file in weights)


def _keep_feed_forward_in_float32(model: "PreTrainedModel") -> None:
    """T5 was trained in bfloat16, which reaches 3e38; float16 ends at 65504, and two places go beyond.

    They are the product of the two halves of a gated feed-forward, and the sum over it in `wo`. With both in float32
    the residual stream, to which the result is added, becomes float32 too, and each norm brings it back to float16.
    """
    for module in model.modules():
        if hasattr(module, "wi_1"):
            module.wi_1.register_forward_hook(lambda module, inputs, output: output.float())
        if hasattr(module, "wo"):
            module.wo.float()


@contextmanager
def _quiet(weights_bytes: int) -> Iterator[None]:
    """Without transformers' report on what it loaded, which is checked here, and its progress bar for small weights."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if weights_bytes < QUIET_BYTES:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
