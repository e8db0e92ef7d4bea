"""Figures of samples under a judge that counts what it reads."""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diled.evaluation.mauve import mauve
from diled.evaluation.measure import Measured
from diled.evaluation.text_figures import interpolation_figures, sample_figures
from diled.reporting import write_figures

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


def test_texts_without_blanks_have_no_pairs_of_words_and_their_figures_are_json(tmp_path: Path) -> None:
    """Nor a perplexity per word that can be written, where a model does not expect them."""
    pytest.importorskip("sacrebleu")
    judge: Any = Counting()
    judge.perplexity = lambda texts: math.inf
    drawn, train, test = (["".join(text.split()) for text in written(seed)] for seed in range(3))
    found = sample_figures(drawn, train, test, judge)
    found |= interpolation_figures([drawn[i : i + 3] for i in range(30)], judge, test)
    assert found["distinct_2"] == found["distinct_2/floor"] == Measured(None, n=40, note="no text has two words")
    assert found["distinct_1"].value == len(set(drawn)) / 40
    for name in ("sample_perplexity", "interpolation_perplexity"):
        assert found[name].value is None
        assert found[name].note == "counting, per word; too large to be written"
    write_figures(tmp_path / "a.json", found | {"other": Measured(math.inf, stderr=math.nan)})
    read = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read["distinct_2"]["value"] is read["other"]["value"] is read["other"]["stderr"] is None
    assert read["length"]["value"] == 1
