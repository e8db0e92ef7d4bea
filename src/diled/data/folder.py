"""A folder of images: flat or in class folders, with or without `train`, `validation` and `test` at the top."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diled.data.images import EXTENSIONS, ImageItem
from diled.data.splits import Found, Part
from diled.errors import DataError

__all__ = ["SPLIT_NAMES", "image_items", "printable", "read_folder"]

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def files_below(folder: Path) -> Iterator[Path]:
    """All files below `folder` in sorted order; hidden ones and archive leftovers are passed over, link loops are cut."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        yield from (Path(place, f) for f in sorted(files) if not f.startswith("."))


def printable(name: str) -> str:
    """A file's name as text; of bytes that are no UTF-8, as in old archives, their numbers."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def image_items(folder: Path) -> list[ImageItem]:
    """The images below `folder`, sorted, with ids relative to it.

    Raises:
        DataError: the folder is empty or holds no images.
    """
    files = list(files_below(folder))
    if not files:
        raise DataError(f"The folder {folder} is empty.")
    images = [f for f in files if f.suffix.lower() in EXTENSIONS]
    if not images:
        others = ", ".join(sorted({f.suffix.lower() or f.name for f in files})[:6])
        raise DataError(
            f"The folder {folder} holds no images: {len(files):,} files ({others}). "
            f"Images that are read: {' '.join(EXTENSIONS)}; a folder of .parquet files is read too."
        )
    return [ImageItem(printable(f.relative_to(folder).as_posix()), printable(str(f)), f) for f in images]


def read_folder(folder: Path) -> Found:
    """Images below `folder`; `train`, `validation` (or `val`, `valid`) and `test` at the top are splits, folders classes.

    A class is the first folder below the split (or below the top); images beside class folders turn labels off.

    Raises:
        DataError: the folder is empty or holds no images.
    """
    items = image_items(folder)
    notes: list[str] = []
    tops = {item.id.split("/")[0] for item in items if "/" in item.id}
    splits = {top: SPLIT_NAMES[top.lower()] for top in tops if top.lower() in SPLIT_NAMES}
    groups: dict[str, list[tuple[ImageItem, list[str]]]] = {}
    if "train" in splits.values():
        outside = 0
        for item in items:
            top, *rest = item.id.split("/")
            if top in splits and rest:
                groups.setdefault(splits[top], []).append((item, rest))
            else:
                outside += 1
        if outside:
            notes.append(f"{outside:,} of {len(items):,} images lie outside the split folders and were left out.")
    else:
        groups["all"] = [(item, item.id.split("/")) for item in items]
    flat = sum(len(rest) == 1 for group in groups.values() for _, rest in group)
    total = sum(len(group) for group in groups.values())
    if 0 < flat < total:
        notes.append(
            f"{flat:,} of {total:,} images lie beside the class folders, so class folders were not read as labels."
        )
    parts = {}
    for name, group in groups.items():
        columns = {} if flat else {"label": np.array([rest[0] for _, rest in group])}
        parts[name] = Part([item for item, _ in group], [item.id for item, _ in group], columns)
    return Found(folder.resolve().name, "image", parts, notes, full_scale=True)
