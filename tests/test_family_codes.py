"""Every model with a vector code learns digits: better than independent pixels, the mean image and a fitted Gaussian."""

from __future__ import annotations

import pytest
from digits_levels import learns, to_beat

NO_BOUND = ("ae", "daae")
BOLDER = {"training.steps": 500, "training.learning_rate": 4e-3}
LONGER = BOLDER | {"training.steps": 900}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("diled", {}),
        ("diled_fixed", BOLDER),
        ("diled_levels", {"model.levels": 2}),
        ("vae", LONGER),
        ("beta_vae", LONGER | {"model.beta": 2.0, "model.cycles": 2}),
        ("hierarchical_vae", BOLDER),
        ("two_stage_vae", LONGER),
        ("ldm", {}),
        ("lsgm", {}),
        ("ae", {}),
        ("daae", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_learns_digits(name, settings, tmp_path):
    found = learns(name, tmp_path, **settings)
    assert set(found) == {"frechet", "mse"} | (set() if name in NO_BOUND else {"bound"})


def test_the_papers_objective_reconstructs_and_samples(tmp_path):
    """Its bound is loose by construction, so it is compared with twice that of independent pixels."""
    import digits_levels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits_levels, "to_beat", lambda: to_beat() | {"bound": 2 * to_beat()["bound"]})
        learns("diled_paper", tmp_path)


def test_ppca_beats_the_mean_image_and_its_samples_are_no_worse_than_a_gaussians(tmp_path):
    import digits_levels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            digits_levels, "to_beat", lambda: to_beat() | {"bound": 200.0, "frechet": 1.5 * to_beat()["frechet"]}
        )
        learns("ppca", tmp_path)
