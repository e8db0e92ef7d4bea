"""Editing by classifiers of codes: LatentOps' ODE, for several attributes at once.

    E_i(z) = -log p(a_i | z)                                          one logistic regression for each label column
    dz/dt  = beta(t)/2 strength sum_i grad E_i(z),  t from 1 to 0     a prior N(0, I): its own drift cancels

Only the integral of beta counts, and z follows grad log p for the time strength int_0^1 beta/2 dt. It comes to rest where the
classifiers are sure, and so moves a code as far as that code needs, where a direction moves all codes alike.

Any other prior has a drift, and takes the code of the input along its probability-flow ODE to a noise level and back with a
guided denoiser,

    z_hat + strength sigma_t^2 / alpha_t sum_i grad_{z_t} log p(a_i | z_hat(z_t)),

so the more noise, the more the prior may mend. What the way there and back changes by itself is taken off.

A negative strength takes the attribute away: log(1 - p(a_i | z)) rises.

References: Liu et al. 2022 (arXiv 2208.00638), LatentOps, Eq. 6 and 7; Song et al. 2021 (arXiv 2011.13456), the schedule of
beta; Chung et al. 2023 (arXiv 2209.14687), the gradient through z_hat; Nie et al. 2021 (arXiv 2110.10873), the ODE of energies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from diled.api import Density, device_of, identity_of
from diled.diffusion.samplers import heun
from diled.errors import ConfigError, DataError
from diled.latent.edit import Attribute, one_each
from diled.latent.guidance import Unit, guided, in_unit
from diled.models.priors import StandardNormal

__all__ = [
    "CLOCK",
    "DEPTH",
    "AttributeODE",
    "CodeClassifier",
    "Wish",
    "along_energy",
    "fit_classifier",
    "fit_ode",
    "through_noise",
]

BETA = (0.1, 20.0)
"""beta(0) and beta(1) of the variance-preserving process, linear in between."""
CLOCK = (BETA[0] + BETA[1]) / 4
"""int_0^1 beta(t)/2 dt."""
DEPTH = 0.8
"""Time up to which a prior with a drift adds noise, unless one says otherwise."""
DECAY = 0.01
"""Weight decay of the classifiers, lambda in mean(-log p) + lambda |W|^2 / 2: one that is sure at the border of a class leads
no further, and the decoder shows the class well inside only."""
STEPS = 50
"""Steps of each way through noise."""
KEPT = 4
"""Sets of codes whose ways through noise an edit remembers, each of one prior as it then was."""
RELATIVE = 1e-5
"""Error of a step along energies, relative to codes or to their unit."""


@dataclass(frozen=True)
class CodeClassifier:
    """p(a | z) = softmax(W (z - mean) / scale + b), a logistic regression on centred codes in units of their deviation.

    Attributes:
        weight: W, (K, D).
        bias: b, (K,).
        mean: of training codes, (D,).
        scale: their standard deviation, one for all dimensions, ().
        classes: index of each class in its column, (K,).
        accuracy: on the training codes.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    classes: tuple[int, ...]
    accuracy: float

    def logits(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        return (z - self.mean.to(z)) / self.scale.to(z) @ self.weight.to(z).T + self.bias.to(z)

    def within(self, k: int) -> Tensor:
        """Which of the K classes is `k`, bool (K,)."""
        return torch.tensor(self.classes) == k


@dataclass(frozen=True)
class Wish:
    """What codes should be: log p of one class in each of several columns, or of all its other classes.

    U(z) = sum_i log sum_{a in S_i} p_i(a | z),        grad U = sum_i sum_a (p_i(a | z, a in S_i) - p_i(a | z)) W_a / scale

    Args:
        goals: classifiers, and the class wanted of each.
        away: S_i are the other classes.
    """

    goals: tuple[tuple[CodeClassifier, int], ...]
    away: bool = False

    def __call__(self, z: Tensor) -> Tensor:
        """U of codes (B, D), (B,)."""
        each = []
        for classifier, k in self.goals:
            logits = classifier.logits(z)
            each.append(self._inside(classifier, k, logits).logsumexp(1) - logits.logsumexp(1))
        return torch.stack(each).sum(0)

    def slope(self, z: Tensor) -> Tensor:
        """grad U, (B, D)."""
        total = torch.zeros_like(z)
        for classifier, k in self.goals:
            logits = classifier.logits(z)
            gap = self._inside(classifier, k, logits).softmax(1) - logits.softmax(1)
            total = total + gap @ classifier.weight.to(z) / classifier.scale.to(z)
        return total

    def _inside(self, classifier: CodeClassifier, k: int, logits: Tensor) -> Tensor:
        """Logits of the classes in S, and -inf elsewhere."""
        inside = (classifier.within(k) ^ self.away).to(logits.device)
        return logits.masked_fill(~inside, -math.inf)


def fit_classifier(codes: np.ndarray, labels: np.ndarray, column: str) -> CodeClassifier:
    """A logistic regression of a label column's classes on codes, by mean(-log p) + lambda |W|^2 / 2 with lambda = `DECAY`.

    One scale serves all dimensions: in units of its own a dimension that the encoder does not use would count like the others,
    and the slope in z, divided by its deviation, would lead there first.

    Args:
        codes: (N, D) of training examples.
        labels: (N,) indices of classes, -1 where missing.
        column: its name.

    Raises:
        DataError: fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression

    codes, labels = codes[labels >= 0], labels[labels >= 0]
    if len(np.unique(labels)) < 2:
        raise DataError(f"The training examples have {len(np.unique(labels))} classes of '{column}': two are needed.")
    mean = codes.mean(0)
    scale = np.sqrt(((codes - mean) ** 2).mean()) + 1e-8
    standard = (codes - mean) / scale
    fit = LogisticRegression(C=1 / (DECAY * len(labels)), max_iter=300).fit(standard, labels)
    weight, bias = fit.coef_, fit.intercept_
    if len(fit.classes_) == 2:  # scikit-learn keeps the log-odds of the second class alone
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    w, b, m, unit = (torch.from_numpy(np.asarray(part, np.float32)) for part in (weight, bias, mean, scale))
    return CodeClassifier(w, b, m, unit, tuple(map(int, fit.classes_)), float(fit.score(standard, labels)))


@torch.no_grad()
def along_energy(z: Tensor, wish: Wish, strength: float) -> Tensor:
    """The end of dz/dt = -beta(t)/2 strength grad U(z), t from 1 to 0: codes (B, D) under a prior N(0, I).

    By Runge and Kutta's method with steps as long as a relative error of 1e-5 allows, in the time int beta/2. The surer the
    classifiers are, the less U bends, so steps grow, and codes that hardly differ take not many more than others.

    Reference: Liu et al. 2022, Eq. 7 with Eq. 6; Dormand & Prince 1980, the method.
    """
    from scipy.integrate import solve_ivp

    def slope(_: float, flat: np.ndarray) -> np.ndarray:
        return wish.slope(torch.from_numpy(flat).reshape(z.shape)).flatten().numpy()

    unit = min(float(classifier.scale) for classifier, _ in wish.goals)
    start = z.double().cpu().flatten().numpy()
    if strength == 0:
        return z.clone()
    end = strength * CLOCK  # all that is kept: the steps there would be many times the codes
    found = solve_ivp(slope, (0.0, end), start, t_eval=[end], rtol=RELATIVE, atol=RELATIVE * unit)
    return torch.from_numpy(found.y[:, -1]).reshape(z.shape).to(z)


@torch.no_grad()
def through_noise(
    prior: Density, z: Tensor, wish: Callable[[Tensor], Tensor], strength: float, *, depth: float, steps: int = STEPS
) -> Tensor:
    """Codes (B, D), taken along the prior's ODE to time `depth` and back with the guided denoiser, by Heun's method.

    The difference to the way back without guidance is what is added to a code: at strength 0 or depth 0 it stays as it is.

    Args:
        prior: a diffusion, standardised or not, or a mixture of Gaussians.
        z: the codes.
        wish: U(z), (B, D) -> (B,).
        strength: weight of U against the prior.
        depth: in [0, 1], up to which time noise is added.
        steps: of each way.

    Raises:
        NoBound: the prior has no denoiser.
        ConfigError: the prior's codes are no vectors.
    """
    return _led(in_unit(prior), z, wish, strength, *_unled(prior, z, depth, steps))


def _unled(prior: Density, z: Tensor, depth: float, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """What no wish changes: the noise levels on the way there, (steps + 1,), its end, and the end of the way back, (B, D)."""
    unit = in_unit(prior)
    if len(unit.shape) != 1:
        raise ConfigError(f"Codes of shape {unit.shape} are no vectors, which method 'ode' needs: use method 'vector'.")
    up = unit.schedule.to(z.device).gamma(torch.linspace(0, depth, steps + 1, device=z.device))
    noisy = heun(unit.denoise, (z - unit.center) / unit.width, up)
    return up, noisy, heun(unit.denoise, noisy, up.flip(0))


def _led(
    unit: Unit, z: Tensor, wish: Callable[[Tensor], Tensor], strength: float, up: Tensor, noisy: Tensor, back: Tensor
) -> Tensor:
    """`through_noise` from what `_unled` found."""
    led = guided(unit.denoise, lambda u: strength * wish(unit.back(u)))
    return z + (heun(led, noisy, up.flip(0)) - back) * unit.width


@dataclass(frozen=True)
class AttributeODE:
    """An edit by LatentOps' ODE, or its like for a prior with a drift.

    Args:
        prior: of the codes.
        goals: classifiers, and the class wanted of each.
        depth: of a prior other than N(0, I), up to which time noise is added; None: `DEPTH`.

    Raises:
        ConfigError: a depth outside [0, 1], or for a prior N(0, I), where it has no meaning.
    """

    prior: Density
    goals: tuple[tuple[CodeClassifier, int], ...]
    depth: float | None = None
    _kept: dict[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.depth is not None and not 0 <= self.depth <= 1:
            raise ConfigError(f"depth = {self.depth}: it is a time of the prior's noise, between 0 and 1.")
        if self.depth is not None and isinstance(self.prior, StandardNormal):
            raise ConfigError("depth has no meaning for a prior N(0, I), whose drift cancels: set the strength alone.")

    @torch.no_grad()
    def apply(self, codes: np.ndarray, strength: float) -> np.ndarray:
        """Edited codes, (n, d) float32.

        The way through noise without guidance is kept for the codes of the last few calls: at further strengths it is the same,
        as long as the prior's weights are.
        """
        z = torch.as_tensor(codes, dtype=torch.float32, device=device_of(self.prior))
        wish = Wish(self.goals, strength < 0)
        if isinstance(self.prior, StandardNormal):
            return along_energy(z, wish, abs(strength)).cpu().numpy()
        key = f"{identity_of(self.prior)} {hashlib.sha256(np.ascontiguousarray(codes).tobytes()).hexdigest()}"
        if key not in self._kept:
            if len(self._kept) == KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = _unled(self.prior, z, DEPTH if self.depth is None else self.depth, STEPS)
        return _led(in_unit(self.prior), z, wish, abs(strength), *self._kept[key]).cpu().numpy()


def fit_ode(
    prior: Density,
    parts: Sequence[tuple[np.ndarray, Mapping[str, np.ndarray], Sequence[Attribute]]],
    depth: float | None = None,
) -> AttributeODE:
    """The edit that gives codes several attributes.

    Args:
        prior: of the codes.
        parts: of each data set the training codes (N, D), the label columns (N,) and the attributes found there.
        depth: as of `AttributeODE`.

    Raises:
        ConfigError: an attribute of real numbers, two of one column, or a depth that does not fit.
        DataError: fewer than two classes of a column, or none of the examples has an attribute.
    """
    one_each([a for *_, attributes in parts for a in attributes])
    goals = []
    for codes, labels, attributes in parts:
        for a in attributes:
            if a.value is None:
                raise ConfigError(f"'{a.column}' holds real numbers, and method 'ode' needs classes: use 'vector'.")
            classifier = fit_classifier(codes, labels[a.column], a.column)
            if a.value not in classifier.classes:
                raise DataError(f"None of the training examples have '{a.name}'.")
            goals.append((classifier, a.value))
    return AttributeODE(prior, tuple(goals), depth)
