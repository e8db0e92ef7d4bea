"""The family as scikit-learn transformers: `fit`, `transform`, `inverse_transform`, `score_samples`, `sample`."""

from __future__ import annotations

import tempfile
import warnings
import zlib
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from diled._version import __version__
from diled.api import total
from diled.config import DataSpec, TrainingConfig
from diled.data.arrays import numeric
from diled.data.scale import measure
from diled.draws import BLOCK, seeded
from diled.errors import ConfigError
from diled.family import model_config
from diled.model import Model, choose_device
from diled.models.sampling import sample_batches
from diled.models.zoo import build
from diled.runs import RunConfig, resolve
from diled.space import log_unit, raw_tensor, to_space

__all__ = ["DiledTransformer"]

DEFAULT = TrainingConfig()
OWN = {
    "model.latent_dim": "latent_dim",
    "training.steps": "steps",
    "training.batch_size": "batch_size",
    "training.learning_rate": "learning_rate",
    "training.seed": "random_state",
    "training.device": "device",
}
"""Settings that are parameters of the estimator -> their names there."""
FLOATS = [np.float64, np.float32]


class DiledTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Learn codes of the rows of X with a model of the family, in scikit-learn's manner.

        transform: x -> E[z | x]      inverse_transform: z -> E[x | z]      score_samples: a lower bound on log p(x), in nats

    X is (n, features). Real numbers get a Gaussian likelihood, and scores are densities per unit of X; where all of X are
    whole numbers, they get a likelihood on that grid, and scores are log-probabilities. As for PCA, features count by
    their spread: put a `StandardScaler` before this where their units differ.

    Args:
        model: name in the family, such as `diled`, `vae` or `ldm`; `diled.models()` lists them.
        latent_dim: size of the code; None: a quarter of the features, at least 2 and at most 32 (128 beyond 1,024 features).
        steps: optimiser steps, whatever the number of rows; `training.epochs` among the settings takes its place.
        batch_size: rows per step.
        learning_rate: its peak.
        shape: of one row, to read it as an image (C, H, W) or a signal (C, L); None: a plain vector.
        settings: any other value of the model or the training, {"model.network.width": 64, "training.ema": 0.99}.
        random_state: of weights, order and noise: an integer, a RandomState, or None for another one each time.
        device: `auto`, `cpu`, `cuda` or `mps`.
        verbose: print what the monitors of the training say; otherwise they are given as `ConvergenceWarning`.

    Attributes:
        model_: the trained `diled.Model`, which saves, decodes, interpolates and samples on its own.
        n_features_in_: number of features.
        feature_names_in_: their names, where X had names.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, _ = load_digits(return_X_y=True)
        >>> codes = DiledTransformer(latent_dim=8, steps=300, shape=(1, 8, 8)).fit_transform(X)
        >>> codes.shape
        (1797, 8)
    """

    def __init__(
        self,
        model: str = "diled",
        *,
        latent_dim: int | None = None,
        steps: int = DEFAULT.steps,
        batch_size: int = DEFAULT.batch_size,
        learning_rate: float = DEFAULT.learning_rate,
        shape: tuple[int, ...] | None = None,
        settings: dict[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = 0,
        device: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.latent_dim = latent_dim
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.shape = shape
        self.settings = settings
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    # scikit-learn's methods -------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> DiledTransformer:
        """Train on X (n, features), n at least 2; y is ignored.

        Raises:
            ValueError: X is empty, constant, not finite, too far from 0 for its spread, or does not fit `shape`.
            ConfigError: an unknown model, setting or value.
            TrainingError: a term became NaN or infinite.
        """
        X = validate_data(self, X, dtype=FLOATS, ensure_min_samples=2)
        run = self._run(seed=_seed(self.random_state))
        values, spec = self._grid_or_reals(self._shaped(X))
        config = run.model.resolved(spec)
        recipe = build(run.name, config, spec, run.training.seed)
        if not recipe.model.has_codes:
            raise ConfigError(f"The model '{run.name}' has no codes, so it is no transformer: use diled.train.")
        from diled.training.data import steps_for
        from diled.training.engine import Interrupted, fit

        training = run.training
        if training.epochs is not None:
            steps = steps_for(training.epochs, len(values), training.batch_size * training.accumulate)
            training = training.model_copy(update={"steps": steps, "epochs": None})
        told: list[str] = []
        with tempfile.TemporaryDirectory(prefix="diled-") as folder, seeded(run.training.seed):
            try:
                done = fit(recipe.model, recipe.stages, raw_tensor(values), raw_tensor(values[:1000]), spec,
                           training, Path(folder), say=print if self.verbose else told.append)  # fmt: skip
            except Interrupted:
                raise KeyboardInterrupt from None  # nothing is kept that one could go on from
        for message in told:
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        record = {"diled": __version__, "made_by": "DiledTransformer", "seed": run.training.seed, **done}
        self.model_ = Model(recipe.model, spec, name=run.name, config=config, device=self.device, provenance=record)
        self.seed_ = run.training.seed
        self._n_features_out = config.code_size(spec)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The mean code of each row, (n, latent_dim); float64 unless X is float32."""
        X = self._checked(X)
        encode = self.model_.density.encode
        return self._blockwise(lambda x: encode(x).flatten(1), self._model_space(X)).astype(_real(X))

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """The decoder's mean for each code, in the units of X, (n, features). On whole numbers it is not rounded."""
        check_is_fitted(self)
        Z = check_array(Z, dtype=FLOATS)
        if Z.shape[1] != self._n_features_out:
            raise ValueError(f"Z has {Z.shape[1]} columns, but the codes of this model have {self._n_features_out}.")
        x = self._blockwise(self.model_.density.decode, torch.from_numpy(np.array(Z, dtype=np.float32)))
        return self._own_units(x).astype(Z.dtype)

    def score_samples(self, X: Any, *, repeats: int = 16) -> np.ndarray:
        """A lower bound on log p(x) of each row in nats, (n,): higher is better.

        It is the mean of `repeats` Monte-Carlo estimates, whose noise depends on the row and on `random_state` alone. Where
        the model is one of whole numbers, rows that are off their grid or range have probability 0, so -inf.
        So a row's score does not depend on the other rows, at a few milliseconds each; `model_.score_samples` is faster.

        Raises:
            NoBound: the model has none.
            ConfigError: fewer than one estimate.
        """
        if repeats < 1:
            raise ConfigError(f"repeats = {repeats}: a bound needs at least one estimate.")
        X = self._checked(X)
        density, spec, device = self.model_.density, self.model_.spec, self.model_.device
        x = self._model_space(X)
        possible = np.ones(len(x), dtype=bool)
        if spec.levels is not None:
            possible = _on_grid(X, spec)
        scores = np.full(len(x), -np.inf)
        for i in np.flatnonzero(possible):
            row = x[i : i + 1]
            with torch.no_grad(), seeded(self.seed_, zlib.crc32(row.numpy().tobytes())):
                copies = row.to(device).expand(repeats, *row.shape[1:])
                scores[i] = -float(total(density.terms(copies, exact=True)).cpu().double().mean()) - log_unit(spec)
        return scores

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`; y is ignored."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> np.ndarray:
        """New rows, (n_samples, features), in the units of X: the decoder's means of codes drawn from the prior.

        Row i depends on i and an integer `random_state` alone; None draws other rows each time.
        """
        check_is_fitted(self)
        drawn = sample_batches(self.model_.density, n_samples, seed=_seed(random_state))
        return self._own_units(torch.cat(list(drawn)).double().numpy())

    # Pickling: a model is a recipe and weights --------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        model: Model | None = state.pop("model_", None)
        if model is not None:
            assert model.config is not None
            weights = {name: t.cpu().contiguous().clone() for name, t in model.density.state_dict().items()}
            state["saved_model"] = {
                "name": model.name,
                "config": model.config.model_dump(mode="json"),
                "data": model.spec.model_dump(mode="json"),
                "provenance": model.provenance,
                "weights": save(weights),
            }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        saved = state.pop("saved_model", None)
        super().__setstate__(state)
        if saved is None:
            return
        spec, config = DataSpec(**saved["data"]), model_config(saved["name"], saved["config"])
        density = build(saved["name"], config, spec).model
        density.load_state_dict(load(saved["weights"]))
        device = self.device if _is_there(self.device) else "cpu"
        self.model_ = Model(
            density, spec, name=saved["name"], config=config, device=device, provenance=saved["provenance"]
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    # Helpers ----------------------------------------------------------------------------------------------------------

    def _run(self, seed: int) -> RunConfig:
        """The configuration, from the parameters and the settings."""
        settings = dict(self.settings or {})
        for key in settings:
            if key in OWN:
                raise ConfigError(f"'{key}' is the parameter `{OWN[key]}` of {type(self).__name__}: set it there.")
            if key.split(".")[0] not in ("model", "training") or "." not in key:
                raise ConfigError(f"Setting '{key}' is none of model.* or training.*, written with dots.")
        own = {"model.latent_dim": self.latent_dim, "training.steps": self.steps, "training.seed": seed,
               "training.batch_size": self.batch_size, "training.learning_rate": self.learning_rate,
               "training.device": self.device}  # fmt: skip
        if settings.get("training.keep", "last") != "last":
            raise ConfigError("'training.keep' chooses by held-out examples, and fit has none: leave it at 'last'.")
        choose_device(self.device)
        if settings.get("training.epochs") is not None:
            del own["training.steps"]
        given = {key: value for key, value in own.items() if value is not None or key != "model.latent_dim"}
        return resolve("X", self.model, settings={**settings, **given})

    def _checked(self, X: Any) -> np.ndarray:
        """X of a fitted estimator, with the features of `fit`."""
        check_is_fitted(self)
        return validate_data(self, X, dtype=FLOATS, reset=False)

    def _shaped(self, X: np.ndarray) -> np.ndarray:
        """Rows as vectors, images or signals."""
        shape = (X.shape[1],) if self.shape is None else tuple(self.shape)
        if len(shape) not in (1, 2, 3) or int(np.prod(shape)) != X.shape[1]:
            raise ValueError(
                f"shape={self.shape} does not fit X with {X.shape[1]} features: give (C, H, W) for images or (C, L) for "
                "signals with as many values."
            )
        return X.reshape(len(X), *shape)

    def _grid_or_reals(self, values: np.ndarray) -> tuple[np.ndarray, DataSpec]:
        """Raw values and what is known of them: whole numbers are on a grid, however they are stored."""
        kind: Any = {1: "vector", 2: "signal", 3: "image"}[values.ndim - 1]
        low, high = values.min(), values.max()
        whole = bool((values == np.rint(values)).all()) and high - low < 65536
        if whole and low >= 0 and high <= 65535:
            values = values.astype(np.uint8 if high <= 255 else np.uint16)
        else:
            values = _in_32_bits(values, whole)
        least, greatest, levels, _ = measure([values], integer=whole, full_scale=False, kind=kind, name="X")
        return values.copy(), DataSpec(kind=kind, shape=values.shape[1:], levels=levels, low=least, high=greatest)

    def _model_space(self, X: np.ndarray) -> Tensor:
        values = numeric(X, "X").astype(np.float32).reshape(len(X), *self.model_.spec.shape)
        return to_space(torch.from_numpy(values.copy()), self.model_.spec)

    def _own_units(self, x: np.ndarray) -> np.ndarray:
        """Model space (n, ...) as rows in the units of X, float64."""
        spec = self.model_.spec
        return (spec.low + (x.astype(np.float64) + 1) / 2 * (spec.high - spec.low)).reshape(len(x), -1)

    @torch.no_grad()
    def _blockwise(self, function: Callable[[Tensor], Tensor], rows: Tensor) -> np.ndarray:
        """Apply to blocks of one size, the last one filled up, so that a row's result does not depend on the other rows.

        Matrix products of different sizes round differently.
        """
        out = []
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            filled = torch.cat([block, block[:1].expand(BLOCK - len(block), *block.shape[1:])])
            out.append(function(filled.to(self.model_.device))[: len(block)].cpu())
        return torch.cat(out).numpy()


def _on_grid(X: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Which rows (n,) consist of values that the grid of the data has, in 64 bits: 65,536 levels are close in 32."""
    assert spec.levels is not None
    k = (X.astype(np.float64) - spec.low) / (spec.high - spec.low) * (spec.levels - 1)
    near = np.abs(k - np.rint(k)) < min(0.01, 5e-5 * (spec.levels - 1))  # likelihoods refuse 1e-4 in model space
    fits: np.ndarray = near & (np.rint(k) >= 0) & (np.rint(k) < spec.levels)
    return np.all(fits, axis=1)


def _in_32_bits(values: np.ndarray, whole: bool) -> np.ndarray:
    """As float32, which whole numbers that are to be on a grid must not change, nor others by much of their range.

    Raises:
        ValueError: they do not keep the values apart.
    """
    kept = numeric(values, "X").astype(np.float32)
    lost, spread = float(np.abs(values - kept.astype(np.float64)).max()), float(values.max() - values.min())
    if spread and lost > (0 if whole else 1e-3 * spread):
        raise ValueError(
            f"X goes from {values.min():,.10g} to {values.max():,.10g}, and 32-bit numbers keep such values only to "
            f"{lost:,.3g}: subtract the least first."
        )
    return kept


def _is_there(device: str) -> bool:
    """Whether a device is there: a model that was trained on a GPU may be used elsewhere."""
    try:
        choose_device(device)
    except ConfigError:
        return False
    return True


def _seed(random_state: Any) -> int:
    """An integer as it is, otherwise a draw."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _real(X: np.ndarray) -> type[np.floating]:
    return np.float32 if X.dtype == np.float32 else np.float64
