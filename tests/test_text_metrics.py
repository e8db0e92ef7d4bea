"""Figures of texts against closed forms, slow independent implementations and a source of known entropy."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from diled.data import Data, Split
from diled.data.text import encode_texts, text_spec, tokenized, train_tokenizer
from diled.errors import ConfigError, DataError
from diled.evaluation import text_judge
from diled.evaluation.mauve import (
    default_clusters,
    divergence_curve,
    histograms,
    mauve,
    mauve_error,
    mauve_of_histograms,
)
from diled.evaluation.measure import Measured
from diled.evaluation.ngrams import NGram, perplexity
from diled.evaluation.text_figures import interpolation_figures, sample_figures
from diled.evaluation.text_judge import Classifier, Judge, Recipe, classifier_of, fit_judge, judge_of
from diled.evaluation.text_metrics import (
    bleu,
    content_kept,
    copied,
    distinct,
    exact_match,
    length,
    self_bleu,
    smoothness,
    unique,
    word_edits,
)
from diled.nn.causal import CausalTransformer

CHAIN = {
    "<s>": {"the": 0.7, "a": 0.3},
    "the": {"cat": 0.5, "dog": 0.3, "old": 0.2},
    "a": {"cat": 0.2, "dog": 0.8},
    "old": {"cat": 0.6, "old": 0.1, "dog": 0.3},
    "cat": {"sleeps": 0.5, "runs": 0.2, "</s>": 0.3},
    "dog": {"runs": 0.9, "</s>": 0.1},
    "sleeps": {"</s>": 1.0},
    "runs": {"</s>": 0.6, "and": 0.4},
    "and": {"sleeps": 0.5, "runs": 0.5},
}
"""A source of sentences: each word from the one before."""


def written(n: int, seed: int) -> list[str]:
    """Sentences of the source."""
    rng, found = random.Random(seed), []
    for _ in range(n):
        words = ["<s>"]
        while words[-1] != "</s>":
            after = CHAIN[words[-1]]
            words += rng.choices(list(after), list(after.values()))
        found.append(" ".join(words[1:-1]))
    return found


def truth(text: str) -> float:
    """-log p(text) of the source."""
    words = ["<s>", *text.split(), "</s>"]
    return -sum(math.log(CHAIN[a][b]) for a, b in pairwise(words))


class Slow:
    """Kneser-Ney as its formula is written, with dictionaries of tuples."""

    def __init__(self, texts: list[str], n: int, extra: tuple[str, ...] = ()) -> None:
        self.n, sentences = n, [("<s>", *t.split(), "</s>") for t in texts]
        self.words = {w for s in sentences for w in s[1:]} | set(extra) | {"<unk>", "</s>"}
        raw: dict[int, Counter] = {k: Counter() for k in range(1, n + 2)}
        for s in sentences:
            for k in raw:
                raw[k].update(s[i : i + k] for i in range(len(s) - k + 1))
        self.a: dict[tuple, int] = {}
        self.d = {}
        for k in range(1, n + 1):
            left = defaultdict(set)
            for gram in raw[k + 1]:
                left[gram[1:]].add(gram[0])
            own = {g: c if k == n or g[0] == "<s>" else len(left[g]) for g, c in raw[k].items() if g != ("<s>",)}
            self.a |= own
            of = Counter(own.values())
            self.d[k] = {1: 0.5, 2: 1.0, 3: 1.5}
            if all(of[i] for i in (1, 2, 3, 4)):
                y = of[1] / (of[1] + 2 * of[2])
                d = {1: 1 - 2 * y * of[2] / of[1], 2: 2 - 3 * y * of[3] / of[2], 3: 3 - 4 * y * of[4] / of[3]}
                if min(d.values()) > 0:
                    self.d[k] = d

    def p(self, word: str, history: tuple[str, ...]) -> float:
        below = self.p(word, history[1:]) if history else 1 / len(self.words)
        k = len(history) + 1
        after = {g: c for g, c in self.a.items() if len(g) == k and g[:-1] == history}
        if not after:
            return below
        discount = {g: self.d[k][min(c, 3)] for g, c in after.items()}
        gram, total = (*history, word), sum(after.values())
        return (after.get(gram, 0) - discount.get(gram, 0.0)) / total + sum(discount.values()) / total * below

    def nll(self, text: str) -> float:
        words = ["<s>", *(w if w in self.words else "<unk>" for w in text.split()), "</s>"]
        return -sum(
            math.log(self.p(words[i], tuple(words[max(0, i - self.n + 1) : i]) if self.n > 1 else ()))
            for i in range(1, len(words))
        )


CORPUS = [*written(60, 1), "", "the cat", "odd", "odd odd odd odd odd odd"]
SEEN = [
    "the cat sleeps",
    "odd cat",
    "the bird runs",
    "",
    "a dog runs and runs and runs",
    "and and the",
    "odd odd odd odd",
]


@pytest.mark.parametrize("order", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("corpus", [CORPUS, [*CORPUS[:2], "a"]], ids=["some", "few"])
def test_ngrams_are_those_of_the_formula(order, corpus):
    model, slow = NGram.fit(corpus, order, vocabulary=["cat", "zebra"]), Slow(corpus, order, ("cat", "zebra"))
    assert model.nll(SEEN) == pytest.approx([slow.nll(t) for t in SEEN], rel=1e-12)
    assert model.symbols == len(slow.words)


def test_discounts_are_estimated_where_there_are_enough_ngrams():
    rng = np.random.default_rng(2)
    texts = [" ".join(f"w{min(w, 400)}" for w in rng.zipf(1.5, rng.integers(1, 9))) for _ in range(700)]
    slow, model = Slow(texts, 3), NGram.fit(texts, 3)
    assert all(d != {1: 0.5, 2: 1.0, 3: 1.5} for d in slow.d.values())
    assert model.nll(texts[:20]) == pytest.approx([slow.nll(t) for t in texts[:20]], rel=1e-12)


@pytest.mark.parametrize("history", ["", "the", "the old", "zebra", "a dog runs and", "runs", "the odd odd odd odd"])
def test_probabilities_of_every_history_add_up_to_one(history):
    model = NGram.fit(CORPUS, 4)
    p = model.following(history)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert p[0] == 0
    assert p[1:].min() > 0
    slow = Slow(CORPUS, 4)
    before = ("<s>", *(w if w in slow.words else "<unk>" for w in history.split()))[-3:]
    assert p[1] == pytest.approx(slow.p("</s>", before), rel=1e-12)
    assert p[model.words["cat"]] == pytest.approx(slow.p("cat", before), rel=1e-12)


def test_one_word_of_an_ngram_by_hand():
    model = NGram.fit(["a a b"], 1)
    # a: (2 - 1) / 4, and a quarter of the mass (1 + 1/2 + 1/2) / 4 that the discounts free
    assert model.following("") == pytest.approx([0, 0.25, 0.125, 0.375, 0.25])
    assert model.perplexity(["a"]) == pytest.approx(math.exp(-(math.log(0.375) + math.log(0.25)) / 2))


def test_ngrams_reach_the_entropy_of_a_source_and_not_less():
    held = written(3000, 4)
    best = np.array([truth(t) for t in held])
    gap = NGram.fit(written(20_000, 3), 3).nll(held) - best
    assert 0 < gap.mean() < 0.01
    assert NGram.fit(written(20_000, 3), 1).nll(held).mean() - best.mean() > 1


def test_ngrams_say_what_they_cannot_do():
    with pytest.raises(ConfigError, match="order = 0"):
        NGram.fit(["a"], 0)
    with pytest.raises(DataError, match="at least one"):
        NGram.fit([])
    with pytest.raises(DataError, match="at least one"):
        NGram.fit(["a"]).perplexity([])


def test_a_perplexity_too_large_to_be_written_is_infinite():
    assert perplexity(np.array([1400.0, 18.0]), ["x", ""]) == pytest.approx(math.exp(1418 / 3))
    assert perplexity(np.array([2200.0, 18.0]), ["x", ""]) == math.inf


# MAUVE ----------------------------------------------------------------------------------------------------------------

P, Q = np.array([0.5, 0.3, 0.15, 0.05, 0.0]), np.array([0.2, 0.2, 0.0, 0.2, 0.4])


def area(p: np.ndarray, q: np.ndarray, c: float) -> float:
    """The area under the curve by quadrature: int y |dx/dl| dl, and the flat piece at its left end."""

    def kl(a, r):
        return (
            sum(u * math.log(u / v) for u, v in zip(a, r, strict=True) if u > 0) if np.all(r[a > 0] > 0) else math.inf
        )

    def slope(t):
        r = t * p + (1 - t) * q
        held = q > 0
        x, y = math.exp(-c * kl(q, r)), math.exp(-c * kl(p, r))
        return y * x * c * -float((q[held] * (p - q)[held] / r[held]).sum())

    return quad(slope, 0, 1, epsabs=1e-12, limit=200)[0] + math.exp(-c * kl(q, p))


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize(("p", "q"), [(P, Q), (P[:4], np.array([0.1, 0.2, 0.3, 0.4])), (Q, P)])
def test_mauve_is_the_area_under_its_curve(p, q, scale):
    assert mauve_of_histograms(p, q, scale=scale, mixtures=20_001) == pytest.approx(area(p, q, scale), rel=1e-6)
    assert mauve_of_histograms(p, q, scale=scale) == pytest.approx(area(p, q, scale), rel=0.05)
    assert mauve_of_histograms(p, q, scale=scale) == pytest.approx(mauve_of_histograms(q, p, scale=scale), rel=1e-9)


def test_mauve_of_equal_and_of_disjoint_histograms():
    assert mauve_of_histograms(P, P) == pytest.approx(1, abs=1e-12)
    # x = (1 - l)^c and y = l^c: a beta function
    apart = [0.4, 0.6, 0, 0, 0], [0, 0, 0.1, 0.2, 0.7]
    for c in (1, 2, 5):
        expected = math.factorial(c) ** 2 / math.factorial(2 * c)
        assert mauve_of_histograms(*apart, scale=c, mixtures=5001) == pytest.approx(expected, rel=1e-5)


def test_mauve_is_that_of_the_reference_package():
    """mauve-text 0.4.0, divergence curve of 25 mixtures and area, of the same histograms."""
    assert mauve_of_histograms([0.7, 0.3, 0], [0, 0.3, 0.7]) == pytest.approx(0.027171486735828077, rel=1e-9)
    assert mauve_of_histograms([1, 0], [0, 1]) == pytest.approx(0.0040720962619612555, rel=1e-9)


def test_the_curve_begins_where_q_is_the_mixture():
    first, last = divergence_curve([0.5, 0.5], [0.9, 0.1])[[0, -1]]
    kl = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert first == pytest.approx([1, math.exp(-5 * kl)], abs=1e-4)
    assert last[1] == pytest.approx(1, abs=1e-4)


def directions(shares: list[int], seed: int) -> np.ndarray:
    """Rows along a few axes, of any length, with a little noise; so many along each."""
    rng = np.random.default_rng(seed)
    axes = np.eye(len(shares), 12)[np.repeat(np.arange(len(shares)), shares)]
    rows = axes + 0.01 * rng.standard_normal(axes.shape)
    return rows * np.exp(rng.uniform(-3, 3, (len(axes), 1)))


def test_the_error_of_mauve_is_that_of_its_shares():
    """By the slopes of MAUVE in the shares of two cells, whose variances are p (1 - p) / N and q (1 - q) / M."""

    def value(p: float, q: float) -> float:
        return mauve_of_histograms([p, 1 - p], [q, 1 - q])

    p, q, n, m, h = 0.95, 0.7, 2000, 500, 1e-4
    slopes = (value(p + h, q) - value(p - h, q)) / (2 * h), (value(p, q + h) - value(p, q - h)) / (2 * h)
    expected = math.hypot(slopes[0] * math.sqrt(p * (1 - p) / n), slopes[1] * math.sqrt(q * (1 - q) / m))
    found = mauve_error([p, 1 - p], [q, 1 - q], (n, m), draws=4000)
    assert found == pytest.approx(expected, rel=0.05)
    with pytest.raises(DataError, match="add up to one"):
        mauve_error([0.5, 0.6], [0.5, 0.5], (10, 10))


def test_clusters_find_the_directions_of_features():
    p, q = directions([50, 30, 15, 5], 0), directions([20, 40, 60, 80], 1)
    found = np.array(histograms(p, q, clusters=4))
    assert np.array(sorted(found.T.tolist())) == pytest.approx(
        np.array([[0.05, 0.4], [0.15, 0.3], [0.3, 0.2], [0.5, 0.1]])
    )
    expected = mauve_of_histograms([0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4])
    assert mauve(p, q, clusters=4, seed=3) == pytest.approx(expected)
    assert mauve(p, p) == pytest.approx(1)
    assert mauve(directions([0, 0, 60], 1), directions([30, 30, 0], 2)) < 0.02


@pytest.mark.parametrize(("height", "expected"), [(0.02, 1.0), (0.06, 0.01)], ids=["left-out", "kept"])
def test_a_tenth_of_the_variance_is_left_out(height, expected):
    """P and Q differ in one direction, with a ninth of the variance or less of another in which they are alike."""
    x = np.tile(np.repeat([-0.1, 0.1], 10), 2) * (1 + 0.01 * np.tile(np.arange(20), 2))
    side = np.repeat([-height, height], 20)
    rows = np.stack([np.ones(40), x, side], 1)
    assert mauve(rows[:20], rows[20:], clusters=4) == pytest.approx(expected, abs=0.01)


def test_how_many_clusters():
    assert [default_clusters(n, m) for n, m in ((5, 5), (300, 1000), (10**4, 4000), (10**5, 10**5))] == [
        2,
        30,
        400,
        500,
    ]


def test_mauve_says_what_it_cannot_do():
    x = np.zeros((5, 3))
    for wrong, said in (
        (np.zeros((5, 2)), "3 and 2 columns"),
        (np.full((5, 3), np.nan), "finite"),
        (x[:1], "at least 2"),
    ):
        with pytest.raises(DataError, match=said):
            mauve(x, wrong)
    with pytest.raises(DataError, match="clusters = 11"):
        mauve(x, x, clusters=11)
    with pytest.raises(DataError, match="add up to one"):
        mauve_of_histograms([0.5, 0.6], [0.5, 0.5])


# Figures without a model ----------------------------------------------------------------------------------------------


def test_bleu_by_hand():
    assert bleu(["a b c d e"], ["a b c d f"]) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert bleu(["a b c d"], ["a b c d e"]) == pytest.approx(100 * math.exp(1 - 5 / 4))
    assert bleu(["a b c d", "e f g h ."], ["a b c d", "e f g h ."]) == pytest.approx(100)
    # two sentences are one corpus: 5/9, 3/7, 2/5, 1/3
    assert bleu(["a b c d", "x y z a ."], ["a b c d", "p q r a s"]) == pytest.approx(
        100 * (5 / 9 * 3 / 7 * 2 / 5 * 1 / 3) ** 0.25
    )
    assert bleu(["a b c d", "e f g h"], [["x", "a b c d"], ["e f g h"]]) == pytest.approx(100)
    # words are what blanks divide: "e." is no word of the reference
    expected = 100 * math.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu(["a b c d e."], ["a b c d e ."]) == pytest.approx(expected)
    assert content_kept(["a b c d e"], ["a b c d f"]) == bleu(["a b c d e"], ["a b c d f"])
    # of texts without blanks, or of few words, what is given back whole is right
    assert bleu(["日本語", "b c"], ["日本語", "b c"]) == pytest.approx(100)
    assert bleu(["a b d", "e"], ["a b c", "e"]) == pytest.approx(100 * (3 / 4 * 1 / 2 * 0.5 / 1) ** (1 / 3))  # smoothed
    assert bleu(["a b c", "d e"], ["a b c d", "d e"]) == 0, "four words are wanted, and none has four"
    with pytest.raises(DataError, match="1 texts and 2 references"):
        bleu(["a"], ["a", "b"])
    with pytest.raises(DataError, match="without a reference"):
        bleu(["a"], [[]])


def test_self_bleu_is_sacrebleus_of_each_against_the_others():
    from sacrebleu.metrics import BLEU

    scorer = BLEU(tokenize="none", force=True, effective_order=True)
    some = [*written(25, 5), "the the the cat", "the the cat the cat", "a", "dog", "one of its own kind"]
    lengths = ["a b c d e", "a b c d e f g", "b c d e f g h i"]  # the closest reference is a longer one
    for texts in (some, lengths):
        expected = [scorer.sentence_score(t, texts[:i] + texts[i + 1 :]).score for i, t in enumerate(texts)]
        assert self_bleu(texts) == pytest.approx(np.mean(expected))
    assert self_bleu(["a b c d"] * 7) == pytest.approx(100)
    drawn = [written(30, 5)[i] for i in np.random.default_rng(1).permutation(30)[:9]]
    assert self_bleu(written(30, 5), sample=9, seed=1) == pytest.approx(self_bleu(drawn))
    with pytest.raises(DataError, match="at least 2"):
        self_bleu(["a"])
    with pytest.raises(DataError, match="found 1"):
        self_bleu(["a b", "b a", "c"], 1)


def test_diversity_and_copies_by_hand():
    texts = ["a b a", "a b", "a  b", "c"]
    assert distinct(texts, 1) == 3 / 8
    assert distinct(texts, 2) == 2 / 4
    assert distinct(["a"], 2) is None
    assert unique(texts) == 3 / 4
    assert copied(texts, ["a b", "x"]) == 2 / 4
    assert exact_match(texts, ["a b a", "a b", "b a", "d"]) == 2 / 4
    found = length(["a b", "", "a b c d"])
    assert (found.mean, found.std, found.shortest, found.longest) == (2, pytest.approx(math.sqrt(8 / 3)), 0, 4)
    for refused in (unique, length, lambda none: copied(none, ["a"]), lambda none: exact_match(none, none)):
        with pytest.raises(DataError, match="at least one"):
            refused([])


def levenshtein(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(levenshtein(a[1:], b) + 1, levenshtein(a, b[1:]) + 1, levenshtein(a[1:], b[1:]) + (a[0] != b[0]))


def test_word_edits_are_the_fewest():
    path = ["the cat sleeps", "a cat", "", "the old old cat runs", "cat the"]
    expected = [levenshtein(a.split(), b.split()) for a, b in [*pairwise(path), (path[0], path[-1])]]
    assert word_edits(path).tolist() == expected


def test_smoothness_by_hand():
    even, leap = ["a b c d", "x b c d", "x y c d", "x y z d", "x y z w"], ["a b", "a b", "a b", "c d", "c d"]
    found = smoothness([even])
    assert (found.mean, found.largest, found.unchanged, found.paths) == (0.25, 0.25, 0, 1)
    found = smoothness([even, leap, ["a", "b", "a", "b", "a"]])
    assert (found.mean, found.largest, found.unchanged, found.paths) == (0.25, (0.25 + 1) / 2, 3 / 8, 2)
    assert smoothness([["a", "x y", "b"]]).mean == 2  # a detour
    with pytest.raises(DataError, match="end where they begin"):
        smoothness([["a", "a"]])
    with pytest.raises(DataError, match="at least 2"):
        smoothness([["a"]])


# What judges ----------------------------------------------------------------------------------------------------------

TINY = Recipe(vocabulary=300, width=32, depth=1, heads=2, batch=16, rate=1e-2, tokens=30_000, passes=40)
EIGHT = [f"{a} {b} {c} ." for a in ("the cat", "a dog") for b in ("sleeps", "runs") for c in ("here", "over there")]


@pytest.fixture(scope="module")
def judge() -> Judge:
    """Of eight sentences that are equally frequent."""
    return fit_judge(EIGHT * 20, EIGHT, EIGHT, recipe=TINY)


def random_judge(length: int) -> Judge:
    """A network that was not trained, over as many tokens."""
    spec = text_spec(length, train_tokenizer(EIGHT, 270))
    with torch.no_grad():
        network = CausalTransformer(length, len(spec.symbols), width=16, depth=2, heads=2)
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    return Judge(spec, network)


def test_a_judge_reaches_the_entropy_of_its_texts_and_not_less(judge):
    nats = judge.nll(EIGHT)
    assert np.exp(-nats).sum() < 1
    assert nats.mean() == pytest.approx(math.log(8), rel=0.03)
    words = sum(len(t.split()) + 1 for t in EIGHT)
    assert judge.perplexity(EIGHT) == pytest.approx(math.exp(nats.sum() / words))
    assert judge.about["perplexity"] == pytest.approx(judge.perplexity(EIGHT))
    assert judge.nll(["there the runs ."])[0] > 3 * math.log(8)


@pytest.mark.parametrize("length", [64, 7, 8])
def test_a_judge_scores_every_token_once(length):
    """Long texts too: each token from those before it in its window, half a window at least."""
    judge, texts = random_judge(length), ["the cat runs here .", "", "a", "dog " * 9, "sleeps" * 3]
    nats, features = judge.nll(texts), judge.features(texts)
    for text, found, row in zip(texts, nats, features, strict=True):
        whole = [*tokenized([text], judge.spec)[0].tolist(), 0]
        each, states = [], []
        for i in range(len(whole)):
            step = length // 2
            start = 0 if i < length else step * ((i - length) // step + 1)
            x = torch.tensor([whole[start : i + 1]])
            with torch.no_grad():
                log_p = judge.network(x)[0, -1].double().log_softmax(0)
                states.append(judge.network.states(x)[0, -1])
            assert log_p.exp().sum().item() == pytest.approx(1)
            each.append(-log_p[whole[i]].item())
        assert found == pytest.approx(sum(each), rel=1e-5)
        assert row == pytest.approx(torch.stack(states).mean(0).numpy(), rel=1e-4, abs=1e-5)


def test_a_text_is_scored_alone(judge):
    assert judge.nll(EIGHT)[3] == pytest.approx(judge.nll(EIGHT[3:4])[0], rel=1e-5)
    assert judge.features(EIGHT).shape == (8, 32)
    assert judge.nll([]).shape == (0,)
    with pytest.raises(DataError, match="at least one"):
        judge.perplexity([])


def test_a_judge_is_kept_whole_and_made_alike(judge):
    again = Judge.from_arrays(judge.arrays())
    assert again.hash == judge.hash
    assert again.nll(EIGHT) == pytest.approx(judge.nll(EIGHT), rel=1e-12)
    assert again.name == judge.name
    assert f"{judge.about['perplexity']:.1f} of 8" in judge.name
    short = Recipe(vocabulary=260, width=16, depth=1, heads=2, tokens=2000)
    first, second = (fit_judge(EIGHT * 4, EIGHT, recipe=short, seed=1).hash for _ in range(2))
    assert first == second
    assert first != fit_judge(EIGHT * 4, EIGHT, recipe=short, seed=2).hash


def test_training_stops_with_the_best_state():
    """Texts of another kind are told worse and worse."""
    few, other = EIGHT[:4] * 20, ["there over runs a", "here . dog"]
    patient = fit_judge(few, other, recipe=TINY)
    steps = math.ceil(TINY.passes * len(few) / TINY.batch)
    assert patient.about["steps"] < steps
    endless = fit_judge(few, other, recipe=replace(TINY, patience=99))
    assert endless.about["steps"] == steps
    assert endless.hash == patient.hash
    last = fit_judge(few, other, recipe=replace(TINY, checks=1))
    assert patient.nll(other).sum() < last.nll(other).sum()


def test_a_judge_learns_each_token_of_a_long_text_once():
    """What precedes the positions that count is read, not learnt: a window's first token is no beginning of a text."""
    rows = torch.tensor([[1] * 8] * 40 + [[2] * 4 + [1] * 4] * 40)
    first = torch.tensor([0] * 40 + [4] * 40)
    judge = random_judge(8)
    text_judge._train(judge.network, rows, first, lambda: 0.0, replace(TINY, patience=99, checks=1), 0)
    with torch.no_grad():
        nats = judge.network.nll(rows[39:41])
    assert nats[0].sum() < 0.3
    assert nats[1, 4:].sum() < 0.3
    assert nats[1, 0] > 2, "no text begins with a 2"


def test_a_judge_needs_texts():
    for train, validation in ((EIGHT, EIGHT), (EIGHT * 3, [])):
        with pytest.raises(DataError, match="A judge needs at least 20"):
            fit_judge(train, validation)


def test_pairs_of_words_are_classified():
    texts, labels = ["x y"] * 9 + ["y x"] * 9 + ["z"], [0] * 9 + [1] * 9 + [-1]
    found = Classifier(texts, labels, held_out=(["x y", "y x", "y x", "w"], [0, 1, 0, -1]))
    assert found.predict(["y x", "x y"]).tolist() == [1, 0]
    assert found.held_out == pytest.approx(2 / 3)
    assert found.n == 18
    with pytest.raises(DataError, match="at least two classes"):
        Classifier(["a", "b"], [1, 1])
    with pytest.raises(DataError, match="one label for each"):
        Classifier(["a", "b"], [1])
    with pytest.raises(DataError, match="None of the texts"):
        found.accuracy(["a"], [-1])


def text_data() -> Data:
    """The eight sentences with a label: which animal."""
    spec = text_spec(24, train_tokenizer(EIGHT, 270)).model_copy(
        update={"labels": {"animal": ["cat", "dog"], "size": []}}
    )

    def split(times: int) -> Split:
        labels = {"animal": np.array([0] * 4 + [1] * 4 * 1), "size": np.zeros(8, np.float32)}
        return Split(
            encode_texts(EIGHT * times, spec), {k: np.tile(v, times) for k, v in labels.items()}, [""] * 8 * times
        )

    return Data("eight", spec, split(4), split(1), split(1), [])


def test_judge_and_classifier_of_data(tmp_path, monkeypatch):
    monkeypatch.setenv("DILED_CACHE", str(tmp_path))
    monkeypatch.setattr(text_judge, "RECIPE", Recipe(vocabulary=260, width=16, depth=1, heads=2, tokens=2000))
    monkeypatch.setattr(text_judge, "fit_judge", lambda *texts: fit_judge(*texts, recipe=text_judge.RECIPE))
    data = text_data()
    made = judge_of(data)
    assert judge_of(data) is made
    assert made.about["n"] == 8
    monkeypatch.setattr(text_judge, "fit_judge", None)
    assert judge_of(text_data()).hash == made.hash  # from disk
    classifier = classifier_of(data, "animal")
    assert classifier_of(data, "animal") is classifier
    assert classifier.held_out == 1
    assert classifier.predict(["a dog sleeps ."]).tolist() == [1]
    with pytest.raises(ConfigError, match=r"No label column 'anima'.*animal"):
        classifier_of(data, "anima")
    with pytest.raises(ConfigError, match="No label column 'size'"):
        classifier_of(data, "size")


# Together -------------------------------------------------------------------------------------------------------------


def test_figures_of_real_texts_are_their_floor(judge):
    train, test = written(300, 6), written(60, 7)
    found = sample_figures(test, train, test, judge, reference=100)
    for name in (
        "sample_perplexity",
        "sample_perplexity/ngram",
        "unique",
        "copied",
        "distinct_1",
        "distinct_2",
        "length",
    ):
        assert found[name].value == pytest.approx(found[f"{name}/floor"].value)
        assert found[name].n == 60
    assert found["self_bleu"].value == pytest.approx(found["self_bleu/floor"].value)
    assert found["mauve"].value == pytest.approx(1)
    assert 0 < found["mauve/floor"].value < 1
    assert found["mauve"].note.startswith("features of judge-")
    assert "6 clusters" in found["mauve"].note
    assert "60 of the others from training" in found["mauve/floor"].note
    assert found["sample_perplexity"].value == pytest.approx(judge.perplexity(test))
    assert found["sample_perplexity/ngram"].value == pytest.approx(NGram.fit(train, 5).perplexity(test))
    assert found["length"].value == length(test).mean
    fewer = sample_figures(test, train, test, judge, reference=30)
    assert fewer["unique"].n == 30
    assert " 0 of the others from training" in fewer["mauve/floor"].note


def test_figures_of_collapsed_samples_give_them_away(judge):
    train, test = written(300, 6), written(60, 7)
    found = sample_figures(["the cat sleeps"] * 80, train, test, judge)
    assert found["unique"].value == 1 / 60
    assert found["self_bleu"].value == pytest.approx(100)
    assert found["copied"].value == 1
    assert found["sample_perplexity/ngram"].value < found["sample_perplexity/ngram/floor"].value
    assert found["reverse_perplexity"].value > 2 * found["reverse_perplexity/floor"].value
    known = NGram.fit(train, 5).words
    expected = NGram.fit(["the cat sleeps"] * 60, 5, vocabulary=known).perplexity(test)
    assert found["reverse_perplexity"].value == pytest.approx(expected)
    assert found["mauve"].value < 0.5 * found["mauve/floor"].value
    assert "mauve" not in sample_figures(["the cat"], train, test, judge)
    with pytest.raises(DataError, match="one of the three"):
        sample_figures([], train, test, judge)


def test_texts_without_a_word_are_counted_and_in_no_other_figure(judge):
    """An empty text has a self-BLEU of 0, as if it were like no other."""
    train, test, drawn = written(300, 6), written(60, 7), written(40, 8)
    known = sample_figures(drawn, train, test, judge)
    found = sample_figures(
        [text for pair in zip(drawn, ["", " "] * 20, strict=True) for text in pair], train, test, judge
    )
    assert found.pop("empty") == Measured(0.5, pytest.approx(0.5 / 79**0.5), 80)
    assert known.pop("empty").value == 0
    assert found == known
    assert set(sample_figures(["", " "], train, test, judge)) == {"empty"}


def test_real_text_has_no_floor_of_copies_where_a_division_kept_them_together(judge):
    train, test = [f"the cat sees {n} dogs ." for n in range(30)] * 2, [f"a dog sees {n} cats ." for n in range(30)]
    apart = sample_figures(train[:30], train, test, judge)
    assert {"unique", "copied", "distinct_2", "self_bleu", "mauve", "reverse_perplexity"} <= set(apart)
    assert {key for key in apart if key.endswith("/floor")} == {"sample_perplexity/floor", "length/floor"}
    assert "of texts that do not occur in training" in apart["sample_perplexity/floor"].note
    one = sample_figures(train[:30], train, [*test, train[0]], judge)
    assert one["copied/floor"].value == pytest.approx(0, abs=1 / 29)
    assert {"distinct_2/floor", "mauve/floor", "reverse_perplexity/floor"} <= set(one)
    once = sample_figures(train[:30], train[:30], test, judge)
    assert once["copied/floor"].value == 0, "nothing repeats, so a new text is new"


def test_figures_of_paths(judge):
    paths = [["the cat runs here .", "the cat runs there .", "a cat runs there .", "a dog runs there ."]] * 12
    found = interpolation_figures(paths, judge, EIGHT * 5)
    assert found["interpolation_perplexity"].value == pytest.approx(
        judge.perplexity([t for p in paths for t in p[1:-1]])
    )
    assert found["interpolation_perplexity/floor"].value < found["interpolation_perplexity"].value
    assert found["interpolation_mauve"].n == 24
    assert found["interpolation_mauve/floor"].n == 20, "half of 40 real texts against the other half"
    longer = interpolation_figures(paths, judge, EIGHT * 6)["interpolation_mauve/floor"]
    assert longer.n == 24
    assert "24 real texts against 24 others" in longer.note
    assert found["step_mean"].value == pytest.approx(1 / 3)
    assert found["step_largest"].value == pytest.approx(1 / 3)
    assert found["steps_unchanged"].value == 0
    assert "3 steps; 0 paths left out" in found["step_mean"].note
    blanks = interpolation_figures([["a  b", "a c", "a b"]] * 3, judge, EIGHT)
    assert "step_mean" not in blanks, "the ends are the same words"
    with pytest.raises(DataError, match="points between"):
        interpolation_figures([["a", "b"]], judge, EIGHT)
