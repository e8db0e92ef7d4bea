"""Which figures a report has, and the sentence below each. How they are drawn is in `grids`, `plots`, `losses` and `panels`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from diled.evaluation import grids, plots
from diled.evaluation.losses import draw_losses, has_curves
from diled.evaluation.panels import Lines
from diled.evaluation.shown import Picture, Shown, array, has

if TYPE_CHECKING:
    from diled.config import DataSpec

__all__ = ["model_pictures", "side_by_side"]

HALF, FULL = 900, 1840  # target widths of grids in pixels, twice what they take of the page
MOST_CODES = 1000  # of a t-SNE map: some three seconds on one core
FEWEST_CODES = 60  # below that neighbourhoods mean little, and principal components are shown


def model_pictures(shown: Shown, spec: DataSpec, stem: str, index: int, terms: Sequence[str]) -> list[Picture]:
    """All figures of one model, in the order of the report.

    Args:
        shown: the model's material.
        spec: the kind of data.
        stem: the model's part of the file names.
        index: the model's place, which chooses its colour.
        terms: the terms of all models, which choose the colours of the curves.
    """
    maker = _Images(spec, index) if spec.kind == "image" else Lines(spec, index)
    found: list[Picture | None] = []
    if has(shown.samples):
        found.append(maker.samples(shown, f"samples-{stem}.png"))
    if has(shown.originals) and has(shown.reconstructions):
        found.append(maker.reconstructions(shown, f"reconstructions-{stem}.png"))
    if has(shown.interpolations):
        found.append(maker.interpolations(shown, f"interpolations-{stem}.png"))
    if has(shown.codes):
        found.append(_codes(shown, f"latent-{stem}.png"))
    if has_curves(shown.log):
        found.append(_losses(shown, f"losses-{stem}.png", terms))
    return [p for p in found if p is not None]


def side_by_side(models: Sequence[Shown], spec: DataSpec) -> list[Picture]:
    """Samples, reconstructions and interpolations of all models; each only where at least two models have it."""
    maker = _Images(spec, 0) if spec.kind == "image" else Lines(spec, 0)
    real = max((array(m.originals) for m in models if has(m.originals)), key=len, default=None)
    kinds = {
        "samples": lambda m: m.samples,
        "reconstructions": lambda m: m.reconstructions,
        "interpolations": lambda m: None if m.interpolations is None else m.interpolations[0],
    }
    found = []
    for kind, part in kinds.items():
        blocks = [(m.name, array(part(m)), i) for i, m in enumerate(models) if has(part(m))]
        if len(blocks) < 2:
            continue
        said = f"{kind.capitalize()} of {', '.join(name for name, _, _ in blocks)}."
        if kind == "interpolations":
            said = f"From the code of one held-out example to that of another. {said}"
        elif real is not None:
            blocks.insert(0, ("Held-out data", real, -1))
            said = f"Held-out data, and {said[:1].lower()}{said[1:]}"
        found.append(maker.overview(blocks, f"{kind}.png", kind.capitalize(), said))
    return found


class _Images:
    """Grids of pixels."""

    def __init__(self, spec: DataSpec, index: int) -> None:
        self.spec = spec
        channels = spec.shape[0]
        self.remark = ""
        if channels == 2:
            self.remark = " The two channels stand side by side."
        elif channels == 4 and spec.mode == "RGBA":
            self.remark = " Transparent parts are shown on white."
        elif channels > 3:
            self.remark = f" The first three of {channels} channels are shown as red, green and blue."

    def _tiles(self, x: np.ndarray | None) -> np.ndarray:
        assert x is not None
        return grids.tiles(x, self.spec.mode)

    def samples(self, s: Shown, file: str) -> Picture:
        picture, n = grids.sample_grid(self._tiles(s.samples), HALF)
        caption = f"{n} draws from the model.{self.remark}"
        return Picture(file, "Samples", caption, f"Grid of {n} images drawn from {s.name}", grids.png(picture))

    def reconstructions(self, s: Shown, file: str) -> Picture:
        picture, n = grids.reconstruction_grid(self._tiles(s.originals), self._tiles(s.reconstructions), HALF)
        caption = f"{n} held-out images, each above its reconstruction.{self.remark}"
        alt = f"{n} held-out images in rows, each with its reconstruction by {s.name} below it"
        return Picture(file, "Reconstructions", caption, alt, grids.png(picture))

    def interpolations(self, s: Shown, file: str) -> Picture:
        ends = self._tiles(s.interpolation_ends) if has(s.interpolation_ends) else None
        path = self._tiles(s.interpolations)
        picture, rows = grids.interpolation_grid(path, ends, FULL)
        caption = f"{path.shape[1]} steps from one code to another."
        caption += " The outer columns are the original images." if ends is not None else ""
        alt = f"{rows} rows of images that change from one into another, decoded by {s.name}"
        return Picture(file, "Interpolations", caption + self.remark, alt, grids.png(picture), wide=True)

    def overview(self, blocks: Sequence[tuple[str, np.ndarray, int]], file: str, title: str, caption: str) -> Picture:
        all_tiles = [(name, self._tiles(x)) for name, x, _ in blocks]
        first = all_tiles[0][1]
        least = min(len(t) for _, t in all_tiles)
        columns = max(1, min(least, 16, grids.affordable(first, 1000) // len(blocks)))
        rows = 2 if least >= 2 * columns and first.shape[1] <= 64 else 1
        factor = grids.enlargement(columns * first.shape[2], FULL)
        parts = []
        for i, (name, t) in enumerate(all_tiles):
            block = t[: rows * columns].reshape(rows, columns, *t.shape[1:])
            parts += [np.zeros((20, 1, 4), np.uint8)] * (i > 0)
            parts += [grids.heading(name, 1), grids.grid(block, factor, grids.gutter_for(factor))]
        alt = f"Rows of images: {', '.join(name for name, _ in all_tiles)}"
        light = grids.png(grids.stacked(parts, 4))
        return Picture(file, title, caption + self.remark, alt, light, wide=True)


def _codes(s: Shown, file: str) -> Picture | None:
    """The map of codes: the codes themselves in the plane, else t-SNE, else principal components."""
    codes = array(s.codes).reshape(len(array(s.codes)), -1)
    labels = None if s.labels is None else np.asarray(s.labels)
    keep = np.flatnonzero(np.isfinite(codes).all(1))
    if len(keep) < 3:
        return None
    if len(keep) > MOST_CODES:
        keep = np.sort(np.random.default_rng(0).choice(keep, MOST_CODES, replace=False))
    n, total = len(keep), len(codes)
    codes, labels = codes[keep], None if labels is None else labels[keep]
    if labels is not None and not np.isfinite(labels).any():
        labels = None
    if labels is not None and s.class_names and not np.issubdtype(labels.dtype, np.integer):
        labels = np.where(np.isfinite(labels), labels, -1).astype(int)
    places, method, axes = _places(codes)
    count = f"{n:,} of {total:,}" if n < total else f"{n:,}"
    caption = f"Codes of {count} held-out examples; {method}"
    if labels is not None:
        caption += " Colour is the property's value." if plots.is_property(labels, s.class_names) else ""
    size = (plots.SHORT, plots.SHORT * 0.92)
    light, dark = plots.render(lambda f, t: plots.draw_codes(f, t, places, labels, s.class_names, axes), size)
    return Picture(file, "Latent space", caption, f"Map of the codes of held-out examples under {s.name}", light, dark)


def _places(codes: np.ndarray) -> tuple[np.ndarray, str, tuple[str, str]]:
    """A place in the plane for each code, how it was found, and what the axes are."""
    if codes.shape[1] == 1:
        spread = np.random.default_rng(0).uniform(-1, 1, len(codes)) * codes.std() / 2
        return np.column_stack([codes[:, 0], spread]), "the height of a point is random.", ("code", "")
    if codes.shape[1] == 2:
        return codes, "its two dimensions as they are.", ("first dimension", "second dimension")
    centred = codes - codes.mean(0)
    if len(codes) >= FEWEST_CODES and centred.any():
        from sklearn.manifold import TSNE

        perplexity = min(30, len(codes) // 4)
        tsne = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=0)
        return tsne.fit_transform(codes), f"t-SNE (perplexity {perplexity}): near is alike, far means little.", ("", "")
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    share = 100 * s**2 / max((s**2).sum(), 1e-12)
    names = [
        f"{word} component ({p:.0f} % of variance)" for word, p in zip(("first", "second"), share[:2], strict=True)
    ]
    return u[:, :2] * s[:2], "their first two principal components.", (names[0], names[1])


def _losses(s: Shown, file: str, terms: Sequence[str]) -> Picture:
    stages = list(dict.fromkeys(str(r.get("stage", "")) for r in s.log))
    caption = "Training loss by term, in nats per example"
    if any("consistency" in r.get("terms", {}) for r in s.log):
        caption += " (that of the consistency function in no unit)"
    caption += "; on held-out data dotted." if any(r.get("validation") for r in s.log) else "."
    if len(stages) > 1:
        caption += f" A vertical line parts the {len(stages)} stages."
    size = (plots.SHORT, plots.SHORT * 0.92)
    light, dark = plots.render(lambda f, t: draw_losses(f, t, s.log, terms), size)
    return Picture(file, "Training", caption, f"Training curves of {s.name} by term", light, dark)
