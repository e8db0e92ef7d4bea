"""Speed against bare loops, memory, and start-up.

    python benchmarks/speed.py                  # prints; add --record to write results/speed.json

Training: `diled.training.engine.fit` against a bare PyTorch loop over the same modules, with the same work (gathering and
binarising a batch, the loss, clipping, fused AdamW, the learning-rate schedule, averaged weights). Sampling: `Model.sample`
against a bare loop over the same networks. Ratios of CPU-seconds, ours and the bare one in turn, each
first in every other round, one thread; medians.
MNIST's shapes and sizes are used with random pictures where the data are not at hand: speed does not depend on them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import copy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from diled.api import stack
from diled.config import DataSpec, TrainingConfig
from diled.diffusion.schedule import alpha, sigma
from diled.family import model_config
from diled.model import Model
from diled.models.zoo import Recipe, build
from diled.runs import commit, hardware
from diled.space import to_space
from diled.studies.records import Record, add
from diled.training.data import Batches
from diled.training.engine import fit, learning_rate

CASES = {
    "mnist": {"side": 28, "examples": 20_000, "width": 400, "steps": 250},
    "digits": {"side": 8, "examples": 1_293, "width": 256, "steps": 500},
}
ROUNDS = 7


def setting(name: str) -> tuple[DataSpec, torch.Tensor, Recipe]:
    """Data of a case's shape and DiLED in its size."""
    case = CASES[name]
    spec = DataSpec(kind="image", shape=(1, case["side"], case["side"]), levels=2, binarize="dynamic")
    values = torch.randint(0, 256, (case["examples"], *spec.shape), dtype=torch.uint8)
    config = model_config("diled", {"latent_dim": 32, "network": {"kind": "mlp", "width": case["width"]}})
    return spec, values, build("diled", config, spec)


def ours(spec: DataSpec, values: torch.Tensor, recipe: Recipe, steps: int) -> float:
    """CPU-seconds of one step inside `fit`, without its start and end."""
    seen: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        fit(
            recipe.model,
            recipe.stages,
            values,
            values[:100],
            spec,
            TrainingConfig(steps=steps, monitor_every=10 * steps, device="cpu"),
            Path(folder),
            say=lambda line: None,
            progress=lambda stage, step, steps, nats: seen.append((step, time.process_time())),
        )
    (first, start), (last, end) = next(s for s in seen if s[0] >= 20), seen[-1]
    return (end - start) / (last - first)


def bare(spec: DataSpec, values: torch.Tensor, recipe: Recipe, steps: int) -> float:
    """CPU-seconds of one step of a plain loop that does the same."""
    model = recipe.model.train()
    averaged = copy.deepcopy(model)
    parameters, averages = list(model.parameters()), list(averaged.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: learning_rate(k, steps, steps // 10))
    start = 0.0
    for step, batch in zip(range(steps), Batches(values, 128, seed=0), strict=False):
        if step == 20:
            start = time.process_time()
        x = to_space(batch.x, spec)
        loss = stack(model.terms(x, progress=torch.full((), step / steps))).sum(0).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 200.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - min(0.999, (1 + step) / (10 + step)))
    return (time.process_time() - start) / (steps - 20)


def sample_ours(model: Model, n: int) -> float:
    """CPU-seconds of `Model.sample`."""
    start = time.process_time()
    model.sample(n, steps=25, seed=0)
    return time.process_time() - start


@torch.no_grad()
def sample_bare(model: Model, n: int) -> float:
    """CPU-seconds of DDIM written out over the same networks, in batches of the same size."""
    start = time.process_time()
    prior, decoder = model.density.prior, model.density.decoder
    gammas = prior.schedule.gamma(torch.linspace(1, 0, 26))
    out = []
    for first in range(0, n, 512):
        z = torch.randn(min(512, n - first), *prior.shape)
        for t, s in zip(gammas[:-1], gammas[1:], strict=True):
            x_hat = prior.denoiser(z, (-t).expand(len(z)))
            e_hat = (z - alpha(t) * x_hat) / sigma(t)
            z = alpha(s) * x_hat + sigma(s) * e_hat
        out.append(decoder(z).mean)
    (127.5 * (torch.cat(out) + 1)).round().clamp(0, 255).to(torch.uint8).numpy()
    return time.process_time() - start


def ratios(name: str) -> tuple[list[float], list[float]]:
    """Throughput of ours relative to the bare loop, training and sampling, round by round."""
    steps = CASES[name]["steps"]
    training, sampling = [], []
    for turn in range(ROUNDS):
        seconds = {run: run(*setting(name), steps) for run in ((ours, bare), (bare, ours))[turn % 2]}
        training.append(seconds[bare] / seconds[ours])
        spec, _, recipe = setting(name)
        model = Model(recipe.model, spec)
        for warm_up in (sample_bare, sample_ours):
            warm_up(model, 1024)
        order = ((sample_ours, sample_bare), (sample_bare, sample_ours))[turn % 2]
        drawn = {run: run(model, 8192) for run in order}
        sampling.append(drawn[sample_bare] / drawn[sample_ours])
    return training, sampling


def peak_memory(kind: str) -> float:
    """Peak resident MiB of a fresh process that trains 100 steps of the MNIST case, `ours` or `bare`."""
    code = (
        "import resource, torch; torch.manual_seed(0)\n"
        f"from speed import setting, ours, bare\n"
        f"{kind}(*setting('mnist'), 100)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def start_up() -> float:
    """Seconds of `diled --help`, the median of several processes."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "diled.cli", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure, print, and record where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--record", action="store_true", help="write results/speed.json")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found: list[tuple[str, str, float, float | None]] = []
    for name in CASES:
        for metric, values in zip(("throughput_ratio", "sampling_ratio"), ratios(name), strict=True):
            spread = statistics.stdev(values) / np.sqrt(len(values))
            found.append((name, metric, statistics.median(values), float(spread)))
            print(f"{name}: {metric} {statistics.median(values):.3f} (rounds: {', '.join(f'{v:.3f}' for v in values)})")
    for kind in ("ours", "bare"):
        found.append(("mnist", f"peak_memory_mib/{kind}", peak_memory(kind), None))
        print(f"mnist: peak memory, {kind}: {found[-1][2]:.0f} MiB")
    found.append(("none", "startup_seconds", start_up(), None))
    print(f"diled --help: {found[-1][2]:.3f} s")
    if chosen.record:
        made = {"hardware": hardware(), "commit": commit() or "", "command": "python benchmarks/speed.py --record"}
        blank = dict.fromkeys(("steps", "train_seconds", "cpu_seconds", "parameters"))
        records = [
            Record(
                "speed", data, "diled", 0, metric, value, spread, ROUNDS if spread is not None else 1, **blank, **made
            )
            for data, metric, value, spread in found
        ]
        add(Path(__file__).resolve().parents[1] / "results" / "speed.json", records)


if __name__ == "__main__":
    main()
