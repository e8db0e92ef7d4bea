"""Tables of proteins: models, property regression in and out of distribution, designs, and how smooth latent maps are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean

from diled.studies.designs import PLANS
from diled.studies.records import Record, mean_and_spread, read
from diled.studies.render import by_family, markdown, seconds, title
from diled.studies.render_targets import interval
from diled.studies.table import rows, studies
from diled.studies.table import system as recorded

__all__ = ["against", "cell", "design_details", "designs", "proteins", "seeds_of", "smoothness"]

MODELS = {
    "nats_per_residue": ("nats per residue", 3),
    "bound_nats": ("bound", 1),
    "rate_nats": ("rate", 1),
    "distortion_nats": ("distortion", 1),
    "residue_accuracy": ("residues", 3),
    "sequence_accuracy": ("sequences", 3),
    "position_error": ("positions", 3),
    "coupling_error": ("couplings", 3),
    "frechet_samples": ("samples", 2),
    "unique": ("unique", 3),
    "novel": ("novel", 3),
    "nearest_training": ("nearest", 2),
    "parameters": ("parameters", 0),
    "cpu_seconds": ("CPU s", 0),
}
"""Metric -> heading and decimals. `residues` and `sequences` are shares that are reconstructed; `positions` and `couplings` are
errors of samples, `samples` a Frechet distance, `nearest` the mean distance of samples from the training sequences."""
FLOORS = {"position_error": "position_error/floor", "coupling_error": "coupling_error/floor",
          "frechet_samples": "frechet_floor", "unique": "unique/floor",
          "nearest_training": "nearest_training/floor"}  # fmt: skip
"""What real sequences reach in it."""
ERRORS = {"mse": "MSE", "mae": "MAE", "pearson": "Pearson", "spearman": "Spearman"}
SUFFIXES = {"": "", "/shifted": ", shifted", "/probe": ", from codes"}
"""Of regression: by the head in distribution, by the head on the shifted test file, by a ridge regression on codes."""
SCORES = ("measured_fitness", "oracle_fitness")
ASKED = {plan.name: plan.n for plan in PLANS.values()}
"""Designs that a list is asked for."""
CLIMBS = ("ascent", "hill", "stochastic_hill", "mcmc", "cycle", "ode", "evolution", "guidance")
METHODS = (*CLIMBS, "additive", "percentile99")


def proteins(path: Path) -> str:
    """What each model reaches, and how well it predicts the property; a sentence where nothing is recorded."""
    records = read(path)
    trained = [r for r in records if "studies.proteins" in r.command]
    if not trained:
        return "Nothing is recorded yet."
    systems = sorted({r.system for r in trained}, key=by_family)
    of = {system: [r for r in trained if r.system == system] for system in systems}
    lines = [
        [
            title(s),
            seeds_of(of[s]),
            *(seconds(s, trained, "") if m == "cpu_seconds" else cell(of[s], m, d) for m, (_, d) in MODELS.items()),
        ]
        for s in systems
    ]
    lines.append(["*real sequences*", "", *(cell(trained, FLOORS.get(m, ""), d) for m, (_, d) in MODELS.items())])
    tables = [markdown(["system", "seeds", *(heading for heading, _ in MODELS.values())], lines)]
    columns = sorted({r.metric.split("/")[1] for r in trained if r.metric.startswith("mse/")})
    there = {r.metric for r in trained}
    for column in columns:
        shown = {f"{m}/{column}{end}": f"{name}{said}" for end, said in SUFFIXES.items() for m, name in ERRORS.items()}
        shown = {metric: heading for metric, heading in shown.items() if metric in there}
        taught = with_head(path.stem, column)
        lines = []
        for s in systems:
            bound = cell(of[s], f"zero_shot_spearman/{column}", 3)
            ranked = f"({bound})" if bound and s in taught else bound
            lines.append([title(s), *(cell(of[s], metric, 3) for metric in shown), ranked])
        wanted = [row for row in lines if any(row[1:])]
        beside = " In parentheses: not zero shots, as the model's head learned the property." if taught else ""
        said = f"Prediction of `{column}`, and how minus the bound ranks it.{beside}"
        tables.append(f"{said}\n\n" + markdown(["system", *shown.values(), "zero-shot Spearman"], wanted))
    return "\n\n".join(tables)


def with_head(study: str, column: str) -> set[str]:
    """The systems of a study whose head learns a property."""
    if study not in studies():
        return set()
    heads = {recorded(name): getattr(row.config().model, "properties", None) for name, row in rows(study).items()}
    return {name for name, head in heads.items() if head is not None and column in head.columns}


def designs(path: Path) -> str:
    """Mean judged value of the designs of each model by each way to climb."""
    records = [r for r in read(path) if "studies.designs" in r.command]
    if not records:
        return "Nothing is recorded yet."
    name = next(n for n in SCORES if any(r.metric.startswith(f"{n}/") for r in records))
    there = [m for m in METHODS if any(r.metric == f"{name}/{m}" for r in records)]
    systems = sorted({r.system for r in records}, key=by_family)
    lines = []
    for system in systems:
        mine = [r for r in records if r.system == system]
        lines.append([title(system), seeds_of(mine), *(_of_list(mine, name, m) for m in there)])
    notes = sorted({r.note for r in records if r.metric.startswith(f"{name}/") and r.note})
    remarks = [f"Judge: {notes[0]}."] if notes else []
    if any("(" in each for line in lines for each in line[2:]):
        lacking = (
            ", of which those that it lacks count as 0, as unmeasured ones do" if name == "measured_fitness" else ""
        )
        remarks.append(f"In parentheses: how many designs a list has that was asked for {ASKED[name]}{lacking}.")
    said = f"\n\n{' '.join(remarks)}" if remarks else ""
    more = f"<details><summary>Each list in full</summary>\n\n{design_details(path)}\n\n</details>"
    return f"{markdown(['system', 'seeds', *there], lines)}{said}\n\n{more}"


def _of_list(records: list[Record], name: str, method: str) -> str:
    """The mean of a system's lists by one way to climb, and how many designs they have where that is fewer than asked."""
    mine = [r for r in records if r.metric == f"{name}/{method}"]
    counts = [r.n for r in mine if r.n is not None]
    fewest = min(counts, default=0)
    if method not in CLIMBS or len(counts) < len(mine) or fewest >= ASKED[name]:
        return cell(records, f"{name}/{method}", 2)
    if name == "measured_fitness":
        mine = [replace(r, value=r.value * min(1.0, (r.n or 0) / ASKED[name])) for r in mine]
    return f"{cell(mine, f'{name}/{method}', 2)} ({fewest})" if mine else ""


DESIGNED = {
    "{score}": ("mean", 2), "best_{score}": ("max", 2), "median_{score}": ("median", 2), "predicted": ("predicted", 2),
    "diversity": ("diversity", 2), "novelty": ("novel", 2), "nearest_training": ("nearest", 2), "seconds": ("CPU s", 1),
}  # fmt: skip
"""Figure of designs -> heading and decimals. `predicted` is what the ensemble promised; `diversity` and `nearest` are mean
distances of two designs and to the nearest training sequence; `novel` the share that no model was trained on."""


def design_details(path: Path) -> str:
    """Every figure of every list of designs, by system and way to look; a sentence where nothing is recorded."""
    records = [r for r in read(path) if "studies.designs" in r.command]
    name = next((n for n in SCORES if any(r.metric.startswith(f"{n}/") for r in records)), "")
    lines = []
    for system in sorted({r.system for r in records}, key=by_family):
        mine = [r for r in records if r.system == system]
        for method in METHODS:
            cells = [cell(mine, f"{m.format(score=name)}/{method}", d) for m, (_, d) in DESIGNED.items()]
            if any(cells[1:]):
                counts = [r.n for r in mine if r.metric == f"{name}/{method}" and r.n is not None]
                lines.append([title(system), method, f"{fmean(counts):.0f}" if counts else "", *cells])
    head = ["system", "by", "designs", *(heading for heading, _ in DESIGNED.values())]
    return markdown(head, lines) if lines else "Nothing is recorded yet."


RIVALS = ("relso", "vae", "beta_vae/beta=0.05")
"""Whom DiLED is compared with in regression and generation."""


def against(path: Path) -> str:
    """DiLED against ReLSO and the VAEs in regression and in position errors, with t-intervals over seeds."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    for r in read(path):
        values.setdefault((r.system, r.metric), {})[r.seed] = r.value
    column = next((m.split("/")[1] for _, m in sorted(values) if m.startswith("mse/")), "")
    metrics = {f"{m}/{column}{end}": f"{name}{said}" for end, said in SUFFIXES.items() for m, name in ERRORS.items()}
    lines = []
    for rival in RIVALS:
        for metric, heading in {**metrics, "position_error": "positions, ratio"}.items():
            ours, theirs = values.get(("diled", metric), {}), values.get((rival, metric), {})
            seeds = sorted(set(ours) & set(theirs))
            if not seeds:
                continue
            ratio = metric == "position_error"
            found = [ours[k] / theirs[k] if ratio else ours[k] - theirs[k] for k in seeds]
            shown, around = ("{:.3f}" if ratio else "{:+.4f}").format, interval(found)
            between = "–" if around is None else f"{shown(around[0])} to {shown(around[1])}"
            means = [f"{fmean(v[k] for k in seeds):.3f}" for v in (ours, theirs)]
            lines.append([title(rival), heading, *means, shown(fmean(found)), between, str(len(seeds))])
    head = ["DiLED against", "in", "DiLED", "the other", "difference or ratio", "95 % interval", "seeds"]
    return markdown(head, lines) if lines else "Nothing is recorded yet."


def smoothness(path: Path) -> str:
    """How smooth a property is over the codes of each system; a sentence where nothing is recorded."""
    records = [r for r in read(path) if r.metric.startswith("label_smoothness/")]
    lines = [
        [title(s), seeds_of(mine), cell(mine, mine[0].metric, 3)]
        for s in sorted({r.system for r in records}, key=by_family)
        for mine in [[r for r in records if r.system == s]]
    ]
    return markdown(["system", "seeds", "smoothness"], lines) if lines else "Nothing is recorded yet."


def seeds_of(records: list[Record]) -> str:
    """How many seeds these records have."""
    return str(len({r.seed for r in records}))


def cell(records: list[Record], metric: str, digits: int) -> str:
    """Mean over seeds and its standard deviation; nothing where there is none."""
    if metric == "parameters":
        values = [r.parameters for r in {r.seed: r for r in records}.values() if r.parameters is not None]
        return f"{sum(values) / len(values):,.0f}" if values else ""
    mine = list({r.seed: r for r in records if r.metric == metric}.values())
    if not mine:
        return ""
    mean, spread, _ = mean_and_spread(mine)
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread is not None else "")
