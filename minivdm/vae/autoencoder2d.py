"""AutoEncoder2D: pictures to a small grid of latents and back, the first stage of latent diffusion.

Follows Open-Sora 2's `autoencoder_2d.py` number by number, and with `quant_conv=True` Stable Diffusion's
`AutoencoderKL`; it reads the weights of both. Clips are seen frame by frame: nothing here knows time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from minivdm.errors import UserError
from minivdm.vae.autoencoder_kl import arguments_from_diffusers, autoencoder_from_upstream
from minivdm.vae.blocks2d import Downsample, Middle, ResnetBlock, Upsample, group_norm, silu
from minivdm.vae.distributions import DiagonalGaussianDistribution
from minivdm.weights import SafeHubMixin, load_weights, read_config, read_weights

_COUNTS = ("in_channels", "ch", "out_ch", "num_res_blocks", "z_channels", "patch")


@dataclass(frozen=True)
class AutoEncoderConfig:
    """Sizes of an `AutoEncoder2D`. The defaults are Stable Diffusion's: 84 million parameters, 8× smaller per side.

    from_pretrained: where to load weights from when the model is built: a safetensors file, or a folder that holds one,
        in Open-Sora 2's, Stable Diffusion's or diffusers' layout, or such a folder's name on the Hugging Face Hub.
    cache_dir: where files from the Hub are kept.
    resolution: the picture size the model is meant for. Any size that `downsampling` divides works with any weights.
    in_channels, out_ch: channels of the picture that goes in, and of the one that comes out.
    ch, ch_mult: the widths of the levels are `ch · ch_mult[i]`; each level but the last halves height and width.
    num_res_blocks: residual blocks per level of the encoder; the decoder has one more.
    z_channels: channels of the latent.
    patch: squares of patch × patch pixels enter as channels: everything is patch² times cheaper, and the latent another
        `patch` times smaller per side. 1, as upstream, leaves pixels alone.
    scale_factor, shift_factor: `z = scale_factor · (latent - shift_factor)`, so that z has about unit variance.
    sample: whether `encode` draws from the posterior by default (else it takes the mean).
    """

    from_pretrained: str | None = None
    cache_dir: str | None = None
    resolution: int = 256
    in_channels: int = 3
    ch: int = 128
    out_ch: int = 3
    ch_mult: Sequence[int] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 4
    patch: int = 1
    scale_factor: float = 0.18215
    shift_factor: float = 0.0
    sample: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "ch_mult", tuple(self.ch_mult))
        sizes = {name: getattr(self, name) for name in _COUNTS}
        for name, value in [*sizes.items(), *(("every ch_mult", mult) for mult in self.ch_mult)]:
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} is {value!r}: expected a whole number from 1 on")
        if not self.ch_mult:
            raise UserError("ch_mult is empty: expected a width for every level, such as (1, 2, 4, 4)")
        if self.scale_factor == 0:
            raise UserError("scale_factor is 0, which erases the latent: expected 1 / its standard deviation")


# The two variations on the default that the source document proposes: 615 and 12 million parameters.
HIGH_RES = AutoEncoderConfig(
    resolution=1024, ch=192, ch_mult=(1, 2, 4, 8), num_res_blocks=3, z_channels=8, scale_factor=0.15
)
LIGHTWEIGHT = AutoEncoderConfig(ch=64, ch_mult=(1, 2, 2, 4), num_res_blocks=1)


class Encoder(nn.Module):
    """Pictures (N, in_channels·patch², H, W) -> mean and log-variance (N, 2·z_channels, H/f, W/f).

    f is 2 ** (levels - 1); the pictures are already folded into patches.
    """

    def __init__(self, config: AutoEncoderConfig, groups: int = 32):
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = nn.Conv2d(config.in_channels * config.patch**2, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (before, width) in enumerate(zip([config.ch, *widths], widths, strict=False)):
            level = nn.Module()
            inputs = [before, *[width] * (config.num_res_blocks - 1)]
            level.block = nn.ModuleList(ResnetBlock(channels, width, groups) for channels in inputs)
            if i < len(widths) - 1:
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = Middle(widths[-1], groups)
        self.norm_out = group_norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            for block in level.block:
                h = block(h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
        h = self.mid(h)
        return self.conv_out(silu(self.norm_out(h)))


class Decoder(nn.Module):
    """Latents (N, z_channels, H/f, W/f) -> pictures (N, out_ch·patch², H, W): the encoder turned round."""

    def __init__(self, config: AutoEncoderConfig, groups: int = 32):
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], groups)
        self.up = nn.ModuleList()
        for i, (width, before) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True)):
            level = nn.Module()
            inputs = [before, *[width] * config.num_res_blocks]
            level.block = nn.ModuleList(ResnetBlock(channels, width, groups) for channels in inputs)
            if i > 0:
                level.upsample = Upsample(width)
            self.up.append(level)
        self.norm_out = group_norm(widths[0], groups)
        self.conv_out = nn.Conv2d(widths[0], config.out_ch * config.patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):  # `up[0]` has the size of the picture, as `down[0]` has
            for block in level.block:
                h = block(h)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        return self.conv_out(silu(self.norm_out(h)))


class AutoEncoder2D(nn.Module, SafeHubMixin):
    """A variational autoencoder of pictures; clips are folded into the batch frame by frame.

        vae = AutoEncoder2D(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1)
        z = vae.encode(video)        # (B, 3, T, H, W) in [-1, 1] -> (B, 4, T, H/4, W/4)
        video = vae.decode(z)        # about the same video

    Args:
        config: an `AutoEncoderConfig`, or a dict of its fields; `fields` given by name replace single ones.
        norm_groups: groups of every normalisation; where they do not divide the width, the largest number that does.
        quant_conv: one more 1×1 convolution at either side of the latent, as Stable Diffusion has. It adds nothing that
            its neighbours could not learn; its weights need it.

    `save_pretrained(folder)` and `AutoEncoder2D.from_pretrained(folder)` write and read `config.json` and safetensors.
    """

    def __init__(
        self,
        config: AutoEncoderConfig | dict | None = None,
        *,
        norm_groups: int | None = None,
        quant_conv: bool | None = None,
        **fields,
    ):
        super().__init__()
        self.config, extra = _config(config, fields)
        self.norm_groups = norm_groups if norm_groups is not None else extra.get("norm_groups", 32)
        self.quantised = quant_conv if quant_conv is not None else extra.get("quant_conv", False)
        # what save_pretrained writes: the model as it is now, not where its weights once came from
        saved = replace(self.config, from_pretrained=None, cache_dir=None)
        self._hub_mixin_config = {k: v for k, v in asdict(saved).items() if v is not None}
        self._hub_mixin_config |= {"norm_groups": self.norm_groups, "quant_conv": self.quantised}

        self.downsampling = self.config.patch * 2 ** (len(self.config.ch_mult) - 1)
        self.encoder = Encoder(self.config, self.norm_groups)
        self.decoder = Decoder(self.config, self.norm_groups)
        if self.quantised:
            self.quant_conv = nn.Conv2d(2 * self.config.z_channels, 2 * self.config.z_channels, 1)
            self.post_quant_conv = nn.Conv2d(self.config.z_channels, self.config.z_channels, 1)
        if self.config.from_pretrained is not None:
            weights = read_weights(self.config.from_pretrained, self.config.cache_dir)
            load_weights(self, autoencoder_from_upstream(weights), self.config.from_pretrained)

    @classmethod
    def from_diffusers(
        cls,
        source: str | Path | Mapping[str, Tensor],
        config: Mapping | None = None,
        subfolder: str = "",
    ) -> "AutoEncoder2D":
        """Build the model that diffusers' `AutoencoderKL` was, weights and scale_factor included; in eval mode.

        source: a folder with config.json and safetensors (or one on the Hub), its `subfolder` if given ("vae" in whole
            pipelines); or a state dict, with diffusers' `config` beside it.
        """
        if isinstance(source, Mapping):
            if config is None:
                raise UserError("a state dict says nothing about norm_num_groups: pass diffusers' config with it")
            weights, place = source, "the state dict"
        else:
            place = str(Path(source) / subfolder) if subfolder else str(source)
            config = read_config(source, subfolder) if config is None else config
            weights = read_weights(source, subfolder=subfolder)
        model = cls(**arguments_from_diffusers(config))
        load_weights(model, autoencoder_from_upstream(weights), place)
        return model.eval()

    @property
    def last_layer(self) -> Tensor:
        """The decoder's last convolution, where the adaptive weight of an adversarial loss is measured."""
        return self.decoder.conv_out.weight

    def get_latent_size(self, size: Sequence[int | None]) -> tuple[int | None, ...]:
        """(H, W) of a picture -> (H, W) of its latent; None stays None."""
        if any(side is not None and side % self.downsampling for side in size):
            raise UserError(self._does_not_divide(size))
        return tuple(side if side is None else side // self.downsampling for side in size)

    def encode(
        self,
        x: Tensor,
        *,
        sample: bool | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        return_posterior: bool = False,
        drop_odd: bool = False,
    ) -> Tensor | tuple[Tensor, DiagonalGaussianDistribution]:
        """Pictures (B, C, H, W) or a clip (B, C, T, H, W), in [-1, 1] -> latents z, H and W divided by `downsampling`.

        sample: draw from the posterior, or take its mean; by default what the config says.
        noise: what to draw with, shaped like z; else it comes from `generator`.
        return_posterior: return (z, posterior); the posterior is that of the latent before scale and shift.
        drop_odd: accept sizes that `downsampling` does not divide, and lose the rows and columns that are left over.
        """
        posterior = self.posterior(x, drop_odd=drop_odd)
        if sample is None:
            sample = self.config.sample
        latent = posterior.sample(noise, generator) if sample else posterior.mode()
        z = self.config.scale_factor * (latent - self.config.shift_factor)
        return (z, posterior) if return_posterior else z

    def posterior(self, x: Tensor, *, drop_odd: bool = False) -> DiagonalGaussianDistribution:
        """The distribution of the latent of x (B, C, H, W) or (B, C, T, H, W), before scale and shift."""
        self._check(x, self.config.in_channels, "picture")
        if not drop_odd:
            self.get_latent_size(x.shape[-2:])
        moments = self.encoder(_fold(x, self.config.patch))
        if self.quantised:
            moments = self.quant_conv(moments)
        return DiagonalGaussianDistribution(_unfold(moments, x))

    def decode(self, z: Tensor) -> Tensor:
        """Latents z (B, z_channels, h, w) or (B, z_channels, T, h, w) -> pictures, about in [-1, 1] (not clamped)."""
        self._check(z, self.config.z_channels, "latent")
        latent = _fold(z / self.config.scale_factor + self.config.shift_factor)
        if self.quantised:
            latent = self.post_quant_conv(latent)
        return _unfold(self.decoder(latent), z, self.config.patch)

    def forward(
        self,
        x: Tensor,
        *,
        sample: bool | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, DiagonalGaussianDistribution, Tensor]:
        """There and back: (reconstruction, posterior, z). Arguments as in `encode`."""
        z, posterior = self.encode(x, sample=sample, noise=noise, generator=generator, return_posterior=True)
        return self.decode(z), posterior, z

    def _check(self, x: Tensor, channels: int, what: str) -> None:
        if x.ndim not in (4, 5) or x.shape[1] != channels:
            expected = f"(B, {channels}, H, W) or (B, {channels}, T, H, W)"
            raise UserError(f"{what} of shape {tuple(x.shape)}: expected {expected}")
        if not x.is_floating_point():
            raise UserError(f"{what} of {x.dtype}: expected floats; bring bytes to [-1, 1] by x / 127.5 - 1")

    def _does_not_divide(self, size: Sequence[int | None]) -> str:
        factor = self.downsampling
        fits = [None if side is None else -(-side // factor) * factor for side in size]
        found, wanted = ("×".join("…" if side is None else str(side) for side in sides) for sides in (size, fits))
        return f"pictures of {found} (height×width): both must be multiples of {factor}; resize or pad to {wanted}"


def _config(config: AutoEncoderConfig | Mapping | None, given: dict) -> tuple[AutoEncoderConfig, dict]:
    """The config, with single fields replaced, and the model's own arguments that a saved config.json also holds."""
    values = asdict(config) if isinstance(config, AutoEncoderConfig) else dict(config or {})
    values |= given
    extra = {name: values.pop(name) for name in ("norm_groups", "quant_conv") if name in values}
    known = [field.name for field in fields(AutoEncoderConfig)]
    if unknown := sorted(set(values) - set(known)):
        hint = "; a diffusers folder is read by AutoEncoder2D.from_diffusers" if "_class_name" in unknown else ""
        raise UserError(f"AutoEncoderConfig has no {', '.join(unknown)}: known are {', '.join(known)}{hint}")
    return AutoEncoderConfig(**values), extra


def _fold(x: Tensor, patch: int = 1) -> Tensor:
    """Frames into the batch, squares of pixels into channels; rows and columns that fill no square are dropped."""
    x = rearrange(x, "b c t h w -> (b t) c h w") if x.ndim == 5 else x
    height, width = (side // patch * patch for side in x.shape[-2:])
    return rearrange(x[..., :height, :width], "n c (h p) (w q) -> n (c p q) h w", p=patch, q=patch)


def _unfold(x: Tensor, like: Tensor, patch: int = 1) -> Tensor:
    x = rearrange(x, "n (c p q) h w -> n c (h p) (w q)", p=patch, q=patch)
    return rearrange(x, "(b t) c h w -> b c t h w", b=len(like)) if like.ndim == 5 else x
