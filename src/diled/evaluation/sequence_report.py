"""What a report shows of sequences: text in place of pictures, and how often each symbol occurs at each position.

f_i(a) = share of sequences with symbol a at position i, of held-out data and of samples side by side
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from diled.config import DataSpec
from diled.data.proteins import sites_of
from diled.evaluation import plots
from diled.evaluation.figures import model_pictures
from diled.evaluation.sequences import frequencies
from diled.evaluation.shown import Picture, Shown, has

__all__ = ["block", "draw_frequencies", "frequency_picture", "sequence_pictures", "sequence_texts"]

LINES = 16
"""Sequences of a block."""
MANY = 40
"""Positions from which not all are named on the axis."""


def sequence_texts(s: Shown, spec: DataSpec) -> str:
    """Samples, reconstructions and interpolations of a model as figures of HTML; parts that are missing are left out."""
    blocks: list[tuple[str, str, list[str]]] = []
    if s.samples is not None and has(s.samples):
        blocks.append(("Samples", "Draws from the model.", sites_of(s.samples[:LINES], spec)))
    if s.originals is not None and s.reconstructions is not None and has(s.reconstructions):
        pairs = zip(
            sites_of(s.originals[: LINES // 2], spec), sites_of(s.reconstructions[: LINES // 2], spec), strict=False
        )
        lines = [line for real, made in pairs for line in (real, dotted(made, real), "")][:-1]
        said = "Held-out sequences, each above its reconstruction; a dot stands for the same symbol."
        blocks.append(("Reconstructions", said, lines))
    if s.interpolations is not None and has(s.interpolations):
        lines = [line for path in s.interpolations[:2] for line in (*sites_of(path, spec), "")][:-1]
        blocks.append(("Interpolations", f"{s.interpolations.shape[1]} steps from one code to another.", lines))
    return "".join(block(*one) for one in blocks)


def block(title: str, said: str, lines: Sequence[str]) -> str:
    """Lines of text as a figure of HTML."""
    return (
        f"\n<figure>\n<figcaption><h3>{title}</h3><p>{escape(said)}</p></figcaption>\n"
        f"<pre><code>{escape(chr(10).join(line or ' ' for line in lines))}</code></pre>\n</figure>"
    )


def dotted(text: str, reference: str) -> str:
    """A text with dots where it agrees with another."""
    same = zip(text, reference.ljust(len(text)), strict=False)
    return "".join("." if a == b else a for a, b in same) + "-" * (len(reference) - len(text))


def sequence_pictures(s: Shown, spec: DataSpec, stem: str, index: int, terms: Sequence[str]) -> list[Picture]:
    """Frequencies of a model, then its map of codes and training curves; see `figures.model_pictures`."""
    found = frequency_picture(s, spec, f"frequencies-{stem}.png", index)
    bare = replace(s, samples=None, originals=None, reconstructions=None, interpolations=None)
    return [*([found] if found else []), *model_pictures(bare, spec, stem, index, terms)]


def frequency_picture(s: Shown, spec: DataSpec, file: str, index: int) -> Picture | None:
    """Frequencies of held-out sequences and of samples; None where one of them is missing."""
    if s.originals is None or s.samples is None or not has(s.originals) or not has(s.samples):
        return None
    size = len(spec.symbols)
    both = [frequencies(np.asarray(x, np.int64), size) for x in (s.originals, s.samples)]
    wide = spec.numel > MANY
    caption = f"How often each symbol occurs at each position: {len(s.originals):,} held-out sequences above, "
    caption += f"{len(s.samples):,} samples below."
    inches = (plots.SHORT * (2 if wide else 1), plots.SHORT * 1.15)
    light, dark = plots.render(lambda figure, theme: draw_frequencies(figure, theme, both, spec, index), inches)
    alt = f"Symbol frequencies of held-out sequences and of samples of {s.name}"
    return Picture(file, "Position frequencies", caption, alt, light, dark, wide)


def draw_frequencies(
    figure: Figure, theme: plots.Theme, both: Sequence[np.ndarray], spec: DataSpec, index: int
) -> None:
    """Two maps of f_i(a), (L, V) each, with one scale of colours; symbols that never occur are left out."""
    seen = [a for a in range(len(spec.symbols)) if any(f[:, a].any() for f in both)]
    names = [spec.symbols[a] or "end" for a in seen]
    places = [site + 1 for site in spec.sites] or list(range(1, spec.numel + 1))
    top = max(float(f[:, seen].max()) for f in both)
    axes: Any = figure.subplots(2, 1, sharex=True)
    for ax, f, title, i in zip(axes, both, ("held-out data", "samples"), (None, index), strict=True):
        ink = theme.ink if i is None else plots.model_colour(i, theme)
        shades = LinearSegmentedColormap.from_list("shades", [theme.face, ink])
        ax.imshow(f[:, seen].T, cmap=shades, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
        ax.set_yticks(range(len(seen)), names, fontsize=min(9.0, 90 / len(seen) + 2))
        ax.tick_params(length=0)
        ax.set_title(title, fontsize=9.5, color=theme.muted, loc="left")
    step = max(1, len(places) // 20)
    axes[1].set_xticks(range(0, len(places), step), places[::step])
    axes[1].set_xlabel("position")
