"""How fast a training goes: examples and floating-point operations per second, and what share of the device that is.

Operations are those that the model needs, counted once, so that nothing which is computed twice or fused away
counts. The share is that of large matrix products on the same device at the same precision, which are measured: makers'
figures are never reached, and are not known for every device.

Reference: Chowdhery et al. 2022 (arXiv 2204.02311), section 4.1 ("model FLOPs utilization").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diled.api import choose_device, computed_in
from diled.config import TrainingConfig
from diled.draws import forked

__all__ = ["Throughput", "accelerator_of", "precision_of", "product_speed", "speeds", "speeds_of"]

SIDE, PRODUCTS = 8192, 10
"""Of the matrix products that a device is measured by: rows and columns, and how many."""


class Throughput:
    """Totals over the steps of a training, over all its sessions and processes, without those at the start of each stage and
    session.

    Looks at validation data and checkpoints do not count either.

    Args:
        examples: that were trained on.
        seconds: that this took.
        flops: floating-point operations of forward and backward passes, products and convolutions alone.
    """

    def __init__(self, examples: int = 0, seconds: float = 0.0, flops: float = 0.0) -> None:
        self.examples, self.seconds, self.flops = examples, seconds, flops
        self.per_batch = 0.0
        """Floating-point operations of one process's micro-batch of the running stage."""
        self.left, self.counted, self.mark = 0, False, 0.0
        self.line = (examples, seconds)

    def record(self) -> dict[str, Any]:
        """The totals."""
        return {"examples": self.examples, "seconds": self.seconds, "flops": self.flops}

    def start(self, *, compiled: bool) -> None:
        """A stage begins, or goes on: its first micro-batches are not measured, where things are set up and compiled."""
        self.per_batch, self.counted, self.left = 0.0, False, 2 if compiled else 1
        self.line = (self.examples, self.seconds)

    def count(self, density: nn.Module, loss: Callable[[], Tensor]) -> None:
        """Count the operations of a micro-batch, once in a stage: of `loss` and of its gradient, beside the training.

        It leaves gradients, buffers and random state alone. The counter takes some operations apart, which changes their
        last digits, so what it sees is computed once more for it."""
        if self.counted:
            return
        kept = [(buffer, buffer.clone()) for buffer in density.buffers()]
        parameters = [p for p in density.parameters() if p.requires_grad]
        with forked(), FlopCounterMode(display=False) as counter:
            torch.autograd.grad(loss(), parameters, allow_unused=True)
        for buffer, value in kept:
            buffer.copy_(value)
        self.per_batch, self.counted = float(counter.get_total_flops()), True

    def stepped(self, examples: int, processes: int = 1) -> None:
        """A micro-batch of so many examples is done by each of so many processes."""
        now = time.perf_counter()
        if not self.left:
            self.examples, self.flops = self.examples + processes * examples, self.flops + processes * self.per_batch
            self.seconds += now - self.mark
        self.left, self.mark = max(0, self.left - 1), now

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What happens within the block is no part of a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.mark += time.perf_counter() - start

    def since_last(self) -> float | None:
        """Examples per second since the last call; None where no step was measured."""
        examples, seconds = self.examples - self.line[0], self.seconds - self.line[1]
        self.line = (self.examples, self.seconds)
        return examples / seconds if examples and seconds > 0 else None


def speeds(totals: dict[str, Any], peak: float | None) -> dict[str, float]:
    """What totals come to: `examples_per_second` and `flops_per_second` of all devices, and `utilisation`.

    Args:
        totals: as `Throughput.record` has them; nothing comes of less than one measured step.
        peak: operations per second that all devices could do; without it, `utilisation` is left out.
    """
    if not totals["examples"] or totals["seconds"] <= 0:
        return {}
    found = {
        "examples_per_second": totals["examples"] / totals["seconds"],
        "flops_per_second": totals["flops"] / totals["seconds"],
    }
    return found | ({"utilisation": found["flops_per_second"] / peak} if peak else {})


def speeds_of(totals: dict[str, Any], config: TrainingConfig) -> dict[str, float]:
    """What the totals of a training in this process come to; on a GPU with `utilisation` and `peak_memory_bytes`."""
    if accelerator_of(config) != "cuda":
        return speeds(totals, None)
    device = torch.device("cuda", torch.cuda.current_device())
    memory = torch.cuda.max_memory_allocated(device)
    dtype = torch.bfloat16 if precision_of(config) == "bf16" else torch.float32
    peak = config.devices * config.nodes * product_speed(device, dtype)
    return speeds(totals, peak) | {"peak_memory_bytes": memory}


def accelerator_of(config: TrainingConfig) -> str:
    """What `training.device` comes to here."""
    return choose_device(config.device).type


def precision_of(config: TrainingConfig) -> Literal["fp32", "bf16"]:
    """What `training.precision` comes to here."""
    return computed_in(config.precision, accelerator_of(config))


def product_speed(device: torch.device, dtype: torch.dtype, *, side: int = SIDE) -> float:
    """Floating-point operations per second of large matrix products, the fastest of a few."""
    x = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(PRODUCTS):
        _wait(device)
        start = time.perf_counter()
        x @ x
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
