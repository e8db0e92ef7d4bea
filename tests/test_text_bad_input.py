"""What goes wrong with text in a user's hands: one sentence each, with the line, the fault and the way out."""

import gzip
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from test_proteins_bad_input import GOOD as PROTEINS
from test_proteins_data import everything, fasta, said, table
from test_text_data import BPE, TEXTS, known_files, opened, word_pieces, written
from tokenizers import Tokenizer, models

from diled.config import PreprocessConfig, TextConfig
from diled.data import from_strings, open_data, open_examples, read_examples, to_strings
from diled.data.text import encode_texts, load_tokenizer, text_spec, token_counts, tokenizer_of
from diled.errors import ConfigError, DataError, DataWarning, ModelError
from diled.models.io import load_model, save_model
from diled.output import check_out

SPEC = text_spec(12, BPE)


def refused(source, *words, **options):
    """`source` is refused in one sentence of a readable length that has all the words."""
    with pytest.raises(DataError) as caught:
        opened(source, **options)
    short_and_has(str(caught.value), words)


def short_and_has(message, words):
    for word in words:
        assert word in message, message
    assert "\n" not in message
    assert len(message) < 700
    message.encode()


# Lines


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", ("is empty",)),
        (b" \t ", ("is empty",)),
        (b"caf\xe9 was good", ("byte 0xe9 at position 4", "UTF-8")),
        (b"a b\0c", ("control character U+0000 at position 4",)),
        (b"bell \x07", ("control character U+0007 at position 6",)),
        ("next\x85line".encode(), ("control character U+0085 at position 5",)),
    ],
)
def test_a_fault_is_named_or_left_out(tmp_path, line, words):
    lines = [t.encode() for t in TEXTS]
    lines.insert(16, line)
    path, kept = tmp_path / "a.txt", {str(i): t.decode() for i, t in enumerate(lines) if i != 16}
    path.write_bytes(b"\n".join(lines))
    refused(path, "a.txt, line 17", *words, "--preprocess.on_error skip")
    data = opened(path, on_error="skip")
    assert everything(data) == kept
    assert said(data, "1 of 41 records were left out", "line 17")
    (tmp_path / "a.csv").write_bytes(b"n,text\n" + b"\n".join(b"%d," % i + t for i, t in enumerate(lines)))
    refused(tmp_path / "a.csv", "a.csv, line 18", *words)
    assert everything(opened(tmp_path / "a.csv", on_error="skip")) == kept
    if b"\0" not in line and b"\x07" not in line:  # which JSON has only as \u0000
        rows = [b'{"text": "' + t.replace(b"\t", b"\\t") + b'"}' for t in lines]
        (tmp_path / "a.jsonl").write_bytes(b"\n".join(rows))
        refused(tmp_path / "a.jsonl", "a.jsonl, line 17", words[0].split(" at ")[0])
        assert everything(opened(tmp_path / "a.jsonl", on_error="skip")) == kept


@pytest.mark.parametrize("row", ["the soup, warm,1,2", "the soup"])
def test_a_row_of_another_number_of_columns_is_a_fault_of_that_row(tmp_path, row):
    lines = [f"{t},{i % 2}" for i, t in enumerate(TEXTS)]
    lines.insert(16, row)
    (tmp_path / "a.csv").write_text("\n".join(["text,mood", *lines]))
    columns = row.count(",") + 1
    refused(
        tmp_path / "a.csv", f"a.csv, line 18 has {columns} columns, and its header has 2", "--preprocess.on_error skip"
    )
    data = opened(tmp_path / "a.csv", on_error="skip")
    assert everything(data) == {str(i + (i >= 16)): t for i, t in enumerate(TEXTS)}
    assert data.spec.labels == {"mood": ["0", "1"]}
    assert said(data, "1 of 41 records were left out", "line 18 has")
    unquoted = "\n".join(["text", *(f"{t}, really" for t in TEXTS)])
    (tmp_path / "b.csv").write_text(unquoted)
    refused(tmp_path / "b.csv", "b.csv, line 2 has 2 columns, and its header has 1")


@pytest.mark.parametrize("last", ['they call it the "best,0', "the end .,0"])
def test_a_quote_that_swallows_lines_is_named(tmp_path, last):
    lines = [f"{t},{i % 2}" for i, t in enumerate(TEXTS)]
    lines[9:9] = ['"so good, and,\n\nso cheap",1', '"so " warm,1', '"best pizza ever,1']
    (tmp_path / "a.csv").write_text("\n".join(["text,mood", *lines, last]))
    refused(tmp_path / "a.csv", "a.csv, line 15 opens a quote that is not closed", "twice", on_error="skip")
    (tmp_path / "b.csv").write_text("\n".join(["mood,text", *(f"{i % 2},{t}" for i, t in enumerate(TEXTS)), '1,"best']))
    refused(tmp_path / "b.csv", "b.csv, line 42 opens a quote")


def test_all_faults_are_counted_and_some_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(["", *TEXTS, "", "", "\x01", TEXTS[0][:9], "", ""]))
    refused(path, "line 1 is empty (3 more: a.txt, line 42, a.txt, line 43, a.txt, line 44)")
    assert said(opened(path, on_error="skip"), "4 of 45 records")
    refused([*TEXTS, ""], "Item 40 of the list is empty")
    refused([*TEXTS, None], "Item 40 of the list is missing (None)")
    refused([*TEXTS[:3], float("nan"), *TEXTS], "Item 3 of the list is missing (nan)")
    with pytest.raises(DataError, match=r"Item 1 of the list is missing \(None\)"):
        open_examples(["the soup", None], SPEC)
    refused([*TEXTS, "half \ud83d"], "Item 40", "half of a surrogate pair at position 6")
    refused(["", " "] * 10, "no text that can be read", on_error="skip", kind="text")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{'text': 1}", "is no JSON"),
        ("[1, 2]", "no JSON object"),
        ("", "is empty"),
        ("[" * 50_000, "is no JSON"),
        ('{"text": null}', "is empty"),
        ('{"other": 3}', "is empty"),
        ('{"text": "\\ud800"}', "half of a surrogate pair at position 1"),
        ('{"text": "a\\u0000"}', "U+0000 at position 2"),
    ],
)
def test_lines_that_are_no_json(tmp_path, line, words):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*(json.dumps({"text": t}) for t in TEXTS[:20]), line, '{"text": "the last"}']))
    refused(path, "a.jsonl, line 21", words)
    assert len(everything(opened(path, on_error="skip"))) == 21


def test_texts_that_are_too_long(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join([*TEXTS, "q " * 300, TEXTS[0][:-2]]))
    refused(path, "line 41 has 599 tokens", "more than 512", "--preprocess.sequence.max_length", tokenizer=BPE)
    data = opened(path, on_error="skip", tokenizer=BPE)
    assert data.spec.shape[0] < 40
    assert said(data, "1 of 42 records were left out", "line 41")
    assert opened(path, max_length=600, tokenizer=BPE).spec.shape == (600,)
    count = int(token_counts(TEXTS, SPEC).max())
    refused(TEXTS, f"more than --preprocess.sequence.max_length {count - 1} allows", max_length=count - 1)
    refused(TEXTS, "Every text", "longer than 1 tokens", max_length=1, on_error="skip")
    split = table(tmp_path / "b.csv", {"text": [*TEXTS, "q " * 300], "split": ["train"] * 30 + ["val"] * 10 + ["test"]})
    refused(split, "every text of the test split is longer", on_error="skip", tokenizer=BPE)


# Files and columns


def test_damaged_files(tmp_path):
    for name, content, words in (
        ("a.txt", b"", ("is empty",)),
        ("b.txt", b"\n \n", ("is empty",)),
        ("c.txt", "the soup\n".encode("utf-16"), ("UTF-16", "UTF-8")),
        ("d.txt.gz", b"no gzip", ("cannot be read",)),
        ("e.csv.gz", gzip.compress(b"text\n" + b"the soup\n" * 999)[:-20], ("cannot be read",)),
        ("f.jsonl", b"", ("is empty",)),
        ("g.jsonl", b"\n{]\n", ("line 1", "is empty")),
        ("h.csv", b"the soup was warm and good\nthe pasta was cold\n" * 20, ("no line of column names", "the soup")),
        ("i.csv", b"text,y\nthe soup,1\nthe soup, warm,1\n", ("line 3 has 3 columns", "header has 2")),
        ("j.jsonl", b'{"n": 1}\n{"n": 2}\n', ("no column", "n")),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, name, *words)


def test_columns_that_are_unclear(tmp_path):
    two = table(tmp_path / "two.csv", {"first": TEXTS, "second": TEXTS, "y": range(40)})
    refused(two, "several columns of text", "first, second", "--preprocess.sequence.column")
    refused(two, "no column 'secnd'", "Did you mean 'second'?", column="secnd")
    refused(two, "'y'", "numbers, not text", column="y", kind="text")
    refused(two, "no column 'nom'", column="first", id_column="nom")
    refused(table(tmp_path / "n.csv", {"x": range(20)}), "no column", "x", kind="text")
    refused(
        table(tmp_path / "w.csv", {"a": list("xyz") * 9, "b": list("uvw") * 9}),
        "no column of text",
        "a, b",
        kind="text",
    )
    pq.write_table(pa.table({"a": TEXTS, "b": TEXTS}), tmp_path / "two.parquet")
    refused(tmp_path / "two.parquet", "several columns", "a, b")
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    for key in ("column", "id_column", "split_column"):
        refused(tmp_path / "a.txt", "no columns", f"preprocess.sequence.{key}", **{key: "text"})
    refused(fasta(tmp_path / "a.fasta", PROTEINS), "FASTA", "no text", kind="text")


def test_options_that_have_no_effect(monkeypatch, tmp_path):
    for key, value in (("binarize", "threshold"), ("size", 3), ("channels", "grey")):
        refused(TEXTS, f"--preprocess.{key} is for images", "text", **{key: value})
    for options in (
        {"sites": (3,)},
        {"sites": (3,), "background": "ACD"},
        {"padding": "."},
        {"split": "clusters"},
        {"split": "clusters", "identity": 0.5},
        {"split": "mutations", "max_mutations": 1},
    ):
        refused(TEXTS, "--preprocess.sequence.", "is for proteins", "holds text", **options)
    refused(PROTEINS, "--preprocess.text.vocabulary is for text", "protein sequences", "sequence.kind text")
    refused(np.zeros((20, 3)), "--preprocess.text.vocabulary is for text", "vectors")
    refused(np.zeros((20, 3)), "--preprocess.sequence.kind is for sequences", "vectors", kind="text", vocabulary=8000)
    with pytest.raises(ValidationError, match="vocabulary"):
        TextConfig(tokenizer="x", vocabulary=300)
    known_files(tmp_path)
    monkeypatch.setenv("DILED_DATA", str(tmp_path))
    refused("yelp", "holds text, not protein", kind="protein")
    refused("gifford", "holds protein, not text", kind="text", vocabulary=8000)


def test_too_few_different_texts():
    refused([TEXTS[0]] * 50, "only 1 different of 50 texts")
    refused(TEXTS[:4], "only 4 examples")


def test_known_sets_that_are_not_there(tmp_path, monkeypatch):
    for folder in (None, str(tmp_path)):
        monkeypatch.delenv("DILED_DATA", raising=False)
        if folder:
            monkeypatch.setenv("DILED_DATA", folder)
        refused("yelp", "not on this machine", "yelp-sentiment-test.csv.gz and yelp-transfer-reference.csv.gz")
        refused("sst2", "DILED_DATA", "sst2-sentences.csv.gz")


# Tokenizers


def test_tokenizers_that_cannot_be_read(tmp_path, monkeypatch):
    folder = tmp_path / "bert"
    folder.mkdir()
    for name, content, words in (
        ("vocab.txt", "[UNK]\nthe\n", ("holds no tokenizer.json", "vocab.txt", "save_pretrained")),
        ("tokenizer.json", "{}", ("is no tokenizer",)),
        ("tokenizer.json", "\xff", ("cannot be read as a tokenizer",)),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {}, "merges": []}}', ("has no tokens",)),
    ):
        (folder / name).write_text(content, encoding="latin-1")
        refused(TEXTS, *words, tokenizer=folder)
    refused(TEXTS, "There is no file or folder", tokenizer=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused(TEXTS, "holds no tokenizer.json.", tokenizer=tmp_path / "empty")
    one = Tokenizer(models.BPE({"a": 0, "aa": 1}, [("a", "a")])).to_str()
    refused(["a" * i for i in range(1, 20)] + ["z"], "Item 19 of the list has no token", tokenizer=one, kind="text")
    with pytest.raises(DataError, match="has no token of the tokenizer"):
        read_examples("z", text_spec(3, one))
    with pytest.raises(DataError, match="which have no tokenizer"):
        tokenizer_of(SPEC.model_copy(update={"kind": "protein", "tokenizer": None}))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    refused(TEXTS, "pip install 'diled[text]'")


# A trained model


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ("q " * 30, ("Text 1 ('q q q", "59 tokens", "at most 12", "--convert")),
        (["the soup", ""], ("Text 2", "is empty")),
        ("bell \x07", ("Text 1", "U+0007 at position 6")),
        (["half \ud83d"], ("Text 1", "surrogate")),
        ([], ("is empty",)),
        ("nothing.txt", ("There is no file or folder nothing.txt",)),
        ("nothing.csv.gz", ("There is no file",)),
        (np.zeros((2, 3, 3), np.uint8), ("texts of at most 12 tokens", "(2, 3, 3)")),
        (np.full((2, 12), 301), ("0 to 300", "others")),
        (np.array([[1, 0, 2]]), ("row 0 goes on after its end",)),
        (Image.new("L", (8, 8)), ("texts of at most 12 tokens", "image")),
    ],
)
def test_what_a_model_does_not_read(tmp_path, monkeypatch, inputs, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        read_examples(inputs, SPEC)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    assert len(message) < 700


def test_files_that_a_model_does_not_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"the soup\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"a.txt, line 2 has the byte 0xe9"):
        read_examples(tmp_path / "a.txt", SPEC)
    (tmp_path / "a.txt").write_bytes(b"the soup\n\nthe pasta\n")
    with pytest.raises(DataError, match=r"a.txt, line 2 is empty"):
        read_examples(tmp_path / "a.txt", SPEC)
    assert len(read_examples("q " * 30, SPEC, convert=True)) == 1


def test_lines_that_the_model_does_not_read_are_left_out(tmp_path):
    """A piece that the tokenizer does not know is lost, and no fault."""
    lines = [b"the soup", b"caf\xe9", b"", b"q " * 30, b"bell \x07", b"the pasta"]
    (tmp_path / "a.txt").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(
        DataError, match=r"a.txt, line 2 has the byte 0xe9 .* \(3 more: .*\)\. To leave out .*: --skip\."
    ):
        open_examples(tmp_path / "a.txt", SPEC, option="--skip")
    with pytest.warns(
        DataWarning, match=r"4 of 6 records .*line 2 .*line 3 is empty; .*line 4 has 59 tokens.*line 5 has the"
    ):
        found = open_examples(tmp_path / "a.txt", SPEC, skip=True)
    assert (to_strings(found.values, SPEC), found.ids) == (["the soup", "the pasta"], ["0", "5"])
    with pytest.raises(DataError, match=r"^Text 1 \('q q .* to cut it\.$"):
        open_examples("q " * 30, SPEC, option="--skip")


def test_strings_of_other_data():
    with pytest.raises(DataError, match="padding"):
        from_strings(["the soup"], SPEC, padding="J")
    with pytest.raises(DataError, match="Rows of 12 numbers"):
        to_strings(np.zeros((2, 9), np.uint16), SPEC)
    with pytest.raises(DataError, match="0 to 300"):
        to_strings(np.full((1, 12), 301), SPEC)
    with pytest.raises(DataError, match="Text 2 is no text"):
        encode_texts(["a", None], SPEC)
    for name in ("a.fasta", "a.png", "a.parquet", "a"):
        with pytest.raises(
            ConfigError, match=r"no ending that texts are written to. Known: .npy, .npz, .txt, .csv, .jsonl."
        ):
            check_out(name, SPEC)


def test_models_without_their_tokenizer(tmp_path):
    layer = torch.nn.Linear(1, 1)
    save_model(tmp_path, layer, SPEC, name=None, config=None)
    path = tmp_path / "tokenizer.json"
    other = load_tokenizer(word_pieces().to_str())
    for content, words in (
        (other, "trained on others"),
        (BPE[:-100], "is damaged"),
        ("[]", "is damaged"),
        ('{"model": {"vocab": {}}}', "is damaged"),
        (None, "has no tokenizer.json"),
    ):
        path.unlink() if content is None else path.write_text(content, encoding="utf-8")
        with pytest.raises(ModelError) as caught:
            load_model(tmp_path, layer)
        short_and_has(str(caught.value), (words, "tokenizer.json"))
    assert not list(tmp_path.glob("*.partial"))


def test_seeds_of_the_division():
    assert opened(TEXTS, seed=1).test.ids != opened(TEXTS, seed=0).test.ids
    assert written(5) == TEXTS[:5]


def test_a_missing_text_is_no_sentence(tmp_path):
    lines = [f"the food was good {i} ." for i in range(30)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text", *lines[:3], "nan", "NA", *lines[3:]]) + "\n")
    with pytest.raises(DataError, match="line 5 holds 'nan', which stands for a missing value"):
        open_data(path)
    data = open_data(path, PreprocessConfig(on_error="skip"))
    assert sorted(
        t for s in (data.train, data.validation, data.test) for t in to_strings(s.values, data.spec)
    ) == sorted([*lines, "NA"])
