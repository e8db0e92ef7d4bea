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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The mutation check takes as long as all the rest: one worker begins with it, and the other one does the rest."""
    items.sort(key=lambda item: item.path.name != "test_mutations.py")
