"""The report's drawn figures: a map of the codes, and the training curves.

Each drawing is a function that fills a matplotlib `Figure` in the colours of a `Theme`; `render` runs it for light and
for dark pages. pyplot and its global state are not touched, and a user's own matplotlib style is set aside.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["DARK", "LIGHT", "Theme", "draw_codes", "draw_losses", "model_colour", "render", "same_terms"]


@dataclass(frozen=True)
class Theme:
    """Colours of a page; `index` chooses from the pairs below."""

    index: int
    face: str
    ink: str
    muted: str
    rule: str


LIGHT = Theme(0, "#ffffff", "#1b1d21", "#646b75", "#e3e6ea")
DARK = Theme(1, "#131518", "#e7e9ec", "#9aa2ad", "#2b3037")

# Pairs for light and dark pages. Okabe and Ito's colours for models, Tol's muted ones for terms (so that a term is never
# taken for a model), Petroff's ten for classes: all told apart with the common colour-vision deficiencies.
MODELS = [
    ("#0072b2", "#4aa8e0"), ("#d55e00", "#f0843a"), ("#009e73", "#2fc79b"), ("#b5588f", "#dd8dbb"),
    ("#b98700", "#e6b93c"), ("#3a97cc", "#86c9ef"), ("#7a5c3e", "#b8946f"), ("#6b6f76", "#a6abb3"),
]  # fmt: skip
TERMS = [
    ("#cc6677", "#e08c9a"), ("#44aa99", "#5cc7b5"), ("#4b3fa0", "#9a90ea"), ("#c2a23a", "#ddcc77"),
    ("#882255", "#cf6fa0"), ("#5fa8cf", "#88ccee"), ("#117733", "#5ab377"), ("#999933", "#c4c45e"),
]  # fmt: skip
CLASSES = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"]
DPI = 200
SHORT = 4.6  # inches; shown at some 440 CSS pixels beside another figure, or over the width of a phone


def model_colour(i: int, theme: Theme) -> str:
    """The colour of the i-th model, in figures and tables alike."""
    return MODELS[i % len(MODELS)][theme.index]


def render(draw: Callable[[Figure, Theme], Any], size: tuple[float, float]) -> tuple[bytes, bytes]:
    """A drawing as two PNG files, for light and for dark pages."""
    return _render(draw, size, LIGHT), _render(draw, size, DARK)


def _render(draw: Callable[[Figure, Theme], Any], size: tuple[float, float], theme: Theme) -> bytes:
    with _style(theme):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, theme)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _style(theme: Theme) -> Iterator[None]:
    """The house style, for the length of one drawing."""
    neutral = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith(("backend", "date.epoch"))}
    with matplotlib.rc_context(neutral):
        matplotlib.rcParams.update(
            {
                "font.size": 9.5,
                "axes.labelsize": 9.5,
                "xtick.labelsize": 9,
                "ytick.labelsize": 9,
                "legend.fontsize": 9,
                "legend.frameon": False,
                "legend.handlelength": 1.4,
                "legend.columnspacing": 1.4,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.linewidth": 0.8,
                "axes.edgecolor": theme.muted,
                "axes.labelcolor": theme.muted,
                "xtick.color": theme.muted,
                "ytick.color": theme.muted,
                "xtick.minor.visible": False,
                "text.color": theme.ink,
                "figure.facecolor": theme.face,
                "axes.facecolor": theme.face,
                "savefig.facecolor": theme.face,
                "lines.solid_capstyle": "round",
            }
        )
        yield


# --- codes -----------------------------------------------------------------------------------------------------------


def draw_codes(
    figure: Figure,
    theme: Theme,
    places: np.ndarray,
    labels: np.ndarray | None,
    names: Sequence[str],
    axes: tuple[str, str],
) -> None:
    """A map of codes: places (N, 2), coloured by class (with a legend) or by a real property (with a colour bar)."""
    ax = figure.subplots()
    ax.set_aspect("equal", adjustable="datalim")
    size = float(np.clip(9000 / len(places), 3, 16))
    dots: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.85, "rasterized": True}
    if labels is None:
        ax.scatter(places[:, 0], places[:, 1], color=theme.muted, **dots)
    elif is_property(labels, names):
        known = np.isfinite(labels)
        ax.scatter(places[~known, 0], places[~known, 1], color=theme.rule, **dots)
        low, high = np.percentile(labels[known], [1, 99]) if known.any() else (0.0, 1.0)
        look = {"c": labels[known], "cmap": "cividis", "vmin": low, "vmax": high, **dots}
        drawn = ax.scatter(places[known, 0], places[known, 1], **look)
        bar = figure.colorbar(drawn, ax=ax, shrink=0.7, aspect=24, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
    else:
        _draw_classes(figure, ax, theme, places, labels.astype(int), names, dots)
    ax.set_xlabel(axes[0])
    ax.set_ylabel(axes[1])
    if not any(axes):  # distances in a t-SNE map have no unit
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    else:
        ax.locator_params(nbins=5)


def is_property(labels: np.ndarray, names: Sequence[str]) -> bool:
    """Whether labels are real numbers rather than classes."""
    if names:
        return False
    return not np.issubdtype(labels.dtype, np.integer) or len(np.unique(labels)) > 20


def _draw_classes(
    figure: Figure,
    ax: Any,
    theme: Theme,
    places: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    dots: dict[str, Any],
) -> None:
    """The ten most frequent classes in colour, in the order of their index; all others in grey."""
    found, counts = np.unique(labels[labels >= 0], return_counts=True)
    shown = sorted(found[np.argsort(-counts, kind="stable")][: len(CLASSES)])
    rest = ~np.isin(labels, shown)
    handles, words = [], []
    if rest.any():
        grey = ax.scatter(places[rest, 0], places[rest, 1], color=theme.rule, **dots)
    for k, c in enumerate(shown):
        handles.append(ax.scatter(*places[labels == c].T, color=CLASSES[k], **dots))
        words.append(_shortened(names[c] if c < len(names) else str(c)))
    if rest.any():
        more = len(found) - len(shown)
        handles.append(grey)
        words.append(f"{more} more classes" if more > 0 else "no label")
    longest = max(map(len, words), default=1)
    columns = int(np.clip(52 // (longest + 5), 1, 5))
    if len(words) > columns:  # equal rows look calmer than a full one and a rest
        columns = math.ceil(len(words) / math.ceil(len(words) / columns))
    figure.legend(
        handles, words, loc="outside lower center", ncols=columns, handletextpad=0.1, scatterpoints=1,
        markerscale=math.sqrt(28 / dots["s"]),
    )  # fmt: skip


def _shortened(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"


# --- training curves ------------------------------------------------------------------------------------------------


@dataclass
class _Curves:
    """A log as lines over the steps of all stages, one after the other."""

    lines: dict[str, list[tuple[np.ndarray, np.ndarray]]]
    starts: list[tuple[str, float]]
    end: float


def same_terms(logs: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """The terms of all logs in order of appearance, so that a term keeps its colour from model to model."""
    return list(dict.fromkeys(name for log in logs for record in log for name in record.get("terms") or {}))


TOTAL, BOUND, LOSS = "total", "validation bound", "validation loss"


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
        for i, (x, y) in enumerate(curves.lines[name]):
            ax.plot(x, y, label=name.replace("_", " ") if i == 0 else None, zorder=3 if held_out else 2, **look)
    _scale(ax, curves)
    ax.set(xlabel="step", ylabel="nats per example", xlim=(0, max(curves.end, 1)))
    ax.grid(axis="y", color=theme.rule, lw=0.7)
    ax.set_axisbelow(True)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.locator_params(axis="x", nbins=5)
    if len(curves.starts) > 1:
        for i, (stage, start) in enumerate(curves.starts):
            if i:
                ax.axvline(start, color=theme.muted, lw=0.8)
            ax.annotate(
                _shortened(stage.replace("_", " ")), (start, 1), (4, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", color=theme.muted, fontsize=8.5, va="bottom",
            )  # fmt: skip
    longest = max(len(n) for n in order)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2 if longest > 12 else 3)


def _scale(ax: Any, curves: _Curves) -> None:
    """Logarithmic where every value is positive and they span much even after the start; else linear.

    A linear axis ends where the values after the first twentieth of each stage do: what happens before is far out and
    would flatten everything else.
    """
    settled, everything = [], []
    for parts in curves.lines.values():
        for x, y in parts:
            finite = np.isfinite(y)
            everything.append(y[finite])
            settled.append(y[finite & (x >= x[0] + 0.05 * (x[-1] - x[0]))])
    late, whole = np.concatenate(settled), np.concatenate(everything)
    if not len(late):
        return
    if whole.min() > 1e-4 and late.max() / late.min() > 30:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_ylim(late.min() / 1.25, min(whole.max(), late.max() * 3) * 1.25)
        return
    low, high = min(late.min(), 0.0), max(late.max(), 0.0)
    margin = 0.06 * (high - low) or 1.0
    ax.set_ylim(low - margin * (low < 0), high + margin * (high > 0))
