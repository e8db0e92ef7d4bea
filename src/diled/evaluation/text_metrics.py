"""Figures of texts that need no model: agreement with references, diversity, copies, and how evenly a path goes.

    BLEU         min(1, exp(1 - r / c)) (p_1 p_2 p_3 p_4)^(1/4)      p_n: share of n-grams that a reference has, each as often
                                                                     as there at most; c, r: words written and wanted
    self-BLEU    BLEU of each text against all others, averaged      high where all texts are alike
    distinct-n   different n-grams / n-grams, over all texts
    smoothness   edits of one step of a path / edits between its ends

Words are what blanks divide; BLEU is sacrebleu's, from 0 to 100. Self-BLEU, distinct-n and uniqueness depend on how many texts
there are: compare them at equal numbers alone.

References: Papineni et al. 2002; Post 2018 (arXiv 1804.08771), sacrebleu; Zhu et al. 2018 (arXiv 1802.01886), self-BLEU; Li et
al. 2016 (arXiv 1510.03055), distinct-n.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diled.errors import DataError, ModelError
from diled.evaluation.ngrams import word_counts
from diled.evaluation.sequence_distances import edit_distances

__all__ = [
    "Lengths",
    "Smoothness",
    "bleu",
    "bleu_order",
    "content_kept",
    "copied",
    "distinct",
    "exact_match",
    "length",
    "self_bleu",
    "smoothness",
    "unique",
    "word_edits",
]

ORDER = 4
"""Longest n-grams of BLEU."""


@dataclass(frozen=True)
class Lengths:
    """Words of texts: mean, standard deviation, least and most."""

    mean: float
    std: float
    shortest: int
    longest: int


@dataclass(frozen=True)
class Smoothness:
    """How paths of texts go from one end to the other, in word edits over the edits between the ends.

    Attributes:
        mean: of a step, over all steps; 1 / steps where no step leads astray, and more where some do.
        largest: the largest step, averaged over paths; 1 / steps where all are even, 1 for one leap.
        unchanged: share of the steps that change nothing.
        paths: how many have two different ends, and count.
    """

    mean: float
    largest: float
    unchanged: float
    paths: int


def bleu(hypotheses: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]]) -> float:
    """BLEU of a corpus, 0 to 100: n-grams are counted over all texts before they are divided.

    Of n-grams up to `bleu_order`: where no reference has four words, there is nothing longer to be found again.

    Args:
        hypotheses: (N,) texts.
        references: (N,) texts, or (N,) lists of texts that are all right.

    Raises:
        DataError: there are no texts, or not one entry of `references` for each.
        ModelError: sacrebleu is not installed.

    Reference: Papineni et al. 2002; Post 2018.
    """
    _paired(hypotheses, references)
    lists = [[r] if isinstance(r, str) else list(r) for r in references]
    if min(map(len, lists)) == 0:
        raise DataError("A text without a reference has no BLEU: give at least one for each.")
    streams = [[r[i] if i < len(r) else None for r in lists] for i in range(max(map(len, lists)))]
    order = bleu_order([text for some in lists for text in some])
    return float(_scorer(order).corpus_score(list(hypotheses), streams).score)


def bleu_order(references: Sequence[str]) -> int:
    """The longest n-grams that BLEU counts: of 4 words, or as many as the longest reference has, and at least of 1."""
    return min(ORDER, max(1, int(word_counts(references).max())))


def content_kept(edited: Sequence[str], source: Sequence[str] | Sequence[Sequence[str]]) -> float:
    """BLEU of edited texts (N,) against the texts that they were made from, or against rewrites by people, 0 to 100."""
    return bleu(edited, source)


def self_bleu(texts: Sequence[str], sample: int = 500, *, seed: int = 0) -> float:
    """Mean BLEU of each text against all others as its references, 0 to 100: how alike texts are.

    Of one sentence: n-grams as long as it has, and "exponential" smoothing where none of a length matches (sacrebleu's usual).

    Args:
        texts: (N,).
        sample: so many are drawn, and only they are compared; with more, the value rises.
        seed: of the draw.

    Raises:
        DataError: fewer than two texts.
        ModelError: sacrebleu is not installed.

    Reference: Zhu et al. 2018, section 3.
    """
    if min(len(texts), sample) < 2:
        raise DataError(
            f"Texts are compared with each other, so at least 2 are needed; found {min(len(texts), sample)}."
        )
    drawn = [texts[i].split() for i in np.random.default_rng(seed).permutation(len(texts))[:sample]]
    grams = [[_grams(words, n) for n in range(1, ORDER + 1)] for words in drawn]
    best: dict[tuple[str, ...], list[int]] = {}  # the two highest counts of an n-gram in one text
    for counts in grams:
        for each in counts:
            for gram, count in each.items():
                best[gram] = sorted([*best.get(gram, [0, 0]), count])[:0:-1]
    sizes = [len(words) for words in drawn]
    several = Counter(sizes)
    found = []
    for words, counts in zip(drawn, grams, strict=True):
        right = [sum(min(c, _elsewhere(best[g], c)) for g, c in each.items()) for each in counts]
        written = [max(len(words) - n, 0) for n in range(ORDER)]
        wanted = min((s for s in several if s != len(words) or several[s] > 1), key=lambda s: (abs(s - len(words)), s))
        found.append(_scorer().compute_bleu(right, written, len(words), wanted, "exp", effective_order=True).score)
    return float(np.mean(found))


def _elsewhere(best: list[int], count: int) -> int:
    """How often another text has an n-gram that this one has `count` times."""
    return best[1] if count == best[0] else best[0]


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Different n-grams over all n-grams of texts (N,), 0 to 1; None where there is none.

    Reference: Li et al. 2016, section 5, who divide by words.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        counts.update(_grams(text.split(), n))
    return len(counts) / counts.total() if counts else None


def unique(texts: Sequence[str]) -> float:
    """Different texts over texts (N,), 0 to 1."""
    _some(texts)
    return len({_plain(text) for text in texts}) / len(texts)


def copied(texts: Sequence[str], training: Sequence[str]) -> float:
    """Share of texts (N,) that occur among training texts word for word, 0 to 1."""
    _some(texts)
    known = {_plain(text) for text in training}
    return sum(_plain(text) in known for text in texts) / len(texts)


def exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Share of texts (N,) whose words are those of their references (N,), 0 to 1."""
    return float(exact_matches(hypotheses, references).mean())


def exact_matches(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Which of the texts (N,) have the words of their references (N,), (N,) bool."""
    _paired(hypotheses, references)
    return np.array([_plain(h) == _plain(r) for h, r in zip(hypotheses, references, strict=True)])


def length(texts: Sequence[str]) -> Lengths:
    """Words of texts (N,): mean, standard deviation, least and most."""
    _some(texts)
    n = word_counts(texts)
    return Lengths(float(n.mean()), float(n.std()), int(n.min()), int(n.max()))


def word_edits(path: Sequence[str]) -> np.ndarray:
    """Fewest insertions, deletions and exchanges of words that lead from each text to the next, and, last, from the first to
    the last, (n,) of n texts."""
    known: dict[str, int] = {}
    rows = [[known.setdefault(word, len(known) + 1) for word in text.split()] for text in path]
    padded = np.zeros((len(rows), max(map(len, rows)) + 1), np.int64)
    for row, words in zip(padded, rows, strict=True):
        row[: len(words)] = words
    pairs = [*zip(range(len(rows) - 1), range(1, len(rows)), strict=True), (0, len(rows) - 1)]
    size = [len(words) for words in rows]
    return np.array([int(edit_distances(padded[i, : size[i]], padded[j : j + 1])[0]) for i, j in pairs])


def smoothness(paths: Sequence[Sequence[str]]) -> Smoothness:
    """How evenly paths of texts lead from end to end: d(x_i, x_{i+1}) / d(x_0, x_n), d the edit distance of words.

    A path without detours has steps that add up to 1, since d obeys the triangle inequality.

    Args:
        paths: lists of texts, the ends included; those with equal ends are left out.

    Raises:
        DataError: a path has fewer than two texts, or all have equal ends.
    """
    if any(len(path) < 2 for path in paths):
        raise DataError("A path leads from one text to another: at least 2 texts are needed in each.")
    edits = [word_edits(path) for path in paths]
    steps = [e[:-1] / e[-1] for e in edits if e[-1]]
    if not steps:
        raise DataError(
            "All paths end where they begin, so their steps have no share of the way: give pairs that differ."
        )
    every = np.concatenate(steps)
    return Smoothness(
        float(every.mean()), float(np.mean([s.max() for s in steps])), float((every == 0).mean()), len(steps)
    )


def _plain(text: str) -> str:
    """The words alone, with one blank between them."""
    return " ".join(text.split())


def _grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """The n-grams of a text and how often each occurs."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _scorer(order: int = ORDER) -> Any:
    """sacrebleu with words divided by blanks alone."""
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise ModelError("BLEU needs the package sacrebleu: pip install 'diled[text]'.") from None
    return BLEU(tokenize="none", force=True, max_ngram_order=order)


def _some(texts: Sequence[str]) -> None:
    if len(texts) == 0:
        raise DataError("No texts to describe: at least one is needed.")


def _paired(texts: Sequence[str], others: Sequence[Any]) -> None:
    _some(texts)
    if len(texts) != len(others):
        raise DataError(f"{len(texts)} texts and {len(others)} references do not match: one entry for each.")
