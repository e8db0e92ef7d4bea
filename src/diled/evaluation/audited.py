"""What an audit found: figures that follow from several sections, differences between models, sentences.

inference gap = approximation gap + amortization gap      Cremer et al. 2018, where log p(x) was estimated
difference    = figure of one model - that of another     by bootstrap: in pairs over examples that both were measured
                                                          on, each by itself over training examples that differ
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diled.errors import DataError
from diled.evaluation.audit import Section
from diled.evaluation.gaps import Interval, best_log_p, cremer, paired_bootstrap, zhang
from diled.evaluation.measure import Measured

__all__ = [
    "Audited",
    "combined",
    "difference",
    "differences",
    "independent_bootstrap",
    "leaders",
    "refusals",
    "undecided",
    "verdict",
]

PARTS: dict[str, tuple[str, ...]] = {
    "bound_nats/test": ("bounds/test_bound",),
    "generalization_gap": ("bounds/test_bound", "bounds/train_bound"),
    "amortization_gap_train": ("amortization/train_before", "amortization/train_best"),
    "amortization_gap_test": ("amortization/test_before", "amortization/test_best"),
}
"""Figure -> the numbers per example that it is made of: the mean of the first, minus that of the second. Those of attacks
have theirs in `robustness/gaps` and what follows."""

EMPTY = 0.1
"""Nats of rate below which codes hold nothing."""


@dataclass(frozen=True, eq=False)
class Audited:
    """What an audit found of one model.

    Attributes:
        figures: metric -> value; with those that follow from several sections.
        arrays: `section/name` -> numbers per example.
        notes: remarks on how it was measured.
        refused: section -> why there is none.
        train: hash of its real training examples; models with the same were measured on the same ones.
        test: the same of its test examples.
    """

    figures: dict[str, Measured]
    arrays: dict[str, np.ndarray]
    notes: list[str]
    refused: dict[str, str]
    train: str = ""
    test: str = ""


def combined(measured: dict[str, Section | str], notes: Sequence[str] = (), train: str = "", test: str = "") -> Audited:
    """All sections of one model, with the splits of Cremer et al. and Zhang et al. where their parts are there."""
    figures: dict[str, Measured] = {}
    arrays: dict[str, np.ndarray] = {}
    remarks, refused = list(notes), {}
    for name, section in measured.items():
        if isinstance(section, str):
            refused[name] = section
            continue
        figures |= section.figures
        arrays |= {f"{name}/{key}": values for key, values in section.arrays.items()}
        remarks += [f"{name}: {note}" for note in section.notes]
    for split in ("train", "test"):
        parts = [arrays.get(f"amortization/{split}_{key}") for key in ("before", "best")]
        log_p = best_log_p(arrays, split)
        if log_p is None or parts[0] is None or parts[1] is None:
            continue
        n = len(log_p)  # of a diffusion prior fewer: the first of the same examples
        try:
            split_of = cremer(log_p, parts[0][:n], parts[1][:n])
        except DataError as refusal:  # of a cell that was measured before this was looked at
            remarks.append(f"likelihood: no split of the inference gap on {split} examples: {refusal}")
            continue
        figures[f"inference_gap_{split}"] = split_of.inference
        figures[f"approximation_gap_{split}"] = split_of.approximation
        gap = split_of.approximation
        if gap.value is not None and gap.value < -2 * (gap.stderr or 0.0):
            remarks.append(
                f"likelihood: the estimate of log p(x) on {split} examples lies below the best ELBO, so it is too low to split "
                "the inference gap: take more weights (--thorough)."
            )
    names = ("train_before", "train_best", "test_before", "test_best")
    found = [arrays.get(f"amortization/{name}") for name in names]
    if all(values is not None for values in found):
        sides = zhang(*found)
        figures["generative_gap"], figures["encoder_gap"] = sides.generative, sides.inference
    return Audited(figures, arrays, remarks, refused, train, test)


def differences(found: dict[str, Audited], seed: int = 0) -> dict[str, dict[str, Interval]]:
    """Model -> figure -> by how much it is larger than the first model's, with an interval."""
    first, *others = found
    return {
        name: {
            metric: interval
            for metric in (*PARTS, *(m for m in found[name].figures if m.startswith("robustness_gap")))
            if (interval := difference(found[name], found[first], metric, seed)) is not None
        }
        for name in others
    }


def difference(mine: Audited, theirs: Audited, metric: str, seed: int = 0) -> Interval | None:
    """By how much a figure is larger than another model's, with a bootstrap interval; None where parts of it are missing,
    or where the two were measured on other test examples, which make no pairs.

    Both models have the same test examples, which are redrawn in pairs. Training examples are too where they are the same;
    otherwise those of each model are redrawn by themselves.

    Args:
        mine, theirs: audits.
        metric: name of the figure.
        seed: of the bootstrap.
    """
    attack = metric.startswith("robustness_gap")
    parts = ("robustness/" + metric.replace("robustness_gap", "gaps"),) if attack else PARTS.get(metric, ())
    if mine.test != theirs.test or not parts or any(part not in one.arrays for part in parts for one in (mine, theirs)):
        return None
    (a, b), *rest = [(mine.arrays[part], theirs.arrays[part]) for part in parts]
    same = mine.train == theirs.train != ""
    if metric == "generalization_gap":
        if same:
            return paired_bootstrap(a, b, minus=rest[0], seed=seed)
        return independent_bootstrap((1, a - b), (-1, rest[0][0]), (1, rest[0][1]), seed=seed)
    if rest:  # both parts are of the same examples
        a, b = a - rest[0][0], b - rest[0][1]
    if metric.endswith("_train") and not same:
        return independent_bootstrap((1, a), (-1, b), seed=seed)
    return paired_bootstrap(a, b, seed=seed)


def independent_bootstrap(
    *terms: tuple[float, np.ndarray], draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """A signed sum of means over sets of examples that have nothing to do with each other, with a percentile interval.

        value = sum_i s_i mean(v_i),      each v_i redrawn by itself, with replacement

    Args:
        terms: sign and numbers per example (n_i,) of each set.
        draws: of the bootstrap.
        level: probability that the interval covers.
        seed: of the draws.

    Reference: Efron & Tibshirani 1993, section 8.3.
    """
    rng = np.random.default_rng(seed)
    drawn = [sum(sign * v[rng.integers(len(v), size=len(v))].mean() for sign, v in terms) for _ in range(draws)]
    value = sum(sign * v.mean() for sign, v in terms)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    n, note = sum(len(v) for _, v in terms), "bootstrap; training examples of each model by themselves"
    return Interval(Measured(float(value), float(np.std(drawn, ddof=1)), n, note), float(low), float(high), level)


def leaders(found: dict[str, Audited], metric: str, seed: int = 0) -> list[str]:
    """The model with the smallest figure, then those whose figures are not larger beyond chance, in order of size.

    A figure is larger where the 95 % interval of the difference lies above 0; where there are no numbers per example, where
    the difference exceeds 1.96 standard errors of independent figures.

    Args:
        found: model -> audit.
        metric: name of the figure; models without it are left out.
        seed: of the bootstrap.
    """
    values = {name: one.figures[metric].value for name, one in found.items() if metric in one.figures}
    known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    first, *others = sorted(known, key=lambda name: known[name]) or [""]
    return [first, *(n for n in others if not _larger(found[n], found[first], metric, seed))] if first else []


def _larger(mine: Audited, theirs: Audited, metric: str, seed: int) -> bool:
    interval = difference(mine, theirs, metric, seed)
    if interval is not None:
        return interval.low > 0
    a, b = mine.figures[metric], theirs.figures[metric]
    assert a.value is not None
    assert b.value is not None
    return a.value - b.value > 1.96 * math.hypot(a.stderr or 0.0, b.stderr or 0.0)


def undecided(found: dict[str, Audited], metrics: Iterable[str], seed: int = 0) -> list[str]:
    """Figures of which the smallest does not differ from the next beyond chance, so that none is the best."""
    return [metric for metric in metrics if len(leaders(found, metric, seed)) > 1]


def refusals(found: dict[str, Audited]) -> list[str]:
    """What could not be measured, and why, in sentences."""
    return [f"{name} has no {section}: {why}" for name, one in found.items() for section, why in one.refused.items()]


def verdict(found: dict[str, Audited], seed: int = 0) -> list[str]:
    """Sentences for the head of the page: what was found of one model, or who generalizes best, if anyone does.

    Args:
        found: model -> audit, on the same test examples.
        seed: of the bootstrap of differences.
    """
    return [*_about_gaps(found, seed), *_about_collapse(found)]


def _about_gaps(found: dict[str, Audited], seed: int) -> list[str]:
    gaps = {n: one.figures["generalization_gap"] for n, one in found.items() if "generalization_gap" in one.figures}
    if not gaps:
        bounded = all("bounds" in one.refused for one in found.values())
        return [
            "No model here has a bound, so none has a generalization gap." if bounded else "No bounds were measured."
        ]
    name, gap = next(iter(gaps.items()))
    if len(found) == 1:
        size, side = abs(gap.value or 0.0), "below" if (gap.value or 0.0) < 0 else "above"
        said = [f"On test examples the bound is {_nats(replace(gap, value=size))} {side} that on training examples."]
        amortized = found[name].figures.get("amortization_gap_test")
        if amortized is not None:
            said.append(f"The encoder loses {_nats(amortized)} against the best Gaussian code of each test example.")
        return said
    if len(gaps) == 1:
        return [f"Of {name} alone there is a bound; its generalization gap is {_nats(gap)}."]
    ahead = leaders(found, "generalization_gap", seed)
    sizes = _listed([_nats(gaps[one]) for one in ahead])
    if len(ahead) == 1:
        return [f"{ahead[0]} has the smallest generalization gap, {sizes}."]
    return [f"{_listed(ahead)} have the smallest generalization gaps, {sizes}, and do not differ beyond chance."]


def _about_collapse(found: dict[str, Audited]) -> list[str]:
    """Models whose gaps are small because their codes hold nothing."""
    said = []
    for name, one in found.items():
        rate, judged = one.figures.get("rate_nats/test"), one.figures.get("collapsed")
        empty = rate is not None and rate.value is not None and 0 < rate.value < EMPTY  # 0: a model without codes
        if empty or (judged is not None and judged.value == 1):
            beside = "" if rate is None else f" (rate {_nats(rate)})"
            said.append(f"{name} is collapsed: its gaps are small because its codes hold next to nothing{beside}.")
    return said


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def _nats(m: Measured | None) -> str:
    if m is None or m.value is None:
        return "an unknown number of nats"
    return f"{m.value:.2f}" + (f" ± {m.stderr:.2f}" if m.stderr is not None else "") + " nats"
