"""What the commands that record figures have in common: options, runs, records, refusals, the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diled.config import TrainingConfig
from diled.data import Data
from diled.errors import ConfigError, DiledError
from diled.evaluation.measure import Measured
from diled.model import Model, load
from diled.runs import RunConfig, commit, hardware, read_run
from diled.session import Session
from diled.studies.records import Record

__all__ = [
    "as_records",
    "computed_on",
    "dotted",
    "draw_pictures",
    "exit_code",
    "made_here",
    "record_options",
    "refuse_uncommitted",
    "speed_of",
    "trained",
    "training_of",
    "uncommitted",
]


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


def draw_pictures(
    program: str,
    description: str,
    pictures: Mapping[str, tuple[str, Callable[[Path, Path], bool]]],
    argv: list[str] | None,
) -> int:
    """The command line of a program that draws what is recorded.

    Args:
        program: a module of `diled.studies`.
        description: for `--help`.
        pictures: file -> the study whose records it shows, and what draws it: from the file of records to that of the picture;
            it returns whether there was anything to draw.
        argv: arguments; None: those of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog=f"python -m diled.studies.{program}", description=description)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    chosen = parser.parse_args(argv)

    def run() -> None:
        for name, (study, draw) in pictures.items():
            done = draw(chosen.results / f"{study}.json", chosen.out / name)
            print(f"{chosen.out / name}: {'drawn' if done else 'nothing is recorded yet'}")

    return exit_code(run)


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


def trained(config: RunConfig, out: Path, *, data: Data | None = None, device: str = "auto") -> Model:
    """Train a run, go on with one that was stopped, or load one that is finished.

    Args:
        config: what a study wants now.
        out: folder of the run.
        data: already opened data in place of those that `config` names.
        device: where to compute; a run is the same wherever it is computed.

    Raises:
        ConfigError: the folder holds a run of other settings, finished or not.
    """
    if (out / "config.json").exists():
        model = load(out, device=device)
        _refuse_others(config.model_copy(update={"model": config.model.resolved(model.spec)}), out)
        return model
    begun = (out / "run.json").exists()
    here = config if device == "auto" else computed_on(config, device)
    session = Session(here, out=out, data=data, going_on=begun)
    if begun:
        _refuse_others(session.config, out)
    return session.run()


def _refuse_others(config: RunConfig, out: Path) -> None:
    """Stop where a run is not the one that is wanted, and say in what it differs."""
    wanted, there = (dotted(computed_on(one, "auto").model_dump(mode="json")) for one in (config, read_run(out)))
    differing = [key for key in sorted({*wanted, *there}) if wanted.get(key) != there.get(key)]
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{out} was trained with other settings than the study has now: {key} = {there.get(key)}, not "
            f"{wanted.get(key)}. Move it away."
        )


def computed_on(config: RunConfig, device: str) -> RunConfig:
    """A run with another device."""
    training: TrainingConfig = config.training.model_copy(update={"device": device})
    return config.model_copy(update={"training": training})


def dotted(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested values by dotted key."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{path}{key}"
        out |= dotted(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return out


def made_here() -> dict[str, Any]:
    """`hardware` and `commit` of figures that this process measures."""
    return {"hardware": hardware(), "commit": commit() or ""}


def training_of(made: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of a training, from the provenance of its model; None for what it does not hold.

    A kept model may be measured by later code, or elsewhere: then the record says of both.
    """
    here = made_here()
    elsewhere = {
        name: made[key]
        for name, key in (("trained_at", "commit"), ("trained_on", "hardware"))
        if made.get(key) not in (None, here[key])
    }
    return {key: made.get(key) for key in ("steps", "train_seconds", "cpu_seconds", "parameters")} | elsewhere


def speed_of(made: Mapping[str, Any]) -> dict[str, Measured]:
    """How fast a training went, from the provenance of its model."""
    names = ("examples_per_second", "flops_per_second", "utilisation", "peak_memory_bytes")
    return {name: Measured(made[name]) for name in names if name in made}


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
