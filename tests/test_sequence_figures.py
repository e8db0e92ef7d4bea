"""Figures of models of sequences: by hand, against brute force, at known limits; the attack against exhaustive search."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from potts_data import LETTERS, PottsData
from tiny import diled, small
from torch import Tensor, nn

from diled.api import NoBound
from diled.data.proteins import protein_spec
from diled.data.splits import Data, Split
from diled.distributions import Dirac, Normal
from diled.draws import seeded
from diled.errors import ConfigError, DataError
from diled.evaluation import sequence_distances
from diled.evaluation.attack import skl
from diled.evaluation.audit_sequences import label_smoothness
from diled.evaluation.measure import bounds_of_examples, measure
from diled.evaluation.sequence_attack import agreement, code_jacobian, substitution_attack, substitution_gaps
from diled.evaluation.sequence_distances import edit_distances, lengths_of, nearest_rows, pairwise_mean
from diled.evaluation.sequences import (
    classification,
    coupling_error,
    drawn_alike,
    fit_oracle,
    generation,
    position_error,
    prediction_errors,
    reconstruction_accuracy,
    regression,
    residues_of,
    ridge_predictions,
    shift,
    valid,
)
from diled.latent.predict import Ensemble
from diled.model import Model
from diled.models.autoencoder import Autoencoder
from diled.models.exact_sequences import Profile
from diled.models.priors import StandardNormal
from diled.models.properties import PropertyHead
from diled.nn.sequence import one_hot
from diled.reporting import fitting
from diled.sequences import TokenSequence

TRUTH = PottsData(length=4, symbols=4, seed=1, strength=0.4)
LONG = PottsData(length=6, symbols=4, seed=1, strength=0.3)
"""With enough sequences for some to be new."""
SPEC = protein_spec(4, symbols=("", *LETTERS[:3])).model_copy(update={"labels": {"y": []}})
NAN = float("nan")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ensembles that are trained for a moment."""
    defaults = dict(Ensemble.fit.__kwdefaults__ or {})
    monkeypatch.setattr(Ensemble.fit, "__kwdefaults__", defaults | {"steps": 80, "batch": 64, "rate": 1e-2})


def two_letters(p: float, n: int, seed: int) -> np.ndarray:
    """n rows of one position: symbol 1 with probability p, else 2."""
    return np.where(np.random.default_rng(seed).random((n, 1)) < p, 1, 2).astype(np.uint8)


def potts(sizes: tuple[int, int, int] = (300, 30, 300), truth: PottsData = TRUTH) -> Data:
    """Draws of a Potts model; the property is log p."""
    parts = []
    for i, n in enumerate(sizes):
        rows = truth.draw(n, seed=i).numpy()
        parts.append(Split(rows.astype(np.uint8), {"y": -truth.energy(rows).astype(np.float32)}, [""] * n))
    return Data("potts", SPEC.model_copy(update={"shape": (truth.length,)}), *parts, [])


# Distances ------------------------------------------------------------------------------------------------------------


def levenshtein(a: str, b: str) -> int:
    """The plain recursion, as a table."""
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    table[:, 0], table[0] = range(len(a) + 1), range(len(b) + 1)
    for i, j in itertools.product(range(1, len(a) + 1), range(1, len(b) + 1)):
        change = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
        table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, change)
    return int(table[-1, -1])


def random_rows(n: int, most: int, symbols: int = 4, seed: int = 0, least: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    size = rng.integers(least, most + 1, n)
    return (rng.integers(1, symbols, (n, most)) * (np.arange(most) < size[:, None])).astype(np.uint8)


def as_text(row: np.ndarray) -> str:
    return "".join(map(chr, row[row > 0] + 64))


def test_edits_against_a_plain_table():
    rows = random_rows(40, 7)
    for query in rows[:8]:
        want = [levenshtein(as_text(query), as_text(row)) for row in rows]
        assert edit_distances(query, rows).tolist() == want
    assert lengths_of(rows).tolist() == [len(as_text(row)) for row in rows]
    pairs = [levenshtein(as_text(a), as_text(b)) for a, b in itertools.combinations(rows[:6], 2)]
    assert pairwise_mean(rows[:6]) == pytest.approx(np.mean(pairs))
    assert np.isnan(pairwise_mean(rows[:1]))


@pytest.mark.parametrize(("most", "least", "n"), [(6, 0, 60), (9, 4, 8), (6, 6, 60), (80, 70, 30)])
def test_the_nearest_against_brute_force(most: int, least: int, n: int, monkeypatch: pytest.MonkeyPatch):
    """Of one length by substitutions, else by edits; long rows too, as long as all candidates are aligned."""
    references, queries = random_rows(n, most, seed=1, least=least), random_rows(8, most, seed=2, least=least)
    monkeypatch.setattr(sequence_distances, "CHUNK", 7)
    distance, which = nearest_rows(queries, references)
    for i, query in enumerate(queries):
        if least == most:
            every = (references != query).sum(1)
        else:
            every = np.array([levenshtein(as_text(query), as_text(row)) for row in references])
        assert distance[i] == every.min() == every[which[i]]
    assert nearest_rows(queries[:0], references)[0].shape == (0,)


def test_of_many_long_rows_the_relative_is_found(monkeypatch: pytest.MonkeyPatch):
    """Only those with most 3-mers in common are aligned: a shifted copy among strangers is."""
    monkeypatch.setattr(sequence_distances, "CANDIDATES", 3)
    references = random_rows(60, 80, symbols=20, least=74)
    query = np.zeros(80, np.uint8)
    kin = references[17][references[17] > 0]
    query[: len(kin) - 1] = np.delete(kin, 3)
    query[40] = query[40] % 19 + 1
    aligned: list[int] = []
    real = sequence_distances.edit_distances
    monkeypatch.setattr(sequence_distances, "edit_distances", lambda q, r: aligned.append(len(r)) or real(q, r))
    distance, which = nearest_rows(query[None], references)
    assert which[0] == 17
    assert distance[0] == levenshtein(as_text(query), as_text(references[17])) <= 2
    assert sum(aligned) <= 3


# Frequencies and what is drawn ----------------------------------------------------------------------------------------


def brute_frequencies(rows: np.ndarray, v: int) -> tuple[np.ndarray, np.ndarray]:
    length = rows.shape[1]
    f = np.array([[(rows[:, i] == a).mean() for a in range(v)] for i in range(length)])
    pairs = [
        ((rows[:, i] == a) & (rows[:, j] == b)).mean() - f[i, a] * f[j, b]
        for i, j in itertools.combinations(range(length), 2)
        for a in range(v)
        for b in range(v)
    ]
    return f, np.array(pairs)


def test_errors_of_frequencies_against_brute_force():
    a, b = TRUTH.draw(80, seed=1).numpy(), random_rows(70, 4, least=4)
    (f, c), (g, d) = brute_frequencies(a, 4), brute_frequencies(b, 4)
    assert position_error(a, b, SPEC) == pytest.approx(np.abs(f - g).sum() / 4)
    assert coupling_error(a, b, SPEC) == pytest.approx(1 - np.corrcoef(c, d)[0, 1], abs=1e-5)
    assert position_error(a, a[::-1], SPEC) == 0
    assert coupling_error(a, a[::-1], SPEC) == pytest.approx(0, abs=1e-6)
    one = np.ones((5, 4), int)
    assert position_error(one, one + 1, SPEC) == 2, "nothing in common"
    assert coupling_error(one, a, SPEC) == 1, "no pair varies"


def test_valid_unique_novel_and_their_floor_by_hand():
    train = np.array([[1, 2, 0, 0], [2, 1, 1, 0], [1, 1, 1, 0]], np.uint8)
    data = Data(
        "few", SPEC.model_copy(update={"labels": {}}), *(Split(train, {}, ["a", "b", "c"]) for _ in range(3)), []
    )
    drawn = np.array([[1, 2, 0, 0], [1, 2, 0, 0], [2, 2, 0, 0], [3, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.uint8)
    assert valid(drawn, data).tolist() == [True, True, True, False, False, False], "a new symbol, too short, too long"
    found = generation(drawn, data)
    assert found["valid"].value == 0.5
    assert found["valid/floor"].value == 1
    assert found["unique"].value == pytest.approx(5 / 6)
    assert found["unique/floor"].value == 1
    assert found["novel"].value == pytest.approx(4 / 6)
    nearest = [min(levenshtein(as_text(row), as_text(other)) for other in train) for row in drawn]
    assert found["nearest_training"].value == pytest.approx(np.mean(nearest))
    assert found["nearest_training/floor"].value == 0
    assert found["diversity"].value == pytest.approx(pairwise_mean(drawn))
    assert found["frechet_samples"].value is None
    assert found["frechet_samples"].note.endswith("learns a measured property, and the data have none")
    assert "frechet_floor" not in found
    labelled = replace(data, spec=SPEC, test=replace(data.test, labels={"y": np.zeros(3, np.float32)}))
    assert generation(drawn, labelled)["frechet_samples"].note.endswith("needs 200 test sequences, and there are 3")


def test_draws_of_the_truth_are_as_good_as_the_floor():
    """Equal halves of one distribution: figures and floors differ by chance alone; of another distribution they do not."""
    data = potts((400, 30, 400), LONG)
    real, wrong = LONG.draw(400, seed=77).numpy().astype(np.uint8), random_rows(400, 6, least=6)
    good, bad = generation(real, data), generation(wrong, data)
    for name in ("position_error", "coupling_error"):
        assert good[name].value < 1.6 * good[f"{name}/floor"].value < bad[name].value
    assert good["frechet_samples"].value < 4 * good["frechet_floor"].value < bad["frechet_samples"].value
    assert good["frechet_floor"].value == bad["frechet_floor"].value


# Oracle and regression ------------------------------------------------------------------------------------------------


def test_the_oracle_sees_neither_training_sequences_nor_what_it_is_scored_on(monkeypatch: pytest.MonkeyPatch):
    data = potts((60, 30, 600), LONG)
    data.test.labels["y"][:5] = NAN
    seen: list[Tensor] = []
    fit = Ensemble.fit

    def spied(self: Ensemble, x: Tensor, y: Tensor, held: Any, **options: Any) -> Ensemble:
        seen.extend([x, held[0]])
        return fit(self, x, y, held, steps=200, rate=1e-2, batch=64, **options)

    monkeypatch.setattr(Ensemble, "fit", spied)
    oracle = fit_oracle(data, "y", members=2, width=16)

    def rows(values: np.ndarray) -> set[bytes]:
        return {row.tobytes() for row in values.astype(np.uint8)}

    train, test = rows(data.train.values), rows(data.test.values[5:])
    learned, chosen = (rows(x.unflatten(1, (6, 4)).argmax(2).numpy()) for x in seen)
    assert not train & (learned | chosen)
    assert not learned & chosen
    assert learned | chosen < test - train
    assert len(seen[0]) == len(learned), "each sequence once"
    assert len(learned) + len(chosen) + oracle.accuracy["n"] == len(test - train)
    y = -LONG.energy(data.test.values)
    assert np.corrcoef(oracle(data.test.values), y)[0, 1] > 0.8
    assert oracle.features(data.test.values[:7]).shape == (7, 16)
    with pytest.raises(DataError, match="too few to learn it"):
        fit_oracle(potts((60, 30, 8)), "y")


def test_errors_of_predictions_against_scipy_and_sklearn():
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    rng = np.random.default_rng(0)
    y = np.round(rng.standard_normal(80), 1)
    said = y + rng.standard_normal(80)
    found = prediction_errors(said, y, 0, "note")
    want = {
        "mse": mean_squared_error(y, said), "mae": mean_absolute_error(y, said),
        "pearson": pearsonr(said, y).statistic, "spearman": spearmanr(said, y).statistic,
    }  # fmt: skip
    assert {name: m.value for name, m in found.items()} == pytest.approx(want)
    assert found["mse"].stderr == pytest.approx(((said - y) ** 2).std(ddof=1) / np.sqrt(80))
    r = want["pearson"]
    assert found["pearson"].stderr == pytest.approx((1 - r**2) / np.sqrt(79), rel=0.25)
    assert prediction_errors(np.ones(80), y, 0, "")["spearman"].value == 0


def test_ridge_regression_finds_a_linear_law():
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((90, 3)), np.array([1.0, -2.0, 0.5])
    y = 4 + x @ w
    y[::9] = NAN
    assert ridge_predictions(x[:60], y[:60], x[60:]) == pytest.approx(4 + x[60:] @ w, abs=0.01)


def hand_model(spread: float = 0.1) -> Any:
    """An autoencoder whose code is the one-hot row, with a head that is wrong by a constant."""

    class Encoder(nn.Module):
        def forward(self, x: Tensor) -> Normal:
            mean = one_hot(x, 4).flatten(1)
            return Normal(mean, torch.full_like(mean, 2 * np.log(spread)))

    class Decoder(nn.Module):
        def forward(self, z: Tensor) -> TokenSequence:
            return TokenSequence(9 * z.unflatten(1, (4, 4)))

    head = PropertyHead(16, {"y": 0}, width=4)
    for p in head.parameters():
        p.data.zero_()
    head.mean.fill_(3.0)
    return Autoencoder(Encoder(), Decoder(), StandardNormal((16,)), extras=(head,))


def test_regression_of_a_model_whose_codes_say_everything():
    data = potts((300, 30, 200))
    data.test.labels["y"][:20] = NAN
    model, y = hand_model(), data.test.labels["y"][20:].astype(np.float64)
    found = regression(model, data, data.test, "y")
    assert found["mse/y"].value == pytest.approx(((3.0 - y) ** 2).mean(), rel=1e-5), "the head says 3"
    assert found["spearman/y/probe"].value > 0.7
    assert found["mse/y/probe"].value < 0.6 * y.var()
    assert found["mse/y"].n == 180
    few = Split(data.test.values[:25], {"y": data.test.labels["y"][:25]}, [""] * 25)
    said = regression(model, data, few, "y")
    assert [m.value for m in said.values()] == [None], "of fewer than ten values nothing is said, but why"
    assert "only 5 test sequences have a value" in said["zero_shot_spearman/y"].note
    data.train.labels["y"][9:] = NAN
    found = regression(model, data, data.test, "y")
    assert found["spearman/y/probe"].value is None, "nine values teach a probe nothing"
    assert "only 9 training sequences" in found["spearman/y/probe"].note
    assert found["mse/y"].n == found["zero_shot_spearman/y"].n == 180
    assert "head learned 'y'" in found["zero_shot_spearman/y"].note, "so that was not zero shots"
    plain = Autoencoder(model.encoder, model.decoder, model.prior)
    assert "learned" not in regression(plain, data, data.test, "y")["zero_shot_spearman/y"].note


def test_classes_are_read_from_codes():
    """A head that names the first symbol is right as often as it is the label; a probe of one-hot codes finds that out."""
    data, model = potts((300, 30, 200)), hand_model()
    for split in (data.train, data.test):
        split.labels["first"] = split.values[:, 0].astype(np.int64) - 1
        split.labels["first"][::5] = -1
    symbols = len(data.spec.symbols) - 1
    head = PropertyHead(16, {"first": symbols}, width=4)
    for p in head.parameters():
        p.data.zero_()
    head.networks[0][-1].bias.data[0] = 1.0
    model = Autoencoder(model.encoder, model.decoder, model.prior, extras=(head,))
    found = classification(model, data, data.test, "first")
    y = data.test.labels["first"]
    assert found["accuracy/first"].value == pytest.approx((y[y >= 0] == 0).mean())
    assert found["accuracy/first/probe"].value == 1
    assert found["accuracy/first"].n == (y >= 0).sum() == 160
    data.train.labels["first"][data.train.labels["first"] == 1] = -1
    few = classification(model, data, data.test, "first")
    assert few["accuracy/first/probe"].n == ((y >= 0) & (y != 1)).sum(), (
        "a class without training examples has no answer"
    )
    data.train.labels["first"][:] = 0
    assert classification(model, data, data.test, "first") == {}


def test_what_draws_nothing_is_evaluated_once(monkeypatch):
    data, calls = potts((50, 10, 40)), []
    profile = Profile(data.spec.numel, len(data.spec.symbols))
    monkeypatch.setattr(
        profile, "terms", lambda *args, **options: calls.append(1) or Profile.terms(profile, *args, **options)
    )
    x = torch.from_numpy(data.test.values).long()
    assert torch.allclose(profile.paired_bound(x), profile.bound(x))
    bounds_of_examples(profile, data.test, data.spec, repeats=64)
    assert len(calls) == 3


def test_a_model_that_is_the_truth_ranks_by_it():
    """Minus the bound of the true Potts model is log p + const; where Z cannot be counted its energy says the same."""
    data, model = potts(), TRUTH.model()
    exact = regression(model, data, data.test, "y")["zero_shot_spearman/y"]
    assert exact.value == pytest.approx(1, abs=1e-6)
    type(model).countable, before = property(lambda self: False), type(model).countable  # type: ignore[method-assign]
    try:
        with pytest.raises(NoBound):
            model.terms(torch.from_numpy(data.test.values).long(), exact=True)
        assert regression(model, data, data.test, "y")["zero_shot_spearman/y"].value == pytest.approx(1, abs=1e-6)
    finally:
        type(model).countable = before  # type: ignore[method-assign]


def test_accuracy_of_reconstructions_by_hand():
    x = torch.tensor([[1, 2, 3, 0], [1, 1, 0, 0], [2, 2, 2, 2]])
    shown = torch.tensor([[1, 3, 3, 0], [1, 1, 1, 0], [2, 2, 2, 2]])
    found = reconstruction_accuracy(x, shown)
    assert found["residue_accuracy"].value == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found["sequence_accuracy"].value == pytest.approx(1 / 3), "one has a symbol too many"


def test_smoothness_of_labels_at_its_limits():
    rng = np.random.default_rng(0)
    codes = np.repeat(10.0 * rng.standard_normal((40, 2)), 6, axis=0) + 1e-3 * rng.standard_normal((240, 2))
    y = np.repeat(rng.standard_normal(40), 6)
    assert label_smoothness(codes, y).value == pytest.approx(1, abs=1e-6)
    assert label_smoothness(codes, rng.standard_normal(240)).value == pytest.approx(0, abs=0.12)
    twins, apart = np.repeat(codes[:100], 2, axis=0), np.repeat(rng.standard_normal(100), 2) * np.tile([1, -1], 100)
    assert label_smoothness(twins, apart, 1).value == pytest.approx(-1), "no code is its own neighbour"
    assert label_smoothness(codes * [1, 1e-4], y).value == pytest.approx(1, abs=1e-6), "each dimension counts alike"


# The attack -----------------------------------------------------------------------------------------------------------


class Bent(nn.Module):
    """A code that is no linear function of the sequence."""

    def __init__(self, gaussian: bool = True) -> None:
        super().__init__()
        with seeded(5):
            self.a, self.b, self.spread = torch.randn(16, 6), torch.randn(6, 3), 0.3 * torch.randn(16, 3)
        self.gaussian = gaussian

    def forward(self, x: Tensor) -> Any:
        flat = one_hot(x, 4).flatten(1)
        mean = torch.tanh(flat @ self.a) @ self.b
        return Normal(mean, -1 + flat @ self.spread) if self.gaussian else Dirac(mean)


ROWS = torch.tensor([[1, 2, 3, 1], [3, 3, 0, 0], [2, 0, 0, 0]])


def test_the_jacobian_against_differences():
    encoder, step = Bent(), 1e-2
    mean, jacobian = code_jacobian(encoder, ROWS, 4)
    torch.testing.assert_close(mean, encoder(ROWS).mean)
    p = one_hot(ROWS, 4)
    for i, a in itertools.product(range(4), range(4)):
        bump = torch.zeros_like(p)
        bump[:, i, a] = step
        slope = (encoder(p + bump).mean - encoder(p - bump).mean) / (2 * step)
        torch.testing.assert_close(jacobian[:, i, a], slope, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("gaussian", [True, False])
def test_one_substitution_is_the_best_of_all(gaussian: bool):
    encoder = Bent(gaussian)
    found = substitution_attack(encoder, ROWS, 1, [1, 2, 3], symbols=4, candidates=16)[1]
    for i, row in enumerate(ROWS.tolist()):
        size = sum(a > 0 for a in row)
        every = torch.tensor([[*row[:j], a, *row[j + 1 :]] for j in range(size) for a in (1, 2, 3) if a != row[j]])
        origin, moved = encoder(ROWS[i : i + 1]), encoder(every)
        reached = skl(origin, moved) if gaussian else ((moved.mean - origin.mean) ** 2).sum(1)
        assert found[i].tolist() == every[reached.argmax()].tolist()


def test_candidates_are_those_that_the_gradient_prefers():
    """Of a linear code the prediction is exact: one candidate is enough. Only residues that may come in do."""

    class Linear(Bent):
        def forward(self, x: Tensor) -> Normal:
            mean = one_hot(x, 4).flatten(1) @ self.spread
            return Normal(mean, torch.tensor([-1.0, 0.5, 2.0]).expand_as(mean))

    encoder = Linear()
    one, all_ = (substitution_attack(encoder, ROWS, 2, [1, 2, 3], symbols=4, candidates=k) for k in (1, 16))
    for first, second in zip(one, all_, strict=True):
        assert torch.equal(first, second)
    assert [(found != ROWS).sum(1).tolist() for found in all_] == [[0, 0, 0], [1, 1, 1], [2, 2, 1]], (
        "of one residue, once"
    )
    only = substitution_attack(encoder, ROWS, 4, [2], symbols=4)[-1]
    assert only.tolist() == [[2, 2, 2, 2], [2, 2, 0, 0], [2, 0, 0, 0]]
    with pytest.raises(ConfigError, match="substitutions = -1"):
        substitution_attack(encoder, ROWS, -1, [2], symbols=4)


def test_agreement_by_hand():
    x = torch.tensor([[1, 2, 3, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    y = torch.tensor([[1, 3, 3, 0], [1, 2, 3, 0], [0, 0, 0, 0]])
    assert agreement(x, y).tolist() == pytest.approx([2 / 3, 1 / 3, 1.0])


def test_the_gap_is_nothing_without_substitutions_and_the_divergence_grows():
    class Decoder(nn.Module):
        def forward(self, z: Tensor) -> TokenSequence:
            with seeded(6):
                return TokenSequence((z @ torch.randn(3, 16)).unflatten(1, (4, 4)) * 3)

    model = Autoencoder(Bent(), Decoder(), StandardNormal((3,)))
    x = TRUTH.draw(20, seed=5)
    found = substitution_gaps(
        model, x, substitutions=(0, 1, 2, 3), residues=[1, 2, 3], symbols=4, candidates=16, batch=8
    )
    assert (found[0].gaps == 0).all()
    assert (found[0].input_similarity == 1).all()
    assert float(found[0].skl.max()) == 0
    for r, one in enumerate(found):
        torch.testing.assert_close(one.input_similarity, torch.full((20,), 1 - r / 4))
        torch.testing.assert_close(one.gaps, one.input_similarity - one.reconstruction_similarity)
        torch.testing.assert_close(one.skl, skl(model.encoder(x), model.encoder(one.attacked)))
    means = [float(one.skl.mean()) for one in found]
    assert means == sorted(means)
    assert means[1] > 0.1
    again = substitution_gaps(model, x, substitutions=(2,), residues=[1, 2, 3], symbols=4, candidates=16, batch=5)
    torch.testing.assert_close(again[0].gaps, found[2].gaps), "whatever the batch"
    points = substitution_gaps(
        SimpleModel(Bent(False)), x, substitutions=(1,), residues=[1, 2, 3], symbols=4, candidates=16
    )
    assert points[0].skl is None, "points have no divergence"


def SimpleModel(encoder: nn.Module) -> Any:
    class Decoder(nn.Module):
        def forward(self, z: Tensor) -> TokenSequence:
            return TokenSequence(z.repeat(1, 6)[:, :16].unflatten(1, (4, 4)))

    return Autoencoder(encoder, Decoder(), StandardNormal((3,)))


def test_residues_are_amino_acids():
    assert [protein_spec(2).symbols[i] for i in residues_of(protein_spec(2))] == [*"ACDEFGHIKLMNPQRSTVWY"]


# All figures of trained models ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny runs of four kinds on sequences of the Potts model."""
    folder = tmp_path_factory.mktemp("sequences")
    rows = TRUTH.draw(240, seed=3)
    lines = [f"{text},{-e:.3f}" for text, e in zip(TRUTH.texts(rows), TRUTH.energy(rows.numpy()), strict=True)]
    (folder / "v.csv").write_text("\n".join(["sequence,y", *lines]) + "\n")
    for name in ("vae", "diled", "relso", "lm", "potts"):
        width = {"width": 8, "depth": 1, "heads": 1} if name == "lm" else small(name)
        values = [word for key, v in width.items() if not isinstance(v, dict) for word in (f"--model.{key}", v)]
        values += ["--model.prior.width", 8, "--model.prior.blocks", 1] if name == "diled" else []
        values += ["--model.properties.columns", "y"] if name == "relso" else []
        words = ["--training.steps", 12, "--training.batch_size", 32, "--report", "false", "--device", "cpu"]
        assert diled("train", folder / "v.csv", "--model", name, "--out", folder / name, *values, *words) == 0
    return folder


OF_SAMPLES = {"valid", "unique", "novel", "diversity", "position_error", "coupling_error", "nearest_training"}
OF_CODES = {
    "residue_accuracy",
    "sequence_accuracy",
    "mse/y/probe",
    "mae/y/probe",
    "pearson/y/probe",
    "spearman/y/probe",
}


def test_every_model_gets_the_figures_that_it_admits(runs: Path):
    import diled as package
    from diled.data import open_data

    data, found = open_data(str(runs / "v.csv")), {}
    for name in ("vae", "relso", "lm", "potts"):
        found[name] = measure(package.load(runs / name, device="cpu").density, data, samples=60, repeats=2)
        assert set(found[name]) >= OF_SAMPLES | {f"{key}/floor" for key in OF_SAMPLES - {"novel"}}
        assert "zero_shot_spearman/y" in found[name] or name == "relso"
    for name in ("vae", "lm"):
        nats, each = found[name]["bound_nats"].value, found[name]["nats_per_residue"].value
        assert each == pytest.approx(nats / 4), "of four residues"
    assert found["relso"]["bound_nats"].value is None
    assert "nats_per_residue" not in found["relso"]
    assert set(found["vae"]) >= OF_CODES | {"rate_nats", "distortion_nats"}
    assert not set(found["lm"]) & OF_CODES
    assert set(found["relso"]) >= OF_CODES | {"mse/y", "spearman/y"}


def test_an_audit_of_two_runs(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--sections", "bounds", "amortization", "robustness", "codes", "--examples", 10, "--steps", 4]
    assert diled("audit", runs / "vae", runs / "diled", *words, "--out", tmp_path / "audit", "--device", "cpu") == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    text = json.dumps(found)
    for name in ("generalization_gap", "amortization_gap_test", "robustness_gap/substitutions=2", "label_smoothness/y"):
        assert name in text, name
    assert "vae" in said
    assert (tmp_path / "audit" / "audit.html").stat().st_size > 10_000


def test_sampling_of_the_profile_beside_the_data():
    """A profile that knows the marginals has their frequencies, and none of the couplings."""
    data = potts((400, 30, 400))
    profile = Profile(4, 4)
    profile.fit(torch.from_numpy(data.train.values).long())
    found = measure(Model(profile, SPEC).density, data, samples=400, repeats=1)
    assert found["position_error"].value < 1.6 * found["position_error/floor"].value
    assert found["coupling_error"].value > 3 * found["coupling_error/floor"].value
    assert found["bound_nats"].value > TRUTH.entropy


# Shifted test splits


def test_the_shift_of_frequencies_is_unbiased_and_known():
    """1/2 (2 (g - f)^2) / (1 - f g - (1 - f)(1 - g)), for f = 1/2: 2 (g - 1/2)^2."""
    for g in (0.5, 0.6, 0.9):
        many = [shift(two_letters(0.5, 60, 2 * k), two_letters(g, 40, 2 * k + 1), 3) for k in range(1500)]
        found, chance = np.array(many).T
        assert np.mean(found) == pytest.approx(2 * (g - 0.5) ** 2, abs=4 * np.std(found) / np.sqrt(len(found)))
        if g == 0.5:
            assert np.std(found) == pytest.approx(chance.mean(), rel=0.1)
    ones, twos = np.full((5, 1), 1), np.full((6, 1), 2)
    assert shift(ones, twos, 3)[0] == 1
    assert shift(ones, ones, 3) == (0, 0)


def test_samples_are_compared_with_what_is_drawn_as_training():
    data = potts((300, 100, 300))
    assert drawn_alike(data) == (data, "")
    other = data.test.subset(np.flatnonzero(data.test.labels["y"] > np.quantile(data.test.labels["y"], 0.7)))
    shifted_data = replace(data, test=other)
    shifted, why = drawn_alike(shifted_data)
    assert shifted.test is data.validation
    assert why.startswith("against validation, as the test split has other symbols than training (shift 0.")
    both = drawn_alike(replace(data, test=other, validation=other.subset(np.arange(40))))
    assert both[0].test is not data.validation
    profile = Profile(4, 4)
    found = {}
    for name, place in (("plain", replace(data, test=data.validation)), ("shifted", replace(data, test=other))):
        found[name] = measure(profile, place, samples=200)
    assert found["shifted"]["position_error"].value == found["plain"]["position_error"].value
    assert "against validation" in found["shifted"]["position_error"].note
    assert "against" not in found["plain"]["position_error"].note
    told = "Samples are compared with real ones against validation"
    assert [fitting([], {}, place)[-1:] for place in (data, shifted_data)] == [[], [f"{told}{why[18:]}."]]
    assert found["shifted"]["frechet_samples"].note.endswith(f"needs 200 test sequences, and there are {len(other)}")
    assert found["shifted"]["bound_nats"].n == len(other)
