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
from torch import Tensor, nn

from diled.diffusion.schedule import alpha, like, sigma2
from diled.distributions import Normal

__all__ = ["GaussianProcess", "NeuralProcess", "Process", "alpha_ratio", "bridge", "bridge_variance"]


def alpha_ratio(gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
    """alpha_{t|s} = alpha_t / alpha_s."""
    return alpha(gamma_t) / alpha(gamma_s)


def bridge_variance(gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
    """sigma_{t|s}^2 = sigma_t^2 - alpha_{t|s}^2 sigma_s^2 = -sigma_t^2 expm1(gamma_s - gamma_t)."""
    return -sigma2(gamma_t) * torch.expm1(gamma_s - gamma_t)


def bridge(at_s: Normal, at_t: Normal, z_t: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Normal:
    """q(z_s | z_t, x) from the two marginals of a chain whose steps scale by alpha_{t|s} and add sigma_{t|s}^2."""
    a, added = like(alpha_ratio(gamma_s, gamma_t), z_t), like(bridge_variance(gamma_s, gamma_t), z_t)
    gain = a * (at_s.log_var - at_t.log_var).exp()
    return Normal(at_s.mean + gain * (z_t - at_t.mean), torch.log(added) + at_s.log_var - at_t.log_var)


class Process(nn.Module):
    """A forward process and the reverse step that belongs to it. Abstract."""

    ode = True
    """Whether the probability-flow ODE has the form that the ODE samplers solve."""

    def marginal(self, q: Normal, gamma_0: Tensor, gamma_t: Tensor) -> Normal:
        """q(z_t | x) for a posterior q = q(z_0 | x) and noise levels gamma_t (B,)."""
        raise NotImplementedError

    def step(self, z_t: Tensor, x_hat: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Normal:
        """p(z_s | z_t) for an estimate x_hat of clean z."""
        raise NotImplementedError


class GaussianProcess(Process):
    """The variance-preserving process."""

    def marginal(self, q: Normal, gamma_0: Tensor, gamma_t: Tensor) -> Normal:
        """N(alpha_{t|0} M, V_t)."""
        a, added = like(alpha_ratio(gamma_0, gamma_t), q.mean), like(bridge_variance(gamma_0, gamma_t), q.mean)
        return Normal(a * q.mean, torch.log(a**2 * q.log_var.exp() + added))

    def step(self, z_t: Tensor, x_hat: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Normal:
        """The posterior of the ordinary process, at x_hat."""
        a, added = alpha_ratio(gamma_s, gamma_t), bridge_variance(gamma_s, gamma_t)
        keep, pull = a * sigma2(gamma_s) / sigma2(gamma_t), alpha(gamma_s) * added / sigma2(gamma_t)
        log_var = torch.log(added * sigma2(gamma_s) / sigma2(gamma_t))
        return Normal(like(keep, z_t) * z_t + like(pull, z_t) * x_hat, like(log_var, z_t).expand_as(z_t))


class NeuralProcess(Process):
    """A neural diffusion model's process: a learned map transforms x at every noise level.

        q(z_t | x) = N(alpha_t F(x, t), sigma_t^2),        F(x, t) = x + w(t) f(x, t),   w(0) = 0
        q(z_s | z_t, x) = N(alpha_s F(x, s) + alpha_{t|s} sigma_s^2 / sigma_t^2 (z_t - alpha_t F(x, t)), ...)
        p(z_s | z_t) = q(z_s | z_t, x_hat(z_t, t))

    w = (gamma_t - gamma_0) / (gamma_1 - gamma_0), so z_0 is a noisy x as always. The identity (f = 0) is the ordinary
    process. The marginals are no linear function of each other, so the ODE samplers do not apply.

    Args:
        network: f(x, log SNR) in the shape of x, zero in the beginning.
        gamma_min, gamma_max: the schedule's ends.

    Reference: Bartosh et al. 2023 (arXiv 2310.08337), Eq. 6 to 9.
    """

    ode = False

    def __init__(self, network: nn.Module, gamma_min: float, gamma_max: float) -> None:
        super().__init__()
        self.network, self.low, self.high = network, gamma_min, gamma_max

    def transform(self, x: Tensor, gamma: Tensor) -> Tensor:
        """F(x, t) at noise levels gamma (B,) or ()."""
        gamma = gamma.expand(len(x))
        w = (gamma - self.low) / (self.high - self.low)
        return x + like(w, x) * self.network(x, -gamma).to(x.dtype)

    def marginal(self, q: Normal, gamma_0: Tensor, gamma_t: Tensor) -> Normal:
        """N(alpha_t F(x, t), sigma_t^2) for q = N(alpha_0 x, sigma_0^2)."""
        x = q.mean / alpha(gamma_0)
        mean = like(alpha(gamma_t), x) * self.transform(x, gamma_t)
        return Normal(mean, like(torch.log(sigma2(gamma_t)), x).expand_as(x))

    def step(self, z_t: Tensor, x_hat: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Normal:
        """q(z_s | z_t, x_hat)."""
        level = torch.log(sigma2(gamma_s)), torch.log(sigma2(gamma_t))
        at_s, at_t = (
            Normal(like(alpha(g), x_hat) * self.transform(x_hat, g), like(v, x_hat).expand_as(x_hat))
            for g, v in zip((gamma_s, gamma_t), level, strict=True)
        )
        return bridge(at_s, at_t, z_t, gamma_s, gamma_t)
