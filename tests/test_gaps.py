"""Amortization and generalization gaps, against models whose best q and whose evidence are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from closed_forms import GaussianDenoiser, assert_mean, mean_and_error
from torch import Tensor, nn

from diled.api import NoBound, total
from diled.diffusion import DataDiffusion, Diffusion, DiffusionDecoder, LinearLogSNR
from diled.distributions import Bernoulli, Normal
from diled.errors import ConfigError, DataError, ModelError
from diled.evaluation.amortization import ExampleNoise, optimal_bounds
from diled.evaluation.gaps import (
    amortization,
    cremer,
    generalization,
    generalization_by_term,
    paired_bootstrap,
    zhang,
)
from diled.models.autoencoder import (
    Autoencoder,
    BernoulliLikelihood,
    DiracEncoder,
    FixedNoiseEncoder,
    GaussianEncoder,
    GaussianLikelihood,
    LikelihoodDecoder,
)
from diled.models.priors import Standardized, StandardNormal
from diled.nn.blocks import mlp

W = torch.tensor([[1.0, 0.6], [0.2, 0.9], [-0.5, 0.4]])
B = torch.tensor([0.3, -0.2, 0.1])
STD = 0.5
D = 2


@dataclass
class Linear:
    """z ~ N(0, C), x | z ~ N(W z + b, STD^2 I), columns not orthogonal: the posterior N(m(x), P^-1) is correlated."""

    prior_cov: Tensor

    @property
    def precision(self) -> Tensor:
        return torch.linalg.inv(self.prior_cov) + W.T @ W / STD**2

    def mean(self, x: Tensor) -> Tensor:
        return (x - B) @ W / STD**2 @ torch.linalg.inv(self.precision)

    def nll(self, x: Tensor) -> Tensor:
        cov = W @ self.prior_cov @ W.T + STD**2 * torch.eye(3)
        return -torch.distributions.MultivariateNormal(B, cov).log_prob(x)

    def kl(self, shift: Tensor, var: Tensor) -> float:
        """KL(N(m + shift, diag var) || posterior)."""
        p = self.precision
        squares = (p.diagonal() * var).sum() + shift @ p @ shift
        return float(0.5 * (squares - D - p.logdet() - var.log().sum()))

    @property
    def best_var(self) -> Tensor:
        """Of the factorised q nearest to the posterior."""
        return 1 / self.precision.diagonal()


SIMPLE = Linear(torch.eye(D))
SHIFT, VAR = torch.tensor([0.3, -0.2]), torch.tensor([0.02, 0.3])


class ShiftedEncoder(nn.Module):
    """N(m(x) + shift, var), where m(x) is the posterior's mean."""

    def __init__(self, truth: Linear, shift: Tensor, var: Tensor) -> None:
        super().__init__()
        self.truth, self.shift, self.var = truth, nn.Parameter(shift), var

    def forward(self, x: Tensor) -> Normal:
        return Normal(self.truth.mean(x) + self.shift, self.var.log())  # a variance that broadcasts


def linear_decoder(w: Tensor, b: Tensor, std: float) -> LikelihoodDecoder:
    network = nn.Linear(w.shape[1], w.shape[0])
    with torch.no_grad():
        network.weight.copy_(w)
        network.bias.copy_(b)
    return LikelihoodDecoder(network, GaussianLikelihood(std))


def linear_model(shift: Tensor = SHIFT, var: Tensor = VAR, prior=None, truth: Linear = SIMPLE) -> Autoencoder:
    encoder = ShiftedEncoder(truth, shift.clone(), var)
    return Autoencoder(encoder, linear_decoder(W, B, STD), prior or StandardNormal((D,)))


def data(n: int, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=g) @ W.T + B + STD * torch.randn(n, 3, generator=g)


def small_vae(seed: int = 0, likelihood=None, prior=None) -> tuple[Autoencoder, Tensor]:
    """A random nonlinear VAE, and bits to encode."""
    torch.manual_seed(seed)
    decoder = LikelihoodDecoder(mlp([D, 16, 6]), likelihood or BernoulliLikelihood())
    model = Autoencoder(GaussianEncoder(mlp([6, 16, 2 * D])), decoder, prior or StandardNormal((D,)))
    for p in model.parameters():
        p.data.mul_(2)
    return model, torch.randint(0, 2, (9, 6)).float() * 2 - 1


# -------------------------------------------------------------------------------------------- known best bounds


def test_all_gaps_of_a_linear_gaussian_model_are_the_closed_forms():
    x = data(40)
    found = optimal_bounds(linear_model(), x, steps=200)
    approximation, inference = SIMPLE.kl(0 * SHIFT, SIMPLE.best_var), SIMPLE.kl(SHIFT, VAR)
    assert approximation > 0.05
    assert inference - approximation > 0.5
    nll = SIMPLE.nll(x)
    assert_mean(found.bound - nll, inference, sigmas=3)
    assert_mean(found.best_bound - nll, approximation, sigmas=3, slack=5e-4)
    assert_mean(found.gap, inference - approximation, sigmas=3)
    split = cremer(-nll, found.bound, found.best_bound)
    for measured, want in (
        (split.inference, inference),
        (split.approximation, approximation),
        (split.amortization, inference - approximation),
    ):
        assert abs(measured.value - want) < 3 * measured.stderr + 1e-3
        assert measured.n == 40
    assert torch.allclose(found.posterior.mean, SIMPLE.mean(x), atol=0.05)
    assert torch.allclose(found.posterior.var, SIMPLE.best_var.expand(40, D), rtol=0.2)


def test_rate_and_distortion_before_and_after_are_the_closed_forms():
    x = data(40)
    found = optimal_bounds(linear_model(), x, steps=200)
    q_before = Normal(SIMPLE.mean(x) + SHIFT, VAR.log())
    q_after = Normal(SIMPLE.mean(x), SIMPLE.best_var.log())
    standard = Normal(torch.zeros(40, D), torch.zeros(40, D))
    for q, rate, distortion, slack in (
        (q_before, found.rate[0], found.distortion[0], 0.0),
        (q_after, found.rate[1], found.distortion[1], 0.01),
    ):
        assert torch.allclose(rate.float(), q.kl(standard), atol=0.15 if slack else 1e-4)
        assert abs(float((rate - q.kl(standard)).mean())) < 0.02
        spread = 0.5 * (W**2 @ q.var.T).sum(0) / STD**2
        exact = Normal(q.mean @ W.T + B, torch.full((40, 3), STD**2).log()).nll(x) + spread
        assert_mean(distortion - exact, 0.0, sigmas=3, slack=slack)
    assert torch.allclose(found.bound, found.rate[0] + found.distortion[0])
    assert torch.allclose(found.best_bound, found.rate[1] + found.distortion[1])
    assert set(found.before) == set(found.after) == {"distortion", "rate/kl"}


def test_an_encoder_that_is_the_optimum_has_no_gap():
    found = optimal_bounds(linear_model(0 * SHIFT, SIMPLE.best_var), data(20), steps=60)
    assert found.gap.abs().max() < 0.02
    assert found.still_improving == 0


def test_a_second_level_is_a_prior_of_the_first():
    """z_1 ~ N(0, A A^T + s^2 I) by an autoencoder whose encoder is exact: its bound is the evidence."""
    a, s = torch.tensor([[0.8, 0.3], [-0.2, 0.7]]), 0.6
    cov = a @ a.T + s**2 * torch.eye(D)
    precision = torch.eye(D) + a.T @ a / s**2
    exact = nn.Linear(D, D, bias=False)
    exact.weight.data = torch.linalg.inv(precision) @ a.T / s**2

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = exact

        def forward(self, z: Tensor) -> Normal:
            mean = self.network(z)
            return Normal(mean, (-precision.diagonal().log()).expand_as(mean))

    truth = Linear(cov)
    inner = Autoencoder(Inner(), linear_decoder(a, torch.zeros(D), s), StandardNormal((D,)))
    x = data(40)
    found = optimal_bounds(linear_model(prior=inner, truth=truth), x, steps=200)
    # the inner q is factorised too: a constant more, which no outer q can avoid
    inner_gap = float(0.5 * (precision.diagonal().log().sum() - precision.logdet()))
    best = truth.kl(0 * SHIFT, truth.best_var) + inner_gap
    assert_mean(found.best_bound - truth.nll(x), best, sigmas=3, slack=2e-3)
    assert_mean(found.bound - truth.nll(x), truth.kl(SHIFT, VAR) + inner_gap, sigmas=3)
    assert found.before.keys() == {"distortion", "rate/negative_entropy", "rate/distortion", "rate/rate/kl"}


def exact_diffusion() -> Diffusion:
    """The diffusion whose denoiser is exact for N(0, I)."""
    return Diffusion(GaussianDenoiser(torch.zeros(D), torch.ones(D)), LinearLogSNR(), (D,))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["diffusion", "standardized diffusion"])
def test_an_exact_diffusion_prior_gives_the_gap_of_the_standard_normal(kind):
    x, prior = data(30), exact_diffusion()
    if kind == "standardized diffusion":  # an affine map there and back: N(0, I) on z / 2 is N(0, 4 I) on z
        outer = Standardized(prior, (D,))
        outer.std.fill_(2.0)
        truth, prior = Linear(4 * torch.eye(D)), outer
    else:
        truth = SIMPLE
    options = {"steps": 200, "samples": 32, "starts": ("encoder",), "learning_rate": 0.03}
    found = optimal_bounds(linear_model(prior=prior, truth=truth), x, **options)
    best, before = truth.kl(0 * SHIFT, truth.best_var), truth.kl(SHIFT, VAR)
    assert_mean(found.bound - truth.nll(x), before, sigmas=3)
    assert_mean(found.best_bound - truth.nll(x), best, sigmas=3, slack=0.01)
    assert_mean(found.gap, before - best, sigmas=3, slack=0.01)
    assert set(found.before) == {"distortion", "rate/diffusion", "rate/terminal"}


def test_fixed_noise_optimises_the_mean_alone_and_on_request_the_variance():
    schedule = LinearLogSNR()
    code = nn.Linear(3, D)
    model = Autoencoder(FixedNoiseEncoder(code, schedule), linear_decoder(W, B, STD), StandardNormal((D,)))
    var = float(torch.sigmoid(schedule.ends[0]))
    x = data(20)
    with torch.no_grad():
        shift = model.encoder(x).mean - SIMPLE.mean(x)
    before = torch.tensor([SIMPLE.kl(s, torch.full((D,), var)) for s in shift])
    only_mean = optimal_bounds(model, x, steps=300, starts=("encoder", "zero"), learning_rate=0.03)
    assert_mean(only_mean.bound - SIMPLE.nll(x) - before, 0.0, sigmas=3)
    assert_mean(
        only_mean.best_bound - SIMPLE.nll(x), SIMPLE.kl(0 * SHIFT, torch.full((D,), var)), sigmas=3, slack=0.003
    )
    assert torch.allclose(only_mean.posterior.var, torch.full((20, D), var))
    both = optimal_bounds(model, x, steps=300, starts=("zero",), free_variance=True)
    assert_mean(both.best_bound - SIMPLE.nll(x), SIMPLE.kl(0 * SHIFT, SIMPLE.best_var), sigmas=3, slack=0.003)


# ---------------------------------------------------------------------------------------------- the optimisation


def test_the_encoders_start_is_never_worse():
    for seed in range(3):
        model, x = small_vae(seed)
        found = optimal_bounds(model, x, steps=80, starts=("encoder",))
        assert found.gap.min() > -0.02
        assert found.gap.mean() > 0.3


def test_a_start_that_leads_nowhere_is_not_taken():
    """Few small steps from zero: the encoder's own q is better and is kept."""
    found = optimal_bounds(linear_model(0 * SHIFT, SIMPLE.best_var), data(20) * 3, steps=8, starts=("zero",))
    assert found.won == {"unchanged": 1.0, "zero": 0.0}
    assert found.gap.abs().max() == 0
    assert found.still_improving > 0.8  # yet the start was on its way


def test_the_better_start_wins():
    """An encoder far off, and a start at zero that is near: per example the winner has the better bound."""
    found = optimal_bounds(linear_model(SHIFT + 6.0), data(20), steps=60)
    assert found.won["zero"] == 1.0
    alone = optimal_bounds(linear_model(SHIFT + 6.0), data(20), steps=60, starts=("zero",))
    assert torch.equal(found.best_bound, alone.best_bound)
    assert torch.equal(found.posterior.mean, alone.posterior.mean)


def test_zero_is_mean_zero_and_variance_one():
    """After few tiny steps q is where it started: its rate is that of N(0, I), nothing."""
    model = linear_model(SHIFT + 9.0)
    found = optimal_bounds(model, data(5), steps=4, starts=("zero",), learning_rate=1e-8)
    assert found.rate[1].abs().max() < 1e-6


def test_the_plateau_check_tells_an_optimisation_that_goes_on():
    x = data(20)
    early = optimal_bounds(linear_model(SHIFT + 3.0), x, steps=20, starts=("encoder",))
    assert early.still_improving == 1.0
    assert early.late_gain.min() > 0.1
    done = optimal_bounds(linear_model(), x, steps=200, starts=("encoder",))
    assert done.still_improving == 0.0
    assert done.late_gain.abs().max() < 0.1


def test_the_late_gain_is_that_of_the_last_quarter():
    """Where the loss is almost linear in the mean and Adam's steps are its rate, the share of the path is that of the rates."""
    far = 50.0
    found = optimal_bounds(linear_model(SHIFT + far), data(4), steps=40, starts=("encoder",), learning_rate=1e-2)
    k = torch.arange(40)
    rates = 1e-4 + (1e-2 - 1e-4) * 0.5 * (1 + torch.cos(torch.pi * k / 40))
    share = float(rates[30:].sum() / rates.sum())
    assert found.late_gain.mean() / found.gap.mean() == pytest.approx(share, rel=0.1)


def test_examples_do_not_interact():
    model, x = small_vae()
    options = {"steps": 60, "samples": 4, "evaluation": 64}
    together = optimal_bounds(model, x, **options)
    for batch in (1, 4):
        apart = optimal_bounds(model, x, batch=batch, **options)
        assert torch.allclose(apart.bound, together.bound, atol=1e-4)
        assert torch.allclose(apart.best_bound, together.best_bound, atol=2e-3)
        assert torch.allclose(apart.posterior.mean, together.posterior.mean, atol=0.02)
        assert torch.equal(apart.winner, together.winner) or apart.gap.sub(together.gap).abs().max() < 2e-3
    first = optimal_bounds(model, x[:3], **options)
    assert torch.allclose(first.best_bound, together.best_bound[:3], atol=2e-3)


def test_an_example_with_a_steep_loss_changes_no_other():
    x = data(3)
    wild = torch.cat([x[:1] + 1000, x[1:]])
    options = {"steps": 40, "samples": 4, "starts": ("encoder",)}
    calm, beside = optimal_bounds(linear_model(), x, **options), optimal_bounds(linear_model(), wild, **options)
    assert torch.allclose(calm.best_bound[1:], beside.best_bound[1:], atol=1e-4)


def test_one_draw_of_each_step_is_enough_to_descend():
    found = optimal_bounds(linear_model(), data(20), steps=300, samples=1)
    want = SIMPLE.kl(SHIFT, VAR) - SIMPLE.kl(0 * SHIFT, SIMPLE.best_var)
    assert abs(mean_and_error(found.gap)[0] - want) < 0.06


def test_reported_draws_are_neither_those_that_were_optimised_nor_those_that_chose(monkeypatch):
    seen: dict[int, list[Tensor]] = {}
    ordinary = ExampleNoise.take

    def take(self, n):
        e = ordinary(self, n)
        seen.setdefault(id(self.generators[0]), []).append(e)
        kept.append(self)
        return e

    kept: list[ExampleNoise] = []
    monkeypatch.setattr(ExampleNoise, "take", take)
    optimal_bounds(linear_model(), data(2), steps=4, samples=2, evaluation=8, starts=("encoder",))
    streams = [torch.cat(e).flatten() for e in seen.values()]  # optimise; choose late, last, unchanged; report twice
    assert len(streams) == 6
    starts = [float(s[0]) for s in streams]
    assert len(set(starts)) == 3
    assert starts[1] == starts[2] == starts[3]
    assert torch.equal(streams[4], streams[5])


def test_antithetic_pairs_leave_no_error_in_what_is_linear():
    class Slope(nn.Module):
        def forward(self, z: Tensor):
            class Linear:
                check = staticmethod(lambda x: None)
                nll = staticmethod(lambda x: z @ torch.tensor([2.0, -1.0]))

            return Linear()

    model = linear_model()
    model.decoder = Slope()
    x = data(6)
    found = optimal_bounds(model, x, steps=4, evaluation=16, starts=("encoder",))
    want = (SIMPLE.mean(x) + SHIFT) @ torch.tensor([2.0, -1.0])
    assert torch.allclose(found.distortion[0].float(), want, atol=1e-5)


def test_noise_of_an_example_depends_on_its_index_alone():
    like = torch.zeros(5, 3)
    together = ExampleNoise(7, 10, like)
    a, b = together.take(2000), together.take(3)  # more than is drawn ahead
    alone = ExampleNoise(7, 12, like[:1])
    assert torch.equal(torch.cat([a, b])[:, 2:3], alone.take(2003))
    assert abs(float(a.mean())) < 0.03
    assert float(a.std()) == pytest.approx(1, abs=0.03)
    assert a[:, 0].flatten().dot(a[:, 1].flatten()) / a[:, 0].numel() < 0.05
    assert not torch.equal(ExampleNoise(8, 10, like).take(1), a[:1])


def test_same_seed_same_numbers_and_the_callers_generator_is_left_alone():
    model, x = small_vae(prior=exact_diffusion())
    options = {"steps": 6, "samples": 2, "evaluation": 8, "batch": 4}
    before = torch.random.get_rng_state()
    first = optimal_bounds(model, x, **options, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    again, other = optimal_bounds(model, x, **options, seed=3), optimal_bounds(model, x, **options, seed=4)
    assert torch.equal(first.best_bound, again.best_bound)
    assert torch.equal(first.bound, again.bound)
    assert not torch.equal(first.bound, other.bound)


def test_bound_is_the_models_own():
    model, x = small_vae()
    found = optimal_bounds(model, x, steps=4, evaluation=2000)
    with torch.no_grad():
        own = torch.stack([model.bound(x) for _ in range(2000)])
    assert_mean((own.mean(0) - found.bound) / own.std(0) * 2000**0.5, 0.0, slack=0.5)


def test_the_model_is_left_as_it_was():
    model, x = small_vae()
    model.encoder.network = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5), model.encoder.network)
    model.decoder.network = nn.Sequential(nn.Dropout(0.5), model.decoder.network)
    frozen = next(model.decoder.parameters())
    frozen.requires_grad_(False)
    model.train()
    model.decoder.eval()
    modes = [part.training for part in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    options = {"steps": 6, "samples": 2, "evaluation": 8}
    found = optimal_bounds(model, x, **options)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert not frozen.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert [part.training for part in model.modules()] == modes
    with torch.no_grad():  # dropout and batch statistics are off, and the caller's no_grad is no obstacle
        silent = optimal_bounds(model.eval(), x, **options)
    assert torch.equal(found.best_bound, silent.best_bound)


def test_weights_of_the_training_change_nothing():
    model, x = small_vae()
    options = {"steps": 6, "samples": 2, "evaluation": 8}
    plain = optimal_bounds(model, x, **options)
    model.rate_weight = lambda progress: 0.1
    model.prior.free_bits = 5.0
    assert torch.equal(optimal_bounds(model, x, **options).best_bound, plain.best_bound)


def test_codes_and_data_of_any_shape_and_progress():
    class Picture(nn.Module):
        def forward(self, x: Tensor) -> Normal:
            mean = x[:, :, ::2, ::2]
            return Normal(mean, torch.zeros(()))

    class Enlarge(nn.Module):
        def forward(self, z: Tensor) -> Bernoulli:
            return Bernoulli(nn.functional.interpolate(z, scale_factor=2))

    model = Autoencoder(Picture(), Enlarge(), StandardNormal((1, 2, 2)))
    x, told = torch.randint(0, 2, (5, 1, 4, 4)).float() * 2 - 1, []
    found = optimal_bounds(model, x, steps=4, evaluation=8, batch=2, progress=lambda done, n: told.append((done, n)))
    assert found.posterior.mean.shape == found.posterior.log_var.shape == (5, 1, 2, 2)
    assert found.bound.shape == found.late_gain.shape == found.winner.shape == (5,)
    assert told == [(2, 5), (4, 5), (5, 5)]


# ------------------------------------------------------------------------------------------------------ refusals


def diffusion_decoder() -> Autoencoder:
    net = nn.Module()
    net.forward = lambda z, log_snr, condition=None: z  # type: ignore[method-assign]
    decoder = DiffusionDecoder(DataDiffusion(Diffusion(net, LinearLogSNR(), (6,))))
    return Autoencoder(GaussianEncoder(mlp([6, 4, 2 * D])), decoder, StandardNormal((D,)))


def test_what_has_no_amortization_gap_is_refused_in_words():
    model, x = small_vae()
    deterministic = Autoencoder(DiracEncoder(mlp([6, D])), model.decoder, StandardNormal((D,)))
    for refused, words in (
        (deterministic, "Dirac"),
        (diffusion_decoder(), "decoder is a diffusion"),
        (StandardNormal((6,)), "no autoencoder"),
    ):
        with pytest.raises(NoBound, match=words):
            optimal_bounds(refused, x, steps=4)
    with pytest.raises(NoBound, match="grey values"):  # wherever the example stands
        optimal_bounds(model, torch.cat([x, 0.3 * x[:1]]), steps=4, batch=4)
    grid = small_vae(likelihood=GaussianLikelihood())[0]
    with pytest.raises(NoBound, match="on a grid"):
        optimal_bounds(grid, x, steps=4)
    assert all(p.requires_grad for p in grid.parameters())


@pytest.mark.parametrize("cut", [Tensor.detach, torch.zeros_like])
def test_a_decoder_without_a_gradient_is_refused_in_words(cut):
    """It would be taken for one that no code explains better; weights with a gradient do not hide it."""
    model, x = small_vae()
    model.decoder.register_forward_pre_hook(lambda module, arguments: (cut(arguments[0]),))
    with pytest.raises(ModelError, match="The decoder passes no gradient to its code"):
        optimal_bounds(model, x, steps=4)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 3}, "steps"),
        ({"samples": 3}, "samples"),
        ({"samples": 0}, "samples"),
        ({"evaluation": 7}, "evaluation"),
        ({"batch": 0}, "batch"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"starts": ()}, "starts"),
        ({"starts": ("zeros",)}, "zero"),
    ],
)
def test_numbers_without_meaning(wrong, words):
    model, x = small_vae()
    with pytest.raises(ConfigError, match=words):
        optimal_bounds(model, x, **wrong)


def test_no_examples():
    model, x = small_vae()
    with pytest.raises(DataError, match="no examples"):
        optimal_bounds(model, x[:0])


# --------------------------------------------------------------------------------------------------- the gaps


def test_generalization_gap_by_hand():
    train, test = torch.tensor([1.0, 3.0]), torch.tensor([4.0, 6.0, 8.0])
    gap = generalization(train, test)
    assert gap.value == 4.0  # a test bound above the training bound: overfitting is positive
    assert gap.stderr == pytest.approx((4 / 3 + 2 / 2) ** 0.5)
    assert gap.n == 5
    assert generalization(train[:1], test).stderr is None


def test_generalization_gap_of_known_gaussians():
    """-log N(x; 0, 1) of data that are wider in the test set: the gap is half the difference of variances."""
    torch.manual_seed(5)
    one = Normal(torch.zeros(20_000, 1), torch.zeros(20_000, 1))
    gap = generalization(one.nll(torch.randn(20_000, 1)), one.nll(1.5 * torch.randn(20_000, 1)))
    assert abs(gap.value - 0.5 * (1.5**2 - 1)) < 3.5 * gap.stderr
    assert gap.stderr == pytest.approx((0.5 * (1 + 1.5**4) / 20_000) ** 0.5, rel=0.1)


def test_terms_gaps_add_up_to_the_bounds():
    torch.manual_seed(6)
    train, test = ({name: torch.randn(n) for name in ("distortion", "rate/kl")} for n in (7, 9))
    gaps = generalization_by_term(train, test)
    assert sum(gap.value for gap in gaps.values()) == pytest.approx(
        generalization(total(train), total(test)).value, abs=1e-6
    )
    with pytest.raises(DataError, match="same model"):
        generalization_by_term(train, {"distortion": test["distortion"]})


def test_cremers_split_by_hand():
    split = cremer([-10.0, -12.0], [15.0, 15.0], [11.0, 14.0])
    assert (split.inference.value, split.approximation.value, split.amortization.value) == (4.0, 1.5, 2.5)
    assert split.inference.value == split.approximation.value + split.amortization.value
    assert split.amortization.stderr == pytest.approx(1.5)
    assert amortization([15.0, 15.0], [11.0, 14.0]) == split.amortization


def test_zhangs_split_by_hand():
    """Bounds 10 and 14, best bounds 9 and 11: of a gap of 4 the generative part is 2 and the encoder's 3 - 1 = 2."""
    split = zhang([9.0, 11.0], [8.0, 10.0], [13.0, 14.0, 15.0], [10.5, 11.5, 12.5])
    assert split.generalization.value == 4.0
    assert split.generative.value == 2.5
    assert split.inference.value == 1.5
    assert split.inference.stderr == 0.0  # paired within a split: a constant gap has no error
    assert split.generative.stderr == pytest.approx((1 / 3 + 2 / 2) ** 0.5)


def test_inputs_that_do_not_match():
    with pytest.raises(DataError, match="different numbers"):
        cremer([1.0], [1.0, 2.0], [1.0, 2.0])
    with pytest.raises(DataError, match="test holds no examples"):
        generalization([1.0], [])
    with pytest.raises(DataError, match="not finite"):
        amortization([1.0, float("nan")], [1.0, 1.0])
    with pytest.raises(DataError, match="one number per example"):
        generalization(np.ones((2, 2)), [1.0])
    with pytest.raises(DataError, match="same ones"):
        paired_bootstrap([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="seeds"):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0], minus=(np.ones((2, 3)), np.ones((1, 3))))
    with pytest.raises(DataError, match="per seed"):
        paired_bootstrap(np.ones((2, 2, 2)), [1.0, 2.0])
    with pytest.raises(ConfigError, match="draws"):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0], draws=1)
    with pytest.raises(ConfigError, match="level"):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0], level=95)


# ------------------------------------------------------------------------------------------------- the bootstrap


def test_bootstrap_of_examples_covers_as_often_as_it_says():
    """Difference 0.5 of two models on the same 60 examples, whose own spread is large and cancels."""
    rng, covered, lengths = np.random.default_rng(0), [], []
    for i in range(300):
        shared = 10 * rng.normal(size=60)
        a, b = shared + 0.5 + rng.normal(size=60), shared + rng.normal(size=60)
        found = paired_bootstrap(a, b, draws=400, level=0.9, seed=i)
        covered.append(found.low < 0.5 < found.high)
        lengths.append(found.high - found.low)
        assert found.difference.value == pytest.approx(a.mean() - b.mean())
    assert 0.84 < np.mean(covered) < 0.94
    assert np.mean(lengths) == pytest.approx(2 * 1.645 * (2 / 60) ** 0.5, rel=0.1)


def test_bootstrap_error_is_the_standard_error():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 400))
    found = paired_bootstrap(a, b, draws=4000)
    assert found.difference.stderr == pytest.approx((a - b).std() / 20, rel=0.05)
    assert found.difference.n == 400
    assert found.low < found.difference.value < found.high


def test_bootstrap_over_seeds_adds_their_spread():
    """Seeds whose means spread far more than their examples: sd of the mean of S seeds is sd / sqrt S."""
    rng = np.random.default_rng(2)
    offsets, noise = np.array([0.0, 1.0, 3.0, 4.0]), 0.01 * rng.normal(size=200)
    a = offsets[:, None] + noise
    found = paired_bootstrap(a, noise, draws=4000)
    assert found.difference.value == pytest.approx(2.0)
    assert found.difference.stderr == pytest.approx(offsets.std() / 2, rel=0.05)
    both = paired_bootstrap(a, a[:2] + 5, draws=4000)
    assert both.difference.value == pytest.approx(2.0 - 5.5)
    assert both.difference.stderr == pytest.approx((offsets.var() / 4 + 0.25 / 2) ** 0.5, rel=0.05)
    assert "seeds" in both.difference.note


def test_bootstrap_of_generalization_gaps():
    """(test - train) of one model minus that of another; the seeds of a model are the same on both sides."""
    rng = np.random.default_rng(3)
    test, train = rng.normal(size=(2, 300)) + 3, rng.normal(size=(2, 500))
    offsets = np.array([[0.0], [100.0]])
    found = paired_bootstrap(test + offsets, test[:1], minus=(train + offsets, train[:1]), draws=3000)
    want = test.mean() - test[0].mean() - (train.mean() - train[0].mean())
    assert found.difference.value == pytest.approx(want)
    assert found.difference.stderr < 1  # what a seed adds on both sides cancels
    assert found.difference.n == 800
    alone = paired_bootstrap(test[0], test[1], minus=(train[0], train[1]), draws=4000)
    error = ((test[0] - test[1]).var() / 300 + (train[0] - train[1]).var() / 500) ** 0.5
    assert alone.difference.stderr == pytest.approx(error, rel=0.05)


def test_bootstrap_level_and_seed():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, 100))
    narrow, wide = (paired_bootstrap(a, b, level=level, draws=4000) for level in (0.5, 0.95))
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(1.96 / 0.6745, rel=0.07)
    assert paired_bootstrap(a, b, seed=1) == paired_bootstrap(a, b, seed=1)
    assert paired_bootstrap(a, b, seed=1) != paired_bootstrap(a, b, seed=2)
