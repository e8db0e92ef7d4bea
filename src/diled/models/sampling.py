"""Drawing many samples in batches, so that sample i depends on (seed, i) alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from diled.api import Density
from diled.diffusion import Diffusion
from diled.draws import BLOCK, BlockNoise
from diled.errors import ConfigError

__all__ = ["BATCH", "has_sampler", "sample_batches"]

BATCH = 8 * BLOCK


def has_sampler(model: torch.nn.Module) -> bool:
    """Whether somewhere inside the model a diffusion is sampled in steps."""
    return any(isinstance(part, Diffusion) for part in model.modules())


@torch.no_grad()
def sample_batches(
    model: Density, n: int, *, steps: int | None = None, sampler: str | None = None, seed: int = 0, mean: bool = True
) -> Iterator[Tensor]:
    """n samples in model space on the CPU, batch after batch.

    Args:
        model: the density.
        n: how many.
        steps, sampler: of the diffusion inside; None: its defaults.
        seed: of the series.
        mean: decoder means rather than draws from p(x | z).

    Raises:
        ConfigError: steps or a sampler are asked of a model without a diffusion.
    """
    if n < 1:
        raise ConfigError(f"n = {n}: ask for at least one sample.")
    if steps is not None and steps < 1:
        raise ConfigError(f"steps = {steps}: a sampler takes at least one.")
    options: dict[str, Any] = {"steps": steps, "sampler": sampler}
    options = {name: value for name, value in options.items() if value is not None}
    if options and not has_sampler(model):
        raise ConfigError(f"{' and '.join(options)} have no meaning for a model without a diffusion.")
    if hasattr(model, "decoder"):
        options["mean"] = mean
    device = next((t.device for t in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    for start in range(0, n, BATCH):
        noise = BlockNoise(seed, start, device=device)
        yield model.sample(min(BATCH, n - start), noise=noise, **options).cpu()
