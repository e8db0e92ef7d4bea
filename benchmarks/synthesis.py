"""Speed of synthesis: images per CPU-second, against diffusers' own pipeline over the same network.

    python benchmarks/synthesis.py --trial      # prints; without --trial it writes results/synthesis-speed.json

    ratio = (images / CPU-second of ours) / (images / CPU-second of DDIMPipeline)

Both draw with one UNet2DModel, the same number of DDIM steps, one thread, up to 8-bit arrays. Batches are those of the name,
the same for both, but for `by-64`, where diffusers computes the 256 that are asked for at once and ours, as it does by itself,
64 at a time. All take turns, each round from another one on; medians over rounds. Each has a process of its own, since how
much free memory glibc keeps depends on what a process has drawn before, and ours sets it (`diled.memory`). `model` is a
DataDiffusion of ours over that network. Shards and PNG files are left out.

Then, with the smaller network trained a little on MNIST: the Frechet distance of samples in fp32 and in bf16, from the same
noise, to test images; and images per second of two processes (--shard 0/2 and 1/2) against one, start-up left out. On a
processor without instructions for bf16 only a trial runs, without its ratios.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from torch import Tensor, nn

from diled.api import has_bf16
from diled.config import DataSpec
from diled.data import open_data
from diled.diffusion import DataDiffusion, Diffusion
from diled.diffusion.parameterization import Eps
from diled.diffusion.schedule import ddpm_beta
from diled.drawing import source_of
from diled.draws import seeded
from diled.errors import ConfigError
from diled.evaluation.feature_nets import extract, feature_net
from diled.evaluation.images import frechet
from diled.evaluation.measure import Measured
from diled.memory import kept_memory
from diled.model import Model
from diled.space import raw_tensor, to_space
from diled.studies.commands import as_records, exit_code, made_here, record_options, refuse_uncommitted, training_of
from diled.studies.records import add
from diled.synthesizing import synthesize

SPEC = DataSpec(kind="image", shape=(1, 28, 28), levels=256, mode="L")
SMALL, LARGE = 64, 256
"""Batches: what ours computes at once by itself, and what is drawn in a round."""
STEPS = 4
"""Of DDIM, where only time is measured."""
PAIRS = {
    "fp32/batch=64": ("diled/fp32/64", "diffusers/fp32/64"),
    "fp32/batch=256": ("diled/fp32/256", "diffusers/fp32/256"),
    "fp32/batch=256/by-64": ("diled/fp32/64", "diffusers/fp32/256"),
    "bf16/batch=64": ("diled/bf16/64", "diffusers/bf16/64"),
    "bf16/batch=256": ("diled/bf16/256", "diffusers/bf16/256"),
    "bf16-to-fp32/batch=64": ("diled/bf16/64", "diffusers/fp32/64"),
    "bf16-to-fp32/batch=256": ("diled/bf16/256", "diffusers/fp32/256"),
    "model-fp32/batch=64": ("model/fp32/64", "diffusers/fp32/64"),
    "model-bf16-to-fp32/batch=64": ("model/bf16/64", "diffusers/fp32/64"),
}
"""Ratio -> ours and theirs, by source, type and images that are computed at once."""
SIZE = {"rounds": 5, "training": 1500, "samples": 1000, "pool": 2048}
Draw = Callable[[], np.ndarray]


class Times(nn.Module):
    """A network over the T steps of a chain as one over log SNR."""

    def __init__(self, network: nn.Module, schedule: nn.Module) -> None:
        super().__init__()
        self.network, self.schedule = network, schedule

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """The estimate of the noise."""
        t = self.schedule.time(-log_snr) * (len(self.schedule.table) - 1)
        return self.network(z_t, t).sample


def network(width: int) -> UNet2DModel:
    """A U-Net of two levels, with attention between them."""
    with seeded(0):
        return UNet2DModel(
            sample_size=28,
            in_channels=1,
            out_channels=1,
            block_out_channels=(width, 2 * width),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        ).eval()


def pipeline(unet: UNet2DModel) -> DDIMPipeline:
    """It behind DDIM on the noise levels of Ho et al. 2020."""
    pipe = DDIMPipeline(unet, DDIMScheduler(num_train_timesteps=1000))
    pipe.set_progress_bar_config(disable=True)
    return pipe


# Speed ----------------------------------------------------------------------------------------------------------------


def contestant(name: str, width: int, folder: Path) -> Draw:
    """What draws `LARGE` images with one network, by a name of `PAIRS`."""
    kind, dtype, batch = name.split("/")
    pipe = pipeline(network(width))
    if kind == "diffusers":
        return theirs(pipe, dtype, int(batch))
    if kind == "diled":
        pipe.save_pretrained(folder)
        return ours(folder, dtype, int(batch))
    schedule = ddpm_beta(1000)
    prior = Diffusion(Eps(Times(pipe.unet, schedule)), schedule, SPEC.shape, sampler="ddim")
    return ours(Model(DataDiffusion(prior, levels=256).eval(), SPEC, name="ddpm"), dtype, int(batch))


def ours(source: Any, dtype: Any, batch: int) -> Draw:
    """`synthesize` up to the raw values of a shard."""
    drawn = source_of(source, steps=STEPS, dtype=dtype, device="cpu")

    def draw() -> np.ndarray:
        with kept_memory(drawn.device):
            return np.concatenate(list(drawn.values(0, LARGE, 0, batch)))

    return draw


def theirs(pipe: DDIMPipeline, dtype: str, batch: int) -> Draw:
    """The pipeline, called as its documentation says."""

    def draw() -> np.ndarray:
        out = []
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            for _ in range(LARGE // batch):
                out.append(pipe(batch_size=batch, num_inference_steps=STEPS, output_type="np").images)
        return np.rint(np.concatenate(out) * 255).astype(np.uint8)

    return draw


READY: dict[tuple[str, int], Draw] = {}
"""What this process can draw with, by name and width."""


def seconds(name: str, width: int) -> float:
    """CPU-seconds in which a contestant draws `LARGE` images, in this process; it is made at its first turn."""
    torch.set_num_threads(1)
    if (name, width) not in READY:
        with tempfile.TemporaryDirectory() as folder:
            READY[name, width] = contestant(name, width, Path(folder))
    start = time.process_time()
    READY[name, width]()
    return time.process_time() - start


def pairs() -> dict[str, tuple[str, str]]:
    """`PAIRS`, without bf16 where the processor has no instructions for it: ours would compute in fp32 there."""
    return {name: pair for name, pair in PAIRS.items() if "bf16" not in name or has_bf16("cpu")}


def rates(width: int, rounds: int) -> dict[str, list[float]]:
    """Images per CPU-second of each, round by round, after one round to warm up."""
    names = list(dict.fromkeys(name for pair in pairs().values() for name in pair))
    found: dict[str, list[float]] = {name: [] for name in names}
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        own = {name: stack.enter_context(ProcessPoolExecutor(1, spawn)) for name in names}
        for turn in range(-1, rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                taken = own[name].submit(seconds, name, width).result()
                if turn >= 0:
                    found[name].append(LARGE / taken)
    return found


def speed(width: int, rounds: int) -> dict[str, Measured]:
    """The ratios of `PAIRS`: medians, with standard errors over rounds."""
    found, ratios = rates(width, rounds), {}
    for name, pair in pairs().items():
        each = [x / y for x, y in zip(*(found[one] for one in pair), strict=True)]
        ours, theirs = (f"{one} {statistics.median(found[one]):.1f}" for one in pair)
        ratios[f"{name}/width={width}"] = _median(each, f"images per CPU-second: {ours}, {theirs}")
    return ratios


def _median(values: list[float], note: str) -> Measured:
    return Measured(statistics.median(values), statistics.stdev(values) / len(values) ** 0.5, len(values), note)


# Quality and processes ------------------------------------------------------------------------------------------------


def train(unet: UNet2DModel, x: Tensor, steps: int) -> None:
    """The simple loss of Ho et al. 2020 on images in model space."""
    scheduler, optimizer = DDIMScheduler(num_train_timesteps=1000), torch.optim.AdamW(unet.parameters(), lr=2e-3)
    unet.train()
    for step in range(steps):
        rows, t, noise = torch.randint(len(x), (64,)), torch.randint(1000, (64,)), torch.randn(64, *SPEC.shape)
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        loss = (unet(scheduler.add_noise(x[rows], noise, t), t).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unet.eval()


def distance_ratio(folder: Path, reference: Tensor, samples: int) -> Measured:
    """Frechet distance of samples to real images in bf16 relative to fp32, from the same noise."""
    net = feature_net("mnist")
    real, found = extract(net, reference), {}
    for dtype in ("fp32", "bf16"):
        drawn = source_of(folder, steps=25, dtype=dtype, device="cpu").values(0, samples, 0)
        values = np.concatenate(list(drawn))
        found[dtype] = frechet(real, extract(net, to_space(raw_tensor(values), SPEC)))
    note = f"Frechet distance to test images, 25 steps: bf16 {found['bf16']:.2f}, fp32 {found['fp32']:.2f}; {net.name}"
    return Measured(found["bf16"] / found["fp32"], n=samples, note=note)


def processes(folder: Path, n: int, rounds: int) -> list[float]:
    """Images per second of two processes relative to one, round by round."""
    return [_seconds(folder, n, 1) / _seconds(folder, n, 2) for _ in range(rounds)]


def _seconds(folder: Path, n: int, parts: int) -> float:
    """From the moment when all processes are ready to the end of the last one."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, "--worker", str(folder), f"{out}/pool", str(n)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        workers = [subprocess.Popen([*command, f"{i}/{parts}"], **pipes) for i in range(parts)]
        for one in workers:
            one.stdout.readline()
        start = time.perf_counter()
        for one in workers:
            one.stdin.write("go\n")
            one.stdin.flush()
        if any(one.wait() for one in workers):
            raise ConfigError("A process that draws samples has failed; what it says is above.")
        return time.perf_counter() - start


def work(folder: str, out: str, n: str, shard: str) -> None:
    """One of the processes: load everything, say so, wait for the word, and draw."""
    source_of(folder, device="cpu")
    print("ready", flush=True)
    sys.stdin.readline()
    options: dict[str, Any] = {"steps": STEPS, "device": "cpu", "probe": False, "progress": False}
    synthesize(folder, int(n), out, shard=shard, shard_size=int(n) // 8, say=lambda line: None, **options)


def trained_figures(size: dict[str, int]) -> dict[str, Measured]:
    """Distances and processes, of one network that has been trained a little."""
    data, unet = open_data("mnist"), network(16)
    with tempfile.TemporaryDirectory() as place, seeded(1):
        folder = Path(place)
        train(unet, to_space(raw_tensor(data.train.values), SPEC), size["training"])
        pipeline(unet).save_pretrained(folder)
        reference = to_space(raw_tensor(data.test.values), SPEC)
        quality = (
            {"frechet/bf16-to-fp32": distance_ratio(folder, reference, size["samples"])} if has_bf16("cpu") else {}
        )
        return quality | {
            "two-processes": _median(
                processes(folder, size["pool"], size["rounds"]), "images per second, of one process"
            ),
        }


# Command --------------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    record_options(parser)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32], help="channels of the U-Nets' first level")
    for name, default in SIZE.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)

    def run() -> None:
        size = {name: getattr(chosen, name) for name in SIZE}
        if not chosen.trial and (size != SIZE or chosen.widths != parser.get_default("widths")):
            raise ConfigError(
                "Results are recorded at full size only: add --trial, or leave --widths, --rounds, --training, --samples and "
                "--pool as they are."
            )
        if not chosen.trial and not has_bf16("cpu"):
            raise ConfigError(
                "Ratios in bf16 need a processor with instructions for it: add --trial to do without them."
            )
        if not chosen.trial:
            refuse_uncommitted()
        for figures in (*(partial(speed, w, size["rounds"]) for w in chosen.widths), partial(trained_figures, size)):
            found = figures()
            for metric, m in found.items():
                print(
                    f"{metric}: {m.value:.3f}{'' if m.stderr is None else f' ± {m.stderr:.3f}'} ({m.note})", flush=True
                )
            if not chosen.trial:
                record(chosen.results, found)

    return exit_code(run, "synthesis")


def record(results: Path, found: dict[str, Measured]) -> None:
    """Add the figures to `synthesis-speed.json`."""
    shared: dict[str, Any] = {**training_of({}), **made_here(), "command": "python benchmarks/synthesis.py"}
    records = as_records(found, study="synthesis-speed", data="mnist", system="unet", seed=0, **shared)
    add(results / "synthesis-speed.json", records)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        sys.exit(main())
