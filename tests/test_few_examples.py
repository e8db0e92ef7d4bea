"""An ensemble of few examples takes few steps, and one of many the same as ever."""

from __future__ import annotations

import pytest
import torch

from diled.draws import seeded
from diled.latent import predict
from diled.latent.predict import Ensemble


@pytest.mark.parametrize(("n", "batch", "steps"), [(20, 256, 4), (40, 10, 16), (40, 4, 20)])
def test_few_examples_take_few_steps(n: int, batch: int, steps: int, monkeypatch: pytest.MonkeyPatch):
    """Four passes over them, and 20 steps at most."""
    assert predict.PASSES * 1280 / 256 == 2000, "so that recorded ensembles, of thousands, are what they were"
    monkeypatch.setattr(predict, "PASSES", 4)
    taken, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args: taken.append(1) or step(self, *args))
    with seeded(0):
        z = torch.randn(n, 3)
        Ensemble(3, members=2, width=8).fit(z, z.sum(1), (z, z.sum(1)), batch=batch, steps=20)
    assert len(taken) == steps


def test_few_steps_are_enough_for_few_examples():
    """A hundred draws of an additive property with noise; as good as in the 2,000 steps that it took before."""
    with seeded(1):
        z = torch.randn(600, 5)
        y = z @ torch.tensor([1.0, -1.0, 0.5, 0.5, 0.0])
        noisy = y + 0.3 * torch.randn(600)
        found = Ensemble(5, members=3, width=16).fit(z[:100], noisy[:100], (z[100:110], noisy[100:110]))
    assert float(((found.predict(z[110:])[0] - y[110:]) ** 2).mean() / y.var()) < 0.1
