"""Passes in which all examples meet the same noise."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from test_designs import gaussian_diffusion

from diled.diffusion.diffusion import Diffusion, stratified_times
from diled.diffusion.schedule import LinearLogSNR
from diled.draws import drawn_normal, drawn_times, drawn_uniform, paired_pass
from diled.latent.optimize import prior_energy
from diled.models.token_diffusion import TokenDiffusion
from diled.models.trivial import PPCA
from diled.nn.sequence import MaskedTransformer

LIKE = torch.zeros((), dtype=torch.float64)


def test_within_a_pass_all_rows_meet_the_same_noise_and_times_of_one_cell():
    for i in range(6):
        with paired_pass(i, 6, 3):
            e, u = drawn_normal((5, 2), LIKE), drawn_uniform((5, 3), LIKE)
            t = stratified_times(5, 2, LIKE)
        for each in (e, u, t):
            assert torch.equal(each, each[:1].expand_as(each))
        assert i // 2 / 3 <= float(t[0]) < (i // 2 + 1) / 3
    assert drawn_times((2,), LIKE) is None
    assert len(drawn_normal((5, 2), LIKE).unique()) == 10


def test_two_passes_of_a_cell_have_opposite_noise_and_the_next_cell_other():
    def drawn(i):
        with paired_pass(i, 8, 3):
            return drawn_normal((1, 4), LIKE), drawn_uniform((1, 4), LIKE), drawn_times((1,), LIKE)

    (e, u, t), (minus, rest, same), (other, _, _) = drawn(0), drawn(1), drawn(2)
    torch.testing.assert_close((minus, rest, same), (-e, 1 - u, t))
    assert (other.abs() - e.abs()).abs().min() > 1e-3


@pytest.mark.parametrize("passes", [1, 4, 5])
def test_every_time_is_as_likely_over_passes_and_seeds(passes):
    t = []
    for seed in range(2000):
        for i in range(passes):
            with paired_pass(i, passes, seed):
                t.append(float(drawn_times((1,), LIKE)))
    assert np.mean(t) == pytest.approx(0.5, abs=0.02)
    assert np.var(t) == pytest.approx(1 / 12, abs=0.005)


def test_a_pass_ends_with_its_block_and_leaves_the_generators_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    with contextlib.suppress(KeyError), paired_pass(0, 2, 1):
        drawn_normal((3,), LIKE)
        raise KeyError
    assert torch.equal(torch.random.get_rng_state(), before)
    assert drawn_times((1,), LIKE) is None


def test_differences_between_codes_are_exact_where_lone_draws_are_noise():
    """Energies of a diffusion that is N(0, 0.3^2 I): their differences are those of the density."""
    var, z = torch.tensor([0.09, 0.09]), 0.3 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    true = 0.5 * (z**2 / var).sum(1)
    prior = gaussian_diffusion(torch.zeros(2), var)
    energy = prior_energy(prior, draws=32, seed=1)(z)
    assert float(np.corrcoef(energy, true)[0, 1]) > 0.97
    lone = torch.stack([prior.bound(z) for _ in range(32)]).mean(0)
    assert float((energy - true).std()) < 0.5 * float((lone - true).std())
    mean = float((energy - true).mean()) - 0.5 * float((2 * math.pi * var).log().sum())
    means = [float((prior_energy(prior, draws=32, seed=s)(z) - energy).mean()) for s in range(2, 40)]
    assert abs(np.mean(means) + mean) < 4 * np.std(means) / math.sqrt(38) + 0.05  # unbiased


@pytest.mark.parametrize("kind", ["diffusion", "tokens", "ppca"])
def test_a_row_has_the_same_bound_alone_and_among_others(kind):
    torch.manual_seed(0)
    x = torch.randn(6, 4)
    if kind == "tokens":
        model, x = TokenDiffusion(MaskedTransformer(4, 5, width=8, depth=1, heads=2), 4), torch.randint(1, 5, (6, 4))
    elif kind == "ppca":
        model, x = PPCA((4,), 8, 2), (torch.randint(8, (6, 4)) * 2 / 7 - 1).float()
    else:
        model = Diffusion(lambda z, log_snr, c: z * 0.5, LinearLogSNR(-8.0, 6.0), (4,))
    x = torch.cat([x, x[:1]])
    with torch.no_grad():
        together = model.eval().paired_bound(x, passes=5)
        torch.testing.assert_close(model.paired_bound(x[2:3], passes=5), together[2:3])
        torch.testing.assert_close(together[-1], together[0])
        assert not torch.allclose(model.paired_bound(x, passes=5, seed=(1,)), together)
