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

from diled.config import Config, PoolConfig, PreprocessConfig, SequenceConfig, TextConfig, TrainingConfig
from diled.family import FAMILY, AutoencoderConfig, family_table
from diled.parts import DataDiffusionConfig, DiffusionConfig, NetworkConfig, NoiseConfig, PropertyConfig
from diled.studies.edit_pictures import pictured as pictured_edits
from diled.studies.questions_dmaapx import calibration, costs, pictured, statistics, widths
from diled.studies.records import read
from diled.studies.render import ablations, comparison, cost, family_figures, provenance_line, samples, speed
from diled.studies.render_dmaapx import ratios
from diled.studies.render_dmaapx import table as beside_the_paper
from diled.studies.render_images import images, latent_scale
from diled.studies.render_proteins import against, designs, proteins, smoothness
from diled.studies.render_targets import targets
from diled.studies.render_texts import SHORT, edit_curves, edited, texts, texts_beside_the_paper

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
        + table(
            head,
            options(AutoencoderConfig, "model")
            + options(NetworkConfig, "model.network")
            + options(PropertyConfig, "model.properties"),
        ),
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


FIGURES = {"bound_nats": "bound", "frechet_samples": "samples", "frechet_reconstructions": "reconstructions"}
"""Measured columns of the README's family table: metric -> heading."""


def short_family() -> str:
    """The family table for the README, with what is measured of it on grey digits."""
    keys = ["encoder", "decoder", "prior", "training", "bound"]
    rows = [[f"`{row['name']}`", *(row[key] for key in keys)] for row in family_table()]
    head = ["model", "encoder", "decoder", "prior", "training", "a bound?"]
    path = RESULTS / "digits-family.json"
    records = read(path)
    if not records:
        return table(head, rows)
    found = family_figures(path, list(FIGURES))
    rows = [[*row, *found[row[0].strip("`")]] for row in rows]
    real = dict(zip(FIGURES, found["*real data*"], strict=True))["frechet_samples"]
    n, of = (max((r.n or 0 for r in records if r.metric == m), default=0) for m in ("frechet_floor", "frechet_samples"))
    reached = f"real images reach {real} where samples are compared"
    if n < of:
        reached = f"{n:,} real images reach {real} where {of:,} samples are compared, and as many would come nearer"
    seeds = len({r.seed for r in records})
    steps = max(r.steps or 0 for r in records)
    said = (
        f"Measured on the grey digits of scikit-learn after {steps:,} steps each, mean over "
        f"{'one seed' if seeds == 1 else f'up to {seeds} seeds'}: the bound in nats, and Frechet distances of samples and of "
        f"reconstructions (lower is better; {f'{reached}; ' if real else ''}"
        "empty: no bound, no codes, or not recorded)."
    )
    return f"{table([*head, *FIGURES.values()], rows)}\n\n{said}\n\n{provenance_line(path)}"


RENDERERS: dict[str, Callable[[Path], str]] = {
    "speed": speed,
    "cost": cost,
    "ablations": ablations,
    "images-table": images,
    "latent-scale": latent_scale,
}
"""Studies with a layout of their own."""


def with_provenance(study: str, shown: str) -> str:
    """What is rendered from a study, and the records behind it once there are any."""
    path = RESULTS / f"{study}.json"
    return f"{shown}\n\n{provenance_line(path)}" if path.exists() else shown


def measured(study: str) -> str:
    """A study's tables and where they come from."""
    path = RESULTS / f"{study}.json"
    if study in RENDERERS:
        return with_provenance(study, RENDERERS[study](path))
    more = samples(path)
    return with_provenance(study, comparison(path) + (f"\n\n**More on samples**\n\n{more}" if more else ""))


def compared(study: str) -> str:
    """DiLED against the VAE and the best LDM of a table."""
    return targets(RESULTS / f"{study}.json")


def measured_in_short(study: str) -> str:
    """A study's table for the README."""
    return with_provenance(study, comparison(RESULTS / f"{study}.json", README_COLUMNS, variants=False))


README_COLUMNS = (
    "bound_nats",
    "rate_nats",
    "distortion_nats",
    "frechet_samples",
    "frechet_reconstructions",
    "cpu_seconds",
)

STUDIES = (
    "mnist-table",
    "mnist-table-20k",
    "mnist-prior",
    "ldm-selection",
    "beta-selection",
    "mnist-conv",
    "mnist-grey",
    "mnist-threshold",
    "digits-table",
    "digits-family",
    "images-table",
    "ablations",
    "speed",
    "cost",
)
"""Studies that the page of results shows."""

ARMS = (
    ("dmaapx-mnist", "mini"),
    ("dmaapx-fashion", "mini"),
    ("dmaapx-pool-size", "mini"),
    ("dmaapx-quality", "mini"),
    ("dmaapx-width", "mini"),
    ("dmaapx-diled", "mini"),
)
"""Studies of DMaaPx, and their scales, that the page on the audit shows."""


def with_ratios(study: str) -> str:
    """Speed ratios and the records behind them."""
    return with_provenance(study, ratios(RESULTS / f"{study}.json"))


def dmaapx(study: str, scale: str) -> str:
    """A table of DMaaPx beside the paper's numbers."""
    return beside_the_paper(RESULTS / "dmaapx.json", study, scale)


def of_arms(write: Callable[[Path, str, str], str], study: str) -> str:
    """What a study of DMaaPx answers beside the paper's table."""
    return write(RESULTS / "dmaapx.json", study, "mini")


def of_sequences(study: str, write: Callable[[Path], str]) -> str:
    """A table of proteins or of text, and the records behind it."""
    return with_provenance(study, write(RESULTS / f"{study}.json"))


GENERATED: dict[str, dict[str, Callable[[], str]]] = {
    "family.md": {"family": family, "options": model_options, "priors": prior_defaults},
    "your-own-data.md": {
        "preprocess": lambda: table(["option", "default", "meaning"], options(PreprocessConfig, "preprocess")),
    },
    "design.md": {
        "tree": tree,
        "training": training,
    },
    "audit.md": {
        "pool": lambda: table(["option", "default", "meaning"], options(PoolConfig, "pool")),
        **{f"{study}-{scale}": partial(dmaapx, study, scale) for study, scale in ARMS},
        **{f"{study}-costs": partial(of_arms, costs, study) for study in ("dmaapx-mnist", "dmaapx-pool-size")},
        "dmaapx-quality-statistics": partial(of_arms, statistics, "dmaapx-quality"),
        "dmaapx-width-grid": partial(of_arms, widths, "dmaapx-width"),
        "dmaapx-width-pictures": lambda: pictured(RESULTS / "dmaapx.json", DOCS / "images"),
        "dmaapx-calibration": lambda: calibration(RESULTS / "dmaapx.json"),
        **{study: partial(with_ratios, study) for study in ("amortization-speed", "synthesis-speed")},
    },
    "proteins.md": {
        "sequence": lambda: table(["option", "default", "meaning"], options(SequenceConfig, "preprocess.sequence")),
        **{study: partial(of_sequences, study, proteins) for study in ("gifford", "gfp", "gb1-low", "gb1-two")},
        "gifford-against": partial(of_sequences, "gifford", against),
        "gifford-smoothness": partial(of_sequences, "gifford", smoothness),
        "proteins-speed": partial(with_ratios, "proteins-speed"),
        "dmaapx-gifford-mini": partial(dmaapx, "dmaapx-gifford", "mini"),
        **{f"{study}-designs": partial(of_sequences, study, designs) for study in ("gifford", "gb1-low", "gb1-two")},
    },
    "text.md": {
        "text": lambda: table(["option", "default", "meaning"], options(TextConfig, "preprocess.text")),
        "yelp": partial(of_sequences, "yelp", partial(texts, metrics=SHORT)),
        "text-hold": partial(of_sequences, "text-hold", partial(texts, metrics=SHORT)),
        "dmaapx-yelp-mini": partial(dmaapx, "dmaapx-yelp", "mini"),
        "yelp-edits": partial(of_sequences, "yelp", partial(edited, variants=False)),
        "yelp-picture": lambda: pictured_edits(RESULTS / "yelp.json", DOCS / "images"),
        "yelp-gpu": partial(of_sequences, "yelp-gpu", texts),
        "yelp-gpu-paper": partial(of_sequences, "yelp-gpu", texts_beside_the_paper),
        "yelp-paper": partial(of_sequences, "yelp", texts_beside_the_paper),
        "texts-speed": partial(with_ratios, "texts-speed"),
    },
    "text-figures.md": {
        "yelp-all": partial(of_sequences, "yelp", texts),
        "text-hold-all": partial(of_sequences, "text-hold", texts),
        "yelp-all-edits": partial(of_sequences, "yelp", edited),
        "yelp-curves": partial(of_sequences, "yelp", edit_curves),
    },
    "objectives.md": {"latent-scale": partial(measured, "latent-scale")},
    "results.md": {
        **{study: partial(measured, study) for study in STUDIES},
        **{f"{study}-targets": partial(compared, study) for study in ("mnist-table", "mnist-table-20k")},
    },
    "../README.md": {
        "family": short_family,
        "mnist-table": partial(measured_in_short, "mnist-table"),
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
