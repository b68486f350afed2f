"""The Gaussian that a VAE's encoder writes down: a mean and a log-variance for every number of the latent.

Auto-Encoding Variational Bayes (Kingma and Welling 2014): sampling is `mean + std · noise`, so that gradients pass
through to the mean and the variance (section 2.4), and the KL divergence to another Gaussian has a closed form
(appendix B).
"""

import math

import torch
from torch import Tensor

from minivdm.errors import UserError

SILENT = 0.02  # nats per number: a channel below this is noise to whoever decodes it


class DiagonalGaussianDistribution:
    """A Gaussian with independent elements, for images and clips alike.

    Args:
        moments: (B, 2C, ...), mean and log-variance stacked along the channels, of any rank. The log-variance is
            clamped to [-30, 20]: beyond that its exponential is of no use in float32.
        deterministic: a single point instead, the mean: its standard deviation is 0, sampling returns the mean.

    Attributes `mean`, `logvar`, `std`, `var`, each (B, C, ...), and `moments` as they came.
    """

    def __init__(self, moments: Tensor, deterministic: bool = False):
        if moments.ndim < 2 or moments.shape[1] % 2:
            shape = tuple(moments.shape)
            raise UserError(f"moments of shape {shape} are no mean and log-variance: expected (B, 2C, ...)")
        self.moments = moments
        self.mean, logvar = moments.chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)
        self.deterministic = deterministic
        if deterministic:
            self.std = self.var = torch.zeros_like(self.mean)
        else:
            self.std, self.var = (0.5 * self.logvar).exp(), self.logvar.exp()

    def sample(self, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """One draw, (B, C, ...): `mean + std · noise`, with gradients to both moments.

        noise: (B, C, ...) standard normal numbers; if not given they are drawn from `generator`.
        """
        if self.deterministic:
            return self.mean
        if noise is None:
            device = self.mean.device if generator is None else generator.device
            noise = torch.randn(self.mean.shape, generator=generator, device=device)
        elif noise.shape != self.mean.shape:
            expected = tuple(self.mean.shape)
            raise UserError(f"noise has shape {tuple(noise.shape)}: expected that of the latent, {expected}")
        return self.mean + self.std * noise.to(self.mean)

    def mode(self) -> Tensor:
        """The likeliest value, (B, C, ...): the mean."""
        return self.mean

    def kl(self, other: "DiagonalGaussianDistribution | None" = None) -> Tensor:
        """KL divergence to `other`, by default to the standard normal distribution: (B,) in nats, float32 or wider.

        Summed over everything but the batch: one number per clip, whatever its rank. A deterministic one has no density
        to compare, and gives zeros.
        """
        if self.deterministic:
            return self.mean.new_zeros(len(self.mean))
        return self._divergence(other).flatten(1).sum(1)

    def silent(self) -> int:
        """How many channels are next to the standard normal distribution everywhere: nothing of the input is in them.

        Such a channel costs no divergence, and a decoder learns not to listen; training rarely leaves this posterior
        collapse (Bowman et al. 2016).
        """
        if self.deterministic:
            return 0
        return int((self._divergence(None).transpose(0, 1).flatten(1).mean(1) < SILENT).sum())

    def _divergence(self, other: "DiagonalGaussianDistribution | None") -> Tensor:
        """(B, C, ...): the KL divergence of each element, in nats."""
        mean, logvar, var = _wide(self.mean), _wide(self.logvar), _wide(self.var)
        if other is None:
            return 0.5 * (mean.square() + var - 1 - logvar)
        distance = (mean - _wide(other.mean)).square() / _wide(other.var)
        return 0.5 * (distance + var / _wide(other.var) - 1 - logvar + _wide(other.logvar))

    def nll(self, sample: Tensor) -> Tensor:
        """Negative log-likelihood of `sample` (B, C, ...) in nats, summed over everything but the batch: (B,)."""
        if self.deterministic:
            return self.mean.new_zeros(len(self.mean))
        logvar = _wide(self.logvar)
        distance = (sample - _wide(self.mean)).square() / _wide(self.var)
        return 0.5 * (math.log(2 * math.pi) + logvar + distance).flatten(1).sum(1)


def _wide(x: Tensor) -> Tensor:
    """Sums of many half-precision numbers lose their digits: at least float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
