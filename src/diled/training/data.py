"""Training examples whose content is a pure function of (seed, step), so that training resumes exactly where it was.

Example number i = 0, 1, 2, ... of a training comes from a source. Of N stored examples it is number i mod N of epoch
floor(i / N), each epoch in an order of its own. Of a mixture with the share s of real ones it is real exactly where

    floor((i + 1) s) > floor(i s),

and then it is number floor(i s) of the real examples' own epochs, else number i - floor(i s) of the other source.

Sequences whose lengths differ much come in batches of nearly equal length: the random order of an epoch is cut into windows
of WINDOW batches, each is sorted by length and cut into batches, and these are put in a random order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from diled.api import Batch
from diled.draws import seed_from
from diled.space import raw_tensor

__all__ = ["Batches", "Fresh", "Mixed", "Shuffled", "Source", "source_of", "steps_for"]


def steps_for(epochs: float, examples: int, batch: int) -> int:
    """ceil(epochs x examples / batch): the steps in which `epochs` times as many examples are seen as there are."""
    return max(1, math.ceil(Fraction(str(epochs)) * examples / batch))


class Source(Protocol):
    """Where the examples of a training come from."""

    nbytes: int
    """Memory that the stored examples take."""

    def __len__(self) -> int:
        """How many different examples there are; 0 where they are drawn anew."""
        ...

    def take(self, first: int, n: int, seed: int) -> Tensor:
        """Raw examples number `first` to `first + n - 1` of a training, (n, *shape)."""
        ...

    def some(self, n: int) -> Tensor:
        """About n raw examples (at most as many as there are), by torch's generator: to fit statistics to."""
        ...

    def all(self) -> Iterator[Tensor]:
        """All raw examples in batches, each once; of those that are drawn anew a few, by torch's generator."""
        ...


ROWS = 1000
"""Examples in a batch of all of them."""
WINDOW = 50
"""Batches within which sequences are sorted by length."""


def bucketed(order: Tensor, sizes: Tensor, batch: int, head: int, generator: torch.Generator) -> Tensor:
    """An order (N,) of examples in which batches have examples of nearly equal size.

    Args:
        order: a random one.
        sizes: of all examples, (N,).
        batch: examples in each batch.
        head: how many come before the first whole batch, since the last batch of the epoch before is filled up with them.
        generator: of the order of batches.
    """
    parts = [order[:head]]
    for window in order[head:].split(WINDOW * batch):
        batches = window[sizes[window].argsort(stable=True)].split(batch)
        whole = len(batches) - (len(batches[-1]) < batch)
        parts += [batches[i] for i in torch.randperm(whole, generator=generator).tolist()]
        parts += batches[whole:]
    return torch.cat(parts)


class Shuffled:
    """Stored examples, epoch after epoch, each in an order of its own.

    Args:
        values: all examples, (N, ...).
        labels: column -> (N,), what models that predict properties learn from.
        batch: of sequences (N, L), the size of batches that are to have nearly equal lengths; None: any order.
    """

    def __init__(
        self, values: Tensor, labels: Mapping[str, Tensor] = MappingProxyType({}), *, batch: int | None = None
    ) -> None:
        self.values, self.labels, self.nbytes = values, labels, values.numel() * values.element_size()
        self.batch, self.sizes = batch, None if batch is None else (values != 0).sum(1)
        self._key, self._order = (0, -1), torch.empty(0, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, first: int, n: int, seed: int) -> Tensor:
        """A batch that would run past the end of an epoch goes on with the next epoch's order."""
        return self.values[self.rows(first, n, seed)]

    def labels_of(self, first: int, n: int, seed: int) -> dict[str, Tensor]:
        """The labels of the same examples, column -> (n,)."""
        rows = self.rows(first, n, seed) if self.labels else torch.empty(0)
        return {column: values[rows] for column, values in self.labels.items()}

    def rows(self, first: int, n: int, seed: int) -> Tensor:
        """Where they are stored."""
        parts = [torch.empty(0, dtype=torch.long)]
        while n:
            epoch, at = divmod(first, len(self.values))
            parts.append(self.order(epoch, seed)[at : at + n])
            first, n = first + len(parts[-1]), n - len(parts[-1])
        return torch.cat(parts)

    def order(self, epoch: int, seed: int) -> Tensor:
        """The permutation of an epoch."""
        if self._key != (seed, epoch):
            generator = torch.Generator().manual_seed(seed_from(seed, epoch))
            order = torch.randperm(len(self.values), generator=generator)
            if self.batch is not None and self.sizes is not None:
                head = min(-epoch * len(order) % self.batch, len(order))
                order = bucketed(order, self.sizes, self.batch, head, generator)
            self._key, self._order = (seed, epoch), order
        return self._order

    def some(self, n: int) -> Tensor:
        """n of them, without repetition."""
        return self.values[torch.randperm(len(self.values))[:n]]

    def all(self) -> Iterator[Tensor]:
        """In the order in which they are stored."""
        return iter(self.values.split(ROWS))


class Mixed:
    """Real examples among synthetic ones, at a share that every batch keeps to within one example.

    Args:
        real: the real examples.
        synthetic: the others.
        share: s, of the real ones, in (0, 1); taken as the fraction that it is written as.
    """

    def __init__(self, real: Shuffled, synthetic: Source, share: float) -> None:
        self.real, self.synthetic = real, synthetic
        self.share = Fraction(str(share)).limit_denominator(1_000_000)
        self.nbytes = real.nbytes + synthetic.nbytes

    def __len__(self) -> int:
        return len(self.real) + len(self.synthetic)

    def is_real(self, first: int, n: int) -> Tensor:
        """Which of these examples are real, (n,): those at which floor(i s) rises."""
        i = torch.arange(first, first + n + 1)
        return (i * self.share.numerator // self.share.denominator).diff() > 0

    def take(self, first: int, n: int, seed: int) -> Tensor:
        """Each of the two goes through its own examples in its own order."""
        mask, before = self.is_real(first, n), first * self.share.numerator // self.share.denominator
        count = int(mask.sum())
        real = self.real.take(before, count, seed_from(seed, 1))
        if isinstance(self.synthetic, Fresh):  # draws whole batches, of which the rows that are real go unused
            other = self.synthetic.take(first, n, seed)[~mask]
        else:
            other = self.synthetic.take(first - before, n - count, seed_from(seed, 2))
        out = torch.empty((n, *real.shape[1:]), dtype=torch.promote_types(real.dtype, other.dtype))
        out[mask], out[~mask] = real.to(out), other.to(out)
        return out

    def some(self, n: int) -> Tensor:
        """Of both, at that share."""
        count = round(n * self.share)
        real = self.real.some(count)
        return torch.cat([real, self.synthetic.some(n - count)])

    def all(self) -> Iterator[Tensor]:
        """As many as there are at that share."""
        drawn = len(self.synthetic) or Fresh.FEW
        return iter(self.some(math.floor(min(len(self.real) / self.share, drawn / (1 - self.share)))).split(ROWS))


class Fresh:
    """Examples that a model draws while another one trains; none is seen twice.

    Args:
        draw: (step, rank, ranks) -> the raw values of one batch, a function of these numbers alone.
        batch: examples in each.
    """

    FEW = 2_000
    """Drawn ones take time: so many are enough to fit statistics to."""

    def __init__(self, draw: Callable[[int, int, int], Any], batch: int) -> None:
        self.draw, self.batch, self.nbytes = draw, batch, 0

    def __len__(self) -> int:
        return 0

    def take(self, first: int, n: int, seed: int) -> Tensor:
        """The batch that begins with example `first`, a multiple of its size."""
        number, rest = divmod(first, self.batch)
        assert n == self.batch, "batches are drawn whole"
        assert rest == 0, "batches are drawn whole"
        values = self.draw(number, 0, 1)
        return values if isinstance(values, Tensor) else raw_tensor(values)

    def some(self, n: int) -> Tensor:
        """The first ones of the training."""
        batches = -(-min(n, self.FEW) // self.batch)
        return torch.cat([self.take(k * self.batch, self.batch, 0) for k in range(batches)])[:n]

    def all(self) -> Iterator[Tensor]:
        """The first ones of the training."""
        return iter(self.some(self.FEW).split(ROWS))


def source_of(values: Tensor | Source) -> Source:
    """A tensor (N, ...) as a source; a source as it is."""
    return Shuffled(values) if isinstance(values, Tensor) else values


class Batches:
    """An endless iterable of training batches, all of the same size.

    Args:
        values: all examples, (N, ...), or where they come from.
        batch_size: per rank.
        seed: of all orders.
        rank, ranks: this process takes every `ranks`-th batch.
        start: micro-steps to skip.
    """

    def __init__(
        self, values: Tensor | Source, batch_size: int, *, seed: int, rank: int = 0, ranks: int = 1, start: int = 0
    ) -> None:
        self.source, self.batch_size, self.seed = source_of(values), batch_size, seed
        self.rank, self.ranks, self.start = rank, ranks, start

    def batch(self, step: int) -> Tensor:
        """The raw examples of one micro-step of this rank."""
        return self.source.take(self._first(step), self.batch_size, self.seed)

    def labels(self, step: int) -> dict[str, Tensor]:
        """Their labels, where there are any."""
        if not isinstance(self.source, Shuffled):
            return {}
        return self.source.labels_of(self._first(step), self.batch_size, self.seed)

    def _first(self, step: int) -> int:
        return (step * self.ranks + self.rank) * self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        """From `start` on, without end."""
        step = self.start
        while True:
            yield Batch(self.batch(step), self.labels(step))
            step += 1
