"""The importance-weighted objective and the flow posterior against closed forms, quadrature and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from closed_forms import LinearGaussian
from tiny import small
from torch import nn

from diled.api import NoBound, evaluating, scale_gradient, total
from diled.config import DataSpec
from diled.diffusion import PARAMETERIZATIONS, Diffusion
from diled.diffusion.schedule import LinearLogSNR
from diled.distributions import Dirac, Normal
from diled.draws import seeded
from diled.errors import ConfigError
from diled.evaluation.amortization import optimal_bounds
from diled.evaluation.codes import posteriors
from diled.evaluation.likelihood import Elbo, elbo, iwae, log_weight
from diled.family import model_config
from diled.models.autoencoder import Autoencoder, GaussianEncoder
from diled.models.check import check_model
from diled.models.flow_posterior import FlowEncoder, FlowPosterior
from diled.models.iwae import ImportanceWeighted
from diled.models.priors import StandardNormal
from diled.models.zoo import build
from diled.nn.blocks import mlp
from diled.nn.flows import Flow
from diled.nn.latent import ResidualMLP

BINARY = DataSpec(kind="image", shape=(1, 8, 8), levels=2, high=1.0)
VECTOR = DataSpec(kind="vector", shape=(6,))
WEIGHTED = {"importance": 3, "rate_warmup": 0.0}
FLOW = {"posterior": "flow"}


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# A linear-Gaussian world, whose evidence and posterior are known -------------------------------------------------------

W = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 0.8]], dtype=torch.float64)
WORLD = LinearGaussian(W, rand(3), 0.5, torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))


class Affine(nn.Module):
    """x -> N(m(x) + shift, stretch v): the exact posterior, moved and stretched by two parameters."""

    def __init__(self, shift: float = 0.0, stretch: float = 1.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift, dtype=torch.float64))
        self.log_stretch = nn.Parameter(torch.tensor(math.log(stretch), dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> Normal:
        mean, var = WORLD.posterior(x)
        return Normal(mean + self.shift, (var.log() + self.log_stretch).expand_as(mean))


class Linear(nn.Module):
    """z -> N(a W z + b, 0.5 I), with a parameter a = 1."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.seen = nn.Parameter(torch.ones((), dtype=torch.float64)), []

    def forward(self, z: torch.Tensor) -> Normal:
        self.seen.append(z)
        mean = self.a * z @ W.T + WORLD.b
        return Normal(mean, torch.full_like(mean, math.log(0.5)))


def weighted(k: int, *encoder: float) -> ImportanceWeighted:
    return ImportanceWeighted(Affine(*encoder), Linear(), StandardNormal((2,)), k)


@pytest.mark.parametrize("k", [1, 5])
def test_the_exact_posterior_gives_the_evidence_without_variance(k):
    x = rand(4, 3, seed=1)
    terms = weighted(k).terms(x)
    torch.testing.assert_close(total(terms), WORLD.nll(x))
    torch.testing.assert_close(terms["extra/importance"], torch.zeros(4, dtype=torch.float64))


def test_the_objective_falls_with_k_from_the_bound_to_the_evidence():
    x, n = rand(1, 3, seed=1), 4000
    var = WORLD.posterior(x)[1]
    kl = 0.5 * (1.5 + 0.3**2 / var - 1 - math.log(1.5)).sum()  # of the encoder's q from the posterior
    evidence, bound = float(WORLD.nll(x)), float(WORLD.nll(x) + kl)
    found = []
    for k in (1, 4, 64):
        with seeded(k), torch.no_grad():
            terms = weighted(k, 0.3, 1.5).terms(x.expand(n, 3))
        value = total(terms)
        found.append((float(value.mean()), 5 * float(value.std()) / math.sqrt(n)))
        of_one_code = (terms["distortion"] + terms["rate/kl"]).mean()
        assert float(of_one_code) == pytest.approx(bound, abs=5 * found[0][1])
        assert bool((terms["extra/importance"] <= 1e-12).all())
    assert found[0][0] == pytest.approx(bound, abs=found[0][1])
    assert found[0][0] - found[0][1] > found[1][0] + found[1][1]
    assert found[1][0] - found[1][1] > found[2][0] + found[2][1]
    assert found[2][0] == pytest.approx(evidence, abs=found[2][1] + float(kl) / 30)


def test_terms_and_gradient_by_hand():
    k, x, model = 3, rand(4, 3, seed=2), weighted(3, 0.4, 1.7)
    parameters = [model.encoder.shift, model.encoder.log_stretch, model.decoder.a]
    with seeded(5):
        terms = model.terms(x)
    got = torch.autograd.grad(total(terms).sum(), parameters)
    with seeded(5):
        e = torch.randn(k * 4, 2, dtype=torch.float64).reshape(k, 4, 2)
    q = model.encoder(x)
    z = q.mean + q.var.sqrt() * e
    log_p_x = torch.distributions.Normal(model.decoder.a * z @ W.T + WORLD.b, math.sqrt(0.5)).log_prob(x).sum(2)
    log_p_z = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(2)
    log_q = torch.distributions.Normal(q.mean, q.var.sqrt()).log_prob(z).sum(2)
    log_w = log_p_x + log_p_z - log_q
    torch.testing.assert_close(terms["distortion"], -log_p_x.mean(0))
    torch.testing.assert_close(terms["rate/kl"], (log_q - log_p_z).mean(0))
    torch.testing.assert_close(total(terms), -log_w.exp().mean(0).log())
    # Burda et al. 2016, Eq. 14: the normalised weights are constants
    by_hand = torch.autograd.grad(-(log_w.softmax(0).detach() * log_w).sum(), parameters)
    torch.testing.assert_close(got, by_hand)
    assert [name for name, term in terms.items() if term.requires_grad] == ["extra/importance"]


def test_the_bound_stays_that_of_one_code_and_does_not_know_of_k():
    x, model = rand(4, 3, seed=2), weighted(8, 0.4, 1.7)
    plain = Autoencoder(model.encoder, model.decoder, model.prior)
    for call in (lambda m: m.bound(x), lambda m: total(m.terms(Normal(x, torch.zeros_like(x)), exact=True))):
        with seeded(1):
            mine = call(model)
        with seeded(1):
            assert torch.equal(mine, call(plain))
    assert set(model.terms(x, exact=True)) == {"distortion", "rate/kl"}


def test_x_is_encoded_once_and_all_codes_are_decoded_in_one_batch():
    x, model, encoded = rand(4, 3), weighted(6), []
    model.encoder.register_forward_hook(lambda module, args, out: encoded.append(len(args[0])))
    model.terms(x)
    assert encoded == [4]
    assert [len(z) for z in model.decoder.seen] == [24]


def test_what_has_no_weights_is_refused_in_words():
    parts = Affine(), Linear()
    diffusion = Diffusion(PARAMETERIZATIONS["v"](ResidualMLP(2, 8, 1)), LinearLogSNR(), (2,))
    blurred = Linear()
    blurred.implicit = True
    for made, words in (
        (lambda: ImportanceWeighted(*parts, StandardNormal((2,)), 0), "at least 1 sample"),
        (lambda: ImportanceWeighted(*parts, diffusion, 2), "closed form, and a prior of type Diffusion"),
        (lambda: ImportanceWeighted(*parts, StandardNormal((2,), free_bits=0.1), 2), "free_bits has no meaning"),
        (lambda: ImportanceWeighted(parts[0], blurred, StandardNormal((2,)), 2), "diffusion decoder only bounds"),
    ):
        with pytest.raises(ConfigError, match=words):
            made()
    deterministic = ImportanceWeighted(lambda x: Dirac(x[:, :2]), Linear(), StandardNormal((2,)), 2)
    with pytest.raises(NoBound, match="deterministic encoder"):
        deterministic.terms(rand(4, 3))


# The flow --------------------------------------------------------------------------------------------------------------


def flow(dim: int, context: int = 3, steps: int = 4, *, learned: float = 0.5) -> Flow:
    """A small flow whose last layers are no zeros any more."""
    with seeded(3):
        made = Flow(dim, context, steps, width=8).double()
        with torch.no_grad():
            for p in made.parameters():
                p.add_(learned * torch.randn(p.shape))
    return made


def posterior(n: int, dim: int = 2, **more) -> FlowPosterior:
    """n times the same distribution, with a draw for each; leaves of the graph are in `base` and `context`."""
    mean, log_var, h = (rand(1, dim, seed=i).repeat(n, 1).requires_grad_() for i in (11, 12, 13))
    return FlowPosterior(Normal(mean, log_var - 1), flow(dim, dim), h, **more)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("dim", [2, 5])
def test_the_inverse_leads_back_and_the_determinant_is_that_of_the_jacobian(dim, steps):
    f, z, h = flow(dim, steps=steps), rand(6, dim), rand(6, 3, seed=1)
    image, log_det = f(z, h)
    back, other = f(image, h, inverse=True)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(other, -log_det)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda z, h: f(z[None], h[None])[0][0]))(z, h)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobians)[1])
    assert bool((log_det.abs() > 1e-3).all())


def test_one_coupling_by_hand():
    f, z, h = flow(5, steps=1), rand(6, 5), rand(6, 3, seed=1)
    raw, shift = f.steps[0].net(torch.cat([z[:, 3:], h], 1)).chunk(2, 1)  # the first half, rounded up, moves
    log_scale = 2 * torch.tanh(raw / 2)
    image, log_det = f(z, h)
    torch.testing.assert_close(image, torch.cat([z[:, :3] * log_scale.exp() + shift, z[:, 3:]], 1))
    torch.testing.assert_close(log_det, log_scale.sum(1))


def test_the_parts_that_move_are_halves_and_every_other_dimension_in_turn():
    steps = Flow(5, 1, 6).steps
    assert [step.moved.tolist() for step in steps] == [[0, 1, 2], [3, 4], [0, 2, 4], [1, 3], [0, 1, 2], [3, 4]]
    assert [step.kept.tolist() for step in steps][:4] == [[3, 4], [0, 1, 2], [1, 3], [0, 2, 4]]


@pytest.mark.parametrize("steps", [0, 4])
def test_a_flow_that_has_not_learned_is_its_gaussian_bit_for_bit(steps):
    base, x = Normal(rand(7, 4), rand(7, 4, seed=1)), rand(7, 4, seed=2)
    q = FlowPosterior(base, Flow(4, 2, steps).double(), rand(7, 2))
    noise = lambda shape: rand(*shape, seed=9)  # noqa: E731
    assert torch.equal(q.sample(noise), base.sample(noise))
    assert torch.equal(q.nll(x), base.nll(x))
    assert torch.equal(q.mean, base.mean)
    assert torch.equal(q.mode, base.mean)
    assert torch.equal(q.entropy(), base.nll(q.sample()))


@pytest.mark.parametrize("moved", [False, True])
def test_the_density_integrates_to_one_and_its_entropy_is_the_mean_over_draws(moved):
    n = 20_000
    line = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        one, many = posterior(1), posterior(n)
        if moved:
            scale, shift = torch.tensor([0.5, -1.5], dtype=torch.float64), 0.3
            one, many = one.affine(scale, shift), many.affine(scale, shift)
        one = FlowPosterior(one.base, one.flow, one.context.expand(len(grid), 2), one.scale, one.shift)
        nll = one.nll(grid)
        p = nll.neg().exp() * float(line[1] - line[0]) ** 2
        drawn, z = many.entropy(), many.sample()
    assert float(p.sum()) == pytest.approx(1, abs=1e-4)
    assert float(drawn.mean()) == pytest.approx(float((p * nll).sum()), abs=5 * float(drawn.std()) / math.sqrt(n))
    mean = (p[:, None] * grid).sum(0)
    torch.testing.assert_close(z.mean(0), mean, atol=5 * float(z.std(0).max()) / math.sqrt(n), rtol=0)


def test_it_is_one_draw_whose_entropy_is_its_own_nll():
    q = posterior(5)
    scale = torch.tensor([0.5, -2.0], dtype=torch.float64)
    others = [q, q.affine(scale, 0.3), q.affine(2.0, scale).affine(scale, 1.0), q.scale_gradient(0.5)]
    for other in [*others, *(other.repeat(3) for other in others)]:
        assert len(other.sample()) == len(other.base.mean)
        assert torch.equal(other.sample(), other.sample())
        torch.testing.assert_close(other.entropy(), other.nll(other.sample()))
    torch.testing.assert_close(q.affine(scale, 0.3).sample(), scale * q.sample() + 0.3)
    torch.testing.assert_close(q.affine(scale, 0.3).affine(2.0, 1.0).sample(), 2 * (scale * q.sample() + 0.3) + 1)
    torch.testing.assert_close(q.affine(scale, 0.3).mean, scale * q.mean + 0.3)
    assert torch.equal(q.scale_gradient(0.5).sample(), q.sample())
    assert len(q.sample().unique(dim=0)) == 5
    assert len(q.repeat(3).sample().unique(dim=0)) == 15
    noise = lambda shape: torch.zeros(shape, dtype=torch.float64)  # noqa: E731
    torch.testing.assert_close(q.sample(noise), q.mean)
    torch.testing.assert_close(q.repeat(2).sample(noise), torch.cat([q.mean, q.mean]))
    torch.testing.assert_close(q.affine(scale, 0.3).sample(noise), scale * q.mean + 0.3)


@pytest.mark.parametrize("ask", ["sample", "entropy", "nll", "mean"])
@pytest.mark.parametrize("r", [0.0, 0.25, torch.tensor(0.25, dtype=torch.float64)], ids=str)
def test_the_dial_scales_the_gradient_of_every_parameter_and_no_value(ask, r):
    q, x = posterior(5), rand(5, 2, seed=4).requires_grad_()
    leaves = [q.base.mean, q.base.log_var, q.context, *q.flow.parameters()]

    def asked(q: FlowPosterior) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        value = {"sample": q.sample, "entropy": q.entropy, "nll": lambda: q.nll(x), "mean": lambda: q.mean}[ask]()
        if not value.requires_grad:
            return value, [None] * (len(leaves) + 1)
        return value, list(torch.autograd.grad((value**2).sum(), [*leaves, x], allow_unused=True, retain_graph=True))

    before, whole = asked(q)
    after, part = asked(q.scale_gradient(r))
    torch.testing.assert_close(before, after)
    for theirs, mine in zip(whole[:-1], part[:-1], strict=True):
        wanted = torch.zeros(()) if theirs is None else r * theirs
        torch.testing.assert_close(torch.zeros(wanted.shape).to(wanted) if mine is None else mine, wanted)
    if ask == "nll":
        torch.testing.assert_close(whole[-1], part[-1])
    twice = q.scale_gradient(0.5).scale_gradient(0.5)
    assert float(twice.dial) == 0.25
    assert any(g is not None and bool(g.any()) for g in whole)


def test_a_flow_learns_the_correlation_that_a_factorised_gaussian_must_miss():
    rho, n = 0.95, 256
    target = torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, rho], [rho, 1.0]]))
    floor = -0.5 * math.log(1 - rho**2)  # min over factorised Gaussians of KL(q || target)
    with seeded(0):
        f, log_var = Flow(2, 1, 2, width=16), torch.zeros(1, 2, requires_grad=True)
        adam = torch.optim.Adam([*f.parameters(), log_var], lr=0.02)
        found = []
        for _ in range(300):
            q = FlowPosterior(Normal(torch.zeros(n, 2), log_var.expand(n, 2)), f, torch.zeros(n, 1))
            kl = (-q.entropy() - target.log_prob(q.sample())).mean()
            adam.zero_grad()
            kl.backward()
            adam.step()
            found.append(float(kl.detach()))
    assert found[0] > floor
    assert sum(found[-50:]) / 50 < 0.2 * floor


def test_codes_on_a_grid_are_refused_where_the_variance_is_learned():
    with pytest.raises(NoBound, match="grid"):
        posterior(64).check(torch.randint(0, 3, (64, 2)).double() - 1)
    posterior(64).check(rand(64, 2))


# Models ----------------------------------------------------------------------------------------------------------------


def recipe(spec: DataSpec = BINARY, seed: int = 0, **values):
    return build("vae", model_config("vae", small("vae") | values), spec, seed)


def learned(model: Autoencoder) -> Autoencoder:
    """With a flow that has learned something."""
    with seeded(4), torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def agree(first, second) -> None:
    """Two estimates, with a value and a standard error for each example, are of one number."""
    gap, error = (
        (first.value - second.value).mean(),
        (first.stderr**2 + second.stderr**2).sum().sqrt() / len(first.value),
    )
    assert abs(float(gap)) < 5 * float(error)


def pictures(n: int) -> torch.Tensor:
    return rand(n, 1, 8, 8, seed=6).sign().float()


def test_the_decoder_reads_the_code_whose_rate_is_counted():
    model, x = learned(recipe(**FLOW).model), pictures(8)
    with torch.no_grad():
        with seeded(2):
            bound = model.bound(x)
        with seeded(2):
            weight = log_weight(model, x)
    torch.testing.assert_close(bound, -weight, atol=1e-3, rtol=1e-5)


def test_a_flow_in_front_of_the_exact_posterior_has_the_evidence_as_its_bound():
    class Exact(nn.Module):
        def forward(self, x: torch.Tensor) -> FlowPosterior:
            mean, var = WORLD.posterior(x)
            return FlowPosterior(Normal(mean, var.log().expand_as(mean)), Flow(2, 1).double(), mean[:, :1])

    x = rand(4, 3, seed=1)
    torch.testing.assert_close(Autoencoder(Exact(), Linear(), StandardNormal((2,))).bound(x), WORLD.nll(x))


def test_a_flow_that_has_not_learned_makes_the_gaussian_vae():
    gaussian, flowing = recipe().model, recipe(**FLOW).model
    theirs, mine = (dict(m.encoder.network.named_parameters()) for m in (gaussian, flowing))
    with torch.no_grad():
        for name, p in theirs.items():
            mine[name][: len(p)] = p
    flowing.decoder.load_state_dict(gaussian.decoder.state_dict())
    x = pictures(70)
    torch.testing.assert_close(iwae(gaussian, x, (1, 5)).log_p, iwae(flowing, x, (1, 5)).log_p, atol=1e-4, rtol=1e-6)
    with torch.no_grad():
        pair = []
        for model in (gaussian, flowing):
            with seeded(1):
                pair.append(model.terms(x, progress=0.3))
    torch.testing.assert_close(pair[0]["distortion"], pair[1]["distortion"])
    agree(elbo(gaussian, x, 200), elbo(flowing, x, 200))


def test_estimates_of_the_evidence_take_a_flow_and_the_audit_refuses_it_in_words():
    model, x = learned(recipe(**FLOW).model), pictures(8)
    tighter, bound = iwae(model, x, (1, 400)), elbo(model, x, 400)
    assert bool((tighter.best > bound.value).all())
    agree(Elbo(tighter.log_p[0], tighter.stderr[0], {}), bound)
    assert set(bound.terms) == {"distortion", "rate/negative_entropy", "rate/nll"}
    with pytest.raises(NoBound, match="FlowPosterior and not a Gaussian"):
        optimal_bounds(model, x, steps=4)
    with pytest.raises(NoBound, match="FlowPosterior"):
        posteriors(model, x)


def test_a_flow_trains_on_weights_of_its_own_draws():
    model = learned(recipe(**FLOW, **WEIGHTED).model)
    k, x, trained = 4, pictures(8), ImportanceWeighted(model.encoder, model.decoder, model.prior, 4)
    with torch.no_grad():
        with seeded(2):
            terms = trained.terms(x)
        with seeded(2):
            q = model.encoder(x).repeat(k)
            z = q.sample()
        log_w = total({"q": q.nll(z), "p": -total(model.prior.terms(z))})
        log_w = (log_w - model.decoder(z).nll(x.repeat(k, 1, 1, 1))).reshape(k, 8)
    torch.testing.assert_close(total(terms), math.log(k) - log_w.logsumexp(0), atol=1e-3, rtol=1e-5)


def test_the_warm_up_reaches_the_flow_through_the_rate_alone():
    model, x = recipe(**FLOW, rate_warmup=0.5).model, pictures(8)
    learned(model)

    def gradients(progress: float) -> list[torch.Tensor]:
        with seeded(1):
            loss = total(model.terms(x, progress=progress)).sum()
        return list(torch.autograd.grad(loss, list(model.encoder.parameters())))

    none, half, whole = (gradients(progress) for progress in (0.0, 0.25, 0.5))
    with seeded(1):
        z = model.encoder(x).sample()
        alone = torch.autograd.grad(model.decoder(z).nll(x).sum(), list(model.encoder.parameters()))
    for by_hand, a, b, c in zip(alone, none, half, whole, strict=True):
        torch.testing.assert_close(a, by_hand)
        torch.testing.assert_close(b, 0.5 * (a + c), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [FLOW, WEIGHTED, FLOW | WEIGHTED | {"flow_steps": 1}], ids=str)
@pytest.mark.parametrize("spec", [BINARY, VECTOR], ids=["binary", "vector"])
def test_they_keep_the_contract(spec, options):
    x = pictures(8) if spec is BINARY else rand(8, 6).float()
    made = recipe(spec, **options)
    check_model(made.model, x, stages=made.stages, rebuild=lambda: recipe(spec, seed=1, **options).model)
    check_model(made.stages[0].density, x)


def test_the_model_is_an_autoencoder_and_the_stage_has_the_weights():
    made = recipe(**WEIGHTED)
    trained = made.stages[0].density
    assert type(made.model) is Autoencoder
    assert isinstance(made.model.encoder, GaussianEncoder)
    assert isinstance(trained, ImportanceWeighted)
    assert trained.samples == 3
    assert (trained.encoder, trained.decoder, trained.prior) == (
        made.model.encoder,
        made.model.decoder,
        made.model.prior,
    )
    assert recipe().stages[0].density.__class__ is Autoencoder
    flowing = recipe(**FLOW, flow_steps=3).model.encoder
    assert isinstance(flowing, FlowEncoder)
    assert len(flowing.flow.steps) == 3


def test_the_encoder_of_a_flow_reads_mean_variance_and_context_from_one_network():
    with seeded(0):
        encoder, x = FlowEncoder(mlp([6, 9]), flow(3, 3).float(), limit=2.0), torch.randn(4, 6)
    q, h = encoder(x), encoder.network(x)
    torch.testing.assert_close(q.base.mean, h[:, :3])
    torch.testing.assert_close(q.base.log_var, 2 * torch.tanh(h[:, 3:6] / 2))
    torch.testing.assert_close(q.context, h[:, 6:])
    assert q.flow is encoder.flow
    with evaluating(encoder):
        assert torch.equal(scale_gradient(q.mean, 0.5), q.mean)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"importance": 0}, "importance"),
        ({"importance": 5}, "set rate_warmup to 0"),
        ({"importance": 5, "rate_warmup": 0.1}, "set rate_warmup to 0"),
        ({"flow_steps": 3}, "'flow_steps' has no effect, since posterior is 'gaussian'"),
        ({"posterior": "flow", "flow_steps": 0}, "flow_steps"),
        ({"posterior": "flow", "latent_dim": 1}, "latent_dim is 1"),
        ({"posterior": "flows"}, "posterior"),
        ({"importance": 2, "free_bits": 0.1, "rate_warmup": 0}, "free_bits"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_when_it_is_read(values, words):
    with pytest.raises(ConfigError, match=words):
        model_config("vae", values)
