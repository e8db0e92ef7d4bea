"""The documents are true: their examples run, their generated parts are current, and their links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])
RUN = re.compile(r"<!-- run -->\n+```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples(page: Path) -> list[tuple[int, str]]:
    """(line of the page, code) of every Python block marked with `<!-- run -->`."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in RUN.finditer(text)]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=name_of)
def test_examples_run(page, tmp_path, monkeypatch):
    """All marked blocks of a page, in order, in one namespace and an empty folder."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "example"}
    for line, code in examples(page):
        # Blank lines in front make a traceback point to the line of the page.
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


def test_every_mark_is_above_a_python_block():
    for page in PAGES:
        marks = re.findall(r"^<!-- run -->$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(marks) == len(examples(page)), name_of(page)


def test_generated_parts_are_current():
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_within_the_project_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{name_of(page)} links to {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{name_of(page)} links to {target}"


OPTION = re.compile(r"--(model|training|preprocess|pool)\.([a-z_.]+)")


def test_options_that_are_named_exist():
    """Every `--model.x`, `--training.x`, `--preprocess.x` and `--pool.x` in the documents is an option somewhere."""
    from diled.config import Config, PoolConfig, PreprocessConfig, TrainingConfig
    from diled.family import FAMILY

    def names(kind: type[Config], prefix: str = "") -> set[str]:
        found = set()
        for name, field in kind.model_fields.items():
            found.add(prefix + name)
            if isinstance(field.default, Config):
                found |= names(type(field.default), f"{prefix}{name}.")
        return found

    known = {
        "model": set().union(*(names(kind) for kind in FAMILY.values())) | {"prior_components"},  # of add-a-model.md
        "training": names(TrainingConfig),
        "preprocess": names(PreprocessConfig),
        "pool": names(PoolConfig),
    }
    for page in PAGES:
        for group, name in OPTION.findall(page.read_text(encoding="utf-8")):
            assert name.rstrip(".") in known[group], f"{name_of(page)} names --{group}.{name}"


def test_verbs_that_are_named_exist():
    """The documents name no command that is not there."""
    from diled import verbs

    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        inline = re.findall(r"`diled ([^`\s]+)[^`]*`", text)
        blocks = re.findall(r"^(?:    |\$ )?diled ([a-z]\S*)", text, re.MULTILINE)
        assert set(inline + blocks) <= {*verbs.__all__, "VERB", "--help"}, name_of(page)
