"""Nearest neighbours among codes."""

from __future__ import annotations

import numpy as np

from diled.errors import ConfigError

__all__ = ["nearest"]


def nearest(
    codes: np.ndarray, queries: np.ndarray, k: int = 8, *, metric: str = "euclidean"
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and distances (q, k) of the k codes (N, D) nearest to each query (q, D), the nearest first.

    `euclidean` standardises each dimension by the codes' standard deviation, so that no dimension rules by its unit;
    `cosine` is one minus the cosine of the angle.
    """
    if metric not in ("euclidean", "cosine"):
        raise ConfigError(f"metric '{metric}' is unknown. Known: euclidean, cosine.")
    if k < 1:
        raise ConfigError(f"k = {k}: ask for at least one neighbour.")
    from sklearn.neighbors import NearestNeighbors

    scale = codes.std(0) + 1e-8 if metric == "euclidean" else np.ones(codes.shape[1])
    index = NearestNeighbors(n_neighbors=min(k, len(codes)), metric=metric).fit(codes / scale)
    distance, found = index.kneighbors(queries / scale)
    return found, distance
