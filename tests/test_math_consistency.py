"""Consistency models: the boundary, the levels, the teacher's step, and a function that is consistent by construction."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from closed_forms import GaussianDenoiser, alpha_sigma, loglog_slope, wrong_denoiser
from torch import nn

from diled.api import NoBound
from diled.diffusion import Consistency, ConsistencyFunction, Diffusion, LinearLogSNR, LogNormal, karras_levels
from diled.diffusion.diffusion import stratified_times
from diled.distributions import Normal
from diled.errors import ConfigError

LOW, HIGH = -6.0, 5.0
FIRST, LAST = math.exp(LOW / 2), math.exp(HIGH / 2)  # the cleanest and the noisiest s
STD = 0.7


class Exact(nn.Module):
    """f(x_s, s) = x_s sqrt((c^2 + s_0^2) / (c^2 + s^2)): where the ODE of N(0, c^2) ends that passes through x_s."""

    def forward(self, z_t, log_snr, condition=None):
        x, s = z_t / torch.sigmoid(log_snr).sqrt()[:, None], torch.exp(-0.5 * log_snr)[:, None]
        return x * ((STD**2 + FIRST**2) / (STD**2 + s**2)).sqrt()


class Multiple(nn.Module):
    """f = k x_s + 0.2 s: consistent with nothing; it reads both of its arguments."""

    def forward(self, z_t, log_snr, condition=None):
        return 1.3 * z_t / torch.sigmoid(log_snr).sqrt()[:, None] + 0.2 * torch.exp(-0.5 * log_snr)[:, None]


def consistency(student, teacher: bool = False, dims: int = 2, **options) -> Consistency:
    exact = GaussianDenoiser(torch.zeros(dims).double(), torch.full((dims,), STD**2).double())
    prior = Diffusion(exact, LinearLogSNR(LOW, HIGH), (dims,)) if teacher else None
    return Consistency(student, LinearLogSNR(LOW, HIGH), (dims,), prior=prior, **options).double()


# ----------------------------------------------------------------------------------------------- the function itself


def test_the_boundary_is_the_identity():
    f = ConsistencyFunction(lambda x, log_snr, c: wrong_denoiser(x, log_snr), LOW, STD)
    x = torch.randn(5, 2).double()
    a_0, _ = alpha_sigma(torch.tensor(LOW).double())
    torch.testing.assert_close(f(a_0 * x, torch.full((5,), -LOW).double()), x)


def test_skip_and_out_are_the_published_ones():
    """c_skip = d^2 / ((s - s_0)^2 + d^2), c_out = d (s - s_0) / sqrt(s^2 + d^2), c_in = 1 / sqrt(s^2 + d^2)."""
    x, condition, log_snr = torch.randn(5, 2).double(), torch.randn(5, 2).double(), torch.linspace(-5, 6, 5).double()
    s = torch.exp(-0.5 * log_snr)[:, None]
    f = ConsistencyFunction(lambda x, log_snr, c: wrong_denoiser(x, log_snr) + c, LOW, STD)
    inner = wrong_denoiser(x / (s**2 + STD**2).sqrt(), log_snr) + condition
    want = STD**2 / ((s - FIRST) ** 2 + STD**2) * x + STD * (s - FIRST) / (s**2 + STD**2).sqrt() * inner
    z_t = torch.sigmoid(log_snr).sqrt()[:, None] * x
    torch.testing.assert_close(f(z_t, log_snr, condition), want)


# ------------------------------------------------------------------------------------------------- levels and counts


@pytest.mark.parametrize(("finest", "want"), [(160, [10, 20, 40, 80, 160, 160]), (50, [10, 10, 20, 40, 50, 50])])
def test_the_number_of_levels_doubles_at_equal_intervals(finest, want):
    """N(k) = min(s_0 2^floor(k / K'), s_1), K' = K / (log2(s_1 / s_0) + 1) (Song & Dhariwal 2024, Table 1)."""
    model = consistency(Exact(), finest=finest)
    intervals = math.ceil(math.log2(finest / 10)) + 1
    for i, progress in enumerate([0.0, 0.21, 0.41, 0.61, 0.81, 1.0]):
        assert float(model.count(progress)) == min(10 * 2 ** math.floor(progress * intervals), finest) == want[i]
        assert float(model.count(torch.tensor(progress))) == want[i]


def published_levels(n: int) -> torch.Tensor:
    """s_1 < ... < s_{n+1}, equally spaced in s^(1/7) (Karras et al. 2022, Eq. 5)."""
    i = torch.arange(n + 1).double() / n
    return (FIRST ** (1 / 7) + i * (LAST ** (1 / 7) - FIRST ** (1 / 7))) ** 7


@pytest.mark.parametrize("n", [10, 40])
def test_neighbours_are_cells_of_a_discretised_log_normal(n):
    """p(n) is proportional to Phi((ln s_{n+1} + 1.1) / 2) - Phi((ln s_n + 1.1) / 2) (Song & Dhariwal 2024, Eq. 10)."""
    model, many = consistency(Exact(), coarsest=n, finest=n), 40_000
    low, high = model._neighbours(many, 0.0, torch.zeros(1).double())
    s = published_levels(n)
    cell = torch.searchsorted(s, low * (1 + 1e-6)) - 1
    torch.testing.assert_close(low, s[cell], rtol=1e-5, atol=0)
    torch.testing.assert_close(high, s[cell + 1], rtol=1e-5, atol=0)
    cdf = torch.tensor(scipy.stats.norm.cdf((s.log() + 1.1) / 2))
    want = cdf.diff() / (cdf[-1] - cdf[0])
    got = torch.bincount(cell, minlength=n) / many
    torch.testing.assert_close(got.double(), want, rtol=0, atol=3 / many)  # the levels are stratified


# -------------------------------------------------------------------------------------------------------- the loss


def huber(difference: torch.Tensor) -> torch.Tensor:
    """sqrt(|| . ||^2 + c^2) - c with c = 0.00054 sqrt(D)."""
    c = 0.00054 * math.sqrt(difference.shape[1])
    return ((difference**2).sum(1) + c**2).sqrt() - c


def drawn(model: Consistency, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The levels and the noise that `terms` draws next, by the published formulas."""
    torch.manual_seed(6)
    n = model.finest  # at the end of the training
    t = stratified_times(len(x), 1, x)
    levels = scipy.stats.truncnorm((LOW / 2 + 1.1) / 2, (HIGH / 2 + 1.1) / 2, -1.1, 2.0)
    s, noise = published_levels(n), torch.tensor(levels.ppf(t.numpy())).exp()
    cell = (torch.searchsorted(s, noise) - 1).clamp(0, n - 1)
    e = torch.randn_like(x)
    torch.manual_seed(6)
    return s[cell], s[cell + 1], e


def f(student, x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    a, _ = alpha_sigma(2 * s.log())
    return student(a[:, None] * x, -2 * s.log())


def test_loss_from_scratch_by_hand():
    """huber(f(x + s_{n+1} e, s_{n+1}), f(x + s_n e, s_n)) / (s_{n+1} - s_n), the same e in both."""
    model, x = consistency(Multiple()), torch.randn(50, 2).double()
    low, high, e = drawn(model, x)
    got = model.terms(x)["consistency"]
    a, b = (f(Multiple(), x + s[:, None] * e, s) for s in (high, low))
    torch.testing.assert_close(got, huber(a - b) / (high - low), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got, huber((1.3 * e + 0.2) * (high - low)[:, None]) / (high - low), rtol=1e-4, atol=1e-6)


def test_loss_of_distillation_by_hand():
    """x_n is one step of Heun's method from x_{n+1} (Karras et al. 2022, Algorithm 1, with sigma(t) = t)."""
    model, x = consistency(Multiple(), teacher=True), torch.randn(50, 2).double()
    low, high, e = drawn(model, x)
    got = model.terms(x)["consistency"]
    noisy = x + high[:, None] * e

    def slope(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return x * s[:, None] / (STD**2 + s[:, None] ** 2)  # (x - D(x; s)) / s with D = c^2 x / (c^2 + s^2)

    step = (low - high)[:, None]
    d = slope(noisy, high)
    less = noisy + step * 0.5 * (d + slope(noisy + step * d, low))
    want = huber(f(Multiple(), noisy, high) - f(Multiple(), less, low)) / (high - low)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_the_target_gets_no_gradient():
    """Only f at the noisier level trains."""
    net = nn.Linear(2, 2).double()
    model = consistency(ConsistencyFunction(lambda x, log_snr, c: net(x), LOW, STD))
    x = torch.randn(50, 2).double()
    low, high, e = drawn(model, x)
    got = torch.autograd.grad(model.terms(x)["consistency"].sum(), net.parameters())
    with torch.no_grad():
        target = f(model.student, x + low[:, None] * e, low)
    loss = huber(f(model.student, x + high[:, None] * e, high) - target) / (high - low)
    for mine, want in zip(got, torch.autograd.grad(loss.sum(), net.parameters()), strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-4)


def test_the_teachers_step_follows_the_exact_ode():
    """x / sqrt(c^2 + s^2) is kept; one step errs at third order."""
    model, x = consistency(Exact(), teacher=True), torch.randn(9, 2).double()
    sizes, errors = [10, 20, 40], []
    for n in sizes:
        high, low = torch.full((9,), 1.0).double(), torch.full((9,), 1.0 - 1 / n).double()
        want = x * ((STD**2 + low**2) / (STD**2 + high**2)).sqrt()[:, None]
        errors.append(float((model._step(x, high, low) - want).norm()))
    assert loglog_slope(sizes, errors) == pytest.approx(3, abs=0.15)


def test_the_loss_of_the_exact_function_vanishes_with_many_levels():
    x = STD * torch.randn(400, 2).double()
    sizes, losses = [20, 40, 80], []
    for n in sizes:
        model = consistency(Exact(), teacher=True, coarsest=n, finest=n)
        low, high = model._neighbours(400, 0.0, x)
        noisy = x + high[:, None] * torch.randn_like(x)
        gap = f(Exact(), noisy, high) - f(Exact(), model._step(noisy, high, low), low)
        losses.append(float(gap.norm()))
    assert loglog_slope(sizes, losses) == pytest.approx(3, abs=0.4)
    fine = consistency(Exact(), teacher=True, coarsest=3000, finest=3000)
    wrong = consistency(Multiple(), teacher=True, coarsest=3000, finest=3000)
    assert float(fine.terms(x)["consistency"].max()) < 1e-6
    assert float(wrong.terms(x)["consistency"].mean()) > 0.1


# -------------------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("mean", [True, False])
def test_samples_of_the_exact_function_have_the_known_variance(steps, mean):
    """x is linear in its noises; their squared gains add up to the recursion of Song et al. 2023, Algorithm 1."""
    model = consistency(Exact(), dims=1, steps=steps)
    draws = steps + (0 if mean else 1)
    gains = []
    for i in range(draws):
        count = iter(range(draws))
        x = model.sample(
            1, noise=lambda shape, i=i, c=count: torch.full(shape, float(next(c) == i)).double(), mean=mean
        )
        assert next(count, None) is None  # every draw was asked for
        gains.append(float(x))
    s = published_levels(steps).flip(0).tolist()
    var = s[0] ** 2 * (STD**2 + FIRST**2) / (STD**2 + s[0] ** 2)
    for level in s[1:-1]:
        var = (var + level**2 - FIRST**2) * (STD**2 + FIRST**2) / (STD**2 + level**2)
    var += 0 if mean else FIRST**2
    assert sum(g**2 for g in gains) == pytest.approx(var, rel=1e-4)
    assert var == pytest.approx(STD**2, rel=0.02)  # but for the last step's noise and the noisy end


def test_samples_take_karras_levels_and_the_default_steps():
    seen = []

    class Watching(Exact):
        def forward(self, z_t, log_snr, condition=None):
            seen.extend((-log_snr[:1]).tolist())
            return super().forward(z_t, log_snr)

    model = consistency(Watching(), steps=3)
    model.sample(2)
    assert seen == pytest.approx(karras_levels(LinearLogSNR(LOW, HIGH), 3)[:-1].tolist(), abs=1e-4)
    seen.clear()
    model.sample(2, steps=1)
    assert seen == pytest.approx([HIGH])


def test_samples_on_a_grid():
    model = consistency(Exact(), levels=3)
    assert set(model.sample(50).flatten().tolist()) <= {-1.0, 0.0, 1.0}


def test_no_bound_and_no_other_sampler():
    model, x = consistency(Exact()), torch.randn(4, 2).double()
    for q in (x, Normal(x, x)):
        assert model.terms(q)["consistency"].shape == (4,)
        with pytest.raises(NoBound, match="no likelihood"):
            model.terms(q, exact=True)
    with pytest.raises(ConfigError, match="its own sampler"):
        model.sample(2, sampler="ddim")
    assert isinstance(model.proposal, LogNormal)
