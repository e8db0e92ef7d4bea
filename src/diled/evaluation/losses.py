"""Training curves from the lines of `log.jsonl`, by term, in nats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diled.evaluation.plots import TERMS, Theme, as_written, shortened

__all__ = ["draw_losses", "has_curves", "same_terms"]

TOTAL, BOUND, LOSS = "total", "validation bound", "validation loss"


@dataclass
class _Curves:
    """A log as lines over the steps of all stages, one after the other."""

    lines: dict[str, list[tuple[np.ndarray, np.ndarray]]]
    starts: list[tuple[str, float]]
    end: float


def same_terms(logs: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """The terms of all logs in order of appearance, so that a term keeps its colour from model to model."""
    return list(dict.fromkeys(name for log in logs for record in log for name in record.get("terms") or {}))


def _curves(log: Sequence[dict[str, Any]]) -> _Curves:
    stages: dict[str, list[dict[str, Any]]] = {}
    for record in log:
        stages.setdefault(str(record.get("stage", "")), []).append(record)
    curves, offset = _Curves({}, [], 0.0), 0.0
    for stage, records in stages.items():
        curves.starts.append((stage, offset))
        points: dict[str, list[tuple[float, float]]] = {}
        for record in records:
            step, terms, seen = record.get("step", 0), record.get("terms") or {}, record.get("validation") or {}
            new = dict(terms)
            if "loss" in record and len(terms) != 1:
                new[TOTAL] = record["loss"]
            if "bound" in seen or "loss" in seen:
                new[BOUND if "bound" in seen else LOSS] = seen.get("bound", seen.get("loss"))
            for name, value in new.items():
                points.setdefault(name, []).append((offset + step, math.nan if value is None else float(value)))
        for name, pairs in points.items():
            x, y = np.array(sorted(pairs, key=lambda p: p[0])).T
            curves.lines.setdefault(name, []).append((x, y))
        offset += max((float(r.get("step", 0)) for r in records), default=0.0)
    curves.end = offset
    return curves


def has_curves(log: Sequence[dict[str, Any]]) -> bool:
    """Whether a log holds anything to draw."""
    return bool(_curves(log).lines)


def draw_losses(figure: Figure, theme: Theme, log: Sequence[dict[str, Any]], terms: Sequence[str]) -> None:
    """Training curves by term in nats; stages side by side, and what was seen on held-out data dotted."""
    curves = _curves(log)
    ax = figure.subplots()
    colours = {name: TERMS[terms.index(name) % len(TERMS)][theme.index] for name in terms}
    order = sorted(curves.lines, key=lambda n: (n in (BOUND, LOSS), n == TOTAL, terms.index(n) if n in terms else 0))
    for name in order:
        held_out = name in (BOUND, LOSS)
        look: dict[str, Any] = {"color": colours.get(name, theme.ink), "lw": 1.3}
        if held_out:
            look = {"color": theme.ink, "ls": (0, (1, 1.8)), "lw": 1.4, "marker": "o", "ms": 2.6}
            look["markevery"] = max(1, sum(len(x) for x, _ in curves.lines[name]) // 12)
        for i, (x, y) in enumerate(curves.lines[name]):
            ax.plot(
                x, y, label=as_written(name.replace("_", " ")) if i == 0 else None, zorder=3 if held_out else 2, **look
            )
    _scale(ax, curves)  # before the formatters, which a new scale would replace
    ax.set(xlabel="step", ylabel="nats per example", xlim=(0, max(curves.end, 1) * 1.01))
    ax.grid(axis="y", color=theme.rule, lw=0.7)
    ax.set_axisbelow(True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}".replace("-", "−"))
    ax.locator_params(axis="x", nbins=5)
    if len(curves.starts) > 1:
        for i, (stage, start) in enumerate(curves.starts):
            if i:
                ax.axvline(start, color=theme.muted, lw=0.8)
            ax.annotate(
                shortened(stage.replace("_", " ")), (start, 1), (4, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", color=theme.muted, fontsize=8.5, va="bottom",
            )  # fmt: skip
    longest = max(len(n) for n in order)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2 if longest > 12 else 3)


def _scale(ax: Any, curves: _Curves) -> None:
    """Logarithmic where values are positive, and the terms or the course of one of them differ by orders; else linear.

    A linear axis ends where the values after the first twentieth of each stage do: what happens before is far out and
    would flatten everything else.
    """
    settled, everything, spans, last = [], [], [1.0], []
    for parts in curves.lines.values():
        for x, y in parts:
            finite = np.isfinite(y)
            everything.append(y[finite])
            late = y[finite & (x >= x[0] + 0.05 * (x[-1] - x[0]))]
            if len(late) and late.min() > 1e-4:
                spans.append(late.max() / late.min())
                last.append(late[-1])
            settled.append(late)
    late, whole = np.concatenate(settled), np.concatenate(everything)
    if not len(late):
        return
    if whole.min() > 1e-4 and (max(spans) > 30 or max(last) / min(last) > 50):
        ax.set_yscale("log")
        ax.set_ylim(late.min() / 1.25, min(whole.max(), late.max() * 3) * 1.25)
        return
    low, high = min(late.min(), 0.0), max(late.max(), 0.0)
    margin = 0.06 * (high - low) or 1.0
    ax.set_ylim(low - margin * (low < 0), high + margin * (high > 0))
