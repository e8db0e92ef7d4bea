"""Records of results, the tables rendered from them, and the studies that make them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest

from diled.data import open_data
from diled.errors import ConfigError
from diled.family import model_config
from diled.model import Model
from diled.models.zoo import build
from diled.runs import resolve
from diled.studies import render
from diled.studies.records import KEYS, Record, add, mean_and_spread, read
from diled.studies.table import main, rows, studies

ROOT = Path(__file__).resolve().parents[1]

RECORD = Record(
    study="trial",
    data="mnist",
    system="vae",
    seed=0,
    metric="bound_nats",
    value=100.0,
    stderr=0.5,
    n=10,
    steps=5,
    train_seconds=1.0,
    cpu_seconds=1.0,
    parameters=7,
    hardware="a machine",
    commit="0123456789ab",
    command="a command",
)


def test_a_record_replaces_one_of_the_same_key_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    add(path, [RECORD, replace(RECORD, seed=1, value=104.0)])
    add(path, [replace(RECORD, value=98.0)])
    assert {(r.seed, r.value) for r in read(path)} == {(0, 98.0), (1, 104.0)}
    assert set(KEYS) < set(json.loads(path.read_text())[0])


@pytest.mark.parametrize("commit", ["", "0123456789ab-dirty"])
def test_uncommitted_code_records_nothing(tmp_path: Path, commit: str) -> None:
    with pytest.raises(ConfigError, match="committed code only"):
        add(tmp_path / "trial.json", [replace(RECORD, commit=commit)])
    assert not (tmp_path / "trial.json").exists()


def test_damaged_records_are_named(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    path.write_text('[{"study": 1}]')
    with pytest.raises(ConfigError, match=r"trial\.json"):
        read(path)


def test_mean_and_spread_over_seeds() -> None:
    mean, spread, n = mean_and_spread([replace(RECORD, value=v) for v in (1.0, 2.0, 6.0)])
    assert (mean, n) == (3.0, 3)
    assert spread == pytest.approx(7**0.5)
    assert mean_and_spread([RECORD]) == (100.0, None, 1)


def test_the_comparison_shows_means_spreads_and_floors(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    records = [replace(RECORD, seed=s, value=v) for s, v in enumerate((99.0, 101.0))]
    records += [replace(RECORD, system="diled", value=90.26)]
    records += [replace(RECORD, metric="frechet_floor", value=0.7)]
    add(path, records)
    lines = render.comparison(path, ("bound_nats", "frechet_samples", "cpu_seconds")).splitlines()
    assert lines[0] == "| system | seeds | bound | samples | CPU s |"
    assert lines[2] == "| DiLED (EDDPM), default | 1 | 90.3 | – | 1 |"  # the order of the family, not of the alphabet
    assert lines[3] == "| VAE | 2 | 100.0 ± 1.4 | – | 1 |"
    assert lines[4] == "| *real data; mixed pixels* |  |  | 0.7 |  |"


def test_the_cost_shows_samplers_epochs_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    assert render.cost(path) == "Nothing is recorded yet."
    values = {
        ("mnist", "frechet_samples/ddim-1000"): 40.0,
        ("mnist", "frechet_samples/ddim-50"): 44.0,
        ("mnist", "frechet_samples/dpm_solver-20"): 39.0,
        ("mnist", "seconds_ratio/dpm_solver-20"): 0.0204,
        ("mnist", "frechet_floor"): 0.7,
        ("mnist/mlp", "epoch_ratio"): 2.2,
        ("mnist/mlp", "floor_ratio"): 1.9,
        ("mnist/mlp", "flop_ratio"): 2.4,
        ("mnist/conv", "epoch_ratio"): 1.1,
        ("mnist/mlp", "cost_ratio/times=16"): 3.0,
        ("mnist/mlp", "cost_ratio/times=2"): 0.75,
    }
    add(path, [replace(RECORD, data=d, system="diled", metric=m, value=v) for (d, m), v in values.items()])
    add(path, [replace(RECORD, data="mnist/mlp", system="vae", metric="epoch_ratio", value=1.01)])
    samplers, epochs, sizes = (table.splitlines()[2:] for table in render.cost(path).split("\n\n"))
    assert samplers == [
        "| DDIM | 50 | 44.0 | +10.0 % | – |",
        "| DDIM | 1,000 | 40.0 | +0.0 % | – |",
        "| DPM-Solver++(2M) | 20 | 39.0 | -2.5 % | 0.020 |",
        "| *real data* |  | 0.7 |  |  |",
    ]
    assert epochs == [
        "| mlp | VAE, a second copy | 1.01 |  |  |  |",
        "| mlp | DiLED: 4 noise levels per code | 2.20 | 1.3, missed | 1.90 | 2.40 |",
        "| conv | DiLED: 4 noise levels per code | 1.10 | 1.15, met |  |  |",
    ]
    assert sizes == ["| noise levels per code | 2: 0.75; 16: 3.00 |"]


@pytest.fixture(scope="module")
def benchmark_of_cost() -> ModuleType:
    path = ROOT / "benchmarks" / "cost.py"
    spec = importlib.util.spec_from_file_location("cost", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_costs_are_medians_of_ratios_within_a_round(benchmark_of_cost: ModuleType) -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) or 1.0 for name in "abc"}
    assert benchmark_of_cost.in_turn(runs, 2) == {name: [1.0, 1.0] for name in "abc"}
    assert calls == [*"abccba"]
    assert benchmark_of_cost.relative([2.0, 6.0, 3.0], [1.0, 2.0, 3.0]) == (2.0, pytest.approx(3**-0.5), 3)


def test_products_of_matrices_are_counted(benchmark_of_cost: ModuleType) -> None:
    width, denoiser, batch = 16, 8, 128
    network = {"kind": "mlp", "width": width}
    counted = [
        benchmark_of_cost.flops(benchmark_of_cost.stage(name, network, values))
        for name, values in (("vae", {}), ("diled", {"prior": {"width": denoiser, "times_per_code": 3}}))
    ]
    encoder, decoder = 784 * width + width**2 + width * 64, 32 * width + width**2 + width * 784
    vae = 2 * batch * (3 * (encoder + decoder) - 784 * width)  # pixels need no gradient
    embedding = 33 * denoiser
    prior = embedding + 2 * 32 * denoiser + 2 * 4 * denoiser**2
    assert counted == [vae, vae + 2 * 3 * batch * (3 * prior - embedding)]


def test_the_benchmark_of_cost_measures_every_part(benchmark_of_cost: ModuleType) -> None:
    network = {"kind": "mlp", "width": 16}
    found = benchmark_of_cost.epochs({"mnist/mlp": (network, 1)}, {"diled/t=1": {"times_per_code": 1}}, rounds=2)
    assert [(system, metric) for _, system, metric, *_ in found] == [
        ("vae", "epoch_ratio"),
        *(("diled/t=1", metric) for metric in ("epoch_ratio", "floor_ratio", "flop_ratio")),
    ]
    found += benchmark_of_cost.scaling({"levels=2": ("diled_levels", {"levels": 2})}, steps=1, rounds=2)
    data = open_data("digits")
    recipe = build("diled", model_config("diled", {"latent_dim": 2, "network": network}).resolved(data.spec), data.spec)
    chosen = (("ddim", 3), ("dpm_solver", 2))
    found += benchmark_of_cost.samplers(Model(recipe.model, data.spec), data, chosen, n=64, rounds=2)
    assert {metric for *_, metric, _, _, _, _ in found} >= {
        "cost_ratio/levels=2",
        "frechet_floor",
        "frechet_samples/ddim-3",
        "frechet_samples/dpm_solver-2",
        "seconds_ratio/dpm_solver-2",
    }
    assert all(value > 0 for _, _, _, value, *_ in found)
    assert next(value for _, _, metric, value, *_ in found if metric == "seconds_ratio/ddim-3") == 1


def test_the_benchmark_of_cost_needs_a_trained_run(
    benchmark_of_cost: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark_of_cost.main(["--trial", "--what", "samplers"]) == 2
    assert "--run" in capsys.readouterr().err


def test_every_row_of_every_study_is_a_valid_configuration() -> None:
    assert {"mnist-table", "digits-table"} <= set(studies())
    for study in studies():
        for name, path in rows(study).items():
            config = resolve(None, None, path)
            assert config.name == name.split("@")[0]
            assert config.model == model_config(config.name, config.model.model_dump(exclude_unset=True))


def test_rows_of_a_table_differ_in_the_model_alone() -> None:
    for study in ("mnist-table", "digits-table"):
        trivial = ("ppca", "independent")  # in closed form: without networks and steps
        configs = [resolve(None, None, path) for name, path in rows(study).items() if name not in trivial]
        shared = {
            (
                str(c.training.model_copy(update={"steps": 0})),
                str(c.preprocess),
                c.data,
                c.model.latent_dim,
                str(c.model.network),
            )
            for c in configs
        }
        assert len(shared) == 1, "comparisons are on equal terms"
        longer = {name for name, path in rows(study).items() if resolve(None, None, path).training.steps != 2500}
        assert all(name.endswith("2N") for name in longer), "a row with more steps says so"


def test_unknown_studies_and_rows_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mnist-tabel"]) == 2
    assert "mnist-table" in capsys.readouterr().err
    assert main(["mnist-table", "--only", "vea"]) == 2
    assert "vae" in capsys.readouterr().err


def test_committed_results_are_complete_records() -> None:
    for path in sorted((ROOT / "results").glob("*.json")):
        records = read(path)
        assert records
        assert len({r.key for r in records}) == len(records)
        for record in records:
            assert record.study == path.stem
            assert record.commit
            assert not record.commit.endswith("-dirty")
            assert record.command.startswith("python ")
            assert record.value == record.value
            assert set(asdict(record)) >= {"hardware", "seed", "steps", "cpu_seconds"}
