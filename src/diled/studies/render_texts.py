"""Tables of text: what each model reaches, edits, and the paper's columns beside ours."""

from __future__ import annotations

from pathlib import Path

from diled.studies.records import Record, read
from diled.studies.render import by_family, markdown, title
from diled.studies.render_proteins import cell, seeds_of

__all__ = ["edited", "texts", "texts_beside_the_paper"]

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
                                    "distinct_2", "unique", "copied", "interpolation_perplexity")}  # fmt: skip
"""What real texts reach in it."""
TASKS = ("sentiment", "sst2", "tense", "both")
EDITS = {"edit_accuracy": ("accuracy", 3), "edit_content": ("content", 1), "edit_reference": ("rewrites", 1),
         "edit_perplexity": ("perplexity", 1), "edit_strength": ("strength", 2)}  # fmt: skip
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
    """Edits of each model: each task by each way, at the strength that validation sentences chose."""
    lines = []
    for system, records in _trained(path).items():
        for task in TASKS:
            for way in ("vector", "ode"):
                found = [cell(records, f"{metric}/{task}/{way}", digits) for metric, (_, digits) in EDITS.items()]
                if any(found):
                    lines.append([title(system), task, way, *found])
    return markdown(["system", "task", "way", *(heading for heading, _ in EDITS.values())], lines) if lines else NOTHING


def texts_beside_the_paper(path: Path) -> str:
    """The seven columns of the paper's table: its numbers, then ours. Protocols differ, so columns compare within a half."""
    of = _trained(path)
    if not of:
        return NOTHING
    lines = [[f"{name} (paper)", *("" if v is None else f"{v:g}" for v in values)] for name, values in PAPER.items()]
    keys = {"bleu": 1, "sample_perplexity": 1, "mauve": 3, "distinct_2": 2}
    for system, r in of.items():
        accuracy = max((cell(r, f"edit_accuracy/sentiment/{way}", 3) for way in ("vector", "ode")), default="")
        way = [cell(r, "interpolation_perplexity", 1), cell(r, "interpolation_mauve", 3)]
        lines.append([title(system), *(cell(r, m, d) for m, d in keys.items()), accuracy, *way])
    return markdown(["system", *COLUMNS], lines)


def _trained(path: Path) -> dict[str, list[Record]]:
    """System -> its records, in the order of the family."""
    records = [r for r in read(path) if "studies.texts" in r.command]
    return {s: [r for r in records if r.system == s] for s in sorted({r.system for r in records}, key=by_family)}
