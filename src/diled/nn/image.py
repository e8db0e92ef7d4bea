"""Encoder and decoder networks for images (C, H, W), signals (C, L) and vectors (D,): an MLP, or residual convolutions."""

from __future__ import annotations

import math

from torch import Tensor, nn

from diled.nn.blocks import dropping, mlp

__all__ = [
    "ACTIVATIONS",
    "ConvDecoder",
    "ConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "Shuffle",
    "conv_levels",
    "convolution",
    "padding",
]

ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU}
"""Nonlinearities of the MLPs."""


class MLPEncoder(nn.Module):
    """x (B, *shape) -> (B, out): flatten, then `depth` hidden layers of `width`."""

    def __init__(
        self,
        shape: tuple[int, ...],
        out: int,
        *,
        width: int = 400,
        depth: int = 2,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.net = mlp([math.prod(shape), *[width] * depth, out], activation=ACTIVATIONS[activation], dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, out)."""
        return self.net(x.flatten(1))


class MLPDecoder(nn.Module):
    """z (B, D) -> (B, *out_shape)."""

    def __init__(
        self,
        dim: int,
        out_shape: tuple[int, ...],
        *,
        width: int = 400,
        depth: int = 2,
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_shape = tuple(out_shape)
        sizes = [dim, *[width] * depth, math.prod(out_shape)]
        self.net = mlp(sizes, activation=ACTIVATIONS[activation], dropout=dropout)

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, *out_shape)."""
        return self.net(z).unflatten(1, self.out_shape)


def conv_levels(size: tuple[int, ...]) -> int:
    """How often a size is halved until its smaller side is 4 to 7 (a 1-D signal: 8 to 15), at least once."""
    smallest = 4 if len(size) == 2 else 8
    n = 0
    while min(size) / 2 ** (n + 1) >= smallest - 0.5:
        n += 1
    return max(n, 1)


class ConvEncoder(nn.Module):
    """x (B, C, *S) -> (B, out): `conv_levels` halvings with residual blocks after each, channels doubling up to four-fold.

    The first halving reads the pixels themselves: blocks at full size would cost more than all others together.
    Sizes that do not halve evenly are padded at the end by repetition; the decoder cuts the same part off.
    """

    def __init__(
        self, shape: tuple[int, ...], out: int, *, channels: int = 32, blocks: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        dims, levels = len(shape) - 1, conv_levels(shape[1:])
        conv = convolution(dims)
        widths = [shape[0], *(channels * min(2**i, 4) for i in range(levels))]
        self.padding, self.coarse = padding(shape[1:], levels)
        layers: list[nn.Module] = []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            layers += [conv(a, b, 4, stride=2, padding=1), *(_Residual(b, dims, dropout) for _ in range(blocks))]
        self.body = nn.Sequential(*layers)
        self.norm = nn.GroupNorm(8, widths[-1])
        self.head = nn.Linear(widths[-1] * math.prod(self.coarse), out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, out)."""
        x = nn.functional.pad(x, self.padding, mode="replicate") if any(self.padding) else x
        return self.head(nn.functional.silu(self.norm(self.body(x))).flatten(1))


class ConvDecoder(nn.Module):
    """z (B, D) -> (B, *out_shape): the mirror image of `ConvEncoder`; each doubling is a convolution and a shuffle."""

    def __init__(
        self, dim: int, out_shape: tuple[int, ...], *, channels: int = 32, blocks: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        dims, levels = len(out_shape) - 1, conv_levels(out_shape[1:])
        conv = convolution(dims)
        widths = [*(channels * min(2**i, 4) for i in range(levels - 1, -1, -1)), out_shape[0]]
        self.size, (_, self.coarse) = tuple(out_shape[1:]), padding(out_shape[1:], levels)
        self.first = nn.Linear(dim, widths[0] * math.prod(self.coarse))
        layers: list[nn.Module] = []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            layers += [_Residual(a, dims, dropout) for _ in range(blocks)]
            layers += [nn.GroupNorm(8, a), nn.SiLU(), conv(a, b * 2**dims, 3, padding=1), Shuffle(dims)]
        self.body = nn.Sequential(*layers)
        self.width = widths[0]

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, *out_shape)."""
        x = self.body(self.first(z).unflatten(1, (self.width, *self.coarse)))
        return x[(..., *(slice(0, s) for s in self.size))]


class Shuffle(nn.Module):
    """Twice the size from 2^dims times the channels (Shi et al. 2016): (B, 4 C, H, W) -> (B, C, 2 H, 2 W)."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2^dims C, *S) -> (B, C, *2S)."""
        if self.dims == 2:
            return nn.functional.pixel_shuffle(x, 2)
        return x.unflatten(1, (-1, 2)).transpose(2, 3).flatten(2)


class _Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))); the last convolution starts at zero, and dropout goes before it."""

    def __init__(self, channels: int, dims: int, dropout: float = 0.0) -> None:
        super().__init__()
        conv = convolution(dims)
        self.net = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.SiLU(),
            conv(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels),
            dropping(nn.SiLU(), dropout),
            conv(channels, channels, 3, padding=1),
        )
        last = self.net[-1]
        assert isinstance(last, nn.Conv1d | nn.Conv2d)
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


def convolution(dims: int) -> type[nn.Conv1d] | type[nn.Conv2d]:
    """The convolution for so many spatial dimensions."""
    if dims not in (1, 2):
        raise ValueError(f"convolutions are for signals (C, L) and images (C, H, W), not for {dims} spatial dimensions")
    return nn.Conv1d if dims == 1 else nn.Conv2d


def padding(size: tuple[int, ...], levels: int) -> tuple[list[int], tuple[int, ...]]:
    """What to add at the end of each dimension (in torch's order, last first), and the coarsest size."""
    unit = 2**levels
    coarse = tuple(-(-s // unit) for s in size)
    added = [c * unit - s for c, s in zip(coarse, size, strict=True)]
    return [p for a in reversed(added) for p in (0, a)], coarse
