"""Drawing many samples in batches, so that sample i depends on (seed, i) alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from diled.api import Density, device_of
from diled.diffusion import SAMPLERS, Consistency, Diffusion
from diled.draws import BLOCK, BlockNoise
from diled.errors import ConfigError, did_you_mean
from diled.models.token_diffusion import TokenDiffusion

__all__ = ["BATCH", "described", "sample_batches", "sampled_with", "takes_mean"]

BATCH = 8 * BLOCK


def samplers_in(model: torch.nn.Module) -> list[Any]:
    """The parts of a model that are sampled in steps, the one that a sample starts from first."""
    found = {id(part): part for part in model.modules() if isinstance(part, Diffusion | Consistency | TokenDiffusion)}
    if isinstance(model, Consistency):
        return [model]  # not its teacher
    first = getattr(model, "prior", None)
    parts = list(first.modules()) if isinstance(first, torch.nn.Module) else []
    return [*(p for p in parts if id(p) in found), *(p for p in found.values() if not any(p is q for q in parts))]


@contextmanager
def sampled_with(model: torch.nn.Module, *, steps: int | None = None, sampler: str | None = None) -> Iterator[None]:
    """Within the block every diffusion inside the model takes these steps and this sampler.

    Raises:
        ConfigError: steps or a sampler are asked of a model without a diffusion, or do not go together with it.
    """
    if steps is not None and steps < 1:
        raise ConfigError(f"steps = {steps}: a sampler takes at least one.")
    if sampler is not None and sampler not in SAMPLERS:
        raise ConfigError(f"Unknown sampler '{sampler}'.{did_you_mean(sampler, SAMPLERS)}")
    options = {"steps": steps, "sampler": sampler}
    asked = {name: value for name, value in options.items() if value is not None}
    parts = samplers_in(model)
    if asked and not parts:
        raise ConfigError(f"{' and '.join(asked)} have no meaning for a model without a diffusion.")
    for part in parts:
        if sampler is not None and isinstance(part, Consistency):
            raise ConfigError("A consistency model is its own sampler: choose the number of steps only.")
        if sampler is not None and isinstance(part, TokenDiffusion):
            raise ConfigError("Token diffusion fills in symbols in random order: choose the number of steps only.")
        if sampler not in (None, "ancestral") and not part.process.ode:
            raise ConfigError(
                f"sampler '{sampler}' follows an ODE, and a neural diffusion model has none: use 'ancestral'."
            )
    before = [(part, {name: getattr(part, name) for name in asked}) for part in parts]
    for part in parts:
        for name, value in asked.items():
            setattr(part, name, value)
    try:
        yield
    finally:
        for part, old in before:
            for name, value in old.items():
                setattr(part, name, value)


def described(model: torch.nn.Module, *, steps: int | None = None, sampler: str | None = None) -> str:
    """How a model would be sampled, in words: `ddim, 25 steps`; nothing where there is no diffusion."""
    said = []
    with sampled_with(model, steps=steps, sampler=sampler):
        for part in samplers_in(model):
            if isinstance(part, Consistency):
                said.append(f"consistency, {part.steps} steps")
            elif isinstance(part, TokenDiffusion):
                said.append(f"in random order, {part.sampling_steps()} steps")
            else:
                said.append(f"{part.sampler}, {part.sampling_steps()} steps")
    return " and ".join(dict.fromkeys(said))


@torch.no_grad()
def sample_batches(
    model: Density,
    n: int,
    *,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    mean: bool = True,
    start: int = 0,
    batch: int = BATCH,
) -> Iterator[Tensor]:
    """n samples in model space on the CPU, batch after batch.

    Args:
        model: the density.
        n: how many.
        steps, sampler: of every diffusion inside; None: their defaults.
        seed: of the series.
        mean: decoder means rather than draws from p(x | z).
        start: number of the first in the series, a multiple of 64.
        batch: samples that are computed at once, a multiple of 64.

    Raises:
        ConfigError: steps or a sampler are asked of a model without a diffusion, or do not fit it.
    """
    if n < 1:
        raise ConfigError(f"n = {n}: ask for at least one sample.")
    options: dict[str, Any] = {"mean": mean} if takes_mean(model) else {}
    device = device_of(model)
    for first in range(start, start + n, batch):
        noise = BlockNoise(seed, first, device=device)
        with sampled_with(model, steps=steps, sampler=sampler):
            drawn = model.sample(min(batch, start + n - first), noise=noise, **options)
        yield drawn.cpu()


def takes_mean(model: Density) -> bool:
    """Whether a model tells draws from p(x | z) and their means apart."""
    return "mean" in inspect.signature(model.sample).parameters
