"""All figures of one model on one data set, the same for every model.

bound_nats, rate_nats, distortion_nats        the bound belongs to the ancestral chain, whichever sampler drew the pictures
frechet_samples, frechet_reconstructions      decoder means, in the features of a named network (diffusion decoders: draws)
.../draws                                     draws from p(x | z) in place of means
frechet_midpoints/0.2, frechet_midpoints/0.4  decoded points between the codes of random pairs of test examples
kid_samples, precision, recall                of the same samples, in the same features
frechet_floor, kid_floor, precision_floor ... real data against real data; in the number of the samples, where there are as many
frechet_pixel_midpoints/0.4                   the ceiling of midpoints: mixtures of pixels
reconstruction_mse                            per dimension, on the scale [0, 1]
shuffled_distortion_nats                      reconstruction from another example's code: does the decoder listen?
probe_accuracy                                logistic regression on codes of training examples, scored on test examples
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diled.api import Density, NoBound, device_of, total
from diled.config import DataSpec
from diled.data.splits import Data, Split, some_rows
from diled.draws import BlockNoise, paired_pass, seeded
from diled.evaluation.feature_nets import FeatureNet, available, extract, feature_net, random_features
from diled.evaluation.images import frechet, kid, precision_recall
from diled.latent.interpolate import at
from diled.models.flow_posterior import FlowPosterior
from diled.models.sampling import BATCH, described, sample_batches, sampled_with
from diled.space import log_unit, raw_tensor, to_space

__all__ = [
    "Measured",
    "bounds",
    "distances",
    "features_for",
    "finite",
    "measure",
    "probe",
    "reconstruction",
    "samples_distance",
]


MOST = 10_000
"""Test examples that are measured unless one says otherwise."""
FEW = 2000
"""Test examples that are reconstructed where decoding takes a sampler's many steps."""
NEIGHBOURS = 2000
"""Examples of each set for precision and recall, whose cost grows with their square."""
FEWEST = 4
"""Examples of each set that make a kernel distance, of halves with two each, and precision and recall with 3 neighbours."""


@dataclass(frozen=True)
class Measured:
    """One number: its value (None where there is none), standard error, the examples behind it, and a remark."""

    value: float | None
    stderr: float | None = None
    n: int | None = None
    note: str = ""


def finite(value: float, n: int | None = None, note: str = "") -> Measured:
    """A number, or none where it is infinite, as the perplexity of a long text that a model does not expect."""
    if math.isfinite(value):
        return Measured(value, n=n, note=note)
    return Measured(None, n=n, note="; ".join(filter(None, (note, "too large to be written"))))


def measure(
    model: Density,
    data: Data,
    *,
    samples: int = 10_000,
    repeats: int = 8,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    limit: int = MOST,
    label: str | None = None,
) -> dict[str, Measured]:
    """Every figure that the model and the data admit, on the test split; of sequences those of `sequences.py` or `texts.py`.

    Args:
        model: any density; an autoencoder for reconstructions, midpoints and probes.
        data: with its training split (for the floor and the probe) and its test split.
        samples: how many are drawn.
        repeats: Monte-Carlo passes over the test split for the bound.
        steps, sampler: of a diffusion prior.
        seed: of binarisation, noise and pairs.
        limit: test examples at most, random ones where there are more.
        label: column for the probe; None: the first with classes.

    Raises:
        ConfigError: at once, where steps or a sampler do not go together with the model.
    """
    described(model, steps=steps, sampler=sampler)
    if data.spec.sequential:
        how: dict[str, Any] = {"samples": samples, "steps": steps, "sampler": sampler, "seed": seed, "limit": limit}
        if data.spec.kind == "text":
            from diled.evaluation.texts import text_evaluation

            return text_evaluation(model, data, repeats=repeats, **how)
        from diled.evaluation.sequences import sequence_figures

        bound = partial(bounds, model, spec=data.spec, repeats=repeats, seed=seed)
        return sequence_figures(model, data, bounds=bound, **how)
    test = data.test.at_most(limit, seed)
    found = bounds(model, test, data.spec, repeats=repeats, seed=seed)
    if model.has_codes:
        found |= reconstruction(model, test, data.spec, seed=seed)
        found |= probe(model, data.train, test, data.spec, label=label)
    found |= distances(model, data.train, test, data, samples=samples, steps=steps, sampler=sampler, seed=seed)
    return found


def bounds(model: Any, split: Split, spec: DataSpec, *, repeats: int = 8, seed: int = 0) -> dict[str, Measured]:
    """The bound with its rate and distortion, each with a standard error over examples, and the shuffled distortion."""
    try:
        return over_examples(bounds_of_examples(model, split, spec, repeats=repeats, seed=seed))
    except NoBound as refusal:
        return {"bound_nats": Measured(None, note=str(refusal))}


def over_examples(each: dict[str, Tensor]) -> dict[str, Measured]:
    """Means of figures (N,) of examples, with standard errors."""
    return {name: Measured(values.mean().item(), _stderr(values), len(values)) for name, values in each.items()}


@torch.no_grad()
def bounds_of_examples(
    model: Any, split: Split, spec: DataSpec, *, repeats: int = 8, seed: int = 0, paired: bool = False
) -> dict[str, Tensor]:
    """Figures of `bounds` for each example, (N,) nats in double precision.

    Binarised data are drawn once, with the seed, and then kept for all passes. `paired` passes are for comparing examples
    (`Density.paired_bound`), the others for their mean.

    Raises:
        NoBound: the model has none.
    """
    parts: dict[str, list[Tensor]] = {}
    repeats = 1 if getattr(model, "certain", False) else repeats
    with seeded(seed, 1):
        for x in _batches(split, spec, device_of(model)):
            with _encoded_once(model, x):
                terms: dict[str, Tensor] = {}
                for i in range(repeats):
                    with paired_pass(i, repeats, seed, 1) if paired else nullcontext():
                        once = model.terms(x, exact=True)
                    for name, term in once.items():
                        terms[name] = terms.get(name, torch.zeros_like(term)) + term / repeats
                found = {"bound_nats": total(terms)}
                rate = {name: term for name, term in terms.items() if name.startswith("rate")}
                if rate:
                    found |= {"rate_nats": total(rate), "distortion_nats": terms["distortion"]}
                if hasattr(model, "encoder") and len(x) > 1:
                    found["shuffled_distortion_nats"] = model.decoder(model.encoder(x).sample().roll(1, 0)).nll(x)
            for name, values in found.items():
                parts.setdefault(name, []).append(values)
    unit = log_unit(spec)
    return {
        name: torch.cat(some).cpu().double() + (0.0 if name == "rate_nats" else unit) for name, some in parts.items()
    }


@contextmanager
def _encoded_once(model: Any, x: Tensor) -> Iterator[None]:
    """Within the block the model's encoder, where it has one, gives for this very x what it gave at first, and new draws."""
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, nn.Module):
        yield
        return
    kept, forward = encoder(x), encoder.forward
    anew = kept.anew if isinstance(kept, FlowPosterior) else lambda: kept
    encoder.forward = lambda q: anew() if q is x else forward(q)
    try:
        yield
    finally:
        del encoder.forward


@torch.no_grad()
def reconstruction(model: Any, split: Split, spec: DataSpec, *, seed: int = 0) -> dict[str, Measured]:
    """Mean squared error of decoded mean codes against the grey images, per dimension, on the scale [0, 1]."""
    grey, errors = _grey(spec), []
    split = split.at_most(FEW) if model.implicit else split
    with seeded(seed, 2):
        for raw in _raw_batches(split):
            x = to_space(raw.to(device_of(model)), spec)
            target = to_space(raw.to(device_of(model)), grey)
            errors.append(((model.reconstruct(x) - target) ** 2).flatten(1).mean(1) / 4)
    values = torch.cat(errors).cpu().double()
    return {"reconstruction_mse": Measured(values.mean().item(), _stderr(values), len(values))}


@torch.no_grad()
def probe(
    model: Any, train: Split, test: Split, spec: DataSpec, *, label: str | None = None, limit: int = 10_000
) -> dict[str, Measured]:
    """Accuracy on test codes of a logistic regression fitted to (up to `limit`) training codes; without missing labels (-1)."""
    names = [
        n for n, values in train.labels.items() if values.dtype.kind == "i" and len(np.unique(values[values >= 0])) > 1
    ]
    label = label or (names[0] if names else None)
    if label is None or label not in train.labels:
        return {}
    train, test = labelled(train, label), labelled(test, label)
    if len(np.unique(train.labels[label])) < 2 or not len(test):
        return {}
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if model.implicit and not hasattr(model, "encoder"):
        return {}  # x_T takes many steps, and tells no classes apart
    train = train.subset(np.random.default_rng(0).permutation(len(train))[:limit])
    codes = {}
    for name, split in (("train", train), ("test", test)):
        with seeded(0, 3):
            parts = [model.encode(x).flatten(1).cpu() for x in _batches(split, spec, device_of(model))]
        codes[name] = torch.cat(parts).numpy()
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier.fit(codes["train"], train.labels[label])
    right = classifier.predict(codes["test"]) == test.labels[label]
    error = _stderr(torch.tensor(right).double())
    return {"probe_accuracy": Measured(float(right.mean()), error, len(right), f"of '{label}'")}


def labelled(split: Split, column: str) -> Split:
    """The examples of a split whose class is known; -1 stands where it is missing."""
    labels = split.labels[column]
    known = (labels >= 0) | (labels.dtype.kind != "i")
    return split if known.all() else split.subset(known)


def features_for(data: Data) -> FeatureNet | None:
    """The packaged feature network of a known data set, random convolutions for other images, none for the rest."""
    if data.name in available() and feature_net(data.name).architecture.shape == data.spec.shape:
        return feature_net(data.name)
    return random_features(data.spec.shape) if data.spec.kind == "image" else None


@torch.no_grad()
def distances(
    model: Any,
    train: Split,
    test: Split,
    data: Data,
    *,
    samples: int = 10_000,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
) -> dict[str, Measured]:
    """Frechet distances of samples, reconstructions and midpoints, with their floor and the midpoints' ceiling.

    The reference for samples is the test split, or the training split where the test split has fewer than 2,000
    examples (a covariance of 64 features needs many). The floor is the other split, in the same number as the samples,
    or whole where it has fewer: then it is too high, by the bias of so few, and its remark says of how many it is.
    A figure for which there are too few examples is None.
    """
    net = features_for(data)
    if net is None:
        return {}
    spec, device = data.spec, device_of(model)
    net = net.to(device)
    real = {"test": _features(net, test, spec, device), "train": _features(net, train, spec, device, samples)}
    reference, other = _reference_first(test)
    drawn = torch.cat(list(sample_batches(model, samples, steps=steps, sampler=sampler, seed=seed)))
    how = described(model, steps=steps, sampler=sampler)
    note = f"{net.name}; samples against {reference}" + (f"; {how}" if how else "")
    found = _against(real[reference], extract(net, drawn), "samples", note)
    fewer = len(real[other]) < len(drawn)
    few = f"; of only {len(real[other]):,} real examples beside {len(drawn):,} samples" if fewer else ""
    found |= _against(real[reference], real[other], "floor", note + few)
    if not model.implicit:
        drawn = torch.cat(list(sample_batches(model, samples, steps=steps, sampler=sampler, seed=seed, mean=False)))
        found["frechet_samples/draws"] = _frechet(real[reference], extract(net, drawn), f"{note}; draws from p(x | z)")
    if not model.has_codes:
        return found
    with sampled_with(model, steps=steps, sampler=sampler):
        return found | _decoded(model, test, real["test"], net, spec, seed)


@torch.no_grad()
def samples_distance(
    model: Any, data: Data, *, samples: int = 10_000, steps: int, sampler: str, seed: int = 0
) -> Measured:
    """The `frechet_samples` of `distances`, by another sampler than the model's own."""
    net = features_for(data)
    if net is None:
        return Measured(None, note=f"no features are known for data of kind {data.spec.kind}")
    device = device_of(model)
    net = net.to(device)
    reference, _ = _reference_first(data.test)
    split, most = (data.test, None) if reference == "test" else (data.train, samples)
    drawn = torch.cat(list(sample_batches(model, samples, steps=steps, sampler=sampler, seed=seed)))
    how = described(model, steps=steps, sampler=sampler)
    real = _features(net, split, data.spec, device, most)
    return _frechet(real, extract(net, drawn), f"{net.name}; samples against {reference}; {how}")


def _reference_first(test: Split) -> tuple[str, str]:
    """The split that samples are compared with, and the other one."""
    return ("test", "train") if len(test) >= 2000 else ("train", "test")


def _decoded(
    model: Any, test: Split, real: np.ndarray, net: FeatureNet, spec: DataSpec, seed: int
) -> dict[str, Measured]:
    """Reconstructions and midpoints of test examples, against the test examples themselves."""
    device = device_of(model)
    if model.implicit and len(test) > FEW:
        test, real = test.at_most(FEW), real[some_rows(len(test), FEW)]
    note, found = f"{net.name}; against test", {}
    with seeded(seed, 4):
        order = torch.randperm(len(test))
        codes = torch.cat([model.encode(x).flatten(1) for x in _batches(test, spec, device)]).cpu()

    def distance(z: Tensor, draw: bool = False) -> Measured:
        pictures = []
        for start in range(0, len(z), BATCH):
            noise = BlockNoise(seed, start, device=device) if draw or model.implicit else None
            pictures.append(model.decode(z[start : start + BATCH].to(device), noise=noise, draw=draw).cpu())
        return _frechet(real, extract(net, torch.cat(pictures)), note)

    found["frechet_reconstructions"] = distance(codes)
    if not model.implicit:
        found["frechet_reconstructions/draws"] = distance(codes, draw=True)
    for share in (0.2, 0.4):
        mixed = at(codes.numpy(), codes[order].numpy(), share, model.path)
        found[f"frechet_midpoints/{share}"] = distance(torch.from_numpy(mixed))
    grey = torch.cat(list(_batches(test, _grey(spec), torch.device("cpu"))))
    pixels = torch.lerp(grey, grey[order], 0.4)
    found["frechet_pixel_midpoints/0.4"] = _frechet(real, extract(net, pixels), note)
    return found


def _against(real: np.ndarray, fake: np.ndarray, name: str, note: str) -> dict[str, Measured]:
    """Frechet and kernel distance, precision and recall of features against real ones."""
    suffix = "" if name == "samples" else f"_{name}"
    distance = {f"frechet_{name}": _frechet(real, fake, note)}
    n = min(len(real), len(fake), NEIGHBOURS)
    if n < FEWEST:
        none = Measured(None, n=n, note=_too_few(n, FEWEST))
        return distance | {f"kid_{name}": none, f"precision{suffix}": none, f"recall{suffix}": none}
    kernel = kid(real, fake, subset_size=min(1000, n // 2))
    # The first samples are as good as any; real examples are in the order of a file.
    some = fake[:n] if name == "samples" else fake[some_rows(len(fake), n)]
    near = precision_recall(real[some_rows(len(real), n)], some)
    return distance | {
        f"kid_{name}": Measured(kernel.value, kernel.stderr, len(fake), note),
        f"precision{suffix}": Measured(near.precision, n=n, note=f"{note}; 3 neighbours"),
        f"recall{suffix}": Measured(near.recall, n=n, note=f"{note}; 3 neighbours"),
    }


def _frechet(real: np.ndarray, fake: np.ndarray, note: str) -> Measured:
    """The Frechet distance of features, which needs two of each for their covariances."""
    n = min(len(real), len(fake))
    if n < 2:
        return Measured(None, n=n, note=_too_few(n, 2))
    return Measured(frechet(fake, real), n=len(fake), note=note)


def _too_few(n: int, least: int) -> str:
    return f"too few examples: {n}, where {least} are needed"


def _features(
    net: FeatureNet, split: Split, spec: DataSpec, device: torch.device, most: int | None = None
) -> np.ndarray:
    if most is not None and len(split) > most:
        split = split.subset(np.random.default_rng(0).permutation(len(split))[:most])
    return np.concatenate([extract(net, x.to(device)) for x in _batches(split, _grey(spec), device)])


def _grey(spec: DataSpec) -> DataSpec:
    """The same data without binarisation: what pictures are compared with."""
    return spec.model_copy(update={"binarize": "none"})


def _raw_batches(split: Split) -> list[Tensor]:
    return list(raw_tensor(split.values).split(BATCH))


def _batches(split: Split, spec: DataSpec, device: torch.device) -> Any:
    return (to_space(raw.to(device), spec) for raw in _raw_batches(split))


def _stderr(values: Tensor) -> float | None:
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
