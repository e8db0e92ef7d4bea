r"""From raw values to model space and back, and the measure that the bounds refer to.

    x = 2 (v - low) / (high - low) - 1,          v = low + (x + 1)/2 (high - low)

With `levels` = n the raw values are low + k (high - low)/(n - 1), k = 0, ..., n - 1, and bounds are in counting measure.
With None they are continuous, and bounds are densities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from diled.config import DataSpec
from diled.errors import DataError

__all__ = ["from_model", "measure", "raw_dtype", "symbol_rows", "to_model", "to_pil"]


def to_model(values: np.ndarray, spec: DataSpec, rng: np.random.Generator | None = None) -> np.ndarray:
    """Raw `values` (..., *spec.shape) as float32 in [-1, 1].

    Where `spec.binarize` is `threshold`, values above one half of the range become 1 and the others -1. Where it is
    `dynamic`, each is drawn from `rng` as Bernoulli(grey value); without `rng`, the threshold is used.
    """
    x = 2 * (np.asarray(values, dtype=np.float32) - np.float32(spec.low)) / np.float32(spec.high - spec.low) - 1
    if spec.binarize == "none":
        return x
    if spec.binarize == "threshold" or rng is None:
        return np.where(x > 0, np.float32(1), np.float32(-1))
    return np.where(rng.random(x.shape, dtype=np.float32) < (x + 1) / 2, np.float32(1), np.float32(-1))


def from_model(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Model space (..., *spec.shape) as raw values.

    Symbols: as they are, in the raw type. With grey levels: clipped, rounded to the nearest level, in the raw type.
    Continuous: float32, not clipped. Binarised: (x + 1)/2 is the probability of white, scaled to low..high, and rounded only
    where that is a whole byte or two.
    """
    if spec.sequential:
        return np.asarray(x).astype(raw_dtype(spec))
    coarse = spec.levels is not None and max(spec.levels, spec.high - spec.low) <= 4096  # float32 misses no level
    share = (np.asarray(x, np.float32 if coarse else np.float64) + np.float32(1)) / np.float32(2)  # type: ignore[operator]
    if spec.binarize != "none":
        grey = spec.low + np.clip(share, 0, 1) * (spec.high - spec.low)
        whole = {(0.0, 255.0): np.uint8, (0.0, 65535.0): np.uint16}.get((spec.low, spec.high))
        return grey.astype(np.float32) if whole is None else np.rint(grey).astype(whole)
    if spec.levels is None:
        return (spec.low + share * (spec.high - spec.low)).astype(np.float32)
    steps = spec.levels - 1
    level = np.rint(np.clip(share, 0, 1) * steps)
    return (spec.low + level * ((spec.high - spec.low) / steps)).astype(raw_dtype(spec))


def raw_dtype(spec: DataSpec) -> type[np.generic]:
    """The type of raw values: the smallest unsigned one that holds all grey levels exactly, else float32.

    Symbols that two bytes cannot count are int32.
    """
    if spec.levels is None or spec.binarize != "none":
        return np.float32
    if spec.sequential and spec.high > 65535:
        return np.int32
    step = (spec.high - spec.low) / (spec.levels - 1)
    if spec.low < 0 or spec.high > 65535 or not (float(spec.low).is_integer() and step.is_integer()):
        return np.float32
    return np.uint8 if spec.high <= 255 else np.uint16


def symbol_rows(values: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Rows (N, L) of symbols, of any number of axes before the last, after a check.

    Raises:
        DataError: the data are no sequences, or the rows no rows of theirs.
    """
    values = np.asarray(values)
    if not spec.sequential:
        raise DataError(f"Only sequences are written as text, and these data are {spec.kind}s.")
    if values.ndim == 0 or values.shape[-1] != spec.numel:
        raise DataError(f"Rows of {spec.numel} numbers are wanted; these have the shape {values.shape}.")
    if values.dtype.kind not in "iu" or (values.size and (values.min() < 0 or values.max() >= len(spec.symbols))):
        raise DataError(f"Sequences are whole numbers from 0 to {len(spec.symbols) - 1}; these are not.")
    return values.reshape(-1, spec.numel)


def to_pil(values: np.ndarray, spec: DataSpec) -> Image.Image:
    """Raw `values` (C, H, W) as a Pillow image: 16-bit grey stays 16-bit, other scales are stretched to 0..255.

    Raises:
        DataError: the data are no images, or have a number of channels that no picture has.
    """
    if spec.kind != "image":
        raise DataError(f"A {spec.kind} of shape {spec.shape} is not an image and cannot be shown as one.")
    values = np.asarray(values)
    if values.ndim != 3 or values.shape[0] not in (1, 3, 4):
        raise DataError(f"An image needs the shape (C, H, W) with 1, 3 or 4 channels, not {values.shape}.")
    top = 65535 if spec.mode == "I;16" else 255
    share = (values.astype(np.float64) - spec.low) / (spec.high - spec.low)
    grey = np.rint(np.clip(share, 0, 1) * top).astype(np.uint16 if top == 65535 else np.uint8)
    return Image.fromarray(grey[0] if len(grey) == 1 else np.ascontiguousarray(np.moveaxis(grey, 0, -1)))


def measure(
    splits: Sequence[np.ndarray], *, integer: bool, full_scale: bool, kind: str, name: str
) -> tuple[float, float, int | None, list[str]]:
    """low, high, levels and notes for raw values, the training split first.

    Whole numbers: two values, 0 and 1 or 0 and 255, are two levels; image files, and image arrays that use more than half
    of a byte, have the 256 (or 65,536) levels of their type; others have one level for each whole number from the least
    to the greatest of all splits, up to 65,536. Real numbers are continuous, from the least to the greatest of training.

    Raises:
        DataError: all values are equal.
    """
    low, high = float(min(v.min() for v in splits)), float(max(v.max() for v in splits))
    dtype = splits[0].dtype
    byte = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}.get(dtype)
    if integer and byte is not None and (full_scale or (kind != "vector" and high > byte / 2) or high in (1.0, 255.0)):
        if low == 0 and high in (1.0, 255.0) and byte == 255.0 and not any(_between(v, high) for v in splits):
            return 0.0, high, 2, [f"Only the values 0 and {high:.0f} occur: 2 levels."]
        if full_scale or (kind != "vector" and high > byte / 2):
            notes = (
                [f"The largest value is {high:,.0f} of {byte:,.0f}: most of the scale is empty."]
                if high < byte / 4
                else []
            )
            return 0.0, byte, int(byte) + 1, notes
    if low == high:
        raise DataError(f"Every value of {name} is {low:g}: there is nothing to learn.")
    if integer and high - low < 65536:
        levels = int(high - low) + 1
        return low, high, levels, [f"Whole numbers from {low:,.0f} to {high:,.0f}: {levels:,} levels."]
    low, high = float(splits[0].min()), float(splits[0].max())
    if low == high:
        raise DataError(f"Every training value of {name} is {low:g}: there is nothing to learn.")
    notes = [f"Continuous values, {low:g} to {high:g} in training: bounds are densities, not bits."]
    if not integer and all((block == np.rint(block)).all() for v in splits for block in _blocks(v)):
        notes.append("All of them are whole numbers stored as floating point: store integers to have grey levels.")
    return low, high, None, notes


def _between(values: np.ndarray, high: float) -> bool:
    """Whether any value lies strictly between 0 and `high`; blocks, so that most data answer at once."""
    return any(((block > 0) & (block < high)).any() for block in _blocks(values))


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    return (values[i : i + 1024] for i in range(0, len(values), 1024))
