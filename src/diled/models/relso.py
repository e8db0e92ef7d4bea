"""ReLSO's regularisers: what makes a deterministic code smooth enough to climb in.

With codes z of a batch, decoded probabilities p(z), one-hot draws x^(z) of them and the head f,

    norm            eta/2 ||z||^2
    interpolation   w/2 [ d(m, a) + d(m, b) - d(a, b) ],  m = (a + b)/2, b the nearest code to a
                    d(a, b) = || x^(a) - x^(b) ||_1, a metric, so that this is never negative
    negative        w_n ( f(n) - floor )^2,    n = centre + reach r u, r the distance of the farthest code, u a direction

so that sequences change little along the way between neighbours, and predictions fall off outside the data. The directions
are those of codes with noise; as the reference code is written, its codes cancel and all negatives are one point.

Reference: Castro et al. 2022 (arXiv 2201.09948; Nature Machine Intelligence 4), methods.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diled.api import Batch, Density, Distribution, Terms
from diled.models.properties import PropertyHead

__all__ = ["ReLSORegularizer"]


class ReLSORegularizer(nn.Module):
    """An extra for autoencoders of sequences with a property head.

    Args:
        head: f.
        norm: eta.
        interpolation: w, in nats per differing symbol.
        negative: w_n.
        floor: what is predicted outside the data, in standard deviations from the mean of the training examples.
        reach: how far outside, in distances of the farthest code from the centre.
        some: how many of a batch are used for the last two.
    """

    def __init__(
        self,
        head: PropertyHead,
        *,
        norm: float,
        interpolation: float,
        negative: float,
        floor: float = -2.0,
        reach: float = 4.0,
        some: int = 16,
    ) -> None:
        super().__init__()
        self.head = [head]  # the model holds it
        self.norm, self.interpolation, self.negative = norm, interpolation, negative
        self.floor, self.reach, self.some = floor, reach, some

    def forward(self, model: Density, batch: Batch, q: Distribution, z: Tensor) -> Terms:
        """The three terms of codes z (B, D); those of a few examples are spread over the batch, whose mean is taken."""
        found = {"norm": 0.5 * self.norm * z.square().flatten(1).sum(1)}
        if len(z) < 2:
            return found
        chosen = torch.randperm(len(z), device=z.device)[: self.some]
        if self.interpolation:
            found["interpolation"] = (self.interpolation * self.bend(model, z, chosen)).expand(len(z))
        if self.negative:
            found["negative"] = (self.negative * self.errors_outside(z, chosen)).expand(len(z))
        return found

    def bend(self, model: Density, z: Tensor, chosen: Tensor) -> Tensor:
        """The mean of 1/2 [ d(m, a) + d(m, b) - d(a, b) ] over the chosen codes."""
        distances = torch.cdist(z.detach(), z.detach()).fill_diagonal_(float("inf"))
        a, b = z[chosen], z[distances.argmin(1)[chosen]]
        logits = model.decoder(torch.cat([a, b, (a + b) / 2])).logits.float()  # type: ignore[operator]
        drawn = F.gumbel_softmax(logits, dim=2, hard=True).flatten(1).chunk(3)
        ends, left, right = ((drawn[i] - drawn[j]).abs().sum(1) for i, j in ((0, 1), (2, 0), (2, 1)))
        return 0.5 * (left + right - ends).mean()

    def outside(self, z: Tensor, chosen: Tensor) -> Tensor:
        """Points at `reach` times the distance of the farthest code from the centre, one for each chosen code."""
        center = z.detach().mean(0)
        away = z.detach() - center
        direction = F.normalize(away[chosen] + 0.5 * away.std(0) * torch.randn_like(away[chosen]), dim=1)
        return center + self.reach * away.norm(dim=1).max() * direction

    def errors_outside(self, z: Tensor, chosen: Tensor) -> Tensor:
        """Mean squared distance of the predictions from the floor, in standard deviations."""
        outside, head = self.outside(z, chosen), self.head[0]
        real = [i for i, count in enumerate(head.classes.values()) if not count]
        errors = [(head.networks[i](outside)[:, 0].float() - self.floor) ** 2 for i in real]
        return torch.stack(errors).mean()
