"""Training weights, kept apart from the bound.

Every usual loss is one weighted integral over noise levels (Kingma & Gao 2023),

    L_w = 1/2 integral w(gamma) E || e - e_hat(z_gamma) ||^2 d gamma,

estimated with noise levels from the schedule's own density p(gamma) = 1 / gamma'(t). A weighting returns w, the factor
relative to the variational bound, from (gamma, slope = gamma'(t), D):

    vlb       w = 1
    simple    w = 2 scale p(gamma) (/ D where the mean over dimensions is meant): the unweighted noise error, Ho et al. 2020
    min_snr   w = simple times min(SNR, cap) / SNR, Hang et al. 2023
    edm       w = 2 p(gamma) (s^2 + sigma_data^2) / sigma_data^2 with s^2 = e^gamma = 1 / SNR, Karras et al. 2022

A weighting that names a `reference` schedule takes p from there: the loss then no longer depends on the schedule in use.
Without one p is constant where log SNR is linear in time, and `simple` is there `vlb` divided by half the range of gamma.

How a reconstruction shares the step t that is drawn for an example is a weighting too, of the reconstruction's gradient:
`split_over_steps` and `at_first_step`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from diled.diffusion.schedule import Schedule

__all__ = [
    "Objective",
    "StepWeight",
    "Weighting",
    "at_first_step",
    "edm",
    "mean_share",
    "min_snr",
    "simple",
    "split_over_steps",
    "step_weights",
    "vlb",
]

Weighting: TypeAlias = Callable[[Tensor, Tensor, int], Tensor]
"""(gamma, slope, dimensions) -> w, of gamma's shape."""

StepWeight: TypeAlias = Callable[[int, Tensor], Tensor]
"""(examples B, a tensor that says type and device) -> weights (B,) whose mean over the draws of t is one."""


def vlb(gamma: Tensor, slope: Tensor, dims: int) -> Tensor:
    """w = 1: the variational bound."""
    return torch.ones_like(gamma)


def simple(scale: float = 1.0, *, mean: bool = False, reference: Schedule | None = None) -> Weighting:
    """scale * || e - e_hat ||^2 with t uniform (summed over dimensions, or their `mean`): Ho et al. 2020, Eq. 14."""

    def weight(gamma: Tensor, slope: Tensor, dims: int) -> Tensor:
        p = 1 / (slope if reference is None else reference.slope(reference.time(gamma)))
        return (2 * scale / (dims if mean else 1)) * p

    return weight


def min_snr(cap: float = 5.0, *, scale: float = 1.0, reference: Schedule | None = None) -> Weighting:
    """`simple` times min(SNR, cap) / SNR (Hang et al. 2023, Eq. 10): low noise levels no longer dominate."""
    base = simple(scale, reference=reference)

    def weight(gamma: Tensor, slope: Tensor, dims: int) -> Tensor:
        return base(gamma, slope, dims) * torch.clamp(cap * torch.exp(gamma), max=1.0)

    return weight


def edm(sigma_data: float = 0.5, *, scale: float = 1.0, reference: Schedule | None = None) -> Weighting:
    """(s^2 + sigma_data^2) / (s sigma_data)^2 * || x - x_hat ||^2 (Karras et al. 2022, Table 1), with s = sigma / alpha.

    Since || x - x_hat ||^2 = s^2 || e - e_hat ||^2, it is `simple` times (s^2 + sigma_data^2) / sigma_data^2.
    """
    base = simple(scale, reference=reference)

    def weight(gamma: Tensor, slope: Tensor, dims: int) -> Tensor:
        return base(gamma, slope, dims) * (torch.exp(gamma) + sigma_data**2) / sigma_data**2

    return weight


def step_weights(schedule: Schedule, steps: int) -> Tensor:
    """lambda_t of t = 1..T, (T,): what || e - e_hat ||^2 weighs in the bound of a chain (Ho et al. 2020, Eq. 12).

        lambda_t = b_t / (2 a_t (1 - abar_t)),     a_t = alpha_{t|s}^2,   b_t = sigma_{t|s}^2,   1 - abar_t = sigma_t^2

    Args:
        schedule: gamma(t).
        steps: T.
    """
    gammas = schedule.gamma(torch.linspace(0, 1, steps + 1, dtype=torch.float64)).detach().double()
    gamma_s, gamma_t = gammas[:-1], gammas[1:]
    a_t = torch.sigmoid(-gamma_t) / torch.sigmoid(-gamma_s)
    return -torch.expm1(gamma_s - gamma_t) / (2 * a_t)


def split_over_steps(schedule: Schedule, steps: int) -> StepWeight:
    """The reconstruction split over t ~ U{1..T}, each share divided by its lambda_t (Liu et al. 2024, Eq. 30 to 33).

        w l_t + L_rec / (T lambda_t)

    Here 1 / lambda_t is divided by its mean over t instead of by T, so that the mean weight is one: of the splitting only the
    weight's changes with t are left. The draw of t is the reconstruction's own.

    Args:
        schedule: gamma(t).
        steps: T.
    """
    inverse = 1 / step_weights(schedule, steps)
    table = inverse / inverse.mean()

    def weight(batch: int, like: Tensor) -> Tensor:
        return table.to(like)[torch.randint(steps, (batch,), device=like.device)]

    return weight


def mean_share(schedule: Schedule, steps: int) -> float:
    """The mean over t of 1 / (T lambda_t): what a reconstruction that is split over t weighs beside w l_t.

    About 0.2175 of T = 1000 steps with b = 0.008.

    Args:
        schedule: gamma(t).
        steps: T.
    """
    return float((1 / step_weights(schedule, steps)).mean() / steps)


def at_first_step(steps: int) -> StepWeight:
    """The reconstruction trains where t ~ U{1..T} is 1, with the weight T: one term for each example, as of Ho et al. 2020.

    Args:
        steps: T.
    """

    def weight(batch: int, like: Tensor) -> Tensor:
        return steps * (torch.randint(steps, (batch,), device=like.device) == 0).to(like)

    return weight


@dataclass(frozen=True)
class Objective:
    """What a diffusion is trained on.

    Args:
        prior: weights of the denoiser's gradient.
        encoder: weights of the gradient that flows into the codes; None: the same. LSGM trains the denoiser on `simple`
            of its beta, linear in time, and the encoder on `vlb` (Vahdat et al. 2021, section 3.2); one pass serves both.
        terminal: keep KL(q(z_1 | x) || N(0, I)), which alone stops the codes from growing without limit.
    """

    prior: Weighting = vlb
    encoder: Weighting | None = None
    terminal: bool = True

    @property
    def is_bound(self) -> bool:
        """Whether the objective is the bound itself."""
        return self.prior is vlb and self.encoder is None and self.terminal
