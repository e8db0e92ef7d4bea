"""Raw data and model space: the one place where grey values become [-1, 1] tensors and back.

    x = 2 (v - low) / (high - low) - 1          sequences of symbols stay whole numbers

A density in model space is per unit of x; per unit of v it is larger by the factor 2 / (high - low) for each dimension.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from diled.config import DataSpec

__all__ = ["log_unit", "raw_tensor", "to_space"]


def raw_tensor(values: np.ndarray) -> Tensor:
    """Raw values as a tensor that torch can index: uint8, int32 and float32 as they are, uint16 as int32."""
    if values.dtype == np.uint16:
        values = values.astype(np.int32)
    if not values.flags.writeable:
        values = values.copy()  # torch warns of memory that it must not write to
    return torch.from_numpy(np.ascontiguousarray(values))


def to_space(raw: Tensor, spec: DataSpec, *, draw: bool = True) -> Tensor:
    """Raw values (B, *shape) -> float32 in [-1, 1]; binarised ones in {-1, 1}; symbols as whole numbers.

    Args:
        raw: as found in the data.
        spec: of the data.
        draw: for `dynamic` binarisation, draw each pixel anew from torch's generator; otherwise cut at one half.
    """
    if spec.sequential:
        return raw.long()
    unit = (raw.to(torch.float32) - spec.low) / (spec.high - spec.low)
    if spec.binarize == "none":
        return 2 * unit - 1
    threshold = torch.rand_like(unit) if spec.binarize == "dynamic" and draw else torch.full_like(unit, 0.5)
    return torch.where(unit > threshold, 1.0, -1.0)


def log_unit(spec: DataSpec) -> float:
    """What to add to a bound on a density in model space, in nats, to refer it to the data's own unit; 0 on a grid."""
    if spec.levels is not None:
        return 0.0
    return spec.numel * math.log((spec.high - spec.low) / 2)
