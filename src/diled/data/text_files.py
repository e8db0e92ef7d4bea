"""Text in files, one a line or in a column of a table; its faults; and its tokens, once it is divided.

    files -> Records -> Found, (N, 2) texts and places for each split -> divided -> tokenizer of the training texts -> rows

The tokenizer must see training texts alone, so texts stay texts until they are divided. They are stripped of blanks at their
ends, and otherwise left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from diled.config import DataSpec, PreprocessConfig, SequenceConfig
from diled.data.faults import Kept
from diled.data.records import Records, by_column, from_table, joined, joined_records, named_column, parts_of, some
from diled.data.splits import Found, Part
from diled.data.tables import Table, text_columns, undecodable
from diled.data.text import filled, load_tokenizer, text_spec, tokenized, train_tokenizer, unknown_token
from diled.errors import DataError

__all__ = [
    "COLUMNS",
    "LONGEST",
    "are_foreign",
    "are_words",
    "fault_of",
    "found_of_texts",
    "text_records",
    "tokenize",
    "unknown_notes",
    "word_columns",
]

COLUMNS = (
    "text",
    "sentence",
    "sentences",
    "review",
    "content",
    "document",
    "body",
    "title",
    "comment",
    "utterance",
    "line",
)
LONGEST = 512
"""Tokens of a text, unless the user says how many there may be."""
LONG = 8
"""Characters of a text that has no spaces."""
_CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Control characters but tabs and line ends."""


def text_records(table: Table, config: SequenceConfig) -> Records:
    """The texts of a table: those in the column that is named, or called so, or the only one of words with spaces.

    Raises:
        DataError: no such column, or several.
    """
    texts = text_columns(table.table)
    column = named_column(texts, table, config, "text")
    return from_table(table, column or _column(texts, table), "Texts", config)


def _column(texts: dict[str, list[str | None]], table: Table) -> str:
    called = sorted((c for c in texts if c.lower() in COLUMNS), key=lambda c: COLUMNS.index(c.lower()))
    words = word_columns(texts)
    if called:
        return called[0]
    if len(words) > 1:
        raise DataError(
            f"{table.path} has several columns of text: {', '.join(words)}. Choose one with --column, or of training data with "
            "--preprocess.sequence.column."
        )
    chosen = words or list(texts)
    if len(chosen) != 1:
        raise DataError(
            f"{table.path} has no column of text; its columns are: {', '.join(table.table.column_names)}. Name it with "
            "--column, or of training data with --preprocess.sequence.column."
        )
    if chosen[0].count(" ") > 3 or (" " in chosen[0] and _among_values(table, but=chosen[0])):
        raise DataError(
            f"{table.path} has no line of column names: its first line holds '{chosen[0][:40]}'. Put one before it, such as "
            "'text'."
        )
    return chosen[0]


def _among_values(table: Table, but: str) -> bool:
    """Whether the name of another column is one of its values, as where the first line is an example like the others."""
    others = (name for name in table.table.column_names if name != but)
    return any(name in table.table.column(name).cast("string").to_pylist() for name in others)


def word_columns(texts: Mapping[str, Sequence[str | None]]) -> list[str]:
    """The columns whose values are mostly sentences, as `are_words` tells."""
    return [column for column, values in texts.items() if are_words(values)]


def are_words(values: Sequence[str | None]) -> bool:
    """Whether most texts are words with spaces between, or in a script that has none, such as Chinese or Thai."""
    looked = some(values)
    return sum(" " in text.strip() or _unspaced(text) for text in looked) > len(looked) / 2


def are_foreign(values: Sequence[str | None]) -> bool:
    """Whether most texts have a character that no protein has, whatever it is filled up with: one beyond ASCII."""
    looked = some(values)
    return sum(not text.isascii() for text in looked) > len(looked) / 2


def _unspaced(text: str) -> bool:
    """Whether a text is longer than a word and mostly of letters without capitals."""
    letters = sum(c.isalpha() and not c.isascii() and c.lower() == c.upper() for c in text)
    return len(text) >= LONG and 2 * letters > len(text)


def fault_of(text: str) -> str | None:
    """What is wrong with a text, as a predicate; None where nothing is."""
    if not text or text.isspace():
        return "is empty"
    if text.isprintable():
        return None
    if found := _CONTROL.search(text):
        return f"has the control character U+{ord(found[0]):04X} at position {found.start() + 1}"
    return undecodable(text)


def found_of_texts(records: dict[str, Records], name: str, preprocess: PreprocessConfig) -> Found:
    """Texts of each split without those that have a fault, with the splits that files or a column tell.

    The examples are (N, 2) objects: texts, and where each was found.

    Raises:
        DataError: a text has a fault, or none is left.
    """
    if preprocess.binarize != "none":
        raise DataError(f"--preprocess.binarize is for images, and {name} holds text.")
    every = joined_records(list(records.values()))
    texts = [text.strip() for text in every.texts]
    faults = {i: fault for i, text in enumerate(texts) if (fault := fault_of(text)) is not None}
    kept = Kept(texts, every.places, preprocess.on_error == "skip")
    kept.drop(faults | every.faults)
    if not kept.texts:
        raise DataError(f"{name} has no text that can be read.")
    values = np.empty((len(kept.texts), 2), object)
    values[:, 0], values[:, 1] = kept.texts, [every.places[row] for row in kept.rows]
    parts = parts_of(records, np.array(kept.rows, np.int64), values)
    return by_column(Found(name, "text", parts, every.notes + kept.notes(), every.classes), preprocess)


# Tokens ---------------------------------------------------------------------------------------------------------------


def tokenize(parts: dict[str, Part], name: str, preprocess: PreprocessConfig) -> tuple[DataSpec, list[str]]:
    """Turn the texts of divided parts into rows of tokens (N, L), in place; what the model must know, and notes.

    The tokenizer is the one that is given, else it is trained on the training part alone.

    Raises:
        DataError: a text is too long or has no token, or a split is left without any.
    """
    given = preprocess.text.tokenizer
    training = np.asarray(parts["train"].examples)[:, 0].tolist()
    tokenizer = load_tokenizer(given) if given else train_tokenizer(training, preprocess.text.vocabulary)
    spec = text_spec(1, tokenizer)
    whole = joined({split: Part(part.examples, part.ids) for split, part in parts.items()})
    texts, places = np.asarray(whole.examples).T.tolist()
    flat, sizes = tokenized(texts, spec)
    kept, most = _fitting(sizes, texts, places, preprocess)
    rows = np.array(kept.rows, np.int64)
    spec = text_spec(most, tokenizer)
    values, start = filled(flat, sizes, spec), 0
    for split, part in parts.items():
        here = rows[(rows >= start) & (rows < start + len(part))]
        if not len(here):
            raise DataError(f"{name}: every text of the {split} split is longer than {most:,} tokens.")
        part = part.take(here - start)
        start += len(parts[split])
        parts[split] = Part(values[here], part.ids, part.columns)
    found = sizes[rows]
    notes = [f"{len(rows):,} texts of {found.min():,} to {found.max():,} tokens were found in {name}.", *kept.notes()]
    if not given:
        notes.append(
            f"A tokenizer (byte-level BPE) of {len(spec.symbols) - 1:,} tokens was trained on {len(training):,} training "
            f"texts: {found.mean():.1f} tokens a text."
        )
    return spec, notes + unknown_notes(values[rows], spec)


def _fitting(sizes: np.ndarray, texts: list[str], places: list[str], preprocess: PreprocessConfig) -> tuple[Kept, int]:
    """The texts that have tokens and are not too long, and the most tokens that a text may have."""
    option, given = "--preprocess.sequence.max_length", preprocess.sequence.max_length
    most = LONGEST if given is None else given
    said = (
        f"more than {option} {most:,} allows"
        if given
        else f"more than {most:,}, so say how many there may be: {option}"
    )
    kept = Kept(texts, places, preprocess.on_error == "skip")
    wrong = np.flatnonzero((sizes == 0) | (sizes > most)).tolist()
    kept.drop({i: f"has {sizes[i]:,} tokens, {said}" if sizes[i] else "has no token of the tokenizer" for i in wrong})
    if not kept.texts:
        raise DataError(f"Every text is longer than {most:,} tokens.")
    return kept, most if given else int(sizes[kept.rows].max())


def unknown_notes(values: np.ndarray, spec: DataSpec) -> list[str]:
    """A note on rows (N, L) of texts with pieces that a given tokenizer has no token for, where there are any."""
    assert spec.tokenizer is not None
    unknown = unknown_token(spec.tokenizer)
    count = 0 if unknown is None else int((values == unknown).any(1).sum())
    if not count:
        return []
    return [f"{count:,} of {len(values):,} texts have pieces that the tokenizer does not know, and these are lost."]
