"""Latent maps coloured by a property, side by side, with a number for how smooth it is over the codes.

    python -m diled.studies.latent_map gifford enrichment --only relso diled --out docs/images/gifford-latent.png

Codes of test sequences of the trained rows of a study, on their first two principal components. `label_smoothness/Y` is 1 where
the nearest neighbours of a code agree in the property, and 0 where they are like random ones; it is measured in all dimensions.

Reference: Liu et al. 2024, Figure 6.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from diled.errors import ConfigError, did_you_mean
from diled.evaluation.audit_sequences import label_smoothness
from diled.studies.commands import as_records, exit_code, made_here, record_options, refuse_uncommitted, training_of
from diled.studies.records import add
from diled.studies.table import data_key, rows, run_row, system

__all__ = ["draw", "main"]

SHOWN = 3000
"""Test sequences on the map."""


def draw(maps: dict[str, tuple[np.ndarray, np.ndarray, float]], column: str, out: Path) -> None:
    """Draw the maps beside each other.

    Args:
        maps: title -> places (n, 2), values (n,), smoothness.
        column: what the colour is.
        out: a .png file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(maps), figsize=(4.6 * len(maps) + 1, 4.4), squeeze=False, layout="constrained"
    )
    values = np.concatenate([y for _, y, _ in maps.values()])
    low, high = np.percentile(values, (2, 98))
    for axis, (title, (places, y, smooth)) in zip(axes[0], maps.items(), strict=True):
        order = np.argsort(y)
        shown = axis.scatter(*places[order].T, c=y[order], s=5, cmap="viridis", vmin=low, vmax=high, linewidths=0)
        axis.set(title=f"{title}\nsmoothness {smooth:.2f}", xticks=[], yticks=[], xlabel="PC 1", ylabel="PC 2")
    figure.colorbar(shown, ax=axes[0], label=column)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Draw and record from the command line."""
    parser = argparse.ArgumentParser(prog="python -m diled.studies.latent_map", description="Latent maps by property.")
    parser.add_argument("study")
    parser.add_argument("column")
    parser.add_argument("--only", nargs="+", default=["relso", "diled"], help="rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    record_options(parser)
    return exit_code(lambda: _run(parser.parse_args(argv)))


def _run(chosen: argparse.Namespace) -> None:
    if not chosen.trial:
        refuse_uncommitted()
    available = rows(chosen.study)
    maps = {}
    for row in chosen.only:
        if row not in available:
            raise ConfigError(f"{chosen.study} has no row '{row}'.{did_you_mean(row, available)}")
        model, data = run_row(chosen.study, row, chosen.seed, chosen.runs / chosen.study, {})
        if chosen.column not in data.test.labels:
            raise ConfigError(f"There is no property '{chosen.column}'.{did_you_mean(chosen.column, data.test.labels)}")
        y = data.test.labels[chosen.column]
        kept = np.flatnonzero(np.isfinite(y))[:SHOWN]
        codes, y = model.encode(data.test.values[kept]), y[kept]
        smooth = label_smoothness(codes, y)
        assert smooth.value is not None
        u, s, _ = np.linalg.svd(codes - codes.mean(0), full_matrices=False)
        title = model.config.row.title if model.config is not None else row
        maps[title] = (u[:, :2] * s[:2], y, smooth.value)
        print(f"{row}: label_smoothness/{chosen.column} {smooth.value:.3f}", flush=True)
        if not chosen.trial:
            command = (
                f"python -m diled.studies.latent_map {chosen.study} {chosen.column} --only {row} --seed {chosen.seed}"
            )
            found = {f"label_smoothness/{chosen.column}": smooth}
            shared = {"study": chosen.study, "data": data_key(data), "system": system(row), "seed": chosen.seed}
            made = training_of({**model.provenance, "parameters": model.parameters})
            add(
                chosen.results / f"{chosen.study}.json",
                as_records(found, **shared, **made, **made_here(), command=command),
            )
    draw(maps, chosen.column, chosen.out)


if __name__ == "__main__":
    sys.exit(main())
