"""What a report is given to show of a model, and what it shows: a figure with its words."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Picture", "Shown", "array", "file_names", "has"]


@dataclass(frozen=True, eq=False)
class Shown:
    """What there is to show of one model. Examples are in model space, [-1, 1]; parts that are missing are left out.

    Attributes:
        name: its title.
        samples: (n, *shape), where `shape` is (C, H, W) for images, (C, L) for signals, (D,) for vectors.
        originals: (m, *shape), held-out examples.
        reconstructions: (m, *shape), the same examples encoded and decoded.
        interpolations: (rows, steps, *shape); the first and last column are decoded end points.
        interpolation_ends: (rows, 2, *shape), the original examples at both ends.
        codes: (N, D), codes of held-out examples.
        labels: (N,) class indices (-1 where missing), or a real property (NaN where missing).
        class_names: names of the classes; empty for a real property.
        log: the parsed lines of `log.jsonl`, of one or several stages.
        seconds: how long training took.
        parameters: how many numbers were trained.
    """

    name: str
    samples: np.ndarray | None = None
    originals: np.ndarray | None = None
    reconstructions: np.ndarray | None = None
    interpolations: np.ndarray | None = None
    interpolation_ends: np.ndarray | None = None
    codes: np.ndarray | None = None
    labels: np.ndarray | None = None
    class_names: Sequence[str] = ()
    log: Sequence[dict[str, Any]] = field(default_factory=list)
    seconds: float | None = None
    parameters: int | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure of the report. `dark` is its version for dark pages where that differs; `wide` ones take a full row."""

    file: str
    title: str
    caption: str
    alt: str
    light: bytes
    dark: bytes | None = None
    wide: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in CSS pixels, half those of the file (which suits screens of high resolution)."""
        width, height = struct.unpack(">II", self.light[16:24])  # of the PNG header
        return round(width / 2), round(height / 2)


def file_names(names: Sequence[str]) -> list[str]:
    """The models' names as parts of file names, each different even where upper and lower case are the same."""
    out: list[str] = []
    for name in names:
        plain = stem = re.sub(r"[^\w.+=-]+", "-", name).strip("-.")[:60] or "model"
        i = 2
        while stem.lower() in [o.lower() for o in out]:
            stem, i = f"{plain}-{i}", i + 1
        out.append(stem)
    return out


def has(x: np.ndarray | None) -> bool:
    """Whether there is anything in it."""
    return x is not None and np.size(x) > 0


def array(x: np.ndarray | None) -> np.ndarray:
    """The part of a `Shown` that is known to be there, in double precision."""
    return np.asarray(x, dtype=np.float64)
