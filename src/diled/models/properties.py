"""A head that reads properties of an example from its code: regression and classification, trained with the model.

    real column     w/2 ((y - mean) / std - f(z))^2           y standardised by the training examples
    classes         -w log softmax(f(z))_y

Both are terms of the training only. The head sees a draw z of the posterior, and predicts from its mean. A model without a
code gives it the mean of its hidden states in place of z.

Reference: Castro et al. 2022 (arXiv 2201.09948), the joint head of ReLSO; Liu et al. 2024, section 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diled.api import Batch, Density, Distribution, Terms
from diled.nn.blocks import mlp

__all__ = ["PropertyHead", "head_of"]


class PropertyHead(nn.Module):
    """An extra that predicts label columns from codes.

    Args:
        dim: D, the size of a code.
        classes: column -> its number of classes, 0 for real numbers.
        width: of the one hidden layer.
        weight: w.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, classes: Mapping[str, int], *, width: int = 64, weight: float = 1.0) -> None:
        super().__init__()
        self.classes, self.weight = dict(classes), weight
        self.networks = nn.ModuleList(mlp([dim, width, max(1, n)]) for n in self.classes.values())
        self.register_buffer("mean", torch.zeros(len(self.classes)))
        self.register_buffer("std", torch.ones(len(self.classes)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns."""
        return tuple(self.classes)

    def fit(self, labels: Mapping[str, Tensor]) -> None:
        """Take mean and standard deviation of the real columns from labels (N,) of training examples."""
        for i, (column, count) in enumerate(self.classes.items()):
            values = labels[column].double()
            values = values[values.isfinite()]
            if not count and len(values):
                self.mean[i] = values.mean()
                self.std[i] = values.std(correction=0).clamp(min=1e-6)

    def forward(self, model: Density, batch: Batch, q: Distribution, z: Tensor) -> Terms:
        """The error of each column, (B,); 0 for examples without a label."""
        return {f"property/{c}": self.weight * error for c, error in self.errors(z, batch.labels).items()}

    def errors(self, z: Tensor, labels: Mapping[str, Tensor]) -> Terms:
        """Half the squared standardised error, or the cross-entropy, of each column that is there, (B,)."""
        found = {}
        for i, (column, count) in enumerate(self.classes.items()):
            if column not in labels:
                continue
            y, out = labels[column], self.networks[i](z.flatten(1)).float()
            if count:
                known = y >= 0
                error = F.cross_entropy(out, y.long().clamp(min=0), reduction="none")
            else:
                known = y.isfinite()
                target = (torch.where(known, y, torch.zeros_like(y)).float() - self.mean[i]) / self.std[i]
                error = 0.5 * (target - out[:, 0]) ** 2
            found[column] = torch.where(known, error, torch.zeros_like(error))
        return found

    def predict(self, z: Tensor, column: str) -> Tensor:
        """Of codes (B, D) the value in the column's own unit, (B,), or the logits of its classes, (B, C)."""
        i = self.columns.index(column)
        out = self.networks[i](z.flatten(1)).float()
        return out if self.classes[column] else out[:, 0] * self.std[i] + self.mean[i]


def head_of(model: nn.Module) -> PropertyHead | None:
    """The head of a model, where it has one."""
    return next((part for part in model.modules() if isinstance(part, PropertyHead)), None)
