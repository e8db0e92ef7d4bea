"""Where data meet a chain: its first noise, and the last step that reads x back.

    q(z_0 | x) = N(alpha_0 x, sigma_0^2)

and p(x | z_0) in the data's own measure: on a grid of grey values proportional to q(z_0 | x) (Kingma et al. 2021, Eq. 8),
for continuous data N(z_0 / alpha_0, sigma_0^2 / alpha_0^2), whose mean over q(z_0 | x) depends on the noise alone,

    E -log p(x | z_0) = D (1/2 log 2 pi e sigma_0^2 - log alpha_0).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diled.api import sum_dims
from diled.diffusion.schedule import Schedule, alpha, sigma, sigma2
from diled.distributions import LOG_2PI, NoisyGrid, Normal

__all__ = ["LastStep"]


class LastStep:
    """q(z_0 | x), and p(x | z_0) in the data's own measure.

    Args:
        schedule: its clean end is the first noise.
        levels: number of grey values of x in [-1, 1]; None: continuous, so that p(x | z_0) is a density.
    """

    def __init__(self, schedule: Schedule, levels: int | None) -> None:
        self.schedule, self.levels = schedule, levels
        self.reach: int | None = None
        self.learned = any(p.requires_grad for p in schedule.parameters())
        if levels is not None and not self.learned:
            self.reach = math.ceil(8 * math.exp(0.5 * float(schedule.ends[0])) * (levels - 1) / 2) + 1

    def first_noise(self, x: Tensor) -> Normal:
        """q(z_0 | x) = N(alpha_0 x, sigma_0^2)."""
        gamma_0 = self.schedule.ends[0]
        return Normal(alpha(gamma_0) * x, torch.log(sigma2(gamma_0)).expand_as(x))

    def given(self, z_0: Tensor) -> Normal | NoisyGrid:
        """p(x | z_0)."""
        gamma_0 = self.schedule.ends[0]
        read, std = z_0 / alpha(gamma_0), sigma(gamma_0) / alpha(gamma_0)
        if self.levels is None:
            return Normal(read, (2 * torch.log(std)).expand_as(read), self.learned)
        return NoisyGrid(read, std, self.levels, self.reach)

    def nll(self, x: Tensor, z_0: Tensor) -> Tensor:
        """-log p(x | z_0), (B,), of a z_0 drawn from q(z_0 | x); of continuous data its expectation, in closed form."""
        return self.expected_nll(x) if self.levels is None else self.given(z_0).nll(x)

    def expected_nll(self, x: Tensor) -> Tensor:
        """The mean of -log p(x | z_0) over q(z_0 | x), (B,), of continuous data."""
        gamma_0 = self.schedule.ends[0]
        return sum_dims((0.5 * (LOG_2PI + 1 + torch.log(sigma2(gamma_0))) - torch.log(alpha(gamma_0))).expand_as(x))
