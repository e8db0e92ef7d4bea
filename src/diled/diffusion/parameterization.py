"""Wrappers that turn a network's output into a denoiser: an estimate of clean z.

    x:    x_hat = F(z_t)
    eps:  x_hat = (z_t - sigma F(z_t)) / alpha
    v:    x_hat = alpha z_t - sigma F(z_t)          (Salimans & Ho 2022)

A network that returns zeros makes `v` the exact denoiser of N(0, I), so a zero-initialised diffusion prior starts as the
prior of a VAE.
"""

from __future__ import annotations

from torch import Tensor, nn

from diled.diffusion.schedule import alpha, like, sigma

__all__ = ["PARAMETERIZATIONS", "Eps", "V", "X"]


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


PARAMETERIZATIONS: dict[str, type[X]] = {"x": X, "eps": Eps, "v": V}
