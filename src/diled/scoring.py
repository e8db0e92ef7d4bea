"""What a model says of examples one by one: the bound and its parts, and predicted properties. What `diled score` does.

    bound_nats, rate_nats, distortion_nats    upper bound on -log p(x) and its parts
    nats_per_residue, nats_per_token          of sequences, the bound over their lengths, of text with the end
    energy                                    of a Potts model whose sequences are too many for a bound
    predicted_COLUMN                          by the model's property head, where it has one

The lower bound or energy are, the likelier is the example to the model, which is what variants are ranked by.

Reference: Riesselman et al. 2018 (Nature Methods 15, 816), where the bound of a VAE ranks variants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from diled.config import DataSpec
from diled.data import Split, to_strings
from diled.errors import ConfigError, NoBound
from diled.evaluation.measure import Measured, bounds_of_examples
from diled.evaluation.sequence_distances import lengths_of
from diled.evaluation.sequences import batches, codes_of, spearman
from diled.model import Model
from diled.models.properties import head_of
from diled.output import aligned, write_columns

__all__ = ["Scores", "score_examples", "write_scores"]

FEWEST = 3
"""Values of a property of which a rank correlation is said."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What was found of n examples.

    Attributes:
        ids: of the examples.
        columns: name -> (n,) numbers, or names of classes.
        notes: what is not there, and why; and how scores agree with what was measured.
        spearman: `column/property` -> rank correlation of a score with a measured property, of minus the bound or the energy;
            None where one of both does not vary.
        spearman_new: the same among the examples that the model was not trained on, where it was on others.
    """

    ids: list[str]
    columns: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)
    spearman: dict[str, Measured] = field(default_factory=dict)
    spearman_new: dict[str, Measured] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def text(self, most: int = 10) -> str:
        """The first of them as a table, and the notes."""
        rows = [["id", *self.columns]]
        for i, name in enumerate(self.ids[:most]):
            rows.append([name, *(_shown(values[i]) for values in self.columns.values())])
        return "\n".join([*aligned(rows), *(["..."] if len(self) > most else []), *self.notes])


def score_examples(
    model: Model,
    values: np.ndarray,
    ids: Sequence[str],
    *,
    repeats: int = 64,
    seed: int = 0,
    measured: Mapping[str, np.ndarray] | None = None,
    trained_on: np.ndarray | None = None,
) -> Scores:
    """Everything that the model says of raw values (n, *shape).

    Args:
        model: with a bound, an energy or a property head.
        values: the examples.
        ids: their names.
        repeats: Monte-Carlo passes that are averaged, in each of which all examples meet the same noise, so that they compare.
        seed: of their noise.
        measured: property -> (n,) values to compare the scores with, NaN where missing.
        trained_on: (n,) bool, which examples the model was trained on; None: not known.

    Raises:
        NoBound: the model says nothing of examples.
        ConfigError: fewer than one estimate.
    """
    if repeats < 1:
        raise ConfigError(f"repeats = {repeats}: a bound needs at least one estimate.")
    columns: dict[str, np.ndarray] = {}
    notes, refusal, split = [], None, Split(values, {}, list(ids))
    try:
        found = bounds_of_examples(model.density, split, model.spec, repeats=repeats, seed=seed, paired=True)
        columns |= {name: each.numpy() for name, each in found.items() if not name.startswith("shuffled")}
        columns |= _by_length(columns["bound_nats"], values, model.spec)
    except NoBound as error:
        refusal = error
        notes.append(f"No bound: {error}")
        if hasattr(model.density, "energy"):
            columns["energy"] = _energies(model, split)
    columns |= _predictions(model, split)
    if not columns and refusal is not None:
        raise refusal
    ranks = _ranks(columns, measured or {})
    notes += [_said(name, one) for name, one in ranks.items()]
    new: dict[str, Measured] = {}
    if ranks and trained_on is not None and trained_on.any():
        notes.append(f"The model was trained on {trained_on.sum():,} of these {len(values):,} examples.")
        new = _ranks(columns, {name: np.where(trained_on, np.nan, y) for name, y in (measured or {}).items()})
        notes += [_said(name, one, " among the others") for name, one in new.items()]
    return Scores(list(ids), columns, notes, ranks, new)


def _ranks(columns: Mapping[str, np.ndarray], measured: Mapping[str, np.ndarray]) -> dict[str, Measured]:
    """How scores rank measured properties, those of which at least `FEWEST` values are known: minus a bound, or an energy."""
    found = {}
    for name, y in measured.items():
        known = np.isfinite(y)
        for column, sign in (("bound_nats", -1), ("energy", -1), (f"predicted_{name}", 1)):
            scores = columns.get(column)
            if scores is not None and scores.dtype.kind == "f" and known.sum() >= FEWEST:
                alike = [each for each, v in ((name, y), (column, scores)) if np.ptp(v[known]) == 0]
                rank = None if alike else spearman(sign * scores[known], y[known])
                note = f"all values of '{alike[0]}' are alike" if alike else ""
                found[f"{column}/{name}"] = Measured(rank, n=int(known.sum()), note=note)
    return found


def _said(name: str, rank: Measured, among: str = "") -> str:
    column, _, of = name.partition("/")
    score = column if column.startswith("predicted_") else f"minus {column}"
    value = f"not defined, {rank.note}" if rank.value is None else f"{rank.value:.3f}"
    return f"Spearman correlation of {score} with '{of}'{among}: {value} (n = {rank.n:,})."


def write_scores(scores: Scores, values: np.ndarray, spec: DataSpec, out: str | Path) -> None:
    """A table (.csv, .parquet) with a row for each example; of sequences with the sequence.

    Raises:
        ConfigError: another ending, or the place cannot be written.
    """
    sequences = {"text" if spec.kind == "text" else "sequence": to_strings(values, spec)} if spec.sequential else {}
    write_columns({"id": scores.ids, **sequences, **scores.columns}, out)


def _by_length(bound: np.ndarray, values: np.ndarray, spec: DataSpec) -> dict[str, np.ndarray]:
    """The bound over the symbols of a sequence; of text they have an end."""
    if not spec.sequential:
        return {}
    if spec.kind == "text":
        return {"nats_per_token": bound / np.minimum(lengths_of(values) + 1, values.shape[1])}
    return {"nats_per_residue": bound / np.maximum(lengths_of(values), 1)}


@torch.no_grad()
def _energies(model: Model, split: Split) -> np.ndarray:
    return torch.cat(
        [model.density.energy(x).cpu().double() for x in batches(split, model.spec, model.density)]
    ).numpy()


@torch.no_grad()
def _predictions(model: Model, split: Split) -> dict[str, np.ndarray]:
    """What the model's head reads from codes, or hidden states: values, or the names of the likeliest classes."""
    head = head_of(model.density)
    if head is None:
        return {}
    codes = codes_of(model.density, split, model.spec).to(model.device)
    found = {}
    for column, count in head.classes.items():
        said = head.predict(codes, column).cpu()
        names = np.array(model.spec.labels.get(column) or [str(i) for i in range(count)])
        found[f"predicted_{column}"] = names[said.argmax(1).numpy()] if count else said.numpy()
    return found


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
