"""What a model is trained on: pools and mixtures, epochs, noise, the model's own samples, and the best of all looks."""

import html
import json
import math
import shutil
import signal
import sys
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from closed_forms import assert_mean
from tiny import at_step, diled, kill, log, small, train, train_any, weights

from diled.api import Density, Stage, total
from diled.config import DataSpec, PoolConfig, TrainingConfig
from diled.data import open_data
from diled.data.disjoint import Known
from diled.data.synthesis import Pool, duplicates, set_hash
from diled.distributions import Normal
from diled.draws import seeded
from diled.errors import ConfigError, DataError
from diled.evaluation.measure import Measured
from diled.family import model_config
from diled.models.autoencoder import Autoencoder
from diled.models.priors import StandardNormal
from diled.models.zoo import build
from diled.nn.blocks import mlp
from diled.nn.image import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from diled.pools import counts_of, source_for
from diled.reporting import counted
from diled.runs import read_run, resolve
from diled.session import Session
from diled.space import to_space
from diled.synthesizing import synthesize
from diled.training import best
from diled.training.best import Best, held_out_bound
from diled.training.data import Batches, Fresh, Mixed, Shuffled, steps_for
from diled.training.half_asleep import HalfAsleep, arrange
from diled.training.inputs import Inputs, mollified, mollify_std, noisy_input
from diled.training.stages import learning_rate

VECTOR = DataSpec(kind="vector", shape=(3,), low=-1.0, high=1.0)


# Pools and mixtures

REAL, MADE = torch.arange(7), torch.arange(100, 111)


def mixed(share):
    return Mixed(Shuffled(REAL), Shuffled(MADE), share)


@pytest.mark.parametrize(
    ("share", "exact"), [(0.2, "1/5"), (0.35, "7/20"), (0.5, "1/2"), (0.9, "9/10"), (1 / 3, "1/3")]
)
def test_example_i_is_real_where_the_floor_rises(share, exact):
    """So among the first n there are floor(n s) real ones, and in each batch as many as the share says, to within one."""
    seen = torch.cat([Batches(mixed(share), 8, seed=4).batch(step) for step in range(60)])
    for n in range(1, len(seen) + 1):
        assert int((seen[:n] < 100).sum()) == math.floor(n * Fraction(exact))
    for batch in seen.split(8):
        assert abs(int((batch < 100).sum()) - 8 * share) < 1


@pytest.mark.parametrize("step", [0, 3])
def test_broken_grey_values_stay_as_they_are_beside_whole_ones(step: int):
    """A pool of a model of binarised images holds grey values between those of the data."""
    both = Mixed(Shuffled(REAL.to(torch.uint8)), Shuffled(MADE + 0.75), 0.5)
    for found in (Batches(both, 8, seed=0).batch(step), both.some(8), torch.cat(list(both.all()))):
        made = found[found >= 100]
        assert torch.equal(made.frac(), torch.full_like(made, 0.75))
    whole = Mixed(Shuffled(REAL.to(torch.uint8)), Shuffled(MADE.to(torch.uint8)), 0.5)
    assert Batches(whole, 8, seed=0).batch(step).dtype == torch.uint8


def test_each_of_two_streams_goes_through_its_own_epochs_in_its_own_order():
    seen = torch.cat([Batches(mixed(0.2), 5, seed=4).batch(step) for step in range(300)])
    for values, of_them in ((REAL, seen[seen < 100]), (MADE, seen[seen >= 100])):
        epochs = of_them[: len(of_them) // len(values) * len(values)].reshape(-1, len(values))
        assert (epochs.sort(1).values == values).all()
        assert len({tuple(order) for order in epochs.tolist()}) > 0.9 * len(epochs)
    alone = Shuffled(REAL)
    assert alone.order(0, 4).tolist() != mixed(0.2).real.order(0, 4 + 1).tolist()


def test_a_mixture_is_a_function_of_the_step_and_shared_by_ranks():
    whole = Batches(mixed(0.3), 12, seed=1)
    shares = [Batches(mixed(0.3), 4, seed=1, rank=rank, ranks=3) for rank in range(3)]
    for step in (0, 7, 3, 40):
        assert torch.cat([share.batch(step) for share in shares]).tolist() == whole.batch(step).tolist()
    later = iter(Batches(mixed(0.3), 12, seed=1, start=5))
    assert next(later).x.tolist() == whole.batch(5).tolist()
    assert sorted(mixed(0.5).some(8).tolist())[3] < 100 <= sorted(mixed(0.5).some(8).tolist())[4]


def test_the_share_is_exact_after_a_billion_examples():
    source = mixed(0.1)
    assert source.is_real(10**9, 20).nonzero()[:, 0].tolist() == [9, 19]
    assert mixed(1 / 3).is_real(3 * 10**9, 6).nonzero()[:, 0].tolist() == [2, 5]


def test_fresh_examples_are_drawn_batch_by_batch():
    fresh = Fresh(lambda step, rank, ranks: np.arange(4) + 1000 * step + 10 * rank + ranks, 4)
    batches = Batches(fresh, 4, seed=0, rank=1, ranks=2)
    assert batches.batch(3).tolist() == [7001, 7002, 7003, 7004], "batch number 3 x 2 + 1"
    assert fresh.some(6).tolist() == [1, 2, 3, 4, 1001, 1002]
    mixture = Batches(Mixed(Shuffled(REAL), fresh, 0.5), 4, seed=0).batch(2)
    assert [int(x) if x > 6 else "real" for x in mixture] == [2001, "real", 2003, "real"]


@pytest.fixture
def pool(monkeypatch):
    """A pool of 3,000 digits that no one has seen, in place of a folder."""
    real = open_data("digits").train.values
    noise = np.random.default_rng(1).integers(0, 3, (3000, *real.shape[1:]))
    values = np.clip(real[np.arange(3000) % len(real)] + noise, 0, 16).astype(real.dtype)
    checked = []
    monkeypatch.setattr("diled.data.synthesis.open_pool", lambda *_: SimpleNamespace(values=values))
    known = Known(np.zeros(0, int), 0)
    monkeypatch.setattr("diled.data.disjoint.check_disjoint", lambda *args, **_: checked.append(args[1]) or known)
    monkeypatch.setattr("diled.data.synthesis.set_hash", lambda folder: "3,000 digits")
    return SimpleNamespace(values=values, checked=checked, real=real)


def chosen(**values):
    return resolve("digits", "vae", None, {f"pool.{key}": value for key, value in values.items()})


def test_what_a_run_is_trained_on(pool, monkeypatch):
    data, n = open_data("digits"), 1293
    whole = source_for(chosen(source="pool"), data)
    assert np.array_equal(whole.values.numpy(), pool.values)
    assert np.array_equal(pool.checked[0], data.test.values), "it must hold no test example"
    folds = source_for(chosen(source="pool", folds=2), data)
    assert np.array_equal(folds.values.numpy(), pool.values[: 2 * n])
    union = source_for(chosen(source="pool", folds=1, keep=True), data)
    assert np.array_equal(union.values.numpy(), np.concatenate([pool.real, pool.values[:n]]))
    broken = pool.values + np.float32(0.75)
    monkeypatch.setattr("diled.data.synthesis.open_pool", lambda *_: SimpleNamespace(values=broken))
    kept = source_for(chosen(source="pool", folds=1, keep=True), data)
    assert np.array_equal(kept.values.numpy(), np.concatenate([pool.real, broken[:n]])), (
        "grey values between whole ones"
    )
    mixture = source_for(chosen(source="pool", folds=1, real=0.25), data)
    assert (len(mixture), float(mixture.share)) == (2 * n, 0.25)
    assert np.array_equal(source_for(chosen(), data).values.numpy(), pool.real)
    with pytest.raises(DataError, match=r"holds 3,000 examples, but --pool.folds 3 needs 3,879 .* at most 2 folds"):
        source_for(chosen(source="pool", folds=3), data)
    few = SimpleNamespace(values=pool.values[:1000])
    monkeypatch.setattr("diled.data.synthesis.open_pool", lambda *_: few)
    with pytest.raises(DataError, match=r"draw more, or leave --pool.folds out to take all"):
        source_for(chosen(source="pool", folds=1), data)


def test_binarised_images_that_equal_test_images_by_chance_are_left_out_and_counted(monkeypatch):
    """The digits' own training images, of which 28 do; with as many of the test images more, the set is refused."""
    config = resolve("digits", "vae", None, {"pool.source": "pool", "preprocess.binarize": "threshold"})
    data, said = open_data("digits", config.preprocess), []
    held = duplicates(data.train.values, data.test.values, data.spec)
    assert len(held) == 28
    for values, left in ((data.train.values, 28), (data.train.values[: held[3]], 3)):
        pool = Pool(values, {})
        monkeypatch.setattr("diled.data.synthesis.open_pool", lambda *_, pool=pool: pool)
        source = source_for(config, data, said.append)
        assert np.array_equal(source.values.numpy(), np.delete(values, held[:left], 0))
        assert said[-1].endswith(f"; left out: {left} that equal a test example by chance.")
    some = np.flatnonzero(~np.isin(np.arange(1293), held))
    black = np.where(data.test.values > 8, 16, 0).astype(data.test.values.dtype)
    pool = Pool(np.concatenate([data.train.values[some[:930]], black[:70]]), {})
    monkeypatch.setattr("diled.data.synthesis.open_pool", lambda *_: pool)
    with pytest.raises(
        DataError, match=r"70 of the 1,000 .* are test examples .* \(2\.17% of the training examples are\)"
    ):
        source_for(config, data)
    pool = Pool(np.concatenate([data.train.values, data.test.values[:1]]), {})
    with pytest.raises(DataError, match=r"29 of the 1,294 synthetic samples are test examples, the first"):
        source_for(config, data)


def test_of_proteins_test_sequences_are_left_out_and_counted(monkeypatch):
    """By hand: three of seven samples are test sequences alone, and half of four; most of five are refused."""
    residues = "ACDEFGHIKLMNPQRSTVWY"
    data = open_data([a + b + "W" for a in residues for b in residues])
    test, train = data.test.values, data.train.values.copy()
    train[0] = test[0]
    data = replace(data, train=replace(data.train, values=train))
    new = np.zeros_like(test[:1]) + np.array([1, 1, 2], test.dtype)
    samples = np.concatenate([test[:4], train[1:2], new, new])
    said: list[str] = []

    def trained_on(values):
        pool = Pool(values, {"settings": {"n": len(values)}})
        monkeypatch.setattr("diled.data.synthesis.open_pool", lambda *_: pool)
        config = SimpleNamespace(pool=PoolConfig(source="p"), training=SimpleNamespace(batch_size=2))
        return source_for(config, data, said.append).values.numpy()

    assert np.array_equal(trained_on(samples), samples[[0, 4, 5, 6]]), "training knows the first from elsewhere"
    assert said == [
        "4 synthetic sequences of p for 320 real ones; 2 are copies of training sequences; left out: 3 are test sequences."
    ]
    assert len(trained_on(samples[[1, 2, 5, 6]])) == 2
    with pytest.raises(DataError, match=r"3 of 5 synthetic sequences of p are test sequences: .* Draw a pool from"):
        trained_on(samples[[1, 2, 3, 5, 6]])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pool.folds", 2], "pool: 'folds' has no effect without 'source'"),
        (["--pool.keep"], "'keep' has no effect without 'source'"),
        (["--pool.real", 0.2], "all examples are real"),
        (["--pool.source", "a", "--pool.fresh", "b"], "give one of them"),
        (["--pool.source", "a", "--pool.keep", "--pool.real", 0.2], "give one of them"),
        (["--pool.fresh", "b", "--pool.folds", 2], "'folds' has no effect without 'source'"),
        (["--pool.sorce", "a"], "Did you mean '--pool.source'?"),
        (["--training.epochs", 2], "'epochs' sets the number of steps"),
        (["--training.augment", "tunned"], "tuned"),
        (["--training.augment_values.border", "zeros"], "'augment_values.border' has no effect"),
        (["--training.augment_values.hue", 9], "hue means nothing for images of 1 channel"),
        (["--model.network.kind", "residual", "--model.network.dropout", 0.1], "'dropout' has no effect"),
        (["--preprocess.size_policy", "pad"], "'size_policy' has no effect without 'size'"),
        (["--preprocess.image_column", "picture"], "digits is no such file: leave it out"),
    ],
)
def test_options_without_effect_are_refused(options, words, tmp_path, capsys):
    assert diled("train", "digits", "--model", "vae", "--out", tmp_path / "run", "--training.steps", 9, *options) == 2
    said = capsys.readouterr().err
    assert words in said, said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_of_fresh_examples(tmp_path, monkeypatch):
    """They are asked for by number, from the same seed, and resuming asks for the next ones."""
    asked = []

    def fresh(source, seed, batch, *, device, check=None):
        def draw(step, rank, ranks):
            asked.append(step)
            values = np.random.default_rng([seed, step]).integers(0, 17, (batch, 1, 8, 8))
            return values.astype(np.float32)

        return draw

    monkeypatch.setitem(sys.modules, "diled.synthesizing", SimpleNamespace(fresh=fresh))
    options = ["--pool.fresh", "somewhere", "--training.checkpoint_seconds", 1e9]
    assert train(tmp_path / "whole", *options, model="vae", steps=20) == 0
    assert set(range(20)) <= set(asked) <= set(range(21))  # one may be drawn ahead
    with monkeypatch.context() as patch:
        at_step(patch, 7, kill(signal.SIGTERM))
        assert train(tmp_path / "run", *options, model="vae", steps=20) == 130
    assert diled("train", "--resume", tmp_path / "run", "--report", "false") == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_what_a_run_was_trained_on_is_recorded_and_reported(tmp_path, pool, monkeypatch):
    """Of a run, of several that differ, and of one of which it is not known; and how many examples their figures are of."""
    run, data = tmp_path / "run", open_data("digits")
    options = ["--model", "vae", "--pool.source", "pool", "--pool.folds", 2, "--training.steps", 4]
    assert diled("train", "digits", *options, "--model.network.width", 16, "--out", run) == 0
    counts = json.loads((run / "provenance.json").read_text())["examples"]
    assert counts == {"real": 0, "synthetic": 2586}
    page = html.unescape((run / "report.html").read_text(encoding="utf-8"))
    assert "Trained on 2,586 synthetic examples, measured on 360 others." in page

    def of(**values):
        config = chosen(**values)
        return counts_of(source_for(config, data, lambda line: None), config.pool, data)

    union, mixture, real = of(source="pool", keep=True), of(source="pool", folds=1, real=0.25), of()
    assert union == {"real": 1293, "synthetic": 3000}
    assert mixture == {"real": 1293, "synthetic": 1293}
    assert real == {"real": 1293}
    monkeypatch.setitem(sys.modules, "diled.synthesizing", SimpleNamespace(fresh=lambda *args, **options: None))
    fresh, both = of(fresh="somewhere"), of(fresh="somewhere", real=0.5)
    assert [fresh, both] == [{"real": 0, "synthetic": None}, {"real": 1293, "synthetic": None}]
    found = {"A": {"bound_nats": Measured(1.0, n=100)}}
    assert [counted({"A": one}, found, data) for one in (real, union, fresh, both, {})] == [
        "Trained on 1,293 examples, measured on 100 others.",
        "Trained on 1,293 real examples and 3,000 synthetic ones, measured on 100 others.",
        "Trained on synthetic examples that were drawn anew, measured on 100 others.",
        "Trained on 1,293 real examples and synthetic ones that were drawn anew, measured on 100 others.",
        "Measured on 100 held-out examples.",
    ]
    assert counted({"A": real, "B": real}, {}, data) == "Trained on 1,293 examples, measured on 360 others."
    said = "Trained: A on 1,293 examples; B on 2,586 synthetic examples. Measured on 360 others."
    assert counted({"A": real, "B": counts, "C": {}}, {}, data) == said


def test_fresh_examples_of_other_data_are_refused(tmp_path, capsys):
    assert train(tmp_path / "other", "--preprocess.size", 6, model="vae", steps=5) == 0
    capsys.readouterr()
    assert train(tmp_path / "run", "--pool.fresh", tmp_path / "other", model="vae") == 2
    assert "draws other data: shape is (1, 6, 6) there and (1, 8, 8) in digits" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Epochs and learning rates


def test_steps_of_epochs_are_rounded_up():
    assert steps_for(1000, 60_000, 128) == 468_750
    assert steps_for(2, 100, 32) == 7
    assert steps_for(0.1, 130, 13) == 1
    assert steps_for(1e-9, 10, 10) == 1


def test_an_effective_epoch_is_as_many_examples_as_there_are_real_ones(tmp_path, pool):
    run = tmp_path / "run"
    words = ["--model", "vae", "--model.network.width", 16, "--training.epochs", 0.25, "--training.batch_size", 16]
    words += ["--training.accumulate", 2, "--pool.source", "pool", "--report", "false", "--device", "cpu"]
    assert diled("train", "digits", "--out", run, *words) == 0
    assert log(run)[-1]["step"] == math.ceil(0.25 * 1293 / 32) == 11
    assert json.loads((run / "provenance.json").read_text())["steps"] == 11
    saved = json.loads((run / "run.json").read_text())["training"]
    assert saved["epochs"] == 0.25
    assert "steps" not in saved
    assert read_run(run).training.epochs == 0.25
    assert diled("train", "digits", "--out", tmp_path / "no", *words, "--minutes", 1) == 2


def test_a_constant_learning_rate_stays():
    assert [learning_rate(k, 100, 4, "constant") for k in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert learning_rate(99, 100, 4, "constant") == 1


# Mollification and noise on the input


def test_the_noise_falls_as_published():
    """Against the reference code's expression, whose variance starts at 1, ends at 0, and has tau = 0.7."""

    def published(t):
        def sigmoid(a):
            return 1 / (1 + np.exp(-a))

        end, tau = 3, 0.7
        return (sigmoid(end / tau) - sigmoid(t * end / tau)) / (sigmoid(end / tau) - sigmoid(0))

    assert mollify_std(0.0, 1.0) == 1
    assert mollify_std(0.0, 0.3) == pytest.approx(0.3)
    for progress in (0.01, 0.1, 0.25, 0.4):
        assert mollify_std(progress, 0.6) ** 2 == pytest.approx(0.36 * published(2 * progress))
    assert mollify_std(0.5, 1.0) == mollify_std(0.8, 1.0) == 0
    x = torch.randn(200_000, 1)
    noisy = mollified(x, 0.6)
    assert noisy.var().item() == pytest.approx(1, abs=0.02), "the variance of standardised data is preserved"
    assert (x * noisy).mean().item() == pytest.approx(0.8, abs=0.02)


def test_mollified_data_have_their_measure_and_end_clean():
    recipe = TrainingConfig(mollify=0.6)
    s, a = 0.6, 0.8
    raw = torch.full((3000, 1, 2, 2), 204, dtype=torch.uint8)  # x = 0.6
    spec = DataSpec(kind="image", shape=(1, 2, 2), levels=2, binarize="threshold")
    seen = Inputs(spec, recipe)(raw, 0.0)
    expected = 0.5 * (1 + math.erf(a * 0.6 / s / math.sqrt(2)))
    assert set(seen.unique().tolist()) == {-1.0, 1.0}
    assert (seen == 1).float().mean().item() == pytest.approx(expected, abs=0.02)
    for binarize, levels in (("none", 256), ("threshold", 2), ("none", None)):
        spec = DataSpec(kind="image", shape=(1, 2, 2), levels=levels, binarize=binarize)
        inputs = Inputs(spec, recipe)
        assert torch.equal(inputs(raw, 0.5), to_space(raw, spec))
        assert not torch.equal(inputs(raw, 0.3), to_space(raw, spec))
    grid = (Inputs(DataSpec(kind="image", shape=(1, 2, 2), levels=256), recipe)(raw, 0.0) + 1) * 127.5
    assert torch.allclose(grid, grid.round(), atol=1e-3)
    assert grid.min() >= 0
    assert grid.max() <= 255


def test_mollification_follows_the_progress_of_the_whole_training(tmp_path, monkeypatch):
    """Not that of a stage: the second stage of an LDM begins where the first one ended."""
    seen = []
    ordinary = Inputs.__call__
    monkeypatch.setattr(Inputs, "__call__", lambda self, raw, at: seen.append(at) or ordinary(self, raw, at))
    assert train(tmp_path / "run", "--training.mollify", 1, model="ldm", steps=20) == 0
    assert seen == pytest.approx([k / 20 for k in range(20)])


class Watched(torch.nn.Module):
    """An encoder that keeps what it was shown."""

    def forward(self, x):
        self.seen = x
        return Normal(x[:, :1].float(), torch.zeros_like(x[:, :1].float()))


def test_noise_is_on_the_encoders_input_alone_and_only_while_it_trains():
    class Target(torch.nn.Module):
        def forward(self, z):
            return SimpleNamespace(nll=lambda x: x.pow(2).sum(1), check=lambda x: None)

    model = Autoencoder(Watched(), Target(), StandardNormal((1,)))
    x = torch.randn(20_000, 3)
    with noisy_input(model, TrainingConfig(input_noise=0.3), DataSpec(kind="vector", shape=(3,))):
        assert torch.equal(model.terms(x)["distortion"], x.pow(2).sum(1)), "the target is the clean x"
        noise = model.encoder.seen - x
        assert noise.std().item() == pytest.approx(0.3, rel=0.02)
        assert abs((noise * x).mean().item()) < 0.01
        model.eval().terms(x)
        assert torch.equal(model.encoder.seen, x)
    model.train().terms(x)
    assert torch.equal(model.encoder.seen, x)


def test_the_encoder_sees_a_share_of_the_values_less_and_only_while_it_trains():
    """Numbers become 0, symbols others, ends stay; the decoder's target is the clean x, and hidden numbers are noisy too."""

    class Target(torch.nn.Module):
        def forward(self, z):
            return SimpleNamespace(nll=lambda x: x.double().pow(2).sum(1), check=lambda x: None)

    model = Autoencoder(Watched(), Target(), StandardNormal((1,)))
    x = torch.full((20_000, 3), 0.5)
    with noisy_input(model, TrainingConfig(corruption=0.2), DataSpec(kind="vector", shape=(3,))):
        assert torch.equal(model.terms(x)["distortion"], x.double().pow(2).sum(1)), "the target is the clean x"
        assert sorted(model.encoder.seen.unique().tolist()) == [0.0, 0.5]
        assert (model.encoder.seen == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
        model.eval().terms(x)
        assert torch.equal(model.encoder.seen, x)
    model.train().terms(x)
    assert torch.equal(model.encoder.seen, x)
    with noisy_input(model, TrainingConfig(corruption=0.2, input_noise=0.1), DataSpec(kind="vector", shape=(3,))):
        model.terms(x)
    assert model.encoder.seen.var().item() == pytest.approx(0.2 * 0.8 * 0.25 + 0.01, rel=0.05)
    x = torch.full((20_000, 3), 2)
    x[:, 2] = 0
    spec = DataSpec(kind="protein", shape=(3,), symbols=("", "A", "C", "D"))
    with noisy_input(model, TrainingConfig(corruption=0.3), spec):
        assert torch.equal(model.terms(x)["distortion"], x.double().pow(2).sum(1))
    assert torch.equal(model.encoder.seen[:, 2], x[:, 2])
    for symbol, share in ((1, 0.1), (2, 0.8), (3, 0.1)):
        assert (model.encoder.seen[:, :2] == symbol).float().mean().item() == pytest.approx(share, abs=0.01)


def test_dropout_is_in_the_hidden_layers_and_off_in_evaluation():
    layers = mlp([4, 1000, 1], dropout=0.25)
    hidden = layers[1](torch.ones(2000))
    assert (hidden == 0).float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert torch.equal(layers.eval()[1](torch.ones(9)), torch.nn.functional.silu(torch.ones(9)))
    makers = [
        (lambda p: MLPEncoder((1, 8, 8), 3, width=8, depth=2, dropout=p), (2, 1, 8, 8)),
        (lambda p: MLPDecoder(3, (1, 8, 8), width=8, depth=2, dropout=p), (2, 3)),
        (lambda p: ConvEncoder((1, 8, 8), 3, channels=8, dropout=p), (2, 1, 8, 8)),
        (lambda p: ConvDecoder(3, (1, 8, 8), channels=8, dropout=p), (2, 3)),
    ]
    for make, shape in makers:
        plain, dropping = make(0.0), make(0.5)
        for module in dropping.modules():  # the last convolution of a block starts at zero, which would hide everything
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.normal_(module.weight)
        plain.load_state_dict(dropping.state_dict())
        x = torch.randn(shape)
        assert torch.equal(plain(x), dropping.eval()(x))
        assert not torch.equal(plain(x), dropping.train()(x))
        assert not any(isinstance(module, torch.nn.Dropout) for module in plain.modules())


# Reverse half asleep


class LinearDecoder(torch.nn.Module):
    """p(x | z) = N(W z, s^2)."""

    def __init__(self, w, std):
        super().__init__()
        self.w, self.std = torch.nn.Parameter(w), std

    def forward(self, z):
        mean = z @ self.w.T
        return Normal(mean, torch.full_like(mean, 2 * math.log(self.std)))


class LinearEncoder(torch.nn.Module):
    """The exact posterior of the linear decoder, or one that is off by `error`."""

    def __init__(self, w, std, error=0.0):
        super().__init__()
        precision = torch.eye(w.shape[1]) + w.T @ w / std**2
        self.gain = torch.nn.Parameter(torch.linalg.inv(precision) @ w.T / std**2)
        self.log_var, self.error = -precision.diagonal().log(), error

    def forward(self, x):
        mean = x @ self.gain.T + self.error
        return Normal(mean, self.log_var.expand_as(mean))


def linear(error=0.0):
    w = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    return w, 0.5, Autoencoder(LinearEncoder(w, 0.5, error), LinearDecoder(w, 0.5), StandardNormal((2,)))


def test_asleep_the_loss_is_the_models_own_entropy_whatever_it_is_shown():
    """With the exact posterior the bound is -log p(x), whose mean over the model's samples is the entropy of p."""
    w, std, model = linear()
    x = torch.full((40_000, 3), 50.0)
    covariance = w @ w.T + std**2 * torch.eye(3)
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * covariance).item()
    assert_mean(total(HalfAsleep(model).terms(x)), entropy)
    assert torch.equal(total(HalfAsleep(model).terms(x[:5], exact=True)) > 1000, torch.ones(5, dtype=torch.bool))


def test_asleep_a_wrong_encoder_costs_its_divergence_from_the_posterior():
    w, std, model = linear(error=0.1)
    asleep = HalfAsleep(model)
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * (w @ w.T + std**2 * torch.eye(3))).item()
    divergence = 0.5 * 0.1**2 * (torch.exp(-model.encoder.log_var).sum().item())
    terms = total(asleep.terms(torch.zeros(60_000, 3)))
    assert_mean(terms, entropy + divergence)
    terms.mean().backward()
    assert model.encoder.gain.grad is not None


def asleep_gradients(name, bound, precision=torch.float32, **values):
    """Of the encoder of an untrained model of the digits: asleep, or of its terms of the same samples."""
    data = open_data("digits")
    model = build(name, model_config(name, small(name) | values), data.spec).model
    x = to_space(torch.from_numpy(data.train.values[:2]), data.spec)
    arrange(model, [Stage("a", model)], x, TrainingConfig(half_asleep=0.5))
    with seeded(3), torch.autocast("cpu", precision, enabled=precision != torch.float32):
        if bound is None:
            terms = HalfAsleep(model).terms(x.repeat(8, 1, 1, 1), progress=0.1)
        else:
            with torch.no_grad():
                drawn = model.sample(16)
            terms = model.terms(drawn, exact=bound)
        total(terms).mean().backward()
    return [p.grad for p in model.encoder.parameters()]


@pytest.mark.parametrize(
    ("name", "values", "weighted"),
    [
        ("vae", {}, False), ("vae", {"importance": 5, "rate_warmup": 0.0}, False),
        ("vae", {"posterior": "flow"}, False), ("beta_vae", {"beta": 0.2}, True),
        ("beta_vae", {"beta": 1.0, "free_bits": 3.0}, True), ("diled", {"rate_weight": 0.3}, True),
        ("lsgm", {}, True), ("hierarchical_vae", {}, False), ("diled_levels", {}, True),
        ("diled_diffusion_decoder", {}, True),
    ],
)  # fmt: skip
def test_asleep_the_bound_is_trained_whatever_the_weights(name, values, weighted):
    """Where nothing is weighted it is bitwise what it was before: the terms at the end of the warm-up."""
    asleep, exact, trained = (asleep_gradients(name, bound, **values) for bound in (None, True, False))
    assert all(torch.equal(a, b) for a, b in zip(asleep, exact, strict=True))
    assert any(bool(a.abs().sum() > 0) for a in asleep)
    assert all(torch.equal(a, b) for a, b in zip(asleep, trained, strict=True)) != weighted


def test_asleep_samples_in_half_precision_have_a_bound():
    assert all(bool(g.isfinite().all()) for g in asleep_gradients("vae", None, torch.bfloat16))


def test_the_last_stage_trains_the_encoder_alone(tmp_path):
    """Up to there it is the run of half the length; and then decoder and prior stay as they are."""
    options = ["--training.keep", "last"]
    assert train(tmp_path / "half", *options, model="diled", steps=20) == 0
    assert train(tmp_path / "run", *options, "--training.half_asleep", 0.5, model="diled", steps=40) == 0
    half, run = weights(tmp_path / "half"), weights(tmp_path / "run")
    stages = [line["stage"] for line in log(tmp_path / "run") if "loss" in line]
    assert stages == ["joint"] * 2 + ["half asleep"] * 2
    for key, value in run.items():
        assert (value == half[key]) == (not key.startswith("encoder.")), key


def test_shares_of_the_stages():
    model = linear()[2]
    stages = [Stage("a", model, 0.6), Stage("b", model, 0.2), Stage("c", model, 0.0)]
    arranged = arrange(model, stages, torch.zeros(2, 3), TrainingConfig(half_asleep=0.25))
    assert [stage.name for stage in arranged] == ["a", "b", "c", "half asleep"]
    assert arranged[-1].share / sum(stage.share for stage in arranged) == pytest.approx(0.25)
    assert arranged[-1].frozen == (model.decoder, model.prior)
    assert model.training
    assert arrange(model, stages, torch.zeros(2, 3), TrainingConfig()) == stages


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("ae", ["--training.half_asleep", 0.5], "trains the encoder on the bound, and this model has none"),
        ("ddpm", ["--training.half_asleep", 0.5], "needs an encoder, a decoder and a prior"),
        ("ppca", ["--training.half_asleep", 0.5], "nothing of this model is trained step by step"),
        ("ppca", ["--training.augment", "naive"], "training.augment has no effect"),
        ("edm", ["--training.input_noise", 0.5], "this model has no encoder that trains"),
        ("edm", ["--training.corruption", 0.5], "training.corruption has no effect: this model has no encoder"),
        ("ppca", ["--training.corruption", 0.5], "training.corruption has no effect: nothing of this model"),
        ("ae", ["--training.keep", "best"], "stage 'autoencoder' has none"),
        ("consistency", ["--training.keep", "best"], "stage 'consistency' has none"),
    ],
)  # fmt: skip
def test_models_that_cannot_are_refused(model, options, words, tmp_path, capsys):
    assert train_any(tmp_path / "run", model, *options) == 2
    said = capsys.readouterr().err
    assert words in said, said
    assert not (tmp_path / "run").exists()


def test_a_frozen_encoder_learns_nothing_asleep():
    model = linear()[2]
    stages = [Stage("a", model, frozen=(model.encoder,))]
    for option in ({"half_asleep": 0.5}, {"input_noise": 0.1}, {"corruption": 0.1}):
        with pytest.raises(ConfigError, match="encoder"):
            arrange(model, stages, torch.zeros(2, 3), TrainingConfig(**option))


# The best look


class Counted(Density):
    """Its bound is the mean of x plus noise; it counts what it was asked."""

    def __init__(self):
        super().__init__()
        self.weight, self.asked = torch.nn.Parameter(torch.zeros(1)), 0

    def terms(self, q, *, exact=False, progress=1.0):
        assert exact
        self.asked += 0 if torch.is_grad_enabled() else len(q)  # with gradients its memory is looked at
        return {"nll": q.mean(1) + self.weight + torch.randn(len(q))}


def test_a_look_draws_every_example_equally_often():
    raw, density = torch.rand(700, 3) * 2 - 1, Counted()
    state = torch.get_rng_state()
    bound = held_out_bound(density, raw, VECTOR, seed=3)
    assert density.asked == 8 * 700
    assert bound == pytest.approx(raw.mean().item(), abs=5 / math.sqrt(density.asked))
    assert held_out_bound(density, raw, VECTOR, seed=3) == bound, "all looks share their noise"
    assert held_out_bound(density, raw, VECTOR, seed=4) != bound
    density.weight.data += 1e-3
    assert held_out_bound(density, raw, VECTOR, seed=3) - bound == pytest.approx(1e-3, abs=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    density.asked = 0
    held_out_bound(density, torch.zeros(best.DRAWS + 100, 3), VECTOR, seed=0)
    assert density.asked == best.DRAWS


def test_the_lowest_look_is_kept_and_the_first_of_equal_ones():
    layer, chosen = torch.nn.Linear(1, 1), Best()
    chosen.restore(layer)
    for step, (bound, weight) in enumerate([(3.0, 0.0), (1.0, 1.0), (1.0, 2.0), (math.nan, 3.0), (2.0, 4.0)]):
        torch.nn.init.constant_(layer.weight, weight)
        chosen.look(step, bound, layer)
    assert chosen.record() == {"step": 1, "bound": 1.0}
    chosen.restore(layer)
    assert layer.weight.item() == 1


EARLY = ["--training.keep", "best", "--training.schedule", "constant", "--training.warmup_steps", 0]
EARLY += ["--model.rate_warmup", 0, "--training.learning_rate", 0.02, "--preprocess.limit", 10]
EARLY += ["--training.ema", 0.9, "--model.network.width", 64]


def test_a_run_ends_on_its_best_look(tmp_path):
    """The weights are those of a run that stops there."""
    run = tmp_path / "run"
    assert train(run, *EARLY, model="vae", steps=80) == 0
    looks = {line["step"]: line["validation"]["bound"] for line in log(run) if "validation" in line}
    step = min(looks, key=looks.get)
    assert step < 80, "otherwise this tests nothing"
    kept = {"step": step, "bound": looks[step]}
    assert log(run)[-1] == {"stage": "joint", "step": 80, "kept": kept}
    assert json.loads((run / "provenance.json").read_text())["kept"] == {"joint": kept}
    assert train(tmp_path / "short", *EARLY, "--training.keep", "last", model="vae", steps=step) == 0
    assert weights(run) == weights(tmp_path / "short")
    assert "kept" not in json.loads((tmp_path / "short" / "provenance.json").read_text())


# Resuming


def resumes(tmp_path, monkeypatch, options, stage=0, step=13, model="vae", steps=40):
    """Killed and resumed, a run ends on the same bytes as one that nothing interrupted."""
    assert train(tmp_path / "whole", *options, model=model, steps=steps) == 0
    with monkeypatch.context() as patch:
        at_step(patch, step, kill(signal.SIGTERM), stage)
        assert train(tmp_path / "run", *options, model=model, steps=steps) == 130
    assert diled("train", "--resume", tmp_path / "run", "--report", "false") == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert log(tmp_path / "run") == log(tmp_path / "whole")


def test_a_mixture_with_every_kind_of_noise_resumes(tmp_path, monkeypatch, pool):
    options = ["--pool.source", "pool", "--pool.real", 0.3, "--training.augment", "naive", "--training.mollify", 0.5]
    options += ["--training.input_noise", 0.1, "--model.network.dropout", 0.1, "--training.schedule", "constant"]
    resumes(tmp_path, monkeypatch, options)
    config = read_run(tmp_path / "run")
    assert (config.pool.real, config.training.mollify, config.model.network.dropout) == (0.3, 0.5, 0.1)


def test_another_set_in_the_same_place_is_no_way_to_go_on(tmp_path, monkeypatch, capsys):
    """A run of before, that does not say which set it was begun with, goes on."""
    run, values = tmp_path / "run", open_data("digits").train.values

    def indexed(first: int) -> str:
        (tmp_path / "pool").mkdir(exist_ok=True)
        np.save(tmp_path / "pool" / "a.npy", values[first : first + 100])
        synthesize(tmp_path / "pool", data="digits", probe=False)
        return set_hash(tmp_path / "pool")

    first = indexed(0)
    options = ["--pool.source", tmp_path / "pool"]
    with monkeypatch.context() as patch:
        at_step(patch, 3, kill(signal.SIGTERM))
        assert train(run, *options, model="vae", steps=10) == 130
    assert json.loads((run / "pool.json").read_text()) == {"sha256": first}
    second = indexed(1)
    assert diled("train", "--resume", run, "--report", "false") == 2
    assert "is another synthetic set than the one that the run in" in capsys.readouterr().err
    assert indexed(0) == first != second
    shutil.copytree(run, tmp_path / "old")
    assert diled("train", "--resume", run, "--report", "false") == 0
    indexed(1)
    (tmp_path / "old" / "pool.json").unlink()
    assert diled("train", "--resume", tmp_path / "old", "--report", "false") == 0
    kept = [json.loads((folder / "provenance.json").read_text())["pool_sha256"] for folder in (run, tmp_path / "old")]
    assert kept == [first, second]


def test_the_best_look_survives(tmp_path, monkeypatch):
    resumes(tmp_path / "a", monkeypatch, EARLY, step=71, steps=80)
    asleep = [*EARLY, "--training.half_asleep", 0.5, "--training.learning_rate", 0.01]
    resumes(tmp_path / "b", monkeypatch, asleep, stage=1, step=13, steps=40)
    record = json.loads((tmp_path / "b" / "run" / "provenance.json").read_text())
    assert list(record["kept"]) == ["joint", "half asleep"]


@pytest.mark.parametrize("stage", [0, 1])
def test_a_run_that_started_from_another_resumes_without_it(stage, tmp_path, monkeypatch):
    """The first stage of an LDM has no prior, whose weights came from the other run too."""
    assert train(tmp_path / "source", model="ldm", steps=10) == 0
    options = ["--init-from", tmp_path / "source", "--training.ema", 0]
    assert train(tmp_path / "whole", *options, model="ldm", steps=20) == 0
    with monkeypatch.context() as patch:
        at_step(patch, 3, kill(signal.SIGTERM), stage)
        assert train(tmp_path / "run", *options, model="ldm", steps=20) == 130
    shutil.rmtree(tmp_path / "source")
    assert diled("train", "--resume", tmp_path / "run", "--report", "false") == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_frozen_parts_of_another_run_stay_when_it_is_gone(tmp_path, monkeypatch):
    assert train(tmp_path / "source", model="vae", steps=10) == 0
    options = ["--init-from", tmp_path / "source", "--freeze", "encoder"]
    with monkeypatch.context() as patch:
        at_step(patch, 3, kill(signal.SIGTERM))
        assert train(tmp_path / "run", *options, model="vae", steps=10) == 130
    encoder = {k: v for k, v in weights(tmp_path / "source").items() if k.startswith("encoder.")}
    shutil.rmtree(tmp_path / "source")
    assert diled("train", "--resume", tmp_path / "run", "--report", "false") == 0
    assert encoder.items() <= weights(tmp_path / "run").items()


# Before the training


def test_a_dry_run_and_a_budget_know_of_all_of_it(pool, capsys):
    values = {"pool.source": "pool", "training.augment": "tuned", "training.half_asleep": 0.5, "training.steps": 10}
    config = resolve("digits", "vae", None, values | {"model.network.width": 16}, device="cpu")
    said = []
    session = Session(config, out="unused", say=said.append)
    assert [stage.name for stage in session.stages] == ["joint", "half asleep"]
    assert session.estimate()["memory_bytes"]["data"] == pool.values.nbytes
    assert "3,000 synthetic examples of pool for 1,293 real ones." in said
    assert any("3,000 examples" in line for line in said)
