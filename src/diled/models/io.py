"""Saving and loading. A saved model is a folder:

    config.json        format, name of the zoo function, its values, what is known of the data
    model.safetensors  the weights
    provenance.json    command, commit, seed, hardware, versions, seconds
    tokenizer.json     of a model of text

Loading never unpickles. Files are written beside the old ones and then moved into place, so a full disk loses nothing.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from diled._version import __version__
from diled.api import Density
from diled.config import DataSpec, validated
from diled.errors import ConfigError, ModelError, did_you_mean
from diled.family import FAMILY, ModelConfig, model_config
from diled.models.zoo import build
from diled.tokens import tokens_of

__all__ = ["FORMAT", "load_model", "read_config", "save_model", "write_json"]

TOKENIZER = "tokenizer.json"
FORMAT = 1
"""Version of the folder's layout; raised when an older library could not read a newer folder."""

PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib")


def save_model(
    folder: Path,
    model: nn.Module,
    spec: DataSpec,
    *,
    name: str | None,
    config: ModelConfig | None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write the files. `name` is None for a hand-composed model, which loads with `load(folder, model=m)`.

    Raises:
        ModelError: the folder cannot be written; what was there before stays.
    """
    record = {
        "format": FORMAT,
        "diled": __version__,
        "model": name,
        "config": config.model_dump(mode="json") if config is not None else None,
        "data": spec.model_dump(mode="json")
        | ({} if spec.tokenizer is None else {"tokenizer": TOKENIZER, "symbols": []}),
    }
    texts = {"provenance.json": _indented(provenance or {})}
    if spec.tokenizer is not None:
        texts[TOKENIZER] = spec.tokenizer
    texts["config.json"] = _indented(record)  # last, since it says that the folder is complete
    weights = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in model.state_dict().items()}
    names = ("model.safetensors", *texts)
    partial = {name: folder / f"{name}.partial" for name in names}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial["model.safetensors"].touch()
        mode = partial["model.safetensors"].stat().st_mode
        save_file(weights, partial["model.safetensors"], metadata={"format": "pt"})
        partial["model.safetensors"].chmod(mode)  # what the user's umask says; safetensors hides its files from others
        for name, text in texts.items():
            partial[name].write_text(text, encoding="utf-8")
        for name in names:
            os.replace(partial[name], folder / name)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"Could not save the model to {folder}: {error}. What was there before is unchanged."
        ) from None
    finally:
        if folder.is_dir():
            for path in partial.values():
                path.unlink(missing_ok=True)


def _indented(values: Any) -> str:
    return json.dumps(_finite(values), indent=2, allow_nan=False) + "\n"


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def write_json(path: Path, record: Any) -> None:
    """Write JSON beside `path`, then move it into place; a number that is not finite, which JSON does not have, is null."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(_indented(record))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_model(folder: Path, model: Density | None = None) -> tuple[Density, DataSpec, str | None, ModelConfig | None]:
    """The model of a folder on the CPU, in evaluation mode, with its data's description, name and configuration.

    Raises:
        ModelError: not a model folder, another format, truncated weights, or weights of another model.
    """
    record = read_config(folder)
    try:
        spec = validated(DataSpec, record["data"], "data")
    except ConfigError as error:
        raise ModelError(f"{folder / 'config.json'} is of another version of diled: {error}") from None
    name, config = record["model"], None
    if model is not None:
        name = None  # hand-composed, under whatever name it was saved
    else:
        if name is None:
            raise ModelError(
                f"{folder} holds a hand-composed model: build it as before and pass it, load(path, model=m)."
            )
        if name not in FAMILY:
            raise ModelError(
                f"{folder} was made with the model '{name}', which is unknown here.{did_you_mean(name, FAMILY)}"
            )
        try:
            config = model_config(name, record["config"])
        except ConfigError as error:
            raise ModelError(f"{folder / 'config.json'} is of another version of diled: {error}") from None
        model = build(name, config, spec).model
    weights = _read_weights(folder)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).split("\n")[1].strip() if "\n" in str(error) else str(error)
        raise ModelError(f"The weights in {folder} do not fit its configuration: {reason}") from None
    return model.eval(), spec, name, config


def read_config(folder: Path) -> dict[str, Any]:
    """The parsed config.json of a model folder, with the tokenizer that lies beside it in its place, and its symbols.

    Raises:
        ModelError: with what is wrong and what to do.
    """
    folder = Path(folder)
    if folder.suffix.lower() in PICKLES and not folder.is_dir():
        raise ModelError(
            f"{folder} looks like a pickle, which can run any code when it is opened, so it is refused. "
            "A diled model is a folder with config.json and model.safetensors."
        )
    path = folder / "config.json"
    if not path.exists():
        if (folder / "checkpoints").exists():
            raise ModelError(f"The training in {folder} has not finished. Go on with: diled train --resume {folder}")
        siblings = (
            [p.name for p in folder.parent.glob("*") if (p / "config.json").exists()] if folder.parent.exists() else []
        )
        raise ModelError(f"{folder} is no model folder: there is no config.json.{did_you_mean(folder.name, siblings)}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} cannot be read ({error}): it is damaged, or no diled model.") from None
    if version != FORMAT:
        raise ModelError(
            f"{folder} has format {version}, and diled {__version__} reads format {FORMAT}. "
            f"Use the diled that made it ({record.get('diled', 'unknown')}), or train it again."
        )
    kinds = {"data": dict, "model": str | None, "config": dict | None}
    for key, kind in kinds.items():
        if key not in record or not isinstance(record[key], kind):
            raise ModelError(f"{path} cannot be read ('{key}' is missing or wrong): it is damaged, or no diled model.")
    if record["data"].get("tokenizer") == TOKENIZER:
        record["data"] |= _tokenizer(folder, record["data"].get("levels"))
    return record


def _tokenizer(folder: Path, levels: int | None) -> dict[str, Any]:
    """The tokenizer of a model of text, and the symbols that its numbers stand for: the end, then all tokens."""
    path = folder / TOKENIZER
    try:
        text = path.read_text(encoding="utf-8")
        symbols = tokens_of(text)
    except FileNotFoundError:
        raise ModelError(
            f"{folder} has no {TOKENIZER}, without which its model reads no text. Copy it again."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read ({error}): it is damaged. Copy it again.") from None
    if len(symbols) != levels:
        raise ModelError(
            f"{path} has {len(symbols) - 1:,} tokens, and its model was trained on others: it is of another model."
        )
    return {"tokenizer": text, "symbols": symbols}


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "model.safetensors"
    if not path.exists():
        found = [p.name for p in folder.iterdir() if p.suffix.lower() in PICKLES]
        more = f" {found[0]} is a pickle and is not opened." if found else ""
        raise ModelError(f"{folder} has no model.safetensors.{more}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}): it is truncated or damaged. Copy it again.") from None
