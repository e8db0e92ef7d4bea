"""Train a model on grey digits and measure it, beside what it must beat. Used by the tests of the family's two halves."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from diled.data import Data, open_data
from diled.draws import BlockNoise
from diled.evaluation.feature_nets import extract
from diled.evaluation.images import frechet
from diled.evaluation.measure import bounds, features_for, reconstruction
from diled.family import FAMILY
from diled.models.sampling import sample_batches
from diled.models.trivial import Independent
from diled.runs import resolve
from diled.session import Session
from diled.space import raw_tensor, to_space

SAMPLES = 1000


@cache
def digits() -> Data:
    """1,797 grey digits, divided."""
    return open_data("digits")


@cache
def to_beat() -> dict[str, float]:
    """The bound of independent pixels, the error of the mean image, the Frechet distance of a Gaussian's samples.

    And as `frechet/independent` that of samples with independent pixels, for trainings too short to come near a Gaussian.
    """
    data = digits()
    train, test = (to_space(raw_tensor(split.values), data.spec) for split in (data.train, data.test))
    pixels = Independent(data.spec.shape, data.spec.levels)
    pixels.fit(train)
    flat = train.flatten(1).double().numpy()
    rng = np.random.default_rng(0)
    gaussian = rng.multivariate_normal(flat.mean(0), np.cov(flat.T), SAMPLES, method="svd").clip(-1, 1)
    independent = np.take_along_axis(flat, rng.integers(len(flat), size=(SAMPLES, flat.shape[1])), 0)
    return {
        "bound": float(pixels.bound(test).mean()),
        "mse": float(((train.mean(0) - test) ** 2).mean()) / 4,
        "frechet": distance(torch.from_numpy(gaussian)),
        "frechet/independent": distance(torch.from_numpy(independent)),
    }


def distance(samples: torch.Tensor) -> float:
    """Frechet distance of samples to the training images."""
    data, net = digits(), features_for(digits())
    samples = samples.float().reshape(-1, *data.spec.shape)
    assert net is not None
    return frechet(extract(net, samples), extract(net, to_space(raw_tensor(data.train.values), data.spec)))


@torch.no_grad()
def error_of_mean(density: Any, draws: int = 8) -> float:
    """Squared error of the mean of several draws: a single one's own spread would count twice beside the mean image's."""
    x = to_space(raw_tensor(digits().test.values[:200]), digits().spec)
    codes = density.encode(x)
    pictures = [density.decode(codes, noise=BlockNoise(seed)) for seed in range(draws)]
    return float(((torch.stack(pictures).mean(0) - x) ** 2).mean()) / 4


def learns(
    name: str, folder: Path, *, against: Literal["gaussian", "independent"] = "gaussian", **settings: Any
) -> dict[str, float]:
    """Train a model of the family; its figures, each of which must beat the trivial one.

    Args:
        name: of the model.
        folder: for the run.
        against: whose samples are to be beaten.
        settings: dotted key -> value.
    """
    steps = {"training.steps": 400, "training.learning_rate": 2e-3, "training.monitor_every": 10_000}
    fields = FAMILY[name].model_fields
    small = {"latent_dim": 16, "network": {"kind": "mlp", "width": 128, "depth": 1}}
    small |= {"prior": {"width": 96, "blocks": 1}}
    model = {key: value for key, value in small.items() if key in fields}
    config = resolve("digits", name, settings={"model": model} | steps | settings, seed=0)
    session = Session(config, out=folder / name, data=digits(), say=lambda line: None)
    density, data = session.run().density, digits()
    steps_of_sampler = 25 if name == "ndm" else None  # its own 100 take as long as the training
    drawn = torch.cat(list(sample_batches(density, SAMPLES, steps=steps_of_sampler, seed=0)))
    found = {"frechet": distance(drawn)}
    bound = bounds(density, data.test, data.spec, repeats=4)["bound_nats"].value
    if bound is not None:
        found["bound"] = bound
    if density.implicit and hasattr(density, "encoder"):
        found["mse"] = error_of_mean(density)
    elif density.has_codes:
        error = reconstruction(density, data.test, data.spec)["reconstruction_mse"].value
        assert error is not None
        found["mse"] = error
    limits = to_beat() if against == "gaussian" else to_beat() | {"frechet": to_beat()["frechet/independent"]}
    for what, value in found.items():
        assert value < limits[what], f"{name}: {what} is {value:.4g}, and {limits[what]:.4g} is to be beaten"
    return found
