"""The picture at the head of the README: samples of three models trained alike on MNIST, and one interpolation.

python -m diled.studies.table mnist-table        # trains them
python docs/picture.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import diled
from diled.arguments import data_of
from diled.config import PreprocessConfig
from diled.data import open_data, to_model
from diled.evaluation import grids

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, FACTOR, GUTTER = 20, 3, 2


def main(runs: Path) -> None:
    """Write docs/images/mnist.png."""
    models = {name: diled.load(runs / f"{name}-0", device="cpu") for name in ("diled", "vae", "ldm")}
    place = data_of(runs / "diled-0", None, models["diled"])
    grey = open_data(place.name, PreprocessConfig())
    parts: list[np.ndarray] = []

    def add(words: str, pixels: np.ndarray) -> None:
        parts.append(grids.heading(words, 1))
        parts.append(grids.grid(grids.tiles(pixels), FACTOR, GUTTER))

    def rows(x: np.ndarray) -> np.ndarray:
        return x[: 2 * COLUMNS].reshape(2, COLUMNS, *x.shape[1:])

    add("Held-out digits", rows(to_model(grey.test.values[: 2 * COLUMNS], grey.spec)))
    for name, words in (("diled", "DiLED"), ("vae", "VAE"), ("ldm", "Latent diffusion")):
        drawn = models[name].sample(2 * COLUMNS, seed=0)
        add(f"{words}: samples", rows(to_model(drawn, grey.spec)))
    path = models["diled"].interpolate(place.test.values[0:2], place.test.values[2:4], steps=COLUMNS)
    add(
        "DiLED: from the first held-out digit to the third, and from the second to the fourth",
        to_model(path, grey.spec),
    )
    out = ROOT / "docs" / "images" / "mnist.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(grids.png(grids.stacked(parts, 8)))
    print(f"wrote {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs") / "mnist-table")
