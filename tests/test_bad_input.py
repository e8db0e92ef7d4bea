"""Mistakes at the command line: one short sentence, exit code 2, no traceback, nothing left behind, nothing lost."""

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny import diled, train, train_any

import diled as package
from diled import keys
from diled.data import open_data
from diled.errors import ConfigError, DiledError
from diled.evaluation.measure import measure
from diled.family import FAMILY
from diled.runs import claim_folder, nested, new_folder, read_run, resolve
from diled.session import Session


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad") / "run"
    assert train(folder, steps=10) == 0
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad") / "vae"
    assert train(folder, model="vae", steps=10) == 0
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Runs of models without codes or without a likelihood: name in capitals -> folder."""
    folder = tmp_path_factory.mktemp("others")
    for name in ("ndm", "consistency", "ddpm"):
        assert train_any(folder / name, name, steps=4) == 0
    return {name.upper(): folder / name for name in ("ndm", "consistency", "ddpm")}


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    path = tmp_path_factory.mktemp("some") / "some.npy"
    np.save(path, open_data("digits").test.values[:3])
    return path


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run a command that must fail; returns the one sentence that it says. The folder it works in stays as it is."""
    monkeypatch.chdir(tmp_path)

    def run(*words, code=2):
        before = contents(tmp_path)
        capsys.readouterr()
        assert diled(*words) == code
        said = capsys.readouterr().err
        assert said.startswith("diled: "), said
        assert said.count("\n") == 1, said
        assert len(said) < 500, said
        assert "Traceback" not in said
        for leak in ("pydantic", "[type=", "validation error", "Parser key", "typing.", "<class", "Errno"):
            assert leak not in said, said
        assert contents(tmp_path) == before
        return said

    return run


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def pictures(folder, n=12, size=(4, 4)):
    folder.mkdir()
    for i in range(n):
        Image.new("L", size, i).save(folder / f"{i:02d}.png")
    return folder


# Words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian digits", "Unknown verb 'trian'. Did you mean 'train'?"),
        ("train digits --model vea", "Unknown model 'vea'. Did you mean 'vae'?"),
        ("train digits --model", "--model: expected one argument"),
        ("train digits --model.latent_dm 3", "Unknown option '--model.latent_dm'. Did you mean '--model.latent_dim'?"),
        ("train digits --training.stps 3", "Did you mean '--training.steps'?"),
        ("train digits --trainin.steps 3", "Did you mean '--training.steps'?"),
        ("train digits --model vae --model.prior.width 3", "'model.prior' belongs to diled, diled_fixed"),
        ("train digits --completely-unknown", "diled train --help lists the options"),
        ("train digits mnist", "'mnist' is one argument too many"),
        ("train digits --out", "--out: expected one argument"),
        ("train", "No data: give a name (digits, mnist, ...) or a path"),
        ("train digts", "Did you mean 'digits'?"),
        ("train digits --training.steps 0", "'training.steps' = 0 should be greater than or equal to 1."),
        ("train digits --model vae --model ldm", "--model is given twice: give it once."),
        ("train digits --minutes 1 --training.steps 5", "--minutes and --training.steps both set the number of steps"),
        ("train digits --training.epochs inf", "'training.epochs' = inf should be a finite number."),
        (f"train digits --seed {2**64}", f"'training.seed' = {2**64} should be less than {2**63}."),
        ("train digits --training.steps many", "'training.steps' = many should be a valid integer."),
        ("train digits --training.steps 1.5", "'training.steps' = 1.5 should be a valid integer."),
        ("train digits --training.batch_size -3", "should be greater than or equal to 1"),
        ("train digits --training.ema 1", "'training.ema' = 1 should be less than 1."),
        ("train digits --training.clip 0", "'training.clip' = 0 should be greater than 0."),
        ("train digits --training.betas 0.9", "'training.betas' = 0.9 should be a valid tuple."),
        ("train digits --training.betas 0.9,2", "'training.betas' = 2 should be less than 1."),
        ("train digits --training.precision fp8", "'training.precision' = fp8 should be 'fp32' or 'bf16'."),
        ("train digits --training.tensorboard perhaps", "'training.tensorboard' = perhaps should be a valid boolean"),
        ("train digits --model.prior.schedule cosin", "Did you mean 'cosine'?"),
        ("train digits --model.prior.gamma_min 9", "model.prior: gamma_min (9.0) must lie below gamma_max (6.0)."),
        ("train digits --model.network.kind conv --model.network.width 3", "'width' has no effect"),
        ("train digits --model.likelihood bernoulli --model.std 1", "'std' has no effect"),
        ("train digits --preprocess.size 0", "a height and a width of at least 1"),
        ("train digits --preprocess.test_fraction 2", "'preprocess.test_fraction' = 2 should be less than 1."),
        ("train digits --seed -1", "'training.seed' = -1 should be greater than or equal to 0."),
        ("train digits --minutes 0", "minutes = 0.0: give a positive budget"),
        ("train digits --minutes nan", "minutes = nan: give a positive budget, of 10,000,000 at most"),
        ("train digits --minutes inf", "minutes = inf: give a positive budget, of 10,000,000 at most"),
        ("train digits --minutes soon", "--minutes: invalid float value: 'soon'"),
        ("train digits --report perhaps", "'perhaps' is neither true nor false"),
        ("train digits --device tpu", "--device: invalid choice: 'tpu'"),
        ("sample", "the following arguments are required: run"),
        ("sample none", "none is no model folder"),
        ("sample none --n few", "--n: invalid int value: 'few'"),
        ("interpolate none", "the following arguments are required: a, b"),
        ("edit none x.png", "the following arguments are required: --attribute"),
        ("compare", "the following arguments are required: sources"),
        ("compare digits --models vae vea", "Unknown model 'vea'. Did you mean 'vae'?"),
        ("compare digits --training.devices 2", "compared on one device each"),
        ("data mnits", "Did you mean 'mnist'?"),
        ("data nowhere/at/all", "There is no file or folder"),
        ("demo --steps 0", "'training.steps' = 0 should be"),
        ("evaluate none --samples 0", "none is no model folder"),
        ("train --resume none", "none is no run"),
    ],
)
def test_mistakes_in_words(words, expected, refused):
    assert expected in refused(*words.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sample RUN --n 0", "n = 0: ask for at least one sample."),
        ("sample RUN --n -4", "n = -4"),
        ("sample RUN --steps 0", "steps = 0: a sampler takes at least one."),
        ("sample RUN --sampler dimm", "Unknown sampler 'dimm'. Did you mean 'ddim'?"),
        ("sample VAE --steps 5", "steps have no meaning for a model without a diffusion"),
        ("sample VAE --sampler heun", "sampler have no meaning for a model without a diffusion"),
        ("sample RUN --device cuda", "device 'cuda' is not available here"),
        ("sample RUN --out x.gifff", "'x.gifff' has no ending that images are written to. Known: .npy"),
        ("sample RUN --out RUN", "exists and is not empty"),
        ("sample RUN --out .", "'.' is a folder that exists: give the name of a new one, or of a file."),
        ("sample RUN --out RUN/config.json/x.png", "cannot be written, because of"),
        (
            "encode RUN SOME --out x.png",
            "'x.png' has no ending that codes are written to. Known: .npy, .parquet, .csv.",
        ),
        ("evaluate RUN --out x.txt", "has no ending that figures are written to. Known: .json."),
        ("evaluate RUN --samples 0", "samples = 0: at least 1 is needed."),
        ("evaluate RUN --repeats 0", "repeats = 0: at least 1 is needed."),
        ("evaluate RUN --by colour", "There is no label column 'colour'. Known: label."),
        ("evaluate RUN --data nowhere", "There is no file or folder"),
        ("reconstruct RUN nowhere.png", "nowhere.png"),
        ("interpolate RUN SOME SOME --steps 1", "steps = 1: a path has at least its two ends."),
        ("search RUN SOME --k 0", "k = 0"),
        ("search RUN SOME --metric manhattan", "invalid choice: 'manhattan'"),
        ("edit RUN SOME --attribute colour=red", "There is no label column 'colour'. Known: label."),
        ("edit RUN SOME --attribute label=11", "'label=11' names no class of 'label'."),
        ("edit RUN SOME --attribute label", "Write label=VALUE with one of: 0, 1"),
        ("edit RUN SOME --attribute label=1 --method magic", "invalid choice: 'magic'"),
        ("compare RUN nowhere", "nowhere is no model folder"),
        ("compare RUN RUN --minutes 1", "'minutes' has no meaning for trained runs."),
        ("compare RUN RUN --models edm nosuch", "'models' has no meaning for trained runs."),
        ("compare RUN RUN --training.steps 9", "'training.steps' has no meaning for trained runs."),
        (
            "compare digits --data nowhere",
            "'data' has no meaning in training, which is on the data set that is compared on.",
        ),
        ("audit RUN --seed -1", "seed = -1: a seed is 0 or more."),
        ("evaluate RUN --seed -1", "seed = -1: a seed is 0 or more."),
        ("edit RUN SOME --attribute label=1 --strength nan", "strength = nan: give a finite number."),
        ("train --resume RUN", "is finished"),
        ("train digits --out RUN", "exists and is not empty; nothing is overwritten"),
        ("demo --out RUN", "holds something that is no earlier demo"),
    ],
)
def test_mistakes_with_a_model(words, expected, refused, run, vae, some, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = contents(run)
    for name, place in (("RUN", run), ("VAE", vae), ("SOME", some)):
        words = words.replace(name, str(place))
    said = refused(*words.split())
    assert expected in said, said
    assert contents(run) == before


# What does not go together


BELONGS = [
    (
        "vae",
        "beta",
        3,
        "'model.beta' belongs to beta_vae; vae has no such key. With another prior the rate is weighed by",
    ),
    ("diled", "free_bits", 0.3, "Free bits need the KL of each code dimension in closed form"),
    ("lsgm", "free_bits", 0.3, "which only a standard normal prior has: take beta_vae"),
    ("vae", "rate_weight", 0.3, "The rate of a VAE is weighed by the beta of beta_vae"),
    ("ddpm", "likelihood", "logistic", "A diffusion over data reads x back in the data's own measure"),
    ("ddpm", "latent_dim", 3, "Its code is as large as the data, or there is none."),
    ("edm", "network.width", 20, "'model.network' belongs to diled, diled_fixed"),
    ("ddpm", "prior.width", 20, "one over data is set under model.diffusion"),
    ("diled", "diffusion.width", 20, "A diffusion over codes is set under model.prior"),
    ("edm", "teacher", "true", "'model.teacher' belongs to consistency; edm has no such key."),
    ("diled_paper", "rate_warmup", 0.3, "Only a rate that an encoder is trained on is warmed up."),
    ("ddpm", "diffusion.times_per_code", 3, "There it is called times_per_example."),
    ("diled", "prior.times_per_example", 3, "There it is called times_per_code."),
    ("diled", "prior.attention", "true", "a diffusion over codes has no such key. Its network is an MLP."),
    ("diffae", "decoder.mixed", "true", "LSGM's mixed score is for codes"),
    ("diled", "corruption", 0.1, "does not see while it trains is set with training.corruption."),
]


@pytest.mark.parametrize(("model", "key", "value", "expected"), BELONGS)
def test_keys_of_other_models_are_explained(model, key, value, expected, refused, tmp_path):
    """In the same words on the command line, in a file and in Python."""
    assert expected in refused("train", "digits", "--model", model, f"--model.{key}", value)
    with pytest.raises(ConfigError) as raised:
        package.train("digits", model=model, settings={f"model.{key}": value})
    assert expected in str(raised.value)
    values = {"name": model, **nested({key: value})}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"data": "digits", "model": values}))
    assert expected in refused("train", "--config", "settings.yaml")


def test_every_reason_belongs_to_a_key():
    """A key that is renamed takes its reason along."""
    assert set(keys.WHY) <= {key for kind in FAMILY.values() for key in kind.model_fields}
    assert set(keys.WHY_PARTS) <= {key for part in keys.PARTS for key in part.model_fields}


TOGETHER = [
    ("diled", {"likelihood": "bernoulli"}, "likelihood 'bernoulli' is for two grey values"),
    ("diled", {"prior.schedule": "learned_log_snr", "prior.weighting": "simple"}, "model.prior: a learned schedule"),
    ("lsgm", {"prior.schedule": "learned_log_snr"}, "a learned schedule is trained by the bound"),
    ("ddpm", {"diffusion.schedule": "learned_log_snr"}, "a learned schedule is trained by the bound"),
    ("ddpm", {"diffusion.gamma_max": 4}, "'gamma_max' has no effect, since schedule 'ddpm' has ends of its own"),
    ("ddpm", {"diffusion.data_std": 0.3}, "'data_std' has no effect, since neither"),
    (
        "ddpm",
        {"diffusion.kind": "mlp", "diffusion.attention": "true"},
        "'attention' has no effect, since kind is 'mlp'",
    ),
    ("ddpm", {"diffusion.kind": "unet", "diffusion.width": 64}, "'width' has no effect, since kind is 'unet'"),
    ("ndm", {"diffusion.weighting": "min_snr"}, "the map is trained by the bound: use weighting 'vlb'"),
    ("ndm", {"diffusion.timesteps": None}, "a learned map needs a discrete chain"),
    ("ndm", {"diffusion.schedule": "learned_log_snr"}, "needs a schedule whose ends are fixed"),
    ("consistency", {"diffusion.timesteps": 20}, "the noise levels are `coarsest` to `finest` in number"),
    (
        "consistency",
        {"diffusion.schedule": "learned_log_snr", "diffusion.weighting": "vlb"},
        "a student needs a schedule",
    ),
    ("consistency", {"finest": 3, "coarsest": 4}, "finest (3) must not lie below coarsest (4)"),
    ("consistency", {"teacher": "false", "first_stage": 0.3}, "'first_stage' has no effect, since there is no teacher"),
    (
        "consistency",
        {"teacher": "false", "diffusion.weighting": "vlb"},
        "diffusion.weighting has no effect, since there is no",
    ),
    ("beta_vae", {"cycles": 3, "rate_warmup": 0}, "'cycles' has no effect, since rate_warmup is 0"),
]


@pytest.mark.parametrize(("model", "values", "expected"), TOGETHER)
def test_values_that_do_not_go_together(model, values, expected, refused):
    """Refused when the configuration is read, on the command line and in Python."""
    words = [word for key, value in values.items() for word in (f"--model.{key}", value)]
    assert expected in refused("train", "digits", "--model", model, *words)
    with pytest.raises(DiledError) as raised:
        package.train("digits", model=model, settings={f"model.{key}": value for key, value in values.items()})
    assert expected in str(raised.value)


def test_networks_that_do_not_fit_the_data(refused, tmp_path):
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(50, 4)))
    words = ["train", "vectors.npy", "--model", "ddpm"]
    assert "model.diffusion.kind 'unet' needs images or signals" in refused(*words, "--model.diffusion.kind", "unet")
    assert "model.diffusion: 'attention' has no effect" in refused(*words, "--model.diffusion.attention")
    words[-1] = "diffae"
    assert "model.decoder.kind 'unet' needs images or signals" in refused(*words, "--model.decoder.kind", "unet")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sample NDM --sampler ddim", "sampler 'ddim' follows an ODE, and a neural diffusion model has none"),
        ("evaluate NDM --sampler heun", "sampler 'heun' follows an ODE, and a neural diffusion model has none"),
        ("sample CONSISTENCY --sampler ddim", "A consistency model is its own sampler"),
        ("evaluate CONSISTENCY --sampler ddim", "A consistency model is its own sampler"),
        ("evaluate VAE --steps 3", "steps have no meaning for a model without a diffusion"),
        ("evaluate VAE --steps 3 --by label", "steps have no meaning for a model without a diffusion"),
        ("evaluate NDM --by label", "The model ndm has no encoder, so examples have no codes"),
        ("evaluate DDPM --steps 0", "steps = 0: a sampler takes at least one."),
        ("encode NDM SOME", "The model ndm has no encoder"),
        ("encode DDPM SOME --sample", "there is nothing to draw"),
        ("reconstruct CONSISTENCY SOME", "The model consistency has no encoder"),
        ("reconstruct RUN SOME --invert", "the decoder is no diffusion"),
        ("interpolate CONSISTENCY SOME SOME", "The model consistency has no encoder"),
        ("edit NDM SOME --attribute label=1", "The model ndm has no encoder"),
        ("search NDM SOME", "The model ndm has no encoder"),
        ("train digits --model ndm --init-from DDPM", "Nothing of"),
        (
            "train digits --model consistency --freeze prior",
            "'prior' is to be frozen, but no --init-from gives it weights",
        ),
        ("train digits --model ddpm --freeze encoder", "There is no part 'encoder' to freeze. Parts: prior."),
        ("train digits --model ae --freeze prior", "There is no part 'prior' to freeze. Parts: encoder, decoder."),
        ("compare digits --models vae beta_vae vae", "'vae' is named twice"),
        ("compare digits --model.beta 3", "compare trains models with their own values"),
    ],
)
def test_what_a_model_cannot_do(words, expected, refused, run, vae, others, some):
    places = {"RUN": run, "VAE": vae, "SOME": some, **others}
    before = {name: contents(place) for name, place in places.items() if place.is_dir()}
    assert expected in refused(*(str(places.get(word, word)) for word in words.split()))
    assert before == {name: contents(place) for name, place in places.items() if place.is_dir()}


def test_a_sampler_that_does_not_fit_is_refused_before_anything_is_measured(others, monkeypatch):
    model = package.load(others["NDM"], device="cpu")
    data = open_data("digits")
    monkeypatch.setattr("diled.evaluation.measure.bounds", lambda *args, **options: pytest.fail("too late"))
    with pytest.raises(ConfigError, match="follows an ODE"):
        measure(model.density, data, sampler="ddim")


def test_models_of_a_comparison_are_all_checked_before_the_first_is_trained(refused, tmp_path, monkeypatch):
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(50, 4)))
    monkeypatch.setattr("diled.session.Session.run", lambda self: pytest.fail("too late"))
    (tmp_path / "settings.yaml").write_text("model: {likelihood: logistic}")
    words = ["compare", "vectors.npy", "--config", "settings.yaml", "--models"]
    assert "ddpm has no such key" in refused(*words, "vae", "ddpm")
    (tmp_path / "settings.yaml").write_text("model: {likelihood: gaussian}")
    assert "minutes = 0" in refused(*words, "vae", "ae", "--minutes", 0)


def test_estimators_refuse_models_without_codes():
    rows = np.random.default_rng(0).normal(size=(20, 3))
    for name in ("ndm", "consistency"):
        with pytest.raises(ConfigError, match=f"The model '{name}' has no codes, so it is no transformer"):
            package.DiledTransformer(name, settings={"model.diffusion.width": 8}).fit(rows)


# Configuration files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: digits\ntrainin: {steps: 3}", "Unknown key 'trainin'. Did you mean 'training'?"),
        ("data: digits\ntraining: {stps: 3}", "Unknown key 'training.stps'. Did you mean 'steps'?"),
        ("data: digits\nmodel: {prior: {widht: 3}}", "Unknown key 'model.prior.widht'. Did you mean 'width'?"),
        ("data: digits\nmodel: {prior: 3}", "'model.prior' = 3 should be"),
        ("data: digits\nmodel: vea", "Unknown model 'vea'. Did you mean 'vae'?"),
        (
            "data: digits\nmodel: {name: vae, prior: {width: 3}}",
            "vae has no such key. A diffusion over codes is found in",
        ),
        ("data: digits\nmodel: [vae]", "'model' holds keys and values, not ['vae']."),
        ("data: digits\ntraining: 3", "'training' holds keys and values, not 3."),
        ("data: digits\ntraining: {steps: -1}", "'training.steps' = -1 should be greater than or equal to 1."),
        ("data: digits\ntraining: {precision: half}", "should be 'fp32' or 'bf16'"),
        ("data: digits\nfreeze: encodr", "There is no part 'encodr' to freeze. Parts: encoder, decoder, prior."),
        ("data: 3.5", "'data' = 3.5 should be a valid string."),
        ("training: {steps: 3}", "No data"),
        ("- a\n- b", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("data: [digits", "is no valid YAML"),
        ("data: !!python/object/apply:os.getcwd []", "is no valid YAML"),
    ],
)
def test_mistakes_in_a_file(text, expected, refused, tmp_path):
    (tmp_path / "settings.yaml").write_text(text)
    assert expected in refused("train", "--config", "settings.yaml")


def test_files_that_are_no_configuration(refused, tmp_path):
    (tmp_path / "settings.yaml").write_text("data: digits")
    assert "Did you mean 'settings.yaml'?" in refused("train", "--config", "setings.yaml")
    assert "cannot be read" in refused("train", "--config", "none/at/all.yaml")
    assert "cannot be read" in refused("train", "--config", tmp_path)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    assert "binary.yaml is no text" in refused("train", "--config", "binary.yaml")
    (tmp_path / "zeros.yaml").write_bytes(b"data: \0\0")
    assert "is no valid YAML" in refused("train", "--config", "zeros.yaml")


# Data


def test_data_that_cannot_be_trained_on(refused, tmp_path):
    assert "There is no file or folder" in refused("train", "nowhere/at/all")
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused("train", "empty")
    pictures(tmp_path / "one", 1)
    assert "only one image" in refused("train", "one")
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    assert "no column of protein sequences" in refused("train", "text.csv")
    (tmp_path / "model.pt").write_bytes(b"\x80\x04K\x01.")
    assert "pickle" in refused("train", "model.pt")
    np.save(tmp_path / "nan.npy", np.full((20, 3), np.nan))
    assert "NaN" in refused("train", "nan.npy")


def test_a_damaged_picture_stops_or_is_skipped(refused, tmp_path, capsys):
    pictures(tmp_path / "data", 20)
    (tmp_path / "data" / "07.png").write_bytes((tmp_path / "data" / "06.png").read_bytes()[:40])
    said = refused("train", "data", "--training.steps", 2)
    assert "07.png cannot be read as an image" in said
    assert "--preprocess.on_error skip" in said
    assert train(tmp_path / "run", "--preprocess.on_error", "skip", data=tmp_path / "data", model="vae", steps=2) == 0
    assert "1 of 20 files could not be read and were left out: 07.png" in capsys.readouterr().out


def test_an_image_bomb(refused, tmp_path):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    pictures(tmp_path / "data")
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "data" / "bomb.png").write_bytes(bomb)
    assert "image bomb" in refused("train", "data")


def test_sizes_and_labels_that_do_not_fit(refused, tmp_path):
    pictures(tmp_path / "data", 20)
    said = refused("train", "data", "--model.network.kind", "conv")
    assert "at least 8 pixels a side" in said
    assert "use 'mlp'" in said
    assert "there is no label column 'colour'" in refused("train", "data", "--preprocess.label_column", "colour")
    for i in range(5):
        Image.new("L", (7, 9), i).save(tmp_path / "data" / f"odd{i}.png")
    said = refused("train", "data")
    assert "20 of 4x4" in said
    assert "--preprocess.size" in said
    np.save(tmp_path / "real.npy", np.random.default_rng(0).normal(size=(50, 4)))
    assert "'logistic' is for data with a known number of grey values" in refused(
        "train", "real.npy", "--model.likelihood", "logistic"
    )


@pytest.mark.parametrize(
    "words",
    [
        "evaluate RUN --data DATA",
        "search RUN SOME --data DATA",
        "edit RUN SOME --attribute label=1 --data DATA",
        "compare RUN RUN --data DATA",
        "synthesize RUN --n 3 --out made --data DATA",
    ],
)
@pytest.mark.parametrize(("mode", "size", "found"), [("L", (5, 4), "differ in size"), ("RGB", (4, 4), "mixes kinds")])
def test_data_of_a_model_need_what_they_cannot_be_told_to_become(
    words, mode, size, found, refused, run, some, tmp_path
):
    """These verbs read data as the model's own were read; those that have --preprocess options name them."""
    pictures(tmp_path / "data")
    Image.new(mode, size).save(tmp_path / "data" / "other.png")
    said = refused(*({"RUN": run, "SOME": some, "DATA": "data"}.get(word, word) for word in words.split()))
    assert found in said
    assert "--preprocess" not in said
    assert said.endswith("The model reads examples of shape (1, 8, 8): bring them to one kind and size first.\n")
    assert "--preprocess." in refused("audit", run, "--out", "audited", "--data", "data")


def test_a_batch_may_be_larger_than_the_data(tmp_path):
    pictures(tmp_path / "data", 20)
    options = ["--training.batch_size", 500]
    assert train(tmp_path / "run", *options, data=tmp_path / "data", model="vae", steps=3) == 0


def test_examples_of_another_shape_or_type(refused, run, some, tmp_path):
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(50, 4)))
    np.save(tmp_path / "large.npy", np.zeros((3, 1, 9, 9), np.uint8))
    np.save(tmp_path / "high.npy", np.full((3, 1, 8, 8), 200, np.uint8))
    Image.new("RGB", (30, 20)).save(tmp_path / "rgb.png")
    for name in ("vectors.npy", "large.npy", "rgb.png", "high.npy"):
        for verb in ("reconstruct", "encode"):
            assert name in refused(verb, run, name) or "(1, 8, 8)" in refused(verb, run, name)
        assert refused("interpolate", run, name, some)
        assert name in refused("score", run, name) or "(1, 8, 8)" in refused("score", run, name)
        assert refused("search", run, name)
    assert "trained on other data" in refused("evaluate", run, "--data", "vectors.npy")
    pictures(tmp_path / "others", 30)
    assert "trained on other data" in refused("evaluate", run, "--data", "others")
    assert refused("interpolate", run, some, some.parent / "none.npy")


def test_runs_on_different_data_are_not_compared(refused, run, tmp_path):
    pictures(tmp_path / "data", 30)
    assert train(tmp_path / "other", data=tmp_path / "data", model="vae", steps=2) == 0
    assert "trained on other data: shape is" in refused("compare", run, "other")
    assert "trained on other data" in refused("compare", "other", run)


# Models


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def change(folder, **values):
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(record | values))


def test_models_that_cannot_be_loaded(refused, copy, tmp_path):
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "truncated or damaged" in refused("sample", "copy")
    (copy / "model.safetensors").unlink()
    assert "has no model.safetensors" in refused("sample", "copy")
    (copy / "model.pt").write_bytes(b"\x80\x04K\x01.")
    assert "model.pt is a pickle and is not opened" in refused("sample", "copy")
    assert "is a pickle" in refused("sample", "copy/model.pt") or "looks like a pickle" in refused(
        "sample", "copy/model.pt"
    )
    (copy / "model.safetensors").write_bytes(weights)
    change(copy, format=99)
    assert "has format 99" in refused("sample", "copy")
    change(copy, format=1, model="gan")
    assert "'gan', which is unknown here" in refused("sample", "copy")
    change(copy, model="vae")
    assert "another version" in refused("sample", "copy")
    (copy / "config.json").write_text("{")
    assert "damaged" in refused("sample", "copy")
    assert "Did you mean 'copies'" in _with_sibling(refused, copy, tmp_path)


def _with_sibling(refused, copy, tmp_path):
    copy.rename(tmp_path / "copies")
    return refused("sample", "copie")


def test_an_unfinished_run_says_how_to_go_on(refused, copy):
    (copy / "config.json").unlink()
    (copy / "checkpoints").mkdir()
    for verb in (["sample", "copy"], ["evaluate", "copy"], ["compare", "copy"]):
        assert "diled train --resume copy" in refused(*verb)


# Places


def test_places_that_are_taken_or_cannot_be_written(refused, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for place in ("full", "file"):
        said = refused("train", "digits", "--out", place)
        assert f"{place} exists and is not empty; nothing is overwritten" in said
    assert "Could not write to" in refused("train", "digits", "--training.steps", 2, "--out", "file/run")
    assert "exists and is not empty" in refused("compare", "digits", "--out", "full")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(refused, tmp_path, run):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Could not write to" in refused("train", "digits", "--out", "locked/run")
    assert "cannot be written" in refused("sample", run, "--out", "locked/x.png")


@pytest.mark.parametrize("name", ["x.png", "x.npy", "x", "codes.npy", "codes.parquet"])
def test_a_full_disk_leaves_nothing_half_written(name, refused, run, some, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    (tmp_path / "codes.npy").write_bytes(b"of before")
    monkeypatch.setattr("diled.output._save_array", full)
    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    monkeypatch.setattr(Image.Image, "save", full)
    words = ["encode", run, some] if "codes" in name else ["sample", run]
    assert "No space left on device" in refused(*words, "--out", name)


def test_default_folders_never_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "train",
        "digits",
        "--model",
        "vae",
        "--training.steps",
        2,
        "--model.network.width",
        8,
        "--report",
        "false",
    ]
    for _ in range(3):
        assert diled(*words) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["digits-vae", "digits-vae-2", "digits-vae-3"]


def begun(seed, out=None):
    """A training of digits, as its process has it just before it takes its folder."""
    config = resolve("digits", "vae", settings={"model.network.width": 8}, seed=seed, device="cpu")
    return Session(config, out=out, say=lambda line: None)


def test_trainings_begun_together_have_a_folder_each(tmp_path, monkeypatch):
    """The second has chosen the name of the first before that wrote anything."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits-vae").symlink_to(tmp_path / "gone")
    sessions = [begun(seed) for seed in (3, 4)]
    assert sessions[0].folder == sessions[1].folder
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["digits-vae"], "nothing is made before a training starts"
    for session in sessions:
        session._write_configuration()
    assert [session.folder.name for session in sessions] == ["digits-vae-2", "digits-vae-3"]
    assert [read_run(session.folder).training.seed for session in sessions] == [3, 4]


@pytest.mark.parametrize("empty", [True, False])
def test_trainings_begun_together_do_not_share_the_folder_that_is_named(empty, tmp_path):
    out = tmp_path / "out"
    if empty:
        out.mkdir()
    first, second = begun(3, out), begun(4, out)
    first._write_configuration()
    before = contents(out)
    with pytest.raises(ConfigError, match="exists and is not empty; nothing is overwritten"):
        second.run()
    assert contents(out) == before
    assert read_run(out).training.seed == 3


@pytest.mark.parametrize("rival", ["runs/digits-vae", "runs/digits-vae/run.json", "out/run.json"])
def test_a_folder_that_is_taken_between_the_look_and_the_claim(rival, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def look(*words):
        folder = new_folder(*words)
        if not Path(rival).exists():
            Path(rival).parent.mkdir(parents=True)
            Path(rival).touch() if rival.endswith(".json") else Path(rival).mkdir()
        return folder

    monkeypatch.setattr("diled.runs.new_folder", look)
    if rival.startswith("runs"):
        assert claim_folder(None, "digits", "vae") == Path("runs/digits-vae-2")
    else:
        with pytest.raises(ConfigError, match="out exists and is not empty"):
            claim_folder("out", "digits", "vae")


def test_a_folder_that_cannot_be_written_is_not_taken(tmp_path, monkeypatch):
    def full(path, record):
        raise OSError(28, "No space left on device")

    session = begun(0, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("diled.session.write_json", full)
        with pytest.raises(ConfigError, match=r"Could not write to .*: No space left on device"):
            session.run()
    session._write_configuration()
    assert read_run(tmp_path / "out").training.seed == 0


@pytest.mark.parametrize(
    "text", ["[]", "3", '{"name": "vae"}', '{"name": "vae", "model": 3}', '{"name": [], "model": {}}']
)
def test_a_run_whose_settings_hold_none(text, refused, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text(text)
    assert "run.json is damaged, or of another version of diled" in refused("train", "--resume", "x")


def test_the_saved_settings_of_another_version(refused, copy):
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | {"name": "gan"}))
    assert "another version" in refused("evaluate", "copy")
    record["training"]["magic"] = 3
    (copy / "run.json").write_text(json.dumps(record))
    assert "magic" in refused("evaluate", "copy")
    assert yaml.safe_load((copy / "run.json").read_text())["training"]["magic"] == 3
