"""BatchNorm's statistics, estimated anew on given data.

A layer normalises with running averages of its inputs' mean and variance over the training. Where a model was trained on other
data than it is used on (synthetic ones, say), or ends on averaged weights, these are not the moments of what it meets.
Over batches b of n_b values each (Wu & Johnson 2021, section 3.2),

    mean = sum_b n_b m_b / sum_b n_b          var = sum_b n_b (v_b + m_b^2) / sum_b n_b - mean^2
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diled.api import Density
from diled.draws import seeded
from diled.errors import ConfigError

__all__ = ["recalibrate"]


class _Moments:
    """Sums over the batches that a layer has met: n_b, n_b m_b and n_b (v_b + m_b^2) of each channel, on the CPU."""

    def __init__(self) -> None:
        self.count = 0
        self.first = self.second = torch.zeros((), dtype=torch.float64)

    def add(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Called before the layer reads a batch (B, C, ...)."""
        x = inputs[0].float().transpose(0, 1).flatten(1)
        var, mean = (m.double().cpu() for m in torch.var_mean(x, 1, correction=0))
        self.count += x.shape[1]
        self.first = self.first + x.shape[1] * mean
        self.second = self.second + x.shape[1] * (var + mean**2)


@torch.no_grad()
def recalibrate(model: Density, batches: Iterable[Tensor], *, seed: int = 0) -> int:
    """Set the statistics of every BatchNorm layer to the moments of what it meets on these data; weights stay.

    The layers normalise each batch by itself meanwhile, as in training, so batches should be as large as those were.
    Codes are drawn from the posterior, as in training.

    Args:
        model: any density.
        batches: examples in model space, (B, ...) each.
        seed: of the codes.

    Returns:
        The number of layers.

    Raises:
        ConfigError: there are no batches, or no layer with running statistics met one.

    Reference: Wu & Johnson 2021 (arXiv 2105.07576), section 3.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    met = {layer: _Moments() for layer in layers}
    modes = [(m, m.training) for m in model.modules()]
    kept = [(layer, {k: v.clone() for k, v in layer.named_buffers()}) for layer in layers]
    hooks = [layer.register_forward_pre_hook(moments.add) for layer, moments in met.items()]
    try:
        model.eval()
        for layer in layers:
            layer.train()
        with seeded(seed):
            for x in batches:
                model.terms(x)
    finally:
        for hook in hooks:
            hook.remove()
        for layer, buffers in kept:
            for name, value in buffers.items():
                getattr(layer, name).copy_(value)
        for module, training in modes:
            module.training = training
    found = {layer: moments for layer, moments in met.items() if moments.count}
    if not found:
        raise ConfigError(
            "No BatchNorm statistics were estimated: the model has no such layer, or there were no batches."
        )
    for layer, moments in found.items():
        mean = moments.first / moments.count
        buffers = dict(layer.named_buffers())
        buffers["running_mean"].copy_(mean)
        buffers["running_var"].copy_(moments.second / moments.count - mean**2)
    return len(found)
