"""Augmentation: known turns, flips and shifts of known pictures, products of matrices, colours, and how often."""

import math

import pytest
import torch

from diled.config import AugmentConfig, DataSpec, TrainingConfig
from diled.draws import seeded
from diled.errors import ConfigError
from diled.space import to_space
from diled.training import augment
from diled.training.augment import (
    augmented,
    draw_colours,
    draw_geometry,
    policy_for,
    recolour,
    rotation,
    scaling,
    translation,
    warp,
)
from diled.training.inputs import Inputs

GREY = DataSpec(kind="image", shape=(1, 6, 7), levels=256)
RGB = DataSpec(kind="image", shape=(3, 6, 6), levels=256)
BINARY = DataSpec(kind="image", shape=(1, 6, 7), levels=2, binarize="threshold")


def recipe(augment="none", **values):
    return TrainingConfig(augment=augment, augment_values=values)


def policy(spec=GREY, augment="none", **values):
    return policy_for(recipe(augment, **values), spec)


def pictures(*shape):
    return 2 * torch.rand(shape) - 1


def t(*numbers):
    return torch.tensor([float(n) for n in numbers])


# The warp


def test_a_quarter_turn_is_a_quarter_turn():
    """Clockwise, as `torch.rot90` backwards; of any square picture, whatever its border."""
    x = pictures(2, 3, 7, 7)
    for border in ("zeros", "reflection"):
        turned = warp(x, rotation(t(math.pi / 2, math.pi / 2)), border)
        assert torch.allclose(turned, torch.rot90(x, -1, (2, 3)), atol=1e-5)


def test_a_shift_is_a_roll_with_what_comes_in_from_outside():
    x = pictures(1, 2, 6, 7)
    shifted = warp(x, translation(t(2), t(-1)))
    expected = torch.roll(x, (-1, 2), (2, 3))
    expected[:, :, -1], expected[:, :, :, :2] = -1, -1
    assert torch.allclose(shifted, expected, atol=1e-5)
    mirrored = warp(x, translation(t(2), t(0)), "reflection")
    padded = torch.nn.functional.pad(x, (2, 0, 0, 0), mode="reflect")[..., :7]
    assert torch.allclose(mirrored, padded, atol=1e-5)


def test_flips_are_flips():
    x = pictures(1, 1, 6, 7)
    assert torch.allclose(warp(x, scaling(t(-1), t(1))), x.flip(3), atol=1e-5)
    assert torch.allclose(warp(x, scaling(t(1), t(-1))), x.flip(2), atol=1e-5)


def test_twice_the_size_stretches_a_ramp():
    """Bilinear reading is exact on a plane: x'(p) = x(p / s)."""
    ramp = torch.linspace(-0.9, 0.9, 9).expand(1, 1, 9, 9)
    assert torch.allclose(warp(ramp, scaling(t(2), t(1))), ramp / 2, atol=1e-5)
    assert torch.allclose(warp(ramp, scaling(t(1), t(2))), ramp, atol=1e-5)


def test_one_warp_of_a_product_is_two_warps():
    """Exactly where pixels fall on pixels: the first factor on the right acts first."""
    x = pictures(1, 1, 9, 9)
    x[:, :, :3], x[:, :, -3:], x[..., :3], x[..., -3:] = -1, -1, -1, -1
    shift, turn = translation(t(2), t(1)), rotation(t(math.pi / 2))
    assert torch.allclose(warp(x, turn @ shift), warp(warp(x, shift), turn), atol=1e-5)
    assert not torch.allclose(warp(x, shift @ turn), warp(warp(x, shift), turn), atol=1e-2)


def test_changes_act_in_the_published_order():
    """A shift comes before a turn: it is turned with the image."""
    both = augment.NOTHING.model_copy(update={"probability": 1.0, "translation": 3, "rotation": 90})
    g = draw_geometry(both, 200)
    undone = g[:, :2, :2].transpose(1, 2) @ g[:, :2, 2:]
    assert torch.allclose(undone, undone.round(), atol=1e-5)
    assert not torch.allclose(g[:, :2, 2], g[:, :2, 2].round(), atol=1e-2)


# Draws


def test_what_is_not_drawn_stays_bit_for_bit():
    x = pictures(500, 1, 6, 7)
    seen = augmented(x, policy(augment="naive"))
    same = (seen == x).flatten(1).all(1).float().mean().item()
    assert 0.2 < same < 0.6
    assert torch.equal(augmented(x, augment.NOTHING), x)
    assert torch.equal(augmented(x, policy(augment="naive", probability=1e-9)), x)


def test_zero_strengths_are_the_data_themselves():
    raw = torch.randint(256, (20, *GREY.shape), dtype=torch.uint8)
    zero = dict.fromkeys(("translation", "scale", "rotation", "stretch_turned", "stretch", "brightness", "contrast"), 0)
    inputs = Inputs(GREY, recipe("naive", horizontal_flip="off", probability=1, **zero))
    assert inputs.policy is not None
    assert torch.equal(inputs(raw, 0.0), to_space(raw, GREY))
    assert Inputs(GREY, recipe(rotation=0)).policy is None


@pytest.mark.parametrize("p", [0.1, 0.4])
def test_every_change_is_drawn_with_its_probability_independently(p):
    n = 20_000
    every = AugmentConfig(probability=p, **augment.NAIVE.model_copy(update={"vertical_flip": "on"}).changes)
    rates = {}
    for key, value in every.changes.items():
        if key != "stretch_turned":
            one = augment.NOTHING.model_copy(update={key: value, "probability": p})
            changed = [augment._changed(draw(one, n)) for draw in (draw_geometry, draw_colours)]
            rates[key] = sum(map(len, changed)) / n
    sigma = math.sqrt(p * (1 - p) / n)
    for key, rate in rates.items():
        moved = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "translation": 48 / 49}.get(key, 1.0)  # of what is drawn
        assert rate == pytest.approx(p * moved, abs=5 * sigma), key
    geometric = [
        rates[key] for key in ("horizontal_flip", "vertical_flip", "translation", "scale", "rotation", "stretch")
    ]
    none = math.prod(1 - rate for rate in geometric)
    together = 1 - len(augment._changed(draw_geometry(every, n))) / n
    assert together == pytest.approx(none, abs=6 * sigma)


def test_a_flip_that_is_always_drawn_turns_half_of_the_images():
    g = draw_geometry(augment.NOTHING.model_copy(update={"horizontal_flip": "always"}), 4000)
    assert (g[:, 0, 0] == -1).float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert (g[:, 1, 1] == 1).all()


def test_strengths_fill_their_ranges_on_both_sides():
    def one(**values):
        return augment.NOTHING.model_copy(update={"probability": 1.0, **values})

    n = 4000
    shift = draw_geometry(one(translation=3), n)[:, :2, 2]
    assert sorted(shift.unique().tolist()) == [-3, -2, -1, 0, 1, 2, 3]
    assert torch.bincount((shift.long() + 3).flatten()).float().div(2 * n).sub(1 / 7).abs().max() < 0.02
    size = draw_geometry(one(scale=0.2), n)[:, 0, 0].log2()
    angle = torch.rad2deg(torch.atan2(*draw_geometry(one(rotation=10), n)[:, :2, 0].T.flip(0)))
    g = draw_geometry(one(stretch=0.3), n)
    assert torch.allclose(torch.linalg.det(g), torch.ones(n), atol=1e-5)
    added = draw_colours(one(brightness=0.4), n)[:, 0, 3]
    contrast = draw_colours(one(contrast=0.25), n)[:, 1, 1].log2()
    for values, largest in ((size, 0.2), (angle, 10), (g[:, 0, 0].log2(), 0.3), (added, 0.4), (contrast, 0.25)):
        assert values.abs().max().item() == pytest.approx(largest, rel=0.01)
        assert values.var().item() == pytest.approx(largest**2 / 3, rel=0.1)
        assert abs(values.mean().item()) < 0.06 * largest


def test_a_stretch_is_along_any_axis_where_it_is_turned():
    """Symmetric, with eigenvalues s and 1 / s; off the diagonal in the share that is turned."""
    turned = augment.NOTHING.model_copy(update={"probability": 1.0, "stretch": 0.5, "stretch_turned": 0.4})
    g = draw_geometry(turned, 4000)[:, :2, :2]
    assert torch.allclose(g, g.transpose(1, 2), atol=1e-5)
    assert torch.allclose(torch.linalg.det(g), torch.ones(len(g)), atol=1e-5)
    assert (g[:, 0, 1].abs() > 1e-6).float().mean().item() == pytest.approx(0.4, abs=0.04)
    angle = 0.5 * torch.atan2(2 * g[:, 0, 1], g[:, 0, 0] - g[:, 1, 1])[g[:, 0, 1].abs() > 1e-6]
    assert angle.std().item() == pytest.approx(math.pi / math.sqrt(12), rel=0.05)


# Colours


def test_hue_turns_red_into_green_and_leaves_grey():
    third = augment._about_grey(t(2 * math.pi / 3)[:, None, None], torch.eye(4), grey_axis())
    x = torch.tensor([0.7, -0.2, 0.1]).reshape(1, 3, 1, 1)
    assert torch.allclose(recolour(x, third).flatten(), t(0.1, 0.7, -0.2), atol=1e-6)
    grey = torch.full((1, 3, 1, 1), 0.3)
    assert torch.allclose(recolour(grey, third), grey, atol=1e-6)
    some = augment._about_grey(t(0.3)[:, None, None], torch.eye(4), grey_axis())[0, :3, :3]
    assert torch.allclose(some @ some.T, torch.eye(3), atol=1e-6)
    assert some.trace().item() == pytest.approx(1 + 2 * math.cos(0.3))


def grey_axis():
    grey = torch.zeros(4, 4)
    grey[:3, :3] = 1 / 3
    return grey


def test_saturation_scales_the_distance_from_grey_and_contrast_that_from_the_middle():
    def drawn(**values):
        return draw_colours(augment.NOTHING.model_copy(update={"probability": 1.0, **values}), 8)

    x = pictures(8, 3, 2, 2)
    grey = x.mean(1, keepdim=True)
    with seeded(3):
        c = drawn(saturation=0.5)
    seen = recolour(x, c)
    assert torch.allclose(seen.mean(1, keepdim=True), grey, atol=1e-6)
    ratio = (seen - grey) / (x - grey)
    assert torch.allclose(ratio, ratio[:, :1, :1, :1].expand_as(ratio), atol=1e-3)
    assert (ratio[:, 0, 0, 0].log2().abs() <= 0.5).all()
    c = drawn(contrast=0.5)
    assert torch.allclose(recolour(x, c) / x, c[:, :1, :1, None].expand_as(x), atol=1e-4)
    c = drawn(brightness=0.5)
    assert torch.allclose(recolour(x, c) - x, c[:, :1, 3:, None].expand_as(x), atol=1e-5)
    assert torch.allclose(recolour(x[:, :1], c), recolour(x, c)[:, :1], atol=1e-6), "grey is three equal channels"


# Policies


def test_the_published_policies():
    naive, grey, colour = policy(RGB, "naive"), policy(GREY, "tuned"), policy(RGB, "tuned")
    assert naive.changes == {
        "horizontal_flip": "on", "vertical_flip": "off", "translation": 3, "scale": 0.2, "rotation": 10, "stretch": 0.2,
        "stretch_turned": 0.5, "brightness": 0.2, "contrast": 0.25, "hue": 45, "saturation": 0.5,
    }  # fmt: skip
    off = {"horizontal_flip": "off", "vertical_flip": "off"} | dict.fromkeys(augment.ALL_COLOUR, 0)
    small = {"translation": 3, "scale": 0.15, "rotation": 10, "stretch": 0.15, "stretch_turned": 0.4}
    assert grey.changes == off | small
    flips = {"horizontal_flip": "always", "vertical_flip": "on"}
    turns = {"translation": 0, "scale": 0.2, "rotation": 360, "stretch": 0.2, "stretch_turned": 0.5}
    assert colour.changes == off | flips | turns
    assert (naive.border, grey.border, naive.probability) == ("reflection", "zeros", 0.1)


def test_compositions_by_name_and_what_means_nothing_is_refused():
    own = policy(GREY, scale=0.3, probability=0.12)
    assert (own.scale, own.rotation, own.horizontal_flip, own.probability) == (0.3, 0, "off", 0.12)
    more = policy(GREY, "tuned", rotation=20, border="reflection")
    assert (more.rotation, more.scale, more.border) == (20, 0.15, "reflection")
    naive = policy(GREY, "naive")
    assert (naive.hue, naive.saturation, naive.brightness) == (0, 0, 0.2)
    with pytest.raises(ConfigError, match=r"hue means nothing for images of 1 channel"):
        policy(GREY, hue=10)
    with pytest.raises(ConfigError, match=r"brightness means nothing for images of 4 channel"):
        policy(DataSpec(kind="image", shape=(4, 6, 6)), "tuned", brightness=0.1)
    with pytest.raises(ConfigError, match=r"stretch_turned has no effect, since nothing is stretched"):
        policy(GREY, stretch_turned=0.5)
    unstretched = policy(GREY, "tuned", stretch=0)
    assert (unstretched.stretch, unstretched.stretch_turned, unstretched.scale) == (0, 0, 0.15)
    with pytest.raises(ConfigError, match=r"these are vectors"):
        policy(DataSpec(kind="vector", shape=(4,)), "naive")


# What is trained on


def test_augmented_data_keep_their_measure():
    """Grid values stay on the grid, binary data are binarised after the warp, and real numbers stay real."""
    raw = torch.randint(256, (200, *GREY.shape), dtype=torch.uint8)
    x = Inputs(GREY, recipe("naive", probability=0.5))(raw, 0.0)
    grid = (x + 1) * 127.5
    assert torch.allclose(grid, grid.round(), atol=1e-3)
    assert x.min() >= -1
    assert x.max() <= 1
    assert (x != to_space(raw, GREY)).flatten(1).any(1).float().mean() > 0.5
    assert set(Inputs(BINARY, recipe("tuned", probability=0.5))(raw, 0.0).unique().tolist()) == {-1.0, 1.0}
    binary = DataSpec(**BINARY.model_dump() | {"binarize": "dynamic"})
    raw = torch.full((400, *GREY.shape), 204, dtype=torch.uint8)  # 0.8 of the range
    seen = Inputs(binary, recipe(horizontal_flip="always"))(raw, 0.0)
    assert (seen == 1).float().mean().item() == pytest.approx(0.8, abs=0.02)


def test_the_same_seed_draws_the_same_changes():
    raw = torch.randint(256, (50, *RGB.shape), dtype=torch.uint8)
    inputs = Inputs(RGB, recipe("naive", probability=0.5))
    draws = []
    for seed in (1, 1, 2):
        with seeded(seed):
            draws.append(inputs(raw, 0.0))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
