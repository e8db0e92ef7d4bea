"""Text whose words, labels, splits and tokens are known: what is read is exactly what was written."""

import csv
import gzip
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_proteins_data import everything, fasta, said, table
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers import decoders as decoding

from diled.arguments import data_of, named_split
from diled.config import DataSpec, PreprocessConfig, SequenceConfig, TextConfig
from diled.data import from_strings, known_sets, open_data, read_examples, read_named_examples, to_strings
from diled.data.scale import from_model, raw_dtype
from diled.data.shards import encoded
from diled.data.text import (
    decode_rows,
    encode_texts,
    load_tokenizer,
    text_spec,
    token_counts,
    tokenizer_of,
    train_tokenizer,
    unknown_token,
)
from diled.model import Model
from diled.models.exact_sequences import Profile
from diled.models.io import load_model, read_config, save_model
from diled.output import check_out, write_examples
from diled.runs import resolve
from diled.space import raw_tensor, to_space

WORDS = [
    "the",
    "a",
    "waiter",
    "chef",
    "soup",
    "pasta",
    "was",
    "is",
    "really",
    "not",
    "quite",
    "warm",
    "cold",
    "friendly",
]
WORDS += ["rude", "and", "but", "we", "they", "left"]


def written(n, seed=0):
    """Distinct sentences of 3 to 8 words."""
    rng = np.random.default_rng(seed)
    drawn = (" ".join(rng.choice(WORDS, rng.integers(3, 9))) + " ." for _ in range(2 * n))
    return list(dict.fromkeys(drawn))[:n]


TEXTS = written(40)
BPE = train_tokenizer(TEXTS, 300)


def opened(source, seed=0, vocabulary=300, tokenizer=None, **options):
    """Data with options of `preprocess.sequence`."""
    own = {key: options.pop(key) for key in list(options) if key in PreprocessConfig.model_fields}
    text = TextConfig(vocabulary=vocabulary) if tokenizer is None else TextConfig(tokenizer=str(tokenizer))
    return open_data(source, PreprocessConfig(sequence=options, text=text, **own), seed=seed)


def word_pieces(unk="[UNK]"):
    """A tokenizer like BERT's: lower case, special tokens at both ends, cut and filled up to 6."""
    vocabulary = [unk, "[CLS]", "[SEP]", "[PAD]", "the", "soup", "was", "warm", "##er", "."]
    tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(vocabulary)}, unk_token=unk))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoding.WordPiece()
    tokenizer.add_special_tokens([unk, "[CLS]", "[SEP]", "[PAD]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=6, pad_id=3)
    return tokenizer


# Tokens


STRINGS = [
    "the soup was warm .",
    "Ünïcode, 漢字, 한글, हिन्दी, עברית",
    "👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 ﬁ Ⅷ",
    "tab\tand  two spaces",
    " blank before and after ",
    "a\nline",
    "can't won't 'tis 12,345.60 <s> [CLS] </s> ##x Ġ ▁",
    "\ufeff\u200b\u00a0\U0010ffff",
    "".join(chr(i) for i in range(1, 0x250) if unicodedata.category(chr(i)) != "Cn"),
]


def test_every_text_is_written_and_read_back():
    spec = text_spec(max(token_counts(STRINGS, text_spec(1, BPE))), BPE)
    assert to_strings(encode_texts(STRINGS, spec), spec) == STRINGS
    rng = np.random.default_rng(0)
    points = [int(p) for p in rng.integers(1, 0x110000, 600) if not 0xD800 <= p < 0xE000]
    texts = ["".join(map(chr, points[i : i + 20])) for i in range(0, len(points), 20)]
    spec = text_spec(100, BPE)
    assert decode_rows(encode_texts(texts, spec), spec) == texts


def test_numbers_of_tokens():
    """Token k is k + 1, the end is 0, and what is beyond the first end is not read."""
    tokenizer, spec = Tokenizer.from_str(BPE), text_spec(16, BPE)
    ids = tokenizer.encode(TEXTS[0], add_special_tokens=False).ids
    row = encode_texts([TEXTS[0]], spec)[0]
    assert row.tolist() == [k + 1 for k in ids] + [0] * (16 - len(ids))
    assert (spec.kind, spec.sequential, spec.shape, spec.low) == ("text", True, (16,), 0)
    assert spec.levels == len(spec.symbols) == tokenizer.get_vocab_size() + 1 == spec.high + 1
    assert spec.symbols[0] == ""
    assert [spec.symbols[k + 1] for k in ids] == [tokenizer.id_to_token(k) for k in ids]
    assert token_counts([*TEXTS[:3]], spec).tolist() == [len(tokenizer.encode(t).ids) for t in TEXTS[:3]]
    odd = row.copy()
    odd[len(ids) + 1 :] = 5
    assert decode_rows(np.stack([row, odd])[None], spec) == [TEXTS[0]] * 2
    full = encode_texts(["zqzqzqzqzqzqzqzq"], spec)
    assert (full > 0).all()
    assert decode_rows(full, spec) == ["zqzqzqzqzqzqzqzq"]
    assert decode_rows(np.zeros((2, 16), np.uint16), spec) == ["", ""]
    assert decode_rows(np.zeros((0, 16), np.uint16), spec) == []


def test_rows_are_right_whatever_the_order_and_the_number_of_texts(monkeypatch):
    spec = text_spec(40, BPE)
    alone = np.concatenate([encode_texts([text], spec) for text in TEXTS])
    assert (encode_texts(TEXTS, spec) == alone).all()
    monkeypatch.setattr("diled.data.text.BLOCK", 7)
    assert (encode_texts(TEXTS, spec) == alone).all()
    assert decode_rows(alone, spec) == TEXTS
    assert (encode_texts(TEXTS, text_spec(4, BPE), convert=True) == alone[:, :4]).all()
    assert encode_texts([], spec).shape == (0, 40)


def test_training_of_a_tokenizer():
    """Pairs are joined by frequency; single occurrences are not; the bytes are there; nothing is special."""
    tokenizer = Tokenizer.from_str(train_tokenizer(["abab", "abab", "xy"], 1000))
    assert tokenizer.encode("ababab").tokens == ["abab", "ab"]
    assert tokenizer.encode("xy").tokens == ["x", "y"]
    assert tokenizer.get_vocab_size() == 258
    assert Tokenizer.from_str(train_tokenizer(TEXTS, 270)).get_vocab_size() == 270
    assert json.loads(BPE)["added_tokens"] == []
    assert unknown_token(BPE) is None
    spec = text_spec(3, BPE)
    assert raw_dtype(spec) == np.uint16
    assert raw_dtype(text_spec(3, word_pieces().to_str())) == np.uint8


def test_the_tokenizer_is_the_same_in_another_process():
    code = f"from diled.data.text import train_tokenizer\nimport sys\nsys.stdout.write(train_tokenizer({TEXTS!r}, 300))"
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONHASHSEED": "7",
        "TOKENIZERS_PARALLELISM": "true",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == BPE


def test_no_setting_is_left_behind(monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    encode_texts(TEXTS, text_spec(40, train_tokenizer(TEXTS, 300)))
    assert "TOKENIZERS_PARALLELISM" not in os.environ
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    encode_texts(TEXTS, text_spec(40, BPE))
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


def test_a_given_tokenizer(tmp_path):
    """Neither special tokens nor cutting nor filling up, also where its file asks for them."""
    word_pieces().save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert loaded == load_tokenizer(tmp_path / "tokenizer.json") == load_tokenizer(loaded)
    spec = text_spec(9, loaded)
    assert encode_texts(["The soup was warmer ."], spec).tolist() == [[5, 6, 7, 8, 9, 10, 0, 0, 0]]
    assert decode_rows(np.array([[2, 5, 6, 3, 4, 0, 0, 0, 0]]), spec) == ["the soup"]
    assert unknown_token(loaded) == 1
    assert (encode_texts(["[CLS] soup"], spec) != 2).all(), "in a text it is text"
    texts = [f"the {'soup ' * i}was warm" for i in range(1, 8)] + [
        f"the soup was {'warm ' * i}odd" for i in range(1, 6)
    ]
    data = opened(texts, tokenizer=tmp_path)
    assert data.spec.tokenizer == loaded
    assert said(data, "5 of 12 texts have pieces", "does not know")
    assert not said(data, "was trained on")
    with pytest.warns(UserWarning, match="1 of 2 texts have pieces"):
        read_examples(["the soup", "the pasta"], spec)


def test_symbols_of_every_kind_of_tokenizer(tmp_path):
    """What is read from tokenizer.json beside a model is what the library says."""
    pieces = Tokenizer(models.Unigram([("<unk>", 0.0), ("the", -1.0), ("▁soup", -2.0)], unk_id=0))
    holes = Tokenizer(models.WordLevel({"a": 0, "b": 3}, unk_token="a"))
    holes.add_tokens(["new"])
    for i, text in enumerate((BPE, word_pieces().to_str(), pieces.to_str(), holes.to_str())):
        spec = text_spec(5, load_tokenizer(text))
        folder = tmp_path / str(i)
        save_model(folder, torch.nn.Linear(1, 1), spec, name=None, config=None)
        assert DataSpec(**read_config(folder)["data"]) == spec
        assert load_model(folder, torch.nn.Linear(1, 1))[1] == spec
        values = json.loads((folder / "config.json").read_text())["data"]
        assert (values["tokenizer"], values["symbols"]) == ("tokenizer.json", [])
    assert spec.symbols == ("", "a", "", "new", "b"), "number 1 has no token"
    assert unknown_token(pieces.to_str()) == 1


def test_more_tokens_than_two_bytes_count(tmp_path):
    vocabulary = {f"w{i}": i for i in range(70_000)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    spec = text_spec(3, tokenizer.to_str())
    rows = encode_texts(["w69999 w1", "w65535"], spec)
    assert rows.dtype == np.int32
    assert rows.tolist() == [[70_000, 2, 0], [65_536, 0, 0]]
    assert decode_rows(rows, spec) == ["w69999 w1", "w65535"]
    assert raw_tensor(rows).dtype == torch.int32
    assert to_space(raw_tensor(rows), spec).tolist() == rows.tolist()
    assert from_model(rows.astype(np.int64), spec).dtype == np.int32


# Files


def files(folder, texts, ids, stars):
    columns = {"id": ids, "review": texts, "stars": stars, "mood": ["good" if s > 2 else "bad" for s in stars]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "a.jsonl").write_text(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.table(columns), folder / "a.parquet")
    made = [table(folder / name, columns) for name in ("a.csv", "a.csv.gz")]
    return [
        *made,
        table(folder / "a.tsv", columns, "\t"),
        *(folder / n for n in ("a.jsonl", "b.jsonl.gz", "a.parquet")),
    ]


def test_the_same_texts_from_every_kind_of_file(tmp_path):
    texts = [*TEXTS[:-2], 'he said "no, thanks"', "ça a coûté 3 € 🍜"]
    stars = [i % 5 for i in range(40)]
    ids = [f"r{i}" for i in range(40)]
    for source in files(tmp_path, texts, ids, stars):
        data = opened(source)
        assert everything(data) == dict(zip(ids, texts, strict=True)), source
        assert data.spec.kind == "text"
        assert data.spec.labels == {"stars": ["0", "1", "2", "3", "4"], "mood": ["bad", "good"]}
        for i, star, mood in zip(data.train.ids, data.train.labels["stars"], data.train.labels["mood"], strict=True):
            assert star == stars[int(i[1:])]
            assert mood == (star > 2)
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n\n \n", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes("\ufeff".encode() + "\r\n".join(texts).encode())
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress("\n".join(texts).encode()))
    (tmp_path / "d.txt").write_bytes("\r".join([*texts, ""]).encode())
    for source in (*(tmp_path / n for n in ("a.txt", "b.txt", "c.txt.gz", "d.txt")), texts, np.array(texts)):
        assert everything(opened(source)) == {str(i): text for i, text in enumerate(texts)}
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    assert set(everything(opened(tmp_path / "s.jsonl")).values()) == set(texts)


STRAY = ['"great" she said , and left .', '"best pizza ever', 'they call it the "best', '"so good"', 'it is the "']


@pytest.mark.parametrize("texts", [STRAY, STRAY[1:3], STRAY[3:4], [STRAY[1], STRAY[4]]])
@pytest.mark.parametrize("columns", [1, 2])
def test_quotes_between_tabs_belong_to_the_texts(tmp_path, texts, columns):
    texts = [*TEXTS[:20], texts[0], *TEXTS[20:30], *texts[1:], *TEXTS[30:]]
    path = tmp_path / "a.tsv"
    path.write_text(
        "\n".join("\t".join(row) for row in [("text", "mood")[:columns], *((t, "1")[:columns] for t in texts)])
    )
    assert everything(opened(path)) == {str(i): text for i, text in enumerate(texts)}


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
def test_quotes_between_tabs_that_csv_put_there_do_not(tmp_path, quoting):
    texts = [*TEXTS, *STRAY, "two\nlines", 'a "tab"\there']
    with (tmp_path / "a.tsv").open("w", newline="") as file:
        csv.writer(file, "excel-tab", quoting=quoting).writerows([("text", "mood"), *((t, 'a"b') for t in texts)])
    assert everything(opened(tmp_path / "a.tsv")) == {str(i): text for i, text in enumerate(texts)}
    excel = [f'"{t[:-2]}, yes"\t1' for t in TEXTS]  # which quotes commas as well
    (tmp_path / "b.tsv").write_text("\n".join(["text\tmood", *excel]))
    assert set(everything(opened(tmp_path / "b.tsv")).values()) == {f"{t[:-2]}, yes" for t in TEXTS}


def test_texts_stay_as_they_are():
    texts = ["Two  Spaces", "UPPER lower", "naïve e\u0301", "a\ttab", *TEXTS[:10]]
    given = [f" {t}\n" for t in texts]
    assert list(everything(opened(given)).values()) != texts  # another order
    assert sorted(everything(opened(given)).values()) == sorted(texts)


def test_which_column(tmp_path):
    other = written(40, seed=1)
    kinds = [f"c{i % 3}" for i in range(40)]
    for columns, name in (
        ({"words": TEXTS, "kind": kinds}, "words"),
        ({"notes": other, "Text": TEXTS}, "Text"),
        ({"title": other, "sentence": TEXTS}, "sentence"),
        ({"tense": ["past", "present"] * 20, "say": TEXTS, "split": ["train"] * 40}, "say"),
    ):
        data = opened(table(tmp_path / "a.csv", columns), split="random")
        assert said(data, f"column '{name}'"), name
        assert set(everything(data).values()) == set(TEXTS)
    two = table(tmp_path / "two.csv", {"words": TEXTS, "more": other})
    assert set(everything(opened(two, column="more")).values()) == set(other)
    dishes = [f"这家店的菜真的很好吃{i}次" for i in range(40)]
    foreign = {"评论": dishes, "标签": ["好评", "差评"] * 20}
    for found in (opened(table(tmp_path / "zh.csv", foreign)), opened(tmp_path / "zh.csv", column="评论")):
        assert set(everything(found).values()) == set(dishes)
        assert found.spec.labels == {"标签": ["好评", "差评"]}
    short = [f"菜{i}" for i in range(40)]
    assert set(everything(opened(table(tmp_path / "short.csv", {"菜": short}), column="菜")).values()) == set(short)
    single = table(tmp_path / "one.csv", {"word": ["anna", "bea", "carl", "dora", *map("name{}".format, range(9))]})
    assert opened(single, kind="text").spec.kind == "text"


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_in_parquet_of_every_type(tmp_path, kind):
    moods = pa.array(["good", "bad"] * 20)
    rows = pa.table({"text": pa.array(TEXTS).cast(kind), "mood": moods.cast(kind)})
    pq.write_table(rows, tmp_path / "a.parquet")
    for data in (opened(tmp_path / "a.parquet"), opened(tmp_path / "a.parquet", kind="text")):
        assert set(everything(data).values()) == set(TEXTS)
        assert data.spec.labels == {"mood": ["bad", "good"]}


def test_declared_classes_have_their_names(tmp_path):
    features = {"label": {"names": ["neg", "pos", "none"], "_type": "ClassLabel"}}
    rows = pa.table({"text": TEXTS, "label": [0, 1] * 20})
    said = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(rows.replace_schema_metadata(said), tmp_path / "a.parquet")
    data = opened(tmp_path / "a.parquet")
    assert data.spec.labels == {"label": ["neg", "pos", "none"]}
    assert not any("whole numbers" in note for note in data.notes)
    text = dict(zip(TEXTS, [0, 1] * 20, strict=True))
    assert [text[t] for t in to_strings(data.train.values, data.spec)] == data.train.labels["label"].tolist()


PROTEINS = [f"MKT{a}{b}LLVW" for a in "ACDEFG" for b in "HIKLMN"]


def test_proteins_or_text(tmp_path):
    """What holds proteins stays so, beside words too; words that are spelt with amino acids are words."""
    (tmp_path / "p.txt").write_text("\n".join(PROTEINS) + "\n\n" + PROTEINS[0])
    (tmp_path / "n.txt").write_text("\n".join(p.lower() for p in PROTEINS))
    words = [f"protein number {i}" for i in range(36)]
    for source, kind in (
        (tmp_path / "p.txt", "protein"),
        (tmp_path / "n.txt", "text"),
        (PROTEINS, "protein"),
        (table(tmp_path / "a.csv", {"what": words, "aa": PROTEINS}), "protein"),
        (table(tmp_path / "b.csv", {"what": words, "seq": [p.lower() for p in PROTEINS]}), "protein"),
        (table(tmp_path / "c.csv", {"what": words, "mood": ["GOOD", "SAD"] * 18}), "text"),
        (table(tmp_path / "d.csv", {"what": words, "mood": ["good", "sad"] * 18}), "text"),
        (fasta(tmp_path / "e.fasta", PROTEINS), "protein"),
    ):
        assert open_data(source).spec.kind == kind, source
    assert opened(PROTEINS, kind="text").spec.kind == "text"
    assert len(everything(open_data(tmp_path / "p.txt"))) == 37


# Splits


def test_splits_by_files_and_by_columns(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for i, name in enumerate(("train", "dev", "test")):
        (folder / f"{name}.txt").write_text("\n".join(TEXTS[12 * i : 12 * i + 12]))
    (folder / "README.txt").write_text("about these data")
    data = opened(folder)
    assert to_strings(data.validation.values, data.spec) == TEXTS[12:24]
    assert to_strings(data.test.values, data.spec) == TEXTS[24:36]
    assert data.test.ids[0] == "test/0"
    assert said(data, "README.txt")
    column = table(tmp_path / "a.csv", {"text": TEXTS, "split": ["train", "train", "val", "test"] * 10})
    data = opened(column)
    assert to_strings(data.train.values, data.spec) == [t for i, t in enumerate(TEXTS) if i % 4 < 2]
    assert to_strings(data.test.values, data.spec) == TEXTS[3::4]
    beside = tmp_path / "beside"
    beside.mkdir()
    table(beside / "train.csv", {"text": TEXTS[:30]})
    (beside / "test.txt").write_text("\n".join(TEXTS[30:]))
    (beside / "notes.txt").write_text("about these data")
    pq.write_table(pa.table({"text": TEXTS}), beside / "more.parquet")
    data = opened(beside)
    assert set(everything(data).values()) == set(TEXTS[:30])
    assert said(data, "Left out beside train.csv: more.parquet, test.txt.")
    lines = tmp_path / "train.jsonl"
    lines.write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    assert len(opened(lines).train) == 32


def test_the_tokenizer_knows_training_texts_alone(tmp_path):
    """The word of the test split is no token, however frequent; with the splits joined it is."""
    train, test = [f"{t} alpha" for t in TEXTS[:20]], [f"{t} zygote" for t in TEXTS[20:]]
    column = table(tmp_path / "a.csv", {"text": train + test, "split": ["train"] * 20 + ["test"] * 20})
    symbols = opened(column, vocabulary=600).spec.symbols
    assert "Ġalpha" in symbols
    assert "Ġzygote" not in symbols
    assert "Ġzygote" in opened(column, vocabulary=600, split="random").spec.symbols


def test_repeats_of_a_text_are_in_one_split():
    texts = [t for i, t in enumerate(TEXTS) for _ in range(1 + 3 * (i % 3))]
    data = opened(texts)
    held = [to_strings(part.values, data.spec) for part in (data.train, data.validation, data.test)]
    assert [len(set(h)) for h in held] == [32, 4, 4]
    assert sum(map(len, held)) == len(texts)
    assert sum(len(set(h)) for h in held) == len(TEXTS)
    for part, strings in zip((data.train, data.validation, data.test), held, strict=True):
        assert strings == [texts[int(i)] for i in part.ids]
        assert strings == [t for t in texts if t in set(strings)], "in the order of the source"
    assert said(data, f"{len(texts) - 40} of {len(texts)} texts repeat another one")
    limited = opened(texts, limit=9)
    assert len(limited.train) == 9
    assert limited.test.ids == data.test.ids
    assert not said(opened(TEXTS), "repeat another one")


def test_texts_that_training_has_too(tmp_path):
    texts = [*TEXTS[:20], *TEXTS[:5], *TEXTS[20:26], *TEXTS[20:22], *TEXTS[26:]]
    splits = ["train"] * 20 + ["val"] * 11 + ["test"] * 16
    source = table(tmp_path / "a.csv", {"text": texts, "split": splits})
    data = opened(source)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 11, 16)
    assert said(data, "5 of 11 validation texts occur in training")
    assert said(data, "2 of 16 test texts occur in training or validation")
    data = opened(source, overlap="drop")
    assert to_strings(data.validation.values, data.spec) == TEXTS[20:26]
    assert to_strings(data.test.values, data.spec) == TEXTS[26:]


def test_lengths(tmp_path):
    spec = opened(TEXTS).spec
    assert spec.shape == (max(token_counts(TEXTS, spec)),)
    assert opened(TEXTS, max_length=99).spec.shape == (99,)
    assert opened([*TEXTS, "q " * 250 + "z"], on_error="skip").spec.shape[0] > 250


# Known sets


def known_files(folder):
    """Small files of the known sets."""
    yelp = {"text": TEXTS, "label": [0, 1] * 20}
    table(folder / "yelp-sentiment-train-subset.csv.gz", yelp)
    table(folder / "yelp-sentiment-test.csv.gz", yelp)
    table(folder / "yelp-sentiment-validation.csv.gz", {"text": written(40, 3), "label": [0, 1, 1, 0] * 10})
    table(
        folder / "yelp-transfer-reference.csv.gz",
        {"text": written(40, 3)[::4], "label": [0] * 10, "reference": TEXTS[:10]},
    )
    tense = ["validation"] * 30 + ["test"] * 10
    table(folder / "yelp-tense.csv.gz", {"text": TEXTS, "tense": ["past", "present"] * 20, "split": tense})
    splits = ["train"] * 20 + ["validation"] * 10 + ["test"] * 10
    table(folder / "sst2-sentences.csv.gz", {"text": TEXTS, "label": [1, 0] * 20, "split": splits})


def test_known_sets(tmp_path, monkeypatch):
    known_files(tmp_path)
    monkeypatch.setenv("DILED_DATA", str(tmp_path))
    data = opened("yelp")
    assert data.spec.labels == {"sentiment": ["negative", "positive"]}
    assert data.train.labels["sentiment"].tolist() == [0, 1] * 20
    assert to_strings(data.validation.values, data.spec) == [t for i, t in enumerate(written(40, 3)) if i % 4]
    assert data.validation.labels["sentiment"].tolist() == [1, 1, 0] * 10
    assert data.validation.ids[:2] == ["validation/1", "validation/2"]
    assert said(data, "10 validation texts are those of yelp-transfer-reference")
    data = opened("yelp-tense")
    assert data.spec.labels == {"tense": ["past", "present"]}
    assert (len(data.train), len(data.validation)) == (27, 3)
    assert to_strings(data.test.values, data.spec) == TEXTS[30:]
    table(
        tmp_path / "yelp-tense.csv.gz",
        {"text": [*TEXTS, *TEXTS[30:33]], "tense": ["past"] * 42 + ["present"], "split": [*["validation"] * 30, *["test"] * 10,
                                                                                         *["validation"] * 3]},
    )  # fmt: skip
    data = opened("yelp-tense")
    assert (len(data.train), len(data.validation)) == (27, 3)
    assert to_strings(data.test.values, data.spec) == TEXTS[30:]
    assert said(data, "3 texts of the set's validation split are test texts too and were left out")
    data = opened("sst2")
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 10, 10)
    assert data.spec.labels == {"sentiment": ["negative", "positive"]}
    assert data.train.labels["sentiment"].tolist() == [1, 0] * 10
    where = {name: place for name, _, place in known_sets()}
    assert where["yelp"] == f"found in {tmp_path}"
    assert where["sentences"] == "made by diled"


def test_sentences_of_the_grammar():
    data = open_data("sentences")
    assert sum(map(len, (data.train, data.validation, data.test))) == 8000
    assert set(data.spec.labels) >= {"sentiment", "tense"}
    assert data.spec.labels["sentiment"] == ["negative", "positive"]


# A trained model


def test_what_a_model_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = text_spec(40, BPE)
    rows = encode_texts(TEXTS[:12], spec)
    for name in ("a.txt", "a.csv", "a.jsonl", "a.npy", "a.npz"):
        write_examples(rows, spec, tmp_path / name, ids=[f"n{i}" for i in range(12)])
    for name, first in (("a.txt", "0"), ("a.csv", "n0"), ("a.jsonl", "n0"), ("a.npy", "0"), ("a.npz", "0")):
        values, names = read_named_examples(str(tmp_path / name), spec)
        assert (values == rows).all(), name
        assert values.dtype == np.uint16
        assert names[0] == first
    for given in (TEXTS[:12], np.array(TEXTS[:12]), [f" {t} " for t in TEXTS[:12]], rows, rows.astype(np.int64)):
        assert (read_examples(given, spec) == rows).all()
    assert (read_examples([Path("a.txt"), TEXTS[0]], spec) == np.concatenate([rows, rows[:1]])).all()
    listed = [".", "docs", "a.txt", "no.such.txt", TEXTS[0]]
    (tmp_path / "docs").mkdir()
    for given in (listed, np.array(listed)):
        assert to_strings(read_examples(given, spec), spec) == listed, "texts of a list are no paths"
    mixed, names = read_named_examples([Path("a.csv"), "docs"], spec)
    assert (to_strings(mixed[-1:], spec), names) == (["docs"], [*(f"n{i}" for i in range(12)), "12"])
    for text in ("either/or", "what is a.txt", "see a.csv .", ".txt", "no.such file.txt", "and/or a.txt"):
        assert to_strings(read_examples(text, spec), spec) == [text]
    assert (read_examples(TEXTS[0], text_spec(2, BPE), convert=True) == rows[:1, :2]).all()
    assert (from_strings(TEXTS[:3], spec) == rows[:3]).all()


def test_texts_are_written(tmp_path):
    spec = text_spec(40, BPE)
    texts = ["plain", 'a "quoted", text', "two\nlines\x0bthree\u2028four", "ünï 漢字"]
    rows = encode_texts(texts, spec)
    for name in ("a.txt", "a.csv", "a.jsonl"):
        check_out(tmp_path / name, spec)
        write_examples(rows, spec, tmp_path / name)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8").split("\n") == [
        "plain", 'a "quoted", text', "two lines three four", "ünï 漢字", ""
    ]  # fmt: skip
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line) for line in lines] == [{"id": str(i), "text": t} for i, t in enumerate(texts)]
    import csv

    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["id", "text"], *([str(i), t] for i, t in enumerate(texts))]


def test_data_are_opened_with_the_tokens_of_a_model():
    """Text opened for a model has the model's tokenizer, and the same rows, whatever would be trained on it."""
    data = opened(TEXTS)
    again = open_data(TEXTS, PreprocessConfig(text=TextConfig(tokenizer=data.spec.tokenizer)))
    assert again.spec == data.spec
    assert (again.test.values == data.test.values).all()
    other = written(40, seed=5)
    sequence = SequenceConfig(kind="text", max_length=data.spec.numel)
    theirs = open_data(other, PreprocessConfig(sequence=sequence, text=TextConfig(tokenizer=data.spec.tokenizer)))
    assert theirs.spec == data.spec
    assert tokenizer_of(theirs.spec) is tokenizer_of(data.spec)
    assert open_data(other).spec.symbols != data.spec.symbols


def test_stored_rows_of_tokens(tmp_path):
    """A synthetic set of a model of text holds texts, which are read in any tokenizer."""
    spec = text_spec(40, BPE)
    rows = encode_texts(TEXTS, spec)
    (tmp_path / "rows.parquet").write_bytes(encoded(rows, 0, spec))
    data = open_data(tmp_path / "rows.parquet")
    assert set(everything(data).values()) == set(TEXTS)
    assert len(everything(data)) == 40
    again = open_data(tmp_path / "rows.parquet", PreprocessConfig(text=TextConfig(tokenizer=BPE)))
    assert again.spec.tokenizer == BPE
    assert again.train.values.dtype == np.uint16
    assert everything(again) == everything(data)


def test_a_run_of_text_opens_its_data_and_others_with_its_own_tokenizer(tmp_path, monkeypatch):
    """Also data on which another tokenizer would be trained, by a path or by a name."""
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(TEXTS))
    data = opened(path)
    run = tmp_path / "run"
    Model(Profile(data.spec.numel, len(data.spec.symbols)), data.spec).save(run)
    config = resolve(str(path), settings={"preprocess.text.vocabulary": 300})
    (run / "run.json").write_text(json.dumps(config.model_dump(mode="json")))
    spec = load_model(run, Profile(data.spec.numel, len(data.spec.symbols)))[1]
    assert spec == data.spec
    model = Model(Profile(spec.numel, len(spec.symbols)), spec)
    assert (data_of(run, None, model).train.values == data.train.values).all()
    known_files(tmp_path)
    monkeypatch.setenv("DILED_DATA", str(tmp_path))
    long = Model(Profile(60, len(spec.symbols)), text_spec(60, BPE))
    for given in ("sst2", table(tmp_path / "b.csv", {"review": written(40, 7)})):
        for source in (run, long):
            assert data_of(source, given, long).spec.tokenizer == BPE
    split = named_split("sst2", long.spec)
    assert to_strings(split.values, long.spec) == TEXTS[:20]
