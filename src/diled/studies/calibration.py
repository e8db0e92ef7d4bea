"""The calibration curve of DMaaPx: how the test ELBO of normal training rises and falls over 1,000 epochs of BinaryMNIST.

    python -m diled.studies.calibration [--epochs 1000] [--seeds 0]

All 60,000 training images, the paper's fully connected network, no augmentation, no early stopping. Every `--every` epochs the
ELBO of 1,000 random test images is logged, with the same noise; nothing is chosen by it. In the paper it peaks near epoch 57 at
about -83.8 and falls to about -94.6. It takes some two hours on one core, and goes on where it was stopped.

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
from diled.studies.dmaapx import STUDY, arms_of
from diled.studies.records import add

__all__ = ["curve", "main", "undivided"]

NAME = "calibration"
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


def config_of(seed: int, epochs: int, every: float, per_epoch: float) -> RunConfig:
    """Normal training as the paper has it, with a look every so many epochs."""
    config = arms_of("dmaapx-mnist", "paper").config("vae@real", seed)
    training = {"epochs": epochs, "monitor_every": max(1, round(every * per_epoch)), "log_every": 500}
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def main(argv: list[str] | None = None) -> int:
    """Train, measure and record from the command line."""
    parser = argparse.ArgumentParser(prog="python -m diled.studies.calibration", description="The calibration curve.")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--every", type=float, default=1.0, help="epochs between two looks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    record_options(parser)
    chosen = parser.parse_args(argv)
    return exit_code(lambda: _run(chosen))


def _run(chosen: argparse.Namespace) -> None:
    if not chosen.trial:
        refuse_uncommitted()
    plan = arms_of("dmaapx-mnist", "paper")
    first = plan.config("vae@real", 0)
    data = undivided(open_data(first.data, first.preprocess))
    per_epoch = len(data.train) / first.training.batch_size
    for seed in chosen.seeds:
        config = config_of(seed, chosen.epochs, chosen.every, per_epoch)
        out = chosen.runs / NAME / f"vae-{seed}"
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
            command = (
                f"python -m diled.studies.calibration --epochs {chosen.epochs} --every {chosen.every:g} --seeds {seed}"
            )
            records = as_records(
                found,
                study=STUDY,
                data=f"mnist/threshold/{NAME}",
                system="vae@real",
                seed=seed,
                **training_of({**model.provenance, "parameters": model.parameters}),
                **made_here(),
                command=command,
            )
            add(chosen.results / f"{STUDY}.json", records)


if __name__ == "__main__":
    sys.exit(main())
