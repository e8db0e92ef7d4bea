"""Sections of an audit on disk, so that nothing is measured twice.

    CELLS/NAME-SECTION-KEY.json   key, figures, remarks, or the words of a refusal
    CELLS/NAME-SECTION-KEY.npz    numbers per example

KEY is the beginning of a hash of all that the figures depend on; the whole hash is inside. What was measured with other
settings lies beside it, and a cell is found by its key whatever its model is called now.
"""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from diled.evaluation.audit import Section
from diled.evaluation.measure import Measured
from diled.evaluation.shown import file_names
from diled.models.io import write_json

__all__ = ["finite", "keep_section", "kept_section"]

SHOWN = 8
"""Characters of the key in a file's name."""


def keep_section(cells: Path, model: str, section: str, key: str, result: Section | str) -> None:
    """Write a section, or the words of a refusal.

    The JSON says that a cell is whole. So it comes last, and an earlier one goes before the arrays are replaced: a process
    that is killed in between leaves no cell, rather than one with the arrays of another.

    Args:
        cells: folder.
        model: its name, which becomes part of the file's.
        section: its name.
        key: hash of all that the figures depend on.
        result: what was measured, or why there is nothing.

    Raises:
        OSError: the files cannot be written.
    """
    refused = result if isinstance(result, str) else None
    found = Section() if isinstance(result, str) else result
    stem = f"{file_names([model])[0]}-{section}-{key[:SHOWN]}"
    record, arrays, partial = (cells / f"{stem}{end}" for end in (".json", ".npz", ".npz.partial"))
    with partial.open("wb") as file:
        np.savez(file, **{name.replace("/", "|"): values for name, values in found.arrays.items()})  # type: ignore[arg-type]
    record.unlink(missing_ok=True)
    partial.replace(arrays)
    figures = {name: asdict(value) for name, value in found.figures.items()}
    write_json(record, {"key": key, "refused": refused, "figures": figures, "notes": found.notes})


def kept_section(cells: Path, section: str, key: str) -> Section | str | None:
    """A section that was measured with this key, or the words of its refusal; None where there is neither.

    Args:
        cells: folder.
        section: its name.
        key: hash of all that the figures depend on.
    """
    for path in sorted(cells.glob(f"*-{section}-{key[:SHOWN]}.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["key"] != key:
                continue
            if record["refused"] is not None:
                return str(record["refused"])
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
                arrays = {name.replace("|", "/"): file[name] for name in file.files}
            figures = {name: Measured(**value) for name, value in record["figures"].items()}
            return finite(Section(figures, arrays, list(record["notes"])))
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            continue  # cut short
    return None


def finite(section: Section) -> Section:
    """The section with figures that JSON can hold: none in place of infinity or NaN, and a note of what it was."""
    return replace(section, figures={name: _finite(m) for name, m in section.figures.items()})


def _finite(m: Measured) -> Measured:
    if m.value is not None and not math.isfinite(m.value):
        said = "not a number" if math.isnan(m.value) else "infinite" if m.value > 0 else "minus infinity"
        return Measured(None, None, m.n, f"{m.note}; {said}" if m.note else said)
    return m if m.stderr is None or math.isfinite(m.stderr) else replace(m, stderr=None)
