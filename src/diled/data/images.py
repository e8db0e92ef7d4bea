"""Image files: what their headers say, and their pixels as (C, H, W) arrays without any silent conversion.

A first pass reads headers only: the kind (`L`, `RGB`, `RGBA`, `I;16`, `F`, or another mode of Pillow), the size after
EXIF orientation, and refuses image bombs before anything is decoded. A second pass decodes. Palettes and 1-bit images
are ways of storing, not kinds: they count as what they show.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diled.data.pixels import as_channels, as_depth, size_text
from diled.errors import DataError

__all__ = [
    "EXTENSIONS",
    "KIND_NAMES",
    "Header",
    "ImageItem",
    "decode",
    "header",
    "in_threads",
    "read_all",
    "target_kind",
]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
KIND_NAMES = {
    "L": "grey",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "I;16": "16-bit grey",
    "F": "floating-point grey",
    "LA": "grey with transparency",
}
CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4, "I;16": 1, "F": 1}
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
# Only these decoders ever run: others, such as EPS, start external programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_REMARKS = {
    "palette": "palette images, expanded to the colours that they show",
    "bilevel": "1-bit images, read as grey with the values 0 and 255",
    "frames": "files with several frames, of which the first is used",
    "deep": "colour images with 16 bits per channel, of which Pillow reads 8",
    "keyed": "images that declare one colour transparent, which is kept as a colour",
}

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class ImageItem:
    """One image that is not decoded yet: its id, its name in messages, and a path, encoded bytes or a Pillow image."""

    id: str
    name: str
    content: Path | bytes | Image.Image


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are kept: kind, size in pixels (upright), and remarks for the notes."""

    kind: str
    height: int
    width: int
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{KIND_NAMES.get(self.kind, self.kind)} {size_text(self.height, self.width)}"


@contextmanager
def opened(item: ImageItem, max_pixels: int) -> Iterator[Image.Image]:
    """The Pillow image of `item`, header read and size checked; whatever goes wrong inside becomes a `DataError`."""
    try:
        if isinstance(item.content, Image.Image):
            yield item.content
            return
        # Not by its path: an uncompressed TIFF that is to be turned would be mapped into memory with its sides exchanged.
        with _stream(item.content) as source, Image.open(source, formats=_FORMATS) as picture:
            if picture.width * picture.height > max_pixels:
                raise DataError(
                    f"{item.name} has {picture.width:,} x {picture.height:,} pixels, more than --preprocess.max_pixels "
                    f"{max_pixels:,} allows: it may be an image bomb."
                )
            yield picture
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{item.name} has more pixels than Pillow opens: it may be an image bomb.") from None
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        raise DataError(f"{item.name} cannot be read as an image: {_reason(item, error)}.") from error


def _stream(content: Path | bytes) -> IO[bytes]:
    return BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _reason(item: ImageItem, error: Exception) -> str:
    """Why Pillow gave up, in words that do not show its internals."""
    if isinstance(item.content, Path) and not item.content.exists():
        return "there is no such file"
    empty = not item.content if isinstance(item.content, bytes) else _is_empty(item.content)
    if empty:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        return "its content is none of PNG, JPEG, WebP, BMP, GIF and TIFF, or it is damaged"
    return f"it is damaged ({str(error) or type(error).__name__})"


def _is_empty(content: Path | Image.Image) -> bool:
    return isinstance(content, Path) and content.is_file() and content.stat().st_size == 0


def header(item: ImageItem, max_pixels: int = 64_000_000) -> Header:
    """Kind, upright size and remarks of an image; only palette images are decoded for it.

    Raises:
        DataError: not an image, damaged, or more than `max_pixels` pixels.
    """
    with opened(item, max_pixels) as picture:
        width, height = picture.size
        # A PNG may keep its orientation behind the pixels; asking for it there would decode the file.
        if picture.format != "PNG" or "exif" in picture.info:
            width, height = (height, width) if _on_its_side(picture) else (width, height)
        remarks = []
        kind = picture.mode
        if picture.format in ("GIF", "WEBP", "TIFF", "PNG") and getattr(picture, "is_animated", False):
            remarks.append("frames")
        if kind in ("P", "PA"):
            remarks.append("palette")
            kind = _shown(picture).mode
        elif kind == "1":
            remarks.append("bilevel")
            kind = "L"
        elif kind == "I" or kind.startswith("I;16"):
            kind = "I;16"
        elif kind in ("L", "RGB") and "transparency" in picture.info:
            remarks.append("keyed")
        if kind in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in getattr(picture, "tile", [])):
            remarks.append("deep")
        return Header(kind, height, width, tuple(remarks))


def _on_its_side(picture: Image.Image) -> bool:
    """Whether `size` is still that of an image to be turned by a quarter. Pillow may have turned that of a TIFF already."""
    tags = getattr(picture, "tag_v2", None)
    return picture.getexif().get(0x0112, 1) in (5, 6, 7, 8) and (
        tags is None or picture.size == (tags[TIFF_WIDTH], tags[TIFF_HEIGHT])
    )


def _shown(picture: Image.Image) -> Image.Image:
    """A palette image as what it shows: `RGBA` where it is transparent somewhere, else `RGB`, or `L` where all is grey."""
    full = picture.convert("RGBA")
    values = np.asarray(full)
    if (values[..., 3] < 255).any():
        return full
    grey = (values[..., 0] == values[..., 1]).all() and (values[..., 1] == values[..., 2]).all()
    return full.convert("RGB").convert("L") if grey else full.convert("RGB")


def decode(item: ImageItem, kind: str, max_pixels: int = 64_000_000) -> np.ndarray:
    """The pixels of `item` as `kind` (`L`, `RGB`, `RGBA`, `I;16` or `F`): (C, H, W), uint8, uint16 or float32, upright.

    The caller decides on `kind` by `target_kind`; where it is the image's own, every value is as stored.

    Raises:
        DataError: damaged, a bomb, or of a depth that `kind` cannot hold.
    """
    with opened(item, max_pixels) as picture:
        values = _native(ImageOps.exif_transpose(picture), item.name)
        if kind == "F" or values.dtype == np.float32:
            if kind != "F" or values.dtype != np.float32:
                raise DataError(f"{item.name}: floating-point and integer images have no common scale.")
            return values
        return as_depth(as_channels(values, CHANNELS[kind]), "uint16" if kind == "I;16" else "uint8")


def _native(picture: Image.Image, name: str) -> np.ndarray:
    """Pixels (C, H, W) in the image's own kind."""
    mode = picture.mode
    if mode in ("P", "PA"):
        picture = _shown(picture)
    elif mode == "1":
        picture = picture.convert("L")
    elif mode in ("LA", "La", "RGBa"):
        picture = picture.convert("RGBA")
    elif mode not in ("L", "RGB", "RGBA", "I", "F") and not mode.startswith("I;16"):
        picture = picture.convert("RGB")
    values = np.asarray(picture)
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        if values.min() < 0 or values.max() > 65535:
            raise DataError(
                f"{name} holds 32-bit integers beyond 0 to 65,535: save it with 16 bits, or as floating point."
            )
        values = values.astype(np.uint16)
    return values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)


def in_threads(
    function: Callable[[T], R], items: Sequence[T], *, skip: bool, small: bool = False
) -> list[R | DataError]:
    """`function` of each item, in order, by up to eight threads (Pillow decodes outside Python's lock).

    With `skip`, a `DataError` takes the place of the result; without, the first one in order is raised. `small` keeps to
    one thread: where an item takes some ten microseconds, threads lose more by waiting for each other than they gain.
    """

    def block(start: int) -> list[R | DataError]:
        results: list[R | DataError] = []
        for item in items[start : start + 64]:
            try:
                results.append(function(item))
            except DataError as error:
                if not skip:
                    raise
                results.append(error)
        return results

    starts = range(0, len(items), 64)
    with warnings.catch_warnings(), ThreadPoolExecutor(1 if small else min(8, os.cpu_count() or 1)) as pool:
        # The check against max_pixels speaks for itself.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return [result for results in pool.map(block, starts) for result in results]


def target_kind(headers: Sequence[Header], channels: str, name: str) -> tuple[list[str], str]:
    """What each image counts as, and the one kind that all become: as found, or as `channels` says.

    Palette images join the richest of `L`, `RGB`, `RGBA` that is there, because the palette is only a way of storing.

    Raises:
        DataError: several kinds, or one that needs a choice, and `channels` is `auto`.
    """
    ladder = ("L", "RGB", "RGBA")
    richest = max((ladder.index(h.kind) for h in headers if h.kind in ladder), default=0)
    kinds = [ladder[richest] if "palette" in h.remarks else h.kind for h in headers]
    counts = Counter(kinds)
    if channels == "auto":
        if len(counts) > 1:
            found = ", ".join(f"{count:,} {KIND_NAMES.get(kind, kind)}" for kind, count in counts.most_common())
            raise DataError(
                f"{name} mixes kinds of images: {found}. Choose one with --preprocess.channels grey|rgb|rgba."
            )
        (kind,) = counts
        if kind not in CHANNELS:
            what = KIND_NAMES.get(kind, kind)
            raise DataError(f"{name} holds {what} images. Choose a kind with --preprocess.channels grey|rgb|rgba.")
        return kinds, kind
    if "F" in counts and (len(counts) > 1 or channels != "grey"):
        raise DataError(f"{name} holds floating-point images, which cannot become 8-bit {channels} images.")
    if channels == "grey":
        return kinds, next(iter(counts)) if set(counts) in ({"I;16"}, {"F"}) else "L"
    return kinds, channels.upper()


def read_all(
    items: Sequence[ImageItem],
    kind: str,
    size: tuple[int, int],
    *,
    max_pixels: int = 64_000_000,
    skip: bool = False,
    resize: Callable[[np.ndarray, str], np.ndarray] | None = None,
) -> tuple[np.ndarray, list[DataError | None]]:
    """Pixels of all items (N, C, H, W) as `kind` at `size`, and for each item its error or None.

    With `skip`, rows with an error are left as zeros for the caller to drop. `resize(values, name)` fits other sizes.

    Raises:
        DataError: the first unreadable item, unless `skip`.
    """
    dtype = {"I;16": np.uint16, "F": np.float32}.get(kind, np.uint8)
    out = np.zeros((len(items), CHANNELS[kind], *size), dtype)

    def read(row: int) -> None:
        item = items[row]
        values = decode(item, kind, max_pixels)
        values = resize(values, item.name) if resize is not None else values
        if values.shape != out.shape[1:]:
            raise DataError(f"{item.name} is {size_text(*values.shape[1:])}, where {size_text(*size)} is wanted.")
        out[row] = values

    # Small images in memory take no time to decode, and none to fetch.
    small = size[0] * size[1] <= 64 * 64 and all(isinstance(item.content, bytes) for item in items)
    return out, in_threads(read, range(len(items)), skip=skip, small=small)


def remarks_text(headers: Sequence[Header]) -> list[str]:
    """Notes on what headers remarked, with counts: `3 of 120: palette images, expanded to ...`."""
    counts = Counter(remark for h in headers for remark in h.remarks)
    return [f"{counts[key]:,} of {len(headers):,}: {text}." for key, text in _REMARKS.items() if counts[key]]
