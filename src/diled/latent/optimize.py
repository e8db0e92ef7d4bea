"""Looking for codes with a property: what to climb, and ways to climb it.

    U(z) = value(f(z)) - caution s(z) - leash E(z),        E(z) >= -log p(z), the prior's bound

f is a prediction and s its uncertainty, both in standard deviations of the training examples; the leash, in standard
deviations for each unit of E, keeps the code where the prior knows codes. `value` is f (max), -f (min), or -(f - target)^2 / 2.

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

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diled.api import Density, Noise, total
from diled.diffusion.samplers import ddim, levels
from diled.errors import ConfigError
from diled.latent.constraints import chosen
from diled.latent.guidance import guided, in_unit
from diled.latent.predict import Ensemble
from diled.models.priors import GaussianMixture, StandardNormal
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
        leash: weight of E.
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


def prior_energy(prior: Density, *, draws: int = 32, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """E(z): the prior's bound on -log p(z), (B,), with the same noise for each code and at every call.

    So it can be climbed, and codes compare: of a bound whose noise levels were drawn for each code by itself, the difference
    between two codes would be noise first of all.

    Raises:
        NoBound: the prior has none.
    """
    if isinstance(prior, GaussianMixture | StandardNormal):
        return lambda z: total(prior.terms(z, exact=True))

    return lambda z: prior.paired_bound(z, passes=draws, seed=(seed, 22))


Look = tuple[int, Callable[[Tensor], object]]
"""Every so many steps, what is called with the codes (B, D) where the climbs are."""


def _looked(look: Look | None, step: int, z: Tensor) -> None:
    if look is not None and (step + 1) % look[0] == 0:
        look[1](z.detach().clone())


def ascent(
    z: Tensor,
    objective: Objective,
    *,
    steps: int = 200,
    rate: float = 0.05,
    scale: Tensor | float = 1.0,
    look: Look | None = None,
) -> Tensor:
    """Codes (B, D) after so many of Adam's steps along grad U, of size `rate` in units of `scale`, the codes' deviations."""
    moved = torch.zeros_like(z, requires_grad=True)
    optimizer = torch.optim.Adam([moved], lr=rate)
    for step in range(steps):
        moved.grad = -objective.slope(z + scale * moved.detach()) * scale
        optimizer.step()
        _looked(look, step, z + scale * moved)
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
    look: Look | None = None,
) -> Tensor:
    """Codes (B, D), moved by `share` of the way to a neighbour among training codes (N, D), as long as U rises there.

    Args:
        z: where to start.
        objective: U.
        codes: of training examples.
        steps, share, neighbours: of the climb.
        uniform: n -> n numbers in [0, 1): choose among all better neighbours; None: always the best.
        look: at the climbs on their way.
    """
    height = torch.cat([objective(part) for part in codes.split(4096)])
    now, stopped = objective(z), torch.zeros(len(z), dtype=torch.bool, device=z.device)
    for step in range(steps):
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
        _looked(look, step, z)
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
    look: Look | None = None,
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
        look: at the chains on their way.
    """
    now = objective(z)
    best, top = z, now
    for step in range(steps):
        proposed = z + width * scale * noise((len(z), z.shape[1]))
        proposed = proposed if cycle is None else cycle(proposed)
        after = objective(proposed)
        u = torch.special.ndtr(noise((len(z), 1)))[:, 0]
        goes = u.log() < (after - now) / temperature
        z, now = torch.where(goes[:, None], proposed, z), torch.where(goes, after, now)
        best, top = torch.where((now > top)[:, None], z, best), torch.maximum(now, top)
        _looked(look, step, z)
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
    unit = in_unit(prior)
    start = noise((n, *unit.shape))
    gammas = levels(unit.schedule.to(start.device), steps, start.device)
    with torch.no_grad():
        return unit.back(ddim(guided(unit.denoise, lambda z: scale * wanted(unit.back(z))), start, gammas))


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
    and then draws an allowed symbol anew at each of the F positions that have a choice with the chance `mutations` / F; the
    best B of parents and children survive, each once.

    Args:
        x: the first generation.
        fitness: rows -> (B,), to be made large.
        uniform: shape -> numbers in [0, 1).
        steps: generations.
        allowed: (L, V) bool.
        mutations: positions of a child that are drawn anew, on average.
        crossing, keep: see above.
    """
    n, length = x.shape
    free = max(1, int((allowed.sum(1) > 1).sum()))
    height = fitness(x)
    for _ in range(steps):
        elite = height.topk(min(len(x), max(2, int(keep * n)))).indices
        parents = [x[elite[(uniform((n,)) * len(elite)).long()]] for _ in range(2)]
        child = torch.where(uniform((n, length)) < crossing, parents[1], parents[0])
        fresh = chosen(allowed, uniform((n, length)))
        child = cut(torch.where(uniform((n, length)) < mutations / free, fresh, child))
        both = torch.unique(torch.cat([x, child]), dim=0)
        score = fitness(both)
        order = score.topk(min(n, len(both))).indices
        x, height = both[order], score[order]
    return x
