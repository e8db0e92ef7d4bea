"""Small blocks that the networks share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["LogSNREmbedding", "mlp", "zero_init"]


def mlp(sizes: list[int], *, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Linear layers of the given sizes with an activation between."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), activation()]
    return nn.Sequential(*layers[:-1])


def zero_init(layer: nn.Module) -> nn.Module:
    """Set all parameters of a layer to zero, so that it starts silent."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


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
