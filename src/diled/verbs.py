"""One function for each verb: what notebooks call and what the command line calls. The composition root.

Names and arguments are those of the command line: `diled train digits --model vae` is `diled.train("digits", model="vae")`.
Where a verb takes a run, a folder or a loaded `Model` will do. Heavy imports happen inside, so that importing is cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    from diled.data import Data
    from diled.evaluation.measure import Measured
    from diled.model import Model

__all__ = [
    "compare",
    "data",
    "demo",
    "edit",
    "encode",
    "evaluate",
    "interpolate",
    "models",
    "reconstruct",
    "sample",
    "search",
    "train",
]

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
Run: TypeAlias = "str | Path | Model"


def train(
    data: str | Path | None = None,
    *,
    model: str | None = None,
    out: str | Path | None = None,
    config: str | Path | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    device: Device = "auto",
    resume: str | Path | None = None,
    init_from: str | Path | None = None,
    freeze: Sequence[str] = (),
    dry_run: bool = False,
    report: bool = True,
    settings: dict[str, Any] | None = None,
) -> Model | dict[str, Any]:
    """Train a model on a folder, a file or a known data set.

    Args:
        data: a folder of images, a .parquet, .npz or .npy file, or a name (digits, mnist, fashion-mnist, cifar10).
        model: name in the family, `diled` unless said otherwise; `diled models` lists them.
        out: folder of the run; must be empty. Default: runs/DATA-MODEL.
        config: a YAML file of settings.
        minutes: fit the whole training, schedule and all, into this many minutes.
        seed: of everything random.
        device: where to compute.
        resume: a run to go on with, instead of `data`.
        init_from: a run whose parts (encoder, decoder, prior) the model starts from.
        freeze: parts that stay as they are: encoder, decoder, prior.
        dry_run: print parameters, memory and time, and train nothing.
        report: write report.html and evaluation.json at the end.
        settings: any other value, as {"model.latent_dim": 64, "training.steps": 5000}.

    Returns:
        The trained model, or with `dry_run` what it would take.

    Raises:
        DiledError: bad data, settings or a stopped training; the message says what to do.
    """
    from diled.runs import resolve
    from diled.session import Session
    from diled.session import resume as resumed

    if resume is not None:
        names = ("data", "model", "out", "config", "minutes", "seed", "init_from", "freeze")
        values = (data, model, out, config, minutes, seed, init_from, freeze)
        given = {**dict(zip(names, values, strict=True)), **(settings or {})}
        session = resumed(Path(resume), device=device, given=given)
    else:
        chosen = resolve(
            None if data is None else str(data),
            model,
            config,
            settings,
            seed=seed,
            device=device,
            init_from=None if init_from is None else str(init_from),
            freeze=tuple(freeze),
        )
        session = Session(chosen, out=out, minutes=minutes)
    if dry_run:
        return session.estimate()
    trained = session.run()
    if report and session.rank == 0:
        from diled.reporting import report_run

        report_run(session.folder, trained, session.data)
    return trained


def sample(
    run: Run,
    n: int = 16,
    *,
    steps: int | None = None,
    sampler: str | None = None,
    draw: bool = False,
    seed: int = 0,
    device: Device = "auto",
    out: str | Path | None = None,
) -> np.ndarray:
    """Draw new examples.

    Args:
        run: of a trained model.
        n: how many.
        steps: of every diffusion inside; default: the model's own (25 for most).
        sampler: ancestral, ddim, heun or dpm_solver; default: the model's own (ddim for most).
        draw: draw from p(x | z) instead of taking its mean.
        seed: of the noise; example i depends on the seed and i alone.
        device: where to compute.
        out: a picture (.png), an array (.npy, .npz) or a folder for one picture each.

    Returns:
        Raw values (n, *shape).
    """
    from diled.arguments import model_of, write_result
    from diled.output import check_out

    model = model_of(run, device)
    check_out(out, model.spec)
    drawn = model.sample(n, steps=steps, sampler=sampler, seed=seed, draw=draw)
    write_result(drawn, model, out)
    return drawn


def reconstruct(
    run: Run,
    inputs: Any,
    *,
    sample: bool = False,
    invert: bool = False,
    convert: bool = False,
    seed: int = 0,
    device: Device = "auto",
    out: str | Path | None = None,
) -> np.ndarray:
    """Encode and decode.

    Args:
        run: of a trained model.
        inputs: pictures, a folder, a .parquet, .npz or .npy file; in Python also arrays.
        sample: from a draw of the posterior instead of its mean.
        invert: with a diffusion decoder, from the noise that belongs to each input instead of fresh noise.
        convert: bring inputs of another size or kind to what the model wants.
        seed: of draws.
        device: where to compute.
        out: a picture (originals in the rows above their reconstructions), an array, or a folder.

    Returns:
        Raw values (n, *shape).
    """
    from diled.arguments import examples_of, model_of, write_pairs
    from diled.output import check_out

    model = model_of(run, device, codes=True)
    check_out(out, model.spec)
    inputs = examples_of(inputs, model, convert)
    result = model.reconstruct(inputs, sample=sample, invert=invert, seed=seed)
    write_pairs(inputs, result, model, out)
    return result


def encode(
    run: Run,
    inputs: Any,
    *,
    sample: bool = False,
    convert: bool = False,
    seed: int = 0,
    device: Device = "auto",
    out: str | Path | None = None,
) -> np.ndarray:
    """Turn examples into codes.

    Args:
        run: of a trained model.
        inputs: pictures, a folder, a .parquet, .npz or .npy file, or a known data set; in Python also arrays.
        sample: draws from the posterior instead of its means.
        convert: bring inputs of another size or kind to what the model wants.
        seed: of draws.
        device: where to compute.
        out: .npy (with the paths or ids beside it) or .parquet (columns id and code).

    Returns:
        Codes (n, d).
    """
    from diled.arguments import model_of, named_split
    from diled.data import read_named_examples
    from diled.output import check_out, write_codes

    model = model_of(run, device, codes=True)
    check_out(out, None, codes=True)
    split = named_split(inputs)
    values, ids = (split.values, split.ids) if split else read_named_examples(inputs, model.spec, convert=convert)
    codes = model.encode(values, sample=sample, seed=seed)
    if out is not None:
        write_codes(codes, list(ids), out)
    return codes


def interpolate(
    run: Run,
    a: Any,
    b: Any,
    *,
    steps: int = 8,
    mode: Literal["auto", "linear", "spherical"] = "auto",
    convert: bool = False,
    device: Device = "auto",
    out: str | Path | None = None,
) -> np.ndarray:
    """Walk from one example to another through the latent space.

    Args:
        run: of a trained model.
        a: where to start.
        b: where to go.
        steps: pictures on the way, both ends included.
        mode: linear or spherical; auto is linear, and spherical where codes are noise (ddpm, edm).
        convert: bring inputs of another size or kind to what the model wants.
        device: where to compute.
        out: a picture, an array, or a folder.

    Returns:
        Raw values (steps, *shape), of several pairs (n, steps, *shape).
    """
    from diled.arguments import model_of
    from diled.output import check_out, write_examples

    model = model_of(run, device, codes=True)
    check_out(out, model.spec)
    path = model.interpolate(a, b, steps, mode=mode, convert=convert)
    if out is not None:
        write_examples(path.reshape(-1, *model.spec.shape), model.spec, out, columns=steps)
    return path


def edit(
    run: Run,
    inputs: Any,
    *,
    attribute: str,
    strength: float = 1.0,
    method: Literal["vector", "classifier"] = "vector",
    data: str | Path | None = None,
    convert: bool = False,
    device: Device = "auto",
    out: str | Path | None = None,
) -> np.ndarray:
    """Change an attribute of examples by moving their codes along a direction fitted to training data.

    Args:
        run: of a trained model.
        inputs: what to edit.
        attribute: COLUMN=CLASS of any label column, or the name of a real-valued column.
        strength: how far; 1 moves the mean without the attribute onto the mean with it, negative values take it away.
        method: vector (difference of means) or classifier (normal of a logistic regression; 0.1 to 0.3 is visible).
        data: labelled training data; default: what the run was trained on.
        convert: bring inputs of another size or kind to what the model wants.
        device: where to compute.
        out: a picture (originals above), an array, or a folder.

    Returns:
        Raw values (n, *shape).
    """
    from diled.arguments import data_of, direction_of, examples_of, model_of, write_pairs
    from diled.editing import apply_edit
    from diled.output import check_out

    model = model_of(run, device, codes=True)
    check_out(out, model.spec)
    examples = examples_of(inputs, model, convert)
    direction = direction_of(model, data_of(run, data, model), attribute, method)
    result = apply_edit(model, examples, direction, strength)
    write_pairs(examples, result, model, out)
    return result


def search(
    run: Run,
    query: Any,
    *,
    k: int = 8,
    data: str | Path | None = None,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    convert: bool = False,
    device: Device = "auto",
    out: str | Path | None = None,
) -> list[list[tuple[str, float]]]:
    """Find the examples whose codes are nearest.

    Args:
        run: of a trained model.
        query: what to look for.
        k: how many neighbours.
        data: where to look; default: what the run was trained on.
        metric: euclidean (each dimension by its standard deviation) or cosine.
        convert: bring inputs of another size or kind to what the model wants.
        device: where to compute.
        out: a picture with the query in the first column.

    Returns:
        For each query the ids and distances of its neighbours, the nearest first.
    """
    import numpy as np

    from diled.arguments import data_of, examples_of, model_of
    from diled.latent.search import nearest
    from diled.output import check_out, write_examples

    model = model_of(run, device, codes=True)
    check_out(out, model.spec)
    place = data_of(run, data, model)
    values = np.concatenate([s.values for s in (place.train, place.validation, place.test)])
    ids = [i for s in (place.train, place.validation, place.test) for i in s.ids]
    queries = examples_of(query, model, convert)
    found, distance = nearest(model.encode(values), model.encode(queries), k, metric=metric)
    if out is not None:
        rows = np.stack([np.concatenate([q[None], values[row]]) for q, row in zip(queries, found, strict=True)])
        write_examples(rows.reshape(-1, *model.spec.shape), model.spec, out, columns=rows.shape[1])
    return [
        [(ids[i], float(d)) for i, d in zip(row, distances, strict=True)]
        for row, distances in zip(found, distance, strict=True)
    ]


def evaluate(
    run: Run,
    *,
    data: str | Path | None = None,
    by: str | None = None,
    samples: int | None = None,
    repeats: int = 8,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    device: Device = "auto",
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a model on held-out data: bound, rate, distortion, Frechet distances, reconstruction, probe.

    Args:
        run: of a trained model.
        data: default: the data that the run was trained on (its test split).
        by: a label column: bound, error and share of samples for each of its groups.
        samples: for the Frechet distance; default as many as the test split has, within 2,000 and 10,000.
        repeats: Monte-Carlo passes for the bound.
        steps: of the samplers inside.
        sampler: ancestral, ddim, heun or dpm_solver.
        seed: of all draws.
        device: where to compute.
        out: a .json file for the figures.

    Returns:
        Metric -> `Measured`; with `by`, group -> metric -> `Measured`.
    """
    from diled.arguments import at_least_one, data_of, model_of
    from diled.editing import by_group
    from diled.evaluation.report import table_text
    from diled.output import check_out
    from diled.reporting import figures, table_of, write_figures

    model = model_of(run, device, codes=by is not None, steps=steps, sampler=sampler)
    check_out(out, None)
    at_least_one(samples=samples, repeats=repeats)
    place = data_of(run, data, model)
    count = samples or min(10_000, max(2_000, len(place.test)))
    found: dict[str, Any]
    if by is not None:
        found = by_group(model, place, by, samples=count, repeats=repeats, steps=steps, sampler=sampler, seed=seed)
        rows = found
    else:
        found = figures(model, place, samples=count, repeats=repeats, steps=steps, sampler=sampler, seed=seed)
        rows = {model.name or "model": found}
    table, better = table_of(rows)
    print(table_text(table, dict.fromkeys(better, "") if by is not None else better))
    if out is not None:
        write_figures(Path(out), found)
    return found


def compare(
    *sources: Run,
    models: Sequence[str] = ("diled", "vae", "ldm"),
    data: str | Path | None = None,
    minutes: float | None = None,
    config: str | Path | None = None,
    samples: int | None = None,
    seed: int = 0,
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
        seed: of training and draws.
        device: where to compute.
        out: folder of the runs and the report. Default: runs/DATA-compared.
        settings: other values for all models, {"training.batch_size": 64}.

    Returns:
        Model -> metric -> `Measured`.
    """
    from diled.arguments import at_least_one, data_of, is_run, model_of
    from diled.errors import ConfigError
    from diled.reporting import READING, compare_models
    from diled.runs import new_folder
    from diled.session import check_same_data
    from diled.several import train_several

    at_least_one(samples=samples)
    if not sources:
        raise ConfigError("Name runs to compare, or a data set to train on.")
    trained: dict[str, tuple[Model, Path | None]] = {}
    if len(sources) == 1 and not is_run(sources[0]):
        source = str(sources[0])
        folder = new_folder(out, source, "compared")
        place, trained = train_several(
            source, models, folder, minutes=minutes, config=config, settings=settings, seed=seed, device=device
        )
    else:
        loaded = [(model_of(source, device), source) for source in sources]
        place = data_of(sources[0], data, loaded[0][0])
        for model, run in loaded:
            check_same_data(place, model.spec, str(run))
            title = model.config.row.title if model.config is not None else str(run)
            title = title if title not in trained else f"{title} ({run})"
            trained[title] = (model, Path(run) if isinstance(run, (str, Path)) else None)
        folder = new_folder(out, place.name, "compared")
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{len(trained)} models on {place.name}"
    return compare_models(trained, place, folder, title=title, reading=READING, samples=samples, seed=seed)


def models() -> list[dict[str, str]]:
    """List the family: every model, its parts, how it is trained, and whether it has a bound."""
    from diled.family import family_table

    return family_table()


def data(
    source: str | Path | None = None, *, settings: dict[str, Any] | None = None
) -> list[tuple[str, str, str]] | Data:
    """List the known data sets, or say what was found in a folder or file.

    Args:
        source: a name or path; without it, the known sets.
        settings: of the preprocessing, {"preprocess.size": 32}.
    """
    from diled.data import known_sets, open_data

    if source is None:
        return known_sets()
    from diled.config import PreprocessConfig, validated
    from diled.runs import nested

    return open_data(source, validated(PreprocessConfig, nested(settings or {}).get("preprocess", {}), "preprocess"))


def demo(
    *, out: str | Path = "demo", steps: int = 1200, seed: int = 0, device: Device = "auto"
) -> dict[str, dict[str, Measured]]:
    """Train DiLED, a VAE and an LDM on the 1,797 digits that scikit-learn bundles, and write a report.

    Args:
        out: folder of the three runs and the report; an earlier demo there is replaced.
        steps: optimiser steps for each model.
        seed: of everything random.
        device: where to compute.
    """
    from diled.demonstration import run_demo

    return run_demo(Path(out), steps=steps, seed=seed, device=device)
