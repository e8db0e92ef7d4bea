"""Bounds of a data set: passes over the same examples encode them once; distances of samples by any sampler."""

from __future__ import annotations

import numpy as np
import torch

from diled.api import total
from diled.config import DataSpec
from diled.data import open_data
from diled.data.splits import Split
from diled.draws import seeded
from diled.evaluation.measure import _encoded_once, bounds_of_examples, distances, samples_distance
from diled.family import model_config
from diled.models.zoo import build
from diled.space import log_unit, raw_tensor, to_space

SPEC = DataSpec(kind="image", shape=(1, 4, 4), levels=17, low=0, high=16)


def model_and_split():
    config = model_config("vae", {"latent_dim": 3, "network": {"width": 8, "depth": 1}}).resolved(SPEC)
    values = np.random.default_rng(0).integers(0, 17, (40, 1, 4, 4)).astype(np.uint8)
    return build("vae", config, SPEC, seed=0).model.eval(), Split(values, {}, [str(i) for i in range(40)])


def test_bounds_encode_once_and_are_means_over_passes(monkeypatch):
    model, split = model_and_split()
    x = to_space(raw_tensor(split.values), SPEC)
    with seeded(5, 1), torch.no_grad():
        passes = torch.stack([total(model.terms(x, exact=True)) for _ in range(3)])
    calls, forward = [], type(model.encoder).forward
    monkeypatch.setattr(type(model.encoder), "forward", lambda self, q: calls.append(q) or forward(self, q))
    found = bounds_of_examples(model, split, SPEC, repeats=3, seed=5)
    assert len(calls) == 1
    torch.testing.assert_close(found["bound_nats"], passes.mean(0).double() + log_unit(SPEC), rtol=1e-5, atol=1e-4)


def test_other_examples_are_encoded_anew():
    model, split = model_and_split()
    x = to_space(raw_tensor(split.values), SPEC)
    with torch.no_grad(), _encoded_once(model, x):
        assert torch.equal(model.encoder(x.flip(0)).mean, model.encoder(x).mean.flip(0))
        assert model.encoder(x) is model.encoder(x)
    assert model.encoder(x) is not model.encoder(x)
    assert "forward" not in vars(model.encoder)


def test_another_sampler_is_measured_against_the_same_examples_as_the_models_own():
    """Digits has few test examples, so samples are compared with training examples there."""
    data = open_data("digits")
    config = model_config("diled", {"latent_dim": 3, "network": {"width": 8, "depth": 1}}).resolved(data.spec)
    model = build("diled", config, data.spec, seed=0).model.eval()
    chosen = {"samples": 300, "steps": 4, "sampler": "ancestral", "seed": 2}
    seen = samples_distance(model, data, **chosen)
    own = distances(model, data.train, data.test, data, **chosen)["frechet_samples"]
    assert (seen.value, seen.note) == (own.value, own.note)
    assert "against train; ancestral, 4 steps" in seen.note
    assert samples_distance(model, data, **{**chosen, "sampler": "ddim"}).value != seen.value


def test_of_a_large_sorted_split_random_examples_are_measured():
    """The cap keeps the order of the file; without more examples than that nothing changes."""
    split = Split(np.arange(1000)[:, None], {"label": np.arange(1000)}, [str(i) for i in range(1000)])
    assert split.at_most(1000, 3) is split
    some = split.at_most(100, 3)
    assert len(some) == 100
    assert np.array_equal(some.values[:, 0], some.labels["label"])
    assert (np.diff(some.values[:, 0]) > 0).all()
    assert abs(some.values.mean() - 499.5) < 4 * 288.7 / 10, "the first hundred have 49.5"
    assert some.ids == split.at_most(100, 3).ids != split.at_most(100, 4).ids
