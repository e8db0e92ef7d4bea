"""The study of designs: who judges, what is summed up, and the additive model, on a small landscape that is known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from diled.data import Data, open_data
from diled.data.proteins import encode
from diled.evaluation.sequences import residues_of
from diled.optimizing import Designs
from diled.studies import designs as study

LETTERS = "ACDEF"


def worth(pair: str) -> float:
    """Additive, but for one pair that is better than its parts."""
    return LETTERS.index(pair[0]) + 10.0 * LETTERS.index(pair[1]) + (100.0 if pair == "AC" else 0.0)


@pytest.fixture
def landscape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    """All pairs but FF, which was not measured; a third of them for training."""
    pairs = ["".join(p) for p in itertools.product(LETTERS, repeat=2) if p != ("F", "F")]
    lines = [f"{p},{worth(p)},{('train', 'validation', 'test')[i % 3]}" for i, p in enumerate(pairs)]
    file = tmp_path / "pairs.csv"
    file.write_text("sequence,fitness,split\n" + "\n".join(lines) + "\n")
    data = open_data(file)
    monkeypatch.setattr(study, "open_data", lambda *args, **options: data)
    monkeypatch.setattr(study, "residues_of", lambda spec: [r for r in residues_of(spec) if spec.symbols[r] in LETTERS])
    return data


def rows(*texts: str) -> np.ndarray:
    return encode(texts, 2)


def test_the_measured_value_judges_and_what_was_not_measured_counts_as_zero(landscape: Data):
    judge, note = study.judge_of("gb1-low", landscape)
    for kind in (np.uint8, np.int64):
        assert judge(rows("DE", "AC", "FF").astype(kind)).tolist() == [worth("DE"), worth("AC"), 0.0]
    assert note == "24 measured variants"


def test_designs_are_summed_up_by_hand(landscape: Data):
    values = rows("DE", "AC", "FF", "CC")
    predicted, distance = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 2.0, 0.0])
    found = Designs(
        values, ["DE", "AC", "FF", "CC"], {"predicted": predicted, "distance": distance}, {"spearman": 0.5}, []
    )
    judge, note = study.judge_of("gb1-low", landscape)
    got = study.judged(found, judge, landscape, "measured_fitness", "ode", note)
    want = np.array([worth("DE"), worth("AC"), 0.0, worth("CC")])
    assert got["measured_fitness/ode"].value == pytest.approx(want.mean())
    assert got["measured_fitness/ode"].stderr == pytest.approx(want.std() / 2)
    assert got["best_measured_fitness/ode"].value == want.max()
    assert got["median_measured_fitness/ode"].value == np.median(want)
    assert got["predicted/ode"].value == 2.5
    assert got["nearest_training/ode"].value == 1.0
    assert got["ensemble_spearman/ode"].value == 0.5
    assert got["diversity/ode"].value == pytest.approx((2 + 2 + 2 + 2 + 2 + 1) / 6)  # AC and CC differ in one place
    alone = Designs(values[:1], ["DE"], {"predicted": predicted[:1], "distance": distance[:1]}, {"spearman": 0.5}, [])
    assert study.judged(alone, judge, landscape, "measured_fitness", "ode", note)["diversity/ode"].value is None


def test_the_additive_model_takes_the_best_sums_that_it_was_not_trained_on(landscape: Data):
    best = study.ridge(landscape, study.Plan("fitness", 3, "measured_fitness", {}))
    known = {row.tobytes() for row in landscape.train.values}
    assert all(row.tobytes() not in known for row in best)
    assert best.shape == (3, 2)
    assert best.tolist()[0] == rows("FF").tolist()[0], "the largest sum, although it was never measured"


def test_percentiles_and_refusals(landscape: Data, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert study.main(["gb1-low", "--only", "nobody", "--results", str(tmp_path), "--steps", "1"]) == 2
    assert "gb1-low has no row 'nobody'" in capsys.readouterr().err
    assert study.main(["gb1-low", "--only", "data", "--results", str(tmp_path), "--steps", "1"]) == 0
    want = np.percentile(list(study.landscape().values()), 99)
    assert f"percentile99 {want:.3g}" in capsys.readouterr().out
    assert not list(tmp_path.glob("gb1-low.json")), "a trial records nothing"
