"""How many rows go through a network at once: memory by hand, usual batches of small models, and the same numbers in parts."""

from __future__ import annotations

from typing import Any

import audited_digits
import numpy as np
import pytest
import torch
from audited_digits import model_of
from torch import Tensor, nn

from diled import rows
from diled.api import NoBound
from diled.evaluation.audit import Effort, Section, audit_section
from diled.evaluation.rows import batch_size, rows_of_decoder, rows_of_encoder
from diled.rows import rows_beside_training, rows_that_fit

EFFORT = Effort(
    bounded=80, examples=70, samples=4, steps=4, weights=70, annealed=5, annealing=3, references=30, restarts=3,
    iterations=2, radii=(0.1,), published_references=20, published_iterations=2, pairs=20,
)  # fmt: skip
data, digits = audited_digits.data, audited_digits.digits


def tanh() -> nn.Module:
    """Numbers of which 1,000 are kept in between."""
    return nn.Sequential(nn.Linear(100, 1000), nn.Tanh(), nn.Linear(1000, 10)).requires_grad_(False)


def test_memory_of_a_row_by_hand(monkeypatch):
    """What tanh writes, 4,000 bytes, is kept for it and for the next layer once; weights are not of a row."""
    x = torch.zeros(1, 100)
    monkeypatch.setattr(rows, "MEMORY", 400_000)
    assert rows_that_fit(tanh(), x, 1000, gradient=True) == 100
    assert rows_that_fit(tanh(), x, 1000, gradient=False) == 25
    assert rows_that_fit(tanh(), x, 70, gradient=True) == 70
    monkeypatch.setattr(rows, "MEMORY", 1)
    assert rows_that_fit(tanh(), x, 1000, gradient=True) == 1


def test_symbols_are_counted_by_what_the_weights_need(monkeypatch):
    """Of each of two places the 500 numbers after softmax, which are of a row, and never the 7 x 500 of the table."""
    table = nn.Embedding(7, 500)
    rows_of = [rows_beside_training(lambda x: table(x).softmax(-1), torch.zeros(1, 2, dtype=torch.long), 10**9)]
    monkeypatch.setattr(rows, "BESIDE", (1, 160_000))
    rows_of.append(rows_beside_training(lambda x: table(x).softmax(-1), torch.zeros(1, 2, dtype=torch.long), 1000))
    rows_of.append(rows_beside_training(tanh(), torch.zeros(1, 100), 1000))
    assert rows_of == [4 * 2**30 // 16_000, 10, 1]


def test_what_keeps_nothing_or_is_refused_takes_all():
    def refused(x: Tensor) -> Tensor:
        raise NoBound("none")

    for function in (lambda x: x, Tensor.detach, refused):
        assert rows_that_fit(function, torch.zeros(1, 3), 1000, gradient=True) == 1000


def test_looking_changes_nothing(data):
    model, x = model_of("vae", data.spec), torch.zeros(1, 1, 8, 8)
    torch.manual_seed(0)
    want = torch.rand(2)
    torch.manual_seed(0)
    assert (batch_size(model, x), rows_of_decoder(model, x, 4000)) == (512, 4000)
    assert torch.equal(torch.rand(2), want)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


class Counted:
    """The most rows that a model's encoder and decoder see, with a gradient to what they read and without."""

    def __init__(self, model: Any) -> None:
        self.most = {True: 0, False: 0}
        for part in (model.encoder, model.decoder):
            part.register_forward_pre_hook(self.count)

    def count(self, module: nn.Module, arguments: tuple[Tensor]) -> None:
        gradient = torch.is_grad_enabled() and arguments[0].requires_grad
        self.most[gradient] = max(self.most[gradient], len(arguments[0]))


def run(name: str, model: Any, examples: Any) -> tuple[Section, dict[bool, int]]:
    counted = Counted(model)
    return audit_section(name, model, examples, EFFORT, 3), counted.most


@pytest.mark.parametrize("name", ["bounds", "amortization", "likelihood", "robustness", "codes"])
def test_a_large_model_takes_fewer_rows_and_finds_the_same(digits, data, monkeypatch, name):
    """Ten rows with a gradient, or one for each restart; without, a block of 64 where noise comes in blocks, or fewer.

    Codes are exchanged among draws of torch, which are others in other batches.
    """
    usual, most = run(name, model_of("vae", data.spec), digits)
    assert max(most.values()) > 64
    model = model_of("vae", data.spec)
    cheaper = max(rows_of(model, digits.test, 10**9) for rows_of in (rows_of_encoder, rows_of_decoder))
    monkeypatch.setattr(rows, "MEMORY", rows.MEMORY // cheaper * 10)
    found, most = run(name, model, digits)
    assert most[True] <= 12
    assert most[False] <= 64
    assert set(found.figures) == set(usual.figures)
    for figure, m in usual.figures.items():
        rel = 2e-2 if figure == "shuffled_distortion_nats" else 1e-3
        assert found.figures[figure].value == pytest.approx(m.value, rel=rel, abs=1e-4), figure
    for key, values in usual.arrays.items():
        assert np.allclose(found.arrays[key], values, rtol=1e-3, atol=1e-3), key


def test_symbols_keep_their_batches():
    assert batch_size(nn.Identity(), torch.zeros(3, 4, dtype=torch.long)) == 512
