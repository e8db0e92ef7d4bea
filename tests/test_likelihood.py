"""Estimates of log p(x) against evidences in closed form and by quadrature."""

from __future__ import annotations

import math

import pytest
import torch
from closed_forms import (
    GaussianDenoiser,
    LinearGaussian,
    MixtureDenoiser,
    alpha_sigma,
    assert_mean,
    log_normal,
    mean_and_error,
    normal_kl,
    path_gammas,
    path_rate,
    reverse_step,
    wrong_denoiser,
)
from tiny import small
from torch import Tensor, nn

from diled.api import Density, NoBound
from diled.config import DataSpec
from diled.data.proteins import protein_spec
from diled.diffusion import Consistency, Diffusion, LinearLogSNR, V
from diled.diffusion.consistency import ConsistencyFunction
from diled.diffusion.data import DataDiffusion, DiffusionDecoder
from diled.diffusion.process import NeuralProcess
from diled.diffusion.schedule import LogNormal
from diled.distributions import Normal
from diled.errors import ConfigError
from diled.evaluation import ais as annealing
from diled.evaluation import likelihood
from diled.evaluation.ais import Target, ais, bdmc, leapfrog, temperatures
from diled.evaluation.likelihood import elbo, importance, iwae, log_weight, ode_log_density, path_log_weight
from diled.family import model_config
from diled.models.autoencoder import (
    Autoencoder,
    BernoulliLikelihood,
    DiracEncoder,
    GaussianEncoder,
    GaussianLikelihood,
    LikelihoodDecoder,
)
from diled.models.priors import GaussianMixture, NoPrior, Standardized, StandardNormal
from diled.models.trivial import PPCA, Independent
from diled.models.zoo import build
from diled.nn.blocks import mlp
from diled.nn.latent import ResidualMLP

X = torch.tensor([[0.7, -1.3, 2.0], [0.1, 0.4, -0.6], [-1.5, 1.0, 1.0]]).double()


def double(*numbers: float) -> Tensor:
    return torch.tensor(numbers).double()


# --------------------------------------------------------------------------------------------------- the models


def linear_gaussian(mean: Tensor | None = None, var: Tensor | None = None, noise: float = 0.4) -> LinearGaussian:
    w = torch.tensor([[1.0, 0.5], [1.0, -1.0], [0.5, 1.0]]).double()  # orthogonal columns: a diagonal posterior
    mean, var = double(0.0, 0.0) if mean is None else mean, double(1.0, 1.0) if var is None else var
    return LinearGaussian(w, double(0.3, -0.2, 1.0), noise, mean, var)


def autoencoder(m: LinearGaussian, prior: Density, shift: float = 0.0, scale: float = 1.0) -> Autoencoder:
    """The model m with its own posterior, or one that is `shift` away and `scale` times as wide."""

    def encoder(x):
        mean, var = m.posterior(x)
        return Normal(mean + shift, torch.log(scale * var).expand_as(mean))

    def decoder(z):
        return Normal(z @ m.w.T + m.b, double(m.noise_var).log())

    return Autoencoder(encoder, decoder, prior).double()


def two_levels(shift: float = 0.0, scale: float = 1.0) -> tuple[Autoencoder, LinearGaussian]:
    """z_2 -> z_1 -> x, and the one level that it is: the inner model's covariance of z_1 is diagonal."""
    w = torch.diag(double(1.3, 0.6))
    inner = LinearGaussian(w, double(0.2, 0.5), 0.3, double(0.0, 0.0), double(1.0, 1.0))
    outer = linear_gaussian(inner.b, w.diagonal() ** 2 + 0.3)
    prior = autoencoder(inner, StandardNormal((2,)), shift, scale)
    return autoencoder(outer, prior, shift, scale), outer


def standardized(inner: Density) -> Standardized:
    outer = Standardized(inner, (2,)).double()
    outer.mean.copy_(double(0.5, -1.0))
    outer.std.copy_(double(2.0, 0.3))
    return outer


def mixture() -> tuple[GaussianMixture, torch.distributions.MixtureSameFamily]:
    prior = GaussianMixture(2, 2).double()
    weights, means = double(0.3, 0.7), torch.tensor([[-1.5, 0.0], [1.0, 0.5]]).double()
    roots = torch.tensor([[[0.5, 0.0], [0.2, 0.4]], [[0.6, 0.0], [-0.3, 0.7]]]).double()
    prior.log_weights.copy_(weights.log())
    prior.means.copy_(means)
    prior.roots.copy_(roots)
    gaussians = torch.distributions.MultivariateNormal(means, scale_tril=roots)
    return prior, torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), gaussians)


def mixture_evidence(m: LinearGaussian, known: torch.distributions.MixtureSameFamily, x: Tensor) -> Tensor:
    """log p(x) of a linear decoder whose prior is a mixture of Gaussians."""
    parts = known.component_distribution
    cov = m.w @ parts.covariance_matrix @ m.w.T + m.noise_var * torch.eye(3).double()
    at = torch.distributions.MultivariateNormal(parts.mean @ m.w.T + m.b, cov).log_prob(x[:, None])
    return torch.logsumexp(known.mixture_distribution.probs.log() + at, 1)


def bernoulli_vae() -> tuple[Autoencoder, Tensor, Tensor]:
    """A nonlinear decoder of one number, eight binary x, and their log p(x) by quadrature."""
    torch.manual_seed(1)
    parts = mlp([6, 8, 2]), mlp([1, 16, 6])
    for network in parts:
        for p in network.parameters():
            nn.init.normal_(p, std=0.2 if network is parts[0] else 0.8)  # an encoder near the prior misses nothing
    model = Autoencoder(
        GaussianEncoder(parts[0]), LikelihoodDecoder(parts[1], BernoulliLikelihood()), StandardNormal((1,))
    ).eval()
    x = torch.randint(0, 2, (8, 6)).float() * 2 - 1
    z = torch.linspace(-9, 9, 4001)
    with torch.no_grad():
        logits = parts[1](z[:, None]).double()
    log_p = nn.functional.logsigmoid(logits[:, None] * x.double()).sum(2)
    log_prior = log_normal(z[:, None].double(), double(0.0), double(1.0))
    return model, x, torch.logsumexp(log_p + log_prior[:, None], 0) + math.log(18 / 4000)


def assert_within(got: Tensor, stderr: Tensor, want: Tensor, sigmas: float = 4.5) -> None:
    assert bool(((got - want).abs() < sigmas * stderr + 1e-9).all()), f"{got} +- {stderr} but expected {want}"


# -------------------------------------------------------------------------------------------------- log-weights


def test_exact_posteriors_give_weights_without_variance():
    m = linear_gaussian()
    got = log_weight(autoencoder(m, StandardNormal((2,))), X, copies=4)
    torch.testing.assert_close(got, -m.nll(X).repeat(4))


def test_an_exact_proposal_mends_a_bad_encoder():
    m = linear_gaussian()
    bad, (mean, var) = autoencoder(m, StandardNormal((2,)), 3.0, 0.1), m.posterior(X)
    exact = Normal(mean, torch.log(var).expand_as(mean))
    torch.testing.assert_close(log_weight(bad, X, copies=4, proposal=exact), -m.nll(X).repeat(4))
    many = X.repeat(40, 1)  # more than one block: each example keeps its own proposal
    got = iwae(bad, many, (1, 3), proposal=Normal(mean.repeat(40, 1), exact.log_var.repeat(40, 1)))
    torch.testing.assert_close(got.best, -m.nll(many))


def test_exact_posteriors_of_two_levels_give_weights_without_variance():
    model, m = two_levels()
    torch.testing.assert_close(log_weight(model, X, copies=4), -m.nll(X).repeat(4))


@pytest.mark.parametrize("levels", [1, 2])
def test_weights_of_other_posteriors_average_to_the_evidence(levels):
    m = linear_gaussian()
    model, m = (autoencoder(m, StandardNormal((2,)), 0.2, 1.3), m) if levels == 1 else two_levels(0.2, 1.3)
    log_w = log_weight(model, X[:1], copies=100_000)
    assert_mean((log_w + m.nll(X[:1])).exp(), 1.0)
    assert float(log_w.std()) > 0.1


def test_priors_with_a_density_are_taken_as_they_are():
    z = torch.randn(9, 2).double()
    prior, known = mixture()
    torch.testing.assert_close(log_weight(prior, z), known.log_prob(z))
    torch.testing.assert_close(
        log_weight(StandardNormal((2,)), z, copies=2), log_normal(z, double(0.0), double(1.0)).repeat(2)
    )
    want = torch.distributions.Normal(double(0.5, -1.0), double(2.0, 0.3)).log_prob(z).sum(1)
    torch.testing.assert_close(log_weight(standardized(StandardNormal((2,))), z), want)
    trivial = Independent((2,), None).double()
    trivial.fit(z)
    torch.testing.assert_close(log_weight(trivial, z), log_normal(z, z.mean(0), z.var(0)))


def test_ppca_on_a_grid_has_weights_that_sum_to_one():
    """Uniform noise makes -nll the log of an unbiased estimate of the probability of a cell."""
    grid = torch.linspace(-1, 1, 5)
    x = torch.cartesian_prod(grid, grid)
    model = PPCA((2,), 5, 1)
    model.noise_var.fill_(0.01)
    model.scales.fill_(0.05)
    found = iwae(model, x, (2000,))
    total, error = float(found.best.exp().sum()), float(((found.best.exp() * found.stderr[0]) ** 2).sum().sqrt())
    assert abs(total - 1) < 4.5 * error
    assert error < 0.025


# ---------------------------------------------------------------------------------------------- diffusion priors


def gaussian_denoiser() -> GaussianDenoiser:
    return GaussianDenoiser(double(0.5, -0.2), double(0.7, 2.0))


def test_density_of_the_ode_of_a_gaussian_is_known():
    """The ODE maps N(mean_0, var_0) to N(mean_1, var_1) by a linear map, so p(z_0) is known at any gamma_1."""
    exact, (low, high) = gaussian_denoiser(), (double(-3.0)[0], double(2.0)[0])
    z = torch.randn(7, 2).double()
    (mean_0, var_0), (mean_1, var_1) = exact.at_zero(low), exact.at_zero(high)
    slope = (var_1 / var_0).sqrt()
    want = log_normal(mean_1 + slope * (z - mean_0), double(0.0), double(1.0)) + slope.log().sum()
    prior = Diffusion(exact, LinearLogSNR(-3.0, 2.0), (2,)).double()
    torch.testing.assert_close(ode_log_density(prior, z), want, rtol=0, atol=1e-5)
    torch.testing.assert_close(log_weight(prior, z), ode_log_density(prior, z))
    torch.testing.assert_close(log_weight(prior, z, steps=9), ode_log_density(prior, z, steps=9))


def test_density_of_the_ode_converges_at_order_four():
    prior, z = Diffusion(wrong_denoiser, LinearLogSNR(-3.0, 4.0), (2,)).double(), torch.randn(5, 2).double()
    want = ode_log_density(prior, z, steps=256)
    errors = [float((ode_log_density(prior, z, steps=n) - want).abs().max()) for n in (8, 16)]
    assert 10 < errors[0] / errors[1] < 25


def test_density_of_the_ode_is_that_of_its_samples():
    """Of a denoiser that is no posterior mean of anything: a histogram of heun's samples against the density, in 1-D."""
    prior = Diffusion(wrong_denoiser, LinearLogSNR(-3.0, 4.0), (1,)).double()
    u = (torch.arange(4000).double() + 0.5) / 4000
    z = prior.sample(4000, start=torch.special.ndtri(u)[:, None], sampler="heun", steps=200).flatten()
    assert bool((z.diff() > 0).all())  # one to one, so quantiles go to quantiles
    density = (1 / 4000) / ((z[2:] - z[:-2]) / 2)
    torch.testing.assert_close(
        ode_log_density(prior, z[500:3500:100, None]), density[499:3499:100].log(), rtol=0, atol=2e-3
    )


@pytest.mark.parametrize("shape", [(2,), (1, 1, 2)])
def test_density_of_the_ode_of_a_mixture_is_known(shape):
    exact = MixtureDenoiser(torch.tensor([[-1.5, 0.0], [1.0, 0.5]]).double(), 0.2, double(0.3, 0.7))
    z = exact.means[torch.arange(20) % 2] + 0.5 * torch.randn(20, 2).double()
    want = exact.log_density(z, double(-5.0)[0])

    def denoiser(z, log_snr, condition=None):
        return exact(z.flatten(1), log_snr).reshape(z.shape)

    prior = Diffusion(denoiser, LinearLogSNR(-5.0, 12.0), shape).double()
    got = ode_log_density(prior, z.reshape(20, *shape), steps=64)
    torch.testing.assert_close(got, want, rtol=0, atol=0.02)


def test_the_ode_can_be_followed_through_attention():
    spec = DataSpec(kind="image", shape=(1, 8, 8), levels=17)
    values = {"diffusion": {"kind": "unet", "channels": 8, "attention": True}}
    prior = build("edm", model_config("edm", values).resolved(spec), spec).model.prior.double()
    for weights in prior.parameters():
        nn.init.normal_(weights, std=0.1)
    z = torch.randn(1, 1, 8, 8).double()
    point, (step,) = torch.zeros(()).double(), torch.eye(64).double()[7:8].reshape(1, 1, 1, 8, 8) * 1e-5
    _, trace = likelihood._estimate_and_trace(prior, z, point, step[None] / 1e-5)
    up, down = (likelihood._estimate(prior, z + sign * step, point).flatten()[7] for sign in (1, -1))
    torch.testing.assert_close(trace[0], (up - down) / 2e-5, rtol=1e-5, atol=1e-7)
    assert bool(ode_log_density(prior, z, steps=1).isfinite().all())


def test_densities_of_sequences_that_are_exact_are_their_weights():
    spec = protein_spec(5, symbols=("", *"ACDE"))
    x = torch.randint(1, 5, (3, 5))
    for name in ("lm", "profile", "potts"):
        model = build(name, model_config(name, small(name)).resolved(spec), spec).model.eval()
        torch.testing.assert_close(log_weight(model, x), -model.bound(x))
        torch.testing.assert_close(iwae(model, x, (2,)).best.float(), -model.bound(x))


def test_hutchinsons_trace_is_right_on_average_only():
    exact = MixtureDenoiser(torch.tensor([[-1.5, 0.0], [1.0, 0.5]]).double(), 0.2, double(0.3, 0.7))
    prior = Diffusion(exact, LinearLogSNR(-3.0, 4.0), (2,)).double()
    z = double(0.0, 0.1).expand(3000, 2)
    want = float(ode_log_density(prior, z[:1], steps=16))
    one = ode_log_density(prior, z, steps=16, probes=1)
    assert_mean(one, want)
    four = ode_log_density(prior, z[:1000], steps=16, probes=4)
    assert_mean(four, want)
    assert float(four.std() / one.std()) == pytest.approx(0.5, abs=0.1)
    assert mean_and_error(one.exp())[0] > math.exp(want)  # why it is no weight


def chain_density(exact: GaussianDenoiser, gammas: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of z_0 of the reverse chain from N(0, I): every step is linear."""
    mean, var = double(0.0, 0.0), double(1.0, 1.0)
    for gamma_t, gamma_s in zip(gammas.flip(0)[:-1], gammas.flip(0)[1:], strict=True):
        points = torch.stack([torch.zeros(2), torch.ones(2)]).double()
        at, added = reverse_step(points, exact(points, (-gamma_t).expand(2)), gamma_s, gamma_t)
        slope = at[1] - at[0]
        mean, var = at[0] + slope * mean, slope**2 * var + added
    return mean, var


@pytest.mark.parametrize("steps", [1, 4])
def test_path_weights_average_to_the_density_of_the_chain(steps):
    exact = gaussian_denoiser()
    z = double(0.3, -0.9).expand(100_000, 2)
    want = log_normal(z[:1], *chain_density(exact, path_gammas(-3.0, 4.0, steps)))
    prior = Diffusion(exact, LinearLogSNR(-3.0, 4.0), (2,)).double()
    log_w = path_log_weight(prior, z, steps=steps)
    assert_mean((log_w - want).exp(), 1.0)
    assert mean_and_error((log_w - want).exp())[1] < 0.02
    again = log_weight(prior, z[:5], prior="path", steps=steps, noise=lambda shape: torch.full(shape, 0.3))
    torch.testing.assert_close(again, path_log_weight(prior, z[:5], steps=steps, noise=lambda s: torch.full(s, 0.3)))


def test_path_weights_of_a_wrong_denoiser_average_to_its_rate_in_the_log():
    mean, var = 0.4, 0.6
    q = Normal(double(mean).expand(100_000, 1), double(math.log(var)))
    z = q.sample()
    prior = Diffusion(wrong_denoiser, LinearLogSNR(-3.0, 4.0), (1,)).double()
    gaps = -q.nll(z) - path_log_weight(prior, z, steps=6)
    assert_mean(gaps, path_rate(path_gammas(-3.0, 4.0, 6), mean, var, wrong_denoiser))


def test_an_autoencoder_with_a_diffusion_prior_has_the_evidence_of_its_gaussian():
    exact = gaussian_denoiser()
    prior = Diffusion(exact, LinearLogSNR(-3.0, 12.0), (2,))
    m = linear_gaussian(*exact.at_zero(double(-3.0)[0]))
    got = log_weight(autoencoder(m, prior), X, copies=3)  # codes are z_0, with their noise: not clean ones
    torch.testing.assert_close(got, -m.nll(X).repeat(3), rtol=0, atol=0.02)
    outer = standardized(prior)
    mean, var = exact.at_zero(double(-3.0)[0])
    m = linear_gaussian(outer.std * mean + outer.mean, outer.std**2 * var)
    torch.testing.assert_close(log_weight(autoencoder(m, outer), X), -m.nll(X), rtol=0, atol=0.02)


def test_path_weights_within_an_autoencoder_average_to_the_evidence_of_the_chain():
    exact = gaussian_denoiser()
    prior = Diffusion(exact, LinearLogSNR(-3.0, 4.0), (2,))
    m = linear_gaussian(*chain_density(exact, path_gammas(-3.0, 4.0, 3)))
    found = iwae(autoencoder(m, prior), X, (4000,), prior="path", steps=3)
    assert_within(found.best, found.stderr[0], -m.nll(X))
    assert float(found.stderr.max()) < 0.1


def test_large_codes_take_the_path_unless_one_says_otherwise():
    prior = Diffusion(wrong_denoiser, LinearLogSNR(-3.0, 4.0), (257,))
    z, still = torch.randn(2, 257), torch.zeros

    torch.testing.assert_close(log_weight(prior, z, noise=still), path_log_weight(prior, z, noise=still))


def test_a_diffusion_on_data_has_the_evidence_of_its_gaussian():
    """z_0 ~ N(alpha mu, alpha^2 s^2 + sigma^2) and x = (z_0 + sigma e) / alpha: the noise is added twice."""
    exact = gaussian_denoiser()
    model = DataDiffusion(Diffusion(exact, LinearLogSNR(-2.0, 12.0), (2,)).double())
    (mean, var), (a, s) = exact.at_zero(double(-2.0)[0]), alpha_sigma(double(-2.0)[0])
    want = log_normal(X[:, :2], mean / a, (var + s**2) / a**2)
    found = iwae(model, X[:, :2], (1500,))
    assert_within(found.best, found.stderr[0] + 0.003, want)
    assert float(found.stderr.max()) < 0.05


def test_a_diffusion_on_grid_data_is_a_probability():
    grid = torch.linspace(-1, 1, 3)[:, None]
    model = DataDiffusion(
        Diffusion(GaussianDenoiser(torch.tensor([0.2]), torch.tensor([0.3])), LinearLogSNR(-1.0, 6.0), (1,)), 3
    )
    found = iwae(model, grid, (3000,), steps=8)
    error = float(((found.best.exp() * found.stderr[0]) ** 2).sum().sqrt())
    assert float(found.best.exp().sum()) == pytest.approx(1, abs=4.5 * error)
    assert error < 0.02


# -------------------------------------------------------------------------------------------- importance weights


def test_importance_by_hand():
    w = double(1.0, 3.0, 2.0, 2.0, 5.0)[:, None]
    found = importance(w.log(), (1, 2, 5))
    one, two = w[:, 0].log(), double(2.0, 2.0).log()
    torch.testing.assert_close(found.log_p[:, 0], torch.stack([one.mean(), two.mean(), double(13 / 5)[0].log()]))
    assert found.ess.item() == pytest.approx(169 / 43)
    delta = math.sqrt(w.var(correction=0).item() / 5) / (13 / 5)
    torch.testing.assert_close(
        found.stderr[:, 0], torch.stack([one.std() / math.sqrt(5), double(0.0)[0], double(delta)[0]])
    )
    assert found.best.tolist() == found.log_p[-1].tolist()


def test_iwae_goes_from_the_bound_to_the_evidence():
    m = linear_gaussian()
    model, shift, scale = autoencoder(m, StandardNormal((2,)), 0.4, 1.5), 0.4, 1.5
    mean, var = m.posterior(X)
    lower = -m.nll(X) - normal_kl(mean + shift, scale * var.expand_as(mean), mean, var)
    found = iwae(model, X, (1, 4, 20, 5000))
    assert found.counts == (1, 4, 20, 5000)
    assert_within(found.log_p[0], found.stderr[0], lower)
    assert_within(found.best, found.stderr[-1], -m.nll(X))
    assert bool((found.log_p.mean(1).diff() > 0).all())
    assert float(found.stderr[-1].max()) < 0.05
    assert bool((found.ess > 1000).all())
    expected = elbo(model, X, 4000)
    assert_within(expected.value, expected.stderr, lower)
    assert_within(expected.value, expected.stderr + found.stderr[0], found.log_p[0])


def test_iwae_of_a_nonlinear_decoder_is_the_quadrature():
    model, x, want = bernoulli_vae()
    found = iwae(model, x, (1, 5000))
    assert_within(found.best, found.stderr[-1], want, 5)
    assert float(found.stderr[-1].max()) < 0.15


def test_weights_do_not_depend_on_portions_or_company():
    model, _ = two_levels(0.2, 1.3)
    x = torch.randn(70, 3).double()
    want = iwae(model, x, (1, 100), chunk=4096, seed=5)
    for chunk in (64, 300):
        torch.testing.assert_close(iwae(model, x, (1, 100), chunk=chunk, seed=5).log_p, want.log_p)
    torch.testing.assert_close(iwae(model, x[:10], (1, 100), seed=5).log_p, want.log_p[:, :10])
    torch.testing.assert_close(iwae(model, x, (100,), seed=5).log_p[0], want.best)
    assert bool((iwae(model, x, (100,), seed=6).best != want.best).all())
    state = torch.get_rng_state()
    iwae(model, x[:2], (3,))
    elbo(model, x[:2], 3)
    assert torch.equal(state, torch.get_rng_state())


def test_elbo_tells_rate_from_distortion():
    m = linear_gaussian()
    shift, scale = 0.4, 1.5
    (mean, var), model = m.posterior(X), autoencoder(m, StandardNormal((2,)), shift, scale)
    found = elbo(model, X, 3000, seed=2)
    rate = normal_kl(mean + shift, scale * var.expand_as(mean), double(0.0), double(1.0))
    torch.testing.assert_close(found.rate, rate)
    gap = X - (mean + shift) @ m.w.T - m.b
    spread = ((m.w**2) @ (scale * var)).sum()
    distortion = 1.5 * math.log(2 * math.pi * m.noise_var) + ((gap**2).sum(1) + spread) / (2 * m.noise_var)
    assert_within(found.distortion, found.stderr, distortion)
    torch.testing.assert_close(found.value, -found.rate - found.distortion)
    once = torch.stack([elbo(model, X[:1], 50, seed=seed).value for seed in range(40)])
    assert float(once.std()) == pytest.approx(float(elbo(model, X[:1], 50).stderr), rel=0.5)
    assert bool(elbo(model, X, 1).stderr.isnan().all())


def test_elbo_of_a_density_without_codes_is_its_nll():
    model = Independent((3,), None).double()
    found = elbo(model, X, 2)
    torch.testing.assert_close(found.value, log_normal(X, double(0.0), double(1.0)))
    torch.testing.assert_close(found.distortion, -found.value)
    assert not found.rate.any()


# ---------------------------------------------------------------------------------------------------- annealing


def test_temperatures_rise_from_zero_to_one():
    assert temperatures(4, "linear") == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    got = temperatures(4)
    raw = [1 / (1 + math.exp(-4 * u)) for u in (-1, -0.5, 0, 0.5, 1)]
    assert got == pytest.approx([(r - raw[0]) / (raw[4] - raw[0]) for r in raw])


def test_leapfrog_leads_back_and_keeps_the_energy_to_second_order():
    model = autoencoder(linear_gaussian(), mixture()[0])
    target, z, p = Target(model, X), torch.randn(3, 2).double(), torch.randn(3, 2).double()
    start, beta, drift = target.at(z), 0.7, []
    for size, leaps in ((0.05, 10), (0.025, 20)):
        e = torch.full((3,), size).double()
        end, p_end = leapfrog(target, start, p, beta, e, leaps)
        back, p_back = leapfrog(target, end, -p_end, beta, e, leaps)
        torch.testing.assert_close(back.z, z)
        torch.testing.assert_close(-p_back, p)
        energies = [0.5 * (v**2).sum(1) - point.log_f(beta) for point, v in ((start, p), (end, p_end))]
        drift.append((energies[1] - energies[0]).abs())
        assert float((end.z - z).abs().min()) > 0.05
    assert bool((drift[1] < 0.03).all())
    assert 3 < float(drift[0].sum() / drift[1].sum()) < 5


def test_a_point_is_both_densities_and_their_gradients():
    m, (prior, known) = linear_gaussian(), mixture()
    point = Target(autoencoder(m, prior), X).at(torch.randn(3, 2).double())
    z = point.z.clone().requires_grad_()
    log_prior = known.log_prob(z)
    log_likelihood = log_normal(X, z @ m.w.T + m.b, double(m.noise_var))
    torch.testing.assert_close(point.log_f(0.3), (log_prior + 0.3 * log_likelihood).detach())
    (slope,) = torch.autograd.grad((log_prior + 0.3 * log_likelihood).sum(), z)
    torch.testing.assert_close(point.slope(0.3), slope)


def test_transitions_leave_the_posterior_as_it_is():
    """Exact draws stay exact draws, though a third of the transitions is refused."""
    m = linear_gaussian()
    mean, var = m.posterior(X[:1])
    n = 20_000
    target = Target(autoencoder(m, StandardNormal((2,))), X[:1].expand(n, 3))
    point = target.at(mean + var.sqrt() * torch.randn(n, 2).double())
    for _ in range(4):
        step = torch.full((n,), 0.6).double()
        point, accepted = annealing._transition(target, point, 1.0, step, lambda s: torch.randn(s).double())
    assert 0.3 < float(accepted.double().mean()) < 0.9
    for i in range(2):
        assert_mean(point.z[:, i], float(mean[0, i]))
        assert_mean((point.z[:, i] - mean[0, i]) ** 2, float(var[i]))


def test_step_sizes_find_their_acceptance():
    """A narrow posterior, from its exact draws: steps grow from 0.01 until a third is refused, and then stay."""
    m = linear_gaussian(noise=0.02)
    mean, var = m.posterior(X[:1])
    target = Target(autoencoder(m, StandardNormal((2,))), X[:1].expand(64, 3))
    z = mean + var.sqrt() * torch.randn(64, 2).double()
    log_w, acceptance = annealing._anneal(target, z, [1.0] * 401, lambda s: torch.randn(s).double(), 0.01)
    assert not log_w.any()
    assert 0.68 < float(acceptance.mean()) < 0.85


@pytest.mark.parametrize("kind", ["normal", "mixture", "standardized"])
def test_annealing_finds_the_evidence(kind):
    if kind == "normal":
        prior, m = StandardNormal((2,)), linear_gaussian()
        want = -m.nll(X)
    elif kind == "standardized":
        prior = standardized(StandardNormal((2,)))
        m = linear_gaussian(prior.mean, prior.std**2)
        want = -m.nll(X)
    else:
        (prior, known), m = mixture(), linear_gaussian()
        want = mixture_evidence(m, known, X)
    model = autoencoder(m, prior, 5.0)  # an encoder that is far off changes nothing
    found = ais(model, X, steps=150, chains=64, schedule="linear" if kind == "normal" else "sigmoid", step_size=0.2)
    assert_within(found.log_p, found.stderr, want)
    assert float(found.stderr.max()) < 0.09
    assert 0.5 < float(found.acceptance.min()) <= 1


def test_annealing_of_a_nonlinear_decoder_is_the_quadrature():
    model, x, want = bernoulli_vae()
    found = ais(model, x, steps=200, chains=32, step_size=0.2)
    assert_within(found.log_p, found.stderr, want, 5)
    assert float((found.log_p - want).abs().mean()) < 0.05


def test_annealing_up_and_down_encloses_the_evidence():
    m = linear_gaussian()
    model = autoencoder(m, StandardNormal((2,)))
    rough = bdmc(model, 70, steps=60, chains=1, step_size=0.2)
    (low, low_error), (high, high_error) = (mean_and_error(v + m.nll(rough.x)) for v in (rough.lower, rough.upper))
    assert low < -2 * low_error
    assert high > 2 * high_error
    found = bdmc(model, 70, steps=240, chains=8, step_size=0.2)
    for value in (found.lower, found.upper):
        assert_mean(value + m.nll(found.x), 0.0)
    assert found.x.shape == (70, 3)
    assert torch.equal(found.gap, found.upper - found.lower)
    assert abs(float(found.gap.mean())) < 0.1
    cov = m.w @ m.w.T + m.noise_var * torch.eye(3).double()
    whitened = (found.x - m.b) @ torch.linalg.inv(torch.linalg.cholesky(cov)).T  # they are samples of the model
    assert_mean(whitened.flatten(), 0.0)
    assert_mean(whitened.flatten() ** 2, 1.0)


def test_one_step_up_is_too_low_and_one_step_down_too_high():
    """With one chain and one step: E log p(x | z) under the prior and under the posterior, which enclose log p(x)."""
    m = linear_gaussian()
    model = autoencoder(m, StandardNormal((2,)))
    found = bdmc(model, 3000, steps=1, chains=1)
    truth = -m.nll(found.x)
    mean, var = m.posterior(found.x)
    square, trace = ((m.w**2).sum(0)), m.noise_var
    base = -1.5 * math.log(2 * math.pi * trace)
    under_prior = base - (((found.x - m.b) ** 2).sum(1) + square.sum()) / (2 * trace)
    under_posterior = base - (((found.x - m.b - mean @ m.w.T) ** 2).sum(1) + (square * var).sum()) / (2 * trace)
    assert_mean(found.lower - under_prior, 0.0)
    assert_mean(found.upper - under_posterior, 0.0)
    assert bool((under_prior < truth).all())
    assert float((under_posterior - truth).mean()) > 0


def test_annealing_does_not_depend_on_company_and_needs_no_encoder():
    m = linear_gaussian()
    model = autoencoder(m, StandardNormal((2,)))
    x = torch.randn(70, 3).double()
    want = ais(model, x, steps=5, chains=3, seed=4)
    torch.testing.assert_close(ais(model, x[:10], steps=5, chains=3, seed=4).log_p, want.log_p[:10])
    model.encoder = DiracEncoder(nn.Identity())
    torch.testing.assert_close(ais(model, x, steps=5, chains=3, seed=4).log_p, want.log_p)
    assert bool((ais(model, x, steps=5, chains=3, seed=5).log_p != want.log_p).all())


# ----------------------------------------------------------------------------------------------------- refusals


def refused() -> dict[str, tuple[Density, str]]:
    codes, pixels = GaussianEncoder(mlp([2, 8, 4])), LikelihoodDecoder(mlp([2, 8, 2]), GaussianLikelihood(1.0))
    silent = V(ResidualMLP(2, 8, 1, condition_dim=2))
    diffusion = DataDiffusion(Diffusion(silent, LinearLogSNR(), (2,)))
    process = NeuralProcess(lambda x, log_snr: x, -3.0, 4.0)
    neural = Diffusion(silent, LinearLogSNR(-3, 4), (2,), timesteps=5, process=process, sampler="ancestral")
    student = ConsistencyFunction(ResidualMLP(2, 8, 1), -12.0, 0.5)

    class Own(Density):
        def terms(self, q, *, exact=False, progress=1.0):
            return {"bound": q.sum(1)}

    return {
        "deterministic": (Autoencoder(DiracEncoder(mlp([2, 2])), pixels, StandardNormal((2,))), "deterministic"),
        "diffusion decoder": (
            Autoencoder(codes, DiffusionDecoder(diffusion), StandardNormal((2,))),
            "diffusion decoder",
        ),
        "no prior": (Autoencoder(codes, pixels, NoPrior()), "Without a prior"),
        "consistency": (Consistency(student, LogNormal(), (2,), None), "no likelihood"),
        "neural": (neural, "no Gaussian chain"),
        "own": (Own(), "no weights"),
    }


@pytest.mark.parametrize("name", refused())
def test_models_without_weights_are_refused_in_words(name):
    model, why = refused()[name]
    with pytest.raises(NoBound, match=why):
        log_weight(model, torch.randn(3, 2))
    with pytest.raises(NoBound, match=why):
        iwae(model, torch.randn(3, 2), (2,))


def test_data_that_the_likelihood_does_not_admit_are_refused():
    model, x, _ = bernoulli_vae()
    for estimate in (iwae, ais):
        with pytest.raises(NoBound, match="grey values"):
            estimate(model, 0.5 * x)


def test_models_that_cannot_be_annealed_are_refused_in_words():
    models = refused()
    nested, _ = two_levels()
    for model, why in (
        (models["own"][0], "no autoencoder"),
        (models["diffusion decoder"][0], "diffusion decoder"),
        (models["no prior"][0], "type NoPrior"),
        (nested, "type Autoencoder"),
    ):
        with pytest.raises(NoBound, match=why):
            ais(model, torch.randn(3, 2))
        with pytest.raises(NoBound, match=why):
            bdmc(model, 3)


def test_numbers_out_of_range_are_refused():
    model, x, _ = bernoulli_vae()
    for call, named in (
        (lambda: iwae(model, x, ()), "counts"),
        (lambda: iwae(model, x, (0, 5)), "counts"),
        (lambda: iwae(model, x, chunk=8), "chunk = 8"),
        (lambda: elbo(model, x, chunk=8), "chunk = 8"),
        (lambda: elbo(model, x, 0), "samples = 0"),
        (lambda: ais(model, x, steps=0), "steps = 0"),
        (lambda: ais(model, x, chains=0), "chains = 0"),
        (lambda: ais(model, x, schedule="quadratic"), "quadratic"),
        (lambda: ais(model, x, step_size=0.6), "step_size = 0.6"),
        (lambda: bdmc(model, 0), "n = 0"),
    ):
        with pytest.raises(ConfigError, match=named):
            call()
