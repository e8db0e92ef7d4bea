"""What `check_model` checks, and what it changes of it for a while: weights a little, and everything back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diled.api import Density, Stage

__all__ = ["Case", "CheckFailed", "as_before", "frozen_tensors", "parameter_names", "perturb"]

NOISE = 0.02
"""Standard deviation of the perturbation of all weights."""


class CheckFailed(AssertionError):
    """A model breaks the contract; the message names what, and why it matters."""


@dataclass(frozen=True)
class Case:
    """What is checked."""

    model: Density
    data: Tensor
    stages: tuple[Stage, ...]
    rebuild: Callable[[], Density] | None
    seed: int
    tolerance: float
    labels: Mapping[str, Tensor]

    @property
    def symbols(self) -> bool:
        """Whether examples are sequences of symbols."""
        return not self.data.is_floating_point()


def _densities(case: Case) -> list[nn.Module]:
    return [case.model, *(stage.density for stage in case.stages), *(m for s in case.stages for m in s.frozen)]


def parameter_names(case: Case) -> dict[nn.Parameter, str]:
    """Every parameter of the model and its stages once, with a name."""
    names = {p: name for name, p in case.model.named_parameters()}
    for stage in case.stages:
        for name, p in stage.density.named_parameters():
            names.setdefault(p, f"{stage.name}: {name}")
    return names


def frozen_tensors(stage: Stage) -> dict[str, Tensor]:
    """Parameters and buffers of the frozen modules, and parameters that were fixed from the start."""
    found = {name: p for name, p in stage.density.named_parameters() if not p.requires_grad}
    known = {id(p) for p in found.values()}
    inside: dict[str, Tensor] = {}
    for module in stage.frozen:
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if id(tensor) not in known:
                inside[f"{type(module).__name__}.{name}"] = tensor
    return {**found, **inside}


def _tensors(*modules: nn.Module) -> list[Tensor]:
    """Every parameter and buffer once."""
    found = {id(t): t for module in modules for t in [*module.parameters(), *module.buffers()]}
    return list(found.values())


@torch.no_grad()
def perturb(case: Case) -> None:
    """A little noise on every parameter, so that layers which start at zero let gradients through."""
    for p in parameter_names(case):
        p.add_(NOISE * torch.randn_like(p))


@contextmanager
def as_before(case: Case) -> Iterator[None]:
    """Put weights, buffers, gradients and modes back."""
    tensors = _tensors(*_densities(case))
    values = [(t, t.detach().clone(), t.grad, t.requires_grad) for t in tensors]
    modes = [(module, module.training) for density in _densities(case) for module in density.modules()]
    try:
        yield
    finally:
        for tensor, value, grad, trains in values:
            tensor.data.copy_(value)
            tensor.grad = grad
            tensor.requires_grad_(trains)
        for module, training in modes:
            module.training = training
