"""Answers that are known: exact denoisers, path integrals by quadrature, linear-Gaussian models, toy data.

Nothing here uses a formula of the library: alpha and sigma are formed from the log SNR again, and every Gaussian factor
is written out, so that a wrong sign or factor in the library cannot hide by being used on both sides.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


# ---------------------------------------------------------------------------------------------------- Monte Carlo


def mean_and_error(samples: Tensor) -> tuple[float, float]:
    """The mean and its standard error."""
    samples = samples.detach().double()
    return float(samples.mean()), float(samples.std() / math.sqrt(len(samples)))


def assert_mean(samples: Tensor, want: float, *, sigmas: float = 4.5, slack: float = 0.0) -> None:
    """The Monte-Carlo mean agrees with a number, or with another estimate whose error is `slack`."""
    mean, error = mean_and_error(samples)
    limit = sigmas * math.hypot(error, slack) + 1e-9
    assert abs(mean - want) < limit, f"{mean:.5f} +- {error:.5f} but expected {want:.5f}"


def loglog_slope(sizes: list[int], errors: list[float]) -> float:
    """The order at which errors fall with the number of steps."""
    return -float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


# ----------------------------------------------------------------------------------------------- noise levels


def alpha_sigma(gamma: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at gamma = log(sigma^2 / alpha^2), with alpha^2 + sigma^2 = 1."""
    ratio = torch.exp(gamma)
    return (1 / (1 + ratio)).sqrt(), (ratio / (1 + ratio)).sqrt()


def _levels(log_snr: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    a, s = alpha_sigma(-log_snr)
    column = (-1,) + (1,) * (z.ndim - 1)
    return a.reshape(column), s.reshape(column)


def log_normal(x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """log N(x; mean, var), summed over everything but the batch."""
    return (-0.5 * (LOG_2PI + torch.log(var) + (x - mean) ** 2 / var)).expand_as(x).flatten(1).sum(1)


def normal_entropy(var: Tensor) -> Tensor:
    """The entropy of N(., var), summed."""
    return (0.5 * torch.log(2 * math.pi * math.e * var)).sum()


def normal_kl(m: Tensor, v: Tensor, mean: Tensor | float, var: Tensor) -> Tensor:
    """KL(N(m, v) || N(mean, var)), summed over the last dimension."""
    return (0.5 * (v / var + (m - mean) ** 2 / var - 1 - torch.log(v / var))).sum(-1)


# --------------------------------------------------------------------------------------------------- denoisers


class GaussianDenoiser:
    """E[x | z_t] for x ~ N(mean, var), dimensions independent, from the precision-weighted average."""

    def __init__(self, mean: Tensor, var: Tensor) -> None:
        self.mean, self.var = mean, var

    def __call__(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        a, s = _levels(log_snr, z_t)
        precision_prior, precision_data = 1 / self.var, (a / s) ** 2
        return (precision_prior * self.mean + precision_data * z_t / a) / (precision_prior + precision_data)

    def at_zero(self, gamma_0: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the model's z_0."""
        a, s = alpha_sigma(gamma_0)
        return a * self.mean, a**2 * self.var + s**2


class MixtureDenoiser:
    """E[x | z_t] for x ~ sum_k w_k N(mean_k, var), means (K, D), one variance (which may be 0)."""

    def __init__(self, means: Tensor, var: float = 0.0, weights: Tensor | None = None) -> None:
        self.means, self.var = means, var
        self.weights = torch.full((len(means),), 1 / len(means)).to(means) if weights is None else weights

    def __call__(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        a, s = _levels(log_snr, z_t)
        var_t = a**2 * self.var + s**2
        logits = self.weights.log() - self._squares(z_t, a) / (2 * var_t)
        mean = torch.softmax(logits, 1) @ self.means
        return mean + a * self.var / var_t * (z_t - a * mean)

    def _squares(self, z: Tensor, a: Tensor) -> Tensor:
        """|| z - a mean_k ||^2, (B, K)."""
        return (z**2).sum(1, keepdim=True) - 2 * a * (z @ self.means.T) + a**2 * (self.means**2).sum(1)

    def log_density(self, z: Tensor, gamma: Tensor) -> Tensor:
        """log p(z_t) at one noise level."""
        a, s = alpha_sigma(gamma)
        var = a**2 * self.var + s**2
        squares = self._squares(z, a)
        return torch.logsumexp(self.weights.log() - squares / (2 * var), 1) - 0.5 * z.shape[1] * torch.log(
            2 * math.pi * var
        )


def wrong_denoiser(z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
    """No posterior mean of anything: nonlinear in z, and dependent on the noise level. Acts on each dimension alone."""
    level = log_snr.reshape((-1,) + (1,) * (z_t.ndim - 1))
    return 1.5 * torch.tanh(0.7 * z_t + 0.1 * level) - 0.3 + 0.05 * level


# ------------------------------------------------------------------------------------------ the rate, as a path


def path_gammas(gamma_min: float, gamma_max: float, steps: int) -> Tensor:
    """steps + 1 equally spaced noise levels, float64."""
    return torch.linspace(gamma_min, gamma_max, steps + 1, dtype=torch.float64)


def _bridge(gamma_s: Tensor, gamma_t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    (a_s, s_s), (a_t, s_t) = alpha_sigma(gamma_s), alpha_sigma(gamma_t)
    a = a_t / a_s
    return a_s, s_s, s_t, a, s_t**2 - a**2 * s_s**2


def reverse_step(z_t: Tensor, x_hat: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of p(z_s | z_t): prior N(alpha_s x_hat, sigma_s^2) times likelihood N(z_t; a z_s, added)."""
    a_s, s_s, _, a, added = _bridge(gamma_s, gamma_t)
    precision = 1 / s_s**2 + a**2 / added
    return (a_s * x_hat / s_s**2 + a * z_t / added) / precision, 1 / precision


def simulated_path_rate(gammas: Tensor, mean: Tensor, var: Tensor, denoiser, n: int) -> Tensor:  # type: ignore[no-untyped-def]
    """n draws of log q(z_0..z_T | x) - log p(z_0..z_T), the chain simulated step by step."""
    mean, var = mean.expand(n, -1), var.expand(n, -1)
    z = mean + var.sqrt() * torch.randn_like(mean)
    log_ratio = log_normal(z, mean, var)
    for gamma_s, gamma_t in itertools.pairwise(gammas):
        _, _, _, a, added = _bridge(gamma_s, gamma_t)
        z_s, z = z, a * z + added.sqrt() * torch.randn_like(z)
        log_ratio = log_ratio + log_normal(z, a * z_s, added)
        x_hat = denoiser(z, (-gamma_t).expand(n))
        log_ratio = log_ratio - log_normal(z_s, *reverse_step(z, x_hat, gamma_s, gamma_t))
    return log_ratio - log_normal(z, torch.zeros_like(z), torch.ones_like(z))


def path_rate(gammas: Tensor, mean: float, var: float, denoiser, nodes: int = 60) -> float:  # type: ignore[no-untyped-def]
    """The same in one dimension without noise: Gauss-Hermite quadrature of every factor of the path."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    x, w = torch.tensor(x), torch.tensor(w / math.sqrt(2 * math.pi))
    gamma_s, gamma_t = gammas[:-1, None], gammas[1:, None]
    a_0, s_0 = alpha_sigma(gammas[0])

    def marginal(gamma: Tensor) -> tuple[Tensor, Tensor]:
        a, s = alpha_sigma(gamma)
        return a / a_0 * mean, (a / a_0) ** 2 * var + s**2 - (a / a_0) ** 2 * s_0**2

    (m_s, v_s), (m_t, v_t) = marginal(gamma_s), marginal(gamma_t)
    _, _, _, a, added = _bridge(gamma_s, gamma_t)
    z_t = m_t + v_t.sqrt() * x
    x_hat = denoiser(z_t.reshape(-1), (-gamma_t).expand_as(z_t).reshape(-1)).reshape(z_t.shape)
    step_mean, step_var = reverse_step(z_t, x_hat, gamma_s, gamma_t)
    # z_s given z_t, from their joint Gaussian with covariance a V_s.
    cond_mean, cond_var = m_s + a * v_s / v_t * (z_t - m_t), v_s - (a * v_s) ** 2 / v_t
    cross = 0.5 * (LOG_2PI + torch.log(step_var) + ((cond_mean - step_mean) ** 2 + cond_var) / step_var)
    forward_entropy = 0.5 * (1 + LOG_2PI + torch.log(added)).sum() + 0.5 * (1 + LOG_2PI + math.log(var))
    m_1, v_1 = marginal(gammas[-1])
    return float((cross * w).sum() - forward_entropy + 0.5 * (LOG_2PI + m_1**2 + v_1))


def continuous_rate(gamma_min: float, gamma_max: float, mean: float, var: float, denoiser, steps: int = 2000) -> float:  # type: ignore[no-untyped-def]
    """The limit of many steps, by Richardson's extrapolation of the path."""
    coarse = path_rate(path_gammas(gamma_min, gamma_max, steps), mean, var, denoiser)
    fine = path_rate(path_gammas(gamma_min, gamma_max, 2 * steps), mean, var, denoiser)
    return 2 * fine - coarse


def squares_by_hand(schedule, network, mean, log_var, t, e):  # type: ignore[no-untyped-def]
    """gamma, gamma'(t) and || sigma / sqrt V e - e_hat ||^2, formula by formula."""
    gamma, slope = schedule.gamma(t), schedule.slope(t)
    (a_0, s_0), (a, s) = alpha_sigma(schedule.ends[0]), alpha_sigma(gamma[:, None])
    var = (a / a_0) ** 2 * (log_var.exp() - s_0**2) + s**2
    z_t = a / a_0 * mean + var.sqrt() * e
    e_hat = (z_t - a * network(z_t, -gamma)) / s
    return gamma, slope, ((s / var.sqrt() * e - e_hat) ** 2).sum(1)


# ---------------------------------------------------------------------------------------- linear-Gaussian models


class LinearGaussian:
    """z ~ N(prior_mean, diag prior_var), x | z ~ N(W z + b, noise_var I): evidence and posterior in closed form."""

    def __init__(self, w: Tensor, b: Tensor, noise_var: float, prior_mean: Tensor, prior_var: Tensor) -> None:
        self.w, self.b, self.noise_var = w, b, noise_var
        self.prior_mean, self.prior_var = prior_mean, prior_var

    def nll(self, x: Tensor) -> Tensor:
        """-log p(x), (B,)."""
        cov = self.w @ torch.diag(self.prior_var) @ self.w.T + self.noise_var * torch.eye(len(self.b)).to(self.w)
        mean = self.w @ self.prior_mean + self.b
        return -torch.distributions.MultivariateNormal(mean, cov).log_prob(x)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, D) and diagonal variance (D,); W must have orthogonal columns, so that the posterior is diagonal."""
        gram = self.w.T @ self.w
        assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-9)
        var = 1 / (1 / self.prior_var + gram.diagonal() / self.noise_var)
        return var * (self.prior_mean / self.prior_var + (x - self.b) @ self.w / self.noise_var), var


# ---------------------------------------------------------------------------------------------------- toy data


class GaussianData:
    """N(mean, diag var) in two dimensions."""

    mean, var = torch.tensor([0.5, -1.0]), torch.tensor([1.5, 0.3])

    def sample(self, n: int) -> Tensor:
        return self.mean + self.var.sqrt() * torch.randn(n, 2)

    def nll(self, x: Tensor) -> Tensor:
        return -log_normal(x, self.mean, self.var)

    def entropy(self) -> float:
        return float(normal_entropy(self.var))


class MixtureData:
    """Two Gaussians, in two dimensions; the first dimension tells them apart."""

    means, var = torch.tensor([[-1.5, 0.0], [1.0, 0.0]]), 0.2
    weights = torch.tensor([0.3, 0.7])

    def sample(self, n: int) -> Tensor:
        k = torch.multinomial(self.weights, n, replacement=True)
        return self.means[k] + math.sqrt(self.var) * torch.randn(n, 2)

    def nll(self, x: Tensor) -> Tensor:
        squares = ((x[:, None] - self.means) ** 2).sum(2)
        return math.log(2 * math.pi * self.var) - torch.logsumexp(self.weights.log() - squares / (2 * self.var), 1)

    def entropy(self) -> float:
        """The second dimension's entropy, and the first's by the trapezium rule."""
        u = torch.linspace(-6, 6, 20001, dtype=torch.float64)
        gap = (u[:, None] - self.means[:, 0].double()) ** 2
        p = (self.weights.double() * torch.exp(-gap / (2 * self.var)) / math.sqrt(2 * math.pi * self.var)).sum(1)
        return float(torch.trapezoid(-p * torch.log(p), u)) + 0.5 * math.log(2 * math.pi * math.e * self.var)


class TableData:
    """Vectors of `dims` grey values out of `levels` in [-1, 1] with a known table of probabilities."""

    def __init__(self, levels: int, dims: int) -> None:
        g = torch.Generator().manual_seed(levels)
        grid = torch.linspace(-1, 1, levels)
        self.values = torch.cartesian_prod(*[grid] * dims).reshape(-1, dims)
        self.log_p = (2 * torch.randn(len(self.values), generator=g)).log_softmax(0)
        self.levels, self.dims = levels, dims

    def _index(self, x: Tensor) -> Tensor:
        digits = ((x + 1) * 0.5 * (self.levels - 1)).round().long()
        return sum(digits[:, i] * self.levels ** (self.dims - 1 - i) for i in range(self.dims))  # type: ignore[return-value]

    def sample(self, n: int) -> Tensor:
        return self.values[torch.multinomial(self.log_p.exp(), n, replacement=True)]

    def nll(self, x: Tensor) -> Tensor:
        return -self.log_p[self._index(x)]

    def entropy(self) -> float:
        return float(-(self.log_p.exp() * self.log_p).sum())
