"""What the arguments of the verbs mean: runs, inputs, data, attributes, and where results go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diled.config import DataSpec, PreprocessConfig, SequenceConfig
from diled.data import Data, Split, known_sets, open_data, read_examples
from diled.errors import ConfigError
from diled.latent.edit import Direction, fit_direction, parse_attribute
from diled.model import Model, load
from diled.models.sampling import described
from diled.output import is_sheet, write_examples
from diled.runs import read_run
from diled.session import check_same_data

__all__ = [
    "at_least_one",
    "data_of",
    "direction_of",
    "examples_of",
    "is_run",
    "model_of",
    "named_split",
    "write_pairs",
    "write_result",
]


def at_least_one(**numbers: int | None) -> None:
    """Refuse counts below one.

    Raises:
        ConfigError: with the first of them.
    """
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ConfigError(f"{name} = {number}: at least 1 is needed.")


def model_of(
    run: Any, device: str = "auto", *, codes: bool = False, steps: int | None = None, sampler: str | None = None
) -> Model:
    """A loaded model as it is, or the model in a folder.

    Raises:
        ConfigError: at once, where it has no codes and `codes` are needed, or where steps or the sampler do not fit it.
    """
    model = run if isinstance(run, Model) else load(run, device=device)
    if codes:
        model.with_codes()
    described(model.density, steps=steps, sampler=sampler)
    return model


def is_run(source: Any) -> bool:
    """Whether this is a model or a run's folder, rather than data."""
    return isinstance(source, Model) or any((Path(source) / name).exists() for name in ("config.json", "run.json"))


def data_of(run: Any, data: str | Path | None, model: Model) -> Data:
    """The data named, or what the run was trained on, prepared as for the model.

    Raises:
        ConfigError: neither is known.
        DiledError: the data are of another shape or measure than the model's.
    """
    if isinstance(run, (str, Path)) and (Path(run) / "run.json").exists():
        config = read_run(run)
        preprocess = config.preprocess
        if model.spec.sequential and data is not None and str(data) != config.data:  # whose columns may be others
            preprocess = preprocess.model_copy(update={"sequence": _sequences_for(model.spec)})
        place = open_data(data if data is not None else config.data, preprocess)
    elif data is not None:
        size = model.spec.shape[1:] if model.spec.kind == "image" else None
        sequence = _sequences_for(model.spec) if model.spec.sequential else SequenceConfig()
        place = open_data(data, PreprocessConfig(size=size, binarize=model.spec.binarize, sequence=sequence))
    else:
        raise ConfigError("Say which data to use (--data): the model does not know what it was trained on.")
    check_same_data(place, model.spec, "The model")
    return place


def _sequences_for(spec: DataSpec) -> SequenceConfig:
    """How sequences are brought to the length, or the sites, that a model reads."""
    if spec.sites:
        return SequenceConfig(sites=tuple(site + 1 for site in spec.sites), background=spec.background)
    return SequenceConfig(max_length=spec.numel)


def direction_of(model: Model, data: Data, attribute: str, method: str, limit: int = 20_000) -> Direction:
    """The direction of an attribute, fitted on codes of (up to `limit`) training examples."""
    train = data.train.subset(np.random.default_rng(0).permutation(len(data.train))[:limit])
    _, target = parse_attribute(attribute, train.labels, data.spec.labels)
    return fit_direction(model.encode(train.values), target, attribute, method)


def named_split(inputs: Any) -> Split | None:
    """The training split where `inputs` is the name of a known data set."""
    if isinstance(inputs, str) and inputs in {name for name, *_ in known_sets()}:
        return open_data(inputs).train
    return None


def examples_of(inputs: Any, model: Model, convert: bool) -> np.ndarray:
    """Raw values (n, *shape) of a known set or of anything that `read_examples` reads."""
    split = named_split(inputs)
    return split.values if split is not None else read_examples(inputs, model.spec, convert=convert)


def write_result(values: np.ndarray, model: Model, out: str | Path | None) -> None:
    """Write raw values where a place is given."""
    if out is not None:
        write_examples(values, model.spec, out)


def write_pairs(before: np.ndarray, after: np.ndarray, model: Model, out: str | Path | None) -> None:
    """A sheet with each row of `before` above the same row of `after`; as an array or a folder only `after`."""
    if out is None or not is_sheet(out):
        write_result(after, model, out)
        return
    columns = min(len(after), 16)
    rows = []
    for start in range(0, len(after), columns):
        for values in (before, after):
            row = values[start : start + columns]
            rows += [row, np.zeros((columns - len(row), *row.shape[1:]), row.dtype)]
    write_examples(np.concatenate(rows), model.spec, out, columns=columns)
