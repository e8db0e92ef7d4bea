"""How far off log p(x) by annealed importance sampling is: its gap by BDMC as a function of the steps of annealing.

    python benchmarks/bdmc.py                # trains, measures, and writes results/bdmc.json
    python benchmarks/bdmc.py --trial        # prints only; --training, --examples, --steps and --weights make it shorter

    lower <= log p(x) <= upper,    gap = upper - lower              in expectation, for samples x of the model itself

A VAE with a code of 16 numbers and MLPs of width 256 is trained on MNIST, binarised anew in each step. Then

    bdmc_gap_nats/steps=T          of samples of the model, T intermediate distributions, 16 chains
    ais_nats/steps=T               log p(x) of test images by the same steps
    ais_less_iwae_nats/steps=T     that, less log p(x) of the same images from importance weights
    iwae_nats/weights=K            the latter

An estimate is good enough to split an inference gap where the gap of BDMC is below 0.1 nat. In full it takes some three hours
of one core, nearly all of it for the most steps.

References: Grosse et al. 2015 (arXiv 1511.02543); Wu et al. 2017 (arXiv 1611.04273).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diled.config import PreprocessConfig, TrainingConfig
from diled.data import Data, open_data
from diled.draws import seeded
from diled.errors import ConfigError
from diled.evaluation.ais import ais, bdmc
from diled.evaluation.codes import averaged
from diled.evaluation.likelihood import iwae
from diled.evaluation.measure import Measured
from diled.family import model_config
from diled.model import Model
from diled.runs import RunConfig
from diled.space import raw_tensor, to_space
from diled.studies.commands import (
    as_records,
    exit_code,
    made_here,
    record_options,
    refuse_uncommitted,
    trained,
    training_of,
)
from diled.studies.records import add

LATENT, WIDTH = 16, 256
SIZE = {"training": 2500, "examples": 100, "steps": [100, 300, 1000, 3000, 10_000], "weights": 5000}
"""Steps of the training, images and samples, steps of annealing, importance weights of each image."""
CHAINS = 16
PREPROCESS = PreprocessConfig(binarize="dynamic")
Figures = dict[str, Measured]


def vae(data: Data, steps: int, device: str) -> Model:
    """The VAE, trained."""
    values = {"latent_dim": LATENT, "network": {"kind": "mlp", "width": WIDTH}}
    config = RunConfig(
        data="mnist",
        name="vae",
        model=model_config("vae", values),
        training=TrainingConfig(steps=steps),
        preprocess=PREPROCESS,
    )
    with tempfile.TemporaryDirectory() as folder:
        return trained(config, Path(folder) / "vae", data=data, device=device)


def pictures(data: Data, n: int, device: str) -> Tensor:
    """Random test images, binarised once."""
    rows = np.random.default_rng(0).permutation(len(data.test))[:n]
    with seeded(0):
        return to_space(raw_tensor(data.test.values[rows]), data.spec).to(device)


def figures(model: Model, x: Tensor, steps: list[int], weights: int) -> Iterator[Figures]:
    """What is found, one number of steps after the other; first of all log p(x) from importance weights."""
    weighted = iwae(model.density, x, (weights,))
    note = f"{weighted.ess.mean():.3g} effective weights on average"
    yield {f"iwae_nats/weights={weights}": averaged(weighted.best.cpu(), note)}
    for t in steps:
        found = ais(model.density, x, steps=t, chains=CHAINS)
        both = bdmc(model.density, len(x), steps=t, chains=CHAINS)
        how = f"{CHAINS} chains"
        yield {
            f"bdmc_gap_nats/steps={t}": averaged(both.gap.cpu(), f"{how}; samples of the model"),
            f"ais_nats/steps={t}": averaged(found.log_p.cpu(), f"{how}, {found.acceptance.mean():.0%} accepted"),
            f"ais_less_iwae_nats/steps={t}": averaged((found.log_p - weighted.best).cpu(), f"{how}; {weights} weights"),
        }


def main(argv: list[str] | None = None) -> int:
    """Train, measure, print, and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--training", type=int, default=SIZE["training"], help="steps of the training")
    parser.add_argument("--examples", type=int, default=SIZE["examples"], help="test images, and samples of the model")
    parser.add_argument("--steps", type=int, nargs="+", default=SIZE["steps"], help="of annealing")
    parser.add_argument("--weights", type=int, default=SIZE["weights"], help="of each image")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    record_options(parser)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    return exit_code(lambda: _run(chosen), "bdmc")


def _run(chosen: argparse.Namespace) -> None:
    if not chosen.trial:
        if {key: getattr(chosen, key) for key in SIZE} != SIZE:
            raise ConfigError("Results are recorded at full size only: add --trial, or leave the sizes as they are.")
        refuse_uncommitted()
    data = open_data("mnist", PREPROCESS)
    model = vae(data, chosen.training, chosen.device)
    made = training_of({**model.provenance, "parameters": model.parameters})
    command = "python benchmarks/bdmc.py" + (" --device cuda" if chosen.device == "cuda" else "")
    shared = {"study": "bdmc", "data": "mnist/dynamic", "system": "vae", "seed": 0, "command": command}
    for found in figures(model, pictures(data, chosen.examples, chosen.device), chosen.steps, chosen.weights):
        for metric, m in found.items():
            spread = "" if m.stderr is None else f" ± {m.stderr:.3f}"
            print(f"{metric}: {m.value:.3f}{spread} (n = {m.n}; {m.note})", flush=True)
        if not chosen.trial:
            add(chosen.results / "bdmc.json", as_records(found, **shared, **made, **made_here()))


if __name__ == "__main__":
    sys.exit(main())
