"""What studies of DMaaPx answer beside the paper's table: fronts, rank correlations, grids and curves, of made-up records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from diled.studies.questions_dmaapx import (
    PICTURES,
    calibration,
    costs,
    descent,
    front,
    joined,
    main,
    pictured,
    statistics,
    widths,
)
from diled.studies.records import Record, add

RECORD = Record(
    study="dmaapx", data="mnist/threshold/s-mini", system="vae@real", seed=0, metric="test_elbo", value=-100.0, stderr=None,
    n=10, steps=5, train_seconds=1.0, cpu_seconds=50.0, parameters=7, hardware="a machine", commit="0123456789ab", command="c",
)  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two seeds of three arms, a grid of widths, and a curve."""
    of_arms = {
        ("vae@real", "test_elbo"): (-100.0, -110.0),
        ("vae@synthetic/a", "test_elbo"): (-90.0, -90.0),
        ("vae@synthetic/a", "total_cpu_seconds"): (400.0, 600.0),
        ("vae@synthetic/a", "c2st_accuracy"): (0.6, 0.7),
        ("vae@synthetic/a", "recall_pool"): (0.8, 0.8),
        ("vae@synthetic/b", "test_elbo"): (-95.0, -97.0),
        ("vae@synthetic/b", "total_cpu_seconds"): (500.0, 700.0),
        ("vae@synthetic/b", "c2st_accuracy"): (0.9, 0.9),
        ("vae@synthetic/b", "recall_pool"): (0.7, 0.7),
        ("vae@synthetic/c", "test_elbo"): (-96.5,),
        ("vae@synthetic/c", "c2st_accuracy"): (0.8,),
        ("vae@synthetic/c", "recall_pool"): (0.5,),
        ("vae@real/10N", "test_elbo"): (-50.0,),
    }
    grid = {
        ("vae@real/n_c=4,m_z=1", "test_elbo"): (-9.0,),
        ("vae@real/n_c=16,m_z=1", "test_elbo"): (-8.0,),
        ("vae@synthetic/n_c=4,m_z=1", "test_elbo"): (-7.0,),
        ("vae@synthetic/n_c=4,m_z=1", "generalization_gap"): (0.5,),
        ("vae@real/n_c=4,m_z=1", "bound_nats/test"): (9.0, 11.0),
        ("vae@real/n_c=32,m_z=1", "bound_nats/test"): (12.0,),
        ("vae@real/n_c=32,m_z=16", "bound_nats/test"): (7.0,),
        ("vae@real/n_c=16,m_z=4", "bound_nats/test"): (1.0,),
        ("vae@real/n_c=32,m_z=16", "bound_nats/train"): (6.0,),
        ("vae@synthetic/n_c=32,m_z=4", "bound_nats/test"): (8.0,),
    }
    curve = {
        ("vae@real", "test_elbo/epoch=10"): (-99.0,),
        ("vae@real", "test_elbo/epoch=2"): (-120.0,),
        ("vae@real", "peak_epoch"): (57.0,),
        ("vae@real", "peak_test_elbo"): (-84.0,),
        ("vae@real", "test_elbo"): (-95.0,),
        ("vae@real", "generalization_gap"): (25.0,),
        ("vae@real/rate=0.0003", "test_elbo/epoch=10"): (-97.0,),
        ("vae@real/rate=0.0003", "peak_epoch"): (10.0,),
        ("vae@real/rate=0.0003", "peak_test_elbo"): (-97.0,),
        ("vae@real/rate=0.0003", "test_elbo"): (-98.0,),
        ("vae@real/rate=0.0003", "generalization_gap"): (1.0,),
    }
    found = [
        replace(RECORD, data=data, system=s, metric=m, seed=seed, value=v)
        for data, values in (
            ("mnist/threshold/dmaapx-pool-size-mini", of_arms),
            ("mnist/dmaapx-width-mini", grid),
            ("cifar10/dmaapx-width-gpu", grid),
            ("cifar10/dmaapx-width-paper", grid),
            ("mnist/threshold/calibration", curve),
        )
        for (s, m), many in values.items()
        for seed, v in enumerate(many)
    ]
    add(tmp_path / "dmaapx.json", found)
    return tmp_path


def test_the_front_holds_what_nothing_cheaper_beats() -> None:
    points = {
        "a": (1.0, 1.0),
        "b": (2.0, 0.5),
        "c": (3.0, 2.0),
        "d": (3.0, 1.5),
        "e": (0.5, 0.9),
        "vae@real/10N": (0.1, 9.0),
    }
    assert front(points) == ["e", "a", "c"]


def test_costs_are_totals_and_those_of_the_training_where_nothing_was_drawn(results: Path) -> None:
    lines = costs(results / "dmaapx.json", "dmaapx-pool-size", "mini").splitlines()[2:]
    assert lines == [
        "| normal | 50 | -105 | yes |",
        "| ten times the real data | 50 | -50.00 |  |",
        "| DMaaPx, a | 500 | -90.00 | yes |",
        "| DMaaPx, b | 600 | -96.00 |  |",
    ], "the total of c is not known"


def test_statistics_of_pools_are_ranked_with_the_elbo(results: Path) -> None:
    lines = statistics(results / "dmaapx.json", "dmaapx-pool-size", "mini").splitlines()
    assert lines[0] == "| trained on | recall | told apart | test ELBO |"
    assert lines[2] == "| DMaaPx, a | 0.80 | 0.65 | -90.00 |"
    # recall 0.8, 0.7, 0.5 falls with the ELBO; 0.65, 0.9, 0.8 has ranks 1, 3, 2 beside 3, 2, 1: -1/2
    assert lines[-1] == "| *rank correlation with the test ELBO* | +1.00 | -0.50 |  |"


def test_widths_are_a_grid(results: Path) -> None:
    said = widths(results / "dmaapx.json", "dmaapx-width", "mini")
    assert "|  | n_c = 4 | n_c = 16 | n_c = 32 |" in said
    assert "| m_z = 1, normal | -9.00 | -8.00 | – |" in said
    assert "| m_z = 1, DMaaPx | -7.00 | – | – |" in said
    assert "| m_z = 1, DMaaPx | 0.50 | – | – |" in said


def test_the_path_grows_in_one_number_at_a_time() -> None:
    assert joined((n, m) for m in (1, 4, 16) for n in (4, 8, 32)) == [(4, 1), (8, 1), (32, 1), (32, 4), (32, 16)]
    sizes = {(n, m) for m in (1, 2, 64) for n in (8, 256, 512)} | {(256, 4), (256, 16)}
    assert joined(sizes) == [(8, 1), (256, 1), (256, 2), (256, 4), (256, 16), (256, 64), (512, 64)], "as in Figure 8"


def test_the_descent_is_minus_the_elbo_along_the_path(results: Path) -> None:
    steps, lines = descent(results / "dmaapx.json", "dmaapx-width", "mini")
    assert steps == [(4, 1), (8, 1), (16, 1), (32, 1), (32, 4), (32, 16)]
    assert lines == {
        ("real", "test"): [(0, 10.0), (3, 12.0), (5, 7.0)],
        ("real", "train"): [(5, 6.0)],
        ("synthetic", "test"): [(4, 8.0)],
    }, "what is not on the path is not on the line"
    paper, _ = descent(results / "dmaapx.json", "dmaapx-width", "paper")
    assert paper[9:] == [(256, 1), *((256, m) for m in (2, 4, 8, 10, 16, 32, 48, 64)), (384, 64), (512, 64)]


def test_pages_show_the_pictures_that_are_drawn(results: Path, tmp_path: Path) -> None:
    path, images = results / "dmaapx.json", results / "images"
    assert pictured(tmp_path / "none.json", images) == "Nothing is recorded yet."
    assert "`dmaapx-descent-gpu.png` is recorded and not drawn yet." in pictured(path, images)
    images.mkdir()
    (images / "dmaapx-descent.png").touch()
    assert pictured(path, images).splitlines()[:3] == [
        "![Minus the ELBO while both numbers of channels grow, mini](images/dmaapx-descent.png)",
        "",
        "`dmaapx-width.png` is recorded and not drawn yet.",
    ]


def test_the_curve_and_its_peak(results: Path) -> None:
    head, _, paper, *ours = calibration(results / "dmaapx.json").splitlines()
    assert head.startswith("| test ELBO at epoch | 2 | 10 | 50 | 100 |")
    assert paper.startswith("| paper | – | -86.80 | -83.90 |")
    assert paper.endswith("| -94.60 | -83.84 (57) | -94.60 (1000) | 25.76 |")
    assert ours == [
        "| vae@real | -120 | -99.00 | – | – | – | – | – | – | – | -84.00 (57) | -95.00 (10) | 25.00 |",
        "| vae@real/rate=0.0003 | – | -97.00 | – | – | – | – | – | – | – | -97.00 (10) | -98.00 (10) | 1.00 |",
    ]


def test_without_records_nothing_is_said_or_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dmaapx.json"
    for write in (costs, statistics, widths):
        assert write(path, "dmaapx-pool-size", "mini") == "Nothing is recorded yet."
    assert calibration(path) == "Nothing is recorded yet."
    assert main(["--results", str(tmp_path), "--out", str(tmp_path / "pictures")]) == 0
    assert capsys.readouterr().out.count("nothing is recorded yet") == len(PICTURES)
    assert not (tmp_path / "pictures").exists()


def test_pictures_are_drawn(results: Path) -> None:
    assert main(["--results", str(results), "--out", str(results / "pictures")]) == 0
    for name in PICTURES:
        assert Image.open(results / "pictures" / name).width > 500
