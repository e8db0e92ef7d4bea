"""Results as flat records: one number each, written by committed commands only.

`results/<study>.json` is a list of records with the keys of `Record`. A record replaces an earlier one of the same study,
data, system, seed and metric. Tables in the README and the docs are rendered from these files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from filelock import FileLock

from diled.errors import ConfigError
from diled.models.io import write_json

__all__ = ["KEYS", "Record", "add", "mean_and_spread", "read"]

KEYS = ("study", "data", "system", "seed", "metric")


@dataclass(frozen=True)
class Record:
    """One measured number and how it came about."""

    study: str
    data: str
    system: str
    seed: int
    metric: str
    value: float
    stderr: float | None
    n: int | None
    steps: int | None
    train_seconds: float | None
    cpu_seconds: float | None
    parameters: int | None
    hardware: str
    commit: str
    command: str
    note: str = ""
    trained_at: str = ""
    """The commit that trained what was measured, where it is another one than `commit`; left out of the file where empty."""
    trained_on: str = ""
    """The hardware of `train_seconds` and `cpu_seconds`, where it is another than `hardware`; likewise."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What identifies a record."""
        return tuple(getattr(self, name) for name in KEYS)


def read(path: Path) -> list[Record]:
    """All records of a file; none where there is no file.

    Raises:
        ConfigError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        return [Record(**values) for values in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no list of result records: {error}.") from None


def add(path: Path, records: list[Record]) -> None:
    """Add records to a file, in place of earlier ones of the same key; sorted, written atomically, by one process at a time.

    Raises:
        ConfigError: they were made by uncommitted code, or what they measure was trained by it.
    """
    for record in records:
        if not record.commit or "-dirty" in record.commit + record.trained_at:
            raise ConfigError(
                "Results are recorded by committed code only: commit the changes under src and run again."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        kept = {record.key: record for record in read(path)} | {record.key: record for record in records}
        write_json(path, [_written(kept[key]) for key in sorted(kept, key=str)])


def _written(record: Record) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if value or name not in ("trained_at", "trained_on")}


def mean_and_spread(records: list[Record]) -> tuple[float, float | None, int]:
    """Mean over seeds, sample standard deviation (None of one), and the number of seeds."""
    values = [record.value for record in records]
    return fmean(values), stdev(values) if len(values) > 1 else None, len(values)
