"""Samplers: from z_1 ~ N(0, I) down the noise levels to z_0, and back.

A sampler is a function (denoise, z, gammas) -> z, where `denoise(z, log_snr)` is any callable that estimates clean z and
`gammas` falls from gamma(1) to gamma(0). In z/alpha and s = sigma/alpha the probability-flow ODE of every Gaussian
process is

    d(z/alpha) / ds = (z/alpha - x_hat) / s                                   (Karras et al. 2022, Eq. 3 with their sigma = s)

so DDIM is Euler's method (Song et al. 2021), Heun's is EDM's, and DPM-Solver++(2M) extrapolates x_hat linearly in
log SNR (Lu et al. 2022). `ancestral` is DDIM at eta = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from diled.api import Noise, normal_noise
from diled.diffusion.schedule import Schedule, alpha, like, sigma

__all__ = [
    "SAMPLERS",
    "Denoise",
    "Sampler",
    "ancestral",
    "ddim",
    "dpm_solver",
    "heun",
    "invert",
    "karras_levels",
    "levels",
]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(z, log_snr (B,)) -> the estimate of clean z."""


class Sampler(Protocol):
    """(denoise, z at gammas[0], gammas (steps + 1,), noise) -> z at gammas[-1]."""

    def __call__(self, denoise: Denoise, z: Tensor, gammas: Tensor, noise: Noise | None = None) -> Tensor:
        """Integrate along `gammas`."""
        ...


def levels(schedule: Schedule, steps: int, device: torch.device | None = None) -> Tensor:
    """steps + 1 noise levels from gamma(1) down to gamma(0), at equally spaced times."""
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    return schedule.gamma(torch.linspace(1, 0, steps + 1, device=device, dtype=schedule.ends[0].dtype))


def karras_levels(schedule: Schedule, steps: int, device: torch.device | None = None, *, rho: float = 7.0) -> Tensor:
    """steps + 1 noise levels from gamma(1) to gamma(0), equally spaced in s^(1 / rho) with s = sigma / alpha.

    Fine steps where there is little noise, whatever the schedule's shape (Karras et al. 2022, Eq. 5).
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    low, high = (torch.exp(end / (2 * rho)) for end in schedule.ends)
    place = torch.linspace(0, 1, steps + 1, device=device, dtype=low.dtype)
    return 2 * rho * torch.log(high + place * (low - high))


def _denoise_at(denoise: Denoise, z: Tensor, gamma: Tensor) -> Tensor:
    return denoise(z, (-gamma).expand(z.shape[0]))


def ddim(denoise: Denoise, z: Tensor, gammas: Tensor, noise: Noise | None = None, *, eta: float = 0.0) -> Tensor:
    """DDIM (Song et al. 2021, Eq. 12 and 16): deterministic at eta = 0, ancestral at eta = 1.

    z_s = alpha_s x_hat + sqrt(sigma_s^2 - c^2) e_hat + c e,   c^2 = eta^2 sigma_{t|s}^2 sigma_s^2 / sigma_t^2
    """
    noise = noise or normal_noise(z)
    for gamma_t, gamma_s in zip(gammas[:-1], gammas[1:], strict=True):
        x_hat = _denoise_at(denoise, z, gamma_t)
        e_hat = (z - alpha(gamma_t) * x_hat) / sigma(gamma_t)
        if eta:
            c2 = -(eta**2) * torch.expm1(gamma_s - gamma_t) * sigma(gamma_s) ** 2
            z = alpha(gamma_s) * x_hat + (sigma(gamma_s) ** 2 - c2).clamp(min=0).sqrt() * e_hat
            z = z + c2.sqrt() * noise(tuple(z.shape))
        else:
            z = alpha(gamma_s) * x_hat + sigma(gamma_s) * e_hat
    return z


def ancestral(denoise: Denoise, z: Tensor, gammas: Tensor, noise: Noise | None = None) -> Tensor:
    """The reverse chain that the bound belongs to (Ho et al. 2020, Algorithm 2, with the posterior's variance)."""
    return ddim(denoise, z, gammas, noise, eta=1.0)


def heun(denoise: Denoise, z: Tensor, gammas: Tensor, noise: Noise | None = None) -> Tensor:
    """Heun's second-order method in z/alpha (Karras et al. 2022, Algorithm 1); two evaluations a step.

    `gammas` may also be (steps + 1, B): levels of its own for each example.
    """
    for gamma_t, gamma_s in zip(gammas[:-1], gammas[1:], strict=True):
        s_t, s_s = like(torch.exp(0.5 * gamma_t), z), like(torch.exp(0.5 * gamma_s), z)
        x = z / like(alpha(gamma_t), z)
        d_t = (x - _denoise_at(denoise, z, gamma_t)) / s_t
        euler = x + (s_s - s_t) * d_t
        at_s = like(alpha(gamma_s), z)
        d_s = (euler - _denoise_at(denoise, at_s * euler, gamma_s)) / s_s
        z = at_s * (x + (s_s - s_t) * 0.5 * (d_t + d_s))
    return z


def dpm_solver(denoise: Denoise, z: Tensor, gammas: Tensor, noise: Noise | None = None) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2): second order with one evaluation a step.

    With lambda = log(alpha / sigma) = -gamma / 2 and h = lambda_s - lambda_t:
    z_s = (sigma_s / sigma_t) z_t - alpha_s expm1(-h) D,   D = x_t + (x_t - x_before) h / (2 h_before).
    """
    before: tuple[Tensor, Tensor] | None = None
    for gamma_t, gamma_s in zip(gammas[:-1], gammas[1:], strict=True):
        h = 0.5 * (gamma_t - gamma_s)
        x_hat = _denoise_at(denoise, z, gamma_t)
        d = x_hat if before is None else x_hat + (h / (2 * before[1])) * (x_hat - before[0])
        z = sigma(gamma_s) / sigma(gamma_t) * z - alpha(gamma_s) * torch.expm1(-h) * d
        before = (x_hat, h)
    return z


def invert(denoise: Denoise, z: Tensor, gammas: Tensor) -> Tensor:
    """DDIM inversion: the z_1 from which `ddim` at eta = 0 returns (nearly) to this z_0.

    Euler's method on the same ODE upwards; its error falls in proportion to 1 / steps.

    Args:
        denoise: the same denoiser.
        z: (B, ...) at gammas[-1], the clean end.
        gammas: falling, as for the samplers.
    """
    for gamma_s, gamma_t in zip(gammas.flip(0)[:-1], gammas.flip(0)[1:], strict=True):
        x_hat = _denoise_at(denoise, z, gamma_s)
        e_hat = (z - alpha(gamma_s) * x_hat) / sigma(gamma_s)
        z = alpha(gamma_t) * x_hat + sigma(gamma_t) * e_hat
    return z


SAMPLERS: dict[str, Sampler] = {"ancestral": ancestral, "ddim": ddim, "heun": heun, "dpm_solver": dpm_solver}
