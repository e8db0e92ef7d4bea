"""What a user hands to a trained model of sequences, as rows of numbers, or a clear refusal.

    "ACDY", "good food", a file, a folder, numbers (N, L), or a list of these  ->  (N, L) and a name for each

What is the path of something goes for the path. Where nothing is there, residues with "/" or the ending of a file are a path
that is wrong; words are a text, unless they end like a file that is read and have no spaces. In a list given to a model of text
every string is a text, "docs" and "." as well, and a path is a `Path`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diled.config import DataSpec, SequenceConfig
from diled.data.arrays import examples_in, numeric
from diled.data.images import EXTENSIONS
from diled.data.records import Records
from diled.data.scale import raw_dtype
from diled.data.sequence_sources import (
    PATHS,
    SEQUENCES,
    Kind,
    is_sequence_file,
    looks_like_path,
    read_records,
    sequences_below,
)
from diled.data.strings import from_strings
from diled.errors import DataError

__all__ = ["measured_columns", "read_named_sequences"]

ARRAYS = (".npy", ".npz")


def read_named_sequences(
    inputs: Any, spec: DataSpec, *, convert: bool = False, column: str | None = None
) -> tuple[np.ndarray, list[str]]:
    """Rows (N, L) of the model's symbols, and a name for each.

    Args:
        inputs: a sequence or text, a path (FASTA, `.csv`, `.tsv`, `.jsonl`, `.txt` with one in each line, Parquet, `.npy`,
            `.npz`, a folder), an array of text or of whole numbers, or a list of any of these; strings in a list that is
            given to a model of text are texts, never paths.
        spec: what the model was trained on.
        convert: read what is no amino acid as X, and cut what is too long.
        column: of tables; None: as in training data.

    Raises:
        DataError: nothing there, or no sequences that the model reads; it names the input, the record and the position.
    """
    if isinstance(inputs, (list, tuple)) and not len(inputs):
        raise DataError("The list of examples is empty.")
    if isinstance(inputs, (list, tuple)) and not all(np.isscalar(one) and not isinstance(one, str) for one in inputs):
        words = [isinstance(one, str) and (spec.kind == "text" or not _is_path(one, spec)) for one in inputs]
        if all(words):
            return from_strings(inputs, spec, convert=convert), [str(i) for i in range(len(inputs))]
        if any(isinstance(one, (str, Path, Image.Image)) or hasattr(one, "__array__") for one in inputs):
            each = [
                (from_strings([one], spec, convert=convert), ["0"])
                if word
                else read_named_sequences(one, spec, convert=convert, column=column)
                for one, word in zip(inputs, words, strict=True)
            ]
            names = [name for _, names in each for name in names]
            files = any(isinstance(one, (str, Path)) and not word for one, word in zip(inputs, words, strict=True))
            return np.concatenate([rows for rows, _ in each]), names if files else [str(i) for i in range(len(names))]
    if isinstance(inputs, Image.Image):
        raise DataError(f"The model reads {_wanted(spec)}; the input is an image.")
    if isinstance(inputs, Path) or (isinstance(inputs, str) and _is_path(inputs, spec)):
        return _from_path(Path(inputs).expanduser(), spec, convert, column)
    if isinstance(inputs, str):
        return from_strings([inputs], spec, convert=convert), ["0"]
    try:
        values = np.asarray(inputs)
    except ValueError:
        raise DataError("The rows of the list differ in length: fill them up with 0, or give text.") from None
    if values.dtype.kind in "UO" and values.size:
        texts = values.ravel().tolist()
        if all(isinstance(one, str) for one in texts):
            return from_strings(texts, spec, convert=convert), [str(i) for i in range(len(texts))]
    rows = _rows(values, spec, "the input")
    return rows, [str(i) for i in range(len(rows))]


def _is_path(given: str | Path, spec: DataSpec) -> bool:
    """Whether a string, or a path, is meant as a path."""
    text = str(given)
    if spec.kind == "text":
        return isinstance(given, Path) or looks_like_path(text)
    named = "/" in text or text.lower().removesuffix(".gz").endswith(PATHS)
    return bool(text) and (named or looks_like_path(text))


def _from_path(path: Path, spec: DataSpec, convert: bool, column: str | None) -> tuple[np.ndarray, list[str]]:
    """All sequences of a file or folder, splits and labels disregarded."""
    from diled.data.sources import check_file, existing

    path = existing(path)
    suffix = path.suffix.lower()
    if path.is_dir():
        files = sequences_below(path)
        if not files:
            raise DataError(f"The folder {path} holds no files of sequences ({' '.join(SEQUENCES)}, .parquet).")
    elif suffix in ARRAYS:
        blocks = [_rows(group[key], spec, str(path)) for key, group in examples_in(path).values()]
        rows = np.concatenate(blocks)
        return rows, [str(i) for i in range(len(rows))]
    elif suffix in EXTENSIONS:
        raise DataError(f"The model reads {_wanted(spec)}; {path} is an image.")
    else:
        if not is_sequence_file(path):
            check_file(path)
        files = [path]
    records = _records(files, spec, column)
    for i, fault in records.faults.items():
        raise DataError(f"{records.places[i]} {fault}.")
    return from_strings(records.texts, spec, places=records.places, convert=convert), records.ids


def _records(files: Sequence[Path], spec: DataSpec, column: str | None = None) -> Records:
    """What files hold, read as what the model of `spec` was trained on."""
    kind: Kind = "text" if spec.kind == "text" else "protein"
    return read_records(files, SequenceConfig(kind=kind, column=column), kind)[0]


def measured_columns(inputs: Any, spec: DataSpec) -> dict[str, np.ndarray]:
    """The columns of real numbers of a file that `read_named_sequences` reads, or of a folder: name -> (N,), NaN where missing.

    Args:
        inputs: what was read; all but paths have none.
        spec: what the model was trained on.
    """
    if not isinstance(inputs, (str, Path)) or not spec.sequential or not _is_path(inputs, spec):
        return {}
    path = Path(inputs).expanduser()
    files = sequences_below(path) if path.is_dir() else [path]
    if path.suffix.lower() in ARRAYS:
        return {}
    found = {}
    for name, values in _records(files, spec).columns.items():
        present = [v for v in values.tolist() if v is not None]
        if present and {type(v) for v in present} <= {int, float} and any(type(v) is float for v in present):
            found[name] = np.array([np.nan if v is None else v for v in values], np.float64)
    return found


def _rows(values: np.ndarray, spec: DataSpec, name: str) -> np.ndarray:
    """Whole numbers (N, l), l <= L, or one row of them, filled up with ends."""
    values = numeric(np.asarray(values), name)
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or not values.size or values.shape[1] > spec.numel:
        raise DataError(
            f"The model reads {_wanted(spec)}, as text or numbers (N, {spec.numel}); {name} has shape {values.shape}."
        )
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= len(spec.symbols):
        raise DataError(
            f"The model reads whole numbers from 0 to {len(spec.symbols) - 1} as symbols; {name} has others."
        )
    rows = np.zeros((len(values), spec.numel), raw_dtype(spec))
    rows[:, : values.shape[1]] = values
    after = (rows[:, :-1] == 0) & (rows[:, 1:] != 0)
    if after.any():
        raise DataError(f"{name}: row {int(after.any(1).argmax())} goes on after its end (0), and so is no sequence.")
    return rows


def _wanted(spec: DataSpec) -> str:
    if spec.kind == "text":
        return f"texts of at most {spec.numel:,} tokens"
    if spec.background is not None:
        return f"protein sequences of {len(spec.background):,} residues, or of their {len(spec.sites)} sites"
    return f"protein sequences of at most {spec.numel:,} symbols"
