"""The tables of DMaaPx beside the paper's numbers, in Markdown.

The paper's gaps are printed in its Table 7. Its test ELBO, at the end and at the best epoch, is read off figures 2 and 10, to
about 0.1 nats for BinaryMNIST and 3 for CIFAR-10. That of FashionMNIST is left out: it is a density, of a standard deviation
that the paper does not state.
Reference: Xiao, Zenn & Bamler 2024 (arXiv 2310.19653).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from diled.evaluation.audited import Audited
from diled.studies.dmaapx import arms_of, recorded, scales
from diled.studies.intervals import COMPARED, intervals, key_of
from diled.studies.records import read
from diled.studies.render import markdown

__all__ = ["PAPER", "beside_the_paper", "cell", "named", "ratios", "table"]

COLUMNS = {
    "test_elbo": "test ELBO",
    "generalization_gap": "generalization gap",
    "amortization_gap_test": "amortization gap",
    "robustness_gap": "robustness gap",
}
"""Metric -> heading, of what the paper reports."""

OF_SEQUENCES = {
    "robustness_gap/substitutions=2": "robustness gap, 2 symbols",
    "robustness_gap/words/substitutions=2": "robustness gap, 2 words",
}
"""The same of sequences, where attacks change symbols."""

OURS = {
    "generalization_gap/unseen": "generalization gap, unseen texts",
    "amortization_gap_test/unseen": "amortization gap, unseen texts",
    "amortization_gap_train": "amortization gap, train",
    "approximation_gap_test": "approximation gap",
    "robustness_gap/strong/0.1": "robustness gap, strong",
    "rate_nats/test": "rate",
}
"""The same, of what it does not."""

NAMES = {
    "vae@real": "normal",
    "vae@real/early": "normal, early stopping",
    "vae@augmented/naive": "Aug.Naive",
    "vae@augmented/tuned": "Aug.Tuned",
    "vae@synthetic/k=10": "DMaaPx, k = 10",
    "vae@real/10N": "ten times the real data",
    "vae@mixed/20%": "20 % real in each batch",
    "vae@mixed/50%": "50 % real in each batch",
    "vae@mixed/union": "real and synthetic together",
    "vae@real/decay": "weight decay",
    "vae@real/dropout": "dropout",
    "vae@real/noise": "input noise",
    "vae@real/mollify": "Mollify",
    "vae@real/asleep": "reverse half asleep",
    "vae@real/flow": "a flow as posterior",
    "vae@real/iwae": "importance-weighted objective, 10 samples",
    "beta_vae@real/beta=0.5": "beta-VAE, 0.5",
    "beta_vae@real/beta=2": "beta-VAE, 2",
    "vae@real/wide": "64 latent dimensions",
    "vae@self": "its own samples",
}
"""System -> what the paper calls it, or what it is."""

PAPER: dict[str, dict[str, tuple[float | None, ...]]] = {
    "dmaapx-mnist": {
        "vae@real": (-94.6, 25.76, 20.32, 0.49),
        "vae@real/early": (-83.84, None, None, None),
        "vae@augmented/naive": (-78.0, 6.38, 8.16, 0.74),
        "vae@augmented/tuned": (-79.2, 8.16, 9.34, 0.79),
        "vae@synthetic/k=10": (-74.3, 0.78, 7.01, 0.50),
    },
    "dmaapx-fashion": {
        "vae@real": (None, 1234.50, 1135.89, 0.39),
        "vae@augmented/naive": (None, 500.33, 729.83, 0.11),
        "vae@augmented/tuned": (None, 614.93, 815.52, 0.21),
        "vae@synthetic/k=10": (None, 136.57, 593.39, 0.31),
    },
    "dmaapx-cifar10": {
        "vae@real": (-11497, 841.54, 835.86, 0.41),
        "vae@real/early": (-11369, None, None, None),
        "vae@augmented/naive": (-11043, 228.05, 390.25, 0.35),
        "vae@augmented/tuned": (-10968, 94.28, 328.08, 0.35),
        "vae@synthetic/k=10": (-10965, 5.44, 288.82, 0.30),
    },
}
"""Study -> system -> the paper's figures, in the order of `COLUMNS`, of its full set and fresh samples; None: not known."""

Values = Mapping[str, Mapping[str, Sequence[float]]]
"""System -> metric -> one value for each seed."""


def table(path: Path, study: str, scale: str) -> str:
    """The records of a study at a scale, beside the paper's figures; a sentence where there are none."""
    found = recorded(path, f"{study}-{scale}")
    values = {
        system: {metric: [r.value for r in records] for metric, records in by_metric.items()}
        for system, by_metric in found.items()
    }
    if not values:
        return "Nothing is recorded yet."
    first = arms_of(study, scale).first
    between = {
        system: {
            metric: tuple(by_metric[key_of(metric, first, end)][0] for end in ("", "low", "high"))
            for metric in COMPARED
            if key_of(metric, first) in by_metric
        }
        for system, by_metric in values.items()
    }
    return _table(study, values) + _differences(between, first)


def ratios(path: Path) -> str:
    """What was measured side by side in one run, one line each; a sentence where nothing is."""
    lines = [[r.system, r.metric, f"{r.value:.2f} ± {r.stderr or 0:.2f}", r.note] for r in read(path)]
    return markdown(["", "figure", "ratio", "of"], lines) if lines else "Nothing is recorded yet."


def beside_the_paper(study: str, found: Mapping[str, Sequence[Audited]]) -> str:
    """The same of audits at hand."""
    values: dict[str, dict[str, list[float]]] = {}
    for system, audits in found.items():
        for one in audits:
            for metric, m in one.figures.items():
                if m.value is not None:
                    values.setdefault(system, {}).setdefault(metric, []).append(m.value)
        if "bound_nats/test" in values.get(system, {}):
            values[system]["test_elbo"] = [-v for v in values[system]["bound_nats/test"]]
    first = arms_of(study, scales(study)[0]).first
    between = {
        system: {metric: (one.difference.value or 0.0, one.low, one.high) for metric, one in row.items()}
        for system, row in intervals(found, first).items()
    }
    return _table(study, values) + _differences(between, first)


def _table(study: str, values: Values) -> str:
    """Rows in the order of `NAMES`; the paper's figures in brackets."""
    paper = PAPER.get(study, {})
    columns, more = _columns(values), {m: name for m, name in OURS.items() if any(m in v for v in values.values())}
    head = ["trained on", "seeds", *(f"{name} (paper)" if paper else name for name in columns.values()), *more.values()]
    rows = []
    for system in sorted(values, key=_place):
        theirs = paper.get(system)
        cells = []
        for i, metric in enumerate(columns):
            ours = cell(metric, values[system].get(metric, ()))
            known = None if theirs is None or metric not in COLUMNS else theirs[i]
            cells.append(ours + ("" if known is None else f" ({_number(metric, known)})"))
        cells += [cell(metric, values[system].get(metric, ())) for metric in more]
        seeds = max((len(v) for v in values[system].values()), default=0)
        rows.append([named(system), str(seeds), *cells])
    several = any(int(row[1]) > 1 for row in rows)
    return markdown(head, rows) + ("\n\n± is the standard deviation over seeds." if several else "")


def _differences(between: Mapping[str, Mapping[str, Sequence[float]]], first: str) -> str:
    """Under the table, by how much each arm differs from the first; nothing where that is not known."""
    systems = [system for system in sorted(between, key=_place) if between[system]]
    if not systems:
        return ""
    columns = _columns(between)
    rows = [
        [named(system), *(_difference(metric, between[system].get(metric)) for metric in columns)] for system in systems
    ]
    said = (
        f"By how much each differs from {named(first)}, with 95 % intervals: bootstrap over examples, the same for both where "
        "they share them, and over seeds where there are several."
    )
    return f"\n\n{said}\n\n" + markdown(["trained on", *columns.values()], rows)


def _columns(values: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """What is compared with the paper, or of sequences what stands in its place."""
    there = {metric for by_metric in values.values() for metric in by_metric}
    of_sequences = {metric: name for metric, name in OF_SEQUENCES.items() if metric in there}
    return {m: name for m, name in COLUMNS.items() if m != "robustness_gap" or not of_sequences} | of_sequences


def _difference(metric: str, one: Sequence[float] | None) -> str:
    if one is None:
        return "–"
    value, low, high = (_number(metric, v, sign="+") for v in one)
    return f"{value} ({low} to {high})"


def _place(system: str) -> tuple[int, int, list[str | int]]:
    """Where a system stands in a table: in the order of `NAMES`, pools by size, others after them, numbers by their size."""
    order, name = list(NAMES), "vae@synthetic/k=10" if _folds(system) else system
    parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", system)]
    return order.index(name) if name in order else len(order), _folds(system), parts


def named(system: str) -> str:
    """What a system is called in tables."""
    if system in NAMES:
        return NAMES[system]
    name, _, variant = system.partition("/")
    return f"DMaaPx, {variant.replace('=', ' = ')}" if name == "vae@synthetic" else system


def _folds(system: str) -> int:
    digits = system.rpartition("k=")[2]
    return int(digits) if digits.isdigit() else 0


def cell(metric: str, values: Sequence[float]) -> str:
    """The mean over seeds, and their standard deviation where there are several."""
    if not values:
        return "–"
    spread = f" ± {_number(metric, stdev(values))}" if len(values) > 1 else ""
    return _number(metric, fmean(values)) + spread


def _number(metric: str, value: float, sign: str = "-") -> str:
    return f"{value:{sign}.2f}" if metric.startswith("robustness") or abs(value) < 100 else f"{value:{sign}.0f}"
