"""Arrays, `.npy` and `.npz`: which axis is what, and which numbers are whole.

Layout rules, each said in the notes:

    (N, D)          vectors
    (N, A, B)       signals (N, C, L) or (N, L, C) where one of A, B is at most 16 and the other at least 8 times as long
                    (the short one is the channel); otherwise grey images (N, H, W)
    (N, A, B, C)    images; the channel is the axis of length 1, 3 or 4, the first where both are (or the shorter of
                    the two); where neither is, as in multispectral data, the shorter of the first and the last

So (N, 1, H, W) always is grey images and (N, 1, L) with L >= 8 always is signals of one channel.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from diled.data.folder import SPLIT_NAMES
from diled.data.splits import Found, Part
from diled.errors import DataError

__all__ = ["examples_in", "layout", "load_arrays", "numeric", "read_array", "read_array_file"]

VALUE_NAMES = ("images", "imgs", "x", "X", "data", "values", "arr_0")
LABEL_NAMES = ("labels", "label", "y")
Kind = Literal["image", "signal", "vector"]


def layout(values: np.ndarray, name: str) -> tuple[np.ndarray, Kind, str]:
    """`values` with the channel axis second, the kind, and a sentence that says what was assumed.

    Raises:
        DataError: no examples, or a number of axes that fits none of the rules above.
    """
    shape = values.shape
    if 0 in shape:
        raise DataError(f"{name} is empty: its shape is {shape}.")
    if values.ndim == 2:
        return values, "vector", f"{shape} was read as {shape[0]:,} vectors of {shape[1]} numbers."
    if values.ndim == 3:
        return _three_axes(values, name)
    if values.ndim == 4:
        first, last = shape[1], shape[3]
        named = (first in (1, 3, 4), last in (1, 3, 4))
        channel_last = last < first if named[0] == named[1] else named[1]
        said = f"{shape} was read as {shape[0]:,} images, channel {'last' if channel_last else 'first'}"
        values = np.moveaxis(values, -1, 1) if channel_last else values
        return values, "image", f"{said}: {values.shape[1]} x {values.shape[2]} x {values.shape[3]} (C x H x W)."
    raise DataError(
        f"{name} has shape {shape}. Arrays that are read: (N, D) vectors, (N, H, W) or (N, C, H, W) or (N, H, W, C) images, "
        "(N, C, L) signals."
    )


def _three_axes(values: np.ndarray, name: str) -> tuple[np.ndarray, Kind, str]:
    """Signals or grey images; one colour picture is a frequent mistake, and told apart."""
    n, a, b = values.shape
    if values.dtype == np.uint8 and b in (3, 4) and a > b:
        raise DataError(
            f"{name} has shape {values.shape} and looks like one colour image. One image cannot train a model: store "
            "(N, H, W, C); or for signals with channels last, give (N, C, L)."
        )
    if a <= 16 and b >= 8 * a:
        return values, "signal", f"{values.shape} was read as {n:,} signals with {a} channels and {b} points."
    if b <= 16 and a >= 8 * b:
        said = f"{values.shape} was read as {n:,} signals with {b} channels (last axis) and {a} points."
        return np.moveaxis(values, -1, 1), "signal", said
    return values[:, None], "image", f"{values.shape} was read as {n:,} grey images of {a} x {b} (H x W)."


def numeric(values: np.ndarray, name: str) -> np.ndarray:
    """`values` as uint8, uint16 or another integer type, or as float32 without NaN or infinity.

    Raises:
        DataError: not real numbers, or some are NaN or infinite.
    """
    if values.dtype == bool:
        return values.astype(np.uint8)
    if np.issubdtype(values.dtype, np.integer):
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise DataError(f"{name} holds {values.dtype} values, not real numbers.")
    with np.errstate(over="ignore"):
        values = np.asarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        bad = ~np.isfinite(values)
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"{name} has {int(bad.sum()):,} values that are NaN or infinite (in 32 bits), the first at index {first}. "
            "Remove or fill them."
        )
    return values


def read_array(values: np.ndarray, name: str, columns: dict[str, np.ndarray] | None = None) -> Found:
    """Examples from one array (N, ...), by the layout rules of this module."""
    values, kind, said = layout(values, name)
    part = Part(values, [str(i) for i in range(len(values))], columns or {})
    return Found(name, kind, {"all": part}, [f"{name} {said}"])


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npy` (named `arr_0`) or `.npz` file. Nothing is ever unpickled; `.npy` is mapped, not read.

    Raises:
        DataError: truncated, not NumPy's format, or Python objects inside.
    """
    try:
        if path.suffix.lower() == ".npy":
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
            return {"arr_0": loaded}
        # Opened here, because np.load leaves the file open where it fails.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        with path.open("rb") as file:
            start = file.read(8)
        numpys = start.startswith((b"\x93NUMPY", b"PK"))
        if numpys and ("allow_pickle" in str(error) or "object" in str(error)):
            raise DataError(
                f"{path} holds Python objects (a pickle), which are never loaded because they can run code: save an array "
                "of numbers."
            ) from None
        what = "is truncated or damaged" if numpys else "is not a NumPy file"
        raise DataError(f"{path} {what}: it cannot be read as {path.suffix.lower()}. Write it again.") from error


def read_array_file(path: Path, label_column: str | None = None) -> Found:
    """Examples and labels from an `.npy` or `.npz` file.

    In an `.npz`, the examples are the array named as in `VALUE_NAMES` (or the only one), possibly once per split as in
    `x_train`, `x_test` or `train_images`. Every other array with one number or text per example is a label column;
    `labels`, `label` and `y` are called `label`.

    Raises:
        DataError: damaged, no array of examples, or labels of another length.
    """
    if path.suffix.lower() == ".npy":
        return read_array(load_arrays(path)["arr_0"], path.name)
    found: Found | None = None
    for split, (key, group) in examples_in(path).items():
        one = read_array(group[key], path.name, _columns(group, key, path, label_column))
        if found is None:
            found = Found(path.name, one.kind, {})
        if one.kind != found.kind:
            raise DataError(f"{path} has examples of different kinds in its splits: {found.kind} and {one.kind}.")
        found.parts[split] = one.parts["all"]
        found.notes += one.notes
    if found is None:
        raise DataError(f"{path} is empty.")
    return found


def examples_in(path: Path) -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    """For each split of an `.npy` or `.npz` file, or `all`: the name of the array of examples, and all arrays there.

    Raises:
        DataError: damaged, or no array of examples.
    """
    arrays = load_arrays(path)
    groups: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        split, rest = _split_name(key)
        groups.setdefault(split, {})[rest] = array
    if "train" not in groups or _values_name(groups["train"]) is None:
        groups = {"all": arrays}
    named = {split: (name, group) for split, group in groups.items() if (name := _values_name(group)) is not None}
    if not named:
        held = ", ".join(arrays) or "nothing"
        raise DataError(
            f"{path} has no array of examples. It holds: {held}; call the examples one of {', '.join(VALUE_NAMES[:4])}."
        )
    if "train" in named:  # what belongs to no split, such as a list of class names, is no part of the data
        named.pop("all", None)
    return named


def _split_name(key: str) -> tuple[str, str]:
    """`x_train` and `train_x` as (`train`, `x`), other names as (`all`, name)."""
    for pattern in (r"(?P<split>[a-z]+)_(?P<rest>\w+)", r"(?P<rest>\w+)_(?P<split>[a-z]+)"):
        match = re.fullmatch(pattern, key)
        if match and match["split"] in SPLIT_NAMES:
            return SPLIT_NAMES[match["split"]], match["rest"]
    return "all", key


def _values_name(group: dict[str, np.ndarray]) -> str | None:
    """The name of the array of examples in one split."""
    named = next((name for name in VALUE_NAMES if name in group), None)
    return next(iter(group)) if named is None and len(group) == 1 else named


def _columns(group: dict[str, np.ndarray], values: str, path: Path, label_column: str | None) -> dict[str, np.ndarray]:
    """The label columns beside the array called `values`."""
    count = len(group[values]) if group[values].ndim else 0
    columns: dict[str, np.ndarray] = {}
    for key, array in group.items():
        if key == values:
            continue
        flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        if flat.shape == (count,) and flat.dtype.kind in "iufbUS":
            columns["label" if key in LABEL_NAMES and not {"label"} & {*group, *columns} else key] = flat
        elif key in (*LABEL_NAMES, label_column):
            raise DataError(
                f"{path}: the labels '{key}' have shape {array.shape} and type {array.dtype}, but one number or text for "
                f"each of {count:,} examples is needed."
            )
    return columns
