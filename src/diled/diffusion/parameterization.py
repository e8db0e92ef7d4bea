"""Wrappers that turn a network's output into a denoiser: an estimate of clean z.

    x:    x_hat = F(z_t)
    eps:  x_hat = (z_t - sigma F(z_t)) / alpha
    v:    x_hat = alpha z_t - sigma F(z_t)          (Salimans & Ho 2022)
    edm:  x_hat = c_skip z_t / alpha + c_out F(c_in z_t / alpha)          (Karras et al. 2022, Eq. 7)

with s = sigma / alpha and c_skip = d^2 / (s^2 + d^2), c_out = s d / sqrt(s^2 + d^2), c_in = 1 / sqrt(s^2 + d^2) for data of
standard deviation d. A network that returns zeros makes `v` the exact denoiser of N(0, I), so a zero-initialised diffusion
prior starts as the prior of a VAE; and `edm` that of N(0, d^2 I). At d = 1 the two are the same but for the sign of F.

`Mixed` mixes a denoiser with that of N(0, I).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diled.diffusion.schedule import alpha, like, sigma

__all__ = ["EDM", "PARAMETERIZATIONS", "Eps", "Mixed", "V", "X"]


class X(nn.Module):
    """The network estimates clean z."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """x_hat, in the shape of z_t."""
        return self.network(z_t, log_snr, condition)


class Eps(X):
    """The network estimates the noise."""

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """x_hat, in the shape of z_t."""
        a, s = like(alpha(-log_snr), z_t), like(sigma(-log_snr), z_t)
        return (z_t - s * self.network(z_t, log_snr, condition)) / a


class V(X):
    """The network estimates v = alpha e - sigma x."""

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """x_hat, in the shape of z_t."""
        a, s = like(alpha(-log_snr), z_t), like(sigma(-log_snr), z_t)
        return a * z_t - s * self.network(z_t, log_snr, condition)


class EDM(X):
    """The network estimates what is left after the best linear estimate, scaled to unit variance.

    Args:
        network: (c_in z / alpha, log SNR, condition) -> F.
        sigma_data: d, the standard deviation of the data about zero.
    """

    def __init__(self, network: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__(network)
        self.sigma_data = sigma_data

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """x_hat, in the shape of z_t."""
        d, s, x = self.sigma_data, like(torch.exp(-0.5 * log_snr), z_t), z_t / like(alpha(-log_snr), z_t)
        spread = (s**2 + d**2).sqrt()
        return d**2 / spread**2 * x + s * d / spread * self.network(x / spread, log_snr, condition)


class Mixed(nn.Module):
    """LSGM's mixed score: e_hat = (1 - m) sigma z_t + m e_hat', that is x_hat = (1 - m) alpha z_t + m x_hat'.

    The first part is the denoiser of N(0, I); m, one learned share for each dimension, says how far the codes are from it
    (Vahdat et al. 2021, section 3.1). The logit of m is ten times the parameter: at one optimiser's step for all, a lone
    number would crawl behind the networks.

    Args:
        denoiser: (z_t, log SNR, condition) -> x_hat'.
        shape: of one code.
        start: m in the beginning.
    """

    PACE = 10.0

    def __init__(self, denoiser: nn.Module, shape: tuple[int, ...], *, start: float = 0.1) -> None:
        super().__init__()
        self.denoiser = denoiser
        logit = torch.logit(torch.tensor(start))
        self.pace = nn.Parameter((logit / self.PACE).expand(shape).clone())

    @property
    def share(self) -> Tensor:
        """m, in the shape of a code."""
        return torch.sigmoid(self.PACE * self.pace)

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """x_hat, in the shape of z_t."""
        normal = like(alpha(-log_snr), z_t) * z_t
        return torch.lerp(normal, self.denoiser(z_t, log_snr, condition).to(normal.dtype), self.share.to(normal.dtype))


PARAMETERIZATIONS: dict[str, Callable[[nn.Module], X]] = {"x": X, "eps": Eps, "v": V, "edm": EDM}
