"""What a designed sequence may be: allowed symbols at each position, and how far from a parent.

    allowed rows    every symbol is allowed at its position, all is filling after the first end, at most m positions differ
                    from the parent, and a row ends as it must
    decode          of the allowed rows of their likeliest length the likeliest, under p(x | z) with independent positions

Of rows with a parent the best changes the m positions where log p_i(best) - log p_i(parent) is largest, and only where it is
positive. A parent's symbol that is not allowed must go first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diled.errors import ConfigError
from diled.sequences import END, TokenSequence, cut

__all__ = ["Constraints", "chosen"]


def chosen(allowed: Tensor, uniform: Tensor) -> Tensor:
    """Symbols (..., L) drawn evenly among the allowed ones (L, V), by numbers in [0, 1) of shape (..., L)."""
    count = allowed.sum(1)
    rank = (uniform * count).long().minimum(count - 1)  # which of the allowed ones
    return (allowed.cumsum(1) <= rank[..., None]).sum(-1)


class _AsTheyAre(TokenSequence):
    """Log probabilities that need not add up to one: those of symbols that are not allowed are missing."""

    @property
    def log_p(self) -> Tensor:
        """log p_i, (B, L, V)."""
        return self.logits

    def _reached(self) -> Tensor:
        """log P(an allowed symbol, and no end, at positions 1 ... i), (B, L)."""
        return self.logits[:, :, END + 1 :].logsumexp(2).cumsum(1)


def _ending(allowed: Tensor, last: int) -> Tensor:
    """Of the symbols of each position (L, V) those of rows that end with `last` and have it nowhere else.

    Raises:
        ConfigError: there are no such rows.
    """
    place = torch.arange(len(allowed), device=allowed.device)
    within, may_end = allowed.clone(), F.pad(allowed[1:, END], (0, 1), value=True)
    within[:, [END, last]] = False
    filled = F.pad(within.any(1), (1, 0), value=True)[:-1].long().cumprod(0).bool()  # before this position
    ends = allowed[:, last] & may_end & filled
    if not ends.any():
        raise ConfigError(
            "No sequence meets these constraints: the symbol that each must end with, such as a stop, is allowed at no "
            "position where one may end."
        )
    shortest, longest = place[ends].min(), place[ends].max()
    within[place >= longest] = False
    within[:, last], within[:, END] = ends, place > shortest
    return within


@dataclass(frozen=True)
class Constraints:
    """Which rows are allowed.

    Attributes:
        allowed: (L, V) bool, the symbols of each position; the end is among them where sequences may end there. An end before
            a position that must have a residue is taken out, and with a parent rows are as long as it.
        parent: (L,), or None.
        most: changes from the parent; None: any number.
        last: the symbol that every row ends with and has nowhere else, such as a stop; None: any. It has no meaning with a
            parent. What stands in no row that ends so is taken out of `allowed`.

    Raises:
        ConfigError: no row meets them.
    """

    allowed: Tensor
    parent: Tensor | None = None
    most: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        allowed = self.allowed.clone()
        if self.parent is not None:  # changes are substitutions
            inside = self.parent != END
            allowed[inside, END] = False
            allowed[~inside] = torch.arange(allowed.shape[1], device=allowed.device) == END
        allowed[:, END] = allowed[:, END].flip(0).long().cumprod(0).flip(0).bool()
        object.__setattr__(self, "allowed", allowed)
        empty = (~allowed.any(1)).nonzero().flatten().tolist()
        if empty:
            raise ConfigError(
                f"No sequence meets these constraints: nothing is allowed at position {empty[0] + 1} of a row."
            )
        if self.last is not None and self.parent is None:
            object.__setattr__(self, "allowed", _ending(allowed, self.last))
        if self.most is not None and self.most < int(self.forced.sum()):
            raise ConfigError(
                f"No sequence meets these constraints: {int(self.forced.sum())} residues of the parent are not allowed, and at "
                f"most {self.most} may change."
            )

    @property
    def forced(self) -> Tensor:
        """Where the parent's own symbol is not allowed, (L,) bool."""
        if self.parent is None:
            return torch.zeros_like(self.allowed[:, 0])
        return ~self.allowed.gather(1, self.parent.long()[:, None])[:, 0]

    def decode(self, logits: Tensor) -> Tensor:
        """The most likely allowed rows of their most likely length under logits (B, L, V), (B, L)."""
        log_p = logits.float().log_softmax(2).masked_fill(~self.allowed, float("-inf"))
        if self.parent is None:
            return _AsTheyAre(log_p).mode if self.last is None else self._closed(log_p)
        best, symbol = log_p.max(2)
        gain = best - log_p.gather(2, self.parent.expand(len(log_p), -1)[..., None])[..., 0]
        return torch.where(self._kept(gain > 0, -gain), symbol, self.parent)

    def repair(self, x: Tensor, uniform: Tensor) -> Tensor:
        """Rows (B, L) made allowed: symbols that are not become the parent's, or a random allowed one; of too many changes
        those with the largest `uniform` (B, L) numbers are taken back."""
        fine = self.allowed.expand(len(x), -1, -1).gather(2, x[..., None])[..., 0]
        other = chosen(self.allowed, uniform)
        if self.parent is None:
            return self._ended(cut(torch.where(fine, x, other)))
        x = torch.where(fine, x, torch.where(self.forced, other, self.parent))
        return torch.where(self._kept(x != self.parent, uniform), x, self.parent)

    def _closed(self, log_p: Tensor) -> Tensor:
        """The likeliest rows (B, L) of their likeliest length that end with `last`, under log p_i (B, L, V)."""
        assert self.last is not None
        within = log_p.clone()
        within[:, :, [END, self.last]] = float("-inf")
        before = F.pad(_AsTheyAre(within)._reached(), (1, 0))[:, :-1]
        ends = (before + log_p[:, :, self.last] + F.pad(log_p[:, 1:, END], (0, 1))).argmax(1)
        return self._ended(within.argmax(2).scatter(1, ends[:, None], self.last))

    def _ended(self, x: Tensor) -> Tensor:
        """Rows (B, L) of allowed symbols cut after the first `last`. Where an end comes first, the last symbol before it that
        may be `last` becomes it."""
        if self.last is None:
            return x
        place = torch.arange(x.shape[1], device=x.device)
        final = torch.where(self.allowed[:, self.last], place, -1).cummax(0).values  # where rows up to here may end
        first = ((x == END) | (x == self.last)).int().argmax(1, keepdim=True)
        size = final[first - (x.gather(1, first) == END).long()]
        return torch.where(place < size, x, torch.where(place == size, self.last, END))

    def free(self, order: Tensor) -> Tensor:
        """Positions with a choice, (B, L) bool; at most as many as may change, those with the least `order` (B, L)."""
        return self._kept((self.allowed.sum(1) > 1).expand_as(order) | self.forced, order)

    def _kept(self, changes: Tensor, order: Tensor) -> Tensor:
        """Of changed positions (B, L) as many as may change: forced ones first, then those with the least `order`."""
        if self.most is None:
            return changes
        order = order.masked_fill(self.forced, float("-inf")).masked_fill(~changes, float("inf"))
        return changes & (order.argsort(1).argsort(1) < self.most)

    def broken(self, x: Tensor) -> Tensor:
        """Which rows (B, L) are not allowed, (B,) bool."""
        bad = ~self.allowed.expand(len(x), -1, -1).gather(2, x[..., None])[..., 0].all(1) | (cut(x) != x).any(1)
        if self.parent is not None and self.most is not None:
            bad = bad | ((x != self.parent).sum(1) > self.most)
        return bad if self.last is None or self.parent is not None else bad | (self._ended(x) != x).any(1)

    @classmethod
    def of_residues(cls, length: int, symbols: int, *, residues: list[int], ends: bool) -> Constraints:
        """No parent, the same residues everywhere, and ends where sequences may be shorter (never at the first position)."""
        allowed = torch.zeros(length, symbols, dtype=torch.bool)
        allowed[:, residues] = True
        allowed[1:, END] = ends
        return cls(allowed)
