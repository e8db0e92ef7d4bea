"""The studies of DMaaPx: arms are what they say, a reproduction goes on where it stopped, tables stand beside the paper's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import diled

from diled.data import open_data
from diled.errors import ConfigError
from diled.studies import calibration, dmaapx
from diled.studies.commands import as_records
from diled.studies.records import add
from diled.studies.render_dmaapx import PAPER, beside_the_paper, table

ARMS = """
base:
  data: digits
  preprocess: {limit: 40}
  model: {name: vae, latent_dim: 2, network: {kind: mlp, width: 8, depth: 1}, rate_warmup: 0.0}
  training: {epochs: 2, batch_size: 16, schedule: constant, warmup_steps: 0, ema: 0.0, monitor_every: 5}
source:
  data: digits
  preprocess: {limit: 40}
  model: {name: edm, diffusion: {kind: mlp, width: 8}}
  training: {steps: 4, batch_size: 16}
sources:
  edm: {}
arms:
  vae@real: {}
  vae@synthetic/k=2: {pool.folds: 2}
scales:
  mini:
    pool: {folds: 2}
    audit: {bounded: 20, examples: 10, samples: 2, steps: 4, weights: 4, references: 4, restarts: 2, iterations: 2,
            published_references: 4, published_iterations: 2, pairs: 2}
  wide:
    base: {model.network.width: 16}
    pool: {folds: 2}
    audit: {examples: 10}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of a few steps in place of the packaged ones."""
    folder = tmp_path / "arms"
    folder.mkdir()
    (folder / "dmaapx-mnist.yaml").write_text(ARMS)
    monkeypatch.setattr(dmaapx, "_folder", lambda: folder)
    return tmp_path


def plans() -> list[dmaapx.Arms]:
    return [dmaapx.arms_of(study, scale) for study in dmaapx.studies() for scale in dmaapx.scales(study)]


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.name)
def test_every_arm_is_a_valid_run_that_differs_in_what_it_says(plan: dmaapx.Arms) -> None:
    normal = plan.config(next(iter(plan.arms)), seed=3)
    assert normal.training.seed == 3
    epochs = normal.training.epochs or 0
    assert epochs == (300 if plan.name.endswith("gpu") else 1000)
    assert normal.training.schedule == "constant"
    for arm, values in plan.arms.items():
        config = plan.config(arm, seed=3, pool=Path("pool"))
        assert config.name == arm.split("@")[0]
        assert (config.pool.source == "pool") == (arm in plan.drawn)
        assert arm not in plan.drawn or plan.drawn[arm] in {*plan.sources, *plan.arms} - {arm}
        assert config.pool.folds is None or config.pool.folds <= plan.folds
        groups = {key.split(".")[0] for key in values}
        for group in {"model", "training", "preprocess"} - groups:
            assert getattr(config, group) == getattr(normal, group), f"{arm} changes {group}"
        seen = (config.training.epochs or 0) * (config.preprocess.limit or 1)
        assert seen == epochs * (normal.preprocess.limit or 1), "every arm sees as many examples"
    for name in plan.sources:
        source = plan.source_config(name)
        assert source.name == "edm"
        assert (source.preprocess.limit or 1) <= (normal.preprocess.limit or 1), "the source sees no other images"
        assert source.preprocess.size == normal.preprocess.size


def test_an_arm_may_be_trained_on_another_arm_s_samples(small: Path) -> None:
    path = small / "arms" / "dmaapx-mnist.yaml"
    path.write_text(
        path.read_text().replace("scales:", "  vae@self/1: {from: vae@real}\n  vae@self/2: {from: vae@self/1}\nscales:")
    )
    found = dmaapx.reproduce("dmaapx-mnist", only=["vae@self/2"], runs=small / "r", results=None, steps=2, device="cpu")
    assert list(found) == ["vae@self/2"]
    there = {p.name for p in (small / "r" / "dmaapx-mnist-mini").iterdir()}
    assert there == {"pool", "vae@real-0", "vae@self,1-0", "vae@self,2-0"}
    assert {p.name for p in (small / "r" / "dmaapx-mnist-mini" / "pool").iterdir()} == {"vae@real-0", "vae@self,1-0"}


def test_the_paper_s_network_at_the_paper_s_scale() -> None:
    config = dmaapx.arms_of("dmaapx-mnist", "paper").config("vae@real", 0)
    assert config.model.network.width == 512
    assert config.model.latent_dim == 16
    assert (config.preprocess.size, config.preprocess.size_policy) == (32, "border")


def test_a_reproduction_goes_on_and_records_nothing_twice(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = small / "runs"
    found = dmaapx.reproduce("dmaapx-mnist", seeds=[0, 1], runs=runs, results=None, device="cpu")
    assert set(found) == {"vae@real", "vae@synthetic/k=2"}
    assert set(found["vae@real"]) == {0, 1}
    assert (runs / "dmaapx-mnist-mini" / "pool" / "edm" / "manifest.json").exists()

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(dmaapx, "Session", never)
    again = dmaapx.reproduce("dmaapx-mnist", seeds=[0, 1], runs=runs, results=None, device="cpu")
    assert again["vae@real"][1].figures == found["vae@real"][1].figures
    shown = beside_the_paper("dmaapx-mnist", {arm: list(one.values()) for arm, one in found.items()})
    rows = [line for line in shown.splitlines() if line.startswith("| normal |")]
    assert len(rows) == 1
    assert "(25.76)" in rows[0]
    assert "(20.32)" in rows[0]
    assert "±" in rows[0], "two seeds have a spread"
    assert "DMaaPx, k = 2" in shown
    with pytest.raises(ConfigError, match="other settings"):
        dmaapx.reproduce("dmaapx-mnist", seeds=[0], runs=runs, results=None, steps=3, device="cpu")


def test_the_verb_prints_the_table(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--only", "vae@real", "--runs", small / "r", "--steps", "3", "--device", "cpu"]
    assert diled("reproduce", "dmaapx-mnist", *words) == 0
    said = capsys.readouterr().out
    assert "| normal |" in said
    assert not (small / "r" / "dmaapx-mnist-mini" / "pool").exists(), "no arm needs it"
    assert diled("reproduce") == 0
    assert "dmaapx-mnist" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dmaapx-minst"], "dmaapx-mnist"),
        (["dmaapx-mnist", "--scale", "huge"], "mini"),
        (["dmaapx-mnist", "--only", "vae@rael"], "vae@real"),
    ],
)
def test_what_is_unknown_is_named(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert diled("reproduce", *words) == 2
    assert said in capsys.readouterr().err


def test_tables_are_rendered_from_records_of_one_study_and_scale(tmp_path: Path) -> None:
    from diled.evaluation.measure import Measured

    path = tmp_path / "dmaapx.json"
    assert table(path, "dmaapx-mnist", "mini") == "Nothing is recorded yet."
    shared: dict[str, Any] = {
        "study": "dmaapx", "steps": 1, "train_seconds": 1.0, "cpu_seconds": 1.0, "parameters": 1, "hardware": "h",
        "commit": "abc", "command": "python -m x",
    }  # fmt: skip
    for seed, gap in ((0, 20.0), (1, 24.0)):
        figures = {"generalization_gap": Measured(gap), "test_elbo": Measured(-90.0)}
        add(path, as_records(figures, data="mnist/threshold/dmaapx-mnist-mini", system="vae@real", seed=seed, **shared))
        add(
            path, as_records(figures, data="mnist/threshold/dmaapx-mnist-paper", system="vae@real", seed=seed, **shared)
        )
    shown = table(path, "dmaapx-mnist", "mini")
    assert "| normal | 2 | -90.00 ± 0.00 (-94.60) | 22.00 ± 2.83 (25.76) |" in shown


def test_the_paper_s_figures_are_in_its_order() -> None:
    """Table 7: on every data set DMaaPx has the smallest generalization and amortization gap, normal training the largest."""
    for study in PAPER.values():
        known = {s: row for s, row in study.items() if row[1] == row[1]}
        for column in (1, 2):
            order = sorted(known, key=lambda s: known[s][column])
            assert order[0] == "vae@synthetic/k=10"
            assert order[-1] == "vae@real"
        assert max(known, key=lambda s: known[s][0] or 0.0) == "vae@synthetic/k=10"


def test_the_curve_is_read_off_the_log(tmp_path: Path) -> None:
    """Ten steps an epoch; the bound falls until epoch 50 and rises again."""
    bounds = {epoch: 84 + 0.01 * abs(epoch - 50) for epoch in range(1, 101)}
    lines = [{"stage": "joint", "step": 10 * e, "validation": {"bound": b, "distortion": 0}} for e, b in bounds.items()]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = calibration.curve(tmp_path, 10)
    assert found["peak_epoch"].value == 50
    assert found["peak_test_elbo"].value == -84
    assert found["test_elbo/epoch=100"].value == pytest.approx(-84.5)
    assert "test_elbo/epoch=200" not in found


def test_calibration_trains_on_all_training_images_and_looks_at_test_images() -> None:
    data = open_data("digits")
    whole = calibration.undivided(data, seen=30)
    assert len(whole.train) == len(data.train) + len(data.validation) == 1437
    assert len(whole.train.labels["label"]) == len(whole.train.ids) == 1437
    assert set(whole.validation.ids) < set(data.test.ids)
    assert len(whole.validation) == 30
