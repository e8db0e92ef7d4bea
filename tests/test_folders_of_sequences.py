"""Tables and files beside each other: each is read as it would be alone, and what is left out is named."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_proteins_data import everything, fasta, said, table

import diled
from diled import cli
from diled.config import PreprocessConfig, SequenceConfig
from diled.data import Data, open_data
from diled.errors import ConfigError, DataError, DiledError, NoColumn

PROTEINS = [f"MKT{a}{b}LLVW" for a in "ACDEFG" for b in "HIKLMN"]
VALUES = [i / 7 for i in range(36)]
SMALL = {"training.steps": 2, "model.latent_dim": 2}


def opened(source: Path, image_column: str = "image", **options: str) -> Data:
    return open_data(source, PreprocessConfig(sequence=SequenceConfig(**options), image_column=image_column))


def images(n: int, size: int = 8) -> list[bytes]:
    """Grey pictures as PNG files."""
    found = []
    for i in range(n):
        file = io.BytesIO()
        Image.new("L", (size, size), i).save(file, "PNG")
        found.append(file.getvalue())
    return found


def grey(value: int) -> np.ndarray:
    """One grey picture of the size of `images`."""
    return np.full((1, 1, 8, 8), value, np.uint8)


def class_names(**names: list[str]) -> dict[str, str]:
    """Metadata of a Parquet file that declare classes, as Hugging Face `datasets` writes them."""
    return {"huggingface": json.dumps({"info": {"features": {c: {"names": n} for c, n in names.items()}}})}


@pytest.mark.parametrize(
    ("tables", "lines", "config"),
    [
        (["train.csv"], "test_results.txt", {}),
        (["train.fasta"], "test_notes.txt", {}),
        (["train.csv", "valid.csv"], "test_README.txt", {"column": "sequence"}),
        (["train.csv"], "test.txt", {}),
    ],
)
def test_lines_beside_tables_are_remarks_and_named(tmp_path: Path, tables: list[str], lines: str, config: dict):
    for i, name in enumerate(tables):
        part = PROTEINS[i::2]
        if name.endswith(".fasta"):
            fasta(tmp_path / name, part)
        else:
            table(tmp_path / name, {"sequence": part, "y": VALUES[i::2]})
    alone = opened(tmp_path, **config)
    (tmp_path / lines).write_text("Remarks: how these were measured.\nmktahllvw\n")
    (tmp_path / "cells.npz").write_bytes(b"")
    data = opened(tmp_path, **config)
    assert said(data, f"Left out beside {tables[0]}: cells.npz, {lines}.")
    assert data.spec == alone.spec
    assert everything(data) == everything(alone)
    assert list(data.train.labels) == ([] if tables == ["train.fasta"] else ["y"])


def test_a_folder_with_one_file_is_that_file(tmp_path: Path):
    captions = [f"a caption of {i} words" for i in range(40)]
    for name, columns, options in (
        ("own", {"img": images(40), "caption": captions}, {"image_column": "img"}),
        ("smiles", {"smiles": [f"CC(=O)O{i}" for i in range(40)]}, {"kind": "text", "column": "smiles"}),
    ):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(columns), tmp_path / name / "a.parquet")
        whole, single = opened(tmp_path / name, **options), opened(tmp_path / name / "a.parquet", **options)
        assert whole.spec == single.spec
        assert np.array_equal(whole.train.values, single.train.values)
    classes = pa.array(["CAT", "DEER"] * 20).dictionary_encode()
    pq.write_table(pa.table({"pic": images(40), "title": classes}), tmp_path / "classes.parquet")
    with pytest.raises(DataError, match=r"has no column 'image'.*--preprocess.image_column"):
        opened(tmp_path / "classes.parquet")
    assert opened(tmp_path / "classes.parquet", image_column="pic").spec.labels == {"title": ["CAT", "DEER"]}


def test_names_stay_as_they_are_written(tmp_path: Path):
    names = ["0001", "001", "01", "0.10", "1e3", "", "NA", *map("{:04d}".format, range(2, 31))]
    plates = [f"00{i % 3}" for i in range(36)]
    path = table(tmp_path / "a.csv", {"id": names, "sequence": PROTEINS, "plate": plates, "y": VALUES})
    data = opened(path)
    ids = [i for split in (data.train, data.validation, data.test) for i in split.ids]
    assert set(ids) == {*names, "5"} - {""}, "an empty one is the number of its row"
    assert everything(data)["0.10"] == PROTEINS[3]
    assert data.spec.labels == {"plate": ["000", "001", "002"], "y": []}
    diled.train(path, model="vae", out=tmp_path / "run", report=False, settings=SMALL)
    diled.encode(tmp_path / "run", path, out=tmp_path / "codes.parquet")
    assert pq.read_table(tmp_path / "codes.parquet").column("id").to_pylist() == ["5" if n == "" else n for n in names]


def test_columns_that_not_every_file_has_are_named(tmp_path: Path):
    table(tmp_path / "one.csv", {"sequence": PROTEINS[:20], "fitness": VALUES[:20], "y": VALUES[:20]})
    table(tmp_path / "two.csv", {"sequence": PROTEINS[20:], "Fitness": VALUES[20:], "y": VALUES[20:]})
    data = opened(tmp_path)
    assert said(data, "Left out, because not every file has them: Fitness, fitness.")
    assert list(data.train.labels) == ["y"]


def test_whole_numbers_are_told_to_be_what_they_become(tmp_path: Path):
    for different, classes in ((15, True), (19, False)):
        data = opened(table(tmp_path / "a.csv", {"sequence": PROTEINS, "n": [i % different for i in range(36)]}))
        assert bool(data.spec.labels["n"]) == classes
        assert said(data, "different whole numbers: classes") == classes


@pytest.mark.parametrize("kind", ["images", "sequences", "files", "picture files"])
def test_classes_that_files_number_differently_keep_their_names(tmp_path: Path, kind: str):
    """Of a row its number says the class that its own file declares."""
    orders = {"train": ["cat", "dog"], "test": ["dog", "cat"]}
    for part, (name, names) in enumerate(orders.items()):
        own = {"image": images(40)} if kind in ("images", "picture files") else {"sequence": PROTEINS[part::2] * 2}
        n = len(next(iter(own.values())))
        animals = [("cat", "dog")[i % 2] for i in range(n)]
        own |= {"number": range(40 * part, 40 * part + n)} if kind == "picture files" else {}
        ids = [f"{part}{animal}{i}" for i, animal in enumerate(animals)]
        rows = pa.table(own | {"id": ids, "label": [names.index(animal) for animal in animals]})
        stem = name if "files" not in kind else f"part{part}"
        pq.write_table(rows.replace_schema_metadata(class_names(label=names)), tmp_path / f"{stem}.parquet")
    data = opened(tmp_path)
    assert data.spec.labels["label"] == ["cat", "dog"]
    for split in (data.train, data.validation, data.test):
        if kind == "picture files":
            assert split.labels["label"].tolist() == [int(n) % 2 for n in split.labels["number"]]
        elif kind == "images":
            assert split.labels["label"].tolist() == [int(i.split("/")[-1]) % 2 for i in split.ids]
        else:
            assert [data.spec.labels["label"][v] in i for i, v in zip(split.ids, split.labels["label"], strict=True)]


@pytest.mark.parametrize("kind", ["images", "sequences"])
def test_a_file_that_declares_no_classes_means_them_as_the_others_do(tmp_path: Path, kind: str):
    for i, name in enumerate(("train", "test")):
        own = {"image": images(40)} if kind == "images" else {"sequence": PROTEINS[i::2] * 2}
        rows = pa.table(own | {"label": [j % 2 for j in range(len(next(iter(own.values()))))]})
        declared = class_names(label=["cat", "dog"]) if name == "test" else {}
        pq.write_table(rows.replace_schema_metadata(declared), tmp_path / f"{name}.parquet")
    data = opened(tmp_path)
    assert data.spec.labels["label"] == ["cat", "dog"]
    assert all(set(split.labels["label"].tolist()) == {0, 1} for split in (data.train, data.test))


def test_a_column_that_is_there_is_read_or_refused_and_no_other(tmp_path: Path):
    pq.write_table(pa.table({"image": images(40), "mask": images(40, size=16)}), tmp_path / "big.parquet")
    pq.write_table(pa.table({"mask": images(12)}), tmp_path / "asked.parquet")
    pq.write_table(pa.table({"image": images(40)}), tmp_path / "plain.parquet")
    diled.train(tmp_path / "plain.parquet", model="vae", out=tmp_path / "run", report=False, settings=SMALL)
    run, asked = tmp_path / "run", tmp_path / "asked.parquet"
    with pytest.raises(DiledError, match=r"16, 16\) in big"):
        diled.search(run, asked, data=tmp_path / "big.parquet", column="mask", k=1)
    assert diled.search(run, asked, data=tmp_path / "plain.parquet", column="mask", k=1)
    with pytest.raises(NoColumn, match="no column 'mask'"):
        diled.search(run, tmp_path / "plain.parquet", data=tmp_path / "plain.parquet", column="mask", k=1)
    way = diled.interpolate(run, asked, asked, column="mask", steps=3)
    assert way.shape == (12, 3, 1, 8, 8)
    assert np.array_equal(way[0], diled.interpolate(run, grey(0), grey(0), steps=3))
    with pytest.raises(NoColumn, match="no column 'mask'"):
        diled.interpolate(run, asked, tmp_path / "plain.parquet", column="mask")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ConfigError, match="'column' has no meaning here"):
        diled.encode(run, tmp_path / "pictures", column="mask")
    for name in ("~nobody-at-all/x.png", "A" * 5000 + ".npy"):
        for column in ({}, {"column": "mask"}):
            with pytest.raises((DataError, ConfigError)):
                diled.encode(run, name, **column)


def test_designs_are_sought_with_the_column_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = table(tmp_path / "a.csv", {"sequence": PROTEINS, "y": VALUES})
    diled.train(path, model="vae", out=tmp_path / "run", report=False, settings=SMALL)
    two = table(tmp_path / "two.csv", {"heavy": PROTEINS, "light": [p[::-1] for p in PROTEINS], "y": VALUES})
    asked = ["optimize", str(tmp_path / "run"), "--data", str(two), "--n", "2", "--method", "evolution", "--steps", "1"]
    assert cli.main(asked) == 2
    assert "heavy, light. Choose one with --column" in capsys.readouterr().err
    assert cli.main([*asked, "--members", "2", "--column", "light"]) == 0
