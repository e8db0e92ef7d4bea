"""The sections of an audit that are other for sequences: attacks by substitutions, what codes say of properties, the pool."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from diled.api import device_of
from diled.errors import ConfigError
from diled.evaluation.audit import Effort, Examples, Section, nats_of_codes
from diled.evaluation.codes import active_count, averaged, code_means
from diled.evaluation.measure import Measured
from diled.evaluation.sequence_attack import substitution_gaps
from diled.evaluation.sequences import (
    generation,
    prediction_errors,
    properties_of,
    reconstruction_accuracy,
    residues_of,
    ridge_predictions,
)

__all__ = ["SEQUENCE_SECTIONS", "SUBSTITUTIONS", "label_smoothness"]

SUBSTITUTIONS = (1, 2, 4)
"""How many of each attack."""
NEIGHBOURS = 5
"""Of each code, whose labels are compared with its own."""


def robustness(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """`robustness_gap/substitutions=r` with similarities and the SKL that was reached."""
    spec, found = examples.data.spec, Section()
    x = examples.test[: effort.references].to(device_of(model))
    residues = residues_of(spec)
    for one in substitution_gaps(
        model, x, substitutions=SUBSTITUTIONS, residues=residues, symbols=len(spec.symbols), seed=seed
    ):
        name = f"substitutions={one.substitutions}"
        found.figures[f"robustness_gap/{name}"] = averaged(one.gaps.cpu())
        found.figures[f"input_similarity/{name}"] = averaged(one.input_similarity.cpu())
        found.figures[f"reconstruction_similarity/{name}"] = averaged(one.reconstruction_similarity.cpu())
        if one.skl is not None:
            found.figures[f"attack_skl/{name}"] = averaged(one.skl.cpu())
        found.arrays[f"gaps/{name}"] = one.gaps.double().cpu().numpy()
    found.notes.append(
        f"{len(x):,} sequences; each substitution is the best of 32 that the encoder's gradient proposes. Similarity is the "
        "share of equal positions."
    )
    return found


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
    near = (
        NearestNeighbors(n_neighbors=neighbours).fit(scaled).kneighbors(return_distance=False)
    )  # of others than itself
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
