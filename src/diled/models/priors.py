"""Priors that are no diffusion: the standard normal, and a prior on standardised codes.

    KL(N(m, v) || N(0, I)) = 1/2 sum [ v + m^2 - 1 - log v ]                        (Kingma & Welling 2014, appendix B)

`Standardized` fits a fixed affine map to training codes before a second stage. Inside a KL its log-determinant cancels,
KL(q || p) = KL(T q || T p); of a point it must be added.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diled.api import Density, Noise, Posterior, Terms, normal_noise, sum_dims
from diled.distributions import Normal

__all__ = ["StandardNormal", "Standardized"]


class StandardNormal(Density):
    """N(0, I) over codes of a given shape.

    Args:
        shape: the shape of one code.
        free_bits: nats per dimension, averaged over the batch, below which the KL gives the encoder no gradient
            (Kingma et al. 2016, appendix C.8). `bound()` ignores it.
    """

    origin: Tensor

    def __init__(self, shape: tuple[int, ...], *, free_bits: float = 0.0) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.free_bits = free_bits
        self.register_buffer("origin", torch.zeros(()), persistent=False)

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """`kl` of a Gaussian posterior in closed form; `nll` of a tensor."""
        if isinstance(q, Tensor):
            return {"nll": Normal(torch.zeros_like(q), torch.zeros_like(q)).nll(q)}
        if not isinstance(q, Normal):
            return self.terms_of_sample(q, exact=exact, progress=progress)
        kl = q.kl_dims(Normal(torch.zeros_like(q.mean), torch.zeros_like(q.log_var)))
        if self.free_bits and not exact:
            spent = (kl.detach().mean(0, keepdim=True) > self.free_bits).to(kl)
            kl = kl.detach() + spent * (kl - kl.detach())
        return {"kl": sum_dims(kl)}

    def sample(self, n: int, *, noise: Noise | None = None) -> Tensor:
        """Standard normal codes, (n, *shape)."""
        return (noise or normal_noise(self.origin))((n, *self.shape))


class Standardized(Density):
    """A density on (z - mean) / std, with statistics that are fitted once and then fixed.

    Args:
        inner: the density of standardised codes.
        shape: the shape of one code.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, inner: Density, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """Take mean and standard deviation from sampled codes (N, *shape) of the averaged encoder."""
        self.mean.copy_(codes.mean(0))
        self.std.copy_(codes.std(0).clamp(min=1e-6))

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """The inner terms of standardised codes; of a tensor also `log_det`, sum log std."""
        if isinstance(q, Tensor):
            inner = self.inner.terms((q - self.mean) / self.std, exact=exact, progress=progress)
            return {**inner, "log_det": self.std.log().sum().expand(len(q))}
        return self.inner.terms(q.affine(1 / self.std, -self.mean / self.std), exact=exact, progress=progress)

    def sample(self, n: int, *, noise: Noise | None = None, **options: Any) -> Tensor:
        """Inner samples, mapped back."""
        return self.inner.sample(n, noise=noise, **options) * self.std + self.mean
