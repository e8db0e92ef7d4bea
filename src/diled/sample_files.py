"""Figures of samples that any other system wrote into a file of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diled.config import PreprocessConfig
from diled.data import open_data, texts_and_faults, to_strings
from diled.data.text import reread
from diled.errors import ConfigError, DataError
from diled.evaluation.measure import Measured
from diled.evaluation.text_figures import sample_figures
from diled.evaluation.text_judge import judge_of, too_few

__all__ = ["figures_of_file"]


def figures_of_file(
    path: str | Path,
    data: str | Path | None,
    *,
    samples: int | None = None,
    seed: int = 0,
    preprocess: PreprocessConfig | None = None,
    column: str | None = None,
) -> dict[str, Measured]:
    """Figures of a file of texts as samples, beside real ones of a set of text.

    Its texts are taken as a model of the set would write them, as the real ones are: in lower case with a tokenizer that knows
    no capitals, say.

    Args:
        path: one text a line, or a table.
        data: a source of text.
        samples: of the file, by a fixed draw; None: all, up to 5,000. `empty` is the share of all lines that hold no text or
            none that the set's tokenizer knows, or cannot be read, and count in no other figure.
        seed: of the draws.
        preprocess: how the set is read: where real texts are left out as too long, say, as of the models to compare with.
        column: of a table of samples, which holds the texts.

    Raises:
        ConfigError: no set of text to compare with.
        DataError: the file cannot be read, or no line of it holds text.
    """
    if data is None:
        raise ConfigError(f"{path} holds samples: say with --data which set of text they are to be like.")
    place = open_data(data, preprocess or PreprocessConfig())
    if place.spec.kind != "text":
        raise ConfigError(f"{place.name} holds {place.spec.kind}s, and {path} texts: name a set of text (--data).")
    written, unread = texts_and_faults(path, column)
    known = [text.strip() for text in reread(written, place.spec)]
    texts = [text for text in known if text]
    if not texts:
        raise DataError(f"No line of {path} has a token of the tokenizer of {place.name}, such as '{written[0][:40]}'.")
    unread += [
        f"'{text[:40]}' has no token of the tokenizer" for text, kept in zip(written, known, strict=True) if not kept
    ]
    # Not the draw that divides a set of text: of the file of that very set, it would show the test texts alone.
    order = np.random.default_rng((seed, 5)).permutation(len(texts))[: samples or 5000]
    train, test = (to_strings(split.values, place.spec) for split in (place.train, place.test))
    missing = too_few(len(place.train), len(place.validation))
    judge = None if missing else judge_of(place)
    found = sample_figures([texts[i] for i in order], train, test, judge, seed=seed)
    if missing:
        found["sample_perplexity"] = Measured(None, note=missing)
    n = len(texts) + len(unread)
    found["empty"] = Measured(len(unread) / n, n=n, note="; ".join(unread[:5]) or "no line is empty or unreadable")
    return found
