r"""Synthetic training sets on disk: shards of samples, the manifest over them, and how both are read again.

A set of n samples is cut into shards of s: shard j holds the samples j s, ..., min((j + 1) s, n) - 1. Sample i is a
function of (model, seed, i) alone, so shards can be drawn in any order, by anyone, and a lost one again.

    DIR/manifest.json                   what was drawn from what, how; at the end also the shards and a probe of quality
    DIR/data/pool-00000-of-00118.parquet    columns `image` (PNG), `text` or `values` (a list of fixed size), and `index`
    DIR/shards/00000.json               rows, bytes and SHA-256 of a finished shard, until the manifest has them too

Every file is written beside its place and then moved there, and a shard counts only with its record, which comes last:
nothing half-written looks whole after kill -9. NumPy and pyarrow only, and for text `tokenizers`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diled.config import DataSpec, validated
from diled.data.folder import files_below
from diled.data.indexing import file_groups, folder_spec, group_values, index_records, indexed_values
from diled.data.shards import decoded, encoded
from diled.data.sources import existing
from diled.data.synthetic_texts import rows_of
from diled.errors import ConfigError, DataError

__all__ = [
    "MANIFEST",
    "Pool",
    "Shard",
    "begin",
    "complete",
    "duplicates",
    "index_folder",
    "is_cut",
    "is_finished",
    "is_two_valued",
    "open_pool",
    "plan",
    "read_manifest",
    "set_hash",
    "write_shard",
]

MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the folder's layout."""
PARTIAL = ".partial-"
AGAIN = "Go on with the same diled synthesize command, which draws what is missing again."


@dataclass(frozen=True)
class Shard:
    """The samples `start` to `stop` - 1 of a set, in `file` below its folder."""

    number: int
    file: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Pool:
    """A synthetic training set in memory.

    Attributes:
        values: (N, *shape), raw values in the type that the data have.
        manifest: what was drawn from what, how.
        numbers: (N,), which samples these are; None: all. Of texts some are left out.
    """

    values: np.ndarray
    manifest: dict[str, Any]
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)


# Writing --------------------------------------------------------------------------------------------------------------


def plan(n: int, size: int) -> list[Shard]:
    """The shards of n samples, `size` in each and the rest in the last.

    Raises:
        ConfigError: a number below one.
    """
    for name, number in (("n", n), ("shard_size", size)):
        if number < 1:
            raise ConfigError(f"{name} = {number}: at least 1 is needed.")
    count = -(-n // size)
    names = [f"data/pool-{j:05d}-of-{count:05d}.parquet" for j in range(count)]
    return [Shard(j, name, j * size, min((j + 1) * size, n)) for j, name in enumerate(names)]


def begin(folder: Path, settings: dict[str, Any], about: dict[str, Any]) -> None:
    """Write the manifest of a set that has no shards yet, or check that the one which is there has the same settings.

    Args:
        folder: of the set; made where it is missing.
        settings: all that the samples depend on; what else the manifest says is `about` them.
        about: source, provenance and the like.

    Raises:
        ConfigError: the folder holds other things, or was begun with other settings.
        OSError: it cannot be written to.
    """
    path = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file. Choose another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(p.name for p in folder.iterdir() if not p.name.startswith(PARTIAL))
    if others and not path.exists():  # in this order: another process may have begun in between
        raise ConfigError(
            f"{folder} holds {others[0]} and no {MANIFEST}; nothing is overwritten. Choose another --out."
        )
    record = {"format": FORMAT, "complete": False, "settings": settings, **about, "shards": []}
    if path.exists() or not _write(path, _json(record), fresh=True):
        _same_settings(folder, read_manifest(folder)["settings"], json.loads(_json(settings)))


def write_shard(folder: Path, shard: Shard, values: np.ndarray, spec: DataSpec, **about: Any) -> None:
    """Write one shard and then its record; both are moved into place whole.

    Args:
        folder: of the set.
        shard: its place.
        values: raw values (stop - start, *spec.shape).
        spec: of the data.
        about: what else the record says.

    Raises:
        DataError: values of another shape.
        OSError: the disk is full, or the like.
    """
    if values.shape != (shard.stop - shard.start, *spec.shape):
        raise DataError(f"{shard.file} holds {shard.stop - shard.start} x {spec.shape}, not {values.shape}.")
    content = encoded(values, shard.start, spec)
    for part in ("data", "shards"):
        (folder / part).mkdir(exist_ok=True)
    _write(folder / shard.file, content)
    record = {
        "file": shard.file,
        "start": shard.start,
        "stop": shard.stop,
        "rows": len(values),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        **about,
    }
    _write(_record_path(folder, shard), _json(record))


def is_finished(folder: Path, shard: Shard, *, verify: bool = False) -> bool:
    """Whether a shard is there as its record says: range, size and number of rows; with `verify` every byte."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    record, path = _record(folder, shard), folder / shard.file
    if record is None or (record["start"], record["stop"]) != (shard.start, shard.stop):
        return False
    try:
        if path.stat().st_size != record["bytes"] or pq.read_metadata(path).num_rows != record["rows"]:
            return False
        return not verify or hashlib.sha256(path.read_bytes()).hexdigest() == record["sha256"]
    except (OSError, pa.ArrowException):
        return False


def complete(
    folder: Path, shards: Sequence[Shard], probe: Callable[[np.ndarray], Any] | None = None, *, verify: bool = False
) -> bool:
    """Finish the manifest where all shards are done, whoever drew them; whether they are.

    Args:
        folder: of the set.
        shards: all of them.
        probe: raw values of the first shard -> what the manifest says of their quality.
        verify: look at every byte of the shards.
    """
    if not all(is_finished(folder, shard, verify=verify) for shard in shards):
        return False
    manifest = read_manifest(folder)
    records = [record for shard in shards if (record := _record(folder, shard)) is not None]
    if manifest["complete"] and manifest["shards"] == records:
        return True
    found = None if probe is None else probe(_drawn(folder, records[0], _spec(manifest)))
    manifest |= {"complete": True, "probe": found, "shards": records}
    _write(folder / MANIFEST, _json(manifest))
    for part in ("data", "shards"):
        for left in (folder / part).glob(f"{PARTIAL}*"):  # of processes that were killed
            left.unlink(missing_ok=True)
    return True


def index_folder(
    folder: Path,
    about: dict[str, Any],
    *,
    n: int | None = None,
    spec: DataSpec | None = None,
    probe: Callable[[np.ndarray, DataSpec], Any] | None = None,
) -> dict[str, Any]:
    """Write a manifest over samples that lie in a folder already, and return it; the samples stay as they are.

    Args:
        folder: with images, .npy files or Parquet files below it, of one of these kinds.
        about: what the manifest says beside.
        n: how many samples there must be, if that is known.
        spec: of the data that they are read as; default: what is found.
        probe: raw values of the first shard, their description -> what the manifest says of their quality.

    Raises:
        DataError: nothing that can be read, a mixture, samples that do not fit `spec`, or another number of them than n.
        ConfigError: the folder holds a set that was drawn by `diled synthesize`.
        OSError: the manifest cannot be written.
    """
    if (folder / MANIFEST).exists() and not _is_indexed(read_manifest(folder)):
        raise ConfigError(f"{folder} is a set that diled synthesize has drawn, with a manifest of its own.")
    groups = file_groups(folder)
    spec = folder_spec(folder, groups) if spec is None else spec
    records = index_records(groups, spec)
    if n is not None and n != records[-1]["stop"]:
        raise DataError(f"{folder} holds {records[-1]['stop']:,} samples, not {n:,}: leave out --n.")
    found = None if probe is None else probe(group_values(next(iter(groups.values())), spec), spec)
    settings = {"n": records[-1]["stop"], "data": spec.model_dump(mode="json")}
    manifest = {"format": FORMAT, "complete": True, "settings": settings, **about, "probe": found, "shards": records}
    _write(folder / MANIFEST, _json(manifest))
    return read_manifest(folder)


# Reading --------------------------------------------------------------------------------------------------------------


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a set.

    Raises:
        DataError: there is none, it is damaged, or of another version.
    """
    path = existing(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format"]
        missing = {"complete", "settings", "source", "shards"} - set(manifest)
    except OSError:
        draws = (path.parent / "config.json").exists()
        mend = (
            f" {folder} --n N --out DIR` draws one from this model" if draws else f" {folder}` writes one over samples"
        )
        raise DataError(f"{folder} is no synthetic set: it has no {MANIFEST}. `diled synthesize{mend}.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}), or the manifest of something else.") from None
    if version != FORMAT or missing:
        why = f"format {version}, and this diled reads {FORMAT}" if version != FORMAT else f"no '{sorted(missing)[0]}'"
        raise DataError(f"{path} has {why}: read it with the diled that wrote it, or draw the set again.")
    return dict(manifest)


def set_hash(folder: str | Path) -> str:
    """Which set this is: SHA-256 of what its manifest says of settings, source and shards, wherever it lies.

    Raises:
        DataError: as `read_manifest`.
    """
    manifest = read_manifest(folder)
    said = json.dumps([manifest[part] for part in ("settings", "source", "shards")], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def open_pool(folder: str | Path, spec: DataSpec) -> Pool:
    """A synthetic training set, checked against its manifest, byte by byte, and against the data that it stands for.

    Args:
        folder: as `diled synthesize` left it.
        spec: of the data; binarised data take grey samples too, as they take grey images. Texts become its tokens; those
            that no data may hold, or that are too long, are left out.

    Raises:
        DataError: the set is not finished, a shard is missing, changed or not in the manifest, or the samples have another
            shape or scale than the data.
    """
    folder = existing(folder)
    manifest = read_manifest(folder)
    if not manifest["complete"]:
        raise DataError(f"The synthetic set {folder} is not finished. {AGAIN}")
    _same_data(folder, manifest, spec)
    groups = file_groups(folder) if _is_indexed(manifest) else None
    _check_files(folder, manifest, groups)
    drawn = _spec(manifest)

    def read(record: dict[str, Any]) -> np.ndarray:
        if groups is not None:
            return indexed_values(record, groups[record["file"]], spec)
        return _drawn(folder, record, drawn)

    if spec.kind == "text":
        values, numbers = rows_of([text for record in manifest["shards"] for text in read(record)], spec)
        return Pool(values, manifest, numbers)
    first, *others = manifest["shards"]
    part = read(first)
    values = np.empty((manifest["settings"]["n"], *spec.shape), part.dtype)  # once: pools are large
    values[: len(part)] = part

    def fill(record: dict[str, Any]) -> None:
        values[record["start"] : record["stop"]] = read(record)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers:
        list(workers.map(fill, others))
    return Pool(values, manifest)


def duplicates(values: np.ndarray, others: np.ndarray, spec: DataSpec | None = None) -> np.ndarray:
    """The rows of `values` that occur among `others` byte for byte, (k,) int64; both are cut at one half first where `is_cut`.

    Args:
        values: raw values (N, *shape).
        others: raw values (M, *shape), of any numerical type.
        spec: of the data; without it nothing says where one half is, and nothing is cut.

    Raises:
        DataError: the shapes differ.
    """
    if values.shape[1:] != others.shape[1:]:
        raise DataError(f"Samples of shape {values.shape[1:]} cannot be looked for among {others.shape[1:]}.")
    if is_cut(values, spec):
        assert spec is not None
        middle = (spec.low + spec.high) / 2
        values, others = (np.packbits((v > middle).reshape(len(v), -1), axis=1) for v in (values, others))
    kind = np.result_type(values, others)
    known = {_row(row, kind) for row in others}
    return np.array([i for i, row in enumerate(values) if _row(row, kind) in known], dtype=np.int64)


def is_cut(values: np.ndarray, spec: DataSpec | None) -> bool:
    """Whether these raw values are compared with others cut at one half of the scale, so that a binarised copy of a grey
    image is found as well: they have two values only, or `spec` cuts there."""
    return spec is not None and (spec.binarize == "threshold" or is_two_valued(values, spec))


def is_two_valued(values: np.ndarray, spec: DataSpec) -> bool:
    """Whether the raw values are the ends of the scale."""
    return all(
        bool(((v == spec.low) | (v == spec.high)).all()) for v in np.array_split(values, len(values) // 4096 + 1)
    )


# Checks ---------------------------------------------------------------------------------------------------------------


def _drawn(folder: Path, record: dict[str, Any], spec: DataSpec) -> np.ndarray:
    """The raw values of a shard of ours, once its bytes are what its record says."""
    path = folder / record["file"]
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise DataError(f"The shard {path} is not what the manifest says: its SHA-256 differs. Delete it. {AGAIN}")
    values = decoded(content, record["start"], spec, str(path))
    if len(values) != record["rows"]:
        raise DataError(f"The shard {path} has {len(values):,} rows, where the manifest says {record['rows']:,}.")
    return values


def _is_indexed(manifest: dict[str, Any]) -> bool:
    return bool(manifest["source"]["kind"] == "folder")


def _same_data(folder: Path, manifest: dict[str, Any], spec: DataSpec) -> None:
    """Refuse samples of another shape or scale than the data's."""
    found = _spec(manifest)
    if spec.kind == "text" == found.kind:
        return  # of whatever tokens and length
    keys = ("kind", "shape")
    mend = f"Read it as these data: diled synthesize {folder} --data DATA."
    # Files of others are read as the data, and refused there where their values do not fit.
    if not _is_indexed(manifest):
        grey, mend = spec.binarize == "none", "Draw it from a model of these data."
        keys = (*keys, "low", "high", *(("levels", "binarize") if grey else ()))
    for key in keys:
        mine, theirs = getattr(spec, key), getattr(found, key)
        if mine != theirs:
            raise DataError(
                f"The synthetic set {folder} is of other data: {key} is {theirs} there, and {mine} in the data that it is to "
                f"stand for. {mend}"
            )


def _check_files(folder: Path, manifest: dict[str, Any], groups: dict[str, list[Path]] | None) -> None:
    """Refuse a set whose files are not those of the manifest; `groups` are the shards of an indexed folder."""
    known = [record["file"] for record in manifest["shards"]]
    if groups is not None:
        there, mend = set(groups), f"Put it back, or index what is there: diled synthesize {folder}"
    else:
        there, mend = {f"data/{file.name}" for file in files_below(folder / "data")}, AGAIN
    missing, extra = [name for name in known if name not in there], sorted(there - set(known))
    if missing:
        raise DataError(
            f"The synthetic set {folder} lacks {missing[0]} ({len(missing)} of {len(known)} shards). {mend}"
        )
    if extra:
        raise DataError(
            f"The synthetic set {folder} holds {extra[0]}, of which its manifest knows nothing ({len(extra)} such). Move it "
            "away: nobody knows what it holds."
        )
    at = 0
    for record in manifest["shards"]:
        if record["start"] != at or record["stop"] - record["start"] != record["rows"]:
            raise DataError(f"{folder / MANIFEST} is damaged: {record['file']} does not begin at sample {at:,}. {mend}")
        at = record["stop"]
    if at != manifest["settings"]["n"]:
        raise DataError(
            f"{folder / MANIFEST} is damaged: it says {manifest['settings']['n']:,} samples and lists {at:,}."
        )


# Helpers --------------------------------------------------------------------------------------------------------------


def _spec(manifest: dict[str, Any]) -> DataSpec:
    return validated(DataSpec, manifest["settings"]["data"], "data")


def _same_settings(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if keys:
        said = " and ".join(f"{key} = {_short(before.get(key))}, not {_short(now.get(key))}" for key in keys)
        raise ConfigError(
            f"The set in {folder} was begun with {said}: go on with its own settings, or choose another --out."
        )


def _short(value: Any) -> str:
    said = str(value)
    return f"{said[:12]}..." if isinstance(value, dict) or len(said) == 64 else said


def _record_path(folder: Path, shard: Shard) -> Path:
    return folder / "shards" / f"{shard.number:05d}.json"


def _record(folder: Path, shard: Shard) -> dict[str, Any] | None:
    """What is written down of a shard; None where there is nothing, or something damaged."""
    try:
        record = json.loads(_record_path(folder, shard).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    keys = {"file", "start", "stop", "rows", "bytes", "sha256"}
    return record if isinstance(record, dict) and keys <= set(record) else None


def _json(record: Any) -> bytes:
    return (json.dumps(record, indent=2) + "\n").encode()


def _write(path: Path, content: bytes, *, fresh: bool = False) -> bool:
    """Write beside `path`, then move it there; `fresh` does so only where nothing is, and returns whether it did."""
    partial = path.with_name(f"{PARTIAL}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        partial.write_bytes(content)
        if fresh:
            try:
                os.link(partial, path)  # unlike a move, refuses a place that another process has just taken
                return True
            except FileExistsError:
                return False
            except OSError:  # a disk without hard links
                pass
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return True


def _row(row: np.ndarray, kind: np.dtype[Any]) -> bytes:
    """Bytes that are equal for equal numbers of whatever type; -0 is 0."""
    return (row.astype(kind) + kind.type(0)).tobytes()
