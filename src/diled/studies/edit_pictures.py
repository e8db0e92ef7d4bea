"""Pictures of edits of text: for each task, the accuracy of each system that keeps so much of the sentences.

    python -m diled.studies.edit_pictures --out docs/images        draws what results/yelp.json has records of

A line is the highest accuracy, over ways of editing and their strengths, at which validation sentences keep at least a content
(BLEU to the source). Strengths of different systems do not compare, but points at equal content do. LatentOps is the ODE under
the VAE of weight beta, and so the line of that VAE is of vectors alone.

References: Liu et al. 2022 (arXiv 2208.00638), LatentOps; Liu et al. 2024 (arXiv 2402.19009), section 4.1, the tasks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from diled.studies.commands import draw_pictures
from diled.studies.render import title
from diled.studies.render_texts import TASKS, WAYS, Curve, accuracy_at, curve_of, trained

__all__ = ["NAMES", "fronts", "main", "pictured"]

NAMES = {
    "sentiment": "sentiment, learnt from Yelp",
    "sst2": "sentiment, learnt from movie reviews",
    "tense": "tense",
    "both": "sentiment and tense",
    "sst2+tense": "sentiment of movie reviews and tense",
}
"""Task -> the heading of its panel."""
DASHES = ("-", "--", ":")
"""Of lines, when all colours are taken."""


def fronts(path: Path) -> dict[str, dict[str, Curve]]:
    """Task -> system -> (content, accuracy), from the most content down; variants of a system are left out."""
    found: dict[str, dict[str, Curve]] = {task: {} for task in TASKS}
    for system, records in trained(path).items():
        if "/" in system:
            continue
        for task in TASKS:
            curves = {way: curve_of(records, task, way) for way in WAYS}
            named = {title(system): list(curves.values())}
            if system == "beta_vae":
                named = {title(system): [curves["vector"]], "LatentOps": [curves["ode"]]}
            for name, some in named.items():
                line = front([curve for curve in some if curve])
                if line:
                    found[task][name] = line
    return {task: lines for task, lines in found.items() if lines}


def front(curves: list[Curve]) -> Curve:
    """The highest accuracy of several curves at each content that a point of theirs has, from the most content down."""
    contents = sorted({content for curve in curves for content, _ in curve}, reverse=True)
    return [
        (content, max(a for curve in curves for a in [accuracy_at(curve, content)] if a is not None))
        for content in contents
    ]


def draw(path: Path, out: Path) -> bool:
    """One panel for each task; whether there was anything to draw."""
    found = fronts(path)
    if not found:
        return False
    from diled.evaluation.plots import MODELS, render

    names = list(dict.fromkeys(name for lines in found.values() for name in lines))
    styles = {
        name: (MODELS[i % len(MODELS)][0], DASHES[i // len(MODELS) % len(DASHES)]) for i, name in enumerate(names)
    }

    def drawn(figure: Any, _: Any) -> None:
        panels = list(figure.subplots(2, 3, sharex=True, sharey=True).flat)
        for axis, (task, lines) in zip(panels, found.items(), strict=False):
            for name, line in lines.items():
                colour, dash = styles[name]
                axis.plot(*zip(*line, strict=True), color=colour, ls=dash, marker="o", ms=2.5, lw=1.2, label=name)
            axis.set_title(NAMES[task], fontsize=9)
            axis.set(ylabel="accuracy", ylim=(-0.03, 1.05))
            axis.label_outer()
        for i, axis in enumerate(panels):
            axis.set_axis_off() if i >= len(found) else None
            if i < len(found) <= i + 3:  # nothing below
                axis.set_xlabel("content kept (BLEU)")
                axis.tick_params(labelbottom=True)
        handles = {
            label: handle for axis in panels for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        panels[-1].legend(handles.values(), handles.keys(), loc="center", frameon=False)

    light, _ = render(drawn, (10.0, 6.2))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(light)
    return True


def pictured(path: Path, images: Path) -> str:
    """The picture of a study for a page that stands beside the folder of images; a sentence without any."""
    name = f"{path.stem}-edits.png"
    if not fronts(path):
        return "Nothing is recorded yet."
    if not (images / name).exists():
        return f"`{name}` is recorded and not drawn yet."
    return f"![Accuracy of edits against the content that is kept]({images.name}/{name})"


def main(argv: list[str] | None = None) -> int:
    """Draw from the command line."""
    pictures = {f"{study}-edits.png": (study, draw) for study in ("yelp", "yelp-gpu")}
    return draw_pictures("edit_pictures", "Pictures of the edits that are recorded.", pictures, argv)


if __name__ == "__main__":
    sys.exit(main())
