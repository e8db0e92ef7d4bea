"""A training session: data, model and recipe brought together, run, and saved. Used by `verbs.train` and `verbs.compare`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diled.api import Stage, total
from diled.config import DataSpec
from diled.data import Data, open_data
from diled.errors import ConfigError, DiledError
from diled.models.io import write_json
from diled.models.zoo import Recipe, build
from diled.runs import RunConfig, new_folder, provenance, read_run
from diled.space import raw_tensor, to_space
from diled.training.budget import seconds_per_step, steps_within

__all__ = ["PARTS", "Session", "resume"]

PARTS = ("encoder", "decoder", "prior")


class Session:
    """What `train` does, step by step.

    Args:
        config: what to train on what, how.
        out: folder of the run, or None for a new one under `runs`.
        minutes: a budget that the number of steps is fitted to.
        data: already opened data, for several models on the same.
        going_on: resume what is in the folder.
        say: prints a line.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        out: str | Path | None = None,
        minutes: float | None = None,
        data: Data | None = None,
        going_on: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
        self.say = say or (print if self.rank == 0 else lambda line: None)
        self.going_on = going_on
        self.data = data if data is not None else open_data(config.data, config.preprocess)
        for note in self.data.notes if data is None else ():
            self.say(note)
        self.config = config.model_copy(update={"model": config.model.resolved(self.data.spec)})
        self.folder = Path(out) if going_on and out else self._folder(out)
        self.recipe = self._recipe()
        self.values = raw_tensor(self.data.train.values)
        if minutes is not None:
            self._fit_budget(minutes)

    @property
    def spec(self) -> DataSpec:
        """What is known of the data."""
        return self.data.spec

    def run(self) -> Any:
        """Train, save, and return the model.

        Raises:
            DiledError: training stopped; the message says how to go on.
        """
        from diled.model import Model
        from diled.training.engine import Interrupted, fit

        if self.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / "run.json", self.config.model_dump(mode="json"))
        validation = raw_tensor(self.data.validation.values)
        try:
            with _bar(self.rank == 0) as progress:
                done = fit(
                    self.recipe.model,
                    self.recipe.stages,
                    self.values,
                    validation,
                    self.spec,
                    self.config.training,
                    self.folder,
                    resume=self.going_on,
                    progress=progress,
                    say=self.say,
                )
        except Interrupted as stop:
            raise type(stop)(f"{stop} Go on with: diled train --resume {self.folder}") from None
        record = provenance(
            seed=self.config.training.seed,
            data=self.config.data,
            steps=done["steps"],
            train_seconds=round(done["seconds"], 2),
            cpu_seconds=round(done["cpu_seconds"], 2),
            parameters=sum(p.numel() for p in self.recipe.model.parameters()),
            warnings=done["warnings"],
        )
        model = Model(
            self.recipe.model,
            self.spec,
            name=self.config.name,
            config=self.config.model,
            device=self.config.training.device,
            provenance=record,
        )
        if self.rank == 0:
            model.save(self.folder)
            self.say(f"Saved {self.folder} ({done['seconds']:.0f} s)")
        return model

    def estimate(self) -> dict[str, Any]:
        """Parameters per part, memory and time of this training, measured with a few steps; prints them."""
        model, config = self.recipe.model, self.config.training
        parts = {name: sum(p.numel() for p in getattr(model, name).parameters()) for name in PARTS}
        weights = 4 * sum(parts.values())
        memory = {
            "weights, gradients, optimiser and averages": weights * (5 if config.ema else 4),
            "activations of one step": max(self._activations(stage) for stage in self.recipe.stages),
            "data": self.values.numel() * self.values.element_size(),
        }
        shares = sum(stage.share for stage in self.recipe.stages)
        seconds = sum(
            config.steps * stage.share / shares * seconds_per_step(stage, self.values, self.spec, config)
            for stage in self.recipe.stages
        )
        self.say(
            f"{self.config.model.row.title} on {self.data.name}: {len(self.values):,} examples of {self.spec.shape}"
        )
        for name, n in parts.items():
            self.say(f"  {name:<10} {n:>12,} parameters")
        for name, n in memory.items():
            self.say(f"  {name:<44} {n / 2**20:>10,.1f} MiB")
        self.say(f"  {config.steps:,} steps in about {_duration(seconds)} on this machine")
        return {"parameters": parts, "memory_bytes": memory, "steps": config.steps, "seconds": seconds}

    def _folder(self, out: str | Path | None) -> Path:
        many = int(os.environ.get("WORLD_SIZE", 1)) > 1 or self.rank > 0
        if many:  # all processes must agree, so no free name is looked for
            folder = Path(out) if out is not None else Path("runs") / f"{self.data.name}-{self.config.name}"
            return new_folder(folder, self.config.data, self.config.name) if self.rank == 0 else folder
        return new_folder(out, self.config.data, self.config.name)

    def _recipe(self) -> Recipe:
        recipe = build(self.config.name, self.config.model, self.spec, self.config.training.seed)
        if self.config.init_from:
            copy_parts(Path(self.config.init_from), recipe, self.spec, self.say)
        unknown = set(self.config.freeze) - set(PARTS)
        if unknown:
            raise ConfigError(f"There is no part '{sorted(unknown)[0]}' to freeze. Parts: {', '.join(PARTS)}.")
        if self.config.freeze:
            frozen = tuple(getattr(recipe.model, part) for part in self.config.freeze)
            stages = [replace(stage, frozen=(*stage.frozen, *frozen)) for stage in recipe.stages]
            recipe.stages = [stage for stage in stages if _trains(stage)]
            if not recipe.stages:
                raise ConfigError("With these parts frozen nothing is left to train.")
        return recipe

    def _fit_budget(self, minutes: float) -> None:
        if minutes <= 0:
            raise ConfigError(f"minutes = {minutes}: give a positive budget.")
        steps = steps_within(60 * minutes, self.recipe.stages, self.values, self.spec, self.config.training)
        self.config = self.config.model_copy(
            update={"training": self.config.training.model_copy(update={"steps": steps})}
        )
        self.say(f"{minutes:g} minutes are enough for {steps:,} steps")

    def _activations(self, stage: Stage) -> int:
        """Bytes that autograd keeps in one step."""
        seen = 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal seen
            seen += tensor.numel() * tensor.element_size()
            return tensor

        x = to_space(self.values[: self.config.training.batch_size], self.spec)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total(stage.density.terms(x)).mean()
        return seen


def resume(folder: Path, *, device: str = "auto") -> Session:
    """The session of a run that was interrupted.

    Raises:
        ConfigError: the folder holds no run, or one that is finished.
    """
    config = read_run(folder)
    if (folder / "config.json").exists():
        raise ConfigError(f"The training in {folder} is finished. Load it: diled.load('{folder}').")
    if device != "auto":
        config = config.model_copy(update={"training": config.training.model_copy(update={"device": device})})
    return Session(config, out=folder, going_on=True)


def copy_parts(source: Path, recipe: Recipe, spec: DataSpec, say: Callable[[str], None]) -> None:
    """Start a model's parts from those of another run, where they fit.

    Raises:
        ConfigError: the other run has other data, or none of its parts fit.
    """
    from diled.models.io import load_model

    other, other_spec, _, _ = load_model(source)
    if other_spec.shape != spec.shape:
        raise ConfigError(f"{source} was trained on examples of shape {other_spec.shape}, these are {spec.shape}.")
    copied, reasons = [], []
    for part in PARTS:
        mine, theirs = getattr(recipe.model, part), getattr(other, part, None)
        if theirs is None:
            continue
        here = {key: tuple(v.shape) for key, v in mine.state_dict().items()}
        there = {key: tuple(v.shape) for key, v in theirs.state_dict().items()}
        if here == there and type(mine) is type(theirs):
            mine.load_state_dict(theirs.state_dict())
            copied.append(part)
        else:
            differ = next((key for key in here if here.get(key) != there.get(key)), "its kind")
            reasons.append(f"{part} differs in {differ} ({there.get(differ, 'absent')} there, {here.get(differ)} here)")
    if not copied:
        raise ConfigError(f"Nothing of {source} fits this model: {'; '.join(reasons)}.")
    rest = f"; the rest starts afresh: {'; '.join(reasons)}" if reasons else ""
    say(f"Started {', '.join(copied)} from {source}{rest}")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl."""
    path = folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _trains(stage: Stage) -> bool:
    frozen = {id(p) for module in stage.frozen for p in module.parameters()}
    return any(id(p) not in frozen for p in stage.density.parameters())


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[str, int, int, float], None] | None]:
    """A live progress bar on standard error."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[nats]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True)) as bar:

        def progress(stage: str, step: int, steps: int, nats: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=steps, nats="")
            said = f"{nats:.2f} nats" if nats == nats else ""
            bar.update(tasks[stage], completed=step, nats=said)

        yield progress


def check_same_data(data: Data, spec: DataSpec, where: str) -> None:
    """Refuse to compare models of different data or measures.

    Raises:
        DiledError: with what differs.
    """
    for key in ("shape", "levels", "binarize", "low", "high"):
        mine, theirs = getattr(data.spec, key), getattr(spec, key)
        if mine != theirs:
            raise DiledError(f"{where} was trained on other data: {key} is {theirs} there and {mine} in {data.name}.")
