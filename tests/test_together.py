"""Runs trained together with stacked weights are folders like any other, and what cannot be stacked is trained by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_dmaapx import ARMS
from tiny import diled as command
from tiny import log

import diled
from diled.data import open_data
from diled.draws import seed_from
from diled.runs import RunConfig, read_run
from diled.session import Session
from diled.space import raw_tensor
from diled.studies import commands, dmaapx, together
from diled.studies.records import read
from diled.studies.together import groups_of, train_together
from diled.training.best import held_out_bound
from diled.training.stacked import fit_stacked

MORE = """  vae@real/asleep: {training.half_asleep: 0.5}
  vae@real/early: {training.keep: best}
  vae@self: {from: vae@real, pool.folds: 2}
scales:"""
STACK = ["vae@real-0", "vae@real-1", "vae@synthetic,k=2-0", "vae@synthetic,k=2-1"]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of a few steps in place of the packaged ones."""
    folder = tmp_path / "arms"
    folder.mkdir()
    (folder / "dmaapx-mnist.yaml").write_text(ARMS.replace("scales:", MORE))
    monkeypatch.setattr(dmaapx, "_folder", lambda: folder)
    return tmp_path


def wanted(
    folder: Path, arm: str = "vae@real", seeds: tuple[int, ...] = (0, 1), **training: Any
) -> dict[Path, RunConfig]:
    """The runs of an arm."""
    found = {}
    for seed in seeds:
        config = dmaapx.arms_of("dmaapx-mnist").config(arm, seed)
        training = {"device": "cpu", **training}
        found[folder / f"{arm}-{seed}"] = config.model_copy(
            update={"training": config.training.model_copy(update=training)}
        )
    return found


def test_a_study_trained_together_has_the_runs_and_records_of_any_other(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dmaapx, "refuse_uncommitted", lambda way_out: None)
    monkeypatch.setattr(dmaapx, "made_here", lambda: {"hardware": "h", "commit": "abc"})
    options: dict[str, Any] = {"runs": small / "runs", "results": small / "results", "device": "cpu", "stacked": True}
    found = dmaapx.reproduce("dmaapx-mnist", seeds=[0, 1], **options)
    said = capsys.readouterr().out
    assert f"Together: {', '.join(STACK)}\n" in said
    assert "Together: vae@real,early-0, vae@real,early-1\n" in said
    assert "Together: vae@self-0, vae@self-1\n" in said
    assert "cannot be trained together: Stacked training knows no training.half_asleep" in said
    folder = small / "runs" / "dmaapx-mnist-mini"
    made = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*-?/provenance.json")}
    assert len(made) == 10
    assert {name for name, one in made.items() if "stacked" not in one} == {"vae@real,asleep-0", "vae@real,asleep-1"}
    # the same weights as those of stacked training itself
    sessions = [Session(read_run(folder / name), out=small / "again" / name) for name in STACK]
    assert [s.config.training.seed for s in sessions] == [0, 1, 0, 1]
    parts: list[Any] = [[s.recipe.stages for s in sessions], [s.source for s in sessions], sessions[0].spec]
    again = fit_stacked(*parts, [s.training for s in sessions], [0, 1, 0, 1])
    for name, density in zip(STACK, again.densities, strict=True):
        model = diled.load(folder / name, device="cpu")
        for key, tensor in model.density.state_dict().items():
            assert torch.equal(tensor, density.state_dict()[key])
        assert (made[name]["steps"], made[name]["stacked"]) == (5, STACK)
        assert made[name]["cpu_seconds"] == made["vae@real-0"]["cpu_seconds"]
        (line,) = log(folder / name)
        assert (line["stage"], line["step"]) == ("joint", 5)
        assert line["loss"] == pytest.approx(sum(line["terms"].values()), rel=1e-5)
        assert line["loss"] == again.log[0]["loss"][STACK.index(name)]
    assert made["vae@real,early-1"]["kept"]["joint"]["step"] == 5
    # and the same audits and records as one that was trained alone
    alone = dmaapx.reproduce("dmaapx-mnist", only=["vae@real"], runs=small / "alone", results=None, device="cpu")
    assert set(found["vae@real"][1].figures) == set(alone["vae@real"][0].figures)
    commands_of = {r.system: r.command for r in read(small / "results" / "dmaapx.json") if r.seed == 1}
    study = "python -m diled.studies.dmaapx dmaapx-mnist --scale mini"
    assert commands_of["vae@real"] == f"{study} --only vae@real vae@synthetic/k=2 --stacked --seeds 0 1"
    assert commands_of["vae@real/asleep"] == f"{study} --only vae@real/asleep --seeds 1"

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    for place in (commands, together):
        monkeypatch.setattr(place, "Session", never)
    after = dmaapx.reproduce("dmaapx-mnist", seeds=[0, 1], **options)
    assert after["vae@self"][1].figures == found["vae@self"][1].figures


def test_together_are_runs_of_one_model_recipe_and_data(small: Path) -> None:
    plan = dmaapx.arms_of("dmaapx-mnist")
    one = plan.config("vae@real", 0)
    alike = {
        "seed": plan.config("vae@real", 1),
        "pool": plan.config("vae@synthetic/k=2", 0, Path("pool")),
        "augmentation": replace(plan, base={**plan.base, "training.augment": "naive"}).config("vae@real", 0),
        "mollify": replace(plan, base={**plan.base, "training.mollify": 1.0}).config("vae@real", 0),
    }
    for change, config in alike.items():
        assert groups_of({Path("a"): one, Path("b"): config}) == [{Path("a"): one, Path("b"): config}], change
    unlike = {
        "training.weight_decay": 0.1,
        "training.epochs": 3,
        "training.keep": "best",
        "model.network.width": 16,
        "preprocess.limit": 30,
        "data": "mnist",
    }
    for key, value in unlike.items():
        other = replace(plan, base={**plan.base, key: value}).config("vae@real", 0)
        assert groups_of({Path("a"): one, Path("b"): other}) == [{Path("a"): one}, {Path("b"): other}], key


def test_a_run_that_is_begun_or_alone_is_left(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = wanted(small / "r", seeds=(0, 1, 2))
    begun, *others = runs
    Session(runs[begun], out=begun)._write_configuration()
    train_together({begun: runs[begun], others[0]: runs[others[0]]})
    assert [p.name for p in (small / "r").iterdir()] == [begun.name]
    train_together(runs)
    assert "Together: vae@real-1, vae@real-2" in capsys.readouterr().out
    assert not (begun / "config.json").exists()
    assert all((out / "config.json").exists() for out in others)


def test_a_member_that_stopped_leaves_nothing(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        together, "fit_stacked", lambda *a, **o: replace(fit_stacked(*a, **o), stopped={0: "Member 0 stopped."})
    )
    train_together(wanted(small / "r"))
    assert "vae@real-0 is trained again, by itself." in capsys.readouterr().out
    assert [p.name for p in (small / "r").iterdir()] == ["vae@real-1"]


def test_the_best_look_is_at_validation_examples(small: Path) -> None:
    runs = wanted(small / "r", arm="vae@real/early", monitor_every=2)
    train_together(runs)
    for seed, out in enumerate(runs):
        model = diled.load(out, device="cpu")
        kept = model.provenance["kept"]["joint"]
        assert kept["step"] in (2, 4, 5)
        data = open_data("digits", runs[out].preprocess)
        bound = held_out_bound(model.density, raw_tensor(data.validation.values), data.spec, seed_from(seed, 0, 2**42))
        assert kept["bound"] == pytest.approx(bound, rel=1e-6)


def test_seconds_are_a_member_s_share(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wall, cpu = iter([100.0, 108.0]), iter([0.0, 30.0])
    clocks = SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(cpu))
    monkeypatch.setattr(together, "time", clocks)
    runs = wanted(small / "r")
    train_together(runs)
    for out in runs:
        made = diled.load(out, device="cpu").provenance
        assert (made["train_seconds"], made["cpu_seconds"]) == (4.0, 15.0)


def test_the_verb_trains_together(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--only", "vae@real", "--seeds", "0,1", "--steps", "2", "--runs", small / "r", "--device", "cpu"]
    assert command("reproduce", "dmaapx-mnist", *words, "--stacked") == 0
    said = capsys.readouterr().out
    assert "Together: vae@real-0, vae@real-1" in said
    assert "| normal | 2 |" in said
