"""The studies of DMaaPx: arms are what they say, a reproduction goes on where it stopped, tables stand beside the paper's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import diled

from diled.data import open_data
from diled.errors import ConfigError
from diled.evaluation.audited import Audited
from diled.evaluation.measure import Measured
from diled.runs import read_run
from diled.studies import calibration, commands, dmaapx, render_dmaapx
from diled.studies.commands import as_records
from diled.studies.intervals import ALL, COMPARED
from diled.studies.paper_dmaapx import PAPER, PLOTTED
from diled.studies.records import KEYS, Record, add, read
from diled.studies.render_dmaapx import beside_the_paper, named, table

ARMS = """
title: what is asked
base:
  data: digits
  preprocess: {limit: 40}
  model: {name: vae, latent_dim: 2, network: {kind: mlp, width: 8, depth: 1}, rate_warmup: 0.0}
  training: {epochs: 2, batch_size: 16, schedule: constant, warmup_steps: 0, ema: 0.0, monitor_every: 5}
source:
  data: digits
  preprocess: {limit: 40}
  model: {name: edm, diffusion: {kind: mlp, width: 8}}
  training: {steps: 4, batch_size: 16}
sources:
  edm: {}
arms:
  vae@real: {}
  vae@synthetic/k=2: {pool.folds: 2}
scales:
  mini:
    pool: {folds: 2}
    audit: {bounded: 20, examples: 10, samples: 2, steps: 4, weights: 4, references: 4, restarts: 2, iterations: 2,
            published_references: 4, published_iterations: 2, pairs: 2}
  wide:
    base: {model.network.width: 16}
    pool: {folds: 2}
    audit: {examples: 10}
"""


SHARED: dict[str, Any] = {
    "study": "dmaapx", "steps": 1, "train_seconds": 1.0, "cpu_seconds": 1.0, "parameters": 1, "hardware": "h",
    "commit": "abc", "command": "python -m x",
}  # fmt: skip
"""What made-up records have in common."""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of a few steps in place of the packaged ones."""
    folder = tmp_path / "arms"
    folder.mkdir()
    (folder / "dmaapx-mnist.yaml").write_text(ARMS)
    monkeypatch.setattr(dmaapx, "_folder", lambda: folder)
    return tmp_path


def plans() -> list[dmaapx.Arms]:
    return [dmaapx.arms_of(study, scale) for study in dmaapx.studies() for scale in dmaapx.scales(study)]


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.name)
def test_every_arm_is_a_valid_run_that_differs_in_what_it_says(plan: dmaapx.Arms) -> None:
    normal = plan.config(next(iter(plan.arms)), seed=3)
    assert normal.training.seed == 3
    epochs = normal.training.epochs or 0
    sequences = "gifford" in plan.name or "yelp" in plan.name
    few = 21 if "yelp" in plan.name else 300
    fewer = {"dmaapx-width-mini": 600} | ({plan.name: few} if plan.name.endswith("gpu") or sequences else {})
    assert epochs == fewer.get(plan.name, 1000)
    assert normal.training.schedule == "constant"
    for arm, values in plan.arms.items():
        config = plan.config(arm, seed=3, pool=Path("pool"))
        named = {"vae": "beta_vae"} if sequences else {}
        assert config.name == named.get(arm.split("@")[0], arm.split("@")[0])
        assert (config.pool.source == "pool") == (arm in plan.drawn)
        assert arm not in plan.drawn or plan.drawn[arm] in {*plan.sources, *plan.arms} - {arm}
        assert config.pool.folds is None or config.pool.folds <= plan.folds
        groups = {key.split(".")[0] for key in values}
        for group in {"model", "training", "preprocess"} - groups:
            assert getattr(config, group) == getattr(normal, group), f"{arm} changes {group}"
        seen = (config.training.epochs or 0) * (config.preprocess.limit or 1)
        assert seen == epochs * (normal.preprocess.limit or 1), "every arm sees as many examples"
    for name in plan.sources:
        source = plan.source_config(name)
        assert source.name == (name.split("-")[0] if sequences else "edm")
        assert (source.preprocess.limit or 1) <= (normal.preprocess.limit or 1), "the source sees no other images"
        assert source.preprocess.size == normal.preprocess.size


def test_an_arm_may_be_trained_on_another_arm_s_samples(small: Path) -> None:
    path = small / "arms" / "dmaapx-mnist.yaml"
    path.write_text(
        path.read_text().replace("scales:", "  vae@self/1: {from: vae@real}\n  vae@self/2: {from: vae@self/1}\nscales:")
    )
    found = dmaapx.reproduce("dmaapx-mnist", only=["vae@self/2"], runs=small / "r", results=None, steps=2, device="cpu")
    assert list(found) == ["vae@self/2"]
    there = {p.name for p in (small / "r" / "dmaapx-mnist-mini").iterdir()}
    assert there == {"pool", "vae@real-0", "vae@self,1-0", "vae@self,2-0"}
    assert {p.name for p in (small / "r" / "dmaapx-mnist-mini" / "pool").iterdir()} == {"vae@real-0", "vae@self,1-0"}


def test_the_paper_s_network_at_the_paper_s_scale() -> None:
    config = dmaapx.arms_of("dmaapx-mnist", "paper").config("vae@real", 0)
    assert config.model.network.width == 512
    assert config.model.latent_dim == 16
    assert (config.preprocess.size, config.preprocess.size_policy) == (32, "border")


def test_a_grid_of_widths_is_trained_on_real_and_on_synthetic_examples() -> None:
    mini, paper = dmaapx.arms_of("dmaapx-width"), dmaapx.arms_of("dmaapx-width", "paper")
    assert len(mini.arms) == 24
    assert mini.config("vae@real/n_c=8,m_z=16", 0).data == "mnist"
    binary = [mini.config(arm, 0).preprocess.binarize for arm in mini.arms]
    assert set(binary) == {"threshold"}
    assert mini.sections == ("bounds",)
    assert paper.sections == dmaapx.SECTIONS
    assert len(paper.arms) == 2 * (4 * 12 + 5)
    config = paper.config("vae@synthetic/n_c=512,m_z=64", 0, pool=Path("pool"))
    assert (config.data, config.model.network.channels, config.model.latent_dim) == ("cifar10", 512, 64 * 64)
    assert config.pool.folds == 10


def test_a_scale_may_take_the_data_and_settings_of_another_study() -> None:
    cifar, sizes = dmaapx.arms_of("dmaapx-cifar10", "paper"), dmaapx.arms_of("dmaapx-pool-size", "paper")
    assert (sizes.base, sizes.sources, sizes.effort) == (cifar.base, cifar.sources, cifar.effort)
    assert [values.get("pool.folds") for values in sizes.arms.values()] == [None, 1, 2, 5, 10, 20, 50]
    assert (cifar.folds, sizes.folds) == (10, 50)


def test_a_reproduction_goes_on_and_records_nothing_twice(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = small / "runs"
    found = dmaapx.reproduce("dmaapx-mnist", seeds=[0, 1], runs=runs, results=None, device="cpu")
    assert set(found) == {"vae@real", "vae@synthetic/k=2"}
    assert set(found["vae@real"]) == {0, 1}
    assert (runs / "dmaapx-mnist-mini" / "pool" / "edm" / "manifest.json").exists()

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(commands, "Session", never)
    again = dmaapx.reproduce("dmaapx-mnist", seeds=[0, 1], runs=runs, results=None, device="cpu")
    assert again["vae@real"][1].figures == found["vae@real"][1].figures
    shown = beside_the_paper("dmaapx-mnist", {arm: list(one.values()) for arm, one in found.items()})
    rows = [line for line in shown.splitlines() if line.startswith("| normal |")]
    assert len(rows) == 1
    assert "(25.76)" in rows[0]
    assert "(20.32)" in rows[0]
    assert "±" in rows[0], "two seeds have a spread"
    assert "± is the standard deviation over seeds." in shown
    assert "DMaaPx, k = 2" in shown
    assert "By how much each differs from normal" in shown
    plan, folder = dmaapx.arms_of("dmaapx-mnist"), runs / "dmaapx-mnist-mini"
    for place, seconds in (("vae@real-0", 5.0), ("vae@synthetic,k=2-0", 7.0), ("source/edm", 100.0)):
        made = json.loads((folder / place / "provenance.json").read_text())
        (folder / place / "provenance.json").write_text(json.dumps({**made, "cpu_seconds": seconds}))
    assert dmaapx.total_cost(plan, "vae@real", 0, folder, "cpu").value == 5
    dmaapx.total_cost(plan, "vae@synthetic/k=2", 0, folder, "cpu")
    timed = json.loads((folder / "pool" / "edm.seconds.json").read_text())
    assert 0 < timed["cpu_seconds"] < 60
    (folder / "pool" / "edm.seconds.json").write_text(json.dumps({"cpu_seconds": 64.0, "samples": 256}))
    cost = dmaapx.total_cost(plan, "vae@synthetic/k=2", 0, folder, "cpu")
    assert cost.value == 7 + 100 + 80 * 0.25
    assert cost.note == "training 7 s, source 100 s, 80 samples 20 s"
    with pytest.raises(ConfigError, match=r"other settings .*: training\.epochs = 2\.0, not None"):
        dmaapx.reproduce("dmaapx-mnist", seeds=[0], runs=runs, results=None, steps=3, device="cpu")


def test_differences_from_the_first_arm_are_recorded_over_all_seeds(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dmaapx, "refuse_uncommitted", lambda way_out: None)
    monkeypatch.setattr(dmaapx, "made_here", lambda: {"hardware": "h", "commit": "abc"})
    options: dict[str, Any] = {"seeds": [0, 1], "runs": small / "runs", "results": small / "results", "device": "cpu"}
    found = dmaapx.reproduce("dmaapx-mnist", **options)
    assert set(found) == {"vae@real", "vae@synthetic/k=2"}
    assert found["vae@real"][0].test == found["vae@synthetic/k=2"][1].test != found["vae@real"][0].train != ""
    records = {(r.system, r.metric, r.seed): r for r in read(small / "results" / "dmaapx.json")}
    arm, command = "vae@synthetic/k=2", "python -m diled.studies.dmaapx dmaapx-mnist --scale mini --seeds 0 1"
    for metric in (m for m in COMPARED if "substitutions" not in m):
        mean = {s: sum(records[s, metric, seed].value for seed in (0, 1)) / 2 for s in ("vae@real", arm)}
        one, low, high = (records[arm, f"{metric}/minus/vae@real{end}", -1] for end in ("", "/low", "/high"))
        assert one.value == pytest.approx(mean[arm] - mean["vae@real"], rel=1e-5, abs=1e-9)
        assert low.value <= one.value <= high.value
        assert (one.command, one.data) == (command, "digits/grey/dmaapx-mnist-mini")
        assert "bootstrap over examples and seeds" in one.note
    assert not any("minus" in metric and system == "vae@real" for system, metric, _ in records)
    shown = table(small / "results" / "dmaapx.json", "dmaapx-mnist", "mini")
    value = records[arm, "generalization_gap/minus/vae@real", -1].value
    ends = [records[arm, f"generalization_gap/minus/vae@real/{end}", -1].value for end in ("low", "high")]
    assert f"| {value:+.2f} ({ends[0]:+.2f} to {ends[1]:+.2f}) |" in shown.split("By how much")[1]
    before = (small / "results" / "dmaapx.json").read_text()
    dmaapx.reproduce("dmaapx-mnist", only=[arm], **options)
    after = json.loads((small / "results" / "dmaapx.json").read_text())
    assert {tuple(r[k] for k in KEYS) for r in after} == {tuple(r[k] for k in KEYS) for r in json.loads(before)}
    assert [r for r in after if r["seed"] == -1] == [r for r in json.loads(before) if r["seed"] == -1]
    dmaapx.reproduce("dmaapx-mnist", **{**options, "seeds": [1]})
    after = json.loads((small / "results" / "dmaapx.json").read_text())
    assert {r["command"] for r in after if r["seed"] == -1} == {command}, "one seed says less than two"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("data: digits", "data: fashion-mnist", "data = digits, not fashion-mnist"),
        ("epochs: 2", "epochs: 3", r"training\.epochs = 2\.0, not 3\.0"),
        ("limit: 40", "limit: 50", r"preprocess\.limit = 40, not 50"),
        ("width: 8, depth", "width: 9, depth", r"model\.network\.width = 8, not 9"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_run_of_other_settings_is_neither_taken_nor_gone_on_with(
    small: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, said: str, finished: bool
) -> None:
    """Whether or not it is finished; a changed study is seen in the first arm, which needs no pool."""
    config = dmaapx.arms_of("dmaapx-mnist").config("vae@real", 0)
    data, out = open_data("digits", config.preprocess), small / "run"
    session = commands.Session(config, out=out, data=data)
    if finished:
        session.run()
    else:
        session._write_configuration()
    path = small / "arms" / "dmaapx-mnist.yaml"
    path.write_text(path.read_text().replace(old, new))
    changed = dmaapx.arms_of("dmaapx-mnist").config("vae@real", 0)
    log = sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*"))
    with pytest.raises(ConfigError, match=said):
        commands.trained(changed, out, data=data)
    assert sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*")) == log
    assert commands.trained(config, out, data=data, device="cpu").provenance["steps"] == 5


def test_the_verb_prints_the_table(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--only", "vae@real", "--runs", small / "r", "--steps", "3", "--device", "cpu"]
    assert diled("reproduce", "dmaapx-mnist", *words) == 0
    said = capsys.readouterr().out
    assert "| normal |" in said
    assert not (small / "r" / "dmaapx-mnist-mini" / "pool").exists(), "no arm needs it"
    assert diled("reproduce") == 0
    assert capsys.readouterr().out.splitlines()[1].split(maxsplit=3) == [
        "dmaapx-mnist",
        "mini",
        "wide",
        "what is asked",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dmaapx-minst"], "dmaapx-mnist"),
        (["dmaapx-mnist", "--scale", "huge"], "mini"),
        (["dmaapx-mnist", "--only", "vae@rael"], "vae@real"),
    ],
)
def test_what_is_unknown_is_named(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert diled("reproduce", *words) == 2
    assert said in capsys.readouterr().err


def test_tables_are_rendered_from_records_of_one_study_and_scale(tmp_path: Path) -> None:
    path = tmp_path / "dmaapx.json"
    assert table(path, "dmaapx-mnist", "mini") == "Nothing is recorded yet."
    shared = SHARED
    for seed, gap in ((0, 20.0), (1, 24.0)):
        figures = {"generalization_gap": Measured(gap), "test_elbo": Measured(-90.0)}
        add(path, as_records(figures, data="mnist/threshold/dmaapx-mnist-mini", system="vae@real", seed=seed, **shared))
        add(
            path, as_records(figures, data="mnist/threshold/dmaapx-mnist-paper", system="vae@real", seed=seed, **shared)
        )
    shown = table(path, "dmaapx-mnist", "mini")
    assert "| normal | 2 | -90.00 ± 0.00 (-94.60) | 22.00 ± 2.83 (25.76) |" in shown
    for arm in ("steps=1000", "steps=300", "k=10", "k=2"):
        figures = {"test_elbo": Measured(-90.0)}
        place = {"data": "mnist/threshold/dmaapx-mnist-mini", "system": f"vae@synthetic/{arm}", "seed": 0}
        add(path, as_records(figures, **place, **shared))
    rows = [line.split(" | ")[0] for line in table(path, "dmaapx-mnist", "mini").splitlines()[2:7]]
    assert [row.rpartition(" ")[2] for row in rows] == ["normal", "2", "10", "300", "1000"], "by size, not by letters"


def test_arms_of_another_division_have_a_table_of_their_own(tmp_path: Path) -> None:
    """What is recorded against `vae@clusters/real` stands apart from what is recorded against `vae@real`."""
    arms = {"vae@real": (-60.0, 20.0), "diled@real": (-70.0, 40.0), "vae@clusters/real": (-66.0, 27.0)}
    rendered(tmp_path, "dmaapx-gifford", "mini", {**arms, "diled@clusters/real": (-79.0, 46.0)})
    for system, first, value in (("diled@real", "vae@real", 2.0), ("diled@clusters/real", "vae@clusters/real", 3.0)):
        ends = {
            f"test_elbo/minus/{first}{end}": Measured(value + by) for end, by in (("", 0), ("/low", -1), ("/high", 1))
        }
        place = {"data": "data/dmaapx-gifford-mini", "system": system, "seed": -1}
        add(tmp_path / "dmaapx.json", as_records(ends, **place, **SHARED))
    whole, real, clusters = table(tmp_path / "dmaapx.json", "dmaapx-gifford", "mini").split("By how much each")
    assert "| DiLED, normal, clusters | 1 |" in whole
    assert real.startswith(" differs from normal, with")
    assert clusters.startswith(" that has the same test examples differs from normal, clusters, with")
    assert "| DiLED, normal | +2.00 (+1.00 to +3.00) |" in real
    assert "clusters" not in real
    assert "| DiLED, normal, clusters | +3.00 (+2.00 to +4.00) |" in clusters


def rendered(tmp_path: Path, study: str, scale: str, arms: dict[str, tuple[float, float]]) -> list[str]:
    """The table of made-up test ELBOs and generalization gaps."""
    for system, (elbo, gap) in arms.items():
        figures = {"test_elbo": Measured(elbo), "generalization_gap": Measured(gap)}
        place = {"data": f"data/{study}-{scale}", "system": system, "seed": 0}
        add(tmp_path / "dmaapx.json", as_records(figures, **place, **SHARED))
    return table(tmp_path / "dmaapx.json", study, scale).splitlines()


@pytest.mark.parametrize(
    ("old", "new", "kept"), [("0 1 2", "3", False), ("0", "1", True), ("0 1", "0 1 2", True), ("0 1 2", "0 1", False)]
)
def test_a_difference_over_fewer_seeds_replaces_none_over_more(old: str, new: str, kept: bool) -> None:
    record = Record("s", "d", "a", ALL, "m", 1.0, None, None, None, None, None, None, "", "", "x --seeds ")
    before, after = (replace(record, command=record.command + seeds) for seeds in (old, new))
    assert bool(dmaapx.not_narrower([after], [before])) == kept


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"vae@real/early": "1 2", "vae@real/decay": "1 2"}, "are of seeds 1 and 2."),
        ({"vae@real/early": "0", "vae@real/decay": "0 1 2"}, "are of seed 0 for normal, early stopping."),
        ({"vae@real/early": "0 1 2"}, None),
    ],
)
def test_seeds_of_differences_are_named_where_the_table_has_others(
    tmp_path: Path, of: dict[str, str], said: str | None
) -> None:
    place = {"data": "data/dmaapx-mnist-mini", **SHARED}
    for system in ("vae@real", *of):
        for seed in (0, 1, 2):
            add(
                tmp_path / "dmaapx.json",
                as_records({"test_elbo": Measured(-90.0)}, system=system, **place | {"seed": seed}),
            )
    for system, seeds in of.items():
        ends = {f"test_elbo/minus/vae@real{end}": Measured(1.0) for end in ("", "/low", "/high")}
        command = {"seed": ALL, "command": f"python -m x --seeds {seeds}"}
        add(tmp_path / "dmaapx.json", as_records(ends, system=system, **place | command))
    shown = table(tmp_path / "dmaapx.json", "dmaapx-mnist", "mini")
    found = [line for line in shown.splitlines() if "other seeds" in line]
    assert found == ([] if said is None else [f"The table is of other seeds than these differences, which {said}"])


@pytest.mark.parametrize(("n", "cell"), [(5, "–"), (20, "1.30")])
def test_approximation_gaps_of_few_examples_are_not_shown_after_a_study_either(n: int, cell: str) -> None:
    audited = Audited({"test_elbo": Measured(-90.0), "approximation_gap_test": Measured(1.3, n=n),
                       "rate_nats/test": Measured(9.0)}, {}, [], {})  # fmt: skip
    other = Audited({"test_elbo": Measured(-91.0), "approximation_gap_test": Measured(2.0, n=100)}, {}, [], {})
    rows = beside_the_paper("dmaapx-mnist", {"vae@real": [audited], "vae@real/decay": [other]}).splitlines()
    head = next(line for line in rows if line.startswith("| trained on")).split(" | ")
    normal = next(line for line in rows if line.startswith("| normal |")).split(" | ")
    assert normal[head.index("approximation gap")] == cell


def test_pool_sizes_stand_beside_the_paper_s_of_other_images(tmp_path: Path) -> None:
    arms = {"vae@real": (-332.0, 300.0), "vae@synthetic/k=5": (-113.0, 4.26), "vae@real/decay": (-239.0, 203.0)}
    shown = rendered(tmp_path, "dmaapx-pool-size", "mini", arms)
    assert "CIFAR-10" in shown[0]
    assert "Ours are of 1,000 images of mnist: the two compare in order, not in size." in shown[0]
    assert shown[2].startswith(
        "| trained on | seeds | test ELBO (paper) | generalization gap (paper) | amortization gap | "
    )
    assert "| normal | 1 | -332 (-11566) | 300 (905) | – | – |" in shown
    assert "| DMaaPx, k = 5 | 1 | -113 (-11009) | 4.26 (10) | – | – |" in shown
    assert "| weight decay | 1 | -239 | 203 | – | – |" in shown


def test_widths_stand_beside_the_paper_s(tmp_path: Path) -> None:
    arms = {
        "vae@real/n_c=256,m_z=1": (-11600.0, 900.0),
        "vae@synthetic/n_c=512,m_z=64": (-8600.0, 5.0),
        "vae@real/n_c=512,m_z=8": (-9200.0, 300.0),
        "vae@synthetic/n_c=256,m_z=48": (-8900.0, 6.0),
        "vae@real/n_c=1,m_z=1": (-13500.0, 3.0),
    }
    shown = rendered(tmp_path, "dmaapx-width", "paper", arms)
    assert "Ours are" not in shown[0], "all of CIFAR-10, as in the paper"
    assert shown[4:9] == [
        "| normal, n_c = 1, m_z = 1 | 1 | -13500 | 3.00 | – | – |",
        "| normal, n_c = 256, m_z = 1 | 1 | -11600 (-11591) | 900 (886) | – (857) | – (0.32) |",
        "| normal, n_c = 512, m_z = 8 | 1 | -9200 (-9213) | 300 (325) | – | – |",
        "| DMaaPx, n_c = 256, m_z = 48 | 1 | -8900 (-8973) | 6.00 (6.1) | – | – |",
        "| DMaaPx, n_c = 512, m_z = 64 | 1 | -8600 (-8612) | 5.00 | – | – |",
    ]
    gpu = rendered(tmp_path, "dmaapx-width", "gpu", {"vae@real/n_c=8,m_z=1": (-12400.0, 1.0)})
    assert "Ours are of 300 epochs:" in gpu[0]
    other = rendered(tmp_path / "none", "dmaapx-width", "mini", {"vae@real/n_c=4,m_z=1": (-900.0, 1.0)})
    assert other[0].startswith("| trained on | seeds | test ELBO | "), "nothing of the paper is shown, nothing is said"


def test_cifar_has_the_paper_s_mixtures_and_remedies_on_samples(tmp_path: Path) -> None:
    arms = {"vae@mixed/40%": (-11000.0, 150.0), "vae@synthetic/asleep": (-11000.0, 6.0), "vae@real": (-11500.0, 840.0)}
    shown = rendered(tmp_path, "dmaapx-cifar10", "paper", arms)
    assert "of other runs than the rest" in shown[0]
    assert shown[4:7] == [
        "| normal | 1 | -11500 (-11497) | 840 (842) | – (836) | – (0.41) |",
        "| 40 % real in each batch | 1 | -11000 (-11069) | 150 (145) | – | – |",
        "| DMaaPx and reverse half asleep | 1 | -11000 (-11003) | 6.00 (5) | – | – |",
    ]
    plan = dmaapx.arms_of("dmaapx-cifar10", "paper")
    for share in (20, 40, 50, 60, 80):
        assert plan.config(f"vae@mixed/{share}%", 0, pool=Path("pool")).pool.real == share / 100
    for arm, key in (("mollify", "mollify"), ("asleep", "half_asleep")):
        real, both = (plan.config(f"vae@{examples}/{arm}", 0, pool=Path("pool")) for examples in ("real", "synthetic"))
        assert getattr(real.training, key) == getattr(both.training, key) > 0
        assert (real.pool.source, both.pool.source, both.pool.folds) == (None, "pool", 10)
    assert not any("mixed/40%" in dmaapx.arms_of("dmaapx-cifar10", scale).arms for scale in ("mini", "gpu"))


def test_the_paper_s_plots_say_what_it_says() -> None:
    """At k = 1 the ELBO of normal training and no gap; DMaaPx has the smaller gap at every width; more m_z, a higher ELBO."""
    sizes, widths = PLOTTED["dmaapx-pool-size"], PLOTTED["dmaapx-width"]
    assert sizes["vae@synthetic/k=1"][0] == pytest.approx(sizes["vae@real"][0], abs=3)
    assert all((row[1] or 0) <= 10 for system, row in sizes.items() if system != "vae@real")
    for plan in (dmaapx.arms_of("dmaapx-width", "paper"), dmaapx.arms_of("dmaapx-pool-size", "paper")):
        assert set(PLOTTED[plan.name.removesuffix("-paper")]) <= set(plan.arms)
    assert len(widths) == 2 * (9 + 4 * 8)
    for m in (1, 2, 4, 8, 10, 16, 32, 48, 64):
        real, synthetic = (widths[f"vae@{examples}/n_c=256,m_z={m}"] for examples in ("real", "synthetic"))
        assert (synthetic[1] or 0) < 8 < 40 < (real[1] or 0)
    for n in (8, 512):
        elbos = [widths[f"vae@real/n_c={n},m_z={m}"][0] or 0 for m in (1, 2, 8)]
        assert elbos == sorted(elbos)


def test_tables_of_sequences_have_their_own_attacks_and_unseen_texts(tmp_path: Path) -> None:
    path, names = tmp_path / "dmaapx.json", ("robustness_gap/substitutions=2", "generalization_gap/unseen")
    shared: dict[str, Any] = {
        "study": "dmaapx", "steps": 1, "train_seconds": 1.0, "cpu_seconds": 1.0, "parameters": 1, "hardware": "h",
        "commit": "abc", "command": "python -m x", "data": "yelp/dmaapx-yelp-mini", "seed": 0,
    }  # fmt: skip
    differences = {
        f"{names[0]}/minus/vae@real{end}": Measured(v) for end, v in (("", 0.4), ("/low", 0.3), ("/high", 0.5))
    }
    few = {"approximation_gap_test": Measured(1.3, n=5), "still_improving/test": Measured(0.5)}
    for system, more in (("vae@real", {"still_improving/test": Measured(0.6)}), ("diled@real", differences | few)):
        figures = {"test_elbo": Measured(-40.0), names[0]: Measured(1.25), names[1]: Measured(2.5)}
        add(path, as_records(figures | more, system=system, **shared))
    shown = table(path, "dmaapx-yelp", "mini").splitlines()
    assert shown[0] == (
        "| trained on | seeds | test ELBO | generalization gap | amortization gap | robustness gap, 2 symbols | "
        "generalization gap, unseen texts |"
    )
    assert "| normal | 1 | -40.00 | – | – | 1.25 | 2.50 |" in shown
    assert "| DiLED, normal | – | – | – | +0.40 (+0.30 to +0.50) |" in shown
    assert any("50 to 60 % of a model's test examples were still gaining" in line for line in shown)


def test_every_arm_has_a_name_and_models_stand_together() -> None:
    for system, name in {
        "vae@synthetic/lm": "DMaaPx, lm",
        "vae@real/7N": "7 times the real data",
        "diled@real/7N": "DiLED, 7 times the real data",
        "vae@clusters/real": "normal, clusters",
        "diled@clusters/token_diffusion": "DiLED, DMaaPx, token_diffusion, clusters",
        "diled@synthetic/k=10": "DiLED, DMaaPx, k = 10",
        "diled@self/3": "DiLED, its own samples, generation 3",
        "lsgm@real": "LSGM, normal",
    }.items():
        assert named(system) == name
    for study in dmaapx.studies():
        if study != "dmaapx-quality":  # whose arms are named after their sources
            for arm in dmaapx.arms_of(study, "mini").arms:
                assert "@" not in named(arm), arm
    order = ["vae@real", "vae@synthetic/k=5", "vae@synthetic/k=20", "diled@real", "diled@synthetic/k=10", "diled@self/2",
             "diled@self/10", "ldm@real"]  # fmt: skip
    assert sorted([*order[4:], *order[:4]], key=render_dmaapx._place) == order
    order = ["vae@real", "vae@clusters/real", "vae@synthetic/lm", "vae@clusters/lm", "diled@real", "diled@clusters/real",
             "diled@synthetic/token_diffusion", "diled@clusters/token_diffusion"]  # fmt: skip
    assert sorted([*order[3:], *order[:3]], key=render_dmaapx._place) == order


def test_the_paper_s_figures_are_in_its_order() -> None:
    """Table 7: on every data set DMaaPx has the smallest generalization and amortization gap, normal training the largest."""
    for name, study in PAPER.items():
        for column in (1, 2):
            known = {s: row[column] for s, row in study.items() if row[column] is not None}
            order = sorted(known, key=lambda s: known[s] or 0.0)
            assert order[0] == "vae@synthetic/k=10"
            assert order[-1] == "vae@real"
        elbo = {s: row[0] for s, row in study.items() if row[0] is not None}
        assert (not elbo) == (name == "dmaapx-fashion"), "a density of a deviation that is not stated"
        assert not elbo or max(elbo, key=lambda s: elbo[s] or 0.0) == "vae@synthetic/k=10"


def test_the_curve_is_read_off_the_log(tmp_path: Path) -> None:
    """Ten steps an epoch; the bound falls until epoch 50 and rises again."""
    bounds = {epoch: 84 + 0.01 * abs(epoch - 50) for epoch in range(1, 101)}
    lines = [{"stage": "joint", "step": 10 * e, "validation": {"bound": b, "distortion": 0}} for e, b in bounds.items()]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = calibration.curve(tmp_path, 10)
    assert found["peak_epoch"].value == 50
    assert found["peak_test_elbo"].value == -84
    assert found["test_elbo/epoch=100"].value == pytest.approx(-84.5)
    assert "test_elbo/epoch=200" not in found


def test_calibration_trains_on_all_training_images_and_looks_at_test_images() -> None:
    data = open_data("digits")
    whole = calibration.undivided(data, seen=30)
    assert len(whole.train) == len(data.train) + len(data.validation) == 1437
    assert len(whole.train.labels["label"]) == len(whole.train.ids) == 1437
    assert set(whole.validation.ids) < set(data.test.ids)
    assert len(whole.validation) == 30


def test_calibration_takes_a_run_of_these_settings_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run of another number of epochs, or of other looks, is not the curve that was asked for."""
    plan = dmaapx.arms_of("dmaapx-mnist", "paper")
    base = plan.base | {
        "data": "digits",
        "preprocess.size": None,
        "preprocess.binarize": "none",
        "model.network.width": 8,
    }
    base |= {"preprocess.size_policy": "crop", "model.likelihood": "gaussian"}
    tiny = replace(plan, base=base, effort=replace(plan.effort, bounded=20, samples=2))
    monkeypatch.setattr(calibration, "arms_of", lambda study, scale: tiny)
    monkeypatch.setattr(calibration, "refuse_uncommitted", lambda: None)
    monkeypatch.setattr(calibration, "made_here", lambda: {"hardware": "h", "commit": "abc"})
    words = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path), "--epochs"]
    assert calibration.main([*words, "1", "--every", "0.5"]) == 0
    commands_of = {r.command for r in read(tmp_path / "dmaapx.json")}
    assert commands_of == {"python -m diled.studies.calibration --epochs 1 --every 0.5 --seeds 0"}
    assert calibration.main([*words, "1", "--every", "0.5"]) == 0, "it is finished, and taken as it is"
    assert calibration.main([*words, "2", "--every", "0.5"]) == 2
    assert calibration.main([*words, "1", "--every", "0.3"]) == 2
    other = [*words, "1", "--every", "0.5", "--only", "vae@real/batch=64"]
    assert calibration.main(other) == 0
    (made,) = {(r.system, r.command) for r in read(tmp_path / "dmaapx.json")} - {("vae@real", *commands_of)}
    assert made[1].endswith("--every 0.5 --only vae@real/batch=64 --seeds 0")
    assert read_run(tmp_path / "runs" / "calibration" / "vae,batch=64-0").training.batch_size == 64


@pytest.mark.parametrize("variant", calibration.VARIANTS)
def test_variants_of_the_calibration_change_what_they_say(variant: str) -> None:
    plan, ours = calibration.plan_of(variant), calibration.plan_of("vae@real")
    assert plan.sources == ours.sources
    changed = {key for key in plan.base if plan.base[key] != ours.base[key]}
    assert changed == set(calibration.VARIANTS[variant])
    assert calibration.config_of(plan, 0, 5, 1.0, 10.0).training.monitor_every == 10
