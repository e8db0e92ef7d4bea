"""What the arguments of all verbs are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from diled.model import Model

__all__ = ["Device", "Run"]

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
"""Where to compute; `auto` takes CUDA, else the CPU, and Apple's MPS is taken where it is named."""
Run: TypeAlias = "str | Path | Model"
"""A run's folder, or a loaded model."""
