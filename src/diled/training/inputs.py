"""From raw training examples to what a density sees: augmentation, mollification, and binarisation last.

Data mollification in the variance-preserving form and with the sigmoid schedule of Tran et al. 2023 (arXiv 2305.18900,
section 3), where s is the standard deviation at the share r of the training:

    x'  = sqrt(1 - s^2) x + s e,                     e ~ N(0, I),  x in [-1, 1]
    s^2 = SIGMA^2 (S(3/T) - S(3 u/T)) / (S(3/T) - S(0)),   u = min(2 r, 1),  S(a) = 1 / (1 + exp(-a)),  T = 0.7

so s falls from SIGMA to 0 over the first half, and the second half is clean (Xiao et al. 2024, appendix E). They have
SIGMA = 1. Noise and augmentation come before binarisation, so a pixel of mollified binary data is drawn from (or cut at) a
noisy grey value, and data on a grid of grey values are rounded to it again and clipped to the range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from diled.config import DataSpec, TrainingConfig
from diled.draws import hidden
from diled.errors import ConfigError
from diled.space import to_space
from diled.training.augment import augmented, policy_for

__all__ = ["Inputs", "mollified", "mollify_std", "noisy_input"]

SHARE = 0.5
"""Of the training that is mollified."""
END, TEMPERATURE = 3.0, 0.7
"""Of the sigmoid schedule."""


def mollify_std(progress: float, sigma: float) -> float:
    """s at `progress` in [0, 1] of the whole training."""
    u = min(progress / SHARE, 1.0)
    first, now, last = (1 / (1 + math.exp(-END * at / TEMPERATURE)) for at in (0.0, u, 1.0))
    return sigma * math.sqrt((last - now) / (last - first))


def mollified(x: Tensor, std: float) -> Tensor:
    """sqrt(1 - s^2) x + s e, by torch's generator."""
    return math.sqrt(1 - std**2) * x + std * torch.randn_like(x)


class Inputs:
    """Raw examples (B, *shape) -> what is trained on, in model space.

    Args:
        spec: of the data.
        config: of the training.

    Raises:
        ConfigError: augmentation or noise does not fit the data.
    """

    def __init__(self, spec: DataSpec, config: TrainingConfig) -> None:
        for key in ("mollify", "input_noise"):
            if spec.sequential and getattr(config, key):
                raise ConfigError(
                    f"training.{key} adds noise to numbers, and these are sequences of symbols: leave it out."
                )
        self.spec, self.sigma, self.policy = spec, config.mollify, policy_for(config, spec)
        self.grey = spec.model_copy(update={"binarize": "none"})

    def __call__(self, raw: Tensor, progress: float) -> Tensor:
        """At `progress` in [0, 1] of the whole training; all draws are by torch's generator."""
        std = mollify_std(progress, self.sigma) if self.sigma else 0.0
        if self.policy is None and not std:
            return to_space(raw, self.spec)
        x = to_space(raw, self.grey)
        if self.policy is not None:
            x = augmented(x, self.policy)
        return self.measured(mollified(x, std) if std else x)

    def measured(self, x: Tensor) -> Tensor:
        """Grey values as the data have them: binarised, or on the grid."""
        spec, unit = self.spec, (x + 1) / 2
        if spec.binarize != "none":
            return to_space(unit * (spec.high - spec.low) + spec.low, spec)
        if spec.levels is None:
            return x
        gaps = spec.levels - 1
        grid = (unit.clamp(0, 1) * gaps).round() * ((spec.high - spec.low) / gaps)
        return to_space(grid + spec.low, spec)  # of a raw value exactly what it would be by itself


@contextmanager
def noisy_input(density: nn.Module, config: TrainingConfig, spec: DataSpec) -> Iterator[None]:
    """Within the block a density's encoder sees c(x) in place of x while it is in training mode; the decoder's target stays x.

        -log p(x) <= E_c [ E_{z ~ q(z | c(x))} [ -log p(x | z) ] + KL(q(z | c(x)) || p(z)) ]

    so a bound is trained all the same. c hides values (`config.corruption`) and adds noise to numbers (`config.input_noise`).

    Reference: Vincent et al. 2008 (ICML); Im et al. 2017 (arXiv 1511.06406), Eq. 6; Shen et al. 2020 (arXiv 1905.12777).
    """
    encoder = getattr(density, "encoder", None)
    share, std = config.corruption, config.input_noise
    if not (share or std) or encoder is None:
        yield
        return

    def change(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not module.training:
            return None
        x = args[0]
        if share:
            x = hidden(x, share, len(spec.symbols) if spec.sequential else 0)
        return (x + std * torch.randn_like(x) if std else x, *args[1:])

    handle = encoder.register_forward_pre_hook(change)
    try:
        yield
    finally:
        handle.remove()
