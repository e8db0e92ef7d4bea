"""The audit around its sections: what a cell depends on, which models are compared, and who generalizes best."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import diled, small, train_any

from diled import auditing
from diled.api import Density
from diled.auditing import USES, Subject, audit_folder, audit_models, examples_of, subjects_of
from diled.config import DataSpec, PoolConfig
from diled.data import Data, Split, open_data, synthesis
from diled.errors import ConfigError, DataError, ModelError, NoBound
from diled.evaluation import cells as cells_module
from diled.evaluation.audit import Effort, Section
from diled.evaluation.audit_columns import competing
from diled.evaluation.audit_page import COLUMNS, audit_table, audit_tables
from diled.evaluation.audited import (
    Audited,
    combined,
    difference,
    independent_bootstrap,
    leaders,
    undecided,
    verdict,
)
from diled.evaluation.cells import keep_section, kept_section
from diled.evaluation.measure import Measured
from diled.evaluation.tables import table_text
from diled.family import model_config
from diled.model import Model
from diled.models.zoo import build

GREY = DataSpec(kind="image", shape=(1, 2, 2), levels=256, low=0, high=255)
BOUND = Section({"bound_nats/test": Measured(3.0, 0.1, 5)}, {"test_bound": np.arange(5.0)}, ["a note"])


def split(n: int, seed: int, **labels: Any) -> Split:
    values = np.random.default_rng(seed).integers(0, 256, (n, 1, 2, 2)).astype(np.uint8)
    return Split(values, labels or {"label": np.arange(n) % 3}, [str(i) for i in range(n)])


def data_of(spec: DataSpec = GREY, *, train: int = 40, seed: int = 1) -> Data:
    return Data("squares", spec, split(train, seed), split(5, 2), split(30, 3), [])


class Greyness(Density):
    """How far values are from -1 and 1, in place of nats."""

    def terms(self, q: Any, *, exact: bool = False, progress: Any = 1.0) -> dict[str, torch.Tensor]:
        return {"nll": (1 - q.abs()).flatten(1).sum(1)}

    def sample(self, n: int, *, noise: Any = None) -> torch.Tensor:
        raise NotImplementedError


def subject(name: str = "one", identity: str = "weights", **values: Any) -> Subject:
    data = values.pop("data", None) or data_of()
    return Subject(name, torch.nn.Identity(), identity, data, **values)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sections in the order in which they are measured; each finds the same."""
    done: list[str] = []

    def section(name: str, *arguments: Any) -> Section:
        done.append(name)
        return BOUND

    monkeypatch.setattr(auditing, "audit_section", section)
    return done


def audited(folder: Path, *subjects: Subject, **options: Any) -> dict[str, Audited]:
    return audit_models(subjects, folder, **{"sections": ("bounds",), "say": lambda line: None} | options)


# Cells ---------------------------------------------------------------------------------------------------------------


def test_every_setting_of_the_effort_belongs_to_a_section():
    assert set(chain.from_iterable(USES.values())) == {field.name for field in fields(Effort)}


@pytest.mark.parametrize(
    "changed",
    [
        data_of(GREY.model_copy(update={"binarize": "threshold"})),
        data_of(GREY.model_copy(update={"levels": 17})),
        data_of(seed=7),
        replace(data_of(), train=split(40, 1, label=np.arange(40) % 2)),
        replace(data_of(), train=split(40, 1, other=np.arange(40) % 3)),
        replace(data_of(), test=replace(split(30, 3), values=split(30, 3).values.astype(np.float32))),
        replace(data_of(), test=replace(split(30, 3), values=split(30, 3).values.reshape(30, 1, 4, 1))),
    ],
    ids=["binarize", "levels", "training examples", "labels", "label column", "type", "shape"],
)
def test_a_cell_of_other_data_is_not_taken(measured, tmp_path, changed):
    audited(tmp_path, subject())
    audited(tmp_path, subject())
    assert measured == ["bounds"]
    audited(tmp_path, subject(data=changed))
    assert measured == ["bounds", "bounds"]


def test_cells_of_other_settings_stay_and_are_found_again(measured, tmp_path):
    audited(tmp_path, subject())
    audited(tmp_path, subject(), effort=Effort(samples=64))
    audited(tmp_path, subject(identity="other weights"))
    assert len(measured) == 3
    audited(tmp_path, subject(), effort=Effort(samples=64))
    found = audited(tmp_path, subject("renamed"))
    assert len(measured) == 3
    assert found["renamed"].figures == BOUND.figures
    assert np.array_equal(found["renamed"].arrays["bounds/test_bound"], np.arange(5.0))
    assert found["renamed"].notes == ["bounds: a note"]


def test_what_json_cannot_hold_is_none_with_a_note(tmp_path, monkeypatch):
    """An exact reconstruction has an infinite PSNR, now and where it is read again, also from a cell of before."""
    exact = Section({"psnr": Measured(math.inf, math.nan, 5), "rate_nats/test": Measured(1.0, math.nan, 5, "rough")})
    monkeypatch.setattr(auditing, "audit_section", lambda *arguments: exact)
    want = {"psnr": Measured(None, None, 5, "infinite"), "rate_nats/test": Measured(1.0, None, 5, "rough")}
    for _ in range(2):
        found = audited(tmp_path, subject(), sections=("codes",))
        assert found["one"].figures == want
    auditing.report_audit(found, [subject()], tmp_path)

    def refused(word: str) -> None:
        raise AssertionError(word)

    for path in (tmp_path / "audit.json", *(tmp_path / "cells").glob("*.json")):
        json.loads(path.read_text(), parse_constant=refused)
    (cell,) = (tmp_path / "cells").glob("*.json")
    cell.write_text(cell.read_text().replace('"value": null', '"value": -Infinity', 1))
    assert audited(tmp_path, subject(), sections=("codes",))["one"].figures["psnr"].note == "infinite; minus infinity"


def test_a_key_that_begins_alike_is_another_key(tmp_path):
    keep_section(tmp_path, "one", "bounds", "12345678 a", BOUND)
    assert kept_section(tmp_path, "bounds", "12345678 b") is None
    assert kept_section(tmp_path, "codes", "12345678 a") is None
    assert isinstance(kept_section(tmp_path, "bounds", "12345678 a"), Section)


def test_what_the_judge_of_samples_stops_by_belongs_to_their_key_alone():
    spec = DataSpec(kind="text", shape=(4,), symbols=("", "a", "b"), tokenizer="{}")
    one, two = (Split(np.full((5, 4), symbol), {}, list("abcde")) for symbol in (1, 2))
    both = [subject(data=Data("texts", spec, one, validation, one, [])) for validation in (one, two)]
    for name in ("bounds", "pool"):
        keys = {auditing._key(s, name, Effort(), 0, auditing._data_hash(s.data), False) for s in both}
        assert len(keys) == (2 if name == "pool" else 1)


def test_a_process_killed_between_arrays_and_record_leaves_no_cell(tmp_path, monkeypatch):
    keep_section(tmp_path, "one", "bounds", "k" * 64, BOUND)

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cells_module, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        keep_section(tmp_path, "one", "bounds", "k" * 64, Section(arrays={"test_bound": np.zeros(2)}))
    assert kept_section(tmp_path, "bounds", "k" * 64) is None


@pytest.mark.parametrize("left", [0, 10, -10])
def test_arrays_that_were_cut_short_are_no_cell(tmp_path, left):
    keep_section(tmp_path, "one", "bounds", "k" * 64, BOUND)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:left])
    assert kept_section(tmp_path, "bounds", "k" * 64) is None


def test_a_folder_that_cannot_be_written_to_is_refused_with_its_name(measured, tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ConfigError, match=r"Could not write to .*file.*: .*Choose another --out"):
        audited(tmp_path / "file", subject())
    assert not measured


@pytest.mark.parametrize(
    ("error", "times"),
    [(NoBound("none"), 1), (ModelError("none"), 2), (ConfigError("none"), 2), (DataError("none"), 2)],
)
def test_only_refusals_that_follow_from_the_key_are_kept(tmp_path, monkeypatch, error, times):
    tries: list[str] = []

    def refuse(name: str, *arguments: Any) -> Section:
        tries.append(name)
        raise error

    monkeypatch.setattr(auditing, "audit_section", refuse)
    for _ in range(2):
        assert audited(tmp_path, subject())["one"].refused == {"bounds": "none"}
    assert len(tries) == times


# Synthetic sets ------------------------------------------------------------------------------------------------------


def manifest(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    record = {"format": 1, "complete": False, "settings": {"n": 4}, "source": {"kind": "model"}, "shards": []}
    (folder / "manifest.json").write_text(json.dumps(record))


def test_a_synthetic_set_is_opened_for_its_section_only_and_refused_in_words(tmp_path, monkeypatch, measured):
    opened: list[str] = []

    class Opened:
        values = np.arange(320, dtype=np.uint8).reshape(80, 1, 2, 2)

    def open_pool(folder: str, spec: DataSpec) -> Any:
        opened.append(folder)
        return Opened

    one = subject(pool=PoolConfig(source=str(tmp_path / "pool"), folds=1))
    gone = audited(tmp_path / "a", one, sections=("bounds", "pool", "codes"))["one"]
    assert measured == ["bounds", "codes"]
    assert str(tmp_path / "pool") in gone.refused["pool"]
    manifest(tmp_path / "pool")
    assert "not finished" in audited(tmp_path / "a", one, sections=())["one"].refused["pool"]
    monkeypatch.setattr(auditing, "open_pool", open_pool)
    audited(tmp_path / "a", one, sections=("bounds", "codes"))
    assert not opened
    audited(tmp_path / "a", one, sections=("pool",))
    audited(tmp_path / "a", one, sections=("pool",))
    assert opened == [str(tmp_path / "pool")], "the second is read from its cell"
    audited(tmp_path / "a", replace(one, pool=PoolConfig(source=str(tmp_path / "pool"), folds=2)), sections=("pool",))
    assert len(opened) == 2, "another part of the set"


def test_a_synthetic_set_that_has_changed_is_not_the_one_that_was_trained_on(tmp_path, monkeypatch, measured):
    class Opened:
        values = np.arange(320, dtype=np.uint8).reshape(80, 1, 2, 2)

    monkeypatch.setattr(auditing, "open_pool", lambda folder, spec: Opened)
    manifest(tmp_path / "pool")
    trained_on = synthesis.set_hash(tmp_path / "pool")
    one = subject(pool=PoolConfig(source=str(tmp_path / "pool")), pool_sha256=trained_on)
    assert not audited(tmp_path / "a", one, sections=("pool",))["one"].refused
    changed = replace(one, pool_sha256="another")
    said = audited(tmp_path / "b", changed, sections=("bounds", "pool"))["one"].refused["pool"]
    assert "pool has changed since one was trained on it: put that set back, or train again" in said
    assert measured == ["pool", "bounds"]


def test_the_section_gets_as_many_folds_as_were_trained_on(tmp_path, monkeypatch):
    given: list[Any] = []

    class Opened:
        values = np.arange(400, dtype=np.uint8).reshape(100, 1, 2, 2)

    def section(name: str, model: Any, examples: Any, *more: Any) -> Section:
        given.append(examples.pool)
        return BOUND

    monkeypatch.setattr(auditing, "open_pool", lambda folder, spec: Opened)
    monkeypatch.setattr(auditing, "audit_section", section)
    manifest(tmp_path / "pool")
    one = subject(pool=PoolConfig(source=str(tmp_path / "pool"), folds=2))
    audited(tmp_path / "a", one, sections=("pool", "bounds"))
    assert given[1] is None
    assert len(given[0]) == 80, "2 folds of 40 examples"
    assert np.allclose((given[0].numpy() + 1) * 127.5, Opened.values[:80], atol=1e-3)


@pytest.mark.parametrize("values", ["grey", "black and white"])
def test_copies_are_found_though_each_draw_of_binarised_images_is_another(tmp_path, monkeypatch, values):
    """The set is the training examples in grey; one of two values is compared with binarised ones."""

    class Opened:
        values = np.random.default_rng(0).integers(0, 256, (200, 1, 8, 8)).astype(np.uint8)

    train, test = (Split(v, {}, [str(i) for i in range(len(v))]) for v in (Opened.values[:100], Opened.values[100:]))
    Opened.values = Opened.values[:100]
    if values == "black and white":
        Opened.values = np.where(Opened.values > 127, 255, 0).astype(np.uint8)
    spec = GREY.model_copy(update={"binarize": "dynamic", "shape": (1, 8, 8)})
    one = subject(data=Data("squares", spec, train, test, test, []), pool=PoolConfig(source=str(tmp_path / "pool")))
    monkeypatch.setattr(auditing, "open_pool", lambda folder, spec: Opened)
    examples = auditing._with_pool(one, examples_of(one, 0), 0)
    assert set(examples.pool.unique().tolist()) == {-1.0, 1.0}
    found = auditing.audit_section("pool", Greyness(), examples, Effort(), 0)
    assert (found.figures["copies"].value == 1) == (values == "grey")
    assert any("grey values" in note for note in found.notes) == (values == "grey")
    assert found.figures["entropy_offset_nats"].note == "0.0 nats on test examples", "of binarised ones"


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (None, "not known"),
        (PoolConfig(), "real examples only"),
        (PoolConfig(fresh="runs/edm"), "--pool.fresh"),
    ],
)
def test_why_there_is_no_pool_is_said_where_it_was_asked_for(measured, tmp_path, pool, said):
    one = audited(tmp_path, subject(pool=pool), sections=("pool",))["one"]
    assert said in one.refused["pool"]
    assert "pool" not in audited(tmp_path, subject(pool=pool), sections=())["one"].refused
    assert "pool" not in measured


# Which models are compared, and on what ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("binarize", "dynamic", "binarize is none for one and dynamic for two"),
        ("levels", 17, "levels is 256 for one and 17 for two"),
        ("high", 254.0, "high is 255.0 for one and 254.0 for two"),
    ],
)
def test_models_of_data_in_different_measures_are_not_compared(measured, tmp_path, key, value, said):
    other = subject("two", data=data_of(GREY.model_copy(update={key: value})))
    with pytest.raises(ConfigError, match=said):
        audited(tmp_path, subject(), other)
    assert not measured
    named = data_of(GREY.model_copy(update={"labels": {"label": ["a", "b", "c"]}, "size_policy": "crop"}))
    assert len(audited(tmp_path, subject(), subject("two", data=named))) == 2


def test_models_of_other_kinds_of_data_are_told_so(measured, tmp_path):
    spec = DataSpec(kind="text", shape=(4,), symbols=("", "a", "b"), tokenizer="{}")
    tokens = Split(np.ones((30, 4), np.int64), {}, [str(i) for i in range(30)])
    texts = Data("texts", spec, tokens, tokens, tokens, [])
    for two in ((subject(), subject("two", data=texts)), (subject("two", data=texts), subject())):
        with pytest.raises(
            ConfigError, match=r"is a model of the kind of data '(image|text)' and .* of '(text|image)': audit"
        ):
            audited(tmp_path, *two)


def test_all_models_are_attacked_on_the_same_references(tmp_path, monkeypatch):
    """Those of the first model's classes, whatever the others know of classes; alone a model has its own cell."""
    plain = replace(data_of(), **{part: replace(getattr(data_of(), part), labels={}) for part in ("train", "test")})
    other = replace(data_of(), test=replace(data_of().test, labels={"label": np.arange(30) % 2}))
    given: list[Any] = []

    def section(name: str, model: Any, examples: Any, *more: Any) -> Section:
        given.append(examples.test_labels)
        return BOUND

    monkeypatch.setattr(auditing, "audit_section", section)
    subjects = [subject(), subject("two", data=plain), subject("three", data=other)]
    audited(tmp_path / "a", *subjects, sections=("robustness",))
    assert len(given) == 3
    assert all(np.array_equal(labels, given[0]) for labels in given)
    audited(tmp_path / "a", *subjects[1:], sections=("robustness",))
    assert given[3] is given[4] is None
    audited(tmp_path / "a", subjects[2], sections=("robustness",))
    assert sorted(set(given[5])) == [0, 1]
    audited(tmp_path / "a", *subjects, sections=("robustness", "codes"))
    assert [None if labels is None else len(set(labels)) for labels in given[6:]] == [3, None, 2], (
        "probes have their own"
    )


def test_too_many_examples_and_a_name_twice_are_refused(measured, tmp_path):
    with pytest.raises(ConfigError, match=r"examples = 20,000: .* 10,000 examples of each split at most"):
        audited(tmp_path, subject(), effort=Effort(examples=20_000))
    with pytest.raises(ConfigError, match="Two models are called one"):
        audited(tmp_path, subject(), subject(identity="other"))
    assert audited(tmp_path, subject(), effort=Effort(examples=10_000))


def test_a_column_of_one_class_and_blanks_is_no_label():
    labels = {"flag": np.arange(30) % 2 - 1, "label": np.arange(30) % 3}
    data = replace(data_of(), train=split(30, 1, **labels), test=split(30, 3, **labels))
    assert sorted(examples_of(subject(data=data), 0).test_labels) == sorted(labels["label"])


def test_binarised_test_examples_are_drawn_once_and_are_the_same_beside_any_training_set(measured, tmp_path):
    dynamic = GREY.model_copy(update={"binarize": "dynamic"})
    few, many = (examples_of(subject(data=data_of(dynamic, train=n)), 0) for n in (40, 700))
    assert torch.equal(few.test, many.test)
    assert not torch.equal(few.test, examples_of(subject(data=data_of(dynamic)), 1).test)
    assert set(many.train.unique().tolist()) == {-1.0, 1.0}
    order = np.random.default_rng(0).permutation(700)
    grey = torch.from_numpy(data_of(dynamic, train=700).train.values[order] / 255).flatten()
    white = (many.train.flatten() > 0).double()
    assert (white - grey).mean().abs() < 4 * (grey * (1 - grey)).mean().sqrt() / math.sqrt(2800), "white with p = grey"
    assert torch.allclose(few.grey, torch.from_numpy(
        data_of().test.values[np.random.default_rng(0).permutation(30)] / 127.5 - 1
    ).float())  # fmt: skip
    note = audited(tmp_path, subject(data=data_of(dynamic)), seed=4)["one"].notes[0]
    assert "binarised once, with seed 4" in note
    assert not any("binarised" in note for note in audited(tmp_path, subject())["one"].notes)


@pytest.fixture(scope="module")
def namesakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for parent in ("a", "b"):
        (folder / parent).mkdir()
        assert train_any(folder / parent / "vae", "vae", steps=2) == 0
    return folder


def test_models_are_told_apart_and_none_is_taken_twice(namesakes, monkeypatch):
    monkeypatch.chdir(namesakes / "a" / "vae")
    (one,) = subjects_of(["."], None, "cpu")
    assert one.name == "vae"
    two = subjects_of([".", namesakes / "b" / "vae"], None, "cpu")
    assert [s.name for s in two] == ["a/vae", "b/vae"]
    with pytest.raises(ConfigError, match="named twice"):
        subjects_of([".", namesakes / "a" / ".." / "a" / "vae"], None, "cpu")
    with pytest.raises(ConfigError, match="theirs:make is named twice"):
        subjects_of(["theirs:make", "theirs:make"], None, "cpu")


def test_models_that_do_not_know_their_data_read_them_each_in_its_own_way():
    grey = open_data("digits").spec
    specs = [grey, grey.model_copy(update={"binarize": "threshold", "levels": 2})]
    models = [Model(build("vae", model_config("vae", small("vae")).resolved(spec), spec).model, spec) for spec in specs]
    found = subjects_of(models, "digits", "cpu")
    assert [one.data.spec.binarize for one in found] == ["none", "threshold"]
    with pytest.raises(ConfigError, match="MPS does not have"):
        subjects_of(models, "digits", "mps")


def test_loaded_models_of_one_kind_are_numbered(namesakes):
    from diled.model import load

    loaded = [load(namesakes / parent / "vae", device="cpu") for parent in ("a", "b")]
    title = loaded[0].config.row.title
    assert [s.name for s in subjects_of(loaded, "digits", "cpu")] == [f"{title} 1", f"{title} 2"]
    with pytest.raises(ConfigError, match="named twice"):
        subjects_of([loaded[0], loaded[0]], "digits", "cpu")


def test_a_path_that_is_not_there_is_no_name_of_a_function(namesakes, capsys):
    assert diled("audit", namesakes / "a" / "vea", "--data", "digits") == 2
    said = capsys.readouterr().err
    assert "There is no run folder" in said
    assert "Did you mean 'vae'?" in said
    assert "module:function" not in said
    assert diled("audit", "no_such_module:vae", "--data", "digits") == 2
    assert "no_such_module" in capsys.readouterr().err
    (namesakes / "a" / "model.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="is a file, and a model is a folder"):
        subjects_of([namesakes / "a" / "model.pt"], "digits", "cpu")


def test_nothing_is_written_into_the_folders_of_others(namesakes, tmp_path):
    theirs = tmp_path / "kl"
    theirs.mkdir()
    (theirs / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    (pipeline / "model_index.json").write_text("{}")
    ours = namesakes / "a" / "vae"
    for foreign in (theirs, pipeline, "theirs:make"):
        assert audit_folder([foreign], None) == Path("runs/audit")
    assert audit_folder([ours], None) == ours / "audit"
    assert audit_folder([ours, theirs], None) == Path("runs/audit")
    assert audit_folder([theirs], tmp_path / "out") == tmp_path / "out"


# Who generalizes best ------------------------------------------------------------------------------------------------


def one_of(
    gap: float, *, noise: float = 0.0, train: str = "same", n: int = 400, seed: int = 0, **figures: float
) -> Audited:
    """An audit whose bounds on training and test examples have means that differ by `gap`."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99).standard_normal((2, n)) * 10
    shared -= shared.mean(1, keepdims=True)
    own = rng.standard_normal((2, n)) * noise
    arrays = {"test_bound": shared[0] + own[0] + gap, "train_bound": shared[1] + own[1]}
    error = math.sqrt(sum(v.var(ddof=1) / n for v in arrays.values()))
    value = float(arrays["test_bound"].mean() - arrays["train_bound"].mean())
    measured = {"generalization_gap": Measured(value, error, 2 * n)} | {k: Measured(v) for k, v in figures.items()}
    return combined({"bounds": Section(measured, arrays)}, (), train)


def test_the_bootstrap_of_apart_sets_is_as_wide_as_their_variances_add_up_to():
    rng = np.random.default_rng(0)
    sets = [rng.standard_normal(n) * s + m for n, s, m in ((300, 1.0, 5.0), (500, 2.0, 3.0), (200, 4.0, 1.0))]
    found = independent_bootstrap((1, sets[0]), (-1, sets[1]), (1, sets[2]), seed=3)
    value = sets[0].mean() - sets[1].mean() + sets[2].mean()
    error = math.sqrt(sum(v.var() / len(v) for v in sets))
    assert found.difference.value == pytest.approx(value, abs=1e-12)
    assert found.difference.stderr == pytest.approx(error, rel=0.06)
    assert found.low == pytest.approx(value - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(value + 1.96 * error, abs=0.15 * error)
    assert found.difference.n == 1000
    again = independent_bootstrap((1, sets[0]), (-1, sets[1]), (1, sets[2]), seed=3)
    assert again == found


def test_gaps_are_paired_over_training_examples_only_where_these_are_the_same():
    """With the same shared part in both models, pairs leave their own noise alone; apart the shared part counts twice."""
    a, b = one_of(3.0, noise=0.5, seed=1), one_of(1.0, noise=0.5, seed=2)
    arrays = (a.arrays, b.arrays)
    test = arrays[0]["bounds/test_bound"] - arrays[1]["bounds/test_bound"]
    trains = [x["bounds/train_bound"] for x in arrays]
    value = test.mean() - trains[0].mean() + trains[1].mean()
    close = difference(a, b, "generalization_gap")
    assert close is not None
    assert close.difference.value == pytest.approx(value)
    assert close.difference.stderr == pytest.approx(
        math.sqrt((test.var() + (trains[0] - trains[1]).var()) / 400), rel=0.06
    )
    for other in (replace(b, train="other"), replace(b, train="")):
        wide = difference(replace(a, train=""), other, "generalization_gap")
        assert wide is not None
        assert wide.difference.value == pytest.approx(value)
        assert wide.difference.stderr == pytest.approx(
            math.sqrt((test.var() + trains[0].var() + trains[1].var()) / 400), rel=0.06
        )
        assert wide.difference.stderr > 5 * close.difference.stderr
    shorter = one_of(1.0, n=400, train="other")
    shorter.arrays["bounds/train_bound"] = shorter.arrays["bounds/train_bound"][:77]
    assert difference(a, shorter, "generalization_gap") is not None


def test_differences_of_amortization_gaps_are_those_of_before_and_best():
    n = np.arange(6.0)
    mine = Section(
        arrays={f"{s}_{k}": n * f + c for s, c in (("train", 5), ("test", 9)) for k, f in (("before", 3), ("best", 1))}
    )
    theirs = Section(arrays={f"{s}_{k}": n * f for s in ("train", "test") for k, f in (("before", 2), ("best", 1))})
    a, b = combined({"amortization": mine}, (), "x"), combined({"amortization": theirs}, (), "x")
    for name in ("amortization_gap_train", "amortization_gap_test"):
        found = difference(a, b, name)
        assert found is not None
        assert found.difference.value == pytest.approx(n.mean()), "(3n - n) - (2n - n)"
        apart = difference(a, replace(b, train="y"), name)
        assert apart is not None
        assert apart.difference.value == pytest.approx(n.mean())
        paired = name.endswith("test")
        expected = n.var() if paired else (2 * n).var() + n.var()
        assert apart.difference.stderr == pytest.approx(math.sqrt(expected / 6), rel=0.06)
    assert difference(a, b, "generalization_gap") is None
    assert difference(a, b, "robustness_gap") is None
    attacked = [combined({"robustness": Section(arrays={"gaps/strong/0.1": v})}) for v in (n, n / 2)]
    found = difference(attacked[0], attacked[1], "robustness_gap/strong/0.1")
    assert found is not None
    assert found.difference.value == pytest.approx(1.25)


def test_no_model_is_called_best_within_chance():
    clear = {"first": one_of(9.0, noise=0.5, seed=1), "low": one_of(2.0, noise=0.5, seed=2), "x": one_of(5.0, seed=3)}
    assert leaders(clear, "generalization_gap") == ["low"]
    assert verdict(clear)[0].startswith("low has the smallest generalization gap, 2.0")
    near = clear | {"near": one_of(2.02, noise=0.5, seed=4)}
    assert sorted(leaders(near, "generalization_gap")) == ["low", "near"]
    said = verdict(near)[0]
    assert "low and near" in said or "near and low" in said
    assert said.endswith("and do not differ beyond chance.")
    assert "first" not in said
    apart = {
        name: replace(one, train=name) for name, one in near.items()
    }  # errors of training means: 10 / sqrt(400) each
    apart["x"] = replace(one_of(3.0, seed=3), train="x")
    assert set(leaders(apart, "generalization_gap")) == {"low", "near", "x"}
    assert leaders(near | {"x": one_of(3.0, seed=3)}, "generalization_gap")[2:] == []


def test_figures_without_numbers_per_example_are_judged_by_their_errors():
    def named(value: float, error: float | None) -> Audited:
        return Audited({"approximation_gap_test": Measured(value, error)}, {}, [], {})

    found = {"a": named(1.0, 0.3), "b": named(1.9, 0.4), "c": named(2.1, 0.4), "d": Audited({}, {}, [], {})}
    assert leaders(found, "approximation_gap_test") == ["a", "b"], "1.96 x 0.5 lies between 0.9 and 1.1"
    assert leaders({"a": named(1.0, None), "b": named(1.9, None)}, "approximation_gap_test") == ["a"]
    assert leaders(found, "robustness_gap") == []
    assert leaders({"a": named(math.nan, 0.1), "b": named(2.0, 0.1)}, "approximation_gap_test") == ["b"]


def test_a_gap_that_is_the_smallest_by_chance_gets_no_star():
    found = {"low": one_of(2.0, noise=0.5, seed=2), "near": one_of(2.02, noise=0.5, seed=4)}
    found["low"].figures["amortization_gap_test"] = Measured(1.0, 0.1)
    found["near"].figures["amortization_gap_test"] = Measured(2.0, 0.1)
    close = undecided(found, competing({name: one.figures for name, one in found.items()}))
    assert close == ["generalization_gap"]
    table, better = audit_table({name: one.figures for name, one in found.items()}, COLUMNS, close)
    text = table_text(table, better)
    assert "generalization gap ↓" in text
    rows = [line for line in text.splitlines() if line.startswith(("low", "near"))]
    assert [row.count("*") for row in rows] == [1, 0], "of the amortization gap alone"


def test_a_collapsed_model_is_said_to_be_one_with_its_rate():
    holds = one_of(5.0, **{"rate_nats/test": 12.0, "collapsed": 0.0})
    empty = one_of(0.2, **{"rate_nats/test": 0.06})
    judged = one_of(0.2, **{"rate_nats/test": 3.25, "collapsed": 1.0})
    codeless = one_of(0.2, **{"rate_nats/test": 0.0})
    said = verdict({"holds": holds, "empty": empty, "judged": judged, "codeless": codeless})[1:]
    assert len(said) == 2
    assert said[0].startswith("empty is collapsed")
    assert "rate 0.06 nats" in said[0]
    assert said[1].startswith("judged is collapsed")
    assert "rate 3.25 nats" in said[1]
    assert verdict({"empty": empty})[-1].startswith("empty is collapsed")
    assert len(verdict({"holds": holds})) == 1


def test_verdicts_where_there_is_little_to_compare():
    none = combined({"bounds": "no bound"})
    assert "No model here has a bound" in verdict({"ae": none, "daae": none})[0]
    assert "No bounds were measured" in verdict({"vae": combined({})})[0]
    assert verdict({"ae": none, "vae": one_of(2.0)})[0].startswith("Of vae alone there is a bound")
    assert "bound is 2.00 ± 0.71 nats above" in verdict({"vae": one_of(2.0)})[0]
    assert "bound is 2.00 ± 0.71 nats below" in verdict({"vae": one_of(-2.0)})[0]


def test_a_terminal_shows_codes_and_pools_where_nothing_else_was_measured():
    codes = {"active_units": Measured(3.0), "rate_nats/test": Measured(1.0)}
    assert [list(better) for _, better in audit_tables({"a": codes})] == [["active units"]]
    pool = {"copying": Measured(0.5)}
    assert [list(better) for _, better in audit_tables({"a": pool})] == [["copying"]]
    both = codes | pool | {"generalization_gap": Measured(1.0)}
    assert [list(better) for _, better in audit_tables({"a": both})] == [["generalization gap", "rate"], ["copying"]]
    assert audit_tables({"a": {}}) == []
    of_proteins = {"active_units": Measured(2.0), "spearman/kd/probe": Measured(0.5), "label_smoothness/kd": Measured(0.4),
                   "pool/position_error": Measured(0.1), "pool/position_error/floor": Measured(0.05),
                   "pool/novel": Measured(0.9), "pool/unique": Measured(1.0)}  # fmt: skip
    assert [list(better) for _, better in audit_tables({"a": of_proteins})] == [
        ["active units", "Spearman of kd", "smoothness of kd"],
        ["position error", "of real data, positions", "novel", "unique"],
    ]
