"""Trainings with stacked weights against the same trainings one after the other: seconds of a member's step.

    python benchmarks/stacked.py                 # into results/stacked.json
    python benchmarks/stacked.py --trial         # printed and not recorded

A VAE of MNIST's shape (784-256-256-16, batches of 128, random pictures: speed does not depend on them) is trained as 1, 4
and 16 members, once by `fit_stacked`, and once by as many loops, each of which does in plain PyTorch what the engine does
in a step, without Lightning and without averaged weights. Both take turns in one process, first in every other round; the
ratio of seconds for a member's step, loops to stacked, is taken within a round, and the median is reported: above 1 stacked
training is faster.

On a GPU a network of this size waits for the next kernel, and M members take as many kernels as one, so the gain should grow
with M until the GPU is full. On a CPU the same products are computed either way: expect little, or a loss.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from diled.api import Stage
from diled.config import DataSpec, TrainingConfig
from diled.family import model_config
from diled.models.zoo import build
from diled.studies.commands import exit_code, made_here, record_options, refuse_uncommitted, training_of
from diled.studies.records import Record, add
from diled.training.budget import ENGINE, seconds_per_step
from diled.training.stacked import fit_stacked

SPEC = DataSpec(kind="image", shape=(1, 28, 28), levels=2, binarize="dynamic")
MEMBERS = (1, 4, 16)
WARM_UP = 10
"""Steps of stacked training that are not measured: `torch.compile` works in the first of them."""


def members(m: int) -> list[list[Stage]]:
    """The stages of VAEs that differ in their first weights."""
    network = {"kind": "mlp", "width": 256, "depth": 2}
    return [
        build("vae", model_config("vae", {"latent_dim": 16, "network": network}), SPEC, seed=i).stages for i in range(m)
    ]


def waited(device: str) -> float:
    """The time, when the device has done all that it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def stacked(m: int, values: torch.Tensor, config: TrainingConfig) -> float:
    """Seconds of one step of one member among m, without the start."""
    marks: list[float] = []
    config = config.model_copy(update={"steps": config.steps + WARM_UP, "log_every": WARM_UP})
    tick: Callable[[Any], None] = lambda entry: marks.append(waited(config.device))  # noqa: E731
    fit_stacked(members(m), [values] * m, SPEC, config, range(m), progress=tick)
    return (marks[-1] - marks[0]) / ((config.steps - WARM_UP) * m)


def loops(m: int, values: torch.Tensor, config: TrainingConfig) -> float:
    """Mean seconds of one step of m loops, one after the other; averages are left out, in favour of the loops."""
    each = [seconds_per_step(stage, values, SPEC, config, steps=config.steps) for (stage,) in members(m)]
    return statistics.mean(each) - ENGINE * config.accumulate


def measured(device: str, steps: int, rounds: int, *, compiled: bool) -> list[tuple[str, float, float | None]]:
    """Metric, median and standard error, for each number of members."""
    values = torch.randint(0, 256, (5_000, *SPEC.shape), dtype=torch.uint8)
    config, found = TrainingConfig(steps=steps, device=device), list[tuple[str, float, float | None]]()  # type: ignore[arg-type]
    fused = config.model_copy(update={"compile": compiled})
    for m in MEMBERS:
        runs = (partial(loops, m, values, config), partial(stacked, m, values, fused))
        taken: list[list[float]] = [[], []]
        for turn in range(rounds):
            for i in (0, 1)[:: -1 if turn % 2 else 1]:
                taken[i].append(runs[i]())
        ratios = [a / b for a, b in zip(*taken, strict=True)]
        error = statistics.stdev(ratios) / rounds**0.5 if rounds > 1 else None
        found.append((f"speed_ratio/members={m}", statistics.median(ratios), error))
        found.append((f"member_steps_per_second/members={m}", 1 / statistics.median(taken[1]), None))
        found.append((f"member_steps_per_second/loops={m}", 1 / statistics.median(taken[0]), None))
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=50, help="of each member in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="stacked training with torch.compile")
    record_options(parser)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    return exit_code(lambda: _run(chosen), "stacked")


def _run(chosen: argparse.Namespace) -> None:
    if not chosen.trial:
        refuse_uncommitted()
    command = f"python benchmarks/stacked.py --device {chosen.device} --steps {chosen.steps} --rounds {chosen.rounds}"
    command += " --compiled" if chosen.compiled else ""
    found = measured(chosen.device, chosen.steps, chosen.rounds, compiled=chosen.compiled)
    for metric, value, error in found:
        print(f"{metric} {value:.3f}{'' if error is None else f' ± {error:.3f}'}", flush=True)
    if chosen.trial:
        return
    system, note = (
        "vae" + ("/compiled" if chosen.compiled else ""),
        f"on {chosen.device}; loops to stacked, by member's step",
    )
    shared = training_of({}) | made_here() | {"seed": 0, "command": command, "n": chosen.rounds, "note": note}
    records = [
        Record(study="stacked", data="mnist", system=system, metric=metric, value=value, stderr=error, **shared)
        for metric, value, error in found
    ]
    add(chosen.results / "stacked.json", records)


if __name__ == "__main__":
    sys.exit(main())
