"""Tables of text: what each model reaches, edits, and the paper's columns beside ours."""

from __future__ import annotations

from pathlib import Path

from diled.studies.records import Record, read
from diled.studies.render import by_family, markdown, title
from diled.studies.render_proteins import cell, seeds_of

__all__ = ["edit_curves", "edited", "texts", "texts_beside_the_paper"]

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
COLUMNS = ("BLEU", "perplexity", "MAUVE", "diversity", "edits", "perplexity, way", "MAUVE, way")


def texts(path: Path) -> str:
    """What each model reaches; a sentence where nothing is recorded."""
    of = _trained(path)
    if not of:
        return NOTHING
    everything = [r for records in of.values() for r in records]
    lines = [[title(s), seeds_of(r), *(cell(r, m, digits) for m, (_, digits) in MODELS.items())] for s, r in of.items()]
    lines.append(["*real text*", "", *(cell(everything, FLOORS.get(m, ""), d) for m, (_, d) in MODELS.items())])
    return markdown(["system", "seeds", *(heading for heading, _ in MODELS.values())], lines)


def edited(path: Path) -> str:
    """Edits of each model: each task by each way, at the strength that validation sentences chose; people's below."""
    of, lines = _trained(path), []
    for system, records in of.items():
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
    for system, records in _trained(path).items():
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
    under the VAE of weight beta.
    """
    of = _trained(path)
    if not of:
        return NOTHING
    lines = [[f"{name} (paper)", *("" if v is None else f"{v:g}" for v in values)] for name, values in PAPER.items()]
    keys = {"bleu": 1, "sample_perplexity": 1, "mauve": 3, "distinct_2": 2}
    way = {"interpolation_perplexity": 1, "interpolation_mauve": 3}
    for system, r in of.items():
        ways = {w: mean_of(r, f"edit_chosen/sentiment/{w}") for w in WAYS}
        known = [w for w in WAYS if ways[w] is not None]
        own = max((w for w in known if system != "beta_vae" or w == "vector"), key=lambda w: ways[w] or 0.0, default="")
        for name, chosen in [
            (title(system), own),
            *([("LatentOps", "ode")] if system == "beta_vae" and "ode" in known else []),
        ]:
            accuracy = percent(r, f"edit_accuracy/sentiment/{chosen}")
            lines.append(
                [name, *(cell(r, m, d) for m, d in keys.items()), accuracy, *(cell(r, m, d) for m, d in way.items())]
            )
    everything = [r for records in of.values() for r in records]
    people = percent(everything, "edit_accuracy/sentiment/people")
    floors = [["" if m == "bleu" else cell(everything, FLOORS[m], d) for m, d in some.items()] for some in (keys, way)]
    lines.append(["*test sentences; rewrites by people*", *floors[0], people, *floors[1]])
    return markdown(["system", *COLUMNS], lines)


def mean_of(records: list[Record], metric: str) -> float | None:
    """The mean of a metric over seeds; None where it is not recorded."""
    values = [r.value for r in records if r.metric == metric]
    return sum(values) / len(values) if values else None


def percent(records: list[Record], metric: str) -> str:
    """A share in percent, as the paper has it."""
    value = mean_of(records, metric)
    return "" if value is None else f"{100 * value:.1f}"


def _trained(path: Path) -> dict[str, list[Record]]:
    """System -> its records, in the order of the family."""
    records = [r for r in read(path) if "studies.texts" in r.command]
    return {s: [r for r in records if r.system == s] for s in sorted({r.system for r in records}, key=by_family)}
