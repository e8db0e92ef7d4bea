"""Data sets with a name: `digits` comes with scikit-learn; `mnist`, `fashion-mnist` and `cifar10` from files or the Hub.

Files are looked for as `{name}-train*.parquet` and `{name}-test*.parquet` in the folder that the environment variable
`DILED_DATA` names. Where they are not there, the optional package `datasets` downloads the set. The sets of proteins and of
sentences are tables there, and are not downloaded; `sentences` is made by a grammar.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diled.config import PreprocessConfig, SequenceConfig
from diled.data.cache import cached, file_key
from diled.data.images import ImageItem, header, in_threads, read_all, target_kind
from diled.data.known_texts import EDITED, TEXTS, find_texts, read_rewrites
from diled.data.parquet import class_names, parquet_part, table_part
from diled.data.sequence_files import found_of
from diled.data.sequence_sources import read_records
from diled.data.splits import Found, Part
from diled.errors import DataError

__all__ = ["KNOWN", "find_known", "known_sets", "yelp_rewrites"]


@dataclass(frozen=True)
class Known:
    """A named set: what it is, and where it is found.

    Attributes:
        description: in words.
        repository, image_column: on the Hugging Face Hub.
        tables: of sequences: split -> name of the file.
        sequence: what of `SequenceConfig` is set unless the user says otherwise.
        labels: the columns that are labels; the others are left out.
    """

    description: str
    repository: str = ""
    image_column: str = "image"
    tables: dict[str, str] = field(default_factory=dict)
    sequence: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


GB1 = "MTYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE"
"""Wild type of the binding domain of protein G; the sites of Wu et al. 2016 (eLife 5, e16965) are V39, D40, G41, V54."""


KNOWN = {
    "digits": Known("1,797 grey images of digits, 8 x 8, 17 grey levels, 10 classes (UCI)"),
    "mnist": Known("70,000 grey images of digits, 28 x 28, 10 classes", "ylecun/mnist"),
    "fashion-mnist": Known("70,000 grey images of clothes, 28 x 28, 10 classes", "zalando-datasets/fashion_mnist"),
    "cifar10": Known("60,000 RGB images, 32 x 32, 10 classes", "uoft-cs/cifar10", "img"),
    "gifford": Known(
        "90,459 antibody CDR-H3 sequences with enrichment (Liu et al. 2020)",
        tables={"train": "gifford-cdr3-train.csv.gz", "test": "gifford-cdr3-test.csv.gz"},
        sequence={"column": "CDR3"},
        labels=("enrichment",),
    ),
    "gifford-id": Known(
        "the 67,769 training sequences of gifford, divided at random: its own test file has another distribution",
        tables={"all": "gifford-cdr3-train.csv.gz"},
        sequence={"column": "CDR3"},
        labels=("enrichment",),
    ),
    "gb1": Known(
        "149,361 variants of protein G at four sites with fitness (Wu et al. 2016)",
        tables={"all": "gb1-four-sites.csv.gz"},
        sequence={
            "column": "variant",
            "sites": (39, 40, 41, 54),
            "background": GB1,
            "split_column": "relso_split",
        },
        labels=("fitness",),
    ),
    "gfp": Known(
        "54,024 variants of a green fluorescent protein with log fluorescence (Sarkisyan et al. 2016)",
        tables={"all": "gfp-fluorescence.csv.gz"},
        sequence={"column": "sequence", "split_column": "relso_split"},
        labels=("log_fluorescence",),
    ),
    **{name: Known(description, tables=tables) for name, (description, tables, _) in TEXTS.items()},
}
# The customary split of the 60,000 or 50,000 training images.
_VALIDATION_COUNT = 5000


def known_sets() -> list[tuple[str, str, str]]:
    """(name, description, where it was found or how to get it) of every named set."""
    rows = []
    for name, known in KNOWN.items():
        if name == "digits":
            where = "comes with scikit-learn"
        elif name == "sentences":
            where = "made by diled"
        elif known.tables:
            there = all(path is not None for path in _tables(name).values())
            where = f"found in {os.environ['DILED_DATA']}" if there else _advice(name)
        elif all(_files(name, split) for split in ("train", "test")):
            where = f"found in {os.environ['DILED_DATA']}"
        else:
            where = f"set DILED_DATA to a folder with {name}-train.parquet and {name}-test.parquet, or pip install diled[data]"
        rows.append((name, known.description, where))
    return rows


def find_known(name: str, preprocess: PreprocessConfig = PreprocessConfig()) -> Found:  # noqa: B008 (frozen)
    """The named set with its official training and test split: images as (N, C, H, W) uint8, proteins as (N, L),
    texts as (N, 2).

    Raises:
        DataError: its files are not in `DILED_DATA`, and `datasets` is not installed or cannot download it.
    """
    if name == "digits":
        return _digits()
    if name in TEXTS:
        _only(name, "text", preprocess)
        return find_texts(name, _present(name), preprocess)
    if KNOWN[name].tables:
        _only(name, "protein", preprocess)
        return _proteins(name, preprocess)
    classes: dict[str, list[str]] = {}
    parts = {}
    for split in ("train", "test"):
        files = _files(name, split)
        parts[split], declared = _from_files(files) if files else _from_hub(name, split)
        classes |= declared
    return Found(name, "image", parts, [], classes, full_scale=True, validation_count=_VALIDATION_COUNT)


def _proteins(name: str, preprocess: PreprocessConfig) -> Found:
    """A set of sequences, with its own columns and splits where the user says nothing of them."""
    known, paths = KNOWN[name], _present(name)
    given = preprocess.sequence.model_dump(exclude_defaults=True)  # a saved run names every value
    own = dict(known.sequence)
    if given.get("split", "auto") not in ("auto", "column"):
        own.pop("split_column", None)
    config = SequenceConfig(**own | given)
    records = {split: read_records([path], config, "protein")[0] for split, path in paths.items()}
    found = found_of(records, name, preprocess.model_copy(update={"sequence": config}))
    for part in found.parts.values():
        part.columns = {column: part.columns[column] for column in known.labels}
    return found


def _only(name: str, kind: str, preprocess: PreprocessConfig) -> None:
    """Refuse another kind than that of a named set."""
    if preprocess.sequence.kind not in ("auto", kind):
        raise DataError(
            f"The data set '{name}' holds {kind}, not {preprocess.sequence.kind} (preprocess.sequence.kind)."
        )


def _present(name: str) -> dict[str, Path]:
    """The files of a set of sequences.

    Raises:
        DataError: one is missing.
    """
    paths = {split: path for split, path in _tables(name).items() if path is not None}
    if len(paths) < len(KNOWN[name].tables):
        raise DataError(f"The data set '{name}' is not on this machine: {_advice(name)}.")
    return paths


def yelp_rewrites() -> tuple[list[str], list[str], list[str]]:
    """The sentences of `yelp` on which edits are measured, the sentiment that is wanted of each, and rewrites by people.

    Raises:
        DataError: the file is not in `DILED_DATA`.
    """
    path = _tables("yelp")["edited"]
    if path is None:
        raise DataError(f"{EDITED} is not on this machine: {_advice('yelp')}.")
    return read_rewrites(path)


def _tables(name: str) -> dict[str, Path | None]:
    """The files of a set of sequences in `DILED_DATA`, None where one is missing."""
    folder = os.environ.get("DILED_DATA")
    paths = {split: Path(folder or ".").expanduser() / file for split, file in KNOWN[name].tables.items()}
    return {split: path if folder and path.is_file() else None for split, path in paths.items()}


def _advice(name: str) -> str:
    *others, last = KNOWN[name].tables.values()
    return f"set DILED_DATA to a folder with {', '.join(others)}{' and ' if others else ''}{last}"


def _digits() -> Found:
    """1,437 training and 360 test images, stratified by class with seed 0."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    rows = np.arange(len(source.target))
    train, test = train_test_split(rows, test_size=360, random_state=0, stratify=source.target)
    whole = Part(
        source.images.astype(np.uint8)[:, None], [str(i) for i in rows], {"label": source.target.astype(np.int64)}
    )
    parts = {"train": whole.take(np.sort(train)), "test": whole.take(np.sort(test))}
    note = "digits has no official split: test is 360 images drawn by class with seed 0."
    return Found("digits", "image", parts, [note], {"label": [str(i) for i in range(10)]})


def _files(name: str, split: str) -> list[Path]:
    """The Parquet files of one split in `DILED_DATA`."""
    folder = os.environ.get("DILED_DATA")
    return sorted(Path(folder).expanduser().glob(f"{name}-{split}*.parquet")) if folder else []


def _from_files(files: list[Path]) -> tuple[Part, dict[str, list[str]]]:
    """One split from its Parquet files. Images come from the cache where they are there, labels always from the files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    key = "+".join(file_key(file) for file in files)
    arrays = cached(key, lambda: _decoded(parquet_part(files)[0].examples, files[0].name))
    try:
        schema = pq.read_schema(files[0])
        labels = [pq.read_table(file, columns=["label"], partitioning=None)["label"].to_numpy() for file in files]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{files[0]} has no readable column 'label' ({error}).") from error
    columns = {"label": np.concatenate(labels)}
    return Part(arrays["values"], arrays["ids"].tolist(), columns), class_names(schema)


def _from_hub(name: str, split: str) -> tuple[Part, dict[str, list[str]]]:
    """One split through the package `datasets`, decoded by Pillow like files."""
    known = KNOWN[name]
    advice = (
        f"Set the environment variable DILED_DATA to a folder with {name}-train.parquet and {name}-test.parquet, or let it "
        "be downloaded with: pip install diled[data]"
    )
    try:
        import datasets
    except ImportError:
        raise DataError(f"The data set '{name}' is not on this machine. {advice}") from None
    try:
        loaded = datasets.load_dataset(known.repository, split=split)
    except Exception as error:  # network, disk and Hub errors of many libraries
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"'{name}' could not be downloaded from {known.repository} ({reason}). {advice}") from error
    declared = getattr(loaded.features.get("label"), "names", None)

    def table() -> Any:
        encoded = loaded.cast_column(known.image_column, datasets.Image(decode=False))
        return encoded.with_format("arrow")[:]

    key = f"{name}-{split}-{loaded._fingerprint}"
    arrays = cached(key, lambda: _decoded(table_part(table(), known.image_column, name)[0].examples, name))
    columns = {"label": np.asarray(loaded["label"][:], dtype=np.int64)}
    return Part(arrays["values"], arrays["ids"].tolist(), columns), {"label": list(declared)} if declared else {}


def _decoded(items: list[ImageItem] | np.ndarray, name: str) -> dict[str, np.ndarray]:
    """All images as found, for the cache: `values` (N, C, H, W) and `ids`."""
    assert isinstance(items, list)
    headers = [h for h in in_threads(header, items, skip=False, small=True) if not isinstance(h, DataError)]
    if not headers:
        raise DataError(f"{name} is empty.")
    _, kind = target_kind(headers, "auto", name)
    values, _ = read_all(items, kind, (headers[0].height, headers[0].width))
    return {"values": values, "ids": np.array([item.id for item in items])}
