"""Reproduce the studies of Xiao et al. 2024 (DMaaPx): every arm trained, audited, and set beside the paper's numbers.

    python -m diled.studies.dmaapx dmaapx-mnist --scale mini --seeds 0 1 2        what `diled reproduce dmaapx-mnist` runs

A study is one file under `arms`: what all arms share (`base`); what draws synthetic sets (`sources`, each with the values of
a run, and `sampler_steps`); what each arm changes (`arms`), with `from` for the source, or another arm of the same seed, whose
samples it is trained on (the first source unless said otherwise); and scales, which change these, leave out arms (`without`)
or have their own (`arms`, or a `grid` of widths), on the data and settings of another study at the same scale where they name
one (`of`); `sections` of the audit, if not all. In order:

    RUNS/STUDY-SCALE/source/NAME         a diffusion model, fitted to the same real training images
    RUNS/STUDY-SCALE/pool/NAME           its samples, k times as many as there are images
    RUNS/STUDY-SCALE/ARM-SEED            each arm, and its audit in the folder `audit`
    RESULTS/dmaapx.json                  one record for each figure of each arm and seed

Everything that is there already is taken as it is, so a stopped reproduction goes on.

Reference: Xiao, Zenn & Bamler 2024 (arXiv 2310.19653).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from diled.auditing import audit_models, subjects_of
from diled.errors import ConfigError, did_you_mean
from diled.evaluation.audit import Effort
from diled.evaluation.audited import Audited
from diled.evaluation.measure import Measured
from diled.model import Model, load
from diled.models.io import write_json
from diled.runs import RunConfig, read_settings, resolve
from diled.studies.commands import (
    as_records,
    dotted,
    exit_code,
    made_here,
    refuse_uncommitted,
    training_of,
)
from diled.studies.intervals import ALL, as_figures, firsts, intervals
from diled.studies.records import Record, add, read
from diled.studies.table import data_key
from diled.studies.training_dmaapx import place, train_size, train_stacked, trained_arm

__all__ = [
    "METRICS",
    "STUDY",
    "Arms",
    "Source",
    "arms_of",
    "main",
    "recorded",
    "reproduce",
    "scales",
    "show",
    "studies",
    "total_cost",
]

STUDY = "dmaapx"
"""Where records of all these studies are kept; their data and systems tell them apart."""
CELLS = 64
"""Places of a residual network's code, each with m_z channels."""
SECTIONS = ("bounds", "amortization", "likelihood", "robustness", "codes", "pool")
METRICS = (
    "bound_nats/test",
    "bound_nats/train",
    "rate_nats/test",
    "distortion_nats/test",
    "generalization_gap",
    "amortization_gap_train",
    "amortization_gap_test",
    "best_bound_nats/test",
    "still_improving/test",
    "log_p_nats/test",
    "approximation_gap_test",
    "generative_gap",
    "encoder_gap",
    "robustness_gap",
    "input_similarity",
    "reconstruction_similarity",
    "robustness_gap/substitutions=1",
    "robustness_gap/substitutions=2",
    "robustness_gap/substitutions=4",
    "robustness_gap/words/substitutions=1",
    "robustness_gap/words/substitutions=2",
    "robustness_gap/words/substitutions=4",
    "generalization_gap/unseen",
    "amortization_gap_test/unseen",
    "bleu",
    "bleu_shuffled",
    "exact_match",
    "residue_accuracy",
    "sequence_accuracy",
    "robustness_gap/strong/0.05",
    "robustness_gap/strong/0.1",
    "robustness_gap/strong/0.2",
    "active_units",
    "mutual_information_most",
    "smoothness_nats",
    "encoder_slope/scaled",
    "probe_accuracy/logistic",
    "psnr",
    "frechet_pool",
    "frechet_floor",
    "precision_pool",
    "recall_pool",
    "c2st_accuracy",
    "nearest_ratio",
    "copying",
    "entropy_offset_nats",
)
"""Figures of the audit that are recorded, beside `test_elbo`, which is minus the bound, and `total_cpu_seconds`: of the
training, and of an arm with a synthetic set also of its source and of the sampling."""
TIMED = 256
"""Samples whose drawing is timed, to know what a whole set of them costs."""


@dataclass(frozen=True)
class Source:
    """What draws a synthetic set: the values of a run by dotted key, and the steps of its sampler (None: its own)."""

    values: dict[str, Any]
    sampler_steps: int | None = None


@dataclass(frozen=True)
class Arms:
    """A study at one scale.

    Attributes:
        name: of the study and its scale, `dmaapx-mnist-mini`.
        base: values of a run by dotted key.
        sources: name -> what draws a synthetic set.
        arms: system -> values by dotted key.
        drawn: system -> the source or the arm that its synthetic set comes from; only of arms that have one.
        folds: size of a synthetic set, in training sets.
        effort: of the audits.
        sections: of the audits; all of them include that of an arm's synthetic set.
    """

    name: str
    base: dict[str, Any]
    sources: dict[str, Source]
    arms: dict[str, dict[str, Any]]
    drawn: dict[str, str]
    folds: int
    effort: Effort
    sections: tuple[str, ...] = SECTIONS

    @property
    def first(self) -> str:
        """The arm that the others are compared with."""
        return next(iter(self.arms))

    def config(self, arm: str, seed: int, pool: Path | None = None, steps: int | None = None) -> RunConfig:
        """The run of one arm.

        Args:
            arm: one of `arms`.
            seed: of the training.
            pool: folder of the synthetic set, where it has one.
            steps: instead of the arm's, for a trial.
        """
        values = dict(self.arms[arm])
        if arm in self.drawn and pool is not None:
            values["pool.source"] = str(pool)
        else:
            values = {key: value for key, value in values.items() if not key.startswith("pool.")}
        return _resolved({**self.base, **values}, seed, steps)

    def source_config(self, name: str, steps: int | None = None) -> RunConfig:
        """The run of a source."""
        return _resolved(self.sources[name].values, 0, steps)


def _resolved(values: dict[str, Any], seed: int, steps: int | None) -> RunConfig:
    if steps is not None:
        values = {**values, "training.epochs": None, "training.steps": steps}
    return resolve(None, None, None, values, seed=seed)


def studies() -> list[str]:
    """Names of the studies."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def listed() -> list[tuple[str, str, str]]:
    """Of each study its name, its scales and what it asks, in words."""
    found = []
    for study in studies():
        whole = read_settings(Path(str(_folder() / f"{study}.yaml")))
        found.append((study, " ".join(whole["scales"]), whole["title"]))
    return found


def scales(study: str) -> list[str]:
    """The scales of a study."""
    return list(read_settings(Path(str(_folder() / f"{study}.yaml")))["scales"])


def arms_of(study: str, scale: str = "mini") -> Arms:
    """A study at a scale.

    Raises:
        ConfigError: no such study, or it has no such scale.
    """
    if study not in studies():
        raise ConfigError(f"There is no study '{study}'.{did_you_mean(study, studies())}")
    whole = read_settings(Path(str(_folder() / f"{study}.yaml")))
    if scale not in whole["scales"]:
        raise ConfigError(f"{study} has no scale '{scale}'. Scales: {', '.join(whole['scales'])}.")
    changes = whole["scales"][scale]
    given = {arm: dict(values) for arm, values in _named(whole, changes) if arm not in changes.get("without", ())}
    if "of" in changes:
        other = arms_of(changes["of"], scale)
        base, sources, effort, folds = other.base, other.sources, other.effort, other.folds
        sections = other.sections
    else:
        base, sources = dotted(whole["base"]), _sources(whole, changes)
        audit: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in changes["audit"].items()}
        effort, folds = Effort(**audit), 0
        sections = SECTIONS
    return Arms(
        name=f"{study}-{scale}",
        base={**base, **changes.get("base", {})},
        sources=sources,
        drawn={arm: values.pop("from", next(iter(sources), "")) for arm, values in given.items() if _drawn(values)},
        arms=given,
        folds=changes.get("pool", {"folds": folds})["folds"],
        effort=effort,
        sections=tuple(changes.get("sections", sections)),
    )


def _sources(whole: dict[str, Any], changes: dict[str, Any]) -> dict[str, Source]:
    common, sources = {**dotted(whole.get("source", {})), **changes.get("source", {})}, {}
    for name, values in whole.get("sources", {}).items():
        own = dict(values)
        sources[name] = Source(sampler_steps=own.pop("sampler_steps", None), values={**common, **own})
    return sources


def _named(whole: dict[str, Any], changes: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Arms as listed, or those of a grid of latent channels m_z -> channels n_c, on real and on synthetic examples."""
    if "grid" not in changes:
        return list((changes.get("arms") or whole["arms"]).items())
    found: list[tuple[str, dict[str, Any]]] = []
    pools: dict[str, dict[str, Any]] = {"real": {}, "synthetic": {"pool.folds": 10}}
    for examples, pool in pools.items():
        for latent, row in changes["grid"].items():
            for channels in row:
                network = {"model.network": {"kind": "residual", "channels": channels}}
                values = {**network, "model.latent_dim": CELLS * latent, **pool}
                found.append((f"vae@{examples}/n_c={channels},m_z={latent}", values))
    return found


def _drawn(values: dict[str, Any]) -> bool:
    """Whether an arm is trained on a synthetic set."""
    return "from" in values or any(key.startswith("pool.") for key in values)


def reproduce(
    study: str,
    scale: str = "mini",
    *,
    seeds: Sequence[int] = (0,),
    only: Sequence[str] = (),
    runs: Path = Path("runs"),
    results: Path | None = Path("results"),
    steps: int | None = None,
    device: str = "auto",
    stacked: bool = False,
) -> dict[str, dict[int, Audited]]:
    """Train and audit every arm with every seed; what is done already is kept.

    Args:
        study: one of `studies()`.
        scale: one of the study's.
        seeds: of the arms. The diffusion model is trained once, with seed 0.
        only: arms; none named: all.
        runs: where runs are kept.
        results: where records go; None: nowhere.
        steps: instead of those of all trainings, for a trial.
        device: where to compute.
        stacked: train together, with stacked weights, the arms and seeds of one architecture and recipe; what cannot be trained
            so is named, and trained one by one. The audits are the same.

    Raises:
        ConfigError: an unknown study, scale or arm; a run of other settings, finished or not; uncommitted code where
            figures are recorded.
    """
    plan = arms_of(study, scale)
    unknown = sorted(set(only) - set(plan.arms))
    if unknown:
        raise ConfigError(f"{study} has no arm '{unknown[0]}'.{did_you_mean(unknown[0], plan.arms)}")
    if results is not None:
        refuse_uncommitted("or give --steps for a trial")
    folder = runs / plan.name
    chosen = list(only) or list(plan.arms)
    found: dict[str, dict[int, Audited]] = {arm: {} for arm in chosen}
    named = f"python -m diled.studies.dmaapx {study} --scale {scale}"
    keys = {}
    if stacked:
        train_stacked(plan, chosen, seeds, folder, steps, device)
    for seed in seeds:
        for arm in chosen:
            out = place(folder, arm, seed)
            model = trained_arm(plan, arm, seed, folder, steps, device)
            subjects = subjects_of([out], None, device)
            sections = [one for one in plan.sections if one != "pool" or arm in plan.drawn]
            audited = audit_models(subjects, out / "audit", effort=plan.effort, sections=sections)
            found[arm][seed] = next(iter(audited.values()))
            keys[arm] = f"{data_key(subjects[0].data)}/{plan.name}"
            if results is not None:
                command = f"{named} {_options(plan, arm, seed, model)}"
                cost = total_cost(plan, arm, seed, folder, device)
                add(results / f"{STUDY}.json", _records(arm, seed, model, keys[arm], found[arm][seed], cost, command))
            gap = found[arm][seed].figures.get("generalization_gap", Measured(None)).value
            print(f"{arm}, seed {seed}: generalization gap {gap if gap is None else round(gap, 2)}", flush=True)
    if results is not None:
        command = named + (f" --only {' '.join(only)}" if only else "") + (" --stacked" if stacked else "")
        path, command = results / f"{STUDY}.json", f"{command} --seeds {' '.join(map(str, seeds))}"
        add(path, not_narrower(_differences(plan, found, keys, command), read(path)))
    return found


def _options(plan: Arms, arm: str, seed: int, model: Model) -> str:
    """What trains this arm again: with it those that it was trained together with, since its noise depends on them."""
    runs = [name.rpartition("-") for name in model.provenance.get("stacked", ())]
    if not runs:
        return f"--only {arm} --seeds {seed}"
    arms = {place(Path(), one, 0).name.rpartition("-")[0]: one for one in plan.arms}
    together = " ".join(dict.fromkeys(arms.get(name, name) for name, _, _ in runs))
    return f"--only {together} --stacked --seeds {' '.join(dict.fromkeys(number for _, _, number in runs))}"


def not_narrower(new: Sequence[Record], old: Sequence[Record]) -> list[Record]:
    """Those of the new differences that stand for at least as many seeds as what is recorded already."""
    known = {r.key: seeds_of(r) for r in old if r.seed == ALL}
    return [r for r in new if len(seeds_of(r)) >= len(known.get(r.key, ()))]


def seeds_of(record: Record) -> set[int]:
    """The seeds that a record stands for; none where it is over several and its command does not name them."""
    return set(map(int, record.command.partition("--seeds ")[2].split())) if record.seed == ALL else {record.seed}


def total_cost(plan: Arms, arm: str, seed: int, folder: Path, device: str = "auto") -> Measured:
    """CPU seconds of an arm: its training, and of its synthetic set the source's and the drawing of as many as it uses.

    A source that several arms share counts for each of them. The drawing is timed once on a few samples, and kept beside the
    set, since a set may have been drawn in parts and by several processes.
    """
    own = _made(place(folder, arm, seed)).get("cpu_seconds")
    if arm not in plan.drawn or own is None:
        return Measured(own)
    source = plan.drawn[arm]
    another = source in plan.arms
    origin = place(folder, source, seed) if another else folder / "source" / source
    first = total_cost(plan, source, seed, folder, device).value if another else _made(origin).get("cpu_seconds")
    if first is None:
        return Measured(None)
    each = _seconds_a_sample(folder / "pool" / origin.name, origin, plan.sources.get(source), device)
    n = plan.arms[arm].get("pool.folds", plan.folds) * train_size(plan.config(arm, seed))
    note = f"training {own:.0f} s, source {first:.0f} s, {n:,} samples {n * each:.0f} s"
    return Measured(own + first + n * each, note=note)


def _made(run: Path) -> dict[str, Any]:
    """How a finished run was made."""
    found: dict[str, Any] = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    return found


def _seconds_a_sample(pool: Path, origin: Path, source: Source | None, device: str) -> float:
    """CPU seconds to draw one of a set's samples in batches."""
    kept = pool.with_name(f"{pool.name}.seconds.json")
    if not kept.exists():
        model = load(origin, device=device)
        start = time.process_time()
        model.sample(TIMED, steps=None if source is None else source.sampler_steps, draw=source is None)
        write_json(kept, {"cpu_seconds": time.process_time() - start, "samples": TIMED})
    timed = json.loads(kept.read_text(encoding="utf-8"))
    return float(timed["cpu_seconds"] / timed["samples"])


def _records(
    arm: str, seed: int, model: Model, data: str, audited: Audited, cost: Measured, command: str
) -> list[Record]:
    """What is recorded of one arm and seed; `data` is the key of the data, with the study and its scale."""
    figures = {metric: audited.figures[metric] for metric in METRICS if metric in audited.figures}
    bound = figures.get("bound_nats/test")
    if bound is not None and bound.value is not None:
        figures["test_elbo"] = Measured(-bound.value, bound.stderr, bound.n, bound.note)
    figures["total_cpu_seconds"] = cost
    made = training_of({**model.provenance, "parameters": model.parameters})
    return as_records(figures, study=STUDY, data=data, system=arm, seed=seed, **made, **made_here(), command=command)


def _differences(
    plan: Arms, found: Mapping[str, Mapping[int, Audited]], keys: Mapping[str, str], command: str
) -> list[Record]:
    """What is recorded of each arm against the first one with its test examples, over all these seeds; nothing without the
    first one of the study."""
    audits = {arm: list(found[arm].values()) for arm in plan.arms if arm in found}
    shared = {"study": STUDY, "seed": ALL, **training_of({}), **made_here(), "command": command}
    return [
        record
        for first in firsts(audits, plan.first, plan.drawn)
        for arm, row in intervals(audits, first).items()
        for record in as_records(as_figures(row, first), data=keys[arm], system=arm, **shared)
    ]


def recorded(path: Path, name: str) -> dict[str, dict[str, list[Record]]]:
    """System -> metric -> its records, of one study at one scale."""
    found: dict[str, dict[str, list[Record]]] = {}
    for record in read(path):
        if record.data.endswith(f"/{name}"):
            found.setdefault(record.system, {}).setdefault(record.metric, []).append(record)
    return found


def main(argv: list[str] | None = None) -> int:
    """Reproduce from the command line."""
    parser = argparse.ArgumentParser(prog="python -m diled.studies.dmaapx", description="Reproduce a study of DMaaPx.")
    parser.add_argument("study", help=f"one of: {', '.join(studies())}")
    parser.add_argument("--scale", default="mini")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", default=[], help="arms; default: all")
    parser.add_argument("--steps", type=int, help="instead of those of the arms, for a trial; nothing is recorded")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    parser.add_argument("--stacked", action="store_true", help="train arms and seeds of one architecture together")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    chosen = parser.parse_args(argv)
    return exit_code(
        lambda: show(
            chosen.study,
            chosen.scale,
            seeds=chosen.seeds,
            only=chosen.only,
            runs=chosen.runs,
            results=None if chosen.steps is not None else chosen.results,
            steps=chosen.steps,
            device=chosen.device,
            stacked=chosen.stacked,
        )
    )


def show(study: str, scale: str, **options: Any) -> None:
    """`reproduce`, then print the table beside the paper's."""
    from diled.studies.render_dmaapx import beside_the_paper

    found = reproduce(study, scale, **options)
    print(beside_the_paper(study, {arm: list(by_seed.values()) for arm, by_seed in found.items()}, scale))


def _folder() -> Any:
    return resources.files("diled.studies") / "arms"


if __name__ == "__main__":
    sys.exit(main())
