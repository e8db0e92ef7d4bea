"""Trainings of a few steps, in this process, and what they leave behind. Used by the tests of training and of the verbs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from diled import cli
from diled.family import FAMILY
from diled.training import engine

SMALL_PARTS: dict[str, Any] = {
    "latent_dim": 3,
    "prior": {"width": 12, "blocks": 1},
    "diffusion": {"kind": "mlp", "width": 12},
    "decoder": {"kind": "mlp", "width": 12},
    "level_width": 12,
    "second_width": 12,
    "critic_width": 12,
    "mixture": 2,
    "coarsest": 4,
    "finest": 16,
}


def small(name: str, network: dict[str, Any] | None = None) -> dict[str, Any]:
    """Values that make a model of the family tiny."""
    parts = SMALL_PARTS | {"network": network or {"kind": "mlp", "width": 12, "depth": 1}}
    return {key: value for key, value in parts.items() if key in FAMILY[name].model_fields}


SMALL = ["--model.network.width", "16", "--model.latent_dim", "4", "--report", "false"]
PRIOR = ["--model.prior.width", "16", "--model.prior.blocks", "1"]


def diled(*words: Any) -> int:
    """The command line in this process; returns the exit code."""
    return cli.main([str(word) for word in words])


def train(out: Path, *words: Any, model: str = "diled", data: Any = "digits", steps: int = 40) -> int:
    """Train a tiny model; returns the exit code."""
    prior = PRIOR if model in ("diled", "diled_fixed", "diled_paper", "diled_levels", "ldm") else []
    prior = [*prior, "--model.first_stage", 0.5] if model == "ldm" else prior
    options = ["--training.steps", steps, "--training.batch_size", 32, "--training.log_every", 10]
    options += ["--training.monitor_every", 10, "--device", "cpu"]
    return diled("train", data, "--model", model, "--out", out, *SMALL, *prior, *options, *words)


def train_any(out: Path, model: str, *words: Any, data: Any = "digits", steps: int = 20) -> int:
    """Train a tiny model of any kind of the family; returns the exit code."""

    def options(values: dict[str, Any], path: str) -> list[Any]:
        pairs = values.items()
        return [
            x for k, v in pairs for x in (options(v, f"{path}.{k}") if isinstance(v, dict) else [f"--{path}.{k}", v])
        ]

    recipe = ["--training.steps", steps, "--training.batch_size", 32, "--training.log_every", 10, "--device", "cpu"]
    values = options(small(model), "model")
    return diled("train", data, "--model", model, "--out", out, "--report", "false", *values, *recipe, *words)


def weights(run: Path) -> dict[str, bytes]:
    """Name -> the bytes of each tensor of a finished run."""
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(run / "model.safetensors").items()}


def log(run: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Any, stage: int = 0, micro: int = 0) -> None:
    """Call `act(module)` once, in the middle of a step of a stage, before its loss is computed."""
    ordinary, done = engine._Module.training_step, []

    def training_step(self: Any, raw: Any, index: int) -> Any:
        here = self.index == stage and self.trainer.global_step == step and index % self.config.accumulate == micro
        if here and not done:
            done.append(True)
            act(self)
        return ordinary(self, raw, index)

    monkeypatch.setattr(engine._Module, "training_step", training_step)


def kill(number: int) -> Any:
    """What `at_step` calls to send this process a signal."""
    return lambda module: os.kill(os.getpid(), number)
