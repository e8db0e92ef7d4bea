"""Train the arms of a study of DMaaPx, one by one or many together, each after what it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diled.model import Model
from diled.runs import RunConfig
from diled.studies.commands import computed_on, trained
from diled.studies.together import train_together
from diled.synthesizing import synthesize

if TYPE_CHECKING:
    from diled.studies.dmaapx import Arms

__all__ = ["place", "train_size", "train_stacked", "trained_arm"]


def place(folder: Path, arm: str, seed: int) -> Path:
    """The folder of an arm's run."""
    return folder / f"{arm.replace('/', ',')}-{seed}"


def trained_arm(plan: Arms, arm: str, seed: int, folder: Path, steps: int | None, device: str) -> Model:
    """An arm's model; first what it is trained on, which may be the samples of another arm."""
    pool = _pool(plan, arm, seed, folder, steps, device)
    return trained(plan.config(arm, seed, pool, steps), place(folder, arm, seed), device=device)


def train_stacked(
    plan: Arms, arms: Sequence[str], seeds: Sequence[int], folder: Path, steps: int | None, device: str
) -> None:
    """Train together what can be trained so, of these arms and of those whose samples they are trained on, the latter first."""
    generations: dict[int, list[str]] = {}
    for arm in arms:
        line = [arm]
        while plan.drawn.get(line[-1]) in plan.arms:
            line.append(plan.drawn[line[-1]])
        for age, one in enumerate(reversed(line)):
            generations.setdefault(age, []).append(one)
    for age in sorted(generations):
        wanted = {}
        for arm in dict.fromkeys(generations[age]):
            for seed in seeds:
                pool = _pool(plan, arm, seed, folder, steps, device)
                wanted[place(folder, arm, seed)] = computed_on(plan.config(arm, seed, pool, steps), device)
        train_together(wanted)


def _pool(plan: Arms, arm: str, seed: int, folder: Path, steps: int | None, device: str) -> Path | None:
    """The synthetic set of an arm that has one, drawn first where it is not there."""
    if arm not in plan.drawn:
        return None
    source = plan.drawn[arm]
    own = source in plan.arms  # samples are draws from p(x | z), not its means
    if own:
        trained_arm(plan, source, seed, folder, steps, device)
        origin, taken = place(folder, source, seed), None
    else:
        origin, taken = folder / "source" / source, plan.sources[source].sampler_steps
        trained(plan.source_config(source, steps), origin, device=device)
    pool = folder / "pool" / origin.name
    n = plan.folds * train_size(plan.config(arm, seed, None, steps))
    synthesize(origin, n, pool, steps=taken, seed=seed if own else 0, draw=own, device=device)
    return pool


def train_size(config: RunConfig) -> int:
    """How many real training images an arm has."""
    from diled.data import open_data

    if config.preprocess.limit is not None:
        return config.preprocess.limit
    return len(open_data(config.data, config.preprocess).train)
