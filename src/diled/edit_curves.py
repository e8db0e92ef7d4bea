"""What edits of a label column do to held-out texts, strength by strength: what `evaluate --edit` measures."""

from __future__ import annotations

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

__all__ = ["away_from", "judged", "text_edits"]

FEW = 200
"""Texts of each direction."""
SHARES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Strengths, in units of what an edit does unless one says otherwise."""


def judged(data: Data, column: str) -> AttributeJudge:
    """The classifier of a column, as a judge of edits."""
    classifier, names = classifier_of(data, column), data.spec.labels[column]
    return AttributeJudge(
        lambda texts: [names[k] for k in classifier.predict(texts)], classifier.held_out or float("nan")
    )


def away_from(data: Data, column: str, wanted: str, split: str = "validation", n: int = FEW) -> Task:
    """Up to n texts of a split that are labelled, but not with the class, by a fixed draw: they are to become so."""
    part, names = getattr(data, split), data.spec.labels[column]
    rows = np.flatnonzero((part.labels[column] >= 0) & (part.labels[column] != names.index(wanted)))
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:n])
    return Task(to_strings(part.values[rows], data.spec), {column: wanted})


def text_edits(model: Model, data: Data, column: str, method: str = "vector") -> list[dict[str, Measured]]:
    """Accuracy, content kept, fluency and unchanged texts at each strength, over all classes in turn; 0 is no edit at all.

    Fluency only where there are texts enough for a judge.

    Args:
        model: with codes.
        data: of text, with the column; attributes are learnt from its training texts, and test texts are edited.
        column: of classes.
        method: `vector`, `classifier` or `ode`.

    Raises:
        ConfigError: no text, no such column, or one of numbers; an unknown method, or one that the prior does not admit.
        DataError: no test text is of another class.
    """
    if data.spec.kind != "text":
        raise ConfigError(f"{data.name} holds {data.spec.kind}s: edits are measured of text.")
    if column not in data.spec.labels:
        raise ConfigError(f"There is no label column '{column}' of classes.{did_you_mean(column, data.spec.labels)}")
    tasks = [task for name in data.spec.labels[column] if (task := away_from(data, column, name, "test")).texts]
    if not tasks:
        raise DataError(f"No test text of {data.name} has a '{column}' to be edited away from.")
    changes: list[Edit] = [edit_of(model, [data], [f"{column}={t.wanted[column]}"], method, None) for t in tasks]

    def edit(i: int, strength: float) -> list[str]:
        if not strength:
            return tasks[i].texts
        rows = from_strings(tasks[i].texts, model.spec, convert=True)
        return model.strings(apply_edit(model, rows, changes[i], strength))

    judges = {column: judged(data, column)}
    perplexity = None if too_few(len(data.train), len(data.validation)) else judge_of(data).perplexity
    tried = (0.0, *(share * STRENGTH[method] for share in SHARES))
    return edit_curve(edit, tried, tasks, judges=judges, perplexity=perplexity)
