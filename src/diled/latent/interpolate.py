"""Paths between codes."""

from __future__ import annotations

import numpy as np

from diled.errors import ConfigError

__all__ = ["at", "between"]


def between(a: np.ndarray, b: np.ndarray, steps: int, mode: str = "linear") -> np.ndarray:
    """Codes on the way from a to b (n, d) -> (n, steps, d), both ends included; see `at`."""
    if steps < 2:
        raise ConfigError(f"steps = {steps}: a path has at least its two ends.")
    return np.stack([at(a, b, share, mode) for share in np.linspace(0, 1, steps, dtype=a.dtype)], axis=1)


def at(a: np.ndarray, b: np.ndarray, share: float, mode: str = "linear") -> np.ndarray:
    """Codes at this share of the way from a to b (n, d) -> (n, d).

    `linear`: (1 - s) a + s b. `spherical`: along the great circle (Shoemake 1985), which keeps the norm of codes of
    equal norm; nearly parallel codes fall back to `linear`.
    """
    if mode not in ("linear", "spherical"):
        raise ConfigError(f"mode '{mode}' is unknown. Known: linear, spherical.")
    s = a.dtype.type(share)
    line = (1 - s) * a + s * b
    if mode == "linear":
        return line
    norms = np.linalg.norm(a, axis=-1, keepdims=True) * np.linalg.norm(b, axis=-1, keepdims=True)
    angle = np.arccos(np.clip((a * b).sum(-1, keepdims=True) / np.maximum(norms, 1e-12), -1, 1))
    sine = np.sin(angle)
    with np.errstate(divide="ignore", invalid="ignore"):
        arc = (np.sin((1 - s) * angle) * a + np.sin(s * angle) * b) / sine
    return np.where(np.abs(sine) < 1e-4, line, arc).astype(line.dtype)
