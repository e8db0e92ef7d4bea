"""Priors that are no diffusion: the standard normal, a prior on standardised codes, and a mixture fitted to codes.

    KL(N(m, v) || N(0, I)) = 1/2 sum [ v + m^2 - 1 - log v ]                        (Kingma & Welling 2014, appendix B)

`Standardized` fits a fixed affine map to training codes before a second stage. Inside a KL its log-determinant cancels,
KL(q || p) = KL(T q || T p); of a point it must be added.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diled.api import Density, NoBound, Noise, Posterior, Terms, normal_noise, sum_dims
from diled.distributions import Normal
from diled.errors import ConfigError

__all__ = ["GaussianMixture", "NoPrior", "StandardNormal", "Standardized"]


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


class NoPrior(Density):
    """No density at all: what an autoencoder is trained with whose codes cost nothing."""

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """Nothing.

        Raises:
            NoBound: `exact` is wanted.
        """
        if exact:
            if not isinstance(q, Tensor):
                q.entropy()  # raises NoBound where there is none
            raise NoBound("Without a prior over its codes this model has no bound on -log p(x).")
        return {}

    def sample(self, n: int, *, noise: Noise | None = None) -> Tensor:
        """Raises `ConfigError`."""
        raise ConfigError("There is no prior to sample from before a mixture is fitted to the codes.")


class GaussianMixture(Density):
    """sum_k w_k N(m_k, L_k L_k^T), fitted to codes after the training.

    For autoencoders that have no prior: ex-post density estimation (Ghosh et al. 2020, section 3).

    Args:
        dim: D, the size of a code.
        components: K at most; as few codes allow.
    """

    log_weights: Tensor
    means: Tensor
    roots: Tensor

    def __init__(self, dim: int, components: int = 10) -> None:
        super().__init__()
        self.register_buffer("log_weights", torch.full((components,), -math.log(components)))
        self.register_buffer("means", torch.zeros(components, dim))
        self.register_buffer("roots", torch.eye(dim).repeat(components, 1, 1))

    @torch.no_grad()
    def fit(self, codes: Tensor, *, seed: int = 0) -> None:
        """Fit by expectation maximisation to codes (N, D), N at least 2."""
        from sklearn.mixture import GaussianMixture as Mixture

        k = max(1, min(len(self.means), len(codes) // (2 * codes.shape[1])))
        center, scale = codes.mean(0), codes.std(0).clamp(min=1e-6)
        found = Mixture(k, reg_covar=1e-4, random_state=seed, max_iter=200).fit(
            ((codes - center) / scale).double().numpy()
        )
        self.log_weights.fill_(-math.inf)
        self.log_weights[:k] = torch.from_numpy(found.weights_).log()
        self.means[:k] = torch.from_numpy(found.means_).float() * scale + center
        self.roots[:k] = scale[:, None] * torch.linalg.cholesky(torch.from_numpy(found.covariances_)).float()

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """`nll` of a tensor (B, D)."""
        if not isinstance(q, Tensor):
            return self.terms_of_sample(q, exact=exact, progress=progress)
        gap = q[:, None] - self.means
        white = torch.linalg.solve_triangular(self.roots, gap.transpose(0, 1).transpose(1, 2), upper=False)
        log_det = self.roots.diagonal(dim1=1, dim2=2).log().sum(1)
        unit = 0.5 * q.shape[1] * math.log(2 * math.pi)
        log_p = self.log_weights - unit - log_det - 0.5 * (white**2).sum(1).T
        return {"nll": -torch.logsumexp(log_p, 1)}

    def sample(self, n: int, *, noise: Noise | None = None) -> Tensor:
        """Codes, (n, D): a component for each, then a draw from it."""
        noise = noise or normal_noise(self.means)
        u = torch.special.ndtr(noise((n, 1)))
        k = (self.log_weights.exp().cumsum(0) < u).sum(1).clamp(max=int(self.log_weights.isfinite().sum()) - 1)
        e = noise((n, self.means.shape[1]))
        return self.means[k] + (self.roots[k] @ e[:, :, None])[:, :, 0]
