"""Label columns: text and whole numbers become class indices, real numbers stay numbers.

Classes are numbered over all splits together, so an index means the same everywhere. A column of mostly distinct values
is no class label: whole numbers then are read as real ones, and text (captions, names) is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diled.data.splits import Part
from diled.errors import DataError, did_you_mean

__all__ = ["encode_labels"]

ALIASES = ("labels", "label", "y")
# A column with more classes than this, and more than a tenth of the rows, is rather a number or a name.
MANY = 256


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
    present = np.array(raw[~missing].tolist()) if raw.dtype == object else raw
    note = _missing(column, missing)
    if len(present) == 0:
        return None, f"'{column}' has no values and was left out."
    if present.dtype.kind == "f":
        values = np.full(len(raw), np.nan, np.float32)
        values[~missing] = present
        infinite = int(np.isinf(values).sum())
        values[np.isinf(values)] = np.nan
        if np.isnan(values).all():
            return None, f"'{column}' has no finite values and was left out."
        note = _missing(column, np.isnan(values))
        return (values, []), note + (f"{infinite:,} of them are infinite." if infinite else "")
    if present.dtype.kind == "S":
        present = np.char.decode(present, "utf-8", "replace")
    whole = present.dtype.kind in "iu"
    index = np.full(len(raw), -1, np.int64)
    if declared and whole and present.min() >= -1 and present.max() < len(declared):
        index[~missing] = present
        return (index, list(declared)), note
    found, inverse = np.unique(present, return_inverse=True)
    if len(found) > max(MANY, len(raw) // 10) and not wanted:
        if not whole:
            return None, f"'{column}' has {len(found):,} different texts: left out, as it names no classes."
        values = np.full(len(raw), np.nan, np.float32)
        values[~missing] = present
        return (values, []), note + f"'{column}' has {len(found):,} different values: read as real numbers."
    index[~missing] = inverse
    return (index, [str(v) for v in found.tolist()]), note


def _missing(column: str, missing: np.ndarray) -> str:
    """A note on examples (N,) without a value, or nothing."""
    return f"'{column}' is missing for {int(missing.sum()):,} of {len(missing):,} examples. " if missing.any() else ""
