"""A few digits to be audited and untrained models of them. Used by the tests of an audit's sections and of their units."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import small

from diled.api import Density
from diled.config import DataSpec
from diled.data import Data, open_data
from diled.evaluation.audit import Examples
from diled.family import model_config
from diled.models.zoo import build
from diled.space import raw_tensor, to_space


@pytest.fixture(scope="module")
def data() -> Data:
    return open_data("digits")


@pytest.fixture(scope="module")
def digits(data: Data) -> Examples:
    """Few real digits, and a synthetic set that is none: other training examples."""

    def some(values: Any, start: int, n: int) -> torch.Tensor:
        return to_space(raw_tensor(values[start : start + n]), data.spec)

    train, test = data.train, data.test
    return Examples(
        some(train.values, 0, 80),
        some(test.values, 0, 80),
        some(test.values, 0, 80),
        train.labels["label"][:80],
        test.labels["label"][:80],
        data,
        some(train.values, 100, 60),
    )


def model_of(name: str, spec: DataSpec, **values: Any) -> Density:
    """An untrained model of the family."""
    network = {"kind": "transformer", "width": 8, "depth": 1, "heads": 1} if spec.sequential else None
    return build(name, model_config(name, small(name, network) | values), spec).model.eval()
