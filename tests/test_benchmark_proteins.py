"""The benchmark of proteins: the published network is as described, its loss is the engine's, and ratios are as defined."""

from __future__ import annotations

import gzip
import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from diled.config import PreprocessConfig, TrainingConfig
from diled.data import Data, open_data
from diled.diffusion.schedule import alpha, sigma
from diled.draws import seeded
from diled.evaluation.measure import Measured
from diled.studies import commands

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--trial", "--steps", "2", "--every", "1", "--block", "2", "--rounds", "1", "--width", "8", "--layers", "3"]


@pytest.fixture(scope="module")
def bench() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("proteins")


@pytest.fixture(scope="module")
def network(bench: ModuleType) -> ModuleType:
    return importlib.import_module("published_protein")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    """A file in place of Gifford's, with random sequences."""
    rng = np.random.default_rng(0)
    lines = [f"{''.join(rng.choice([*'ACDEFGHIKL'], rng.integers(6, 9)))},{rng.normal():.3f}" for _ in range(300)]
    with gzip.open(tmp_path / "gifford-cdr3-train.csv.gz", "wt") as file:
        file.write("\n".join(["CDR3,enrichment", *lines]) + "\n")
    monkeypatch.setenv("DILED_DATA", str(tmp_path))
    return open_data("gifford-id", PreprocessConfig())


def test_the_denoiser_has_78_million_parameters_for_30_numbers(bench: ModuleType, network: ModuleType) -> None:
    d, h, n = 30, 2048, 20
    with torch.device("meta"):
        found = bench.parameters(network.SkipMLP(d))
    first, middle, last = (d + 1) * h, (n - 2) * (h + d + 1) * h, (h + d + 1) * d
    norms_and_scales, embedding = (n - 1) * (2 * h + (d + 1) * h), (33 + 1) * d + (d + 1) * d
    assert found == first + middle + last + norms_and_scales + embedding
    assert round(found / 1e6) == 78


def test_every_layer_of_the_denoiser_reads_the_code_again_and_is_scaled_by_the_noise_level(network: ModuleType) -> None:
    net, z, log_snr = network.SkipMLP(4, 16, 3), torch.randn(3, 4), torch.randn(3)

    def affine(part: nn.Module, *values: torch.Tensor) -> torch.Tensor:
        return torch.cat(values, 1) @ part.weight.T + part.bias  # type: ignore[operator,union-attr]

    first, last = net.time[0], net.time[2]
    level = torch.nn.functional.silu(affine(last, torch.nn.functional.silu(affine(first, net.embed(log_snr)))))
    h = z
    for i, read in enumerate((lambda h: (h,), lambda h: (h, z))):
        a = (1 + affine(net.scales[i], level)) * affine(net.layers[i], *read(h))
        centred = a - a.mean(1, keepdim=True)
        normed = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        h = normed * torch.sigmoid(normed)
    torch.testing.assert_close(net(z, log_snr), affine(net.out, h, z))


def test_the_encoder_is_causal_and_pools_by_a_softmax(network: ModuleType) -> None:
    net = network.PublishedEncoder(6, 5, 3).eval()
    x = torch.randint(0, 5, (2, 6))
    changed = x.clone()
    changed[:, 4:] = (x[:, 4:] + 1) % 5
    h, other = (net.blocks(net.embed(each), mask=net.mask, is_causal=True) for each in (x, changed))
    torch.testing.assert_close(h[:, :4], other[:, :4])
    assert not torch.allclose(h[:, 4:], other[:, 4:])
    weight = torch.exp(net.weight(h))
    torch.testing.assert_close(net(x), net.out((weight * h).sum(1) / weight.sum(1)))
    layer = net.blocks.layers[0]
    assert (len(net.blocks.layers), layer.self_attn.num_heads, layer.linear1.out_features) == (6, 4, 200)
    assert (layer.self_attn.embed_dim, layer.dropout.p) == (100, 0.2)


def test_the_chain_has_a_thousand_steps_of_which_the_encoder_takes_the_first(bench: ModuleType, data: Data) -> None:
    model = bench.published(data, width=8, layers=3)
    low, high = (end.double() for end in model.prior.schedule.ends)
    assert sigma(low) ** 2 == pytest.approx(0.008, rel=1e-4)
    assert alpha(high) ** 2 == pytest.approx(0.992**1000, rel=1e-3)
    assert model.prior.timesteps == 999
    assert model.encoder(torch.ones(1, *data.spec.shape, dtype=torch.long)).var == pytest.approx(0.008, rel=1e-4)
    logits = model.decoder.network(torch.zeros(2, 30))
    assert logits.shape == (2, data.spec.numel, len(data.spec.symbols))


def test_the_loss_written_out_has_the_gradient_of_the_engines(bench: ModuleType, data: Data) -> None:
    model = bench.published(data, width=16, layers=4).train()
    for part in model.modules():
        if isinstance(part, nn.Dropout | nn.MultiheadAttention):
            setattr(part, "p" if isinstance(part, nn.Dropout) else "dropout", 0.0)
    x = torch.from_numpy(data.train.values[:40])
    labels = {column: y[:40] for column, y in bench.labels_of(data).items()}
    gradients = []
    for loss in (bench.written_out, bench.of_terms):
        with seeded(3):
            gradients.append(torch.autograd.grad(loss(model, x, labels, 0.5), list(model.parameters())))
    for (name, _), mine, theirs in zip(model.named_parameters(), *gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")
        assert name.endswith(("bias", "pace")) or mine.abs().max() > 1e-6, name


def test_the_loop_sees_each_example_once_an_epoch_and_averages_as_the_engine(bench: ModuleType, data: Data) -> None:
    config = TrainingConfig(steps=20, batch_size=48, learning_rate=1e-2, device="cpu")
    loop = bench.Loop(bench.published(data, width=8, layers=3), bench.written_out, data, config)
    n = len(data.train)
    seen = torch.cat([loop.chosen() for _ in range(-(-2 * n // 48))])[: 2 * n]
    assert all(torch.equal(part.sort().values, torch.arange(n)) for part in seen.split(n))
    before = [p.detach().clone() for p in loop.weights]
    loop.advance(1)
    for old, new, mean in zip(before, loop.weights, loop.averages, strict=True):
        torch.testing.assert_close(mean, 0.1 * old + 0.9 * new)
    moved = max((new - old).abs().max().item() for old, new in zip(before, loop.weights, strict=True))
    assert moved == pytest.approx(1e-2 / 2, rel=1e-3)  # Adam's first step, in the first of two steps of warm-up


def test_each_position_by_itself_is_what_is_counted(bench: ModuleType, data: Data) -> None:
    """Ten letters and three lengths, all equally likely."""
    length = (data.validation.values != 0).sum(1).mean()
    seen = bench.each_by_itself(data)
    assert seen.n == len(data.validation)
    assert seen.value == pytest.approx(length * np.log(10) + np.log(3), rel=0.05)


def test_looks_stop_at_the_bound_that_is_wanted(bench: ModuleType) -> None:
    def looks(values: list[float], until: float) -> list[int]:
        loop = SimpleNamespace(step=0, config=SimpleNamespace(steps=70, seed=0))
        loop.advance = lambda n: setattr(loop, "step", loop.step + n)
        seen = iter(values)
        loop.bound = lambda data: Measured(next(seen))
        return [step for step, _ in bench.on_the_way(loop, None, 30, until)]

    assert looks([9.0, 8.0, 7.0], -np.inf) == [30, 60, 70]
    assert looks([9.0, 8.0, 7.0], 8.0) == [30, 60]
    assert looks([9.0, np.nan, 7.0], -np.inf) == [30, 60]


def test_ratios_are_of_time_per_example_and_of_steps_times_time(
    bench: ModuleType, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_loop(model: Any, loss: Any, data: Data, config: TrainingConfig) -> float:
        theirs = isinstance(model.prior.denoiser.network, bench.SkipMLP)
        assert (loss is bench.written_out) is (theirs and model.prior.timesteps == 999)
        return 0.5 if theirs else 0.1

    monkeypatch.setattr(bench, "in_loop", in_loop)
    monkeypatch.setattr(bench, "in_engine", lambda model, data, config: 0.2)
    size = bench.Size(width=8, layers=3, rounds=2)
    assert [(f.system, f.value) for f in bench.throughput(data, size)] == [("published", 2.5), ("diled", 0.5)]

    monkeypatch.setattr(bench, "best_rate", lambda data, size, seed: (1e-3, 300, Measured(60.0, 2.0, 30)))
    for reached, remark in ((59.0, False), (61.0, True)):
        monkeypatch.setattr(
            bench, "on_the_way", lambda *_, reached=reached: [(25, Measured(70.0)), (50, Measured(reached))]
        )
        found = bench.time_to_bound(data, size)
        assert found[0].value == pytest.approx(300 * 0.5 / (50 * 0.1))
        assert ("upper limit" in found[0].note) is remark
        assert found[1].system == "profile"
        assert [(f.system, f.steps, f.cpu_seconds) for f in found[2::2]] == [
            ("diled/published-denoiser", 300, pytest.approx(150)),
            ("diled", 50, pytest.approx(5)),
        ]
        assert [f.value for f in found[3::2]] == [60.0, reached]


def test_only_the_denoiser_differs_where_time_to_equal_bound_is_measured(bench: ModuleType, data: Data) -> None:
    small, large = bench.ours(data, by_bound=True), bench.ours_with_theirs(data, width=8, layers=3)
    mine, theirs = (
        {name: p for name, p in m.named_parameters() if ".denoiser.network." not in f".{name}"} for m in (small, large)
    )
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert (small.prior.times_per_code, large.prior.times_per_code) == (4, 1)
    assert small.prior.objective == large.prior.objective
    assert [model.rate_weight(share) for model in (small, large) for share in (0.0, 1.0)] == [1.0] * 4  # the bound
    assert bench.ours(data).rate_weight(1.0) == 0.03  # the row
    z = torch.zeros(5, 30)
    assert large.prior.denoiser.network(z, torch.zeros(5)).shape == z.shape
    assert len(large.prior.denoiser.network.layers) == 2


def test_the_first_round_is_left_out(bench: ModuleType) -> None:
    count = iter(range(9))
    assert bench.settled({"a": lambda: next(count)}, 3) == {"a": [1, 2, 3]}


def test_the_learning_rate_with_the_lowest_bound_is_taken(
    bench: ModuleType, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = {2e-5: 90.0, 1e-4: 80.0, 3e-4: 70.0, 1e-3: np.nan}
    monkeypatch.setattr(
        bench, "on_the_way", lambda loop, *_: [(1, Measured(bounds[loop.config.learning_rate])), (2, Measured(95.0))]
    )
    assert bench.best_rate(data, bench.Size(width=8, layers=3), 0) == (3e-4, 1, Measured(70.0))


def test_a_trial_measures_both_parts_and_records_nothing(
    bench: ModuleType,
    data: Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bench, "LEARNING_RATES", (1e-3,))
    monkeypatch.setattr(bench, "FASTER", 2)
    assert bench.main([*TINY, "--results", str(tmp_path / "results")]) == 0
    said = capsys.readouterr().out
    for metric in ("throughput_ratio", "time_ratio_to_equal_bound", "cpu_seconds_to_bound", "bound_nats/validation"):
        assert f"diled: {metric}" in said
    assert not (tmp_path / "results").exists()


def test_what_cannot_be_recorded_is_refused_at_once(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "commit", lambda: "0123456789ab-dirty")
    for words, said in (
        (["--block", "1", "--trial"], "--block is 1"),
        (["--rounds", "2"], "full size only"),
        ([], "committed code only"),
    ):
        assert bench.main(words) == 2
        assert said in capsys.readouterr().err
