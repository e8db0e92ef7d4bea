"""Sequences of symbols: how their ends are scored, and the distribution of one with independent positions.

A sequence of at most L symbols is a row of L whole numbers; 0 stands for its end and fills the rest of the row. With a
categorical distribution p_i at each position,

    p(x_1 ... x_l) = p_1(x_1) ... p_l(x_l) p_{l+1}(0)        l < L; of a sequence of length L no end is scored

so the first end is scored, what follows costs nothing, and the probabilities of all sequences of length 0 to L add up to
one: a counting measure, whatever their lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diled.api import NoBound, Noise, normal_noise, sum_dims

__all__ = [
    "END",
    "TokenSequence",
    "check_rows",
    "cut",
    "kept_nll",
    "lengths",
    "pick",
    "scored",
    "token_nll",
    "trimmed",
    "wide",
]

END = 0
"""The number that ends a sequence and fills its row."""
IN_CACHE = 2**20
"""Logits that a processor takes at a time."""


def lengths(x: Tensor) -> Tensor:
    """Symbols before the first end, (B,), of rows (B, L)."""
    return (x != END).long().cumprod(1).sum(1)


def scored(x: Tensor) -> Tensor:
    """Which positions count, (B, L) bool: the symbols and the first end."""
    position = torch.arange(x.shape[1], device=x.device)
    return position <= lengths(x)[:, None]


def cut(x: Tensor) -> Tensor:
    """The same rows with ends only after the first end."""
    return x * (x != END).long().cumprod(1).to(x.dtype)


def trimmed(x: Tensor) -> Tensor:
    """The columns of rows (B, L) that any of them needs, its first end included: what follows is ends alone."""
    return x[:, : min(x.shape[1], int(lengths(x).max()) + 1)]


def check_rows(x: Tensor, symbols: int) -> None:
    """Refuse what is no row of symbols with ends only at its end.

    Raises:
        NoBound: such rows have no probability.
    """
    if x.is_floating_point() or bool((x < 0).any()) or bool((x >= symbols).any()):
        raise NoBound(f"These are no rows of whole numbers from 0 to {symbols - 1}, so they have no probability here.")
    if not torch.equal(cut(x), x):
        raise NoBound("A sequence goes on after its end, and so has no probability here.")


def wide(logits: Tensor) -> Tensor:
    """In 32 bits or more."""
    return logits if logits.dtype == torch.float64 else logits.float()


def pick(logits: Tensor, noise: Tensor) -> Tensor:
    """Symbols drawn from logits (..., V) by standard normal noise (...), through its distribution function."""
    edges = wide(logits).softmax(-1).cumsum(-1)[..., :-1]
    return (torch.special.ndtr(noise)[..., None] > edges).sum(-1)


def token_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log p_i(x_i) at each position, (B, L), 0 after the first end.

    Args:
        logits: (B, L, V).
        x: (B, L), whole numbers.
    """
    each = F.cross_entropy(wide(logits).transpose(1, 2), x.long(), reduction="none")
    return torch.where(scored(x), each, torch.zeros_like(each))


def kept_nll(logits: Tensor, x: Tensor, kept: Tensor) -> Tensor:
    """-log p(x_i) at the positions that are kept, (B, L), 0 at the others.

    A processor takes some rows of logits at a time, which then stay in its cache from one operation to the next: of some
    thousand symbols, two thirds of the time.

    Args:
        logits: (N, V), only of the N positions that are kept, row by row.
        x: (B, L), whole numbers.
        kept: (B, L) bool.
    """
    whole = logits.device.type != "cpu" or torch.compiler.is_compiling()
    rows = max(1, len(logits) if whole else IN_CACHE // logits.shape[1])
    parts = zip(logits.split(rows), x[kept].long().split(rows), strict=True)
    each = torch.cat([F.cross_entropy(wide(part), symbols, reduction="none") for part, symbols in parts])
    return each.new_zeros(x.shape).masked_scatter(kept, each)


@dataclass(frozen=True)
class TokenSequence:
    """Independent categorical positions, the sequence cut at its first end.

    Args:
        logits: (B, L, V), of V symbols, the end included.
    """

    logits: Tensor
    measure: ClassVar[str] = "counting"
    discrete: ClassVar[bool] = True

    @property
    def log_p(self) -> Tensor:
        """log p_i, (B, L, V)."""
        return wide(self.logits).log_softmax(2)

    @property
    def mean(self) -> Tensor:
        """Symbols have no mean: the mode, which is what is shown."""
        return self.mode

    @property
    def log_lengths(self) -> Tensor:
        """log p(l) of the lengths 0 to L, (B, L + 1)."""
        end = self.log_p[:, :, END]
        return F.pad(self._reached(), (1, 0)) + F.pad(end, (0, 1))

    @property
    def mode(self) -> Tensor:
        """The most likely sequence of the most likely length, (B, L).

        Of all sequences the likeliest is often the shortest, as it leaves least to chance.
        """
        symbol = self.log_p[:, :, 1:].argmax(2) + 1
        position = torch.arange(symbol.shape[1], device=symbol.device)
        return torch.where(position < self.log_lengths.argmax(1)[:, None], symbol, END)

    def _reached(self) -> Tensor:
        """log P(no end at positions 1 ... i), (B, L)."""
        return torch.log1p(-self.log_p[:, :, END].exp().clamp(max=1 - 1e-7)).cumsum(1)

    def sample(self, noise: Noise | None = None) -> Tensor:
        """A draw, (B, L)."""
        logits = wide(self.logits)
        return cut(pick(logits, (noise or normal_noise(logits))(tuple(logits.shape[:2]))))

    def nll(self, x: Tensor) -> Tensor:
        """-log p(x), shape (B,), of rows (B, L)."""
        return sum_dims(token_nll(self.logits, x))

    def entropy(self) -> Tensor:
        """sum_i P(no end before i) H(p_i), shape (B,)."""
        log_p = self.log_p
        reached = F.pad(self._reached(), (1, 0))[:, :-1].exp()
        return sum_dims(reached * -(log_p.exp() * log_p.clamp(min=-1e30)).sum(2))

    def check(self, x: Tensor) -> None:
        """Refuse what is no row of symbols with ends only at its end."""
        check_rows(x, self.logits.shape[2])
