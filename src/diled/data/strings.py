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
from diled.data.tables import blank_at_the_end, content, ending
from diled.data.text import decode_rows, named, token_rows
from diled.data.text_files import fault_of, unknown_notes
from diled.errors import DataError, DataWarning

__all__ = ["from_strings", "place_of", "read_texts", "rows_and_faults", "texts_and_faults", "to_strings"]


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

    See `proteins.residue_rows` and `text.token_rows`. A warning says where a tokenizer has no token for a piece of a text.

    Args:
        texts: residues, or words.
        spec: of the model's data.
        places: a name for each text, for messages.
        padding: of proteins, what only fills up at the ends; None: as in training data, `J` and `.` for most.
        convert: cut what is too long, and read what is no amino acid as X.

    Raises:
        DataError: what cannot be read, is empty or too long.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    rows, faults, notes = rows_and_faults(texts, spec, padding=padding, convert=convert)
    for i, fault in sorted(faults.items()):
        raise DataError(f"{places[i] if places else place_of(i, texts[i], spec)} {fault}.")
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    return rows


def rows_and_faults(
    texts: Sequence[str], spec: DataSpec, *, padding: str | None = None, convert: bool = False
) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """The texts that can be read, as rows of numbers (n, L); what is wrong with the others, record -> predicate; notes.

    Arguments as in `from_strings`, which stops at the first fault instead.
    """
    if spec.kind != "text":
        filling = spec.reading.get("padding", proteins.PADDING) if padding is None else padding
        return proteins.residue_rows(texts, spec, padding=filling, convert=convert)
    if padding is not None:
        raise DataError("`padding` is for proteins, and the data are text.")
    texts = [text.strip() for text in texts]
    faults = {i: fault for i, text in enumerate(texts) if (fault := fault_of(text)) is not None}
    whole = [i for i in range(len(texts)) if i not in faults]
    rows, others = token_rows([texts[i] for i in whole], spec, convert=convert)
    return rows, faults | {whole[i]: fault for i, fault in others.items()}, unknown_notes(rows, spec)


def place_of(i: int, text: str, spec: DataSpec) -> str:
    """A sequence or text by its number in a list, for messages."""
    return named(i, text, "Text" if spec.kind == "text" else "Sequence")


def read_texts(path: str | Path) -> list[str]:
    """The texts of a file: one a line, or the column of words of a table; empty ones are passed over.

    Raises:
        DataError: no such file, or it holds no text.
    """
    return texts_and_faults(path)[0]


def texts_and_faults(path: str | Path, column: str | None = None) -> tuple[list[str], list[str]]:
    """The texts of a file, and what is wrong with each line that holds none or cannot be read.

    Args:
        path: one text a line, or a table.
        column: of a table, which holds the texts; None: the one that is called so, or the only one of words.

    Raises:
        DataError: no such file, or it holds no text.
    """
    place = Path(path)
    if not place.is_file():
        raise DataError(f"There is no file {path}.")
    records, _ = read_records([place], SequenceConfig(kind="text", column=column), "text")
    texts: list[str] = []
    faults: list[str] = []
    for i, text in enumerate(records.texts):
        fault = records.faults.get(i) or ("" if text.strip() else "is empty")
        if fault:
            faults.append(f"{records.places[i]} {fault}")
        else:
            texts.append(text.strip())
    if ending(place) == ".txt":
        last = len(records.texts)
        faults += [f"{place.name}, line {last + i + 1} is empty" for i in range(blank_at_the_end(content(place)))]
    if not texts:
        raise DataError(f"{path} holds no text.")
    return texts, faults
