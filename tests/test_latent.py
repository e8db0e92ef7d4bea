"""Working in the latent space: paths, directions, neighbours, and editing where the decoder is a diffusion."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

from diled.config import DataSpec
from diled.diffusion import DataDiffusion, Diffusion, LinearLogSNR
from diled.diffusion.schedule import alpha, like, sigma2
from diled.editing import apply_edit
from diled.errors import ConfigError, DataError
from diled.latent.edit import Attribute, Direction, fit_direction, parse_attribute
from diled.latent.interpolate import between
from diled.latent.search import nearest
from diled.model import Model
from diled.models.autoencoder import Autoencoder, DiracEncoder, GaussianLikelihood, LikelihoodDecoder
from diled.models.priors import StandardNormal

RNG = np.random.default_rng(0)


def test_a_straight_path_is_straight_and_holds_both_ends() -> None:
    a, b = RNG.normal(size=(2, 5)), RNG.normal(size=(2, 5))
    path = between(a, b, 5)
    assert path.shape == (2, 5, 5)
    np.testing.assert_allclose(path[:, 0], a)
    np.testing.assert_allclose(path[:, -1], b)
    np.testing.assert_allclose(path[:, 1], 0.75 * a + 0.25 * b)


def test_a_spherical_path_keeps_the_norm_and_turns_evenly() -> None:
    a, b = np.array([[2.0, 0.0]]), np.array([[0.0, 2.0]])
    path = between(a, b, 4, "spherical")[0]
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 2.0)
    np.testing.assert_allclose(np.degrees(np.arctan2(path[:, 1], path[:, 0])), [0, 30, 60, 90])
    np.testing.assert_allclose(between(a, a, 3, "spherical"), between(a, a, 3))  # parallel: no angle to divide by


def test_paths_refuse_what_makes_no_sense() -> None:
    one = np.zeros((1, 2))
    with pytest.raises(ConfigError, match="two ends"):
        between(one, one, 1)
    with pytest.raises(ConfigError, match="linear, spherical"):
        between(one, one, 3, "cubic")


def test_the_vector_moves_one_mean_onto_the_other() -> None:
    codes = RNG.normal(size=(400, 3)).astype(np.float32)
    has = np.arange(400) % 2 == 0
    codes[has] += np.array([1.0, -2.0, 0.0], dtype=np.float32)
    direction = fit_direction(codes, has, "label=a")
    moved = direction.apply(codes[~has], 1.0)
    np.testing.assert_allclose(moved.mean(0), codes[has].mean(0), atol=1e-5)
    back = direction.apply(codes[has], -1.0)
    np.testing.assert_allclose(back.mean(0), codes[~has].mean(0), atol=1e-5)


def test_the_classifier_points_where_the_attribute_is_and_has_the_published_length() -> None:
    codes = RNG.normal(size=(2000, 4)).astype(np.float32) * np.array([1, 10, 1, 1], dtype=np.float32)
    has = codes[:, 1] > 0
    direction = fit_direction(codes, has, "label=a", "classifier")
    standard = direction.vector / codes.std(0)
    assert np.linalg.norm(standard) == pytest.approx(2.0, rel=1e-4)  # sqrt(D)
    assert standard[1] / np.linalg.norm(standard) > 0.99
    assert direction.score > 0.98


def test_a_real_valued_label_rises_by_one_deviation_along_the_vector() -> None:
    codes = RNG.normal(size=(3000, 3)).astype(np.float32)
    age = (2 * codes[:, 0] - codes[:, 2] + 50).astype(np.float32)
    direction = fit_direction(codes, age, "age")
    rise = direction.apply(codes, 1.0) @ np.array([2, 0, -1]) - codes @ np.array([2, 0, -1])
    np.testing.assert_allclose(rise, age.std(), rtol=1e-2)
    assert direction.score == pytest.approx(1.0, abs=1e-3)


def test_directions_need_both_kinds_of_examples() -> None:
    with pytest.raises(DataError, match="All of the training examples"):
        fit_direction(np.zeros((5, 2)), np.ones(5, dtype=bool), "label=a")


@pytest.mark.parametrize("method", ["vector", "classifier"])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        (np.zeros(0, dtype=bool), "No training example has a value of 'a'"),
        (np.full(5, np.nan), "fewer than two different values of 'a=1'"),
        (np.array([np.nan, 2, 2, np.nan, 2]), "fewer than two different values of 'a=1'"),
    ],
)
def test_an_attribute_that_nothing_tells_of_has_no_direction(target: np.ndarray, said: str, method: str) -> None:
    with pytest.raises(DataError, match=said):
        fit_direction(np.random.default_rng(0).normal(size=(len(target), 2)), target, "a=1", method)


def test_attributes_are_read_and_the_nearest_is_named() -> None:
    columns = {"label": np.array([0, 1, 1]), "age": np.array([1.0, 2.0, 3.0], dtype=np.float32)}
    classes = {"label": ["cat", "dog"], "age": []}
    dog = parse_attribute("label=dog", columns, classes)
    assert dog == Attribute("label=dog", "label", 1)
    assert dog.target(columns["label"])[1].tolist() == [False, True, True]
    age = parse_attribute("age", columns, classes)
    assert age.target(columns["age"])[1] is columns["age"]
    for wrong, hint in (
        ("lable=dog", "'label'"),
        ("label=dgo", "'dog'"),
        ("label", "cat, dog"),
        ("age=3", "real numbers"),
    ):
        with pytest.raises(ConfigError, match=hint):
            parse_attribute(wrong, columns, classes)


def test_neighbours_are_measured_in_standard_deviations() -> None:
    codes = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 100.0], [1.0, 100.0]])
    found, distance = nearest(codes, np.array([[0.1, 0.0]]), k=2)
    assert found[0, 0] == 0
    assert distance[0, 0] == pytest.approx(0.1 / 0.5)
    turned, _ = nearest(np.array([[1.0, 0.0], [0.0, 5.0]]), np.array([[0.1, 1.0]]), k=1, metric="cosine")
    assert turned[0, 0] == 1


class _Shifted(nn.Module):
    """The exact denoiser of N(condition, 0.25 I)."""

    def forward(self, z: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        a, s2 = like(alpha(-log_snr), z), like(sigma2(-log_snr), z)
        return condition + 0.25 * a / (a**2 * 0.25 + s2) * (z - a * condition)


class _DiffusionDecoder(nn.Module):
    implicit = True

    def __init__(self) -> None:
        super().__init__()
        self.density = DataDiffusion(Diffusion(_Shifted(), LinearLogSNR(-9.0, 9.0), (3,), steps=400))

    def forward(self, z: Tensor):  # type: ignore[no-untyped-def]
        return self.density.given(z)


def test_editing_through_a_diffusion_keeps_what_the_code_does_not_say() -> None:
    """x = code + noise with an exact denoiser: an edit must shift x by the code's shift and keep its noise."""

    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.round()

    spec = DataSpec(kind="vector", shape=(3,), levels=None, low=-1.0, high=1.0)
    model = Model(Autoencoder(DiracEncoder(Rounded()), _DiffusionDecoder(), StandardNormal((3,))), spec)
    x = np.array([[1.2, -0.3, 0.1], [0.4, 2.3, -1.2]], dtype=np.float32)
    shift = np.array([0.5, 0.0, -1.0], dtype=np.float32)
    same = apply_edit(model, x, Direction(shift, "a", "vector", 1.0), 0.0)
    np.testing.assert_allclose(same, x, atol=0.02)
    moved = apply_edit(model, x, Direction(shift, "a", "vector", 1.0), 1.0)
    np.testing.assert_allclose(moved - same, np.broadcast_to(shift, x.shape), atol=0.02)


def test_many_examples_are_edited_in_batches() -> None:
    """Of 1,200 no more than 512 at once, each moved by the shift, in their order."""
    sizes = []

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return x

    spec = DataSpec(kind="vector", shape=(3,), levels=None, low=-1.0, high=1.0)
    decoder = LikelihoodDecoder(Counted(), GaussianLikelihood(0.1))
    model = Model(Autoencoder(DiracEncoder(Counted()), decoder, StandardNormal((3,))), spec)
    x = np.random.default_rng(0).normal(size=(1200, 3)).astype(np.float32)
    shift = np.array([0.5, 0.0, -1.0], dtype=np.float32)
    moved = apply_edit(model, x, Direction(shift, "a", "vector", 1.0), 2.0)
    np.testing.assert_allclose(moved, x + 2 * shift, atol=1e-5)
    assert sizes == [512, 512, 176] * 2
