"""How fast a training went, and that it is the same training when `torch.compile` fuses it."""

from __future__ import annotations

import shutil
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny import train
from torch import nn

from diled.model import load
from diled.session import _said
from diled.studies.commands import speed_of
from diled.training import compiling, throughput
from diled.training.checkpoints import Spent
from diled.training.engine import _Writer
from diled.training.throughput import Throughput, product_speed, speeds


class Clock:
    """Goes on by what it is told to."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(throughput, "time", made)
    return made


def test_operations_are_those_of_two_layers():
    """B examples through (d, h) and (h, d): each product takes 2 B d h, and x needs no gradient."""
    b, d, h = 5, 7, 11
    net, totals = nn.Sequential(nn.Linear(d, h), nn.Tanh(), nn.Linear(h, d)), Throughput()
    for _ in range(2):
        totals.start(compiled=False)
        for _ in range(3):
            totals.count(net, lambda: net(torch.ones(b, d)).square().sum())
            totals.stepped(b)
    assert totals.per_batch == 2 * b * d * h * (2 + 3)
    assert totals.record()["flops"] == 4 * totals.per_batch
    assert all(p.grad is None for p in net.parameters())


def test_counting_changes_nothing():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))
    net[2].bias.requires_grad_(False)
    before, state = {name: t.clone() for name, t in net.state_dict().items()}, torch.get_rng_state()
    Throughput().count(net, lambda: net(torch.randn(8, 3)).sum())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize("compiled", [False, True])
def test_only_steps_count(clock, compiled):
    """Neither the first one, nor one that is compiled, nor what happens apart from steps."""
    totals = Throughput()
    totals.start(compiled=compiled)
    totals.per_batch = 6.0
    for seconds in (50.0, *([70.0] if compiled else []), 2.0, 3.0):
        clock.now += seconds
        totals.stepped(10)
        with totals.apart():
            clock.now += 1000.0
    assert totals.record() == {"examples": 20, "seconds": 5.0, "flops": 12.0}
    assert totals.since_last() == 4.0
    clock.now += 5.0
    totals.stepped(10)
    assert totals.since_last() == 2.0
    assert totals.since_last() is None
    again = Throughput(**totals.record())
    again.start(compiled=compiled)
    assert again.record() == {"examples": 30, "seconds": 10.0, "flops": 18.0}
    assert again.since_last() is None


def test_all_processes_count_alike(clock):
    """Examples, operations and the peak that they are set beside are those of all devices."""
    spent = Spent()
    spent.throughput.per_batch = 7.0
    writer = _Writer(None, None, None, spent, None, None, None)
    within = SimpleNamespace(stepped=lambda index: False)  # a step
    writer.on_train_batch_end(SimpleNamespace(world_size=3), within, None, SimpleNamespace(x=torch.zeros(5, 2)), 0)
    assert (spent.throughput.examples, spent.throughput.flops) == (15, 21.0)


def test_speeds_are_totals_by_seconds():
    totals = {"examples": 30, "seconds": 10.0, "flops": 400.0}
    assert speeds(totals, None) == {"examples_per_second": 3.0, "flops_per_second": 40.0}
    assert speeds(totals, 160.0)["utilisation"] == 0.25
    assert speeds(Throughput().record(), 160.0) == {}


def test_a_product_of_n_by_n_takes_two_n_cubed(monkeypatch):
    times = iter([0.0, 4.0, 10.0, 12.0, 20.0, 23.0])
    monkeypatch.setattr(throughput, "PRODUCTS", 3)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(times))
    assert product_speed(torch.device("cpu"), torch.float32, side=10) == 2 * 10**3 / 2.0


def test_what_is_said_of_the_speed():
    assert _said({}) == []
    found = {"examples_per_second": 12345.6, "utilisation": 0.314, "peak_memory_bytes": 3 * 2**30}
    assert _said(found) == [
        "12,346 examples a second", "31 % of what this device does in large matrix products", "3.0 GiB of its memory"
    ]  # fmt: skip
    assert {name: m.value for name, m in speed_of({"seed": 1, **found}).items()} == found


def test_totals_go_on_and_the_clock_is_that_of_this_session():
    spent = Spent()
    started = spent.started
    spent.go_on({**Spent(100.0, 50.0).record(), "throughput": {"examples": 8, "seconds": 2.0, "flops": 32.0}})
    assert spent.record()["throughput"] == {"examples": 8, "seconds": 2.0, "flops": 32.0}
    assert spent.record()["seconds"] >= 100
    assert spent.started is started


def test_a_run_records_its_speed(tmp_path, capsys):
    assert train(tmp_path / "run", model="vae", steps=20) == 0
    made = load(tmp_path / "run").provenance
    assert made["examples_per_second"] > 0
    assert "utilisation" not in made or torch.cuda.is_available()
    assert f"{made['examples_per_second']:,.0f}"[:2] in capsys.readouterr().out.splitlines()[-1]


TRACED = partial(torch.compile, backend="aot_eager")


@pytest.mark.parametrize("model", ["diled", "ldm"])
def test_a_compiled_training_is_the_same_training(tmp_path, monkeypatch, model):
    """Traced and differentiated by the compiler, with the last step (kernels, which take a minute) left out."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda f, options: asked.append(options) or TRACED(f))
    for name, words in (("plain", []), ("compiled", ["--training.compile"])):
        assert train(tmp_path / name, *words, model=model, steps=6) == 0
    assert asked == [compiling.OPTIONS] * (2 if model == "ldm" else 1)
    plain, fused = (load(tmp_path / name).density.state_dict() for name in ("plain", "compiled"))
    for name, tensor in plain.items():
        torch.testing.assert_close(fused[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler")
def test_draws_are_those_without_compiling():
    """Kernels and all."""

    def noisy(x):
        return x + torch.randn_like(x) * torch.rand(len(x), 1)

    x, found = torch.arange(12.0).reshape(4, 3), []
    for function in (noisy, compiling.fused(noisy)):
        torch.manual_seed(3)
        found.append(function(x))
    torch.testing.assert_close(*found)


def test_a_compiler_that_fails_is_named(tmp_path, monkeypatch, capsys):
    def fails(graph, inputs):
        raise RuntimeError("no compiler to be found")

    monkeypatch.setattr(torch, "compile", lambda f, options, whole=torch.compile: whole(f, backend=fails))
    assert train(tmp_path / "run", "--training.compile", model="vae", steps=3) == 2
    said = capsys.readouterr().err
    assert "no compiler to be found" in said
    assert "Train without training.compile" in said


def test_errors_of_the_function_are_its_own(monkeypatch):
    def wrong(x):
        raise ValueError("not mine")

    monkeypatch.setattr(torch, "compile", lambda f, options: f)
    with pytest.raises(ValueError, match="not mine"):
        compiling.fused(wrong)(1)
