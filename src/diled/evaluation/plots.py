"""How figures of the report are drawn: colours, the conversion to PNG, and the map of the codes.

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
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

__all__ = [
    "DARK",
    "LIGHT",
    "MODELS",
    "SHORT",
    "TERMS",
    "Theme",
    "as_written",
    "draw_codes",
    "is_property",
    "model_colour",
    "render",
    "shortened",
]


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
        canvas = FigureCanvasAgg(figure)
        draw(figure, theme)
        figure.draw_without_rendering()  # titles find their place while drawing, and the layout needs to know it
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    # A palette makes the file three times smaller, and nobody sees the difference in a drawing.
    drawn = Image.fromarray(pixels).quantize(255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    drawn.save(buffer, format="PNG")
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
    dots: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.85}
    if labels is None:
        ax.scatter(places[:, 0], places[:, 1], color=theme.muted, **dots)
    elif is_property(labels, names):
        known = np.isfinite(labels)
        ax.scatter(places[~known, 0], places[~known, 1], color=theme.rule, **dots)
        low, high = np.percentile(labels[known], [1, 99])
        ends = [(0.0, 0.92), (0.25, 1.0)][theme.index]  # neither end of the scale may vanish in the page
        shades = ListedColormap(matplotlib.colormaps["cividis"](np.linspace(*ends, 256)))
        look = {"c": labels[known], "cmap": shades, "vmin": low, "vmax": high, **dots}
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
        words.append(shortened(names[c] if c < len(names) else str(c)))
        _name_cluster(ax, theme, places, labels == c, words[-1])
    if rest.any():
        more = len(found) - len(shown)
        handles.append(grey)
        words.append(f"{more} more classes" if more > 0 else "no label")
    longest = max(map(len, words), default=1)
    columns = int(np.clip(60 // (longest + 4), 1, 5))
    if len(words) > columns:  # equal rows look calmer than a full one and a rest
        columns = math.ceil(len(words) / math.ceil(len(words) / columns))
    order = [i for c in range(columns) for i in range(c, len(words), columns)]  # read along rows; legends fill columns
    handles, words = [handles[i] for i in order], [words[i] for i in order]
    figure.legend(
        handles, words, loc="outside lower center", ncols=columns, handletextpad=0.1, scatterpoints=1,
        markerscale=math.sqrt(28 / dots["s"]),
    )  # fmt: skip


def _name_cluster(ax: Any, theme: Theme, places: np.ndarray, own: np.ndarray, word: str) -> None:
    """The class's name on its middle point, for eyes that do not tell the colours apart; nothing where classes mix."""
    centre = places[own][np.square(places[own] - np.median(places[own], axis=0)).sum(1).argmin()]
    near = np.argsort(np.square(places - centre).sum(1))[:12]
    if own[near].mean() < 0.6:
        return
    halo = withStroke(linewidth=2.4, foreground=theme.face, alpha=0.85)
    ax.annotate(word, centre, ha="center", va="center", fontsize=8.5, color=theme.ink, path_effects=[halo], zorder=5)


def shortened(name: str) -> str:
    """The name, cut where it would crowd out the drawing."""
    return as_written(name if len(name) <= 22 else name[:21] + "…")


def as_written(name: str) -> str:
    """The name as matplotlib shows it unchanged: between dollars it reads formulas, and after `_` it hides it from legends."""
    return f" {name}".replace("$", r"\$") if name.startswith("_") else name.replace("$", r"\$")
