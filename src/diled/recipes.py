"""What a run trains: the model with its stages, parts that it takes from another run, and parts that stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diled.api import Stage
from diled.config import DataSpec
from diled.diffusion.schedule import Schedule
from diled.errors import ConfigError, ModelError
from diled.folders import read_decoder, read_encoder
from diled.hub import SOURCE, fetched
from diled.models.pretrained import load_pretrained, pretrained_states, written_by
from diled.models.zoo import Recipe, build
from diled.runs import RunConfig

__all__ = ["copy_parts", "difference", "parts_of", "recipe_of", "start_pretrained"]

PRETRAINED: dict[str, Any] = {
    "encoder": (pretrained_states, read_encoder, ""),
    "decoder": (written_by, read_decoder, "decoder_"),
}
"""Parts that others may have trained: where they are in a model, what reads their folder, and how their options begin."""

SETTINGS = ("heads", "kind", "sigma_data", "columns")
"""Attributes of modules without which their weights mean something else."""


def recipe_of(config: RunConfig, spec: DataSpec, say: Callable[[str], None], *, started: bool = False) -> Recipe:
    """The model and the stages of a run, with the parts that it takes from another run and those that are frozen.

    Args:
        config: of the run, its model resolved.
        spec: of the data.
        say: prints a line.
        started: the run goes on and has kept the weights it started from, so that the other run is not needed.

    Raises:
        ConfigError: parts do not fit, do not exist, or are frozen without weights; or nothing is left to train.
    """
    recipe = build(config.name, config.model, spec, config.training.seed)
    copied: list[str] = []
    if config.init_parts and not config.init_from:
        raise ConfigError("init_parts has no effect without init_from.")
    if config.init_from and not started:
        copied = copy_parts(config.init_from, recipe, spec, say, config.init_parts)
    for part in PRETRAINED:
        if part not in copied and not started:
            start_pretrained(part, config, recipe, spec, say)
    parts = parts_of(recipe.model)
    unknown = set(config.freeze) - set(parts)
    if unknown:
        raise ConfigError(f"There is no part '{sorted(unknown)[0]}' to freeze. Parts: {', '.join(parts)}.")
    fresh = [name for name in config.freeze if name not in copied]
    if fresh and not started:
        why = f"{config.init_from} has none that fits" if config.init_from else "no --init-from gives it weights"
        raise ConfigError(f"'{fresh[0]}' is to be frozen, but {why}: it would stay as it was drawn.")
    if config.freeze:
        frozen = tuple(parts[name] for name in config.freeze)
        stages = [replace(stage, frozen=(*stage.frozen, *frozen)) for stage in recipe.stages]
        recipe.stages = [stage for stage in stages if not stage.share or _trains(stage)]
        if not any(stage.share for stage in recipe.stages):
            raise ConfigError("With these parts frozen nothing is left to train.")
    return recipe


def start_pretrained(part: str, config: RunConfig, recipe: Recipe, spec: DataSpec, say: Callable[[str], None]) -> None:
    """Give a pretrained encoder or decoder the weights of its folder, and say which; without one nothing happens.

    Args:
        part: `encoder` or `decoder`.
        config: of the run, its model resolved.
        recipe: with random weights.
        spec: of the data.
        say: prints a line.

    Raises:
        ConfigError: the folder is missing, or is not the one that the configuration was made with.
        ModelError: its weights do not fit.
    """
    find, read, prefix = PRETRAINED[part]
    network, inside = getattr(config.model, "network", None), find(recipe.model)
    if inside is None or network is None:
        return
    folder, known = getattr(network, f"{prefix}folder"), f"network.{prefix}architecture"
    there = read(folder, spec)
    if there != getattr(network, f"{prefix}architecture"):
        raise ConfigError(
            f"network.{prefix}folder: {folder} does not hold the {part} that {known} describes: leave {known} out, and it is "
            "read from the folder."
        )
    load_pretrained(inside, folder, network.new_blocks if part == "decoder" else 0)
    kind, fixed = there.values["model_type"], sum(p.numel() for p in inside.parameters() if not p.requires_grad)
    whole = sum(p.numel() for p in inside.parameters())
    say(f"Started the {part} from {folder} ({kind}, {whole:,} parameters, {fixed:,} of them frozen)")
    if there.unknown:
        say(f"It has no token for {', '.join(there.unknown)}, and reads it as unknown")


def parts_of(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The parts of a model that hold parameters, by name: encoder, decoder, prior and the like."""
    return {name: part for name, part in model.named_children() if any(True for _ in part.parameters())}


def copy_parts(
    source: str | Path, recipe: Recipe, spec: DataSpec, say: Callable[[str], None], wanted: tuple[str, ...] = ()
) -> list[str]:
    """Start a model's parts from those of another run, where they fit; only `wanted` ones where any are named.

    A part fits where it consists of the same kinds of modules, of the same sizes, at the same noise levels. Of encoders that
    differ in what they make of their network's output (a point, or a Gaussian of fixed noise) the network is taken, so that
    DiLED can start from a ReLSO (Liu et al. 2024).

    Returns:
        The names of the parts that were copied.

    Raises:
        ConfigError: the other run has other data or other symbols, none of its parts fit, or a wanted one does not.
    """
    from diled.models.io import load_model

    other, other_spec, _, _ = load_model(fetched(source, SOURCE, ModelError))
    if set(wanted) != {"prior"} or not hasattr(recipe.model, "encoder"):  # a prior of codes knows of no symbols
        _check_symbols(source, other_spec, spec)
    if other_spec.shape != spec.shape:
        raise ConfigError(f"{source} was trained on examples of shape {other_spec.shape}, these are {spec.shape}.")
    copied, reasons, with_it = [], [], ""
    for part, mine in parts_of(recipe.model).items():
        if wanted and part not in wanted:
            continue
        theirs = getattr(other, part, None)
        if theirs is None:
            continue
        differs = difference(mine, theirs)
        if differs is not None and part == "encoder" and _same_networks(mine, theirs):
            mine, theirs, differs, with_it = mine.network, theirs.network, None, " (the encoder's network alone)"  # type: ignore[assignment]
        if differs is None:
            mine.load_state_dict(theirs.state_dict())
            copied.append(part)
        else:
            reasons.append(f"{part} differs in {differs}")
    if not copied:
        why = "; ".join(reasons) or f"it has {_named(other)}, this one {_named(recipe.model)}"
        raise ConfigError(f"Nothing of {source} fits this model: {why}.")
    missing = [part for part in wanted if part not in copied]
    if missing:
        raise ConfigError(f"{source} has no '{missing[0]}' that fits this model, as init_parts wants.")
    rest = f"; the rest starts afresh: {'; '.join(reasons)}" if reasons else ""
    say(f"Started {', '.join(copied)}{with_it} from {source}{rest}")
    return copied


def _check_symbols(source: str | Path, theirs: DataSpec, mine: DataSpec) -> None:
    """Refuse weights for symbols that have other numbers here.

    Raises:
        ConfigError: the symbols are others.
    """
    if theirs.symbols == mine.symbols:
        return
    if theirs.kind != mine.kind:
        raise ConfigError(f"{source} was trained on data of kind '{theirs.kind}', these are of kind '{mine.kind}'.")
    if mine.kind == "text":
        raise ConfigError(
            f"{source} has another tokenizer, so its weights mean other tokens. Have these texts read with that one: "
            f"--preprocess.text.tokenizer {source}"
        )
    there, here = (" ".join(filter(None, spec.symbols)) for spec in (theirs, mine))
    raise ConfigError(f"{source} was trained on other symbols ({there}) than these data have ({here}).")


def _same_networks(mine: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    """Whether two encoders have networks of one kind and size."""
    networks = [getattr(one, "network", None) for one in (mine, theirs)]
    return all(isinstance(one, torch.nn.Module) for one in networks) and difference(*networks) is None  # type: ignore[arg-type]


def difference(mine: torch.nn.Module, theirs: torch.nn.Module) -> str | None:
    """The first thing in which two parts differ so that weights of one mean nothing in the other; None: they fit."""
    kinds, others = ({name: type(m).__name__ for name, m in part.named_modules()} for part in (mine, theirs))
    shapes, sizes = ({key: tuple(v.shape) for key, v in part.state_dict().items()} for part in (mine, theirs))
    ends, limits = (
        {name: tuple(round(float(end), 3) for end in m.ends) for name, m in part.named_modules() if _fixed(m)}
        for part in (mine, theirs)
    )
    settings, values = (
        {name: said for name, m in part.named_modules() if (said := _settings(m))} for part in (mine, theirs)
    )
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (shapes, sizes), (kinds, others), (ends, limits), (settings, values),
    ]  # fmt: skip
    for here, there in pairs:
        name = next((name for name in [*here, *there] if here.get(name) != there.get(name)), None)
        if name is not None:
            said = f"{there.get(name, 'absent')} there, {here.get(name, 'absent')} here"
            return f"{name or 'its kind'} ({said})"
    return None


def _settings(module: torch.nn.Module) -> str:
    """Beside its weights what says what they compute, in words."""
    return ", ".join(f"{name} {getattr(module, name)}" for name in SETTINGS if hasattr(module, name))


def _fixed(module: torch.nn.Module) -> bool:
    """Whether this is a noise schedule whose ends are not trained."""
    return isinstance(module, Schedule) and not any(True for _ in module.parameters())


def _named(model: torch.nn.Module) -> str:
    return ", ".join(parts_of(model)) or "no parts with weights"


def _trains(stage: Stage) -> bool:
    frozen = {id(p) for module in stage.frozen for p in module.parameters()}
    return any(id(p) not in frozen for p in stage.density.parameters())
