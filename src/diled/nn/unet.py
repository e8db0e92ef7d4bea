"""The U-Net that denoises images (C, H, W) and signals (C, L), with one size dial.

    x -> [halve] -> blocks -> halve -> blocks -> ... -> blocks -> double, join -> blocks -> ... -> [double] -> F

Every residual block is shifted and scaled by the noise level and, where there is one, by a condition (adaptive group
normalisation: Dhariwal & Nichol 2021, section 4.2; conditional as in Preechakul et al. 2022, Eq. 7). Data of 16 pixels a side
or more are read at half size and written by a shuffle: blocks at full size would cost more than all others together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diled.nn.blocks import GridFeatures, LogSNREmbedding, one_of_equal, zero_init
from diled.nn.image import Shuffle, conv_levels, convolution, padding

__all__ = ["UNet"]

READ_AT_HALF = 16
"""Smaller side from which on the first halving comes before all blocks."""


class UNet(nn.Module):
    """F(z_t, log SNR, condition), in the shape of z_t; zero in the beginning.

    Args:
        shape: of one example, (C, *S).
        channels: at the finest size; twice as many after the first halving. The size dial.
        blocks: residual blocks at each size, going down; one more going up joins what went down.
        attention: self-attention at the coarsest size.
        condition_dim: size of a condition (B, condition_dim); 0: none.
        levels: number of grey values of the data, whose grid the network is shown (`GridFeatures`); None: continuous data.

    Reference: Ronneberger et al. 2015; Ho et al. 2020, appendix B.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        channels: int = 32,
        blocks: int = 1,
        attention: bool = False,
        condition_dim: int = 0,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        dims, halvings = len(shape) - 1, conv_levels(shape[1:])
        half = min(shape[1:]) >= READ_AT_HALF
        self.size, (self.pad, _) = tuple(shape[1:]), padding(shape[1:], halvings)
        widths = [channels * min(2**i, 2) for i in range(halvings if half else halvings + 1)]
        conv, features = convolution(dims), 4 * channels
        self.embed = LogSNREmbedding()
        self.level = nn.Sequential(nn.Linear(self.embed.features, features), nn.SiLU(), nn.Linear(features, features))
        self.condition = None
        if condition_dim:
            self.condition = nn.Sequential(nn.Linear(condition_dim, features), nn.SiLU(), nn.Linear(features, features))
        self.grid = GridFeatures(levels) if levels is not None else None
        n_in = shape[0] * (self.grid.factor if self.grid is not None else 1)
        self.first = conv(n_in, channels, 4, stride=2, padding=1) if half else conv(n_in, channels, 3, padding=1)

        def block(n_in: int, n_out: int) -> _Block:
            return _Block(n_in, n_out, features, dims)

        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            self.down.append(nn.ModuleList(block(width, width) for _ in range(blocks)))
            if i + 1 < len(widths):
                self.shrink.append(conv(width, widths[i + 1], 4, stride=2, padding=1))
        deepest = widths[-1]
        middle = [_Attention(deepest), block(deepest, deepest)] if attention else []
        self.middle = nn.ModuleList([block(deepest, deepest), *middle])
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, width in reversed(list(enumerate(widths))):
            self.up.append(nn.ModuleList([block(2 * width, width), *(block(width, width) for _ in range(blocks - 1))]))
            if i:
                self.grow.append(nn.Sequential(conv(width, widths[i - 1] * 2**dims, 3, padding=1), Shuffle(dims)))
        out = conv(channels, shape[0] * (2**dims if half else 1), 3, padding=1)
        self.last = nn.Sequential(group_norm(channels), nn.SiLU(), zero_init(out), *([Shuffle(dims)] if half else []))

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """z_t (B, C, *S), log_snr (B,), condition (B, condition_dim) or None -> (B, C, *S)."""
        level = self.level(self.embed(one_of_equal(log_snr)))
        if self.condition is not None and condition is not None:
            level = level + self.condition(condition)
        level = nn.functional.silu(level)
        z_t = self.grid(z_t) if self.grid is not None else z_t
        x = nn.functional.pad(z_t, self.pad, mode="replicate") if any(self.pad) else z_t
        h, kept = self.first(x), []
        for i, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, level)
            kept.append(h)
            if i < len(self.shrink):
                h = self.shrink[i](h)
        for part in self.middle:
            h = part(h, level)
        for i, blocks in enumerate(self.up):
            h = torch.cat([h, kept.pop()], 1)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, level)
            if i < len(self.grow):
                h = self.grow[i](h)
        return self.last(h)[(..., *(slice(0, s) for s in self.size))]


def group_norm(channels: int) -> nn.GroupNorm:
    """Eight groups, or four."""
    return nn.GroupNorm(8 if channels % 8 == 0 else 4, channels)


class _Block(nn.Module):
    """x + conv(silu((1 + scale) norm(conv(silu(norm(x)))) + shift)); the last convolution starts at zero."""

    def __init__(self, n_in: int, n_out: int, features: int, dims: int) -> None:
        super().__init__()
        conv = convolution(dims)
        self.into = nn.Sequential(group_norm(n_in), nn.SiLU(), conv(n_in, n_out, 3, padding=1))
        self.modulate = nn.Linear(features, 2 * n_out)
        self.norm = group_norm(n_out)
        self.out = zero_init(conv(n_out, n_out, 3, padding=1))
        self.skip = conv(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulate(level)[(..., *[None] * (x.ndim - 2))].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm(self.into(x)), 1 + scale)
        return self.skip(x) + self.out(nn.functional.silu(h))


class _Attention(nn.Module):
    """x + self-attention over positions, in as many equal heads as there are 64 channels, or the next fewer that divide them.

    The output starts at zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = next(n for n in range(max(1, channels // 64), 0, -1) if channels % n == 0)
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(mixed).transpose(1, 2).reshape(x.shape)
