"""A grammar of sentences: its probabilities against slow derivations, hand calculation, and draws."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from closed_forms import assert_mean

from diled.data.grammar import ATTRIBUTES, RULES, _language, attributes, entropy, log_p, sentences
from diled.errors import DataError

CHOICES = list(itertools.product(*ATTRIBUTES.values()))
WAS, WERE = ("was", "is"), ("were", "are")


# ------------------------------------------------------------------------- the same grammar, read slowly from its table


def named(symbol: str, values: tuple[str, ...]) -> str:
    """`NOUN[topic,one]` -> `NOUN[food,one]`."""
    name, bracket, features = symbol.rstrip("]").partition("[")
    chosen = dict(zip(ATTRIBUTES, values, strict=True))
    return f"{name}[{','.join(chosen.get(f, f) for f in features.split(','))}]" if bracket else name


def derivations(symbols: list[str], words: list[str], values: tuple[str, ...]) -> list[float]:
    """The probability of every leftmost derivation of the words from the symbols, one by one."""
    if not symbols:
        return [] if words else [1.0]
    first, rest = symbols[0], symbols[1:]
    if first == first.lower():
        return derivations(rest, words[1:], values) if words[:1] == [first] else []
    options = RULES[named(first, values)]
    return [
        weight / sum(options.values()) * p
        for expansion, weight in options.items()
        for p in derivations([*expansion.split(), *rest], words, values)
    ]


def prior(values: tuple[str, ...]) -> float:
    return math.prod(p[value] for p, value in zip(ATTRIBUTES.values(), values, strict=True))


def slowly(text: str) -> dict[tuple[str, ...], list[float]]:
    """Choice of attributes -> the probabilities of the derivations under it, the choice's own included."""
    found = {values: derivations(["SENTENCE"], text.split(" "), values) for values in CHOICES}
    return {values: [prior(values) * p for p in each] for values, each in found.items() if each}


@cache
def derivation_entropy(symbol: str, values: tuple[str, ...]) -> float:
    """H(derivation) of a symbol, without its sentences: sum over rules p(rule) (-ln p(rule) + that of its symbols)."""
    if symbol == symbol.lower():
        return 0.0
    options = RULES[named(symbol, values)]
    total = sum(options.values())
    parts = [
        (weight / total, sum(derivation_entropy(part, values) for part in expansion.split()))
        for expansion, weight in options.items()
    ]
    return sum(p * (h - math.log(p)) for p, h in parts)


# -------------------------------------------------------------------------------------------------------------- tests


def test_a_probability_by_hand():
    """Attributes, template, subject, verb and adjective of one sentence, multiplied."""
    past_food = {"negative": 0.4 * 0.6 * 0.4, "positive": 0.6 * 0.6 * 0.4}
    cold = past_food["negative"] * 5 / 10 * 5 / 17 * (8 / 10 * 3 / 4 * 9 / 10) * 5 / 7 * (6 / 13 * 3 / 6)
    never_cold = past_food["positive"] * 5 / 10 * 5 / 17 * (8 / 10 * 3 / 4 * 9 / 10) * 1 / 7 * 3 / 6
    found = np.exp(log_p(["the fries were cold .", "the fries were never cold ."]))
    np.testing.assert_allclose(found, [cold, never_cold], rtol=1e-12)


def test_two_derivations_by_hand():
    """The place belongs to what was liked, or to the liking: both are counted."""
    before = 0.6 * 0.6 * 0.3 * 3 / 10  # positive, past, place; a feeling
    liked = 3 / 4 * 2 / 5 * 2 / 6  # we liked
    booths = 2 / 5 * 4 / 5 * 8 / 10 * 1 / 4  # the booths
    spot = 5 / 10 * 1 / 10 + 1 / 10
    (found,) = np.exp(log_p(["we liked the booths by the window ."]))
    np.testing.assert_allclose(found, before * liked * booths * spot * 2 / 3, rtol=1e-12)


def test_probabilities_are_the_sums_of_slow_derivations():
    """Every derivation is followed by itself; some texts have two, none has derivations under two choices of attributes."""
    rare = random.Random(1).sample(sorted(_language()), 60)  # equally often, where `sentences` favours the short ones
    texts = [*rare, *sentences(60, seed=1)[0], "we liked the booths by the window ."]
    found = [slowly(text) for text in texts]
    assert all(len(each) == 1 for each in found)
    assert {len(derived) for each in found for derived in each.values()} == {1, 2}
    want = [math.log(sum(sum(derived) for derived in each.values())) for each in found]
    np.testing.assert_allclose(log_p(texts), want, rtol=1e-12)
    assert [tuple(attributes(text).values()) for text in texts] == [next(iter(each)) for each in found]


def test_probabilities_sum_to_one():
    """Over all sentences, and over those of each choice of attributes to that choice's probability.

    A sentence of two choices would be counted for one of them, and the other's sum would be too small.
    """
    total = dict.fromkeys(CHOICES, 0.0)
    for sentence in _language().values():
        total[sentence.values] += sentence.probability
    np.testing.assert_allclose(list(total.values()), [prior(values) for values in CHOICES], rtol=1e-9)
    assert abs(math.fsum(s.probability for s in _language().values()) - 1) < 1e-9


def test_entropy_is_that_of_derivations_less_that_of_the_choice_between_two():
    """H(x) = H(a) + H(derivation | a) - H(derivation | x); all three in closed form, without one sentence."""
    values = sum(-p * math.log(p) for options in ATTRIBUTES.values() for p in options.values())
    derived = sum(prior(v) * derivation_entropy("SENTENCE", v) for v in CHOICES)
    noun, verb = 5 / 10 * 1 / 10, 1 / 10  # the place is part of the object, or follows it
    which = verb / (noun + verb)
    ambiguous = 3 / 10 * (noun + verb) * -(which * math.log(which) + (1 - which) * math.log(1 - which))
    assert entropy() == pytest.approx(values + derived - ambiguous, rel=1e-9)
    assert 8 < entropy() < 10


def test_draws_have_the_stated_probabilities():
    """Mean of -ln p(x), the labels, and each label's sentences: within four standard errors."""
    texts, columns = sentences(20_000, seed=3)
    assert_mean(-torch.from_numpy(log_p(texts)), entropy(), sigmas=4)
    for name, column in columns.items():
        for value, p in ATTRIBUTES[name].items():
            assert abs(column.count(value) / len(column) - p) < 4 * math.sqrt(p * (1 - p) / len(column))
    assert list(columns) == list(ATTRIBUTES)
    labels = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    assert all(attributes(text) == label for text, label in zip(texts, labels, strict=True))
    count = Counter(texts)
    for text, p in [(text, math.exp(log_p([text])[0])) for text, _ in count.most_common(20)]:
        assert abs(count[text] / len(texts) - p) < 4.5 * math.sqrt(p / len(texts))


def test_draws_depend_on_the_seed_only():
    state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002 - that nothing global is drawn from
    texts, columns = sentences(50, seed=7)
    assert (texts, columns) == sentences(50, seed=7)
    assert texts[:20] == sentences(20, seed=7)[0]
    assert texts != sentences(50, seed=8)[0]
    assert sentences(3) == sentences(3, seed=0)
    assert sentences(0) == ([], {name: [] for name in ATTRIBUTES})
    assert state == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


def test_sentences_are_well_formed():
    """Four to twelve lower-case words with single blanks, and a period."""
    for text in _language():
        words = text.split(" ")
        assert words.pop() == "."
        assert 4 <= len(words) <= 12
        assert all(word.isalpha() and word.islower() for word in words)
    assert 80 <= len({word for text in _language() for word in text.split()}) <= 150
    assert len(_language()) < 300_000


def test_words_agree():
    """Number of noun, determiner, verb and pronoun; person and tense of the verb; time and tense. In every sentence."""
    third = {"does", "hates", "dislikes", "loves", "likes", "enjoys"}
    one = {word for head, words in RULES.items() if head.startswith("NOUN") and "one" in head for word in words}
    many = {word for head, words in RULES.items() if head.startswith("NOUN") and "many" in head for word in words}
    for text, sentence in _language().items():
        words, tense = text.split(), sentence.values[1]
        nouns = [word for word in words if word in one | many]
        if len(nouns) == 1:
            assert not set(words) & {*(WERE if nouns[0] in one else WAS), "these" if nouns[0] in one else "this"}
            assert ("they" if nouns[0] in one else "it") not in words
        assert bool(third & set(words)) == (tense == "present" and "my" in words)
        assert (
            not set(words)
            & {
                "past": {"is", "are", "do", "does", "every", "weekends"},
                "present": {"was", "were", "did", "last", "yesterday"},
            }[tense]
        )


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("the waiter was rude .", "negative past service"),
        ("the waiter was never rude .", "positive past service"),
        ("the patio is not clean .", "negative present place"),
        ("my wife does not like this soup .", "negative present food"),
        ("i loved the tacos because they were fresh .", "positive past food"),
        ("every time the waitress is so friendly .", "positive present service"),
        ("i wait half an hour for the waitress .", "negative present service"),
        ("the booths felt like home .", "positive past place"),
    ],
)
def test_attributes_that_a_reader_sees(text, want):
    assert log_p([text])[0] > -math.inf
    assert " ".join(attributes(text).values()) == want


@pytest.mark.parametrize(
    "text",
    [
        "the fries was cold .",  # number
        "these soup is cold .",
        "my wife do not like this soup .",  # person
        "i loved the tacos because it was fresh .",  # the pronoun's number
        "the waiter was rude every time .",  # tense
        "the waiter was cold .",  # topic
        "i loved the cold soup .",  # sentiment
        "the fries were cold",
        "the fries were cold . ",
        "The fries were cold .",
        "the fries were were cold .",
        "SENTENCE",
        "",
    ],
)
def test_what_is_no_sentence(text):
    assert log_p([text])[0] == -math.inf
    assert not slowly(text)
    with pytest.raises(DataError, match="cannot make it"):
        attributes(text)


def test_the_table_has_no_loops_gaps_or_leftovers():
    """Every symbol that a rule names is in the table, none leads back to itself, and each is needed for some sentence."""
    below = {
        (head, values): {named(s, values) for e in options for s in e.split() if s != s.lower()}
        for head, options in RULES.items()
        for values in CHOICES
    }

    def depth(head: str, values: tuple[str, ...], above: tuple[str, ...] = ()) -> set[str]:
        assert head not in above, f"{head} leads back to itself"
        return {head}.union(*(depth(symbol, values, (*above, head)) for symbol in below[head, values]))

    assert set().union(*(depth("SENTENCE", values) for values in CHOICES)) == set(RULES)
    assert all(weight > 0 for options in RULES.values() for weight in options.values())
    assert all(sum(options.values()) == pytest.approx(1) for options in ATTRIBUTES.values())


def test_what_is_refused():
    for wrong in ({"n": -1}, {"n": 1, "seed": -1}):
        with pytest.raises(DataError, match="at least 0"):
            sentences(**wrong)
    with pytest.raises(DataError, match="put it into a list"):
        log_p("the fries were cold .")
    assert log_p([]).shape == (0,)
