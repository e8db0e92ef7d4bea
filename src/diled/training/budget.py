"""How long a training takes on this machine, and how many steps fit into a budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diled.api import Stage, computed_in, total
from diled.config import DataSpec, TrainingConfig
from diled.training.compiling import fused
from diled.training.data import Batches, Source
from diled.training.inputs import Inputs
from diled.training.throughput import accelerator_of

__all__ = ["seconds_per_step", "steps_within"]

START_UP = 0.3
"""Seconds that each stage takes before its first step and after its last."""
ENGINE = 0.8e-3
"""Seconds that the engine adds to each micro-batch: hooks, averages, logs."""
WARM_UP = 5
"""Steps that are not measured."""


def steps_within(
    seconds: float, stages: list[Stage], values: Tensor | Source, spec: DataSpec, config: TrainingConfig
) -> int:
    """Steps in all that fit into `seconds` of training, at the stages' shares; at least 10."""
    shares, at_least = sum(stage.share for stage in stages), min(3.0, 0.02 * seconds)
    mean = sum(
        stage.share / shares * seconds_per_step(stage, values, spec, config, at_least=at_least)
        for stage in stages
        if stage.share
    )
    if not mean:
        return config.steps  # nothing is trained step by step
    left = max(seconds - START_UP * len(stages), 0.5 * seconds)
    return max(10, int(left / mean))


def seconds_per_step(
    stage: Stage,
    values: Tensor | Source,
    spec: DataSpec,
    config: TrainingConfig,
    *,
    steps: int = 20,
    at_least: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Mean seconds of one optimiser step of a stage by `clock`, measured over `steps` of them and `at_least` so long.

    Weights, gradients and random state are as before afterwards.
    """
    device = torch.device(accelerator_of(config))
    kept = {name: tensor.clone() for name, tensor in stage.density.state_dict().items()}
    stage.density.to(device)
    with torch.random.fork_rng(devices=[]), stage.training():
        parameters = [p for p in stage.density.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=device.type in ("cpu", "cuda"))
        terms = fused(stage.density.terms) if config.compile else stage.density.terms
        batches, inputs = Batches(values, config.batch_size, seed=0), Inputs(spec, config)
        done, start = 0, clock()
        while done < WARM_UP + steps or clock() - start < at_least:
            if done == WARM_UP:
                start = clock()
            _step(stage, terms, optimizer, parameters, batches, done, inputs, config, device)
            done += 1
        took = clock() - start
    stage.density.to("cpu").load_state_dict(kept)
    for p in stage.density.parameters():
        p.grad = None
    return took / (done - WARM_UP) + ENGINE * config.accumulate


def _step(
    stage: Stage,
    terms: Callable[..., dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    batches: Batches,
    step: int,
    inputs: Inputs,
    config: TrainingConfig,
    device: torch.device,
) -> None:
    """What the engine does in one optimiser step, without the engine."""
    for micro in range(config.accumulate):
        at = step * config.accumulate + micro
        x = inputs(batches.batch(at).to(device), 0.0)
        labels = {column: values.to(device) for column, values in batches.labels(at).items()}
        labelled: dict[str, Any] = {"labels": labels} if labels and hasattr(stage.density, "columns") else {}
        with torch.autocast(device.type, torch.bfloat16, enabled=computed_in(config.precision, device.type) == "bf16"):
            loss = total(terms(x, **labelled)).mean() / config.accumulate
        loss.backward()
    if config.clip:
        nn.utils.clip_grad_norm_(parameters, config.clip)
    optimizer.step()
    optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize()
