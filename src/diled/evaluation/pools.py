"""A pool of synthetic examples against real ones: copied, told apart, or easier than the data?

With d_train(s) and d_test(s) the distances of a pool example s to the nearest of equally many training and test examples,

    nearest_ratio   E d_test / (d_train + d_test)               1/2 where s knows nothing of the training set, 1 for copies
    nearer_train    P[d_train(s) < d_test(s)]                   the same in counts, ties one half
    copying         P[d_train(s) < d_train(t)],  t from test    above 1/2: nearer to the training set than fresh data are
    c2st_accuracy   P[a classifier tells pool from test]        1/2 where nothing can, Phi(d / 2) for Gaussians d apart
    entropy_offset  E_pool bound - E_test bound                 below 0: the pool is easier than the data

The first two are symmetric between training and test examples, so 1/2 holds for any pool that knows nothing of either,
however poor or smooth. `copying` compares the pool with test examples, and smooth samples are near to everything: it sees
all training examples, and holds for pools that cannot be told from data. Distances are Euclidean, in whatever features are
given: pixels, or those of a network.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diled.data.synthesis import duplicates
from diled.errors import ConfigError, DataError, did_you_mean
from diled.evaluation.codes import averaged
from diled.evaluation.feature_nets import FeatureNet, extract, fit_feature_net
from diled.evaluation.images import frechet_bootstrap, kid, precision_recall
from diled.evaluation.likelihood import elbo
from diled.evaluation.measure import NEIGHBOURS, Measured

__all__ = [
    "CLASSIFIERS",
    "entropy_offset",
    "memorisation",
    "pool_figures",
    "quality",
    "two_sample",
    "two_sample_images",
]

CLASSIFIERS = ("logistic", "mlp")
"""Of two samples of features."""
ROUNDING = 1e-4
"""Share of the usual distance to the nearest neighbour below which an example counts as a copy."""


def memorisation(pool: Any, train: Any, test: Any, *, limit: int = 2000, seed: int = 0) -> dict[str, Measured]:
    """`nearest_ratio`, `nearer_train`, `copying` (see the head of this file), and `copies`, the share of exact copies.

    The first two draw as many training examples as there are test examples, so of a training set k times as large they
    see only one copied example in k; the other two use all of it. Pool examples with the same nearest neighbour are one
    cluster in the standard errors of the first two, that of `copying` is DeLong's.

    Args:
        pool: features (N, ...), flattened.
        train: features of the training examples.
        test: features of test examples that the pool's source never saw.
        limit: pool and test examples at most whose neighbours are looked for.
        seed: of all draws.

    Raises:
        DataError: different widths, fewer than two examples, or NaN or infinite values.

    References: Meehan, Chaudhuri and Dasgupta, "A non-parametric test to detect data-copying in generative models",
    2020 (`copying`); DeLong et al., "Comparing the areas under two or more correlated ROC curves", 1988.
    """
    s, real, t = _tables(pool=pool, train=train, test=test)
    rng = np.random.default_rng(seed)
    s, m = _some(s, limit, rng), min(len(real), len(t))
    (d_train, i), (d_test, j) = _nearest(s, _some(real, m, rng)), _nearest(s, _some(t, m, rng))
    together = d_train + d_test
    ratio = np.divide(d_test, together, out=np.full(len(s), 0.5), where=together > 0)
    nearer = np.where(d_train == d_test, 0.5, d_train < d_test)
    cluster = np.where(d_train <= d_test, i, m + j)
    fresh, _ = _nearest(_some(t, limit, rng), real)
    own, _ = _nearest(s, real)
    below, above = _share_above(own, fresh), 1 - _share_above(fresh, own)
    error = math.sqrt(below.var(ddof=1) / len(below) + above.var(ddof=1) / len(above))
    said = f"{m:,} training and {m:,} test examples"
    said += f"; sees one copy in {len(real) / m:.1f}" if len(real) > m else ""
    return {
        "nearest_ratio": _clustered(ratio, cluster, said),
        "nearer_train": _clustered(nearer, cluster, said),
        "copying": Measured(float(below.mean()), error, len(s), f"all {len(real):,} training examples"),
        "copies": averaged(own <= ROUNDING * np.median(fresh), f"of any of {len(real):,} training examples"),
    }


def two_sample(
    real: Any, fake: Any, *, classifier: str = "logistic", folds: int = 5, limit: int = 5000, seed: int = 0
) -> Measured:
    """Share of examples that a classifier of features assigns rightly to real and synthetic: 1/2 where it cannot.

    Cross-fitting: each example is judged by a classifier that was fitted to the other folds. Both sets are cut to the
    same number. The classifiers share most of what they were fitted to, so their mistakes are not independent: where the
    sets are alike the share varies up to 1.35 times as much as that of independent answers. Standard error and 95 %
    interval (Wilson) are those of half as many, which is 1.41 times as much. A flexible classifier below 1/2 is a sign
    of copies: each example's twin stands on the other side.

    Args:
        real: features (N, ...), flattened; of data that the pool's source never saw.
        fake: features (M, ...).
        classifier: `logistic`, or `mlp` with one hidden layer of 64; features are standardised.
        folds: parts, at least 2.
        limit: examples of each set at most.
        seed: of all draws.

    Raises:
        DataError: different widths, fewer examples than folds, or NaN or infinite values.
        ConfigError: an unknown classifier or fewer than two folds.

    References: Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", 2017; on the error of cross-fitting, Bengio
    and Grandvalet, "No unbiased estimator of the variance of K-fold cross-validation", 2004.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if classifier not in CLASSIFIERS:
        raise ConfigError(f"classifier '{classifier}' is unknown.{did_you_mean(classifier, CLASSIFIERS)}")
    a, b = _tables(real=real, fake=fake)
    x, y = _mixed(a, b, folds, limit, seed)
    kind = LogisticRegression(max_iter=300) if classifier == "logistic" else MLPClassifier((64,), random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        said = cross_val_predict(make_pipeline(StandardScaler(), kind), x, y, cv=_folds(folds, seed))
    return _told_apart(said == y, f"{classifier}, {folds} folds")


def two_sample_images(
    real: Tensor, fake: Tensor, *, folds: int = 2, steps: int = 600, limit: int = 5000, seed: int = 0
) -> Measured:
    """`two_sample` by a small convolutional network on the images themselves, trained anew for each fold.

    Args:
        real: images (N, C, H, W) in model space; up to 256 values and other shapes get an mlp.
        fake: images (M, C, H, W) in model space.
        folds: parts, at least 2; each costs one training.
        steps: of each training, under a minute on one core for 600.
        limit: examples of each set at most.
        seed: of all draws.

    Raises:
        DataError: different shapes, or fewer than 20 examples to train on.
        ConfigError: fewer than two folds.

    References: Lopez-Paz and Oquab 2017; a ResNet-18 in Xiao et al., "A note on generalization in variational
    autoencoders", 2024, appendix D.
    """
    if real.shape[1:] != fake.shape[1:]:
        raise DataError(f"Images of shapes {tuple(real.shape[1:])} and {tuple(fake.shape[1:])} cannot be compared.")
    x, y = _mixed(real.cpu().numpy(), fake.cpu().numpy(), folds, limit, seed)
    right, kind = np.empty(len(y), bool), ""
    for fitted, judged in _folds(folds, seed).split(x, y):
        net = fit_feature_net(x[fitted], y[fitted], low=-1, high=1, noise=0.0, steps=steps, seed=seed)
        with torch.no_grad():
            parts = torch.from_numpy(x[judged]).float().split(500)
            right[judged] = torch.cat([net(part).argmax(1) for part in parts]).numpy() == y[judged]
        kind = net.architecture.kind
    return _told_apart(right, f"{kind} on images, {folds} folds")


def quality(pool: Any, train: Any, test: Any, *, limit: int = 10_000, seed: int = 0) -> dict[str, Measured]:
    """Distances of features of the pool from those of test examples, beside the floor: training examples in its place.

    `frechet_pool`, `kid_pool`, `precision_pool`, `recall_pool`, and the same with `_floor`, all with equally many
    examples of each set. The Frechet distance has a bootstrap error.

    Args:
        pool, train, test: features (N, ...), flattened.
        limit: examples of each set at most; 2,000 for precision and recall, whose cost grows with their square. With
            hundreds of features, as pixels are, 10,000 take minutes.
        seed: of the draws.

    Raises:
        DataError: different widths, too few examples, or NaN or infinite values.
    """
    tables = _tables(pool=pool, train=train, test=test)
    rng = np.random.default_rng(seed)
    n = min(limit, *map(len, tables))
    fake, real, reference = (_some(table, n, rng) for table in tables)
    found, few, note = {}, min(n, NEIGHBOURS), "against test examples"
    for name, rows in (("pool", fake), ("floor", real)):
        far, kernel = frechet_bootstrap(rows, reference), kid(rows, reference, subset_size=min(1000, n // 2))
        near = precision_recall(_some(reference, few, rng), _some(rows, few, rng))
        found[f"frechet_{name}"] = Measured(far.value, far.stderr, n, note)
        found[f"kid_{name}"] = Measured(kernel.value, kernel.stderr, n, note)
        found[f"precision_{name}"] = Measured(near.precision, n=few, note=f"{note}; 3 neighbours")
        found[f"recall_{name}"] = Measured(near.recall, n=few, note=f"{note}; 3 neighbours")
    return found


def entropy_offset(
    model: Any, pool: Tensor, test: Tensor, *, repeats: int = 1, unit: float = 0.0, seed: int = 0
) -> Measured:
    """E_pool bound - E_test bound, in nats, under one model of both.

    Below zero where the pool is easier: smoother, or of lower entropy than the data. A bound averaged over the pool is
    then no measure of how well a model fits the data (a mean bound is at least the entropy of what it is averaged over).

    Args:
        model: a density with a bound, in evaluation mode, that was not trained on the test examples.
        pool: (N, *shape) in model space, in the same measure as `test` (both binarised alike, or both grey).
        test: (M, *shape) in model space.
        repeats: Monte-Carlo passes.
        unit: added to the bound on test examples that the note names; the offset has none.
        seed: of the bound's noise.

    Raises:
        NoBound: the model has none.
        DataError: fewer than two examples.

    Reference: Xiao, Zenn and Bamler, "A note on generalization in variational autoencoders", 2024, Eq. 11, Figure 13.
    """
    if min(len(pool), len(test)) < 2:
        raise DataError("An offset between two sets takes at least 2 examples of each.")
    device = next(chain(model.parameters(), model.buffers()), pool).device
    a, b = (-elbo(model, x.to(device), repeats, seed=seed).value for x in (pool, test))
    error = math.sqrt(a.var().item() / len(a) + b.var().item() / len(b))
    return Measured((a.mean() - b.mean()).item(), error, len(a), f"{b.mean() + unit:.1f} nats on test examples")


def pool_figures(
    pool: Tensor,
    train: Tensor | Iterable[Tensor],
    test: Tensor,
    features: FeatureNet | None = None,
    *,
    model: Any = None,
    network: bool = False,
    limit: int = 10_000,
    seed: int = 0,
) -> dict[str, Measured]:
    """All figures of a synthetic pool against real data.

    Those of `memorisation` and `quality`; `c2st_accuracy` with its floor `c2st_floor` (training against test examples);
    `test_examples`, the share of the pool that are test examples; and where asked for `c2st_accuracy/images` and
    `entropy_offset_nats`.

    Args:
        pool: examples (N, *shape) in model space, or features.
        train: what the pool's source was trained on; or parts of it, of which only the features are kept.
        test: what it never saw.
        features: the network in whose features sets are compared; None: the values themselves.
        model: for the entropy offset; None: left out.
        network: also train a network to tell images apart.
        limit: pool and test examples at most that are compared; neighbours are looked for among all training examples.
        seed: of all draws.

    Raises:
        DataError: shapes differ, too few examples, or NaN or infinite values.
        NoBound: a model without a bound.
    """
    rng = np.random.default_rng(seed)
    held = duplicates(pool.cpu().numpy(), test.cpu().numpy())
    same = np.isin(np.arange(len(pool)), held)
    pool, test = (x[torch.from_numpy(np.sort(rng.permutation(len(x))[:limit]))] for x in (pool, test))

    def rows(x: Tensor) -> np.ndarray:
        return x.flatten(1).cpu().numpy() if features is None else extract(features, x)

    s, t = rows(pool), rows(test)
    r = np.concatenate([rows(part) for part in ([train] if isinstance(train, Tensor) else train)])
    where = "the values themselves" if features is None else features.name
    found = memorisation(s, r, t, seed=seed) | quality(s, r, t, limit=limit, seed=seed)
    found["c2st_accuracy"] = two_sample(t, s, seed=seed)
    found["c2st_floor"] = two_sample(t, r, seed=seed)
    found = {name: _in(m, where) for name, m in found.items()}
    found["test_examples"] = averaged(same, "share of the pool; byte for byte")
    if network:
        found["c2st_accuracy/images"] = two_sample_images(test, pool, seed=seed)
    if model is not None:
        found["entropy_offset_nats"] = entropy_offset(model, pool, test, seed=seed)
    return found


def _in(m: Measured, features: str) -> Measured:
    return Measured(m.value, m.stderr, m.n, f"{features}; {m.note}")


def _tables(**sets: Any) -> list[np.ndarray]:
    """Flat rows of every set, checked."""
    found = []
    for name, values in sets.items():
        x = np.asarray(values)
        x = x.reshape(len(x), -1).astype(np.float64 if x.dtype == np.float64 else np.float32, copy=False)
        if len(x) < 2:
            raise DataError(f"The {name} features are of {len(x)} examples: at least 2 are needed.")
        if not np.isfinite(x).all():
            raise DataError(f"The {name} features hold NaN or infinite values.")
        found.append(x)
    widths = [x.shape[1] for x in found]
    if len(set(widths)) > 1:
        raise DataError(f"Features of {' and '.join(sets)} have different widths: {', '.join(map(str, widths))}.")
    return found


def _some(x: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return x if len(x) <= n else x[rng.permutation(len(x))[:n]]


def _nearest(queries: np.ndarray, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distance of each query to its nearest example, and that example's index, both (Q,).

    Found by inner products, which round, and then measured directly: a copy has distance zero.
    """
    from sklearn.metrics import pairwise_distances_argmin

    index = pairwise_distances_argmin(queries, examples)
    return np.linalg.norm(queries.astype(np.float64) - examples[index], axis=1), index


def _share_above(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """For each number of a the share of b that is larger, ties one half."""
    b = np.sort(b)
    return 1 - 0.5 * (np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")) / len(b)


def _clustered(values: np.ndarray, cluster: np.ndarray, note: str) -> Measured:
    """The mean, and its error where values of one cluster stand or fall together."""
    _, member = np.unique(cluster, return_inverse=True)
    sums = np.bincount(member, values - values.mean())
    return Measured(float(values.mean()), float(np.sqrt((sums**2).sum())) / len(values), len(values), note)


def _mixed(real: np.ndarray, fake: np.ndarray, folds: int, limit: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Equally many of both, and which is which (1: synthetic)."""
    n = min(limit, len(real), len(fake))
    if folds < 2:
        raise ConfigError(f"folds = {folds}: cross-fitting takes at least 2.")
    if n < folds:
        raise DataError(f"A two-sample test with {folds} folds takes at least {folds} examples of each set, found {n}.")
    rng = np.random.default_rng(seed)
    return np.concatenate([_some(real, n, rng), _some(fake, n, rng)]), np.repeat([0, 1], n)


def _folds(folds: int, seed: int) -> Any:
    from sklearn.model_selection import StratifiedKFold

    return StratifiedKFold(folds, shuffle=True, random_state=seed)


def _told_apart(right: np.ndarray, note: str) -> Measured:
    """The share of right answers, with the error of half as many independent ones: see `two_sample`."""
    from scipy.stats import binomtest

    n, share = len(right) // 2, float(right.mean())
    interval = binomtest(round(share * n), n).proportion_ci(method="wilson")
    error = math.sqrt(share * (1 - share) / n)
    return Measured(share, error, len(right), f"{note}; 95 % between {interval.low:.3f} and {interval.high:.3f}")
