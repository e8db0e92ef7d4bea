"""Runs that are trained together with stacked weights, each kept as if it had been trained by itself.

Together are those that differ in their seed, their synthetic set and what happens to examples on the way (`training.stacked`).
What it refuses, such as several stages and reverse half asleep, is left to be trained one by one, and so is a run
that was begun. Nothing is written before all runs of a group are done, so a group that was stopped begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from diled.config import PoolConfig, TrainingConfig
from diled.data import open_data
from diled.errors import ConfigError, ModelError
from diled.runs import RunConfig
from diled.session import Session
from diled.space import raw_tensor
from diled.training.stacked import OWN, Stacked, fit_stacked

__all__ = ["groups_of", "train_together"]


def train_together(wanted: Mapping[Path, RunConfig], say: Callable[[str], None] = print) -> None:
    """Train, of some runs, those that can be trained together; say of the others why not.

    Args:
        wanted: folder -> what is to be trained there; a folder that holds a run already is left alone.
        say: prints a line.
    """
    for group in groups_of({out: config for out, config in wanted.items() if not (out / "run.json").exists()}):
        if len(group) > 1:
            _train(group, say)


def groups_of(wanted: Mapping[Path, RunConfig]) -> list[dict[Path, RunConfig]]:
    """Runs with the same model, data and recipe but for what members of a stack may have of their own."""
    found: dict[str, dict[Path, RunConfig]] = {}
    defaults = {key: TrainingConfig.model_fields[key].default for key in (*OWN, "seed")}
    for out, config in wanted.items():
        shared = {"training": config.training.model_copy(update=defaults), "pool": PoolConfig()}
        found.setdefault(config.model_copy(update=shared).model_dump_json(), {})[out] = config
    return list(found.values())


def _train(group: Mapping[Path, RunConfig], say: Callable[[str], None]) -> None:
    """Train a group and keep its runs, or say why it is not trained together."""
    names, first = [out.name for out in group], next(iter(group.values()))
    data = open_data(first.data, first.preprocess)
    sessions = [Session(config, out=out, data=data, say=say) for out, config in group.items()]
    say(f"Together: {', '.join(names)}")
    started = time.perf_counter(), time.process_time()
    try:
        done = fit_stacked(
            [session.recipe.stages for session in sessions],
            [session.source for session in sessions],
            data.spec,
            [session.training for session in sessions],
            [config.training.seed for config in group.values()],
            validation=raw_tensor(data.validation.values) if first.training.keep == "best" else None,
            say=say,
        )
    except (ConfigError, ModelError) as error:
        say(f"One by one, since they cannot be trained together: {error}")
        return
    spent = time.perf_counter() - started[0], time.process_time() - started[1]
    for m, session in enumerate(sessions):
        if m in done.stopped:
            say(f"{session.folder.name} is trained again, by itself.")
        else:
            _keep(m, session, done, [t / len(sessions) for t in spent], names)


def _keep(m: int, session: Session, done: Stacked, spent: list[float], names: list[str]) -> None:
    """Write the folder of one member; `spent` is its share of the seconds, of clock and CPU."""
    (stage,), log = session.recipe.stages, []
    for entry in done.log:
        terms = {name: values[m] for name, values in entry["terms"].items()}
        log.append({"stage": stage.name, "step": entry["step"], "loss": entry["loss"][m], "terms": terms})
    record = {
        "steps": session.training.steps,
        "seconds": spent[0],
        "cpu_seconds": spent[1],
        "warnings": [],
        "speed": {},
    }
    kept = {"kept": {stage.name: done.kept[m]}} if m in done.kept else {}
    session.keep({**record, **kept, "stacked": names}, log)
