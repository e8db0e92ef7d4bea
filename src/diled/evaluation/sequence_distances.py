"""How far sequences are from each other: substitutions where lengths agree, edits where they do not.

    Hamming(x, y)      positions that differ, of rows of one length
    Levenshtein(x, y)  fewest insertions, deletions and substitutions                              (Levenshtein 1966)

Rows end with zeros. Of many long references of other lengths, only those that share most 3-mers with the query are aligned.
"""

from __future__ import annotations

import numpy as np

__all__ = ["edit_distances", "lengths_of", "nearest_rows", "pairwise_mean"]

LONG, CANDIDATES, CHUNK = 64, 200, 2000
"""Beyond this length only so many references are aligned with each query; and how many are aligned at once."""


def lengths_of(x: np.ndarray) -> np.ndarray:
    """Symbols before the first end of rows (N, L), (N,)."""
    return np.cumprod(x != 0, axis=1).sum(1)


def edit_distances(query: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Levenshtein distances of one row (L,) from rows (N, L), (N,)."""
    n, sizes = int(lengths_of(query[None])[0]), lengths_of(references)
    previous = np.tile(np.arange(references.shape[1] + 1), (len(references), 1))
    for i in range(n):
        current = np.empty_like(previous)
        current[:, 0] = i + 1
        change = previous[:, :-1] + (references != query[i])
        best = np.minimum(previous[:, 1:] + 1, change)
        # An insertion costs one a step: d_j = min over k <= j of best_k + (j - k), a running minimum of best_k - k.
        steps = np.arange(1, references.shape[1] + 1)
        current[:, 1:] = np.minimum(np.minimum.accumulate(best - steps, axis=1), i + 1) + steps
        previous = current
    return previous[np.arange(len(references)), sizes]


def nearest_rows(x: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each row (n, L) to its nearest among references (N, L), and which it is, (n,) each."""
    if len(x) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    one_length = len(set(lengths_of(x)) | set(lengths_of(references))) == 1
    bag = None if one_length else _bag(references, int(max(x.max(), references.max())) + 1)
    found = [_nearest(row, references, bag) for row in x]
    return np.array([d for d, _ in found]), np.array([i for _, i in found])


def _nearest(row: np.ndarray, references: np.ndarray, bag: np.ndarray | None) -> tuple[int, int]:
    """Distance and place of the nearest reference.

    Substitutions alone reach every reference, so the least Hamming distance is no less than the answer; and as symbols are
    inserted, deleted or exchanged one by one, no reference is nearer than what its symbols, whatever their order, have more
    or less than the row's. Only references that could be nearer are aligned.
    """
    substituted = (references != row).sum(1)
    best = int(substituted.argmin())
    if bag is None:
        return int(substituted[best]), best
    gap = bag - _bag(row[None], bag.shape[1] + 1)
    least = np.maximum(np.maximum(gap, 0).sum(1), np.maximum(-gap, 0).sum(1))
    nearer = np.flatnonzero(least < substituted[best])
    if len(row) > LONG and len(nearer) > CANDIDATES:
        nearer = nearer[np.argsort(-_shared(row, references[nearer]), kind="stable")[:CANDIDATES]]
    nearer = nearer[np.argsort(least[nearer], kind="stable")]
    distance = int(substituted[best])
    for some in np.array_split(nearer, -(-len(nearer) // CHUNK)) if len(nearer) else ():
        some = some[least[some] < distance]
        if len(some) == 0:
            break
        edits = edit_distances(row, references[some])
        if edits.min() < distance:
            distance, best = int(edits.min()), int(some[edits.argmin()])
    return distance, best


def _bag(x: np.ndarray, symbols: int) -> np.ndarray:
    """How often each symbol but the end occurs in rows (N, L), (N, V - 1) int16."""
    flat = np.bincount((np.arange(len(x))[:, None] * symbols + x).ravel(), minlength=symbols * len(x))
    return flat.reshape(-1, symbols)[:, 1:].astype(np.int16)


def _shared(row: np.ndarray, references: np.ndarray) -> np.ndarray:
    """How many positions of each reference begin a 3-mer that the row has too."""

    def words(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.int64)
        return np.where((x[..., 2:] > 0), (x[..., :-2] * 256 + x[..., 1:-1]) * 256 + x[..., 2:], -1)

    mine = words(row[None])[0]
    return np.isin(words(references), mine[mine >= 0]).sum(1)


def pairwise_mean(x: np.ndarray, *, most: int = 300, seed: int = 0) -> float:
    """Mean distance of two different rows, over (up to `most`) rows drawn at random; NaN of fewer than two."""
    if len(x) < 2:
        return float("nan")
    x = x[np.random.default_rng(seed).permutation(len(x))[:most]]
    same = len(set(lengths_of(x))) == 1
    found = [(x[i + 1 :] != x[i]).sum(1) if same else edit_distances(x[i], x[i + 1 :]) for i in range(len(x) - 1)]
    return float(np.concatenate(found).mean())
