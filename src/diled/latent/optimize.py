"""Looking for codes with a property: what to climb, and ways to climb it.

    U(z) = value(f(z)) - caution s(z) - leash E(z),        E(z) >= -log p(z), the prior's bound

f is a prediction and s its uncertainty, both in standard deviations of the training examples; the leash, in standard
deviations per nat, keeps the code where the prior knows codes. `value` is f (max), -f (min), or -(f - target)^2 / 2.

    ascent      z <- z + rate grad U(z), by Adam's steps
    hill        from code to code: part of the way to the best of its k nearest training codes (Castro et al. 2022), or to a
                random one of those that are better
    mcmc        Metropolis' chain of exp(U / temperature); with `cycle` each proposal goes through decoder and encoder
    ode         the prior's probability-flow ODE, its denoiser guided: z_hat + sigma^2/alpha grad_z scale value(f(z_hat)),
                from noise to code (Dhariwal & Nichol 2021; of N(0, I) the ODE of LatentOps, Liu et al. 2022)
    evolution   mutation, recombination and selection of sequences (as AdaLead, Sinai et al. 2020)

References: Castro et al. 2022 (arXiv 2201.09948); Liu et al. 2022 (arXiv 2208.00638); Sinai et al. 2020 (arXiv 2010.02141).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diled.api import Density, NoBound, Noise, total
from diled.diffusion import Diffusion
from diled.diffusion.samplers import ddim, levels
from diled.diffusion.schedule import LinearLogSNR, Schedule, alpha, sigma2
from diled.draws import seeded
from diled.errors import ConfigError
from diled.latent.constraints import chosen
from diled.latent.predict import Ensemble
from diled.models.priors import GaussianMixture, Standardized, StandardNormal
from diled.sequences import cut

__all__ = ["METHODS", "Goal", "Objective", "ascent", "evolution", "guided_ode", "hill", "mcmc", "prior_energy"]

METHODS = ("ascent", "hill", "stochastic_hill", "mcmc", "cycle", "ode", "evolution")
"""Names of the ways to climb."""


@dataclass(frozen=True)
class Goal:
    """What is wanted of a property.

    Attributes:
        column: the property.
        direction: 1 to raise it, -1 to lower it, 0 to come close to the target.
        target: in the property's unit.
    """

    column: str
    direction: int = 1
    target: float = 0.0

    @classmethod
    def parse(cls, column: str, goal: str | float) -> Goal:
        """`max`, `min` or a number.

        Raises:
            ConfigError: anything else.
        """
        if goal in ("max", "min"):
            return cls(column, 1 if goal == "max" else -1)
        try:
            target = float(goal)
        except ValueError:
            target = float("nan")
        if not math.isfinite(target):
            raise ConfigError(f"goal '{goal}' is neither max nor min nor a number.")
        return cls(column, 0, target)

    def value(self, f: Tensor, center: Tensor, unit: Tensor) -> Tensor:
        """Of predictions in units from a center what is to be made large, (B,)."""
        if self.direction:
            return self.direction * f
        return -0.5 * (f - (self.target - center) / unit) ** 2

    def better(self, y: Tensor) -> Tensor:
        """Of values in the property's unit what is to be made large, for ranking."""
        return self.direction * y if self.direction else -(y - self.target).abs()


@dataclass(frozen=True)
class Objective:
    """U(z), shape (B,), to be made large.

    Args:
        goal: what is wanted.
        predictor: f and s.
        energy: E(z), (B,), or None.
        leash: weight of E, in standard deviations per nat.
        caution: weight of s.
    """

    goal: Goal
    predictor: Ensemble
    energy: Callable[[Tensor], Tensor] | None = None
    leash: float = 0.0
    caution: float = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        """U of codes (B, D)."""
        found = self.wanted(z)
        return found if self.energy is None or not self.leash else found - self.leash * self.energy(z)

    def wanted(self, z: Tensor) -> Tensor:
        """U without the leash."""
        each = self.predictor.standardized(z)
        found = self.goal.value(each.mean(0), self.predictor.center, self.predictor.unit)
        return found - self.caution * each.std(0) if self.caution else found

    def slope(self, z: Tensor) -> Tensor:
        """grad U, (B, D)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            return torch.autograd.grad(self(z).sum(), z)[0]


def prior_energy(prior: Density, *, draws: int = 8, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """E(z): the prior's bound on -log p(z), (B,), with the same noise at every call, so that it can be climbed.

    Raises:
        NoBound: the prior has none.
    """
    if isinstance(prior, GaussianMixture | StandardNormal):
        return lambda z: total(prior.terms(z, exact=True))

    def energy(z: Tensor) -> Tensor:
        with seeded(seed, 22):
            each = [total(prior.terms(z, exact=True)) for _ in range(draws)]
        return torch.stack(each).mean(0)

    return energy


def ascent(
    z: Tensor, objective: Objective, *, steps: int = 200, rate: float = 0.05, scale: Tensor | float = 1.0
) -> Tensor:
    """Codes (B, D) after so many of Adam's steps along grad U, of size `rate` in units of `scale`, the codes' deviations."""
    moved = torch.zeros_like(z, requires_grad=True)
    optimizer = torch.optim.Adam([moved], lr=rate)
    for _ in range(steps):
        moved.grad = -objective.slope(z + scale * moved.detach()) * scale
        optimizer.step()
    return (z + scale * moved).detach()


@torch.no_grad()
def hill(
    z: Tensor,
    objective: Objective,
    codes: Tensor,
    *,
    steps: int = 200,
    share: float = 0.5,
    neighbours: int = 30,
    uniform: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Codes (B, D), moved by `share` of the way to a neighbour among training codes (N, D), as long as U rises there.

    Args:
        z: where to start.
        objective: U.
        codes: of training examples.
        steps, share, neighbours: of the climb.
        uniform: n -> n numbers in [0, 1): choose among all better neighbours; None: always the best.
    """
    height = torch.cat([objective(part) for part in codes.split(4096)])
    now, stopped = objective(z), torch.zeros(len(z), dtype=torch.bool, device=z.device)
    for _ in range(steps):
        near = torch.cdist(z, codes).topk(min(neighbours, len(codes)), largest=False).indices
        gain = height[near] - now[:, None]
        if uniform is None:
            choice = gain.argmax(1)
        else:
            better = gain > 0
            place = (uniform(len(z)).to(z) * better.sum(1)).floor().clamp(max=(better.sum(1) - 1).clamp(min=0))
            choice = ((better.cumsum(1) - 1 == place[:, None].long()) & better).int().argmax(1)
        target = codes[near.gather(1, choice[:, None])[:, 0]]
        moved = z + share * (target - z)
        after = objective(moved)
        goes = (gain.gather(1, choice[:, None])[:, 0] > 0) & (after > now) & ~stopped
        if uniform is None:
            stopped = stopped | ~goes
            if stopped.all():
                break
        z, now = torch.where(goes[:, None], moved, z), torch.where(goes, after, now)
    return z


@torch.no_grad()
def mcmc(
    z: Tensor,
    objective: Objective,
    noise: Noise,
    *,
    steps: int = 200,
    width: float = 0.1,
    temperature: float = 0.1,
    cycle: Callable[[Tensor], Tensor] | None = None,
    scale: Tensor | float = 1.0,
) -> Tensor:
    """The best code that each of B Metropolis chains of exp(U / temperature) has seen, (B, D).

    Args:
        z: where the chains start.
        objective: U.
        noise: of proposals and decisions.
        steps: of each chain.
        width: of a proposal, in units of `scale`.
        temperature: in the unit of U.
        cycle: applied to each proposal, such as decoding and encoding.
        scale: the codes' standard deviations.
    """
    now = objective(z)
    best, top = z, now
    for _ in range(steps):
        proposed = z + width * scale * noise((len(z), z.shape[1]))
        proposed = proposed if cycle is None else cycle(proposed)
        after = objective(proposed)
        u = torch.special.ndtr(noise((len(z), 1)))[:, 0]
        goes = u.log() < (after - now) / temperature
        z, now = torch.where(goes[:, None], proposed, z), torch.where(goes, after, now)
        best, top = torch.where((now > top)[:, None], z, best), torch.maximum(now, top)
    return best


def guided_ode(
    prior: Density, wanted: Callable[[Tensor], Tensor], noise: Noise, n: int, *, steps: int = 100, scale: float = 1.0
) -> Tensor:
    """n codes of p(z) exp(scale wanted(z)), approximately: the prior's probability-flow ODE with a guided denoiser.

    Args:
        prior: a diffusion, standardised or not, a standard normal, or a mixture of Gaussians.
        wanted: codes (B, D) -> (B,).
        noise: where the ODE starts.
        n: how many.
        steps: of DDIM.
        scale: weight of the wish against the prior.

    Raises:
        NoBound: the prior is none of these.
    """
    center: Tensor | float = 0.0
    width: Tensor | float = 1.0
    inner: Any = prior
    if isinstance(prior, Standardized):
        inner, center, width = prior.inner, prior.mean, prior.std
    elif isinstance(prior, GaussianMixture):  # the noise levels are for codes of unit size
        inner, center, width = _standardized(prior)

    def back(z: Tensor) -> Tensor:
        return z * width + center

    denoise, schedule, shape = _denoiser(inner)
    start = noise((n, *shape))
    gammas = levels(schedule.to(start.device), steps, start.device)
    with torch.no_grad():
        return back(ddim(_guided(denoise, lambda z: scale * wanted(back(z))), start, gammas))


def _standardized(prior: GaussianMixture) -> tuple[GaussianMixture, Tensor, Tensor]:
    """A mixture in units of its own mean and standard deviations (D,), and these."""
    share = prior.log_weights.exp()[:, None]
    center = (share * prior.means).sum(0)
    width = (share * ((prior.means - center) ** 2 + (prior.roots**2).sum(2))).sum(0).sqrt()
    inner = copy.deepcopy(prior)
    inner.means, inner.roots = (prior.means - center) / width, prior.roots / width[:, None]
    return inner, center, width


def _denoiser(prior: Any) -> tuple[Callable[..., Tensor], Schedule, tuple[int, ...]]:
    """E[z | z_t] under a prior of codes of unit size, noise levels, and the shape of a code."""
    if isinstance(prior, Diffusion) and prior.process.ode:
        return prior.denoiser, prior.schedule, prior.shape
    if isinstance(prior, StandardNormal):
        dim = prior.shape[0]
        parts = torch.zeros(1, dim), torch.eye(dim)[None], torch.zeros(1)
    elif isinstance(prior, GaussianMixture):
        dim = prior.means.shape[1]
        parts = prior.means, prior.roots @ prior.roots.transpose(1, 2), prior.log_weights
    else:
        raise NoBound(f"A prior of type {type(prior).__name__} has no denoiser to guide: choose another method.")
    return _denoiser_of(*parts), LinearLogSNR(-8.0, 8.0), (dim,)


def _guided(denoise: Callable[..., Tensor], wanted: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A denoiser of p(z) exp(wanted(z)): z_hat + sigma_t^2 / alpha_t grad_{z_t} wanted(z_hat)."""

    def guided(z_t: Tensor, log_snr: Tensor) -> Tensor:
        with torch.enable_grad():
            z_t = z_t.detach().requires_grad_(True)
            z_hat = denoise(z_t, log_snr)
            slope = torch.autograd.grad(wanted(z_hat).sum(), z_t)[0]
        gamma = -log_snr[:, None]
        return (z_hat + sigma2(gamma) / alpha(gamma) * slope).detach()

    return guided


def _denoiser_of(means: Tensor, covariance: Tensor, log_weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """E[z | z_t] under a mixture of K Gaussians: means (K, D), covariances (K, D, D), log weights (K,)."""
    values, vectors = torch.linalg.eigh(covariance)

    def denoise(z_t: Tensor, log_snr: Tensor) -> Tensor:
        gamma = -log_snr[:, None, None]
        a, s2 = alpha(gamma), sigma2(gamma)
        mean, lam, basis = means.to(z_t), values.to(z_t), vectors.to(z_t)
        gap = torch.einsum("bkd,kde->bke", z_t[:, None] - a * mean, basis)  # along the axes of each component
        var = a**2 * lam + s2
        log_p = log_weights.to(z_t) - 0.5 * (gap**2 / var + var.log()).sum(2)
        each = mean + torch.einsum("bke,kde->bkd", a * lam / var * gap, basis)
        return (log_p.softmax(1)[..., None] * each).sum(1)

    return denoise


@torch.no_grad()
def evolution(
    x: Tensor,
    fitness: Callable[[Tensor], Tensor],
    uniform: Callable[[tuple[int, ...]], Tensor],
    *,
    steps: int = 50,
    allowed: Tensor,
    mutations: float = 1.0,
    crossing: float = 0.2,
    keep: float = 0.2,
) -> Tensor:
    """A population of rows (B, L) after so many generations, the best first.

    Each child takes every position from one of two parents among the best `keep`, the second with the chance `crossing`,
    and then changes each position with the chance `mutations` / L to an allowed symbol; the best B of parents and
    children survive, each once.

    Args:
        x: the first generation.
        fitness: rows -> (B,), to be made large.
        uniform: shape -> numbers in [0, 1).
        steps: generations.
        allowed: (L, V) bool.
        mutations: changed positions of a child, on average.
        crossing, keep: see above.
    """
    n, length = x.shape
    height = fitness(x)
    for _ in range(steps):
        elite = height.topk(min(len(x), max(2, int(keep * n)))).indices
        parents = [x[elite[(uniform((n,)) * len(elite)).long()]] for _ in range(2)]
        child = torch.where(uniform((n, length)) < crossing, parents[1], parents[0])
        fresh = chosen(allowed, uniform((n, length)))
        child = cut(torch.where(uniform((n, length)) < mutations / length, fresh, child))
        both = torch.unique(torch.cat([x, child]), dim=0)
        score = fitness(both)
        order = score.topk(min(n, len(both))).indices
        x, height = both[order], score[order]
    return x
