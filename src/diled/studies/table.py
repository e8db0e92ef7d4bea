"""Train and measure the rows of a table, and record the figures.

    python -m diled.studies.table mnist-table --seeds 0 1 2
    python -m diled.studies.table ldm-selection --split validation        # to choose, never on test data

A study is a folder of configurations under `configs`, one file per row, values only; or the one file `study.yaml`, which takes
rows of another study and changes values (`rows_of`, `only`, `set`; of single rows, instead, `set_of`). A row may start from
another row of the study and the same seed (`init_from: ROW`). Each row is trained in `runs/<study>/<row>-<seed>` (a finished
run is not trained again) and measured on the test split; the figures go to `results/<study>.json`. A study that is measured on
the validation split says so in every record's note.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

from diled.data import Data, open_data
from diled.errors import ConfigError, did_you_mean
from diled.evaluation.measure import Measured, samples_distance
from diled.model import Model
from diled.reporting import figures
from diled.runs import RunConfig, read_settings, resolve
from diled.studies.commands import (
    as_records,
    exit_code,
    made_here,
    refuse_uncommitted,
    speed_of,
    trained,
    training_of,
)
from diled.studies.records import Record, add, read

__all__ = ["Row", "arguments", "begun", "main", "other_floors", "rows", "run_row", "run_study", "split_of", "studies"]

WHOLE = "study.yaml"
"""The file of a study that takes rows of another one."""

OF_VALIDATION = "validation split"
"""How the note of every record begins that was measured on it."""

MOVED = 0.01
"""Share by which what real data reach may differ between rows."""

SAMPLERS = {"mnist-prior": (("ancestral", 100), ("ancestral", 300))}
"""Study -> samplers and steps whose samples are measured, too."""

Measuring: TypeAlias = Callable[[Model, Data], dict[str, Measured]]
"""What measures a trained row."""


def studies() -> list[str]:
    """Names of all studies."""
    return sorted(p.name for p in _configs().iterdir() if p.is_dir())


@dataclass(frozen=True)
class Row:
    """A row of a study: a configuration file and what the study changes in it."""

    path: Path
    changed: dict[str, Any] = field(default_factory=dict)
    """Dotted key -> value."""

    def config(self, settings: dict[str, Any] | None = None, seed: int | None = None) -> RunConfig:
        """The configuration of a run: the file, then what the study changes, then `settings`."""
        return resolve(None, None, self.path, {**self.changed, **(settings or {})}, seed=seed)


def rows(study: str) -> dict[str, Row]:
    """Row name -> its configuration.

    Raises:
        ConfigError: no such study; its `study.yaml` names a row that the other study lacks.
    """
    folder = _configs() / study
    if not folder.is_dir():
        raise ConfigError(f"There is no study '{study}'.{did_you_mean(study, studies())}")
    if not (folder / WHOLE).exists():
        return {path.stem: Row(path) for path in sorted(folder.glob("*.yaml"))}
    whole = read_settings(folder / WHOLE)
    source, changed, own = rows(whole["rows_of"]), whole["set"], whole.get("set_of", {})
    unknown = {*whole.get("only", ()), *own} - set(source)
    if unknown:
        name = sorted(unknown)[0]
        raise ConfigError(f"{study}: '{whole['rows_of']}' has no row '{name}'.{did_you_mean(name, source)}")
    return {
        name: Row(source[name].path, source[name].changed | own.get(name, changed))
        for name in whole.get("only", source)
    }


@cache
def begun(study: str) -> dict[str, str]:
    """System -> the one whose trained parts it begins with (`init_from`); none of what is no study of rows."""
    if study not in studies():
        return {}
    firsts = {name: row.config().init_from for name, row in rows(study).items()}
    return {system(name): system(first) for name, first in firsts.items() if first}


def run_row(study: str, row: str, seed: int, folder: Path, settings: dict[str, Any]) -> tuple[Model, Data]:
    """Train one row with one seed, or load it where that is done; first the row that it starts from (`init_from`)."""
    config = rows(study)[row].config(settings, seed)
    if config.init_from:
        first = config.init_from
        run_row(study, first, seed, folder, settings)
        config = config.model_copy(update={"init_from": str(folder / f"{first}-{seed}")})
    data = open_data(config.data, config.preprocess)
    return trained(config, folder / f"{row}-{seed}", data=data), data


def record_row(
    study: str, row: str, seed: int, model: Model, data: Data, found: dict[str, Measured], command: str
) -> list[Record]:
    """The figures of one row, and the speed of its training, as records."""
    made = model.provenance
    return as_records(
        {**found, **speed_of(made)},
        study=study,
        data=data_key(data),
        system=system(row),
        seed=seed,
        **training_of({**made, "parameters": model.parameters}),
        **made_here(),
        command=command,
    )


def system(row: str) -> str:
    """The name under which a row is recorded."""
    return row.replace("@", "/")


def data_key(data: Data) -> str:
    """The name under which results on these data are kept: `mnist` is dynamically binarised, others say what they are."""
    if data.name in ("mnist", "digits", "fashion-mnist"):
        return data.name + {"dynamic": "", "threshold": "/threshold", "none": "/grey"}[data.spec.binarize]
    return data.name


def arguments(program: str, description: str) -> argparse.ArgumentParser:
    """The arguments of every command that trains and measures the rows of a study."""
    parser = argparse.ArgumentParser(prog=f"python -m diled.studies.{program}", description=description)
    parser.add_argument("study", help=f"one of: {', '.join(studies())}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="rows; default: all")
    parser.add_argument("--steps", type=int, help="instead of those of the rows, for a trial")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    parser.add_argument("--split", choices=["test", "validation"], default="test")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    return parser


def split_of(record: Record) -> str:
    """What a record was measured on: `test` or `validation`. Only its note's beginning tells; figures may name either."""
    return "validation" if record.note.startswith(OF_VALIDATION) else "test"


def other_floors(found: list[Record], recorded: list[Record]) -> list[str]:
    """What real data reach in one row and do not in recorded ones of the same data, seed and number of examples, in words.

    It depends on no model, so the rows were measured by different code then, as in the features of another network.
    """
    remarks = []
    for r in (r for r in found if "floor" in r.metric):
        for other in recorded:
            same = (other.data, other.seed, other.metric, other.n) == (r.data, r.seed, r.metric, r.n)
            if same and other.system != r.system and not math.isclose(other.value, r.value, rel_tol=MOVED):
                remarks.append(
                    f"{r.metric} is {r.value:.4g} of {r.system} and {other.value:.4g} of {other.system}, whose row was "
                    "measured by other code: the two do not compare. Measure all rows anew, with another --results."
                )
                break
    return remarks


def measured(model: Model, data: Data, study: str = "") -> dict[str, Measured]:
    """All figures of a row."""
    found = figures(model, data)
    for sampler, steps in SAMPLERS.get(study, ()):
        distance = samples_distance(model.density, data, steps=steps, sampler=sampler)
        found[f"frechet_samples/{sampler}-{steps}"] = distance
    return found


def main(argv: list[str] | None = None) -> int:
    """Run a study from the command line."""
    chosen = arguments("table", "Train and measure a table.").parse_args(argv)
    return run_study("table", chosen, partial(measured, study=chosen.study))


def run_study(program: str, chosen: argparse.Namespace, measured: Measuring) -> int:
    """Every row with every seed; figures are recorded after each. The exit code.

    Args:
        program: the module that is run, for the command in the records.
        chosen: its `arguments`.
        measured: (model, data) -> the figures.
    """
    return exit_code(lambda: _run_rows(program, chosen, measured))


def _run_rows(program: str, chosen: argparse.Namespace, measured: Measuring) -> None:
    available = rows(chosen.study)
    unknown = set(chosen.only or ()) - set(available)
    if unknown:
        raise ConfigError(f"The study has no row '{sorted(unknown)[0]}'.{did_you_mean(sorted(unknown)[0], available)}")
    recorded = chosen.steps is None
    if recorded:
        refuse_uncommitted("then run this")
    path = chosen.results / f"{chosen.study}.json"
    settings = {} if chosen.device == "auto" else {"training.device": chosen.device}
    settings |= {} if chosen.steps is None else {"training.steps": chosen.steps}
    for seed in chosen.seeds:
        for row in chosen.only or available:
            command = f"python -m diled.studies.{program} {chosen.study} --only {row} --seeds {seed}"
            command += "" if chosen.split == "test" else f" --split {chosen.split}"
            command += "" if chosen.device == "auto" else f" --device {chosen.device}"
            if recorded and any(r.command == command for r in read(path)):
                print(f"{row}, seed {seed}: recorded")
                continue
            if recorded and any(split_of(r) != chosen.split for r in read(path)):
                raise ConfigError(f"{path} holds figures of the other split; a study is measured on one of them.")
            model, data = run_row(chosen.study, row, seed, chosen.runs / chosen.study, settings)
            place = data if chosen.split == "test" else replace(data, test=data.validation)
            found = measured(model, place)
            said = "  ".join(f"{k} {m.value:.4g}" for k, m in found.items() if m.value is not None)
            print(f"{row}, seed {seed}, {chosen.split}: {said}", flush=True)
            if recorded:
                records = record_row(chosen.study, row, seed, model, data, found, command)
                if chosen.split == "validation":
                    records = [replace(r, note=f"{OF_VALIDATION}; {r.note}".rstrip("; ")) for r in records]
                for remark in other_floors(records, read(path)):
                    print(remark, flush=True)
                add(path, records)


def _configs() -> Path:
    return Path(str(resources.files("diled.studies") / "configs"))


if __name__ == "__main__":
    sys.exit(main())
