"""Proteins: training against a bare loop, and the time to equal bound against the published network.

    python benchmarks/proteins.py                            # both parts, into results/proteins-speed.json
    python benchmarks/proteins.py --what throughput --trial  # one part, printed only; --limit, --width ... make it shorter

`published` is the network of Liu et al. 2024 under their objective (`published_protein.py`), whose denoiser has 20 layers x
2,048 units. `diled` is that row of the study `gifford`, whose denoiser has 2 blocks x 192 units. CPU-seconds on one thread,
all in turn, every other round in reverse; ratios are taken within a round, and the median over rounds is reported.

throughput   `throughput_ratio`: examples per second of `diled.training.engine.fit`, relative to a plain loop over the same
             modules that does the same work. For `published` the loop has the loss written out.
time         `time_ratio_to_equal_bound`: what `published` needs to reach its best validation bound within --steps steps, over
             what `diled` needs to be as low. Both train in the plain loop; looks at the bound are not counted. The learning
             rate of `published` is the best of four, and the search for it is free: both favour it. The bound of each
             position by itself is recorded too: it tells how low the bound is that is reached.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import copy
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from cost import in_turn, relative
from published_protein import labels_of, published, written_out
from torch import Tensor, nn

from diled.api import Density, evaluating, total
from diled.config import TrainingConfig
from diled.data import Data, open_data
from diled.draws import seeded
from diled.errors import ConfigError
from diled.evaluation.measure import Measured, bounds
from diled.family import model_config
from diled.models.autoencoder import Autoencoder
from diled.models.properties import head_of
from diled.models.recipe import jointly
from diled.models.zoo import build
from diled.runs import RunConfig
from diled.space import raw_tensor, to_space
from diled.studies.commands import exit_code, made_here, record_options, refuse_uncommitted
from diled.studies.records import Record, add
from diled.studies.table import rows
from diled.training.data import Shuffled
from diled.training.engine import fit
from diled.training.stages import learning_rate, prepare

STUDY, BOUND = "proteins-speed", "bound_nats/validation"
BATCH = 128
LEARNING_RATES = (2e-5, 1e-4, 3e-4, 1e-3)
"""Of the published network: the first is its authors', which is slow for few steps."""
WARM_UP = 5
"""Steps that are not timed."""
EXAMPLES, REPEATS = 2_500, 2
"""Validation examples at a look, and draws of each."""

Loss: TypeAlias = Callable[[Any, Tensor, Mapping[str, Tensor], float], Tensor]
"""(model, x, labels, progress) -> what a step minimises."""


def config_of() -> RunConfig:
    """The row `diled` of the study `gifford`."""
    return rows("gifford")["diled"].config()


def ours(data: Data, *, seed: int = 0) -> Autoencoder:
    """The model of that row."""
    config = config_of()
    model = build(config.name, config.model, data.spec, seed).model
    head = head_of(model)
    assert isinstance(model, Autoencoder)
    assert head is not None
    head.fit(labels_of(data))
    return model


def of_terms(model: Any, x: Tensor, labels: Mapping[str, Tensor], progress: float) -> Tensor:
    """The mean over a batch of the sum of a model's terms."""
    return total(model.terms(x, progress=torch.full((), progress), labels=labels)).mean()


class Loop:
    """A plain training loop: fused AdamW, clipped gradients, a learning-rate schedule and averaged weights.

    Args:
        model: what is trained.
        loss: what a step minimises.
        data: whose training examples are seen, epoch after epoch, each in a new order.
        config: of the training.
    """

    def __init__(self, model: Autoencoder, loss: Loss, data: Data, config: TrainingConfig) -> None:
        self.model, self.loss, self.spec, self.config = model.train(), loss, data.spec, config
        self.values, self.labels = raw_tensor(data.train.values), labels_of(data)
        self.averaged = copy.deepcopy(model)
        self.weights, self.averages = (list[Tensor](m.parameters()) for m in (model, self.averaged))
        self.optimizer = torch.optim.AdamW(
            self.weights, config.learning_rate, config.betas, weight_decay=config.weight_decay, fused=True
        )
        warm_up = min(config.warmup_steps, config.steps // 10)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda k: learning_rate(k, config.steps, warm_up, config.schedule)
        )
        self.step, self.order = 0, torch.empty(0, dtype=torch.long)

    def advance(self, steps: int) -> float:
        """Train so many steps more; their CPU-seconds."""
        start = time.process_time()
        for _ in range(steps):
            chosen = self.chosen()
            x, labels = to_space(self.values[chosen], self.spec), {c: y[chosen] for c, y in self.labels.items()}
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
        while len(self.order) < n:
            self.order = torch.cat([self.order, torch.randperm(len(self.values))])
        first, self.order = self.order[:n], self.order[n:]
        return first

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


def each_by_itself(data: Data) -> Measured:
    """The bound of a model in which no position knows of another."""
    (stage,) = build("profile", model_config("profile", {}), data.spec).stages
    prepare(stage, raw_tensor(data.train.values), data.spec, TrainingConfig(), 0)
    return bound_of(stage.density, data)


class Timed(Shuffled):
    """Training examples that note the CPU time whenever a batch is taken."""

    def __init__(self, values: Tensor, labels: Mapping[str, Tensor]) -> None:
        super().__init__(values, labels)
        self.seen: list[float] = []

    def take(self, first: int, n: int, seed: int) -> Tensor:
        """A batch."""
        self.seen.append(time.process_time())
        return super().take(first, n, seed)


def in_engine(model: Autoencoder, data: Data, config: TrainingConfig) -> float:
    """CPU-seconds of a step inside `fit`, without its start and end."""
    source = Timed(raw_tensor(data.train.values), labels_of(data))
    looked_at = raw_tensor(data.validation.values[:100])
    with tempfile.TemporaryDirectory() as folder:
        fit(model, jointly(model).stages, source, looked_at, data.spec, config, Path(folder), say=lambda line: None)
    timed = source.seen[WARM_UP:]
    return (timed[-1] - timed[0]) / (len(timed) - 1)


def in_loop(model: Autoencoder, loss: Loss, data: Data, config: TrainingConfig) -> float:
    """CPU-seconds of a step of the plain loop."""
    loop, steps = Loop(model, loss, data, config), config.steps - WARM_UP
    loop.advance(WARM_UP)
    return loop.advance(steps) / steps


# What is measured ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """How much is measured; a trial takes less (`HELP`)."""

    steps: int = 300
    every: int = 25
    block: int = 20
    rounds: int = 5
    width: int = 2048
    layers: int = 20
    limit: int | None = None


HELP = {
    "every": (1, "steps between two looks at the bound"),
    "block": (2, "timed steps of the published network in a round; of ours ten times as many"),
    "rounds": (1, "of timing"),
    "width": (1, "of the published denoiser"),
    "layers": (2, "of the published denoiser"),
    "limit": (BATCH, "training examples"),
}
"""Field of `Size` -> its least value, and what it is."""
FASTER = 10


@dataclass(frozen=True)
class Figure:
    """What a record says of a number."""

    system: str
    metric: str
    value: float
    stderr: float | None
    n: int | None
    steps: int
    note: str
    parameters: int | None = None
    cpu_seconds: float | None = None


def throughput(data: Data, size: Size, seed: int = 0) -> list[Figure]:
    """Examples per second in the engine, relative to the plain loop, of the published network and of ours."""
    theirs = published(data, width=size.width, layers=size.layers, seed=seed)
    return [
        against_loop("published", theirs, written_out, data, size.block, size.rounds),
        against_loop("diled", ours(data, seed=seed), of_terms, data, FASTER * size.block, size.rounds),
    ]


def against_loop(system: str, model: Autoencoder, loss: Loss, data: Data, steps: int, rounds: int) -> Figure:
    """Time of a step in the plain loop, relative to one in the engine."""
    few = {"batch_size": BATCH, "learning_rate": 1e-4, "monitor_every": 10**6, "checkpoint_seconds": 1e6}
    config = TrainingConfig(steps=WARM_UP + steps, device="cpu", **few)
    runs = {
        "engine": partial(in_engine, model, data, config),
        "loop": partial(in_loop, copy.deepcopy(model), loss, data, config),
    }
    taken = settled(runs, rounds)
    value, stderr, n = relative(taken["loop"], taken["engine"])
    speed = BATCH / sorted(taken["engine"])[n // 2]
    note = f"relative to a plain loop; {BATCH} examples a step, {speed:.0f} examples per CPU-second in the engine"
    return Figure(system, "throughput_ratio", value, stderr, n, steps, note, parameters(model))


def settled(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """`in_turn` after a round that is left out: the first time, memory is asked from the system."""
    return {name: seconds[1:] for name, seconds in in_turn(runs, rounds + 1).items()}


def on_the_way(loop: Loop, data: Data, every: int, until: float = -math.inf) -> list[tuple[int, Measured]]:
    """Steps and bounds of the looks, up to the first at or below `until`, the end, or a bound that is no number."""
    looks: list[tuple[int, Measured]] = []
    with seeded(loop.config.seed, 2):
        while loop.step < loop.config.steps:
            loop.advance(min(every, loop.config.steps - loop.step))
            seen = loop.bound(data)
            looks.append((loop.step, seen))
            if not until < height(seen) < math.inf:
                break
    return looks


def height(seen: Measured) -> float:
    """The bound, infinite where it is no number."""
    return math.inf if seen.value is None or not math.isfinite(seen.value) else seen.value


def best_rate(data: Data, size: Size, seed: int) -> tuple[float, int, Measured]:
    """Learning rate, step and bound of the published network's best look, over all its learning rates."""
    found = []
    for rate in LEARNING_RATES:
        config = TrainingConfig(steps=size.steps, batch_size=BATCH, learning_rate=rate, seed=seed, device="cpu")
        model = published(data, width=size.width, layers=size.layers, seed=seed)
        looks = on_the_way(Loop(model, written_out, data, config), data, size.every)
        step, seen = min(looks, key=lambda look: height(look[1]))
        print(f"published, learning rate {rate:g}: {height(seen):.2f} nats at step {step}", flush=True)
        found.append((rate, step, seen))
    return min(found, key=lambda look: height(look[2]))


def time_to_bound(data: Data, size: Size, seed: int = 0) -> list[Figure]:
    """Time of the published network to its best bound, relative to the time of ours to the same.

    Steps are counted in one training of each, and a step is timed in rounds, side by side.
    """
    rate, far, goal = best_rate(data, size, seed)
    config = config_of().training.model_copy(update={"seed": seed, "device": "cpu"})
    near, reached = on_the_way(Loop(ours(data, seed=seed), of_terms, data, config), data, size.every, height(goal))[-1]
    timed = TrainingConfig(steps=WARM_UP + size.block, batch_size=BATCH, learning_rate=rate, seed=seed, device="cpu")
    mine = config.model_copy(update={"steps": WARM_UP + FASTER * size.block})
    theirs, own = published(data, width=size.width, layers=size.layers, seed=seed), ours(data, seed=seed)
    runs = {
        "published": lambda: far * in_loop(theirs, written_out, data, timed),
        "diled": lambda: near * in_loop(own, of_terms, data, mine),
    }
    taken = settled(runs, size.rounds)
    value, stderr, n = relative(taken["published"], taken["diled"])
    note = (
        f"published, {parameters(theirs):,} parameters: {height(goal):.2f} nats at step {far} of {size.steps}, learning rate "
        f"{rate:g}, the best of {', '.join(f'{r:g}' for r in LEARNING_RATES)} (the search is not counted); "
        f"ours, {parameters(own):,} parameters: {height(reached):.2f} nats at step {near}"
    )
    if height(reached) > height(goal):
        note += "; ours never came as low, so the ratio is an upper limit"
    found = [Figure("diled", "time_ratio_to_equal_bound", value, stderr, n, near, note, parameters(own))]
    alone, spread = (
        each_by_itself(data),
        "spread over examples; noise levels are spread over a batch: the mean is closer",
    )
    found.append(Figure("profile", BOUND, height(alone), alone.stderr, alone.n, 0, "each position by itself"))
    for system, model, steps, seen in (("published", theirs, far, goal), ("diled", own, near, reached)):
        seconds, count = sorted(taken[system])[n // 2], parameters(model)
        found += [
            Figure(system, "cpu_seconds_to_bound", seconds, None, n, steps, "looks not counted", count, seconds),
            Figure(system, BOUND, height(seen), seen.stderr, seen.n, steps, spread, count, seconds),
        ]
    return found


def parameters(model: nn.Module) -> int:
    """How many a model has."""
    return sum(p.numel() for p in model.parameters())


# The command ---------------------------------------------------------------------------------------------------------

PARTS = {"throughput": throughput, "time": time_to_bound}


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--what", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Size.steps, help="of the published network, to its bound")
    record_options(parser)
    trial = parser.add_argument_group("for a trial")
    for key, (_, words) in HELP.items():
        trial.add_argument(f"--{key}", type=int, default=getattr(Size, key), help=words)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    return exit_code(lambda: _run(chosen), "proteins")


def _run(chosen: argparse.Namespace) -> None:
    size = Size(**{key: getattr(chosen, key) for key in asdict(Size())})
    for key, least in {"steps": 1, **{key: least for key, (least, _) in HELP.items()}}.items():
        value = getattr(size, key)
        if value is not None and value < least:
            raise ConfigError(f"--{key} is {value}: give at least {least}.")
    if not chosen.trial:
        if size != Size(steps=size.steps):
            raise ConfigError("Results are recorded at full size only: add --trial, or leave the sizes as they are.")
        refuse_uncommitted()
    config = config_of()
    data = open_data(config.data, config.preprocess.model_copy(update={"limit": size.limit}))
    command = f"python benchmarks/proteins.py --seed {chosen.seed} --steps {size.steps} --what"
    for part in chosen.what:
        shared: dict[str, Any] = {"study": STUDY, "data": data.name, "seed": chosen.seed, "train_seconds": None}
        shared |= made_here() | {"command": f"{command} {part}"}
        records = [Record(**shared, **asdict(figure)) for figure in PARTS[part](data, size, chosen.seed)]
        for r in records:
            spread = "" if r.stderr is None else f" ± {r.stderr:.3f}"
            print(f"{r.system}: {r.metric} {r.value:.3f}{spread} ({r.note})", flush=True)
        if not chosen.trial:
            add(chosen.results / f"{STUDY}.json", records)


if __name__ == "__main__":
    sys.exit(main())
