"""Verbs that train and use one model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diled.progress import watched
from diled.verbs.types import Device, Run, check_named

if TYPE_CHECKING:
    import numpy as np

    from diled.data import Data
    from diled.model import Model
    from diled.scoring import Scores


__all__ = ["edit", "encode", "interpolate", "reconstruct", "sample", "score", "search", "train"]


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
        data: a folder of images; a .parquet, .npz or .npy file; sequences (.fasta, .csv, .tsv) or texts (.txt, .csv, .jsonl);
            or a name, such as digits (`diled data` lists them).
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

    if data is not None:
        check_named(data)
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
    beams: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
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
        beams: of text, the likeliest one for each code by a search of so many beams; default: 1, symbol by symbol.
        temperature: of text, draw at this temperature; below 1 is safer.
        top_p: of text, draw among the likeliest symbols that together have this probability.
        seed: of the noise; example i depends on the seed and i alone.
        device: where to compute.
        out: a picture (.png), an array (.npy, .npz) or a folder for one picture each; of sequences .fasta or .csv, of text
            .txt, .csv or .jsonl.

    Returns:
        Raw values (n, *shape).
    """
    from diled.arguments import model_of, write_result
    from diled.errors import ConfigError
    from diled.output import check_out

    model = model_of(run, device)
    check_out(out, model.spec)
    draw = draw or temperature is not None or top_p is not None
    if beams is not None and (draw or not model.density.has_codes):
        raise ConfigError(
            "beams look for the likeliest text of a code, and nothing is drawn then: leave out beams, or the draws."
        )
    with model.writing(beams=beams, temperature=temperature, top_p=top_p), model.showing_progress(watched()):
        drawn = model.sample(n, steps=steps, sampler=sampler, seed=seed, draw=draw)
    write_result(drawn, model, out)
    return drawn


def reconstruct(
    run: Run,
    inputs: Any,
    *,
    sample: bool = False,
    invert: bool = False,
    beams: int | None = None,
    convert: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    column: str | None = None,
    seed: int = 0,
    device: Device = "auto",
    out: str | Path | None = None,
) -> np.ndarray:
    """Encode and decode.

    Args:
        run: of a trained model.
        inputs: pictures, a folder, a .parquet, .npz or .npy file, sequences or texts, or files of them; in Python also
            arrays.
        sample: from a draw of the posterior instead of its mean.
        invert: with a diffusion decoder, from the noise that belongs to each input instead of fresh noise.
        beams: of text, a search of so many beams for the likeliest one; default: 1, symbol by symbol.
        convert: bring inputs of another size or kind to what the model wants.
        on_error: stop at what the model cannot read, or skip it, and say how much.
        column: of tables and .parquet files, which holds the examples; default: as in training data.
        seed: of draws.
        device: where to compute.
        out: a picture (originals in the rows above their reconstructions), an array, or a folder; of sequences and texts a
            file.

    Returns:
        Raw values (n, *shape).
    """
    from diled.arguments import check_column, examples_of, model_of, write_pairs
    from diled.output import check_out

    model = model_of(run, device, codes=True)
    check_out(out, model.spec)
    check_column(column, inputs)
    examples = examples_of(inputs, model, convert, on_error, column)
    with model.writing(beams=beams), model.showing_progress(watched()):
        result = model.reconstruct(examples.values, sample=sample, invert=invert, seed=seed)
    write_pairs(examples.values, result, model, out, examples.ids)
    return result


def encode(
    run: Run,
    inputs: Any,
    *,
    sample: bool = False,
    convert: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    column: str | None = None,
    seed: int = 0,
    device: Device = "auto",
    out: str | Path | None = None,
) -> np.ndarray:
    """Turn examples into codes.

    Args:
        run: of a trained model.
        inputs: pictures, a folder, a .parquet, .npz or .npy file, sequences or texts, or files of them, or a known data set;
            in Python also arrays.
        sample: draws from the posterior instead of its means.
        convert: bring inputs of another size or kind to what the model wants.
        on_error: stop at what the model cannot read, or skip it, and say how much.
        column: of tables and .parquet files, which holds the examples; default: as in training data.
        seed: of draws.
        device: where to compute.
        out: .npy (with the paths or ids beside it) or .parquet (columns id and code).

    Returns:
        Codes (n, d).
    """
    from diled.arguments import check_column, examples_of, model_of
    from diled.output import check_out, write_codes

    model = model_of(run, device, codes=True)
    check_out(out, None, codes=True)
    check_column(column, inputs)
    examples = examples_of(inputs, model, convert, on_error, column)
    with model.showing_progress(watched()):
        codes = model.encode(examples.values, sample=sample, seed=seed)
    if out is not None:
        write_codes(codes, examples.ids, out)
    return codes


def score(
    run: Run,
    inputs: Any,
    *,
    repeats: int = 64,
    convert: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    column: str | None = None,
    seed: int = 0,
    device: Device = "auto",
    out: str | Path | None = None,
) -> Scores:
    """Score examples one by one: the bound on -log p, its rate and distortion, and the properties that the model predicts.

    The lower the bound, the likelier is an example to the model; protein variants are ranked by it without a measurement. Where
    a table of sequences has columns of real numbers, their Spearman correlation with minus the bound, and with what the model
    predicts of them, is said; of examples that the model was trained on and of the others together, and of the others.

    Args:
        run: of a trained model.
        inputs: pictures, a folder, a .parquet, .npz or .npy file, sequences or texts, or files of them, or a known data set;
            in Python also arrays.
        repeats: Monte-Carlo passes that are averaged, in each of which all examples meet the same noise, so that they compare.
        convert: bring inputs of another size or kind to what the model wants.
        on_error: stop at what the model cannot read, or skip it, and say how much.
        column: of tables and .parquet files, which holds the examples; default: as in training data.
        seed: of their noise.
        device: where to compute.
        out: .csv or .parquet, a row for each example with its id, of sequences and texts with these.

    Returns:
        The scores, with ids and columns.

    Raises:
        NoBound: the model has no bound, no energy and no head that predicts a property.
    """
    from diled.arguments import check_column, examples_of, measured_of, model_of, trained_rows
    from diled.output import check_table
    from diled.scoring import score_examples, write_scores

    model = model_of(run, device)
    check_table(out)
    check_column(column, inputs)
    examples = examples_of(inputs, model, convert, on_error, column)
    measured = measured_of(examples)
    known = trained_rows(run, model, examples.values) if measured else None
    found = score_examples(
        model, examples.values, examples.ids, repeats=repeats, seed=seed, measured=measured, trained_on=known
    )
    if out is not None:
        write_scores(found, examples.values, model.spec, out)
    return found


def interpolate(
    run: Run,
    a: Any,
    b: Any,
    *,
    steps: int = 8,
    mode: Literal["auto", "linear", "spherical"] = "auto",
    beams: int | None = None,
    convert: bool = False,
    column: str | None = None,
    device: Device = "auto",
    out: str | Path | None = None,
) -> np.ndarray:
    """Walk from one example to another through the latent space.

    Args:
        run: of a trained model.
        a: where to start.
        b: where to go.
        steps: pictures, sequences or texts on the way, both ends included.
        mode: linear or spherical; auto is linear, and spherical where codes are noise (ddpm, edm).
        beams: of text, a search of so many beams for the likeliest one; default: 1, symbol by symbol.
        convert: bring inputs of another size or kind to what the model wants.
        column: of tables and .parquet files, which holds the examples; default: as in training data.
        device: where to compute.
        out: a picture, an array, or a folder.

    Returns:
        Raw values (steps, *shape), of several pairs (n, steps, *shape).
    """
    from diled.arguments import check_column, examples_of, model_of
    from diled.output import check_out, write_examples

    model = model_of(run, device, codes=True)
    check_out(out, model.spec)
    check_column(column, a, b)
    start, end = (examples_of(place, model, convert, column=column, option="").values for place in (a, b))
    with model.writing(beams=beams):
        path = model.interpolate(start, end, steps, mode=mode)
    if out is not None:
        write_examples(path.reshape(-1, *model.spec.shape), model.spec, out, columns=steps)
    return path


def edit(
    run: Run,
    inputs: Any,
    *,
    attribute: Sequence[str],
    strength: float | None = None,
    method: Literal["vector", "classifier", "ode"] = "vector",
    depth: float | None = None,
    data: Sequence[str | Path] | str | Path | None = None,
    beams: int | None = None,
    convert: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    column: str | None = None,
    device: Device = "auto",
    out: str | Path | None = None,
) -> np.ndarray:
    """Change attributes of examples by moving their codes, as training data tell.

    Args:
        run: of a trained model.
        inputs: what to edit.
        attribute: COLUMN=CLASS of any label column, or the name of a real-valued column; several change at once.
        strength: how far; default: 1, of ode 2; negative values take the attribute away.
        method: vector (difference of means; at 1 one mean moves onto the other), classifier (normal of a logistic
            regression; with codes of hundreds of dimensions 0.1 to 0.3 shows) or ode (each code goes as far as classifiers
            and the prior lead it).
        depth: of ode with a prior that is learned, 0 to 1: up to which noise it may remake codes; default: 0.8.
        data: labelled training data, several sets where they have different columns; default: what the run was trained on.
        beams: of text, a search of so many beams for the likeliest one; default: 1, symbol by symbol.
        convert: bring inputs of another size or kind to what the model wants.
        on_error: stop at what the model cannot read, or skip it, and say how much.
        column: of tables and .parquet files, which holds the examples; default: as in training data.
        device: where to compute.
        out: a picture (originals above), an array, or a folder.

    Returns:
        Raw values (n, *shape).
    """
    from diled.arguments import check_column, data_of, edit_of, examples_of, model_of, write_pairs
    from diled.editing import STRENGTH, apply_edit
    from diled.errors import ConfigError
    from diled.output import check_out

    model = model_of(run, device, codes=True)
    check_out(out, model.spec)
    if strength is not None and not math.isfinite(strength):
        raise ConfigError(f"strength = {strength}: give a finite number.")
    sets = [data] if data is None or isinstance(data, str | Path) else data
    check_column(column, inputs, *sets)
    examples = examples_of(inputs, model, convert, on_error, column)
    attributes = [attribute] if isinstance(attribute, str) else attribute
    known = [data_of(run, one, model, skip=True, held_out=False, column=column, inputs=inputs) for one in sets]
    change = edit_of(model, known, attributes, method, depth)
    with model.writing(beams=beams):
        result = apply_edit(model, examples.values, change, STRENGTH[method] if strength is None else strength)
    write_pairs(examples.values, result, model, out, examples.ids)
    return result


def _names(data: Data) -> list[str]:
    """The ids of all examples, with the split before them where two splits have the same, as arrays number their rows."""
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    plain = [i for split in parts.values() for i in split.ids]
    if len(set(plain)) == len(plain):
        return plain
    return [f"{name}/{i}" for name, split in parts.items() for i in split.ids]


def search(
    run: Run,
    query: Any,
    *,
    k: int = 8,
    data: str | Path | None = None,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    convert: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    column: str | None = None,
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
        on_error: stop at what the model cannot read, in the query or in the data, or skip it, and say how much.
        column: of tables and .parquet files, which holds the examples; default: as in training data.
        device: where to compute.
        out: a picture with the query in the first column, or a table (.csv, .parquet) of queries, neighbours and distances.

    Returns:
        For each query the ids and distances of its neighbours, the nearest first; of text with the text, each once.
    """
    import numpy as np

    from diled.arguments import check_column, data_of, examples_of, model_of
    from diled.latent.search import nearest
    from diled.output import check_neighbours, write_neighbours

    model = model_of(run, device, codes=True)
    check_neighbours(out, model.spec)
    check_column(column, query, data)
    skip = on_error == "skip"
    place = data_of(run, data, model, skip=skip, held_out=False, option="--on-error skip", column=column, inputs=query)
    values = np.concatenate([s.values for s in (place.train, place.validation, place.test)])
    ids = _names(place)
    shown = ids
    if model.spec.kind == "text":  # a text tells more than its number, and one of those that are equal is enough
        values, first = np.unique(values, axis=0, return_index=True)
        ids = [ids[i] for i in first]
        shown = [f"{name}: {text}" for name, text in zip(ids, model.strings(values), strict=True)]
    queries = examples_of(query, model, convert, on_error, column)
    with model.showing_progress(watched()):
        codes = model.encode(values)
    found, distance = nearest(codes, model.encode(queries.values), k, metric=metric)
    if out is not None:
        write_neighbours((queries.values, queries.ids), (values, ids), found, distance, model.spec, out)
    return [
        [(shown[i], float(d)) for i, d in zip(row, distances, strict=True)]
        for row, distances in zip(found, distance, strict=True)
    ]
