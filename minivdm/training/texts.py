"""Texts as the denoiser gets them, each put through the frozen encoder once: in a run, or for good.

An encoder of billions of weights takes longer over a caption than the denoiser over the film. What it says is therefore
kept on disk, in a file for each text, in a folder named after the encoder: another encoder, another length or precision
is another folder. Small encoders are quicker than a disk, and their texts are kept in memory alone.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from tqdm.auto import tqdm

from minivdm.data.io import write_atomically
from minivdm.pipelines.device import on_best_device
from minivdm.text.encoder import TextEmbedder

LARGE = 50_000_000  # weights of an encoder from which on the disk pays
BATCH = 16  # texts encoded at once beforehand
SAMPLED = 4096  # numbers of each weight that go into the name of an encoder: to read all of them takes a minute


class CachedTexts:
    """Embeddings by wording, on the CPU: an encoder of billions of weights need not read a caption in every epoch."""

    def __init__(self, embedder: TextEmbedder, most: int = 16384, cache: str | Path | None = None):
        """`most`: wordings kept in memory; of more, those that were asked for longest ago are forgotten.

        cache: folder that keeps them for good, if the encoder is so large that this pays.
        """
        self.embedder, self.most = embedder, most
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        large = sum(weight.numel() for weight in embedder.parameters()) >= LARGE
        self.folder = Path(cache) / f"texts-{encoder_name(embedder)}" if cache is not None and large else None

    def prepare(self, texts: Iterable[str]) -> None:
        """Encode all texts that are not on disk yet, on the best device there is; the encoder is then where it was.

        Does nothing when texts are not kept on disk.
        """
        if self.folder is None:
            return
        new = [text for text in dict.fromkeys(texts) if not self._file(text).is_file()]
        title = f"encoding {len(new)} texts"
        with on_best_device(self.embedder), tqdm(total=len(new), desc=title, delay=1, leave=False) as bar:
            for start in range(0, len(new), BATCH):
                self._encode(new[start : start + BATCH])
                bar.update(len(new[start : start + BATCH]))

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """y (B, L, D) and its mask (B, L) bool, as from `TextEmbedder`; only real tokens are kept, pads come back 0."""
        known = {text: tokens for text in dict.fromkeys(texts) if (tokens := self._find(text)) is not None}
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            known |= self._encode(new)
        for text, tokens in known.items():
            self._kept[text] = tokens
            self._kept.move_to_end(text)
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)
        found = [known[text] for text in texts]
        y = found[0].new_zeros(len(texts), self.embedder.max_length, found[0].shape[-1])
        mask = torch.zeros(y.shape[:2], dtype=torch.bool)
        for row, tokens in enumerate(found):
            y[row, : len(tokens)], mask[row, : len(tokens)] = tokens, True
        return y, mask

    @torch.no_grad()
    def _encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The real tokens of each text, also on disk where they belong there."""
        y, mask = self.embedder(texts)
        rows = zip(texts, y.cpu(), mask.cpu(), strict=True)
        encoded = {text: tokens[real].clone() for text, tokens, real in rows}
        if self.folder is not None:
            for text, tokens in encoded.items():
                write_atomically(self._file(text), save({"tokens": tokens}))
        return encoded

    def _find(self, text: str) -> Tensor | None:
        """In memory, else on disk; a damaged file is as good as none."""
        if text in self._kept or self.folder is None:
            return self._kept.get(text)
        try:
            return load(self._file(text).read_bytes())["tokens"]
        except (OSError, SafetensorError, KeyError):
            return None

    def _file(self, text: str) -> Path:
        name = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:40]}.safetensors"


def encoder_name(embedder: TextEmbedder) -> str:
    """A name for what an encoder makes of texts: it changes with its weights, its words, its length and precision."""
    digest = hashlib.sha256()
    for name, weight in sorted(embedder.state_dict().items()):
        flat = weight.detach().flatten()
        sample = flat[:: max(1, len(flat) // SAMPLED)].contiguous().cpu()
        digest.update(repr((name, tuple(weight.shape), weight.dtype)).encode())
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    digest.update(repr(sorted(embedder.tokenizer.get_vocab().items())).encode())
    digest.update(repr((embedder.max_length, embedder.attention_mask, embedder.seq_align)).encode())
    return digest.hexdigest()[:16]
