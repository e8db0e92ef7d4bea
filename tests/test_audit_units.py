"""Sections of an audit: what a synthetic set is compared with, in which units bounds are, and of which terms there are gaps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import audited_digits
import numpy as np
import pytest
import torch
from audited_digits import model_of

from diled import auditing
from diled.auditing import Subject, examples_of
from diled.evaluation.audit import THOROUGH, Effort, Examples, Section, audit_section
from diled.space import raw_tensor, to_space

EFFORT = Effort(
    bounded=20, examples=6, samples=2, steps=4, weights=4, ode_weights=2, ode_examples=2, annealing=4, pairs=4
)
data, digits = audited_digits.data, audited_digits.digits


def section(name: str, model: Any, examples: Examples, effort: Effort = EFFORT) -> Section:
    return audit_section(name, model, examples, effort, 3)


def test_a_network_tells_pictures_of_the_pool_apart_where_it_is_asked_for(digits, data):
    """Black pictures are no digits; training digits are."""
    model, black = model_of("ae", data.spec), replace(digits, pool=-torch.ones_like(digits.pool))
    found = section("pool", model, black, replace(EFFORT, network=True)).figures
    assert found["c2st_accuracy/images"].value > 0.9
    assert found["c2st_floor/images"].value < 0.75
    assert "c2st_accuracy/images" not in section("pool", model, black).figures
    assert THOROUGH.network
    few = replace(digits, pool=digits.pool[:8])
    notes = section("pool", model, few, replace(EFFORT, network=True)).notes
    assert any(note.startswith("no two-sample test by a network: ") for note in notes)


def test_copies_of_training_examples_beyond_the_first_are_seen(digits, data):
    """The pool copies what is in `rest` alone; without it nothing is a copy."""
    model = model_of("ae", data.spec)
    far = tuple(digits.pool.split(25))
    told = section("pool", model, replace(digits, rest=lambda: far))
    assert told.figures["copies"].value == 1
    assert told.figures["copying"].note.endswith("all 140 training examples")
    assert any("against 140 training examples" in note for note in told.notes)
    assert section("pool", model, digits).figures["copies"].value == 0


def test_bounds_of_continuous_data_are_in_the_datas_own_units(digits, data):
    """Ten times the scale adds log 10 for each of 64 values to a bound and takes it from log p(x), and leaves gaps."""
    model = model_of("vae", data.spec)
    spec = data.spec.model_copy(update={"levels": None, "low": 0.0, "high": 20.0})
    own, wide = (
        replace(digits, data=replace(data, spec=spec.model_copy(update={"high": high}))) for high in (2.0, 20.0)
    )
    shift = 64 * math.log(10)
    assert wide.unit - own.unit == pytest.approx(shift)
    effort = replace(EFFORT, annealed=2)
    for name, shifts in (
        ("bounds", {"bound_nats/test": 1, "distortion_nats/train": 1, "rate_nats/test": 0, "generalization_gap": 0}),
        ("amortization", {"best_bound_nats/test": 1, "amortization_gap_test": 0}),
        ("likelihood", {"log_p_nats/train": -1, "iwae_nats/test/1": -1, "ais_nats/test": -1, "bdmc_gap_nats": 0}),
    ):
        a, b = (section(name, model, examples, effort) for examples in (own, wide))
        for figure, sign in shifts.items():
            assert b.figures[figure].value - a.figures[figure].value == pytest.approx(sign * shift, abs=1e-3), figure
        for key in set(a.arrays) & {"test_bound", "train_before", "test_best"}:
            assert b.arrays[key] - a.arrays[key] == pytest.approx(shift, abs=1e-3)
        for key in set(a.arrays) & {"test_log_p", "test_ais"}:
            assert b.arrays[key] - a.arrays[key] == pytest.approx(-shift, abs=1e-3)


def test_a_diffusion_prior_has_a_gap_of_its_path_and_of_its_last_kl(digits, data):
    """They add up to the rate's; one KL is the rate itself and has none of its own."""
    found = section("bounds", model_of("diled", data.spec), digits).figures
    names = [f"generalization_gap/rate/{name}" for name in ("diffusion", "terminal")]
    assert {name for name in found if name.startswith("generalization_gap/rate/")} == set(names)
    parts = [found[name].value for name in names]
    assert sum(parts) == pytest.approx(found["generalization_gap/rate"].value, rel=1e-6)
    assert min(map(abs, parts)) > 0
    assert not [key for key in section("bounds", model_of("vae", data.spec), digits).figures if "gap/rate/" in key]


def test_training_examples_beyond_the_first_come_in_parts(data, monkeypatch):
    """Each once, in the order in which they were shuffled; nothing else draws otherwise because of them."""
    monkeypatch.setattr(auditing, "MOST", 1000)
    monkeypatch.setattr(auditing, "PART", 200)
    examples = examples_of(Subject("one", torch.nn.Identity(), "", data), 0)
    torch.manual_seed(5)
    want = torch.rand(2)
    torch.manual_seed(5)
    parts, drawn = [], []
    for part in examples.rest():
        parts.append(part)
        drawn.append(torch.rand(1))
    assert [len(part) for part in parts] == [200, len(data.train) - 1200]
    assert torch.equal(torch.cat(drawn), want)
    order = np.random.default_rng(0).permutation(len(data.train))
    want = to_space(raw_tensor(data.train.values[order]), data.spec)
    assert torch.equal(torch.cat([examples.train, *parts]), want)
