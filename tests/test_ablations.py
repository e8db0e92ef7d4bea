"""The ablations: their rows, the time to converge, what moves a Frechet distance, and how it is all shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_studies import RECORD
from tiny import PRIOR, SMALL, small, train, weights

from diled.data import open_data
from diled.data.proteins import protein_spec
from diled.errors import ConfigError
from diled.evaluation.feature_nets import extract
from diled.evaluation.images import frechet
from diled.evaluation.measure import features_for
from diled.family import model_config
from diled.model import load
from diled.models.sampling import sample_batches
from diled.models.zoo import build
from diled.recipes import difference
from diled.runs import resolve
from diled.session import Session
from diled.studies import ablations, commands, render
from diled.studies.ablations import convergence, frechet_moves, looks, main, runs_in, shrunk, time_to
from diled.studies.records import add, read
from diled.studies.table import rows

# ------------------------------------------------------------------------------------------------------------- rows


def test_rows_differ_from_the_reference_in_what_they_are_about():
    """The same data, networks and training for all; rows that start from another cost as much as the reference in all."""
    configs = {name: row.config() for name, row in rows("ablations").items()}
    plain = configs["diled"]
    for name, config in configs.items():
        assert (config.data, config.preprocess) == (plain.data, plain.preprocess)
        assert config.model.network == plain.model.network
        assert config.model.latent_dim == plain.model.latent_dim
        assert config.training.model_copy(update={"steps": 2500}) == plain.training, name
        before = configs[config.init_from].training.steps if config.init_from else 0
        if name in ("vae@half", "diled@from-vae", "diled@from-vae,frozen"):
            assert before + config.training.steps in (1250, 2500)
        else:
            assert config.training.steps == 2500
    frozen = configs["diled@frozen"]
    assert (frozen.init_from, frozen.init_parts, frozen.freeze) == ("diled", *(("encoder", "decoder"),) * 2)
    assert frozen.model == plain.model


def test_every_row_is_shown_and_every_system_shown_is_a_row():
    shown = {system for systems in render.QUESTIONS.values() for system in systems}
    for sweep in render.SWEEPS.values():
        for of, one in sweep.items():
            shown |= {one, *(of.format(w) for w in render.WEIGHTS if w != "1")}
    assert shown == {name.replace("@", "/") for name in rows("ablations")} - {"vae/half"}


def test_chosen_parts_start_from_a_run_and_the_others_afresh(tmp_path):
    source = tmp_path / "source"
    assert train(source, steps=4) == 0
    settings = dict(zip((w[2:] for w in [*SMALL, *PRIOR][::2] if w != "--report"), [16, 4, 16, 1], strict=True))
    config = resolve("digits", "diled", None, settings, init_from=str(source))

    def state(**more):
        out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        session = Session(config.model_copy(update=more), out=out, say=lambda line: None)
        return {k: v.numpy().tobytes() for k, v in session.recipe.model.state_dict().items()}

    chosen, everything, fresh = state(init_parts=("encoder", "decoder")), state(), state(init_from=None)
    there = weights(source)
    assert {k: v for k, v in everything.items() if k in there} == there
    for name, value in there.items():
        assert chosen[name] == (fresh[name] if name.startswith("prior") else value)
    assert fresh != everything
    with pytest.raises(ConfigError, match="no effect without init_from"):
        state(init_from=None, init_parts=("encoder",))
    with pytest.raises(ConfigError, match="has no 'critic' that fits"):
        state(init_parts=("encoder", "critic"))


def built(name: str, **values: Any) -> Any:
    spec = protein_spec(5) if name == "lm" else open_data("digits").spec
    return build(name, model_config(name, small(name) | values).resolved(spec), spec).model


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (built("lm", width=8, heads=1), built("lm", width=8, heads=2), "heads 1 here"),
        (built("edm"), built("edm", diffusion={"kind": "mlp", "width": 12, "data_std": 0.9}), "sigma_data 0.9 there"),
        (
            built("vae", likelihood="logistic"),
            built("vae", likelihood="gaussian"),
            "kind gaussian there, kind logistic here",
        ),
        (built("vae", rate_warmup=0.1), built("vae"), None),
    ],
)
def test_weights_that_mean_something_else_do_not_fit(one: Any, other: Any, said: str | None):
    found = difference(one, other)
    assert found is None if said is None else said in str(found)


# ---------------------------------------------------------------------------------------------------- convergence


def a_run(folder: Path, lines: list[dict], *, steps: int = 1000, init_from: str | None = None) -> Path:
    """What a finished run leaves behind, as far as `convergence` reads it: a tenth of a CPU second each step."""
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "provenance.json").write_text(json.dumps({"steps": steps, "cpu_seconds": steps / 10}))
    config = resolve("mnist", "diled", init_from=init_from)
    (folder / "run.json").write_text(json.dumps(config.model_dump(mode="json")))
    return folder


def look(stage: str, step: int, **values: float) -> dict:
    return {"stage": stage, "step": step, "validation": values}


JOINT = [
    {"stage": "joint", "step": 50, "loss": 1.0},
    *(
        look("joint", step, bound=bound, rate=20.0, distortion=bound - 20)
        for step, bound in ((250, 120.0), (500, 104.0), (750, 101.0), (1000, 100.0))
    ),
]


def test_time_to_converge(tmp_path):
    found = convergence(a_run(tmp_path / "joint", JOINT))
    values = {name: m.value for name, m in found.items()}
    assert values == {
        "validation_bound_nats": 100.0,
        "steps_to/own+1": 750.0,
        "cpu_seconds_to/own+1": 75.0,
        "steps_to/own+5": 500.0,
        "cpu_seconds_to/own+5": 50.0,
        "steps_to/110": 500.0,
        "cpu_seconds_to/110": 50.0,
        "steps_to/105": 500.0,
        "cpu_seconds_to/105": 50.0,
        "steps_to/100": 1000.0,
        "cpu_seconds_to/100": 100.0,
    }


def test_what_a_run_started_from_is_part_of_its_cost(tmp_path):
    first = a_run(tmp_path / "first", JOINT, steps=1000)
    second = a_run(tmp_path / "second", JOINT[:3], steps=500, init_from=str(first))
    third = a_run(tmp_path / "third", JOINT[:3], steps=500, init_from=str(second))
    assert convergence(second)["steps_to/105"].value == 1000 + 500
    assert convergence(third)["steps_to/105"].value == 1000 + 500 + 500
    assert convergence(third)["cpu_seconds_to/105"].value == pytest.approx(200.0)
    (first / "provenance.json").unlink()
    with pytest.raises(ConfigError, match="first holds no record"):
        convergence(second)


def test_looks_of_stages_in_turn(tmp_path):
    """A prior on a frozen encoder logs its rate alone: the distortion is that of the stage before."""
    rounds = [
        look("autoencoder 1", 100, bound=200.0, rate=50.0, distortion=150.0),
        look("prior 1", 100, bound=30.0, rate=30.0),
        look("autoencoder 2", 50, bound=170.0, rate=40.0, distortion=130.0),
        look("autoencoder 2", 100, bound=150.0, rate=40.0, distortion=110.0),
        look("prior 2", 100, bound=25.0, rate=25.0),
    ]
    seen = looks(a_run(tmp_path / "rounds", rounds))
    assert seen == [(100, 200.0), (200, 180.0), (250, 170.0), (300, 150.0), (400, 135.0)]
    two = [
        look("autoencoder", 600, bound=110.0, rate=45.0, distortion=65.0),  # a simple prior's, not the model's
        {"stage": "prior", "step": 50, "loss": 1.0},
        look("prior", 200, bound=40.0, rate=40.0),
        look("prior", 400, bound=33.0, rate=33.0),
    ]
    assert looks(a_run(tmp_path / "two", two)) == [(800, 105.0), (1000, 98.0)]
    assert looks(a_run(tmp_path / "unknown", two[2:])) == [], "a distortion that was never logged"
    assert convergence(tmp_path / "unknown") == {}


def test_time_to_a_bound_is_its_first_step():
    seen = [(1, 5.0), (2, 3.0), (3, 4.0), (4, 2.0)]
    assert [time_to(seen, b) for b in (5, 3.5, 3, 2, 1)] == [1, 2, 2, 4, None]


# -------------------------------------------------------------------------------------------------------- Frechet


def test_shrunk_images_are_means_of_their_cells():
    x = torch.rand(2, 1, 8, 8)
    assert shrunk(x, 8) is x
    torch.testing.assert_close(shrunk(torch.full((1, 1, 8, 8), 0.3), 4), torch.full((1, 1, 8, 8), 0.3))
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    torch.testing.assert_close(shrunk(board[None, None], 4), torch.zeros(1, 1, 8, 8))
    torch.testing.assert_close(shrunk(x, 1), x.mean((2, 3), keepdim=True).expand_as(x))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert train(folder / "diled-0", steps=2) == 0
    assert train(folder / "vae@half-1", model="vae", steps=2) == 0
    (folder / "unfinished-0").mkdir()
    return folder


def test_a_distance_moves_with_its_set_up(trained, monkeypatch):
    monkeypatch.setattr(ablations, "COUNTS", (70, 500))
    monkeypatch.setattr(ablations, "STEPS", (2, 3))
    model, data = load(trained / "diled-0"), open_data("digits")
    found = frechet_moves(model, data, count=90, resamples=2)
    assert {name for name in found if "floor" not in name} == {
        *(f"frechet_moves/reference={r}/count={n}" for r in ("test", "train") for n in (70, 90)),
        "frechet_moves/reference=all-train",
        "frechet_moves/pixels=7",
        "frechet_moves/picture=thresholded",
        "frechet_moves/picture=draws",
        *(f"frechet_moves/sampler={s}/steps={n}" for s in ("ddim", "ancestral") for n in (2, 3)),
    }
    net = features_for(data)
    samples = torch.cat(list(sample_batches(model.density, 90)))
    real = ablations._some(data, "test", 90, data.spec)
    want = frechet(extract(net, samples[:70]), extract(net, real[:70]))
    assert found["frechet_moves/reference=test/count=70"].value == pytest.approx(want)
    floor = frechet(extract(net, ablations._some(data, "train", 90, data.spec)), extract(net, real))
    assert found["frechet_moves_floor/count=90"].value == pytest.approx(floor)
    assert found["frechet_moves/sampler=ddim/steps=3"].n == 90
    assert "3 steps" in found["frechet_moves/sampler=ddim/steps=3"].note


# ---------------------------------------------------------------------------------------------------- the command


def test_finished_runs_are_found_by_row_and_seed(trained):
    assert [(r.row, r.seed, r.system) for r in runs_in(trained)] == [("diled", 0, "diled"), ("vae@half", 1, "vae/half")]
    assert [r.row for r in runs_in(trained, ["vae@half"])] == ["vae@half"]
    for wrong in ({"rows": ["vae"]}, {"seeds": [7]}):
        with pytest.raises(ConfigError, match="no finished run"):
            runs_in(trained, **wrong)


def test_a_trial_prints_and_records_nothing(trained, tmp_path, capsys, monkeypatch):
    words = ["levels", "--runs", str(trained), "--results", str(tmp_path)]
    assert main([*words, "--trial"]) == 0
    assert "probe_accuracy/level=1" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(commands, "commit", lambda: "0123456789ab-dirty")
    assert main(words) == 2
    assert "committed code only" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_records_name_the_code_that_measured_and_the_code_that_trained(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "commit", lambda: "0123456789ab")
    words = ["convergence", "--runs", str(trained), "--results", str(tmp_path), "--only", "diled"]
    made = json.loads((trained / "diled-0" / "provenance.json").read_text())
    for commit, code in (("fedcba987654-dirty", 2), ("fedcba987654", 0)):
        (trained / "diled-0" / "provenance.json").write_text(json.dumps(made | {"commit": commit}))
        assert main(words) == code
        assert (tmp_path / "ablations.json").exists() is (code == 0)
    assert "trained by uncommitted code" in capsys.readouterr().err
    found = read(tmp_path / "ablations.json")
    assert {(r.study, r.system, r.seed, r.commit) for r in found} == {("ablations", "diled", 0, "0123456789ab")}
    assert all(r.trained_at == "fedcba987654" for r in found)
    assert {r.command for r in found} == {"python -m diled.studies.ablations convergence --only diled --seeds 0"}


# ------------------------------------------------------------------------------------------------------- rendering


def test_nothing_recorded_is_said_and_not_broken(tmp_path):
    assert render.ablations(tmp_path / "ablations.json") == "Nothing is recorded yet."


def test_questions_with_records_are_shown(tmp_path):
    path = tmp_path / "ablations.json"
    base = replace(RECORD, study="ablations", system="diled")
    fixed, moved = replace(base, system="diled_fixed", value=103.0), {"stderr": 0.25, "value": 35.0}
    add(
        path,
        [
            base,
            *(replace(fixed, seed=seed) for seed in (0, 1)),
            replace(base, system="beta_vae/beta=10", value=120.0),
            replace(base, system="diled_levels/n=2", metric="probe_accuracy/level=2", value=0.55),
            *(replace(base, seed=seed, metric="validation_bound_nats", value=88.0) for seed in (0, 1)),
            replace(base, metric="steps_to/95", value=1500.0),
            replace(base, metric="cpu_seconds_to/95", value=33.4),
            replace(base, metric="frechet_moves/reference=test/count=500", **moved),
            replace(base, metric="frechet_moves_floor/count=500", value=9.5),
        ],
    )
    text = render.ablations(path)
    assert "**Fixed and learned variance**" in text
    assert "| learned | 100.0 | – |" in text
    assert "| fixed: the first diffusion step | 103.0 ± 0.0 | – |" in text
    assert "Size of the denoiser" not in text, "nothing but the reference is there"
    assert "| 10 | – | – | – | 120.0 | – | – | – | – | – |" in text
    assert "| DiLED, 2 levels | 2 | – | 0.550 | – | – | – |" in text
    assert "| DiLED (EDDPM), default | 88.0 ± 0.0 | 1500 (33 s, 1 of 2 seeds) |" in text
    assert "| DiLED (EDDPM), default | reference=test, count=500 | 35.0 ± 0.2 | 9.5 |" in text
