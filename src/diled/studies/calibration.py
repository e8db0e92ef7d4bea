"""The calibration curve of DMaaPx: how the test ELBO of normal training rises and falls over 1,000 epochs of BinaryMNIST.

    python -m diled.studies.calibration [--epochs 1000] [--seeds 0] [--only vae@real/rate=0.0003]

All 60,000 training images, the paper's fully connected network, no augmentation, no early stopping. Every `--every` epochs the
ELBO of 1,000 random test images is logged, with the same noise; nothing is chosen by it. In the paper it peaks near epoch 57 at
about -83.8 and falls to about -94.6. It takes some three hours on one core, and goes on where it was stopped.

The paper states neither the optimiser nor how 28 x 28 digits become 32 x 32: `VARIANTS` are other ways to do it, and their
curves, of fewer epochs perhaps, tell which of them is its way.

    test_elbo/epoch=..           of the 1,000 images
    peak_epoch, peak_test_elbo   where the curve is highest, and how high
    test_elbo, generalization_gap   at the end, of all test images, and of as many training images

Reference: Xiao, Zenn & Bamler 2024 (arXiv 2310.19653), Figure 10, left.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diled.api import identity_of
from diled.auditing import Subject, audit_models
from diled.data import Data, Split, open_data
from diled.evaluation.measure import Measured
from diled.runs import RunConfig
from diled.studies.ablations import looks
from diled.studies.commands import (
    as_records,
    exit_code,
    made_here,
    record_options,
    refuse_uncommitted,
    trained,
    training_of,
)
from diled.studies.dmaapx import STUDY, Arms, arms_of
from diled.studies.records import add
from diled.studies.training_dmaapx import place

__all__ = ["VARIANTS", "curve", "main", "undivided"]

NAME = "calibration"
VARIANTS: dict[str, dict[str, Any]] = {
    "vae@real": {},
    "vae@real/rate=0.0003": {"training.learning_rate": 3e-4},
    "vae@real/rate=0.0001": {"training.learning_rate": 1e-4},
    "vae@real/silu": {"model.network.activation": "silu"},
    "vae@real/batch=64": {"training.batch_size": 64},
    "vae@real/batch=512": {"training.batch_size": 512},
    "vae@real/resized": {"preprocess.size_policy": "stretch"},
    "vae@real/resized,rate=0.0003": {"preprocess.size_policy": "stretch", "training.learning_rate": 3e-4},
}
"""Ours (zeros around the digits, ReLU, Adam at 1e-3, batches of 128), and what the paper may have done instead."""
EPOCHS = (1, 2, 5, 10, 20, 50, 100, 200, 400, 600, 800, 1000)
"""Of which the curve is recorded, beside its peak."""


def undivided(data: Data, seen: int = 1000) -> Data:
    """All training images for training, and some random test images where a training looks at held-out ones."""
    train = Split(
        np.concatenate([data.train.values, data.validation.values]),
        {name: np.concatenate([v, data.validation.labels[name]]) for name, v in data.train.labels.items()},
        [*data.train.ids, *data.validation.ids],
    )
    some = np.random.default_rng(0).permutation(len(data.test))[:seen]
    return replace(data, train=train, validation=data.test.subset(some))


def curve(folder: Path, steps_per_epoch: float) -> dict[str, Measured]:
    """The recorded epochs of the logged curve, and its peak."""
    seen = {round(step / steps_per_epoch, 3): -bound for step, bound in looks(folder)}
    found = {}
    for epoch in EPOCHS:
        nearest = min(seen, key=lambda e: abs(e - epoch))
        if abs(nearest - epoch) <= 0.05 * epoch + 0.5:
            found[f"test_elbo/epoch={epoch}"] = Measured(seen[nearest], n=1000, note=f"epoch {nearest:g}")
    peak = max(seen, key=lambda e: seen[e])
    note = f"of {len(seen)} looks at 1,000 test images"
    return found | {"peak_epoch": Measured(peak, note=note), "peak_test_elbo": Measured(seen[peak], n=1000, note=note)}


def plan_of(variant: str) -> Arms:
    """The study at the paper's scale, changed as one of the variants says."""
    plan = arms_of("dmaapx-mnist", "paper")
    return replace(plan, base=plan.base | VARIANTS[variant])


def config_of(plan: Arms, seed: int, epochs: int, every: float, per_epoch: float) -> RunConfig:
    """Normal training as the paper has it, with a look every so many epochs."""
    config = plan.config("vae@real", seed)
    training = {"epochs": epochs, "monitor_every": max(1, round(every * per_epoch)), "log_every": 500}
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def main(argv: list[str] | None = None) -> int:
    """Train, measure and record from the command line."""
    parser = argparse.ArgumentParser(prog="python -m diled.studies.calibration", description="The calibration curve.")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--every", type=float, default=1.0, help="epochs between two looks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", choices=list(VARIANTS), default=next(iter(VARIANTS)), metavar="VARIANT")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    record_options(parser)
    chosen = parser.parse_args(argv)
    return exit_code(lambda: _run(chosen))


def _run(chosen: argparse.Namespace) -> None:
    if not chosen.trial:
        refuse_uncommitted()
    plan = plan_of(chosen.only)
    first = plan.config("vae@real", 0)
    data = undivided(open_data(first.data, first.preprocess))
    per_epoch = len(data.train) / first.training.batch_size
    for seed in chosen.seeds:
        config = config_of(plan, seed, chosen.epochs, chosen.every, per_epoch)
        out = place(chosen.runs / NAME, chosen.only.replace("vae@real", "vae"), seed)
        model = trained(config, out, data=data)
        subject = Subject("vae", model.density, identity_of(model.density), data)
        audited = audit_models([subject], out / "audit", effort=plan.effort, sections=("bounds",))["vae"]
        found = curve(out, per_epoch)
        found["generalization_gap"] = audited.figures["generalization_gap"]
        bound = audited.figures["bound_nats/test"]
        assert bound.value is not None
        found["test_elbo"] = replace(bound, value=-bound.value)
        print("\n".join(f"{name}: {m.value:.2f}" for name, m in found.items() if m.value is not None), flush=True)
        if not chosen.trial:
            command = f"python -m diled.studies.calibration --epochs {chosen.epochs} --every {chosen.every:g}"
            command += f" --only {chosen.only}" if VARIANTS[chosen.only] else ""
            records = as_records(
                found,
                study=STUDY,
                data=f"mnist/threshold/{NAME}",
                system=chosen.only,
                seed=seed,
                **training_of({**model.provenance, "parameters": model.parameters}),
                **made_here(),
                command=f"{command} --seeds {seed}",
            )
            add(chosen.results / f"{STUDY}.json", records)


if __name__ == "__main__":
    sys.exit(main())
