"""Bounds of a data set: passes over the same examples encode them once; distances of samples by any sampler."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from diled.api import Density, total
from diled.config import DataSpec
from diled.data import open_data
from diled.data.splits import Data, Split
from diled.draws import seeded
from diled.editing import by_group
from diled.errors import ConfigError
from diled.evaluation import measure
from diled.evaluation.images import precision_recall
from diled.evaluation.measure import _encoded_once, bounds_of_examples, distances, probe, samples_distance
from diled.family import model_config
from diled.model import Model
from diled.models.zoo import build
from diled.reporting import few_real
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


def test_passes_of_a_flow_posterior_have_draws_of_their_own():
    config = model_config("vae", {"latent_dim": 3, "network": {"width": 8, "depth": 1}, "posterior": "flow"})
    model = build("vae", config.resolved(SPEC), SPEC, seed=0).model.eval()
    split = model_and_split()[1]
    scatter = [
        torch.stack(
            [bounds_of_examples(model, split, SPEC, repeats=k, seed=s, paired=paired)["bound_nats"] for s in range(6)]
        ).std(0)
        for paired in (False, True)
        for k in (1, 16)
    ]
    for once, often in zip(scatter[::2], scatter[1::2], strict=True):
        assert often.mean() < 0.4 * once.mean()  # 1/4 of independent draws, less of paired ones


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


class Echo(Density):
    """Codes are the examples themselves."""

    has_codes = True

    def encode(self, x: Tensor, **options: object) -> Tensor:
        return x


class Half(Echo):
    """Decodes dark images as they are and the others to white, by many steps."""

    implicit = True

    def reconstruct(self, x: Tensor) -> Tensor:
        return torch.where(x.mean((1, 2, 3), keepdim=True) < 0, x, torch.ones_like(x))

    def decode(self, z: Tensor, **options: object) -> Tensor:
        return self.reconstruct(z.unflatten(1, SPEC.shape))


def sorted_images(n: int) -> Split:
    """n dark images, then n light ones."""
    values = (
        np.random.default_rng(0).integers(0, 5, (2 * n, *SPEC.shape))
        + 12 * (np.arange(2 * n) >= n)[:, None, None, None]
    )
    return Split(values.astype(np.uint8), {}, [str(i) for i in range(2 * n)])


def test_of_a_sorted_split_the_neighbours_are_random_ones(monkeypatch):
    """Samples of two classes in equal shares, all of them realistic; among the first half of real data half of them."""
    monkeypatch.setattr(measure, "NEIGHBOURS", 100)
    rng = np.random.default_rng(0)
    real, fake = (rng.normal(size=(200, 2)) + 100 * (np.arange(200) >= 100)[:, None] for _ in range(2))
    samples = fake[rng.permutation(200)]
    found = measure._against(real, samples, "samples", "") | measure._against(real, fake, "floor", "")
    for name in ("precision", "recall", "precision_floor", "recall_floor"):
        assert found[name].value > 0.85, name
        assert found[name].n == 100
    known = precision_recall(real[:50], samples[:50])
    few = measure._against(real[:50], samples, "samples", "")
    assert (few["precision"].value, few["recall"].value) == known, "of all real examples and the first samples"


def test_of_a_sorted_split_a_sampler_decodes_random_ones(monkeypatch):
    monkeypatch.setattr(measure, "FEW", 100)
    split = sorted_images(100)
    x = to_space(raw_tensor(split.values), SPEC)
    error = ((1 - x[100:]) ** 2).mean().item() / 4
    found = measure.reconstruction(Half(), split, SPEC)["reconstruction_mse"]
    assert (found.n, found.value) == (100, pytest.approx(error / 2, rel=0.3)), "none among the first hundred"
    seen = []
    monkeypatch.setattr(measure, "extract", lambda net, pictures: seen.append(pictures) or pictures.flatten(1).numpy())
    net = SimpleNamespace(name="pixels")
    found = measure._decoded(Half(), split, x.flatten(1).numpy(), net, SPEC, 0)
    assert (seen[0].mean((1, 2, 3)) < 0).sum() == pytest.approx(50, abs=20)
    assert found["frechet_reconstructions"].n == 100
    white = x.flatten(1)[100:].mean()
    assert 0 < found["frechet_reconstructions"].value < 16 * (1 - white) ** 2 + 1, "the same ones are real"
    monkeypatch.setattr(Half, "reconstruct", lambda self, x: x)
    same = measure._decoded(Half(), split, x.flatten(1).numpy(), net, SPEC, 0)["frechet_reconstructions"]
    assert same.value == pytest.approx(0, abs=1e-4), "beside themselves"


@pytest.mark.parametrize(
    ("n", "there"), [(1, []), (2, ["frechet"]), (3, ["frechet"]), (4, ["frechet", "kid", "precision", "recall"])]
)
def test_figures_of_too_few_examples_are_none(n, there):
    x = np.random.default_rng(0).normal(size=(10, 3))
    for real, fake in ((x, x[:n]), (x[:n], x)):
        found = measure._against(real, fake, "samples", "pixels")
        assert [name.removesuffix("_samples") for name, m in found.items() if m.value is not None] == there
        least = {1: {2, 4}, 2: {4}, 3: {4}, 4: set()}[n]
        notes = {m.note for m in found.values() if m.value is None}
        assert notes == {f"too few examples: {n}, where {k} are needed" for k in least}


def test_real_data_say_of_how_many_they_are_where_samples_are_more():
    """The digits have 360 test images, beside the training images that samples are compared with."""
    data = open_data("digits")
    config = model_config("vae", {"latent_dim": 3, "network": {"width": 8, "depth": 1}}).resolved(data.spec)
    model = build("vae", config, data.spec, seed=0).model.eval()
    many, few = (distances(model, data.train, data.test, data, samples=n) for n in (400, 300))
    for name in ("frechet_floor", "kid_floor", "precision_floor", "recall_floor"):
        assert "; of only 360 real examples beside 400 samples" in many[name].note
        assert "of only" not in few[name].note
    assert "of only" not in many["frechet_samples"].note
    assert [len(few_real(found)) for found in (many, few, {})] == [1, 0, 0]
    assert "is of 360 examples" in few_real(many)[0]
    assert "of samples there are 400" in few_real(many)[0]


def test_missing_labels_are_no_class():
    """Two classes that a line tells apart, and examples without a label, which it could not tell from them."""
    spec = DataSpec(kind="vector", shape=(2,), low=-1.0, high=1.0, labels={"label": ["low", "high"], "other": ["one"]})
    rng = np.random.default_rng(0)
    x = rng.uniform(0.2, 1, (400, 2)).astype(np.float32) * rng.choice([-1, 1], (400, 1)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    y[::2] = -1
    split = Split(x, {"label": y, "other": np.where(y < 0, -1, 0)}, [str(i) for i in range(400)])
    found = probe(Echo(), split, split, spec)
    assert found["probe_accuracy"].value == 1
    assert found["probe_accuracy"].n == 200
    none = replace(split, labels={"other": split.labels["other"]})
    assert probe(Echo(), none, none, spec) == {}, "missing is no second class"


def test_groups_are_classes_and_not_what_is_missing():
    config = model_config("vae", {"latent_dim": 3, "network": {"width": 8, "depth": 1}}).resolved(SPEC)
    density = build("vae", config, SPEC, seed=0).model.eval()
    values = np.random.default_rng(0).integers(0, 17, (60, 1, 4, 4)).astype(np.uint8)
    spec = SPEC.model_copy(update={"labels": {"label": ["a", "b"], "none": ["a", "b"]}})
    labels = {"label": np.tile([0, 1, -1, 1], 15), "none": np.full(60, -1)}
    split = Split(values, labels, [str(i) for i in range(60)])
    model, data = Model(density, spec, name="vae", config=config), Data("some", spec, split, split, split, [])
    found = by_group(model, data, "label", samples=20, repeats=1)
    assert sorted(found) == ["a", "b"]
    assert found["a"]["share_of_data"].value == pytest.approx(1 / 3)
    assert found["a"]["share_of_data"].n == 45
    with pytest.raises(ConfigError, match="'none' has 0 of its classes among training examples"):
        by_group(model, data, "none", samples=20, repeats=1)
