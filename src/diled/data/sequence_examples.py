"""What a user hands to a trained model of sequences, as rows of numbers, or a clear refusal.

    "ACDY", "good food", a file, a folder, numbers (N, L), or a list of these  ->  (N, L) and a name for each

What is the path of something goes for the path. Where nothing is there, residues with "/" or the ending of a file are a path
that is wrong; words are a text, unless they end like a file that is read and have no spaces. In a list given to a model of text
every string is a text, "docs" and "." as well, and a path is a `Path`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diled.config import DataSpec, SequenceConfig
from diled.data.arrays import examples_in, numeric
from diled.data.faults import Kept, check_missing
from diled.data.images import EXTENSIONS
from diled.data.records import Records, joined_records
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
from diled.data.splits import Split
from diled.data.strings import place_of, rows_and_faults
from diled.errors import DataError, DataWarning

__all__ = ["read_sequence_examples"]

ARRAYS = (".npy", ".npz")


def read_sequence_examples(
    inputs: Any,
    spec: DataSpec,
    *,
    convert: bool = False,
    column: str | None = None,
    skip: bool = False,
    option: str = "",
) -> Split:
    """Rows (N, L) of the model's symbols, a name for each, and the columns of real numbers beside them in files.

    Args:
        inputs: a sequence or text, a path (FASTA, `.csv`, `.tsv`, `.jsonl`, `.txt` with one in each line, Parquet, `.npy`,
            `.npz`, a folder), an array of text or of whole numbers, or a list of any of these; strings in a list that is
            given to a model of text are texts, never paths.
        spec: what the model was trained on.
        convert: read what is no amino acid as X, and cut what is too long.
        column: of tables; None: as in training data, where a table has such a column, else found as there.
        skip: leave out records that cannot be read, and say in a warning how many.
        option: the user's way to ask for `skip`, for messages.

    Raises:
        DataError: nothing there, or no sequences that the model reads; it names the input, the record and the position.
    """
    blocks = _blocks(inputs, spec, column)
    records = [block for block in blocks if isinstance(block, Records)]
    if not records:
        values = np.concatenate(blocks)
        return Split(values, {}, [str(i) for i in range(len(values))])
    whole = joined_records(records)
    sound = [i for i in range(len(whole.texts)) if i not in whole.faults]
    rows, faults, notes = rows_and_faults([whole.texts[i] for i in sound], spec, convert=convert)
    kept = Kept(whole.texts, whole.places, skip, option)
    kept.drop(whole.faults | {sound[i]: fault for i, fault in faults.items()})
    if not kept.rows:
        raise DataError(f"None of {len(whole.texts):,} records can be read: {kept.faults[0]}.")
    for note in kept.notes() + notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    where, each, ids, start, count = np.array(kept.rows), [], [], 0, 0
    for block in blocks:
        if isinstance(block, Records):
            stop = start + len(block.texts)
            here = (where >= start) & (where < stop)
            ids += [whole.ids[i] or str(count + i - start) for i in where[here]]
            each.append(rows[here])
            count, start = count + stop - start, stop
        else:
            ids += [str(count + i) for i in range(len(block))]
            each.append(block)
            count += len(block)
    alone = len(records) == len(blocks)
    labels = {name: values[where] for name, values in _real_columns(whole).items()} if alone else {}
    return Split(np.concatenate(each), labels, ids)


def _blocks(inputs: Any, spec: DataSpec, column: str | None) -> list[Any]:
    """What the inputs hold, in order: records of text, or rows (n, L) of numbers."""
    if isinstance(inputs, (list, tuple)) and not len(inputs):
        raise DataError("The list of examples is empty.")
    if isinstance(inputs, (list, tuple)) and not all(np.isscalar(one) and not isinstance(one, str) for one in inputs):
        if any(isinstance(one, str) for one in inputs):
            check_missing(inputs)
        words = [isinstance(one, str) and (spec.kind == "text" or not _is_path(one, spec)) for one in inputs]
        if all(words):
            return [_listed(inputs, spec)]
        if any(isinstance(one, (str, Path, Image.Image)) or hasattr(one, "__array__") for one in inputs):
            places = enumerate(zip(inputs, words, strict=True))
            parts = [[_listed([one], spec, i)] if word else _blocks(one, spec, column) for i, (one, word) in places]
            return [block for part in parts for block in part]
    if isinstance(inputs, Image.Image):
        raise DataError(f"The model reads {_wanted(spec)}; the input is an image.")
    if isinstance(inputs, Path) or (isinstance(inputs, str) and _is_path(inputs, spec)):
        return _of_path(Path(inputs).expanduser(), spec, column)
    if isinstance(inputs, str):
        return [_listed([inputs], spec)]
    try:
        values = np.asarray(inputs)
    except ValueError:
        raise DataError("The rows of the list differ in length: fill them up with 0, or give text.") from None
    if values.dtype.kind in "UO" and values.size:
        texts = values.ravel().tolist()
        if all(isinstance(one, str) for one in texts):
            return [_listed(texts, spec)]
    return [_rows(values, spec, "the input")]


def _listed(texts: Sequence[str], spec: DataSpec, first: int = 0) -> Records:
    """Texts of a list, from its item `first` on, which have no ids of their own."""
    places = [place_of(first + i, text, spec) for i, text in enumerate(texts)]
    return Records(list(texts), [""] * len(texts), places)


def _is_path(given: str | Path, spec: DataSpec) -> bool:
    """Whether a string, or a path, is meant as a path."""
    text = str(given)
    if spec.kind == "text":
        return isinstance(given, Path) or looks_like_path(text)
    named = "/" in text or text.lower().removesuffix(".gz").endswith(PATHS)
    return bool(text) and (named or looks_like_path(text))


def _of_path(path: Path, spec: DataSpec, column: str | None) -> list[Any]:
    """All sequences of a file or folder, splits and labels disregarded."""
    from diled.data.sources import check_file, existing

    path = existing(path)
    suffix = path.suffix.lower()
    if path.is_dir():
        files = sequences_below(path)
        if not files:
            raise DataError(f"The folder {path} holds no files of sequences ({' '.join(SEQUENCES)}, .parquet).")
    elif suffix in ARRAYS:
        return [_rows(group[key], spec, str(path)) for key, group in examples_in(path).values()]
    elif suffix in EXTENSIONS:
        raise DataError(f"The model reads {_wanted(spec)}; {path} is an image.")
    else:
        if not is_sequence_file(path):
            check_file(path)
        files = [path]
    kind: Kind = "text" if spec.kind == "text" else "protein"
    usual = {key: name for key, name in spec.reading.items() if key in ("column", "id_column")}
    return [read_records(files, SequenceConfig(kind=kind, column=column), kind, usual)[0]]


def _real_columns(records: Records) -> dict[str, np.ndarray]:
    """The columns of real numbers of N records: name -> (N,), NaN where missing."""
    found = {}
    for name, values in records.columns.items():
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
