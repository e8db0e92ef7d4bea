"""The command line: parses, calls the function of the same name in `verbs.py`, prints what it returns.

Exit codes: 0 success, 2 a mistake that the user can mend (one sentence, no traceback), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from diled._version import __version__

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["main"]

HELP = """usage: diled VERB ...

Generate, reconstruct and represent with one diffusion autoencoder.

  train PATH              train a model on a folder, a file or a known data set
  sample RUN              draw new examples
  reconstruct RUN INPUT   encode and decode
  encode RUN INPUT        turn examples into codes (.npy, .parquet)
  interpolate RUN A B     walk from one example to another
  edit RUN INPUT          change an attribute, by a direction fitted to training data
  search RUN QUERY        find the nearest examples in the latent space
  evaluate RUN            bound, rate, distortion, Frechet distances, reconstruction, probe
  compare RUN RUN ...     measure several runs side by side, or: compare PATH --minutes 10
  models                  the family: every model and its parts
  data [PATH]             the known data sets, or what is found in a folder or file
  demo                    train three models on bundled digits and write a report

diled VERB --help tells more.  diled --version prints the version.
"""

POSITIONAL = {
    "train": ["data"],
    "sample": ["run"],
    "reconstruct": ["run", "inputs"],
    "encode": ["run", "inputs"],
    "interpolate": ["run", "a", "b"],
    "edit": ["run", "inputs"],
    "search": ["run", "query"],
    "evaluate": ["run"],
    "compare": ["sources"],
    "models": [],
    "data": ["source"],
    "demo": [],
}
SEVERAL = {"inputs", "query", "sources"}

OUT = {
    "sample": "samples.png",
    "reconstruct": "reconstructions.png",
    "encode": "codes.npy",
    "interpolate": "interpolation.png",
    "edit": "edited.png",
    "search": "neighbours.png",
}
"""Where the command line writes, inside the run's folder, unless --out says otherwise."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    from diled.errors import DiledError, did_you_mean

    # Busy-waiting threads slow small models down 30-fold beside another process; torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if argv[0] not in POSITIONAL:
            raise DiledError(f"Unknown verb '{argv[0]}'.{did_you_mean(argv[0], POSITIONAL)}")
        return _run(argv[0], argv[1:])
    except DiledError as error:
        print(f"diled: {error}", file=sys.stderr)
        return 130 if type(error).__name__ == "Interrupted" else 2
    except KeyboardInterrupt:
        print("diled: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _run(verb: str, argv: list[str]) -> int:
    from diled import verbs

    function = getattr(verbs, verb)
    name, argv = _model_name(argv) if verb == "train" else (None, argv)
    parser = _parser(verb, function, name or _name_in_file(argv) or "diled")
    given = parser.parse_args(argv, defaults=False).as_dict()
    settings = {group: given.pop(group) for group in GROUPS if given.get(group)}
    options = {key: value for key, value in given.items() if value is not None}
    if settings:
        options["settings"] = settings
    if name is not None:
        options["model"] = name
    if verb in OUT and "out" not in options:
        options["out"] = str(Path(options["run"]) / OUT[verb])
    positional = [options.pop(key) for key in POSITIONAL[verb] if key in options]
    if verb == "compare":
        positional = positional[0]
    _show(verb, function(*(_alone(value) for value in positional), **options), options.get("out"))
    return 0


def _alone(value: Any) -> Any:
    """A list of one path is that path."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _parser(verb: str, function: Any, model: str) -> ArgumentParser:
    """The parser of one verb: names, defaults and help are those of its function in `verbs.py`."""
    from docstring_parser import parse as parse_docstring
    from jsonargparse import ArgumentParser

    from diled.config import PreprocessConfig, TrainingConfig
    from diled.errors import ConfigError, did_you_mean

    class Parser(ArgumentParser):
        """Complaints in one sentence, with the nearest known option."""

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            text = str(ex or message).strip()
            unknown = re.search(r"[Uu]nrecognized arguments?: (--[^ =]+)", text)
            if unknown:
                known = [option for action in self._actions for option in action.option_strings]
                raise ConfigError(f"Unknown option '{unknown[1]}'.{_nearest(unknown[1], known)}")
            lines = [line.strip(" -") for line in text.splitlines() if line.strip()]
            raise ConfigError(f"{' '.join(lines[:3])} (diled {verb} --help lists the options)")

    def _nearest(name: str, known: list[str]) -> str:
        said = did_you_mean(name, known)
        return said if said.startswith(" Did") else f" diled {verb} --help lists the options."

    text = parse_docstring(function.__doc__)
    help_of = {p.arg_name: (p.description or "").replace("%", "%%") for p in text.params}
    help_of |= {a.strip(): help_of[n] for n in list(help_of) for a in n.split(",")}
    parser = Parser(prog=f"diled {verb}", description=text.short_description)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name != "settings" and not (verb == "train" and parameter.name == "model"):
            _add(parser, verb, parameter, help_of.get(parameter.name, ""))
    if verb == "train":
        from diled.family import FAMILY

        if model not in FAMILY:
            raise ConfigError(f"Unknown model '{model}'.{did_you_mean(model, FAMILY)}")
        parser.add_class_arguments(FAMILY[model], "model")
        whole = next(action for action in parser._actions if action.option_strings == ["--model"])
        whole.help, whole.metavar = (
            f"Name in the family ({', '.join(FAMILY)}); the values below are those of {model}.",
            "NAME",
        )
    if verb in ("train", "compare"):
        parser.add_class_arguments(TrainingConfig, "training", skip={"seed", "device"})
    if verb in ("train", "compare", "data"):
        parser.add_class_arguments(PreprocessConfig, "preprocess")
    return parser


TYPES: dict[str, Any] = {
    "Run": str,
    "Any": str,
    "str": str,
    "str | None": str,
    "str | Path": str,
    "str | Path | None": str,
    "int": int,
    "int | None": int,
    "float": float,
    "float | None": float,
    "Sequence[str]": list[str],
    "Device": Literal["auto", "cpu", "cuda", "mps"],
    "Literal['linear', 'spherical']": Literal["linear", "spherical"],
    "Literal['vector', 'classifier']": Literal["vector", "classifier"],
    "Literal['euclidean', 'cosine']": Literal["euclidean", "cosine"],
}
"""What the annotations of the verbs mean on a command line."""

GROUPS = ("model", "training", "preprocess")


def _add(parser: ArgumentParser, verb: str, parameter: inspect.Parameter, text: str) -> None:
    name, annotation = parameter.name, str(parameter.annotation).replace('"', "'")
    if name in POSITIONAL[verb]:
        if parameter.default is None:
            parser.add_argument(name, type=str, nargs="?", help=text)
        elif name in SEVERAL or parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            parser.add_argument(name, type=str, nargs="+", help=text)
        else:
            parser.add_argument(name, type=TYPES[annotation], help=text)
        return
    option = "--" + name.replace("_", "-")
    if annotation == "bool" and parameter.default is False:
        parser.add_argument(option, action="store_true", help=text)
    elif annotation == "bool":
        parser.add_argument(option, type=bool, default=parameter.default, help=text)
    elif annotation == "Sequence[str]":
        parser.add_argument(option, type=str, nargs="+", default=list(parameter.default), help=text)
    else:
        required = parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        parser.add_argument(option, type=TYPES[annotation], default=default, required=required, help=text)


def _model_name(argv: list[str]) -> tuple[str | None, list[str]]:
    """`--model NAME` decides which values exist, so it is read first."""
    for i, word in enumerate(argv):
        if word == "--model" and i + 1 < len(argv):
            return argv[i + 1], argv[:i] + argv[i + 2 :]
        if word.startswith("--model="):
            return word.removeprefix("--model="), argv[:i] + argv[i + 1 :]
    return None, argv


def _name_in_file(argv: list[str]) -> str | None:
    """The model that a --config file names."""
    from diled.runs import read_settings

    for i, word in enumerate(argv):
        path = argv[i + 1] if word == "--config" and i + 1 < len(argv) else word.removeprefix("--config=")
        if word == "--config" or word.startswith("--config="):
            model = read_settings(path).get("model")
            return model.get("name") if isinstance(model, dict) else model
    return None


def _show(verb: str, result: Any, out: str | None) -> None:
    """Print what a verb returned, where it has not printed by itself."""
    if verb == "models":
        _table(result, ["name", "encoder", "decoder", "prior", "training", "bound"])
    elif verb == "data" and isinstance(result, list):
        _table([dict(zip(("name", "what", "where"), row, strict=True)) for row in result], ["name", "what", "where"])
    elif verb == "data":
        print("\n".join(result.notes))
        spec = result.spec
        print(
            f"{spec.kind}s of shape {spec.shape}; {spec.levels or 'continuous'} {'grey values' if spec.levels else 'values'}"
        )
        print(
            f"{len(result.train):,} for training, {len(result.validation):,} for validation, {len(result.test):,} for testing"
        )
        for column, names in spec.labels.items():
            print(f"label '{column}': {', '.join(names[:12]) if names else 'real numbers'}")
    elif verb == "search":
        for row in result:
            print("  ".join(f"{name} ({distance:.3g})" for name, distance in row))
    if verb in OUT:
        print(f"Wrote {out}")


def _table(rows: list[dict[str, str]], columns: list[str]) -> None:
    widths = {c: max(len(c), *(len(str(row[c])) for row in rows)) for c in columns}
    for row in [{c: c for c in columns}, *rows]:
        print("  ".join(str(row[c]).ljust(widths[c]) for c in columns).rstrip())


if __name__ == "__main__":
    sys.exit(main())
