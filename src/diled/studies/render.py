"""Tables in Markdown from the records under `results/`. `make docs` writes them into the README and the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diled.family import FAMILY
from diled.studies.records import Record, mean_and_spread, read

__all__ = ["comparison", "provenance_line", "speed"]

COLUMNS = {
    "bound_nats": "bound",
    "rate_nats": "rate",
    "distortion_nats": "distortion",
    "frechet_samples": "samples",
    "frechet_reconstructions": "reconstructions",
    "frechet_midpoints/0.4": "midpoints",
    "reconstruction_mse": "MSE",
    "probe_accuracy": "probe",
    "cpu_seconds": "CPU s",
}
"""Metric -> heading; `cpu_seconds` is a field of every record."""

DIGITS = {"reconstruction_mse": 4, "probe_accuracy": 3, "cpu_seconds": 0}
"""Decimals; one where nothing is said."""


def comparison(path: Path, columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """Systems by metrics, mean ± standard deviation over seeds, with a row of floors."""
    records = read(path)
    systems = sorted({r.system for r in records}, key=_order)
    head = ["system", "seeds", *(COLUMNS[c] for c in columns)]
    lines = []
    for system in systems:
        mine = [r for r in records if r.system == system]
        seeds = len({r.seed for r in mine})
        lines.append([_title(system), str(seeds), *(_cell(mine, column) for column in columns)])
    floor = {r.seed: r for r in records if r.metric == "frechet_floor"}
    ceiling = {r.seed: r for r in records if r.metric == "frechet_pixel_midpoints/0.4"}
    if floor:
        row = dict.fromkeys(columns, "")
        row["frechet_samples"] = _cell(list(floor.values()), "frechet_floor")
        row["frechet_midpoints/0.4"] = _cell(list(ceiling.values()), "frechet_pixel_midpoints/0.4")
        lines.append(["*real data; mixed pixels*", "", *(row[c] for c in columns)])
    return _markdown(head, lines)


def speed(path: Path) -> str:
    """Ratios, memory and start-up, one line each."""
    names = {
        "throughput_ratio": "training steps per CPU-second, relative to a bare loop",
        "sampling_ratio": "samples per CPU-second, relative to a bare loop",
        "peak_memory_mib/ours": "peak memory of training, MiB",
        "peak_memory_mib/bare": "peak memory of the bare loop, MiB",
        "startup_seconds": "`diled --help`, s",
    }
    lines = [
        [names[r.metric], "" if r.data == "none" else r.data, f"{r.value:.0f}" if r.value > 10 else f"{r.value:.3f}"]
        for r in sorted(read(path), key=lambda r: (list(names).index(r.metric), r.data != "mnist"))
    ]
    return _markdown(["what", "data", "value"], lines)


def provenance_line(path: Path) -> str:
    """Commits, hardware and command behind a file of records, in one sentence."""
    records = read(path)
    commits = ", ".join(sorted({r.commit for r in records}))
    machines = "; ".join(sorted({r.hardware for r in records}))
    return f"`results/{path.name}`: {len(records)} records, commit {commits}, {machines}."


def _cell(records: list[Record], metric: str) -> str:
    chosen = [r for r in records if r.metric == ("bound_nats" if metric == "cpu_seconds" else metric)]
    if not chosen:
        return "–"
    decimals = DIGITS.get(metric, 1)
    if metric == "cpu_seconds":
        values = [r.cpu_seconds for r in chosen if r.cpu_seconds is not None]
        return f"{sum(values) / len(values):.0f}" if values else "–"
    mean, spread, _ = mean_and_spread(chosen)
    return f"{mean:.{decimals}f}" + ("" if spread is None else f" ± {spread:.{decimals}f}")


def _order(system: str) -> tuple[int, str]:
    name = system.split("/")[0]
    return (list(FAMILY).index(name) if name in FAMILY else len(FAMILY), system)


def _title(system: str) -> str:
    name, _, variant = system.partition("/")
    title = FAMILY[name].row.title if name in FAMILY else name
    return f"{title}, {variant}" if variant else title


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
