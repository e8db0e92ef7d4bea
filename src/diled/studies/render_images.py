"""Tables of a layout of their own: the image table (Liu et al. 2024), a row for each system and T; the scale of codes."""

from __future__ import annotations

from pathlib import Path

from diled.studies.records import Record, read
from diled.studies.render import by_family, cell, markdown, seconds, title

__all__ = ["images", "latent_scale"]

PICTURES = {
    "frechet_samples": "generation",
    "frechet_reconstructions/random": "reconstruction, random x_T",
    "frechet_reconstructions/inverted": "reconstruction, inverted x_T",
    "frechet_midpoints/0.2": "midpoints 0.2",
    "frechet_midpoints/0.4": "midpoints 0.4",
}
"""Metric, less its `/T=..` -> heading."""


def images(path: Path) -> str:
    """Generation, reconstruction and midpoints at each T, then what does not depend on T; a sentence where nothing is."""
    records = read(path)
    if not records:
        return "Nothing is recorded yet."
    systems = sorted({r.system for r in records}, key=by_family)
    lines = []
    for system in systems:
        mine = [r for r in records if r.system == system]
        for steps in sorted({int(r.metric.rpartition("/T=")[2]) for r in mine if "/T=" in r.metric}):
            lines.append([title(system), str(steps), *(cell(mine, f"{name}/T={steps}") for name in PICTURES)])
    floor = list({r.seed: r for r in records if r.metric == "frechet_floor"}.values())
    if floor:
        lines.append(["*real data*", "", cell(floor, "frechet_floor"), *[""] * (len(PICTURES) - 1)])
    pictures = markdown(["system", "T", *PICTURES.values()], lines)
    return f"{pictures}\n\n{_whatever_the_steps(records, systems)}"


def _whatever_the_steps(records: list[Record], systems: list[str]) -> str:
    columns = {
        "bound_nats": "bound",
        "rate_nats": "rate",
        "distortion_nats": "distortion",
        "reconstruction_mse": "MSE",
        "parameters": "parameters",
        "cpu_seconds": "CPU s",
    }
    lines = []
    for system in systems:
        mine = [r for r in records if r.system == system]
        cells = [seconds(system, records) if name == "cpu_seconds" else cell(mine, name) for name in columns]
        lines.append([title(system), str(len({r.seed for r in mine})), *cells])
    return markdown(["system", "seeds", *columns.values()], lines)


def latent_scale(path: Path) -> str:
    """The noise error and the terms of the bound at each scale of the codes (`studies.latent_scale`)."""
    found = {r.metric: r.value for r in read(path)}
    if not found:
        return "Nothing is recorded yet."
    scales = sorted({float(metric.rpartition("=")[2]) for metric in found})
    lines = []
    for scale in scales:
        error, path_nats, last = (
            found[f"{name}/scale={scale:g}"] for name in ("unweighted_error", "path_nats", "terminal_nats")
        )
        lines.append([f"{scale:g}", f"{error:.3f}", f"{path_nats:.1f}", f"{last:.1f}", f"{path_nats + last:.1f}"])
    return markdown(["scale", "unweighted error, per dimension", "E_1, nats", "K_1, nats", "E_1 + K_1"], lines)
