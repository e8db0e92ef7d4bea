"""What goes wrong with protein sequences in a user's hands: one sentence each, with the record, the fault and the way out."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError
from test_proteins_data import PARENT, drawn, everything, fasta, opened, said, table
from tiny import diled

from diled.arguments import data_of
from diled.config import DataSpec, SequenceConfig
from diled.data import from_strings, open_examples, read_examples, to_strings
from diled.data.proteins import encode, protein_spec, ungapped
from diled.errors import ConfigError, DataError, DataWarning
from diled.model import Model
from diled.models.exact_sequences import Profile
from diled.output import check_out
from diled.runs import resolve

GOOD = drawn(20, 6, 9)
SPEC = protein_spec(9)
SITES = protein_spec(2, background="MWKW", sites=(1, 3))


def refused(source, *words, **options):
    """`source` is refused in one sentence of a readable length that has all the words."""
    with pytest.raises(DataError) as caught:
        opened(source, **options)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    assert "\n" not in message
    assert len(message) < 700


def faulty(path, texts, **more):
    """A table of sequences with ids, of which some are faulty."""
    return table(path, {"id": [f"p{i}" for i in range(len(texts))], "sequence": texts} | more)


# Records


@pytest.mark.parametrize("cell", ["nan", "NaN", "None", "N/A", "null", "NULL", None])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_missing_sequence_is_no_peptide(tmp_path, cell, ending):
    """NA is one: Asn-Ala."""
    columns = {"sequence": [*GOOD[:5], cell, "NA", *GOOD[5:]]}
    path = tmp_path / f"a.{ending}"
    if ending == "csv":
        table(path, columns)
    else:
        pq.write_table(pa.table(columns), path)
    where, fault = "line 7" if ending == "csv" else "row 5", f"holds '{cell}', which stands for a missing value"
    refused(path, where, fault if cell else "is empty", "--preprocess.on_error skip")
    data = opened(path, on_error="skip")
    assert set(everything(data).values()) == {*GOOD, "NA"}
    with pytest.raises(DataError, match="missing value" if cell else "is empty"):
        read_examples(path, data.spec)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ACD1F", ("'1' at position 4", "no amino acid")),
        ("JJACDJFJ", ("'J' at position 6", "at their ends")),
        ("AC.D", ("'.' at position 3", "at their ends")),
        ("AC DE", ("a space at position 3",)),
        ("ACDÄ", ("'Ä' at position 4",)),
        ("", ("is empty",)),
        ("JJJ", ("is empty",)),
    ],
)
def test_a_fault_is_named_or_left_out(tmp_path, text, words):
    texts = [*GOOD[:5], text, *GOOD[5:]]
    refused(faulty(tmp_path / "a.csv", texts), "a.csv, line 7 (p5)", *words, "--preprocess.on_error skip")
    if " " not in text:  # FASTA may have spaces within a sequence
        refused(fasta(tmp_path / "a.fasta", texts), "a.fasta, line 11 (s5)", *words)
    refused(texts, "Item 5 of the list", *words)
    data = opened(tmp_path / "a.csv", on_error="skip")
    assert everything(data) == {f"p{i}": t for i, t in enumerate(texts) if i != 5}
    assert said(data, "1 of 21 records were left out", "line 7 (p5)")


def test_all_faults_are_counted_and_some_named(tmp_path):
    texts = [*GOOD, "", "A1", "", "A2"]
    refused(faulty(tmp_path / "a.csv", texts), "line 22 (p20) is empty (3 more: a.csv, line 23 (p21), a.csv, line 24")
    assert said(opened(tmp_path / "a.csv", on_error="skip"), "4 of 24 records")
    refused(["A1", "B2"] * 10, "no sequence that can be read", on_error="skip", kind="protein")
    refused([*GOOD, "--"], "Item 20 of the list is empty")


def test_lengths_that_do_not_fit(tmp_path):
    refused([*GOOD, "A" * 30], "Item 20 of the list has 30 symbols", "max_length 9", max_length=9)
    data = opened([*GOOD, "A" * 30], max_length=9, on_error="skip")
    assert data.spec.shape == (9,)
    assert said(data, "1 of 21 records were left out")
    refused(GOOD, "longer than 2", max_length=2, on_error="skip")


# Sites


def test_sites_that_do_not_fit(tmp_path):
    texts = [PARENT[:2] + r + PARENT[3:] for r in "ACDEFGHIKLMN"]
    odd = PARENT[:5] + "W" + PARENT[6:]
    refused([*texts, odd], "Item 12", "'W' at position 6", "the others have 'G'", sites=(3,))
    refused([*texts, odd], "the background has", sites=(3,), background=odd)
    refused([*texts, PARENT[:9]], "Item 12", "9 residues, where 24 are wanted", sites=(3,))
    refused(texts, "no site 30", "24 residues", sites=(3, 30))
    refused([t[2:4] for t in texts], "no site 9", "2 residues", "--preprocess.sequence.background", sites=(3, 9))
    refused(texts, "has '1' at position 3", sites=(3,), background="AC1D")
    refused(texts, "holds 2 sequences", sites=(3,), background=str(fasta(tmp_path / "b.fasta", texts[:2])))
    assert len(everything(opened([*texts, odd], sites=(3,), on_error="skip"))) == 12


# Files and columns


def test_damaged_files(tmp_path):
    for name, content, words in (
        ("a.fasta", b"", ("is empty", "'>'")),
        ("b.fasta", b"ACD\n>a\nACD\n", ("line 1", "begin with a line of '>'")),
        ("c.fasta", b"\xff\xfe\x00", ("no text",)),
        ("d.fa.gz", b"no gzip", ("cannot be read",)),
        ("e.fa.gz", gzip.compress(b">a\n" + b"ACDW" * 999)[:-20], ("cannot be read",)),
        ("f.csv", b"", ("is empty",)),
        ("g.csv", b"sequence\n", ("no rows",)),
        ("h.csv", b"sequence,y\nACD,1\nACD\n", ("line 3 has 1 columns", "header has 2")),
        ("i.csv", b"ACDEFGHIKL,1\nACDEFGHIKV,2\n", ("no line of column names", "ACDEFGHIKL")),
        ("j.csv", b"sequence,sequence\nA,C\n", ("two columns 'sequence'",)),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, name, *words)


def test_columns_that_are_unclear(tmp_path):
    two = table(tmp_path / "two.csv", {"heavy": GOOD, "light": GOOD, "y": range(20)})
    refused(two, "several columns", "heavy, light", "--preprocess.sequence.column")
    refused(two, "no column 'hevy'", "Did you mean 'heavy'?", column="hevy")
    refused(two, "'y'", "numbers", column="y")
    refused(two, "no column 'nom'", column="heavy", id_column="nom")
    refused(two, "no column 'spilt'", "split_column", column="heavy", split_column="spilt")
    refused(two, "'y'", "names no split", column="heavy", split_column="y")
    refused(table(tmp_path / "n.csv", {"x": range(20)}), "no column of protein sequences", "x")
    text = table(tmp_path / "text.csv", {"text": ["the food was good"] * 20, "label": [0, 1] * 10})
    refused(text, "only 1 different of 20 texts")
    refused(text, "a space at position 4", kind="protein")
    refused(fasta(tmp_path / "a.fasta", GOOD), "no columns", "column", column="seq")
    pq.write_table(pa.table({"a": GOOD, "b": GOOD}), tmp_path / "two.parquet")
    refused(tmp_path / "two.parquet", "several columns", "a, b")
    pq.write_table(pa.table({"a": range(9)}), tmp_path / "none.parquet")
    refused(tmp_path / "none.parquet", "no column 'image'")


def test_numbers_that_are_none_are_said(tmp_path):
    """A word or decimal commas make text of a column of measurements; infinite values are missing ones."""
    texts, numbers = drawn(40, 6, 9), [f"{i}.5" for i in range(40)]

    def notes(values):
        data = opened(faulty(tmp_path / "a.csv", texts, fitness=values))
        return data, " ".join(data.notes)

    data, text = notes([*numbers[:6], "n.d.", *numbers[7:]])
    assert said(data, "'fitness' was read as text, since 1 of its 40 values are no numbers, such as 'n.d.' in line 8:")
    (tmp_path / "b.csv").write_text(
        "sequence;fitness\n" + "".join(f"{a};{b.replace('.', ',')}\n" for a, b in zip(texts, numbers, strict=True))
    )
    assert said(opened(tmp_path / "b.csv"), "'fitness' has decimal commas and was read as text")
    data, text = notes(["inf", "nan", "-inf", *numbers[3:]])
    assert "'fitness' is missing for 3 of 40 examples. 2 of them are infinite." in text
    y = np.concatenate([part.labels["fitness"] for part in (data.train, data.validation, data.test)])
    assert np.isnan(y).sum() == 3
    assert np.isfinite(y).sum() == 37
    for plain in (numbers, [*numbers[:20], *["x"] * 20], ["low", "1", "2", "3"] * 10):  # numbers, half words, classes
        assert "was read as text" not in notes(plain)[1]


def test_options_that_have_no_effect(tmp_path):
    refused(np.zeros((20, 3)), "--preprocess.sequence.max_length is for sequences", "vectors", max_length=3)
    refused(GOOD, "--preprocess.binarize", binarize="threshold")
    refused(GOOD, "--preprocess.size", size=3)
    for values, words in (
        ({"background": PARENT}, "'sites'"),
        ({"identity": 0.5}, "clusters"),
        ({"max_mutations": 1}, "mutations"),
        ({"parent": PARENT}, "mutations"),
        ({"split": "mutations"}, "max_mutations"),
        ({"split": "column"}, "split_column"),
        ({"split": "clusters", "split_column": "x"}, "split_column"),
        ({"sites": (3, 2)}, "increasing"),
        ({"sites": (0, 2)}, "count from 1"),
        ({"sites": (1,), "max_length": 3}, "max_length"),
        ({"padding": "A"}, "amino acid"),
    ):
        with pytest.raises(ValidationError, match=words):
            SequenceConfig(**values)
    with pytest.raises(ConfigError, match=r"preprocess.sequence.*identity"):
        resolve("digits", settings={"preprocess.sequence.identity": 2})
    assert resolve("x", settings={"preprocess.sequence.sites": "39,40"}).preprocess.sequence.sites == (39, 40)


# Splits


def test_splits_that_would_be_empty(tmp_path):
    alike = ["ACDEFGHIK" + r for r in "ACDEFGHIKLMN"]
    refused(alike, "1 clusters", "largest with 12 of 12", "identity", split="clusters")
    refused(alike, "0 to 1 mutations", "none is left for test", split="mutations", max_mutations=1)
    refused(GOOD, "of one length", "clusters", split="mutations", max_mutations=1)
    refused(alike, "3 residues", "have 10", split="mutations", max_mutations=0, parent="ACD")
    for name in ("train", "test"):
        faulty(tmp_path / f"{name}.csv", GOOD)
    refused(tmp_path, "all 20 test sequences", "none is left", overlap="drop")
    test = table(tmp_path / "only.tsv", {"seq": GOOD, "set": ["test"] * 20}, "\t")
    refused(test, "no training examples", split_column="set")


def test_known_sets_that_are_not_there(tmp_path, monkeypatch):
    for folder in (None, str(tmp_path)):
        monkeypatch.delenv("DILED_DATA", raising=False)
        if folder:
            monkeypatch.setenv("DILED_DATA", folder)
        refused("gb1", "not on this machine", "DILED_DATA", "gb1-four-sites.csv.gz")
        refused("gifford", "gifford-cdr3-train.csv.gz and gifford-cdr3-test.csv.gz")


# A trained model


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ("ACD1F", ("Sequence 1 ('ACD1F')", "'1' at position 4", "--convert")),
        (["ACD", "ACDEFGHIKLM"], ("Sequence 2", "11 symbols", "at most 9")),
        (["ACD", ""], ("Sequence 2", "is empty")),
        ("---", ("nothing but gaps",)),
        ([], ("is empty",)),
        (np.zeros((2, 3, 3), np.uint8), ("at most 9", "(2, 3, 3)")),
        (np.full((2, 9), 24), ("0 to 23", "others")),
        (np.full((2, 9), 0.5), ("0 to 23",)),
        (np.array([[1, 0, 2]]), ("row 0", "after its end")),
        ([[1, 2], [1]], ("differ in length",)),
        (Image.new("L", (3, 3)), ("is an image",)),
        ("folder/a.png", ("no file",)),
        ("missing.fasta", ("no file",)),
    ],
)
def test_examples_that_the_model_does_not_read(inputs, words):
    with pytest.raises(DataError) as caught:
        read_examples(inputs, SPEC)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_files_that_the_model_does_not_read(tmp_path):
    path = faulty(tmp_path / "a.csv", ["ACD", "AC1"])
    with pytest.raises(DataError, match=r"a.csv, line 3 \(p1\) has '1' at position 3"):
        read_examples(path, SPEC)
    two = table(tmp_path / "two.csv", {"heavy": ["ACD"] * 2, "light": ["ACE"] * 2})
    with pytest.raises(DataError, match="several columns"):
        read_examples(two, SPEC)
    assert to_strings(read_examples(two, SPEC, column="light"), SPEC) == ["ACE"] * 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no files of sequences"):
        read_examples(tmp_path / "empty", SPEC)
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="is an image"):
        read_examples(tmp_path / "a.png", SPEC)
    (tmp_path / "a.pkl").write_bytes(b"x")
    with pytest.raises(DataError, match="refused"):
        read_examples(tmp_path / "a.pkl", SPEC)
    with pytest.raises(DataError, match=r"'V' at position 1.*'M'"):
        from_strings(["VAKC"], SITES)
    with pytest.raises(DataError, match="whole sequences of 4, or the residues of its 2 sites"):
        from_strings(["VAK"], SITES)


def test_records_that_the_model_does_not_read_are_left_out(tmp_path):
    """Those that are left keep their ids and their measurements; a list with files is counted as a whole."""
    texts = [GOOD[0], "AC1", GOOD[1], "", "ACDEFGHIKLM", GOOD[2]]
    path = faulty(tmp_path / "a.csv", texts, fitness=[0.5, 1.5, "", 3.5, 4.5, 5.5])
    with pytest.raises(DataError, match=r"line 3 .* \(2 more: .*\)\. To leave out what cannot be read: --skip\.$"):
        open_examples(path, SPEC, option="--skip")
    with pytest.raises(DataError, match=r"\(2 more: .*, line 6 \(p4\)\)\.$"):
        open_examples(path, SPEC)
    said = r"3 of 6 records were left out: .*line 3 \(p1\) has '1' .*line 5 \(p3\) is empty; .*line 6 \(p4\) has 11 symbols"
    with pytest.warns(DataWarning, match=said):
        found = open_examples(path, SPEC, skip=True)
    assert (to_strings(found.values, SPEC), found.ids) == (GOOD[:3], ["p0", "p2", "p5"])
    np.testing.assert_array_equal(found.labels["fitness"], [0.5, np.nan, 5.5])
    with pytest.warns(DataWarning, match=r"4 of 8 records .*Sequence 2 \('\?'\)"):
        mixed = open_examples([path, "?", encode(GOOD[3:5], 9), GOOD[5]], SPEC, skip=True)
    assert to_strings(mixed.values, SPEC) == [*GOOD[:3], *GOOD[3:6]]
    assert mixed.ids == ["p0", "p2", "p5", "7", "8", "9"]
    with pytest.raises(DataError, match=r"None of 2 records can be read: Sequence 1 \('1'\) has '1' at position 1"):
        open_examples(["1", "2"], SPEC, skip=True)


def test_what_cannot_be_written(tmp_path):
    for name, words in (("a.png", ".fasta"), ("a", ".csv"), ("a.parquet", ".txt")):
        with pytest.raises(ConfigError, match=words):
            check_out(tmp_path / name, SPEC)
    image = DataSpec(kind="image", shape=(1, 2, 2), levels=256)
    with pytest.raises(ConfigError, match="no ending"):
        check_out(tmp_path / "a.fasta", image)
    with pytest.raises(DataError, match="are images"):
        to_strings(np.zeros((1, 4), np.uint8), image)
    with pytest.raises(DataError, match="not sequences"):
        from_strings(["ACD"], image)
    with pytest.raises(DataError, match="Rows of 9"):
        to_strings(encode(["ACD"], 3), SPEC)
    with pytest.raises(DataError, match="0 to 23"):
        to_strings(np.full((1, 9), 24), SPEC)


def test_the_command_line_says_so_in_one_line(tmp_path, capsys):
    path = faulty(tmp_path / "a.csv", [*GOOD, "A1"])
    assert diled("data", path) == 2
    assert capsys.readouterr().err.startswith("diled: a.csv, line 22 (p20) has '1' at position 2")
    assert diled("data", path, "--preprocess.sequence.split", "cluster") == 2
    assert "clusters" in capsys.readouterr().err
    assert diled("data", path, "--preprocess.on_error", "skip", "--preprocess.sequence.padding", "J") == 0
    refused(["A.C"] * 20, "'.' at position 2", "no amino acid", padding="J", kind="protein")


# Files are read as the training data were


def test_a_named_column_and_filling_go_with_the_model(tmp_path):
    """What was said of the training file is not asked again, nor is another column taken in silence."""
    mutants = drawn(60, 6, 6)
    columns = {
        "sequence": ["WWWWWW"] * 60,
        "mutant": [f"{text}__" for text in mutants],
        "key": [f"k{i}" for i in range(60)],
    }
    path = table(tmp_path / "a.csv", columns)
    data = opened(path, column="mutant", padding="_", id_column="key")
    assert data.spec.reading == {"column": "mutant", "padding": "_", "id_column": "key"}
    again = DataSpec.model_validate_json(data.spec.model_dump_json())
    found = open_examples(path, again)
    assert dict(zip(found.ids, to_strings(found.values, again), strict=True)) == everything(data)
    assert to_strings(open_examples(path, again, column="sequence").values[:1], again) == ["WWWWWW"]
    other = table(tmp_path / "b.csv", {"sequence": mutants[:20]})
    assert to_strings(read_examples(other, again), again) == mutants[:20], (
        "a file without that column is looked through"
    )
    assert to_strings(read_examples(fasta(tmp_path / "c.fa", mutants[:3]), again), again) == mutants[:3]
    assert "reading" not in opened(other).spec.model_dump()


@pytest.mark.parametrize("name", ["variant", "sequence", "protein"])
def test_a_customary_name_does_not_make_a_column_of_sequences(tmp_path, name):
    """A10V is no sequence; one wild type, or names of genes, beside many different sequences are none of the records'."""
    mutants = drawn(60, 6, 6)
    cells = {"variant": [f"A{i}V" for i in range(60)], "sequence": ["WKWKWK"] * 60, "protein": ["GAPDH", "SPIKE"] * 30}[
        name
    ]
    path = table(tmp_path / "a.csv", {name: cells, "mutated_seq": mutants})
    data = opened(path)
    assert set(everything(data).values()) == set(mutants)
    assert to_strings(read_examples(path, data.spec), data.spec) == mutants


def test_a_faulty_column_of_sequences_is_no_reason_for_another(tmp_path):
    """Three of ten records are wrong, and names of genes fit."""
    texts = [f"{text}1" if i % 10 < 3 else text for i, text in enumerate(drawn(60, 6, 6))]
    path = table(tmp_path / "a.csv", {"sequence": texts, "gene": ["gapdh", "spike"] * 30})
    refused(path, "line 2", "has '1' at position 7", kind="protein")


@pytest.mark.parametrize(
    "names", [("SEQUENCE", "FITNESS"), ("CDR3", "ENRICHMENT"), ("VARIANTS", "STABILITY"), ("ID", "PEPTIDES")]
)
def test_names_of_columns_in_capitals(tmp_path, names):
    """All of them are spelt with amino acids."""
    values = [round(0.5 + i, 1) for i in range(20)] if names[0] != "ID" else GOOD
    data = opened(table(tmp_path / "a.csv", {names[0]: GOOD if names[0] != "ID" else range(20), names[1]: values}))
    assert set(everything(data).values()) == set(GOOD)
    assert list(data.spec.labels) == ([] if names[0] == "ID" else [names[1]])


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_the_index_of_a_data_frame_is_no_property(tmp_path, name):
    rows = np.random.default_rng(0).permutation(40)[:20]
    columns = {name: rows.tolist(), "sequence": GOOD, "fitness": [0.5 * i for i in range(20)]}
    path = table(tmp_path / "a.csv", columns)
    if name.startswith("__"):
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table(columns), path)
    assert list(opened(path).spec.labels) == ["fitness"]
    columns[name] = [0.5 * i for i in range(20)]
    assert name in opened(table(tmp_path / "b.csv", columns)).spec.labels, "real numbers are no index"


def test_gaps_at_inference_are_those_of_training(tmp_path):
    """Of an alignment they stay, whatever length is allowed; a model of sequences without gaps gets none."""
    texts = ["-" + text[1:] if i % 3 else text for i, text in enumerate(drawn(30, 8, 8))]
    path = table(tmp_path / "a.csv", {"sequence": texts})
    data = opened(path, max_length=10)
    assert (data.spec.aligned, data.spec.shape) == (True, (8,))
    assert to_strings(read_examples(path, data.spec), data.spec) == texts
    rows = encode(["A-C-D", "--K", "ACDEF"], 6)
    assert to_strings(ungapped(rows), protein_spec(6)) == ["ACD", "K", "ACDEF"]
    without = protein_spec(8).model_copy(update={"aligned": False})
    model = Model(Profile(8, 24), without, provenance={"data": "none"})
    place = data_of(model, path, model)
    assert set(everything(place).values()) == {text.replace("-", "") for text in texts}
    assert not place.spec.aligned
