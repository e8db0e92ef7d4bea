"""Sequences and texts as files hold them, with ids and label columns, and the splits that files or a column tell.

    table, column -> Records of each split -> parts of what could be read -> Found, divided by a column where one says so

All columns of numbers and of few different texts beside the sequences become labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diled.config import PreprocessConfig, SequenceConfig
from diled.data.folder import SPLIT_NAMES
from diled.data.labels import many
from diled.data.parquet import agreed_classes, class_names, label_columns
from diled.data.splits import Found, Part
from diled.data.tables import DIVISIONS, IDS, MISSING, Table, content, lines_of, text_columns, undecodable
from diled.errors import DataError, NoColumn, did_you_mean

__all__ = [
    "CLASSES",
    "Records",
    "by_column",
    "from_lines",
    "from_list",
    "from_table",
    "joined",
    "joined_records",
    "named_column",
    "parts_of",
    "repeated",
    "some",
]

SAMPLE = 1000
"""Texts of a column that are looked at to tell what it holds."""
CLASSES = 20
"""Whole numbers with more different values than this are counts or measurements, not classes."""
_NONE = frozenset(MISSING) - {"", "NA"}
"""What no sequence and no text is read from; an empty cell is said to be empty, and NA is the peptide Asn-Ala."""


@dataclass(eq=False)
class Records:
    """Sequences as files hold them.

    Attributes:
        texts: (N,).
        ids: (N,).
        places: (N,), where each was found, for messages.
        columns: name -> (N,) numbers or text.
        notes: what was found.
        faults: record -> what is wrong with it in its file, as a predicate.
        classes: names of the classes of a column, where the file declares them.
    """

    texts: list[str]
    ids: list[str]
    places: list[str]
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)


def from_list(texts: Sequence[str]) -> Records:
    """The records of a list, with their numbers as ids."""
    return Records(
        list(texts), [str(i) for i in range(len(texts))], [f"Item {i} of the list" for i in range(len(texts))]
    )


def from_lines(path: Path) -> Records:
    """The records of a file with one on each line, with the number of the line before as id.

    Raises:
        DataError: it cannot be read, or is empty.
    """
    data = content(path)
    if b"\n" not in data:  # an old Mac ends lines by a carriage return alone
        data = data.replace(b"\r", b"\n")
    lines = [line.strip() for line in lines_of(data)]
    if not lines:
        raise DataError(f"{path} is empty.")
    out = from_list(lines)
    out.places = [f"{path.name}, line {i + 1}" for i in range(len(lines))]
    out.faults = {i: fault for i, line in enumerate(lines) if (fault := undecodable(line)) is not None}
    return out


def from_table(table: Table, column: str, what: str, config: SequenceConfig) -> Records:
    """The records of a table: sequences, ids, and label columns.

    Args:
        table: as its file holds it.
        column: of the sequences.
        what: they are called, `Sequences` or `Texts`.
        config: which column names the records.
    """
    rows, path = table.table, table.path
    if config.id_column is not None and config.id_column not in rows.column_names:
        near = did_you_mean(config.id_column, rows.column_names)
        raise DataError(f"{path} has no column '{config.id_column}' (preprocess.sequence.id_column).{near}")
    named = config.id_column or next((c for c in rows.column_names if c.lower() in IDS and c != column), None)
    columns, notes = label_columns(rows, column, *([named] if named else []))
    declared = {name: classes for name, classes in class_names(rows.schema).items() if name in columns}
    for name, values in list(columns.items()):
        if name in declared:
            continue
        if values.dtype == object:
            values = np.array([None if value in MISSING else value for value in values], object)
        if values.dtype.kind in "iu" or _whole(values):
            different = len({value for value in values.tolist() if value is not None})
            if different > CLASSES or many(different, len(values)):
                values = values.astype(np.float64)  # None becomes NaN
            elif different > 2:
                notes.append(
                    f"'{name}' holds {different} different whole numbers: classes, unless written with a point."
                )
        elif values.dtype == object and (said := _meant_as_numbers(name, values, table.places)):
            notes.append(said)
        columns[name] = values
    numbers = [str(i) for i in range(rows.num_rows)]
    given = table.cells.get(named) or rows.column(named).to_pylist() if named else numbers
    ids = [number if value in ("", None) else str(value) for value, number in zip(given, numbers, strict=True)]
    tails = [f" ({name})" for name in ids] if named else [""] * len(ids)
    if named is not None:
        notes += repeated(ids, f"The column '{named}'")
    places = [f"{path.name}, {place}{tail}" for place, tail in zip(table.places, tails, strict=True)]
    notes.insert(0, f"{what} are in the column '{column}' of {path.name}.")
    texts = [text or "" for text in text_columns(rows.select([column]))[column]]
    faults = {i: f"holds '{text}', which stands for a missing value" for i, text in enumerate(texts) if text in _NONE}
    return Records(texts, ids, places, columns, notes, faults | table.faults, declared)


def repeated(ids: Sequence[str], what: str) -> list[str]:
    """A note where ids are not different, and so tell no record from another."""
    different = len(set(ids))
    if different == len(ids):
        return []
    return [
        f"{what} holds {different:,} different ids of {len(ids):,} records: some are told apart by their places alone."
    ]


def _whole(values: np.ndarray) -> bool:
    """Whether objects (N,) are whole numbers, but for what is missing."""
    return values.dtype == object and {type(value) for value in values} <= {int, type(None)}


def _meant_as_numbers(name: str, values: np.ndarray, places: Sequence[str]) -> str:
    """A note on a column (N,) of text most of which are numbers: a single word, or decimal commas, make classes of them."""
    present = [(i, value) for i, value in enumerate(values.tolist()) if isinstance(value, str)]
    words = [(i, value) for i, value in present if not _is_number(value)]
    if len({value for _, value in present}) <= CLASSES or not words:
        return ""
    if all(_is_number(value.replace(",", ".", 1)) for _, value in words):
        return f"'{name}' has decimal commas and was read as text: write its numbers with a decimal point."
    if 2 * len(words) >= len(present):
        return ""
    i, word = words[0]
    return (
        f"'{name}' was read as text, since {len(words):,} of its {len(present):,} values are no numbers, such as '{word}' in "
        f"{places[i]}: mend them, or leave their cells empty."
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def named_column(texts: Mapping[str, object], table: Table, config: SequenceConfig, what: str) -> str | None:
    """The column of sequences that the user names, if any.

    Raises:
        NoColumn: there is none of that name.
        DataError: it holds no text.
    """
    if config.column is not None and config.column not in table.table.column_names:
        near = did_you_mean(config.column, table.table.column_names)
        raise NoColumn(
            f"{table.path} has no column '{config.column}' (--column, or of training data --preprocess.sequence.column).{near}"
        )
    if config.column is not None and config.column not in texts:
        raise DataError(f"The column '{config.column}' of {table.path} holds numbers, not {what}.")
    return config.column


def some(column: Sequence[str | None]) -> list[str]:
    """The first texts of a column that are not missing."""
    present = (text for text in column if text is not None and text not in MISSING)
    return [text for text, _ in zip(present, range(SAMPLE), strict=False)]


def joined_records(each: Sequence[Records]) -> Records:
    """Records one after the other, with the columns that all of them have.

    Where their files number classes differently, names take the place of the numbers, in the records that are given, too.
    """
    if len(each) == 1:
        return each[0]
    texts, ids, places = ([x for one in each for x in getattr(one, key)] for key in ("texts", "ids", "places"))
    out = Records(texts, ids, places, classes=agreed_classes([(one.columns, one.classes) for one in each]))
    shared = [c for c in each[0].columns if all(c in one.columns for one in each)]
    out.columns = {c: np.concatenate([one.columns[c] for one in each]) for c in shared}
    out.notes = list(dict.fromkeys(note for one in each for note in one.notes))
    start = 0
    for one in each:
        out.faults |= {start + i: fault for i, fault in one.faults.items()}
        start += len(one.texts)
    return out


def parts_of(records: Mapping[str, Records], rows: np.ndarray, values: np.ndarray) -> dict[str, Part]:
    """The parts of all splits.

    Args:
        records: of each split.
        rows: (n,) which records of all splits together could be read, in increasing order.
        values: (n, ...) what was read.
    """
    parts, start = {}, 0
    ids = [name for one in records.values() for name in one.ids]
    twice = len(records) > 1 and len(set(ids)) < len(ids)  # row numbers of several files
    for split, one in records.items():
        here = (rows >= start) & (rows < start + len(one.texts))
        kept, start = rows[here] - start, start + len(one.texts)
        part = Part(np.empty((len(one.texts), 0), np.uint8), one.ids, one.columns).take(kept)
        names = [f"{split}/{name}" for name in part.ids] if twice else part.ids
        parts[split] = Part(values[here], names, part.columns)
    return parts


# Splits that a column tells -------------------------------------------------------------------------------------------


def by_column(found: Found, preprocess: PreprocessConfig) -> Found:
    """The parts as they are, or joined and divided by a column; columns that name splits are no labels."""
    config, files = preprocess.sequence, "all" not in found.parts
    if files and config.split == "auto" and config.split_column is None:
        _without_divisions(found, preprocess.label_column)
        return found
    whole = joined(found.parts)
    column = _division(found.name, whole, config)
    if files:
        found.notes.append("The splits of the files were joined, to be divided anew (preprocess.sequence.split).")
    found.parts = {"all": whole}
    if column is not None:
        named = [
            SPLIT_NAMES.get(str(value).strip().lower()) if value is not None else "" for value in whole.columns[column]
        ]
        wrong = sorted({str(v) for v, n in zip(whole.columns[column], named, strict=True) if n is None} - set(MISSING))
        if wrong:
            raise DataError(
                f"The column '{column}' of {found.name} has the value '{wrong[0]}', which names no split: write train, "
                "validation, test, or nothing."
            )
        rows = {split: np.array([n == split for n in named]) for split in ("train", "validation", "test")}
        found.parts = {split: whole.take(np.flatnonzero(mask)) for split, mask in rows.items() if mask.any()}
        left = len(whole) - sum(len(part) for part in found.parts.values())
        if left:
            found.notes.append(f"{left:,} of {len(whole):,} records name no split in '{column}', and were left out.")
        found.notes.append(f"Divided by the column '{column}'.")
    _without_divisions(found, preprocess.label_column)
    return found


def joined(parts: dict[str, Part]) -> Part:
    """All parts in one, with the columns that all have."""
    each = list(parts.values())
    shared = [c for c in each[0].columns if all(c in part.columns for part in each)]
    columns = {c: np.concatenate([part.columns[c] for part in each]) for c in shared}
    ids = [i for part in each for i in part.ids]
    return Part(np.concatenate([np.asarray(part.examples) for part in each]), ids, columns)


def _division(name: str, whole: Part, config: SequenceConfig) -> str | None:
    """The column that tells the split, where one does."""
    if config.split not in ("auto", "column"):
        return None
    if config.split_column is not None:
        if config.split_column not in whole.columns:
            near = did_you_mean(config.split_column, whole.columns)
            raise DataError(f"{name} has no column '{config.split_column}' (preprocess.sequence.split_column).{near}")
        return config.split_column
    return next((c for c in whole.columns if c.lower() in DIVISIONS and _names_splits(whole.columns[c])), None)


def _names_splits(values: np.ndarray) -> bool:
    """Whether a column holds names of splits, training among them, and nothing else."""
    if values.dtype != object:
        return False
    said = {SPLIT_NAMES.get(str(value).strip().lower()) for value in values if value not in (None, "")}
    return "train" in said and None not in said


def _without_divisions(found: Found, wanted: str | None) -> None:
    """Columns of names of splits are no labels, unless one is asked for."""
    names = {c for part in found.parts.values() for c in part.columns}
    gone = sorted(
        c
        for c in names - {wanted}
        if _names_splits(np.concatenate([part.columns[c] for part in found.parts.values() if c in part.columns]))
    )
    for part in found.parts.values():
        part.columns = {c: values for c, values in part.columns.items() if c not in gone}
    if gone:
        found.notes.append(f"No labels, since they name splits: {', '.join(gone)}.")
