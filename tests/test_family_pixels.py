"""Every model that diffuses data learns digits: better than independent pixels, the mean image and a fitted Gaussian."""

from __future__ import annotations

import pytest
from digits_levels import learns

UNET = {"kind": "unet", "channels": 12}
RECIPE = {"training.batch_size": 64, "training.steps": 700, "training.learning_rate": 4e-3}


@pytest.mark.parametrize(
    ("name", "settings", "measured"),
    [
        (
            "ddpm",
            {"model.diffusion": UNET | {"weighting": "vlb", "schedule": "linear_log_snr", "timesteps": None}},
            "bm",
        ),
        ("edm", {"model.diffusion": UNET}, "bm"),
        ("ndm", {"model.diffusion": UNET | {"channels": 8}}, "b"),  # whose map has a network of the same size
        ("diled_diffusion_decoder", {"model.decoder": UNET}, "bm"),
        ("diffae", {"model.decoder": UNET}, "m"),
        ("consistency", {"model.diffusion": UNET}, ""),
        ("consistency", {"model.diffusion": UNET, "model.teacher": False, "training.steps": 1200}, ""),
    ],
    ids=["ddpm", "edm", "ndm", "diled_diffusion_decoder", "diffae", "consistency", "consistency-scratch"],
)
def test_it_learns_digits(name, settings, measured, tmp_path):
    found = learns(name, tmp_path, **(RECIPE | settings))
    assert set(found) == {"frechet"} | ({"bound"} if "b" in measured else set()) | (
        {"mse"} if "m" in measured else set()
    )
