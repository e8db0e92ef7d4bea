"""Tables and lines of text in files: .csv, .tsv, .jsonl, .parquet and .txt, gzipped or not.

    bytes -> UTF-8, line by line -> rows -> Table: columns of text and numbers, where each row stands, and faults

What is no UTF-8, or no JSON, is a fault of its row alone, so that the others can still be read.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from diled.data.parquet import is_text, read_table, unwrapped
from diled.data.proteins import COLUMNS, fits
from diled.errors import DataError

__all__ = [
    "DIVISIONS",
    "IDS",
    "MISSING",
    "Table",
    "content",
    "ending",
    "lines_of",
    "load_table",
    "text_columns",
    "undecodable",
]

MISSING = ("", "NA", "N/A", "nan", "NaN", "NULL", "null", "None")
IDS = ("id", "name", "accession")
"""Customary names of a column that names the records."""
DIVISIONS = ("split", "set", "subset", "partition")
"""And of one that says which split they are of."""
_BYTE = re.compile("[\udc80-\udcff]")
"""What `surrogateescape` makes of bytes that are no UTF-8."""
_QUOTED = re.compile(r'(?<![^\t\r\n])"([^"]*(?:""[^"]*)*)"(?![^\t\r\n])')
"""A cell between tabs that is quoted as in CSV."""
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(eq=False)
class Table:
    """A table as its file holds it.

    Attributes:
        path: of the file.
        table: of pyarrow.
        places: (N,), where each row stands: `line 7`, or `row 6`.
        faults: row -> what is wrong with it, as a predicate.
        cells: of .csv and .tsv, the columns as they are written: of names that look like numbers.
    """

    path: Path
    table: Any
    places: list[str]
    faults: dict[int, str] = field(default_factory=dict)
    cells: dict[str, list[str]] = field(default_factory=dict)


def ending(path: Path) -> str:
    """`.csv` of `x.csv` and of `X.CSV.gz`."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def content(path: Path) -> bytes:
    """The bytes of a file, decompressed where its name ends in .gz, without a byte order mark.

    Raises:
        DataError: it cannot be read, or is UTF-16.
    """
    try:
        opened = gzip.open if path.name.lower().endswith(".gz") else open
        with opened(path, "rb") as file:
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as {ending(path)}: {error}.") from None
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(
            f"{path} cannot be read as {ending(path)}: it is no text in UTF-8 but in UTF-16. Save it as UTF-8."
        )
    return data.removeprefix(b"\xef\xbb\xbf")


def lines_of(data: bytes) -> list[str]:
    """Lines without their ends, and without blank ones at the end of the file. Bytes that are no UTF-8 are marked."""
    lines = [line.removesuffix(b"\r").decode("utf-8", "surrogateescape") for line in data.split(b"\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def blank_at_the_end(data: bytes) -> int:
    """How many blank lines end a file, which `lines_of` leaves out."""
    lines = data.removesuffix(b"\n").split(b"\n")
    return len(lines) - len(lines_of(data)) if data else 0


def undecodable(text: str) -> str | None:
    """What is wrong with a text that holds bytes which are no UTF-8, or half a surrogate pair, as a predicate; else None."""
    if text.isascii() or not (found := _HALF.search(text)):
        return None
    if byte := _BYTE.search(text):
        return f"has the byte 0x{ord(byte[0]) - 0xDC00:02x} at position {byte.start() + 1}, which is not UTF-8"
    return f"has half of a surrogate pair at position {found.start() + 1}, which is no character"


def load_table(path: Path) -> Table:
    """The table in a file.

    Raises:
        DataError: damaged, without a line of column names, or empty.
    """
    kind = ending(path)
    if kind in (".parquet", ".pq"):
        rows = read_table(path)
        table = Table(path, rows, [f"row {i}" for i in range(rows.num_rows)])
    else:
        table = _jsonl(path) if kind == ".jsonl" else _table(path)
    names = table.table.column_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} has two columns '{twice}': rename one.")
    if not table.table.num_rows:
        raise DataError(f"{path} has no rows.")
    return table


def text_columns(table: Any) -> dict[str, list[str | None]]:
    """The columns of text of a pyarrow table."""
    return {f.name: unwrapped(table.column(f.name)).to_pylist() for f in table.schema if is_text(f.type)}


# .csv and .tsv --------------------------------------------------------------------------------------------------------


def _table(path: Path) -> Table:
    """A file with a line of column names."""
    import pyarrow as pa

    file = io.StringIO(content(path).decode("utf-8", "surrogateescape"), newline="")
    first = file.readline()
    mark = _delimiter(first, ending(path))
    header = [_HALF.sub("�", name).strip() for name in next(csv.reader([first], delimiter=mark), [])]
    if not any(header):
        raise DataError(f"{path} is empty.")
    rows: list[list[str]] = []
    lines: list[int] = []
    faults: dict[int, str] = {}
    for line, row in _rows(file, mark, path):
        if not any(row) and len(header) > 1:
            continue
        if len(row) not in (len(header), 0):
            faults[len(rows)] = f"has {len(row)} columns, and its header has {len(header)}"
            row = [""] * len(header)  # which cell belongs to which column is not known
        rows.append([cell.strip() for cell in row] or [""])
        lines.append(line)
    for i, row in enumerate(rows):
        said = next(filter(None, map(undecodable, row)), None)
        if said is not None:
            faults[i], rows[i] = said, [_HALF.sub("�", cell) for cell in row]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in header]
    typed = [_typed(column) for column in columns]
    if (data := _data_in(header, typed)) is not None:
        raise DataError(
            f"{path} has no line of column names: its first line holds '{data[:24]}'. Put one before it, such as 'sequence'."
        )
    cells = dict(zip(header, columns, strict=True))
    return Table(path, pa.table(typed, names=header), [f"line {line}" for line in lines], faults, cells)


def _data_in(header: list[str], columns: list[Any]) -> str | None:
    """The sequence in a first line that is no line of column names; None where it is one, as far as can be seen.

    It is one where a cell is a customary name, or the word above a column of numbers.
    """
    import pyarrow as pa

    known = any(name.lower() in (*COLUMNS, *IDS, *DIVISIONS) for name in header)
    above = any(
        name and not pa.types.is_string(column.type) and pa.types.is_string(_typed([name]).type)
        for name, column in zip(header, columns, strict=True)
    )
    if known or above:
        return None
    return next((name for name in header if len(name) >= 8 and name.isupper() and fits(name)), None)


def _delimiter(first: str, kind: str) -> str:
    """What stands between the cells of a first line: a comma, unless the file is .tsv or has none and another."""
    others = [mark for mark in "\t;" if mark in first and "," not in first]
    return "\t" if kind == ".tsv" else (*others, ",")[0]


def _rows(file: io.StringIO, mark: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The line where each row ends, after a first line that was read, and its cells.

    Raises:
        DataError: a quote opens a cell of several lines, and no quote closes it, or one that something follows.
    """
    before = csv.field_size_limit(2**31 - 1)  # the longest proteins have more residues than its default allows
    plain = mark == "\t" and not _quoted(file.getvalue())
    how: dict[str, Any] = {"delimiter": mark, "quoting": csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL}
    lines: list[str] = []  # of a row

    def told() -> Iterator[str]:
        for line in chain(file, [""]):  # a quote that is still open goes on into the last one, which is no row
            lines.append(line)
            yield line

    try:
        reader = csv.reader(told(), **how)
        for row in reader:
            if len(lines) > 1 and not _closed(lines, how):
                raise DataError(
                    f"{path}, line {reader.line_num + 2 - len(lines)} opens a quote that is not closed before a cell ends. "
                    "Write the quotes that belong to a text twice, and such a cell in quotes."
                )
            if lines != [""]:
                yield reader.line_num + 1, row
            lines.clear()
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as {ending(path)}: {error}.") from None
    finally:
        csv.field_size_limit(before)


def _closed(lines: list[str], how: dict[str, Any]) -> bool:
    """Whether the quotes of a row of several lines end where its cells end."""
    try:
        return bool(next(csv.reader(lines, **how, strict=True)))
    except csv.Error:
        return False


def _quoted(text: str) -> bool:
    """Whether the quotes of cells between tabs are CSV's, and no part of the texts.

    They are if all quotes are around cells or twice inside one, and the first column's name has them too, or each such cell
    needs them. What goes on over lines and columns is no cell but two texts with a quote each.
    """
    cells = _QUOTED.findall(text)
    named, single = text.startswith('"'), "\t" not in text.partition("\n")[0]
    return '"' not in _QUOTED.sub("", text) and all(
        (named or re.search(r'[",\t\r\n]', cell)) and not ("\n" in cell and (single or "\t" in cell)) for cell in cells
    )


def _typed(cells: list[str]) -> Any:
    """A column of text as whole numbers or real numbers, where all that is not missing is one; else as text.

    Numbers with a zero before another digit, such as 007, are names.
    """
    import pyarrow as pa

    if any(cell[:1] == "0" and cell[1:2].isdigit() for cell in cells):
        return pa.array(cells, pa.string())
    present = pa.array([None if cell in MISSING else cell for cell in cells], pa.string())
    for kind in (pa.int64(), pa.float64()) if present.null_count < len(cells) else ():
        try:
            return present.cast(kind)
        except pa.ArrowInvalid:
            continue
    return pa.array(cells, pa.string())


# .jsonl ---------------------------------------------------------------------------------------------------------------


def _jsonl(path: Path) -> Table:
    """A file with one JSON object on each line, or one JSON text, which is read as `{"text": ...}`."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    faults = {}
    for i, line in enumerate(lines_of(content(path))):
        row, fault = _object(line)
        rows.append(row)
        if fault is not None:
            faults[i] = fault
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise DataError(f"{path} is empty." if not rows else f"{path}, line 1 {faults[0]}.")
    columns = [_of_any([row.get(name) for row in rows]) for name in names]
    return Table(path, pa.table(columns, names=names), [f"line {i + 1}" for i in range(len(rows))], faults)


def _object(line: str) -> tuple[dict[str, Any], str | None]:
    """The object on a line, and what is wrong with the line."""
    fault = "is empty" if not line.strip() else undecodable(line)
    if fault is not None:
        return {}, fault
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}, "is no JSON"
    row = {"text": row} if isinstance(row, str) else row
    if not isinstance(row, dict):
        return {}, "is no JSON object with the names of columns"
    if "\\u" in line:  # halves of surrogate pairs can be written like that
        for name, value in row.items():
            said = undecodable(name) or (undecodable(value) if isinstance(value, str) else None)
            if said is not None:
                return {}, said
    return row, None


def _of_any(values: list[Any]) -> Any:
    """A column of values of JSON, as text where their types differ."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.string())
