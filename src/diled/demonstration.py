"""`diled demo`: the whole library in a minute, on data that scikit-learn bundles."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from diled.data import open_data
from diled.errors import ConfigError
from diled.evaluation.measure import Measured
from diled.reporting import READING, compare_models, usage
from diled.runs import resolve
from diled.session import Session

__all__ = ["run_demo"]

MODELS = ("diled", "vae", "ldm")
MARK = "demo.txt"

FEW = (
    "On 1,293 training images DiLED's samples are expected to win and its bound may not: a learned prior overfits so few "
    "codes, and the plain VAE, which learns none, can have the lower bound. On MNIST, with 55,000 images, DiLED wins both."
)


def run_demo(out: Path, *, steps: int, seed: int = 0, device: Any = "auto") -> dict[str, dict[str, Measured]]:
    """Train three models on the digits with the same backbone and steps, and compare them.

    Raises:
        ConfigError: `out` holds something that is no earlier demo.
    """
    if out.exists() and any(out.iterdir()):
        if not (out / MARK).exists():
            raise ConfigError(f"{out} exists and holds something that is no earlier demo. Choose another --out.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text("Made by `diled demo`, which replaces this folder.\n")
    settings = {"training.steps": steps, "training.log_every": 20, "training.monitor_every": max(1, steps // 6)}
    place, trained = None, {}
    for name in MODELS:
        config = resolve("digits", name, None, settings, seed=seed, device=device)
        place = place or open_data("digits", config.preprocess)
        session = Session(config, out=out / name, data=place, say=lambda line: None)
        title = config.model.row.title
        print(f"{title}: {steps:,} steps on {len(place.train):,} digits of 8 x 8 pixels")
        trained[title] = (session.run(), session.folder)
    assert place is not None
    program = usage(out / "diled", place)
    found = compare_models(
        trained, place, out, title="DiLED, a VAE and an LDM on 1,797 digits", reading=[*READING, FEW], samples=2000,
        seed=seed, program=program,
    )  # fmt: skip
    print(f"\n{FEW}\n\nUse the model:\n\n{program}")
    return found
