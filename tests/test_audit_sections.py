"""The sections of an audit by themselves: what a model without a bound or without codes gets, and which log p(x) counts."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import audited_digits
import numpy as np
import pytest
import torch
from audited_digits import model_of
from torch import nn

from diled.api import Density, NoBound
from diled.config import DataSpec
from diled.distributions import Dirac, Normal
from diled.errors import ConfigError, DataError, ModelError
from diled.evaluation import audit
from diled.evaluation.ais import ais
from diled.evaluation.audit import Effort, Examples, Section, audit_section
from diled.evaluation.audited import combined
from diled.evaluation.codes import information, posteriors
from diled.evaluation.gaps import best_log_p
from diled.evaluation.likelihood import elbo, iwae
from diled.evaluation.measure import Measured, features_for
from diled.evaluation.pools import pool_figures
from diled.family import model_config
from diled.models.autoencoder import Autoencoder
from diled.models.priors import GaussianMixture, StandardNormal
from diled.models.zoo import build

EFFORT = Effort(
    bounded=20,
    examples=12,
    samples=2,
    steps=4,
    weights=20,
    ode_weights=2,
    ode_examples=3,
    annealing=4,
    references=6,
    restarts=2,
    iterations=4,
    radii=(0.1,),
    published_references=4,
    published_iterations=3,
    pairs=6,
)
ENCODER_SECTIONS = ("amortization", "likelihood", "robustness", "codes")
data, digits = audited_digits.data, audited_digits.digits


def section(name: str, model: Any, examples: Examples, effort: Effort = EFFORT, **options: Any) -> Section:
    return audit_section(name, model, examples, effort, 3, **options)


class Linear(nn.Module):
    """q(z | x) of mean w x: Gaussian of one variance, or the mean alone."""

    def __init__(self, w: torch.Tensor, var: float | None = None) -> None:
        super().__init__()
        self.w, self.var = nn.Parameter(w), var

    def forward(self, x: torch.Tensor) -> Normal | Dirac:
        mean = x.flatten(1) @ self.w.T
        return Dirac(mean) if self.var is None else Normal(mean, torch.full_like(mean, math.log(self.var)))


class Shown(nn.Module):
    """p(x | z) around u z + shift."""

    def __init__(self, u: torch.Tensor, shape: tuple[int, ...], shift: float = 0.0, var: float = 1.0) -> None:
        super().__init__()
        self.u, self.shape, self.shift, self.var = nn.Parameter(u), shape, shift, var

    def forward(self, z: torch.Tensor) -> Normal:
        mean = (z @ self.u.T + self.shift).reshape(-1, *self.shape)
        return Normal(mean, torch.full_like(mean, math.log(self.var)))


def copies(contrast: float = 1.0, var: float | None = None, shift: float = 0.0) -> Autoencoder:
    """Codes are the pixels of a digit, and the picture is they, at another contrast and brightness."""
    eye = torch.eye(64)
    model = Autoencoder(Linear(eye, var), Shown(contrast * eye, (1, 8, 8), shift), StandardNormal((64,)))
    return model.eval()


# Models without a bound ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ae", "daae", "diffae", "flow"])
def test_what_needs_no_bound_is_measured_of_models_without_one(digits, data, name):
    model = model_of("vae", data.spec, posterior="flow") if name == "flow" else model_of(name, data.spec)
    if name != "flow":
        for refused in ("bounds", "amortization", "likelihood"):
            with pytest.raises(NoBound):
                section(refused, model, digits)
    codes = section("codes", model, digits)
    probes = {f"probe_accuracy/{kind}" for kind in ("logistic", "linear_svm", "rbf_svm", "neighbours")}
    wanted = probes | {f"{probe}/halves" for probe in probes} | {"psnr", "encoder_slope", "active_units"}
    assert set(codes.figures) == wanted | ({"smoothness_nats"} if name == "flow" else set())
    assert any(note.startswith("no nats of codes: ") for note in codes.notes)
    assert any(note.startswith("no smoothness: ") for note in codes.notes) == (name != "flow")
    attacked = section("robustness", model, digits)
    assert {"robustness_gap", "robustness_gap/strong/0.1"} <= set(attacked.figures)
    assert not any(figure.startswith("attack_skl") for figure in attacked.figures)
    assert any("distance of the codes' means" in note for note in attacked.notes)
    assert len(attacked.arrays["gaps/strong/0.1"]) == 6


def test_codes_without_noise_are_attacked_like_codes_of_equal_noise(digits):
    """At variance 1/2 the symmetric KL is the squared distance of the means; the pictures are of copies."""
    found = [section("robustness", copies(1.2, var), digits) for var in (None, 0.5)]
    shown = [one.arrays["shown_attacked"] for one in found]
    assert np.allclose(*shown, atol=1e-5)
    assert not np.allclose(shown[0], found[0].arrays["shown_reference"])
    assert any("symmetric KL" in note for note in found[1].notes)
    quiet = section("robustness", copies(1.2, 1e-8), digits)  # draws are means, nearly
    assert np.allclose(found[0].arrays["gaps/strong/0.1"], quiet.arrays["gaps/strong/0.1"], atol=2e-3)
    assert found[1].figures["attack_skl"].value > 1


def test_slope_active_units_and_psnr_of_a_deterministic_model_by_hand(digits):
    """A copy that is 0.1 too bright in [-1, 1] is 0.05 off in [0, 1]; its code moves by 2 for each unit of a pixel."""
    dark = replace(digits, test=0.5 * digits.test - 0.4, grey=0.5 * digits.grey - 0.4)
    found = section("codes", copies(shift=0.1), dark).figures
    assert found["psnr"].value == pytest.approx(-20 * math.log10(0.05), abs=1e-3)
    assert found["psnr"].n == 80
    assert found["encoder_slope"].value == pytest.approx(2 * math.sqrt(64), rel=1e-5)
    assert found["encoder_slope"].n == 6
    vary = int((dark.test.flatten(1).var(0) > 0.01).sum())
    assert 0 < vary < 64
    assert (found["active_units"].value, found["active_units"].n, found["active_units"].note) == (vary, 80, "of 64")


def test_pictures_are_compared_with_the_images_before_binarisation(digits):
    binary = replace(digits, test=digits.test.sign())
    found = section("codes", copies(), binary).figures["psnr"].value
    error = (0.5 * (digits.grey - digits.test.sign()) ** 2 * 0.5).flatten(1).mean(1)
    assert found == pytest.approx(float((-10 * error.log10()).mean()), rel=1e-5)


def test_of_codes_with_noise_the_section_has_all_and_reads_them_once(digits, data):
    model = model_of("vae", data.spec)
    calls: list[int] = []
    hook = model.encoder.register_forward_hook(lambda module, args, out: calls.append(len(args[0])))
    found = section("codes", model, digits)
    hook.remove()
    assert not found.notes
    assert {"information_nats", "collapsed", "smoothness_nats", "encoder_slope/scaled"} <= set(found.figures)
    assert {"bound_nats", "distortion_nats"}.isdisjoint(found.figures)
    q = posteriors(model, digits.test)
    nats = found.arrays["unit_nats"]
    assert np.all(np.diff(nats) <= 0)
    assert nats == pytest.approx(sorted(information(q.mean, q.log_var).numpy(), reverse=True))
    assert found.figures["information_nats"].value == pytest.approx(nats.sum())
    # means of both splits, posteriors, bound and codes of `listening`, and pictures; the rest are references and pairs
    assert calls.count(80) == 6


def test_the_lowest_of_the_curve_is_between_two_images(digits):
    """z and z_alpha of a linear model: log N(z_alpha; k z_alpha, v I), lowest where z_alpha is longest."""
    model, v, k = copies(1.3, 0.1), 0.1, 1.3
    found = section("codes", model, digits)
    a, b = digits.test[:6].flatten(1).double(), digits.test[6:12].flatten(1).double()
    rows = []
    for i in range(1, 10):
        z = 0.1 * i * a + (1 - 0.1 * i) * b
        rows.append(-32 * math.log(2 * math.pi * v) - ((k - 1) * z).pow(2).sum(1) / (2 * v))
    want = torch.stack(rows).min(0).values.mean().item()
    assert found.figures["smoothness_nats"].value == pytest.approx(want, rel=1e-5)
    assert found.arrays["smoothness"].shape == (11, 6)


def test_data_that_are_no_pictures_keep_their_probes(digits):
    """Values outside [-1, 1] have neither a slope per pixel nor a PSNR; a class of one example is in no two halves."""
    points = torch.randn(80, 3, generator=torch.Generator().manual_seed(0)) * 3
    classes = np.array([0, 1] * 39 + [0, 2])
    examples = Examples(points, points, points, classes, classes, None)
    model = Autoencoder(Linear(torch.eye(3), 0.1), Shown(torch.eye(3), (3,)), StandardNormal((3,))).eval()
    found = section("codes", model, examples)
    assert {"probe_accuracy/logistic", "information_nats", "smoothness_nats"} <= set(found.figures)
    assert {note.split(":")[0] for note in found.notes} == {"no probes of halves", "no PSNR", "no slope of the encoder"}
    with pytest.raises(ConfigError, match="compares pictures"):
        section("robustness", model, examples)


def test_a_synthetic_set_is_compared_without_a_bound_too(digits, data):
    model = model_of("ae", data.spec)
    found = section("pool", model, digits)
    assert found.figures["nearest_ratio"].value is not None
    assert "entropy_offset_nats" not in found.figures
    assert any(note.startswith("no entropy offset: ") for note in found.notes)
    vae = model_of("vae", data.spec)
    net = features_for(data)
    want = pool_figures(digits.pool, digits.train, digits.test, net, model=vae, seed=3)
    assert section("pool", vae, digits).figures == want


# Models that are no autoencoders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ppca", "independent", "edm", "ddpm"])
def test_models_without_an_encoder_get_their_bounds(digits, data, name, monkeypatch):
    model = model_of(name, data.spec)

    def endless(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the density of an ODE over images")

    monkeypatch.setattr(audit, "iwae", endless)
    found = section("bounds", model, digits)
    want = -elbo(model, digits.test[:20], 2, seed=3).value.mean()
    assert found.figures["bound_nats/test"].value == pytest.approx(float(want))
    gap = found.figures["generalization_gap"].value
    assert gap == pytest.approx(found.arrays["test_bound"].mean() - found.arrays["train_bound"].mean())
    for other in ENCODER_SECTIONS:
        with pytest.raises(ModelError, match=rf"^{type(model).__name__} is no autoencoder, so only its bounds"):
            section(other, model, digits, replace(EFFORT, annealed=2))


@pytest.mark.parametrize("name", ["lm", "profile", "token_diffusion"])
def test_densities_of_sequences_get_their_bounds(name):
    spec = DataSpec(kind="protein", shape=(6,), symbols=tuple("-ACGT"))
    tokens = torch.randint(1, 5, (24, 6), generator=torch.Generator().manual_seed(1))
    examples = Examples(tokens[:12], tokens[12:], tokens[12:], None, None, None)
    sizes = {} if name == "profile" else {"width": 8, "depth": 1, "heads": 1}
    model = build(name, model_config(name, sizes), spec).model.eval()
    assert math.isfinite(section("bounds", model, examples).figures["generalization_gap"].value)
    for other in ENCODER_SECTIONS:
        with pytest.raises(ModelError, match="is no autoencoder"):
            section(other, model, examples)


def test_without_an_encoder_and_without_a_bound_all_is_refused_in_words(digits, data):
    model = model_of("consistency", data.spec)
    with pytest.raises(NoBound, match="likelihood"):
        section("bounds", model, digits)
    for other in ENCODER_SECTIONS:
        with pytest.raises(ModelError, match="Consistency is no autoencoder"):
            section(other, model, digits)


class Priorless(Density):
    """An encoder, a decoder, and nothing that codes cost."""

    def __init__(self) -> None:
        super().__init__()
        parts = copies(1.0, 0.1)
        self.encoder, self.decoder = parts.encoder, parts.decoder

    def decode(self, z: torch.Tensor, *, noise: Any = None) -> torch.Tensor:
        return self.decoder(z).mean

    def terms(self, q: Any, *, exact: bool = False, progress: Any = 1.0) -> Any:
        raise NoBound("Codes cost nothing, so there is no bound.")


def test_a_model_without_a_prior_is_refused_in_words(digits):
    for name in ("bounds", "amortization", "likelihood"):
        with pytest.raises(NoBound):
            section(name, Priorless(), digits)
    found = section("codes", Priorless(), digits)
    assert {"psnr", "information_nats", "encoder_slope", "smoothness_nats"} <= set(found.figures)
    assert "robustness_gap" in section("robustness", Priorless(), digits).figures


# log p(x) ------------------------------------------------------------------------------------------------------------


def test_a_diffusion_prior_keeps_its_weights_where_annealing_is_refused(digits, data):
    model = model_of("diled", data.spec)
    found = section("likelihood", model, digits, replace(EFFORT, annealed=3))
    want = iwae(model, digits.test[:3], (1, 2), seed=3, prior="ode").best
    assert np.allclose(found.arrays["test_log_p"], want)
    assert "ais_nats/test" not in found.figures
    assert {"test_ais", "test_log_p_best"}.isdisjoint(found.arrays)
    assert any(n.startswith("no annealed importance sampling: ") and "closed form" in n for n in found.notes)


def gaussian(shift: float = 0.0, noise: float = 0.5) -> tuple[Autoencoder, Examples]:
    """z ~ N(0, 1), x = u z + noise, and examples: the encoder is the posterior, or lies `shift` away."""
    u = torch.tensor([[1.0], [0.5]])
    var = 1 / (1 + float((u**2).sum()) / noise)

    class Posterior(nn.Module):
        def forward(self, x: torch.Tensor) -> Normal:
            return Normal(var / noise * x @ u + shift, torch.full((len(x), 1), math.log(var)))

    x = torch.randn(24, 1, generator=torch.Generator().manual_seed(2)) @ u.T
    x = x + math.sqrt(noise) * torch.randn(24, 2, generator=torch.Generator().manual_seed(3))
    model = Autoencoder(Posterior(), Shown(u, (2,), var=noise), StandardNormal((1,))).eval()
    return model, Examples(x[:12], x[12:], x[12:], None, None, None)


def evidence(x: torch.Tensor, noise: float = 0.5) -> torch.Tensor:
    """log p(x) of that model."""
    u = torch.tensor([[1.0], [0.5]])
    cov = u @ u.T + noise * torch.eye(2)
    return torch.distributions.MultivariateNormal(torch.zeros(2), cov).log_prob(x)


def test_where_weights_are_exact_they_are_the_best_estimate_and_all_examples_count():
    """In one step from the prior, with few chains, annealing hardly meets a narrow posterior."""
    model, examples = gaussian(noise=0.001)
    found = section("likelihood", model, examples, replace(EFFORT, annealed=5, annealing=1))
    truth = evidence(examples.test, 0.001)
    assert np.allclose(found.arrays["test_log_p"], truth, atol=1e-3)
    assert len(found.arrays["test_ais"]) == 5
    assert found.arrays["test_ais"].mean() < float(truth[:5].mean()) - 1
    assert np.array_equal(found.arrays["test_log_p_best"], found.arrays["test_log_p"][:5])
    said = next(note for note in found.notes if "first 5 examples" in note)
    assert said.endswith("the best estimate is that by importance weights.")
    arrays = {f"likelihood/{name}": values for name, values in found.arrays.items()}
    assert best_log_p(arrays, "test") is found.arrays["test_log_p"]
    assert best_log_p(arrays, "train") is found.arrays["train_log_p"]


def test_where_the_encoder_is_far_off_annealing_is_the_best_estimate_and_splits_the_gap():
    """The split of Cremer et al. is of the first five test examples, and their gap is log p(x) by annealing less ELBO*."""
    model, examples = gaussian(6.0)
    effort = replace(EFFORT, weights=1, annealed=5, annealing=60)
    found = section("likelihood", model, examples, effort)
    annealed = ais(model, examples.test[:5], steps=60, seed=3).log_p.numpy()
    assert np.allclose(found.arrays["test_log_p_best"], annealed)
    assert abs(annealed.mean() - float(evidence(examples.test[:5]).mean())) < 0.3
    assert found.arrays["test_log_p"].mean() < annealed.mean() - 5
    assert any(note.endswith("the best estimate is that by annealing.") for note in found.notes)
    before, best = np.arange(12.0) + 40, np.arange(12.0) + 30
    amortized = Section(arrays={"test_before": before, "test_best": best, "train_before": before, "train_best": best})
    one = combined({"amortization": amortized, "likelihood": found})
    split, gap = one.figures["inference_gap_test"], one.figures["approximation_gap_test"]
    assert split.n == gap.n == 5
    assert gap.value == pytest.approx((annealed + best[:5]).mean())
    assert split.value == pytest.approx((annealed + before[:5]).mean())
    assert one.figures["inference_gap_train"].n == 12


def test_more_annealed_examples_than_weighted_are_compared_on_these():
    model, examples = gaussian(6.0)
    found = section("likelihood", model, examples, replace(EFFORT, examples=3, weights=1, annealed=8, annealing=60))
    assert (len(found.arrays["test_log_p"]), len(found.arrays["test_ais"])) == (3, 8)
    assert np.array_equal(found.arrays["test_log_p_best"], found.arrays["test_ais"][:3])


def test_the_better_estimate_is_that_of_the_examples_that_both_were_run_on():
    found = Section(arrays={"test_log_p": np.array([-9.0, -9.0, 0.0, 0.0]), "test_ais": np.array([-8.0, -8.0])})
    audit._choose(found)
    assert found.arrays["test_log_p_best"].tolist() == [-8.0, -8.0]
    assert "-9.00 nats by importance weights and -8.00 nats by annealing" in found.notes[0]


def test_the_amortization_gap_of_an_encoder_that_is_off_is_its_kl():
    """The posterior of equal width, 1.5 away: KL = 1.5^2 / (2 v), and the best bound is -log p(x)."""
    model, examples = gaussian(1.5)
    found = section("amortization", model, examples, replace(EFFORT, steps=200, samples=16))
    v = 1 / (1 + 1.25 / 0.5)
    for split, x in (("train", examples.train), ("test", examples.test)):
        assert found.figures[f"amortization_gap_{split}"].value == pytest.approx(1.5**2 / (2 * v), rel=0.05)
        assert np.allclose(found.arrays[f"{split}_best"], -evidence(x), atol=0.1)


def test_deterministic_codes_with_a_mixture_have_a_log_p_by_annealing_alone():
    model, examples = gaussian()
    mixture = GaussianMixture(1, 1)
    bare = Autoencoder(Linear(torch.tensor([[0.5, 0.5]])), model.decoder, mixture).eval()
    with pytest.raises(NoBound, match="deterministic"):
        section("likelihood", bare, examples)
    found = section("likelihood", bare, examples, replace(EFFORT, annealed=4, annealing=150))
    assert set(found.figures) == {"ais_nats/test", "bdmc_gap_nats"}
    assert (found.figures["bdmc_gap_nats"].n, found.figures["ais_nats/test"].n) == (4, 4)
    assert abs(found.figures["bdmc_gap_nats"].value) < 0.5
    assert np.allclose(found.arrays["test_ais"], evidence(examples.test[:4]), atol=0.4)
    assert np.array_equal(found.arrays["test_log_p_best"], found.arrays["test_ais"])
    assert any(note.startswith("no importance weights: ") for note in found.notes)


def test_without_the_decoders_gradient_weights_are_left():
    model, examples = gaussian()
    model.decoder.register_forward_pre_hook(lambda module, arguments: (arguments[0].detach(),))
    effort = replace(EFFORT, annealed=4)
    with pytest.raises(ModelError, match="The decoder passes no gradient"):
        section("amortization", model, examples, effort)
    found = section("likelihood", model, examples, effort)
    assert np.allclose(found.arrays["test_log_p"], evidence(examples.test), atol=1e-3)
    assert any(
        note.startswith("no annealed importance sampling: The decoder passes no gradient") for note in found.notes
    )


@pytest.mark.parametrize("annealed", [0, 4])
def test_a_log_p_that_is_not_finite_is_refused_in_words(annealed):
    """By weights whose noise has no width; annealing needs no encoder. The other sections stay."""
    model, examples = gaussian()
    broken = Autoencoder(Linear(torch.tensor([[0.5, 0.5]]), 1e-300), model.decoder, model.prior).eval()
    effort = replace(EFFORT, annealed=annealed, annealing=60)
    said = "log p(x) of 12 of 12 train examples is not finite"
    if not annealed:
        with pytest.raises(DataError, match=re.escape(said)):
            section("likelihood", broken, examples, effort)
        return
    found = section("likelihood", broken, examples, effort)
    assert set(found.figures) == {"ais_nats/test", "bdmc_gap_nats"}
    assert any(note.startswith(f"no importance weights: {said}") for note in found.notes)
    shifted = Autoencoder(broken.encoder, Shown(torch.tensor([[1.0], [0.5]]), (2,), math.inf), model.prior).eval()
    with pytest.raises(DataError, match="is not finite"):
        section("likelihood", shifted, examples, effort)


def test_a_kept_log_p_that_is_not_finite_leaves_the_other_figures():
    before = np.arange(4.0)
    amortized = Section({"amortization_gap_test": Measured(1.0)}, {"test_before": before + 1, "test_best": before})
    one = combined({"amortization": amortized, "likelihood": Section(arrays={"test_log_p": before - np.inf})})
    assert set(one.figures) == {"amortization_gap_test"}
    assert any(note.startswith("likelihood: no split of the inference gap on test examples: ") for note in one.notes)


def test_the_best_estimate_by_hand():
    weighted, annealed = np.array([-3.0, -4.0, -5.0]), np.array([-2.0, -4.5])
    assert best_log_p({}, "test") is None
    assert best_log_p({"likelihood/train_log_p": weighted}, "test") is None
    assert best_log_p({"likelihood/test_log_p": weighted}, "test") is weighted
    both = {"likelihood/test_log_p": weighted, "likelihood/test_log_p_best": annealed}
    assert best_log_p(both, "test") is annealed
    assert best_log_p({"likelihood/test_log_p_best": annealed}, "test") is annealed
    assert best_log_p(both | {"likelihood/test_log_p_best": weighted[:2].copy()}, "test") is weighted


@pytest.mark.parametrize(("gap", "said"), [(-1.9, False), (-2.1, True), (1.0, False)])
def test_an_estimate_counts_as_too_low_beyond_two_standard_errors(gap, said):
    """Numbers of standard error 1: four at sqrt(3) to either side."""
    spread = np.sqrt(3) * np.array([-1.0, -1.0, 1.0, 1.0])
    best = np.full(4, 50.0)
    amortized = Section(arrays={"test_before": best + 2, "test_best": best})
    one = combined({"amortization": amortized, "likelihood": Section(arrays={"test_log_p": gap - best + spread})})
    assert one.figures["approximation_gap_test"].value == pytest.approx(gap)
    assert one.figures["approximation_gap_test"].stderr == pytest.approx(1.0)
    assert any("too low" in note for note in one.notes) == said


# Effort ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 3}, "steps = 3: at least 4"),
        ({"samples": 0}, "samples = 0"),
        ({"samples": 5}, "samples = 5: take 1 or an even number"),
        ({"examples": 1}, "examples = 1: at least 2"),
        ({"annealed": -1}, "annealed = -1"),
        ({"published_references": 0}, "published_references = 0"),
        ({"published_radius": 1.5}, "radius = 1.5"),
        ({"radii": (0.1, -0.1)}, "radius = -0.1"),
    ],
)
def test_efforts_that_no_section_takes_are_refused_by_name(wrong, words):
    with pytest.raises(ConfigError, match=words):
        replace(EFFORT, **wrong)


def test_the_least_effort_is_taken(digits, data):
    least = replace(EFFORT, steps=4, samples=1, published_radius=0.0)
    assert "amortization_gap_test" in section("amortization", model_of("vae", data.spec), digits, least).figures


# The published attack -------------------------------------------------------------------------------------------------


def colour(n: int = 60) -> Examples:
    x = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(4)) * 2 - 1
    return Examples(x, x, x, None, None, None)


def of_colour() -> Autoencoder:
    eye = torch.eye(192)
    return Autoencoder(Linear(eye, 0.1), Shown(eye, (3, 8, 8)), StandardNormal((192,))).eval()


def asked(monkeypatch: pytest.MonkeyPatch, model: Any, examples: Examples, **effort: Any) -> tuple[Any, Section]:
    """Radius, references and iterations of the first attack of the section, which is not carried out."""
    seen: list[Any] = []

    def robustness(model: Any, x: torch.Tensor, *, attack: Any, radii: Any, references: int, **options: Any) -> list:
        seen.append((radii, references, attack.keywords["steps"]))
        return []

    monkeypatch.setattr(audit, "robustness", robustness)
    found = section("robustness", model, examples, Effort(**effort))
    return seen[0], found


def test_the_published_attack_is_the_papers_for_grey_and_for_colour(monkeypatch, digits):
    grey, found = asked(monkeypatch, copies(1.0, 0.1), digits)
    assert grey == ((0.1,), 50, 50)
    assert "radius 0.1, 50 references and 50 iterations, as in the paper for grey images" in found.notes[0]
    rgb, found = asked(monkeypatch, of_colour(), colour())
    assert rgb == ((0.05,), 20, 100)
    assert "radius 0.05, 20 references and 100 iterations, as in the paper for colour images" in found.notes[0]


def test_what_is_asked_for_is_taken_instead(monkeypatch, digits):
    mine, found = asked(monkeypatch, of_colour(), colour(), published_radius=0.0)
    assert mine == ((0.0,), 20, 100)
    assert "radius 0, 20 references and 100 iterations, as asked for" in found.notes[0]
    mine, _ = asked(
        monkeypatch, copies(1.0, 0.1), digits, published_radius=0.2, published_references=7, published_iterations=9
    )
    assert mine == ((0.2,), 7, 9)


def test_attacks_need_no_training_examples(digits):
    without = replace(digits, train=None)
    assert section("robustness", copies(1.0, 0.1), without).figures["robustness_gap"].n == 4
