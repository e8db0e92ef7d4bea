"""Designing sequences: from a run and a wish to a ranked list. What `diled optimize` does.

A list is ranked by the ensemble's mean less `caution` standard deviations, and each design carries the model's bound and its
distance to the nearest training sequence. `designing.py` says how designs are looked for.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diled.config import DataSpec
from diled.data import Data, read_examples
from diled.data.proteins import sites_of
from diled.designing import Search
from diled.designs import ALL_METHODS, Designs, Settings
from diled.draws import seed_from
from diled.errors import ConfigError, DataError, did_you_mean
from diled.evaluation.sequence_distances import lengths_of
from diled.evaluation.sequences import FEWEST, fit_oracle, properties_of, residues_of, unseen_values
from diled.latent.constraints import Constraints
from diled.latent.optimize import Goal
from diled.model import Model
from diled.output import check_place, through
from diled.sequences import END

__all__ = [
    "ALL_METHODS",
    "Designs",
    "Settings",
    "beside_oracle",
    "check_designs",
    "check_used",
    "constraints_of",
    "design",
    "designed",
    "positions",
    "property_of",
    "write_designs",
]

STOPPED = 0.95
"""Share of sequences with a stop at their end from which designs have it too."""


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
    _check_kind(data)
    numbers = properties_of(data.spec)
    if goal.column not in numbers:
        known = did_you_mean(goal.column, numbers) or " The data have no columns of numbers."
        if goal.column in data.spec.labels:
            raise ConfigError(
                f"'{goal.column}' has {len(data.spec.labels[goal.column])} values and was read as classes, not as a measured "
                "property: write its values with a decimal point."
            )
        raise ConfigError(f"There is no measured property '{goal.column}'.{known}")
    search = Search(model, data, goal, settings, constraints or _any_sequence(data))
    found: list[Tensor] = []
    there = -1
    for round_ in range(settings.rounds):
        found.append(search.candidates(max(2, settings.candidates * n), seed_from(settings.seed, 31, round_)))
        rows = search.distinct(torch.cat(found))
        if len(rows) >= n or len(rows) == there:
            break
        there = len(rows)
    return search.ranked(rows, n)


def designed(
    model: Model, data: Data, goal: Goal, n: int, settings: Settings, constraints: Constraints | None = None
) -> Designs:
    """`design`, and beside the list what an oracle says of it that learned from the test split alone."""
    return beside_oracle(design(model, data, goal, n, settings, constraints), data, goal.column)


def beside_oracle(found: Designs, data: Data, column: str) -> Designs:
    """The same designs with a column `oracle`: what networks predict that were fitted to the test split alone.

    Neither the model nor the ensembles have seen that split, so a search did not exploit its errors; how far they can be
    trusted is in a note. Where there are too few values, the note says so instead.
    """
    if not len(found):
        return found
    known = len(unseen_values(data, column))
    if known < FEWEST:
        few = f"No oracle: it needs {FEWEST} other test sequences with a value, and there are {known}."
        return replace(found, notes=[*found.notes, few])
    oracle = fit_oracle(data, column)
    said = oracle(found.values)
    note = (
        f"An oracle fitted to {known - int(oracle.accuracy['n']):,} test sequences, which the search did not see, predicts "
        f"{said.mean():.4g} on average; its Spearman correlation on {oracle.accuracy['n']:.0f} others is "
        f"{oracle.accuracy['spearman']:.3f}."
    )
    return replace(found, columns={**found.columns, "oracle": said}, notes=[*found.notes, note])


def _check_kind(data: Data) -> None:
    if data.spec.kind != "protein":
        raise ConfigError(f"Designs are protein sequences, and these data are {data.spec.kind}s: use 'edit'.")


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
        ConfigError: positions outside the sequence or that are not modelled, residues that are none, no parent, or one that
            cannot be read.
    """
    _check_kind(data)
    limits = _any_sequence(data)
    table = limits.allowed.clone()
    row, size = None, data.spec.numel
    if parent is not None:
        values = _parent(parent, data)
        row, size = torch.from_numpy(values[0].astype(np.int64)), int(lengths_of(values)[0])
        table[:size] = table[0] & ~_gaps(data)[0]  # it may be longer than those that were seen
        table |= _gaps(data)
        table[torch.arange(size), row[:size]] = True  # or have a gap
        if limits.last is not None and row[size - 1] == limits.last:  # a stop stays
            table[size - 1] = False
            table[size - 1, limits.last] = True
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
            if place >= size:
                raise ConfigError(f"fixed '{word}': the parent ends before, after {size} residues.")
            if not table[place, row[place]]:
                raise ConfigError(
                    f"fixed '{word}': the parent's {data.spec.symbols[int(row[place])]} is not among the residues that are "
                    "allowed there: leave one of the two out."
                )
            table[place] = False
            table[place, row[place]] = True
    return Constraints(table, row, most, limits.last if row is None else None)


def _parent(parent: str | Path, data: Data) -> np.ndarray:
    """The row (1, L) of a parent, which is never converted: its designs would be those of another sequence."""
    try:
        values = read_examples(parent, data.spec)
    except DataError as error:
        said = re.sub(r": (convert|shorten) it, or pass convert=True [^.]*", "", str(error))
        raise ConfigError(f"This is no parent: {said}") from None
    if len(values) != 1:
        raise ConfigError(f"A parent is one sequence, and {parent} holds {len(values)}.")
    return values


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


def check_designs(out: str | Path | None) -> None:
    """Refuse a place that designs are not written to; None: they are not to be written.

    Raises:
        ConfigError: another ending than .csv, the place cannot be written, or the .fasta beside it holds something else.
    """
    if out is None:
        return
    if Path(out).suffix.lower() != ".csv":
        raise ConfigError(f"'{out}' does not end with .csv: designs are written as a table, and as .fasta beside it.")
    beside = Path(out).with_suffix(".fasta")
    check_place(Path(out))
    check_place(beside)
    if beside.exists():
        with beside.open("rb") as file:
            other = not file.readline().startswith(b">design_")
        if other:
            raise ConfigError(
                f"{beside} is there and holds no designs, which are written as a table, and as .fasta beside it: choose "
                "another --out."
            )


def check_used(method: str, given: Collection[str]) -> None:
    """Refuse options that a method does not use: `leash` of those that draw from the prior, `scale` of all others.

    Raises:
        ConfigError: with the first of them.
    """
    drawn = method in ("ode", "guidance")
    if drawn and "leash" in given:
        raise ConfigError(
            f"leash has no effect on method '{method}', which draws from the prior: use scale, or leave it out."
        )
    if not drawn and method in ALL_METHODS and "scale" in given:
        raise ConfigError(f"scale has no effect on method '{method}': it is for ode and guidance. Leave it out.")


def write_designs(found: Designs, spec: DataSpec, out: str | Path) -> None:
    """The list as a .csv, and as a .fasta file of the same name."""
    out, sites = Path(out), sites_of(found.values, spec) if spec.sites else None
    header = ["id", "sequence", *(["sites"] if sites else []), *found.columns]

    def table(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for i, sequence in enumerate(found.sequences):
                numbers = found.figures(i, 6).values()
                writer.writerow([f"design_{i + 1}", sequence, *([sites[i]] if sites else []), *numbers])

    def fasta(partial: Path) -> None:
        lines = []
        for i, sequence in enumerate(found.sequences):
            said = " ".join(f"{name}={value}" for name, value in found.figures(i, 4).items() if value)
            lines += [f">design_{i + 1} {said}", sequence]
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")

    through(out, table)
    through(out.with_suffix(".fasta"), fasta)


def property_of(data: Data) -> str:
    """The only column of measured values.

    Raises:
        ConfigError: there are several, or none.
    """
    numbers = properties_of(data.spec)
    if not numbers:
        classes = [column for column, names in data.spec.labels.items() if names]
        read = f" Read as classes: {', '.join(classes)}. Write measured values with a decimal point." if classes else ""
        raise ConfigError(f"The data have no column of numbers, so there is no property to design for.{read}")
    if len(numbers) > 1:
        raise ConfigError(f"Name the property (--property): the data have {', '.join(numbers)}.")
    return numbers[0]


def _gaps(data: Data) -> Tensor:
    """The gaps that an alignment has, (L, V) bool: only its own positions may have one."""
    found = torch.zeros(data.spec.numel, len(data.spec.symbols), dtype=torch.bool)
    if "-" in data.spec.symbols:
        gap = data.spec.symbols.index("-")
        known = np.concatenate([data.train.values, data.validation.values])
        found[:, gap] = torch.from_numpy((known == gap).any(0))
    return found


def _any_sequence(data: Data) -> Constraints:
    """Amino acids that occur, anywhere, gaps where an alignment has them, an end wherever training sequences are of different
    lengths, and before it the stop with which all of them end, where they do."""
    known = np.concatenate([data.train.values, data.validation.values])
    lengths = lengths_of(known)
    shortest, most, ends = int(lengths.min()), int(lengths.max()), bool((known == 0).any())
    residues = [i for i in residues_of(data.spec) if (known == i).any()]
    allowed = Constraints.of_residues(data.spec.numel, len(data.spec.symbols), residues=residues, ends=ends).allowed
    allowed[:shortest, END] = False  # no shorter than what was seen
    allowed |= _gaps(data)
    allowed[most:] = False
    allowed[most:, END] = True
    last = _last(known, lengths, data.spec)
    if last is not None:
        allowed[shortest - 1 : most, last] = True
    return Constraints(allowed, last=last)


def _last(known: np.ndarray, lengths: np.ndarray, spec: DataSpec) -> int | None:
    """The stop, where nearly all rows (N, L) of these lengths (N,) end with it."""
    if "*" not in spec.symbols:
        return None
    stop = spec.symbols.index("*")
    ends = known[np.arange(len(known)), np.maximum(lengths - 1, 0)]
    return stop if (ends == stop).mean() >= STOPPED else None
