"""One thread and fixed seeds for every test. This runs before anything imports torch."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # two spinning test processes would slow each other many times over

import random

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test still use the global state
    torch.manual_seed(0)


LONGEST = (
    "mutations",
    "family_pixels",
    "family_codes",
    "verbs",
    "training",
    "check_model",
    "resume",
    "texts",
    "docs",
    "designs",
)
"""Files that take about half a minute or more, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker waits for the other's last: the mutation check alone is a quarter of all."""
    places = {f"test_{name}.py": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
