"""From models to an audit: sections that are never measured twice, the table and the page.

    OUT/cells/NAME-SECTION-KEY.json   figures and remarks of one section of one model; .npz beside it: numbers per example
    OUT/audit.json                    all figures, with intervals of differences from the first model
    OUT/audit.html                    to look at

KEY is a hash of all that the figures depend on: weights, data with their measure, effort, seed. A section is measured again
only where one of these differs, and what was measured with other settings stays.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diled.config import DataSpec, PoolConfig
from diled.data import Data, Split
from diled.data.splits import hashed
from diled.data.synthesis import open_pool, read_manifest, set_hash
from diled.draws import seeded
from diled.errors import ConfigError, DataError, ModelError, NoBound
from diled.evaluation.audit import BRIEF, SECTIONS, THOROUGH, Effort, Examples, Section, audit_section
from diled.evaluation.audit_columns import competing
from diled.evaluation.audit_page import audit_tables, write_audit
from diled.evaluation.audited import Audited, combined, differences, refusals, undecided, verdict
from diled.evaluation.cells import finite, keep_section, kept_section
from diled.evaluation.measure import Measured
from diled.evaluation.tables import table_text
from diled.models.io import write_json
from diled.pools import sequences_of
from diled.runs import provenance
from diled.session import duration
from diled.space import raw_tensor, to_space
from diled.subjects import Subject, audit_folder, is_ours, some_of, subjects_of

__all__ = [
    "BRIEF",
    "MOST",
    "THOROUGH",
    "Effort",
    "Subject",
    "audit_folder",
    "audit_models",
    "examples_of",
    "is_ours",
    "report_audit",
    "subjects_of",
]

USES: dict[str, tuple[str, ...]] = {
    "bounds": ("bounded", "samples"),
    "amortization": ("examples", "samples", "steps"),
    "likelihood": ("examples", "samples", "steps", "weights", "ode_weights", "ode_examples", "annealed", "annealing"),
    "robustness": (
        "radii", "references", "restarts", "iterations",
        "published_references", "published_radius", "published_iterations",
    ),
    "codes": ("examples", "references", "pairs"),
    "pool": ("network",),
}  # fmt: skip
"""Section -> what of the effort its figures depend on."""
VERSION = {"bounds": 5, "pool": 6}
"""Section -> a number that is raised when it comes to measure something else, so that earlier cells are not taken for it; of
the others 4."""
MOST = 10_000
"""Examples of each real split, and of a synthetic set, that an audit looks at; copies are sought in all training examples."""
PART = 5000
"""Training examples beyond these that are in model space at once."""
UNMEASURED = {"labels", "mode", "size_policy", "aligned", "reading"}
"""What of a `DataSpec` may differ between models that are compared: it changes neither examples nor the unit of bounds."""


def audit_models(
    subjects: Sequence[Subject],
    folder: Path,
    *,
    effort: Effort = BRIEF,
    sections: Sequence[str] = (),
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, Audited]:
    """Audit models on their real data; sections that `folder` already holds are read.

    Args:
        subjects: with the same test examples in the same measure.
        folder: of cells, audit.json and audit.html.
        effort: how much work.
        sections: which, of `SECTIONS`; none named: all that apply.
        seed: of all draws.
        say: prints a line as each section is done.

    Raises:
        ConfigError: an unknown section, more examples than `MOST`, a name that two subjects share, or a subject with other
            test examples, or examples in another measure, than the first; a folder that cannot be written to.
    """
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise ConfigError(f"There is no section '{unknown[0]}' in an audit. Sections: {', '.join(SECTIONS)}.")
    _check_counts(effort)
    _check_comparable(subjects)
    cells = folder / "cells"
    try:
        cells.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"Could not write to {folder}: {error.strerror or error}. Choose another --out.") from None
    found: dict[str, Audited] = {}
    classes = None
    for subject in subjects:
        examples, data = examples_of(subject, seed), _data_hash(subject.data)
        classes = classes if found else examples.test_labels
        measured: dict[str, Section | str] = {}
        for name in sections or SECTIONS:
            if name == "pool" and (subject.pool is None or subject.pool.source is None):
                if sections:  # asked for by name
                    measured[name] = _why_no_pool(subject.pool)
                continue
            earlier = {done: section for done, section in measured.items() if isinstance(section, Section)}
            looked_at = _with_classes(examples, data, classes) if name == "robustness" else (examples, data)
            measured[name] = _section(subject, name, *looked_at, effort, seed, earlier, cells, say)
        notes = (*subject.notes, *_notes_on(subject.data.spec, seed))
        found[subject.name] = combined(measured, notes, *map(_fingerprint, (subject.data.train, subject.data.test)))
    return found


def _check_counts(effort: Effort) -> None:
    for name in ("bounded", "examples", "references", "annealed"):
        count = getattr(effort, name)
        if count > MOST:
            raise ConfigError(f"{name} = {count:,}: an audit looks at {MOST:,} examples of each split at most.")


def _check_comparable(subjects: Sequence[Subject]) -> None:
    """Refuse names that two models share, and models of other examples or another measure than the first."""
    names = [subject.name for subject in subjects]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"Two models are called {twice[0]}: name each model once.")
    for other in subjects[1:]:
        first, keys = subjects[0], [key for key in DataSpec.model_fields if key not in UNMEASURED]
        kinds = [one.data.spec.kind for one in (first, other)]
        if kinds[0] != kinds[1]:
            raise ConfigError(
                f"{first.name} is a model of the kind of data '{kinds[0]}' and {other.name} of '{kinds[1]}': audit them apart, "
                "each with its own --out."
            )
        if first.data.spec.tokenizer != other.data.spec.tokenizer:
            raise ConfigError(
                f"{first.name} and {other.name} are models of texts in other tokens, so neither bounds nor attacks compare: "
                "audit them apart, each with its own --out."
            )
        for key in keys:
            mine, theirs = getattr(first.data.spec, key), getattr(other.data.spec, key)
            if mine != theirs:
                raise ConfigError(
                    f"{first.name} and {other.name} are models of data in different measures: {key} is {mine} for {first.name} "
                    f"and {theirs} for {other.name}. Bounds do not compare then: audit them apart, each with its own --out."
                )
        if _fingerprint(first.data.test) != _fingerprint(other.data.test):
            raise ConfigError(
                f"{other.name} has other test examples than {first.name} ({len(other.data.test):,} of {other.data.name} and "
                f"{len(first.data.test):,} of {first.data.name}): name one data set with --data."
            )


def _why_no_pool(pool: PoolConfig | None) -> str:
    if pool is None:
        return "it is not known what it was trained on."
    if pool.fresh is not None:
        return "its synthetic examples were drawn as it trained (--pool.fresh), so there is no set to look at."
    return "it was trained on real examples only."


def _notes_on(spec: DataSpec, seed: int) -> tuple[str, ...]:
    if spec.levels is None:
        return (
            "units: bounds and log p(x) are of densities in the data's own units, as in evaluate; other units would move all "
            "of them by the same number, and no gap.",
        )
    if spec.binarize != "dynamic":
        return ()
    return (
        "examples: each was binarised once, with seed "
        f"{seed}, every pixel white with the probability of its grey value; all models, and all figures that do not say "
        "otherwise, are of these draws.",
    )


def _section(
    subject: Subject,
    name: str,
    examples: Examples,
    data: str,
    effort: Effort,
    seed: int,
    earlier: dict[str, Section],
    cells: Path,
    say: Callable[[str], None],
) -> Section | str:
    """One section from its cell, or measured; or the words of a refusal in its place.

    That a model has no bound follows from what the cell's key names. Another refusal may pass: a package is missing on this
    machine, a synthetic set was moved. So only the first is kept.
    """
    start = time.monotonic()
    result: Section | str
    try:
        key = _key(subject, name, effort, seed, data, "amortization" in earlier)
        kept = kept_section(cells, name, key)
        if kept is not None:
            say(f"{subject.name}: {name}, already measured")
            return kept
        if name == "pool":
            examples = _with_pool(subject, examples, seed)
        result = finite(audit_section(name, subject.density, examples, effort, seed, earlier))
        keep_section(cells, subject.name, name, key, result)
    except NoBound as refusal:
        result = str(refusal)
        keep_section(cells, subject.name, name, key, result)
    except (ConfigError, ModelError, DataError) as refusal:
        result = str(refusal)
    said = f"no figures: {result}" if isinstance(result, str) else duration(time.monotonic() - start)
    say(f"{subject.name}: {name}, {said}")
    return result


def _key(subject: Subject, name: str, effort: Effort, seed: int, data: str, amortized: bool) -> str:
    """What a section's figures depend on, as a hash; those of log p(x) on whether the best q were at hand.

    Raises:
        DataError: the synthetic set is not there, so it cannot be said which it is, or it is another than the model's.
    """
    used = {key: value for key, value in asdict(effort).items() if key in USES[name]}
    pool: list[Any] = []
    if name == "pool" and subject.pool is not None and subject.pool.source is not None:
        manifest = read_manifest(subject.pool.source)
        if subject.pool_sha256 not in (None, set_hash(subject.pool.source)):
            raise DataError(
                f"The synthetic set in {subject.pool.source} has changed since {subject.name} was trained on it: put that set "
                "back, or train again."
            )
        pool = [*(manifest[part] for part in ("settings", "source", "shards")), subject.pool.folds]
    if name == "pool" and subject.data.spec.kind == "text":  # judged by a model that stops by validation texts
        pool.append(_fingerprint(subject.data.validation))
    facts = [VERSION.get(name, 4), subject.identity, name, used, seed, data, pool, amortized and name == "likelihood"]
    if subject.data.spec.levels is None:
        facts.append("nats in the data's own units")
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


# Real and synthetic examples ------------------------------------------------------------------------------------------


def examples_of(subject: Subject, seed: int) -> Examples:
    """Real examples in model space, in a fixed random order, at most `MOST` of each split, and the other training examples
    where they are asked for.

    Binarised ones are drawn once, with the seed, and each split by itself: test examples are the same for models of
    training sets of different sizes.
    """
    spec, data = subject.data.spec, subject.data
    train, test = (_shuffled(split, MOST) for split in (data.train, data.test))
    raw = {name: raw_tensor(split.values) for name, split in (("train", train), ("test", test))}
    grey = spec.model_copy(update={"binarize": "none"})
    spaces = {}
    for i, (name, values) in enumerate(raw.items()):
        with seeded(seed, 6, i):
            spaces[name] = to_space(values, spec)

    def rest() -> Iterator[torch.Tensor]:
        left = _order(data.train)[MOST:]
        for start in range(0, len(left), PART):
            with seeded(seed, 6, 2 + start):
                part = to_space(raw_tensor(data.train.values[left[start : start + PART]]), spec)
            yield part

    classes = [
        c for c, v in train.labels.items() if c in test.labels and v.dtype.kind == "i" and len(np.unique(v[v >= 0])) > 1
    ]
    labels = classes[0] if classes else None
    return Examples(
        train=spaces["train"],
        test=spaces["test"],
        grey=to_space(raw["test"], grey),
        train_labels=None if labels is None else train.labels[labels],
        test_labels=None if labels is None else test.labels[labels],
        data=data,
        columns={"train": train.labels, "test": test.labels},
        rest=rest,
    )


def _with_classes(examples: Examples, data: str, classes: np.ndarray | None) -> tuple[Examples, str]:
    """The examples with these classes of test examples, and the hash of the data with them where they are not its own.

    References of attacks are drawn from each class: from those of the first model for all, so that all have the same.
    """
    if classes is None or examples.test_labels is None:
        same = classes is examples.test_labels
    else:
        same = np.array_equal(classes, examples.test_labels)
    if same:
        return examples, data
    return replace(examples, test_labels=classes), f"{data} {'no classes' if classes is None else hashed(classes)}"


def _with_pool(subject: Subject, examples: Examples, seed: int) -> Examples:
    """The examples with those of the synthetic set, which are grey, or two-valued, where the data are binarised.

    Raises:
        DataError: the set is not there, damaged, or of other data.
    """
    raw, spec = _pool_of(subject), subject.data.spec
    with seeded(seed, 8):
        found = replace(examples, pool=to_space(raw, spec))
    if spec.binarize != "dynamic" or bool(((raw == spec.low) | (raw == spec.high)).all()):
        return found
    grey = spec.model_copy(update={"binarize": "none"})
    shown = examples_of(replace(subject, data=replace(subject.data, spec=grey)), seed)
    return replace(found, shown=replace(shown, pool=to_space(raw, grey)))


def _pool_of(subject: Subject) -> torch.Tensor:
    """Raw values of the synthetic set."""
    assert subject.pool is not None
    assert subject.pool.source is not None
    if subject.data.spec.sequential:
        return raw_tensor(some_of(sequences_of(subject.pool, subject.data).values, MOST))
    values = open_pool(subject.pool.source, subject.data.spec).values
    count = None if subject.pool.folds is None else subject.pool.folds * len(subject.data.train)
    return raw_tensor(some_of(values[:count], MOST))


def _shuffled(split: Split, most: int) -> Split:
    return split.subset(_order(split)[:most])


def _order(split: Split) -> np.ndarray:
    """Folders come class by class."""
    return np.random.default_rng(0).permutation(len(split))


def _fingerprint(split: Split) -> str:
    """Which examples these are, in which order."""
    return hashed(split.values)


def _data_hash(data: Data) -> str:
    """All of the data that figures depend on: examples, labels, and the measure of bounds."""
    facts: list[Any] = [data.spec.model_dump_json(exclude={"aligned", "reading"})]
    for split in (data.train, data.test):
        facts += [_fingerprint(split), {name: hashed(column) for name, column in split.labels.items()}]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def report_audit(
    found: dict[str, Audited], subjects: Sequence[Subject], folder: Path, *, seed: int = 0
) -> dict[str, dict[str, Measured]]:
    """Print what was found, write audit.json and audit.html, and return the figures."""
    figures = {name: one.figures for name, one in found.items()}
    between, close, said = differences(found, seed), undecided(found, competing(figures), seed), verdict(found, seed)
    record = {
        name: {
            "figures": {metric: asdict(m) for metric, m in one.figures.items()},
            "larger_than_first": {gap: asdict(interval) for gap, interval in between.get(name, {}).items()},
            "notes": one.notes,
            "refused": one.refused,
        }
        for name, one in found.items()
    }
    write_json(folder / "audit.json", record)
    data = subjects[0].data
    path = write_audit(
        folder / "audit.html",
        title=f"Audit of {len(found)} model{'s' * (len(found) > 1)} on {data.name}",
        summary=said,
        spec=data.spec,
        figures=figures,
        arrays={name: one.arrays for name, one in found.items()},
        differences={
            name: {gap: f"{i.difference.value:+.3g} ({i.low:+.3g} to {i.high:+.3g})" for gap, i in row.items()}
            for name, row in between.items()
        },
        undecided=close,
        refused=refusals(found),
        notes={name: one.notes for name, one in found.items()},
        provenance={key: str(value) for key, value in provenance(seed=seed, data=data.name).items()},
    )
    for table, better in audit_tables(figures, close):
        print(table_text(table, better))
    for sentence in (*said, *refusals(found)):
        print(sentence)
    print(f"Audit: {path}")
    return figures
