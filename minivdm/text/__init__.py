"""From captions to what a denoiser can listen to."""

from minivdm.text.encoder import TextEmbedder
from minivdm.text.t5 import T5Encoder, T5EncoderConfig
from minivdm.text.words import BagOfWords, split_words

__all__ = ["BagOfWords", "T5Encoder", "T5EncoderConfig", "TextEmbedder", "split_words"]
