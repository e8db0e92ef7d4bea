"""Editing and group-wise figures of a loaded model: what `edit` and `evaluate --by` do."""

from __future__ import annotations

import numpy as np
import torch

from diled.data import Data, Split, from_model
from diled.draws import seeded
from diled.errors import ConfigError, did_you_mean
from diled.evaluation import sequences, texts
from diled.evaluation.measure import Measured, bounds, labelled, reconstruction
from diled.latent.edit import Edit
from diled.model import Model
from diled.models.sampling import BATCH, described, sample_batches
from diled.space import raw_tensor, to_space

__all__ = ["STRENGTH", "apply_edit", "by_group"]

STRENGTH = {"vector": 1.0, "classifier": 1.0, "ode": 2.0}
"""How far each way of editing goes unless one says otherwise."""


@torch.no_grad()
def apply_edit(model: Model, examples: np.ndarray, edit: Edit, strength: float) -> np.ndarray:
    """Raw values (n, *shape) decoded from edited codes.

    Where the decoder is a diffusion, its noise is found by DDIM inversion given the old code and kept, so that what the
    code does not say stays as it is (Preechakul et al. 2022, section 5).

    Args:
        model: with codes.
        examples: raw values (n, *shape).
        edit: of codes (n, d).
        strength: of the edit.
    """
    density, decoded = model.density, []
    with seeded(0):
        parts = [to_space(x.to(model.device), model.spec) for x in raw_tensor(examples).split(BATCH)]
        codes = torch.cat([density.encode(x) for x in parts])
        moved = torch.from_numpy(edit.apply(codes.flatten(1).cpu().numpy(), strength)).to(codes).reshape(codes.shape)
        for x, old, new in zip(parts, codes.split(BATCH), moved.split(BATCH), strict=True):
            if hasattr(density, "decoder") and density.implicit:
                result = density.decoder(new).from_noise(density.decoder(old).invert(x))
            else:
                result = density.decode(new)
            decoded.append(result.cpu())
    return from_model(torch.cat(decoded).numpy(), model.spec)


@torch.no_grad()
def by_group(
    model: Model,
    data: Data,
    column: str,
    *,
    samples: int,
    repeats: int = 8,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Measured]]:
    """For each class of a label column: bound, rate, distortion, error, and its share of test data and of samples.

    Error is the squared one of images, the residues of proteins that are right, and BLEU and exact matches of texts. Samples
    are told apart by a logistic regression on codes, fitted to training data; its accuracy on test data is in the remark of
    `share_of_samples`. A share of samples far below the share of the data is a group that the model neglects.
    Examples whose class is missing (-1) are left out.

    Raises:
        ConfigError: no such column, one of real numbers, or one class alone; no codes; or steps or a sampler that do not fit
            the model.
    """
    model.with_codes()
    described(model.density, steps=steps, sampler=sampler)
    labels = data.test.labels.get(column)
    if labels is None:
        raise ConfigError(f"There is no label column '{column}'.{did_you_mean(column, data.test.labels)}")
    if labels.dtype.kind != "i":
        raise ConfigError(f"'{column}' holds real numbers; groups need classes.")
    from sklearn.linear_model import LogisticRegression

    test, train = labelled(data.test, column), labelled(data.train, column)
    labels = test.labels[column]
    if len(np.unique(train.labels[column])) < 2 or not len(test):
        raise ConfigError(
            f"'{column}' has {len(np.unique(train.labels[column]))} of its classes among training examples, and is known of "
            f"{len(test)} test examples: groups need two classes, and a test example."
        )
    names = data.spec.labels.get(column) or [str(v) for v in np.unique(labels)]
    train = train.subset(np.random.default_rng(0).permutation(len(train))[:10_000])
    classifier = LogisticRegression(max_iter=300).fit(model.encode(train.values), train.labels[column])
    accuracy = classifier.score(model.encode(test.values), labels)
    codes = _codes_of_samples(model, samples, steps, sampler, seed)
    told = classifier.predict(codes)
    found = {}
    for value in np.unique(labels):
        part = test.subset(labels == value)
        group = _bound_and_error(model, part, data, repeats, seed)
        group["share_of_data"] = Measured(len(part) / len(labels), n=len(labels))
        share = float((told == value).mean())
        note = f"told apart by a classifier with {accuracy:.1%} accuracy"
        group["share_of_samples"] = Measured(share, float(np.sqrt(share * (1 - share) / samples)), samples, note)
        found[str(names[value]) if value < len(names) else str(value)] = group
    return found


def _bound_and_error(model: Model, part: Split, data: Data, repeats: int, seed: int) -> dict[str, Measured]:
    """What `by_group` tells of a group: the bound with its parts, and what reconstructions lose."""
    density, spec = model.density, data.spec
    if spec.kind == "text":
        found = texts.text_bounds(density, part, data, repeats=repeats, seed=seed)
        return found | texts.text_reconstruction(density, part, data, seed=seed)
    lost = sequences.reconstruction if spec.sequential else reconstruction
    return bounds(density, part, spec, repeats=repeats, seed=seed) | lost(density, part, spec, seed=seed)


def _codes_of_samples(model: Model, samples: int, steps: int | None, sampler: str | None, seed: int) -> np.ndarray:
    """Codes of drawn examples, encoded again; texts as `Model.writing` has them."""
    written = model.spec.kind == "text"
    drawn = sample_batches(model.density, samples, steps=steps, sampler=sampler, seed=seed, mean=written)
    return torch.cat([model.density.encode(x.to(model.device)).flatten(1).cpu() for x in drawn]).numpy()
