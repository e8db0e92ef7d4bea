"""The sections of an audit that are other for sequences: attacks by substitutions, what codes say of properties, the pool.

Of text the attack puts in tokens that occur in training. The share of equal tokens takes a shifted text for another, so the gap
is also measured with

    sim(x, y) = 1 - d(x, y) / max(|x|, |y|)        d: fewest insertions, deletions and exchanges of words; |x|: words

Reference: Levenshtein 1966; Xiao et al. 2024 (arXiv 2310.19653), Eq. 5, for the gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diled.api import device_of
from diled.data.scale import raw_dtype
from diled.data.splits import Split, seen
from diled.data.strings import to_strings
from diled.errors import ConfigError, DataError, ModelError, NoBound
from diled.evaluation.audit import (
    Effort,
    Examples,
    Section,
    amortization_section,
    bounds_section,
    nats_of_codes,
)
from diled.evaluation.codes import active_count, averaged, code_means, probes
from diled.evaluation.gaps import amortization, generalization
from diled.evaluation.measure import Measured
from diled.evaluation.sequence_attack import SubstitutionGap, substitution_gaps, table_of
from diled.evaluation.sequences import (
    generation,
    prediction_errors,
    properties_of,
    reconstruction_accuracy,
    residues_of,
    ridge_predictions,
)
from diled.evaluation.text_figures import sample_figures
from diled.evaluation.text_judge import judge_of, too_few
from diled.evaluation.text_metrics import word_edits
from diled.evaluation.texts import text_reconstruction

__all__ = ["SEQUENCE_SECTIONS", "SUBSTITUTIONS", "TEXT_SECTIONS", "label_smoothness", "word_similarity"]

SUBSTITUTIONS = (1, 2, 4)
"""How many of each attack."""
SAID = "each substitution is the best of 32 that the encoder's gradient proposes."
SHOWN = 6
"""Attacked texts that the page shows."""
NEIGHBOURS = 5
"""Of each code, whose labels are compared with its own."""


def robustness(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """`robustness_gap/substitutions=r` with similarities and the SKL that was reached."""
    found, x = Section(), examples.test[: effort.references].to(device_of(model))
    for one in _gaps(model, x, examples, residues_of(examples.data.spec), seed):
        _add(found, one)
    found.notes.append(f"{len(x):,} sequences; {SAID} Similarity is the share of equal positions.")
    return found


def _gaps(model: Any, x: Tensor, examples: Examples, residues: list[int], seed: int) -> list[SubstitutionGap]:
    """Attacks on rows x (n, L)."""
    symbols = len(examples.data.spec.symbols)
    return substitution_gaps(model, x, substitutions=SUBSTITUTIONS, residues=residues, symbols=symbols, seed=seed)


def _add(found: Section, one: SubstitutionGap) -> None:
    """The figures of attacks with one number of substitutions."""
    name = f"substitutions={one.substitutions}"
    found.figures[f"robustness_gap/{name}"] = averaged(one.gaps.cpu())
    found.figures[f"input_similarity/{name}"] = averaged(one.input_similarity.cpu())
    found.figures[f"reconstruction_similarity/{name}"] = averaged(one.reconstruction_similarity.cpu())
    if one.skl is not None:
        found.figures[f"attack_skl/{name}"] = averaged(one.skl.cpu())
    found.arrays[f"gaps/{name}"] = one.gaps.double().cpu().numpy()


def codes(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """What the codes of test examples hold in nats, what they say of properties, and how smooth these are over them."""
    device = device_of(model)
    train, test = examples.first(max(effort.examples, min(5000, len(examples.test))), device)
    of_train, of_test = code_means(model, train), code_means(model, test)
    found = Section({"active_units": active_count(of_test)})

    found.add("nats of codes", partial(nats_of_codes, model, test, seed))
    for column in properties_of(examples.data.spec):
        y_train, y_test = (examples.columns[split][column] for split in ("train", "test"))
        a, b = y_train[: len(train)], y_test[: len(test)]
        known = np.isfinite(b)
        if known.sum() < 10 or np.isfinite(a).sum() < 10:
            continue
        said = ridge_predictions(np.asarray(of_train), a, np.asarray(of_test)[known])
        errors = prediction_errors(said, b[known].astype(np.float64), seed, "ridge regression on codes")
        found.figures |= {f"{name}/{column}/probe": m for name, m in errors.items()}
        smooth = label_smoothness(np.asarray(of_test)[known], b[known])
        found.figures[f"label_smoothness/{column}"] = smooth
    with torch.no_grad():
        shown = torch.cat([model.decode(model.encoder(part).mean) for part in test.split(512)])
    found.figures |= reconstruction_accuracy(test, shown)
    return found


def label_smoothness(codes: np.ndarray, y: np.ndarray, neighbours: int = NEIGHBOURS) -> Measured:
    """1 - E (y_i - y_j)^2 / (2 Var y), j among the nearest neighbours of i: 1 where neighbours agree, 0 where they are random.

    Args:
        codes: (N, D), each dimension standardised for the distance.
        y: (N,), a property.
        neighbours: of each code.
    """
    from sklearn.neighbors import NearestNeighbors

    scaled = codes / (codes.std(0) + 1e-8)
    # Without rows of its own, `kneighbors` leaves each point out of its neighbours.
    near = NearestNeighbors(n_neighbors=neighbours).fit(scaled).kneighbors(return_distance=False)
    each = 1 - ((y[:, None] - y[near]) ** 2).mean(1) / (2 * y.var() + 1e-12)
    return averaged(each, f"{neighbours} nearest neighbours")


def pool(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """The synthetic set that the model was trained on, beside real sequences."""
    if examples.pool is None:
        raise ConfigError("The model was not trained on a synthetic set, so there is none to compare.")
    rows = examples.pool.cpu().numpy().astype(examples.data.train.values.dtype)
    found = generation(rows, examples.data, seed=seed)
    return Section({f"pool/{name}": m for name, m in found.items()}, notes=[f"{len(rows):,} examples of the set."])


SEQUENCE_SECTIONS = {"robustness": robustness, "codes": codes, "pool": pool}
"""Section -> what measures it, in place of that for pictures."""


# Text -----------------------------------------------------------------------------------------------------------------


def text_bounds(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """The bounds, and `bound_nats/test/unseen` and `generalization_gap/unseen` of the test texts that no training text is.

    This gap is to the training texts that no other training text is: texts that others repeat are short and easy, and would be
    on one side of it alone.
    """
    found = bounds_section(model, examples, effort, seed)
    train, test = (found.arrays[f"{name}_bound"] for name in ("train", "test"))
    fresh = _unseen(examples, len(test))
    if 0 < fresh.sum() < len(test):
        found.figures["bound_nats/test/unseen"] = averaged(test[fresh])
        single = _single(examples, len(train))
        if single.any():
            found.figures["generalization_gap/unseen"] = generalization(train[single], test[fresh])
    return found


def text_amortization(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """The amortization gap, and `amortization_gap_test/unseen` of the same."""
    found = amortization_section(model, examples, effort, seed)
    before, best = (found.arrays[f"test_{name}"] for name in ("before", "best"))
    fresh = _unseen(examples, len(before))
    if 0 < fresh.sum() < len(before):
        found.figures["amortization_gap_test/unseen"] = amortization(before[fresh], best[fresh])
    return found


def _unseen(examples: Examples, n: int) -> np.ndarray:
    """Which of the first n test texts do not occur in training, (n,) bool."""
    return ~seen(_raw(examples.test[:n], examples), examples.data.train.values)


def _single(examples: Examples, n: int) -> np.ndarray:
    """Which of the first n training texts occur in training once, (n,) bool."""
    rows, times = np.unique(examples.data.train.values, axis=0, return_counts=True)
    return ~seen(_raw(examples.train[:n], examples), rows[times > 1])


def text_robustness(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """The same of text, and `robustness_gap/words/substitutions=r` with the similarity of words.

    Raises:
        ModelError: the encoder reads other tokens than the data's, so that there is no gradient to attack by.
    """
    spec, found = examples.data.spec, Section()
    if table_of(model.encoder) is None:
        raise ModelError(
            "The encoder does not begin with a table of the data's tokens, which an attack by their gradient needs: train with "
            "network.kind transformer, or in the encoder's own tokens (--preprocess.text.tokenizer FOLDER)."
        )
    x = examples.test[: effort.references].to(device_of(model))
    known = np.unique(examples.data.train.values)
    for one in _gaps(model, x, examples, known[known > 0].tolist(), seed):
        _add(found, one)
        rows = {"reference": one.reference, "attacked": one.attacked}
        rows |= {"reference_decoded": one.decoded[0], "attacked_decoded": one.decoded[1]}
        texts = {key: to_strings(_raw(row, examples), spec) for key, row in rows.items()}
        before = word_similarity(texts["reference"], texts["attacked"])
        after = word_similarity(texts["reference_decoded"], texts["attacked_decoded"])
        name = f"words/substitutions={one.substitutions}"
        found.figures[f"robustness_gap/{name}"] = averaged(before - after)
        found.figures[f"input_similarity/{name}"] = averaged(before)
        found.figures[f"reconstruction_similarity/{name}"] = averaged(after)
        found.arrays[f"gaps/{name}"] = before - after
    found.arrays |= {f"shown_{key}": np.array(some[:SHOWN]) for key, some in texts.items()}
    found.notes.append(
        f"{len(x):,} texts; {SAID} Of {len(known) - 1:,} tokens that occur in training any may come in, so words are often not "
        "words any more. Similarity is the share of equal tokens; of words, 1 minus the edit distance over the longer text."
    )
    return found


def word_similarity(texts: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """1 - d / (words of the longer one), (N,), with d the edit distance of words; 1 of two texts without words."""
    pairs = list(zip(texts, others, strict=True))
    return np.array([1 - word_edits(pair)[0] / max(1, *(len(text.split()) for text in pair)) for pair in pairs])


def text_codes(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """What the codes of test texts hold in nats, what they say of classes, and how much of a text they give back."""
    train, test = examples.first(max(effort.examples, min(5000, len(examples.test))), device_of(model))
    of_test = code_means(model, test)
    found = Section({"active_units": active_count(of_test)})
    found.add("nats of codes", partial(nats_of_codes, model, test, seed))
    if examples.train_labels is not None and examples.test_labels is not None:
        labels = examples.train_labels[: len(train)], examples.test_labels[: len(test)]
        found.add(
            "probes",
            lambda: Section(probes(code_means(model, train), labels[0], of_test, labels[1], seed=seed)),
            (NoBound, DataError),
        )
    split = Split(_raw(test, examples), {}, [str(i) for i in range(len(test))])
    found.figures |= text_reconstruction(model, split, examples.data, seed=seed)
    found.notes.append(f"{len(test):,} test texts, decoded greedily from mean codes.")
    return found


def text_pool(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """The synthetic set that the model was trained on, beside real texts."""
    if examples.pool is None:
        raise ConfigError("The model was not trained on a synthetic set, so there is none to compare.")
    data = examples.data
    drawn, train, test = (
        to_strings(rows, data.spec) for rows in (_raw(examples.pool, examples), data.train.values, data.test.values)
    )
    judge = None if too_few(len(data.train), len(data.validation)) else judge_of(data)
    found = sample_figures(drawn, train, test, judge, reference=len(drawn), seed=seed)
    return Section({f"pool/{name}": m for name, m in found.items()}, notes=[f"{len(drawn):,} examples of the set."])


def _raw(x: Tensor, examples: Examples) -> np.ndarray:
    """Rows as the data have them."""
    return x.cpu().numpy().astype(raw_dtype(examples.data.spec))


TEXT_SECTIONS = {
    "bounds": text_bounds,
    "amortization": text_amortization,
    "robustness": text_robustness,
    "codes": text_codes,
    "pool": text_pool,
}
"""The same of text."""
