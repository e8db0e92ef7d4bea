"""Sequences in files: FASTA, tables (.csv, .tsv, .parquet) and lists, gzipped or not, found and cleaned.

    files -> Records (texts, ids, places, label columns) -> `proteins.prepare` -> Found, one array of numbers for each split

A table has one column of sequences. It is named, or has a customary name, or is the only one whose texts consist of the
symbols of proteins. All columns of numbers and of few different texts beside it become labels.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from diled.config import PreprocessConfig, SequenceConfig
from diled.data.folder import SPLIT_NAMES, files_below
from diled.data.images import EXTENSIONS
from diled.data.lists import is_list
from diled.data.parquet import LISTS, by_split, label_columns, read_table
from diled.data.proteins import fits, prepare, whole_sequence
from diled.data.splits import Found, Part
from diled.errors import DataError, did_you_mean

__all__ = [
    "SEQUENCES",
    "Records",
    "are_sequences",
    "found_of",
    "holds_sequences",
    "is_sequence_file",
    "joined",
    "one_sequence",
    "read_records",
    "read_sequences",
    "sequence_files",
]

FASTA = (".fasta", ".fa", ".faa")
TABLES = (".csv", ".tsv")
SEQUENCES = (*FASTA, *TABLES)
"""Endings of files of sequences, each also with `.gz`. Parquet files are looked into."""
COLUMNS = ("sequence", "seq", "sequences", "protein", "protein_sequence", "aa_sequence", "peptide", "cdr3", "variant")
IDS = ("id", "name", "accession")
DIVISIONS = ("split", "set", "subset", "partition")
MISSING = ("", "NA", "N/A", "nan", "NaN", "NULL", "null", "None")
SAMPLE = 1000
"""Texts of a column that are looked at to tell what it holds."""
CLASSES = 20
"""Whole numbers with more different values than this are counts or measurements, not classes."""
ENOUGH = 0.9
"""Share of a column's texts that must be sequences, so that a few faulty ones are named instead of the whole column."""


@dataclass(eq=False)
class Records:
    """Sequences as files hold them.

    Attributes:
        texts: (N,).
        ids: (N,).
        places: (N,), where each was found, for messages.
        columns: name -> (N,) numbers or text.
        notes: what was found.
    """

    texts: list[str]
    ids: list[str]
    places: list[str]
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def ending(path: Path) -> str:
    """`.csv` of `x.csv` and of `X.CSV.gz`."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def is_sequence_file(path: Path) -> bool:
    """Whether a file's name says that it may hold sequences."""
    return ending(path) in SEQUENCES


def sequence_files(folder: Path) -> list[Path]:
    """The files of sequences below `folder`, sorted; none where there are images as well."""
    files = list(files_below(folder))
    if any(file.suffix.lower() in EXTENSIONS for file in files):
        return []
    named = [file for file in files if is_sequence_file(file)]
    return named or [file for file in files if holds_sequences(file)]


def holds_sequences(path: Path, image_column: str = "image", *, wanted: bool = False) -> bool:
    """Whether a Parquet file has neither images nor lists of numbers, but text, and protein sequences unless `wanted`."""
    if path.suffix.lower() not in (".parquet", ".pq") or not path.is_file():
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        if image_column in schema.names or (LISTS in schema.names and is_list(schema.field(LISTS).type)):
            return False
        names = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        if wanted or not names:
            return bool(names)
        return bool(_fitting(_texts(pq.read_table(path, columns=names, partitioning=None))))
    except (pa.ArrowException, OSError):
        return False  # the reader of Parquet files will say what is wrong


def are_sequences(source: Sequence[Any], config: SequenceConfig) -> bool:
    """Whether a list holds sequences, rather than paths or numbers."""
    if not all(isinstance(one, str) for one in source):
        return False
    return config.kind == "protein" or _share(list(source)) >= ENOUGH


def read_sequences(source: Path | Sequence[str], preprocess: PreprocessConfig) -> Found:
    """The sequences of a file, of a folder whose files may be named by splits, or of a list.

    Raises:
        DataError: no sequences, several columns of them, or a record with a fault.
    """
    config = preprocess.sequence
    if not isinstance(source, Path):
        texts = list(source)
        places = [f"Item {i} of the list" for i in range(len(texts))]
        return found_of({"all": Records(texts, [str(i) for i in range(len(texts))], places)}, "the list", preprocess)
    if source.is_dir():
        groups, notes = by_split(source, sequence_files(source))
    else:
        groups, notes = {"all": [source]}, []
    records = {split: read_records(files, config) for split, files in groups.items()}
    found = found_of(records, source.resolve().name if source.is_dir() else source.name, preprocess)
    found.notes += notes
    return found


def found_of(records: dict[str, Records], name: str, preprocess: PreprocessConfig) -> Found:
    """Records of each split, cleaned and encoded together, with the splits that files or a column tell."""
    if preprocess.binarize != "none":
        raise DataError(f"--preprocess.binarize is for images, and {name} holds protein sequences.")
    config = preprocess.sequence
    whole = one_sequence(config.background, "--preprocess.sequence.background") if config.background else None
    texts = [text for one in records.values() for text in one.texts]
    places = [place for one in records.values() for place in one.places]
    ready = prepare(texts, places, name, preprocess, whole)
    notes = list(dict.fromkeys(note for one in records.values() for note in one.notes)) + ready.notes
    parts, start = {}, 0
    ids = [name for one in records.values() for name in one.ids]
    twice = len(records) > 1 and len(set(ids)) < len(ids)  # row numbers of several files
    for split, one in records.items():
        here = (ready.rows >= start) & (ready.rows < start + len(one.texts))
        rows, start = ready.rows[here] - start, start + len(one.texts)
        part = Part(np.empty((len(one.texts), 0), np.uint8), one.ids, one.columns).take(rows)
        names = [f"{split}/{name}" for name in part.ids] if twice else part.ids
        parts[split] = Part(ready.values[here], names, part.columns)
    found = Found(name, "protein", parts, notes, stated=ready.spec)
    return _by_column(found, preprocess)


def one_sequence(given: str, option: str) -> str:
    """What an option gives as residues, or as a FASTA file with one sequence."""
    path = Path(given)
    if ending(path) in FASTA:
        texts = read_records([path], SequenceConfig()).texts if path.is_file() else []
        if len(texts) != 1:
            raise DataError(f"{option}: {path} holds {len(texts)} sequences, and one is wanted.")
        given = texts[0]
    return whole_sequence(given, option)


# Splits that a column tells -------------------------------------------------------------------------------------------


def _by_column(found: Found, preprocess: PreprocessConfig) -> Found:
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


# Files ----------------------------------------------------------------------------------------------------------------


def read_records(files: Sequence[Path], config: SequenceConfig) -> Records:
    """The records of some files, one after the other, with the columns that all of them have.

    Raises:
        DataError: damaged, or no sequences.
    """
    each = [_read(file, config) for file in files]
    if len(each) == 1:
        return each[0]
    texts, ids, places = ([x for one in each for x in getattr(one, key)] for key in ("texts", "ids", "places"))
    out = Records(texts, ids, places)
    shared = [c for c in each[0].columns if all(c in one.columns for one in each)]
    out.columns = {c: np.concatenate([one.columns[c] for one in each]) for c in shared}
    out.notes = list(dict.fromkeys(note for one in each for note in one.notes))
    return out


def _read(path: Path, config: SequenceConfig) -> Records:
    kind = ending(path)
    if kind in (".parquet", ".pq"):
        table, lines = read_table(path), None
    else:
        try:
            # utf-8-sig: spreadsheets put a mark before the first character
            opened = gzip.open if path.name.lower().endswith(".gz") else open
            with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
                if kind in FASTA:
                    return _fasta(file, path, config)
                if kind == ".txt":
                    rows = [(i, line.strip()) for i, line in enumerate(file, 1) if line.strip()]
                    places = [f"{path.name}, line {i}" for i, _ in rows]
                    return Records([text for _, text in rows], [str(i) for i in range(len(rows))], places)
                table, lines = _table(file, path)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
            reason = "it is no text" if isinstance(error, UnicodeDecodeError) else str(error)
            raise DataError(f"{path} cannot be read as {kind}: {reason}.") from None
    return _from_table(table, lines, path, config)


def _fasta(file: TextIO, path: Path, config: SequenceConfig) -> Records:
    """Records of a header and any number of lines; blank lines and comments (; or #) are passed over."""
    if config.column is not None or config.id_column is not None:
        key = "column" if config.column is not None else "id_column"
        raise DataError(f"{path} has no columns, so --preprocess.sequence.{key} has no effect: leave it out.")
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
    if not heads:
        raise DataError(f"{path} is empty: it has no line that begins with '>'.")
    ids = [head.split()[0] if head else str(row) for row, (_, head) in enumerate(heads)]
    places = [f"{path.name}, line {number} ({name})" for (number, _), name in zip(heads, ids, strict=True)]
    return Records(["".join(parts) for parts in lines], ids, places)


def _table(file: TextIO, path: Path) -> tuple[Any, list[int]]:
    """A pyarrow table of a file with a line of column names, and the line where each row ends."""
    import pyarrow as pa

    first = file.readline()
    mark = _delimiter(first, ending(path))
    header = [name.strip() for name in next(csv.reader([first], delimiter=mark), [])]
    if not any(header):
        raise DataError(f"{path} is empty.")
    headless = next((name for name in header if len(name) >= 8 and name.isupper() and fits(name)), None)
    if headless is not None:
        raise DataError(
            f"{path} has no line of column names: its first line holds '{headless[:24]}'. Put one before it, such as "
            "'sequence'."
        )
    rows, lines = [], []
    for line, row in _rows(file, mark):
        if not any(row) and len(header) > 1:
            continue
        if len(row) not in (len(header), 0):
            raise DataError(f"{path}, line {line} has {len(row)} columns, and its header has {len(header)}.")
        rows.append([cell.strip() for cell in row] or [""])
        lines.append(line)
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in header]
    return pa.table([_typed(column) for column in columns], names=header), lines


def _delimiter(first: str, kind: str) -> str:
    """What stands between the cells of a first line: a comma, unless the file is .tsv or has none and another."""
    others = [mark for mark in "\t;" if mark in first and "," not in first]
    return "\t" if kind == ".tsv" else (*others, ",")[0]


def _rows(file: TextIO, mark: str) -> Iterator[tuple[int, list[str]]]:
    """The line where each row ends, after a first line that was read, and its cells."""
    before = csv.field_size_limit(2**31 - 1)  # the longest proteins have more residues than its default allows
    try:
        reader = csv.reader(file, delimiter=mark)
        for row in reader:
            yield reader.line_num + 1, row
    finally:
        csv.field_size_limit(before)


def _typed(cells: list[str]) -> Any:
    """A column of text as whole numbers or real numbers, where all that is not missing is one; else as text."""
    import pyarrow as pa

    present = pa.array([None if cell in MISSING else cell for cell in cells], pa.string())
    for kind in (pa.int64(), pa.float64()) if present.null_count < len(cells) else ():
        try:
            return present.cast(kind)
        except pa.ArrowInvalid:
            continue
    return pa.array(cells, pa.string())


def _from_table(table: Any, lines: list[int] | None, path: Path, config: SequenceConfig) -> Records:
    """The records of a table: its sequences, ids, and label columns."""
    if len(set(table.column_names)) < table.num_columns:
        twice = next(name for name in table.column_names if table.column_names.count(name) > 1)
        raise DataError(f"{path} has two columns '{twice}': rename one.")
    if not table.num_rows:
        raise DataError(f"{path} has no rows.")
    texts = _texts(table)
    column = _sequence_column(texts, table.column_names, path, config)
    named = _id_column(table, column, path, config)
    columns, notes = label_columns(table, column, *([named] if named else []))
    for name, values in list(columns.items()):
        if values.dtype == object:
            values = np.array([None if value in MISSING else value for value in values], object)
        elif values.dtype.kind in "iu" and len(np.unique(values)) > CLASSES:
            values = values.astype(np.float64)
        columns[name] = values
    ids = (
        [str(value) for value in table.column(named).to_pylist()] if named else [str(i) for i in range(table.num_rows)]
    )
    said = [f"line {line}" for line in lines] if lines is not None else [f"row {i}" for i in range(table.num_rows)]
    tails = [f" ({name})" for name in ids] if named else [""] * len(ids)
    places = [f"{path.name}, {place}{tail}" for place, tail in zip(said, tails, strict=True)]
    notes.insert(0, f"Sequences are in the column '{column}' of {path.name}.")
    return Records([text or "" for text in texts[column]], ids, places, columns, notes)


def _texts(table: Any) -> dict[str, list[str | None]]:
    """The columns of text."""
    import pyarrow as pa

    found = {}
    for f in table.schema:
        column = table.column(f.name)
        if pa.types.is_dictionary(f.type):
            column = column.cast(f.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            found[f.name] = column.to_pylist()
    return found


def _id_column(table: Any, sequence: str, path: Path, config: SequenceConfig) -> str | None:
    """The column that names the records."""
    if config.id_column is not None and config.id_column not in table.column_names:
        near = did_you_mean(config.id_column, table.column_names)
        raise DataError(f"{path} has no column '{config.id_column}' (preprocess.sequence.id_column).{near}")
    named = config.id_column or next((c for c in table.column_names if c.lower() in IDS and c != sequence), None)
    return named


def _sequence_column(
    texts: dict[str, list[str | None]], names: Sequence[str], path: Path, config: SequenceConfig
) -> str:
    """The column of sequences: the one that is named, or called so, or the only one that fits."""
    if config.column is not None:
        if config.column not in names:
            near = did_you_mean(config.column, names)
            raise DataError(f"{path} has no column '{config.column}' (preprocess.sequence.column).{near}")
        if config.column not in texts:
            raise DataError(f"The column '{config.column}' of {path} holds numbers, not sequences.")
        _no_sentences({config.column: texts[config.column]}, path, config)
        return config.column
    fitting = _fitting(texts)
    called = sorted((c for c in texts if c.lower() in COLUMNS), key=lambda c: COLUMNS.index(c.lower()))
    called = called if config.kind == "protein" else [c for c in called if c in fitting]
    if called:
        return called[0]
    if config.kind == "protein" and not fitting and len(texts) == 1:
        return next(iter(texts))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DataError(
            f"{path} has several columns that may hold protein sequences: {', '.join(fitting)}. Choose one with "
            "--preprocess.sequence.column."
        )
    _no_sentences(texts, path, config)
    raise DataError(
        f"{path} has no column of protein sequences; its columns are: {', '.join(names)}. Name it with "
        "--preprocess.sequence.column; numbers are read from .npy, .npz and lists in .parquet."
    )


def _fitting(texts: dict[str, list[str | None]]) -> list[str]:
    """The columns whose texts are sequences; those in capitals alone, where there are any."""
    fitting = [c for c, column in texts.items() if _share(column) >= ENOUGH and not _few_words(column)]
    capitals = [c for c in fitting if all(text.isupper() for text in _some(texts[c]))]
    return capitals or fitting


def _some(column: Sequence[str | None]) -> Iterator[str]:
    """The first texts of a column that are not missing."""
    present = (text for text in column if text is not None and text not in MISSING)
    return (text for text, _ in zip(present, range(SAMPLE), strict=False))


def _share(column: Sequence[str | None]) -> float:
    """How many of its first texts are sequences, from 0 to 1."""
    looked = [fits(text) for text in _some(column)]
    return sum(looked) / len(looked) if looked else 0.0


def _few_words(column: Sequence[str | None]) -> bool:
    """Whether a column holds names of splits, truth values or single letters: all of these are spelt with amino acids."""
    words = {text.strip().lower() for text in _some(column)}
    return words <= {*SPLIT_NAMES, "true", "false"} or max(map(len, words)) < 2


def _no_sentences(texts: dict[str, list[str | None]], path: Path, config: SequenceConfig) -> None:
    """Refuse text with spaces in words of its own."""
    for column, values in texts.items():
        some = list(_some(values))
        if config.kind == "auto" and some and sum(" " in text.strip() for text in some) > len(some) / 2:
            raise DataError(
                f"The column '{column}' of {path} holds sentences, which are not read yet: tables of protein sequences are. "
                "Name their column with --preprocess.sequence.column."
            )
