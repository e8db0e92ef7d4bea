"""Designing sequences: what an ensemble learns, where climbs end, what constraints allow, and what a list of designs holds."""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import GaussianDenoiser, MixtureDenoiser, alpha_sigma
from tiny import diled, small
from torch import Tensor, nn

from diled import optimizing
from diled.api import NoBound, total
from diled.config import DataSpec
from diled.data import open_data
from diled.data.proteins import encode, protein_spec, to_strings
from diled.data.splits import Data, Split
from diled.designing import Search, some_with_values
from diled.diffusion import Diffusion
from diled.diffusion.schedule import LinearLogSNR
from diled.distributions import Normal
from diled.draws import BlockNoise, seeded
from diled.errors import ConfigError, DataError, ModelError
from diled.evaluation.sequences import fit_oracle, regression
from diled.family import model_config
from diled.latent import guidance
from diled.latent.constraints import Constraints, chosen
from diled.latent.optimize import Goal, Objective, ascent, evolution, guided_ode, hill, mcmc, prior_energy
from diled.latent.predict import Ensemble
from diled.model import Model
from diled.models.autoencoder import Autoencoder
from diled.models.exact_sequences import Profile
from diled.models.priors import GaussianMixture, NoPrior, Standardized, StandardNormal
from diled.models.zoo import build
from diled.nn.sequence import one_hot
from diled.optimizing import Settings, beside_oracle, constraints_of, design, positions, write_designs
from diled.scoring import score_examples
from diled.sequences import TokenSequence
from diled.verbs import optimize

LENGTH, LETTERS = 4, "ACDE"
SYMBOLS = ("", *LETTERS)
EVERY = np.array(list(itertools.product(range(1, 5), repeat=LENGTH)), np.uint8)
WEIGHTS = np.random.default_rng(3).standard_normal((LENGTH, 5))
NAN = float("nan")


def truth(rows: Any) -> np.ndarray:
    """The additive property of rows (n, L)."""
    return WEIGHTS[np.arange(LENGTH), np.asarray(rows)].sum(1)


def additive(spec: DataSpec | None = None, train: int = 80) -> Data:
    """All 256 sequences of four residues, the worse half of a random order for training, with their property."""
    spec = (spec or protein_spec(LENGTH, symbols=SYMBOLS)).model_copy(update={"labels": {"fitness": []}})
    order = np.random.default_rng(0).permutation(256)
    order = np.concatenate([r[np.argsort(truth(EVERY[r]))] for r in np.split(order, [160])])

    def split(rows: np.ndarray) -> Split:
        y = truth(EVERY[rows]).astype(np.float32)
        return Split(EVERY[rows], {"fitness": y}, [str(i) for i in rows])

    return Data("additive", spec, split(order[:train]), split(order[80:120]), split(order[120:]), [])


class OneHot(nn.Module):
    """Codes that are the one-hot rows, nearly without noise."""

    def forward(self, x: Tensor) -> Normal:
        mean = one_hot(x, 5).flatten(1)
        return Normal(mean, torch.full_like(mean, -6.0))


class Back(nn.Module):
    """The symbols whose numbers are largest."""

    def forward(self, z: Tensor) -> TokenSequence:
        return TokenSequence(12.0 * z.unflatten(1, (LENGTH, 5)))


def bijection(prior: Any = None) -> Model:
    """An autoencoder whose codes say everything."""
    return Model(Autoencoder(OneHot(), Back(), prior or StandardNormal((20,))), additive().spec)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ensembles that are trained for a moment."""
    defaults = dict(Ensemble.fit.__kwdefaults__ or {})
    monkeypatch.setattr(Ensemble.fit, "__kwdefaults__", defaults | {"steps": 150, "batch": 64, "rate": 1e-2})


class Known:
    """A predictor of two members that is known: w z + c, each with an offset of its own."""

    def __init__(self, w: Tensor, spread: float = 0.0, center: float = 0.0, unit: float = 1.0) -> None:
        self.w, self.spread = w, spread
        self.center, self.unit = torch.tensor(center), torch.tensor(unit)

    def standardized(self, z: Tensor) -> Tensor:
        f, apart = z @ self.w, self.spread * (z**2).sum(1)
        return torch.stack([f - apart, f + apart])


# The ensemble ---------------------------------------------------------------------------------------------------------


def r2(said: Tensor, y: Tensor) -> float:
    return 1 - float(((said - y) ** 2).mean() / y.var())


@pytest.mark.parametrize(("power", "least"), [(1, 0.99), (2, 0.95)])
def test_an_ensemble_learns_known_functions_in_their_unit(power: int, least: float):
    with seeded(0):
        z = 4 + 3 * torch.randn(600, 3)
    y = 50 + 20 * (((z - 4) / 3) ** power @ torch.tensor([1.0, -2.0, 0.5]))
    found = Ensemble(3, members=3, width=24).fit(z[:400], y[:400], (z[400:500], y[400:500]), steps=400)
    mean, std = found.predict(z[500:])
    assert r2(mean, y[500:]) > least
    assert float(((mean - y[500:]) ** 2).mean().sqrt()) > 0.1 * float(std.mean()) > 0
    torch.testing.assert_close(found(z), found.center + found.unit * found.standardized(z))
    each = found(z[500:])
    torch.testing.assert_close(torch.stack([mean, std]), torch.stack([each.mean(0), each.std(0)]))
    assert found.members == 3
    assert not any(p.requires_grad for p in found.parameters())


def test_members_differ_more_where_there_are_no_data():
    with seeded(1):
        z = torch.randn(300, 2)
        far = 5 * nn.functional.normalize(torch.randn(100, 2))
    y = (z[:, 0] * z[:, 1]).sin()
    found = Ensemble(2, members=5, width=16).fit(z[:200], y[:200], (z[200:], y[200:]))
    assert float(found.predict(far)[1].mean()) > 3 * float(found.predict(z[200:])[1].mean())


def test_missing_values_are_left_out():
    with seeded(2):
        z, out = torch.randn(60, 2), torch.randn(20, 2)
    y, y_out = z.sum(1), out.sum(1)
    y[::3], y_out[::2] = NAN, NAN
    whole = Ensemble(2, members=2, width=8).fit(z, y, (out, y_out), steps=30)
    kept, kept_out = y.isfinite(), y_out.isfinite()
    part = Ensemble(2, members=2, width=8).fit(z[kept], y[kept], (out[kept_out], y_out[kept_out]), steps=30)
    assert torch.equal(whole(out), part(out))
    with pytest.raises(DataError, match="6 training and 20 validation examples have this property"):
        Ensemble(2).fit(z[:9], y[:9], (out, out.sum(1)))


def test_members_end_on_their_best_look_and_are_fitted_again():
    """Held-out values that contradict the training: every step makes them worse."""
    with seeded(3):
        z = torch.randn(80, 2)
    y = z.sum(1)
    found = Ensemble(2, members=3, width=16).fit(z, y, (z, -y), steps=200, rate=2e-3)
    assert r2(found.predict(z)[0], y) < 0.5
    assert r2(found.fit(z, y, (z, y), steps=200).predict(z)[0], y) > 0.95


# What is climbed ------------------------------------------------------------------------------------------------------


def test_goals_and_what_is_better():
    f, y = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([1.0, 4.0, 7.0])
    center, unit = torch.tensor(3.0), torch.tensor(2.0)
    up, down, near = (Goal.parse("y", goal) for goal in ("max", "min", "4"))
    assert up.value(f, center, unit).tolist() == f.tolist()
    assert down.value(f, center, unit).tolist() == (-f).tolist()
    assert near.value(f, center, unit).tolist() == [-0.5 * 1.5**2, 0.0, -0.5 * 1.5**2]
    orders = [goal.better(y).argsort(descending=True).tolist() for goal in (up, down, Goal.parse("y", 6.5))]
    assert orders == [[2, 1, 0], [0, 1, 2], [2, 1, 0]]
    assert Goal.parse("y", 3.0).better(y).tolist() == [-2, -1, -4]
    for wrong in ("most", "nan", "inf", ""):
        with pytest.raises(ConfigError, match="neither max nor min nor a number"):
            Goal.parse("y", wrong)


def test_the_objective_by_hand():
    w, z = torch.tensor([2.0, -1.0]), torch.tensor([[1.0, 3.0], [0.5, -2.0]])
    objective = Objective(Goal("y"), Known(w, 0.3), lambda z: 7 * z[:, 0], leash=0.1, caution=2.0)  # type: ignore[arg-type]
    s = 0.3 * (z**2).sum(1) * math.sqrt(2)  # of two members, with N - 1
    torch.testing.assert_close(objective(z), z @ w - 2 * s - 0.7 * z[:, 0])
    torch.testing.assert_close(objective.wanted(z), z @ w - 2 * s)
    want = w - 2 * 0.3 * math.sqrt(2) * 2 * z - 0.7 * torch.tensor([1.0, 0.0])
    torch.testing.assert_close(objective.slope(z), want)


def test_ascent_reaches_the_maximum():
    """Linear f on the leash of N(0, I): U = w z - leash |z|^2 / 2 + const has its maximum at w / leash."""
    w = torch.tensor([0.6, -0.3])
    leashed = Objective(Goal("y"), Known(w), prior_energy(StandardNormal((2,))), leash=0.5)  # type: ignore[arg-type]
    for scale in (1.0, torch.tensor([0.5, 2.0])):
        found = ascent(torch.randn(3, 2), leashed, steps=400, rate=0.05, scale=scale)
        torch.testing.assert_close(found, (w / 0.5).expand(3, 2), atol=0.02, rtol=0.02)
    target = Objective(Goal("y", 0, 5.0), Known(w, center=4.0, unit=0.5))  # type: ignore[arg-type]
    found = ascent(torch.randn(3, 2), target, steps=400)
    torch.testing.assert_close(found @ w * 0.5 + 4.0, torch.full((3,), 5.0), atol=0.02, rtol=0)


def test_one_step_of_ascent_is_as_long_as_it_says():
    flat = Objective(Goal("y"), Known(torch.tensor([0.6, -0.3])))  # type: ignore[arg-type]
    moved = ascent(torch.zeros(1, 2), flat, steps=1, rate=0.1, scale=torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(moved, torch.tensor([[0.1, -0.3]]), atol=1e-5, rtol=1e-4)


def gaussian_diffusion(mean: Tensor, var: Tensor, gamma_max: float = 8.0) -> Diffusion:
    """A diffusion that is N(mean, var) exactly."""
    return Diffusion(GaussianDenoiser(mean, var), LinearLogSNR(-8.0, gamma_max), (len(mean),))  # type: ignore[arg-type]


def test_energy_of_a_prior_is_its_bound_at_the_same_noise():
    z = torch.randn(6, 2)
    normal = prior_energy(StandardNormal((2,)))(z)
    torch.testing.assert_close(normal, math.log(2 * math.pi) + 0.5 * (z**2).sum(1))
    prior = gaussian_diffusion(torch.zeros(2), torch.ones(2))
    energy = prior_energy(prior, draws=1000, seed=1)
    assert torch.equal(energy(z), energy(z))
    torch.testing.assert_close(energy(z), normal, atol=0.6, rtol=0)
    moved = z.clone().requires_grad_(True)
    slope = torch.autograd.grad(energy(moved).sum(), moved)[0]
    torch.testing.assert_close(slope, z, atol=0.5, rtol=0.2)
    with pytest.raises(NoBound):
        prior_energy(NoPrior())(z)


def test_a_hill_is_climbed_to_the_best_neighbour_and_never_down():
    """On a line of codes 0, 1, ..., 9 the value has its top at 6."""
    codes = torch.arange(10.0)[:, None]
    peak = Objective(Goal("y", 0, 6.0), Known(torch.ones(1)))  # type: ignore[arg-type]
    start = torch.tensor([[0.0], [3.2], [9.0], [6.0]])
    found = hill(start, peak, codes, neighbours=4)
    torch.testing.assert_close(found, torch.full((4, 1), 6.0), atol=1e-3, rtol=0)
    halfway = hill(start, peak, codes, neighbours=4, steps=1)  # best of 0..3, of 2..5, of 6..9
    assert halfway.flatten().tolist() == pytest.approx([1.5, 4.1, 7.5, 6.0])
    assert hill(start, peak, codes, neighbours=4, steps=1, share=0.1).flatten()[0] == pytest.approx(0.3)
    valley = Objective(Goal("y", -1), Known(torch.ones(1)))  # type: ignore[arg-type]
    assert hill(codes[:1], valley, codes).tolist() == [[0.0]], "nothing is lower"


def test_a_random_better_neighbour():
    codes = torch.arange(10.0)[:, None]
    up = Objective(Goal("y"), Known(torch.ones(1)))  # type: ignore[arg-type]
    start = torch.tensor([[4.1]])
    ends = [float(hill(start, up, codes, neighbours=4, steps=1, share=1.0, uniform=lambda n, u=u: torch.full((n,), u)))
            for u in (0.0, 0.49, 0.51, 0.999)]  # fmt: skip
    assert set(ends) == {5.0, 6.0}, "those of 3 4 5 6 that are better"
    assert ends[0] == ends[1] != ends[2] == ends[3]
    with seeded(0):
        found = hill(start, up, codes, steps=100, uniform=torch.rand)
    assert float(found) > 8.9


def test_the_chain_has_its_stationary_law_and_returns_its_best():
    """exp(U / T) with U = -(z - 1)^2 / 2 is N(1, T)."""
    seen: list[Tensor] = []
    noise, moves = BlockNoise(3), []

    def recorded(shape: tuple[int, ...]) -> Tensor:
        moves.append(noise(shape))
        return moves[-1]

    def cycle(proposed: Tensor) -> Tensor:
        seen.append(proposed - 0.8 * moves[-1])  # where the chain is
        return proposed

    bump = Objective(Goal("y", 0, 1.0), Known(torch.ones(1)))  # type: ignore[arg-type]
    start = torch.zeros(64, 1)
    best = mcmc(start, bump, recorded, steps=400, width=0.8, temperature=0.5, cycle=cycle)
    chain = torch.cat(seen[50:])
    assert float(chain.mean()) == pytest.approx(1.0, abs=0.06)
    assert float(chain.var()) == pytest.approx(0.5, abs=0.06)
    visited = torch.stack(seen[1:])[..., 0]
    top = bump(visited.reshape(-1, 1)).view(-1, 64).amax(0)
    assert (bump(best) >= top - 1e-6).all()
    assert (bump(best) > -0.01).all()
    stuck = mcmc(torch.ones(5, 1), bump, BlockNoise(0), steps=20, temperature=100.0)
    assert stuck.tolist() == [[1.0]] * 5, "nothing is better than the start"
    wide = mcmc(start[:2], bump, BlockNoise(0), steps=1, width=0.1, temperature=1e9, scale=torch.tensor([50.0]))
    assert (wide - BlockNoise(0)((2, 1)) * 5).abs().min() < 1e-5 or (wide == 0).any()


# The guided ODE -------------------------------------------------------------------------------------------------------


def test_a_linear_wish_moves_a_standard_normal_by_its_slope():
    """N(0, I) exp(c z) is N(c, I)."""
    c = torch.tensor([0.8, -0.5])
    found = guided_ode(StandardNormal((2,)), lambda z: z @ c / 2, BlockNoise(0), 800, steps=100, scale=2.0)
    torch.testing.assert_close(found.mean(0), c, atol=0.13, rtol=0)
    torch.testing.assert_close(found.std(0), torch.ones(2), atol=0.08, rtol=0)
    free = guided_ode(StandardNormal((2,)), lambda z: 0 * z[:, 0], BlockNoise(0), 800, steps=100)
    torch.testing.assert_close(found - free, c.expand(800, 2), atol=0.04, rtol=0)
    none = guided_ode(StandardNormal((2,)), lambda z: z @ c, BlockNoise(0), 800, steps=100, scale=0.0)
    assert torch.equal(none, free)


def mixture(scale: float = 1.0) -> GaussianMixture:
    prior = GaussianMixture(2, 3)
    prior.log_weights = torch.tensor([0.7, 0.3, 0.0]).log()
    prior.means = scale * torch.tensor([[3.0, 0.0], [-2.0, 4.0], [99.0, 99.0]])
    prior.roots = scale * torch.tensor([[[1.0, 0.0], [0.6, 0.5]], [[0.4, 0.0], [0.0, 1.5]], [[1.0, 0.0], [0.0, 1.0]]])
    return prior


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e-3])
def test_a_mixture_keeps_its_mean_and_covariance_in_any_unit(scale: float):
    prior = mixture(scale)
    z = guided_ode(prior, lambda z: z[:, 0] * 0, BlockNoise(1), 3000, steps=60) / scale
    share, means, roots = prior.log_weights.exp(), prior.means / scale, prior.roots / scale
    mean = share @ means
    cov = torch.einsum("k,kij->ij", share, roots @ roots.mT) + torch.einsum(
        "k,ki,kj->ij", share, means - mean, means - mean
    )
    torch.testing.assert_close(z.mean(0), mean, atol=0.2, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), cov, atol=0.5, rtol=0.06)


def test_the_denoiser_of_a_mixture_is_exact_and_its_unit_its_own():
    z, log_snr = 2 * torch.randn(9, 2), torch.linspace(-6, 6, 9)
    mean, var = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    one = guidance._denoiser_of(mean[None], torch.diag(var)[None], torch.zeros(1))
    torch.testing.assert_close(one(z, log_snr), GaussianDenoiser(mean, var)(z, log_snr))
    means, share = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [0.0, 0.0]]), torch.tensor([0.2, 0.5, 0.3])
    several = guidance._denoiser_of(means, 0.4 * torch.eye(2).expand(3, 2, 2), share.log())
    torch.testing.assert_close(
        several(z, log_snr), MixtureDenoiser(means, 0.4, share)(z, log_snr), atol=1e-5, rtol=1e-5
    )
    turned = torch.tensor([[2.0, 0.0], [1.0, 0.5]])  # a root; along other axes it is diagonal
    values, axes = torch.linalg.eigh(turned @ turned.T)
    slanted = guidance._denoiser_of(mean[None], (turned @ turned.T)[None], torch.zeros(1))
    straight = GaussianDenoiser(mean @ axes, values)
    torch.testing.assert_close(slanted(z, log_snr), straight(z @ axes, log_snr) @ axes.T, atol=1e-5, rtol=1e-5)
    inner, center, width = guidance._standardized(mixture(7.0))
    draws = inner.sample(20_000, noise=BlockNoise(0))
    torch.testing.assert_close(draws.mean(0), torch.zeros(2), atol=0.03, rtol=0)
    torch.testing.assert_close(draws.std(0), torch.ones(2), atol=0.03, rtol=0)
    torch.testing.assert_close(
        draws * width + center, mixture(7.0).sample(20_000, noise=BlockNoise(0)), atol=1e-3, rtol=1e-4
    )


def test_a_diffusion_is_led_like_the_gaussian_it_is_also_in_another_unit():
    mean, var, c = torch.tensor([1.0, -0.5]), torch.tensor([0.5, 1.2]), torch.tensor([0.6, 0.4])
    inner = gaussian_diffusion(mean, var)
    free = guided_ode(inner, lambda z: 0 * z[:, 0], BlockNoise(0), 2000, steps=100)
    torch.testing.assert_close(free.mean(0), mean, atol=0.08, rtol=0)
    torch.testing.assert_close(free.var(0), var, atol=0.1, rtol=0)
    led = guided_ode(inner, lambda z: z @ c, BlockNoise(0), 2000, steps=100)
    torch.testing.assert_close((led - free).mean(0), var * c, atol=0.04, rtol=0)  # N(m + V c, V)
    prior = Standardized(inner, (2,))
    prior.mean, prior.std = torch.tensor([10.0, 0.0]), torch.tensor([2.0, 0.1])
    wide = guided_ode(prior, lambda z: z @ c, BlockNoise(0), 2000, steps=100)
    unled = guided_ode(prior, lambda z: 0 * z[:, 0], BlockNoise(0), 2000, steps=100)
    torch.testing.assert_close(unled, free * prior.std + prior.mean)
    torch.testing.assert_close((wide - unled).mean(0), prior.std**2 * var * c, atol=0.1, rtol=0.05)
    a, s = alpha_sigma(torch.tensor(8.0))
    assert a < 0.02 < s, "the last noise level hides the mean"


def test_a_prior_without_a_denoiser_is_refused():
    with pytest.raises(NoBound, match="NoPrior has no denoiser to guide"):
        guided_ode(NoPrior(), lambda z: z[:, 0], BlockNoise(0), 2)


# Sequences that are allowed -------------------------------------------------------------------------------------------


def some_allowed(ends: bool, seed: int) -> Tensor:
    allowed = torch.from_numpy(np.random.default_rng(seed).random((3, 4)) < 0.7)
    allowed[:, 0] = ends
    allowed[0, 0] = False
    allowed[:, 1] |= ~allowed[:, 1:].any(1)
    return allowed


def is_allowed(row: tuple[int, ...], limits: Constraints) -> bool:
    """By hand: no symbol after an end, each allowed, and no more changes than may be."""
    proper = all(b == 0 for a, b in itertools.pairwise(row) if a == 0)
    fine = all(bool(limits.allowed[i, a]) for i, a in enumerate(row))
    changes = 0 if limits.parent is None else sum(a != b for a, b in zip(row, limits.parent.tolist(), strict=True))
    return proper and fine and (limits.most is None or changes <= limits.most)


def cases() -> list[Constraints]:
    found = [Constraints(some_allowed(ends, seed)) for ends in (False, True) for seed in range(3)]
    for row in ([1, 2, 3], [3, 1, 0]):
        for most in (None, 0, 1, 2):
            try:
                found.append(Constraints(some_allowed(True, most or 7), torch.tensor(row), most))
            except ConfigError:  # its own residues are not allowed
                continue
    found.append(
        Constraints(torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]).bool(), torch.tensor([1, 1, 1]), 2)
    )
    return found


@pytest.mark.parametrize("limits", cases())
def test_decoding_finds_the_most_likely_allowed_sequence(limits: Constraints):
    rows = [row for row in itertools.product(range(4), repeat=3) if is_allowed(row, limits)]
    with seeded(4):
        logits = 2 * torch.randn(12, 3, 4)
    log_p = logits.log_softmax(2)

    def by_hand(log_p: Tensor, row: tuple[int, ...]) -> float:
        scored = row.index(0) + 1 if 0 in row else 3  # the first end counts, what follows does not
        if limits.parent is not None:
            scored = 3  # all have the parent's length
        return float(sum(log_p[i, row[i]] for i in range(scored)))

    found = limits.decode(logits)
    for i in range(12):
        of_length: dict[int, list[tuple[float, tuple[int, ...]]]] = {}
        for row in rows:
            of_length.setdefault((*row, 0).index(0), []).append((by_hand(log_p[i], row), row))
        best = max(of_length.values(), key=lambda one: sum(math.exp(nats) for nats, _ in one))
        assert found[i].tolist() == list(max(best)[1]), limits
    assert not limits.broken(found).any()


@pytest.mark.parametrize("limits", cases())
def test_repair_gives_allowed_sequences_and_leaves_them_alone(limits: Constraints):
    every = torch.tensor(list(itertools.product(range(4), repeat=3)))
    broken = limits.broken(every)
    assert broken.tolist() == [not is_allowed(tuple(row), limits) for row in every.tolist()]
    with seeded(5):
        repaired = limits.repair(every, torch.rand(64, 3))
    assert not limits.broken(repaired).any()
    assert torch.equal(repaired[~broken], every[~broken])
    if limits.most is not None:
        with seeded(6):
            free = limits.free(torch.randn(64, 3))
        assert (free.sum(1) <= limits.most).all()
        assert (free | ~limits.forced).all(), "what must change may"


def test_of_too_many_changes_those_with_the_largest_numbers_go_back():
    limits = Constraints(torch.ones(4, 5).bool(), torch.tensor([1, 1, 1, 1]), 2)
    found = limits.repair(torch.tensor([[2, 3, 4, 2]]), torch.tensor([[0.9, 0.1, 0.5, 0.3]]))
    assert found.tolist() == [[1, 3, 1, 2]]


def test_symbols_are_drawn_evenly_among_the_allowed_ones():
    allowed = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0]]).bool()
    u = torch.tensor([[0.0, 0.0], [0.33, 0.5], [0.34, 0.9], [0.66, 0.0], [0.67, 0.0], [1 - 2**-24, 1 - 2**-24]])
    assert chosen(allowed, u).tolist() == [[1, 0], [1, 0], [3, 0], [3, 0], [4, 0], [4, 0]]


def test_no_end_before_a_residue_that_must_be():
    allowed = torch.ones(5, 3).bool()
    allowed[:, 0] = torch.tensor([False, True, False, True, True])
    assert Constraints(allowed).allowed[:, 0].tolist() == [False, False, False, True, True]
    assert Constraints(allowed, torch.tensor([1, 2, 1, 1, 0])).allowed.tolist() == [[False, True, True]] * 4 + [
        [True, False, False]
    ]


@pytest.mark.parametrize("seed", range(12))
def test_rows_that_end_with_a_stop_against_all_rows(seed: int):
    """Of 81 rows of three symbols, the last of them a stop, by hand: what is allowed, decoded and repaired."""
    stop = 2
    table = torch.from_numpy(np.random.default_rng(seed).random((4, 3)) < 0.8)
    table[:, 0] |= ~table.any(1)
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))

    def fine(row: list[int]) -> bool:
        text = row[: (*row, 0).index(0)]
        return (
            not any(row[len(text) :])
            and all(bool(table[i, a]) for i, a in enumerate(row))
            and text[-1:] == [stop]
            and stop not in text[:-1]
        )

    proper = torch.tensor([fine(row) for row in every.tolist()])
    if not proper.any():
        with pytest.raises(ConfigError, match="No sequence meets these constraints: "):
            Constraints(table, last=stop)
        return
    limits = Constraints(table, last=stop)
    assert torch.equal(Constraints(limits.allowed, last=stop).allowed, limits.allowed)
    assert limits.allowed.tolist() == [[bool((every[proper, i] == a).any()) for a in range(3)] for i in range(4)]
    assert torch.equal(~limits.broken(every), proper)
    repaired = limits.repair(every, torch.rand(81, 4, generator=torch.Generator().manual_seed(seed)))
    assert not limits.broken(repaired).any()
    assert torch.equal(repaired[proper], every[proper])
    logits = 2 * torch.randn(20, 4, 3, generator=torch.Generator().manual_seed(seed))
    for log_p, found in zip(logits.log_softmax(2), limits.decode(logits), strict=True):
        of_length: dict[int, list[tuple[float, list[int]]]] = {}
        for row in every[proper].tolist():
            size = (*row, 0).index(0)
            nats = sum(float(log_p[i, row[i]]) for i in range(min(size + 1, 4)))
            of_length.setdefault(size, []).append((nats, row))
        best = max(of_length.values(), key=lambda one: sum(math.exp(nats) for nats, _ in one))
        assert found.tolist() == max(best)[1]


def test_constraints_that_nothing_meets_are_refused():
    allowed = torch.ones(3, 3).bool()
    allowed[1] = torch.tensor([True, False, False])
    allowed[2, 0] = False  # a residue after what can only be an end
    with pytest.raises(ConfigError, match="nothing is allowed at position 2"):
        Constraints(allowed)
    with pytest.raises(ConfigError, match="2 residues of the parent are not allowed, and at most 1 may change"):
        Constraints(torch.tensor([[0, 0, 1]] * 2).bool(), torch.tensor([1, 1]), 1)


def test_evolution_finds_the_best_of_an_additive_landscape():
    allowed = torch.zeros(LENGTH, 5).bool()
    allowed[:, 1:] = True
    allowed[1, torch.tensor(WEIGHTS[1, 1:].argmax() + 1)] = False  # the best there
    asked: list[Tensor] = []

    def fitness(x: Tensor) -> Tensor:
        asked.append(x)
        return torch.from_numpy(truth(x))

    start = torch.from_numpy(EVERY[[0, 85, 170]]).long()
    start = Constraints(allowed).repair(start, torch.zeros(3, LENGTH))
    uniform = torch.Generator().manual_seed(0)
    found = evolution(
        start.repeat(10, 1), fitness, lambda s: torch.rand(s, generator=uniform), steps=25, allowed=allowed
    )
    best = [int(WEIGHTS[i, 1:].argsort()[-2 if i == 1 else -1]) + 1 for i in range(LENGTH)]
    assert found[0].tolist() == best
    worth = truth(found)
    assert (np.diff(worth) <= 0).all()
    assert len(torch.unique(found, dim=0)) == len(found) == 30
    assert not Constraints(allowed).broken(torch.cat(asked)).any()


def test_evolution_in_a_space_of_two_sequences():
    allowed = torch.zeros(2, 3).bool()
    allowed[0, 1], allowed[1, 1], allowed[1, 0] = True, True, True
    found = evolution(torch.tensor([[1, 1]] * 20), lambda x: x.sum(1).float(), torch.rand, steps=8, allowed=allowed)
    assert found.tolist() in ([[1, 1], [1, 0]], [[1, 1]])
    alone = evolution(torch.tensor([[1, 1]]), lambda x: x.sum(1).float(), torch.rand, steps=2, allowed=allowed)
    assert alone.tolist() == [[1, 1]]


# What a user says -----------------------------------------------------------------------------------------------------


def test_positions_are_counted_as_biologists_do():
    whole = protein_spec(6)
    assert positions("1", whole) == [0]
    assert positions("2-4", whole) == [1, 2, 3]
    gb1 = protein_spec(4, background="M" * 56, sites=(38, 39, 40, 53))
    assert positions("39-41", gb1) == [0, 1, 2]
    assert positions("54", gb1) == [3]
    with pytest.raises(ConfigError, match=r"Position 42 is not modelled. Positions: 39, 40, 41, 54"):
        positions("41-42", gb1)
    with pytest.raises(ConfigError, match=r"Position 7 is not modelled. Positions: 1 to 6"):
        positions("7", whole)
    for wrong in ("A", "", "1-B", "-3"):
        with pytest.raises(ConfigError, match="is no position: write 7 or 1-5"):
            positions(wrong, whole)
    with pytest.raises(ConfigError, match="5-1"):
        positions("5-1", whole)


def varied() -> Data:
    """Sequences of three to five residues, of six at most."""
    spec = protein_spec(6).model_copy(update={"labels": {"y": []}})
    parts = [encode(texts, 6) for texts in (["ACD", "ACDE"], ["ACDEA"], ["AAA"])]
    return Data("varied", spec, *(Split(x, {"y": np.zeros(len(x), np.float32)}, [""] * len(x)) for x in parts), [])


def test_constraints_in_words():
    data, letters = varied(), ["", *"ACDEFGHIKLMNPQRSTVWY"]

    def said(limits: Constraints) -> list[str]:
        return ["".join(letters[a] or "." for a in range(21) if row[a]) for row in limits.allowed.tolist()]

    assert said(constraints_of(data)) == ["ACDE"] * 3 + [".ACDE"] * 2 + ["."], "as long as those that were seen"
    assert said(constraints_of(data, allowed=["5:KR", "1-2:a"])) == ["A", "A", "CADE"[1:2] + "CDE", "ACDE", "KR", "."]
    limits = constraints_of(data, parent="ACDEF", fixed=["1-2"], allowed=["4:GH"], most=2)
    assert said(limits) == ["A", "C", "ACDE", "GH", "ACDEF", "."], "the parent's own residue, and no end within"
    assert limits.parent is not None
    assert limits.parent.tolist() == [1, 2, 3, 4, 5, 0]
    assert limits.most == 2
    assert said(constraints_of(data, parent="AC-EAA"))[2] == "ACDE", "longer than all, and with a gap"
    assert constraints_of(data, parent="AC-EAA").allowed[2, 22], "the gap may stay"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"fixed": ["1"]}, "fixed speaks of a parent"),
        ({"most": 2}, "max_mutations speaks of a parent"),
        ({"parent": ["ACD", "ACC"]}, "A parent is one sequence"),
        ({"allowed": ["1"]}, "allowed '1': write a position and its residues"),
        ({"allowed": ["1:A1"]}, "allowed '1:A1'"),
        ({"allowed": ["9:A"]}, "Position 9 is not modelled"),
        ({"parent": "ACD", "allowed": ["4:A"]}, "the parent ends before, after 3 residues"),
        ({"parent": "ACD", "fixed": ["4"]}, "the parent ends before, after 3 residues"),
        ({"parent": "ACD", "most": 1, "allowed": ["1-2:G"]}, "2 residues of the parent are not allowed"),
        ({"allowed": [":A"]}, "is no position"),
        (
            {"parent": "AC1"},
            r"^This is no parent: Sequence 1 \('AC1'\) has '1' at position 3, which is no amino acid\.$",
        ),
        ({"parent": "ACDEACDEA"}, r"has 9 symbols, and the model reads at most \d\.$"),
        ({"parent": "nowhere.fasta"}, r"^This is no parent: There is no file"),
    ],
)
def test_what_nobody_can_mean(asked: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        constraints_of(varied(), **asked)


# Designs --------------------------------------------------------------------------------------------------------------


FAST = Settings(method="ascent", steps=25, members=2, candidates=2)
CODES = ("ascent", "hill", "stochastic_hill", "mcmc", "cycle", "ode", "evolution")


@pytest.mark.parametrize("method", CODES)
def test_designs_are_new_distinct_ranked_and_better_than_chance(method: str):
    data, model = additive(), bijection()
    settings = replace(FAST, method=method, members=4, caution=0.5, steps=None if method in ("ascent", "mcmc") else 25)
    near_data = method in (
        "hill",
        "stochastic_hill",
        "cycle",
    )  # of codes that say everything these end on training codes
    settings = replace(settings, keep_known=near_data)
    found = design(model, data, Goal("fitness"), 6, settings)
    trained = {row.tobytes() for row in data.train.values}
    assert 0 < len(found) <= 6
    assert len({row.tobytes() for row in found.values}) == len(found)
    assert near_data or not trained & {row.tobytes() for row in found.values}
    assert found.values.dtype == np.uint8
    assert found.sequences == to_strings(found.values, data.spec)
    worth = found.columns["predicted"] - 0.5 * found.columns["uncertainty"]
    assert (np.diff(worth) <= 1e-6).all()
    assert truth(found.values).mean() > truth(data.train.values).mean() + 0.5
    distance = [min((row != other).sum() for other in data.train.values) for row in found.values]
    assert found.columns["distance"].tolist() == distance
    assert list(found.columns)[:4] == ["predicted", "uncertainty", "bound_nats", "distance"]
    assert list(found.columns)[4:] == ["measured"], "the data have all 256"
    assert found.columns["measured"] == pytest.approx(truth(found.values), rel=1e-5)
    few = design(model, data, Goal("fitness"), 300, replace(settings, candidates=1, steps=2))
    none = "No sequence was found to propose: "
    some = f"Only {len(few)} distinct sequences{'' if near_data else ' outside the training split'} were found, of 300 that"
    assert any(note.startswith(some if len(few) else none) for note in few.notes)


def test_designs_beat_all_that_was_measured():
    """The training has the worst of the landscape; evolution on it finds what is better than all of that."""
    data = additive()
    found = design(bijection(), data, Goal("fitness"), 5, replace(FAST, method="evolution", members=4))
    assert truth(found.values).min() > truth(data.train.values).max()
    assert found.accuracy["spearman"] > 0.7
    low = design(bijection(), data, Goal("fitness", -1), 5, replace(FAST, method="evolution"))
    assert truth(low.values).mean() < np.quantile(truth(EVERY), 0.15)
    goal = Goal("fitness", 0, -2.0)
    near = design(bijection(), data, goal, 5, replace(FAST, method="evolution", caution=0.0, members=4))
    assert np.abs(truth(near.values) + 2.0).mean() < 0.4
    assert (np.diff(np.abs(near.columns["predicted"] + 2.0)) >= 0).all(), "the nearest to the target first"


def test_the_seed_decides_and_the_bound_is_the_models():
    data, model = additive(), bijection()
    first, again, other = (
        design(model, data, Goal("fitness"), 4, replace(FAST, method="ascent", steps=100, seed=s)) for s in (0, 0, 1)
    )
    assert len(first)
    assert first.sequences == again.sequences
    assert all(np.array_equal(first.columns[name], again.columns[name]) for name in first.columns)
    assert first.sequences != other.sequences or not np.allclose(first.columns["predicted"], other.columns["predicted"])
    with seeded(7):
        each = [total(model.density.terms(torch.from_numpy(first.values).long(), exact=True)) for _ in range(200)]
    want = torch.stack(each).mean(0).detach().numpy()
    assert first.columns["bound_nats"] == pytest.approx(want, rel=0.01)


def test_constraints_hold_in_every_design():
    data = additive()
    parent = torch.from_numpy(data.train.values[0]).long()
    limits = constraints_of(data, parent=to_strings(data.train.values[:1], data.spec)[0], most=2, fixed=["2"])
    for method in ("ascent", "evolution", "ode"):
        found = design(bijection(), data, Goal("fitness"), 5, replace(FAST, method=method), limits)
        changed = torch.from_numpy(found.values.astype(np.int64)) != parent
        assert len(found)
        assert int(changed.sum(1).max()) <= 2
        assert int(changed.sum(1).min()) >= 1
        assert not changed[:, 1].any()
        assert found.columns["changes"].tolist() == changed.sum(1).tolist()


def test_starts():
    """With nothing to climb, designs are where they begin: anywhere, among the best tenth, or at draws of the prior."""
    data, prior = additive(), StandardNormal((20,))
    prior.sample = lambda n, noise=None: one_hot(torch.from_numpy(EVERY[[7]]).long(), 5).flatten(1).expand(n, -1)  # type: ignore[method-assign]
    model, still = bijection(prior), replace(FAST, method="stochastic_hill", steps=1, keep_known=True, members=2)

    def begun(start: str) -> np.ndarray:
        flat = additive()
        flat.train.labels["fitness"][::10] = NAN  # never among the best
        return design(model, flat, Goal("fitness"), 50, replace(still, start=start)).values

    y = truth(data.train.values)
    kept = np.arange(80) % 10 != 0
    best = {r.tobytes() for r in data.train.values[kept][np.argsort(y[kept])[-7:]]}
    top = begun("top")
    assert {row.tobytes() for row in data.train.values[::10]} & {row.tobytes() for row in top} == set()
    assert best & {row.tobytes() for row in top} or truth(top).min() > np.quantile(y, 0.8)
    assert len(begun("train")) > len(top)
    assert all((row != EVERY[7]).sum() <= 4 for row in begun("prior"))
    with pytest.raises(ConfigError, match="start = top: method 'ode' begins with noise"):
        Settings(method="ode", start="top")


def test_starts_are_around_a_parent_and_changes_those_that_are_worth_most():
    """Of an additive property two changes are worth most by themselves, whatever else the decoder would change."""
    data = additive(train=160)
    parent = EVERY[np.argsort(truth(EVERY))[20]]
    limits = constraints_of(data, parent=to_strings(parent[None], data.spec)[0], most=2)
    search = Search(bijection(), data, Goal("fitness"), replace(FAST, members=4, leash=0.0, caution=0.0), limits)
    starts = search.start(200, BlockNoise(0))
    middle = one_hot(torch.from_numpy(parent)[None].long(), 5).flatten(1)
    assert (starts.mean(0) - middle[0]).abs().max() < 0.15
    assert starts.std(0).max() == pytest.approx(float(search.codes.std(0).max()) * 0.5, rel=0.2)
    target = torch.from_numpy(EVERY[np.argmax(truth(EVERY))]).long()[None]
    (found,) = search.decode(12.0 * one_hot(target, 5).flatten(1))
    worth = {}
    for pair in itertools.combinations(range(LENGTH), 2):
        row = torch.from_numpy(parent).long()
        row[list(pair)] = target[0, list(pair)]
        worth[pair] = (float(search.worth(row[None])[0]), row)
    best = max((value, pair) for pair, (value, _) in worth.items())
    assert float(search.worth(found[None])[0]) >= best[0] - 0.2, "one after the other, not in pairs"
    assert int((found != torch.from_numpy(parent)).sum()) == 2
    listed = search.ranked(found[None], 1)
    assert any(note.startswith("The parent is predicted at ") for note in listed.notes)


class Wide(nn.Module):
    """`Back`, of thirty positions."""

    def forward(self, z: Tensor) -> TokenSequence:
        return TokenSequence(12.0 * z.unflatten(1, (30, 5)))


def around_a_parent(method: str, decoder: nn.Module) -> Search:
    """A search among changes, two at most, of a sequence of thirty residues A; the property counts what each place holds."""
    rng = np.random.default_rng(0)
    rows, weight = (
        np.where(rng.random((120, 30)) < 0.9, 1, rng.integers(1, 5, (120, 30))).astype(np.uint8),
        np.arange(30),
    )
    spec = protein_spec(30, symbols=SYMBOLS).model_copy(update={"labels": {"fitness": []}})
    y = ((rows > 1) * weight).sum(1).astype(np.float32)
    parts = (Split(rows[i], {"fitness": y[i]}, [str(j) for j in i]) for i in np.split(np.arange(120), [80, 100]))
    data = Data("wide", spec, *parts, [])
    model = Model(Autoencoder(OneHot(), decoder, StandardNormal((150,))), spec)
    settings = replace(FAST, method=method, steps=40, leash=0.0)
    return Search(model, data, Goal("fitness"), settings, constraints_of(data, parent=30 * "A", most=2))


def test_of_many_changes_the_likeliest_are_tried(monkeypatch: pytest.MonkeyPatch):
    """Six for two that are allowed; and what a single one is worth is asked for once in a search."""
    search, asked = around_a_parent("ascent", Wide()), []
    worth = Search._worth
    monkeypatch.setattr(Search, "_worth", lambda self, x: asked.append(len(x)) or worth(self, x))
    target = torch.from_numpy(np.random.default_rng(1).integers(2, 5, (8, 30)))
    strength = torch.from_numpy(
        np.random.default_rng(2).permuted(np.tile(np.linspace(1, 2, 30), (8, 1)), axis=1)
    ).float()
    z = (one_hot(target, 5) * strength[..., None]).flatten(1)
    found = search.decode(z)
    assert sum(asked) <= 8 + 8 * 6 + 8 * 5
    asked.clear()
    assert torch.equal(search.decode(z), found)
    assert sum(asked) <= 8 + 8 * 5
    for i in range(8):
        row = torch.ones(30).long()
        likely = strength[i].argsort(descending=True)[:6]
        for _ in range(2):  # the one that is worth most, by hand
            tried = row.repeat(6, 1)
            tried[torch.arange(6), likely] = target[i, likely]
            values = search.worth(tried)
            row = tried[values.argmax()]
        assert torch.equal(found[i], row)


def test_proposals_of_a_cycle_take_the_likeliest_changes(monkeypatch: pytest.MonkeyPatch):
    """Which changes are worth most is asked at the ten looks on the way and at the end, not for each of forty proposals."""
    search, within, asked = around_a_parent("cycle", Wide()), Search._within, []
    monkeypatch.setattr(Search, "_within", lambda self, x: asked.append(len(x)) or within(self, x))
    rows = search.candidates(3, 0)
    assert asked == 11 * [3]
    assert not search.constraints.broken(rows).any()


def test_the_best_new_sequence_of_each_climb_counts():
    data = additive()
    search = Search(bijection(), data, Goal("fitness"), FAST, constraints_of(data))
    known, new = torch.from_numpy(data.train.values[-3:]).long(), torch.from_numpy(data.test.values[40:46]).long()
    assert search.worth(known).min() > search.worth(new).max()
    rows = search.best_of([known, new[:3], new[3:]])
    for i in range(3):
        pair = new[[i, i + 3]]
        assert torch.equal(rows[i], pair[search.worth(pair).argmax()]), "a known one never, where a new one is there"
    assert torch.equal(search.best_of([known, known]), known)


def test_designs_that_were_measured_are_told_from_new_ones(tmp_path: Path):
    """Of six rows one is a validation and two are test sequences, one of these without a value; three are in no file."""
    data = additive()
    new, test = data.test.values[:3], data.test.subset(np.arange(3, 120))
    test.labels["fitness"][1] = NAN
    data = replace(data, test=test)
    rows = np.concatenate([new, test.values[:2], data.validation.values[:1]])
    search = Search(bijection(), data, Goal("fitness"), replace(FAST, method="evolution"), constraints_of(data))
    found = search.ranked(torch.from_numpy(rows).long(), 6)
    said = dict(zip(map(bytes, found.values), found.columns["measured"].tolist(), strict=True))
    want = {bytes(test.values[0]): truth(test.values[:1])[0], bytes(rows[5]): truth(rows[5:])[0]}
    assert {row: y for row, y in said.items() if not math.isnan(y)} == pytest.approx(want, rel=1e-5)
    assert any(note.startswith("3 of these are among the validation or test sequences") for note in found.notes)
    write_designs(found, data.spec, tmp_path / "some.csv")
    with (tmp_path / "some.csv").open(newline="") as file:
        assert sum(not row["measured"] for row in csv.DictReader(file)) == 4
    assert "nan" not in (tmp_path / "some.fasta").read_text() + found.text()
    others = search.ranked(torch.from_numpy(new).long(), 3)
    assert "measured" not in others.columns
    assert not any("of these are among" in note for note in others.notes)
    kept = replace(search.settings, keep_known=True)
    search = Search(bijection(), data, Goal("fitness"), kept, constraints_of(data))
    known = search.ranked(torch.from_numpy(data.train.values[:2]).long(), 3)
    assert np.isfinite(known.columns["measured"]).all()
    assert not any("of these are among" in note for note in known.notes)
    assert any(note.startswith("Only 2 distinct sequences were found") for note in known.notes)
    (empty,) = (note for note in search.ranked(torch.empty(0, 4).long(), 3).notes if note.startswith("No sequence was"))
    assert "all that came up is against the constraints." in empty


def test_what_speaks_against_a_list_is_said(monkeypatch: pytest.MonkeyPatch):
    data = additive()
    down = replace(data.validation, labels={"fitness": -data.validation.labels["fitness"]})
    found = design(bijection(), replace(data, validation=down), Goal("fitness"), 3, replace(FAST, method="evolution"))
    assert found.accuracy["spearman"] < 0.2
    assert "So its predictions rank nothing: these designs are guesses." in found.notes
    worst = replace(FAST, method="evolution", caution=0.0, steps=1, candidates=1, rounds=1)
    few = design(bijection(), data, Goal("fitness", 0, -1.3521), 10, worst)
    assert len(few)
    assert any("predicted to be better than the best training example, -1.352" in note for note in few.notes)


def test_a_round_that_brings_nothing_new_is_the_last(monkeypatch: pytest.MonkeyPatch):
    """Of three sequences that climbs end at, two come in the first round and one in the second."""
    data, rounds = additive(), []
    ends = torch.from_numpy(data.test.values[:3]).long()

    def candidates(self: Search, n: int, seed: int) -> torch.Tensor:
        rounds.append(seed)
        return ends[:2] if len(rounds) == 1 else ends

    monkeypatch.setattr(Search, "candidates", candidates)
    found = design(bijection(), data, Goal("fitness"), 5, replace(FAST, method="evolution", rounds=8))
    assert (len(found), len(rounds), len(set(rounds))) == (3, 3, 3)
    assert "Only 3 distinct sequences outside the training split were found, of 5 that were asked for." in found.notes
    rounds.clear()
    assert len(design(bijection(), data, Goal("fitness"), 2, replace(FAST, method="evolution", rounds=8))) == 2
    assert len(rounds) == 1


def test_of_few_validation_examples_all_choose_the_weights_and_it_is_said():
    data, settings = additive(), replace(FAST, method="evolution", steps=1)
    few = Split(data.validation.values[:19], {"fitness": data.validation.labels["fitness"][:19]}, [""] * 19)
    for one, words in ((few, "validation examples, which chose its weights too, is"), (data.validation, "on other ")):
        notes = design(bijection(), replace(data, validation=one), Goal("fitness"), 3, settings).notes
        assert words in notes[0]


def test_an_empty_list_says_what_to_do_and_nothing_else_warns(recwarn: pytest.WarningsRecorder):
    """Of a parent all of whose positions are fixed there is one sequence, which no climb changes."""
    data = additive()
    row = data.train.values[0]
    limits = constraints_of(data, parent=to_strings(row[None], data.spec)[0], most=1, fixed=["1-4"])
    for method, words in (
        ("evolution", "Try more candidates, or"),
        ("ode", "Try method evolution, more candidates, or"),
    ):
        found = design(bijection(), data, Goal("fitness"), 3, replace(FAST, method=method, steps=2), limits)
        assert len(found) == 0
        assert any(note.startswith("No sequence was found to propose: ") and words in note for note in found.notes)
    assert not [str(one.message) for one in recwarn if "degrees of freedom" in str(one.message)]


def test_a_property_that_was_read_as_classes_is_named():
    data = additive()
    with pytest.raises(
        ConfigError, match=r"no column of numbers.*Read as classes: dose\. Write measured values with a"
    ):
        optimizing.property_of(replace(data, spec=data.spec.model_copy(update={"labels": {"dose": ["0", "1"]}})))


def test_models_without_codes_are_held_back_by_their_own_bound():
    """A leash that weighs more than the property leads to what the profile thinks likeliest."""
    data = additive()
    profile = Profile(LENGTH, 5)
    profile.fit(torch.from_numpy(data.train.values).long())
    settings = replace(FAST, method="evolution", keep_known=True, steps=40, candidates=1)
    bounds = [
        design(Model(profile, data.spec, name="profile"), data, Goal("fitness"), 10, replace(settings, leash=leash))
        for leash in (0.0, 50.0)
    ]
    free, held = (found.columns["bound_nats"].min() for found in bounds)
    likeliest = total(profile.terms(torch.from_numpy(EVERY).long(), exact=True)).min()
    assert held == pytest.approx(float(likeliest), rel=1e-3)
    assert held < free - 0.5


def test_the_leash_counts_in_what_training_examples_differ_by():
    """A prior of a thousand nats holds like one of a hundredth, codes and rows; one that says nothing does not."""
    data = additive()
    rows = torch.from_numpy(data.train.values).long()
    tilt = torch.linspace(-1, 1, 20)

    def search(nats: float) -> Search:
        prior = StandardNormal((20,))
        prior.terms = lambda z, **_: {"nll": 3 + nats * z @ tilt}  # type: ignore[method-assign]
        return Search(bijection(prior), data, Goal("fitness"), replace(FAST, method="ascent"), constraints_of(data))

    big, little, nothing = search(1e3), search(0.01), search(0.0)
    plain = one_hot(rows, 5).flatten(1) @ tilt
    for found in (big, little):
        assert found.energy is not None
        energy = found.energy(rows)
        assert float(energy.std()) == pytest.approx(1.0, rel=1e-3)
        assert float(np.corrcoef(energy, plain)[0, 1]) == pytest.approx(1.0, abs=1e-4)
    torch.testing.assert_close(big.worth(rows).diff(), little.worth(rows).diff(), atol=1e-3, rtol=1e-3)
    z = torch.randn(4, 20)
    torch.testing.assert_close(big.objective.slope(z), little.objective.slope(z), atol=1e-4, rtol=1e-3)
    slope = big.objective.slope(z) - nothing.objective.slope(z)
    torch.testing.assert_close(slope, (-0.2 / plain.std() * tilt).expand(4, 20), atol=1e-4, rtol=1e-3)


def test_models_without_codes_breed():
    data = additive()
    profile = Profile(LENGTH, 5)
    profile.fit(torch.from_numpy(data.train.values).long())
    model = Model(profile, data.spec, name="profile")
    for start in ("train", "top", "prior"):
        found = design(model, data, Goal("fitness"), 5, replace(FAST, method="evolution", start=start, leash=0.02))
        assert truth(found.values).min() > np.quantile(truth(EVERY), 0.9)
    nll = total(profile.terms(torch.from_numpy(found.values).long(), exact=True))
    assert found.columns["bound_nats"] == pytest.approx(nll.numpy(), rel=1e-5)
    with pytest.raises(ConfigError, match="profile has no codes to climb in: use method 'evolution'"):
        design(model, data, Goal("fitness"), 5, FAST)


def test_without_a_bound_there_is_none_and_it_is_said():
    model = bijection(NoPrior())
    found = design(model, additive(), Goal("fitness"), 3, replace(FAST, method="evolution", leash=0.0))
    assert np.isnan(found.columns["bound_nats"]).all()
    assert any(note.startswith("No bound: ") for note in found.notes)


def without_codes(name: str) -> Model:
    """A model with a head on its hidden states, trained for a moment on the additive data."""
    data = additive(train=80)
    config = model_config(
        name, {"width": 16, "depth": 1, "heads": 2, "properties": {"columns": ("fitness",), "width": 16}}
    )
    with seeded(0):
        density: Any = build(name, config, data.spec).model
        x = torch.from_numpy(EVERY).long()
        y = {"fitness": torch.from_numpy(truth(EVERY)).float()}
        density.head.fit(y)
        optimizer = torch.optim.Adam(density.parameters(), 1e-2)
        for _ in range(120):
            rows = torch.randint(256, (64,))
            optimizer.zero_grad()
            total(density.terms(x[rows], labels={"fitness": y["fitness"][rows]})).mean().backward()
            optimizer.step()
    return Model(density, data.spec, name=name)


@pytest.fixture(scope="module")
def nos() -> Model:
    return without_codes("nos")


@pytest.mark.parametrize("name", ["nos", "lm"])
def test_hidden_states_tell_the_property_where_there_are_no_codes(name, request):
    data, model = additive(train=80), request.getfixturevalue("nos") if name == "nos" else without_codes(name)
    found = regression(model.density, data, data.test, "fitness")
    assert found["spearman/fitness"].value > 0.5
    if name == "nos":  # for the probe's 80 values are the lowest of all
        assert found["spearman/fitness/probe"].value > 0.5
    assert found["mse/fitness/probe"].note == "ridge regression on hidden states"
    said = score_examples(model, data.test.values, data.test.ids).columns["predicted_fitness"]
    assert ((said - data.test.labels["fitness"]) ** 2).mean() == pytest.approx(found["mse/fitness"].value, rel=1e-4)


def test_guidance_leads_token_diffusion_to_the_property(nos: Model):
    data = additive()
    settings = replace(FAST, method="guidance", steps=None)

    def mean(goal: Goal, scale: float) -> float:
        search = Search(nos, data, goal, replace(settings, scale=scale), constraints_of(data))
        return float(truth(search.candidates(300, 1)).mean())

    free = mean(Goal("fitness"), 0.0)
    assert abs(free - truth(EVERY).mean()) < 0.6
    assert mean(Goal("fitness"), 20.0) > free + 1
    assert mean(Goal("fitness", -1), 20.0) < free - 0.5
    low, high = (mean(Goal("fitness", 0, free + aim), 20.0) for aim in (-3.0, 3.0))
    assert low < free - 0.15, "targets in the unit of the column"
    assert high > free + 0.2
    limits = constraints_of(data, parent="ACDE", most=2, fixed=["1"])
    led = design(nos, data, Goal("fitness"), 10, replace(settings, keep_known=False), limits)
    changed = led.values != encode(["ACDE"], LENGTH, SYMBOLS)
    assert len(led) == 10
    assert changed.sum(1).max() <= 2
    assert not changed[:, 0].any()
    assert changed.sum(1).min() > 0
    other = replace(data, spec=data.spec.model_copy(update={"labels": {"fitness": [], "heat": []}}))
    for split in (other.train, other.validation, other.test):
        split.labels["heat"] = split.labels["fitness"]
    with pytest.raises(ConfigError, match="head has not learned 'heat', only fitness"):
        design(nos, other, Goal("heat"), 5, settings)


def test_an_oracle_of_other_sequences_judges_a_list(monkeypatch: pytest.MonkeyPatch):
    """It is the one of `fit_oracle`, sees no value of the training split, and is left out, with a word, where it cannot be."""
    data = additive()
    found = design(bijection(), data, Goal("fitness"), 5, FAST)
    few = beside_oracle(found, data, "fitness")
    assert few.notes[-1] == "No oracle: it needs 200 other test sequences with a value, and there are 136."
    assert "oracle" not in few.columns
    monkeypatch.setattr(optimizing, "FEWEST", 100)
    blind = replace(data, train=replace(data.train, labels={"fitness": np.full(len(data.train), NAN, np.float32)}))
    judged, again = beside_oracle(found, data, "fitness"), beside_oracle(found, blind, "fitness")
    assert judged.columns["oracle"] == pytest.approx(again.columns["oracle"])
    assert judged.columns["oracle"] == pytest.approx(fit_oracle(data, "fitness")(found.values))
    assert np.corrcoef(judged.columns["oracle"], truth(found.values))[0, 1] > 0.3
    mean = judged.columns["oracle"].mean()
    said = f"An oracle fitted to 122 test sequences, which the search did not see, predicts {mean:.4g} on average; its Spearman"
    assert judged.notes[-1].startswith(said)


def test_what_designing_refuses():
    data, model = additive(), bijection()
    vectors = replace(data, spec=DataSpec(kind="vector", shape=(4,), labels={"y": []}))
    with pytest.raises(ConfigError, match="Designs are protein sequences, and these data are vectors: use 'edit'"):
        design(model, vectors, Goal("y"), 3, FAST)
    texts = replace(data, spec=data.spec.model_copy(update={"kind": "text"}))
    with pytest.raises(ConfigError, match="Designs are protein sequences, and these data are texts: use 'edit'"):
        constraints_of(texts)
    with pytest.raises(ConfigError, match=r"no measured property 'fitnes'. Did you mean 'fitness'\?"):
        design(model, data, Goal("fitnes"), 3, FAST)
    classes = replace(data, spec=data.spec.model_copy(update={"labels": {"fitness": ["low", "high"]}}))
    with pytest.raises(ConfigError, match="'fitness' has 2 values and was read as classes"):
        design(model, classes, Goal("fitness"), 3, FAST)
    with pytest.raises(ConfigError, match="'guidance' leads a token diffusion with a property head"):
        design(model, data, Goal("fitness"), 3, replace(FAST, method="guidance"))
    lonely = Constraints(torch.ones(LENGTH, 5).bool(), most=2)
    with pytest.raises(ConfigError, match="max_mutations counts changes from a parent"):
        design(model, data, Goal("fitness"), 3, FAST, lonely)
    for wrong, words in (
        ({"method": "climb"}, "Unknown method 'climb'"),
        ({"start": "end"}, "start = end"),
        ({"members": 1}, "members = 1: at least 2"),
        ({"candidates": 0}, "candidates = 0: at least 1"),
        ({"leash": -1.0}, "leash = -1.0: it is a weight"),
        ({"caution": math.nan}, "caution = nan: it is a weight"),
        ({"method": "ode", "scale": math.inf}, "scale = inf: it is a weight"),
    ):
        with pytest.raises(ConfigError, match=words):
            Settings(**wrong)


def test_designs_are_written_and_read_again(tmp_path: Path):
    gb1 = protein_spec(LENGTH, background="MACDEW", sites=(1, 2, 3, 4), symbols=SYMBOLS)
    data = additive(gb1)
    model = Model(bijection().density, data.spec)
    found = design(model, data, Goal("fitness"), 3, replace(FAST, method="evolution"))
    write_designs(found, data.spec, tmp_path / "best.csv")
    with (tmp_path / "best.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sequence"] for row in rows] == found.sequences
    assert found.sequences[0][0] == "M"
    assert [row["sites"] for row in rows] == [text[1:5] for text in found.sequences]
    for name, values in found.columns.items():
        assert [float(row[name]) for row in rows] == pytest.approx(values.tolist(), rel=1e-5)
    lines = (tmp_path / "best.fasta").read_text().splitlines()
    assert lines[1::2] == found.sequences
    assert lines[0].startswith(">design_1 predicted=")
    assert lines[2].startswith(">design_2 ")
    text = found.text(2).splitlines()
    assert text[0].split() == ["sequence", *found.columns]
    assert text[1].startswith(found.sequences[0])
    assert text[3] == "..."


# The command line -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("designs")
    texts = ["".join(LETTERS[a - 1] for a in row) for row in EVERY]
    lines = [f"{text},{y:.3f},{'ab'[i % 2]}" for i, (text, y) in enumerate(zip(texts, truth(EVERY), strict=True))]
    (folder / "v.csv").write_text("\n".join(["sequence,fitness,batch", *lines]) + "\n")
    values = [word for k, v in small("vae").items() if not isinstance(v, dict) for word in (f"--model.{k}", v)]
    words = ["--training.steps", 12, "--training.batch_size", 32, "--report", "false", "--device", "cpu"]
    assert diled("train", folder / "v.csv", "--model", "vae", "--out", folder / "run", *values, *words) == 0
    return folder / "run"


def test_optimize_from_the_command_line(run: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--goal", "1.5", "--parent", "ACDE", "--max-mutations", "3", "--fixed", "2", "--allowed", "1:AD", "4:CDE"]
    assert diled("optimize", run, *words, "--n", 4, "--method", "evolution", "--steps", 6, "--members", 2) == 0
    said = capsys.readouterr().out
    with (run / "designs.csv").open(newline="") as file:
        texts = [row["sequence"] for row in csv.DictReader(file)]
    assert texts
    assert all(text in said for text in texts)
    assert f"Wrote {run / 'designs.csv'}" in said
    for text in texts:
        assert text[0] in "AD"
        assert text[1] == "C"
        assert text[3] in "CDE"
        assert 1 <= sum(a != b for a, b in zip(text, "ACDE", strict=True)) <= 3
    assert (run / "designs.fasta").read_text().splitlines()[1::2] == texts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--property", "batch"], "'batch' has 2 values and was read as classes, not as a measured property"),
        (["--property", "fit"], "There is no measured property 'fit'."),
        (["--goal", "up"], "goal 'up' is neither max nor min nor a number."),
        (["--out", "designs.fasta"], "'designs.fasta' does not end with .csv"),
        (["--n", "0"], "n = 0: at least 1 is needed."),
        (["--method", "guidance"], "method 'guidance' leads a token diffusion with a property head: train 'nos'."),
    ],
)
def test_optimize_refuses_in_words(run: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert diled("optimize", run, *words) == 2
    assert said in capsys.readouterr().err


def test_ensembles_learn_from_the_examples_with_a_value():
    """However few of a large set these are; of a set that is not too large, all are taken in the order of before."""
    y = np.full(1000, np.nan)
    y[::100] = 1.0
    order = some_with_values(y, 0, most=50)
    assert len(order) == len(set(order)) == 50
    assert sorted(order[:10]) == list(range(0, 1000, 100))
    assert np.array_equal(some_with_values(y, 0, most=1000), np.random.default_rng(0).permutation(1000))
    few = some_with_values(np.where(np.arange(1000) < 3, np.inf, y), 0, most=50)
    assert not set(few[:9]) & {0, 1, 2}, "an infinite one is unknown"
    assert np.array_equal(some_with_values(np.ones(1000), 0, most=50), np.random.default_rng(0).permutation(1000)[:50])


def test_of_many_examples_the_best_are_always_learned_from(monkeypatch: pytest.MonkeyPatch):
    """By the goal, and the others by chance; of a search it is said."""
    y = np.random.default_rng(1).normal(size=2000)
    y[::3] = np.nan
    order = some_with_values(y, 0, most=200)
    best = np.argsort(np.where(np.isfinite(y), -y, np.inf))[:20]
    assert len(order) == len(set(order)) == 200
    assert set(best) <= set(order)
    assert np.isfinite(y[order]).all()
    others = y[[i for i in order if i not in set(best)]]
    assert abs(others.mean()) < 0.3, "as good as any"
    data = additive()
    some = Settings(steps=1, candidates=1, rounds=1)
    said = "The ensembles learned from {} of 80 training examples"
    assert not any(said[:27] in note for note in design(bijection(), data, Goal("fitness"), 4, some).notes)
    monkeypatch.setattr("diled.designing.some_with_values", lambda y, seed: some_with_values(y, seed, most=40))
    for goal, distance in (
        (Goal("fitness"), -data.train.labels["fitness"]),
        (Goal("fitness", -1), data.train.labels["fitness"]),
        (Goal("fitness", 0, -1.0), np.abs(data.train.labels["fitness"] + 1)),
    ):
        search = Search(bijection(), data, goal, some, constraints_of(data))
        held = {row.tobytes() for row in search.train.numpy().astype(np.uint8)}
        assert {row.tobytes() for row in data.train.values[np.argsort(distance)[:4]]} <= held
    assert any(said.format(40) in note for note in search.ranked(search.train[:2], 2).notes)


def test_evolution_mutates_one_free_position_of_a_child():
    """Two of twenty positions have a choice, one in two draws keeps the symbol: half a change each, not a twentieth."""
    allowed = torch.zeros(20, 3).bool()
    allowed[:, 1], allowed[:2, 2] = True, True
    asked = []

    def fitness(x: torch.Tensor) -> torch.Tensor:
        asked.append(x)
        return torch.zeros(len(x))

    uniform = torch.Generator().manual_seed(0)
    drawn: list[torch.Tensor] = []

    def rand(shape):
        drawn.append(torch.rand(shape, generator=uniform))
        return drawn[-1]

    evolution(torch.ones(12, 20).long(), fitness, rand, steps=1, allowed=allowed)
    changed = (drawn[4] < 1 / 2)[:, :2] & (drawn[3][:, :2] >= 0.5)
    expected = {(int(a) + 1, int(b) + 1) for a, b in changed}
    assert len(expected) > 2
    assert {tuple(row[:2].tolist()) for row in asked[1]} == expected | {(1, 1)}


def test_an_alignment_has_gaps_in_designs_where_it_has_them():
    """With a parent too: at the positions of the alignment alone."""
    texts = [f"A{c}{d}{e}" for c in "CDEFG" for d in "-HKLM" for e in "PQRS"]
    data = open_data(texts)
    gap = data.spec.symbols.index("-")
    for parent in (None, "ACHP", "AC-P"):
        assert constraints_of(data, parent=parent).allowed[:, gap].tolist() == [False, False, True, False]


def test_options_that_a_method_does_not_use_are_refused():
    for method in ("ode", "guidance"):
        with pytest.raises(ConfigError, match=f"leash has no effect on method '{method}'"):
            optimize("nowhere", method=method, leash=0.2)
    with pytest.raises(ConfigError, match="scale has no effect on method 'evolution': it is for ode and guidance"):
        optimize("nowhere", scale=3.0)
    for used in ({"method": "ode", "scale": 1.0}, {"leash": 0.2}):
        with pytest.raises(ModelError, match="nowhere"):
            optimize("nowhere", **used)


# Stops, and decoders that write symbol by symbol ----------------------------------------------------------------------

STOP = protein_spec(6)
"""All symbols, the stop among them."""


def stopped(lengths: tuple[int, int]) -> Data:
    """Sequences of so many symbols, each with a stop at its end, and nowhere else."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(lengths[0], lengths[1] + 1, 120)
    texts = ["".join(rng.choice(list("ACDE"), n - 1)) + "*" for n in sizes]
    values = encode(texts, 6)
    parts = [
        Split(values[rows], {"fitness": (values[rows] == 1).sum(1).astype(np.float32)}, [str(i) for i in rows])
        for rows in np.split(np.arange(120), [80, 100])
    ]
    return Data("stops", STOP.model_copy(update={"labels": {"fitness": []}}), *parts, [])


@pytest.mark.parametrize("lengths", [(6, 6), (4, 6)])
def test_designs_end_with_a_stop_where_training_sequences_do(lengths: tuple[int, int]):
    data = stopped(lengths)
    limits = constraints_of(data)
    rows = torch.from_numpy(np.random.default_rng(1).integers(1, 24, (50, 6)))
    uniform = torch.rand(50, 6, generator=torch.Generator().manual_seed(0))
    logits = torch.randn(50, 6, 24, generator=torch.Generator().manual_seed(0))
    for found in (limits.repair(rows, uniform), limits.decode(logits)):
        texts = to_strings(found.numpy(), data.spec)
        assert all(
            text.endswith("*") and text.count("*") == 1 and lengths[0] <= len(text) <= lengths[1] for text in texts
        )
        assert not limits.broken(found).any()
    wrong = torch.from_numpy(encode(["ACDEAC", "A*DEA*"], 6).astype(np.int64))
    assert limits.broken(wrong).all()
    model = Model(Profile(6, 24), data.spec)
    model.density.fit(torch.from_numpy(data.train.values).long())
    designs = design(model, data, Goal("fitness"), 10, Settings(steps=10))
    assert all(text.endswith("*") and text.count("*") == 1 for text in designs.sequences)
    assert (
        design(
            model,
            data,
            Goal("fitness"),
            5,
            Settings(steps=10),
            constraints_of(data, parent="ACDEA*"[-lengths[0] :], most=2),
        ).sequences[0][-1]
        == "*"
    )


def test_a_stop_is_only_where_it_may_be():
    """Residues that are asked of the fifth of four to six symbols leave no place for a stop there and before."""
    data = stopped((4, 6))
    rows, some = torch.from_numpy(data.train.values.astype(np.int64)), torch.Generator().manual_seed(0)
    for place in (4, 5):
        limits = constraints_of(data, allowed=[f"{place}:AC"])
        decoded = limits.decode(torch.randn(50, 6, 24, generator=some))
        for found in (limits.repair(rows, torch.rand(rows.shape, generator=some)), decoded):
            texts = to_strings(found.numpy(), data.spec)
            assert all(text[place - 1] in "AC" and text.index("*") == len(text) - 1 >= place for text in texts)
    with pytest.raises(
        ConfigError, match="the symbol that each must end with, such as a stop, is allowed at no position"
    ):
        constraints_of(data, allowed=["6:AC"])
    assert constraints_of(data, parent="ACDEAC", allowed=["6:AC"]).last is None, "changes are substitutions"


def test_a_rare_stop_is_none_of_designs():
    data = stopped((6, 6))
    data.train.values[::4, 5] = 1
    assert constraints_of(data).last is None
    assert not constraints_of(data).allowed[:, STOP.symbols.index("*")].any()


class Written(nn.Module):
    """A decoder whose distribution has a mode and no logits of all positions."""

    class Mode:
        def __init__(self, mode: Tensor) -> None:
            self.mode = mode

    def forward(self, z: Tensor) -> Any:
        return self.Mode(z.unflatten(1, (LENGTH, 5)).argmax(2))


class Long(Written):
    """The same, of thirty positions."""

    def forward(self, z: Tensor) -> Any:
        return self.Mode(z.unflatten(1, (30, 5)).argmax(2))


def test_climbs_with_a_decoder_that_writes_symbol_by_symbol():
    data = additive()
    model = Model(Autoencoder(OneHot(), Written(), StandardNormal((20,))), data.spec)
    limits = constraints_of(data, allowed=["1:A"])
    search = Search(model, data, Goal("fitness"), Settings(method="hill", steps=5, leash=0.0), limits)
    rows = search.decode(search.encode(torch.from_numpy(EVERY).long()))
    assert (rows[:, 0] == 1).all()
    assert (rows[:, 1:].numpy() == EVERY[:, 1:]).all()
    led = Search(model, data, Goal("fitness"), Settings(method="ode", steps=5), limits).candidates(8, 0)
    assert (led[:, 0] == 1).all()
    search = around_a_parent("hill", Long())
    target = torch.arange(60).reshape(2, 30) % 3 + 2
    z = one_hot(target, 5).flatten(1)
    for row, symbols, tried in zip(search.decode(z), target, search.likeliest(z, search.constraints), strict=True):
        alone = torch.where(torch.eye(30).bool(), symbols, torch.ones(30, 30).long())
        best = search.worth(alone).topk(2).indices
        assert sorted((tried != 1).nonzero()[:, 0].tolist()) == sorted(best.tolist()), "those that are worth most alone"
        assert (row != 1).sum() in (1, 2)
        assert best[0] in (row != 1).nonzero()


def test_a_fasta_file_of_other_sequences_is_not_overwritten(tmp_path: Path):
    """It may be the parent's, or the training data."""
    beside = tmp_path / "gfp.fasta"
    beside.write_text(">gfp\nACDE\n")
    with pytest.raises(ConfigError, match=r"gfp\.fasta is there and holds no designs"):
        optimizing.check_designs(tmp_path / "gfp.csv")
    assert beside.read_text() == ">gfp\nACDE\n"
    beside.write_text(">design_1 predicted=1\nACDE\n")
    optimizing.check_designs(tmp_path / "gfp.csv")


def test_designs_are_read_against_the_best_of_all_training_examples(monkeypatch: pytest.MonkeyPatch):
    """Also where ensembles learn from some of them."""
    monkeypatch.setattr("diled.designing.some_with_values", lambda y, seed: np.argsort(y)[:40])
    data = additive()
    data.train.labels["fitness"][7] = 99.0
    found = design(bijection(), data, Goal("fitness"), 4, Settings(steps=1, candidates=1, rounds=1))
    assert any("best training example, 99." in note for note in found.notes)
