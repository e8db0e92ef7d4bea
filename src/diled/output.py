"""Writing what a verb returns: pictures, arrays and tables, by the ending of the file's name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diled.config import DataSpec
from diled.data import to_pil
from diled.errors import ConfigError

__all__ = ["check_out", "grid", "is_sheet", "write_codes", "write_examples"]

ARRAYS = (".npy", ".npz")
CODES = (".npy", ".parquet")
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
    out = Path(out)
    known = CODES if codes else (".json",) if spec is None else (*ARRAYS, *(PICTURES if spec.kind == "image" else ()))
    folder = not out.suffix and spec is not None and spec.kind == "image" and not codes
    if out.suffix.lower() not in known and not folder:
        what = "codes" if codes else "figures" if spec is None else f"{spec.kind}s"
        more = ", or a folder's name" if spec is not None and spec.kind == "image" and not codes else ""
        raise ConfigError(f"'{out}' has no ending that {what} are written to. Known: {', '.join(known)}{more}.")
    if folder and out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} exists and is not empty; nothing is overwritten. Choose another --out.")
    if out.exists() and out.is_dir() != folder:
        raise ConfigError(f"{out} is a {'folder' if out.is_dir() else 'file'}. Choose another --out.")
    there = next(parent for parent in (out, *out.parents) if parent.exists())
    if (not there.is_dir() and there != out) or not os.access(there, os.W_OK):
        raise ConfigError(f"{out} cannot be written, because of {there}. Choose another --out.")


def write_examples(values: np.ndarray, spec: DataSpec, out: str | Path, *, columns: int | None = None) -> Path:
    """Raw values (n, *shape) as a sheet (.png, ...), an array (.npy, .npz) or, for a folder, one picture each.

    Raises:
        ConfigError: see `check_out`, or the disk is full.
    """
    check_out(out, spec)
    out = Path(out)
    if out.suffix.lower() in ARRAYS:
        return _through(out, lambda partial: _save_array(partial, values))
    if out.suffix:
        sheet = grid(values, columns or int(np.ceil(np.sqrt(len(values)))), pad=spec.high)
        picture = to_pil(sheet, spec)
        scale = max(1, 64 // max(spec.shape[1:]))
        picture = picture.resize((picture.width * scale, picture.height * scale), 0)
        return _through(out, picture.save)

    def each(partial: Path) -> None:
        partial.mkdir()
        for i, value in enumerate(values):
            to_pil(value, spec).save(partial / f"{i:05d}.png")

    return _through(out, each)


def is_sheet(out: str | Path) -> bool:
    """Whether a file of that name is one picture."""
    return Path(out).suffix.lower() in PICTURES


def write_codes(codes: np.ndarray, ids: list[str], out: str | Path) -> Path:
    """Codes (n, d) as .npy with the ids beside it (.ids.txt), or as Parquet with the columns `id` and `code`.

    Raises:
        ConfigError: see `check_out`, or the disk is full.
    """
    check_out(out, None, codes=True)
    out = Path(out)
    if out.suffix.lower() == ".npy":
        _through(out, lambda partial: _save_array(partial, codes))
        _through(out.with_suffix(".ids.txt"), lambda partial: partial.write_text("\n".join(ids) + "\n"))
        return out
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array(codes.reshape(-1).astype(np.float32))
    table = pa.table({"id": ids, "code": pa.FixedSizeListArray.from_arrays(flat, codes.shape[1])})
    return _through(out, lambda partial: pq.write_table(table, partial))


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


def _through(out: Path, write: Callable[[Path], object]) -> Path:
    """Write to a place beside `out` and move it there, so that nothing half-written is left."""
    partial = out.with_name(f".partial-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(out)
    except OSError as error:
        raise ConfigError(f"Could not write {out}: {error.strerror or error}.") from None
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)
    return out


def _save_array(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        if path.suffix.lower() == ".npz":
            np.savez_compressed(file, values=values)
        else:
            np.save(file, values)
