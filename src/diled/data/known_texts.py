"""Sets of sentences with a name: Yelp reviews, their tenses, movie reviews, and what a grammar in the code makes.

    tables in DILED_DATA, or `grammar.sentences`  ->  Records of each split  ->  Found

The texts of `yelp-transfer-reference`, on which edits are measured, are no validation texts: a model is chosen on those. Nor
are test texts of `yelp-tense` among those that tenses are learnt from.

Reference: Shen et al. 2017 (arXiv 1705.09655) for Yelp and its labels; Li et al. 2018 (arXiv 1804.06437) for the references;
Shen et al. 2020 (arXiv 1905.12777) for the tenses; Socher et al. 2013 (EMNLP, 1631) for the Stanford Sentiment Treebank.
"""

from __future__ import annotations

import csv
import gzip
import re
from pathlib import Path

import numpy as np

from diled.config import PreprocessConfig, SequenceConfig
from diled.data.records import Records, from_list
from diled.data.sequence_sources import read_records
from diled.data.splits import Found
from diled.data.text_files import found_of_texts

__all__ = ["EDITED", "TEXTS", "as_reviews", "find_texts", "read_rewrites"]

EDITED = "yelp-transfer-reference.csv.gz"
SENTIMENT = ["negative", "positive"]
SPELLING = [
    (re.compile(r"[\u2018\u2019`´]"), "'"),
    (re.compile(r"n't\b", re.IGNORECASE), " n't"),
    (re.compile(r"\bcannot\b", re.IGNORECASE), "can not"),
    (re.compile(r"'(s|m|d|re|ve|ll)\b", re.IGNORECASE), r" '\1"),
    (re.compile(r"(?<![\w.,])\d+(?:[.,:]\d+)*\b"), " _num_ "),
    (re.compile(r"(\.{2,}|[.,!?;:()\"$%&*+/=])"), r" \1 "),
]
"""Of the tokeniser that the reviews went through: what is set apart, in order."""
SENTENCES = 8000
"""How many the grammar makes."""

TEXTS: dict[str, tuple[str, dict[str, str], tuple[str, ...]]] = {
    "yelp": (
        "337,753 sentences of restaurant reviews with sentiment (Shen et al. 2017; a third of the training set)",
        {
            "train": "yelp-sentiment-train-subset.csv.gz",
            "validation": "yelp-sentiment-validation.csv.gz",
            "test": "yelp-sentiment-test.csv.gz",
            "edited": EDITED,
        },
        ("sentiment",),
    ),
    "yelp-tense": (
        "14,541 sentences of restaurant reviews in the past or the present tense (Shen et al. 2020)",
        {"all": "yelp-tense.csv.gz"},
        ("tense",),
    ),
    "sst2": (
        "9,613 sentences of movie reviews with sentiment (Socher et al. 2013)",
        {"all": "sst2-sentences.csv.gz"},
        ("sentiment",),
    ),
    "sentences": (f"{SENTENCES:,} sentences that a grammar makes, with sentiment, tense and topic", {}, ()),
}
"""Name -> description, split -> file in DILED_DATA, label columns."""


def find_texts(name: str, paths: dict[str, Path], preprocess: PreprocessConfig) -> Found:
    """A named set of texts, with its own splits and labels.

    Args:
        name: of the set.
        paths: split -> file, all of which are there.
        preprocess: what to do with faults, and how to divide what has no splits.

    Raises:
        DataError: a file is damaged.
    """
    if name == "sentences":
        from diled.data.grammar import sentences

        texts, labels = sentences(SENTENCES, seed=0)
        records = from_list(texts)
        records.columns = {column: np.array(values, object) for column, values in labels.items()}
        return found_of_texts({"all": records}, name, preprocess)
    config = preprocess.sequence
    each = {split: _read(path, config) for split, path in paths.items()}
    if "edited" in each:
        said = f"validation texts are those of {EDITED}, on which edits are measured"
        each["validation"] = _without(each["validation"], set(each.pop("edited").texts), f"{said},")
    if name == "yelp-tense":
        whole = each.pop("all")
        splits = whole.columns.pop("split")
        each = {own: _taken(whole, splits == theirs) for own, theirs in (("train", "validation"), ("test", "test"))}
        said = "texts of the set's validation split are test texts too"
        each["train"] = _without(each["train"], set(each["test"].texts), said)
    found = found_of_texts(each, name, preprocess)
    labels_of = TEXTS[name][2]
    for part in found.parts.values():
        part.columns = {column: part.columns["label" if column == "sentiment" else column] for column in labels_of}
    if "sentiment" in labels_of:
        found.classes["sentiment"] = SENTIMENT
    return found


def read_rewrites(path: Path) -> tuple[list[str], list[str], list[str]]:
    """Texts, the class that each was rewritten to, and the rewrite by a person, written as the texts are (`as_reviews`).

    Reference: Li et al. 2018 (arXiv 1804.06437).
    """
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = [SENTIMENT[1 - int(row["label"])] for row in rows]
    return [row["text"].strip() for row in rows], wanted, [as_reviews(row["reference"]) for row in rows]


def as_reviews(text: str) -> str:
    """A text in the spelling of the reviews: lower case, words and marks apart, `_num_` for numbers.

    People wrote their rewrites with marks and contractions as one word ("better.", "it's"), which no edited review matches.
    """
    for pattern, spaced in SPELLING:
        text = pattern.sub(spaced, text)
    return " ".join(text.lower().split())


def _read(path: Path, config: SequenceConfig) -> Records:
    """The texts of a table of these sets, by the names that its columns have."""
    return read_records([path], config.model_copy(update={"kind": "text"}), "text")[0]


def _without(records: Records, texts: set[str], said: str) -> Records:
    """Records but those with some texts; `said` is what these are, for the note."""
    rest = _taken(records, np.array([text not in texts for text in records.texts]))
    count = len(records.texts) - len(rest.texts)
    if count:
        rest.notes.append(f"{count:,} {said} and were left out.")
    return rest


def _taken(records: Records, keep: np.ndarray) -> Records:
    """The records that a mask keeps, with the ids that they had."""
    rows = np.flatnonzero(keep).tolist()
    new = {row: i for i, row in enumerate(rows)}
    return Records(
        [records.texts[i] for i in rows],
        [records.ids[i] for i in rows],
        [records.places[i] for i in rows],
        {column: values[keep] for column, values in records.columns.items()},
        list(records.notes),
        {new[i]: fault for i, fault in records.faults.items() if i in new},
    )
