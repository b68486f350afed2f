"""Tiny T5 and CLIP folders with random weights, written where a test wants them."""

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

WORDS = "a large small red blue green peony ring willow high low on the left right then in moonlight".split()
T5_WIDTH, CLIP_WIDTH, CLIP_POSITIONS = 12, 16, 11


def awake(model, seed=0):
    """Weights large enough that every word matters to every other."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in dict.fromkeys(model.parameters()):
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model


def word_tokenizer(special, template, **names):
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(word, vocabulary[word]) for word in special]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **names)


def t5_config(**changes):
    sizes = {"vocab_size": 3 + len(WORDS), "d_model": T5_WIDTH, "d_kv": 5, "d_ff": 19, "num_layers": 2, "num_heads": 3}
    return T5Config(**sizes | {"feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0} | changes)


def save_t5(folder, model=None):
    """A T5 of d_model 12: <pad> is 0, </s> is 1, <unk> is 2, then the words."""
    (model or awake(T5EncoderModel(t5_config()))).save_pretrained(folder)
    special = ("<pad>", "</s>", "<unk>")
    word_tokenizer(special, "$A </s>", pad_token="<pad>", eos_token="</s>").save_pretrained(folder)
    return folder


def clip_config():
    return CLIPTextConfig(
        vocab_size=4 + len(WORDS),
        hidden_size=CLIP_WIDTH,
        intermediate_size=21,
        projection_dim=7,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_POSITIONS,
        bos_token_id=1,
        eos_token_id=3,
        pad_token_id=3,
    )


def save_clip(folder, model=None):
    """A CLIP of width 16 and 11 positions. As in the published ones, what closes a text also pads it."""
    (model or awake(CLIPTextModel(clip_config()))).save_pretrained(folder)
    special = ("<none>", "<start>", "<unk>", "<end>")
    names = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>"}
    word_tokenizer(special, "<start> $A <end>", **names).save_pretrained(folder)
    return folder
