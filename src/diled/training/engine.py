"""Training through Lightning's Trainer. The only file that imports the training engine.

One stage is one fit: a new optimiser, frozen parts in evaluation mode, and at its end the averaged weights. Order of the
data, noise and times are functions of (seed, stage, micro-step, rank), and state is saved between two steps only, so a
resumed training ends on the same weights as an uninterrupted one, bit for bit on CPU. `checkpoints.py` says what lies on
disk meanwhile.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from diled.api import Batch, Stage, evaluating, stack, total
from diled.config import DataSpec, TrainingConfig
from diled.draws import reseed, seed_from
from diled.errors import ConfigError, Interrupted, TrainingError
from diled.memory import kept_memory
from diled.space import to_space
from diled.training.best import Best, held_out_bound, random_rows
from diled.training.checkpoints import Checkpoints, Log, NotFinite, Spent, check_finite
from diled.training.compiling import fused
from diled.training.data import Batches, Source
from diled.training.half_asleep import arrange
from diled.training.inputs import Inputs, noisy_input
from diled.training.monitors import health
from diled.training.signals import Signals
from diled.training.stages import learning_rate, parameter_groups, prepare
from diled.training.throughput import accelerator_of, precision_of, speeds_of

__all__ = ["fit"]

LOOKED_AT = 1000
"""Held-out examples that the monitors see."""


def fit(
    model: nn.Module,
    stages: list[Stage],
    values: Tensor | Source,
    validation: Tensor,
    spec: DataSpec,
    config: TrainingConfig,
    folder: Path,
    *,
    resume: bool = False,
    keep_start: bool = False,
    progress: Callable[[str, int, int, float], None] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train `model` through its stages; afterwards it holds the averaged weights.

    Args:
        model: the module whose weights are kept between stages.
        stages: in order; their shares of `config.steps` are normalised.
        values: raw training examples (N, *spec.shape), or where they come from.
        validation: raw held-out examples, for the monitors and for early stopping.
        spec: how raw values become model space.
        config: the recipe.
        folder: of the run.
        resume: go on from the folder's checkpoint where there is one.
        keep_start: also keep the weights that the training starts from, which came from elsewhere.
        progress: called as (stage, step, steps, nats) a few times a second.
        say: prints warnings of the monitors.

    Returns:
        `steps`, and over all sessions `seconds`, `cpu_seconds`, the `warnings` that were raised, and `kept`, stage -> `step`
        and `bound` of the look that was chosen, where the best one is kept; `speed` as `speeds_of` has it.

    Raises:
        TrainingError: a term is NaN or infinite (named; the last good checkpoint stays), the disk is full, or a
            checkpoint is damaged.
        Interrupted: on SIGINT or SIGTERM, after the state was saved.
    """
    stages = arrange(model, stages, to_space(validation[:2], spec, draw=False), config)
    kept, inputs = Checkpoints(folder), Inputs(spec, config)
    done, record = kept.finished(model) if resume else (0, {})
    spent = Spent(**record)
    shares = sum(stage.share for stage in stages)
    for index, stage in enumerate(stages):
        if index < done:
            continue
        state = kept.running(index) if resume else None
        if state is None:
            prepare(stage, values, spec, config, index)
        if stage.share == 0:
            if not (torch.distributed.is_initialized() and torch.distributed.get_rank()):
                kept.folder.mkdir(parents=True, exist_ok=True)
                kept.finish(model, index + 1, spent)
            continue
        steps = max(1, round(config.steps * stage.share / shares))
        before = sum(stage.share for stage in stages[:index]) / shares
        module = _Module(stage, index, steps, inputs, config, (before, stage.share / shares), spent)
        batches = Batches(values, config.batch_size, seed=seed_from(config.seed, index))
        fresh, best = not resume and index == 0, Best() if config.keep == "best" else None
        keeper = _Keeper(kept, batches, spent, best, fresh=fresh, start=model if keep_start else None)
        if state is not None:
            keeper.restore(module, state)
        average = _Average(config.ema) if config.ema else None
        writer = _Writer(Log(folder), validation, average, spent, best, progress, say)
        with stage.training(), noisy_input(stage.density, config, spec), keeper.signals:
            trainer = _trainer(config, steps, folder, [*([average] if average else []), writer, keeper])
            with kept_memory(trainer.strategy.root_device):
                _run(trainer, module, batches, keeper, None if state is None else str(kept.last))
        writer.choose(trainer, module)
        if trainer.is_global_zero:
            kept.finish(model, index + 1, spent)
        if keeper.signals.asked:
            raise Interrupted(
                f"Stopped after stage '{stage.name}'. Its weights are kept: diled train --resume {folder}."
            )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # what follows is done by the first process alone
    record = spent.record()
    speed = speeds_of(record.pop("throughput"), config)
    return {"steps": config.steps, **record, "warnings": list(record["warnings"].values()), "speed": speed}


def _run(trainer: pl.Trainer, module: _Module, batches: Batches, keeper: _Keeper, path: str | None) -> None:
    """Fit one stage, from the checkpoint at `path` where there is one.

    Raises:
        TrainingError: a term or a weight is NaN or infinite.
    """
    try:
        trainer.fit(module, batches, ckpt_path=path, weights_only=True)
        check_finite(module.density, f"the end of stage '{module.stage.name}'")
    except NotFinite as error:
        raise TrainingError(
            f"{error} {keeper.left(going_on=False)} Start a new run with a lower --training.learning_rate or --training.clip."
        ) from None


class _Module(pl.LightningModule):
    """One stage as Lightning sees it."""

    def __init__(
        self,
        stage: Stage,
        index: int,
        steps: int,
        inputs: Inputs,
        config: TrainingConfig,
        part: tuple[float, float],
        spent: Spent,
    ) -> None:
        super().__init__()
        self.density = stage.density
        self.stage, self.index, self.steps, self.inputs, self.config = stage, index, steps, inputs, config
        self.part = part
        """Where in the whole training this stage begins, and its share."""
        self.running: dict[str, Tensor | float] = {}
        """Sums of the terms since they were last taken."""
        self.counted = 0
        self.fused = fused(stage.density.terms) if config.compile else None
        self.spent = spent
        self.groups: list[dict[str, Any]] = []
        """What the optimiser holds, with a learning rate for each group."""

    def training_step(self, batch: Batch, index: int) -> Tensor:
        micro = self.trainer.global_step * self.config.accumulate + index % self.config.accumulate
        reseed(seed_from(self.config.seed, self.index, micro, self.trainer.global_rank))
        here, (before, share) = self.trainer.global_step / self.steps, self.part
        x = self.inputs(batch.x, before + share * here)
        progress = torch.full((), here, device=x.device)
        labelled: dict[str, Any] = {"labels": batch.labels} if batch.labels and hasattr(self.density, "columns") else {}
        self.spent.throughput.count(
            self.density, lambda: total(self.density.terms(x, progress=progress, **labelled)).mean()
        )
        terms = (self.fused or self.density.terms)(x, progress=progress, **labelled)
        loss = stack(terms).sum(0).mean()
        means = {name: term.detach().mean() for name, term in terms.items()}
        self._check(loss, means)
        self.running = {name: self.running.get(name, 0.0) + mean for name, mean in means.items()}
        self.counted += 1
        return loss

    def _check(self, loss: Tensor, means: dict[str, Tensor]) -> None:
        """Stop at a term that is no number, on all ranks at once."""
        finite, strategy = math.isfinite(loss.item()), self.trainer.strategy
        if self.trainer.world_size > 1:
            finite = strategy.reduce_boolean_decision(finite)
        if finite:
            return
        values = strategy.reduce(torch.stack(list(means.values())), reduce_op="sum").tolist()
        bad = [f"'{name}' is {value}" for name, value in zip(means, values, strict=True) if not math.isfinite(value)]
        raise NotFinite(
            f"Training stopped at step {self.trainer.global_step + 1} of stage '{self.stage.name}': "
            f"the term {', '.join(bad)}."
        )

    def take(self) -> dict[str, float]:
        """The means of the terms since the last call."""
        means = {name: float(value) / self.counted for name, value in self.running.items()}
        self.running, self.counted = {}, 0
        return means

    def stepped(self, index: int) -> bool:
        """Whether an optimiser step ended with this micro-batch."""
        return (index + 1) % self.config.accumulate == 0

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Lightning refuses to clip for a fused optimiser under autocast, which only matters where gradients are scaled."""
        if gradient_clip_val:
            for group in self.groups:
                nn.utils.clip_grad_norm_(group["params"], gradient_clip_val)

    def configure_optimizers(self) -> Any:
        config = self.config
        self.groups = [
            {"params": parameters, "lr": factor * config.learning_rate}
            for factor, parameters in parameter_groups(self.density)
        ]
        fused = self.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(
            self.groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=fused
        )
        warmup = min(config.warmup_steps, self.steps // 10)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda k: learning_rate(k, self.steps, warmup, config.schedule)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Average(WeightAveraging):
    """Lightning's averaged weights with a ramp, so that a short run does not keep its first weights."""

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False)
        self.decay = decay
        self.lists: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """One fused update of all weights after each optimiser step: a quarter of what the averaged model's own costs."""
        if trainer.global_step <= self._latest_update_step:
            return
        if self.lists is None:
            assert self._average_model is not None
            self.lists = list(self._average_model.module.parameters()), list(module.parameters())
        n = self._latest_update_step
        torch._foreach_lerp_(*self.lists, 1 - min(self.decay, (1 + n) / (10 + n)))
        self._latest_update_step = trainer.global_step

    def density(self, module: pl.LightningModule) -> Any:
        """With the averaged weights, and with the buffers as they are now."""
        assert self._average_model is not None
        averaged = self._average_model.module
        for mine, theirs in zip(averaged.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)
        return averaged.density

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The averages become the weights."""
        self.density(module)
        super().on_train_end(trainer, module)


class _Keeper(Callback):
    """Saves the state between two steps: now and then, and when a signal asks to stop."""

    def __init__(
        self,
        kept: Checkpoints,
        batches: Batches,
        spent: Spent,
        best: Best | None,
        *,
        fresh: bool,
        start: nn.Module | None,
    ) -> None:
        self.kept, self.batches, self.spent, self.best = kept, batches, spent, best
        self.fresh, self.start = fresh, start
        self.saved = time.monotonic()
        self.saved_step: int | None = None
        self.signals = Signals(self.left)

    def restore(self, module: _Module, state: dict[str, Any]) -> None:
        """Take up what Lightning does not know of: the next batch, running means, seconds and warnings so far."""
        ours, there = state["diled"], {k: v.shape for k, v in state["state_dict"].items()}
        if there != {k: v.shape for k, v in module.state_dict().items()}:
            raise TrainingError(f"{self.kept.last} does not fit the model in run.json.")
        now = len(self.batches.source)
        if ours["examples"] != now:
            raise TrainingError(f"The data have changed: {ours['examples']:,} training examples then, {now:,} now.")
        self.saved_step = state["global_step"]
        self.batches.start = state["global_step"] * module.config.accumulate
        module.running, module.counted = ours["running"], ours["counted"]
        self.spent.go_on(ours["spent"])
        if self.best is not None:
            vars(self.best).update(ours["best"])

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Each process takes batches of its own; the first one makes room for files."""
        self.batches.rank, self.batches.ranks = trainer.global_rank, trainer.world_size
        if trainer.is_global_zero:
            self.kept.folder.mkdir(parents=True, exist_ok=True)
            if self.fresh:
                self.kept.clear()
                if self.start is not None:
                    self.kept.finish(self.start, 0, self.spent)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Add what `restore` takes up."""
        checkpoint["diled"] = {
            "stage": module.index,
            "examples": len(self.batches.source),
            "best": None if self.best is None else dict(vars(self.best)),
            "running": {name: float(value) for name, value in module.running.items()},
            "counted": module.counted,
            "spent": self.spent.record(),
        }

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Lightning has put a handler of its own before ours, which talks to other processes from within a signal."""
        self.signals.listen()

    def left(self, *, going_on: bool = True) -> str:
        """What there is to go on from, and that it leads to the same where that is why it stopped."""
        if self.saved_step is None:
            return "Nothing had been saved yet."
        kept = f"The state of step {self.saved_step} is kept: diled train --resume {self.kept.run}"
        if not going_on:
            return f"{kept}, which comes to this again unless its cause was outside."
        return f"{kept}."

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save where it is time to, and stop where that was asked for; after the last step `fit` does both."""
        if not module.stepped(batch_idx) or trainer.global_step == module.steps:
            return
        stop, due = self.signals.asked, time.monotonic() - self.saved >= module.config.checkpoint_seconds
        if trainer.world_size > 1:  # all processes save, and stop, at the same step
            stop, due = (trainer.strategy.reduce_boolean_decision(x, all=False) for x in (stop, due))
        if stop or due:
            with self.spent.throughput.apart():
                self.save(trainer, module)
        if stop:
            raise Interrupted(f"Stopped at step {trainer.global_step} of stage '{module.stage.name}'. {self.left()}")

    def save(self, trainer: pl.Trainer, module: Any) -> None:
        """Replace the checkpoint, unless the weights are no numbers any more."""
        check_finite(module, f"step {trainer.global_step} of stage '{module.stage.name}'")
        if trainer.is_global_zero:
            self.kept.write(self.kept.last, trainer.save_checkpoint)
        else:  # takes part, and writes nothing
            trainer.save_checkpoint(self.kept.last)
        self.saved, self.saved_step = time.monotonic(), trainer.global_step


class _Files(TorchCheckpointIO):
    """Writes a checkpoint to where it is wanted. Lightning's own keeps it in memory, twice, and then in the system's folder
    for temporary files, which may be small or on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with Path(path).open("wb") as file:
            torch.save(checkpoint, file)


class _Writer(Callback):
    """Writes the log, reports progress, and warns in words."""

    def __init__(
        self,
        log: Log,
        validation: Tensor,
        average: _Average | None,
        spent: Spent,
        best: Best | None,
        progress: Callable[[str, int, int, float], None] | None,
        say: Callable[[str], None],
    ) -> None:
        self.lines, self.validation, self.average, self.spent, self.best = log, validation, average, spent, best
        self.progress, self.say = progress, say
        self.shown, self.nats = 0.0, math.nan

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Forget the lines after the step that training goes on from."""
        self.spent.throughput.start(compiled=module.config.compile)
        if trainer.is_global_zero:
            self.lines.rewind(module.stage.name, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log, look at validation data, and move the progress bar."""
        self.spent.throughput.stepped(len(batch.x), trainer.world_size)
        if not module.stepped(batch_idx):
            return
        step, last = trainer.global_step, trainer.global_step == module.steps
        if last or step % module.config.log_every == 0:
            terms = module.take()
            self.nats = sum(terms.values())
            rate = self.spent.throughput.since_last()
            speed = {} if rate is None else {"examples_per_second": rate}  # not in log.jsonl, which is reproducible
            self._write(trainer, module, {"loss": self.nats, "terms": terms}, {**terms, **speed})
        if last or step % module.config.monitor_every == 0:
            with self.spent.throughput.apart():
                self._look(trainer, module)
        now = time.monotonic()
        if self.progress is not None and trainer.is_global_zero and (last or now - self.shown > 0.2):
            self.shown = now
            self.progress(module.stage.name, step, module.steps, self.nats)

    def _look(self, trainer: pl.Trainer, module: Any) -> None:
        """Look at held-out examples with the averaged weights, and warn of what looks wrong, once."""
        density = module.density if self.average is None else self.average.density(module)
        reseed(seed_from(module.config.seed, module.index, 2**40))
        with evaluating(density):
            spec = module.inputs.spec
            some = random_rows(self.validation, LOOKED_AT)
            seen = health(density, some, lambda rows: to_space(rows.to(module.device), spec))
            if self.best is not None:
                seed = seed_from(module.config.seed, module.index, 2**42)
                seen.values["bound"] = held_out_bound(density, self.validation, spec, seed)
                self.best.look(trainer.global_step, seen.values["bound"], density)
        self._write(trainer, module, {"validation": seen.values}, seen.values)
        for sign, warning in seen.warnings(trainer.global_step / module.steps).items():
            if sign not in self.spent.warnings:
                self.spent.warnings[sign] = warning
                if trainer.is_global_zero:
                    self.say(warning)

    def choose(self, trainer: pl.Trainer, module: Any) -> None:
        """End the stage on the weights of its best look, where that is wanted, and record which look it was."""
        if self.best is None:
            return
        self.best.restore(module.density)
        self.spent.kept[module.stage.name] = self.best.record()
        self._write(trainer, module, {"kept": self.best.record()}, {})

    def _write(self, trainer: pl.Trainer, module: Any, record: dict[str, Any], values: dict[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        step, stage = trainer.global_step, module.stage.name
        self.lines.write({"stage": stage, "step": step, **record})
        for logger in trainer.loggers:
            logger.log_metrics({f"{stage}/{name}": value for name, value in values.items()}, step=step)


def _trainer(config: TrainingConfig, steps: int, folder: Path, callbacks: list[Callback]) -> pl.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    accelerator = accelerator_of(config)
    many = config.devices * config.nodes > 1
    return pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="gpu" if accelerator == "cuda" else accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy="ddp" if many else "auto",
        precision="bf16-mixed" if precision_of(config) == "bf16" else "32-true",
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip,
        limit_val_batches=0,
        callbacks=callbacks,
        plugins=[_Files()],
        logger=_tensorboard(folder) if config.tensorboard else False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def _tensorboard(folder: Path) -> Any:
    """The logger that writes event files.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError:
        raise ConfigError("--training.tensorboard needs TensorBoard: pip install 'diled[track]'.") from None
