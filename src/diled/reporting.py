"""From trained models to figures and a report: what `train`, `evaluate`, `compare` and `demo` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diled.data import Data
from diled.draws import seeded
from diled.evaluation.measure import MOST, Measured, measure
from diled.evaluation.recommend import advice
from diled.evaluation.report import Cell, Shown, table_text, write_report
from diled.evaluation.sequences import drawn_alike
from diled.latent.interpolate import between
from diled.model import Model
from diled.models.io import write_json
from diled.models.sampling import sample_batches
from diled.space import raw_tensor, to_space
from diled.training.checkpoints import Log

__all__ = [
    "COLUMNS",
    "bits_per_dimension",
    "compare_models",
    "report_run",
    "table_of",
    "usage",
    "write_figures",
]

COLUMNS = {
    "bound_nats": ("bound, nats", "lower"),
    "rate_nats": ("rate", ""),
    "distortion_nats": ("distortion", ""),
    "frechet_samples": ("Frechet, samples", "lower"),
    "frechet_floor": ("real data", ""),
    "frechet_reconstructions": ("Frechet, reconstructions", "lower"),
    "nats_per_residue": ("nats per residue", "lower"),
    "residue_accuracy": ("residues right", "higher"),
    "sequence_accuracy": ("sequences right", "higher"),
    "position_error": ("position error", "lower"),
    "position_error/floor": ("of real data", ""),
    "coupling_error": ("coupling error", "lower"),
    "coupling_error/floor": ("of real data, couplings", ""),
    "valid": ("valid", "higher"),
    "unique": ("unique", ""),
    "novel": ("novel", ""),
    "diversity": ("diversity", ""),
    "diversity/floor": ("of real data, diversity", ""),
    "nearest_training": ("distance to training", ""),
    "nearest_training/floor": ("of real data, distance", ""),
    "bound_nats/unseen": ("bound, unseen texts", "lower"),
    "nats_per_token": ("nats per token", "lower"),
    "word_perplexity": ("perplexity bound, per word", "lower"),
    "bleu": ("BLEU", "higher"),
    "exact_match": ("texts right", "higher"),
    "bleu_shuffled": ("BLEU, other codes", ""),
    "active_units": ("active units", ""),
    "sample_perplexity": ("perplexity of samples", ""),
    "sample_perplexity/floor": ("of real text", ""),
    "sample_perplexity/ngram": ("perplexity, 5-gram", ""),
    "sample_perplexity/ngram/floor": ("of real text, 5-gram", ""),
    "reverse_perplexity": ("reverse perplexity", "lower"),
    "reverse_perplexity/floor": ("of real text, reverse", ""),
    "mauve": ("MAUVE", "higher"),
    "mauve/floor": ("of real text, MAUVE", ""),
    "self_bleu": ("self-BLEU", ""),
    "self_bleu/floor": ("of real text, self-BLEU", ""),
    "distinct_1": ("distinct words", ""),
    "distinct_1/floor": ("of real text, words", ""),
    "distinct_2": ("distinct pairs", ""),
    "distinct_2/floor": ("of real text, pairs", ""),
    "unique/floor": ("of real data, unique", ""),
    "empty": ("empty", "lower"),
    "length": ("words", ""),
    "length/floor": ("of real text, words each", ""),
    "copied": ("copies of training", ""),
    "copied/floor": ("of real text, copies", ""),
    "interpolation_perplexity": ("perplexity on the way", ""),
    "interpolation_perplexity/floor": ("of real text, on the way", ""),
    "interpolation_mauve": ("MAUVE on the way", "higher"),
    "interpolation_mauve/floor": ("of real text, MAUVE on the way", ""),
    "step_mean": ("step on the way", ""),
    "step_largest": ("largest step", "lower"),
    "steps_unchanged": ("steps without change", ""),
    "edit_accuracy": ("edited as wanted", "higher"),
    "content_bleu": ("content kept, BLEU", "higher"),
    "edited_perplexity": ("perplexity of edits", ""),
    "unchanged": ("unchanged", ""),
    "reconstruction_mse": ("reconstruction MSE", "lower"),
    "frechet_midpoints/0.4": ("Frechet, midpoints", "lower"),
    "precision": ("precision", "higher"),
    "recall": ("recall", "higher"),
    "probe_accuracy": ("probe accuracy", "higher"),
    "share_of_data": ("share of data", ""),
    "share_of_samples": ("share of samples", ""),
    "train_seconds": ("training, s", ""),
    "parameters": ("parameters", ""),
}
"""Metric -> its column's heading, and what is better."""

PROPERTIES = {
    "zero_shot_spearman": ("zero-shot Spearman", "higher"),
    "spearman": ("Spearman", "higher"),
    "pearson": ("Pearson", "higher"),
    "mse": ("MSE", "lower"),
    "mae": ("MAE", "lower"),
    "accuracy": ("accuracy", "higher"),
}
"""Metric of a property -> the same; `spearman/Y` is read by the model's head, `spearman/Y/probe` from codes."""

SHORT = ("bound_nats", "frechet_samples", "frechet_floor", "reconstruction_mse", "probe_accuracy", "train_seconds")
"""Metrics that are printed of several models; the report has them all."""

OF_SEQUENCES = (
    "bound_nats",
    "sequence_accuracy",
    "frechet_samples",
    "frechet_floor",
    "position_error",
    "train_seconds",
)
"""The same of sequences, with the Spearman correlations of properties."""

OF_TEXT = ("bound_nats", "bleu", "sample_perplexity", "sample_perplexity/floor", "mauve", "distinct_2", "train_seconds")
"""The same of text."""

LAST = ("train_seconds", "parameters")
"""Metrics that every table ends with."""

COUNTED = 500
"""Samples and held-out sequences whose symbols are counted."""

BESIDE = ("training, s", "parameters")
"""Columns that the report shows with each model's pictures instead."""

READING = [
    "The bound is an upper bound on -log p(x) of held-out data: lower is better. It is the sum of the distortion (what "
    "reconstruction costs, given the code) and the rate (what the code costs under the prior), and it belongs to the "
    "ancestral chain, whichever sampler drew the pictures.",
    "Frechet distances compare features of pictures with those of real data; read those of samples against the column 'real "
    "data', which no model can be expected to beat with as many samples.",
    "Samples, reconstructions and midpoints are the decoder's means; those of diffusions and consistency models are draws.",
]


SEQUENCES = {
    "bound_nats": "The bound is an upper bound on -log p(x) of what was held out, in nats: lower is better. It is the sum of "
    "the distortion (what reconstruction costs, given the code) and the rate (what the code costs under the prior).",
    "position_error": "Errors of positions and couplings compare samples with held-out sequences: the mean distance of symbol "
    "frequencies (0 to 2), and 1 minus the correlation of the covariances of all pairs of positions. Read them beside those of "
    "real data, which no model can be expected to beat with as many sequences.",
    "frechet_samples": "Frechet distances are in the features of a network that was trained on other sequences than the model.",
    "sample_perplexity": "Samples are judged by a language model that was trained apart, on the same training texts. "
    "Perplexity near that of real text is the aim: below it a model writes the likeliest texts again and again, which distinct "
    "pairs and MAUVE show.",
    "bleu": "BLEU compares texts decoded from their codes with themselves; with the codes of other texts it should fall to "
    "nearly nothing, else the decoder does not listen.",
    "probe": "Correlations from codes are those of a ridge regression on codes, on held-out sequences.",
    "zero_shot_spearman": "The zero-shot correlation is that of minus the bound with the property, of which no value was used, "
    "unless the model's own head learned it.",
}
"""Metric that needs it -> how to read the figures of sequences."""


def report_run(folder: Path, model: Model, data: Data) -> dict[str, Measured]:
    """Figures (evaluation.json) and report.html of one run."""
    title = f"{_title(model)} on {data.name}"
    return compare_models({_title(model): (model, folder)}, data, folder, title=title, reading=READING)[_title(model)]


def compare_models(
    models: Mapping[str, tuple[Model, Path | None]],
    data: Data,
    folder: Path,
    *,
    title: str,
    reading: list[str],
    summary: list[str] | None = None,
    samples: int | None = None,
    seed: int = 0,
    program: str | None = None,
) -> dict[str, dict[str, Measured]]:
    """Measure several models on the same data and write the report.

    Args:
        models: name -> the model and its run's folder (for the training curves), if any.
        data: with training and test splits.
        folder: where report.html, figures/ and evaluation.json go.
        title, reading, summary: of the report.
        samples: for the Frechet distance; None: as many as the test split has, within 2,000 and 10,000.
        seed: of all draws.
        program: the five lines of Python to show.
    """
    count = samples or min(10_000, max(2_000, len(data.test)))
    found = {name: figures(model, data, samples=count, seed=seed) for name, (model, _) in models.items()}
    shown = [material(name, model, data, run, seed=seed) for name, (model, run) in models.items()]
    table, better = table_of(found)
    first, (best, run) = next(iter(models.items()))
    advised = advised_of(models, found) if len(found) > 1 else []
    counts = {name: model.provenance.get("examples", {}) for name, (model, _) in models.items()}
    head = [*advised, counted(counts, found, data), *summary_of(found[first] if len(found) == 1 else {}, data)]
    path = write_report(
        folder,
        title=title,
        summary=summary or head,
        spec=data.spec,
        models=shown,
        table={name: {c: cell for c, cell in row.items() if c not in BESIDE} for name, row in table.items()},
        better={c: sense for c, sense in better.items() if c not in BESIDE},
        reading=[*fitting(reading, table, data), *few_real(found[first])],
        usage=program or usage(run or folder, data, found[first], codes=best.density.has_codes),
        provenance={k: str(v) for k, v in best.provenance.items() if k not in ("warnings", "preprocess", "examples")},
    )
    write_figures(folder / "evaluation.json", found)
    kept = OF_TEXT if data.spec.kind == "text" else OF_SEQUENCES if data.spec.sequential else SHORT
    short = {
        name: {m: f for m, f in row.items() if m in kept or m.startswith("spearman/")} for name, row in found.items()
    }
    print(table_text(*(table_of(short) if advised else (table, better))))
    print(f"Report: {path}")
    if advised:
        print(f"\n{' '.join(advised)}")
    return found


def advised_of(models: Mapping[str, tuple[Model, Path | None]], found: dict[str, dict[str, Measured]]) -> list[str]:
    """Which of several models to take, and whether one stage or two, in sentences."""
    stages = {name: n for name, (model, _) in models.items() for n in [stages_of(model)] if n is not None}
    return advice(found, stages)


def stages_of(model: Model) -> int | None:
    """1 where an autoencoder and its learned prior are trained at once, 2 where in turn; None of all other models."""
    config = model.config
    if config is None or not hasattr(config, "latent_dim"):
        return None
    if hasattr(config, "first_stage") or bool(getattr(config, "rounds", 0)):
        return 2
    learned = hasattr(config, "prior") or hasattr(config, "levels")
    return 1 if learned and config.row.training.startswith("joint") else None


def figures(model: Model, data: Data, *, samples: int = 10_000, seed: int = 0, **options: Any) -> dict[str, Measured]:
    """`measure`, with the run's seconds and parameters."""
    found = measure(model.density, data, samples=samples, seed=seed, **options)
    if "train_seconds" in model.provenance:
        found["train_seconds"] = Measured(model.provenance["train_seconds"])
    found["parameters"] = Measured(model.parameters)
    return found


def write_figures(path: Path, found: dict[str, Any]) -> None:
    """Figures as JSON: metric -> value, stderr, n and note, in groups where there are groups."""

    def plain(value: Any) -> Any:
        return asdict(value) if isinstance(value, Measured) else {key: plain(v) for key, v in value.items()}

    write_json(path, plain(found))


def table_of(found: dict[str, dict[str, Measured]]) -> tuple[dict[str, dict[str, Cell]], dict[str, str]]:
    """The table of the report: row -> column -> cell, and which columns are better low or high."""
    measured = dict.fromkeys(metric for metrics in found.values() for metric in metrics)
    others = [metric for metric in measured if metric not in COLUMNS and heading(metric)[0]]
    order = [metric for metric in COLUMNS if metric not in LAST] + others + list(LAST)
    present = [metric for metric in order if metric in measured]
    table = {
        name: {
            heading(metric)[0]: Cell(m.value, m.stderr, m.note if m.value is None else "")
            for metric in present
            for m in [metrics.get(metric, Measured(None))]
        }
        for name, metrics in found.items()
    }
    return table, dict(map(heading, present))


def heading(metric: str) -> tuple[str, str]:
    """A metric's column and what is better there; an empty name where tables do not show it."""
    if metric in COLUMNS:
        return COLUMNS[metric]
    name, _, column = metric.partition("/")
    said, better = PROPERTIES.get(name, ("", ""))
    probe = column.endswith("/probe")
    return (f"{said}, {column.removesuffix('/probe')}{' from codes' if probe else ''}" if said else ""), better


def fitting(reading: list[str], table: dict[str, dict[str, Cell]], data: Data) -> list[str]:
    """The sentences that this table and these data need."""
    columns = {column for row in table.values() for column, cell in row.items() if cell.value is not None}
    if data.spec.sequential:
        words = {metric: "from codes" if metric == "probe" else heading(metric)[0] for metric in SEQUENCES}
        why = drawn_alike(data)[1] if data.spec.kind == "protein" else ""
        told = [said for metric, said in SEQUENCES.items() if any(words[metric] in column for column in columns)]
        return told + ([f"Samples are compared with real ones {why}."] if why else [])
    needs = dict(zip(READING, ("bound_nats", "frechet_samples", "frechet_samples"), strict=True))
    said = [s for s in reading if s not in needs or COLUMNS[needs[s]][0] in columns]
    if data.spec.levels is None:
        said.append(
            "The data are continuous, so the bound is on a density: per unit of the raw values in the table, per unit of the "
            "range scaled to [-1, 1] in the training curves. It can be negative, and has no bits per dimension."
        )
    return said


def few_real(metrics: dict[str, Measured]) -> list[str]:
    """What to know of the column 'real data' where there are fewer real examples than samples."""
    drawn, real = (metrics.get(name, Measured(None)) for name in ("frechet_samples", "frechet_floor"))
    if drawn.value is None or real.value is None or (real.n or 0) >= (drawn.n or 0):
        return []
    return [
        f"The column 'real data' is of {real.n:,} examples, all there are beside those that samples are compared with, and of "
        f"samples there are {drawn.n:,}. The distance of fewer is larger by chance, so a model may come below this one."
    ]


def counted(
    counts: Mapping[str, Mapping[str, int | None]], found: Mapping[str, Mapping[str, Measured]], data: Data
) -> str:
    """What models were trained and measured on, in a sentence.

    Args:
        counts: name -> `pools.counts_of` its training; empty where that is not known, and not said.
        found: name -> its figures.
        data: that the models are measured on.
    """
    bounds = [metrics["bound_nats"].n for metrics in found.values() if "bound_nats" in metrics]
    n = max((n for n in bounds if n), default=min(len(data.test), MOST))
    said = {name: _trained_on(count) for name, count in counts.items() if count}
    if not said:
        return f"Measured on {_many(n, 'held-out example')}."
    if len(said) == len(counts) and len(set(said.values())) == 1:
        return f"Trained on {next(iter(said.values()))}, measured on {_many(n, 'other')}."
    each = "; ".join(f"{name} on {words}" for name, words in said.items())
    return f"Trained: {each}. Measured on {_many(n, 'other')}."


def _trained_on(count: Mapping[str, int | None]) -> str:
    """Examples of a training in words."""
    real = count.get("real") or 0
    if "synthetic" not in count:
        return _many(real, "example")
    drawn = count["synthetic"]
    if real:
        more = "synthetic ones that were drawn anew" if drawn is None else _many(drawn, "synthetic one")
        return f"{_many(real, 'real example')} and {more}"
    return "synthetic examples that were drawn anew" if drawn is None else _many(drawn, "synthetic example")


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def summary_of(metrics: dict[str, Measured], data: Data) -> list[str]:
    """Figures for the head of a report in sentences; without metrics, of several models, none."""
    said = []
    bound = metrics.get("bound_nats")
    if bound is not None and bound.value is not None:
        bits = None if data.spec.sequential else bits_per_dimension(bound.value, data)
        per = f", {bits:.3f} bits per dimension" if bits is not None else ""
        for unit in ("residue", "token"):
            each = metrics.get(f"nats_per_{unit}", Measured(None)).value
            per = f", {each:.3f} nats per {unit}" if each is not None else per
        said.append(f"Bound on -log p(x): {bound.value:.1f} nats{per}.")
    for metric, what in (("sample_perplexity", "Perplexities"), ("mauve", "MAUVE")):
        if metric in metrics and metrics[metric].note:
            said.append(f"{what}: {metrics[metric].note}.")
    return said


def bits_per_dimension(nats: float, data: Data) -> float | None:
    """nats / (D log 2) on a grid of grey values; None for densities, whose unit is arbitrary."""
    return None if data.spec.levels is None else nats / (data.spec.numel * np.log(2))


@torch.no_grad()
def material(name: str, model: Model, data: Data, run: Path | None, *, seed: int = 0, rows: int = 6) -> Shown:
    """Pictures, codes and curves of one model for the report."""
    density: Any = model.density
    most = 2000 if not density.implicit or hasattr(density, "encoder") else 200
    test = data.test.subset(np.random.default_rng(0).permutation(len(data.test))[:most])  # folders come class by class
    draws, few = (COUNTED, min(COUNTED, len(test))) if data.spec.sequential else (64, min(32, len(test)))
    labels = next(((c, v) for c, v in test.labels.items()), None)
    raw = raw_tensor(test.values)
    shown: dict[str, Any] = {"originals": to_space(raw[:few], data.spec).numpy()} if data.spec.sequential else {}
    if density.has_codes:
        with seeded(seed, 5):
            codes = density.encode(to_space(raw.to(model.device), data.spec)).flatten(1)
        grey = data.spec.model_copy(update={"binarize": "none"})
        originals = to_space(raw, grey)
        shown = {
            "originals": originals[:few].numpy(),
            "reconstructions": density.decode(codes[:few]).cpu().numpy(),
            "codes": codes.cpu().numpy(),
            "labels": None if labels is None else labels[1],
        }
        if len(codes) > 1:
            pairs = codes[: 2 * rows].unflatten(0, (-1, 2)) if len(codes) >= 2 * rows else codes[None, :2]
            path = between(pairs[:, 0].cpu().numpy(), pairs[:, 1].cpu().numpy(), 9, density.path)
            way = torch.from_numpy(path).to(codes)
            shown["interpolations"] = density.decode(way.flatten(0, 1)).unflatten(0, way.shape[:2]).cpu().numpy()
            shown["interpolation_ends"] = originals[: 2 * len(pairs)].unflatten(0, (len(pairs), 2)).numpy()
    return Shown(
        name=name,
        samples=torch.cat(list(sample_batches(density, draws, seed=seed, mean=data.spec.kind != "protein"))).numpy(),
        class_names=[] if labels is None else data.spec.labels.get(labels[0], []),
        log=Log(run).read() if run is not None else [],
        seconds=model.provenance.get("train_seconds"),
        parameters=model.parameters,
        **shown,
    )


def usage(run: Path, data: Data, metrics: Mapping[str, Measured] | None = None, *, codes: bool = True) -> str:
    """Five lines of Python that use a run, fewer where the metrics say that there is no bound, or where there are no codes."""
    bound = metrics is None or metrics.get("bound_nats", Measured(None)).value is not None
    run = run.relative_to(Path.cwd()) if run.is_absolute() and run.is_relative_to(Path.cwd()) else run
    known = {"text": ("texts", "tokens"), "protein": ("sequences", "symbols")}
    name, values = known.get(data.spec.kind, ("images", "raw values"))
    lines = [
        "import diled\n",
        f'model = diled.load("{run}")',
        f"{name} = model.sample(16, seed=0)".ljust(42)
        + f"# {('16', *map(str, data.spec.shape))} {values}".replace("'", ""),
    ]
    if data.spec.sequential:
        lines.append(f"print(model.strings({name}))".ljust(42) + "# as text")
    if codes:
        lines += [
            f"codes = model.encode({name})".ljust(42) + "# (16, d)",
            f"path = model.interpolate({name}[0], {name}[1], steps=8)",
        ]
    if bound:
        lines.append(f"nats = model.bound({name})".ljust(42) + "# an upper bound on -log p(x), one number each")
    return "\n".join(lines) + "\n"


def _title(model: Model) -> str:
    return model.config.row.title if model.config is not None else type(model.density).__name__
