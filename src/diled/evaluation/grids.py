"""Pictures of many images, put together pixel by pixel: every image pixel becomes a crisp square of the grid.

Grids are RGBA. Gutters are transparent, so that a grid sits on a white page, a dark page or a README alike. Images that
are white up to their edges would run into a white page, and black ones into a dark page: between them gutters are grey.
Values are in model space, [-1, 1].
"""

from __future__ import annotations

import io
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "best_columns",
    "enlargement",
    "grid",
    "gutter_for",
    "heading",
    "interpolation_grid",
    "png",
    "reconstruction_grid",
    "sample_grid",
    "stacked",
    "tiles",
    "with_left",
]

GREY = (125, 130, 138)  # readable on white and on near-black
PALE, DIM = (205, 208, 213, 255), (72, 76, 83, 255)
LARGEST_SIDE = 256  # larger images are shrunk: a report is looked at, not archived
PIXEL_BUDGET = 1_600_000  # source pixels of one grid, which keeps its file to a few megabytes
TEXT = 26  # pixels; grids are shown at about half their size


def tiles(x: np.ndarray, mode: str | None = None) -> np.ndarray:
    """Images (..., C, H, W) in [-1, 1] as RGBA pixels (..., H, W', 4), uint8.

    One channel is grey, two are put side by side in grey, three are RGB; four are RGBA on white where `mode` is `RGBA`.
    Of any other number the first three are shown.
    """
    x = np.nan_to_num(np.asarray(x, dtype=np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
    channels = x.shape[-3]
    if channels == 2:
        x = np.concatenate([x[..., :1, :, :], x[..., 1:, :, :]], axis=-1)
    y = np.moveaxis((np.clip(x, -1, 1) + 1) / 2, -3, -1)
    if channels == 4 and mode == "RGBA":
        y = y[..., :3] * y[..., 3:] + 1 - y[..., 3:]
    y = np.repeat(y[..., :1], 3, axis=-1) if channels <= 2 else y[..., :3]
    pixels = np.full((*y.shape[:-1], 4), 255, dtype=np.uint8)
    pixels[..., :3] = np.rint(y * 255)
    return _shrunk(pixels)


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """Mean over blocks, so that no side exceeds `LARGEST_SIDE`."""
    height, width = pixels.shape[-3:-1]
    k = math.ceil(max(height, width) / LARGEST_SIDE)
    if k == 1:
        return pixels
    h, w = max(1, height // k), max(1, width // k)
    flat = pixels.reshape(-1, height, width, 4)
    small = np.stack([np.asarray(Image.fromarray(p).resize((w, h), Image.Resampling.BOX)) for p in flat])
    return small.reshape(*pixels.shape[:-3], h, w, 4)


def best_columns(n: int, ideal: float) -> int:
    """The number of columns near `ideal` that leaves the fewest of n images over."""
    options = range(max(1, min(n, round(ideal * 0.8))), max(1, min(n, round(ideal * 1.5))) + 1)
    return min(options, key=lambda c: (n % c, abs(c - ideal)))


def affordable(pixels: np.ndarray, most: int) -> int:
    """How many images of this size one grid may hold, of at most `most`."""
    return max(1, min(most, PIXEL_BUDGET // (pixels.shape[-3] * pixels.shape[-2])))


def enlargement(native: int, target: int) -> int:
    """The whole factor by which a picture of `native` pixels comes close to `target`."""
    return max(1, round(target / native))


def grid(pixels: np.ndarray, factor: int, gutter: int, *, gap_after: tuple[int, ...] = ()) -> np.ndarray:
    """Tiles (rows, columns, H, W, 4), each pixel enlarged to `factor` x `factor`, with `gutter` pixels between tiles.

    Columns named in `gap_after` are followed by a gutter three times as wide.
    """
    rows, columns, height, width, _ = pixels.shape
    big = pixels.repeat(factor, axis=2).repeat(factor, axis=3)
    height, width = height * factor, width * factor
    wider = np.cumsum([0, *(2 * gutter + 4 if c in gap_after else 0 for c in range(columns - 1))])
    canvas = np.zeros((rows * (height + gutter) - gutter, columns * (width + gutter) - gutter + wider[-1], 4), np.uint8)
    canvas[:] = _gutter_colour(pixels)
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + gutter), c * (width + gutter) + wider[c]
            canvas[top : top + height, left : left + width] = big[r, c]
    for c in gap_after:  # the wide gutter stays transparent: it parts two things
        left = (c + 1) * (width + gutter) - gutter + wider[c]
        canvas[:, left : left + gutter + wider[c + 1] - wider[c]] = 0
    return canvas


def _gutter_colour(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Grey beside images whose edges are mostly white or mostly black, else transparent."""
    edge = np.concatenate([pixels[..., s, :, :3].reshape(-1) for s in (0, -1)])
    sides = np.concatenate([pixels[..., s, :3].reshape(-1) for s in (0, -1)])
    values = np.concatenate([edge, sides])
    return PALE if np.mean(values > 235) > 0.6 else DIM if np.mean(values < 20) > 0.5 else (0, 0, 0, 0)


def gutter_for(factor: int) -> int:
    """Thin beside large pixels, and never lost when a screen shows the grid at half its size."""
    return int(np.clip(round(factor * 0.4), 2, 6))


def sample_grid(pixels: np.ndarray, target: int, most: int = 100) -> tuple[np.ndarray, int]:
    """A grid, close to a square, of (n, H, W, 4); returns it and how many images it shows."""
    n = min(len(pixels), affordable(pixels, most))
    columns = best_columns(n, math.sqrt(n * pixels.shape[1] / pixels.shape[2]))
    n -= n % columns
    factor = enlargement(columns * pixels.shape[2], target)
    return grid(pixels[:n].reshape(-1, columns, *pixels.shape[1:]), factor, gutter_for(factor)), n


def reconstruction_grid(above: np.ndarray, below: np.ndarray, target: int) -> tuple[np.ndarray, int]:
    """Pairs of rows, originals above reconstructions, each row named at its left; and how many pairs it shows."""
    n = min(len(above), len(below), affordable(above, 64) // 2 or 1)
    columns = best_columns(n, min(n, 8 * math.sqrt(above.shape[1] / above.shape[2])))
    pairs = n // columns
    factor = enlargement(columns * above.shape[2], target)
    gutter = gutter_for(factor)
    rows = [
        grid(np.stack([x[i * columns : (i + 1) * columns] for x in (above, below)]), factor, gutter)
        for i in range(pairs)
    ]
    gap, height = 4 * gutter + 6, above.shape[1] * factor
    labels = []
    for i in range(pairs):
        top = i * (rows[0].shape[0] + gap)
        labels += [(top + height // 2, "original"), (top + height + gutter + height // 2, "decoded")]
    return with_left(stacked(rows, gap), labels), pairs * columns


def interpolation_grid(path: np.ndarray, ends: np.ndarray | None, target: int) -> tuple[np.ndarray, int]:
    """Rows of interpolations (rows, steps, H, W, 4), the original ends set apart at both sides; and the rows shown."""
    rows = max(1, min(len(path), 8, affordable(path, 1000) // (path.shape[1] + 2)))
    path = path[:rows]
    gaps: tuple[int, ...] = ()
    if ends is not None:
        path = np.concatenate([ends[:rows, :1], path, ends[:rows, 1:]], axis=1)
        gaps = (0, path.shape[1] - 2)
    factor = enlargement(path.shape[1] * path.shape[3], target)
    picture = grid(path, factor, gutter_for(factor), gap_after=gaps)
    if ends is None:
        return picture, rows
    words = [("original", "left"), ("decoded, from one code to the other", "middle"), ("original", "right")]
    return stacked([_words(words, picture.shape[1]), picture], 8), rows


def stacked(pictures: list[np.ndarray], gap: int) -> np.ndarray:
    """Pictures one below the other, flush left."""
    width = max(p.shape[1] for p in pictures)
    parts = []
    for p in pictures:
        parts += [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0))), np.zeros((gap, width, 4), np.uint8)]
    return np.concatenate(parts[:-1])


def with_left(picture: np.ndarray, labels: list[tuple[int, str]]) -> np.ndarray:
    """Words to the left of a picture, each centred on the given height in pixels."""
    font = _font()
    margin = math.ceil(max(font.getlength(text) for _, text in labels)) + 16
    image = Image.new("RGBA", (margin, picture.shape[0]), (*GREY, 0))  # same colour, so that soft edges stay grey
    for height, text in labels:
        ImageDraw.Draw(image).text((margin - 16, height), text, fill=(*GREY, 255), font=font, anchor="rm")
    return np.concatenate([np.asarray(image), picture], axis=1)


def heading(text: str, width: int) -> np.ndarray:
    """A line of words above a picture."""
    return _words([(text, "left")], max(width, math.ceil(_font().getlength(text))))


def _words(parts: list[tuple[str, str]], width: int) -> np.ndarray:
    """Words at the left, middle and right of one line. Words that would touch are left out, the last first."""
    font = _font()
    image = Image.new("RGBA", (width, TEXT + 12), (*GREY, 0))
    draw = ImageDraw.Draw(image)
    taken: list[tuple[float, float]] = []
    for text, where in parts:
        length = font.getlength(text)
        left = {"left": 0.0, "middle": (width - length) / 2, "right": width - length - 3}[where]
        if all(left > b + 12 or left + length < a - 12 for a, b in taken) and (left >= 0 or not taken):
            draw.text((max(left, 0), TEXT / 2 + 4), text, fill=(*GREY, 255), font=font, anchor="lm")
            taken.append((left, left + length))
    return np.asarray(image)


@lru_cache
def _font() -> ImageFont.FreeTypeFont:
    """The sans serif that comes with matplotlib, which knows Greek and accents."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", TEXT)


def png(picture: np.ndarray) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()
