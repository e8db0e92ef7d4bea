"""Records with a fault: the first one stops the reading with its place, or all are left out and counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from diled.errors import DataError

__all__ = ["Kept", "check_missing", "short"]


def short(text: str, most: int = 24) -> str:
    """The start of a text, for messages."""
    return text if len(text) <= most else f"{text[:most]}..."


class Kept:
    """Records without fault so far.

    Attributes:
        texts: of those that are left.
        rows: which of all records they are.
        faults: sentences on those that were left out.
    """

    def __init__(
        self, texts: Sequence[str], places: Sequence[str], skip: bool, option: str = "--preprocess.on_error skip"
    ) -> None:
        """All records at first.

        Args:
            texts: (N,).
            places: (N,), where each was found, for messages.
            skip: leave out what has a fault, instead of stopping.
            option: the user's way to have them left out, for messages; empty: there is none.
        """
        self.texts, self.places, self.skip, self.option = list(texts), places, skip, option
        self.rows = list(range(len(self.texts)))
        self.faults: list[str] = []

    def drop(self, faults: Mapping[int, str]) -> None:
        """Leave records out, by their place among those that are left, or stop at the first.

        Args:
            faults: place -> what is wrong, as a predicate.

        Raises:
            DataError: there is a fault, and faulty records are not to be skipped.
        """
        if not faults:
            return
        named = [f"{self.places[self.rows[i]]} {fault}" for i, fault in sorted(faults.items())]
        if not self.skip:
            others = ", ".join(self.places[self.rows[i]] for i in sorted(faults)[1:5])
            more = f" ({len(named) - 1:,} more: {others}{', ...' if len(named) > 5 else ''})" if len(named) > 1 else ""
            left = f" To leave out what cannot be read: {self.option}." if self.option and len(self.texts) > 1 else ""
            raise DataError(f"{named[0]}{more}.{left}")
        self.faults += named
        self.texts = [text for i, text in enumerate(self.texts) if i not in faults]
        self.rows = [row for i, row in enumerate(self.rows) if i not in faults]

    @property
    def lengths(self) -> Counter[int]:
        """How many records have each number of characters."""
        return Counter(map(len, self.texts))

    def notes(self) -> list[str]:
        """How many were left out, and some of them."""
        if not self.faults:
            return []
        some = "; ".join(self.faults[:5]) + ("; ..." if len(self.faults) > 5 else "")
        total = len(self.texts) + len(self.faults)
        return [f"{len(self.faults):,} of {total:,} records were left out: {some}."]


def check_missing(items: Sequence[Any]) -> None:
    """Refuse a list with gaps, as a column of a table has them where nothing was filled in.

    Raises:
        DataError: which item is None or not a number.
    """
    for i, one in enumerate(items):
        if one is None or (isinstance(one, float) and math.isnan(one)):
            raise DataError(f"Item {i} of the list is missing ({one}): leave it out.")
