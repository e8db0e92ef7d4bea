"""A plain training loop, the engine timed step by step, and what the benchmarks that compare the two record.

    throughput_ratio = CPU-seconds of a step in the loop / CPU-seconds of a step in `diled.training.engine.fit`

Both see the same batches of the same examples and do the same work. They take turns, and ratios are taken within a round.
"""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from cost import in_turn, relative
from torch import Tensor, nn

from diled.api import Density, computed_in, evaluating, total
from diled.config import TrainingConfig
from diled.data import Data
from diled.draws import seed_from
from diled.evaluation.measure import Measured, bounds
from diled.models.autoencoder import Autoencoder
from diled.models.recipe import jointly
from diled.pools import source_for
from diled.runs import resolve
from diled.space import raw_tensor, to_space
from diled.studies.commands import made_here
from diled.studies.records import Record, add
from diled.training.data import Shuffled
from diled.training.engine import fit
from diled.training.stages import learning_rate

__all__ = [
    "WARM_UP",
    "Figure",
    "Loop",
    "Loss",
    "Timed",
    "bound_of",
    "examples",
    "in_engine",
    "in_loop",
    "of_terms",
    "parameters",
    "report",
    "settled",
    "throughput_ratio",
    "undisturbed",
]

WARM_UP = 5
"""Steps that are not timed."""
EXAMPLES, REPEATS = 2_500, 2
"""Validation examples at a look, and draws of each."""

Loss: TypeAlias = Callable[[Any, Tensor, Mapping[str, Tensor], float], Tensor]
"""(model, x, labels, progress) -> what a step minimises."""


def of_terms(model: Any, x: Tensor, labels: Mapping[str, Tensor], progress: float) -> Tensor:
    """The mean over a batch of the sum of a model's terms."""
    return total(model.terms(x, progress=torch.full((), progress), labels=labels)).mean()


def examples(model: Autoencoder, data: Data, config: TrainingConfig) -> Shuffled:
    """Training examples as a run takes them: with the labels that the model learns, texts in batches of similar length."""
    run = resolve(data.name).model_copy(update={"training": config})
    source = source_for(run, data, columns=model.columns)
    assert isinstance(source, Shuffled)
    return source


class Loop:
    """A plain training loop: fused AdamW, clipped gradients, a learning-rate schedule and averaged weights.

    Args:
        model: what is trained.
        loss: what a step minimises.
        data: whose training examples are seen, epoch after epoch, in the order of the engine's first stage.
        config: of the training.
    """

    def __init__(self, model: Autoencoder, loss: Loss, data: Data, config: TrainingConfig) -> None:
        self.model, self.loss, self.spec, self.config = model.train(), loss, data.spec, config
        self.source, self.seed = examples(model, data, config), seed_from(config.seed, 0)
        self.averaged = copy.deepcopy(model)
        self.weights, self.averages = (list[Tensor](m.parameters()) for m in (model, self.averaged))
        self.optimizer = torch.optim.AdamW(
            self.weights, config.learning_rate, config.betas, weight_decay=config.weight_decay, fused=True
        )
        warm_up = min(config.warmup_steps, config.steps // 10)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda k: learning_rate(k, config.steps, warm_up, config.schedule)
        )
        self.step, self.seen = 0, 0

    def advance(self, steps: int) -> float:
        """Train so many steps more; their CPU-seconds."""
        start = time.process_time()
        for _ in range(steps):
            chosen = self.chosen()
            x = to_space(self.source.values[chosen], self.spec)
            labels = {column: y[chosen] for column, y in self.source.labels.items()}
            with torch.autocast("cpu", torch.bfloat16, enabled=computed_in(self.config.precision, "cpu") == "bf16"):
                loss = self.loss(self.model, x, labels, min(1.0, self.step / self.config.steps))
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.weights, self.config.clip or math.inf)
            self.optimizer.step()
            self.schedule.step()
            share = 1 - min(self.config.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(self.averages, self.weights, share)
            self.step += 1
        return time.process_time() - start

    def chosen(self) -> Tensor:
        """Rows of the next batch."""
        n = self.config.batch_size
        first, self.seen = self.seen, self.seen + n
        return self.source.rows(first, n, self.seed)

    def bound(self, data: Data) -> Measured:
        """The bound of the averaged weights on validation examples, by the same draws at every look."""
        for mine, theirs in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)
        return bound_of(self.averaged, data)


def bound_of(model: Density, data: Data) -> Measured:
    """The bound on validation examples, the same ones for all models, each drawn equally often."""
    few = data.validation.subset(np.arange(min(EXAMPLES, len(data.validation))))
    with evaluating(model):
        return bounds(model, few, data.spec, repeats=REPEATS)["bound_nats"]


class Timed(Shuffled):
    """Training examples that note the CPU time whenever a batch is taken.

    Args:
        source: the examples.
    """

    def __init__(self, source: Shuffled) -> None:
        super().__init__(source.values, source.labels, batch=source.batch)
        self.seen: list[float] = []

    def take(self, first: int, n: int, seed: int) -> Tensor:
        """A batch."""
        self.seen.append(time.process_time())
        return super().take(first, n, seed)


def in_engine(model: Autoencoder, data: Data, config: TrainingConfig) -> float:
    """CPU-seconds of a step inside `fit`, without its start and end."""
    source, looked_at = Timed(examples(model, data, config)), raw_tensor(data.validation.values[:100])
    with tempfile.TemporaryDirectory() as folder:
        fit(model, jointly(model).stages, source, looked_at, data.spec, config, Path(folder), say=lambda line: None)
    timed = source.seen[WARM_UP:]
    return (timed[-1] - timed[0]) / (len(timed) - 1)


def in_loop(model: Autoencoder, loss: Loss, data: Data, config: TrainingConfig) -> float:
    """CPU-seconds of a step of the plain loop."""
    loop, steps = Loop(model, loss, data, config), config.steps - WARM_UP
    loop.advance(WARM_UP)
    return loop.advance(steps) / steps


def undisturbed(config: TrainingConfig, steps: int) -> TrainingConfig:
    """The same training in so many timed steps on the processor, without looks and checkpoints on the way."""
    return config.model_copy(
        update={"steps": WARM_UP + steps, "device": "cpu", "monitor_every": 10**6, "checkpoint_seconds": 1e6}
    )


def settled(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """`in_turn` after a round that is left out: the first time, memory is asked from the system."""
    return {name: seconds[1:] for name, seconds in in_turn(runs, rounds + 1).items()}


# Figures -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """What a record says of a number."""

    system: str
    metric: str
    value: float
    stderr: float | None
    n: int | None
    steps: int | None
    note: str
    parameters: int | None = None
    cpu_seconds: float | None = None


def throughput_ratio(system: str, model: nn.Module, config: TrainingConfig, taken: Mapping[str, list[float]]) -> Figure:
    """Examples per second in the engine relative to the plain loop, from the seconds of a step of `engine` and `loop`."""
    value, stderr, n = relative(taken["loop"], taken["engine"])
    batch, steps = config.batch_size, config.steps - WARM_UP
    speed = batch / sorted(taken["engine"])[n // 2]
    note = f"relative to a plain loop; {batch} examples a step, {speed:.0f} examples per CPU-second in the engine"
    return Figure(system, "throughput_ratio", value, stderr, n, steps, note, parameters(model))


def parameters(model: nn.Module) -> int:
    """How many a model has."""
    return sum(p.numel() for p in model.parameters())


def report(
    study: str, data: str, figures: Iterable[Figure], *, seed: int, command: str, results: Path | None = None
) -> None:
    """Print figures, and record them where there is a folder for results."""
    shared: dict[str, Any] = {"study": study, "data": data, "seed": seed, "train_seconds": None}
    shared |= made_here() | {"command": command}
    records = [Record(**shared, **asdict(figure)) for figure in figures]
    for r in records:
        spread = "" if r.stderr is None else f" ± {r.stderr:.3f}"
        print(f"{r.system}: {r.metric} {r.value:.3f}{spread} ({r.note})", flush=True)
    if results is not None:
        add(results / f"{study}.json", records)
