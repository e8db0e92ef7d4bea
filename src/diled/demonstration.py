"""`diled demo`: the whole library in a minute, on data that scikit-learn bundles."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from diled.errors import ConfigError
from diled.evaluation.measure import Measured
from diled.reporting import READING, compare_models, usage
from diled.runs import resolve
from diled.several import train_several

__all__ = ["run_demo"]

MODELS = ("diled", "vae", "ldm")
MARK = "demo.txt"

FEW = (
    "With so few training images DiLED's samples win clearly, and its bound by little or not at all: a learned prior can "
    "overfit 1,293 codes, while the VAE learns none, so compare the bounds with their errors in view. The README has the "
    "same comparison on 55,000 images of MNIST."
)


def run_demo(out: Path, *, steps: int, seed: int = 0, device: Any = "auto") -> dict[str, dict[str, Measured]]:
    """Train three models on the digits with the same backbone and steps, and compare them.

    Raises:
        ConfigError: `out` holds something that is no earlier demo.
    """
    settings = {"training.steps": steps, "training.log_every": 20, "training.monitor_every": max(1, steps // 6)}
    resolve("digits", settings=settings, seed=seed)  # complains before anything is removed
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise ConfigError(f"{out} exists and holds something that is no earlier demo. Choose another --out.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text("Made by `diled demo`, which replaces this folder.\n")
    place, trained = train_several("digits", MODELS, out, settings=settings, seed=seed, device=device)
    program = usage(out / "diled", place)
    found = compare_models(
        trained, place, out, title="DiLED, a VAE and an LDM on 1,797 digits", reading=[*READING, FEW], samples=2000,
        seed=seed, program=program,
    )  # fmt: skip
    print(f"\n{FEW}\n\nUse the model:\n\n{program}")
    return found
