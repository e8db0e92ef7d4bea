"""Synthetic training sets of text: samples as tokens of the data, and which of them a model may be trained on.

    sample i  ->  text t_i  ->  tokens of the data        left out: no data may hold t_i, or it has more than L tokens
                                                          left out: t_i is a test text and no training text

Of short sentences some are the same by chance ("great food ."), so a set that holds test texts is not refused, as one of
images is. Those that occur in training as well stay, since a model may know them from there. `usable` serves proteins too:
of a short stretch, or of a few sites, a good model writes some that are in the test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diled.config import DataSpec
from diled.data.splits import seen
from diled.data.text import filled, tokenized
from diled.data.text_files import fault_of
from diled.errors import DataError

__all__ = ["Usable", "as_objects", "rows_of", "usable"]


@dataclass(frozen=True, eq=False)
class Usable:
    """The samples that a model is trained on.

    Attributes:
        values: rows (n, L) of tokens.
        unread: how many others are no texts that it reads.
        held: how many others are test texts and no training texts.
        copies: how many of the rows are training texts.
    """

    values: np.ndarray
    unread: int
    held: int
    copies: int


def as_objects(texts: Sequence[str]) -> np.ndarray:
    """Texts as an array of objects, (N,)."""
    out = np.empty(len(texts), object)
    out[:] = texts
    return out


def rows_of(texts: Sequence[str], spec: DataSpec) -> tuple[np.ndarray, np.ndarray]:
    """Texts as rows (n, L) of the data's tokens, and which of them these are, (n,): the others are empty, faulty or too long.

    Args:
        texts: (N,); blanks at their ends are taken away.
        spec: of the data.

    Raises:
        DataError: no text is left.
    """
    clean = [text.strip() for text in texts]
    fine = np.array([i for i, text in enumerate(clean) if fault_of(text) is None], np.int64)
    flat, sizes = tokenized([clean[i] for i in fine], spec)
    kept = (sizes > 0) & (sizes <= spec.numel)
    if not kept.any():
        raise DataError(f"None of the {len(clean):,} texts of the synthetic set has 1 to {spec.numel:,} tokens.")
    return filled(flat, sizes, spec)[kept], fine[kept]


def usable(values: np.ndarray, numbers: np.ndarray, wanted: int, test: np.ndarray, train: np.ndarray) -> Usable:
    """Of the first samples of a set those that a model may be trained on.

    Args:
        values: rows (n, L) of the samples that are texts.
        numbers: of these samples, (n,).
        wanted: how many samples are looked at.
        test, train: rows (M, L) and (K, L) of the data.
    """
    first = values[numbers < wanted]
    known = seen(first, train)
    kept = known | ~seen(first, test)
    return Usable(first[kept], wanted - len(first), int((~kept).sum()), int(known.sum()))
