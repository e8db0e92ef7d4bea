"""An invertible network on vectors, given a context: affine couplings.

    z_moved <- exp(s) z_moved + t,    (s, t) = NN(z_kept, h),      log |det| = sum s

One part of z stays as it is and says how the rest is scaled and shifted, so the inverse costs as much as the map itself.
The parts trade places from step to step. Reference: Dinh et al. 2017 (arXiv 1605.08803), Eq. 4 to 8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diled.api import sum_dims
from diled.nn.blocks import mlp, zero_init

__all__ = ["Coupling", "Flow"]

LIMIT = 2.0
"""The scale of one coupling stays between e^-2 and e^2, which keeps the inverse exact to rounding in fp32."""


class Coupling(nn.Module):
    """One affine coupling; it starts as the identity.

    Args:
        moved: booleans (D,), which dimensions are scaled and shifted; the others are kept.
        context_dim: C, the size of the context.
        width: hidden width of the network.

    Reference: Dinh et al. 2017 (arXiv 1605.08803), Eq. 7 and 8.
    """

    moved: Tensor
    kept: Tensor

    def __init__(self, moved: Tensor, context_dim: int, width: int) -> None:
        super().__init__()
        self.register_buffer("moved", moved.nonzero()[:, 0], persistent=False)
        self.register_buffer("kept", (~moved).nonzero()[:, 0], persistent=False)
        self.net = mlp([len(self.kept) + context_dim, width, 2 * len(self.moved)])
        zero_init(self.net[-1])

    def forward(self, z: Tensor, context: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """z (B, D), context (B, C) -> the image of z, and log |det| of what was done, (B,)."""
        raw, shift = self.net(torch.cat([z[:, self.kept], context], 1)).to(z.dtype).chunk(2, dim=1)
        log_scale, z_moved = LIMIT * torch.tanh(raw / LIMIT), z[:, self.moved]
        if inverse:
            return z.index_copy(1, self.moved, (z_moved - shift) * (-log_scale).exp()), -sum_dims(log_scale)
        return z.index_copy(1, self.moved, log_scale.exp() * z_moved + shift), sum_dims(log_scale)


class Flow(nn.Module):
    """Couplings in turn; no step at all is the identity, and so is every flow before it has learned anything.

    The steps move the first half of the dimensions, the second half, the even ones, the odd ones, and so on: two dimensions
    of one part do not see each other, so the parts differ.

    Args:
        dim: D, at least 2.
        context_dim: C, the size of the context.
        steps: number of couplings.
        width: hidden width of each coupling's network.

    Reference: Dinh et al. 2017 (arXiv 1605.08803), section 3.5.
    """

    def __init__(self, dim: int, context_dim: int, steps: int = 4, *, width: int = 128) -> None:
        super().__init__()
        index = torch.arange(dim)
        parts = [2 * index < dim, 2 * index >= dim, index % 2 == 0, index % 2 == 1]
        self.steps = nn.ModuleList(Coupling(parts[i % 4], context_dim, width) for i in range(steps))

    def forward(self, z: Tensor, context: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """z (B, D), context (B, C) -> the image of z, or with `inverse` what has the image z; and log |det| of that, (B,)."""
        log_det = z.new_zeros(len(z))
        for step in reversed(self.steps) if inverse else self.steps:
            z, change = step(z, context, inverse=inverse)
            log_det = log_det + change
        return z, log_det
