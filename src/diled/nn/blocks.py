"""Small blocks that the networks share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["GridFeatures", "LogSNREmbedding", "dropping", "mlp", "one_of_equal", "zero_init"]


def mlp(sizes: list[int], *, activation: type[nn.Module] = nn.SiLU, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of the given sizes with an activation between, of which a share `dropout` is dropped in training."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), dropping(activation(), dropout)]
    return nn.Sequential(*layers[:-1])


def dropping(activation: nn.Module, share: float) -> nn.Module:
    """The activation, followed by dropout where `share` is above 0; names of weights are the same either way.

    Reference: Srivastava et al. 2014 (JMLR 15).
    """
    return nn.Sequential(activation, nn.Dropout(share)) if share else activation


def zero_init(layer: nn.Module) -> nn.Module:
    """Set all parameters of a layer to zero, so that it starts silent."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


def one_of_equal(level: Tensor) -> Tensor:
    """Noise levels (B,), or (1,) where all are views of one number, as those of a sampler's step are.

    What depends on the level alone is computed once then, and is broadcast over the examples.
    """
    return level[:1] if level.stride(0) == 0 else level


class LogSNREmbedding(nn.Module):
    """log SNR (B,) -> features (B, 2 n + 1): itself and sines and cosines of geometrically spaced frequencies.

    The wavelengths run from 60 nats, the widest range of log SNR in use, down to 1.
    """

    frequencies: Tensor

    def __init__(self, n: int = 16) -> None:
        super().__init__()
        self.register_buffer(
            "frequencies", 2 * math.pi * torch.exp(torch.linspace(math.log(1 / 60), 0.0, n)), persistent=False
        )
        self.features = 2 * n + 1

    def forward(self, log_snr: Tensor) -> Tensor:
        """(B,) -> (B, features)."""
        angle = log_snr[:, None] * self.frequencies
        return torch.cat([log_snr[:, None] / 10, angle.sin(), angle.cos()], 1)


class GridFeatures(nn.Module):
    """z -> z and sines and cosines whose periods are one and two cells of a grid in [-1, 1], as further channels.

    Where the noise is smaller than a cell, they tell which way the next grey value lies, which a network can hardly find out
    from z itself; a bound on data with grey values depends on it.

    A network that is shown z / sigma_data, as that of `edm` is, has periods of sigma_data and 2 sigma_data cells: half a cell
    and a whole one at 0.5, so that it is told where in a cell z lies, but not in which of two.

    Args:
        levels: number of grey values.

    Reference: Kingma et al. 2021, appendix C (their n = 7 and 8 for 256 levels).
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.rate = math.pi * (levels - 1)
        self.factor = 5

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, ...) -> (B, 5 C, ...)."""
        fine, coarse = self.rate * z, 0.5 * self.rate * z
        return torch.cat([z, fine.sin(), fine.cos(), coarse.sin(), coarse.cos()], 1)
