"""What the arguments of the verbs mean: runs, inputs, data, attributes, and where results go."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diled.config import DataSpec, PreprocessConfig, SequenceConfig, TextConfig, validated
from diled.data import KNOWN, Data, Split, open_data, open_examples, read_examples
from diled.data.folder import files_below
from diled.data.known_texts import TEXTS
from diled.data.proteins import ungapped
from diled.data.splits import hashed, seen
from diled.data.tables import ending
from diled.errors import ConfigError, DataError, DiledError, NoColumn
from diled.hub import on_hub
from diled.latent.attributes import fit_ode
from diled.latent.edit import METHODS, Attribute, Edit, fit_directions, one_each, parse_attribute, together
from diled.model import Model, load
from diled.models.sampling import described
from diled.output import is_sheet, write_examples
from diled.runs import merged, read_run
from diled.session import check_same_data

__all__ = [
    "at_least_one",
    "check_column",
    "check_seed",
    "data_of",
    "edit_of",
    "examples_of",
    "is_run",
    "may_be_table",
    "measured_of",
    "model_of",
    "named_split",
    "tell_other_test",
    "trained_on",
    "trained_rows",
    "write_pairs",
    "write_result",
]

TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".pq")
"""Endings of files with columns, the first three also with `.gz`."""
SKIP = "--preprocess.on_error skip"
"""How to have left out of data what cannot be read."""
CHOOSE = re.compile(r" Choose [^.]*--preprocess\.(?:size|channels).*", re.DOTALL)
"""What data say of their own sizes and kinds where they could be read in several ways."""


def at_least_one(**numbers: int | None) -> None:
    """Refuse counts below one.

    Raises:
        ConfigError: with the first of them.
    """
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ConfigError(f"{name} = {number}: at least 1 is needed.")


def check_seed(seed: int | None) -> None:
    """Refuse a seed below zero.

    Raises:
        ConfigError: it is.
    """
    if seed is not None and seed < 0:
        raise ConfigError(f"seed = {seed}: a seed is 0 or more.")


def model_of(
    run: Any, device: str = "auto", *, codes: bool = False, steps: int | None = None, sampler: str | None = None
) -> Model:
    """A loaded model as it is, or the model in a folder.

    Raises:
        ConfigError: at once, where it has no codes and `codes` are needed, or where steps or the sampler do not fit it; or
            another device than that of a loaded model.
    """
    model = run if isinstance(run, Model) else load(run, device=device)
    if isinstance(run, Model) and device not in ("auto", run.device.type):
        raise ConfigError(f"The model is on {run.device.type}, not on {device}: load it with device='{device}'.")
    if codes:
        model.with_codes()
    described(model.density, steps=steps, sampler=sampler)
    return model


def is_run(source: Any) -> bool:
    """Whether this is a model, or a run's folder, here or on the Hub, rather than data."""
    known = isinstance(source, Model) or on_hub(source)
    return known or any((Path(source) / name).exists() for name in ("config.json", "run.json"))


def trained_on(run: Any, model: Model) -> tuple[str | None, PreprocessConfig | None]:
    """The data that a model was trained on and how they were prepared, as its run says or its provenance; None: not known."""
    if isinstance(run, (str, Path)) and (Path(run) / "run.json").exists():
        config = read_run(run)
        return config.data, config.preprocess
    known = model.provenance.get("preprocess")
    return model.provenance.get("data"), None if known is None else validated(PreprocessConfig, known, "preprocess")


def data_of(
    run: Any,
    data: str | Path | None,
    model: Model,
    *,
    skip: bool = False,
    held_out: bool = True,
    option: str = SKIP,
    changes: Mapping[str, Any] | None = None,
    column: str | None = None,
    inputs: Any = None,
) -> Data:
    """The data named, or what the run was trained on, prepared and divided as for the model, under whatever name they go.

    Sequences that cannot be read so, such as shorter ones or those of a table with other columns, are brought to the model's
    length, or sites, and where that does not do, read from the run's column, or from any. Where the test split is then another
    than the model's own, that is said on stderr: some of it may have been trained on.

    Args:
        run: the model's.
        data: a source; None: that of the run.
        model: that reads them.
        skip: leave out what the model cannot read, such as longer texts, and say how many on stderr.
        held_out: whether it matters that the test split is one that the model has not seen.
        option: the user's way to ask for `skip`, for messages.
        changes: values of the preprocessing, nested, in place of the run's; None: the user has no way to give any.
        column: of tables, which holds the examples, where they are named; None: as in training data.
        inputs: for which the column is as well, and has been checked: where they are a table, data without it are read as if
            there were none.

    Raises:
        ConfigError: neither is known, or a column is named where there is no table.
        DiledError: the data are of another shape or measure than the model's.
    """
    named, preprocess = trained_on(run, model)
    source = named if data is None else data
    if inputs is None:
        check_column(column, data)
    if source is None or (data is None and preprocess is None):
        raise ConfigError("Say which data to use (--data): the model does not know what it was trained on.")
    if preprocess is None:
        size = model.spec.shape[1:] if model.spec.kind == "image" else None
        ways = [PreprocessConfig(size=size, binarize=model.spec.binarize, **_preprocess_for(model.spec))]
    else:
        ways = [preprocess.model_copy(update={"text": _tokens_for(model.spec)})]
        if model.spec.sequential:  # they may be others, or have changed
            bare = _sequences_for(model.spec)
            own = preprocess.sequence.model_copy(update=bare.model_dump(exclude_unset=True))
            with_column = bare.model_copy(update={"column": preprocess.sequence.column})
            for sequence in (own,) if str(source) == named else (own, with_column, bare):
                way = ways[0].model_copy(update={"sequence": sequence})
                ways += [way] if way not in ways else []
        elif str(source) != named:
            way = ways[0].model_copy(update={"image_column": PreprocessConfig().image_column})
            ways += [way] if way not in ways else []
    if changes:
        ways = [validated(PreprocessConfig, merged(way.model_dump(), dict(changes)), "preprocess") for way in ways]
    if column is not None and data is not None and may_be_table(data):
        ways = _with_column(ways, column, model.spec.sequential) + (ways if may_be_table(inputs) else [])
    place = _opened(source, ways, model, skip, option, changes is not None)
    if skip:
        for note in (note for note in place.notes if "left out" in note):
            print(note, file=sys.stderr)
    if held_out:
        tell_other_test(place, model, "the model")
    return place


def may_be_table(source: Any) -> bool:
    """Whether a source is a table, or a folder or a list in which there may be some."""
    if isinstance(source, (list, tuple)):
        return any(map(may_be_table, source))
    if not isinstance(source, (str, Path)) or (isinstance(source, str) and (source in ("", *KNOWN) or "\n" in source)):
        return False
    if ending(Path(source)) in TABLES:
        return True
    try:
        return any(ending(file) in TABLES for file in files_below(Path(source).expanduser()))
    except (OSError, ValueError, RuntimeError):  # too long for a name, or '~someone' who does not exist
        return False


def check_column(column: str | None, *sources: Any) -> None:
    """Refuse a column where nothing that is given can have one.

    Raises:
        ConfigError: there is no table among the sources.
    """
    if column is not None and not any(map(may_be_table, sources)):
        raise ConfigError(f"'column' has no meaning here: nothing that is given is a table ({', '.join(TABLES)}).")


def _with_column(ways: Sequence[PreprocessConfig], column: str, sequential: bool) -> list[PreprocessConfig]:
    """The ways to read data, each with the column that is named, and once."""
    found: list[PreprocessConfig] = []
    for way in ways:
        sequence = way.sequence.model_copy(update={"column": column})
        one = way.model_copy(update={"sequence": sequence} if sequential else {"image_column": column})
        found += [one] if one not in found else []
    return found


def _opened(
    source: str | Path, ways: Sequence[PreprocessConfig], model: Model, skip: bool, option: str, choice: bool
) -> Data:
    """The data, in the first of several ways in which a model can read them; its own column goes before any other.

    Raises:
        DiledError: of the last way that was tried; with ways out that the user has, `choice` being one of size and channels.
    """
    for i, way in enumerate(ways):
        try:
            place = open_data(source, way.model_copy(update={"on_error": "skip"}) if skip else way)
            check_same_data(place, model.spec, "The model")
            return _without_gaps(place) if place.spec.aligned and not model.spec.aligned else place
        except DiledError as error:
            if any(isinstance(error, NoColumn) or _columns(other) == _columns(way) for other in ways[i + 1 :]):
                continue
            said = str(error).replace(SKIP, option)
            if not choice:
                bring = f" The model reads examples of shape {model.spec.shape}: bring them to one kind and size first."
                said = CHOOSE.sub(bring, said)
            if said == str(error):
                raise
            raise DataError(said) from error
    raise AssertionError("there is at least one way")


def _columns(way: PreprocessConfig) -> tuple[str | None, str]:
    return way.sequence.column, way.image_column


def _without_gaps(data: Data) -> Data:
    """An alignment as a model reads it whose training data had their gaps removed."""

    def bare(split: Split) -> Split:
        values = ungapped(split.values, data.spec.symbols)
        return replace(split, values=values).subset((values != 0).any(1))

    spec = data.spec.model_copy(update={"aligned": False})
    return replace(data, spec=spec, train=bare(data.train), validation=bare(data.validation), test=bare(data.test))


def tell_other_test(data: Data, model: Model, name: str) -> None:
    """Say on stderr where a test split is not the one that was held out from a model, so that it may have seen some of it."""
    if model.provenance.get("test_sha256", "") not in ("", hashed(data.test.values)):
        print(
            f"The test split of {data.name} is not the one that was held out when {name} was trained: if these are the same "
            "data, divided anew or changed since, some of it was trained on.",
            file=sys.stderr,
        )


def _preprocess_for(spec: DataSpec) -> dict[str, Any]:
    """How sequences become what a model reads: what `PreprocessConfig` has for that."""
    sequence = _sequences_for(spec) if spec.sequential else SequenceConfig()
    return {"sequence": sequence, "text": _tokens_for(spec)}


def _tokens_for(spec: DataSpec) -> TextConfig:
    """The model's own tokenizer, so that none is trained anew."""
    return TextConfig(tokenizer=spec.tokenizer)


def _sequences_for(spec: DataSpec) -> SequenceConfig:
    """How sequences are brought to the length, or the sites, that a model reads."""
    if spec.kind == "text":
        return SequenceConfig(kind="text", max_length=spec.numel)
    if spec.sites:
        return SequenceConfig(sites=tuple(site + 1 for site in spec.sites), background=spec.background)
    return SequenceConfig(max_length=spec.numel)


def edit_of(
    model: Model,
    data: Sequence[Data],
    attributes: Sequence[str],
    method: str,
    depth: float | None,
    limit: int = 20_000,
    encode: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Edit:
    """The edit that gives examples some attributes, fitted on codes of (up to `limit`) training examples of each data set.

    Each column is taken from the first data set that has it.

    Args:
        model: with codes.
        data: labelled data sets.
        attributes: as `parse_attribute` reads them.
        method: `vector`, `classifier` or `ode`.
        depth: of `ode`, see `AttributeODE`.
        limit: training examples of each data set.
        encode: raw examples (n, *shape) -> codes (n, d), where they are kept; None: `model.encode`.

    Raises:
        ConfigError: an unknown column, class or method, or a depth without an ODE.
        DataError: the data do not tell an attribute apart.
    """
    if method not in (*METHODS, "ode"):
        raise ConfigError(f"method '{method}' is unknown. Known: {', '.join(METHODS)}, ode.")
    if method != "ode" and depth is not None:
        raise ConfigError(f"depth is of method 'ode', and has no meaning for '{method}'.")
    place = {column: i for i in reversed(range(len(data))) for column in data[i].train.labels}
    columns = {column: data[i].train.labels[column] for column, i in place.items()}
    classes = {column: data[i].spec.labels.get(column, []) for column, i in place.items()}
    wanted = [parse_attribute(attribute, columns, classes) for attribute in attributes]
    one_each(wanted)
    parts = []
    for i in sorted({place[a.column] for a in wanted}):
        train = data[i].train
        own = [a for a in wanted if place[a.column] == i]
        some = train.subset(_telling(train.labels, own, limit))
        parts.append(((encode or model.encode)(some.values), some.labels, own))
    if method != "ode":
        return together([fit_directions(*part, method) for part in parts])
    if getattr(model.density, "prior", None) is None:
        raise ConfigError(
            "Method 'ode' follows a prior of codes, and this model has none: use 'vector' or 'classifier'."
        )
    return fit_ode(model.density.prior, parts, depth)


def _telling(labels: Mapping[str, np.ndarray], attributes: Sequence[Attribute], limit: int) -> np.ndarray:
    """Which of N examples, with labels (N,) of each column, tell of attributes, (n,) with n at most `limit`.

    They are drawn at random, of examples with labels in all of the columns first. Of a rare class there are as many as a
    tenth of them, or all.
    """
    order = np.random.default_rng(0).permutation(len(next(iter(labels.values()))))
    if len(order) <= limit:
        return order
    known = np.stack([attribute.target(labels[attribute.column])[0][order] for attribute in attributes])
    order = order[np.argsort(-known.sum(0), kind="stable")]
    first = np.zeros(len(order), bool)
    for attribute in attributes:
        if attribute.value is not None:
            first[np.flatnonzero(labels[attribute.column][order] == attribute.value)[: limit // 10]] = True
    kept = np.concatenate([np.flatnonzero(first), np.flatnonzero(~first)])[:limit]
    return order[np.sort(kept)]


def named_split(inputs: Any, spec: DataSpec) -> Split | None:
    """The training split where `inputs` is the name of a known data set, and for a model of text of a known set of text.

    That is read in the tokens of the model of `spec`; the names of all other sets are words to it.
    """
    of_text = spec.kind == "text"
    if not isinstance(inputs, str) or inputs not in (TEXTS if of_text else KNOWN):
        return None
    own = _preprocess_for(spec) if of_text else {}
    return open_data(inputs, PreprocessConfig(**own)).train


def examples_of(
    inputs: Any,
    model: Model,
    convert: bool,
    on_error: str = "stop",
    column: str | None = None,
    option: str = "on_error='skip' (--on-error skip)",
) -> Split:
    """A known set, or anything that `open_examples` reads: raw values (n, *shape), and a name for each.

    Args:
        inputs: as in `open_examples`, or the name of a known set.
        model: that reads them.
        convert: as in `open_examples`.
        on_error: `stop`, or `skip` to leave out what cannot be read.
        column: of files, which holds the examples; None: as in training data.
        option: the user's way to ask for `skip`, for messages; empty: there is none.

    Raises:
        ConfigError: another word for `on_error`.
        DataError: as in `open_examples`.
    """
    if on_error not in ("stop", "skip"):
        raise ConfigError(f"on_error '{on_error}' is unknown. Known: stop, skip.")
    split = named_split(inputs, model.spec)
    if split is not None:  # of text it is in the model's own tokens
        values = split.values
        read = values if model.spec.sequential else read_examples(values, model.spec, convert=convert)
        return replace(split, values=read)
    return open_examples(
        inputs,
        model.spec,
        convert=convert,
        skip=on_error == "skip",
        option=option,
        column=column if column is not None and may_be_table(inputs) else None,
    )


def measured_of(examples: Split) -> dict[str, np.ndarray]:
    """The real numbers that stand beside examples in a known set or a table of sequences: column -> (N,), NaN where missing."""
    return {name: values for name, values in examples.labels.items() if values.dtype.kind == "f"}


def trained_rows(run: Any, model: Model, values: np.ndarray) -> np.ndarray | None:
    """Which raw values (n, *shape) the model was trained on, (n,) bool; None where its training data are not here."""
    try:
        train = data_of(run, None, model).train.values
    except DiledError:
        return None
    return seen(values.reshape(len(values), -1), train.reshape(len(train), -1))


def write_result(values: np.ndarray, model: Model, out: str | Path | None, ids: Sequence[str] | None = None) -> None:
    """Write raw values where a place is given."""
    if out is not None:
        write_examples(values, model.spec, out, ids=ids)


def write_pairs(
    before: np.ndarray, after: np.ndarray, model: Model, out: str | Path | None, ids: Sequence[str]
) -> None:
    """A sheet with each row of `before` above the same row of `after`; otherwise only `after`, of sequences with their ids."""
    if out is None or not is_sheet(out):
        write_result(after, model, out, ids)
        return
    columns = min(len(after), 16)
    rows = []
    for start in range(0, len(after), columns):
        for values in (before, after):
            row = values[start : start + columns]
            rows += [row, np.zeros((columns - len(row), *row.shape[1:]), row.dtype)]
    write_examples(np.concatenate(rows), model.spec, out, columns=columns)
