"""What the commands that record figures have in common: options, the refusal of uncommitted code, records, the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diled.errors import ConfigError, DiledError
from diled.evaluation.measure import Measured
from diled.runs import commit, hardware
from diled.studies.records import Record

__all__ = ["as_records", "exit_code", "made_here", "record_options", "refuse_uncommitted", "uncommitted"]


def record_options(parser: argparse.ArgumentParser) -> None:
    """`--results` and `--trial`."""
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--trial", action="store_true", help="print, and record nothing")


def exit_code(run: Callable[[], None], name: str = "diled") -> int:
    """0; or 2 where `run` meets a mistake of the user, which is printed after the command's `name`."""
    try:
        run()
    except DiledError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0


def uncommitted(made_at: str | None) -> bool:
    """Whether this commit is none, or one with changes on top."""
    return not made_at or made_at.endswith("-dirty")


def refuse_uncommitted(way_out: str = "or use --trial") -> None:
    """Stop a command before it measures what it could not record.

    Args:
        way_out: what else to do than to commit, for the message.

    Raises:
        ConfigError: the code that runs has changes that are not committed.
    """
    if uncommitted(commit()):
        raise ConfigError(f"Results are recorded by committed code only: commit the changes under src, {way_out}.")


def made_here() -> dict[str, Any]:
    """`hardware` and `commit` of figures that this process measures."""
    return {"hardware": hardware(), "commit": commit() or ""}


def training_of(made: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of a training, from the provenance of its model; None for what it does not hold."""
    return {key: made.get(key) for key in ("steps", "train_seconds", "cpu_seconds", "parameters")}


def as_records(found: Mapping[str, Measured], **shared: Any) -> list[Record]:
    """Metric -> figure as records; figures without a value are left out.

    Args:
        found: what was measured.
        shared: the other fields of `Record`, the same for all.
    """
    return [
        Record(metric=metric, value=m.value, stderr=m.stderr, n=m.n, note=m.note, **shared)
        for metric, m in found.items()
        if m.value is not None
    ]
