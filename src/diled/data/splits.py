"""What a data set is: three splits of raw values with labels and ids, and the rule that divides what comes undivided.

A source (folder, Parquet, array, named set) yields `Found`: parts whose examples are still encoded image files, or
arrays. `divide` turns the parts into training, validation and test. It draws from its own fixed seed, apart from the
training seed: training again with another seed must not move examples from test to training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from diled.config import DataSpec, PreprocessConfig
from diled.data.images import ImageItem
from diled.errors import DataError

__all__ = [
    "MIN_EXAMPLES",
    "SPLITS",
    "Data",
    "Found",
    "Part",
    "RowDigests",
    "Split",
    "divide",
    "hashed",
    "limited",
    "some",
    "some_rows",
]

SPLITS = ("train", "validation", "test")
MIN_EXAMPLES = 10


@dataclass(frozen=True, eq=False)
class Split:
    """One split, with raw values as found, after the size and channel policies.

    Attributes:
        values: (N, *spec.shape), uint8, uint16 or float32, channel-first for images.
        labels: column -> (N,) int64 class index (-1 where missing), or float32 for real-valued columns (NaN where missing).
        ids: path relative to the folder, the Parquet file's `image.path`, or the row number as text.
    """

    values: np.ndarray
    labels: dict[str, np.ndarray]
    ids: list[str]

    def __len__(self) -> int:
        return len(self.values)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Split:
        """The examples at `indices` (integers, or a boolean mask of length N), in that order."""
        rows = np.asarray(indices)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        labels = {name: column[rows] for name, column in self.labels.items()}
        return Split(self.values[rows], labels, [self.ids[i] for i in rows])

    def at_most(self, limit: int, seed: int = 0) -> Split:
        """All examples, or so many random ones where there are more, in the order of the file, which may be sorted."""
        return self if len(self) <= limit else self.subset(some_rows(len(self), limit, seed))


def some_rows(n: int, limit: int, seed: int = 0) -> np.ndarray:
    """All n rows, or `limit` random ones where there are more, in order."""
    return np.arange(n) if n <= limit else np.sort(np.random.default_rng(seed).permutation(n)[:limit])


def hashed(values: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and values."""
    digest = hashlib.sha256(f"{values.dtype.str} {values.shape};".encode())
    digest.update(np.ascontiguousarray(values).data)  # without a copy
    return digest.hexdigest()


class RowDigests:
    """Rows (M, L), to be asked more than once which others occur among them; of each a digest of 16 bytes is kept."""

    def __init__(self, rows: np.ndarray) -> None:
        self.dtype, self.digests = rows.dtype, {_digest(row) for row in rows}

    def has(self, rows: np.ndarray) -> np.ndarray:
        """Which of other rows (N, L) are among these, whatever the integer type of either, (N,) bool."""
        alike = rows.astype(self.dtype)  # what does not fit into the type is not among these
        fits = (alike == rows).all(1) if self.dtype.kind in "iu" else np.ones(len(rows), bool)
        return np.array([fit and _digest(row) in self.digests for row, fit in zip(alike, fits, strict=True)], bool)


def _digest(row: np.ndarray) -> bytes:
    return hashlib.blake2b(row.tobytes(), digest_size=16).digest()


def seen(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Which rows (N, L) occur among others (M, L), whatever the integer type of either, (N,) bool."""
    return RowDigests(among).has(rows)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, ready for training.

    Attributes:
        name: `digits`, `mnist`, ..., or the name of the file or folder.
        spec: shape, grey levels and scale, which the model keeps.
        notes: plain sentences that say what was found and what was done with it.
    """

    name: str
    spec: DataSpec
    train: Split
    validation: Split
    test: Split
    notes: list[str]


@dataclass(eq=False)
class Part:
    """Examples as a source holds them: encoded images, or an array (N, ...) in the layout of `Found.kind`.

    Of text they are (N, 2) objects, the texts and where each was found, until they are divided and become tokens.
    """

    examples: list[ImageItem] | np.ndarray
    ids: list[str]
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, rows: np.ndarray) -> Part:
        """The examples at `rows`. An array is copied, which also reads what was only mapped from disk."""
        examples = [self.examples[i] for i in rows] if isinstance(self.examples, list) else self.examples[rows]
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Part(examples, [self.ids[i] for i in rows], columns)


@dataclass(eq=False)
class Found:
    """What a source yields before anything is decoded, divided or scaled.

    Attributes:
        parts: `{"all": part}`, or at least `train` of the names in `SPLITS`.
        classes: names of the classes, for columns that come with them.
        full_scale: whether integers use the whole range of their type by convention, as image files do.
        validation_count: the customary number of validation examples of a named set, None elsewhere.
        stated: what the source says its values are, scale and levels included; None: they are looked at.
        tabular: whether the examples are a column of Parquet files, which `preprocess.image_column` names.
    """

    name: str
    kind: Literal["image", "signal", "vector", "protein", "text"]
    parts: dict[str, Part]
    notes: list[str] = field(default_factory=list)
    classes: dict[str, list[str]] = field(default_factory=dict)
    full_scale: bool = False
    validation_count: int | None = None
    stated: DataSpec | None = None
    tabular: bool = False


def divide(found: Found, preprocess: PreprocessConfig, seed: int = 0) -> tuple[dict[str, Part], list[str]]:
    """Training, validation and test parts of `found`, and notes on what was carved out of what.

    A split that the source has is kept whole. A missing one is drawn from the training part with `seed`, at least one
    example each. `preprocess.limit` then cuts the training part, so it never changes validation or test.

    Raises:
        DataError: fewer than `MIN_EXAMPLES` examples in all, or none left to train on.
    """
    parts = {name: part for name, part in found.parts.items() if len(part)}
    total = sum(len(part) for part in parts.values())
    if total < MIN_EXAMPLES:
        what = "image" if found.kind == "image" else "example"
        least = f"at least {MIN_EXAMPLES} are needed"
        raise DataError(
            f"{found.name} has only one {what}, and one {what} cannot train a model: {least}."
            if total == 1
            else f"{found.name} has only {total} examples: {least} to train, select and test a model."
        )
    notes = []
    train = parts.get("all", parts.get("train"))
    if train is None:
        raise DataError(f"{found.name} has no training examples, only {' and '.join(parts)}.")
    counts = {name: _count(name, found, len(train), preprocess) for name in ("test", "validation") if name not in parts}
    if len(train) - sum(counts.values()) < 1:
        raise DataError(
            f"{found.name}: of {len(train)} examples, {some(counts)} would be set aside and none left to train on. "
            "Lower --preprocess.validation_fraction and --preprocess.test_fraction."
        )
    if counts:
        order = np.random.default_rng(seed).permutation(len(train))
        what = "training examples" if "train" in parts else "examples"
        notes.append(f"Set aside of {len(train):,} {what}: {some(counts)} (fixed draw, seed {seed}).")
        whole, start = train, 0
        for name, count in counts.items():
            parts[name] = whole.take(np.sort(order[start : start + count]))
            start += count
        train = whole.take(np.sort(order[start:]))
    train = limited(train, preprocess.limit, seed, notes)
    return {"train": train, "validation": parts["validation"], "test": parts["test"]}, notes


def limited(train: Part, limit: int | None, seed: int, notes: list[str]) -> Part:
    """At most `limit` training examples, drawn with `seed`; a note is added where some are left out."""
    if limit is None or limit >= len(train):
        return train
    notes.append(f"Only {limit:,} of {len(train):,} training examples are used (preprocess.limit).")
    return train.take(np.sort(np.random.default_rng(seed).permutation(len(train))[:limit]))


def _count(name: str, found: Found, available: int, preprocess: PreprocessConfig) -> int:
    """How many of the `available` training examples go to the missing split `name`."""
    fraction = preprocess.test_fraction if name == "test" else preprocess.validation_fraction
    if fraction is None and found.validation_count is not None and available >= 10 * found.validation_count:
        return found.validation_count
    return max(1, round(available * (0.1 if fraction is None else fraction)))


def some(counts: dict[str, int]) -> str:
    """`{"test": 5, "validation": 6}` as `5 for test and 6 for validation`."""
    return " and ".join(f"{count:,} for {name}" for name, count in counts.items())
