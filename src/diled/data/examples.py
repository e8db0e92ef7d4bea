"""`open_examples`: what a user hands to a trained model, as raw values in the model's shape, or a clear refusal.

Only lossless changes happen by themselves: a missing batch or channel axis, channels last, a palette or 16-bit file of
the model's own kind, and the resizing that the model was trained with. The rest needs `convert=True`.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diled.config import DataSpec
from diled.data.arrays import examples_in, numeric
from diled.data.folder import image_items, printable
from diled.data.images import CHANNELS, EXTENSIONS, KIND_NAMES, Header, ImageItem, header, in_threads, read_all
from diled.data.parquet import parquet_files, parquet_part
from diled.data.pixels import as_channels, fit, size_text
from diled.data.scale import raw_dtype
from diled.data.sequence_examples import read_sequence_examples
from diled.data.sources import check_file, existing, is_array, is_image_folder
from diled.data.splits import Split
from diled.errors import DataError, DataWarning

__all__ = ["open_examples", "read_examples", "read_named_examples"]

_LADDER = ("L", "RGB", "RGBA")
Block = list[ImageItem] | tuple[str, np.ndarray]


def read_examples(inputs: Any, spec: DataSpec, **options: Any) -> np.ndarray:
    """`inputs` as raw values (N, *spec.shape), ready for `to_model`. Arguments and errors as in `open_examples`."""
    return open_examples(inputs, spec, **options).values


def read_named_examples(inputs: Any, spec: DataSpec, **options: Any) -> tuple[np.ndarray, list[str]]:
    """Raw values (N, *spec.shape), and a name for each example. Arguments and errors as in `open_examples`."""
    found = open_examples(inputs, spec, **options)
    return found.values, found.ids


def open_examples(
    inputs: Any,
    spec: DataSpec,
    *,
    convert: bool = False,
    skip: bool = False,
    option: str = "",
    column: str | None = None,
) -> Split:
    """Raw values (N, *spec.shape) in the model's raw type, a name for each example, and measurements beside sequences in files.

    Arguments:
        inputs: a path (image, folder, `.npy`, `.npz`, Parquet), a Pillow image, one example or an array of them, or a list
            of any of these. Images may be (H, W, C), and (H, W) where there is one channel. For a model of sequences also
            a sequence, and files of them, see `read_sequence_examples`.
        spec: what the model was trained on.
        convert: bring other channels, sizes (centre crop, unless the model has a policy) and values between the model's
            levels to what the model wants.
        skip: leave out image files and records of sequences that the model cannot read, and say in a warning how many.
        option: the user's way to ask for `skip`, for messages; empty: there is none.
        column: of Parquet files and tables, which holds the images or sequences; None: as in training data.

    Raises:
        DataError: nothing there, unreadable, or of another shape, kind or range than the model's; it names the input.
    """
    if spec.sequential:
        return read_sequence_examples(inputs, spec, convert=convert, column=column, skip=skip, option=option)
    blocks = _gather(inputs, column or spec.reading.get("image_column", "image"), "the input")
    max_pixels = int(spec.reading.get("max_pixels", 64_000_000))  # larger ones are image bombs
    reading = partial(_pictures, spec=spec, convert=convert, max_pixels=max_pixels, skip=skip, option=option)
    values, names, failed, total = [], [], [], 0
    for block in blocks:
        if isinstance(block, list):
            pictures, errors = reading(block)
            values.append(pictures)
            names += [item.id for item, error in zip(block, errors, strict=True) if error is None]
            failed += [error for error in errors if error is not None]
            total += len(block)
        else:
            name, array = block
            one = _array(numeric(np.asarray(array), name), spec, convert, name)
            values.append(_in_range(one, spec, convert, name))
            names += [str(len(names) + i) for i in range(len(one))]
    if failed:
        if not names:
            raise DataError(f"None of {total:,} images can be read. {failed[0]}")
        some = " ".join(map(str, failed[:3])) + (" ..." if len(failed) > 3 else "")
        warnings.warn(f"{len(failed):,} of {total:,} images were left out. {some}", DataWarning, stacklevel=2)
    return Split(values[0] if len(values) == 1 else np.concatenate(values), {}, names)


def _gather(inputs: Any, image_column: str, name: str) -> list[Block]:
    """The inputs in order, neighbouring image files joined so that they are decoded together."""
    if is_array(inputs):
        return [(name, np.asarray(inputs))]
    if isinstance(inputs, Image.Image):
        return [[ImageItem(name, name, inputs)]]
    if isinstance(inputs, (str, Path)):
        return _path(existing(inputs), image_column)
    if not isinstance(inputs, (list, tuple)):
        raise DataError(f"Examples are paths, Pillow images, arrays or lists of these, not {type(inputs).__name__}.")
    if not inputs:
        raise DataError("The list of examples is empty.")
    if not any(is_array(one) or isinstance(one, (str, Path, Image.Image)) for one in inputs):
        try:
            return [(name, np.asarray(inputs, dtype=np.float32))]
        except (ValueError, TypeError):
            raise DataError(
                "The list of examples holds neither paths, images and arrays nor numbers of one shape."
            ) from None
    blocks: list[Block] = []
    for place, one in enumerate(inputs):
        for block in _gather(one, image_column, f"item {place} of the list"):
            if isinstance(block, list) and blocks and isinstance(blocks[-1], list):
                blocks[-1].extend(block)
            else:
                blocks.append(block)
    return blocks


def _path(path: Path, image_column: str) -> list[Block]:
    """All examples of a file or folder, splits and labels disregarded."""
    if path.is_dir():
        if is_image_folder(path):
            return [image_items(path)]
        examples = parquet_part(parquet_files(path), image_column)[0].examples
    else:
        suffix = check_file(path)
        if suffix in EXTENSIONS:
            return [[ImageItem(printable(path.name), printable(str(path)), path)]]
        if suffix in (".npy", ".npz"):
            return [(str(path), group[key]) for key, group in examples_in(path).values()]
        examples = parquet_part([path], image_column)[0].examples
    if not len(examples):
        raise DataError(f"{path} has no rows.")
    return [examples] if isinstance(examples, list) else [(str(path), examples)]


def _pictures(
    items: list[ImageItem], *, spec: DataSpec, convert: bool, max_pixels: int, skip: bool, option: str
) -> tuple[np.ndarray, list[DataError | None]]:
    """Image files or Pillow images as raw values (n, *shape) of an image model, and for each its error or None.

    With `skip`, n counts those without an error; otherwise the first error is raised.
    """
    if spec.kind != "image":
        raise DataError(f"The model wants {_wants(spec)}; {items[0].name} is an image: give an array.")
    kind = spec.mode or {1: "L", 3: "RGB", 4: "RGBA"}.get(spec.shape[0], "")
    if kind not in CHANNELS:
        raise DataError(f"The model wants {_wants(spec)}, which no image file holds: give an array.")
    height, width = spec.shape[1:]
    policy = "crop" if convert and spec.size_policy == "exact" else spec.size_policy
    check = partial(_check_picture, spec=spec, kind=kind, policy=policy, convert=convert, max_pixels=max_pixels)

    def resize(image: np.ndarray, name: str) -> np.ndarray:
        return fit(image, (height, width), policy, name)

    try:
        errors = [one if isinstance(one, DataError) else None for one in in_threads(check, items, skip=skip)]
        rows = [row for row, error in enumerate(errors) if error is None]
        good = [items[row] for row in rows]
        values, damaged = read_all(good, kind, (height, width), max_pixels=max_pixels, skip=skip, resize=resize)
    except DataError as error:
        if not option or len(items) == 1:
            raise
        raise DataError(f"{error} To leave out what cannot be read: {option}.") from error
    for row, fault in zip(rows, damaged, strict=True):
        errors[row] = fault
    if skip:
        values = values[[fault is None for fault in damaged]]
    if not len(values):
        return values, errors
    name = items[0].name if len(items) == 1 else f"{items[0].name} or one of {len(items) - 1:,} more"
    if spec.mode is None and kind != "F":
        # The model has a grey scale of its own, such as 0 to 16: the file's full scale is stretched over it.
        shares = values.astype(np.float64) / 255
        values = (spec.low + shares * (spec.high - spec.low)).astype(np.float32)
        return _in_range(values, spec, True, name), errors
    return _in_range(values, spec, convert, name), errors


def _check_picture(
    item: ImageItem, *, spec: DataSpec, kind: str, policy: str, convert: bool, max_pixels: int
) -> Header:
    """Refuse an image of another kind or size than the model's."""
    found = header(item, max_pixels)
    same = found.kind == kind
    if "palette" in found.remarks and found.kind in _LADDER and kind in _LADDER:
        same = _LADDER.index(found.kind) <= _LADDER.index(kind)  # a palette is only a way of storing
    sized = (found.height, found.width) == spec.shape[1:] or policy != "exact"
    if not sized or not (same or convert):
        raise DataError(
            f"The model wants {_wants(spec)}; {item.name} is {found}: convert it, or pass convert=True (--convert)."
        )
    return found


def _array(values: np.ndarray, spec: DataSpec, convert: bool, name: str) -> np.ndarray:
    """An array as (N, *spec.shape), by adding the axes that are missing, moving the channel, and resizing as trained."""
    shape = spec.shape
    refusal = f"The model wants {_wants(spec)}, arrays {('N', *shape)}; {name} has shape {values.shape}".replace(
        "'", ""
    )
    if 0 in values.shape:
        raise DataError(f"{refusal}: it is empty.")
    if values.shape[1:] == shape:
        return values
    if values.shape == shape:
        return values[None]
    one_channel = len(shape) > 1 and shape[0] == 1
    if one_channel and values.shape == shape[1:]:
        return values[None, None]
    if one_channel and values.shape[1:] == shape[1:]:
        return values[:, None]
    if spec.kind != "image":
        raise DataError(f"{refusal}.")
    images = _channel_second(values, spec, convert)
    if images is None:
        raise DataError(f"{refusal}{'.' if convert else ': convert it, or pass convert=True (--convert).'}")
    policy = "crop" if convert and spec.size_policy == "exact" else spec.size_policy
    if policy == "exact" and images.shape[-2:] != shape[1:]:
        raise DataError(f"{refusal}: resize it, or pass convert=True (--convert).")
    images = as_channels(images, shape[0])
    return np.stack([fit(image, (shape[1], shape[2]), policy, name) for image in images])


def _channel_second(values: np.ndarray, spec: DataSpec, convert: bool) -> np.ndarray | None:
    """Images (N, C, H, W) from an array with another order of axes or another size; None where nothing fits."""
    channels = spec.shape[0]
    allowed = {channels} | ({1, 3, 4} if convert and channels in (1, 3, 4) else set())
    if values.ndim == 4:
        first, last = values.shape[1] in allowed, values.shape[3] in allowed
        if first and not (last and values.shape[3] == channels != values.shape[1]):
            return values
        return np.moveaxis(values, -1, 1) if last else None
    if values.ndim == 3:
        if values.shape[0] in allowed and values.shape[0] == channels:
            return values[None]
        if values.shape[2] in allowed and (channels > 1 or values.shape[2] == 1 or convert):
            return np.moveaxis(values, -1, 0)[None]
        if channels == 1:
            return values[:, None]
        return values[None] if values.shape[0] in allowed else None
    return values[None, None] if values.ndim == 2 and 1 in allowed else None


def _in_range(values: np.ndarray, spec: DataSpec, convert: bool, name: str) -> np.ndarray:
    """Values in the model's raw type; those off its scale or between its levels are refused, or rounded to the nearest."""
    low, high = float(values.min()), float(values.max())
    scale = f"{spec.low:g} to {spec.high:g}"
    if spec.levels is not None or spec.binarize != "none":
        if (low < spec.low or high > spec.high) and not convert:
            raise DataError(
                f"The model wants values from {scale}; {name} has {low:g} to {high:g}: rescale it, or pass "
                "convert=True (--convert) to cut them off."
            )
        values = np.clip(values, spec.low, spec.high) if low < spec.low or high > spec.high else values
    if spec.levels is None or spec.binarize != "none":
        return values if spec.binarize != "none" else values.astype(np.float32)
    dtype, steps = raw_dtype(spec), spec.levels - 1
    if values.dtype == dtype and steps == {np.uint8: 255, np.uint16: 65535}.get(dtype):
        return values
    level = (values.astype(np.float64) - spec.low) * (steps / (spec.high - spec.low))
    nearest = np.rint(level)
    off = np.abs(nearest - level) > 1e-3
    if off.any() and not convert:
        example = float(values[off][0])
        raise DataError(
            f"The model has {spec.levels:,} levels from {scale}; {name} has values between them, such as {example:g}: give "
            f"the raw scale (not 0 to 1 or -1 to 1), or pass convert=True (--convert) to round them."
        )
    return (spec.low + nearest * ((spec.high - spec.low) / steps)).astype(dtype)


def _wants(spec: DataSpec) -> str:
    """The model's data in words."""
    if spec.kind == "vector":
        return f"vectors of {spec.shape[0]:,} numbers"
    if spec.kind == "signal":
        return f"signals with {spec.shape[0]} channels and {spec.shape[1]:,} points"
    kind = spec.mode or {1: "L", 3: "RGB", 4: "RGBA"}.get(spec.shape[0], "")
    return f"{KIND_NAMES.get(kind, f'{spec.shape[0]}-channel images')} {size_text(spec.shape[1], spec.shape[2])}"
