"""The rate of a diffusion prior is the KL of two paths, for any posterior variance and any denoiser."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from closed_forms import (
    GaussianDenoiser,
    MixtureDenoiser,
    alpha_sigma,
    assert_mean,
    continuous_rate,
    loglog_slope,
    mean_and_error,
    normal_kl,
    path_gammas,
    path_rate,
    reverse_step,
    simulated_path_rate,
    wrong_denoiser,
)

from diled.api import total
from diled.diffusion import Cosine, Diffusion, LinearLogSNR, V
from diled.diffusion.process import GaussianProcess, bridge
from diled.distributions import Normal
from diled.models.autoencoder import FixedNoiseEncoder
from diled.models.priors import StandardNormal

LOW, HIGH = -3.0, 4.0
VARIANCES = {"sigma_0^2": 1 / (1 + math.exp(-LOW)), "smaller": 0.004, "larger": 0.6}
N, BATCHES = 100_000, 50


def diffusion(denoiser, dims: int, steps: int | None = None, **options) -> Diffusion:
    return Diffusion(denoiser, LinearLogSNR(LOW, HIGH), (dims,), timesteps=steps, **options).double()


def posterior(mean, var, n: int = N) -> Normal:
    mean = torch.as_tensor(mean, dtype=torch.float64)
    var = torch.as_tensor(var, dtype=torch.float64).expand_as(mean)
    return Normal(mean.expand(n, -1), var.log().expand(n, -1))


def rates(model, q: Normal) -> torch.Tensor:
    """The means of BATCHES batches: their spread shows the true error, which stratified times make smaller."""
    qs = zip(q.mean.chunk(BATCHES), q.log_var.chunk(BATCHES), strict=True)
    return torch.stack([total(model.terms(Normal(*part), exact=True)).mean() for part in qs])


def test_marginals_and_bridges_are_those_of_the_chain():
    """One step at a time: z_t = a z_s + noise; and the bridge is the conditional of their joint Gaussian."""
    process, gammas = GaussianProcess(), path_gammas(LOW, HIGH, 7)
    q = posterior([0.8, -1.2], [0.3, 0.01], 1)
    mean, var = q.mean, q.log_var.exp()
    for gamma_s, gamma_t in itertools.pairwise(gammas):
        (a_s, s_s), (a_t, s_t) = alpha_sigma(gamma_s), alpha_sigma(gamma_t)
        a = a_t / a_s
        mean_s, var_s = mean, var
        mean, var = a * mean, a**2 * var + s_t**2 - a**2 * s_s**2
        at_s, at_t = process.marginal(q, gammas[0], gamma_s), process.marginal(q, gammas[0], gamma_t)
        torch.testing.assert_close(at_t.mean, mean)
        torch.testing.assert_close(at_t.log_var.exp(), var)
        z_t = torch.randn(1, 2, dtype=torch.float64)
        back = bridge(at_s, at_t, z_t, gamma_s, gamma_t)
        torch.testing.assert_close(back.mean, mean_s + a * var_s / var * (z_t - mean))
        torch.testing.assert_close(back.log_var.exp(), var_s - (a * var_s) ** 2 / var)
        step = process.step(z_t, 0.3 * z_t, gamma_s, gamma_t)
        want_mean, want_var = reverse_step(z_t, 0.3 * z_t, gamma_s, gamma_t)
        torch.testing.assert_close(step.mean, want_mean)
        torch.testing.assert_close(step.log_var.exp(), want_var.expand(1, 2))


@pytest.mark.parametrize("var", VARIANCES.values(), ids=VARIANCES.keys())
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_discrete_rate_is_the_path_form_for_a_wrong_denoiser(steps, var):
    mean = torch.tensor([0.8, -1.2], dtype=torch.float64)

    def mixing(z_t, log_snr, condition=None):  # one dimension's estimate depends on the other
        return wrong_denoiser(z_t + 0.4 * z_t.flip(1), log_snr)

    paths = simulated_path_rate(path_gammas(LOW, HIGH, steps), mean, torch.full_like(mean, var), mixing, N)
    want, error = mean_and_error(paths)
    assert_mean(rates(diffusion(mixing, 2, steps), posterior(mean, var)), want, slack=error)


@pytest.mark.parametrize("var", VARIANCES.values(), ids=VARIANCES.keys())
def test_discrete_rate_is_the_path_form_by_quadrature(var):
    want = path_rate(path_gammas(LOW, HIGH, 5), 0.8, var, wrong_denoiser)
    simulated = simulated_path_rate(
        path_gammas(LOW, HIGH, 5), torch.tensor([0.8]).double(), torch.tensor([var]).double(), wrong_denoiser, N
    )
    assert_mean(simulated, want)
    assert_mean(rates(diffusion(wrong_denoiser, 1, 5), posterior([0.8], var)), want)


@pytest.mark.parametrize("schedule", [LinearLogSNR, Cosine])
@pytest.mark.parametrize("var", VARIANCES.values(), ids=VARIANCES.keys())
def test_continuous_rate_is_the_limit_of_the_path(var, schedule):
    want = continuous_rate(LOW, HIGH, 0.8, var, wrong_denoiser)
    model = Diffusion(wrong_denoiser, schedule(LOW, HIGH), (1,)).double()
    assert_mean(rates(model, posterior([0.8], var)), want)


def test_times_per_code_average_the_same_rate():
    want = continuous_rate(LOW, HIGH, 0.8, 0.6, wrong_denoiser)
    terms = diffusion(wrong_denoiser, 1, times_per_code=4).terms(posterior([0.8], 0.6, N // 4))
    assert_mean(total(terms), want)


@pytest.mark.parametrize("var", VARIANCES.values(), ids=VARIANCES.keys())
def test_optimal_denoiser_gives_the_exact_kl(var):
    exact = GaussianDenoiser(torch.tensor([0.5, -0.2]).double(), torch.tensor([0.7, 2.0]).double())
    mean = torch.tensor([0.8, -1.2], dtype=torch.float64)
    p_mean, p_var = exact.at_zero(torch.tensor(LOW, dtype=torch.float64))
    want = float(normal_kl(mean, torch.full_like(mean, var), p_mean, p_var))
    assert_mean(rates(diffusion(exact, 2), posterior(mean, var)), want)
    for steps, tolerance in ((50, 0.25), (200, 0.07)):  # the excess is never negative and falls with 1 / T
        samples = rates(diffusion(exact, 2, steps), posterior(mean, var))
        excess, error = mean_and_error(samples - want)
        assert -4.5 * error < excess < tolerance + 4.5 * error


def test_discrete_rate_of_the_optimal_denoiser_converges_at_order_one():
    exact = GaussianDenoiser(torch.tensor([0.5]).double(), torch.tensor([0.7]).double())
    p_mean, p_var = exact.at_zero(torch.tensor(LOW, dtype=torch.float64))
    mean, var = torch.tensor([0.8]).double(), torch.tensor([0.6]).double()
    want = float(normal_kl(mean, var, p_mean, p_var))
    steps = [16, 32, 64, 128]
    excess = [path_rate(path_gammas(LOW, HIGH, t), 0.8, 0.6, exact) - want for t in steps]
    assert loglog_slope(steps, excess) == pytest.approx(1.0, abs=0.05)
    for t, e in zip(steps[:2], excess[:2], strict=True):
        assert_mean(rates(diffusion(exact, 1, t), posterior([0.8], 0.6)), want + e)


def test_optimal_denoiser_of_a_mixture_gives_the_exact_kl():
    means = torch.tensor([[-1.0, 0.5], [1.0, -0.5], [0.3, 2.0]]).double()
    exact = MixtureDenoiser(means, 0.1)
    q = posterior([0.4, 0.1], 0.09)
    z = q.sample()
    kl = -q.nll(z) - exact.log_density(z, torch.tensor(LOW).double())
    want, error = mean_and_error(kl)
    assert_mean(rates(diffusion(exact, 2), q), want, slack=error)


def test_a_silent_v_network_is_the_prior_of_a_vae():
    model = diffusion(V(lambda z, log_snr, condition: torch.zeros_like(z)), 2)
    q = posterior([0.8, -1.2], [0.3, 1.7])
    kl = total(StandardNormal((2,)).terms(q, exact=True))[0]
    assert_mean(rates(model, q), float(kl))


def test_terminal_term_is_the_last_kl():
    q = posterior([0.8, -1.2], [0.3, 1.7], 1)
    a_0, s_0 = alpha_sigma(torch.tensor(LOW).double())
    a_1, s_1 = alpha_sigma(torch.tensor(HIGH).double())
    ratio = a_1 / a_0
    var = ratio**2 * q.var[0] + s_1**2 - ratio**2 * s_0**2
    want = normal_kl(ratio * q.mean[0], var, 0.0, torch.ones(2).double())
    got = diffusion(wrong_denoiser, 2).terms(q, exact=True)["terminal"]
    assert float(got) == pytest.approx(float(want), rel=1e-10)


@pytest.mark.parametrize("steps", [None, 4])
@pytest.mark.parametrize("ratio", [1.0, 0.3, 5.0])
def test_feeding_a_sample_adds_the_first_noise_again(ratio, steps):
    """With q' = N(m, v) in units of x, v = ratio sigma_0^2 / alpha_0^2, and q = N(alpha_0 m, alpha_0^2 v + sigma_0^2):

    E terms(z ~ q') - H(q') - terms(q) = I(z; z_0) + H(p(z | z_0)) - H(q') = 1/2 sum log(1 + sigma_0^2 / (alpha_0^2 v)),

    for every denoiser and every T: (D / 2) log 2 nats where v is the first noise in units of x.
    """
    a_0, s_0 = alpha_sigma(torch.tensor(LOW).double())
    m = torch.tensor([0.8, -1.2]).double()
    v = ratio * s_0**2 / a_0**2
    model = diffusion(wrong_denoiser, 2, steps)
    of_sample = total(model.terms_of_sample(posterior(m, v), exact=True))
    of_distribution, error = mean_and_error(rates(model, posterior(a_0 * m, a_0**2 * v + s_0**2)))
    gap = math.log1p(1 / ratio)  # D = 2
    assert gap == pytest.approx(math.log(2)) or ratio != 1
    assert_mean(of_sample, of_distribution + gap, slack=error)


def test_the_sample_form_is_noisier():
    a_0, s_0 = alpha_sigma(torch.tensor(-8.0).double())
    exact = GaussianDenoiser(torch.zeros(8).double(), torch.ones(8).double())
    model = Diffusion(exact, LinearLogSNR(-8.0, 6.0), (8,)).double()
    m, v = torch.ones(8).double(), s_0**2 / a_0**2
    of_sample = total(model.terms_of_sample(posterior(m, v, 20_000), exact=True))
    of_distribution = total(model.terms(posterior(a_0 * m, 2 * s_0**2, 20_000), exact=True))
    assert of_sample.var() > of_distribution.var()


@pytest.mark.parametrize("steps", [None, 10])
def test_learned_variance_set_to_the_first_noise_is_the_fixed_noise_encoder(steps):
    model = Diffusion(wrong_denoiser, LinearLogSNR(LOW, HIGH), (2,), timesteps=steps)
    x = torch.randn(64, 2)
    q = FixedNoiseEncoder(torch.nn.Identity(), model.schedule)(x)
    a_0, s_0 = alpha_sigma(torch.tensor(LOW))
    torch.manual_seed(1)
    fixed = total(model.terms(q, exact=True))
    torch.manual_seed(1)
    learned = total(model.terms(Normal(a_0 * x, (s_0**2).log().expand(64, 2)), exact=True))
    torch.testing.assert_close(fixed, learned)
    # and the diffusion of a tensor is the same posterior, read back by the chain's own first step
    torch.manual_seed(1)
    of_tensor = model.terms(x, exact=True)
    last = 2 * 0.5 * (math.log(2 * math.pi * math.e) + math.log(s_0**2 / a_0**2))
    torch.testing.assert_close(of_tensor["last_step"], torch.full((64,), last))
    torch.testing.assert_close(total(of_tensor) - of_tensor["last_step"], fixed)


def test_gradients_of_the_rate_reach_mean_and_variance():
    """Pathwise gradients equal finite differences of the quadrature."""
    mean, log_var = (torch.full((N, 1), v, dtype=torch.float64, requires_grad=True) for v in (0.8, math.log(0.6)))
    total(diffusion(wrong_denoiser, 1).terms(Normal(mean, log_var), exact=True)).sum().backward()

    def limit(m: float, lv: float) -> float:
        return continuous_rate(LOW, HIGH, m, math.exp(lv), wrong_denoiser, 500)

    h = 1e-3
    lv = math.log(0.6)
    assert_mean(mean.grad[:, 0], (limit(0.8 + h, lv) - limit(0.8 - h, lv)) / (2 * h))
    assert_mean(log_var.grad[:, 0], (limit(0.8, lv + h) - limit(0.8, lv - h)) / (2 * h))
