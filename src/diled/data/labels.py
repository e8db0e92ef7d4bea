"""Label columns: text and whole numbers become class indices, real numbers stay numbers.

Classes are numbered over all splits together, so an index means the same everywhere. A column of mostly distinct values, or
of more than 256 of them and a tenth of the examples, is no class label: whole numbers then are read as real ones, and text
(captions, names) is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diled.data.splits import Part
from diled.errors import DataError, did_you_mean

__all__ = ["encode_labels", "many"]

ALIASES = ("labels", "label", "y")
# A column with more classes than this, and more than a tenth of the rows, is rather a number or a name.
MANY = 256
FEW = 10
"""So many classes may be in any file; more must be at most half as many as there are examples."""


def encode_labels(
    parts: dict[str, Part], classes: dict[str, list[str]], chosen: str | None, name: str
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, list[str]], list[str]]:
    """Encoded columns of each part, the classes of each column (empty: real numbers), and notes.

    Arguments:
        parts: parts with raw columns, each of one value per example.
        classes: names that the source declares; its integers then already are indices.
        chosen: the label column that comes first, or None for `label` where it exists.

    Raises:
        DataError: `chosen` does not exist.
    """
    notes: list[str] = []
    shared = [c for c in next(iter(parts.values())).columns if all(c in part.columns for part in parts.values())]
    lost = sorted({c for part in parts.values() for c in part.columns} - set(shared))
    if lost:
        notes.append(f"Left out, because not every split has them: {', '.join(lost)}.")
    first = _chosen(chosen, shared, name)
    encoded: dict[str, dict[str, np.ndarray]] = {split: {} for split in parts}
    names: dict[str, list[str]] = {}
    for column in sorted(shared, key=lambda c: c != first):
        raw = np.concatenate([part.columns[column] for part in parts.values()])
        result, note = _encode(column, raw, classes.get(column), column == chosen)
        if note:
            notes.append(note)
        if result is None:
            continue
        values, names[column] = result
        ends = np.cumsum([len(part) for part in parts.values()])[:-1]
        for split, piece in zip(parts, np.split(values, ends), strict=True):
            encoded[split][column] = piece
    return encoded, names, notes


def _chosen(chosen: str | None, columns: Sequence[str], name: str) -> str:
    """The column that comes first."""
    if chosen is None or chosen in columns:
        return chosen or "label"
    if chosen in ALIASES and "label" in columns:
        return "label"
    if not columns:
        raise DataError(f"{name} has no labels, so there is no label column '{chosen}'.")
    raise DataError(
        f"{name} has no label column '{chosen}'.{did_you_mean(chosen, columns)} Its label columns are: {', '.join(columns)}."
    )


def _encode(
    column: str, raw: np.ndarray, declared: list[str] | None, wanted: bool
) -> tuple[tuple[np.ndarray, list[str]] | None, str]:
    """(values, classes) of one column, or None where it is no label, and a note or an empty string."""
    missing = np.array([v is None for v in raw]) if raw.dtype == object else np.zeros(len(raw), bool)
    note = _missing(column, missing)
    if missing.all():
        return None, f"'{column}' has no values and was left out."
    objects = raw[~missing].tolist() if raw.dtype.kind in "OSU" else []
    if any(isinstance(value, str | bytes) for value in objects):
        result, said = _of_texts(column, objects, missing, wanted)
        return result, said or note
    present = np.array(objects) if objects else raw
    if present.dtype.kind == "f":
        values = np.full(len(raw), np.nan, np.float32)
        values[~missing] = present
        infinite = int(np.isinf(values).sum())
        values[np.isinf(values)] = np.nan
        if np.isnan(values).all():
            return None, f"'{column}' has no finite values and was left out."
        note = _missing(column, np.isnan(values))
        return (values, []), note + (f"{infinite:,} of them are infinite." if infinite else "")
    whole = present.dtype.kind in "iu"
    index = np.full(len(raw), -1, np.int64)
    if declared and whole and present.min() >= -1 and present.max() < len(declared):
        index[~missing] = present
        return (index, list(declared)), note
    found, inverse = np.unique(present, return_inverse=True)
    if many(len(found), len(raw)) and not wanted:
        if not whole:
            return None, f"'{column}' has {len(found):,} different texts: left out, as it names no classes."
        values = np.full(len(raw), np.nan, np.float32)
        values[~missing] = present
        return (values, []), note + f"'{column}' has {len(found):,} different values: read as real numbers."
    index[~missing] = inverse
    return (index, [str(v) for v in found.tolist()]), note


def _of_texts(
    column: str, objects: list[Any], missing: np.ndarray, wanted: bool
) -> tuple[tuple[np.ndarray, list[str]] | None, str]:
    """What `_encode` returns where some values are text. No array of texts: it would give each the width of the longest."""
    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in objects]
    found = sorted(set(texts))
    if many(len(found), len(missing)) and not wanted:
        return None, f"'{column}' has {len(found):,} different texts: left out, as it names no classes."
    number = {text: i for i, text in enumerate(found)}
    index = np.full(len(missing), -1, np.int64)
    index[~missing] = [number[text] for text in texts]
    return (index, found), ""


def many(different: int, examples: int) -> bool:
    """Whether values are too many to be classes."""
    return different > max(MANY, examples // 10) or different > max(FEW, examples // 2)


def _missing(column: str, missing: np.ndarray) -> str:
    """A note on examples (N,) without a value, or nothing."""
    return f"'{column}' is missing for {int(missing.sum()):,} of {len(missing):,} examples. " if missing.any() else ""
