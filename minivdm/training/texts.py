"""Texts as the denoiser gets them, each put through the frozen encoder once."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from minivdm.text.encoder import TextEmbedder


class CachedTexts:
    """Embeddings by wording, on the CPU: an encoder of billions of weights need not read a caption in every epoch."""

    def __init__(self, embedder: TextEmbedder, most: int = 16384):
        """`most`: wordings kept; of more, those that were asked for longest ago are forgotten."""
        self.embedder, self.most = embedder, most
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """y (B, L, D) and its mask (B, L) bool, as from `TextEmbedder`; only real tokens are kept, pads come back 0."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._kept]:
            y, mask = self.embedder(new)
            for text, tokens, real in zip(new, y.cpu(), mask.cpu(), strict=True):
                self._kept[text] = tokens[real].clone()
        found = []
        for text in texts:
            self._kept.move_to_end(text)
            found.append(self._kept[text])
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)
        y = found[0].new_zeros(len(texts), self.embedder.max_length, found[0].shape[-1])
        mask = torch.zeros(y.shape[:2], dtype=torch.bool)
        for row, tokens in enumerate(found):
            y[row, : len(tokens)], mask[row, : len(tokens)] = tokens, True
        return y, mask
