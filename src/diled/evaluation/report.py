"""The report of a training or a comparison: one HTML file that needs nothing beside it, and its figures as PNG files.

    report.html     text, table and figures in a single file: no script, no link, no font from elsewhere
    figures/        the same figures for papers and slides: samples-DiLED.png, latent-DiLED.png, ...

Everything is made in memory and put in place at the end, figures first, so an interrupted write leaves the earlier report.
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from diled.evaluation import tables
from diled.evaluation.shown import Picture, Shown, file_names
from diled.evaluation.tables import Cell, Table, table_html, table_markdown

if TYPE_CHECKING:
    from diled.config import DataSpec

__all__ = [
    "Cell",
    "Shown",
    "described",
    "document",
    "dot",
    "figure_html",
    "provenance_html",
    "replace_file",
    "table_markdown",
    "table_text",
    "write_report",
]

LINE, NARROW = 120, 12  # characters of a printed line, and of a column at least
SWATCHES = 8  # as many as there are model colours in report.css and in plots.MODELS


def write_report(
    folder: Path,
    *,
    title: str,
    summary: Sequence[str],
    spec: DataSpec,
    models: Sequence[Shown],
    table: Table,
    better: Mapping[str, str],
    reading: Sequence[str],
    usage: str,
    provenance: Mapping[str, str],
    references: Collection[str] = (),
) -> Path:
    """Write `folder/report.html` and the PNG files in `folder/figures`, and return the path of the former.

    Args:
        folder: created if missing.
        title: the report's heading.
        summary: sentences that come first; the first one is set larger.
        spec: the kind and shape of the data.
        models: what to show of each model; with several, also a table of contents and pictures side by side.
        table: row name -> column -> cell.
        better: column -> `lower`, `higher` or an empty string.
        reading: sentences on how to read the table.
        usage: some lines of Python that use the model.
        provenance: command, commit, seed, hardware, versions, as name -> value.
        references: rows of the table (floors, ceilings) that do not compete for bold.

    Raises:
        OSError: the folder cannot be written; an earlier report in it is kept.
    """
    from diled.evaluation import figures, losses  # matplotlib takes a second to import

    terms = losses.same_terms([m.log for m in models])
    stems = file_names([m.name for m in models])
    texts: list[str] = [""] * len(models)
    beside: list[Picture] = []
    if spec.kind == "text":
        from diled.evaluation.text_report import text_blocks, text_pictures

        texts = [text_blocks(m, spec) for m in models]
        sections = [text_pictures(m, spec, stems[i], i, terms) for i, m in enumerate(models)]
    elif spec.sequential:
        from diled.evaluation.sequence_report import sequence_pictures, sequence_texts

        texts = [sequence_texts(m, spec) for m in models]
        sections = [sequence_pictures(m, spec, stems[i], i, terms) for i, m in enumerate(models)]
    else:
        sections = [figures.model_pictures(m, spec, stems[i], i, terms) for i, m in enumerate(models)]
        beside = figures.side_by_side(models, spec)
    page = _page(title, summary, spec, models, texts, sections, beside, _results(models, table, better, reading, references),
                 _usage(usage), provenance_html(provenance))  # fmt: skip
    pictures = [*(p for section in sections for p in section), *beside]
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for p in pictures:
        replace_file(folder / "figures" / p.file, p.light)
    replace_file(folder / "report.html", page.encode("utf-8", "backslashreplace"))
    return folder / "report.html"


def table_text(table: Table, better: Mapping[str, str], *, references: Collection[str] = ()) -> str:
    """A table as text, in blocks of columns that fit a line; see `tables.table_text`."""
    blocks: list[list[str]] = [[]]
    for column in dict.fromkeys(column for row in table.values() for column in row):
        if blocks[-1] and sum(max(len(c), NARROW) + 4 for c in [*blocks[-1], column]) > LINE:
            blocks.append([])
        blocks[-1].append(column)
    parts = [({name: {c: row[c] for c in some if c in row} for name, row in table.items()}, some) for some in blocks]
    texts = [
        tables.table_text(part, {c: better.get(c, "") for c in some}, references=references) for part, some in parts
    ]
    return "\n".join(texts)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that at any moment either the old or the new one is there, whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # mkstemp makes private files; a report is for others to read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _page(
    title: str,
    summary: Sequence[str],
    spec: DataSpec,
    models: Sequence[Shown],
    texts: Sequence[str],
    sections: Sequence[Sequence[Picture]],
    beside: Sequence[Picture],
    results: str,
    usage: str,
    provenance: str,
) -> str:
    """The whole document."""
    parts: list[tuple[str, str, str]] = []  # id, heading as HTML, content
    if results:
        parts.append(("results", "Results", results))
    if beside:
        parts.append(("beside", "Side by side", f'<div class="figures">{"".join(map(figure_html, beside))}</div>'))
    for i, (model, text, pictures) in enumerate(zip(models, texts, sections, strict=True)):
        heading = (dot(i) if len(models) > 1 else "") + escape(model.name)
        body = _facts(model) + f'<div class="figures">{text}{"".join(map(figure_html, pictures))}</div>'
        parts.append((f"model-{i + 1}", heading, body))
    parts += [(name, heading, body) for name, heading, body in (
        ("usage", "Use it", usage), ("provenance", "How this was made", provenance)) if body]  # fmt: skip
    return document(title, described(spec), summary, parts, contents=len(models) > 1)


def document(
    title: str, kind: str, summary: Sequence[str], parts: Sequence[tuple[str, str, str]], *, contents: bool = True
) -> str:
    """A whole HTML page that needs nothing beside it.

    Args:
        title: its heading.
        kind: what it is about, above the heading.
        summary: sentences that come first; the first one is set larger.
        parts: sections as (id, heading as HTML, content as HTML).
        contents: whether a list of the sections comes first.
    """
    listed = ""
    if contents:
        links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in parts)
        listed = f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n'
    body = "\n".join(f'<section id="{name}">\n<h2>{heading}</h2>\n{html}\n</section>' for name, heading, html in parts)
    lead = f'<p class="lead">{escape(summary[0])}</p>' if summary else ""
    rest = f"<p>{escape(' '.join(summary[1:]))}</p>" if len(summary) > 1 else ""
    style = resources.files("diled.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    # The policy is a second lock: should anything slip through unescaped, it can neither run nor load.
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="generator" content="diled">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<header>
<p class="kind">{escape(kind)}</p>
<h1>{escape(title)}</h1>
{lead}
{rest}
</header>
{listed}{body}
</main>
</body>
</html>
"""


def described(spec: DataSpec) -> str:
    """The data in words: `Images, 32 × 32, 3 channels, 256 levels`."""
    if spec.kind == "image":
        channels, height, width = spec.shape
        size = f"Images, {height} × {width} pixels, {channels} channel{'s' * (channels > 1)}"
    elif spec.kind == "text":
        return f"Text of at most {spec.numel} tokens, of {len(spec.symbols) - 1:,}"
    elif spec.sites:
        return f"Protein sequences of {len(spec.background or '')} residues, of which {len(spec.sites)} are modelled"
    elif spec.sequential:
        return f"Protein sequences of at most {spec.numel} residues"
    elif spec.kind == "signal":
        size = f"Signals of length {spec.shape[1]}, {spec.shape[0]} channel{'s' * (spec.shape[0] > 1)}"
    else:
        size = f"Vectors of {spec.shape[0]} dimensions"
    return size + (f", {spec.levels} levels" if spec.levels else "")


def _results(
    models: Sequence[Shown],
    table: Table,
    better: Mapping[str, str],
    reading: Sequence[str],
    references: Collection[str],
) -> str:
    """The table, what its signs mean, and how to read it."""
    html = ""
    if table:
        place = {m.name: i for i, m in enumerate(models)}

        def decorate(row: str) -> str:
            if len(models) < 2:
                return escape(row)
            return f'<span class="named">{dot(place.get(row))}<span>{escape(row)}</span></span>'

        html = table_html(table, better, references=references, decorate=decorate, key=True)
    if reading:
        points = "".join(f"<li>{escape(sentence)}</li>" for sentence in reading)
        html += f'\n<h3>How to read this</h3>\n<ul class="reading">{points}</ul>'
    return html


def dot(i: int | None) -> str:
    """A model's colour, or as much empty space."""
    if i is None:
        return '<span class="dot nodot"></span>'
    return f'<span class="dot" style="--dot: var(--m{i % SWATCHES})"></span>'


def _facts(model: Shown) -> str:
    parts = []
    if model.parameters is not None:
        n = model.parameters
        parts.append(f"{n / 1e6:.1f} million parameters" if n >= 1e6 else f"{n:,} parameters")
    if model.seconds is not None:
        parts.append(f"trained in {_duration(model.seconds)}")
    return f'<p class="facts">{" · ".join(parts)}</p>\n' if parts else ""


def _duration(seconds: float) -> str:
    """A time in its two largest units: `3.2 s`, `1 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    left = round(seconds)
    words: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or words:
            words.append(f"{left // size} {unit}" if left >= size else "")
            left %= size
        if len(words) == 2:
            break
    return " ".join(w for w in words if w)


def figure_html(picture: Picture) -> str:
    """A figure with its images inside the page. Titles come first, as figures of a row differ in height."""
    width, height = picture.size
    image = f'<img src="{_inline(picture.light)}" width="{width}" height="{height}" alt="{escape(picture.alt)}">'
    if picture.dark is not None:
        dark = f'<source media="(prefers-color-scheme: dark)" srcset="{_inline(picture.dark)}">'
        image = f"<picture>{dark}{image}</picture>"
    if picture.wide:
        image = f'<div class="scroll" role="region" aria-label="{escape(picture.title)}" tabindex="0">{image}</div>'
    words = f"<h3>{escape(picture.title)}</h3><p>{escape(picture.caption)}</p>"
    wide = ' class="wide"' if picture.wide else ""
    return f"\n<figure{wide}>\n<figcaption>{words}</figcaption>\n{image}\n</figure>"


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _usage(code: str) -> str:
    return f"<pre><code>{escape(code.strip())}</code></pre>" if code.strip() else ""


def provenance_html(facts: Mapping[str, str]) -> str:
    """Facts as a list of names and values."""
    rows = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    return f"<dl>{rows}</dl>" if rows else ""
