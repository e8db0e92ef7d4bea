"""Every verb on a tiny trained model, from the command line and from Python, with all the places it can write to."""

import html
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny import diled, train, train_any, weights

import diled as package
from diled.arguments import data_of
from diled.config import DataSpec
from diled.data import open_data
from diled.errors import ConfigError, DataError
from diled.output import check_out, write_examples
from diled.reporting import READING, compare_models
from diled.runs import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A DiLED with labels at hand, good enough to tell digits apart a little."""
    folder = tmp_path_factory.mktemp("verbs") / "run"
    options = ["--training.learning_rate", 0.005, "--model.network.width", 64, "--model.latent_dim", 8]
    assert train(folder, *options, steps=400) == 0
    return folder


@pytest.fixture(scope="module")
def digits():
    return open_data("digits")


@pytest.fixture(scope="module")
def arrays(digits, tmp_path_factory):
    """Twelve test digits as an array file, with two of them in files of their own."""
    folder = tmp_path_factory.mktemp("arrays")
    np.save(folder / "some.npy", digits.test.values[:12])
    for i in (0, 1):
        np.save(folder / f"{i}.npy", digits.test.values[i : i + 1])
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Forty RGB pictures in two class folders, and a model of them."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for name, base in (("dark", 30), ("light", 180)):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(30):
            values = (base + generator.integers(0, 60, (8, 8, 3))).astype(np.uint8)
            Image.fromarray(values).save(folder / "data" / name / f"{i:02d}.png")
    assert train(folder / "run", "--model.network.kind", "mlp", model="vae", data=folder / "data") == 0
    return folder


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """A model of vectors of real numbers."""
    folder = tmp_path_factory.mktemp("vectors")
    np.save(folder / "data.npy", np.random.default_rng(0).normal(size=(200, 5)))
    assert train(folder / "run", model="vae", data=folder / "data.npy", steps=20) == 0
    return folder


def out_of(capsys):
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


# sample


@pytest.mark.parametrize("name", ["s.png", "s.PNG", "s.webp", "s.npy", "s.npz", "s"])
def test_sample_writes_what_the_ending_says(name, run, tmp_path, capsys):
    out = tmp_path / "new" / name
    assert diled("sample", run, "--n", 5, "--seed", 2, "--out", out) == 0
    assert out_of(capsys) == f"Wrote {out}\n"
    drawn = package.sample(run, 5, seed=2)
    assert drawn.shape == (5, 1, 8, 8)
    if name == "s":
        assert sorted(p.name for p in out.iterdir()) == [f"{i:05d}.png" for i in range(5)]
    elif name.endswith(".npy"):
        assert np.array_equal(np.load(out), drawn)
    elif name.endswith(".npz"):
        assert np.array_equal(np.load(out)["values"], drawn)
    else:
        assert Image.open(out).size == ((3 * 9 - 1) * 8, (2 * 9 - 1) * 8)
    assert len(list(out.parent.iterdir())) == 1, "nothing but the result is left"


def test_sample_writes_into_the_run_unless_told_otherwise(run, capsys):
    assert diled("sample", run) == 0
    assert f"Wrote {run / 'samples.png'}" in out_of(capsys)
    (run / "samples.png").unlink()


def test_sample_options(run):
    same = package.sample(run, 3)
    assert np.array_equal(same, package.sample(run, 8)[:3])
    for options in ({"steps": 5}, {"sampler": "ancestral"}, {"draw": True}, {"seed": 1}):
        assert not np.array_equal(package.sample(run, 3, **options), same)


def test_a_loaded_model_is_used_where_it_is(run):
    model = package.load(run, device="cpu")
    assert len(package.sample(model, 2, device="cpu")) == 2
    with pytest.raises(ConfigError, match="The model is on cpu, not on cuda: load it with device='cuda'"):
        package.sample(model, 2, device="cuda")
    with pytest.raises(ConfigError, match="The model is on cpu, not on cuda"):
        package.synthesize(model, n=2, out=run.parent / "elsewhere", device="cuda")


@pytest.mark.parametrize("data", [np.zeros((9, 4)), ["a text", "another"]], ids=["array", "list"])
def test_training_is_on_files_and_says_so(data):
    with pytest.raises(DataError, match=r"not on a (ndarray|list): save it, an array as \.npy"):
        package.train(data)


@pytest.mark.parametrize(
    ("channels", "mode", "fine", "wrong", "said"),
    [
        (1, "I;16", [".png", ".tif", ".npy", ""], [".webp", ".jpg"], "16-bit images"),
        (4, "RGBA", [".png", ".webp", ".npy", ""], [".jpg"], "images of 4 channels"),
        (5, None, [".npy"], [".png", ".webp", ""], "images of 5 channels"),
        (3, "RGB", [".png", ".webp", ".jpg", ".npy", ""], [".gif"], "images"),
    ],
)
def test_pictures_go_where_they_can_be_seen_as_they_are(tmp_path, channels, mode, fine, wrong, said):
    high = 65535 if mode == "I;16" else 255
    spec = DataSpec(kind="image", shape=(channels, 4, 4), levels=high + 1, low=0, high=high, mode=mode)
    values = np.full((2, channels, 4, 4), high, np.uint16 if mode == "I;16" else np.uint8)
    for i, ending in enumerate(fine):
        assert write_examples(values, spec, tmp_path / f"{i}{ending}").exists()
    for ending in wrong:
        with pytest.raises(ConfigError, match=f"has no ending that {said} are written to"):
            check_out(tmp_path / f"x{ending}", spec)


def test_a_picture_that_is_too_large_for_its_format_is_an_error_in_words(tmp_path):
    spec = DataSpec(kind="image", shape=(1, 1, 1), levels=256, low=0, high=255)
    with pytest.raises(ConfigError, match="Could not write"):
        write_examples(np.zeros((300, 1, 1, 1), np.uint8), spec, tmp_path / "x.webp", columns=300)
    assert not list(tmp_path.iterdir())


def test_images_of_many_channels_are_written_as_arrays_unless_one_says_otherwise(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8, 5)).astype(np.uint8))
    assert train_any(tmp_path / "run", "vae", data=tmp_path / "a.npy", steps=1) == 0
    assert diled("sample", tmp_path / "run", "--n", 2) == 0
    (written,) = (tmp_path / "run").glob("sample*")
    assert np.load(written).shape == (2, 5, 8, 8)


def test_files_whose_names_are_no_text_are_named_by_their_bytes(tmp_path, run):
    folder = tmp_path / "old"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "a.png")
    try:
        (folder / "a.png").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    except OSError:
        pytest.skip("this file system has no such names")
    for ending in (".npy", ".csv", ".parquet"):
        assert diled("encode", run, folder, "--convert", "--out", tmp_path / f"codes{ending}") == 0
    assert (tmp_path / "codes.ids.txt").read_text(encoding="utf-8") == "caf\\xe9.png\n"


def test_neighbours_in_splits_that_number_their_rows_alike_have_names_of_their_own(tmp_path, run, digits):
    parts = {"x_train": digits.train.values[:30], "x_test": digits.test.values[:30]}
    np.savez(tmp_path / "a.npz", **parts)
    (found,) = package.search(run, digits.test.values[4:5], data=tmp_path / "a.npz", k=2)
    assert found[0][0] == "test/4"
    assert found[1][0].split("/")[0] in ("train", "validation", "test")


# reconstruct, encode, interpolate


def test_reconstruct(run, arrays, tmp_path, capsys):
    for name in ("r.png", "r.npy", "r"):
        assert diled("reconstruct", run, arrays / "some.npy", "--out", tmp_path / name) == 0
    assert len(list((tmp_path / "r").iterdir())) == 12
    values = np.load(tmp_path / "r.npy")
    assert np.array_equal(values, package.reconstruct(run, np.load(arrays / "some.npy")))
    assert Image.open(tmp_path / "r.png").size == ((12 * 9 - 1) * 8, (2 * 9 - 1) * 8)
    before = np.load(arrays / "some.npy")
    shuffled = np.roll(before, 1, 0)
    assert ((values - before) ** 2).mean() < 0.7 * ((values - shuffled) ** 2).mean()


def test_a_sheet_of_pairs_has_originals_above(run, arrays, tmp_path):
    """With more than sixteen, rows of originals and rows of results take turns."""
    many = np.repeat(np.load(arrays / "some.npy"), 2, 0)[:20]
    package.reconstruct(run, many, out=tmp_path / "r.png")
    sheet = np.asarray(Image.open(tmp_path / "r.png"))
    assert sheet.shape == ((4 * 9 - 1) * 8, (16 * 9 - 1) * 8)
    assert np.array_equal(sheet[:64:8, :64:8], (many[0, 0] / 16 * 255).round().astype(np.uint8))


def test_encode_npy_and_parquet(run, arrays, tmp_path, capsys):
    assert diled("encode", run, arrays / "some.npy", "--out", tmp_path / "c.npy") == 0
    assert diled("encode", run, arrays / "some.npy", "--out", tmp_path / "c.parquet") == 0
    codes = np.load(tmp_path / "c.npy")
    assert codes.shape == (12, 8)
    assert codes.dtype == np.float32
    ids = (tmp_path / "c.ids.txt").read_text().splitlines()
    table = pq.read_table(tmp_path / "c.parquet").to_pydict()
    assert table["id"] == ids
    assert len(ids) == 12
    assert np.array_equal(np.array(table["code"], np.float32), codes)
    assert np.array_equal(package.encode(run, arrays / "some.npy"), codes)
    assert not np.array_equal(package.encode(run, arrays / "some.npy", sample=True), codes)


def test_a_model_of_a_named_column_reads_data_without_it(tmp_path):
    """Other Parquet files, and folders of images: `--data` of a model need not be stored as its training data are."""
    values = np.random.default_rng(0).integers(0, 256, (40, 4, 5), np.uint8)
    (tmp_path / "folder").mkdir()
    encoded = []
    for i, picture in enumerate(values):
        Image.fromarray(picture).save(tmp_path / "folder" / f"{i:02d}.png")
        encoded.append((tmp_path / "folder" / f"{i:02d}.png").read_bytes())
    for column in ("picture", "image", "other"):
        pq.write_table(pa.table({column: encoded}), tmp_path / f"{column}.parquet")
    settings = {"preprocess.image_column": "picture", "training.steps": 2}
    model = package.train(
        tmp_path / "picture.parquet", model="vae", out=tmp_path / "run", settings=settings, report=False
    )
    for source in (None, tmp_path / "folder", tmp_path / "image.parquet"):
        assert len(data_of(tmp_path / "run", source, model).train) == 32
    with pytest.raises(DataError, match="has no column 'image'"):
        data_of(tmp_path / "run", tmp_path / "other.parquet", model)
    assert len(data_of(tmp_path / "run", tmp_path / "other.parquet", model, column="other").train) == 32


def test_encode_a_known_data_set(run, digits, tmp_path):
    codes = package.encode(run, "digits", out=tmp_path / "codes.npy")
    assert len(codes) == len(digits.train) == len((tmp_path / "codes.ids.txt").read_text().splitlines())


def test_several_inputs(pictures, tmp_path, capsys):
    paths = sorted((pictures / "data").rglob("*.png"))[:3]
    assert diled("encode", pictures / "run", *paths, "--out", tmp_path / "c.npy") == 0
    assert np.load(tmp_path / "c.npy").shape == (3, 4)
    assert (tmp_path / "c.ids.txt").read_text().splitlines()[0].endswith("00.png")
    assert diled("encode", pictures / "run", paths[0], "--out", tmp_path / "one.npy") == 0
    assert np.allclose(np.load(tmp_path / "one.npy"), np.load(tmp_path / "c.npy")[:1], atol=1e-5)


def test_interpolate(run, arrays, tmp_path):
    ends = arrays / "0.npy", arrays / "1.npy"
    assert diled("interpolate", run, *ends, "--steps", 5, "--out", tmp_path / "i.npy") == 0
    assert diled("interpolate", run, *ends, "--mode", "spherical", "--out", tmp_path / "i.png") == 0
    path = np.load(tmp_path / "i.npy")
    assert path.shape == (5, 1, 8, 8)
    assert np.array_equal(path[0], package.reconstruct(run, ends[0])[0])
    assert np.array_equal(path[-1], package.reconstruct(run, ends[1])[0])
    assert Image.open(tmp_path / "i.png").size == ((8 * 9 - 1) * 8, 64)


# edit, search


@pytest.mark.parametrize("method", ["vector", "classifier", "ode"])
def test_edit(method, run, arrays, tmp_path):
    options = ["--attribute", "label=0", "--method", method, "--strength", 0.0]
    assert diled("edit", run, arrays / "some.npy", *options, "--out", tmp_path / "none.npy") == 0
    assert np.array_equal(np.load(tmp_path / "none.npy"), package.reconstruct(run, arrays / "some.npy"))
    options[-1] = -0.5
    assert diled("edit", run, arrays / "some.npy", *options, "--out", tmp_path / "less.png") == 0
    options[-1] = 1.5
    assert diled("edit", run, arrays / "some.npy", *options, "--out", tmp_path / "more.npy") == 0
    zeros = np.mean(open_data("digits").train.values[open_data("digits").train.labels["label"] == 0], 0)
    near = [((np.load(tmp_path / f"{name}.npy") - zeros) ** 2).mean() for name in ("none", "more")]
    assert near[1] < near[0], "the edited digits look more like zeros"


def test_edit_from_python(run, arrays):
    some = np.load(arrays / "some.npy")
    one = package.edit(run, some, attribute="label=0")
    assert np.array_equal(one, package.edit(run, some, attribute=["label=0"], strength=1.0, data=["digits"]))
    shallow = package.edit(run, some, attribute="label=0", method="ode", depth=0.0)
    assert np.array_equal(shallow, package.reconstruct(run, some)), "without noise there is nothing to remake"
    assert np.array_equal(
        package.edit(run, some, attribute="label=0", method="ode"),
        package.edit(run, some, attribute="label=0", method="ode", depth=0.8, strength=2.0, data="digits"),
    )


def test_search(run, digits, arrays, tmp_path, capsys):
    out = tmp_path / "s.png"
    assert diled("search", run, arrays / "0.npy", "--k", 3, "--out", out) == 0
    first = out_of(capsys).splitlines()[0]
    assert first.split()[0] == digits.test.ids[0], "the example itself is the nearest"
    assert first.count("(") == 3
    assert Image.open(out).size == ((4 * 9 - 1) * 8, 64)
    found = package.search(run, arrays / "some.npy", k=2, metric="cosine")
    assert [len(row) for row in found] == [2] * 12
    assert all(row[0][1] <= row[1][1] for row in found)


# evaluate, compare, demo


def test_evaluate(run, tmp_path, capsys):
    out = tmp_path / "figures.json"
    options = ["--samples", 100, "--repeats", 1]
    assert diled("evaluate", run, *options, "--out", out) == 0
    said = out_of(capsys)
    for word in ("bound, nats", "rate", "distortion", "Frechet, samples", "reconstruction MSE", "parameters"):
        assert word in said
    found = json.loads(out.read_text())
    assert found["bound_nats"]["value"] == pytest.approx(
        found["rate_nats"]["value"] + found["distortion_nats"]["value"], rel=0.02
    )
    assert package.evaluate(run, samples=100, repeats=1)["bound_nats"].value == found["bound_nats"]["value"]


def test_evaluate_by_group(run, tmp_path, capsys):
    options = ["--samples", 100, "--repeats", 1, "--out", tmp_path / "by.json"]
    assert diled("evaluate", run, "--by", "label", *options) == 0
    found = json.loads((tmp_path / "by.json").read_text())
    assert sorted(found) == [str(i) for i in range(10)]
    assert sum(group["share_of_data"]["value"] for group in found.values()) == pytest.approx(1)
    assert "bound" in out_of(capsys)


def test_compare_runs(run, tmp_path, capsys):
    assert train(tmp_path / "vae", model="vae", steps=20) == 0
    capsys.readouterr()
    assert diled("compare", run, tmp_path / "vae", "--samples", 100, "--out", tmp_path / "both") == 0
    said = out_of(capsys)
    assert "DiLED (EDDPM), default" in said
    assert "VAE" in said
    last = said.splitlines()[-1]
    assert "DiLED (EDDPM)" in last
    assert "real data" in last
    assert last.endswith("Each was trained once, so chance in training is not in the errors.")
    page = html.unescape((tmp_path / "both" / "report.html").read_text(encoding="utf-8"))
    assert f'<p class="lead">{last[:40]}' in page, "the answer comes first"
    for kind in ("samples", "reconstructions", "interpolations"):
        assert (tmp_path / "both" / "figures" / f"{kind}.png").exists()
    assert len(json.loads((tmp_path / "both" / "evaluation.json").read_text())) == 2


@pytest.fixture
def compared(monkeypatch):
    """What is compared, of which nothing is measured."""
    found = {}

    def keep(models, *args, seed, **options):
        found.update(titles=list(models), seed=seed)
        return {name: {} for name in models}

    monkeypatch.setattr("diled.reporting.compare_models", keep)
    return found


def test_compare_loses_none_of_models_of_one_kind(run, tmp_path, compared):
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        assert train(folder, "--seed", seed, model="vae", steps=1) == 0
    loaded = [package.load(folder, device="cpu") for folder in folders]
    package.compare(*loaded, run, loaded[0], device="cpu", out=tmp_path / "both")
    assert compared["titles"] == ["VAE", "VAE (2)", "DiLED (EDDPM), default", "VAE (3)"]
    a, b = folders
    package.compare(a, b, b, loaded[0], a, b, device="cpu", out=tmp_path / "again")
    assert compared["titles"] == ["VAE", f"VAE ({b})", f"VAE ({b}) (2)", "VAE (2)", f"VAE ({a})", f"VAE ({b}) (3)"]


def test_compare_trains_with_the_seed_of_its_settings(tmp_path, compared):
    """Unless one is given, which draws have as well."""
    (tmp_path / "seed.yaml").write_text("training: {seed: 6}")
    values = {"training.steps": 1, "model.network.width": 16}

    def seeds(name, **given):
        given["settings"] = values | given.get("settings", {})
        package.compare("digits", models=["vae"], device="cpu", out=tmp_path / name, **given)
        return read_run(tmp_path / name / "vae").training.seed, compared["seed"]

    assert seeds("none") == (0, 0)
    assert seeds("settings", settings={"training.seed": 7}) == (7, 0)
    assert seeds("file", config=tmp_path / "seed.yaml") == (6, 0)
    assert seeds("given", config=tmp_path / "seed.yaml", seed=5) == (5, 5)


@pytest.mark.parametrize("source", [np.zeros((9, 4)), ["a text", "another"]], ids=["array", "list"])
@pytest.mark.parametrize("times", [1, 2])
def test_what_is_compared_is_named(source, times):
    with pytest.raises(DataError, match=r"not on a (ndarray|list): save it, an array as \.npy"):
        package.compare(*[source] * times)


def test_compare_answers_one_stage_or_two(tmp_path, capsys):
    options = ["--models", "diled", "ldm", "--training.steps", 4, "--training.batch_size", 16, "--samples", 60]
    assert diled("compare", "digits", *options, "--out", tmp_path / "both") == 0
    assert "One stage or two: " in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(("n", "test"), [(12, "1 other."), (30, "3 others.")])
def test_a_dozen_images_are_measured_as_far_as_they_go(n, test, tmp_path, capsys):
    data, run = tmp_path / "few.npy", tmp_path / "run"
    np.save(data, np.random.default_rng(0).integers(0, 256, (n, 8, 8), dtype=np.uint8))
    small = ["--training.steps", 3, "--model.network.width", 8]
    assert diled("train", data, "--model", "vae", *small, "--out", run) == 0
    page = html.unescape((run / "report.html").read_text(encoding="utf-8"))
    assert f"measured on {test}" in page
    found = json.loads((run / "evaluation.json").read_text())["VAE"]
    assert found["kid_floor"]["value"] is None
    assert (found["frechet_floor"]["value"] is None) == (n == 12)
    assert found["frechet_samples"]["value"] > 0, "against the training images"
    assert diled("evaluate", run, "--samples", 10) == 0
    assert diled("compare", data, "--models", "vae", "ppca", "--training.steps", 3, "--out", tmp_path / "both") == 0
    assert (tmp_path / "both" / "report.html").exists()


@pytest.mark.parametrize(
    ("model", "there", "absent"),
    [
        ("ndm", ["model.bound", "The bound is", "are draws"], ["model.encode", "model.interpolate"]),
        ("consistency", ["no bound on -log p(x)"], ["model.encode", "model.bound", "The bound is an upper"]),
        ("diffae", ["model.encode", "model.interpolate"], ["model.bound", "The bound is an upper"]),
        ("ddpm", ["model.encode", "model.bound"], []),
    ],
)
def test_a_report_shows_what_its_model_can_do(model, there, absent, tmp_path):
    """The lines of Python in it run."""
    assert train_any(tmp_path / "run", model, steps=4) == 0
    loaded, data = package.load(tmp_path / "run", device="cpu"), open_data("digits")
    compare_models({model: (loaded, tmp_path / "run")}, data, tmp_path, title="x", reading=READING, samples=60)
    page = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    for word in there:
        assert word in page
    for word in absent:
        assert word not in page
    exec(page.partition("<pre><code>")[2].partition("</code>")[0], {})


def test_compare_models_on_a_data_set(tmp_path, capsys):
    out = tmp_path / "both"
    options = ["--models", "vae", "beta_vae", "--minutes", 0.01, "--samples", 100, "--training.batch_size", 16]
    assert diled("compare", "digits", *options, "--out", out) == 0
    for name in ("vae", "beta_vae"):
        assert read_run(out / name).training.batch_size == 16
        assert (out / name / "model.safetensors").exists()
    assert (out / "report.html").exists()
    steps = [read_run(out / name).training.steps for name in ("vae", "beta_vae")]
    assert min(steps) >= 10
    assert weights(out / "vae") != weights(out / "beta_vae")


def test_demo(tmp_path, capsys):
    out = tmp_path / "demo"
    assert diled("demo", "--steps", 6, "--out", out) == 0
    assert (out / "report.html").exists()
    assert {"diled", "vae", "ldm"} <= {p.name for p in out.iterdir()}
    said = capsys.readouterr().out
    assert "diled.load" in said
    (out / "old.txt").write_text("of the demo before")
    assert diled("demo", "--steps", 0, "--out", out) == 2
    assert (out / "old.txt").exists(), "a mistake removes nothing"


def test_train_writes_a_report(tmp_path, capsys):
    assert diled("train", "digits", "--model", "vae", "--training.steps", 10, "--out", tmp_path / "run") == 0
    assert (tmp_path / "run" / "report.html").exists()
    assert f"Report: {tmp_path / 'run' / 'report.html'}" in capsys.readouterr().out


# models, data


def test_models(capsys):
    assert diled("models") == 0
    said = out_of(capsys)
    assert said.splitlines()[0].split()[:3] == ["name", "encoder", "decoder"]
    assert [line.split()[0] for line in said.splitlines()[1:]] == [row["name"] for row in package.models()]


def test_data(pictures, capsys):
    assert diled("data") == 0
    assert "digits" in out_of(capsys)
    assert diled("data", "digits") == 0
    said = out_of(capsys)
    assert "images of shape (1, 8, 8); 17 grey values" in said
    assert "1,293 for training, 144 for validation, 360 for testing" in said
    assert diled("data", pictures / "data", "--preprocess.size", 4, "--preprocess.channels", "grey") == 0
    said = out_of(capsys)
    assert "(1, 4, 4)" in said
    assert "label 'label': dark, light" in said
    assert package.data(pictures / "data", settings={"preprocess.size": 4}).spec.shape == (3, 4, 4)


def test_a_folder_whose_name_is_no_text_is_read_trained_on_and_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = Path(os.fsdecode(b"caf\xe9"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    for i in range(40):
        Image.new("L", (8, 8), 6 * i).save(folder / f"{i:02d}.png")
    assert diled("data", folder) == 0
    options = ["--model", "vae", "--model.network.kind", "mlp", "--training.steps", 1, "--device", "cpu"]
    assert diled("train", folder, *options, "--out", "run") == 0
    assert diled("audit", "run", "--sections", "codes", "--out", "audited") == 0
    for page in ("run/report.html", "audited/audit.html"):
        assert r"caf\udce9" in Path(page).read_text(encoding="utf-8")
    assert r"caf\udce9" in capsys.readouterr().out


# Other kinds of data


def test_colour_pictures(pictures, tmp_path):
    run = pictures / "run"
    one = next((pictures / "data").rglob("*.png"))
    assert diled("reconstruct", run, one, "--out", tmp_path / "r.png") == 0
    assert Image.open(tmp_path / "r.png").mode == "RGB"
    assert diled("reconstruct", run, pictures / "data", "--out", tmp_path / "r.npy") == 0
    assert np.load(tmp_path / "r.npy").shape == (60, 3, 8, 8)
    assert np.load(tmp_path / "r.npy").dtype == np.uint8
    assert diled("edit", run, one, "--attribute", "label=light", "--out", tmp_path / "e.npy") == 0
    assert diled("evaluate", run, "--samples", 50, "--repeats", 1) == 0


def test_pictures_of_another_size_are_converted_where_asked(pictures, tmp_path, capsys):
    Image.new("L", (20, 12), 99).save(tmp_path / "grey.png")
    assert diled("reconstruct", pictures / "run", tmp_path / "grey.png", "--out", tmp_path / "r.npy") == 2
    assert "--convert" in capsys.readouterr().err
    words = ["reconstruct", pictures / "run", tmp_path / "grey.png", "--convert", "--out", tmp_path / "r.npy"]
    assert diled(*words) == 0
    assert np.load(tmp_path / "r.npy").shape == (1, 3, 8, 8)


def test_vectors_are_written_as_arrays(vectors, capsys):
    run = vectors / "run"
    assert diled("sample", run) == 0
    assert f"Wrote {run / 'samples.npy'}" in out_of(capsys)
    assert np.load(run / "samples.npy").shape == (16, 5)
    assert diled("reconstruct", run, vectors / "data.npy") == 0
    assert np.load(run / "reconstructions.npy").shape == (200, 5)
    capsys.readouterr()
    assert diled("search", run, vectors / "data.npy", "--k", 2) == 0
    assert "Wrote" not in out_of(capsys)
    assert diled("evaluate", run, "--samples", 50, "--repeats", 1) == 0
