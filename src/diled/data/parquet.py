"""Parquet files with an image column, as Hugging Face writes them: a file, or a folder of files with split names.

The image column holds encoded files, as `struct<bytes, path>` or plain binary. All columns of numbers or text beside it
become labels; class names are taken from the schema's `huggingface` metadata where they are declared there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diled.data.folder import SPLIT_NAMES, files_below
from diled.data.images import ImageItem
from diled.data.splits import Found, Part
from diled.errors import DataError, did_you_mean

__all__ = ["class_names", "parquet_files", "parquet_part", "read_parquet", "table_part"]

_SPLIT = re.compile(r"(?:^|[-_./])(train|training|validation|valid|val|test)(?=[-_./]|$)", re.IGNORECASE)


def read_parquet(path: Path, image_column: str = "image") -> Found:
    """A Parquet file, or a folder whose files, or folders, are named `*train*`, `*validation*` (or `val`) and `*test*`.

    Raises:
        DataError: damaged, no image column, or files of several data sets in one folder.
    """
    if path.is_file():
        part, classes, notes = parquet_part([path], image_column)
        return Found(path.name, "image", {"all": part}, notes, classes, full_scale=True)
    groups: dict[str, list[Path]] = {}
    prefixes = set()
    for file in parquet_files(path):
        name = file.relative_to(path).with_suffix("").as_posix()
        match = _SPLIT.search(name)
        groups.setdefault(SPLIT_NAMES[match[1].lower()] if match else "all", []).append(file)
        if match:
            prefixes.add(name[: match.start()])
    if "train" not in groups:
        groups = {"all": [file for files in groups.values() for file in files]}
    elif len(prefixes) > 1:
        names = ", ".join(name or "train" for name in sorted(prefixes))
        raise DataError(f"{path} holds several data sets: {names}. Give one file, or a folder for each.")
    found = Found(path.resolve().name, "image", {}, full_scale=True)
    if "train" in groups and (rest := groups.pop("all", [])):
        found.notes.append(f"Left out, because their names tell no split: {', '.join(f.name for f in rest)}.")
    for split, files in groups.items():
        found.parts[split], classes, notes = parquet_part(files, image_column)
        found.classes |= classes
        found.notes += [note for note in notes if note not in found.notes]
    return found


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files below `folder`, sorted."""
    return [file for file in files_below(folder) if file.suffix.lower() in (".parquet", ".pq")]


def parquet_part(files: Sequence[Path], image_column: str = "image") -> tuple[Part, dict[str, list[str]], list[str]]:
    """The rows of `files`, one after the other, with class names and notes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for file in files:
        try:
            tables.append(pq.read_table(file, partitioning=None))
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{file} cannot be read as Parquet: {reason}") from error
    name = files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{name}: the files have columns of different types ({error}).") from error
    part, notes = table_part(table, image_column, name)
    return part, class_names(tables[0].schema), notes


def table_part(table: Any, image_column: str, name: str) -> tuple[Part, list[str]]:
    """Items and label columns of a pyarrow table, and notes on columns that are no labels.

    Raises:
        DataError: no such image column, or it does not hold encoded images.
    """
    import pyarrow as pa

    if image_column not in table.column_names:
        others = ", ".join(table.column_names) or "none"
        raise DataError(
            f"{name} has no column '{image_column}'.{did_you_mean(image_column, table.column_names)} Its columns are: "
            f"{others}. Choose the one that holds encoded images with --preprocess.image_column."
        )
    items = _items(table.column(image_column), image_column, name)
    columns, ignored = {}, []
    for field in table.schema:
        if field.name == image_column:
            continue
        column = table.column(field.name)
        if pa.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type)
        if _is_label(column.type):
            # Missing entries become None in an object array, so that integers stay integers.
            values = column.to_pylist() if column.null_count or not _is_number(column.type) else column.to_numpy()
            columns[field.name] = np.asarray(values, dtype=object if isinstance(values, list) else None)
        else:
            ignored.append(f"{field.name} ({field.type})")
    notes = [f"Columns that hold neither numbers nor text were left out: {', '.join(ignored)}."] if ignored else []
    return Part(items, [item.id for item in items], columns), notes


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
            f"The column '{image_column}' of {name} holds {kind}, not encoded images (binary, or a struct with 'bytes'). "
            "Choose another with --preprocess.image_column."
        )
    rows = enumerate(zip(contents, paths, strict=True))
    return [ImageItem(path or str(row), f"row {row} of {name}", content or b"") for row, (content, path) in rows]


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_label(kind: Any) -> bool:
    import pyarrow as pa

    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return _is_number(kind) or text or pa.types.is_boolean(kind)


def class_names(schema: Any) -> dict[str, list[str]]:
    """Class names that the Hugging Face metadata of a schema declares; empty where there are none or they are damaged."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        declared = {c: f["names"] for c, f in features.items() if isinstance(f, dict) and "names" in f}
    except (KeyError, TypeError, ValueError):
        return {}
    return {column: [str(n) for n in names] for column, names in declared.items() if isinstance(names, list)}
