"""Training: batches, budgets, precision, frozen and copied parts, several processes, and warnings in words."""

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import at_step, diled, log, train, train_any, weights
from two_processes import train_quiet

from diled import rows
from diled.api import Stage, evaluating
from diled.config import DataSpec
from diled.runs import hardware, read_run, resolve
from diled.session import Session
from diled.space import to_space
from diled.training import engine, monitors, stages
from diled.training.best import held_out_bound
from diled.training.budget import seconds_per_step, steps_within
from diled.training.checkpoints import Log, Spent
from diled.training.data import Batches
from diled.training.monitors import Monitor, health
from diled.training.stages import learning_rate


def settings(run):
    return json.loads((run / "run.json").read_text())


def part(run, name):
    return {key: value for key, value in weights(run).items() if key.startswith(f"{name}.")}


# Batches


def test_every_example_comes_once_in_an_epoch_in_another_order():
    values = torch.arange(10)
    batches = iter(Batches(values, 5, seed=3))
    first, second = (torch.cat([next(batches).x, next(batches).x]) for _ in range(2))
    assert first.tolist() != second.tolist()
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))


def test_ranks_share_the_examples_of_one_large_batch():
    values = torch.arange(50)
    whole = Batches(values, 15, seed=1)
    shares = [Batches(values, 5, seed=1, rank=rank, ranks=3) for rank in range(3)]
    for step in range(20):
        assert torch.cat([share.batch(step) for share in shares]).tolist() == whole.batch(step).tolist()


def test_a_batch_may_be_larger_than_the_data():
    batch = Batches(torch.arange(4), 10, seed=0).batch(0)
    assert len(batch) == 10
    assert sorted(batch[:4].tolist()) == sorted(batch[4:8].tolist()) == list(range(4))


def test_batches_start_anywhere():
    whole, later = iter(Batches(torch.arange(11), 4, seed=2)), iter(Batches(torch.arange(11), 4, seed=2, start=5))
    for _ in range(5):
        next(whole)
    for _ in range(6):
        assert next(whole).x.tolist() == next(later).x.tolist()


def test_the_learning_rate_rises_and_falls_to_zero():
    rates = [learning_rate(k, 100, 10) for k in range(101)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert max(rates) == 1
    assert rates[100] == pytest.approx(0)
    assert all(a >= b for a, b in zip(rates[10:-1], rates[11:], strict=True))
    assert learning_rate(0, 5, 0) == 1


# The recipe


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    run = tmp_path_factory.mktemp("short") / "run"
    assert train(run, model="vae", steps=20) == 0
    return run


@pytest.mark.parametrize(
    "options",
    [
        ["--training.clip", 1],
        ["--training.ema", 0],
        ["--training.precision", "bf16"],
        ["--training.batch_size", 2000],
        ["--training.accumulate", 3],
        ["--training.weight_decay", 0.1],
        ["--training.betas", "0.8,0.99"],
        ["--training.learning_rate", "1e-2"],
        ["--training.warmup_steps", 0],
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_every_setting_trains_and_matters(options, tmp_path, short, monkeypatch):
    monkeypatch.setattr("diled.api.has_bf16", lambda kind: True)
    run = tmp_path / "run"
    assert train(run, *options, model="vae", steps=20) == 0
    assert weights(run) != weights(short)
    lines = log(run)
    assert [line["step"] for line in lines if "loss" in line] == [10, 20]
    assert all(np.isfinite(line.get("loss", 0)) for line in lines)


def test_bf16_without_instructions_for_it_is_fp32_and_says_so(tmp_path, short, monkeypatch, capsys):
    monkeypatch.setattr("diled.api.has_bf16", lambda kind: False)
    assert train(tmp_path / "run", "--training.precision", "bf16", model="vae", steps=20) == 0
    assert "This device has no instructions for bf16: networks run in fp32." in capsys.readouterr().out
    assert weights(tmp_path / "run") == weights(short)
    for run in (tmp_path / "run", short):
        assert json.loads((run / "provenance.json").read_text())["precision"] == "fp32"


def test_hardware_names_the_instructions_that_torch_uses():
    assert hardware().split(" cores, ")[1].split(", ")[0] == torch.backends.cpu.get_cpu_capability()


def test_no_clipping_is_clipping_at_infinity(tmp_path):
    assert train(tmp_path / "none", "--training.clip", "None", model="vae", steps=10) == 0
    assert train(tmp_path / "huge", "--training.clip", 1e30, model="vae", steps=10) == 0
    assert settings(tmp_path / "none")["training"]["clip"] is None
    assert weights(tmp_path / "none") == weights(tmp_path / "huge")


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path, short):
    assert train(tmp_path / "again", model="vae", steps=20) == 0
    assert train(tmp_path / "other", "--seed", 1, model="vae", steps=20) == 0
    assert weights(tmp_path / "again") == weights(short)
    assert weights(tmp_path / "other") != weights(short)


def test_the_saved_settings_train_the_same_model_again(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(first, "--model.prior.schedule", "cosine", "--seed", 5, steps=10) == 0
    assert diled("train", "--config", first / "run.json", "--out", second, "--report", "false") == 0
    assert weights(first) == weights(second)
    assert settings(first) == settings(second)
    assert read_run(first) == read_run(second)


def test_tensorboard_writes_event_files(tmp_path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    assert train(run, "--training.tensorboard", model="vae", steps=10) == 0
    assert list((run / "tensorboard").rglob("events.out.tfevents*"))


def test_without_tensorboard_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    def missing(*args, **options):
        raise ModuleNotFoundError("no tensorboard")

    monkeypatch.setattr("lightning.pytorch.loggers.TensorBoardLogger", missing)
    assert train(tmp_path / "run", "--training.tensorboard", "true", model="vae", steps=10) == 2
    assert "pip install 'diled[track]'" in capsys.readouterr().err


def test_averages_have_a_ramp():
    """After n steps their decay is min(ema, (1 + n) / (10 + n)), so that short runs do not keep their first weights."""
    module = torch.nn.Module()
    module.density = torch.nn.BatchNorm1d(1)
    average = engine._Average(0.99)
    average._average_model = torch.optim.swa_utils.AveragedModel(module)
    expected = 1.0
    for n in range(1500):
        torch.nn.init.constant_(module.density.weight, float(n))
        for micro_step in range(2):  # the second one belongs to the same optimiser step
            average.on_train_batch_end(SimpleNamespace(global_step=n + 1), module, None, None, micro_step)
        decay = min(0.99, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    module.density.running_mean.fill_(7)
    assert average.density(module).weight.item() == pytest.approx(expected, rel=1e-4)
    assert average.density(module).running_mean.item() == 7, "statistics are not averaged, they are the latest"
    average.on_train_end(None, module)
    assert module.density.weight.item() == pytest.approx(expected, rel=1e-4)
    assert module.density.running_mean.item() == 7


# Budgets and the dry run


def session(model="vae", **training):
    options = {"training.batch_size": 32, "model.network.width": 16, **training}
    return Session(resolve("digits", model, None, options, device="cpu"), out="unused", say=lambda line: None)


def test_a_budget_is_kept(tmp_path, capsys):
    run = tmp_path / "run"
    assert diled("train", "digits", "--model", "vae", "--out", run, "--minutes", 0.05, "--report", "false") == 0
    steps = settings(run)["training"]["steps"]
    record = json.loads((run / "provenance.json").read_text())
    assert f"enough for {steps:,} steps" in capsys.readouterr().out
    assert record["steps"] == steps
    assert 0.3 < record["train_seconds"] < 9  # 3 s; tests share the machine, so the limits are wide


def test_more_minutes_are_more_steps_and_nothing_is_changed_by_measuring():
    trained = session("ldm")
    before = {name: value.clone() for name, value in trained.recipe.model.state_dict().items()}
    state = torch.get_rng_state()
    recipe = trained.recipe.stages, trained.values, trained.spec, trained.config.training
    few, many = steps_within(5, *recipe), steps_within(50, *recipe)
    assert few < many
    assert torch.equal(state, torch.get_rng_state())
    for name, value in trained.recipe.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None and p.requires_grad for p in trained.recipe.model.parameters())


def test_larger_batches_take_longer():
    small, large = session(), session(**{"training.batch_size": 4096})
    times = [seconds_per_step(s.recipe.stages[0], s.values, s.spec, s.config.training) for s in (small, large)]
    assert times[0] < times[1]


def test_a_dry_run_prints_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train(tmp_path / "run", "--dry-run", model="ldm") == 0
    said = capsys.readouterr().out
    for word in ("encoder", "decoder", "prior", "parameters", "MiB", "activations", "40 steps in about"):
        assert word in said
    assert not list(tmp_path.iterdir())


# Parts of other runs

STILL = ("--training.learning_rate", 1e-30, "--training.ema", 0)
"""Options under which a training leaves the weights as they were at its start."""


def test_frozen_parts_stay_as_they_are(tmp_path, short, capsys):
    run = tmp_path / "run"
    options = ["--init-from", short, "--freeze", "encoder", "decoder"]
    assert train(run, *options, model="diled", steps=20) == 0
    said = capsys.readouterr().out
    assert f"Started encoder, decoder from {short}" in said
    assert "prior differs in its kind" in said or "prior differs in" in said
    assert part(run, "encoder") == part(short, "encoder")
    assert part(run, "decoder") == part(short, "decoder")
    fresh = session("diled").recipe.model.prior.state_dict()
    trained = part(run, "prior")
    assert any(value != fresh[key.removeprefix("prior.")].numpy().tobytes() for key, value in trained.items())
    assert settings(run)["freeze"] == ["encoder", "decoder"]


def test_a_frozen_run_resumes(tmp_path, short, monkeypatch):
    import signal

    from tiny import kill

    options = ["--init-from", short, "--freeze", "encoder"]
    assert train(tmp_path / "whole", *options, steps=20) == 0
    at_step(monkeypatch, 7, kill(signal.SIGTERM))
    assert train(tmp_path / "run", *options, steps=20) == 130
    assert diled("train", "--resume", tmp_path / "run", "--report", "false") == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_both_stages_of_a_model_can_lose_parts(tmp_path, short):
    """With encoder and decoder frozen an LDM has only its second stage left, and that gets all steps."""
    run = tmp_path / "run"
    options = ["--init-from", short, "--freeze", "encoder", "decoder"]
    assert train(run, *options, model="ldm", steps=20) == 0
    assert {line["stage"] for line in log(run)} == {"prior"}
    assert log(run)[-1]["step"] == 20
    assert part(run, "encoder") == part(short, "encoder")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--freeze", "encodr"], ["no part 'encodr'"]),
        (["--freeze", "encoder"], ["'encoder' is to be frozen", "no --init-from", "stay as it was drawn"]),
        (["--init-from", "SHORT", "--freeze", "encoder", "decoder"], ["nothing is left to train"]),
        (["--init-from", "SHORT", "--model.latent_dim", 5, "--model.network.depth", 1], ["Nothing of", "differs in"]),
        (["--init-from", "SHORT", "--preprocess.size", 6], ["(1, 8, 8)", "(1, 6, 6)"]),
        (["--init-from", "none"], ["none is no model folder"]),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_reasons(options, words, tmp_path, short, capsys):
    options = [short if word == "SHORT" else word for word in options]
    assert train(tmp_path / "run", *options, model="vae") == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said, said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("source", "model", "parts"),
    [
        ("ae", "diffae", ["encoder"]),
        ("diled", "diled_diffusion_decoder", ["encoder", "prior"]),
        ("diled", "hierarchical_vae", ["encoder", "decoder"]),
        ("vae", "lsgm", ["encoder", "decoder"]),
        ("ddpm", "ddpm", ["prior"]),
        ("ndm", "ndm", ["prior"]),
        ("consistency", "edm", ["prior"]),
        ("daae", "ae", ["encoder", "decoder"]),
        ("ldm", "diffae", ["prior"]),
    ],
)
def test_parts_of_every_kind_are_copied(source, model, parts, tmp_path, capsys):
    assert train_any(tmp_path / "source", source) == 0
    capsys.readouterr()
    assert train_any(tmp_path / "run", model, *STILL, "--init-from", tmp_path / "source") == 0
    assert f"Started {', '.join(parts)} from" in capsys.readouterr().out
    for name in parts:
        mine, theirs = part(tmp_path / "run", name), part(tmp_path / "source", name)
        for fitted in ("prior.mean", "prior.std"):  # to the codes of the encoder, anew
            assert (fitted in mine) == (fitted in theirs)
            mine.pop(fitted, None)
            theirs.pop(fitted, None)
        assert mine == theirs


@pytest.fixture(scope="module")
def edm(tmp_path_factory):
    run = tmp_path_factory.mktemp("edm") / "run"
    assert train_any(run, "edm") == 0
    return run


def test_an_edm_run_is_a_consistency_models_teacher(edm, tmp_path):
    """With its teacher at hand only the second stage is left, and the student starts from the teacher's weights."""
    words = ["--init-from", edm, "--freeze", "prior"]
    assert train_any(tmp_path / "still", "consistency", *words, *STILL) == 0
    assert {line["stage"] for line in log(tmp_path / "still")} == {"consistency"}
    assert log(tmp_path / "still")[-1]["step"] == 20
    assert part(tmp_path / "still", "prior") == part(edm, "prior")
    student = {key.rpartition("network.")[2]: value for key, value in part(tmp_path / "still", "student").items()}
    teacher = {key: value for key, value in part(edm, "prior").items() if key.startswith("prior.denoiser.network.")}
    assert student == {key.rpartition("network.")[2]: value for key, value in teacher.items()}

    assert train_any(tmp_path / "run", "consistency", *words) == 0
    assert part(tmp_path / "run", "prior") == part(edm, "prior")
    assert part(tmp_path / "run", "student") != part(tmp_path / "still", "student")


def test_a_student_of_another_run_goes_on_from_its_own_weights(edm, tmp_path):
    words = ["--init-from", edm, "--freeze", "prior"]
    assert train_any(tmp_path / "first", "consistency", *words) == 0
    words = ["--init-from", tmp_path / "first", "--freeze", "prior", *STILL]
    assert train_any(tmp_path / "second", "consistency", *words) == 0
    assert part(tmp_path / "second", "student") == part(tmp_path / "first", "student")


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("ddpm", [], ["prior differs in schedule"]),
        ("edm", ["--model.diffusion.gamma_max", 5], ["prior differs in schedule", "8.0) there", "5.0) here"]),
        ("edm", ["--model.diffusion.parameterization", "v"], ["differs in denoiser (EDM there, V here)"]),
        ("consistency", ["--model.teacher", "false"], ["it has prior, this one student"]),
        ("vae", [], ["it has prior, this one encoder, decoder"]),
    ],
)
def test_weights_that_mean_something_else_are_not_copied(model, options, words, edm, tmp_path, capsys):
    assert train_any(tmp_path / "run", model, *options, "--init-from", edm) == 2
    said = capsys.readouterr().err
    for word in [*words, "Nothing of"]:
        assert word in said, said
    assert not (tmp_path / "run").exists()


def test_a_part_that_was_not_copied_is_not_frozen(short, tmp_path, capsys):
    assert train(tmp_path / "run", "--init-from", short, "--freeze", "prior", model="diled") == 2
    assert "has none that fits: it would stay as it was drawn" in capsys.readouterr().err
    assert train_any(tmp_path / "run", "consistency", "--freeze", "prior") == 2
    assert "no --init-from gives it weights" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_frozen_modules_evaluate_and_get_no_gradient():
    recipe = session("ldm").recipe
    stage = recipe.stages[1]
    encoder = stage.frozen[0]
    with stage.training():
        assert stage.density.training
        assert not any(module.training for module in encoder.modules())
        assert not any(p.requires_grad for p in encoder.parameters())
        with evaluating(stage.density):
            assert not any(module.training for module in stage.density.modules())
        assert stage.density.training
        assert not any(module.training for module in encoder.modules())
    assert all(p.requires_grad for p in encoder.parameters())


def test_a_stage_is_prepared_once_with_the_averaged_encoder(tmp_path, monkeypatch):
    prepared = []
    ordinary = engine.prepare

    def prepare(stage, *args):
        if stage.prepare is not None:
            prepared.append(stage.frozen[0].network.state_dict())
        ordinary(stage, *args)

    monkeypatch.setattr(engine, "prepare", prepare)
    assert train(tmp_path / "run", model="ldm", steps=20) == 0
    assert len(prepared) == 1
    saved = part(tmp_path / "run", "encoder")
    assert all(value.numpy().tobytes() == saved[f"encoder.network.{key}"] for key, value in prepared[0].items())


# Several processes


@pytest.mark.slow
def test_two_processes_share_one_batch(tmp_path):
    """One test for all of it, since two processes take seconds to start: see two_processes.py."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = os.path.join(os.path.dirname(__file__), "two_processes.py")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    done = subprocess.run(
        [sys.executable, *launcher, script, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Saved") == 1, "only the first process prints"
    assert done.stdout.count("no official split") == 1
    run = tmp_path / "run"
    assert [line["step"] for line in log(run) if line["stage"] == "prior" and "loss" in line] == [2, 4]
    assert all(np.isfinite(np.frombuffer(value, np.float32)).all() for value in weights(run).values())
    together = torch.load(tmp_path / "weights.pt", weights_only=True)
    alone = train_quiet(tmp_path / "alone", 1, 10)
    for name, value in alone.items():
        assert torch.allclose(value, together[name], atol=1e-6)


def test_what_processes_cannot_agree_on_is_refused(tmp_path, monkeypatch, capsys):
    assert train(tmp_path / "run", "--training.devices", 2, "--minutes", 1) == 2
    assert "give --training.steps" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train(tmp_path / "run") == 2
    assert "--training.devices" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Signs of trouble


def test_collapse_is_told_in_words_once(tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--model.beta", 500, "--model.rate_warmup", 0]
    assert train(run, *options, model="beta_vae", steps=150) == 0
    said = capsys.readouterr().out
    assert said.count("The decoder hardly uses the code") == 1
    assert said.count("carries almost nothing") == 1
    assert len(json.loads((run / "provenance.json").read_text())["warnings"]) == 2


def test_held_out_looks_are_at_draws_of_pixels_as_training_is(tmp_path):
    """So that the bound that chooses the best weights, of other draws, is near to rate and distortion."""
    run = tmp_path / "run"
    assert train(run, "--preprocess.binarize", "dynamic", "--training.keep", "best", model="vae", steps=60) == 0
    looks = [line["validation"] for line in log(run) if "validation" in line]
    assert len(looks) == 6
    for look in looks:
        assert look["bound"] == pytest.approx(look["rate"] + look["distortion"], rel=0.02)


def test_the_best_of_many_sorted_examples_is_judged_by_random_ones():
    class Itself(torch.nn.Module):
        def bound(self, x):
            return x.flatten(1).mean(1)

    spec = DataSpec(kind="vector", shape=(1,), low=-1.0, high=1.0)
    rows = torch.linspace(-1, 1, 20_000)[:, None]
    assert held_out_bound(Itself(), rows, spec, 0) == pytest.approx(0, abs=0.03)
    first = rows[:5000]
    assert held_out_bound(Itself(), first, spec, 0) == pytest.approx(float(first.mean()), abs=1e-6)


def test_a_healthy_run_is_silent(tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--training.learning_rate", 0.005, "--training.monitor_every", 50, "--model.network.width", 64]
    assert train(run, *options, "--model.latent_dim", 8, steps=400) == 0
    said = capsys.readouterr().out
    assert "code" not in said
    assert json.loads((run / "provenance.json").read_text())["warnings"] == []


def test_growing_codes_are_told():
    seen = Monitor({"rate": 20.0, "distortion": 50.0, "shuffled_distortion": 90.0, "code_rms": 80.0})
    assert list(seen.warnings(0.5)) == ["growing codes"]
    assert seen.warnings(0.2) == {}


def test_health_reads_in_nats():
    trained = session()
    x = to_space(trained.values[:200], trained.spec)
    seen = health(trained.recipe.model.eval(), x).values
    assert seen["bound"] == pytest.approx(seen["rate"] + seen["distortion"], rel=0.05)
    assert set(seen) >= {"code_rms", "shuffled_distortion", "reconstruction_mse", "code_nats_per_dim"}


@pytest.mark.parametrize("model", ["vae", "ae"])
def test_a_large_model_is_looked_at_in_pieces(model, monkeypatch):
    """What is not drawn is the same; what the encoder reads at once is as much as fits; a small model is looked at as one."""
    trained, most = session(model=model), []
    density, raw = trained.recipe.model.eval(), trained.values[:200]

    def space(some):
        return to_space(some, trained.spec)

    whole = health(density, space(raw)).values
    density.encoder.register_forward_pre_hook(lambda module, read: most.append(len(read[0])))
    again = health(density, raw, space).values
    assert set(again) == set(whole)
    assert max(most) == 200
    counted = rows.rows_beside_training(monitors.partial(monitors._terms, density), space(raw[:1]), 10**9)
    monkeypatch.setattr(rows, "BESIDE", (rows.BESIDE[0] // counted * 30, 1))
    most.clear()
    seen = health(density, raw, space).values
    assert 3 <= max(most) <= 31
    assert set(seen) == set(whole)
    for name in {"reconstruction_mse", "code_nats_per_dim"} & set(whole):
        assert seen[name] == pytest.approx(whole[name], rel=1e-5), name
    assert seen["distortion"] == pytest.approx(whole["distortion"], rel=0.1)
    assert seen["shuffled_distortion"] > seen["distortion"]
    if model == "vae":  # the other has no bound
        most.clear()
        held_out_bound(density, raw, trained.spec, seed=0)
        assert 3 <= max(most) <= 31


def test_pieces_are_looked_at_with_the_same_draws_of_pixels_each_time(monkeypatch):
    """Or the distortion would be that of other pixels than the code is of. The noise that follows is as without draws."""
    trained, read = session(model="vae"), []
    density, raw = trained.recipe.model.eval(), trained.values[:40]
    monkeypatch.setattr(monitors, "rows_beside_training", lambda *_: 10)
    density.encoder.register_forward_pre_hook(lambda module, some: read.append(some[0]))
    spec = trained.spec.model_copy(update={"binarize": "dynamic"})
    health(density, raw, lambda some: to_space(some, spec))
    once, again = torch.cat(read[:4]), torch.cat(read[4:8])
    assert len(read) == 8
    assert torch.equal(once, again)
    cut = torch.where(raw > 8, 1.0, -1.0)
    assert not torch.equal(once, cut)


def test_a_stage_is_prepared_with_fewer_large_examples(monkeypatch):
    """Digits are 256 bytes as floats."""
    seen, trained = [], session(model="vae")
    stage = Stage("last", trained.recipe.model, 0.0, prepare=lambda x: seen.append(len(x)))
    for size, least in ((2**31, 1000), (256 * 300, 1000), (256 * 300, 100)):
        monkeypatch.setattr(stages, "BYTES", size)
        monkeypatch.setattr(stages, "FEWEST", least)
        stages.prepare(stage, trained.values, trained.spec, trained.training, 0)
    assert seen == [len(trained.values), 1000, 300]


def test_one_example_has_no_other_code_and_no_spread():
    """Its own code in place of another's would cost nothing, and every model of few data would be said to have collapsed."""
    trained = session()
    x = to_space(trained.values[:1], trained.spec)
    seen = health(trained.recipe.model.eval(), x)
    assert not {"shuffled_distortion", "code_nats_per_dim"} & set(seen.values)
    assert all(np.isfinite(value) for value in seen.values.values())
    assert "unused code" not in seen.warnings(1.0)


# Records


def test_log_lines_after_a_step_are_forgotten(tmp_path):
    lines = Log(tmp_path)
    assert lines.read() == []
    lines.rewind("b", 3)
    for stage, step in (("a", 1), ("a", 9), ("b", 2), ("b", 5)):
        lines.write({"stage": stage, "step": step})
    lines.rewind("b", 3)
    assert [(x["stage"], x["step"]) for x in lines.read()] == [("a", 1), ("a", 9), ("b", 2)]
    lines.rewind(None, 0)
    assert lines.read() == []


def test_seconds_go_on_from_where_they_were():
    spent = Spent(100.0, 50.0, {"sign": "words"})
    record = spent.record()
    assert 100 <= record["seconds"] < 101
    assert 50 <= record["cpu_seconds"] < 51
    assert record["warnings"] == {"sign": "words"}
