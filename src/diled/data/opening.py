"""`open_data`: find, look at the headers, divide, decode, and state the measure.

    source -> Found (parts, labels)  -> headers: one kind, one size -> divide -> decode, resize -> levels, scale -> Data

The division comes before decoding, so that only the final arrays are ever held, each once, and before texts become tokens, so
that the tokenizer is trained on training texts alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diled.config import DataSpec, PreprocessConfig, SequenceConfig
from diled.data.arrays import numeric
from diled.data.images import (
    CHANNELS,
    KIND_NAMES,
    Header,
    header,
    in_threads,
    read_all,
    remarks_text,
    target_kind,
)
from diled.data.labels import encode_labels
from diled.data.pixels import as_channels, fit, size_text
from diled.data.scale import measure, raw_dtype
from diled.data.sequence_splits import divide_sequences
from diled.data.sources import find
from diled.data.splits import Data, Found, Part, Split, divide
from diled.data.text_files import tokenize
from diled.errors import DataError

__all__ = ["open_data"]

READING = ("column", "id_column", "padding")
"""What of a `SequenceConfig` a model keeps, to read other files alike."""
_CHANNELS = {"grey": 1, "rgb": 3, "rgba": 4}


@dataclass(eq=False)
class _Pictures:
    """What encoded images become: their kind and size, and the files that could not be read so far."""

    kind: str
    size: tuple[int, int]
    total: int
    failed: list[str] = field(default_factory=list)


def open_data(
    source: str | Path | np.ndarray | Sequence[Any],
    preprocess: PreprocessConfig = PreprocessConfig(),  # noqa: B008 (frozen)
    *,
    seed: int = 0,
) -> Data:
    """Training, validation and test data of `source`, as found unless `preprocess` says otherwise.

    Arguments:
        source: a known name (`digits`, `mnist`, ..., see `known_sets`; it goes before a folder of that name), a folder of
            images, a Parquet file or a folder of them, `.npy` or `.npz` (see `diled.data.arrays` for which axis is what),
            protein sequences in FASTA, or sequences or text in a table (`.csv`, `.tsv`, `.jsonl`, Parquet) or one a line
            (`.txt`), or a folder of these, an array (N, ...), or a list of image paths, Pillow images, arrays, sequences
            or texts.
        preprocess: size, channels, splits, labels, tokenizer, and what to do with unreadable files and records.
        seed: of the division and of `preprocess.limit`. It is apart from the training seed: keep it, so that an example
            of the test set stays one.

    Raises:
        DataError: nothing there, unreadable, mixed without a choice, or too little to train on.

    Example:
        >>> data = open_data("digits")
        >>> data.train.values.shape, data.spec.levels
        ((1293, 1, 8, 8), 17)
    """
    found = find(source, preprocess)
    encoded = isinstance(next(iter(found.parts.values())).examples, list)
    words = found.kind == "text" and found.stated is None  # stored rows of tokens state theirs
    if encoded:
        pictures = _survey(found, preprocess)
        integer = pictures.kind != "F"
    else:
        integer = _checked(found, preprocess) if words else _prepare(found, preprocess)
    columns, classes, notes = encode_labels(found.parts, found.classes, preprocess.label_column, found.name)
    for split, part in found.parts.items():
        part.columns = columns[split]
    found.notes += notes
    parts, notes = (divide_sequences if found.kind in ("protein", "text") else divide)(found, preprocess, seed)
    found.notes += notes
    if words:
        found.stated, notes = tokenize(parts, found.name, preprocess)
        found.notes += notes
    found.parts.clear()  # so that popping frees each part once it is decoded
    splits = {}
    for name in list(parts):
        part = parts.pop(name)
        splits[name] = _decoded(part, pictures, preprocess, name) if encoded else _converted(part, found, preprocess)
    if encoded and pictures.failed:
        named = ", ".join(pictures.failed[:5]) + (", ..." if len(pictures.failed) > 5 else "")
        count = f"{len(pictures.failed):,} of {pictures.total:,}"
        found.notes.append(f"{count} files could not be read and were left out: {named}.")
    spec = _spec(found, splits, classes, preprocess, integer, pictures.kind if encoded else None)
    return Data(found.name, spec, splits["train"], splits["validation"], splits["test"], found.notes)


def _survey(found: Found, preprocess: PreprocessConfig) -> _Pictures:
    """Read all headers, drop what cannot be read where that is wanted, and settle on one kind and one size."""
    headers: list[Header] = []
    failed: list[str] = []
    total = sum(len(part) for part in found.parts.values())
    look = partial(header, max_pixels=preprocess.max_pixels)
    for name, part in found.parts.items():
        assert isinstance(part.examples, list)
        results = _reading(look, part.examples, preprocess)
        good = [row for row, result in enumerate(results) if isinstance(result, Header)]
        headers += [result for result in results if isinstance(result, Header)]
        if len(good) < len(results):
            failed += [part.ids[row] for row, result in enumerate(results) if isinstance(result, DataError)]
            found.parts[name] = part.take(np.array(good, dtype=np.int64))
    if not headers:
        raise DataError(f"None of the {total:,} images of {found.name} can be read, such as {failed[0]}.")
    kinds, kind = target_kind(headers, preprocess.channels, found.name)
    found.notes.append(f"{len(headers):,} {KIND_NAMES[kind]} images were found in {found.name}.")
    found.notes += remarks_text(headers)
    for other, count in Counter(kinds).items():
        if other != kind:
            lost = " (transparency dropped)" if other in ("RGBA", "LA") and kind != "RGBA" else ""
            change = f"{KIND_NAMES.get(other, other)} became {KIND_NAMES[kind]}{lost}"
            found.notes.append(f"{count:,} of {len(headers):,}: {change}.")
    size = _size(Counter((h.height, h.width) for h in headers), preprocess, found)
    return _Pictures(kind, size, total, failed)


def _size(sizes: Counter[tuple[int, int]], preprocess: PreprocessConfig, found: Found) -> tuple[int, int]:
    """The one size of all images: as found, or as chosen."""
    shown = ", ".join(f"{count:,} of {size_text(*size)}" for size, count in sizes.most_common(4))
    more = f" and {len(sizes) - 4:,} other sizes" if len(sizes) > 4 else ""
    if preprocess.size is None:
        if len(sizes) > 1:
            raise DataError(
                f"The images of {found.name} differ in size: {shown}{more}. Choose one with --preprocess.size (and how, "
                "with --preprocess.size_policy crop|pad|border|stretch)."
            )
        return next(iter(sizes))
    size = (preprocess.size, preprocess.size) if isinstance(preprocess.size, int) else preprocess.size
    if set(sizes) != {size}:
        if preprocess.size_policy == "exact":
            raise DataError(
                f"The images of {found.name} are not all {size_text(*size)}: {shown}{more}. Choose how they are to be "
                "brought there with --preprocess.size_policy crop|pad|border|stretch."
            )
        found.notes.append(f"Brought to {size_text(*size)} ({preprocess.size_policy}): {shown}{more}.")
    return size


def _reading(function: Any, items: Sequence[Any], preprocess: PreprocessConfig) -> list[Any]:
    """`in_threads`, with the way out named where it stops."""
    try:
        small = all(isinstance(item.content, bytes) for item in items)
        return in_threads(function, items, skip=preprocess.on_error == "skip", small=small)
    except DataError as error:
        raise DataError(f"{error} To leave out what cannot be read: --preprocess.on_error skip.") from error


def _decoded(part: Part, pictures: _Pictures, preprocess: PreprocessConfig, split: str) -> Split:
    """The pixels of encoded images, without those that turn out to be damaged where these are skipped."""
    assert isinstance(part.examples, list)
    resize = None
    if preprocess.size is not None:
        resize = partial(fit, size=pictures.size, policy=preprocess.size_policy)
    skip = preprocess.on_error == "skip"
    try:
        values, errors = read_all(
            part.examples,
            pictures.kind,
            pictures.size,
            max_pixels=preprocess.max_pixels,
            skip=skip,
            resize=None if resize is None else lambda image, name: resize(image, name=name),
        )
    except DataError as error:
        raise DataError(f"{error} To leave out what cannot be read: --preprocess.on_error skip.") from error
    good = np.array([error is None for error in errors])
    if not good.all():
        pictures.failed += [part.ids[row] for row in np.flatnonzero(~good)]
        if not good.any():
            raise DataError(f"No image of the {split} split can be read, such as {part.ids[0]}.")
        values, part = values[good], part.take(np.flatnonzero(good))
    if values.dtype == np.float32:
        values = numeric(values, f"the {split} split")
    return Split(values, part.columns, part.ids)


def _prepare(found: Found, preprocess: PreprocessConfig) -> bool:
    """Bring all array parts to one type and one shape, in place; whether they hold whole numbers."""
    for part in found.parts.values():
        part.examples = numeric(np.asarray(part.examples), found.name)
    arrays = [np.asarray(part.examples) for part in found.parts.values()]
    if len({array.shape[1:] for array in arrays}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(found.parts, arrays, strict=True))
        raise DataError(f"The splits of {found.name} differ in shape: {shapes}.")
    integer = all(np.issubdtype(array.dtype, np.integer) for array in arrays)
    low, high = min(int(a.min()) for a in arrays) if integer else 0, max(int(a.max()) for a in arrays) if integer else 0
    dtype: type[np.generic] = np.float32
    if found.stated is not None and found.stated.sequential:
        dtype = raw_dtype(found.stated)
    elif integer and low >= 0 and high <= 65535:
        dtype = np.uint8 if high <= 255 else np.uint16
    elif integer and max(-low, high) > 2**24:
        found.notes.append("Whole numbers beyond 16,777,216 lose their last digits in 32-bit floating point.")
    for part in found.parts.values():
        part.examples = np.asarray(part.examples).astype(dtype, copy=False)
    _checked(found, preprocess)
    if found.kind == "image":
        _size(Counter({arrays[0].shape[-2:]: sum(len(array) for array in arrays)}), preprocess, found)
        channels = _CHANNELS.get(preprocess.channels, int(arrays[0].shape[1]))
        if channels != arrays[0].shape[1]:
            as_channels(arrays[0][:1], channels)  # refuses before anything is divided
            found.notes.append(f"{arrays[0].shape[1]} channels became {channels} ({preprocess.channels}).")
    return integer


def _checked(found: Found, preprocess: PreprocessConfig) -> bool:
    """Refuse options of images for what are none; true, since what stays as it is has whole numbers."""
    if found.kind != "image" and (preprocess.size is not None or preprocess.channels != "auto"):
        what = "size" if preprocess.size is not None else "channels"
        held = "text" if found.kind == "text" else f"{found.kind}s"
        raise DataError(f"--preprocess.{what} is for images, and {found.name} holds {held}.")
    return True


def _converted(part: Part, found: Found, preprocess: PreprocessConfig) -> Split:
    """One split of arrays, with the channels and the size that were chosen."""
    values = np.asarray(part.examples)
    if found.kind == "image":
        values = as_channels(values, _CHANNELS.get(preprocess.channels, int(values.shape[1])))
        if preprocess.size is not None:
            size = (preprocess.size, preprocess.size) if isinstance(preprocess.size, int) else preprocess.size
            out = np.zeros((*values.shape[:2], *size), values.dtype)

            def resize(row: int) -> None:
                out[row] = fit(values[row], size, preprocess.size_policy)

            in_threads(resize, range(len(values)), skip=False)
            values = out
    return Split(np.ascontiguousarray(values), part.columns, part.ids)


def _spec(
    found: Found,
    splits: dict[str, Split],
    classes: dict[str, list[str]],
    preprocess: PreprocessConfig,
    integer: bool,
    kind: str | None,
) -> DataSpec:
    """Shape, scale and levels of the final values."""
    values = [splits[name].values for name in ("train", "validation", "test")]
    low, high, levels, notes = _stated(found, values) or measure(
        values, integer=integer, full_scale=found.full_scale, kind=found.kind, name=found.name
    )
    found.notes += notes
    shape = values[0].shape[1:]
    mode = kind
    if kind is None and found.kind == "image" and (found.full_scale or high in (255.0, 65535.0)) and low == 0:
        modes = {(1, "uint8"): "L", (3, "uint8"): "RGB", (4, "uint8"): "RGBA", (1, "uint16"): "I;16"}
        mode = modes.get((shape[0], values[0].dtype.name))
    if preprocess.binarize != "none":
        how = "drawn anew at each reading" if preprocess.binarize == "dynamic" else "cut at one half of the scale"
        found.notes.append(f"Binarised: each value is {how}.")
        levels = 2
    assert kind is None or CHANNELS[kind] == shape[0]
    return DataSpec(
        kind=found.kind,
        shape=shape,
        levels=levels,
        low=low,
        high=high,
        binarize=preprocess.binarize,
        mode=mode,
        size_policy="exact" if preprocess.size is None else preprocess.size_policy,
        labels=classes,
        reading=_said_of_files(preprocess),
        **{}
        if found.stated is None
        else {k: getattr(found.stated, k) for k in ("symbols", "background", "sites", "aligned", "tokenizer")},
    )


def _said_of_files(preprocess: PreprocessConfig) -> dict[str, str]:
    """Columns, filling and the largest image that the user named, as `DataSpec.reading` keeps them."""
    usual, mine = SequenceConfig(), preprocess.sequence
    said = {key: getattr(mine, key) for key in READING if getattr(mine, key) != getattr(usual, key)}
    own = {"image_column": preprocess.image_column, "max_pixels": str(preprocess.max_pixels)}
    kept = {"image_column": "image", "max_pixels": str(PreprocessConfig().max_pixels)}
    return said | {key: value for key, value in own.items() if value != kept[key]}


def _stated(found: Found, values: list[np.ndarray]) -> tuple[float, float, int | None, list[str]] | None:
    """The scale that a source itself states, as `measure` would say it; None where it states none.

    Binarised data state two levels and hold grey values, which have a scale of their own.
    """
    spec = found.stated
    if spec is None or spec.binarize != "none":
        return None
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    if spec.levels is not None and (low < spec.low or high > spec.high):
        raise DataError(
            f"{found.name} says that its values are {spec.low:g} to {spec.high:g}, and holds {low:g} to {high:g}."
        )
    if spec.sequential:
        return spec.low, spec.high, spec.levels, []
    levels = "continuous" if spec.levels is None else f"{spec.levels:,} levels"
    return spec.low, spec.high, spec.levels, [f"Values from {spec.low:g} to {spec.high:g}, {levels}, as the files say."]
