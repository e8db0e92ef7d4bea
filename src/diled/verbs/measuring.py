"""Verbs that measure models and compare them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diled.verbs.types import Device, Run, check_named

if TYPE_CHECKING:
    from diled.data import Data
    from diled.evaluation.measure import Measured
    from diled.model import Model


__all__ = ["audit", "compare", "evaluate"]

COMPARED = ("diled", "vae", "ldm")
"""What is trained and compared unless one says otherwise."""


def evaluate(
    run: Run,
    *,
    data: str | Path | None = None,
    by: str | None = None,
    edit: str | None = None,
    method: str | None = None,
    samples: int | None = None,
    repeats: int | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    beams: int | None = None,
    column: str | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    seed: int = 0,
    device: Device = "auto",
    out: str | Path | None = None,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure a model on held-out data: bound, rate, distortion, Frechet distances, reconstruction, probe.

    Samples of text that anybody else wrote are measured as well, from a file with one a line, or a table.

    Args:
        run: of a trained model; or a file of texts, to be measured as samples against those of `data`.
        data: default: the data that the run was trained on (its test split).
        by: a label column: bound, error and share of samples for each of its groups.
        edit: of text, a label column: what edits to its other classes do at several strengths, as a classifier and a language
            model tell that are trained apart; with `out`, the curve is drawn beside the figures (.png).
        method: of these edits: vector (the default), classifier or ode.
        samples: for the Frechet distance; default as many as the test split has, within 2,000 and 10,000. Of text, at most as
            many as there are test texts, and 5,000.
        repeats: Monte-Carlo passes for the bound; default: 8.
        steps: of the samplers inside.
        sampler: ancestral, ddim, heun or dpm_solver.
        beams: of text, a search of so many beams for the likeliest one of a code; default: 1, symbol by symbol.
        column: of a file of samples, or of `data`, that is a table: which holds the texts or sequences.
        on_error: stop at what of `data` the model cannot read, or skip it, and say how much.
        seed: of all draws.
        device: where to compute.
        out: a .json file for the figures.
        settings: with a file of texts, of the preprocessing of `data`, {"preprocess.sequence.max_length": 40}: that with which
            the models were trained that the file is compared with. A run has its own.

    Returns:
        Metric -> `Measured`; with `by`, group -> metric -> `Measured`; with `edit`, strength -> metric -> `Measured`.
    """
    from diled.arguments import at_least_one, check_seed, data_of, model_of
    from diled.output import check_out

    if isinstance(run, (str, Path)) and Path(run).is_file():
        said = f"for {run}, a file of samples: it is for trained models"
        _refuse(said, by=by, edit=edit, method=method, steps=steps, sampler=sampler, beams=beams, repeats=repeats)
        _refuse(
            f"{said}, and a language model judges it on the CPU", device=None if device in ("auto", "cpu") else device
        )
        _refuse(f"{said}: set preprocess.on_error", on_error=None if on_error == "stop" else on_error)
        return _of_a_file(run, data, samples, seed, out, settings, column)
    _refuse("for a trained model, which knows how its data are read", **dict.fromkeys(settings or {}, True))
    model = model_of(run, device, codes=by is not None, steps=steps, sampler=sampler)
    check_out(out, None)
    at_least_one(samples=samples, repeats=repeats)
    check_seed(seed)
    if not model.density.has_codes:
        _refuse("for a model without codes, whose texts are drawn", beams=beams)
    place = data_of(run, data, model, skip=on_error == "skip", option="--on-error skip", column=column)
    if edit is not None:
        _refuse("with 'edit', which measures edits alone", by=by, samples=samples, steps=steps, sampler=sampler)
        _refuse("with 'edit', which draws nothing", repeats=repeats, seed=seed or None)
        with model.writing(beams=beams):
            return _of_edits(model, place, edit, method or "vector", out)
    _refuse("without 'edit', the label column to be edited", method=method)
    count = samples or min(10_000, max(2_000, len(place.test)))
    how: dict[str, Any] = {"samples": count, "repeats": repeats or 8, "steps": steps, "sampler": sampler, "seed": seed}
    with model.writing(beams=beams):
        return _of_a_model(model, place, by, how, out, asked=samples)


def _refuse(why: str, **given: Any) -> None:
    """Refuse options that would have no effect.

    Raises:
        ConfigError: with the first of them.
    """
    from diled.errors import ConfigError

    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"'{name}' has no meaning {why}.")


def _tell_fewer(asked: int | None, found: Mapping[str, Measured]) -> None:
    """Say where fewer samples of text with words were compared than were asked for."""
    used = found["unique"].n if "unique" in found else None
    if asked is not None and used is not None and used < asked:
        print(
            f"Of the {asked:,} samples asked for {used:,} were compared: as many as there are with words and test texts, at "
            "most 5,000.",
            file=sys.stderr,
        )


def _of_a_model(
    model: Model, place: Data, by: str | None, how: dict[str, Any], out: str | Path | None, *, asked: int | None
) -> dict[str, Any]:
    """What `evaluate RUN` prints and writes, of all test examples or of each group."""
    from diled.editing import by_group
    from diled.evaluation.report import table_text
    from diled.reporting import figures, table_of, write_figures

    found: dict[str, Any]
    if by is not None:
        found = rows = by_group(model, place, by, **how)
    else:
        found = figures(model, place, **how)
        rows = {model.name or "model": found}
        _tell_fewer(asked, found)
    table, better = table_of(rows)
    print(table_text(table, dict.fromkeys(better, "") if by is not None else better))
    if out is not None:
        write_figures(Path(out), found)
    return found


def _of_a_file(
    path: str | Path,
    data: str | Path | None,
    samples: int | None,
    seed: int,
    out: str | Path | None,
    settings: dict[str, Any] | None,
    column: str | None,
) -> dict[str, Any]:
    """What `evaluate FILE` prints and writes."""
    from diled.arguments import at_least_one, check_seed
    from diled.config import PreprocessConfig, validated
    from diled.evaluation.report import table_text
    from diled.output import check_out
    from diled.reporting import table_of, write_figures
    from diled.runs import nested
    from diled.sample_files import figures_of_file

    check_out(out, None)
    at_least_one(samples=samples)
    check_seed(seed)
    own = nested(settings or {})
    _refuse("for a file of samples: settings are of its 'preprocess'", **{k: True for k in own if k != "preprocess"})
    preprocess = validated(PreprocessConfig, own.get("preprocess", {}), "preprocess")
    found = figures_of_file(path, data, samples=samples, seed=seed, preprocess=preprocess, column=column)
    _tell_fewer(samples, found)
    print(table_text(*table_of({Path(path).name: found})))
    if out is not None:
        write_figures(Path(out), found)
    return found


def _of_edits(model: Model, data: Data, column: str, method: str, out: str | Path | None) -> dict[str, Any]:
    """What `evaluate --edit` prints and writes."""
    from diled.edit_curves import text_edits
    from diled.evaluation.edits import plot_curve
    from diled.evaluation.report import replace_file, table_text
    from diled.reporting import table_of, write_figures

    model.with_codes()
    curve = text_edits(model, data, column, method)
    found = {f"strength {point['strength'].value:g}": point for point in curve}
    table, better = table_of({name: {k: m for k, m in p.items() if k != "strength"} for name, p in found.items()})
    print(table_text(table, dict.fromkeys(better, "")))
    if out is not None:
        write_figures(Path(out), found)
        replace_file(Path(out).with_suffix(".png"), plot_curve({method: curve})[0])
    return found


def compare(
    *sources: Run,
    models: Sequence[str] = COMPARED,
    data: str | Path | None = None,
    minutes: float | None = None,
    config: str | Path | None = None,
    samples: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    column: str | None = None,
    seed: int | None = None,
    device: Device = "auto",
    out: str | Path | None = None,
    settings: dict[str, Any] | None = None,
) -> dict[str, dict[str, Measured]]:
    """Compare finished runs, or train several models on one data set for equal time and compare them; say which to take.

    Args:
        sources: runs (or loaded models); or one data set, to answer "which model for my data?".
        models: to train on the data set.
        data: for runs: what to measure on; default: what the first was trained on.
        minutes: to train all models, in equal shares; default: each model's default number of steps.
        config: a YAML file of settings for all models (without their own values).
        samples: for the Frechet distance.
        on_error: of runs, stop at what of `data` they cannot read, or skip it, and say how much.
        column: of runs, which column of `data`, a table, holds the texts or sequences; default: as in training data.
        seed: of training, else as the settings have it, and of draws, else 0.
        device: where to compute.
        out: folder of the runs and the report. Default: runs/DATA-compared.
        settings: other values for all models, {"training.batch_size": 64}.

    Returns:
        Model -> metric -> `Measured`.
    """
    from diled.arguments import at_least_one, check_seed, data_of, is_run, model_of, tell_other_test
    from diled.errors import ConfigError
    from diled.model import Model
    from diled.reporting import READING, compare_models
    from diled.runs import new_folder
    from diled.session import check_same_data
    from diled.several import train_several

    at_least_one(samples=samples)
    check_seed(seed)
    if not sources:
        raise ConfigError("Name runs to compare, or a data set to train on.")
    for source in sources:
        if not isinstance(source, Model):
            check_named(source)
    trained: dict[str, tuple[Model, Path | None]] = {}
    if len(sources) == 1 and not is_run(sources[0]):
        source = str(sources[0])
        _refuse("in training: set preprocess.on_error", on_error=None if on_error == "stop" else on_error)
        _refuse("in training: set preprocess.sequence.column", column=column)
        _refuse("in training, which is on the data set that is compared on", data=data)
        folder = new_folder(out, source, "compared")
        place, trained = train_several(
            source, models, folder, minutes=minutes, config=config, settings=settings, seed=seed, device=device
        )
    else:
        _refuse(
            "for trained runs", models=None if tuple(models) == COMPARED else models, minutes=minutes, config=config
        )
        _refuse("for trained runs", **dict.fromkeys(settings or {}, True))
        loaded = [(model_of(source, device), source) for source in sources]
        skip = on_error == "skip"
        place = data_of(sources[0], data, loaded[0][0], skip=skip, option="--on-error skip", column=column)
        for model, run in loaded:
            check_same_data(place, model.spec, str(run))
            if run is not sources[0]:
                tell_other_test(place, model, str(run))
            trained[_title(model, run, trained)] = (model, Path(run) if isinstance(run, (str, Path)) else None)
        folder = new_folder(out, place.name, "compared")
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{len(trained)} models on {place.name}"
    found = compare_models(trained, place, folder, title=title, reading=READING, samples=samples, seed=seed or 0)
    _tell_fewer(samples, next(iter(found.values())))
    return found


def _title(model: Model, run: Run, taken: Container[str]) -> str:
    """What a model of a comparison is called: where its kind is taken also by its path, and then by a number."""
    kind = model.config.row.title if model.config is not None else str(run)
    names = [kind, f"{kind} ({run})"] if isinstance(run, (str, Path)) else [kind]
    numbered = (f"{names[-1]} ({number})" for number in itertools.count(2))
    return next(name for name in itertools.chain(names, numbered) if name not in taken)


def audit(
    *models: Run,
    data: str | Path | None = None,
    sections: Sequence[str] = (),
    thorough: bool = False,
    ais: bool = False,
    examples: int | None = None,
    steps: int | None = None,
    radii: Sequence[float] = (),
    seed: int = 0,
    device: Device = "auto",
    out: str | Path | None = None,
    settings: dict[str, Any] | None = None,
) -> dict[str, dict[str, Measured]]:
    """Audit how well autoencoders generalize, yours or anybody's: the generalization, amortization and robustness gaps.

    What is measured already is read from `out`, so an interrupted audit goes on, and another model can be added later.

    Args:
        models: runs; folders of a diffusers AutoencoderKL, or hub:owner/name; or module:function, a function that returns
            anything with `encode` and `decode`.
        data: real data of all models; default: what each run was trained on. Foreign models need it, or a run beside them.
        sections: bounds, amortization, likelihood, robustness, codes, pool; default: all that apply.
        thorough: more examples, samples, steps, restarts, and AIS: hours on two cores.
        ais: log p(x) of 100 test examples by annealed importance sampling as well, with BDMC on samples of the model.
        examples: of the training and of the test split for the amortization gap, log p(x) and, 5,000 at least where there are
            as many, the codes; 10,000 at most. Bounds take up to 10,000, attacks have their own number. Default 1,000.
        steps: of the per-example optimisation; default 300.
        radii: of the strong attack, between 0 and 1; default 0.05 0.1 0.2.
        seed: of all draws.
        device: where to compute.
        out: folder of the page, the figures and what is kept. Default: runs/audit, or of one run alone its folder `audit`.
        settings: of the preprocessing, in place of a run's own, {"preprocess.size": 32}.

    Returns:
        Model -> metric -> `Measured`. A section that a model cannot have is left out, and said.

    Raises:
        DiledError: no model, or one twice; an unknown section, more examples than 10,000, a radius outside [0, 1]; models of
            different data.
    """
    from dataclasses import replace

    from diled.arguments import check_seed
    from diled.auditing import BRIEF, THOROUGH, audit_folder, audit_models, report_audit, subjects_of
    from diled.errors import ConfigError
    from diled.runs import nested

    check_seed(seed)
    if not models:
        raise ConfigError("Name at least one model to audit: a run, a diffusers folder, or module:function.")
    effort = THOROUGH if thorough else replace(BRIEF, annealed=100 if ais else 0)
    chosen: dict[str, Any] = {"examples": examples, "steps": steps, "radii": tuple(map(float, radii)) or None}
    effort = replace(effort, **{key: value for key, value in chosen.items() if value is not None})
    subjects = subjects_of(models, data, device, nested(settings or {}).get("preprocess", {}))
    folder = audit_folder(models, out)
    found = audit_models(subjects, folder, effort=effort, sections=tuple(sections), seed=seed)
    return report_audit(found, subjects, folder, seed=seed)
