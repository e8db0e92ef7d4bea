"""Scores of single examples, and the ids that go with whatever is written: against closed forms and the figures of all."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from potts_data import LETTERS, PottsData
from scipy.stats import spearmanr
from tiny import diled, train_any

import diled as package
from diled.data import open_data
from diled.data.proteins import protein_spec, to_strings
from diled.data.splits import Split
from diled.errors import ConfigError, DataWarning, NoBound
from diled.evaluation.measure import bounds, bounds_of_examples
from diled.model import Model, load
from diled.models.exact_sequences import Potts, Profile
from diled.models.properties import head_of
from diled.scoring import score_examples

TRUTH = PottsData(length=4, symbols=4, seed=1)
SPEC = protein_spec(4, symbols=("", *LETTERS[:3]))


def rows_of(path: Path) -> list[dict[str, str]]:
    """A table's rows."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of named sequences with a measured value, a class, and a model with a head for both."""
    folder = tmp_path_factory.mktemp("scores")
    x = TRUTH.draw(200).numpy()
    with (folder / "variants.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "sequence", "fitness", "family"])
        for i, (text, energy) in enumerate(zip(TRUTH.texts(torch.from_numpy(x)), TRUTH.energy(x), strict=True)):
            writer.writerow([f"v{i}", text, f"{-energy:.4f}", "low" if energy > 0 else "high"])
    heads = ["--model.properties.columns", "fitness,family"]
    assert train_any(folder / "run", "vae", *heads, data=folder / "variants.csv") == 0
    return folder


def test_an_exact_model_scores_minus_log_p():
    """A profile of three residues at 1/2, 1/4, 1/4 at each of four places, and an end after them."""
    profile = Profile(4, 4)
    p = torch.tensor([0.0, 0.5, 0.25, 0.25]).expand(4, 4)
    profile.logits.copy_(p.clamp(min=1e-30).log())
    values = np.array([[1, 1, 1, 1], [1, 2, 3, 1], [2, 2, 3, 3]], np.uint8)
    found = score_examples(Model(profile, SPEC, device="cpu"), values, ["a", "b", "c"], repeats=2)
    nats = np.log(2) * np.array([4, 6, 8])
    assert found.columns["bound_nats"] == pytest.approx(nats, rel=1e-5)
    assert found.columns["nats_per_residue"] == pytest.approx(nats / 4, rel=1e-5)
    assert list(found.columns) == ["bound_nats", "nats_per_residue"]
    assert found.text().splitlines()[2].split() == ["b", "4.159", "1.04"]


def test_scores_are_what_evaluate_averages(variants: Path):
    model, data = load(variants / "run", device="cpu"), open_data(variants / "variants.csv")
    found = score_examples(model, data.test.values, data.test.ids, repeats=64, seed=3)
    whole = bounds(model.density, data.test, data.spec, repeats=64, seed=3)
    for name in ("bound_nats", "rate_nats", "distortion_nats"):
        assert found.columns[name].mean() == pytest.approx(whole[name].value, rel=0.03)
    same = bounds_of_examples(model.density, data.test, data.spec, repeats=64, seed=3, paired=True)["bound_nats"]
    assert found.columns["bound_nats"] == pytest.approx(same.numpy(), rel=1e-6)
    alone = score_examples(model, data.test.values[1:2], data.test.ids[1:2], repeats=64, seed=3).columns
    for name, values in found.columns.items():
        if values.dtype.kind == "f":
            assert alone[name][0] == pytest.approx(values[1], rel=1e-4), name
    both = found.columns["rate_nats"] + found.columns["distortion_nats"]
    assert found.columns["bound_nats"] == pytest.approx(both, rel=1e-6)


def test_heads_say_values_and_names_of_classes(variants: Path):
    model, data = load(variants / "run", device="cpu"), open_data(variants / "variants.csv")
    found = score_examples(model, data.test.values, data.test.ids).columns
    head, codes = head_of(model.density), torch.from_numpy(model.encode(data.test.values))
    assert head is not None
    with torch.no_grad():
        assert found["predicted_fitness"] == pytest.approx(head.predict(codes, "fitness").numpy(), rel=1e-4)
        best = head.predict(codes, "family").argmax(1).tolist()
    assert found["predicted_family"].tolist() == [data.spec.labels["family"][i] for i in best]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_score_from_the_command_line(suffix: str, variants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / f"scores{suffix}"
    assert diled("score", variants / "run", variants / "variants.csv", "--repeats", 2, "--out", out) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].split()[:2] == ["id", "bound_nats"]
    assert f"Wrote {out}" in said
    rows: list[dict[str, Any]] = rows_of(out) if suffix == ".csv" else pq.read_table(out).to_pylist()
    given = rows_of(variants / "variants.csv")
    assert [(row["id"], row["sequence"]) for row in rows] == [(row["id"], row["sequence"]) for row in given]
    found = package.score(variants / "run", variants / "variants.csv", repeats=2)
    assert [float(row["bound_nats"]) for row in rows] == pytest.approx(found.columns["bound_nats"].tolist(), rel=1e-5)


def test_scores_are_written_into_the_run(variants: Path, capsys: pytest.CaptureFixture[str]):
    assert diled("score", variants / "run", variants / "variants.csv") == 0
    assert len(rows_of(variants / "run" / "scores.csv")) == 200


def test_a_potts_model_that_cannot_be_summed_says_its_energy():
    potts = Potts(12, 4)
    potts.fields.data = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    spec, values = protein_spec(12, symbols=("", *LETTERS[:3])), np.full((2, 12), 1, np.uint8)
    values[1, 5] = 3
    found = score_examples(Model(potts, spec, device="cpu"), values, ["a", "b"])
    assert list(found.columns) == ["energy"]
    change = potts.fields[5, 1] - potts.fields[5, 3]
    assert found.columns["energy"][1] - found.columns["energy"][0] == pytest.approx(change.item(), rel=1e-4)
    assert "No bound" in found.text()


def test_a_model_that_says_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert train_any(tmp_path / "run", "ae", steps=2) == 0
    some = open_data("digits").test.values[:3]
    with pytest.raises(NoBound, match="no bound"):
        package.score(tmp_path / "run", some)
    assert not list(tmp_path.glob("run/scores*"))
    with pytest.raises(ConfigError, match=r"on_error 'drop' is unknown\. Known: stop, skip"):
        package.score(tmp_path / "run", some, on_error="drop")
    with pytest.raises(ConfigError, match="repeats = 0"):
        package.score(tmp_path / "run", some, repeats=0)
    np.save(tmp_path / "some.npy", some)
    assert diled("score", tmp_path / "run", tmp_path / "some.npy", "--out", tmp_path / "s.txt") == 2
    assert "no ending that tables" in capsys.readouterr().err


def test_pictures_are_scored(tmp_path: Path):
    assert train_any(tmp_path / "run", "vae", steps=2) == 0
    data = open_data("digits")
    some = Split(data.test.values[:5], {}, list("abcde"))
    found = package.score(tmp_path / "run", some.values)
    assert list(found.columns) == ["bound_nats", "rate_nats", "distortion_nats"]
    whole = bounds(load(tmp_path / "run", device="cpu").density, some, data.spec, repeats=64)["bound_nats"]
    assert found.columns["bound_nats"].mean() == pytest.approx(whole.value, rel=0.02)


# Ids


def test_reconstructions_keep_the_ids(variants: Path, tmp_path: Path):
    run, table = variants / "run", variants / "variants.csv"
    values = package.reconstruct(run, table, out=tmp_path / "r.csv")
    ids = [row["id"] for row in rows_of(table)]
    spec = load(run).spec
    assert [(row["id"], row["sequence"]) for row in rows_of(tmp_path / "r.csv")] == list(
        zip(ids, to_strings(values, spec), strict=True)
    )
    package.reconstruct(run, table, out=tmp_path / "r.fasta")
    assert (tmp_path / "r.fasta").read_text().splitlines()[::2] == [f">{name}" for name in ids]


def test_search_writes_a_table(variants: Path, tmp_path: Path):
    run, table = variants / "run", variants / "variants.csv"
    (tmp_path / "q.fasta").write_text(">first\nAACD\n>second\nCCCC\n")
    found = package.search(run, tmp_path / "q.fasta", k=3, out=tmp_path / "n.csv")
    rows = rows_of(tmp_path / "n.csv")
    assert [row["query"] for row in rows] == ["first"] * 3 + ["second"] * 3
    assert [(row["neighbour"], float(row["distance"])) for row in rows] == [
        (name, pytest.approx(d, rel=1e-4)) for one in found for name, d in one
    ]
    texts = {row["id"]: row["sequence"] for row in rows_of(table)}
    assert [row["sequence"] for row in rows] == [texts[row["neighbour"]] for row in rows]
    package.search(run, tmp_path / "q.fasta", k=1, out=tmp_path / "n.fasta")
    names = (tmp_path / "n.fasta").read_text().splitlines()[::2]
    assert names == [">first", f">{found[0][0][0]}", ">second", f">{found[1][0][0]}"]


def test_what_does_not_vary_has_no_correlation(variants: Path, tmp_path: Path):
    rows = rows_of(variants / "variants.csv")[:5]
    table = tmp_path / "same.csv"
    table.write_text("sequence,fitness\n" + "\n".join(f"{row['sequence']},1.5" for row in rows) + "\n")
    found = package.score(variants / "run", table, repeats=1)
    assert found.spearman["bound_nats/fitness"].value is None
    said = "of minus bound_nats with 'fitness': not defined, all values of 'fitness' are alike (n = 5)."
    assert said in found.text()


def test_scores_are_set_beside_what_was_measured(variants: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """By scipy; a row without a value counts in no correlation, classes have none, and what was trained on is set apart."""
    rows = rows_of(variants / "variants.csv")
    y = np.array([float(row["fitness"]) for row in rows])
    found = package.score(variants / "run", variants / "variants.csv", repeats=2)
    for column, sign in (("bound_nats", -1), ("predicted_fitness", 1)):
        rank = found.spearman[f"{column}/fitness"]
        assert (rank.value, rank.n) == (pytest.approx(spearmanr(sign * found.columns[column], y).statistic), 200)
    data = open_data(variants / "variants.csv")
    new = ~np.isin([row["sequence"] for row in rows], to_strings(data.train.values, data.spec))
    for column, sign in (("bound_nats", -1), ("predicted_fitness", 1)):
        rank = found.spearman_new[f"{column}/fitness"]
        expected = spearmanr(sign * found.columns[column][new], y[new]).statistic
        assert (rank.value, rank.n) == (pytest.approx(expected), new.sum())
    assert set(found.spearman) == set(found.spearman_new) == {"bound_nats/fitness", "predicted_fitness/fitness"}
    assert f"The model was trained on {(~new).sum()} of these 200 examples." in found.text()
    assert f"'fitness' among the others: {rank.value:.3f} (n = {new.sum()})." in found.text()
    rank = found.spearman["bound_nats/fitness"].value
    assert f"Spearman correlation of minus bound_nats with 'fitness': {rank:.3f} (n = 200)." in found.text()
    with (tmp_path / "some.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["sequence", "fitness"], *([row["sequence"], row["fitness"]] for row in rows[:20])])
        writer.writerows([row["sequence"], ""] for row in rows[20:40])
        writer.writerow(["AC?", "1.5"])
    assert diled("score", variants / "run", tmp_path / "some.csv") == 2
    assert "line 42 has '?' at position 3" in (said := capsys.readouterr().err)
    assert "To leave out what cannot be read: on_error='skip' (--on-error skip)." in said
    with pytest.warns(DataWarning, match="1 of 41 records were left out: some.csv, line 42"):
        assert diled("score", variants / "run", tmp_path / "some.csv", "--on-error", "skip", "--repeats", 2) == 0
    with pytest.warns(DataWarning, match="1 of 41"):
        scored = package.score(variants / "run", tmp_path / "some.csv", repeats=2, on_error="skip")
    assert scored.ids == [str(i) for i in range(40)]
    some = scored.spearman["bound_nats/fitness"]
    assert some.n == 20
    assert not package.score(variants / "run", [rows[0]["sequence"]]).spearman
    assert diled("score", variants / "run", variants / "variants.csv") == 0
    assert "Spearman correlation of minus bound_nats with 'fitness'" in capsys.readouterr().out


def test_rare_residues_are_said_once_with_their_number(variants: Path):
    model = load(variants / "run", device="cpu")
    text = rows_of(variants / "variants.csv")[0]["sequence"]
    with pytest.warns(UserWarning, match="2 of 3 sequences have U, O, B or Z, which were read as X") as said:
        package.score(model, [text, "U" + text[1:], "ZB" + text[2:]])
    assert len(said) == 1
