"""Samples that somebody else has drawn, in a folder of images, .npy, Parquet or text files, as shards of a synthetic set.

Each .npy, Parquet or text file (`.txt` with a text on each line, `.csv`, `.tsv`, `.jsonl`) is a shard, and so is each folder of
images; the samples of a shard are numbered after those of the one before, in the order of the names. What they are (kind,
shape, scale) is found as for any other data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diled.config import DataSpec, SequenceConfig
from diled.data.arrays import load_arrays
from diled.data.examples import read_examples
from diled.data.folder import files_below, image_items
from diled.data.images import EXTENSIONS
from diled.data.opening import open_data
from diled.data.sequence_sources import read_records, sequences_below
from diled.data.strings import read_texts
from diled.data.synthetic_texts import as_objects
from diled.errors import DataError

__all__ = ["file_groups", "folder_spec", "group_values", "index_records", "indexed_values"]


def file_groups(folder: Path) -> dict[str, list[Path]]:
    """Shard -> its files: a .npy, Parquet or text file by its name, a folder of images by its name and a slash.

    Raises:
        DataError: nothing that can be read, or several kinds.
    """
    kinds: dict[str, dict[str, list[Path]]] = {}
    for file in files_below(folder):
        suffix, name = file.suffix.lower(), file.relative_to(folder).as_posix()
        if suffix in EXTENSIONS:
            kinds.setdefault("image", {}).setdefault(f"{file.parent.relative_to(folder).as_posix()}/", []).append(file)
        elif suffix in (".npy", ".parquet", ".pq"):
            kinds.setdefault(".npy" if suffix == ".npy" else "Parquet", {})[name] = [file]
    if not kinds:  # a .txt beside other samples says something about them
        kinds = {"text": {file.relative_to(folder).as_posix(): [file] for file in sequences_below(folder)}}
    if len(kinds) != 1 or not any(kinds.values()):
        found = f"holds {' and '.join(sorted(kinds))} files" if len(kinds) > 1 else "holds no samples"
        raise DataError(
            f"{folder} {found}: give a folder of images, of .npy, of Parquet or of text files, one kind only."
        )
    return next(iter(kinds.values()))


def folder_spec(folder: Path, groups: dict[str, list[Path]]) -> DataSpec:
    """What the samples of a folder are: kind, shape and scale, measured; of text the kind alone, without tokens.

    Raises:
        DataError: unreadable, or of several shapes or kinds.
    """
    try:
        return _measured(folder, groups)
    except DataError as error:
        if "--preprocess" not in str(error):
            raise
        raise DataError(
            f"{error} diled synthesize changes no samples, and so has no such option: bring them to one kind and size first."
        ) from None


def _measured(folder: Path, groups: dict[str, list[Path]]) -> DataSpec:
    """`folder_spec`, with the advice of what trains on the samples."""
    first, files = next(iter(groups.items()))
    if first.endswith("/"):
        return open_data([item.content for item in image_items(folder)]).spec
    sequences = sequences_below(folder)
    if sequences and read_records(sequences, SequenceConfig())[1] == "text":
        return DataSpec(kind="text", shape=())
    if files[0].suffix.lower() != ".npy":
        return open_data(folder).spec
    arrays = [load_arrays(file)["arr_0"] for (file,) in groups.values()]
    shapes = sorted({array.shape[1:] for array in arrays})
    if len(shapes) > 1:
        raise DataError(
            f"The arrays in {folder} differ in shape, such as {shapes[0]} and {shapes[1]}: give one folder for each shape."
        )
    return open_data(np.concatenate(arrays)).spec


def group_values(files: Sequence[Path], spec: DataSpec) -> np.ndarray:
    """The raw values (n, *spec.shape) of one shard, as data of that description; of text the texts, (n,) objects.

    Raises:
        DataError: unreadable, or of another shape or scale.
    """
    if spec.kind == "text":
        return as_objects([text for file in files for text in read_texts(file)])
    return read_examples(list(files), spec)


def index_records(groups: dict[str, list[Path]], spec: DataSpec) -> list[dict[str, Any]]:
    """What a manifest says of each shard: file, range, rows, bytes and SHA-256."""
    records, start = [], 0
    for name, files in groups.items():
        rows = len(group_values(files, spec))
        record = {"file": name, "start": start, "stop": start + rows, "rows": rows}
        records.append({**record, "bytes": sum(f.stat().st_size for f in files), "sha256": _digest(files)})
        start += rows
    return records


def indexed_values(record: dict[str, Any], files: Sequence[Path], spec: DataSpec) -> np.ndarray:
    """`group_values`, once the files are what their record says.

    Raises:
        DataError: they are not.
    """
    named = files[0] if len(files) == 1 else files[0].parent
    if _digest(files) != record["sha256"]:
        raise DataError(
            f"{named} is not what the manifest says: its SHA-256 differs. Put back what was there, or index the folder anew "
            "with diled synthesize."
        )
    values = group_values(files, spec)
    if len(values) != record["rows"]:
        raise DataError(f"{named} has {len(values):,} samples, where the manifest says {record['rows']:,}.")
    return values


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of a file, or of the hashes and names of several."""
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    if len(files) == 1:
        return hashes[0]
    listed = "".join(f"{digest}  {file.name}\n" for digest, file in zip(hashes, files, strict=True))
    return hashlib.sha256(listed.encode()).hexdigest()
