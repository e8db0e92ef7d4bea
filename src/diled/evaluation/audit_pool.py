"""The section of an audit that compares the synthetic set that a model was trained on with real data."""

from __future__ import annotations

from itertools import chain
from typing import Any

from diled.errors import ConfigError, DataError
from diled.evaluation.audit import Examples, Section
from diled.evaluation.effort import Effort
from diled.evaluation.measure import features_for
from diled.evaluation.pools import entropy_offset, pool_figures, two_sample_images

__all__ = ["pool_section"]


def pool_section(model: Any, examples: Examples, effort: Effort, seed: int) -> Section:
    """Memorisation and coverage of the synthetic set that the model was trained on; with a bound, the entropy offset.

    Copies are looked for among all training examples, and in grey values where binarised ones are drawn: two draws of an
    image differ, so no copy would be found. The entropy offset is of binarised ones. With `effort.network` a network is
    trained to tell images of the set from test images, `c2st_accuracy/images`, and training images from them,
    `c2st_floor/images`.
    """
    if examples.pool is None:
        raise ConfigError("The model was not trained on a synthetic set, so there is none to compare.")
    drawn, examples = examples, examples.shown or examples
    pool, test = examples.pool, examples.test
    assert pool is not None
    train = chain([examples.train], examples.rest())
    found = Section(pool_figures(pool, train, test, features_for(examples.data), seed=seed))
    n = {name: f"{m.n:,}" for name, m in found.figures.items()}
    found.notes.append(
        f"{len(pool):,} examples of the synthetic set were looked at. Copies and copying: {n['copying']} of them, against "
        f"{found.figures['copies'].note.split('any of ')[-1]}. Frechet and kernel distances: {n['frechet_pool']} of each set. "
        f"Precision and recall, whose cost grows with the square: {n['recall_pool']}. Two-sample test: {n['c2st_accuracy']} "
        "in all."
    )

    if examples is not drawn:
        found.notes.append("Sets are compared in grey values, not as binarised.")

    def offset() -> Section:
        assert drawn.pool is not None
        nats = entropy_offset(model, drawn.pool, drawn.test, unit=drawn.unit, seed=seed)
        return Section({"entropy_offset_nats": nats})

    def by_images() -> Section:
        others = {"accuracy": pool, "floor": examples.train}
        return Section({f"c2st_{name}/images": two_sample_images(test, x, seed=seed) for name, x in others.items()})

    found.add("entropy offset", offset)
    if effort.network and examples.data.spec.kind == "image":
        found.add("two-sample test by a network", by_images, (DataError,))
    return found
