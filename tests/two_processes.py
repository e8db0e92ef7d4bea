"""What each of two processes runs in `test_training.py`, started by torchrun: the command line, then a training whose
gradients are known to be those of one process with the whole batch."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import torch

from diled import cli, runs
from diled.api import Density, Stage
from diled.config import DataSpec, TrainingConfig
from diled.diffusion.diffusion import stratified_times
from diled.training.engine import fit

SPEC = DataSpec(kind="vector", shape=(3,), low=-1.0, high=1.0)
TIMES: list[torch.Tensor] = []


class Quiet(Density):
    """A quadratic without noise. It draws times only to show them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(3, 3)

    def terms(self, q, *, exact=False, progress=1.0):
        if torch.distributed.is_initialized():
            times = [torch.empty(2 * len(q)) for _ in range(2)]
            torch.distributed.all_gather(times, stratified_times(len(q), 2, q))
            TIMES.append(torch.cat(times))
        return {"square": (self.net(q) - q**2).pow(2).sum(1)}


def train_quiet(folder: Path, devices: int, batch: int) -> dict[str, torch.Tensor]:
    """Weights after 12 steps."""
    torch.manual_seed(0)
    model = Quiet()
    values = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    recipe = TrainingConfig(steps=12, batch_size=batch, devices=devices, device="cpu", learning_rate=0.1)
    fit(model, [Stage("all", model)], values, values, SPEC, recipe, folder, say=lambda line: None)
    return model.state_dict()


def check_times() -> None:
    """In every step the times of all processes fill all cells of [0, 1), with one common offset."""
    for times in TIMES:
        cells = times * len(times)
        assert cells.floor().sort().values.tolist() == list(range(len(times)))
        offset = cells - cells.floor()
        assert (offset - offset[0]).abs().max() < 1e-4


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    options = ["--training.steps", "8", "--training.batch_size", "8", "--training.devices", "2", "--report", "false"]
    options += [
        "--model",
        "ldm",
        "--model.network.width",
        "16",
        "--model.first_stage",
        "0.5",
        "--training.log_every",
        "2",
    ]
    with mock.patch("torch.distributed.destroy_process_group"):  # so that the second training finds it
        assert cli.main(["train", "digits", "--out", str(folder / "run"), *options]) == 0
    weights = train_quiet(folder / "quiet", 2, 5)
    assert not torch.distributed.is_initialized()
    check_times()
    if runs.rank() == 0:
        torch.save(weights, folder / "weights.pt")
