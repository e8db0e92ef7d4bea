"""How many rows go through a network at once: as many as usual, and of a large network as many as fit into memory.

with a gradient      a row takes all that autograd keeps of it, from what the network reads on
without              it takes a few tensors of the largest size among these
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from diled.draws import seeded
from diled.errors import DiledError
from diled.models.sampling import BATCH

__all__ = ["MEMORY", "batch_size", "batches", "rows_of_decoder", "rows_of_encoder", "rows_that_fit"]

MEMORY = 8 * 2**30
"""Bytes that the rows of a batch may take: what a laptop or a small GPU has beside weights and examples."""
ALIVE = 4
"""Tensors of the largest size that are there at once without a gradient: what a layer reads and writes, and what skips it."""


def rows_that_fit(function: Callable[[Tensor], Any], x: Tensor, most: int, *, gradient: bool) -> int:
    """How many rows, at most `most`: all of them where the function is refused, which says so when it is needed.

    Args:
        function: of (n, ...); what it returns is not looked at.
        x: at least one row of it, floating-point numbers.
        most: rows that are wanted.
        gradient: with respect to what the function reads.
    """
    try:
        two, three = (_kept(function, x[:1].repeat(n, *[1] * (x.ndim - 1))) for n in (2, 3))
    except DiledError:
        return most
    largest = max((b - a for a, b in zip(two, three, strict=False)), default=0)
    row = sum(three) - sum(two) if gradient else ALIVE * largest  # weights are in both
    return most if row <= 0 else max(1, min(most, MEMORY // row))


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


def _kept(function: Callable[[Tensor], Any], x: Tensor) -> list[int]:
    """Bytes of each tensor that autograd keeps."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with torch.enable_grad(), seeded(0), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        graph = function(x.detach().requires_grad_())
    del graph  # not earlier: what is freed may be taken for what comes next
    return list(kept.values())
