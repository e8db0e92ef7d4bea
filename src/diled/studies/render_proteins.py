"""Tables of proteins: models, property regression in and out of distribution, and designs."""

from __future__ import annotations

from pathlib import Path

from diled.studies.records import Record, mean_and_spread, read
from diled.studies.render import by_family, markdown, title

__all__ = ["cell", "designs", "proteins", "seeds_of"]

MODELS = {
    "nats_per_residue": ("nats per residue", 3),
    "bound_nats": ("bound", 1),
    "rate_nats": ("rate", 1),
    "distortion_nats": ("distortion", 1),
    "residue_accuracy": ("residues", 3),
    "sequence_accuracy": ("sequences", 3),
    "position_error": ("positions", 3),
    "coupling_error": ("couplings", 3),
    "frechet_samples": ("samples", 2),
    "unique": ("unique", 3),
    "novel": ("novel", 3),
    "nearest_training": ("nearest", 2),
    "parameters": ("parameters", 0),
    "cpu_seconds": ("CPU s", 0),
}
"""Metric -> heading and decimals. `residues` and `sequences` are shares that are reconstructed; `positions` and `couplings` are
errors of samples, `samples` a Frechet distance, `nearest` the mean distance of samples from the training sequences."""
FLOORS = {"position_error": "position_error/floor", "coupling_error": "coupling_error/floor",
          "frechet_samples": "frechet_floor", "unique": "unique/floor",
          "nearest_training": "nearest_training/floor"}  # fmt: skip
"""What real sequences reach in it."""
ERRORS = {"mse": "MSE", "mae": "MAE", "pearson": "Pearson", "spearman": "Spearman"}
SUFFIXES = {"": "", "/shifted": ", shifted", "/probe": ", from codes"}
"""Of regression: by the head in distribution, by the head on the shifted test file, by a ridge regression on codes."""
SCORES = ("measured_fitness", "oracle_fitness")
METHODS = (
    "ascent",
    "hill",
    "stochastic_hill",
    "mcmc",
    "cycle",
    "ode",
    "evolution",
    "guidance",
    "additive",
    "percentile99",
)


def proteins(path: Path) -> str:
    """What each model reaches, and how well it predicts the property; a sentence where nothing is recorded."""
    records = read(path)
    trained = [r for r in records if "studies.proteins" in r.command]
    if not trained:
        return "Nothing is recorded yet."
    systems = sorted({r.system for r in trained}, key=by_family)
    of = {system: [r for r in trained if r.system == system] for system in systems}
    lines = [
        [title(s), seeds_of(of[s]), *(cell(of[s], m, digits) for m, (_, digits) in MODELS.items())] for s in systems
    ]
    lines.append(["*real sequences*", "", *(cell(trained, FLOORS.get(m, ""), d) for m, (_, d) in MODELS.items())])
    tables = [markdown(["system", "seeds", *(heading for heading, _ in MODELS.values())], lines)]
    columns = sorted({r.metric.split("/")[1] for r in trained if r.metric.startswith("mse/")})
    for column in columns:
        heads = [f"{name}{said}" for said in SUFFIXES.values() for name in ERRORS.values()]
        rows = [
            [title(s), *(cell(of[s], f"{m}/{column}{end}", 3) for end in SUFFIXES for m in ERRORS),
             cell(of[s], f"zero_shot_spearman/{column}", 3)]
            for s in systems
        ]  # fmt: skip
        wanted = [row for row in rows if any(row[1:])]
        tables.append(f"Prediction of `{column}`:\n\n" + markdown(["system", *heads, "zero-shot Spearman"], wanted))
    return "\n\n".join(tables)


def designs(path: Path) -> str:
    """Mean judged value of the designs of each model by each way to climb."""
    records = [r for r in read(path) if "studies.designs" in r.command]
    if not records:
        return "Nothing is recorded yet."
    name = next(n for n in SCORES if any(r.metric.startswith(f"{n}/") for r in records))
    there = [m for m in METHODS if any(r.metric == f"{name}/{m}" for r in records)]
    systems = sorted({r.system for r in records}, key=by_family)
    lines = []
    for system in systems:
        mine = [r for r in records if r.system == system]
        lines.append([title(system), seeds_of(mine), *(cell(mine, f"{name}/{m}", 2) for m in there)])
    notes = sorted({r.note for r in records if r.metric.startswith(f"{name}/") and r.note})
    said = f"\n\nJudge: {notes[0]}." if notes else ""
    return markdown(["system", "seeds", *there], lines) + said


def seeds_of(records: list[Record]) -> str:
    """How many seeds these records have."""
    return str(len({r.seed for r in records}))


def cell(records: list[Record], metric: str, digits: int) -> str:
    """Mean over seeds and its standard deviation; nothing where there is none."""
    if metric in ("parameters", "cpu_seconds"):
        found = [getattr(r, metric) for r in {r.seed: r for r in records}.values()]
        values = [value for value in found if value is not None]
        return f"{sum(values) / len(values):,.0f}" if values else ""
    mine = list({r.seed: r for r in records if r.metric == metric}.values())
    if not mine:
        return ""
    mean, spread, _ = mean_and_spread(mine)
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread is not None else "")
