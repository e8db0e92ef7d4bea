"""Writing what a verb returns: pictures, arrays, sequences and tables, by the ending of the file's name."""

from __future__ import annotations

import csv
import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diled.config import DataSpec
from diled.data import to_pil, to_strings
from diled.data.proteins import sites_of
from diled.errors import ConfigError

__all__ = [
    "aligned",
    "check_neighbours",
    "check_out",
    "check_place",
    "check_table",
    "grid",
    "is_sheet",
    "on_one_line",
    "through",
    "write_codes",
    "write_columns",
    "write_examples",
    "write_neighbours",
]

ARRAYS = (".npy", ".npz")
CODES = (".npy", ".parquet", ".csv")
TABLES = (".csv", ".parquet")
SEQUENCES = (".fasta", ".fa", ".faa", ".csv", ".txt")
TEXTS = (".txt", ".csv", ".jsonl")
BREAKS = ("Cc", "Zl", "Zp")
"""Unicode's categories of control characters and of what separates lines and paragraphs."""
WRAP = 80
"""Residues on a line of FASTA."""
PICTURES = (".png", ".webp", ".tif", ".tiff", ".jpg", ".jpeg")


def check_out(out: str | Path | None, spec: DataSpec | None, *, codes: bool = False) -> None:
    """Refuse a place that could not be written to, before anything is computed.

    Args:
        out: the place, if any.
        spec: of the examples that will be written; None for a .json file.
        codes: whether codes will be written.

    Raises:
        ConfigError: an ending that is not known, pictures wanted of what are no images, or a place that is taken.
    """
    if out is None:
        return
    if Path(out).name in ("", ".."):  # a folder that is moved into place as a whole cannot be the one that one is in
        raise ConfigError(f"'{out}' is a folder that exists: give the name of a new one, or of a file.")
    out = Path(out)
    known = CODES if codes else (".json",) if spec is None else ARRAYS
    if spec is not None:
        more = {"image": _pictures_of(spec), "text": TEXTS}.get(spec.kind, SEQUENCES if spec.sequential else ())
        known = (*known, *more)
    pictures = ".png" in known
    folder = not out.suffix and pictures
    if out.suffix.lower() not in known and not folder:
        what = "codes" if codes else "figures" if spec is None else _called(spec)
        place = ", or a folder's name" if pictures else ""
        raise ConfigError(f"'{out}' has no ending that {what} are written to. Known: {', '.join(known)}{place}.")
    if folder and out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} exists and is not empty; nothing is overwritten. Choose another --out.")
    check_place(out, folder=folder)


def _pictures_of(spec: DataSpec) -> tuple[str, ...]:
    """The endings of pictures that can hold images of this kind; none where no picture has as many channels."""
    if spec.shape[0] not in (1, 3, 4):
        return ()
    if spec.mode == "I;16":  # the others have no values above 255
        return (".png", ".tif", ".tiff")
    return tuple(ending for ending in PICTURES if spec.shape[0] != 4 or ending not in (".jpg", ".jpeg"))


def _called(spec: DataSpec) -> str:
    if spec.kind != "image" or _pictures_of(spec) == PICTURES:
        return f"{spec.kind}s"
    return "16-bit images" if spec.mode == "I;16" else f"images of {spec.shape[0]} channels"


def check_place(out: Path, *, folder: bool = False) -> None:
    """Refuse a file, or a folder, that could not be written.

    Raises:
        ConfigError: the place is taken by the other kind, or there is no permission.
    """
    if out.exists() and out.is_dir() != folder:
        raise ConfigError(f"{out} is a {'folder' if out.is_dir() else 'file'}. Choose another --out.")
    there = next(parent for parent in (out, *out.parents) if parent.exists())
    if (not there.is_dir() and there != out) or not os.access(there, os.W_OK):
        raise ConfigError(f"{out} cannot be written, because of {there}. Choose another --out.")


def check_table(out: str | Path | None) -> None:
    """Refuse a place that a table could not be written to.

    Raises:
        ConfigError: another ending than a table's, or the place cannot be written.
    """
    if out is None:
        return
    if Path(out).suffix.lower() not in TABLES:
        raise ConfigError(f"'{out}' has no ending that tables are written to. Known: {', '.join(TABLES)}.")
    check_place(Path(out))


def check_neighbours(out: str | Path | None, spec: DataSpec) -> None:
    """Refuse a place that neighbours could not be written to: a table, or what examples are written to.

    Raises:
        ConfigError: see `check_table` and `check_out`.
    """
    if out is not None and Path(out).suffix.lower() in TABLES:
        check_table(out)
    else:
        check_out(out, spec)


def write_examples(
    values: np.ndarray,
    spec: DataSpec,
    out: str | Path,
    *,
    columns: int | None = None,
    ids: Sequence[str] | None = None,
) -> Path:
    """Raw values (n, *shape) as a sheet (.png, ...), an array (.npy, .npz) or, for a folder, one picture each.

    Sequences are written whole as FASTA (.fasta, .fa, .faa), as a table (.csv: id, sequence, and the residues of the sites
    where only these are modelled) or as one a line (.txt). Texts are written as one a line (.txt; line breaks and control
    characters within a text become blanks), or exactly as a table (.csv: id, text) or as JSON (.jsonl: id, text).

    Args:
        values: what to write.
        spec: of the data.
        out: where to.
        columns: of a sheet; None: as many as rows.
        ids: of sequences; None: their numbers.

    Raises:
        ConfigError: see `check_out`, or the disk is full.
    """
    check_out(out, spec)
    out = Path(out)
    if out.suffix.lower() in ARRAYS:
        return through(out, lambda partial: _save_array(partial, values))
    if spec.sequential:
        names = [str(i) for i in range(len(values))] if ids is None else ids
        return through(out, lambda partial: _write_sequences(partial, out.suffix.lower(), values, spec, names))
    if out.suffix:
        sheet = grid(values, columns or int(np.ceil(np.sqrt(len(values)))), pad=spec.high)
        picture = to_pil(sheet, spec)
        scale = max(1, 64 // max(spec.shape[1:]))
        picture = picture.resize((picture.width * scale, picture.height * scale), 0)
        return through(out, picture.save)

    def each(partial: Path) -> None:
        partial.mkdir()
        for i, value in enumerate(values):
            to_pil(value, spec).save(partial / f"{i:05d}.png")

    return through(out, each)


def is_sheet(out: str | Path) -> bool:
    """Whether a file of that name is one picture."""
    return Path(out).suffix.lower() in PICTURES


def write_codes(codes: np.ndarray, ids: list[str], out: str | Path) -> Path:
    """Codes (n, d) as .npy with the ids beside it (.ids.txt), as Parquet (`id`, `code`), or as .csv (`id`, `z0`, `z1`, ...).

    Raises:
        ConfigError: see `check_out`, or the disk is full.
    """
    check_out(out, None, codes=True)
    out = Path(out)
    if out.suffix.lower() == ".npy":
        through(out, lambda partial: _save_array(partial, codes))
        lines = "\n".join(map(on_one_line, ids)) + "\n"
        through(out.with_suffix(".ids.txt"), lambda partial: partial.write_text(lines, encoding="utf-8"))
        return out
    if out.suffix.lower() == ".csv":
        head = ["id", *(f"z{i}" for i in range(codes.shape[1]))]
        rows = ([name, *map(str, row)] for name, row in zip(ids, codes.astype(np.float32), strict=True))
        return through(out, lambda partial: _write_table(partial, head, rows))
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array(codes.reshape(-1).astype(np.float32))
    table = pa.table({"id": ids, "code": pa.FixedSizeListArray.from_arrays(flat, codes.shape[1])})
    return through(out, lambda partial: pq.write_table(table, partial))


def write_columns(columns: Mapping[str, Sequence[Any] | np.ndarray], out: str | Path) -> Path:
    """Columns of equal length as a table, .csv (numbers with six digits) or Parquet.

    Raises:
        ConfigError: see `check_table`, or the disk is full.
    """
    check_table(out)
    out = Path(out)
    if out.suffix.lower() == ".csv":
        cells = [[f"{v:.6g}" if isinstance(v, float | np.floating) else str(v) for v in c] for c in columns.values()]
        return through(out, lambda partial: _write_table(partial, list(columns), zip(*cells, strict=True)))
    import pyarrow as pa
    import pyarrow.parquet as pq

    return through(out, lambda partial: pq.write_table(pa.table(dict(columns)), partial))


def write_neighbours(
    queries: tuple[np.ndarray, Sequence[str]],
    examples: tuple[np.ndarray, Sequence[str]],
    found: np.ndarray,
    distance: np.ndarray,
    spec: DataSpec,
    out: str | Path,
) -> Path:
    """What a search found: a table (.csv, .parquet: query, neighbour, distance, of sequences and texts with these), or each
    query followed by its neighbours, in the first column of a picture.

    Args:
        queries: values (n, *shape) and their names.
        examples: values (N, *shape) and their names.
        found: which of the examples are near, (n, k).
        distance: how far they are, (n, k).
        spec: of the data.
        out: where to.

    Raises:
        ConfigError: see `check_neighbours`, or the disk is full.
    """
    (asked, names), (values, ids) = queries, examples
    near = found.reshape(-1)
    if Path(out).suffix.lower() in TABLES:
        table: dict[str, Any] = {
            "query": [name for name in names for _ in range(found.shape[1])],
            "neighbour": [ids[i] for i in near],
            "distance": distance.reshape(-1),
        }
        if spec.sequential:
            table["text" if spec.kind == "text" else "sequence"] = to_strings(values[near], spec)
        return write_columns(table, out)
    rows = np.stack([np.concatenate([q[None], values[row]]) for q, row in zip(asked, found, strict=True)])
    called = [name for q, row in zip(names, found, strict=True) for name in (q, *(ids[i] for i in row))]
    return write_examples(rows.reshape(-1, *spec.shape), spec, out, columns=rows.shape[1], ids=called)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equally many cells as lines whose columns stand below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def grid(values: np.ndarray, columns: int, pad: float = 0.0, gutter: int = 1) -> np.ndarray:
    """Images (n, C, H, W) in one (C, H', W'), row by row, with `gutter` pixels of `pad` between."""
    n, c, h, w = values.shape
    columns = max(1, min(columns, n))
    rows = -(-n // columns)
    sheet = np.full((c, rows * (h + gutter) - gutter, columns * (w + gutter) - gutter), pad, dtype=values.dtype)
    for i, value in enumerate(values):
        y, x = i // columns * (h + gutter), i % columns * (w + gutter)
        sheet[:, y : y + h, x : x + w] = value
    return sheet


def through(out: Path, write: Callable[[Path], object]) -> Path:
    """Write to a place beside `out` and move it there, so that nothing half-written is left."""
    partial = out.with_name(f".partial-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(out)
    except (OSError, ValueError) as error:  # Pillow raises ValueError where a picture is too large for its format
        raise ConfigError(f"Could not write {out}: {getattr(error, 'strerror', None) or error}.") from None
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)
    return out


def _write_sequences(path: Path, suffix: str, values: np.ndarray, spec: DataSpec, ids: Sequence[str]) -> None:
    texts = to_strings(values, spec)
    if suffix == ".csv":
        rows = [ids, texts, *([sites_of(values, spec)] if spec.sites else [])]
        head = ["id", "text" if spec.kind == "text" else "sequence", "sites"]
        _write_table(path, head[: len(rows)], zip(*rows, strict=True))
    elif suffix == ".txt":
        path.write_text("".join(f"{on_one_line(text)}\n" for text in texts), encoding="utf-8")
    elif suffix == ".jsonl":
        lines = (
            json.dumps({"id": name, "text": text}, ensure_ascii=False) for name, text in zip(ids, texts, strict=True)
        )
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8") as file:
            for name, text in zip(ids, texts, strict=True):
                wrapped = [text[i : i + WRAP] for i in range(0, len(text), WRAP)]
                file.write("\n".join([f">{name}", *wrapped]) + "\n")


def on_one_line(text: str) -> str:
    """A text without line breaks and control characters, each a blank instead."""
    return text if text.isprintable() else "".join(" " if unicodedata.category(c) in BREAKS else c for c in text)


def _write_table(path: Path, head: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _save_array(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        if path.suffix.lower() == ".npz":
            np.savez_compressed(file, values=values)
        else:
            np.save(file, values)
