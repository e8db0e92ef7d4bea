"""What goes wrong in a user's hands: one short sentence each, with the input's name, the fault and the way out."""

import io
import os
import pickle
import struct
import sys
import tracemalloc
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from diled.config import DataSpec, PreprocessConfig
from diled.data import open_data, open_examples, read_examples
from diled.data.labels import encode_labels
from diled.data.splits import Part
from diled.errors import DataError, DataWarning

GREY = DataSpec(kind="image", shape=(1, 28, 28), levels=256, mode="L")


def refused(source, *words, preprocess=None, **options):
    """`source` is refused with a message that has all the words, on one line of a readable length."""
    with pytest.raises(DataError) as caught:
        open_data(source, preprocess or PreprocessConfig(), **options)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    assert "\n" not in message
    assert len(message) < 700
    return message


def picture(path, mode="L", size=(4, 4), value=7):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def folder(path, n=12, **options):
    for i in range(n):
        picture(path / f"{i:02d}.png", **options)
    return path


def bomb(path, side=100_000):
    """A valid PNG header that promises `side` x `side` pixels, and nothing behind it."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


# Paths


def test_missing_path_names_its_neighbour_and_the_known_sets(tmp_path):
    folder(tmp_path / "photos")
    refused(tmp_path / "photo", "no file or folder", "Did you mean 'photos'?", "mnist")
    refused("mnits", "Did you mean 'mnist'?", "digits")
    refused(tmp_path / "none" / "there", "no file or folder")
    refused("", "empty name")
    refused("a\0b", "no usable path")
    refused(42, "not by int")
    refused(None, "not by NoneType")


def test_folders_without_images(tmp_path):
    refused(tmp_path, "is empty")
    (tmp_path / "notes.md").write_text("text")
    refused(tmp_path, "holds no images", ".md", ".png", ".parquet")


def test_too_few_images(tmp_path):
    picture(tmp_path / "only.png")
    refused(tmp_path, "only one image", "at least 10")
    refused(tmp_path / "only.png", "one image cannot train a model")
    folder(tmp_path, 9)
    (tmp_path / "only.png").unlink()
    refused(tmp_path, "only 9 examples", "at least 10")
    refused(np.zeros((1, 5)), "only one example")


def test_a_division_that_leaves_nothing(tmp_path):
    config = PreprocessConfig(validation_fraction=0.6, test_fraction=0.6)
    refused(folder(tmp_path), "none left to train on", "--preprocess.validation_fraction", preprocess=config)


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib"])
def test_pickles_are_refused_and_never_loaded(tmp_path, suffix):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    for name in (f"a{suffix}", "b.npy", "c.npz"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    refused(tmp_path / f"a{suffix}", "refused", "run code", ".npy")
    refused(tmp_path / "b.npy", "not a NumPy file")
    refused(tmp_path / "c.npz", "not a NumPy file")
    np.save(tmp_path / "d.npy", np.array([Trap()] * 12), allow_pickle=True)
    np.savez(tmp_path / "e.npz", images=np.array([Trap()] * 12))
    for name in ("d.npy", "e.npz"):
        refused(tmp_path / name, "Python objects", "never loaded")
        with pytest.raises(DataError, match="never loaded"):
            read_examples(tmp_path / name, GREY)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.doc", ("'.doc'", "not read", ".parquet", ".npz", ".fasta")),
        ("a", ("'none'",)),
        ("a.zip", ("unpack",)),
        ("a.safetensors", ("weights",)),
    ],
)
def test_other_extensions(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path / name, *words)


# Damaged images


def damage(path, kind):
    """A file at `path` that is no readable image."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(file, "JPEG" if kind == "jpeg" else "PNG")
    body = file.getvalue()
    content = {"empty": b"", "text": b"no image at all", "png": body[: len(body) // 2], "jpeg": body[: len(body) // 2]}
    path.write_bytes(content[kind])


@pytest.mark.parametrize("kind", ["empty", "text", "png", "jpeg"])
def test_damaged_files_stop_or_are_skipped_and_counted(tmp_path, kind):
    for i in range(20):
        picture(tmp_path / f"{i:02d}.png", "RGB", (64, 64), (i, 0, 200))
    name = "zz.jpg" if kind == "jpeg" else "zz.png"
    damage(tmp_path / name, kind)
    # Whichever split the file falls into, it must be found.
    for seed in range(3):
        refused(tmp_path, name, "cannot be read as an image", "--preprocess.on_error skip", seed=seed)
    data = open_data(tmp_path, PreprocessConfig(on_error="skip"))
    ids = data.train.ids + data.validation.ids + data.test.ids
    assert sorted(ids) == [f"{i:02d}.png" for i in range(20)]
    for split in (data.train, data.validation, data.test):
        assert [int(i[:2]) for i in split.ids] == split.values[:, 0, 0, 0].tolist()
    assert any("1 of 21 files could not be read and were left out: " + name in note for note in data.notes)


def test_nothing_readable(tmp_path):
    for i in range(12):
        damage(tmp_path / f"{i}.png", "text")
    refused(tmp_path, "None of the 12 images", preprocess=PreprocessConfig(on_error="skip"))


def test_image_bombs_are_refused_from_the_header(tmp_path, recwarn):
    folder(tmp_path)
    bomb(tmp_path / "bomb.png")
    refused(tmp_path, "bomb.png", "image bomb")
    bomb(tmp_path / "bomb.png", 10_000)  # below Pillow's own limit of 179 million pixels, above ours
    refused(tmp_path, "bomb.png", "image bomb", "--preprocess.max_pixels", "64,000,000")
    assert len(open_data(tmp_path, PreprocessConfig(on_error="skip")).train) == 10
    refused(tmp_path, "more than --preprocess.max_pixels 10 allows", preprocess=PreprocessConfig(max_pixels=10))
    assert not [w for w in recwarn if "DecompressionBomb" in w.category.__name__]
    with pytest.raises(DataError, match="image bomb"):
        read_examples(tmp_path / "bomb.png", GREY)


def test_pictures_that_training_allowed_are_read_again(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    for i in range(20):
        Image.new("L", (6, 6), i).save(tmp_path / "data" / f"{i}.png")
    large = PreprocessConfig(max_pixels=200_000_000)
    spec = open_data(tmp_path / "data", large).spec
    assert spec.reading == {"max_pixels": "200000000"}
    with pytest.raises(DataError, match=r"more than --preprocess\.max_pixels 10 allows"):
        read_examples(tmp_path / "data", spec.model_copy(update={"reading": {"max_pixels": "10"}}))
    assert len(read_examples(tmp_path / "data", spec)) == 20


# Mixtures


def test_mixed_kinds_are_counted(tmp_path):
    folder(tmp_path / "a", 7)
    folder(tmp_path / "b", 5, mode="RGB", value=(1, 2, 3))
    refused(tmp_path, "7 grey", "5 RGB", "--preprocess.channels grey|rgb|rgba")


def test_kinds_that_need_a_choice(tmp_path):
    for i in range(12):
        picture(tmp_path / "cmyk" / f"{i}.jpg", "CMYK", value=(1, 2, 3, 4))
        picture(tmp_path / "la" / f"{i}.png", "LA", value=(9, 128))
    refused(tmp_path / "cmyk", "CMYK", "--preprocess.channels")
    refused(tmp_path / "la", "grey with transparency", "--preprocess.channels")
    assert open_data(tmp_path / "cmyk", PreprocessConfig(channels="rgb")).spec.mode == "RGB"
    rgba = open_data(tmp_path / "la", PreprocessConfig(channels="rgba"))
    assert rgba.train.values[0, :, 0, 0].tolist() == [9, 9, 9, 128]
    grey = open_data(tmp_path / "la", PreprocessConfig(channels="grey"))
    assert (grey.train.values == 9).all()
    assert any("transparency dropped" in note for note in grey.notes)


def test_mixed_sizes_are_counted(tmp_path):
    folder(tmp_path / "a", 7)
    folder(tmp_path / "b", 5, size=(640, 480))
    refused(tmp_path, "7 of 4x4", "5 of 640x480 (width x height)", "--preprocess.size")
    refused(tmp_path, "7 of 4x4", "size_policy", preprocess=PreprocessConfig(size=4, size_policy="exact"))


def test_size_and_channels_are_for_images():
    refused(np.zeros((20, 5)), "--preprocess.size", "vectors", preprocess=PreprocessConfig(size=3))
    refused(np.zeros((20, 1, 50)), "--preprocess.channels", "signals", preprocess=PreprocessConfig(channels="rgb"))
    refused(np.zeros((20, 7, 9, 9)), "7 channels", preprocess=PreprocessConfig(channels="grey"))
    with pytest.raises(ValidationError, match="at least 1"):
        PreprocessConfig(size=0)


# Arrays


def test_arrays_that_are_no_examples():
    refused(np.zeros(5), "(5,)", "(N, D)")
    refused(np.zeros((2, 3, 4, 5, 6)), "Arrays that are read")
    refused(np.zeros((0, 5)), "is empty")
    refused(np.zeros((480, 640, 3), np.uint8), "one colour image")
    refused(np.zeros((20, 3), complex), "complex")
    refused(np.array([["a"] * 3] * 20), "not real numbers")
    refused(np.zeros((20, 4)), "Every value", "nothing to learn")
    refused(np.ones((20, 4), int), "Every value")


def test_nan_and_infinity_are_counted_with_the_first_place():
    values = np.zeros((20, 4))
    values[3, 2], values[7, 0] = np.nan, np.inf
    refused(values, "2 values", "NaN or infinite", "(3, 2)")
    values[:] = 0
    values[5, 1] = 1e300  # beyond 32 bits
    refused(values, "1 values", "(5, 1)")
    with pytest.raises(DataError, match="NaN"):
        read_examples(np.full((28, 28), np.nan), GREY)


def test_damaged_array_files(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((20, 8, 8)))
    np.save(tmp_path / "a.npy", np.zeros((20, 8, 8)))
    for name in ("a.npz", "a.npy"):
        body = (tmp_path / name).read_bytes()
        for keep in (len(body) // 2, 12):
            (tmp_path / name).write_bytes(body[:keep])
            refused(tmp_path / name, name, "truncated or damaged")
        (tmp_path / name).write_bytes(b"")
        refused(tmp_path / name, "not a NumPy file")


def test_npz_without_examples_or_with_odd_labels(tmp_path):
    np.savez(tmp_path / "a.npz", weights=np.zeros((20, 3)), bias=np.zeros(3))
    refused(tmp_path / "a.npz", "weights, bias", "images")
    np.savez(tmp_path / "a.npz", images=np.zeros((20, 8, 8)), labels=np.zeros(19))
    refused(tmp_path / "a.npz", "'labels'", "(19,)", "20 examples")
    np.savez(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", "holds: nothing")
    np.savez(tmp_path / "a.npz", x_train=np.zeros((20, 8, 8)), x_test=np.zeros((20, 9, 9)))
    refused(tmp_path / "a.npz", "differ in shape", "(20, 1, 9, 9)")


def test_lists():
    refused([], "empty")
    refused([np.zeros(3), np.zeros(4)], "differ in shape")
    refused([[1, 2], [3]], "differ in length")
    refused([Image.new("L", (3, 3)), np.zeros((3, 3))], "mixes")


def test_a_list_of_paths_names_the_one_that_is_missing_or_no_image(tmp_path):
    paths = sorted(folder(tmp_path).iterdir())
    refused([*paths, tmp_path / "13.png"], "13.png", "no file")
    (tmp_path / "a.npy").write_bytes(b"")
    refused([*paths, tmp_path / "a.npy"], "a.npy", "no image")


# Parquet and labels


def images(n=12):
    file = io.BytesIO()
    Image.new("L", (4, 4), 9).save(file, "PNG")
    return [file.getvalue()] * n


def test_parquet_without_images(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"img": images(), "label": [0] * 12}), path)
    refused(path, "no column 'image'", "img, label", "--preprocess.image_column")
    pq.write_table(pa.table({"image": [1] * 12}), path)
    refused(path, "int64", "not encoded images")
    path.write_bytes(b"PAR1 and nothing else")
    refused(path, "a.parquet", "cannot be read as Parquet")


def test_parquet_rows_that_are_no_images(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [*images(), None, b"text"]}), path)
    refused(path, "row 12 of a.parquet", "empty")
    data = open_data(path, PreprocessConfig(on_error="skip"))
    assert any("2 of 14 files could not be read and were left out: 12, 13" in note for note in data.notes)


def test_a_folder_of_several_data_sets(tmp_path):
    for name in ("mnist-train", "mnist-test", "cifar-train", "cifar-test"):
        pq.write_table(pa.table({"image": images()}), tmp_path / f"{name}.parquet")
    refused(tmp_path, "several data sets", "cifar, mnist")


def test_unknown_label_column(tmp_path):
    pq.write_table(pa.table({"image": images(), "label": [0] * 12, "age": [1.0] * 12}), tmp_path / "a.parquet")
    config = PreprocessConfig(label_column="lable")
    refused(tmp_path / "a.parquet", "'lable'", "Did you mean 'label'?", "label, age", preprocess=config)
    refused(np.zeros((20, 3)), "no labels", "'lable'", preprocess=config)


def test_columns_of_names_are_no_classes(tmp_path):
    n = 400
    columns = {"name": [f"n{i}" for i in range(n)], "number": list(range(n))}
    pq.write_table(pa.table({"image": images(n), **columns}), tmp_path / "a.parquet")
    data = open_data(tmp_path / "a.parquet")
    assert data.spec.labels == {"number": []}
    assert data.train.labels["number"].tolist() == [float(i) for i in data.train.ids]
    assert any("400 different texts" in note for note in data.notes)
    chosen = open_data(tmp_path / "a.parquet", PreprocessConfig(label_column="name"))
    assert len(chosen.spec.labels["name"]) == n


@pytest.mark.parametrize(("n", "different", "kept"), [(60, 60, False), (60, 31, False), (60, 30, True), (15, 10, True)])
def test_most_examples_share_their_class_with_others(n, different, kept):
    part = Part(
        np.zeros((n, 1)), [str(i) for i in range(n)], {"by": np.array([f"u{i % different}" for i in range(n)], object)}
    )
    assert ("by" in encode_labels({"train": part}, {}, None, "it")[1]) == kept


def test_a_long_text_costs_its_own_length(tmp_path):
    """An array would give every text of a column the width of the longest: 160 MB here."""
    n, long = 2000, "word " * 4000
    columns = {
        "caption": np.array([*(f"number {i}" for i in range(n - 1)), long], object),
        "label": np.array([*(("a", None, b"b")[i % 3] for i in range(n - 1)), long], object),
    }
    part = Part(np.zeros((n, 1)), [str(i) for i in range(n)], columns)
    for chosen, names in ((None, {"label": ["a", "b", long]}), ("caption", {"caption": sorted(columns["caption"])})):
        tracemalloc.start()
        encoded, classes, notes = encode_labels({"train": part}, {}, chosen, "it")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * 2**20
        assert classes == {"label": ["a", "b", long]} | names
        assert encoded["train"]["label"].tolist() == [*((0, -1, 1)[i % 3] for i in range(n - 1)), 2]
        assert any("'label' is missing for 666 of 2,000 examples" in note for note in notes)
        assert any("2,000 different texts: left out" in note for note in notes) == (chosen is None)
    assert [classes["caption"][i] for i in encoded["train"]["caption"]] == columns["caption"].tolist()


# Named sets


def test_named_set_that_is_nowhere(monkeypatch, tmp_path):
    monkeypatch.setenv("DILED_DATA", str(tmp_path))
    monkeypatch.setenv("DILED_CACHE", "")
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    refused("mnist", "'mnist'", "DILED_DATA", "pip install diled[data]")

    class Offline:
        @staticmethod
        def load_dataset(*_, **__):
            raise ConnectionError("no network\nand more lines")

    monkeypatch.setitem(sys.modules, "datasets", Offline)
    refused("mnist", "could not be downloaded", "no network", "DILED_DATA")


# What a model is given


@pytest.mark.parametrize(
    ("mode", "size", "words"),
    [
        ("RGB", (640, 480), "photo.png is RGB 640x480"),
        ("RGB", (28, 28), "photo.png is RGB 28x28"),
        ("L", (32, 32), "photo.png is grey 32x32"),
        ("I;16", (28, 28), "photo.png is 16-bit grey 28x28"),
    ],
)
def test_an_image_of_another_kind_than_the_model(tmp_path, mode, size, words):
    Image.new(mode, size).save(tmp_path / "photo.png")
    with pytest.raises(DataError, match="The model wants grey 28x28") as caught:
        read_examples(tmp_path / "photo.png", GREY)
    assert words in str(caught.value)
    assert "convert=True" in str(caught.value)
    assert read_examples(tmp_path / "photo.png", GREY, convert=True).shape == (1, 1, 28, 28)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((3, 27, 28)), r"\(N, 1, 28, 28\); the input has shape \(3, 27, 28\)"),
        (np.zeros((3, 3, 28, 28)), "the input has shape"),
        (np.full((28, 28), 0.5), "values between them, such as 0.5"),
        (np.full((28, 28), -1.0), "values from 0 to 255; the input has -1 to -1"),
        (np.full((28, 28), 256), "0 to 255"),
        (np.zeros((0, 28, 28)), "empty"),
        ([np.zeros((28, 28)), np.zeros((5, 5))], "item 1 of the list has shape"),
        ([], "empty"),
        ([[1, 2], [3]], "neither paths"),
        ("nowhere.png", "no file or folder"),
        (3, "not int"),
        (np.zeros((28, 28), complex), "complex"),
    ],
)
def test_examples_that_do_not_fit(inputs, words):
    with pytest.raises(DataError, match=words):
        read_examples(inputs, GREY)


def test_images_that_the_model_does_not_read_are_left_out(tmp_path):
    """Another size, a cut file and no image at all; arrays beside them are read as ever."""
    for name in "abcde":
        picture(tmp_path / f"{name}.png", size=(28, 28))
    Image.new("L", (5, 5)).save(tmp_path / "b.png")
    whole = (tmp_path / "c.png").read_bytes()
    (tmp_path / "c.png").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "d.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b.png is grey 5x5.*To leave out what cannot be read: --skip\.$"):
        open_examples(tmp_path, GREY, option="--skip")
    with pytest.warns(DataWarning, match=r"3 of 5 images were left out\. .*d.png.*") as said:
        found = open_examples([tmp_path, np.zeros((28, 28))], GREY, skip=True)
    assert (found.ids, len(said)) == (["a.png", "e.png", "2"], 1)
    expected = [*read_examples([tmp_path / "a.png", tmp_path / "e.png"], GREY), np.zeros((1, 28, 28))]
    np.testing.assert_array_equal(found.values, expected)
    with pytest.raises(DataError, match=r"None of 1 images can be read\. .*b.png"):
        open_examples(tmp_path / "b.png", GREY, skip=True)
    for one in (tmp_path / "b.png", tmp_path / "c.png"):
        with pytest.raises(DataError, match=r"b.png is grey 5x5|c.png") as caught:
            open_examples(one, GREY, option="--skip")
        assert "--skip" not in str(caught.value), "one image that cannot be read is all there is"


def test_examples_for_models_of_other_kinds(tmp_path):
    picture(tmp_path / "a.png")
    vector = DataSpec(kind="vector", shape=(4,), levels=None)
    many = DataSpec(kind="image", shape=(7, 4, 4), levels=None)
    for spec, words in ((vector, "vectors of 4 numbers"), (many, "7-channel images 4x4")):
        with pytest.raises(DataError, match=words):
            read_examples(tmp_path / "a.png", spec)
    with pytest.raises(DataError, match="vectors of 4 numbers"):
        read_examples(np.zeros((2, 5)), vector, convert=True)
    two_levels = DataSpec(kind="image", shape=(1, 4, 4), levels=2, mode="L")
    with pytest.raises(DataError, match=r"2 levels .* such as 7"):
        read_examples(tmp_path / "a.png", two_levels)
    assert read_examples(tmp_path / "a.png", two_levels, convert=True).max() == 0
