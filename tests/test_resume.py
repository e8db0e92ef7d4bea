"""A training that is stopped and resumed ends on the same bytes as one that was not, whatever stopped it and where."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from tiny import at_step, diled, kill, log, train, weights

from diled.errors import ConfigError, TrainingError
from diled.model import Model
from diled.session import resume
from diled.training import engine
from diled.training.checkpoints import Checkpoints, Log, alone_in

CASES = {
    "in an epoch": ("diled", [], 0, 17, 0),
    "at a log line": ("diled", [], 0, 19, 0),
    "while accumulating": ("diled", ["--training.accumulate", 2], 0, 12, 0),
    "without averages": ("vae", ["--training.ema", 0], 0, 25, 0),
    "in stage one": ("ldm", [], 0, 7, 0),
    "in stage two": ("ldm", [], 1, 7, 0),
    "in its first step": ("ldm", [], 1, 0, 0),
    "in the last step": ("diled", [], 0, 39, 0),
    "in the last step of stage one": ("ldm", [], 0, 19, 0),
    "in a later round": ("diled", ["--model.rounds", 2], 2, 3, 0),
    "in the last step of a round": ("diled", ["--model.rounds", 2], 1, 9, 0),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(model, options) -> the folder of a run that nothing interrupted."""
    runs = {}

    def run(model, options):
        key = (model, *options)
        if key not in runs:
            runs[key] = tmp_path_factory.mktemp("whole") / "run"
            assert train(runs[key], *options, model=model) == 0
        return runs[key]

    return run


def same(run, other):
    assert weights(run) == weights(other)
    assert log(run) == log(other)
    assert not (run / "checkpoints").exists()


@pytest.mark.parametrize("case", CASES)
def test_sigterm_and_resume_change_nothing(case, tmp_path, whole, monkeypatch, capsys):
    model, options, stage, step, micro = CASES[case]
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, step, kill(signal.SIGTERM), stage, micro)
        assert train(run, *options, model=model) == 130
    said = capsys.readouterr().err
    assert ("Stopped after stage" if "last" in case else f"Stopped at step {step + 1} of stage") in said
    assert f"diled train --resume {run}" in said
    assert "Traceback" not in said
    assert not (run / "config.json").exists()
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole(model, options))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_between_two_micro_batches_waits_for_the_step(tmp_path, whole, monkeypatch):
    options, run = ["--training.accumulate", 2], tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 12, kill(signal.SIGTERM), micro=1)
        assert train(run, *options) == 130
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("diled", options))


def test_many_interruptions_change_nothing(tmp_path, whole, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 3, kill(signal.SIGINT))
        assert train(run) == 130
    for step in (11, 29, 39):
        with monkeypatch.context() as patch:
            at_step(patch, step, kill(signal.SIGINT))
            assert diled("train", "--resume", run, "--report", "false") == 130
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("diled", []))


def test_a_second_ctrl_c_stops_at_once(tmp_path, whole, monkeypatch, capsys):
    run, twice, before = tmp_path / "run", [], signal.getsignal(signal.SIGINT)

    def press(module):
        for _ in range(2):
            twice.append(module.trainer.global_step)
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        at_step(patch, 21, press)
        assert train(run, "--training.checkpoint_seconds", 1e-6) == 130
    said = capsys.readouterr().err
    assert twice == [21, 21]
    assert "Stopped at once. The state of step 21 is kept" in said
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("diled", []))
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_before_the_first_step_can_be_resumed(tmp_path, whole, monkeypatch):
    run = tmp_path / "run"

    def press(module):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        at_step(patch, 0, press)
        assert train(run) == 130
    shutil.rmtree(run / "checkpoints")  # stopped even earlier
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("diled", []))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.slow
def test_a_killed_process_loses_little(number, tmp_path, whole):
    """A real process: after kill -9 what is lost is the time since the last checkpoint, after TERM nothing."""
    run, log_file = tmp_path / "run", tmp_path / "run" / "log.jsonl"
    tests = os.path.dirname(__file__)
    slowly = (
        f"import sys, time; sys.path.insert(0, {tests!r})\nimport tiny\n"
        "from pathlib import Path\nfrom diled.training import engine\n"
        "step = engine._Module.training_step\n"
        "engine._Module.training_step = lambda self, *a: (time.sleep(0.05), step(self, *a))[1]\n"
        "sys.exit(tiny.train(Path(sys.argv[1]), '--training.checkpoint_seconds', '0.1', model='vae'))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", slowly, str(run)], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while time.monotonic() < end and not (log_file.exists() and len(log_file.read_text().splitlines()) >= 2):
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == 130
        assert f"diled train --resume {run}" in said
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    steps = log(run)[-1]["step"]
    assert state["global_step"] >= steps - 5
    assert diled("train", "--resume", run, "--report", "false") == 0
    expected = whole("vae", [])
    assert weights(run) == weights(expected)
    assert log(run) == log(expected)


def test_a_log_line_that_was_cut_is_written_again(tmp_path, whole, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 24, kill(signal.SIGTERM))
        assert train(run) == 130
    with (run / "log.jsonl").open("a") as file:
        file.write('{"stage": "joint", "step": 30, "lo')
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("diled", []))


def test_seconds_and_warnings_add_up_over_sessions(tmp_path, monkeypatch):
    run, options = tmp_path / "run", ["--model.beta", 500, "--model.rate_warmup", 0]
    with monkeypatch.context() as patch:
        at_step(patch, 25, lambda module: (time.sleep(1.0), kill(signal.SIGTERM)(module)))
        assert train(run, *options, model="beta_vae") == 130
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["diled"]["spent"]
    assert state["warnings"]
    assert diled("train", "--resume", run, "--report", "false") == 0
    import json

    record = json.loads((run / "provenance.json").read_text())
    assert record["train_seconds"] > 1.0
    assert record["warnings"][: len(state["warnings"])] == list(state["warnings"].values())
    assert len(record["warnings"]) <= 3


def test_the_state_of_an_earlier_stage_is_not_taken_for_this_one(tmp_path, whole, monkeypatch):
    """Killed after a stage was finished and before its running state was removed."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "finish", _finish_and_die)
        at_step(patch, 15, lambda module: module.trainer.callbacks[-1].save(module.trainer, module))
        with pytest.raises(ZeroDivisionError):
            train(run, model="ldm")
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert (run / "checkpoints" / "model.safetensors").exists()
    assert diled("train", "--resume", run, "--report", "false") == 0
    assert weights(run) == weights(whole("ldm", []))


def _finish_and_die(self, model, stages, spent):
    kept = self.last.read_bytes()
    ORDINARY_FINISH(self, model, stages, spent)
    self.last.write_bytes(kept)
    raise ZeroDivisionError


ORDINARY_FINISH = Checkpoints.finish


# What cannot be resumed


def interrupted(run, monkeypatch, *options, step=12, model="vae"):
    with monkeypatch.context() as patch:
        at_step(patch, step, kill(signal.SIGTERM))
        assert train(run, *options, model=model) == 130
    return run


def refused(capsys, *words):
    capsys.readouterr()
    assert diled(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith("diled: ")
    assert said.count("\n") == 1
    return said


def test_a_missing_or_finished_run(tmp_path, whole, capsys):
    assert "is no run" in refused(capsys, "train", "--resume", tmp_path / "none")
    assert "is finished" in refused(capsys, "train", "--resume", whole("vae", ["--training.ema", 0]))


def test_other_settings_are_refused(tmp_path, monkeypatch, capsys):
    run = interrupted(tmp_path / "run", monkeypatch)
    said = refused(capsys, "train", "--resume", run, "--training.learning_rate", 1, "--seed", 0)
    assert "training.learning_rate" in said
    assert "seed" in said
    assert diled("train", "--resume", run, "--device", "cpu", "--report", "false") == 0


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_checkpoint_is_named(damage, tmp_path, whole, monkeypatch, capsys):
    run = interrupted(tmp_path / "run", monkeypatch, "--training.ema", 0)
    path = run / "checkpoints" / "last.ckpt"
    body = path.read_bytes()
    path.write_bytes({"cut": body[: len(body) // 2], "empty": b"", "text": b"not a checkpoint"}[damage])
    said = refused(capsys, "train", "--resume", run)
    assert str(path) in said
    assert "truncated or damaged" in said
    path.unlink()  # as the message says
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("vae", ["--training.ema", 0]))


def test_damaged_weights_of_a_finished_stage_are_named(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 3, kill(signal.SIGTERM), stage=1)
        assert train(run, model="ldm") == 130
    path = run / "checkpoints" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    assert str(path) in refused(capsys, "train", "--resume", run)


def test_a_checkpoint_of_another_model_or_other_data(tmp_path, monkeypatch, capsys):
    run = interrupted(tmp_path / "run", monkeypatch)
    settings = (run / "run.json").read_text()
    (run / "run.json").write_text(settings.replace('"limit": null', '"limit": 500'))
    assert "digits has changed since the run in" in refused(capsys, "train", "--resume", run)
    (run / "data.json").unlink()
    assert "data have changed: 1,293 training examples then, 500 now" in refused(capsys, "train", "--resume", run)
    (run / "run.json").write_text(settings.replace('"width": 16', '"width": 17'))
    assert "does not fit the model in run.json" in refused(capsys, "train", "--resume", run)
    (run / "run.json").write_text("{")
    assert "run.json is damaged" in refused(capsys, "train", "--resume", run)


def test_data_that_were_sorted_anew_are_other_data(tmp_path, monkeypatch, capsys):
    values = np.random.default_rng(0).integers(0, 17, (60, 1, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "a.npy", values)
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 7, kill(signal.SIGTERM))
        assert train(run, model="vae", data=tmp_path / "a.npy") == 130
    np.save(tmp_path / "a.npy", values[::-1])
    said = refused(capsys, "train", "--resume", run)
    assert "a.npy has changed since the run in" in said
    assert "Put the data back as they were" in said
    np.save(tmp_path / "a.npy", values)
    (run / "data.json").unlink()  # as of a run that was begun before there was one
    assert diled("train", "--resume", run, "--report", "false") == 0


def test_a_folder_is_trained_in_by_one_process_at_a_time(tmp_path, whole, monkeypatch, capsys):
    run = interrupted(tmp_path / "run", monkeypatch, "--training.ema", 0)
    before = (run / "run.json").read_text().replace('"device": "cpu"', '"device": "auto"')
    (run / "run.json").write_text(before)
    with alone_in(run):
        assert f"{run} is being trained by another process" in refused(capsys, "train", "--resume", run)
        refused(capsys, "train", "--resume", run, "--device", "cpu")
    assert (run / "run.json").read_text() == before
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("vae", ["--training.ema", 0]))


def test_nobody_goes_on_with_a_run_while_or_after_another_process_ends_it(tmp_path, monkeypatch):
    run, save = interrupted(tmp_path / "run", monkeypatch), Model.save
    one, late = resume(run), resume(run)

    def saved(self, folder):
        with pytest.raises(TrainingError, match="is being trained by another process"), alone_in(run):
            pass
        save(self, folder)

    monkeypatch.setattr(Model, "save", saved)
    one.run()
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match="is finished"):
        late.run()
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert not (run / "checkpoints").exists()


# A full disk, and numbers that are none


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, whole, monkeypatch, capsys):
    run, saves = tmp_path / "run", []
    ordinary = engine.pl.Trainer.save_checkpoint

    def save_checkpoint(self, path, *args, **options):
        saves.append(self.global_step)
        if len(saves) == 4:
            with open(path, "wb") as file:
                file.write(b"half a check")
            raise OSError(28, "No space left on device")
        ordinary(self, path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(engine.pl.Trainer, "save_checkpoint", save_checkpoint)
        assert train(run, "--training.checkpoint_seconds", 1e-6) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "The one before it is kept" in said
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["last.ckpt"]
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("diled", []))


def test_a_full_disk_stops_at_a_log_line(tmp_path, whole, monkeypatch, capsys):
    run = tmp_path / "run"

    def full(self, record):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Log, "write", full)
        assert train(run) == 2
    assert f"Could not write to {run} (No space left on device)" in capsys.readouterr().err
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("diled", []))


def test_a_full_disk_at_the_end_loses_nothing(tmp_path, whole, monkeypatch, capsys):
    run = tmp_path / "run"

    def save_file(weights, path, **options):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("diled.models.io.save_file", save_file)
        assert train(run) == 2
    said = capsys.readouterr().err
    assert "The trained weights are kept" in said
    assert f"diled train --resume {run}" in said
    assert not list(run.glob("*.partial"))
    with monkeypatch.context() as patch:
        at_step(patch, 0, lambda module: pytest.fail("nothing is left to train"))
        assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("diled", []))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_term_that_is_no_number_stops_training(bad, tmp_path, whole, monkeypatch, capsys):
    run = tmp_path / "run"
    ordinary = engine._Module.training_step

    def training_step(self, raw, index):
        terms = self.density.terms
        if self.trainer.global_step == 17:
            self.density.terms = lambda x, **options: terms(x, **options) | {"rate/kl": x.flatten(1).sum(1) * bad}
        return ordinary(self, raw, index)

    with monkeypatch.context() as patch:
        patch.setattr(engine._Module, "training_step", training_step)
        assert train(run, "--training.checkpoint_seconds", 1e-6, model="vae") == 2
    said = capsys.readouterr().err
    assert "stopped at step 18 of stage 'joint': the term 'rate/kl' is " in said
    assert f"The state of step 17 is kept: diled train --resume {run}" in said
    assert (
        "comes to this again unless its cause was outside. Start a new run with a lower --training.learning_rate"
        in said
    )
    assert log(run)[-1]["step"] == 10
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("vae", []))


def test_weights_that_are_no_numbers_are_never_kept(tmp_path, whole, monkeypatch, capsys):
    """A gradient can be NaN where the loss is not; the next checkpoint must not replace the good one."""
    run = tmp_path / "run"

    def spoil(module):
        module.register_full_backward_hook(lambda *_: None)
        next(p for p in module.density.parameters()).register_hook(lambda grad: grad * float("nan"))

    with monkeypatch.context() as patch:
        at_step(patch, 9, spoil)
        assert train(run, "--training.checkpoint_seconds", 1e-6, model="vae") == 2
    said = capsys.readouterr().err
    assert "made the weights NaN or infinite" in said
    assert "The state of step 9 is kept" in said
    assert diled("train", "--resume", run, "--report", "false") == 0
    same(run, whole("vae", []))
