"""Models of text from end to end: bounds against the grammar's entropy, figures by hand, the report, the command line."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_text_metrics import TINY
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor

import diled as package
from diled import cli
from diled.api import Density
from diled.config import DataSpec, PreprocessConfig, TextConfig, TrainingConfig, validated
from diled.data import Data, open_data, read_texts, to_strings
from diled.data.grammar import entropy, sentences
from diled.data.known_texts import as_reviews
from diled.data.text import encode_texts
from diled.draws import seeded
from diled.editing import by_group
from diled.errors import ConfigError, DataError
from diled.evaluation import text_judge, texts
from diled.evaluation.measure import Measured
from diled.evaluation.shown import Shown
from diled.evaluation.text_report import length_picture, text_blocks
from diled.family import model_config
from diled.model import Model
from diled.models.autoregressive import described_writing
from diled.models.zoo import build
from diled.sequences import scored
from diled.space import raw_tensor, to_space
from diled.studies import texts as study
from diled.studies.table import rows
from diled.training.data import Shuffled
from diled.training.engine import fit

SMALL = {"kind": "transformer", "width": 32, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def data() -> Data:
    return open_data("sentences")


@pytest.fixture
def quick_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that is made in no time."""
    monkeypatch.setenv("DILED_CACHE", str(tmp_path / "cache"))
    whole = text_judge.fit_judge
    quick = replace(TINY, tokens=4000)
    monkeypatch.setattr(text_judge, "fit_judge", lambda *given: whole(*given, recipe=quick))


class Echo(Density):
    """Codes are the rows themselves, and decode to themselves."""

    has_codes = True

    def encode(self, x: Tensor, **options: object) -> Tensor:
        return x.float()

    def decode(self, z: Tensor, **options: object) -> Tensor:
        return z.round().long()


# Bounds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "values"), [("lm", {"width": 48, "depth": 1, "heads": 4}),
                                              ("diled", {"latent_dim": 8, "rate_weight": 1.0, "network": SMALL})])  # fmt: skip
def test_bounds_of_trained_models_stand_above_the_entropy_of_the_grammar(
    name: str, values: dict, data: Data, tmp_path: Path
):
    """E[bound] >= H for sentences drawn anew, and training brings it near."""
    recipe = build(name, model_config(name, values), data.spec)
    x = raw_tensor(data.train.values)
    training = TrainingConfig(
        steps=250, batch_size=64, learning_rate=5e-3, warmup_steps=20, ema=0.9, monitor_every=1000
    )
    fit(recipe.model, recipe.stages, Shuffled(x, batch=64), x[:64], data.spec, training, tmp_path)
    fresh, _ = sentences(1500, seed=99)
    fresh_rows = to_space(raw_tensor(encode_texts(fresh, data.spec, convert=True)), data.spec)
    with torch.no_grad(), seeded(0):
        nats = torch.cat([recipe.model.bound(part) for part in fresh_rows.split(256)]).double()
    error = float(nats.std()) / math.sqrt(len(nats))
    assert nats.mean() > entropy() - 4 * error
    assert nats.mean() < 2 * entropy(), "far below uniform tokens, which take 6.4 nats each"


# Figures by hand ------------------------------------------------------------------------------------------------------


def test_perplexities_divide_by_tokens_and_by_words_with_their_ends():
    data = open_data("sentences", PreprocessConfig(text=TextConfig(vocabulary=300)))  # most words are several tokens
    test = data.test.subset(np.arange(50))
    found = texts.per_token({"bound_nats": Measured(12.0)}, test, data)
    strings = to_strings(test.values, data.spec)
    tokens = np.mean([(row != 0).sum() + (row[-1] == 0) for row in test.values])
    words = np.mean([len(text.split()) + 1 for text in strings])
    assert found["nats_per_token"].value == pytest.approx(12 / tokens)
    assert found["perplexity"].value == pytest.approx(math.exp(12 / tokens))
    assert found["word_perplexity"].value == pytest.approx(math.exp(12 / words))


def test_what_was_seen_in_training_is_told(data: Data):
    both = np.concatenate([data.train.values[:3], data.test.values[:3]])
    split = replace(data.test.subset(np.arange(6)), values=both)
    known = {row.tobytes() for row in data.train.values}
    assert texts.unseen(split, data).tolist() == [False] * 3 + [row.tobytes() not in known for row in both[3:]]


def test_the_bound_of_unseen_texts_is_the_mean_over_them(data: Data):
    test = data.test.subset(np.arange(40))
    known = replace(data, train=replace(data.train, values=test.values[:25]))
    model = build("lm", model_config("lm", {"width": 8, "depth": 1, "heads": 2}), data.spec).model.eval()
    found = texts.text_bounds(model, test, known, repeats=1)
    fresh = ~np.isin([row.tobytes() for row in test.values], [row.tobytes() for row in test.values[:25]])
    with torch.no_grad():
        nats = model.bound(to_space(raw_tensor(test.values), data.spec)).double().numpy()
    assert found["bound_nats"].value == pytest.approx(nats.mean(), rel=1e-5)
    assert found["bound_nats/unseen"].value == pytest.approx(nats[fresh].mean(), rel=1e-5)
    assert found["bound_nats/unseen"].n == fresh.sum() < 40


def test_a_model_that_gives_back_what_it_reads_is_perfect_and_listens(data: Data):
    test = data.test.subset(np.arange(60))
    found = texts.text_reconstruction(Echo(), test, data)
    assert found["bleu"].value == pytest.approx(100)
    assert found["exact_match"].value == 1
    assert found["length_ratio"].value == 1
    assert found["bleu_shuffled"].value < 40
    wrong = Echo()
    wrong.decode = lambda z, **options: z.round().long().roll(1, 0)  # type: ignore[method-assign]
    assert texts.text_reconstruction(wrong, test, data)["exact_match"].value < 0.1


def test_a_text_in_other_tokens_is_the_same_text(data: Data, monkeypatch: pytest.MonkeyPatch):
    test, turned = data.test.subset(np.arange(60)), Echo()
    turned.decode = lambda z, **options: 1 + z.round().long()  # type: ignore[method-assign]
    real = texts.to_strings

    def to_strings(rows: np.ndarray, spec: DataSpec) -> list[str]:
        """Each token and the next stand for the same."""
        return real(rows if np.array_equal(rows, test.values) else rows - 1, spec)

    monkeypatch.setattr(texts, "to_strings", to_strings)
    assert texts.text_reconstruction(turned, test, data)["exact_match"].value == 1


def test_no_text_is_decoded_from_its_own_code_in_place_of_anothers(data: Data, monkeypatch: pytest.MonkeyPatch):
    """Not even the last one, alone in its batch."""
    monkeypatch.setattr(texts, "BATCH", 8)
    model, given = Echo(), []
    model.decode = lambda z, **options: given.append(z) or z.round().long()  # type: ignore[method-assign]
    texts.text_reconstruction(model, data.test.subset(np.arange(9)), data)
    own, others = (torch.cat(given[i::2]).tolist() for i in (0, 1))
    assert others == [own[7], *own[:7], own[7]]
    assert own == data.test.values[:9].tolist()


class Told(Echo):
    """A bound of a nat for each token that is scored, and one text over and over."""

    def __init__(self, text: Tensor) -> None:
        super().__init__()
        self.text = text

    def terms(self, x: Tensor, **options: object) -> dict[str, Tensor]:
        return {"nll": scored(x).sum(1).float()}

    def sample(self, n: int, **options: object) -> Tensor:
        return self.text.expand(n, -1)


def test_groups_of_texts_have_their_bounds_and_reconstructions(tmp_path: Path):
    """One group has four words in each text, the other six; every text is given back, and samples are all of one group."""
    two = [f"{a} {b} c .,short\n{a} {b} c and more .,long" for a in "abcdefghij" for b in "klmnopqrst"]
    (tmp_path / "two.csv").write_text("\n".join(["text,size", *two]) + "\n")
    data = open_data(tmp_path / "two.csv", PreprocessConfig(text=TextConfig(vocabulary=256)))
    names = data.spec.labels["size"]
    row = data.train.values[data.train.labels["size"] == names.index("long")][:1]
    model = Model(Told(torch.from_numpy(row.astype(np.int64))), data.spec)
    found = by_group(model, data, "size", samples=30, repeats=1)
    for name, tokens in (("short", 7 + 1), ("long", 16)):  # a byte each, and an end, which is certain after the longest
        mine = data.test.labels["size"] == names.index(name)
        assert found[name]["bound_nats"].value == tokens
        assert found[name]["nats_per_token"].value == 1
        assert found[name]["bleu"].value == pytest.approx(100)
        assert found[name]["exact_match"].value == 1
        assert found[name]["share_of_data"].value == pytest.approx(mine.mean())
        assert found[name]["share_of_samples"].value == (name == "long")


def test_paths_lead_from_one_text_to_the_next(data: Data):
    test = data.test.subset(np.arange(9))
    paths = texts.decoded_paths(Echo(), test, data, paths=3, steps=4)
    strings = to_strings(test.values, data.spec)
    assert [len(path) for path in paths] == [5] * 3
    assert [(path[0], path[-1]) for path in paths] == [(strings[2 * i], strings[2 * i + 1]) for i in range(3)]
    assert texts.decoded_paths(Echo(), test.subset([0]), data) == []


@pytest.mark.parametrize("name", ["diled", "lm"])
def test_all_figures_of_a_model(name: str, data: Data, quick_judge: None):
    small = {"latent_dim": 4, "network": SMALL} if name == "diled" else {"width": 16, "depth": 1}
    model = build(name, model_config(name, small), data.spec).model.eval()
    few = replace(data, test=data.test.subset(np.arange(120)), train=data.train.subset(np.arange(400)))
    found = texts.text_evaluation(model, few, samples=64, repeats=1)
    assert {"bound_nats", "perplexity", "sample_perplexity", "sample_perplexity/floor", "mauve", "distinct_2"} <= set(
        found
    )
    assert ("bleu" in found) == (name == "diled") == ("interpolation_perplexity" in found)
    assert ("probe_accuracy" in found) == (name == "diled")
    assert found["sample_perplexity"].note.startswith("decoded greedily" if name == "diled" else "drawn")
    assert "bound_nats/unseen" in found or not texts.unseen(few.test, few).any() or texts.unseen(few.test, few).all()


# Report ---------------------------------------------------------------------------------------------------------------


def test_a_report_shows_texts_as_they_read(data: Data):
    values = data.test.values.astype(np.int64)
    s = Shown("M", samples=values[:20], originals=values[:8], reconstructions=np.roll(values[:8], 1, 0))
    html = text_blocks(s, data.spec)
    for text in to_strings(values[:16], data.spec):
        assert text in html
    assert "Interpolations" not in html
    assert "(the same)" in text_blocks(replace(s, reconstructions=values[:8]), data.spec)
    assert length_picture(s, data.spec, "l.png", 0) is not None
    assert length_picture(replace(s, samples=None), data.spec, "l.png", 0) is None


# The command line -----------------------------------------------------------------------------------------------------


def test_a_file_of_sentences_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture, quick_judge: None):
    made, labels = sentences(400, seed=5)
    file, run = tmp_path / "reviews.csv", tmp_path / "run"
    rows = [
        "text,sentiment,tense",
        *(f'"{t}",{s},{w}' for t, s, w in zip(made, labels["sentiment"], labels["tense"], strict=True)),
    ]
    file.write_text("\n".join(rows) + "\n")
    size = ["--model.latent_dim", "4", "--model.network.width", "16", "--model.network.depth", "1"]
    assert cli.main(["train", str(file), "--out", str(run), "--training.steps", "12", *size]) == 0
    assert (run / "tokenizer.json").exists()
    assert "Text of at most" in (run / "report.html").read_text()
    (figures,) = json.loads((run / "evaluation.json").read_text()).values()
    assert figures["bound_nats"]["value"] > 0
    capsys.readouterr()
    said = {}
    for verb, *more in (
        ["sample", "--n", "3"],
        ["sample", "--n", "3", "--temperature", "0.5", "--top-p", "0.9"],
        ["reconstruct", made[0], made[1]],
        ["reconstruct", made[0], "--beams", "3"],
        ["interpolate", made[0], made[1], "--steps", "4"],
        ["edit", made[0], "--attribute", "sentiment=negative", "tense=past"],
        ["edit", made[0], "--method", "ode", "--attribute", "sentiment=negative", "--beams", "2"],
        ["search", made[0], "--k", "2"],
    ):
        assert cli.main([verb, str(run), *more]) == 0
        said[" ".join([verb, *more])] = capsys.readouterr().out.splitlines()
    assert [len(lines) for lines in said.values()] == [3, 3, 2, 1, 4, 1, 1, 2]
    assert made[0] in said[f"search {made[0]} --k 2"][0]
    assert cli.main(["encode", str(run), made[0], "--out", str(tmp_path / "codes.npy")]) == 0
    assert np.load(tmp_path / "codes.npy").shape == (1, 4)
    assert cli.main(["sample", str(run), "--n", "30", "--out", str(tmp_path / "drawn.txt")]) == 0
    (tmp_path / "asked.txt").write_text("\n".join(made[:5]))
    capsys.readouterr()
    assert cli.main(["reconstruct", str(run), str(tmp_path / "asked.txt"), made[0]]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6, "of several arguments, what looks like a path is one"
    assert cli.main(["evaluate", str(tmp_path / "drawn.txt"), "--data", str(file)]) == 0
    assert "MAUVE" in capsys.readouterr().out
    curve = ["evaluate", str(run), "--edit", "sentiment", "--method", "ode", "--out", str(tmp_path / "edits.json")]
    assert cli.main(curve) == 0
    assert "content kept, BLEU" in capsys.readouterr().out
    strengths = json.loads((tmp_path / "edits.json").read_text())
    assert list(strengths) == [f"strength {s:g}" for s in (0, 0.5, 1, 2, 3, 4, 6)]
    assert strengths["strength 0"]["content_bleu"]["value"] == pytest.approx(100)
    assert strengths["strength 0"]["unchanged"]["value"] == 1
    assert strengths["strength 0"]["edit_accuracy"]["value"] < 0.5
    assert (tmp_path / "edits.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["evaluate", str(run), "--edit", "mood"]) == 2
    assert "no label column 'mood' of classes" in capsys.readouterr().err
    for words in (
        ["--method", "ode"],
        ["--edit", "sentiment", "--by", "tense"],
        ["--edit", "sentiment", "--samples", "9"],
        ["--edit", "sentiment", "--repeats", "9"],
        ["--edit", "sentiment", "--seed", "9"],
        ["--column", "text"],
    ):
        assert cli.main(["evaluate", str(run), *words]) == 2
        assert f"'{words[-2][2:]}' has no meaning" in capsys.readouterr().err
    assert cli.main(["evaluate", str(run), "--edit", "sentiment", "--method", "odd"]) == 2
    assert "method 'odd' is unknown" in capsys.readouterr().err


@pytest.mark.parametrize("n", [10, 24])
def test_too_few_sentences_for_a_judge_are_trained_on_and_reported_all_the_same(n: int, tmp_path: Path):
    """Of 10 there is one to test, of 24 there are 20 to train on: just not enough, and just enough, after 1 for validation."""
    (tmp_path / "few.txt").write_text("\n".join(sorted(set(sentences(3 * n, seed=5)[0]))[:n]))
    size = {"model.latent_dim": 4, "model.network.width": 16, "model.network.depth": 1, "training.steps": 4}
    model = package.train(tmp_path / "few.txt", out=tmp_path / "run", settings=size)
    (found,) = json.loads((tmp_path / "run" / "evaluation.json").read_text()).values()
    assert found["bound_nats"]["value"] > 0
    assert found["sample_perplexity/ngram"]["value"] > 0
    assert (tmp_path / "run" / "report.html").exists()
    if n == 10:
        drawn = package.evaluate(tmp_path / "few.txt", data=tmp_path / "few.txt")
        assert drawn["sample_perplexity"].value is None
        assert "at least 20 texts to train on" in drawn["sample_perplexity"].note
        assert drawn["sample_perplexity/ngram"].value > 0
        assert found["sample_perplexity"]["value"] is None
        assert "at least 20 texts to train on" in found["sample_perplexity"]["note"]
        assert not {"mauve", "interpolation_perplexity", "bleu_shuffled", "active_units"} & set(found)
        assert model.strings(model.sample(2))
    else:
        assert found["sample_perplexity"]["value"] > 0


def test_samples_of_others_are_measured_whole(tmp_path: Path, capsys: pytest.CaptureFixture, quick_judge: None):
    """Blank lines count, and options for models are refused."""
    drawn, out = tmp_path / "drawn.txt", tmp_path / "figures.json"
    drawn.write_bytes("\n".join([*sentences(27, seed=6)[0], "", "  "]).encode() + b"\n\xff\xfe\n")
    assert cli.main(["evaluate", str(drawn), "--data", "sentences", "--out", str(out)]) == 0
    empty = json.loads(out.read_text())["empty"]
    assert (empty["value"], empty["n"]) == (0.1, 30)
    assert "line 28" in empty["note"]
    for text in ("\n\none .\ntwo .\n", "one .\ntwo .\n\n\n", "one .\ntwo .\n\n "):
        (tmp_path / "few.txt").write_text(text)
        assert package.evaluate(tmp_path / "few.txt", data="sentences")["empty"].value == 0.5
    for words in (["--by", "topic"], ["--edit", "topic"], ["--steps", "3"], ["--sampler", "ddim"], ["--repeats", "8"],
                  ["--device", "cuda"]):  # fmt: skip
        assert cli.main(["evaluate", str(drawn), "--data", "sentences", *words]) == 2
        assert f"'{words[0][2:]}' has no meaning" in capsys.readouterr().err
    assert cli.main(["evaluate", str(drawn), "--data", "sentences", "--samples", "0"]) == 2


def test_the_file_of_a_set_itself_is_mostly_copies_of_training(tmp_path: Path, quick_judge: None):
    """Four fifths of it are training texts, so that of 20 drawn texts, 16 on average."""
    (tmp_path / "own.txt").write_text(
        "\n".join(f"the {a} {b} was {c} ." for a in "abcde" for b in "fghij" for c in "klmnopqr")
    )
    found = package.evaluate(tmp_path / "own.txt", data=tmp_path / "own.txt")
    assert found["copied"].n == 20
    assert found["copied"].value > 0.5
    assert found["copied/floor"].value == 0


def test_samples_of_others_are_compared_with_real_texts_as_a_run_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture, quick_judge: None
):
    """Of three sentences in ten only what is at most so long is real, where a run was trained on that."""
    short, long = "the soup was warm .", "the soup was warm and good and so was everything else that we had that day ."
    names = [f"the {a} {b} was {c} ." for a in "abcdefgh" for b in "ijklm" for c in ("good", "bad")]
    (tmp_path / "real.txt").write_text("\n".join([*names, *(f"{n} {long}" for n in names[:30])]))
    drawn, out = tmp_path / "drawn.txt", tmp_path / "figures.json"
    drawn.write_text("\n".join([short] * 8))
    given = ["evaluate", str(drawn), "--data", str(tmp_path / "real.txt"), "--out", str(out)]
    assert cli.main(given) == 0
    mixed = json.loads(out.read_text())["length/floor"]["value"]
    values = {"text.vocabulary": 300, "sequence.max_length": 16, "on_error": "skip"}
    cut = [word for key, value in values.items() for word in (f"--preprocess.{key}", str(value))]
    assert cli.main([*given, *cut]) == 0
    assert json.loads(out.read_text())["length/floor"]["value"] == 6 < mixed
    assert cli.main([*given, "--preprocess.sequence.max_length", "0"]) == 2
    with pytest.raises(ConfigError, match="'training' has no meaning for a file of samples"):
        package.evaluate(drawn, data=tmp_path / "real.txt", settings={"training.steps": 3})
    untrained = Model(build("lm", model_config("lm", {"width": 8, "depth": 1, "heads": 2}), open_data("sentences").spec).model,
                      open_data("sentences").spec)  # fmt: skip
    with pytest.raises(ConfigError, match=r"'preprocess\.on_error' has no meaning for a trained model"):
        package.evaluate(untrained, settings={"preprocess.on_error": "skip"})


def test_samples_of_others_are_read_by_the_tokenizer_of_the_set(
    tmp_path: Path, capsys: pytest.CaptureFixture, quick_judge: None
):
    """Where it knows no capitals, capitals are no difference; what it has no token for counts as empty."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "soup": 1, "was": 2, "warm": 3, "cold": 4, "the": 5}, "[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "words.json"))
    lines = [" ".join(words) for words in itertools.product(("soup", "warm", "cold"), ("was", "the"), repeat=2)]
    (tmp_path / "real.txt").write_text("\n".join(lines))
    others = [line.upper() for line in lines] + ["\x85 \ufffd"]
    (tmp_path / "drawn.csv").write_text(
        "\n".join(["prompt,output", *(f"say {i} and {o},{o}" for i, o in enumerate(others))])
    )
    given = ["evaluate", str(tmp_path / "drawn.csv"), "--data", str(tmp_path / "real.txt"), "--out", str(tmp_path / "f.json"),
             "--preprocess.text.tokenizer", str(tmp_path / "words.json")]  # fmt: skip
    assert cli.main(given) == 2
    assert "Choose one with --column" in capsys.readouterr().err
    assert cli.main([*given, "--column", "outpt"]) == 2
    assert "Did you mean 'output'?" in capsys.readouterr().err
    assert cli.main([*given, "--column", "output"]) == 0
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["copied"]["value"] > 0.5
    assert (found["empty"]["value"], found["empty"]["n"]) == (1 / 37, 37)
    assert "has no token" in found["empty"]["note"]


def test_what_does_not_go_together_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "few.txt").write_text("one text .\n\nanother one .\n")
    assert read_texts(tmp_path / "few.txt") == ["one text .", "another one ."]
    with pytest.raises(DataError, match="no file"):
        read_texts(tmp_path / "none.txt")
    assert cli.main(["evaluate", str(tmp_path / "few.txt")]) == 2
    assert "--data" in capsys.readouterr().err
    assert cli.main(["evaluate", str(tmp_path / "few.txt"), "--data", "digits"]) == 2
    assert "digits holds images" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="names one that is trained already"):
        validated(TextConfig, {"tokenizer": "a.json", "vocabulary": 500})


def test_weights_for_other_tokens_are_refused_until_the_tokenizer_is_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Of two tokenizers of one size; a prior of codes alone knows of no tokens."""
    for name, words in (("a", "food good soup cold nice"), ("b", "kernel patch merge stack lock")):
        lines = [f"{' '.join(words.split()[k % 5 :])} {k}\n" for k in range(60)]
        (tmp_path / f"{name}.txt").write_text("".join(lines))
    options = [
        "--model.network.width",
        "16",
        "--model.network.depth",
        "1",
        "--model.network.heads",
        "2",
        "--model.prior.width",
        "8",
    ]
    options += ["--model.prior.blocks", "1", "--model.latent_dim", "4", "--preprocess.sequence.max_length", "40"]
    options += ["--training.steps", "2", "--training.batch_size", "8", "--report", "false", "--device", "cpu"]
    size, first = ["--preprocess.text.vocabulary", "262"], str(tmp_path / "first")

    def train(file: str, out: str, *more: str) -> int:
        return cli.main(["train", str(tmp_path / f"{file}.txt"), "--out", str(tmp_path / out), *options, *more])

    assert train("a", "first", *size) == 0
    assert train("a", "again", *size, "--init-from", first) == 0
    capsys.readouterr()
    assert train("b", "second", *size, "--init-from", first, "--freeze", "encoder") == 2
    remedy = f"--preprocess.text.tokenizer {first}"
    assert (
        f"has another tokenizer, so its weights mean other tokens. Have these texts read with that one: {remedy}"
        in (" ".join(capsys.readouterr().err.split()))
    )
    assert train("b", "second", *remedy.split(), "--init-from", first, "--freeze", "encoder") == 0
    assert "Started encoder, decoder, prior from" in capsys.readouterr().out
    settings = ["--config", str(tmp_path / "prior.yaml")]
    (tmp_path / "prior.yaml").write_text(f"init_from: {first}\ninit_parts: [prior]\n")
    assert train("b", "third", *size, *settings) == 0
    assert "Started prior from" in capsys.readouterr().out


def test_beams_are_for_what_is_not_drawn(data: Data):
    from diled import verbs

    model = Model(build("lm", model_config("lm", {"width": 8, "depth": 1, "heads": 2}), data.spec).model, data.spec)
    with pytest.raises(ConfigError, match="beams look for the likeliest"):
        verbs.sample(model, 2, beams=3)
    vae = Model(build("vae", model_config("vae", {"latent_dim": 2, "network": SMALL}), data.spec).model, data.spec)
    with pytest.raises(ConfigError, match="beams look for the likeliest"):
        verbs.sample(vae, 2, beams=3, temperature=0.5)
    assert verbs.sample(vae, 2, beams=2).shape == (2, *data.spec.shape)
    with pytest.raises(ConfigError, match="'beams' has no meaning for a model without codes"):
        verbs.evaluate(model, beams=3)
    assert described_writing(vae.density) == "greedily"
    with vae.writing(beams=3):
        assert texts.text_reconstruction(vae.density, data.test.subset(np.arange(8)), data)["bleu"].note == (
            "corpus BLEU-4 of words, decoded by a search with 3 beams from mean codes"
        )


# The study ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["yelp", "yelp-gpu", "text-hold"])
def test_rows_of_the_studies_can_be_built(table: str, data: Data):
    for name, row in rows(table).items():
        config = row.config()
        assert build(config.name, config.model, data.spec).stages, name


def test_edits_are_measured_in_both_directions_together(data: Data):
    """An edit that always writes what is wanted is right, whatever the direction; half as many rights count half."""
    names = data.spec.labels["sentiment"]
    bad, good = ("the waiter was rude .", "the waiter was friendly .")
    judge = study.AttributeJudge(lambda lines: [names[int("friendly" in line)] for line in lines])

    class Writer:
        spec = data.spec

        def strings(self, values: np.ndarray) -> list[str]:
            return to_strings(values, data.spec)

    def wrote(model: object, examples: np.ndarray, change: str, strength: float) -> np.ndarray:
        return encode_texts([change] * len(examples), data.spec)

    tasks = [study.Task([bad] * 3, {"sentiment": "positive"}), study.Task([good] * 1, {"sentiment": "negative"})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "apply_edit", wrote)
        both = study.at(Writer(), [good, bad], tasks, 1.0, {"sentiment": judge}, lambda lines: 7.0)
        half = study.at(Writer(), [good, good], tasks, 1.0, {"sentiment": judge}, lambda lines: 7.0)
        scored: list[int] = []
        found = study.curve(
            Writer(),
            "k",
            [good, good],
            tasks,
            tasks,
            (1.0, 2.0),
            {"sentiment": judge},
            lambda n: scored.append(1) or 7.0,
        )
    assert len(scored) == 1, "of validation sentences no perplexity is used"
    assert found["edit_perplexity/k"].value == 7
    assert len({len(some) for some in study.FULL.strengths.values()}) == 1, "no way has a finer choice"
    assert both["edit_accuracy"].value == 1
    assert half["edit_accuracy"].value == 0.75
    assert half["edit_accuracy"].n == 4
    assert both["edited_perplexity"].value == 7
    assert found["edit_strength/k"].value == 1.0, "none is enough, so the first of the best"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "apply_edit", lambda m, x, change, s: wrote(m, x, change if s > 1 else bad, s))
        later = study.curve(
            Writer(), "k", [good, bad], tasks, tasks, (1.0, 2.0, 3.0), {"sentiment": judge}, lambda lines: 7.0
        )
    assert later["edit_strength/k"].value == 2.0, "the least that is enough"
    assert found["edit_accuracy/k/s=2"].value == 0.75
    some = study.some(data, "sentiment", "positive", n=7)
    assert len(some.texts) == 7
    assert some.wanted == {"sentiment": "positive"}


SIZES = study.Sizes(10, 6, 5, {})


@pytest.mark.parametrize(
    ("name", "source", "want"),
    [
        ("diled", "yelp", ("by a search with 4 beams", {"sampler": "ancestral", "steps": 100}, True)),
        ("vae", "yelp", ("by a search with 4 beams", {}, True)),
        ("lm", "yelp", ("greedily", {}, False)),
        ("diled", "sentences", ("greedily", {}, False)),
    ],
)
def test_how_a_study_writes(name: str, source: str, want: tuple, data: Data, monkeypatch: pytest.MonkeyPatch):
    small = {"width": 8, "depth": 1, "heads": 2} if name == "lm" else {"latent_dim": 2, "network": SMALL}
    model, seen = Model(build(name, model_config(name, small), data.spec).model, data.spec), []

    def figures(model: Model, data: Data, *, samples: int, **how: object) -> dict:
        seen.append((described_writing(model.density), how))
        return {}

    monkeypatch.setattr(study, "figures", figures)
    monkeypatch.setattr(study, "edits", lambda model, *rest: {"edits": described_writing(model.density)})
    found = study.measured(model, replace(data, name=source))
    assert (*seen[0], "edits" in found) == want
    assert found.get("edits", "greedily") == "greedily"


def test_nothing_but_validation_sentences_is_edited_where_they_are_asked_for(
    data: Data, monkeypatch: pytest.MonkeyPatch
):
    def rewrites():
        texts = [f"the waiter was {word} ." for word in ("rude", "friendly")] * 9
        return texts, ["positive", "negative"] * 9, texts[::-1]

    monkeypatch.setattr(study, "yelp_rewrites", rewrites)
    tasks = study.tasks_of(data, data, data, SIZES)
    assert list(tasks) == ["sentiment", "sst2", "tense", "both", "sst2+tense"]
    for name, (_, asked, dev) in tasks.items():
        assert {t for task in dev for t in task.texts} <= set(to_strings(data.validation.values, data.spec)), name
        assert [len(task.texts) for task in dev] == [5, 5]
        assert [len(task.texts) for task in asked] == [6, 6]
        assert all((task.references is not None) == (name in ("sentiment", "sst2")) for task in asked)
        assert all(("tense" in task.wanted) == ("tense" in name or name == "both") for task in (*asked, *dev))
    monkeypatch.setattr(study, "yelp_rewrites", lambda: pytest.fail("test sentences"))
    for _, asked, dev in study.tasks_of(replace(data, test=data.validation), data, data, SIZES).values():
        assert [task.texts for task in asked] == [task.texts for task in dev]


def test_people_and_unedited_sentences_stand_beside_edits():
    judge = study.AttributeJudge(lambda lines: ["good" if "friendly" in line else "bad" for line in lines])
    tasks = [
        study.Task(["the waiter was rude to us ."] * 3, {"mood": "good"}, ["the waiter was friendly to us ."] * 3),
        study.Task(["the waiter was friendly to us ."], {"mood": "bad"}, ["the waiter was friendly to me ."]),
    ]
    found = study.compared("mood", tasks, {"mood": judge}, lambda lines: float(len(lines)))
    assert found["edit_accuracy/mood/unchanged"].value == 0
    assert found["edit_content/mood/unchanged"].value == pytest.approx(100)
    assert found["edit_unchanged/mood/unchanged"].value == 1
    assert found["edit_accuracy/mood/people"].value == 0.75
    assert found["edit_reference/mood/unchanged"].value == found["edit_content/mood/people"].value < 80
    assert "edit_reference/mood/people" not in found


def test_rewrites_are_written_as_the_reviews_are():
    written = "It\u2019s GREAT, I didn't pay $12.50... (can't!) the 3x one cannot."
    assert as_reviews(written) == "it 's great , i did n't pay $ _num_ ... ( ca n't ! ) the 3x one can not ."
