"""Writing what a verb returns: pictures, arrays and tables, by the ending of the file's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from diled.config import DataSpec
from diled.data import to_pil
from diled.errors import ConfigError

__all__ = ["grid", "is_sheet", "write_codes", "write_examples"]

ARRAYS = (".npy", ".npz")
PICTURES = (".png", ".webp", ".tif", ".tiff", ".jpg", ".jpeg")


def write_examples(values: np.ndarray, spec: DataSpec, out: str | Path, *, columns: int | None = None) -> Path:
    """Raw values (n, *shape) as a sheet (.png, ...), an array (.npy, .npz) or, for a folder, one picture each.

    Raises:
        ConfigError: an ending that is not known, or pictures wanted of what are no images.
    """
    out = Path(out)
    if out.suffix in ARRAYS:
        return _through(out, lambda partial: _save_array(partial, values))
    if spec.kind != "image":
        raise ConfigError(f"{spec.kind}s are written as .npy or .npz, not as {out.suffix or 'a folder of pictures'}.")
    if out.suffix in PICTURES:
        sheet = grid(values, columns or int(np.ceil(np.sqrt(len(values)))), pad=spec.high)
        picture = to_pil(sheet, spec)
        scale = max(1, 64 // max(spec.shape[1:]))
        picture = picture.resize((picture.width * scale, picture.height * scale), 0)
        return _through(out, picture.save)
    if out.suffix:
        raise ConfigError(
            f"'{out.suffix}' is no known ending. Known: {', '.join((*PICTURES, *ARRAYS))}, or a folder's name."
        )
    out.mkdir(parents=True, exist_ok=True)
    for i, value in enumerate(values):
        to_pil(value, spec).save(out / f"{i:05d}.png")
    return out


def is_sheet(out: str | Path) -> bool:
    """Whether a file of that name is one picture."""
    return Path(out).suffix in PICTURES


def write_codes(codes: np.ndarray, ids: list[str], out: str | Path) -> Path:
    """Codes (n, d) as .npy with the ids beside it (.ids.txt), or as Parquet with the columns `id` and `code`.

    Raises:
        ConfigError: an ending that is not known.
    """
    out = Path(out)
    if out.suffix == ".npy":
        _through(out.with_suffix(".ids.txt"), lambda partial: partial.write_text("\n".join(ids) + "\n"))
        return _through(out, lambda partial: _save_array(partial, codes))
    if out.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = pa.array(codes.reshape(-1).astype(np.float32))
        table = pa.table({"id": ids, "code": pa.FixedSizeListArray.from_arrays(flat, codes.shape[1])})
        return _through(out, lambda partial: pq.write_table(table, partial))
    raise ConfigError(f"Codes are written as .npy or .parquet, not as '{out.suffix or out}'.")


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
    """Write to a file beside `out` and move it into place, so that nothing half-written is left."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f".partial-{out.name}")
        try:
            write(partial)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"Could not write {out}: {error}.") from None
    return out


def _save_array(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        if ".npz" in path.suffixes:
            np.savez_compressed(file, values=values)
        else:
            np.save(file, values)
