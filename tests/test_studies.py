"""Records of results, the tables rendered from them, and the studies that make them."""

from __future__ import annotations

import importlib.util
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from diled.data import open_data
from diled.errors import ConfigError
from diled.evaluation.measure import Measured
from diled.family import model_config
from diled.model import Model
from diled.models.io import write_json
from diled.models.zoo import build
from diled.studies import commands, latent_scale, records, render, table
from diled.studies.records import KEYS, Record, add, mean_and_spread, read
from diled.studies.render_images import images
from diled.studies.render_proteins import against, design_details, designs, proteins, smoothness
from diled.studies.render_targets import interval, targets
from diled.studies.table import main, rows, run_row, studies

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


def test_those_who_record_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them reads the file while the other one writes it, were there no lock."""
    path = tmp_path / "trial.json"

    def slowly(*of: Any) -> None:
        time.sleep(0.05)
        write_json(*of)

    monkeypatch.setattr(records, "write_json", slowly)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: add(path, [replace(RECORD, seed=seed)]), range(4)))
    assert {r.seed for r in read(path)} == {0, 1, 2, 3}


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
    assert lines[4] == "| *real data* |  |  | 0.7 |  |"


def test_samples_have_a_table_of_their_own_and_columns_without_records_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    assert render.comparison(path) == "Nothing is recorded yet."
    assert render.samples(path) == ""
    values = {"bound_nats": 100.0, "frechet_samples": 30.0, "frechet_midpoints/0.2": 12.0, "frechet_floor": 0.7}
    add(path, [replace(RECORD, metric=m, value=v) for m, v in values.items()])
    assert render.samples(path) == "", "nothing beyond what the first table has"
    more = {
        "frechet_samples/draws": 40.0,
        "kid_samples": 110.12,
        "kid_floor": 0.31,
        "precision": 0.804,
        "precision_floor": 0.875,
    }
    add(path, [replace(RECORD, metric=m, value=v) for m, v in more.items()])
    assert render.comparison(path).splitlines() == [
        "| system | seeds | bound | samples | midpoints 0.2 | CPU s |",
        "| --- | --- | --- | --- | --- | --- |",
        "| VAE | 1 | 100.0 | 30.0 | 12.0 | 1 |",
        "| *real data* |  |  | 0.7 |  |  |",
    ]
    assert render.samples(path).splitlines() == [
        "| system | seeds | samples | samples, drawn | KID | precision |",
        "| --- | --- | --- | --- | --- | --- |",
        "| VAE | 1 | 30.0 | 40.0 | 110.1 | 0.80 |",
        "| *real data* |  | 0.7 |  | 0.3 | 0.88 |",
    ]


def test_cpu_time_is_shown_of_a_system_without_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    add(path, [replace(RECORD, system="ae", metric=m, value=2.0) for m in ("frechet_samples", "reconstruction_mse")])
    assert render.comparison(path).splitlines()[2] == "| AE | 1 | 2.0 | 2.0000 | 1 |"


def test_cpu_time_includes_what_a_row_starts_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every table; seed by seed; said in words where it is not recorded. Of rows of rows the whole chain counts."""

    def last(text: str, system: str) -> str:
        (line,) = (one for one in text.splitlines() if one.startswith(f"| {system} |"))
        return line.strip(" |").split(" | ")[-1]

    path = tmp_path / "trial.json"
    fresh = replace(RECORD, study="mnist-prior", system="diled/fresh", cpu_seconds=300.0)
    add(path, [fresh])
    fields, name = ("bound_nats", "cpu_seconds"), "DiLED (EDDPM), default"
    assert last(render.comparison(path, fields), f"{name}, fresh") == f"300 + {name}'s"
    add(path, [replace(fresh, system="diled", seed=k, cpu_seconds=s) for k, s in enumerate((700.0, 900.0))])
    assert last(render.comparison(path, fields), f"{name}, fresh") == "1,000"
    assert last(render.comparison(path, fields), name) == "800"
    assert last(images(path), f"{name}, fresh") == "1,000"

    ablations = tmp_path / "ablations.json"
    half = replace(fresh, study="ablations", system="vae/half", cpu_seconds=15.0)
    add(
        ablations,
        [half, *(replace(half, system=f"diled/{s}", cpu_seconds=30.0) for s in ("from-vae", "from-vae,frozen"))],
    )
    assert last(render.ablations(ablations), "half for a VAE, then the prior alone") == "45"

    sequences = tmp_path / "sequences.json"
    relso = replace(fresh, study="gifford", system="relso", command="python -m diled.studies.proteins gifford")
    add(sequences, [relso, replace(relso, system="diled_paper/from-relso", cpu_seconds=50.0)])
    assert last(proteins(sequences), "DiLED, the paper's objective, from-relso") == "350"

    monkeypatch.setattr(render, "begun", lambda _: {"diled/fresh": "diled", "diled": "vae"})
    assert render.spent("diled/fresh", read(path)) == {}
    add(path, [replace(fresh, system="vae", cpu_seconds=10.0)])
    assert render.spent("diled/fresh", read(path)) == {0: 1010.0}


def test_a_table_of_predictions_has_the_columns_that_were_measured(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    one = replace(
        RECORD, system="vae", command="python -m diled.studies.proteins trial", metric="mse/fitness", value=0.25
    )
    add(path, [one, replace(one, metric="pearson/fitness/probe", value=0.5)])
    assert proteins(path).splitlines()[-3:] == [
        "| system | MSE | Pearson, from codes | zero-shot Spearman |",
        "| --- | --- | --- | --- |",
        "| VAE | 0.250 | 0.500 |  |",
    ]


def test_of_the_variants_the_short_table_shows_those_with_twice_the_steps(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    add(path, [replace(RECORD, system=s) for s in ("vae", "vae/2N", "ldm/kl=1", "ldm/kl=1,2N")])
    lines = render.comparison(path, ("bound_nats",), variants=False).splitlines()[2:]
    assert lines == ["| VAE | 1 | 100.0 |", "| VAE, 2N | 1 | 100.0 |", "| LDM, kl=1,2N | 1 | 100.0 |"]


def test_the_family_table_has_means_and_leaves_out_what_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    records = [replace(RECORD, seed=s, value=v) for s, v in enumerate((99.0, 102.0))]
    records += [replace(RECORD, system="consistency/scratch"), replace(RECORD, system="ae", metric="frechet_samples")]
    records += [replace(RECORD, metric="frechet_floor", value=0.7)]
    add(path, records)
    found = render.family_figures(path, ("bound_nats", "frechet_samples"))
    assert found["vae"] == ["100.5", ""]
    assert found["ae"] == ["", "100.0"]
    assert found["consistency"] == ["", ""], "a variant is not the model of the table"
    assert found["*real data*"] == ["", "0.7"]


def test_the_image_table_has_a_row_for_each_system_and_number_of_steps(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    assert images(path) == "Nothing is recorded yet."
    values = {
        ("diffae", "frechet_samples/T=20"): 20.0,
        ("diffae", "frechet_samples/T=10"): 25.0,
        ("diffae", "frechet_reconstructions/random/T=10"): 5.0,
        ("diffae", "frechet_reconstructions/inverted/T=10"): 1.5,
        ("diffae", "frechet_midpoints/0.2/T=10"): 9.0,
        ("diffae", "frechet_midpoints/0.4/T=10"): 19.0,
        ("diffae", "frechet_floor"): 0.7,
        ("edm", "frechet_samples/T=10"): 30.0,
        ("edm", "bound_nats"): 700.0,
    }
    add(path, [replace(RECORD, system=s, metric=m, value=v) for (s, m), v in values.items()])
    add(path, [replace(RECORD, seed=1, system="edm", metric="frechet_samples/T=10", value=32.0)])
    pictures, rest = (part.splitlines() for part in images(path).split("\n\n"))
    assert [line.split(" | ")[:2] for line in pictures[2:]] == [
        ["| EDM", "10"],
        ["| DiffAE", "10"],
        ["| DiffAE", "20"],
        ["| *real data*", ""],
    ]
    assert pictures[2].startswith("| EDM | 10 | 31.0 ± 1.4 | – |")
    assert pictures[3] == "| DiffAE | 10 | 25.0 | 5.0 | 1.5 | 9.0 | 19.0 |"
    assert pictures[4] == "| DiffAE | 20 | 20.0 | – | – | – | – |"
    assert pictures[5] == "| *real data* |  | 0.7 |  |  |  |  |"
    assert rest[2].startswith("| EDM | 2 | 700.0 | – |")
    assert rest[3].startswith("| DiffAE | 1 | – |")


def test_targets_compare_within_seeds_and_choose_the_best_ldm(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    assert targets(path) == "Nothing is recorded yet."
    values = {
        ("diled", "bound_nats"): (99.0, 100.0, 101.0),
        ("vae", "bound_nats"): (104.0, 106.0, 108.0),  # differences 5, 6, 7
        ("vae/2N", "bound_nats"): (99.5,),
        ("diled", "frechet_samples"): (20.0, 20.0, 20.0),
        ("vae", "frechet_samples"): (40.0, 40.0, 40.0),
        ("ldm", "frechet_samples"): (80.0, 80.0, 80.0),
        ("ldm/kl=1", "frechet_samples"): (50.0, 50.0, 50.0),
        ("ldm/kl=1,2N", "frechet_samples"): (25.0, 25.0, 25.0),
    }
    add(
        path,
        [
            replace(RECORD, system=s, metric=m, seed=k, value=v, cpu_seconds=2.0 if s.endswith("2N") else 1.0)
            for (s, m), many in values.items()
            for k, v in enumerate(many)
        ],
    )
    assert targets(path).splitlines()[2:] == [
        "| VAE | bound, nats | 100.0 | 106.0 | +6.00 | +3.52 to +8.48 | 3 |",  # 6 +- 4.303 / sqrt 3
        "| VAE | samples | 20.0 | 40.0 | 0.500 | 0.500 to 0.500 | 3 |",
        "| VAE | CPU time, s | 1.0 | 1.0 | 1.000 | 1.000 to 1.000 | 3 |",
        "| best LDM | samples | 20.0 | 50.0 (LDM, kl=1) | 0.400 | 0.400 to 0.400 | 3 |",
        "| VAE, twice the steps | bound, nats | 99.0 | 99.5 | +0.50 | – | 1 |",
        "| VAE, twice the steps | CPU time, s | 1.0 | 2.0 | 0.500 | – | 1 |",
        "| best LDM, twice the steps | samples | 20.0 | 25.0 (LDM, kl=1,2N) | 0.800 | 0.800 to 0.800 | 3 |",
    ]


def test_proteins_are_compared_within_seeds_and_designs_shown_whole(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    for write in (against, design_details, designs, smoothness):
        assert write(path) == "Nothing is recorded yet."
    values = {
        ("diled", "mse/y"): (0.5, 0.6, 0.7),
        ("vae", "mse/y"): (0.6, 0.8, 1.0),  # differences -0.1, -0.2, -0.3
        ("diled", "position_error"): (0.1, 0.2, 0.3),
        ("relso", "position_error"): (0.4, 0.8),
        ("relso", "label_smoothness/y"): (0.25, 0.75),
        ("profile", "mse/y"): (9.0, 9.0, 9.0),
    }
    found = [
        replace(RECORD, system=s, metric=m, seed=k, value=v)
        for (s, m), many in values.items()
        for k, v in enumerate(many)
    ]
    lists = {"measured_fitness/ode": 2.0, "best_measured_fitness/ode": 5.0, "diversity/ode": 3.0, "seconds/ode": 7.0}
    command = "python -m diled.studies.designs trial"
    add(path, found + [replace(RECORD, metric=m, value=v, command=command) for m, v in lists.items()])
    assert against(path).splitlines()[2:] == [
        "| ReLSO | positions, ratio | 0.150 | 0.600 | 0.250 | 0.250 to 0.250 | 2 |",
        "| VAE | MSE | 0.600 | 0.800 | -0.2000 | -0.4484 to +0.0484 | 3 |",  # -0.2 +- 4.303 x 0.1 / sqrt 3
    ]
    assert smoothness(path).splitlines()[2:] == ["| ReLSO | 2 | 0.500 ± 0.354 |"]
    count = RECORD.n
    assert design_details(path).splitlines()[2:] == [f"| VAE | ode | {count} | 2.00 | 5.00 |  |  | 3.00 |  |  | 7.0 |"]
    assert "| VAE | 1 | 0.20 (10) |" in designs(path)


@pytest.mark.parametrize(
    ("name", "mean", "said"),
    [
        ("measured_fitness", "0.60 ± 0.85 (0)", "asked for 100, of which those that it lacks count as 0"),
        ("oracle_fitness", "4.50 ± 2.12 (0)", "asked for 60."),
    ],
)
def test_designs_that_a_list_lacks_count_as_unmeasured_ones(tmp_path: Path, name: str, mean: str, said: str) -> None:
    """40 designs of 3.0 where 100 were asked for are worth 1.2, and none are worth 0; to an oracle 0 means nothing."""
    path, command = tmp_path / "trial.json", "python -m diled.studies.designs trial"
    lists = [("ode", 0, 40, 3.0), ("ode", 1, 0, 6.0), ("evolution", 0, 100, 4.0)]
    found = [
        replace(RECORD, metric=f"{name}/{method}", seed=seed, n=n, value=value, command=command)
        for method, seed, n, value in lists
    ]
    add(path, found)
    text = designs(path)
    assert text.splitlines()[2] == f"| VAE | 2 | {mean} | 4.00 |"
    assert said in text
    add(path, [replace(r, n=100) for r in found])
    assert "parentheses" not in designs(path)


def test_a_t_interval_covers_as_often_as_it_says() -> None:
    assert interval([1.0]) is None
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 3))
    found = [interval(list(three)) for three in draws]
    covered = sum(low < 3.0 < high for low, high in filter(None, found)) / len(found)
    assert covered == pytest.approx(0.95, abs=0.02)  # 4 standard errors


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


def test_figures_become_records_and_those_without_a_value_are_left_out() -> None:
    made = {"steps": 5, "cpu_seconds": 1.5, "versions": "not of the training's cost"}
    assert commands.training_of(made) == {"steps": 5, "train_seconds": None, "cpu_seconds": 1.5, "parameters": None}
    found = {"bound_nats": Measured(98.5, 0.25, 8, "a remark"), "rate_nats": Measured(None)}
    shared = {f: getattr(RECORD, f) for f in asdict(RECORD) if f not in ("metric", "value", "stderr", "n", "note")}
    want = replace(RECORD, metric="bound_nats", value=98.5, stderr=0.25, n=8, note="a remark")
    assert commands.as_records(found, **shared) == [want]


def test_a_record_says_where_a_model_was_trained_if_it_was_not_where_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "made_here", lambda: {"hardware": "two cores", "commit": "0123456789ab"})
    assert "trained_at" not in commands.training_of(commands.made_here())
    made = commands.training_of({"commit": "fedcba987654", "hardware": "a GPU"})
    assert (made["trained_at"], made["trained_on"]) == ("fedcba987654", "a GPU")
    elsewhere = replace(RECORD, seed=1, trained_at="fedcba987654", trained_on="a GPU")
    add(tmp_path / "r.json", [RECORD, elsewhere])
    assert read(tmp_path / "r.json") == [RECORD, elsewhere]
    assert ["trained_at" in values for values in json.loads((tmp_path / "r.json").read_text())] == [False, True]
    with pytest.raises(ConfigError, match="committed code only"):
        add(tmp_path / "r.json", [replace(RECORD, trained_at="fedcba987654-dirty")])


def test_every_command_refuses_to_record_what_uncommitted_code_measures(
    benchmark_of_cost: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is measured; `test_ablations.py` has the same of that command."""
    results = ["--results", str(tmp_path / "results")]
    for commit in ("0123456789ab-dirty", None):
        monkeypatch.setattr(commands, "commit", lambda commit=commit: commit)
        for command, words in (
            (main, ["digits-table"]),
            (latent_scale.main, []),
            (benchmark_of_cost.main, ["--what", "epochs"]),
        ):
            assert command([*words, *results]) == 2
            said = capsys.readouterr()
            assert "committed code only" in said.err
            assert not said.out
    assert not list(tmp_path.iterdir())


def test_a_study_is_measured_on_one_split_whatever_its_figures_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def record(study: str, row: str, *rest: Any) -> list[Record]:
        return [replace(RECORD, study=study, system=row, note="validation sentences; of a choice", command=rest[-1])]

    monkeypatch.setattr(commands, "commit", lambda: "0123456789ab")
    monkeypatch.setattr(table, "run_row", lambda *_: (None, open_data("digits")))
    monkeypatch.setattr(table, "record_row", record)

    def run(row: str, split: str) -> int:
        words = ["digits-table", "--only", row, "--split", split, "--results", str(tmp_path)]
        return table.run_study("table", table.arguments("table", "").parse_args(words), lambda *_: {})

    assert [run("vae", "test"), run("diled", "test"), run("vae", "test"), run("ldm", "validation")] == [0, 0, 0, 2]
    said = capsys.readouterr()
    assert "vae, seed 0: recorded" in said.out
    assert "the other split" in said.err
    (tmp_path / "digits-table.json").unlink()
    assert [run("vae", "validation"), run("diled", "validation"), run("ldm", "test")] == [0, 0, 2]
    assert {table.split_of(r) for r in read(tmp_path / "digits-table.json")} == {"validation"}


def test_the_scale_of_codes_is_recorded_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same metrics, system and command as in the committed results, and for codes that coincide the same numbers."""
    monkeypatch.setattr(latent_scale, "SCALES", (0.0, 1.0))
    assert latent_scale.main(["--draws", "2", "--trial", "--results", str(tmp_path)]) == 0
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(commands, "commit", lambda: "0123456789ab")
    assert latent_scale.main(["--draws", "2", "--results", str(tmp_path)]) == 0
    found = {r.metric: r for r in read(tmp_path / "latent-scale.json")}
    before = {r.metric: r for r in read(ROOT / "results" / "latent-scale.json")}
    assert set(found) == {m for m in before if m.endswith(("scale=0", "scale=1"))}
    for metric, record in found.items():
        changed = {"value": 0.0, "stderr": 0.0, "n": 0, "commit": "", "hardware": ""}
        assert replace(record, **changed) == replace(before[metric], **changed)
        assert record.n == 128
        assert record.commit == "0123456789ab"
        if metric.endswith("scale=0"):
            assert record.value == pytest.approx(before[metric].value, abs=1e-3)


def test_every_row_of_every_study_is_a_valid_configuration() -> None:
    assert {"mnist-table", "digits-table"} <= set(studies())
    for study in studies():
        for name, row in rows(study).items():
            config = row.config()
            assert config.name == name.split("@")[0]
            assert config.model == model_config(config.name, config.model.model_dump(exclude_unset=True))


def test_rows_of_a_table_differ_in_the_model_alone() -> None:
    for study in ("mnist-table", "digits-table"):
        trivial = ("ppca", "independent")  # in closed form: without networks and steps
        configs = [row.config() for name, row in rows(study).items() if name not in trivial]
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
        longer = {name for name, row in rows(study).items() if row.config().training.steps != 2500}
        assert all(name.endswith("2N") for name in longer), "a row with more steps says so"


def test_a_study_of_another_study_s_rows_changes_what_it_says_and_no_more() -> None:
    ours, theirs = rows("mnist-conv"), rows("mnist-table")
    assert {"diled", "vae", "lsgm"} < set(ours) < set(theirs)
    for name, row in ours.items():
        changed, config = row.config(seed=3), theirs[name].config(seed=3)
        assert changed.model.network.kind == "conv"
        assert changed.training == config.training
        assert changed.model.model_copy(update={"network": config.model.network}) == config.model
    assert {row.config().training.steps for row in rows("mnist-table-20k").values()} == {20_000}
    assert {row.config().preprocess.binarize for row in rows("mnist-grey").values()} == {"none"}


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


def test_a_finished_run_of_other_settings_is_not_taken_for_the_row_s(tmp_path: Path) -> None:
    few = {"training.steps": 2, "model.network.width": 8}
    first, _ = run_row("digits-table", "vae", 0, tmp_path, few)
    again, _ = run_row("digits-table", "vae", 0, tmp_path, few)
    assert again.parameters == first.parameters
    with pytest.raises(ConfigError, match="other settings"):
        run_row("digits-table", "vae", 0, tmp_path, few | {"model.latent_dim": 4})
