# %% [markdown]
# # 08 STDiT3 and rectified flow: must it be a U?
#
# Lesson 07 cleaned films with a U of convolutions. A convolution sees one pixel far, so the U halves the picture again and again until everything is near
# everything else, and then has to undo all that. What if every place could simply *ask* every other place? Then nothing need be halved, and the same
# network does for every size. And while we are tearing things down: must the road from noise to film be as winding as it was in lesson 02?
#
# By the end you will have made:
#
# * **tokens**: the willow cut into 80 little bricks, and laid together again;
# * **one block** that looks within a frame or along time, depending on one line of yours, and equals the package's to the last digit that matters;
# * **the bill** for looking everywhere at once, estimated, then measured on your machine, and the gap between the two explained;
# * **a video model that is an image model** on its first day: an equality, printed;
# * **straight roads** from noise to data, in a plane where you can see them cross, and what a network makes of the crossings;
# * **fireworks**, by a small diffusion transformer that learns before your eyes, and a bug by which such a network learns nothing at all.
#
# About **3 minutes** of computing on two CPU cores, most of it the training near the end. Eleven exercises, each with three hints. No network, no GPU.

# %% tags=["parameters"]
preset = "toy"
seed = 0
device = None  # None: the CPU, which is all that this lesson needs

# %%
import io
import math
import time
from collections.abc import Callable

import matplotlib.pyplot as plt
import PIL.Image
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from IPython.display import Image, display
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

# %%
from minivdm import viz
from minivdm.config import load_preset
from minivdm.course import check, hint  # noqa: F401
from minivdm.data.captions import canonical
from minivdm.data.fireworks import Scene, Shell, render, sample_scenes
from minivdm.data.judge import attribute_accuracy, prompt_accuracy
from minivdm.data.scenes import ATTRIBUTES
from minivdm.denoisers import STDiT3
from minivdm.denoisers.dit_blocks import SelfAttention, STDiT3Block
from minivdm.denoisers.dit_embeddings import rotate_pairs
from minivdm.diffusion.gaussian import GaussianDiffusion
from minivdm.diffusion.guidance import classifier_free
from minivdm.diffusion.rectified_flow import RectifiedFlow, shift_ratio
from minivdm.diffusion.samplers import ddim_sample, ddim_timesteps, sample
from minivdm.diffusion.schedules import make_betas
from minivdm.errors import UserError
from minivdm.pipelines import load_video_autoencoder
from minivdm.training.randomness import seeded_modules

# %%
torch.set_num_threads(1)  # most tensors are small today: two threads would wait for each other
torch.set_flush_denormal(True)  # fading light makes vanishing numbers, which slow a CPU down
FRAMES, SIZE = 17, load_preset(preset).data.size


def dice(roll: int) -> torch.Generator:
    """Reproducible randomness: the same roll is the same throw."""
    return torch.Generator().manual_seed(1000 * seed + roll)


def show(figure: plt.Figure, alt: str) -> None:
    """Display a plot as a small PNG, with words for those who cannot see it."""
    figure.savefig(png := io.BytesIO())
    PIL.Image.open(png).convert("RGB").quantize(64).save(small := io.BytesIO(), "PNG", optimize=True)
    plt.close(figure)
    display(viz.picture(small.getvalue(), alt))


# %% [markdown]
# The willow again, and at once its latent: lessons 03 and 04 squeezed 52,224 numbers into 1,280. From now on the network works there, and the two
# autoencoders (the shipped ones) stand before and behind it. Their latents have mean 0 and size 1, so there is nothing left to normalise.

# %%
vae = load_video_autoencoder("toy").requires_grad_(False)


def encode(films: Tensor) -> Tensor:
    """Films (B, 3, T, H, W) -> latents (B, 4, T', H/4, W/4)."""
    return torch.cat([vae.encode(part, sample=False) for part in films.split(2)])


def decode(latents: Tensor, frames: int = FRAMES) -> Tensor:
    """Latents -> films in [-1, 1]."""
    return torch.cat([vae.decode(part, frames) for part in latents.split(2)]).clamp(-1, 1)


willow_scene = Scene((Shell("gold", "willow", "left", "high", "large"),))
willow = render([willow_scene], FRAMES, SIZE, generator=dice(2))
z = encode(willow)
print("film", tuple(willow.shape), "-> latent", tuple(z.shape), "= (B, C, T, H, W)")

# %% [markdown]
# ## 1 · Tokens
#
# A transformer knows only one kind of thing: a row of **tokens**, each a vector. So the latent has to become such a row. Cut it into bricks, one latent
# frame deep and 2×2 latent pixels large, and write the numbers of each brick in a line. These are the bricks of the willow (its first channel, five latent
# frames):

# %% tags=["nbval-ignore-output"]
figure, axes = viz.figure(1, 5, width=10, height=2.3)
for moment, ax in enumerate(axes):
    ax.imshow(z[0, 0, moment], cmap="Greys", vmin=-2.5, vmax=2.5)
    for cut in (1.5, 3.5, 5.5):
        ax.axhline(cut, color=viz.SPACE, lw=1.5)
        ax.axvline(cut, color=viz.SPACE, lw=1.5)
    ax.set(title=f"latent frame {moment}", xticks=[], yticks=[])
show(figure, "five latent frames of 8 by 8, each cut into 16 squares; the willow opens in the top left of them")

# %% [markdown]
# $5 \cdot 4 \cdot 4 = 80$ tokens of $2 \cdot 2 \cdot 4 = 16$ numbers. (As pixels, the same film would be 4,352 tokens. This is what the squeezing was for.)
#
# The order is a convention, and everybody downstream must keep it. Tokens: frame after frame, in a frame row after row. Within a token: frame, row, column,
# channel, with the channel running fastest. Where the film does not divide, zeros are laid on at the end.
#
# ### Exercise 08.patchify (5 minutes) and 08.unpatchify (4 minutes)


# %%
# exercise: 08.patchify
def patchify(x: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """x (B, C, T, H, W), patch (pt, ph, pw) -> tokens (B, nt·nh·nw, pt·ph·pw·C), the channel fastest.

    An axis that the patch does not divide gets zeros at its end. Stuck? hint("08.patchify")
    """
    ### BEGIN SOLUTION
    missing = [-side % width for side, width in zip(x.shape[2:], patch, strict=True)]
    x = F.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]))
    pt, ph, pw = patch
    return rearrange(x, "b c (t pt) (h ph) (w pw) -> b (t h w) (pt ph pw c)", pt=pt, ph=ph, pw=pw)
    ### END SOLUTION


# %%
# hint("08.patchify")
check("08.patchify", patchify)


# %%
# exercise: 08.unpatchify
def unpatchify(
    tokens: Tensor, patch: tuple[int, int, int], out_channels: int, grid: tuple[int, int, int]
) -> Tensor:
    """The way back: tokens (B, nt·nh·nw, pt·ph·pw·C) -> (B, C, nt·pt, nh·ph, nw·pw); grid is (nt, nh, nw).

    Stuck? hint("08.unpatchify")
    """
    ### BEGIN SOLUTION
    (nt, nh, nw), (pt, ph, pw) = grid, patch
    pattern = "b (nt nh nw) (pt ph pw c) -> b c (nt pt) (nh ph) (nw pw)"
    return rearrange(tokens, pattern, c=out_channels, nt=nt, nh=nh, nw=nw, pt=pt, ph=ph, pw=pw)
    ### END SOLUTION


# %%
# hint("08.unpatchify")
check("08.unpatchify", unpatchify)

# %%
PATCH, GRID = (1, 2, 2), (5, 4, 4)
tokens = patchify(z, PATCH)
print("tokens:", tuple(tokens.shape))
print("there and back:", torch.equal(unpatchify(tokens, PATCH, 4, GRID), z))

# %% [markdown]
# Each token then goes through one linear layer, which brings it to the width $D$ of the network. Libraries call the two together *patch embedding* and
# write it as a convolution whose stride is its kernel. It is the same thing: no brick overlaps another, so the convolution does nothing but
# multiply each brick by one matrix.

# %%
with seeded_modules(seed):
    conv = nn.Conv3d(4, 96, kernel_size=PATCH, stride=PATCH)
matrix = rearrange(conv.weight, "d c pt ph pw -> d (pt ph pw c)")
by_hand = F.linear(patchify(z, PATCH), matrix, conv.bias)
print("a matrix = a convolution in strides:", torch.allclose(by_hand, rearrange(conv(z), "b d t h w -> b (t h w) d"), atol=1e-5))

# %% [markdown]
# ### Everyone asks everyone
#
# Attention is what you wrote in lesson 07, this time without a preference for distances: every token asks ($q$), every token answers ($k$, $v$).


# %%
def attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """q (..., N, d), k and v (..., M, d) -> what each of N tokens hears (..., N, d), and whom it heard (..., N, M)."""
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return weights @ v, weights


order = torch.randperm(80, generator=dice(3))
heard, _ = attention(by_hand, by_hand, by_hand)
shuffled, _ = attention(*[by_hand[:, order]] * 3)
print("shuffled tokens give the shuffled answer:", torch.allclose(shuffled, heard[:, order], atol=1e-4))

# %% [markdown]
# You know this from lesson 07: attention sees a bag. A U of convolutions knows for free what is beside what. We have cut the film up, and thrown the
# knowledge away. It has to be put back.
#
# ## 2 · Where: places that mean the same at every size
#
# For time the network uses the rotation of lesson 07. For the place within a frame it *adds* a code to each token: the clock with many hands once more, half
# of the features for the column, half for the row.
#
# One question decides whether the network can grow. A burst in the middle of a small film is at column 4 of 8; in a film of twice the size it is at column 8
# of 16. If the code counts tokens, the middle of the large film looks like the *edge* of the small one, and all that was learned at the small
# size is wrong. So measure instead of counting: in units of a size of reference,
#
# $$\text{position} = \frac{\text{index}}{\text{scale}} \cdot \frac{\text{base\_size}}{h \text{ or } w},$$
#
# where scale says how many times larger than the reference the film is, and base_size is about how many tokens one side has.
#
# ### Exercise 08.pos_embed_2d (10 minutes)


# %%
# exercise: 08.pos_embed_2d
def pos_embed_2d(h: int, w: int, dim: int, scale: float, base_size: int | None) -> Tensor:
    """A code for each place of a frame: (1, h·w, dim), row after row. Without base_size that factor is left out.

    The first dim/2 features code the column, the last dim/2 the row, each as [sines, cosines] at the dim/4 frequencies
    10000^(−2i/(dim/2)). Stuck? hint("08.pos_embed_2d")
    """
    ### BEGIN SOLUTION
    half = dim // 2
    frequencies = 10000.0 ** (-torch.arange(0, half, 2) / half)

    def waves(count: int) -> Tensor:
        place = torch.arange(count) / scale * (1 if base_size is None else base_size / count)
        angles = place[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    columns, rows = repeat(waves(w), "w d -> (h w) d", h=h), repeat(waves(h), "h d -> (h w) d", w=w)
    return torch.cat([columns, rows], dim=1)[None]
    ### END SOLUTION


# %%
# hint("08.pos_embed_2d")
check("08.pos_embed_2d", pos_embed_2d)

# %% [markdown] tags=["predict"]
# **Predict first.** The network has learned films of 8×8 tokens. Now it gets one of 16×16, and we ask: what does the token in row 4, column 12 of the *large*
# frame (a quarter down, three quarters to the right) sound like, in terms of the *small* frame? Once with counted positions, once with measured ones. Where will
# the dark spot be in the two pictures?
#
# Write your guess here before you run the next cell: …

# %% tags=["nbval-ignore-output"]
large_counted, large_measured = pos_embed_2d(16, 16, 96, 1.0, None), pos_embed_2d(16, 16, 96, 2.0, 16)
small = pos_embed_2d(8, 8, 96, 1.0, None)
figure, axes = viz.figure(1, 2, width=6.4, height=3.2)
for ax, large, name in zip(axes, (large_counted, large_measured), ("counted", "measured"), strict=True):
    alike = F.cosine_similarity(small[0], large[0, 4 * 16 + 12], dim=1)
    ax.imshow(rearrange(alike, "(h w) -> h w", h=8), cmap="Blues", vmin=0.5, vmax=1)
    ax.set(title=f"{name}: likest {alike.max():.2f}", xlabel="column of the small frame", ylabel="row")
show(figure, "counted: the likest place is at the right edge, row 4, and none is the same; measured: row 2, column 6, exactly")

# %% [markdown]
# <details><summary>What happened</summary>
#
# Counted, the token is called "row 4, column 12": a place that the small frame does not have. It sounds most like the right edge, halfway down, and not very much
# like that. Measured, it is row 2, column 6: again a quarter down and three quarters to the right, to the last digit. That is how the published model can
# begin its training at 240p and end it at 720p and more, with one set of weights. (Section 10 tries it.)
# </details>
#
# ## 3 · How noisy: every norm listens
#
# In the U, FiLM told every channel how noisy the film is. In a transformer it sits in the norms. A layer norm brings each token to mean 0 and size 1, and
# then an ordinary norm applies a learned gain and bias, the same for ever. Here the two are *computed from $t$*: the norm is **adaptive**, adaLN
# (Peebles & Xie 2023).
#
# $$\text{modulate}(x) = x \cdot (1 + \text{scale}(t)) + \text{shift}(t)$$
#
# ### Exercise 08.modulate (2 minutes)


# %%
# exercise: 08.modulate
def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (B, N, D), shift and scale (B, D): for every clip and feature its own, for all tokens the same.

    Stuck? hint("08.modulate")
    """
    ### BEGIN SOLUTION
    return x * (1 + scale[:, None]) + shift[:, None]
    ### END SOLUTION


# %%
# hint("08.modulate")
check("08.modulate", modulate)

# %% [markdown]
# A block gets **six** such vectors: shift and scale before its attention and a **gate** behind it, by which the whole branch is turned up or down; and the same
# three for its MLP. The network computes them once per clip, $t \mapsto 6 D$ numbers, and each block only adds a small table of its own
# (`scale_shift_table`). In the XL model, with 56 blocks, that saves hundreds of millions of weights.
#
# And frames that are already clean? "Animate this picture" gives the network a first frame without noise, among others that are nothing but noise. It would be
# a lie to tell both the same $t$. So each frame is told the truth about itself: the noisy ones the clip's $t$, the given ones $t = 0$.
#
# ### Exercise 08.masked_modulate (5 minutes)


# %%
# exercise: 08.masked_modulate
def masked_modulate(
    x: Tensor, shift: Tensor, scale: Tensor, shift0: Tensor, scale0: Tensor, mask: Tensor
) -> Tensor:
    """x (B, T, S, D), mask (B, T) bool: True frames are noisy and take shift, scale (B, D), the others shift0, scale0.

    Stuck? hint("08.masked_modulate")
    """
    ### BEGIN SOLUTION
    noisy = x * (1 + scale[:, None, None]) + shift[:, None, None]
    clean = x * (1 + scale0[:, None, None]) + shift0[:, None, None]
    return torch.where(mask[:, :, None, None], noisy, clean)
    ### END SOLUTION


# %%
# hint("08.masked_modulate")
check("08.masked_modulate", masked_modulate)

# %% [markdown]
# (The final layer of Open-Sora 1.2 does it in two lines: `x = modulate(x, ...)`, and then, for the clean frames, `modulate(x, ...)` once more, of the *new* `x`. So clean frames
# are modulated twice. It does no harm, since the output of given frames is thrown away; but it is not what was meant. Yours reads the old `x` both times.)
#
# ## 4 · Space and time: the same block, turned
#
# Now the heart. Attention looks along one axis of its input, the tokens, and treats another, the batch, as strangers to each other. So what you **fold
# into the batch** is what cannot be seen. Frames folded into the batch: every frame looks at itself, attention in *space*. Places folded into the batch:
# every place looks along its own history, attention in *time*. The layer does not know the difference.
#
# ### Exercise 08.space_time_rearrange (4 minutes)


# %%
# exercise: 08.space_time_rearrange
def space_time_rearrange(tokens: Tensor, T: int, S: int, axis: str) -> Tensor:
    """(B, T·S, D) -> (B·T, S, D) for axis "space", (B·S, T, D) for axis "time". Stuck? hint("08.space_time_rearrange")"""
    ### BEGIN SOLUTION
    pattern = "b (t s) d -> (b t) s d" if axis == "space" else "b (t s) d -> (b s) t d"
    return rearrange(tokens, pattern, t=T, s=S)
    ### END SOLUTION


# %%
# hint("08.space_time_rearrange")
check("08.space_time_rearrange", space_time_rearrange)


# %%
def turn_back(folded: Tensor, T: int, S: int, axis: str) -> Tensor:
    """The inverse: (B·T, S, D) or (B·S, T, D) -> (B, T·S, D)."""
    pattern = "(b t) s d -> b (t s) d" if axis == "space" else "(b s) t d -> b (t s) d"
    return rearrange(folded, pattern, t=T, s=S)


# %% [markdown]
# With that, a whole block of the network, said with your functions. Weights are the package's: queries and keys are brought to length (`q_norm`, `k_norm`, so
# that no score explodes in half precision), and rotated by the frame number if the block looks along time.


# %%
def look(layer: SelfAttention, x: Tensor, rotation=None) -> tuple[Tensor, Tensor]:
    """Self-attention of sequences x (N, M, D): the answers (N, M, D) and who looked at whom (N, heads, M, M)."""
    q, k, v = rearrange(layer.qkv(x), "n m (three head d) -> three n head m d", three=3, head=layer.heads)
    q, k = layer.q_norm(q), layer.k_norm(k)
    if rotation is not None:
        q, k = rotate_pairs(q, rotation), rotate_pairs(k, rotation)
    heard, weights = attention(q, k, v)
    return layer.proj(rearrange(heard, "n head m d -> n m (head d)")), weights


def your_block(block: STDiT3Block, x: Tensor, text: Tensor, six: Tensor, T: int, axis: str, rotation=None) -> Tensor:
    """x (B, T·S, D), text (B, L, D), six (B, 6, D) -> like x."""
    S = x.shape[1] // T
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (block.scale_shift_table + six).unbind(dim=1)
    folded = space_time_rearrange(modulate(block.norm1(x), shift, scale), T, S, axis)
    heard, _ = look(block.attn, folded, rotation)
    x = x + gate[:, None] * turn_back(heard, T, S, axis)
    x = x + block.cross_attn(x, text)  # a look at the words; lesson 09 has more to say about it
    return x + gate_mlp[:, None] * block.mlp(modulate(block.norm2(x), shift_mlp, scale_mlp))


# %% [markdown]
# Is it the package's? A small network, all of whose weights are random (a fresh one has zeros in many places, and zeros prove nothing), one spatial and
# one temporal block:


# %%
def a_transformer(width: int = 96, depth: int = 3, roll: int = 4, **options) -> STDiT3:
    """A small STDiT3 as it comes: for latents of 4 channels, and five words of 32 numbers."""
    with seeded_modules(1000 * seed + roll):
        sizes = {"hidden_size": width, "depth": depth, "num_heads": 4, "caption_channels": 32, "model_max_length": 5}
        return STDiT3(**sizes, input_sq_size=SIZE, pred_sigma=False, **options)


def awake(net: STDiT3, roll: int = 5) -> STDiT3:
    """The same with every weight that began at zero drawn at random, as if it had learned something."""
    generator = dice(roll)
    for weight in net.parameters():
        if not weight.any():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1
    return net.eval().requires_grad_(False)


# %%
net = awake(a_transformer())
x = torch.randn(2, 5, 16, 96, generator=dice(6))
text = torch.randn(2, 5, 96, generator=dice(7))
six = torch.randn(2, 6, 96, generator=dice(8)) / 2
flat = rearrange(x, "b t s d -> b (t s) d")
pairs = {"space": (net.spatial_blocks[0], None), "time": (net.temporal_blocks[0], net.rope(5))}
for axis, (block, rotation) in pairs.items():
    theirs = block(x, text, six[:, None], rotation=rotation)
    yours = your_block(block, flat, text, six, 5, axis, rotation)
    print(f"{axis}: your block = the package's: {torch.allclose(yours, rearrange(theirs, 'b t s d -> b (t s) d'), atol=1e-4)}")

# %% [markdown]
# Same class, same kind of weights; what differs is the string `"space"` or `"time"`. Who looks at whom, drawn for all 80 × 80 pairs of tokens. Tokens are numbered
# frame after frame:


# %%
def map_of(block: STDiT3Block, x: Tensor, axis: str, rotation=None) -> Tensor:
    """(T·S, T·S): how much each token of a clip x (1, T·S, D) looks at each other, averaged over heads."""
    T, S = 5, 16
    _, weights = look(block.attn, space_time_rearrange(block.norm1(x), T, S, axis), rotation)
    weights, whole = weights.mean(dim=1), torch.zeros(T, S, T, S)
    for i in range(len(weights)):
        if axis == "space":
            whole[i, :, i, :] = weights[i]
        else:
            whole[:, i, :, i] = weights[i]
    return rearrange(whole, "t s u r -> (t s) (u r)")


in_space = map_of(pairs["space"][0], flat[:1], "space")
in_time = map_of(pairs["time"][0], flat[:1], "time", pairs["time"][1])

# %% [markdown] tags=["predict"]
# **Predict first.** Draw the two maps on paper, 80 × 80, five frames of 16 tokens: where is ink in the map of space, where in the map of time? And after
# *both*, a look in space and then a look along time: which tokens can have heard of which?
#
# Write your guess here before you run the next cell: …

# %% tags=["nbval-ignore-output"]
figure, axes = viz.figure(1, 3, width=10, height=3.5)
maps = {"in space": (in_space, "Blues"), "along time": (in_time, "Oranges"), "one after the other": (in_time @ in_space, "Greys")}
for ax, (name, (weights, colours)) in zip(axes, maps.items(), strict=True):
    ax.imshow(weights, cmap=colours, vmin=0, vmax=weights.max() * 0.8, interpolation="nearest")
    ax.set(title=name, xlabel="heard token", ylabel="listening token", xticks=range(0, 80, 16), yticks=range(0, 80, 16))
show(figure, "in space: five squares along the diagonal; along time: thin parallel diagonals; one after the other: ink everywhere")

# %%
full = in_time @ in_space
for name, weights in {"in space": in_space, "along time": in_time, "one after the other": full}.items():
    print(f"{name:20}{(weights > 0).sum():5} of {weights.numel()} pairs")

# %% [markdown]
# <details><summary>What the maps say</summary>
#
# Space: five squares on the diagonal, one for each frame. Time: sixteen combs, each token and its own place in the other frames. After both, ink everywhere:
# whoever wants to know about another place at another time asks a go-between, the token of that place in its own frame.
#
# It is not the same as asking directly. A single direct look may weigh all 6,400 pairs freely; this one is a product of two thin maps. Descriptions of
# Open-Sora 1.2 often speak of "integrated 3D attention". Its code has what you see here, spatial and temporal blocks in turn, and its report says why: cost.
# </details>
#
# ## 5 · The bill
#
# Count multiplications. Attention makes two matrix products: queries with keys, weights with values. With $T$ frames of $S$ tokens of width $D$, each of the
# $T \cdot S$ tokens meets as many others as it can see, twice, $D$ multiplications each.
#
# ### Exercise 08.attention_cost (3 minutes)


# %%
# exercise: 08.attention_cost
def attention_cost(frames: int, spatial: int, width: int, factorised: bool) -> int:
    """Multiplications of the two products of attention: over all tokens at once, or within frames and then along time.

    Stuck? hint("08.attention_cost")
    """
    ### BEGIN SOLUTION
    sees = spatial + frames if factorised else frames * spatial
    return 2 * frames * spatial * sees * width
    ### END SOLUTION


# %%
# hint("08.attention_cost")
check("08.attention_cost", attention_cost)

# %%
films = {"our willow": (5, 16, 96), "2 s of 240p": (15, 405, 1152), "2 s of 720p": (15, 3600, 1152), "16 s of 720p": (120, 3600, 1152)}
print(f"{'':14}{'tokens':>8}   at once    in turns   as many times cheaper")
for name, (T, S, D) in films.items():
    at_once, in_turns = attention_cost(T, S, D, False), attention_cost(T, S, D, True)
    print(f"{name:14}{T * S:8,}   {at_once:.1e}    {in_turns:.1e}   {at_once / in_turns:8.1f}")

# %% [markdown]
# For one block, one step, one film; the XL model has 28 pairs of blocks, and sampling asks it dozens of times. That was the *estimate*. Now **measure**: full attention
# and factorised, for more and more frames of 64 tokens, on your machine.

# %% [markdown] tags=["predict"]
# **Predict first.** For 2 frames of 64 tokens the estimate says that taking turns is 1.9 times cheaper. Will it be faster, too? And at 64 frames, where the estimate says
# 32 times: will you measure more, less or just that?
#
# Write your guess here before you run the next cell: …


# %%
def seconds(run: Callable[[], object]) -> float:
    """Processor time of one run: unlike the clock's, it is the same when other programs want the processor, too."""
    run()
    count, began = 0, time.process_time()
    while time.process_time() - began < 0.1:
        run()
        count += 1
    return (time.process_time() - began) / count



def at_once(x: Tensor) -> Tensor:
    """Attention of heads x (T, S, head, d) over all T·S tokens."""
    everything = rearrange(x, "t s head d -> 1 head (t s) d")
    return F.scaled_dot_product_attention(everything, everything, everything)


def in_turns(x: Tensor) -> tuple[Tensor, Tensor]:
    """Attention within each frame, and attention along time for each place."""
    space, past = rearrange(x, "t s head d -> t head s d"), rearrange(x, "t s head d -> s head t d")
    return F.scaled_dot_product_attention(space, space, space), F.scaled_dot_product_attention(past, past, past)


# %% tags=["nbval-ignore-output"]
S, D, LENGTHS = 64, 96, (1, 2, 4, 8, 16, 32, 64)
with seeded_modules(seed):
    layers = nn.Sequential(nn.Linear(D, 4 * D), nn.Linear(4 * D, 4 * D), nn.Linear(4 * D, D))  # about a block's other work
measured = {"at once": [], "in turns": [], "the block's linear layers": []}
with torch.no_grad():
    for T in LENGTHS:
        x = torch.randn(T, S, 4, D // 4, generator=dice(9))
        measured["at once"].append(seconds(lambda: at_once(x)))  # noqa: B023
        measured["in turns"].append(seconds(lambda: in_turns(x)))  # noqa: B023
        measured["the block's linear layers"].append(seconds(lambda: layers(x.flatten(2))))  # noqa: B023
print("frames   estimated   measured: as many times faster in turns")
for T, full, turns in zip(LENGTHS, measured["at once"], measured["in turns"], strict=True):
    print(f"{T:6}   {T * S / (T + S):9.1f}   {full / turns:9.1f}")

# %% tags=["nbval-ignore-output"]
figure, ax = viz.figure(width=6.5, height=3.4)
for (name, taken), colour in zip(measured.items(), (viz.NOISE, viz.TIME, viz.SPACE), strict=True):
    ax.loglog(LENGTHS, [1000 * each for each in taken], "o-", color=colour, label=name)
ax.set(xlabel="latent frames", ylabel="milliseconds", xticks=LENGTHS, xticklabels=LENGTHS)
ax.minorticks_off()
ax.legend(frameon=False)
show(figure, "attention at once rises with the square of the frames, in turns and the linear layers with the frames")

# %% [markdown]
# <details><summary>The gap, explained</summary>
#
# What you see depends on your machine; three things are true on all. *First*, for short films there is little or nothing to be gained: two calls on small
# pieces cost more overhead than one call on a large one, and a processor likes one long product better than many short ones. *Second*, the softmax and the moving of
# memory are not in our count: at once, the scores of all pairs are a table that has to be written and read, in turns a pile of small ones. *Third*, look at the linear layers: their cost grows like the number of tokens only, and for short films it is they that one waits
# for. Attention takes over when a token sees more others than the linear layers have columns. So factorising is no rule of nature. It pays for films that are
# long and large; for our 80 tokens it does not matter, and newer models, with faster kernels for attention, have gone back to looking everywhere at once.
# </details>
#
# The kernel, by the way, is exchangeable. "Flash attention" is not another attention, it is another order of the same additions:

# %%
x = torch.randn(1, 4, 320, 24, generator=dice(10))
outcomes = {}
for kernel in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
    with sdpa_kernel(kernel):
        outcomes[kernel] = F.scaled_dot_product_attention(x, x, x)
by_hand, _ = attention(x, x, x)
print("flash = plain = by hand:", all(torch.allclose(each, by_hand, atol=1e-5) for each in outcomes.values()))

# %% [markdown]
# ## 6 · A video model that is an image model
#
# Films are rare and pictures are plenty, so such networks learn pictures first. Then the temporal blocks are put between, untrained. Will they not spoil
# everything that the spatial blocks have learned?
#
# Not if the last layer of each branch starts at **zero**. Then a temporal block says $x + \text{gate} \cdot 0$, and nothing has happened. The claim: on its first day,
# the video model gives each frame of a film *exactly* what it would give to that frame alone. Let us prove it on a fresh network:


# %%
SAID = {"fps": torch.tensor([8.0]), "height": torch.tensor([float(SIZE)]), "width": torch.tensor([float(SIZE)])}
words = torch.randn(1, 5, 32, generator=dice(11))  # five words; what they are, section 10 will tell


def frame_by_frame(net: STDiT3, z: Tensor) -> float:
    """The largest difference between cleaning a film, and cleaning each of its frames as a picture."""
    t = torch.full((len(z),), 500.0)
    film = net(z, t, words, **SAID)
    pictures = [net(frame, t, words, **SAID) for frame in z.split(1, dim=2)]
    return (film - torch.cat(pictures, dim=2)).abs().max().item()


fresh = a_transformer().eval().requires_grad_(False)
print("a fresh network: film and pictures differ by", frame_by_frame(fresh, z))

# %% [markdown]
# Splendid, and worthless. Look at the output itself:

# %%
print("largest number that the fresh network says:", fresh(z, torch.tensor([500.0]), words, **SAID).abs().max().item())

# %% [markdown]
# The *final* layer starts at zero as well, so everything is equal to everything. An equality that cannot fail proves nothing. So play image training: draw the
# weights of the final layer, of the looks at the text, and of everything in the spatial blocks; leave the temporal blocks as they come.

# %%
trained_on_pictures = a_transformer()
awake(trained_on_pictures.spatial_blocks), awake(trained_on_pictures.final_layer)
video_model = trained_on_pictures.eval().requires_grad_(False)
says = video_model(z, torch.tensor([500.0]), words, **SAID).abs().max().item()
print(f"it says numbers up to {says:.1f}; film and pictures differ by at most {frame_by_frame(video_model, z):.4f}")
touched = video_model.temporal_blocks[0].attn.proj
touched.weight.data = torch.randn(touched.weight.shape, generator=dice(12)) * 0.01
print(f"after one touch on one temporal block, by up to {frame_by_frame(video_model, z):.2f}")
touched.weight.data.zero_()

# %% [markdown]
# That is the equality we wanted: zero while the temporal blocks sleep, something else as soon as they learn. The looks at the text start at zero too, so at first
# the network is deaf: other words, same output. The frame rate is told by a layer that starts at zero as well. It is the habit of this
# family: what is added to a working network must not spoil what it can do already.

# %%
other_words = torch.randn(1, 5, 32, generator=dice(13))
t = torch.tensor([500.0])
deaf = a_transformer().eval().requires_grad_(False)
awake(deaf.final_layer)
print("a fresh network hears the words:", not torch.equal(deaf(z, t, words, **SAID), deaf(z, t, other_words, **SAID)))
print("a network that is awake does:   ", not torch.equal(net(z, t, words, **SAID), net(z, t, other_words, **SAID)))

# %% [markdown]
# ### Your functions, the whole network
#
# Everything has been said. Here is `STDiT3.forward` in your words: cut, say where, say how noisy, look in turns, lay together.


# %%
def your_transformer(net: STDiT3, z: Tensor, t: Tensor, words: Tensor) -> Tensor:
    """The velocity that an STDiT3 predicts for latents z (B, C, T, H, W) at times t (B,)."""
    grid = net.token_size(z.shape[2:])
    T, h, w = grid
    matrix = rearrange(net.x_embedder.proj.weight, "d c pt ph pw -> d (pt ph pw c)")
    x = F.linear(patchify(z, PATCH), matrix, net.x_embedder.proj.bias)
    places = pos_embed_2d(h, w, x.shape[2], SAID["height"].item() / net.config.input_sq_size, round((h * w) ** 0.5))
    x = x + repeat(places, "1 s d -> 1 (t s) d", t=T)
    vector = net.t_embedder(t) + net.fps_embedder(SAID["fps"], len(z))
    six = rearrange(net.t_block(vector), "b (six d) -> b six d", six=6)
    text, rotation = net.y_embedder(words), net.rope(T)
    for spatial, temporal in zip(net.spatial_blocks, net.temporal_blocks, strict=True):
        x = your_block(spatial, x, text, six, T, "space")
        x = your_block(temporal, x, text, six, T, "time", rotation)
    final = net.final_layer
    shift, scale = (final.scale_shift_table + vector[:, None]).unbind(dim=1)
    out = final.linear(modulate(final.norm_final(x), shift, scale))
    return unpatchify(out, PATCH, net.config.out_channels, grid)


# %%
two, times, heard = torch.randn(2, 4, 5, 8, 8, generator=dice(14)), torch.tensor([130.0, 870.0]), words.expand(2, -1, -1)
yours, theirs = your_transformer(net, two, times, heard), net(two, times, heard, **SAID)
print("your transformer = the package's:", torch.allclose(yours, theirs, atol=1e-4))

# %% [markdown]
# And with a first frame that is given and clean? There your `masked_modulate` takes the place of `modulate`. In the last layer, say, the very one of which the note in section 3 spoke. The
# package can do it the published way as well, for the sake of published weights:

# %%
final, mask = net.final_layer, torch.tensor([[False, True, True, True, True]])
tokens, vectors = torch.randn(1, 5, 16, 96, generator=dice(14)), torch.randn(2, 1, 96, generator=dice(6))
(shift, scale), (shift0, scale0) = ((final.scale_shift_table + each[:, None]).unbind(1) for each in vectors)
yours = final.linear(masked_modulate(final.norm_final(tokens), shift, scale, shift0, scale0, mask))
ours = final(tokens, vectors[0], mask, vectors[1])
final.double_modulate = True
published = final(tokens, vectors[0], mask, vectors[1])
final.double_modulate = False
print("yours = the package's:", torch.allclose(yours, ours, atol=1e-5))
off_by = (published - ours).abs().amax(dim=(0, 2, 3))
print("the published order of lines differs in frames", [frame for frame in range(5) if off_by[frame] > 1e-5])

# %% [markdown]
# ## 7 · Straight lines
#
# The network is done; now the road. In lesson 02 it was given by a schedule, $\sqrt{\bar\alpha_t}$ and $\sqrt{1 - \bar\alpha_t}$, a curve with a name and a history. Rectified flow
# (Liu et al. 2022) takes the first line that a child would draw. With $u = t/1000$, 0 for data and 1 for noise:
#
# $$x_t = (1 - u)\, x_0 + u \cdot \text{noise} .$$
#
# ### Exercise 08.flow_interpolate (3 minutes)


# %%
# exercise: 08.flow_interpolate
def flow_interpolate(x0: Tensor, noise: Tensor, t: Tensor, num_timesteps: int = 1000) -> Tensor:
    """The point at time t (B,) on the line from x0 (B, ...) at 0 to noise at num_timesteps.

    Stuck? hint("08.flow_interpolate")
    """
    ### BEGIN SOLUTION
    u = rearrange(t / num_timesteps, f"b -> b {'1 ' * (x0.ndim - 1)}")
    return (1 - u) * x0 + u * noise
    ### END SOLUTION


# %%
# hint("08.flow_interpolate")
check("08.flow_interpolate", flow_interpolate)

# %%
noise = torch.randn(z.shape, generator=dice(15))
on_the_way = [decode(flow_interpolate(z, noise, torch.tensor([float(t)])))[0] for t in (0, 300, 600, 900)]

# %% tags=["nbval-ignore-output"]
viz.player(on_the_way, [f"t = {t}" for t in (0, 300, 600, 900)], columns=4, fps=6, alt="the willow dissolves along a straight line")

# %% [markdown]
# One thing it gives for free: it *ends*. At $t = 1000$ there is nothing left of the film, exactly. The schedules of lesson 01 only nearly get there:

# %%
print("share of the film's variance that is left at the last step")
for name in ("cosine", "linear", "scaled_linear"):
    print(f"{name:14} {GaussianDiffusion(make_betas(name, 1000), prediction='v').alpha_bar(999):.1e}")
print(f"{'straight line':14} {flow_interpolate(torch.ones(1, 1), torch.zeros(1, 1), torch.tensor([1000.0])).item() ** 2:.1e}")

# %% [markdown]
# Along a line one moves with constant **velocity**, from noise to data: $v = x_0 - \text{noise}$. That is what the network shall predict: *from here, which
# way, and how fast?* (A warning. Half of the world counts the other way round. Open-Sora 2.0 has $t$ from 0 to 1 and predicts noise − $x_0$. Whoever mixes two such
# networks up walks away from the data.)
#
# ### Where lines cross
#
# Into the plane, where one can see. The data are the seven sparks of a burst, a ring of seven small clouds of points; the noise is a round cloud in the
# middle. Draw some noise, draw some data, and connect:

# %%
COUNT, SPARK = 7, 0.08
angles = torch.arange(COUNT) * 2 * math.pi / COUNT + 0.3
SPARKS = 1.4 * torch.stack([angles.cos(), angles.sin()], dim=1)  # every coordinate has a variance of about 1


def burst(count: int, generator: torch.Generator) -> Tensor:
    """Points (count, 2) of the data."""
    which = torch.randint(COUNT, (count,), generator=generator)
    return SPARKS[which] + SPARK * torch.randn(count, 2, generator=generator)


def cloud(count: int, generator: torch.Generator) -> Tensor:
    """Points (count, 2) of noise."""
    return torch.randn(count, 2, generator=generator)


# %%
def rounded(point: Tensor) -> str:
    return "(" + ", ".join(f"{each:.2f}" for each in point.tolist()) + ")"


here, many = torch.tensor([0.4, 0.5]), 4_000_000
ends, begins = burst(many, dice(16)), cloud(many, dice(17))
close = (flow_interpolate(ends, begins, torch.full((many,), 500.0)) - here).norm(dim=1) < 0.05
velocities = (ends - begins)[close]
print(f"of {many:,} lines, {len(velocities):,} pass by {rounded(here)} at t = 500; their mean velocity is {rounded(velocities.mean(0))}")

# %%
def plane(columns: int, rows: int = 1) -> tuple[plt.Figure, list]:
    """Axes of the plane, one beside the other, row after row."""
    figure, axes = viz.figure(rows, columns, width=3.1 * columns, height=3.2 * rows)
    for ax in axes.flat:
        ax.set(xlim=(-2.3, 2.3), ylim=(-2.3, 2.3), aspect="equal", xticks=[], yticks=[])
    return figure, list(axes.flat)


def draw_paths(ax, path: Tensor, title: str) -> None:
    """Paths (stations, B, 2) of some walkers, from noise in grey to data in green."""
    ax.plot(*path[:, :50].permute(2, 0, 1), color=viz.INK, lw=0.6, alpha=0.5)
    ax.plot(*path[0, :50].T, "o", color=viz.NOISE, ms=3)
    ax.plot(*path[-1].T, "o", color=viz.DATA, ms=3)
    ax.set_title(title)


# %% tags=["nbval-ignore-output"]
figure, (left, right) = plane(2)
some, some_noises = burst(40, dice(18)), cloud(40, dice(19))
draw_paths(left, torch.stack([some_noises, some]), "lines from noise to data")
for v in velocities[:12]:
    right.plot(*zip(here - v / 2, here + v / 2, strict=True), color=viz.INK, lw=0.6, alpha=0.6)
    right.plot(*(here + v / 2), "o", color=viz.DATA, ms=5)
right.annotate("", here + velocities.mean(0), here, arrowprops={"arrowstyle": "-|>", "color": viz.TIME, "lw": 2.5})
right.set_title("lines through one point at t = 500")
show(figure, "left: forty lines that cross everywhere; right: twelve lines through one point, and the arrow of their mean")

# %% [markdown]
# The lines cross. At the same place and the same time, one wants to go to one spark and another to another. The network sees only place and time. Trained by squared
# error it can do no better than the **mean** of all velocities that pass there (the arrow). So what one walks along in the end is *not* the lines, but the field
# of the means.
#
# For this burst the mean has a closed form, just as the perfect denoiser had in lesson 02. Given $x = a\,x_0 + s \cdot \text{noise}$, each spark is to be believed as
# much as it explains $x$:


# %%
def expected_data(x: Tensor, a: Tensor, s: Tensor) -> Tensor:
    """E[x0 | x] for x (B, 2) = a·x0 + s·noise, with a and s (B, 1)."""
    variance = (a * SPARK) ** 2 + s**2
    away = rearrange(x, "b d -> b 1 d") - a[:, None] * SPARKS  # (B, COUNT, 2)
    belief = (-away.square().sum(2) / (2 * variance)).softmax(dim=1)
    guesses = SPARKS + a[:, None] * SPARK**2 / variance[:, None] * away
    return (belief[:, :, None] * guesses).sum(1)


def ideal(x: Tensor, t: Tensor) -> Tensor:
    """The mean velocity of all lines that are at x (B, 2) at time t (B,), 0 < t <= 1000."""
    u = t[:, None] / 1000
    x0 = expected_data(x, 1 - u, u)
    return x0 - (x - (1 - u) * x0) / u


print("the closed form says", rounded(ideal(here[None], torch.tensor([500.0]))[0]))

# %% [markdown]
# Both ways agree, as far as so many lines can say. Now a network that has never heard of sparks: three layers, trained on pairs that we throw at random. The loss is the squared error of the
# velocity. Your function must also do for films, where some frames may be given; those do not count.
#
# ### Exercise 08.flow_loss (5 minutes)


# %%
# exercise: 08.flow_loss
def flow_loss(velocity: Tensor, x0: Tensor, noise: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of (velocity − (x0 − noise))² per sample: (B,).

    mask (B, T) bool, for films (B, C, T, H, W): only True frames count. Stuck? hint("08.flow_loss")
    """
    ### BEGIN SOLUTION
    error = (velocity - (x0 - noise)) ** 2
    if mask is None:
        return error.flatten(1).mean(dim=1)
    per_frame = error.mean(dim=(1, 3, 4))
    return (per_frame * mask).sum(dim=1) / mask.sum(dim=1)
    ### END SOLUTION


# %%
# hint("08.flow_loss")
check("08.flow_loss", flow_loss)


# %%
class Field(nn.Module):
    """A velocity for every place and time of the plane, from three layers."""

    def __init__(self, width: int = 96):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        u = t[:, None] / 1000
        return self.layers(torch.cat([x, u, u**2, (math.pi * u).sin(), (math.pi * u).cos()], dim=1))


# %%
def learn_field(field: Field, pairs: Callable, steps: int, roll: int, batch: int = 256) -> list[dict]:
    """Train on pairs(batch, generator) -> (data, noise); the log, a row per step."""
    generator, log = dice(roll), []
    optimiser = torch.optim.Adam(field.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step in range(1, steps + 1):
        x0, noise = pairs(batch, generator)
        t = 1000 * torch.rand(batch, generator=generator)
        loss = flow_loss(field(flow_interpolate(x0, noise, t), t), x0, noise).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        log.append({"step": step, "loss": loss.item()})
    return log


# %%
def at_random(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Any data with any noise."""
    return burst(count, generator), cloud(count, generator)


with seeded_modules(seed):
    field = Field()
log = learn_field(field, at_random, 1500, roll=20)
times = 1000 * torch.rand(100_000, generator=dice(21))
x0, noise = at_random(100_000, dice(22))
floor = flow_loss(ideal(flow_interpolate(x0, noise, times), times), x0, noise).mean().item()

# %% tags=["nbval-ignore-output"] alt="the loss falls from 2 to near 1.35 within 500 steps, and stays just above its floor"
viz.loss_curve(log, floor=floor)

# %% [markdown]
# It sinks and then stays, far above 0. The dashed floor is the quarrel of the lines at their crossings, which nobody can settle; the small rest above it is what three layers cannot draw. (Remember it when the loss of the films
# refuses to fall.) The field that it learned, beside the true one:

# %% tags=["nbval-ignore-output"]
grid = torch.cartesian_prod(*[torch.linspace(-2, 2, 15)] * 2)
figure, axes = viz.figure(2, 3, width=9, height=6)
for row, (name, flow) in zip(axes, {"learned": field, "closed form": ideal}.items(), strict=True):
    for ax, t in zip(row, (900, 600, 200), strict=True):
        with torch.no_grad():
            v = flow(grid, torch.full((len(grid),), float(t)))
        ax.plot(*(SPARKS.T * (1 - t / 1000)), "o", color=viz.DATA, ms=7, alpha=0.5)
        ax.quiver(*grid.T, *v.T, color=viz.INK, angles="xy", scale=45, width=0.004)
        ax.set(title=f"{name}, t = {t}", aspect="equal", xticks=[], yticks=[])
show(figure, "arrows in the plane at three times: first all toward the middle, then outward to the sparks; learned and true look alike")

# %% [markdown]
# (Far outside at $t = 200$ the two differ. No line ever passes there at that time, so nobody has told the network what to do, and no walker will ever ask.)
#
# At $t = 900$ everything is called to the middle: out of pure noise nobody can say which spark, so the mean of all is the best answer. Later the field parts, and
# close to the end each spark draws in its neighbourhood.
#
# ### Walking
#
# Sampling is following the arrows: stand at noise, look, take a step, look again. With $n$ equal steps $t_i = 1000\,(1 - i/n)$ and $z \leftarrow z + v/n$: Euler's method, the oldest
# there is.
#
# ### Exercise 08.euler_sample (5 minutes)


# %%
# exercise: 08.euler_sample
def euler_sample(velocity_fn: Callable[[Tensor, Tensor], Tensor], noise: Tensor, num_steps: int) -> Tensor:
    """From noise (B, ...) at t = 1000 to data at 0. velocity_fn(z, t) takes t (B,). Stuck? hint("08.euler_sample")"""
    ### BEGIN SOLUTION
    z = noise
    for i in range(num_steps):
        t = torch.full((len(z),), 1000 * (1 - i / num_steps), dtype=z.dtype, device=z.device)
        z = z + velocity_fn(z, t) / num_steps
    return z
    ### END SOLUTION


# %%
# hint("08.euler_sample")
check("08.euler_sample", euler_sample)

# %% [markdown] tags=["predict"]
# **Predict first.** We walk with 1, 4 and 16 steps through the *perfect* field. The roads were built straight, so one step might do? Where do the points land after **one**
# step?
#
# And a second walker, beside it: DDIM of lesson 02 with the linear schedule and *its* perfect denoiser, on the same data, from the same noises.
#
# Write your guess here before you run the next cell: …


# %%
ddpm = GaussianDiffusion(make_betas("linear", 1000), threshold=None)


def ideal_noise(x: Tensor, t: Tensor) -> Tensor:
    """The perfect noise prediction of lesson 02 for the burst: x = √ᾱ x0 + √(1 − ᾱ) noise, t (B,) from 0 to 999."""
    a = torch.tensor([ddpm.alpha_bar(int(step)) for step in t[:1]]).sqrt()[:, None].expand(len(x), 1)
    s = (1 - a**2).sqrt()
    return (x - a * expected_data(x, a, s)) / s


def euler_path(start: Tensor, steps: int, flow: Callable = ideal) -> Tensor:
    """All stations of your walk: (steps + 1, B, 2)."""
    stations = []
    end = euler_sample(lambda z, t: stations.append(z) or flow(z, t), start, steps)
    return torch.stack([*stations, end])


def ddim_path(start: Tensor, steps: int) -> Tensor:
    """All stations of DDIM: (steps + 1, B, 2)."""
    stations = [start]
    sample(ddpm, ideal_noise, start, "ddim", steps, callback=lambda k, t, x, x0: stations.append(x))
    return torch.stack(stations)


# %% tags=["nbval-ignore-output"]
start = cloud(150, dice(23))
figure, axes = plane(3, 2)
walks = [(name, walk, steps) for name, walk in (("Euler", euler_path), ("DDIM", ddim_path)) for steps in (1, 4, 16)]
for ax, (name, walk, steps) in zip(axes, walks, strict=True):
    draw_paths(ax, walk(start, steps), f"{name}, {steps} step{'s' if steps > 1 else ''}")
show(figure, "one step: all points in the middle, for both; four: Euler's near the sparks, DDIM's still spread; sixteen: both on the sparks")


# %%
def off(points: Tensor) -> float:
    """How far points are from their nearest spark, in sizes of a spark; data themselves are at about 1.25."""
    return (points[:, None] - SPARKS).norm(dim=2).amin(dim=1).mean().item() / SPARK


walkers = cloud(1000, dice(24))
print(f"mean distance from the nearest spark, in sparks; the data: {off(burst(1000, dice(25))):.1f}")
print("steps   Euler   DDIM")
for steps in (1, 2, 4, 8, 16, 64):
    print(f"{steps:5}   {off(euler_path(walkers, steps)[-1]):5.1f}  {off(ddim_path(walkers, steps)[-1]):5.1f}")

# %% [markdown]
# <details><summary>What happened</summary>
#
# One step lands **in the middle**, for everybody, by either method. At $t = 1000$ the mean velocity is (mean of the data) − noise, so the step goes to the mean of the data,
# where there is no data at all. One step of a film sampler gives, in the same way, the mean of all films that come into question.
#
# But from two steps on Euler is ahead: with 4 steps it is where DDIM has not come with 8.
# </details>
#
# ### Straight and curved, honestly
#
# It is tempting to say: of course, straight roads are shorter. Let us look before we say it. Above, the roads that the two *train* on, the same pairs joined by DDPM's $\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\text{noise}$ and by lines.
# Below, the roads that a walker takes through the means, in 500 small steps, from the same noises.

# %%
bars = torch.tensor([1.0] + [ddpm.alpha_bar(step) for step in range(1000)]).flip(0)[:, None, None]
trained_on = {"DDPM trains on arcs": bars.sqrt() * some + (1 - bars).sqrt() * some_noises}
trained_on["the flow trains on lines"] = torch.stack([some_noises, some])
walked = {"walked by DDIM": ddim_path(start, 500), "walked by Euler": euler_path(start, 500)}


def roundabout(path: Tensor) -> float:
    """How many times as long as the straight way a path is (all paths together)."""
    return (path.diff(dim=0).norm(dim=2).sum() / (path[-1] - path[0]).norm(dim=1).sum()).item()


for name, path in (trained_on | walked).items():
    print(f"{name:25} {roundabout(path):.2f} times as long as the straight way")
nearest = [torch.cdist(path[-1], SPARKS).argmin(1) for path in walked.values()]
print(f"of {len(start)} noises, {(nearest[0] == nearest[1]).sum()} are led to the same spark by both")

# %% tags=["nbval-ignore-output"]
figure, axes = plane(2, 2)
for ax, (name, path) in zip(axes, (trained_on | walked).items(), strict=True):
    draw_paths(ax, path, name)
show(figure, "above: arcs, and straight lines; below: paths that DDIM walks, gently bent, and Euler's, which first go inward, then out")

# %% [markdown]
# The lines one trains on are straight. The roads one *walks* are not, on either side: lines cross, roads may not, and so the mean bends them. Euler's even make a detour, inward first (to the mean of all sparks), then out. DDIM's
# do not. But the **map is the same**: the same noise is led to the same spark by both.
#
# It must be. A point of DDPM's road, divided by $\sqrt{\bar\alpha_t} + \sqrt{1 - \bar\alpha_t}$, *is* a point on a straight line, with the share of noise $u = \sqrt{1-\bar\alpha_t} \,/\, (\sqrt{\bar\alpha_t} + \sqrt{1 - \bar\alpha_t})$. And a step of DDIM, seen
# that way, is a step of Euler: both guess $x_0$ and the noise, and mix them anew. Let us check that, with one step from the middle of the road.


# %%
def share(step: int) -> float:
    """The share of noise u of DDPM's step."""
    a = ddpm.alpha_bar(step) ** 0.5
    return (1 - a**2) ** 0.5 / (a + (1 - a**2) ** 0.5)


def scale(step: int) -> float:
    """√ᾱ + √(1 − ᾱ) of DDPM's step."""
    return ddpm.alpha_bar(step) ** 0.5 + (1 - ddpm.alpha_bar(step)) ** 0.5


now, then = 600, 350
on_line = cloud(150, dice(24)) * 0.7
euler = on_line + (share(now) - share(then)) * ideal(on_line, torch.full((150,), 1000 * share(now)))
ddim = ddim_sample(ddpm, ideal_noise, on_line * scale(now), [now], previous=[then]) / scale(then)
print("a step of DDIM = a step of Euler, in another coat:", torch.allclose(euler, ddim, atol=1e-3))

# %% [markdown]
# So where does the difference come from? There is only one thing left: the **timetable**. Where along the way, from all noise to none, do the two take their looks, 4 or 16?

# %% tags=["nbval-ignore-output"]
figure, ax = viz.figure(width=8, height=2.4)
stops = {f"DDIM, {n}": [share(step) for step in ddim_timesteps(1000, n)] for n in (16, 4)}
stops |= {f"Euler, {n}": [1 - k / n for k in range(n)] for n in (16, 4)}
for height, (name, places) in enumerate(stops.items()):
    ax.plot(places, [height] * len(places), "o", color=viz.DATA if "Euler" in name else viz.NOISE, ms=7, alpha=0.6)
ax.set(yticks=range(4), yticklabels=list(stops), ylim=(-0.6, 3.6), xlim=(1.02, -0.02), xlabel="share of noise u, from noise to data")
show(figure, "Euler's stops are evenly spread; most of DDIM's are crowded near pure noise, with long strides after")

# %% [markdown]
# Of its four looks, DDIM with the linear schedule spends two where nearly all is noise and little can be seen, and then goes from six parts in ten of noise to none in a single stride. (With the sixteen, too, it crowds at the wrong end.) That is the whole secret: the line brings a *clock* with it, on which equal steps are equal shares
# of noise. One formula, no schedule to tune, an end that is really noise. (And a network of one kind can be walked by the sampler of the other. Section 10 does so with films.)
#
# ### Straighter: why it is called *rectified*
#
# Can the walked road be made straight, too? The lines crossed because we paired noise and data at random. But now we have a walker, which brings each noise to *its own* data without a crossing. So pair each noise with
# where it arrives, and learn once more, from these pairs. Liu et al. call it reflow.

# %% tags=["nbval-ignore-output"]
lanterns = cloud(20_000, dice(26))
arrived = euler_sample(ideal, lanterns, 64)


def by_arrival(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each noise with the data that it was carried to."""
    which = torch.randint(len(lanterns), (count,), generator=generator)
    return arrived[which], lanterns[which]


with seeded_modules(seed):
    straightened = Field()
log_of_second = learn_field(straightened, by_arrival, 1500, roll=27)
with torch.no_grad():
    print(f"the walked road is now {roundabout(euler_path(start, 500, straightened)):.2f} times as long as the straight way")
    for steps in (1, 2, 4):
        once, twice = (off(euler_path(walkers, steps, flow)[-1]) for flow in (field, straightened))
        print(f"{steps} step{'s' if steps > 1 else ' '}: first network {once:4.1f} sparks off, after reflow {twice:4.1f}")

# %% tags=["nbval-ignore-output"]
figure, axes = plane(2)
for ax, (name, flow) in zip(axes, {"one step, first network": field, "one step, after reflow": straightened}.items(), strict=True):
    with torch.no_grad():
        draw_paths(ax, euler_path(start, 1, flow), name)
show(figure, "one step: a heap in the middle; after reflow: the ring of sparks, with some points between")

# %% [markdown]
# One look, one step, and nearly there. The few in between started on the border of two sparks, where a smooth network has to be undecided. The fast models that draw a picture in a step
# or two begin with this idea.
#
# ## 8 · Larger films need more noise
#
# Uniform $t$, then? Look at the willow at the same $t$, rendered in two sizes (the same firework):

# %% tags=["nbval-ignore-output"]
LATE = 700.0
small_film, large_film = (render([willow_scene], FRAMES, size, generator=dice(2)) for size in (32, 64))


def noised(films: Tensor, t: float, roll: int = 28) -> Tensor:
    """Films on their straight way to noise, at time t."""
    noise = torch.randn(films.shape, generator=dice(roll))
    return flow_interpolate(films, noise, torch.full((len(films),), t))


def halved(films: Tensor, times: tuple[int, int, int] = (1, 2, 2)) -> Tensor:
    """The mean of every few frames, rows and columns."""
    return F.avg_pool3d(films, times)


views = [noised(small_film, LATE), noised(large_film, LATE), halved(noised(large_film, LATE))]
shades = [(view * 1.2).clamp(-1, 1)[0] for view in views]
viz.player(
    [shades[0], shades[2]],
    [f"32 pixels, t = {LATE:.0f}", f"64 pixels, t = {LATE:.0f}, seen from afar"],
    columns=2,
    scale=6,
    fps=6,
    alt="in the small film the willow is all but lost in noise; in the large one, squares of 2 by 2 averaged, it can be seen",
)

# %% [markdown]
# From afar means: the mean of 2×2 pixels. The picture survives the mean, since neighbours are alike; the noise does not, since neighbours' noises are not: it shrinks to half its
# size. So the large film, at the same $t$, is *less* destroyed. Say it with odds. A film of $k$ times the side, seen from afar, has
#
# $$\frac{u/k}{1-u} \quad\text{parts of noise to one of film, instead of}\quad \frac{u}{1-u} .$$
#
# To make it as hard as the small one, the odds must be multiplied by $k$: $\frac{u'}{1-u'} = k\,\frac{u}{1-u}$. Solve for $u'$:
#
# $$u' = \frac{k\,u}{1 + (k - 1)\,u} .$$
#
# $k$ is the square root of how many times more pixels there are, and frames can be averaged just like pixels. So with Open-Sora's unit, one frame of 512×512:
#
# $$r = \frac{\sqrt{\text{height} \cdot \text{width}}}{512} \cdot \sqrt{\text{latent frames}}, \qquad t' = 1000\,\frac{r\,u}{1 + (r-1)\,u} .$$
#
# ### Exercise 08.shift_timestep (4 minutes)


# %%
# exercise: 08.shift_timestep
def shift_timestep(t: Tensor, height: float, width: float, latent_frames: float) -> Tensor:
    """Move times in [0, 1000] towards noise for films larger than one frame of 512×512, towards data for smaller ones.

    height and width in pixels. Stuck? hint("08.shift_timestep")
    """
    ### BEGIN SOLUTION
    r = math.sqrt(height * width) / 512 * math.sqrt(latent_frames)
    u = t / 1000
    return 1000 * r * u / (1 + (r - 1) * u)
    ### END SOLUTION


# %%
# hint("08.shift_timestep")
check("08.shift_timestep", shift_timestep)

# %% [markdown]
# Does the rule hold? Ask somebody who can tell what is left: the judge, which read colours and shapes from noisy films in lesson 01. It sees films of 32 pixels with 17 frames; films of
# 64 pixels, in means of 2×2; and films of 68 frames, in means of four.

# %%
some_scenes = sample_scenes(40, generator=dice(29))
KINDS = {"32 pixels, 17 frames": (17, 32, (1, 1, 1), 1.0), "64 pixels": (17, 64, (1, 2, 2), 2.0), "68 frames": (68, 32, (4, 1, 1), 2.0)}
LEVELS = torch.tensor([500.0, 600, 700, 760, 820, 860, 900, 930, 960, 980, 1000])


def legible(frames: int, size: int, means: tuple[int, int, int], r: float) -> list[float]:
    """How many of colour, shape and size the judge reads right, at every level of noise."""
    clips, shares = render(some_scenes, frames, size, generator=dice(30)), []
    for t in LEVELS.tolist():
        seen, u = halved(noised(clips, t, 31), means), t / 1000
        power = math.hypot(1 - u, u / r)  # the judge is used to x and noise on a circle
        found = attribute_accuracy(seen / power, some_scenes)
        shares.append((found["colour"] + found["shape"] + found["size"]) / 3)
    return shares


curves = {name: legible(*kind) for name, kind in KINDS.items()}

# %% tags=["nbval-ignore-output"]
figure, (left, right) = viz.figure(1, 2, width=10, height=3.3)
for (name, shares), colour in zip(curves.items(), (viz.NOISE, viz.SPACE, viz.TIME), strict=True):
    r = KINDS[name][3]
    left.plot(LEVELS, shares, "o-", ms=3, color=colour, label=name)
    u = LEVELS / 1000
    right.plot(1000 * (u / r) / (1 + (1 / r - 1) * u), shares, "o-", ms=3, color=colour)
for ax, title in ((left, "as it is"), (right, "each film by its own clock")):
    ax.axhline((1 / 8 + 1 / 6 + 1 / 2) / 3, color=viz.INK, ls=":", lw=1)
    ax.set(xlabel="t", ylim=(0, 1.05), title=title, xlim=(450, 1010))
left.set_ylabel("share read right (dotted: by chance)")
left.legend(frameon=False, loc="lower left")
show(figure, "left: the larger and the longer film stay legible longer; right: after undoing the shift the three curves nearly lie on each other")

# %% [markdown]
# On the left, large and long films stay legible longer, and both by the same amount: four times the pixels, four times the frames. Uniform $t$ would waste most of the training on
# films in which everything can be seen, and decide in a few late steps *what* is shown. On the right the same dots, each film on its own clock: shifted back by $r = 2$. Nearly one curve.
#
# Nearly: the rule takes neighbours for alike. A spark that is thinner than two pixels loses light in the mean, so the curve of the larger films ends up a little to the left: for them $r = 2$ is a little too much. And in a film with cuts, the
# frames of one scene would say nothing about those of another. It is a rule of thumb, and a good one.
#
# The unit is a convention, too. 512 belongs to Open-Sora's films; ours of 32 pixels would get $r = 0.14$, nothing but nearly clean films. We use *this* world's unit, 32 pixels, by counting
# each of our pixels as 16. Then a willow of 5 latent frames has

# %%
UNIT = 512 // SIZE
shifted = shift_timestep(torch.tensor([100.0, 500.0, 900.0]), UNIT * SIZE, UNIT * SIZE, 5)
print("ratio", round(shift_ratio(UNIT * SIZE, UNIT * SIZE, 5).item(), 2), "and t = 100, 500, 900 becomes", shifted.round().int().tolist())

# %% [markdown]
# ## 9 · Bug of the day: the clips that are too short to be noised
#
# First the films that we shall learn from: 512 rendered ones, through both encoders (about half a minute).

# %%
scenes = sample_scenes(512, generator=dice(32))
latents = encode(render(scenes, FRAMES, SIZE, generator=dice(33)))
print(tuple(latents.shape), f"mean {latents.mean():.2f}, size {latents.std():.2f}")

# %% [markdown]
# And the shift as a well-known training code has it. In our words:


# %%
def shift_as_published(t: Tensor, height: float, width: float, num_frames: int) -> Tensor:
    """Times shifted for a film of num_frames frames, of which 17 become 5 latent ones; a picture is 1."""
    latent_frames = 1 if num_frames == 1 else num_frames // 17 * 5
    r = math.sqrt(height * width) / 512 * math.sqrt(latent_frames)
    return 1000 * r * (t / 1000) / (1 + (r - 1) * (t / 1000))


print("17 frames:", torch.equal(shift_as_published(shifted, 512, 512, 17), shift_timestep(shifted, 512, 512, 5)))

# %% [markdown]
# For 17 frames, and 34, and 51, it gives what yours gives. It was used for large trainings. Then somebody fine-tunes the model on short clips, nine frames each. (For us, by causality,
# these are the first three latent frames.) Everything runs. The same small network, the same films, the same dice; once with your shift, once with theirs:


# %%
def learn(net: STDiT3, films: Tensor, said: Tensor, times: Callable, steps: int, roll: int, watch: Callable | None = None) -> list:
    """Rectified flow, from your functions. said (N, 5, 32): the words of each film; times moves uniform t. The log."""
    optimiser, chance, log = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.99), weight_decay=0), dice(roll), []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 25, (steps - step) / (0.4 * steps))
        chosen = torch.randint(len(films), (16,), generator=chance)
        x0, t = films[chosen], times(1000 * torch.rand(16, generator=chance))
        noise = torch.randn(x0.shape, generator=chance)
        x_t, quiet = flow_interpolate(x0, noise, t), net.draw_text_drop(16, chance)
        loss = flow_loss(net(x_t, t, said[chosen], drop_text=quiet, **SAID), x0, noise).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        log.append({"step": step + 1, "loss": loss.item()})
        if watch is not None:
            watch(step + 1)
    return log


# %%
def yours(t: Tensor) -> Tensor:
    return shift_timestep(t, 512, 512, 3)


def theirs(t: Tensor) -> Tensor:
    return shift_as_published(t, 512, 512, num_frames=9)


short, no_words = latents[:, :, :3], torch.zeros(len(latents), 5, 32)
short_runs, short_nets = {}, {}
for name, times in {"yours": yours, "as published": theirs}.items():
    short_nets[name] = a_transformer(width=64, depth=2, roll=34)
    short_runs[name] = learn(short_nets[name], short, no_words, times, steps=110, roll=35)

# %% [markdown] tags=["predict"]
# **Predict first.** One of the two learns nothing. Both losses begin near 1.7 (the network says 0; the noise has a variance of 1, the latents a little less). Where will the loss of the sick one
# go: up, nowhere, or down? Could you tell from its curve alone that it is sick?
#
# Write your guess here before you run the next cell: …

# %% tags=["nbval-ignore-output"]
figure, ax = viz.figure(width=6.5, height=3.2)
for (name, log), colour in zip(short_runs.items(), (viz.DATA, viz.NOISE), strict=True):
    ax.plot([row["loss"] for row in log], color=colour, label=name)
ax.axhline(1, color=viz.INK, ls=":", lw=1)
ax.set(xlabel="step", ylabel="loss", ylim=(0.4, 1.8))
ax.legend(frameon=False)
show(figure, "one loss falls and wobbles; the other falls to exactly 1 and is flat as a table from there")

# %% [markdown]
# Flat as a table, at 1. A healthy loss wobbles: some batches are harder than others. Find out what this network *sees*. Measure the times:

# %%
uniform = 1000 * torch.rand(10_000, generator=dice(36))
print("frames   smallest and largest t that the training sees")
for num_frames in (1, 2, 9, 16, 17, 33, 34):
    seen = shift_as_published(uniform, 512, 512, num_frames)
    print(f"{num_frames:6}   {seen.min():5.0f} {seen.max():5.0f}")

# %% [markdown]
# <details><summary>What went wrong</summary>
#
# `num_frames // 17 * 5`, in whole numbers: for 2 to 16 frames that is **0**. The ratio is 0, and every $t$ becomes 0. The network is shown perfectly clean films, and asked for $x_0 - \text{noise}$ of a
# noise that is nowhere in its input. It learns to say $x_0$; the rest is the variance of the noise, 1, whatever it does. No shape is wrong, nothing is NaN, and the loss even falls.
#
# Every user who fine-tuned on short clips met it, and asked why the films were noise. Ours takes the number of latent frames from the VAE itself, and refuses a length below 1:
# </details>

# %%
try:
    shift_ratio(512, 512, 9 // 17 * 5)
except UserError as error:
    print(error)

# %% [markdown]
# And the two networks at work, from the same noise. Neither has learned for long, but one has never seen noise:

# %% tags=["nbval-ignore-output"]
start_short = torch.randn(2, 4, 3, 8, 8, generator=dice(37))
drawn = []
for net in short_nets.values():
    with torch.no_grad():
        drawn += list(decode(euler_sample(lambda z, t: net(z, t, no_words[: len(z)], **SAID), start_short, 16), 9))  # noqa: B023
viz.player(drawn, [name for name in short_nets for _ in range(2)], columns=4, fps=4, alt="two dim glows, and two films of coloured noise")

# %% [markdown]
# ## 10 · Fireworks, by tokens
#
# Now all of it. The films are there; what is missing is a language. Until lesson 09 brings a real one, five words must do, one for each attribute: *gold, willow, left, high, large*. Every word of
# our little vocabulary is a fixed vector of 32 random numbers. That is enough to tell words apart, and the network looks them up by cross-attention:

# %%
VOCABULARY = [word for words in ATTRIBUTES.values() for word in words]
VECTORS = torch.randn(len(VOCABULARY), 32, generator=dice(38))


def say(scenes: list[Scene]) -> Tensor:
    """Scenes of one shell -> five word vectors each: (N, 5, 32)."""
    spoken = [[getattr(scene.shells[0], name) for name in ATTRIBUTES] for scene in scenes]
    return VECTORS[torch.tensor([[VOCABULARY.index(word) for word in words] for words in spoken])]


print(len(VOCABULARY), "words:", ", ".join(VOCABULARY))
print("the willow:", ", ".join(getattr(willow_scene.shells[0], name) for name in ATTRIBUTES))

# %% [markdown]
# The training is your functions one after the other: `shift_timestep`, `flow_interpolate`, the network, `flow_loss`. A tenth of the films is shown without words, for guidance (lesson 07). And sampling is your
# walk, on shifted times. (The published sampler forgets a factor of the shift that its training uses. Walk where you have trained.) The package's walker takes the ratio as an argument; without one, it is yours:

# %%
flow = RectifiedFlow()
RATIO = shift_ratio(UNIT * SIZE, UNIT * SIZE, 5).item()
walk = {"package": flow.sample(lambda x, t, mask: ideal(x, t), start, 16), "yours": euler_sample(ideal, start, 16)}
print("the package's walk = yours:", torch.allclose(walk["package"], walk["yours"], atol=1e-5))


# %%
def velocity_of(net: STDiT3, said: Tensor, guidance: float = 2.0, size: int = SIZE) -> Callable:
    """The network's velocity for these words (B, 5, 32), pushed by guidance: a function of z, t and a frame mask."""
    pixels = torch.tensor([float(size)])
    facts = {"fps": SAID["fps"], "height": pixels, "width": pixels}
    nothing = net.null_text(1)[:, 0].expand(len(said), -1, -1)

    @torch.no_grad()
    def velocity(z: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        cond = net(z, t, said, **facts)
        return cond if guidance == 1 else classifier_free(cond, net(z, t, nothing, **facts), guidance)

    return velocity


def dream(net: STDiT3, scenes: list[Scene], steps: int = 16, guidance: float = 2.0, roll: int = 39) -> Tensor:
    """Latents of films for these scenes, each from its own noise."""
    noise = torch.randn((len(scenes), *z.shape[1:]), generator=dice(roll))
    return flow.sample(velocity_of(net, say(scenes), guidance), noise, steps, ratio=RATIO)


# %%
ASKED = [willow_scene] + [
    Scene((Shell(*words.split()),))
    for words in ("red peony centre low large", "green ring right high large", "blue ring left low small")
]
milestones: dict[int, Tensor] = {}


def at_milestones(step: int) -> None:
    """Keep what the network dreams after 40, 80, 160 and 320 steps."""
    if step in (40, 80, 160, 320):
        milestones[step] = dream(transformer, ASKED)


transformer = a_transformer(roll=40)
print(f"{sum(weight.numel() for weight in transformer.parameters()) / 1e6:.2f} million weights")

# %% [markdown]
# **About a minute and a half** of training: 320 steps of 16 films.

# %% tags=["nbval-ignore-output"] alt="a loss that falls steadily from 1.3 to 0.4 in 320 steps"
began = time.perf_counter()
log = learn(transformer, latents, say(scenes), lambda t: shift_timestep(t, UNIT * SIZE, UNIT * SIZE, 5), 320, 41, at_milestones)
transformer.eval().requires_grad_(False)
print(f"{len(log)} steps, {time.perf_counter() - began:.0f} seconds")
viz.loss_curve(log)

# %% tags=["nbval-ignore-output"]
wall = [film for step in milestones for film in decode(milestones[step])]
labels = [f"step {step}: {canonical(scene)}" for step in milestones for scene in ASKED]
viz.player(wall, labels, columns=len(ASKED), fps=6, scale=5)

# %% [markdown]
# Rows: after 40, 80, 160 and 320 steps, always from the same noises. The place comes first, then the colour, then a burst that opens and fades; whether it is a ring or a willow comes last, and here not always. Three hundred steps
# are very little. Compare with lesson 07, though: there it took as long to get blots of any colour.
#
# How good are they, really? The judge looks at 24 films of combinations half of which no training film showed (a red ring, a gold peony …), walked in 1, 4 and 16 steps:

# %%
asked = sample_scenes(24, split="test", generator=dice(42))
verdicts = {steps: prompt_accuracy(decode(dream(transformer, asked, steps)), asked) for steps in (1, 4, 16)}

# %% tags=["nbval-ignore-output"]
names = ("place", "colour", "size", "shape", "joint")
print(f"{'':10}" + "".join(f"{name:>9}" for name in names))
for steps, found in verdicts.items():
    print(f"{steps:2} step{'s' if steps > 1 else ' '}  " + "".join(f"{found[name]:9.0%}" for name in names))
print("by chance " + "".join(f"{verdicts[16]['chance'][name]:9.1%}" for name in names))

# %% [markdown]
# Far above chance in what is coarse, less so in what is fine; "joint" means everything right at once. With 24 films each number may be off by ten points either way. This is what a minute and a half gives; the shipped model of lesson 09 is
# the same class, trained for longer, with real language.
#
# ### Two roads for one network
#
# Section 7 promised: a network of one kind can walk the road of the other. A point of DDPM's road, divided by $\sqrt{\bar\alpha} + \sqrt{1-\bar\alpha}$, is a point of ours; and from $v$ follows the
# noise, $\text{noise} = x_t - (1-u)\,v$. So here is DDIM, with *your* network.


# %%
def as_noise_predictor(velocity: Callable, diffusion: GaussianDiffusion) -> Callable:
    """What DDPM's samplers want, a predictor of noise, from a velocity."""

    def predict(x: Tensor, step: Tensor) -> Tensor:
        a = diffusion.alpha_bar(int(step[0])) ** 0.5
        s = (1 - a**2) ** 0.5
        u, on_line = s / (a + s), x / (a + s)
        v = velocity(on_line, torch.full((len(x),), 1000 * u))
        return on_line - (1 - u) * v

    return predict


# %% [markdown] tags=["predict"]
# **Predict first.** The willow, from one noise: Euler in 1, 4 and 16 steps on the straight road, DDIM in 1, 4 and 16 on the curved one. Which will look alike, and what will the films of one step look like?
#
# Write your guess here before you run the next cell: …

# %% tags=["nbval-ignore-output"]
one_noise = torch.randn(z.shape, generator=dice(39))
velocity = velocity_of(transformer, say([willow_scene]))
roads, COUNTS = {}, (1, 4, 16)
for steps in COUNTS:
    roads[f"Euler, {steps}"] = flow.sample(velocity, one_noise, steps, ratio=RATIO)
for steps in COUNTS:
    roads[f"DDIM, {steps}"] = sample(ddpm, as_noise_predictor(velocity, ddpm), one_noise, "ddim", steps)
viz.player([decode(each)[0] for each in roads.values()], list(roads), columns=3, scale=5, fps=6)

# %% tags=["nbval-ignore-output"]
far = flow.sample(velocity, one_noise, 100, ratio=RATIO)
for name, each in roads.items():
    print(f"{name:10} {(each - far).square().mean().sqrt():.2f} from where 100 small steps arrive")

# %% [markdown]
# <details><summary>What the films say</summary>
#
# One step is the same for both: a soft ball of gold, the mean of all willows that the words and this noise allow. (No fog, this time: five words leave much less to the mean than no words at all.) With four steps Euler has arms where DDIM still has its ball;
# with sixteen both are near the place where many small steps arrive. One network, one noise, one film: the timetable only decides how many looks it costs.
# </details>
#
# ### What it looks at
#
# The maps of section 4 were made of random weights. These have learned. For one token in the middle of the willow's burst, at $t = 500$: whom does it ask within its frame, and which frames does it ask along time?

# %%
caught: dict[str, Tensor] = {}


def listen(name: str) -> Callable:
    """A hook for a SelfAttention layer that keeps whom its tokens look at."""

    def keep(layer: SelfAttention, inputs: tuple, output: Tensor) -> None:
        caught[name] = look(layer, inputs[0], inputs[1] if len(inputs) > 1 else None)[1]

    return keep


hooks = []
for depth in range(3):
    for kind, blocks in (("space", transformer.spatial_blocks), ("time", transformer.temporal_blocks)):
        hooks.append(blocks[depth].attn.register_forward_hook(listen(f"{kind} {depth}")))
half_noised = flow_interpolate(z, torch.randn(z.shape, generator=dice(43)), torch.tensor([500.0]))
transformer(half_noised, torch.tensor([500.0]), say([willow_scene]), **SAID)
for hook in hooks:
    hook.remove()

# %% tags=["nbval-ignore-output"]
MOMENT, PLACE = 2, 1 * 4 + 1  # the third latent frame; second row, second column of tokens
figure, axes = viz.figure(2, 6, width=10, height=3.9)
for depth in range(3):
    space, past = caught[f"space {depth}"][MOMENT, :, PLACE], caught[f"time {depth}"][PLACE]
    for head in range(2):
        top, bottom = axes[:, 2 * depth + head]
        top.imshow(rearrange(space[head], "(h w) -> h w", h=4), cmap="Blues", vmin=0)
        top.plot(1, 1, "+", color=viz.INK, ms=12)
        bottom.imshow(past[head], cmap="Oranges", vmin=0)
        top.set(title=f"block {depth}, head {head}", xticks=[], yticks=[])
        bottom.set(xticks=range(5), yticks=range(5))
axes[0, 0].set_ylabel("space")
axes[1, 0].set_ylabel("time: who asks (rows)")
show(figure, "above, where a token of the burst looks within its frame; below, which frames ask which")

# %% [markdown]
# Every head asks its own question: some look at the neighbours of the burst, some at everything *but* the burst, some along time to the moment before or after. Nobody told them to; the maps of section 4 were random.
#
# ### A larger film, the same weights
#
# Nothing in the network knows how large a film is. Its places are measured, its tokens are as many as there are. So ask the network, which has only ever seen 32 pixels, for **48**: 144 latent pixels in a frame instead of 64, 180 tokens instead of 80.
# Once we tell it the size, and once we say 32, so that it counts on where it should measure:

# %% tags=["nbval-ignore-output"]
big_noise = torch.randn(1, 4, 5, 12, 12, generator=dice(44))
grown = shift_ratio(UNIT * 48, UNIT * 48, 5).item()
big = [flow.sample(velocity_of(transformer, say([willow_scene]), size=size), big_noise, 16, ratio=grown) for size in (48, 32)]
viz.player([decode(each)[0] for each in big], ["48 pixels, told 48", "48 pixels, told 32"], scale=5, fps=6)

# %%
big_scenes = sample_scenes(16, generator=dice(45))
big_films = {48: encode(render(big_scenes, FRAMES, 48, generator=dice(46))), 32: encode(render(big_scenes, FRAMES, 32, generator=dice(46)))}


def suffers(net: STDiT3, size: int, told: int) -> float:
    """The flow loss on films of `size` pixels when the network is told `told`."""
    films = big_films[size]
    t = shift_timestep(torch.linspace(30, 970, len(films)), UNIT * size, UNIT * size, 5)
    noise = torch.randn(films.shape, generator=dice(47))
    v = velocity_of(net, say(big_scenes), 1.0, told)(flow_interpolate(films, noise, t), t)
    return flow_loss(v, films, noise).mean().item()


# %% tags=["nbval-ignore-output"]
print(f"32 pixels, told 32: loss {suffers(transformer, 32, 32):.2f}")
print(f"48 pixels, told 48: loss {suffers(transformer, 48, 48):.2f}")
print(f"48 pixels, told 32: loss {suffers(transformer, 48, 32):.2f}")
print(f"48 pixels, a fresh network: loss {suffers(a_transformer(roll=48), 48, 48):.2f}")

# %% [markdown]
# By eye neither film is good: the sky is grey, the burst is in lumps; nobody has taught it this size yet. The loss says what it is worth as a *start*: far below a fresh network, and nearer to what it has learned if it is told the truth. This is how the large models are trained: most steps on small films, where steps are cheap, then on with the same weights to larger ones.
#
# ## The published network
#
# The same class at its full size, built without memory for the weights, only to be counted:

# %%
with torch.device("meta"):
    xl = STDiT3()
parts = {"spatial blocks": xl.spatial_blocks, "temporal blocks": xl.temporal_blocks, "everything": xl}
for name, part in parts.items():
    print(f"{name:16} {sum(weight.numel() for weight in part.parameters()) / 1e6:7.1f} million weights")
print(f"{xl.config.depth} pairs of blocks, width {xl.config.hidden_size}, {xl.config.num_heads} heads, texts of {xl.config.model_max_length} tokens")

# %% [markdown]
# Half of it is time. `STDiT3.from_pretrained` loads a folder of published weights, and `minivdm parity` shows that ours gives the numbers of the original.
#
# ## In your own words
#
# 1. Must it be a U? What does a U know without being told, that a row of tokens has to be told? And what does the row do that the U cannot?
# 2. "Attention in space" and "attention in time" are one layer. Where exactly is the difference, and what would "attention along columns" take?
# 3. The lines from noise to data are straight, and yet one step is not enough. Why?
# 4. A colleague's loss falls to 1.00 and stays. Which three numbers do you print first?
#
# *My answers: …*
#
# **What comes next.** The network obeys five words that mean nothing to it, in an order that never changes. "A large gold willow high on the left, then a small blue ring low on the right" is not five words, and who is
# blue, and who comes second? Lesson 09 gives it language. **Say it.**
#
# **Where it lives.** `minivdm/denoisers/stdit3.py` (the network), `dit_blocks.py` (the block that turns), `dit_embeddings.py` (bricks, places, $t$), `minivdm/diffusion/rectified_flow.py` (lines, shift, loss, walk, masks), `diffusion/guidance.py`.
#
# **Further reading.** Peebles & Xie 2023, *Scalable Diffusion Models with Transformers* (tokens, adaLN); Zheng et al. 2024, *Open-Sora* (the network of this lesson, version 1.2); Liu, Gong & Liu 2022, *Flow Straight and Fast* (rectified flow, reflow); Lipman et al. 2022,
# *Flow Matching for Generative Modeling*; Esser et al. 2024, *Scaling Rectified Flow Transformers for High-Resolution Image Synthesis* (shifted times, section 5.3.2); Dehghani et al. 2023, *Scaling Vision Transformers to 22 Billion Parameters* (norms on queries and keys).
