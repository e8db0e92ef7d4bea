"""Figures of edited texts: by hand, over several directions at once, and the curve over strengths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_text_data import word_pieces
from torch import Tensor

from diled.api import Density
from diled.config import PreprocessConfig, TextConfig
from diled.data import Data, open_data
from diled.edit_curves import away_from, judged, text_edits
from diled.errors import ConfigError, DataError
from diled.evaluation.edits import AttributeJudge, Task, edit_curve, edit_figures, figures_of_tasks, plot_curve
from diled.evaluation.measure import Measured
from diled.model import Model

BEFORE = ["the food was bad .", "we hated the place .", "service is slow today .", "the soup was cold ."]
AFTER = ["the food was good .", "we hated the place .", "service is good today .", "the soup is good ."]
JUDGES = {
    "sentiment": AttributeJudge(lambda texts: ["positive" if "good" in t else "negative" for t in texts], 0.975),
    "tense": AttributeJudge(lambda texts: ["present" if " is " in t else "past" for t in texts]),
}


def test_figures_of_edited_texts_by_hand():
    pytest.importorskip("sacrebleu")
    wanted = {"sentiment": "positive", "tense": "past"}
    found = edit_figures(
        BEFORE, AFTER, judges=JUDGES, wanted=wanted, references=[[a, "we left ."] for a in AFTER],
        perplexity=lambda texts: 10.0 + len(texts),
    )  # fmt: skip
    assert found["edit_accuracy/sentiment"].value == 0.75
    assert found["edit_accuracy/sentiment"].stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert found["edit_accuracy/sentiment"].note == "told by a classifier with 97.5% accuracy"
    assert found["edit_accuracy/tense"].value == 0.5
    assert "unknown accuracy" in found["edit_accuracy/tense"].note
    assert found["edit_accuracy"].value == 0.25, "only the first has both"
    assert "sentiment: told" in found["edit_accuracy"].note
    assert "tense: told" in found["edit_accuracy"].note
    assert found["unchanged"].value == 0.25
    assert found["reference_bleu"].value == pytest.approx(100)
    # 16 of 20 words, 9 of 16 pairs, 4 of 12 triples, 2 of 8 fours; nothing is shorter
    want = 100 * (16 / 20 * 9 / 16 * 4 / 12 * 2 / 8) ** 0.25
    assert found["content_bleu"].value == pytest.approx(want)
    assert found["edited_perplexity"] == Measured(14.0, n=4)
    assert all(figure.n == 4 for figure in found.values())
    few = edit_figures(BEFORE, BEFORE, judges=JUDGES, wanted={"sentiment": "positive"})
    assert (few["edit_accuracy"].value, few["content_bleu"].value, few["unchanged"].value) == (
        0.0,
        pytest.approx(100),
        1,
    )
    assert {"reference_bleu", "edited_perplexity", "edit_accuracy/tense"}.isdisjoint(few)


def test_several_directions_are_told_once_and_count_by_their_texts():
    """Three texts to one class and one to the other: shares over all four, BLEU of the four as one corpus."""
    pytest.importorskip("sacrebleu")
    told: Counter[str] = Counter()

    def predict(texts: Sequence[str]) -> list[str]:
        told.update(texts)
        return list(JUDGES["sentiment"].predict(texts))

    judges = {"sentiment": AttributeJudge(predict, 0.975)}
    tasks = [
        Task(BEFORE[:3], {"sentiment": "positive"}, AFTER[:3]),
        Task(BEFORE[3:], {"sentiment": "negative"}, AFTER[3:]),
    ]
    found = figures_of_tasks([AFTER[:3], AFTER[3:]], tasks, judges=judges, perplexity=lambda texts: 10.0 + len(texts))
    assert told == Counter(AFTER)
    whole = edit_figures(
        BEFORE, AFTER, judges=judges, wanted={"sentiment": "positive"}, references=AFTER, perplexity=lambda texts: 14.0
    )
    for name in ("edit_accuracy", "edit_accuracy/sentiment"):
        assert found.pop(name) == Measured(0.5, 0.25, 4, whole.pop(name).note)
    assert found == whole


def test_the_curve_trades_content_for_the_attribute_and_is_drawn():
    pytest.importorskip("sacrebleu")

    def edit(i: int, strength: float) -> list[str]:
        n = int(strength)
        return AFTER[:n] + BEFORE[n:]

    curve = edit_curve(edit, (0, 2, 4), [Task(BEFORE, {"sentiment": "positive"})], judges=JUDGES)
    assert [point["strength"].value for point in curve] == [0, 2, 4]
    assert [point["edit_accuracy"].value for point in curve] == [0.0, 0.25, 0.75]
    content = [float(point["content_bleu"].value or 0) for point in curve]
    assert content == sorted(content, reverse=True)
    light, dark = plot_curve({"vector": curve, "ode": curve[1:]})
    assert light.startswith(b"\x89PNG")
    assert dark.startswith(b"\x89PNG")
    assert light != dark
    with pytest.raises(DataError, match="no curve to draw"):
        plot_curve({"vector": []})


def test_edits_that_cannot_be_judged_are_refused():
    pytest.importorskip("sacrebleu")
    with pytest.raises(ConfigError, match=r"No classifier judges 'sentimnt'. Did you mean 'sentiment'"):
        edit_figures(BEFORE, AFTER, judges=JUDGES, wanted={"sentimnt": "positive"})
    with pytest.raises(ConfigError, match="No attribute is wanted"):
        edit_figures(BEFORE, AFTER, judges=JUDGES, wanted={})
    with pytest.raises(DataError, match="4 texts and 3 edited ones"):
        edit_figures(BEFORE, AFTER[:3], judges=JUDGES, wanted={"tense": "past"})
    with pytest.raises(DataError, match="gave 1 answers for 4 texts"):
        edit_figures(BEFORE, AFTER, judges={"tense": AttributeJudge(lambda t: ["past"])}, wanted={"tense": "past"})


class Echo(Density):
    """Codes are the rows themselves, and decode to themselves."""

    has_codes = True

    def encode(self, x: Tensor, **options: object) -> Tensor:
        return x.float()

    def decode(self, z: Tensor, **options: object) -> Tensor:
        return z.round().long().clamp(0, 10)


def reviews(folder: Path, test: Sequence[str]) -> Data:
    """Reviews of two moods, with a rating, in tokens of a few words; the test split as it is given."""
    train = [f"the soup was {'warm' if i % 2 else 'warmer'} .,{'good' if i % 2 else 'bad'},{i / 7}" for i in range(12)]
    for name, lines in (("train", train), ("validation", train[:2]), ("test", test)):
        (folder / f"{name}.csv").write_text("\n".join(["text,mood,rating", *lines]))
    tokenizer = folder / "pieces.json"
    word_pieces().save(str(tokenizer))
    return open_data(folder, PreprocessConfig(text=TextConfig(tokenizer=str(tokenizer))))


def test_texts_of_unknown_pieces_are_edited_as_they_were_read(tmp_path: Path):
    pytest.importorskip("sacrebleu")
    data = reviews(tmp_path, ["😀 😀,good,1.5", "the soup,bad,0.5", "warm soup,bad,2.5"])
    before = away_from(data, "mood", "bad", "test")
    assert before.texts == [""], "nothing is left of it"
    model, seen = Model(Echo(), data.spec), []
    encode = model.density.encode
    model.density.encode = lambda x, **more: seen.extend(x.tolist()) or encode(x, **more)  # type: ignore[method-assign]
    point = text_edits(model, data, "mood")[-1]
    assert before.rows is not None
    assert before.rows[0].tolist() in seen
    assert point["edit_accuracy"].n == 3


def test_a_class_that_is_not_trained_on_is_left_out_and_said(tmp_path: Path):
    pytest.importorskip("sacrebleu")
    data = reviews(tmp_path, ["the soup was warm .,good,1.5", "the soup,odd,0.5", "warm soup,bad,2.5"])
    for method in ("vector", "classifier"):
        for point in text_edits(Model(Echo(), data.spec), data, "mood", method):
            assert point["edit_accuracy"].n == 4, "two classes, and two texts of others each"
            assert point["edit_accuracy"].note.endswith("; None of the training examples have 'mood=odd'.")
    with pytest.raises(ConfigError, match="no label column 'rating' of classes"):
        text_edits(Model(Echo(), data.spec), data, "rating")
    with pytest.raises(ConfigError, match="Did you mean 'mood'"):
        text_edits(Model(Echo(), data.spec), data, "mod")


def test_a_judge_that_is_never_right_is_known_to_be(tmp_path: Path):
    wrong = ["the soup was warmer .,good,1.5", "the soup was warm .,bad,0.5"]
    assert judged(reviews(tmp_path, wrong), "mood").note == "told by a classifier with 0.0% accuracy"
