"""Priors that are fitted to codes afterwards, or missing: the mixture against scipy and scikit-learn, and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.mixture
import torch
from closed_forms import assert_mean, normal_entropy

from diled.api import NoBound, total
from diled.distributions import Dirac, Normal
from diled.errors import ConfigError
from diled.models.autoencoder import Autoencoder, DiracEncoder, GaussianEncoder, GaussianLikelihood, LikelihoodDecoder
from diled.models.priors import GaussianMixture, NoPrior
from diled.nn.blocks import mlp

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[-3.0, 0.0], [2.0, 4.0], [30.0, -1.0]])
COVARIANCES = np.array([[[1.0, 0.6], [0.6, 0.8]], [[0.3, 0.0], [0.0, 2.0]], [[4.0, -0.5], [-0.5, 0.1]]])


def known() -> GaussianMixture:
    """The mixture above, set by hand."""
    p = GaussianMixture(2, 3).double()
    p.log_weights.copy_(torch.tensor(WEIGHTS).log())
    p.means.copy_(torch.tensor(MEANS))
    p.roots.copy_(torch.tensor(np.linalg.cholesky(COVARIANCES)))
    return p


def log_density(z: np.ndarray) -> np.ndarray:
    """By scipy, component by component."""
    parts = [scipy.stats.multivariate_normal(m, c).pdf(z) for m, c in zip(MEANS, COVARIANCES, strict=True)]
    return np.log(WEIGHTS @ np.array(parts))


def draws(n: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    k = generator.choice(3, n, p=WEIGHTS)
    e = generator.standard_normal((n, 2))
    return MEANS[k] + np.einsum("nij,nj->ni", np.linalg.cholesky(COVARIANCES)[k], e)


def test_mixture_nll_against_scipy():
    z = draws(200)
    torch.testing.assert_close(known().terms(torch.tensor(z))["nll"], torch.tensor(-log_density(z)))


def test_mixture_of_one_component_is_a_gaussian():
    p = GaussianMixture(3, 1).double()
    q, z = Normal(torch.zeros(5, 3).double(), torch.zeros(5, 3).double()), torch.randn(5, 3).double()
    torch.testing.assert_close(p.bound(z), q.nll(z))  # as it is made: the standard normal, whatever K
    torch.testing.assert_close(GaussianMixture(3, 7).double().bound(z), q.nll(z))


def test_mixture_of_a_posterior_is_its_cross_entropy_less_its_entropy():
    var = torch.tensor([0.3, 0.7]).double()
    q = Normal(torch.tensor([[1.0, -0.5]]).double().expand(50_000, 2), var.log().expand(50_000, 2))
    terms = GaussianMixture(2, 1).double().terms(q, exact=True)
    want = 0.5 * (var + torch.tensor([1.0, 0.25]) + math.log(2 * math.pi)).sum() - normal_entropy(var)
    assert_mean(total(terms), float(want))


def test_mixture_samples_have_its_moments():
    n = 60_000
    z = known().sample(n)
    mean = WEIGHTS @ MEANS
    covariance = np.einsum("k,kij->ij", WEIGHTS, COVARIANCES + np.einsum("ki,kj->kij", MEANS, MEANS))
    for i in range(2):
        assert_mean(z[:, i], mean[i])
        for j in range(2):
            assert_mean(z[:, i] * z[:, j], covariance[i, j])
    near = z[z[:, 0] < 0] - torch.tensor(MEANS[0])  # the first component, but for its tail
    assert float((near[:, 0] * near[:, 1]).mean()) == pytest.approx(0.6, abs=0.05)
    assert_mean((z[:, 0] > 15).double(), WEIGHTS[2])
    one = known().sample(1, noise=lambda shape: torch.full(shape, -9.0).double())  # the first component, by L e
    torch.testing.assert_close(
        one[0], torch.tensor(MEANS[0] + np.linalg.cholesky(COVARIANCES[0]) @ np.array([-9.0, -9.0]))
    )


def test_fit_recovers_a_known_mixture():
    p = GaussianMixture(2, 3)
    z = draws(4000)
    p.fit(torch.tensor(z, dtype=torch.float32))
    order = [int(np.linalg.norm(p.means.numpy() - m, axis=1).argmin()) for m in MEANS]
    assert sorted(order) == [0, 1, 2]
    np.testing.assert_allclose(p.log_weights.exp().numpy()[order], WEIGHTS, atol=0.03)
    np.testing.assert_allclose(p.means.numpy()[order], MEANS, atol=0.2)
    covariances = (p.roots @ p.roots.transpose(1, 2)).numpy()[order]
    np.testing.assert_allclose(covariances, COVARIANCES, rtol=0.12, atol=0.06)
    excess = p.bound(torch.tensor(z, dtype=torch.float32)).double().numpy() + log_density(z)
    assert abs(excess.mean()) < 0.02


def test_fit_is_scikit_learns_on_standardised_codes():
    z = draws(600) * np.array([1.0, 1e-3]) + np.array([0.0, 100.0])
    p = GaussianMixture(2, 4)
    p.fit(torch.tensor(z).float())
    z = torch.tensor(z).float().double().numpy()
    center, scale = z.mean(0), z.std(0, ddof=1)
    other = sklearn.mixture.GaussianMixture(4, reg_covar=1e-4, random_state=0, max_iter=200).fit((z - center) / scale)
    want = -(other.score_samples((z - center) / scale) - np.log(scale).sum())
    np.testing.assert_allclose(p.double().bound(torch.tensor(z)).numpy(), want, atol=0.05)


def test_fit_to_few_codes_takes_few_components():
    p, z = GaussianMixture(2, 10).double(), torch.randn(9, 2).double()
    p.fit(torch.randn(400, 2).double() + 50)  # an earlier fit leaves nothing behind
    p.fit(z)
    assert int(p.log_weights.isfinite().sum()) == 2  # two codes for each dimension of each component
    assert float(p.log_weights.exp().sum()) == pytest.approx(1)
    assert bool(torch.isfinite(p.bound(z)).all())
    assert float(p.sample(2000).abs().max()) < 30
    p.fit(z[:2])
    assert float(p.log_weights[0]) == 0.0
    torch.testing.assert_close(p.means[0], z[:2].mean(0), rtol=1e-5, atol=1e-5)
    p.fit(torch.ones(6, 2).double())  # codes that all coincide
    assert bool(torch.isfinite(p.bound(torch.ones(1, 2).double())).all())


# ----------------------------------------------------------------------------------------------------- no prior


def autoencoder(encoder) -> Autoencoder:
    return Autoencoder(encoder, LikelihoodDecoder(mlp([2, 8, 2]), GaussianLikelihood(0.5)), NoPrior())


def test_without_a_prior_only_the_distortion_trains():
    model = autoencoder(DiracEncoder(mlp([2, 8, 2])))
    x = torch.randn(6, 2)
    terms = model.terms(x)
    assert set(terms) == {"distortion"}
    torch.testing.assert_close(terms["distortion"], model.decoder(model.encoder(x).mean).nll(x))
    with pytest.raises(ConfigError, match="no prior"):
        model.sample(3)


def test_without_a_prior_there_is_no_bound():
    """Nor with a noisy code: the distortion alone is smaller than -log p(x)."""
    x, z = torch.randn(6, 2), torch.randn(6, 2)
    for encoder in (DiracEncoder(mlp([2, 8, 2])), GaussianEncoder(mlp([2, 8, 4]))):
        with pytest.raises(NoBound):
            autoencoder(encoder).bound(x)
    for q in (z, Dirac(z), Normal(z, z)):
        assert NoPrior().terms(q) == {}
        with pytest.raises(NoBound):
            NoPrior().terms(q, exact=True)
