"""An n-gram language model of words with interpolated, modified Kneser-Ney smoothing.

    p_k(w | h) = (a(h w) - D(a(h w))) / a(h) + g(h) p_{k-1}(w | h'),       h' is h without its first word
    a(h)       = sum_w a(h w),      g(h) = sum_w D(a(h w)) / a(h),         p_0 = 1 / V

The counts a are those of the corpus in the longest n-grams and in those that begin a sentence; in all others, a is the
number of different words that come before. So "Francisco", which follows one word only, is seldom expected after others.
The discount of a count a is D(1), D(2) or, from three on, D(3): with n_i the number of k-grams whose a is i,

    Y = n_1 / (n_1 + 2 n_2),    D(i) = i - (i + 1) Y n_{i+1} / n_i

Words are what blanks divide. The vocabulary is that of the texts, <unk> for all other words, and the sentence's end, which
is scored. Of every history the probabilities add up to one; perplexities under two models compare if their vocabularies do.

References: Kneser and Ney 1995; Chen and Goodman, "An empirical study of smoothing techniques for language modeling", 1999,
section 3 and eq. 26.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from diled.errors import ConfigError, DataError

__all__ = ["NGram", "perplexity", "word_counts"]

START, END, UNKNOWN = 0, 1, 2
"""The numbers of what no text holds as a word: the beginning, which is never predicted, the end, and unknown words."""
USUAL = (0.5, 1.0, 1.5)
"""Discounts where there are too few n-grams to estimate them, as of a few sentences."""


def word_counts(texts: Sequence[str]) -> np.ndarray:
    """Words of each text, (N,): what blanks divide."""
    return np.array([len(text.split()) for text in texts], np.int64)


def perplexity(nats: np.ndarray, texts: Sequence[str]) -> float:
    """exp(sum of nats / sum of words and ends), whatever the units are that a model predicts.

    Infinite where the number is too large to be written, as of a long text without blanks that the model does not expect: it is
    one word.

    Args:
        nats: -log p(text), (N,).
        texts: (N,).

    Raises:
        DataError: there are no texts.
    """
    if len(texts) == 0:
        raise DataError("No texts to score: a perplexity needs at least one.")
    try:
        return math.exp(nats.sum() / (word_counts(texts) + 1).sum())
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class _Order:
    """The k-grams of a model: sorted codes (number of the history, last word), their share of the history's mass after the
    discount, and of each history what goes to the order below."""

    codes: np.ndarray
    kept: np.ndarray
    below: np.ndarray


class NGram:
    """A fitted model; `NGram.fit` makes one.

    Args:
        words: word -> its number, from 3 on.
        orders: the k-grams, k from 1 to n.
    """

    def __init__(self, words: dict[str, int], orders: list[_Order]) -> None:
        self.words, self.orders = words, orders

    @property
    def symbols(self) -> int:
        """V: words, unknown words and the end."""
        return len(self.words) + 2

    @classmethod
    def fit(cls, texts: Sequence[str], order: int = 5, *, vocabulary: Iterable[str] = ()) -> NGram:
        """A model of texts.

        Args:
            texts: (N,), one sentence each.
            order: n, the words of an n-gram.
            vocabulary: words that it knows beside those of the texts, so that models of different texts compare, as long as
                none of these has other words.

        Raises:
            ConfigError: `order` is below 1.
            DataError: there are no texts.
        """
        if order < 1:
            raise ConfigError(f"order = {order}: an n-gram has at least 1 word.")
        if len(texts) == 0:
            raise DataError("No texts to fit an n-gram model to: at least one is needed.")
        known = dict.fromkeys(word for text in texts for word in text.split()) | dict.fromkeys(vocabulary)
        model = cls({word: i for i, word in enumerate(known, 3)}, [])
        word, place = model._stream(texts)
        v = model.symbols + 1
        codes, sizes = np.arange(v), [v]
        count, begins = np.bincount(word, minlength=v), codes == START
        ids, history = word, np.zeros(v, np.int64)  # the number of the k-gram that ends at each position
        for k in range(1, min(order, int(place.max()) + 1) + 1):
            whole = place >= k  # where a (k + 1)-gram ends
            code = np.roll(ids, 1)[whole] * np.int64(v) + word[whole]
            longer, first, inverse, again = np.unique(code, return_index=True, return_inverse=True, return_counts=True)
            at = np.flatnonzero(whole)[first]
            before = np.bincount(ids[at], minlength=len(codes))  # each kind of (k + 1)-gram once, by its last k words
            a = count if k == order else np.where(begins, count, before)
            if k == 1:
                a = np.where(begins, 0, a)  # a beginning is not predicted
            model.orders.append(_smoothed(codes, history, a, 1 if k == 1 else sizes[k - 2]))
            codes, history, count, begins = longer, longer // v, again, place[at] == k
            sizes.append(len(codes))
            ids = np.full(len(word), -1)
            ids[whole] = inverse
        return model

    def nll(self, texts: Sequence[str]) -> np.ndarray:
        """-log p(text), the end included, (N,) in nats."""
        word, place = self._stream(texts)
        history, p = np.zeros_like(word), np.full(len(word), 1 / self.symbols)
        for k, own in enumerate(self.orders, 1):
            before = np.where(place >= k - 1, history, -1)
            p, found = self._mixed(own, before, word, p)
            history = np.roll(found, 1)
        predicted = place > 0
        text = np.cumsum(~predicted) - 1
        return np.bincount(text[predicted], -np.log(p[predicted]), minlength=len(texts))

    def perplexity(self, texts: Sequence[str]) -> float:
        """`perplexity` of texts (N,) under this model."""
        return perplexity(self.nll(texts), texts)

    def following(self, text: str) -> np.ndarray:
        """p(w | text so far) of every word, (V + 1,): the beginning (0), the end, unknown words, then those of `words`."""
        before = [START, *(self.words.get(word, UNKNOWN) for word in text.split())]
        word = np.arange(self.symbols + 1)
        p, history = np.full(len(word), 1 / self.symbols), 0
        for k, own in enumerate(self.orders, 1):
            if k > 1:
                history = self._id(before[-(k - 1) :]) if len(before) >= k - 1 else -1
            p, _ = self._mixed(own, np.full(len(word), history), word, p)
        p[START] = 0
        return p

    def _id(self, gram: Sequence[int]) -> int:
        """The number of a k-gram, -1 where it was not seen."""
        number = gram[0]
        for own, word in zip(self.orders[1:], gram[1:], strict=False):
            number = int(self._found(own, np.array([number]), np.array([word]))[0])
        return number

    def _found(self, own: _Order, history: np.ndarray, word: np.ndarray) -> np.ndarray:
        """Numbers of the k-grams (history, word), -1 where they were not seen."""
        code = history * np.int64(self.symbols + 1) + word
        place = np.minimum(np.searchsorted(own.codes, code), len(own.codes) - 1)
        return np.where((history >= 0) & (own.codes[place] == code), place, -1)

    def _mixed(
        self, own: _Order, history: np.ndarray, word: np.ndarray, p: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """p_k(w | h) from p_{k-1}(w | h'), and the numbers of the k-grams; an unseen history leaves p as it is."""
        found = self._found(own, history, word)
        kept = np.where(found >= 0, own.kept[found], 0.0)
        return np.where(history >= 0, kept + own.below[history] * p, p), found

    def _stream(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All texts as one row of numbers, each from its beginning to its end, and the place of each word in its text."""
        of, row, sizes = self.words, [], []
        for text in texts:
            words = text.split()
            row.append(START)
            row += [of.get(word, UNKNOWN) for word in words]
            row.append(END)
            sizes.append(len(words) + 2)
        size = np.array(sizes, np.int64)
        return np.array(row, np.int64), np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)


def _smoothed(codes: np.ndarray, history: np.ndarray, a: np.ndarray, histories: int) -> _Order:
    """Discounted k-grams of counts `a`, with what each history leaves to the order below: all, where nothing follows it."""
    d = np.array([0.0, *_discounts(a)])[np.minimum(a, 3)]
    total = np.bincount(history, a, minlength=histories)
    taken = np.bincount(history, d, minlength=histories)
    below = np.divide(taken, total, out=np.ones(histories), where=total > 0)
    kept = np.divide(a - d, total[history], out=np.zeros(len(a)), where=a > 0)
    return _Order(codes, kept, below)


def _discounts(a: np.ndarray) -> tuple[float, ...]:
    """D(1), D(2), D(3) of counts; the usual ones where there are too few k-grams."""
    n = np.bincount(np.minimum(a, 5), minlength=6).astype(np.float64)
    if n[1:5].min() == 0:
        return USUAL
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(float(i - (i + 1) * y * n[i + 1] / n[i]) for i in (1, 2, 3))
    return found if min(found) > 0 else USUAL
