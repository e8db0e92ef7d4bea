"""Which examples a run is trained on: the real ones, a synthetic pool, a mixture of both, or new ones without end.

With N real training examples and a pool of synthetic ones,

    --pool.source DIR                   the whole pool
    --pool.source DIR --pool.folds k    its first k N examples, which then repeat
    --pool.source DIR --pool.real s     the share s of every batch is real
    --pool.source DIR --pool.keep       the union of both
    --pool.fresh RUN                    samples of another model, drawn while this one trains

Reference: Xiao et al. 2024 (arXiv 2310.19653), Algorithm 2 and section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diled.config import DataSpec, PoolConfig
from diled.data import Data
from diled.data.synthetic_texts import Usable, usable
from diled.errors import ConfigError, DataError
from diled.models.io import read_config
from diled.runs import RunConfig
from diled.space import raw_tensor
from diled.training.data import Fresh, Mixed, Shuffled, Source

__all__ = ["counts_of", "sequences_of", "source_for"]

MOST_HELD = 0.5
"""Share of test sequences from which a pool is refused: a model drew it that knows the test split by heart."""


def source_for(
    config: RunConfig, data: Data, say: Callable[[str], None] = print, columns: Sequence[str] = ()
) -> Source:
    """Where the training examples of a run come from; validation and test data are the real ones in any case.

    Args:
        config: of the run.
        data: the real data.
        say: prints what was found.
        columns: the label columns that the model learns from.

    Raises:
        ConfigError: labels are wanted of a pool, which has none.
        DataError: the pool is damaged, too small, of other data, or holds test examples (of sequences more than
            half, of binarised images more than by chance; fewer are left out and counted).
    """
    pool = config.pool
    if columns and (pool.source is not None or pool.fresh is not None):
        raise ConfigError(
            f"properties.columns: examples of a pool have no '{columns[0]}' to learn: leave out the pool, or the columns."
        )
    labels = {column: torch.from_numpy(data.train.labels[column]) for column in columns}
    bucket = config.training.batch_size if data.spec.kind == "text" and not pool.real else None
    real = Shuffled(raw_tensor(data.train.values), labels, batch=bucket)
    synthetic: Source
    if pool.fresh is not None:
        from diled.synthesizing import fresh

        if (Path(pool.fresh) / "config.json").exists():
            _check_scale(pool.fresh, DataSpec(**read_config(Path(pool.fresh))["data"]), data)
        batch, device = config.training.batch_size, config.training.device
        check = partial(_check_scale, pool.fresh, data=data)  # of a pipeline, whose network says what it draws
        synthetic = Fresh(fresh(pool.fresh, config.training.seed, batch, device=device, check=check), batch)
        say(f"New examples are drawn from {pool.fresh} while training.")
    elif pool.source is not None:
        synthetic = Shuffled(raw_tensor(_stored(pool, data, say)), batch=bucket)
    else:
        return real
    if pool.real:
        return Mixed(real, synthetic, pool.real)
    if pool.keep and isinstance(synthetic, Shuffled):
        return Shuffled(torch.cat([real.values, synthetic.values]), batch=bucket)  # of whole and broken numbers: broken
    return synthetic


def counts_of(source: Source, pool: PoolConfig, data: Data) -> dict[str, int | None]:
    """How many different real and synthetic examples a source has; None of these: they are drawn anew, without end."""
    if pool.source is None and pool.fresh is None:
        return {"real": len(data.train)}
    real = len(data.train) if pool.real or pool.keep else 0
    return {"real": real, "synthetic": None if pool.fresh is not None else len(source) - real}


def _check_scale(run: str, theirs: DataSpec, data: Data) -> None:
    """Refuse a run, or a pipeline, whose samples are of another shape or scale than the data's."""
    for key in ("shape", "low", "high", *(("levels", "binarize") if data.spec.binarize == "none" else ())):
        here, there = getattr(data.spec, key), getattr(theirs, key)
        if here != there:
            raise DataError(f"{run} draws other data: {key} is {there} there and {here} in {data.name}.")
    if data.spec.tokenizer != theirs.tokenizer:
        raise DataError(
            f"{run} writes in tokens of another tokenizer than that of {data.name}: draw a set with diled synthesize, whose "
            "texts are read in the tokens of the data (--pool.source)."
        )


def _stored(pool: PoolConfig, data: Data, say: Callable[[str], None]) -> Any:
    """The raw values of the pool, as many of them as are wanted."""
    from diled.data.disjoint import check_disjoint
    from diled.data.synthesis import open_pool

    assert pool.source is not None
    if data.spec.sequential:
        found = sequences_of(pool, data)
        what = "texts" if data.spec.kind == "text" else "sequences"
        of = f"{len(found.values):,} synthetic {what} of {pool.source} for {len(data.train):,} real ones"
        say(f"{of}{_left_out(found, what)}.")
        return found.values
    samples = open_pool(pool.source, data.spec)
    try:
        known = check_disjoint(samples, data.test.values, data.train.values, spec=data.spec)
    except DataError as error:
        raise DataError(f"{pool.source}: {error}") from None
    there = len(samples.values)
    wanted = _wanted(pool, data, there)
    held = known.held[known.held < wanted]
    said = f"; {known.copies:,} of {there:,} in the pool are copies of training examples" if known.copies else ""
    said += f"; left out: {len(held):,} that equal a test example by chance" if len(held) else ""
    say(f"{wanted - len(held):,} synthetic examples of {pool.source} for {len(data.train):,} real ones{said}.")
    if len(held):
        return np.delete(samples.values[:wanted], held, 0)
    return samples.values[:wanted]


def sequences_of(pool: PoolConfig, data: Data) -> Usable:
    """The texts, or proteins, of a pool that a run is trained on.

    Args:
        pool: with a source; its folds count what is left out as well.
        data: the real data, in whose tokens texts are read.

    Raises:
        DataError: the pool is damaged, too small, of other data, or most of it are test sequences.
    """
    from diled.data.synthesis import open_pool

    assert pool.source is not None
    found = open_pool(pool.source, data.spec)
    wanted = _wanted(pool, data, found.manifest["settings"]["n"])
    numbers = np.arange(len(found.values)) if found.numbers is None else found.numbers
    kept = usable(found.values, numbers, wanted, data.test.values, data.train.values)
    if kept.held > MOST_HELD * wanted:
        raise DataError(
            f"{kept.held:,} of {wanted:,} synthetic sequences of {pool.source} are test sequences: what is measured on the "
            "test set afterwards would mean nothing. Draw a pool from a model that has not seen them."
        )
    return kept


def _left_out(found: Usable, what: str) -> str:
    """What is not trained on, and what is known already, in words."""
    left = {f"are no {what} that the model reads": found.unread, f"are test {what}": found.held}
    said = [f"{n:,} {why}" for why, n in left.items() if n]
    copies = f"; {found.copies:,} are copies of training {what}" if found.copies else ""
    return f"{copies}; left out: {', '.join(said)}" if said else copies


def _wanted(pool: PoolConfig, data: Data, there: int) -> int:
    """How many examples of a pool are wanted, of those that are there."""
    wanted = there if pool.folds is None else pool.folds * len(data.train)
    if there < wanted:
        folds = there // len(data.train)
        less = f"take at most {folds} fold{'s' * (folds > 1)}" if folds else "leave --pool.folds out to take all"
        raise DataError(
            f"{pool.source} holds {there:,} examples, but --pool.folds {pool.folds} needs {wanted:,} ({pool.folds} times the "
            f"{len(data.train):,} real ones): draw more, or {less}."
        )
    return wanted
