"""A text-to-video pipeline of a few thousand random weights with every layer awake: what its tests share."""

from pathlib import Path

import torch

from minivdm.denoisers import STDiT3
from minivdm.pipelines import TextToVideoPipeline, VideoSettings
from minivdm.text.encoder import TextEmbedder
from minivdm.vae import AutoEncoder2D, TemporalVAE, VideoAutoencoder

WORDS = "a small large red green blue ring palm willow then high low left right motion score".split()
TOKENS, WIDTH = 11, 12


def write_t5(folder: Path, width: int = WIDTH) -> Path:
    """A random T5 encoder of that width, whose tokens are whole words, in transformers' layout."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = T5Config(vocab_size=len(vocabulary), d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder)
    return folder


def tiny_vae(seed: int = 2, **settings) -> VideoAutoencoder:
    """Half as large per side, four times shorter, three channels."""
    torch.manual_seed(seed)
    vae2d = AutoEncoder2D(ch=8, ch_mult=(1, 1), num_res_blocks=1, z_channels=4, scale_factor=1.0)
    temporal = TemporalVAE(
        in_out_channels=4,
        latent_embed_dim=3,
        embed_dim=3,
        filters=8,
        num_res_blocks=1,
        channel_multipliers=(1, 1, 1),
        temporal_downsample=(True, True),
        num_groups=4,
    )
    return VideoAutoencoder(vae2d, temporal, shift=[0.1, -0.2, 0.3], scale=[0.9, 1.1, 1.2], **settings).eval()


def tiny_denoiser(seed: int = 3, **fields) -> STDiT3:
    """No layer is silent."""
    torch.manual_seed(seed)
    sizes = {"in_channels": 3, "hidden_size": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0, "input_sq_size": 16}
    sizes |= {"caption_channels": WIDTH, "model_max_length": TOKENS}
    model = STDiT3(**sizes | fields)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def tiny_pipeline(folder: Path, **settings) -> TextToVideoPipeline:
    """Films of 5 frames of 8 x 12 pixels: latents 3 x 2 x 4 x 6."""
    text = TextEmbedder(write_t5(folder), TOKENS)
    defaults = {"frames": 5, "height": 8, "width": 12, "steps": 3, "guidance": 2.5}
    return TextToVideoPipeline(tiny_denoiser(), text, tiny_vae(), VideoSettings(**defaults | settings))
