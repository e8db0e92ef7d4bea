"""Training through Lightning's Trainer. The only file that imports the training engine.

One stage is one fit: a new optimiser, frozen parts in evaluation mode, and at its end the averaged weights. Order of the
data, noise and times are functions of (seed, stage, micro-step, rank), and state is saved between two steps only, so a
resumed training ends on the same weights as an uninterrupted one, bit for bit on CPU.

What is written into the run's folder while training:

    log.jsonl                     one line every `log_every` steps, and one for each look at the validation data
    checkpoints/last.ckpt         the running stage: weights, averages, optimiser; replaced atomically
    checkpoints/stages.json       how many stages are finished
    checkpoints/model.safetensors the weights after the last finished stage
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diled.api import Stage, stack
from diled.config import DataSpec, TrainingConfig
from diled.draws import reseed, seed_from
from diled.errors import TrainingError
from diled.space import to_space
from diled.training.data import Batches
from diled.training.monitors import Monitor, health

__all__ = ["Interrupted", "fit", "learning_rate"]


class Interrupted(TrainingError):
    """Training was stopped by Ctrl-C or a termination signal; its state is saved."""


def fit(
    model: nn.Module,
    stages: list[Stage],
    values: Tensor,
    validation: Tensor,
    spec: DataSpec,
    config: TrainingConfig,
    folder: Path,
    *,
    resume: bool = False,
    progress: Callable[[str, int, int, float], None] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train `model` through its stages; afterwards it holds the averaged weights.

    Args:
        model: the module whose weights are kept between stages.
        stages: in order; their shares of `config.steps` are normalised.
        values: raw training examples (N, *spec.shape).
        validation: raw held-out examples, for the monitors.
        spec: how raw values become model space.
        config: the recipe.
        folder: of the run.
        resume: go on from the folder's checkpoint where there is one.
        progress: called as (stage, step, steps, nats) a few times a second.
        say: prints warnings of the monitors.

    Returns:
        `seconds`, `cpu_seconds`, `steps` and the warnings that were raised.

    Raises:
        TrainingError: a term is NaN or infinite (named; the last good checkpoint stays), or the disk is full.
        Interrupted: on SIGINT or SIGTERM, after the state was saved.
    """
    checkpoints = folder / "checkpoints"
    done = _finished(checkpoints) if resume else 0
    if not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
        (folder / "log.jsonl").unlink(missing_ok=True)
    checkpoints.mkdir(parents=True, exist_ok=True)
    if done:
        model.load_state_dict(load_file(checkpoints / "model.safetensors"))
    wall, cpu, spoken = time.perf_counter(), time.process_time(), []
    shares = sum(stage.share for stage in stages)
    for index, stage in enumerate(stages):
        if index < done:
            continue
        steps = max(1, round(config.steps * stage.share / shares))
        last = checkpoints / "last.ckpt"
        if stage.prepare is not None and not last.exists():
            _prepare(stage, values, spec, config, index)
        module = _Module(stage, index, steps, spec, config)
        batches = Batches(
            values,
            config.batch_size,
            seed=seed_from(config.seed, index),
            rank=int(os.environ.get("RANK", 0)) if config.devices * config.nodes > 1 else 0,
            ranks=config.devices * config.nodes,
        )
        module.batches = batches
        keeper = _Keeper(last, config.checkpoint_seconds)
        writer = _Writer(folder / "log.jsonl", stage.name, index, progress, say, spoken)
        with _frozen(stage), _signals(keeper):
            trainer = _trainer(module, config, folder, [keeper, writer])
            trainer.fit(
                module,
                batches,
                torch.utils.data.DataLoader([validation[:1000]], batch_size=None),  # type: ignore[arg-type]
                ckpt_path=str(last) if last.exists() else None,
                weights_only=True,
            )
        _save_stage(model, checkpoints, index + 1)
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "steps": config.steps,
        "warnings": spoken,
    }


class _Module(pl.LightningModule):
    """One stage as Lightning sees it."""

    def __init__(self, stage: Stage, index: int, steps: int, spec: DataSpec, config: TrainingConfig) -> None:
        super().__init__()
        self.density = stage.density
        self.stage, self.index, self.steps, self.spec, self.config = stage, index, steps, spec, config
        self.batches: Batches | None = None
        self.running: Tensor | None = None
        self.counted = 0
        self.names: list[str] = []
        self.monitor: Monitor | None = None

    def setup(self, stage: str) -> None:
        if self.batches is not None:
            self.batches.rank = self.trainer.global_rank

    def training_step(self, raw: Tensor, index: int) -> Tensor:
        micro = self.trainer.global_step * self.config.accumulate + index % self.config.accumulate
        reseed(seed_from(self.config.seed, self.index, micro, self.trainer.global_rank))
        x = to_space(raw, self.spec)
        progress = torch.full((), self.trainer.global_step / self.steps, device=x.device)
        terms = self.density.terms(x, progress=progress)
        stacked = stack(terms)
        loss = stacked.sum(0).mean()
        if not self._finite(loss):
            self._refuse(dict(zip(terms, stacked.detach().mean(1).tolist(), strict=True)))
        self.names = list(terms)
        means = stacked.detach().mean(1)
        self.running = means if self.running is None else self.running + means
        self.counted += 1
        return loss

    def _finite(self, loss: Tensor) -> bool:
        return math.isfinite(loss.item())

    def _refuse(self, means: dict[str, float]) -> None:
        bad = ", ".join(f"'{name}' is {value}" for name, value in means.items() if not math.isfinite(value))
        raise TrainingError(
            f"Training stopped at step {self.trainer.global_step} of stage '{self.stage.name}': the term {bad}. "
            "The last good checkpoint is kept. Try a lower --training.learning_rate, or --training.clip."
        )

    def take(self) -> dict[str, float]:
        """The means of the terms since the last call."""
        if self.running is None:
            return {}
        values = (self.running / self.counted).tolist()
        self.running, self.counted = None, 0
        return dict(zip(self.names, values, strict=True))

    def validation_step(self, raw: Tensor, index: int) -> None:
        reseed(seed_from(self.config.seed, self.index, 2**40))
        self.monitor = health(self.density, to_space(raw, self.spec, draw=False))

    def configure_optimizers(self) -> Any:
        config, parameters = self.config, [p for p in self.density.parameters() if p.requires_grad]
        fused = self.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(
            parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=fused
        )
        warmup = min(config.warmup_steps, self.steps // 10)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: learning_rate(k, self.steps, warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.batches is not None:
            self.batches.start = checkpoint["global_step"] * self.config.accumulate


def learning_rate(step: int, steps: int, warmup: int) -> float:
    """The factor of the peak learning rate: a linear ramp over `warmup` steps, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


class _Average(WeightAveraging):
    """Lightning's averaged weights with a ramp, so that a short run does not keep its first weights."""

    def __init__(self, decay: float) -> None:
        def update(averaged: list[Tensor], current: list[Tensor], n: Tensor | int) -> None:
            k = float(n)
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + k) / (10 + k)))

        super().__init__(multi_avg_fn=update, use_buffers=False)


class _Keeper(Callback):
    """Saves the state between two steps: now and then, and when a signal asks to stop."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds, self.last = path, seconds, time.monotonic()
        self.signal: int | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if not self.signal and time.monotonic() - self.last < self.seconds and trainer.world_size == 1:
            return
        due = self.signal is not None, time.monotonic() - self.last >= self.seconds
        if trainer.world_size > 1:  # all ranks must save, and stop, at the same step
            due = tuple(bool(x) for x in trainer.strategy.broadcast(due, 0))  # type: ignore[assignment]
        stop, save = due
        if stop or save:
            save_checkpoint(trainer, self.path)
            self.last = time.monotonic()
        if stop:
            raise Interrupted(
                f"Stopped at step {trainer.global_step} of stage '{module.stage.name}'. The state is saved."
            )


def save_checkpoint(trainer: pl.Trainer, path: Path) -> None:
    """Write the trainer's state beside the old one, then replace it.

    Raises:
        TrainingError: the disk is full; the old checkpoint stays.
    """
    partial = path.with_suffix(".partial")
    try:
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        kept = f" The previous one is kept: {path}." if path.exists() else ""
        raise TrainingError(f"Could not save a checkpoint to {path.parent} ({error}).{kept}") from None


class _Writer(Callback):
    """Writes the log, reports progress, and warns in words."""

    def __init__(
        self,
        path: Path,
        stage: str,
        index: int,
        progress: Callable[[str, int, int, float], None] | None,
        say: Callable[[str], None],
        spoken: list[str],
    ) -> None:
        self.path, self.stage, self.index = path, stage, index
        self.progress, self.say, self.spoken = progress, say, spoken
        self.shown = 0.0
        self.nats = math.nan

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Forget the lines after the step that training goes on from."""
        if trainer.is_global_zero and self.path.exists():
            lines = [json.loads(line) for line in self.path.read_text().splitlines()]
            kept = [x for x in lines if x["stage"] != self.stage or x["step"] <= trainer.global_step]
            self.path.write_text("".join(json.dumps(x) + "\n" for x in kept))

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        step = trainer.global_step
        if step % module.config.log_every == 0 and module.counted >= module.config.accumulate:
            terms = module.take()
            self.nats = sum(terms.values())
            self._write(trainer, {"stage": self.stage, "step": step, "loss": self.nats, "terms": terms})
        now = time.monotonic()
        if self.progress is not None and trainer.is_global_zero and (now - self.shown > 0.2 or step == module.steps):
            self.shown = now
            self.progress(self.stage, step, module.steps, self.nats)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        if module.monitor is None or trainer.sanity_checking:
            return
        self._write(trainer, {"stage": self.stage, "step": trainer.global_step, "validation": module.monitor.values})
        for warning in module.monitor.warnings(trainer.global_step / module.steps):
            if warning not in self.spoken:
                self.spoken.append(warning)
                if trainer.is_global_zero:
                    self.say(warning)

    def _write(self, trainer: pl.Trainer, record: dict[str, Any]) -> None:
        if not trainer.is_global_zero:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        for logger in trainer.loggers:
            values = record.get("terms") or record.get("validation") or {}
            logger.log_metrics({f"{self.stage}/{k}": v for k, v in values.items()}, step=record["step"])


def _trainer(module: _Module, config: TrainingConfig, folder: Path, callbacks: list[Callback]) -> pl.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    if config.ema:
        callbacks = [_Average(config.ema), *callbacks]
    accelerator = config.device
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    logger: Any = False
    if config.tensorboard:
        from lightning.pytorch.loggers import TensorBoardLogger

        logger = TensorBoardLogger(folder, name="tensorboard", version="")
    many = config.devices * config.nodes > 1
    return pl.Trainer(
        max_steps=module.steps,
        max_epochs=-1,
        accelerator="gpu" if accelerator == "cuda" else accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy="ddp" if many else "auto",
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip,
        val_check_interval=config.monitor_every * config.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        limit_val_batches=1,
        callbacks=callbacks,
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


@contextmanager
def _frozen(stage: Stage) -> Iterator[None]:
    """Frozen modules get no gradient and are in evaluation mode, the others train; afterwards all may be trained again."""
    stage.density.train()
    frozen = [p for module in stage.frozen for p in module.parameters() if p.requires_grad]
    for module in stage.frozen:
        module.eval()
    for p in frozen:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in frozen:
            p.requires_grad_(True)
        stage.density.eval()


@contextmanager
def _signals(keeper: _Keeper) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop training after the step in progress; a second SIGINT stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if keeper.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        keeper.signal = number

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _prepare(stage: Stage, values: Tensor, spec: DataSpec, config: TrainingConfig, index: int) -> None:
    """Call the stage's `prepare` with up to 10,000 training examples, on the CPU, with a seed of its own."""
    assert stage.prepare is not None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        reseed(seed_from(config.seed, index, 2**41))
        rows = torch.randperm(len(values))[:10_000]
        stage.density.eval()
        stage.prepare(to_space(values[rows], spec))


def _finished(checkpoints: Path) -> int:
    try:
        return int(json.loads((checkpoints / "stages.json").read_text())["finished"])
    except (OSError, ValueError, KeyError):
        return 0


def _save_stage(model: nn.Module, checkpoints: Path, finished: int) -> None:
    """Keep the weights after a stage; then the stage's running state is no longer needed."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    partial = checkpoints / "model.partial"
    save_file(state, partial)
    os.replace(partial, checkpoints / "model.safetensors")
    record = checkpoints / "stages.partial"
    record.write_text(json.dumps({"finished": finished}))
    os.replace(record, checkpoints / "stages.json")
    (checkpoints / "last.ckpt").unlink(missing_ok=True)
