"""Train and measure the rows of a table of text.

    python -m diled.studies.texts yelp --seeds 0 1 2
    python -m diled.studies.texts yelp-selection --split validation        # to choose, never on test data

Like `table`, with edits beside it. For each way of editing W (`vector`; `ode`, LatentOps' for a prior N(0, I)) and each task:

    sentiment/W    the sentences of Li et al. 2018 to the other sentiment; also BLEU to rewrites by people
    sst2/W         the same sentences, with codes of movie reviews (SST-2) to learn the sentiment from
    tense/W        test sentences of the tense set to the other tense, learnt from its validation split
    both/W         the first sentences to the other sentiment and to the past at once

    edit_accuracy/T/W, edit_content/T/W, edit_reference/T/W, edit_perplexity/T/W, edit_strength/T/W

at the least strength with an accuracy of 85 % on validation sentences (else the one with the highest), and the first two at
every strength as .../s=S. Attributes are learnt from training sentences alone, and judged by classifiers of words.

References: Shen et al. 2017, Li et al. 2018, Shen et al. 2020 and Socher et al. 2013, the data; Liu et al. 2022 (arXiv
2208.00638), LatentOps; Liu et al. 2024 (arXiv 2402.19009), section 4.1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from diled.arguments import edit_of
from diled.config import PreprocessConfig, SequenceConfig, TextConfig
from diled.data import Data, from_strings, open_data
from diled.data.known import yelp_rewrites
from diled.editing import apply_edit
from diled.errors import ConfigError
from diled.evaluation.edits import AttributeJudge, edit_figures
from diled.evaluation.measure import Measured
from diled.evaluation.text_judge import classifier_of, judge_of
from diled.latent.edit import Edit
from diled.model import Model
from diled.reporting import figures
from diled.studies.table import arguments, run_study

__all__ = ["METHODS", "STRENGTHS", "Task", "edits", "main", "measured"]

SAMPLES = 5000
METHODS = ("vector", "ode")
STRENGTHS = {"vector": (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0), "ode": (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)}
"""Of each way of editing, those that are tried."""
ENOUGH = 0.85
"""Accuracy from which a strength is enough."""
FEW = 500
"""Sentences of each class that are edited."""


@dataclass(frozen=True)
class Task:
    """Sentences that are edited in one direction.

    Attributes:
        texts: as they are.
        wanted: column -> class.
        references: rewrites by people, where there are any.
    """

    texts: list[str]
    wanted: dict[str, str]
    references: list[str] | None = None


@cache
def other(name: str, tokenizer: str, length: int) -> Data:
    """Another set of text in a model's tokens, without what is too long for it."""
    sequence = SequenceConfig(kind="text", max_length=length)
    return open_data(name, PreprocessConfig(sequence=sequence, text=TextConfig(tokenizer=tokenizer), on_error="skip"))


def measured(model: Model, data: Data, study: str = "") -> dict[str, Measured]:
    """All figures of a row."""
    found = figures(model, data, samples=SAMPLES)
    if model.density.has_codes and data.name == "yelp":
        found |= edits(model, data)
    return found


def edits(model: Model, data: Data) -> dict[str, Measured]:
    """Figures of all tasks and ways of editing."""
    spec = data.spec
    assert spec.tokenizer is not None
    tense, movies = (other(name, spec.tokenizer, spec.numel) for name in ("yelp-tense", "sst2"))
    judges = {"sentiment": judged(data, "sentiment"), "tense": judged(tense, "tense")}
    perplexity = judge_of(data).perplexity
    texts, wanted, rewrites = yelp_rewrites()
    asked = {c: [i for i, w in enumerate(wanted) if w == c] for c in ("negative", "positive")}
    of_people = {
        c: Task([texts[i] for i in rows], {"sentiment": c}, [rewrites[i] for i in rows]) for c, rows in asked.items()
    }
    away = {c: some(data, "sentiment", c) for c in ("negative", "positive")}
    tasks: dict[str, tuple[list[Data], list[Task], list[Task]]] = {
        "sentiment": ([data], list(of_people.values()), list(away.values())),
        "sst2": ([movies], list(of_people.values()), list(away.values())),
        "tense": (
            [tense],
            [some(tense, "tense", c, "test") for c in ("past", "present")],
            [some(tense, "tense", c) for c in ("past", "present")],
        ),
        "both": (
            [data, tense],
            [Task(t.texts, {**t.wanted, "tense": "past"}, t.references) for t in of_people.values()],
            [Task(t.texts, {**t.wanted, "tense": "past"}) for t in away.values()],
        ),
    }
    found: dict[str, Measured] = {}
    for name, (sets, held_out, chosen_on) in tasks.items():
        for method in METHODS:
            key = f"{name}/{method}"
            try:
                changes = [edit_of(model, sets, attributes(t), method, None) for t in held_out]
            except ConfigError as refusal:  # no prior to follow
                found[f"edit_accuracy/{key}"] = Measured(None, note=str(refusal))
                continue
            found |= curve(model, key, changes, held_out, chosen_on, STRENGTHS[method], judges, perplexity)
    return found


def judged(data: Data, column: str) -> AttributeJudge:
    """The classifier of a column, as a judge of edits."""
    classifier, names = classifier_of(data, column), data.spec.labels[column]
    return AttributeJudge(
        lambda texts: [names[k] for k in classifier.predict(texts)], classifier.held_out or float("nan")
    )


def some(data: Data, column: str, wanted: str, split: str = "validation") -> Task:
    """Up to `FEW` sentences of a split that are not of the class, by a fixed draw, which are to become so."""
    part = getattr(data, split)
    rows = np.flatnonzero(part.labels[column] != data.spec.labels[column].index(wanted))
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:FEW])
    from diled.data import to_strings

    return Task(to_strings(part.values[rows], data.spec), {column: wanted})


def attributes(task: Task) -> list[str]:
    """What is wanted, as `edit` reads it."""
    return [f"{column}={name}" for column, name in task.wanted.items()]


def curve(
    model: Model,
    key: str,
    changes: Sequence[Edit],
    held_out: Sequence[Task],
    chosen_on: Sequence[Task],
    strengths: Sequence[float],
    judges: dict[str, AttributeJudge],
    perplexity: Callable[[Sequence[str]], float],
) -> dict[str, Measured]:
    """Figures at every strength, and all of them at the strength that validation sentences choose."""
    of_dev, of_test = (
        [at(model, changes, tasks, s, judges, perplexity) for s in strengths] for tasks in (chosen_on, held_out)
    )
    right = [m["edit_accuracy"].value or 0.0 for m in of_dev]
    best = next((i for i, share in enumerate(right) if share >= ENOUGH), int(np.argmax(right)))
    found = {
        f"edit_strength/{key}": Measured(strengths[best], note=f"accuracy {right[best]:.1%} on validation sentences")
    }
    names = {
        "edit_accuracy": "edit_accuracy",
        "content_bleu": "edit_content",
        "reference_bleu": "edit_reference",
        "edited_perplexity": "edit_perplexity",
        "unchanged": "edit_unchanged",
    }
    for metric, m in of_test[best].items():
        head, _, column = metric.partition("/")
        found[f"{names[head]}/{key}{'/' + column if column else ''}"] = m
    for s, row in zip(strengths, of_test, strict=True):
        found[f"edit_accuracy/{key}/s={s:g}"] = row["edit_accuracy"]
        found[f"edit_content/{key}/s={s:g}"] = row["content_bleu"]
    return found


def at(
    model: Model,
    changes: Sequence[Edit],
    tasks: Sequence[Task],
    strength: float,
    judges: dict[str, AttributeJudge],
    perplexity: Callable[[Sequence[str]], float],
) -> dict[str, Measured]:
    """Figures of several directions together at one strength: means over all sentences, BLEU of the whole corpus."""
    before: list[str] = []
    after: list[str] = []
    references: list[str] = []
    shares: dict[str, list[tuple[Measured, int]]] = {}
    for change, task in zip(changes, tasks, strict=True):
        rows = from_strings(task.texts, model.spec, convert=True)
        edited = model.strings(apply_edit(model, rows, change, strength))
        before, after = before + task.texts, after + edited
        references += task.references or []
        for name, m in edit_figures(task.texts, edited, judges=judges, wanted=task.wanted).items():
            shares.setdefault(name, []).append((m, len(edited)))
    whole = edit_figures(
        before,
        after,
        judges=judges,
        wanted=tasks[0].wanted,
        references=references if len(references) == len(after) else None,
        perplexity=perplexity,
    )
    for name, parts in shares.items():
        if name.startswith("edit_accuracy"):  # each direction wants another class
            n = sum(k for _, k in parts)
            p = sum((m.value or 0.0) * k for m, k in parts) / n
            whole[name] = Measured(p, float(np.sqrt(p * (1 - p) / n)), n, parts[0][0].note)
    return whole


def main(argv: list[str] | None = None) -> int:
    """Run a study from the command line."""
    chosen = arguments("texts", "Train and measure a table of text.").parse_args(argv)
    return run_study("texts", chosen, partial(measured, study=chosen.study))


if __name__ == "__main__":
    sys.exit(main())
