"""Designs of the trained rows of a study, judged by what the models have not seen.

    python -m diled.studies.designs gb1-low --seeds 0 1 2
    python -m diled.studies.designs gifford --only diled relso --seeds 0

Each row of a table's study is asked for sequences of high value, by every way to climb that it has and with the same settings
(`PLANS`), and these are judged:

    GB1       by the measured value itself; variants that were not measured count as 0, and so, in the table, do those that a
              list lacks
    Gifford   by an oracle that was fitted to other sequences than the models' (`evaluation/sequences.py`)

    measured_fitness/METHOD, oracle_fitness/METHOD    mean over the designs; best_..., median_... likewise
    predicted/METHOD                                  what the ensemble promised
    diversity/METHOD, nearest_training/METHOD         mean distance of two designs, and to the nearest training sequence

    novelty/METHOD, seconds/METHOD                    share that the model was not trained on, and CPU time of the search

The row `ridge` is an additive model: the best of all variants by a ridge regression on one-hot sites. The row `ensemble` is
evolution by the ensemble of symbols alone, with no model behind it. The row `data` is the 99th percentile of the landscape.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diled.data import Data, open_data
from diled.data.splits import seen
from diled.errors import ConfigError
from diled.evaluation.measure import Measured
from diled.evaluation.sequence_distances import pairwise_mean
from diled.evaluation.sequences import fit_oracle, residues_of, ridge_predictions
from diled.latent.optimize import Goal
from diled.model import Model
from diled.models.token_diffusion import TokenDiffusion
from diled.optimizing import Designs, Settings, design
from diled.studies.commands import as_records, exit_code, made_here, refuse_uncommitted, training_of
from diled.studies.proteins import shifted
from diled.studies.records import add, read
from diled.studies.table import rows, run_row, system

__all__ = ["PLANS", "Plan", "judged", "main", "methods_of"]

LATENT = ("ascent", "hill", "stochastic_hill", "mcmc", "cycle", "ode", "evolution")


@dataclass(frozen=True)
class Plan:
    """What is asked of the rows of a study.

    Attributes:
        column: the property.
        n: designs.
        name: of the figure, `measured_fitness` or `oracle_fitness`.
        settings: shared by all methods.
    """

    column: str
    n: int
    name: str
    settings: dict[str, Any]


PLANS = {
    "gb1-low": Plan("fitness", 100, "measured_fitness", {}),
    "gb1-two": Plan("fitness", 100, "measured_fitness", {}),
    "gifford": Plan("enrichment", 60, "oracle_fitness", {"candidates": 1, "rounds": 1, "keep_known": True}),
}
"""Study -> what is asked of its rows: of GB1 a list of new sequences, of Gifford what becomes of 60 starts."""


def methods_of(model: Model) -> tuple[str, ...]:
    """The ways to climb that a model has."""
    if isinstance(model.density, TokenDiffusion) and model.density.head is not None:
        return ("evolution", "guidance")
    return LATENT if model.density.has_codes else ("evolution",)


def landscape() -> dict[bytes, float]:
    """Every measured variant of GB1 and its fitness."""
    data = open_data("gb1")
    found: dict[bytes, float] = {}
    for split in (data.train, data.validation, data.test):
        found |= {row.tobytes(): float(y) for row, y in zip(split.values, split.labels["fitness"], strict=True)}
    return found


def judge_of(study: str, data: Data) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Rows (n, L) -> values (n,), and a remark on who says so."""
    if study.startswith("gb1"):
        measured = landscape()

        def judge(x: np.ndarray) -> np.ndarray:
            return np.array([measured.get(row.tobytes(), 0.0) for row in x.astype(np.uint8)])

        return judge, f"{len(measured):,} measured variants"
    oracle = fit_oracle(replace(data, test=shifted().test), PLANS[study].column)
    said = f"oracle with Spearman {oracle.accuracy['spearman']:.3f} on {oracle.accuracy['n']:.0f} other sequences"
    return oracle, said


def judged(
    found: Designs,
    judge: Callable[[np.ndarray], np.ndarray],
    data: Data,
    name: str,
    method: str,
    note: str,
    seconds: float | None = None,
) -> dict[str, Measured]:
    """Figures of a list of designs, which took so many CPU seconds to find."""
    worth, n = judge(found.values), len(found)
    figures = {
        name: Measured(float(worth.mean()), float(worth.std() / np.sqrt(n)), n, note),
        f"best_{name}": Measured(float(worth.max()), n=n, note=note),
        f"median_{name}": Measured(float(np.median(worth)), n=n, note=note),
        "predicted": Measured(float(found.columns["predicted"].mean()), n=n),
        "diversity": Measured(pairwise_mean(found.values) if n > 1 else None, n=n),
        "nearest_training": Measured(float(found.columns["distance"].mean()), n=n),
        "novelty": Measured(float(1 - seen(found.values, data.train.values).mean()), n=n),
        "ensemble_spearman": Measured(found.accuracy["spearman"], note="on validation examples"),
        "seconds": Measured(seconds, note="of CPU, ensembles included"),
    }
    return {f"{key}/{method}": m for key, m in figures.items()}


def ridge(data: Data, plan: Plan) -> np.ndarray:
    """The best variants that an additive model proposes of all 20^L, none of them trained on, (n, L)."""
    spec = data.spec
    every = np.array(list(itertools.product(residues_of(spec), repeat=spec.numel)), np.uint8)
    every = every[~seen(every, data.train.values)]
    hot = [np.eye(len(spec.symbols), dtype=np.float32)[x].reshape(len(x), -1) for x in (data.train.values, every)]
    said = ridge_predictions(hot[0], data.train.labels[plan.column], hot[1], standardize=False)
    return every[np.argsort(-said)[: plan.n]]


def main(argv: list[str] | None = None) -> int:
    """Design, judge and record from the command line."""
    parser = argparse.ArgumentParser(prog="python -m diled.studies.designs", description="Designs of a study's rows.")
    parser.add_argument("study", choices=sorted(PLANS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="rows; default: all")
    parser.add_argument("--methods", nargs="+", help="default: all that a row has")
    parser.add_argument("--steps", type=int, help="of the trainings, for a trial; nothing is recorded")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    return exit_code(lambda: _run(parser.parse_args(argv)))


def _run(chosen: argparse.Namespace) -> None:
    plan, study, recorded = PLANS[chosen.study], chosen.study, chosen.steps is None
    if recorded:
        refuse_uncommitted("or give --steps for a trial")
    available = [*rows(study), *(("ridge", "ensemble", "data") if study.startswith("gb1") else ())]
    unknown = [row for row in chosen.only or () if row not in available]
    if unknown:
        raise ConfigError(f"{study} has no row '{unknown[0]}'. Rows: {', '.join(available)}.")
    path = chosen.results / f"{study}.json"
    settings = {} if recorded else {"training.steps": chosen.steps}
    for seed in chosen.seeds:
        for row in chosen.only or available:
            command = f"python -m diled.studies.designs {study} --only {row} --seeds {seed}"
            command += f" --methods {' '.join(chosen.methods)}" if chosen.methods else ""
            if recorded and any(r.command == command for r in read(path)):
                print(f"{row}, seed {seed}: recorded")
                continue
            found, made = _of_row(study, row, seed, plan, chosen, settings)
            said = "  ".join(f"{k} {m.value:.3g}" for k, m in found.items() if m.value is not None and plan.name in k)
            print(f"{row}, seed {seed}: {said}", flush=True)
            if recorded:
                shared = {"study": study, "data": study.replace("-", "/"), "system": system(row), "seed": seed}
                add(path, as_records(found, **shared, **made, **made_here(), command=command))


def _of_row(
    study: str, row: str, seed: int, plan: Plan, chosen: argparse.Namespace, settings: dict[str, Any]
) -> tuple[dict[str, Measured], dict[str, Any]]:
    """The figures of one row, and what is recorded of its training."""
    if row in ("ridge", "data"):
        config = rows(study)[next(iter(rows(study)))].config(settings, seed)
        data = open_data(config.data, config.preprocess)
        judge, note = judge_of(study, data)
        if row == "data":
            values = np.array(list(landscape().values()))
            return {
                f"{plan.name}/percentile99": Measured(float(np.percentile(values, 99)), n=len(values))
            }, training_of({})
        best = ridge(data, plan)
        worth = judge(best)
        spread = float(worth.std() / np.sqrt(len(worth)))
        return {f"{plan.name}/additive": Measured(float(worth.mean()), spread, len(best), note)}, training_of({})
    alone = row == "ensemble"  # a model without codes and without a leash has no part in the search
    model, data = run_row(study, "profile" if alone else row, seed, chosen.runs / study, settings)
    judge, note = judge_of(study, data)
    found: dict[str, Measured] = {}
    for method in chosen.methods or methods_of(model):
        wanted = Settings(method=method, seed=seed, **plan.settings)
        wanted = replace(wanted, leash=0.0) if alone else wanted
        start = time.process_time()
        designs = design(model, data, Goal(plan.column), plan.n, wanted)
        if len(designs):
            seconds = time.process_time() - start
            found |= judged(designs, judge, data, plan.name, method, note, seconds)
        elif plan.name == "measured_fitness":
            found[f"{plan.name}/{method}"] = Measured(0.0, n=0, note=note)
    return found, training_of({} if alone else {**model.provenance, "parameters": model.parameters})


if __name__ == "__main__":
    sys.exit(main())
