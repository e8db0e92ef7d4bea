"""Tables of measured numbers, as HTML, as Markdown and as plain text, from one layout.

Rounding. A number with a standard error is shown to the error's first significant digit, 98.3 ± 0.4, and to one digit
more where another number of its column has it. Without an error its size decides: 1,493, 104.6, 9.87, 0.951, 0.0312.
Decimal points are aligned. Bold is the best value of a column, and every value that prints the same; rows named in
`references` (floors, ceilings) are shown but do not compete.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from string import ascii_lowercase

__all__ = ["Cell", "Table", "table_html", "table_markdown", "table_text"]

ARROWS = {"lower": "↓", "higher": "↑"}
NONE = "–"
MOST_DECIMALS = 6
FIGURE_SPACE, POINT_SPACE = "\u2007", "\u2008"  # as wide as a tabular digit, and as a decimal point


@dataclass(frozen=True)
class Cell:
    """One measured value.

    Attributes:
        value: a number, a word, or None where there is nothing to report.
        stderr: its standard error, if known.
        note: a footnote, for example why there is no bound.
    """

    value: float | str | None
    stderr: float | None = None
    note: str = ""


Table = Mapping[str, Mapping[str, Cell]]
"""Row name -> column name -> cell."""


@dataclass(frozen=True)
class _Printed:
    """A cell as text. `pad` holds the spaces that bring its decimal point under the others."""

    value: str = NONE
    error: str = ""
    pad: str = ""
    mark: str = ""
    best: bool = False
    number: bool = False


@dataclass(frozen=True)
class _Layout:
    columns: dict[str, list[_Printed]]
    rows: list[str]
    notes: dict[str, str]
    arrows: set[str]


def table_html(
    table: Table,
    better: Mapping[str, str],
    *,
    references: Collection[str] = (),
    decorate: Callable[[str], str] = html.escape,
    key: bool = False,
) -> str:
    """An HTML `<table>`, followed by its footnotes.

    Args:
        table: row name -> column -> cell; an absent cell is shown as a dash.
        better: column -> `lower`, `higher` or an empty string.
        references: rows that are shown for orientation and do not compete for bold.
        decorate: turns a row's name into HTML; escapes it, as it stands.
        key: say below the table what its signs mean.
    """
    lay = _layout(table, better, references)
    wide = {name: any(p.error for p in cells) for name, cells in lay.columns.items()}
    head = "".join(_html_heading(_heading(name, better), wide[name]) for name in lay.columns)
    body = []
    for i, row in enumerate(lay.rows):
        cells = "".join(_html_cell(printed[i], wide[name]) for name, printed in lay.columns.items())
        kind = ' class="reference"' if row in references else ""
        body.append(f'<tr{kind}><th scope="row">{decorate(row)}</th>{cells}</tr>')
    notes = "".join(f"<li><sup>{m}</sup> {html.escape(text)}</li>" for m, text in lay.notes.items())
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    words = f'<p class="key">{_key(lay)}</p>' if key and _key(lay) else ""
    kind = "scroll table dense" if len(lay.columns) > 7 else "scroll table"
    return (
        f'<div class="{kind}" role="region" aria-label="Results" tabindex="0">\n<table>\n<thead><tr><td></td>'
        f"{head}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody></table></div>\n"
        f"{words}{notes}"
    )


def _key(lay: _Layout) -> str:
    """What bold type, arrows and ± mean, as far as the table has them."""
    printed = [p for cells in lay.columns.values() for p in cells]
    parts = []
    if any(p.best for p in printed):
        parts.append("Bold is the best of its column.")
    if any(name in lay.arrows for name in ARROWS):
        words = {"lower": "↓ lower is better", "higher": "↑ higher is better"}
        parts.append(", ".join(words[name] for name in ARROWS if name in lay.arrows) + ".")
    if any(p.error for p in printed):
        parts.append("± is one standard error.")
    return " ".join(parts)


def _html_heading(text: str, wide: bool) -> str:
    """A column's `<th>`; only long headings may break into lines."""
    kind = ' class="short"' if len(text) <= 14 else ""
    text = html.escape(text).replace(" ↓", "&nbsp;↓").replace(" ↑", "&nbsp;↑")
    return f'<th scope="col"{" colspan=2" if wide else ""}{kind}>{text}</th>'


def _html_cell(p: _Printed, wide: bool) -> str:
    """One `<td>`, or two where the column has standard errors, so that both parts align."""
    mark = f"<sup>{p.mark}</sup>" if p.mark else ""
    value = _typographic(p.value) if p.number else html.escape(p.value)
    kind = "best" if p.best else "" if p.number else "word"
    kind = f' class="{kind}"' if kind else ""
    value = f"<strong>{value}</strong>" if p.best else value
    if not wide:
        return f"<td{kind}>{value}{mark}{p.pad}</td>"
    if not p.error:  # the mark stands beside the value: an empty column between them would look like a slip
        return f"<td{kind}>{value}{mark}{p.pad}</td><td></td>"
    return f'<td{kind}>{value}{p.pad}</td><td class="error">±&nbsp;{_typographic(p.error)}{mark}</td>'


def _typographic(number: str) -> str:
    """A true minus sign, and powers of ten as one writes them."""
    mantissa, e, exponent = number.partition("e")
    power = f"&thinsp;×&thinsp;10<sup class=power>{int(exponent)}</sup>" if e else ""
    return (mantissa + power).replace("-", "−")


def table_markdown(table: Table, better: Mapping[str, str], *, references: Collection[str] = ()) -> str:
    """The table in Markdown, with footnotes below; arguments as for `table_html`."""
    lay = _layout(table, better, references)

    def safe(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")

    def cell(p: _Printed) -> str:
        text = safe(p.value) + (f" ± {p.error}" if p.error else "")
        return (f"**{text}**" if p.best else text) + (f" <sup>{p.mark}</sup>" if p.mark else "")

    lines = [
        "| " + " | ".join(["", *(safe(_heading(c, better)) for c in lay.columns)]) + " |",
        "|---|" + "---:|" * len(lay.columns),
        *(
            "| " + " | ".join([safe(row), *(cell(printed[i]) for printed in lay.columns.values())]) + " |"
            for i, row in enumerate(lay.rows)
        ),
    ]
    notes = [f"<sup>{m}</sup> {safe(text)}" for m, text in lay.notes.items()]
    return "\n".join([*lines, *(["", "<br>\n".join(notes)] if notes else [])]) + "\n"


def table_text(table: Table, better: Mapping[str, str], *, references: Collection[str] = ()) -> str:
    """The table as aligned plain text for a terminal; a star marks the best value. Arguments as for `table_html`."""
    lay = _layout(table, better, references)
    columns = [["", *lay.rows]]
    for name, printed in lay.columns.items():
        values = _right([p.value + " " * len(p.pad) for p in printed])
        errors = [f" ± {p.error}" if p.error else "" for p in printed]
        tails = [("*" if p.best else "") + (f" ({p.mark})" if p.mark else "") for p in printed]
        cells = [a + b + c for a, b, c in zip(values, _left(errors), _left(tails), strict=True)]
        columns.append(_right([_heading(name, better), *cells]))
    columns[0] = _left(columns[0])
    lines = ["  ".join(parts).rstrip() for parts in zip(*columns, strict=True)]
    lines.insert(1, "  ".join("-" * len(c[0]) for c in columns))
    if any(p.best for printed in lay.columns.values() for p in printed):
        lines += ["", "* best of its column"]
    return "\n".join([*lines, *(f"({m}) {text}" for m, text in lay.notes.items())]) + "\n"


def _left(parts: list[str]) -> list[str]:
    return [p.ljust(max(map(len, parts))) for p in parts]


def _right(parts: list[str]) -> list[str]:
    return [p.rjust(max(map(len, parts))) for p in parts]


def _heading(column: str, better: Mapping[str, str]) -> str:
    arrow = ARROWS.get(better.get(column, ""))
    return f"{column} {arrow}" if arrow else column


def _layout(table: Table, better: Mapping[str, str], references: Collection[str]) -> _Layout:
    """Everything that the three renderings share."""
    rows = list(table)
    names = list(dict.fromkeys(column for row in table.values() for column in row))
    marks: dict[str, str] = {}
    for row in table.values():  # letters in reading order
        for name in names:
            if name in row and row[name].note:
                marks.setdefault(row[name].note, _letters(len(marks)))
    columns = {}
    for name in names:
        cells = [table[row].get(name, Cell(None)) for row in rows]
        printed = _print_column(cells)
        best = _best(cells, printed, better.get(name, ""), [row not in references for row in rows])
        columns[name] = [
            replace(p, best=b, mark=marks.get(cell.note, "")) for p, b, cell in zip(printed, best, cells, strict=True)
        ]
    return _Layout(columns, rows, {mark: note for note, mark in marks.items()}, {better.get(n, "") for n in names})


def _letters(i: int) -> str:
    return ascii_lowercase[i % 26] * (i // 26 + 1)


def _number(cell: Cell) -> float | None:
    """The cell's value where it is a finite number."""
    if cell.value is None or isinstance(cell.value, str) or not math.isfinite(cell.value):
        return None
    return float(cell.value)


def _error(cell: Cell) -> float | None:
    """The standard error where it says something; an error of zero comes from a single draw and says nothing."""
    return float(cell.stderr) if cell.stderr is not None and math.isfinite(cell.stderr) and cell.stderr > 0 else None


def _decimals(cell: Cell) -> int | None:
    """Decimals that this cell alone would be shown with; None where the other cells decide."""
    value, error = _number(cell), _error(cell)
    if value is None:
        return None
    if error is not None:
        digits = -math.floor(math.log10(error))
        return max(0, digits - (round(error, digits) >= 10 ** (1 - digits)))  # 0.96 is rounded to 1, not to 1.0
    size = abs(value)
    if size == 0:
        return None
    return 0 if size >= 1000 else 1 if size >= 10 else 2 - math.floor(math.log10(size))


def _print_column(cells: list[Cell]) -> list[_Printed]:
    own = [_decimals(cell) for cell in cells]
    most = max((d for d in own if d is not None and d <= MOST_DECIMALS), default=0)
    printed = []
    for cell, d in zip(cells, own, strict=True):
        value, error = _number(cell), _error(cell)
        if value is None:
            printed.append(_Printed(_word(cell.value)))
        elif d is not None and d > MOST_DECIMALS:
            printed.append(_Printed(f"{value:.2e}", f"{error:.0e}" if error is not None else "", number=True))
        else:
            whole = error is None and (isinstance(cell.value, int) or abs(value) >= 1000)
            shown = 0 if whole else most if d is None else min(d + (error is not None), most)
            text = f"{value:,.{shown}f}"
            text = text.lstrip("-") if float(text.replace(",", "")) == 0 else text  # no "-0.0"
            gap = "" if shown == most else POINT_SPACE * (shown == 0) + FIGURE_SPACE * (most - shown)
            printed.append(_Printed(text, f"{error:,.{shown}f}" if error is not None else "", gap, number=True))
    return printed


def _word(value: float | str | None) -> str:
    """What stands where there is no finite number."""
    if isinstance(value, str):
        return value
    if value is not None and math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return NONE


def _best(cells: list[Cell], printed: list[_Printed], better: str, competes: list[bool]) -> list[bool]:
    """Which cells are the best of their column; none where fewer than two compete."""
    values = [_number(c) if ok else None for c, ok in zip(cells, competes, strict=True)]
    known = [v for v in values if v is not None]
    if better not in ARROWS or len(known) < 2:
        return [False] * len(cells)
    best = (min if better == "lower" else max)(known)
    winner = printed[values.index(best)].value
    return [v is not None and p.value == winner for v, p in zip(values, printed, strict=True)]
