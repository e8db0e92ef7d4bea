"""The robustness gap: how much more reconstructions differ under attack than the images do.

    G_r = E[ sim(x_r, x_a) - sim(x~_r, x~_a) ]                                         (Xiao et al. 2024, Eq. 5)

x_r are references, x_a the same under attack, and x~ is the decoder's mean at one draw z ~ q(z | x), with the same noise for
x_r and x_a: so what differs is the attack's doing, and at radius 0 the gap is exactly 0. (Independent draws, as in the
papers, add the noise of the codes to the gap.) Similarities are of pixels in [0, 1].

The gap mixes encoder and decoder. Of the encoder alone speak the SKL that an attack reached, and the norm of its Jacobian

    || J ||_F^2 = sum_j | grad m_j |^2 = E_v | J^T v |^2,    v random signs.

`purified` is a defence: a code is noised to time t and denoised again by the diffusion prior before it is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diled.api import Encoder, Noise, evaluating, normal_noise, sum_dims
from diled.diffusion import SAMPLERS, Diffusion
from diled.diffusion.process import alpha_ratio, bridge_variance
from diled.distributions import Normal
from diled.draws import seed_from, seeded
from diled.errors import ConfigError, DataError, ModelError
from diled.evaluation.attack import (
    Attack,
    Attacker,
    check_radius,
    noise_from,
    paper_attack,
    pixels,
    skl,
    slope,
    squares,
)
from diled.evaluation.similarity import Similarity, from_unit, ms_ssim_kuzina, to_unit
from diled.models.priors import Standardized

__all__ = [
    "JacobianNorm",
    "Robustness",
    "jacobian_norm",
    "local_lipschitz",
    "purified",
    "robustness",
    "robustness_gap",
    "stratified",
]


@dataclass(frozen=True, eq=False)
class Robustness:
    """The robustness gap at one radius, with an interval over references.

    Attributes:
        radius: in units of [0, 1].
        gap: G_r, the mean of `gaps`; larger is worse.
        low, high: its 95 % interval, percentiles of means of redrawn references (NaN with one reference).
        gaps, input_similarity, reconstruction_similarity: (B,), of each reference, averaged over restarts.
        skl: (B,), reached by the attack, in nats; None where codes are no Gaussians.
        attack: what the gap was measured on.
    """

    radius: float
    gap: float
    low: float
    high: float
    gaps: Tensor
    input_similarity: Tensor
    reconstruction_similarity: Tensor
    skl: Tensor | None
    attack: Attack


def robustness(
    model: Any,
    x: Tensor,
    *,
    attack: Attacker = paper_attack,
    radii: Sequence[float] = (0.1,),
    references: int | None = None,
    labels: np.ndarray | None = None,
    similarity: Similarity = ms_ssim_kuzina,
    seed: int = 0,
    batch: int = 256,
) -> list[Robustness]:
    """The robustness gap at each radius.

    The paper's numbers: `paper_attack`, radius 0.1 with 50 references (CIFAR-10: 0.05, 20 references, 100 steps) and
    `ms_ssim_kuzina`. For a verdict: `sign_attack`, several radii, 500 references or more, and `ms_ssim` beside it.

    Args:
        model: an autoencoder, with `encoder` and `decode`.
        x: test images (N, C, H, W) in [-1, 1]; other data where `similarity` takes them.
        attack: (encoder, x, radius, seed=, batch=) -> `Attack`.
        radii: in units of [0, 1].
        references: how many of x, drawn without replacement; None: all.
        labels: (N,) classes, so that references are drawn from each in proportion.
        similarity: of pairs in [0, 1]; the decoder's means are cut to [0, 1] first.
        seed: of references, starts, codes and the interval.
        batch: images in one pass, about.

    Raises:
        ConfigError: a radius outside [0, 1], or labels without a number of references.
        DataError: data that `similarity` does not take, or fewer examples than references.
        ModelError: no autoencoder.

    Reference: Xiao et al. 2024, Eq. 5 and Table 2.
    """
    _check_autoencoder(model)
    for radius in radii:
        check_radius(radius)
    if labels is not None and references is None:
        raise ConfigError("labels say how references are drawn from each class: give the number of `references` too.")
    if references is not None:
        rows = stratified(np.zeros(len(x)) if labels is None else labels, references, seed)
        x = x[torch.from_numpy(rows).to(x.device)]
    u = pixels(x[:1])
    similarity(u, u)  # refuses other data before the work
    found = []
    with evaluating(model):
        for radius in radii:
            attacked = attack(model.encoder, x, radius, seed=seed, batch=batch)
            found.append(robustness_gap(model, attacked, similarity=similarity, seed=seed, batch=batch))
    return found


@torch.no_grad()
def robustness_gap(
    model: Any,
    attack: Attack,
    *,
    similarity: Similarity = ms_ssim_kuzina,
    level: float = 0.0,
    steps: int | None = None,
    resamples: int = 2000,
    seed: int = 0,
    batch: int = 256,
) -> Robustness:
    """The robustness gap of attacks that were found before.

    Args:
        model: an autoencoder, with `encoder` and `decode`.
        attack: in model space, [-1, 1].
        similarity: of pairs in [0, 1].
        level: time t in [0, 1] to which the codes of both x_r and x_a are noised, with the same noise, and denoised again
            before they are decoded (see `purified`); 0: not at all. A defender does not know which is which.
        steps: of `purified`.
        resamples: of the references, for the interval.
        seed: of codes and interval.
        batch: images in one pass.

    Raises:
        ConfigError: a level outside [0, 1].
        ModelError: no autoencoder, or `level` without a diffusion prior.

    Example:
        The defence as a function of t: ``[robustness_gap(model, attack, level=t) for t in (0, 0.1, 0.2, 0.4)]``.
    """
    _check_autoencoder(model)
    pairs: dict[str, list[Tensor]] = {"input": [], "reconstruction": [], "skl": []}
    restarts = attack.attacked.shape[1]
    x_r, x_a = attack.reference.repeat_interleave(restarts, 0), attack.attacked.flatten(0, 1)
    with evaluating(model), seeded(seed):
        for first in range(0, len(x_r), batch):
            both = x_r[first : first + batch], x_a[first : first + batch]
            codes = [model.encoder(x) for x in both]
            shown = []
            for q in codes:  # each with the same noise
                z = q.sample(noise_from(seed_from(seed, 1), first, q.mean))
                if level:
                    noise = noise_from(seed_from(seed, 2), first, q.mean)
                    z = purified(model, z, level, steps=steps, noise=noise)
                shown.append(to_unit(model.decode(z)).clamp(0, 1))
            pairs["input"].append(similarity(*(to_unit(x).clamp(0, 1) for x in both)))
            pairs["reconstruction"].append(similarity(*shown))
            if all(isinstance(q, Normal) for q in codes):
                pairs["skl"].append(skl(*codes))
    mean = {name: torch.cat(v).unflatten(0, (-1, restarts)).mean(1) for name, v in pairs.items() if v}
    gaps = mean["input"] - mean["reconstruction"]
    low, high = _interval(gaps, resamples, seed)
    return Robustness(
        attack.radius,
        float(gaps.mean()),
        low,
        high,
        gaps,
        mean["input"],
        mean["reconstruction"],
        mean.get("skl"),
        attack,
    )


def purified(model: Any, z: Tensor, level: float, *, steps: int | None = None, noise: Noise | None = None) -> Tensor:
    """Codes noised to time t and denoised again by the model's diffusion prior, a defence against attacks.

    z_t = alpha_{t|0} z_0 + sigma_{t|0} e, then the prior's sampler from gamma(t) to gamma(0)

    Args:
        model: an autoencoder whose prior is a diffusion, maybe of standardised codes.
        z: codes (B, D) as the decoder reads them, at the clean end of the prior's chain.
        level: t in [0, 1]; 0 returns z, 1 forgets it.
        steps: of a whole chain, of which a share t is taken, rounded up; None: the prior's own.
        noise: source of e, and of the noise of the sampler's steps.

    Raises:
        ConfigError: a level outside [0, 1], or no step.
        DataError: codes of another shape than the prior's.
        ModelError: the prior is no diffusion whose chain can be entered midway.

    Reference: Meng et al., "SDEdit", 2022, Algorithm 1, in code space; Nie et al., "Diffusion models for adversarial
    purification", 2022.
    """
    if not 0 <= level <= 1:
        raise ConfigError(f"level = {level}: the time to which codes are noised lies between 0 and 1.")
    if steps is not None and steps < 1:
        raise ConfigError(f"steps = {steps}: a sampler takes at least one.")
    prior, shift, scale = getattr(model, "prior", None), torch.zeros_like(z[0]), torch.ones_like(z[0])
    if isinstance(prior, Standardized):
        shift, scale, prior = prior.mean, prior.std, prior.inner
    if not isinstance(prior, Diffusion) or not prior.process.ode:
        raise ModelError(f"Codes are purified by a diffusion prior, and this model has {type(prior).__name__}.")
    if z.shape[1:] != prior.shape:
        raise DataError(f"The prior is of codes of shape {prior.shape}, found {tuple(z.shape[1:])}.")
    if level == 0:
        return z
    noise = noise or normal_noise(z)
    gammas = prior.schedule.gamma(
        torch.linspace(level, 0, math.ceil(level * (steps or prior.sampling_steps())) + 1).to(prior.schedule.ends[0])
    )
    gamma_0, gamma_t = prior.schedule.ends[0], gammas[0]
    z_0 = (z - shift) / scale
    z_t = alpha_ratio(gamma_0, gamma_t) * z_0 + bridge_variance(gamma_0, gamma_t).sqrt() * noise(tuple(z.shape))
    return SAMPLERS[prior.sampler](prior.denoiser, z_t, gammas, noise) * scale + shift


def stratified(labels: Any, n: int, seed: int = 0) -> np.ndarray:
    """Indices (n,), in rising order, of a draw without replacement from every class in proportion.

    Each example has the place (rank - 1/2) / size within its class, in random order, and the n lowest are taken.

    Args:
        labels: (N,) classes.
        n: how many.
        seed: of the order.

    Raises:
        DataError: labels are no column, or n is not between 1 and N.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not 1 <= n <= len(labels):
        raise DataError(f"{n} references cannot be drawn from labels of shape {labels.shape}.")
    order = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(order[np.argsort(place[order], kind="stable")[:n]])


# ------------------------------------------------------------------------------------------ how steep an encoder is


@dataclass(frozen=True, eq=False)
class JacobianNorm:
    """Frobenius norms of the encoder's Jacobian, per unit of pixels in [0, 1].

    Attributes:
        norm: || d mean / d u ||_F, (B,).
        scaled: || std^-1 d mean / d u ||_F, (B,): in posterior standard deviations; None where codes have none.
        method: `exact`, or `Hutchinson, n probes`.
    """

    norm: Tensor
    scaled: Tensor | None
    method: str


def jacobian_norm(
    encoder: Encoder, x: Tensor, *, probes: int | None = None, most: int = 64, seed: int = 0, batch: int = 256
) -> JacobianNorm:
    """The Frobenius norm of d mean(x) / dx of each example.

    || J ||_F^2 = sum_j |grad m_j|^2 = E_v |J^T v|^2 for random signs v (Hutchinson 1990)

    For a small change e the SKL of codes of fixed variance is |std^-1 J e|^2 / 2.

    Args:
        encoder: x in [-1, 1] -> q(z | x).
        x: (B, ...) in [-1, 1].
        probes: random sign vectors; None: exact for codes of up to `most` dimensions, else 32.
        most: see `probes`.
        seed: of the probes.
        batch: examples in one pass.

    Raises:
        ConfigError: fewer than one probe.
        DataError: pixels outside [-1, 1].
        ModelError: the encoder passes no gradient.
    """
    if probes is not None and probes < 1:
        raise ConfigError(f"probes = {probes}: take at least one.")
    u, method = pixels(x), "exact"
    norms: list[Tensor] = []
    scaled: list[Tensor] = []
    with evaluating(encoder), seeded(seed), torch.enable_grad():
        for first in range(0, len(u), batch):
            some = u[first : first + batch].requires_grad_(True)
            q = encoder(from_unit(some))
            mean = q.mean.flatten(1)
            count = 32 if probes is None and mean.shape[1] > most else probes
            if count is None:
                vectors = torch.eye(mean.shape[1]).to(mean)[:, None]
            else:
                method = f"Hutchinson, {count} probes"
                noise = noise_from(seed, first, mean)
                vectors = torch.stack([noise(tuple(mean.shape)).sign() for _ in range(count)]) / math.sqrt(count)
            norms.append(_pulled_back(mean, vectors, some))
            if isinstance(q, Normal):
                scaled.append(_pulled_back(mean, vectors / q.var.detach().flatten(1).sqrt(), some))
    return JacobianNorm(torch.cat(norms), torch.cat(scaled) if scaled else None, method)


def _pulled_back(mean: Tensor, vectors: Tensor, u: Tensor) -> Tensor:
    """sqrt( sum_v |J^T v|^2 ), (B,)."""
    return sum(sum_dims(slope(mean * v, u, keep=True) ** 2) for v in vectors).sqrt()  # type: ignore[union-attr]


@torch.no_grad()
def local_lipschitz(encoder: Encoder, attack: Attack, *, batch: int = 256) -> Tensor:
    """max_a |mean(x_a) - mean(x_r)|_2 / |u_a - u_r|_2 over the restarts of an attack, (B,), u = pixels in [0, 1].

    Of a `random_attack` it is the constant under random changes, of a `sign_attack` on `means` under the worst that were
    found. 0 where nothing moved.
    """
    restarts = attack.attacked.shape[1]
    x_r, x_a = attack.reference.repeat_interleave(restarts, 0), attack.attacked.flatten(0, 1)
    with evaluating(encoder):
        moved = [
            squares(encoder(a).mean, encoder(r).mean) for a, r in zip(x_a.split(batch), x_r.split(batch), strict=True)
        ]
    way = squares(to_unit(x_a), to_unit(x_r))
    return (torch.cat(moved) / way.clamp(min=1e-20)).sqrt().unflatten(0, (-1, restarts)).amax(1)


def _interval(values: Tensor, resamples: int, seed: int) -> tuple[float, float]:
    """95 % of the means of redrawn values (Efron 1979)."""
    if len(values) < 2:
        return math.nan, math.nan
    v = values.cpu().double().numpy()
    rows = np.random.default_rng(seed).integers(len(v), size=(resamples, len(v)))
    low, high = np.quantile(v[rows].mean(1), (0.025, 0.975))
    return float(low), float(high)


def _check_autoencoder(model: Any) -> None:
    if not callable(getattr(model, "encoder", None)) or not callable(getattr(model, "decode", None)):
        raise ModelError(
            f"The robustness gap needs an autoencoder, with `encoder` and `decode`; {type(model).__name__} is none."
        )
