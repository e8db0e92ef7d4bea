"""What a report shows of text: samples, reconstructions and interpolations as they read, and how long texts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diled.config import DataSpec
from diled.data.strings import to_strings
from diled.evaluation import plots
from diled.evaluation.figures import model_pictures
from diled.evaluation.ngrams import word_counts
from diled.evaluation.sequence_report import block
from diled.evaluation.shown import Picture, Shown, has

__all__ = ["draw_lengths", "length_picture", "text_blocks", "text_pictures"]

LINES = 16
"""Texts of a block."""
PATHS = 3
"""Interpolations that are shown."""


def text_blocks(s: Shown, spec: DataSpec) -> str:
    """Samples, reconstructions and interpolations of a model as figures of HTML; parts that are missing are left out."""
    blocks = []
    if s.samples is not None and has(s.samples):
        said = "Decoded from codes of the prior." if s.codes is not None else "Draws from the model."
        blocks.append(("Samples", said, to_strings(s.samples[:LINES], spec)))
    if s.originals is not None and s.reconstructions is not None and has(s.reconstructions):
        rows = zip(*(to_strings(x[: LINES // 2], spec) for x in (s.originals, s.reconstructions)), strict=False)
        lines = [line for real, made in rows for line in (real, made if made != real else "(the same)", "")][:-1]
        blocks.append(("Reconstructions", "Held-out texts, each above its reconstruction.", lines))
    if s.interpolations is not None and has(s.interpolations):
        lines = [line for path in s.interpolations[:PATHS] for line in (*to_strings(path, spec), "")][:-1]
        said = f"{s.interpolations.shape[1]} steps from one code to another."
        blocks.append(("Interpolations", said, lines))
    return "".join(block(*one) for one in blocks)


def text_pictures(s: Shown, spec: DataSpec, stem: str, index: int, terms: Sequence[str]) -> list[Picture]:
    """Lengths of a model's texts, then its map of codes and training curves; see `figures.model_pictures`."""
    found = length_picture(s, spec, f"lengths-{stem}.png", index)
    bare = replace(s, samples=None, originals=None, reconstructions=None, interpolations=None)
    return [*([found] if found else []), *model_pictures(bare, spec, stem, index, terms)]


def length_picture(s: Shown, spec: DataSpec, file: str, index: int) -> Picture | None:
    """Words of held-out texts and of samples; None where one of them is missing."""
    if s.originals is None or s.samples is None or not has(s.originals) or not has(s.samples):
        return None
    both = [word_counts(to_strings(x, spec)) for x in (s.originals, s.samples)]
    caption = f"Words of {len(both[0]):,} held-out texts and of {len(both[1]):,} samples."
    light, dark = plots.render(
        lambda figure, theme: draw_lengths(figure, theme, both, index), (plots.SHORT, plots.SHORT * 0.7)
    )
    return Picture(file, "Lengths", caption, f"Lengths of held-out texts and of samples of {s.name}", light, dark)


def draw_lengths(figure: Figure, theme: plots.Theme, both: Sequence[np.ndarray], index: int) -> None:
    """Shares of texts with each number of words, held-out ones as a line and samples as bars."""
    ax: Any = figure.subplots()
    top = int(max(x.max() for x in both))
    real, drawn = (np.bincount(x.astype(int), minlength=top + 1) / len(x) for x in both)
    words = np.arange(top + 1)
    ax.bar(words, drawn, color=plots.model_colour(index, theme), width=0.8, label="samples")
    ax.step(words, real, where="mid", color=theme.ink, linewidth=1.4, label="held-out texts")
    ax.set_xlabel("words")
    ax.set_ylabel("share of texts")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
