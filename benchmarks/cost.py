"""What DiLED costs: samplers by their steps, an epoch beside a VAE's, and how cost grows with the model's sizes.

    python benchmarks/cost.py --run RUN             # all parts, into results/cost.json; RUN: DiLED, trained on MNIST
    python benchmarks/cost.py --what epochs --trial          # one part, printed and not recorded

Costs are ratios of CPU-seconds on one thread. All systems of a part run in turn in one process, every other round in
reverse; a ratio is taken within its round, and the median over rounds is reported. A second copy of the base is
measured like the others and tells how far to trust them.

samplers   each sampler's Frechet distance from the same noise, and its time for one batch, relative to DDIM in 1,000 steps
epochs     a training step relative to the VAE's, with two floors: all products of matrices counted (`flop_ratio`), and the
           time of the VAE's step with the denoiser's products, bare of everything around them (`floor_ratio`)
scaling    a training step relative to that of DiLED as it is by default: encoding levels, size of the code, noise levels
           per code, width of the denoiser

Training steps use random pictures of MNIST's shape: their cost does not depend on what is in them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diled.api import Stage, total
from diled.config import DataSpec, TrainingConfig
from diled.data import Data, Split, open_data
from diled.errors import ConfigError
from diled.evaluation.feature_nets import extract
from diled.evaluation.images import frechet
from diled.evaluation.measure import features_for
from diled.family import model_config
from diled.model import Model, load
from diled.models.sampling import BATCH, sample_batches
from diled.models.zoo import build
from diled.runs import read_run
from diled.space import raw_tensor, to_space
from diled.studies.commands import exit_code, made_here, record_options, refuse_uncommitted, training_of
from diled.studies.records import Record, add
from diled.training.budget import ENGINE, seconds_per_step

ROUNDS = 7
SPEC = DataSpec(kind="image", shape=(1, 28, 28), levels=2, binarize="dynamic")
TRAINING = TrainingConfig(device="cpu")
LATENT = 32

SAMPLERS = (
    *(("ddim", steps) for steps in (20, 50, 1000)),
    *(("dpm_solver", steps) for steps in (5, 10, 15, 20)),
    ("heun", 10),
    *(("ancestral", steps) for steps in (50, 250, 1000)),
)
BACKBONES: dict[str, tuple[dict[str, Any], int]] = {
    "mnist/mlp": ({"kind": "mlp", "width": 400}, 20),
    "mnist/conv": ({"kind": "conv", "channels": 32}, 3),
}
"""Name -> network, and training steps in a block."""
EPOCHS: dict[str, dict[str, int]] = {
    "diled": {},
    "diled/t=1": {"times_per_code": 1},
    "diled/t=2": {"times_per_code": 2},
    "diled/t=1,width=128": {"times_per_code": 1, "width": 128},
    "diled/t=1,width=96": {"times_per_code": 1, "width": 96},
}
"""System -> its prior."""
SCALING: dict[str, tuple[str, dict[str, Any]]] = {
    "levels=1": ("diled", {}),
    **{f"levels={n}": ("diled_levels", {"levels": n}) for n in (2, 4)},
    **{f"latent={dim}": ("diled", {"latent_dim": dim}) for dim in (8, 16, 32, 64, 128, 256)},
    **{f"times={k}": ("diled", {"prior": {"times_per_code": k}}) for k in (1, 2, 4, 8, 16)},
    **{f"width={width}": ("diled", {"prior": {"width": width}}) for width in (64, 96, 128, 192, 256, 384)},
}
"""What differs from the default -> model and values."""

Found = tuple[str, str, str, float, float | None, int, str]
"""Data, system, metric, value, standard error, n and note of a record."""


def in_turn(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """CPU-seconds of each, round by round; every other round goes backwards."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            taken[name].append(runs[name]())
    return taken


def relative(mine: Sequence[float], base: Sequence[float]) -> tuple[float, float | None, int]:
    """Median over rounds of the ratio within a round, its standard error, and the number of rounds."""
    ratios = [a / b for a, b in zip(mine, base, strict=True)]
    spread = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else None
    return statistics.median(ratios), spread, len(ratios)


# Samplers ------------------------------------------------------------------------------------------------------------


def samplers(
    model: Model, data: Data, chosen: Sequence[tuple[str, int]] = SAMPLERS, *, n: int = 10_000, rounds: int = ROUNDS
) -> list[Found]:
    """Frechet distance of n samples of each sampler from the same noise, and the time of a batch relative to the slowest.

    The slowest is DDIM at the most steps among those chosen.
    """
    net = features_for(data)
    assert net is not None
    grey = data.spec.model_copy(update={"binarize": "none"})

    def real(split: Split) -> np.ndarray:
        few = split.subset(np.random.default_rng(0).permutation(len(split))[:n])
        return np.concatenate([extract(net, to_space(raw, grey)) for raw in raw_tensor(few.values).split(BATCH)])

    reference, note = real(data.test), f"{net.name}; samples against test; noise of seed 0"
    floor = frechet(real(data.train), reference)
    found: list[Found] = [("mnist", "diled", "frechet_floor", floor, None, n, f"{net.name}; train against test")]
    for sampler, steps in chosen:
        drawn = torch.cat(list(sample_batches(model.density, n, steps=steps, sampler=sampler, seed=0)))
        distance = frechet(extract(net, drawn), reference)
        found.append(("mnist", "diled", f"frechet_samples/{sampler}-{steps}", distance, None, n, note))
        print(f"{sampler}, {steps} steps: {distance:.2f}", flush=True)

    def batch(sampler: str, steps: int) -> Callable[[], float]:
        def run() -> float:
            repeats = max(1, 50 // steps)
            start = time.process_time()
            for _ in range(repeats):
                list(sample_batches(model.density, min(n, BATCH), steps=steps, sampler=sampler, seed=0))
            return (time.process_time() - start) / repeats

        return run

    taken = in_turn({f"{sampler}-{steps}": batch(sampler, steps) for sampler, steps in chosen}, rounds)
    base = f"ddim-{max(steps for sampler, steps in chosen if sampler == 'ddim')}"
    how = f"CPU time of {min(n, BATCH)} samples, relative to {base}"
    for name, seconds in taken.items():
        found.append(("mnist", "diled", f"seconds_ratio/{name}", *relative(seconds, taken[base]), how))
    return found


# Training steps ------------------------------------------------------------------------------------------------------


def stage(name: str, network: dict[str, Any], values: Mapping[str, Any]) -> Stage:
    """The only stage of a model."""
    config = model_config(name, {"latent_dim": LATENT, "network": network} | dict(values))
    (only,) = build(name, config, SPEC).stages
    return only


@cache
def pictures() -> torch.Tensor:
    """Random ones of MNIST's shape.

    Opening a data set frees large pieces of memory, after which the C library keeps what each training step frees
    instead of returning it to the system and asking anew. One such piece is freed here as well.
    """
    torch.empty(30 * 2**20, dtype=torch.uint8)
    return torch.randint(0, 256, (5_000, *SPEC.shape), dtype=torch.uint8)


def steps_of(trained: Stage, steps: int) -> Callable[[], float]:
    """CPU-seconds of one optimiser step, without what the engine adds for every model alike."""
    return lambda: (
        seconds_per_step(trained, pictures(), SPEC, TRAINING, steps=steps, clock=time.process_time)
        - ENGINE * TRAINING.accumulate
    )


def products_of(trained: Stage, steps: int) -> Callable[[], float]:
    """CPU-seconds of the products of matrices in one step of a denoiser, forwards and backwards, and of nothing else."""
    prior: Any = trained.density.prior
    layers = [module for module in prior.denoiser.modules() if isinstance(module, nn.Linear)]
    rows = prior.times_per_code * TRAINING.batch_size
    parts = [(layer.weight.detach(), torch.randn(rows, layer.in_features)) for layer in layers]
    gradients = [torch.randn(rows, layer.out_features) for layer in layers]
    ends_here = [layer is prior.denoiser.network.time[0] for layer in layers]  # noise levels need no gradient

    def run() -> float:
        start = time.process_time()
        for _ in range(steps):
            for (weight, x), gradient, last in zip(parts, gradients, ends_here, strict=True):
                x @ weight.T
                gradient.T @ x
                if not last:
                    gradient @ weight
        return (time.process_time() - start) / steps

    return run


def flops(trained: Stage) -> int:
    """Floating-point operations in products of matrices and convolutions of one step, forwards and backwards."""
    x = to_space(pictures()[: TRAINING.batch_size], SPEC)
    with trained.training(), FlopCounterMode(display=False) as counter:
        total(trained.density.terms(x)).mean().backward()
    for p in trained.density.parameters():
        p.grad = None
    return counter.get_total_flops()


def epochs(
    backbones: Mapping[str, tuple[dict[str, Any], int]] = BACKBONES,
    systems: Mapping[str, Mapping[str, int]] = EPOCHS,
    *,
    rounds: int = ROUNDS,
) -> list[Found]:
    """A training step of DiLED relative to one of the VAE, for each backbone."""
    found: list[Found] = []
    for data, (network, steps) in backbones.items():
        ours = {system: stage("diled", network, {"prior": prior}) for system, prior in systems.items()}
        vae = stage("vae", network, {})
        runs = {"base": steps_of(vae, steps), "vae": steps_of(stage("vae", network, {}), steps)}
        runs |= {system: steps_of(trained, steps) for system, trained in ours.items()}
        runs |= {f"products of {system}": products_of(trained, steps) for system, trained in ours.items()}
        taken = in_turn(runs, rounds)
        note = "CPU time of a training step, relative to the VAE's"
        found.append((data, "vae", "epoch_ratio", *relative(taken["vae"], taken["base"]), f"{note}; a second VAE"))
        for system, trained in ours.items():
            ratio = flops(trained) / flops(vae)
            floor = [a + b for a, b in zip(taken["base"], taken[f"products of {system}"], strict=True)]
            found.append((data, system, "epoch_ratio", *relative(taken[system], taken["base"]), note))
            found.append((data, system, "floor_ratio", *relative(floor, taken["base"]), "the VAE's step and products"))
            found.append((data, system, "flop_ratio", ratio, None, 1, "products of matrices and convolutions"))
    return found


def scaling(
    cases: Mapping[str, tuple[str, dict[str, Any]]] = SCALING, *, steps: int = 20, rounds: int = ROUNDS
) -> list[Found]:
    """A training step of changed models relative to one of DiLED as it is by default, on the MLP backbone."""
    network = BACKBONES["mnist/mlp"][0]
    runs = {"base": steps_of(stage("diled", network, {}), steps)}
    runs |= {case: steps_of(stage(name, network, values), steps) for case, (name, values) in cases.items()}
    taken, note = in_turn(runs, rounds), "CPU time of a training step, relative to the default's"
    return [("mnist/mlp", "diled", f"cost_ratio/{case}", *relative(taken[case], taken["base"]), note) for case in cases]


# The command ---------------------------------------------------------------------------------------------------------


def measured(part: str, run: Path | None) -> list[Record]:
    """One part as records.

    Raises:
        ConfigError: samplers are wanted without a trained DiLED.
    """
    command, made, remark = f"python benchmarks/cost.py --what {part}", {}, ""
    if part == "samplers":
        if run is None or read_run(run).name != "diled":
            raise ConfigError(
                "Samplers are measured on a trained DiLED: give --run RUN, as made by "
                "python -m diled.studies.table mnist-table --only diled; or choose other parts with --what."
            )
        config, model = read_run(run), load(run)
        found = samplers(model, open_data(config.data, config.preprocess))
        made = model.provenance | {"parameters": model.parameters}
        command += f" --run {Path('runs', *run.resolve().parts[-2:])}"
        remark = f"; trained at commit {made.get('commit')}"
    else:
        found = epochs() if part == "epochs" else scaling()
    shared = training_of(made) | made_here() | {"seed": made.get("seed", 0), "command": command}
    return [
        Record(
            study="cost",
            data=data,
            system=system,
            metric=metric,
            value=value,
            stderr=stderr,
            n=n,
            note=note + remark,
            **shared,
        )
        for data, system, metric, value, stderr, n, note in found
    ]


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and record."""
    parts = ("samplers", "epochs", "scaling")
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--what", nargs="+", choices=parts, default=parts)
    parser.add_argument("--run", type=Path, help="a trained DiLED, for the samplers")
    record_options(parser)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    return exit_code(lambda: _run(chosen), "cost")


def _run(chosen: argparse.Namespace) -> None:
    if not chosen.trial:
        refuse_uncommitted()
    for part in chosen.what:
        records = measured(part, chosen.run)
        for r in records:
            spread = "" if r.stderr is None else f" ± {r.stderr:.3f}"
            print(f"{r.data}, {r.system}: {r.metric} {r.value:.3f}{spread}", flush=True)
        if not chosen.trial:
            add(chosen.results / "cost.json", records)


if __name__ == "__main__":
    sys.exit(main())
