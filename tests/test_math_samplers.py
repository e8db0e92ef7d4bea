"""Samplers against exact solutions: each converges at its declared order, and draws what it should."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from closed_forms import (
    GaussianDenoiser,
    MixtureDenoiser,
    alpha_sigma,
    assert_mean,
    loglog_slope,
    path_gammas,
    reverse_step,
    wrong_denoiser,
)

from diled.diffusion import (
    SAMPLERS,
    Cosine,
    DataDiffusion,
    Diffusion,
    LinearLogSNR,
    LogNormal,
    ancestral,
    ddim,
    dpm_solver,
    heun,
    karras_levels,
)
from diled.diffusion.process import GaussianProcess
from diled.diffusion.samplers import invert, levels

LOW, HIGH = -4.0, 4.0
MEAN, VAR = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.09, 2.5]).double()
EXACT = GaussianDenoiser(MEAN, VAR)
MIXTURE = MixtureDenoiser(torch.tensor([[-1.0, 0.0], [1.2, 0.4], [0.0, 1.5]]).double(), 0.05)
ORDERS = {"ddim": (ddim, 1), "heun": (heun, 2), "dpm_solver": (dpm_solver, 2)}


def down(steps: int) -> torch.Tensor:
    return path_gammas(LOW, HIGH, steps).flip(0)


def exact_map(z: torch.Tensor, gamma_from: float, gamma_to: float) -> torch.Tensor:
    """The probability-flow ODE keeps (z - alpha m) / sqrt(alpha^2 s^2 + sigma^2)."""
    (a, s), (b, r) = (alpha_sigma(torch.tensor(g).double()) for g in (gamma_from, gamma_to))
    return b * MEAN + (z - a * MEAN) * ((b**2 * VAR + r**2) / (a**2 * VAR + s**2)).sqrt()


def test_levels_fall_from_noise_to_clean():
    gammas = levels(Cosine(LOW, HIGH), 5)
    torch.testing.assert_close(gammas, Cosine(LOW, HIGH).gamma(torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])))
    with pytest.raises(ValueError, match="at least one step"):
        levels(Cosine(LOW, HIGH), 0)


@pytest.mark.parametrize("rho", [7.0, 3.0])
def test_karras_levels_are_the_published_ones(rho):
    """sigma_i = (sigma_max^(1/rho) + i / (N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho, N = steps + 1 levels."""
    low, high = math.exp(LOW / 2), math.exp(HIGH / 2)
    want = [(high ** (1 / rho) + i / 9 * (low ** (1 / rho) - high ** (1 / rho))) ** rho for i in range(10)]
    for schedule in (LinearLogSNR(LOW, HIGH), LogNormal(LOW, HIGH)):  # whatever the shape between the ends
        got = karras_levels(schedule.double(), 9, rho=rho)
        torch.testing.assert_close(torch.exp(got / 2), torch.tensor(want).double())
    torch.testing.assert_close(karras_levels(schedule, 9), karras_levels(schedule, 9, rho=7.0))
    with pytest.raises(ValueError, match="at least one step"):
        karras_levels(schedule, 0)


def test_a_diffusion_is_sampled_as_it_says():
    schedule = LinearLogSNR(LOW, HIGH).double()
    model = Diffusion(wrong_denoiser, schedule, (2,), sampler="heun", steps=5, spacing=karras_levels)
    z = torch.randn(3, 2).double()
    torch.testing.assert_close(model.sample(3, start=z), heun(wrong_denoiser, z, karras_levels(schedule, 5)))
    torch.testing.assert_close(
        model.sample(3, start=z, sampler="ddim", steps=4), ddim(wrong_denoiser, z, karras_levels(schedule, 4))
    )
    assert [model.sampling_steps(s) for s in (None, "ancestral")] == [5, 5]
    chain = Diffusion(wrong_denoiser, schedule, (2,), timesteps=7)
    assert [chain.sampling_steps(s) for s in (None, "ddim", "ancestral")] == [25, 25, 7]


def test_heun_takes_levels_of_its_own_for_each_example():
    z = torch.randn(3, 3, 3).double()  # levels that were not those of the first dimension would fit all the same
    gammas = torch.tensor([4.0, 2.5, -3.0]).double() + torch.tensor([[1.0], [0.3], [-0.5], [-1.0]]).double()
    got = heun(wrong_denoiser, z, gammas)
    each = [heun(wrong_denoiser, z[i : i + 1], gammas[:, i]) for i in range(3)]
    torch.testing.assert_close(got, torch.cat(each))


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence_on_gaussian_data(name):
    sampler, order = ORDERS[name]
    z = 1.5 * torch.randn(20, 2).double()
    want = exact_map(z, HIGH, LOW)
    sizes = [32, 64, 128, 256]
    errors = [float((sampler(EXACT, z, down(n)) - want).norm()) for n in sizes]
    assert loglog_slope(sizes, errors) == pytest.approx(order, abs=0.25)
    assert errors[-1] < 1e-3 * 100 ** (2 - order) * float(want.norm())


def test_order_of_convergence_on_a_mixture():
    z = torch.randn(20, 2).double()
    want = heun(MIXTURE, z, down(2500))
    sizes = [100, 200, 400]
    for sampler, order in ORDERS.values():
        errors = [float((sampler(MIXTURE, z, down(n)) - want).norm()) for n in sizes]
        assert loglog_slope(sizes, errors) == pytest.approx(order, abs=0.35)


def test_order_holds_on_uneven_levels():
    """Steps of alternating size: the multistep extrapolation must use both sizes."""
    z = torch.randn(20, 2).double()
    want = exact_map(z, HIGH, LOW)
    sizes = [50, 100, 200]
    for sampler in (heun, dpm_solver):
        errors = []
        for n in sizes:
            steps = torch.tensor([0.5, 1.5], dtype=torch.float64).repeat(n // 2)
            gammas = HIGH - (HIGH - LOW) / n * torch.cat([steps.new_zeros(1), steps.cumsum(0)])
            errors.append(float((sampler(EXACT, z, gammas) - want).norm()))
        assert loglog_slope(sizes, errors) == pytest.approx(2, abs=0.3)


def test_inversion_error_falls_at_order_one():
    z_0 = MEAN + VAR.sqrt() * torch.randn(20, 2).double()
    want = exact_map(z_0, LOW, HIGH)
    sizes = [50, 100, 200, 400]
    errors = [float((invert(EXACT, z_0, down(n)) - want).norm()) for n in sizes]
    assert loglog_slope(sizes, errors) == pytest.approx(1, abs=0.2)
    back = [float((ddim(EXACT, invert(EXACT, z_0, down(n)), down(n)) - z_0).norm()) for n in sizes]
    assert loglog_slope(sizes, back) == pytest.approx(1, abs=0.25)
    assert back[-1] < 0.02 * float(z_0.norm())


def test_inversion_through_the_diffusion():
    model = Diffusion(EXACT, LinearLogSNR(LOW, HIGH), (2,)).double()
    z_0 = MEAN + VAR.sqrt() * torch.randn(8, 2).double()
    start = model.invert(z_0, steps=400)
    assert float((start - exact_map(z_0, LOW, HIGH)).abs().max()) < 0.05
    assert float((model.sample(8, start=start, steps=400) - z_0).abs().max()) < 0.05


def test_ddim_at_eta_one_is_the_reverse_chain():
    """One step of `ancestral` is a draw of process.step: the same mean and the same noise."""
    z, e = torch.randn(6, 2).double(), torch.randn(6, 2).double()
    gamma_t, gamma_s = torch.tensor(1.3).double(), torch.tensor(-0.4).double()
    x_hat = wrong_denoiser(z, (-gamma_t).expand(6))
    got = ancestral(wrong_denoiser, z, torch.stack([gamma_t, gamma_s]), lambda shape: e)
    step = GaussianProcess().step(z, x_hat, gamma_s, gamma_t)
    torch.testing.assert_close(got, step.mean + (0.5 * step.log_var).exp() * e)
    mean, var = reverse_step(z, x_hat, gamma_s, gamma_t)
    torch.testing.assert_close(step.mean, mean)
    torch.testing.assert_close(step.log_var.exp(), var.expand_as(z))


def test_eta_moves_the_variance_of_a_step_but_not_its_total():
    """x_hat and e_hat fixed, the noise of z_s given x has variance sigma_s^2 at every eta (Song et al. 2021, Lemma 1)."""
    gamma_t, gamma_s = torch.tensor(1.3).double(), torch.tensor(-0.4).double()
    (a_t, s_t), (a_s, s_s) = alpha_sigma(gamma_t), alpha_sigma(gamma_s)
    x = 0.7
    z = a_t * x + s_t * torch.randn(200_000, 1).double()  # with the true x, every eta maps q(z_t | x) to q(z_s | x)
    spreads = []
    for eta in (0.0, 0.5, 1.0):
        run = functools.partial(ddim, eta=eta)
        got = run(lambda z, log_snr: torch.full_like(z, x), z, torch.stack([gamma_t, gamma_s]))
        assert_mean(got[:, 0], float(a_s * x))
        assert_mean((got[:, 0] - a_s * x) ** 2, float(s_s**2))
        one = z[:1].expand(50_000, 1)
        spread = run(lambda z, log_snr: torch.full_like(z, x), one, torch.stack([gamma_t, gamma_s]))[:, 0]
        added = s_t**2 - (a_t / a_s) ** 2 * s_s**2
        assert_mean((spread - spread.mean()) ** 2, float(eta**2 * added * s_s**2 / s_t**2))
        spreads.append(float(spread.std()))
    assert spreads[0] < 1e-12
    assert spreads[0] < spreads[1] < spreads[2]


def test_ancestral_converges_in_distribution():
    """Mean and variance of the linear chain, by its exact recursion, approach those of p(z_0) at order one."""
    p_mean, p_var = EXACT.at_zero(torch.tensor(LOW).double())

    def moments(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        gammas = down(steps)
        mean, var = torch.zeros(1, 2).double(), torch.ones(2).double()
        for gamma_t, gamma_s in zip(gammas[:-1], gammas[1:], strict=True):
            g = torch.stack([gamma_t, gamma_s])
            silent = lambda shape: torch.zeros(shape).double()  # noqa: E731
            at, above = (ancestral(EXACT, mean + d, g, silent) for d in (0.0, 1.0))
            loud = ancestral(EXACT, mean, g, lambda shape: torch.ones(shape).double())
            mean, var = at, (above - at)[0] ** 2 * var + (loud - at)[0] ** 2
        return mean[0], var

    # in the limit z_0 given z_1 is the exact bridge, entered with N(0, I) instead of the marginal N(m_1, v_1)
    (a_0, _), (a_1, s_1) = (alpha_sigma(torch.tensor(g).double()) for g in (LOW, HIGH))
    v_1 = a_1**2 * VAR + s_1**2
    gain = a_1 / a_0 * p_var / v_1
    want_mean, want_var = p_mean - gain * a_1 * MEAN, p_var - gain**2 * v_1 + gain**2
    sizes = [100, 200, 400]
    runs = [moments(n) for n in sizes]
    for mean, _ in runs:  # the mean takes no error at all
        torch.testing.assert_close(mean, want_mean)
    errors = [float((var - want_var).norm()) for _, var in runs]
    assert loglog_slope(sizes, errors) == pytest.approx(1, abs=0.1)
    assert errors[-1] < 0.03


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_the_gaussian(name):
    model = Diffusion(EXACT, LinearLogSNR(-6.0, 8.0), (2,)).double()
    z = model.sample(20_000, sampler=name, steps=200)
    p_mean, p_var = EXACT.at_zero(torch.tensor(-6.0).double())
    for d in range(2):
        assert_mean(z[:, d], float(p_mean[d]), slack=0.005)
        assert float(z[:, d].var() / p_var[d]) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_recovers_a_gaussian_mixture(name):
    weights = torch.tensor([0.2, 0.5, 0.3]).double()
    means = torch.tensor([[-1.5, 0.0], [1.2, 0.4], [0.0, 1.5]]).double()
    model = Diffusion(MixtureDenoiser(means, 0.02, weights), LinearLogSNR(-8.0, 8.0), (2,)).double()
    z = model.sample(5000, sampler=name, steps=100)
    nearest = torch.cdist(z, means).argmin(1)
    for k in range(3):
        assert_mean((nearest == k).double(), float(weights[k]), slack=0.004)
        inside = z[nearest == k]
        assert float((inside.mean(0) - means[k]).abs().max()) < 0.03
        assert float(inside.var(0).mean()) == pytest.approx(0.02, rel=0.15)


def test_same_noise_same_sample_and_the_discrete_chain_takes_its_own_steps():
    calls = []

    def counting(z, log_snr, condition=None):
        calls.append(float(log_snr[0]))
        return wrong_denoiser(z, log_snr)

    model = Diffusion(counting, LinearLogSNR(LOW, HIGH), (2,), timesteps=7)

    def noise():
        g = torch.Generator().manual_seed(5)
        return lambda shape: torch.randn(shape, generator=g)

    first = model.sample(3, noise=noise(), sampler="ancestral")
    assert len(calls) == 7
    assert calls == pytest.approx([-(LOW + (HIGH - LOW) * i / 7) for i in range(7, 0, -1)], abs=1e-5)
    torch.testing.assert_close(first, model.sample(3, noise=noise(), sampler="ancestral"))
    assert not torch.equal(first, model.sample(3, sampler="ancestral"))


def test_conditional_view_decodes_with_its_condition():
    def denoiser(z, log_snr, condition):
        return condition.expand_as(z)

    model = DataDiffusion(Diffusion(denoiser, LinearLogSNR(-12.0, 6.0), (2,), steps=200))
    view = model.given(torch.tensor([[1.0], [-2.0]]))
    for x in (view.mode, view.mean, view.sample()):
        assert torch.allclose(x, torch.tensor([[1.0, 1.0], [-2.0, -2.0]]), atol=0.02)
    x = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    nll = view.nll(x)
    assert nll.shape == (2,)
    assert nll[0] < nll[1]
    assert math.isfinite(float(nll[1]))
    noise = view.invert(x[:1].expand(2, 2) * torch.tensor([[1.0], [-2.0]]))
    assert noise.shape == (2, 2)
