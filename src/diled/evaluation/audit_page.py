"""The page of an audit: one HTML file with its tables and drawings, which needs nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diled.evaluation.audit_columns import (
    ATTACK,
    COLUMNS,
    LIKELIHOOD,
    POOL,
    SPLIT,
    SPLITS,
    TERMS,
    attacks_of,
    codes_of,
    columns_of,
    competing,
    terms_of,
    worded,
)
from diled.evaluation.measure import Measured
from diled.evaluation.report import described, document, dot, figure_html, provenance_html, replace_file
from diled.evaluation.shown import Picture
from diled.evaluation.tables import ARROWS, Cell, Table, table_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from diled.config import DataSpec
    from diled.evaluation.plots import Theme

__all__ = ["COLUMNS", "audit_table", "audit_tables", "write_audit"]

Figures = Mapping[str, Mapping[str, Measured]]
Arrays = Mapping[str, Mapping[str, np.ndarray]]

WIDTH = 880
"""Pixels of a grid of pictures, shown at half its size."""

READING = [
    "Bounds are on -log p(x) in nats: lower is better. The papers' ELBO is minus the bound.",
    "Generalization gap: the bound on real test examples minus that on real training examples, whatever else the model was "
    "trained on.",
    "Amortization gap: what the encoder loses against the best Gaussian code of each example. Approximation gap: what the best "
    "Gaussian code loses against log p(x), as far as that could be estimated.",
    "Robustness gap: by how much more reconstructions differ than their inputs, after an attack on the encoder; in structural "
    "similarity of pictures, or the share of equal positions of sequences, from 0 to 1; of words, 1 minus the edit distance "
    "over the words of the longer text.",
]
UNDECIDED = (
    "Where the smallest bound or gap of a column does not differ from the next beyond chance, at 95 %, none is bold."
)


def audit_table(
    figures: Figures, columns: Mapping[str, tuple[str, str]] = COLUMNS, undecided: Collection[str] = ()
) -> tuple[Table, dict[str, str]]:
    """The table: model -> heading -> cell, and which columns are better low or high.

    Columns of `undecided` metrics keep their arrow, in the heading, and have no best value.
    """
    present = [metric for metric in columns if any(metric in row for row in figures.values())]
    better, headings = {}, {}
    for metric in present:
        heading, direction = columns[metric]
        open_ = metric in undecided and direction in ARROWS
        headings[metric] = f"{heading} {ARROWS[direction]}" if open_ else heading
        better[headings[metric]] = "" if open_ else direction
    table = {
        name: {
            headings[metric]: Cell(m.value, m.stderr) for metric in present for m in [row.get(metric, Measured(None))]
        }
        for name, row in figures.items()
    }
    return table, better


def audit_tables(figures: Figures, undecided: Collection[str] = ()) -> list[tuple[Table, dict[str, str]]]:
    """What a terminal shows: bounds and gaps, or where none was measured what codes hold; then synthetic sets."""
    gaps = any(metric in row for metric in competing(figures) for row in figures.values())
    shown = [
        audit_table(figures, columns, undecided)
        for columns in (columns_of(figures) if gaps else codes_of(figures), POOL)
    ]
    return [(table, better) for table, better in shown if better]


def write_audit(
    path: Path,
    *,
    title: str,
    summary: Sequence[str],
    spec: DataSpec,
    figures: Figures,
    arrays: Arrays,
    differences: Mapping[str, Mapping[str, str]],
    undecided: Collection[str] = (),
    refused: Sequence[str],
    notes: Mapping[str, Sequence[str]],
    provenance: Mapping[str, str],
) -> Path:
    """Write the page.

    Args:
        path: of the HTML file; an earlier one is kept until this one is whole.
        title: its heading.
        summary: sentences that come first.
        spec: of the data.
        figures: model -> metric -> value.
        arrays: model -> `section/name` -> numbers per example.
        differences: model -> gap -> by how much it is larger than the first model's, in words with an interval.
        undecided: metrics of which the smallest does not differ from the next beyond chance.
        refused: what could not be measured, in sentences.
        notes: model -> remarks on how it was measured.
        provenance: command, commit, hardware and so on.

    Raises:
        OSError: the file cannot be written.
    """
    places = {name: i for i, name in enumerate(figures)}

    def tabled(columns: Mapping[str, tuple[str, str]], key: bool = True) -> str:
        table, better = audit_table(figures, columns, undecided)
        if not better:
            return ""
        return table_html(table, better, decorate=lambda row: _named(row, places), key=key)

    def explained(columns: Mapping[str, tuple[str, str]], words: Sequence[str]) -> str:
        table = tabled(columns, key=False)
        return table and table + _list(words)

    attacked = explained(attacks_of(figures), ATTACK) if spec.kind == "image" else ""
    pictures = _pictures(figures, arrays, spec)
    reading = [*READING, UNDECIDED] if undecided else READING
    parts = [
        ("results", "Results", tabled(columns_of(figures)) + _list(reading, "How to read this")),
        ("differences", "Against the first model", _differences(differences, places)),
        ("nats", "Where the nats go", _row(pictures["nats"])),
        ("splits", "What the gaps are made of", explained(SPLITS, SPLIT)),
        ("terms", "Where the bound overfits", explained(terms_of(figures), [TERMS])),
        ("likelihood", "How likely is x?", tabled(LIKELIHOOD) + _list(_about_likelihood(figures))),
        ("robustness", "Under attack", attacked + _row(pictures["robustness"]) + _attacked_texts(arrays, spec)),
        ("codes", "What codes hold", tabled(codes_of(figures)) + _row(pictures["codes"])),
        ("pool", "Synthetic training sets", tabled(POOL)),
        ("refused", "What could not be measured", _list(refused)),
        ("notes", "How it was measured", "".join(_list(said, name) for name, said in notes.items() if said)),
        ("provenance", "How this was made", provenance_html(provenance)),
    ]
    page = document(title, described(spec), summary, [part for part in parts if part[2]])
    replace_file(path, page.encode("utf-8", "backslashreplace"))
    return path


def _named(row: str, places: Mapping[str, int]) -> str:
    if len(places) < 2:
        return escape(row)
    return f'<span class="named">{dot(places.get(row))}<span>{escape(row)}</span></span>'


def _list(sentences: Sequence[str], heading: str = "") -> str:
    if not sentences:
        return ""
    head = f"<h3>{escape(heading)}</h3>" if heading else ""
    return head + '<ul class="reading">' + "".join(f"<li>{escape(s)}</li>" for s in sentences) + "</ul>"


def _row(pictures: Sequence[Picture]) -> str:
    return f'<div class="figures">{"".join(map(figure_html, pictures))}</div>' if pictures else ""


def _differences(differences: Mapping[str, Mapping[str, str]], places: Mapping[str, int]) -> str:
    """A table of words: how much larger each gap is than the first model's."""
    gaps = list(dict.fromkeys(gap for row in differences.values() for gap in row))
    if not gaps:
        return ""
    table = {worded(gap): {name: Cell(row.get(gap)) for name, row in differences.items()} for gap in gaps}
    words = (
        f"Larger than that of {next(iter(places))} by so much, with 95 % intervals. Examples that both models were measured on "
        "are redrawn in pairs; training examples that are not the same, by themselves."
    )
    return f"<p>{escape(words)}</p>" + table_html(table, {})


def _about_likelihood(figures: Figures) -> list[str]:
    """How many examples each estimate rests on, and what the gap of BDMC says."""
    said = []
    if _count(figures, "log_p_nats/test"):
        said.append(
            f"log p(x) by importance weights: {_count(figures, 'log_p_nats/test')} test examples; a lower bound on average."
        )
    if _count(figures, "ais_nats/test"):
        said.append(f"By annealed importance sampling (AIS): the first {_count(figures, 'ais_nats/test')} of them.")
    if _count(figures, "bdmc_gap_nats"):
        said.append(
            f"BDMC gap: an upper minus a lower bound on log p(x) of {_count(figures, 'bdmc_gap_nats')} samples of the model, "
            "by the same steps: so much AIS may be too low there."
        )
    return said


def _count(figures: Figures, metric: str) -> str:
    """How many examples a figure rests on: `1,000`, or `50 to 1,000` where models differ; empty where it is not known."""
    counts = {m.n for row in figures.values() for m in [row.get(metric)] if m is not None and m.n is not None}
    return " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)})) if counts else ""


# Drawings ------------------------------------------------------------------------------------------------------------


def _pictures(figures: Figures, arrays: Arrays, spec: DataSpec) -> dict[str, list[Picture]]:
    """All drawings, by section."""
    from diled.evaluation import plots

    short = plots.SHORT

    def made(
        draw: Callable[[Figure, Theme], Any], size: tuple[float, float], *text: str, wide: bool = False
    ) -> Picture:
        title, caption, alt = text
        return Picture("", title, caption, alt, *plots.render(draw, size), wide=wide)

    found: dict[str, list[Picture]] = {"nats": [], "robustness": [], "codes": []}
    if any("bound_nats/test" in row for row in figures.values()):
        size = (2 * short, 0.9 + 0.62 * len(figures))
        found["nats"].append(
            made(
                lambda f, t: _draw_nats(f, t, figures),
                size,
                "From log p(x) to the bound",
                "For each model training examples above and test examples below: the estimate of -log p(x), the best bound of "
                "each example, and the encoder's bound. From the first to the second is the approximation gap, from the second "
                "to the third the amortization gap, from training to test the generalization gap.",
                "Bars from log p(x) over the best bound to the bound, of all models",
                wide=True,
            )
        )
    radii = {name: _radii(row) for name, row in figures.items()}
    if any(radii.values()):
        found["robustness"].append(
            made(
                lambda f, t: _draw_curves(f, t, radii, "attack radius", "robustness gap"),
                (short, 0.75 * short),
                "Robustness gap and radius",
                "The strong attack at several radii, on the scale of pixels from 0 to 1.",
                "Robustness gap against attack radius",
            )
        )
    for name, values in arrays.items():
        picture = _attacked(name, values, spec)
        if picture is not None:
            found["robustness"].append(picture)
    units = {
        n: (np.arange(1, len(u) + 1), u) for n, a in arrays.items() for u in [a.get("codes/unit_nats")] if u is not None
    }
    if units:
        found["codes"].append(
            made(
                lambda f, t: _draw_curves(f, t, units, "dimension, by its nats", "nats"),
                (short, 0.75 * short),
                "Nats of each dimension",
                "1/2 log(1 + variance of the mean / noise), the largest first"
                + (
                    f"; from {_count(figures, 'active_units')} test examples."
                    if _count(figures, "active_units")
                    else "."
                ),
                "Nats of each dimension of the codes",
            )
        )
    smooth = {
        name: (np.linspace(0, 1, len(curve)), curve.mean(1))
        for name, found_of in arrays.items()
        for curve in [found_of.get("codes/smoothness")]
        if curve is not None
    }
    if smooth:
        found["codes"].append(
            made(
                lambda f, t: _draw_curves(f, t, smooth, "way from one test image to another", "log q(z | x(z)), nats"),
                (short, 0.75 * short),
                "Does the encoder find the way back?",
                "Codes between those of two test images are decoded and encoded again: how likely is the code then?",
                "Log density of codes on the way between two images",
            )
        )
    return found


def _radii(row: Mapping[str, Measured]) -> tuple[np.ndarray, np.ndarray] | None:
    """Radii of the strong attack and their gaps."""
    found = sorted(
        (float(k.rsplit("/", 1)[1]), m.value) for k, m in row.items() if k.startswith("robustness_gap/strong/")
    )
    return (np.array([0.0, *(r for r, _ in found)]), np.array([0.0, *(g for _, g in found)])) if found else None


def _draw_nats(figure: Figure, theme: Theme, figures: Figures) -> None:
    """Dumbbells: -log p(x), best bound, bound; training above test."""
    from diled.evaluation.plots import as_written, model_colour

    ax = figure.subplots()
    for i, row in enumerate(figures.values()):
        for split, offset in (("train", 0.16), ("test", -0.16)):
            points = _nats_of(row, split)
            if not points:
                continue
            y, colour = -i + offset, model_colour(i, theme)
            ax.plot([x for x, _ in points], [y] * len(points), color=colour, lw=1.2, alpha=0.6, zorder=1)
            for x, mark in points:
                hollow = {"facecolors": theme.face, "edgecolors": colour, "linewidths": 1.2} if split == "train" else {}
                look = {"color": colour} if mark == "|" else hollow or {"color": colour}
                ax.scatter([x], [y], marker=mark, s=70 if mark == "|" else 26, zorder=2, **look)
    ax.set_yticks([-i for i in range(len(figures))], [as_written(name) for name in figures])
    ax.set_ylim(-len(figures) + 0.45, 0.55)
    ax.set_xlabel("nats (bars: -log p(x); diamonds: best bound; circles: bound; hollow: training, filled: test)")
    ax.grid(axis="x", color=theme.rule, lw=0.7)
    ax.tick_params(length=0)
    ax.set_axisbelow(True)


def _nats_of(row: Mapping[str, Measured], split: str) -> list[tuple[float, str]]:
    """-log p(x), best bound and bound, of the same examples: a gap is added where its figure is of fewer of them."""
    best, bound = (row.get(f"{name}/{split}", Measured(None)).value for name in ("best_bound_nats", "bound_nats"))
    gaps = [row.get(f"{name}_{split}", Measured(None)).value for name in ("approximation_gap", "amortization_gap")]
    if best is None:
        return [] if bound is None else [(bound, "o")]
    points = [(best, "D")]
    if gaps[0] is not None:
        points.insert(0, (best - gaps[0], "|"))
    return points if gaps[1] is None else [*points, (best + gaps[1], "o")]


def _draw_curves(figure: Figure, theme: Theme, curves: Mapping[str, Any], across: str, up: str) -> None:
    """One line for each model."""
    from diled.evaluation.plots import model_colour, shortened

    ax = figure.subplots()
    for i, (name, curve) in enumerate(curves.items()):
        if curve is not None:
            ax.plot(*curve, color=model_colour(i, theme), lw=1.6, marker="o", ms=3, label=shortened(name))
    ax.set(xlabel=across, ylabel=up)
    ax.grid(color=theme.rule, lw=0.7)
    ax.set_axisbelow(True)
    if len(curves) > 1:
        figure.legend(loc="outside lower center", ncols=min(3, len(curves)))


def _attacked(name: str, arrays: Mapping[str, np.ndarray], spec: DataSpec) -> Picture | None:
    """Rows of references, their reconstructions, the attacked images, and theirs."""
    rows = [arrays.get(f"robustness/shown_{kind}")
            for kind in ("reference", "reference_decoded", "attacked", "attacked_decoded")]  # fmt: skip
    if any(row is None for row in rows) or spec.kind != "image":
        return None
    from diled.evaluation import grids

    pixels = grids.tiles(np.stack(rows), spec.mode)  # type: ignore[arg-type]
    factor = grids.enlargement(pixels.shape[1] * pixels.shape[3], WIDTH)
    picture = grids.png(grids.grid(pixels, factor, grids.gutter_for(factor)))
    words = "From above: test images, their reconstructions, the same after the published attack, and what becomes of those."
    return Picture(
        "", f"Attacks on {name}", words, f"Test images, attacked images and reconstructions by {name}", picture
    )


def _attacked_texts(arrays: Arrays, spec: DataSpec) -> str:
    """References, attacked texts, and what becomes of both, of every model of text."""
    from diled.evaluation.sequence_report import block

    blocks = []
    for name, found in arrays.items():
        kinds = ("reference", "attacked", "reference_decoded", "attacked_decoded")
        rows = [found.get(f"robustness/shown_{kind}") for kind in kinds]
        if spec.kind != "text" or any(row is None for row in rows):
            continue
        lines = [line for texts in zip(*rows, strict=True) for line in (*map(str, texts), "")][:-1]
        words = "Four lines each: a test text, the same with the most substitutions, and what their codes become."
        blocks.append(block(f"Attacks on {escape(name)}", words, lines))
    return f'<div class="figures">{"".join(blocks)}</div>' if blocks else ""
