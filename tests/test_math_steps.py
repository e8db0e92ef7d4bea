"""How reconstructions share the drawn step, stages in turn, the last KL on and off, and what each level of codes holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from closed_forms import assert_mean
from tiny import small
from torch import nn

from diled.api import total
from diled.config import DataSpec
from diled.data.splits import Data, Split
from diled.diffusion import constant_beta, ddpm_beta
from diled.diffusion.objectives import at_first_step, mean_share, split_over_steps, step_weights
from diled.distributions import Normal
from diled.errors import ConfigError
from diled.evaluation.levels import FLIPPED, NOISE, held, levels, rates
from diled.evaluation.measure import bounds
from diled.family import model_config
from diled.models.autoencoder import (
    Autoencoder,
    GaussianEncoder,
    GaussianLikelihood,
    LikelihoodDecoder,
    Rate,
    cyclic,
    portion,
    warmup,
)
from diled.models.priors import StandardNormal
from diled.models.zoo import build
from diled.nn.blocks import mlp

SPEC = DataSpec(kind="vector", shape=(6,))


def recipe(name: str, **more):
    """A tiny model of vectors; `prior` adds to the small one."""
    values = small(name)
    values["prior"] = values["prior"] | more.pop("prior", {})
    return build(name, model_config(name, values | more), SPEC)


# ------------------------------------------------------------------------------------- reconstructions and steps


def test_step_weights_of_the_papers_schedule():
    """b / (2 a (1 - abar_t)) with one b for every step; 1 / (T lambda_t) then runs from 0.0040 to 0.248."""
    b, t = 0.008, torch.arange(1, 1000).double()
    want = b / (2 * (1 - b) * (1 - (1 - b) ** (t + 1)))
    got = step_weights(constant_beta(1000, b), 999)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=0)  # the table holds 32 bits
    ends = 1 / (999 * got[[0, -1]])
    torch.testing.assert_close(ends, torch.tensor([0.00396, 0.2482]).double(), rtol=3e-3, atol=0)


def test_step_weights_of_uneven_steps():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = (1 - betas).cumprod(0)
    want = (betas / (2 * (1 - betas) * (1 - abar)))[1:]
    torch.testing.assert_close(step_weights(ddpm_beta(), 999), want, rtol=2e-3, atol=0)


def test_split_weights_are_inverse_step_weights_with_mean_one():
    schedule, n = constant_beta(), 200_000
    inverse = 1 / step_weights(schedule, 20)
    drawn = split_over_steps(schedule, 20)(n, torch.zeros(1, dtype=torch.float64))
    assert drawn.shape == (n,)
    values, counts = drawn.unique(return_counts=True)
    torch.testing.assert_close(values, (inverse / inverse.mean()).sort().values)
    assert bool(((counts - n / 20).abs() < 5 * math.sqrt(n / 20)).all()), "t is uniform"
    assert_mean(drawn, 1.0)


def test_one_step_trains_with_the_weight_of_all():
    drawn = at_first_step(7)(100_000, torch.zeros(1, dtype=torch.float64))
    assert sorted(set(drawn.tolist())) == [0.0, 7.0]
    assert_mean(drawn, 1.0)


def test_distortion_weights_enter_the_gradient_of_each_example_alone():
    x, w = torch.randn(4, 2), torch.tensor([0.0, 1.0, 2.5, 7.0])
    torch.manual_seed(0)
    parts = [GaussianEncoder(mlp([2, 6, 4])), LikelihoodDecoder(mlp([2, 6, 2]), GaussianLikelihood(0.5))]
    plain = Autoencoder(*parts, StandardNormal((2,)))
    weighted = Autoencoder(*parts, StandardNormal((2,)), distortion_weight=lambda batch, like: w[:batch].to(like))

    def run(model, exact, weights):
        torch.manual_seed(1)
        terms = model.terms(x, exact=exact)
        loss = (weights * terms["distortion"]).sum() + total({k: v for k, v in terms.items() if "rate" in k}).sum()
        grads = torch.autograd.grad(loss, [*parts[0].parameters(), *parts[1].parameters()])
        return {k: v.detach() for k, v in terms.items()}, torch.cat([g.flatten() for g in grads])

    for exact in (False, True):
        values, want = run(plain, exact, torch.ones(4) if exact else w)
        seen, got = run(weighted, exact, torch.ones(4))
        for name, value in values.items():
            torch.testing.assert_close(seen[name], value)  # nats, whatever the weights
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_the_papers_model_meets_t_as_it_is_told():
    like, prior = torch.zeros(1, dtype=torch.float64), {"timesteps": 5}
    assert recipe("diled_paper").model.distortion_weight is None
    split = recipe("diled_paper", reconstruct_at="split", prior=prior).model
    inverse = 1 / step_weights(split.prior.schedule, 5)
    torch.testing.assert_close(split.distortion_weight(500, like).unique(), (inverse / inverse.mean()).sort().values)
    one = recipe("diled_paper", reconstruct_at="one", prior=prior).model
    assert one.distortion_weight(500, like).unique().tolist() == [0.0, 5.0]


def test_share_of_the_reconstruction_in_the_papers_schedule():
    b, t = 0.008, np.arange(1, 1001)
    want = (2 * (1 - b) * (1 - (1 - b) ** t) / (1000 * b)).mean()
    assert want == pytest.approx(0.2175, rel=2e-3)
    assert mean_share(constant_beta(), 999) == pytest.approx(want, rel=3e-3)


def gradients(model, x: torch.Tensor, *, exact: bool) -> torch.Tensor:
    """Of the reconstruction of x, in the decoder."""
    torch.manual_seed(0)
    nats = model.terms(x, exact=exact)["distortion"].sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(nats, list(model.decoder.parameters()))])


@pytest.mark.parametrize(
    ("words", "n"), [([1, 2, 0, 0, 0, 0], 3), ([3, 3, 2, 1, 2, 0], 6), ([3, 3, 2, 1, 2, 1], 6), ([0] * 6, 1)]
)
def test_the_papers_w_of_sequences_is_beside_a_mean_over_tokens(words, n):
    """Beside n summed nats w = 8 weighs 8 n / 0.2175, which is 397 at the 10.8 tokens of Yelp's sentences."""
    text = DataSpec(kind="text", shape=(6,), levels=4, symbols=("", "a", "b", "c"))
    network = {"kind": "transformer", "width": 8, "depth": 1, "heads": 2}
    values = small("diled_paper", network) | {"weight": 8.0}
    x = torch.tensor([words])

    def factor(**more) -> float:
        model = build("diled_paper", model_config("diled_paper", values | more), text, 0).model
        gamma, slope = torch.zeros(3), torch.tensor([0.5, 1.0, 2.0])
        torch.testing.assert_close(model.prior.objective.prior(gamma, slope, 3), 2 * 8.0 / 3 / slope)  # w mean_d
        trained, nats = gradients(model, x, exact=False), gradients(model, x, exact=True)
        share = float((trained @ nats) / (nats @ nats))
        torch.testing.assert_close(trained, share * nats)
        return 8.0 / share

    assert factor() == pytest.approx(8 * n / 0.2175, rel=5e-3)
    assert factor(prior=values["prior"] | {"timesteps": None}) == pytest.approx(8 * n / 0.2175, rel=5e-3)
    assert factor(reconstruction="sum") == pytest.approx(8.0)


def test_the_papers_w_of_vectors_is_beside_a_sum():
    assert recipe("diled_paper").model.distortion_scale is None
    gamma, slope = torch.zeros(1), torch.ones(1)
    for how, want in ((None, 2.0 / 3), ("sum", 2.0 / 3), ("mean", 6 * 2.0 / 3)):
        model = recipe("diled_paper", reconstruction=how).model
        assert float(model.prior.objective.prior(gamma, slope, 3)) == pytest.approx(want)
        assert model.distortion_scale is None


@pytest.mark.parametrize("at", ["split", "one"])
def test_a_step_is_drawn_in_discrete_time_only(at):
    with pytest.raises(ConfigError, match=f"reconstruct_at.*{at}.*discrete"):
        model_config("diled_paper", {"reconstruct_at": at, "prior": {"timesteps": None}})


# ---------------------------------------------------------------------------------------------------- the last KL


@pytest.mark.parametrize(
    ("name", "terminal", "trains"),
    [("diled", None, True), ("diled", False, False), ("diled_paper", None, False), ("diled_paper", True, True)],
)
def test_the_last_kl_trains_where_it_is_wanted_and_always_counts(name, terminal, trains):
    model = recipe(name, prior={} if terminal is None else {"terminal": terminal}).model
    assert model.prior.objective.terminal is trains
    x = torch.randn(4, 6)
    for exact in (False, True):
        term = model.terms(x, exact=exact)["rate/terminal"]
        assert bool((term > 0).all())
        assert term.requires_grad is (trains or exact)


@pytest.mark.parametrize(
    ("name", "prior", "words"),
    [
        ("diled", {"schedule": "learned_log_snr", "terminal": False}, "learned schedule.*terminal"),
        ("ldm", {"terminal": False}, "terminal has no effect"),
        ("diffae", {"terminal": False}, "terminal has no effect"),
        ("ldm", {"encoder_weighting": "simple"}, "encoder_weighting has no effect"),
        ("diled_paper", {"weighting": "vlb"}, "weighting has no effect"),
        ("diled_paper", {"encoder_weighting": "vlb"}, "weighting has no effect"),
    ],
)
def test_dials_without_effect_are_refused(name, prior, words):
    with pytest.raises(ConfigError, match=words):
        model_config(name, {"prior": prior})


# ---------------------------------------------------------------------------------------------------------- in turn


def test_a_part_of_the_training_has_its_part_of_the_ramp():
    ramp = warmup(2.0, 0.5)
    assert [portion(ramp, 0, 4)(p) for p in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]
    assert [portion(ramp, 1, 4)(p) for p in (0.0, 0.5, 1.0)] == [1.0, 1.5, 2.0]
    assert portion(ramp, 3, 4)(0.2) == 2.0
    assert float(portion(cyclic(1.0, 2, 0.5), 1, 2)(torch.tensor(0.25))) == 0.5


@pytest.mark.parametrize("name", ["diled", "diled_fixed", "diled_levels"])
def test_rounds_train_one_part_at_a_time(name):
    made = recipe(name, rounds=3, rate_weight=0.6, rate_warmup=0.5)
    model, stages = made.model, made.stages
    assert [s.name for s in stages] == [f"{part} {k}" for k in (1, 2, 3) for part in ("autoencoder", "prior")]
    assert len({s.share for s in stages}) == 1
    parts = {"encoder": model.encoder, "decoder": model.decoder, "prior": model.prior}
    for k, stage in enumerate(stages):
        with stage.training():
            own = {id(p) for p in stage.density.parameters() if p.requires_grad}
            moved = {n for n, part in parts.items() if any(id(p) in own for p in part.parameters())}
            loss = total(stage.density.terms(torch.randn(4, 6), progress=0.5)).sum()
            loss.backward()
            felt = {n for n, part in parts.items() if any(p.grad is not None for p in part.parameters())}
            model.zero_grad()
        assert moved == felt == ({"prior"} if k % 2 else {"encoder", "decoder"})
        if k % 2 == 0:
            assert stage.density.rate_weight(0.5) == pytest.approx(0.6 * min((k // 2 + 0.5) / 3 / 0.5, 1))
        else:
            assert isinstance(stage.density, Rate)


def test_a_schedule_that_no_stage_would_train_is_refused():
    with pytest.raises(ConfigError, match=r"rounds.*no stage trains it"):
        model_config("diled_fixed", {"rounds": 2, "prior": {"schedule": "learned_log_snr"}})


# ----------------------------------------------------------------------------------------------------------- levels


class Linear(nn.Module):
    """z -> N(scale z, std^2)."""

    def __init__(self, scale: list[float], std: float) -> None:
        super().__init__()
        self.scale, self.std = nn.Parameter(torch.tensor(scale)), std

    def forward(self, x):
        mean = self.scale * x
        return Normal(mean, torch.full_like(mean, 2 * math.log(self.std)))


S1, S2, T2 = 0.3, 0.5, 0.8
KEEPS = 0
"""The coordinate that the second level keeps; the other is lost."""


def two_levels() -> Autoencoder:
    inner = Autoencoder(Linear([1.0, 0.0], S2), Linear([1.0, 1.0], T2), StandardNormal((2,)))
    return Autoencoder(Linear([1.0, 1.0], S1), Linear([1.0, 1.0], 1.0), inner)


def vectors(n: int = 4000) -> Data:
    """Pairs of signs with a little noise; the label is the sign of the second, which the second level does not see."""
    rng = np.random.default_rng(0)
    x = (rng.choice([-1.0, 1.0], (n, 2)) * 0.5 + 0.05 * rng.standard_normal((n, 2))).astype(np.float32)
    split = Split(x, {"label": (x[:, 1] > 0).astype(np.int64)}, [str(i) for i in range(n)])
    spec = DataSpec(kind="vector", shape=(2,), low=-1.0, high=1.0, labels={"label": ["low", "high"]})
    return Data("pairs", spec, split, split, split, [])


def test_what_two_linear_levels_hold():
    data = vectors()
    found = held(two_levels(), data)
    x = torch.from_numpy(data.test.values).double()
    assert found["reconstruction_mse/level=1"].value == pytest.approx(0, abs=1e-12)
    assert found["reconstruction_mse/level=2"].value == pytest.approx(float((x[:, 1] ** 2).mean()) / 2 / 4, rel=1e-5)
    assert found["probe_accuracy/level=1"].value == 1.0
    assert found["probe_accuracy/level=2"].value == pytest.approx(0.5, abs=0.03)
    chi_2 = math.sqrt(math.pi / 2) / math.sqrt(2)  # mean of sqrt((e_1^2 + e_2^2) / 2)
    for name, want in (("level=1", chi_2 * NOISE / S1), ("level=2", math.sqrt(2 / math.pi / 2) * NOISE / S2)):
        figure = found[f"code_shift_noise/{name}"]
        assert figure.value == pytest.approx(want, abs=4.5 * figure.stderr)
    assert "code_shift/level=1" not in found, "nothing flips in continuous data"


def test_rates_of_levels_in_closed_form_add_up():
    data, model = vectors(), two_levels()
    found = rates(model, data.test, data.spec, repeats=32)
    kept, lost = (torch.from_numpy(data.test.values[:, i]).double().pow(2).mean() for i in (0, 1))
    entropy = math.log(2 * math.pi * math.e * S1**2)
    error = S2**2 + (lost + S1**2 + S2**2)  # of decoding z_1 from z_2, both dimensions
    first = math.log(2 * math.pi * T2**2) + error / (2 * T2**2) - entropy
    second = 0.5 * (2 * S2**2 + kept + S1**2 - 2 - 2 * math.log(S2**2))
    for i, want in ((1, first), (2, second)):
        figure = found[f"rate_nats/level={i}"]
        assert figure.value == pytest.approx(float(want), abs=0.01)
    together = bounds(model, data.test, data.spec, repeats=32)["rate_nats"]
    assert sum(f.value for f in found.values()) == pytest.approx(together.value, abs=0.02)


def test_flips_move_a_linear_code_as_far_as_they_say():
    dims, std = 50, 0.4
    x = np.random.default_rng(1).integers(0, 2, (3000, dims)).astype(np.float32)
    spec = DataSpec(kind="vector", shape=(dims,), levels=2, low=0.0, high=1.0)
    split = Split(x, {}, [""] * len(x))
    model = Autoencoder(Linear([0.5] * dims, std), Linear([1.0] * dims, 1.0), StandardNormal((dims,)))
    figure = held(model, Data("bits", spec, split, split, split, []), repeats=1)["code_shift/level=1"]
    k = np.arange(dims + 1)  # flips: binomial, each moves its dimension by 2 * 0.5
    p = np.array([math.comb(dims, i) * FLIPPED**i * (1 - FLIPPED) ** (dims - i) for i in k])
    want = (p * np.sqrt(k / dims)).sum() / std
    assert figure.value == pytest.approx(want, abs=4.5 * figure.stderr)


def test_decoding_goes_through_all_levels():
    inner = Autoencoder(Linear([3.0], S2), Linear([5.0], T2), StandardNormal((1,)))
    model = Autoencoder(Linear([2.0], S1), Linear([7.0], 1.0), inner)
    first, second = levels(model)
    x = torch.tensor([[1.0], [-2.0]])
    torch.testing.assert_close(first.encode(x), 2 * x)
    torch.testing.assert_close(first.decode(x), 7 * x)
    torch.testing.assert_close(second.encode(x), 6 * x)
    torch.testing.assert_close(second.decode(x), 35 * x)


def test_one_level_is_the_model_itself_and_others_have_none():
    model = recipe("diled").model
    (level,) = levels(model)
    x = torch.randn(3, 6)
    torch.testing.assert_close(level.encode(x), model.encode(x))
    torch.testing.assert_close(level.reconstruct(x), model.reconstruct(x))
    assert len(levels(recipe("diled_levels", levels=3).model)) == 3
    with pytest.raises(ConfigError, match="no levels"):
        levels(StandardNormal((2,)))
