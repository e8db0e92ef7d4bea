"""The critic of adversarial autoencoders: it tells codes from draws of N(0, I), and the encoder learns to fool it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diled.api import Batch, Density, Distribution, Terms
from diled.draws import hidden
from diled.nn.blocks import mlp

__all__ = ["Corrupted", "Critic"]


class Critic(nn.Module):
    """An extra that matches the codes' distribution to N(0, I) in place of a rate.

        critic    -log D(e) - log(1 - D(stop(z)))       e ~ N(0, I): trains D alone
        fooling   -weight log D(z)                      trains the encoder alone

    Args:
        dim: D, the size of a code.
        width: hidden width of the two layers.
        weight: of the encoder's part.
        pace: the critic's learning rate relative to everything else's; its gradients are clipped apart.

    Reference: Goodfellow et al. 2014, section 3; Makhzani et al. 2015 (arXiv 1511.05644).
    """

    def __init__(self, dim: int, width: int = 256, *, weight: float = 1.0, pace: float = 1.0) -> None:
        super().__init__()
        self.network, self.weight, self.learning_rate_factor = mlp([dim, width, width, 1]), weight, pace

    def forward(self, model: Density, batch: Batch, q: Distribution, z: Tensor) -> Terms:
        """The two terms of codes z (B, D)."""
        real, fake = self.network(torch.randn_like(z)), self.network(z.detach())
        fixed = {name: p.detach() for name, p in self.network.named_parameters()}
        fooled = torch.func.functional_call(self.network, fixed, (z,))
        return {
            "critic": (F.softplus(-real) + F.softplus(fake))[:, 0].float(),
            "fooling": self.weight * F.softplus(-fooled)[:, 0].float(),
        }


class Corrupted(nn.Module):
    """An encoder that is shown x with some of its values hidden while it trains.

    Args:
        encoder: x -> q(z | x).
        share: of the values that are hidden.
        symbols: V, the number of symbols with the end, of sequences; 0: x are numbers.

    Reference: Vincent et al. 2008; Shen et al. 2020 (arXiv 1905.12777) for sequences.
    """

    def __init__(self, encoder: nn.Module, share: float, symbols: int = 0) -> None:
        super().__init__()
        self.encoder, self.share, self.symbols = encoder, share, symbols

    def forward(self, x: Tensor) -> Any:
        """The posterior of each example."""
        return self.encoder(hidden(x, self.share, self.symbols) if self.training and self.share > 0 else x)
