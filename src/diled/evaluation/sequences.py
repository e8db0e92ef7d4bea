"""Figures of models of sequences, the same for every model.

bound_nats, rate_nats, distortion_nats    as for every model; nats_per_residue = sum of bounds / sum of lengths
residue_accuracy, sequence_accuracy       of decoded mean codes: positions before the end, and whole sequences
mse/Y, mae/Y, pearson/Y, spearman/Y       of a property Y predicted by the model's head; .../probe: ridge regression on
                                          codes, of token diffusion on hidden states
zero_shot_spearman/Y                      of minus the bound with Y: no value of Y was used, unless a head learned Y, which
                                          its note says
accuracy/Y                                of classes Y, by the model's head; .../probe: by logistic regression on codes
frechet_samples, frechet_floor            in the features of a network that was trained apart, on the test split
position_error, coupling_error            symbol frequencies of each position (mean L1 distance), and covariances of pairs of
                                          positions (1 - their correlation), of samples against held-out sequences
valid, unique, novel, diversity,          of samples: proper sequences, distinct ones, ones that are not in the training
nearest_training                          split, mean distance of two, and mean distance to the nearest training sequence
.../floor                                 the same of real sequences in equal number, or all training ones where these are fewer

Held-out sequences are those of the test split, or of validation where the test split has another distribution (`drawn_alike`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diled.api import Density, NoBound, device_of
from diled.config import DataSpec
from diled.data.splits import Data, Split, seen
from diled.draws import seeded
from diled.errors import DataError
from diled.evaluation.codes import averaged
from diled.evaluation.images import frechet
from diled.evaluation.measure import Measured
from diled.evaluation.sequence_distances import lengths_of, nearest_rows, pairwise_mean
from diled.latent.predict import Ensemble
from diled.models.properties import head_of
from diled.models.sampling import BATCH, described, sample_batches
from diled.nn.sequence import one_hot
from diled.space import raw_tensor, to_space

__all__ = [
    "FEWEST",
    "Oracle",
    "batches",
    "classes_of",
    "classification",
    "codes_of",
    "coupling_error",
    "drawn_alike",
    "fit_oracle",
    "frequencies",
    "generation",
    "position_error",
    "prediction_errors",
    "properties_of",
    "reconstruction_accuracy",
    "regression",
    "residues_of",
    "ridge_predictions",
    "sequence_figures",
    "shift",
    "spearman",
    "unseen_values",
]

SOME = 500
"""Sequences that are compared with the training split one by one."""
SHIFTED = 0.003
"""From which shift on a test split has another distribution than training."""
FEWEST = 200
"""Test sequences that make an oracle."""
RESAMPLES = 1000
"""Of the bootstrap for correlations."""
SCORED = 10
"""Values of a property or class that say how well it is read, and that a probe learns from, at least."""
LEARNT = 10_000
"""Training sequences that a probe of classes learns from, at most."""


def properties_of(spec: DataSpec) -> list[str]:
    """Label columns that hold real numbers."""
    return [name for name, classes in spec.labels.items() if not classes]


def classes_of(spec: DataSpec) -> list[str]:
    """Label columns that hold classes."""
    return [name for name, classes in spec.labels.items() if classes]


def residues_of(spec: DataSpec) -> list[int]:
    """The symbols that are amino acids."""
    return [i for i, symbol in enumerate(spec.symbols) if symbol.isalpha() and symbol != "X"]


class Oracle:
    """A predictor of a property from sequences, trained on others than a model's training sequences.

    Args:
        ensemble: on one-hot rows (B, L V).
        symbols: V.
        accuracy: `spearman` on sequences that neither the oracle nor the model was trained on, and `n`.
    """

    def __init__(self, ensemble: Ensemble, symbols: int, accuracy: dict[str, float]) -> None:
        self.ensemble, self.symbols, self.accuracy = ensemble, symbols, accuracy

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Predictions (n,) of rows (n, L)."""
        return np.concatenate([self.ensemble.predict(part)[0].numpy() for part in self._rows(values)])

    def features(self, values: np.ndarray) -> np.ndarray:
        """What the first member's last layer reads, (n, width)."""
        return np.concatenate([self.ensemble.hidden(part)[0].numpy() for part in self._rows(values)])

    def _rows(self, values: np.ndarray) -> list[Tensor]:
        rows = torch.from_numpy(values.astype(np.int64)).split(4096)
        return [one_hot(part, self.symbols).flatten(1) for part in rows]


def fit_oracle(data: Data, column: str, *, seed: int = 0, members: int = 8, width: int = 128) -> Oracle:
    """An oracle of a property from the test split: four fifths to learn, a tenth to choose weights, a tenth to be scored on.

    Each sequence counts once, and those of the training split are left out, so that what a model was trained on, what judges
    it and what the judge is scored on are disjoint.

    Raises:
        DataError: too few values to learn from.
    """
    split = unseen_values(data, column)
    order, n = np.random.default_rng(seed).permutation(len(split)), len(split)
    parts = [split.subset(rows) for rows in np.split(order, [8 * n // 10, 9 * n // 10])]
    symbols = len(data.spec.symbols)
    x, chosen, scored = (one_hot(torch.from_numpy(p.values.astype(np.int64)), symbols).flatten(1) for p in parts)
    y, held = (torch.from_numpy(p.labels[column]).float() for p in parts[:2])
    with seeded(seed, 41):
        ensemble = Ensemble(x.shape[1], members=members, width=width)
    ensemble.fit(x, y, (chosen, held), seed=seed)
    rank = spearman(ensemble.predict(scored)[0].numpy(), parts[2].labels[column])
    return Oracle(ensemble, symbols, {"spearman": rank, "n": len(parts[2])})


def unseen_values(data: Data, column: str) -> Split:
    """Test sequences with a value of the property that are not in the training split, each once."""
    fresh = ~seen(data.test.values, data.train.values)
    split = data.test.subset(fresh & np.isfinite(data.test.labels[column]))
    return split.subset(np.sort(np.unique(split.values, axis=0, return_index=True)[1]))


def sequence_figures(
    model: Density,
    data: Data,
    *,
    samples: int = 10_000,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    limit: int = 10_000,
    bounds: Callable[[Split], dict[str, Measured]],
) -> dict[str, Measured]:
    """Every figure that the model and the data admit, on the test split.

    Args:
        model: any density of sequences.
        data: with its training and test split.
        samples: how many are drawn.
        steps, sampler: of a diffusion inside.
        seed: of noise and oracle.
        limit: test examples at most, random ones where there are more.
        bounds: of a split, the figures of the bound.
    """
    test = data.test.at_most(limit, seed)
    found = bounds(test)
    if found.get("bound_nats", Measured(None)).value is not None:
        mean = float(lengths_of(test.values).mean())
        found["nats_per_residue"] = Measured((found["bound_nats"].value or 0.0) / mean, n=len(test))
    found |= reconstruction(model, test, data.spec, seed=seed)
    for column in properties_of(data.spec):
        found |= regression(model, data, test, column, seed=seed)
    for column in classes_of(data.spec):
        found |= classification(model, data, test, column, seed=seed)
    drawn = torch.cat(list(sample_batches(model, samples, steps=steps, sampler=sampler, seed=seed, mean=False)))
    how = described(model, steps=steps, sampler=sampler)
    alike, why = drawn_alike(data)
    note = "; ".join(said for said in (how, why) if said)
    return found | generation(drawn.numpy().astype(data.train.values.dtype), alike, seed=seed, note=note, judged=data)


def drawn_alike(data: Data) -> tuple[Data, str]:
    """The data with a test split that is drawn as training is, and a remark where that is not the given one.

    A model is to draw what it was trained on. So where the test split has been chosen otherwise (by value, by mutations, by
    family), samples are compared with the validation split in its place: where the `shift` of test is more than `SHIFTED`
    and than chance has it, and validation is nearer to training.
    """
    symbols, train = len(data.spec.symbols), data.train.values
    (test, chance), (validation, _) = (shift(train, s.values, symbols) for s in (data.test, data.validation))
    if test <= max(SHIFTED, 4 * chance, validation):
        return data, ""
    why = f"against validation, as the test split has other symbols than training (shift {test:.3f}, not {validation:.3f})"
    return replace(data, test=data.validation), why


def shift(a: np.ndarray, b: np.ndarray, symbols: int) -> tuple[float, float]:
    """The fixation index of rows a (N, L) and b (M, L): 0 on average where both are drawn alike, 1 where they share no symbol,

        1/2 sum_i sum_c [ (f_i(c) - g_i(c))^2 - variances of f_i(c) and g_i(c) ] / sum_i [ 1 - sum_c f_i(c) g_i(c) ]

    with frequencies f of a and g of b, and unbiased estimates of their variances (Hudson et al. 1992; Bhatia et al. 2013).
    Second, its standard deviation where both are drawn alike, of many rows and positions by themselves.
    """
    f, g = frequencies(a, symbols), frequencies(b, symbols)
    noise = (1 - (f**2).sum(1)) / max(len(a) - 1, 1) + (1 - (g**2).sum(1)) / max(len(b) - 1, 1)
    between = float((1 - (f * g).sum(1)).sum())
    if between < 1e-9:
        return 0.0, 0.0
    p = (len(a) * f + len(b) * g) / (len(a) + len(b))  # f - g is normal with covariance (1/N + 1/M) (diag p - p p^T)
    squares = (p**2).sum(1) - 2 * (p**3).sum(1) + (p**2).sum(1) ** 2
    chance = (1 / len(a) + 1 / len(b)) * np.sqrt(2 * squares.sum())
    return 0.5 * float((((f - g) ** 2).sum(1) - noise).sum()) / between, 0.5 * float(chance) / between


@torch.no_grad()
def reconstruction(model: Any, split: Split, spec: DataSpec, *, seed: int = 0) -> dict[str, Measured]:
    """Accuracy of decoded mean codes, for each residue and for whole sequences."""
    if not model.has_codes:
        return {}
    with seeded(seed, 2):
        pairs = [(x.cpu(), model.reconstruct(x).cpu()) for x in batches(split, spec, model)]
    return reconstruction_accuracy(*(torch.cat(part) for part in zip(*pairs, strict=True)))


def reconstruction_accuracy(x: Tensor, shown: Tensor) -> dict[str, Measured]:
    """Shares of equal residues of each row (N, L), and of rows that are shown without a fault."""
    same, kept = shown == x, x != 0
    return {
        "residue_accuracy": averaged((same & kept).sum(1) / kept.sum(1).clamp(min=1)),
        "sequence_accuracy": averaged(same.all(1)),
    }


def regression(model: Any, data: Data, test: Split, column: str, *, seed: int = 0) -> dict[str, Measured]:
    """How well a property is read from codes, or hidden states, and how well the bound ranks it without having seen it."""
    y = test.labels[column]
    known, learnt = np.isfinite(y), np.isfinite(data.train.labels[column]).sum()
    if known.sum() < SCORED:
        few = f"only {known.sum()} test sequences have a value, and {SCORED} are needed"
        return {f"zero_shot_spearman/{column}": Measured(None, n=int(known.sum()), note=few)}
    split, y = test.subset(known), y[known].astype(np.float64)
    found: dict[str, Measured] = {}
    head = head_of(model)
    headed = head is not None and column in head.columns
    if model.has_codes or hasattr(model, "features"):
        of_test = codes_of(model, split, data.spec)
        if head is not None and headed:
            with torch.no_grad():
                said = head.predict(of_test.to(device_of(model)), column).cpu().numpy()
            found |= {f"{name}/{column}": m for name, m in prediction_errors(said, y, seed, "the model's head").items()}
        probe = f"ridge regression on {'codes' if model.has_codes else 'hidden states'}"
        if learnt < SCORED:
            few = f"no {probe}: only {learnt} training sequences have a value, and {SCORED} are needed"
            found[f"spearman/{column}/probe"] = Measured(None, note=few)
        else:
            of_train = codes_of(model, data.train, data.spec)
            said = ridge_predictions(of_train.numpy(), data.train.labels[column], of_test.numpy())
            found |= {f"{name}/{column}/probe": m for name, m in prediction_errors(said, y, seed, probe).items()}
    try:
        with torch.no_grad():
            each = [model.paired_bound(x, seed=(seed, 3)).cpu() for x in batches(split, data.spec, model)]
        score = -torch.cat(each).double().numpy()
    except NoBound:
        if not hasattr(model, "energy"):
            return found
        with torch.no_grad():
            score = -torch.cat([model.energy(x).cpu() for x in batches(split, data.spec, model)]).double().numpy()
    note = "minus the bound, or the energy" + (f"; the model's head learned '{column}'" if headed else "")
    found[f"zero_shot_spearman/{column}"] = prediction_errors(score, y, seed, note)["spearman"]
    return found


def classification(model: Any, data: Data, test: Split, column: str, *, seed: int = 0) -> dict[str, Measured]:
    """How often a class is read from codes, or hidden states: by the model's head, and by logistic regression.

    The regression learns from at most `LEARNT` training sequences. Of classes that training has not there is nothing to read.
    """
    if not (model.has_codes or hasattr(model, "features")):
        return {}
    train, y = data.train.labels[column], test.labels[column]
    known = np.isin(y, np.unique(train[train >= 0]))
    if known.sum() < SCORED or len(np.unique(train[train >= 0])) < 2:
        return {}
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    codes, found = codes_of(model, test.subset(known), data.spec), dict[str, Measured]()
    head = head_of(model)
    if head is not None and column in head.columns:
        with torch.no_grad():
            said = head.predict(codes.to(device_of(model)), column).argmax(1).cpu().numpy()
        found[f"accuracy/{column}"] = averaged(torch.from_numpy(said == y[known]).double(), "the model's head")
    rows = np.flatnonzero(train >= 0)
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:LEARNT])
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe.fit(codes_of(model, data.train.subset(rows), data.spec).numpy(), train[rows])
    note = f"logistic regression on {'codes' if model.has_codes else 'hidden states'}"
    right = probe.predict(codes.numpy()) == y[known]
    return found | {f"accuracy/{column}/probe": averaged(torch.from_numpy(right).double(), note)}


def generation(
    drawn: np.ndarray, data: Data, *, seed: int = 0, note: str = "", judged: Data | None = None
) -> dict[str, Measured]:
    """Figures of rows (n, L) that a model drew, beside those of real sequences in equal number.

    Where there are fewer training sequences than that, these are all of them, and their distances are too large.

    Args:
        drawn: the rows.
        data: whose test split they are compared with.
        seed: of draws, and of the network whose features distances are measured in.
        note: how they were drawn.
        judged: the data whose test split that network learns from; None: `data`.
    """
    order = np.random.default_rng(seed).permutation(len(data.test))
    held = data.test.values[order]
    half = min(len(drawn), len(data.train))
    real = data.train.values[np.random.default_rng(seed).permutation(len(data.train))[:half]]
    references = np.unique(data.train.values, axis=0)
    oracle = _some_oracle(data if judged is None else judged, seed)
    found: dict[str, Measured] = {}
    for suffix, rows in (("", drawn), ("/floor", real)):
        fine = valid(rows, data)
        found[f"valid{suffix}"] = averaged(torch.from_numpy(fine).double())
        found[f"unique{suffix}"] = Measured(len(np.unique(rows, axis=0)) / len(rows), n=len(rows))
        found[f"diversity{suffix}"] = Measured(pairwise_mean(rows, seed=seed), n=min(300, len(rows)))
        found[f"position_error{suffix}"] = Measured(position_error(rows, held, data.spec), n=len(rows), note=note)
        found[f"coupling_error{suffix}"] = Measured(coupling_error(rows, held, data.spec), n=len(rows), note=note)
        if isinstance(oracle, Oracle):
            said = f"features of a network with Spearman {oracle.accuracy['spearman']:.2f}; {note}".rstrip("; ")
            distance = frechet(oracle.features(rows), oracle.features(held))
            name = "frechet_samples" if not suffix else "frechet_floor"
            found[name] = Measured(distance, n=len(rows), note=said)
        elif not suffix:
            found["frechet_samples"] = Measured(None, note=oracle)
    found["novel"] = averaged(torch.from_numpy(~seen(drawn, data.train.values)).double())
    found["nearest_training"] = averaged(torch.from_numpy(nearest_rows(drawn[:SOME], references)[0]).double())
    found["nearest_training/floor"] = averaged(torch.from_numpy(nearest_rows(held[:SOME], references)[0]).double())
    return found


def _some_oracle(data: Data, seed: int) -> Oracle | str:
    """An oracle of the first property, or why there is none."""
    columns = properties_of(data.spec)
    if not columns:
        return (
            "no distance: its features are those of a network that learns a measured property, and the data have none"
        )
    if len(data.test) < FEWEST:
        return f"no distance: the network of its features needs {FEWEST} test sequences, and there are {len(data.test)}"
    try:
        return fit_oracle(data, columns[0], seed=seed, members=1, width=64)
    except DataError as refusal:
        return f"no distance: {refusal}"


def valid(rows: np.ndarray, data: Data) -> np.ndarray:
    """Which rows (n, L) have a length that the training sequences have, and only symbols that occur there, (n,) bool."""
    sizes = lengths_of(data.train.values)
    seen = np.zeros(len(data.spec.symbols), bool)
    seen[np.unique(data.train.values)] = True
    mine = lengths_of(rows)
    return seen[rows].all(1) & (mine >= sizes.min()) & (mine <= sizes.max())


def position_error(rows: np.ndarray, held: np.ndarray, spec: DataSpec) -> float:
    """sum_a |f_i(a) - g_i(a)|, averaged over positions: between 0 and 2."""
    f, g = (frequencies(x, len(spec.symbols)) for x in (rows, held))
    return float(np.abs(f - g).sum(1).mean())


def coupling_error(rows: np.ndarray, held: np.ndarray, spec: DataSpec) -> float:
    """1 - correlation of C_ij(a, b) = f_ij(a, b) - f_i(a) f_j(b), i < j, of rows with that of held-out ones: 0 to 2."""
    length, v = rows.shape[1], len(spec.symbols)
    found = []
    for x in (rows, held):
        flat = np.eye(v, dtype=np.float32)[x].reshape(len(x), -1)
        centred = flat - flat.mean(0)
        found.append((centred.T @ centred / len(x)).reshape(length, v, length, v))
    upper = np.triu_indices(length, 1)
    mine, theirs = (c[upper[0], :, upper[1], :].ravel() for c in found)
    if mine.std() == 0 or theirs.std() == 0:
        return 1.0  # nothing varies together
    return float(1 - np.corrcoef(mine, theirs)[0, 1])


def frequencies(x: np.ndarray, symbols: int) -> np.ndarray:
    """f_i(a), (L, V): the share of rows (N, L) with each of V symbols at each position."""
    return np.stack([np.bincount(column, minlength=symbols) for column in x.T]) / len(x)


def codes_of(model: Any, split: Split, spec: DataSpec) -> Tensor:
    """Mean codes (N, D), or the features of a model without codes."""
    read = model.encode if model.has_codes else model.features
    with torch.no_grad():
        return torch.cat([read(x).flatten(1).float().cpu() for x in batches(split, spec, model)])


def ridge_predictions(train: np.ndarray, y: np.ndarray, test: np.ndarray, *, standardize: bool = True) -> np.ndarray:
    """Predictions (n,) of a ridge regression whose penalty is chosen by leaving one out.

    Features count in units of their deviations, unless not to `standardize`: a rare symbol would be blown up."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = np.isfinite(y)
    first = [StandardScaler()] if standardize else []
    return make_pipeline(*first, RidgeCV(np.logspace(-2, 4, 13))).fit(train[known], y[known]).predict(test)


def prediction_errors(said: np.ndarray, y: np.ndarray, seed: int, note: str) -> dict[str, Measured]:
    """Squared and absolute error and both correlations, with standard errors (of correlations: by bootstrap)."""
    gap = said.astype(np.float64) - y
    found = {"mse": averaged(torch.from_numpy(gap**2), note), "mae": averaged(torch.from_numpy(np.abs(gap)), note)}
    rng = np.random.default_rng(seed)
    for name, statistic in (("pearson", _pearson), ("spearman", spearman)):
        again = []
        for _ in range(RESAMPLES if len(y) <= 2000 else RESAMPLES // 5):
            rows = rng.integers(0, len(y), len(y))
            again.append(statistic(said[rows], y[rows]))
        found[name] = Measured(statistic(said, y), float(np.std(again)), len(y), note)
    return found


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of ranks of (n,) and (n,) numbers; 0 where one of them does not vary."""
    from scipy.stats import rankdata

    return _pearson(rankdata(a), rankdata(b))


def batches(split: Split, spec: DataSpec, model: Any) -> list[Tensor]:
    """The examples of a split in model space, on the model's device."""
    return [to_space(raw.to(device_of(model)), spec) for raw in raw_tensor(split.values).split(BATCH)]
