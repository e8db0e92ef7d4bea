"""One shard of a synthetic training set as a Parquet file: samples with their numbers, read alike by others and by us.

image   struct<bytes, path>: 8-bit grey or RGB as PNG, marked so that Hugging Face `datasets` decodes it by itself
text    string: of tokens, what they spell, so that a model with another tokenizer can read it as well
values  a list of fixed size: everything else, in the raw type, flattened; the schema says of what shape and scale
index   int64: the number of the sample
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from diled.config import DataSpec
from diled.data.images import ImageItem, decode
from diled.data.lists import mark
from diled.data.synthetic_texts import as_objects
from diled.data.text import decode_rows
from diled.errors import DataError

__all__ = ["decoded", "encoded"]

FEATURES = {"image": {"_type": "Image"}, "index": {"dtype": "int64", "_type": "Value"}}
"""What `datasets` wants to know of a shard of images; it reads lists as they are."""


def encoded(values: np.ndarray, start: int, spec: DataSpec) -> bytes:
    """The Parquet file of the samples number `start` and up; equal values give equal bytes.

    Args:
        values: raw values (N, *spec.shape).
        start: the number of the first.
        spec: of the samples.
    """
    import pyarrow as pa

    numbers = np.arange(start, start + len(values), dtype=np.int64)
    if spec.kind == "text":
        return _parquet(pa.table({"text": pa.array(decode_rows(values, spec), pa.string()), "index": numbers}))
    full = values.dtype == np.uint8 and (spec.low, spec.high) == (0, 255)  # a scale of 0 to 16 would look black
    if full and spec.kind == "image" and spec.shape[0] in (1, 3):
        paths = pa.array([f"{i:08d}.png" for i in numbers])
        images = pa.StructArray.from_arrays([pa.array(_png(values), pa.binary()), paths], ["bytes", "path"])
        table = pa.table({"image": images, "index": numbers})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    else:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        table = pa.table({"values": pa.FixedSizeListArray.from_arrays(flat, values[0].size), "index": numbers})
        table = mark(table, spec)
    return _parquet(table)


def _parquet(table: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def decoded(content: bytes, start: int, spec: DataSpec, name: str) -> np.ndarray:
    """The raw values (N, *spec.shape) of a shard whose first sample is number `start`; of text the texts, (N,) objects.

    Args:
        content: the Parquet file.
        start: the number that its first sample must have.
        spec: of the samples.
        name: of the file, for messages.

    Raises:
        DataError: no such shard.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content)).combine_chunks()
        numbers = table["index"].to_numpy()
        if not np.array_equal(numbers, np.arange(start, start + len(numbers))):
            raise DataError(f"{name} holds other samples than those from number {start:,} on.")
        if spec.kind == "text":
            return as_objects(table["text"].to_pylist())
        if "image" not in table.column_names:
            flat: np.ndarray = table["values"].combine_chunks().flatten().to_numpy()
            return flat.reshape(-1, *spec.shape)
        contents = table["image"].combine_chunks().field("bytes").to_pylist()
    except (pa.ArrowException, KeyError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} is no shard of samples of shape {spec.shape} ({error}).") from None
    values = np.empty((len(contents), *spec.shape), np.uint8)
    for row, one in enumerate(contents):  # not `read_all`, whose threads and warnings do not nest in other threads
        picture = decode(ImageItem(str(row), f"row {row} of {name}", one or b""), "L" if spec.shape[0] == 1 else "RGB")
        if picture.shape != spec.shape:
            raise DataError(f"Row {row} of {name} has the shape {picture.shape}, not {spec.shape}.")
        values[row] = picture
    return values


def _png(values: np.ndarray) -> list[Any]:
    """Images (N, C, H, W), uint8, as PNG. Level 1 takes 32 microseconds for 28 x 28 pixels, the usual 6 a quarter more, for
    files that are 3 % smaller."""
    pixels = values[:, 0] if values.shape[1] == 1 else np.ascontiguousarray(np.moveaxis(values, 1, -1))
    out = []
    for one in pixels:
        buffer = BytesIO()
        Image.fromarray(one).save(buffer, "PNG", compress_level=1)
        out.append(buffer.getvalue())
    return out
