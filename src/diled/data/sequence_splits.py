"""Divisions of sequences: by likeness, by the number of mutations, or text by text; and what test shares with training.

    identity(x, y) = max over c of ( sum_{i < c} [x_i = y_i] + sum_{i >= c} [x_i = y_{i+d}] ) / |y|,      d = |y| - |x| >= 0

Sequences of one length are compared position by position. A shorter one is laid along the longer one with a single gap of d
positions where it fits best: a lower bound on the identity of the best alignment, and equal to it where one piece was
inserted or deleted. Clusters are greedy, as in CD-HIT: from the longest sequence to the shortest, each joins the first
cluster whose representative it is like, or founds one.

Reference: Li and Godzik 2006 (Bioinformatics 22, 1658).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from diled.config import PreprocessConfig
from diled.data.proteins import consensus, encode
from diled.data.records import joined
from diled.data.sequence_files import one_sequence
from diled.data.splits import MIN_EXAMPLES, SPLITS, Found, Part, divide, limited, some
from diled.errors import DataError

__all__ = ["clusters", "divide_sequences", "identities", "mutations", "near"]

SOME = 500
"""Test sequences that are looked at for likeness with training sequences."""


def divide_sequences(found: Found, preprocess: PreprocessConfig, seed: int = 0) -> tuple[dict[str, Part], list[str]]:
    """Training, validation and test parts of sequences, and notes: as `divide`, after the division that is asked for.

    Args:
        found: what was read, with the splits that files or a column tell.
        preprocess: fractions, and `sequence`.
        seed: of the draw.

    Raises:
        DataError: a split would be empty.
    """
    config = preprocess.sequence
    if config.split == "clusters":
        found.parts = _by_clusters(found, preprocess, seed)
    elif config.split == "mutations":
        found.parts = _by_mutations(found, preprocess)
    parts, notes = (_by_text if found.kind == "text" else divide)(found, preprocess, seed)
    return parts, notes + _overlap(parts, found, config.overlap == "drop")


# Texts ----------------------------------------------------------------------------------------------------------------


def _by_text(found: Found, preprocess: PreprocessConfig, seed: int) -> tuple[dict[str, Part], list[str]]:
    """As `divide`, but what is drawn are different texts, so that all repeats of one are in the same split."""
    name = "all" if "all" in found.parts else "train"
    whole = found.parts.get(name)
    if whole is None or {"validation", "test"} <= set(found.parts):
        return divide(found, preprocess, seed)
    _, first, group = np.unique(keys_of(whole), return_index=True, return_inverse=True)
    if len(first) == len(whole):
        return divide(found, preprocess, seed)
    if len(first) < MIN_EXAMPLES:
        raise DataError(
            f"{found.name} has only {len(first):,} different of {len(whole):,} texts: at least {MIN_EXAMPLES} are needed to "
            "train, select and test a model."
        )
    rows = np.sort(first)
    once = replace(found, parts=found.parts | {name: Part(rows, [""] * len(rows))})
    drawn, notes = divide(once, preprocess.model_copy(update={"limit": None}), seed)
    parts = dict(found.parts)
    for split in ("train", "validation", "test"):
        if split not in parts or split == name:
            parts[split] = whole.take(np.flatnonzero(np.isin(group, group[np.asarray(drawn[split].examples)])))
    parts.pop("all", None)
    notes.insert(
        0,
        f"{len(whole) - len(rows):,} of {len(whole):,} texts repeat another one: all repeats of a text are in one split, and "
        "count as one example there.",
    )
    parts["train"] = limited(parts["train"], preprocess.limit, seed, notes)
    return parts, notes


def keys_of(part: Part) -> np.ndarray:
    """What tells the sequences of a part apart, (N,): the texts, or the bytes of their rows."""
    rows = np.asarray(part.examples)
    out = np.empty(len(rows), object)
    out[:] = rows[:, 0] if rows.dtype == object else [row.tobytes() for row in rows]
    return out


# Clusters -------------------------------------------------------------------------------------------------------------


def identities(row: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Identity of one sequence (L,) with others (N, L), (N,)."""
    n, sizes = int((row != 0).sum()), (others != 0).sum(1)
    longer = sizes >= n
    if longer.all():
        return _one_gap(row[None], others, np.array([n]), sizes)
    found = np.empty(len(others))
    found[longer] = _one_gap(row[None], others[longer], np.array([n]), sizes[longer])
    one = np.broadcast_to(row, others.shape)
    found[~longer] = _one_gap(others[~longer], one[~longer], sizes[~longer], np.full((~longer).sum(), n))
    return found


def _one_gap(short: np.ndarray, long: np.ndarray, n: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Identity of rows (N, L), or one row (1, L), of n symbols with rows (N, L) of at least as many, (N,)."""
    m = int(n.max(initial=0))
    short, place = short[:, :m], np.arange(m)
    shifted = place + (sizes - n)[:, None]
    if len(n) > 1:
        shifted = np.minimum(shifted, long.shape[1] - 1)
    same, same_shifted = long[:, :m] == short, np.take_along_axis(long, shifted, 1) == short
    if len(n) > 1:
        inside = place < n[:, None]
        same, same_shifted = same & inside, same_shifted & inside
    before = np.cumsum(np.pad(same, ((0, 0), (1, 0))), 1, dtype=np.int32)
    after = np.cumsum(np.pad(same_shifted, ((0, 0), (1, 0))), 1, dtype=np.int32)
    matches: np.ndarray = (before + after[:, -1:] - after).max(1)
    return matches / np.maximum(sizes, 1)


def near(rows: np.ndarray, others: np.ndarray, identity: float) -> np.ndarray:
    """Which rows (n, L) are alike at least one of others (N, L), of whatever length, (n,) bool."""
    others = np.unique(others, axis=0)
    sizes = (others != 0).sum(1)
    turned = np.take_along_axis(others, np.maximum(sizes[:, None] - 1 - np.arange(others.shape[1]), 0), 1)
    starts, ends = np.ascontiguousarray(others.T), np.ascontiguousarray(turned.T)
    found = np.zeros(len(rows), bool)
    for k, row in enumerate(rows):
        n = int((row != 0).sum())
        matches = np.zeros(len(others), np.dtype("u1" if 2 * n < 256 else "u2"))
        # Whatever the gap, its matches are some of those from the start and some of those from the end.
        for i in range(n):
            matches += starts[i] == row[i]
            matches += (ends[i] == row[n - 1 - i]) & (sizes != n)
        maybe = np.flatnonzero(matches >= identity * np.maximum(sizes, n) - 1e-9)
        found[k] = bool((identities(row, others[maybe]) >= identity - 1e-9).any())
    return found


def clusters(values: np.ndarray, identity: float) -> np.ndarray:
    """Number of the cluster of each row (N, L), (N,): greedy, the longest first, the first of equals first.

    Args:
        values: rows of symbols that end with zeros.
        identity: from which a sequence joins a cluster.
    """
    distinct, inverse = np.unique(values, axis=0, return_inverse=True)
    first = np.full(len(distinct), len(values))
    np.minimum.at(first, inverse.ravel(), np.arange(len(values)))
    sizes = (distinct != 0).sum(1)
    order = np.lexsort((first, -sizes))
    found = _Representatives(len(distinct), values.shape[1])
    label = np.empty(len(distinct), np.int64)
    for i in order:
        label[i] = found.joined(distinct[i], int(sizes[i]), identity)
    return label[inverse.ravel()]


class _Representatives:
    """The first sequence of each cluster, position by position, laid along the start and along the end."""

    def __init__(self, most: int, length: int) -> None:
        self.rows = np.zeros((most, length), np.uint8)
        self.sizes = np.zeros(most, np.int64)
        self.starts = np.zeros((length, most), np.uint8)
        self.ends = np.zeros((length, most), np.uint8)
        self.count = 0

    def joined(self, row: np.ndarray, n: int, identity: float) -> int:
        """The cluster that a sequence, no longer than those before, joins or founds."""
        # Sizes fall, so those that are not too long to be alike are the last ones.
        low = int(np.searchsorted(-self.sizes[: self.count], -np.floor(n / identity + 1e-9), side="left"))
        maybe = low + self._candidates(row, n, low, identity)
        if len(maybe):
            alike = np.flatnonzero(identities(row, self.rows[maybe]) >= identity - 1e-9)
            if len(alike):
                return int(maybe[alike[0]])
        i = self.count
        self.rows[i], self.sizes[i] = row, n
        self.starts[:n, i], self.ends[:n, i] = row[:n], row[:n][::-1]
        self.count += 1
        return i

    def _candidates(self, row: np.ndarray, n: int, low: int, identity: float) -> np.ndarray:
        """Which from `low` on may be alike: equal positions from the start, and from the end where lengths differ, are enough.

        Whatever the gap, its matches are some of those from the start and some of those from the end.
        """
        here = slice(low, self.count)
        sizes = self.sizes[here]
        matches = np.zeros(len(sizes), np.dtype("u1" if 2 * n < 256 else "u2"))
        for i in range(n):
            matches += self.starts[i, here] == row[i]
        shorter = int(np.searchsorted(-sizes, -n, side="left"))  # from there on they have the same length
        for i in range(n if shorter else 0):
            matches[:shorter] += self.ends[i, low : low + shorter] == row[n - 1 - i]
        return np.flatnonzero(matches >= identity * sizes - 1e-9)


def _by_clusters(found: Found, preprocess: PreprocessConfig, seed: int) -> dict[str, Part]:
    """Whole clusters to test, then to validation, as far as they fit, in a random order; the rest to training."""
    whole = joined(found.parts)
    threshold = preprocess.sequence.identity
    label = clusters(np.asarray(whole.examples), threshold)
    size = np.bincount(label)
    share = preprocess.validation_fraction
    wanted = {"test": preprocess.test_fraction, "validation": 0.1 if share is None else share}
    room = {split: round(len(whole) * part) for split, part in wanted.items()}
    chosen: dict[str, list[int]] = {split: [] for split in SPLITS}
    for cluster in np.random.default_rng(seed).permutation(len(size)):
        split = next((s for s in ("test", "validation") if size[cluster] <= room[s]), "train")
        room[split] = room.get(split, 0) - int(size[cluster])
        chosen[split].append(int(cluster))
    parts = {split: whole.take(np.flatnonzero(np.isin(label, ids))) for split, ids in chosen.items()}
    empty = next((split for split, part in parts.items() if not len(part)), None)
    if empty is not None:
        raise DataError(
            f"{found.name} has {len(size):,} clusters at identity {threshold:g}, the largest with {size.max():,} of "
            f"{len(whole):,} sequences, and none is left for {empty}. Raise --preprocess.sequence.identity, or the fractions."
        )
    left = _apart(parts, threshold, preprocess.sequence.overlap == "drop", found.name, seed)
    counts = some({split: len(part) for split, part in parts.items()})
    found.notes.append(f"{len(size):,} clusters at identity {threshold:g}, divided as a whole: {counts}.{left}")
    return parts


def _apart(parts: dict[str, Part], identity: float, drop: bool, name: str, seed: int) -> str:
    """A remark on test sequences that are alike a training sequence though their clusters are apart; they leave where wanted.

    A cluster's sequences are alike its representative, and may be alike those of another cluster: where all descend from one
    parent, nearly every one is.
    """
    known = np.asarray(parts["train"].examples)
    if not drop:
        rows = np.asarray(parts["test"].examples)
        rows = rows[np.random.default_rng(seed).permutation(len(rows))[:SOME]]
        share = float(near(rows, known, identity).mean())
        if not share:
            return ""
        return (
            f" Clusters touch: {share:.0%} of test sequences are alike a training sequence of another cluster; "
            "--preprocess.sequence.overlap drop leaves them out."
        )
    said = []
    for split in ("validation", "test"):
        alike = near(np.asarray(parts[split].examples), known, identity)
        if alike.all():
            raise DataError(
                f"{name}: all {len(alike):,} {split} sequences are alike a training sequence of another cluster, and none is "
                "left. Raise --preprocess.sequence.identity, or leave out overlap drop."
            )
        if alike.any():
            parts[split] = parts[split].take(np.flatnonzero(~alike))
            said.append(f"{int(alike.sum()):,} of {len(alike):,} {split} sequences")
    return (
        f" {' and '.join(said)} were alike a training sequence of another cluster, and were left out." if said else ""
    )


# Mutations ------------------------------------------------------------------------------------------------------------


def mutations(values: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Positions at which rows (N, L) differ from a parent (L,), (N,)."""
    changes: np.ndarray = (values != parent).sum(1)
    return changes


def _by_mutations(found: Found, preprocess: PreprocessConfig) -> dict[str, Part]:
    """Training has those with at most so many mutations from the parent, test those with more."""
    whole, most = joined(found.parts), preprocess.sequence.max_mutations
    assert most is not None
    values = np.asarray(whole.examples)
    count = mutations(values, _parent(found, values, preprocess))
    parts = {"train": whole.take(np.flatnonzero(count <= most)), "test": whole.take(np.flatnonzero(count > most))}
    for split, part in parts.items():
        if not len(part):
            raise DataError(
                f"{found.name} has sequences with {count.min()} to {count.max()} mutations, and none is left for {split} at "
                f"--preprocess.sequence.max_mutations {most}."
            )
    counts = some({split: len(part) for split, part in parts.items()})
    found.notes.append(f"Divided at {most} mutations ({count.min()} to {count.max()} occur): {counts}.")
    return parts


def _parent(found: Found, values: np.ndarray, preprocess: PreprocessConfig) -> np.ndarray:
    """What mutations are counted from, (L,)."""
    config, spec = preprocess.sequence, found.stated
    assert spec is not None
    sizes = np.unique((values != 0).sum(1))
    if len(sizes) > 1:
        raise DataError(
            f"The sequences of {found.name} have {sizes[0]} to {sizes[-1]} symbols, and mutations are counted between "
            "sequences of one length: divide them with --preprocess.sequence.split clusters."
        )
    if config.parent is None and config.background is None:
        return consensus(values)
    option = "--preprocess.sequence.parent"
    text = one_sequence(config.parent, option) if config.parent is not None else spec.background or ""
    if spec.background is not None and len(text) == len(spec.background):
        text = "".join(text[site] for site in spec.sites)
    if len(text) != sizes[0]:
        raise DataError(f"{option} has {len(text)} residues, and the sequences of {found.name} have {sizes[0]}.")
    return encode([text], values.shape[1])[0]


# Overlap --------------------------------------------------------------------------------------------------------------


def _overlap(parts: dict[str, Part], found: Found, drop: bool) -> list[str]:
    """Notes on sequences that occur twice; those of validation and test that are known from training leave where wanted.

    What test is compared with includes validation, since a model is chosen by it.
    """
    name, what = found.name, "texts" if found.kind == "text" else "sequences"
    rows = {split: keys_of(part).tolist() for split, part in parts.items()}
    notes = []
    twice = len(rows["train"]) - len(set(rows["train"]))
    if twice:
        notes.append(f"{twice:,} of {len(rows['train']):,} training {what} repeat another one.")
    known = set(rows["train"])
    for split, before in (("validation", "training"), ("test", "training or validation")):
        new = np.array([row not in known for row in rows[split]])
        known |= set(rows[split])
        count = int((~new).sum())
        if not count:
            continue
        said = f"{count:,} of {len(new):,} {split} {what} occur in {before} too"
        if not drop:
            notes.append(f"{said}: --preprocess.sequence.overlap drop leaves them out, and is recommended.")
            continue
        if not new.any():
            raise DataError(f"{name}: all {len(new):,} {split} {what} occur in {before} too, and none is left.")
        parts[split] = parts[split].take(np.flatnonzero(new))
        notes.append(f"{said}, and were left out.")
    return notes
