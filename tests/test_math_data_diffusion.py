"""Diffusions over data, alone and as decoders: their bounds with exact denoisers, their codes, and who refuses."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from closed_forms import (
    GaussianDenoiser,
    MixtureDenoiser,
    TableData,
    alpha_sigma,
    assert_mean,
    log_normal,
    loglog_slope,
    mean_and_error,
    normal_entropy,
    normal_kl,
    path_gammas,
    path_rate,
    wrong_denoiser,
)

from diled.api import NoBound, picture, total
from diled.diffusion import (
    Cosine,
    DataDiffusion,
    Diffusion,
    DiffusionDecoder,
    LearnedLogSNR,
    LinearLogSNR,
    LogNormal,
    Objective,
    simple,
)
from diled.diffusion.last_step import LastStep
from diled.distributions import NoisyGrid, Normal
from diled.errors import ConfigError
from diled.models.autoencoder import Autoencoder, FixedNoiseEncoder
from diled.models.priors import StandardNormal

LOW, HIGH = -3.0, 5.0
MEAN, VAR = torch.tensor([0.5, -0.2]).double(), torch.tensor([0.7, 2.0]).double()
EXACT = GaussianDenoiser(MEAN, VAR)
A_0, S_0 = alpha_sigma(torch.tensor(LOW).double())


def data_diffusion(denoiser=EXACT, low: float = LOW, high: float = HIGH, levels=None, dims: int = 2, **options):
    return DataDiffusion(Diffusion(denoiser, LinearLogSNR(low, high), (dims,), **options).double(), levels)


def gaussian(n: int) -> torch.Tensor:
    return MEAN + VAR.sqrt() * torch.randn(n, 2).double()


def batches(bound, x: torch.Tensor, n: int = 50) -> torch.Tensor:
    """Means of n batches: their spread is the true error, which stratified times make smaller."""
    return torch.stack([bound(part).mean() for part in x.chunk(n)])


# --------------------------------------------------------------------------------------------------- the last step


def test_the_first_noise_and_the_last_step_are_one_gaussian_read_both_ways():
    last, x, z = (
        LastStep(LinearLogSNR(LOW, HIGH).double(), None),
        torch.randn(5, 2).double(),
        torch.randn(5, 2).double(),
    )
    torch.testing.assert_close(last.first_noise(x).nll(z), -log_normal(z, A_0 * x, S_0**2))
    # of x, given z_0: the same exponent, and the unit of x
    torch.testing.assert_close(last.given(z).nll(x), -log_normal(z, A_0 * x, S_0**2) - 2 * A_0.log())
    torch.testing.assert_close(last.given(z).mean, z / A_0)


def test_distortion_of_continuous_data_is_the_mean_over_its_noise():
    last = LastStep(LinearLogSNR(LOW, HIGH).double(), None)
    x = torch.tensor([[0.7, -1.3]]).double().expand(100_000, 2)
    z_0 = last.first_noise(x).sample()
    assert_mean(last.given(z_0).nll(x), float(last.nll(x, z_0)[0]))
    assert float(last.nll(x, z_0).std()) < 1e-12


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_distortion_of_grid_data_is_bayes_rule_under_a_uniform_prior(levels):
    """p(x | z_0) = q(z_0 | x) / sum over the grid (Kingma et al. 2021, Eq. 8), in the chain's own scale."""
    low = -2 * math.log(2 * (levels - 1))
    a_0, s_0 = alpha_sigma(torch.tensor(low).double())
    last = LastStep(LinearLogSNR(low, HIGH).double(), levels)
    grid = torch.linspace(-1, 1, levels, dtype=torch.float64)
    x = grid[torch.randint(0, levels, (50, 2))]
    z_0 = last.first_noise(x).sample()
    likelihood = torch.exp(-((z_0[..., None] - a_0 * grid) ** 2) / (2 * s_0**2))
    mine = torch.exp(-((z_0 - a_0 * x) ** 2) / (2 * s_0**2))
    torch.testing.assert_close(last.nll(x, z_0), -(mine / likelihood.sum(-1)).log().sum(1))


@pytest.mark.parametrize(("levels", "low"), [(256, -13.86), (256, -9.0), (17, -8.32), (1000, -6.0)])
def test_what_the_last_step_leaves_out_is_eight_deviations_away(levels, low):
    last = LastStep(LinearLogSNR(low, HIGH), levels)
    noise, spacing = math.exp(low / 2), 2 / (levels - 1)
    assert last.reach is not None
    assert 8 * noise <= (last.reach + 0.5) * spacing  # the first that is left out, of a y halfway between two values
    assert last.reach * spacing < 8 * noise + 2 * spacing  # and not many more are kept
    assert LastStep(LearnedLogSNR(), levels).reach is None  # a learned noise could outgrow it


def test_continuous_data_on_a_grid_need_their_levels_where_the_noise_is_learned():
    grid, model = torch.randint(0, 17, (64, 2)) / 8 - 1, Diffusion(wrong_denoiser, LearnedLogSNR(), (2,))
    for train in (True, False):
        with torch.set_grad_enabled(train):
            with pytest.raises(NoBound, match="learned variance"):
                DataDiffusion(model).bound(grid)
            assert bool(torch.isfinite(DataDiffusion(model, 17).bound(grid)).all())
    fixed = Diffusion(wrong_denoiser, LinearLogSNR(), (2,))
    assert bool(torch.isfinite(DataDiffusion(fixed).bound(grid)).all())


# ------------------------------------------------------------------------------------------- bounds that are known


@pytest.mark.parametrize("schedule", [LinearLogSNR, Cosine, LogNormal])
def test_bound_of_gaussian_data_is_the_entropy_and_what_the_last_step_forgets(schedule):
    """E bound = H(x) + 1/2 sum log(1 + sigma_0^2 / (alpha_0^2 s^2)), for the exact denoiser in continuous time."""
    model = DataDiffusion(Diffusion(EXACT, schedule(LOW, HIGH), (2,)).double())
    want = normal_entropy(VAR) + 0.5 * torch.log1p(S_0**2 / (A_0**2 * VAR)).sum()
    assert_mean(batches(model.bound, gaussian(100_000)), float(want))


def test_bound_of_one_gaussian_point_is_the_exact_kl():
    x = torch.tensor([[0.9, -1.4]]).double()
    kl = normal_kl(A_0 * x[0], (S_0**2).expand(2), *EXACT.at_zero(torch.tensor(LOW).double()))
    want = kl + (0.5 * torch.log(2 * math.pi * math.e * S_0**2 / A_0**2)) * 2
    assert_mean(batches(data_diffusion().bound, x.expand(60_000, 2)), float(want))
    terms = data_diffusion().terms(x, exact=True)
    assert list(terms) == ["distortion", "rate/diffusion", "rate/terminal"]


def grid_bound(data: TableData, low: float) -> float:
    """E bound of one-dimensional grid data with the exact denoiser, by the trapezium rule in z_0."""
    a_0, s_0 = alpha_sigma(torch.tensor(low).double())
    x, p = data.values[:, 0].double(), data.log_p.double().exp()
    z = torch.linspace(-1 - 12 * float(s_0), 1 + 12 * float(s_0), 20_001, dtype=torch.float64)
    q = torch.exp(-((z[:, None] - a_0 * x) ** 2) / (2 * s_0**2)) / math.sqrt(2 * math.pi) / s_0
    # distortion -log q / sum q, and rate log q / p(z_0): the code itself is integrated out
    each = torch.log(q.sum(1, keepdim=True)) - torch.log((q * p).sum(1, keepdim=True))
    return float(torch.trapezoid((q * p * each).sum(1), z))


@pytest.mark.parametrize("low", [-1.0, -2.5])
def test_bound_of_grid_data_with_the_exact_posterior_mean(low):
    """Much first noise, so that the last step forgets a part: E bound = I(x; z_0) + cross entropy of p(x | z_0)."""
    data = TableData(4, 1)
    exact = MixtureDenoiser(data.values.double(), 0.0, data.log_p.double().exp())
    model = data_diffusion(exact, low, 6.0, 4, 1)
    want = grid_bound(data, low)
    assert want > data.entropy() + 0.02
    assert_mean(batches(model.bound, data.sample(100_000).double()), want)


def test_bound_of_grid_data_with_little_first_noise_is_the_entropy():
    data = TableData(4, 2)
    exact = MixtureDenoiser(data.values.double(), 0.0, data.log_p.double().exp())
    model = data_diffusion(exact, -2 * math.log(12), 8.0, 4)
    excess, error = mean_and_error(batches(model.bound, data.sample(60_000).double()) - data.entropy())
    assert -4.5 * error < excess < 0.01 + 4.5 * error  # 8 standard deviations between two values: nothing is forgotten


@pytest.mark.parametrize(("steps", "levels"), [(None, 4), (7, 4), (7, None)])
def test_no_denoiser_takes_the_bound_below_the_entropy(steps, levels):
    data = TableData(4, 2)
    x = data.sample(20_000).double()
    if levels is None:
        model, nll, x = data_diffusion(wrong_denoiser, timesteps=steps), None, gaussian(20_000)
        nll = -log_normal(x, MEAN, VAR)
    else:
        model, nll = data_diffusion(wrong_denoiser, -4.0, levels=levels, timesteps=steps), data.nll(x)
    excess, error = mean_and_error(model.bound(x) - nll)
    assert excess > 5 * error


def test_discrete_bound_is_the_chain_and_its_last_step():
    """By quadrature of every step of the chain, for a wrong denoiser."""
    x = torch.tensor([[0.8]]).double()
    want = path_rate(path_gammas(LOW, HIGH, 6), float(A_0 * 0.8), float(S_0**2), wrong_denoiser)
    want += 0.5 * math.log(2 * math.pi * math.e * float(S_0**2 / A_0**2))
    model = data_diffusion(wrong_denoiser, timesteps=6, dims=1)
    assert_mean(batches(model.bound, x.expand(100_000, 1)), want)


def test_grid_data_off_the_grid_have_no_bound():
    model = data_diffusion(levels=4)
    for x in (torch.zeros(3, 2), torch.full((3, 2), 0.5)):
        with pytest.raises(NoBound, match="off that grid"):
            model.bound(x.double())
        assert model.terms(x.double())["distortion"].shape == (3,)  # it trains all the same
        with pytest.raises(NoBound):
            model.given(torch.zeros(3, 1)).check(x.double())
    model.given(torch.zeros(3, 1)).check(torch.full((3, 2), 1 / 3).double())
    assert (model.given(MEAN).measure, data_diffusion().given(MEAN).measure) == ("counting", "density")


@pytest.mark.parametrize("levels", [None, 5])
def test_a_data_diffusion_is_an_autoencoder_composed_by_hand(levels):
    """The encoder is the chain's first step, the decoder its last, the prior everything between."""
    prior = Diffusion(wrong_denoiser, LinearLogSNR(LOW, HIGH), (2,), times_per_code=3, objective=Objective(simple()))
    model = DataDiffusion(prior, levels)
    by_hand = Autoencoder(FixedNoiseEncoder(torch.nn.Identity(), prior.schedule), model.last.given, prior)
    x = torch.randint(0, 5, (40, 2)) / 2.0 - 1
    for exact in (True, False):
        both = []
        for m in (model, by_hand):
            torch.manual_seed(3)
            both.append(m.terms(x, exact=exact))
        assert list(both[0]) == list(both[1])
        for name in both[0]:
            if name != "distortion" or levels is not None:  # of continuous data it is the mean of the other's draws
                torch.testing.assert_close(both[0][name], both[1][name])


def test_a_distribution_over_data_costs_its_entropy_less():
    q = Normal(torch.randn(30, 2).double(), torch.full((30, 2), -1.0).double())
    model = data_diffusion()
    torch.manual_seed(1)
    got = total(model.terms(q, exact=True))
    torch.manual_seed(1)
    torch.testing.assert_close(got, total(model.terms(q.sample(), exact=True)) - q.entropy())


# ---------------------------------------------------------------------------------------------- samples and codes


def test_samples_read_the_last_step():
    """x = z_0 / alpha_0 + (sigma_0 / alpha_0) e; with `mean`, without its noise."""
    z_1, e = torch.randn(2, 6, 2).double()
    model = data_diffusion(wrong_denoiser, sampler="heun", steps=4)
    z_0 = model.prior.sample(6, start=z_1)

    def noise():
        queue = iter([z_1, e])
        return lambda shape: next(queue)

    torch.testing.assert_close(model.sample(6, noise=noise(), mean=True), z_0 / A_0)
    torch.testing.assert_close(model.sample(6, noise=noise()), z_0 / A_0 + S_0 / A_0 * e)
    torch.testing.assert_close(
        model.decode(z_1), data_diffusion(wrong_denoiser, steps=4).sample(6, noise=noise(), mean=True)
    )


def test_samples_on_a_grid_have_its_probabilities():
    data = TableData(4, 1)
    exact = MixtureDenoiser(data.values.double(), 0.0, data.log_p.double().exp())
    model = data_diffusion(exact, -2 * math.log(12), 8.0, 4, 1, sampler="heun", steps=40)
    x = model.sample(20_000)
    for value, p in zip(data.values, data.log_p.exp(), strict=True):
        assert_mean(((x - value).abs() < 1e-6).double()[:, 0], float(p), slack=0.002)


def exact_map(z: torch.Tensor, mean: torch.Tensor, gamma_from: float, gamma_to: float) -> torch.Tensor:
    """The probability-flow ODE keeps (z - alpha m) / sqrt(alpha^2 s^2 + sigma^2)."""
    (a, s), (b, r) = (alpha_sigma(torch.tensor(g).double()) for g in (gamma_from, gamma_to))
    return b * mean + (z - a * mean) * ((b**2 * VAR + r**2) / (a**2 * VAR + s**2)).sqrt()


def test_codes_are_the_ends_of_the_ode_and_lead_back():
    x = gaussian(20)
    want = exact_map(A_0 * x, MEAN, LOW, HIGH)
    sizes, up, around = [25, 50, 100, 200], [], []
    for n in sizes:
        model = data_diffusion(steps=n)
        code = model.encode(x)
        up.append(float((code - want).norm()))
        around.append(float((model.decode(code) - x).norm()))
        torch.testing.assert_close(model.reconstruct(x), model.decode(code))
    assert loglog_slope(sizes, up) == pytest.approx(1, abs=0.2)
    assert loglog_slope(sizes, around) == pytest.approx(1, abs=0.25)
    assert around[-1] < 0.03 * float(x.norm())
    e = torch.randn(20, 2).double()
    torch.testing.assert_close(model.decode(code, noise=lambda shape: e, draw=True), model.decode(code) + S_0 / A_0 * e)


def test_codes_are_flat_and_functions_of_x():
    model = DataDiffusion(Diffusion(wrong_denoiser, LinearLogSNR(LOW, HIGH), (1, 2, 3), steps=4), 5)
    x = torch.randint(0, 5, (7, 1, 2, 3)) / 2.0 - 1
    code = model.encode(x)
    assert code.shape == (7, 6)
    assert model.decode(code).shape == x.shape
    with pytest.raises(ConfigError, match="nothing to draw"):
        model.encode(x, sample=True)


# ------------------------------------------------------------------------------------------- given a code: decoders


class Shifted:
    """The exact denoiser of x given c: N(MEAN + c, VAR)."""

    def __call__(self, z_t, log_snr, condition):
        return GaussianDenoiser(MEAN + condition, VAR)(z_t, log_snr)


def shifted_bound(x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """KL(q(z_0 | x) || p(z_0 | c)) and the last step, in closed form."""
    kl = normal_kl(A_0 * x, (S_0**2).expand(2), A_0 * (MEAN + c), A_0**2 * VAR + S_0**2)
    return kl + torch.log(2 * math.pi * math.e * S_0**2 / A_0**2)


@pytest.mark.parametrize("exact", [True, False])
def test_bound_given_a_condition_is_that_of_the_shifted_gaussian(exact):
    """Neighbouring examples have other conditions, and each keeps its own at all of its times."""
    c = torch.tensor([[-3.0], [0.0], [2.0]]).double().repeat(12_000, 1)
    x = torch.tensor([0.9, -1.4]).double().expand(len(c), 2)
    model = data_diffusion(Shifted(), times_per_code=3)
    got = total(model.terms(x, exact=exact, condition=c))
    if not exact:
        torch.manual_seed(1)
        first = model.given(c).nll(x)
        torch.manual_seed(1)
        torch.testing.assert_close(first, total(model.terms(x, condition=c)))
    for i in range(3):
        assert_mean(got[i::3], float(shifted_bound(x[:1], c[i])))


def slope_in_code(model: DataDiffusion, x: torch.Tensor, c: torch.Tensor, **options) -> tuple[torch.Tensor, ...]:
    """nll of x given c, and its gradient by c; with `options`, of the terms instead."""
    c = c.clone().requires_grad_()
    torch.manual_seed(1)
    nll = total(model.terms(x, condition=c, **options)) if options else model.given(c).nll(x)
    return nll.detach(), torch.autograd.grad(nll.sum(), c)[0]


@pytest.mark.parametrize("steps", [None, 7])
def test_training_weights_stay_out_of_the_bound_of_a_decoder_and_of_its_gradient(steps):
    """A weighted decoder in evaluation mode is the unweighted one; in training mode its gradient is the objective's."""
    weighted = data_diffusion(Shifted(), objective=Objective(simple(), terminal=False), timesteps=steps)
    plain = data_diffusion(Shifted(), timesteps=steps)
    x, c = gaussian(50), torch.randn(50, 1).double()
    exact = slope_in_code(plain, x, c, exact=True)
    for got, want in zip(slope_in_code(weighted.eval(), x, c), exact, strict=True):
        torch.testing.assert_close(got, want)
    trained = slope_in_code(weighted.train(), x, c)
    for got, want in zip(trained, slope_in_code(weighted, x, c, exact=False), strict=True):
        torch.testing.assert_close(got, want)
    assert float((trained[1] - exact[1]).norm()) > 0.5 * float(exact[1].norm())

    def by_mean(decoder: DataDiffusion) -> torch.Tensor:
        mean = (0.3 * x[:, :1]).requires_grad_()
        encoder = lambda x: Normal(mean, torch.full_like(mean, -1.0))  # noqa: E731
        model = Autoencoder(encoder, DiffusionDecoder(decoder), StandardNormal((1,))).eval()
        torch.manual_seed(2)
        return torch.autograd.grad(model.bound(x).sum(), mean)[0]

    torch.testing.assert_close(by_mean(weighted), by_mean(plain))


def test_an_nll_off_the_grid_is_a_number_and_no_bound():
    model = data_diffusion(lambda z, log_snr, c: wrong_denoiser(z, log_snr), levels=4).eval()
    off, c = torch.zeros(3, 2).double(), torch.zeros(3, 1).double()
    assert bool(torch.isfinite(model.given(c).nll(off)).all())
    with pytest.raises(NoBound, match="off that grid"):
        model.terms(off, exact=True, condition=c)


def test_a_condition_with_a_distribution_over_x_is_refused_and_not_ignored():
    q, c = Normal(torch.zeros(3, 2).double(), torch.zeros(3, 2).double()), torch.zeros(3, 1).double()
    with pytest.raises(ConfigError, match="not with a distribution over x"):
        data_diffusion().terms(q, condition=c)


def test_what_a_conditional_shows():
    """Its mean is the denoiser's word on pure noise, its mode DDIM from zero, its picture DDIM from one shared noise."""
    c = torch.tensor([[1.0], [-2.0], [0.5]]).double()
    model = data_diffusion(Shifted(), steps=400)
    view = model.given(c)
    snr = math.exp(-HIGH)
    torch.testing.assert_close(view.mean, (MEAN + c) / VAR / (1 / VAR + snr))
    zero = torch.zeros(3, 2).double()
    torch.testing.assert_close(view.mode, exact_map(zero, MEAN + c, HIGH, LOW) / A_0, rtol=0, atol=0.02)
    shared = torch.randn(2, generator=torch.Generator().manual_seed(0)).double()
    want = exact_map(shared.expand(3, 2), MEAN + c, HIGH, LOW) / A_0
    torch.testing.assert_close(view.picture(), want, rtol=0, atol=0.03)
    torch.testing.assert_close(picture(view), view.picture())
    start = torch.randn(3, 2).double()
    torch.testing.assert_close(view.picture(lambda shape: start), view.from_noise(start))
    drawn = view.sample(lambda shape: start)  # the last step takes the same noise once more
    torch.testing.assert_close(drawn, view.from_noise(start) + S_0 / A_0 * start)
    x = view.from_noise(start)
    torch.testing.assert_close(view.from_noise(view.invert(x)), x, rtol=0, atol=0.05)
    grid = DataDiffusion(Diffusion(Shifted(), LinearLogSNR(LOW, HIGH), (2,)).double(), 5).given(4 * c)
    torch.testing.assert_close(grid.mean, ((MEAN + 4 * c) / VAR / (1 / VAR + snr)).clamp(-1, 1))


def test_a_diffusion_decoder_and_its_rate_bound_the_evidence():
    """z ~ N(0, 1), x | z ~ N(MEAN + z, VAR), the exact posterior and the exact denoiser given z.

    E bound = -log p(x) + E_q [ what the decoder's bound exceeds -log p(x | z) by ], which is known, and positive.
    """
    x = torch.tensor([[0.9, -1.4]]).double()
    precision = 1 + (1 / VAR).sum()
    m, v = ((x - MEAN) / VAR).sum(1, keepdim=True) / precision, 1 / precision
    n = 60_000
    model = Autoencoder(
        lambda x: Normal(m.expand(len(x), 1), v.log().expand(len(x), 1)),
        DiffusionDecoder(data_diffusion(Shifted())),
        StandardNormal((1,)),
    )
    assert model.implicit
    evidence = -torch.distributions.MultivariateNormal(MEAN, torch.ones(2, 2).double() + torch.diag(VAR)).log_prob(x)
    # quadratic in z, so three nodes of Gauss and Hermite are exact
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    decoder = sum(
        w / math.sqrt(2 * math.pi) * float(shifted_bound(x, m + v.sqrt() * u))
        for u, w in zip(nodes, weights, strict=True)
    )
    want = decoder + float(normal_kl(m, v, 0.0, torch.ones(1).double()))
    assert want > float(evidence) + 0.01
    assert_mean(batches(model.bound, x.expand(n, 2)), want)


def test_a_decoder_of_wrong_conditions_is_still_a_bound():
    """On data whose entropy is known, with an encoder that is no posterior."""
    x = MEAN + VAR.sqrt() * torch.randn(20_000, 2).double() + torch.randn(20_000, 1).double()
    model = Autoencoder(
        lambda x: Normal(0.3 * x[:, :1], torch.full((len(x), 1), -1.0).double()),
        DiffusionDecoder(data_diffusion(lambda z, l, c: wrong_denoiser(z + 0.2 * c, l), times_per_code=2)),
        StandardNormal((1,)),
    )
    p = torch.distributions.MultivariateNormal(MEAN, torch.ones(2, 2).double() + torch.diag(VAR))
    excess, error = mean_and_error(model.bound(x) + p.log_prob(x))
    assert excess > 5 * error


def test_reconstruction_by_inversion_keeps_what_the_code_does_not_say():
    x = gaussian(10)
    encoder = lambda x: Normal(x[:, :1], torch.full((len(x), 1), -1.0).double())  # noqa: E731
    for steps, limit in itertools.product((200,), (0.05,)):
        model = Autoencoder(encoder, DiffusionDecoder(data_diffusion(Shifted(), steps=steps)), StandardNormal((1,)))
        assert float((model.reconstruct(x, invert=True) - x).abs().max()) < limit
        assert float((model.reconstruct(x) - x).abs().max()) > 1
    plain = Autoencoder(encoder, lambda z: Normal(z, z), StandardNormal((1,)))
    with pytest.raises(ConfigError, match="invert"):
        plain.reconstruct(x, invert=True)


def test_measures_are_named():
    assert isinstance(data_diffusion(levels=3).last.given(MEAN[None]), NoisyGrid)
    with pytest.raises(NoBound, match="closed form"):
        data_diffusion().given(MEAN).entropy()
