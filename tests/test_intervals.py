"""Differences between arms: signs and sizes by hand, examples that cancel, intervals that cover as often as they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diled.evaluation.audited import Audited, difference
from diled.studies.intervals import apart, as_figures, firsts, firsts_of, intervals


def audited(bound: float, train: str = "t", n_train: int = 30, missing: str = "-", seed: int = 0) -> Audited:
    """Numbers per example with known means: all arms share what differs between examples."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(9)
    easy, hard = shared.normal(size=40), shared.normal(size=n_train)
    hard -= hard.mean()
    arrays = {
        "bounds/test_bound": bound + easy + 0.01 * rng.normal(size=40),
        "bounds/train_bound": 0.5 * bound + hard,
        "amortization/test_before": bound + easy,
        "amortization/test_best": 0.8 * bound + easy,
        "robustness/gaps": 0.001 * bound + 0.1 * easy,
    }
    return Audited({}, {key: v for key, v in arrays.items() if not key.startswith(missing)}, [], {}, train)


def test_intervals_have_the_signs_of_the_figures_and_pair_the_examples() -> None:
    """An arm whose bound is 100 instead of 120: each figure by hand; what the examples share cancels."""
    found = {"a": [audited(120.0, seed=s) for s in (1, 2)], "b": [audited(100.0, seed=s) for s in (3, 4)]}
    row = intervals(found, "a")["b"]
    wanted = {"test_elbo": 20, "generalization_gap": -10, "amortization_gap_test": -4, "robustness_gap": -0.02}
    assert set(row) == set(wanted)
    for metric, value in wanted.items():
        assert row[metric].difference.value == pytest.approx(value, abs=0.01), metric
        assert row[metric].low - 0.01 <= value <= row[metric].high + 0.01
        assert row[metric].high - row[metric].low < 0.02, "40 examples apart would differ by some 0.6"
    figures = as_figures(row, "a")
    for metric, one in row.items():
        assert figures[f"{metric}/minus/a"].value == one.difference.value
        assert figures[f"{metric}/minus/a"].stderr == one.difference.stderr
        assert figures[f"{metric}/minus/a/low"].value == one.low
        assert figures[f"{metric}/minus/a/high"].value == one.high


def test_attacks_on_sequences_have_differences_too() -> None:
    """Their gaps are those of numbers of changed symbols."""
    name = "robustness_gap/substitutions=2"
    arms = {"a": audited(120.0, missing="robustness"), "b": audited(100.0, missing="robustness")}
    for arm, gap in (("a", 3.0), ("b", 2.5)):
        arms[arm].arrays["robustness/gaps/substitutions=2"] = gap + np.linspace(0, 1, 40)
    row = intervals({arm: [one] for arm, one in arms.items()}, "a")["b"]
    assert row[name].difference.value == pytest.approx(-0.5)
    assert "robustness_gap" not in row


def test_seeds_are_resampled_with_the_examples() -> None:
    """Trainings that differ by 2 nats: means of two draws of two lie within 1, and 2 of 4 x 4 lie 2 apart."""
    one = {"a": [audited(120.0)], "b": [audited(100.0)]}
    two = {"a": [audited(119.0), audited(121.0)], "b": [audited(99.0), audited(101.0)]}
    rows = [intervals(found, "a")["b"]["test_elbo"] for found in (one, two)]
    assert rows[0].difference.value == pytest.approx(rows[1].difference.value, abs=1e-9)
    assert rows[0].high - rows[0].low < 0.01
    assert (rows[1].low, rows[1].high) == pytest.approx((18, 22), abs=0.01)
    assert rows[1].difference.stderr == pytest.approx(1, rel=0.05), "two means with a variance of 1/2 each"
    others = {"a": two["a"], "b": [audited(bound, "u") for bound in (99.0, 101.0)]}  # whose gaps differ by 1
    hard = np.random.default_rng(9).normal(size=70)[40:]
    error = np.sqrt(2 / 8 + 2 * hard.var() / 30)
    assert intervals(others, "a")["b"]["generalization_gap"].difference.stderr == pytest.approx(error, rel=0.05)


def test_other_training_examples_are_no_pairs() -> None:
    """Theirs are 50 others: the standard error is that of two independent means, which pairs would make zero."""
    found = {"a": [audited(120.0)], "b": [audited(100.0, "u", n_train=50)], "c": [audited(100.0, "u")]}
    rows = intervals(found, "a")
    error = {}
    for n in (30, 50):
        hard = np.random.default_rng(9).normal(size=40 + n)[40:]
        error[n] = hard.std() / np.sqrt(n)
    for arm, n in (("b", 50), ("c", 30)):
        got = rows[arm]["generalization_gap"].difference
        assert got.value == pytest.approx(-10, abs=0.01)
        assert got.stderr == pytest.approx(np.hypot(error[30], error[n]), rel=0.05)
        assert rows[arm]["test_elbo"].difference.stderr < 0.01


def test_what_was_refused_has_no_interval_and_nothing_has_without_the_first() -> None:
    found = {
        "a": [audited(120.0)],
        "b": [audited(110.0, missing="robustness")],
        "c": [audited(1.0, "u", missing="bounds")],
    }
    found["e"] = [audited(110.0), audited(110.0, missing="amortization")]  # of one seed
    rows = intervals(found, "a")
    assert set(rows["e"]) == {"test_elbo", "generalization_gap", "robustness_gap"}
    assert set(rows["b"]) == {"test_elbo", "generalization_gap", "amortization_gap_test"}
    assert set(rows["c"]) == {"amortization_gap_test", "robustness_gap"}
    assert intervals(found, "d") == intervals({"a": [], "b": found["b"]}, "a") == {}


def test_arms_with_other_test_examples_are_compared_among_themselves() -> None:
    """Of another division: nothing is subtracted across, even of equal sizes; theirs is the first on real examples."""
    found = {"a": [audited(120.0)], "b": [audited(100.0)]}
    found |= {
        arm: [replace(audited(bound, "u"), test="other")] for arm, bound in (("d", 90.0), ("c", 80.0), ("e", 70.0))
    }
    for one in found["d"] + found["c"] + found["e"]:
        one.arrays.update(
            {
                key: one.arrays[key][:35]
                for key in ("bounds/test_bound", "amortization/test_before", "amortization/test_best")
            }
        )
    assert set(intervals(found, "a")) == {"b"}
    assert firsts(found, "a", drawn={"b", "d"}) == ["a", "c"]
    assert firsts({arm: found[arm] for arm in "bcde"}, "a") == []
    row = intervals(found, "c")
    assert set(row) == {"d", "e"}
    assert row["e"]["test_elbo"].difference.value == pytest.approx(10)
    assert row["e"]["generalization_gap"].difference.value == pytest.approx(-5)
    assert firsts_of([*as_figures(row["e"], "c"), "test_elbo", "robustness_gap/minus/vae@real/low"]) == {"c"}
    assert difference(found["c"][0], found["a"][0], "bound_nats/test") is None


def test_apart_covers_as_often_as_it_says() -> None:
    """The true difference of gaps is 1: test examples are shared, training examples are not, and seeds vary."""
    rng, hits, trials = np.random.default_rng(0), 0, 120
    for trial in range(trials):
        easy, shifts = rng.normal(size=60), rng.normal(size=(2, 12, 1)) * 0.3
        test = tuple(
            mean + s + easy + 0.1 * rng.normal(size=(12, 60)) for mean, s in zip((5.0, 3.0), shifts, strict=True)
        )
        train = (2.0 + rng.normal(size=50) + np.zeros((12, 1)), 1.0 + rng.normal(size=80) + np.zeros((12, 1)))
        one = apart(test, train, draws=200, level=0.9, seed=trial)
        hits += one.low <= 1 <= one.high
        assert one.difference.value == pytest.approx(
            test[0].mean() - test[1].mean() - train[0].mean() + train[1].mean()
        )
    assert 0.8 < hits / trials < 0.97
