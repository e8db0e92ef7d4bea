"""Batches whose content is a pure function of (seed, step), so that training resumes exactly where it was."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diled.draws import seed_from

__all__ = ["Batches"]


class Batches:
    """An endless iterable of training batches: epoch after epoch, each in an order of its own.

    Args:
        values: all examples, (N, ...).
        batch_size: per rank.
        seed: with the epoch's number it determines the order.
        rank, ranks: this process takes every `ranks`-th batch.
        start: micro-steps to skip.

    A batch that would run past the end of an epoch goes on with the next epoch's order, so every batch is full.
    """

    def __init__(
        self, values: Tensor, batch_size: int, *, seed: int, rank: int = 0, ranks: int = 1, start: int = 0
    ) -> None:
        self.values, self.batch_size, self.seed = values, batch_size, seed
        self.rank, self.ranks, self.start = rank, ranks, start
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def indices(self, step: int) -> Tensor:
        """The examples of one micro-step of this rank."""
        first = (step * self.ranks + self.rank) * self.batch_size
        parts, left = [], self.batch_size
        while left:
            epoch, at = divmod(first, len(self.values))
            part = self.order(epoch)[at : at + left]
            parts.append(part)
            first, left = first + len(part), left - len(part)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def order(self, epoch: int) -> Tensor:
        """The permutation of an epoch."""
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_from(self.seed, epoch))
            self._epoch, self._order = epoch, torch.randperm(len(self.values), generator=generator)
        return self._order

    def __iter__(self) -> Iterator[Tensor]:
        """From `start` on, without end."""
        step = self.start
        while True:
            yield self.values[self.indices(step)]
            step += 1
