"""Records of results, the tables rendered from them, and the studies that make them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from diled.errors import ConfigError
from diled.family import model_config
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


def test_every_row_of_every_study_is_a_valid_configuration() -> None:
    assert {"mnist-table", "digits-table"} <= set(studies())
    for study in studies():
        for name, path in rows(study).items():
            config = resolve(None, None, path)
            assert config.name == name.split("@")[0]
            assert config.model == model_config(config.name, config.model.model_dump(exclude_unset=True))


def test_rows_of_a_table_differ_in_the_model_alone() -> None:
    for study in ("mnist-table", "digits-table"):
        configs = [resolve(None, None, path) for path in rows(study).values()]
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
