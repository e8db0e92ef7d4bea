"""The `Model` face: examples in, arrays out; saving, loading, and the Hugging Face Hub (with a stand-in for it)."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import small

import diled
from diled.config import DataSpec, TrainingConfig
from diled.distributions import Normal
from diled.errors import ConfigError, DataError, ModelError, NoBound
from diled.family import FAMILY, model_config
from diled.model import Model, choose_device, load
from diled.models import io
from diled.models.autoencoder import (
    Autoencoder,
    BernoulliLikelihood,
    DiracEncoder,
    GaussianEncoder,
    GaussianLikelihood,
    LikelihoodDecoder,
)
from diled.models.priors import StandardNormal
from diled.models.sampling import BATCH
from diled.models.zoo import build
from diled.nn.blocks import mlp
from diled.nn.image import MLPDecoder, MLPEncoder
from diled.training.throughput import accelerator_of

WITHOUT_CODES = ("ndm", "consistency", "independent")
WITHOUT_BOUND = ("ae", "daae", "diffae", "consistency")
OF_NUMBERS = [name for name, config in FAMILY.items() if "numbers" in config.reads]
GREY = DataSpec(kind="image", shape=(1, 8, 8), levels=17, high=16.0)
BYTES = DataSpec(kind="image", shape=(1, 8, 8), levels=256, high=255.0, mode="L")
BINARY = DataSpec(kind="image", shape=(1, 8, 8), levels=2, high=255.0, mode="L")
VECTORS = DataSpec(kind="vector", shape=(5,), low=-2.0, high=4.0)


def make(name: str = "diled", spec: DataSpec = GREY, **values) -> Model:
    """A tiny model of the family, with perturbed weights."""
    config = model_config(name, small(name, {"kind": "mlp", "width": 16, "depth": 1}) | values).resolved(spec)
    density = build(name, config, spec).model
    with torch.no_grad():
        for p in density.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return Model(density, spec, name=name, config=config, device="cpu", provenance={"seed": 0, "steps": 3})


def parts(likelihood: torch.nn.Module, encoder: type = GaussianEncoder) -> Autoencoder:
    """A hand-composed autoencoder of 8 x 8 images."""
    codes = 6 if encoder is GaussianEncoder else 3
    return Autoencoder(
        encoder(MLPEncoder((1, 8, 8), codes, width=12, depth=1)),
        LikelihoodDecoder(MLPDecoder(3, (1, 8, 8), width=12, depth=1), likelihood),
        StandardNormal((3,)),
    )


def images(n: int = 6, top: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, top + 1, (n, 1, 8, 8)).astype(np.uint8)


@pytest.fixture(scope="module")
def model() -> Model:
    return make()


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    return model.save(tmp_path / "model")


# Operations -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_every_operation_has_its_shape_and_type(name):
    model, x = make(name), images()
    shown = [model.sample(6), model.sample(6, draw=True)]
    if name in WITHOUT_CODES:
        for operation in (model.encode, model.reconstruct, lambda x: model.interpolate(x[:3], x[3:])):
            with pytest.raises(ConfigError, match="no encoder"):
                operation(x)
    else:
        size = 64 if name in ("ddpm", "edm") else 3
        codes = model.encode(x)
        assert (codes.shape, codes.dtype) == ((6, size), np.float32)
        shown += [model.decode(codes), model.decode(codes, sample=True), model.reconstruct(x)]
        if size == 3:
            assert model.encode(x, sample=True).shape == (6, 3)
            shown.append(model.reconstruct(x, sample=True))
        assert model.interpolate(x[0], x[1], 4).shape == (4, 1, 8, 8)
        assert model.interpolate(x[:3], x[3:], 4, mode="spherical").shape == (3, 4, 1, 8, 8)
    for raw in shown:
        assert (raw.shape, raw.dtype) == ((6, 1, 8, 8), np.uint8)
        assert raw.max() <= 16
    if name in WITHOUT_BOUND:
        with pytest.raises(NoBound, match="no bound"):
            model.bound(x)
    else:
        bound, scores = model.bound(x), model.score_samples(x)
        assert bound.shape == (6,)
        assert (bound > 0).all()
        assert np.array_equal(bound, -scores)
    assert name in repr(model)
    assert f"{model.parameters:,}" in repr(model)


def test_vectors_come_back_in_their_own_units():
    model = make("vae", VECTORS)
    x = np.random.default_rng(0).uniform(-2, 4, (6, 5))
    assert model.encode(x).shape == (6, 3)
    drawn = model.sample(200, draw=True)
    assert (drawn.shape, drawn.dtype) == ((200, 5), np.float32)
    assert abs(drawn.mean() - 1) < 1.5
    assert np.isfinite(model.bound(x)).all()


def test_the_bound_of_real_numbers_is_per_unit_of_the_raw_data():
    model = make("vae", VECTORS)
    wide = Model(model.density, VECTORS.model_copy(update={"low": -20.0, "high": 40.0}), device="cpu")
    x = np.random.default_rng(0).uniform(-2, 4, (6, 5))
    np.testing.assert_allclose(wide.bound(10 * x), model.bound(x) + 5 * np.log(10), rtol=1e-3)


@pytest.mark.parametrize("name", ["diled", "vae", "ldm"])
def test_results_are_functions_of_the_seed(name):
    model, x = make(name), images()
    codes = model.encode(x)
    operations = {
        "encode": lambda seed: model.encode(x, sample=True, seed=seed),
        "decode": lambda seed: model.decode(codes, sample=True, seed=seed),
        "reconstruct": lambda seed: model.reconstruct(x, sample=True, seed=seed),
        "sample": lambda seed: model.sample(5, seed=seed),
        "bound": lambda seed: model.bound(x, seed=seed),
    }
    for what, operation in operations.items():
        torch.manual_seed(1)
        first = operation(0)
        torch.manual_seed(2)
        assert np.array_equal(first, operation(0)), what
        assert not np.array_equal(first, operation(1)), what


def test_torch_s_random_state_is_left_alone(model):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    model.sample(3)
    model.bound(images())
    model.encode(images(), sample=True)
    model.reconstruct(images(), sample=True)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_sample_i_does_not_depend_on_how_many_are_drawn(name):
    model = make(name)
    for draw in (False, True):
        few, many = model.sample(3, seed=4, draw=draw), model.sample(70, seed=4, draw=draw)
        assert (few == many[:3]).mean() > 0.99  # rounding may move a value to the next grey level


def test_whoever_looks_is_told_how_far_an_operation_of_several_batches_is(model, monkeypatch):
    told = []

    @contextmanager
    def bar(shown, figure):
        yield (lambda *words: told.append(words)) if shown else None

    monkeypatch.setattr("diled.model.progress_bar", bar)
    images = model.sample(BATCH + 3)
    codes = model.encode(images)
    assert not told
    with model.showing_progress():
        operations = {
            "sample": lambda: model.sample(BATCH + 3, steps=1),
            "encode": lambda: model.encode(images),
            "decode": lambda: model.decode(codes),
            "reconstruct": lambda: model.reconstruct(images),
            "bound": lambda: model.bound(images, repeats=1),
        }
        for name, work in operations.items():
            work()
            assert [(what, done, total) for what, done, total in told][-2:] == [
                (name, BATCH, BATCH + 3),
                (name, BATCH + 3, BATCH + 3),
            ]
        assert len(told) == 2 * len(operations)
        model.encode(images[:BATCH])
    model.encode(images)
    with model.showing_progress(False):
        model.encode(images)
    assert len(told) == 2 * len(operations)


def test_samples_beyond_one_batch_go_on_with_the_series():
    model = make("vae", VECTORS)
    many = model.sample(600)
    np.testing.assert_allclose(model.sample(515), many[:515], atol=1e-5)
    assert len(np.unique(many.round(5), axis=0)) == 600


def test_draws_of_codes_do_not_depend_on_how_many_there_are(model):
    x = images(8)
    np.testing.assert_allclose(model.encode(x[:3], sample=True), model.encode(x, sample=True)[:3], atol=1e-5)


def test_draws_of_codes_and_pixels_are_independent():
    """With the same (default) seed for both, the pixels must not be drawn with the noise of the codes."""
    density = Autoencoder(GaussianEncoder(mlp([5, 8, 10])), LikelihoodDecoder(mlp([5, 8, 5]), GaussianLikelihood()),
                          StandardNormal((5,)))  # fmt: skip
    model = Model(density, VECTORS, device="cpu")
    x = np.random.default_rng(0).uniform(-2, 4, (400, 5))
    codes = model.encode(x, sample=True)
    e_z = (codes - model.encode(x)) / np.exp(0.5 * density.encoder(2 * (torch.tensor(x).float() + 2) / 6 - 1)
                                             .log_var.detach().numpy())  # fmt: skip
    e_x = model.decode(codes, sample=True) - model.decode(codes)
    assert abs(np.corrcoef(e_z.ravel(), e_x.ravel())[0, 1]) < 0.1


def test_codes_of_a_prior_that_is_an_autoencoder_are_draws():
    """A hierarchy's samples carry the noise of every inner level, although the outermost gives its mean."""
    wide = LikelihoodDecoder(mlp([2, 4, 3]), GaussianLikelihood(std=2.0))
    inner = Autoencoder(GaussianEncoder(mlp([3, 4, 4])), wide, StandardNormal((2,)))
    with torch.no_grad():
        for p in wide.network.parameters():
            p.mul_(0.01)
        z = inner.sample(5000)
    assert z.std() == pytest.approx(2.0, rel=0.05)
    assert inner.sample(5000, mean=True).std() < 0.2
    identity = type("Identity", (torch.nn.Module,), {"forward": lambda self, z: Normal(z, torch.zeros_like(z))})()
    outer = Autoencoder(GaussianEncoder(mlp([3, 4, 6])), identity, inner)
    drawn = Model(outer, DataSpec(kind="vector", shape=(3,), low=-1, high=1), device="cpu").sample(5000)
    assert drawn.std() == pytest.approx(2.0, rel=0.05)


def test_samplers_and_steps(model):
    default = model.sample(4)
    assert not np.array_equal(default, model.sample(4, steps=2))
    for sampler in ("ancestral", "ddim", "heun", "dpm_solver"):
        assert model.sample(2, sampler=sampler, steps=5).shape == (2, 1, 8, 8)
    with pytest.raises(ConfigError, match="Did you mean 'ddim'"):
        model.sample(4, sampler="ddmi")
    with pytest.raises(ConfigError, match="steps have no meaning for a model without a diffusion"):
        make("vae").sample(4, steps=10)
    with pytest.raises(ConfigError, match="at least one sample"):
        model.sample(0)


def test_reconstruction_is_decoding_of_the_code(model):
    x = images()
    assert np.array_equal(model.reconstruct(x), model.decode(model.encode(x)))
    path = model.interpolate(x[0], x[1], 5)
    assert np.array_equal(path[[0, -1]], model.reconstruct(x[:2]))


def test_decode_takes_arrays_lists_and_tensors(model):
    codes = model.encode(images())
    expected = model.decode(codes)
    assert np.array_equal(model.decode(codes.tolist()), expected)
    assert np.array_equal(model.decode(torch.tensor(codes, requires_grad=True)), expected)
    halves = torch.tensor(codes).bfloat16()
    assert np.array_equal(model.decode(halves), model.decode(halves.float()))
    for wrong in (np.nan, np.inf):
        spoilt = np.concatenate([codes, np.full_like(codes[:2], wrong)])
        with pytest.raises(ConfigError, match=f"2 of {len(spoilt)} codes hold NaN or infinity"):
            model.decode(spoilt)
    assert np.array_equal(model.decode(codes.astype(np.float64)), expected)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (0, 3), (1, 2, 3)], ids=str)
def test_decode_refuses_other_shapes(model, shape):
    with pytest.raises(ConfigError, match=r"codes of shape \(n, 3\)"):
        model.decode(np.zeros(shape))


def test_interpolation_refuses_what_makes_no_path(model):
    x = images()
    with pytest.raises(ConfigError, match="as many ends as starts, got 2 and 3"):
        model.interpolate(x[:2], x[:3])
    with pytest.raises(ConfigError, match="steps = 1"):
        model.interpolate(x[0], x[1], 1)
    with pytest.raises(ConfigError, match=r"mode 'cubic' is unknown\. Known: auto, linear, spherical"):
        model.interpolate(x[0], x[1], mode="cubic")


def test_more_estimates_give_a_steadier_bound(model):
    x = images(1)
    one, many = (np.std([model.bound(x, repeats=r, seed=s) for s in range(12)]) for r in (1, 64))
    assert many < one
    with pytest.raises(ConfigError, match="repeats = 0"):
        model.bound(x, repeats=0)


# What an example may be -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_inputs_of_many_kinds_are_the_same_examples(tmp_path):
    model, x = make("vae", BYTES), images(3, 255)
    paths = []
    for i, image in enumerate(x):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image[0]).save(paths[-1])
    np.save(tmp_path / "x.npy", x)
    expected = model.encode(x)
    kinds = {
        "paths": [str(p) for p in paths],
        "Path objects": paths,
        "folder": tmp_path,
        "pictures": [Image.open(p) for p in paths],
        "arrays": list(x),
        "without the channel": x[:, 0],
        "channel last": np.moveaxis(x, 1, -1),
        "array file": tmp_path / "x.npy",
        "mixture": [paths[0], Image.open(paths[1]), x[2]],
        "tensor": torch.tensor(x),
        "floating point": x.astype(np.float64),
        "read-only": np.frombuffer(x.tobytes(), np.uint8).reshape(x.shape),
    }
    for kind, inputs in kinds.items():
        if kind == "folder":
            os.rename(tmp_path / "x.npy", tmp_path.parent / "x.npy")
        assert np.allclose(model.encode(inputs), expected, atol=1e-6), kind
        if kind == "folder":
            os.rename(tmp_path.parent / "x.npy", tmp_path / "x.npy")
    for one in (x[0], x[0, 0], Image.open(paths[0]), str(paths[0])):
        np.testing.assert_allclose(model.encode(one), expected[:1], atol=1e-6)


def test_inputs_that_do_not_fit_are_refused_or_converted(model):
    big = np.random.default_rng(0).integers(0, 17, (2, 1, 12, 12))
    with pytest.raises(DataError, match="convert=True"):
        model.encode(big)
    for operation in (model.encode, model.reconstruct, model.bound):
        assert len(operation(big, convert=True)) == 2
    with pytest.raises(DataError, match="from 0 to 16"):
        model.encode(images() + 20)
    with pytest.raises(DataError, match="list of examples is empty"):
        model.encode([])
    with pytest.raises(DataError, match=r"missing\.png"):
        model.encode("missing.png")


# Bounds that are none -------------------------------------------------------------------------------------------------


def test_a_deterministic_code_has_no_bound():
    model = Model(parts(BernoulliLikelihood(), DiracEncoder), BINARY, device="cpu")
    x = images(4, 1) * 255
    assert model.reconstruct(x).shape == x.shape
    for operation in (model.bound, model.score_samples):
        with pytest.raises(NoBound, match="deterministic encoder has no entropy"):
            operation(x)


def test_bernoulli_on_grey_values_has_no_bound():
    model = Model(parts(BernoulliLikelihood()), GREY, device="cpu")
    assert model.encode(images()).shape == (6, 3)
    with pytest.raises(ConfigError, match="Binarise the data"):
        make("vae", GREY, likelihood="bernoulli")
    with pytest.raises(NoBound, match="Bernoulli likelihood of grey values"):
        model.bound(images())
    assert np.isfinite(make("vae", BINARY).bound(images(4, 1) * 255)).all()


def test_a_learned_gaussian_on_grey_values_has_no_bound():
    model = Model(parts(GaussianLikelihood()), GREY, device="cpu")
    with pytest.raises(NoBound, match="learned variance"):
        model.bound(images())
    assert isinstance(NoBound("x"), TypeError)


def test_a_density_without_encoder_samples_and_has_a_bound():
    model = Model(StandardNormal((5,)), VECTORS, device="cpu")
    assert model.sample(4).shape == (4, 5)
    assert model.bound(np.zeros((2, 5))).shape == (2,)
    for operation in (model.encode, model.reconstruct, model.decode):
        with pytest.raises(ConfigError, match="StandardNormal has no encoder"):
            operation(np.zeros((2, 5)))


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="device 'gpu' is unknown"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="device 'cuda' is not available"):
            choose_device("cuda")


@pytest.mark.parametrize(("there", "auto"), [({"mps"}, "cpu"), ({"cuda", "mps"}, "cuda"), (set(), "cpu")])
def test_auto_is_the_same_device_for_training_as_for_all_else(there, auto, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    for device, want in (("auto", auto), *((name, name) for name in there)):
        assert choose_device(device).type == accelerator_of(TrainingConfig(device=device)) == want


# Saving and loading ---------------------------------------------------------------------------------------------------


def same_weights(a: Model, b: Model) -> bool:
    here, there = a.density.state_dict(), b.density.state_dict()
    return here.keys() == there.keys() and all(torch.equal(here[key], there[key]) for key in here)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_a_loaded_model_is_the_same_to_the_last_bit(name, tmp_path):
    model, x = make(name), images()
    loaded = load(model.save(tmp_path / "deep" / "model"), device="cpu")
    assert same_weights(model, loaded)
    assert (loaded.name, loaded.spec, loaded.config) == (model.name, model.spec, model.config)
    assert loaded.provenance == model.provenance
    assert not loaded.density.training
    assert np.array_equal(loaded.sample(5), model.sample(5))
    if name not in WITHOUT_CODES:
        assert np.array_equal(loaded.encode(x), model.encode(x))
        assert np.array_equal(loaded.reconstruct(x), model.reconstruct(x))
    if name not in WITHOUT_BOUND:
        assert np.array_equal(loaded.bound(x), model.bound(x))


def test_shared_schedules_and_odd_strides_are_saved(tmp_path):
    prior = {"width": 12, "blocks": 1, "schedule": "learned_log_snr"}
    model = make("diled_fixed", prior=prior)
    assert model.density.encoder.schedule is model.density.prior.schedule
    weight = model.density.encoder.network.net[0].weight
    weight.data = weight.data.t().contiguous().t()
    loaded = load(model.save(tmp_path / "model"), device="cpu")
    assert same_weights(model, loaded)
    assert loaded.density.encoder.schedule is loaded.density.prior.schedule


def test_the_folder_holds_three_files_and_no_pickle(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "provenance.json"]
    record = json.loads((folder / "config.json").read_text())
    assert (record["format"], record["model"], record["diled"]) == (io.FORMAT, "diled", diled.__version__)
    assert record["data"]["levels"] == 17
    assert json.loads((folder / "provenance.json").read_text())["steps"] == 3


def test_a_model_without_provenance_loads(folder):
    (folder / "provenance.json").unlink()
    assert load(folder, device="cpu").provenance == {}
    (folder / "provenance.json").write_text("{")
    assert load(folder, device="cpu").provenance == {}


def test_saving_again_replaces(folder, model):
    other = make("vae")
    other.save(folder)
    loaded = load(folder, device="cpu")
    assert loaded.name == "vae"
    assert same_weights(loaded, other)


def test_a_hand_composed_model_is_loaded_into_its_like(tmp_path):
    model = Model(parts(BernoulliLikelihood()), BINARY, device="cpu")
    model.save(tmp_path / "model")
    with pytest.raises(ModelError, match=r"hand-composed model: build it as before .* load\(path, model=m\)"):
        load(tmp_path / "model")
    fresh = parts(BernoulliLikelihood())
    loaded = load(tmp_path / "model", model=fresh, device="cpu")
    assert loaded.density is fresh
    assert same_weights(loaded, model)
    assert np.array_equal(loaded.sample(3), model.sample(3))
    with pytest.raises(ModelError, match="do not fit"):
        load(tmp_path / "model", model=parts(GaussianLikelihood()))


def test_a_zoo_model_that_is_loaded_by_hand_is_hand_composed_from_then_on(folder, tmp_path, model):
    """Without its configuration it could not be built again under its name."""
    mine = load(folder, model=make().density, device="cpu")
    assert (mine.name, mine.config) == (None, None)
    with pytest.raises(ModelError, match="hand-composed"):
        load(mine.save(tmp_path / "again"))


def test_a_finished_run_loads_and_an_unfinished_one_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    settings = {"training.steps": 3, "model.latent_dim": 2, "model.network.width": 16, "training.batch_size": 8}
    trained = diled.train("digits", model="vae", out=out, settings=settings, report=False, device="cpu")
    loaded = load(out, device="cpu")
    assert same_weights(loaded, trained)
    assert loaded.provenance["steps"] == 3
    assert np.array_equal(loaded.sample(3), trained.sample(3))
    (out / "config.json").unlink()
    (out / "checkpoints").mkdir(exist_ok=True)
    with pytest.raises(ModelError, match=r"has not finished. Go on with: diled train --resume"):
        load(out)


# What is no model -----------------------------------------------------------------------------------------------------


def test_a_missing_folder_names_the_nearest(folder):
    with pytest.raises(ModelError, match="Did you mean 'model'"):
        load(folder.parent / "modle")
    with pytest.raises(ModelError, match="is no model folder"):
        load(folder.parent / "a" / "b" / "c")
    with pytest.raises(ModelError, match="is no model folder"):
        load(folder / "model.safetensors")


class Explosive:
    """Unpickling this would leave a trace."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib", ".PT"])
def test_pickles_are_never_opened(suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(ModelError, match=r"looks like a pickle.*refused"):
        load(path)
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_in_place_of_the_weights_is_not_opened(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model.safetensors\.$"):
        load(folder)
    (folder / "model.bin").write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(ModelError, match=r"has no model.safetensors. model.bin is a pickle and is not opened"):
        load(folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(ModelError, match="truncated or damaged"):
        load(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_folder_may_be_called_like_a_pickle(model, tmp_path):
    assert load(model.save(tmp_path / "digits.bin"), device="cpu").name == "diled"


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights_are_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read .* truncated or damaged"):
        load(folder)


def test_weights_of_another_shape_are_refused(folder, tmp_path):
    shutil.copy(make(latent_dim=4).save(tmp_path / "other") / "model.safetensors", folder)
    with pytest.raises(ModelError, match="do not fit its configuration: size mismatch for"):
        load(folder)
    shutil.copy(make("vae").save(tmp_path / "third") / "model.safetensors", folder)
    with pytest.raises(ModelError, match="do not fit its configuration: Missing key"):
        load(folder)


def rewrite(folder: Path, change) -> None:
    path = folder / "config.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(format=99), r"has format 99, and diled .* reads format 1\. Use the diled that made it"),
        (lambda r: (r.update(format=99), r.pop("data")), "has format 99"),
        (lambda r: r.pop("format"), "damaged, or no diled model"),
        (lambda r: r.pop("data"), "'data' is missing or wrong"),
        (lambda r: r.update(data=[1]), "'data' is missing or wrong"),
        (lambda r: r.update(model=["vae"]), "'model' is missing or wrong"),
        (lambda r: r.update(config=3), "'config' is missing or wrong"),
        (lambda r: r.update(model="dilde"), "the model 'dilde', which is unknown here. Did you mean 'diled'"),
        (lambda r: r["config"].update(latent_dimm=3), "another version of diled: Unknown key 'model.latent_dimm'"),
        (lambda r: r["config"].update(latent_dim=-3), "another version of diled: 'model.latent_dim' = -3"),
        (lambda r: r["data"].update(colour=3), "another version of diled: Unknown key 'data.colour'"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_configuration_of_another_version_is_refused(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(ModelError, match=message):
        load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"model_type": "bert"}'])
def test_json_that_is_no_configuration_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match="damaged, or no diled model"):
        load(folder)


# A full disk ----------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("fails", ["weights", "config.json", "provenance.json"])
def test_a_full_disk_keeps_what_was_there(folder, fails, monkeypatch):
    before = contents(folder)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    if fails == "weights":

        def partly(weights, path, **options):
            Path(path).write_bytes(b"half")
            full()

        monkeypatch.setattr(io, "save_file", partly)
    else:
        write = Path.write_text

        def some(self, text, **options):
            if self.name.startswith(fails):
                write(self, text[:5])
                full()
            return write(self, text, **options)

        monkeypatch.setattr(Path, "write_text", some)
    with pytest.raises(ModelError, match=r"No space left on device\. What was there before is unchanged"):
        make("vae").save(folder)
    monkeypatch.undo()
    assert contents(folder) == before
    assert load(folder, device="cpu").name == "diled"


def test_a_place_that_cannot_be_written_is_named(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ModelError, match=r"Could not save the model to .*file"):
        model.save(tmp_path / "file")
    with pytest.raises(ModelError, match=r"Could not save the model to .*inside"):
        model.save(tmp_path / "file" / "inside")
    assert (tmp_path / "file").read_text() == "mine"


# The Hugging Face Hub -------------------------------------------------------------------------------------------------


class Hub(types.ModuleType):
    """A stand-in for huggingface_hub that keeps repositories in a folder."""

    def __init__(self, root: Path) -> None:
        super().__init__("huggingface_hub")
        self.root, self.calls, self.fails = root, [], None
        hub = self

        class HfApi:
            def __init__(self, token=None):
                hub.calls.append(("token", token))

            def create_repo(self, name, *, private, exist_ok):
                if hub.fails is not None:
                    raise hub.fails
                hub.calls.append(("create", name, private, exist_ok))

            def upload_folder(self, *, repo_id, folder_path, commit_message):
                shutil.copytree(folder_path, hub.root / repo_id)
                return f"https://hub/{repo_id}/commit/1"

        self.HfApi = HfApi

    def snapshot_download(self, name, **options):
        if self.fails is not None:
            raise self.fails
        self.calls.append(("download", name, options))
        return str(self.root / name)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", stand_in)
    monkeypatch.chdir(tmp_path)
    return stand_in


def test_save_pretrained_and_from_pretrained(model, tmp_path):
    place = model.save_pretrained(tmp_path / "digits")
    loaded = Model.from_pretrained(place, device="cpu")
    assert same_weights(model, loaded)
    assert same_weights(model, diled.Model.from_pretrained(str(place), device="cpu"))
    with pytest.raises(ConfigError, match="'revision' has no effect on a folder"):
        Model.from_pretrained(place, revision="main")


def test_a_model_goes_to_the_hub_and_back(model, hub):
    assert model.push_to_hub("someone/digits", private=True, token="secret") == "https://hub/someone/digits/commit/1"
    assert hub.calls == [("token", "secret"), ("create", "someone/digits", True, True)]
    files = sorted(p.name for p in (hub.root / "someone/digits").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors", "provenance.json"]
    card = (hub.root / "someone/digits/README.md").read_text()
    assert card.startswith("---\nlibrary_name: diled\n")
    assert 'diled.Model.from_pretrained("someone/digits")' in card
    assert "DiLED (EDDPM), default of images of shape (1, 8, 8)" in card
    assert "secret" not in card
    loaded = Model.from_pretrained("someone/digits", device="cpu", revision="main")
    assert hub.calls[-1] == ("download", "someone/digits", {"revision": "main"})
    assert same_weights(model, loaded)


def test_a_hand_composed_model_goes_to_the_hub_and_back(hub):
    model = Model(parts(BernoulliLikelihood()), BINARY, device="cpu")
    model.push_to_hub("someone/parts")
    card = (hub.root / "someone/parts/README.md").read_text()
    assert 'from_pretrained("someone/parts", model=m)' in card
    loaded = Model.from_pretrained("someone/parts", device="cpu", model=parts(BernoulliLikelihood()))
    assert same_weights(model, loaded)


def test_a_local_folder_goes_before_the_hub(model, hub):
    model.save("someone/digits")
    assert same_weights(model, Model.from_pretrained("someone/digits", device="cpu"))
    assert hub.calls == []


@pytest.mark.parametrize("source", ["digits", "./some/digits", "a/b/c", Path("some/digits")], ids=str)
def test_what_can_only_be_a_folder_is_not_looked_for_on_the_hub(hub, source):
    with pytest.raises(ModelError, match="is no model folder"):
        Model.from_pretrained(source)
    assert hub.calls == []


def test_the_hub_s_errors_are_told_in_one_sentence(model, hub):
    hub.fails = OSError("404 Not Found")
    with pytest.raises(ModelError, match=r"could not be fetched from the Hub: 404 Not Found"):
        Model.from_pretrained("someone/digits")
    hub.fails = OSError("401 Unauthorized")
    with pytest.raises(ModelError, match=r"someone/digits could not be uploaded to the Hub: 401 Unauthorized"):
        model.push_to_hub("someone/digits")


def test_a_hub_repository_that_is_no_model_is_refused(hub):
    (hub.root / "someone/bert").mkdir(parents=True)
    (hub.root / "someone/bert/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="no diled model"):
        Model.from_pretrained("someone/bert")


def test_without_huggingface_hub_the_extra_is_named(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"someone/digits is no folder here, .*pip install 'diled\[hub\]'"):
        Model.from_pretrained("someone/digits")
    with pytest.raises(ModelError, match=r"pip install 'diled\[hub\]'"):
        model.push_to_hub("someone/digits")
