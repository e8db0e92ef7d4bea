"""The house rules, checked in the source: which part may import which, what stays light, and how files look."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "diled"
FILES = sorted(SOURCE.rglob("*.py"))

ALLOWED: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "config": {"errors"},
    "parts": {"config", "errors"},
    "folders": {"config", "errors", "hub", "parts", "tokens"},
    "kinds": {"config", "errors", "folders", "parts"},
    "sequence_family": {"config", "errors", "kinds", "parts"},
    "family": {"config", "errors", "kinds", "parts", "sequence_family"},
    "keys": {"config", "errors", "family", "parts"},
    "runs": {"_version", "config", "errors", "family", "keys"},
    "data": {"config", "errors", "hub", "tokens"},
    "output": {"config", "data", "errors"},
    "api": {"draws", "errors"},
    "draws": set(),
    "hub": {"errors"},
    "tokens": set(),
    "space": {"config", "errors"},
    "bins": set(),
    "distributions": {"api", "bins", "errors"},
    "sequences": {"api"},
    "diffusion": {"api", "distributions", "draws", "errors"},
    "nn": {"api", "errors", "sequences"},
    "models": {
        "_version",
        "api",
        "config",
        "diffusion",
        "distributions",
        "draws",
        "errors",
        "family",
        "hub",
        "nn",
        "parts",
        "rows",
        "sequence_family",
        "sequences",
        "space",
        "tokens",
    },
    "memory": set(),
    "rows": {"draws", "errors"},
    "training": {"api", "config", "distributions", "draws", "errors", "memory", "rows", "space"},
}
ALLOWED["latent"] = ALLOWED["models"] | {"data", "models"}
ALLOWED["evaluation"] = ALLOWED["models"] | {"data", "latent", "models"}
"""Part -> the other parts that it may import. Parts that are not named here compose the others and may import them."""

ONLY_FROM: dict[str, set[str]] = {
    "cli": {"__main__"},
    "estimator": set(),
    "verbs": {"_callable", "cli", "estimator", "studies"},
    "studies": {"cli", "verbs"},
}
"""Part -> the only parts that may import it, beside `diled/__init__.py`, which does so lazily."""

ENGINE = "training/engine.py"
LIGHT = (
    "diled",
    "diled.errors",
    "diled.config",
    "diled.family",
    "diled.parts",
    "diled.kinds",
    "diled.sequence_family",
    "diled.keys",
    "diled.runs",
    "diled.verbs",
    "diled.cli",
)
"""Modules whose import must stay fast, so that the command line answers at once."""


def name_of(path: Path) -> str:
    """`src/diled/nn/image.py` -> `nn/image.py`."""
    return path.relative_to(SOURCE).as_posix()


def part_of(path: Path) -> str:
    """`nn/image.py` -> `nn`, `api.py` -> `api`, `__init__.py` -> `__init__`."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> set[str]:
    """The absolute names of all modules that a file imports, anywhere in it."""
    package = ["diled", *path.relative_to(SOURCE).parent.parts]
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from diled import api` imports a module, `from diled.api import total` does not; both name their part.
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "diled" else {module}
    return names


def parts_imported(path: Path) -> set[str]:
    """The other parts of diled that a file imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("diled.")} - {part_of(path)}


def packages_imported(path: Path) -> set[str]:
    """The packages outside diled and the standard library that a file imports."""
    roots = {name.split(".")[0] for name in imported(path)}
    return roots - {"diled", "__future__"} - set(sys.stdlib_module_names)


def in_fresh_python(code: str) -> str:
    """What `code` prints in a new interpreter that finds this source first."""
    lines = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


every_file = pytest.mark.parametrize("path", FILES, ids=name_of)


def test_the_source_is_where_it_is_looked_for():
    assert len(FILES) > 30


@every_file
def test_imports_point_down(path):
    part, found = part_of(path), parts_imported(path)
    if part == "__init__":
        return
    if path.name == "__init__.py":
        found -= {"_callable"}  # `diled.data` and `diled.models` are verbs too
    if part in ALLOWED:
        assert found <= ALLOWED[part], f"{name_of(path)} must not import {sorted(found - ALLOWED[part])}"
    wrong = {other for other in found if part not in ONLY_FROM.get(other, {part})}
    assert not wrong, f"{name_of(path)} must not import {sorted(wrong)}"


def test_the_rules_catch_a_wrong_arrow(tmp_path, monkeypatch):
    """The test above would see an import inside a function, a relative one, and `from diled import part`."""
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    (tmp_path / "nn").mkdir()
    path = tmp_path / "nn" / "bad.py"
    path.write_text(
        "def f():\n    from diled import models\n    from ..training import engine\n    import diled.verbs\n"
    )
    assert parts_imported(path) == {"models", "training", "verbs"}


@every_file
def test_outside_packages_stay_in_their_place(path):
    packages, part = packages_imported(path), part_of(path)
    if name_of(path) != ENGINE:
        assert not packages & {"lightning", "pytorch_lightning", "lightning_fabric"}, (
            f"only {ENGINE} may import lightning"
        )
    if part in ("api", "nn"):
        assert packages <= {"torch"}
    if part in ("config", "family", "kinds", "parts", "errors", "runs", "data"):
        assert "torch" not in packages
    if part in ("config", "family", "kinds", "parts", "errors", "_version"):
        assert packages <= {"pydantic"}
    assert "torchvision" not in packages


def test_configuration_and_command_line_are_light():
    """Neither torch nor lightning is loaded by them, directly or through anything else."""
    code = f"import importlib\nfor m in {LIGHT!r}:\n    importlib.import_module(m)\n"
    heavy = "{'torch', 'lightning', 'scipy', 'sklearn', 'matplotlib', 'pyarrow'}"
    assert in_fresh_python(code + f"print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_data_need_no_torch():
    assert (
        in_fresh_python("import diled.data\nprint(sorted({'torch', 'lightning'} & set(sys.modules)))").strip() == "[]"
    )


@every_file
def test_nothing_is_unpickled(path):
    names = imported(path)
    assert not {name.split(".")[0] for name in names} & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            wanted = node.arg == "weights_only"
            assert isinstance(node.value, ast.Constant), f"{name_of(path)}:{node.value.lineno}"
            assert node.value.value is wanted, f"{name_of(path)}:{node.value.lineno}: {node.arg} must be {wanted}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(k.arg == "weights_only" for k in node.keywords), f"{name_of(path)}:{node.lineno}"


@every_file
def test_no_star_imports(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), f"{name_of(path)}:{node.lineno}"


@every_file
def test_files_and_functions_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 80, f"{name_of(path)}:{node.lineno}: {node.name} has {length} lines"


@every_file
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(tree(path)), f"{name_of(path)} has no docstring"


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name != "__main__.py"], ids=lambda p: name_of(p) if isinstance(p, Path) else None
)
def test_public_names_exist_and_are_documented(path):
    module_name = ".".join(["diled", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")
    module = importlib.import_module(module_name)
    values = documented_values(path)
    names = getattr(module, "__all__", [])
    assert len(names) == len(set(names))
    for name in names:
        assert hasattr(module, name), f"{module_name}.__all__ names '{name}', which is not there"
        value = getattr(module, name)
        if (isinstance(value, type) or callable(value)) and getattr(value, "__module__", "").startswith("diled"):
            assert (value.__doc__ or "").strip(), f"{module_name}.{name} has no docstring"
        elif name in assigned(path) and not name.isupper():
            assert name in values, f"{module_name}.{name} has no docstring below it"


def assigned(path: Path) -> set[str]:
    """Names that a module assigns at its top level."""
    found: set[str] = set()
    for node in tree(path).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def documented_values(path: Path) -> set[str]:
    """Names assigned at the top level with a docstring on the next line."""
    body, found = tree(path).body, set()
    for node, after in zip(body[:-1], body[1:], strict=True):
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME)\b")
MACHINE = re.compile(r"(?<![\w.~])/(?:work|home|root|Users)/")


def texts() -> list[Path]:
    """Every text file that the project ships: source, tests, documents, configurations."""
    found = [p for p in ROOT.iterdir() if p.is_file()]
    for folder in ("src", "tests", "docs", "benchmarks", "results", ".ci", ".github"):
        found += (ROOT / folder).rglob("*")
    kinds = (".py", ".md", ".toml", ".yaml", ".yml", ".json", ".txt", ".cff", ".html", ".ipynb", "")
    return sorted(p for p in found if p.is_file() and p.suffix in kinds and ".egg-info" not in str(p))


def test_nothing_unfinished_and_no_machine_paths():
    assert len(texts()) > len(FILES)
    for path in texts():
        text = path.read_text(encoding="utf-8", errors="ignore")
        for pattern in (UNFINISHED, MACHINE):
            found = pattern.search(text)
            assert found is None, f"{path.relative_to(ROOT)}: {found and found.group()!r}"
