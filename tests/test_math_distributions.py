"""Distributions against scipy, torch.distributions, Monte Carlo and sums over the grid; and who refuses to give a bound."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from closed_forms import GaussianDenoiser, alpha_sigma, assert_mean, wrong_denoiser
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from diled.api import NoBound, has_entropy
from diled.bins import log_ndtr
from diled.diffusion import EDM, PARAMETERIZATIONS, DataDiffusion, Diffusion, LinearLogSNR, Mixed, V
from diled.distributions import (
    Bernoulli,
    Dirac,
    Discretized,
    Logistic,
    LogisticMixture,
    NoisyGrid,
    Normal,
    on_grid,
    round_to_grid,
)
from diled.models.autoencoder import (
    Autoencoder,
    BernoulliLikelihood,
    DiracEncoder,
    DiscretizedLikelihood,
    GaussianEncoder,
    GaussianLikelihood,
    LikelihoodDecoder,
    LogisticMixtureLikelihood,
)
from diled.models.priors import StandardNormal
from diled.nn.blocks import mlp

SHAPE = (6, 3, 2)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


# --------------------------------------------------------------------------------- densities: nll, entropy, KL


def test_normal_against_scipy():
    q, x = Normal(randn(*SHAPE), randn(*SHAPE)), randn(*SHAPE)
    scipy_q = scipy.stats.norm(q.mean.numpy(), (0.5 * q.log_var).exp().numpy())
    torch.testing.assert_close(q.nll(x), torch.tensor(-scipy_q.logpdf(x.numpy()).sum((1, 2))))
    torch.testing.assert_close(q.entropy(), torch.tensor(scipy_q.entropy().sum((1, 2))))
    torch.testing.assert_close(q.var, q.log_var.exp())
    torch.testing.assert_close(q.mode, q.mean)


def test_normal_kl_against_torch_and_monte_carlo():
    q, p = (Normal(randn(5, 3), randn(5, 3)) for _ in range(2))
    want = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mean, q.var.sqrt()), torch.distributions.Normal(p.mean, p.var.sqrt())
    )
    torch.testing.assert_close(q.kl_dims(p), want)
    torch.testing.assert_close(q.kl(p), want.sum(1))
    many = Normal(q.mean[:1].expand(100_000, 3), q.log_var[:1].expand(100_000, 3))
    z = many.sample()
    assert_mean(Normal(p.mean[:1], p.log_var[:1]).nll(z) - many.nll(z), float(q.kl(p)[0]))
    assert_mean(many.nll(z), float(q.entropy()[0]))
    assert float(q.kl(q).abs().max()) < 1e-12


def test_normal_with_one_variance_for_all():
    mean, x = randn(4, 3), randn(4, 3)
    narrow, wide = Normal(mean, torch.tensor(-1.0).double()), Normal(mean, torch.full((4, 3), -1.0).double())
    for f in (lambda q: q.nll(x), lambda q: q.entropy(), lambda q: q.kl(Normal(x, randn(4, 3) * 0)), lambda q: q.var):
        torch.testing.assert_close(f(narrow), f(wide))
    torch.testing.assert_close(narrow.repeat(2).nll(x.repeat(2, 1)), wide.repeat(2).nll(x.repeat(2, 1)))
    torch.testing.assert_close(wide.repeat(3).mean, torch.cat([mean] * 3))
    assert wide.repeat(3).log_var.shape == (12, 3)


def test_affine_pushes_forward():
    q, x = Normal(randn(5, 3), randn(5, 3)), randn(5, 3)
    for scale in (torch.tensor([2.0, 0.1, -1.5]).double(), 0.3, torch.tensor(4.0).double()):
        y = q.affine(scale, 1.5)
        jacobian = torch.as_tensor(scale, dtype=torch.float64).abs().log().expand(3).sum()
        torch.testing.assert_close(y.nll(scale * x + 1.5), q.nll(x) + jacobian)  # change of variables
        torch.testing.assert_close(y.entropy(), q.entropy() + jacobian)
        e = randn(5, 3)
        same = torch.as_tensor(scale, dtype=torch.float64).sign()
        torch.testing.assert_close(y.sample(lambda shape, e=e: e), scale * q.sample(lambda s, e=e * same: e) + 1.5)
        torch.testing.assert_close(
            y.kl(Normal(torch.zeros_like(x), torch.zeros_like(x)).affine(scale, 1.5)),
            q.kl(Normal(torch.zeros_like(x), torch.zeros_like(x))),
        )
    torch.testing.assert_close(Dirac(x).affine(2.0, 1.0).mean, 2 * x + 1)


def test_scale_gradient_of_a_distribution():
    mean, log_var = randn(4, 2).requires_grad_(), randn(4, 2).requires_grad_()
    q = Normal(mean, log_var)
    z = q.scale_gradient(0.3)
    torch.testing.assert_close(z.nll(mean.detach() + 1), q.nll(mean.detach() + 1))
    want = torch.autograd.grad(q.nll(torch.ones(4, 2)).sum(), [mean, log_var])
    got = torch.autograd.grad(z.nll(torch.ones(4, 2)).sum(), [mean, log_var])
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, 0.3 * w)
    (got,) = torch.autograd.grad(Dirac(mean).scale_gradient(0.3).sample().sum(), mean)
    torch.testing.assert_close(got, torch.full((4, 2), 0.3).double())


def test_logistic_against_scipy():
    q, x = Logistic(randn(*SHAPE), randn(*SHAPE)), randn(*SHAPE)
    scipy_q = scipy.stats.logistic(q.mean.numpy(), q.log_scale.exp().numpy())
    torch.testing.assert_close(q.nll(x), torch.tensor(-scipy_q.logpdf(x.numpy()).sum((1, 2))))
    torch.testing.assert_close(q.entropy(), torch.tensor(scipy_q.entropy().sum((1, 2))))
    one = torch.ones_like(x)
    torch.testing.assert_close(q.log_cdf(x, one), torch.tensor(scipy_q.logcdf(x.numpy())))
    torch.testing.assert_close(q.log_cdf(x, -one), torch.tensor(scipy_q.logsf(x.numpy())))
    e = randn(*SHAPE)
    torch.testing.assert_close(q.sample(lambda s: e), torch.tensor(scipy_q.ppf(scipy.stats.norm.cdf(e.numpy()))))


def test_bernoulli_against_torch():
    q = Bernoulli(3 * randn(5, 4))
    x = torch.randint(0, 2, (5, 4)).double()
    want = torch.distributions.Bernoulli(logits=q.logits)
    torch.testing.assert_close(q.nll(2 * x - 1), -want.log_prob(x).sum(1))
    torch.testing.assert_close(q.entropy(), want.entropy().sum(1))
    torch.testing.assert_close(q.mean, 2 * want.mean - 1)
    torch.testing.assert_close(q.mode, 2 * (want.probs > 0.5).double() - 1)
    total = torch.zeros(5).double()
    for bits in itertools.product([-1.0, 1.0], repeat=4):
        total += torch.exp(-q.nll(torch.tensor([bits]).double().expand(5, 4)))
    torch.testing.assert_close(total, torch.ones(5).double())
    draws = Bernoulli(q.logits[:1].expand(50_000, 4)).sample()
    for d in range(4):
        assert_mean(draws[:, d], float(q.mean[0, d]))


def test_dirac_is_a_point_without_a_density():
    x = randn(3, 2)
    torch.testing.assert_close(Dirac(x).sample(), x)
    torch.testing.assert_close(Dirac(x).mode, x)
    assert not has_entropy(Dirac(x))
    assert has_entropy(Normal(x, x))
    for refuse in (Dirac(x).entropy, lambda: Dirac(x).nll(x), lambda: Dirac(x).check(x)):
        with pytest.raises(NoBound):
            refuse()


# -------------------------------------------------------------------------------------------------- grid measures


def base_of(kind: str, mean: torch.Tensor, log_scale: torch.Tensor):
    return Normal(mean, 2 * log_scale) if kind == "normal" else Logistic(mean, log_scale)


def grid_log_probs(q: Discretized) -> torch.Tensor:
    grid = torch.linspace(-1, 1, q.levels, dtype=q.base.mean.dtype)
    return torch.stack([q.log_prob_dims(v.expand_as(q.base.mean)) for v in grid])


KINDS = ["normal", "logistic"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [2, 6, 17, 256])
def test_discretized_against_scipy(kind, levels):
    mean, log_scale = 0.8 * randn(40), 0.5 * randn(40) - 1
    q = Discretized(base_of(kind, mean, log_scale), levels)
    scipy_q = (scipy.stats.norm if kind == "normal" else scipy.stats.logistic)(mean.numpy(), log_scale.exp().numpy())
    grid, h = torch.linspace(-1, 1, levels, dtype=torch.float64), 1 / (levels - 1)
    for i, (x, log_p) in enumerate(zip(grid, grid_log_probs(q), strict=True)):
        up = scipy_q.cdf(float(x) + h) if i < levels - 1 else 1.0
        down = scipy_q.cdf(float(x) - h) if i > 0 else 0.0
        torch.testing.assert_close(log_p.exp(), torch.tensor(up - down), rtol=1e-6, atol=1e-9)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.sampled_from(KINDS),
    st.sampled_from([2, 3, 17, 256]),
    st.floats(-30, 30),
    st.floats(-9, 10),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_discretized_sums_to_one_and_is_finite(kind, levels, mean, log_scale, dtype):
    m = torch.full((1, 1), mean, dtype=dtype, requires_grad=True)
    s = torch.full((1, 1), log_scale, dtype=dtype, requires_grad=True)
    q = Discretized(base_of(kind, m, s), levels)
    log_p = q.log_prob_dims(torch.linspace(-1, 1, levels, dtype=dtype)[:, None])[:, 0]
    assert bool(torch.isfinite(log_p).all())
    assert bool((log_p <= 0).all())
    assert float(torch.logsumexp(log_p.detach(), 0).exp()) == pytest.approx(
        1, abs=2e-4 if dtype == torch.float32 else 1e-9
    )
    entropy = q.entropy().sum() if levels < 256 else -(log_p.exp() * log_p).sum()
    for value in (log_p.sum(), entropy, q.nll(torch.ones(1, 1, dtype=dtype)).sum()):
        for g in torch.autograd.grad(value, [m, s], retain_graph=True):
            assert bool(torch.isfinite(g).all())


@pytest.mark.parametrize("kind", KINDS)
def test_discretized_is_accurate_far_in_the_tails(kind):
    """-log P in float32 agrees with scipy's tails where the difference of two distribution functions would be 0."""
    mean, scale, levels = -0.9, 0.02, 256
    h = 1 / 255
    q = Discretized(base_of(kind, torch.full((1, 1), mean), torch.full((1, 1), math.log(scale))), levels)
    scipy_q = (scipy.stats.norm if kind == "normal" else scipy.stats.logistic)(mean, scale)
    for x in (-1.0, -0.2, 0.3, 254 / 255 * 2 - 1, 1.0):
        x = float(round_to_grid(torch.tensor(x).double(), levels))
        upper, lower = scipy_q.logsf(x - h), scipy_q.logsf(x + h)
        want = -upper if x > 0.999 else -(upper + math.log1p(-math.exp(lower - upper)))
        if x < -0.999:
            want = -scipy_q.logcdf(x + h)
        assert float(q.nll(torch.tensor([[x]]))) == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_discretized_gradients_in_float32_are_those_of_float64(kind):
    """Far from the data too, where a confident decoder begins: torch's own gradient of log Phi is lost to rounding."""
    for mean, log_scale, x in itertools.product((-6.0, -0.3, 2.0), (-8.0, -6.0, -2.0, 1.0), (-1.0, 0.2, 1.0)):
        grads = []
        for dtype in (torch.float32, torch.float64):
            m, s = (torch.full((1, 1), v, dtype=dtype, requires_grad=True) for v in (mean, log_scale))
            nll = Discretized(base_of(kind, m, s), 11).nll(torch.full((1, 1), x, dtype=dtype))
            grads.append(torch.cat(torch.autograd.grad(nll.sum(), [m, s])).double())
        torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("levels", [2, 17])
def test_slopes_of_logistic_bins_of_first_and_second_order(levels):
    """In a cell that is open above, below or on no side."""
    x = torch.tensor([[-1.0], [1.0], [float(round_to_grid(torch.tensor(0.3), levels))]]).double()
    mean, log_scale = (randn(3, 1).requires_grad_() for _ in range(2))

    def nll(mean: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
        return Discretized(Logistic(mean, log_scale), levels).nll(x)

    assert torch.autograd.gradcheck(nll, (mean, log_scale), raise_exception=False)
    assert torch.autograd.gradgradcheck(nll, (mean, log_scale), raise_exception=False)
    rows = torch.func.vmap(torch.func.grad(lambda m, s, x: Discretized(Logistic(m, s), levels).nll(x[None]).sum()))
    torch.testing.assert_close(rows(mean, log_scale, x), torch.autograd.grad(nll(mean, log_scale).sum(), mean)[0])


def test_a_mixture_is_the_same_in_pieces(monkeypatch):
    x, grads = round_to_grid(randn(7, 3, 1), 4), []
    for piece in (10**9, 25):  # two examples of nine numbers
        monkeypatch.setattr("diled.bins.PIECE", piece)
        m = mixture(3, 3, 4, 7)
        parameters = [m.log_weights, m.means, m.log_scales, m.coefficients]
        parameters = [p.clone().requires_grad_() for p in parameters]
        nll = LogisticMixture(*parameters, 4).nll(x)
        grads.append((nll, *torch.autograd.grad(nll @ torch.arange(7.0).double(), parameters)))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_phi_and_its_slope_are_scipys_on_both_sides_of_where_the_series_begins(dtype):
    u = torch.tensor([-1e5, -3000, -30.5, -30.01, -29.99, -10.01, -9.99, -5, -1, 0, 1, 5, 9, 40], dtype=dtype)
    u.requires_grad_()
    log_phi = log_ndtr(u)
    (slope,) = torch.autograd.grad(log_phi.sum(), u)
    at = u.detach().double().numpy()
    tolerance = {"rtol": 1e-6, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-13, "atol": 1e-15}
    np.testing.assert_allclose(log_phi.detach().double(), scipy.special.log_ndtr(at), **tolerance)
    want = np.exp(scipy.stats.norm.logpdf(at) - scipy.special.log_ndtr(at))
    np.testing.assert_allclose(slope.double()[2:], want[2:], rtol=2e-5 if dtype == torch.float32 else 1e-10, atol=1e-12)
    np.testing.assert_allclose(slope.double()[:2], -at[:2], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_discretized_limits(kind):
    def probs(mean, log_scale):
        base = base_of(kind, torch.tensor([[mean]]).double(), torch.tensor([[log_scale]]).double())
        return grid_log_probs(Discretized(base, 5))[:, 0, 0].exp()

    # a large scale leaves half of the mass in each of the open ends, a tiny one all of it in the nearest value
    torch.testing.assert_close(probs(0.0, 12.0), torch.tensor([0.5, 0, 0, 0, 0.5]).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(probs(0.1, -9.0), torch.tensor([0, 0, 1.0, 0, 0]).double())
    torch.testing.assert_close(probs(7.0, -9.0), torch.tensor([0, 0, 0, 0, 1.0]).double())
    # fine grids approach density times spacing
    x = torch.tensor([[0.2]]).double()
    base = base_of(kind, torch.tensor([[0.1]]).double(), torch.tensor([[-1.0]]).double())
    x = round_to_grid(x, 4097)
    fine = Discretized(base, 4097).nll(x) + math.log(2 / 4096)
    torch.testing.assert_close(fine, base.nll(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_discretized_samples_and_entropy(kind):
    q = Discretized(base_of(kind, torch.full((60_000, 1), 0.3), torch.full((60_000, 1), -0.5)), 5)
    x = q.sample()
    q.check(x)
    grid = torch.linspace(-1, 1, 5)
    for value in grid:
        p = torch.exp(-q.nll(value.expand(60_000, 1)))[0]
        assert_mean(((x - value).abs() < 1e-3).double()[:, 0], float(p))
    assert_mean(q.nll(x), float(q.entropy()[0]))
    assert float(q.mode[0]) == pytest.approx(0.5)
    assert float(q.mean[0]) == pytest.approx(0.3)
    assert Discretized(base_of(kind, torch.full((1, 1), 3.0), torch.zeros(1, 1)), 5).mean.item() == 1.0


def test_round_to_grid_and_on_grid():
    x = torch.tensor([-3.0, -0.99, -0.2, 0.24, 0.26, 9.0])
    torch.testing.assert_close(round_to_grid(x, 5), torch.tensor([-1.0, -1.0, 0.0, 0.0, 0.5, 1.0]))
    for levels in (2, 5, 17, 100, 256):
        codes = torch.randint(0, levels, (300, 4))
        assert on_grid(codes * (2 / (levels - 1)) - 1)
        assert on_grid(codes.double() / (levels - 1) * 2 - 1)
    assert not on_grid(torch.rand(300, 4) * 2 - 1)
    assert not on_grid(torch.randn(300, 4))
    chance = torch.tensor([[-0.2, 0.5]])  # one or two numbers always fit some grid
    assert not on_grid(chance)
    assert not on_grid(chance.expand(16, 2))
    assert not on_grid(torch.ones(1, 1))
    assert on_grid(torch.tensor([[1.0, -1.0] * 8]))


# --------------------------------------------------------------------------------------- a noisy look at the grid


def grid_given(y: torch.Tensor, std: float, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All grid values, and p(value | y) of each by scipy's density under a uniform prior."""
    grid = torch.linspace(-1, 1, levels, dtype=torch.float64)
    p = torch.tensor(scipy.stats.norm.pdf(y.numpy()[..., None], grid.numpy(), std))
    return grid, p / p.sum(-1, keepdim=True)


@pytest.mark.parametrize(("levels", "std"), [(2, 0.6), (3, 0.3), (17, 0.2)])
def test_noisy_grid_is_the_posterior_of_a_uniform_prior(levels, std):
    y = 1.2 * randn(5, 3)
    q = NoisyGrid(y, torch.tensor(std).double(), levels)
    grid, p = grid_given(y, std, levels)
    index = torch.randint(0, levels, (5, 3))
    want = -p.gather(-1, index[..., None])[..., 0].log().sum(1)
    torch.testing.assert_close(q.nll(grid[index]), want)
    torch.testing.assert_close(q.mean, (p * grid).sum(-1))
    torch.testing.assert_close(q.mode, grid[p.argmax(-1)])
    torch.testing.assert_close(q.entropy(), torch.tensor(scipy.stats.entropy(p.numpy(), axis=-1).sum(1)))
    assert q.measure == "counting"


def test_noisy_grid_sums_to_one_and_samples_its_own_probabilities():
    y = torch.tensor([[0.1, -0.7]]).double()
    q = NoisyGrid(y.expand(30_000, 2), torch.tensor(0.5).double(), 4)
    grid, p = grid_given(y, 0.5, 4)
    values = torch.cartesian_prod(grid, grid)
    one = NoisyGrid(y.expand(16, 2), torch.tensor(0.5).double(), 4)
    torch.testing.assert_close(torch.exp(-one.nll(values)).sum(), torch.tensor(1.0).double())
    x = q.sample()
    q.check(x)
    for d in range(2):
        for value, want in zip(grid, p[0, d], strict=True):
            assert_mean(((x[:, d] - value).abs() < 1e-9).double(), float(want))
    rising = NoisyGrid(y, q.std, 4).sample(lambda shape: torch.full(shape, -9.0).double())
    torch.testing.assert_close(rising, torch.full((1, 2), -1.0).double())  # low noise, low value


@pytest.mark.parametrize("reach", [5, 8])
def test_noisy_grid_leaves_out_what_is_impossible(reach):
    """Within `reach` of the nearest value, and at the edges as many values as elsewhere, nothing changes."""
    y = torch.cat([torch.linspace(-1.05, 1.05, 40), torch.tensor([-1.0, 1.0])]).double()[:, None]
    full, near = (NoisyGrid(y, torch.tensor(0.012).double(), 101, r) for r in (None, reach))
    assert near._candidates()[0].shape[-1] == 2 * reach + 1
    x = round_to_grid(y, 101)
    torch.testing.assert_close(near.nll(x), full.nll(x))
    torch.testing.assert_close(near.mean, full.mean)
    torch.testing.assert_close(near.entropy(), full.entropy())
    torch.testing.assert_close(near.mode, full.mode)
    e = randn(42, 1)
    torch.testing.assert_close(near.sample(lambda shape: e), full.sample(lambda shape: e))
    assert NoisyGrid(y, full.std, 9, 4)._candidates()[0].shape[-1] == 9  # never more than there are


def test_noisy_grid_refuses_values_between():
    q = NoisyGrid(torch.zeros(1, 2), torch.tensor(0.1), 17)
    q.check(torch.tensor([[0.125, -1.0]]))
    with pytest.raises(NoBound, match="off that grid"):
        q.check(torch.tensor([[0.1, -1.0]]))


# --------------------------------------------------------------------------------------------- logistic mixtures


def mixture(k: int, c: int, levels: int, n: int = 1) -> LogisticMixture:
    g = torch.Generator().manual_seed(k + 10 * c)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g).double()

    one = (
        draw(1, k, 1).log_softmax(1),
        0.7 * draw(1, k, c, 1),
        0.3 * draw(1, k, c, 1) - 1.2,
        torch.tanh(draw(1, k, c * (c - 1) // 2, 1)),
    )
    return LogisticMixture(*[p.expand(n, *p.shape[1:]) for p in one], levels)


def test_one_component_of_one_channel_is_the_discretized_logistic():
    mean, log_scale = randn(7, 1, 4, 4), 0.3 * randn(7, 1, 4, 4) - 1
    x = round_to_grid(randn(7, 1, 4, 4), 17)
    empty = torch.zeros(7, 1, 0, 4, 4).double()
    m = LogisticMixture(torch.zeros(7, 1, 4, 4).double(), mean[:, None], log_scale[:, None], empty, 17)
    q = Discretized(Logistic(mean, log_scale), 17)
    torch.testing.assert_close(m.nll(x), q.nll(x))
    torch.testing.assert_close(m.mode, q.mode)
    torch.testing.assert_close(m.mean, q.mean)


@pytest.mark.parametrize(("k", "c", "levels"), [(1, 2, 4), (3, 2, 4), (2, 3, 3), (4, 1, 6)])
def test_mixture_sums_to_one_and_samples_its_own_probabilities(k, c, levels):
    values = torch.cartesian_prod(*[torch.linspace(-1, 1, levels, dtype=torch.float64)] * c).reshape(-1, c, 1)
    p = torch.exp(-mixture(k, c, levels, len(values)).nll(values))
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)
    n = 20_000
    x = mixture(k, c, levels, n).sample()
    mixture(k, c, levels).check(x)
    for value, want in zip(values, p, strict=True):
        assert_mean(((x - value).abs().flatten(1).max(1).values < 1e-6).double(), float(want), slack=1e-4)
    with pytest.raises(NoBound):
        mixture(k, c, levels).entropy()


def test_mixture_by_hand():
    """Two components, two channels: the second channel's mean moves with the first's value."""
    m = mixture(2, 2, 4)
    x = torch.tensor([[[1 / 3], [-1.0]]], dtype=torch.float64)
    total = 0.0
    for j in range(2):
        log_w, p = float(m.log_weights[0, j, 0]), 1.0
        for c in range(2):
            mean = float(m.means[0, j, c, 0]) + (float(m.coefficients[0, j, 0, 0]) / 3 if c else 0)
            dist = scipy.stats.logistic(mean, math.exp(float(m.log_scales[0, j, c, 0])))
            p *= dist.cdf(-1 + 1 / 3) if c else dist.cdf(2 / 3) - dist.cdf(0)
        total += math.exp(log_w) * p
    assert float(m.nll(x)) == pytest.approx(-math.log(total), rel=1e-9)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_mixture_likelihood_reads_its_parameters(channels):
    likelihood = LogisticMixtureLikelihood(17, 5)
    raw = torch.randn(3, channels * likelihood.parameters_per_channel(channels), 4, 4)
    q = likelihood(raw)
    x = round_to_grid(torch.randn(3, channels, 4, 4), 17)
    assert q.nll(x).shape == (3,)
    assert q.sample().shape == q.mode.shape == q.mean.shape == x.shape
    torch.testing.assert_close(q.log_weights.exp().sum(1), torch.ones(3, 4, 4))


# ---------------------------------------------------------------------------------------------- parameterisations


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_parameterisations_of_one_function_give_one_estimate(name):
    def network(z, log_snr, condition):
        if name == "edm":  # reads c_in z / alpha, and returns what c_skip leaves
            d, s, a = 0.5, torch.exp(-0.5 * log_snr)[:, None], torch.sigmoid(log_snr).sqrt()[:, None]
            x = z * (s**2 + d**2).sqrt()
            x_hat = wrong_denoiser(a * x, log_snr) + condition
            return (x_hat - d**2 / (s**2 + d**2) * x) * (s**2 + d**2).sqrt() / (s * d)
        a, s = (torch.sigmoid(sign * log_snr).sqrt()[:, None] for sign in (1, -1))
        x_hat = wrong_denoiser(z, log_snr) + condition
        e_hat = (z - a * x_hat) / s
        return {"x": x_hat, "eps": e_hat, "v": a * e_hat - s * x_hat}[name]

    z, log_snr, condition = randn(9, 2), torch.linspace(-6, 6, 9).double(), randn(9, 2)
    got = PARAMETERIZATIONS[name](network)(z, log_snr, condition)
    torch.testing.assert_close(got, wrong_denoiser(z, log_snr) + condition)


LEVELS = torch.linspace(-6, 6, 9).double()


def silent(z_t, log_snr, condition=None):
    return torch.zeros_like(z_t)


@pytest.mark.parametrize("std", [0.5, 1.0, 2.0])
def test_a_silent_edm_is_the_exact_denoiser_of_a_gaussian(std):
    z = randn(9, 2)
    exact = GaussianDenoiser(torch.zeros(2).double(), torch.full((2,), std**2).double())
    torch.testing.assert_close(EDM(silent, std)(z, LEVELS), exact(z, LEVELS))


def test_edm_of_unit_data_is_v_with_the_other_sign():
    z = randn(9, 2)
    got = EDM(lambda z, log_snr, c: -wrong_denoiser(z, log_snr), 1.0)(z, LEVELS)
    torch.testing.assert_close(got, V(wrong_denoiser)(z, LEVELS))


def test_mixed_score_is_the_mixture_of_two_noise_estimates():
    """e_hat = (1 - m) sigma z_t + m e_hat' (Vahdat et al. 2021, Eq. 7, in their variance-preserving process)."""
    z, condition = randn(9, 3), randn(9, 3)
    a, s = (v[:, None] for v in alpha_sigma(-LEVELS))
    model = Mixed(lambda z, log_snr, c: wrong_denoiser(z, log_snr) + c, (3,), start=0.1).double()
    torch.testing.assert_close(model.share, torch.full((3,), 0.1).double())
    model.pace.data = torch.tensor([-0.3, 0.0, 0.2]).double()
    share = torch.tensor([1 / (1 + math.exp(3.0)), 0.5, 1 / (1 + math.exp(-2.0))]).double()
    torch.testing.assert_close(model.share, share)
    inner = (z - a * (wrong_denoiser(z, LEVELS) + condition)) / s
    e_hat = (1 - share) * s * z + share * inner
    torch.testing.assert_close((z - a * model(z, LEVELS, condition)) / s, e_hat)


def test_mixed_score_ends_at_the_two_denoisers():
    z = randn(9, 3)
    model = Mixed(wrong_denoiser, (3,)).double()
    normal = GaussianDenoiser(torch.zeros(3).double(), torch.ones(3).double())
    for pace, want in ((-100.0, normal), (100.0, wrong_denoiser)):
        model.pace.data.fill_(pace)
        torch.testing.assert_close(model(z, LEVELS), want(z, LEVELS))


# --------------------------------------------------------------------------------------------- refusals of a bound


def model_with(likelihood, outputs: int = 2, encoder=None, prior=None) -> Autoencoder:
    decoder = LikelihoodDecoder(mlp([2, 8, outputs]), likelihood)
    return Autoencoder(encoder or GaussianEncoder(mlp([2, 8, 4])), decoder, prior or StandardNormal((2,)))


GREY = torch.rand(64, 2) * 1.8 - 0.9
BITS = torch.randint(0, 2, (64, 2)) * 2.0 - 1
DIGITS = torch.randint(0, 17, (64, 2)) / 8 - 1


def test_deterministic_codes_have_no_bound():
    inner = Diffusion(wrong_denoiser, LinearLogSNR(), (2,))
    nested = model_with(GaussianLikelihood(0.5))
    for prior in (StandardNormal((2,)), inner, nested):
        model = model_with(GaussianLikelihood(0.5), encoder=DiracEncoder(mlp([2, 8, 2])), prior=prior)
        assert model.terms(GREY)["distortion"].shape == (64,)  # it trains all the same
        with pytest.raises(NoBound, match="entropy"):
            model.bound(GREY)


@pytest.mark.parametrize("train", [True, False], ids=["with gradients", "without"])
@pytest.mark.parametrize(
    ("likelihood", "outputs", "good", "bad"),
    [
        (BernoulliLikelihood, 2, BITS, GREY),
        (BernoulliLikelihood, 2, BITS, DIGITS),
        (lambda: DiscretizedLikelihood(17), 4, DIGITS, GREY),
        (lambda: DiscretizedLikelihood(6), 4, BITS, DIGITS),
        (lambda: DiscretizedLikelihood(17, "gaussian", std=0.1), 2, DIGITS, GREY),
        (GaussianLikelihood, 2, GREY, DIGITS),
        (GaussianLikelihood, 2, GREY, BITS),
        (lambda: GaussianLikelihood(per_dimension=True), 4, GREY, DIGITS),
    ],
)
def test_a_likelihood_of_the_wrong_data_has_no_bound(likelihood, outputs, good, bad, train):
    model = model_with(likelihood(), outputs)
    with torch.set_grad_enabled(train):
        assert bool(torch.isfinite(model.bound(good)).all())
        with pytest.raises(NoBound):
            model.bound(bad)
    assert bool(torch.isfinite(sum(model.terms(bad).values())).all())  # training is not refused


def test_fixed_variance_on_a_grid_is_a_density_like_any_other():
    assert model_with(GaussianLikelihood(0.3)).bound(DIGITS).shape == (64,)


def test_a_diffusion_bounds_gaussian_posteriors_only():
    model = Diffusion(wrong_denoiser, LinearLogSNR(), (2,))
    for q in (Dirac(GREY), Bernoulli(GREY), Logistic(GREY, GREY)):
        with pytest.raises(NoBound):
            model.terms(q, exact=True)
    assert model.terms(Dirac(GREY))["last_step"].shape == (64,)
    with pytest.raises(NoBound):
        DataDiffusion(model).given(GREY).entropy()
    with pytest.raises(ValueError, match="at least 1"):
        Diffusion(wrong_denoiser, LinearLogSNR(), (2,), timesteps=0)


def test_measures_are_named():
    for counting in (Bernoulli, Discretized, LogisticMixture, NoisyGrid):
        assert counting.measure == "counting"
    for density in (Normal, Logistic, Dirac):
        assert density.measure == "density"
    assert isinstance(DiracEncoder(nn.Identity())(GREY), Dirac)
