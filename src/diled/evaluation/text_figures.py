"""Figures of texts that a model wrote, each beside that of real texts in equal number.

sample_perplexity, .../ngram    of samples, under the judge and under a 5-gram model of the training texts
reverse_perplexity              of test texts, under a 5-gram model of the samples: high where variety is missing
mauve                           samples against test texts, in the judge's features
self_bleu, distinct_1, distinct_2, unique, length     of samples
copied                          share of samples that are training texts
empty                           share of samples that hold no word, and count in none of the others
.../floor                       the same of real texts; where a division kept copies together, perplexity and length alone
interpolation_perplexity, interpolation_mauve         of the inner points of paths between texts
step_mean, step_largest, steps_unchanged              how evenly the paths go

Good samples have about the perplexity of real texts: a lower one is had by writing the likeliest texts over and over.

References: Zhao et al. 2018 (arXiv 1706.04223), reverse perplexity; Pillutla et al. 2021 (arXiv 2102.01454), MAUVE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from diled.errors import DataError
from diled.evaluation.codes import averaged
from diled.evaluation.mauve import default_clusters, histograms, mauve_error, mauve_of_histograms
from diled.evaluation.measure import Measured, finite
from diled.evaluation.ngrams import NGram, word_counts
from diled.evaluation.text_judge import Judge
from diled.evaluation.text_metrics import copied, distinct, self_bleu, smoothness, unique

__all__ = ["comparable", "interpolation_figures", "sample_figures"]

ORDER = 5
"""Words of an n-gram."""
REFERENCE = 5000
"""Texts of each set that are compared, at most."""
COMPARED = 500
"""Texts that self-BLEU compares with each other."""
FEWEST = 20
"""Texts of each set that make a MAUVE."""
OF_ANY = ("sample_perplexity/floor", "length/floor")
"""What is told of real texts that are no draw like the training texts."""
REPEATED = 0.01
"""Share of training texts that are there more than once, from which it matters where copies go."""


def comparable(samples: int, test: int, reference: int = REFERENCE) -> int:
    """Of how many samples there are figures, which depend on their number: as many as real texts are there to compare with."""
    return min(samples, test, reference)


def sample_figures(
    texts: Sequence[str],
    train: Sequence[str],
    test: Sequence[str],
    judge: Judge | None,
    *,
    reference: int = REFERENCE,
    seed: int = 0,
) -> dict[str, Measured]:
    """Every figure of samples, with the floors.

    n = min(samples, test texts, `reference`) of each set are taken, so that what depends on their number can be compared.
    Where no sample holds a word, `empty` is the only figure.

    Args:
        texts: samples, the first n that hold a word.
        train: training texts of the model and the judge.
        test: texts that neither has seen, drawn by the seed.
        judge: whose perplexity and features; None: neither of the two.
        reference: n, at most.
        seed: of the draws, of the clustering and of self-BLEU.

    Raises:
        DataError: samples, training or test texts are missing.
        ModelError: sacrebleu is not installed.
    """
    if min(len(texts), len(train), len(test)) == 0:
        raise DataError("Figures of samples need samples, training texts and test texts: one of the three has none.")
    texts, empty = [text for text in texts if text.strip()], _empty(texts)
    n = comparable(len(texts), len(test), reference)
    if n == 0:
        return {"empty": empty}
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(test))
    # Other real texts are test texts too, as far as they go; then training texts, which the judge knows.
    others = [test[i] for i in order[n : 2 * n]]
    more = [train[i] for i in rng.permutation(len(train))[:n]]
    real, others, drawn = [test[i] for i in order[:n]], (others + more)[:n], list(texts[:n])
    apart = _apart(train, test)
    found = {"empty": empty} | _perplexities(drawn, real, more, train, judge)
    note, known = f"{n:,} against {n:,} test texts", n - len(order[n : 2 * n])
    said = f"{note}, {known:,} of the others from training"
    found |= _mauve(real, {"mauve": (drawn, note), "mauve/floor": (others, said)}, judge, seed)
    for suffix, some in (("", drawn), ("/floor", real)):
        compared = min(n, COMPARED)
        if n > 1:
            said = f"each against the {compared - 1:,} others"
            found[f"self_bleu{suffix}"] = Measured(self_bleu(some, COMPARED, seed=seed), n=compared, note=said)
        found[f"length{suffix}"] = averaged(word_counts(some), "words")
        for k in (1, 2):
            share = distinct(some, k)
            none = f"no text has {'two words' if k == 2 else 'a word'}"
            found[f"distinct_{k}{suffix}"] = Measured(share, n=n, note=none if share is None else "")
        found[f"unique{suffix}"] = Measured(unique(some), n=n)
        found[f"copied{suffix}"] = Measured(copied(some, train), n=n, note=f"of {len(train):,} training texts")
    if apart:
        found = {key: m for key, m in found.items() if not key.endswith("/floor") or key in OF_ANY}
        key = "sample_perplexity/floor"
        if key in found:
            found[key] = replace(found[key], note=f"{found[key].note}; of texts that do not occur in training")
    return found


def _empty(texts: Sequence[str]) -> Measured:
    """The share of texts without a word."""
    return averaged(np.array([not text.strip() for text in texts]))


def _apart(train: Sequence[str], test: Sequence[str]) -> bool:
    """Whether texts repeat, and all copies of one went to the same split.

    Test texts are then no draw from what training texts are drawn from: none of them is a copy, more of them are alike, and so
    are their words. Of 842 sentences of a grammar, kept together, 59 % are unique, self-BLEU is 80 and distinct-2 0.133; of as
    many fresh draws 90 %, 71 and 0.147. So they say nothing of what samples should reach.
    """
    known = set(train)
    return len(known) < (1 - REPEATED) * len(train) and known.isdisjoint(test)


def _perplexities(
    drawn: list[str], real: list[str], more: list[str], train: Sequence[str], judge: Judge | None
) -> dict[str, Measured]:
    """Under the judge, under an n-gram model of training texts, and the reverse: of real texts under one of samples.

    All n-gram models know the words of the training texts; one of samples also knows those that only samples have. So
    perplexities compare where samples invent no words. Where they do, V is larger, and the reverse one higher than if all of
    these were one unknown word: 9.3 and not 9.0 of sentences in which letters were added to 5 % of the words.
    """
    grams = NGram.fit(train, ORDER)
    n, said = len(drawn), f"{ORDER}-gram model of {len(train):,} training texts, per word"
    found = {}
    for suffix, some, fitted in (("", drawn, drawn), ("/floor", real, more)):
        if judge is not None:
            found[f"sample_perplexity{suffix}"] = finite(judge.perplexity(some), n, f"{judge.name}, per word")
        found[f"sample_perplexity/ngram{suffix}"] = finite(grams.perplexity(some), n, said)
        reverse = NGram.fit(fitted, ORDER, vocabulary=grams.words)
        what = f"{n:,} test texts under a {ORDER}-gram model of {len(fitted):,} {'training texts' if suffix else 'samples'}"
        found[f"reverse_perplexity{suffix}"] = finite(reverse.perplexity(real), n, f"{what}, per word")
    return found


def _mauve(
    real: Sequence[str], sets: Mapping[str, tuple[Sequence[str], str]], judge: Judge | None, seed: int
) -> dict[str, Measured]:
    """MAUVE against real texts of sets of texts (name -> texts, note) where both are large enough, and there is a judge."""
    large = {name: some for name, some in sets.items() if min(len(real), len(some[0])) >= FEWEST}
    if judge is None or not large:
        return {}
    features, found = judge.features(real), {}
    for name, (texts, note) in large.items():
        shares, sizes = histograms(features, judge.features(texts), seed=seed), (len(real), len(texts))
        said = f"features of {judge.name}; {note}; {default_clusters(*sizes)} clusters"
        value, error = mauve_of_histograms(*shares), mauve_error(*shares, sizes, seed=seed)
        found[name] = Measured(value, error, len(texts), said)
    return found


def interpolation_figures(
    paths: Sequence[Sequence[str]], judge: Judge | None, reference_texts: Sequence[str], *, seed: int = 0
) -> dict[str, Measured]:
    """How real the texts between two texts are, and how evenly they lead from one to the other.

    Args:
        paths: lists of texts, the ends included.
        judge: whose perplexity and features; None: neither of the two.
        reference_texts: real texts; as many as there are inner points are taken for MAUVE, or as there are.
        seed: of the draws and of the clustering.

    Returns:
        Perplexity and MAUVE; and where a path's ends differ, how even its steps are: `step_mean` and `step_largest` are
        `text_metrics.smoothness`; with S steps, 1 / S is perfectly even.

    Raises:
        DataError: no path has an inner point.
    """
    inner = [text for path in paths for text in path[1:-1]]
    if not inner or not len(reference_texts):
        raise DataError("Figures of interpolation need paths with points between their ends, and real texts.")
    rng = np.random.default_rng(seed)
    n = min(len(inner), len(reference_texts))
    some = [inner[i] for i in rng.permutation(len(inner))[:n]]
    real = [reference_texts[i] for i in rng.permutation(len(reference_texts))[:n]]
    found = {}
    if judge is not None:
        found = {
            "interpolation_perplexity": finite(judge.perplexity(inner), len(inner), f"{judge.name}, per word"),
            "interpolation_perplexity/floor": finite(judge.perplexity(real), n, f"{judge.name}, per word"),
        }
    note = f"{n:,} against {n:,} real texts"
    found |= _mauve(real, {"interpolation_mauve": (some, note)}, judge, seed)
    other = [reference_texts[i] for i in rng.permutation(len(reference_texts))]
    # MAUVE falls as its sets get smaller: as many as above where there are twice as many.
    size = min(n, len(other) // 2)
    ours, theirs = other[:size], other[size : 2 * size]
    said = f"{size:,} real texts against {size:,} others"
    found |= _mauve(ours, {"interpolation_mauve/floor": (theirs, said)}, judge, seed)
    if all(path[0].split() == path[-1].split() for path in paths):
        return found  # a decoder that does not listen writes one text everywhere
    even = smoothness(paths)
    sizes = sorted({len(path) - 1 for path in paths})
    said = (
        f"of the edits between the ends, {' or '.join(map(str, sizes))} steps; {len(paths) - even.paths} paths left out"
    )
    found["step_mean"] = Measured(even.mean, n=even.paths, note=said)
    found["step_largest"] = Measured(even.largest, n=even.paths, note=said)
    found["steps_unchanged"] = Measured(even.unchanged, n=even.paths, note="share of steps")
    return found
