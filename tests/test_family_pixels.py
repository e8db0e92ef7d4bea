"""Every model that diffuses data learns digits: better than independent pixels, and with time enough than a fitted Gaussian."""

from __future__ import annotations

import pytest
from digits_levels import learns

UNET = {"kind": "unet", "channels": 12}
NARROW = UNET | {"channels": 8}
"""For NDM, whose map has a network of the same size."""
RECIPE = {"training.batch_size": 64, "training.steps": 550, "training.learning_rate": 4e-3, "training.ema": 0.98}
LONGER = {"training.steps": 700, "training.ema": 0.999}
SHORTER = {"training.steps": 400, "training.learning_rate": 6e-3}
MLP = {"training.steps": 450, "training.learning_rate": 2e-3, "training.ema": 0.99}
"""For consistency models, which get by without convolutions."""
BOLDER = {"training.steps": 400, "training.learning_rate": 1e-2}
"""For NDM, whose step costs several of another model's."""


@pytest.mark.parametrize(
    ("name", "settings", "against", "measured"),
    [
        (
            "ddpm",
            {"model.diffusion": UNET | {"weighting": "vlb", "schedule": "linear_log_snr", "timesteps": None}}
            | SHORTER
            | {"training.ema": 0.99},
            "gaussian",
            "bm",
        ),
        ("edm", {"model.diffusion": UNET} | LONGER, "gaussian", "bm"),
        ("ndm", {"model.diffusion": NARROW} | BOLDER, "independent", "b"),
        ("diled_diffusion_decoder", {"model.decoder": UNET}, "gaussian", "bm"),
        ("diffae", {"model.decoder": UNET} | SHORTER, "independent", "m"),
        ("consistency", {"model.diffusion": {"kind": "mlp"}} | MLP, "independent", ""),
        ("consistency", {"model.diffusion": {"kind": "mlp"}, "model.teacher": False} | MLP, "independent", ""),
    ],
    ids=["ddpm", "edm", "ndm", "diled_diffusion_decoder", "diffae", "consistency", "consistency-scratch"],
)
def test_it_learns_digits(name, settings, against, measured, tmp_path):
    found = learns(name, tmp_path, against=against, **(RECIPE | settings))
    assert set(found) == {"frechet"} | ({"bound"} if "b" in measured else set()) | (
        {"mse"} if "m" in measured else set()
    )
