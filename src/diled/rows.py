"""How many rows go through a network at once: as many as usual, and of a large network as many as fit into memory.

with a gradient      a row takes all that autograd keeps of it, from what the network reads on
without              it takes a few tensors of the largest size among these
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diled.draws import seeded
from diled.errors import DiledError

__all__ = ["MEMORY", "rows_beside_training", "rows_that_fit"]

MEMORY = 8 * 2**30
"""Bytes that the rows of a batch may take: what a laptop or a small GPU has beside weights and examples."""
ALIVE = 4
"""Tensors of the largest size that are there at once without a gradient: what a layer reads and writes, and what skips it."""
BESIDE = (2**30, 4 * 2**30)
"""Bytes of numbers and of symbols that rows may take beside a training. Likelihoods of numbers take up to three times what is
counted, so that 1 GiB comes to about what a step with 32 images keeps; of symbols the count is right."""


def rows_that_fit(
    function: Callable[[Tensor], Any], x: Tensor, most: int, *, gradient: bool, memory: int | None = None
) -> int:
    """How many rows, at most `most`: all of them where the function is refused, which says so when it is needed.

    Args:
        function: of (n, ...); what it returns is not looked at.
        x: at least one row of it; of symbols what the weights' gradients need is counted.
        most: rows that are wanted.
        gradient: with respect to what the function reads.
        memory: bytes that they may take; None: `MEMORY`.
    """
    try:
        two, three = (_kept(function, x[:1].repeat(n, *[1] * (x.ndim - 1))) for n in (2, 3))
    except DiledError:
        return most
    largest = max((b - a for a, b in zip(two, three, strict=False)), default=0)
    row = sum(three) - sum(two) if gradient else ALIVE * largest  # weights are in both
    return most if row <= 0 else max(1, min(most, (MEMORY if memory is None else memory) // row))


def rows_beside_training(function: Callable[[Tensor], Any], x: Tensor, most: int) -> int:
    """How many rows, at most `most`, go through a network without a gradient where it trains, and has to fit as well.

    Args:
        function: of (n, ...), as for `rows_that_fit`.
        x: at least one row of it.
        most: rows that are wanted.
    """
    return rows_that_fit(function, x, most, gradient=False, memory=BESIDE[not x.is_floating_point()])


def _kept(function: Callable[[Tensor], Any], x: Tensor) -> list[int]:
    """Bytes of each tensor that autograd keeps."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with torch.enable_grad(), seeded(0), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        graph = function(x.detach().requires_grad_(x.is_floating_point()))
    del graph  # not earlier: what is freed may be taken for what comes next
    return list(kept.values())
