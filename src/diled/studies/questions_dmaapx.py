"""What the studies of DMaaPx answer beside the paper's table: costs, pools, widths, in Markdown and as pictures.

    python -m diled.studies.questions_dmaapx --out docs/images        draws what results/dmaapx.json has records of

    costs        which arms are best for their cost: none that costs as little has a higher test ELBO (a Pareto front); what
                 more real data would give is shown, and no part of it
    statistics   which figure of a pool goes with the test ELBO of the model that is trained on it
    widths       channels of the network (n_c) by channels of the latent (m_z), and the double descent along both
    calibration  test ELBO by epoch

Reference: Xiao, Zenn & Bamler 2024 (arXiv 2310.19653), sections 4 and 5.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from diled.evaluation.sequences import spearman
from diled.studies.commands import draw_pictures
from diled.studies.dmaapx import arms_of, recorded
from diled.studies.paper_dmaapx import CURVE
from diled.studies.render import markdown
from diled.studies.render_dmaapx import cell, named

__all__ = ["PICTURES", "calibration", "costs", "descent", "front", "joined", "main", "pictured", "statistics", "widths"]

STATISTICS = {
    "frechet_pool": "Frechet distance",
    "precision_pool": "precision",
    "recall_pool": "recall",
    "c2st_accuracy": "told apart",
    "nearest_ratio": "nearest",
    "copying": "copying",
    "entropy_offset_nats": "entropy offset",
}
"""Figure of a pool -> heading. `told apart`: accuracy of a classifier of pool and test examples; `nearest` and `copying`: above
1/2 where samples are nearer to training than to test examples; `entropy offset`: below 0 where the pool is easier."""
MORE_DATA = ("vae@real/10N",)
"""Arms that see more real examples than the others."""
WAYS, LINES = {"real": "normal", "synthetic": "DMaaPx"}, {"real": "--", "synthetic": "-"}
"""Examples of a width -> what training on them is called, and how it is drawn."""
OF_WIDTHS = {"test_elbo": "Test ELBO", "generalization_gap": "Generalization gap"}
"""Metric -> heading."""
AUDITED = ("test_elbo", "generalization_gap", "amortization_gap_test")
SHOWN_FROM = 5
"""Epoch from which on curves of calibration are drawn: before it they only fall, and far."""
EMPTY = "Nothing is recorded yet."

Means = dict[str, dict[str, float]]
"""System -> metric -> mean over seeds."""
Draw = Callable[..., bool]
"""Records, file and scale -> whether there was anything to draw."""


def means(path: Path, name: str) -> Means:
    """Of one study at one scale."""
    return {
        system: {metric: fmean(r.value for r in records) for metric, records in by_metric.items()}
        for system, by_metric in recorded(path, name).items()
    }


def costs(path: Path, study: str, scale: str) -> str:
    """Arms by what they cost, the sampling and its source included, and which are on the front."""
    points = _points(path, f"{study}-{scale}")
    best = front(points)
    rows = [
        [named(s), f"{cost:,.0f}", cell("test_elbo", [elbo]), "yes" if s in best else ""]
        for s, (cost, elbo) in sorted(points.items(), key=lambda one: one[1])
    ]
    return markdown(["trained on", "CPU s in all", "test ELBO", "best for its cost"], rows) if rows else EMPTY


def _points(path: Path, name: str) -> dict[str, tuple[float, float]]:
    """System -> CPU seconds in all, and test ELBO; where no total is recorded and nothing was drawn, those of the training."""
    found = {}
    for system, by_metric in recorded(path, name).items():
        if "test_elbo" not in by_metric:
            continue
        total = [r.value for r in by_metric.get("total_cpu_seconds", ())]
        drawn = re.search("synthetic|mixed|self", system)
        alone = [] if drawn else [r.cpu_seconds for r in by_metric["test_elbo"] if r.cpu_seconds is not None]
        if total or alone:
            found[system] = (fmean(total or alone), fmean(r.value for r in by_metric["test_elbo"]))
    return found


def front(points: dict[str, tuple[float, float]]) -> list[str]:
    """The names of points (cost, worth) that no other one beats in worth at no more cost, by cost; without `MORE_DATA`."""
    found, best = [], -float("inf")
    for name, (_, worth) in sorted(points.items(), key=lambda one: (one[1][0], -one[1][1])):
        if worth > best and name not in MORE_DATA:
            found.append(name)
            best = worth
    return found


def statistics(path: Path, study: str, scale: str) -> str:
    """Figures of each pool beside the audit of the model that was trained on it, and their rank correlations with its ELBO."""
    found = {s: m for s, m in means(path, f"{study}-{scale}").items() if "c2st_accuracy" in m and "test_elbo" in m}
    if not found:
        return EMPTY
    order = sorted(found, key=lambda s: -found[s]["test_elbo"])
    shown = [m for m in (*STATISTICS, *AUDITED) if any(m in found[s] for s in order)]
    rows = [[named(s), *(_number(found[s].get(m)) for m in shown)] for s in order]
    ranks = []
    for metric in shown:
        pairs = [(found[s][metric], found[s]["test_elbo"]) for s in order if metric in found[s]]
        known = len(pairs) > 2 and metric != "test_elbo"
        ranks.append(f"{spearman(*np.array(pairs).T):+.2f}" if known else "")
    headings = {
        **STATISTICS,
        **dict(zip(AUDITED, ("test ELBO", "generalization gap", "amortization gap"), strict=True)),
    }
    return markdown(
        ["trained on", *(headings[m] for m in shown)], [*rows, ["*rank correlation with the test ELBO*", *ranks]]
    )


def widths(path: Path, study: str, scale: str) -> str:
    """Normal training and DMaaPx for each number of channels: test ELBO and generalization gap, a row for each m_z."""
    found = _grid(means(path, f"{study}-{scale}"))
    if not found:
        return EMPTY
    channels, latents = sorted({n for _, n, _ in found}), sorted({m for _, _, m in found})
    tables = []
    for metric, heading in OF_WIDTHS.items():
        rows = [
            [f"m_z = {m}, {way}", *(_number(found.get((kind, n, m), {}).get(metric)) for n in channels)]
            for m in latents
            for kind, way in WAYS.items()
        ]
        tables.append(f"{heading}:\n\n" + markdown(["", *(f"n_c = {n}" for n in channels)], rows))
    return "\n\n".join(tables)


def _grid(found: Means) -> dict[tuple[str, int, int], dict[str, float]]:
    """(real or synthetic, n_c, m_z) -> metric -> mean."""
    parts = {s: re.fullmatch(r"vae@(real|synthetic)/n_c=(\d+),m_z=(\d+)", s) for s in found}
    return {(m[1], int(m[2]), int(m[3])): found[s] for s, m in parts.items() if m is not None}


def joined(sizes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The sizes (n_c, m_z), in order, along which the paper sees a double descent (its Figure 8).

    First n_c grows at the least m_z, then m_z at one n_c, then n_c again at the largest m_z. The n_c in the middle is the one
    with most m_z, of several the largest.
    """
    there = sorted(set(sizes))
    columns = [n for n, _ in there]
    middle = max(columns, key=lambda n: (columns.count(n), n))
    least, most = min(m for _, m in there), max(m for _, m in there)
    first = [(n, m) for n, m in there if m == least and n <= middle]
    more = [(n, m) for n, m in there if n == middle and m > least]
    return [*first, *more, *((n, m) for n, m in there if n > middle and m == most)]


def descent(
    path: Path, study: str, scale: str
) -> tuple[list[tuple[int, int]], dict[tuple[str, str], list[tuple[int, float]]]]:
    """`joined` of the whole grid, and (real or synthetic, test or train) -> places on it and minus the ELBO there.

    A size that is not recorded has no place in its line.
    """
    found = _grid(means(path, f"{study}-{scale}"))
    steps = joined((n, m) for _, n, m in _grid({arm: {} for arm in arms_of(study, scale).arms}))
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for kind in WAYS:
        for examples in ("test", "train"):
            metric = f"bound_nats/{examples}"
            at = [(i, found.get((kind, n, m), {}).get(metric)) for i, (n, m) in enumerate(steps)]
            lines[kind, examples] = [(i, v) for i, v in at if v is not None]
    return steps, {key: line for key, line in lines.items() if line}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def calibration(path: Path) -> str:
    """The curves of normal training on all images, with their peaks and ends, beside the paper's."""
    curves = {"paper": CURVE} | {system: found for system, found in means(path, "calibration").items() if found}
    if len(curves) == 1:
        return EMPTY
    epochs = sorted({epoch for found in curves.values() for epoch, _ in _epochs(found)})
    head = [
        "test ELBO at epoch",
        *map(str, epochs),
        "best (epoch)",
        "end, all test images (epoch)",
        "generalization gap",
    ]
    rows = []
    for system, found in curves.items():
        seen = dict(_epochs(found))
        peak = f"{found['peak_test_elbo']:.2f} ({found['peak_epoch']:.0f})"
        end = f"{found['test_elbo']:.2f} ({max(seen)})"
        rows.append([system, *(_number(seen.get(e)) for e in epochs), peak, end, f"{found['generalization_gap']:.2f}"])
    return markdown(head, rows)


def _epochs(found: dict[str, float]) -> list[tuple[int, float]]:
    """The recorded epochs of a curve, and the test ELBO there."""
    return sorted((int(m.rpartition("=")[2]), v) for m, v in found.items() if m.startswith("test_elbo/epoch="))


# Pictures -------------------------------------------------------------------------------------------------------------


def draw_costs(path: Path, out: Path, study: str = "dmaapx-pool-size", scale: str = "mini") -> bool:
    """Test ELBO against CPU seconds in all, with the front; whether there are records."""
    points = _points(path, f"{study}-{scale}")
    if len(points) < 2:
        return False
    figure, axis = _axis(9.0, 4.8)
    best = front(points)
    for i, (system, (cost, elbo)) in enumerate(sorted(points.items(), key=lambda one: -one[1][1]), 1):
        colour = "#1f4e79" if system in best else "#8a96a3"
        axis.scatter(cost, elbo, s=110, color=colour, zorder=3, label=f"{i}  {named(system)}")
        axis.annotate(str(i), (cost, elbo), ha="center", va="center", fontsize=6, color="white", zorder=4)
    axis.step(*np.array([points[s] for s in best]).T, where="post", color="#1f4e79", lw=1, zorder=2)
    _logarithmic(axis)
    axis.set(xlabel="CPU seconds, sampling and its source included", ylabel="test ELBO, nats")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, handlelength=0, markerscale=0)
    return _saved(figure, out)


def draw_widths(path: Path, out: Path, study: str = "dmaapx-width", scale: str = "mini") -> bool:
    """Test ELBO and generalization gap against n_c for each m_z, normal and DMaaPx; whether there are records."""
    found = _grid(means(path, f"{study}-{scale}"))
    if not any("test_elbo" in v for v in found.values()):
        return False
    figure, axes = _axes(10.0, 4.4, 2)
    for axis, (metric, heading) in zip(axes, OF_WIDTHS.items(), strict=True):
        for kind, way in WAYS.items():
            for i, m in enumerate(sorted({m for _, _, m in found})):
                line = sorted((n, v[metric]) for (k, n, z), v in found.items() if (k, z) == (kind, m) and metric in v)
                style = {"ls": LINES[kind], "color": f"C{i}", "label": f"m_z = {m}, {way}"}
                axis.plot(*np.array(line).T, marker="o", ms=4, lw=1.2, **style) if line else None
        _logarithmic(axis)
        channels = sorted({n for _, n, _ in found})
        axis.set_xticks(channels, map(str, channels))
        axis.set(xlabel="channels n_c", ylabel=f"{heading}, nats")
    axes[0].legend(fontsize=7)
    return _saved(figure, out)


def draw_descent(path: Path, out: Path, study: str = "dmaapx-width", scale: str = "mini") -> bool:
    """Minus the ELBO of test and training examples along `joined`, normal and DMaaPx; whether there are records."""
    steps, lines = descent(path, study, scale)
    if not lines:
        return False
    figure, axis = _axis(9.0, 4.4)
    for (kind, examples), line in lines.items():
        style = {"ls": "-" if examples == "test" else ":", "color": "#c2571a" if kind == "real" else "#1f4e79"}
        axis.plot(*np.array(line).T, marker="o", ms=4, lw=1.2, label=f"{WAYS[kind]}, {examples}", **style)
    for i in range(1, len(steps) - 1):  # a corner is where another number grows
        if (steps[i - 1][0] == steps[i][0]) != (steps[i][0] == steps[i + 1][0]):
            axis.axvline(i, color="#8a96a3", lw=1.2, ls="--", zorder=1)
    axis.set_xticks(range(len(steps)), [f"{n}, {m}" for n, m in steps], rotation=90, fontsize=8)
    axis.set(xlabel="n_c, m_z", ylabel="minus ELBO, nats")
    axis.legend(fontsize=8)
    return _saved(figure, out)


def draw_calibration(path: Path, out: Path) -> bool:
    """Test ELBO by epoch, the paper's and ours; whether there are records."""
    curves = means(path, "calibration")
    if not any(map(_epochs, curves.values())):
        return False
    figure, axis = _axis(7.0, 4.2)
    for i, (system, found) in enumerate(({"paper": CURVE} | curves).items()):
        line = [(epoch, elbo) for epoch, elbo in _epochs(found) if epoch >= SHOWN_FROM]
        axis.plot(*np.array(line).T, "o-", ms=4, lw=1.2, color=f"C{i}", label=system) if line else None
        axis.scatter(found["peak_epoch"], found["peak_test_elbo"], color=f"C{i}", marker="*", s=70, zorder=3)
    _logarithmic(axis)
    axis.set(xlabel="epoch", ylabel="test ELBO, nats")
    axis.legend(fontsize=8)
    return _saved(figure, out)


def _axis(width: float, height: float) -> tuple[Any, Any]:
    figure, (axis,) = _axes(width, height, 1)
    return figure, axis


def _axes(width: float, height: float, n: int) -> tuple[Any, list[Any]]:
    """A figure, and n axes side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (axes,) = pyplot.subplots(1, n, figsize=(width, height), layout="constrained", squeeze=False)
    for axis in axes:
        axis.grid(color="#e4e8ec", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _logarithmic(axis: Any) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _saved(figure: Any, out: Path) -> bool:
    from matplotlib import pyplot

    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    pyplot.close(figure)
    return True


def _widths_at(scale: str) -> dict[str, tuple[str, str, Draw]]:
    """Name -> scale, what it shows, what draws it: the pictures of widths at a scale."""
    end = "" if scale == "mini" else f"-{scale}"
    return {
        f"dmaapx-descent{end}.png": (
            scale,
            f"Minus the ELBO while both numbers of channels grow, {scale}",
            draw_descent,
        ),
        f"dmaapx-width{end}.png": (scale, f"Test ELBO and generalization gap against n_c, {scale}", draw_widths),
    }


OF_SCALES = _widths_at("mini") | _widths_at("gpu") | _widths_at("paper")
PICTURES: dict[str, Callable[[Path, Path], bool]] = {
    "dmaapx-cost.png": draw_costs,
    **{name: partial(draw, scale=scale) for name, (scale, _, draw) in OF_SCALES.items()},
    "dmaapx-calibration.png": draw_calibration,
}


def pictured(path: Path, images: Path) -> str:
    """The pictures of widths that are recorded, for a page that stands beside the folder of images; a sentence without any."""
    shown = []
    for name, (scale, words, _) in OF_SCALES.items():
        if recorded(path, f"dmaapx-width-{scale}"):
            there = (images / name).exists()
            shown.append(f"![{words}]({images.name}/{name})" if there else f"`{name}` is recorded and not drawn yet.")
    return "\n\n".join(shown) or EMPTY


def main(argv: list[str] | None = None) -> int:
    """Draw from the command line."""
    pictures = {name: ("dmaapx", draw) for name, draw in PICTURES.items()}
    return draw_pictures("questions_dmaapx", "Pictures of what is recorded of DMaaPx.", pictures, argv)


if __name__ == "__main__":
    sys.exit(main())
