"""Annealed importance sampling: log p(x) of a decoder, whatever its encoder.

    f_t(z) = p(z) p(x | z)^beta_t,    0 = beta_0 < ... < beta_T = 1
    z_0 ~ p(z),    z_t ~ a transition that leaves f_t as it is
    log w = sum_t (beta_t - beta_{t-1}) log p(x | z_{t-1}),    E[w] = p(x)

so log(1/K sum_k w_k) is in expectation a lower bound on log p(x) (Neal 2001; Wu et al. 2017). From an exact draw of
p(z | x) downwards, E[w] = 1 / p(x), and minus the log is an upper bound. An exact draw is known where x is a sample of the
model itself: there the two bounds enclose log p(x), and their difference is the error (Grosse et al. 2015).

The transitions are Hamiltonian Monte Carlo; each chain adapts its step size to its own acceptance. This is the published
practice, though a step size that knows of the chain's past makes E[w] = p(x) hold only nearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from diled.api import Density, NoBound, Noise, sum_dims
from diled.diffusion.schedule import like
from diled.draws import BLOCK, BlockNoise, seed_from
from diled.errors import ConfigError
from diled.evaluation.likelihood import importance, log_weight, nll_slope
from diled.models.autoencoder import Autoencoder
from diled.models.priors import GaussianMixture, Standardized, StandardNormal

__all__ = ["Annealed", "Annealing", "Bidirectional", "Target", "ais", "bdmc", "leapfrog", "temperatures"]

Annealing: TypeAlias = Literal["sigmoid", "linear"]
"""How beta_t rises."""

LEAPS = 10
"""Leapfrog steps of a transition."""
LEAST_STEP, MOST_STEP = 1e-4, 0.5
FASTER, SLOWER = 1.02, 0.98
ACCEPTANCE, MEMORY = 0.65, 0.9
"""The share of accepted transitions that is aimed at, and the decay of its running mean."""


@dataclass(frozen=True)
class Annealed:
    """A lower bound on log p(x), in expectation, of each of B examples; in nats.

    Args:
        log_p: (B,), log(1/K sum_k w_k) over K chains.
        stderr: (B,), its standard error, by the delta method.
        ess: (B,), the effective number of chains.
        acceptance: (B,), the share of accepted transitions; much below 0.65 the chains do not move.
    """

    log_p: Tensor
    stderr: Tensor
    ess: Tensor
    acceptance: Tensor


@dataclass(frozen=True)
class Bidirectional:
    """Both bounds on log p(x) for n samples x of a model; in nats.

    Args:
        x: (n, ...), the samples.
        lower: (n,), from the prior upwards.
        upper: (n,), from the code that x was drawn from downwards.
    """

    x: Tensor
    lower: Tensor
    upper: Tensor

    @property
    def gap(self) -> Tensor:
        """upper - lower, (n,). Its mean bounds the error of either."""
        return self.upper - self.lower


@dataclass(frozen=True)
class Point:
    """A state z (N, ...) with log p(z) and log p(x | z), (N,), and their gradients."""

    z: Tensor
    log_prior: Tensor
    log_likelihood: Tensor
    slope_prior: Tensor
    slope_likelihood: Tensor

    def log_f(self, beta: float) -> Tensor:
        """log p(z) + beta log p(x | z), (N,)."""
        return self.log_prior + beta * self.log_likelihood

    def slope(self, beta: float) -> Tensor:
        """The gradient of log f."""
        return self.slope_prior + beta * self.slope_likelihood

    def where(self, chosen: Tensor, other: Point) -> Point:
        """This point where `chosen` (N,), else the other."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Point(*(torch.where(like(chosen, here), here, there) for here, there in pairs))


class Target:
    """p(z) and p(x | z) as functions of z.

    Args:
        model: an autoencoder; its encoder is not used.
        x: (N, ...), one example for each chain.
        rows: codes that are decoded at once; None: all.
    """

    def __init__(self, model: Autoencoder, x: Tensor, rows: int | None = None) -> None:
        self.model, self.x, self.rows = model, x, rows

    def at(self, z: Tensor) -> Point:
        """Both densities and their gradients at z (N, ...)."""
        rows = self.rows or len(z)
        parts = [self._at(*part) for part in zip(z.split(rows), self.x.split(rows), strict=True)]
        return Point(*(torch.cat(found) for found in zip(*(vars(part).values() for part in parts), strict=True)))

    def _at(self, z: Tensor, x: Tensor) -> Point:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_prior = log_weight(self.model.prior, z)
            nll = self.model.decoder(z).nll(x)
            (slope_prior,) = torch.autograd.grad(log_prior.sum(), z)
            slope_likelihood = -nll_slope(nll, z)
        return Point(z.detach(), log_prior.detach(), -nll.detach(), slope_prior, slope_likelihood)


def temperatures(steps: int, schedule: Annealing = "sigmoid") -> list[float]:
    """steps + 1 numbers beta from 0 to 1: equally spaced, or sigmoid(4 (2 t / T - 1)) brought to that range.

    Raises:
        ConfigError: no steps, or another schedule.

    Reference: Grosse et al. 2015 (arXiv 1511.02543), section 6.1; Wu et al. 2017 (arXiv 1611.04273).
    """
    if steps < 1:
        raise ConfigError(f"steps = {steps}: annealing needs at least 1.")
    if schedule not in ("sigmoid", "linear"):
        raise ConfigError(f"schedule = {schedule!r}: use 'sigmoid' or 'linear'.")
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if schedule == "linear":
        return t.tolist()
    raw = torch.sigmoid(4 * (2 * t - 1))
    return ((raw - raw[0]) / (raw[-1] - raw[0])).tolist()


def leapfrog(
    target: Target, start: Point, momentum: Tensor, beta: float, step_size: Tensor, leaps: int = LEAPS
) -> tuple[Point, Tensor]:
    """Follow the energy -log f(z) + |p|^2 / 2 for `leaps` steps: the end and its momentum. With -p it leads back.

    p += e/2 grad log f;   z += e p;   p += e/2 grad log f

    Args:
        target: the densities.
        start: z (N, ...).
        momentum: p, of z's shape.
        beta: of f.
        step_size: e, (N,).
        leaps: how many steps.

    Reference: Neal 2011 (arXiv 1206.1901), section 2.3.
    """
    e, point, p = like(step_size, start.z), start, momentum
    for _ in range(leaps):
        p = p + 0.5 * e * point.slope(beta)
        point = target.at(point.z + e * p)
        p = p + 0.5 * e * point.slope(beta)
    return point, p


def _transition(target: Target, point: Point, beta: float, step_size: Tensor, noise: Noise) -> tuple[Point, Tensor]:
    """One transition that leaves f as it is, and which chains (N,) accepted it."""
    momentum = noise(tuple(point.z.shape))
    end, p = leapfrog(target, point, momentum, beta, step_size)
    log_ratio = end.log_f(beta) - point.log_f(beta) - 0.5 * sum_dims(p**2) + 0.5 * sum_dims(momentum**2)
    log_uniform = torch.special.log_ndtr(noise((len(momentum),)))
    accepted = log_uniform < log_ratio  # False where the energy is not finite
    return end.where(accepted, point), accepted


def _anneal(target: Target, z: Tensor, betas: Sequence[float], noise: Noise, first: float) -> tuple[Tensor, Tensor]:
    """log w, (N,), along `betas` from draws z of the first f, and each chain's share of accepted transitions.

    `first` is the first step size.
    """
    point = target.at(z)
    log_w = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    step_size = torch.full((len(z),), first, dtype=z.dtype, device=z.device)
    recent, all_accepted = torch.full_like(step_size, ACCEPTANCE), torch.zeros_like(step_size)
    for before, beta in zip(betas[:-1], betas[1:], strict=True):
        log_w += (beta - before) * point.log_likelihood.double()
        point, accepted = _transition(target, point, beta, step_size, noise)
        all_accepted += accepted
        recent = MEMORY * recent + (1 - MEMORY) * accepted
        step_size = (step_size * torch.where(recent > ACCEPTANCE, FASTER, SLOWER)).clamp(LEAST_STEP, MOST_STEP)
    return log_w, all_accepted / (len(betas) - 1)


def ais(
    model: Density,
    x: Tensor,
    *,
    steps: int = 500,
    chains: int = 16,
    schedule: Annealing = "sigmoid",
    step_size: float = 0.01,
    rows: int | None = None,
    seed: int = 0,
) -> Annealed:
    """A lower bound on log p(x) by annealed importance sampling. It needs no encoder, so an autoencoder with deterministic
    codes and a fitted mixture has one too.

    Args:
        model: an autoencoder in evaluation mode whose decoder has a likelihood, and whose prior is N(0, I), a mixture of
            Gaussians, or either on standardised codes.
        x: (B, ...) in model space.
        steps: T; 10,000 in the papers. The cost is 10 T gradients of the decoder for each example and chain.
        chains: K, averaged as weights.
        schedule: how beta rises.
        step_size: of the first leapfrog steps, in 1e-4 to 0.5. It takes 200 transitions to grow from 0.01 to 0.5.
        rows: codes that are decoded at once with their gradient, which bounds the memory; None: all of 64 examples.
        seed: of all draws; those of an example depend on it and the example's place in x only.

    Raises:
        NoBound: another prior or a diffusion decoder, or data that the likelihood does not admit.
        ModelError: the decoder passes no gradient.
        ConfigError: `steps`, `chains`, `schedule` or `step_size` out of range.

    Reference: Wu et al. 2017 (arXiv 1611.04273); Cremer et al. 2018 (arXiv 1801.03558), section 5.1.
    """
    autoencoder, betas = _annealable(model, chains, step_size), temperatures(steps, schedule)
    parts = []
    for start in range(0, len(x), BLOCK):
        part = x[start : start + BLOCK]
        noise = _rows(seed, start, part)
        z = autoencoder.prior.sample(len(part) * chains, noise=noise)
        parts.append(_chains(autoencoder, part, z, betas, noise, step_size, rows))
    log_w, acceptance = (torch.cat(found) for found in zip(*parts, strict=True))
    found = importance(log_w.T, (chains,))
    return Annealed(found.log_p[0], found.stderr[0], found.ess, acceptance)


def bdmc(
    model: Density,
    n: int = 100,
    *,
    steps: int = 500,
    chains: int = 16,
    schedule: Annealing = "sigmoid",
    step_size: float = 0.01,
    rows: int | None = None,
    seed: int = 0,
) -> Bidirectional:
    """Lower and upper bounds on log p(x) for n samples of the model itself: how far off `ais` is with these settings.

    Args:
        model, steps, chains, schedule, step_size, rows: as for `ais`.
        n: samples of the model.
        seed: of all draws.

    Raises:
        NoBound, ModelError, ConfigError: as `ais`; or n is less than 1.

    Reference: Grosse et al. 2015 (arXiv 1511.02543); Wu et al. 2017 (arXiv 1611.04273), section 4.2.
    """
    autoencoder, betas = _annealable(model, chains, step_size), temperatures(steps, schedule)
    if n < 1:
        raise ConfigError(f"n = {n}: draw at least 1 sample.")
    xs, uppers = [], []
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        noise = BlockNoise(seed_from(seed, 1), start, device=_any(model).device, dtype=_any(model).dtype)
        with torch.no_grad():
            z = autoencoder.prior.sample(size, noise=noise)
            x = autoencoder.decoder(z).sample(noise)
        known = z.repeat_interleave(chains, 0)
        log_w, _ = _chains(autoencoder, x, known, betas[::-1], _rows(seed_from(seed, 2), start, x), step_size, rows)
        xs.append(x)
        uppers.append(-importance(log_w.T, (chains,)).log_p[0])
    x = torch.cat(xs)
    options: dict[str, Any] = {"chains": chains, "schedule": schedule, "step_size": step_size, "rows": rows}
    found = ais(model, x, steps=steps, seed=seed_from(seed, 3), **options)
    return Bidirectional(x, found.log_p, torch.cat(uppers))


def _chains(
    model: Autoencoder, x: Tensor, z: Tensor, betas: Sequence[float], noise: Noise, first: float, rows: int | None
) -> tuple[Tensor, Tensor]:
    """log w (B, K) of K chains an example, which start at z (B K, ...), and each example's share of accepted transitions."""
    with torch.no_grad():
        model.decoder(z[:1]).check(x)
    target = Target(model, x.repeat_interleave(len(z) // len(x), 0), rows)
    log_w, accepted = _anneal(target, z, betas, noise, first)
    return log_w.reshape(len(x), -1), accepted.reshape(len(x), -1).mean(1)


def _rows(seed: int, start: int, x: Tensor) -> Noise:
    """Noise for (B K, ...) that depends on the seed and the example."""
    dtype = x.dtype if x.is_floating_point() else torch.float32  # symbols
    block, n = BlockNoise(seed, start, device=x.device, dtype=dtype), len(x)
    return lambda shape: block((n, shape[0] // n, *shape[1:])).reshape(shape)


def _annealable(model: Any, chains: int, step_size: float) -> Autoencoder:
    """The model, where it can be annealed."""
    if chains < 1:
        raise ConfigError(f"chains = {chains}: give at least 1.")
    if not LEAST_STEP <= step_size <= MOST_STEP:
        raise ConfigError(f"step_size = {step_size}: give a number from {LEAST_STEP} to {MOST_STEP}.")
    if not isinstance(model, Autoencoder):
        raise NoBound(
            f"Annealing goes from a prior to a decoder's posterior; {type(model).__name__} is no autoencoder."
        )
    if model.implicit:
        raise NoBound("Annealing needs log p(x | z) and its gradient, and a diffusion decoder only bounds it.")
    prior = model.prior
    while isinstance(prior, Standardized):
        prior = prior.inner
    if not isinstance(prior, StandardNormal | GaussianMixture):
        raise NoBound(
            f"Annealing needs log p(z) and its gradient in closed form, and a prior of type {type(prior).__name__} has none "
            "that is cheap. Use importance weights (`iwae`)."
        )
    return model


def _any(model: Density) -> Tensor:
    """Some number of the model: its device and type."""
    return next(iter([*model.parameters(), *model.buffers()]))
