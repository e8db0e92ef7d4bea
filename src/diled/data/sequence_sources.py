"""Sequences of either kind in a file, a folder or a list: which kind they are, and reading them.

    .txt .csv .tsv .jsonl .parquet .fasta, or a list  ->  protein or text  ->  Found

`preprocess.sequence.kind` says the kind. Where it does not: FASTA holds proteins. A list does where its texts consist of the
symbols of proteins; a .txt file, if they are in capitals too. A table does where it has a column of such texts; beside a column
of words with spaces, one that is called so, or has many different texts in capitals. All else is text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from diled.config import PreprocessConfig, SequenceConfig
from diled.data import sequence_files, text_files
from diled.data.folder import files_below
from diled.data.images import EXTENSIONS
from diled.data.lists import is_list
from diled.data.parquet import LISTS, by_split, is_text, split_of
from diled.data.records import CLASSES, Records, from_lines, from_list, joined_records, some
from diled.data.sequence_files import (
    ENOUGH,
    FASTA,
    few_words,
    fitting,
    found_of,
    protein_records,
    read_fasta,
    share,
)
from diled.data.splits import Found
from diled.data.tables import Table, ending, load_table, text_columns
from diled.data.text_files import are_foreign, are_words, found_of_texts, text_records, word_columns
from diled.errors import DataError, NoColumn

__all__ = [
    "PATHS",
    "SEQUENCES",
    "are_sequences",
    "is_sequence_file",
    "looks_like_path",
    "read_records",
    "read_sequences",
    "sequences_below",
]

SEQUENCES = (*FASTA, ".csv", ".tsv", ".jsonl", ".txt")
"""Endings of files of sequences, each also with `.gz`. Parquet files are looked into."""
PATHS = (*SEQUENCES, *EXTENSIONS, ".parquet", ".pq", ".npy", ".npz")
"""Endings of files that are read as data."""
Kind = Literal["protein", "text"]


def is_sequence_file(path: Path, config: SequenceConfig = SequenceConfig(), image_column: str = "image") -> bool:  # noqa: B008
    """Whether a file's name says that it may hold sequences, or it is a Parquet file that does."""
    return ending(path) in SEQUENCES or _in_parquet(path, config, image_column)


def sequences_below(
    folder: Path,
    config: SequenceConfig = SequenceConfig(),  # noqa: B008 (frozen)
    image_column: str = "image",
) -> list[Path]:
    """The files of sequences below `folder`, sorted; none where there are images as well.

    Tables, .jsonl and FASTA go before Parquet. A .txt beside any data is taken for remarks about them.
    """
    return _below(folder, config, image_column)[0]


def _below(folder: Path, config: SequenceConfig, image_column: str) -> tuple[list[Path], list[str]]:
    """The files of `sequences_below`, and a note on others that may be meant as data."""
    files = list(files_below(folder))
    if any(file.suffix.lower() in EXTENSIONS for file in files):
        return [], []
    lines = [file for file in files if ending(file) == ".txt"]
    named = [file for file in files if ending(file) in SEQUENCES and file not in lines]
    others = [file for file in files if file.suffix.lower() in (".parquet", ".pq", ".npy", ".npz")]
    tables = named or [file for file in others if _in_parquet(file, config, image_column)]
    if not tables:
        return ([] if others else lines), []
    left = sorted(
        file.name for file in [*lines, *others] if file not in tables and (file in others or split_of(file, folder))
    )
    return tables, [f"Left out beside {tables[0].name}: {', '.join(left)}."] if left else []


def looks_like_path(text: str) -> bool:
    """Whether a text is the path of something that is there, or ends like a file that is read and has no spaces."""
    name = text.lower().removesuffix(".gz")
    if not text or "\n" in text:
        return False
    if name.endswith(PATHS) and not any(c.isspace() for c in text) and name not in PATHS:
        return True
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a name, or '~someone' who does not exist
        return False


def are_sequences(source: Sequence[Any], config: SequenceConfig) -> bool:
    """Whether a list holds proteins or text, rather than paths or numbers."""
    if not source or not all(isinstance(one, str) for one in source):
        return False
    return config.kind != "auto" or _kind_of_list(source) == "protein" or not _are_paths(source)


def _are_paths(source: Sequence[str]) -> bool:
    looked = some(source)
    return sum(map(looks_like_path, looked)) > len(looked) / 2


def _kind_of_list(texts: Sequence[str]) -> Kind:
    return "protein" if share(texts) >= ENOUGH else "text"


def read_sequences(source: Path | Sequence[str], preprocess: PreprocessConfig) -> Found:
    """The sequences of a file, of a folder whose files may be named by splits, or of a list.

    Raises:
        DataError: no sequences, several columns of them, or a record with a fault.
    """
    config = preprocess.sequence
    if not isinstance(source, Path):
        of_list = _kind_of_list(source) if config.kind == "auto" else config.kind
        return _finish({"all": from_list(source)}, "the list", of_list, preprocess)
    files, beside = _below(source, config, preprocess.image_column) if source.is_dir() else ([source], [])
    groups, notes = by_split(source, files) if source.is_dir() else ({"all": files}, [])
    records: dict[str, Records] = {}
    kind: Kind | None = None if config.kind == "auto" else config.kind
    for split, files in groups.items():
        records[split], kind = read_records(files, config, kind)
    assert kind is not None
    found = _finish(records, source.resolve().name if source.is_dir() else source.name, kind, preprocess)
    found.notes += notes + beside
    return found


def _finish(records: dict[str, Records], name: str, kind: Kind, preprocess: PreprocessConfig) -> Found:
    return (found_of if kind == "protein" else found_of_texts)(records, name, preprocess)


def read_records(
    files: Sequence[Path],
    config: SequenceConfig,
    kind: Kind | None = None,
    usual: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Records, Kind]:
    """The records of some files, one after the other, with the columns that all of them have; and their kind.

    Args:
        files: to read.
        config: columns.
        kind: what they hold; None: as the first of them looks.
        usual: `column` and `id_column` of tables that have such columns, where `config` names none.

    Raises:
        DataError: damaged, or no sequences.
    """
    each = []
    for path in files:
        one, kind = _read(path, config, kind, usual)
        each.append(one)
    assert kind is not None
    whole = joined_records(each)
    lost = sorted({column for one in each for column in one.columns} - set(whole.columns))
    if lost:
        whole.notes.append(f"Left out, because not every file has them: {', '.join(lost)}.")
    return whole, kind


def _read(path: Path, config: SequenceConfig, kind: Kind | None, usual: Mapping[str, str]) -> tuple[Records, Kind]:
    if ending(path) in FASTA:
        if kind == "text":
            raise DataError(f"{path} is FASTA, which holds proteins and no text.")
        return read_fasta(path, config), "protein"
    if ending(path) == ".txt":
        for key in ("column", "id_column", "split_column"):
            if getattr(config, key) is not None:
                raise NoColumn(f"{path} has no columns, so --preprocess.sequence.{key} has no effect: leave it out.")
        lines = from_lines(path)
        kind = kind or _kind_of_lines(lines.texts)
        return (_without_blanks(lines) if kind == "protein" else lines), kind
    table = load_table(path)
    there = {k: name for k, name in usual.items() if getattr(config, k) is None and name in table.table.column_names}
    config = config.model_copy(update=there)
    kind = kind or _kind_of_table(table, config)
    return (protein_records if kind == "protein" else text_records)(table, config), kind


def _kind_of_lines(lines: list[str]) -> Kind:
    looked = some(lines)
    proteins = share(lines) >= ENOUGH and not few_words(lines)
    return "protein" if proteins and sum(map(str.isupper, looked)) >= ENOUGH * len(looked) else "text"


def _without_blanks(lines: Records) -> Records:
    """Lines of proteins: blank ones are passed over."""
    rows = [i for i, text in enumerate(lines.texts) if text]
    out = from_list([lines.texts[i] for i in rows])
    out.places = [lines.places[i] for i in rows]
    out.faults = {new: lines.faults[i] for new, i in enumerate(rows) if i in lines.faults}
    return out


def _kind_of_table(table: Table, config: SequenceConfig) -> Kind:
    texts = text_columns(table.table)
    if config.column is not None:
        named = texts.get(config.column, [])
        return "text" if are_words(named) or are_foreign(named) else "protein"
    return _kind_of_columns(texts) or "protein"


def _kind_of_columns(texts: Mapping[str, Sequence[str | None]]) -> Kind | None:
    """What columns of text hold; None where they are neither."""
    words = word_columns(texts)
    if any(_is_protein(c, texts[c], bool(words)) for c in fitting(texts)):
        return "protein"
    return "text" if words or any(c.lower() in text_files.COLUMNS for c in texts) else None


def _is_protein(name: str, values: Sequence[str | None], beside_words: bool) -> bool:
    """Whether a column that fits is meant so: words such as `past` and `present` are spelt with amino acids too."""
    if name.lower() in sequence_files.COLUMNS:
        return True
    looked = some(values)
    capitals = all(text.isupper() for text in looked)
    if beside_words:
        return capitals and len(set(looked)) > CLASSES
    return capitals or name.lower() not in text_files.COLUMNS


def _may_be_images(kind: Any) -> bool:
    import pyarrow as pa

    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_struct))


def _in_parquet(path: Path, config: SequenceConfig, image_column: str) -> bool:
    """Whether a Parquet file has neither images nor lists of numbers, but sequences, or text where that is wanted."""
    if path.suffix.lower() not in (".parquet", ".pq") or not path.is_file():
        return False
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        if image_column in schema.names or (LISTS in schema.names and is_list(schema.field(LISTS).type)):
            return False
        names = [f.name for f in schema if is_text(f.type)]
        if config.kind == "auto" and config.column is None and any(map(_may_be_images, schema.types)):
            names = [name for name in names if not pa.types.is_dictionary(schema.field(name).type)]  # classes
        if config.kind != "auto" or config.column is not None or not names:
            return bool(names)
        return _kind_of_columns(text_columns(pq.read_table(path, columns=names, partitioning=None))) is not None
    except (pa.ArrowException, OSError):
        return False  # the reader of Parquet files will say what is wrong
