"""Editing with attributes: vectors told apart, classifiers of codes, and LatentOps' ODE."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import torch
from closed_forms import GaussianDenoiser
from torch import Tensor, nn

from diled.arguments import edit_of
from diled.config import DataSpec
from diled.data import Data, Split
from diled.diffusion import Diffusion, LinearLogSNR
from diled.diffusion.schedule import alpha, sigma2
from diled.errors import ConfigError, DataError, NoBound
from diled.latent import attributes as ode
from diled.latent.attributes import (
    AttributeODE,
    CodeClassifier,
    Wish,
    along_energy,
    fit_classifier,
    fit_ode,
    through_noise,
)
from diled.latent.edit import Attribute, Direction, fit_direction, fit_directions, parse_attribute, together
from diled.model import Model
from diled.models.autoencoder import Autoencoder, DiracEncoder
from diled.models.priors import GaussianMixture, NoPrior, Standardized, StandardNormal

RNG = np.random.default_rng(0)
SENTIMENT, TENSE = Attribute("sentiment=positive", "sentiment", 1), Attribute("tense=past", "tense", 0)


def correlated(n: int = 600) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Codes that are exactly additive in a class of three and a class of two that go together, and the two effects."""
    topic = RNG.choice(3, n, p=[0.5, 0.3, 0.2])
    mood = (RNG.random(n) < np.array([0.9, 0.3, 0.2])[topic]).astype(np.int64)
    one, two = RNG.normal(size=(3, 4)), RNG.normal(size=(2, 4))
    return one[topic] + two[mood] + 7, {"topic": topic, "mood": mood}, one, two


# Vectors --------------------------------------------------------------------------------------------------------------


def test_attributes_that_go_together_are_told_apart():
    codes, labels, one, two = correlated()
    topic, mood = Attribute("topic=1", "topic", 1), Attribute("mood=1", "mood", 1)
    found = fit_directions(codes, labels, [topic, mood])
    n = np.bincount(labels["topic"])
    want = one[1] - (n[0] * one[0] + n[2] * one[2]) / (n[0] + n[2]) + two[1] - two[0]
    np.testing.assert_allclose(found.vector, want, atol=1e-8)
    apart = sum(fit_direction(codes, a.target(labels[a.column])[1], a.name).vector for a in (topic, mood))
    assert np.abs(apart - want).max() > 0.1, "by itself each vector holds a part of the other"
    assert (found.attribute, found.method) == ("topic=1, mood=1", "vector")


@pytest.mark.parametrize("method", ["vector", "classifier"])
def test_one_attribute_is_the_difference_of_two_means_and_several_add_up(method: str):
    codes = RNG.normal(size=(300, 4))
    labels = {"topic": RNG.choice(3, 300, p=[0.5, 0.3, 0.2]), "age": RNG.normal(size=300)}
    topic, age = Attribute("topic=1", "topic", 1), Attribute("age", "age")
    has = labels["topic"] == 1
    one = fit_directions(codes, labels, [topic], method)
    if method == "vector":
        np.testing.assert_allclose(one.vector, codes[has].mean(0) - codes[~has].mean(0), atol=1e-10)
    np.testing.assert_array_equal(one.vector, fit_direction(codes, has, "topic=1", method).vector)
    other = fit_direction(codes, labels["age"], "age", method)
    both = fit_directions(codes, labels, [topic, age], method)
    np.testing.assert_allclose(both.vector, one.vector + other.vector)
    assert both.score == min(one.score, other.score)


def test_examples_without_a_label_do_not_count():
    codes, labels, *_ = correlated()
    hidden = {name: np.where(np.arange(600) % 3 == i, -1, column) for i, (name, column) in enumerate(labels.items())}
    wild = np.where((np.arange(600) % 3 < 2)[:, None], RNG.normal(size=codes.shape), codes)
    want = [Attribute("topic=2", "topic", 2), Attribute("mood=0", "mood", 0)]
    known = np.arange(600) % 3 == 2
    clean = fit_directions(codes[known], {k: v[known] for k, v in labels.items()}, want)
    np.testing.assert_allclose(fit_directions(wild, hidden, want).vector, clean.vector, atol=1e-8)
    one = fit_directions(wild, hidden, want[:1]).vector
    seen = hidden["topic"] >= 0
    np.testing.assert_allclose(
        one, wild[hidden["topic"] == 2].mean(0) - wild[seen & (hidden["topic"] != 2)].mean(0), atol=1e-8
    )


def test_what_cannot_be_told_apart_is_refused():
    codes, labels, *_ = correlated()
    twin = {"a": labels["mood"], "b": 1 - labels["mood"]}
    with pytest.raises(DataError, match="do not tell these attributes apart"):
        fit_directions(codes, twin, [Attribute("a=1", "a", 1), Attribute("b=1", "b", 1)])
    never = {"a": np.where(labels["topic"] > 0, labels["mood"], -1), "b": np.where(labels["topic"] > 0, -1, 1)}
    never["b"][np.flatnonzero(labels["topic"] == 0)[:9]] = 0
    with pytest.raises(DataError, match="do not tell these attributes apart"):
        fit_directions(codes, never, [Attribute("a=1", "a", 1), Attribute("b=1", "b", 1)])
    with pytest.raises(ConfigError, match="'topic=1' and 'topic=2' are of one column"):
        fit_directions(codes, labels, [Attribute("topic=1", "topic", 1), Attribute("topic=2", "topic", 2)])
    with pytest.raises(ConfigError, match="No attribute is given"):
        fit_directions(codes, labels, [])
    with pytest.raises(ConfigError, match="'magic' is unknown"):
        fit_directions(codes, labels, [Attribute("mood=1", "mood", 1)], "magic")


# Classifiers of codes -------------------------------------------------------------------------------------------------


def gaussian_classes() -> tuple[CodeClassifier, Tensor, Tensor, Tensor]:
    """The exact classifier of three Gaussian classes of one covariance, with their means, covariance and shares."""
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.3, -2.0]])
    root, share = torch.tensor([[1.0, 0.0], [0.5, 0.8]]), torch.tensor([0.5, 0.2, 0.3])
    precision = torch.linalg.inv(root @ root.T)
    mean, scale = torch.tensor([0.4, -0.7]), torch.tensor(1.7)
    weight = means @ precision
    bias = share.log() - 0.5 * (weight * means).sum(1) + weight @ mean
    return CodeClassifier(scale * weight, bias, mean, scale, (0, 2, 5), 1.0), means, root @ root.T, share


@pytest.mark.parametrize("away", [False, True])
def test_a_wish_of_two_gaussian_classes_is_bayes_rule(away: bool):
    classifier, means, covariance, share = gaussian_classes()
    z = (2 * torch.randn(50, 2)).requires_grad_(True)
    density = torch.distributions.MultivariateNormal(means, covariance).log_prob(z[:, None]).exp()
    joint = share * density
    wanted = joint[:, 0] + joint[:, 2] if away else joint[:, 1]
    truth = (wanted / joint.sum(1)).log()
    wish = Wish(((classifier, 2),), away)
    torch.testing.assert_close(wish(z), truth, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(wish.slope(z), torch.autograd.grad(truth.sum(), z)[0], atol=1e-4, rtol=1e-4)
    twice = Wish(((classifier, 2), (classifier, 5)), away)
    torch.testing.assert_close(twice(z), wish(z) + Wish(((classifier, 5),), away)(z))
    torch.testing.assert_close(twice.slope(z), wish.slope(z) + Wish(((classifier, 5),), away).slope(z))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_fitted_classifier_is_where_the_penalised_likelihood_is_flat(classes: int):
    labels = RNG.choice(classes, 500)
    codes = RNG.normal(size=(500, 3)) * [1.0, 4.0, 0.1] + np.eye(3)[labels] * 2 + 5
    hidden = np.where(np.arange(500) < 50, -1, 3 * labels)  # classes 0, 3, 6
    found = fit_classifier(codes, hidden, "a")
    assert found.classes == tuple(3 * k for k in range(classes))
    z, y = torch.from_numpy(codes[50:]).float(), torch.from_numpy(labels[50:])
    assert float(found.scale) == pytest.approx(float(z.var(0, correction=0).mean().sqrt()), rel=1e-4)
    u = (z - z.mean(0)) / found.scale
    p = found.logits(z).softmax(1)
    slope = (p - nn.functional.one_hot(y, classes)).T @ u / len(u)
    rows = slice(1, None) if classes == 2 else slice(None)
    torch.testing.assert_close(slope[rows], -0.01 * found.weight[rows], atol=2e-4, rtol=0)
    assert found.accuracy == pytest.approx(float((p.argmax(1) == y).float().mean()))


# The ODE under N(0, I) ------------------------------------------------------------------------------------------------


def two_classes(w: Tensor, b: float = 0.0) -> CodeClassifier:
    """log p(1 | z) - log p(0 | z) = w z + b."""
    weight = torch.stack([torch.zeros_like(w), w])
    return CodeClassifier(weight, torch.tensor([0.0, b]), torch.zeros_like(w), torch.tensor(1.0), (0, 1), 1.0)


def test_one_linear_energy_against_its_closed_form():
    """The logit l = w z + b of two classes obeys l + exp(l) = l_0 + exp(l_0) + |w|^2 strength int beta/2."""
    w, b, strength = torch.tensor([1.5, -2.0]), 0.4, 0.3
    t = (np.arange(10_000) + 0.5) / 10_000
    clock = float(np.mean(0.1 + 19.9 * t) / 2)
    z = torch.randn(20, 2)
    found = along_energy(z, Wish(((two_classes(w, b), 1),)), strength)
    before, after = z @ w + b, found @ w + b
    torch.testing.assert_close(
        after + after.exp(), before + before.exp() + float(w @ w) * strength * clock, atol=1e-3, rtol=1e-3
    )
    torch.testing.assert_close(found - z, ((after - before) / (w @ w))[:, None] * w, atol=1e-4, rtol=1e-4)


def test_several_energies_against_a_fine_walk_along_the_schedule():
    classifier, other = gaussian_classes()[0], two_classes(torch.tensor([0.2, 2.0]), -1.0)
    wish, strength, steps = Wish(((classifier, 2), (other, 0))), 0.7, 4000
    start = torch.randn(8, 2)
    z = start.double()
    for i in range(steps):  # Euler's method from t = 1 to 0
        t = 1 - (i + 0.5) / steps
        z = z + (0.1 + 19.9 * t) / 2 * strength * wish.slope(z.float()).double() / steps
    torch.testing.assert_close(along_energy(start, wish, strength), z.float(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("slope", [20.0, 2000.0])
def test_sharp_classifiers_of_codes_that_hardly_differ_take_few_steps(slope: float, monkeypatch):
    """As a collapsed encoder has them: even steps that none overshoots would be millions."""
    ordinary, calls = Wish.slope, []
    monkeypatch.setattr(Wish, "slope", lambda wish, z: calls.append(1) or ordinary(wish, z))
    wish = Wish(((two_classes(torch.tensor([slope, 0.0])), 1),))
    found = along_energy(torch.tensor([[-1 / slope, 0.3], [-20 / slope, 0.3], [0.0, 0.1]]), wish, 2.0)
    logit = found[:, 0].double() * slope
    want = torch.tensor([-1.0, -20.0, 0.0]).double()
    want = want + want.exp() + slope**2 * 2 * ode.CLOCK
    torch.testing.assert_close(logit + logit.exp(), want, atol=0, rtol=0.01)
    torch.testing.assert_close(found[:, 1], torch.tensor([0.3, 0.3, 0.1]))
    assert len(calls) < 2000


def test_of_the_way_along_energies_only_the_end_is_kept(monkeypatch):
    """It is that of the whole path, of which all steps of all codes would be many times the codes."""
    ordinary, ends = scipy.integrate.solve_ivp, []

    def watched(slope: Any, span: tuple[float, float], start: np.ndarray, **options: Any) -> Any:
        found = ordinary(slope, span, start, **options)
        path = ordinary(slope, span, start, **{key: v for key, v in options.items() if key != "t_eval"}).y
        ends.append((found.y.shape, path.shape[1], np.abs(found.y[:, -1] - path[:, -1]).max()))
        return found

    monkeypatch.setattr(scipy.integrate, "solve_ivp", watched)
    classifier, other = gaussian_classes()[0], two_classes(torch.tensor([0.2, 2.0]), -1.0)
    along_energy(torch.randn(8, 2), Wish(((classifier, 2), (other, 0))), 2.0)
    (kept, steps, error), *_ = ends
    assert kept == (16, 1)
    assert steps > 5
    assert error < 1e-12


# The ODE under other priors -------------------------------------------------------------------------------------------

MEAN, VAR, SLOPE = torch.tensor([1.0, -0.5]), torch.tensor([0.5, 1.2]), torch.tensor([0.6, 0.4])


def gaussian_prior() -> Diffusion:
    class Exact(nn.Module):
        def forward(self, z: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
            return GaussianDenoiser(MEAN, VAR)(z, log_snr)

    return Diffusion(Exact(), LinearLogSNR(-6.0, 5.0), (2,))


def led(var: Tensor, slope: Tensor, gamma_0: float, gamma_t: float) -> Tensor:
    """How far N(m, V) led by exp(c z), which is N(m + V c, V), moves a code: V c (alpha_0 - alpha_t sqrt(V_0 / V_t))."""
    ends = torch.tensor([gamma_0, gamma_t])[:, None]
    at = alpha(ends) ** 2 * var + sigma2(ends)
    return var * slope * (alpha(ends)[0] - alpha(ends)[1] * (at[0] / at[1]).sqrt())


@pytest.mark.parametrize("depth", [0.4, 0.8, 1.0])
def test_a_gaussian_diffusion_leads_a_code_as_its_closed_form(depth: float):
    z = MEAN + VAR.sqrt() * torch.randn(30, 2)
    found = through_noise(gaussian_prior(), z, lambda z: z @ SLOPE, 1.5, depth=depth, steps=100)
    want = led(VAR, 1.5 * SLOPE, -6.0, -6.0 + 11 * depth)
    torch.testing.assert_close(found - z, want.expand(30, 2), atol=4e-3, rtol=0.01)


def test_a_standardised_diffusion_leads_in_the_codes_own_unit():
    prior = Standardized(gaussian_prior(), (2,))
    prior.mean, prior.std = torch.tensor([10.0, 0.0]), torch.tensor([2.0, 0.1])
    z = prior.mean + prior.std * (MEAN + VAR.sqrt() * torch.randn(30, 2))
    found = through_noise(prior, z, lambda z: z @ SLOPE, 1.0, depth=0.8, steps=100)
    want = prior.std * led(VAR, prior.std * SLOPE, -6.0, 2.8)
    torch.testing.assert_close(found - z, want.expand(30, 2), atol=2e-3, rtol=0.01)


def test_a_mixture_leads_in_units_of_its_own():
    prior = GaussianMixture(2, 1)
    prior.means, width = torch.tensor([[4.0, -3.0]]), torch.tensor([3.0, 0.2])
    prior.roots = torch.diag(width)[None]
    z = prior.sample(30)
    found = through_noise(prior, z, lambda z: z @ SLOPE, 0.5, depth=0.75, steps=100)
    want = width * led(torch.ones(2), 0.5 * width * SLOPE, -8.0, 4.0)
    torch.testing.assert_close(found - z, want.expand(30, 2), atol=5e-3, rtol=0.01)


def test_two_far_components_keep_a_code_in_its_own_where_little_noise_is_added_and_let_it_go_where_much_is():
    prior = GaussianMixture(1, 2)
    prior.means, prior.roots = torch.tensor([[-5.0], [5.0]]), torch.full((2, 1, 1), 0.5)
    right = ((two_classes(torch.tensor([2.0])), 1),)
    z = np.array([[-5.3], [-4.8]], np.float32)
    near = AttributeODE(prior, right, depth=0.3).apply(z, 3.0)
    far = AttributeODE(prior, right, depth=0.9).apply(z, 3.0)
    assert (near < -3).all()
    np.testing.assert_allclose(far, 5.0, atol=1.5)
    wide = GaussianMixture(1, 2)
    wide.means, wide.roots = 100 * prior.means, 100 * prior.roots
    as_far = AttributeODE(wide, ((two_classes(torch.tensor([0.02])), 1),), depth=0.9).apply(100 * z, 3.0)
    np.testing.assert_allclose(as_far / 100, far, atol=1e-3)
    free = AttributeODE(StandardNormal((1,)), right).apply(z, 3.0)
    assert (free > 0).all()
    assert (free < 3).all(), "N(0, 1) knows of no component, so the code stops behind the border"


@pytest.mark.parametrize("prior", [gaussian_prior(), StandardNormal((2,))])
def test_no_strength_and_no_noise_are_no_edit(prior: nn.Module):
    z = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
    goals = ((gaussian_classes()[0], 5),)
    np.testing.assert_array_equal(AttributeODE(prior, goals).apply(z, 0.0), z)  # type: ignore[arg-type]
    if isinstance(prior, Diffusion):
        np.testing.assert_array_equal(AttributeODE(prior, goals, depth=0.0).apply(z, 3.0), z)
        default, said = (AttributeODE(prior, goals, d).apply(z, 3.0) for d in (None, ode.DEPTH))
        np.testing.assert_array_equal(default, said)
        assert np.abs(default - z).max() > 0.1


def test_further_strengths_take_the_way_through_noise_that_is_known_and_give_the_same():
    goals = ((gaussian_classes()[0], 5),)
    some, others = (np.random.default_rng(i).normal(size=(5, 2)).astype(np.float32) for i in (4, 5))
    prior = gaussian_prior()
    calls, once = [], AttributeODE(prior, goals)
    prior.denoiser.register_forward_hook(lambda *_: calls.append(1))
    counts = []
    for z, strength in ((some, 1.0), (some, 2.0), (others, 2.0), (some, -3.0)):
        before = len(calls)
        found = once.apply(z, strength)
        counts.append(len(calls) - before)
        wish = Wish(goals, strength < 0)
        want = through_noise(gaussian_prior(), torch.from_numpy(z), wish, abs(strength), depth=ode.DEPTH)
        np.testing.assert_array_equal(found, want.numpy())
    assert counts[0] == counts[2] == 3 * counts[1] == 3 * counts[3], "two of three ways are without guidance"
    for i in range(10):
        once.apply(some + i, 1.0)
    assert len(once._kept) == ode.KEPT


def test_a_prior_that_changes_takes_no_way_of_its_former_self():
    """Its weights change in place, as in training and where others are loaded."""
    goals = ((gaussian_classes()[0], 5),)
    z = np.random.default_rng(6).normal(size=(5, 2)).astype(np.float32)
    prior = Standardized(gaussian_prior(), (2,))
    former = {name: value.clone() for name, value in prior.state_dict().items()}
    edit = AttributeODE(prior, goals)
    before = edit.apply(z, 1.0)
    prior.std.data *= 2
    after = edit.apply(z, 1.0)
    np.testing.assert_array_equal(after, AttributeODE(prior, goals).apply(z, 1.0))
    assert np.abs(after - before).max() > 0.01
    prior.load_state_dict(former)
    np.testing.assert_array_equal(edit.apply(z, 1.0), before)


@pytest.mark.parametrize("prior", [gaussian_prior(), StandardNormal((2,))])
def test_of_two_classes_taking_one_away_gives_the_other(prior: nn.Module):
    z = np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32)
    classifier = two_classes(torch.tensor([1.0, 0.5]), 0.2)
    away = AttributeODE(prior, ((classifier, 1),)).apply(z, -1.5)  # type: ignore[arg-type]
    other = AttributeODE(prior, ((classifier, 0),)).apply(z, 1.5)  # type: ignore[arg-type]
    np.testing.assert_allclose(away, other, atol=1e-5)
    assert (away @ [1.0, 0.5] < z @ [1.0, 0.5]).all()


# From labelled data to an edit ----------------------------------------------------------------------------------------


class _Same(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


SPEC = DataSpec(kind="vector", shape=(2,), levels=None, low=-1.0, high=1.0)
AXES = np.random.default_rng(3).normal(size=(800, 2)).astype(np.float32)


def labelled(**columns: np.ndarray) -> Data:
    """Points of the plane with label columns of two classes, or of real numbers."""
    names = {c: [f"not {c}", c] if v.dtype.kind == "i" else [] for c, v in columns.items()}
    split = Split(AXES, columns, [str(i) for i in range(len(AXES))])
    return Data("points", SPEC.model_copy(update={"labels": names}), split, split, split, [])


def planar(prior: nn.Module) -> Model:
    return Model(Autoencoder(DiracEncoder(_Same()), _Same(), prior), SPEC)  # type: ignore[arg-type]


RIGHT, HIGH = (AXES[:, 0] > 0).astype(np.int64), (AXES[:, 1] > 0).astype(np.int64)
START = np.array([[-1.0, -1.2], [-0.5, -2.0]], np.float32)


@pytest.mark.parametrize("method", ["vector", "classifier", "ode"])
def test_two_attributes_on_two_axes_are_both_set(method: str):
    model, wanted = planar(StandardNormal((2,))), ["right=right", "high=high"]
    edit = edit_of(model, [labelled(right=RIGHT, high=HIGH)], wanted, method, None)
    moved = edit.apply(START, 2.0)
    assert (moved > 0).all()
    one = edit_of(model, [labelled(right=RIGHT, high=HIGH)], wanted[1:], method, None).apply(START, 2.0)
    assert (one[:, 1] > 0).all()
    np.testing.assert_allclose(one[:, 0], START[:, 0], atol=0.25)
    less = edit.apply(-START, -2.0)
    assert (less < 0).all()


def test_an_edit_learns_from_examples_that_tell_of_it():
    """Of 800 examples 100 are read: those with a label first, and at least a tenth of a class."""
    model, rare, few = planar(StandardNormal((2,))), np.zeros(800, np.int64), np.full(800, -1)
    rare[17] = 1
    edit = edit_of(model, [labelled(rare=rare)], ["rare=rare"], "vector", None, limit=100)
    towards = AXES[17] - AXES.mean(0)
    assert towards @ edit.vector / np.linalg.norm(towards) / np.linalg.norm(edit.vector) > 0.98
    few[:60] = RIGHT[:60]
    ours = edit_of(model, [labelled(few=few)], ["few=few"], "vector", None, limit=100).vector
    want = AXES[:60][RIGHT[:60] == 1].mean(0) - AXES[:60][RIGHT[:60] == 0].mean(0)
    np.testing.assert_allclose(ours, want, rtol=1e-5)
    read: list[np.ndarray] = []

    def encode(values: np.ndarray) -> np.ndarray:
        read.append(values)
        return values

    edit_of(model, [labelled(right=RIGHT, high=HIGH)], ["right=right"], "vector", None, limit=100, encode=encode)
    np.testing.assert_array_equal(read[0], AXES[np.random.default_rng(0).permutation(800)[:100]])


def test_columns_come_from_the_first_data_set_that_has_them():
    model = planar(StandardNormal((2,)))
    first, second = labelled(right=RIGHT), labelled(high=HIGH, right=1 - RIGHT)
    both = edit_of(model, [first, second], ["high=high", "right=right"], "vector", None)
    alone = [edit_of(model, [d], [a], "vector", None) for d, a in ((first, "right=right"), (second, "high=high"))]
    assert isinstance(both, Direction)
    np.testing.assert_allclose(both.vector, sum(d.vector for d in alone), atol=1e-9)  # type: ignore[attr-defined]
    assert both.attribute == "right=right, high=high"
    led = edit_of(model, [first, second], ["high=high", "right=right"], "ode", None)
    assert (led.apply(START, 2.0) > 0).all()
    with pytest.raises(ConfigError, match=r"There is no label column 'colour'. Known: high, right"):
        edit_of(model, [first, second], ["colour=red"], "vector", None)
    with pytest.raises(ConfigError, match="are of one column"):
        edit_of(model, [first, second], ["right=right", "right=not right"], "vector", None)


def test_what_the_ode_cannot_do_is_refused():
    data = labelled(right=RIGHT, size=AXES[:, 0].astype(np.float32))
    model = planar(StandardNormal((2,)))
    with pytest.raises(ConfigError, match="'size' holds real numbers, and method 'ode' needs classes"):
        edit_of(model, [data], ["size"], "ode", None)
    with pytest.raises(ConfigError, match=r"depth has no meaning for a prior N\(0, I\)"):
        edit_of(model, [data], ["right=right"], "ode", 0.5)
    with pytest.raises(ConfigError, match=r"depth = 1.5: it is a time"):
        edit_of(planar(gaussian_prior()), [data], ["right=right"], "ode", 1.5)
    with pytest.raises(ConfigError, match="depth is of method 'ode', and has no meaning for 'vector'"):
        edit_of(model, [data], ["right=right"], "vector", 0.5)
    with pytest.raises(ConfigError, match=r"'magic' is unknown. Known: vector, classifier, ode"):
        edit_of(model, [data], ["right=right"], "magic", None)
    with pytest.raises(NoBound, match="NoPrior has no denoiser"):
        edit_of(planar(NoPrior()), [data], ["right=right"], "ode", None).apply(START, 1.0)
    with pytest.raises(ConfigError, match="this model has none"):
        edit_of(Model(_NoPriorAtAll(), SPEC), [data], ["right=right"], "ode", None)
    with pytest.raises(DataError, match="1 classes of 'right'"):
        edit_of(model, [labelled(right=0 * RIGHT)], ["right=right"], "ode", None)
    three = {"a": np.arange(800) % 3}
    with pytest.raises(DataError, match="None of the training examples have 'a=7'"):
        fit_ode(StandardNormal((2,)), [(AXES, three, [Attribute("a=7", "a", 7)])])
    picture = Diffusion(_Same(), LinearLogSNR(), (1, 2, 2))
    with pytest.raises(ConfigError, match=r"Codes of shape \(1, 2, 2\) are no vectors"):
        AttributeODE(picture, ((two_classes(torch.ones(4)), 1),)).apply(np.zeros((1, 4), np.float32), 1.0)


class _NoPriorAtAll(Autoencoder):
    def __init__(self) -> None:
        super().__init__(DiracEncoder(_Same()), _Same(), StandardNormal((2,)))
        del self.prior


def test_labels_that_are_missing_name_no_class():
    with pytest.raises(ConfigError, match="with one of: 0, 1"):
        parse_attribute("a", {"a": np.array([-1, 0, 1])}, {})
    assert parse_attribute("a=1", {"a": np.array([-1, 0, 1])}, {}) == Attribute("a=1", "a", 1)
    known, target = SENTIMENT.target(np.array([-1, 0, 1]))
    assert (known.tolist(), target.tolist()) == ([False, True, True], [False, False, True])
    known, target = Attribute("age", "age").target(np.array([np.nan, 2.0]))
    assert known.tolist() == [False, True]
    joined = together([Direction(np.ones(2), "a", "vector", 0.9), replace(Direction(np.ones(2), "b", "vector", 0.7))])
    assert (joined.vector.tolist(), joined.attribute, joined.score) == ([2.0, 2.0], "a, b", 0.7)
