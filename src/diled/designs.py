"""A search for designs from outside: the settings it takes, and the list it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from diled.errors import ConfigError, did_you_mean
from diled.latent.optimize import METHODS
from diled.output import aligned

__all__ = ["ALL_METHODS", "Designs", "Settings"]

ALL_METHODS = (*METHODS, "guidance")
"""`guidance` is for NOS, which has no codes to climb in."""


@dataclass(frozen=True)
class Settings:
    """How designs are looked for.

    Attributes:
        method: one of `ALL_METHODS`.
        start: `prior` (codes of the prior), `train` (random training examples; of climbs with a parent, around it) or `top` (of
            the best training examples).
        steps: of the climb; None: 200 for chains and gradients, 100 for the ODE, 50 generations, 5 for guidance.
        leash: weight of the prior's bound on codes, or of the model's own on sequences where it has none, in standard
            deviations of the property for each by which the bounds of training examples differ; `ode` and `guidance` draw from
            the prior instead.
        caution: weight of the ensemble's standard deviation.
        scale: of guidance (`ode`, `guidance`).
        candidates: climbs for each design that is wanted.
        rounds: how often more of them are made where too few are distinct and allowed; a round that brings none is the last.
        members: of the ensemble.
        keep_known: also propose training sequences.
        seed: of everything.
    """

    method: str = "evolution"
    start: str = "train"
    steps: int | None = None
    leash: float = 0.2
    caution: float = 1.0
    scale: float = 3.0
    candidates: int = 4
    members: int = 8
    keep_known: bool = False
    seed: int = 0
    rounds: int = 8

    def __post_init__(self) -> None:
        if self.method not in ALL_METHODS:
            raise ConfigError(f"Unknown method '{self.method}'.{did_you_mean(self.method, ALL_METHODS)}")
        if self.start not in ("prior", "train", "top"):
            raise ConfigError(f"start = {self.start}: begin at prior, train or top.")
        if self.start != "train" and self.method in ("ode", "guidance"):
            raise ConfigError(f"start = {self.start}: method '{self.method}' begins with noise.")
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}: a seed is 0 or more.")
        for name in ("steps", "candidates", "members", "rounds"):
            value = getattr(self, name)
            if value is not None and value < (2 if name == "members" else 1):
                raise ConfigError(f"{name} = {value}: at least {2 if name == 'members' else 1} is needed.")
        for name in ("leash", "caution", "scale"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{name} = {getattr(self, name)}: it is a weight, and no weight is negative or infinite."
                )


@dataclass(frozen=True, eq=False)
class Designs:
    """What was found, the best first.

    Attributes:
        values: (n, L) rows of symbols.
        sequences: the same as text, whole ones where only some sites are modelled.
        columns: name -> (n,): `predicted` (of the decoded sequence), `uncertainty`, `bound_nats` (NaN without a bound),
            `distance` to the nearest training sequence, `changes` from the parent where there is one, `measured` where the
            data have any of them (NaN of the others), and `oracle` where one judges them.
        accuracy: of the ensemble on validation examples that did not choose its weights, `spearman` and `rmse`.
        notes: what must be known to read them.
    """

    values: np.ndarray
    sequences: list[str]
    columns: dict[str, np.ndarray]
    accuracy: dict[str, float]
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)

    def figures(self, i: int, digits: int) -> dict[str, str]:
        """The columns of one design as text, nothing for what is not known."""
        return {k: "" if np.isnan(v[i]) else f"{v[i]:.{digits}g}" for k, v in self.columns.items()}

    def text(self, most: int = 10) -> str:
        """The first of them as a table, and the notes."""
        rows = [["sequence", *self.columns]]
        for i, sequence in enumerate(self.sequences[:most]):
            rows.append([sequence, *self.figures(i, 4).values()])
        return "\n".join([*aligned(rows), *(["..."] if len(self) > most else []), *self.notes])
