"""What each level of nested autoencoders holds: x -> z^1 -> ... -> z^n, the codes of one being the data of the next.

probe_accuracy/level=i       logistic regression on the mean codes of level i
reconstruction_mse/level=i   decoded from the mean code of level i through the means of all decoders below it
rate_nats/level=i            what level i costs given the level above it; the levels add up to the rate
code_shift/level=i           how far the mean code of level i moves when 2 % of the pixels of two-valued data flip
code_shift_noise/level=i     the same under Gaussian noise on the input

    rate_i = E[ log q(z^i | z^{i-1}) - log p(z^i | z^{i+1}) ],    rate_n = KL(q(z^n | z^{n-1}) || p(z^n)),    z^0 = x

A shift is sqrt(mean over dimensions of ((m'_i - m_i) / s_i)^2), with mean m_i and standard deviation s_i of the posterior,
so 1 is a move as large as the code's own noise. Means are passed on from level to level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diled.api import Density, NoBound, Noise, total
from diled.config import DataSpec
from diled.data.splits import Data, Split
from diled.draws import seeded
from diled.errors import ConfigError
from diled.evaluation.measure import Measured, probe, reconstruction
from diled.models.autoencoder import Autoencoder
from diled.models.sampling import BATCH
from diled.space import raw_tensor, to_space

__all__ = ["FLIPPED", "NOISE", "Level", "chain", "held", "levels", "rates", "shifts"]

FLIPPED = 0.02
"""Share of the pixels that flip."""
NOISE = 0.1
"""Standard deviation of the noise on the input, whose range is [-1, 1]."""


def chain(model: Any) -> list[Autoencoder]:
    """The nested autoencoders, the outermost first; one where the prior is none.

    Raises:
        ConfigError: the model is no autoencoder.
    """
    found = []
    while isinstance(model, Autoencoder):
        found.append(model)
        model = model.prior
    if not found:
        raise ConfigError(f"A {type(model).__name__} has no levels of codes: only autoencoders do.")
    return found


class Level(Density):
    """A nested autoencoder seen from one of its levels: encoded up to there, and decoded from there.

    Args:
        parts: the autoencoders from the outermost down to the level, which comes last.
    """

    has_codes = True

    def __init__(self, parts: list[Autoencoder]) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(parts)

    @property
    def implicit(self) -> bool:  # type: ignore[override]
        """Whether the outermost decoder is a diffusion."""
        return bool(self.parts[0].implicit)

    def encoder(self, x: Tensor) -> Any:
        """q(z^i | z^{i-1}) at the means of the levels before."""
        for part in self.parts[:-1]:
            x = part.encoder(x).mean  # type: ignore[operator]
        return self.parts[-1].encoder(x)  # type: ignore[operator]

    def encode(self, x: Tensor, *, noise: Noise | None = None, sample: bool = False) -> Tensor:
        """The posterior's mean, or a draw from it, (B, D)."""
        q = self.encoder(x)
        return q.sample(noise) if sample else q.mean

    def decode(self, z: Tensor, *, noise: Noise | None = None, draw: bool = False) -> Tensor:
        """Through the means of the decoders of all levels; the outermost one's picture, or a draw."""
        for part in reversed(self.parts[1:]):
            z = part.decoder(z).mean  # type: ignore[operator]
        return self.parts[0].decode(z, noise=noise, draw=draw)  # type: ignore[operator]

    def reconstruct(self, x: Tensor, *, noise: Noise | None = None, sample_code: bool = False) -> Tensor:
        """x decoded from its code at this level."""
        return self.decode(self.encode(x, noise=noise, sample=sample_code), noise=noise)


def levels(model: Any) -> list[Level]:
    """The model as seen from each of its levels, the first (nearest to the data) first.

    Raises:
        ConfigError: the model is no autoencoder.
    """
    parts = chain(model)
    return [Level(parts[: i + 1]) for i in range(len(parts))]


def held(model: Any, data: Data, *, repeats: int = 8, seed: int = 0, label: str | None = None) -> dict[str, Measured]:
    """All figures of this module, on the test split; the probe is fitted to training codes.

    Args:
        model: an autoencoder, nested or not.
        data: with its training and test splits.
        repeats: Monte-Carlo passes over the test split for the rates.
        seed: of binarisation, noise and flips.
        label: column for the probe; None: the first with classes.

    Raises:
        ConfigError: the model is no autoencoder.
    """
    spec = data.spec
    found = rates(model, data.test, spec, repeats=repeats, seed=seed)
    for i, level in enumerate(levels(model), 1):
        mine = probe(level, data.train, data.test, spec, label=label)
        mine |= reconstruction(level, data.test, spec, seed=seed)
        mine |= shifts(level, data.test, spec, seed=seed)
        found |= {f"{name}/level={i}": figure for name, figure in mine.items()}
    return found


@torch.no_grad()
def rates(model: Any, split: Split, spec: DataSpec, *, repeats: int = 8, seed: int = 0) -> dict[str, Measured]:
    """`rate_nats/level=i` of every level; nothing where the model admits no bound.

    Terms of level i are those that the names of the nested models precede i times; the innermost level has the rest.
    """
    n = len(chain(model))
    per_level: list[list[Tensor]] = [[] for _ in range(n)]
    try:
        with seeded(seed, 11):
            for x in _batches(split, spec, model):
                sums = [torch.zeros(len(x), dtype=torch.float64) for _ in range(n)]
                for _ in range(repeats):
                    terms = model.terms(x, exact=True)
                    for i in range(1, n + 1):
                        own = {name: t for name, t in terms.items() if min(depth(name), n) == i}
                        sums[i - 1] += total(own).double().cpu() / repeats
                for values, parts in zip(sums, per_level, strict=True):
                    parts.append(values)
    except NoBound:
        return {}
    return {f"rate_nats/level={i}": _mean(torch.cat(parts)) for i, parts in enumerate(per_level, 1)}


def depth(name: str) -> int:
    """How many autoencoders deep a term lies: `distortion` 0, `rate/kl` 1, `rate/rate/kl` 2."""
    return len(name.split("rate/")) - 1


@torch.no_grad()
def shifts(level: Level, split: Split, spec: DataSpec, *, seed: int = 0) -> dict[str, Measured]:
    """`code_shift` (two-valued data) and `code_shift_noise` of one level; nothing where its codes have no noise."""
    damages: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
        "code_shift_noise": (lambda x: x + NOISE * torch.randn_like(x), f"noise of {NOISE:g} on [-1, 1]")
    }
    if spec.levels == 2:
        flip = lambda x: torch.where(torch.rand_like(x) < FLIPPED, -x, x)  # noqa: E731
        damages["code_shift"] = flip, f"{FLIPPED:.0%} of the pixels flip"
    found = {}
    for name, (damage, words) in damages.items():
        moved = []
        with seeded(seed, 12):
            for x in _batches(split, spec, level):
                before = level.encoder(x)
                variance = getattr(before, "var", None)
                if variance is None:
                    return {}
                step = (level.encoder(damage(x)).mean - before.mean) ** 2 / variance
                moved.append(step.flatten(1).mean(1).sqrt().double().cpu())
        found[name] = _mean(torch.cat(moved), f"in the posterior's standard deviations; {words}")
    return found


def _mean(values: Tensor, note: str = "") -> Measured:
    stderr = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    return Measured(values.mean().item(), stderr, len(values), note)


def _batches(split: Split, spec: DataSpec, model: torch.nn.Module) -> Any:
    device = next(model.parameters()).device
    return (to_space(raw.to(device), spec) for raw in raw_tensor(split.values).split(BATCH))
