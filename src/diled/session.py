"""A training session: data, model and recipe brought together, run, and saved. Used by `verbs.train` and `verbs.compare`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diled.api import Stage, total
from diled.config import DataSpec
from diled.data import Data, open_data
from diled.diffusion.schedule import Schedule
from diled.errors import ConfigError, DiledError, ModelError, TrainingError
from diled.model import Model, choose_device
from diled.models.io import write_json
from diled.models.zoo import Recipe, build
from diled.runs import RunConfig, new_folder, provenance, rank, read_run
from diled.space import raw_tensor, to_space
from diled.training.budget import seconds_per_step, steps_within

__all__ = ["Session", "resume"]


def parts_of(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The parts of a model that hold parameters, by name: encoder, decoder, prior and the like."""
    return {name: part for name, part in model.named_children() if any(True for _ in part.parameters())}


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
        self.many = config.training.devices * config.training.nodes > 1
        self.rank = rank() if self.many else 0
        self.say = say or (print if self.rank == 0 else lambda line: None)
        self.going_on = going_on
        choose_device(config.training.device)
        self._check_processes(minutes)
        self.folder = Path(out) if going_on and out else self._folder(out, config)
        self.data = data if data is not None else open_data(config.data, config.preprocess)
        for note in self.data.notes if data is None else ():
            self.say(note)
        self.config = config.model_copy(update={"model": config.model.resolved(self.data.spec)})
        self.recipe = self._recipe()
        self.values = raw_tensor(self.data.train.values)
        if minutes is not None:
            self._fit_budget(minutes)

    @property
    def spec(self) -> DataSpec:
        """What is known of the data."""
        return self.data.spec

    def run(self) -> Model:
        """Train, save, and return the model.

        Raises:
            DiledError: training stopped; the message says how to go on.
        """
        from diled.training.engine import fit

        if self.rank == 0:
            self._write_configuration()
        try:
            with _bar(self.rank == 0) as progress:
                done = fit(
                    self.recipe.model,
                    self.recipe.stages,
                    self.values,
                    raw_tensor(self.data.validation.values),
                    self.spec,
                    self.config.training,
                    self.folder,
                    resume=self.going_on,
                    progress=progress,
                    say=self.say,
                )
        except OSError as error:
            raise TrainingError(
                f"Could not write to {self.folder} ({error.strerror or error}). {self._go_on()}"
            ) from None
        model = self._trained(done)
        if self.rank == 0:
            try:
                model.save(self.folder)
            except ModelError as error:
                raise ModelError(f"{error} The trained weights are kept. {self._go_on()}") from None
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
            self.say(f"Saved {self.folder} ({duration(done['seconds'])})")
        return model

    def _trained(self, done: dict[str, Any]) -> Model:
        """The model with the record of its training."""
        record = provenance(
            seed=self.config.training.seed,
            data=self.config.data,
            steps=done["steps"],
            train_seconds=round(done["seconds"], 2),
            cpu_seconds=round(done["cpu_seconds"], 2),
            parameters=sum(p.numel() for p in self.recipe.model.parameters()),
            warnings=done["warnings"],
        )
        return Model(
            self.recipe.model,
            self.spec,
            name=self.config.name,
            config=self.config.model,
            device=self.config.training.device,
            provenance=record,
        )

    def _write_configuration(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / "run.json", self.config.model_dump(mode="json"))
        except OSError as error:
            raise ConfigError(f"Could not write to {self.folder}: {error.strerror}. Choose another --out.") from None

    def _go_on(self) -> str:
        return f"Go on with: diled train --resume {self.folder}"

    def estimate(self) -> dict[str, Any]:
        """Parameters per part, memory and time of this training, measured with a few steps; prints them."""
        model, config = self.recipe.model, self.config.training
        parts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts_of(model).items()}
        weights = 4 * sum(parts.values())
        memory = {
            "weights, gradients, optimiser and averages": weights * (5 if config.ema else 4),
            "activations of one step": max((self._activations(s) for s in self.recipe.stages if s.share), default=0),
            "data": self.values.numel() * self.values.element_size(),
        }
        shares = sum(stage.share for stage in self.recipe.stages)
        seconds = sum(
            config.steps * stage.share / shares * seconds_per_step(stage, self.values, self.spec, config)
            for stage in self.recipe.stages
            if stage.share
        )
        self.say(
            f"{self.config.model.row.title} on {self.data.name}: {len(self.values):,} examples of {self.spec.shape}"
        )
        for name, n in parts.items():
            self.say(f"  {name:<10} {n:>12,} parameters")
        for name, n in memory.items():
            self.say(f"  {name:<44} {n / 2**20:>10,.1f} MiB")
        self.say(f"  {config.steps:,} steps in about {duration(seconds)} on this machine")
        return {"parameters": parts, "memory_bytes": memory, "steps": config.steps, "seconds": seconds}

    def _check_processes(self, minutes: float | None) -> None:
        """Refuse what several processes cannot agree on."""
        world = int(os.environ.get("WORLD_SIZE", 1))
        if world > 1 and not self.many:
            raise ConfigError(
                f"This is one of {world} processes: say so with --training.devices (per node) and --training.nodes."
            )
        if self.many and minutes is not None:
            raise ConfigError("--minutes is measured on one device; with several give --training.steps.")

    def _folder(self, out: str | Path | None, config: RunConfig) -> Path:
        if self.rank == 0:
            return new_folder(out, config.data, config.name)
        return Path(out) if out is not None else Path("runs")  # reads and writes nothing there

    def _recipe(self) -> Recipe:
        recipe = build(self.config.name, self.config.model, self.spec, self.config.training.seed)
        copied: list[str] = []
        if self.config.init_from:
            copied = copy_parts(Path(self.config.init_from), recipe, self.spec, self.say, self.config.init_parts)
        elif self.config.init_parts:
            raise ConfigError("init_parts has no effect without init_from.")
        parts = parts_of(recipe.model)
        unknown = set(self.config.freeze) - set(parts)
        if unknown:
            raise ConfigError(f"There is no part '{sorted(unknown)[0]}' to freeze. Parts: {', '.join(parts)}.")
        fresh = [name for name in self.config.freeze if name not in copied]
        if fresh:
            why = (
                f"{self.config.init_from} has none that fits"
                if self.config.init_from
                else "no --init-from gives it weights"
            )
            raise ConfigError(f"'{fresh[0]}' is to be frozen, but {why}: it would stay as it was drawn.")
        if self.config.freeze:
            frozen = tuple(parts[name] for name in self.config.freeze)
            stages = [replace(stage, frozen=(*stage.frozen, *frozen)) for stage in recipe.stages]
            recipe.stages = [stage for stage in stages if not stage.share or _trains(stage)]
            if not any(stage.share for stage in recipe.stages):
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
        with stage.training(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total(stage.density.terms(x)).mean()
        return seen


def resume(folder: Path, *, device: str = "auto", given: Mapping[str, Any] | None = None) -> Session:
    """The session of a run that was interrupted.

    Args:
        folder: of the run.
        device: where to compute; may differ from before.
        given: other settings, by name; a run goes on with its own, so there may be none.

    Raises:
        ConfigError: the folder holds no run, or one that is finished, or other settings are given.
    """
    config = read_run(folder)
    if (folder / "config.json").exists():
        raise ConfigError(f"The training in {folder} is finished. Load it: diled.load('{folder}').")
    extra = [name for name, value in (given or {}).items() if value not in (None, (), [])]
    if extra:
        raise ConfigError(f"A resumed run goes on with its own settings: leave out {', '.join(extra)}.")
    if device != "auto":
        config = config.model_copy(update={"training": config.training.model_copy(update={"device": device})})
    return Session(config, out=folder, going_on=True)


def copy_parts(
    source: Path, recipe: Recipe, spec: DataSpec, say: Callable[[str], None], wanted: tuple[str, ...] = ()
) -> list[str]:
    """Start a model's parts from those of another run, where they fit; only `wanted` ones where any are named.

    A part fits where it consists of the same kinds of modules, of the same sizes, at the same noise levels.

    Returns:
        The names of the parts that were copied.

    Raises:
        ConfigError: the other run has other data, none of its parts fit, or a wanted one does not.
    """
    from diled.models.io import load_model

    other, other_spec, _, _ = load_model(source)
    if other_spec.shape != spec.shape:
        raise ConfigError(f"{source} was trained on examples of shape {other_spec.shape}, these are {spec.shape}.")
    copied, reasons = [], []
    for part, mine in parts_of(recipe.model).items():
        if wanted and part not in wanted:
            continue
        theirs = getattr(other, part, None)
        if theirs is None:
            continue
        differs = difference(mine, theirs)
        if differs is None:
            mine.load_state_dict(theirs.state_dict())
            copied.append(part)
        else:
            reasons.append(f"{part} differs in {differs}")
    if not copied:
        why = "; ".join(reasons) or f"it has {_named(other)}, this one {_named(recipe.model)}"
        raise ConfigError(f"Nothing of {source} fits this model: {why}.")
    missing = [part for part in wanted if part not in copied]
    if missing:
        raise ConfigError(f"{source} has no '{missing[0]}' that fits this model, as init_parts wants.")
    rest = f"; the rest starts afresh: {'; '.join(reasons)}" if reasons else ""
    say(f"Started {', '.join(copied)} from {source}{rest}")
    return copied


def difference(mine: torch.nn.Module, theirs: torch.nn.Module) -> str | None:
    """The first thing in which two parts differ so that weights of one mean nothing in the other; None: they fit."""
    kinds, others = ({name: type(m).__name__ for name, m in part.named_modules()} for part in (mine, theirs))
    shapes, sizes = ({key: tuple(v.shape) for key, v in part.state_dict().items()} for part in (mine, theirs))
    ends, limits = (
        {name: tuple(round(float(end), 3) for end in m.ends) for name, m in part.named_modules() if _fixed(m)}
        for part in (mine, theirs)
    )
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [(shapes, sizes), (kinds, others), (ends, limits)]
    for here, there in pairs:
        name = next((name for name in [*here, *there] if here.get(name) != there.get(name)), None)
        if name is not None:
            said = f"{there.get(name, 'absent')} there, {here.get(name, 'absent')} here"
            return f"{name or 'its kind'} ({said})"
    return None


def _fixed(module: torch.nn.Module) -> bool:
    """Whether this is a noise schedule whose ends are not trained."""
    return isinstance(module, Schedule) and not any(True for _ in module.parameters())


def _named(model: torch.nn.Module) -> str:
    return ", ".join(parts_of(model)) or "no parts with weights"


def _trains(stage: Stage) -> bool:
    frozen = {id(p) for module in stage.frozen for p in module.parameters()}
    return any(id(p) not in frozen for p in stage.density.parameters())


def duration(seconds: float) -> str:
    """Seconds in words: `95 s`, `12 min`, `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


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
    bar = Progress(*columns, console=Console(stderr=True))

    def progress(stage: str, step: int, steps: int, nats: float) -> None:
        bar.start()
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=steps, nats="")
        said = f"{nats:.2f} nats" if nats == nats else ""
        bar.update(tasks[stage], completed=step, nats=said)

    try:
        yield progress
    finally:
        if tasks:
            bar.stop()


def check_same_data(data: Data, spec: DataSpec, where: str) -> None:
    """Refuse to compare models of different data or measures.

    Raises:
        DiledError: with what differs.
    """
    for key in ("shape", "levels", "binarize", "low", "high"):
        mine, theirs = getattr(data.spec, key), getattr(spec, key)
        if mine != theirs:
            raise DiledError(f"{where} was trained on other data: {key} is {theirs} there and {mine} in {data.name}.")
