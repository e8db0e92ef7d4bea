"""The report: what it writes, that it is safe and self-contained, and that pixels and digits are where they should be."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diled.config import DataSpec
from diled.data.splits import Data, Split
from diled.evaluation import audit_page, figures, grids, losses, panels, plots
from diled.evaluation import report as report_module
from diled.evaluation.measure import Measured
from diled.evaluation.report import Cell, Shown, described, table_markdown, table_text, write_report
from diled.evaluation.sequence_report import dotted, draw_frequencies
from diled.evaluation.sequences import frequencies
from diled.evaluation.shown import file_names
from diled.evaluation.tables import table_html
from diled.reporting import READING, fitting, summary_of, table_of, usage

DIGITS = DataSpec(kind="image", shape=(1, 8, 8), levels=17, high=16)


@pytest.fixture(autouse=True, scope="module")
def coarse_drawings():
    """Drawings of a quarter of the resolution, for speed."""
    before, plots.DPI = plots.DPI, 50
    yield
    plots.DPI = before


def log_of(*stages, bound=True):
    """A log like the engine's."""
    lines = []
    for stage, steps in stages:
        for step in range(50, steps + 1, 50):
            terms = {"distortion": 80 + 900 / step, "rate": 20 - 100 / step}
            lines.append({"stage": stage, "step": step, "loss": sum(terms.values()), "terms": terms})
        seen = {"bound" if bound else "loss": 102.0, "rate": 19.0}
        lines.append({"stage": stage, "step": steps, "validation": seen})
    return lines


def example(name="DiLED", shape=(1, 8, 8), seed=0, **changes):
    """Random material for one model."""
    rng = np.random.default_rng(seed)

    def x(*lead):
        return rng.uniform(-1, 1, (*lead, *shape)).astype(np.float32)

    parts = {
        "samples": x(16),
        "originals": x(8),
        "reconstructions": x(8),
        "interpolations": x(2, 5),
        "interpolation_ends": x(2, 2),
        "codes": rng.normal(size=(40, 6)),
        "labels": np.arange(40) % 3,
        "class_names": ["a", "b", "c"],
        "log": log_of(("joint", 300)),
        "seconds": 81.3,
        "parameters": 42310,
    }
    return Shown(name, **(parts | changes))


TABLE = {
    "DiLED": {"bound": Cell(98.312, 0.42), "probe": Cell(0.9312), "size": Cell(42310)},
    "VAE": {"bound": Cell(101.2, 0.5), "probe": Cell(0.9481), "size": Cell(1200)},
    "LDM": {"bound": Cell(None, note="Its code has no entropy."), "probe": Cell(0.9), "size": Cell(7)},
}
BETTER = {"bound": "lower", "probe": "higher", "size": ""}


def write(folder, models, spec=DIGITS, **changes):
    parts = {
        "title": "A report",
        "summary": ["First.", "Second.", "Third."],
        "table": TABLE,
        "better": BETTER,
        "reading": ["Lower is better."],
        "usage": "import diled\nmodel = diled.load('run')",
        "provenance": {"seed": "0"},
    }
    return write_report(folder, spec=spec, models=models, **(parts | changes))


SEQUENCES = DataSpec(kind="protein", shape=(4,), levels=4, symbols=("", "A", "C", "<"))


def of_sequences(**changes):
    """Material of a model of sequences, by hand."""
    rows = np.array([[1, 2, 3, 0], [2, 2, 1, 1], [1, 0, 0, 0], [1, 2, 1, 1]])
    parts = {"originals": rows, "reconstructions": rows[[1, 1, 0, 3]], "interpolations": rows[None, [0, 3, 1]]}
    return example("VAE", (4,), **({"samples": rows, "interpolation_ends": rows[None, :2], **parts} | changes))


class Page(HTMLParser):
    """Collects what the tests ask for, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "img", "source", "br", "link"})

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.data: list[tuple[str, str]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.data.append((self.open[-1] if self.open else "", data))

    def of(self, tag):
        return [attrs for t, attrs in self.tags if t == tag]


def pixels_of(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


# --- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A report of three models, one of them in two stages."""
    folder = tmp_path_factory.mktemp("report")
    models = [
        example("DiLED"),
        example("VAE", seed=1),
        example("LDM", log=log_of(("autoencoder", 200), ("prior", 100))),
    ]
    path = write(folder, models)
    return path, path.read_text(encoding="utf-8"), Page(path.read_text(encoding="utf-8"))


def test_files(three):
    path, _, _ = three
    assert path.name == "report.html"
    kinds = ("samples", "reconstructions", "interpolations", "latent", "losses")
    expected = {f"{kind}-{name}.png" for kind in kinds for name in ("DiLED", "VAE", "LDM")}
    expected |= {f"{kind}.png" for kind in kinds[:3]}
    assert {p.name for p in (path.parent / "figures").iterdir()} == expected
    assert {p.name for p in path.parent.iterdir()} == {"report.html", "figures"}  # no temporary files
    for p in (path.parent / "figures").iterdir():
        Image.open(p).load()


def test_page_needs_nothing_else(three):
    path, text, page = three
    assert not re.search(r"https?://|file:|url\(|@import|<script|<link", text)
    assert str(path.parent) not in text
    sources = [a["src"] for a in page.of("img")] + [a["srcset"] for a in page.of("source")]
    assert len(page.of("img")) == 18
    for source in sources:
        assert source.startswith("data:image/png;base64,")
        Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).load()
    assert all(a["alt"] and int(a["width"]) > 0 and int(a["height"]) > 0 for a in page.of("img"))
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_contents_only_with_several_models(three, tmp_path):
    _, _, page = three
    targets = {a["href"][1:] for a in page.of("a")}
    assert {"results", "beside", "model-1", "model-2", "model-3", "usage", "provenance"} == targets
    assert targets == {a["id"] for a in page.of("section")}
    alone = Page(write(tmp_path, [example(codes=None)]).read_text(encoding="utf-8"))
    assert not alone.of("nav")
    assert not (tmp_path / "figures" / "samples.png").exists()


def test_words_of_the_page(three):
    _, text, page = three
    assert ("h1", "A report") in page.data
    assert ("p", "First.") in page.data
    assert ("p", "Second. Third.") in page.data
    assert "Images, 8 × 8 pixels, 1 channel, 17 levels" in text
    assert "42,310 parameters · trained in 1 min 21 s" in text
    assert "<dt>seed</dt><dd>0</dd>" in text
    assert ("code", "import diled\nmodel = diled.load('run')") in page.data


def test_everything_from_outside_is_escaped(tmp_path):
    evil = "<script>alert('x')</script>\"><img src=x onerror=y>&amp;"
    names = [evil, evil + "2"]
    text = write(
        tmp_path,
        [example(name, class_names=[evil] * 3) for name in names],
        title=evil,
        summary=[evil, evil],
        table={evil: {evil: Cell(evil, note=evil)}, "b": {evil: Cell(1.0)}},
        better={evil: "lower"},
        reading=[evil],
        usage=evil,
        provenance={evil: evil},
    ).read_text(encoding="utf-8")
    page = Page(text)
    assert not page.of("script")
    assert all(a["src"].startswith("data:") for a in page.of("img"))
    assert not any("onerror" in a for _, a in page.tags)
    assert ("h1", evil) in page.data


def test_missing_parts_are_left_out(tmp_path):
    bare = Shown("bare", samples=np.zeros((0, 1, 8, 8)))
    text = write(tmp_path, [bare], summary=[], table={}, better={}, reading=[], usage="", provenance={}).read_text(
        encoding="utf-8"
    )
    page = Page(text)
    assert not page.of("img")
    assert not page.of("table")
    assert [a["id"] for a in page.of("section")] == ["model-1"]
    odd = example(
        labels=None, log=[{"stage": "a", "step": 1, "validation": {"code_rms": 1.0}}], interpolation_ends=None
    )
    assert "losses" not in write(tmp_path / "b", [odd]).read_text(encoding="utf-8")
    assert {p.name for p in (tmp_path / "b" / "figures").glob("*")} == {
        "samples-DiLED.png", "reconstructions-DiLED.png", "interpolations-DiLED.png", "latent-DiLED.png",
    }  # fmt: skip


def test_interrupted_write_keeps_the_earlier_report(tmp_path, monkeypatch):
    path = write(tmp_path, [example(codes=None)])
    before = path.read_bytes()
    real = report_module.os.replace

    def fails(source, target):
        if str(target).endswith("report.html"):
            raise OSError("disk full")
        real(source, target)

    monkeypatch.setattr(report_module.os, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, [example(codes=None)], title="Another")
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"report.html", "figures"}


def test_import_is_light():
    code = (
        "import sys, diled.evaluation.report as r; "
        "print([m for m in ('torch', 'matplotlib', 'sklearn', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_pyplot_and_a_users_style_are_left_alone(tmp_path):
    import matplotlib

    with matplotlib.rc_context({"font.size": 31.0}):
        before = dict(matplotlib.rcParams)
        write(tmp_path, [example()])
        assert dict(matplotlib.rcParams) == before


def test_model_colours_agree_between_page_and_figures():
    css = resources.files("diled.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    assert len(plots.MODELS) == report_module.SWATCHES
    for i, pair in enumerate(plots.MODELS):
        assert re.findall(rf"--m{i}: (#[0-9a-f]{{6}})", css) == list(pair)
    assert f"--face: {plots.LIGHT.face}" in css
    assert f"--face: {plots.DARK.face}" in css


NAMES = [r"vae$\lr$", "lr$1e_3^^x$", "$y", "_hidden", r"a\$b$", "plain"]


def test_names_are_drawn_as_they_are_written():
    """Dollars begin no formula, and no model is left out of a legend."""
    row = {"bound_nats/test": Measured(100.0), "best_bound_nats/test": Measured(99.0)}
    line = np.arange(3.0)
    layers = [(np.zeros((len(NAMES), 1, 3)), "#444444", {"lw": 1.0})]
    places = np.random.default_rng(0).normal(size=(60, 2))
    log = [{"stage": s, "step": i, "loss": 6.0, "terms": dict.fromkeys(NAMES, 1.0)} for s in NAMES[:2] for i in (1, 2)]
    legends = []

    def draw(figure, theme):
        audit_page._draw_curves(figure, theme, dict.fromkeys(NAMES, (line, line)), "x", "y")
        legends.append([text.get_text() for text in figure.legends[0].get_texts()])

    plots.render(draw, (4.0, 3.0))
    assert [text.replace(r"\$", "$").strip() for text in legends[0]] == NAMES
    for shown in (
        lambda f, t: audit_page._draw_nats(f, t, dict.fromkeys(NAMES, row)),
        lambda f, t: panels.draw_panels(f, layers, t, NAMES),
        lambda f, t: plots.draw_codes(f, t, places, np.arange(60) % 6, NAMES, ("", "")),
        lambda f, t: losses.draw_losses(f, t, log, NAMES),
    ):
        plots.render(shown, (4.0, 3.0))


def test_file_names():
    assert file_names(["DiLED", "DiLED, fixed variance", "diled", "../../etc", "", "β-VAE"]) == [
        "DiLED", "DiLED-fixed-variance", "diled-2", "etc", "model", "β-VAE",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3.24, "3.2 s"),
        (9.96, "10 s"),
        (59.7, "1 min"),
        (80, "1 min 20 s"),
        (7512, "2 h 5 min"),
        (3600, "1 h"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations(seconds, words):
    assert report_module._duration(seconds) == words


# --- tables ----------------------------------------------------------------------------------------------------------


def shown_as(*cells):
    """The values of one column as they are printed."""
    lines = table_text({str(i): {"c": c} for i, c in enumerate(cells)}, {}).splitlines()[2:]
    return [line[1:].strip() for line in lines]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(98.3123, 0.42), "98.3 ± 0.4"),
        (Cell(98.3123, 0.042), "98.31 ± 0.04"),
        (Cell(98.3123, 0.96), "98 ± 1"),
        (Cell(98.3123, 0.0), "98.3"),
        (Cell(98.3123, float("nan")), "98.3"),
        (Cell(1234.5, 56.7), "1,234 ± 57"),
        (Cell(-6.25, 0.1), "-6.2 ± 0.1"),
        (Cell(104.61), "104.6"),
        (Cell(9.8712), "9.87"),
        (Cell(0.95123), "0.951"),
        (Cell(0.031234), "0.0312"),
        (Cell(1492.7), "1,493"),
        (Cell(42310), "42,310"),
        (Cell(3.21e-9), "3.21e-09"),
        (Cell(3.21e-9, 4.4e-10), "3.21e-09 ± 4e-10"),
        (Cell(0.0), "0"),
        (Cell(-0.0004, 0.01), "0.00 ± 0.01"),
        (Cell(float("nan")), "–"),
        (Cell(float("inf")), "∞"),
        (Cell(None), "–"),
        (Cell("no bound"), "no bound"),
    ],
)
def test_rounding(cell, text):
    assert shown_as(cell) == [text]


def test_decimals_agree_within_a_column():
    assert shown_as(Cell(98.312, 0.42), Cell(101.2468, 0.043)) == ["98.31 ± 0.42", "101.25 ± 0.04"]
    assert shown_as(Cell(0.0), Cell(0.25)) == ["0.000", "0.250"]
    assert shown_as(Cell(81.3), Cell(7.2)) == ["81.3", "7.20"]
    points = [
        line.index(".") for line in table_text({"a": {"c": Cell(81.3)}, "b": {"c": Cell(7.2)}}, {}).splitlines()[2:]
    ]
    assert points[0] == points[1]


def bold(table, better, **options):
    page = Page(table_html(table, better, **options))
    return [data for tag, data in page.data if tag == "strong"]


def test_bold_marks_the_best():
    assert bold(TABLE, BETTER) == ["98.3", "0.948"]
    assert bold(TABLE, {"bound": "higher", "probe": "lower", "size": "lower"}) == ["101.2", "0.900", "7"]
    assert bold(TABLE, {}) == []
    assert "**98.3 ± 0.4**" in table_markdown(TABLE, BETTER)
    assert "98.3 ± 0.4*" in table_text(TABLE, BETTER)


def test_bold_ties_single_rows_and_references():
    tie = {"a": {"c": Cell(1.0001)}, "b": {"c": Cell(1.0002)}, "d": {"c": Cell(2.0)}}
    assert bold(tie, {"c": "lower"}) == ["1.00", "1.00"]
    assert bold({"a": {"c": Cell(1.0)}}, {"c": "lower"}) == []  # nothing to compare with
    assert bold({"a": {"c": Cell(1.0)}, "b": {"c": Cell(None)}}, {"c": "lower"}) == []
    floor = {"a": {"c": Cell(3.0)}, "b": {"c": Cell(4.0)}, "test": {"c": Cell(1.0)}}
    assert bold(floor, {"c": "lower"}, references=["test"]) == ["3.00"]
    assert bold({"a": {"c": Cell(float("-inf"))}, "b": {"c": Cell(2.0)}, "d": {"c": Cell(3.0)}}, {"c": "lower"}) == [
        "2.00"
    ]


def test_html_table():
    html = table_html(TABLE, BETTER, key=True)
    assert '<td class="best"><strong>98.3</strong></td><td class="error">±&nbsp;0.4</td>' in html
    assert '<th scope="col" colspan=2 class="short">bound&nbsp;↓</th>' in html
    assert '<td class="word">–<sup>a</sup></td><td></td>' in html
    assert "<li><sup>a</sup> Its code has no entropy.</li>" in html
    assert "Bold is the best of its column. ↓ lower is better, ↑ higher is better. ± is one standard error." in html
    assert "−6.25" in table_html({"a": {"c": Cell(-6.25)}}, {})
    assert "10<sup class=power>-9</sup>".replace("-", "−") in table_html({"a": {"c": Cell(3e-9)}}, {})
    Page(html)


def test_markdown_and_text():
    assert table_markdown(TABLE, BETTER) == (
        "|  | bound ↓ | probe ↑ | size |\n"
        "|---|---:|---:|---:|\n"
        "| DiLED | **98.3 ± 0.4** | 0.931 | 42,310 |\n"
        "| VAE | 101.2 ± 0.5 | **0.948** | 1,200 |\n"
        "| LDM | – <sup>a</sup> | 0.900 | 7 |\n"
        "\n"
        "<sup>a</sup> Its code has no entropy.\n"
    )
    assert "a\\|b" in table_markdown({"a|b": {"c": Cell(1.0)}}, {})
    text = table_text(TABLE, BETTER).splitlines()
    assert len({line.index("±") for line in text[2:4]}) == 1
    assert text[-1] == "(a) Its code has no entropy."
    assert table_text({"a": {"x": Cell(1.0)}, "b": {"y": Cell(2.0)}}, {}).count("–") == 2


def test_notes_are_numbered_in_reading_order_and_shared():
    table = {"a": {"x": Cell(1.0, note="one"), "y": Cell(1.0, note="two")}, "b": {"x": Cell(2.0, note="two")}}
    lines = table_text(table, {}).splitlines()
    assert lines[-2:] == ["(a) one", "(b) two"]
    assert lines[2].index("(a)") < lines[2].index("(b)")
    assert "(b)" in lines[3]


# --- grids -----------------------------------------------------------------------------------------------------------


def test_pixel_values():
    x = np.array([[[[-1.0, 0.0, 1.0, 5.0, np.nan]]]])
    np.testing.assert_array_equal(grids.tiles(x)[0, 0, :, 0], [0, 128, 255, 255, 128])
    rgb = np.stack([np.full((2, 2), v) for v in (-1.0, 0.2, 1.0)])[None]
    np.testing.assert_array_equal(grids.tiles(rgb)[0, 0, 0], [0, 153, 255, 255])
    np.testing.assert_array_equal(grids.tiles(np.concatenate([rgb, rgb], 1))[0, 0, 0], [0, 153, 255, 255])  # 6 channels
    clear = np.concatenate([rgb, np.full((1, 1, 2, 2), -1.0)], 1)
    np.testing.assert_array_equal(grids.tiles(clear, "RGBA")[0, 0, 0], [255, 255, 255, 255])
    np.testing.assert_array_equal(grids.tiles(clear)[0, 0, 0], [0, 153, 255, 255])
    assert grids.tiles(np.zeros((3, 2, 4, 5))).shape == (3, 4, 10, 4)
    assert grids.tiles(np.zeros((3, 1, 600, 300))).shape == (3, 200, 100, 4)


def test_grid_places_every_pixel():
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 4), dtype=np.uint8)
    x[..., 3] = 255
    picture = grids.grid(x, factor=3, gutter=2, gap_after=(0,))
    assert picture.shape == (2 * 12 + 2, 3 * 15 + 2 * 2 + 2 * 2 + 4, 4)
    lefts = [0, 15 + 2 + 8, 2 * 17 + 8]
    seen = np.zeros(picture.shape[:2], bool)
    for r in range(2):
        for c in range(3):
            top, left = r * 14, lefts[c]
            tile = picture[top : top + 12, left : left + 15]
            seen[top : top + 12, left : left + 15] = True
            for i in range(3):
                for j in range(3):
                    np.testing.assert_array_equal(tile[i::3, j::3], x[r, c])
    assert not picture[~seen].any()  # gutters are transparent


@pytest.mark.parametrize(("level", "gutter"), [(0, grids.DIM), (255, grids.PALE), (128, (0, 0, 0, 0))])
def test_gutters_stand_out_from_the_images(level, gutter):
    x = np.full((1, 2, 4, 4, 4), level, np.uint8)
    assert tuple(grids.grid(x, 2, 2)[0, 8]) == gutter


def test_samples_in_order():
    x = np.linspace(-1, 1, 6)[:, None, None, None] * np.ones((6, 1, 2, 2))
    picture, n = grids.sample_grid(grids.tiles(x), target=60)
    assert n == 6
    factor = grids.enlargement(2 * 2, 60)
    step = 2 * factor + grids.gutter_for(factor)
    for i in range(6):
        assert picture[i // 2 * step, i % 2 * step, 0] == np.rint((np.linspace(0, 1, 6)[i]) * 255)


def test_reconstructions_stand_below_their_originals():
    above, below = np.full((4, 2, 2, 4), 100, np.uint8), np.full((4, 2, 2, 4), 200, np.uint8)
    picture, n = grids.reconstruction_grid(above, below, target=80)
    assert n == 4
    column = picture[:, -1, 0]
    assert column[0] == 100
    assert column[-1] == 200
    words = picture[:, : picture.shape[1] - 200]
    assert words[..., 3].any()
    assert set(map(tuple, words[words[..., 3] > 0][:, :3].tolist())) == {grids.GREY}


def test_interpolation_ends_at_both_sides():
    path = np.full((1, 3, 2, 2, 4), 50, np.uint8)
    ends = np.stack([np.full((2, 2, 4), 10, np.uint8), np.full((2, 2, 4), 240, np.uint8)])[None]
    picture, rows = grids.interpolation_grid(path, ends, target=100)
    assert rows == 1
    assert picture[-1, 0, 0] == 10
    assert picture[-1, -1, 0] == 240
    assert picture[-1, picture.shape[1] // 2, 0] == 50


@pytest.mark.parametrize(
    ("n", "ideal", "columns"), [(64, 8, 8), (50, 7.07, 10), (16, 8, 8), (12, 8, 6), (7, 2.6, 3), (1, 1, 1)]
)
def test_columns(n, ideal, columns):
    assert grids.best_columns(n, ideal) == columns


def test_large_images_stay_within_the_budget():
    picture, n = grids.sample_grid(grids.tiles(np.zeros((40, 3, 256, 256))), 900)
    assert 4 <= n < 40
    assert picture.shape[0] * picture.shape[1] < 2 * grids.PIXEL_BUDGET


# --- the other kinds of data, codes and curves -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("image", (3, 4, 6)), ("image", (5, 4, 4)), ("image", (2, 4, 4)), ("signal", (4, 30)), ("vector", (2,)), ("vector", (7,)),
     ("vector", (80,)), ("vector", (1,))],
)  # fmt: skip
def test_every_kind_of_data(tmp_path, kind, shape):
    models = [example(name, shape=shape, codes=None, log=[]) for name in ("A", "B")]
    text = write(tmp_path, models, DataSpec(kind=kind, shape=shape)).read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.of("img")) == 9
    assert ("The first three of" in text) == (shape in [(5, 4, 4), (4, 30)])
    assert len(page.of("source")) == (0 if kind == "image" else 9)  # drawings have a version for dark pages


def test_models_stand_side_by_side_in_what_they_have():
    """Models without codes show samples only; what a single model has is in its own section alone."""
    bare = {
        "originals": None,
        "reconstructions": None,
        "interpolations": None,
        "interpolation_ends": None,
        "codes": None,
    }
    models = [example("A"), example("B", **bare), example("C", seed=1)]
    samples, reconstructions, interpolations = figures.side_by_side(models, DIGITS)
    assert samples.caption == "Held-out data, and samples of A, B, C."
    assert reconstructions.caption == "Held-out data, and reconstructions of A, C."
    assert interpolations.caption.endswith("Interpolations of A, C.")
    assert [p.file for p in figures.side_by_side(models[:2], DIGITS)] == ["samples.png"]
    assert figures.side_by_side(models[:1], DIGITS) == []


def test_panels_share_one_scale():
    from matplotlib.figure import Figure

    figure = Figure()
    x = np.stack([np.array([[1.0, 0.5]]), np.array([[-1.0, 0.0]])])  # (2, 1, 2): two panels of two bars
    panels.draw_panels(figure, [(x, "black", "bar")], plots.LIGHT)
    bars = figure.axes[0].collections[-1].get_paths()
    tops = [float(np.asarray(p.vertices)[2, 1]) for p in bars]
    down = 1 + panels.GAP
    assert tops == pytest.approx([1.0, 0.75, -down, 0.5 - down])


def test_codes():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(50, 5)) * [5, 1, 1, 1, 1]
    places, method, axes = figures._places(codes)
    assert "principal" in method
    assert abs(np.corrcoef(places[:, 0], codes[:, 0])[0, 1]) > 0.99
    assert "% of variance" in axes[0]
    np.testing.assert_array_equal(figures._places(codes[:, :2])[0], codes[:, :2])
    assert figures._places(codes[:, :1])[0].shape == (50, 2)
    places, method, _ = figures._places(rng.normal(size=(70, 5)))
    assert places.shape == (70, 2)
    assert "t-SNE (perplexity 17)" in method


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(30) - 1,
        np.linspace(0, 1, 30),
        np.full(30, np.nan),
        np.where(np.arange(30) < 5, np.nan, 1.5),
        np.full(30, -1),
        None,
    ],
)
def test_labels_of_every_kind(labels):
    codes = np.random.default_rng(0).normal(size=(30, 2))
    codes[3] = np.nan
    picture = figures._codes(Shown("x", codes=codes, labels=labels), "latent-x.png")
    assert picture is not None
    assert "29 of 30" in picture.caption
    assert picture.dark is not None
    assert tuple(pixels_of(picture.light)[0, 0, :3]) == (255, 255, 255)
    assert tuple(pixels_of(picture.dark)[0, 0, :3]) == (0x13, 0x15, 0x18)


def test_many_codes_are_thinned_out(monkeypatch):
    monkeypatch.setattr(figures, "MOST_CODES", 20)
    picture = figures._codes(Shown("x", codes=np.random.default_rng(0).normal(size=(90, 3))), "f")
    assert picture is not None
    assert "Codes of 20 of 90 held-out examples" in picture.caption
    assert figures._codes(Shown("x", codes=np.zeros((2, 3))), "f") is None


def test_a_property_that_none_of_the_codes_drawn_has_is_left_out(monkeypatch):
    monkeypatch.setattr(figures, "MOST_CODES", 20)
    labels = np.full(9000, np.nan)
    labels[1] = 2.0
    picture = figures._codes(Shown("x", codes=np.random.default_rng(0).normal(size=(9000, 2)), labels=labels), "f")
    assert picture is not None
    assert "Colour" not in picture.caption


def test_stages_follow_one_another():
    curves = losses._curves(log_of(("autoencoder", 200), ("prior", 100)))
    assert curves.starts == [("autoencoder", 0.0), ("prior", 200.0)]
    assert curves.end == 300
    first, second = curves.lines["distortion"]
    np.testing.assert_array_equal(first[0], [50, 100, 150, 200])
    np.testing.assert_array_equal(second[0], [250, 300])
    assert [tuple(map(float, (x[0], y[0]))) for x, y in curves.lines["validation bound"]] == [(200, 102), (300, 102)]
    assert "validation loss" in losses._curves(log_of(("a", 100), bound=False)).lines
    assert "total" not in losses._curves([{"stage": "a", "step": 1, "loss": 2.0, "terms": {"only": 2.0}}]).lines


@pytest.mark.parametrize(
    ("terms", "scale"),
    [
        ([{"a": 100.0, "b": 20.0}] * 50, "linear"),
        ([{"a": 100.0, "b": 0.1}] * 50, "log"),
        ([{"a": 1000.0 / (i + 1)} for i in range(50)], "linear"),
        ([{"a": 1e6 * 0.8**i} for i in range(50)], "log"),
        ([{"a": -10.0, "b": 3.0}] * 50, "linear"),
        ([{"a": float("nan")}] * 5, "linear"),
        ([{"a": 5000.0}, *[{"a": 10.0 + i % 3} for i in range(60)]], "linear"),
    ],
)
def test_scale_of_the_loss_axis(terms, scale):
    from matplotlib.figure import Figure

    log = [{"stage": "s", "step": i + 1, "loss": sum(t.values()), "terms": t} for i, t in enumerate(terms)]
    figure = Figure()
    losses.draw_losses(figure, plots.LIGHT, log, losses.same_terms([log]))
    axis = figure.axes[0]
    assert axis.get_yscale() == scale
    if terms[0].get("a") == 5000.0:
        assert axis.get_ylim()[1] < 20  # the first step does not flatten the rest


def test_terms_keep_their_colour():
    from matplotlib.colors import to_hex
    from matplotlib.figure import Figure

    logs = [
        log_of(("a", 100)),
        [{"stage": "b", "step": i, "loss": 3.0, "terms": {"rate": 1.0, "x": 2.0}} for i in (1, 2)],
    ]
    terms = losses.same_terms(logs)
    assert terms == ["distortion", "rate", "x"]
    found = []
    for log in logs:
        figure = Figure()
        losses.draw_losses(figure, plots.LIGHT, log, terms)
        found.append({line.get_label(): to_hex(line.get_color()) for line in figure.axes[0].lines})
    assert found[0]["rate"] == found[1]["rate"] == plots.TERMS[1][0]


# Sequences --------------------------------------------------------------------------------------------------------------


def test_sequences_are_shown_as_text_and_frequencies(tmp_path):
    path = write(
        tmp_path, [of_sequences(), of_sequences(reconstructions=None, codes=None, interpolations=None)], SEQUENCES
    )
    page = Page(path.read_text())
    blocks = [text for tag, text in page.data if tag == "code"]
    assert blocks[0] == "AC<\nCCAA\nA\nACAA" == blocks[3], "the second model has samples alone"
    assert blocks[1].split("\n \n") == ["AC<\nC.AA", "CCAA\n....", "A\n.C<", "ACAA\n...."]
    assert blocks[2] == "AC<\nACAA\nCCAA"
    assert ("p", "Protein sequences of at most 4 residues") in page.data
    titles = [text for tag, text in page.data if tag == "h3"]
    assert titles[1:6] == ["Samples", "Reconstructions", "Interpolations", "Position frequencies", "Latent space"]
    names = sorted(p.name for p in (tmp_path / "figures").iterdir())
    assert names == [
        "frequencies-VAE-2.png", "frequencies-VAE.png", "latent-VAE.png", "losses-VAE-2.png", "losses-VAE.png",
    ]  # fmt: skip


def test_a_reconstruction_that_is_too_short():
    assert [dotted(*pair) for pair in (("AC", "ACDE"), ("AD", "AC"), ("ACDE", "A"), ("", ""))] == [
        "..--",
        ".D",
        ".CDE",
        "",
    ]


def test_frequencies_are_drawn_where_they_are():
    """Dark where a symbol always is, and in the row of its name."""
    rows = np.array([[1, 3], [1, 0], [1, 3], [1, 3]])
    f = frequencies(rows, 4)
    assert f.tolist() == [[0, 1, 0, 0], [0.25, 0, 0, 0.75]]
    figure, spec = plots.Figure(), SEQUENCES.model_copy(update={"shape": (2,)})
    draw_frequencies(figure, plots.LIGHT, [f, f[::-1]], spec, 0)
    above, below = figure.axes
    assert [label.get_text() for label in above.get_yticklabels()] == ["end", "A", "<"], "C never occurs"
    assert above.images[0].get_array().tolist() == [[0, 0.25], [1, 0], [0, 0.75]]
    assert below.images[0].get_array().tolist() == [[0.25, 0], [0, 1], [0.75, 0]]
    assert [label.get_text() for label in below.get_xticklabels()] == ["1", "2"]
    sites = spec.model_copy(update={"background": "AAAAA", "sites": (1, 4)})
    again = plots.Figure()
    draw_frequencies(again, plots.LIGHT, [f, f], sites, 0)
    assert [label.get_text() for label in again.axes[1].get_xticklabels()] == ["2", "5"]
    assert described(sites) == "Protein sequences of 5 residues, of which 2 are modelled"


def test_columns_of_properties_and_lines_that_fit():
    found = {
        "VAE": {name: Measured(0.5) for name in ("parameters", "spearman/y/probe", "mse/heat/x", "bound_nats", "odd/y")}
    }
    table, better = table_of(found)
    assert better == {
        "bound, nats": "lower", "Spearman, y from codes": "higher", "MSE, heat/x": "lower", "parameters": "",
    }  # fmt: skip
    assert list(table["VAE"]) == list(better)
    text = table_text({"VAE": {f"column {i}": Cell(1.0) for i in range(20)}}, {f"column {i}": "" for i in range(20)})
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("VAE") == 3
    assert all(f"column {i}" in text for i in range(20))


def test_words_about_sequences():
    """What is said of the figures that are there, and no word of pictures."""
    split = Split(np.zeros((3, 4), np.uint8), {}, ["a", "b", "c"])
    data = Data("few", SEQUENCES, split, split, split, [])
    table, _ = table_of(
        {"VAE": {"bound_nats": Measured(5.0), "mse/y/probe": Measured(1.0), "position_error": Measured(None)}}
    )
    said = fitting(READING, table, data)
    assert len(said) == 2
    assert "upper bound" in said[0]
    assert "ridge regression" in said[1]
    assert (
        "1.250 nats per residue"
        in summary_of({"bound_nats": Measured(5.0), "nats_per_residue": Measured(1.25)}, data)[0]
    )
    lines = usage(Path("run"), data)
    assert "sequences = model.sample(16, seed=0)" in lines
    assert "model.strings(sequences)" in lines
    assert "image" not in lines
