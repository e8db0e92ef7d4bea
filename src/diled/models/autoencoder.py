"""The autoencoder: an encoder, a decoder and a prior.

    -log p(x) <= E_{z ~ q(z|x)} [ -log p(x|z) ] + KL(q(z|x) || p(z))
                  distortion                      rate

The prior is any density, so it may be N(0, I) (a VAE), a diffusion (DiLED), or another autoencoder (a hierarchy, the
two-stage VAE, DiLED with several learned levels). The rate's gradient reaches the encoder times `rate_weight`, while the
prior always trains at full weight and the printed number stays in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from diled.api import (
    Batch,
    Decoder,
    Density,
    Distribution,
    Encoder,
    Noise,
    Posterior,
    Terms,
    picture,
    with_gradient_of,
)
from diled.diffusion.objectives import StepWeight
from diled.diffusion.schedule import Schedule, alpha, sigma2
from diled.distributions import Bernoulli, Dirac, Discretized, Logistic, LogisticMixture, Normal
from diled.errors import ConfigError
from diled.sequences import TokenSequence

__all__ = [
    "Autoencoder",
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "DiracEncoder",
    "DiscretizedLikelihood",
    "Extra",
    "FixedNoiseEncoder",
    "GaussianEncoder",
    "GaussianLikelihood",
    "Likelihood",
    "LikelihoodDecoder",
    "LogisticMixtureLikelihood",
    "Rate",
    "cyclic",
    "portion",
    "warmup",
]

Extra = Callable[["Autoencoder", Batch, Distribution, Tensor], Terms]
"""(model, batch, q, z) -> named terms (B,) that train but never enter the bound."""

RateWeight = Callable[[Tensor | float], Tensor | float]
"""progress in [0, 1] -> r."""


def warmup(weight: float = 1.0, share: float = 0.0) -> RateWeight:
    """A linear ramp from 0 to `weight` over the first `share` of the training, then constant."""

    def at(progress: Tensor | float) -> Tensor | float:
        if share <= 0:
            return weight
        if isinstance(progress, Tensor):
            return weight * (progress / share).clamp(max=1.0)
        return weight * min(progress / share, 1.0)

    return at


def cyclic(weight: float = 1.0, cycles: int = 4, share: float = 0.5) -> RateWeight:
    """`cycles` ramps from 0 to `weight` in turn, each over the first `share` of its cycle (Fu et al. 2019, Eq. 7)."""
    ramp = warmup(weight, share)

    def at(progress: Tensor | float) -> Tensor | float:
        phase = progress * cycles
        if isinstance(phase, Tensor):
            return ramp(phase - phase.floor().clamp(max=cycles - 1))
        return ramp(phase - min(math.floor(phase), cycles - 1))

    return at


def portion(weight: RateWeight, index: int, count: int) -> RateWeight:
    """What `weight` is within part `index` of a training in `count` equal parts, each with a progress of its own."""
    return lambda progress: weight((index + progress) / count)


class Autoencoder(Density):
    """Encoder, decoder and prior, trained jointly.

    Args:
        encoder: x -> q(z | x).
        decoder: z -> p(x | z).
        prior: a density over z.
        rate_weight: r, or r(progress): how much of the rate's gradient the encoder feels. `bound()` ignores it.
        extras: functions (model, batch, q, z) -> named (B,) terms, added in training only.
        distortion_weight: (B, like) -> weights (B,) of each example's distortion in the gradient, drawn anew in each
            training step; None: one. Neither the printed nats nor `bound()` know of it.
        distortion_scale: x -> factors (B,) of the same, such as one over the symbols of each sequence; None: one.

    Example:
        >>> model = Autoencoder(GaussianEncoder(net), LikelihoodDecoder(net2, BernoulliLikelihood()), StandardNormal((8,)))
    """

    has_codes = True

    def __init__(
        self,
        encoder: Encoder | nn.Module,
        decoder: Decoder | nn.Module,
        prior: Density,
        *,
        rate_weight: float | RateWeight = 1.0,
        extras: Sequence[Extra] = (),
        distortion_weight: StepWeight | None = None,
        distortion_scale: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.decoder: Any = decoder
        self.prior = prior
        self.rate_weight = rate_weight if callable(rate_weight) else warmup(rate_weight)
        self.distortion_weight, self.distortion_scale = distortion_weight, distortion_scale
        self.extras: tuple[Extra, ...] = ()
        self.extra = nn.ModuleList()
        for extra in extras:
            self.add(extra)

    def add(self, extra: Extra) -> None:
        """One more extra."""
        self.extras += (extra,)
        if isinstance(extra, nn.Module):
            self.extra.append(extra)

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns that the extras learn from."""
        return tuple(column for extra in self.extras for column in getattr(extra, "columns", ()))

    @property
    def implicit(self) -> bool:  # type: ignore[override]
        """Whether the decoder is a diffusion."""
        return getattr(self.decoder, "implicit", False)

    def terms(
        self,
        q: Tensor | Posterior,
        *,
        exact: bool = False,
        progress: Tensor | float = 1.0,
        labels: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Terms:
        """`distortion`, the prior's terms as `rate/...`, and in training the extras as `extra/...`.

        `labels` are columns (B,) for the extras that learn from them; no bound depends on them.
        """
        if not isinstance(q, Tensor):
            return self.terms_of_sample(q, exact=exact, progress=progress)
        x, posterior = q, self.encoder(q)
        z = posterior.sample()
        likelihood = self.decoder(z)
        if exact:
            likelihood.check(x)
        r = 1.0 if exact else self.rate_weight(progress)
        rate = self.prior.terms(posterior.scale_gradient(r), exact=exact, progress=progress)
        distortion = likelihood.nll(x)
        if not exact:
            trained = distortion
            if self.distortion_weight is not None:
                trained = self.distortion_weight(len(distortion), distortion.detach()) * trained
            if self.distortion_scale is not None:
                trained = self.distortion_scale(x) * trained
            if trained is not distortion:
                distortion = with_gradient_of(distortion, trained)
        terms = {"distortion": distortion, **{f"rate/{name}": term for name, term in rate.items()}}
        if not exact:
            for extra in self.extras:
                found = extra(self, Batch(x, labels), posterior, z)
                terms |= {f"extra/{name}": term for name, term in found.items()}
        return terms

    def sample(self, n: int, *, noise: Noise | None = None, mean: bool = False, **options: Any) -> Tensor:
        """x decoded from n codes of the prior: a draw from p(x | z), or with `mean` its picture (the decoder's mean).

        `options` (steps, sampler) go to the prior, whose codes are always draws, also where it is an autoencoder itself.
        """
        likelihood = self.decoder(self.prior.sample(n, noise=noise, **options))
        return picture(likelihood, noise) if mean else likelihood.sample(noise)

    def encode(self, x: Tensor, *, noise: Noise | None = None, sample: bool = False) -> Tensor:
        """The posterior's mean, or a draw from it, (B, D)."""
        posterior = self.encoder(x)
        return posterior.sample(noise) if sample else posterior.mean

    def decode(self, z: Tensor, *, noise: Noise | None = None, draw: bool = False) -> Tensor:
        """The picture of p(x | z), the decoder's mean (see `api.picture`); or with `draw` a draw from it."""
        return self.decoder(z).sample(noise) if draw else picture(self.decoder(z), noise)

    def reconstruct(
        self, x: Tensor, *, noise: Noise | None = None, sample_code: bool = False, invert: bool = False
    ) -> Tensor:
        """x decoded from its code.

        Args:
            x: (B, ...).
            noise: of a drawn code, and of a diffusion decoder.
            sample_code: from a draw of the posterior instead of its mean.
            invert: of a diffusion decoder, start from the x_T that DDIM inversion finds for x and its code, so that what
                the code does not say is kept as well.

        Raises:
            ConfigError: `invert` where the decoder is no diffusion.
        """
        z = self.encode(x, noise=noise, sample=sample_code)
        if not invert:
            return self.decode(z, noise=noise)
        if not self.implicit:
            raise ConfigError("invert has no meaning here: the decoder is no diffusion, so a code says all there is.")
        likelihood = self.decoder(z)
        return likelihood.from_noise(likelihood.invert(x))


class Rate(Density):
    """Only the rate of an autoencoder: what a second stage trains, on the codes of a frozen encoder."""

    def __init__(self, encoder: nn.Module, prior: Density) -> None:
        super().__init__()
        self.encoder, self.prior = encoder, prior

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """The prior's terms as `rate/...`; nothing reaches the encoder."""
        with torch.no_grad():
            posterior = self.encoder(q)
        terms = self.prior.terms(posterior, exact=exact, progress=progress)
        return {f"rate/{name}": term for name, term in terms.items()}

    def sample(self, n: int, *, noise: Noise | None = None, **options: Any) -> Tensor:
        """Codes of the prior."""
        return self.prior.sample(n, noise=noise, **options)


class GaussianEncoder(nn.Module):
    """q(z | x) = N(m(x), v(x)) with a learned diagonal variance.

    Args:
        network: x -> (B, 2 D): means and raw log-variances, softly limited to [-`limit`, `limit`].
    """

    def __init__(self, network: nn.Module, *, limit: float = 10.0) -> None:
        super().__init__()
        self.network, self.limit = network, limit

    def forward(self, x: Tensor) -> Normal:
        """The posterior of each example."""
        mean, raw = self.network(x).float().chunk(2, dim=1)
        return Normal(mean, self.limit * torch.tanh(raw / self.limit))


class FixedNoiseEncoder(nn.Module):
    """q(z_0 | x) = N(alpha_0 E(x), sigma_0^2): the encoder is the diffusion's first step (Liu et al. 2024, section 3).

    Args:
        network: x -> (B, D).
        schedule: the prior's schedule, whose clean end is the encoder's noise.
    """

    def __init__(self, network: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.network, self.schedule = network, schedule

    def forward(self, x: Tensor) -> Normal:
        """The posterior of each example."""
        gamma_0 = self.schedule.ends[0]
        code = self.network(x).float()
        return Normal(alpha(gamma_0) * code, torch.log(sigma2(gamma_0)).expand_as(code))


class DiracEncoder(nn.Module):
    """A deterministic code: no entropy, so no bound."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Dirac:
        """The code of each example."""
        return Dirac(self.network(x).float())


class Likelihood(nn.Module):
    """Turns a network's output into p(x | z). Abstract."""

    def parameters_per_channel(self, channels: int) -> int:
        """P: numbers needed for each channel of x."""
        raise NotImplementedError

    def parameters_per_pixel(self, channels: int) -> int:
        """Numbers needed for all C channels of a pixel: C P, or fewer where P is rounded up."""
        return channels * self.parameters_per_channel(channels)

    def forward(self, raw: Tensor) -> Distribution:
        """raw (B, C P, *S) -> the distribution of x (B, C, *S)."""
        raise NotImplementedError


class LikelihoodDecoder(nn.Module):
    """p(x | z): a network whose outputs are a likelihood's parameters.

    Args:
        network: z -> (B, C P, *S), with C P = `likelihood.parameters_per_pixel(C)`.
        likelihood: turns them into a distribution.
    """

    def __init__(self, network: nn.Module, likelihood: Likelihood) -> None:
        super().__init__()
        self.network, self.likelihood = network, likelihood

    def forward(self, z: Tensor) -> Distribution:
        """The distribution of x given each code."""
        return self.likelihood(self.network(z).float())


class BernoulliLikelihood(Likelihood):
    """Pixels in {-1, 1}."""

    def parameters_per_channel(self, channels: int) -> int:
        """One logit."""
        return 1

    def forward(self, raw: Tensor) -> Bernoulli:
        """raw (B, C, *S)."""
        return Bernoulli(raw)


class GaussianLikelihood(Likelihood):
    """N(mean, std^2), a density for continuous data.

    A variance that belongs to no example, but to all (Dai & Wipf 2019; Rybkin et al. 2021), starts at a std of e^-1, and its
    logarithm is ten times the parameter: at one optimiser's step for all, a lone number would crawl behind the networks.

    Args:
        std: a fixed standard deviation; None: learned.
        shape: of a learned std that all examples share: () for one, (D,) for one of each feature.
        per_dimension: one output of the network for each dimension of each example instead.
    """

    PACE = 10.0

    def __init__(self, std: float | None = None, *, shape: tuple[int, ...] = (), per_dimension: bool = False) -> None:
        super().__init__()
        self.per_dimension = per_dimension
        self.learned = std is None
        if std is None and not per_dimension:
            self.pace = nn.Parameter(torch.full(shape, -2.0 / self.PACE))
        elif std is not None:
            self.register_buffer("fixed", 2 * torch.log(torch.tensor(float(std))))

    @property
    def log_var(self) -> Tensor:
        """The shared log-variance."""
        return self.PACE * self.pace if self.learned else self.fixed  # type: ignore[return-value]

    def parameters_per_channel(self, channels: int) -> int:
        """A mean, and a log-variance where it is the network's."""
        return 2 if self.per_dimension else 1

    def forward(self, raw: Tensor) -> Normal:
        """raw (B, C P, *S)."""
        if self.per_dimension:
            mean, log_var = raw.chunk(2, dim=1)
            return Normal(mean, 10 * torch.tanh(log_var / 10), learned=True)
        return Normal(raw, self.log_var.expand_as(raw), learned=self.learned)


class DiscretizedLikelihood(Likelihood):
    """A Gaussian or logistic rounded to the data's grey values: a probability.

    Args:
        levels: number of grey values.
        kind: `gaussian` or `logistic`.
        std: a fixed standard deviation of a Gaussian (in units of the range [-1, 1]); None: learned for each dimension.
    """

    def __init__(self, levels: int, kind: str = "logistic", *, std: float | None = None) -> None:
        super().__init__()
        self.levels, self.kind, self.std = levels, kind, std

    def parameters_per_channel(self, channels: int) -> int:
        """A mean, and a log scale unless it is fixed."""
        return 1 if self.std is not None else 2

    def forward(self, raw: Tensor) -> Discretized:
        """raw (B, C P, *S)."""
        if self.std is not None:
            return Discretized(Normal(raw, torch.full_like(raw, 2 * math.log(self.std))), self.levels)
        mean, log_scale = raw.chunk(2, dim=1)
        log_scale = log_scale.clamp(min=-7.0) - 1.0  # start at a scale of e^-1: a third of the range
        base = Normal(mean, 2 * log_scale) if self.kind == "gaussian" else Logistic(mean, log_scale)
        return Discretized(base, self.levels)


class CategoricalLikelihood(Likelihood):
    """Sequences of symbols, each position by itself; a network gives (B, L, V) logits.

    Args:
        ends: whether sequences may be shorter than L; else the end has no probability.
    """

    def __init__(self, *, ends: bool = True) -> None:
        super().__init__()
        self.ends = ends

    def forward(self, raw: Tensor) -> TokenSequence:
        """raw (B, L, V)."""
        if self.ends:
            return TokenSequence(raw)
        return TokenSequence(torch.cat([torch.full_like(raw[..., :1], -1e9), raw[..., 1:]], 2))


class LogisticMixtureLikelihood(Likelihood):
    """PixelCNN++'s discretised mixture of logistics.

    Args:
        levels: number of grey values.
        components: K.
    """

    def __init__(self, levels: int, components: int = 5) -> None:
        super().__init__()
        self.levels, self.components = levels, components

    def parameters_per_channel(self, channels: int) -> int:
        """K weights per pixel, and for each channel K means, scales and (C - 1) / 2 coefficients, rounded up."""
        return -(-self.parameters_per_pixel(channels) // channels)

    def parameters_per_pixel(self, channels: int) -> int:
        """K (1 + 2 C + C (C - 1) / 2): 100 for ten components over RGB."""
        return self.components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def forward(self, raw: Tensor) -> LogisticMixture:
        """raw (B, C P, *S), or without what P is rounded up by; C is recovered from the number of parameters."""
        b, k, n = raw.shape[0], self.components, raw.shape[1]
        c = next(c for c in range(1, n + 1) if n in (self.parameters_per_pixel(c), c * self.parameters_per_channel(c)))
        pairs = c * (c - 1) // 2
        s = raw.shape[2:]
        weights, means, scales, coefficients, _ = raw.split(
            [k, k * c, k * c, k * pairs, n - k * (1 + 2 * c + pairs)], 1
        )
        spread = torch.linspace(-0.8, 0.8, k).to(raw).reshape(1, k, 1, *[1] * len(s))
        return LogisticMixture(
            weights.log_softmax(1),
            means.reshape(b, k, c, *s) + spread,
            scales.reshape(b, k, c, *s).clamp(min=-7.0) - 1.0,
            torch.tanh(coefficients).reshape(b, k, pairs, *s),
            self.levels,
        )
