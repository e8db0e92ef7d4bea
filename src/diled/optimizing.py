"""Designing sequences: from a run and a wish to a ranked list. What `diled optimize` does.

    ensemble fitted to training codes -> start codes -> climb -> decode within the constraints -> encode again -> rank

The prediction that counts is that of the decoded sequence, encoded again, since a climb finds codes that no sequence has. A
list is ranked by the ensemble's mean less `caution` standard deviations, and each design carries the model's bound and its
distance to the nearest training sequence, since whoever climbs a predictor finds its errors too.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diled.api import NoBound, total
from diled.config import DataSpec
from diled.data import Data, read_examples
from diled.data.proteins import sites_of, to_strings
from diled.data.splits import seen
from diled.draws import BlockNoise, seed_from, seeded
from diled.errors import ConfigError, did_you_mean
from diled.evaluation.sequence_distances import lengths_of, nearest_rows
from diled.evaluation.sequences import properties_of, residues_of, spearman
from diled.latent.constraints import Constraints
from diled.latent.optimize import METHODS, Goal, Objective, ascent, evolution, guided_ode, hill, mcmc, prior_energy
from diled.latent.predict import Ensemble
from diled.model import Model
from diled.models.sampling import BATCH
from diled.models.token_diffusion import Guidance, TokenDiffusion
from diled.nn.sequence import one_hot
from diled.output import check_place, through
from diled.sequences import END
from diled.space import raw_tensor, to_space

__all__ = [
    "ALL_METHODS",
    "Designs",
    "Settings",
    "check_designs",
    "constraints_of",
    "design",
    "positions",
    "the_property",
    "write_designs",
]

ALL_METHODS = (*METHODS, "guidance")
"""`guidance` is for NOS, which has no codes to climb in."""
MOST = 20_000
"""Training examples that the ensemble learns from, and start codes are taken from."""
ROUNDS = 8
"""How often more candidates are made where too few are new and distinct."""


@dataclass(frozen=True)
class Settings:
    """How designs are looked for.

    Attributes:
        method: one of `ALL_METHODS`.
        start: `prior` (codes of the prior), `train` (codes of random training examples) or `top` (of the best ones).
        steps: of the climb; None: 200 for chains and gradients, 100 for the ODE, 50 generations, 5 for guidance.
        leash: weight of the prior's bound, in standard deviations of the property per nat; without codes and for `ode` and
            `guidance`, which draw from the prior, it has no part.
        caution: weight of the ensemble's standard deviation.
        scale: of guidance (`ode`, `guidance`).
        candidates: climbs for each design that is wanted.
        members: of the ensemble.
        keep_known: also propose training sequences.
        seed: of everything.
    """

    method: str = "ascent"
    start: str = "train"
    steps: int | None = None
    leash: float = 0.02
    caution: float = 1.0
    scale: float = 3.0
    candidates: int = 4
    members: int = 8
    keep_known: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in ALL_METHODS:
            raise ConfigError(f"Unknown method '{self.method}'.{did_you_mean(self.method, ALL_METHODS)}")
        if self.start not in ("prior", "train", "top"):
            raise ConfigError(f"start = {self.start}: begin at prior, train or top.")
        if self.start != "train" and self.method in ("ode", "guidance"):
            raise ConfigError(f"start = {self.start}: method '{self.method}' begins with noise.")
        for name in ("steps", "candidates", "members"):
            value = getattr(self, name)
            if value is not None and value < (2 if name == "members" else 1):
                raise ConfigError(f"{name} = {value}: at least {2 if name == 'members' else 1} is needed.")
        for name in ("leash", "caution", "scale"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: it is a weight, and no weight is negative.")


@dataclass(frozen=True, eq=False)
class Designs:
    """What was found, the best first.

    Attributes:
        values: (n, L) rows of symbols.
        sequences: the same as text, whole ones where only some sites are modelled.
        columns: name -> (n,): `predicted` (of the decoded sequence), `uncertainty`, `bound_nats` (NaN without a bound),
            `distance` to the nearest training sequence, and `changes` from the parent where there is one.
        accuracy: of the ensemble on validation examples, `spearman` and `rmse`.
        notes: what must be known to read them.
    """

    values: np.ndarray
    sequences: list[str]
    columns: dict[str, np.ndarray]
    accuracy: dict[str, float]
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)

    def text(self, most: int = 10) -> str:
        """The first of them as a table, and the notes."""
        rows = [["sequence", *self.columns]]
        for i, sequence in enumerate(self.sequences[:most]):
            rows.append([sequence, *(f"{values[i]:.4g}" for values in self.columns.values())])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *(["..."] if len(self) > most else []), *self.notes])


def design(
    model: Model, data: Data, goal: Goal, n: int, settings: Settings, constraints: Constraints | None = None
) -> Designs:
    """n distinct sequences that a goal is expected of.

    Args:
        model: of sequences.
        data: with values of the property in its training and validation split.
        goal: what is wanted.
        n: how many.
        settings: how they are looked for.
        constraints: which sequences are allowed; None: those with residues at every position, as long as the data's.

    Raises:
        ConfigError: no sequences, no such property, or a method that the model does not have.
    """
    if not data.spec.sequential:
        raise ConfigError(f"Designs are sequences, and these data are {data.spec.kind}s: use 'edit'.")
    numbers = properties_of(data.spec)
    if goal.column not in numbers:
        known = did_you_mean(goal.column, numbers) or " The data have no columns of numbers."
        if goal.column in data.spec.labels:
            raise ConfigError(
                f"'{goal.column}' has {len(data.spec.labels[goal.column])} values and was read as classes, not as a measured "
                "property: write its values with a decimal point."
            )
        raise ConfigError(f"There is no measured property '{goal.column}'.{known}")
    search = _Search(model, data, goal, settings, constraints or _any_sequence(data))
    found: list[Tensor] = []
    for round_ in range(ROUNDS):
        found.append(search.candidates(max(2, settings.candidates * n), seed_from(settings.seed, 31, round_)))
        rows = search.distinct(torch.cat(found))
        if len(rows) >= n:
            break
    return search.ranked(rows, n)


def constraints_of(
    data: Data,
    *,
    parent: str | Path | None = None,
    most: int | None = None,
    fixed: Sequence[str] = (),
    allowed: Sequence[str] = (),
) -> Constraints:
    """What a user wants of every design, over what the data's sequences are.

    Args:
        data: of sequences.
        parent: a sequence, or a file with one.
        most: changes of it.
        fixed: positions that stay as in the parent, counted from 1: `7`, `1-5`.
        allowed: residues of positions: `39:ACD`, `1-5:AG`.

    Raises:
        ConfigError: positions outside the sequence or that are not modelled, residues that are none, no parent.
    """
    if not data.spec.sequential:
        raise ConfigError(f"Designs are sequences, and these data are {data.spec.kind}s: use 'edit'.")
    limits = _any_sequence(data)
    table = limits.allowed.clone()
    row, size = None, data.spec.numel
    if parent is not None:
        values = read_examples(parent, data.spec)
        if len(values) != 1:
            raise ConfigError(f"A parent is one sequence, and {parent} holds {len(values)}.")
        row, size = torch.from_numpy(values[0].astype(np.int64)), int(lengths_of(values)[0])
        table[:size] = table[0]  # it may be longer than those that were seen
        table[torch.arange(size), row[:size]] = True  # or have a gap
    elif fixed or most is not None:
        raise ConfigError(f"{'fixed' if fixed else 'max_mutations'} speaks of a parent: give it with --parent.")
    for word in allowed:
        places, _, residues = word.partition(":")
        unknown = [symbol for symbol in residues.upper() if symbol not in data.spec.symbols]
        if not residues or unknown:
            raise ConfigError(f"allowed '{word}': write a position and its residues, such as 39:ACD.")
        for place in positions(places, data.spec):
            if place >= size:
                raise ConfigError(f"allowed '{word}': the parent ends before, after {size} residues.")
            table[place] = False
            table[place, [data.spec.symbols.index(symbol) for symbol in residues.upper()]] = True
    for word in fixed:
        for place in positions(word, data.spec):
            assert row is not None
            table[place] = False
            table[place, row[place]] = True
    return Constraints(table, row, most)


def positions(word: str, spec: DataSpec) -> list[int]:
    """`7` or `1-5`, counted from 1 in the whole sequence, as places in a row.

    Raises:
        ConfigError: no numbers, outside the sequence, or a site that is not modelled.
    """
    first, _, last = word.partition("-")
    try:
        wanted = range(int(first), int(last or first) + 1)
    except ValueError:
        raise ConfigError(f"'{word}' is no position: write 7 or 1-5.") from None
    sites = {site + 1: i for i, site in enumerate(spec.sites or range(spec.numel))}
    outside = [p for p in wanted if p not in sites]
    if outside or not wanted:
        some = ", ".join(map(str, sorted(sites))) if spec.sites else f"1 to {spec.numel}"
        raise ConfigError(f"Position {outside[0] if outside else word} is not modelled. Positions: {some}.")
    return [sites[p] for p in wanted]


def check_designs(out: str | Path) -> None:
    """Refuse a place that designs are not written to.

    Raises:
        ConfigError: another ending than .csv, or the place cannot be written.
    """
    if Path(out).suffix.lower() != ".csv":
        raise ConfigError(f"'{out}' does not end with .csv: designs are written as a table, and as .fasta beside it.")
    check_place(Path(out))


def write_designs(found: Designs, spec: DataSpec, out: str | Path) -> None:
    """The list as a .csv, and as a .fasta file of the same name."""
    out, sites = Path(out), sites_of(found.values, spec) if spec.sites else None
    header = ["id", "sequence", *(["sites"] if sites else []), *found.columns]

    def table(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for i, sequence in enumerate(found.sequences):
                numbers = (f"{values[i]:.6g}" for values in found.columns.values())
                writer.writerow([f"design_{i + 1}", sequence, *([sites[i]] if sites else []), *numbers])

    def fasta(partial: Path) -> None:
        lines = []
        for i, sequence in enumerate(found.sequences):
            said = " ".join(f"{name}={values[i]:.4g}" for name, values in found.columns.items())
            lines += [f">design_{i + 1} {said}", sequence]
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")

    through(out, table)
    through(out.with_suffix(".fasta"), fasta)


def the_property(data: Data) -> str:
    """The only column of measured values.

    Raises:
        ConfigError: there are several, or none.
    """
    numbers = properties_of(data.spec)
    if not numbers:
        raise ConfigError("The data have no column of numbers, so there is no property to design for.")
    if len(numbers) > 1:
        raise ConfigError(f"Name the property (--property): the data have {', '.join(numbers)}.")
    return numbers[0]


def _any_sequence(data: Data) -> Constraints:
    """Amino acids that occur, anywhere, and an end wherever training sequences are of different lengths."""
    seen = np.concatenate([data.train.values, data.validation.values])
    most, ends = int((seen != 0).sum(1).max()), bool((seen == 0).any())
    residues = [i for i in residues_of(data.spec) if (seen == i).any()]
    allowed = Constraints.of_residues(data.spec.numel, len(data.spec.symbols), residues=residues, ends=ends).allowed
    allowed[: int((seen != 0).sum(1).min()), END] = False  # no shorter than what was seen
    allowed[most:] = False
    allowed[most:, END] = True
    return Constraints(allowed)


class _Search:
    """A model, what it says of the property, and the wish."""

    def __init__(self, model: Model, data: Data, goal: Goal, settings: Settings, constraints: Constraints) -> None:
        self.model, self.data, self.goal, self.settings = model, data, goal, settings
        self.density, self.device = model.density, model.device
        self.constraints = replace(
            constraints,
            allowed=constraints.allowed.to(self.device),
            parent=None if constraints.parent is None else constraints.parent.to(self.device),
        )
        self._check_method()
        order = np.random.default_rng(settings.seed).permutation(len(data.train))[:MOST]
        self.train = self._rows(data.train.values[order])
        self.y = torch.from_numpy(data.train.labels[goal.column][order]).float().to(self.device)
        self.codes = self.encode(self.train)
        held = self.encode(self._rows(data.validation.values)), self._labels(data.validation.labels[goal.column])
        self.predictor = Ensemble(self.codes.shape[1], members=settings.members).to(self.device)
        self.predictor.fit(self.codes, self.y, held, seed=settings.seed)
        self.accuracy = _accuracy(self.predictor, *held)
        energy = prior_energy(self.density.prior, seed=settings.seed) if self._leashed() else None
        self.objective = Objective(goal, self.predictor, energy, settings.leash, settings.caution)

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

    def _leashed(self) -> bool:
        """Whether the prior's bound holds the climb back."""
        return bool(self.settings.leash) and self.density.has_codes and self.settings.method != "guidance"

    def _rows(self, values: np.ndarray) -> Tensor:
        return to_space(raw_tensor(values), self.data.spec).to(self.device)

    def _labels(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).float().to(self.device)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Mean codes of rows, (B, D); one-hot rows where the model has none."""
        if not self.density.has_codes:
            return one_hot(x, len(self.data.spec.symbols)).flatten(1)
        return torch.cat([self.density.encode(part).flatten(1).float() for part in x.split(BATCH)])

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Allowed rows, (B, L)."""
        return torch.cat([self.constraints.decode(self.density.decoder(part).logits) for part in z.split(BATCH)])

    def candidates(self, n: int, seed: int) -> Tensor:
        """Rows (n, L) from n climbs."""
        s, noise = self.settings, BlockNoise(seed, device=self.device)
        if s.method == "guidance":
            return self._guided(n, noise)
        steps = s.steps or {"ode": 100, "evolution": 50}.get(s.method, 200)
        scale = self.codes.std(0).clamp(min=1e-6) if self.density.has_codes else 1.0
        generator = torch.Generator().manual_seed(seed)

        def uniform(shape: int | tuple[int, ...]) -> Tensor:
            return torch.rand(shape, generator=generator).to(self.device)

        if s.method == "evolution":
            return self._evolved(n, steps, noise, uniform)
        if s.method == "ode":
            wanted = self.objective.wanted
            return self.decode(guided_ode(self.density.prior, wanted, noise, n, steps=steps, scale=s.scale))
        z = self.start(n, noise)
        if s.method == "ascent":
            found = ascent(z, self.objective, steps=steps, scale=scale)
        elif s.method in ("hill", "stochastic_hill"):
            found = hill(z, self.objective, self.codes, steps=steps, uniform=uniform if "st" in s.method else None)
        else:
            cycle = (lambda z: self.encode(self.decode(z))) if s.method == "cycle" else None
            found = mcmc(z, self.objective, noise, steps=steps, scale=scale, cycle=cycle)
        return self.decode(found)

    def start(self, n: int, noise: BlockNoise) -> Tensor:
        """Codes to climb from, (n, D)."""
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
        """A population of rows, bred for the objective of their codes."""
        first = self.start_rows(n, noise)
        first = self.constraints.repair(first, uniform(tuple(first.shape)))

        def fitness(x: Tensor) -> Tensor:
            worth = self.objective(self.encode(x))
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
        if self.settings.keep_known or len(x) == 0:
            return x
        known = self.data.train.values
        if self.constraints.parent is not None:
            known = np.concatenate([known, self.constraints.parent.cpu().numpy()[None].astype(known.dtype)])
        return x[torch.from_numpy(~seen(x.cpu().numpy(), known)).to(x.device)]

    def ranked(self, x: Tensor, n: int) -> Designs:
        """The best n rows with what is known of them."""
        notes = [f"The ensemble's Spearman correlation on validation examples is {self.accuracy['spearman']:.3f}."]
        if len(x) < n:
            notes.append(f"Only {len(x)} distinct new sequences were found, of {n} that were asked for.")
        mean, std = (v.cpu() for v in self.predictor.predict(self.encode(x))) if len(x) else (torch.empty(0),) * 2
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
        return Designs(values, to_strings(values, self.data.spec), columns, self.accuracy, notes)

    @torch.no_grad()
    def _bounds(self, x: Tensor, repeats: int = 16) -> tuple[np.ndarray, str]:
        """The model's bound on -log p of rows, (n,), or NaN and why."""
        found: list[Tensor] = []
        try:
            with seeded(self.settings.seed, 33):
                for part in x.split(BATCH) if len(x) else ():
                    each = [total(self.density.terms(part, exact=True)) for _ in range(repeats)]
                    found += torch.stack(each).mean(0).cpu()
            return np.array(found), ""
        except NoBound as refusal:
            return np.full(len(x), np.nan), f"No bound: {refusal}"


def _accuracy(predictor: Ensemble, z: Tensor, y: Tensor) -> dict[str, float]:
    """Spearman correlation and root mean square error on examples whose values are known."""
    known = y.isfinite()
    mean = predictor.predict(z[known])[0]
    rank = spearman(mean.cpu().numpy(), y[known].cpu().numpy())
    return {"spearman": rank, "rmse": float((mean - y[known]).square().mean().sqrt())}
