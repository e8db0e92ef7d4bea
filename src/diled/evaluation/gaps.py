"""How well an autoencoder generalizes, in gaps between means of per-example bounds.

With B the bound (an upper bound on -log p(x), so ELBO = -B), B* the bound with the best q of the family for each example, and
means over real training and real test examples,

    generalization   G_g = B_test - B_train                                    (Xiao et al. 2024, Eq. 3)
    amortization     G_a = B - B*                                              (Cremer et al. 2018, Table 1)
    inference        log p + B  =  (log p + B*)  +  (B - B*)                   (Cremer et al. 2018, Table 1)
                     inference  =  approximation  +  amortization
    Zhang            G_g  =  (B*_test - B*_train)  +  (G_a,test - G_a,train)   (Zhang, Hayes & Barber 2022)
                             generative part          inference part

Each is positive where a model overfits. The training examples are the real ones, whatever a model was trained on: bounds on
distributions of different entropy are not comparable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from diled.errors import ConfigError, DataError
from diled.evaluation.codes import averaged
from diled.evaluation.measure import Measured

__all__ = [
    "Cremer",
    "Interval",
    "Zhang",
    "amortization",
    "best_log_p",
    "cremer",
    "generalization",
    "generalization_by_term",
    "paired_bootstrap",
    "zhang",
]

AT_ONCE = 4_000_000
"""Numbers that a bootstrap holds at a time."""


@dataclass(frozen=True)
class Cremer:
    """What lies between log p(x) and the ELBO: inference = approximation + amortization, in nats."""

    inference: Measured
    approximation: Measured
    amortization: Measured


@dataclass(frozen=True)
class Zhang:
    """Where overfitting sits: generalization = generative + inference, in nats."""

    generalization: Measured
    generative: Measured
    inference: Measured


@dataclass(frozen=True)
class Interval:
    """A difference between two models and where it lies with probability `level`, from `low` to `high`."""

    difference: Measured
    low: float
    high: float
    level: float


def generalization(train: Any, test: Any) -> Measured:
    """The generalization gap of any term of the bound: mean over test minus mean over training examples.

        G_g = B_test - B_train,      stderr^2 = var(B_test) / n_test + var(B_train) / n_train

    Args:
        train, test: (n_train,) and (n_test,) per example, in nats: the bound, its rate, its distortion, or a prior's term.

    Raises:
        DataError: an input is empty, not finite, or not of one number per example.

    Reference: Xiao et al. 2024 (DMaaPx), Eq. 3, with the signs of bounds.
    """
    return _difference(_per_example(test, "test"), _per_example(train, "train"))


def generalization_by_term(train: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, Measured]:
    """The generalization gap of every term, whose sum is that of the bound: where does a model overfit?

    Args:
        train, test: terms by name, (n,) each, as `Density.terms(x, exact=True)` gives them.

    Raises:
        DataError: the two have different terms, or as `generalization`.
    """
    if set(train) != set(test):
        raise DataError(
            f"train has the terms {sorted(train)} and test has {sorted(test)}: take both from the same model."
        )
    return {name: generalization(train[name], test[name]) for name in train}


def amortization(bound: Any, best_bound: Any) -> Measured:
    """The amortization gap: G_a = mean(B - B*), with the standard error of the paired difference.

    Args:
        bound, best_bound: (N,) of the same examples, in nats, as `optimal_bounds` gives them.

    Raises:
        DataError: an input is empty or not finite, or they differ in length.

    Reference: Cremer et al. 2018 (arXiv 1801.03558), Table 1.
    """
    b, best = _same_examples(bound=bound, best_bound=best_bound)
    return averaged(b - best)


def best_log_p(arrays: Mapping[str, np.ndarray], split: str) -> np.ndarray | None:
    """The estimate of log p(x) by which the inference gap is split: the tightest lower bound there is, of as many examples
    as possible.

    Where both were run on the first m examples, the bound from importance weights and that from annealing are compared by
    their means over these. All examples count where weights win, and m where annealing does.

    Args:
        arrays: `likelihood/SPLIT_log_p` (N,) from importance weights, and `likelihood/SPLIT_log_p_best` (m,), the better of
            both on the first m of the same examples; in nats. Either may be missing.
        split: `train` or `test`.

    Returns:
        (N,) or (m,) nats; None where there is no estimate.

    Reference: Cremer et al. 2018 (arXiv 1801.03558), section 5.1: the larger of IWAE and AIS.
    """
    weighted, best = (arrays.get(f"likelihood/{split}_{name}") for name in ("log_p", "log_p_best"))
    if best is None or (weighted is not None and np.array_equal(best, weighted[: len(best)])):
        return weighted
    return best


def cremer(log_p: Any, bound: Any, best_bound: Any) -> Cremer:
    """The inference gap, split into what the family of q lacks and what the encoder lacks.

        log p(x) + B  =  [ log p(x) + B* ]  +  [ B - B* ]

    Args:
        log_p: (N,) the best estimate of log p(x) in nats. One that is too low makes inference and approximation gap too
            small by as much, and leaves the amortization gap as it is.
        bound, best_bound: (N,) of the same examples, in nats.

    Raises:
        DataError: an input is empty or not finite, or they differ in length.

    Reference: Cremer et al. 2018 (arXiv 1801.03558), Table 1.
    """
    log_p, b, best = _same_examples(log_p=log_p, bound=bound, best_bound=best_bound)
    return Cremer(averaged(log_p + b), averaged(log_p + best), averaged(b - best))


def zhang(train_bound: Any, train_best: Any, test_bound: Any, test_best: Any) -> Zhang:
    """The generalization gap, split into that of the generative model and that of the encoder.

        B_test - B_train  =  [ B*_test - B*_train ]  +  [ (B - B*)_test - (B - B*)_train ]

    Args:
        train_bound, train_best: (n_train,) B and B* of training examples, in nats.
        test_bound, test_best: (n_test,) the same of test examples.

    Raises:
        DataError: an input is empty or not finite, or B and B* differ in length.

    Reference: Zhang, Hayes & Barber 2022 (arXiv 2205.11640).
    """
    train, best_train = _same_examples(train_bound=train_bound, train_best=train_best)
    test, best_test = _same_examples(test_bound=test_bound, test_best=test_best)
    return Zhang(
        _difference(test, train),
        _difference(best_test, best_train),
        _difference(test - best_test, train - best_train),
    )


def paired_bootstrap(
    first: Any,
    second: Any,
    *,
    minus: tuple[Any, Any] | None = None,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """By how much two models differ in the mean of a per-example figure: a percentile interval over examples and seeds.

        difference = mean(first) - mean(second)      [ - (mean(minus[0]) - mean(minus[1])) ]

    In each draw both models are judged by the same examples, taken with replacement; where there are several trainings,
    those of each model are taken with replacement too. A few seeds vary too little in such draws, by 1 - 1/seeds of the
    variance: of three seeds an interval is about a fifth too short in that part.

    Args:
        first, second: (N,) or (seeds, N), of the same N examples; the numbers of seeds may differ.
        minus: the same two models on other examples, (M,) or (seeds, M): with bounds on test examples as `first` and
            `second` and bounds on training examples here, the interval is that of the difference of generalization gaps.
        draws: of the bootstrap.
        level: probability that the interval covers.
        seed: of the draws.

    Raises:
        DataError: an input is empty or not finite, or examples or seeds do not match.
        ConfigError: `draws` or `level` has no meaning.

    Reference: Efron & Tibshirani 1993, chapter 13.
    """
    if draws < 2:
        raise ConfigError(f"draws = {draws}: a bootstrap takes at least two.")
    if not 0 < level < 1:
        raise ConfigError(f"level = {level}: choose a probability between 0 and 1.")
    pairs = [(_by_seed(first, "first"), _by_seed(second, "second"))]
    if minus is not None:
        pairs.append((_by_seed(minus[0], "minus[0]"), _by_seed(minus[1], "minus[1]")))
    for a, b in pairs:
        if a.shape[1] != b.shape[1]:
            raise DataError(
                f"The two models have {a.shape[1]} and {b.shape[1]} examples: compare them on the same ones."
            )
    seeds = [len(model) for model in pairs[0]]
    if any([len(model) for model in pair] != seeds for pair in pairs):
        raise DataError("minus must hold as many seeds of each model as first and second do.")
    rng = np.random.default_rng(seed)
    weights = [rng.multinomial(s, np.full(s, 1 / s), draws) / s for s in seeds]
    signs = (1.0, -1.0)[: len(pairs)]
    drawn = sum(sign * _resampled(rng, *pair, *weights) for sign, pair in zip(signs, pairs, strict=True))
    value = sum(sign * (a.mean() - b.mean()) for sign, (a, b) in zip(signs, pairs, strict=True))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    n = sum(a.shape[1] for a, _ in pairs)
    note = f"paired bootstrap over examples{' and seeds' if max(seeds) > 1 else ''}"
    return Interval(Measured(float(value), float(np.std(drawn, ddof=1)), n, note), float(low), float(high), level)


def _resampled(
    rng: np.random.Generator, a: np.ndarray, b: np.ndarray, weights_a: np.ndarray, weights_b: np.ndarray
) -> np.ndarray:
    """mean(a) - mean(b) of each draw, (draws,): the same examples for both, and seeds with the given weights (draws, S)."""
    draws, n, found = len(weights_a), a.shape[1], []
    few = max(1, AT_ONCE // (n * (len(a) + len(b))))
    for start in range(0, draws, few):
        chosen = rng.integers(n, size=(min(few, draws - start), n))
        part = slice(start, start + len(chosen))
        found.append(
            np.einsum("ds,sd->d", weights_a[part], a[:, chosen].mean(-1))
            - np.einsum("ds,sd->d", weights_b[part], b[:, chosen].mean(-1))
        )
    return np.concatenate(found)


def _difference(a: np.ndarray, b: np.ndarray) -> Measured:
    """mean(a) - mean(b) of independent examples."""
    errors = [e for e in (averaged(a).stderr, averaged(b).stderr) if e is not None]
    return Measured(float(a.mean() - b.mean()), math.hypot(*errors) if len(errors) == 2 else None, len(a) + len(b))


def _numbers(values: Any, name: str) -> np.ndarray:
    """In double precision, on the CPU; there are some, and all are finite."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    v = np.asarray(values, dtype=np.float64)
    if v.size == 0:
        raise DataError(f"{name} holds no examples: pass at least one number.")
    if not np.isfinite(v).all():
        raise DataError(f"{name} holds numbers that are not finite: leave out the examples whose bound failed.")
    return v


def _per_example(values: Any, name: str) -> np.ndarray:
    v = _numbers(values, name)
    if v.ndim != 1:
        raise DataError(f"{name} has the shape {v.shape}: pass one number per example, (N,).")
    return v


def _by_seed(values: Any, name: str) -> np.ndarray:
    """(seeds, N)."""
    v = _numbers(values, name)
    if v.ndim not in (1, 2):
        raise DataError(f"{name} has the shape {v.shape}: pass one number per example, (N,), or per seed, (seeds, N).")
    return v[None] if v.ndim == 1 else v


def _same_examples(**arrays: Any) -> list[np.ndarray]:
    found = {name: _per_example(values, name) for name, values in arrays.items()}
    lengths = {name: len(v) for name, v in found.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"The inputs have different numbers of examples, {lengths}: take them on the same ones.")
    return list(found.values())
