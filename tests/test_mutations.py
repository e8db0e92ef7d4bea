"""A changed sign or factor in any formula breaks a test: each mutation of `mutations.py` must be noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import FAILED, MUTATIONS, TESTS

import diled.api

PACKAGE = Path(diled.api.__file__).resolve().parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the worker forks")


@pytest.fixture(scope="module")
def findings(tmp_path_factory) -> list[dict]:
    """What the tests say of the unchanged copy, imported once and imported anew, and of each mutation in turn."""
    results = tmp_path_factory.mktemp("mutations") / "results.jsonl"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    worker = subprocess.run(
        [sys.executable, str(TESTS / "mutations.py"), str(PACKAGE), str(results)],
        env=env,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )
    assert worker.returncode == 0, worker.stderr
    return [json.loads(line) for line in results.read_text().splitlines()]


@pytest.mark.parametrize("way", [0, 1], ids=["imported once", "imported anew"])
def test_the_unchanged_copy_passes(way, findings):
    assert findings[way]["code"] == 0, findings[way]["output"]


@pytest.mark.parametrize("i", range(len(MUTATIONS)), ids=[f"{m.file}: {m.breaks}" for m in MUTATIONS])
def test_mutation_is_noticed(i, findings):
    mutation, found = MUTATIONS[i], findings[i + 2]
    assert (PACKAGE / mutation.file).read_text().count(mutation.old) == 1, "the formula has moved: mend the list"
    assert found["code"] == 1, f"survived, or broke the run itself:\n{found['output']}"
    assert set(found["failures"]) <= FAILED, found["output"]
