"""Protein sequences whose residues, labels, splits and likeness are known: what is read is exactly what was written."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import diled

import diled as package
from diled.arguments import data_of
from diled.config import DataSpec, PreprocessConfig
from diled.data import from_strings, known_sets, open_data, read_examples, read_named_examples, to_strings
from diled.data.known import GB1
from diled.data.proteins import RESIDUES, SYMBOLS, clean, consensus, decode, encode, protein_spec, sites_of
from diled.data.sequence_splits import clusters, identities, mutations, near
from diled.data.shards import encoded
from diled.errors import DataError
from diled.models.exact_sequences import Profile
from diled.output import check_out, write_codes, write_examples

PARENT = "ACDEFGHIKLMNPQRSTVWYACDE"


def drawn(n, low, high, seed=0, letters=RESIDUES):
    """Random distinct sequences of `low` to `high` residues."""
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list(letters), rng.integers(low, high + 1))) for _ in range(2 * n)]
    return list(dict.fromkeys(texts))[:n]


def table(path, columns, delimiter=","):
    """Columns as a table, gzipped where the name says so."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def fasta(path, texts):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="") as file:
        file.write("".join(f">s{i} a remark\n{text}\n" for i, text in enumerate(texts)))
    return path


def opened(source, seed=0, **options):
    """Data with options of `preprocess.sequence`."""
    own = {key: options.pop(key) for key in list(options) if key in PreprocessConfig.model_fields}
    return open_data(source, PreprocessConfig(sequence=options, **own), seed=seed)


def everything(data):
    """id -> text, over all splits."""
    parts = (data.train, data.validation, data.test)
    return {i: t for part in parts for i, t in zip(part.ids, to_strings(part.values, data.spec), strict=True)}


def said(data, *words):
    return any(all(word in note for word in words) for note in data.notes)


# The alphabet


def test_numbers_of_symbols():
    assert (len(SYMBOLS), SYMBOLS[0], SYMBOLS[20:]) == (24, "", ("Y", "X", "-", "*"))
    rows = encode(["ACDY", "X-*"], 6)
    assert rows.tolist() == [[1, 2, 3, 20, 0, 0], [21, 22, 23, 0, 0, 0]]
    assert rows.dtype == np.uint8
    assert decode(rows) == ["ACDY", "X-*"]
    spec = protein_spec(6)
    assert (spec.levels, spec.low, spec.high, spec.sequential) == (24, 0, 23, True)
    assert to_strings(rows[None], spec) == ["ACDY", "X-*"]
    assert to_strings(np.array([[1, 0, 2, 0, 0, 0]]), spec) == ["A"]  # the first end is the end


def test_cleaning():
    cleaned = clean(["JJACDJ", " acd", "ABUOZ", "..A-C*", "AJC", "A1C", "JJ", "A C"])
    assert cleaned.texts[:4] == ["ACD", "ACD", "AXXXX", "A-C*"]
    assert {i: fault.split(",")[0] for i, fault in cleaned.faults.items()} == {
        4: "has 'J' at position 2",
        5: "has '1' at position 2",
        6: "is empty",
        7: "has a space at position 2",
    }
    assert [note.split(" of ")[0] for note in cleaned.notes] == ["1", "3", "1"]
    assert clean(["jja?cdj"]).faults[0].startswith("has '?' at position 4")  # counted in the text as it stands there
    assert clean(["__AC_"], padding="_").texts == ["AC"]
    assert clean(["A1C"], convert=True).texts == ["AXC"]


# Files


def test_the_same_sequences_from_every_kind_of_file(tmp_path):
    texts, y = drawn(20, 5, 9), np.linspace(-1, 1, 20).round(3)
    columns = {"id": [f"s{i}" for i in range(20)], "sequence": texts, "fitness": y}
    sources = [
        table(tmp_path / "a.csv", columns),
        table(tmp_path / "a.csv.gz", columns),
        table(tmp_path / "a.tsv", columns, "\t"),
        table(tmp_path / "semicolon.csv", columns, ";"),
        *(fasta(tmp_path / name, texts) for name in ("a.fasta", "a.fa", "a.faa", "a.fa.gz", "a.fasta.gz")),
        tmp_path / "a.parquet",
    ]
    pq.write_table(pa.table(columns), sources[-1])
    for source in sources:
        data = open_data(source)
        assert everything(data) == {f"s{i}": text for i, text in enumerate(texts)}, source
        assert data.spec.shape == (max(map(len, texts)),)
        assert data.spec.labels == ({} if "fa" in source.suffixes[0] else {"fitness": []})
        for i, value in zip(data.train.ids, data.train.labels.get("fitness", []), strict=False):
            assert value == pytest.approx(y[int(i[1:])])
    assert set(everything(open_data(texts)).values()) == set(texts)
    assert set(everything(open_data(np.array(texts))).values()) == set(texts)


def test_fasta_as_it_comes(tmp_path):
    path = tmp_path / "a.fasta"
    records = [f">s{i} x\r\nAC\r\n\r\nDE FG\r\nH{RESIDUES[i]}\r\n" for i in range(12)]
    path.write_bytes(("; a comment\r\n# another\r\n" + "".join(records)).encode())
    assert everything(open_data(path)) == {f"s{i}": f"ACDEFGH{RESIDUES[i]}" for i in range(12)}


def test_which_column_holds_the_sequences(tmp_path):
    texts = drawn(12, 5, 9)
    other = {"split": ["train"] * 12, "species": ["mice", "rat"] * 6, "ok": ["True"] * 12, "n": range(12)}
    found = open_data(table(tmp_path / "only.csv", other | {"heavy": texts}))
    assert set(everything(found).values()) == set(texts)
    both = table(tmp_path / "both.csv", other | {"heavy": texts, "light": texts[::-1]})
    assert everything(opened(both, column="light"))["0"] == texts[-1]
    called = table(tmp_path / "called.csv", other | {"heavy": texts, "CDR3": texts[::-1]})
    assert everything(open_data(called))["0"] == texts[-1]
    named = table(tmp_path / "named.csv", {"sequence": texts, "who": [f"w{i}" for i in range(12)]})
    assert set(everything(opened(named, id_column="who"))) == {f"w{i}" for i in range(12)}
    assert not said(opened(named, id_column="who"), "different ids")
    twice = table(tmp_path / "twice.csv", {"sequence": texts, "name": [*"abcdefghijk", "a"]})
    assert said(open_data(twice), "The column 'name' holds 11 different ids of 12 records")
    path = fasta(tmp_path / "twice.fasta", texts)
    assert not said(open_data(path), "different ids")
    path.write_text(path.read_text().replace(">s7 ", ">s1 "))
    assert said(open_data(path), "twice.fasta holds 11 different ids of 12 records")


def test_labels_of_a_table(tmp_path):
    columns = {
        "sequence": drawn(30, 5, 9),
        "binds": [0, 1, 1] * 10,
        "count": range(30),
        "fitness": ["", "0.5", "NA"] + ["1.5"] * 27,
        "class": ["high", "low", ""] * 10,
        "flip": ["train", "test", ""] * 10,
    }
    data = open_data(table(tmp_path / "a.csv", columns))
    assert data.spec.labels == {"binds": ["0", "1"], "count": [], "fitness": [], "class": ["high", "low"]}
    parts = (data.train, data.validation, data.test)
    row = {int(i): (part, j) for part in parts for j, i in enumerate(part.ids)}
    value = {i: {k: float(v[j]) for k, v in part.labels.items()} for i, (part, j) in row.items()}
    assert value[1] == {"binds": 1, "count": 1, "fitness": 0.5, "class": 1}
    assert np.isnan([value[0]["fitness"], value[2]["fitness"]]).all()
    assert value[2]["class"] == -1
    assert said(data, "No labels", "flip")
    first = open_data(tmp_path / "a.csv", PreprocessConfig(label_column="class"))
    assert next(iter(first.spec.labels)) == "class"


def test_it_is_said_how_whole_numbers_are_read(tmp_path):
    columns = {"sequence": drawn(60, 5, 9), "dose": [i % 5 for i in range(60)], "binds": [i % 2 for i in range(60)]}
    data = open_data(table(tmp_path / "a.csv", columns))
    assert [len(names) for names in data.spec.labels.values()] == [5, 2]
    assert said(data, "'dose' holds 5 different whole numbers: classes, unless written with a point.")
    assert not said(data, "'binds'")


def test_gaps_are_read_alike_in_training_and_afterwards():
    """Each text of the data reads later as it did in training, gaps in one as long as the longest included."""
    aligned = [text[:2] + "-" + text[2:] for text in drawn(12, 4, 4)]
    for texts in (aligned, [*aligned, *drawn(12, 5, 8), "AC---DEF"]):
        data = open_data(texts)
        splits = (data.train, data.validation, data.test)
        read = {int(i): row.tolist() for s in splits for i, row in zip(s.ids, s.values, strict=True)}
        assert from_strings(texts, data.spec).tolist() == [read[i] for i in range(len(texts))]
        assert [from_strings([text], data.spec)[0].tolist() for text in texts] == [read[i] for i in range(len(texts))]
        assert DataSpec(**data.spec.model_dump(mode="json")) == data.spec
        assert ("aligned" in data.spec.model_dump()) == (texts is not aligned), "what was written before is as it was"


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_missing_value_leaves_whole_numbers_numbers(tmp_path, ending):
    texts, path = drawn(60, 5, 9), tmp_path / f"a.{ending}"
    columns = {"sequence": texts, "count": [None, *range(1, 60)], "binds": [None, *[i % 2 for i in range(1, 60)]]}
    if ending == "csv":
        table(path, columns)
    elif ending == "jsonl":
        path.write_text(
            "\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))
        )
    else:
        pq.write_table(pa.table(columns), path)
    data = open_data(path)
    assert data.spec.labels == {"count": [], "binds": ["0", "1"]}
    splits = (data.train, data.validation, data.test)
    count = {int(i): float(v) for s in splits for i, v in zip(s.ids, s.labels["count"], strict=True)}
    assert np.isnan(count.pop(0))
    assert count == {i: i for i in range(1, 60)}


def test_lengths_and_gaps(tmp_path):
    texts = drawn(12, 4, 8)
    assert opened(texts, max_length=10).spec.shape == (10,)
    aligned = [text[:2] + "-" + text[2:4] for text in drawn(12, 4, 4)]
    data = open_data(aligned)
    assert set(everything(data).values()) == set(aligned)
    assert said(data, "12 of 12", "alignment", "symbols")
    data = open_data([*aligned, *texts])
    assert set(everything(data).values()) == {t.replace("-", "") for t in [*aligned, *texts]}
    assert said(data, "12 of 24", "removed")
    assert said(open_data(drawn(12, 8, 9, letters="ACGT")), "nucleotides")


# Sites of a background


def test_sites_of_whole_sequences(tmp_path):
    assert decode(consensus(encode(["ACD", "ACE", "GCE"], 3))[None]) == ["ACE"]
    rng = np.random.default_rng(0)
    sites = (3, 10, 24)
    texts = []
    for _ in range(40):
        whole = list(PARENT)
        for site in sites:
            whole[site - 1] = str(rng.choice(list("ACD")))
        texts.append("".join(whole))
    data = opened(texts, sites=sites)
    assert (data.spec.shape, data.spec.sites) == ((3,), (2, 9, 23))
    assert set(everything(data).values()) == set(texts)
    for i in range(24):
        if i + 1 not in sites:
            assert data.spec.background[i] == PARENT[i]
    short = ["".join(text[s - 1] for s in sites) for text in texts]
    wild = "Y".join(["AC", PARENT[3:9], PARENT[10:23], ""])
    for background in (wild, fasta(tmp_path / "b.fasta", [wild])):
        again = opened(short, sites=sites, background=str(background))
        assert everything(again) == everything(data)
        assert again.spec.background == wild
        np.testing.assert_array_equal(again.train.values, data.train.values)
    # A model of sites reads whole sequences and residues alike, and writes both.
    rows = read_examples(texts, data.spec)
    np.testing.assert_array_equal(rows, read_examples(short, data.spec))
    assert sites_of(rows, data.spec) == short
    assert sites_of(np.array([[1, 0, 0]]), data.spec) == ["A--"]
    ended = to_strings(np.array([[1, 0, 0]]), data.spec)[0]
    assert (ended[2] + ended[9] + ended[23], len(ended)) == ("A--", 24)


# Splits


def test_splits_by_files_and_by_columns(tmp_path):
    texts = drawn(40, 6, 9)
    for name, part in (("x-train", texts[:20]), ("x-dev", texts[20:28]), ("x-test", texts[28:])):
        table(tmp_path / f"{name}.csv", {"sequence": part})
    data = open_data(tmp_path)
    assert [len(p) for p in (data.train, data.validation, data.test)] == [20, 8, 12]
    assert to_strings(data.test.values, data.spec) == texts[28:]
    assert data.test.ids[0] == "test/0"
    joined = opened(tmp_path, split="random")
    assert len(joined.train) == 32
    assert said(joined, "joined")
    values = ["train"] * 20 + ["Valid"] * 8 + ["test"] * 10 + ["", ""]
    for name, options in (("split", {}), ("fold", {"split_column": "fold"})):
        path = table(tmp_path.parent / f"{name}.csv", {"sequence": texts, name: values})
        data = opened(path, **options)
        assert [len(p) for p in (data.train, data.validation, data.test)] == [20, 8, 10]
        assert to_strings(data.train.values, data.spec) == texts[:20]
        assert said(data, "2 of 40 records name no split")
    path = table(tmp_path.parent / "two.csv", {"sequence": texts, "split": ["train"] * 30 + ["test"] * 10})
    assert [len(p) for p in (lambda d: (d.train, d.validation, d.test))(open_data(path))] == [27, 3, 10]


def overlapping(x, y):
    """Identity with one gap, by trying every place."""
    x, y = sorted((x, y), key=len)
    d = len(y) - len(x)
    counts = [
        sum(a == y[i if i < c else i + d] for i, a in enumerate(x))
        for c in range(len(x) + 1)
    ]  # fmt: skip
    return max(counts) / len(y)


def related(n, seed=0):
    """Sequences that descend from few, by substitutions, deletions and insertions."""
    rng = np.random.default_rng(seed)
    roots = drawn(6, 10, 14, seed, "ACDE")
    texts = []
    for _ in range(n):
        text = list(rng.choice(roots))
        for _ in range(rng.integers(0, 4)):
            text[rng.integers(len(text))] = str(rng.choice(list("ACDE")))
        cut = int(rng.integers(len(text)))
        piece = ["", "AC", "D"][int(rng.integers(3))]
        texts.append("".join(text[:cut]) + piece + "".join(text[cut + int(rng.integers(0, 3)) :]))
    return texts


def test_identity_is_the_best_place_of_one_gap():
    texts = related(60)
    rows = encode(texts, 20)
    longest = sorted(range(60), key=lambda i: -len(texts[i]))
    for place, i in enumerate(longest):
        before = longest[: place + 1] if place % 2 else longest  # whichever is longer
        found = identities(rows[i], rows[before])
        np.testing.assert_allclose(found, [overlapping(texts[i], texts[j]) for j in before])
    inserted = encode(["ACDEFGHIKL", "ACDWWEFGHIKL"], 12)
    assert identities(inserted[0], inserted[1:]) == pytest.approx(10 / 12)  # all but what was inserted


@pytest.mark.parametrize("threshold", [0.55, 0.8, 0.9, 1.0])
def test_clusters_are_those_of_the_greedy_rule(threshold):
    texts = related(120)
    found = clusters(encode(texts, 20), threshold)
    representatives, label = [], {}
    for i in sorted(range(120), key=lambda i: (-len(texts[i]), texts.index(texts[i]))):
        alike = [k for k, r in enumerate(representatives) if overlapping(texts[i], r) >= threshold - 1e-9]
        label[i] = alike[0] if alike else len(representatives)
        if not alike:
            representatives.append(texts[i])
    assert [label[i] for i in range(120)] == found.tolist()


def test_clusters_of_long_sequences_count_beyond_a_byte():
    rng = np.random.default_rng(0)
    parent = rng.integers(1, 21, 300).astype(np.uint8)
    rows = np.tile(parent, (3, 1))
    rows[1, :30] = parent[:30] % 20 + 1  # 90 % alike: 270 positions
    rows[2, :31] = parent[:31] % 20 + 1
    assert clusters(rows, 0.9).tolist() == [0, 0, 1]


@pytest.mark.parametrize("identity", [0.6, 0.75, 0.9])
def test_who_is_alike_somebody_against_brute_force(identity):
    texts, others = related(100)[:60], related(100)[60:]
    found = near(encode(texts, 20), encode(others, 20), identity)
    assert found.tolist() == [any(overlapping(a, b) >= identity - 1e-9 for b in others) for a in texts]
    assert 0 < found.sum() <= 60


def test_clusters_that_touch_are_said_and_dropped():
    """All variants of one parent with up to three changes: whoever founds the clusters, their members are alike."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(300):
        text = list("ACDEFGHIKLMNPQRSTVWY")
        for place in rng.permutation(20)[: rng.integers(1, 4)]:
            text[place] = str(rng.choice(list("ACDEFGHIKLMNPQRSTVWY")))
        texts.append("".join(text))
    options = {"split": "clusters", "identity": 0.9, "test_fraction": 0.2}
    data = opened(texts, **options)
    train, test = [to_strings(p.values, data.spec) for p in (data.train, data.test)]
    alike = np.array([any(overlapping(a, b) >= 0.9 - 1e-9 for b in train) for a in test])
    assert 0.5 < alike.mean() < 1
    share = f"{alike.mean():.0%} of test sequences are alike a training sequence of another cluster"
    assert said(data, f"Clusters touch: {share}")
    apart = opened(texts, overlap="drop", **options)
    assert to_strings(apart.test.values, apart.spec) == [a for a, one in zip(test, alike, strict=True) if not one]
    assert said(apart, f"{alike.sum()} of {len(test)} test sequences were alike a training sequence of another cluster")
    with pytest.raises(
        DataError, match=r"all \d+ validation sequences are alike a training sequence of another cluster"
    ):
        opened(texts, split="clusters", identity=0.85, test_fraction=0.2, overlap="drop")


def test_whole_clusters_go_to_one_split():
    roots = drawn(30, 20, 20)
    texts = [root[:i] + "W" + root[i + 1 :] for root in roots for i in range(10)]
    data = opened(texts, split="clusters", identity=0.8, test_fraction=0.2)
    sets = [
        {root for root, row in zip(np.repeat(roots, 10), texts, strict=True) if row in part}
        for part in (set(to_strings(p.values, data.spec)) for p in (data.train, data.validation, data.test))
    ]
    assert sum(map(len, sets)) == len(set().union(*sets)) == 30
    assert [len(p) for p in (data.validation, data.test)] == [30, 60]
    assert said(data, "30 clusters at identity 0.8")
    again = opened(texts, split="clusters", test_fraction=0.2)
    other = opened(texts, split="clusters", test_fraction=0.2, seed=1)
    assert again.test.ids == data.test.ids != other.test.ids


def test_training_has_few_mutations(tmp_path):
    assert mutations(encode(["ACD", "ACE", "CAE"], 3), encode(["ACD"], 3)[0]).tolist() == [0, 1, 3]
    rng = np.random.default_rng(0)
    texts = [PARENT]
    for _ in range(80):
        text = list(PARENT)
        for i in rng.permutation(24)[: rng.integers(1, 5)]:
            text[i] = RESIDUES[(RESIDUES.index(text[i]) + 1) % 20]
        texts.append("".join(text))
    count = {text: sum(a != b for a, b in zip(text, PARENT, strict=True)) for text in texts}
    for options in ({}, {"parent": PARENT}, {"parent": str(fasta(tmp_path / "p.fasta", [PARENT]))}):
        data = opened(texts, split="mutations", max_mutations=2, **options)
        for part, few in ((data.train, True), (data.validation, True), (data.test, False)):
            assert {count[t] <= 2 for t in to_strings(part.values, data.spec)} == {few}
        assert len(everything(data)) == 81
    sites = opened(texts, sites=range(1, 25), background=PARENT, split="mutations", max_mutations=1)
    assert {count[t] <= 1 for t in to_strings(sites.test.values, sites.spec)} == {False}


def test_sequences_that_training_has_too(tmp_path):
    texts = drawn(40, 6, 9)
    parts = {"train": [*texts[:20], texts[0]], "validation": texts[18:26], "test": [*texts[24:38], texts[0]]}
    for name, part in parts.items():
        table(tmp_path / f"{name}.csv", {"sequence": part, "y": np.arange(len(part)) / 7})
    kept = open_data(tmp_path)
    assert [len(p) for p in (kept.train, kept.validation, kept.test)] == [21, 8, 15]
    assert said(kept, "1 of 21 training sequences repeat")
    assert said(kept, "2 of 8 validation sequences", "overlap drop")
    assert said(kept, "3 of 15 test sequences", "overlap drop")
    dropped = opened(tmp_path, overlap="drop")
    assert [len(p) for p in (dropped.train, dropped.validation, dropped.test)] == [21, 6, 12]
    assert to_strings(dropped.test.values, dropped.spec) == texts[26:38]
    np.testing.assert_allclose(dropped.test.labels["y"], np.arange(2, 14) / 7)
    assert len(opened(tmp_path, limit=5).train) == 5


# Known sets


def test_known_sets_from_their_files(tmp_path, monkeypatch):
    monkeypatch.setenv("DILED_DATA", str(tmp_path))
    assert "gifford-cdr3-train.csv.gz" in {name: where for name, _, where in known_sets()}["gifford"]
    texts = drawn(30, 8, 12)
    padded = [f"JJ{text}".ljust(20, "J") for text in texts]
    y = [i / 30 for i in range(30)]
    table(tmp_path / "gifford-cdr3-train.csv.gz", {"CDR3": padded[:22], "enrichment": y[:22]})
    table(tmp_path / "gifford-cdr3-test.csv.gz", {"CDR3": padded[22:], "enrichment": y[22:]})
    data = open_data("gifford")
    assert to_strings(data.test.values, data.spec) == texts[22:]
    assert (len(data.train), len(data.validation), list(data.spec.labels)) == (20, 2, ["enrichment"])
    short = drawn(30, 4, 4)
    columns = {"variant": short, "fitness": y, "hamming": range(30)}
    columns |= {
        "relso_split": ["train"] * 20 + ["test"] * 10,
        "flip_low_vs_high": ["train"] * 12 + ["test"] * 8 + [""] * 10,
    }
    table(tmp_path / "gb1-four-sites.csv.gz", columns)
    data = open_data("gb1")
    assert (len(data.test), data.spec.sites, data.spec.background) == (10, (38, 39, 40, 53), GB1)
    assert "".join(GB1[site] for site in data.spec.sites) == "VDGV"
    assert list(data.spec.labels) == ["fitness"]
    flip = opened("gb1", split_column="flip_low_vs_high")
    assert sites_of(flip.test.values, flip.spec) == short[12:20]
    assert len(opened("gb1", split="random", test_fraction=0.2).test) == 6
    table(
        tmp_path / "gfp-fluorescence.csv.gz",
        {"sequence": texts, "log_fluorescence": y, "relso_split": columns["relso_split"]},
    )
    assert (len(open_data("gfp").test), list(open_data("gfp").spec.labels)) == (10, ["log_fluorescence"])
    assert {name: where for name, _, where in known_sets()}["gfp"] == f"found in {tmp_path}"


# A trained model


def test_examples_in_every_form(tmp_path):
    spec, texts = protein_spec(9), drawn(6, 4, 9)
    rows = encode(texts, 9)
    table(tmp_path / "a.csv", {"name": [f"n{i}" for i in range(6)], "seq": texts})
    fasta(tmp_path / "a.fasta", texts)
    (tmp_path / "a.txt").write_text("\n".join(texts))
    np.save(tmp_path / "a.npy", rows)
    np.savez(tmp_path / "a.npz", x=rows)
    for name, first in (("a.csv", "n0"), ("a.fasta", "s0"), ("a.txt", "0"), ("a.npy", "0"), ("a.npz", "0")):
        values, names = read_named_examples(tmp_path / name, spec)
        np.testing.assert_array_equal(values, rows)
        assert (names[0], values.dtype) == (first, np.uint8)
        np.testing.assert_array_equal(read_examples(str(tmp_path / name), spec), rows)
    both = read_named_examples([tmp_path / "a.csv", texts[0], rows[1]], spec)
    np.testing.assert_array_equal(both[0], rows[[*range(6), 0, 1]])
    for inputs in (texts, tuple(texts), np.array(texts), rows, rows.astype(np.int64), rows.tolist()):
        np.testing.assert_array_equal(read_examples(inputs, spec), rows)
    np.testing.assert_array_equal(read_examples(texts[0], spec), rows[:1])
    np.testing.assert_array_equal(read_examples(rows[0], spec), rows[:1])
    np.testing.assert_array_equal(read_examples(rows[:, :4], protein_spec(9))[:, 4:], np.zeros((6, 5)))
    assert to_strings(from_strings(["A1CDEFGHIKLM"], spec, convert=True), spec) == ["AXCDEFGHI"]
    assert to_strings(from_strings(["A-C", "A--CDEFGH"], spec), spec) == ["AC", "A--CDEFGH"]


def test_what_is_written_is_read_again(tmp_path):
    texts = drawn(5, 90, 100)
    for spec, rows in ((protein_spec(100), encode(texts, 100)), (open_data_sites(), encode(["AC", "DE"], 2))):
        for ending in ("fasta", "fa", "csv", "txt", "npy", "npz"):
            out = tmp_path / f"{spec.numel}.{ending}"
            check_out(out, spec)
            write_examples(rows, spec, out, ids=[f"n{i}" for i in range(len(rows))])
            values, names = read_named_examples(out, spec)
            np.testing.assert_array_equal(values, rows)
            assert names[0] == ("n0" if ending in ("fasta", "fa", "csv") else "0")
    with (tmp_path / "2.csv").open() as file:
        assert list(csv.reader(file)) == [["id", "sequence", "sites"], ["n0", "MAKC", "AC"], ["n1", "MDKE", "DE"]]
    codes = np.array([[0.1, -2], [3, 1e-9]], np.float32)
    with write_codes(codes, ["a", "b"], tmp_path / "c.csv").open() as file:
        head, *body = csv.reader(file)
    assert (head, [row[0] for row in body]) == (["id", "z0", "z1"], ["a", "b"])
    np.testing.assert_array_equal(np.array([row[1:] for row in body], np.float32), codes)


def open_data_sites():
    """Two sites of a background of four."""
    return protein_spec(2, background="MWKW", sites=(1, 3))


def test_a_run_on_a_table(tmp_path, capsys):
    texts = drawn(40, 5, 9)
    path = table(tmp_path / "variants.csv", {"heavy": texts, "fitness": np.linspace(0, 1, 40)})
    run = tmp_path / "run"
    small = ["--model.network.width", 8, "--model.network.depth", 1, "--model.latent_dim", 2, "--training.steps", 2]
    small += ["--training.batch_size", 8, "--report", "false", "--device", "cpu"]
    assert diled("train", path, "--model", "vae", "--out", run, "--preprocess.sequence.column", "heavy", *small) == 0
    capsys.readouterr()
    assert diled("sample", run, "--n", 3, "--draw") == 0
    printed = capsys.readouterr().out.split("\n")[:-1]
    model = package.load(run, device="cpu")
    assert printed == model.strings(model.sample(3, draw=True))
    assert diled("reconstruct", run, texts[0], "--out", tmp_path / "r.fasta") == 0
    assert diled("encode", run, tmp_path / "variants.csv", "--out", tmp_path / "c.csv") == 0
    assert (tmp_path / "c.csv").read_text().count("\n") == 41
    capsys.readouterr()
    assert diled("interpolate", run, texts[0], texts[1], "--steps", 3) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert diled("search", run, texts[3], "--k", 1) == 0
    assert capsys.readouterr().out.startswith("3 (0)")
    other = fasta(tmp_path / "other.fasta", drawn(12, 4, 6, seed=1))  # has no column 'heavy', and is shorter
    assert data_of(run, other, model).spec.shape == model.spec.shape
    assert diled("data", path, "--preprocess.sequence.column", "heavy") == 0
    assert "24 symbols" in capsys.readouterr().out


def test_data_are_divided_as_in_training_under_any_name(tmp_path, monkeypatch, capsys):
    """By a column: a relative path, a copy, and a loaded model or one saved elsewhere in place of its run."""
    texts = drawn(40, 5, 9)
    parts = ["test", "validation", *["train"] * 6] * 5
    path = table(tmp_path / "variants.csv", {"heavy": texts, "light": texts[::-1], "part": parts})
    columns = ["--preprocess.sequence.column", "heavy", "--preprocess.sequence.split_column", "part"]
    small = ["--model.network.width", 8, "--model.network.depth", 1, "--model.latent_dim", 2, "--training.steps", 2]
    small += ["--training.batch_size", 8, "--report", "false", "--device", "cpu"]
    assert diled("train", path, "--model", "vae", "--out", tmp_path / "run", *columns, *small) == 0
    held_out = texts[::8]
    model = package.load(tmp_path / "run", device="cpu")
    copy = tmp_path / "copy.csv"
    copy.write_bytes(Path(path).read_bytes())
    model.save(tmp_path / "saved")
    saved = package.load(tmp_path / "saved", device="cpu")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    for run in (tmp_path / "run", model, saved):
        for data in (None, path, "variants.csv", copy):
            assert model.strings(data_of(run, data, run if run is saved else model).test.values) == held_out, (
                run,
                data,
            )
    assert not capsys.readouterr().err
    older = tmp_path / "run" / "provenance.json"  # which said nothing of it
    older.write_text(json.dumps({k: v for k, v in json.loads(older.read_text()).items() if k in ("data", "seed")}))
    old = package.load(tmp_path / "run", device="cpu")
    assert old.strings(data_of(old, "copy.csv", old).test.values) == held_out
    table(copy, {"heavy": texts, "light": texts, "part": parts[::-1]})
    assert model.strings(data_of(model, copy, model).test.values) != held_out
    assert (
        "test split of copy.csv is not the one that was held out when the model was trained" in capsys.readouterr().err
    )


def test_sequences_of_a_synthetic_set_keep_their_meaning(tmp_path):
    spec = open_data_sites()
    rows = np.random.default_rng(0).integers(1, 21, (40, 2)).astype(np.uint8)
    (tmp_path / "train.parquet").write_bytes(encoded(rows[:30], 0, spec))
    (tmp_path / "test.parquet").write_bytes(encoded(rows[30:], 30, spec))
    data = open_data(tmp_path)
    assert data.spec.model_copy(update={"labels": {}}) == spec
    np.testing.assert_array_equal(data.test.values, rows[30:])
    assert len(opened(tmp_path, split="clusters", test_fraction=0.5).test) == 20


def test_a_model_of_sites_writes_whole_sequences():
    model = package.model.Model(Profile(2, 24), open_data_sites())
    assert model.strings(encode(["AC"], 2)) == ["MAKC"]
    with pytest.raises(DataError, match="at position 1"):
        read_examples("VAKC", model.spec)
