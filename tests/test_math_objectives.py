"""Training weights, and who receives which gradient; the printed numbers stay nats."""

from __future__ import annotations

import math

import pytest
import torch
from closed_forms import (
    alpha_sigma,
    assert_mean,
    continuous_rate,
    mean_and_error,
    path_gammas,
    path_rate,
    squares_by_hand,
    wrong_denoiser,
)
from torch import nn

from diled.api import normal_noise, scale_gradient, sum_dims, total, with_gradient_of
from diled.diffusion import (
    EDM,
    Cosine,
    Diffusion,
    Linear,
    LinearLogSNR,
    LogNormal,
    Objective,
    edm,
    min_snr,
    simple,
    vlb,
)
from diled.diffusion.diffusion import stratified_times
from diled.distributions import Normal
from diled.models.autoencoder import (
    Autoencoder,
    GaussianEncoder,
    GaussianLikelihood,
    LikelihoodDecoder,
    Rate,
    cyclic,
    warmup,
)
from diled.models.priors import StandardNormal
from diled.nn.blocks import mlp

LOW, HIGH = -4.0, 3.0
SHAPES = [LinearLogSNR, Cosine, Linear]


# ------------------------------------------------------------------------------------------ totals and gradients


def test_total_adds_terms_of_one_shape_only():
    a, b = torch.randn(4), torch.randn(4)
    torch.testing.assert_close(total({"a": a, "b": b}), a + b)
    for wrong in (torch.randn(4, 1), torch.randn(()), torch.randn(1), torch.randn(5)):
        with pytest.raises(ValueError, match="same shape"):
            total({"a": a, "b": wrong})
    with pytest.raises(ValueError, match="same shape"):
        total({"a": torch.randn(4, 1), "b": torch.randn(4, 1)})


def test_sum_dims():
    x = torch.randn(3, 4, 5)
    torch.testing.assert_close(sum_dims(x), x.sum((1, 2)))
    assert sum_dims(x.bfloat16()).dtype == torch.float32
    assert sum_dims(x.double()).dtype == torch.float64
    assert sum_dims(torch.randn(3)).shape == (3,)


def test_scale_gradient_keeps_the_value():
    for r in (0, 1, 0.0, 0.25, 1.0, 3.0, torch.tensor(0.25), torch.tensor([[0.5], [2.0]])):
        z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
        y = scale_gradient(z, r)
        torch.testing.assert_close(y, z)
        if y.requires_grad:
            (y * 5).sum().backward()
            torch.testing.assert_close(z.grad, 5 * torch.as_tensor(r, dtype=torch.float64).expand(2, 3))
        else:
            assert r == 0


def test_with_gradient_of():
    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    y = with_gradient_of(x**2, 3 * x)
    torch.testing.assert_close(y, x**2)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 3.0))


def test_warmup_is_a_ramp():
    assert [warmup(2.0, 0.5)(p) for p in (0.0, 0.25, 0.5, 0.9)] == [0.0, 1.0, 2.0, 2.0]
    assert float(warmup(2.0, 0.5)(torch.tensor(0.25))) == 1.0
    assert warmup(2.0)(0.0) == 2.0


def test_cycles_are_ramps_in_turn():
    """beta(t) = min(tau / R, 1) with tau = mod(t, T / M) / (T / M) (Fu et al. 2019, Eq. 6 and 7), and full at the end."""
    weight = cyclic(2.0, 4, 0.5)
    want = {0.0: 0.0, 1 / 16: 1.0, 1 / 8: 2.0, 3 / 16: 2.0, 1 / 4: 0.0, 5 / 16: 1.0, 0.5: 0.0, 15 / 16: 2.0, 1.0: 2.0}
    for progress, value in want.items():
        assert weight(progress) == pytest.approx(value)
        assert float(weight(torch.tensor(progress))) == pytest.approx(value)
    for progress in torch.linspace(0, 1, 21).tolist():
        tau = progress * 3 - (2 if progress == 1 else math.floor(progress * 3))
        assert cyclic(0.7, 3, 0.4)(progress) == pytest.approx(0.7 * min(tau / 0.4, 1))
        assert cyclic(0.7, 1, 0.4)(progress) == pytest.approx(warmup(0.7, 0.4)(progress))
    assert cyclic(0.7, 3, 0.0)(0.0) == 0.7


# ------------------------------------------------------------------------------------------------- noise levels


@pytest.mark.parametrize("batch", [1, 7, 256])
@pytest.mark.parametrize("k", [1, 3])
def test_stratified_times_fill_every_cell_once(batch, k):
    for _ in range(20):
        t = stratified_times(batch, k, torch.zeros(1))
        assert t.shape == (k * batch,)
        assert bool((t >= 0).all())
        assert bool((t <= 1).all())
        cells = (t.double() * k * batch - 1e-4).floor().long()
        offset = (t.double() * k * batch).sort().values - torch.arange(k * batch)
        torch.testing.assert_close(offset, offset[:1].expand(k * batch), atol=1e-3, rtol=0)
        assert len(cells.unique()) == k * batch
        own = t.reshape(k, batch)  # copy-major
        torch.testing.assert_close(own.diff(dim=0), torch.full((k - 1, batch), 1 / k))


def test_stratified_times_are_uniform():
    t = torch.cat([stratified_times(3, 2, torch.zeros(1, dtype=torch.float64)) for _ in range(3000)])
    assert_mean(t, 0.5)
    first = torch.stack([stratified_times(3, 1, torch.zeros(1, dtype=torch.float64))[0] for _ in range(5000)])
    assert_mean(first, 0.5)
    assert_mean((first - 0.5) ** 2, 1 / 12)


# ------------------------------------------------------------------------------------------------------ weights


class Scaled(nn.Module):
    """x_hat = theta wrong(z_t), with a theta of its own for each row: gradients come out per example."""

    def __init__(self, rows: int, scale: float = 0.8) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.full((rows, 1), scale, dtype=torch.float64))

    def forward(self, z_t, log_snr, condition=None):
        return self.theta * wrong_denoiser(z_t, log_snr)


N = 150_000
MEAN, VAR = 0.8, 0.3


def posterior(n: int = N) -> Normal:
    mean = torch.full((n, 1), MEAN, dtype=torch.float64)
    return Normal(mean, torch.full_like(mean, math.log(VAR)))


def theta_gradient(schedule, objective: Objective) -> torch.Tensor:
    denoiser = Scaled(N)
    model = Diffusion(denoiser, schedule, (1,), objective=objective).double()
    total(model.terms(posterior())).sum().backward()
    return denoiser.theta.grad[:, 0]


def cosine_density(gamma: torch.Tensor) -> torch.Tensor:
    """p(gamma) of the cosine schedule between the ends: sech(gamma / 2), normalised."""
    u_low, u_high = (2 / math.pi * math.atan(math.exp(g / 2)) for g in (LOW, HIGH))
    return 1 / torch.cosh(gamma / 2) / (2 * math.pi * (u_high - u_low))


def integral(weight, theta: float) -> float:
    """1/2 int w(gamma) E || sigma / sqrt(V) e - e_hat ||^2 d gamma by quadrature in gamma and e."""
    n = 4000
    gamma = LOW + (HIGH - LOW) * (torch.arange(n).double() + 0.5) / n
    e = torch.linspace(-8, 8, 321).double()
    p = torch.exp(-0.5 * e**2) / math.sqrt(2 * math.pi) * (e[1] - e[0])
    (a_0, s_0), (a, s) = alpha_sigma(torch.tensor(LOW).double()), alpha_sigma(gamma[:, None])
    var = (a / a_0) ** 2 * VAR + s**2 - (a / a_0) ** 2 * s_0**2
    z = a / a_0 * MEAN + var.sqrt() * e
    x_hat = theta * wrong_denoiser(z.reshape(-1), (-gamma[:, None]).expand_as(z).reshape(-1)).reshape(z.shape)
    squares = ((s / var.sqrt() * e - (z - a * x_hat) / s) ** 2 * p).sum(1)
    return float(0.5 * (weight(gamma) * squares).sum() * (HIGH - LOW) / n)


REFERENCE = Cosine(LOW, HIGH).double()
WEIGHTS = {
    "vlb": (vlb, lambda g: torch.ones_like(g)),
    "simple": (simple(0.7, reference=REFERENCE), lambda g: 2 * 0.7 * cosine_density(g)),
    "min_snr": (
        min_snr(0.5, scale=0.7, reference=REFERENCE),
        lambda g: 2 * 0.7 * cosine_density(g) * torch.minimum(torch.exp(-g), torch.tensor(0.5)) / torch.exp(-g),
    ),
    "edm": (
        edm(0.8, scale=0.7, reference=REFERENCE),
        lambda g: 2 * 0.7 * cosine_density(g) * (torch.exp(g) + 0.8**2) / 0.8**2,
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", WEIGHTS)
def test_equal_weights_give_equal_loss_on_every_schedule(name, shape):
    """The gradient of the denoiser's parameter is that of one integral over gamma, whichever schedule drew the levels."""
    weighting, weight = WEIGHTS[name]
    h = 1e-4
    want = (integral(weight, 0.8 + h) - integral(weight, 0.8 - h)) / (2 * h)
    assert_mean(theta_gradient(shape(LOW, HIGH), Objective(weighting)), want)


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_value_is_nats_whatever_the_weights(name):
    want = continuous_rate(LOW, HIGH, MEAN, VAR, lambda z, l: 0.8 * wrong_denoiser(z, l))
    for encoder in (None, vlb):
        objective = Objective(WEIGHTS[name][0], encoder=encoder, terminal=False)
        model = Diffusion(Scaled(N), LinearLogSNR(LOW, HIGH), (1,), objective=objective).double()
        assert_mean(total(model.terms(posterior())), want)


def test_simple_weights_are_the_unweighted_noise_error():
    """t uniform: scale || e - e_hat ||^2 for the ordinary process, or its mean over dimensions (Ho et al. 2020, Eq. 14)."""
    gamma, slope = torch.tensor([-1.0, 2.0]), torch.tensor([7.0, 3.0])
    torch.testing.assert_close(simple(3.0)(gamma, slope, 5) * 0.5 * slope, torch.full((2,), 3.0))
    torch.testing.assert_close(simple(3.0, mean=True)(gamma, slope, 5) * 0.5 * slope, torch.full((2,), 0.6))
    snr = torch.exp(-gamma)
    torch.testing.assert_close(min_snr(2.0)(gamma, slope, 5) * 0.5 * slope, torch.minimum(snr, torch.tensor(2.0)) / snr)
    torch.testing.assert_close(vlb(gamma, slope, 5), torch.ones(2))


def edm_by_hand(x: torch.Tensor, s: torch.Tensor, d: float, theta: float = 1.0) -> torch.Tensor:
    """D(x; s) of a wrong network, in the symbols of Karras et al. 2022, Table 1."""
    c_skip, c_out = d**2 / (s**2 + d**2), s * d / (s**2 + d**2).sqrt()
    c_in, c_noise = 1 / (s**2 + d**2).sqrt(), -2 * torch.log(s)
    return c_skip * x + c_out * theta * wrong_denoiser((c_in * x).reshape(-1), c_noise.reshape(-1)).reshape(x.shape)


def test_edm_weights_are_the_published_ones():
    """1/2 w gamma' || e - e_hat ||^2 = lambda(s) || D(x + s n; s) - x ||^2, lambda = (s^2 + d^2) / (s d)^2."""
    d, log_s = 0.7, torch.linspace(-4, 3, 15).double()
    s, slope, x, n = torch.exp(log_s), torch.rand(15).double() + 1, torch.randn(15).double(), torch.randn(15).double()
    a, sigma_t = alpha_sigma(2 * log_s)
    estimate = edm_by_hand(x + s * n, s, d)
    e_hat = (a * (x + s * n) - a * estimate) / sigma_t
    want = (s**2 + d**2) / (s * d) ** 2 * (estimate - x) ** 2
    torch.testing.assert_close(0.5 * edm(d)(2 * log_s, slope, 3) * slope * (n - e_hat) ** 2, want)
    torch.testing.assert_close(edm(d, scale=3.0)(2 * log_s, slope, 3), 3 * edm(d)(2 * log_s, slope, 3))


def test_edm_trains_on_its_published_loss():
    """d/d theta of E_{ln s ~ N(-1.2, 1.2^2)} lambda(s) E || D(x + s n; s) - x ||^2, by quadrature in s and n."""
    d = 0.7
    log_s = (torch.arange(2000).double() + 0.5) / 2000 * 8 - 5
    p = torch.exp(-0.5 * ((log_s + 1.2) / 1.2) ** 2)
    n = torch.linspace(-7, 7, 141).double()
    s, q = torch.exp(log_s)[:, None], torch.exp(-0.5 * n**2)

    def published(theta: float) -> float:
        error = edm_by_hand(MEAN + s * n, s.expand(2000, 141), d, theta) - MEAN
        by_level = (error**2 * q).sum(1) / q.sum() * ((s**2 + d**2) / (s * d) ** 2)[:, 0]
        return float((by_level * p).sum() / p.sum())

    network = Scaled(N)
    schedule = LogNormal(-10.0, 6.0).double()
    model = Diffusion(EDM(network, d), schedule, (1,), objective=Objective(edm(d)))
    a_0, s_0 = alpha_sigma(torch.tensor(-10.0).double())
    q_0 = Normal((a_0 * MEAN).expand(N, 1), (2 * s_0.log()).expand(N, 1))
    total(model.terms(q_0)).sum().backward()
    assert_mean(network.theta.grad[:, 0], (published(0.8 + 1e-4) - published(0.8 - 1e-4)) / 2e-4)


def test_bound_ignores_the_weights_and_discrete_values_are_the_chains():
    want = path_rate(path_gammas(LOW, HIGH, 6), MEAN, VAR, wrong_denoiser)
    objective = Objective(simple(), encoder=vlb, terminal=False)
    model = Diffusion(wrong_denoiser, LinearLogSNR(LOW, HIGH), (1,), timesteps=6, objective=objective).double()
    assert_mean(total(model.terms(posterior(), exact=True)), want)
    assert_mean(total(model.terms(posterior())), want)
    mean = torch.full((50, 1), MEAN, dtype=torch.float64, requires_grad=True)
    q = Normal(mean, posterior(50).log_var)
    assert total(model.terms(q, exact=True)).requires_grad
    assert not model.terms(q)["terminal"].requires_grad  # without the terminal term the codes feel none of it
    # nor does the gradient of the bound know of the weights
    plain = Diffusion(wrong_denoiser, LinearLogSNR(LOW, HIGH), (1,), timesteps=6).double()
    grads = []
    for m in (model, plain):
        torch.manual_seed(1)
        grads.append(torch.autograd.grad(total(m.terms(q, exact=True)).sum(), mean)[0])
    torch.testing.assert_close(*grads)


# --------------------------------------------------------------------------------------- LSGM: two passes in one


B, D = 32, 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp([D + 1, 16, D])

    def forward(self, z_t, log_snr, condition=None):
        return self.net(torch.cat([z_t, log_snr[:, None] / 5], 1))


def flat(grads) -> torch.Tensor:
    return torch.cat([g.flatten() for g in grads])


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("prior", ["simple", "min_snr"])
def test_one_pass_gives_the_gradients_of_lsgms_two_passes(prior, k):
    network, encoder = Net().double(), mlp([2, 8, 2 * D]).double()
    schedule = Cosine(LOW, HIGH).double()
    x = torch.randn(B, 2).double()
    weighting = {"simple": simple(), "min_snr": min_snr(0.5)}[prior]

    def encode():
        mean, log_var = encoder(x).chunk(2, 1)
        return mean, log_var

    model = Diffusion(network, schedule, (D,), objective=Objective(weighting, encoder=vlb), times_per_code=k)
    torch.manual_seed(9)
    loss = total(model.terms(Normal(*encode()))).sum()
    got_network = flat(torch.autograd.grad(loss, network.parameters(), retain_graph=True))
    got_encoder = flat(torch.autograd.grad(loss, encoder.parameters()))

    torch.manual_seed(9)
    t = stratified_times(B, k, x)
    e = torch.randn(k * B, D, dtype=torch.float64)

    def repeat(q):
        return q[0].repeat(k, 1), q[1].repeat(k, 1)

    # pass 1: the prior, on detached codes, with its own weights
    with torch.no_grad():
        codes = repeat(encode())
    gamma, slope, squares = squares_by_hand(schedule, network, *codes, t, e)
    w = 2 / slope
    if prior == "min_snr":
        w = w * torch.minimum(torch.exp(-gamma), torch.tensor(0.5)) / torch.exp(-gamma)
    want_network = flat(torch.autograd.grad((0.5 * w * slope * squares).sum() / k, network.parameters()))
    # pass 2: the encoder, with the weights of the bound and its last KL, the prior frozen
    mean, log_var = encode()
    _, slope, squares = squares_by_hand(schedule, network, *repeat((mean, log_var)), t, e)
    (a_0, s_0), (a_1, s_1) = (alpha_sigma(g) for g in schedule.ends)
    v_1 = (a_1 / a_0) ** 2 * (log_var.exp() - s_0**2) + s_1**2
    terminal = 0.5 * (v_1 + (a_1 / a_0 * mean) ** 2 - 1 - v_1.log()).sum()
    want_encoder = flat(torch.autograd.grad((0.5 * slope * squares).sum() / k + terminal, encoder.parameters()))

    torch.testing.assert_close(got_network, want_network, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got_encoder, want_encoder, rtol=1e-10, atol=1e-10)


def test_the_two_passes_agree_for_every_example_to_machine_precision():
    network, mean = Net().double(), torch.randn(B, D).double().requires_grad_()
    log_var = torch.randn(B, D).double().requires_grad_()
    schedule = LinearLogSNR(LOW, HIGH).double()
    model = Diffusion(network, schedule, (D,), objective=Objective(simple(1.7), encoder=vlb))
    torch.manual_seed(9)
    loss = model.terms(Normal(mean, log_var))["diffusion"].sum()
    got = torch.autograd.grad(loss, [mean, log_var, *network.parameters()])
    torch.manual_seed(9)
    t = stratified_times(B, 1, mean)
    e = torch.randn(B, D, dtype=torch.float64)
    _, slope, squares = squares_by_hand(schedule, network, mean.detach(), log_var.detach(), t, e)
    prior = torch.autograd.grad(1.7 * squares.sum(), network.parameters())
    _, slope, squares = squares_by_hand(schedule, network, mean, log_var, t, e)
    encoder = torch.autograd.grad(0.5 * (slope * squares).sum(), [mean, log_var])
    torch.testing.assert_close(flat(got), flat([*encoder, *prior]), rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------- one dial: joint, two stages, nested


def model_of(prior, weight) -> Autoencoder:
    torch.manual_seed(2)
    return Autoencoder(
        GaussianEncoder(mlp([2, 8, 2 * D])),
        LikelihoodDecoder(mlp([D, 8, 2]), GaussianLikelihood(0.5)),
        prior,
        rate_weight=lambda progress: weight,
    )


def grads_of(model, term: str | None, x, seed: int = 3, **options):
    """Gradients of the sum of the terms whose names start with `term` (None: all), by part."""
    torch.manual_seed(seed)
    terms = model.terms(x, **options)
    loss = sum(v.sum() for n, v in terms.items() if term is None or n.startswith(term))
    parts = {"encoder": model.encoder, "decoder": model.decoder, "prior": model.prior}
    out = {}
    for name, part in parts.items():
        ps = list(part.parameters())
        g = torch.autograd.grad(loss, ps, retain_graph=True, allow_unused=True)
        out[name] = flat([torch.zeros_like(p) if v is None else v for p, v in zip(ps, g, strict=True)])
    return out, {n: v.detach() for n, v in terms.items()}


@pytest.mark.parametrize("steps", [None, 8])
def test_the_dial_between_joint_and_two_stages(steps):
    x = torch.randn(B, 2)
    prior = Diffusion(Net(), LinearLogSNR(LOW, HIGH), (D,), timesteps=steps)
    joint, values = grads_of(model_of(prior, 1.0), None, x)
    distortion, _ = grads_of(model_of(prior, 1.0), "distortion", x)
    rate, _ = grads_of(model_of(prior, 1.0), "rate/", x)
    for r in (0.0, 0.3, 1.0, torch.tensor(0.3)):
        model = model_of(prior, r)
        got, got_values = grads_of(model, None, x)
        torch.testing.assert_close(got["encoder"], distortion["encoder"] + r * rate["encoder"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(got["prior"], joint["prior"])  # always at full weight
        torch.testing.assert_close(got["decoder"], joint["decoder"])
        for name, value in values.items():  # and the printed number stays
            torch.testing.assert_close(got_values[name], value)
    assert bool((rate["encoder"] != 0).any())


def test_rate_alone_is_the_second_stage():
    x = torch.randn(B, 2)
    prior = Diffusion(Net(), LinearLogSNR(LOW, HIGH), (D,))
    model = model_of(prior, 0.0)
    stage = Rate(model.encoder, prior)
    torch.manual_seed(5)
    loss = total(stage.terms(x))
    torch.manual_seed(5)
    want = total(prior.terms(model.encoder(x)))
    torch.testing.assert_close(loss, want)
    got = flat(torch.autograd.grad(loss.sum(), prior.parameters()))
    torch.testing.assert_close(got, flat(torch.autograd.grad(want.sum(), prior.parameters())))
    assert not any(p.grad is not None for p in model.encoder.parameters())
    torch.manual_seed(5)
    stage.terms(x)
    total(stage.terms(x)).sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())


def test_nested_levels_multiply_along_the_path():
    """x -> z_1 -> z_2: the outer encoder feels the innermost KL times r_1 r_2, the inner encoder times r_2."""
    x = torch.randn(B, 2).double()
    torch.manual_seed(2)
    outer_net, inner_net = mlp([2, 8, 2 * D]).double(), mlp([D, 8, 2 * D]).double()

    def encoder(net):
        return lambda v: Normal(*net(v).chunk(2, 1))

    def decoder(dims):
        return lambda z: Normal(z[:, :dims], torch.zeros(()).double())

    def innermost_gradients(r_1, r_2):
        inner = Autoencoder(encoder(inner_net), decoder(D), StandardNormal((D,)), rate_weight=r_2)
        model = Autoencoder(encoder(outer_net), decoder(2), inner, rate_weight=r_1)
        torch.manual_seed(3)
        terms = model.terms(x)
        return (
            terms["rate/rate/kl"],
            flat(torch.autograd.grad(terms["rate/rate/kl"].sum(), outer_net.parameters(), retain_graph=True)),
            flat(torch.autograd.grad(terms["rate/rate/kl"].sum(), inner_net.parameters(), retain_graph=True)),
            flat(torch.autograd.grad(terms["rate/negative_entropy"].sum(), outer_net.parameters(), allow_unused=False)),
        )

    value, outer, inner, entropy = innermost_gradients(1.0, 1.0)
    got_value, got_outer, got_inner, got_entropy = innermost_gradients(0.5, 0.2)
    torch.testing.assert_close(got_value, value)
    torch.testing.assert_close(got_outer, 0.5 * 0.2 * outer, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(got_inner, 0.2 * inner, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(got_entropy, 0.5 * entropy, rtol=1e-10, atol=1e-12)


def test_extras_train_and_never_enter_the_bound():
    x = torch.randn(B, 2)
    model = model_of(StandardNormal((D,)), 1.0)
    model.extras = (lambda m, batch, q, z: {"shrink": (q.mean**2).sum(1) + 0 * z.sum(1)},)
    terms = model.terms(x)
    torch.testing.assert_close(terms["extra/shrink"], (model.encoder(x).mean ** 2).sum(1))
    assert not any(n.startswith("extra") for n in model.terms(x, exact=True))


# ------------------------------------------------------------------------------------------------- StandardNormal


def test_standard_normal_nll_kl_and_samples():
    p = StandardNormal((2,))
    z = torch.randn(5, 2)
    torch.testing.assert_close(p.bound(z), -torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1))
    q = Normal(torch.randn(5, 2), torch.randn(5, 2))
    want = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mean, (0.5 * q.log_var).exp()), torch.distributions.Normal(0.0, 1.0)
    ).sum(1)
    torch.testing.assert_close(total(p.terms(q)), want)
    noise = normal_noise(z)((5, 2))
    torch.testing.assert_close(p.sample(5, noise=lambda shape: noise), noise)


def test_terms_of_a_sample_bound_the_same_kl():
    q = Normal(torch.full((N, 1), 0.7).double(), torch.full((N, 1), -1.0).double())
    want = float(total(StandardNormal((1,)).terms(q))[0])
    samples = total(StandardNormal((1,)).terms_of_sample(q, exact=True))
    mean, error = mean_and_error(samples)
    assert mean == pytest.approx(want, abs=4.5 * error)


def test_free_bits_stop_the_gradient_of_cheap_dimensions_only():
    mean = torch.tensor([[1.0, 0.1], [0.8, 0.3]]).double().requires_grad_()
    log_var = torch.zeros(2, 2).double().requires_grad_()
    q = Normal(mean, log_var)  # KL of each dimension, averaged over the batch: 0.41 and 0.025 nats
    plain = StandardNormal((2,)).terms(q)["kl"]
    free = StandardNormal((2,), free_bits=0.2).terms(q)["kl"]
    torch.testing.assert_close(free, plain)
    got, got_var = torch.autograd.grad(free.sum(), [mean, log_var], retain_graph=True)
    torch.testing.assert_close(got, torch.stack([mean[:, 0], torch.zeros(2).double()], 1))
    assert not bool(got_var[:, 1].any())
    (exact,) = torch.autograd.grad(StandardNormal((2,), free_bits=0.2).terms(q, exact=True)["kl"].sum(), mean)
    torch.testing.assert_close(exact, mean)
