"""Models that are fitted in closed form see every training example, in batches, whatever the source."""

from __future__ import annotations

import pytest
import torch

from diled.api import Density, Stage
from diled.config import DataSpec, TrainingConfig
from diled.models.exact_sequences import Potts, Profile
from diled.models.trivial import PPCA, Independent, moments
from diled.sequences import scored
from diled.training.data import ROWS, Fresh, Mixed, Shuffled
from diled.training.stages import PREPARED, prepare

SPEC = DataSpec(kind="vector", shape=(3,), low=-1, high=1)
N = PREPARED + 2_345


def fitted(source) -> torch.Tensor:
    """All rows with which a stage is fitted."""
    seen: list[torch.Tensor] = []
    prepare(Stage("fit", Density(), 0.0, fit=lambda parts: seen.extend(parts)), source, SPEC, TrainingConfig(), 0)
    assert max(map(len, seen)) == ROWS
    return torch.cat(seen)


def test_a_fit_sees_all_examples_once_and_a_preparation_some():
    x = torch.arange(3.0 * N).reshape(N, 3)
    assert torch.equal(fitted(Shuffled(x)), x)
    counts: list[int] = []
    prepare(Stage("some", Density(), prepare=lambda x: counts.append(len(x))), x, SPEC, TrainingConfig(), 0)
    assert counts == [PREPARED]


def test_a_mixture_is_fitted_at_its_share_and_drawn_examples_are_few():
    real, made = torch.zeros(4_000, 3), torch.ones(2_000, 3)
    found = fitted(Mixed(Shuffled(real), Shuffled(made), 0.8))
    assert len(found) == 5_000
    assert found.mean() == pytest.approx(0.2)
    found = fitted(Mixed(Shuffled(real), Shuffled(made), 0.2))  # of the 2,000 synthetic ones 80 %
    assert len(found) == 2_500
    assert found.mean() == pytest.approx(0.8)
    fresh = Fresh(lambda step, rank, ranks: torch.full((64, 3), float(step)), 64)
    found = fitted(fresh)
    assert len(found) == Fresh.FEW
    assert found.unique().tolist() == list(range(-(-Fresh.FEW // 64)))
    assert fitted(Mixed(Shuffled(real), fresh, 0.5)).eq(0).all(1).sum() == Fresh.FEW + 64  # step 0 draws zeros


def test_moments_of_batches_are_those_of_all_rows():
    rows = torch.randn(1_003, 5) * torch.tensor([1.0, 2.0, 0.1, 1e-3, 5.0]) + torch.tensor([0.0, 5.0, -3.0, 1e3, 1.0])
    whole = rows.double()
    for parts in ((rows,), rows.split(100), rows.split(1)):
        mean, var = moments(parts)
        torch.testing.assert_close((mean, var), (whole.mean(0), whole.var(0)), rtol=1e-9, atol=1e-12)
        mean, covariance = moments(parts, products=True)
        torch.testing.assert_close((mean, covariance), (whole.mean(0), whole.T.cov()), rtol=1e-9, atol=1e-12)


def test_frequencies_of_grey_values_are_counts_with_one_half_added():
    x = torch.randint(0, 5, (700, 2, 3))
    model = Independent((2, 3), 5)
    model.fit((x * 0.5 - 1).split(90))
    want = torch.stack([(x == value).sum(0) + 0.5 for value in range(5)]) / (700 + 2.5)
    torch.testing.assert_close(model.log_p.exp(), want)


def test_ppca_has_the_directions_and_the_noise_of_the_covariance():
    rows = torch.randn(4_000, 4) @ torch.diag(torch.tensor([3.0, 1.0, 0.2, 0.2])) + 2
    model = PPCA((4,), None, 2)
    model.fit(rows.split(333))
    values, vectors = torch.linalg.eigh(rows.double().T.cov())
    noise = values[:2].mean()
    torch.testing.assert_close(model.noise_var, noise.float())
    torch.testing.assert_close(model.mean, rows.mean(0))
    found = model.basis * model.scales @ (model.basis * model.scales).T
    torch.testing.assert_close(found, (vectors[:, 2:] @ torch.diag(values[2:] - noise) @ vectors[:, 2:].T).float())


def test_symbols_are_counted_with_and_without_the_filling():
    x = torch.tensor([[1, 2, 0, 0], [1, 0, 0, 0], [2, 2, 1, 2]])
    profile, potts = Profile(4, 3), Potts(4, 3, decay=0.1, sweeps=1)
    profile.fit(x.split(2))
    potts.fit(x.split(2))
    reached, everywhere = torch.full((2, 4, 3), 0.5)
    for row, counts in zip(x, scored(x), strict=True):
        for i, symbol in enumerate(row):
            everywhere[i, symbol] += 1
            reached[i, symbol] += float(counts[i])
    torch.testing.assert_close(profile.logits.exp(), reached / reached.sum(1, keepdim=True))
    logs = everywhere.log()
    torch.testing.assert_close(potts.fields, logs - logs.mean(1, keepdim=True))
