"""Unet3D, the denoiser of "Video Diffusion Models" (Ho et al. 2022, section 3): an image U-Net that looks along time.

Convolutions and spatial attention see one frame at a time; temporal attention is the only place where frames meet.
So the frames travel in the batch, `(B·T, C, H, W)`, through the whole network, and only temporal attention knows T.

Follows lucidrains' video-diffusion-pytorch 0.7.0 number by number; `minivdm.convert` maps its weights.
"""

from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minivdm.denoisers.attention import LinearAttention, SpatialAttention, TemporalAttention
from minivdm.denoisers.blocks import ResnetBlock, downsample, upsample
from minivdm.denoisers.embeddings import RelativePositionBias, RotaryEmbedding, SinusoidalEmbedding
from minivdm.errors import UserError
from minivdm.weights import SafeHubMixin


@dataclass(frozen=True)
class TimeAxis:
    """What every temporal attention of one forward pass shares, computed once."""

    rotation: Tensor  # (T, attn_dim_head // 2) complex
    bias: Tensor  # (heads, T, T)
    focused: Tensor | None = None  # (B,) bool: frames of these clips see only themselves


class Level(nn.Module):
    """One resolution of the U-Net: two ResNet blocks, attention within each frame, attention along time."""

    def __init__(self, dim: int, dim_out: int, embedding_dim: int, temporal: partial, linear: partial | None):
        super().__init__()
        self.block1 = ResnetBlock(dim, dim_out, embedding_dim)
        self.block2 = ResnetBlock(dim_out, dim_out, embedding_dim)
        self.linear_attention = linear(dim_out) if linear else nn.Identity()
        self.temporal_attention = temporal(dim_out)

    def forward(self, x: Tensor, embedding: Tensor, time_axis: TimeAxis) -> Tensor:
        x = self.block1(x, embedding)
        x = self.block2(x, embedding)
        x = self.linear_attention(x)
        return self.temporal_attention(x, time_axis.rotation, time_axis.bias, time_axis.focused)


class Middle(nn.Module):
    """The lowest resolution: few enough pixels for full attention within each frame."""

    def __init__(self, dim: int, embedding_dim: int, temporal: partial, spatial: partial):
        super().__init__()
        self.block1 = ResnetBlock(dim, dim, embedding_dim)
        self.spatial_attention = spatial(dim)
        self.temporal_attention = temporal(dim)
        self.block2 = ResnetBlock(dim, dim, embedding_dim)

    def forward(self, x: Tensor, embedding: Tensor, time_axis: TimeAxis) -> Tensor:
        x = self.block1(x, embedding)
        x = self.spatial_attention(x)
        x = self.temporal_attention(x, time_axis.rotation, time_axis.bias, time_axis.focused)
        return self.block2(x, embedding)


class Unet3D(nn.Module, SafeHubMixin):
    """Predicts the noise (or x0, or v) in a clip from the noisy clip, its diffusion step and an optional condition.

    Args:
        dim: width of the first level; the others are `dim · dim_mults[i]`.
        cond_dim: width of the conditioning vector; None builds an unconditional model.
        out_dim: channels of the prediction, by default `channels`.
        dim_mults: one entry per level; height and width must be divisible by `2 ** (len(dim_mults) - 1)`.
        channels: channels of the clip.
        attn_heads: heads of every attention.
        attn_dim_head: features per head of the temporal attentions (even).
        init_dim: width after the first convolution, by default `dim`.
        init_kernel_size: its spatial size (odd).
        use_sparse_linear_attn: linear attention within each frame at every level.
        gradient_checkpointing: keep only the input of each level in training and compute its inside again in the
            backward pass: about a third more time for much less memory.
        spatial_dim_head: features per head of the attentions within a frame. The reference always uses 32 here,
            whatever `attn_dim_head` is.
        mask_initial_attention: whether focused clips are kept apart in the first temporal attention too. The reference
            does not (False), so that its frames mix once even when they are told not to.

    `save_pretrained(folder)` and `Unet3D.from_pretrained(folder)` write and read safetensors and `config.json`.
    """

    def __init__(
        self,
        dim: int,
        cond_dim: int | None = None,
        out_dim: int | None = None,
        dim_mults: tuple[int, ...] = (1, 2, 4, 8),
        channels: int = 3,
        attn_heads: int = 8,
        attn_dim_head: int = 32,
        init_dim: int | None = None,
        init_kernel_size: int = 7,
        use_sparse_linear_attn: bool = True,
        gradient_checkpointing: bool = False,
        spatial_dim_head: int = 32,
        mask_initial_attention: bool = True,
    ):
        super().__init__()
        if init_kernel_size % 2 == 0:
            raise UserError(f"init_kernel_size {init_kernel_size} is even: only an odd one keeps the frame size")
        self.channels = channels
        self.cond_dim = cond_dim
        self.gradient_checkpointing = gradient_checkpointing
        self.mask_initial_attention = mask_initial_attention
        init_dim = init_dim or dim
        widths = [init_dim, *(dim * mult for mult in dim_mults)]
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.size_multiple = 2 ** (len(steps) - 1)

        temporal = partial(TemporalAttention, heads=attn_heads, dim_head=attn_dim_head)
        spatial = partial(SpatialAttention, heads=attn_heads, dim_head=spatial_dim_head)
        linear = None
        if use_sparse_linear_attn:
            linear = partial(LinearAttention, heads=attn_heads, dim_head=spatial_dim_head)

        self.rotary = RotaryEmbedding(attn_dim_head, min(32, attn_dim_head))
        self.position_bias = RelativePositionBias(attn_heads)
        self.time_embedding = nn.Sequential(
            SinusoidalEmbedding(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, 4 * dim)
        )
        self.null_cond = nn.Parameter(torch.randn(cond_dim)) if cond_dim else None
        embedding_dim = 4 * dim + (cond_dim or 0)

        self.init_conv = nn.Conv2d(channels, init_dim, init_kernel_size, padding=init_kernel_size // 2)
        self.init_temporal_attention = temporal(init_dim)
        self.down_levels = nn.ModuleList(Level(a, b, embedding_dim, temporal, linear) for a, b in steps)
        self.downsamples = nn.ModuleList(downsample(b) for _, b in steps[:-1])
        self.middle = Middle(widths[-1], embedding_dim, temporal, spatial)
        # each up level also reads the skip connection of its size, hence twice the width
        self.up_levels = nn.ModuleList(Level(2 * b, a, embedding_dim, temporal, linear) for a, b in reversed(steps))
        self.upsamples = nn.ModuleList(upsample(a) for a, _ in reversed(steps[1:]))
        self.final_block = ResnetBlock(2 * init_dim, dim)
        self.final_conv = nn.Conv2d(dim, out_dim or channels, 1)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        cond: Tensor | None = None,
        *,
        cond_mask: Tensor | None = None,
        null_cond: Tensor | None = None,
        focus_present_mask: Tensor | None = None,
        null_cond_prob: float = 0.0,
        prob_focus_present: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Denoise.

        Args:
            x: noisy clip (B, channels, T, H, W).
            time: diffusion step of each clip (B,), 0-based.
            cond: (B, cond_dim), or (B, L, cond_dim) whose mean over L is used.
            cond_mask: (B, L) bool, true where a row of `cond` counts.
            null_cond: (B,) bool, true where the learned "no condition" replaces `cond`; if not given, each clip is
                drawn with probability `null_cond_prob`.
            focus_present_mask: (B,) bool, true where a frame may attend only to itself in time, so that a clip is
                a pile of images; if not given, each clip is drawn with probability `prob_focus_present`.
            generator: source of those draws; probabilities 0 and 1 draw nothing.

        Returns:
            the prediction (B, out_dim, T, H, W), in the dtype of x.
        """
        self._check(x, time, cond)
        batch, _, frames, _, _ = x.shape
        if focus_present_mask is None and prob_focus_present > 0:
            focus_present_mask = _draw(batch, prob_focus_present, generator, x.device)
        if null_cond is None:
            null_cond = _draw(batch, null_cond_prob, generator, x.device)
        embedding = self._embed(time, cond, cond_mask, null_cond)
        rotation = self.rotary(frames, x.device)
        bias = self.position_bias(frames)
        time_axis = TimeAxis(rotation, bias, focus_present_mask)

        h = rearrange(x, "b c t h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)
        h = self.init_conv(h)  #                                                 (B·T, init_dim, H, W)
        focused = focus_present_mask if self.mask_initial_attention else None
        initial = self.init_temporal_attention(h, rotation, bias, focused)
        h, skips = initial, []
        for i, level in enumerate(self.down_levels):
            h = self._run(level, h, embedding, time_axis)  #                     (B·T, dim·mult, H/2^i, W/2^i)
            skips.append(h)
            if i < len(self.downsamples):
                h = self.downsamples[i](h)
        h = self._run(self.middle, h, embedding, time_axis)
        for i, level in enumerate(self.up_levels):
            h = torch.cat([h, skips.pop()], dim=1)  #                            (B·T, 2·dim·mult, H/2^i, W/2^i)
            h = self._run(level, h, embedding, time_axis)
            if i < len(self.upsamples):
                h = self.upsamples[i](h)
        h = self.final_block(torch.cat([h, initial], dim=1))  #                  (B·T, dim, H, W)
        h = self.final_conv(h)  #                                                (B·T, out_dim, H, W)
        return rearrange(h, "(b t) c h w -> b c t h w", t=frames).to(x.dtype).contiguous()

    def forward_with_cond_scale(
        self, x: Tensor, time: Tensor, cond: Tensor | None = None, cond_scale: float = 2.0, **options
    ) -> Tensor:
        """Classifier-free guidance (Ho and Salimans 2022): `null + cond_scale · (conditional - null)`.

        Both predictions come from one doubled batch. Scale 1, or a model without condition, needs the conditional
        pass only. `options` are those of `forward` except the null condition, which is set here.
        """
        self._check(x, time, cond)
        if cond_scale == 1 or self.cond_dim is None:
            return self(x, time, cond, **options)
        batch = len(x)
        prob_focus_present = options.pop("prob_focus_present", 0.0)
        if options.get("focus_present_mask") is None and prob_focus_present > 0:
            options["focus_present_mask"] = _draw(batch, prob_focus_present, options.get("generator"), x.device)
        for name in ("cond_mask", "focus_present_mask"):
            if options.get(name) is not None:
                options[name] = torch.cat([options[name]] * 2)
        null = torch.arange(2 * batch, device=x.device) >= batch
        both = self(torch.cat([x, x]), torch.cat([time, time]), torch.cat([cond, cond]), null_cond=null, **options)
        conditional, unconditional = both.chunk(2)
        return unconditional + cond_scale * (conditional - unconditional)

    def _embed(self, time: Tensor, cond: Tensor | None, cond_mask: Tensor | None, null_cond: Tensor) -> Tensor:
        """Time embedding, followed by the condition where the model has one: (B, embedding_dim)."""
        waves, *layers = self.time_embedding
        embedding = nn.Sequential(*layers)(waves(time).to(layers[0].weight.dtype))
        if self.cond_dim is None:
            return embedding
        null = repeat(self.null_cond, "d -> b d", b=len(time))
        if cond.ndim == 3:
            cond = _masked_mean(cond, cond_mask)
        cond = torch.where(rearrange(null_cond, "b -> b 1"), null, cond.to(null.dtype))
        return torch.cat([embedding, cond.to(embedding.dtype)], dim=-1)

    def _run(self, part: nn.Module, x: Tensor, embedding: Tensor, time_axis: TimeAxis) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            # nothing inside is random, so there is no generator state to bring back
            return checkpoint(part, x, embedding, time_axis, use_reentrant=False, preserve_rng_state=False)
        return part(x, embedding, time_axis)

    def _check(self, x: Tensor, time: Tensor, cond: Tensor | None) -> None:
        if x.ndim != 5 or x.shape[1] != self.channels:
            raise UserError(f"clip of shape {tuple(x.shape)}: expected (B, {self.channels}, T, H, W)")
        if time.shape != (len(x),):
            raise UserError(f"time of shape {tuple(time.shape)}: expected one step per clip, ({len(x)},)")
        height, width = x.shape[-2:]
        m = self.size_multiple
        if height % m or width % m:
            fits = f"{-(-height // m) * m}×{-(-width // m) * m}"
            raise UserError(
                f"frames of {height}×{width} (height×width) cannot be halved {m.bit_length() - 1} times: both must be "
                f"multiples of {m}; resize to {fits} or use fewer dim_mults"
            )
        if self.cond_dim is None:
            if cond is not None:
                raise UserError("cond was given to a model that takes none: build Unet3D with cond_dim, or drop cond")
        elif cond is None:
            raise UserError(f"this model needs a condition of {self.cond_dim} numbers per clip: pass cond")
        elif cond.ndim not in (2, 3) or cond.shape[0] != len(x) or cond.shape[-1] != self.cond_dim:
            expected = f"({len(x)}, {self.cond_dim}) or ({len(x)}, L, {self.cond_dim})"
            raise UserError(f"cond has shape {tuple(cond.shape)}: expected {expected}")


def _draw(batch: int, probability: float, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """(batch,) bool, each true with the given probability; 0 and 1 are exact and leave the generator untouched."""
    if probability <= 0 or probability >= 1:
        return torch.full((batch,), probability >= 1, device=device)
    source = generator.device if generator is not None else device
    return (torch.rand(batch, generator=generator, device=source) < probability).to(device)


def _masked_mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (B, L, D) over the L that mask (B, L) keeps -> (B, D); zeros where it keeps none."""
    if mask is None:
        return tokens.mean(dim=1)
    if mask.shape != tokens.shape[:2]:
        raise UserError(
            f"cond_mask has shape {tuple(mask.shape)}: expected {tuple(tokens.shape[:2])}, one per row of cond"
        )
    weight = rearrange(mask, "b l -> b l 1").to(tokens.dtype)
    return (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
