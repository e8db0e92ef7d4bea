"""By how much the arms of a study differ from its first one, over examples and seeds.

    difference = mean over seeds and examples of an arm  -  the same of the first arm

Arms are judged by the same test examples with the same draws, so the interval is that of a paired bootstrap; trainings with
several seeds are resampled with them. Arms with other test examples, of another division of the data, make no pairs with the
first one: they are compared among themselves, with the first of theirs that was trained on real examples. A generalization gap
is a difference of two means, over test and over training examples: where two arms have other real training examples, these are
resampled by themselves.

Reference: Efron & Tibshirani 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from diled.evaluation.audited import Audited, difference
from diled.evaluation.gaps import Interval
from diled.evaluation.measure import Measured

__all__ = ["ALL", "COMPARED", "apart", "as_figures", "firsts", "firsts_of", "intervals", "key_of"]

ALL = -1
"""In the place of a seed: what is recorded is over all seeds that its command names."""

COMPARED = (
    "test_elbo",
    "generalization_gap",
    "amortization_gap_test",
    "robustness_gap",
    "robustness_gap/substitutions=2",
    "robustness_gap/words/substitutions=2",
)
"""Figures whose differences are recorded."""

GAP = ("bounds/test_bound", "bounds/train_bound")
"""What the generalization gap is the difference of."""


def firsts(found: Mapping[str, Sequence[Audited]], first: str, drawn: Collection[str] = ()) -> list[str]:
    """The arms that others are compared with, one of each set of test examples; none where the first has no audits.

    Args:
        found: arm -> its audits, in the order of the study.
        first: the study's first arm.
        drawn: arms that were trained on synthetic sets.
    """
    of_test: dict[str, str] = {}
    for arm in sorted(found, key=lambda one: one != first):
        if found[arm] and (arm == first or arm not in drawn):
            of_test.setdefault(found[arm][0].test, arm)
    return list(of_test.values()) if found.get(first) else []


def intervals(found: Mapping[str, Sequence[Audited]], first: str, seed: int = 0) -> dict[str, dict[str, Interval]]:
    """Arm -> figure -> by how much it is larger than the first arm's; without figures whose sections were refused,
    and without arms that have other test examples.

    Args:
        found: arm -> its audits, one for each seed.
        first: the arm that the others are compared with; where it has no audits, there are no differences.
        seed: of the bootstrap.
    """
    together = {arm: _together(audits) for arm, audits in found.items() if audits}
    if first not in together:
        return {}
    return {
        arm: {
            metric: interval
            for metric in COMPARED
            if (interval := _interval(metric, one, together[first], seed)) is not None
        }
        for arm, one in together.items()
        if arm != first and one.test == together[first].test
    }


def _together(audits: Sequence[Audited]) -> Audited:
    """The audits of all seeds as one, with the numbers per example as (seeds, N)."""
    shared = set.intersection(*(set(one.arrays) for one in audits))
    wanted = [key for key in shared if key in GAP or key.startswith(("amortization/test_b", "robustness/gaps"))]
    return replace(audits[0], arrays={key: np.stack([one.arrays[key] for one in audits]) for key in wanted})


def _interval(metric: str, mine: Audited, theirs: Audited, seed: int) -> Interval | None:
    if metric == "test_elbo":  # minus the bound
        return difference(theirs, mine, "bound_nats/test", seed)
    if metric == "generalization_gap" and not mine.train == theirs.train != "":
        if not all(key in one.arrays for key in GAP for one in (mine, theirs)):
            return None
        test, train = ((mine.arrays[key], theirs.arrays[key]) for key in GAP)
        return apart(test, train, seed=seed)
    return difference(mine, theirs, metric, seed)


def apart(
    test: tuple[np.ndarray, np.ndarray],
    train: tuple[np.ndarray, np.ndarray],
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """By how much a model's generalization gap is larger than another's that has other training examples.

        difference = mean(test[0]) - mean(test[1]) - (mean(train[0]) - mean(train[1]))

    In each draw both models are judged by the same test examples, each by training examples of its own; seeds of each model
    are taken with replacement too.

    Args:
        test: bounds of either model on the same test examples, (seeds, N) in nats.
        train: bounds on training examples, (seeds, M), in nats; M and the seeds of the two may differ.
        draws: of the bootstrap.
        level: probability that the interval covers.
        seed: of the draws.
    """
    rng, signs, drawn = np.random.default_rng(seed), (1.0, -1.0), np.zeros(draws)
    for i in range(draws):
        rows = rng.integers(test[0].shape[1], size=test[0].shape[1])
        for sign, a, c in zip(signs, test, train, strict=True):
            seeds, own = rng.integers(len(a), size=len(a)), rng.integers(c.shape[1], size=c.shape[1])
            drawn[i] += sign * (a[:, rows].mean(1) - c[:, own].mean(1))[seeds].mean()
    value = sum(sign * (a.mean() - c.mean()) for sign, a, c in zip(signs, test, train, strict=True))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    n = sum(one.shape[1] for one in (test[0], *train))
    note = f"bootstrap over examples{' and seeds' if len(test[0]) > 1 else ''}, training examples of each arm by themselves"
    return Interval(Measured(float(value), float(drawn.std(ddof=1)), n, note), float(low), float(high), level)


def key_of(metric: str, first: str, end: str = "") -> str:
    """The name under which a difference from the first arm is recorded; `low` and `high` are the ends of its interval."""
    return f"{metric}/minus/{first}" + (end and f"/{end}")


def firsts_of(metrics: Iterable[str]) -> set[str]:
    """The arms that differences under these names are from."""
    starts = tuple(key_of(metric, "") for metric in COMPARED)
    return {m.removeprefix(s) for m in metrics for s in starts if m.startswith(s) and not m.endswith(("/low", "/high"))}


def as_figures(between: Mapping[str, Interval], first: str) -> dict[str, Measured]:
    """Differences of one arm as figures: three for each."""
    figures = {}
    for metric, one in between.items():
        note = f"{one.level:.0%} from {one.low:.4g} to {one.high:.4g}, {one.difference.note}"
        figures[key_of(metric, first)] = replace(one.difference, note=note)
        for end, value in (("low", one.low), ("high", one.high)):
            figures[key_of(metric, first, end)] = Measured(value, n=one.difference.n, note=note)
    return figures
