"""STDiT3 against diffusers' Latte, the nearest transformer there: blocks within frames and along time in turns.

The two are not the same model, so whole outputs cannot be equal. Their spatial blocks are the same, and are compared
with the same weights. Ours does more: its temporal blocks look at the text too (Latte's do not), it turns queries and
keys along time and normalises them. The table counts that work as ours all the same.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from benchmarks.peers import DIFFUSERS
from benchmarks.work import Run, Work, fixed_weights, options, random, relative, training_step
from minivdm.denoisers.dit_blocks import STDiT3Block
from minivdm.denoisers.stdit3 import STDiT3


@dataclass(frozen=True)
class TransformerTraining(Work):
    """Predict, mean squared error, backward, Adam; latents of 4 channels, patches of 2×2, some text.

    latents: (B, C, T, H, W). text: (tokens, width); 120 is what Latte's own pipeline gives it.
    """

    peer: str = DIFFUSERS
    hidden: int = 192
    depth: int = 6
    heads: int = 6
    latents: tuple[int, ...] = (4, 4, 4, 16, 16)
    text: tuple[int, int] = (120, 96)

    training = True

    def ours(self) -> Run:
        torch.manual_seed(0)
        model = STDiT3(
            hidden_size=self.hidden,
            depth=self.depth,
            num_heads=self.heads,
            caption_channels=self.text[1],
            model_max_length=self.text[0],
            pred_sigma=False,
        )
        size = {name: torch.tensor([number]) for name, number in (("fps", 8.0), ("height", 128.0), ("width", 128.0))}
        return self._training(model, lambda z, t, text: model(z, t, text, **size))

    def theirs(self) -> Run:
        model = self._latte()
        return self._training(model, lambda z, t, text: model(z, t, text, return_dict=False)[0])

    def _training(self, model: nn.Module, predict) -> Run:
        batch = self.latents[0]
        z, target, text = random(*self.latents), random(*self.latents, seed=1), random(batch, *self.text, seed=2)
        t = torch.linspace(10, 990, batch).long()
        return training_step(model, lambda: F.mse_loss(predict(z, t, text), target))

    def _latte(self) -> nn.Module:
        from diffusers import LatteTransformer3DModel

        torch.manual_seed(0)
        return LatteTransformer3DModel(
            num_attention_heads=self.heads,
            attention_head_dim=self.hidden // self.heads,
            in_channels=self.latents[1],
            num_layers=self.depth,
            cross_attention_dim=self.hidden,
            attention_bias=True,
            sample_size=self.latents[-1],
            patch_size=2,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            caption_channels=self.text[1],
            video_length=self.latents[2],
        )

    def difference(self, ours: Run, theirs: Run) -> float:
        ours()
        theirs()
        return self._difference_of_blocks()

    @torch.no_grad()
    def _difference_of_blocks(self) -> float:
        """One spatial block on both sides, with the same weights."""
        theirs = fixed_weights(self._latte().transformer_blocks[0])
        ours = STDiT3Block(self.hidden, self.heads, qk_norm=False)
        ours.load_state_dict(block_from_diffusers(theirs.state_dict()))
        batch, _, frames, height, width = self.latents
        x = random(batch, frames, height * width // 4, self.hidden)
        text, modulation = random(batch, self.text[0], self.hidden, seed=1), random(batch, 1, 6, self.hidden, seed=2)
        per_frame = partial(torch.repeat_interleave, repeats=frames, dim=0)
        expected = theirs(
            rearrange(x, "b t s d -> (b t) s d"),
            encoder_hidden_states=per_frame(text),
            timestep=per_frame(rearrange(modulation, "b 1 six d -> b (six d)")),
        )
        return relative(ours(x, text, modulation), rearrange(expected, "(b t) s d -> b t s d", b=batch))

    def remark(self) -> str:
        with torch.device("meta"):
            theirs = self._latte()
            ours = STDiT3(
                hidden_size=self.hidden,
                depth=self.depth,
                num_heads=self.heads,
                caption_channels=self.text[1],
                model_max_length=self.text[0],
            )
        return f"ours {options(ours)}, Latte {options(theirs)}; outputs compared for one spatial block"


def block_from_diffusers(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a `BasicTransformerBlock` of PixArt's kind -> that of a spatial `STDiT3Block`."""
    ours = {"scale_shift_table": theirs["scale_shift_table"]}
    for kind in ("weight", "bias"):
        joined = lambda names: torch.cat([theirs[f"{name}.{kind}"] for name in names])  # noqa: B023, E731
        ours |= {
            f"attn.qkv.{kind}": joined(["attn1.to_q", "attn1.to_k", "attn1.to_v"]),
            f"attn.proj.{kind}": theirs[f"attn1.to_out.0.{kind}"],
            f"cross_attn.q_linear.{kind}": theirs[f"attn2.to_q.{kind}"],
            f"cross_attn.kv_linear.{kind}": joined(["attn2.to_k", "attn2.to_v"]),
            f"cross_attn.proj.{kind}": theirs[f"attn2.to_out.0.{kind}"],
            f"mlp.fc1.{kind}": theirs[f"ff.net.0.proj.{kind}"],
            f"mlp.fc2.{kind}": theirs[f"ff.net.2.{kind}"],
        }
    return ours


def works(tiny: bool) -> list[Work]:
    """The rows."""
    why = (
        "Matrix products take most of a step, and there are as many on both sides. What ours does beyond them is more: "
        "temporal blocks that look at the text, queries and keys that are normalised and, along time, turned. All of "
        "that is kept for the backward pass as well."
    )
    targets = {"time": 0.8, "memory": 0.8, "why": why}
    if tiny:
        sizes = {"hidden": 24, "depth": 1, "heads": 2, "latents": (2, 4, 3, 4, 4), "text": (5, 8)}
        return [TransformerTraining("stdit3", "STDiT3 training step, tiny", **targets, **sizes)]
    return [
        TransformerTraining(
            "stdit3-192", "STDiT3 training step, 192 wide, 6 pairs of blocks, 4 latents of 4×16×16", **targets
        ),
        TransformerTraining(
            "stdit3-384",
            "STDiT3 training step, 384 wide, 12 pairs of blocks, 1 latent of 5×32×32",
            **targets,
            hidden=384,
            depth=12,
            latents=(1, 4, 5, 32, 32),
        ),
    ]
