"""The forward process on codes of any Gaussian posterior, and one reverse step.

The decoder reads z_0 ~ q = N(M, V_0), the state of the chain at noise level gamma_0 = gamma(0). For every later t

    q(z_t | x) = N(alpha_{t|0} M, V_t),    V_t = alpha_{t|0}^2 V_0 + sigma_t^2 - alpha_{t|0}^2 sigma_0^2,

with alpha_{t|s} = alpha_t / alpha_s. With fixed encoder noise, V_0 = sigma_0^2 and M = alpha_0 E(x), this is the ordinary
process V_t = sigma_t^2 started at E(x); a learned variance may be any positive number, larger or smaller.

A reverse step from t to s, given an estimate x_hat of clean z, is the posterior of the ordinary process
(Ho et al. 2020, Eq. 7; Kingma et al. 2021, Eq. 32):

    p(z_s | z_t) = N( (alpha_{t|s} sigma_s^2 / sigma_t^2) z_t + (alpha_s sigma_{t|s}^2 / sigma_t^2) x_hat,
                      sigma_{t|s}^2 sigma_s^2 / sigma_t^2 ).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diled.diffusion.schedule import alpha, like, sigma2
from diled.distributions import Normal

__all__ = ["GaussianProcess", "alpha_ratio", "bridge_variance"]


def alpha_ratio(gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
    """alpha_{t|s} = alpha_t / alpha_s."""
    return alpha(gamma_t) / alpha(gamma_s)


def bridge_variance(gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
    """sigma_{t|s}^2 = sigma_t^2 - alpha_{t|s}^2 sigma_s^2 = -sigma_t^2 expm1(gamma_s - gamma_t)."""
    return -sigma2(gamma_t) * torch.expm1(gamma_s - gamma_t)


class GaussianProcess:
    """The variance-preserving process. A process with another mean or variance replaces this class."""

    ode = True
    """Whether the probability-flow ODE has the form that the ODE samplers solve."""

    def marginal(self, q: Normal, gamma_0: Tensor, gamma_t: Tensor) -> Normal:
        """q(z_t | x) for a posterior q = q(z_0 | x) and noise levels gamma_t (B,)."""
        a, added = like(alpha_ratio(gamma_0, gamma_t), q.mean), like(bridge_variance(gamma_0, gamma_t), q.mean)
        return Normal(a * q.mean, torch.log(a**2 * q.log_var.exp() + added))

    def posterior(self, at_s: Normal, at_t: Normal, z_t: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Normal:
        """q(z_s | z_t, x) from the two marginals."""
        a, added = like(alpha_ratio(gamma_s, gamma_t), z_t), like(bridge_variance(gamma_s, gamma_t), z_t)
        gain = a * (at_s.log_var - at_t.log_var).exp()
        return Normal(at_s.mean + gain * (z_t - at_t.mean), torch.log(added) + at_s.log_var - at_t.log_var)

    def step(self, z_t: Tensor, x_hat: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Normal:
        """p(z_s | z_t) for an estimate x_hat of clean z."""
        a, added = alpha_ratio(gamma_s, gamma_t), bridge_variance(gamma_s, gamma_t)
        keep, pull = a * sigma2(gamma_s) / sigma2(gamma_t), alpha(gamma_s) * added / sigma2(gamma_t)
        log_var = torch.log(added * sigma2(gamma_s) / sigma2(gamma_t))
        return Normal(like(keep, z_t) * z_t + like(pull, z_t) * x_hat, like(log_var, z_t).expand_as(z_t))
