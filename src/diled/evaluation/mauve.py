"""MAUVE: how much of each of two sets of texts lies where the other has text, between 0 and 1.

    R_l = l P + (1 - l) Q,     C(P, Q) = { (exp(-c KL(Q || R_l)), exp(-c KL(P || R_l))) : 0 < l < 1 },     MAUVE = area under C

P and Q are histograms of features over the cells of a k-means clustering of both sets. Where Q holds what P lacks, KL(Q || R_l)
stays high (text that no one writes); where it lacks what P holds, KL(P || R_l) does (variety that is not reached). The ends
(1, 0) and (0, 1) belong to the curve.

A value means something only beside the features, the number of texts of both sets, the clusters and the value of real text
against other real text at those numbers: with few texts even that is below 1, as two draws fill the cells differently.

Reference: Pillutla et al., "MAUVE: measuring the gap between neural text and human text using divergence frontiers", 2021
(arXiv 2102.01454), eq. 1 and 2 and section 3; Liu et al. 2021 (arXiv 2106.07898) on the error of the histograms.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from diled.errors import DataError

__all__ = ["default_clusters", "divergence_curve", "histograms", "mauve", "mauve_error", "mauve_of_histograms"]

MIXTURES = 25
"""Values of l, as in the reference package, so that values compare with those of other papers."""
EDGE = 1e-6
"""How far l stays away from 0 and 1, where a divergence may be infinite."""
VARIANCE = 0.9
"""Share of the variance that the principal components keep."""
MOST = 500
"""Clusters at most."""
REDRAWN = 100
"""Pairs of histograms that are drawn for a standard error."""


def mauve(p_features: Any, q_features: Any, *, clusters: int | None = None, scale: float = 5.0, seed: int = 0) -> float:
    """MAUVE of two sets of texts, from their features.

    The steps are those of the reference package `mauve-text` (0.4): rows of length one, principal components that hold 90 %
    of the variance, k-means on both sets together with five starts and at most 500 iterations, 25 mixtures. Four points differ:

    - k-means is scikit-learn's (k-means++ starts, all rows) in place of faiss's (random starts, at most 256 rows a cluster);
    - there are at most 500 clusters, as in the paper;
    - equal histograms give 1, where the package gives 0.75 by the order in which it sorts equal points;
    - the features are the caller's, where the package can make GPT-2's.

    Args:
        p_features: (N, D), of real texts.
        q_features: (M, D), of generated ones.
        clusters: cells of the histograms; None: a tenth of the smaller set, at least 2 and at most 500.
        scale: c.
        seed: of the clustering.

    Returns:
        A number in (0, 1]; 1 for equal histograms. Another clustering (seed, order of rows, exchanged arguments) moves it, by
        0.05 with 300 rows each.

    Raises:
        DataError: a set has fewer than 2 rows, widths differ, values are not finite, or there are more clusters than rows.

    Reference: Pillutla et al. 2021, section 3 and appendix on hyperparameters.
    """
    return mauve_of_histograms(*histograms(p_features, q_features, clusters=clusters, seed=seed), scale=scale)


def default_clusters(n: int, m: int) -> int:
    """max(2, min(n, m, 5000) / 10): the cells for sets of n and m texts."""
    return max(2, min(round(min(n, m) / 10), MOST))


def histograms(
    p_features: Any, q_features: Any, *, clusters: int | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of both sets in the cells of a clustering of the two together, (K,) and (K,); each adds up to one.

    Args:
        p_features: (N, D).
        q_features: (M, D).
        clusters: K; None: `default_clusters`.
        seed: of the clustering.

    Raises:
        DataError: as `mauve`.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import normalize

    p, q = (_rows(x, name) for x, name in ((p_features, "p_features"), (q_features, "q_features")))
    if p.shape[1] != q.shape[1]:
        raise DataError(f"Features of one network are wanted; these have {p.shape[1]} and {q.shape[1]} columns.")
    k = default_clusters(len(p), len(q)) if clusters is None else clusters
    if not 1 <= k <= len(p) + len(q):
        raise DataError(f"clusters = {k}: between 1 and the number of texts, {len(p) + len(q)}, is needed.")
    x = normalize(np.concatenate([p, q]))
    components = PCA(random_state=seed).fit(x)
    keep = int(np.searchsorted(np.cumsum(components.explained_variance_ratio_), VARIANCE)) + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different texts than clusters
        means = KMeans(k, n_init=5, max_iter=500, random_state=seed)
        cell = means.fit_predict(components.transform(x)[:, :keep].astype(np.float32))
    counts = [np.bincount(part, minlength=k) for part in (cell[: len(p)], cell[len(p) :])]
    return counts[0] / len(p), counts[1] / len(q)


def mauve_of_histograms(p: Any, q: Any, *, scale: float = 5.0, mixtures: int = MIXTURES) -> float:
    """The area under the divergence curve of two histograms, by trapezia.

    The area is that of a falling curve; where several points share one abscissa, trapezia in y and in x differ, and their mean
    is taken.

    Args:
        p: shares (K,), that add up to one.
        q: shares (K,), that add up to one.
        scale: c.
        mixtures: points of the curve. 25 are a little too few for histograms that hardly overlap, but customary.

    Raises:
        DataError: shares that are negative, or do not add up to one, or are of different numbers of cells.

    Reference: Pillutla et al. 2021, eq. 2.
    """
    curve = divergence_curve(p, q, scale=scale, mixtures=mixtures)
    x, y = np.concatenate([[[1.0, 0.0]], curve, [[0.0, 1.0]]]).T
    return float(np.trapezoid(y[::-1], x[::-1]) + np.trapezoid(x, y)) / 2


def mauve_error(
    p: Any, q: Any, sizes: tuple[int, int], *, scale: float = 5.0, seed: int = 0, draws: int = REDRAWN
) -> float:
    """The standard error of MAUVE by chance in both sets: of histograms that are drawn anew from these (bootstrap).

    The cells stay as they are. Of sets of 300 and 1,000 rows with a MAUVE of 0.9 it is 1.2 and 1.5 times what the values of
    other generated sets differ by, each clustered anew.

    Args:
        p: shares (K,) of the real set, which add up to one.
        q: shares (K,) of the generated one.
        sizes: of the two sets.
        scale: c.
        seed: of the draws.
        draws: how many.

    Raises:
        DataError: as `mauve_of_histograms`.

    Reference: Efron and Tibshirani 1993, section 6.2.
    """
    mauve_of_histograms(p, q, scale=scale)  # refuses what is no pair of histograms
    rng = np.random.default_rng(seed)
    pairs = [[rng.multinomial(n, h) / n for n, h in zip(sizes, (p, q), strict=True)] for _ in range(draws)]
    return float(np.std([mauve_of_histograms(*pair, scale=scale) for pair in pairs], ddof=1))


def divergence_curve(p: Any, q: Any, *, scale: float = 5.0, mixtures: int = MIXTURES) -> np.ndarray:
    """Points (exp(-c KL(Q || R_l)), exp(-c KL(P || R_l))), (mixtures, 2), l rising from near 0 to near 1.

    Args:
        p: shares (K,).
        q: shares (K,).
        scale: c.
        mixtures: how many, evenly in l.

    Raises:
        DataError: as `mauve_of_histograms`.

    Reference: Pillutla et al. 2021, eq. 1.
    """
    p, q = (np.asarray(h, np.float64) for h in (p, q))
    if p.shape != q.shape or p.ndim != 1 or min(p.min(), q.min()) < 0 or not np.allclose([p.sum(), q.sum()], 1):
        raise DataError("Two histograms over the same cells are wanted, each of shares that add up to one.")
    found = []
    for weight in np.linspace(EDGE, 1 - EDGE, mixtures):
        r = weight * p + (1 - weight) * q
        found.append((_kl(q, r), _kl(p, r)))
    return np.exp(-scale * np.array(found))


def _kl(p: np.ndarray, r: np.ndarray) -> float:
    """KL(p || r) in nats, where r is positive wherever p is."""
    held = p > 0
    return float((p[held] * np.log(p[held] / r[held])).sum())


def _rows(features: Any, name: str) -> np.ndarray:
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise DataError(f"{name}: at least 2 rows of finite numbers are wanted, found shape {x.shape}.")
    return x
