"""Tables of text: what is chosen by validation sentences, equal content, ratios to real text, and seconds of both stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from diled.evaluation.measure import Measured
from diled.studies import edit_pictures, render_texts
from diled.studies.commands import as_records
from diled.studies.records import add
from diled.studies.render import title
from diled.studies.table import begun


def test_tables_of_edits_choose_by_validation_and_count_in_percent(tmp_path: Path):
    figures = {
        "bleu": 61.0, "interpolation_mauve/floor": 0.97, "sample_perplexity/floor": 30.0,
        "edit_chosen/sentiment/vector": 0.8, "edit_chosen/sentiment/ode": 0.9,
        "edit_accuracy/sentiment/vector": 0.86, "edit_accuracy/sentiment/ode": 0.7,
        "edit_accuracy/sst2+tense/ode": 0.5, "edit_accuracy/sst2+tense/ode/tense": 0.6,
        "edit_accuracy/sentiment/ode/s=2": 0.5, "edit_content/sentiment/ode/s=2": 44.4,
        "edit_accuracy/sentiment/people": 0.713,
    }  # fmt: skip
    shared = {
        "study": "yelp", "data": "yelp", "seed": 0, "steps": 1, "train_seconds": 1.0, "cpu_seconds": 1.0, "parameters": 1,
        "hardware": "h", "commit": "c", "command": "python -m diled.studies.texts yelp",
    }  # fmt: skip
    for system in ("diled", "beta_vae", "beta_vae/cyclic"):
        add(tmp_path / "r.json", as_records({k: Measured(v) for k, v in figures.items()}, system=system, **shared))
    shown = {
        line.split(" | ")[0].strip("| "): line
        for line in render_texts.texts_beside_the_paper(tmp_path / "r.json").splitlines()
    }
    assert "| 70.0 |" in shown[title("diled")], "the way that validation sentences prefer, not the better one"
    assert "| 86.0 |" in shown[title("beta_vae")]
    assert "| 70.0 |" in shown["LatentOps"]
    assert "| 86.0 |" in shown[title("beta_vae/cyclic")]
    assert "| 70.0 |" in shown["LatentOps, cyclic"]
    assert "| 71.3 |" in shown["*test sentences; rewrites by people*"]
    table = render_texts.edited(tmp_path / "r.json")
    assert f"| {title('diled')} | sst2+tense | ode | 0.500 |  | 0.600 |" in table
    assert "| *rewritten by people* | sentiment |  | 0.713 |" in table
    variant = title("beta_vae/cyclic")
    assert variant in table
    assert variant not in render_texts.edited(tmp_path / "r.json", variants=False), "a short table is of the defaults"
    heading = render_texts.texts(tmp_path / "r.json", metrics=["cpu_seconds", "bleu"]).splitlines()[0]
    assert heading == "| system | seeds | CPU s | BLEU |"
    assert "2: 0.50, 44" in render_texts.edit_curves(tmp_path / "r.json")


def test_seconds_of_both_stages_count(tmp_path: Path):
    hidden = "weight=0.1,corruption=0.1"
    assert begun("yelp") == {
        "ldm": "beta_vae",
        f"ldm/{hidden}": f"beta_vae/{hidden}",
        f"ldm/{hidden},half": f"beta_vae/{hidden},half",
        "diled/from=beta_vae": f"beta_vae/{hidden}",
        "diled/from=half": f"beta_vae/{hidden},half",
    }
    assert begun("yelp-gpu") == {"ldm": "beta_vae"}
    shared = {
        "study": "yelp", "data": "yelp", "steps": 1, "train_seconds": 1.0, "parameters": 1,
        "hardware": "h", "commit": "c", "command": "python -m diled.studies.texts yelp",
    }  # fmt: skip

    def last(system: str) -> str:
        (line,) = (
            one
            for one in render_texts.texts(tmp_path / "r.json").splitlines()
            if one.startswith(f"| {title(system)} |")
        )
        return line.strip("| ").split(" | ")[-1]

    def record(system: str, seed: int, spent: float) -> None:
        made = as_records({"bleu": Measured(1.0)}, system=system, seed=seed, cpu_seconds=spent, **shared)
        add(tmp_path / "r.json", made)

    record("ldm", 0, 300.0)
    assert last("ldm") == f"300 + {title('beta_vae')}'s"
    record("beta_vae", 0, 2000.0)
    record("beta_vae", 1, 9000.0)
    assert (last("ldm"), last("beta_vae")) == ("2,300", "5,500")


def test_accuracy_is_compared_at_equal_content(tmp_path: Path):
    curve = [(60.0, 0.1), (44.0, 0.3), (34.0, 0.5), (10.0, 0.9)]
    assert render_texts.accuracy_at(curve, 44) == 0.3
    assert render_texts.accuracy_at(curve, 40) == pytest.approx(0.38)
    assert render_texts.accuracy_at(curve, 22) == pytest.approx(0.7)
    assert render_texts.accuracy_at(curve, 5) == 0.9
    assert render_texts.accuracy_at(curve, 61) is None
    assert render_texts.accuracy_at([(44.0, 0.3), (50.0, 0.2), (30.0, 0.1)], 40) == 0.3, (
        "more may be kept and less reached"
    )

    def points(way: str, *found: tuple[float, float, float]) -> dict[str, float]:
        rows = {f"edit_accuracy/sentiment/{way}/s={s:g}": a for s, _, a in found}
        return rows | {f"edit_content/sentiment/{way}/s={s:g}": c for s, c, _ in found}

    vector = points("vector", (0.5, 60, 0.1), (0.75, 44, 0.3), (1, 34, 0.5), (2, 10, 0.9))
    ode = points("ode", (1, 30, 0.2), (2, 22, 0.9))
    common = {"sample_perplexity": 45.0, "sample_perplexity/floor": 30.0, "edit_chosen/sentiment/vector": 0.9}
    common |= {
        "edit_chosen/sentiment/ode": 0.9,
        "edit_strength/sentiment/ode": 2.0,
        "edit_content/sentiment/vector": 9.0,
    }
    shared = {
        "study": "yelp", "data": "yelp", "seed": 0, "steps": 1, "train_seconds": 1.0, "cpu_seconds": 1.0, "parameters": 1,
        "hardware": "h", "commit": "c", "command": "python -m diled.studies.texts yelp",
    }  # fmt: skip
    for system in ("diled", "beta_vae"):
        figures = {k: Measured(v) for k, v in (common | vector | ode).items()}
        add(tmp_path / "yelp.json", as_records(figures, system=system, **shared))
    head, _, *lines = render_texts.texts_beside_the_paper(tmp_path / "yelp.json").splitlines()
    columns = [cell.strip() for cell in head.split("|")[2:-1]]
    table = {}
    for line in lines:
        name, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        table[name] = dict(zip(columns, cells, strict=True))
    ours = table[title("diled")]
    assert (ours["to real"], ours["content"], ours["at content 40"], ours["at LatentOps'"]) == (
        "1.50",
        "9.0",
        "38.0",
        "90.0",
    )
    assert (table[title("beta_vae")]["at content 40"], table[title("beta_vae")]["at LatentOps'"]) == ("38.0", "70.0")
    assert (table["LatentOps"]["at content 40"], table["LatentOps"]["at LatentOps'"]) == ("-", "90.0")
    assert table["EDDPM (paper)"]["MAUVE"] == "0.977"
    assert (table["*aim*"]["BLEU"], table["*aim*"]["to real"]) == (">= 60", "0.7 to 1.5")


def test_a_picture_of_edits_has_the_better_way_at_equal_content(tmp_path: Path):
    curves = {
        "vector": {0.5: (60.0, 0.1), 1.0: (40.0, 0.3), 2.0: (20.0, 0.6)},
        "ode": {1.0: (50.0, 0.15), 2.0: (30.0, 0.5), 4.0: (10.0, 0.9)},
    }
    figures = {
        f"{metric}/sentiment/{way}/s={s:g}": Measured(value)
        for way, points in curves.items()
        for s, point in points.items()
        for metric, value in zip(("edit_content", "edit_accuracy"), point, strict=True)
    }
    shared = {
        "study": "yelp", "data": "yelp", "seed": 0, "steps": 1, "train_seconds": 1.0, "cpu_seconds": 1.0, "parameters": 1,
        "hardware": "h", "commit": "c", "command": "python -m diled.studies.texts yelp",
    }  # fmt: skip
    assert "Nothing" in edit_pictures.pictured(tmp_path / "yelp.json", tmp_path)
    for system in ("diled", "diled/weight=9", "beta_vae"):
        add(tmp_path / "yelp.json", as_records(figures, system=system, **shared))
    found = edit_pictures.fronts(tmp_path / "yelp.json")
    assert list(found) == ["sentiment"]
    assert set(found["sentiment"]) == {title("diled"), title("beta_vae"), "LatentOps"}
    assert dict(found["sentiment"][title("diled")]) == pytest.approx(
        {60.0: 0.1, 50.0: 0.2, 40.0: 0.325, 30.0: 0.5, 20.0: 0.7, 10.0: 0.9}
    )
    assert found["sentiment"]["LatentOps"] == [(50.0, 0.15), (30.0, 0.5), (10.0, 0.9)]
    assert found["sentiment"][title("beta_vae")] == [(60.0, 0.1), (40.0, 0.3), (20.0, 0.6)]

    assert "not drawn yet" in edit_pictures.pictured(tmp_path / "yelp.json", tmp_path)
    assert edit_pictures.main(["--results", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert "(" + tmp_path.name + "/yelp-edits.png)" in edit_pictures.pictured(tmp_path / "yelp.json", tmp_path)
    with Image.open(tmp_path / "yelp-edits.png") as picture:
        assert picture.size == (2000, 1240)
    assert not (tmp_path / "yelp-gpu-edits.png").exists()
