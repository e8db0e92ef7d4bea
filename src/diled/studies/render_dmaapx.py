"""The tables of DMaaPx beside the paper's numbers, in Markdown.

`paper_dmaapx` says where in the paper they stand.
Reference: Xiao, Zenn & Bamler 2024 (arXiv 2310.19653).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from diled.evaluation.audited import Audited
from diled.studies.dmaapx import arms_of, recorded, seeds_of
from diled.studies.intervals import ALL, COMPARED, firsts, firsts_of, intervals, key_of
from diled.studies.paper_dmaapx import DATA, EPOCHS, PAPER, PLOTTED, SAID
from diled.studies.records import Record, read
from diled.studies.render import markdown

__all__ = ["beside_the_paper", "cell", "named", "ratios", "table"]

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
    "vae@mixed/40%": "40 % real in each batch",
    "vae@mixed/50%": "50 % real in each batch",
    "vae@mixed/60%": "60 % real in each batch",
    "vae@mixed/80%": "80 % real in each batch",
    "vae@mixed/union": "real and synthetic together",
    "vae@real/decay": "weight decay",
    "vae@real/dropout": "dropout",
    "vae@real/noise": "input noise",
    "vae@real/mollify": "Mollify",
    "vae@real/asleep": "reverse half asleep",
    "vae@synthetic/mollify": "DMaaPx and Mollify",
    "vae@synthetic/asleep": "DMaaPx and reverse half asleep",
    "vae@real/flow": "a flow as posterior",
    "vae@real/iwae": "importance-weighted objective, 10 samples",
    "beta_vae@real/beta=0.5": "beta-VAE, 0.5",
    "beta_vae@real/beta=2": "beta-VAE, 2",
    "vae@real/wide": "64 latent dimensions",
    "vae@self": "its own samples",
}
"""System -> what the paper calls it, or what it is."""

MODELS = {"diled": "DiLED", "ldm": "LDM", "lsgm": "LSGM"}
"""Models but the VAE."""

FEWEST = 20
"""Examples of an approximation gap, at least."""

Values = Mapping[str, Mapping[str, Sequence[float]]]
"""System -> metric -> one value for each seed."""


def table(path: Path, study: str, scale: str) -> str:
    """The records of a study at a scale, beside the paper's figures; a sentence where there are none."""
    found = recorded(path, f"{study}-{scale}")
    values = {
        system: {
            metric: some
            for metric, records in by_metric.items()
            if (some := [r.value for r in records if _enough(r.metric, r.n)])
        }
        for system, by_metric in found.items()
    }
    if not values:
        return "Nothing is recorded yet."
    between = {
        first: {
            system: {
                metric: tuple(by_metric[key_of(metric, first, end)][0] for end in ("", "low", "high"))
                for metric in COMPARED
                if key_of(metric, first) in by_metric
            }
            for system, by_metric in values.items()
        }
        for first in set().union(*map(firsts_of, values.values()))
    }
    return _table(study, scale, values) + _all_differences(between, arms_of(study, scale).first) + _other_seeds(found)


def ratios(path: Path) -> str:
    """What was measured side by side in one run, one line each; a sentence where nothing is."""
    lines = [
        [r.system, r.metric, f"{r.value:.2f}" + ("" if r.stderr is None else f" ± {r.stderr:.2f}"), r.note]
        for r in read(path)
    ]
    return markdown(["", "figure", "value", "of"], lines) if lines else "Nothing is recorded yet."


def beside_the_paper(study: str, found: Mapping[str, Sequence[Audited]], scale: str = "mini") -> str:
    """The same of audits at hand, of a study at a scale."""
    values: dict[str, dict[str, list[float]]] = {}
    for system, audits in found.items():
        for one in audits:
            for metric, m in one.figures.items():
                if m.value is not None and _enough(metric, m.n):
                    values.setdefault(system, {}).setdefault(metric, []).append(m.value)
        if "bound_nats/test" in values.get(system, {}):
            values[system]["test_elbo"] = [-v for v in values[system]["bound_nats/test"]]
    plan = arms_of(study, scale)
    ordered = {arm: found[arm] for arm in plan.arms if arm in found}
    between = {
        first: {
            system: {metric: (one.difference.value or 0.0, one.low, one.high) for metric, one in row.items()}
            for system, row in intervals(ordered, first).items()
        }
        for first in firsts(ordered, plan.first, plan.drawn)
    }
    return _table(study, scale, values) + _all_differences(between, plan.first)


def _table(study: str, scale: str, values: Values) -> str:
    """Rows in the order of `NAMES`; the paper's figures in brackets, and what there is to say of them above."""
    columns, more = _columns(values), {m: name for m, name in OURS.items() if any(m in v for v in values.values())}
    paper = {system: _theirs(study, system) for system in values}
    known = {metric for theirs in paper.values() for metric in theirs}
    head = ["trained on", "seeds", *(f"{name} (paper)" if m in known else name for m, name in columns.items())]
    head += more.values()
    rows = []
    for system in sorted(values, key=_place):
        theirs = paper[system]
        cells = []
        for metric in columns:
            ours = cell(metric, values[system].get(metric, ()))
            cells.append(f"{ours} ({theirs[metric]})" if metric in theirs else ours)
        cells += [cell(metric, values[system].get(metric, ())) for metric in more]
        seeds = max((len(v) for v in values[system].values()), default=0)
        rows.append([named(system), str(seeds), *cells])
    several = any(int(row[1]) > 1 for row in rows)
    spread = "\n\n± is the standard deviation over seeds." if several else ""
    return _said(study, scale, paper) + markdown(head, rows) + spread + _unfinished(values)


def _enough(metric: str, n: int | None) -> bool:
    """Whether a figure is of enough examples to stand in a table: of a few, an approximation gap is mostly its error."""
    return not metric.startswith("approximation_gap") or n is None or n >= FEWEST


def _unfinished(values: Values) -> str:
    """Where searches for the best posterior of single examples ended before their time, by how many; else nothing."""
    shares = [share for of in values.values() for share in of.get("still_improving/test", ())]
    if max(shares, default=0.0) <= 0.05:
        return ""
    low, high = (f"{100 * share:.0f}" for share in (min(shares), max(shares)))
    said = high if low == high else f"up to {high}" if low == "0" else f"{low} to {high}"
    return (
        f"\n\nAmortization gaps are larger than they stand here: {said} % of a model's test examples were still gaining in the "
        "last quarter of the search for their best posterior."
    )


def _theirs(study: str, system: str) -> dict[str, str]:
    """Metric -> the paper's figure, those read off plots with no more digits than that gives."""
    printed = zip(COLUMNS, PAPER.get(study, {}).get(system, ()), strict=False)
    plotted = zip(COLUMNS, PLOTTED.get(study, {}).get(system, ()), strict=False)
    found = {metric: f"{value:g}" for metric, value in plotted if value is not None}
    return found | {metric: _number(metric, value) for metric, value in printed if value is not None}


def _said(study: str, scale: str, paper: Mapping[str, Mapping[str, str]]) -> str:
    """What the paper's figures are of, where the table has some of those that need it said."""
    there = PLOTTED.get(study, {})
    if study not in SAID or not any(theirs and system in there for system, theirs in paper.items()):
        return ""
    base = arms_of(study, scale).base
    images, epochs = base.get("preprocess.limit"), base["training.epochs"]
    some = "all" if images is None else f"{images:,}"
    differing = [] if (base["data"], images) == (DATA, None) else [f"{some} images of {base['data']}"]
    differing += [] if epochs == EPOCHS else [f"{epochs:,} epochs"]
    other = f" Ours are of {', '.join(differing)}: the two compare in order, not in size." if differing else ""
    return f"{SAID[study]}{other}\n\n"


def _all_differences(between: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], first: str) -> str:
    """Under the table, the differences from the first arm of each set of test examples, those of the study's first above."""
    order = sorted(between, key=lambda one: (one != first, _place(one)))
    return "".join(_differences(between[one], one, other=one != first) for one in order)


def _differences(between: Mapping[str, Mapping[str, Sequence[float]]], first: str, *, other: bool) -> str:
    """By how much each arm differs from the first of those with its test examples; nothing where that is not known."""
    systems = [system for system in sorted(between, key=_place) if between[system]]
    if not systems:
        return ""
    columns = _columns(between)
    rows = [
        [named(system), *(_difference(metric, between[system].get(metric)) for metric in columns)] for system in systems
    ]
    said = (
        f"By how much each{' that has the same test examples' if other else ''} differs from {named(first)}, with 95 % "
        "intervals: bootstrap over examples, the same for both where they share them, and over seeds where there are several."
    )
    return f"\n\n{said}\n\n" + markdown(["trained on", *columns.values()], rows)


def _other_seeds(found: Mapping[str, Mapping[str, Sequence[Record]]]) -> str:
    """Of which seeds differences are, where these are not all that the arm's row in the table is of; else nothing."""
    other: dict[tuple[int, ...], list[str]] = {}
    compared = 0
    for system in sorted(found, key=_place):
        records = [record for some in found[system].values() for record in some]
        shown = {record.seed for record in records if record.seed != ALL}
        seeds = {seed for record in records if record.seed == ALL for seed in seeds_of(record)}
        compared += bool(seeds)
        if seeds and seeds != shown:
            other.setdefault(tuple(sorted(seeds)), []).append(named(system))
    return "".join(
        f"\n\nThe table is of other seeds than these differences, which are of {_seeds(seeds)}"
        + (f" for {', '.join(names)}." if len(names) < compared else ".")
        for seeds, names in other.items()
    )


def _seeds(seeds: Sequence[int]) -> str:
    *rest, last = map(str, seeds)
    return f"seeds {', '.join(rest)} and {last}" if rest else f"seed {last}"


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


def _place(system: str) -> tuple[int, int, int, list[str | int]]:
    """Where a system stands in a table: model by model, in the order of `NAMES`, pools by size, others after them, numbers by
    their size; what is divided by clusters beside what is not."""
    system = re.sub(
        r"@clusters/(real)?(.*)", lambda m: f"@real{m[2]}/clusters" if m[1] else f"@synthetic/{m[2]}/clusters", system
    )
    model, _, arm = system.partition("@")
    models, order = list(MODELS), list(NAMES)
    alike = f"vae@{arm}" if model in models else system
    name = "vae@synthetic/k=10" if _folds(system) else alike
    parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", system)]
    place = order.index(name) if name in order else len(order)
    return models.index(model) + 1 if model in models else 0, place, _folds(system), parts


def named(system: str) -> str:
    """What a system is called in tables; of models but the VAE with their names."""
    if system in NAMES:
        return NAMES[system]
    model, _, arm = system.partition("@")
    if model in MODELS:
        return f"{MODELS[model]}, {named(f'vae@{arm}')}"
    name, _, variant = system.partition("/")
    words = variant.replace("=", " = ").replace(",", ", ")
    if name == "vae@clusters":
        return f"{named('vae@real' if variant == 'real' else f'vae@synthetic/{variant}')}, clusters"
    if name == "vae@self":
        return f"its own samples, generation {variant}"
    if name == "vae@real" and re.fullmatch(r"\d+N", variant):
        return f"{variant[:-1]} times the real data"
    if name == "vae@real" and "n_c" in variant:
        return f"normal, {words}"
    return f"DMaaPx, {words}" if name == "vae@synthetic" else system


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
