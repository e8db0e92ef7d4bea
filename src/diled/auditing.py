"""From models to an audit: what is audited on what, sections that are never measured twice, the table and the page.

    OUT/cells/NAME-SECTION.json   figures and remarks of one section of one model; .npz beside it holds numbers per example
    OUT/audit.json                all figures, with intervals of differences from the first model
    OUT/audit.html                to look at

A cell names what it was measured on: weights, data, effort, seed. It is measured again only where one of these differs.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diled.arguments import data_of, is_run, model_of
from diled.data import Data, Split
from diled.data.synthesis import open_pool
from diled.draws import seeded
from diled.errors import ConfigError, DataError, ModelError, NoBound
from diled.evaluation.audit import BRIEF, SECTIONS, THOROUGH, Effort, Examples, Section, audit_section
from diled.evaluation.audit_page import audit_table, write_audit
from diled.evaluation.gaps import Interval, cremer, paired_bootstrap, zhang
from diled.evaluation.measure import Measured
from diled.evaluation.shown import file_names
from diled.evaluation.tables import table_text
from diled.model import Model, choose_device
from diled.models.foreign import load_foreign
from diled.models.io import write_json
from diled.runs import provenance, read_run
from diled.session import duration
from diled.space import raw_tensor, to_space

__all__ = ["BRIEF", "THOROUGH", "Audited", "Effort", "Subject", "audit_models", "report_audit", "subjects_of"]

USES: dict[str, tuple[str, ...]] = {
    "bounds": ("bounded", "samples"),
    "amortization": ("examples", "samples", "steps"),
    "likelihood": ("examples", "samples", "steps", "weights", "ode_weights", "ode_examples", "annealed", "annealing"),
    "robustness": (
        "radii", "references", "restarts", "iterations",
        "published_references", "published_radius", "published_iterations",
    ),
    "codes": ("examples", "references", "pairs"),
    "pool": (),
}  # fmt: skip
"""Section -> what of the effort its figures depend on."""
VERSION = 2
"""Raised when a section comes to measure something else, so that earlier cells are not taken for it."""
POOL = 10_000
"""Examples of a synthetic set that are compared with real ones."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model to be audited.

    Attributes:
        name: in tables.
        density: the autoencoder, on its device.
        identity: hash of its weights.
        data: real training and test examples.
        pool: examples of the synthetic set it was trained on, raw, or None.
        notes: what was assumed of it.
    """

    name: str
    density: Any
    identity: str
    data: Data
    pool: np.ndarray | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Audited:
    """What an audit found of one model.

    Attributes:
        figures: metric -> value; with those that follow from several sections.
        arrays: `section/name` -> numbers per example.
        notes: remarks on how it was measured.
        refused: section -> why there is none.
    """

    figures: dict[str, Measured]
    arrays: dict[str, np.ndarray]
    notes: list[str]
    refused: dict[str, str]


def audit_models(
    subjects: Sequence[Subject],
    folder: Path,
    *,
    effort: Effort = BRIEF,
    sections: Sequence[str] = SECTIONS,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, Audited]:
    """Audit models on their real data; sections that `folder` already holds are read.

    Args:
        subjects: with the same test examples.
        folder: of cells, audit.json and audit.html.
        effort: how much work.
        sections: which, of `SECTIONS`.
        seed: of all draws.
        say: prints a line as each section is done.

    Raises:
        ConfigError: an unknown section, or the subjects have other test examples than the first.
    """
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise ConfigError(f"There is no section '{unknown[0]}' in an audit. Sections: {', '.join(SECTIONS)}.")
    tests = [_fingerprint(s.data.test) for s in subjects]
    for subject, test in zip(subjects, tests, strict=True):
        if test != tests[0]:
            raise ConfigError(
                f"{subject.name} has other test examples than {subjects[0].name}: name one data set with --data."
            )
    cells = folder / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    found: dict[str, Audited] = {}
    for subject, stem in zip(subjects, file_names([s.name for s in subjects]), strict=True):
        examples = examples_of(subject, seed)
        print_of = _fingerprint(subject.data.train) + tests[0]
        measured: dict[str, Section | str] = {}
        for name in sections:
            if name == "pool" and subject.pool is None:
                continue
            earlier = {done: section for done, section in measured.items() if isinstance(section, Section)}
            key = _key(subject, name, effort, seed, print_of, "amortization" in earlier)
            kept = _kept(cells / f"{stem}-{name}", key)
            if kept is None:
                kept = _measured(subject, name, examples, effort, seed, earlier, say)
                _write(cells / f"{stem}-{name}", key, kept)
            else:
                say(f"{subject.name}: {name}, already measured")
            measured[name] = kept
        found[subject.name] = combined(measured, subject.notes)
    return found


def _measured(
    subject: Subject,
    name: str,
    examples: Examples,
    effort: Effort,
    seed: int,
    earlier: dict[str, Section],
    say: Callable[[str], None],
) -> Section | str:
    """One section, or the words of a refusal in its place."""
    start = time.monotonic()
    result: Section | str
    try:
        result = audit_section(name, subject.density, examples, effort, seed, earlier)
    except (NoBound, ConfigError, ModelError, DataError) as refusal:
        result = str(refusal)
    said = f"no figures: {result}" if isinstance(result, str) else duration(time.monotonic() - start)
    say(f"{subject.name}: {name}, {said}")
    return result


def _key(subject: Subject, name: str, effort: Effort, seed: int, data: str, amortized: bool) -> str:
    """What a section's figures depend on, as a hash; those of log p(x) on whether the best q were at hand."""
    used = {key: value for key, value in asdict(effort).items() if key in USES[name]}
    pool = "" if subject.pool is None or name != "pool" else hashlib.sha256(subject.pool.tobytes()).hexdigest()
    facts = [VERSION, subject.identity, name, used, seed, data, pool, amortized and name == "likelihood"]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _kept(path: Path, key: str) -> Section | str | None:
    """A finished cell with this key; None where there is none, or another one."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if record["key"] != key:
            return None
        if record["refused"] is not None:
            return str(record["refused"])
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
            arrays = {name.replace("|", "/"): file[name] for name in file.files}
        figures = {name: Measured(**value) for name, value in record["figures"].items()}
        return Section(figures, arrays, list(record["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent, or cut short: it is measured again


def _write(path: Path, key: str, result: Section | str) -> None:
    """Keep a cell; its JSON comes last, since it says that the cell is whole."""
    refused = result if isinstance(result, str) else None
    section = Section() if isinstance(result, str) else result
    partial = path.with_suffix(".npz.partial")
    with partial.open("wb") as file:
        np.savez(file, **{name.replace("/", "|"): values for name, values in section.arrays.items()})  # type: ignore[arg-type]
    partial.replace(path.with_suffix(".npz"))
    figures = {name: asdict(value) for name, value in section.figures.items()}
    write_json(path.with_suffix(".json"), {"key": key, "refused": refused, "figures": figures, "notes": section.notes})


def combined(measured: dict[str, Section | str], notes: Sequence[str] = ()) -> Audited:
    """All sections of one model, with the splits of Cremer et al. and Zhang et al. where their parts are there."""
    figures: dict[str, Measured] = {}
    arrays: dict[str, np.ndarray] = {}
    remarks, refused = list(notes), {}
    for name, section in measured.items():
        if isinstance(section, str):
            refused[name] = section
            continue
        figures |= section.figures
        arrays |= {f"{name}/{key}": values for key, values in section.arrays.items()}
        remarks += [f"{name}: {note}" for note in section.notes]
    for split in ("train", "test"):
        parts = [arrays.get(f"amortization/{split}_{key}") for key in ("before", "best")]
        log_p = arrays.get(f"likelihood/{split}_log_p")
        if log_p is None or parts[0] is None or parts[1] is None:
            continue
        n = len(log_p)  # of a diffusion prior fewer: the first of the same examples
        split_of = cremer(log_p, parts[0][:n], parts[1][:n])
        figures[f"inference_gap_{split}"] = split_of.inference
        figures[f"approximation_gap_{split}"] = split_of.approximation
        if split_of.approximation.value is not None and split_of.approximation.value < 0:
            remarks.append(
                f"likelihood: the estimate of log p(x) on {split} examples lies below the best ELBO, so it is too low to split "
                "the inference gap: take more weights (--thorough)."
            )
    names = ("train_before", "train_best", "test_before", "test_best")
    found = [arrays.get(f"amortization/{name}") for name in names]
    if all(values is not None for values in found):
        sides = zhang(*found)
        figures["generative_gap"], figures["encoder_gap"] = sides.generative, sides.inference
    return Audited(figures, arrays, remarks, refused)


def differences(found: dict[str, Audited], seed: int = 0) -> dict[str, dict[str, Interval]]:
    """Model -> gap -> by how much it is larger than the first model's, with a paired bootstrap interval over examples."""
    first = next(iter(found))
    out: dict[str, dict[str, Interval]] = {}
    for name, audited in found.items():
        if name == first:
            continue
        out[name] = dict(_differences(audited.arrays, found[first].arrays, seed))
    return out


def _differences(
    mine: dict[str, np.ndarray], theirs: dict[str, np.ndarray], seed: int
) -> Iterator[tuple[str, Interval]]:
    bounds = ("bounds/test_bound", "bounds/train_bound")
    if all(key in mine and key in theirs for key in bounds):
        test, train = bounds
        yield "bound_nats/test", paired_bootstrap(mine[test], theirs[test], seed=seed)
        if len(mine[train]) == len(theirs[train]):
            minus = (mine[train], theirs[train])
            yield "generalization_gap", paired_bootstrap(mine[test], theirs[test], minus=minus, seed=seed)
    parts = ("amortization/test_before", "amortization/test_best")
    if all(key in mine and key in theirs for key in parts):
        a, b = (arrays[parts[0]] - arrays[parts[1]] for arrays in (mine, theirs))
        yield "amortization_gap_test", paired_bootstrap(a, b, seed=seed)
    for key in [k for k in mine if k.startswith("robustness/gaps")]:
        if key in theirs and len(mine[key]) == len(theirs[key]):
            name = key.replace("robustness/gaps", "robustness_gap")
            yield name, paired_bootstrap(mine[key], theirs[key], seed=seed)


# What is audited on what ---------------------------------------------------------------------------------------------


def subjects_of(models: Sequence[Any], data: str | Path | None, device: str = "auto") -> list[Subject]:
    """The models to be audited, each with its real data.

    Args:
        models: runs' folders or loaded models; diffusers folders; `module:function`.
        data: of all of them; None: what each run was trained on, and foreign models take the first run's.
        device: where to compute.

    Raises:
        DiledError: a model cannot be loaded, or the data of a foreign one are not known.
    """
    ours = [is_ours(model) for model in models]
    opened: dict[str, Data] = {}
    found: dict[int, Subject] = {}
    for i in sorted(range(len(models)), key=lambda i: not ours[i]):  # runs first: they know their data
        if ours[i]:
            found[i] = _subject(models[i], data, device, opened)
        else:
            first = next(iter(found.values()), None)
            place = first.data if first is not None else _named(models[i], data)
            found[i] = _foreign(str(models[i]), place, device)
    names = [found[i].name for i in range(len(models))]
    return [
        Subject(**{**vars(found[i]), "name": name if names.count(name) == 1 else f"{name} ({models[i]})"})
        for i, name in enumerate(names)
    ]


def is_ours(model: Any) -> bool:
    """Whether this is a run of ours; a diffusers folder has a config.json as well, of another form."""
    if isinstance(model, Model):
        return True
    folder = Path(model)
    if not is_run(model) or (folder / "model_index.json").exists():
        return False
    try:
        return "_class_name" not in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True  # the loader says what is wrong with it


def _subject(run: Any, data: str | Path | None, device: str, opened: dict[str, Data]) -> Subject:
    model = model_of(run, device)
    config = read_run(run) if isinstance(run, (str, Path)) and (Path(run) / "run.json").exists() else None
    key = f"{data} {None if config is None else (config.data, config.preprocess)}"
    if key not in opened:
        opened[key] = data_of(run, data, model)
    title = model.config.row.title if model.config is not None else type(model.density).__name__
    if isinstance(run, (str, Path)):
        title = f"{Path(run).name}"
    pool = None
    if config is not None and config.pool.source is not None:
        values = open_pool(config.pool.source, model.spec).values
        count = None if config.pool.folds is None else config.pool.folds * len(opened[key].train)
        pool = _some(values[:count], POOL)
    return Subject(title, model.density, identity_of(model.density), opened[key], pool)


def _named(source: Any, data: str | Path | None) -> Data:
    from diled.data import open_data

    if data is None:
        raise ConfigError(
            f"Say on which data {source} is to be audited (--data): it does not know what it was trained on."
        )
    return open_data(data)


def _foreign(source: str, data: Data, device: str) -> Subject:
    foreign = load_foreign(source, data.spec, str(choose_device(device)))
    with seeded(0, 9):
        train = to_space(raw_tensor(_some(data.train.values, 2000)), data.spec)
    fitted = foreign.fit(train.to(choose_device(device)))
    notes = tuple(f"{fitted.name}: {note}" for note in fitted.notes)
    return Subject(fitted.name, fitted.density.eval(), f"{fitted.identity} {fitted.std}", data, None, notes)


def examples_of(subject: Subject, seed: int, most: int = 10_000) -> Examples:
    """Real examples in model space, in a fixed random order; binarised ones are drawn once, with the seed."""
    spec, data = subject.data.spec, subject.data
    train, test = (_shuffled(split, most) for split in (data.train, data.test))
    raw = {name: raw_tensor(split.values) for name, split in (("train", train), ("test", test))}
    grey = spec.model_copy(update={"binarize": "none"})
    with seeded(seed, 8):
        pool = None if subject.pool is None else to_space(raw_tensor(subject.pool), spec)
    with seeded(seed, 6):
        spaces = {name: to_space(values, spec) for name, values in raw.items()}
    labels = next((c for c, v in data.train.labels.items() if v.dtype.kind == "i" and len(np.unique(v)) > 1), None)
    return Examples(
        train=spaces["train"],
        test=spaces["test"],
        grey=to_space(raw["test"], grey),
        train_labels=None if labels is None else train.labels[labels],
        test_labels=None if labels is None else test.labels[labels],
        data=data,
        pool=pool,
    )


def identity_of(density: torch.nn.Module) -> str:
    """SHA-256 of a model's weights and buffers, with their names."""
    digest = hashlib.sha256()
    for name, value in sorted(density.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _shuffled(split: Split, most: int) -> Split:
    """Folders come class by class."""
    return split.subset(np.random.default_rng(0).permutation(len(split))[:most])


def _some(values: np.ndarray, most: int) -> np.ndarray:
    return values if len(values) <= most else values[np.sort(np.random.default_rng(0).permutation(len(values))[:most])]


def _fingerprint(split: Split) -> str:
    """What the examples are, in any order of files."""
    return hashlib.sha256(np.ascontiguousarray(split.values).tobytes()).hexdigest()


def refusals(found: dict[str, Audited]) -> list[str]:
    """What could not be measured, and why, in sentences."""
    return [f"{name} has no {section}: {why}" for name, one in found.items() for section, why in one.refused.items()]


def report_audit(
    found: dict[str, Audited], subjects: Sequence[Subject], folder: Path, *, seed: int = 0
) -> dict[str, dict[str, Measured]]:
    """Print the table, write audit.json and audit.html, and return the figures."""
    figures = {name: one.figures for name, one in found.items()}
    between = differences(found, seed)
    record = {
        name: {
            "figures": {metric: asdict(m) for metric, m in one.figures.items()},
            "larger_than_first": {gap: asdict(interval) for gap, interval in between.get(name, {}).items()},
            "notes": one.notes,
            "refused": one.refused,
        }
        for name, one in found.items()
    }
    write_json(folder / "audit.json", record)
    data = subjects[0].data
    path = write_audit(
        folder / "audit.html",
        title=f"Audit of {len(found)} model{'s' * (len(found) > 1)} on {data.name}",
        summary=verdict(found, between),
        spec=data.spec,
        figures=figures,
        arrays={name: one.arrays for name, one in found.items()},
        differences={
            name: {gap: f"{i.difference.value:+.3g} ({i.low:+.3g} to {i.high:+.3g})" for gap, i in row.items()}
            for name, row in between.items()
        },
        refused=refusals(found),
        notes={name: one.notes for name, one in found.items()},
        provenance={key: str(value) for key, value in provenance(seed=seed, data=data.name).items()},
    )
    table, better = audit_table(figures)
    if better:
        print(table_text(table, better))
    for sentence in refusals(found):
        print(sentence)
    print(f"Audit: {path}")
    return figures


def verdict(found: dict[str, Audited], between: dict[str, dict[str, Interval]]) -> list[str]:
    """Sentences for the head of the page: what was found of one model, or who generalizes best."""
    first = next(iter(found))
    gaps = {n: one.figures["generalization_gap"] for n, one in found.items() if "generalization_gap" in one.figures}
    if not gaps:
        return ["No model here has a bound, so none has a generalization gap; the rest is below."]
    if len(found) == 1:
        gap, amortized = gaps.get(first), found[first].figures.get("amortization_gap_test")
        said = [f"On test examples the bound is {_nats(gap)} above that on training examples."]
        if amortized is not None:
            said.append(f"The encoder loses {_nats(amortized)} against the best Gaussian code of each test example.")
        return said
    best = min(gaps, key=lambda name: gaps[name].value or 0.0)
    said = [f"{best} has the smallest generalization gap, {_nats(gaps[best])}."]
    for name, row in between.items():
        interval = row.get("generalization_gap")
        if interval is not None and interval.low <= 0 <= interval.high:
            said.append(f"That of {name} does not differ from that of {first} beyond chance.")
    return said


def _nats(m: Measured | None) -> str:
    if m is None or m.value is None:
        return "an unknown number of nats"
    return f"{m.value:.2f}" + (f" ± {m.stderr:.2f}" if m.stderr is not None else "") + " nats"
