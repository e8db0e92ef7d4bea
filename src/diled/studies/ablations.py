"""Further figures of the study `ablations`, from runs that are finished: what `studies/table.py` does not measure.

    python -m diled.studies.ablations levels --runs runs/ablations            what each level of codes holds
    python -m diled.studies.ablations frechet --runs runs/ablations           how far a Frechet distance moves with its set-up
    python -m diled.studies.ablations convergence --runs runs/ablations       steps and CPU seconds until the bound is reached

RUNS holds a folder `<row>-<seed>` for each run. Records go to `results/ablations.json`; `--trial` prints them instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diled.data import Data, open_data
from diled.errors import ConfigError
from diled.evaluation.feature_nets import extract
from diled.evaluation.images import frechet, frechet_bootstrap
from diled.evaluation.levels import held
from diled.evaluation.measure import Measured, features_for
from diled.model import Model, load
from diled.models.sampling import described, sample_batches, samplers_in
from diled.runs import read_run
from diled.space import raw_tensor, to_space
from diled.studies.commands import (
    as_records,
    exit_code,
    made_here,
    record_options,
    refuse_uncommitted,
    training_of,
    uncommitted,
)
from diled.studies.records import Record, add
from diled.studies.table import data_key, system
from diled.training.checkpoints import Log

__all__ = ["COUNTS", "MARKS", "convergence", "frechet_moves", "looks", "main", "shrunk", "time_to"]

STUDY = "ablations"
COUNTS = (500, 1000, 2000, 5000, 10_000)
"""Images on both sides."""
SIDES = (28, 14, 7)
"""Pixels of a side to which the images on both sides are resized."""
STEPS = (5, 10, 25, 50, 100)
"""Of the sampler."""
MARKS = (110.0, 105.0, 100.0, 95.0, 90.0)
"""Validation bounds in nats that runs are timed to."""
WITHIN = (1.0, 5.0)
"""Nats above a run's own last validation bound that it is timed to."""


@dataclass(frozen=True)
class Run:
    """A finished run: its row, its seed and its folder."""

    row: str
    seed: int
    folder: Path

    @property
    def system(self) -> str:
        """The row as records name it."""
        return system(self.row)


def runs_in(folder: Path, rows: list[str] | None = None, seeds: list[int] | None = None) -> list[Run]:
    """The finished runs `<row>-<seed>` of a folder.

    Raises:
        ConfigError: there are none.
    """
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        row, _, seed = path.name.rpartition("-")
        finished = row and seed.isdigit() and (path / "config.json").exists()
        if finished and (not rows or row in rows) and (not seeds or int(seed) in seeds):
            found.append(Run(row, int(seed), path))
    if not found:
        raise ConfigError(f"There is no finished run <row>-<seed> in {folder}" + (f" of {rows}." if rows else "."))
    return found


# Levels --------------------------------------------------------------------------------------------------------------


def has_levels(run: Run) -> bool:
    """Whether a row belongs to the comparison of levels: models of several, and what they are with one."""
    return run.row in ("diled", "vae") or run.row.split("@")[0] in ("diled_levels", "hierarchical_vae")


# Frechet distances ---------------------------------------------------------------------------------------------------


def shrunk(images: Tensor, side: int) -> Tensor:
    """Images (N, C, H, W) averaged down to `side` pixels, and enlarged again to the size that the network reads."""
    size = tuple(images.shape[2:])
    if size == (side, side):
        return images
    small = interpolate(images, (side, side), mode="area")
    return interpolate(small, size, mode="bilinear", align_corners=False)


def frechet_moves(model: Model, data: Data, *, count: int = 10_000, resamples: int = 50) -> dict[str, Measured]:
    """One model's Frechet distance of samples under other set-ups, one thing changed at a time, with its floors.

    The set-up that is changed: as many test images as samples, all pixels, decoder means, and the sampler's own steps.
    Floors are the other split's images in place of samples.

    Args:
        model: of images.
        data: its data.
        count: of images on both sides.
        resamples: of the bootstrap.

    Raises:
        ConfigError: there is no network for these data.
    """
    net = features_for(data)
    if net is None:
        raise ConfigError(f"Frechet distances need images, and {data.name} holds none.")
    density = model.density
    grey = data.spec.model_copy(update={"binarize": "none"})
    count = min(count, len(data.test), len(data.train))
    real = {name: _some(data, name, count, grey) for name in ("test", "train")}
    samples = torch.cat(list(sample_batches(density, count)))
    features = {name: extract(net, images) for name, images in real.items()} | {"samples": extract(net, samples)}
    note = f"{net.name}; {described(density)}"
    found: dict[str, Measured] = {}

    def put(name: str, fake: np.ndarray, against: np.ndarray, how: str = note) -> None:
        e = frechet_bootstrap(fake, against, resamples)
        found[name] = Measured(e.value, e.stderr, len(fake), f"{how}; {e.n[1]:,} real images")

    for n in [n for n in COUNTS if n < count] + [count]:
        for name in ("test", "train"):
            put(f"frechet_moves/reference={name}/count={n}", features["samples"][:n], features[name][:n])
        put(f"frechet_moves_floor/count={n}", features["train"][:n], features["test"][:n], net.name)
    everything = extract(net, _some(data, "train", len(data.train), grey))
    found["frechet_moves/reference=all-train"] = Measured(
        frechet(features["samples"], everything), None, count, f"{note}; {len(everything):,} real images"
    )
    for side in [s for s in SIDES if s < data.spec.shape[-1]]:
        small = {name: extract(net, shrunk(images, side)) for name, images in real.items()}
        put(f"frechet_moves/pixels={side}", extract(net, shrunk(samples, side)), small["test"])
        put(f"frechet_moves_floor/pixels={side}", small["train"], small["test"], net.name)
    put("frechet_moves/picture=thresholded", extract(net, torch.where(samples > 0, 1.0, -1.0)), features["test"])
    drawn = torch.cat(list(sample_batches(density, count, mean=False)))
    put("frechet_moves/picture=draws", extract(net, drawn), features["test"])
    settings = [*(("ddim", s) for s in STEPS), *(("ancestral", s) for s in STEPS[-2:])]
    for sampler, steps in settings if samplers_in(density) else []:
        fake = torch.cat(list(sample_batches(density, count, steps=steps, sampler=sampler)))
        how = f"{net.name}; {described(density, steps=steps, sampler=sampler)}"
        put(f"frechet_moves/sampler={sampler}/steps={steps}", extract(net, fake), features["test"], how)
    return found


def _some(data: Data, split: str, count: int, spec: Any) -> Tensor:
    """Random images of a split in model space, always the same ones, and the first of many are those of few."""
    chosen = getattr(data, split)
    index = np.random.default_rng(0).permutation(len(chosen))[:count]
    return to_space(raw_tensor(chosen.values[index]), spec)


# Convergence ---------------------------------------------------------------------------------------------------------


def looks(folder: Path) -> list[tuple[int, float]]:
    """(steps so far over all stages, validation bound) of every look at the whole model.

    While a prior trains on the codes of a frozen encoder, only its rate is logged: the distortion is the last one of the
    stage before. A stage `autoencoder` has a simple prior of its own, and its looks are those of another model.
    """
    found, before, stage, last, distortion = [], 0, None, 0, None
    for line in Log(folder).read():
        if line["stage"] != stage:
            before, stage = before + last, line["stage"]
        last = line["step"]
        values = line.get("validation", {})
        distortion = values.get("distortion", distortion)
        if "bound" not in values or stage == "autoencoder":
            continue
        rate_alone = "rate" in values and "distortion" not in values
        if rate_alone and distortion is None:
            continue
        found.append((before + last, values["bound"] + (distortion if rate_alone else 0.0)))
    return found


def time_to(seen: list[tuple[int, float]], bound: float) -> int | None:
    """The first step whose validation bound is `bound` or less; None where there is none."""
    return next((step for step, value in seen if value <= bound), None)


def convergence(folder: Path) -> dict[str, Measured]:
    """Steps and CPU seconds until the validation bound first comes within some nats of its last value, and below marks.

    Steps and seconds of the run that this one started from are part of its cost. CPU seconds are taken in proportion to
    steps. The validation images of binarised data are cut at one half, so their bound is lower than that of test draws.

    Raises:
        ConfigError: the run that this one started from is not there.
    """
    seen = looks(folder)
    if not seen:
        return {}
    first_steps, first_seconds = _spent_before(folder)
    made = _provenance(folder)
    per_step = made["cpu_seconds"] / made["steps"]
    own = seen[-1][1]
    note = f"looks at validation images every {seen[1][0] - seen[0][0] if len(seen) > 1 else seen[0][0]} steps"
    found = {"validation_bound_nats": Measured(own, note="validation images cut at one half, at the end")}
    goals = {f"own+{d:g}": own + d for d in WITHIN} | {f"{m:g}": m for m in MARKS}
    for name, bound in goals.items():
        steps = time_to(seen, bound)
        if steps is None:
            continue
        found[f"steps_to/{name}"] = Measured(float(first_steps + steps), note=note)
        found[f"cpu_seconds_to/{name}"] = Measured(round(first_seconds + steps * per_step, 2), note=note)
    return found


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "provenance.json").read_text()))
    except (OSError, ValueError):
        raise ConfigError(f"{folder} holds no record of its training (provenance.json).") from None


def _spent_before(folder: Path) -> tuple[int, float]:
    """Steps and CPU seconds of the run that this one started from, and of those before it."""
    source = read_run(folder).init_from
    if source is None:
        return 0, 0.0
    made = _provenance(Path(source))
    steps, seconds = _spent_before(Path(source))
    return steps + made["steps"], seconds + made["cpu_seconds"]


# The command ---------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m diled.studies.ablations", description="Further figures of finished ablation runs."
    )
    parser.add_argument("what", choices=["levels", "frechet", "convergence"])
    parser.add_argument("--runs", type=Path, default=Path("runs") / STUDY, help="a folder of runs <row>-<seed>")
    parser.add_argument("--only", nargs="+", help="rows; default: all that fit (frechet: diled)")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: all (frechet: 0)")
    parser.add_argument("--count", type=int, default=10_000, help="images on both sides of a Frechet distance")
    record_options(parser)
    chosen = parser.parse_args(argv)
    return exit_code(lambda: _run(chosen))


def _run(chosen: argparse.Namespace) -> None:
    if not chosen.trial:
        refuse_uncommitted()
    for run, data, found in _measured(chosen):
        said = "\n".join(f"  {k} {m.value:.4g}" for k, m in found.items() if m.value is not None)
        print(f"{run.row}, seed {run.seed}:\n{said}", flush=True)
        if not chosen.trial:
            add(chosen.results / f"{STUDY}.json", records(run, data, found, chosen.what))


def _measured(chosen: argparse.Namespace) -> Iterator[tuple[Run, Data, dict[str, Measured]]]:
    """The runs in turn, with their data and what was found."""
    rows = chosen.only or (["diled"] if chosen.what == "frechet" else None)
    seeds = chosen.seeds or ([0] if chosen.what == "frechet" else None)
    wanted = runs_in(chosen.runs, rows, seeds)
    if chosen.what == "levels" and not chosen.only:
        wanted = [run for run in wanted if has_levels(run)]
    measures: dict[str, Callable[[Run, Data], dict[str, Measured]]] = {
        "levels": lambda run, data: held(load(run.folder).density, data),
        "frechet": lambda run, data: frechet_moves(load(run.folder), data, count=chosen.count),
        "convergence": lambda run, data: convergence(run.folder),
    }
    opened: dict[str, Data] = {}
    for run in wanted:
        config = read_run(run.folder)
        key = f"{config.data} {config.preprocess}"
        if key not in opened:
            opened = {key: open_data(config.data, config.preprocess)}
        yield run, opened[key], measures[chosen.what](run, opened[key])


def records(run: Run, data: Data, found: dict[str, Measured], what: str) -> list[Record]:
    """What was found of one run as records, made by the code that measures, with the commit that trained.

    Raises:
        ConfigError: the run was trained by uncommitted code.
    """
    made = _provenance(run.folder)
    if uncommitted(made.get("commit")):
        raise ConfigError(f"{run.folder} was trained by uncommitted code: train it again, or use --trial.")
    return as_records(
        found,
        study=STUDY,
        data=data_key(data),
        system=run.system,
        seed=run.seed,
        **training_of(made),
        **made_here(),
        command=f"python -m diled.studies.ablations {what} --only {run.row} --seeds {run.seed}",
    )


if __name__ == "__main__":
    sys.exit(main())
