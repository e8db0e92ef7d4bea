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
from diled.diffusion import Cosine, DataDiffusion, Diffusion, Linear, LinearLogSNR, LogNormal, NeuralProcess, V
from diled.diffusion.diffusion import stratified_times
from diled.diffusion.process import GaussianProcess, bridge
from diled.distributions import Normal
from diled.errors import ConfigError
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


@pytest.mark.parametrize("schedule", [Cosine, Linear, LogNormal])
def test_the_bound_depends_on_the_ends_of_the_schedule_only(schedule):
    """The same draws give the same bound, to the rounding of the ends, whatever the shape (Kingma et al. 2021, 5.1)."""
    q = posterior([0.8, -1.2], [0.3, 0.01], 2000)
    terms = []
    for shape in (LinearLogSNR, schedule):
        torch.manual_seed(1)
        terms.append(total(Diffusion(wrong_denoiser, shape(LOW, HIGH), (2,)).double().terms(q, exact=True)))
    torch.testing.assert_close(*terms, rtol=1e-5, atol=1e-5)


def test_training_on_other_schedules_prints_the_same_rate():
    want = continuous_rate(LOW, HIGH, 0.8, 0.6, wrong_denoiser)
    for schedule in (Linear, LogNormal):
        model = Diffusion(wrong_denoiser, schedule(LOW, HIGH), (1,)).double()
        assert_mean(total(model.terms(posterior([0.8], 0.6))), want)


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


# ------------------------------------------------------------------------------------------------ a learned map of x


def affine(x, log_snr):
    return 0.8 * x + 0.3


def bent(x, log_snr):
    return torch.tanh(1.3 * x + 0.2 * log_snr.reshape((-1,) + (1,) * (x.ndim - 1)))


def neural(network, steps: int | None = 5, denoiser=wrong_denoiser, dims: int = 2, **options) -> Diffusion:
    options = {"sampler": "ancestral"} | options
    process = NeuralProcess(network, LOW, HIGH)
    return Diffusion(denoiser, LinearLogSNR(LOW, HIGH), (dims,), timesteps=steps, process=process, **options).double()


def seen(x: torch.Tensor) -> Normal:
    """x through the chain's own first noise."""
    a_0, s_0 = alpha_sigma(torch.tensor(LOW).double())
    return Normal(a_0 * x, (2 * s_0.log()).expand_as(x))


def mapped(network, x: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
    """F(x, t) = x + w(t) f(x, t), w rising linearly in log SNR from 0 to 1."""
    return x + ((gamma - LOW) / (HIGH - LOW))[:, None] * network(x, -gamma)


@pytest.mark.parametrize("network", [affine, bent])
def test_a_step_of_a_neural_diffusion_costs_what_is_published(network):
    """KL = || alpha_s (F(x, s) - F(x^, s)) - gain alpha_t (F(x, t) - F(x^, t)) ||^2 / (2 s~^2), with

    gain = alpha_{t|s} sigma_s^2 / sigma_t^2 and s~^2 = sigma_{t|s}^2 sigma_s^2 / sigma_t^2 (Bartosh et al. 2023, Eq. 9).
    """
    x, steps = torch.randn(64, 2).double(), 5
    torch.manual_seed(2)
    terms = neural(network, steps).terms(seen(x), exact=True)
    torch.manual_seed(2)
    step = (torch.floor(stratified_times(64, 1, x) * steps) + 1).clamp(max=steps)
    e = torch.randn_like(x)
    gamma_s, gamma_t = (LOW + (HIGH - LOW) * (step - i) / steps for i in (1, 0))
    (a_s, s_s), (a_t, s_t) = ([v[:, None] for v in alpha_sigma(g)] for g in (gamma_s, gamma_t))
    a = a_t / a_s
    gain, var = a * s_s**2 / s_t**2, (s_t**2 - a**2 * s_s**2) * s_s**2 / s_t**2
    x_hat = wrong_denoiser(a_t * mapped(network, x, gamma_t) + s_t * e, -gamma_t)
    moved_s, moved_t = (mapped(network, x, g) - mapped(network, x_hat, g) for g in (gamma_s, gamma_t))
    want = ((a_s * moved_s - gain * a_t * moved_t) ** 2 / (2 * var)).sum(1)
    torch.testing.assert_close(terms["diffusion"], steps * want)
    last = torch.full((64,), HIGH).double()
    a_1, s_1 = alpha_sigma(last[:1])
    torch.testing.assert_close(
        terms["terminal"], normal_kl(a_1 * mapped(network, x, last), (s_1**2).expand(2), 0.0, torch.ones(2).double())
    )


def test_a_neural_diffusion_with_the_identity_is_a_ddpm():
    x, e = torch.randn(64, 2).double(), torch.randn(6, 2).double()
    model, plain = neural(lambda x, log_snr: torch.zeros_like(x)), diffusion(wrong_denoiser, 2, 5)
    both = []
    for m in (model, plain):
        torch.manual_seed(3)
        both.append(m.terms(seen(x), exact=True))
    for name, term in both[1].items():
        torch.testing.assert_close(both[0][name], term)
    gammas = torch.tensor([0.4]).double(), torch.tensor([1.7]).double()
    got, want = (m.process.step(e, 0.3 * e, *gammas) for m in (model, plain))
    torch.testing.assert_close(got.mean, want.mean)
    torch.testing.assert_close(got.log_var, want.log_var)
    draws = [m.sample(6, steps=4, sampler="ancestral", start=e, noise=lambda shape: 0.5 * e) for m in (model, plain)]
    torch.testing.assert_close(*draws)


@pytest.mark.parametrize("network", [affine, bent])
def test_a_neural_diffusion_that_knows_x_pays_nothing_on_its_path(network):
    x = torch.tensor([0.7, -1.1]).double()

    def knowing(z, log_snr, condition=None):
        return x.expand_as(z)

    model = neural(network, 6, knowing)
    cost = model.terms(seen(x.expand(100, 2)), exact=True)["diffusion"]
    torch.testing.assert_close(cost, torch.zeros(100).double(), rtol=0, atol=1e-12)
    # and its chain, entered with q(z_1 | x), ends on q(z_0 | x)
    n = 50_000
    last = torch.full((n,), HIGH).double()
    (a_1, s_1), (a_0, s_0) = (alpha_sigma(torch.tensor(g).double()) for g in (HIGH, LOW))
    z_1 = a_1 * mapped(network, x.expand(n, 2), last) + s_1 * torch.randn(n, 2).double()
    z_0 = model.sample(n, start=z_1, steps=3)
    for d in range(2):
        assert_mean(z_0[:, d], float(a_0 * x[d]))
        assert_mean((z_0[:, d] - a_0 * x[d]) ** 2, float(s_0**2))


def test_the_bound_of_a_neural_diffusion_is_above_the_entropy():
    """And with a map that undoes itself, x -> 0 at the noise end, the last KL is that of pure noise."""
    mean, var = torch.tensor([0.5, -0.2]).double(), torch.tensor([0.7, 2.0]).double()
    x = mean + var.sqrt() * torch.randn(20_000, 2).double()
    nll = 0.5 * (math.log(2 * math.pi) + var.log() + (x - mean) ** 2 / var).sum(1)
    for network in (affine, bent):
        model = DataDiffusion(neural(network, 8, GaussianDenoiser(mean, var)))
        excess, error = mean_and_error(model.bound(x) - nll)
        assert excess > 5 * error
    gone = neural(lambda x, log_snr: -x).terms(seen(x[:9]), exact=True)["terminal"]
    s_1 = alpha_sigma(torch.tensor(HIGH).double())[1] ** 2
    torch.testing.assert_close(gone, (s_1 - 1 - s_1.log()).expand(9))  # D = 2, each half of that


def test_a_neural_diffusion_refuses_what_it_cannot():
    model = neural(bent, 3)
    with pytest.raises(ConfigError, match="ancestral"):
        model.sample(2, sampler="ddim")
    with pytest.raises(ConfigError, match="no inverse"):
        model.invert(torch.zeros(1, 2).double())
    assert not DataDiffusion(model).has_codes
    assert DataDiffusion(diffusion(wrong_denoiser, 2)).has_codes
    for wrong in ({"steps": None}, {"sampler": "ddim"}):
        with pytest.raises(ValueError, match="discrete chain"):
            neural(bent, **wrong)
