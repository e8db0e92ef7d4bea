"""The command line: parses, calls the function of the same name in `verbs`, prints what it returns.

Options are made from the verb's own signature and from the configuration types, so that names, defaults and help have one
home. Values of a configuration stay text here: the types check them, as they check those of a file.

Exit codes: 0 success, 2 a mistake that the user can mend (one sentence, no traceback), 130 stopped by Ctrl-C or a
termination signal.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args, get_origin

from diled._version import __version__

if TYPE_CHECKING:
    from diled.config import Config

__all__ = ["main"]

HELP = """usage: diled VERB ...

Generate, reconstruct and represent with one diffusion autoencoder.

  train PATH              train a model on a folder, a file or a known data set
  sample RUN              draw new examples
  reconstruct RUN INPUT   encode and decode
  encode RUN INPUT        turn examples into codes (.npy, .parquet, .csv)
  score RUN INPUT         bound on -log p and predicted properties of each example
  interpolate RUN A B     walk from one example to another
  edit RUN INPUT          change an attribute, by a direction fitted to training data
  optimize RUN            propose sequences with a property (--property, --goal)
  search RUN QUERY        find the nearest examples in the latent space
  evaluate RUN            bound, rate, distortion, Frechet distances, reconstruction, probe
  audit MODEL ...         generalization, amortization and robustness gaps, of anybody's autoencoder
  compare RUN RUN ...     measure several runs side by side, or: compare PATH --minutes 10
  synthesize SOURCE       draw a training set from a model
  reproduce STUDY         train and audit a paper's arms, and print the table beside the paper's
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
    "score": ["run", "inputs"],
    "interpolate": ["run", "a", "b"],
    "edit": ["run", "inputs"],
    "optimize": ["run"],
    "search": ["run", "query"],
    "evaluate": ["run"],
    "audit": ["models"],
    "compare": ["sources"],
    "synthesize": ["source"],
    "reproduce": ["study"],
    "models": [],
    "data": ["source"],
    "demo": [],
}
SEVERAL = {"inputs", "query", "sources"}

OUT = {
    "sample": "samples.png",
    "reconstruct": "reconstructions.png",
    "encode": "codes.npy",
    "score": "scores.csv",
    "interpolate": "interpolation.png",
    "edit": "edited.png",
    "optimize": "designs.csv",
    "search": "neighbours.png",
}
"""Where the command line writes, inside the run's folder, or here for a model on the Hub, unless --out says otherwise."""
PRINTED = ("sample", "reconstruct", "interpolate", "edit")
"""Verbs whose result is printed where it is text."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    argv = argv[1:] if argv[:1] == ["--"] else argv  # where the options of torchrun end
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    from diled.errors import DiledError, Interrupted, TrainingError, did_you_mean
    from diled.runs import rank

    warnings.formatwarning = _sentence
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be no text in its encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    # Busy-waiting threads slow small models down 30-fold beside another process; torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if argv[0] not in POSITIONAL:
            raise DiledError(f"Unknown verb '{argv[0]}'.{did_you_mean(argv[0], POSITIONAL)}")
        return _run(argv[0], argv[1:])
    except BrokenPipeError:
        return 0
    except (DiledError, OSError) as error:
        if rank() == 0 or not isinstance(error, TrainingError):  # all processes stop with the same words
            print(f"diled: {error}", file=sys.stderr)
        return 130 if isinstance(error, Interrupted) else 2
    except KeyboardInterrupt:
        print("diled: stopped.", file=sys.stderr)
        return 130


_usual_format = warnings.formatwarning


def _sentence(message: Any, category: type[Warning], *place: Any, **line: Any) -> str:
    """What inputs lost as one sentence, as mistakes are told; other warnings as Python prints them."""
    from diled.errors import DataWarning

    return (
        f"diled: {message}\n" if issubclass(category, DataWarning) else _usual_format(message, category, *place, **line)
    )


def _run(verb: str, argv: list[str]) -> int:
    from diled import verbs

    function = getattr(verbs, verb)
    name, argv = _model_name(argv) if verb == "train" else (None, argv)
    if verb == "train":
        # Its one positional goes by name as well.
        argv = [word.removeprefix("--data=") for word in argv if word != "--data"]
    parser = _parser(verb, function, name or _name_in_file(argv) or "diled")
    given = vars(parser.parse_intermixed_args(argv))
    settings = {key: given.pop(key) for key in list(given) if "." in key}
    options = {key: value for key, value in given.items() if value is not None}
    if settings:
        options["settings"] = settings
    if name is not None:
        options["model"] = name
    if verb in OUT and "out" not in options:
        options["out"] = _place(verb, options["run"])
    positional = [options.pop(key) for key in POSITIONAL[verb] if key in options]
    if verb in ("audit", "compare"):
        positional = positional[0]
    result = function(*map(_given, positional), **options)
    if verb in PRINTED and options.get("out") is None:
        _print_sequences(result, positional[0])
    _show(verb, result, options.get("out"))
    return 0


def _print_sequences(values: Any, run: str) -> None:
    """One sequence a line."""
    from diled.config import DataSpec
    from diled.data import to_strings
    from diled.errors import ModelError
    from diled.hub import SOURCE, fetched
    from diled.models.io import read_config
    from diled.output import on_one_line

    texts = to_strings(values, DataSpec(**read_config(fetched(run, SOURCE, ModelError))["data"]))
    print("\n".join(map(on_one_line, texts)))


def _place(verb: str, given: str) -> str | None:
    """Where the verb writes unless --out says otherwise: a picture, or an array where the data are no images.

    Sequences are printed instead.
    """
    from diled.errors import ModelError
    from diled.hub import SOURCE, fetched, on_hub

    run = fetched(given, SOURCE, ModelError)
    try:
        data = json.loads((run / "config.json").read_text())["data"]
        images, sequences = data["kind"] == "image", data["kind"] in ("protein", "text")
        images &= data["shape"][0] in (1, 3, 4)  # as pictures have
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        images, sequences = True, False  # the verb itself will say what is wrong with the run
    if (verb == "search" and not images) or (verb in PRINTED and sequences):
        return None
    place = Path(OUT[verb]) if on_hub(given) else run / OUT[verb]
    if place.suffix == ".csv":
        return str(place)
    return str(place if images else place.with_suffix(".npy"))


def _given(value: Any) -> Any:
    """A list of one argument is that argument; of several, those that look like paths are paths."""
    if not isinstance(value, list):
        return value
    if len(value) == 1:
        return value[0]
    from diled.data.sequence_sources import looks_like_path

    return [Path(one) if looks_like_path(one) else one for one in value]


class _Parser(argparse.ArgumentParser):
    """Complaints in one sentence, with the nearest known option, or why the model has no such value."""

    model: str | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Before Python 3.14 argparse takes -1e-3 for an option.
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE)

    def error(self, message: str) -> NoReturn:
        from diled.errors import ConfigError, did_you_mean
        from diled.keys import foreign

        unknown = re.search(r"unrecognized arguments: (.*)", message)
        if unknown is None:
            raise ConfigError(f"{message.removeprefix('argument ')} ({self.prog} --help lists the options).")
        word = unknown[1].split()[0].split("=")[0]
        if not word.startswith("-"):
            raise ConfigError(f"'{word}' is one argument too many ({self.prog} --help lists them).")
        reason = foreign(self.model, word.split(".")[1:]) if self.model and word.startswith("--model.") else None
        if reason is not None:
            raise ConfigError(reason)
        if self.prog == "diled compare" and word.startswith("--model."):
            raise ConfigError(
                "compare trains models with their own values: train them one by one, then compare the runs."
            )
        known = [option[2:] for action in self._actions for option in action.option_strings if option[:2] == "--"]
        near = did_you_mean(word.lstrip("-"), known)
        hint = near.replace("'", "'--", 1) if near.startswith(" Did") else f" {self.prog} --help lists the options."
        raise ConfigError(f"Unknown option '{word}'.{hint}")


def _parser(verb: str, function: Callable[..., Any], model: str) -> argparse.ArgumentParser:
    """The parser of one verb: names, defaults and help are those of its function in `verbs`."""
    from docstring_parser import parse as parse_docstring

    from diled.config import PoolConfig, PreprocessConfig, TrainingConfig
    from diled.errors import ConfigError, did_you_mean
    from diled.family import FAMILY

    text = parse_docstring(function.__doc__ or "")
    help_of = {p.arg_name: p.description or "" for p in text.params}
    help_of |= {a.strip(): help_of[n] for n in list(help_of) for a in n.split(",")}
    parser = _Parser(prog=f"diled {verb}", description=text.short_description, allow_abbrev=False)
    for parameter in inspect.signature(function).parameters.values():
        if verb == "train" and parameter.name == "model":
            help = f"name in the family: {', '.join(FAMILY)}; the values listed below are those of {model}"
            parser.add_argument("--model", metavar="NAME", help=help)
        elif parameter.name != "settings":
            _add(parser, verb, parameter, help_of.get(parameter.name, ""))
    if verb == "train":
        if model not in FAMILY:
            raise ConfigError(f"Unknown model '{model}'.{did_you_mean(model, FAMILY)}")
        parser.model = model
        _add_group(parser, f"model {model}", "model", FAMILY[model])
    if verb in ("train", "compare"):
        _add_group(parser, "training", "training", TrainingConfig, skip={"seed", "device"})
    if verb in ("train", "compare", "data", "audit", "evaluate"):
        _add_group(parser, "preprocessing", "preprocess", PreprocessConfig)
    if verb in ("train", "compare"):
        _add_group(parser, "synthetic examples", "pool", PoolConfig)
    words = [a.dest.upper() for a in parser._actions if not a.option_strings]
    parser.usage = " ".join([parser.prog, *words, "[options]"])
    return parser


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() in ("true", "yes", "1")


TYPES: dict[str, Any] = {
    "int": int,
    "int | None": int,
    "float": float,
    "float | None": float,
    "bool": _boolean,
    "Device": Literal["auto", "cpu", "cuda", "mps"],
    "Literal['linear', 'spherical']": Literal["linear", "spherical"],
    "Literal['vector', 'classifier', 'ode']": Literal["vector", "classifier", "ode"],
    "Literal['euclidean', 'cosine']": Literal["euclidean", "cosine"],
    "Literal['fp32', 'bf16']": Literal["fp32", "bf16"],
    "Literal['stop', 'skip']": Literal["stop", "skip"],
}
"""What the annotations of the verbs mean on a command line, where it is not text."""


NUMBERS: dict[str, type[int | float]] = {"Sequence[int]": int, "Sequence[float]": float}
"""Lists of numbers, of all verbs."""
WITH_COMMAS = {"attribute", "data", "only"}
"""Lists whose members may hold commas themselves, so that only spaces part them: classes, paths, arms."""


def _several(name: str, number: type[int | float] | None) -> Callable[[str], list[Any]]:
    """One word of a list -> its members: `0.05,0.1` stands for `0.05 0.1`."""

    def read(text: str) -> list[Any]:
        parts = [text] if name in WITH_COMMAS else [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            raise argparse.ArgumentTypeError("at least one value is needed")
        if number is None:
            return parts
        found = []
        for part in parts:
            try:
                found.append(number(part))
            except ValueError:
                kind = "whole number" if number is int else "number"
                raise argparse.ArgumentTypeError(
                    f"'{part}' is no {kind}: part several by spaces or commas, such as 1 2 or 1,2"
                ) from None
        return found

    return read


class _Listed(argparse.Action):
    """The members of all words of a list."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        setattr(namespace, self.dest, [member for part in values for member in part])


def _add(parser: argparse.ArgumentParser, verb: str, parameter: inspect.Parameter, text: str) -> None:
    """One argument of a verb."""
    name, default = parameter.name, parameter.default
    text = text.replace("%", "%%")
    if name in POSITIONAL[verb]:
        several = name in SEVERAL or parameter.kind is inspect.Parameter.VAR_POSITIONAL
        parser.add_argument(name, nargs="?" if default is None else "+" if several else None, help=text)
        return
    annotation = str(parameter.annotation).replace('"', "'")
    kind = TYPES.get(annotation, str)
    required = default is inspect.Parameter.empty
    options: dict[str, Any] = {"help": text, "required": required, "default": None}
    if default not in (None, "", ()) and not required and default is not False:
        options["help"] += f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"
    if annotation == "bool" and default is False:
        options |= {"action": "store_true"}
        del options["default"]
    elif annotation.startswith("Sequence"):
        number = NUMBERS.get(annotation)
        metavar = "NAME" if number is None else _metavar(number)
        options |= {"nargs": "+", "metavar": metavar, "type": _several(name, number), "action": _Listed}
    elif get_origin(kind) is Literal:
        options |= {"choices": get_args(kind)}
    else:
        options |= {"type": kind, "metavar": _metavar(kind)}
    parser.add_argument("--" + name.replace("_", "-"), **options)


def _add_group(
    parser: argparse.ArgumentParser, title: str, path: str, kind: type[Config], skip: set[str] | None = None
) -> None:
    """An option for each value of a configuration type, nested ones with a dotted name."""
    from diled.config import Config

    group = parser.add_argument_group(title)

    def add(path: str, kind: type[Config], defaults: dict[str, Any]) -> None:
        for key, field in kind.model_fields.items():
            value, name = defaults.get(key, field.default), f"{path}.{key}"
            if isinstance(value, Config):
                add(name, type(value), value.model_dump())
            elif key not in (skip or ()):
                text = " ".join((field.description or "").replace("`", "").split()).replace("%", "%%")
                read, metavar = _reader(field.annotation), _metavar(field.annotation)
                flag: dict[str, Any] = {"nargs": "?", "const": "true"} if field.annotation is bool else {}
                group.add_argument(
                    f"--{name}", dest=name, type=read, metavar=metavar, default=argparse.SUPPRESS,
                    help=f"{text} (default: {value})", **flag,
                )  # fmt: skip

    add(path, kind, {})


def _reader(annotation: Any) -> Callable[[str], Any]:
    """Text -> text, a list where several numbers are wanted, or None where that is a value."""
    members = (annotation, *get_args(annotation))

    def read(text: str) -> Any:
        if type(None) in members and text.lower() in ("none", "null"):
            return None
        tuples = [get_args(member) for member in members if get_origin(member) is tuple]
        if tuples and ("," in text or tuples[0][-1] is Ellipsis):
            text = text.strip()
            inner = text[1:-1] if text[:1] + text[-1:] in ("[]", "()") else text
            return [part.strip() for part in inner.split(",") if part.strip()]
        return text

    return read


def _metavar(annotation: Any) -> str:
    """What a value looks like: `INT`, `{fp32,bf16}`."""
    members = [m for m in (get_args(annotation) or (annotation,)) if m is not type(None)]
    if get_origin(annotation) is Literal:
        return "{" + ",".join(map(str, members)) + "}"
    if get_origin(annotation) is tuple:
        kinds = [get_args(member)[0] if get_origin(member) is Annotated else member for member in members]
        return ",".join("..." if kind is Ellipsis else _metavar(kind) for kind in kinds)
    first = members[0]
    return {int: "INT", float: "NUMBER", bool: "true|false", _boolean: "true|false"}.get(first, "TEXT")


def _model_name(argv: list[str]) -> tuple[str | None, list[str]]:
    """`--model NAME` decides which values exist, so it is read first."""
    from diled.errors import ConfigError

    if sum(word == "--model" or word.startswith("--model=") for word in argv) > 1:
        raise ConfigError("--model is given twice: give it once.")
    for i, word in enumerate(argv):
        if word == "--model" and i + 1 < len(argv) and not argv[i + 1].startswith("-"):
            return argv[i + 1], argv[:i] + argv[i + 2 :]
        if word.startswith("--model="):
            return word.removeprefix("--model="), argv[:i] + argv[i + 1 :]
    return None, argv


def _name_in_file(argv: list[str]) -> str | None:
    """The model that a --config file names."""
    from diled.runs import model_named_in

    for i, word in enumerate(argv):
        if word == "--config" and i + 1 < len(argv):
            return model_named_in(argv[i + 1])
        if word.startswith("--config="):
            return model_named_in(word.removeprefix("--config="))
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
        values = "symbols" if spec.sequential else "grey values" if spec.levels else "values"
        kind = "text" if spec.kind == "text" else f"{spec.kind}s"
        print(f"{kind} of shape {spec.shape}; {spec.levels or 'continuous'} {values}")
        print(
            f"{len(result.train):,} for training, {len(result.validation):,} for validation, {len(result.test):,} for testing"
        )
        for column, names in spec.labels.items():
            print(f"label '{column}': {', '.join(names[:12]) if names else 'real numbers'}")
    elif verb == "reproduce":
        print(result)
    elif verb in ("optimize", "score"):
        print(result.text())
    elif verb == "search":
        from diled.output import on_one_line

        for row in result:
            text = any(": " in name for name, _ in row)
            print(("\n" if text else "  ").join(f"{on_one_line(name)} ({distance:.3g})" for name, distance in row))
    if verb in OUT and out is not None:
        print(f"Wrote {out}")


def _table(rows: list[dict[str, str]], columns: list[str]) -> None:
    widths = {c: max(len(c), *(len(str(row[c])) for row in rows)) for c in columns}
    for row in [{c: c for c in columns}, *rows]:
        print("  ".join(str(row[c]).ljust(widths[c]) for c in columns).rstrip())


if __name__ == "__main__":
    sys.exit(main())
