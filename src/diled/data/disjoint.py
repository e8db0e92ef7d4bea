"""Whether a synthetic training set holds test examples: what is measured on those afterwards would mean nothing.

Binarised images that are much alike become equal: of the digits 2.2 % of the training images equal a test image once both are
cut at one half, of MNIST 0.02 %. So many are no sign of copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diled.config import DataSpec, validated
from diled.data.synthesis import Pool, duplicates, is_cut, is_two_valued
from diled.errors import DataError

__all__ = ["Known", "check_disjoint"]

LEAST, TIMES = 0.01, 3
"""A binarised set is refused where more than this share of it are test examples, and more than as many times the share of the
real training examples that are."""


@dataclass(frozen=True, eq=False)
class Known:
    """Samples that there are already.

    Attributes:
        held: (k,), those that equal a test example by chance, as binarised ones may.
        copies: how many equal a training example.
    """

    held: np.ndarray
    copies: int


def check_disjoint(
    pool: Pool | np.ndarray,
    test_values: np.ndarray,
    train_values: np.ndarray | None = None,
    *,
    spec: DataSpec | None = None,
) -> Known:
    """Refuse a pool that holds test examples, byte for byte; training examples may be there, and are counted.

    Where the pool has two values only, or `spec` cuts at one half of the scale, both sides are cut there first, so that a
    binarised copy of a grey image is found as well. Then a pool is refused that has more of them than chance explains, or
    a test example in grey; the few others are to be left out.

    Args:
        pool: or its raw values (N, *shape).
        test_values: raw values (M, *shape).
        train_values: raw values (K, *shape), if copies of them are to be counted; they also say what chance explains.
        spec: of the data; default: what the pool's manifest says.

    Raises:
        DataError: test examples are among the samples.
    """
    values = pool.values if isinstance(pool, Pool) else np.asarray(pool)
    if spec is None and isinstance(pool, Pool):
        spec = validated(DataSpec, pool.manifest["settings"]["data"], "data")
    held, share, beside = duplicates(values, test_values, spec), 0.0, ""
    if len(held) and spec is not None and _by_chance(values, test_values, spec):
        real = _share(train_values, test_values, spec)
        share = max(LEAST, TIMES * real)
        beside = f" once both are cut at one half ({real:.2%} of the training examples are)"
    if len(held) > share * len(values):
        raise DataError(
            f"{len(held):,} of the {len(values):,} synthetic samples are test examples{beside}, the first is sample "
            f"{held[0]:,}: what is measured on the test set afterwards would mean nothing. Draw a pool from a model that has "
            "not seen them."
        )
    return Known(held, 0 if train_values is None else len(duplicates(values, train_values, spec)))


def _by_chance(values: np.ndarray, test_values: np.ndarray, spec: DataSpec) -> bool:
    """Whether samples may equal test examples because both are cut at one half, and not in grey values already."""
    return is_cut(values, spec) and (is_two_valued(values, spec) or not len(duplicates(values, test_values)))


def _share(train_values: np.ndarray | None, test_values: np.ndarray, spec: DataSpec) -> float:
    """Of the real training examples that equal a test example once both are cut."""
    if train_values is None or not len(train_values):
        return 0.0
    cut = spec.model_copy(update={"binarize": "threshold"})
    return len(duplicates(train_values, test_values, cut)) / len(train_values)
