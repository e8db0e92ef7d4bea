"""What a code says of a property: an ensemble of small networks, fitted to codes of training examples.

Each member sees the examples with weights of its own (a Bayesian bootstrap), so that their disagreement grows where there are
few: mean and standard deviation over the members are the prediction and its uncertainty.

References: Lakshminarayanan et al. 2017 (arXiv 1612.01474); Rubin 1981 (Annals of Statistics 9), the Bayesian bootstrap.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from diled.draws import seeded
from diled.errors import DataError

__all__ = ["Ensemble"]

CHECKS = 20
"""Looks at held-out examples; each member keeps its best weights."""
PASSES = 400
"""How often each example is drawn for a member, at most: from 1,280 examples on, 2,000 steps of 256 draw it less often."""


class Ensemble(nn.Module):
    """K regressions of one property, z (B, D) -> (K, B), in the property's unit.

    Args:
        dim: D.
        members: K.
        width: of the two hidden layers.
    """

    mean: Tensor
    scale: Tensor
    center: Tensor
    unit: Tensor

    def __init__(self, dim: int, *, members: int = 8, width: int = 64) -> None:
        super().__init__()
        sizes = [dim, width, width, 1]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.weights = nn.ParameterList(torch.randn(members, a, b) * a**-0.5 for a, b in pairs)
        self.biases = nn.ParameterList(torch.zeros(members, 1, b) for _, b in pairs)
        for name, value in (("mean", torch.zeros(dim)), ("scale", torch.ones(dim))):
            self.register_buffer(name, value)
        for name, value in (("center", torch.zeros(())), ("unit", torch.ones(()))):
            self.register_buffer(name, value)

    @property
    def members(self) -> int:
        """K."""
        return len(self.weights[0])

    def standardized(self, z: Tensor) -> Tensor:
        """Predictions in standard deviations from the mean of the training examples; z (B, D) or (K, B, D) -> (K, B)."""
        return torch.baddbmm(self.biases[-1], self.hidden(z), self.weights[-1])[..., 0]

    def hidden(self, z: Tensor) -> Tensor:
        """What the last layer reads, (K, B, width)."""
        h = (z - self.mean) / self.scale
        h = h.expand(self.members, *h.shape[-2:])
        for weight, bias in list(zip(self.weights, self.biases, strict=True))[:-1]:
            h = nn.functional.silu(torch.baddbmm(bias, h, weight))
        return h

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) -> (K, B)."""
        return self.center + self.unit * self.standardized(z)

    @torch.no_grad()
    def predict(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the members, (B,) each; of one member the latter is 0."""
        found = self(z)
        return found.mean(0), found.std(0) if self.members > 1 else torch.zeros_like(found[0])

    def fit(
        self,
        z: Tensor,
        y: Tensor,
        held_out: tuple[Tensor, Tensor],
        *,
        steps: int = 2000,
        batch: int = 256,
        rate: float = 2e-3,
        decay: float = 1e-4,
        seed: int = 0,
    ) -> Ensemble:
        """Fit to codes z (N, D) and values y (N,); each member ends on its best look at the held-out ones.

        A member draws each example `PASSES` times at most, so few examples take few steps.

        Args:
            z, y: of training examples; missing values are NaN and are left out.
            held_out: codes and values to choose the weights by.
            steps: at most.
            batch, rate, decay: of AdamW.
            seed: of weights, order and bootstrap.

        Raises:
            DataError: fewer than ten values.
        """
        known, known_out = y.isfinite(), held_out[1].isfinite()
        z, y, z_out, y_out = z[known], y[known].float(), held_out[0][known_out], held_out[1][known_out].float()
        if len(y) < 10 or len(y_out) < 2:
            raise DataError(
                f"{len(y)} training and {len(y_out)} validation examples have this property: too few to learn it."
            )
        self.mean.copy_(z.mean(0))
        spread = z.std(0)
        self.scale.copy_(spread.clamp(min=0.1 * spread.mean().clamp(min=1e-6)))  # a rare symbol is not blown up
        self.center.copy_(y.mean())
        self.unit.copy_(y.std().clamp(min=1e-6))
        self.requires_grad_(True)  # a second fit
        batch = min(batch, len(y))
        steps = min(steps, math.ceil(PASSES * len(y) / batch))
        target, target_out = (y - self.center) / self.unit, (y_out - self.center) / self.unit
        with seeded(seed, 21):
            for weight in self.weights:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
            share = torch.empty(self.members, len(y), device=y.device).exponential_()
            optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=decay)
            cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            best = [(float("inf"), copy.deepcopy(self.state_dict()))] * self.members
            for step in range(steps):
                rows = torch.randint(len(y), (self.members, batch), device=y.device)
                error = (self.standardized(z[rows]) - target[rows]) ** 2
                loss = (error * share.gather(1, rows)).mean(1).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cosine.step()
                if (step + 1) % max(1, steps // CHECKS) == 0 or step + 1 == steps:
                    with torch.no_grad():
                        errors = ((self.standardized(z_out) - target_out) ** 2).mean(1)
                    now = copy.deepcopy(self.state_dict())
                    best = [(e.item(), now) if e < b[0] else b for e, b in zip(errors, best, strict=True)]
            with torch.no_grad():
                for name, parameter in self.named_parameters():
                    parameter.copy_(torch.stack([best[k][1][name][k] for k in range(self.members)]))
        return self.requires_grad_(False)
