"""Distributions over codes and data, one number per example, in nats.

Each says whether it is a counting measure or a density. Images live in [-1, 1]; a grid of L grey values has the spacing
2 / (L - 1). Densities are per unit of x in that space. Only counting measures may be quoted in bits per dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diled.api import NoBound, Noise, normal_noise, scale_gradient, sum_dims
from diled.bins import gaussian_bins, log_sum_exp, logistic_bins

__all__ = ["Bernoulli", "Dirac", "Discretized", "Logistic", "LogisticMixture", "NoisyGrid", "Normal", "on_grid"]

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Normal:
    """N(mean, exp(log_var)) with a diagonal covariance: a density.

    Args:
        mean: (B, ...).
        log_var: broadcastable to `mean`.
        learned: the variance was learned, so that `check` refuses data on a grid.
    """

    mean: Tensor
    log_var: Tensor
    learned: bool = False
    measure: ClassVar[str] = "density"

    @property
    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    @property
    def var(self) -> Tensor:
        """The variance, in the shape of the mean."""
        return self.log_var.exp().expand_as(self.mean)

    def sample(self, noise: Noise | None = None) -> Tensor:
        """mean + std e, differentiable."""
        e = (noise or normal_noise(self.mean))(tuple(self.mean.shape))
        return self.mean + (0.5 * self.log_var).exp() * e

    def nll(self, x: Tensor) -> Tensor:
        """1/2 sum [ log 2 pi + log var + (x - mean)^2 / var ], shape (B,)."""
        return sum_dims(0.5 * (LOG_2PI + self.log_var + (x - self.mean) ** 2 * (-self.log_var).exp()))

    def entropy(self) -> Tensor:
        """1/2 sum [ 1 + log 2 pi + log var ], shape (B,)."""
        return sum_dims(0.5 * (1 + LOG_2PI + self.log_var).expand_as(self.mean))

    def kl(self, other: Normal) -> Tensor:
        """KL(self || other), shape (B,)."""
        return sum_dims(self.kl_dims(other))

    def kl_dims(self, other: Normal) -> Tensor:
        """KL(self || other) of each dimension, in the shape of the mean."""
        log_ratio = self.log_var - other.log_var
        square = (self.mean - other.mean) ** 2 * (-other.log_var).exp()
        return 0.5 * (log_ratio.exp() + square - 1 - log_ratio)

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Normal:
        """The distribution of scale * x + shift."""
        log_scale = torch.as_tensor(scale, dtype=self.mean.dtype, device=self.mean.device).abs().log()
        return Normal(scale * self.mean + shift, self.log_var + 2 * log_scale)

    def scale_gradient(self, r: Tensor | float) -> Normal:
        """The same distribution whose parameters pass r times their gradient."""
        return Normal(scale_gradient(self.mean, r), scale_gradient(self.log_var, r))

    def repeat(self, k: int) -> Normal:
        """k copies of the batch, (k B, ...): copy-major."""
        return Normal(self.mean.repeat(k, *[1] * (self.mean.ndim - 1)), _repeat_batch(self.log_var, self.mean, k))

    def check(self, x: Tensor) -> None:
        """Refuse data on a grid when the variance is learned: such a density is unbounded above."""
        if (self.learned or self.log_var.requires_grad) and on_grid(x):
            raise NoBound(
                "A Gaussian likelihood of learned variance has no meaningful bound on data that sit on a grid (its density "
                "grows without limit). Use the discretised likelihood: set `levels` to the number of grey values."
            )


@dataclass(frozen=True)
class Dirac:
    """All mass on one point: a deterministic code. It has no entropy against Lebesgue measure, hence no bound."""

    mean: Tensor
    measure: ClassVar[str] = "density"
    has_entropy: ClassVar[bool] = False

    @property
    def mode(self) -> Tensor:
        """The point."""
        return self.mean

    def sample(self, noise: Noise | None = None) -> Tensor:
        """The point."""
        return self.mean

    def nll(self, x: Tensor) -> Tensor:
        """Raises `NoBound`."""
        raise NoBound("A deterministic code has no density.")

    def entropy(self) -> Tensor:
        """Raises `NoBound`."""
        raise NoBound(
            "A deterministic encoder has no entropy, so this model has no bound on -log p(x). "
            "Its reconstructions, samples and codes can still be used and compared."
        )

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Dirac:
        """The point scale * x + shift."""
        return Dirac(scale * self.mean + shift)

    def scale_gradient(self, r: Tensor | float) -> Dirac:
        """The same point with r times its gradient."""
        return Dirac(scale_gradient(self.mean, r))

    def check(self, x: Tensor) -> None:
        """Raises `NoBound`."""
        self.nll(x)


@dataclass(frozen=True)
class Bernoulli:
    """Independent pixels in {-1, 1} with P(x = 1) = sigmoid(logits): a counting measure.

    `nll` of grey values is the usual cross-entropy, which trains well but is no -log p of anything: `check` refuses it.
    """

    logits: Tensor
    measure: ClassVar[str] = "counting"

    @property
    def mean(self) -> Tensor:
        """2 P(x = 1) - 1, a grey image."""
        return 2 * torch.sigmoid(self.logits) - 1

    @property
    def mode(self) -> Tensor:
        """The likelier of -1 and 1."""
        return torch.where(self.logits > 0, 1.0, -1.0).to(self.logits)

    def sample(self, noise: Noise | None = None) -> Tensor:
        """A draw in {-1, 1}; normal noise is turned into uniform noise by its distribution function."""
        u = torch.special.ndtr((noise or normal_noise(self.logits))(tuple(self.logits.shape)))
        return torch.where(u < torch.sigmoid(self.logits), 1.0, -1.0).to(self.logits)

    def nll(self, x: Tensor) -> Tensor:
        """Cross-entropy of the pixels (x + 1) / 2, shape (B,)."""
        target = (0.5 * (x + 1)).to(self.logits.dtype)
        return sum_dims(F.binary_cross_entropy_with_logits(self.logits, target, reduction="none"))

    def entropy(self) -> Tensor:
        """Sum of the pixels' entropies, shape (B,)."""
        p = torch.sigmoid(self.logits)
        return sum_dims(F.binary_cross_entropy_with_logits(self.logits, p, reduction="none"))

    def check(self, x: Tensor) -> None:
        """Refuse grey values."""
        if not bool(((x - 1).abs() < 1e-6).logical_or((x + 1).abs() < 1e-6).all()):
            raise NoBound(
                "A Bernoulli likelihood of grey values is no probability, so it gives no bound. Binarise the data "
                "(`--preprocess.binarize dynamic` or `threshold`) or use a discretised likelihood."
            )


@dataclass(frozen=True)
class Logistic:
    """Logistic distributions with mean and log scale: a density, mostly used inside `Discretized`."""

    mean: Tensor
    log_scale: Tensor
    measure: ClassVar[str] = "density"

    @property
    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def log_cdf(self, x: Tensor, sign: Tensor) -> Tensor:
        """log P(sign * (X - x) < 0): the log of the distribution function (sign = 1) or of the survival function."""
        return F.logsigmoid(sign * (x - self.mean) * (-self.log_scale).exp())

    def quantile(self, noise: Tensor) -> Tensor:
        """The value whose distribution function equals that of standard normal `noise`."""
        return self.mean + self.log_scale.exp() * (torch.special.log_ndtr(noise) - torch.special.log_ndtr(-noise))

    def sample(self, noise: Noise | None = None) -> Tensor:
        """A draw, differentiable."""
        return self.quantile((noise or normal_noise(self.mean))(tuple(self.mean.shape)))

    def nll(self, x: Tensor) -> Tensor:
        """-log density, shape (B,)."""
        u = (x - self.mean) * (-self.log_scale).exp()
        return sum_dims(self.log_scale - F.logsigmoid(u) - F.logsigmoid(-u))

    def entropy(self) -> Tensor:
        """Sum of log scale + 2, shape (B,)."""
        return sum_dims((self.log_scale + 2).expand_as(self.mean))

    def check(self, x: Tensor) -> None:
        """Refuse data on a grid."""
        if self.log_scale.requires_grad and on_grid(x):
            raise NoBound("A logistic density has no meaningful bound on grid data; use the discretised likelihood.")


@dataclass(frozen=True)
class Discretized:
    """A Gaussian or logistic distribution rounded to a grid of `levels` values in [-1, 1]: a counting measure.

    P(x) = F(x + h) - F(x - h) with h = 1 / (levels - 1); the two outermost values take the tails
    (Salimans et al. 2017; Ho et al. 2020, Eq. 13). Differences are formed in the tail that is small, in logs.
    """

    base: Normal | Logistic
    levels: int
    measure: ClassVar[str] = "counting"

    @property
    def mean(self) -> Tensor:
        """The base's mean, clipped to the range."""
        return self.base.mean.clamp(-1, 1)

    @property
    def mode(self) -> Tensor:
        """The base's mean, rounded to the grid."""
        return round_to_grid(self.base.mean, self.levels)

    def sample(self, noise: Noise | None = None) -> Tensor:
        """A draw, rounded to the grid."""
        return round_to_grid(self.base.sample(noise), self.levels)

    def log_prob_dims(self, x: Tensor) -> Tensor:
        """log P of each dimension, in the shape of x."""
        return discretized_log_prob(self.base, x, self.levels)

    def nll(self, x: Tensor) -> Tensor:
        """-log P(x), shape (B,)."""
        return -sum_dims(self.log_prob_dims(x))

    def entropy(self) -> Tensor:
        """By summing over the grid, shape (B,)."""
        grid = torch.linspace(-1, 1, self.levels, device=self.base.mean.device, dtype=self.base.mean.dtype)
        h = torch.zeros_like(self.base.mean)
        for value in grid:
            log_p = self.log_prob_dims(value.expand_as(self.base.mean))
            h = h - log_p.exp() * log_p
        return sum_dims(h)

    def check(self, x: Tensor) -> None:
        """Refuse values off the grid."""
        _check_grid(x, self.levels)


@dataclass(frozen=True)
class LogisticMixture:
    """PixelCNN++'s discretised mixture of logistics over pixels of C channels: a counting measure.

    The K mixture weights are shared by the channels of a pixel, and the means of later channels depend linearly on the
    values of earlier ones (Salimans et al. 2017, section 2).

    Args:
        log_weights: (B, K, *S), normalised over K; S are the spatial dimensions.
        means, log_scales: (B, K, C, *S).
        coefficients: (B, K, C (C - 1) / 2, *S): for channel c, the c weights of the channels before it.
        levels: number of grid values.
    """

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor
    levels: int
    measure: ClassVar[str] = "counting"

    def _conditional_means(self, x: Tensor) -> Tensor:
        """Means (B, K, C, *S) of each channel given the channels of x (B, C, *S) before it."""
        means, i = [], 0
        for c in range(self.means.shape[2]):
            m = self.means[:, :, c]
            for earlier in range(c):
                m = m + self.coefficients[:, :, i] * x[:, None, earlier]
                i += 1
            means.append(m)
        return torch.stack(means, 2)

    @property
    def mean(self) -> Tensor:
        """Each channel's mixture mean given the mean values of the channels before it, (B, C, *S)."""
        weights = self.log_weights.exp()
        x = torch.zeros_like(self.means[:, 0])
        for c in range(x.shape[1]):
            x = x.clone()
            x[:, c] = (weights * self._conditional_means(x)[:, :, c]).sum(1).clamp(-1, 1)
        return x

    @property
    def mode(self) -> Tensor:
        """The centre of the likeliest component, channel by channel, rounded to the grid."""
        return self._draw(self.log_weights.argmax(1, keepdim=True), lambda m, s: m)

    def sample(self, noise: Noise | None = None) -> Tensor:
        """A draw: a component for each pixel, then its channels in turn."""
        noise = noise or normal_noise(self.means)
        b, k, c, *s = self.means.shape
        u = torch.special.ndtr(noise((b, 1, *s)))
        component = (self.log_weights.exp().cumsum(1) < u).sum(1, keepdim=True).clamp(max=k - 1)
        e = iter(noise((b, c, *s)).unbind(1))
        return self._draw(component, lambda m, log_s: Logistic(m, log_s).quantile(next(e)))

    def _draw(self, component: Tensor, draw) -> Tensor:  # type: ignore[no-untyped-def]
        x = torch.zeros_like(self.means[:, 0])
        for c in range(x.shape[1]):
            m = self._conditional_means(x)[:, :, c].gather(1, component)[:, 0]
            log_s = self.log_scales[:, :, c].gather(1, component)[:, 0]
            x = x.clone()
            x[:, c] = round_to_grid(draw(m, log_s), self.levels)
        return x

    def nll(self, x: Tensor) -> Tensor:
        """-log sum_k w_k prod_c P_k(x_c | x_<c), shape (B,)."""
        base = Logistic(self._conditional_means(x), self.log_scales)
        log_p = discretized_log_prob(base, x[:, None], self.levels).sum(2)
        return -sum_dims(log_sum_exp(self.log_weights + log_p, 1))

    def entropy(self) -> Tensor:
        """Raises `NoBound`: a mixture's entropy has no closed form."""
        raise NoBound("The entropy of a mixture of logistics has no closed form.")

    def check(self, x: Tensor) -> None:
        """Refuse values off the grid."""
        _check_grid(x, self.levels)


@dataclass(frozen=True)
class NoisyGrid:
    """What a noisy observation y = x + std e says of x on a grid: p(x) proportional to N(y; x, std^2), a counting measure.

    Args:
        observed: y, (B, ...).
        std: of the noise, a number.
        levels: number of grid values in [-1, 1].
        reach: values further than this from the nearest one are left out, as impossible; None: none is.

    Reference: Kingma et al. 2021, Eq. 8.
    """

    observed: Tensor
    std: Tensor
    levels: int
    reach: int | None = None
    measure: ClassVar[str] = "counting"

    def _candidates(self) -> tuple[Tensor, Tensor]:
        """Values near y and -(y - value)^2 / (2 std^2), both (B, ..., K)."""
        most = self.levels - 1
        if self.reach is None or 2 * self.reach >= most:
            index = torch.arange(self.levels, device=self.observed.device).expand(*self.observed.shape, -1)
        else:
            nearest = ((self.observed.clamp(-1, 1) + 1) * (0.5 * most)).round().clamp(self.reach, most - self.reach)
            index = nearest[..., None] + torch.arange(-self.reach, self.reach + 1, device=self.observed.device)
        values = index.to(self.observed.dtype) * (2 / most) - 1
        return values, self._exponent(self.observed[..., None] - values)

    def _exponent(self, gap: Tensor) -> Tensor:
        return -0.5 * (gap / self.std) ** 2

    @property
    def mean(self) -> Tensor:
        """E[x | y]."""
        values, exponent = self._candidates()
        return (exponent.softmax(-1) * values).sum(-1)

    @property
    def mode(self) -> Tensor:
        """The nearest grid value."""
        return round_to_grid(self.observed, self.levels)

    def sample(self, noise: Noise | None = None) -> Tensor:
        """A draw; normal noise is turned into uniform noise by its distribution function."""
        values, exponent = self._candidates()
        u = torch.special.ndtr((noise or normal_noise(self.observed))(tuple(self.observed.shape)))
        index = (exponent.softmax(-1).cumsum(-1) < u[..., None]).sum(-1, keepdim=True).clamp(max=values.shape[-1] - 1)
        return values.gather(-1, index)[..., 0]

    def nll(self, x: Tensor) -> Tensor:
        """-log p(x), shape (B,)."""
        return sum_dims(torch.logsumexp(self._candidates()[1], -1) - self._exponent(self.observed - x))

    def entropy(self) -> Tensor:
        """Sum over dimensions, shape (B,)."""
        log_p = self._candidates()[1].log_softmax(-1)
        return -sum_dims((log_p.exp() * log_p).sum(-1))

    def check(self, x: Tensor) -> None:
        """Refuse values off the grid."""
        _check_grid(x, self.levels)


def discretized_log_prob(base: Normal | Logistic, x: Tensor, levels: int) -> Tensor:
    """log [ F(x + h) - F(x - h) ] of each dimension, with open outermost bins; stable in both tails."""
    h = 1.0 / (levels - 1)
    if isinstance(base, Logistic):
        return logistic_bins(x, base.mean, base.log_scale, h)
    return gaussian_bins(x, base.mean, base.log_var, h)


def round_to_grid(x: Tensor, levels: int | Tensor) -> Tensor:
    """The nearest of `levels` equally spaced values in [-1, 1]."""
    return ((x.clamp(-1, 1) + 1) * (0.5 * (levels - 1))).round() * (2 / (levels - 1)) - 1


def on_grid(x: Tensor, levels: int = 256) -> bool:
    """Whether all values of x (B, ...) sit on a grid of at most `levels` equally spaced values in [-1, 1].

    One or two different numbers fit some grid by chance (a single one, every third time), so they must occur repeatedly.
    """
    x = x.detach()
    x = (x[:1] if bool((x == x[:1]).all()) else x).flatten()  # copies of one example tell no more than one
    few = x[:: max(1, len(x) // 1024)]
    different = few.unique()
    if int((different.abs() < 1 - 1e-6).sum()) < 3 and len(few) < 2 * len(different):
        return False
    counts = torch.tensor([*range(2, levels + 1)], device=x.device)
    probe = different[:: max(1, len(different) // 32)]
    possible = counts[((probe - round_to_grid(probe, counts[:, None])).abs() < 1e-5).all(1)]
    return any(_fits(few, n) and _fits(x, n) for n in possible.tolist())


def _fits(x: Tensor, levels: int) -> bool:
    return bool(((x - round_to_grid(x, levels)).abs() < 1e-5).all())


def _check_grid(x: Tensor, levels: int) -> None:
    worst = float((x - round_to_grid(x, levels)).detach().abs().max())
    if worst > 1e-4:
        raise NoBound(
            f"A discretised likelihood over {levels} values was given data off that grid (by {worst:.2g}), so it gives no "
            "bound. Set `levels` to the number of grey values of the data."
        )


def _repeat_batch(x: Tensor, like: Tensor, k: int) -> Tensor:
    if x.ndim == like.ndim and x.shape[0] == like.shape[0]:
        return x.repeat(k, *[1] * (x.ndim - 1))
    return x
