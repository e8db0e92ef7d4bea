"""How far DiLED is ahead of the VAE and of the best LDM of a table, with t-intervals over seeds, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

from diled.studies.records import read
from diled.studies.render import markdown, spent, title

__all__ = ["interval", "targets"]

OURS = "diled"

METRICS = {
    "bound_nats": "bound, nats",
    "frechet_samples": "samples",
    "frechet_reconstructions": "reconstructions",
    "cpu_seconds": "CPU time, s",
}
"""Metric -> heading; `cpu_seconds` are those of `spent`. Bounds are compared by differences, the rest by ratios."""

Values = dict[tuple[str, str], dict[int, float]]
"""(system, metric) -> seed -> value."""


def targets(path: Path) -> str:
    """DiLED against the VAE and the best LDM at equal steps, then at twice as many of theirs; a sentence where nothing is.

    Differences and ratios are taken within a seed and then averaged. The best LDM is the row with the best mean in that
    metric, chosen on the figures that are shown, which favours the LDM.
    """
    values: Values = {}
    records = read(path)
    for r in records:
        values.setdefault((r.system, r.metric), {})[r.seed] = r.value
    systems = {system for system, _ in values}
    for system in systems & {s for s, metric in values if metric == "bound_nats"}:
        values[system, "cpu_seconds"] = spent(system, records)
    ldm = {s for s in systems if s.partition("/")[0] == "ldm"}
    longer = {s for s in ldm if s.endswith("2N")}
    lines = []
    for against, rivals in (
        ("VAE", {"vae"}),
        ("best LDM", ldm - longer),
        ("VAE, twice the steps", {"vae/2N"}),
        ("best LDM, twice the steps", longer),
    ):
        for metric, heading in METRICS.items():
            if metric == "cpu_seconds" and len(rivals) > 1:
                continue  # the fastest is nobody's rival
            line = _line(values, metric, rivals)
            if line:
                lines.append([against, heading, *line])
    head = ["DiLED against", "in", "DiLED", "the other", "difference or ratio", "95 % interval", "seeds"]
    return markdown(head, lines) if lines else "Nothing is recorded yet."


def interval(values: list[float]) -> tuple[float, float] | None:
    """The 95 % t-interval of a mean; None of a single value."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def _line(values: Values, metric: str, rivals: set[str]) -> list[str] | None:
    """Both means, how they compare, the interval and the seeds; None where no rival shares a seed with DiLED."""
    ours = values.get((OURS, metric), {})
    shared = {s: [k for k in sorted(ours) if k in values.get((s, metric), {})] for s in sorted(rivals)}
    shared = {s: seeds for s, seeds in shared.items() if seeds}
    if not shared:
        return None
    rival = min(shared, key=lambda s: fmean(values[s, metric][k] for k in shared[s]))
    pairs = [(ours[k], values[rival, metric][k]) for k in shared[rival]]
    differs = metric == "bound_nats"
    compared = [theirs - mine if differs else mine / theirs for mine, theirs in pairs]
    shown: Callable[[float], str] = (lambda v: f"{v:+.2f}") if differs else (lambda v: f"{v:.3f}")
    found = interval(compared)
    name = "" if rivals <= {"vae", "vae/2N"} else f" ({title(rival)})"
    return [
        f"{fmean(mine for mine, _ in pairs):.1f}",
        f"{fmean(theirs for _, theirs in pairs):.1f}{name}",
        shown(fmean(compared)),
        "–" if found is None else f"{shown(found[0])} to {shown(found[1])}",
        str(len(pairs)),
    ]
