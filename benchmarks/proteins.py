"""Proteins: training against a bare loop, and the time to equal bound against the published denoiser.

    python benchmarks/proteins.py                            # both parts, into results/proteins-speed.json
    python benchmarks/proteins.py --what throughput --trial  # one part, printed only; --limit, --width ... make it shorter

`published` is the network of Liu et al. 2024 under their objective (`published_protein.py`), whose denoiser has 20 layers x
2,048 units. `diled` is that row of the study `gifford`, whose denoiser has 2 blocks x 192 units, and `diled/published-denoiser`
the same model with the published denoiser. CPU-seconds on one thread, all in turn, every other round in reverse; ratios are
taken within a round, and the median over rounds is reported.

throughput   `throughput_ratio`: examples per second of `diled.training.engine.fit`, relative to a plain loop over the same
             modules that does the same work. For `published` the loop has the loss written out.
time         `time_ratio_to_equal_bound`: what `diled/published-denoiser` needs to reach its best validation bound within
             --steps steps, over what `diled` needs to be as low: one objective, two denoisers. That objective is the bound
             itself (and the property): where the rate has a small weight, as in the row, the bound is lowest before anything
             is learnt. Both train in the plain loop; looks at the bound are not counted. The published denoiser sees one
             noise level of a code, not four, since it takes most of a step; its learning rate is the best of four, and the
             search for it is free: all favour it. The bound of each position by itself is recorded too: it tells how low
             the bound is that is reached.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import copy
import math
import sys
from dataclasses import asdict, dataclass
from functools import partial

import torch
from cost import relative
from loops import (
    WARM_UP,
    Figure,
    Loop,
    Loss,
    bound_of,
    in_engine,
    in_loop,
    of_terms,
    parameters,
    report,
    settled,
    throughput_ratio,
    undisturbed,
)
from published_protein import SkipMLP, labels_of, published, written_out

from diled.config import TrainingConfig
from diled.data import Data, open_data
from diled.diffusion import Diffusion
from diled.draws import seeded
from diled.errors import ConfigError
from diled.evaluation.measure import Measured
from diled.family import model_config
from diled.models.autoencoder import Autoencoder
from diled.models.properties import head_of
from diled.models.zoo import build
from diled.runs import RunConfig
from diled.space import raw_tensor
from diled.studies.commands import exit_code, record_options, refuse_uncommitted
from diled.studies.table import rows
from diled.training.stages import prepare

STUDY, BOUND = "proteins-speed", "bound_nats/validation"
BATCH = 128
LARGE = "diled/published-denoiser"
LEARNING_RATES = (2e-5, 1e-4, 3e-4, 1e-3)
"""Of the published denoiser: the first is its authors', which is slow for few steps."""


BY_BOUND = {"model.rate_weight": 1.0, "model.rate_warmup": 0.0}
"""What the row minimises otherwise where the time to a bound is measured."""


def config_of(*, by_bound: bool = False) -> RunConfig:
    """The row `diled` of the study `gifford`, which minimises the bound itself if `by_bound`."""
    return rows("gifford")["diled"].config(BY_BOUND if by_bound else None)


def ours(data: Data, *, seed: int = 0, by_bound: bool = False) -> Autoencoder:
    """The model of that row."""
    config = config_of(by_bound=by_bound)
    model = build(config.name, config.model, data.spec, seed).model
    head = head_of(model)
    assert isinstance(model, Autoencoder)
    assert head is not None
    head.fit(labels_of(data))
    return model


def ours_with_theirs(data: Data, *, width: int = 2048, layers: int = 20, seed: int = 0) -> Autoencoder:
    """The same model with the published denoiser, at one noise level of each code; it minimises the bound."""
    model = ours(data, seed=seed, by_bound=True)
    prior = model.prior
    assert isinstance(prior, Diffusion)
    with seeded(seed, 1):
        prior.denoiser.network = SkipMLP(prior.shape[0], width, layers)
    prior.times_per_code = 1
    return model


def each_by_itself(data: Data) -> Measured:
    """The bound of a model in which no position knows of another."""
    (stage,) = build("profile", model_config("profile", {}), data.spec).stages
    prepare(stage, raw_tensor(data.train.values), data.spec, TrainingConfig(), 0)
    return bound_of(stage.density, data)


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


def throughput(data: Data, size: Size, seed: int = 0) -> list[Figure]:
    """Examples per second in the engine, relative to the plain loop, of the published network and of ours."""
    theirs = published(data, width=size.width, layers=size.layers, seed=seed)
    return [
        against_loop("published", theirs, written_out, data, size.block, size.rounds),
        against_loop("diled", ours(data, seed=seed), of_terms, data, FASTER * size.block, size.rounds),
    ]


def against_loop(system: str, model: Autoencoder, loss: Loss, data: Data, steps: int, rounds: int) -> Figure:
    """Time of a step in the plain loop, relative to one in the engine."""
    config = undisturbed(TrainingConfig(batch_size=BATCH, learning_rate=1e-4), steps)
    runs = {
        "engine": partial(in_engine, model, data, config),
        "loop": partial(in_loop, copy.deepcopy(model), loss, data, config),
    }
    return throughput_ratio(system, model, config, settled(runs, rounds))


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


def training(rate: float, steps: int, seed: int) -> TrainingConfig:
    """That of the row `diled`, at another learning rate in so many steps."""
    changes = {"learning_rate": rate, "steps": steps, "seed": seed, "device": "cpu"}
    return config_of().training.model_copy(update=changes)


def best_rate(data: Data, size: Size, seed: int) -> tuple[float, int, Measured]:
    """Learning rate, step and bound of the best look with the published denoiser, over all learning rates."""
    found = []
    for rate in LEARNING_RATES:
        model = ours_with_theirs(data, width=size.width, layers=size.layers, seed=seed)
        looks = on_the_way(Loop(model, of_terms, data, training(rate, size.steps, seed)), data, size.every)
        step, seen = min(looks, key=lambda look: height(look[1]))
        print(f"{LARGE}, learning rate {rate:g}: {height(seen):.2f} nats at step {step}", flush=True)
        found.append((rate, step, seen))
    return min(found, key=lambda look: height(look[2]))


def time_to_bound(data: Data, size: Size, seed: int = 0) -> list[Figure]:
    """Time with the published denoiser to its best bound, relative to the time with ours to the same.

    Steps are counted in one training of each, and a step is timed in rounds, side by side.
    """
    rate, far, goal = best_rate(data, size, seed)
    own_training = config_of().training
    whole = training(own_training.learning_rate, own_training.steps, seed)
    trained = ours(data, seed=seed, by_bound=True)
    near, reached = on_the_way(Loop(trained, of_terms, data, whole), data, size.every, height(goal))[-1]
    timed = training(rate, WARM_UP + size.block, seed)
    mine = training(own_training.learning_rate, WARM_UP + FASTER * size.block, seed)
    theirs = ours_with_theirs(data, width=size.width, layers=size.layers, seed=seed)
    own = ours(data, seed=seed, by_bound=True)
    runs = {
        LARGE: lambda: far * in_loop(theirs, of_terms, data, timed),
        "diled": lambda: near * in_loop(own, of_terms, data, mine),
    }
    taken = settled(runs, size.rounds)
    value, stderr, n = relative(taken[LARGE], taken["diled"])
    note = (
        f"published denoiser, {parameters(theirs):,} parameters in all: {height(goal):.2f} nats at step {far} of {size.steps}, "
        f"learning rate {rate:g}, the best of {', '.join(f'{r:g}' for r in LEARNING_RATES)} (the search is not counted); "
        f"ours, {parameters(own):,} parameters: {height(reached):.2f} nats at step {near}"
    )
    if height(reached) > height(goal):
        note += "; ours never came as low, so the ratio is an upper limit"
    found = [Figure("diled", "time_ratio_to_equal_bound", value, stderr, n, near, note, parameters(own))]
    alone = each_by_itself(data)
    spread = "spread over examples; noise levels are spread over a batch: the mean is closer"
    found.append(Figure("profile", BOUND, height(alone), alone.stderr, alone.n, 0, "each position by itself"))
    for system, model, steps, seen in ((LARGE, theirs, far, goal), ("diled", own, near, reached)):
        seconds, count = sorted(taken[system])[n // 2], parameters(model)
        found += [
            Figure(system, "cpu_seconds_to_bound", seconds, None, n, steps, "looks not counted", count, seconds),
            Figure(system, BOUND, height(seen), seen.stderr, seen.n, steps, spread, count, seconds),
        ]
    return found


# The command ---------------------------------------------------------------------------------------------------------

PARTS = {"throughput": throughput, "time": time_to_bound}


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--what", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Size.steps, help="with the published denoiser, to its bound")
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
        figures = PARTS[part](data, size, chosen.seed)
        results = None if chosen.trial else chosen.results
        report(STUDY, data.name, figures, seed=chosen.seed, command=f"{command} {part}", results=results)


if __name__ == "__main__":
    sys.exit(main())
