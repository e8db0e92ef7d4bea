"""Figures of samples under a judge that counts what it reads."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from diled.evaluation.mauve import mauve
from diled.evaluation.text_figures import sample_figures

WORDS = ("cat", "dog", "cow", "hen")


class Counting:
    """Features of a text are two numbers that its letters make; each list of texts that is read counts."""

    name = "counting"

    def __init__(self) -> None:
        self.read: Counter[tuple[str, ...]] = Counter()

    def perplexity(self, texts: Sequence[str]) -> float:
        return 1.0

    def features(self, texts: Sequence[str]) -> np.ndarray:
        self.read[tuple(texts)] += 1
        return np.array([np.random.default_rng(zlib.crc32(text.encode())).normal(size=2) for text in texts])


def written(seed: int) -> list[str]:
    """Forty sentences of three words."""
    return [" ".join(words) for words in np.random.default_rng(seed).choice(WORDS, (40, 3))]


def test_features_of_real_texts_are_computed_once() -> None:
    pytest.importorskip("sacrebleu")
    judge: Any = Counting()
    drawn, train, test = (written(seed) for seed in range(3))
    found = sample_figures(drawn, train, test, judge)
    assert sorted(judge.read.values()) == [1, 1, 1], "real texts, samples and other real texts"
    real = [test[i] for i in np.random.default_rng(0).permutation(40)]
    assert found["mauve"].value == mauve(judge.features(real), judge.features(drawn))
    assert found["mauve/floor"].value < 1
