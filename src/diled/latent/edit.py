"""Editing by attributes: a direction in the latent space, fitted to codes and labels of training data only.

    vector       v = mean(codes with) - mean(codes without)                    (Larsen et al. 2016); strength 1 moves one mean
                 onto the other
    classifier   v = sqrt(D) w / |w| on standardised codes, w of a logistic regression (Preechakul et al. 2022, section 5);
                 a strength of 0.1 to 0.3 is a visible change

For a real-valued label both are the direction of steepest increase: of a least-squares fit (vector, scaled to one standard
deviation of the label) or its normalised form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diled.errors import ConfigError, DataError, did_you_mean

__all__ = ["Direction", "fit_direction", "parse_attribute"]


@dataclass(frozen=True)
class Direction:
    """A direction in code space and how well it tells the attribute apart on the data it was fitted to."""

    vector: np.ndarray
    attribute: str
    method: str
    score: float
    """Accuracy of the attribute's classifier, or R^2 of a real-valued label, on training codes."""

    def apply(self, codes: np.ndarray, strength: float) -> np.ndarray:
        """codes + strength * vector, (n, d)."""
        return codes + np.float32(strength) * self.vector.astype(np.float32)


def parse_attribute(
    attribute: str, columns: dict[str, np.ndarray], classes: dict[str, list[str]]
) -> tuple[str, np.ndarray]:
    """`label=3` -> the column and who has the attribute (bool, (N,)); `age` -> a real-valued column as it is.

    Raises:
        ConfigError: no such column or class; the nearest is named.
    """
    column, _, value = attribute.partition("=")
    if column not in columns:
        raise ConfigError(f"There is no label column '{column}'.{did_you_mean(column, columns)}")
    labels, names = columns[column], classes.get(column, [])
    if labels.dtype.kind == "f":
        if value:
            raise ConfigError(f"'{column}' holds real numbers: name it without '=', and set the strength.")
        return column, labels
    options = names or [str(v) for v in np.unique(labels)]
    if value not in options:
        have = did_you_mean(value, options) if value else f" Write {column}=VALUE with one of: {', '.join(options)}."
        raise ConfigError(f"'{attribute}' names no class of '{column}'.{have}")
    return column, labels == (names.index(value) if names else int(value))


def fit_direction(codes: np.ndarray, target: np.ndarray, attribute: str, method: str = "vector") -> Direction:
    """The direction of an attribute.

    Args:
        codes: (N, D) of training examples.
        target: (N,) bool, or float for a real-valued label.
        attribute: its name.
        method: `vector` or `classifier`.

    Raises:
        DataError: all examples have the attribute, or none.
    """
    if method not in ("vector", "classifier"):
        raise ConfigError(f"method '{method}' is unknown. Known: vector, classifier.")
    from sklearn.linear_model import LogisticRegression, Ridge

    scale = codes.std(0) + 1e-8
    standard = (codes - codes.mean(0)) / scale
    if target.dtype == bool:
        if target.all() or not target.any():
            raise DataError(f"{'All' if target.all() else 'None'} of the training examples have '{attribute}'.")
        fit = LogisticRegression(max_iter=300).fit(standard, target)
        weights, score = fit.coef_[0], float(fit.score(standard, target))
        difference = codes[target].mean(0) - codes[~target].mean(0)
    else:
        known = np.isfinite(target)
        ridge = Ridge(alpha=1.0).fit(standard[known], target[known])
        weights, score = ridge.coef_, float(ridge.score(standard[known], target[known]))
        slope = weights / scale
        difference = slope * target[known].std() / max(float(slope @ slope), 1e-12)
    unit = np.sqrt(len(weights)) * weights / max(float(np.linalg.norm(weights)), 1e-12)
    return Direction(difference if method == "vector" else unit * scale, attribute, method, score)
