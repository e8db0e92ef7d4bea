"""Networks for sequences of symbols (B, L): MLPs on one-hot positions, and transformers.

    MLP            one-hot (B, L V) -> hidden layers -> (B, out), and back to logits (B, L, V)
    Transformer    symbol + position -> pre-norm blocks of attention and MLP -> attention-pooled -> (B, out), and back

An encoder also takes probabilities (B, L, V) in place of symbols, so that a gradient with respect to each symbol exists.

References: Vaswani et al. 2017 (arXiv 1706.03762); Xiong et al. 2020 (arXiv 2002.04745), where to normalise.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diled.nn.blocks import dropping, zero_init
from diled.nn.image import MLPEncoder
from diled.sequences import trimmed

__all__ = [
    "Block",
    "Embedding",
    "MaskedTransformer",
    "SequenceMLPEncoder",
    "TransformerDecoder",
    "TransformerEncoder",
    "attention",
    "one_hot",
]


def one_hot(x: Tensor, symbols: int) -> Tensor:
    """Symbols (B, L) as (B, L, V) in floating point; probabilities (B, L, V) as they are."""
    return x if x.ndim == 3 else F.one_hot(x.long(), symbols).float()


def present(x: Tensor) -> Tensor:
    """Which positions a network may look at, (B, L): the symbols and the first end. Of probabilities: as of the likeliest."""
    symbol = x if x.ndim == 2 else x.detach().argmax(2)
    before = (symbol != 0).long().cumprod(1)
    return F.pad(before, (1, 0), value=1)[:, :-1].bool()


class SequenceMLPEncoder(nn.Module):
    """x (B, L) -> (B, out): an MLP on the one-hot row. (An MLP decoder gives logits (B, L, V) as it is.)

    Args:
        length: L.
        symbols: V, the end included.
        out: size of the result.
        dials: width, depth, activation and dropout of `MLPEncoder`.
    """

    def __init__(self, length: int, symbols: int, out: int, **dials: Any) -> None:
        super().__init__()
        self.symbols, self.net = symbols, MLPEncoder((length, symbols), out, **dials)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L) or (B, L, V) -> (B, out)."""
        return self.net(one_hot(x, self.symbols))


class Embedding(nn.Module):
    """Symbols (B, L) or probabilities (B, L, V) -> (B, L, width), with a learned vector for each position.

    Args:
        length: L.
        symbols: V.
        width: of the vectors.
    """

    def __init__(self, length: int, symbols: int, width: int) -> None:
        super().__init__()
        self.symbol = nn.Parameter(torch.randn(symbols, width) * 0.5)
        self.position = nn.Parameter(torch.randn(length, width) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Of the first positions, as many as x has."""
        symbol = self.symbol[x.long()] if x.ndim == 2 else x @ self.symbol
        return symbol + self.position[: x.shape[1]]


def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Scaled dot-product attention of (B, heads, L, C), in single precision on a processor.

    There the backward pass in half precision takes several times as long, since PyTorch has no fused kernel of it.
    """
    dtype = q.dtype
    if q.device.type == "cpu" and dtype != torch.float64:
        q, k, v = q.float(), k.float(), v.float()
    with torch.autocast(q.device.type, enabled=False):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal).to(dtype)


class Block(nn.Module):
    """Pre-norm attention and MLP, h + A(norm h) and h + F(norm h); both start silent.

    Args:
        width: of the vectors.
        heads: of the attention, a divisor of the width.
        dropout: share of the MLP's hidden values that is dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out = zero_init(nn.Linear(width, width))
        self.net = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            dropping(nn.GELU(), dropout),
            zero_init(nn.Linear(4 * width, width)),
        )

    def forward(
        self, h: Tensor, mask: Tensor | None = None, *, causal: bool = False, memory: Tensor | None = None
    ) -> Tensor:
        """h (B, L, width) as the same.

        Args:
            h: vectors of each position.
            mask: which positions may be looked at, (B, L); None: all.
            causal: each position looks at itself and those before it alone.
            memory: with `causal`, keys and values (B, M, 2 width) that every position looks at as well.
        """
        q, k, v = (self._split(part) for part in self.qkv(self.norm(h)).chunk(3, dim=2))
        seen = None if mask is None else mask[:, None, None, :]
        if memory is not None:
            before = [self._split(part) for part in memory.chunk(2, dim=2)]
            k, v = torch.cat([before[0].to(k.dtype), k], 2), torch.cat([before[1].to(v.dtype), v], 2)
            size = (h.shape[1], k.shape[2])
            seen = torch.ones(size, dtype=torch.bool, device=h.device).tril(memory.shape[1])
        mixed = attention(q, k, v, seen, causal=causal and memory is None)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + self.net(h)

    def step(self, h: Tensor, keys: Tensor, values: Tensor, position: int) -> Tensor:
        """What `forward` with `causal` gives at one position, h (B, 1, width), given those before.

        `keys` and `values` (B, heads, L, width / heads) hold the positions before, and get this one.
        """
        q, k, v = (self._split(part) for part in self.qkv(self.norm(h)).chunk(3, dim=2))
        keys[:, :, position], values[:, :, position] = k[:, :, 0], v[:, :, 0]
        seen = slice(0, position + 1)
        q = q.to(keys.dtype)  # under autocast it comes in half precision
        mixed = attention(q, keys[:, :, seen], values[:, :, seen])
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + self.net(h)

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, width) -> (B, heads, L, width / heads)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class TransformerEncoder(nn.Module):
    """x (B, L) -> (B, out): blocks of attention, then a learned weighted mean over the positions of the sequence.

    Args:
        length: L.
        symbols: V, the end included.
        out: size of the result.
        width, depth, heads: of the blocks.
    """

    def __init__(
        self,
        length: int,
        symbols: int,
        out: int,
        *,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embed = Embedding(length, symbols, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(heads * width, out)
        self.weight = nn.Linear(width, heads, bias=False)  # a bias would cancel in the softmax

    def forward(self, x: Tensor) -> Tensor:
        """(B, L) or (B, L, V) -> (B, out)."""
        x = trimmed(x) if x.ndim == 2 else x
        mask, h = present(x), self.embed(x)
        for block in self.blocks:
            h = block(h, mask)
        h = self.norm(h)
        weight = self.weight(h).masked_fill(~mask[..., None], float("-inf")).softmax(1)
        return self.out(torch.einsum("blh,blw->bhw", weight, h).flatten(1))


class TransformerDecoder(nn.Module):
    """z (B, D) -> logits (B, L, V): the code at every position, then blocks of attention; all positions at once.

    Args:
        dim: D.
        length: L.
        symbols: V, the end included.
        width, depth, heads: of the blocks.
    """

    def __init__(
        self,
        dim: int,
        length: int,
        symbols: int,
        *,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.code = nn.Linear(dim, width)
        self.own = nn.Parameter(torch.randn(length, width, dim) * dim**-0.5)
        self.position = nn.Parameter(torch.randn(length, width) * 0.1)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, symbols))

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, L, V)."""
        h = self.code(z)[:, None] + self.position + torch.einsum("bd,lwd->blw", z, self.own)
        for block in self.blocks:
            h = block(h)
        return self.out(h)


class MaskedTransformer(nn.Module):
    """Symbols of which some are hidden, (B, L) -> hidden states (B, L, width), and from them logits (B, L, V).

    Args:
        length: L.
        symbols: V, the end included; V itself stands for a hidden symbol.
        width, depth, heads: of the blocks.
    """

    def __init__(
        self, length: int, symbols: int, *, width: int = 128, depth: int = 2, heads: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.mask, self.width = symbols, width
        self.embed = Embedding(length, symbols + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, symbols)

    def hidden(self, x: Tensor) -> Tensor:
        """(B, L) -> (B, L, width)."""
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        return self.norm(h)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L) -> (B, L, V)."""
        return self.out(self.hidden(x))
