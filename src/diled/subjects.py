"""What is audited: models, ours and others', each with its name and its real data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from diled.api import identity_of
from diled.arguments import data_of, is_run, model_of, trained_on
from diled.config import PoolConfig, PreprocessConfig, validated
from diled.data import Data
from diled.draws import seeded
from diled.errors import ConfigError, ModelError
from diled.hub import SOURCE, fetched, on_hub
from diled.model import Model, choose_device
from diled.models.foreign import check_source, load_foreign
from diled.runs import read_run
from diled.space import raw_tensor, to_space

__all__ = ["Subject", "audit_folder", "is_ours", "some_of", "subjects_of"]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model to be audited.

    Attributes:
        name: in tables.
        density: the autoencoder, on its device.
        identity: hash of its weights.
        data: real training and test examples.
        pool: the synthetic set it was trained on, which is opened when it is looked at; None: not known.
        notes: what was assumed of it.
        pool_sha256: which synthetic set that was, as `set_hash` tells; None: not known.
    """

    name: str
    density: Any
    identity: str
    data: Data
    pool: PoolConfig | None = None
    notes: tuple[str, ...] = ()
    pool_sha256: str | None = None


def subjects_of(
    models: Sequence[Any],
    data: str | Path | None,
    device: str = "auto",
    preprocess: Mapping[str, Any] = MappingProxyType({}),
) -> list[Subject]:
    """The models to be audited, each with its real data.

    Args:
        models: runs' folders or loaded models; diffusers folders; either as `hub:owner/name`; `module:function`.
        data: of all of them; None: what each run was trained on, and foreign models take the first run's.
        device: where to compute.
        preprocess: values of the preprocessing, nested, in place of those of a run.

    Raises:
        DiledError: a model cannot be loaded, the data of a foreign one are not known, or the device has no double precision.
    """
    if device == "mps":
        raise ConfigError(
            "An audit computes in double precision, which Apple's MPS does not have: leave out --device mps."
        )
    titles_on_hub = {i: str(model) for i, model in enumerate(models) if on_hub(model)}
    models = [_from_hub(model) if on_hub(model) else model for model in models]
    places = [_place(model) for model in models]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise ConfigError(f"{models[i]} is named twice: name each model once.")
    ours = [is_ours(model) for model in models]
    for model, own in zip(models, ours, strict=True):
        if not own:
            check_source(str(model))
    opened: dict[str, Data] = {}
    found: dict[int, Subject] = {}
    for i in sorted(range(len(models)), key=lambda i: not ours[i]):  # runs first: they know their data
        if ours[i]:
            found[i] = _subject(models[i], data, device, opened, preprocess)
            found[i] = replace(found[i], name=titles_on_hub.get(i, found[i].name))
        else:
            first = next(iter(found.values()), None)
            known = first.data if first is not None else _named(models[i], data, preprocess)
            found[i] = _foreign(str(models[i]), known, device)
    titles = [found[i].name for i in range(len(models))]
    return [replace(found[i], name=_name(i, titles, places)) for i in range(len(models))]


def audit_folder(models: Sequence[Any], out: str | Path | None) -> Path:
    """Where an audit goes: `out`; else the folder `audit` of the only run, or runs/audit; never somebody else's folder."""
    if out is not None:
        return Path(out)
    alone = len(models) == 1 and not isinstance(models[0], Model) and is_ours(models[0])
    return Path(models[0]) / "audit" if alone else Path("runs") / "audit"


def _from_hub(name: str) -> str | Path:
    """The folder of a model of ours; another's goes by its name still."""
    peek = fetched(name, ("config.json", "model_index.json"), ModelError)
    return fetched(name, SOURCE, ModelError) if is_ours(peek) else name


def _place(model: Any) -> Path | str | int:
    """What tells a model from others: its folder, the name of its function, or the object itself."""
    if isinstance(model, Model):
        return id(model)
    return Path(model).resolve() if Path(model).exists() else str(model)


def _name(i: int, titles: Sequence[str], places: Sequence[Path | str | int]) -> str:
    """A title, and where others have the same: as much of its path as no other has, its function, or a number."""
    title, place = titles[i], places[i]
    namesakes = [j for j, other in enumerate(titles) if other == title]
    if len(namesakes) == 1:
        return title
    if isinstance(place, Path):
        others = [other.parts for j in namesakes if j != i and isinstance(other := places[j], Path)]
        depth = next(n for n in range(1, len(place.parts) + 1) if all(o[-n:] != place.parts[-n:] for o in others))
        return Path(*place.parts[-depth:]).as_posix()
    return f"{title} ({place})" if isinstance(place, str) else f"{title} {namesakes.index(i) + 1}"


def is_ours(model: Any) -> bool:
    """Whether this is a run of ours; a diffusers folder has a config.json as well, of another form."""
    if isinstance(model, Model):
        return True
    if on_hub(model):  # ours are where they were fetched to
        return False
    folder = Path(model)
    if not is_run(model) or (folder / "model_index.json").exists():
        return False
    try:
        return "_class_name" not in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True  # the loader says what is wrong with it


def _subject(
    run: Any, data: str | Path | None, device: str, opened: dict[str, Data], preprocess: Mapping[str, Any]
) -> Subject:
    model = model_of(run, device)
    config = read_run(run) if isinstance(run, (str, Path)) and (Path(run) / "run.json").exists() else None
    key = f"{data} {trained_on(run, model)} {model.spec}"
    if key not in opened:
        opened[key] = data_of(run, data, model, changes=preprocess)
    title = model.config.row.title if model.config is not None else type(model.density).__name__
    if isinstance(run, (str, Path)):
        title = Path(run).resolve().name
    pool = None if config is None else config.pool
    trained = model.provenance.get("pool_sha256")
    return Subject(title, model.density, identity_of(model.density), opened[key], pool, pool_sha256=trained)


def _named(source: Any, data: str | Path | None, preprocess: Mapping[str, Any]) -> Data:
    from diled.data import open_data

    if data is None:
        raise ConfigError(
            f"Say on which data {source} is to be audited (--data): it does not know what it was trained on."
        )
    return open_data(data, validated(PreprocessConfig, dict(preprocess), "preprocess"))


def _foreign(source: str, data: Data, device: str) -> Subject:
    foreign = load_foreign(source, data.spec, str(choose_device(device)))
    with seeded(0, 9):
        train = to_space(raw_tensor(some_of(data.train.values, 2000)), data.spec)
    fitted = foreign.fit(train.to(choose_device(device)))
    title = Path(source).resolve().name if Path(source).is_dir() else fitted.name
    return Subject(title, fitted.density.eval(), f"{fitted.identity} {fitted.std}", data, None, fitted.notes)


def some_of(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the values (n, ...), drawn at random and in their order; always the same ones."""
    return values if len(values) <= most else values[np.sort(np.random.default_rng(0).permutation(len(values))[:most])]
