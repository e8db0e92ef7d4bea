"""Estimates of log p(x) that are tighter than the bound: weights of codes, and their means.

    w = p(x, z) / q(z | x),  z ~ q(z | x):    E[w] = p(x),    E log(1/K sum_k w_k) <= log p(x), rising with K

(Burda et al. 2016, Theorem 1). The bound's estimate of a diffusion's rate is a mean over noise levels, and the exponential
of a mean is no weight: averaged as one it would come out tens of nats too good. A diffusion over z_0 enters by either of

    path    p(z_0, ..., z_T) / q(z_1, ..., z_T | z_0)                              z_1, ..., z_T drawn from q
    ode     p(z_0) of the probability-flow ODE, dz/dgamma = 1/2 alpha (alpha z - x_hat(z)),

            log p(z_0) = log N(z_1; 0, I) + int 1/2 alpha (alpha D - tr dx_hat/dz) dgamma,   from gamma_0 to gamma_1

(Chen et al. 2018, Eq. 8; Song et al. 2021, Eq. 39). One belongs to the reverse chain of as many steps and the other to the
ODE: two models with one denoiser, which agree where it is exact and steps are many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from diled.api import Density, NoBound, Noise, Posterior, has_entropy, normal_noise, stack, sum_dims, total
from diled.diffusion.data import DataDiffusion
from diled.diffusion.diffusion import Diffusion
from diled.diffusion.process import alpha_ratio, bridge_variance
from diled.diffusion.schedule import alpha
from diled.distributions import Normal
from diled.draws import BLOCK, BlockNoise, seed_from, seeded
from diled.errors import ConfigError, ModelError
from diled.models.autoencoder import Autoencoder
from diled.models.exact_sequences import LanguageModel, Potts, Profile
from diled.models.priors import GaussianMixture, Standardized, StandardNormal
from diled.models.trivial import PPCA, Independent

__all__ = [
    "Elbo",
    "Importance",
    "PriorWeight",
    "elbo",
    "importance",
    "iwae",
    "log_weight",
    "nll_slope",
    "ode_log_density",
    "path_log_weight",
]

PriorWeight: TypeAlias = Literal["ode", "path"]
"""How a diffusion prior enters a weight."""

EXACT = (StandardNormal, GaussianMixture, Independent, PPCA, Profile, LanguageModel, Potts)
"""Densities whose terms of a tensor are -log p, or minus the log of an unbiased estimate of p."""
ODE_DIMENSIONS = 256
"""Codes of up to so many dimensions get the density of the ODE unless one says otherwise: its trace costs one product each."""
ODE_STEPS, PATH_STEPS = 32, 20
ROWS = 8192
"""Rows that a denoiser sees at once in the trace."""


@dataclass(frozen=True)
class Importance:
    """Lower bounds on log p(x), in expectation, from K weights of each of B examples; in nats.

    Args:
        counts: C numbers of weights, rising; the last is K.
        log_p: (C, B), log(1/k sum w) for each count k, averaged over the K // k disjoint groups there are.
        stderr: (C, B), its standard error: over the groups, or sqrt(1/ess - 1/K) where there is one group (delta method).
        ess: (B,), the effective sample size (sum w)^2 / sum w^2 of all K. Near 1, one weight is all there is, the bound is
            loose, and its standard error too small.
    """

    counts: tuple[int, ...]
    log_p: Tensor
    stderr: Tensor
    ess: Tensor

    @property
    def best(self) -> Tensor:
        """The bound from all K weights, (B,)."""
        return self.log_p[-1]


@dataclass(frozen=True)
class Elbo:
    """E_q log p(x, z) / q(z | x), a lower bound on log p(x), of B examples; in nats.

    Args:
        value: (B,), minus the mean of the bound.
        stderr: (B,), its standard error over the samples; NaN of a single one.
        terms: the mean of each term of the bound, (B,).
    """

    value: Tensor
    stderr: Tensor
    terms: dict[str, Tensor]

    @property
    def rate(self) -> Tensor:
        """KL(q(z|x) || p(z)) or its bound, (B,); 0 of a model without codes."""
        rates = {name: term for name, term in self.terms.items() if name.startswith("rate")}
        return total(rates) if rates else torch.zeros_like(self.value)

    @property
    def distortion(self) -> Tensor:
        """All other terms, (B,): E_q[-log p(x|z)]."""
        return -self.value - self.rate


def log_weight(
    model: Density,
    x: Tensor,
    *,
    copies: int = 1,
    prior: PriorWeight | None = None,
    steps: int | None = None,
    noise: Noise | None = None,
    proposal: Normal | None = None,
) -> Tensor:
    """The log of an unbiased estimate of p(x), for each example: log p(x, z) - log q(z | x), z ~ q(z | x), on every level.

    Args:
        model: any density with weights: autoencoders to any depth, diffusions, and what has an exact density. A `Diffusion`
            is asked about its z_0, as it samples them and as a decoder reads them.
        x: (B, ...).
        copies: weights of each example.
        prior: how a diffusion enters; None: `ode` up to 256 dimensions, else `path`.
        steps: of the ODE (None: 32) or of the path (None: 20).
        noise: source of all draws.
        proposal: what an autoencoder's codes are drawn from in place of q(z | x), one for each example.

    Returns:
        (copies B,), all examples of the first copy first; in nats.

    Raises:
        NoBound: a deterministic code, a diffusion decoder, no prior, or no likelihood.

    Reference: Burda et al. 2016 (arXiv 1509.00519), Eq. 8.
    """
    if isinstance(model, Autoencoder):
        q = _posterior(model, x, copies) if proposal is None else proposal.repeat(copies)
        x = _repeat(_checked(model, x, q), copies)
        z = q.sample(noise)
        return log_weight(model.prior, z, prior=prior, steps=steps, noise=noise) + q.nll(z) - model.decoder(z).nll(x)
    x = _repeat(x, copies)
    if isinstance(model, DataDiffusion):
        first = model.last.first_noise(x)
        z = first.sample(noise)
        last = model.last.given(z)
        last.check(x)
        return log_weight(model.prior, z, prior=prior, steps=steps, noise=noise) + first.nll(z) - last.nll(x)
    if isinstance(model, Standardized):
        inner = log_weight(model.inner, (x - model.mean) / model.std, prior=prior, steps=steps, noise=noise)
        return inner - model.std.log().sum()
    if isinstance(model, Diffusion):
        if (prior or _default(model)) == "path":
            return path_log_weight(model, x, steps=steps or PATH_STEPS, noise=noise)
        return ode_log_density(model, x, steps=steps or ODE_STEPS)
    if not isinstance(model, EXACT):
        model.terms(x, exact=True)  # says why, where there is no bound
        raise NoBound(f"{type(model).__name__} gives a bound on -log p(x) but no weights, so it can only be averaged.")
    return -total(model.terms(x, exact=True))


def path_log_weight(
    diffusion: Diffusion, z_0: Tensor, *, steps: int = PATH_STEPS, noise: Noise | None = None
) -> Tensor:
    """log p(z_0, ..., z_T) / q(z_1, ..., z_T | z_0), (B,): the log of an unbiased estimate of the chain's p(z_0).

    log N(z_T; 0, I) + sum_t [ log p(z_s | z_t) - log N(z_t; alpha_{t|s} z_s, sigma_{t|s}^2) ]

    Args:
        diffusion: its ancestral sampler, with as many steps, is the model.
        z_0: (B, *shape).
        steps: T. The fewer, the less the weights vary, and the further the chain is from the continuous one.
        noise: source of z_1, ..., z_T.

    Raises:
        NoBound: the forward process is no Gaussian chain.

    Reference: Sohl-Dickstein et al. 2015 (arXiv 1503.03585), Eq. 9.
    """
    _gaussian(diffusion)
    noise = noise or normal_noise(z_0)
    gammas = diffusion.spacing(diffusion.schedule, steps, z_0.device).to(z_0.dtype).flip(0)
    z_s, log_w = z_0, z_0.new_zeros(len(z_0))
    for gamma_s, gamma_t in zip(gammas[:-1], gammas[1:], strict=True):
        forward = Normal(
            alpha_ratio(gamma_s, gamma_t) * z_s, torch.log(bridge_variance(gamma_s, gamma_t)).expand_as(z_s)
        )
        z_t = forward.sample(noise)
        reverse = diffusion.process.step(z_t, _estimate(diffusion, z_t, gamma_t), gamma_s, gamma_t)
        log_w = log_w + forward.nll(z_t) - reverse.nll(z_s)
        z_s = z_t
    return log_w - _standard_nll(z_s)


def ode_log_density(
    diffusion: Diffusion, z_0: Tensor, *, steps: int = ODE_STEPS, probes: int | None = None, noise: Noise | None = None
) -> Tensor:
    """log p(z_0) of what the probability-flow ODE makes of N(0, I), (B,), by the classical Runge-Kutta method in gamma.

    Args:
        diffusion: any with a Gaussian process.
        z_0: (B, *shape), at the clean end gamma_0.
        steps: of four evaluations each, equal in log SNR; the error falls with the fourth power.
        probes: None: the exact trace, one directional derivative for each dimension. A number: Hutchinson's estimate from as
            many random signs for each example. It is unbiased for log p(z_0), not for p(z_0): average it, but never use it
            as a log-weight.
        noise: source of the signs.

    Raises:
        NoBound: the process is no ODE.

    Reference: Song et al. 2021 (arXiv 2011.13456), section 4.3 and appendix D.2.
    """
    _gaussian(diffusion)
    z_0, dims = z_0.contiguous(), z_0[0].numel()  # torch cannot differentiate along copies that share their memory
    if probes is None:
        signs = torch.eye(dims, dtype=z_0.dtype, device=z_0.device).reshape(dims, 1, *z_0.shape[1:])
        signs = signs.expand(-1, len(z_0), *z_0.shape[1:])
    else:
        drawn = (noise or normal_noise(z_0))((len(z_0), probes, *z_0.shape[1:]))
        signs = drawn.sign().transpose(0, 1) / math.sqrt(probes)
    rows = max(1, ROWS // len(signs))
    parts = zip(z_0.split(rows), signs.split(rows, 1), strict=True)
    return torch.cat([_integrate(diffusion, z, v, steps) for z, v in parts])


def _integrate(diffusion: Diffusion, z: Tensor, directions: Tensor, steps: int) -> Tensor:
    """log p(z_0) for the trace sum_v v^T J v over `directions` (n, B, *shape)."""

    def slope(z: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """dz/dgamma and its divergence."""
        x_hat, trace = _estimate_and_trace(diffusion, z, gamma, directions)
        return 0.5 * alpha(gamma) * (alpha(gamma) * z - x_hat), 0.5 * alpha(gamma) * (alpha(gamma) * dims - trace)

    dims, volume = z[0].numel(), z.new_zeros(len(z))
    gamma_0, gamma_1 = (end.to(z.dtype) for end in diffusion.schedule.ends)
    h = (gamma_1 - gamma_0) / steps
    for i in range(steps):
        gamma = gamma_0 + i * h
        z_1, volume_1 = slope(z, gamma)
        z_2, volume_2 = slope(z + 0.5 * h * z_1, gamma + 0.5 * h)
        z_3, volume_3 = slope(z + 0.5 * h * z_2, gamma + 0.5 * h)
        z_4, volume_4 = slope(z + h * z_3, gamma + h)
        z = z + h / 6 * (z_1 + 2 * z_2 + 2 * z_3 + z_4)
        volume = volume + h / 6 * (volume_1 + 2 * volume_2 + 2 * volume_3 + volume_4)
    return volume - _standard_nll(z)


def _estimate_and_trace(diffusion: Diffusion, z: Tensor, gamma: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """x_hat and sum_v v^T (dx_hat/dz) v, (B,)."""

    def along(v: Tensor) -> tuple[Tensor, Tensor]:
        x_hat, change = jvp(lambda z: _estimate(diffusion, z, gamma), (z,), (v,))  # type: ignore[misc]
        return x_hat, sum_dims(v * change)

    with sdpa_kernel(SDPBackend.MATH):  # the only kernel of attention that can be differentiated forward
        x_hat, parts = vmap(along, out_dims=(None, 0))(directions)  # type: ignore[arg-type]
    return x_hat, parts.sum(0)


def nll_slope(nll: Tensor, z: Tensor) -> Tensor:
    """The gradient of -log p(x | z), (N,), for the codes z (N, ...) of each; weights get none.

    Raises:
        ModelError: there is none.
    """
    (found,) = torch.autograd.grad(nll.sum(), z, allow_unused=True) if nll.requires_grad else (None,)
    if found is None:
        raise ModelError(
            "The decoder passes no gradient to its code, so neither the best q(z | x) nor log p(x) by annealing can be found."
        )
    return found


def importance(log_weights: Tensor, counts: Sequence[int]) -> Importance:
    """The bounds that K log-weights (K, B) give for each of `counts`, from disjoint groups of the same weights.

    Reference: Burda et al. 2016 (arXiv 1509.00519), Eq. 8.
    """
    log_w = log_weights.double()
    k = len(log_w)
    ess = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()
    log_p, stderr = [], []
    for count in counts:
        n = k // count
        groups = log_w[: n * count].reshape(n, count, -1).logsumexp(1) - math.log(count)
        log_p.append(groups.mean(0))
        stderr.append(groups.std(0) / math.sqrt(n) if n > 1 else (1 / ess - 1 / k).clamp(min=0).sqrt())
    return Importance(tuple(counts), torch.stack(log_p), torch.stack(stderr), ess)


@torch.no_grad()
def iwae(
    model: Density,
    x: Tensor,
    counts: Sequence[int] = (1, 10, 100, 1000, 5000),
    *,
    chunk: int = 4096,
    seed: int = 0,
    prior: PriorWeight | None = None,
    steps: int | None = None,
    proposal: Normal | None = None,
) -> Importance:
    """Lower bounds on log p(x) from k weights, E log(1/k sum w), for each k of `counts`.

    The draws depend on the seed, an example's place in x and the number of the weight, neither on `chunk` nor on how many
    there are. Of each 64 examples all weights are kept at a time, and `chunk` decoded pictures.

    Args:
        model: in evaluation mode; see `log_weight`.
        x: (B, ...) in model space.
        counts: numbers of weights. A smaller one uses the weights of the largest, in groups.
        chunk: codes decoded at once, at least 64.
        seed: of all draws.
        prior, steps: how a diffusion prior enters; see `log_weight`. The ODE costs (D + 1) 128 evaluations a weight.
        proposal: of an autoencoder's codes, one for each example (B, D). Where an encoder misses the codes of new examples,
            its own q makes a poor proposal; the best q of each example (`amortization.optimal_bounds`) makes a better one.

    Raises:
        NoBound: the model has no weights.
        ConfigError: `counts` or `chunk` out of range.

    Reference: Burda et al. 2016 (arXiv 1509.00519); Cremer et al. 2018 (arXiv 1801.03558), section 5.1.
    """
    counts = tuple(sorted(set(counts)))
    if not counts or counts[0] < 1:
        raise ConfigError(f"counts = {counts}: give numbers of weights of at least 1.")
    _check_chunk(chunk)
    found = []
    for start in range(0, len(x), BLOCK):
        part = x[start : start + BLOCK]
        streams, log_w = _Streams(seed, start, part), []
        rows = slice(start, start + BLOCK)
        own = None if proposal is None else Normal(proposal.mean[rows], proposal.log_var[rows])
        with seeded(seed, start):
            for k in _portions(counts[-1], chunk // len(part)):
                streams.restart()
                weights = log_weight(model, part, copies=k, prior=prior, steps=steps, noise=streams, proposal=own)
                log_w.append(weights.double().reshape(k, len(part)))
        found.append(importance(torch.cat(log_w), counts))
    return Importance(
        counts,
        torch.cat([part.log_p for part in found], 1),
        torch.cat([part.stderr for part in found], 1),
        torch.cat([part.ess for part in found]),
    )


@torch.no_grad()
def elbo(model: Density, x: Tensor, samples: int = 100, *, chunk: int = 4096, seed: int = 0) -> Elbo:
    """The evidence lower bound -E[bound] of each example, by its exact terms (a diffusion's rate over its whole path).

    Args:
        model: in evaluation mode; any density with a bound.
        x: (B, ...) in model space.
        samples: passes for each example.
        chunk: rows that go through the model at once, at least 64. The same seed and chunk give the same numbers.
        seed: of all draws.

    Raises:
        NoBound: the model has no bound.
        ConfigError: `samples` or `chunk` out of range.

    Reference: Kingma & Welling 2014 (arXiv 1312.6114), Eq. 3.
    """
    if samples < 1:
        raise ConfigError(f"samples = {samples}: give at least 1.")
    _check_chunk(chunk)
    values, errors, means = [], [], []
    for start in range(0, len(x), BLOCK):
        part, drawn = x[start : start + BLOCK], []
        with seeded(seed, start):
            for k in _portions(samples, chunk // len(part)):
                terms = model.terms(_repeat(part, k), exact=True)
                drawn.append(stack(terms).double().reshape(len(terms), k, len(part)))
        nats = torch.cat(drawn, 1)
        values.append(-nats.sum(0).mean(0))
        errors.append(nats.sum(0).std(0) / math.sqrt(samples) if samples > 1 else torch.full_like(values[-1], math.nan))
        means.append(nats.mean(1))
    by_name = dict(zip(terms, torch.cat(means, 1), strict=True))
    return Elbo(torch.cat(values), torch.cat(errors), by_name)


class _Streams:
    """Normal noise for copies of B examples, that depends on (seed, example, copy, number of the call since `restart`).

    So portions of copies may have any size: each call of the program has a generator of its own, which goes on.
    """

    def __init__(self, seed: int, start: int, x: Tensor) -> None:
        self.seed, self.start, self.x = seed, start, x
        self.streams: list[BlockNoise] = []
        self.calls = 0

    def restart(self) -> None:
        """The next portion of copies begins."""
        self.calls = 0

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """Noise of the given shape: copies of B rows."""
        if self.calls == len(self.streams):
            seed = seed_from(self.seed, self.calls)
            self.streams.append(
                BlockNoise(
                    seed,
                    self.start,
                    device=self.x.device,
                    dtype=self.x.dtype if self.x.is_floating_point() else torch.float32,
                )
            )
        stream, n = self.streams[self.calls], len(self.x)
        self.calls += 1
        return torch.cat([stream((n, *shape[1:])) for _ in range(shape[0] // n)])


def _posterior(model: Autoencoder, x: Tensor, copies: int) -> Posterior:
    """q(z | x) of `copies` copies of x, which is encoded once where q can be repeated."""
    q = model.encoder(x)
    if copies == 1:
        return q
    return q.repeat(copies) if isinstance(q, Normal) else model.encoder(_repeat(x, copies))


def _checked(model: Autoencoder, x: Tensor, q: Posterior) -> Tensor:
    """x, where q and the decoder have densities of it."""
    if not has_entropy(q):
        q.entropy()  # raises NoBound
    if model.implicit:
        raise NoBound("A diffusion decoder bounds -log p(x | z) by a mean over its noise levels, so it has no weights.")
    model.decoder(q.mean[:1]).check(x)
    return x


def _gaussian(diffusion: Diffusion) -> None:
    if not diffusion.process.ode:
        raise NoBound("A neural diffusion model's forward process is no Gaussian chain in z_0, so it has no weights.")


def _default(diffusion: Diffusion) -> PriorWeight:
    return "ode" if math.prod(diffusion.shape) <= ODE_DIMENSIONS else "path"


def _estimate(diffusion: Diffusion, z: Tensor, gamma: Tensor) -> Tensor:
    return diffusion.denoiser(z, (-gamma).expand(len(z))).to(z.dtype)


def _standard_nll(z: Tensor) -> Tensor:
    return Normal(torch.zeros_like(z), torch.zeros_like(z)).nll(z)


def _repeat(x: Tensor, k: int) -> Tensor:
    return x.repeat(k, *[1] * (x.ndim - 1)) if k > 1 else x


def _portions(whole: int, most: int) -> list[int]:
    """`whole` in parts of at most `most`."""
    return [min(most, whole - start) for start in range(0, whole, most)]


def _check_chunk(chunk: int) -> None:
    if chunk < BLOCK:
        raise ConfigError(f"chunk = {chunk}: give at least {BLOCK} rows.")
