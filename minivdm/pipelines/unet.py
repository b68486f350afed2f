"""From a prompt to a film with a `Unet3D` that works on pixels."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from minivdm.config import Config, load_config
from minivdm.denoisers.patching import Patched
from minivdm.denoisers.unet3d import Unet3D
from minivdm.diffusion.gaussian import GaussianDiffusion
from minivdm.diffusion.guidance import classifier_free
from minivdm.diffusion.samplers import sample
from minivdm.diffusion.schedules import make_betas
from minivdm.errors import UserError
from minivdm.paths import checkpoint_dir
from minivdm.pipelines.trained import read_single, trained_weights
from minivdm.text.words import BagOfWords
from minivdm.training.randomness import stream_seed


class UnetPipeline:
    """Draws films from a `Unet3D` that works on pixels.

    pipeline = UnetPipeline.from_pretrained("toy")
    video = pipeline(["a large red peony high on the left"], seed=0)       # (1, 3, 9, 32, 32) in [-1, 1]
    """

    def __init__(self, unet: nn.Module, diffusion: GaussianDiffusion, words: BagOfWords, config: Config):
        self.unet, self.diffusion, self.words, self.config = unet, diffusion, words, config

    @classmethod
    def from_config(cls, config: Config, words: BagOfWords) -> "UnetPipeline":
        """An untrained pipeline of the sizes that the configuration names."""
        settings = dict(vars(config.unet3d), cond_dim=words.dim or None)
        patch = settings.pop("patch")
        del settings["captions"]
        settings["channels"] *= patch**2
        unet = Unet3D(**settings) if patch == 1 else Patched(Unet3D(**settings), patch)
        diffusion = GaussianDiffusion(
            make_betas(config.diffusion.schedule, config.diffusion.num_steps),
            prediction=config.diffusion.prediction,
            loss=config.diffusion.loss,
            threshold=config.diffusion.threshold,
            shift_factor=config.diffusion.shift_factor,
            scale_factor=config.diffusion.scale_factor,
        )
        return cls(unet, diffusion, words, config)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "UnetPipeline":
        """A shipped checkpoint ("toy"), a run folder (its newest checkpoint), or a folder with weights.

        Averaged (EMA) weights are taken where there are any. Raises UserError when the folder holds no pipeline.
        """
        folder = checkpoint_dir(f"{source}/unet3d") if str(source) in ("toy",) else Path(source)
        folder, weights = trained_weights(folder)
        words = BagOfWords.load(folder / "vocabulary.json")
        pipeline = cls.from_config(load_config(folder / "config.yaml"), words)
        try:
            pipeline.unet.load_state_dict(read_single(weights))
        except RuntimeError as error:
            raise UserError(
                f"the weights in {weights} do not fit {folder / 'config.yaml'}: {' '.join(str(error).split())[:300]}"
            ) from None
        pipeline.unet.eval()
        return pipeline

    def save_settings(self, folder: Path) -> None:
        """Write config.yaml and vocabulary.json."""
        self.config.save(folder / "config.yaml")
        self.words.save(folder / "vocabulary.json")

    def to(self, device: torch.device | str) -> "UnetPipeline":
        """Move network and tables."""
        self.unet.to(device)
        self.diffusion.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[str],
        *,
        method: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        eta: float | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> Tensor:
        """One film per prompt, (B, 3, T, H, W) in [-1, 1]. What is not given comes from the configuration.

        An empty prompt, or a model trained without captions, gives a film of the model's own choice. A film starts
        from noise that depends on the seed and on its place in the list only.
        """
        data, defaults = self.config.data, self.config.sampling
        device = next(self.unet.parameters()).device
        shape = (self.config.unet3d.channels, data.frames, data.size, data.size)
        x_T = torch.stack(
            [
                torch.randn(shape, generator=torch.Generator().manual_seed(stream_seed(seed, "sample", place)))
                for place in range(len(prompts))
            ]
        ).to(device)
        method = method or defaults.method
        guidance = defaults.guidance if guidance is None else guidance
        steps = steps or (self.diffusion.num_steps if method == "ddpm" else defaults.steps)
        generator = torch.Generator(device).manual_seed(stream_seed(seed, "sample", len(prompts)))
        x0 = sample(
            self.diffusion,
            self._guided(prompts, guidance, device),
            x_T,
            method=method,
            steps=steps,
            eta=defaults.eta if eta is None else eta,
            generator=generator,
            progress=progress,
        )
        return self.diffusion.denormalize(x0).clamp(-1, 1)

    def _guided(self, prompts: Sequence[str], guidance: float, device: torch.device):
        """The network as the samplers want it: a function of (x_t, t), with the prompts and the guidance bound."""
        if not self.words.dim:
            return self.unet
        cond = self.words.encode(prompts).to(device)
        asked = torch.tensor([bool(prompt.strip()) for prompt in prompts], device=device)
        if guidance == 1 or not asked.any():
            return lambda x_t, t: self.unet(x_t, t, cond, null_cond=~asked)

        def model(x_t: Tensor, t: Tensor) -> Tensor:
            both = self.unet(
                torch.cat([x_t, x_t]),
                torch.cat([t, t]),
                torch.cat([cond, cond]),
                null_cond=torch.cat([~asked, torch.ones_like(asked)]),
            )
            return classifier_free(*both.chunk(2), guidance)

        return model
