"""Schedules: ends, slopes, inverses, the published tables, and what trains the learned ends."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from closed_forms import alpha_sigma, wrong_denoiser

from diled.api import total
from diled.diffusion import (
    BetaTable,
    Cosine,
    Diffusion,
    LearnedLogSNR,
    Linear,
    LinearLogSNR,
    LogNormal,
    Objective,
    constant_beta,
    ddpm_beta,
    simple,
)
from diled.diffusion.samplers import karras_levels, levels
from diled.diffusion.schedule import alpha, like, sigma, sigma2
from diled.distributions import Normal
from diled.errors import ConfigError
from diled.models.autoencoder import Autoencoder, FixedNoiseEncoder

SHAPES = [LinearLogSNR, LearnedLogSNR, Cosine, Linear, LogNormal]
TABLES = [ddpm_beta, constant_beta, lambda: BetaTable(torch.tensor([0.1, 0.02, 0.3, 0.3]))]
TIMES = torch.linspace(0.003, 0.997, 200).double()


def schedules():
    return [shape(-7.0, 5.0).double() for shape in SHAPES] + [table().double() for table in TABLES]


def test_alpha_and_sigma():
    gamma = torch.linspace(-12, 12, 49).double()
    a, s = alpha_sigma(gamma)
    torch.testing.assert_close(alpha(gamma), a)
    torch.testing.assert_close(sigma(gamma), s)
    torch.testing.assert_close(sigma2(gamma), s**2)
    torch.testing.assert_close(torch.log(sigma(gamma) ** 2 / alpha(gamma) ** 2), gamma)
    assert like(torch.ones(3), torch.ones(3, 4, 5)).shape == (3, 1, 1)
    assert like(torch.ones(()), torch.ones(3, 4, 5)).shape == ()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ends", [(-7.0, 5.0), (-13.3, 5.0), (-2.0, 0.5)])
def test_ends_are_what_was_asked_for(shape, ends):
    schedule = shape(*ends)
    got = [g.item() for g in schedule.ends]
    assert got == pytest.approx(ends, abs=2e-3)
    torch.testing.assert_close(schedule.gamma(torch.tensor([0.0, 1.0])), torch.tensor(got))


@pytest.mark.parametrize("shape", [LinearLogSNR, Cosine, Linear, LogNormal])
def test_ends_in_the_wrong_order_are_refused(shape):
    with pytest.raises(ValueError, match="below"):
        shape(3.0, -3.0)


REACH = {Cosine: (-80.0, 20.0), Linear: (-80.0, 20.0), LogNormal: (2 * (-1.2 - 12 * 1.2), 2 * (-1.2 + 12 * 1.2))}


@pytest.mark.parametrize("shape", REACH)
def test_ends_out_of_reach_are_refused_and_others_are_followed_in_single_precision(shape):
    """Noise levels and their slope are finite and in order, and what a sampler visits has the ends that were asked for."""
    low, high = REACH[shape]
    for name, ends in (("gamma_min", (low - 0.1, 5.0)), ("gamma_max", (-5.0, high + 0.1))):
        with pytest.raises(ConfigError, match=rf"^{name} = .* out of the reach .* choose an end between"):
            shape(*ends)
        LinearLogSNR(*ends)
    t = torch.linspace(0, 1, 1001)
    for ends in ((-8.0, high), (low, 5.0), (low, high)):
        schedule = shape(*ends)
        for values in (schedule.gamma(t), schedule.slope(t), schedule.time(schedule.gamma(t))):
            assert bool(torch.isfinite(values).all())
        assert bool((schedule.gamma(t).diff() > 0).all())
        for gammas in (levels(schedule, 20), karras_levels(schedule, 20)):
            torch.testing.assert_close(gammas[[-1, 0]], torch.tensor(ends), rtol=0, atol=2e-3)


def test_slope_is_the_derivative_and_positive():
    for schedule in schedules():
        t = TIMES.clone().requires_grad_()
        (slope,) = torch.autograd.grad(schedule.gamma(t).sum(), t)
        torch.testing.assert_close(schedule.slope(TIMES), slope)
        assert bool((slope > 0).all())
        assert bool((schedule.gamma(TIMES).diff() > 0).all())


def test_slope_integrates_to_the_range():
    for schedule in schedules():
        t = (torch.arange(200_000).double() + 0.5) / 200_000
        low, high = schedule.ends
        assert schedule.slope(t).mean().item() == pytest.approx((high - low).item(), rel=1e-3)


def test_time_inverts_gamma():
    for schedule in schedules():
        torch.testing.assert_close(schedule.time(schedule.gamma(TIMES)), TIMES, rtol=1e-6, atol=1e-7)


def test_cosine_and_linear_are_the_published_shapes():
    t = TIMES
    low, high = -7.0, 5.0
    a, _ = alpha_sigma(Cosine(low, high).double().gamma(t))
    u = torch.arccos(a) * 2 / math.pi  # alpha = cos(pi u / 2), u linear in t
    torch.testing.assert_close(u.diff(), u.diff().mean().expand(199), rtol=1e-5, atol=1e-9)
    a, s = alpha_sigma(Linear(low, high).double().gamma(t))
    u = s / (a + s)  # alpha : sigma = 1 - u : u
    torch.testing.assert_close(u.diff(), u.diff().mean().expand(199), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (0.3, 0.5), (-1.1, 2.0)])
def test_noise_levels_of_edm_are_a_truncated_log_normal(mean, std):
    """With t uniform, log(sigma / alpha) = gamma / 2 is N(mean, std^2) between the ends: both by scipy."""
    schedule = LogNormal(-7.0, 3.0, mean=mean, std=std).double()
    cut = (-3.5 - mean) / std, (1.5 - mean) / std
    want = scipy.stats.truncnorm(*cut, loc=2 * mean, scale=2 * std)
    gamma = schedule.gamma(TIMES)
    torch.testing.assert_close(torch.tensor(want.cdf(gamma.numpy())), TIMES)
    torch.testing.assert_close(1 / schedule.slope(TIMES), torch.tensor(want.pdf(gamma.numpy())))
    torch.testing.assert_close(schedule.time(torch.tensor(want.ppf(TIMES.numpy()))), TIMES)
    edges = torch.tensor([0.0, 1.0]).double()
    torch.testing.assert_close(schedule.gamma(edges), torch.tensor([-7.0, 3.0]).double())
    # beyond 8.3 deviations float64 has no u between 0 and 1 left; the clean end of 16-bit images lies 9.4 out
    low, high = 2 * (mean - 12 * std), 2 * (mean + 12 * std)
    far = LogNormal(low, high, mean=mean, std=std).double()
    torch.testing.assert_close(far.gamma(edges), torch.tensor([low, high]).double())
    torch.testing.assert_close(far.time(far.gamma(TIMES)), TIMES)
    torch.testing.assert_close(far.gamma(TIMES), torch.tensor(scipy.stats.norm.ppf(TIMES, 2 * mean, 2 * std)))
    widest = math.sqrt(2 * math.pi) * 2 * std * math.exp(12**2 / 2)
    torch.testing.assert_close(far.slope(edges), torch.full((2,), widest).double())
    one_side = LogNormal(2 * (mean + 9 * std), high, mean=mean, std=std).double()
    want = scipy.stats.norm.isf(scipy.stats.norm.sf(9) * (1 - TIMES) + scipy.stats.norm.sf(12) * TIMES)
    torch.testing.assert_close(one_side.gamma(TIMES), torch.tensor(2 * (mean + std * want)))
    torch.testing.assert_close(torch.stack(schedule.ends), torch.tensor([-7.0, 3.0]).double())


@pytest.mark.parametrize("table", [ddpm_beta, constant_beta])
def test_tables_are_the_products(table):
    betas = [1e-4 + (0.02 - 1e-4) * i / 999 if table is ddpm_beta else 0.008 for i in range(1000)]
    product, products = 1.0, []
    for beta in betas:
        product *= 1 - beta
        products.append(product)
    schedule = table()
    t = torch.linspace(0, 1, 1000).double()
    torch.testing.assert_close(
        alpha(schedule.double().gamma(t)) ** 2, torch.tensor(products).double(), rtol=1e-5, atol=0
    )


def test_constant_beta_ends_at_the_papers_signal():
    low, high = constant_beta(1000, 0.008).ends
    assert float(alpha(high) ** 2) == pytest.approx((1 - 0.008) ** 1000, rel=1e-4)
    assert float(sigma2(low)) == pytest.approx(0.008, rel=1e-5)


def test_tables_work_in_either_precision():
    schedule = ddpm_beta(10)
    for dtype in (torch.float32, torch.float64):
        t = torch.linspace(0, 1, 19, dtype=dtype)
        assert torch.allclose(schedule.time(schedule.gamma(t)).to(dtype), t, atol=1e-5)
        assert torch.allclose(schedule.double().time(schedule.gamma(t)).to(dtype), t, atol=1e-5)
        schedule = schedule.float()


def test_named_schedules_agree_with_their_ends_in_the_bound():
    """A chain of T - 1 steps visits a table of T betas exactly."""
    schedule = constant_beta(11).double()
    t = torch.arange(11).double() / 10
    ratio = alpha(schedule.gamma(t)[1:]) / alpha(schedule.gamma(t)[:-1])
    torch.testing.assert_close(ratio**2, torch.full((10,), 1 - 0.008).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("steps", [None, 5])
def test_learned_ends_get_the_gradient_of_the_bound(steps):
    """Finite differences of the bound with the same random numbers, through the fixed-noise encoder as well."""
    x = torch.randn(50, 2).double()

    def bound(low: float, log_range: float):
        schedule = LearnedLogSNR().double()
        schedule.low.data.fill_(low)
        schedule.log_range.data.fill_(log_range)
        prior = Diffusion(wrong_denoiser, schedule, (2,), timesteps=steps)
        encoder = FixedNoiseEncoder(torch.nn.Identity(), schedule)
        model = Autoencoder(encoder, lambda z: Normal(1.3 * z, torch.zeros(2).double()), prior)
        torch.manual_seed(1)
        latent = model.terms(x)
        torch.manual_seed(2)
        return schedule, total(latent).mean() + prior.bound(x).mean()

    at, h = (-3.0, math.log(7.0)), 1e-2  # codes are cast to float32 by the encoder
    schedule, value = bound(*at)
    value.backward()
    for parameter, step in ((schedule.low, (h, 0)), (schedule.log_range, (0, h))):
        up, down = (bound(at[0] + s * step[0], at[1] + s * step[1])[1].item() for s in (1, -1))
        assert float(parameter.grad) == pytest.approx((up - down) / (2 * h), rel=2e-3)
        assert abs(float(parameter.grad)) > 1e-2


def test_learned_ends_refuse_other_weights():
    learned = LearnedLogSNR()
    for objective in (Objective(simple()), Objective(terminal=False), Objective(encoder=simple())):
        with pytest.raises(ValueError, match="bound only"):
            Diffusion(wrong_denoiser, learned, (2,), objective=objective)
        Diffusion(wrong_denoiser, LinearLogSNR(), (2,), objective=objective)
    Diffusion(wrong_denoiser, learned, (2,))
    Diffusion(wrong_denoiser, learned, (2,), objective=Objective())
