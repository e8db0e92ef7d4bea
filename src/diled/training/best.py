"""Early stopping: the weights of the look at validation data with the lowest bound.

All looks share their examples and their noise, so they differ by the weights alone. Test data are not looked at.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from diled.api import Density
from diled.config import DataSpec
from diled.draws import seeded
from diled.rows import rows_beside_training
from diled.space import to_space

__all__ = ["Best", "held_out_bound", "random_rows"]

DRAWS = 5_000
"""Draws of an example's noise, over all examples, that a look takes at least; and examples that it takes at most."""
CHUNK = 500
"""Examples that go through the density at once, or fewer of large ones."""


def random_rows(values: Tensor, most: int) -> Tensor:
    """All examples (N, ...), or so many random ones where there are more, the same ones each time, in order."""
    if len(values) <= most:
        return values
    return values[torch.randperm(len(values), generator=torch.Generator().manual_seed(0))[:most].sort().values]


@torch.no_grad()
def held_out_bound(density: Density, raw: Tensor, spec: DataSpec, seed: int) -> float:
    """The mean bound in nats of held-out examples, each drawn equally often, at least 5,000 draws in all.

    Args:
        density: in evaluation mode.
        raw: examples (N, *shape); of more than 5,000 as many random ones, the same ones each time, since they may be sorted.
        spec: of the data; dynamic binarisation is drawn, as in training and testing.
        seed: of all draws.
    """
    raw = random_rows(raw, DRAWS)
    repeats, device = math.ceil(DRAWS / len(raw)), next((p.device for p in density.parameters()), raw.device)
    rows = rows_beside_training(density.bound, to_space(raw[:1].to(device), spec, draw=False), CHUNK)
    total = 0.0
    with seeded(seed):
        for chosen in torch.arange(len(raw)).repeat(repeats).split(rows):
            total += density.bound(to_space(raw[chosen].to(device), spec)).cpu().double().sum().item()
    return total / (repeats * len(raw))


class Best:
    """The best weights of a stage so far."""

    def __init__(self) -> None:
        self.step, self.bound = 0, math.inf
        self.weights: dict[str, Tensor] = {}

    def look(self, step: int, bound: float, density: nn.Module) -> None:
        """Keep these weights if their bound is the lowest; of equal ones the earlier."""
        if bound < self.bound:
            self.step, self.bound = step, bound
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in density.state_dict().items()}

    def restore(self, density: nn.Module) -> None:
        """Give a density the weights of the best look; they stay as they are where no bound was a number."""
        if self.weights:
            density.load_state_dict(self.weights)

    def record(self) -> dict[str, Any]:
        """`step` and `bound` of the best look."""
        return {"step": self.step, "bound": self.bound}
