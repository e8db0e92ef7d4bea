"""How many rows go at once through the parts of a model that is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from diled.draws import seeded
from diled.models.sampling import BATCH
from diled.rows import rows_that_fit

__all__ = ["batch_size", "batches", "rows_of_decoder", "rows_of_encoder", "rows_that_fit"]


def rows_of_encoder(model: Any, x: Tensor, most: int) -> int:
    """How many of x (N, *shape), at most `most`, the model's encoder takes at once with a gradient."""
    return rows_that_fit(model.encoder, x, most, gradient=True)


def rows_of_decoder(model: Any, x: Tensor, most: int) -> int:
    """How many codes, at most `most`, the model's decoder takes at once with the gradient of -log p(x | z)."""
    if not hasattr(model, "decoder"):
        return most
    with torch.no_grad(), seeded(0):
        z = model.encoder(x[:1]).mean
    return rows_that_fit(lambda z: model.decoder(z).nll(x[:1].expand(len(z), *x.shape[1:])), z, most, gradient=True)


def batch_size(model: Any, x: Tensor, most: int = BATCH) -> int:
    """How many of x (N, *shape), at most `most`, go through the model's encoder and decoder at once without a gradient."""
    if not x.is_floating_point() or not len(x):
        return most

    def function(x: Tensor) -> Any:
        q = model.encoder(x)
        return model.decoder(q.mean).mean if hasattr(model, "decoder") else q

    return rows_that_fit(function, x[:1].to(_device(model, x)), most, gradient=False)


def batches(model: Any, x: Tensor, size: int | None = None) -> Iterator[Tensor]:
    """x in batches of `size`, or of as many as `batch_size` says, on the model's device."""
    device = _device(model, x)
    return (part.to(device) for part in x.split(batch_size(model, x) if size is None else size))


def _device(model: Any, x: Tensor) -> torch.device:
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return x.device if tensor is None else tensor.device
