"""Networks on vector codes: the residual MLP denoiser."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diled.nn.blocks import LogSNREmbedding, one_of_equal, zero_init

__all__ = ["Flat", "ResidualMLP"]


class ResidualMLP(nn.Module):
    """F(z_t, log SNR): a residual MLP whose blocks are shifted and scaled by the noise level.

        h = W z_t;   h += W_2 silu( (1 + scale) norm(W_1 norm(h)) + shift )   for each block;   F = W_out norm(h)

    The output layer starts at zero.

    Args:
        dim: D, the size of a code.
        width: hidden width.
        blocks: number of residual blocks.
        condition_dim: size of an optional condition (B, condition_dim), added to the embedding of the noise level.
    """

    def __init__(self, dim: int, width: int = 192, blocks: int = 2, *, condition_dim: int = 0) -> None:
        super().__init__()
        self.embed = LogSNREmbedding()
        self.time = nn.Sequential(nn.Linear(self.embed.features, width), nn.SiLU())
        self.condition = nn.Linear(condition_dim, width) if condition_dim else None
        self.into = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.out = zero_init(nn.Linear(width, dim))

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """z_t (B, D), log_snr (B,), condition (B, condition_dim) or None -> (B, D)."""
        level = self.time(self.embed(one_of_equal(log_snr)))
        if self.condition is not None and condition is not None:
            level = level + self.condition(condition)
        h = self.into(z_t)
        for block in self.blocks:
            h = block(h, level)
        return self.out(self.norm(h))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.modulate = nn.Linear(width, 2 * width)
        self.second = nn.Linear(width, width)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulate(level).chunk(2, dim=1)
        inner = torch.addcmul(shift, self.first(self.norm(h)), 1 + scale)
        return h + self.second(nn.functional.silu(inner))


class Flat(nn.Module):
    """A network on vectors for data of any shape: (B, *shape) is flattened before and put back after.

    Args:
        network: (B, D), log SNR, condition -> (B, D).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """z_t (B, *shape), log_snr (B,), condition (B, condition_dim) or None -> (B, *shape)."""
        return self.network(z_t.flatten(1), log_snr, condition).reshape(z_t.shape)
