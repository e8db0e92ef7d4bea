"""A training session: data, model and recipe brought together, run, and saved. Used by `verbs.train` and `verbs.compare`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diled.api import IN_FP32, Stage, computed_in, total
from diled.config import DataSpec, TrainingConfig
from diled.data import Data, open_data
from diled.data.splits import hashed
from diled.errors import ConfigError, DataError, DiledError, ModelError, TrainingError
from diled.model import Model, choose_device
from diled.models.io import write_json
from diled.models.pretrained import check_rereading, pretrained_states
from diled.models.properties import head_of
from diled.pools import counts_of, source_for
from diled.progress import progress_bar
from diled.recipes import parts_of, recipe_of
from diled.runs import RunConfig, claim_folder, new_folder, provenance, rank, read_run
from diled.space import raw_tensor, to_space
from diled.training.budget import seconds_per_step, steps_within
from diled.training.checkpoints import Checkpoints, Log, alone_in
from diled.training.data import steps_for
from diled.training.half_asleep import arrange
from diled.training.inputs import Inputs

__all__ = ["Session", "resume"]

POOL = "pool.json"
"""File of a run that says which synthetic set it is trained on."""
DATA = "data.json"
"""File of a run that says which real examples it is trained and tested on."""
MOST_MINUTES = 10_000_000
"""Of a budget: nineteen years."""


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
        self.precision = self._precision(config.training)
        self._check_processes(minutes)
        self.out, self.folder = out, Path(out) if going_on and out else self._folder(out, config)
        self.data = data if data is not None else open_data(config.data, config.preprocess)
        for note in self.data.notes if data is None else ():
            self.say(note)
        self.config = config.model_copy(update={"model": config.model.resolved(self.data.spec)})
        started = going_on and Checkpoints(self.folder).weights.exists()
        self.recipe = recipe_of(self.config, self.spec, self.say, started=started)
        self.stages = self._stages()
        self.values = raw_tensor(self.data.train.values)
        check_rereading(self.recipe.model, self.values, "the training texts")
        check_rereading(self.recipe.model, raw_tensor(self.data.validation.values), "the validation texts")
        columns = getattr(self.recipe.model, "columns", ())
        self.source = source_for(self.config, self.data, self.say, columns)
        self.pool, self.known = self._pool(), self._known()
        self._standardize()
        if minutes is not None:
            self._fit_budget(minutes)

    def _precision(self, config: TrainingConfig) -> str:
        """What networks compute in here; where that is not what was asked for, it is said."""
        used = computed_in(config.precision, choose_device(config.device).type)
        if used != config.precision:
            self.say(IN_FP32)
        return used

    def _standardize(self) -> None:
        """Tell a head of properties the mean and spread of its labels; a frozen one, and a checkpoint, bring their own."""
        head, parts = head_of(self.recipe.model), parts_of(self.recipe.model)
        if head is not None and not any(head in parts[name].modules() for name in self.config.freeze):
            for column, classes in head.classes.items():
                y = self.data.train.labels[column]
                if not ((y >= 0) if classes else np.isfinite(y)).any():
                    raise ConfigError(
                        f"No training example has a '{column}' for the head to learn: leave it out of model.properties.columns."
                    )
            head.fit({column: torch.from_numpy(self.data.train.labels[column]) for column in head.columns})

    def _pool(self) -> str | None:
        """Which synthetic set this is, if any.

        Raises:
            DataError: a run that goes on was begun with another; one that did not say with which goes on.
        """
        from diled.data.synthesis import set_hash

        source, path = self.config.pool.source, self.folder / POOL
        if source is None:
            return None
        found = set_hash(source)
        if self.going_on and path.exists() and json.loads(path.read_text(encoding="utf-8")) != {"sha256": found}:
            raise DataError(
                f"{source} is another synthetic set than the one that the run in {self.folder} was begun with. Put that back, "
                "or begin a new run."
            )
        return found

    def _known(self) -> dict[str, str]:
        """Which examples the training and the test split have.

        Raises:
            DataError: a run that goes on was begun with others; one that did not say with which goes on.
        """
        found = {f"{name}_sha256": hashed(getattr(self.data, name).values) for name in ("train", "test")}
        path = self.folder / DATA
        if self.going_on and path.exists() and json.loads(path.read_text(encoding="utf-8")) != found:
            raise DataError(
                f"{self.data.name} has changed since the run in {self.folder} was begun, so that examples may be in another "
                "split than before. Put the data back as they were, or begin a new run."
            )
        return found

    @property
    def spec(self) -> DataSpec:
        """What is known of the data."""
        return self.data.spec

    @property
    def training(self) -> TrainingConfig:
        """The recipe, with the number of steps that its epochs come to."""
        config = self.config.training
        if config.epochs is None:
            return config
        batch = config.batch_size * config.accumulate * config.devices * config.nodes
        steps = steps_for(config.epochs, len(self.data.train), batch)
        return config.model_copy(update={"steps": steps, "epochs": None})

    def run(self) -> Model:
        """Train, save, and return the model.

        Raises:
            DiledError: training stopped, and the message says how to go on; or another process has the folder.
        """
        if self.rank == 0 and not self.going_on:
            self._write_configuration()  # which takes the folder
        with alone_in(self.folder) if self.rank == 0 else nullcontext():
            if self.rank == 0 and self.going_on:
                check_unfinished(self.folder)  # another process may have gone on with it meanwhile
                self._write_configuration()
            return self._saved(self._fitted())

    def _fitted(self) -> dict[str, Any]:
        """Train; what `engine.fit` returns.

        Raises:
            DiledError: training stopped, or the folder cannot be written to.
        """
        from diled.training.engine import fit

        try:
            with progress_bar(self.rank == 0, "nats") as progress:
                return fit(
                    self.recipe.model,
                    self.recipe.stages,
                    self.source,
                    raw_tensor(self.data.validation.values),
                    self.spec,
                    self.training,
                    self.folder,
                    resume=self.going_on,
                    keep_start=self.config.init_from is not None or pretrained_states(self.recipe.model) is not None,
                    progress=progress,
                    say=self.say,
                )
        except OSError as error:
            raise TrainingError(
                f"Could not write to {self.folder} ({error.strerror or error}). {self._go_on()}"
            ) from None

    def keep(self, done: dict[str, Any], log: list[dict[str, Any]]) -> Model:
        """The folder of a training of this recipe's model that was done elsewhere, and not here by `run`.

        Args:
            done: what `engine.fit` returns of one; also `stacked`, the runs that it was trained together with.
            log: the lines of `log.jsonl`.
        """
        self._write_configuration()
        Log(self.folder).rewind(None, 0)
        for line in log:
            Log(self.folder).write(line)
        return self._saved(done)

    def _saved(self, done: dict[str, Any]) -> Model:
        """The model, saved in the folder, with the record of its training."""
        model = self._trained(done)
        if self.rank == 0:
            try:
                model.save(self.folder)
            except ModelError as error:
                raise ModelError(f"{error} The trained weights are kept. {self._go_on()}") from None
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
            self.say(f"Saved {self.folder} ({', '.join([duration(done['seconds']), *_said(done['speed'])])})")
        return model

    def _trained(self, done: dict[str, Any]) -> Model:
        """The model with the record of its training."""
        record = provenance(
            seed=self.config.training.seed,
            data=self.config.data,
            preprocess=self.config.preprocess.model_dump(mode="json", exclude_defaults=True),
            test_sha256=self.known["test_sha256"],
            **({} if self.pool is None else {"pool_sha256": self.pool}),
            examples=counts_of(self.source, self.config.pool, self.data),
            steps=done["steps"],
            precision=self.precision,
            train_seconds=round(done["seconds"], 2),
            cpu_seconds=round(done["cpu_seconds"], 2),
            parameters=sum(p.numel() for p in self.recipe.model.parameters()),
            **_rounded(done["speed"]),
            warnings=done["warnings"],
            **{key: done[key] for key in ("kept", "stacked") if key in done},
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
        """Write what is needed to train it again; a new run takes its folder here, when all else is known to be right.

        Raises:
            ConfigError: it cannot be written, or another training took `out` meanwhile.
        """
        claimed: Path | None = None
        try:
            if not self.going_on:
                self.folder = claimed = claim_folder(self.out, self.config.data, self.config.name)
            values = self.config.model_dump(mode="json")
            if self.config.training.epochs is not None:  # which set the steps
                del values["training"]["steps"]
            write_json(self.folder / "run.json", values)
            if not self.going_on:
                write_json(self.folder / DATA, self.known)
            if self.pool is not None:
                write_json(self.folder / POOL, {"sha256": self.pool})
        except OSError as error:
            if claimed is not None:
                (claimed / "run.json").unlink(missing_ok=True)
            raise ConfigError(f"Could not write to {self.folder}: {error.strerror}. Choose another --out.") from None

    def _go_on(self) -> str:
        return f"Go on with: diled train --resume {self.folder}"

    def estimate(self) -> dict[str, Any]:
        """Parameters per part, memory and time of this training, measured with a few steps; prints them."""
        model, config = self.recipe.model, self.training
        parts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts_of(model).items()}
        weights = 4 * sum(parts.values())
        memory = {
            "weights, gradients, optimiser and averages": weights * (5 if config.ema else 4),
            "activations of one step": max((self._activations(s) for s in self.stages if s.share), default=0),
            "data": self.source.nbytes,
        }
        shares = sum(stage.share for stage in self.stages)
        seconds = sum(
            config.steps * stage.share / shares * seconds_per_step(stage, self.source, self.spec, config)
            for stage in self.stages
            if stage.share
        )
        count = f"{len(self.source):,}" if len(self.source) else "endless"
        self.say(f"{self.config.model.row.title} on {self.data.name}: {count} examples of {self.spec.shape}")
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

    def _stages(self) -> list[Stage]:
        """The stages as the training will have them.

        Raises:
            ConfigError: an option of the training fits neither this model nor these data.
        """
        Inputs(self.spec, self.config.training)
        x = to_space(raw_tensor(self.data.validation.values[:2]), self.spec, draw=False)
        return arrange(self.recipe.model, self.recipe.stages, x, self.config.training)

    def _fit_budget(self, minutes: float) -> None:
        if not 0 < minutes <= MOST_MINUTES:  # nan is in no range
            raise ConfigError(f"minutes = {minutes}: give a positive budget, of {MOST_MINUTES:,} at most.")
        if self.config.training.epochs is not None:
            raise ConfigError("--minutes and --training.epochs both set the number of steps: leave one out.")
        if "steps" in self.config.training.model_fields_set:
            raise ConfigError("--minutes and --training.steps both set the number of steps: leave one out.")
        steps = steps_within(60 * minutes, self.stages, self.source, self.spec, self.config.training)
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

        x = to_space(self.source.take(0, self.config.training.batch_size, 0), self.spec)
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
    check_unfinished(folder)
    extra = [name for name, value in (given or {}).items() if value not in (None, (), [])]
    if extra:
        raise ConfigError(f"A resumed run goes on with its own settings: leave out {', '.join(extra)}.")
    if device != "auto":
        config = config.model_copy(update={"training": config.training.model_copy(update={"device": device})})
    return Session(config, out=folder, going_on=True)


def check_unfinished(folder: Path) -> None:
    """Refuse to go on with a training that is over.

    Raises:
        ConfigError: the folder holds a trained model.
    """
    if (folder / "config.json").exists():
        raise ConfigError(f"The training in {folder} is finished. Load it: diled.load('{folder}').")


def duration(seconds: float) -> str:
    """Seconds in words: `95 s`, `12 min`, `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _rounded(speed: Mapping[str, float]) -> dict[str, float]:
    """For the record: four figures, and whole bytes."""
    return {key: value if isinstance(value, int) else float(f"{value:.4g}") for key, value in speed.items()}


def _said(speed: Mapping[str, float]) -> list[str]:
    """Examples per second, and on a GPU how much of it and of its memory was used."""
    said = []
    if "examples_per_second" in speed:
        said.append(f"{speed['examples_per_second']:,.0f} examples a second")
    if "utilisation" in speed:
        said.append(f"{100 * speed['utilisation']:.0f} % of what this device does in large matrix products")
    if "peak_memory_bytes" in speed:
        said.append(f"{speed['peak_memory_bytes'] / 2**30:.1f} GiB of its memory")
    return said


def check_same_data(data: Data, spec: DataSpec, where: str) -> None:
    """Refuse to compare models of different data or measures.

    Raises:
        DiledError: with what differs.
    """
    if data.spec.tokenizer != spec.tokenizer and "text" == data.spec.kind == spec.kind:
        raise DiledError(f"{where} was trained with another tokenizer than that of {data.name}.")
    for key in ("kind", "shape", "levels", "binarize", "low", "high", "symbols", "sites", "background"):
        mine, theirs = getattr(data.spec, key), getattr(spec, key)
        if mine != theirs:
            raise DiledError(f"{where} was trained on other data: {key} is {theirs} there and {mine} in {data.name}.")
