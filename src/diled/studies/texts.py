"""Train and measure the rows of a table of text.

    python -m diled.studies.texts yelp --seeds 0 1 2
    python -m diled.studies.texts yelp --split validation --results dev     # to choose, never on test data
    python -m diled.studies.texts yelp --steps 20                           # a trial: few steps, and few texts measured

Like `table`, with edits beside it. For each way of editing W (`vector`; `ode`, LatentOps' for a prior N(0, I)) and each task:

    sentiment/W     the sentences of Li et al. 2018 to the other sentiment; also BLEU to rewrites by people
    sst2/W          the same sentences, with codes of movie reviews (SST-2) to learn the sentiment from
    tense/W         test sentences of the tense set to the other tense, learnt from its validation split
    both/W          the first sentences to the other sentiment and to the past at once
    sst2+tense/W    the same, with the sentiment of movie reviews

    edit_accuracy/T/W, edit_content/T/W, edit_reference/T/W, edit_perplexity/T/W, edit_unchanged/T/W, edit_strength/T/W

at the least strength with an accuracy of 85 % on validation sentences (else the one with the highest; `edit_chosen/T/W` is that
accuracy). Accuracy and content at every strength, .../s=S, are of these validation sentences. In the place of W, `unchanged`
stands for the sentences as they were, and `people` for the rewrites. Attributes are learnt from training sentences alone, and
judged by classifiers of words. With `--split validation` nothing but validation sentences is edited.

On Yelp, codes of samples, reconstructions and interpolations are decoded by a search with 4 beams, and those of a prior that
diffuses are sampled in 100 ancestral steps. Edits are decoded greedily.

References: Shen et al. 2017, Li et al. 2018, Shen et al. 2020 and Socher et al. 2013, the data; Liu et al. 2022 (arXiv
2208.00638), LatentOps; Liu et al. 2024 (arXiv 2402.19009), section 4.1.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from diled.arguments import edit_of
from diled.config import PreprocessConfig, SequenceConfig, TextConfig
from diled.data import Data, open_data
from diled.data.known import yelp_rewrites
from diled.edit_curves import away_from as some
from diled.edit_curves import judged, rows_of
from diled.editing import apply_edit
from diled.errors import ConfigError
from diled.evaluation.edits import AttributeJudge, Task, figures_of_tasks
from diled.evaluation.measure import Measured
from diled.evaluation.text_judge import judge_of
from diled.latent.edit import Edit
from diled.model import Model
from diled.models.sampling import described
from diled.reporting import figures
from diled.studies.table import arguments, run_study

__all__ = ["FULL", "METHODS", "TRIAL", "Sizes", "Task", "edits", "main", "measured", "tasks_of"]

METHODS = ("vector", "ode")
BEAMS = 4
"""Of the search that decodes codes on Yelp."""
SAMPLER: dict[str, Any] = {"sampler": "ancestral", "steps": 100}
"""Of priors that diffuse, on Yelp."""
ENOUGH = 0.85
"""Accuracy from which a strength is enough."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        samples: that are drawn.
        edited: test sentences of each class that are edited, at most.
        tried: validation sentences of each class on which a strength is chosen, at most.
        strengths: of each way of editing, those that are tried.
    """

    samples: int
    edited: int
    tried: int
    strengths: Mapping[str, tuple[float, ...]]


STRENGTHS = {"vector": (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0), "ode": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)}
"""Equally many of each way, so that none has a finer choice."""
FULL = Sizes(5000, 500, 250, STRENGTHS)
TRIAL = Sizes(200, 20, 20, {"vector": (1.0, 2.0), "ode": (2.0,)})


@cache
def other(name: str, tokenizer: str, length: int) -> Data:
    """Another set of text in a model's tokens, without what is too long for it."""
    sequence = SequenceConfig(kind="text", max_length=length)
    return open_data(name, PreprocessConfig(sequence=sequence, text=TextConfig(tokenizer=tokenizer), on_error="skip"))


def measured(model: Model, data: Data, sizes: Sizes = FULL) -> dict[str, Measured]:
    """All figures of a row; where the test split is the validation split, edits are of validation sentences too."""
    if data.name != "yelp" or not model.density.has_codes:
        return figures(model, data, samples=sizes.samples)
    diffuses = described(model.density) != ""
    with model.writing(beams=BEAMS):
        found = figures(model, data, samples=sizes.samples, **(SAMPLER if diffuses else {}))
    return found | edits(model, data, sizes)


def edits(model: Model, data: Data, sizes: Sizes = FULL) -> dict[str, Measured]:
    """Figures of all tasks and ways of editing."""
    spec = data.spec
    assert spec.tokenizer is not None
    tense, movies = (other(name, spec.tokenizer, spec.numel) for name in ("yelp-tense", "sst2"))
    judges = {"sentiment": judged(data, "sentiment"), "tense": judged(tense, "tense")}
    perplexity = judge_of(data).perplexity
    encode, found = _remembered(model), dict[str, Measured]()
    for name, (sets, held_out, chosen_on) in tasks_of(data, tense, movies, sizes).items():
        found |= compared(name, held_out, judges, perplexity)
        for method in METHODS:
            key = f"{name}/{method}"
            try:
                changes = [edit_of(model, sets, attributes(t), method, None, encode=encode) for t in held_out]
            except ConfigError as refusal:  # no prior to follow
                found[f"edit_accuracy/{key}"] = Measured(None, note=str(refusal))
                continue
            found |= curve(model, key, changes, held_out, chosen_on, sizes.strengths[method], judges, perplexity)
    kept = "; ".join(note for note in movies.notes if "too long" in note or "left out" in note or "skipped" in note)
    for key in (key for key in found if key.startswith("edit_strength/sst2")):
        found[key] = replace(found[key], note=f"{found[key].note}; {len(movies.train):,} movie reviews. {kept}".strip())
    return found


Tasks = dict[str, tuple[list[Data], list[Task], list[Task]]]
"""Name -> what attributes are learnt from, sentences that are edited, and those on which the strength is chosen."""


def tasks_of(data: Data, tense: Data, movies: Data, sizes: Sizes) -> Tasks:
    """All tasks. The sentences of Li et al. are test data; without a test split, validation sentences stand for them."""
    away = [some(data, "sentiment", c, n=sizes.tried) for c in ("negative", "positive")]
    moved = [some(tense, "tense", c, n=sizes.tried) for c in ("past", "present")]
    asked, moving = away, moved
    if data.test is not data.validation:
        texts, wanted, rewrites = yelp_rewrites()
        rows = {c: [i for i, w in enumerate(wanted) if w == c][: sizes.edited] for c in ("negative", "positive")}
        asked = [
            Task([texts[i] for i in some], {"sentiment": c}, [rewrites[i] for i in some]) for c, some in rows.items()
        ]
        moving = [some(tense, "tense", c, "test", sizes.edited) for c in ("past", "present")]

    def past(tasks: list[Task]) -> list[Task]:  # people rewrote the sentiment alone
        return [Task(t.texts, {**t.wanted, "tense": "past"}, rows=t.rows) for t in tasks]

    return {
        "sentiment": ([data], asked, away),
        "sst2": ([movies], asked, away),
        "tense": ([tense], moving, moved),
        "both": ([data, tense], past(asked), past(away)),
        "sst2+tense": ([movies, tense], past(asked), past(away)),
    }


def compared(
    name: str, tasks: Sequence[Task], judges: dict[str, AttributeJudge], perplexity: Callable[[Sequence[str]], float]
) -> dict[str, Measured]:
    """What the sentences reach as they were, and what people reach."""
    same = figures_of_tasks([t.texts for t in tasks], tasks, judges=judges, perplexity=perplexity)
    found = named(same, f"{name}/unchanged")
    if all(t.references for t in tasks):
        rewrites = [t.references or [] for t in tasks]
        people = figures_of_tasks(rewrites, tasks, judges=judges, perplexity=perplexity)
        people.pop("reference_bleu")  # of themselves
        found |= named(people, f"{name}/people")
    return found


def _remembered(model: Model) -> Callable[[np.ndarray], np.ndarray]:
    """`model.encode` that computes the codes of the same examples once."""
    codes: dict[bytes, np.ndarray] = {}

    def encode(values: np.ndarray) -> np.ndarray:
        key = hashlib.blake2b(values.tobytes()).digest()
        if key not in codes:
            codes[key] = model.encode(values)
        return codes[key]

    return encode


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
    """Figures of validation sentences at every strength, and all of held-out ones at the strength that these choose."""
    of_dev = [at(model, changes, chosen_on, s, judges, None) for s in strengths]
    right = [m["edit_accuracy"].value or 0.0 for m in of_dev]
    best = next((i for i, share in enumerate(right) if share >= ENOUGH), int(np.argmax(right)))
    found = {
        f"edit_strength/{key}": Measured(strengths[best], note=f"accuracy {right[best]:.1%} on validation sentences"),
        f"edit_chosen/{key}": replace(of_dev[best]["edit_accuracy"], note="of validation sentences"),
    }
    found |= named(at(model, changes, held_out, strengths[best], judges, perplexity), key)
    for s, row in zip(strengths, of_dev, strict=True):
        for metric in ("edit_accuracy", "content_bleu"):
            m = row[metric]
            found[f"{NAMES[metric]}/{key}/s={s:g}"] = replace(m, note=f"validation sentences; {m.note}".rstrip("; "))
    return found


NAMES = {
    "edit_accuracy": "edit_accuracy",
    "content_bleu": "edit_content",
    "reference_bleu": "edit_reference",
    "edited_perplexity": "edit_perplexity",
    "unchanged": "edit_unchanged",
}
"""What the figures of `edit_figures` are recorded as."""


def named(found: Mapping[str, Measured], key: str) -> dict[str, Measured]:
    """Figures under the names of a task and a way."""
    out = {}
    for metric, m in found.items():
        head, _, column = metric.partition("/")
        out[f"{NAMES[head]}/{key}{'/' + column if column else ''}"] = m
    return out


def at(
    model: Model,
    changes: Sequence[Edit],
    tasks: Sequence[Task],
    strength: float,
    judges: dict[str, AttributeJudge],
    perplexity: Callable[[Sequence[str]], float] | None,
) -> dict[str, Measured]:
    """Figures of several directions together at one strength."""
    after = []
    for change, task in zip(changes, tasks, strict=True):
        after.append(model.strings(apply_edit(model, rows_of(task, model), change, strength)))
    return figures_of_tasks(after, tasks, judges=judges, perplexity=perplexity)


def main(argv: list[str] | None = None) -> int:
    """Run a study from the command line."""
    chosen = arguments("texts", "Train and measure a table of text.").parse_args(argv)
    return run_study("texts", chosen, partial(measured, sizes=FULL if chosen.steps is None else TRIAL))


if __name__ == "__main__":
    sys.exit(main())
