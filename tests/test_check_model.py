"""`check_model`: every model of the family and hand-composed ones keep the contract, and broken ones are caught."""

from __future__ import annotations

import pytest
import torch
from tiny import small
from torch import nn

import diled
from diled.api import Density, NoBound, Stage
from diled.config import DataSpec
from diled.diffusion import PARAMETERIZATIONS, Diffusion, Objective, simple
from diled.diffusion.schedule import LearnedLogSNR, LinearLogSNR
from diled.distributions import Normal
from diled.family import FAMILY, model_config
from diled.models.autoencoder import (
    Autoencoder,
    BernoulliLikelihood,
    DiracEncoder,
    FixedNoiseEncoder,
    GaussianEncoder,
    GaussianLikelihood,
    LikelihoodDecoder,
)
from diled.models.check import CheckFailed, check_model
from diled.models.exact_sequences import Profile
from diled.models.priors import Standardized, StandardNormal
from diled.models.zoo import build
from diled.nn.blocks import mlp
from diled.nn.latent import ResidualMLP
from diled.sequences import cut

SPECS = {
    "binary": DataSpec(kind="image", shape=(1, 8, 8), levels=2, high=1.0),
    "grey": DataSpec(kind="image", shape=(1, 8, 8), levels=17, high=16.0),
    "vector": DataSpec(kind="vector", shape=(6,)),
    "signal": DataSpec(kind="signal", shape=(2, 16)),
    "sequence": DataSpec(
        kind="protein", shape=(5,), levels=4, symbols=("", "A", "C", "D"), labels={"y": [], "group": ["a", "b"]}
    ),
}
LABELS = {"y": torch.linspace(-1, 1, 8), "group": torch.arange(8) % 2}
FITS = [
    (name, kind) for kind, spec in SPECS.items() for name, config in FAMILY.items()
    if ("symbols" if spec.sequential else "numbers") in config.reads
]  # fmt: skip
"""Which models of the family are for which data."""


def examples(spec: DataSpec, n: int = 8) -> torch.Tensor:
    """Random examples in model space, on the grid where there is one; of sequences some end early."""
    if spec.sequential:
        return cut(torch.randint(0, len(spec.symbols), (n, *spec.shape)).clamp(min=torch.arange(n)[:, None] % 2))
    x = torch.rand(n, *spec.shape)
    if spec.levels:
        x = torch.round(x * (spec.levels - 1)) / (spec.levels - 1)
    return 2 * x - 1


def tiny(name: str, kind: str, **more):
    """The smallest configuration of a model of the family."""
    values = small(name, {"kind": "conv", "channels": 8} if kind == "signal" else None)
    if kind == "signal":
        values |= {key: {"kind": "unet", "channels": 4} for key in ("diffusion", "decoder") if key in values}
    if kind == "sequence" and name in ("relso", "nos"):
        values |= {"properties": {"columns": ("y", "group"), "width": 8}}
    if name in ("lm", "token_diffusion", "nos"):
        values |= {"width": 8, "depth": 1, "heads": 2}
    return model_config(name, values | more)


def composed(encoder: nn.Module | None = None, decoder: nn.Module | None = None, prior: Density | None = None, **more):
    """A hand-composed autoencoder of vectors (6,) with codes (3,)."""
    return Autoencoder(
        encoder if encoder is not None else GaussianEncoder(mlp([6, 12, 6])),
        decoder if decoder is not None else LikelihoodDecoder(mlp([3, 12, 6]), GaussianLikelihood()),
        prior if prior is not None else StandardNormal((3,)),
        **more,
    )


def diffusion(schedule=None, **more) -> Diffusion:
    denoiser = PARAMETERIZATIONS["v"](ResidualMLP(3, 12, 1))
    return Diffusion(denoiser, schedule or LinearLogSNR(), (3,), **more)


VECTORS = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


# Models that keep the contract ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), FITS)
def test_the_family_keeps_the_contract(name, kind):
    config, spec = tiny(name, kind), SPECS[kind]
    recipe = build(name, config, spec)
    again = lambda: build(name, config, spec, seed=1).model  # noqa: E731
    labels = LABELS if kind == "sequence" else {}
    check_model(recipe.model, examples(spec), stages=recipe.stages, rebuild=again, labels=labels)


@pytest.mark.parametrize("name", ["diled", "ldm", "daae", "beta_vae"])
def test_transformers_and_heads_keep_the_contract(name):
    network = {"kind": "transformer", "width": 8, "depth": 1, "heads": 2}
    config = tiny(name, "sequence", network=network, properties={"columns": ("group", "y"), "width": 4})
    recipe = build(name, config, SPECS["sequence"])
    assert recipe.model.columns == ("group", "y")
    check_model(recipe.model, examples(SPECS["sequence"]), stages=recipe.stages, labels=LABELS)


@pytest.mark.parametrize("schedule", ["learned_log_snr", "cosine", "linear", "ddpm"])
def test_every_schedule_keeps_the_contract(schedule):
    config = tiny("diled_fixed", "vector", prior={"width": 12, "blocks": 1, "schedule": schedule, "gamma_min": -8.0})
    recipe = build("diled_fixed", config, SPECS["vector"])
    check_model(recipe.model, VECTORS, stages=recipe.stages)


@pytest.mark.parametrize(
    "prior",
    [
        {"weighting": "simple"},
        {"weighting": "min_snr", "encoder_weighting": "vlb"},
        {"timesteps": 10},
        {"parameterization": "eps", "times_per_code": 1},
        {"parameterization": "x"},
    ],
    ids=str,
)
def test_every_training_weight_keeps_the_contract(prior):
    recipe = build("diled", tiny("diled", "binary", prior={"width": 12, "blocks": 1} | prior), SPECS["binary"])
    check_model(recipe.model, examples(SPECS["binary"]), stages=recipe.stages)


@pytest.mark.parametrize("likelihood", ["gaussian", "logistic", "logistic_mixture"])
def test_every_discretised_likelihood_keeps_the_contract(likelihood):
    recipe = build("vae", tiny("vae", "grey", likelihood=likelihood), SPECS["grey"])
    check_model(recipe.model, examples(SPECS["grey"]), stages=recipe.stages)


def test_free_bits_keep_the_contract():
    recipe = build("beta_vae", tiny("beta_vae", "vector", free_bits=0.1), SPECS["vector"])
    check_model(recipe.model, VECTORS, stages=recipe.stages)


COMPOSED = {
    "vae": composed,
    "vae with an extra": lambda: composed(extras=(lambda model, batch, q, z: {"size": z.pow(2).sum(1)},)),
    "autoencoder (no bound)": lambda: composed(encoder=DiracEncoder(mlp([6, 12, 3]))),
    "learned ends": lambda: composed(prior=diffusion(LearnedLogSNR())),
    "hierarchy": lambda: composed(
        prior=Autoencoder(
            GaussianEncoder(mlp([3, 12, 4])),
            LikelihoodDecoder(mlp([2, 12, 6]), GaussianLikelihood(per_dimension=True)),
            StandardNormal((2,)),
        )
    ),
    "standardised": lambda: composed(prior=Standardized(diffusion(), (3,))),
    "batch norm and dropout": lambda: composed(
        encoder=GaussianEncoder(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 6)))
    ),
}


@pytest.mark.parametrize("make", COMPOSED.values(), ids=COMPOSED)
def test_hand_composed_models_keep_the_contract(make):
    check_model(make(), VECTORS, rebuild=make)


def test_encoder_that_shares_the_schedule_keeps_the_contract():
    prior = diffusion(LearnedLogSNR())
    check_model(composed(encoder=FixedNoiseEncoder(mlp([6, 12, 3]), prior.schedule), prior=prior), VECTORS)


@pytest.mark.parametrize("density", [StandardNormal((3,)), Standardized(StandardNormal((3,)), (3,)), diffusion()])
def test_densities_that_are_no_autoencoder_keep_the_contract(density):
    check_model(density, VECTORS[:, :3])


def test_it_is_public_and_returns_nothing():
    assert diled.check_model is check_model
    assert check_model(composed(), VECTORS) is None
    assert issubclass(CheckFailed, AssertionError)


def test_everything_is_as_before_afterwards():
    model = composed(prior=diffusion())
    model.encoder.requires_grad_(False)
    next(model.decoder.parameters()).grad = torch.ones(12, 3)
    model.train()
    model.decoder.eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_model(model, VECTORS)
    assert torch.equal(torch.rand(3), expected), "the random state moved"
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert all(p.grad is None for p in model.prior.parameters())
    assert torch.equal(next(model.decoder.parameters()).grad, torch.ones(12, 3))
    assert model.training
    assert not model.decoder.training


@pytest.mark.parametrize("data", [torch.zeros(8, 6), torch.randn(3, 6), torch.randn(8), torch.arange(12).reshape(4, 3)])
def test_unfit_data_are_refused(data):
    with pytest.raises(ValueError, match="4 or more different examples"):
        check_model(composed(), data)


# Broken models --------------------------------------------------------------------------------------------------------


class Broken(Autoencoder):
    """A VAE of vectors that breaks one clause."""

    def __init__(self):
        whole = composed()
        super().__init__(whole.encoder, whole.decoder, whole.prior)


class ColumnTerm(Broken):
    def terms(self, q, **options):
        terms = super().terms(q, **options)
        return terms | {"distortion": terms["distortion"][:, None]}


class InfiniteTerm(Broken):
    def terms(self, q, **options):
        return super().terms(q, **options) | {"rate/more": torch.full((len(VECTORS),), float("inf"))}


class ChangesInput(Broken):
    def terms(self, q, **options):
        if isinstance(q, torch.Tensor):
            q.clamp_(-1, 1)
        return super().terms(q, **options)


class OwnRandomness(Broken):
    def __init__(self):
        super().__init__()
        self.own = torch.Generator()

    def terms(self, q, **options):
        return {name: t + 0.1 * torch.rand((), generator=self.own) for name, t in super().terms(q, **options).items()}


class FloatProgressOnly(Broken):
    def terms(self, q, *, exact=False, progress=1.0):
        return super().terms(q, exact=exact, progress={0.0: 0.0, 0.5: 0.5, 1.0: 1.0}[progress])


class WeightedBound(Broken):
    def terms(self, q, *, exact=False, progress=1.0):
        terms = super().terms(q, exact=exact, progress=progress)
        return terms | {"rate/kl": progress * terms["rate/kl"]} if "rate/kl" in terms else terms


class WeightedValue(Broken):
    def terms(self, q, *, exact=False, progress=1.0):
        terms = super().terms(q, exact=exact, progress=progress)
        return terms if exact or "rate/kl" not in terms else terms | {"rate/kl": 4 * terms["rate/kl"]}


class ExtraInBound(Broken):
    def terms(self, q, **options):
        terms = super().terms(q, **options)
        return terms | {"extra/zero": torch.zeros_like(terms["distortion"])}


class SilentRefusal(Broken):
    def terms(self, q, *, exact=False, progress=1.0):
        if exact:
            raise NoBound("")
        return super().terms(q, progress=progress)


class PartialRefusal(Broken):
    def bound(self, x):
        raise NoBound("There is none.")


class TensorsOnly(Broken):
    def terms(self, q, **options):
        assert isinstance(q, torch.Tensor), "only tensors"
        return super().terms(q, **options)


class BatchMean(Broken):
    def terms(self, q, **options):
        return {name: t.mean().expand(len(t)) for name, t in super().terms(q, **options).items()}


class BatchCodes(Broken):
    def reconstruct(self, x, **options):
        return super().reconstruct(x - x.mean(0), **options)


class FlatReconstruction(Broken):
    def reconstruct(self, x, **options):
        return super().reconstruct(x, **options)[:, :5]


class RandomReconstruction(Broken):
    def reconstruct(self, x, **options):
        return super().reconstruct(x, **options) + 1e-5 * torch.randn_like(x)


class WrongSampleShape(Broken):
    def sample(self, n, *, noise=None, **options):
        return super().sample(n, noise=noise)[:, None]


class SampleIgnoresNoise(Broken):
    def sample(self, n, *, noise=None, **options):
        return super().sample(n)


class SampleOfBatch(Broken):
    def sample(self, n, *, noise=None, **options):
        x = super().sample(n, noise=noise)
        return x - x.mean(0)


class NoSampler(Density):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def terms(self, q, *, exact=False, progress=1.0):
        if not isinstance(q, torch.Tensor):
            return self.terms_of_sample(q, exact=exact, progress=progress)
        return {"nll": Normal(torch.zeros_like(q), self.scale.log()).nll(q)}


class UnusedParameter(Broken):
    def __init__(self):
        super().__init__()
        self.forgotten = nn.Linear(2, 2)


class InfiniteGradient(Broken):
    def __init__(self):
        super().__init__()
        self.root = nn.Parameter(torch.zeros(()))

    def terms(self, q, **options):
        terms = super().terms(q, **options)
        zero = (self.root - self.root.detach()).clamp(min=0).sqrt()  # value 0, gradient infinite
        return terms | {"distortion": terms["distortion"] + zero}


class CutGraph(Broken):
    def terms(self, q, **options):
        return {name: t.detach() for name, t in super().terms(q, **options).items()}


class HiddenState(Broken):
    """Something that is drawn when the model is made, and is no buffer."""

    def __init__(self):
        super().__init__()
        self.shift = float(torch.rand(()))

    def terms(self, q, **options):
        return super().terms(q + self.shift if isinstance(q, torch.Tensor) else q, **options)


BROKEN = {
    ColumnTerm: r"term 'distortion' has shape \(8, 1\) instead of \(8,\)",
    InfiniteTerm: "term 'rate/more' is not finite",
    ChangesInput: "changes x in place",
    OwnRandomness: "differs? between two calls after the same|give different values",
    FloatProgressOnly: r"progress=0\.5\) raised|progress=tensor\(0\.5\)",
    WeightedBound: "the bound is weighted",
    WeightedValue: "term 'rate/kl' is .* in training and .* in the bound",
    ExtraInBound: "hold the extras",
    SilentRefusal: "without saying why",
    PartialRefusal: "either all raise NoBound, or none",
    TensorsOnly: r"terms\(q\) of a distribution q raised AssertionError: only tensors",
    BatchMean: "depends on the other examples",
    BatchCodes: "'reconstruct\\(x\\)'",
    FlatReconstruction: r"reconstruct|size of tensor",
    RandomReconstruction: "reconstruct\\(x\\) differs between two calls",
    WrongSampleShape: r"sample\(1\) must have the shape \(1, 6\) of the data, not \(1, 1, 6\)",
    SampleIgnoresNoise: "does not come from `noise`",
    SampleOfBatch: "must not depend on how many are drawn at once",
    NoSampler: "NoSampler must define sample",
    UnusedParameter: r"no stage gives a gradient to forgotten\.weight, forgotten\.bias",
    InfiniteGradient: "the gradient of 'root' in stage 'joint' is not finite",
    CutGraph: "trains nothing",
}


@pytest.mark.parametrize(("kind", "message"), BROKEN.items(), ids=lambda v: v.__name__ if isinstance(v, type) else "")
def test_a_broken_model_is_caught(kind, message):
    with pytest.raises(CheckFailed, match=message):
        check_model(kind(), VECTORS.clone())


class EndsWithin(Profile):
    def sample(self, n, *, noise=None):
        return super().sample(n, noise=noise).flip(1)


class FloatSequences(Profile):
    def sample(self, n, *, noise=None):
        return super().sample(n, noise=noise).float()


class NeighboursBeginning(Profile):
    def terms(self, q, **options):
        terms = super().terms(q, **options)
        return {"nll": terms["nll"] + terms["nll"].mean()}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (EndsWithin, "must be sequences of whole numbers with zeros only at their ends"),
        (FloatSequences, "must be sequences of whole numbers"),
        (NeighboursBeginning, "depends on the other examples"),
    ],
)
def test_a_broken_model_of_symbols_is_caught(kind, message):
    check_model(Profile(5, 4), examples(SPECS["sequence"]))
    model = kind(5, 4)
    model.fit(torch.tensor([[1, 0, 0, 0, 0], [2, 3, 1, 0, 0], [1, 1, 1, 2, 3]]))
    with pytest.raises(CheckFailed, match=message):
        check_model(model, examples(SPECS["sequence"]))


class LabelledBound(Broken):
    columns = ("y",)

    def terms(self, q, *, labels=None, **options):
        terms = super().terms(q, **options)
        return terms | {"distortion": terms["distortion"] + (labels or {"y": 0.0})["y"]}


def test_a_bound_that_depends_on_labels_is_caught():
    with pytest.raises(CheckFailed, match="depend on labels"):
        check_model(LabelledBound(), VECTORS, labels={"y": torch.ones(8)})


def test_state_outside_of_the_weights_is_caught():
    check_model(HiddenState(), VECTORS)  # invisible as long as the same object is loaded
    with pytest.raises(CheckFailed, match="is not in state_dict"):
        check_model(HiddenState(), VECTORS, rebuild=HiddenState)


def test_another_model_does_not_load_the_weights():
    with pytest.raises(CheckFailed, match="load_state_dict"):
        check_model(composed(), VECTORS, rebuild=lambda: composed(prior=diffusion()))


def test_what_is_no_density_is_caught():
    with pytest.raises(CheckFailed, match="Linear is no Density"):
        check_model(nn.Linear(6, 6), VECTORS)


# Stages ---------------------------------------------------------------------------------------------------------------


class Thaws(Autoencoder):
    """Trains its encoder although a stage freezes it."""

    def terms(self, q, **options):
        for p in self.encoder.parameters():
            p.requires_grad_(True)
        return super().terms(q, **options)


class Wakes(Autoencoder):
    """Puts its encoder into training mode, so that frozen running statistics drift."""

    def terms(self, q, **options):
        if self.training:
            self.encoder.train()
        return super().terms(q, **options)


def two_stages(model: Autoencoder) -> list[Stage]:
    return [Stage("all", model), Stage("rest", model, frozen=(model.encoder,))]


def test_frozen_parts_that_stay_so_are_fine():
    model = composed()
    check_model(model, VECTORS, stages=two_stages(model))


def test_a_frozen_part_with_gradient_is_caught():
    parts = composed()
    model = Thaws(parts.encoder, parts.decoder, parts.prior)
    with pytest.raises(CheckFailed, match="is frozen in stage 'rest' and still gets a gradient"):
        check_model(model, VECTORS, stages=two_stages(model))


def test_a_frozen_part_that_changes_is_caught():
    encoder = GaussianEncoder(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 6)))
    parts = composed(encoder)
    model = Wakes(parts.encoder, parts.decoder, parts.prior)
    with pytest.raises(CheckFailed, match="is frozen in stage 'rest' and still changes"):
        check_model(model, VECTORS, stages=two_stages(model))


def test_a_part_that_no_stage_trains_is_caught():
    """Freezing the encoder freezes the ends of the schedule that it shares with the prior."""
    prior = diffusion(LearnedLogSNR())
    model = composed(encoder=FixedNoiseEncoder(mlp([6, 12, 3]), prior.schedule), prior=prior)
    with pytest.raises(CheckFailed, match=r"no stage gives a gradient to .*schedule\.low"):
        check_model(model, VECTORS, stages=[Stage("rest", model, frozen=(model.encoder,))])


def test_parameters_that_are_fixed_on_purpose_need_no_gradient():
    model = UnusedParameter()
    model.forgotten.requires_grad_(False)
    check_model(model, VECTORS)


def test_weights_other_than_the_bound_s_keep_the_printed_nats():
    check_model(composed(prior=diffusion(objective=Objective(simple(3.0), terminal=False))), VECTORS)


def test_bernoulli_on_grey_values_is_refused_in_words_and_passes():
    decoder = LikelihoodDecoder(mlp([3, 12, 6]), BernoulliLikelihood())
    check_model(composed(decoder=decoder), VECTORS.clamp(-1, 1))
