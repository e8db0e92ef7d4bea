"""Tables of text: what each model reaches, edits, and the paper's columns beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from diled.studies.records import Record, read
from diled.studies.render import by_family, markdown, seconds, title
from diled.studies.render_proteins import cell, seeds_of

__all__ = [
    "SHORT",
    "TASKS",
    "WAYS",
    "Curve",
    "accuracy_at",
    "curve_of",
    "edit_curves",
    "edited",
    "texts",
    "texts_beside_the_paper",
    "trained",
]

NOTHING = "Nothing is recorded yet."
MODELS = {
    "bleu": ("BLEU", 1),
    "exact_match": ("texts", 3),
    "bleu_shuffled": ("BLEU, other codes", 1),
    "bound_nats": ("bound", 1),
    "bound_nats/unseen": ("bound, unseen", 1),
    "rate_nats": ("rate", 1),
    "distortion_nats": ("distortion", 1),
    "nats_per_token": ("per token", 2),
    "word_perplexity": ("per word", 1),
    "active_units": ("active", 0),
    "sample_perplexity": ("samples", 1),
    "sample_perplexity/ngram": ("samples, 5-gram", 1),
    "reverse_perplexity": ("reverse", 1),
    "mauve": ("MAUVE", 3),
    "self_bleu": ("self-BLEU", 1),
    "distinct_2": ("distinct-2", 3),
    "unique": ("unique", 3),
    "copied": ("copied", 3),
    "interpolation_perplexity": ("way", 1),
    "interpolation_mauve": ("MAUVE, way", 3),
    "step_largest": ("largest step", 2),
    "probe_accuracy": ("probe", 3),
    "parameters": ("parameters", 0),
    "cpu_seconds": ("CPU s", 0),
}
"""Metric -> heading and decimals. `per word` is the perplexity of the bound; `samples`, `reverse` and `way` are others."""
SHORT = ("bleu", "exact_match", "bound_nats", "rate_nats", "distortion_nats", "sample_perplexity", "mauve", "distinct_2",
         "unique", "interpolation_perplexity", "interpolation_mauve", "cpu_seconds")  # fmt: skip
"""Metrics of the short table."""
FLOORS = {m: f"{m}/floor" for m in ("sample_perplexity", "sample_perplexity/ngram", "reverse_perplexity", "mauve", "self_bleu",
                                    "distinct_2", "unique", "copied", "interpolation_perplexity",
                                    "interpolation_mauve")}  # fmt: skip
"""What real texts reach in it."""
TASKS = ("sentiment", "sst2", "tense", "both", "sst2+tense")
WAYS = ("vector", "ode")
EDITS = {"edit_accuracy": ("accuracy", 3), "/sentiment": ("sentiment", 3), "/tense": ("tense", 3),
         "edit_content": ("content", 1), "edit_reference": ("rewrites", 1), "edit_perplexity": ("perplexity", 1),
         "edit_strength": ("strength", 2)}  # fmt: skip
"""Metric -> heading and decimals; /column is the accuracy in one of several attributes."""
PEOPLE = {"unchanged": "*as they were*", "people": "*rewritten by people*"}
"""What stands in the place of a way where no model is at work."""
PAPER: dict[str, tuple[float | None, ...]] = {
    "LatentOps": (87.6, 68.1, 0.240, 0.50, 57.3, 32.5, 0.697),
    "Optimus-DAAE": (86.1, 94.1, 0.006, 0.17, 51.0, 33.7, 0.770),
    "GENIE": (58.5, 337.6, 0.013, 0.69, 33.9, 258.2, 0.029),
    "AR-Diffusion": (64.1, 157.8, 0.007, 0.32, 17.0, 163.9, 0.012),
    "GPT-2, fine-tuned": (None, 15.0, 0.015, 0.65, None, None, None),
    "GPT-4, 20 examples": (100, 25.7, 0.007, 0.87, 49.3, 39.7, 0.010),
    "EDDPM": (92.1, 16.4, 0.977, 0.79, 57.1, 30.8, 0.763),
}
"""Liu et al. 2024, Table 1 and rebuttal: reconstruction, perplexity, MAUVE and diversity of samples, accuracy of edits,
perplexity and MAUVE of interpolations."""
COLUMNS = ("BLEU", "perplexity", "to real", "MAUVE", "diversity", "edits", "content", "at content 40", "at LatentOps'",
           "perplexity, way", "to real, way", "MAUVE, way")  # fmt: skip
"""`to real` is the ratio to the perplexity of test sentences; `content` is the BLEU of edits to their sources; `at content 40`
and `at LatentOps'` are the accuracy of edits that keep that much."""
AIMS: dict[str, dict[str, str]] = {
    "yelp": {"BLEU": ">= 60", "to real": "0.7 to 1.5", "diversity": ">= 0.8 of real"},
    "yelp-gpu": {"BLEU": ">= 92", "to real": "0.85 to 1.15", "MAUVE": ">= 0.95 of real", "at content 40": ">= 85",
                 "at LatentOps'": ">= 85"},
}  # fmt: skip
"""Study -> what was aimed at before anything was measured."""
KEPT = 40.0
"""BLEU to the source from which the content of a sentence is taken as kept."""


def texts(path: Path, metrics: Sequence[str] = tuple(MODELS)) -> str:
    """What each model reaches in each of the metrics; a sentence where nothing is recorded."""
    of = trained(path)
    if not of:
        return NOTHING
    columns = {metric: MODELS[metric] for metric in metrics}
    everything = [r for records in of.values() for r in records]
    lines = [
        [
            title(s),
            seeds_of(r),
            *(seconds(s, everything, "") if m == "cpu_seconds" else cell(r, m, d) for m, (_, d) in columns.items()),
        ]
        for s, r in of.items()
    ]
    lines.append(["*real text*", "", *(cell(everything, FLOORS.get(m, ""), d) for m, (_, d) in columns.items())])
    return markdown(["system", "seeds", *(heading for heading, _ in columns.values())], lines)


def edited(path: Path, variants: bool = True) -> str:
    """Edits of each model: each task by each way, at the strength that validation sentences chose; people's below.

    Without `variants` only of the systems as they are by default.
    """
    of, lines = trained(path), []
    for system, records in of.items():
        if "/" in system and not variants:
            continue
        lines += [
            [title(system), t, way, *found] for t in TASKS for way in WAYS if any(found := _edit(records, t, way))
        ]
    everything = [r for records in of.values() for r in records]
    lines += [
        [said, t, "", *found] for t in TASKS for w, said in PEOPLE.items() if any(found := _edit(everything, t, w))
    ]
    return markdown(["system", "task", "way", *(heading for heading, _ in EDITS.values())], lines) if lines else NOTHING


def edit_curves(path: Path) -> str:
    """Accuracy and content of validation sentences at each strength: what an attribute costs."""
    lines = []
    for system, records in trained(path).items():
        for task in TASKS:
            for way in WAYS:
                start = f"edit_accuracy/{task}/{way}/s="
                found = sorted({float(r.metric.removeprefix(start)) for r in records if r.metric.startswith(start)})
                points = [
                    f"{s:g}: {cell(records, f'{start}{s:g}', 2)}, {cell(records, f'edit_content/{task}/{way}/s={s:g}', 0)}"
                    for s in found
                ]
                if points:
                    lines.append([title(system), task, way, "; ".join(points)])
    return markdown(["system", "task", "way", "strength: accuracy, content"], lines) if lines else NOTHING


def _edit(records: list[Record], task: str, way: str) -> list[str]:
    """The cells of one task by one way; what several attributes reach apart only where there are several."""
    several = task in ("both", "sst2+tense")
    found = []
    for metric, (_, digits) in EDITS.items():
        if metric.startswith("/"):
            found.append(cell(records, f"edit_accuracy/{task}/{way}{metric}", digits) if several else "")
        else:
            found.append(cell(records, f"{metric}/{task}/{way}", digits))
    return found


def texts_beside_the_paper(path: Path) -> str:
    """The seven columns of the paper's table: its numbers, then ours. Protocols differ, so columns compare within a half.

    Of the ways of editing each system has the one that does better on validation sentences, but for LatentOps, which is the ODE
    under a VAE of weight beta, whose own row has vectors alone. What edits reach that keep their content is read off the curves
    of validation sentences.
    """
    of = trained(path)
    if not of:
        return NOTHING
    lines = []
    for name, (bleu, perplexity, mauve, diversity, edits, way, mauve_way) in PAPER.items():
        values = (bleu, perplexity, None, mauve, diversity, edits, None, None, None, way, None, mauve_way)
        lines.append([f"{name} (paper)", *("" if v is None else f"{v:g}" for v in values)])
    theirs = content_chosen(of.get("beta_vae", []), "ode")
    for system, r in of.items():
        known = [w for w in WAYS if mean_of(r, f"edit_chosen/sentiment/{w}") is not None]
        base, _, variant = system.partition("/")
        lines.append(_beside(title(system), r, [w for w in known if base != "beta_vae" or w == "vector"], theirs))
        if base == "beta_vae" and "ode" in known:
            lines.append(_beside(", ".join(filter(None, ("LatentOps", variant))), r, ["ode"], theirs))
    everything = [r for records in of.values() for r in records]
    sentences = {
        "perplexity": cell(everything, FLOORS["sample_perplexity"], 1),
        "MAUVE": cell(everything, FLOORS["mauve"], 3),
        "diversity": cell(everything, FLOORS["distinct_2"], 2),
        "edits": percent(mean_of(everything, "edit_accuracy/sentiment/people")),
        "content": cell(everything, "edit_content/sentiment/people", 1),
        "perplexity, way": cell(everything, FLOORS["interpolation_perplexity"], 1),
        "MAUVE, way": cell(everything, FLOORS["interpolation_mauve"], 3),
    }
    for name, row in (("*test sentences; rewrites by people*", sentences), ("*aim*", AIMS.get(path.stem, {}))):
        if row:
            lines.append([name, *(row.get(column, "") for column in COLUMNS)])
    return markdown(["system", *COLUMNS], lines)


def _beside(name: str, r: list[Record], ways: list[str], theirs: float | None) -> list[str]:
    """A row of `texts_beside_the_paper`; `theirs` is the content that LatentOps keeps."""
    own = max(ways, key=lambda w: mean_of(r, f"edit_chosen/sentiment/{w}") or 0.0, default="")
    curves = [curve_of(r, "sentiment", w) for w in ways]

    def at_least(content: float | None) -> str:
        found = [] if content is None else [a for c in curves for a in [accuracy_at(c, content)] if a is not None]
        return percent(max(found)) if found else "-" if content is not None and any(curves) else ""

    return [
        name,
        cell(r, "bleu", 1),
        cell(r, "sample_perplexity", 1),
        ratio(r, "sample_perplexity"),
        cell(r, "mauve", 3),
        cell(r, "distinct_2", 2),
        percent(mean_of(r, f"edit_accuracy/sentiment/{own}")),
        cell(r, f"edit_content/sentiment/{own}", 1),
        at_least(KEPT),
        at_least(theirs),
        cell(r, "interpolation_perplexity", 1),
        ratio(r, "interpolation_perplexity"),
        cell(r, "interpolation_mauve", 3),
    ]


Curve = list[tuple[float, float]]
"""(content, accuracy) of validation sentences, from one strength to the next."""


def curve_of(records: list[Record], task: str, way: str) -> Curve:
    """What edits of a task keep and reach at each strength, means over seeds."""
    start, points = f"edit_accuracy/{task}/{way}/s=", []
    for s in sorted({float(r.metric.removeprefix(start)) for r in records if r.metric.startswith(start)}):
        content, accuracy = mean_of(records, f"edit_content/{task}/{way}/s={s:g}"), mean_of(records, f"{start}{s:g}")
        if content is not None and accuracy is not None:
            points.append((content, accuracy))
    return points


def accuracy_at(curve: Curve, content: float) -> float | None:
    """The highest accuracy on a curve that keeps at least so much content, linear between strengths; None where none does."""
    found = [accuracy for kept, accuracy in curve if kept >= content]
    for (kept, accuracy), (kept_next, accuracy_next) in pairwise(curve):
        if min(kept, kept_next) < content <= max(kept, kept_next):
            found.append(accuracy + (kept - content) / (kept - kept_next) * (accuracy_next - accuracy))
    return max(found, default=None)


def content_chosen(records: list[Record], way: str) -> float | None:
    """What edits of the sentiment keep of validation sentences at the strengths that these chose, the mean over seeds."""
    strength = {r.seed: r.value for r in records if r.metric == f"edit_strength/sentiment/{way}"}
    kept = {(r.seed, r.metric): r.value for r in records}
    found = [kept.get((seed, f"edit_content/sentiment/{way}/s={s:g}")) for seed, s in strength.items()]
    values = [value for value in found if value is not None]
    return sum(values) / len(values) if values else None


def ratio(records: list[Record], metric: str) -> str:
    """A perplexity over that of real text, the mean over seeds."""
    of = {(r.seed, r.metric): r.value for r in records}
    seeds = [seed for seed, m in of if m == metric and of.get((seed, FLOORS[metric]))]
    values = [of[seed, metric] / of[seed, FLOORS[metric]] for seed in seeds]
    return f"{sum(values) / len(values):.2f}" if values else ""


def mean_of(records: list[Record], metric: str) -> float | None:
    """The mean of a metric over seeds; None where it is not recorded."""
    values = [r.value for r in records if r.metric == metric]
    return sum(values) / len(values) if values else None


def percent(value: float | None) -> str:
    """A share in percent, as the paper has it."""
    return "" if value is None else f"{100 * value:.1f}"


def trained(path: Path) -> dict[str, list[Record]]:
    """System -> its records, in the order of the family."""
    records = [r for r in read(path) if "studies.texts" in r.command]
    return {s: [r for r in records if r.system == s] for s in sorted({r.system for r in records}, key=by_family)}
