"""Editing by attributes: a direction in the latent space, fitted to codes and labels of training data only.

    vector       z = sum over columns c of e_c[class in c] + residual, e by least squares;
                 v = e_c[k] - sum_{j != k} n_j e_c[j] / sum_{j != k} n_j
    classifier   v = sqrt(D) w / |w| on standardised codes, w of a logistic regression (Preechakul et al. 2022, section 5);
                 a strength of 0.1 to 0.3 shows where codes have hundreds of dimensions, of about 1 where they have ten

One attribute's vector is mean(codes with) - mean(codes without) (Larsen et al. 2016), and strength 1 moves one mean onto the
other. Of several it is that difference with the other attributes held fixed, so that what goes together in the data, such as
beards and age, is told apart. Several attributes add up.

For a real-valued label both are the direction of steepest increase: of a least-squares fit (vector, scaled to one standard
deviation of the label) or its normalised form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from diled.errors import ConfigError, DataError, did_you_mean

__all__ = [
    "METHODS",
    "Attribute",
    "Direction",
    "Edit",
    "fit_direction",
    "fit_directions",
    "one_each",
    "parse_attribute",
    "together",
]

METHODS = ("vector", "classifier")
"""Ways to fit a direction."""


class Edit(Protocol):
    """A change of codes."""

    def apply(self, codes: np.ndarray, strength: float) -> np.ndarray:
        """Codes (n, d) with the change made so strongly; 0 leaves them as they are."""
        ...


@dataclass(frozen=True)
class Attribute:
    """What is to become true of an example.

    Attributes:
        name: as the user wrote it, `label=3`.
        column: the label column.
        value: the class's index; None for a column of real numbers.
    """

    name: str
    column: str
    value: int | None = None

    def target(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which examples have a label (bool, (N,)), and who has the attribute (bool) or the real numbers, (N,)."""
        if self.value is None:
            return np.isfinite(labels), labels
        return labels >= 0, labels == self.value


@dataclass(frozen=True)
class Direction:
    """A direction in code space and how well it tells the attribute apart on the data it was fitted to."""

    vector: np.ndarray
    attribute: str
    method: str
    score: float
    """Accuracy of the attribute's classifier, or R^2 of a real-valued label, on training codes; of several the least."""

    def apply(self, codes: np.ndarray, strength: float) -> np.ndarray:
        """codes + strength * vector, (n, d)."""
        return codes + np.float32(strength) * self.vector.astype(np.float32)


def parse_attribute(
    attribute: str, columns: Mapping[str, np.ndarray], classes: Mapping[str, Sequence[str]]
) -> Attribute:
    """`label=3` is a class of a column; `age` is a real-valued column as it is.

    Args:
        attribute: what the user wrote.
        columns: label columns, (N,) each.
        classes: names of each column's classes; none for real numbers, and for whole numbers that are their own names.

    Raises:
        ConfigError: no such column or class; the nearest is named.
    """
    column, _, value = attribute.partition("=")
    if column not in columns:
        raise ConfigError(f"There is no label column '{column}'.{did_you_mean(column, columns)}")
    labels, names = columns[column], list(classes.get(column, []))
    if labels.dtype.kind == "f":
        if value:
            raise ConfigError(f"'{column}' holds real numbers: name it without '=', and set the strength.")
        return Attribute(attribute, column)
    options = names or [str(v) for v in np.unique(labels[labels >= 0])]
    if value not in options:
        have = did_you_mean(value, options) if value else f" Write {column}=VALUE with one of: {', '.join(options)}."
        raise ConfigError(f"'{attribute}' names no class of '{column}'.{have}")
    return Attribute(attribute, column, names.index(value) if names else int(value))


def fit_direction(codes: np.ndarray, target: np.ndarray, attribute: str, method: str = "vector") -> Direction:
    """The direction of one attribute by itself.

    Args:
        codes: (N, D) of training examples.
        target: (N,) bool, or float for a real-valued label.
        attribute: its name.
        method: `vector` or `classifier`.

    Raises:
        DataError: all examples have the attribute, or none, or a real-valued label has fewer than two known values.
    """
    if method not in METHODS:
        raise ConfigError(f"method '{method}' is unknown. Known: {', '.join(METHODS)}.")
    from sklearn.linear_model import LogisticRegression, Ridge

    if target.dtype != bool and len(np.unique(target[np.isfinite(target)])) < 2:
        raise DataError(
            f"The training examples have fewer than two different values of '{attribute}': nothing changes with it."
        )
    if not len(target):
        raise DataError(f"No training example has a value of '{attribute.partition('=')[0]}'.")
    scale = codes.std(0) + 1e-8
    standard = (codes - codes.mean(0)) / scale
    if target.dtype == bool:
        if target.all() or not target.any():
            raise DataError(f"{'All' if target.all() else 'None'} of the training examples have '{attribute}'.")
        fit = LogisticRegression(max_iter=300).fit(standard, target)
        weights, score = fit.coef_[0], float(fit.score(standard, target))
        difference = _differences(codes, [(target, 1)])[0]
    else:
        known = np.isfinite(target)
        ridge = Ridge(alpha=1.0).fit(standard[known], target[known])
        weights, score = ridge.coef_, float(ridge.score(standard[known], target[known]))
        slope = weights / scale
        difference = slope * target[known].std() / max(float(slope @ slope), 1e-12)
    unit = np.sqrt(len(weights)) * weights / max(float(np.linalg.norm(weights)), 1e-12)
    return Direction(difference if method == "vector" else unit * scale, attribute, method, score)


def fit_directions(
    codes: np.ndarray, labels: Mapping[str, np.ndarray], attributes: Sequence[Attribute], method: str = "vector"
) -> Direction:
    """The direction of several attributes at once: the sum of one for each.

    A vector is the difference of two means with the classes of the other columns held fixed; examples without a label in one
    of these columns do not count for it. The rest, classifiers and real-valued labels, is fitted one by one.

    Args:
        codes: (N, D) of training examples.
        labels: column -> (N,), with -1 or NaN where there is no label.
        attributes: one at most of each column.
        method: `vector` or `classifier`.

    Raises:
        ConfigError: two attributes of one column, or an unknown method.
        DataError: all examples have an attribute, or none; or two columns always change together.
    """
    one_each(attributes)
    found = []
    for attribute in attributes:
        known, target = attribute.target(labels[attribute.column])
        found.append(fit_direction(codes[known], target[known], attribute.name, method))
    classed = [a for a in attributes if a.value is not None]
    if method == "vector" and len(classed) > 1:
        known = np.all([labels[a.column] >= 0 for a in classed], 0)
        vectors = _differences(codes[known], [(labels[a.column][known], a.value) for a in classed])
        of = dict(zip((a.name for a in classed), vectors, strict=True))
        found = [replace(d, vector=of.get(d.attribute, d.vector)) for d in found]
    return together(found)


def together(directions: Sequence[Direction]) -> Direction:
    """The sum of directions of one method, with the lowest of their scores."""
    names = ", ".join(d.attribute for d in directions)
    vector = np.sum([d.vector for d in directions], 0)
    return Direction(vector, names, directions[0].method, min(d.score for d in directions))


def one_each(attributes: Sequence[Attribute]) -> None:
    """Refuse no attribute at all, and two of one column.

    Raises:
        ConfigError: with the column.
    """
    if not attributes:
        raise ConfigError("No attribute is given: name at least one, as COLUMN=CLASS.")
    columns = [a.column for a in attributes]
    twice = next((c for c in columns if columns.count(c) > 1), None)
    if twice is not None:
        wanted = " and ".join(f"'{a.name}'" for a in attributes if a.column == twice)
        raise ConfigError(f"{wanted} are of one column, and an example has one class of '{twice}': choose one.")


def _differences(codes: np.ndarray, columns: Sequence[tuple[np.ndarray, int | None]]) -> list[np.ndarray]:
    """For each column, labels (N,) and a class, the class's mean code minus that of the others, (D,), by least squares on the
    classes of all columns."""
    values = [np.unique(labels) for labels, _ in columns]
    tables = [(labels[:, None] == v).astype(np.float64) for (labels, _), v in zip(columns, values, strict=True)]
    design = np.hstack(tables)
    effects, _, rank, _ = np.linalg.lstsq(design, codes.astype(np.float64))
    # each further column says once more that an example has some class; whatever else is missing mixes two attributes up
    if rank <= design.shape[1] - len(tables) or any(
        len(v) < 2 or k not in v for (_, k), v in zip(columns, values, strict=True)
    ):
        raise DataError(
            "The training examples do not tell these attributes apart: too few of them have labels in all columns, or the "
            "classes of one column follow from another's. Edit one after the other."
        )
    found, start = [], 0
    for (_, k), v, table in zip(columns, values, tables, strict=True):
        own, effect = v == k, effects[start : start + len(v)]
        others = table.sum(0) * ~own
        found.append(effect[own][0] - others / others.sum() @ effect)
        start += len(v)
    return found
