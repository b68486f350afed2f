# %% [markdown]
# # 09 Text to video: say it
#
# You have destroyed a film and run the destruction backwards, squeezed films, sharpened them, dreamt them as pixels and as
# tokens. One thing was missing all the time: **language**. Five fixed words were all that lesson 08 could say. Today you
# type a sentence, and a firework that never existed bursts on your screen. By the end you will have made
#
# * **the ear of the model**: masks, T5's sense of order, and a cross-attention that hears words and no padding;
# * **a text-to-video model, trained before your eyes** and graded while it learns, from chance upwards;
# * **a count of mix-ups**, right colours on wrong shells, and the reason why every such system begins with a language
#   model that could already read;
# * **films that begin with a given picture**, end with one, or go on from one sentence to the next;
# * **a film from a sentence by your own loop**, equal to the package's to the last bit, and then once more with your own
#   functions from all the lessons inside.
#
# **Time:** about **4 minutes** of computing on two CPU cores; the live training takes most of it. Ten exercises, three
# hints each. No network, no GPU.

# %% tags=["parameters"]
preset = "toy"
seed = 0
device = None  # None: the CPU, which is all that this lesson needs

# %%
import copy
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from IPython.display import HTML, clear_output
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# %%
from minivdm import viz
from minivdm.config import load_preset
from minivdm.course import check, hint, workbook  # noqa: F401
from minivdm.course.exercise import exercises
from minivdm.data.captions import MEANING, canonical, parse_caption, unknown_words
from minivdm.data.fireworks import Scene, Shell, render, sample_scenes
from minivdm.data.fireworks_dataset import FireworksDataset
from minivdm.data.judge import judge, match, prompt_accuracy
from minivdm.data.scenes import COLOURS
from minivdm.denoisers import STDiT3
from minivdm.denoisers.dit_blocks import CrossAttention, STDiT3Block
from minivdm.denoisers.stdit3 import STDIT3_SIZES
from minivdm.diffusion import RectifiedFlow
from minivdm.diffusion.guidance import classifier_free
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.pipelines import TextToVideoPipeline, load_video_autoencoder

# %%
from minivdm.pipelines.prompts import split_clips, with_motion_score
from minivdm.text.encoder import TextEmbedder
from minivdm.text.t5 import T5Encoder, T5EncoderConfig
from minivdm.text.toy_t5 import NOBODY
from minivdm.training.compare_encoders import random_encoder, span_encoder
from minivdm.training.evaluate_text_to_video import unseen_prompts
from minivdm.training.films import LatentFilms
from minivdm.training.optimizers import Muon
from minivdm.training.randomness import seeded_modules
from minivdm.training.texts import CachedTexts
from minivdm.training.toy_t5_task import Captions
from minivdm.vae import VAE_TEMPORAL_SD, AutoEncoder2D, AutoEncoderConfig, TemporalVAE
from minivdm.vae.blocks2d import AttnBlock
from minivdm.vae.causal_conv import CausalConv3d

# %% [markdown]
# Here is the whole machine, made of nothing but what the lessons built: a text encoder, the denoiser of lesson 08, the
# autoencoders of lessons 03 and 04. It was trained on a processor like yours (its `MODEL_CARD.md` says for how long). **Change the
# sentence and run the cell again.** It knows eight colours, six shapes, two sizes and six places, in many wordings.

# %%
torch.set_num_threads(1)  # small tensors: two threads would wait for each other
pipe = TextToVideoPipeline.from_pretrained("toy")
pipe.settings = replace(pipe.settings, eta=0.0)  # nothing thrown in on the way, until section 9
SENTENCE = "a large gold willow high on the left"

# %% tags=["nbval-ignore-output"]
film = pipe(SENTENCE, seed=seed, steps=16)
viz.player(film, [SENTENCE], scale=4, fps=6)

# %% [markdown]
# How does a sentence get in there? And what must happen to it on the way, so that the film obeys?

# %%
def dice(roll: int) -> torch.Generator:
    """Reproducible randomness: the same roll is the same throw."""
    return torch.Generator().manual_seed(1000 * seed + roll)


def obeys(films: Tensor, prompts: Sequence[str]) -> int:
    """In how many films the judge finds what was asked for."""
    return sum(match(found, parse_caption(text)) for found, text in zip(judge(films), prompts, strict=True))


print("the judge says:", ", then ".join(canonical(Scene((shell,))) for shell in judge(film)[0].shells))

# %% [markdown]
# ## 1 · Words become numbers
#
# A network multiplies numbers, so each word gets one: its place in a list. Our toy language is so small that whole words
# do. (Large encoders cut rare words into pieces: T5 knows 32,000 pieces.) Every text ends with `</s>`, "that was all".

# %%
tokenizer = pipe.text.tokenizer
print(len(tokenizer), "numbers in all")
for text in (SENTENCE, "A LARGE, gold willow?", "a large gold weeping wilow", "왼쪽 위에 큰 금빛 버드나무"):
    numbers = tokenizer(text)["input_ids"]
    print("  ".join(f"{word} {number}" for word, number in zip(tokenizer.convert_ids_to_tokens(numbers), numbers, strict=True)))

# %% [markdown]
# A word that is not in the list becomes `<unk>`, and whatever it meant is gone: a typing error, or a whole language. That
# is no toy's weakness alone. The T5 of the large open systems was taught on English; Korean does not reach it, though
# pages about these systems say so (their makers let another language model translate first).
#
# Nor does a text reach anybody beyond the length that the encoder was set to. Ours at least says so:

# %%
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    TextEmbedder(checkpoint_dir("toy/t5"), 6)([SENTENCE])
print(said[0].message)

# %% [markdown]
# ### A table of prompts
#
# A batch must be a rectangle, but prompts differ in length. So the short ones are filled up with `<pad>`, number 0. How
# many words each prompt really has is the one thing that nobody may forget from here on. It is written down as a **mask**.
#
# ### Exercise 09.text_mask (3 minutes)


# %%
# exercise: 09.text_mask
def text_mask(lengths: Tensor, max_length: int) -> Tensor:
    """(B,) numbers of tokens -> (B, max_length) bool, True = a real token. A longer prompt fills its row.

    Stuck? hint("09.text_mask")
    """
    ### BEGIN SOLUTION
    return torch.arange(max_length) < lengths[:, None]
    ### END SOLUTION


# %%
# hint("09.text_mask")
check("09.text_mask", text_mask)

# %%
PAIR = "a large red peony high on the left, then a small blue ring low on the right"
three = [SENTENCE, "a red ring", PAIR]
lengths = torch.tensor([len(tokenizer(text)["input_ids"]) for text in three])
y, mask = pipe.text(three)
print("tokens:", lengths.tolist(), " vectors:", tuple(y.shape), "= (B, L, D)")
print("your mask = the package's:", torch.equal(text_mask(lengths, y.shape[1]), mask))

# %% [markdown]
# Each number picks a row of a table with learned entries, a vector. If that were all, "red" would be the same vector in
# every sentence. The text encoder's work is to make of it *this* red: the one of the peony, on the left, the first to burst.
#
# ## 2 · Words that know their neighbours
#
# The encoder is a small T5: three layers in which every word asks every other word, as frames did in lesson 07. And as
# there, attention by itself sees a *bag*: shuffle the words, and the answers are shuffled along. (An architecture page
# that you may meet draws a box "positional encoding" here. T5 has no such table.) T5 adds a learned number to each score
# instead, one per head and per **distance** between the two words, in buckets: you wrote `relative_position_bucket` in
# lesson 07.
#
# ### Exercise 09.relative_position_bias (8 minutes)


# %%
# exercise: 09.relative_position_bias
def relative_position_bias(query_length: int, key_length: int, table: Tensor, max_distance: int) -> Tensor:
    """What is added to the scores: (heads, query_length, key_length), from a table (num_buckets, heads).

    The bucket is that of key position − query position, as in lesson 07. Stuck? hint("09.relative_position_bias")
    """
    ### BEGIN SOLUTION
    offset = torch.arange(key_length) - torch.arange(query_length)[:, None]
    half = len(table) // 2
    exact = half // 2
    distance = offset.abs()
    octave = torch.log(distance.clamp(min=1) / exact) / math.log(max_distance / exact)
    far = (exact + (octave * (half - exact)).long()).clamp(max=half - 1)
    bucket = torch.where(distance < exact, distance, far) + half * (offset > 0)
    return rearrange(table[bucket], "query key head -> head query key")
    ### END SOLUTION


# %%
# hint("09.relative_position_bias")
check("09.relative_position_bias", relative_position_bias)

# %% [markdown]
# Is it T5's? We build the encoder from the package's own few lines, give it the shipped weights, put your bias into it, and
# compare with the library from which everybody loads T5:

# %%
t5_sizes = T5EncoderConfig.from_dict(pipe.text.model.config.to_dict())
your_t5 = T5Encoder(t5_sizes).requires_grad_(False)
your_t5.load_state_dict(pipe.text.model.state_dict())
first_layer = your_t5.encoder.block[0].layer[0].SelfAttention
table = first_layer.relative_attention_bias.weight
first_layer.position_bias = lambda L: relative_position_bias(L, L, table, t5_sizes.relative_attention_max_distance)
ids, mask = pipe.text.tokenize(three)
print("T5 with your bias = transformers' T5:", torch.allclose(your_t5(ids, mask)[mask], pipe.text(three)[0][mask], atol=1e-4))

# %% [markdown]
# What it has learned, one picture per head: blue is sought, red avoided. Along each diagonal one colour: it is the distance
# that counts, and the side.

# %% tags=["nbval-ignore-output"] alt="four squares striped along their diagonals: the heads weigh distances differently"
bias = relative_position_bias(18, 18, table, t5_sizes.relative_attention_max_distance)
fig, axes = viz.figure(1, len(bias), width=10, height=2.9)
for head, ax in enumerate(axes):
    ax.imshow(bias[head], cmap="RdBu", vmin=-bias.abs().max(), vmax=bias.abs().max())
    ax.set(title=f"head {head + 1}", xlabel="key word", ylabel="query word" if head == 0 else None)
plt.show()

# %% [markdown]
# Now two sentences of the *same words*, and a second ear that is the same T5 with this table set to zero: it hears the
# words, but no order.

# %%
RED_LEFT = "a large red peony high on the left and a small blue ring low on the right"
BLUE_LEFT = "a large blue peony high on the left and a small red ring low on the right"
BOTH = [RED_LEFT, BLUE_LEFT]
bag = copy.deepcopy(pipe.text)
bag.model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.zero_()
print("the same words:", sorted(RED_LEFT.split()) == sorted(BLUE_LEFT.split()))

# %% [markdown] tags=["predict"]
# **Predict first.** The word "red" stands third in one sentence and twelfth in the other. With which of the two ears does
# it get the same vector in both? And the harder one: what will a film model make of the two sentences if it hears them
# through the bag? Would more training help it?
#
# Write your guesses here before you run the next cells: …

# %%
def vector_of(word: str, embedder: nn.Module, text: str) -> Tensor:
    """The vector (D,) of a word that occurs once in the text."""
    place = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]).index(word)
    return embedder([text])[0][0, place]


for name, ear in {"T5": pipe.text, "bag": bag}.items():
    one, other = (vector_of("red", ear, text) for text in BOTH)
    apart = (one - other).norm() / one.norm()
    print(f"{name:4} the two reds differ by {'nothing' if apart < 1e-4 else f'{apart:.0%} of their length'}")

# %%
bag_pipe = TextToVideoPipeline(pipe.denoiser, bag, pipe.vae, pipe.settings)
same_noise = {ear: torch.cat([each(text, seed=seed, steps=16) for text in BOTH]) for ear, each in (("T5", pipe), ("bag", bag_pipe))}
for ear, (one, other) in same_noise.items():
    print(f"{ear:4} the two films are {'the same' if (one - other).abs().max() < 1e-2 else 'different'}")

# %% tags=["nbval-ignore-output"]
shown = [film for films in same_noise.values() for film in films]
viz.player(shown, [f"{ear}: {text}" for ear in same_noise for text in BOTH], columns=4, fps=6, scale=3)

# %% [markdown]
# <details><summary>Why, and why no training can help</summary>
#
# To the bag, both sentences are one and the same *set* of vectors. The film looks the words up by attention, which sees a set
# as well. So whatever the weights are, both sentences give **one film**, to the last digit that matters: at least one of the
# two wishes cannot come true. (Look at the colours: a compromise.) A bag of words was enough for lesson 07, where there was one shell. With two, somebody has to say *whose* red it is.
# </details>
#
# Remember this. It will come back in a subtler shape: an encoder that *could* tell whose red it is, and never learned to.
#
# **Frozen.** All this was learned before any film was seen, and is never touched again:

# %%
pipe.text.train()
learning = sum(weight.requires_grad for weight in pipe.text.parameters())
print(f"{sum(weight.numel() for weight in pipe.text.parameters()):,} weights, {learning} of their tensors learning, dropout on: {pipe.text.model.training}")

# %% [markdown]
# ## 3 · The film listens
#
# In every block of the denoiser, each place of the film looks at the words: the place asks (query), the words answer (key
# and value). It is attention as you know it, with two differences. The words do not ask back, and **not every column of the table is a word**. Padding
# must not get any share; so its score becomes $-\infty$ *before* the softmax:
#
# $$\text{out}_i = \sum_j a_{ij} v_j, \qquad a_{i\cdot} = \mathrm{softmax}_j\Big(\tfrac{q_i \cdot k_j}{\sqrt d}\Big), \quad \text{with the score } -\infty \text{ where } j \text{ is padding}.$$
#
# ### Exercise 09.masked_cross_attention (8 minutes)


# %%
# exercise: 09.masked_cross_attention
def masked_cross_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q (B, heads, N, d), k and v (B, heads, L, d), mask (B, L) bool, True = a real token -> (B, heads, N, d).

    Stuck? hint("09.masked_cross_attention")
    """
    ### BEGIN SOLUTION
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return scores.masked_fill(~mask[:, None, None], -math.inf).softmax(dim=-1) @ v
    ### END SOLUTION


# %%
# hint("09.masked_cross_attention")
check("09.masked_cross_attention", masked_cross_attention)

# %% [markdown]
# It goes into the trained network, in place of the package's, in every block:

# %%
def listen(layer: CrossAttention, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """What CrossAttention does, by your function: x (B, N, D), y (B, L, D), mask (B, L) -> like x."""
    q = rearrange(layer.q_linear(x), "b n (head d) -> b head n d", head=layer.heads)
    k, v = rearrange(layer.kv_linear(y), "b l (two head d) -> two b head l d", two=2, head=layer.heads)
    return layer.proj(rearrange(masked_cross_attention(q, k, v, mask), "b head n d -> b n (head d)"))


def with_your_ear(net: STDiT3) -> STDiT3:
    """A copy of the network in which your function listens."""
    net = copy.deepcopy(net)
    for layer in net.modules():
        if isinstance(layer, CrossAttention):
            layer.forward = partial(listen, layer)
    return net


# %%
def told(size: int = 64, fps: float = 8.0) -> dict[str, Tensor]:
    """What the denoiser hears beside the words."""
    return {"fps": torch.tensor([fps]), "height": torch.tensor([float(size)]), "width": torch.tensor([float(size)])}


z, t = torch.randn(3, *pipe.parts().latent_shape, generator=dice(1)), torch.tensor([900.0, 500.0, 100.0])
y, mask = pipe.text(three)
with torch.no_grad():
    theirs, yours = pipe.denoiser(z, t, y, mask, **told()), with_your_ear(pipe.denoiser)(z, t, y, mask, **told())
print("the velocity is the same:", torch.allclose(yours, theirs, atol=1e-4))
q, k, v = torch.randn(3, 2, 4, 6, 8, generator=dice(9))  # two prompts of 2 and 5 tokens
some = text_mask(torch.tensor([2, 5]), 6)
fused = F.scaled_dot_product_attention(q, k, v, attn_mask=some[:, None, None])
print("and so is PyTorch's fused attention:", torch.allclose(masked_cross_attention(q, k, v, some), fused, atol=1e-5))

# %% [markdown]
# And whom does it listen to? Halfway from noise to the film of two shells we ask all blocks and heads: of the attention that goes to the
# words, how much does each of them get, at each of the 4 × 4 places?


# %%
def shares(net: STDiT3, z: Tensor, t: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
    """How the places' attention is shared among the tokens, in the mean over blocks and heads: (T, 4, 4, L)."""
    found = []

    def note(layer: CrossAttention, inputs: tuple, output: Tensor) -> None:
        q = rearrange(layer.q_linear(inputs[0]), "b n (head d) -> b head n d", head=layer.heads)
        k, _ = rearrange(layer.kv_linear(inputs[1]), "b l (two head d) -> two b head l d", two=2, head=layer.heads)
        hidden = torch.zeros(y.shape[:2], dtype=torch.bool) if mask is None else ~mask
        scores = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).masked_fill(hidden[:, None, None], -math.inf)
        found.append(scores.softmax(-1).mean((0, 1)))

    hooks = [layer.register_forward_hook(note) for layer in net.modules() if isinstance(layer, CrossAttention)]
    with torch.no_grad():
        net(z, t, y, mask, **told())
    for hook in hooks:
        hook.remove()
    return rearrange(torch.stack(found).mean(0), "(t h w) l -> t h w l", t=z.shape[2], h=z.shape[3] // 2)


# %%
parts = pipe.parts()
nothing = parts.null(1)


@torch.no_grad()
def latents_of(y: Tensor, mask: Tensor, roll: int = 2, scale: float = 3.0, steps: int = 16) -> Tensor:
    """Latents of a film for encoded texts (B, L, D) with their mask, all from the same noise."""
    none = [each.expand(len(y), *each.shape[1:]) for each in nothing]
    start = torch.randn((1, *parts.latent_shape), generator=dice(roll)).expand(len(y), -1, -1, -1, -1)

    def velocity(z: Tensor, t: Tensor, frames: Tensor | None) -> Tensor:
        return classifier_free(parts.velocity(z, t, y, mask), parts.velocity(z, t, *none), scale)

    return pipe.flow.sample(velocity, start, steps)


# %% tags=["nbval-ignore-output"] alt="words of the large red peony point to the top left, small blue ring: bottom right"
y, mask = pipe.text([PAIR])
x0, noise = latents_of(y, mask), torch.randn((1, *parts.latent_shape), generator=dice(3))
t = torch.tensor([600.0])
heard = shares(pipe.denoiser, pipe.flow.add_noise(x0, noise, t), t, y, mask).mean(0)
names = tokenizer.convert_ids_to_tokens(tokenizer(PAIR)["input_ids"])
chosen = [place for place, word in enumerate(names) if word in MEANING]
fig, axes = viz.figure(1, len(chosen), width=10, height=1.7)
for ax, place in zip(axes, chosen, strict=True):
    ax.imshow(heard[..., place], cmap="RdPu", vmin=0, vmax=heard[..., chosen].max())
    ax.set(title=names[place], xticks=[], yticks=[])
plt.show()
viz.player(parts.decode(x0).clamp(-1, 1), [PAIR], scale=5, fps=6)

# %% [markdown]
# Each little map is a word, each square a place of the film, averaged over its frames. Where a map is dark, that place listens to that word. Whose
# word it is, the T5 has learnt from captions; where such a shell has to be painted, the denoiser found out from films. Nobody has told it.
#
# ## 4 · Bug of the day: an encoder padded without a mask
#
# The text encoder of a well-known system is called, in our words, like this:
#
# ```python
# tokens = tokenizer(prompts, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt")
# y = t5(input_ids=tokens["input_ids"], attention_mask=None)
# ```
#
# Shapes are right, films come out, and they are good. What could be wrong? Ours can be told to do the same. Measure: the *same* prompt
# through both, padded to several lengths, and of the results only the vectors of the *real* words.

# %%
def ear_of(length: int, attention_mask: bool) -> TextEmbedder:
    """The shipped T5, padding to `length`."""
    return TextEmbedder(checkpoint_dir("toy/t5"), length, attention_mask=attention_mask)


LENGTHS = (12, 24, 48)
heard = {told_so: [ear_of(length, told_so)([SENTENCE]) for length in LENGTHS] for told_so in (True, False)}

# %% [markdown] tags=["predict"]
# **Predict first.** The sentence has nine tokens, the last of which is `</s>`. Padded to 12, 24 or 48: will the vectors of these nine be the same at every length? With a mask for the
# encoder, and without? And if the vectors differ, will one *see* it in the film?
#
# Write your guess here before you run the next cells: …

# %%
print("how far the real words are from where they are at length 12, in parts of their length")
for told_so, texts in heard.items():
    real = [y[0, mask[0]] for y, mask in texts]
    moved = [((words - real[0]).norm() / real[0].norm()).item() for words in real]
    row = "  ".join(f"{length:2d}: {far:5.1%}" for length, far in zip(LENGTHS, moved, strict=True))
    print(f"{'with a mask   ' if told_so else 'without a mask'}   {row}")

# %% [markdown]
# The prompt has not changed by a letter, and it means something else at every length: the words have looked at the padding, as many times as
# there is padding. Whoever trains at one length and samples at another has, without knowing it, changed all prompts. Seen, from one and the same noise:

# %% tags=["nbval-ignore-output"]
films = [parts.decode(latents_of(*text)).clamp(-1, 1)[0] for texts in heard.values() for text in texts]
labels = [f"{'mask' if told_so else 'no mask'}, {length} tokens" for told_so in heard for length in LENGTHS]
viz.player(films, labels, columns=len(LENGTHS), fps=6, scale=3)

# %% [markdown]
# Above, the same film at every length. Below, without a mask, the burst comes out a little differently at every length of the padding, though nobody asked for that. And the second half of the same bug: if the *denoiser* is not told either, the places of the film listen to the
# padding. How much? We take its mask away and add up the shares:

# %% tags=["nbval-ignore-output"]
y, mask = pipe.text([SENTENCE])
noise = torch.randn((1, *parts.latent_shape), generator=dice(3))
deaf = shares(pipe.denoiser, noise, torch.tensor([900.0]), y, None)
print(f"{(~mask).sum()} of {mask.numel()} tokens are padding; they get {deaf[..., ~mask[0]].sum(-1).mean():.0%} of the attention")
both = [latents_of(y, mask), latents_of(y, torch.ones_like(mask))]
viz.player([parts.decode(each).clamp(-1, 1)[0] for each in both], ["words only", "words and padding"], columns=2, fps=6, scale=3)

# %% [markdown]
# A sixth of the attention, and yet hardly another film. (Behind an encoder *with* a mask, the pads have looked at the words too, and probably say little else. That is luck and no design; the row above shows what pads can do.)
#
# <details><summary>What to do about it</summary>
#
# Hand the mask to *everybody* who attends: to the encoder and to the denoiser. `TextEmbedder` does the first by default and returns the mask for the second; `attention_mask=False`
# is there for published weights that were trained with steering pads, and then the length must be the one of their training. The test is one line: *the same prompt at two lengths must
# give the same vectors.* No test of shapes finds this.
# </details>
#
# ## 5 · Saying nothing
#
# Guidance (lesson 07) compares what the network predicts *with* the words and *without*. So it must know what "without" means. Not an empty sentence: a
# fixed table of vectors, as long as a prompt, drawn once at random, which replaces one caption in ten during training. Whatever it holds, it comes to mean "nothing was said".
#
# ### Exercise 09.null_dropout (4 minutes)


# %%
# exercise: 09.null_dropout
def null_dropout(y: Tensor, null: Tensor, drop: Tensor) -> Tensor:
    """y (B, L, D), null (L, D), drop (B,) bool: True takes null. Gradients flow to both. Stuck? hint("09.null_dropout")"""
    ### BEGIN SOLUTION
    return torch.where(drop[:, None, None], null, y)
    ### END SOLUTION


# %%
# hint("09.null_dropout")
check("09.null_dropout", null_dropout)

# %% [markdown]
# What is it good for? A wall. Rows: three sentences. Columns: the scale. In each row one noise, and the film at scale 0 is the same whatever was said.

# %% tags=["nbval-ignore-output"]
ASKED = ["a small green ring low in the centre", "a large purple palm high on the right", PAIR]
SCALES = (0, 1, 3, 10)
y, mask = pipe.text(ASKED)
wall = {scale: parts.decode(latents_of(y, mask, roll=4, scale=scale)).clamp(-1, 1) for scale in SCALES}
films = [wall[scale][row] for row in range(len(ASKED)) for scale in SCALES]
viz.player(films, [f"{text}, × {scale}" for text in ASKED for scale in SCALES], columns=len(SCALES), fps=6, scale=2)

# %% tags=["nbval-ignore-output"]
for scale, films in wall.items():
    print(f"scale {scale:2}: the judge finds what was asked in {obeys(films, ASKED)} of {len(ASKED)}; "
          f"{(films > 0.99).float().mean():.2%} of the numbers are at their limit")

# %% [markdown]
# At 0 the words are not heard. At 1 the model says what it believes; at 3 it insists. At 10 it shouts: hearts burn white, edges harden, and three times as many numbers as at 1 stand at their limit. Obedience is bought with naturalness, here as everywhere.

# %% [markdown]
# ## 6 · Train it live
#
# Now from nothing. The encoders are finished and frozen, so films and captions go through them **once**, and the denoiser never sees a pixel or a word, only
# latents and vectors. One shell per film; to make it easy, only large ones, on 32 × 32 pixels and in the latents of the autoencoders of lessons 03 and 04. (The shipped model's films have 64 × 64, in the latents of a pair of their own.) First the films (**about a quarter of a minute**):

# %% tags=["nbval-ignore-output"]
STEPS, BATCH = 900, 16
world = FireworksDataset(1280, "single", "train", seed=seed)
world.scenes = [scene for scene in world.scenes if scene.shells[0].size == "large"]
small_vae = load_video_autoencoder("toy")
squeezed = LatentFilms(world, small_vae, cache=None)
clear_output()  # of the progress
print(tuple(squeezed.latents.shape), f"latents of size {squeezed.latents.float().std():.2f}")

# %%
for index in (0, 1, 2, 3):
    print(world.caption(index, epoch=0), " | ", world.caption(index, epoch=1))

# %% [markdown]
# Each film has another wording in every epoch, and some wordings leave things out. The network is lesson 08's, small; the loss too: a point on the
# straight line between noise and film, and the velocity as the target. New is only what it hears: the vectors of the frozen T5 with their mask, one caption in ten replaced by *your* `null_dropout`.


# %%
def a_transformer(width: int = 96, depth: int = 3) -> STDiT3:
    """A small STDiT3 that has learnt nothing, for our latents and our T5."""
    text = {"caption_channels": pipe.text.dim, "model_max_length": pipe.text.max_length}
    with seeded_modules(1000 * seed + 5):
        return STDiT3(hidden_size=width, depth=depth, num_heads=3, **text, pred_sigma=False, input_sq_size=32)


def loss_of(net: STDiT3, chosen: list[int], epoch: int, chance: torch.Generator) -> Tensor:
    """The flow loss of some films under a wording each, averaged."""
    x0 = torch.stack([squeezed[index]["latents"] for index in chosen])
    y, mask = spoken([world.caption(index, epoch) for index in chosen])
    drop = torch.rand(len(chosen), generator=chance) < 0.1
    y, mask = null_dropout(y, net.y_embedder.y_embedding, drop), mask | drop[:, None]
    t, noise = flow.sample_t(len(chosen), generator=chance), torch.randn(x0.shape, generator=chance)
    return flow.loss(lambda x, t, frames: net(x, t, y, mask, **told(32)), x0, t, noise).mean()


flow, spoken = RectifiedFlow("logit-normal", location=0.5), CachedTexts(pipe.text)


# %% [markdown]
# While it learns, the judge watches. Six times on the way we draw films for 16 prompts, every second one with a colour and a shape that no training film showed
# together, and ask: is it what was asked for? How often **chance** would be right, for somebody who draws one shell and guesses the rest, is counted too.


# %%
def draw(net: STDiT3, prompts: Sequence[str], steps: int = 10, guidance: float = 2.0) -> Tensor:
    """A film per prompt, film k from noise of seed k."""
    model = TextToVideoPipeline(net, pipe.text, small_vae, replace(pipe.settings, height=32, width=32))
    starts = range(0, len(prompts), 16)
    return torch.cat([model(prompts[k : k + 16], seed=k, steps=steps, guidance=guidance) for k in starts])


def grade(films: Tensor, prompts: Sequence[str]) -> dict:
    """The judge's shares, and chance."""
    return prompt_accuracy(films, [parse_caption(text) for text in prompts])


pairs = zip(*unseen_prompts(440, "single", seed=5), strict=True)
EXAM = [(text, scene.held_out) for text, scene in pairs if scene.shells[0].size == "large"][:200]
PROMPTS = [text for text, _ in EXAM]
student, chance, log = a_transformer(), dice(6), []
optimiser = Muon(student, lr=4e-3)
gallery: dict[int, Tensor] = {}


# %% [markdown]
# The optimiser is new. Adam, which has served us so far, rescales every number of a gradient by itself. But a matrix is used as a whole, and its gradient is mostly a few directions said loudly over many said quietly. **Muon** keeps the directions and makes all of them
# equally long, so that the quiet ones no longer wait. It is for the matrices within the blocks; everything else stays with Adam, and so it is to be used like Adam. (In a trial that gave both as many steps, Adam alone ended with 86 of 100 films as they should be, and Muon with 95.)


# %%
def learn(until: int) -> None:
    """Go on to step `until`. The learning rate rises for 50 steps, and falls in the last 60 % of all steps, to nothing."""
    for step in range(len(log), until):
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 50, (STEPS - step) / (0.6 * STEPS))
        chosen = torch.randint(len(squeezed), (BATCH,), generator=chance).tolist()
        loss = loss_of(student, chosen, step * BATCH // len(squeezed), chance)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        log.append({"step": step + 1, "loss": loss.item()})
        if len(log) % (STEPS // 6) == 0:
            gallery[len(log)] = draw(student, PROMPTS[:16])


def latest() -> HTML:
    """The first three films of the gallery's last hanging."""
    return viz.player(gallery[len(log)][:3], [f"step {len(log)}: {text}" for text in PROMPTS[:3]], columns=3, fps=6)


# %% [markdown] tags=["predict"]
# **Predict first.** Colour, shape and place have to be right at once. Which will come first, and which last? And will the *loss* show when the films begin to obey?
#
# Write your guess here before you run the next cells. The three of them take **two to three minutes** in all: …

# %% tags=["nbval-ignore-output"]
before = [weight.clone() for weight in pipe.text.parameters()]
learn(STEPS // 3)
latest()

# %% tags=["nbval-ignore-output"]
learn(2 * STEPS // 3)
latest()

# %% tags=["nbval-ignore-output"]
learn(STEPS)
student.eval().requires_grad_(False)
print(f"{len(log)} steps of {BATCH} films; {sum(weight.numel() for weight in student.parameters()) / 1e6:.2f} million weights")
latest()

# %%
print("what each film should be:", *[canonical(parse_caption(text)) for text in PROMPTS[:3]], sep="\n  ")
# %%
same = all(torch.equal(one, other) for one, other in zip(before, pipe.text.parameters(), strict=True))
print("the text encoder has not moved by a bit:", same)

# %% tags=["nbval-ignore-output"] alt="left: a falling loss; right: place is right first, then colour and shape, joint last"
grades = {step: grade(seen, PROMPTS[:16]) for step, seen in gallery.items()}
fig, (left, right) = viz.figure(1, 2, width=10, height=3.2)
smooth = F.avg_pool1d(torch.tensor([row["loss"] for row in log])[None], 25, 5)[0]
left.plot(torch.arange(len(smooth)) * 5 + 12, smooth, color=viz.INK)
left.set(xlabel="step", ylabel="loss", ylim=(0, None))
for name, colour in (("place", viz.SPACE), ("colour", viz.DATA), ("shape", viz.TIME), ("joint", viz.TEXT)):
    right.plot(list(grades), [each[name] for each in grades.values()], "o-", ms=4, color=colour, label=name)
right.axhline(grades[STEPS]["chance"]["joint"], color=viz.TEXT, ls=":", label="joint, by chance")
right.set(xlabel="step", ylabel="share of 16 films", ylim=(-0.03, 1.03))
right.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# From player to player, the same wishes and the same noises: first light of some colour at the right place, then the right colour, and a burst that opens as a ring or a willow. The last films in which all is right
# at once take as long as all the others. The loss falls smoothly all the while and says nothing of this. Now all 200 prompts:

# %% tags=["nbval-ignore-output"]
drawn = draw(student, PROMPTS)
for name, wanted in {"all": (True, False), "seen together": (False,), "never seen together": (True,)}.items():
    chosen = [k for k, (_, held_out) in enumerate(EXAM) if held_out in wanted]
    found = grade(drawn[chosen], [PROMPTS[k] for k in chosen])
    shares_right = "  ".join(f"{part} {found[part]:.0%}" for part in ("place", "colour", "shape"))
    print(f"{name:20} {len(chosen)} films: joint {found['joint']:4.0%}, chance {found['chance']['joint']:.1%}   {shares_right}")

# %% [markdown]
# A few minutes from nothing, and it obeys: place, colour and shape nearly always, each by itself, and all at once in about nine films of ten. (With 200 films, each share may be off by two or three points.) And pairs of colour and shape that no training film held, red rings for example, fare no worse than the others:
# composition comes almost for free here, because the words come apart: *red* brings the colour, *ring* the shape, each in a vector of its own. What is missing is more of the same: the shipped model is larger, and has looked at many times as many films.
#
# ## 7 · Two shells, and the surprise
#
# Now the real thing: two shells in one film, together or one after another. The shipped model was trained on such scenes. Let it show what it can:

# %% tags=["nbval-ignore-output"]
TWO = [RED_LEFT, BLUE_LEFT, PAIR, "first a small blue ring low on the right, then a large red peony high on the left"]
drawn = pipe(TWO, seed=seed + 20, steps=16)
viz.player(drawn, TWO, columns=4, fps=6, scale=3)

# %% tags=["nbval-ignore-output"]
for text, found in zip(TWO, judge(drawn), strict=True):
    print(text)
    print("   ", ", ".join(f"{shell.colour} {shell.shape} {shell.row} {shell.column}, bursts at {shell.burst:.1f}" for shell in found.shells))

# %% [markdown]
# Who is red, who is blue, who comes first: all of that has to be in the vectors of the words. If it is not, a film can have everything right and still be wrong: the right colours, shapes and places, handed to the wrong shells. Learn to count that first.
#
# ### Exercise 09.binding_errors (8 minutes)
#
# `asked` and `seen` say for each place, such as `"high left"`, a (colour, shape). A shell that is there, where it was asked for, is **mixed up** when its colour (or shape) is not the one asked for here, but that of *another* shell of the prompt.


# %%
# exercise: 09.binding_errors
def binding_errors(asked: dict[str, tuple[str, str]], seen: dict[str, tuple[str, str]]) -> int:
    """How many shells are mixed up; each counts once. Stuck? hint("09.binding_errors")"""
    ### BEGIN SOLUTION
    errors = 0
    for place, shell in asked.items():
        others = [other for there, other in asked.items() if there != place]
        found = seen.get(place, shell)
        errors += any(found[i] != shell[i] and found[i] in [other[i] for other in others] for i in range(2))
    return errors
    ### END SOLUTION


# %%
# hint("09.binding_errors")
check("09.binding_errors", binding_errors)


# %%
def by_place(shells: Sequence[Shell]) -> dict[str, tuple[str, str]]:
    """Shells as your function wants them."""
    return {f"{shell.row} {shell.column}": (shell.colour, shell.shape) for shell in shells}


def mixed_up(films: Tensor, prompts: Sequence[str]) -> int:
    """How many shells of all films are mixed up."""
    pairs = zip(prompts, judge(films), strict=True)
    return sum(binding_errors(by_place(parse_caption(text).shells), by_place(found.shells)) for text, found in pairs)


scenes = [scene for scene in sample_scenes(60, "scene", "test", generator=dice(21)) if len(scene.shells) == 2][:20]
TWENTY = [canonical(scene) for scene in scenes]
print(f"{len(TWENTY)} prompts of two shells, for example: {TWENTY[0]}")

# %% [markdown]
# Your count, on the shipped model with its T5, and with the *bag* of section 2 in place of it:

# %% tags=["nbval-ignore-output"]
for name, each in {"T5": pipe, "bag": bag_pipe}.items():
    drawn = torch.cat([each(TWENTY[k : k + 10], seed=seed + k, steps=10) for k in (0, 10)])
    found = grade(drawn, TWENTY)
    print(f"{name:4} all right {found['joint']:4.0%}   order right {found.get('order', 0):4.0%}   "
          f"{mixed_up(drawn, TWENTY)} of {2 * len(TWENTY)} shells mixed up")

# %% [markdown]
# ### Three ears
#
# The bag *cannot* know. But a T5 with its bias, even an untrained one, hears order; whose red it is can be found out from its vectors. Can it, easily? Let us ask the vectors themselves, without any picture. Three encoders of one size:
#
# * **random**: as it comes, nothing learned;
# * **span-corrupted**: taught as T5 was, from captions alone: hide some words and guess them;
# * **taught**: ours. Every word learned whose it is: where *its* shell bursts, and in which turn; and a colour word, say, also which colour that is.
#
# Span corruption is quickly said, and it is the pretraining of every T5:
#
# ### Exercise 09.span_corruption (8 minutes)


# %%
# exercise: 09.span_corruption
def span_corruption(
    tokens: Tensor, starts: tuple[int, ...], lengths: tuple[int, ...], sentinels: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """tokens (L,) long, spans in order and apart; there is one sentinel more than spans. Returns (inputs, targets).

    inputs: each span replaced by its sentinel. targets: sentinel, span, sentinel, span, ..., and the last sentinel.
    Stuck? hint("09.span_corruption")
    """
    ### BEGIN SOLUTION
    inputs, targets, end = [], [], 0
    for start, length, sentinel in zip(starts, lengths, sentinels, strict=False):
        inputs += [tokens[end:start], torch.tensor([sentinel])]
        targets += [torch.tensor([sentinel]), tokens[start : start + length]]
        end = start + length
    return torch.cat([*inputs, tokens[end:]]), torch.cat([*targets, torch.tensor([sentinels[len(starts)]])])
    ### END SOLUTION


# %%
# hint("09.span_corruption")
check("09.span_corruption", span_corruption)

# %%
tokens = torch.tensor(tokenizer(PAIR, add_special_tokens=False)["input_ids"])
gaps = tuple(tokenizer.convert_tokens_to_ids(f"<extra_id_{k}>") for k in range(3))
for name, row in zip(("hears ", "guesses"), span_corruption(tokens, (2, 9), (2, 2), gaps), strict=True):
    print(f"{name:8}", " ".join(tokenizer.convert_ids_to_tokens(row.tolist())))

# %% [markdown]
# To guess *red*, one has to know that a colour belongs there; *which* colour, nobody can know: any of the eight could have stood there.
# The span-corrupted one learns now, for 120 steps (**half a minute**; a real T5 reads for months, and much else than fireworks):

# %% tags=["nbval-ignore-output"]
with tempfile.TemporaryDirectory() as folder:
    random_ear = TextEmbedder(random_encoder(Path(folder) / "random"), pipe.text.max_length)
    span_ear = TextEmbedder(span_encoder(Path(folder) / "spans", steps=120), pipe.text.max_length)
clear_output()  # of the progress
EARS = {"random": random_ear, "span-corrupted": span_ear, "taught": pipe.text}

# %% [markdown] tags=["predict"]
# The question that a film model asks of a vector: take a **colour word**, "red" or "golden", in a caption of two shells. Is it in there where the shell bursts that it colours, and whether first or second? And is the colour itself still in there? The simplest reader there is, one
# matrix found by least squares, shall say; found on some captions, examined on others.
#
# **Predict first.** Who knows only which two places occur, and not whose, is right in half of the cases and a little more. Where will each of the three land?
#
# Write your guess here before you run the next cells: …


# %%
def colour_words(captions: list[dict], ear: TextEmbedder) -> tuple[Tensor, Tensor]:
    """The vectors (n, D) of all colour words, and what is true of their shells (n, 6): colour, shape, column, row, ..."""
    vectors, truths = [], []
    for start in range(0, len(captions), 64):
        block = captions[start : start + 64]
        y, _ = ear([each["caption"] for each in block])
        for row, each in zip(y, block, strict=True):
            for place, word in enumerate(tokenizer.tokenize(each["caption"])):
                if MEANING.get(word, ("",))[0] == "colour" and each["answers"][place, 0] != NOBODY:
                    vectors.append(row[place])
                    truths.append(each["answers"][place])
    return torch.stack(vectors), torch.stack(truths)


def read_off(known: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor], question: int) -> float:
    """Share of the asked words whose answer a matrix finds that fits the known ones best."""
    choices = F.one_hot(known[1][:, question]).float()
    features = [F.pad(vectors, (0, 1), value=1.0) for vectors, _ in (known, asked)]
    matrix = torch.linalg.lstsq(features[0], choices, driver="gelsd").solution
    return ((features[1] @ matrix).argmax(-1) == asked[1][:, question]).float().mean().item()


# %%
def of_two(split: str, count: int) -> list[dict]:
    """Captions of two shells."""
    captions = Captions(FireworksDataset(2 * count, "scene", split, seed=seed + 3), tokenizer)
    return [captions[k] for k, scene in enumerate(captions.dataset.scenes) if len(scene.shells) == 2]


study, examination = of_two("train", 800), of_two("test", 300)
QUESTIONS = {"colour": 0, "column": 2, "row": 3, "turn": 5}
readable = {}
for name, ear in EARS.items():
    known, asked = colour_words(study, ear), colour_words(examination, ear)
    readable[name] = {question: read_off(known, asked, number) for question, number in QUESTIONS.items()}

# %% tags=["nbval-ignore-output"] alt="four groups of bars: all three know the colour, and only the taught one where and when"
guessing = [(asked[1][:, number].bincount().max() / len(asked[1])).item() for number in QUESTIONS.values()]
fig, ax = viz.figure(width=8, height=3.2)
for k, (name, colour) in enumerate(zip(EARS, (viz.NOISE, viz.TIME, viz.TEXT), strict=True)):
    ax.bar([x + 0.27 * (k - 1) for x in range(len(QUESTIONS))], readable[name].values(), 0.25, color=colour, label=name)
for x, best in enumerate(guessing):
    ax.plot([x - 0.45, x + 0.45], [best, best], ":", color=viz.INK, label=None if x else "always the most frequent answer")
ax.set(xticks=range(len(QUESTIONS)), xticklabels=QUESTIONS, ylabel="read off the colour word", ylim=(0, 1.4))
ax.legend(frameon=False, ncols=2, loc="upper left")
plt.show()
for name, found in readable.items():
    print(f"{name:15} " + "  ".join(f"{question} {share:.0%}" for question, share in found.items()))

# %% [markdown]
# All three are T5s of one size, and all three hear order. But from the first two it can hardly be read off where the shell bursts that *this* red colours. A denoiser behind them would have to find out by itself who belongs to whom, and learn it from its loss. How much do words matter to a loss? Ask the shipped model, on
# rendered films of two shells: its loss with the right caption, with the two colours exchanged, and with no caption at all.

# %%
def exchanged(scene: Scene) -> Scene:
    """Two shells, each in the other's colour."""
    one, other = scene.shells
    return Scene((replace(one, colour=other.colour), replace(other, colour=one.colour)))


rendered = pipe.vae.encode(render(scenes, 17, 64, generator=dice(22)), sample=False)
times, noise = torch.linspace(25, 975, len(scenes)), torch.randn(rendered.shape, generator=dice(23))
captions = {"right": TWENTY, "colours exchanged": [canonical(exchanged(scene)) for scene in scenes], "no caption": [""] * len(scenes)}
for name, said in captions.items():
    words = parts.encode(said)
    loss = pipe.flow.loss(lambda z, t, frames: parts.velocity(z, t, *words), rendered, times, noise)  # noqa: B023
    print(f"{name:18} loss {loss.mean():.3f}")

# %% [markdown]
# The whole difference that words can make is the step from the last line to the first. All the rest is noise that nobody could predict, the same for a model that obeys and for one that does not; and to this model, exchanged colours are worse than no caption at all. So two trainings whose curves look alike can be worlds apart in what their films show, and only counting tells. And this small step,
# one number for a whole film, is all from which a denoiser would have to learn to read.

# %% [markdown] tags=["predict"]
# ### Three denoisers
#
# So much for vectors and losses; what do the films show? Three small denoisers (STDiT3s 96 wide, with three pairs of blocks, on 32 pixels) learned from the same films in the same order, each behind another of these ears: 2,400 steps of 16 scenes. That is ten minutes each, too long for a lesson, so what came out is shipped
# (`python -m minivdm.training.compare_encoders` does it again; its span-corrupted ear had 1,000 steps, not 120). Then each drew 100 films of one shell and 100 of two, from captions it had never seen.
#
# **Predict first.** By how much, in percent, will the three losses differ at the end? And how many of the films of two shells will be right, behind each ear?
#
# Write your guess here before you run the next cell: …

# %% tags=["nbval-ignore-output"] alt="three curves of losses that nearly cover each other, and bars: random and span-corrupted fail on two shells, taught does not"
record = json.loads((checkpoint_dir("toy/text_to_video") / "encoders.json").read_text(encoding="utf-8"))
fig, (left, right) = viz.figure(1, 2, width=9, height=3.2)
for k, (name, colour) in enumerate(zip(EARS, (viz.NOISE, viz.TIME, viz.TEXT), strict=True)):
    found = record["encoders"][name]
    losses = torch.tensor(found["loss"]).unfold(0, 10, 5).mean(-1)  # of 10 entries, (step, loss) each
    left.plot(losses[:, 0], losses[:, 1], color=colour, label=name)
    right.bar([x + 0.27 * (k - 1) for x in range(2)], [found[kind]["joint"] for kind in record["asked"]], 0.25, color=colour)
left.set(xlabel="step", ylabel="loss")
left.legend(frameon=False)
right.set(xticks=range(2), xticklabels=record["asked"], ylabel="films with all right", ylim=(0, 1))
plt.show()

# %% [markdown]
# And your count, on their films of two shells:

# %%
PAIRS = record["asked"]["two shells"]
for name, found in record["encoders"].items():
    end = sum(loss for _, loss in found["loss"][-20:]) / 20
    films = [{f"{row} {column}": (colour, shape) for row, column, colour, shape in shells} for shells in found["two shells"]["seen"]]
    wrong = sum(binding_errors(by_place(parse_caption(text).shells), film) for text, film in zip(PAIRS, films, strict=True))
    print(f"{name:15} loss {end:.3f}   all right: one shell {found['one shell']['joint']:3.0%}, two {found['two shells']['joint']:3.0%}"
          f"   {wrong:2} of {2 * len(PAIRS)} shells mixed up")

# %% [markdown]
# Three curves that look alike, and films that are worlds apart. (Guessing would get 1 of 200 films of one shell right, and of two none.) Behind the **random** ear a lone shell often comes out right: its words are at least all different, and with one shell there is nobody to mix it up with. With two, everything is in the film and half of it on the wrong shell. Behind the **span-corrupted** ear the colours
# themselves are lost. Its task rewarded it for hearing that *a* colour stands here, whichever: so it made the eight alike. Pretraining is not good by itself; it keeps what its task asks for.
#
# The taught encoder serves the answer on a plate, to the simplest reader there is. It fits how a denoiser asks: at each place of the picture, it looks for words that say *here*, and finds a colour, a shape, a size, one word each. (Our first one did too much of a good thing: every word held everything about its shell. No word stood for itself then,
# and a training like that of section 6 ended with half of its films right where it came to seven of ten otherwise.) That is why every system of this kind begins with a text encoder that has
# learnt language first, and why it is frozen: what it knows came from far more text than there are captioned films. T5 learned it the hard way, by span corruption on a large part of the web; our toy had to be told, because its whole language is fireworks.
#
# ## 8 · A picture that begins to move
#
# The latent film of 17 frames has 5 frames, and the first of them stands for the first picture alone (lesson 04). If a picture is *given*, its latent is put there, clean, and kept clean: in every step the sampler puts it back, and the
# network is told which frames are noise-free (your `masked_modulate` of lesson 08). The shipped model has practised this: in some of its training films the first frame, the last, or both were given.
#
# ### Exercise 09.freeze_frames (4 minutes)


# %%
# exercise: 09.freeze_frames
def freeze_frames(z: Tensor, z_ref: Tensor, mask: Tensor) -> Tensor:
    """z, z_ref (B, C, T, H, W), mask (B, T) bool, True = this latent frame is taken from z_ref.

    Stuck? hint("09.freeze_frames")
    """
    ### BEGIN SOLUTION
    return torch.where(mask[:, None, :, None, None], z_ref, z)
    ### END SOLUTION


# %%
# hint("09.freeze_frames")
check("09.freeze_frames", freeze_frames)

# %% [markdown]
# Three pictures, each cut out of the middle of a rendered film. (In its training, given first frames were always the beginnings of clips, an empty sky. A burst as a first frame is new to it.)

# %% tags=["nbval-ignore-output"]
bursts = [("red", "peony", "left"), ("green", "willow", "centre"), ("blue", "ring", "right")]
given = render([Scene((Shell(colour, shape, column, "high", "large"),)) for colour, shape, column in bursts], 17, 64, generator=dice(7))
pictures = given[:, :, 7]
strip = viz.filmstrip([picture[:, None] for picture in pictures], [f"{colour} {shape}" for colour, shape, _ in bursts], scale=2)
viz.picture(strip, "a red peony, a green willow and a blue ring, one below the other")


# %%
@torch.no_grad()
def animate(text: str, picture: Tensor, seed: int, scale: float = 2.0, steps: int = 16) -> Tensor:
    """A film (1, 3, 17, H, W) that begins with a picture (3, H, W), by your freeze_frames."""
    z_ref = F.pad(pipe.vae.encode(picture[None, :, None], sample=False), (0, 0, 0, 0, 0, 4))
    frozen = torch.tensor([[True, False, False, False, False]])
    z = torch.randn(z_ref.shape, generator=torch.Generator().manual_seed(seed))
    z, words = freeze_frames(z, z_ref, frozen), pipe.text([text])
    for step in range(steps):
        t = torch.full((1,), 1000 * (1 - step / steps))
        cond, uncond = (pipe.denoiser(z, t, *each, ~frozen, **told()) for each in (words, nothing))
        z = freeze_frames(z + classifier_free(cond, uncond, scale) / steps, z_ref, frozen)
    return pipe.vae.decode(z, num_frames=17).clamp(-1, 1)


# %% [markdown] tags=["predict"]
# **Predict first.** The sentence names colour and shape, and says nothing about the place or about what has happened already. What will a film look like that *begins* with an open burst?
#
# Write your guess here before you run the next cells: …

# %%
moving = [animate(f"a large {colour} {shape}", picture, seed) for (colour, shape, _), picture in zip(bursts, pictures, strict=True)]
package = pipe("a large red peony", image=pictures[0], seed=seed, steps=16)
print("your film = the package's:", torch.allclose(moving[0], package, atol=1e-2))


# %%
def psnr(one: Tensor, other: Tensor) -> float:
    """Peak signal to noise in decibels, for values in [-1, 1]."""
    return (10 * torch.log10(4 / (one - other).square().mean().clamp(min=1e-10))).item()


for (colour, shape, _), picture, film in zip(bursts, pictures, moving, strict=True):
    with torch.no_grad():
        seen = pipe.vae.decode(pipe.vae.encode(picture[None, :, None], sample=False), num_frames=1).clamp(-1, 1)
    print(f"{colour} {shape}: its first frame is the given picture, as the autoencoder shows it: {psnr(film[:, :, 0], seen[:, :, 0]) > 30}")

# %% tags=["nbval-ignore-output"]
viz.player([each[0] for each in moving], [f"{colour} {shape}, given: its first frame" for colour, shape, _ in bursts], columns=3, fps=6, scale=3)

# %% [markdown]
# The picture is kept, and not believed. With the second frame the burst is gone, sparks climb, and a shell of the right colour opens as in any other film: what comes after a burst the network never had to say. First frames can only be what they were in training, here an empty sky. (Models that
# animate any picture were trained on films that were cut anywhere.)
#
# The package does the same with last pictures, with both ends (the same picture twice makes a loop), and with clips to go on from. Here the first five frames of a red peony are given, sparks that have not burst yet, and the sentence says *a large blue ring*:

# %% tags=["nbval-ignore-output"]
continued = pipe("a large blue ring", video=given[0], seed=seed, steps=16)
loop = pipe("a large red peony", image=given[0, :, 8], last_image=given[0, :, 8], seed=seed, steps=16)
labels = ["a red peony", "its first frames, and another end", "a picture as first and last frame"]
viz.player([given[0], continued[0], loop[0]], labels, columns=3, scale=3, fps=6)

# %% [markdown]
# ### Two dials instead of one
#
# Guidance exaggerates what the words change. With a picture there is a second thing to exaggerate: what the *picture* changes. Three predictions: with nothing, with the picture, with picture and words. Two stairs, each as long as you like.
#
# ### Exercise 09.image_guidance (4 minutes)


# %%
# exercise: 09.image_guidance
def image_guidance(cond: Tensor, image_only: Tensor, uncond: Tensor, text_scale: float, image_scale: float) -> Tensor:
    """From nothing (uncond) to the picture (image_only), times one scale; from there to picture and words (cond), times
    the other. Both scales 1 give cond. Stuck? hint("09.image_guidance")
    """
    ### BEGIN SOLUTION
    return uncond + image_scale * (image_only - uncond) + text_scale * (cond - image_only)
    ### END SOLUTION


# %%
# hint("09.image_guidance")
check("09.image_guidance", image_guidance)

# %% [markdown]
# Now a quarrel. The picture shows a red peony on the *left*, and the sentence wants something else on the *right*. Rows: how loud the picture is. Columns: how loud the words.

# %% tags=["nbval-ignore-output"]
WANTED = "a large blue ring high on the right"
dials = [(loud, words) for loud in (1, 3) for words in (1, 6)]
quarrel = [pipe(WANTED, image=pictures[0], seed=seed, steps=10, guidance=words, image_guidance=loud)[0] for loud, words in dials]
viz.player(quarrel, [f"picture × {loud}, words × {words}" for loud, words in dials], columns=2, fps=6)

# %% [markdown]
# Hardly a quarrel. In all four the peony goes out and a blue ring opens on the right; only the loud picture with quiet words keeps a glow of it for some frames. Guidance makes a difference larger that is there already, and what this model makes of such a picture is small.

# %% [markdown]
# ### Guidance with pauses
#
# Strong guidance in every step makes films unnatural, as the wall showed. A trick of Open-Sora 2: after the first steps, in which it is decided *what* will be seen, guide only in every second one, and let the model go its own way between.
#
# ### Exercise 09.oscillate (4 minutes)


# %%
# exercise: 09.oscillate
def oscillate(scale: float, step: int, first: int = 10) -> float:
    """The scale in step 0, 1, ...: even steps keep it; odd steps from `first` on use 1.0. Stuck? hint("09.oscillate")"""
    ### BEGIN SOLUTION
    return scale if step % 2 == 0 or step < first else 1.0
    ### END SOLUTION


# %%
# hint("09.oscillate")
check("09.oscillate", oscillate)

# %%
print("scale 8 in 20 steps:", *(f"{oscillate(8.0, step):g}" for step in range(20)))

# %% tags=["nbval-ignore-output"]
loud = {name: pipe(ASKED[1], seed=seed + 1, guidance=8, oscillate=name == "with pauses") for name in ("in every step", "with pauses")}
for name, films in loud.items():
    print(f"scale 8 {name:13}: {(films > 0.99).float().mean():.2%} of the numbers at their limit; the judge finds what was asked: {obeys(films, ASKED[1:2]) == 1}")
viz.player([films[0] for films in loud.values()], list(loud), columns=2, scale=3, fps=6)

# %% [markdown]
# On films as small as ours the difference is slight. Look at the edges and at the sky.
#
# ### Shorter and longer than a film
#
# One latent frame is a picture: ask for `frames=1`. Several sentences with numbers make a film of several clips, in which each goes on from the last frame of the one before:

# %% tags=["nbval-ignore-output"]
STORY = "|0| a large green peony high on the left |1| a small white ring low on the right"
print(split_clips(STORY))
story, picture = pipe(STORY, seed=seed, steps=16), pipe(SENTENCE, frames=1, seed=seed, steps=16)
print("two clips of 17 frames that share one:", tuple(story.shape), "  one frame:", tuple(picture.shape))
viz.player([story[0], picture[0]], ["two sentences", "one frame"], scale=3, fps=6)

# %% [markdown]
# (The picture is a smudge, and no firework: *this* model has only ever drawn one frame as the beginning of a film. Large models train on pictures and films in turns, so that one frame is a finished picture.)
#
# Sizes may be ratios, lengths seconds (rounded to 1 + 4k frames, the rule of lesson 04), and both are checked at the door:

# %%
for size in ("16:9", "9:16", "96x64"):
    print(f"{size:6} latents (C, T, h, w) = {pipe.parts(size=size).latent_shape}")
for frames in (1, 5, 17, "5s"):
    print(f"frames={frames!r:4} latent frames: {pipe.parts(frames=frames).latent_shape[1]}")
print(with_motion_score(SENTENCE, 3))
try:
    pipe.parts(size=100)
except UserError as error:
    print(error)

# %% [markdown]
# The last but one line is what a "motion score" is in Open-Sora: no switch in the network, just more words behind the prompt, for a model whose training captions had such words. Ours has never read them:

# %%
print(unknown_words(with_motion_score(SENTENCE, 3)))

# %% [markdown]
# ## 9 · Say it: your own loop
#
# The last function of the course. Everything is there: `parts.encode` and `parts.null` make words and no words into vectors, `parts.velocity` is the network, `parts.decode` both decoders. What is left for you is the way from a sentence and a seed to a film:
#
# 1. noise from the seed: `torch.randn((1, *parts.latent_shape), generator=torch.Generator().manual_seed(seed))`;
# 2. `steps` Euler steps from $t = 1000$, each along the guided velocity;
# 3. decode, and clamp to $[-1, 1]$.
#
# ### Exercise 09.generate (15 minutes)


# %%
# exercise: 09.generate
def generate(prompt: str, parts, steps: int, scale: float, seed: int) -> Tensor:
    """A film (1, 3, T, H, W) in [-1, 1] for the prompt. `velocity` takes any batch and t (B,). Stuck? hint("09.generate")

    parts.encode(list of texts) -> y (B, L, D), mask (B, L); parts.null(B) -> the same for no text;
    parts.velocity(z, t, y, mask) -> like z; parts.decode(z) -> film; parts.latent_shape (C, T, H, W).
    """
    ### BEGIN SOLUTION
    z = torch.randn((1, *parts.latent_shape), generator=torch.Generator().manual_seed(seed))
    y, mask = (torch.cat(pair) for pair in zip(parts.encode([prompt]), parts.null(1), strict=True))
    for step in range(steps):
        t = torch.full((2,), 1000 * (1 - step / steps))
        cond, uncond = parts.velocity(torch.cat([z, z]), t, y, mask).chunk(2)
        z = z + (uncond + scale * (cond - uncond)) / steps
    return parts.decode(z).clamp(-1, 1)
    ### END SOLUTION


# %%
# hint("09.generate")
check("09.generate", generate)

# %% [markdown]
# Your loop and the package's, on the same sentence and seed. Both in 16 steps: a sixteenth is exact in binary, so dividing by 16 and multiplying by 1/16 cannot differ in the last bit. (Had you asked the network twice instead of once with both, the last bits might differ, because sums of
# another batch are added in another order.)

# %%
yours, theirs = generate(SENTENCE, parts, 16, 3.0, seed), pipe(SENTENCE, steps=16, guidance=3.0, seed=seed)
print("equal to 1 part in 1000:", torch.allclose(yours, theirs, atol=2e-3))
print("equal to the last bit:  ", torch.equal(yours, theirs))

# %% [markdown]
# ### Throwing the dice again
#
# One thing your loop leaves out, and the package does unless it is told not to, as above. Your film is decided by its first noise: from there on, all is calculation. But *a red ring* does not say where. Six places and two sizes fit, all of them are
# in the network's first guesses, faintly, and the noise has to tip the balance. Where the network reads the noise wrongly, nothing wins, or two do: the sky stays empty, or there are two shells, and your loop never doubts. An old remedy is lesson 02's $\eta$: after each step throw a part of the noise away and draw it
# anew, just as much as a step of the forward process would have covered. Whatever the network made of the old noise is forgotten with it, and the film in between is all that stays. Does it help? (Sixteen films are few: one or two more or less are chance. The card of the shipped model counts over hundreds.)

# %% tags=["nbval-ignore-output"]
SHORT = ["a red ring", "a gold palm", "a blue peony", "a green willow", "a white crossette", "a purple spiral", "a cyan ring", "an orange peony"] * 2
for eta in (0.0, 1.0):
    drawn = pipe(SHORT, seed=seed + 40, steps=16, eta=eta)
    print(f"eta {eta:.0f}: {obeys(drawn, SHORT)} of {len(SHORT)} short sentences obeyed")

# %% [markdown]
# ### Your functions, from all the lessons
#
# A loop around the package is not yet *your* film. So open the network as well, and put in what you have written since lesson 03. Whatever passed its check lies in your workbook; what is missing there is taken from the course's own solution, and the table below says which notebook would make it yours.

# %%
PIECES = """03.spatial_attention 04.causal_pad 04.causal_conv3d 05.chunked_conv3d 07.rotate
07.guided 08.patchify 08.unpatchify 08.pos_embed_2d 08.modulate 08.space_time_rearrange 08.euler_sample
09.text_mask 09.relative_position_bias 09.masked_cross_attention""".split()
room: dict = {"torch": torch, "math": math, "F": F, "nn": nn, "Tensor": Tensor, "Callable": Callable}
room |= {"rearrange": rearrange, "repeat": repeat, "reduce": reduce}
for exercise in exercises().values():
    room[exercise.name] = exercise.reference
for piece in exercises():  # your functions may call each other, so they all get one room
    if workbook.path_of(piece).exists():
        exec(workbook.path_of(piece).read_text(encoding="utf-8"), room)
yours = {piece: workbook.path_of(piece).exists() for piece in PIECES}

# %%
for piece, done in yours.items():
    print(f"{piece:28} {'yours' if done else f'the course solution; notebook {piece[:2]} makes it yours'}")

# %% [markdown]
# First the ear: your mask, and T5 with your bias. Then the block of the denoiser, as you put it together in lesson 08, with your cross-attention in its middle:


# %%
def your_encode(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Prompts to y (B, L, D) and mask (B, L)."""
    numbers = [torch.tensor(tokenizer(text)["input_ids"]) for text in prompts]
    mask = room["text_mask"](torch.tensor([len(row) for row in numbers]), pipe.text.max_length)
    ids = torch.zeros(mask.shape, dtype=torch.long).masked_scatter(mask, torch.cat(numbers))
    first_layer.position_bias = lambda L: room["relative_position_bias"](L, L, table, 64)
    return your_t5(ids, mask), mask


def your_look(layer: nn.Module, x: Tensor, angles: Tensor | None) -> Tensor:
    """Self-attention of sequences x (N, M, D); along time, queries and keys are turned by your rotate."""
    q, k, v = rearrange(layer.qkv(x), "n m (three head d) -> three n head m d", three=3, head=layer.heads)
    q, k = layer.q_norm(q), layer.k_norm(k)
    if angles is not None:
        q, k = (room["rotate"](each, angles).to(x) for each in (q, k))
    return layer.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "n head m d -> n m (head d)"))


# %%
def your_block(block: STDiT3Block, x: Tensor, text: tuple[Tensor, Tensor], six: Tensor, T: int, angles: Tensor) -> Tensor:
    """x (B, T·S, D), text (B, L, D) and mask, six (B, 6, D) -> like x."""
    axis, S = "time" if block.temporal else "space", x.shape[1] // T
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (block.scale_shift_table + six).unbind(dim=1)
    folded = room["space_time_rearrange"](room["modulate"](block.norm1(x), shift, scale), T, S, axis)
    heard = your_look(block.attn, folded, angles if block.temporal else None)
    back = "(b s) t d -> b (t s) d" if block.temporal else "(b t) s d -> b (t s) d"
    x = x + gate[:, None] * rearrange(heard, back, b=len(x))
    x = x + listen(block.cross_attn, x, *text)
    return x + gate_mlp[:, None] * block.mlp(room["modulate"](block.norm2(x), shift_mlp, scale_mlp))


# %%
@torch.no_grad()
def your_velocity(z: Tensor, t: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """The denoiser, with the shipped weights: cut, say where, say how noisy, look and listen in turns, lay together."""
    net, facts = pipe.denoiser, told()
    patch, grid = net.config.patch_size, net.token_size(z.shape[2:])
    T, h, w = grid
    matrix = rearrange(net.x_embedder.proj.weight, "d c pt ph pw -> d (pt ph pw c)")
    x = F.linear(room["patchify"](z, patch), matrix, net.x_embedder.proj.bias)
    scale = facts["height"].item() / net.config.input_sq_size
    places = room["pos_embed_2d"](h, w, x.shape[2], scale, round((h * w) ** 0.5)).to(x)
    x = x + repeat(places, "1 s d -> 1 (t s) d", t=T)
    vector = net.t_embedder(t) + net.fps_embedder(facts["fps"], len(z))
    six = rearrange(net.t_block(vector), "b (six d) -> b six d", six=6)
    angles = torch.arange(T)[:, None] * net.rope.freqs
    for pair in zip(net.spatial_blocks, net.temporal_blocks, strict=True):
        for block in pair:
            x = your_block(block, x, (net.y_embedder(y), mask), six, T, angles)
    shift, scale = (net.final_layer.scale_shift_table + vector[:, None]).unbind(dim=1)
    out = net.final_layer.linear(room["modulate"](net.final_layer.norm_final(x), shift, scale))
    return room["unpatchify"](out, patch, net.config.out_channels, grid)


# %% [markdown]
# And the decoders of lessons 03 and 04: your attention in the picture decoder, your causal convolution in the one for time, and its last layer in chunks, as in lesson 05.


# %%
def your_attention(block: AttnBlock, x: Tensor) -> Tensor:
    """The attention of lesson 03: pictures (N, C, H, W) -> the same."""
    h = block.norm(x)
    return x + block.proj_out(room["spatial_attention"](block.q(h), block.k(h), block.v(h)))


def your_convolution(layer: CausalConv3d, x: Tensor, tails: None = None) -> Tensor:
    """The convolution of lesson 04."""
    return room["causal_conv3d"](x, layer.conv.weight, layer.conv.bias, layer.stride)


def your_last_convolution(layer: CausalConv3d, x: Tensor, tails: None = None) -> Tensor:
    """The same in chunks of at most 20,000 numbers, as in lesson 05."""
    padded = F.pad(x, room["causal_pad"](tuple(layer.conv.weight.shape[2:])))
    return room["chunked_conv3d"](padded, layer.conv.weight, layer.conv.bias, 20_000, (0, 0, 0))


# %%
your_vae = copy.deepcopy(pipe.vae)
for layer in your_vae.modules():
    if isinstance(layer, AttnBlock):
        layer.forward = partial(your_attention, layer)
    if isinstance(layer, CausalConv3d):
        layer.forward = partial(your_convolution, layer)
last = your_vae.temporal.decoder.conv_out
last.forward = partial(your_last_convolution, last)

# %% [markdown]
# All together. The walk is `euler_sample` of lesson 08, the push `guided` of lesson 07:


# %%
@torch.no_grad()
def your_film(prompt: str, steps: int, scale: float, seed: int) -> Tensor:
    """From a sentence to a film, (1, 3, T, H, W) in [-1, 1]."""
    words, none = your_encode([prompt]), nothing
    noise = torch.randn((1, *parts.latent_shape), generator=torch.Generator().manual_seed(seed))

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        return room["guided"](your_velocity(z, t, *words), your_velocity(z, t, *none), scale)

    z = room["euler_sample"](velocity, noise, steps)
    return your_vae.decode(z, num_frames=17).clamp(-1, 1)


made_by_you = your_film(SENTENCE, 16, 3.0, seed)
print("your film = the package's:", torch.allclose(made_by_you, theirs, atol=5e-3))

# %% tags=["nbval-ignore-output"]
print(f"largest difference of a pixel, of a range of 2: {(made_by_you - theirs).abs().max():.1e}")
viz.player(made_by_you, [f"{SENTENCE}, by your functions"], scale=4, fps=6)

# %% [markdown]
# That is the promise of page one. What is *not* in the film, to be honest: lessons 01 and 02 built the other road, DDPM's, which lesson 07 took; lesson 06 built the critic, which sharpened the decoder while it learned and is not needed
# afterwards. And the plain layers (linear, norms, two-dimensional convolutions) are PyTorch's.
#
# ## 10 · The same sentence, larger
#
# One word, the preset, separates this model from one that needs a data centre. Nothing is built here: on the *meta* device a network has sizes and no numbers.

# %%
def count(module: nn.Module) -> float:
    """Parameters in millions."""
    return sum(weight.numel() for weight in module.parameters()) / 1e6


T5_XXL = T5EncoderConfig(32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
with torch.device("meta"):
    giants = {"STDiT3-XL/2": STDiT3(STDIT3_SIZES["STDiT3-XL/2"]), "T5 v1.1 XXL, encoder": T5Encoder(T5_XXL)}
    giants |= {"Stable Diffusion's": AutoEncoder2D(AutoEncoderConfig()), "VAE_Temporal_SD": TemporalVAE(VAE_TEMPORAL_SD)}
toy = {"STDiT3": pipe.denoiser, "T5": your_t5, "picture VAE": pipe.vae.vae2d, "temporal VAE": pipe.vae.temporal}
for (name, small), (large_name, large) in zip(toy.items(), giants.items(), strict=True):
    print(f"{name:13}{count(small):8.2f} million here   {count(large):9.2f} million as published ({large_name})")

# %% [markdown]
# (Documents about these systems give other numbers here and there: 11 billion belongs to the denoiser of the *next* version, another architecture; T5's encoder is often called "about 3 billion".)
#
# Now the same sentence at each preset. One evaluation of the denoiser is counted without being done; a film takes two (with the words and without) in every step.


# %%
def plan(scale: str) -> dict:
    """Weights, tokens, and operations for one film at a preset."""
    config = load_preset(scale, task="stdit3")
    side, frames = config.data.size // (4 if scale == "small" else 8), math.ceil(config.data.frames / 4)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        toys = {"caption_channels": pipe.text.dim, "model_max_length": pipe.text.max_length}
        net = STDiT3(config.stdit3, **(toys if config.flow.text == "toy" else {}))
        facts = {name: torch.zeros(1) for name in ("fps", "height", "width")}
        words = torch.zeros(1, net.config.model_max_length, net.config.caption_channels)
        net(torch.zeros(1, config.stdit3.in_channels, frames, side, side), torch.zeros(1), words, **facts)
    return {
        "film": f"{config.data.frames} × {config.data.size}²",
        "tokens": math.prod(net.token_size((frames, side, side))),
        "millions": count(net),
        "work": 2 * config.sampling.steps * counter.get_total_flops(),
    }


plans = {scale: plan(scale) for scale in ("toy_64", "small", "full")}
for scale, row in plans.items():
    print(f"{scale:6} {row['film']:>10}   {row['tokens']:6,} tokens   {row['millions']:8.2f} million weights   {row['work']:.1e} operations a film")

# %% tags=["nbval-ignore-output"]
a, b = torch.randn(2, 512, 512)
began = time.perf_counter()
for _ in range(20):
    a @ b
here = 20 * 2 * 512**3 / (time.perf_counter() - began)
print(f"at the speed of this process now, {here / 1e9:.0f} billion operations per second:")
for scale, row in plans.items():
    print(f"  {scale:6} {row['work'] / here:10.1f} s a film;  weights of the denoiser {4 * row['millions'] / 1000:.3f} GB in fp32, {2 * row['millions'] / 1000:.3f} GB in bf16")
print(f"  full on a GPU that really does 200 trillion per second: {plans['full']['work'] / 2e14:.0f} s")

# %% [markdown]
# The last line is an estimate, not a measurement; we have not run it. For comparison, what the makers of the *next* version, Open-Sora 2.0 (11 billion weights, another network), state in their README for one film of five seconds in 50 steps. Quoted, not checked by us:
#
# | | one H100 | eight H100 |
# |---|---|---|
# | 256 px | 60 s, 52.5 GB | |
# | 768 px | 60.3 GB | 276 s, 44.3 GB each |
#
# (An architecture page that quotes them asks for 32 GB at 256 px; the makers' own table does not bear that out.) Two practical remarks. T5 in version 1.2 ran in fp32, because in fp16 its sums overflow; the next version loads it in bf16, which reaches further. (`TextEmbedder(..., dtype=torch.float16)` keeps the two places concerned in fp32.) And the three trainings you have seen here, autoencoder, then a frozen text encoder, then the denoiser, are the three
# stages of the large system; it also goes from small pictures to large ones on the way, with the same weights (lesson 08).
#
# Where the published weights go:
#
# ```python
# pipe = TextToVideoPipeline.from_open_sora()         # denoiser, VAE and T5 by their names on the Hub, or local folders
# film = pipe("a large gold willow high on the left", frames=51, size="16:9", steps=30, guidance=7)
# ```
#
# and what trains all the parts, one size up from here, on a GPU:
#
# ```
# minivdm train all --preset small --run runs/mine      # both autoencoders, the T5, the denoiser, one after the other
# minivdm sample "a large gold willow high on the left" --out films/
# ```
#
# ## In your own words
#
# 1. A friend says: "Our loss is lower than yours, so our model is better." What do you ask to see?
# 2. Padding steered the films in two places. Which, and what is the one-line test for each?
# 3. Why can a model that hears a bag of words not be saved by more training, and one with a random T5 perhaps?
# 4. Guidance needs a "without". What goes wrong if "without" is an empty prompt that the network has never been trained on?
# 5. What, of all that you wrote in nine lessons, would you now write differently?
#
# *My answers: …*
#
# **What comes next.** Your own films: a folder of GIFs and captions, one preset up, and a GPU for an hour. You know every number between the sentence and the film.
#
# **Where it lives.** `minivdm/text/t5.py` (T5), `encoder.py` (T5 and CLIP by their published weights), `toy_t5.py` and `training/toy_t5_task.py` (how the toy learned to read), `training/stdit3_task.py` (section 6, for longer), `pipelines/text_to_video.py` (everything that can be asked for), `pipelines/velocity.py` (guidance), `data/judge.py`, `data/verdicts.py` (grading).
#
# **Further reading.** Raffel et al. 2020, *Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer* (T5, relative bias, span corruption); Saharia et al. 2022, *Imagen* (a frozen T5 makes text-to-image obey); Ho & Salimans 2022, *Classifier-Free Diffusion Guidance*; Brooks et al. 2023, *InstructPix2Pix* (two dials); Zheng et al. 2024, *Open-Sora*; Peng et al. 2025, *Open-Sora 2.0* (oscillating guidance).
