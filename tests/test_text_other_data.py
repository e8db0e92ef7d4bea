"""Models of text and data that are not their own: which column is read, what is too long, and words that name a set."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from test_texts import quick_judge  # noqa: F401 (a fixture)

import diled as package
from diled import cli
from diled.arguments import data_of, examples_of
from diled.data import open_data, to_strings
from diled.data.grammar import sentences
from diled.errors import DataError
from diled.model import Model, load

SMALL = {"model.latent_dim": 2, "model.network.width": 16, "model.network.depth": 1, "training.steps": 2}


def table(path: Path, texts: list[str], **columns: list[str]) -> Path:
    """A table of texts as `summary`, beside others as `text`."""
    names = {"text": [f"say {i} ." for i in range(len(texts))], "summary": texts, **columns}
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(names), *zip(*names.values(), strict=True)])
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Trained on the column `summary` of a table that has a column `text`, too."""
    folder = tmp_path_factory.mktemp("run")
    own = table(folder / "own.csv", sorted(set(sentences(90, seed=1)[0]))[:60])
    settings = SMALL | {"preprocess.sequence.column": "summary"}
    package.train(own, model="vae", out=folder / "run", report=False, settings=settings)
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return load(run)


def test_other_data_are_read_from_the_column_that_the_run_was_trained_on(run: Path, model: Model, tmp_path: Path):
    """Also where their texts are shorter than the longest in training, and another option of the run does not fit them."""
    short = [f"the {a} was {b} ." for a in ("soup", "menu", "food") for b in ("good", "bad", "cold", "warm", "fine")]
    place = data_of(run, table(tmp_path / "other.csv", short), model)
    every = [t for split in (place.train, place.validation, place.test) for t in to_strings(split.values, place.spec)]
    assert sorted(every) == sorted(short)
    (tmp_path / "plain.txt").write_text("\n".join(short))
    lines = data_of(run, tmp_path / "plain.txt", model)
    assert sum(map(len, (lines.train, lines.validation, lines.test))) == len(short), "a file of lines has no columns"
    only_text = tmp_path / "text.csv"
    only_text.write_text("text\n" + "\n".join(short))
    assert len(data_of(run, only_text, model).train) > 0


def test_texts_that_are_too_long_are_left_out_where_that_is_asked_for(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    quick_judge: None,  # noqa: F811
):
    long = [*sorted(set(sentences(90, seed=2)[0]))[:40], "and so on and on " * 30]
    other = str(table(tmp_path / "other.csv", long))
    for verb in (["evaluate", str(run)], ["search", str(run), long[0]], ["compare", str(run), str(run)]):
        given = [*verb, "--data", other, *(["--out", str(tmp_path / "c")] if verb[0] == "compare" else [])]
        assert cli.main(given) == 2
        said = capsys.readouterr().err
        assert "To leave out what cannot be read: --on-error skip." in said
        assert "preprocess.on_error" not in said
        assert cli.main([*given, "--on-error", "skip"]) == 0, capsys.readouterr().err
        assert "left out" in capsys.readouterr().err
    (tmp_path / "drawn.txt").write_text("\n".join(long))
    for words in (["evaluate", str(tmp_path / "drawn.txt"), "--data", other], ["compare", other, "--models", "vae"]):
        assert cli.main([*words, "--on-error", "skip"]) == 2
        assert "set preprocess.on_error" in capsys.readouterr().err


def test_words_that_name_a_set_of_pictures_are_words_to_a_model_of_text(model: Model):
    for word in ("digits", "mnist"):
        split = examples_of(word, model, convert=False)
        assert to_strings(split.values, model.spec) == [word]
    with pytest.raises(DataError, match="tokens"):
        examples_of("sentences", model, convert=False)  # that set, whose texts are too long for this model


def test_a_first_line_like_the_others_is_no_line_of_names(tmp_path: Path):
    rows = [
        (f"{a} {b}", c)
        for a, c in (("soup", "x"), ("food", "y"))
        for b in ("cold", "warm", "good", "bad", "fine", "hot")
    ]
    (tmp_path / "a.csv").write_text("\n".join(",".join(row) for row in rows))
    with pytest.raises(DataError, match="no line of column names: its first line holds 'soup cold'"):
        open_data(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("my words,kind\n" + "\n".join(",".join(row) for row in rows))
    named = open_data(tmp_path / "b.csv")
    assert sum(map(len, (named.train, named.validation, named.test))) == len(rows)
    assert np.unique(named.train.labels["kind"]).tolist() == [0, 1]


def test_a_file_that_has_changed_is_read_as_the_model_reads(tmp_path: Path, capsys: pytest.CaptureFixture):
    """A longer text is told and left out, and none has to be as long as the longest was."""
    path, long = tmp_path / "own.csv", "and so on and on " * 30
    texts = sorted(set(sentences(90, seed=1)[0]), key=len)[:60]

    def write(rows: list[str]) -> None:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("text", "mood"), *((text, "ab"[i % 2]) for i, text in enumerate(rows))])

    write(texts)
    package.train(path, model="vae", out=tmp_path / "run", report=False, settings=SMALL)
    asked = ["search", str(tmp_path / "run"), texts[0], "--k", "1"]
    write([*texts, long])
    for data in ([], ["--data", str(path)]):
        assert cli.main([*asked, *data]) == 2
        assert "own.csv, line 62 has" in capsys.readouterr().err
        assert cli.main([*asked, *data, "--on-error", "skip"]) == 0
        said = capsys.readouterr()
        assert texts[0] in said.out
        assert "1 of 61 records were left out" in said.err
    assert cli.main(["edit", str(tmp_path / "run"), texts[0], "--attribute", "mood=a"]) == 0
    assert "1 of 61 records were left out" in capsys.readouterr().err
    write(texts[:20])
    assert cli.main(asked) == 0


def test_other_data_are_read_from_the_column_that_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    texts = sorted(set(sentences(90, seed=1)[0]), key=len)
    other = tmp_path / "other.csv"
    with other.open("w", newline="") as file:
        csv.writer(file).writerows([("first", "second", "mood"), *zip(texts[:30], texts[5:35], "ab" * 15, strict=True)])
    for column, there, absent in (("first", texts[0], texts[33]), ("second", texts[33], texts[0])):
        given = ["--data", str(other), "--column", column]
        assert cli.main(["search", str(run), texts[10], "--k", "30", *given]) == 0
        found = [line.split(": ", 1)[1].rsplit(" (", 1)[0] for line in capsys.readouterr().out.splitlines()]
        assert there in found
        assert absent not in found
        assert cli.main(["edit", str(run), texts[0], "--attribute", "mood=a", *given]) == 0
        assert cli.main(["evaluate", str(run), *given, "--samples", "200"]) == 0
        assert "Of the 200 samples asked for" in capsys.readouterr().err
    assert cli.main(["search", str(run), texts[0], "--data", str(other)]) == 2
    assert "first, second. Choose one with --column" in capsys.readouterr().err
    asked = table(tmp_path / "asked.csv", texts[:12])
    assert cli.main(["search", str(run), str(asked), "--column", "summary", "--data", str(asked)]) == 0
    capsys.readouterr()
    for words in (
        ["search", texts[0], "--data", str(other), "--column", "third"],
        ["edit", texts[0], "--attribute", "mood=a", "--data", str(other), "--column", "third"],
        ["evaluate", "--data", str(other), "--column", "third"],
    ):
        assert cli.main([words[0], str(run), *words[1:]]) == 2
        assert "has no column 'third'" in capsys.readouterr().err
    for words in (
        ["reconstruct", texts[0]],
        ["encode", texts[0]],
        ["score", texts[0]],
        ["search", texts[0]],
        ["evaluate"],
    ):
        assert cli.main([words[0], str(run), *words[1:], "--column", "summary"]) == 2
        assert "'column' has no meaning here" in capsys.readouterr().err


def test_one_text_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Also where its tokens hold the end of a line."""
    with (tmp_path / "two.csv").open("w", newline="") as file:
        rows = [f"{a}\n{b}" for a in ("one", "two", "six", "ten") for b in ("red", "tan", "pink", "blue")]
        csv.writer(file).writerows([("text",), *((row,) for row in rows)])
    settings = SMALL | {"preprocess.text.vocabulary": 257 + 20}
    model = package.train(tmp_path / "two.csv", model="vae", out=tmp_path / "run", report=False, settings=settings)
    assert not "".join(model.strings(model.sample(20))).isprintable()
    capsys.readouterr()
    for verb in (["sample", "--n", "20"], ["search", "one\nred", "--k", "16"]):
        assert cli.main([verb[0], str(tmp_path / "run"), *verb[1:]]) == 0
        assert len(capsys.readouterr().out.splitlines()) == int(verb[-1])
