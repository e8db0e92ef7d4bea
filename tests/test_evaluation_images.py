"""Distances between sets of images: closed forms, explicit loops, and point sets with known answers."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from diled.data import open_data
from diled.errors import ConfigError, DataError, ModelError
from diled.evaluation.feature_nets import (
    FEATURES,
    _augmented,
    _model_space,
    accuracy,
    available,
    extract,
    feature_net,
    fit_feature_net,
    load_feature_net,
    random_features,
    save_feature_net,
)
from diled.evaluation.images import (
    FeatureStatistics,
    density_coverage,
    frechet,
    frechet_bootstrap,
    frechet_distance,
    kid,
    precision_recall,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def spd(d, seed, rank=None):
    a = normal(d, rank or d, seed=seed)
    return a @ a.T


class TestFrechet:
    def test_diagonal_gaussians(self):
        m1, m2 = np.array([1.0, -2.0, 0.0]), np.array([0.0, 1.0, 0.5])
        s1, s2 = np.array([1.0, 2.0, 0.1]), np.array([3.0, 0.5, 0.1])
        expected = ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()
        assert frechet_distance(m1, np.diag(s1**2), m2, np.diag(s2**2)) == pytest.approx(expected, rel=1e-12)

    def test_two_dimensions_in_closed_form(self):
        # For 2x2 matrices tr (C1 C2)^(1/2) = sqrt(tr C1 C2 + 2 sqrt(det C1 C2)).
        c1, c2 = np.array([[2.0, 0.7], [0.7, 1.0]]), np.array([[1.0, -0.4], [-0.4, 3.0]])
        cross = math.sqrt(np.trace(c1 @ c2) + 2 * math.sqrt(np.linalg.det(c1) * np.linalg.det(c2)))
        expected = 25 + np.trace(c1) + np.trace(c2) - 2 * cross
        assert frechet_distance([3.0, 0.0], c1, [0.0, 4.0], c2) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("d", [1, 5, 40])
    def test_equals_the_matrix_square_root(self, d):
        m1, m2, c1, c2 = normal(d, seed=1), normal(d, seed=2), spd(d, 3), spd(d, 4)
        root = scipy.linalg.sqrtm(c1 @ c2).real
        expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
        assert frechet_distance(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-9)
        assert frechet_distance(m2, c2, m1, c1) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("rank", [20, 3])
    def test_zero_for_the_same_even_where_singular(self, rank):
        c = spd(20, 0, rank)
        assert 0 <= frechet_distance(np.ones(20), c, np.ones(20), c) < 1e-12 * np.trace(c)

    def test_singular_covariances_on_different_axes(self):
        assert frechet_distance([0, 0], np.diag([4.0, 0.0]), [0, 0], np.diag([0.0, 9.0])) == pytest.approx(
            13, abs=1e-12
        )

    def test_covariance_of_rank_one(self):
        # C1 = v v^T: tr (C1 C2)^(1/2) = sqrt(v^T C2 v). Rounding in the null space of C1, rooted, would show at 1e-2.
        v, c = 1e4 * normal(40), spd(40, 1)
        expected = v @ v + np.trace(c) - 2 * math.sqrt(v @ c @ v)
        assert frechet_distance(np.zeros(40), np.outer(v, v), np.zeros(40), c) == pytest.approx(expected, abs=1e-4)

    def test_samples_converge(self):
        m, c = np.array([1.0, 0.0]), np.array([[2.0, 0.5], [0.5, 1.0]])
        exact = frechet_distance(np.zeros(2), np.eye(2), m, c)
        x, y = normal(200_000, 2), normal(200_000, 2, seed=1) @ np.linalg.cholesky(c).T + m
        assert frechet(x, y) == pytest.approx(exact, rel=0.02)
        assert frechet(x, normal(200_000, 2, seed=2)) < 1e-3

    def test_statistics_by_batches(self):
        x = normal(1003, 6) * np.arange(1, 7) + 1e4
        whole, parts = FeatureStatistics(x), FeatureStatistics()
        for start in range(0, 1003, 100):
            parts.update(torch.from_numpy(x[start : start + 100]))
        assert parts.n == 1003
        np.testing.assert_allclose(parts.mean, x.mean(0), rtol=1e-13)
        np.testing.assert_allclose(parts.cov, np.cov(x.T), rtol=1e-9, atol=1e-9)
        assert frechet(parts, whole) < 1e-9
        assert frechet(parts, x + 1) == pytest.approx(6, rel=1e-9)

    def test_bootstrap_agrees_with_fresh_samples(self):
        fresh = [frechet(normal(400, 3, seed=s), normal(500, 3, seed=100 + s) + 1) for s in range(40)]
        value, stderr, n = frechet_bootstrap(normal(400, 3), normal(500, 3, seed=100) + 1, resamples=60)
        assert (value, n) == (fresh[0], (400, 500))
        assert stderr == pytest.approx(np.std(fresh), rel=0.4)

    def test_refuses(self):
        x = normal(10, 3)
        with pytest.raises(DataError, match="at least 2"):
            frechet(x[:1], x)
        with pytest.raises(DataError, match="different numbers of dimensions: 3 and 2"):
            frechet(x, x[:, :2])
        with pytest.raises(DataError, match="NaN or infinite values in 1 of 10"):
            frechet(np.where(np.arange(30).reshape(10, 3) == 4, np.nan, x), x)
        with pytest.raises(DataError, match="shape"):
            frechet(x[None], x)
        with pytest.raises(DataError, match="do not fit"):
            frechet_distance(np.zeros(3), np.eye(3), np.zeros(3), np.eye(2))
        with pytest.raises(DataError, match="NaN"):
            frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.eye(2) * np.nan)
        with pytest.raises(DataError, match="No features"):
            _ = FeatureStatistics().mean
        with pytest.raises(DataError, match="2 resamples"):
            frechet_bootstrap(x, x, resamples=1)


class TestKernelDistance:
    def test_equals_explicit_loops(self):
        x, y = normal(5, 3), normal(5, 3, seed=1) + 0.5

        def k(u, v):
            return (u @ v / 3 + 1) ** 3

        within = sum(k(a[i], a[j]) for a in (x, y) for i in range(5) for j in range(5) if i != j) / (5 * 4)
        expected = within - 2 * sum(k(u, v) for u in x for v in y) / 25
        value, stderr, n = kid(x, y, subset_size=5, subsets=2)  # a subset of 5 of 5 is the whole set
        assert value == pytest.approx(expected, rel=1e-12)
        assert math.isnan(stderr)
        assert n == (5, 5)

    def test_known_value_far_apart(self):
        # Two points: k(0, 0) = 1, k(0, c) = 1, k(c, c) = (c^2 + 1)^3, hence 1 + 8 - 2 at c = 1.
        assert kid(np.zeros((4, 1)), np.ones((4, 1)), subset_size=4, subsets=1).value == pytest.approx(7)

    def test_zero_mean_and_honest_error_for_the_same_distribution(self):
        z = []
        for seed in range(40):
            found = kid(normal(300, 4, seed=2 * seed), normal(300, 4, seed=2 * seed + 1), 50, 40, seed)
            z.append(found.value / found.stderr)
        assert abs(np.mean(z)) < 3 * np.std(z) / math.sqrt(40)
        assert np.std(z) < 1.3

    def test_error_where_distributions_differ(self):
        found = [kid(normal(600, 2, seed=2 * s), normal(600, 2, seed=2 * s + 1) + 1, 60, 50, s) for s in range(40)]
        spread = np.std([f.value for f in found])
        assert np.mean([f.stderr for f in found]) == pytest.approx(spread, rel=0.35)

    def test_is_seeded(self):
        x, y = normal(60, 2), normal(50, 2, seed=1)
        assert kid(x, y, 10, 5, seed=3) == kid(x, y, 10, 5, seed=3) != kid(x, y, 10, 5, seed=4)

    def test_refuses(self):
        x = normal(10, 3)
        with pytest.raises(DataError, match="between 2 and the number of examples, 10"):
            kid(x, normal(30, 3), subset_size=11)
        with pytest.raises(DataError, match="subset_size"):
            kid(x, x, subset_size=1)
        with pytest.raises(DataError, match="subsets"):
            kid(x, x, subset_size=5, subsets=0)
        with pytest.raises(DataError, match="dimensions"):
            kid(x, x[:, :2], subset_size=5)


LINE = np.array([[0.0], [1.0], [3.0], [10.0]])  # first neighbours at 1, 1, 2, 7; second at 3, 2, 3, 9


class TestNeighbourBalls:
    def test_precision_and_recall_on_a_line(self):
        # Fakes with first-neighbour radii 0.25, 0.25, 1, 1.
        fake = np.array([[-1.0], [-1.25], [30.0], [31.0]])
        # -1 lies on the edge of the ball of 0; -1.25, 30 and 31 in none. No real point is in a fake ball.
        assert precision_recall(LINE, fake, k=1) == (0.25, 0.0)
        # With k = 2 the radii of 0 and 1 are 3 and 2: both fakes on the left are in. Fake radii become about 31, 31.25.
        assert precision_recall(LINE, fake, k=2) == (0.5, 1.0)

    def test_precision_and_recall_change_places(self):
        x, y = normal(50, 3), normal(80, 3, seed=1) + 0.7
        forth, back = precision_recall(x, y), precision_recall(y, x)
        assert forth == back[::-1]
        assert forth.precision != forth.recall

    def test_density_and_coverage_on_a_line(self):
        fake = np.array([[0.5], [9.0]])
        # k = 1: 0.5 is within the balls of 0 and 1, 9 within that of 10: 3 / (1 * 2), and 3 of 4 real points covered.
        assert density_coverage(LINE, fake, k=1) == (1.5, 0.75)
        # k = 2: 0.5 within 0 (3), 1 (2), 3 (3), but not 10 (9 < 9.5); 9 within 10: 4 / (2 * 2), and all covered.
        assert density_coverage(LINE, fake, k=2) == (1.0, 1.0)

    def test_copies_and_strangers(self):
        x = np.repeat(normal(40, 5), 4, axis=0) * 100  # radii of zero at k = 3
        assert precision_recall(x, x.copy()) == (1.0, 1.0)
        assert density_coverage(x, x.copy(), k=3).coverage == 1.0
        assert precision_recall(x, x + 1e4) == (0.0, 0.0)
        assert density_coverage(x, x + 1e4) == (0.0, 0.0)

    def test_equal_distributions(self):
        x, y = normal(1500, 8), normal(1500, 8, seed=1)
        density, coverage = density_coverage(x, y, k=5)
        assert density == pytest.approx(1, abs=0.1)
        assert coverage == pytest.approx(1 - 2**-5, abs=0.02)

    def test_blocks_do_not_change_the_answer(self, monkeypatch):
        x, y = normal(70, 3), normal(45, 3, seed=1) + 0.5
        whole = precision_recall(x, y), density_coverage(x, y)
        monkeypatch.setattr("diled.evaluation.images.BLOCK", 16)
        assert (precision_recall(x, y), density_coverage(x, y)) == whole

    def test_refuses(self):
        with pytest.raises(DataError, match="at least 4 examples, found 3"):
            precision_recall(LINE, LINE[:3], k=3)
        with pytest.raises(DataError, match="k must be"):
            density_coverage(LINE, LINE, k=0)
        with pytest.raises(DataError, match="at least 2 examples"):
            density_coverage(LINE, LINE[:1], k=1)


@pytest.fixture(scope="module")
def digits():
    data = open_data("digits")
    return torch.as_tensor(data.test.values).float() / 8 - 1, torch.as_tensor(data.test.labels["label"])


class TestFeatureNets:
    def test_digits_reach_the_recorded_accuracy(self, digits):
        net = feature_net("digits")
        assert net.accuracy >= 0.97
        assert accuracy(net, *digits) == pytest.approx(net.accuracy, abs=1e-9)
        binary = torch.where(digits[0] > 0, 1.0, -1.0)
        assert accuracy(net, binary, digits[1]) == pytest.approx(net.notes["accuracy_binary"], abs=1e-9)

    @pytest.mark.parametrize(
        ("name", "shape", "least"),
        [("mnist", (1, 28, 28), 0.987), ("fashion-mnist", (1, 28, 28), 0.9), ("cifar10", (3, 32, 32), 0.7)],
    )
    def test_packaged(self, name, shape, least):
        assert name in available()
        net = feature_net(name)
        assert net.name == f"{name}-cnn-v1"
        assert net.accuracy >= least
        assert not net.training
        assert not any(p.requires_grad for p in net.parameters())
        features = extract(net, torch.rand(3, *shape) * 2 - 1)
        assert features.shape == (3, FEATURES)
        assert features.std(0).max() > 0

    def test_one_network_for_all_variants_loaded_once(self):
        assert feature_net("mnist/threshold") is feature_net("mnist")
        with pytest.raises(ConfigError, match="Did you mean 'mnist'"):
            feature_net("mnits")

    def test_noise_and_blur_are_seen(self, digits):
        images, net = digits[0], feature_net("digits")
        reference = FeatureStatistics(extract(net, images))
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        found = [frechet(extract(net, images + s * noise), reference) for s in (0, 0.1, 0.3, 1.0)]
        assert found[0] < 1e-6
        assert found == sorted(found)
        blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
        assert frechet(extract(net, blurred), reference) > 10 * found[1]

    def test_extract(self, digits):
        images, net = digits[0], feature_net("digits")
        whole = extract(net, images)
        assert whole.dtype == np.float32
        np.testing.assert_allclose(extract(net, images.numpy(), batch_size=7), whole, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(extract(net, images * 1.5), extract(net, (images * 1.5).clamp(-1, 1)))
        with pytest.raises(DataError, match="floating-point"):
            extract(net, np.zeros((2, 1, 8, 8), np.uint8))
        with pytest.raises(DataError, match=r"from 0 to 16"):
            extract(net, (images + 1) * 8)
        with pytest.raises(DataError, match="NaN"):
            extract(net, images * np.nan)
        with pytest.raises(DataError, match=r"takes examples of shape \(1, 8, 8\), found \(1, 9, 8\)"):
            extract(net, torch.zeros(2, 1, 9, 8))
        with pytest.raises(DataError, match="at least one"):
            extract(net, images[:0])

    def test_random_features(self):
        net, same, other = random_features((3, 20, 90)), random_features((3, 20, 90)), random_features((3, 20, 90), 1)
        x = torch.rand(4, 3, 20, 90) * 2 - 1
        assert (net.name, other.name, net.accuracy) == ("random-conv", "random-conv/seed=1", None)
        np.testing.assert_array_equal(extract(net, x), extract(same, x))
        assert np.abs(extract(net, x) - extract(other, x)).max() > 0.01
        maps = net.body[:-1](x).flatten(2).numpy()
        expected = np.concatenate([maps.mean(2), maps.std(2)], 1)
        np.testing.assert_allclose(extract(net, x), expected, rtol=1e-4, atol=2e-4)  # sqrt(1e-8) where a map is flat
        with pytest.raises(ModelError, match="classifies nothing"):
            net(x)
        with pytest.raises(DataError, match="images"):
            random_features((64,))

    def test_fit_save_and_load(self, tmp_path):
        # Bright bars, upright or lying: a class that the mean grey value does not give away.
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 2, 300)
        values = rng.integers(0, 60, (300, 1, 20, 20)).astype(np.uint8)
        for image, label, at in zip(values[:, 0], labels, rng.integers(2, 18, 300), strict=True):
            image[(slice(None), at) if label else (at, slice(None))] = 220
        before = torch.get_rng_state()
        net = fit_feature_net(values, labels, name="bars", steps=60, batch_size=32, flip=True)
        assert torch.equal(before, torch.get_rng_state())
        assert (net.name, net.architecture.kind, net.architecture.classes) == ("bars-cnn", "cnn", 2)
        assert net.accuracy >= 0.9
        torch.manual_seed(5)
        again = fit_feature_net(values, labels, name="bars", steps=60, batch_size=32, flip=True)
        images = torch.from_numpy(values).float() / 127.5 - 1
        np.testing.assert_array_equal(extract(net, images), extract(again, images))

        save_feature_net(net, tmp_path / "bars.safetensors")
        loaded = load_feature_net(tmp_path / "bars.safetensors")
        assert (loaded.name, loaded.accuracy, loaded.notes) == (net.name, net.accuracy, net.notes)
        np.testing.assert_allclose(extract(loaded, images), extract(net, images), rtol=0.02, atol=0.02)
        (tmp_path / "cut.safetensors").write_bytes((tmp_path / "bars.safetensors").read_bytes()[:1000])
        for damaged in ("cut.safetensors", "missing.safetensors"):
            with pytest.raises(ModelError, match="not a feature network"):
                load_feature_net(tmp_path / damaged)

    def test_raw_values_in_model_space(self):
        raw = torch.tensor([3, 5, 11], dtype=torch.uint8)
        assert _model_space(raw, 3, 11).tolist() == [-1, -0.5, 1]

    def test_augmentation_keeps_the_grey_value_on_average(self):
        x = torch.linspace(-1, 1, 8).expand(20_000, 1, 1, 8)
        generator = torch.Generator().manual_seed(0)
        some = _augmented(x, 0.0, 0.25, False, generator)
        torch.testing.assert_close(some.mean(0), x[0], atol=0.03, rtol=0)
        changed = (some != x).flatten(1).any(1).double().mean()
        assert changed == pytest.approx(0.25, abs=0.02)
        mirrored = _augmented(x, 0.0, 0.0, True, generator)
        assert (mirrored == x.flip(-1)).flatten(1).all(1).double().mean() == pytest.approx(0.5, abs=0.02)
        assert (_augmented(x, 0.3, 0.0, False, generator) - x).std() == pytest.approx(0.3, abs=0.01)

    def test_fit_refuses(self):
        x = np.zeros((30, 1, 4, 4), np.uint8)
        with pytest.raises(DataError, match="one label per example"):
            fit_feature_net(x, np.zeros(29, int))
        with pytest.raises(DataError, match="at least 2 classes"):
            fit_feature_net(x, np.zeros(30, int))
        with pytest.raises(DataError, match="integers"):
            fit_feature_net(x, np.linspace(0, 1, 30))
        with pytest.raises(DataError, match="at least 20"):
            fit_feature_net(x[:5], np.arange(5))
        with pytest.raises(DataError, match="low must be below high, found 0 and 0"):
            fit_feature_net(x, np.arange(30) % 2, high=0)


def test_a_users_folder_of_a_known_name_does_not_get_the_known_network():
    from dataclasses import replace

    from diled.data import open_data
    from diled.evaluation.measure import features_for

    digits = open_data("digits")
    assert features_for(digits).name == "digits-mlp-v1"
    other = replace(digits, spec=digits.spec.model_copy(update={"shape": (3, 16, 16)}))
    assert features_for(other).name == "random-conv"
