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

__all__ = ["END", "TokenSequence", "cut", "lengths", "pick", "scored", "token_nll"]

END = 0
"""The number that ends a sequence and fills its row."""


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
    def mode(self) -> Tensor:
        """The most likely sequence, (B, L), over all lengths."""
        log_p = self.log_p
        best, symbol = log_p[:, :, 1:].max(2)
        before = torch.cat([torch.zeros_like(best[:, :1]), best.cumsum(1)], 1)  # of the first l symbols, l = 0 ... L
        length = (before + torch.cat([log_p[:, :, END], torch.zeros_like(best[:, :1])], 1)).argmax(1)
        position = torch.arange(best.shape[1], device=best.device)
        return torch.where(position < length[:, None], symbol + 1, END)

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
        going_on = torch.log1p(-log_p[:, :, END].exp().clamp(max=1 - 1e-7))
        reached = torch.cat([torch.zeros_like(going_on[:, :1]), going_on.cumsum(1)[:, :-1]], 1).exp()
        return sum_dims(reached * -(log_p.exp() * log_p).sum(2))

    def check(self, x: Tensor) -> None:
        """Refuse what is no row of symbols with ends only at its end."""
        size = self.logits.shape[2]
        if x.is_floating_point() or bool((x < 0).any()) or bool((x >= size).any()):
            raise NoBound(f"These are no rows of whole numbers from 0 to {size - 1}, so they have no probability here.")
        if not torch.equal(cut(x), x):
            raise NoBound("A sequence goes on after its end, and so has no probability here.")
