"""Every bound lies above the entropy of data whose entropy is known, and touches it where the model is exact."""

from __future__ import annotations

import math

import pytest
import torch
from closed_forms import (
    GaussianData,
    GaussianDenoiser,
    LinearGaussian,
    MixtureData,
    TableData,
    alpha_sigma,
    assert_mean,
    mean_and_error,
    normal_entropy,
    normal_kl,
    wrong_denoiser,
)
from torch import nn

from diled.api import total
from diled.diffusion import Diffusion, LinearLogSNR, Objective, V, simple
from diled.distributions import Normal
from diled.models.autoencoder import (
    Autoencoder,
    BernoulliLikelihood,
    DiscretizedLikelihood,
    FixedNoiseEncoder,
    GaussianEncoder,
    GaussianLikelihood,
    LikelihoodDecoder,
    LogisticMixtureLikelihood,
)
from diled.models.priors import Standardized, StandardNormal
from diled.nn.blocks import mlp
from diled.nn.latent import ResidualMLP

DATA = {
    "gaussian": (GaussianData(), lambda: GaussianLikelihood(), 2),
    "mixture": (MixtureData(), lambda: GaussianLikelihood(per_dimension=True), 4),
    "grid": (TableData(6, 2), lambda: DiscretizedLikelihood(6), 4),
    "grid, mixture of logistics": (TableData(6, 2), lambda: LogisticMixtureLikelihood(6, 2), None),
    "grid, gaussian": (TableData(6, 2), lambda: DiscretizedLikelihood(6, "gaussian"), 4),
    "bits": (TableData(2, 5), BernoulliLikelihood, 5),
}
Z = 2


def denoiser() -> nn.Module:
    network = ResidualMLP(Z, 16, 1)
    nn.init.normal_(network.out.weight, std=0.5)  # it starts silent otherwise
    return V(network)


def prior(kind: str):
    if kind == "normal":
        return StandardNormal((Z,), free_bits=0.5)
    if kind == "diffusion":
        return Diffusion(denoiser(), LinearLogSNR(), (Z,))
    if kind == "discrete diffusion":  # with training weights that are no bound: bound() must not see them
        return Diffusion(denoiser(), LinearLogSNR(), (Z,), timesteps=20, objective=Objective(simple(), terminal=False))
    if kind == "standardized diffusion":
        outer = Standardized(prior("diffusion"), (Z,))
        outer.fit(torch.randn(100, Z) * torch.tensor([2.0, 0.3]) + 1)
        return outer
    inner = LikelihoodDecoder(mlp([Z, 16, Z]), GaussianLikelihood())
    return Autoencoder(GaussianEncoder(mlp([Z, 16, 2 * Z])), inner, prior("diffusion"), rate_weight=0.3)


PRIORS = ["normal", "diffusion", "discrete diffusion", "standardized diffusion", "autoencoder"]


def autoencoder(name: str, kind: str) -> Autoencoder:
    data, likelihood, outputs = DATA[name]
    dims = data.sample(1).shape[1]
    if outputs is None:  # a mixture of logistics over one pixel of two channels
        outputs = dims * likelihood().parameters_per_channel(dims)
    decoder = LikelihoodDecoder(mlp([Z, 16, outputs]), likelihood())
    return Autoencoder(GaussianEncoder(mlp([dims, 16, 2 * Z])), decoder, prior(kind), rate_weight=0.3)


def assert_above_entropy(model, data, n: int = 20_000) -> float:
    """The mean of bound + log p(x) is a KL plus a gap, so it is not negative."""
    x = data.sample(n)
    with torch.no_grad():
        bound = model.bound(x)
    assert bound.shape == (n,)
    excess, error = mean_and_error(bound - data.nll(x))
    assert excess > -4.5 * error, f"{excess} +- {error}"
    mean, error = mean_and_error(bound)
    assert mean > data.entropy() - 4.5 * error
    return excess


@pytest.mark.parametrize("name", DATA)
def test_toy_entropies_are_the_mean_nll(name):
    data = DATA[name][0]
    assert_mean(data.nll(data.sample(50_000)), data.entropy())


@pytest.mark.parametrize("kind", PRIORS)
@pytest.mark.parametrize("name", DATA)
def test_bound_of_random_networks_is_above_the_entropy(name, kind):
    for seed in range(2):
        torch.manual_seed(seed)
        model = autoencoder(name, kind)
        for p in model.parameters():
            p.data.mul_(1.5)
        assert_above_entropy(model, DATA[name][0], 4000)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mixture", "diffusion"),
        ("gaussian", "autoencoder"),
        ("grid", "normal"),
        ("grid, mixture of logistics", "standardized diffusion"),
        ("bits", "discrete diffusion"),
    ],
)
def test_no_training_pushes_the_bound_below_the_entropy(name, kind):
    """A formula that is no bound would be found and exploited by minimising it."""
    data, model = DATA[name][0], autoencoder(name, kind)
    start = assert_above_entropy(model, data)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        model.bound(data.sample(128)).mean().backward()
        optimizer.step()
    assert assert_above_entropy(model, data) < start  # it did learn


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_bound_of_a_diffusion_on_data_is_above_the_entropy(name):
    model = Diffusion(denoiser(), LinearLogSNR(), (2,))
    assert_above_entropy(model, DATA[name][0])
    assert_above_entropy(Standardized(model, (2,)), DATA[name][0])


def test_bound_with_the_fixed_noise_encoder_is_above_the_entropy():
    for data in (GaussianData(), MixtureData()):
        inner = Diffusion(denoiser(), LinearLogSNR(-4.0, 6.0), (Z,))
        decoder = LikelihoodDecoder(mlp([Z, 16, 2]), GaussianLikelihood(0.5))
        model = Autoencoder(FixedNoiseEncoder(mlp([2, 16, Z]), inner.schedule), decoder, inner)
        assert_above_entropy(model, data)


def test_diffusion_with_the_optimal_denoiser_exceeds_the_entropy_by_the_information_lost():
    """E bound - H(x) = 1/2 sum log(1 + sigma_0^2 / (alpha_0^2 s^2)): what the last step p(x | z_0) forgets."""
    data = GaussianData()
    mean, var = data.mean.double(), data.var.double()
    a_0, s_0 = alpha_sigma(torch.tensor(-3.0).double())
    model = Diffusion(GaussianDenoiser(mean, var), LinearLogSNR(-3.0, 5.0), (2,)).double()
    x = mean + var.sqrt() * torch.randn(200_000, 2).double()
    want = float(normal_entropy(var) + 0.5 * torch.log1p(s_0**2 / (a_0**2 * var)).sum())
    assert_mean(model.bound(x), want)


def linear_gaussian() -> LinearGaussian:
    w = torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.5, 0.0]]).double()
    w[2, 1] = 0.0
    w[:, 1] -= w[:, 0] * (w[:, 0] @ w[:, 1]) / (w[:, 0] @ w[:, 0])
    return LinearGaussian(
        w,
        torch.tensor([0.3, -0.2, 1.0]).double(),
        0.4,
        torch.zeros(2).double(),
        torch.ones(2).double(),
    )


def repeated(n: int) -> torch.Tensor:
    return torch.tensor([[0.7, -1.3, 2.0]]).double().expand(n, 3)


def gaussian_decoder(m: LinearGaussian):
    return lambda z: Normal(z @ m.w.T + m.b, torch.tensor(m.noise_var).double().log())


def test_linear_gaussian_with_the_exact_posterior_gives_the_evidence():
    m = linear_gaussian()

    def encoder(x):
        mean, var = m.posterior(x)
        return Normal(mean, var.log().expand_as(mean))

    model = Autoencoder(encoder, gaussian_decoder(m), StandardNormal((2,)))
    assert_mean(model.bound(repeated(100_000)), float(m.nll(repeated(1))))


def test_linear_gaussian_with_another_posterior_exceeds_it_by_their_kl():
    m = linear_gaussian()
    mean, var = torch.tensor([0.4, 0.9]).double(), torch.tensor([0.2, 1.4]).double()
    model = Autoencoder(
        lambda x: Normal(mean.expand(len(x), 2), var.log().expand(len(x), 2)), gaussian_decoder(m), StandardNormal((2,))
    )
    gap = normal_kl(mean, var, *m.posterior(repeated(1)))
    assert_mean(model.bound(repeated(200_000)), float(m.nll(repeated(1)) + gap))


@pytest.mark.parametrize("gap", [False, True], ids=["exact posterior", "another"])
def test_linear_gaussian_with_a_diffusion_prior_gives_the_evidence(gap):
    """p(z_0) of the optimal denoiser is N(alpha_0 mu, alpha_0^2 s^2 + sigma_0^2), so the evidence stays closed."""
    exact = GaussianDenoiser(torch.tensor([0.5, -0.2]).double(), torch.tensor([0.7, 2.0]).double())
    p_mean, p_var = exact.at_zero(torch.tensor(-3.0).double())
    m = linear_gaussian()
    m.prior_mean, m.prior_var = p_mean, p_var
    mean, var = m.posterior(repeated(1))
    if gap:
        mean, var = mean + 0.3, var * torch.tensor([0.4, 1.9]).double()
    want = m.nll(repeated(1)) + normal_kl(mean, var, *m.posterior(repeated(1)))
    model = Autoencoder(
        lambda x: Normal(mean.expand(len(x), 2), var.log().expand(len(x), 2)),
        gaussian_decoder(m),
        Diffusion(exact, LinearLogSNR(-3.0, 4.0), (2,)).double(),
    )
    assert_mean(model.bound(repeated(200_000)), float(want))


def test_two_linear_gaussian_levels_with_exact_posteriors_give_the_evidence():
    """z_2 ~ N(0, 1) -> z_1 -> x; the outer prior's covariance is made diagonal so that q(z_1 | x) is too."""
    w = torch.diag(torch.tensor([1.3, 0.6])).double()
    inner = LinearGaussian(w, torch.tensor([0.2, 0.5]).double(), 0.3, torch.zeros(2).double(), torch.ones(2).double())
    outer = linear_gaussian()
    outer.prior_mean, outer.prior_var = inner.b, w.diagonal() ** 2 + 0.3

    def encoder_of(m):
        def encoder(x):
            mean, var = m.posterior(x)
            return Normal(mean, var.log().expand_as(mean))

        return encoder

    prior = Autoencoder(encoder_of(inner), gaussian_decoder(inner), StandardNormal((2,)))
    model = Autoencoder(encoder_of(outer), gaussian_decoder(outer), prior)
    assert_mean(model.bound(repeated(200_000)), float(outer.nll(repeated(1))))


def test_beta_is_ignored_by_the_bound_and_one_is_a_vae():
    torch.manual_seed(3)
    x = torch.randn(16, 2)
    parts = GaussianEncoder(mlp([2, 8, 4])), LikelihoodDecoder(mlp([2, 8, 2]), GaussianLikelihood(0.7))

    def of(weight):
        model = Autoencoder(*parts, StandardNormal((2,)), rate_weight=weight)
        torch.manual_seed(4)
        terms = model.terms(x)
        grads = torch.autograd.grad(total(terms).sum(), parts[0].parameters())
        torch.manual_seed(4)
        bound = model.bound(x)
        bound_grads = torch.autograd.grad(bound.sum(), parts[0].parameters())
        return terms, bound.detach(), *(torch.cat([g.flatten() for g in gs]) for gs in (grads, bound_grads))

    (vae, vae_bound, vae_grad, vae_bound_grad), (beta, beta_bound, beta_grad, beta_bound_grad) = of(1.0), of(4.0)
    torch.testing.assert_close(vae_bound_grad, vae_grad)
    torch.testing.assert_close(beta_bound_grad, vae_grad)
    torch.testing.assert_close(vae_bound, beta_bound)
    torch.testing.assert_close(total(vae), vae_bound)
    torch.testing.assert_close(vae["rate/kl"], beta["rate/kl"])
    # written out: distortion + KL, reparameterised
    q = parts[0](x)
    torch.manual_seed(4)
    z = q.mean + torch.exp(0.5 * q.log_var) * torch.randn_like(q.mean)
    distortion = ((x - parts[1].network(z)) ** 2 / (2 * 0.49) + 0.5 * math.log(2 * math.pi * 0.49)).sum(1)
    kl = 0.5 * (q.log_var.exp() + q.mean**2 - 1 - q.log_var).sum(1)
    torch.testing.assert_close(vae_bound, distortion + kl)
    for weight, got in ((1.0, vae_grad), (4.0, beta_grad)):
        want = torch.autograd.grad((distortion + weight * kl).sum(), parts[0].parameters(), retain_graph=True)
        torch.testing.assert_close(got, torch.cat([g.flatten() for g in want]), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------- Standardized


def standardized(inner) -> Standardized:
    outer = Standardized(inner, (2,)).double()
    outer.mean.copy_(torch.tensor([0.5, -1.0]))
    outer.std.copy_(torch.tensor([2.0, 0.3]))
    return outer


def test_standardized_fit_takes_mean_and_deviation():
    outer = Standardized(StandardNormal((2,)), (2,))
    codes = torch.randn(500, 2) * torch.tensor([2.0, 0.3]) + torch.tensor([0.5, -1.0])
    outer.fit(codes)
    torch.testing.assert_close(outer.mean, codes.mean(0))
    torch.testing.assert_close(outer.std, ((codes - codes.mean(0)) ** 2).sum(0).div(499).sqrt())
    assert float(outer.std.min()) > 0
    outer.fit(torch.ones(5, 2))  # a dead dimension must not divide by zero
    assert float(outer.std.min()) > 0


def test_standardized_kl_needs_no_determinant_and_points_do():
    outer = standardized(StandardNormal((2,)).double())
    mean, var = torch.tensor([[0.3, -0.7]]).double(), torch.tensor([[1.5, 0.02]]).double()
    want = normal_kl(mean, var, outer.mean, outer.std**2)
    assert float(total(outer.terms(Normal(mean, var.log()), exact=True))) == pytest.approx(float(want), rel=1e-12)
    x = torch.randn(7, 2).double()
    want = -torch.distributions.Normal(outer.mean, outer.std).log_prob(x).sum(1)
    torch.testing.assert_close(outer.bound(x), want)
    noise = torch.randn(7, 2).double()
    torch.testing.assert_close(outer.sample(7, noise=lambda shape: noise), outer.mean + outer.std * noise)


def test_standardized_diffusion_with_the_optimal_denoiser_is_the_same_kl():
    """The prior of raw codes is the affine image of the inner p(z_0), and the KL is invariant."""
    exact = GaussianDenoiser(torch.tensor([0.5, -0.2]).double(), torch.tensor([0.7, 2.0]).double())
    outer = standardized(Diffusion(exact, LinearLogSNR(-3.0, 4.0), (2,)))
    p_mean, p_var = exact.at_zero(torch.tensor(-3.0).double())
    mean, var = torch.tensor([0.3, -0.7]).double(), torch.tensor([1.5, 0.02]).double()
    want = normal_kl(mean, var, outer.std * p_mean + outer.mean, outer.std**2 * p_var)
    q = Normal(mean.expand(100_000, 2), var.log().expand(100_000, 2))
    assert_mean(total(outer.terms(q, exact=True)), float(want))


def test_standardized_wrong_denoiser_equals_the_inner_rate_of_the_image():
    inner = Diffusion(wrong_denoiser, LinearLogSNR(-3.0, 4.0), (2,))
    outer = standardized(inner)
    q = Normal(torch.randn(9, 2).double(), torch.randn(9, 2).double())
    torch.manual_seed(1)
    got = total(outer.terms(q))
    torch.manual_seed(1)
    image = Normal((q.mean - outer.mean) / outer.std, q.log_var - 2 * outer.std.log())
    torch.testing.assert_close(got, total(inner.terms(image)))
