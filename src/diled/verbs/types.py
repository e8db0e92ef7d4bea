"""What the arguments of all verbs are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from diled.model import Model

__all__ = ["Device", "Run", "check_named"]

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
"""Where to compute; `auto` takes CUDA, else the CPU, and Apple's MPS is taken where it is named."""
Run: TypeAlias = "str | Path | Model"
"""A run's folder, or a loaded model."""


def check_named(source: Any) -> None:
    """Refuse arrays, lists and the like where data are named that models are trained on.

    Raises:
        DataError: with their type, and what to do.
    """
    from diled.errors import DataError

    if not isinstance(source, str | Path):
        raise DataError(
            f"Training is on a file, a folder or a named set, not on a {type(source).__name__}: save it, an array as .npy and "
            "texts one a line as .txt, or use diled.DiledTransformer."
        )
