"""Other people's autoencoders: every form that is accepted gives the numbers known in closed form; others are refused."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import scipy.stats
import torch
from torch import nn

from diled.api import total
from diled.config import DataSpec
from diled.distributions import Bernoulli, Dirac, Discretized, Normal
from diled.errors import DataError, ModelError, NoBound
from diled.models.check import check_model
from diled.models.foreign import from_diffusers, from_function, load_foreign

GREY = DataSpec(kind="image", shape=(1, 2, 3), levels=256)
BINARY = DataSpec(kind="image", shape=(1, 2, 3), levels=2, high=1.0)
VECTOR = DataSpec(kind="vector", shape=(6,))

# A linear model: q(z | v) = N(A v + a, diag s^2), decoded W z + b, for v in the model's own range of grey values.
MODULE = """
from types import SimpleNamespace

import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Laplace, MultivariateNormal, Normal

from diled.distributions import Bernoulli as OurBernoulli, Normal as OurNormal
from diled.models.priors import StandardNormal

generator = torch.Generator().manual_seed(5)
A, W = 0.3 * torch.randn(2, 6, generator=generator), 0.3 * torch.randn(6, 2, generator=generator)
a, b = torch.tensor([0.2, -0.1]), torch.tensor([0.05, 0.1, 0.0, 0.2, -0.1, 0.1])
log_var = torch.tensor([-1.0, -3.0])

ENCODED = {
    "normal": lambda m, v: Normal(m, (0.5 * v).exp()),
    "independent": lambda m, v: Independent(Normal(m, (0.5 * v).exp()), 1),
    "ours": lambda m, v: OurNormal(m, log_var),
    "logvar": lambda m, v: SimpleNamespace(mean=m, logvar=v),
    "log_var": lambda m, v: SimpleNamespace(mean=m, log_var=v),
    "std": lambda m, v: SimpleNamespace(mean=m, std=(0.5 * v).exp()),
    "stddev": lambda m, v: SimpleNamespace(mean=m, stddev=(0.5 * v).exp()),
    "latent_dist": lambda m, v: SimpleNamespace(latent_dist=SimpleNamespace(mean=m, logvar=v)),
    "pair": lambda m, v: (m, v),
    "list": lambda m, v: [m, v],
    "tensor": lambda m, v: m,
    "laplace": lambda m, v: Laplace(m, v.exp()),
    "full": lambda m, v: MultivariateNormal(m, torch.eye(2)),
    "triple": lambda m, v: (m, m, v),
    "uneven": lambda m, v: (m, v[:, :1]),
    "nothing": lambda m, v: None,
    "nan": lambda m, v: (m * float("nan"), v),
    "flat": lambda m, v: (m[:, 0], v[:, 0]),
}
DECODED = {
    "tensor": lambda x: x,
    "sample": lambda x: SimpleNamespace(sample=x),
    "normal": lambda x: Normal(x, 0.1),
    "independent": lambda x: Independent(Normal(x, 0.1), 3),
    "bernoulli": lambda x: Independent(Bernoulli(logits=x), 3),
    "ours": lambda x: OurNormal(x, torch.full_like(x, -1.0)),
    "our_bernoulli": lambda x: OurBernoulli(x),
    "sigmoid": torch.sigmoid,
    "flat": lambda x: x.flatten(1),
    "few": lambda x: x[:1],
    "laplace": lambda x: Laplace(x, 1.0),
    "nan": lambda x: x / 0 * 0,
    "none": lambda x: None,
}


class Linear(nn.Module):
    def __init__(self, encoded="pair", decoded="tensor", **attributes):
        super().__init__()
        self.A, self.W = nn.Parameter(A.clone()), nn.Parameter(W.clone())
        self.encoded, self.decoded = encoded, decoded
        for name, value in attributes.items():
            setattr(self, name, value)

    def encode(self, x):
        m = x.flatten(1) @ self.A.T + a
        return ENCODED[self.encoded](m, log_var.expand_as(m))

    def decode(self, z):
        assert z.shape[1:] == (2,)
        return DECODED[self.decoded]((z @ self.W.T + b).unflatten(1, (1, 2, 3)))
"""

OUTSIDE = "float(__import__('pathlib').Path(__file__).parents[1].joinpath('scale').read_text())"
"""A number that no file of theirs has."""


@pytest.fixture
def linear(tmp_path, monkeypatch):
    """Makes a module that holds the linear model in one form, in a folder of its own, and loads it."""
    count, name = 0, f"theirs_{tmp_path.name}"

    def load(code: str, spec: DataSpec = GREY, more: str = "", function: str = "model"):
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        folder.mkdir()
        (folder / f"{name}.py").write_text(f"{MODULE}\n{more}\n\ndef model():\n    return {code}\n")
        try:
            return load_foreign(f"{name}:{function}", spec, search_path=folder)
        finally:
            monkeypatch.delitem(sys.modules, name, raising=False)

    return load


def images(n: int = 8, spec: DataSpec = GREY) -> torch.Tensor:
    levels = spec.levels - 1
    return 2 * torch.randint(levels + 1, (n, *spec.shape)) / levels - 1


def parts() -> tuple[torch.Tensor, ...]:
    """A, W, a, b and log variances of the linear model."""
    space: dict = {}
    exec(MODULE, space)
    return tuple(space[name] for name in ("A", "W", "a", "b", "log_var"))


ENCODERS = ["normal", "independent", "ours", "logvar", "log_var", "std", "stddev", "latent_dist", "pair", "list"]


@pytest.mark.parametrize("form", ENCODERS)
def test_every_form_of_posterior_is_the_same_gaussian(linear, form):
    foreign = linear(f"Linear({form!r}, range=(-1, 1))")
    A, _, a, _, log_var = parts()
    x = images()
    q = foreign.density.encoder(x)
    assert isinstance(q, Normal)
    torch.testing.assert_close(q.mean, x.flatten(1) @ A.T + a)
    torch.testing.assert_close(q.log_var, log_var.expand(8, 2))
    mean, var = q.mean, log_var.exp()
    kl = 0.5 * (var + mean**2 - 1 - log_var).sum(1)
    torch.testing.assert_close(foreign.density.prior.terms(q, exact=True)["kl"], kl)


@pytest.mark.parametrize("low_high", [(-1, 1), (0, 1), (0, 255)])
@pytest.mark.parametrize("form", ["normal", "independent"])
def test_grey_values_in_a_range_of_their_own(linear, form, low_high):
    """What is decoded with a Gaussian is rounded to the data's grid, in our units."""
    low, high = low_high
    foreign = linear(f"Linear(decoded={form!r}, range={low_high})")
    A, W, a, b, _ = parts()
    x, z = images(), torch.randn(8, 2)
    v = low + (high - low) * (x + 1) / 2
    torch.testing.assert_close(foreign.density.encode(x), v.flatten(1) @ A.T + a)
    p = foreign.density.decoder(z)
    assert isinstance(p, Discretized)
    mean = ((z @ W.T + b - low) / (high - low) * 2 - 1).reshape(8, 1, 2, 3).double()
    std, h, wide = 0.2 / (high - low), 1 / 255, x.double()
    upper = torch.where(wide > 1 - 1e-6, math.inf, wide + h)
    lower = torch.where(wide < -1 + 1e-6, -math.inf, wide - h)
    cdf = scipy.stats.norm(mean.numpy(), std).cdf
    exact = -torch.log(torch.from_numpy(cdf(upper.numpy()) - cdf(lower.numpy())))
    near = exact < 30  # further out scipy's difference is lost to rounding
    found = -p.log_prob_dims(x)
    torch.testing.assert_close(found[near].double(), exact[near], rtol=2e-3, atol=2e-3)
    assert any("rounded to the 256 grey values" in note for note in foreign.notes)
    assert foreign.fit(images()).std is None


@pytest.mark.parametrize("form", ["tensor", "sample", "bernoulli", "our_bernoulli"])
def test_binary_data_are_decoded_to_logits(linear, form):
    foreign = linear(f"Linear(decoded={form!r}, range=(0, 1))", BINARY)
    _, W, _, b, _ = parts()
    x, z = images(spec=BINARY), torch.randn(8, 2)
    p = foreign.density.decoder(z)
    assert isinstance(p, Bernoulli)
    logits = (z @ W.T + b).reshape(8, 1, 2, 3)
    torch.testing.assert_close(p.nll(x), nn.functional.softplus(-x * logits).flatten(1).sum(1))
    assert foreign.fit(x).std is None
    assert bool(foreign.density.bound(x).isfinite().all())


@pytest.mark.parametrize("values", ["range=(0, 1)", ""])
def test_probabilities_of_binary_data_are_told_apart_from_logits(linear, values):
    foreign = linear(f"Linear(decoded='sigmoid', logits=False, {values})", BINARY)
    z = torch.randn(8, 2)
    _, W, _, b, _ = parts()
    if values:
        torch.testing.assert_close(foreign.density.decoder(z).logits.flatten(1), z @ W.T + b, rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match="taken for logits"):
        linear(f"Linear(decoded='sigmoid', {values})", BINARY)
    linear(f"Linear(decoded='sigmoid', logits=True, {values})", BINARY)


def test_one_of_our_distributions_passes_as_it_is(linear):
    more = "class Vector(Linear):\n    def decode(self, z):\n        return DECODED['ours'](z @ self.W.T + b)\n"
    foreign = linear("Vector()", VECTOR, more)
    _, W, _, b, _ = parts()
    z, x = torch.randn(4, 2), torch.randn(4, 6)
    torch.testing.assert_close(foreign.density.decoder(z).nll(x), Normal(z @ W.T + b, torch.full((4, 6), -1.0)).nll(x))


def test_the_bound_is_distortion_and_rate_in_closed_form(linear):
    """Of a continuous vector: E_q -log N(x; W z + b, s^2) + KL(q || N(0, I)), all known."""
    more = "class Vector(Linear):\n    def decode(self, z):\n        return Normal(z @ self.W.T + b, 0.5)\n"
    foreign = linear("Vector(range=(-1, 1))", VECTOR, more)
    A, W, a, b, log_var = parts()
    x = torch.randn(1, 6)
    mean = x @ A.T + a
    error = ((x - mean @ W.T - b) ** 2).sum() + (W**2 @ log_var.exp()).sum()
    exact = 3 * math.log(2 * math.pi * 0.25) + 2 * error + 0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum()
    with torch.no_grad():
        found = foreign.density.bound(x.expand(40_000, 6))
    assert abs(float(found.mean() - exact)) < 4 * float(found.std()) / 200


# What is fitted -------------------------------------------------------------------------------------------------------


def test_the_standard_deviation_is_the_root_of_the_expected_squared_error(linear):
    foreign = linear("Linear(range=(-1, 1))")
    A, W, a, b, log_var = parts()
    x = images(4000)
    residual = x.flatten(1) - (x.flatten(1) @ A.T + a) @ W.T - b
    expected = math.sqrt(float((residual**2).mean() + (W**2 @ log_var.exp()).mean()))
    fitted = foreign.fit(x)
    assert fitted.std == pytest.approx(expected, rel=5e-3)
    assert fitted.fit(x).std == fitted.std == pytest.approx(foreign.fit(x, batch_size=7).std, rel=1e-5)
    p = fitted.density.decoder(torch.zeros(1, 2))
    torch.testing.assert_close(p.base.var, torch.full((1, 1, 2, 3), fitted.std**2))
    said = [note for note in fitted.notes if note.startswith("likelihood")]
    assert len(said) == 1
    assert "4,000 training images" in said[0]
    assert "256 grey values" in said[0]


def test_the_fitted_standard_deviation_is_the_best(linear):
    """With codes that hardly vary, the distortion of continuous data is smallest there, and its slope is zero."""
    more = (
        "class Vector(Linear):\n"
        "    def encode(self, x):\n        return x @ self.A.T, torch.full((len(x), 2), -30.0)\n"
        "    def decode(self, z):\n        return z @ self.W.T\n"
    )
    x = torch.randn(500, 6)
    fitted = linear("Vector(range=(-1, 1))", VECTOR, more).fit(x)
    mean = fitted.density.decode(fitted.density.encode(x))
    scale = torch.tensor(1.0, requires_grad=True)
    nll = Normal(mean, 2 * torch.log(scale * fitted.std).expand_as(mean)).nll(x).mean()
    (slope,) = torch.autograd.grad(nll, scale)
    assert abs(float(slope)) < 1e-3
    torch.testing.assert_close(fitted.density.terms(x, exact=True)["distortion"].mean(), nll.detach())


def test_perfect_pictures_have_a_smallest_standard_deviation(linear):
    more = (
        "class Identity(nn.Module):\n"
        "    def encode(self, x):\n        return x, torch.full_like(x, -40.0)\n"
        "    def decode(self, z):\n        return z\n"
    )
    x = images(20)
    fitted = linear("Identity()", GREY, more).fit(x)
    assert fitted.std == pytest.approx(0.25 / 255)
    assert float(fitted.density.decoder(x.flatten(1)).nll(x).max()) < 1e-3 * 6


@pytest.mark.parametrize("low_high", [(-1, 1), (0, 1)])
def test_a_range_that_is_not_declared_is_the_one_that_reconstructs(linear, low_high):
    """A model that cuts its pictures to its range reconstructs images in that range only."""
    more = (
        "class Cut(nn.Module):\n"
        "    def encode(self, x):\n        return x, torch.full_like(x, -20.0)\n"
        f"    def decode(self, z):\n        return 0.98 * z.clamp{low_high} + 0.01 * {sum(low_high)}\n"
    )
    x = images(64)
    declared = linear(f"type('Declared', (Cut,), {{'range': {low_high}}})()", GREY, more).fit(x)
    found = linear("Cut()", GREY, more).fit(x)
    torch.testing.assert_close(found.density.reconstruct(x), declared.density.reconstruct(x))
    assert found.std == pytest.approx(declared.std)
    assert declared.std < 0.05
    said = [note for note in found.notes if note.startswith("range")]
    assert len(said) == 1
    assert f"[{low_high[0]}, {low_high[1]}], which reconstructs training images" in said[0]
    assert not any(note.startswith("range") for note in declared.notes)


def test_there_is_no_bound_before_a_fit(linear):
    foreign = linear("Linear(range=(-1, 1))")
    x = images()
    with pytest.raises(NoBound, match="`fit`"):
        foreign.density.bound(x)
    assert foreign.density.reconstruct(x).shape == x.shape
    assert foreign.fit(x).density.bound(x).shape == (8,)
    assert any("no bound before" in note for note in foreign.notes)


@pytest.mark.parametrize("x", [torch.zeros(4, 1, 3, 2), torch.zeros(0, 1, 2, 3)])
def test_a_fit_needs_images_of_the_data(linear, x):
    with pytest.raises(DataError, match=r"fit needs images of shape \(1, 2, 3\)"):
        linear("Linear(range=(-1, 1))").fit(x)


# The contract ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoded", ["pair", "tensor"])
def test_a_foreign_model_keeps_the_contract(linear, encoded):
    x = images()
    foreign = linear(f"Linear({encoded!r}, deterministic=True, range=(-1, 1))").fit(x)
    check_model(foreign.density, x)


def test_a_deterministic_model_has_no_bound(linear):
    foreign = linear("Linear('tensor', deterministic=True, range=(-1, 1))")
    x = images()
    fitted = foreign.fit(x)
    assert isinstance(fitted.density.encoder(x), Dirac)
    assert fitted.density.reconstruct(x).shape == x.shape
    assert fitted.std is not None
    with pytest.raises(NoBound, match="deterministic encoder"):
        fitted.density.bound(x)


def test_weights_are_fixed_and_gradients_pass_through(linear):
    foreign = linear("Linear(range=(-1, 1))").fit(images())
    assert not foreign.density.training
    assert not any(p.requires_grad for p in foreign.density.parameters())
    x = images().requires_grad_()
    total(foreign.density.terms(x)).sum().backward()
    assert bool(x.grad.abs().sum(0).gt(0).all())
    z = torch.randn(3, 2, requires_grad=True)
    foreign.density.decoder(z).nll(images(3)).sum().backward()
    assert bool(z.grad.ne(0).all())


def test_what_is_no_module_may_hold_modules(linear):
    more = (
        "class Plain:\n"
        "    def __init__(self):\n        self.inner, self.devices = Linear().train(), []\n"
        "    def to(self, device):\n        self.devices.append(device)\n"
        "    def encode(self, x):\n        return self.inner.encode(x)\n"
        "    def decode(self, z):\n        return self.inner.decode(z)\n"
    )
    foreign = linear("Plain()", GREY, more)
    plain = foreign.density.encoder.adapter.model
    assert plain.devices == ["cpu"]
    assert not plain.inner.training
    assert len(list(foreign.density.parameters())) == 2
    assert not any(p.requires_grad for p in foreign.density.parameters())
    x = images()
    torch.testing.assert_close(foreign.fit(x).density.encode(x), linear("Linear()").fit(x).density.encode(x))


def test_functions_in_a_namespace_will_do(linear):
    foreign = linear("SimpleNamespace(encode=Linear().encode, decode=Linear().decode, range=(-1, 1), name='mine')")
    assert foreign.name == "mine"
    assert any(note.startswith("identity") for note in foreign.notes)
    assert foreign.fit(images()).density.bound(images()).shape == (8,)


def test_a_prior_of_its_own(linear):
    x = images()
    shifted = (
        "class Shifted(StandardNormal):\n"
        "    def terms(self, q, *, exact=False, progress=1.0):\n"
        "        return super().terms(q.affine(1.0, -1.0), exact=exact, progress=progress)\n"
    )
    own = linear("Linear(decoded='normal', range=(-1, 1), prior=Shifted((2,)))", GREY, shifted)
    usual = linear("Linear(decoded='normal', range=(-1, 1))")
    q = usual.density.encoder(x)
    torch.testing.assert_close(own.density.prior.terms(q)["kl"], q.kl(Normal(torch.ones(8, 2), torch.zeros(8, 2))))
    assert any(note.startswith("prior: N(0, I)") for note in usual.notes)
    assert not any(note.startswith("prior") for note in own.notes)


def test_codes_of_another_shape_for_the_decoder(linear):
    more = (
        "class Maps(nn.Module):\n"
        "    def encode(self, x):\n        return x[:, :, :, :2], torch.zeros(len(x), 1, 2, 2)\n"
        "    def decode(self, z):\n"
        "        assert z.shape[1:] == SHAPE, z.shape\n"
        "        return torch.cat([z.reshape(-1, 1, 2, 2), z.reshape(-1, 1, 2, 2)[..., :1]], 3)\n"
    )
    x = images()
    for values, shape in (("", (1, 2, 2)), ("latent_shape = (4,)", (4,))):
        foreign = linear("Maps()", GREY, f"SHAPE = {shape}\n{more}    {values}\n").fit(x)
        assert foreign.density.encode(x).shape == (8, 4)
        assert foreign.density.prior.shape == (4,)
        torch.testing.assert_close(foreign.density.reconstruct(x)[..., :2], x[..., :2])
    with pytest.raises(ModelError, match=r"latent_shape \(5,\) does not hold the codes \(1, 2, 2\)"):
        linear("Maps()", GREY, f"{more}    latent_shape = (5,)\n")


def test_identity_is_that_of_weights_and_source(linear, tmp_path):
    same = [linear("Linear()").identity, linear("Linear()").identity]
    assert same[0] == same[1]
    assert len(same[0]) == 64
    other_weights = linear("Linear()", GREY, "A = A + torch.tensor(1e-6)").identity
    other_source = linear("Linear()", GREY, "# a remark").identity
    assert len({same[0], other_weights, other_source}) == 3
    from_file = f"A.mul_({OUTSIDE})"
    scaled = []
    for scale in ("1.0", "1.0", "1.001"):
        (tmp_path / "scale").write_text(scale)
        scaled.append(linear("Linear()", GREY, from_file).identity)
    assert scaled[0] == scaled[1] != scaled[2]
    x = images()
    assert linear("Linear()").fit(x).identity == same[0]


@pytest.mark.parametrize("changed", ["SCALE * super().decode(z)", "Normal(super().decode(z), SCALE)"])
def test_identity_is_also_that_of_what_the_model_makes(linear, tmp_path, changed):
    """A number that is no weight and stands elsewhere makes another model, and so does another function of the file."""
    more = (
        f"SCALE = {OUTSIDE}\n"
        f"class Scaled(Linear):\n    def decode(self, z):\n        return {changed}\n"
        "def other():\n    return Scaled(range=(-1, 1))\n"
    )
    found = []
    for scale, function in (("1.0", "model"), ("1.0", "model"), ("1.001", "model"), ("1.0", "other")):
        (tmp_path / "scale").write_text(scale)
        found.append(linear("Scaled(range=(-1, 1))", GREY, more, function).identity)
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_modules_are_found_in_lists_and_dicts(linear, tmp_path):
    more = (
        f"SCALE = {OUTSIDE}\n"
        "class Held(Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(range=(-1, 1))\n"
        "        self.steps = [nn.Dropout(0.9), {'last': (nn.Linear(2, 2),)}]\n"
        "        nn.init.constant_(self.steps[1]['last'][0].weight, SCALE)\n"
        "class Plain:\n"
        "    def __init__(self):\n        self.parts = {'held': Held()}\n"
        "    def encode(self, x):\n        return self.parts['held'].encode(x)\n"
        "    def decode(self, z):\n        return self.parts['held'].decode(z)\n"
    )
    for code in ("Held()", "Plain()"):
        found = []
        for scale in ("1.0", "1.001"):  # of what is never computed with
            (tmp_path / "scale").write_text(scale)
            found.append(linear(code, GREY, more))
        held = found[0].density.decoder.adapter.model
        dropout, last = (held if code == "Held()" else held.parts["held"]).steps
        assert not dropout.training
        assert not last["last"][0].weight.requires_grad
        assert len(list(found[0].density.parameters())) == 4
        assert found[0].identity != found[1].identity


def test_nothing_else_changes(linear):
    path, state = list(sys.path), torch.get_rng_state()
    first = linear("Linear()", GREY, "torch.rand(3)")
    first.fit(torch.zeros(4, 1, 2, 3))
    assert sys.path == path
    assert torch.equal(torch.get_rng_state(), state)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("Linear('tensor')", r"encode returns no distribution but a tensor \(3, 2\)"),
        ("Linear('laplace')", "encode returned an object of type Laplace, which is no Gaussian"),
        ("Linear('full')", "encode returned an object of type MultivariateNormal, which is no Gaussian"),
        ("Linear('triple')", r"no distribution but a tuple of 3 \(a tensor \(3, 2\), a tensor"),
        ("Linear('uneven')", r"a mean of shape \(3, 2\) and a variance of shape \(3, 1\)"),
        ("Linear('nothing')", "no distribution but an object of type NoneType"),
        ("Linear('nan')", "encode returned no finite codes"),
        ("Linear('flat')", "encode returned no finite codes, one for each image, but"),
        ("Linear(decoded='flat')", r"decode returned the shape \(3, 6\) where \(3, 1, 2, 3\) is wanted"),
        ("Linear(decoded='few')", r"decode returned the shape \(1, 1, 2, 3\)"),
        ("Linear(decoded='laplace')", "decode returned an object of type Laplace, which must be"),
        ("Linear(decoded='none')", "decode returned an object of type NoneType"),
        ("Linear(decoded='nan')", "decode returned NaN"),
        ("Linear(range=(1, 0))", r"`range` must be \(low, high\), such as \(0, 1\), not \(1, 0\)"),
        ("Linear(range='unit')", "`range` must be"),
        (
            "Linear(prior=nn.Linear(2, 2))",
            "`prior` must be a diled.Density over flattened codes, not an object of type Linear",
        ),
        ("Linear(prior=Wrong((2,)))", "the prior does not take codes"),
        ("nn.Linear(2, 2)", "returned an object of type Linear, which has no method 'encode'"),
        ("SimpleNamespace(encode=Linear().encode)", "which has no method 'decode'"),
        ("Linear(1 / 0)", "raised ZeroDivisionError when called"),
        ("Linear('no such form')", r"encode raised KeyError for a tensor \(3, 1, 2, 3\)"),
        ("Linear(latent_shape=(1, 2))", r"decode raised AssertionError for a tensor \(3, 1, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_name(linear, code, said):
    more = "class Wrong(StandardNormal):\n    def terms(self, q, **options):\n        return {'kl': q.mean}\n"
    with pytest.raises(ModelError, match=said) as caught:
        linear(code, GREY, more)
    assert "theirs_" in str(caught.value)
    assert ":model" in str(caught.value)


def test_what_is_not_there(tmp_path):
    (tmp_path / "vaes_there.py").write_text("def small_vae():\n    pass\n\n\nnumber = 3\n")
    (tmp_path / "vaes_broken.py").write_text("import no_such_package_at_all\n")
    for source, said in {
        "no_such_module_at_all:vae": "raised ModuleNotFoundError: No module named 'no_such_module_at_all'",
        "vaes_broken:vae": "importing vaes_broken .* raised ModuleNotFoundError: No module named 'no_such_package",
        "vaes_there:smal_vae": "vaes_there has no function 'smal_vae'. Did you mean 'small_vae'?",
        "vaes_there:number": "has no function 'number'",
        "vaes_there:": "must have the form module:function",
        ":vae": "must have the form module:function",
        "no/such/folder": r"There is no run folder no/such/folder\.$",
    }.items():
        with pytest.raises(ModelError, match=said):
            load_foreign(source, GREY, search_path=tmp_path)


def test_a_module_that_hides_another_is_refused(tmp_path, monkeypatch):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "vaes_twice.py").write_text(f"{MODULE}\n\ndef model():\n    return Linear()\n")
    monkeypatch.chdir(tmp_path / "one")
    from_function("vaes_twice:model", GREY)
    from_function("vaes_twice:model", GREY)
    with pytest.raises(ModelError, match="a module 'vaes_twice' already is"):
        from_function("vaes_twice:model", GREY, search_path=tmp_path / "two")
    monkeypatch.delitem(sys.modules, "vaes_twice")


# diffusers ------------------------------------------------------------------------------------------------------------

PICTURES = DataSpec(kind="image", shape=(3, 16, 16), levels=256)
SCALES = {
    "scale": {"scaling_factor": 0.5},
    "shift": {"scaling_factor": 0.5, "shift_factor": 0.3},
    "moments": {"scaling_factor": 0.5, "latents_mean": [0.1, -0.2], "latents_std": [2.0, 3.0]},
}


def tiny_vae(**values):
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"block_out_channels": (4, 8), "latent_channels": 2, "norm_num_groups": 2, "sample_size": 16}
    return diffusers.AutoencoderKL(**blocks, **sizes, **values).eval()


@pytest.mark.parametrize("scales", SCALES)
def test_an_autoencoder_of_diffusers_reads_and_writes_as_it_does(tmp_path, scales):
    vae = tiny_vae(**SCALES[scales])
    vae.save_pretrained(tmp_path)
    foreign = load_foreign(str(tmp_path), PICTURES)
    x = images(4, PICTURES)
    with torch.no_grad():
        theirs = vae.encode(x).latent_dist
        mean, std = theirs.mean, theirs.std
        if scales == "moments":
            m, s = (torch.tensor(SCALES[scales][key]).reshape(1, 2, 1, 1) for key in ("latents_mean", "latents_std"))
            codes, factor = (mean - m) * 0.5 / s, 0.5 / s
        else:
            codes, factor = (mean - SCALES[scales].get("shift_factor", 0.0)) * 0.5, torch.tensor(0.5)
        q = foreign.density.encoder(x)
        torch.testing.assert_close(q.mean, codes.flatten(1))
        torch.testing.assert_close((0.5 * q.log_var).exp(), (std * factor).flatten(1))
        pictures = vae.decode(mean).sample
        assert q.mean.shape == (4, 2 * 8 * 8)
        torch.testing.assert_close(foreign.density.decoder(q.mean).mean, pictures, rtol=1e-4, atol=1e-5)
        fitted = foreign.fit(x)
        torch.testing.assert_close(fitted.density.reconstruct(x), pictures.clamp(-1, 1), rtol=1e-4, atol=1e-5)
        assert bool(fitted.density.bound(x).isfinite().all())
    assert any("pipelines" in note for note in foreign.notes)
    assert any(note.startswith("prior: N(0, I); ") for note in foreign.notes)
    assert fitted.std > 0.1


def test_pictures_of_an_autoencoder_of_diffusers_are_means_also_where_data_are_binary(tmp_path):
    vae = tiny_vae(in_channels=1, out_channels=1, scaling_factor=1.0)
    vae.save_pretrained(tmp_path)
    spec = DataSpec(kind="image", shape=(1, 16, 16), levels=2)
    foreign = load_foreign(str(tmp_path), spec)
    with torch.no_grad():
        z = foreign.density.encoder(images(4, spec)).mean
        pictures = vae.decode(z.reshape(4, 2, 8, 8)).sample
        chance = foreign.density.decoder(z).logits.sigmoid()
    torch.testing.assert_close(chance, (0.5 * (pictures + 1)).clamp(1e-6, 1 - 1e-6), rtol=1e-4, atol=1e-5)


def test_an_autoencoder_within_a_pipeline(tmp_path):
    vae = tiny_vae()
    vae.save_pretrained(tmp_path / "vae")
    (tmp_path / "model_index.json").write_text("{}")
    foreign = from_diffusers(tmp_path, PICTURES)
    assert foreign.identity == from_diffusers(tmp_path / "vae", PICTURES).identity
    assert foreign.name == str(tmp_path)
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    (tmp_path / "vae" / "config.json").write_text(json.dumps(config | {"scaling_factor": 2.0}))
    assert foreign.identity != from_diffusers(tmp_path, PICTURES).identity


def damaged(folder: Path, how: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "diffusion_pytorch_model.safetensors"
    if how == "no config":
        (folder / "config.json").unlink()
    elif how == "class":
        (folder / "config.json").write_text(json.dumps(config | {"_class_name": "VQModel"}))
    elif how == "pickle":
        weights.rename(folder / "diffusion_pytorch_model.bin")
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "missing":
        from safetensors.torch import load_file, save_file

        kept = load_file(weights)
        del kept["encoder.conv_in.weight"]
        save_file(kept, weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no config", "config.json cannot be read"),
        ("class", "of the class VQModel, and only AutoencoderKL is read"),
        ("pickle", "no safetensors file; pickles are not opened"),
        ("truncated", "cannot be read"),
        ("missing", "incomplete: 'encoder.conv_in.weight' is missing"),
    ],
)
def test_a_folder_that_is_no_whole_model(tmp_path, how, said):
    tiny_vae().save_pretrained(tmp_path)
    damaged(tmp_path, how)
    with pytest.raises(ModelError, match=said) as caught:
        from_diffusers(tmp_path, PICTURES)
    assert str(tmp_path) in str(caught.value)


def test_a_pipeline_without_an_autoencoder(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    with pytest.raises(ModelError, match="pipeline without an autoencoder"):
        load_foreign(str(tmp_path), GREY)


def test_a_model_for_other_data(tmp_path):
    tiny_vae().save_pretrained(tmp_path)
    grey = DataSpec(kind="image", shape=(1, 16, 16), levels=256)
    with pytest.raises(ModelError, match="reads images of 3 channels"):
        from_diffusers(tmp_path, grey)
    odd = DataSpec(kind="image", shape=(3, 15, 15), levels=256)
    with pytest.raises(ModelError, match="decode returned the shape"):
        from_diffusers(tmp_path, odd)


def test_diffusers_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModelError, match=r"pip install 'diled\[image\]'"):
        from_diffusers(tmp_path, PICTURES)
