"""Small multiples of signals and vectors, and clouds of points in the plane: what grids are for images.

All panels of a figure share one scale. A panel's curves are shifted into place within a single axes, which draws a
hundred panels in a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from diled.evaluation.plots import SHORT, Theme, as_written, model_colour, render
from diled.evaluation.shown import Picture, Shown, array, has

if TYPE_CHECKING:
    from diled.config import DataSpec

__all__ = ["Layer", "Lines", "draw_panels", "draw_plane", "panel_size"]

GAP = 0.12
BARS_UP_TO = 48  # dimensions; longer vectors are drawn as lines
CHANNEL_ALPHA = (1.0, 0.6, 0.35)
LINE_HEIGHT = 0.32  # of a row's name, in panels

Layer = tuple[np.ndarray, str, str]
"""Examples (rows, columns, *shape), their colour, and `line`, `bar`, `ghost` (a pale wide line or bar) or `tick`."""


def panel_size(rows: int, columns: int, names: bool = False, width: float = SHORT) -> tuple[float, float]:
    """Inches for so many panels, each somewhat wider than high."""
    unit = width / (columns * (1 + GAP))
    return width, unit * rows * 0.68 * (1 + GAP + LINE_HEIGHT * names) + 0.1


def draw_panels(figure: Figure, layers: Sequence[Layer], theme: Theme, names: Sequence[str] = ()) -> None:
    """Panels in rows and columns; `names` are written above the rows they belong to, one name for each row."""
    figure.set_layout_engine("none")  # the panels lay themselves out
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    rows, columns = layers[0][0].shape[:2]
    values = np.concatenate([x[np.isfinite(x)].ravel() for x, _, _ in layers]) if layers else np.zeros(1)
    low, high = (float(values.min()), float(values.max())) if values.size else (-1.0, 1.0)
    bars = layers[0][0].ndim == 3 and layers[0][0].shape[-1] <= BARS_UP_TO
    if bars:
        low, high = min(low, 0.0), max(high, 0.0)
    low, high = (low - 1, high + 1) if high == low else (low, high)
    down = 1 + GAP + LINE_HEIGHT * bool(names)
    corners = [(c * (1 + GAP), -r * down) for r in range(rows) for c in range(columns)]
    box = np.array([(-0.02, -0.03), (1.02, -0.03), (1.02, 1.03), (-0.02, 1.03)])
    ax.add_collection(PolyCollection([box + p for p in corners], facecolors=theme.rule, alpha=0.45, linewidths=0))
    if low <= 0 <= high:
        zero = np.array([(0, -low / (high - low)), (1, -low / (high - low))])
        ax.add_collection(LineCollection([zero + p for p in corners], colors=theme.muted, linewidths=0.4))
    for x, colour, look in layers:
        flat = (x.reshape(rows * columns, *x.shape[2:]) - low) / (high - low)
        _draw_layer(ax, flat, -low / (high - low), corners, colour, look)
    for r, name in enumerate(names):
        ax.text(0, -r * down + 1.1, as_written(name), color=theme.muted, fontsize=9.5, va="bottom")
    ax.set_xlim(-0.03, columns * (1 + GAP) - GAP + 0.03)
    ax.set_ylim(-(rows - 1) * down - 0.06, 1.06 + LINE_HEIGHT * bool(names))


def _draw_layer(
    ax: Any, flat: np.ndarray, zero: float, corners: list[tuple[float, float]], colour: str, look: str
) -> None:
    """One layer of all panels; values are scaled to [0, 1] already."""
    ghost = look == "ghost"
    if flat.ndim == 3 or flat.shape[-1] > BARS_UP_TO:  # signals (n, C, L) and long vectors
        channels = flat[:, :3] if flat.ndim == 3 else flat[:, None]
        t = np.linspace(0, 1, channels.shape[-1])
        for c in range(channels.shape[1]):
            lines = [np.column_stack([t, y]) + p for y, p in zip(channels[:, c], corners, strict=True)]
            alpha = CHANNEL_ALPHA[c] * (0.35 if ghost else 1)
            ax.add_collection(LineCollection(lines, colors=colour, alpha=alpha, linewidths=3.2 if ghost else 1.1))
        return
    d = flat.shape[-1]
    left, right = (np.arange(d) + 0.12) / d, (np.arange(d) + 0.88) / d
    if look == "tick":
        ticks = [((a + px, y + py), (b + px, y + py)) for v, (px, py) in zip(flat, corners, strict=True)
                 for a, b, y in zip(left, right, v, strict=True)]  # fmt: skip
        ax.add_collection(LineCollection(ticks, colors=colour, linewidths=1.8))
        return
    boxes = [[(a + px, zero + py), (b + px, zero + py), (b + px, y + py), (a + px, y + py)]
             for v, (px, py) in zip(flat, corners, strict=True) for a, b, y in zip(left, right, v, strict=True)]  # fmt: skip
    ax.add_collection(PolyCollection(boxes, facecolors=colour, alpha=0.35 if ghost else 1, linewidths=0))


def draw_plane(
    figure: Figure,
    theme: Theme,
    clouds: Sequence[tuple[np.ndarray, str]],
    pairs: tuple[np.ndarray, np.ndarray] | None = None,
    paths: tuple[np.ndarray, str] | None = None,
) -> None:
    """Points in the plane.

    Args:
        figure: where to draw.
        theme: the page's colours.
        clouds: (n, 2) points and their colour, the first one behind.
        pairs: starts and ends (m, 2) of thin lines, such as originals and reconstructions.
        paths: (rows, steps, 2) points to be joined, and their colour.
    """
    ax = figure.subplots()
    for points, colour in clouds:
        _scatter(ax, points, colour)
    if pairs is not None:
        lines = LineCollection(list(np.stack(pairs, axis=1)), colors=theme.ink, linewidths=0.6, alpha=0.6, zorder=1)
        ax.add_collection(lines)
    if paths is not None:
        ax.add_collection(LineCollection(list(paths[0]), colors=paths[1], linewidths=1.1))
        ax.scatter(paths[0][..., 0].ravel(), paths[0][..., 1].ravel(), s=7, color=paths[1], linewidths=0)
        ax.autoscale_view()
    _plain(ax, theme)


def _scatter(ax: Any, points: np.ndarray, colour: str) -> None:
    size = float(np.clip(5000 / max(len(points), 1), 3, 14))
    ax.scatter(points[:, 0], points[:, 1], s=size, color=colour, linewidths=0, alpha=0.75)


def _plain(ax: Any, theme: Theme) -> None:
    """Axes of a plane: equal units, a quiet grid, no frame."""
    ax.set_aspect("equal", adjustable="box")
    ax.locator_params(nbins=5)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.grid(color=theme.rule, lw=0.7)
    ax.set_axisbelow(True)


class Lines:
    """Small multiples of signals and vectors, or clouds for points in the plane."""

    def __init__(self, spec: DataSpec, index: int) -> None:
        self.spec, self.index = spec, index
        self.plane = spec.kind == "vector" and spec.shape == (2,)
        self.signal = spec.kind == "signal"
        self.what = "signals" if self.signal else "points" if self.plane else "vectors"
        self.remark = "" if self.plane else " All panels share one scale."
        if self.signal and spec.shape[0] > 3:
            self.remark += f" The first three of {spec.shape[0]} channels are shown."
        self.look = "line" if self.signal else "bar"

    def _draw(
        self, draw: Callable[[Any, Theme], None], size: tuple[float, float], *text: str, wide: bool = False
    ) -> Picture:
        file, title, caption, alt = text
        return Picture(file, title, caption + self.remark, alt, *render(draw, size), wide=wide)

    def _colour(self, theme: Theme, index: int | None = None) -> str:
        index = self.index if index is None else index
        return theme.muted if index < 0 else model_colour(index, theme)

    def samples(self, s: Shown, file: str) -> Picture:
        """Draws from the model."""
        x = array(s.samples)
        alt = f"{self.what.capitalize()} drawn from {s.name}"
        if self.plane:
            size = (SHORT, SHORT * 0.8)
            real = s.originals if has(s.originals) else x[:0]
            caption = f"{len(x):,} draws from the model" + (", over held-out points in grey." if has(real) else ".")

            def plane(f: Any, t: Theme) -> None:
                draw_plane(f, t, [(array(real), t.muted), (x, self._colour(t))])

            return self._draw(plane, size, file, "Samples", caption, alt)
        block = _block(x, 6, 4)
        n = block.shape[0] * block.shape[1]
        size = panel_size(*block.shape[:2])
        return self._draw(
            lambda f, t: draw_panels(f, [(block, self._colour(t), self.look)], t),
            size, file, "Samples", f"{n} draws from the model.", alt,
        )  # fmt: skip

    def reconstructions(self, s: Shown, file: str) -> Picture:
        """Held-out examples and their reconstructions in the same panels."""
        x, y = array(s.originals), array(s.reconstructions)
        x, y = x[: len(y)], y[: len(x)]
        alt = f"Held-out {self.what} and their reconstructions by {s.name}"
        if self.plane:
            return self._draw(
                lambda f, t: draw_plane(f, t, [(x, t.muted), (y, self._colour(t))], pairs=(x, y)),
                (SHORT, SHORT * 0.8), file, "Reconstructions",
                f"{len(x):,} held-out points in grey, joined to their reconstructions.", alt,
            )  # fmt: skip
        a, b = _block(x, 6, 4), _block(y, 6, 4)
        look = "line" if self.signal else "tick"
        return self._draw(
            lambda f, t: draw_panels(f, [(a, t.muted, "ghost"), (b, self._colour(t), look)], t),
            panel_size(*a.shape[:2]), file, "Reconstructions",
            f"{a.shape[0] * a.shape[1]} held-out {self.what} in grey, what the decoder makes of their codes in colour.", alt,
        )  # fmt: skip

    def interpolations(self, s: Shown, file: str) -> Picture:
        """What the decoder makes of codes between the codes of two examples."""
        path = array(s.interpolations)[:8]
        ends = array(s.interpolation_ends)[: len(path)] if has(s.interpolation_ends) else None
        alt = f"{self.what.capitalize()} that change from one into another, decoded by {s.name}"
        caption = f"{path.shape[1]} steps from one code to another."
        if self.plane:
            real = array(s.originals) if has(s.originals) else path[0, :0]
            return self._draw(
                lambda f, t: draw_plane(f, t, [(real, t.rule)], paths=(path, self._colour(t))),
                (SHORT, SHORT * 0.8), file, "Interpolations", caption, alt,
            )  # fmt: skip
        if ends is not None:
            caption += " In grey at both sides, the originals."

        def draw(f: Any, t: Theme) -> None:
            layers = [(path, self._colour(t), self.look)]
            if ends is not None:
                beyond = np.full_like(path, np.nan)
                beyond[:, 0], beyond[:, -1] = ends[:, 0], ends[:, 1]
                layers.insert(0, (beyond, t.muted, "ghost"))
            draw_panels(f, layers, t)

        size = panel_size(path.shape[0], path.shape[1], width=2 * SHORT)
        return self._draw(draw, size, file, "Interpolations", caption, alt, wide=True)

    def overview(self, blocks: Sequence[tuple[str, np.ndarray, int]], file: str, title: str, caption: str) -> Picture:
        """Rows of named examples; the number is the place of a model, -1 for data."""
        names = [name for name, _, _ in blocks]
        if self.plane:
            return self._planes(blocks, file, title, caption, f"Clouds of points: {', '.join(names)}")
        alt = f"Rows of {self.what}: {', '.join(names)}"
        columns = min(10, *(len(x) for _, x, _ in blocks))

        def draw(f: Any, t: Theme) -> None:
            layers = []
            for r, (_, x, index) in enumerate(blocks):
                layer = np.full((len(blocks), columns, *x.shape[1:]), np.nan)
                layer[r] = x[:columns]
                layers.append((layer, self._colour(t, index), self.look))
            draw_panels(f, layers, t, names)

        size = panel_size(len(blocks), columns, names=True, width=2 * SHORT)
        return self._draw(draw, size, file, title, caption, alt, wide=True)

    def _planes(self, blocks: Sequence[tuple[str, np.ndarray, int]], *text: str) -> Picture:
        """One cloud beside the other, four in a row."""
        columns = min(4, len(blocks))
        rows = -(-len(blocks) // columns)

        def draw(f: Any, t: Theme) -> None:
            panels = f.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
            for ax in panels[len(blocks) :]:
                ax.set_visible(False)
            for ax, (name, x, index) in zip(panels, blocks, strict=False):
                _scatter(ax, x, self._colour(t, index))
                _plain(ax, t)
                ax.set_title(as_written(name), fontsize=9.5, color=t.muted, loc="left")

        size = (2 * SHORT, 2 * SHORT / columns * rows)
        return self._draw(draw, size, *text, wide=True)


def _block(x: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """The first examples as (rows, columns, *shape), with no row left unfinished."""
    n = min(len(x), columns * rows)
    columns = min(columns, n)
    return x[: n - n % columns].reshape(-1, columns, *x.shape[1:])
