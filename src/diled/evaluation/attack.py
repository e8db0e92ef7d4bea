"""Attacks on encoders: small changes of an image that change its code most.

    x_a = x_r + e,    e = argmax_{|e|_inf <= radius} SKL[ q(. | x_r + e), q(. | x_r) ],
    SKL[p, q] = 1/2 KL(p || q) + 1/2 KL(q || p)                                        (Xiao et al. 2024, Eq. 10)

`paper_attack` is the published one, for comparison with published numbers; `sign_attack` is stronger, for a verdict; random
changes are what both must beat. Radii are of pixels in [0, 1]; images enter and leave in model space, [-1, 1]. What an
attack does to reconstructions is the business of `robustness.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from diled.api import Encoder, NoBound, Noise, evaluating, sum_dims
from diled.diffusion.schedule import like
from diled.distributions import Normal
from diled.draws import BLOCK, BlockNoise, seeded
from diled.errors import ConfigError, DataError, ModelError, did_you_mean
from diled.evaluation.similarity import from_unit, to_unit

__all__ = [
    "TARGETS",
    "Attack",
    "Attacker",
    "paper_attack",
    "plateau_sgd",
    "random_attack",
    "sign_attack",
    "sign_pgd",
    "skl",
]

TARGETS = ("skl", "means", "damage")
"""What an attack can maximise: the divergence of the codes, the squared distance of their means, or that of the images
decoded from the means."""

Gain: TypeAlias = Callable[[Tensor], Tensor]
"""What an attack maximises: images (B, ...) in [0, 1] -> (B,)."""

Climb: TypeAlias = Callable[[Gain, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(gain, images in [0, 1], normal noise of their shape) -> the attacked images in [0, 1], and the gain there (B,)."""


@dataclass(frozen=True, eq=False)
class Attack:
    """What an attack found.

    Attributes:
        reference: x_r (B, ...) in [-1, 1].
        attacked: x_a (B, R, ...) in [-1, 1]: of each restart, or of the worst one alone (R = 1).
        reached: (B, R), the target at x_a: `skl` in nats, `means` in squared units of the code, `damage` in squared pixels.
        radius: in units of [0, 1].
        target: what was maximised.
    """

    reference: Tensor
    attacked: Tensor
    reached: Tensor
    radius: float
    target: str


class Attacker(Protocol):
    """An attack with its settings, such as `functools.partial(sign_attack, steps=100)`."""

    def __call__(self, encoder: Encoder, x: Tensor, radius: float, *, seed: int, batch: int) -> Attack:
        """Attack x (B, ...) in [-1, 1]."""
        ...


def skl(p: Any, q: Any) -> Tensor:
    """The symmetric divergence 1/2 KL(p || q) + 1/2 KL(q || p) of diagonal Gaussians, (B,), in nats.

    At equal variances it is |m_p - m_q|^2 / (2 v).

    Raises:
        NoBound: one of them is no Gaussian; a deterministic code has no KL.
    """
    if not isinstance(p, Normal) or not isinstance(q, Normal):
        kind = type(q if isinstance(p, Normal) else p).__name__
        raise NoBound(f"SKL is of Gaussian codes, not of {kind}: attack the codes' `means` or the `damage` instead.")
    return 0.5 * p.kl(q) + 0.5 * q.kl(p)


# --------------------------------------------------------------------------------------------------- two ascents


def plateau_sgd(
    gain: Gain, u: Tensor, start: Tensor, radius: float, *, steps: int = 50, step_size: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Gradient ascent whose step is halved where the gain stands still: the published attack.

        e <- clamp(u + e, min u, max u) - u,      e <- clamp(e + rate grad gain(u + e), -radius, radius)

    `rate` starts at `step_size` and is halved after more than 20 steps with gain <= 0.9999 times the last better one;
    below 1e-6 the ascent ends. Every row has a rate of its own, so the result is that of attacking one by one.

    Args:
        gain: (B, ...) in [0, 1] -> (B,).
        u: images (B, ...) in [0, 1].
        start: the first e, (B, ...).
        radius: of the ball, in units of [0, 1].
        steps: at most.
        step_size: the first rate.

    Returns:
        The last attacked images in [0, 1], and their gain.

    Reference: Kuzina et al. 2022, and its code.
    """
    low, high = like(u.flatten(1).amin(1), u), like(u.flatten(1).amax(1), u)
    rate = torch.full_like(u.flatten(1)[:, 0], step_size)
    best, bad = torch.full_like(rate, -math.inf), torch.zeros_like(rate)
    e = start
    for _ in range(steps):
        e = torch.clamp(u + e, low, high) - u
        value, gradient = _value_and_slope(gain, u + e)
        e = (e + like(rate, u) * gradient).clamp(-radius, radius)
        better = value > (1 - 1e-4) * best
        best, bad = torch.where(better, value, best), torch.where(better, 0.0, bad + 1)
        spent = bad > 20
        rate, bad = torch.where(spent, 0.5 * rate, rate), torch.where(spent, 0.0, bad)
        rate = torch.where(rate < 1e-6, 0.0, rate)
    attacked = torch.clamp(u + e, low, high)
    with torch.no_grad():
        return attacked, gain(attacked)


def sign_pgd(
    gain: Gain, u: Tensor, start: Tensor, radius: float, *, steps: int = 50, step_size: float | None = None
) -> tuple[Tensor, Tensor]:
    """Projected ascent along the sign of the gradient, of which the best iterate of each row is kept.

    u_{k+1} = clamp(clamp(u_k + step sign(grad gain(u_k)), u - radius, u + radius), 0, 1)

    Args:
        gain: (B, ...) in [0, 1] -> (B,).
        u: images (B, ...) in [0, 1].
        start: u_0 - u, (B, ...); it is projected too.
        radius: of the ball, in units of [0, 1].
        steps: how many.
        step_size: in units of [0, 1]; None: 2.5 radius / steps.

    Returns:
        The attacked images in [0, 1], and their gain (B,).

    Reference: Madry et al. 2018 (arXiv 1706.06083), section 2.1.
    """
    step = 2.5 * radius / steps if step_size is None else step_size
    low, high = (u - radius).clamp(min=0), (u + radius).clamp(max=1)
    here = torch.clamp(u + start, low, high)
    best, found = torch.full_like(u.flatten(1)[:, 0], -math.inf), here
    for _ in range(steps):
        value, gradient = _value_and_slope(gain, here)
        found, best = torch.where(like(value > best, u), here, found), torch.maximum(value, best)
        here = torch.clamp(here + step * gradient.sign(), low, high)
    with torch.no_grad():
        value = gain(here)
    return torch.where(like(value > best, u), here, found), torch.maximum(value, best)


# ------------------------------------------------------------------------------------------------------ attacks


def paper_attack(
    encoder: Encoder,
    x: Tensor,
    radius: float,
    *,
    restarts: int = 10,
    steps: int = 50,
    step_size: float = 1.0,
    target: str = "skl",
    decode: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    batch: int = 256,
) -> Attack:
    """The published attack: `plateau_sgd` from e ~ 0.2 N(0, 1), all restarts kept, so that averages are over them.

    Args:
        encoder: x in [-1, 1] -> q(z | x). It is attacked in evaluation mode, and left as it was.
        x: references (B, ...) in [-1, 1].
        radius: in units of [0, 1].
        restarts, steps, step_size: 10, 50 (100 for CIFAR-10) and 1 in the paper.
        target: `skl`, `means` (the squared distance of the codes' means) or `damage` (that of the decoded means).
        decode: z -> x in [-1, 1], for `damage`.
        seed: of the starts, which depend on it, the example's number and the restart, not on `batch`.
        batch: images in one pass, about.

    Raises:
        ConfigError: a radius outside [0, 1], an unknown target, or `damage` without `decode`.
        DataError: no images, or pixels outside [-1, 1].
        ModelError: the encoder passes no gradient, or returns NaN.
        NoBound: `skl` of codes that are no Gaussians.

    Reference: Xiao et al. 2024, Eq. 10 and Table 2; Kuzina et al. 2022.
    """

    def climb(gain: Gain, u: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return plateau_sgd(gain, u, 0.2 * noise, radius, steps=steps, step_size=step_size)

    return _attack(encoder, x, radius, climb, restarts, steps, target, decode, seed, batch)


def sign_attack(
    encoder: Encoder,
    x: Tensor,
    radius: float,
    *,
    restarts: int = 20,
    steps: int = 50,
    target: str = "skl",
    decode: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    batch: int = 256,
) -> Attack:
    """The strong attack: `sign_pgd` from uniform starts in the ball; of each example the worst restart is kept.

    Arguments and errors are those of `paper_attack`.

    Reference: Madry et al. 2018 (arXiv 1706.06083).
    """

    def climb(gain: Gain, u: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        start = radius * (2 * torch.special.ndtr(noise) - 1)
        return sign_pgd(gain, u, start, radius, steps=steps)

    return _worst(_attack(encoder, x, radius, climb, restarts, steps, target, decode, seed, batch))


def random_attack(
    encoder: Encoder,
    x: Tensor,
    radius: float,
    *,
    restarts: int = 20,
    target: str = "skl",
    decode: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    batch: int = 256,
) -> Attack:
    """Random corners of the ball, cut to [0, 1], all kept: what an attack must beat. Arguments as for `paper_attack`."""

    def climb(gain: Gain, u: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        attacked = (u + radius * noise.sign()).clamp(0, 1)
        with torch.no_grad():
            return attacked, gain(attacked)

    return _attack(encoder, x, radius, climb, restarts, 1, target, decode, seed, batch)


def _attack(
    encoder: Encoder,
    x: Tensor,
    radius: float,
    climb: Climb,
    restarts: int,
    steps: int,
    target: str,
    decode: Callable[[Tensor], Tensor] | None,
    seed: int,
    batch: int,
) -> Attack:
    """Climb from every restart of every example; rows are examples times restarts, the restarts of one together."""
    check_radius(radius)
    u = pixels(x)
    for name, value in (("restarts", restarts), ("steps", steps), ("batch", batch)):
        if value < 1:
            raise ConfigError(f"{name} = {value}: an attack takes at least one.")
    view, distance = _target(encoder, target, decode)
    found: list[Tensor] = []
    reached: list[Tensor] = []
    with evaluating(encoder, decode), seeded(seed):
        for first in range(0, len(u), max(1, batch // restarts)):
            some = u[first : first + max(1, batch // restarts)]
            rows = some.repeat_interleave(restarts, 0)
            noise = noise_from(seed, first * restarts, rows)(tuple(rows.shape))
            with torch.no_grad():
                at_reference = view(from_unit(rows))

            def gain(v: Tensor, at: Any = at_reference) -> Tensor:
                return distance(view(from_unit(v)), at)

            for parts, rows_of in zip((found, reached), climb(gain, rows, noise), strict=True):
                parts.append(rows_of.unflatten(0, (len(some), restarts)))
    result = Attack(from_unit(u), from_unit(torch.cat(found)), torch.cat(reached), radius, target)
    if not bool(result.attacked.isfinite().all()) or not bool(result.reached.isfinite().all()):
        raise ModelError("The encoder gave NaN or infinite numbers under attack, so there is no result.")
    return result


def _target(
    encoder: Encoder, target: str, decode: Callable[[Tensor], Tensor] | None
) -> tuple[Callable[[Tensor], Any], Callable[[Any, Any], Tensor]]:
    """What is looked at, and how far two of it are apart."""
    if target not in TARGETS:
        raise ConfigError(f"Unknown target '{target}' of an attack.{did_you_mean(target, TARGETS)}")
    if target == "skl":
        return encoder, skl
    if target == "means":
        return lambda x: encoder(x).mean, squares
    if decode is None:
        raise ConfigError("The target 'damage' compares reconstructions: give `decode`, such as `model.decode`.")
    return lambda x: to_unit(decode(encoder(x).mean)), squares


def squares(a: Tensor, b: Tensor) -> Tensor:
    """sum (a - b)^2, (B,)."""
    return sum_dims((a - b) ** 2)


def _worst(attack: Attack) -> Attack:
    """Of each example the restart that reached most."""
    best = attack.reached.argmax(1)
    rows = torch.arange(len(best), device=best.device)
    return Attack(
        attack.reference, attack.attacked[rows, best][:, None], attack.reached[rows, best][:, None], attack.radius,
        attack.target,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- helpers


def _value_and_slope(gain: Gain, u: Tensor) -> tuple[Tensor, Tensor]:
    """The gain (B,) and its gradient."""
    with torch.enable_grad():
        u = u.detach().requires_grad_(True)
        value = gain(u)
        return value.detach(), slope(value, u)


def slope(value: Tensor, u: Tensor, *, keep: bool = False) -> Tensor:
    """d sum(value) / du; parameters get no gradient. `keep`: the graph, for further calls."""
    if not value.requires_grad:
        raise ModelError(
            "The encoder passes no gradient to its input, so it can neither be attacked nor differentiated."
        )
    return torch.autograd.grad(value.sum(), u, retain_graph=keep)[0]


def noise_from(seed: int, first: int, like: Tensor) -> Noise:
    """Standard normal rows number `first`, `first` + 1, ... of a series: row i depends on (seed, i) alone."""
    skip = first % BLOCK
    source = BlockNoise(seed, first - skip, device=like.device, dtype=like.dtype)
    return lambda shape: source((skip + shape[0], *shape[1:]))[skip:]


def pixels(x: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], refusing anything else."""
    if len(x) == 0 or not bool((x.abs() < 1 + 1e-4).all()):
        raise DataError("An attack needs at least one example, with finite values in [-1, 1].")
    return to_unit(x.detach()).clamp(0, 1)


def check_radius(radius: float) -> None:
    """Refuse a radius outside [0, 1]."""
    if not 0 <= radius <= 1:
        raise ConfigError(
            f"radius = {radius}: the radius of an attack is a share of the pixels' range, between 0 and 1."
        )
