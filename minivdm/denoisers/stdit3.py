"""STDiT3, Open-Sora 1.2's denoiser: a transformer that looks within frames and along time in turns, and at the text.

Attention over all tokens of a clip at once would cost (T·S)²; blocks in turns cost T·S·(T + S). The output layers of
the temporal blocks start at zero, so that a new video model is exactly the image model that its spatial blocks are.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minivdm.denoisers.dit_blocks import FinalLayer, STDiT3Block, per_frame, repeat_mask
from minivdm.denoisers.dit_embeddings import (
    CaptionEmbedder,
    FrameRotation,
    PatchEmbed3D,
    SizeEmbedder,
    TimestepEmbedder,
    position_embedding_2d,
)
from minivdm.errors import UserError
from minivdm.weights import SafeHubMixin

# Entries of upstream's configurations that change how it runs or trains, and nothing of what it computes.
_UPSTREAM_ONLY = (
    "type from_pretrained force_huggingface architectures auto_map model_type torch_dtype transformers_version "
    "input_size drop_path enable_flash_attn enable_layernorm_kernel enable_sequence_parallelism "
    "only_train_temporal freeze_y_embedder"
).split()


@dataclass(frozen=True)
class STDiT3Config:
    """Sizes of an `STDiT3`. The defaults are STDiT3-XL/2: 1.2 billion parameters.

    in_channels: channels of the latent.
    patch_size: frames, rows and columns of the latent in one token.
    hidden_size, num_heads: width of the tokens, and how many heads it is divided into.
    depth: pairs of a spatial and a temporal block.
    mlp_ratio: how much wider the MLPs are inside.
    caption_channels, model_max_length: width and number of the text tokens.
    qk_norm: normalise queries and keys.
    pred_sigma: predict twice as many channels; the second half is left unused by rectified flow.
    input_sq_size: side in pixels of the square that positions are measured by.
    class_dropout_prob: share of the texts that `draw_text_drop` takes away in training.
    double_modulate, first_size_only: two peculiarities of upstream, needed only to equal it number by number. The final
        layer modulates clean frames twice; the first clip's height and width serve the positions of the whole batch.
    """

    in_channels: int = 4
    patch_size: Sequence[int] = (1, 2, 2)
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    caption_channels: int = 4096
    model_max_length: int = 300
    qk_norm: bool = True
    pred_sigma: bool = True
    input_sq_size: int = 512
    class_dropout_prob: float = 0.1
    double_modulate: bool = False
    first_size_only: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        names = "in_channels hidden_size depth num_heads caption_channels model_max_length input_sq_size".split()
        sides = [("every patch_size", side) for side in self.patch_size]
        for name, value in [*((name, getattr(self, name)) for name in names), *sides]:
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} is {value!r}: expected a whole number from 1 on")
        if len(self.patch_size) != 3:
            raise UserError(f"patch_size is {self.patch_size}: expected (frames, rows, columns)")
        if self.hidden_size % (2 * self.num_heads) or self.hidden_size % 4:
            raise UserError(
                f"hidden_size {self.hidden_size} with num_heads {self.num_heads}: expected a multiple of 4 "
                "that divides into heads of even width"
            )
        if not 0 <= self.class_dropout_prob <= 1:
            raise UserError(f"class_dropout_prob is {self.class_dropout_prob}: expected a share from 0 to 1")

    @property
    def out_channels(self) -> int:
        """Channels of the prediction."""
        return self.in_channels * (2 if self.pred_sigma else 1)

    @classmethod
    def from_dict(cls, values: dict) -> "STDiT3Config":
        """From our fields, or from a configuration of Open-Sora 1.2: `type` picks a size, other entries replace fields.

        What only says how upstream runs or trains is left out. Unknown entries and sizes raise UserError.
        """
        size = values.get("type")
        if size not in (None, "STDiT3", *STDIT3_SIZES):
            raise UserError(f"type is {size!r}: known are STDiT3, {', '.join(STDIT3_SIZES)}")
        known = [field.name for field in fields(cls)]
        given = {key: value for key, value in values.items() if key not in _UPSTREAM_ONLY}
        if given.get("skip_y_embedder") is False:
            given.pop("skip_y_embedder")
        if unknown := sorted(set(given) - set(known)):
            raise UserError(f"STDiT3Config has no {', '.join(unknown)}: known are {', '.join(known)}")
        return cls(**(asdict(STDIT3_SIZES[size]) if size in STDIT3_SIZES else {}) | given)


# Upstream's sizes, by its names.
STDIT3_SIZES = {
    "STDiT3-XL/2": STDiT3Config(),
    "STDiT3-3B/2": STDiT3Config(hidden_size=1872, num_heads=26),
}


class STDiT3(nn.Module, SafeHubMixin):
    """Predicts `x0 - noise` in a noisy latent clip from its timestep, its text, its frame rate and its size.

        model = STDiT3(hidden_size=96, depth=3, num_heads=4, caption_channels=64, model_max_length=32)
        v = model(z, t, text, text_mask, fps=fps, height=height, width=width)[:, :4]

    Args:
        config: an `STDiT3Config`, or a dict of its fields; `fields` given by name replace single ones.
        gradient_checkpointing: keep only the inputs of the blocks for the backward pass and compute the rest again:
            much less memory for about a third more time.

    `save_pretrained(folder)` and `STDiT3.from_pretrained(folder)` write and read `config.json` and safetensors.
    """

    def __init__(self, config: STDiT3Config | dict | None = None, *, gradient_checkpointing: bool = False, **fields):
        super().__init__()
        values = asdict(config) if isinstance(config, STDiT3Config) else dict(config or {})
        self.config = config = STDiT3Config.from_dict(values | fields)
        self._hub_mixin_config = asdict(config)
        self.gradient_checkpointing = gradient_checkpointing
        dim, heads = config.hidden_size, config.num_heads
        patch_volume = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
        block = partial(STDiT3Block, dim, heads, config.mlp_ratio, qk_norm=config.qk_norm)
        self.rope = FrameRotation(dim // heads)
        self.x_embedder = PatchEmbed3D(config.patch_size, config.in_channels, dim)
        self.t_embedder = TimestepEmbedder(dim)
        self.fps_embedder = SizeEmbedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.y_embedder = CaptionEmbedder(config.caption_channels, dim, config.model_max_length)
        self.spatial_blocks = nn.ModuleList(block() for _ in range(config.depth))
        self.temporal_blocks = nn.ModuleList(block(temporal=True) for _ in range(config.depth))
        self.final_layer = FinalLayer(dim, patch_volume * config.out_channels, double_modulate=config.double_modulate)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.data.flatten(1))
        nn.init.zeros_(self.x_embedder.proj.bias)
        for layer in (*self.t_embedder.mlp[::2], self.fps_embedder.mlp[0], self.t_block[1]):
            nn.init.normal_(layer.weight, std=0.02)
        # frame rate and text change nothing at first, and the first prediction is zero
        silent = [self.fps_embedder.mlp[2], self.final_layer.linear]
        silent += [block.cross_attn.proj for block in (*self.spatial_blocks, *self.temporal_blocks)]
        # and neither do the temporal blocks: the video model begins as the image model
        silent += [layer for block in self.temporal_blocks for layer in (block.attn.proj, block.mlp.fc2)]
        for layer in silent:
            nn.init.zeros_(layer.weight)

    def token_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """(T, H, W) of a latent -> (T', H', W') in tokens, rounded up."""
        return tuple(-(-side // patch) for side, patch in zip(size, self.config.patch_size, strict=True))

    def null_text(self, batch: int) -> Tensor:
        """What stands for no text: (batch, 1, model_max_length, caption_channels)."""
        return self.y_embedder.y_embedding.expand(batch, 1, -1, -1)

    def draw_text_drop(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Whose text to take away in a step of training: (batch,) bool on the CPU, drawn for `drop_text`."""
        return torch.rand(batch, generator=generator) < self.config.class_dropout_prob

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        *,
        fps: Tensor,
        height: Tensor,
        width: Tensor,
        drop_text: Tensor | None = None,
    ) -> Tensor:
        """Predict. Returns (B, out_channels, T, H, W) float32; with `pred_sigma` the first half is the prediction.

        Args:
            x: noisy latents (B, in_channels, T, H, W), of any size.
            timestep: (B,) from 0, which is data, to 1000, which is noise.
            y: text (B, 1, L, caption_channels), or without the 1.
            mask: (B, L), not 0 for tokens to look at; (b, L) with b·k = B is repeated. None: all of them.
            x_mask: (B, T') bool per frame of tokens, False for frames that are given and clean. None: none is.
            fps, height, width: (B,) or (1,), frames per second and size in pixels of the clips.
            drop_text: (B,) bool, whose text is replaced by `null_text`.

        Raises UserError for shapes that do not fit each other or the model.
        """
        self._check(x, timestep, y, mask, x_mask)
        for name, numbers in {"fps": fps, "height": height, "width": width}.items():
            if numbers.shape not in ((len(x),), (1,)):
                found = tuple(numbers.shape)
                raise UserError(f"{name} of shape {found}: expected ({len(x)},), one for each clip, or (1,)")
        dtype, batch, size = self.x_embedder.proj.weight.dtype, len(x), x.shape[2:]
        y = rearrange(y, "b 1 l c -> b l c") if y.ndim == 4 else y
        drop_text = None if drop_text is None else drop_text.to(x.device)
        x_mask = None if x_mask is None else x_mask.to(x.device, torch.bool)

        tokens = self.x_embedder(x.to(dtype))  #                                          (B, D, T', H', W')
        frames, *grid = tokens.shape[2:]
        tokens = rearrange(tokens, "b d t h w -> b t (h w) d") + self._positions(grid, height, width).to(dtype)
        rate = self.fps_embedder(fps.to(x.device), batch)  #                              (B, D)
        t = self.t_embedder(timestep.to(x.device)) + rate  #                              (B, D)
        t0 = None if x_mask is None else self.t_embedder(torch.zeros_like(timestep, device=x.device)) + rate
        modulation = per_frame(self.t_block(t), x_mask, None if t0 is None else self.t_block(t0))
        text = self.y_embedder(y.to(dtype), drop_text)  #                                 (B, L, D)
        text_mask = None if mask is None else repeat_mask(mask.to(x.device), batch)  #    (B, L)
        rotation = self.rope(frames)

        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            tokens = self._run(spatial, tokens, text, modulation, text_mask)
            tokens = self._run(temporal, tokens, text, modulation, text_mask, rotation)

        out = self.final_layer(tokens, t, x_mask, t0)
        pattern = "b t (h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)"
        out = rearrange(out, pattern, h=grid[0], **dict(zip(("pt", "ph", "pw"), self.config.patch_size, strict=True)))
        return out[:, :, : size[0], : size[1], : size[2]].float()

    def _run(self, block: STDiT3Block, *inputs: Tensor | tuple | None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def _positions(self, grid: Sequence[int], height: Tensor, width: Tensor) -> Tensor:
        """(B or 1, 1, S, D): the same for all frames of a clip."""
        if self.config.first_size_only:
            height, width = height[:1], width[:1]
        pixels = (height.float() * width.float()).sqrt().to(self.rope.freqs.device)
        scale, base = pixels / self.config.input_sq_size, round((grid[0] * grid[1]) ** 0.5)
        places = position_embedding_2d(self.config.hidden_size, tuple(grid), scale, base)
        return rearrange(places, "b s d -> b 1 s d")

    def _check(self, x: Tensor, timestep: Tensor, y: Tensor, mask: Tensor | None, x_mask: Tensor | None) -> None:
        channels, width = self.config.in_channels, self.config.caption_channels
        if x.ndim != 5 or x.shape[1] != channels or 0 in x.shape:
            raise UserError(f"latent of shape {tuple(x.shape)}: expected (B, {channels}, T, H, W), all from 1 on")
        batch, frames = len(x), self.token_size(x.shape[2:])[0]
        if timestep.shape != (batch,):
            raise UserError(f"timestep of shape {tuple(timestep.shape)}: expected ({batch},), one for each clip")
        if y.ndim not in (3, 4) or len(y) != batch or y.shape[-1] != width or (y.ndim == 4 and y.shape[1] != 1):
            raise UserError(
                f"text of shape {tuple(y.shape)} for {batch} clips: expected ({batch}, 1, L, {width}); "
                "use the text encoder that the model was trained with"
            )
        if mask is not None and (mask.ndim != 2 or mask.shape[1] != y.shape[-2] or not len(mask) or batch % len(mask)):
            expected = f"({batch}, {y.shape[-2]}), or a divisor of {batch} rows"
            raise UserError(f"text mask of shape {tuple(mask.shape)}: expected {expected}")
        if x_mask is not None and x_mask.shape != (batch, frames):
            expected = f"({batch}, {frames}), one entry per clip and frame of tokens"
            raise UserError(f"frame mask of shape {tuple(x_mask.shape)}: expected {expected}")
