"""Protein sequences in files: FASTA, and the column of a table that holds them.

    files -> Records (texts, ids, places, label columns) -> `proteins.prepare` -> Found, one array of numbers for each split

A table has one column of sequences. It is named, or has a customary name, or is the only one whose texts consist of the
symbols of proteins.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from diled.config import PreprocessConfig, SequenceConfig
from diled.data.folder import SPLIT_NAMES
from diled.data.proteins import COLUMNS, fits, prepare, whole_sequence
from diled.data.records import (
    CLASSES,
    Records,
    by_column,
    from_table,
    joined_records,
    named_column,
    parts_of,
    repeated,
    some,
)
from diled.data.splits import Found
from diled.data.tables import Table, ending, text_columns
from diled.errors import DataError, NoColumn

__all__ = [
    "COLUMNS",
    "ENOUGH",
    "FASTA",
    "few_words",
    "fitting",
    "found_of",
    "one_sequence",
    "protein_records",
    "read_fasta",
    "share",
]

FASTA = (".fasta", ".fa", ".faa")
ENOUGH = 0.9
"""Share of a column's texts that must be sequences, so that a few faulty ones are named instead of the whole column."""
HALF = 0.5
"""The same of a column that has a customary name."""


def found_of(records: dict[str, Records], name: str, preprocess: PreprocessConfig) -> Found:
    """Proteins of each split, cleaned and encoded together, with the splits that files or a column tell.

    Raises:
        DataError: a record has a fault, or none is left.
    """
    if preprocess.binarize != "none":
        raise DataError(f"--preprocess.binarize is for images, and {name} holds protein sequences.")
    config = preprocess.sequence
    whole = one_sequence(config.background, "--preprocess.sequence.background") if config.background else None
    every = joined_records(list(records.values()))
    ready = prepare(every.texts, every.places, name, preprocess, whole, every.faults)
    parts = parts_of(records, ready.rows, ready.values)
    found = Found(name, "protein", parts, every.notes + ready.notes, every.classes, stated=ready.spec)
    return by_column(found, preprocess)


def one_sequence(given: str, option: str) -> str:
    """What an option gives as residues, or as a FASTA file with one sequence."""
    path = Path(given)
    if ending(path) in FASTA:
        texts = read_fasta(path, SequenceConfig()).texts if path.is_file() else []
        if len(texts) != 1:
            raise DataError(f"{option}: {path} holds {len(texts)} sequences, and one is wanted.")
        given = texts[0]
    return whole_sequence(given, option)


# FASTA ----------------------------------------------------------------------------------------------------------------


def read_fasta(path: Path, config: SequenceConfig) -> Records:
    """Records of a header and any number of lines; blank lines and comments (; or #) are passed over.

    Raises:
        DataError: it cannot be read, is empty, or columns are asked for.
    """
    if config.column is not None or config.id_column is not None:
        key = "column" if config.column is not None else "id_column"
        raise NoColumn(f"{path} has no columns, so --preprocess.sequence.{key} has no effect: leave it out.")
    try:
        # utf-8-sig: editors put a mark before the first character
        opened = gzip.open if path.name.lower().endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            heads, lines = _records(file, path)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = "it is no text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise DataError(f"{path} cannot be read as {ending(path)}: {reason}.") from None
    if not heads:
        raise DataError(f"{path} is empty: it has no line that begins with '>'.")
    ids = [head.split()[0] if head else str(row) for row, (_, head) in enumerate(heads)]
    places = [f"{path.name}, line {number} ({name})" for (number, _), name in zip(heads, ids, strict=True)]
    return Records(["".join(parts) for parts in lines], ids, places, notes=repeated(ids, path.name))


def _records(file: TextIO, path: Path) -> tuple[list[tuple[int, str]], list[list[str]]]:
    """The line and the words of each header, and the lines below it."""
    heads: list[tuple[int, str]] = []
    lines: list[list[str]] = []
    for number, line in enumerate(file, 1):
        line = line.strip()
        if not line or line[0] in ";#":
            continue
        if line[0] == ">":
            heads.append((number, line[1:].strip()))
            lines.append([])
        elif not heads:
            raise DataError(
                f"{path}, line {number}: FASTA records begin with a line of '>' and a name; this is '{line[:40]}'."
            )
        else:
            lines[-1].append("".join(line.split()))
    return heads, lines


# Tables ---------------------------------------------------------------------------------------------------------------


def protein_records(table: Table, config: SequenceConfig) -> Records:
    """The proteins of a table: those in the column that is named, or called so, or the only one that fits.

    Raises:
        DataError: no such column, or several.
    """
    return from_table(table, _column(text_columns(table.table), table, config), "Sequences", config)


def _column(texts: dict[str, list[str | None]], table: Table, config: SequenceConfig) -> str:
    named = named_column(texts, table, config, "sequences")
    if named is not None:
        return named
    fit = fitting(texts)
    called = sorted((c for c in texts if c.lower() in COLUMNS), key=lambda c: COLUMNS.index(c.lower()))
    varied = [c for c in fit if len(set(some(texts[c]))) > CLASSES]
    if (
        varied
    ):  # beside these a column of few different texts holds wild types, or names that are spelt with amino acids
        fit, called = varied, [c for c in called if len(set(some(texts[c]))) > CLASSES]
    meant = [c for c in called if c in fit] or [
        c for c in called if share(texts[c]) >= HALF and not few_words(texts[c])
    ]
    if meant:
        return meant[0]
    if len(fit) == 1:
        return fit[0]
    if config.kind == "protein" and not fit and (called or len(texts) == 1):
        return (called or list(texts))[0]
    if fit:
        raise DataError(
            f"{table.path} has several columns that may hold protein sequences: {', '.join(fit)}. Choose one with "
            "--column, or of training data with --preprocess.sequence.column."
        )
    raise DataError(
        f"{table.path} has no column of protein sequences or of text; its columns are: "
        f"{', '.join(table.table.column_names)}. Name it with --column, or of training data with "
        "--preprocess.sequence.column; numbers are read from .npy, .npz and lists in .parquet."
    )


def fitting(texts: Mapping[str, Sequence[str | None]]) -> list[str]:
    """The columns whose texts are sequences; those in capitals alone, where there are any."""
    fit = [c for c, column in texts.items() if share(column) >= ENOUGH and not few_words(column)]
    capitals = [c for c in fit if all(text.isupper() for text in some(texts[c]))]
    return capitals or fit


def share(column: Sequence[str | None]) -> float:
    """How many of its first texts are sequences, from 0 to 1."""
    looked = [fits(text) for text in some(column)]
    return sum(looked) / len(looked) if looked else 0.0


def few_words(column: Sequence[str | None]) -> bool:
    """Whether a column holds names of splits, truth values or single letters: all of these are spelt with amino acids."""
    words = {text.strip().lower() for text in some(column)}
    return words <= {*SPLIT_NAMES, "true", "false"} or max(map(len, words)) < 2
