"""Lists of numbers in Parquet files: read as what the schema says, as the arrays that they are, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diled.config import DataSpec, PreprocessConfig
from diled.data import open_data, read_examples
from diled.data.shards import decoded, encoded
from diled.data.synthesis import begin, complete, open_pool, plan, write_shard
from diled.errors import DataError

DIGITS = DataSpec(kind="image", shape=(1, 8, 8), levels=17, low=0, high=16)
SIGNALS = DataSpec(kind="signal", shape=(2, 20), levels=None, low=-1.5, high=4.0)
VECTORS = DataSpec(kind="vector", shape=(5,), levels=None, low=-2.0, high=3.0)
SPECS = pytest.mark.parametrize("spec", [DIGITS, SIGNALS, VECTORS], ids=["digits", "signals", "vectors"])


def some(spec: DataSpec, n: int = 40) -> np.ndarray:
    """Values that leave both ends of their scale alone."""
    rng = np.random.default_rng(0)
    if spec.levels is None:
        return rng.uniform(spec.low + 0.5, spec.high - 0.5, (n, *spec.shape)).astype(np.float32)
    return rng.integers(1, 12, (n, *spec.shape), dtype=np.uint8)


def in_order(data) -> np.ndarray:
    """All examples, in the order of the rows that they come from."""
    rows = {int(i): x for s in (data.train, data.validation, data.test) for i, x in zip(s.ids, s.values, strict=True)}
    return np.stack([rows[i] for i in range(len(rows))])


def written(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def fixed(values: np.ndarray) -> pa.Array:
    """Nested lists of fixed size."""
    array = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def refused(path: Path, *said: str, **options) -> None:
    with pytest.raises(DataError) as caught:
        open_data(path, PreprocessConfig(**options))
    for piece in said:
        assert piece in str(caught.value)


# Shards of ours -------------------------------------------------------------------------------------------------------


def pool(folder: Path, spec: DataSpec, values: np.ndarray) -> Path:
    begin(folder, {"n": len(values), "data": spec.model_dump(mode="json")}, {"source": {"kind": "run", "name": "a"}})
    shards = plan(len(values), 15)
    for one in shards:
        write_shard(folder, one, values[one.start : one.stop], spec)
    assert complete(folder, shards)
    return folder


@SPECS
def test_a_set_of_lists_is_opened_as_the_data_that_it_stands_for(tmp_path, spec):
    values = some(spec)
    data = open_data(pool(tmp_path / "pool", spec, values))
    kept = ("kind", "shape", "levels", "low", "high")
    assert [getattr(data.spec, key) for key in kept] == [getattr(spec, key) for key in kept]
    np.testing.assert_array_equal(in_order(data), values)
    assert data.train.values.dtype == values.dtype
    np.testing.assert_array_equal(read_examples(tmp_path / "pool", spec), values)
    np.testing.assert_array_equal(open_pool(tmp_path / "pool", spec).values, values)


@SPECS
def test_one_shard_says_by_itself_what_it_holds(tmp_path, spec):
    values = some(spec)
    (tmp_path / "a.parquet").write_bytes(encoded(values, 0, spec))
    data = open_data(tmp_path / "a.parquet")
    assert (data.spec.shape, data.spec.low, data.spec.high) == (spec.shape, spec.low, spec.high)
    np.testing.assert_array_equal(in_order(data), values)
    np.testing.assert_array_equal(decoded(encoded(values, 7, spec), 7, spec, "a"), values)


def test_grey_values_of_binarised_data_keep_a_scale_of_their_own(tmp_path):
    spec = DIGITS.model_copy(update={"levels": 2, "binarize": "dynamic"})
    (tmp_path / "a.parquet").write_bytes(encoded(some(DIGITS), 0, spec))
    data = open_data(tmp_path / "a.parquet")
    assert (data.spec.shape, data.spec.levels, data.spec.low, data.spec.high) == ((1, 8, 8), 11, 1, 11)


def test_statements_that_are_not_true_are_refused(tmp_path):
    def state(values, *said):
        for i, one in enumerate(said):
            metadata = {"diled": one if isinstance(one, str) else json.dumps(one.model_dump(mode="json"))}
            table = pa.table({"values": fixed(values)}).replace_schema_metadata(metadata)
            pq.write_table(table, tmp_path / f"{i}.parquet")
        return tmp_path

    values = some(DIGITS).reshape(40, 64)
    refused(state(values + 9, DIGITS), "0 to 16", "holds 10 to 20")
    refused(state(values, DIGITS.model_copy(update={"shape": (1, 8, 9)})), "lists of 64 numbers", "(1, 8, 9)")
    refused(state(values, '{"kind": "smell"}'), "cannot be read", "kind")
    refused(state(values, "no json"), "cannot be read")
    refused(state(values, DIGITS, DIGITS.model_copy(update={"high": 20.0, "levels": 21})), "different data")


# Files of others ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6,), (2, 20), (9, 10), (3, 7, 8)])
@pytest.mark.parametrize("how", ["fixed", "any", "large"])
def test_lists_of_others_are_read_as_arrays_are(tmp_path, shape, how):
    values = some(VECTORS, 40 * np.prod(shape))[:, 0].reshape(40, *shape)
    array = fixed(values)
    if how != "fixed":
        kind = pa.float32()
        for _ in shape:
            kind = pa.list_(kind) if how == "any" else pa.large_list(kind)
        array = pa.array(values.tolist(), kind)
    data = open_data(written(tmp_path / "a.parquet", values=array, label=[0, 1] * 20))
    theirs = open_data(values)
    assert data.spec.model_copy(update={"labels": {}}) == theirs.spec
    np.testing.assert_array_equal(in_order(data), in_order(theirs))
    assert data.train.labels["label"].tolist() == [int(i) % 2 for i in data.train.ids]


def test_slices_and_chunks_are_read_in_order(tmp_path):
    """A list that begins within its memory, and several groups of rows."""
    values = some(VECTORS, 50)
    pq.write_table(pa.table({"x": fixed(values)}).slice(10), tmp_path / "a.parquet", row_group_size=7)
    np.testing.assert_array_equal(
        in_order(open_data(tmp_path / "a.parquet", PreprocessConfig(image_column="x"))), values[10:]
    )


def test_splits_by_name_and_whole_numbers(tmp_path):
    values = some(DIGITS, 60).reshape(60, 64)
    for name, rows in {"train": slice(0, 40), "test": slice(40, 60)}.items():
        written(tmp_path / f"set-{name}.parquet", values=fixed(values[rows]))
    data = open_data(tmp_path)
    np.testing.assert_array_equal(data.test.values, values[40:])
    assert (data.spec.kind, data.spec.levels, data.train.values.dtype) == ("vector", 11, np.uint8)


def test_datasets_writes_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    values = some(VECTORS)
    pictures = some(DIGITS)[:, 0]
    features = datasets.Features(
        {
            "values": datasets.Sequence(datasets.Value("float32"), length=5),
            "free": datasets.Sequence(datasets.Value("float32")),
            "image": datasets.Array2D((8, 8), "uint8"),
        }
    )
    columns = {"values": values.tolist(), "free": values.tolist(), "image": pictures.tolist()}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "a.parquet"))
    for column, wanted in {"values": values, "free": values, "image": pictures[:, None]}.items():
        data = open_data(tmp_path / "a.parquet", PreprocessConfig(image_column=column))
        np.testing.assert_array_equal(in_order(data), wanted)


def test_lists_that_are_no_data_are_refused(tmp_path):
    path, rows = tmp_path / "a.parquet", some(VECTORS).tolist()
    fixed_or_any = pa.array([row[: 5 if i < 10 else 4] for i, row in enumerate(rows)], pa.list_(pa.float32()))
    written(path, values=[*rows[:-1], rows[-1][:3]])
    refused(path, "'values' of a.parquet", "differ in length, such as 3 and 5")
    written(path, values=[*rows[:-1], None])
    refused(path, "the column 'values' of a.parquet has missing entries (1)")
    written(path, values=pa.array([*rows[:-1], [*rows[-1][:4], None]], pa.list_(pa.float32(), 5)))
    refused(path, "the column 'values' of a.parquet has missing entries (1)")
    written(path, values=[["a", "b"]] * 20)
    refused(path, "no column 'image'")
    refused(path, "list<element: string>", "lists of numbers", image_column="values")
    written(path, values=pa.array([], pa.list_(pa.float32(), 5)))
    refused(path, "empty")
    written(path, values=pa.array([[]] * 20, pa.list_(pa.float32())))
    refused(path, "The lists in the column 'values' of a.parquet are empty")
    written(path, values=pa.chunked_array([fixed_or_any[:10], fixed_or_any[10:]]))
    refused(path, "differ in length, such as 4 and 5")


def test_a_mixture_of_images_and_lists_is_refused(tmp_path):
    written(tmp_path / "train.parquet", values=fixed(some(VECTORS)))
    written(tmp_path / "test.parquet", image=[b"PNG"] * 12)
    refused(tmp_path, "encoded images in some splits and lists of numbers in others")
