"""Parquet files with an image column, as Hugging Face writes them: a file, or a folder of files with split names.

The image column holds encoded files, as `struct<bytes, path>` or plain binary, or lists of numbers of one length; where
there is none, lists are looked for in a column `values`, as in synthetic sets. All columns of numbers or text beside it
become labels; class names are taken from the schema's `huggingface` metadata where they are declared there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diled.data.arrays import layout
from diled.data.folder import SPLIT_NAMES, files_below
from diled.data.images import ImageItem
from diled.data.lists import is_list, list_values, marked
from diled.data.splits import Found, Part
from diled.errors import DataError, NoColumn, did_you_mean

__all__ = [
    "LISTS",
    "agreed_classes",
    "by_split",
    "class_names",
    "is_text",
    "label_columns",
    "parquet_files",
    "parquet_part",
    "read_parquet",
    "read_table",
    "split_of",
    "table_part",
    "unwrapped",
]

LISTS = "values"
"""Column of the lists of numbers in synthetic sets."""
NUMBER = "index"
"""Column that numbers the samples of synthetic sets; no label."""
UNNAMED = ("", "Unnamed: 0", "__index_level_0__")
"""What pandas writes the index of a table as."""
_SPLIT = re.compile(rf"(?:^|[-_./])({'|'.join(SPLIT_NAMES)})(?=[-_./]|$)", re.IGNORECASE)


def read_parquet(path: Path, image_column: str = "image") -> Found:
    """A Parquet file, or a folder whose files, or folders, are named `*train*`, `*validation*` (or `val`) and `*test*`.

    Raises:
        DataError: damaged, no image column, or files of several data sets in one folder.
    """
    if path.is_file():
        part, classes, notes = parquet_part([path], image_column)
        return _arranged(
            Found(path.name, "image", {"all": part}, notes, classes, full_scale=True, tabular=True), [path]
        )
    found = Found(path.resolve().name, "image", {}, full_scale=True, tabular=True)
    groups, found.notes = by_split(path, parquet_files(path))
    declared: dict[str, dict[str, list[str]]] = {}
    for split, files in groups.items():
        found.parts[split], declared[split], notes = parquet_part(files, image_column)
        found.notes += [note for note in notes if note not in found.notes]
    found.classes = agreed_classes([(found.parts[split].columns, classes) for split, classes in declared.items()])
    return _arranged(found, [file for files in groups.values() for file in files])


def by_split(folder: Path, files: Sequence[Path]) -> tuple[dict[str, list[Path]], list[str]]:
    """The files of each split, told by their names or folders, or all under `all`; and notes.

    Raises:
        DataError: files of several data sets.
    """
    groups: dict[str, list[Path]] = {}
    prefixes = set()
    for file in files:
        name = file.relative_to(folder).with_suffix("").as_posix()
        match = _SPLIT.search(name)
        groups.setdefault(SPLIT_NAMES[match[1].lower()] if match else "all", []).append(file)
        if match:
            prefixes.add(name[: match.start()])
    if "train" not in groups:
        return {"all": [file for files in groups.values() for file in files]}, []
    if len(prefixes) > 1:
        names = ", ".join(name or "train" for name in sorted(prefixes))
        raise DataError(f"{folder} holds several data sets: {names}. Give one file, or a folder for each.")
    rest = groups.pop("all", [])
    named = ", ".join(file.name for file in rest)
    return groups, [f"Left out, because their names tell no split: {named}."] if rest else []


def split_of(file: Path, folder: Path) -> str | None:
    """The split that a file below a folder is named by; None where it is by none."""
    match = _SPLIT.search(file.relative_to(folder).with_suffix("").as_posix())
    return SPLIT_NAMES[match[1].lower()] if match else None


def _arranged(found: Found, files: Sequence[Path]) -> Found:
    """What is found, with the kind and the layout of its arrays where it holds lists: as stated, else by their axes."""
    import pyarrow.parquet as pq

    arrays = {split: part.examples for split, part in found.parts.items() if not isinstance(part.examples, list)}
    if not arrays:
        return found
    if len(arrays) < len(found.parts):
        raise DataError(f"{found.name} holds encoded images in some splits and lists of numbers in others.")
    found.full_scale = False
    found.stated = marked(map(pq.read_schema, files), found.name)
    for split, values in arrays.items():
        if found.stated is not None:
            found.kind = found.stated.kind
            said = f"holds {len(values):,} examples of shape {found.stated.shape}, as the files say."
        else:
            found.parts[split].examples, found.kind, said = layout(values, found.name)
        found.notes.append(f"{found.name} {said}")
    return found


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files below `folder`, sorted."""
    return [file for file in files_below(folder) if file.suffix.lower() in (".parquet", ".pq")]


def read_table(file: Path) -> Any:
    """The pyarrow table in a Parquet file.

    Raises:
        DataError: it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{file} cannot be read as Parquet: {reason}") from error


def parquet_part(files: Sequence[Path], image_column: str = "image") -> tuple[Part, dict[str, list[str]], list[str]]:
    """The rows of `files`, one after the other, with class names and notes."""
    import pyarrow as pa

    tables = [read_table(file) for file in files]
    name = files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{name}: the files have columns of different types ({error}).") from error
    part, notes = table_part(table, image_column, name)
    spec = marked((one.schema for one in tables), name)
    if spec is not None and not isinstance(part.examples, list):
        try:
            part.examples = part.examples.reshape(len(part), *spec.shape)
        except ValueError:
            numbers = " x ".join(map(str, part.examples.shape[1:]))
            raise DataError(f"{name} has lists of {numbers} numbers and says that they are {spec.shape}.") from None
    ends = np.cumsum([len(one) for one in tables])[:-1]
    pieces = {column: np.split(values, ends) for column, values in part.columns.items()}
    each = [({c: p[i] for c, p in pieces.items()}, class_names(one.schema)) for i, one in enumerate(tables)]
    classes = agreed_classes(each)
    part.columns = {column: np.concatenate([columns[column] for columns, _ in each]) for column in part.columns}
    return part, classes, notes


def table_part(table: Any, image_column: str, name: str) -> tuple[Part, list[str]]:
    """Items and label columns of a pyarrow table, and notes on columns that are no labels.

    Raises:
        DataError: no such image column, or it holds neither encoded images nor lists of numbers.
    """

    if image_column not in table.column_names and LISTS in table.column_names and is_list(table.field(LISTS).type):
        image_column = LISTS
    if image_column not in table.column_names:
        others = ", ".join(table.column_names) or "none"
        raise NoColumn(
            f"{name} has no column '{image_column}'.{did_you_mean(image_column, table.column_names)} Its columns are: "
            f"{others}. Choose the one that holds encoded images, lists of numbers, sequences or text with --column; of "
            "training data with --preprocess.image_column, or --preprocess.sequence.column."
        )
    column = table.column(image_column)
    named = f"the column '{image_column}' of {name}"
    items = list_values(column, named) if is_list(column.type) else _items(column, image_column, name)
    columns, notes = label_columns(table, image_column)
    ids = [item.id for item in items] if isinstance(items, list) else [str(row) for row in range(len(items))]
    return Part(items, ids, columns), notes


def label_columns(table: Any, *but: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """The columns of numbers and text of a pyarrow table, without those named `but`; and notes on what was left out."""
    columns, ignored = {}, []
    for field in table.schema:
        if field.name in but:
            continue
        column = unwrapped(table.column(field.name))
        if (field.name == NUMBER and _counts(column)) or (field.name in UNNAMED and _numbers_rows(column)):
            continue
        if _is_label(column.type):
            # Missing entries become None in an object array, so that integers stay integers.
            values = column.to_pylist() if column.null_count or not _is_number(column.type) else column.to_numpy()
            columns[field.name] = np.asarray(values, dtype=object if isinstance(values, list) else None)
        else:
            ignored.append(f"{field.name} ({field.type})")
    return columns, [
        f"Columns that hold neither numbers nor text were left out: {', '.join(ignored)}."
    ] if ignored else []


def _counts(column: Any) -> bool:
    """Whether a column is of whole numbers, each larger than the one before: numbers of rows, and no classes."""
    import pyarrow as pa

    return bool(
        pa.types.is_integer(column.type)
        and not column.null_count
        and (np.diff(column.to_numpy().astype(float)) > 0).all()
    )


def _numbers_rows(column: Any) -> bool:
    """Whether a column is of different whole numbers from 0 on, in any order: the index of a table, or of some of its rows."""
    import pyarrow as pa

    if not pa.types.is_integer(column.type) or column.null_count:
        return False
    values = column.to_numpy()
    return bool(len(np.unique(values)) == len(values) and (values >= 0).all())


def _items(column: Any, image_column: str, name: str) -> list[ImageItem]:
    """One item for each row of the image column; a row without bytes is an empty image, which is reported when read."""
    import pyarrow as pa

    kind = column.type
    binary = (pa.types.is_binary, pa.types.is_large_binary)
    paths: list[str | None] = [None] * len(column)
    if pa.types.is_struct(kind) and "bytes" in [kind.field(i).name for i in range(kind.num_fields)]:
        chunks = column.chunks
        contents = [value for chunk in chunks for value in chunk.field("bytes").to_pylist()]
        if "path" in [kind.field(i).name for i in range(kind.num_fields)]:
            paths = [value for chunk in chunks for value in chunk.field("path").to_pylist()]
    elif any(test(kind) for test in binary):
        contents = column.to_pylist()
    else:
        raise DataError(
            f"The column '{image_column}' of {name} holds {kind}, not encoded images (binary, or a struct with 'bytes') "
            "or lists of numbers. Choose another with --column, or of training data with --preprocess.image_column."
        )
    rows = enumerate(zip(contents, paths, strict=True))
    return [ImageItem(path or str(row), f"row {row} of {name}", content or b"") for row, (content, path) in rows]


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_label(kind: Any) -> bool:
    import pyarrow as pa

    return _is_number(kind) or is_text(kind) or pa.types.is_boolean(kind)


def is_text(kind: Any) -> bool:
    """Whether a pyarrow type is of text, also where each text is stored once and columns hold its numbers (categories)."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def unwrapped(column: Any) -> Any:
    """A pyarrow column, of categories as the values that they stand for."""
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def agreed_classes(each: Sequence[tuple[dict[str, np.ndarray], dict[str, list[str]]]]) -> dict[str, list[str]]:
    """The names of classes that several tables declare alike.

    One that declares none, and has numbers, means them as the others do. Where they do not agree, the names take the place
    of the numbers in the tables' columns.

    Args:
        each: of each table its label columns (N,), and the names of the classes of those that it declares.
    """
    found = {}
    for column in sorted({c for _, classes in each for c in classes}):
        names = [classes.get(column) for _, classes in each]
        silent = [columns[column] for columns, classes in each if column in columns and column not in classes]
        first = next(own for own in names if own is not None)
        if all(own in (None, first) for own in names) and all(_is_numeric(values) for values in silent):
            found[column] = first
            continue
        for (columns, _), own in zip(each, names, strict=True):
            if own is not None and column in columns:
                columns[column] = _named(columns[column], own)
    return found


def _is_numeric(values: np.ndarray) -> bool:
    """Whether values (N,) are numbers, or missing."""
    return values.dtype.kind in "iuf" or all(isinstance(value, (int, float, type(None))) for value in values.tolist())


def _named(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The names (N,) of classes (N,) by number; None where there is no such class."""
    found = np.full(len(values), None, object)
    for i, value in enumerate(values.tolist()):
        if value is not None and 0 <= value < len(names):
            found[i] = names[int(value)]
    return found


def class_names(schema: Any) -> dict[str, list[str]]:
    """Class names that the Hugging Face metadata of a schema declares; empty where there are none or they are damaged."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        declared = {c: f["names"] for c, f in features.items() if isinstance(f, dict) and "names" in f}
    except (KeyError, TypeError, ValueError):
        return {}
    return {column: [str(n) for n in names] for column, names in declared.items() if isinstance(names, list)}
