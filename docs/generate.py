"""Write the generated parts of these pages anew: what the code knows about itself is written down once, in the code.

    python docs/generate.py            write
    python docs/generate.py --check    say which pages are out of date, and exit with code 1 where any is

A generated part lies between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from diled.config import Config, PreprocessConfig, TrainingConfig
from diled.family import FAMILY, AutoencoderConfig, family_table
from diled.parts import DataDiffusionConfig, DiffusionConfig, NetworkConfig, NoiseConfig
from diled.studies.render import ablations, comparison, cost, provenance_line, speed

DOCS = Path(__file__).parent
SOURCE = DOCS.parent / "src" / "diled"
RESULTS = DOCS.parent / "results"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def family() -> str:
    """The rows of the family, as `diled.family` holds them."""
    keys = ["encoder", "decoder", "prior", "training", "bound", "citation"]
    rows = [[f"`{row['name']}`", row["title"], *(row[key] for key in keys)] for row in family_table()]
    return table(["name", "model", "encoder", "decoder", "prior", "training", "a bound?", "reference"], rows)


def options(kind: type[Config], prefix: str, only: set[str] | None = None) -> list[list[str]]:
    """Name, default and meaning of each option of a configuration type."""
    fields = {name: field for name, field in kind.model_fields.items() if only is None or name in only}
    return [
        [f"`--{prefix}.{name}`", shown_default(field), " ".join((field.description or "").split())]
        for name, field in fields.items()
        if not isinstance(field.default, Config)
    ]


def shown_default(field: FieldInfo) -> str:
    """A default as one would type it, and what else can be chosen."""
    value: Any = field.default
    if get_origin(field.annotation) is Literal:
        others = ", ".join(f"`{choice}`" for choice in get_args(field.annotation) if choice != value)
        return f"`{value}`; or {others}"
    return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def model_options() -> str:
    """The options that all models share, then what each adds."""
    head = ["option", "default", "meaning"]
    parts = [
        "Every model with a code and a likelihood:\n\n"
        + table(head, options(AutoencoderConfig, "model") + options(NetworkConfig, "model.network")),
        "Models with a diffusion over codes (`diled*`, `ldm`, `lsgm`, `diffae`):\n\n"
        + table(head, options(DiffusionConfig, "model.prior")),
        "Models with a diffusion over data, as `--model.diffusion` (`ddpm`, `edm`, `ndm`, `consistency`) or `--model.decoder` "
        "(`diled_diffusion_decoder`, `diffae`):\n\n" + table(head, options(DataDiffusionConfig, "model.diffusion")),
    ]
    own: dict[tuple[str, ...], list[str]] = {}
    for name, kind in FAMILY.items():
        for row in options(kind, "model", set(kind.model_fields) - set(AutoencoderConfig.model_fields)):
            own.setdefault(tuple(row), []).append(f"`{name}`")
    rows = [[row[0], ", ".join(names), row[1], row[2]] for row, names in own.items()]
    return "\n\n".join([*parts, "Single models:\n\n" + table(["option", "models", "default", "meaning"], rows)])


def training() -> str:
    """The options of the training; two of them belong to every verb, and are written without the group's name."""
    rows = options(TrainingConfig, "training")
    for row in rows:
        for name in ("seed", "device"):
            row[0] = row[0].replace(f"--training.{name}`", f"--{name}`")
    return table(["option", "default", "meaning"], rows)


def prior_defaults() -> str:
    """What single models set otherwise in their diffusions."""
    rows = []
    for name, kind in FAMILY.items():
        for key, field in kind.model_fields.items():
            default = field.default
            if isinstance(default, NoiseConfig) and default.model_fields_set:
                changed = ", ".join(
                    f"`{part}` `{getattr(default, part)}`"
                    for part in type(default).model_fields
                    if part in default.model_fields_set
                )
                rows.append(f"- `{name}`, `{key}`: {changed}")
    return "\n".join(rows)


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"(?<=[.!?])\s|:\n|\n\n", doc.strip(), maxsplit=1)[0]
    return " ".join(sentence.split()).rstrip(".:")


def tree() -> str:
    """Every file of the package with the first sentence of its docstring."""
    rows = []
    for path in sorted(SOURCE.rglob("*.py"), key=lambda p: (p.parent != SOURCE, p.parent.as_posix(), p.name)):
        name = path.relative_to(SOURCE).as_posix()
        rows.append(
            [f"**`{name.removesuffix('__init__.py')}`**" if "/__init__" in name else f"`{name}`", first_sentence(path)]
        )
    return table(["file", "what it holds"], rows)


def short_family() -> str:
    """The family table for the README."""
    keys = ["encoder", "decoder", "prior", "training", "bound"]
    rows = [[f"`{row['name']}`", *(row[key] for key in keys)] for row in family_table()]
    return table(["model", "encoder", "decoder", "prior", "training", "a bound?"], rows)


def measured(study: str, columns: tuple[str, ...] | None = None) -> str:
    """A study's table and where it comes from."""
    path = RESULTS / f"{study}.json"
    if study in ("speed", "cost"):
        shown = {"speed": speed, "cost": cost}[study](path)
    else:
        shown = comparison(path, columns) if columns else comparison(path)
    return f"{shown}\n\n{provenance_line(path)}" if path.exists() else shown


def ablated() -> str:
    """The tables of the ablations, and where they come from once there are any."""
    path = RESULTS / "ablations.json"
    return f"{ablations(path)}\n\n{provenance_line(path)}" if path.exists() else ablations(path)


README_COLUMNS = (
    "bound_nats",
    "rate_nats",
    "distortion_nats",
    "frechet_samples",
    "frechet_reconstructions",
    "cpu_seconds",
)

GENERATED: dict[str, dict[str, Callable[[], str]]] = {
    "family.md": {"family": family, "options": model_options, "priors": prior_defaults},
    "your-own-data.md": {
        "preprocess": lambda: table(["option", "default", "meaning"], options(PreprocessConfig, "preprocess")),
    },
    "design.md": {
        "tree": tree,
        "training": training,
    },
    "results.md": {
        "ablations": ablated,
        **{
            study: partial(measured, study)
            for study in ("mnist-table", "ldm-selection", "digits-table", "speed", "cost")
        },
    },
    "../README.md": {
        "family": short_family,
        "mnist-table": partial(measured, "mnist-table", README_COLUMNS),
    },
}
"""Page -> name of a part -> what writes it."""


def renewed(page: str) -> str:
    """The text of a page with its generated parts written anew."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, write in GENERATED[page].items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{write()}\n\n{end}{rest.split(end)[1]}"
    return text


def shown(page: str) -> str:
    """A page's path from the root."""
    return (DOCS / page).resolve().relative_to(DOCS.parent).as_posix()


def main(arguments: list[str]) -> int:
    """Write, or check."""
    old = [page for page in GENERATED if renewed(page) != (DOCS / page).read_text(encoding="utf-8")]
    if "--check" in arguments:
        for page in old:
            print(f"{shown(page)} is out of date: run `make docs`", file=sys.stderr)
        return 1 if old else 0
    for page in old:
        (DOCS / page).write_text(renewed(page), encoding="utf-8")
        print(f"wrote {shown(page)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
