"""How well texts were edited: is the attribute there, is the content kept, is it still fluent? And the trade-off between them.

    edit_accuracy/c     share of edited texts that a separately trained classifier of column c gives the wanted class
    edit_accuracy       share that has all wanted classes at once
    content_bleu        BLEU of edited texts against the texts they were made from
    reference_bleu      BLEU against rewrites by people
    edited_perplexity   under a separately trained language model
    unchanged           share of texts that came back word for word

Whoever changes nothing keeps all content, and whoever writes the same sentence always has the attribute: no figure says
something by itself. The curve over strengths does, accuracy against content.

References: Shen et al. 2017 (arXiv 1705.09655), accuracy by a classifier; Li et al. 2018 (arXiv 1804.06437), BLEU against
rewrites; Liu et al. 2022 (arXiv 2208.00638), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from diled.errors import ConfigError, DataError, did_you_mean
from diled.evaluation.measure import Measured, finite
from diled.evaluation.plots import SHORT, Theme, model_colour, render

__all__ = ["AttributeJudge", "Task", "edit_curve", "edit_figures", "figures_of_tasks", "plot_curve"]


@dataclass(frozen=True)
class AttributeJudge:
    """A classifier that was trained apart from the model that it judges.

    Attributes:
        predict: texts (N,) -> names of classes (N,).
        accuracy: of the classifier itself on texts by people, 0 to 1; NaN where it is not known.
    """

    predict: Callable[[Sequence[str]], Sequence[str]]
    accuracy: float = math.nan

    @property
    def note(self) -> str:
        """Its accuracy, in words."""
        if math.isnan(self.accuracy):
            return "told by a classifier of unknown accuracy"
        return f"told by a classifier with {self.accuracy:.1%} accuracy"


def edit_figures(
    before: Sequence[str],
    after: Sequence[str],
    *,
    judges: Mapping[str, AttributeJudge],
    wanted: Mapping[str, str],
    references: Sequence[str] | Sequence[Sequence[str]] | None = None,
    perplexity: Callable[[Sequence[str]], float] | None = None,
) -> dict[str, Measured]:
    """The figures of the list above.

    Args:
        before: (N,) texts as they were.
        after: (N,) edited ones.
        judges: column -> its classifier.
        wanted: column -> the class that was wanted of all texts.
        references: (N,) rewrites by people, or (N,) lists of them; None: no `reference_bleu`.
        perplexity: of texts under a language model; None: no `edited_perplexity`.

    Raises:
        ConfigError: nothing is wanted, or no judge knows a column.
        DataError: no texts, or not one edited text, answer or reference for each.
        ModelError: sacrebleu is not installed.
    """
    return _accuracies(before, after, judges, wanted) | _kept(before, after, references, perplexity)


def _accuracies(
    before: Sequence[str], after: Sequence[str], judges: Mapping[str, AttributeJudge], wanted: Mapping[str, str]
) -> dict[str, Measured]:
    """The shares of edited texts that have what is wanted."""
    if not wanted:
        raise ConfigError("No attribute is wanted of the edited texts: name at least one column and its class.")
    if len(before) != len(after) or len(before) == 0:
        raise DataError(
            f"{len(before)} texts and {len(after)} edited ones: one edited text for each, and at least one."
        )
    found = {}
    has = {column: _told(after, column, judges) == name for column, name in wanted.items()}
    for column, right in has.items():
        found[f"edit_accuracy/{column}"] = _share(right, judges[column].note)
    notes = "; ".join(f"{column}: {judges[column].note}" for column in wanted)
    found["edit_accuracy"] = _share(np.all(list(has.values()), 0), notes)
    return found


def _kept(
    before: Sequence[str],
    after: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]] | None,
    perplexity: Callable[[Sequence[str]], float] | None,
) -> dict[str, Measured]:
    """How much of the texts is left, how near rewrites are, and how fluent edited texts are."""
    from diled.evaluation.text_metrics import bleu, exact_match

    n = len(after)
    found = {"content_bleu": Measured(bleu(after, before), n=n)}
    if references is not None:
        found["reference_bleu"] = Measured(bleu(after, references), n=n)
    if perplexity is not None:
        found["edited_perplexity"] = finite(float(perplexity(after)), n)
    same = exact_match(after, before)
    found["unchanged"] = Measured(same, _stderr(same, n), n)
    return found


@dataclass(frozen=True)
class Task:
    """Texts that are edited in one direction.

    Attributes:
        texts: as they are.
        wanted: column -> class.
        references: rewrites by people, where there are any.
        rows: the same texts in tokens, (N, L), where they were read so: nothing is left in `texts` of
            pieces that a tokenizer does not know.
    """

    texts: list[str]
    wanted: dict[str, str]
    references: list[str] | None = None
    rows: np.ndarray | None = field(default=None, compare=False)


def figures_of_tasks(
    after: Sequence[Sequence[str]],
    tasks: Sequence[Task],
    *,
    judges: Mapping[str, AttributeJudge],
    perplexity: Callable[[Sequence[str]], float] | None = None,
) -> dict[str, Measured]:
    """`edit_figures` of what the texts of all tasks became: shares over all of them, BLEU of the whole corpus.

    Args:
        after: edited texts of each task.
        tasks: which want classes of the same columns, each its own ones.
        judges, perplexity: as of `edit_figures`.

    Raises:
        ConfigError, DataError, ModelError: as `edit_figures`.
    """
    shares: dict[str, list[tuple[Measured, int]]] = {}
    for edited, task in zip(after, tasks, strict=True):
        for name, m in _accuracies(task.texts, edited, judges, task.wanted).items():  # each wants another class
            shares.setdefault(name, []).append((m, len(edited)))
    found = {}
    for name, parts in shares.items():
        n = sum(k for _, k in parts)
        p = sum((m.value or 0.0) * k for m, k in parts) / n
        found[name] = Measured(p, _stderr(p, n), n, parts[0][0].note)
    before, everything = [text for task in tasks for text in task.texts], [text for edited in after for text in edited]
    references = [r for task in tasks for r in task.references or []]
    return found | _kept(before, everything, references if len(references) == len(everything) else None, perplexity)


def edit_curve(
    edit: Callable[[int, float], Sequence[str]],
    strengths: Sequence[float],
    tasks: Sequence[Task],
    *,
    judges: Mapping[str, AttributeJudge],
    perplexity: Callable[[Sequence[str]], float] | None = None,
) -> list[dict[str, Measured]]:
    """`figures_of_tasks` for each strength in turn, with the `strength` itself.

    Args:
        edit: (index of a task, strength) -> its edited texts.
        strengths: of the edit.
        tasks, judges, perplexity: as of `figures_of_tasks`.

    Raises:
        ConfigError, DataError, ModelError: as `edit_figures`.
    """
    return [
        {
            "strength": Measured(float(s)),
            **figures_of_tasks([edit(i, s) for i in range(len(tasks))], tasks, judges=judges, perplexity=perplexity),
        }
        for s in strengths
    ]


def plot_curve(curves: Mapping[str, Sequence[Mapping[str, Measured]]]) -> tuple[bytes, bytes]:
    """Accuracy against content BLEU, one line for each method and one point for each strength, as PNG for light and dark pages.

    Args:
        curves: name of the method -> what `edit_curve` returns.

    Raises:
        DataError: no curve, or one without points.
    """
    if not curves or not all(curves.values()):
        raise DataError("There is no curve to draw: give each method at least one strength.")

    def draw(figure: Figure, theme: Theme) -> None:
        ax = figure.subplots()
        for i, (name, points) in enumerate(curves.items()):
            x = [float(p["content_bleu"].value or 0) for p in points]
            y = [float(p["edit_accuracy"].value or 0) for p in points]
            colour = model_colour(i, theme)
            ax.plot(x, y, color=colour, marker="o", markersize=4, linewidth=1.4, label=name)
            for point, place in zip(points, zip(x, y, strict=True), strict=True):
                said = f"{point['strength'].value:g}"
                ax.annotate(said, place, xytext=(4, 3), textcoords="offset points", fontsize=7, color=colour)
        ax.set(xlabel="content kept (BLEU to the source)", ylabel="edited as wanted (accuracy)", ylim=(-0.03, 1.05))
        figure.legend(loc="outside lower center", ncols=min(len(curves), 4))

    return render(draw, (SHORT, 0.8 * SHORT))


def _told(texts: Sequence[str], column: str, judges: Mapping[str, AttributeJudge]) -> np.ndarray:
    """What the judge of a column says of each text, (N,)."""
    if column not in judges:
        raise ConfigError(f"No classifier judges '{column}'.{did_you_mean(column, judges)}")
    told = np.asarray(judges[column].predict(texts), dtype=object)
    if told.shape != (len(texts),):
        raise DataError(f"The classifier of '{column}' gave {told.size} answers for {len(texts)} texts.")
    return told


def _share(right: np.ndarray, note: str) -> Measured:
    p = float(right.mean())
    return Measured(p, _stderr(p, len(right)), len(right), note)


def _stderr(p: float, n: int) -> float:
    """Of a share p of n, sqrt(p (1 - p) / n)."""
    return math.sqrt(p * (1 - p) / n)
