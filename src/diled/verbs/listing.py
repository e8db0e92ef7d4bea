"""Verbs that list what there is, and show it at work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diled.verbs.types import Device

if TYPE_CHECKING:
    from diled.data import Data
    from diled.evaluation.measure import Measured


__all__ = ["data", "demo", "models"]


def models() -> list[dict[str, str]]:
    """List the family: every model, its parts, how it is trained, and whether it has a bound."""
    from diled.family import family_table

    return family_table()


def data(
    source: str | Path | None = None, *, settings: dict[str, Any] | None = None
) -> list[tuple[str, str, str]] | Data:
    """List the known data sets, or say what was found in a folder or file.

    Args:
        source: a name or path; without it, the known sets.
        settings: of the preprocessing, {"preprocess.size": 32}.
    """
    from diled.data import known_sets, open_data

    if source is None:
        return known_sets()
    from diled.config import PreprocessConfig, validated
    from diled.runs import nested

    return open_data(source, validated(PreprocessConfig, nested(settings or {}).get("preprocess", {}), "preprocess"))


def demo(
    *, out: str | Path = "demo", steps: int = 1200, seed: int = 0, device: Device = "auto"
) -> dict[str, dict[str, Measured]]:
    """Train DiLED, a VAE and an LDM on the 1,797 digits that scikit-learn bundles, and write a report.

    Args:
        out: folder of the three runs and the report; an earlier demo there is replaced.
        steps: optimiser steps for each model.
        seed: of everything random.
        device: where to compute.
    """
    from diled.demonstration import run_demo

    return run_demo(Path(out), steps=steps, seed=seed, device=device)
