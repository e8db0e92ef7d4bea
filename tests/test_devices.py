"""A training step computes where its model and its data are: none of its tensors stays behind on the processor.

The other device is `meta`, whose tensors have shapes and no values: PyTorch refuses to mix them with those of a processor, as a
GPU does. What has to look at values to know a shape is left out.
"""

from contextlib import nullcontext
from typing import Any, get_args

import pytest
import torch
from tiny import small
from torch.fx.experimental import _config

from diled.data import open_data
from diled.errors import ConfigError
from diled.family import FAMILY, model_config
from diled.models import exact_sequences
from diled.models.zoo import build
from diled.nn import causal, sequence
from diled.parts import DataDiffusionConfig

TRANSFORMER = {"kind": "transformer", "width": 8, "depth": 1, "heads": 1}
WEIGHTINGS = ("vlb", "simple", "ddpm", "min_snr", "edm")


@pytest.fixture(autouse=True)
def no_look_at_values(monkeypatch: pytest.MonkeyPatch):
    for module in (causal, sequence, exact_sequences):
        monkeypatch.setattr(module, "trimmed", lambda x: x)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    with _config.patch(meta_nonzero_assume_all_nonzero=True):
        yield


def step(name: str, data: str, **values: Any) -> None:
    """A training step on `meta`."""
    spec = open_data(data).spec
    config = model_config(name, small(name, TRANSFORMER if spec.sequential else None) | values).resolved(spec)
    model = build(name, config, spec).model.to("meta")
    x = torch.zeros(8, *spec.shape, device="meta", dtype=torch.uint8 if spec.sequential else torch.float32)
    loss = sum(term.mean() for term in model.terms(x).values())
    assert loss.device.type == "meta"
    if loss.requires_grad:
        loss.backward()
        assert all(p.grad is None or p.grad.device.type == "meta" for p in model.parameters())


@pytest.mark.parametrize("data", ["digits", "sentences"])
@pytest.mark.parametrize("name", FAMILY)
def test_models_train_where_they_are(name: str, data: str):
    try:
        step(name, data)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("encoder", ["same", *WEIGHTINGS])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weightings_are_computed_where_the_codes_are(weighting: str, encoder: str):
    step("diled", "digits", prior={"width": 8, "blocks": 1, "weighting": weighting, "encoder_weighting": encoder})


@pytest.mark.parametrize("schedule", get_args(DataDiffusionConfig.model_fields["schedule"].annotation))
def test_schedules_are_computed_where_the_data_are(schedule: str):
    step("ddpm", "digits", diffusion={"kind": "mlp", "width": 8, "schedule": schedule, "weighting": "vlb"})
