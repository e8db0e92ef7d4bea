"""What the arguments of all verbs are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from diled.model import Model

__all__ = ["Device", "Run"]

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
"""Where to compute; `auto` takes CUDA, then Apple's MPS, then the CPU."""
Run: TypeAlias = "str | Path | Model"
"""A run's folder, or a loaded model."""
