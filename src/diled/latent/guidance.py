"""What leads codes under a prior: its denoiser for codes of unit size, and the denoiser of the prior times exp(wish).

    z = center + width u,    u_hat = E[u | u_t]    ->    u_hat + sigma_t^2 / alpha_t grad_{u_t} wish(u_hat)

References: Dhariwal & Nichol 2021 (arXiv 2105.05233); Chung et al. 2023 (arXiv 2209.14687), the gradient through u_hat.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diled.api import Density, NoBound
from diled.diffusion import Diffusion
from diled.diffusion.schedule import LinearLogSNR, Schedule, alpha, sigma2
from diled.models.priors import GaussianMixture, Standardized, StandardNormal

__all__ = ["Unit", "guided", "in_unit"]


@dataclass(frozen=True)
class Unit:
    """A prior in units of its codes' size.

    Attributes:
        denoise: (u_t, log SNR) -> E[u | u_t].
        schedule: noise levels.
        shape: of a code.
        center, width: of z = center + width u.
    """

    denoise: Callable[..., Tensor]
    schedule: Schedule
    shape: tuple[int, ...]
    center: Tensor | float = 0.0
    width: Tensor | float = 1.0

    def back(self, u: Tensor) -> Tensor:
        """Codes in their own unit."""
        return u * self.width + self.center


def in_unit(prior: Density) -> Unit:
    """A diffusion, standardised or not, a standard normal, or a mixture of Gaussians, as a denoiser of codes of unit size.

    Raises:
        NoBound: the prior is none of these.
    """
    if isinstance(prior, Standardized):
        return Unit(*_denoiser(prior.inner), prior.mean, prior.std)
    if isinstance(prior, GaussianMixture):  # the noise levels are for codes of unit size
        inner, center, width = _standardized(prior)
        return Unit(*_denoiser(inner), center, width)
    return Unit(*_denoiser(prior))


def _standardized(prior: GaussianMixture) -> tuple[GaussianMixture, Tensor, Tensor]:
    """A mixture in units of its own mean and standard deviations (D,), and these."""
    share = prior.log_weights.exp()[:, None]
    center = (share * prior.means).sum(0)
    width = (share * ((prior.means - center) ** 2 + (prior.roots**2).sum(2))).sum(0).sqrt()
    inner = copy.deepcopy(prior)
    inner.means, inner.roots = (prior.means - center) / width, prior.roots / width[:, None]
    return inner, center, width


def _denoiser(prior: Any) -> tuple[Callable[..., Tensor], Schedule, tuple[int, ...]]:
    """E[z | z_t] under a prior of codes of unit size, noise levels, and the shape of a code."""
    if isinstance(prior, Diffusion) and prior.process.ode:
        return prior.denoiser, prior.schedule, prior.shape
    if isinstance(prior, StandardNormal):
        dim = prior.shape[0]
        parts = torch.zeros(1, dim), torch.eye(dim)[None], torch.zeros(1)
    elif isinstance(prior, GaussianMixture):
        dim = prior.means.shape[1]
        parts = prior.means, prior.roots @ prior.roots.transpose(1, 2), prior.log_weights
    else:
        raise NoBound(f"A prior of type {type(prior).__name__} has no denoiser to guide: choose another method.")
    return _denoiser_of(*parts), LinearLogSNR(-8.0, 8.0), (dim,)


def guided(denoise: Callable[..., Tensor], wanted: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A denoiser of p(z) exp(wanted(z)): z_hat + sigma_t^2 / alpha_t grad_{z_t} wanted(z_hat)."""

    def led(z_t: Tensor, log_snr: Tensor) -> Tensor:
        with torch.enable_grad():
            z_t = z_t.detach().requires_grad_(True)
            z_hat = denoise(z_t, log_snr)
            slope = torch.autograd.grad(wanted(z_hat).sum(), z_t)[0]
        gamma = -log_snr[:, None]
        return (z_hat + sigma2(gamma) / alpha(gamma) * slope).detach()

    return led


def _denoiser_of(means: Tensor, covariance: Tensor, log_weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """E[z | z_t] under a mixture of K Gaussians: means (K, D), covariances (K, D, D), log weights (K,)."""
    values, vectors = torch.linalg.eigh(covariance)

    def denoise(z_t: Tensor, log_snr: Tensor) -> Tensor:
        gamma = -log_snr[:, None, None]
        a, s2 = alpha(gamma), sigma2(gamma)
        mean, lam, basis = means.to(z_t), values.to(z_t), vectors.to(z_t)
        gap = torch.einsum("bkd,kde->bke", z_t[:, None] - a * mean, basis)  # along the axes of each component
        var = a**2 * lam + s2
        log_p = log_weights.to(z_t) - 0.5 * (gap**2 / var + var.log()).sum(2)
        each = mean + torch.einsum("bke,kde->bkd", a * lam / var * gap, basis)
        return (log_p.softmax(1)[..., None] * each).sum(1)

    return denoise
