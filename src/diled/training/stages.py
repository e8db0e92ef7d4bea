"""What a stage needs around its fit: what is prepared, and how the learning rate moves. No engine here."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diled.api import Stage
from diled.config import DataSpec, TrainingConfig
from diled.draws import seed_from
from diled.space import to_space
from diled.training.data import Source, source_of

__all__ = ["learning_rate", "parameter_groups", "prepare"]

PREPARED, FEWEST, BYTES = 10_000, 1000, 2 * 2**30
"""Examples that a stage is prepared with: so many, or as few as this where they would take more than these bytes."""


def learning_rate(step: int, steps: int, warmup: int, schedule: str = "cosine") -> float:
    """The factor of the peak learning rate: a linear ramp over `warmup` steps, then half a cosine to zero, or 1."""
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def parameter_groups(module: nn.Module) -> list[tuple[float, list[nn.Parameter]]]:
    """Factors of the learning rate, and the parameters that train with each.

    A part that says `learning_rate_factor` (a critic, say) has a group of its own, which is clipped apart.
    """
    groups: list[tuple[float, list[nn.Parameter]]] = []
    apart: set[int] = set()
    for part in module.modules():
        factor = getattr(part, "learning_rate_factor", None)
        if factor is not None:
            groups.append((factor, [p for p in part.parameters() if p.requires_grad]))
            apart |= {id(p) for p in part.parameters()}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in apart]
    return [(factor, parameters) for factor, parameters in [(1.0, rest), *groups] if parameters]


def prepare(stage: Stage, values: Tensor | Source, spec: DataSpec, config: TrainingConfig, index: int) -> None:
    """Call the stage's `prepare` with up to 10,000 training examples, its `fit` with all, on the CPU, with a seed of its own.

    Of large ones `prepare` has fewer, at least 1,000.
    """
    source = source_of(values)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed_from(config.seed, index, 2**41))
        stage.density.eval()
        if stage.prepare is not None:
            raw = source.some(min(PREPARED, max(FEWEST, BYTES // (4 * spec.numel))))
            stage.prepare(to_space(raw, spec))
        if stage.fit is not None:
            stage.fit(to_space(raw, spec) for raw in source.all())
