"""Heads that learn properties, ReLSO's regularisers, labels on their way to both, and what sequences refuse."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import at_step, kill, small
from torch import Tensor, nn

from diled.api import Batch
from diled.config import DataSpec, PoolConfig, TrainingConfig
from diled.data.splits import Data, Split
from diled.errors import ConfigError, Interrupted
from diled.family import FAMILY, ReLSOConfig, model_config
from diled.model import Model
from diled.models.properties import PropertyHead, head_of
from diled.models.relso import ReLSORegularizer
from diled.models.zoo import build
from diled.parts import PropertyConfig
from diled.pools import source_for
from diled.recipes import copy_parts
from diled.runs import RunConfig, resolve
from diled.session import Session
from diled.training.data import Batches, Shuffled
from diled.training.engine import fit
from diled.training.half_asleep import arrange
from diled.training.inputs import Inputs

SEQUENCES = DataSpec(
    kind="protein", shape=(6,), levels=4, symbols=("", "A", "C", "D"), labels={"fitness": [], "group": ["a", "b"]}
)
VECTORS = DataSpec(kind="vector", shape=(5,), labels={"y": []})
NAN = float("nan")


def tiny(name: str, **values: Any) -> Any:
    """A tiny model of sequences that learns `fitness`."""
    return model_config(name, small(name) | {"properties": {"columns": ("fitness",), "width": 8}} | values)


# Heads ----------------------------------------------------------------------------------------------------------------


def fitted() -> PropertyHead:
    head = PropertyHead(3, {"y": 0, "group": 3}, width=4, weight=2.0)
    head.fit({"y": torch.tensor([1.0, 3.0, NAN, 5.0]), "group": torch.tensor([0, 1, 2, -1])})
    return head


def test_real_columns_are_standardised_by_those_that_are_known():
    head = fitted()
    assert head.mean.tolist() == [3.0, 0.0]
    assert head.std.tolist() == [pytest.approx(math.sqrt(8 / 3)), 1.0], "classes are left alone"
    constant = PropertyHead(3, {"y": 0})
    constant.fit({"y": torch.full((4,), 2.0)})
    assert constant.std.item() == pytest.approx(1e-6)


def test_errors_by_hand():
    """Half the squared distance in standard deviations; the cross-entropy; nothing where there is no label."""
    head, z = fitted(), torch.randn(4, 3)
    y, group = torch.tensor([4.0, NAN, 0.0, 2.5]), torch.tensor([2, 0, -1, 1])
    found = head(nn.Identity(), Batch(z, {"y": y, "group": group, "other": y}), None, z)
    out = [network(z).detach() for network in head.networks]
    want = 2.0 * 0.5 * ((y - 3.0) / math.sqrt(8 / 3) - out[0][:, 0]) ** 2
    want[1] = 0
    torch.testing.assert_close(found["property/y"].detach(), want)
    odds = out[1].exp() / out[1].exp().sum(1, keepdim=True)
    classes = -2.0 * odds[range(4), [2, 0, 0, 1]].log()
    classes[2] = 0
    torch.testing.assert_close(found["property/group"].detach(), classes)
    assert list(found) == ["property/y", "property/group"]
    assert head(nn.Identity(), Batch(z, {}), None, z) == {}


def test_predictions_are_in_the_unit_of_the_column():
    head, z = fitted(), torch.randn(5, 3)
    y = head.predict(z, "y").detach()
    torch.testing.assert_close(y, head.networks[0](z).detach()[:, 0] * math.sqrt(8 / 3) + 3.0)
    assert float(head.errors(z, {"y": y})["y"].detach().max()) == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(head.predict(z, "group"), head.networks[1](z))


def test_properties_train_the_encoder_and_are_no_part_of_the_bound():
    model = build("vae", tiny("vae"), SEQUENCES).model
    x, labels = torch.randint(1, 4, (8, 6)), {"fitness": torch.randn(8)}
    terms = model.terms(x, labels=labels)
    assert [name for name in terms if "extra" in name] == ["extra/property/fitness"]
    slopes = torch.autograd.grad(terms["extra/property/fitness"].sum(), list(model.encoder.parameters()))
    assert max(float(slope.abs().max()) for slope in slopes) > 0
    assert not any("extra" in name for name in model.terms(x, labels=labels, exact=True))
    assert model.columns == ("fitness",)
    assert head_of(model) is model.extra[0]


# ReLSO's regularisers -------------------------------------------------------------------------------------------------


DECODED = {0: (1, 1), 2: (2, 2), 1: (3, 3), 10: (1, 1), 12: (1, 2), 11: (1, 1)}
CODES = torch.tensor([[0.0], [2.0], [10.0], [12.0]])


def decoder(z: Tensor) -> Any:
    """Two symbols that are certain, by the code rounded."""
    rows = torch.tensor([DECODED.get(round(float(code)), (0, 0)) for code in z[:, 0]])
    return SimpleNamespace(logits=100.0 * nn.functional.one_hot(rows, 4).float())


def regularizer(head: PropertyHead | None = None, **options: float) -> ReLSORegularizer:
    weights = {"norm": 0.5, "interpolation": 3.0, "negative": 2.0} | options
    return ReLSORegularizer(head or PropertyHead(1, {"y": 0}), **weights)


def test_terms_of_relso_by_hand():
    """Between 0 and 2 the decoder leaves the way by two symbols; between 10 and 12 it stays on it."""
    model, head = nn.Module(), PropertyHead(1, {"group": 2, "y": 0})
    model.decoder = decoder
    for p in head.networks[1].parameters():
        p.data.zero_()
    list(head.networks[1].parameters())[-1].data.fill_(0.7)
    found = regularizer(head, floor=-2.0)(model, Batch(CODES), None, CODES)
    torch.testing.assert_close(found["norm"], 0.5 * 0.5 * CODES[:, 0] ** 2)
    torch.testing.assert_close(found["interpolation"], torch.full((4,), 3.0 * (2 + 2 + 0 + 0) / 4))
    torch.testing.assert_close(found["negative"].detach(), torch.full((4,), 2.0 * (0.7 + 2.0) ** 2))
    off = regularizer(interpolation=0, negative=0)(model, Batch(CODES), None, CODES)
    assert list(off) == ["norm"]
    assert list(regularizer()(model, Batch(CODES[:1]), None, CODES[:1])) == ["norm"], "one code has no neighbour"


def test_nothing_is_paid_for_codes_whose_midpoint_lies_between():
    z = CODES[2:]
    assert float(regularizer().bend(SimpleNamespace(decoder=decoder), z, torch.arange(2))) == 0.0


def test_points_outside_are_as_far_as_they_say_and_different():
    z = torch.randn(20, 3) + 5
    center, radius = z.mean(0), (z - z.mean(0)).norm(dim=1).max()
    for reach in (2.0, 4.0):
        outside = regularizer(reach=reach).outside(z, torch.arange(16))
        torch.testing.assert_close((outside - center).norm(dim=1), (reach * radius).expand(16), rtol=1e-4, atol=1e-4)
        assert float(torch.pdist(outside).min()) > 0.01
    cosine = nn.functional.cosine_similarity(outside - center, z[:16] - center)
    assert float(cosine.mean()) > 0.7, "each in the direction of its code"


def test_regularisers_reach_encoder_decoder_and_head():
    model = build("relso", tiny("relso"), SEQUENCES).stages[0].density
    x = torch.randint(1, 4, (16, 6))
    terms = model.terms(x, labels={"fitness": torch.randn(16)})
    for name, part in (("norm", model.encoder), ("interpolation", model.decoder), ("negative", model.extra[0])):
        slopes = torch.autograd.grad(terms[f"extra/{name}"].mean(), list(part.parameters()), retain_graph=True)
        assert max(float(slope.abs().max()) for slope in slopes) > 0, name


# Labels on their way --------------------------------------------------------------------------------------------------


def test_labels_belong_to_their_examples():
    x = torch.arange(11)[:, None]
    source = Shuffled(x, {"y": 2.0 * x[:, 0] + 1, "group": x[:, 0] % 3})
    for ranks in (1, 3):
        for rank in range(ranks):
            batches = iter(Batches(source, 4, seed=5, rank=rank, ranks=ranks, start=2))
            for _ in range(9):  # over several epochs
                batch = next(batches)
                assert batch.labels["y"].tolist() == (2.0 * batch.x[:, 0] + 1).tolist()
                assert batch.labels["group"].tolist() == (batch.x[:, 0] % 3).tolist()
    assert next(iter(Batches(x, 4, seed=5))).labels == {}


def sequences(n: int = 400) -> tuple[Tensor, Tensor]:
    """Whole sequences, and a property that adds up over positions."""
    generator = torch.Generator().manual_seed(1)
    x, weight = torch.randint(1, 4, (n, 6), generator=generator), torch.randn(6, 4, generator=generator)
    return x, 3.0 + 2.0 * weight.gather(1, x.T).T.sum(1)


RECIPE: dict[str, Any] = {"batch_size": 64, "monitor_every": 1000, "log_every": 1000, "device": "cpu"}


def train(folder: Path, values: Tensor, y: Tensor, *, resume: bool = False, **settings: Any) -> Any:
    """An autoencoder with a head, by the engine itself."""
    recipe = build("ae", tiny("ae", latent_dim=6, network={"kind": "mlp", "width": 32, "depth": 1}), SEQUENCES)
    head_of(recipe.model).fit({"fitness": y})
    config = TrainingConfig(**RECIPE | settings)
    source = Shuffled(values, {"fitness": y})
    fit(
        recipe.model,
        recipe.stages,
        source,
        values[:20],
        SEQUENCES,
        config,
        folder,
        resume=resume,
        say=lambda line: None,
    )
    return recipe.model


def correlation(model: Any, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        predicted = head_of(model).predict(model.encode(x), "fitness")
    assert float((predicted - y).pow(2).mean().sqrt()) < 3 * float(y.std()), "in the unit of the column"
    return float(np.corrcoef(predicted, y)[0, 1])


def test_a_training_learns_the_labels_of_its_examples(tmp_path):
    x, y = sequences()
    options = {"steps": 150, "learning_rate": 5e-3, "ema": 0.9, "accumulate": 2, "warmup_steps": 10}
    assert correlation(train(tmp_path / "right", x[:300], y[:300], **options), x[300:], y[300:]) > 0.95
    mixed = y[:300][torch.randperm(300)]
    assert abs(correlation(train(tmp_path / "wrong", x[:300], mixed, **options), x[300:], y[300:])) < 0.5


def test_a_training_with_labels_resumes_bit_for_bit(tmp_path, monkeypatch):
    x, y = sequences(50)  # several epochs
    options = {"steps": 12, "batch_size": 16, "accumulate": 2}
    whole = train(tmp_path / "whole", x, y, **options)
    with monkeypatch.context() as patch:
        at_step(patch, 7, kill(signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(tmp_path / "part", x, y, **options)
    resumed = train(tmp_path / "part", x, y, resume=True, **options)
    for (name, mine), theirs in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def vectors() -> Data:
    """Vectors whose label is the sum of their values, some unknown."""
    rng = np.random.default_rng(0)

    def split(n: int) -> Split:
        values = rng.uniform(0, 255, (n, 5)).astype(np.float32)
        y = values.sum(1)
        y[::10] = np.nan
        return Split(values, {"y": y}, [str(i) for i in range(n)])

    return Data("vectors", VECTORS, split(120), split(20), split(20), [])


def run_config(**more: Any) -> RunConfig:
    values = {"model.network.width": 12, "model.latent_dim": 3, "model.properties.columns": ["y"], "training.steps": 4}
    return resolve("vectors", "vae", settings=values | {f"training.{k}": v for k, v in RECIPE.items()}, **more)


def test_a_session_hands_the_labels_over(tmp_path):
    data = vectors()
    session = Session(run_config(), out=tmp_path / "run", data=data, say=lambda line: None)
    known = data.train.labels["y"][np.isfinite(data.train.labels["y"])]
    head = head_of(session.recipe.model)
    assert head.mean.item() == pytest.approx(known.mean(), rel=1e-5)
    assert head.std.item() == pytest.approx(known.std(), rel=1e-5)
    batch = next(iter(Batches(session.source, 30, seed=0)))
    sums = batch.x.sum(1)
    there = batch.labels["y"].isfinite()
    assert 0 < int(there.sum()) < 30
    torch.testing.assert_close(batch.labels["y"][there], sums[there])
    model = session.run()
    assert head_of(model.density).mean.item() == head.mean.item()


def test_a_frozen_head_keeps_its_own_scale(tmp_path):
    first, again = vectors(), vectors()
    Session(run_config(), out=tmp_path / "first", data=first, say=lambda line: None).run()
    again.train.labels["y"][:] = 7.0
    more = {"init_from": str(tmp_path / "first")}
    frozen = Session(run_config(freeze=("extra",), **more), out=tmp_path / "a", data=again, say=lambda line: None)
    thawed = Session(run_config(**more), out=tmp_path / "b", data=again, say=lambda line: None)
    assert head_of(frozen.recipe.model).mean.item() > 100
    assert head_of(thawed.recipe.model).mean.item() == 7.0


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mollify": 0.5}, "training.mollify adds noise to numbers, and these are sequences"),
        ({"input_noise": 0.1}, "training.input_noise adds noise to numbers, and these are sequences"),
        ({"augment": "tuned"}, "training.augment changes images"),
    ],
)
def test_sequences_refuse_what_changes_numbers(settings, said):
    with pytest.raises(ConfigError, match=said):
        Inputs(SEQUENCES, TrainingConfig(**settings))


def test_half_asleep_is_for_sequences_with_an_encoder_and_without_a_head():
    config, x = TrainingConfig(half_asleep=0.5), torch.randint(1, 4, (2, 6))
    recipe = build("vae", model_config("vae", small("vae")), SEQUENCES)
    stages = arrange(recipe.model, recipe.stages, x, config)
    assert [stage.name for stage in stages] == ["joint", "half asleep"]
    with stages[1].training():
        assert all(bool(term.isfinite().all()) for term in stages[1].density.terms(x).values())
    for name, values, said in (
        ("vae", {"properties": {"columns": ("fitness",)}}, "samples, which have no 'fitness'"),
        ("potts", {}, "needs an encoder, a decoder and a prior"),
        ("token_diffusion", {"width": 8}, "needs an encoder, a decoder and a prior"),
        ("profile", {}, "nothing of this model is trained step by step"),
        ("ae", {}, "this model has none"),
    ):
        recipe = build(name, model_config(name, small(name) | values), SEQUENCES)
        with pytest.raises(ConfigError, match=said):
            arrange(recipe.model, recipe.stages, x, config)


@pytest.mark.parametrize(
    "pool", [{"source": "somewhere"}, {"fresh": "somewhere"}, {"source": "somewhere", "real": 0.5}]
)
def test_a_pool_has_no_labels(pool):
    config = run_config().model_copy(update={"pool": PoolConfig(**pool)})
    with pytest.raises(ConfigError, match="examples of a pool have no 'y' to learn"):
        source_for(config, vectors(), columns=("y",))


def of(name: str) -> Any:
    """The smallest configuration, with a property where there must be one."""
    needs = name in ("relso", "nos")
    return model_config(name, {"properties": {"columns": ("y",)}} if needs else {})


@pytest.mark.parametrize("name", FAMILY)
def test_models_of_symbols_and_of_numbers_are_told_apart(name):
    labelled = SEQUENCES.model_copy(update={"labels": {"y": []}})
    for spec, kind, here in ((labelled, "symbols", "a sequence of symbols"), (VECTORS, "numbers", "made of numbers")):
        if kind in FAMILY[name].reads:
            assert of(name).resolved(spec) is not None
        else:
            with pytest.raises(ConfigError, match=rf"models (symbols|numbers), and an example of these data is {here}"):
                of(name).resolved(spec)


@pytest.mark.parametrize(
    ("name", "values", "spec", "said"),
    [
        ("vae", {"network": {"kind": "conv"}}, SEQUENCES, "network.kind 'conv' is for pictures"),
        ("vae", {"network": {"kind": "residual"}}, SEQUENCES, "network.kind 'residual' is for pictures"),
        ("vae", {"network": {"kind": "transformer"}}, VECTORS, "network.kind 'transformer' is for sequences"),
        ("vae", {"likelihood": "bernoulli"}, SEQUENCES, "likelihood 'bernoulli' is not for a sequence of symbols"),
        ("vae", {"likelihood": "gaussian"}, SEQUENCES, "likelihood 'gaussian' is not for a sequence of symbols"),
        ("vae", {"likelihood": "categorical"}, VECTORS, "likelihood 'categorical' is not for a vector"),
        ("vae", {"std": 0.1}, SEQUENCES, "'std' has no effect, since likelihood is 'categorical'"),
        ("vae", {"network": {"heads": 2}}, SEQUENCES, "'heads' has no effect, since network.kind is 'mlp'"),
        ("vae", {"network": {"kind": "transformer", "heads": 3}}, SEQUENCES, "'width' = 128: it must be a multiple"),
        (
            "vae",
            {"properties": {"columns": ("fitnes",)}},
            SEQUENCES,
            "no label column 'fitnes'. Did you mean 'fitness'",
        ),
        ("nos", {"properties": {"columns": ("grop",)}}, SEQUENCES, "no label column 'grop'. Did you mean 'group'"),
        ("vae", {"properties": {"columns": ("y",)}}, SEQUENCES, "no label column 'y'. Known: fitness, group"),
        ("relso", {"properties": {"columns": ("group",)}}, SEQUENCES, "none of them holds real numbers"),
    ],
)
def test_choices_that_do_not_fit_the_data(name, values, spec, said):
    with pytest.raises(ConfigError, match=said):
        model_config(name, values).resolved(spec)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("lm", {"width": 30, "heads": 4}, "width = 30: it must be a multiple of heads = 4"),
        ("vae", {"network": {"kind": "transformer", "width": 30}}, "'width' = 30: it must be a multiple of heads = 4"),
        ("vae", {"network": {"kind": "transformer", "channels": 8}}, "'channels' has no effect"),
        ("relso", {}, "ReLSO learns a property: name a label column"),
        ("nos", {}, "NOS leads to a property: name a label column"),
        (
            "vae",
            {"properties": {"weight": 2.0}},
            "'weight' has no effect, since properties.columns names no label column",
        ),
        ("vae", {"properties": {"columns": ("y", "y")}}, "names 'y' twice"),
        (
            "vae",
            {"importance": 4, "rate_warmup": 0, "properties": {"columns": ("y",)}},
            "several codes share one bound",
        ),
        ("potts", {"sweeps": 0}, "sweeps"),
    ],
)
def test_choices_that_have_no_effect_or_no_meaning(name, values, said):
    with pytest.raises(ConfigError, match=said):
        model_config(name, values)


def test_relso_learns_classes_where_nothing_is_drawn_down_outside():
    config = model_config("relso", small("relso") | {"properties": {"columns": ("group",)}, "negative": 0.0})
    terms = build("relso", config, SEQUENCES).stages[0].density.terms(torch.randint(1, 4, (8, 6)))
    assert set(terms) >= {"extra/norm", "extra/interpolation"}
    assert "extra/negative" not in terms
    assert isinstance(config, ReLSOConfig)
    assert config.properties == PropertyConfig(columns=("group",))


def test_the_weight_of_the_rate_is_a_tenth_for_sequences():
    for name, weight in (("diled", 0.1), ("lsgm", 0.1), ("diled_levels", 0.1)):
        assert model_config(name).resolved(SEQUENCES).rate_weight == weight
        assert model_config(name).resolved(VECTORS).rate_weight == 1.0
        assert model_config(name, {"rate_weight": 0.5}).resolved(SEQUENCES).rate_weight == 0.5


def test_diled_starts_from_a_relso(tmp_path):
    """Its encoder makes a point of the same network's output; network, decoder and head are taken (Liu et al. 2024)."""
    source = build("relso", tiny("relso"), SEQUENCES, 1).model
    Model(source, SEQUENCES, name="relso", config=tiny("relso").resolved(SEQUENCES)).save(tmp_path / "relso")
    recipe, said = build("diled_paper", tiny("diled_paper"), SEQUENCES, 2), []
    assert copy_parts(tmp_path / "relso", recipe, SEQUENCES, said.append) == ["encoder", "decoder", "extra"]
    x = torch.tensor([[1, 2, 3, 0, 0, 0], [3, 3, 2, 1, 1, 2]])
    alpha = float(torch.sigmoid(-recipe.model.encoder.schedule.ends[0]).sqrt())
    torch.testing.assert_close(recipe.model.encoder(x).mean, alpha * source.encoder(x).mean)
    mine, theirs = head_of(recipe.model), head_of(source)
    assert mine is not None
    assert theirs is not None
    z = torch.randn(4, recipe.model.encoder(x).mean.shape[1])
    torch.testing.assert_close(mine.predict(z, "fitness"), theirs.predict(z, "fitness"))
    assert "the encoder's network alone" in said[0]
    assert copy_parts(tmp_path / "relso", recipe, SEQUENCES, said.append, ("decoder",)) == ["decoder"]
    assert "encoder" not in said[1]
    other = SEQUENCES.model_copy(update={"symbols": (*SEQUENCES.symbols[:-1], "Z")})
    with pytest.raises(ConfigError, match=r"was trained on other symbols \(.*\) than these data have \(.* Z\)"):
        copy_parts(tmp_path / "relso", recipe, other, said.append)
