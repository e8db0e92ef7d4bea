"""What real data reach is one number for all rows of a study: it depends on no model, and rows where it differs are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_sequence_figures
import torch
from test_sequence_figures import LONG, potts
from test_studies import RECORD

from diled.data import open_data
from diled.evaluation.images import frechet
from diled.evaluation.sequences import drawn_alike, fit_oracle, sequence_figures
from diled.models.exact_sequences import Profile
from diled.studies import commands, table
from diled.studies.records import Record

quick = test_sequence_figures.quick


def test_real_sequences_reach_the_same_beside_any_model_where_the_test_split_was_chosen() -> None:
    """The network learns from the test split, all that is compared is drawn as training is, and neither is the model's."""
    data = potts((300, 100, 1200), LONG)
    chosen = data.test.labels["y"] < np.quantile(data.test.labels["y"], 0.25)
    data = replace(data, test=data.test.subset(np.flatnonzero(chosen)))
    assert drawn_alike(data)[0].test is data.validation
    floors = []
    for seed in (0, 1):
        model = Profile(6, 4)
        torch.nn.init.normal_(model.logits, generator=torch.Generator().manual_seed(seed))
        floors.append(sequence_figures(model, data, samples=300, bounds=lambda split: {})["frechet_floor"])
    network = fit_oracle(data, "y", members=1, width=64)
    want = frechet(network.features(data.train.values), network.features(data.validation.values))
    assert floors[0] == floors[1]
    assert floors[0].value == pytest.approx(want)


def test_rows_whose_real_data_were_measured_otherwise_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The row `vae` has 0.25 of 100 examples and 3 of 50."""
    floors = {"ldm": (0.251, 100), "diled": (8.36, 100), "lsgm": (8.36, 40), "ae": (3.1, 50)}
    known = [replace(RECORD, metric="frechet_floor", value=v, n=n) for v, n in ((0.25, 100), (3.0, 50))]
    found = [replace(RECORD, system=s, metric="frechet_floor", value=v, n=n) for s, (v, n) in floors.items()]
    for i, said in enumerate(([], ["8.36 of diled and 0.25 of vae"], [], ["3.1 of ae and 3 of vae"])):
        remarks = table.other_floors(found[i : i + 1], known)
        assert len(remarks) == len(said)
        assert all(f"frechet_floor is {one}, whose row" in remark for one, remark in zip(said, remarks, strict=True))
    other = {"seed": 1, "data": "digits", "metric": "frechet_samples", "system": "vae"}
    assert all(not table.other_floors([replace(found[1], **{key: value})], known) for key, value in other.items())

    def record(study: str, row: str, *rest: Any) -> list[Record]:
        return [replace(found[1], system=row, value=float(len(row)), command=rest[-1])]

    monkeypatch.setattr(commands, "commit", lambda: "0123456789ab")
    monkeypatch.setattr(table, "run_row", lambda *_: (None, open_data("digits")))
    monkeypatch.setattr(table, "record_row", record)
    words = ["digits-table", "--only", "vae", "ldm", "diled", "--results", str(tmp_path)]
    assert table.run_study("table", table.arguments("table", "").parse_args(words), lambda *_: {}) == 0
    assert capsys.readouterr().out.count("the two do not compare") == 1
