"""The computations of a training step, as they are or fused by `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from diled.errors import ConfigError

__all__ = ["fused"]

OPTIONS: dict[str, Any] = {"fallback_random": True}
"""Noise and times come from torch's generators as without compiling, so both trainings see the same draws."""
APART = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")
"""Where errors of the compiler come from."""


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function out of all of which `torch.compile` makes fused kernels; what it is made of stays as it is.

    The first call takes from half a minute to a few minutes. What was compiled before in this process is forgotten:
    otherwise the compiler gives up, without a word, at the ninth model that it meets.

    Raises:
        ConfigError: when it is called, and the compiler fails (no C++ compiler or Triton, an operation it does not know).
    """
    torch.compiler.reset()
    compiled = torch.compile(function, options=OPTIONS)

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except Exception as error:
            if not type(error).__module__.startswith(APART):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(
                f"torch.compile could not compile this model here ({' '.join(lines[:2])}). Train without training.compile, or "
                "install the compiler that it names."
            ) from error

    return call
