"""How designs are looked for: the search of one model for one wish.

    ensembles fitted to training examples -> starts -> climb -> decode within the constraints -> judge the sequences -> rank

Two ensembles predict the property. One reads codes, and gradients climb it, held back by the prior's bound. The other reads
sequences (their symbols, and their codes where there are any), and is what counts: a climb finds codes that no sequence has,
and whoever climbs a predictor finds its errors too. So each climb is looked at along its way, decoded, and its best sequence
by the second ensemble is its result; populations are bred for that one from the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diled.api import NoBound
from diled.data import Data
from diled.data.proteins import to_strings
from diled.data.splits import RowDigests
from diled.designs import Designs, Settings
from diled.draws import BlockNoise
from diled.errors import ConfigError
from diled.evaluation.sequence_distances import nearest_rows
from diled.evaluation.sequences import spearman
from diled.latent.constraints import Constraints
from diled.latent.optimize import Goal, Objective, ascent, evolution, guided_ode, hill, mcmc, prior_energy
from diled.latent.predict import Ensemble
from diled.model import Model
from diled.models.sampling import BATCH
from diled.models.token_diffusion import Guidance, TokenDiffusion
from diled.nn.sequence import one_hot
from diled.space import raw_tensor, to_space

__all__ = ["Search"]

MOST = 20_000
"""Training examples that the ensembles learn from, and starts are taken from: a tenth of them the best, the others random."""
LOOKS = 10
"""How often a climb is looked at on its way."""
NEAR = 0.5
"""Standard deviations of codes by which starts around a parent differ."""
TRIED = 3
"""For each change of a parent that is allowed, so many of the decoder's are tried."""
FEW = 20
"""Validation examples that are not divided."""
SPREAD = 1_000
"""Training examples that say in which unit the leash counts."""
PASSES = 32
"""Over noise, for the leash of models without codes."""
RANKS = 0.2
"""Spearman correlation below which predictions rank nothing."""

Energy = Callable[[Tensor], Tensor]
"""Codes or rows -> (B,)."""


class Search:
    """A model, what it says of the property, and the wish."""

    def __init__(self, model: Model, data: Data, goal: Goal, settings: Settings, constraints: Constraints) -> None:
        self.model, self.data, self.goal, self.settings = model, data, goal, settings
        self.density, self.device = model.density, model.device
        self.constraints = replace(
            constraints,
            allowed=constraints.allowed.to(self.device),
            parent=None if constraints.parent is None else constraints.parent.to(self.device),
        )
        self.alone = torch.full(constraints.allowed.shape, float("nan"), device=self.device)
        self._check_method()
        order = some_with_values(goal.better(torch.from_numpy(data.train.labels[goal.column])).numpy(), settings.seed)
        self.train = self._rows(data.train.values[order])
        self.y = torch.from_numpy(data.train.labels[goal.column][order]).float().to(self.device)
        held = self._rows(data.validation.values), self._labels(data.validation.labels[goal.column])
        choosing, scoring = _halves(held[1], settings.seed)
        self.apart = not torch.equal(choosing, scoring)
        of_sequences = self.features(self.train)
        self.predictor = Ensemble(of_sequences.shape[1], members=settings.members).to(self.device)
        features = self.features(held[0])
        self.predictor.fit(of_sequences, self.y, (features[choosing], held[1][choosing]), seed=settings.seed)
        self.accuracy = _accuracy(self.predictor, features[scoring], held[1][scoring])
        self.sequences = Objective(goal, self.predictor, None, 0.0, settings.caution)
        self.energy: Energy | None = None
        self.energy_of_codes: Energy | None = None
        if settings.leash and settings.method not in ("guidance", "ode"):
            self._hold()
        if settings.method not in ("evolution", "guidance"):
            self.codes = self.encode(self.train)
            climber = Ensemble(self.codes.shape[1], members=settings.members).to(self.device)
            climber.fit(self.codes, self.y, (self.encode(held[0])[choosing], held[1][choosing]), seed=settings.seed)
            self.objective = Objective(goal, climber, self.energy_of_codes, settings.leash, settings.caution)

    def _check_method(self) -> None:
        """Refuse ways that the model does not have."""
        method = self.settings.method
        if method == "guidance" and not (isinstance(self.density, TokenDiffusion) and self.density.head is not None):
            raise ConfigError("method 'guidance' leads a token diffusion with a property head: train 'nos'.")
        if method == "guidance" and self.goal.column not in self.density.columns:
            raise ConfigError(
                f"The model's head has not learned '{self.goal.column}', only {', '.join(self.density.columns)}."
            )
        if not self.density.has_codes and method not in ("evolution", "guidance"):
            raise ConfigError(
                f"The model {self.model.name} has no codes to climb in: use method 'evolution'"
                f"{' or guidance' if isinstance(self.density, TokenDiffusion) else ''}."
            )
        if self.constraints.most is not None and self.constraints.parent is None:
            raise ConfigError("max_mutations counts changes from a parent: give the parent too.")

    @torch.no_grad()
    def _hold(self) -> None:
        """Energies of rows and of codes, (B,), for the leash, in standard deviations of those of training examples.

        A nat is no unit to compare models in: the bound of a prior that fits its codes tightly differs by many times more
        nats from one training example to the next than that of a wide one.
        """
        some = self.train[torch.linspace(0, len(self.train) - 1, min(SPREAD, len(self.train))).long()]
        if not self.density.has_codes:
            of_rows = self._energy_of_rows(some[:2])
            self.energy = None if of_rows is None else in_units(of_rows, of_rows(some))
            return
        of_codes = prior_energy(self.density.prior, seed=self.settings.seed)
        z = self.encode(some)
        units = in_units(of_codes, torch.cat([of_codes(part) for part in z.split(BATCH)]))
        self.energy, self.energy_of_codes = lambda x: units(self.encode(x)), units

    def _energy_of_rows(self, some: Tensor) -> Energy | None:
        """Of models without codes: rows -> a bound on -log p, or the energy, (B,), in nats; None where they have neither."""

        def bound(x: Tensor) -> Tensor:
            each = [
                self.density.paired_bound(part, passes=PASSES, seed=(self.settings.seed, 22)) for part in x.split(BATCH)
            ]
            return torch.cat(each)

        try:
            bound(some)
        except NoBound:
            energy = getattr(self.density, "energy", None)
            return None if energy is None else lambda x: energy(x).float()
        return bound

    def _rows(self, values: np.ndarray) -> Tensor:
        return to_space(raw_tensor(values), self.data.spec).to(self.device)

    def _labels(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).float().to(self.device)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Mean codes of rows, (B, D)."""
        return torch.cat([self.density.encode(part).flatten(1).float() for part in x.split(BATCH)])

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """What the second ensemble reads of rows, (B, F): symbols, and codes where the model has them."""
        symbols = one_hot(x, len(self.data.spec.symbols)).flatten(1)
        return torch.cat([symbols, self.encode(x)], 1) if self.density.has_codes else symbols

    @torch.no_grad()
    def worth(self, x: Tensor) -> Tensor:
        """What is to be made large of rows, (B,): the objective of sequences within the leash."""
        each = [self._worth(part) for part in x.split(BATCH)]
        return torch.cat(each) if each else torch.empty(0, device=x.device)

    def _worth(self, x: Tensor) -> Tensor:
        found = self.sequences(self.features(x))
        return found if self.energy is None else found - self.settings.leash * self.energy(x)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Allowed rows, (B, L); of the likeliest changes that the decoder would make in a parent those that are worth most."""
        limits = self.constraints
        if limits.most is None:
            return self.likeliest(z, limits)
        return self._within(self.likeliest(z, replace(limits, most=TRIED * limits.most)))

    @torch.no_grad()
    def likeliest(self, z: Tensor, limits: Constraints) -> Tensor:
        """What the decoder makes of codes within limits, (B, L): of changes of a parent the likeliest."""
        shown = (self.density.decoder(part) for part in z.split(BATCH))
        return torch.cat(
            [limits.decode(p.logits) if hasattr(p, "logits") else self._mended(p.mode, limits) for p in shown]
        )

    def _mended(self, x: Tensor, limits: Constraints) -> Tensor:
        """Rows (B, L) of a decoder that writes symbol by symbol, and so has no logits of all, made allowed; of too many changes
        of a parent those stay that are worth most alone."""
        middle = torch.full(x.shape, 0.5, device=x.device)
        if limits.most is None:
            return limits.repair(x, middle)
        x = replace(limits, most=None).repair(x, middle)
        return limits.repair(x, (-self._alone(x)).argsort(1).argsort(1) / x.shape[1])

    def _alone(self, x: Tensor) -> Tensor:
        """What the parent is worth with a single symbol of rows (B, L), at each place, (B, L), NaN where it is the parent's.
        Each is asked for once in a search."""
        parent = self.constraints.parent
        assert parent is not None
        places = torch.arange(x.shape[1], device=x.device)
        new = torch.zeros_like(self.constraints.allowed)
        new[places.expand_as(x), x] = True
        new[places, parent] = False
        place, symbol = (new & self.alone.isnan()).nonzero(as_tuple=True)
        if len(place):
            tried = parent.repeat(len(place), 1)
            tried[torch.arange(len(place), device=x.device), place] = symbol
            self.alone[place, symbol] = self.worth(tried)
        return self.alone[places.expand_as(x), x]

    def _within(self, target: Tensor) -> Tensor:
        """Rows on the way from the parent to `target` (B, L), with as many changes as are allowed, one after the other: always
        the one that is worth most, and after the first none that makes it worse."""
        limits, parent = self.constraints, self.constraints.parent
        assert parent is not None
        assert limits.most is not None
        x = torch.where(limits.forced, target, parent.expand_as(target))
        now = self.worth(x)
        for k in range(limits.most - int(limits.forced.sum())):
            row, place = (target != x).nonzero(as_tuple=True)
            if not len(row):
                break
            tried = x[row].clone()
            tried[torch.arange(len(row), device=x.device), place] = target[row, place]
            gain = torch.full(x.shape, float("-inf"), device=x.device)
            known = not k and not limits.forced.any()  # changes of the parent itself
            gain[row, place] = self._alone(target)[row, place] - now[row] if known else self.worth(tried) - now[row]
            best, where = gain.max(1)
            goes = best > (0.0 if k else float("-inf"))
            if not goes.any():
                break
            x[goes, where[goes]] = target[goes, where[goes]]
            now = torch.where(goes, now + best, now)
        return x

    def candidates(self, n: int, seed: int) -> Tensor:
        """Rows (n, L) from n climbs."""
        s, noise = self.settings, BlockNoise(seed, device=self.device)
        if s.method == "guidance":
            return self._guided(n, noise)
        steps = s.steps or {"ode": 100, "evolution": 50}.get(s.method, 200)
        generator = torch.Generator().manual_seed(seed)

        def uniform(shape: int | tuple[int, ...]) -> Tensor:
            return torch.rand(shape, generator=generator).to(self.device)

        if s.method == "evolution":
            return self._evolved(n, steps, noise, uniform)
        if s.method == "ode":
            wanted = self.objective.wanted
            return self.decode(guided_ode(self.density.prior, wanted, noise, n, steps=steps, scale=s.scale))
        z, scale = self.start(n, noise), self.codes.std(0).clamp(min=1e-6)
        on_the_way: list[Tensor] = []
        look = (max(1, steps // LOOKS), on_the_way.append)
        if s.method == "ascent":
            found = ascent(z, self.objective, steps=steps, scale=scale, look=look)
        elif s.method in ("hill", "stochastic_hill"):
            other = uniform if s.method == "stochastic_hill" else None
            found = hill(z, self.objective, self.codes, steps=steps, uniform=other, look=look)
        else:
            cycle = (lambda z: self.encode(self.likeliest(z, self.constraints))) if s.method == "cycle" else None
            found = mcmc(z, self.objective, noise, steps=steps, scale=scale, cycle=cycle, look=look)
        return self.best_of([self.decode(z) for z in (*on_the_way, found)])

    def best_of(self, rows: list[Tensor]) -> Tensor:
        """Of each climb the sequence that is worth most, and new where one is: (K, n, L) -> (n, L)."""
        together = torch.cat(rows)
        worth = self.worth(together) - 1e6 * (~self.fresh(together)).float()
        best = worth.reshape(len(rows), -1).argmax(0)
        return torch.stack(rows)[best, torch.arange(len(best), device=best.device)]

    def start(self, n: int, noise: BlockNoise) -> Tensor:
        """Codes to climb from, (n, D)."""
        parent = self.constraints.parent
        if self.settings.start == "train" and parent is not None:
            z = self.encode(parent[None]).expand(n, -1)
            return z + NEAR * self.codes.std(0) * noise((n, z.shape[1]))
        if self.settings.start != "prior":
            return self.codes[self._places(n, noise)]
        with torch.no_grad():
            return self.density.prior.sample(n, noise=noise).flatten(1)

    def start_rows(self, n: int, noise: BlockNoise) -> Tensor:
        """Rows to breed from, (n, L)."""
        if self.settings.start != "prior":
            return self.train[self._places(n, noise)]
        with torch.no_grad():
            return self.density.sample(n, noise=noise)

    def _places(self, n: int, noise: BlockNoise) -> Tensor:
        """Which training examples to begin with, (n,)."""
        pool = torch.arange(len(self.y), device=self.device)
        if self.settings.start == "top":
            worth = self.goal.better(self.y).masked_fill(~self.y.isfinite(), -torch.inf)
            pool = worth.topk(max(1, int(self.y.isfinite().sum()) // 10)).indices
        u = torch.special.ndtr(noise((n, 1)))[:, 0]
        return pool[(u * len(pool)).long().clamp(max=len(pool) - 1)]

    def _evolved(self, n: int, steps: int, noise: BlockNoise, uniform: Callable[[Any], Tensor]) -> Tensor:
        """A population of rows, bred for what they are worth."""
        first = self.start_rows(n, noise)
        first = self.constraints.repair(first, uniform(tuple(first.shape)))

        def fitness(x: Tensor) -> Tensor:
            worth = self.worth(x)
            return worth.masked_fill(self.constraints.broken(x), float("-inf"))

        return evolution(first, fitness, uniform, steps=steps, allowed=self.constraints.allowed)

    def _guided(self, n: int, noise: BlockNoise) -> Tensor:
        """Rows of a token diffusion, led by its own head."""
        head, column = self.density.head, self.goal.column
        i = head.columns.index(column)

        def value(h: Tensor) -> Tensor:
            return self.goal.value(head.networks[i](h)[:, 0], head.mean[i], head.std[i])

        guidance = Guidance(value, scale=self.settings.scale, steps=self.settings.steps or 5)
        given = free = None
        if self.constraints.parent is not None:
            given = self.constraints.parent.expand(n, -1)
            free = self.constraints.free(noise((n, given.shape[1])))
        x = self.density.sample(n, noise=noise, guidance=guidance, given=given, free=free)
        u = torch.special.ndtr(noise((n, x.shape[1])))
        return self.constraints.repair(x, u)

    def distinct(self, x: Tensor) -> Tensor:
        """Allowed rows, each once; neither the parent nor what the model was trained on, unless these are wanted."""
        x = torch.unique(x[~self.constraints.broken(x)], dim=0)
        return x[self.fresh(x)]

    def fresh(self, x: Tensor) -> Tensor:
        """Which rows are neither the parent nor what the model was trained on, (B,) bool; all where these are wanted."""
        if self.settings.keep_known or len(x) == 0:
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        return torch.from_numpy(~self.known.has(x.cpu().numpy())).to(x.device)

    @cached_property
    def known(self) -> RowDigests:
        """The parent, and what the model was trained on."""
        known = self.data.train.values
        if self.constraints.parent is not None:
            known = np.concatenate([known, self.constraints.parent.cpu().numpy()[None].astype(known.dtype)])
        return RowDigests(known)

    def ranked(self, x: Tensor, n: int) -> Designs:
        """The best n rows with what is known of them."""
        where = "other validation examples" if self.apart else "validation examples, which chose its weights too,"
        notes = [f"The ensemble's Spearman correlation on {where} is {self.accuracy['spearman']:.3f}."]
        if self.accuracy["spearman"] < RANKS:
            notes.append("So its predictions rank nothing: these designs are guesses.")
        if len(self.y) < len(self.data.train):
            notes.append(
                f"The ensembles learned from {len(self.y):,} of {len(self.data.train):,} training examples, the best among "
                "them."
            )
        if not len(x):
            notes.append(self._nothing())
        elif len(x) < n:
            where = "" if self.settings.keep_known else " outside the training split"
            notes.append(f"Only {len(x)} distinct sequences{where} were found, of {n} that were asked for.")
        mean, std = (v.cpu() for v in self.predictor.predict(self.features(x))) if len(x) else (torch.empty(0),) * 2
        notes += self._beside(mean)
        worth = self.goal.better(mean) - self.settings.caution * std
        best = worth.argsort(descending=True)[:n]
        rows = x[best.to(x.device)]
        values = rows.cpu().numpy().astype(self.data.train.values.dtype)
        columns = {"predicted": mean[best].numpy(), "uncertainty": std[best].numpy()}
        bound, refusal = self._bounds(rows)
        columns["bound_nats"] = bound
        notes += [refusal] if refusal else []
        columns["distance"] = nearest_rows(values, np.unique(self.data.train.values, axis=0))[0]
        if self.constraints.parent is not None:
            columns["changes"] = (rows != self.constraints.parent).sum(1).cpu().numpy()
        measured, others = _measured(values, self.data, self.goal.column)
        if others or np.isfinite(measured).any():
            columns["measured"] = measured
        if others:
            notes.append(
                f"{others} of these are among the validation or test sequences: 'measured' is what was measured of them."
            )
        return Designs(values, to_strings(values, self.data.spec), columns, self.accuracy, notes)

    def _nothing(self) -> str:
        """What an empty list means, and what to do."""
        known = [] if self.settings.keep_known else ["a training sequence, "]
        if known and self.constraints.parent is not None:
            known.append("the parent, ")
        what = "".join([*known, "or " if known else ""])
        other = "" if self.settings.method == "evolution" else "method evolution, "
        return (
            f"No sequence was found to propose: all that came up is {what}against the constraints. Try {other}more "
            f"candidates, or fewer constraints{', or keep_known' if known else ''}."
        )

    def _beside(self, mean: Tensor) -> list[str]:
        """What predictions are to be read against: the parent's, and the best value that was measured."""
        said = []
        if self.constraints.parent is not None:
            f, s = (float(v[0]) for v in self.predictor.predict(self.features(self.constraints.parent[None])))
            said.append(f"The parent is predicted at {f:.4g} +- {s:.2g}.")
        known = self._labels(self.data.train.labels[self.goal.column]).cpu()
        known = known[known.isfinite()]
        top = float(known[self.goal.better(known).argmax()])
        if len(mean) and float(self.goal.better(mean).max()) <= float(self.goal.better(torch.tensor(top))):
            said.append(f"No design is predicted to be better than the best training example, {top:.4g}.")
        return said

    @torch.no_grad()
    def _bounds(self, x: Tensor) -> tuple[np.ndarray, str]:
        """The model's bound on -log p of rows, (n,), or NaN and why."""
        found: list[Tensor] = []
        try:
            for part in x.split(BATCH) if len(x) else ():
                found += self.density.paired_bound(part, seed=(self.settings.seed, 33)).cpu()
            return np.array(found), ""
        except NoBound as refusal:
            return np.full(len(x), np.nan), f"No bound: {refusal}"


def some_with_values(worth: np.ndarray, seed: int, most: int = MOST) -> np.ndarray:
    """Training examples of worth (N,), all or so many, (n,) int64: the best, a tenth of these, and random ones, first those
    whose worth is finite, and so known."""
    order = np.random.default_rng(seed).permutation(len(worth))
    if len(worth) <= most:
        return order
    order = order[np.argsort(~np.isfinite(worth[order]), kind="stable")]
    known, kept = np.isfinite(worth[order]), np.zeros(len(order), bool)
    kept[np.argsort(np.where(known, -worth[order], np.inf), kind="stable")[: most // 10]] = True
    kept[np.flatnonzero(~kept)[: most - most // 10]] = True
    return order[kept]


def _measured(values: np.ndarray, data: Data, column: str) -> tuple[np.ndarray, int]:
    """What was measured of designs (n, L) that the data have, (n,), NaN of others; and how many are validation or test ones."""
    place = {row.tobytes(): i for i, row in enumerate(values)}
    y, others = np.full(len(values), np.nan), set()
    for split in (data.train, data.validation, data.test):
        for row, value in zip(split.values.astype(values.dtype, copy=False), split.labels[column], strict=True):
            i = place.get(row.tobytes())
            if i is None:
                continue
            y[i] = value if np.isnan(y[i]) else y[i]
            if split is not data.train:
                others.add(i)
    return y, len(others)


def in_units(energy: Energy, of_training: Tensor) -> Energy:
    """An energy in standard deviations of what it is of training examples, (B,); as it is where these do not differ."""
    spread = float(of_training.std())
    return (lambda x: energy(x) / spread) if spread > 1e-6 else energy


def _accuracy(predictor: Ensemble, z: Tensor, y: Tensor) -> dict[str, float]:
    """Spearman correlation and root mean square error on examples whose values are known."""
    known = y.isfinite()
    mean = predictor.predict(z[known])[0]
    rank = spearman(mean.cpu().numpy(), y[known].cpu().numpy())
    return {"spearman": rank, "rmse": float((mean - y[known]).square().mean().sqrt())}


def _halves(y: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Which validation examples choose an ensemble's weights, and which say how good it is; all do both where they are few."""
    known = y.isfinite().nonzero()[:, 0]
    if len(known) < FEW:
        return known, known
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(known))).to(known.device)
    return known[order[: len(order) // 2]], known[order[len(order) // 2 :]]
