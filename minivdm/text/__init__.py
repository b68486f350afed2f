"""From captions to what a denoiser can listen to."""

from minivdm.text.encoder import TextEmbedder
from minivdm.text.words import BagOfWords, split_words

__all__ = ["BagOfWords", "TextEmbedder", "split_words"]
