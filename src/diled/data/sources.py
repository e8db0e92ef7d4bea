"""From whatever a user names to what is found there: a known name, a path, an array, or a list of images or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diled.config import Config, PreprocessConfig, TextConfig
from diled.data.arrays import read_array, read_array_file
from diled.data.faults import check_missing
from diled.data.folder import files_below, read_folder
from diled.data.images import EXTENSIONS, ImageItem
from diled.data.known import KNOWN, find_known
from diled.data.parquet import parquet_files, read_parquet
from diled.data.sequence_sources import SEQUENCES, are_sequences, is_sequence_file, read_sequences, sequences_below
from diled.data.splits import Found, Part
from diled.data.text import load_tokenizer
from diled.errors import DataError, NoColumn, did_you_mean

__all__ = ["check_file", "existing", "find", "is_array", "is_image_folder"]

READ = (
    f"a folder of images ({' '.join(EXTENSIONS)}), .parquet, .npy and .npz; sequences and text: {' '.join(SEQUENCES)} "
    "(also .gz)"
)
PROTEINS = ("sites", "background", "padding", "identity", "max_mutations", "parent", "clusters", "mutations")
"""Options, and ways of dividing, that have no meaning for text."""
# Formats whose ordinary readers run code that the file brings along.
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".dill", ".mat")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def find(source: Any, preprocess: PreprocessConfig) -> Found:
    """What `source` holds, not decoded and not divided. A known name goes before a folder of the same name.

    Raises:
        NoColumn: a column of images is named, and the examples are in no Parquet file.
        DataError: nothing there, nothing that can be read, or an option is for other data than these.
    """
    found = _find(source, preprocess)
    if _differs(preprocess, "image_column") and not found.tabular:
        raise NoColumn(
            f"--preprocess.image_column names the column of Parquet files that holds images, and {found.name} is no such file: "
            "leave it out."
        )
    if found.kind == "text" and found.stated is not None and preprocess.text != TextConfig():
        given = preprocess.text.tokenizer
        if given is None or load_tokenizer(given) != found.stated.tokenizer:
            raise DataError(f"{found.name} holds tokens already, so --preprocess.text has no effect: leave it out.")
    for group, key in _without_effect(found.kind, preprocess):
        what = {"protein": "protein sequences", "text": "text"}.get(found.kind, f"{found.kind}s")
        for_what = "text" if group == "text" else "sequences" if found.kind != "text" else "proteins"
        more = (
            " Where they are words: --preprocess.sequence.kind text."
            if (group, found.kind) == ("text", "protein")
            else ""
        )
        raise DataError(f"--preprocess.{group}.{key} is for {for_what}, and {found.name} holds {what}.{more}")
    return found


def _without_effect(kind: str, preprocess: PreprocessConfig) -> list[tuple[str, str]]:
    """(group, key) of the options that differ from their defaults and are for other kinds of data."""
    text, sequence = (
        [key for key in sorted(group.model_fields_set) if _differs(group, key)]
        for group in (preprocess.text, preprocess.sequence)
    )
    if kind == "text":
        wrong = [k for k in sequence if k in PROTEINS or (k == "split" and getattr(preprocess.sequence, k) in PROTEINS)]
    else:
        wrong = [] if kind == "protein" else sequence
    return [("sequence", key) for key in wrong] + [("text", key) for key in text if kind != "text"]


def _differs(config: Config, key: str) -> bool:
    """Whether a value is another than its default."""
    return bool(getattr(config, key) != type(config).model_fields[key].default)


def _find(source: Any, preprocess: PreprocessConfig) -> Found:
    if is_array(source):
        values = np.asarray(source)
        if values.dtype.kind not in "UO":
            return read_array(values, "the array")
        source = values.tolist()
    if isinstance(source, (list, tuple)):
        listed = are_sequences(source, preprocess.sequence)
        return read_sequences(source, preprocess) if listed else _list(source)
    if isinstance(source, str) and source in KNOWN:
        found = find_known(source, preprocess)
        if Path(source).exists():
            found.notes.append(f"'{source}' names the known set; the local path is ./{source}.")
        return found
    if not isinstance(source, (str, Path)):
        raise DataError(f"Data are given by a name, a path, an array or a list, not by {type(source).__name__}.")
    path = existing(source, KNOWN)
    if path.is_dir():
        _refuse_unfinished(path)
        if sequences_below(path, preprocess.sequence, preprocess.image_column):
            return read_sequences(path, preprocess)
        return read_folder(path) if is_image_folder(path) else read_parquet(path, preprocess.image_column)
    if path.is_file() and is_sequence_file(path, preprocess.sequence, preprocess.image_column):
        return read_sequences(path, preprocess)
    suffix = check_file(path)
    if suffix in (".npy", ".npz"):
        return read_array_file(path, preprocess.label_column)
    if suffix in EXTENSIONS:
        raise DataError(f"{path} is one image, and one image cannot train a model: give a folder of at least 10.")
    return read_parquet(path, preprocess.image_column)


def _refuse_unfinished(folder: Path) -> None:
    """Refuse a synthetic set of which shards are missing: those that are there would pass for all of it."""
    from diled.data.synthesis import AGAIN, read_manifest

    try:
        finished = read_manifest(folder)["complete"]
    except DataError:  # there is none, or it is somebody else's
        return
    if not finished:
        raise DataError(f"The synthetic set {folder} is not finished. {AGAIN}")


def is_array(source: Any) -> bool:
    """Whether `source` is an array or a tensor of any library (a Pillow image is not)."""
    return hasattr(source, "__array__") and not isinstance(source, Image.Image)


def is_image_folder(folder: Path) -> bool:
    """Whether `folder` is read as images: always, unless it holds Parquet files and no image."""
    return not parquet_files(folder) or any(f.suffix.lower() in EXTENSIONS for f in files_below(folder))


def existing(source: str | Path, names: Sequence[str] | dict[str, Any] = ()) -> Path:
    """The path `source`, which must exist.

    Raises:
        DataError: it does not; the nearest name beside it, and the nearest of `names`, are given.
    """
    if not str(source):
        raise DataError("The data have an empty name. Give a path, or one of: " + ", ".join(names))
    if "\0" in str(source):
        raise DataError(f"{str(source)!r} is no usable path: it contains a null character.")
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: '~someone' who does not exist
        raise DataError(f"{str(source)[:200]!r} is no usable path ({error}).") from None
    hint = did_you_mean(path.name, [*siblings, *names])
    hint = hint if hint.startswith(" Did") else ""
    known = f" Known data sets: {', '.join(names)}." if names else ""
    raise DataError(f"There is no file or folder {path}.{hint}{known}")


def check_file(path: Path) -> str:
    """The suffix of a file that is read, in lower case.

    Raises:
        DataError: a pickle, an archive, or another type that is not read.
    """
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz", ".parquet", ".pq", *EXTENSIONS):
        if not path.is_file():
            raise DataError(f"{path} is not a regular file.")
        return suffix
    if suffix in _PICKLES:
        raise DataError(
            f"{path} is refused: {suffix} files are or may be pickles, which can run code when loaded. Save the numbers as "
            ".npy, .npz or .parquet."
        )
    if suffix in _ARCHIVES:
        raise DataError(f"{path} is an archive: unpack it and give the folder. Data that are read: {READ}.")
    if suffix == ".safetensors":
        raise DataError(f"{path} holds a model's weights, not data. Data that are read: {READ}.")
    raise DataError(f"{path} has the extension '{suffix or 'none'}', which is not read as data. Read are {READ}.")


def _list(source: Sequence[Any]) -> Found:
    """A list of image paths, Pillow images, arrays or numbers; lists of arrays are stacked."""
    if not source:
        raise DataError("The list of examples is empty.")
    if all(isinstance(one, (str, Path, Image.Image)) for one in source):
        items = [_item(one, row) for row, one in enumerate(source)]
        return Found("the list", "image", {"all": Part(items, [item.id for item in items])}, full_scale=True)
    if any(isinstance(one, (str, Path, Image.Image)) for one in source):
        check_missing(source)
        raise DataError("The list mixes images or paths with arrays: give one or the other.")
    shapes = {np.shape(one) for one in source} if all(is_array(one) for one in source) else set()
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise DataError(
            f"The arrays of the list differ in shape, such as {first} and {second}: bring them to one shape."
        )
    try:
        return read_array(np.asarray(source), "the list")
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError("The examples of the list differ in length or type: bring them to one shape.") from None


def _item(one: str | Path | Image.Image, row: int) -> ImageItem:
    """An image of a list, by its path or its place."""
    if isinstance(one, Image.Image):
        return ImageItem(str(row), f"image {row} of the list", one)
    path = existing(one)
    if check_file(path) not in EXTENSIONS:
        raise DataError(f"{path} is no image: a list of paths holds images ({' '.join(EXTENSIONS)}).")
    return ImageItem(str(one), str(path), path)
