"""Decoded arrays of the named sets, kept between runs: decoding 60,000 PNG files takes seconds, reading them back does not.

The cache lies in `$DILED_CACHE`, else `$XDG_CACHE_HOME/diled`, else `~/.cache/diled`; an empty `DILED_CACHE` turns it
off. Files are written under a temporary name and then renamed, so that a killed run leaves no half of one. Whatever
cannot be read, or written, is passed over: the cache never is a reason to fail.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

__all__ = ["cache_folder", "cached", "file_key"]

# Raise it whenever decoding changes, so that old entries are no longer found.
_VERSION = 1


def cache_folder() -> Path | None:
    """Where decoded data are kept, or None where that is turned off."""
    named = os.environ.get("DILED_CACHE")
    if named is not None:
        return Path(named).expanduser() if named else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "diled"
    except RuntimeError:  # no home folder, as in some containers
        return None


def file_key(path: Path) -> str:
    """A key that changes with the file's name, size or time of change."""
    status = path.stat()
    return f"{path.name}-{status.st_size}-{status.st_mtime_ns}"


def cached(key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays kept under `key`, or those that `make` returns, which are then kept."""
    folder = cache_folder()
    if folder is None:
        return make()
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', key)[:80]}-{digest}-v{_VERSION}.npz"
    if path.is_file():
        with suppress(OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError):
            # Opened here, because np.load leaves the file open where it fails.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            if arrays:
                return arrays
    arrays = make()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, arrays)
    return arrays


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write beside `path`, then rename."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
