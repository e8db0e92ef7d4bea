"""The benchmark of text: both write the same tokens, both loops see the same batches, and ratios are as defined."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from diled.data import Data
from diled.draws import seed_from
from diled.models.autoregressive import AutoregressiveDecoder
from diled.nn.causal import CausalTransformer
from diled.sequences import END, lengths
from diled.space import raw_tensor
from diled.studies import commands
from diled.training.data import Batches
from diled.training.engine import fit

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--trial", "--steps", "2", "--rounds", "1", "--limit", "500"]


@pytest.fixture(scope="module")
def bench() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("texts")


@pytest.fixture(scope="module")
def loops(bench: ModuleType) -> ModuleType:
    return importlib.import_module("loops")


@pytest.fixture(scope="module")
def data(bench: ModuleType) -> Data:
    return bench.synthetic(500)


@pytest.fixture
def small(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the study in a size that costs nothing."""
    config_of = bench.config_of
    network = {"kind": "transformer", "width": 8, "depth": 1, "heads": 2}

    def smaller(row: str, seed: int = 0) -> Any:
        config = config_of(row, seed)
        model = config.model.model_copy(
            update={"latent_dim": 4, "network": config.model.network.model_copy(update=network)}
        )
        return config.model_copy(
            update={"model": model, "training": config.training.model_copy(update={"batch_size": 16})}
        )

    monkeypatch.setattr(bench, "config_of", smaller)
    monkeypatch.setattr(bench, "DENOISERS", {"8x1": {"width": 8, "blocks": 1}})


def random_network(length: int = 7) -> CausalTransformer:
    """Without a code and with no block silent, so that it writes many different symbols."""
    torch.manual_seed(1)
    network = CausalTransformer(length, 11, width=16, depth=2, heads=2, tied=True).eval()
    for parameter in network.parameters():
        parameter.data.normal_(std=0.6 if parameter.ndim == 2 else 0.1)
    for norm in (module for module in network.modules() if isinstance(module, torch.nn.LayerNorm)):
        norm.weight.data += 1
    network.bias.data.zero_()  # GPT-2 has none
    network.embed.symbol.data[network.start] = network.embed.symbol.data[END]  # GPT-2 begins with the end
    return network


def with_weights_of(network: CausalTransformer, model: Any) -> Any:
    """GPT-2 with the weights of a network of ours."""
    body = model.transformer
    body.wte.weight.data = network.embed.symbol.data[: network.symbols].clone()
    body.wpe.weight.data = network.embed.position.data.clone()
    for theirs, ours in zip(body.h, network.blocks, strict=True):
        first, widen, _, narrow = ours.net
        pairs = (
            (theirs.attn.c_attn, ours.qkv),
            (theirs.attn.c_proj, ours.out),
            (theirs.mlp.c_fc, widen),
            (theirs.mlp.c_proj, narrow),
        )
        for a, b in pairs:  # their weights are transposed
            a.weight.data, a.bias.data = b.weight.data.T.clone(), b.bias.data.clone()
        theirs.ln_1.load_state_dict(ours.norm.state_dict())
        theirs.ln_2.load_state_dict(first.state_dict())
    norm = network.out[0]  # logits are U norm(h) / sqrt(width) here
    body.ln_f.weight.data, body.ln_f.bias.data = (p.data * network.width**-0.5 for p in (norm.weight, norm.bias))
    return model


def test_with_the_same_weights_both_write_the_same(bench: ModuleType) -> None:
    """So GPT-2 has the same size, does the same work, and both count the same positions."""
    network = random_network()
    model, decoder = with_weights_of(network, bench.gpt2(network)), AutoregressiveDecoder(network)
    x, before = torch.tensor([[3, 1, 4, 1, 5, 9, 2]]), torch.tensor([[END, 3, 1, 4, 1, 5, 9]])
    torch.testing.assert_close(network(x), model(before).logits, atol=1e-4, rtol=1e-4)
    network.bias.data[END] = bench.NEVER
    model.lm_head.bias = torch.nn.Parameter(network.bias.data.clone())
    code = torch.zeros(3, 4)
    found = []
    for beams in (1, 3):
        mine, their = bench.ours(decoder, code, None, beams), bench.theirs(model, 3, None, beams)
        assert mine.shape == (3, 7)
        assert (mine != END).all()
        assert torch.equal(mine, their), beams
        found.append(mine)
    assert not torch.equal(*found)  # the search finds something else
    assert len(found[0].unique()) > 2
    ends = torch.tensor([2, 5, 7])
    model.lm_head.bias.data -= 100  # all symbols but the end alike
    mine, their = bench.ours(decoder, code, ends), bench.theirs(model, 3, ends)
    assert torch.equal(mine, their)
    assert torch.equal(lengths(mine), ends)


def test_the_row_of_the_study_is_measured_against_its_size(bench: ModuleType, data: Data) -> None:
    decoder = bench.decoder_of(data)
    network, model = decoder.network, bench.gpt2(decoder.network)
    assert (network.symbols, network.length, network.heads) == (6001, 28, model.config.n_head)
    shared = [*network.embed.parameters(), *network.blocks.parameters(), *network.out.parameters()]
    more = network.embed.symbol[network.symbols :].numel()  # what is before the first, and what is hidden
    assert sum(p.numel() for p in shared) - more == bench.parameters(model)
    assert (bench.ours(decoder, torch.randn(2, network.memory.in_features), None) != END).all()


def test_random_rows_have_the_lengths_of_yelp(bench: ModuleType) -> None:
    rows = raw_tensor(bench.synthetic(5_000).train.values)
    size = lengths(rows)
    assert torch.equal(size, (rows != END).sum(1))
    assert (size.min(), size.max() <= 28) == (2, True)
    assert size.double().mean().item() == pytest.approx(10, abs=0.3)


@pytest.mark.usefixtures("small")
def test_the_engine_and_the_loop_see_the_same_batches_of_nearly_equal_lengths(
    bench: ModuleType, loops: ModuleType, data: Data, tmp_path: Path
) -> None:
    config = bench.config_of(bench.ROW)
    training = loops.undisturbed(config.training, 3)
    loop = loops.Loop(bench.model_of(config, data), loops.of_terms, data, training)
    mine = torch.stack([loop.source.values[loop.chosen()] for _ in range(40)])
    batches = Batches(loops.examples(loop.model, data, training), 16, seed=seed_from(training.seed, 0))
    assert torch.equal(mine, torch.stack([batches.batch(k) for k in range(40)]))

    spread = (mine[:30] != END).sum(2).double().std(1).mean()  # an epoch has 31
    assert spread < 0.2 * (loop.source.values != END).sum(1).double().std()

    taken = []
    source = loops.Timed(loops.examples(loop.model, data, training))
    assert torch.equal(source.order(0, loop.seed), loop.source.order(0, loop.seed))
    source.rows = lambda first, n, seed: taken.append((first, seed)) or loop.source.rows(first, n, seed)
    fit(
        loop.model, loops.jointly(loop.model).stages, source, mine[0], data.spec, training, tmp_path, say=lambda s: None
    )
    assert taken[:3] == [(16 * k, loop.seed) for k in range(3)]
    assert len(source.seen) >= 3 + loops.WARM_UP


@pytest.mark.usefixtures("small")
def test_the_loop_computes_in_the_precision_of_the_row(
    bench: ModuleType, loops: ModuleType, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, seen = bench.config_of(bench.ROW), []
    monkeypatch.setattr("diled.api.has_bf16", lambda kind: True)
    for precision in ("bf16", "fp32"):
        training = loops.undisturbed(config.training, 1).model_copy(update={"precision": precision})

        def loss(model: Any, x: torch.Tensor, labels: Any, progress: float) -> torch.Tensor:
            seen.append(model.encoder.network.blocks[0].qkv(torch.zeros(1, 8)).dtype)
            return loops.of_terms(model, x, labels, progress)

        loops.Loop(bench.model_of(config, data), loss, data, training).advance(1)
    assert config.training.precision == "bf16"
    assert seen == [torch.bfloat16, torch.float32]


@pytest.mark.usefixtures("small")
def test_ratios_are_of_theirs_over_ours_and_of_diled_over_the_vae(
    bench: ModuleType, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    now = SimpleNamespace(value=0.0)
    monkeypatch.setattr(bench.time, "process_time", lambda: now.value)

    def spend(seconds: float) -> None:
        now.value += seconds

    monkeypatch.setattr(bench, "BATCHES", {2: 3})
    monkeypatch.setattr(bench, "ours", lambda *_: spend(1.0))
    monkeypatch.setattr(bench, "theirs", lambda *_: spend(2.5))
    found = bench.generation(data, bench.Size(rounds=2))
    assert [(f.metric, f.value) for f in found] == [
        (f"generation_ratio/batch=2{case}", 2.5) for case in ("", "/ends", "/beams=4")
    ]
    assert "168 tokens in 3 batches, 56 tokens per CPU-second" in found[0].note

    monkeypatch.setattr(bench, "in_engine", lambda *_: 0.5)
    monkeypatch.setattr(bench, "in_loop", lambda *_: 0.4)
    (figure,) = bench.step(data, bench.Size(rounds=2))
    assert (figure.metric, figure.value) == ("throughput_ratio", pytest.approx(0.8))

    def steps(stage: Any, source: Any, *_: Any, **__: Any) -> float:
        next(clock)
        prior = stage.density.prior
        return bench.ENGINE + (1.0 + prior.times_per_code if hasattr(prior, "times_per_code") else 2.0)

    monkeypatch.setattr(bench, "seconds_per_step", steps)
    found = bench.epoch(data, bench.Size(rounds=2))
    assert [(f.system, f.metric, f.value) for f in found] == [
        ("vae", "epoch_ratio", 1.0),
        *(("diled", f"epoch_ratio/denoiser=8x1/times={k}", pytest.approx((1 + k) / 2)) for k in (1, 2, 4)),
    ]
    assert next(clock) == 3 * 5  # three rounds, the first of which is left out


@pytest.fixture
def runs(tmp_path: Path, bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two runs whose bounds fall at different pace."""
    bounds = {"diled": [60.0, 50.4, 50.0, 50.0], "beta_vae": [40.1, 39.0, 40.3, 40.0]}
    made = {"diled": (400, 100.0), "beta_vae": (400, 50.0)}
    folders = []
    for name, values in bounds.items():
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        lines = [{"stage": "joint", "step": 100 * (k + 1), "validation": {"bound": v}} for k, v in enumerate(values)]
        (folders[-1] / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folders[-1] / "run.json").write_text(bench.config_of(bench.ROW if name == "diled" else name).model_dump_json())

    def load(folder: Path) -> Any:
        steps, seconds = made[folder.name]
        provenance = {"steps": steps, "cpu_seconds": seconds, "commit": "0123456789ab-dirty"}
        return SimpleNamespace(provenance=provenance, parameters=7)

    monkeypatch.setattr(bench, "load", load)
    return folders


def test_convergence_is_to_within_a_hundredth_of_the_own_last_bound(bench: ModuleType, runs: list[Path]) -> None:
    """DiLED stays within 0.5 of 50 from step 200; the VAE, whose steps cost half as much, passes through and stays from 300."""
    found = {(f.system, f.metric): f.value for f in bench.convergence(bench.pair(runs, trial=True))}
    assert found == {
        ("diled", "convergence_ratio/steps"): pytest.approx(2 / 3),
        ("diled", "convergence_ratio/cpu_seconds"): pytest.approx(4 / 3),
        ("diled", "steps_to/own+1%"): 200,
        ("diled", "cpu_seconds_to/own+1%"): 50.0,
        ("diled", "validation_bound_nats"): 50.0,
        ("beta_vae", "steps_to/own+1%"): 300,
        ("beta_vae", "cpu_seconds_to/own+1%"): 37.5,
        ("beta_vae", "validation_bound_nats"): 40.0,
    }


def test_runs_that_cannot_be_compared_are_refused(
    bench: ModuleType, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(given: list[Path], said: str) -> None:
        words = ["--trial", "--what", "convergence", *(word for folder in given for word in ("--run", str(folder)))]
        assert bench.main(words) == 2
        assert said in capsys.readouterr().err

    refused(runs[:1], "give --run DILED --run BETA_VAE")
    refused([runs[0], runs[0]], "give --run DILED --run BETA_VAE")
    with pytest.raises(bench.ConfigError, match="uncommitted"):
        bench.pair(runs, trial=False)
    values = json.loads((runs[1] / "run.json").read_text())
    (runs[1] / "run.json").write_text(json.dumps(values | {"init_from": "elsewhere"}))
    refused(runs, "started from another run")
    values["training"]["learning_rate"] = 0.5
    (runs[1] / "run.json").write_text(json.dumps(values))
    refused(runs, "differ in training")
    (runs[1] / "run.json").write_text(bench.config_of("beta_vae@free-bits").model_dump_json())
    refused(runs, "differ in model.rate_warmup")
    cyclic = bench.config_of("beta_vae").model_dump(mode="json")
    cyclic["model"]["cycles"] = 4
    (runs[1] / "run.json").write_text(json.dumps(cyclic))
    refused(runs, "differ in model.cycles")
    (runs[1] / "run.json").write_text(bench.config_of("beta_vae").model_dump_json())
    (runs[0] / "log.jsonl").write_text("")
    refused(runs, "no looks")


@pytest.mark.usefixtures("small")
def test_a_trial_measures_every_part_and_records_nothing(
    bench: ModuleType,
    runs: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("DILED_DATA", raising=False)
    monkeypatch.setattr(bench, "BATCHES", {2: 1})
    given = [word for folder in runs for word in ("--run", str(folder))]
    assert bench.main([*SMALL, *given, "--results", str(tmp_path / "results")]) == 0
    said = capsys.readouterr().out
    for metric in (
        "generation_ratio/batch=2/beams=4",
        "throughput_ratio",
        "epoch_ratio/denoiser=8x1/times=4",
        "convergence_ratio/steps",
    ):
        assert f"diled: {metric}" in said
    assert "vae: epoch_ratio" in said
    assert not (tmp_path / "results").exists()


def test_what_cannot_be_recorded_is_refused_at_once(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "commit", lambda: "0123456789ab-dirty")
    for words, said in (
        (["--steps", "1", "--trial"], "--steps is 1"),
        (["--rounds", "2"], "full size only"),
        ([], "committed code only"),
    ):
        assert bench.main(words) == 2
        assert said in capsys.readouterr().err


def test_figures_are_recorded_under_their_study(
    loops: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "made_here", lambda: {"hardware": "h", "commit": "0123456789ab"})
    figure = loops.Figure("diled", "throughput_ratio", 0.97, 0.01, 5, 45, "a note", 12)
    loops.report("texts-speed", "yelp", [figure], seed=3, command="c", results=tmp_path)
    (record,) = json.loads((tmp_path / "texts-speed.json").read_text())
    assert {k: record[k] for k in ("data", "seed", "value", "steps", "parameters", "command")} == {
        "data": "yelp",
        "seed": 3,
        "value": 0.97,
        "steps": 45,
        "parameters": 12,
        "command": "c",
    }
    assert np.isclose(record["stderr"], 0.01)
