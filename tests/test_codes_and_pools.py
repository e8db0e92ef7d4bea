"""What codes hold, and how a pool compares with data: linear-Gaussian encoders, shifted Gaussians, and copies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from diled.api import NoBound
from diled.distributions import Dirac, Normal
from diled.errors import ConfigError, DataError
from diled.evaluation.codes import (
    active_units,
    aggregate,
    averaged,
    code_figures,
    collapse,
    information,
    kl_per_unit,
    listening,
    posteriors,
    probes,
    probes_of_halves,
    smoothness,
)
from diled.evaluation.feature_nets import random_features
from diled.evaluation.measure import Measured
from diled.evaluation.pools import (
    entropy_offset,
    memorisation,
    pool_figures,
    quality,
    two_sample,
    two_sample_images,
)
from diled.models.autoencoder import Autoencoder
from diled.models.priors import GaussianMixture, StandardNormal

# ---------------------------------------------------------------------------------------------------- linear models


class LinearEncoder(nn.Module):
    """q(z | x) = N(w x + shift, var)."""

    def __init__(self, w, var, shift=0.0):
        super().__init__()
        self.w, self.log_var, self.shift = nn.Parameter(w), torch.as_tensor(var).log(), shift

    def forward(self, x):
        mean = x @ self.w.T + self.shift
        return Normal(mean, self.log_var.to(mean).expand_as(mean))


class LinearDecoder(nn.Module):
    """p(x | z) = N(u z, var)."""

    def __init__(self, u, var=1.0):
        super().__init__()
        self.u, self.var = nn.Parameter(u), var

    def forward(self, z):
        mean = z @ self.u.T
        return Normal(mean, torch.full_like(mean, math.log(self.var)))


class DiracEncoder(nn.Module):
    def forward(self, x):
        return Dirac(x)


def linear(w, var, u, prior=None, noise=1.0):
    return Autoencoder(LinearEncoder(w, var), LinearDecoder(u, noise), prior or StandardNormal((w.shape[0],)))


W = torch.tensor([[0.9, 0.2, 0.0], [0.9, -0.3, 0.1]], dtype=torch.float64)
VAR = torch.tensor([0.5, 0.3], dtype=torch.float64)


@pytest.fixture(scope="module")
def gaussian_codes():
    """Posteriors of x ~ N(0, I) under `W` and `VAR`, and the covariance of their aggregate."""
    x = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = x @ W.T
    return means, VAR.log().expand_as(means), means.T.cov() + torch.diag(VAR)


def near(measured: Measured, want: float, slack: float = 0.0) -> None:
    assert measured.value is not None
    assert measured.stderr is not None
    assert abs(measured.value - want) < 4 * measured.stderr + slack, f"{measured} but expected {want}"


# ------------------------------------------------------------------------------------------------- what codes hold


def test_active_units_have_means_that_vary():
    means = torch.tensor([[0.0, 1.0, 5.0], [0.3, 1.19, 5.0], [0.6, 1.0, 5.0]])
    # variances 0.09, 0.01203, 0
    assert active_units(means).tolist() == [True, True, False]
    assert active_units(means, threshold=0.0125).tolist() == [True, False, False]
    with pytest.raises(DataError, match="at least 2"):
        active_units(means[:1])


def test_information_is_that_of_a_gaussian_channel():
    means = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    log_vars = torch.tensor([[0.5, 1.0], [1.5, 1.0], [0.5, 1.0], [1.5, 1.0]]).log()
    assert torch.allclose(information(means, log_vars), torch.tensor([0.5 * math.log(1 + 4 / 3), 0.0]), atol=1e-6)


def test_kl_per_unit_against_torch():
    g = torch.Generator().manual_seed(1)
    means, log_vars = torch.randn(50, 4, generator=g), torch.randn(50, 4, generator=g)
    q = torch.distributions.Normal(means, (0.5 * log_vars).exp())
    want = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    assert torch.allclose(kl_per_unit(means, log_vars), want, atol=1e-5)


def test_aggregate_of_a_linear_encoder_in_closed_form(gaussian_codes):
    means, log_vars, cov = gaussian_codes
    found = aggregate(means, log_vars)
    log_det, log_vars_of_cov = torch.logdet(cov).item(), cov.diagonal().log().sum().item()
    told = 0.5 * (log_det - VAR.log().sum().item())
    near(found["mutual_information_nats"], told, 0.01)
    assert found["mutual_information_most"].value == pytest.approx(told, abs=1e-9)
    near(found["total_correlation_nats"], 0.5 * (log_vars_of_cov - log_det), 0.01)
    near(found["aggregate_kl_nats"], 0.5 * (cov.trace().item() - 2 - log_det), 0.01)
    near(found["dimension_kl_nats"], 0.5 * (cov.trace().item() - 2 - log_vars_of_cov), 0.01)
    assert not found["mutual_information_nats"].note


def test_the_rate_is_information_and_distance_from_the_prior(gaussian_codes):
    """Hoffman and Johnson's identity, against the closed form of the rate; and Chen et al.'s for what is left."""
    means, log_vars, _ = gaussian_codes
    found = aggregate(means, log_vars, samples=3000)
    told, left = found["mutual_information_nats"], found["aggregate_kl_nats"]
    rate = kl_per_unit(means, log_vars).sum().item()
    assert told.value + left.value == pytest.approx(rate, abs=4 * math.hypot(told.stderr, left.stderr))
    parts = found["total_correlation_nats"].value + found["dimension_kl_nats"].value
    assert left.value == pytest.approx(parts, abs=1e-9)


def test_mixture_by_hand(monkeypatch):
    """Two posteriors of one dimension each, by quadrature; and in chunks of one draw."""
    means, log_vars = torch.tensor([[-1.0], [1.5]]).double(), torch.tensor([[0.4], [0.8]]).double().log()
    monkeypatch.setattr("diled.evaluation.codes.CHUNK", 1)
    found = [aggregate(means, log_vars, samples=2, seed=seed) for seed in range(600)]
    z = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    each = torch.exp(-0.5 * (z - means) ** 2 / log_vars.exp()) / torch.sqrt(2 * math.pi * log_vars.exp())
    own, mixed = (each * torch.log(each.clamp(min=1e-300))).mean(0), each.mean(0)
    want = torch.trapezoid(own - mixed * torch.log(mixed), z).item()
    near(averaged([f["mutual_information_nats"].value for f in found]), want)


def test_information_stops_at_log_n():
    means = 100.0 * torch.arange(40.0)[:, None]
    found = aggregate(means, torch.zeros_like(means))
    assert found["mutual_information_nats"].value == pytest.approx(math.log(40), abs=1e-9)
    assert "log N" in found["mutual_information_nats"].note
    assert "log N" in found["total_correlation_nats"].note
    assert found["mutual_information_most"].value > 6
    assert "too few" in aggregate(means.expand(40, 5), torch.zeros(40, 5))["mutual_information_most"].note


def test_other_priors_get_what_needs_no_density(gaussian_codes):
    means, log_vars, _ = gaussian_codes
    all_of_it, found = aggregate(means, log_vars), aggregate(means, log_vars, standard_normal=False)
    assert set(all_of_it) - set(found) == {"aggregate_kl_nats", "dimension_kl_nats"}
    assert all(found[name] == all_of_it[name] for name in found)
    with pytest.raises(ConfigError, match="samples"):
        aggregate(means, log_vars, samples=1)


def figures(bound: float, own: float, other: float) -> dict[str, Measured]:
    names = ("bound_nats", "distortion_nats", "shuffled_distortion_nats")
    return {name: Measured(value) for name, value in zip(names, (bound, own, other), strict=True)}


def test_collapse_of_dimensions():
    nats = torch.full((20,), 0.09)
    nats[:2] = 3.0
    assert not collapse(nats).collapsed  # 18 of 20 are 90 %, not more
    nats[1] = 0.05
    verdict = collapse(nats)
    assert verdict.collapsed
    assert verdict.unused == 19
    assert verdict.words.startswith("Collapsed. 19 of 20 dimensions")
    assert collapse(torch.tensor([0.11, 0.2])).words.startswith("In use.")


def test_collapse_of_the_decoder():
    nats = torch.ones(4)
    deaf, listens = collapse(nats, figures(-100.0, -110.0, -109.1)), collapse(nats, figures(-100.0, -110.0, -108.9))
    assert deaf.collapsed
    assert "0.9 nats" in deaf.words
    assert "ignores" in deaf.words
    assert not listens.collapsed
    assert listens.gain == pytest.approx(1.1)
    assert not collapse(nats, {"bound_nats": Measured(None)}).collapsed


def test_another_code_costs_twice_the_variance_of_the_mean():
    """x ~ N(0, I), decoded mean z ~ N(x, v): E|x - z'|^2 exceeds E|x - z|^2 by 2 for each dimension."""
    x = torch.randn(4000, 2)
    model = linear(torch.eye(2), 0.25, torch.eye(2))
    found = listening(model, x)
    unit = math.log(2 * math.pi)
    near(found["distortion_nats"], unit + 0.25)
    near(found["shuffled_distortion_nats"], unit + 2.25, 0.05)
    near(found["bound_nats"], unit + 0.25 + (0.25 + 1 - 1 - math.log(0.25)))


def test_no_example_keeps_its_own_code():
    x = torch.eye(3) * 10
    found = listening(linear(torch.eye(3), 1e-6, torch.eye(3)), x)
    # |10 e_i - 10 e_j|^2 / 2 = 100 for every pair
    assert found["shuffled_distortion_nats"].value == pytest.approx(100 + 1.5 * math.log(2 * math.pi), abs=0.1)
    assert found["shuffled_distortion_nats"].stderr < 0.1
    with pytest.raises(DataError, match="fewer than 2"):
        listening(linear(torch.eye(3), 1.0, torch.eye(3)), x[:1])


def test_figures_of_a_healthy_and_a_collapsed_model():
    x = torch.randn(600, 3)
    healthy = code_figures(linear(torch.eye(3), 0.1, torch.eye(3), noise=0.1), x)
    assert healthy["active_units"].value == 3
    assert healthy["unused_units"].value == 0
    assert healthy["collapsed"].value == 0
    assert healthy["information_nats"].value == pytest.approx(1.5 * math.log(11), abs=0.2)
    # all units are active, since the code is wide, but its noise is wider still: under another prior nothing shows
    drowned = GaussianMixture(3, 1)
    lost = code_figures(linear(torch.eye(3), 30.0, torch.zeros(3, 3), drowned), x)
    assert lost["active_units"].value == 3
    assert lost["unused_units"].value == 3
    assert lost["collapsed"].value == 1
    assert "ignores" in lost["collapsed"].note
    assert "aggregate_kl_nats" not in lost


def test_posteriors_are_flat_and_need_noise():
    x = torch.randn(5, 3)
    q = posteriors(linear(torch.eye(3), 0.5, torch.eye(3)), x)
    assert q.mean.dtype == torch.float64
    assert torch.allclose(q.mean.float(), x)
    assert torch.allclose(q.var, torch.tensor(0.5, dtype=torch.float64))
    with pytest.raises(NoBound, match="Dirac"):
        posteriors(Autoencoder(DiracEncoder(), LinearDecoder(torch.eye(3)), StandardNormal((3,))), x)
    with pytest.raises(NoBound, match="no encoder"):
        posteriors(StandardNormal((3,)), x)


# ------------------------------------------------------------------------------------------ smoothness and probes


def test_smoothness_of_a_linear_model_by_hand():
    w, u, var = 0.8, 1.1, 0.3
    model = linear(torch.tensor([[w]]), var, torch.tensor([[u]]))
    a, b, alphas = torch.tensor([[1.0], [2.0]]), torch.tensor([[-3.0], [0.5]]), (0.0, 0.25, 1.0)
    found = smoothness(model, a, b, alphas)
    z = torch.stack([alpha * w * a[:, 0] + (1 - alpha) * w * b[:, 0] for alpha in alphas])
    want = -0.5 * math.log(2 * math.pi * var) - ((1 - w * u) * z) ** 2 / (2 * var)
    assert torch.allclose(found, want.double(), atol=1e-5)
    assert found.shape == (3, 2)


def test_smoothness_refuses():
    x = torch.zeros(2, 3)
    with pytest.raises(ConfigError, match=r"1\.5"):
        smoothness(linear(torch.eye(3), 1.0, torch.eye(3)), x, x, (0.5, 1.5))
    with pytest.raises(DataError, match="equal shapes"):
        smoothness(linear(torch.eye(3), 1.0, torch.eye(3)), x, x[:1])
    with pytest.raises(NoBound):
        smoothness(Autoencoder(DiracEncoder(), LinearDecoder(torch.eye(3)), StandardNormal((3,))), x, x)


def two_gaussians(n: int, distance: float, seed: int, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], n // 2)
    shift = np.eye(d)[0] * distance * labels[:, None]
    return rng.standard_normal((n, d)) + shift, labels


def test_probes_reach_the_bayes_rate_and_only_some_see_rings():
    x, y = two_gaussians(1200, 3.0, 0)
    x_test, y_test = two_gaussians(1200, 3.0, 1)
    found = probes(x, y, x_test, y_test)
    assert {name.split("/")[1] for name in found} == {"logistic", "linear_svm", "rbf_svm", "neighbours"}
    for name, m in found.items():
        near(m, norm.cdf(1.5), 0.02 if name.endswith("neighbours") else 0.005)
    rng = np.random.default_rng(2)
    angle, ring = rng.uniform(0, 2 * np.pi, 800), np.tile([0, 1], 400)
    codes = (1 + 2 * ring)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    rings = probes(codes[:400], ring[:400], codes[400:], ring[400:])
    for name in ("rbf_svm", "neighbours"):
        assert rings[f"probe_accuracy/{name}"].value > 0.99
    for name in ("logistic", "linear_svm"):
        assert rings[f"probe_accuracy/{name}"].value < 0.65


def test_probes_standardise():
    x, y = two_gaussians(400, 6.0, 0)
    x[:, 1] *= 1000
    x_test, y_test = two_gaussians(400, 6.0, 1)
    x_test[:, 1] *= 1000
    found = probes(x, y, x_test, y_test)
    assert all(m.value > 0.97 for m in found.values())


def test_probes_leave_out_missing_labels_and_keep_to_the_limit():
    x, y = two_gaussians(300, 8.0, 0)
    y[::3] = -1
    found = probes(x, y, x, y, limit=100)["probe_accuracy/logistic"]
    assert found.value == 1
    assert found.n == 100
    assert found.note == "fitted to 100 codes"
    assert probes(x, y, x, y)["probe_accuracy/logistic"].n == 200


def test_halves_are_stratified():
    x, y = two_gaussians(200, 8.0, 0)
    y[:10] = 2
    x[:10] -= 20
    found = probes_of_halves(x, y)["probe_accuracy/logistic"]
    assert found.value == 1
    assert found.n == 100
    with pytest.raises(DataError, match="two halves"):
        probes_of_halves(x[9:], y[9:])


@pytest.mark.parametrize(
    ("codes", "labels", "words"),
    [
        (np.zeros((4, 2)), np.zeros(3, int), "do not match"),
        (np.full((4, 2), np.nan), np.arange(4), "NaN"),
        (np.zeros((4, 2)), np.full(4, -1), "No code has a label"),
        (np.zeros((4, 2)), np.zeros(4, int), "2 classes"),
    ],
)
def test_probes_refuse(codes, labels, words):
    with pytest.raises(DataError, match=words):
        probes(codes, labels, codes, labels)


# ------------------------------------------------------------------------------------------------- synthetic pools


def draws(n: int, d: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def test_a_fresh_pool_is_as_near_to_test_as_to_training_examples():
    found = memorisation(draws(800, seed=0), draws(600, seed=1), draws(400, seed=2))
    for name in ("nearest_ratio", "nearer_train", "copying"):
        near(found[name], 0.5)
        assert found[name].stderr < 0.04
    assert found["copies"].value == 0


def test_symmetry_holds_for_a_poor_pool_and_copying_does_not():
    """Samples at the centre are nearer to everything than real data, which says nothing of the training set."""
    found = memorisation(0.1 * draws(800, seed=0), draws(400, seed=1), draws(400, seed=2))
    near(found["nearest_ratio"], 0.5)
    near(found["nearer_train"], 0.5)
    assert found["copying"].value > 0.9


def test_copies_are_found():
    train, test = draws(300, seed=1), draws(300, seed=2)
    for noise, copies in ((0.0, 1.0), (1e-7, 1.0), (0.01, 0.0)):
        found = memorisation(train[:200] + noise * draws(200, seed=3), train, test)
        assert found["nearest_ratio"].value > 0.98
        assert found["nearer_train"].value == 1
        assert found["nearer_train"].stderr == 0
        assert found["copying"].value == 1
        assert found["copies"].value == copies
    exact = memorisation(train, train, test)
    assert exact["nearest_ratio"].value == 1
    of_test = memorisation(test, train, test)
    assert of_test["nearest_ratio"].value == 0
    assert of_test["nearer_train"].value == 0


def test_half_copies_are_half_of_the_way():
    train, test = draws(300, seed=1), draws(300, seed=2)
    pool = np.concatenate([train, draws(300, seed=3)])
    found = memorisation(pool, train, test)
    assert found["copies"].value == 0.5
    near(found["nearer_train"], 0.75)
    near(found["copying"], 0.75)


def test_of_a_larger_training_set_a_part_of_the_copies_is_seen():
    train, test = draws(1200, seed=1), draws(300, seed=2)
    found = memorisation(train, train, test)
    near(found["nearer_train"], 1 / 4 + 3 / 4 / 2)
    assert found["nearer_train"].note.endswith("sees one copy in 4.0")
    assert found["copies"].value == found["copying"].value == 1


def test_distances_by_hand():
    """One dimension: s = 0 and 4; train at 1, test at 3 and further: d = (1, 3) and (3, 1)."""
    pool, train, test = np.array([[0.0], [4.0]]), np.array([[1.0], [-9.0]]), np.array([[3.0], [-9.0]])
    found = memorisation(pool, train, test)
    assert found["nearest_ratio"].value == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert found["nearer_train"].value == 0.5
    # to the training set: pool 1 and 3, test 2 and 0
    assert found["copying"].value == 0.25
    three = memorisation(np.array([[0.0], [0.0], [4.0]]), train, test)
    assert three["nearest_ratio"].value == pytest.approx((3 / 4 + 3 / 4 + 1 / 4) / 3)
    # the two at 0 share their neighbour: errors 2 (1 - 2/3) and 0 - 2/3 add as squares
    assert three["nearer_train"].stderr == pytest.approx(math.sqrt((2 / 3) ** 2 + (2 / 3) ** 2) / 3)


def test_copying_is_mann_whitney_with_delongs_error():
    """Distances to one training example at 0 are the values themselves."""
    pool, test = np.array([[1.0], [2.0], [3.0], [3.0]]), np.array([[2.0], [3.0], [5.0]])
    found = memorisation(pool, np.array([[0.0], [-1000.0]]), test)["copying"]
    wins = (pool < test.T) + 0.5 * (pool == test.T)
    assert found.value == pytest.approx(wins.mean())
    error = wins.mean(1).var(ddof=1) / 4 + wins.mean(0).var(ddof=1) / 3
    assert found.stderr == pytest.approx(math.sqrt(error))


def test_two_samples_at_chance_and_at_the_bayes_rate():
    near(two_sample(draws(600, seed=0), draws(600, seed=1)), 0.5)
    for distance in (1.0, 2.0):
        shift = distance * np.eye(8)[0]
        found = two_sample(draws(2000, seed=0), draws(2500, seed=1) + shift)
        near(found, norm.cdf(distance / 2))
        assert found.n == 4000
        share = norm.cdf(distance / 2)
        assert found.stderr == pytest.approx(math.sqrt(share * (1 - share) / 2000), rel=0.05)


def test_a_hidden_layer_sees_what_a_plane_does_not():
    wide = 3.0 * draws(500, 2, seed=1)
    assert two_sample(draws(500, 2), wide).value < 0.6
    assert two_sample(draws(500, 2), wide, classifier="mlp").value > 0.7


def test_images_are_told_apart_by_a_network():
    g = torch.Generator().manual_seed(0)
    real, other = (torch.rand(80, 1, 4, 4, generator=g) * 2 - 1 for _ in range(2))
    fake = torch.cat([other[..., :2, :] * 0.1 + 0.7, other[..., 2:, :]], 2)
    apart, alike = (two_sample_images(real, x, steps=60) for x in (fake, other))
    assert apart.value > 0.9
    near(alike, 0.5)
    assert alike.note.startswith("mlp on images, 2 folds")


def test_two_samples_refuse():
    x = draws(20)
    with pytest.raises(ConfigError, match="forest"):
        two_sample(x, x, classifier="forest")
    with pytest.raises(ConfigError, match="folds = 1"):
        two_sample(x, x, folds=1)
    with pytest.raises(DataError, match="5 folds"):
        two_sample(x[:3], x)
    with pytest.raises(DataError, match="different widths: 8, 7"):
        two_sample(x, x[:, :7])
    with pytest.raises(DataError, match="fake features hold NaN"):
        two_sample(x, x * np.nan)
    with pytest.raises(DataError, match="shapes"):
        two_sample_images(torch.zeros(20, 1, 4, 4), torch.zeros(20, 1, 5, 4))


def test_quality_has_its_floor():
    test, train = draws(500, 4, seed=0), draws(600, 4, seed=1)
    found = quality(draws(550, 4, seed=2) + 1.0, train, test)
    near(found["frechet_pool"], 4.0, 0.2)
    assert found["frechet_floor"].value < 0.1
    assert found["frechet_pool"].n == 500
    assert found["kid_pool"].value > 10 * abs(found["kid_floor"].value)
    assert found["precision_pool"].value < found["precision_floor"].value
    assert found["recall_pool"].value < found["recall_floor"].value
    few = quality(draws(30, 4, seed=2), train, test)
    assert few["frechet_pool"].n == few["frechet_floor"].n == 30  # the floor has no more examples than the pool
    assert few["frechet_floor"].value > 3 * found["frechet_floor"].value


def test_entropy_offset_is_the_difference_of_cross_entropies():
    """Under N(0, I) the mean of -log p over N(0, s^2 I) is D/2 (log 2 pi + s^2)."""
    g = torch.Generator().manual_seed(0)
    pool, test = 0.5 * torch.randn(3000, 4, generator=g), torch.randn(3000, 4, generator=g)
    found = entropy_offset(StandardNormal((4,)), pool, test)
    near(found, 2 * (0.25 - 1))
    # -log p is 2 log 2 pi + |x|^2 / 2, of variance s^4 D / 2
    assert found.stderr == pytest.approx(math.sqrt(2 * (0.5**4 + 1) / 3000), rel=0.1)
    with pytest.raises(DataError, match="at least 2"):
        entropy_offset(StandardNormal((4,)), pool[:1], test)


def test_all_figures_of_a_pool_and_the_callers_randomness():
    g = torch.Generator().manual_seed(0)
    train, test, pool = (torch.rand(n, 1, 8, 8, generator=g) * 2 - 1 for n in (60, 50, 40))
    pool[0] = test[7]
    net = random_features((1, 8, 8))
    before = torch.get_rng_state()
    found = pool_figures(pool, train, test, net, model=StandardNormal((1, 8, 8)))
    assert torch.equal(before, torch.get_rng_state())
    parts = ("frechet", "kid", "precision", "recall")
    names = {f"{part}_{which}" for part in parts for which in ("pool", "floor")}
    names |= {"nearest_ratio", "nearer_train", "copying", "copies", "c2st_accuracy", "c2st_floor"}
    assert set(found) == names | {"test_examples", "entropy_offset_nats"}
    assert all(found[name].note.startswith("random-conv; ") for name in names)
    assert found["test_examples"].value == pytest.approx(1 / 40)
    assert found == pool_figures(pool, train, test, net, model=StandardNormal((1, 8, 8)))
    assert found["c2st_accuracy"].n == 80  # twice the smaller set
    assert found["c2st_floor"].n == 100
    assert "values themselves" in pool_figures(pool, train, test, limit=30)["nearest_ratio"].note
