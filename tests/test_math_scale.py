"""What holds the scale of the codes: the table of 64 codes in R^8 under a constant beta of 0.008 and 1000 steps.

The paper's objective conditions each step on a noisy code x_1, which adds about 2 nats (the row at scale 0) to the sum of
its terms; ours integrates the encoder's noise out. Where the codes coincide or can be told apart, our rate is the paper's
less its row at scale 0: 0, or log 64 less what the last level keeps. Between the two, at scale 0.1, it is neither: there and
everywhere the rate is the information that a code holds, in continuous time, and in a chain of T steps the sum

    I = 1/2 int mmse d SNR,        sum over t of 1/2 (SNR_{t-1} - SNR_t) mmse(SNR_t)

(Guo et al. 2005, Eq. 25; Kingma et al. 2021, Eq. 13), which is more by what steps of finite size cost.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from closed_forms import MixtureDenoiser, alpha_sigma, assert_mean, log_normal, mean_and_error
from scipy.interpolate import CubicSpline

from diled.api import total
from diled.diffusion import Diffusion, Objective, constant_beta, simple
from diled.distributions import Normal

BETA, CODES, DIMS = 0.008, 64, 8
TABLE = {  # scale: (sum of the diffusion terms in nats, last KL), measured for the paper's objective
    0.0: (1.99, 0.0),
    0.1: (3.52, 0.0),
    1.0: (6.20, 0.001),
    10.0: (6.04, 0.130),
    30.0: (5.16, 1.17),
    100.0: (2.48, 13.0),
}


def codes() -> torch.Tensor:
    """64 codes of unit variance."""
    x = torch.randn(CODES, DIMS, generator=torch.Generator().manual_seed(0)).double()
    return (x - x.mean()) / x.std()


def diffusion(scale: float, **options) -> Diffusion:
    means = scale * codes()
    return Diffusion(MixtureDenoiser(means), constant_beta(1000, BETA), (DIMS,), timesteps=999, **options).double()


def posterior(scale: torch.Tensor | float, copies: int) -> Normal:
    mean = math.sqrt(1 - BETA) * scale * codes().repeat(copies, 1)
    return Normal(mean, torch.full_like(mean, math.log(BETA)))


def paper_sum(scale: float, n: int = 4000) -> torch.Tensor:
    """sum_{t >= 2} lambda_t || e - e_hat ||^2 of the paper's own chain, with its Bayes-optimal noise estimate."""
    t = torch.randint(2, 1001, (n,)).double()
    abar = (1 - BETA) ** t
    lam = BETA / (2 * (1 - BETA) * (1 - abar))
    means = scale * codes()
    x_1 = means.repeat(n // CODES + 1, 1)[:n] + math.sqrt(BETA) * torch.randn(n, DIMS).double()
    e = torch.randn(n, DIMS).double()
    x_t = abar.sqrt()[:, None] * x_1 + (1 - abar).sqrt()[:, None] * e
    var_t = (abar * BETA + 1 - abar)[:, None]  # of x_t given the mean
    squares = ((x_t[:, None] - abar.sqrt()[:, None, None] * means) ** 2).sum(2)
    mean = torch.softmax(-squares / (2 * var_t), 1) @ means
    e_hat = (1 - abar).sqrt()[:, None] / var_t * (x_t - abar.sqrt()[:, None] * mean)
    return 999 * lam * ((e - e_hat) ** 2).sum(1)


@pytest.mark.parametrize("scale", TABLE)
def test_the_table_of_the_papers_objective(scale):
    want, _ = TABLE[scale]
    mean, error = mean_and_error(paper_sum(scale, 20_000))
    assert mean == pytest.approx(want, rel=0.15, abs=4 * error)


def chain(scale: float, batches: int = 5) -> tuple[float, float]:
    """The chain's path in nats and its error. A batch visits each of the 999 steps 64 times: the first ones matter most."""
    model, q = diffusion(scale), posterior(scale, 999)
    return mean_and_error(torch.stack([model.terms(q, exact=True)["diffusion"].mean() for _ in range(batches)]))


@pytest.mark.parametrize("scale", [s for s in TABLE if s != 0.1])
def test_rate_is_the_table_less_its_constant(scale):
    diffusion_sum, last = TABLE[scale]
    path, error = chain(scale)
    assert path == pytest.approx(diffusion_sum - TABLE[0.0][0], rel=0, abs=0.05 + 4.5 * error)
    assert float(diffusion(scale).terms(posterior(scale, 1))["terminal"].mean()) == pytest.approx(
        last, rel=0.01, abs=5e-4
    )


def mmse(scale: float, snr: float, copies: int = 300) -> tuple[float, float]:
    """E || x - E[x | sqrt(snr) x + e] ||^2 of the codes and its error, from the posterior probabilities of all 64."""
    means = scale * codes()
    x = means.repeat(copies, 1)
    y = math.sqrt(snr) * x + torch.randn(len(x), DIMS).double()
    logits = math.sqrt(snr) * y @ means.T - 0.5 * snr * (means**2).sum(1)
    return mean_and_error(((x - torch.softmax(logits, 1) @ means) ** 2).sum(1))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 100.0])
def test_rate_of_the_chain_is_the_sum_of_its_steps(scale):
    """The mmse is smooth in log SNR, so it is drawn at 30 levels and interpolated; the sum is linear in what was drawn."""
    snr = (1 - BETA) ** np.arange(1, 1001) / (1 - (1 - BETA) ** np.arange(1, 1001))
    knots = np.linspace(math.log(snr[-1]), math.log(snr[1]), 30)
    drawn = np.array([mmse(scale, math.exp(k)) for k in knots])
    weights = 0.5 * (snr[:-1] - snr[1:]) @ CubicSpline(knots, np.eye(30))(np.log(snr[1:]))
    want, slack = float(weights @ drawn[:, 0]), float(np.linalg.norm(weights * drawn[:, 1]))
    path, error = chain(scale)
    assert slack < 0.02 * want
    assert path == pytest.approx(want, rel=0, abs=4.5 * math.hypot(error, slack))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 100.0])
def test_rate_is_the_information_in_the_code(scale):
    """In continuous time: KL(q || p_0) for the mixture of all posteriors, log 64 where they do not overlap; and what the
    last level still knows of the codes, KL(mixture at gamma_1 || N(0, I)), which the model ends without."""
    model = Diffusion(MixtureDenoiser(scale * codes()), constant_beta(1000, BETA), (DIMS,)).double()
    q = posterior(scale, 1000)
    gamma_0, gamma_1 = (gamma.double() for gamma in model.schedule.ends)
    z = q.sample()
    held, held_error = mean_and_error(-q.nll(z) - model.denoiser.log_density(z, gamma_0))
    assert held < math.log(64) + 1e-6
    assert (held > math.log(64) - 1e-6) == (scale >= 1)
    a, s = alpha_sigma(gamma_1)
    z = a * scale * codes().repeat(1000, 1) + s * torch.randn(64_000, DIMS).double()
    standard = log_normal(z, torch.zeros(DIMS).double(), torch.ones(DIMS).double())
    kept, kept_error = mean_and_error(model.denoiser.log_density(z, gamma_1) - standard)
    parts = [total(model.terms(posterior(scale, 60), exact=True)).mean() for _ in range(40)]
    assert_mean(torch.stack(parts), held + kept, slack=math.hypot(held_error, kept_error))


def slope_in_log_scale(scale: float, objective: Objective) -> torch.Tensor:
    """Per-example d(objective) / d(log scale) through the codes; the denoiser is optimal, so its own part is zero."""
    q = posterior(1.0, 100)
    log_scale = torch.full((len(q.mean), 1), math.log(scale), dtype=torch.float64, requires_grad=True)
    q = Normal(log_scale.exp() * q.mean, q.log_var)
    loss = total(diffusion(scale, times_per_code=2, objective=objective).terms(q))
    return torch.autograd.grad(loss.sum(), log_scale)[0][:, 0]


def test_only_the_last_kl_stops_the_codes_from_running_away():
    without = slope_in_log_scale(100.0, Objective(terminal=False))
    mean, error = mean_and_error(without)
    assert mean < -5 * error
    with_it = slope_in_log_scale(100.0, Objective())
    mean, error = mean_and_error(with_it)
    assert mean > 5 * error
    # d/d(log s) of alpha_T^2 s^2 || mu ||^2 / 2 is twice the last KL
    gain = float((with_it - without).mean())
    assert gain == pytest.approx(2 * 13.0, rel=0.15)


def test_unweighted_errors_pull_the_codes_down_below_the_hump_and_push_them_out_beyond():
    objective = Objective(simple(1.0, mean=True), terminal=False)
    mean, error = mean_and_error(slope_in_log_scale(0.3, objective))
    assert mean > 5 * error  # smaller codes cost less: collapse
    mean, error = mean_and_error(slope_in_log_scale(100.0, objective))
    assert mean < -5 * error  # and so do larger ones: explosion


def test_slope_is_the_finite_difference_of_the_value():
    h, scale = 0.1, 100.0

    def value(s: float) -> torch.Tensor:
        torch.manual_seed(7)
        return total(diffusion(s).terms(posterior(s, 400), exact=True))

    difference = (value(scale * math.exp(h)) - value(scale * math.exp(-h))) / (2 * h)
    mean, error = mean_and_error(difference)
    assert_mean(slope_in_log_scale(scale, Objective()), mean, slack=error)
