"""Distances between two sets of images, computed from their features.

Every function takes features, one row per image, and knows nothing of networks: `feature_nets.py` makes the rows. A
distance means something only beside the name of the network, the number of images on both sides, and the distance of
real images from real images at those numbers (the floor). All arithmetic is in float64.

    Frechet distance    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))       two Gaussians fitted to the features
    kernel distance     E k(x, x') + E k(y, y') - 2 E k(x, y)              unbiased, k(x, y) = (x.y / D + 1)^3
    precision, recall   share of one set within the k-nearest-neighbour balls of the other
    density, coverage   the same idea, less moved by outliers
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diled.errors import DataError

__all__ = [
    "DensityCoverage",
    "Estimate",
    "FeatureStatistics",
    "PrecisionRecall",
    "density_coverage",
    "frechet",
    "frechet_bootstrap",
    "frechet_distance",
    "kid",
    "precision_recall",
]

BLOCK = 1000  # rows of a distance matrix at a time: 80 MB beside 10,000 columns


class Estimate(NamedTuple):
    """A measured number, its standard error, and how many examples of each set it comes from."""

    value: float
    stderr: float
    n: tuple[int, int]


class PrecisionRecall(NamedTuple):
    """Share of generated images among the real ones, and of real images among the generated ones."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density (expected 1 for equal distributions, may exceed 1) and coverage (at most 1)."""

    density: float
    coverage: float


class FeatureStatistics:
    """Mean and covariance of features, gathered batch by batch.

    A batch with n_b rows, mean m_b and scatter S_b = sum (x - m_b)(x - m_b)^T joins the n rows seen so far by

        d = m_b - m,    S <- S + S_b + d d^T n n_b / (n + n_b),    m <- m + d n_b / (n + n_b),    C = S / (n - 1)

    which, unlike sums of squares, loses no digits where the mean is large.

    Args:
        features: the first batch (N, D), if any.

    Reference: Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983.

    Example:
        >>> reference = FeatureStatistics(torch.eye(3)).update(torch.zeros(2, 3))
        >>> reference.n, [round(m, 6) for m in reference.mean.tolist()]
        (5, [0.2, 0.2, 0.2])
    """

    def __init__(self, features: Any = None) -> None:
        self.n = 0
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None
        if features is not None:
            self.update(features)

    def update(self, features: Any) -> FeatureStatistics:
        """Add a batch of features (N, D), N >= 1, and return self.

        Raises:
            DataError: the batch is empty, of another width, or holds NaN or infinite values.
        """
        x = _features(features, "features", least=1)
        n_b, m_b = len(x), x.mean(0)
        scatter = (x - m_b).T @ (x - m_b)
        if self._mean is None or self._scatter is None:
            self.n, self._mean, self._scatter = n_b, m_b, scatter
            return self
        _same_width(self._mean, m_b)
        d, n = m_b - self._mean, self.n + n_b
        self._scatter = self._scatter + scatter + torch.outer(d, d) * (self.n * n_b / n)
        self._mean = self._mean + d * (n_b / n)
        self.n = n
        return self

    @property
    def mean(self) -> Tensor:
        """The mean (D,), float64."""
        if self._mean is None:
            raise DataError("No features were given, so they have no mean.")
        return self._mean

    @property
    def cov(self) -> Tensor:
        """The unbiased covariance (D, D), float64.

        Raises:
            DataError: fewer than two features were given.
        """
        if self._scatter is None or self.n < 2:
            raise DataError(f"A covariance needs at least 2 examples, found {self.n}.")
        return self._scatter / (self.n - 1)


def frechet_distance(mean_1: Any, cov_1: Any, mean_2: Any, cov_2: Any) -> float:
    """The squared Frechet (2-Wasserstein) distance of two Gaussians.

        d^2 = |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1^(1/2) C2 C1^(1/2))^(1/2))

    The last trace is the sum of the singular values of C2^(1/2) C1^(1/2): they are the roots of the eigenvalues of
    C1^(1/2) C2 C1^(1/2), without the loss of half the digits that the root of a rounding error would bring. So singular
    covariances need no regularisation, and the result is real; it is cut off at zero.

    Args:
        mean_1: mean (D,) of the first Gaussian.
        cov_1: its covariance (D, D), symmetric and positive semi-definite.
        mean_2: mean (D,) of the second Gaussian.
        cov_2: its covariance (D, D).

    Returns:
        The distance, in squared units of the features; zero for equal Gaussians.

    Raises:
        DataError: the dimensions differ, or a value is NaN or infinite.

    References: Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982; Heusel et
    al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", 2017, eq. 6.

    Example:
        >>> frechet_distance([0.0], [[1.0]], [3.0], [[4.0]])
        10.0
    """
    m1, m2, c1, c2 = (torch.as_tensor(a).detach().cpu().double() for a in (mean_1, mean_2, cov_1, cov_2))
    _same_width(m1, m2)
    if m1.ndim != 1 or c1.shape != (len(m1), len(m1)) or c2.shape != c1.shape:
        raise DataError(f"Means {_shape(m1)}, {_shape(m2)} and covariances {_shape(c1)}, {_shape(c2)} do not fit.")
    if not all(bool(torch.isfinite(a).all()) for a in (m1, m2, c1, c2)):
        raise DataError("A mean or covariance holds NaN or infinite values.")
    cross = torch.linalg.svdvals(_square_root(c2) @ _square_root(c1)).sum()
    distance = (m1 - m2).square().sum() + c1.trace() + c2.trace() - 2 * cross
    return max(0.0, float(distance))


def frechet(features_a: Any, features_b: Any) -> float:
    """The Frechet distance of Gaussians fitted to two sets of features: "FID" where the network is Inception v3.

    With finite sets the estimate is too large by a term of order 1/N + 1/M: compare only values of equal sizes, and
    beside the floor (real images against real images at the same sizes).

    Args:
        features_a: features (N, D), or their `FeatureStatistics`.
        features_b: features (M, D), or their `FeatureStatistics`.

    Raises:
        DataError: fewer than 2 examples, different widths, or NaN or infinite values.

    References: Heusel et al. 2017; on the bias, Chong and Forsyth, "Effectively unbiased FID and Inception score",
    2020.

    Example:
        >>> frechet(torch.eye(3), torch.eye(3) + 2.0) > 11.9
        True
    """
    a, b = (s if isinstance(s, FeatureStatistics) else FeatureStatistics(s) for s in (features_a, features_b))
    _same_width(a.mean, b.mean)
    return frechet_distance(a.mean, a.cov, b.mean, b.cov)


def frechet_bootstrap(features_a: Any, features_b: Any, resamples: int = 50, seed: int = 0) -> Estimate:
    """The Frechet distance with a standard error, by drawing both sets anew with replacement.

    A redrawn set repeats examples, so the distances of redrawn sets are larger than the value; only their spread is
    used. It holds the chance of the draw, not that of training: seeds of training differ by more.

    Args:
        features_a: features (N, D).
        features_b: features (M, D).
        resamples: number of redrawn pairs, at least 2.
        seed: of the draw.

    Returns:
        The distance of the sets as given, the standard deviation over redrawn pairs, and (N, M).

    Raises:
        DataError: as for `frechet`, or fewer than 2 resamples.

    Reference: Efron, "Bootstrap methods: another look at the jackknife", 1979.

    Example:
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> frechet_bootstrap(x, x + 3.0).n
        (500, 500)
    """
    if resamples < 2:
        raise DataError(f"A standard error needs at least 2 resamples, found {resamples}.")
    a, b = _features(features_a, "features_a"), _features(features_b, "features_b")
    rng = np.random.default_rng(seed)

    def redrawn(x: Tensor) -> FeatureStatistics:
        return FeatureStatistics(x[torch.from_numpy(rng.integers(len(x), size=len(x)))])

    values = [frechet(redrawn(a), redrawn(b)) for _ in range(resamples)]
    return Estimate(frechet(a, b), float(np.std(values, ddof=1)), (len(a), len(b)))


def kid(features_a: Any, features_b: Any, subset_size: int = 1000, subsets: int = 100, seed: int = 0) -> Estimate:
    """The kernel distance: an unbiased estimate of the squared maximum mean discrepancy, over random subsets.

        k(x, y) = (x.y / D + 1)^3
        MMD^2   = sum_{i != j} [k(x_i, x_j) + k(y_i, y_j)] / (m (m - 1)) - 2 sum_{i, j} k(x_i, y_j) / m^2

    Unbiased for any number of examples, hence negative at times where the distributions are equal. With s the standard
    deviation over subsets and n = min(N, M), the standard error is

        s sqrt(1 / subsets + m / (n - m))

    The first part is the error of the average over subsets, the second that of the n examples themselves: subsets drawn
    without replacement vary by (1 - m / n) of what m fresh examples would, and n fresh examples by m / n of it. The
    customary s / sqrt(subsets) leaves the second out and is 3.5 times too small at 100 subsets of 1,000 of 10,000.

    Args:
        features_a: features (N, D).
        features_b: features (M, D).
        subset_size: examples m of each set in a subset, 2 <= m <= min(N, M).
        subsets: how many subsets are averaged.
        seed: of the subsets.

    Returns:
        The mean over subsets, its standard error (NaN with one subset, or where a subset is a whole set), and (N, M).

    Raises:
        DataError: fewer examples than a subset needs, different widths, or NaN or infinite values.

    References: Binkowski et al., "Demystifying MMD GANs", 2018; Gretton et al., "A kernel two-sample test", 2012,
    eq. 3.

    Example:
        >>> x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
        >>> kid(x, x + 1.0, subset_size=100, subsets=20).value > 0.5
        True
    """
    a, b = _features(features_a, "features_a"), _features(features_b, "features_b")
    _same_width(a[0], b[0])
    n, m = min(len(a), len(b)), subset_size
    if not 2 <= m <= n:
        raise DataError(f"subset_size must be between 2 and the number of examples, {n}; found {m}.")
    if subsets < 1:
        raise DataError(f"subsets must be at least 1, found {subsets}.")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        i, j = (torch.from_numpy(rng.permutation(len(x))[:m]) for x in (a, b))
        values.append(_mmd_squared(a[i], b[j]))
    stderr = math.nan
    if subsets > 1 and m < n:
        stderr = float(np.std(values, ddof=1)) * math.sqrt(1 / subsets + m / (n - m))
    return Estimate(float(np.mean(values)), stderr, (len(a), len(b)))


def precision_recall(real: Any, fake: Any, k: int = 3) -> PrecisionRecall:
    """Precision (are generated images realistic?) and recall (is the variety of real images reached?).

    With r_k(x) the distance of x to its k-th nearest neighbour within its own set:

        precision = share of fake y for which some real x has |x - y| <= r_k(x)
        recall    = share of real x for which some fake y has |x - y| <= r_k(y)

    Both grow with k and with the number of images: use equal numbers of both, and state them.

    Args:
        real: features (N, D) of real images, N > k.
        fake: features (M, D) of generated images, M > k.
        k: which nearest neighbour sets the radius.

    Raises:
        DataError: a set has no more than k examples, different widths, or NaN or infinite values.

    Reference: Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models", 2019,
    eq. 1 and 2.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> precision_recall(x, torch.tensor([[0.5], [0.6], [9.0], [9.1]]), k=1)
        PrecisionRecall(precision=0.5, recall=0.0)
    """
    x, y = _pair(real, fake, k, k + 1)
    radius_x, radius_y = _radii(x, k), _radii(y, k)
    inside_x, inside_y = torch.zeros(len(y), dtype=torch.bool), torch.zeros(len(x), dtype=torch.bool)
    for rows, distance in _distances(y, x):
        inside_x[rows] = (distance <= radius_x).any(1)
        inside_y |= (distance <= radius_y[rows, None]).any(0)
    return PrecisionRecall(float(inside_x.double().mean()), float(inside_y.double().mean()))


def density_coverage(real: Any, fake: Any, k: int = 5) -> DensityCoverage:
    """Density and coverage: precision and recall that a few outliers move less.

    With r_k(x) the distance of a real x to its k-th nearest neighbour among N real images, and M fake images y:

        density  = 1/(k M) sum_y #{x : |x - y| <= r_k(x)}              expected 1 where the distributions are equal
        coverage = share of real x for which some fake y has |x - y| <= r_k(x)

    For equal distributions and N = M large, coverage is expected at 1 - 2^-k.

    Args:
        real: features (N, D) of real images, N > k.
        fake: features (M, D) of generated images, M >= 2.
        k: which nearest neighbour sets the radius.

    Raises:
        DataError: a set has too few examples, different widths, or NaN or infinite values.

    Reference: Naeem et al., "Reliable fidelity and diversity metrics for generative models", 2020.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> density_coverage(x, torch.tensor([[0.5], [9.0]]), k=1)
        DensityCoverage(density=1.0, coverage=0.6666666666666666)
    """
    x, y = _pair(real, fake, k, 2)
    radius = _radii(x, k)
    count, covered = 0, torch.zeros(len(x), dtype=torch.bool)
    for _, distance in _distances(y, x):
        inside = distance <= radius
        count += int(inside.sum())
        covered |= inside.any(0)
    return DensityCoverage(count / (k * len(y)), float(covered.double().mean()))


def _features(features: Any, what: str, least: int = 2) -> Tensor:
    """`features` as a float64 tensor (N, D) with at least `least` rows and finite values."""
    x = torch.as_tensor(features).detach().cpu().double()
    if x.ndim != 2 or x.shape[1] < 1:
        raise DataError(f"{what} must have shape (examples, dimensions), found {_shape(x)}.")
    if len(x) < least:
        raise DataError(f"{what} needs at least {least} examples, found {len(x)}.")
    bad = int((~torch.isfinite(x).all(1)).sum())
    if bad:
        raise DataError(f"{what} holds NaN or infinite values in {bad} of {len(x)} examples.")
    return x


def _pair(real: Any, fake: Any, k: int, least: int) -> tuple[Tensor, Tensor]:
    """Both sets, checked for their width, more than k real examples and at least `least` generated ones."""
    if k < 1:
        raise DataError(f"k must be at least 1, found {k}.")
    x, y = _features(real, "real", k + 1), _features(fake, "fake", least)
    _same_width(x[0], y[0])
    return x, y


def _same_width(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise DataError(f"The two sets have different numbers of dimensions: {a.shape[-1]} and {b.shape[-1]}.")


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


def _square_root(cov: Tensor) -> Tensor:
    """The symmetric root of a positive semi-definite matrix; eigenvalues at the level of rounding count as zero."""
    values, vectors = torch.linalg.eigh((cov + cov.T) / 2)
    floor = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    values = torch.where(values > floor, values, 0.0)
    return (vectors * values.sqrt()) @ vectors.T


def _mmd_squared(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate of `kid` for two sets of m examples each."""
    m, width = x.shape

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        return (u @ v.T / width + 1) ** 3

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = xx.sum() - xx.trace() + yy.sum() - yy.trace()
    return float(within / (m * (m - 1)) - 2 * xy.sum() / m**2)


def _distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances of rows of `a` to all of `b`, `BLOCK` rows at a time.

    Differences are taken directly: the expansion into inner products would give an example a distance other than zero
    from its own copy, and make balls of radius zero miss it.
    """
    for start in range(0, len(a), BLOCK):
        rows = slice(start, min(start + BLOCK, len(a)))
        yield rows, torch.cdist(a[rows], b, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(x: Tensor, k: int) -> Tensor:
    """Distance of each row to its k-th nearest other row, (N,)."""
    radii = torch.empty(len(x), dtype=x.dtype)
    for rows, distance in _distances(x, x):
        index = torch.arange(rows.start, rows.stop)
        distance[index - rows.start, index] = math.inf  # an example is not its own neighbour
        radii[rows] = distance.kthvalue(k, dim=1).values
    return radii
