"""The figures of the image table: which models have which, and that each is of the pictures it names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import small

from diled.data import open_data
from diled.evaluation.feature_nets import extract
from diled.evaluation.images import frechet
from diled.evaluation.measure import features_for
from diled.family import model_config
from diled.model import Model
from diled.models.zoo import build
from diled.space import raw_tensor, to_space
from diled.studies.images import FEW_STEPS, image_figures

N = 70
ENDS = {"frechet_midpoints/0.2", "frechet_midpoints/0.4"}
OF_DIFFUSIONS = {"frechet_samples", "frechet_reconstructions/inverted", *ENDS}


@pytest.fixture(scope="module")
def digits():
    return open_data("digits")


def untrained(name, data):
    config = model_config(name, small(name))
    return Model(build(name, config, data.spec, seed=0).model, data.spec, name=name, config=config, device="cpu")


def distances(name, data, steps=(2,)):
    found = image_figures(untrained(name, data), data, list(steps), n=N)
    return {metric: m for metric, m in found.items() if metric.startswith("frechet_")}


@pytest.mark.parametrize(
    ("model", "plain", "by_steps"),
    [
        ("diled", {"frechet_reconstructions", *ENDS}, {"frechet_samples"}),
        ("diffae", set(), {"frechet_reconstructions/random", *OF_DIFFUSIONS}),
        ("ddpm", set(), OF_DIFFUSIONS),
    ],
)
def test_what_each_kind_of_model_has(digits, model, plain, by_steps):
    """A likelihood decoder takes no steps, and where x_T is the code there is no other one to draw."""
    found = distances(model, digits, (2, 3))
    assert set(found) == {"frechet_floor", *plain, *(f"{m}/T={t}" for m in by_steps for t in (2, 3))}
    assert all(m.n == N for m in found.values())


def test_a_consistency_model_is_also_sampled_in_one_step(digits):
    found = distances("consistency", digits)
    assert {f"frechet_samples/T={t}" for t in (*FEW_STEPS, 2)} <= set(found)


def test_distances_are_of_reconstructions_and_of_training_images(digits):
    model, net = untrained("diled", digits), features_for(digits)
    test = digits.test.subset(np.arange(N))
    x = to_space(raw_tensor(test.values), digits.spec, draw=False)
    found, real = distances("diled", digits), extract(net, x)
    with torch.no_grad():
        again = model.density.reconstruct(x)
    assert found["frechet_reconstructions"].value == pytest.approx(frechet(extract(net, again), real), rel=1e-4)
    assert found["frechet_floor"].value < found["frechet_reconstructions"].value
    assert found["frechet_floor"].value < found["frechet_samples/T=2"].value
