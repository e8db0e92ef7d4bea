"""Synthetic training sets: the same bytes however they are drawn, whole after any end, and refused where they do not fit."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from torch import nn

import diled
from diled import synthesizing
from diled.config import DataSpec
from diled.data import Data, Split, from_model, open_data
from diled.data.disjoint import check_disjoint
from diled.data.proteins import protein_spec
from diled.data.synthesis import Pool, duplicates, open_pool, read_manifest
from diled.diffusion import SAMPLERS
from diled.drawing import SCHEDULERS
from diled.draws import seed_from
from diled.errors import ConfigError, DataError, Interrupted, ModelError
from diled.family import model_config
from diled.model import Model
from diled.models.sampling import sample_batches
from diled.models.zoo import build
from diled.runs import RunConfig
from diled.synthesizing import fresh, synthesize

GREY = DataSpec(kind="image", shape=(1, 8, 8), levels=256, mode="L")
COLOUR = DataSpec(kind="image", shape=(3, 6, 5), levels=256, mode="RGB")
DIGITS = DataSpec(kind="image", shape=(1, 8, 8), levels=17, low=0, high=16)
VECTORS = DataSpec(kind="vector", shape=(5,), low=-2.0, high=3.0)


class Echo(nn.Module):
    """A density whose sample i is its noise, seen through fixed weights."""

    has_codes, implicit = False, False

    def __init__(self, shape: tuple[int, ...], scale: float = 0.5) -> None:
        super().__init__()
        self.shape, self.weight = shape, nn.Parameter(torch.full(shape, scale))

    def sample(self, n, *, noise=None, mean=False):
        x = self.weight * noise((n, *self.shape))
        return x if mean else x + 0.25 * noise((n, *self.shape))


def echo(spec: DataSpec = GREY, scale: float = 0.5) -> Model:
    return Model(Echo(spec.shape, scale), spec)


def quiet(source, n=None, out=None, **options):
    return synthesize(source, n, out, progress=False, **{"say": lambda line: None, "probe": False, **options})


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "data").iterdir())}


def edit_manifest(folder: Path, **changes) -> None:
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def digits_model() -> Model:
    """An untrained model of digits, of the smallest kind with a diffusion."""
    small = {"network": {"kind": "mlp", "width": 12, "depth": 1}, "latent_dim": 3, "prior": {"width": 12, "blocks": 1}}
    config = model_config("diled", small)
    spec = open_data("digits").spec
    return Model(build("diled", config.resolved(spec), spec, 0).model, spec, name="diled", config=config)


@pytest.fixture
def pool(tmp_path) -> Path:
    quiet(echo(), 200, tmp_path / "pool", shard_size=64)
    return tmp_path / "pool"


# Drawing --------------------------------------------------------------------------------------------------------------


def test_samples_are_those_of_the_model(digits_model, tmp_path):
    quiet(digits_model, 256, tmp_path / "pool", shard_size=128, steps=3, seed=7)
    pool = open_pool(tmp_path / "pool", digits_model.spec)
    np.testing.assert_array_equal(pool.values, digits_model.sample(256, steps=3, seed=7))
    assert pool.values.dtype == np.uint8
    assert len(pool) == 256
    assert pool.manifest["settings"]["sampler"] == "ddim, 3 steps"
    assert pool.manifest["settings"]["values"] == "means"


@pytest.mark.parametrize(
    "options", [{"shard_size": 64}, {"shard_size": 100}, {"shard_size": 1000}, {"batch": 64}, {"batch": 192}]
)
def test_samples_do_not_depend_on_shards_or_batches(digits_model, tmp_path, options):
    """Nor on how many are drawn."""
    quiet(digits_model, 300, tmp_path / "pool", steps=2, **{"shard_size": 150, **options})
    values = open_pool(tmp_path / "pool", digits_model.spec).values
    np.testing.assert_array_equal(values, digits_model.sample(320, steps=2)[:300])


def test_batches_from_a_number_on_are_rows_of_the_series(digits_model):
    options = {"steps": 2, "seed": 3}
    parts = list(sample_batches(digits_model.density, 100, start=128, batch=64, **options))
    assert [len(part) for part in parts] == [64, 36]
    whole = torch.cat(list(sample_batches(digits_model.density, 256, **options)))
    torch.testing.assert_close(torch.cat(parts), whole[128:228], rtol=0, atol=1e-5)


def test_workers_make_the_files_of_one(digits_model, tmp_path, monkeypatch):
    options = {"steps": 2, "shard_size": 64}
    quiet(digits_model, 300, tmp_path / "one", **options)
    lines = []
    for i in (2, 0):
        found = quiet(digits_model, 300, tmp_path / "three", shard=f"{i}/3", say=lines.append, **options)
        assert not found["complete"]
    left = f"of 5 shards are left to other processes: with them {tmp_path / 'three'} is whole."
    assert lines == [f"4 {left}", f"2 {left}"]
    with pytest.raises(DataError, match="not finished"):
        open_pool(tmp_path / "three", digits_model.spec)
    assert quiet(digits_model, 300, tmp_path / "three", shard="1/3", **options)["complete"]
    for rank in "10":
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        for i in range(2):
            found = quiet(digits_model, 300, tmp_path / "torchrun", shard=f"{i}/2", **options)
    assert found["complete"]
    assert files(tmp_path / "one") == files(tmp_path / "three") == files(tmp_path / "torchrun")
    assert list(files(tmp_path / "one")) == [f"pool-{j:05d}-of-00005.parquet" for j in range(5)]


def test_seed_and_draws_change_the_samples(tmp_path):
    model, drawn = echo(), {}
    for name, options in {"a": {}, "b": {"seed": 1}, "c": {"draw": True}}.items():
        found = quiet(model, 64, tmp_path / name, **options)
        drawn[name] = open_pool(tmp_path / name, GREY).values
        assert found["settings"]["values"] == ("draws" if name == "c" else "means")
    assert (drawn["a"] != drawn["b"]).mean() > 0.9
    assert (drawn["a"] != drawn["c"]).mean() > 0.9


def test_bf16_is_near_fp32_and_is_said(digits_model, tmp_path, monkeypatch):
    monkeypatch.setattr("diled.api.has_bf16", lambda kind: True)
    for dtype in ("fp32", "bf16"):
        quiet(digits_model, 64, tmp_path / dtype, dtype=dtype, steps=2)
    a, b = (open_pool(tmp_path / d, digits_model.spec).values.astype(float) for d in ("fp32", "bf16"))
    np.testing.assert_array_equal(a, digits_model.sample(64, steps=2))
    assert 0 < np.abs(a - b).mean() < 1
    assert read_manifest(tmp_path / "bf16")["settings"]["dtype"] == "bf16"


def test_bf16_without_instructions_for_it_is_fp32_and_says_so(digits_model, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("diled.api.has_bf16", lambda kind: False)
    manifest = quiet(digits_model, 64, tmp_path / "pool", dtype="bf16", steps=2, say=said.append)
    assert said[0] == "This device has no instructions for bf16: networks run in fp32."
    assert manifest["settings"]["dtype"] == "fp32"
    np.testing.assert_array_equal(
        open_pool(tmp_path / "pool", digits_model.spec).values, digits_model.sample(64, steps=2)
    )


def test_hash_of_the_weights_is_that_of_the_saved_file(digits_model, tmp_path):
    digits_model.save(tmp_path / "run")
    found = quiet(tmp_path / "run", 64, tmp_path / "pool", steps=1, device="cpu")
    again = quiet(digits_model, 64, tmp_path / "pool", steps=1)
    content = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert found["settings"]["weights"] == hashlib.sha256(content).hexdigest()
    assert found == again
    assert found["source"] == {"kind": "run", "name": "run"}
    assert {"commit", "hardware"} <= set(found["provenance"])


def test_no_random_state_is_changed(tmp_path):
    before = torch.get_rng_state()
    quiet(echo(), 64, tmp_path / "pool")
    fresh(echo(), 0, 32)(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_bar_tells_samples_and_rate(tmp_path, capsys):
    synthesize(echo(), 128, tmp_path / "pool", shard_size=64, probe=False)
    said = capsys.readouterr()
    assert "128/128" in said.err
    assert "128 samples are in" in said.out


# Going on -------------------------------------------------------------------------------------------------------------


def slow_worker(out: Path) -> subprocess.Popen:
    code = (
        f"import sys, time; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "import test_synthesis as t, diled.data.synthesis as s\n"
        "from pathlib import Path\n"
        "replace = s.os.replace\n"
        "s.os.replace = lambda *a: (time.sleep(0.1), replace(*a))[1]\n"  # dies beside a partial file
        "t.quiet(t.echo(), 1280, Path(sys.argv[1]), shard_size=64)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(out)], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path, number):
    out = tmp_path / "pool"
    process = slow_worker(out)
    end = time.monotonic() + 60
    while time.monotonic() < end and len(list((out / "shards").glob("0*.json"))) < 2:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert "the same command goes on" in said or number == signal.SIGKILL
    done = list((out / "shards").glob("0*.json"))
    assert 2 <= len(done) < 20
    assert not read_manifest(out)["complete"]
    stamps = {path: (out / json.loads(path.read_text())["file"]).stat().st_mtime_ns for path in done}
    assert quiet(echo(), 1280, out, shard_size=64)["complete"]
    assert stamps == {path: (out / json.loads(path.read_text())["file"]).stat().st_mtime_ns for path in done}
    quiet(echo(), 1280, tmp_path / "whole", shard_size=64)
    assert files(out) == files(tmp_path / "whole")
    assert not list(out.rglob(".partial-*"))


def test_a_half_shard_is_drawn_again(pool, tmp_path):
    whole = files(pool)
    first, second, third, _ = sorted((pool / "data").iterdir())
    first.write_bytes(first.read_bytes()[:-100])  # cut
    (pool / "shards" / "00001.json").unlink()  # moved into place, not yet recorded
    second.write_bytes(b"half")
    third.unlink()
    (pool / "shards" / "00003.json").write_text('{"file"')
    edit_manifest(pool, complete=False, shards=[])
    assert quiet(echo(), 200, pool, shard_size=64)["complete"]
    assert files(pool) == whole


def test_verify_finds_changed_bytes_of_equal_number(pool):
    whole, first = files(pool), next((pool / "data").iterdir())
    content = bytearray(first.read_bytes())
    content[40] ^= 1
    first.write_bytes(content)
    quiet(echo(), 200, pool, shard_size=64)
    assert files(pool) != whole
    quiet(echo(), 200, pool, shard_size=64, verify=True)
    assert files(pool) == whole


def test_a_finished_set_is_left_alone(pool):
    before = (pool / "manifest.json").read_bytes(), files(pool)
    assert quiet(echo(), 200, pool, shard_size=64)["complete"]
    assert ((pool / "manifest.json").read_bytes(), files(pool)) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 3}, "seed = 0, not 3"),
        ({"n": 100}, "n = 200, not 100"),
        ({"shard_size": 128}, "shard_size = 64, not 128"),
        ({"draw": True}, "values = means, not draws"),
        ({"dtype": "bf16"}, "dtype = fp32, not bf16"),
        ({"source": echo(scale=0.6)}, r"weights = \w{12}\.\.\., not \w{12}\.\.\."),
    ],
)
def test_other_settings_are_refused_with_both_named(pool, options, said, monkeypatch):
    monkeypatch.setattr("diled.api.has_bf16", lambda kind: True)
    options = {"source": echo(), "n": 200, "shard_size": 64} | options
    with pytest.raises(ConfigError, match=said):
        quiet(options.pop("source"), options.pop("n"), pool, **options)


def test_a_signal_stops_between_batches(tmp_path, monkeypatch):
    model, ordinary, before = echo(), Echo.sample, signal.getsignal(signal.SIGINT)

    def press(self, n, *, noise=None, mean=False):
        os.kill(os.getpid(), signal.SIGINT)
        return ordinary(self, n, noise=noise, mean=mean)

    with monkeypatch.context() as patch:
        patch.setattr(Echo, "sample", press)
        with pytest.raises(Interrupted, match="the same command goes on"):
            quiet(model, 256, tmp_path / "pool", shard_size=64)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(files(tmp_path / "pool")) == 1  # the shard in progress was finished first
    assert quiet(model, 256, tmp_path / "pool", shard_size=64)["complete"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": None}, "--n"),
        ({"out": None}, "--out"),
        ({"n": 0}, "n = 0"),
        ({"shard_size": 0}, "shard_size = 0"),
        ({"shard": "3/3"}, "0 <= i < n"),
        ({"shard": "1"}, "0 <= i < n"),
        ({"batch": 100}, "such as 128"),
        ({"batch": 0}, "such as 64"),
        ({"dtype": "fp8"}, "fp32, bf16"),
        ({"steps": 3}, "no meaning"),
        ({"data": "digits"}, "without the probe"),
        ({"data": "digits", "probe": True}, "levels"),
    ],
)
def test_settings_without_meaning_are_refused(tmp_path, options, said):
    options = {"n": 64, "out": tmp_path / "pool"} | options
    with pytest.raises(diled.errors.DiledError, match=said):
        quiet(echo(), options.pop("n"), options.pop("out"), **options)
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize("sampler", ["dimm", "DDIM", "ddim:5", "ddim, 5 steps", "heun/18", "", "euler"])
def test_a_sampler_is_one_of_four_names_and_steps_stand_apart(digits_model, tmp_path, sampler):
    with pytest.raises(ConfigError) as caught:
        quiet(digits_model, 64, tmp_path / "pool", sampler=sampler)
    for piece in (f"sampler '{sampler}' is unknown", "ancestral, ddim, heun, dpm_solver", "--steps", "--sampler"):
        assert str(caught.value).count(piece) == 1 or piece.startswith("--")
    assert not (tmp_path / "pool").exists()


def test_every_sampler_of_ours_has_its_scheduler():
    assert set(SCHEDULERS) == set(SAMPLERS)


def test_a_manifest_is_begun_by_one_process_only(tmp_path, monkeypatch):
    """Also where another one was faster by a moment, and on a disk without hard links."""

    def first(*paths):
        (tmp_path / "raced" / "manifest.json").write_text((tmp_path / "other" / "manifest.json").read_text())
        raise FileExistsError

    def no_links(*paths):
        raise PermissionError

    quiet(echo(), 64, tmp_path / "other", seed=4)
    monkeypatch.setattr("diled.data.synthesis.os.link", first)
    with pytest.raises(ConfigError, match="seed = 4, not 0"):
        quiet(echo(), 64, tmp_path / "raced")
    monkeypatch.setattr("diled.data.synthesis.os.link", no_links)
    assert quiet(echo(), 64, tmp_path / "plain")["complete"]


def test_a_place_that_is_taken_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, said in (("other", "holds thesis.txt"), ("file", "is a file")):
        with pytest.raises(ConfigError, match=said):
            quiet(echo(), 64, tmp_path / name)
    with pytest.raises(ConfigError, match="Could not write"):
        quiet(echo(), 64, tmp_path / "file" / "below")


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
def test_datasets_and_open_data_read_the_same_images(tmp_path, spec, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    quiet(echo(spec), 150, tmp_path / "pool", shard_size=64)
    values = open_pool(tmp_path / "pool", spec).values
    np.testing.assert_array_equal(values, echo(spec).sample(192)[:150])
    paths = [str(path) for path in sorted((tmp_path / "pool" / "data").iterdir())]
    table = datasets.load_dataset("parquet", data_files=paths, split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(table.features["image"], datasets.Image)
    assert table["index"][:] == list(range(150))
    for i in (0, 63, 64, 149):
        pixels = np.asarray(table[i]["image"])
        np.testing.assert_array_equal(pixels if spec is COLOUR else pixels[..., None], np.moveaxis(values[i], 0, -1))
    data = open_data(tmp_path / "pool")
    ids = {
        i: row
        for split in (data.train, data.validation, data.test)
        for i, row in zip(split.ids, split.values, strict=True)
    }
    assert (data.spec.shape, data.spec.levels, data.spec.mode) == (spec.shape, 256, spec.mode)
    np.testing.assert_array_equal(np.stack([ids[f"{i:08d}.png"] for i in range(150)]), values)


@pytest.mark.parametrize("spec", [DIGITS, VECTORS], ids=["digits", "vectors"])
def test_other_data_are_lists_of_their_raw_type(tmp_path, spec, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    quiet(echo(spec), 150, tmp_path / "pool", shard_size=100)
    values = open_pool(tmp_path / "pool", spec).values
    np.testing.assert_array_equal(values, echo(spec).sample(192)[:150])
    assert values.dtype == (np.uint8 if spec is DIGITS else np.float32)
    paths = [str(path) for path in sorted((tmp_path / "pool" / "data").iterdir())]
    table = datasets.load_dataset("parquet", data_files=paths, split="train", cache_dir=str(tmp_path / "cache"))
    assert set(table.features) == {"values", "index"}
    np.testing.assert_array_equal(np.array(table["values"][:]), values.reshape(150, -1))
    assert table.features["values"].length == spec.numel


@pytest.mark.parametrize("spec", [GREY, DIGITS], ids=["images", "lists"])
def test_numbers_of_samples_are_no_labels(tmp_path, spec):
    quiet(echo(spec), 150, tmp_path / "pool", shard_size=64)
    assert open_data(tmp_path / "pool").train.labels == {}


def test_a_column_index_that_does_not_count_is_a_label(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    values = pa.array(np.random.default_rng(0).normal(size=(40, 3)).tolist())
    pq.write_table(pa.table({"values": values, "index": [0, 1] * 20}), tmp_path / "a.parquet")
    assert set(open_data(tmp_path / "a.parquet").train.labels) == {"index"}


def test_a_set_that_is_not_finished_is_no_data(tmp_path):
    quiet(echo(), 150, tmp_path / "pool", shard_size=64, shard="0/2")
    assert len(files(tmp_path / "pool")) == 2
    with pytest.raises(DataError, match="is not finished"):
        open_data(tmp_path / "pool")
    quiet(echo(), 150, tmp_path / "pool", shard_size=64)
    data = open_data(tmp_path / "pool")
    assert len(data.train) + len(data.validation) + len(data.test) == 150


def test_a_model_is_no_set_and_it_is_said_what_draws_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"diled synthesize .* --n N --out DIR` draws one"):
        read_manifest(tmp_path)


def test_grey_values_of_a_binarised_model_are_kept(tmp_path):
    spec = GREY.model_copy(update={"levels": 2, "binarize": "dynamic"})
    quiet(echo(spec), 64, tmp_path / "pool")
    values = open_pool(tmp_path / "pool", spec).values
    assert values.dtype == np.uint8
    assert len(np.unique(values)) > 2
    with pytest.raises(DataError, match="levels is 2 there, and 256"):
        open_pool(tmp_path / "pool", GREY)


def test_binarised_data_take_a_grey_pool(pool):
    assert len(open_pool(pool, GREY.model_copy(update={"levels": 2, "binarize": "dynamic"}))) == 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: next((p / "data").glob("*1-of*")).unlink(), r"lacks data/pool-00001-of-00004.parquet \(1 of 4"),
        (lambda p: (p / "data" / "more.parquet").write_bytes(b""), "holds data/more.parquet"),
        (lambda p: (p / "manifest.json").unlink(), "no manifest.json"),
        (lambda p: (p / "manifest.json").write_text("{"), "is damaged"),
        (lambda p: edit_manifest(p, format=9), "format 9, and this diled reads 1"),
        (lambda p: edit_manifest(p, complete=False), "is not finished"),
        (lambda p: edit_manifest(p, shards=read_manifest(p)["shards"][:3]), "holds data/pool-00003"),
        (lambda p: edit_manifest(p, shards=read_manifest(p)["shards"][1:2] * 4), "lists|begin|holds"),
    ],
)
def test_a_manifest_that_does_not_match_is_refused(pool, change, said):
    change(pool)
    with pytest.raises(DataError, match=said):
        open_pool(pool, GREY)


def test_other_bytes_or_rows_are_refused_by_the_shard(pool):
    paths = sorted((pool / "data").iterdir())
    first, last = paths[0].read_bytes(), paths[3].read_bytes()
    paths[0].write_bytes(last)
    with pytest.raises(DataError, match=r"pool-00000-of-00004.parquet is not what the manifest says: its SHA-256"):
        open_pool(pool, GREY)
    shards = read_manifest(pool)["shards"]
    for content, said in ((last, "other samples than those from number 0"), (first, "has 64 rows")):
        paths[0].write_bytes(content)
        other = shards[0] | {"sha256": hashlib.sha256(content).hexdigest()}
        other |= {"rows": 60, "stop": 60} if content is first else {}
        shifted = [s | {"start": s["start"] - 4, "stop": s["stop"] - 4} for s in shards[1:]]
        settings = read_manifest(pool)["settings"]
        changed = [other, *(shifted if content is first else shards[1:])]
        edit_manifest(pool, shards=changed, settings=settings | {"n": changed[-1]["stop"]})
        with pytest.raises(DataError, match=said):
            open_pool(pool, GREY)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": (1, 28, 28)}, r"shape is \(1, 8, 8\) there, and \(1, 28, 28\)"),
        ({"high": 16.0}, "high is 255.0 there, and 16.0"),
        ({"low": -1.0}, "low is 0.0 there, and -1.0"),
        ({"levels": 17}, "levels is 256 there, and 17"),
        ({"kind": "signal"}, "kind is image there"),
    ],
)
def test_a_pool_of_other_data_is_refused(pool, change, said):
    with pytest.raises(DataError, match=f"{said}.*Draw it from a model of these data"):
        open_pool(pool, GREY.model_copy(update=change))


def test_a_folder_that_was_indexed_as_other_data_can_be_read_as_these(tmp_path):
    images(tmp_path / "set", 12)
    quiet(tmp_path / "set")
    with pytest.raises(DataError, match=r"shape is .* Read it as these data: diled synthesize .*set --data DATA\.$"):
        open_pool(tmp_path / "set", GREY.model_copy(update={"shape": (1, 6, 6)}))


# Test examples in a pool ----------------------------------------------------------------------------------------------


def as_pool(values: np.ndarray, spec: DataSpec = GREY) -> Pool:
    return Pool(values, {"settings": {"data": spec.model_dump(mode="json")}})


def test_test_images_in_a_pool_are_found():
    rng = np.random.default_rng(0)
    test, train, drawn = (rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8) for _ in range(3))
    assert check_disjoint(as_pool(drawn), test).copies == 0
    drawn[[5, 30]] = train[7]
    assert check_disjoint(as_pool(drawn), test, train).copies == 2
    drawn[[11, 20]] = test[[3, 8]]
    with pytest.raises(DataError, match=r"2 of the 40 synthetic samples are test examples, the first is sample 11"):
        check_disjoint(as_pool(drawn), test, train)
    assert duplicates(drawn, test.astype(np.float32)).tolist() == [11, 20]
    drawn[[11, 20]] += np.uint8(1)
    assert check_disjoint(as_pool(drawn), test, train).copies == 2
    with pytest.raises(DataError, match="cannot be looked for"):
        check_disjoint(as_pool(drawn), test[:, :, :4])


def test_binarised_copies_of_grey_test_images_are_found():
    rng = np.random.default_rng(0)
    test, drawn = (rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8) for _ in range(2))
    cut = GREY.model_copy(update={"levels": 2, "binarize": "threshold"})
    grey = drawn.copy()
    grey[9] = np.where(test[2] > 127, 200, 30)  # the same, once it is cut at one half
    assert check_disjoint(as_pool(grey), test).copies == 0
    with pytest.raises(DataError, match="sample 9"):
        check_disjoint(as_pool(grey, cut), test)
    black_and_white = np.where(grey > 127, 255, 0).astype(np.uint8)
    with pytest.raises(DataError, match="sample 9"):
        check_disjoint(as_pool(black_and_white), test)


def test_minus_zero_is_zero():
    assert duplicates(np.array([[-0.0, 1.0]]), np.array([[0.0, 1.0]], np.float32)).tolist() == [0]


# Fresh samples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [64, 100])
def test_fresh_samples_are_those_of_an_endless_set(digits_model, batch):
    draw, whole = fresh(digits_model, 5, batch, steps=2), digits_model.sample(640, steps=2, seed=5)
    for step, rank, ranks in ((0, 0, 1), (3, 0, 1), (1, 1, 2), (0, 2, 3)):
        at = (step * ranks + rank) * batch
        np.testing.assert_array_equal(draw(step, rank, ranks), whole[at : at + batch])
    np.testing.assert_array_equal(draw(3), draw(1, 1, 2))


def test_fresh_refuses_an_empty_batch():
    with pytest.raises(ConfigError, match="batch = 0"):
        fresh(echo(), 0, 0)


# Pipelines of diffusers -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """A tiny random U-Net behind two schedulers."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    root = tmp_path_factory.mktemp("pipelines")
    found = {}
    for name in ("DDIM", "DDPM"):
        scheduler = getattr(diffusers, f"{name}Scheduler")(num_train_timesteps=20)
        found[name] = getattr(diffusers, f"{name}Pipeline")(network, scheduler)
        found[name].set_progress_bar_config(disable=True)
        found[name].save_pretrained(root / name)
    return root, found


@pytest.mark.parametrize("name", ["DDIM", "DDPM"])
def test_a_pipeline_is_drawn_as_diffusers_draws_it(pipelines, tmp_path, name):
    root, pipes = pipelines
    found = quiet(root / name, 70, tmp_path / "pool", shard_size=64, steps=4, seed=3, device="cpu")
    values = open_pool(tmp_path / "pool", GREY).values
    generators = [torch.Generator().manual_seed(seed_from(3, i)) for i in range(70)]
    theirs = pipes[name](batch_size=70, generator=generators, num_inference_steps=4, output_type="np").images
    np.testing.assert_array_equal(values[:, 0], np.rint(theirs * 255).astype(np.uint8)[..., 0])
    assert found["source"] == {"kind": "diffusers", "name": name}
    assert found["settings"]["sampler"] == f"{name}Scheduler, 4 steps"
    content = (root / name / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert found["settings"]["weights"] == hashlib.sha256(content).hexdigest()


def test_a_pipeline_of_few_steps_takes_all_of_them(pipelines, tmp_path):
    found = quiet(pipelines[0] / "DDIM", 64, tmp_path / "pool", device="cpu")
    assert found["settings"]["sampler"] == "DDIMScheduler, 20 steps"


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "heun", "dpm_solver"])
def test_a_pipeline_takes_other_samplers(pipelines, tmp_path, sampler):
    found = quiet(pipelines[0] / "DDPM", 64, tmp_path / "pool", sampler=sampler, steps=5, device="cpu")
    assert "5 steps" in found["settings"]["sampler"]
    assert open_pool(tmp_path / "pool", GREY).values.std() > 10


def test_a_pipeline_of_other_images_is_refused_before_training(pipelines, tmp_path, capsys):
    """Grey 8 x 8 of 256 levels: digits have 17, other images another shape; images like them train."""
    from tiny import diled as command

    def trained(data, name):
        options = ["--model", "vae", "--training.steps", 2, "--report", "false", "--device", "cpu"]
        return command("train", data, *options, "--pool.fresh", pipelines[0] / "DDPM", "--out", tmp_path / name)

    folders = {side: tmp_path / f"images{side}" for side in (6, 8)}
    for side, folder in folders.items():
        folder.mkdir()
        for i in range(12):
            Image.fromarray(np.full((side, side), 20 * i, np.uint8)).save(folder / f"{i}.png")
    assert trained("digits", "a") == 2
    assert "draws other data: high is 255.0 there and 16.0 in digits" in capsys.readouterr().err
    assert trained(folders[6], "b") == 2
    assert "draws other data: shape is (1, 8, 8) there and (1, 6, 6) in images6" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
    assert trained(folders[8], "c") == 0


def test_a_pipeline_that_cannot_be_drawn_from_is_refused(pipelines, tmp_path):
    import shutil

    root, _ = pipelines
    for options, said in (
        ({"sampler": "dimm"}, "Did you mean 'ddim'"),
        ({"steps": 0}, "steps = 0"),
        ({"steps": 21}, "cannot be used.*Choose other --steps"),
        ({"draw": True}, "draw has no meaning"),
    ):
        with pytest.raises(ConfigError, match=said):
            quiet(root / "DDPM", 64, tmp_path / "pool", device="cpu", **options)
    for change, said in (
        (lambda p: (p / "unet" / "diffusion_pytorch_model.safetensors").rename(p / "unet" / "a.bin"), "not opened"),
        (lambda p: (p / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut"), "cannot be loaded"),
        (lambda p: (p / "scheduler" / "scheduler_config.json").unlink(), "cannot be read"),
        (
            lambda p: (p / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}'),
            "StableDiffusion",
        ),
        (lambda p: edit_index(p, ["mine", "Evil"]), "without a condition"),
    ):
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root / "DDPM", folder)
        change(folder)
        with pytest.raises(ModelError, match=said):
            quiet(folder, 64, tmp_path / "pool", device="cpu")


def edit_index(folder: Path, unet: list[str]) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unet": unet}))


# Samples of others ----------------------------------------------------------------------------------------------------


def images(folder: Path, n: int, first: int = 0) -> np.ndarray:
    values = np.random.default_rng(first).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for i, one in enumerate(values):
        Image.fromarray(one[0]).save(folder / f"{i:03d}.png")
    return values


def test_folders_of_images_are_indexed(tmp_path):
    values = np.concatenate([images(tmp_path / "set" / name, 8, i) for i, name in enumerate("ab")])
    found = quiet(tmp_path / "set", probe=True)
    assert [(s["file"], s["start"], s["stop"]) for s in found["shards"]] == [("a/", 0, 8), ("b/", 8, 16)]
    assert found["probe"]["mean"] == pytest.approx(values[:8].mean())
    np.testing.assert_array_equal(open_pool(tmp_path / "set", GREY).values, values)
    assert quiet(tmp_path / "set", 16, tmp_path / "set")["settings"]["n"] == 16  # once more, over the same
    lines: list[str] = []
    synthesize(tmp_path / "set", probe=False, say=lines.append)
    assert lines[0].startswith("16 samples of")
    assert f"--pool.source {tmp_path / 'set'}" in lines[0]
    (tmp_path / "set" / "b" / "003.png").unlink()
    with pytest.raises(DataError, match="SHA-256 differs"):
        open_pool(tmp_path / "set", GREY)
    images(tmp_path / "set" / "c", 2)
    with pytest.raises(DataError, match="holds c/"):
        open_pool(tmp_path / "set", GREY)


def test_arrays_and_parquet_are_indexed(tmp_path, pool):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (n, 6, 5, 3), dtype=np.uint8) for n in (9, 4)]  # channels last
    (tmp_path / "npy").mkdir()
    for i, array in enumerate(arrays):
        np.save(tmp_path / "npy" / f"{i}.npy", array)
    quiet(tmp_path / "npy")
    values = open_pool(tmp_path / "npy", COLOUR).values
    np.testing.assert_array_equal(values, np.moveaxis(np.concatenate(arrays), -1, 1))
    (pool / "manifest.json").unlink()
    found = quiet(pool)
    assert found["source"] == {"kind": "folder", "name": "pool"}
    np.testing.assert_array_equal(open_pool(pool, GREY).values, echo().sample(256)[:200])
    np.save(tmp_path / "npy" / "0.npy", arrays[0] ^ 1)
    with pytest.raises(DataError, match=r"0\.npy is not what the manifest says"):
        open_pool(tmp_path / "npy", COLOUR)
    np.save(tmp_path / "npy" / "2.npy", np.zeros((3, 4)))
    with pytest.raises(DataError, match="differ in shape"):
        quiet(tmp_path / "npy")


def test_samples_are_read_as_the_data_that_are_named(tmp_path):
    (tmp_path / "set").mkdir()
    np.save(tmp_path / "set" / "a.npy", np.full((12, 8, 8), 3, np.uint8))  # by itself: a constant
    found = quiet(tmp_path / "set", data="digits", probe=True)
    spec = open_data("digits").spec
    assert found["settings"]["data"]["levels"] == 17
    assert found["probe"]["mean"] == 3
    assert found["probe"]["frechet_training"]["value"] > 1
    assert len(open_pool(tmp_path / "set", spec)) == 12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 3}, "leave out steps"),
        ({"seed": 1, "draw": True}, "leave out draw, seed"),
        ({"dtype": "bf16"}, "leave out dtype"),
        ({"device": "cpu"}, "leave out device"),
        ({"shard_size": 10}, "leave out shard_size"),
        ({"n": 13}, "holds 12 samples, not 13"),
        ({"out": "elsewhere"}, "leave out --out"),
    ],
)
def test_what_has_no_meaning_for_an_index_is_refused(tmp_path, options, said):
    images(tmp_path / "set", 12)
    with pytest.raises(diled.errors.DiledError, match=said):
        quiet(tmp_path / "set", **options)
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_folders_that_cannot_be_indexed_are_refused(tmp_path, pool):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no samples"):
        quiet(tmp_path / "empty")
    images(tmp_path / "mixed", 12)
    np.save(tmp_path / "mixed" / "a.npy", np.zeros((12, 8, 8)))
    with pytest.raises(DataError, match=r"holds \.npy and image files"):
        quiet(tmp_path / "mixed")
    images(tmp_path / "sizes", 12)
    Image.new("L", (9, 9)).save(tmp_path / "sizes" / "z.png")
    with pytest.raises(
        DataError, match=r"differ in size.*has no such option: bring them to one kind and size first\.$"
    ):
        quiet(tmp_path / "sizes")
    with pytest.raises(ConfigError, match="a manifest of its own"):
        quiet(pool)
    with pytest.raises(ModelError, match="no model folder"):
        quiet(tmp_path / "nowhere", 64, tmp_path / "out")


# Quality --------------------------------------------------------------------------------------------------------------


def test_the_probe_compares_with_training_data(digits_model, tmp_path):
    """Of training examples themselves: no distance to the nearest, and a Frechet distance at its floor."""
    data = open_data("digits")

    class Copies(Echo):
        def sample(self, n, *, noise=None, mean=False):
            rows = torch.arange(n) % len(data.train)
            return torch.from_numpy(data.train.values[rows]).float() / 8 - 1

    quiet(Model(Copies((1, 8, 8)), data.spec), 512, tmp_path / "copies", data="digits", probe=True)
    quiet(digits_model, 512, tmp_path / "drawn", data="digits", probe=True, steps=2)
    copies, drawn = (read_manifest(tmp_path / name)["probe"] for name in ("copies", "drawn"))
    assert copies["nearest_training"]["mean"] == pytest.approx(0, abs=1e-5)
    assert drawn["nearest_training"]["mean"] > copies["nearest_training"]["held_out_mean"] > 1
    assert copies["frechet_training"]["value"] < 0.1 * drawn["frechet_training"]["value"]
    held_out, train = (s.values.reshape(len(s), -1).astype(float) / 8 for s in (data.validation, data.train))
    expected = cdist(held_out, train).min(1).mean()
    assert copies["nearest_training"]["held_out_mean"] == pytest.approx(expected, rel=1e-5)
    first = data.train.values[:512].astype(float)
    assert copies["mean"] == pytest.approx(first.mean())
    assert copies["std"] == pytest.approx(first.std())


def test_the_probe_of_proteins_counts_residues(tmp_path):
    spec = protein_spec(4, symbols=("", *"ACDE"))
    train, held_out = np.array([[1, 2, 3, 4], [1, 1, 1, 1]]), np.array([[1, 2, 3, 1], [2, 2, 2, 2]])
    splits = (Split(rows.astype(np.uint8), {}, ["a", "b"]) for rows in (train, held_out, held_out))
    data = Data("four", spec, *splits, [])
    drawn = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [4, 4, 4, 1]], np.uint8)
    found = synthesizing._quality(drawn, spec, data)
    assert found["samples"] == 3
    assert found["unique"] == found["copied"] == pytest.approx(2 / 3)
    assert found["nearest_training"] == {"mean": 1.0, "least": 0.0, "held_out_mean": 2.0, "n": [3, 2]}
    alone = synthesizing._quality(drawn, spec, None)
    assert alone == {"samples": 3, "unique": found["unique"], "copied": None, "nearest_training": None}


@pytest.mark.parametrize(("data", "there"), [("digits", True), ("nowhere.npy", False)])
def test_a_run_knows_its_training_data(digits_model, tmp_path, data, there):
    run = RunConfig(data=data, name="diled", model=digits_model.config)
    digits_model.save(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(run.model_dump_json())
    found = quiet(tmp_path / "run", 64, tmp_path / "pool", steps=1, device="cpu", probe=True)["probe"]
    assert (found["nearest_training"] is not None) == there
    assert (found["frechet_training"] is not None) == there


def test_without_data_the_probe_has_no_distances(tmp_path):
    found = quiet(echo(), 64, tmp_path / "pool", probe=True)["probe"]
    expected = from_model(echo().density.sample(64, noise=_noise(), mean=True).detach().numpy(), GREY)
    assert found["mean"] == pytest.approx(expected.mean())
    assert found["nearest_training"] is None
    assert found["frechet_training"] is None


def _noise():
    from diled.draws import BlockNoise

    return BlockNoise(0)
