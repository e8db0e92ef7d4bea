"""Sequences of any kind as text and back: proteins by their residues, text by its tokens.

to_strings(from_strings(t)) = t
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diled.config import DataSpec, SequenceConfig
from diled.data import proteins
from diled.data.sequence_sources import read_records
from diled.data.text import decode_rows, encode_texts, named
from diled.data.text_files import fault_of, unknown_notes
from diled.errors import DataError, DataWarning

__all__ = ["from_strings", "read_texts", "texts_and_faults", "to_strings"]


def to_strings(values: np.ndarray, spec: DataSpec) -> list[str]:
    """Rows of numbers (..., L) as text: sentences, or whole protein sequences.

    See `proteins.to_strings` and `text.decode_rows`.

    Raises:
        DataError: the data are no sequences, or the rows no rows of theirs.
    """
    return decode_rows(values, spec) if spec.kind == "text" else proteins.to_strings(values, spec)


def from_strings(
    texts: Sequence[str],
    spec: DataSpec,
    *,
    places: Sequence[str] | None = None,
    padding: str | None = None,
    convert: bool = False,
) -> np.ndarray:
    """Texts as rows of numbers (N, L), as the model of `spec` reads them; outer blanks are taken away.

    See `proteins.from_strings` and `text.encode_texts`. A warning says where a tokenizer has no token for a piece of a text.

    Args:
        texts: residues, or words.
        spec: of the model's data.
        places: a name for each text, for messages.
        padding: of proteins, what only fills up at the ends; None: `J` and `.`.
        convert: cut what is too long, and read what is no amino acid as X.

    Raises:
        DataError: what cannot be read, is empty or too long.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if spec.kind != "text":
        filling = proteins.PADDING if padding is None else padding
        return proteins.from_strings(texts, spec, places=places, padding=filling, convert=convert)
    if padding is not None:
        raise DataError("`padding` is for proteins, and the data are text.")
    texts = [text.strip() for text in texts]
    for i, text in enumerate(texts):
        if (fault := fault_of(text)) is not None:
            raise DataError(f"{places[i] if places else named(i, text)} {fault}.")
    rows = encode_texts(texts, spec, places=places, convert=convert)
    for note in unknown_notes(rows, spec):
        warnings.warn(note, DataWarning, stacklevel=2)
    return rows


def read_texts(path: str | Path) -> list[str]:
    """The texts of a file: one a line, or the column of words of a table; empty ones are passed over.

    Raises:
        DataError: no such file, or it holds no text.
    """
    return texts_and_faults(path)[0]


def texts_and_faults(path: str | Path) -> tuple[list[str], list[str]]:
    """The texts of a file, and what is wrong with each line that holds none or cannot be read.

    Raises:
        DataError: no such file, or it holds no text.
    """
    place = Path(path)
    if not place.is_file():
        raise DataError(f"There is no file {path}.")
    records, _ = read_records([place], SequenceConfig(kind="text"), "text")
    texts, faults = [], []
    for i, text in enumerate(records.texts):
        fault = records.faults.get(i) or ("" if text.strip() else "is empty")
        if fault:
            faults.append(f"{records.places[i]} {fault}")
        else:
            texts.append(text.strip())
    if not texts:
        raise DataError(f"{path} holds no text.")
    return texts, faults
