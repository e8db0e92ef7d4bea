"""What edits of a label column do to held-out texts, strength by strength: what `evaluate --edit` measures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from diled.arguments import edit_of
from diled.data import Data, from_strings, to_strings
from diled.editing import STRENGTH, apply_edit
from diled.errors import ConfigError, DataError, did_you_mean
from diled.evaluation.edits import AttributeJudge, Task, edit_curve
from diled.evaluation.measure import Measured
from diled.evaluation.text_judge import classifier_of, judge_of, too_few
from diled.latent.edit import Edit
from diled.model import Model

__all__ = ["away_from", "judged", "rows_of", "text_edits"]

FEW = 200
"""Texts of each direction."""
SHARES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Strengths, in units of what an edit does unless one says otherwise."""


def judged(data: Data, column: str) -> AttributeJudge:
    """The classifier of a column, as a judge of edits."""
    classifier, names = classifier_of(data, column), data.spec.labels[column]
    accuracy = math.nan if classifier.held_out is None else classifier.held_out
    return AttributeJudge(lambda texts: [names[k] for k in classifier.predict(texts)], accuracy)


def away_from(data: Data, column: str, wanted: str, split: str = "validation", n: int = FEW) -> Task:
    """Up to n texts of a split that are labelled, but not with the class, by a fixed draw: they are to become so."""
    part, names = getattr(data, split), data.spec.labels[column]
    rows = np.flatnonzero((part.labels[column] >= 0) & (part.labels[column] != names.index(wanted)))
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:n])
    return Task(to_strings(part.values[rows], data.spec), {column: wanted}, rows=part.values[rows])


def rows_of(task: Task, model: Model) -> np.ndarray:
    """The texts of a task in the tokens of a model, (N, L)."""
    return from_strings(task.texts, model.spec, convert=True) if task.rows is None else task.rows


def text_edits(model: Model, data: Data, column: str, method: str = "vector") -> list[dict[str, Measured]]:
    """Accuracy, content kept, fluency and unchanged texts at each strength, over all classes in turn; 0 is no edit at all.

    Fluency only where there are texts enough for a judge. A class that no training text has cannot be learnt, and is left out
    with a note on `edit_accuracy`.

    Args:
        model: with codes.
        data: of text, with the column; attributes are learnt from its training texts, and test texts are edited.
        column: of classes.
        method: `vector`, `classifier` or `ode`.

    Raises:
        ConfigError: no text, no such column, or one of numbers; an unknown method, or one that the prior does not admit.
        DataError: no test text is of another class, or training texts have fewer than two.
    """
    if data.spec.kind != "text":
        raise ConfigError(f"{data.name} holds {data.spec.kind}s: edits are measured of text.")
    classes = {name: values for name, values in data.spec.labels.items() if values}
    if column not in classes:
        raise ConfigError(f"There is no label column '{column}' of classes.{did_you_mean(column, classes)}")
    tasks: list[Task] = []
    changes: list[Edit] = []
    refusals: list[DataError] = []
    for task in (away_from(data, column, name, "test") for name in classes[column]):
        try:
            if task.texts:
                changes.append(edit_of(model, [data], [f"{column}={task.wanted[column]}"], method, None))
                tasks.append(task)
        except DataError as refusal:
            refusals.append(refusal)
    if not tasks:
        none = DataError(f"No test text of {data.name} has a '{column}' to be edited away from.")
        raise refusals[0] if refusals else none

    def edit(i: int, strength: float) -> list[str]:
        if not strength:
            return tasks[i].texts
        return model.strings(apply_edit(model, rows_of(tasks[i], model), changes[i], strength))

    judges = {column: judged(data, column)}
    perplexity = None if too_few(len(data.train), len(data.validation)) else judge_of(data).perplexity
    tried = (0.0, *(share * STRENGTH[method] for share in SHARES))
    curve = edit_curve(edit, tried, tasks, judges=judges, perplexity=perplexity)
    for point in curve:
        of_all = point["edit_accuracy"]
        point["edit_accuracy"] = replace(of_all, note="; ".join([of_all.note, *map(str, refusals)]))
    return curve
