"""The audit: sections add up, finished cells are never measured again, and what a model cannot have is said in words."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import diled, train_any

from diled import auditing
from diled.auditing import Subject, audit_models, report_audit, subjects_of
from diled.errors import ConfigError
from diled.evaluation.audit import Effort, Section
from diled.evaluation.audit_columns import columns_of, competing, worded
from diled.evaluation.audited import combined, differences
from diled.evaluation.measure import Measured

EFFORT = Effort(
    bounded=24,
    examples=24,
    samples=4,
    steps=10,
    weights=20,
    ode_weights=2,
    ode_examples=3,
    references=8,
    restarts=2,
    iterations=3,
    radii=(0.1, 0.2),
    published_references=6,
    published_iterations=3,
    pairs=4,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for model in ("vae", "diled", "ae", "ddpm"):
        assert train_any(folder / model, model) == 0
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def audited(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("audit")
    subjects = subjects_of([runs["vae"], runs["diled"], runs["ae"]], None, "cpu")
    return folder, subjects, audit_models(subjects, folder, effort=EFFORT, say=lambda line: None)


def value(found: Any, name: str) -> float:
    assert found.figures[name].value is not None
    return float(found.figures[name].value)


def test_gaps_are_differences_of_what_they_are_made_of(audited):
    _, _, found = audited
    for name in ("vae", "diled"):
        one = found[name]
        gap = value(one, "bound_nats/test") - value(one, "bound_nats/train")
        assert value(one, "generalization_gap") == pytest.approx(gap)
        parts = [value(one, f"generalization_gap/{part}") for part in ("rate", "distortion")]
        assert sum(parts) == pytest.approx(gap, abs=1e-4)
        for split in ("train", "test"):
            before, best = (one.arrays[f"amortization/{split}_{key}"] for key in ("before", "best"))
            assert value(one, f"amortization_gap_{split}") == pytest.approx((before - best).mean())
        sides = value(one, "generative_gap") + value(one, "encoder_gap")
        before = [one.arrays[f"amortization/{split}_before"].mean() for split in ("test", "train")]
        assert sides == pytest.approx(before[0] - before[1])
        n = len(one.arrays["likelihood/test_log_p"])
        inference = value(one, "approximation_gap_test") + np.mean(
            one.arrays["amortization/test_before"][:n] - one.arrays["amortization/test_best"][:n]
        )
        assert value(one, "inference_gap_test") == pytest.approx(inference)


def test_bounds_of_the_vae_are_those_of_evaluate(audited, runs):
    """More draws than examples differ: within errors, the mean of two independent estimates of one number."""
    import diled as package

    _, subjects, found = audited
    one, model = found["vae"], package.load(runs["vae"], device="cpu")
    order = np.random.default_rng(0).permutation(len(subjects[0].data.test))[:24]
    again = model.bound(subjects[0].data.test.values[order], repeats=64, seed=5)
    assert one.arrays["bounds/test_bound"] == pytest.approx(again, rel=0.1)
    assert value(one, "bound_nats/test") == pytest.approx(again.mean(), rel=0.02)


def test_models_without_a_bound_are_refused_what_needs_one_and_get_the_rest(audited):
    _, _, found = audited
    one = found["ae"]
    assert set(one.refused) >= {"bounds", "amortization", "likelihood"}
    words = ("entropy", "bound", "determin", "Gaussian", "images", "pictures")
    assert all(any(word in why for word in words) for why in one.refused.values())
    assert not found["vae"].refused


def test_finished_cells_are_never_measured_again(audited, monkeypatch):
    folder, subjects, found = audited

    def never(*arguments: Any) -> Section:
        raise AssertionError("measured again")

    monkeypatch.setattr(auditing, "audit_section", never)
    again = audit_models(subjects, folder, effort=EFFORT, say=lambda line: None)
    for name, one in found.items():
        assert again[name].figures == one.figures
        assert again[name].refused == one.refused
        for key, values in one.arrays.items():
            assert np.array_equal(again[name].arrays[key], values, equal_nan=True)


def test_a_cell_that_was_cut_short_or_has_other_settings_is_measured_again(audited, monkeypatch, tmp_path):
    source, subjects, _ = audited
    folder = tmp_path / "audit"
    shutil.copytree(source, folder)
    (cut,) = (folder / "cells").glob("vae-bounds-*.npz")
    cut.write_bytes(b"PK half")
    measured: list[str] = []

    def seen(name: str, *arguments: Any) -> Section:
        measured.append(name)
        return Section({"bound_nats/test": Measured(1.0)}, {}, [])

    monkeypatch.setattr(auditing, "audit_section", seen)
    audit_models(subjects[:1], folder, effort=EFFORT, say=lambda line: None)
    assert measured == ["bounds"]
    measured.clear()
    audit_models(subjects[:1], folder, effort=replace(EFFORT, radii=(0.3,)), say=lambda line: None)
    assert measured == ["robustness"], "no other section depends on the radii"
    measured.clear()
    audit_models(subjects[:1], folder, effort=EFFORT, sections=("bounds", "codes"), seed=1, say=lambda line: None)
    assert measured == ["bounds", "codes"]


def test_the_page_says_of_how_many_examples_and_shows_what_was_annealed(audited):
    folder, subjects, found = audited
    n = len(subjects[0].data.test)
    one = replace(found["vae"], figures=found["vae"].figures | {
        "ais_nats/test": Measured(-123.4, 0.5, 17), "bdmc_gap_nats": Measured(0.678, 0.05, 19),
    })  # fmt: skip
    report_audit({"vae": one}, subjects[:1], folder)
    page = (folder / "audit.html").read_text()
    assert f"largest first; from {n:,} test examples." in page
    part = page.split("How likely is x?")[-1].split("Under attack")[0]
    for piece in ("log p(x) by AIS, test", "−123.4", "BDMC gap", "0.68", "the first 17 of them", "of 19 samples"):
        assert piece in part
    report_audit({"vae": found["vae"]}, subjects[:1], folder)
    assert "by AIS" not in (folder / "audit.html").read_text().split('id="provenance"')[0].split("How likely is x?")[-1]


def test_the_page_shows_splits_terms_and_attacks_at_the_radii_that_were_run(audited, tmp_path):
    """The strong attack's column is that of the radius next to 0.1, and it is bold only beyond chance."""
    _, subjects, found = audited
    one = found["diled"]
    figures = {k.replace("/0.1", "/0.08").replace("/0.2", "/0.3"): m for k, m in one.figures.items()}
    figures["encoder_gap"], figures["attack_skl/strong/0.3"] = Measured(325.0, 1.0), Measured(77.5, 0.1)
    report_audit({"diled": replace(one, figures=figures)}, subjects[1:2], tmp_path)
    page = (tmp_path / "audit.html").read_text()
    results, rest = page.split('id="splits"')[0], page.split('id="splits"')[-1]
    assert "the same, strong attack at 0.08" in results
    splits, terms = rest.split('id="terms"')[0], rest.split('id="terms"')[-1].split('id="robustness"')[0]
    for piece in ("decoder&#x27;s share", ">325", "approximation gap, train", "need not add up"):
        assert piece in splits.replace("'", "&#x27;")
    assert "rate/terminal" in terms
    assert "rate/diffusion" in terms
    for piece in ("attack SKL", "strong 0.08: gap", "strong 0.3: attack SKL", "77.5"):
        assert piece in page.split('id="robustness"')[-1]
    assert "robustness_gap/strong/0.08" in competing({"diled": figures})
    assert "strong attack" not in str(columns_of({"a": {"robustness_gap": Measured(1.0)}}))


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("bound_nats/test", "bound, test"),
        ("amortization_gap_train", "amortization gap, train"),
        ("robustness_gap/strong/0.05", "robustness gap, strong attack at 0.05"),
        ("robustness_gap/words/substitutions=2", "robustness gap, words, 2 substitutions"),
        ("robustness_gap/substitutions=1", "robustness gap, 1 substitution"),
    ],
)
def test_a_metric_in_words(metric, said):
    assert worded(metric) == said


def test_codes_alone_are_printed_as_a_table(runs, tmp_path, capsys):
    options = ["--examples", 12, "--device", "cpu", "--sections", "codes", "pool", "--out", tmp_path]
    assert diled("audit", runs["vae"], *options) == 0
    said = capsys.readouterr().out
    assert "active units" in said
    assert "logistic probe" in said
    assert "vae has no pool: it was trained on real examples only." in said
    assert "No bounds were measured" in said


def test_differences_of_a_model_from_itself_are_zero(audited):
    _, _, found = audited
    interval = differences({"a": found["vae"], "b": found["vae"]})["b"]["generalization_gap"]
    assert interval.difference.value == 0
    assert interval.low == interval.high == 0


def test_a_log_p_below_the_best_elbo_is_said():
    n = np.zeros(4)
    amortized = Section(arrays={"test_before": n + 5, "test_best": n + 3}, figures={})
    likely = Section(arrays={"test_log_p": n - 10}, figures={})
    one = combined({"amortization": amortized, "likelihood": likely})
    assert value(one, "approximation_gap_test") == -7
    assert any("too low" in note for note in one.notes)


def test_the_command_writes_a_page_that_needs_nothing(runs, tmp_path, capsys):
    options = ["--examples", 12, "--steps", 4, "--sections", "bounds", "amortization", "codes", "--device", "cpu"]
    assert diled("audit", runs["vae"], runs["ae"], "--out", tmp_path / "a", *options) == 0
    said = capsys.readouterr().out
    assert "generalization gap" in said
    assert "ae has no bounds" in said
    page = (tmp_path / "a" / "audit.html").read_text()
    assert "<table" in page
    assert "http" not in page.replace("http-equiv", "")
    record = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert set(record) == {"vae", "ae"}
    assert diled("audit", runs["vae"], "--out", tmp_path / "a", *options) == 0
    assert "already measured" in capsys.readouterr().out


def test_the_preprocessing_is_that_of_the_options(runs, tmp_path, capsys):
    """A run's own unless said otherwise; what its model cannot read is refused, and a misspelt value named."""
    options = ["--device", "cpu", "--sections", "bounds", "--out"]
    assert diled("audit", runs["vae"], "--preprocess.limit", 30, *options, tmp_path / "a") == 0
    record = json.loads((tmp_path / "a" / "audit.json").read_text())["vae"]
    assert record["figures"]["bound_nats/train"]["n"] == 30
    assert diled("audit", runs["vae"], "--preprocess.size", 6, *options, tmp_path / "b") == 2
    assert "(1, 6, 6)" in capsys.readouterr().err
    assert diled("audit", runs["vae"], "--preprocess.binarize", "often", *options, tmp_path / "b") == 2
    assert "preprocess.binarize" in capsys.readouterr().err


def test_foreign_models_take_the_preprocessing_too(tmp_path, monkeypatch):
    from PIL import Image

    seen = []
    monkeypatch.setattr(
        "diled.subjects._foreign", lambda source, data, device: seen.append(data) or Subject("m", None, "", data)
    )
    monkeypatch.setattr("diled.subjects.check_source", lambda source: None)
    for i, side in enumerate([8] * 10 + [10] * 2):
        (tmp_path / "p").mkdir(exist_ok=True)
        Image.fromarray(np.full((side, side), 9 * i, np.uint8)).save(tmp_path / "p" / f"{i}.png")
    subjects_of(["a:b"], tmp_path / "p", "cpu", {"size": 8, "size_policy": "crop"})
    assert seen[0].spec.shape == (1, 8, 8)


def test_a_foreign_model_is_audited_beside_ours(runs, tmp_path, monkeypatch, capsys):
    (tmp_path / "theirs.py").write_text(
        "import torch\n"
        "class Theirs(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.down, self.up = torch.nn.Linear(64, 4), torch.nn.Linear(2, 64)\n"
        "    def encode(self, x):\n"
        "        return tuple(self.down(x.flatten(1)).chunk(2, 1))\n"
        "    def decode(self, z):\n"
        "        return torch.tanh(self.up(z)).reshape(-1, 1, 8, 8)\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return Theirs()\n"
        "def bare():\n"
        "    made = make()\n"
        "    made.encode = lambda x: made.down(x.flatten(1))[:, :2]\n"
        "    return made\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--examples", 12, "--steps", 4, "--sections", "bounds", "amortization", "--device", "cpu"]
    assert diled("audit", "theirs:make", runs["vae"], "--out", tmp_path / "a", *options) == 0
    record = json.loads((tmp_path / "a" / "audit.json").read_text())
    theirs = record[next(iter(record))]
    assert theirs["figures"]["generalization_gap"]["value"] is not None
    assert theirs["notes"]
    assert diled("audit", "theirs:make", "--out", tmp_path / "b", *options) == 2
    assert "--data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--radii", "1.5"], "1.5"),
        (["--sections", "gaps"], "robustness"),
        (["--examples", "1"], "examples = 1"),
        (["--data", "no/such"], "no/such"),
    ],
)
def test_what_cannot_be_audited_is_refused(runs, tmp_path, capsys, words, said):
    assert diled("audit", runs["vae"], "--out", tmp_path / "a", *words) == 2
    assert said in capsys.readouterr().err


def test_no_model_and_other_test_examples_are_refused(audited, capsys, tmp_path):
    assert diled("audit") == 2
    capsys.readouterr()
    _, subjects, _ = audited
    data = subjects[0].data
    other = replace(subjects[1], data=replace(data, test=data.test.subset(np.arange(9))))
    with pytest.raises(ConfigError, match=r"diled has other test examples than vae \(9 of digits and 360 of digits\)"):
        audit_models([subjects[0], other], tmp_path, effort=EFFORT)


def test_a_density_without_codes_is_refused_in_words(runs, tmp_path):
    subjects = subjects_of([runs["ddpm"]], None, "cpu")
    found = audit_models(subjects, tmp_path, effort=EFFORT, sections=("bounds", "amortization"), say=lambda line: None)
    assert value(found["ddpm"], "generalization_gap")
    assert "encoder" in found["ddpm"].refused["amortization"]
