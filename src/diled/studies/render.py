"""Tables in Markdown from the records under `results/`. `make docs` writes them into the README and the documentation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from diled.family import FAMILY
from diled.studies.records import Record, mean_and_spread, read
from diled.studies.table import begun

__all__ = [
    "ablations",
    "by_family",
    "cell",
    "comparison",
    "cost",
    "family_figures",
    "markdown",
    "provenance_line",
    "samples",
    "seconds",
    "speed",
    "spent",
    "title",
]

COLUMNS = {
    "bound_nats": "bound",
    "rate_nats": "rate",
    "distortion_nats": "distortion",
    "frechet_samples": "samples",
    "frechet_reconstructions": "reconstructions",
    "frechet_midpoints/0.2": "midpoints 0.2",
    "frechet_midpoints/0.4": "midpoints 0.4",
    "reconstruction_mse": "MSE",
    "probe_accuracy": "probe",
    "cpu_seconds": "CPU s",
}
"""Metric -> heading; `cpu_seconds` is a field of every record, and shown by `seconds`."""

SAMPLES = {
    "frechet_samples": "samples",
    "frechet_samples/ancestral-100": "ancestral, 100 steps",
    "frechet_samples/ancestral-300": "ancestral, 300 steps",
    "frechet_samples/draws": "samples, drawn",
    "kid_samples": "KID",
    "precision": "precision",
    "recall": "recall",
}
"""Metric -> heading: more on samples, a table of its own."""

FLOORS = {
    "frechet_samples": "frechet_floor",
    "kid_samples": "kid_floor",
    "precision": "precision_floor",
    "recall": "recall_floor",
    "frechet_midpoints/0.4": "frechet_pixel_midpoints/0.4",
}
"""Metric -> what real data reach in it, and mixed pixels in the place of midpoints."""

FIELDS = ("cpu_seconds", "parameters")
"""What is no metric, but a field of every record."""

DIGITS = {
    "reconstruction_mse": 4,
    "probe_accuracy": 3,
    "precision": 2,
    "precision_floor": 2,
    "recall": 2,
    "recall_floor": 2,
    "code_shift": 2,
    "code_shift_noise": 2,
    "cpu_seconds": 0,
    "steps_to": 0,
    "cpu_seconds_to": 0,
}
"""Decimals; one where nothing is said."""


BRIEF = ("bound_nats", "rate_nats", "distortion_nats", "frechet_samples", "frechet_reconstructions", "cpu_seconds")
"""Columns of the ablations, where nothing else is asked."""

QUESTIONS: dict[str, dict[str, str]] = {
    "Each term on and off": {
        "diled": "DiLED",
        "diled/no-warmup": "without the warm-up of the rate",
        "diled/no-terminal": "without the last KL",
        "diled/simple": "trained by a seventh of the noise error",
        "diled/simple,vlb": "the denoiser by a seventh, the encoder by the bound",
        "diled/ddpm": "trained by DDPM's unweighted noise error",
        "diled/ddpm,vlb": "the denoiser by DDPM's, the encoder by the bound",
        "diled_paper/always": "the paper's objective: noise error unweighted, no last KL",
        "diled_paper/terminal": "the same with the last KL",
    },
    "Fixed and learned variance": {"diled": "learned", "diled_fixed": "fixed: the first diffusion step"},
    "Reconstruction at one t, split over t, always": {
        "diled_paper/always": "always, at full weight",
        "diled_paper/split": "split over t, as in the paper",
        "diled_paper/one": "at the first t alone",
    },
    "Joint, in two stages, alternating": {
        "diled": "joint",
        "diled/rounds=5": "alternating, five rounds",
        "diled/rounds=1": "two stages, the first against N(0, I)",
        "diled/weight=0": "at once, but the encoder feels no rate",
        "ldm": "two stages, the first with a small KL (LDM)",
    },
    "The denoiser under a moving and under a frozen encoder": {
        "diled": "moving: joint",
        "diled/frozen": "frozen: a fresh prior on the codes of the finished joint run, as many steps again",
    },
    "From scratch, from trained parts, with frozen parts, in as many steps": {
        "diled": "from scratch",
        "diled/from-vae": "half for a VAE, then jointly from its encoder and decoder",
        "diled/from-vae,frozen": "half for a VAE, then the prior alone",
    },
    "Number of learned levels": {
        "diled": "DiLED, 1 level",
        "diled_levels/n=2": "DiLED, 2 levels",
        "diled_levels/n=4": "DiLED, 4 levels",
        "vae": "VAE, 1 level",
        "hierarchical_vae/n=2": "VAE, 2 levels",
        "hierarchical_vae/n=4": "VAE, 4 levels",
    },
    "Size of the denoiser": {
        "diled/width=48": "width 48",
        "diled/width=96": "width 96",
        "diled": "width 192",
        "diled/width=384": "width 384",
        "diled/width=768": "width 768",
    },
    "What the network estimates, and for how many noise levels of a code": {
        "diled": "v, 4 levels",
        "diled/eps": "noise, 4 levels",
        "diled/x": "clean code, 4 levels",
        "diled/t=2": "v, 2 levels",
        "diled/t=1": "v, 1 level",
    },
    "What helps a VAE": {
        "vae": "VAE",
        "vae/no-warmup": "without warm-up",
        "beta_vae/cyclic": "four warm-ups",
        "beta_vae/free-bits": "a quarter of a nat free in each dimension",
    },
}
"""Question -> system -> what it is there; one table each."""

SWEEPS = {
    "DiLED": {"diled/weight={}": "diled"},
    "beta-VAE": {"beta_vae/beta={}": "vae"},
    "the paper's objective": {"diled_paper/w={}": "diled_paper/always"},
}
"""Heading -> system of a weight, and the system that has the weight 1."""

WEIGHTS = ("0.1", "0.3", "1", "3", "10")

SAMPLER_TITLES = {"ddim": "DDIM", "dpm_solver": "DPM-Solver++(2M)", "heun": "Heun", "ancestral": "ancestral"}
"""Sampler -> its name in tables."""

SCALED = {
    "levels": "encoding levels",
    "latent": "size of the code",
    "times": "noise levels per code",
    "width": "width of the denoiser",
}
"""What the cost depends on -> its name in tables."""

TIMED = {
    "vae": "VAE, a second copy",
    "diled": "DiLED: 4 noise levels per code",
    "diled/t=2": "2 noise levels",
    "diled/t=1": "1 noise level",
    "diled/t=1,width=128": "1 noise level, denoiser of width 128",
    "diled/t=1,width=96": "1 noise level, denoiser of width 96",
}
"""System -> what it is, beside the VAE."""

TARGETS = {"mnist/mlp": 1.3, "mnist/conv": 1.15}
"""What an epoch of DiLED should cost at most, relative to the VAE's."""


def comparison(path: Path, columns: Sequence[str] | None = None, *, variants: bool = True) -> str:
    """Systems by metrics, mean ± standard deviation over seeds, with a row of floors.

    Args:
        path: a file of records.
        columns: metrics; None: all those of `COLUMNS` that are recorded.
        variants: false: of the variants of a system only those that had twice the steps.
    """
    everything = read(path)
    records = [r for r in everything if variants or "/" not in r.system or r.system.endswith("2N")]
    if not records:
        return "Nothing is recorded yet."
    there = {r.metric for r in records} | set(FIELDS)
    return _against_floors(records, columns or [column for column in COLUMNS if column in there], everything)


def samples(path: Path) -> str:
    """More on samples: draws from p(x | z), the kernel distance, precision and recall; nothing where none is recorded."""
    records = [r for r in read(path) if r.metric in {*SAMPLES, *FLOORS.values()}]
    columns = [column for column in SAMPLES if any(r.metric == column for r in records)]
    return _against_floors(records, columns) if set(columns) - {"frechet_samples"} else ""


def _against_floors(records: list[Record], columns: Sequence[str], everything: list[Record] | None = None) -> str:
    """Systems by metrics; `everything` has the rows that these start from, where not all are shown."""
    names, everything = COLUMNS | SAMPLES, everything or records
    lines = []
    for system in sorted({r.system for r in records}, key=by_family):
        mine = [r for r in records if r.system == system]
        seeds = len({r.seed for r in mine})
        cells = [seconds(system, everything) if c == "cpu_seconds" else cell(mine, c) for c in columns]
        lines.append([title(system), str(seeds), *cells])
    floors = {name: list({r.seed: r for r in records if r.metric == name}.values()) for name in FLOORS.values()}
    if floors["frechet_floor"]:
        mixed = "; mixed pixels" if "frechet_midpoints/0.4" in columns else ""
        shown = [cell(floors[FLOORS[c]], FLOORS[c]) if floors.get(FLOORS.get(c, "")) else "" for c in columns]
        lines.append([f"*real data{mixed}*", "", *shown])
    return markdown(["system", "seeds", *(names[c] for c in columns)], lines)


def family_figures(path: Path, columns: Sequence[str]) -> dict[str, list[str]]:
    """Name of a model -> its mean over seeds in each column, empty where nothing is recorded; floors under `*real data*`."""
    records = read(path)
    rows = {name: [r for r in records if r.system == name] for name in FAMILY}
    found = {name: [_mean(mine, column) for column in columns] for name, mine in rows.items()}
    return found | {"*real data*": [_mean(records, FLOORS.get(column, "")) for column in columns]}


def _mean(records: list[Record], metric: str) -> str:
    values = [r for r in records if r.metric == metric]
    return f"{mean_and_spread(values)[0]:.1f}" if values else ""


def ablations(path: Path) -> str:
    """The ablations, a small table for each question; questions without records are left out."""
    records = [r for r in read(path) if r.study == "ablations"]
    by_system: dict[str, list[Record]] = {}
    for record in records:
        by_system.setdefault(record.system, []).append(record)
    parts = [("The weight of the rate (rate_weight, beta, w), over two decades", _sweep(by_system))]
    for question, systems in QUESTIONS.items():
        parts.append((question, _question(systems, by_system)))
    parts += [
        ("What each level holds", _levels(by_system)),
        ("Cost to converge", _convergence(by_system)),
        ("How far a Frechet distance moves with its set-up", _moves(records)),
    ]
    shown = [f"**{title}**\n\n{table}" for title, table in parts if table]
    return "\n\n".join(shown) if shown else "Nothing is recorded yet."


def _question(systems: dict[str, str], by_system: dict[str, list[Record]]) -> str:
    there = {s: words for s, words in systems.items() if any(r.metric == "bound_nats" for r in by_system.get(s, ()))}
    if not there.keys() - {"diled", "vae"}:
        return ""
    columns = (*BRIEF, *(["parameters"] if any("width" in s for s in systems) else []))
    everything = [r for mine in by_system.values() for r in mine]
    lines = [
        [words, *(seconds(s, everything) if c == "cpu_seconds" else cell(by_system[s], c) for c in columns)]
        for s, words in there.items()
    ]
    return markdown(["", *(COLUMNS.get(c, c) for c in columns)], lines)


def _sweep(by_system: dict[str, list[Record]]) -> str:
    """Weights by families: bound, rate and samples of each side by side."""
    columns = ("bound_nats", "rate_nats", "frechet_samples")
    names = {
        w: [(one if w == "1" else of.format(w)) for s in SWEEPS.values() for of, one in s.items()] for w in WEIGHTS
    }
    if not any(name in by_system for w in WEIGHTS if w != "1" for name in names[w]):
        return ""
    head = ["weight"]
    for family in SWEEPS:
        head += [f"{family}: {COLUMNS[columns[0]]}", *(COLUMNS[c] for c in columns[1:])]
    return markdown(head, [[w, *(cell(by_system.get(n, []), c) for n in names[w] for c in columns)] for w in WEIGHTS])


def _levels(by_system: dict[str, list[Record]]) -> str:
    columns = {
        "rate_nats": "rate",
        "probe_accuracy": "probe",
        "reconstruction_mse": "MSE",
        "code_shift": "moved by flips",
        "code_shift_noise": "moved by noise",
    }
    lines = []
    for system, words in QUESTIONS["Number of learned levels"].items():
        mine = by_system.get(system, [])
        for i in sorted({int(found[1]) for r in mine if (found := re.search(r"/level=(\d+)$", r.metric))}):
            lines.append([words, str(i), *(cell(mine, f"{c}/level={i}") for c in columns)])
    return markdown(["", "level", *columns.values()], lines) if lines else ""


def _convergence(by_system: dict[str, list[Record]]) -> str:
    """Steps and CPU seconds to each goal, of the systems that were timed."""
    timed = [s for s, mine in by_system.items() if any(r.metric == "validation_bound_nats" for r in mine)]
    if not timed:
        return ""
    goals = {
        r.metric.removeprefix("steps_to/") for s in timed for r in by_system[s] if r.metric.startswith("steps_to/")
    }
    order = sorted(goals, key=lambda goal: (not goal.startswith("own"), float(goal.removeprefix("own+")) * -1))
    head = ["system", "last", *(goal.replace("own+", "own last + ") for goal in order)]
    lines = []
    for system in sorted(timed, key=by_family):
        mine, cells = by_system[system], []
        for goal in order:
            steps, seconds = (cell(mine, f"{name}_to/{goal}") for name in ("steps", "cpu_seconds"))
            came, of = (sum(r.metric == m for r in mine) for m in (f"steps_to/{goal}", "validation_bound_nats"))
            some = "" if came == of else f", {came} of {of} seeds"
            cells.append(steps if steps == "–" else f"{steps} ({seconds} s{some})")
        lines.append([title(system), cell(mine, "validation_bound_nats"), *cells])
    return markdown(head, lines)


def _moves(records: list[Record]) -> str:
    """What was changed, the distance with its bootstrap error, and the floor."""
    moves = [r for r in records if r.metric.startswith("frechet_moves/")]
    floors = {(r.system, r.seed, r.metric): r for r in records if r.metric.startswith("frechet_moves_floor/")}
    lines = []
    for r in sorted(moves, key=lambda r: (r.system, r.seed, [(len(p), p) for p in r.metric.split("/")])):
        what = r.metric.removeprefix("frechet_moves/")
        floor = floors.get((r.system, r.seed, "frechet_moves_floor/" + what.split("/")[-1]))
        value = f"{r.value:.1f}" + ("" if r.stderr is None else f" ± {r.stderr:.1f}")
        lines.append([title(r.system), what.replace("/", ", "), value, "" if floor is None else f"{floor.value:.1f}"])
    return markdown(["system", "changed", "Frechet", "real data"], lines) if lines else ""


def speed(path: Path) -> str:
    """Ratios, memory and start-up, one line each."""
    names = {
        "throughput_ratio": "training steps per CPU-second, relative to a bare loop",
        "sampling_ratio": "samples per CPU-second, relative to a bare loop",
        "peak_memory_mib/ours": "peak memory of training, MiB",
        "peak_memory_mib/bare": "peak memory of the bare loop, MiB",
        "startup_seconds": "`diled --help`, s",
    }
    lines = [
        [names[r.metric], "" if r.data == "none" else r.data, f"{r.value:.0f}" if r.value > 10 else f"{r.value:.3f}"]
        for r in sorted(read(path), key=lambda r: (list(names).index(r.metric), r.data != "mnist"))
    ]
    return markdown(["what", "data", "value"], lines)


def cost(path: Path) -> str:
    """Samplers, epochs and scaling, as far as they are measured; a sentence where nothing is."""
    records = read(path)
    parts = [part for part in (_samplers(records), _epochs(records), _scaling(records)) if part]
    return "\n\n".join(parts) or "Nothing is recorded yet."


def _samplers(records: list[Record]) -> str:
    """Distance and time of each sampler, also relative to DDIM in the most steps."""
    found = {(r.metric.split("/")[0], r.metric.rpartition("/")[2]): r.value for r in records}
    names = [name for metric, name in found if metric == "frechet_samples"]
    slowest = max((n for n in names if n.startswith("ddim-")), key=_steps, default=None)
    if slowest is None:
        return ""
    base = found["frechet_samples", slowest]
    lines = [
        [
            SAMPLER_TITLES.get(name.rpartition("-")[0], name),
            f"{_steps(name):,}",
            f"{found['frechet_samples', name]:.1f}",
            f"{100 * (found['frechet_samples', name] / base - 1):+.1f} %",
            f"{found['seconds_ratio', name]:.3f}" if ("seconds_ratio", name) in found else "–",
        ]
        for name in sorted(names, key=lambda n: (list(SAMPLER_TITLES).index(n.rpartition("-")[0]), _steps(n)))
    ]
    floor = found.get(("frechet_floor", "frechet_floor"))
    lines += [["*real data*", "", f"{floor:.1f}", "", ""]] if floor is not None else []
    against = f"DDIM, {_steps(slowest):,} steps"
    return markdown(["sampler", "steps", "samples", f"relative to {against}", "CPU time, relative to the same"], lines)


def _epochs(records: list[Record]) -> str:
    """An epoch relative to the VAE's, with its floors and the target."""
    found = {(r.data, r.system, r.metric): r.value for r in records}
    lines = []
    for data, target in TARGETS.items():
        for system, title in TIMED.items():
            values = [found.get((data, system, metric)) for metric in ("epoch_ratio", "floor_ratio", "flop_ratio")]
            if values[0] is not None:
                shown = ["" if value is None else f"{value:.2f}" for value in values]
                said = "" if system == "vae" else f"{target}, {'met' if values[0] <= target else 'missed'}"
                lines.append([data.rpartition("/")[2], title, shown[0], said, *shown[1:]])
    head = ["backbone", "model", "an epoch, relative to the VAE's", "target", "its floor", "matrix products alone"]
    return markdown(head, lines) if lines else ""


def _scaling(records: list[Record]) -> str:
    """What changes, and the cost at each of its values."""
    rows: dict[str, list[tuple[int, float]]] = {}
    for r in records:
        if r.metric.startswith("cost_ratio/"):
            name, _, value = r.metric.partition("/")[2].partition("=")
            rows.setdefault(name, []).append((int(value), r.value))
    lines = [
        [title, "; ".join(f"{value}: {ratio:.2f}" for value, ratio in sorted(rows[name]))]
        for name, title in SCALED.items()
        if name in rows
    ]
    return markdown(["what changes", "a training step, relative to the default's"], lines) if lines else ""


def _steps(name: str) -> int:
    return int(name.rpartition("-")[2])


def provenance_line(path: Path) -> str:
    """Commits, hardware and command behind a file of records, in one sentence."""
    records = read(path)
    commits = ", ".join(sorted({r.commit for r in records}))
    machines = "; ".join(sorted({r.hardware for r in records}))
    return f"`results/{path.name}`: {len(records)} records, commit {commits}, {machines}."


def cell(records: list[Record], metric: str) -> str:
    """Mean ± standard deviation over seeds; a dash where nothing is recorded."""
    if metric == "parameters":
        with_bound = [r for r in records if r.metric == "bound_nats"]
        chosen = with_bound or list({r.seed: r for r in records}.values())
        values = [r.parameters for r in chosen if r.parameters is not None]
        return f"{sum(values) / len(values):,.0f}" if values else "–"
    chosen = [r for r in records if r.metric == metric]
    if not chosen:
        return "–"
    decimals = DIGITS.get(metric.split("/")[0], 1)
    mean, spread, _ = mean_and_spread(chosen)
    return f"{mean:.{decimals}f}" + ("" if spread is None else f" ± {spread:.{decimals}f}")


def seconds(system: str, records: list[Record], empty: str = "–") -> str:
    """CPU seconds of a training with all that it starts from, the mean over seeds; `+` where some of that is not recorded.

    Args:
        system: whose training.
        records: of all systems of a study.
        empty: what is shown where no seconds are recorded.
    """
    own, whole = _own_seconds(system, records), spent(system, records)
    if not own:
        return empty
    if set(own) - set(whole):
        return f"{fmean(own.values()):,.0f} + {title(begun(records[0].study)[system])}'s"
    return f"{fmean(whole.values()):,.0f}"


def spent(system: str, records: list[Record]) -> dict[int, float]:
    """Seed -> CPU seconds of a training and, of the same seed, of all that it starts from, where all are known."""
    own = _own_seconds(system, records)
    first = begun(records[0].study).get(system) if records else None
    if first is None:
        return own
    before = spent(first, records)
    return {seed: own[seed] + before[seed] for seed in own if seed in before}


def _own_seconds(system: str, records: list[Record]) -> dict[int, float]:
    mine = sorted((r for r in records if r.system == system), key=lambda r: r.metric == "bound_nats")
    return {r.seed: r.cpu_seconds for r in mine if r.cpu_seconds is not None}


def by_family(system: str) -> tuple[int, str]:
    """A key that sorts systems in the order of the family."""
    name = system.split("/")[0]
    return (list(FAMILY).index(name) if name in FAMILY else len(FAMILY), system)


def title(system: str) -> str:
    """A system's name in tables: its model's title and the variant."""
    name, _, variant = system.partition("/")
    title = FAMILY[name].row.title if name in FAMILY else name
    return f"{title}, {variant}" if variant else title


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
