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


@dataclass(frozen=True)
class Constraints:
    """Which rows are allowed.

    Attributes:
        allowed: (L, V) bool, the symbols of each position; the end is among them where sequences may end there. An end before
            a position that must have a residue is taken out, and with a parent rows are as long as it.
        parent: (L,), or None.
        most: changes from the parent; None: any number.
        last: the symbol that every row ends with and has nowhere else, such as a stop; None: any. It has no meaning with a
            parent.

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
            return self._ended(_AsTheyAre(log_p).mode)
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

    def _ended(self, x: Tensor) -> Tensor:
        """Rows (B, L) cut after the first `last`; where there is none, the last symbol becomes it."""
        if self.last is None:
            return x
        before = ((x == self.last).long().cumsum(1) - (x == self.last).long()) == 0
        x = torch.where(before, x, END)
        end = (x != END).sum(1, keepdim=True) - 1
        return x.scatter(1, end.clamp(min=0), self.last)

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
