"""Data whose pixels, classes and splits are known: what is read is exactly what was written."""

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diled.config import DataSpec, PreprocessConfig
from diled.data import from_model, known_sets, open_data, read_examples, read_named_examples, to_model, to_pil
from diled.data.arrays import layout
from diled.data.cache import cached, file_key
from diled.data.images import ImageItem, decode, header
from diled.data.pixels import as_channels, as_depth, fit
from diled.data.splits import hashed, seen
from diled.errors import DataError, NoColumn

RNG = np.random.default_rng(7)


def pixels(n, *shape, high=256, dtype=np.uint8):
    return RNG.integers(0, high, (n, *shape)).astype(dtype)


def save(values, path, mode=None):
    """One array (H, W) or (H, W, C) as an image file, lossless by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(path)


def folder_of(values, folder, suffix=".png"):
    for i, image in enumerate(values):
        save(image, folder / f"{i:03d}{suffix}")
    return folder


def everything(data):
    """id -> value over all splits; the splits must not overlap."""
    ids = [i for split in (data.train, data.validation, data.test) for i in split.ids]
    assert len(ids) == len(set(ids))
    values = np.concatenate([data.train.values, data.validation.values, data.test.values])
    return dict(zip(ids, values, strict=True))


def encoded(values, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(values).save(file, form)
    return file.getvalue()


def table(values, start=0, **columns):
    rows = [{"bytes": encoded(v), "path": f"{start + i}.png"} for i, v in enumerate(values)]
    return pa.table({"image": pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), **columns})


# Folders


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_grey_folder_is_read_exactly_and_divided_completely(tmp_path, suffix):
    values = pixels(20, 6, 9)
    data = open_data(folder_of(values, tmp_path / "grey", suffix))
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 2, 2)
    assert data.spec == DataSpec(kind="image", shape=(1, 6, 9), levels=256, low=0, high=255, mode="L")
    assert data.train.values.dtype == np.uint8
    found = everything(data)
    assert len(found) == 20
    for i, image in enumerate(values):
        np.testing.assert_array_equal(found[f"{i:03d}{suffix}"], image[None])


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_colour_folder_keeps_its_channels(tmp_path, channels, mode, suffix):
    values = pixels(10, 5, 7, channels)
    values[..., 3:] = 255 - values[..., 3:] // 2  # opaque enough that lossless WebP keeps the colours
    for i, image in enumerate(values):
        Image.fromarray(image).save(tmp_path / f"{i:03d}{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    data = open_data(tmp_path)
    assert (data.spec.mode, data.spec.shape) == (mode, (channels, 5, 7))
    for i, image in enumerate(values):
        np.testing.assert_array_equal(everything(data)[f"{i:03d}{suffix}"], np.moveaxis(image, -1, 0))


def test_sixteen_bit_grey_stays_sixteen_bit(tmp_path):
    values = pixels(12, 4, 5, high=65536, dtype=np.uint16)
    data = open_data(folder_of(values, tmp_path))
    assert (data.spec.mode, data.spec.levels, data.spec.high) == ("I;16", 65536, 65535)
    assert data.train.values.dtype == np.uint16
    np.testing.assert_array_equal(everything(data)["003.png"], values[3][None])


def test_floating_point_tiffs_are_continuous(tmp_path):
    values = RNG.normal(size=(12, 4, 5)).astype(np.float32)
    data = open_data(folder_of(values, tmp_path, ".tif"))
    assert (data.spec.mode, data.spec.levels) == ("F", None)
    assert data.spec.low == data.train.values.min()
    np.testing.assert_array_equal(everything(data)["003.tif"], values[3][None])


def test_one_bit_images_have_two_levels(tmp_path):
    values = pixels(12, 4, 5, high=2) * np.uint8(255)
    for i, image in enumerate(values):
        save(image, tmp_path / f"{i}.png", "1")
    data = open_data(tmp_path)
    assert (data.spec.levels, data.spec.low, data.spec.high, data.spec.mode) == (2, 0, 255, "L")
    np.testing.assert_array_equal(everything(data)["3.png"], values[3][None])
    assert any("1-bit" in note for note in data.notes)


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_grey_palettes_become_grey(tmp_path, suffix):
    values = pixels(10, 4, 5, high=4)
    for i, image in enumerate(values):
        picture = Image.new("P", (5, 4))
        picture.putdata(image.ravel().tolist())
        picture.putpalette([0, 0, 0, 80, 80, 80, 160, 160, 160, 240, 240, 240])
        picture.save(tmp_path / f"{i}{suffix}")
    data = open_data(tmp_path)
    assert data.spec.mode == "L"
    np.testing.assert_array_equal(everything(data)[f"3{suffix}"], values[3][None] * 80)


def test_colour_and_transparent_palettes(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    values = pixels(10, 4, 5, high=4)
    values[:, 0] = np.array([0, 1, 2, 3, 0])
    for name, extra in (("opaque", {}), ("clear", {"transparency": 2})):
        (tmp_path / name).mkdir()
        for i, image in enumerate(values):
            picture = Image.new("P", (5, 4))
            picture.putdata(image.ravel().tolist())
            picture.putpalette(colours.ravel().tolist())
            picture.save(tmp_path / name / f"{i}.png", **extra)
    opaque, clear = open_data(tmp_path / "opaque"), open_data(tmp_path / "clear")
    assert (opaque.spec.mode, clear.spec.mode) == ("RGB", "RGBA")
    expected = np.moveaxis(colours[values[3]], -1, 0)
    np.testing.assert_array_equal(everything(opaque)["3.png"], expected)
    np.testing.assert_array_equal(everything(clear)["3.png"][:3], expected)
    np.testing.assert_array_equal(everything(clear)["3.png"][3], np.where(values[3] == 2, 0, 255))
    assert any("palette" in note for note in clear.notes)


def test_a_palette_file_among_rgb_files_joins_them(tmp_path):
    folder_of(pixels(10, 4, 5, 3), tmp_path)
    grey = pixels(1, 4, 5)[0]
    save(grey, tmp_path / "palette.png", "P")
    data = open_data(tmp_path)
    assert data.spec.mode == "RGB"
    np.testing.assert_array_equal(everything(data)["palette.png"], np.stack([grey] * 3))


def test_exif_orientation_is_applied(tmp_path):
    for i in range(10):
        picture = Image.new("L", (8, 16), 10)
        picture.paste(200, (0, 0, 8, 8))  # the upper half is light
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        picture.save(tmp_path / f"{i}.jpg", quality=100, exif=exif)
    data = open_data(tmp_path)
    assert data.spec.shape == (1, 8, 16)
    image = data.train.values[0, 0].astype(int)
    assert image[:, :8].max() < 30  # after turning, the light half is on the right
    assert image[:, 8:].min() > 180


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("colours", [(), (3,)], ids=["grey", "rgb"])
def test_tiffs_are_turned_once(tmp_path, colours, compression):
    """However they are stored, from a file as from bytes."""
    stored = np.arange(24 * max(colours, default=1), dtype=np.uint8).reshape(4, 6, *colours)
    turned = {
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).swapaxes(0, 1),
        8: np.rot90(stored),
    }
    for orientation, upright in turned.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.tif"
        Image.fromarray(stored).save(path, exif=exif, compression=compression)
        for content in (path, path.read_bytes()):
            item = ImageItem(path.name, path.name, content)
            found = header(item)
            assert (found.height, found.width) == (6, 4)
            want = np.moveaxis(upright.reshape(6, 4, -1), -1, 0)
            np.testing.assert_array_equal(decode(item, found.kind), want)


def test_class_folders_and_split_folders(tmp_path):
    counts = {"train": 6, "val": 2, "test": 3}
    for split, n in counts.items():
        for label, name in enumerate(("cat", "dog")):
            for i in range(n):
                save(np.full((4, 4), 100 * label + i, np.uint8), tmp_path / split / name / f"{i}.png")
    data = open_data(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 6)
    assert data.spec.labels == {"label": ["cat", "dog"]}
    for split in (data.train, data.validation, data.test):
        np.testing.assert_array_equal(split.labels["label"], split.values[:, 0, 0, 0] // 100)
        assert split.labels["label"].dtype == np.int64
    assert data.test.ids[0] == "test/cat/0.png"


def test_only_train_and_test_folders_carve_validation_out_of_train(tmp_path):
    folder_of(pixels(20, 4, 4), tmp_path / "train")
    folder_of(pixels(5, 4, 4), tmp_path / "test")
    data = open_data(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 5)
    assert all(i.startswith("train/") for i in data.train.ids + data.validation.ids)
    assert data.spec.labels == {}


def test_hidden_files_and_archive_leftovers_are_passed_over(tmp_path):
    folder_of(pixels(10, 4, 4), tmp_path)
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "a.png").write_bytes(b"no image")
    (tmp_path / "readme.txt").write_text("text")
    assert len(everything(open_data(tmp_path))) == 10


def test_many_files_through_threads_keep_their_order(tmp_path):
    values = np.arange(200, dtype=np.uint8)[:, None, None] * np.ones((1, 3, 3), np.uint8)
    found = everything(open_data(folder_of(values, tmp_path)))
    assert all(found[f"{i:03d}.png"].max() == found[f"{i:03d}.png"].min() == i for i in range(200))


def test_links_that_go_in_circles_are_cut(tmp_path):
    folder_of(pixels(12, 4, 4), tmp_path / "a")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert len(everything(open_data(tmp_path))) == 12


def test_several_frames_and_deep_colour_are_said(tmp_path):
    for i in range(10):
        frames = [Image.new("L", (4, 4), value) for value in (10 * i, 255)]
        frames[0].save(tmp_path / f"{i}.tif", save_all=True, append_images=frames[1:])
    data = open_data(tmp_path)
    assert (everything(data)["3.tif"] == 30).all()
    assert any("several frames" in note for note in data.notes)
    # A PNG with 16 bits per channel, which Pillow cannot write: 2 x 1 pixels.
    body = zlib.compress(b"\0" + bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]))
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)), (b"IDAT", body), (b"IEND", b""))
    chunks = b"".join(struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in parts)
    for i in range(10):
        (tmp_path / "deep").mkdir(exist_ok=True)
        (tmp_path / "deep" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    data = open_data(tmp_path / "deep")
    np.testing.assert_array_equal(data.train.values[0, :, 0], np.array([[1, 3, 5], [7, 9, 11]]).T)
    assert any("16 bits per channel" in note for note in data.notes)


# Choices


def test_channels_choice_resolves_a_mixture_exactly(tmp_path):
    colour, grey = pixels(10, 4, 5, 3), pixels(5, 4, 5)
    folder_of(colour, tmp_path / "a")
    folder_of(grey, tmp_path / "b")
    as_grey = open_data(tmp_path, PreprocessConfig(channels="grey"))
    assert as_grey.spec.mode == "L"
    expected = np.asarray(Image.fromarray(colour[3]).convert("L"))
    np.testing.assert_array_equal(everything(as_grey)["a/003.png"][0], expected)
    np.testing.assert_array_equal(everything(as_grey)["b/003.png"][0], grey[3])
    as_rgb = open_data(tmp_path, PreprocessConfig(channels="rgb"))
    np.testing.assert_array_equal(everything(as_rgb)["b/003.png"], np.stack([grey[3]] * 3))
    as_rgba = everything(open_data(tmp_path, PreprocessConfig(channels="rgba")))["b/003.png"]
    assert as_rgba.shape == (4, 4, 5)
    assert (as_rgba[3] == 255).all()


def test_sixteen_and_eight_bit_meet_at_eight_bits(tmp_path):
    folder_of(pixels(10, 4, 4), tmp_path / "a")
    save(np.full((4, 4), 257 * 33, np.uint16), tmp_path / "b" / "x.png")
    data = open_data(tmp_path, PreprocessConfig(channels="grey"))
    assert (everything(data)["b/x.png"] == 33).all()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("crop", [[20, 30], [20, 30]]),  # the outer columns are cut
        ("pad", [[15, 35], [0, 0]]),
        ("stretch", [[15, 35], [15, 35]]),
    ],
)
def test_size_policies(tmp_path, policy, expected):
    # A picture 4 high and 8 wide whose columns are 10 10 20 20 30 30 40 40, and one of the wanted size.
    row = np.repeat(np.array([10, 20, 30, 40], np.uint8), 2)
    folder_of(np.tile(row, (10, 4, 1)), tmp_path)
    save(np.full((2, 2), 99, np.uint8), tmp_path / "small.png")
    data = open_data(tmp_path, PreprocessConfig(size=2, size_policy=policy))
    assert (data.spec.shape, data.spec.size_policy) == ((1, 2, 2), policy)
    np.testing.assert_array_equal(everything(data)["003.png"][0], expected)
    assert (everything(data)["small.png"] == 99).all()


def test_resizing_stays_in_range_and_type():
    edge = np.zeros((1, 9, 9), np.uint8)
    edge[:, :, 4:] = 16
    for values in (edge, edge.astype(np.uint16) * 1000, edge.astype(np.float32), np.repeat(edge, 5, axis=0)):
        small = fit(values, (5, 7), "stretch")
        assert small.dtype == values.dtype
        assert small.shape == (len(values), 5, 7)
        assert small.min() == 0
        assert small.max() == values.max()


def test_limit_cuts_training_only_and_keeps_the_test_set(tmp_path):
    folder_of(pixels(40, 3, 3), tmp_path)
    whole, some = open_data(tmp_path), open_data(tmp_path, PreprocessConfig(limit=5))
    assert len(some.train) == 5
    assert set(some.train.ids) < set(whole.train.ids)
    assert (some.test.ids, some.validation.ids) == (whole.test.ids, whole.validation.ids)


def test_the_division_follows_its_seed_only(tmp_path):
    folder_of(pixels(40, 3, 3), tmp_path)
    assert open_data(tmp_path).test.ids == open_data(tmp_path).test.ids
    assert open_data(tmp_path, seed=1).test.ids != open_data(tmp_path).test.ids
    thirds = open_data(tmp_path, PreprocessConfig(test_fraction=0.25, validation_fraction=0.5))
    assert (len(thirds.train), len(thirds.validation), len(thirds.test)) == (10, 20, 10)


def test_subset_follows_indices_and_masks():
    split = open_data("digits").test
    part = split.subset([5, 2])
    assert part.ids == [split.ids[5], split.ids[2]]
    np.testing.assert_array_equal(part.values, split.values[[5, 2]])
    np.testing.assert_array_equal(part.labels["label"], split.labels["label"][[5, 2]])
    assert len(split.subset(split.labels["label"] == 3)) == (split.labels["label"] == 3).sum()


# Arrays


@pytest.mark.parametrize(
    ("shape", "kind", "canonical"),
    [
        ((20, 7), "vector", (20, 7)),
        ((20, 8, 8), "image", (20, 1, 8, 8)),
        ((20, 1, 100), "signal", (20, 1, 100)),
        ((20, 12, 500), "signal", (20, 12, 500)),
        ((20, 500, 12), "signal", (20, 12, 500)),
        ((20, 1, 8, 9), "image", (20, 1, 8, 9)),
        ((20, 8, 9, 3), "image", (20, 3, 8, 9)),
        ((20, 4, 8, 9), "image", (20, 4, 8, 9)),
        ((20, 3, 32, 4), "image", (20, 3, 32, 4)),
        ((20, 13, 64, 64), "image", (20, 13, 64, 64)),
        ((20, 64, 64, 13), "image", (20, 13, 64, 64)),
    ],
)
def test_layout_rules(shape, kind, canonical):
    values, found, said = layout(np.arange(np.prod(shape)).reshape(shape), "a.npy")
    assert (found, values.shape) == (kind, canonical)
    assert str(shape) in said
    source = np.arange(np.prod(shape)).reshape(shape)
    if canonical != shape and len(canonical) == len(shape):
        np.testing.assert_array_equal(values, np.moveaxis(source, -1, 1))


@pytest.mark.parametrize(
    ("values", "dtype", "low", "high", "levels"),
    [
        (pixels(50, 8, 8, high=17), np.uint8, 0, 16, 17),
        (pixels(50, 8, 8, high=17, dtype=np.int64), np.uint8, 0, 16, 17),
        (pixels(50, 8, 8), np.uint8, 0, 255, 256),
        (pixels(50, 8, 8, dtype=np.int64), np.uint8, 0, 255, 256),
        (pixels(50, 8, 8, high=2), np.uint8, 0, 1, 2),
        (pixels(50, 8, 8, high=2) > 0, np.uint8, 0, 1, 2),
        (pixels(50, 8, 8, high=2) * np.uint8(255), np.uint8, 0, 255, 2),
        (pixels(50, 8, 8, dtype=np.int64) - 100, np.float32, -100, 155, 256),
        (pixels(50, 8, 8, high=65536, dtype=np.uint16), np.uint16, 0, 65535, 65536),
        (pixels(50, 8, 8, high=4096, dtype=np.uint16), np.uint16, 0, 4095, 4096),
        (pixels(50, 8, high=200), np.uint8, 0, 199, 200),
    ],
)
def test_levels_of_integer_arrays(values, dtype, low, high, levels):
    values = values.copy()
    values.flat[:2] = values.min(), values.max()
    if levels not in (2,):
        values.flat[:2] = low, high
    data = open_data(values)
    assert (data.spec.low, data.spec.high, data.spec.levels) == (low, high, levels)
    assert data.train.values.dtype == dtype
    back = from_model(to_model(data.train.values, data.spec), data.spec)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, data.train.values)


def test_floats_are_continuous_with_the_scale_of_training():
    values = RNG.normal(size=(60, 5))
    data = open_data(values)
    assert data.spec == DataSpec(
        kind="vector", shape=(5,), levels=None, low=data.train.values.min(), high=data.train.values.max()
    )
    x = to_model(data.train.values, data.spec)
    assert (x.min(), x.max(), x.dtype) == (-1, 1, np.float32)
    np.testing.assert_allclose(from_model(x, data.spec), data.train.values, atol=1e-6)
    whole = open_data(pixels(50, 4).astype(np.float64))
    assert whole.spec.levels is None
    assert any("store integers" in note for note in whole.notes)


def test_npz_with_labels(tmp_path):
    x, y = pixels(30, 6, 6), np.arange(30) % 3
    np.savez(tmp_path / "a.npz", images=x, y=y, height=y / 2, caption=np.array(["b", "a"] * 15))
    data = open_data(tmp_path / "a.npz")
    assert data.spec.labels == {"label": ["0", "1", "2"], "height": [], "caption": ["a", "b"]}
    for i, row in enumerate(data.train.ids):
        np.testing.assert_array_equal(data.train.values[i, 0], x[int(row)])
        assert data.train.labels["label"][i] == y[int(row)]
        assert data.train.labels["height"][i] == y[int(row)] / 2
        assert data.train.labels["caption"][i] == 1 - int(row) % 2
    assert data.train.labels["height"].dtype == np.float32
    first = open_data(tmp_path / "a.npz", PreprocessConfig(label_column="caption"))
    assert list(first.spec.labels) == ["caption", "label", "height"]
    assert next(iter(open_data(tmp_path / "a.npz", PreprocessConfig(label_column="y")).spec.labels)) == "label"
    for first in ("y", "label"):
        both = {"y": y, "label": 1 - np.arange(30) % 2}
        np.savez(tmp_path / "b.npz", images=x, **{name: both[name] for name in sorted(both, key=first.__ne__)})
        for chosen, classes in (("y", 3), ("label", 2)):
            found = open_data(tmp_path / "b.npz", PreprocessConfig(label_column=chosen)).spec.labels
            assert next(iter(found)) == chosen
            assert {name: len(names) for name, names in found.items()} == {"y": 3, "label": 2}
            assert len(found[chosen]) == classes


@pytest.mark.parametrize("names", [("x_{}", "y_{}"), ("{}_images", "{}_labels")])
def test_npz_with_splits(tmp_path, names):
    x, y = names
    parts = {"train": 20, "test": 6}
    arrays = {x.format(split): pixels(n, 6, 6) for split, n in parts.items()}
    arrays |= {y.format(split): np.arange(n) % 2 for split, n in parts.items()}
    np.savez(tmp_path / "a.npz", **arrays)
    data = open_data(tmp_path / "a.npz")
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 6)
    np.testing.assert_array_equal(data.test.values[:, 0], arrays[x.format("test")])
    np.testing.assert_array_equal(data.test.labels["label"], np.arange(6) % 2)


def test_npy_file_and_tensor_like(tmp_path):
    values = pixels(30, 3, 6, 6)
    np.save(tmp_path / "a.npy", values)

    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return values

    for source in (tmp_path / "a.npy", str(tmp_path / "a.npy"), values, list(values), Tensor()):
        data = open_data(source)
        np.testing.assert_array_equal(everything(data)["17"], values[17])
        assert data.spec.mode == "RGB"


def test_array_images_take_size_and_channels():
    values = np.repeat(np.repeat(pixels(20, 3, 2, 2), 2, axis=2), 2, axis=3)
    data = open_data(values, PreprocessConfig(size=2, channels="grey"))
    assert data.spec.shape == (1, 2, 2)
    expected = np.asarray(Image.fromarray(np.moveaxis(values[4, :, ::2, ::2], 0, -1).copy()).convert("L"))
    np.testing.assert_array_equal(everything(data)["4"][0], expected)


def test_lists_of_paths_and_pillow_images(tmp_path):
    values = pixels(12, 4, 5)
    folder_of(values, tmp_path)
    paths = sorted(tmp_path.iterdir())
    np.testing.assert_array_equal(everything(open_data(paths))[str(paths[3])], values[3][None])
    pictures = [Image.fromarray(v) for v in values]
    np.testing.assert_array_equal(everything(open_data(pictures))["3"], values[3][None])


# Parquet


def test_parquet_with_labels_of_all_types(tmp_path):
    values = pixels(20, 4, 5)
    columns = {
        "label": pa.array([i % 2 for i in range(20)]),
        "kind": pa.array(["b", "a"] * 10),
        "weight": pa.array([i / 4 for i in range(20)]),
        "maybe": pa.array([None if i == 3 else "x" for i in range(20)]),
        "tags": pa.array([["a"]] * 20),
    }
    features = {"image": {"_type": "Image"}, "label": {"names": ["off", "on"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table(values, **columns).replace_schema_metadata(metadata), tmp_path / "a.parquet")
    data = open_data(tmp_path / "a.parquet")
    assert data.spec.labels == {"label": ["off", "on"], "kind": ["a", "b"], "weight": [], "maybe": ["x"]}
    found = everything(data)
    for split in (data.train, data.validation, data.test):
        for place, name in enumerate(split.ids):
            i = int(name.removesuffix(".png"))
            assert split.labels["label"][place] == i % 2
            assert split.labels["kind"][place] == 1 - i % 2
            assert split.labels["weight"][place] == i / 4
            assert split.labels["maybe"][place] == (-1 if i == 3 else 0)
    np.testing.assert_array_equal(found["7.png"], values[7][None])
    assert any("tags" in note for note in data.notes)


def test_parquet_of_plain_bytes_and_another_column(tmp_path):
    values = pixels(20, 4, 5)
    pq.write_table(pa.table({"picture": [encoded(v) for v in values]}), tmp_path / "a.parquet")
    data = open_data(tmp_path / "a.parquet", PreprocessConfig(image_column="picture"))
    np.testing.assert_array_equal(everything(data)["7"], values[7][None])


def test_a_column_of_images_is_a_choice_for_parquet_alone(tmp_path):
    folder_of(pixels(10, 4, 5), tmp_path / "pictures")
    with pytest.raises(NoColumn, match=r"image_column names the column of Parquet files.*pictures is no such file"):
        open_data(tmp_path / "pictures", PreprocessConfig(image_column="picture"))
    with pytest.raises(NoColumn, match="the array is no such file"):
        open_data(pixels(10, 4, 5), PreprocessConfig(image_column="picture"))


@pytest.mark.parametrize("form", ["set-{}-{}.parquet", "data/{}-{}.parquet", "{}/part-{}.parquet"])
def test_parquet_folder_with_split_names(tmp_path, form):
    values = pixels(30, 4, 5)
    rows = {("train", 0): (0, 10), ("train", 1): (10, 20), ("validation", 0): (20, 26), ("test", 0): (26, 30)}
    for names, (start, end) in rows.items():
        path = tmp_path / form.format(*names)
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table(values[start:end], start), path)
    data = open_data(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 6, 4)
    np.testing.assert_array_equal(data.train.values[:, 0], values[:20])
    np.testing.assert_array_equal(data.test.values[:, 0], values[26:])


# Named sets


def test_digits_split_is_fixed_and_stratified():
    data = open_data("digits")
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)
    assert (data.spec.shape, data.spec.levels, data.spec.low, data.spec.high) == ((1, 8, 8), 17, 0, 16)
    assert data.train.values.dtype == np.uint8
    assert len(everything(data)) == 1797
    assert np.bincount(data.test.labels["label"]).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    assert sum(int(i) for i in data.test.ids) == 337_944  # which images, not only how many
    np.testing.assert_array_equal(from_model(to_model(data.test.values, data.spec), data.spec), data.test.values)


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder that stands for DILED_DATA, with 30 training and 10 test images, and a cache of its own."""
    values = pixels(40, 28, 28)
    for split, rows in (("train", slice(0, 30)), ("test", slice(30, 40))):
        labels = pa.array((np.arange(40) % 10)[rows])
        pq.write_table(table(values[rows], rows.start, label=labels), tmp_path / f"mnist-{split}.parquet")
    monkeypatch.setenv("DILED_DATA", str(tmp_path))
    monkeypatch.setenv("DILED_CACHE", str(tmp_path / "cache"))
    return tmp_path, values


def test_named_set_from_files_and_from_the_cache(small_mnist, monkeypatch):
    folder, values = small_mnist
    first = open_data("mnist")
    assert (len(first.train), len(first.validation), len(first.test)) == (27, 3, 10)
    np.testing.assert_array_equal(first.test.values[:, 0], values[30:])
    assert len(list((folder / "cache").iterdir())) == 2
    monkeypatch.setattr("diled.data.known._decoded", lambda *_: pytest.fail("the cache was not used"))
    again = open_data("mnist")
    np.testing.assert_array_equal(again.train.values, first.train.values)
    assert again.train.ids == first.train.ids
    assert again.spec == first.spec
    assert {name: where for name, _, where in known_sets()}["mnist"] == f"found in {folder}"


def test_a_broken_cache_is_ignored_and_an_empty_setting_turns_it_off(small_mnist, monkeypatch):
    folder, values = small_mnist
    open_data("mnist")
    for file in (folder / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(open_data("mnist").test.values[:, 0], values[30:])
    monkeypatch.setenv("DILED_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "xdg"))
    open_data("mnist")
    assert not (folder / "xdg").exists()
    monkeypatch.delenv("DILED_CACHE")
    open_data("mnist")
    assert len(list((folder / "xdg" / "diled").iterdir())) == 2


def test_cache_key_follows_the_file_and_an_unwritable_cache_is_no_error(tmp_path, monkeypatch):
    file = tmp_path / "a.parquet"
    file.write_bytes(b"1")
    key = file_key(file)
    os.utime(file, ns=(1, 1))
    assert file_key(file) != key
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("DILED_CACHE", str(tmp_path / "file"))
    assert cached("key", lambda: {"a": np.arange(3)})["a"].tolist() == [0, 1, 2]


def test_named_set_takes_size_and_limit(small_mnist):
    data = open_data("mnist", PreprocessConfig(size=14, limit=4, binarize="dynamic"))
    assert data.train.values.shape == (4, 1, 14, 14)
    assert (data.spec.levels, data.spec.binarize, data.spec.high) == (2, "dynamic", 255)


def test_named_set_through_hugging_face_datasets(tmp_path, monkeypatch):
    values = pixels(30, 8, 8)

    class Dataset:
        features = {"label": SimpleNamespace(names=[str(i) for i in range(10)])}  # noqa: RUF012
        _fingerprint = "abc"

        def cast_column(self, *_):
            return self

        def with_format(self, _):
            return self

        def __getitem__(self, key):
            return np.arange(30) % 10 if key == "label" else table(values)

    package = SimpleNamespace(load_dataset=lambda name, split: Dataset(), Image=lambda decode: None)
    monkeypatch.setitem(sys.modules, "datasets", package)
    monkeypatch.delenv("DILED_DATA", raising=False)
    monkeypatch.setenv("DILED_CACHE", str(tmp_path))
    data = open_data("mnist")
    np.testing.assert_array_equal(data.test.values[:, 0], values)
    np.testing.assert_array_equal(data.test.labels["label"], np.arange(30) % 10)


@pytest.mark.skipif(
    not list(Path(os.environ.get("DILED_DATA") or "/nonexistent").glob("mnist-test.parquet")),
    reason="mnist is not here",
)
def test_real_mnist():
    data = open_data("mnist")
    assert (len(data.train), len(data.validation), len(data.test)) == (55000, 5000, 10000)
    assert np.bincount(data.test.labels["label"]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.test.values.dtype == np.uint8
    assert round(float(data.train.values.mean()) / 255, 3) == 0.131


# Model space


def test_model_space_of_eight_bits_is_exact():
    spec = DataSpec(kind="image", shape=(1, 16, 16), levels=256, low=0, high=255, mode="L")
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    x = to_model(values, spec)
    np.testing.assert_allclose(x.ravel(), np.linspace(-1, 1, 256), atol=1e-6)
    np.testing.assert_array_equal(from_model(x, spec), values)
    np.testing.assert_array_equal(from_model(np.array([-3.0, 0.0, 3.0]), spec), [0, 128, 255])


def test_binarisation():
    values = np.array([0, 63, 127, 128, 255], np.uint8)
    threshold = DataSpec(kind="vector", shape=(5,), levels=2, binarize="threshold")
    np.testing.assert_array_equal(to_model(values, threshold), [-1, -1, -1, 1, 1])
    dynamic = threshold.model_copy(update={"binarize": "dynamic"})
    np.testing.assert_array_equal(to_model(values, dynamic), [-1, -1, -1, 1, 1])
    draws = to_model(np.tile(values, (20000, 1)), dynamic, np.random.default_rng(0))
    assert set(np.unique(draws)) == {-1, 1}
    np.testing.assert_allclose((draws == 1).mean(0), values / 255, atol=0.015)
    np.testing.assert_array_equal(from_model(np.array([-1.0, 0.0, 1.0]), dynamic), [0, 128, 255])
    digits = DataSpec(kind="vector", shape=(3,), levels=2, low=0, high=16, binarize="threshold")
    np.testing.assert_allclose(from_model(np.array([-1.0, 0.1, 1.0]), digits), [0, 8.8, 16], rtol=1e-6)


def test_to_pil_stretches_to_the_full_scale():
    spec = open_data("digits").spec
    picture = to_pil(np.array([[[0, 8, 16]]], np.uint8), spec)
    assert picture.mode == "L"
    np.testing.assert_array_equal(np.asarray(picture), [[0, 128, 255]])
    for channels, mode in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        values = pixels(1, channels, 4, 5)[0]
        picture = to_pil(values, DataSpec(kind="image", shape=(channels, 4, 5)))
        assert (picture.mode, picture.size) == (mode, (5, 4))
    deep = pixels(1, 1, 4, 5, high=65536, dtype=np.uint16)[0]
    spec = DataSpec(kind="image", shape=(1, 4, 5), levels=65536, high=65535, mode="I;16")
    np.testing.assert_array_equal(np.asarray(to_pil(deep, spec)), deep[0])
    with pytest.raises(DataError, match="1, 3 or 4 channels"):
        to_pil(np.zeros((5, 4, 5)), DataSpec(kind="image", shape=(5, 4, 5)))


def test_channel_and_depth_arithmetic():
    values = pixels(3, 3, 4, 5)
    deep = as_depth(values, "uint16")
    assert deep.max() == 257 * int(values.max())
    np.testing.assert_array_equal(as_depth(deep, "uint8"), values)
    grey = as_channels(values, 1)
    np.testing.assert_array_equal(as_channels(as_channels(grey, 3), 1), grey)
    np.testing.assert_allclose(as_channels(values.astype(np.float32), 1), grey, atol=0.51)


# What a model is given


GREY = DataSpec(kind="image", shape=(1, 4, 5), levels=256, mode="L")


def test_examples_in_every_form(tmp_path):
    values = pixels(12, 4, 5)
    folder_of(values, tmp_path / "f")
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", images=values, labels=np.arange(12))
    pq.write_table(table(values), tmp_path / "a.parquet")
    path = tmp_path / "f" / "003.png"
    forms = [tmp_path / "f", str(tmp_path / "a.npy"), tmp_path / "a.npz", tmp_path / "a.parquet"]
    forms += [values, values[:, None], values[..., None], list(values), [Image.fromarray(v) for v in values]]
    forms += [values.astype(np.float64), values.tolist()]
    for form in forms:
        found = read_examples(form, GREY)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, values[:, None])
    for form in (path, str(path), [path], Image.open(path), values[3], values[3][None], values[3][..., None]):
        np.testing.assert_array_equal(read_examples(form, GREY), values[3][None, None])
    mixed, names = read_named_examples([path, values[5], Image.fromarray(values[6])], GREY)
    np.testing.assert_array_equal(mixed[:, 0], values[[3, 5, 6]])
    assert names == ["003.png", "1", "item 2 of the list"]


def test_examples_of_vectors_signals_and_digits():
    vector, signal = (
        DataSpec(kind="vector", shape=(4,), levels=None),
        DataSpec(kind="signal", shape=(1, 9), levels=None),
    )
    assert read_examples([1, 2, 3, 4], vector).tolist() == [[1, 2, 3, 4]]
    assert read_examples(np.zeros((3, 4)), vector).dtype == np.float32
    assert read_examples(np.zeros((3, 9)), signal).shape == (3, 1, 9)
    assert read_examples(np.zeros(9), signal).shape == (1, 1, 9)
    data = open_data("digits")
    values = data.test.values[:5]
    pictures = [to_pil(v, data.spec) for v in values]
    np.testing.assert_array_equal(read_examples(pictures, data.spec), values)


def test_a_model_trained_with_a_size_policy_resizes_what_it_is_given(tmp_path):
    big = np.repeat(np.repeat(pixels(12, 4, 5), 2, axis=1), 2, axis=2)
    spec = open_data(big, PreprocessConfig(size=(4, 5))).spec
    np.testing.assert_array_equal(read_examples(big, spec)[:, 0], big[:, ::2, ::2])
    folder_of(big, tmp_path)
    np.testing.assert_array_equal(read_examples(tmp_path, spec)[:, 0], big[:, ::2, ::2])


def test_convert_brings_channels_size_and_values(tmp_path):
    colour = np.repeat(np.repeat(pixels(2, 4, 5, 3), 2, axis=1), 2, axis=2)
    folder_of(colour, tmp_path)
    expected = np.stack([np.asarray(Image.fromarray(c[::2, ::2].copy()).convert("L")) for c in colour])
    for form in (tmp_path, colour, np.moveaxis(colour, -1, 1)):
        np.testing.assert_array_equal(read_examples(form, GREY, convert=True)[:, 0], expected)
    assert read_examples(np.full((4, 5), 300.4), GREY, convert=True).max() == 255


def test_data_needs_no_torch():
    code = "import sys, diled.data; diled.data.open_data('digits'); assert 'torch' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_rows_that_were_seen_are_found_whatever_their_type_in_less_memory_than_they_take():
    """By digests: of 20,000 rows of 237 symbols each in five is known; a number that does not fit is none that was seen."""
    rng = np.random.default_rng(0)
    among = rng.integers(1, 21, (20_000, 237)).astype(np.uint8)
    rows = np.concatenate([among[::100], rng.integers(1, 21, (800, 237))]).astype(np.int64)
    beyond = among[:1].astype(np.int64)
    beyond[0, 3] += 256
    tracemalloc.start()
    found = seen(np.concatenate([rows, beyond]), among)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.tolist() == [True] * 200 + [False] * 801
    assert peak < among.nbytes + 3 * rows.nbytes
    assert seen(among[:3], rows).tolist() == [True, False, False]
    assert seen(np.array([[0.25, 0.5]]), np.array([[0.5, 0.5], [0.75, 0.1]])).tolist() == [False]


def test_a_large_array_is_hashed_without_a_copy():
    values = np.arange(4_000_000, dtype=np.uint8).reshape(1000, 1, 80, 50)
    tracemalloc.start()
    found = hashed(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == hashlib.sha256(b"|u1 (1000, 1, 80, 50);" + values.tobytes()).hexdigest()
    assert peak < values.nbytes / 10
    assert hashed(values[:, :, ::2]) == hashed(values[:, :, ::2].copy()) != hashed(values[:, :, 1::2])
    assert hashed(values[:0]) != hashed(values[:1])
