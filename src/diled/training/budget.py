"""How long a training takes on this machine, and how many steps fit into a budget."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from diled.api import Stage, total
from diled.config import DataSpec, TrainingConfig
from diled.space import to_space
from diled.training.data import Batches

__all__ = ["seconds_per_step", "steps_within"]

START_UP = 6.0
"""Seconds that the engine takes before its first step."""
OVERHEAD = 1.15
"""Averaging, logging and monitors, relative to the bare step."""


def steps_within(seconds: float, stages: list[Stage], values: Tensor, spec: DataSpec, config: TrainingConfig) -> int:
    """Steps in all that fit into `seconds`, at the stages' shares; at least 10."""
    shares = sum(stage.share for stage in stages)
    mean = sum(stage.share / shares * seconds_per_step(stage, values, spec, config) for stage in stages)
    return max(10, int(max(seconds - START_UP, 0.5 * seconds) / (OVERHEAD * mean)))


def seconds_per_step(stage: Stage, values: Tensor, spec: DataSpec, config: TrainingConfig, *, steps: int = 20) -> float:
    """Measured seconds of one optimiser step of a stage: the median of `steps` after 5 of warm-up.

    Weights, gradients and random state are as before afterwards.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and config.device in ("auto", "cuda") else "cpu")
    kept = {name: tensor.clone() for name, tensor in stage.density.state_dict().items()}
    frozen = {id(p) for module in stage.frozen for p in module.parameters()}
    parameters = [p for p in stage.density.parameters() if id(p) not in frozen]
    stage.density.to(device)
    batches, times = Batches(values, config.batch_size, seed=0), []
    with torch.random.fork_rng(devices=[]):
        optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
        for step in range(5 + steps):
            start = time.perf_counter()
            for micro in range(config.accumulate):
                x = to_space(values[batches.indices(step * config.accumulate + micro)].to(device), spec)
                bf16 = config.precision == "bf16"
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    loss = total(stage.density.terms(x)).mean() / config.accumulate
                loss.backward()
            if config.clip:
                nn.utils.clip_grad_norm_(parameters, config.clip)
            optimizer.step()
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    stage.density.to("cpu").load_state_dict(kept)
    for p in stage.density.parameters():
        p.grad = None
    return sorted(times[5:])[steps // 2]
