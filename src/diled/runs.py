"""A run: what is trained on what, how, and where it is kept. No torch here.

runs/digits-diled/
    run.json           the resolved configuration: everything that is needed to train it again
    data.json          which examples it is trained and tested on
    pool.json          where it is trained on a synthetic set: which one
    config.json        what is needed to load the model
    model.safetensors  its averaged weights
    provenance.json    command, commit, hardware, versions, seconds
    log.jsonl          training curves
    evaluation.json    its figures
    report.html        to look at
    checkpoints/       while it trains
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from pydantic import SerializeAsAny

from diled._version import __version__
from diled.config import Config, PoolConfig, PreprocessConfig, TrainingConfig, validated
from diled.errors import ConfigError, did_you_mean
from diled.family import FAMILY, ModelConfig, model_config
from diled.keys import check_keys

__all__ = [
    "RunConfig",
    "claim_folder",
    "merged",
    "model_named_in",
    "nested",
    "new_folder",
    "provenance",
    "rank",
    "read_run",
    "read_settings",
    "resolve",
]


class RunConfig(Config):
    """Everything that determines a training."""

    data: str
    """A name or a path."""
    name: str = "diled"
    """Of the model."""
    model: SerializeAsAny[ModelConfig]
    """Its values."""
    training: TrainingConfig = TrainingConfig()
    """The recipe."""
    preprocess: PreprocessConfig = PreprocessConfig()
    """How raw examples become the model's input."""
    pool: PoolConfig = PoolConfig()
    """Synthetic training examples."""
    init_from: str | None = None
    """A run whose parts the model starts from."""
    init_parts: tuple[str, ...] = ()
    """Which parts it takes from there, the others start afresh; none named: all that fit."""
    freeze: tuple[str, ...] = ()
    """Parts that stay as they are: `encoder`, `decoder`, `prior`."""


GROUPS: dict[str, type[Config]] = {"training": TrainingConfig, "preprocess": PreprocessConfig, "pool": PoolConfig}


def resolve(
    data: str | None,
    model: str | None = None,
    config: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    *,
    seed: int | None = None,
    device: str | None = None,
    init_from: str | None = None,
    freeze: tuple[str, ...] = (),
) -> RunConfig:
    """The configuration of a run from a file, then settings, then arguments; later ones win.

    Of `training.steps` and `training.epochs`, which both set the length, only the later one is left.

    Args:
        data: name or path; may come from the file.
        model: name in the zoo; may come from the file, else `diled`.
        config: a YAML or JSON file with the keys `data`, `model` (a name, or values with `name`), `training`, `preprocess`,
            `pool`.
        settings: values by dotted key, {"model.latent_dim": 64}, or nested dictionaries.
        seed, device: of the training; None and `auto` leave what the file says.
        init_from, freeze: see `RunConfig`.

    Raises:
        ConfigError: an unknown key or value, or no data.
    """
    values = nested(read_settings(config)) if config is not None else {}
    name, chosen = _model_of(values)
    given = nested(settings or {})
    named, more = _model_of(given)
    chosen, values = merged(chosen, more), merged(_without_other_length(values, given), given)
    values |= {key: value for key, value in (("data", data), ("init_from", init_from)) if value is not None}
    if freeze:
        values["freeze"] = freeze
    elif isinstance(values.get("freeze"), str):
        values["freeze"] = (values["freeze"],)
    unknown = set(values) - set(RunConfig.model_fields)
    if unknown:
        key = sorted(unknown)[0]
        raise ConfigError(f"Unknown key '{key}'.{did_you_mean(key, [*RunConfig.model_fields])}")
    if "data" not in values:
        raise ConfigError("No data: give a name (digits, mnist, ...) or a path. `diled data` lists the known sets.")
    groups = {key: _mapping(values, key) for key in GROUPS}
    groups["training"] |= {k: v for k, v in (("seed", seed), ("device", device)) if v not in (None, "auto")}
    name = model or named or name or "diled"
    check_keys(name, chosen)
    values |= {key: validated(kind, groups[key], key) for key, kind in GROUPS.items()}
    values |= {"name": name, "model": model_config(name, chosen)}
    return validated(RunConfig, values)


def _without_other_length(values: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Settings without `training.steps` where later ones have `training.epochs`, and the other way round.

    Where either have both, which is refused, nothing is left out.
    """
    training, more = values.get("training"), later.get("training")
    if not isinstance(training, dict) or not isinstance(more, dict):
        return values
    own, new = ({key for key in ("steps", "epochs") if group.get(key) is not None} for group in (training, more))
    if len(own) != 1 or len(new) != 1:
        return values
    return values | {"training": {key: value for key, value in training.items() if key not in own - new}}


def model_named_in(path: str | Path) -> str | None:
    """The name of the model in a configuration file; None where it names none.

    Raises:
        ConfigError: the file cannot be read.
    """
    return _model_of(nested(read_settings(path)))[0]


def _model_of(values: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Take the model's name and values out of settings, where `model` is either, or both with `name` among the values.

    In run.json, which is a configuration file as well, the name stands beside the values.
    """
    chosen, name = values.pop("model", None), values.pop("name", None)
    if isinstance(chosen, str):
        return chosen, {}
    chosen = dict(_mapping({"model": chosen}, "model"))
    return chosen.pop("name", name), chosen


def _mapping(values: dict[str, Any], key: str) -> dict[str, Any]:
    """The group `key` of settings, which may be missing.

    Raises:
        ConfigError: it is no mapping.
    """
    group = values.get(key)
    if group is None:
        return {}
    if not isinstance(group, dict):
        raise ConfigError(f"'{key}' holds keys and values, not {group!r}.")
    return dict(group)


def read_settings(path: str | Path) -> dict[str, Any]:
    """A YAML or JSON file as a dictionary.

    Raises:
        ConfigError: it is missing or no mapping.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"The configuration file {path} is no text.") from None
    except OSError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.y*ml")] if path.parent.exists() else [])
        raise ConfigError(f"The configuration file {path} cannot be read.{near}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"The configuration file {path} is no valid YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"The configuration file {path} must hold keys and values.")
    return values


def read_run(folder: str | Path) -> RunConfig:
    """The configuration that was saved with a run.

    Raises:
        ConfigError: there is none, or it is of another version.
    """
    path = Path(folder) / "run.json"
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict) or not isinstance(values.get("model"), dict):
            raise ValueError("it holds no values of a model")
        kind = FAMILY[values["name"]]
    except OSError:
        raise ConfigError(f"{folder} is no run: there is no run.json.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged, or of another version of diled ({error}).") from None
    values["model"] = validated(kind, values["model"], "model")
    return validated(RunConfig, values)


def new_folder(out: str | Path | None, data: str, name: str) -> Path:
    """The folder of a new run: `out`, else `runs/<data>-<name>` with a number where that is taken.

    Raises:
        ConfigError: `out` exists and holds something; nothing is ever overwritten.
    """
    if out is not None:
        folder = Path(out)
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            began = (folder / "run.json").exists() and not (folder / "config.json").exists()
            go_on = f", or go on with its training: diled train --resume {folder}" if began else "."
            raise ConfigError(f"{folder} exists and is not empty; nothing is overwritten. Choose another --out{go_on}")
        return folder
    stem = Path(str(data).rstrip("/")).name.split(".")[0] or "data"
    first = Path("runs") / f"{stem}-{name}"
    number, folder = 2, first
    while os.path.lexists(folder):
        folder, number = first.with_name(f"{first.name}-{number}"), number + 1
    return folder


def claim_folder(out: str | Path | None, data: str, name: str) -> Path:
    """Make the folder that `new_folder` names, with an empty run.json, so that of several trainings one alone gets it.

    Raises:
        ConfigError: as `new_folder`, also where another training took `out` meanwhile.
        OSError: it cannot be made.
    """
    while True:
        folder = new_folder(out, data, name)
        try:
            folder.mkdir(parents=True, exist_ok=out is not None)
            (folder / "run.json").touch(exist_ok=False)
            return folder
        except FileExistsError:  # another training was faster: the next number, or for `out` its refusal
            if not os.path.lexists(folder):
                raise  # it is something above the folder that is in the way


def rank() -> int:
    """Which of several processes this is, as torchrun, SLURM or the engine says; the first one writes and prints.

    Processes that the engine starts within a SLURM task inherit the task's number and have LOCAL_RANK of their own. Where
    srun started them all, its number counts: the engine tells that by the same two variables.
    """
    by_srun = "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK") if by_srun else ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), 0)


def provenance(**more: Any) -> dict[str, Any]:
    """Command, commit, hardware and versions, as they are now, and whatever is added."""
    packages = ("torch", "lightning", "numpy")
    return {
        "command": command(),
        "commit": commit(),
        "diled": __version__,
        "python": platform.python_version(),
        "hardware": hardware(),
        "versions": {name: metadata.version(name) for name in packages},
        **more,
    }


def command() -> str:
    """The command line of this process, with the program's bare name."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    program = "diled" if program in ("__main__.py", "cli.py") else program
    return shlex.join([program, *sys.argv[1:]])


def commit() -> str | None:
    """The commit of the checkout this library runs from, with `-dirty` where files under src differ; None elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        run = ["git", "-C", str(root)]
        head = subprocess.run([*run, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*run, "status", "--porcelain", "--", "src", "benchmarks"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def hardware() -> str:
    """Processor and cores; where torch is loaded, also its widest instructions that torch uses, and the GPU that it sees."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    said = f"{model}, {os.cpu_count()} cores"
    torch = sys.modules.get("torch")
    if torch is not None:
        said += f", {torch.backends.cpu.get_cpu_capability()}"
    if torch is not None and torch.cuda.is_available():
        said += f", {torch.cuda.get_device_name()}"
    return said


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """{"model.latent_dim": 64} -> {"model": {"latent_dim": 64}}."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        place = out
        *path, last = str(key).split(".")
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"'{key}' is set, and '{part}' as well, as {place!r}: leave one out.")
        if isinstance(value, dict):
            value = nested(value)
            place[last] = merged(place.get(last, {}), value)
        else:
            place[last] = value
    return out


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries, with the second's values where both have one."""
    out = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out
