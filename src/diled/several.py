"""Several models trained alike on one data set: what `compare PATH` and `demo` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diled.data import Data, open_data
from diled.errors import ConfigError
from diled.model import Model
from diled.runs import resolve
from diled.session import Session

__all__ = ["train_several"]


def train_several(
    source: str,
    models: Sequence[str],
    folder: Path,
    *,
    minutes: float | None = None,
    config: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    seed: int | None = None,
    device: Any = "auto",
    say: Callable[[str], None] = print,
) -> tuple[Data, dict[str, tuple[Model, Path | None]]]:
    """Train each model on the same data in `folder/<name>`; the data, and title -> the model and its folder.

    Args:
        source: a data set's name or path.
        models: names in the family.
        folder: where the runs go.
        minutes: for all of them, in equal shares.
        config, settings, seed, device: of every model alike; see `runs.resolve`.
        say: prints a line.
    """
    twice = next((name for i, name in enumerate(models) if name in models[:i]), None)
    if twice is not None:
        raise ConfigError(f"'{twice}' is named twice: each model is trained once.")
    configs = [resolve(source, name, config, settings, seed=seed, device=device) for name in models]
    if any(chosen.training.devices * chosen.training.nodes > 1 for chosen in configs):
        raise ConfigError(
            "Models are compared on one device each; train them one by one on several, then compare the runs."
        )
    data = open_data(source, configs[0].preprocess)
    for chosen in configs:
        chosen.model.resolved(data.spec)  # complains before the first of them is trained
    for note in data.notes:
        say(note)
    trained: dict[str, tuple[Model, Path | None]] = {}
    for chosen in configs:
        title = chosen.model.row.title
        say(f"{title}: {len(data.train):,} examples of {' x '.join(map(str, data.spec.shape))}")
        share = None if minutes is None else minutes / len(configs)
        session = Session(chosen, out=folder / chosen.name, minutes=share, data=data)
        trained[title] = (session.run(), session.folder)
    return data, trained
