"""Sentences of a small probabilistic grammar, whose distribution is known exactly.

    p(x) = sum over attributes a  p(a)  sum over derivations d of x given a  prod over rules r in d  p(r)
    H = -sum over x  p(x) ln p(x)

No rule leads back to itself, so the sentences can be counted, and what a model q of text reports can be compared with the
truth: its mean of -ln q(x) over new sentences is H + KL(p | q), so no bound is below `entropy` on average, and what it makes
either is a sentence or has `log_p` -inf. Such grammars: Booth and Thompson, "Applying probability measures to abstract
languages", IEEE Transactions on Computers C-22 (1973).

A sentence says something about the food, the service or the place, is negative or positive, in the past or in the present.
Words must agree: "the fries were cold", "my wife does not like this soup", "i loved the tacos because they were fresh".
"not" and "never" turn a word around, and a time has its tense, so that single words do not tell everything.
Some sentences have two derivations: in "we liked the booths by the window" the window tells which booths, or where we were.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np

from diled.errors import DataError

__all__ = ["ATTRIBUTES", "RULES", "attributes", "entropy", "log_p", "sentences"]

ATTRIBUTES: dict[str, dict[str, float]] = {
    "sentiment": {"negative": 0.4, "positive": 0.6},
    "tense": {"past": 0.6, "present": 0.4},
    "topic": {"food": 0.4, "service": 0.3, "place": 0.3},
}
"""Attribute -> value -> probability. They are drawn first, independently of each other."""

RULES: dict[str, dict[str, float]] = {
    "SENTENCE": {"DESCRIPTION .": 5, "FEELING .": 3, "EVENT .": 2},
    # The waiter was really friendly last night.
    "DESCRIPTION": {
        "STATEMENT[one]": 8,
        "STATEMENT[many]": 5,
        "STATEMENT[one] WHEN[tense]": 1,
        "STATEMENT[many] WHEN[tense]": 1,
        "WHEN[tense] STATEMENT[one]": 1,
        "WHEN[tense] STATEMENT[many]": 1,
    },
    "STATEMENT[one]": {"DETERMINER[one] NOUN[topic,one] NEAR BE[tense,one] QUALITY[sentiment]": 1},
    "STATEMENT[many]": {"DETERMINER[many] NOUN[topic,many] NEAR BE[tense,many] QUALITY[sentiment]": 1},
    "NEAR": {"": 9, "SPOT": 1},
    "QUALITY[negative]": {"OPINION": 5, "not SENSE[topic,positive]": 2},
    "QUALITY[positive]": {"OPINION": 6, "never SENSE[topic,negative]": 1},
    "OPINION": {
        "SENSE[topic,sentiment]": 6,
        "DEGREE SENSE[topic,sentiment]": 3,
        "VERDICT[sentiment]": 3,
        "SENSE[topic,sentiment] and VERDICT[sentiment]": 1,
    },
    # We do not like their cold soup.
    "FEELING": {
        "FEELER[tense] OBJECT": 5,
        "FEELER[tense] THING SPOT": 1,
        "FEELER[tense] THING WHEN[tense]": 1,
        "FEELER[tense] PAIR": 1,
        "FEELER[tense] REASON[topic]": 2,
    },
    "FEELER[past]": {"PERSON[one] LIKED[sentiment]": 1, "PERSON[many] LIKED[sentiment]": 3},
    "FEELER[present]": {"PERSON[one] LIKES[sentiment,one]": 1, "PERSON[many] LIKES[sentiment,many]": 3},
    "LIKED[negative]": {"hated": 2, "disliked": 1, "did not LIKES[positive,many]": 2},
    "LIKED[positive]": {"loved": 3, "liked": 2, "enjoyed": 1},
    "LIKES[negative,one]": {"hates": 2, "dislikes": 1, "does not LIKES[positive,many]": 2},
    "LIKES[negative,many]": {"hate": 2, "dislike": 1, "do not LIKES[positive,many]": 2},
    "LIKES[positive,one]": {"loves": 3, "likes": 2, "enjoys": 1},
    "LIKES[positive,many]": {"love": 3, "like": 2, "enjoy": 1},
    "OBJECT": {"THING": 9, "THING SPOT": 1},
    "PAIR": {"the NOUN[topic,one] and DETERMINER[many] NOUN[topic,many]": 1},
    "REASON[food]": {"REASONED[one]": 3, "REASONED[many]": 2},
    "REASON[service]": {"REASONED[many]": 1},
    "REASON[place]": {"REASONED[one]": 3, "REASONED[many]": 2},
    "REASONED[one]": {"the NOUN[topic,one] because it BE[tense,one] MANNER SENSE[topic,sentiment]": 1},
    "REASONED[many]": {"the NOUN[topic,many] because they BE[tense,many] MANNER SENSE[topic,sentiment]": 1},
    "MANNER": {"": 2, "DEGREE": 1},
    # I waited half an hour for the waitress.
    "EVENT": {"GENERAL[sentiment]": 2, "GENERAL[sentiment] WHEN[tense]": 1, "SPECIAL[topic,sentiment]": 3},
    "GENERAL[negative]": {"PERSON[many] COMPLAIN[tense] about THING": 1},
    "GENERAL[positive]": {"PERSON[many] COME[tense] back for THING": 1},
    "SPECIAL[food,negative]": {
        "PERSON[many] SEND[tense] back THING": 2,
        "PERSON[many] LEAVE[tense] THING untouched": 1,
    },
    "SPECIAL[food,positive]": {
        "PERSON[many] FINISH[tense] THING in minutes": 2,
        "PERSON[many] ORDER[tense] THING again": 1,
    },
    "SPECIAL[service,negative]": {
        "PERSON[many] WAIT[tense] DURATION for THING": 2,
        "THING[one] IGNORE[tense,one] us": 1,
        "THING[many] IGNORE[tense,many] us": 1,
    },
    "SPECIAL[service,positive]": {
        "THING[one] REMEMBER[tense,one] our names": 2,
        "THING[many] REMEMBER[tense,many] our names": 1,
    },
    "SPECIAL[place,negative]": {
        "THING[one] NEED[tense,one] a REPAIR": 2,
        "THING[many] NEED[tense,many] a REPAIR": 1,
    },
    "SPECIAL[place,positive]": {
        "THING[one] FEEL[tense,one] like home": 2,
        "THING[many] FEEL[tense,many] like home": 1,
    },
    # Who and what. A verb has the form [one] after the third person singular, [many] after any other.
    "PERSON[one]": {"my wife": 2, "my friend": 1},
    "PERSON[many]": {"i": 3, "we": 2},
    "THING": {"THING[one]": 3, "THING[many]": 2},
    "THING[one]": {
        "DETERMINER[one] NOUN[topic,one]": 4,
        "DETERMINER[one] SENSE[topic,sentiment] NOUN[topic,one]": 1,
    },
    "THING[many]": {
        "DETERMINER[many] NOUN[topic,many]": 4,
        "DETERMINER[many] SENSE[topic,sentiment] NOUN[topic,many]": 1,
    },
    "DETERMINER[one]": {"the": 8, "their": 1, "this": 1},
    "DETERMINER[many]": {"the": 8, "their": 1, "these": 1},
    "NOUN[food,one]": {"pizza": 5, "soup": 2, "coffee": 1},
    "NOUN[food,many]": {"fries": 3, "tacos": 1},
    "NOUN[service,one]": {"waiter": 5, "waitress": 3, "manager": 1},
    "NOUN[service,many]": {"servers": 3, "bartenders": 1},
    "NOUN[place,one]": {"patio": 5, "bar": 3, "lounge": 1},
    "NOUN[place,many]": {"tables": 3, "booths": 1},
    "SPOT": {"by the window": 2, "at the counter": 1},
    "WHEN[past]": {"last night": 4, "yesterday": 1},
    "WHEN[present]": {"every time": 4, "on weekends": 1},
    "DURATION": {"an hour": 2, "half an hour": 1, "forty minutes": 1},
    "REPAIR": {"good cleaning": 2, "new floor": 1},
    # What it is like.
    "DEGREE": {"very": 3, "really": 2, "so": 2},
    "SENSE[food,negative]": {"cold": 3, "bland": 2, "greasy": 1},
    "SENSE[food,positive]": {"fresh": 2, "delicious": 3, "tasty": 2},
    "SENSE[service,negative]": {"rude": 3, "slow": 3, "careless": 1},
    "SENSE[service,positive]": {"friendly": 4, "polite": 1, "attentive": 2},
    "SENSE[place,negative]": {"dirty": 3, "loud": 2, "crowded": 1},
    "SENSE[place,positive]": {"clean": 3, "cozy": 2, "quiet": 1},
    "VERDICT[negative]": {"terrible": 3, "awful": 2, "disappointing": 1},
    "VERDICT[positive]": {"great": 4, "amazing": 2, "perfect": 1},
    # Verbs.
    "BE[past,one]": {"was": 1},
    "BE[past,many]": {"were": 1},
    "BE[present,one]": {"is": 1},
    "BE[present,many]": {"are": 1},
    "COME[past]": {"came": 1},
    "COME[present]": {"come": 1},
    "COMPLAIN[past]": {"complained": 1},
    "COMPLAIN[present]": {"complain": 1},
    "FEEL[past,one]": {"felt": 1},
    "FEEL[past,many]": {"felt": 1},
    "FEEL[present,one]": {"feels": 1},
    "FEEL[present,many]": {"feel": 1},
    "FINISH[past]": {"finished": 1},
    "FINISH[present]": {"finish": 1},
    "IGNORE[past,one]": {"ignored": 1},
    "IGNORE[past,many]": {"ignored": 1},
    "IGNORE[present,one]": {"ignores": 1},
    "IGNORE[present,many]": {"ignore": 1},
    "LEAVE[past]": {"left": 1},
    "LEAVE[present]": {"leave": 1},
    "NEED[past,one]": {"needed": 1},
    "NEED[past,many]": {"needed": 1},
    "NEED[present,one]": {"needs": 1},
    "NEED[present,many]": {"need": 1},
    "ORDER[past]": {"ordered": 1},
    "ORDER[present]": {"order": 1},
    "REMEMBER[past,one]": {"remembered": 1},
    "REMEMBER[past,many]": {"remembered": 1},
    "REMEMBER[present,one]": {"remembers": 1},
    "REMEMBER[present,many]": {"remember": 1},
    "SEND[past]": {"sent": 1},
    "SEND[present]": {"send": 1},
    "WAIT[past]": {"waited": 1},
    "WAIT[present]": {"wait": 1},
}
"""Symbol -> what it can become -> weight; a rule's probability is its weight over the sum of its symbol's weights.

Words are lower case, symbols upper case. Brackets hold features. An attribute's name there stands for its value:
`NOUN[topic,one]` is `NOUN[food,one]` in a sentence about food.
"""

Option = TypeVar("Option")
Rules = Mapping[str, Mapping[tuple[str, ...], float]]
"""Symbol -> the symbols and words that it can become -> probability."""


class _Sentence(NamedTuple):
    """One sentence of the grammar: its probability and its values of `ATTRIBUTES`, in their order."""

    probability: float
    values: tuple[str, ...]


def sentences(n: int, seed: int = 0) -> tuple[list[str], dict[str, list[str]]]:
    """Draw sentences, independent of each other, with their attributes.

    a ~ p(a), then x ~ p(x | a), rule by rule. One stream of random numbers is read from left to right, so the first k of n
    sentences are `sentences(k, seed)`.

    Args:
        n: how many.
        seed: of the random numbers, at least 0.

    Returns:
        The texts, and for each attribute its column of values.

    Raises:
        DataError: where `n` or `seed` is negative.
    """
    if n < 0 or seed < 0:
        raise DataError(f"sentences(n={n}, seed={seed}) cannot be drawn: give a number and a seed of at least 0.")
    rng = random.Random(seed)
    texts: list[str] = []
    columns: dict[str, list[str]] = {name: [] for name in ATTRIBUTES}
    for _ in range(n):
        values = tuple(_draw(probabilities, rng) for probabilities in ATTRIBUTES.values())
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
        texts.append(" ".join(_derive("SENTENCE", _rules(values), rng)))
    return texts, columns


def log_p(texts: Sequence[str]) -> np.ndarray:
    """The exact log probability of each text: ln p(x), all derivations under all attributes added.

    Args:
        texts: N strings, compared letter by letter.

    Returns:
        (N,) in nats; -inf for a text that the grammar cannot make.

    Raises:
        DataError: where `texts` is one string.
    """
    if isinstance(texts, str):
        raise DataError("log_p takes a list of texts, and was given one string: put it into a list.")
    known = _language()
    return np.array([math.log(known[text].probability) if text in known else -math.inf for text in texts])


@cache
def entropy() -> float:
    """The exact entropy of a sentence: H = -sum over x p(x) ln p(x), in nats."""
    return -math.fsum(s.probability * math.log(s.probability) for s in _language().values())


def attributes(text: str) -> dict[str, str]:
    """The attributes that a sentence has. Every sentence of the grammar can be made under one choice of them only.

    Args:
        text: a sentence of the grammar.

    Returns:
        Attribute -> value, as `{"sentiment": "positive", "tense": "past", "topic": "food"}`.

    Raises:
        DataError: where the grammar cannot make the text.
    """
    if text not in _language():
        raise DataError(f"The text {text!r} has no attributes: the grammar cannot make it; take one of `sentences`.")
    return dict(zip(ATTRIBUTES, _language()[text].values, strict=True))


@cache
def _rules(values: tuple[str, ...]) -> Rules:
    """The rules of the sentences that have these values of `ATTRIBUTES`."""
    chosen = dict(zip(ATTRIBUTES, values, strict=True))

    def with_values(expansion: str) -> tuple[str, ...]:
        return tuple(
            re.sub("[a-z]+", lambda feature: chosen.get(feature[0], feature[0]), symbol)
            if _is_symbol(symbol)
            else symbol
            for symbol in expansion.split()
        )

    return {
        head: {with_values(expansion): weight / sum(options.values()) for expansion, weight in options.items()}
        for head, options in RULES.items()
    }


def _is_symbol(word: str) -> bool:
    return word[0].isupper()


def _draw(probabilities: Mapping[Option, float], rng: random.Random) -> Option:
    return rng.choices(list(probabilities), list(probabilities.values()))[0]


def _derive(symbol: str, rules: Rules, rng: random.Random) -> list[str]:
    """The words that a symbol becomes in one random derivation."""
    if not _is_symbol(symbol):
        return [symbol]
    return [word for part in _draw(rules[symbol], rng) for word in _derive(part, rules, rng)]


@cache
def _language() -> dict[str, _Sentence]:
    """Every sentence that the grammar makes. No two choices of attributes make the same one."""
    found: dict[str, _Sentence] = {}
    for values in itertools.product(*ATTRIBUTES.values()):
        p = math.prod(ATTRIBUTES[name][value] for name, value in zip(ATTRIBUTES, values, strict=True))
        found |= {text[1:]: _Sentence(p * q, values) for text, q in _yields("SENTENCE", _rules(values), {}).items()}
    return found


def _yields(symbol: str, rules: Rules, known: dict[str, dict[str, float]]) -> dict[str, float]:
    """Every text that a symbol can become, a blank before each word, with its probability, all derivations added.

    p(text | symbol) = sum over rules p(rule) sum over divisions of the text prod over parts p(its piece | part)

    Args:
        symbol: a symbol or a word.
        rules: of one choice of attributes.
        known: what was found for other symbols; filled on the way, so that each symbol is worked out once.
    """
    if not _is_symbol(symbol):
        return {f" {symbol}": 1.0}
    if symbol not in known:
        total: defaultdict[str, float] = defaultdict(float)
        for expansion, probability in rules[symbol].items():
            texts = {"": probability}
            for part in expansion:
                texts = _joined(texts, _yields(part, rules, known))
            for text, p in texts.items():
                total[text] += p
        known[symbol] = dict(total)
    return known[symbol]


def _joined(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    """The distribution of a text of `left` followed by an independent one of `right`."""
    total: defaultdict[str, float] = defaultdict(float)
    for (a, p), (b, q) in itertools.product(left.items(), right.items()):
        total[a + b] += p * q
    return total
