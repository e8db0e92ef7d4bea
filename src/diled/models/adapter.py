"""A model's `encode` and `decode` as an encoder and a decoder of ours: grey values in [-1, 1], flat codes, distributions.

With a model that reads and writes grey values v in [low, high],

    v = (high - low) (x + 1) / 2 + low          x = 2 (v - low) / (high - low) - 1

What each method may return is listed in `foreign.from_function`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diled.api import Distribution, Noise
from diled.config import DataSpec
from diled.distributions import Bernoulli, Dirac, Discretized, Normal
from diled.draws import BLOCK, BlockNoise
from diled.errors import ModelError, NoBound

__all__ = ["Adapter", "AdapterDecoder", "AdapterEncoder", "Means", "described", "modules_of"]

RANGES = ((-1.0, 1.0), (0.0, 1.0))
"""Ranges of grey values that are tried where a model declares none."""
KNOWN = {"_parameters", "_buffers", "_modules"}
"""Attributes of a module of which torch knows."""


@dataclass(frozen=True)
class Means(Dirac):
    """Decoded pictures of which no standard deviation is known (yet): there is no bound."""

    def nll(self, x: Tensor) -> Tensor:
        """Raises `NoBound`."""
        raise NoBound(
            "This decoder returns pictures and no distribution. `fit` on training images assumes a Gaussian around them."
        )


class Adapter(nn.Module):
    """A model's `encode` and `decode` in model space, with flattened codes.

    Args:
        model: with `encode` and `decode`.
        source: its name in complaints.
        spec: of the data.
        device: where it computes.
    """

    def __init__(self, model: Any, source: str, spec: DataSpec, device: str) -> None:
        super().__init__()
        self.model, self.source, self.spec, self.device = model, source, spec, device
        self.parts = nn.ModuleList(modules_of(model).values())  # whose owner may be no module
        self.deterministic = bool(getattr(model, "deterministic", False))
        declared = getattr(model, "logits", None)
        self.logits = spec.levels == 2 if declared is None else bool(declared)
        self.range = _range(getattr(model, "range", None), source)
        self.scale = self.range or RANGES[0]
        self.latent_shape: tuple[int, ...] = ()
        self.std: float | None = None

    def changed(self, **values: Any) -> Adapter:
        """The same model with other attributes: `scale`, `std`, `latent_shape`."""
        other = copy.copy(self)
        vars(other).update(values)
        return other

    def posterior(self, x: Tensor) -> Normal | Dirac:
        """x (B, *shape) in [-1, 1] -> q(z | x) over codes in the model's own shape."""
        low, high = self.scale
        found = self._attempt("encode", 0.5 * (high - low) * (x + 1) + low)
        if isinstance(found, Tensor):
            if not self.deterministic:
                raise ModelError(
                    f"{self.source}: encode returns no distribution but a tensor {tuple(found.shape)}. Return its mean and "
                    "log-variance, or set the attribute `deterministic = True` (then there is no bound)."
                )
            return Dirac(found.float())
        return _normal(found, f"{self.source}: encode")

    def flat(self, x: Tensor) -> Normal | Dirac:
        """x (B, *shape) in [-1, 1] -> q(z | x) over (B, D)."""
        q = self.posterior(x)
        if isinstance(q, Dirac):
            return Dirac(q.mean.flatten(1))
        return Normal(q.mean.flatten(1), q.log_var.flatten(1))

    def likelihood(self, z: Tensor) -> Distribution:
        """z (B, D) -> p(x | z)."""
        found = self.raw(z)
        if isinstance(found, Tensor):
            return self._of_tensor(self._picture(found, z))
        if isinstance(found, torch.distributions.Bernoulli):
            return Bernoulli(self._picture(found.logits, z))
        if isinstance(found, torch.distributions.Normal):
            low, high = self.scale
            log_std = torch.log(self._picture(found.scale, z) * (2 / (high - low)))
            return self._gaussian(self._ours(self._picture(found.loc, z)), 2 * log_std, learned=True)
        if isinstance(found, Distribution):
            self._picture(found.mean, z)
            return found
        raise ModelError(
            f"{self.source}: decode returned {described(found)}, which must be a tensor, a torch.distributions.Normal or "
            "Bernoulli, or a distribution of diled."
        )

    def raw(self, z: Tensor) -> Any:
        """What `decode` returns, out of what it may be wrapped in."""
        found = self._attempt("decode", z.reshape(len(z), *self.latent_shape))
        if isinstance(getattr(found, "sample", None), Tensor):  # as diffusers' models do
            found = found.sample
        return found.base_dist if isinstance(found, torch.distributions.Independent) else found

    def _of_tensor(self, values: Tensor) -> Distribution:
        if self.logits:
            return Bernoulli(values)
        mean = self._ours(values)
        if self.spec.levels == 2:
            return Bernoulli(torch.logit(0.5 * (mean + 1), eps=1e-6))
        if self.std is None:
            return Means(mean)
        return self._gaussian(mean, torch.full_like(mean, 2 * math.log(self.std)))

    def _gaussian(self, mean: Tensor, log_var: Tensor, *, learned: bool = False) -> Distribution:
        """In the data's own measure."""
        if self.spec.levels is None:
            return Normal(mean, log_var, learned=learned)
        return Discretized(Normal(mean, log_var), self.spec.levels)

    def _ours(self, values: Tensor) -> Tensor:
        """The model's grey values -> [-1, 1]."""
        low, high = self.scale
        return (values - low) * (2 / (high - low)) - 1

    def _attempt(self, method: str, argument: Tensor) -> Any:
        try:
            return getattr(self.model, method)(argument)
        except Exception as error:
            raise ModelError(
                f"{self.source}: {method} raised {type(error).__name__} for a tensor {tuple(argument.shape)}: {error}"
            ) from error

    def _picture(self, values: Tensor, z: Tensor) -> Tensor:
        wanted = (len(z), *self.spec.shape)
        if tuple(values.shape) != wanted:
            raise ModelError(
                f"{self.source}: decode returned the shape {tuple(values.shape)} where {wanted} is wanted."
            )
        return values.float()

    # What is settled on images

    @property
    def smallest_std(self) -> float:
        """Where pictures match exactly. On a grid: so small that all but 1e-4 lies on the nearest grey value."""
        return 1e-4 if self.spec.levels is None else 0.25 / (self.spec.levels - 1)

    @torch.no_grad()
    def returns_means(self, x: Tensor) -> bool:
        """Whether `decode` says no more of p(x | z) than a picture."""
        return isinstance(self.changed(std=None).likelihood(self.flat(x.to(self.device)).mean), Means)

    @torch.no_grad()
    def squared_error(self, x: Tensor, batch_size: int, seed: int) -> float:
        """The mean of (x - mu(z))^2 over images and dimensions, for one z ~ q(z | x) each."""
        error, dim = 0.0, math.prod(self.latent_shape)
        for start in range(0, len(x), BLOCK):
            block = x[start : start + BLOCK]
            noise = BlockNoise(seed, start, device=self.device)((len(block), dim))
            for part, e in zip(block.split(batch_size), noise.split(batch_size), strict=True):
                batch = part.to(self.device)
                z = self.flat(batch).sample(_given(e))
                error += float((batch - self.likelihood(z).mean).square().sum())
        return error / x.numel()

    def with_range(self, x: Tensor, what: str, batch_size: int = BLOCK, seed: int = 0) -> tuple[Adapter, list[str]]:
        """The same with the range that reconstructs x best, unless the model declares one; and what to note of that."""
        if self.range is not None:
            return self, []
        tried = [(self.changed(scale=scale).squared_error(x, batch_size, seed), scale) for scale in RANGES]
        (best, scale), (worse, other) = sorted(tried, key=lambda pair: pair[0])
        note = (
            f"range: the model declares none. Its grey values are taken to lie in {_span(scale)}, which reconstructs {what} "
            f"with a mean squared error of {best:.3g} ({_span(other)}: {worse:.3g})"
        )
        return self.changed(scale=scale), [note]

    def std_note(self, std: float, n: int) -> str:
        """What was assumed of p(x | z)."""
        rounded = "" if self.spec.levels is None else f", rounded to {self.spec.levels} grey values"
        return (
            f"likelihood: decode returns pictures only. p(x | z) is assumed to be Gaussian around them{rounded}, with one "
            f"standard deviation for all, {std:.4g} in units of [-1, 1], the best for {n:,} training images"
        )


def _given(e: Tensor) -> Noise:
    """Noise that is drawn already."""
    return lambda shape: e


class AdapterEncoder(nn.Module):
    """x -> q(z | x)."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, x: Tensor) -> Normal | Dirac:
        """x (B, *shape) -> q over (B, D)."""
        return self.adapter.flat(x)


class AdapterDecoder(nn.Module):
    """z -> p(x | z)."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, z: Tensor) -> Distribution:
        """z (B, D) -> p over (B, *shape)."""
        return self.adapter.likelihood(z)


def _normal(found: Any, where: str) -> Normal:
    """What `encode` returns as a Gaussian."""
    found = getattr(found, "latent_dist", found)  # as diffusers' models do
    found = found.base_dist if isinstance(found, torch.distributions.Independent) else found
    mean: Any
    if isinstance(found, torch.distributions.Normal):
        mean, log_var = found.loc, 2 * found.scale.log()
    elif isinstance(found, Normal):
        mean, log_var = found.mean, found.log_var.expand_as(found.mean)
    elif isinstance(found, tuple | list) and len(found) == 2:
        mean, log_var = found
    elif isinstance(found, torch.distributions.Distribution):
        raise ModelError(f"{where} returned {described(found)}, which is no Gaussian with independent dimensions.")
    else:
        mean, log_var = getattr(found, "mean", None), _log_var(found)
    if not isinstance(mean, Tensor) or not isinstance(log_var, Tensor):
        raise ModelError(
            f"{where} returns no distribution but {described(found)}. Return a torch.distributions.Normal, "
            "(mean, log-variance), or something with `mean` and `logvar`."
        )
    if mean.shape != log_var.shape:
        raise ModelError(
            f"{where} returned a mean of shape {tuple(mean.shape)} and a variance of shape {tuple(log_var.shape)}."
        )
    return Normal(mean.float(), log_var.float())


def _log_var(found: Any) -> Any:
    """The log-variance under the name that it has."""
    for name in ("logvar", "log_var"):
        if isinstance(getattr(found, name, None), Tensor):
            return getattr(found, name)
    for name in ("std", "stddev"):
        if isinstance(getattr(found, name, None), Tensor):
            return 2 * getattr(found, name).log()
    return None


def _range(declared: Any, source: str) -> tuple[float, float] | None:
    """The range of grey values that a model declares."""
    if declared is None:
        return None
    try:
        low, high = (float(value) for value in declared)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not low < high:
        raise ModelError(f"{source}: the attribute `range` must be (low, high), such as (0, 1), not {declared!r}.")
    return low, high


def _span(scale: tuple[float, float]) -> str:
    return f"[{scale[0]:g}, {scale[1]:g}]"


def described(value: Any) -> str:
    """A value in a complaint: its type, and the shapes of tensors in it."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} ({', '.join(described(v) for v in value[:4])})"
    return f"an object of type {type(value).__name__}"


def modules_of(model: Any) -> dict[str, nn.Module]:
    """The torch modules of a model: itself, or its attributes, and what these hold in lists, tuples and dicts."""
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", model if isinstance(model, nn.Module) else getattr(model, "__dict__", {}))]
    while waiting:
        name, value = waiting.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found[name] = value
            for path, module in value.named_modules():
                seen.add(id(module))
                waiting += [(f"{name}.{path}.{key}", held) for key, held in vars(module).items() if key not in KNOWN]
        elif isinstance(value, dict | list | tuple):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{name}.{key}" if name else str(key), held) for key, held in items]
    return found
