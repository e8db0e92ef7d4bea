"""`DiledTransformer`: scikit-learn's own checks without an exception, and what they do not look at."""

from __future__ import annotations

import copy
import pickle
import tempfile
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import diled
from diled.errors import ConfigError, DataError, NoBound
from diled.estimator import DiledTransformer
from diled.training import engine

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

NETWORK = {"model.network.width": 16, "model.network.depth": 1}
PRIOR = {"model.prior.width": 16, "model.prior.blocks": 1}


def tiny(model: str = "vae", **more) -> DiledTransformer:
    """An estimator that fits in a tenth of a second."""
    settings = NETWORK | (PRIOR if model in ("diled", "ldm") else {}) | more.pop("settings", {})
    values = {"latent_dim": 2, "steps": 4, "batch_size": 16} | more
    return DiledTransformer(model, settings=settings, **values)


def reals(n: int = 40, d: int = 5, seed: int = 0) -> np.ndarray:
    """Real numbers in which two directions explain most."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ rng.normal(size=(2, d)) + 0.1 * rng.normal(size=(n, d)) + 3


@parametrize_with_checks([tiny("diled"), tiny("ldm")])
def test_scikit_learn_s_own_checks(estimator, check):
    check(estimator)


# What comes back ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> DiledTransformer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tiny("diled", steps=30).fit(reals())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_and_types(fitted, dtype):
    X = reals(9).astype(dtype)
    codes = fitted.transform(X)
    assert codes.shape == (9, 2)
    assert codes.dtype == dtype
    back = fitted.inverse_transform(codes)
    assert back.shape == X.shape
    assert back.dtype == dtype
    scores = fitted.score_samples(X)
    assert scores.shape == (9,)
    assert np.isfinite(scores).all()
    assert fitted.score(X) == pytest.approx(scores.mean())
    assert fitted.sample(7).shape == (7, 5)
    assert list(fitted.get_feature_names_out()) == ["diledtransformer0", "diledtransformer1"]
    assert fitted.n_features_in_ == 5


def test_the_names_of_columns_are_kept():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(reals(), columns=list("abcde"))
    estimator = tiny().fit(X)
    assert list(estimator.feature_names_in_) == list("abcde")
    codes = estimator.set_output(transform="pandas").transform(X)
    assert list(codes.columns) == ["diledtransformer0", "diledtransformer1"]
    with pytest.raises(ValueError, match="feature names"):
        estimator.transform(X[list("edcba")])


def test_the_same_random_state_gives_the_same_model():
    X = reals()
    a, b, c = (tiny("diled", random_state=s).fit(X) for s in (3, 3, 4))
    assert np.array_equal(a.transform(X), b.transform(X))
    assert np.array_equal(a.score_samples(X), b.score_samples(X))
    assert np.array_equal(a.sample(3, random_state=1), b.sample(3, random_state=1))
    assert not np.array_equal(a.transform(X), c.transform(X))
    free = tiny("diled", random_state=None)
    assert not np.array_equal(free.fit_transform(X), free.fit_transform(X))
    drawn = [tiny(random_state=np.random.RandomState(5)).fit_transform(X) for _ in range(2)]
    assert np.array_equal(*drawn)


def test_a_row_s_results_do_not_depend_on_the_other_rows(fitted):
    X = reals(130)
    whole, scores = fitted.transform(X), fitted.score_samples(X[:20])
    for rows in (slice(0, 1), slice(60, 70), slice(129, 130)):
        assert np.array_equal(fitted.transform(X[rows]), whole[rows])
    order = np.random.default_rng(0).permutation(20)
    assert np.array_equal(fitted.score_samples(X[order]), scores[order])


def test_epochs_take_the_place_of_steps():
    fitted = tiny(settings={"training.epochs": 6}).fit(reals(40))  # of 3 steps of 16 rows
    assert fitted.model_.provenance["steps"] == 15 == 6 * 40 // 16


def test_samples_depend_on_their_number_and_state_alone(fitted):
    many = fitted.sample(70, random_state=2)
    np.testing.assert_allclose(fitted.sample(5, random_state=2), many[:5], rtol=1e-4, atol=1e-4)
    assert not np.allclose(fitted.sample(5, random_state=3), many[:5])
    assert not np.array_equal(fitted.sample(5), fitted.sample(5))


def test_scores_are_the_model_s_bound(fitted):
    X = reals(10)
    mine, theirs = fitted.score_samples(X, repeats=512), fitted.model_.score_samples(X.astype(np.float32), repeats=512)
    np.testing.assert_allclose(mine, theirs, atol=0.5)


@pytest.mark.parametrize("repeats", [0, -1])
def test_a_score_needs_an_estimate(fitted, repeats: int):
    with pytest.raises(ConfigError, match=f"repeats = {repeats}: a bound needs at least one estimate"):
        fitted.score_samples(reals(3), repeats=repeats)


def test_scores_are_densities_in_the_units_of_x():
    X = reals()
    one, eight = tiny().fit(X), tiny().fit(8 * X)  # 8 changes no digit, so the noise is the same
    np.testing.assert_allclose(eight.transform(8 * X), one.transform(X))
    np.testing.assert_allclose(eight.score_samples(8 * X), one.score_samples(X) - 5 * np.log(8))
    codes = np.zeros((1, 2))
    np.testing.assert_allclose(eight.inverse_transform(codes), 8 * one.inverse_transform(codes))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float64])
def test_whole_numbers_are_a_grid_however_they_are_stored(dtype):
    X = np.random.default_rng(0).integers(0, 5, (40, 3)).astype(dtype)
    estimator = tiny(steps=20).fit(X)
    assert estimator.model_.spec.levels == 5
    scores = estimator.score_samples(X)
    assert (scores <= 0).all(), "probabilities are at most 1"
    other = X[:4].astype(float) + np.array([[0.0], [0.5], [10.0], [0.0]])
    assert list(np.isinf(estimator.score_samples(other))) == [False, True, True, False]
    assert estimator.transform(other).shape == (4, 2), "codes are there for any numbers"


def test_zeros_and_ones_are_binary():
    X = np.random.default_rng(0).integers(0, 2, (40, 6))
    estimator = tiny(steps=20).fit(X)
    assert (estimator.model_.spec.levels, estimator.model_.config.likelihood) == (2, "bernoulli")
    back = estimator.inverse_transform(estimator.transform(X))
    assert ((back > 0) & (back < 1)).all(), "probabilities, not rounded"
    assert np.isfinite(estimator.score(X))


def test_negative_and_large_whole_numbers():
    X = np.random.default_rng(0).integers(-300, 300, (40, 3))
    spec = tiny().fit(X).model_.spec
    assert (spec.low, spec.high, spec.levels) == (X.min(), X.max(), X.max() - X.min() + 1)
    X = np.random.default_rng(0).integers(0, 10**6, (40, 3))
    assert tiny().fit(X).model_.spec.levels is None, "too many levels: taken as real numbers"


def test_a_fine_grid_is_a_grid():
    """Of 20,000 levels, where half a step is half as wide as what counts as rounding on coarser grids."""
    X = np.random.default_rng(0).integers(0, 20_000, (40, 3)).astype(float)
    X[:2] = [[0] * 3, [19_999] * 3]
    scores = tiny().fit(X).score_samples(np.array([[10, 20, 30], [10, 20, 30.5], [10, 20.02, 30], [19_999.4, 1, 1]]))
    assert list(np.isinf(scores)) == [False, True, True, True]


def test_numbers_too_far_from_zero_for_32_bits_are_refused():
    """Seconds since 1970 are kept to 128 of them."""
    rng = np.random.default_rng(0)
    near = rng.integers(0, 1000, (40, 3)).astype(float)
    for X in (1.7e9 + near, 1.7e9 + near + 0.25):
        with pytest.raises(
            ValueError, match=r"X goes from 1,700,000,0.* keep such values only to 6.*: subtract the least first"
        ):
            tiny().fit(X)
        assert np.isfinite(tiny().fit(X - X.min()).score_samples(X[:2] - X.min())).all()
    tiny().fit(1.7e9 * near)  # whose spread is large as well


@pytest.mark.parametrize("features", [1, 2])
def test_few_features_have_scores(features):
    """One or two numbers lie on some grid by chance; that must not be taken for grid data."""
    X = np.random.default_rng(0).normal(size=(60, features))
    assert np.isfinite(tiny().fit(X).score_samples(X)).all()


def test_images_and_signals():
    X = load_digits().data[:100]
    estimator = tiny("diled", shape=(1, 8, 8)).fit(X)
    assert estimator.model_.spec.shape == (1, 8, 8)
    assert estimator.model_.spec.levels == 17
    assert estimator.inverse_transform(estimator.transform(X[:3])).shape == (3, 64)
    assert estimator.sample(2).shape == (2, 64)
    conv = {"model.network.kind": "conv", "model.network.channels": 8}
    signals = DiledTransformer("vae", latent_dim=2, steps=2, batch_size=8, shape=(2, 16), settings=conv)
    assert signals.fit_transform(reals(20, 32)).shape == (20, 2)


# Learning -------------------------------------------------------------------------------------------------------------


def test_it_learns_digits():
    X, y = load_digits(return_X_y=True)
    more = {"latent_dim": 12, "batch_size": 64, "learning_rate": 3e-3, "shape": (1, 8, 8),
            "settings": {"model.network.width": 96, "model.prior.width": 64, "model.prior.blocks": 1}}  # fmt: skip
    start, end = (DiledTransformer(steps=steps, **more).fit(X[:1300]) for steps in (1, 300))
    assert end.score(X[1300:1400]) > start.score(X[1300:1400]) + 50
    back = end.inverse_transform(end.transform(X[1300:]))
    assert np.square(back - X[1300:]).mean() < 0.7 * X.var(axis=0).mean()
    probe = LogisticRegression(max_iter=2000).fit(end.transform(X[:1300]), y[:1300])
    assert probe.score(end.transform(X[1300:]), y[1300:]) > 0.8


def test_pipelines():
    X = reals(60) * [1, 10, 100, 1, 1]
    y = X[:, 0] > X[:, 0].mean()
    pipeline = make_pipeline(StandardScaler(), tiny(steps=30), LogisticRegression())
    assert 0 <= cross_val_score(pipeline, X, y, cv=3).mean() <= 1
    pipeline = make_pipeline(StandardScaler(), tiny())
    codes = pipeline.fit_transform(X)
    assert pipeline.inverse_transform(codes).shape == X.shape
    assert list(pipeline.get_feature_names_out()) == ["diledtransformer0", "diledtransformer1"]
    assert np.isfinite(pipeline.score(X))


def test_grid_search_selects_by_the_bound():
    search = GridSearchCV(tiny(), {"steps": [1, 60], "learning_rate": [3e-3], "model": ["vae"]}, cv=2)
    search.fit(reals(80))
    assert search.best_params_["steps"] == 60
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.transform(reals(3)).shape == (3, 2)


def test_clones_are_unfitted_with_the_same_parameters(fitted):
    other = clone(fitted)
    assert other.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        other.transform(reals())
    with pytest.raises(NotFittedError):
        other.sample(2)


# Saving ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy], ids=["pickle", "deepcopy"])
def test_pickling_keeps_everything(fitted, again):
    X, other = reals(), again(fitted)
    assert np.array_equal(other.transform(X), fitted.transform(X))
    assert np.array_equal(other.score_samples(X), fitted.score_samples(X))
    assert np.array_equal(other.sample(3, random_state=0), fitted.sample(3, random_state=0))
    assert other.model_.provenance == fitted.model_.provenance
    assert hasattr(fitted, "model_"), "the original is left as it was"


def test_a_pickle_from_a_machine_with_another_device_opens(fitted):
    state = fitted.__getstate__() | {"device": "mps" if not torch.backends.mps.is_available() else "cuda"}
    other = DiledTransformer.__new__(DiledTransformer)
    other.__setstate__(state)
    assert np.array_equal(other.transform(reals()), fitted.transform(reals()))


def test_unfitted_estimators_can_be_pickled():
    assert pickle.loads(pickle.dumps(tiny())).get_params() == tiny().get_params()


def test_the_model_is_a_diled_model(fitted, tmp_path):
    X = reals(6).astype(np.float32)
    loaded = diled.load(fitted.model_.save(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(loaded.encode(X), fitted.transform(X), atol=1e-5)
    assert loaded.provenance["made_by"] == "DiledTransformer"


def test_no_files_and_no_random_state_are_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    tiny("ldm").fit(reals()).score(reals())
    assert torch.equal(torch.rand(2), expected)
    assert list(tmp_path.iterdir()) == []


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"model": "vea"}, ConfigError, "Did you mean 'vae'"),
        ({"steps": 0}, ConfigError, "training.steps"),
        ({"learning_rate": -1.0}, ConfigError, "training.learning_rate"),
        ({"device": "tpu"}, ConfigError, "device 'tpu' is unknown"),
        ({"settings": {"training.steps": 5}}, ConfigError, "is the parameter `steps`"),
        ({"settings": {"model.latent_dim": 5}}, ConfigError, "is the parameter `latent_dim`"),
        ({"settings": {"model.network.widht": 5}}, ConfigError, "Did you mean 'width'"),
        ({"settings": {"preprocess.size": 5}}, ConfigError, r"none of model\.\* or training\.\*"),
        ({"settings": {"model": {"latent_dim": 5}}}, ConfigError, "written with dots"),
        ({"shape": (1, 2, 2)}, ValueError, "does not fit X with 5 features"),
        ({"shape": (1, 1, 1, 5)}, ValueError, "does not fit X"),
        ({"settings": {"model.likelihood": "logistic"}}, ConfigError, "known number of grey values"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused_in_fit(more, error, message):
    estimator = DiledTransformer(**({"model": "vae", "steps": 2} | more))
    with pytest.raises(error, match=message):
        estimator.fit(reals())


def test_wrong_data_are_refused(fitted):
    with pytest.raises(DataError, match="Every value of X is 1"):
        tiny().fit(np.ones((20, 3)))
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        tiny().fit(reals(1))
    with pytest.raises(ValueError, match="NaN"):
        tiny().fit(np.full((20, 3), np.nan))
    with pytest.raises(DataError, match="infinite"):
        tiny().fit(np.array([[1e300, 0.5], [0.0, 0.1]]))
    with pytest.raises(ValueError, match="X has 4 features"):
        fitted.transform(reals(3, 4))
    with pytest.raises(ValueError, match="Z has 3 columns, but the codes of this model have 2"):
        fitted.inverse_transform(np.zeros((1, 3)))


def test_a_model_without_a_bound_has_codes_but_no_scores():
    X = load_digits().data[:50]
    estimator = tiny("ae", settings={"model.mixture": 2}).fit(X)
    assert estimator.transform(X).shape == (50, 2)
    with pytest.raises(NoBound, match="no entropy"):
        estimator.score_samples(X)


def test_what_the_monitors_say_is_a_warning_or_is_printed(capsys):
    with pytest.warns(ConvergenceWarning, match="carries almost nothing"):
        tiny().fit(reals())
    assert capsys.readouterr().out == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        tiny(verbose=True).fit(reals())
    assert "carries almost nothing" in capsys.readouterr().out


def test_ctrl_c_stops_as_everywhere_else(monkeypatch):
    def stop(*args, **options):
        raise engine.Interrupted("Stopped at step 3.")

    monkeypatch.setattr(engine, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        tiny().fit(reals())
