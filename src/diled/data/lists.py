"""Lists of numbers in Parquet columns as arrays: row n of a column of lists is example n.

    list<float>[D] -> (N, D),      list<list<float>[W]>[H] -> (N, H, W),      and so on

Arrow has lists of fixed size, which say the shape, and lists of any, which have one where all rows agree. The array types of
Hugging Face `datasets` are stored as either. Shards of ours are flat, and say in the schema what was flattened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from diled.config import DataSpec, validated
from diled.errors import ConfigError, DataError

__all__ = ["is_list", "list_values", "mark", "marked"]

KEY = b"diled"
"""Of the schema's metadata, where the description of the data stands."""


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is a list of numbers, or of such lists."""
    import pyarrow as pa

    kind = getattr(kind, "storage_type", kind)
    nested = _nests(kind)
    while _nests(kind):
        kind = kind.value_type
    return nested and any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))


def list_values(column: Any, name: str) -> np.ndarray:
    """The rows of a column of lists, (N, ...), in the type of their numbers.

    Args:
        column: a pyarrow ChunkedArray.
        name: of the column, for messages.

    Raises:
        DataError: a row or a number is missing, or the rows differ in length.
    """
    arrays = [_numbers(getattr(chunk, "storage", chunk), name) for chunk in column.chunks if len(chunk)]
    if not arrays:
        kind, dimensions = getattr(column.type, "storage_type", column.type), 1
        while _nests(kind):
            kind, dimensions = kind.value_type, dimensions + 1
        return np.zeros((0,) * dimensions, kind.to_pandas_dtype())
    for one in arrays:
        _same(one.shape[1:], arrays[0].shape[1:], name)
    return np.concatenate(arrays)


def _numbers(values: Any, name: str) -> np.ndarray:
    """The rows of one chunk, (N, ...), N > 0."""
    shape = [len(values)]
    while _nests(values.type):
        _whole(values, name)
        lengths = [values.type.list_size] if _is_fixed(values.type) else values.value_lengths().unique().to_pylist()
        _same((max(lengths),), (min(lengths),), name)
        shape.append(lengths[0])
        values = values.flatten()
        if not len(values):
            raise DataError(f"The lists in {name} are empty: there is nothing to train on.")
    _whole(values, name)
    array: np.ndarray = values.to_numpy(zero_copy_only=False)
    return array.reshape(shape)


def _same(one: tuple[int, ...], other: tuple[int, ...], name: str) -> None:
    if one != other:
        short, long = sorted(next((a, b) for a, b in zip(one, other, strict=True) if a != b))
        raise DataError(f"The lists in {name} differ in length, such as {short} and {long}: bring them to one length.")


def mark(table: Any, spec: DataSpec) -> Any:
    """A pyarrow table whose schema says what its flat lists are."""
    return table.replace_schema_metadata({KEY: json.dumps(spec.model_dump(mode="json"))})


def marked(schemas: Iterable[Any], name: str) -> DataSpec | None:
    """What the schemas of some files say their flat lists are; None where they say nothing.

    Raises:
        DataError: they say different things, or what no data are.
    """
    said = {metadata[KEY] for schema in schemas if KEY in (metadata := schema.metadata or {})}
    if len(said) > 1:
        raise DataError(f"{name}: the files say that they hold different data. Give one folder for each.")
    try:
        return validated(DataSpec, json.loads(said.pop()), "data") if said else None
    except (ValueError, TypeError, ConfigError) as error:
        raise DataError(f"{name} is damaged: the description of its data cannot be read ({error}).") from None


def _nests(kind: Any) -> bool:
    import pyarrow as pa

    return _is_fixed(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_fixed(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind))


def _whole(values: Any, name: str) -> None:
    if values.null_count:
        raise DataError(f"{name} has missing entries ({values.null_count:,}): remove these rows, or fill them.")
