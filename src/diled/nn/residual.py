"""The residual convolutional autoencoder of Xiao et al. 2024: two halvings, two residual blocks, codes on the coarse grid.

    encoder  x -> halve, BN, ReLU -> halve, BN -> block -> block -> 1x1 -> (B, out / cells, H / 4, W / 4), flattened
    decoder  z -> 1x1, BN -> block -> block -> double, BN, ReLU -> double, BN, ReLU -> 1x1
    block    h + BN(1x1(ReLU(BN(3x3(ReLU(h))))))                                  (van den Oord et al. 2017, section 4.1)

A halving is a 4 x 4 convolution of stride 2, a doubling its transpose. No convolution before a BatchNorm has a bias. With n
channels, a code of m channels on the grid and 100 outputs for each pixel (a mixture of ten logistics over RGB), encoder and
decoder together have 88 n^2 + (174 + 3 m) n + 100 + 2 m parameters.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

__all__ = ["ResidualBlock", "ResidualDecoder", "ResidualEncoder"]

SHRINK = 4
"""How many times smaller a side of the coarse grid is."""


class ResidualBlock(nn.Module):
    """h + BN(1x1(ReLU(BN(3x3(ReLU(h)))))), in the shape of h (B, n, H, W): 10 n^2 weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, h: Tensor) -> Tensor:
        """(B, n, H, W) -> (B, n, H, W)."""
        return h + self.net(h)


class ResidualEncoder(nn.Module):
    """x (B, C, H, W) -> (B, out): channel after channel of the coarse grid, so that halves of `out` are halves of the channels.

    Args:
        shape: of one image, (C, H, W), with H and W divisible by 4.
        out: numbers for each image, a multiple of H W / 16.
        channels: n.

    Reference: Xiao et al. 2024, table 4; its sizes follow from the number of parameters in figure 8.
    """

    def __init__(self, shape: tuple[int, ...], out: int, *, channels: int) -> None:
        super().__init__()
        n = channels
        self.net = nn.Sequential(
            nn.Conv2d(shape[0], n, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(n),
            nn.ReLU(),
            nn.Conv2d(n, n, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(n),
            ResidualBlock(n),
            ResidualBlock(n),
            nn.Conv2d(n, out // math.prod(coarse(shape)), 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out)."""
        return self.net(x).flatten(1)


class ResidualDecoder(nn.Module):
    """z (B, D) -> (B, *out_shape): the code is laid on the coarse grid and doubled twice.

    Args:
        dim: D, a multiple of H W / 16.
        out_shape: (outputs for each pixel, H, W), with H and W divisible by 4.
        channels: n.

    Reference: Xiao et al. 2024, table 5; its sizes follow from the number of parameters in figure 8.
    """

    def __init__(self, dim: int, out_shape: tuple[int, ...], *, channels: int) -> None:
        super().__init__()
        n, self.grid = channels, coarse(out_shape)
        self.net = nn.Sequential(
            nn.Conv2d(dim // math.prod(self.grid), n, 1, bias=False),
            nn.BatchNorm2d(n),
            ResidualBlock(n),
            ResidualBlock(n),
            nn.ConvTranspose2d(n, n, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(n),
            nn.ReLU(),
            nn.ConvTranspose2d(n, n, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(n),
            nn.ReLU(),
            nn.Conv2d(n, out_shape[0], 1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, *out_shape)."""
        return self.net(z.unflatten(1, (-1, *self.grid)))


def coarse(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The coarse grid (H / 4, W / 4) of images (C, H, W)."""
    return tuple(side // SHRINK for side in shape[1:])
