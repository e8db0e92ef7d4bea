"""The amortization gap of many examples at once against a loop over examples: the same code, the same numbers.

    python benchmarks/amortization.py                # measures, and writes results/amortization-speed.json
    python benchmarks/amortization.py --trial        # prints only; --steps, --rounds and --alone make it shorter

`optimal_bounds` of all examples in one batch against the same call with `batch=1`, of a VAE with MLPs and Bernoulli pixels, in
MNIST's shape. An example gets the same noise in both, so both must find the same bounds, which is checked. CPU-seconds per
example on one thread (on a GPU: seconds), both in turn, every other round in reverse; the ratio is taken within a round
and the median over rounds is reported. Pictures and weights are random: the time does not depend on them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cost import in_turn, relative

from diled.config import DataSpec
from diled.errors import ConfigError, DiledError
from diled.evaluation.amortization import Amortization, optimal_bounds
from diled.family import model_config
from diled.models.zoo import build
from diled.runs import commit, hardware
from diled.studies.records import Record, add

COMMAND = "python benchmarks/amortization.py"
SPEC = DataSpec(kind="image", shape=(1, 28, 28), levels=2, binarize="dynamic")
WIDTH, LATENT = 256, 32
SAMPLES = (1, 16)
TOLERANCE = 0.05
"""Nats by which a bound may differ: products of matrices round differently in other batches, and Adam carries it on."""


def vae(device: str) -> Any:
    """The VAE and its size in parameters."""
    torch.manual_seed(0)
    network = {"kind": "mlp", "width": WIDTH}
    model = build("vae", model_config("vae", {"latent_dim": LATENT, "network": network}), SPEC).model
    return model.to(device)


def pictures(n: int, device: str) -> torch.Tensor:
    """Random bits of MNIST's shape."""
    return (torch.rand(n, *SPEC.shape, generator=torch.Generator().manual_seed(0)) < 0.2).float().to(device) * 2 - 1


def ratios(samples: int, *, examples: int, alone: int, steps: int, rounds: int, device: str) -> list[Record]:
    """Time per example in a loop over `alone` examples, relative to that of `examples` at once.

    Raises:
        ConfigError: the two find different bounds.
    """
    model, x = vae(device), pictures(examples, device)
    found: dict[str, Amortization] = {}
    clock = time.perf_counter if device == "cuda" else time.process_time

    def run(name: str, part: torch.Tensor, batch: int) -> Callable[[], float]:
        def seconds() -> float:
            start = clock()
            found[name] = optimal_bounds(model, part, steps=steps, samples=samples, batch=batch)
            found[name].gap.sum().item()  # a GPU has finished when its numbers are here
            return (clock() - start) / len(part)

        return seconds

    runs = {"loop": run("loop", x[:alone], 1), "batch": run("batch", x, examples)}
    optimal_bounds(model, x[:2], steps=4, samples=samples)  # a first call costs more
    taken = in_turn(runs, rounds)
    for loop, batch in (
        (found["loop"].bound, found["batch"].bound[:alone]),
        (found["loop"].best_bound, found["batch"].best_bound[:alone]),
    ):
        apart = (loop - batch).abs().max().item()
        if not apart < TOLERANCE:
            raise ConfigError(f"The loop and the batch find bounds that are {apart:.3f} nats apart.")
    value, stderr, n = relative(taken["loop"], taken["batch"])
    seconds = sorted(taken["batch"])[n // 2]
    note = (
        f"time per example, {alone} in turn relative to {examples} at once; {steps} steps, two starts; "
        f"bounds agree within {apart:.1e} nats; at once {seconds:.3f} s per example"
    )
    return [
        Record(
            "amortization-speed",
            "mnist",
            "vae",
            0,
            f"seconds_ratio/samples={samples}" + ("/gpu" if device == "cuda" else ""),
            value,
            stderr,
            n,
            steps,
            None,
            None,
            sum(p.numel() for p in model.parameters()),
            hardware(),
            commit() or "",
            COMMAND + (" --device cuda" if device == "cuda" else ""),
            note,
        )
    ]


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--trial", action="store_true", help="print, and record nothing")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--examples", type=int, default=250, help="optimised at once")
    parser.add_argument("--alone", type=int, default=5, help="optimised one by one")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    size = {"examples": chosen.examples, "alone": chosen.alone, "steps": chosen.steps, "rounds": chosen.rounds}
    try:
        if not chosen.trial and any(size[key] != parser.get_default(key) for key in size):
            raise ConfigError("Results are recorded at full size only: add --trial, or leave the sizes as they are.")
        if not chosen.trial and (commit() or "-dirty").endswith("-dirty"):
            raise ConfigError("Results are recorded by committed code only: commit the changes, or add --trial.")
        for samples in SAMPLES:
            records = ratios(samples, **size, device=chosen.device)
            for r in records:
                spread = "" if r.stderr is None else f" ± {r.stderr:.2f}"
                print(f"{r.metric}: {r.value:.2f}{spread} ({r.note})", flush=True)
            if not chosen.trial:
                add(chosen.results / "amortization-speed.json", records)
    except DiledError as error:
        print(f"amortization: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
