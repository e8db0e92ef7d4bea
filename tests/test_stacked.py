"""Stacked training: each member is the training that it would be by itself."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diled.api import Density, Stage, total
from diled.config import AugmentConfig, DataSpec, TrainingConfig
from diled.draws import seed_from
from diled.errors import ConfigError, DataError, ModelError
from diled.family import model_config
from diled.models.zoo import build
from diled.space import to_space
from diled.training import stacked
from diled.training.best import held_out_bound
from diled.training.data import Batches, Mixed, Shuffled
from diled.training.engine import fit
from diled.training.stacked import fit_stacked
from diled.training.stages import learning_rate

SPEC = DataSpec(kind="vector", shape=(3,), low=-1.0, high=1.0)
BASE = TrainingConfig(
    steps=30, batch_size=8, learning_rate=0.02, warmup_steps=3, clip=None, ema=0.0, log_every=10, device="cpu"
)
NOISY = DataSpec(kind="image", shape=(1, 8, 8), levels=2, binarize="dynamic")


class Plain(Density):
    """A regression of x on itself through a bottleneck: no noise anywhere."""

    def __init__(self, seed=0, *, scale=1.0, width=2, fast=None):
        super().__init__()
        torch.manual_seed(seed)
        self.scale = scale
        self.inward, self.outward = nn.Linear(3, width), nn.Linear(width, 3)
        self.register_buffer("shift", torch.full((3,), 0.1 * seed))
        if fast is not None:
            self.outward.learning_rate_factor = fast

    def terms(self, q, *, exact=False, progress=1.0):
        error = (self.outward(self.inward(q).tanh()) - q - self.shift) ** 2
        return {"error": self.scale * error.sum(1), "size": progress * self.inward(q).square().sum(1)}


def stages(*densities):
    return [[Stage("fit", density)] for density in densities]


def values(m, n=40):
    return 2 * torch.rand(n, 3, generator=torch.Generator().manual_seed(100 + m)) - 1


def weights(density):
    return torch.cat([p.detach().flatten() for p in density.parameters()])


def config(**changes):
    return BASE.model_copy(update=changes)


def stacked_plain(seeds=(0, 1, 2), settings=None, make=Plain, **options):
    settings = settings or BASE
    say = options.pop("say", lambda line: pytest.fail(line))
    return fit_stacked(stages(*map(make, seeds)), [values(m) for m in seeds], SPEC, settings, seeds, say=say, **options)


def alone(density, raw, c, seed, until=None):
    """The recipe written out for one density; its averages (its weights where there are none) after so many steps."""
    groups = [list(density.parameters())]
    factor = getattr(density.outward, "learning_rate_factor", None)
    rates = [c.learning_rate]
    if factor is not None:
        groups, rates = [list(density.outward.parameters()), list(density.inward.parameters())], [
            factor * c.learning_rate, c.learning_rate]  # fmt: skip
    adam = torch.optim.AdamW(
        [{"params": g, "lr": r} for g, r in zip(groups, rates, strict=True)], betas=c.betas, weight_decay=c.weight_decay
    )
    averages = [p.detach().clone() for p in density.parameters()]
    batches, warmup = Batches(raw, c.batch_size, seed=seed_from(seed, 0)), min(c.warmup_steps, c.steps // 10)
    for step in range(until or c.steps):
        for group, rate in zip(adam.param_groups, rates, strict=True):
            group["lr"] = rate * learning_rate(step, c.steps, warmup, c.schedule)
        adam.zero_grad()
        for micro in range(c.accumulate):
            x = to_space(batches.batch(step * c.accumulate + micro), SPEC)
            (total(density.terms(x, progress=torch.tensor(step / c.steps))).mean() / c.accumulate).backward()
        if c.clip:
            for g in groups:
                nn.utils.clip_grad_norm_(g, c.clip)
        adam.step()
        for mean, p in zip(averages, density.parameters(), strict=True):
            mean.lerp_(p.detach(), 1 - min(c.ema, (1 + step) / (10 + step)))
    return torch.cat([mean.flatten() for mean in averages])


RECIPES = {
    "plain": {},
    "averaged": {"ema": 0.9},
    "clipped": {"clip": 0.7},
    "constant": {"schedule": "constant"},
    "accumulated": {"accumulate": 3, "clip": 0.7},
    "decayed": {"weight_decay": 0.5, "betas": (0.8, 0.95)},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_members_are_the_trainings_they_would_be_by_themselves(recipe):
    c = config(**recipe)
    found = stacked_plain(settings=c)
    for m, density in enumerate(found.densities):
        torch.testing.assert_close(weights(density), alone(Plain(m), values(m), c, m), rtol=1e-5, atol=1e-5)
        assert not density.training


def test_a_part_with_its_own_pace_is_a_group_of_its_own():
    c = config(clip=0.5)
    found = stacked_plain(settings=c, make=lambda m: Plain(m, fast=5.0))
    for m, density in enumerate(found.densities):
        expected = alone(Plain(m, fast=5.0), values(m), c, m)
        torch.testing.assert_close(weights(density), expected, rtol=1e-5, atol=1e-5)


def test_members_are_those_of_the_engine(tmp_path):
    c = config(ema=0.9, clip=0.7, accumulate=2)
    found = stacked_plain(settings=c)
    for m, density in enumerate(found.densities):
        one = Plain(m)
        fit(one, [Stage("fit", one)], values(m), values(m), SPEC, c.model_copy(update={"seed": m, "monitor_every": 99}),
            tmp_path / str(m), say=lambda line: None)  # fmt: skip
        torch.testing.assert_close(weights(density), weights(one), rtol=1e-5, atol=1e-5)


def test_an_autoencoder_without_noise_is_trained_as_alone(monkeypatch):
    """The code is the posterior's mean, in both trainings."""
    monkeypatch.setattr("diled.distributions.Normal.sample", lambda q, noise=None: q.mean)
    spec = NOISY.model_copy(update={"binarize": "threshold"})
    data = [torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8) for _ in range(2)]
    c, make = config(steps=10, learning_rate=1e-3), functools.partial(vae, spec)
    found = fit_stacked([[make(m)] for m in range(2)], data, spec, c, [5, 6])
    for m, density in enumerate(found.densities):
        one = make(m).density
        adam, batches = (
            torch.optim.AdamW(one.parameters(), weight_decay=0.0),
            Batches(data[m], 8, seed=seed_from(5 + m, 0)),
        )
        for step in range(10):
            adam.param_groups[0]["lr"] = 1e-3 * learning_rate(step, 10, 1)
            loss = total(one.terms(to_space(batches.batch(step), spec), progress=torch.tensor(step / 10))).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        torch.testing.assert_close(weights(density), weights(one), rtol=1e-5, atol=1e-5)


def vae(spec, seed, **values):
    network = {"kind": "mlp", "width": 12, "depth": 1} | values.pop("network", {})
    (stage,) = build("vae", model_config("vae", {"latent_dim": 2, "network": network} | values), spec, seed=seed).stages
    return stage


def test_log_holds_means_of_steps_for_each_member():
    seen = []
    found = stacked_plain(settings=config(steps=7, log_every=3, learning_rate=1e-12), progress=seen.append)
    assert [entry["step"] for entry in found.log] == [3, 6, 7]
    assert seen == found.log
    for m in range(3):
        batches = Batches(values(m), 8, seed=seed_from(m, 0))
        error = sum(Plain(m).terms(to_space(batches.batch(k), SPEC))["error"].mean().item() for k in (3, 4, 5)) / 3
        assert found.log[1]["terms"]["error"][m] == pytest.approx(error, rel=1e-5)
        both = found.log[1]["terms"]["error"][m] + found.log[1]["terms"]["size"][m]
        assert found.log[1]["loss"][m] == pytest.approx(both, rel=1e-6)


def test_noise_differs_between_members_and_is_reproducible():
    """Two equal members on equal batches part by their own noise, and the same call ends on the same weights."""
    data = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
    spec = NOISY.model_copy(update={"binarize": "threshold"})

    def run():
        torch.rand(3)  # whatever happened before does not matter
        return fit_stacked([[vae(spec, 0)], [vae(spec, 0)]], [data, data], spec, config(steps=5), [1, 1]).densities

    (a, b), (c, d) = run(), run()
    assert not torch.equal(weights(a), weights(b))
    assert torch.equal(weights(a), weights(c))
    assert torch.equal(weights(b), weights(d))


def test_torchs_generator_is_left_as_it_was():
    density = Plain(0)
    state = torch.get_rng_state()
    fit_stacked(stages(density), [values(0)], SPEC, config(steps=2), [1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("by", ["dropout", "input noise"])
def test_dropout_and_input_noise_are_drawn_for_each_member(by):
    """The rate, in closed form of the encoder's output, differs between equal members on equal data at the first step."""
    spec, data = NOISY.model_copy(update={"binarize": "threshold"}), torch.full((8, 1, 8, 8), 255, dtype=torch.uint8)
    network = {"dropout": 0.5} if by == "dropout" else {}
    c = config(steps=1, input_noise=0.0 if by == "dropout" else 0.5)
    pair = [[vae(spec, 0, network=network)] for _ in range(2)]
    rates = fit_stacked(pair, [data, data], spec, c, [1, 1]).log[0]["terms"]["rate/kl"]
    assert rates[0] != rates[1]


class Steep(Plain):
    """The slope of a root at 0 is infinite, and times 0 it is NaN: so is the gradient where x_0 = 1, but not the value."""

    def terms(self, q, *, exact=False, progress=1.0):
        root = (0 * self.inward.weight.sum() + (1 - q[:, 0]).relu()).sqrt()
        return super().terms(q, exact=exact, progress=progress) | {"root": 0.1 * root}


@pytest.mark.parametrize("bad", ["value", "gradient"])
def test_a_member_that_meets_nan_stops_alone(bad):
    """Its weights are the averages of the steps before; the others are as if nothing had happened."""
    c, raw = config(ema=0.9, steps=10), [0.9 * values(m, 80) for m in range(3)]
    order = Shuffled(raw[1]).order(0, seed_from(1, 0))
    poisoned, said = raw[1].clone(), []
    poisoned[order[40:]] = float("nan") if bad == "value" else 1.0  # from the sixth batch of eight on
    data = [raw[0], poisoned, raw[2]]
    found = fit_stacked(stages(*map(Steep, range(3))), data, SPEC, c, [0, 1, 2], say=said.append)
    assert list(found.stopped) == [1]
    assert said == list(found.stopped.values())
    assert "Member 1 (seed 1) stopped at step 6" in said[0]
    assert ("the term 'error' is nan" if bad == "value" else ": a gradient is NaN") in said[0]
    others = fit_stacked(stages(Steep(0), Steep(2)), [raw[0], raw[2]], SPEC, c, [0, 2])
    for density, other in zip([found.densities[0], found.densities[2]], others.densities, strict=True):
        torch.testing.assert_close(weights(density), weights(other), rtol=1e-6, atol=1e-6)
    expected = alone(Steep(1), raw[1], c, 1, until=5)
    torch.testing.assert_close(weights(found.densities[1]), expected, rtol=1e-5, atol=1e-5)


def test_training_ends_when_nobody_is_left():
    data = torch.full((40, 3), float("nan"))
    found = fit_stacked(stages(Plain(0), Plain(1)), [data, data], SPEC, BASE, [0, 1], say=lambda line: None)
    assert set(found.stopped) == {0, 1}
    assert [entry["step"] for entry in found.log] == [1]
    assert torch.equal(weights(found.densities[1]), weights(Plain(1)))


def test_the_best_look_is_kept():
    """Each member ends on the look with the lowest bound, with the noise of the engine's looks."""
    data = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
    c = config(steps=6, monitor_every=2, keep="best", learning_rate=0.3, schedule="constant")
    found = fit_stacked([[vae(NOISY, 0)], [vae(NOISY, 1)]], [data, data], NOISY, c, [3, 4], validation=data[:20])
    for m, density in enumerate(found.densities):
        bound = held_out_bound(density, data[:20], NOISY, seed_from(3 + m, 0, 2**42))
        assert found.kept[m]["bound"] == pytest.approx(bound, rel=1e-6)
        assert found.kept[m]["step"] in (2, 4, 6)


def test_members_may_have_data_and_augmentation_of_their_own():
    """Each sees its own batches, flipped or not as its own recipe says."""
    data = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
    spec = NOISY.model_copy(update={"binarize": "threshold"})
    flips = config(steps=3, augment_values=AugmentConfig(horizontal_flip="always"))
    both = [flips, config(steps=3), flips]
    mixed = Mixed(Shuffled(data), Shuffled(255 - data), 0.5)
    seen = []
    ordinary = stacked._Training._batch

    def batch(self, micro, progress):
        seen.append(ordinary(self, micro, progress))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacked._Training, "_batch", batch)
        fit_stacked([[vae(spec, m)] for m in range(3)], [data, data, mixed], spec, both, [7, 7, 7])
    expected = to_space(Batches(data, 8, seed=seed_from(7, 0)).batch(0), spec)
    pooled = to_space(Batches(mixed, 8, seed=seed_from(7, 0)).batch(0), spec)
    first = seen[1]
    assert torch.equal(first[1], expected)
    for m, plain in ((0, expected), (2, pooled)):
        same = (first[m] == plain).flatten(1).all(1) | (first[m] == plain.flip(3)).flatten(1).all(1)
        assert bool(same.all())
        assert not torch.equal(first[m], plain)


def test_bf16_is_near_fp32_and_weights_stay_fp32(monkeypatch):
    monkeypatch.setattr("diled.api.has_bf16", lambda kind: True)
    one, half = (stacked_plain(settings=config(steps=5, precision=p)) for p in ("fp32", "bf16"))
    for a, b in zip(one.densities, half.densities, strict=True):
        assert weights(b).dtype == torch.float32
        assert not torch.equal(weights(a), weights(b))
        torch.testing.assert_close(weights(a), weights(b), atol=0.1, rtol=0)


def test_compiled_is_asked_for_once(monkeypatch):
    """What is compiled is what was measured to be right without it."""
    made = []
    monkeypatch.setattr(torch, "compile", lambda f, **options: made.append(f) or f)
    compiled, plain = stacked_plain(settings=config(compile=True)), stacked_plain()
    assert len(made) == 1
    assert torch.equal(weights(compiled.densities[0]), weights(plain.densities[0]))


def test_members_with_batchnorm_have_running_moments_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("diled.distributions.Normal.sample", lambda q, noise=None: q.mean)
    net = model_config("vae", {"network": {"kind": "residual", "channels": 4}, "latent_dim": 4, "rate_warmup": 0.0})
    fixed = NOISY.model_copy(update={"binarize": "threshold"})
    c, data = (
        config(steps=4, accumulate=2, ema=0.5, learning_rate=0.002),
        torch.randint(0, 256, (2, 20, 1, 8, 8), dtype=torch.uint8),
    )
    recipes, ones = ([build("vae", net, fixed, seed=m) for m in range(2)] for _ in range(2))
    found = fit_stacked([r.stages for r in recipes], list(data), fixed, c, [0, 1])
    for m, (density, one) in enumerate(zip(found.densities, ones, strict=True)):
        own = c.model_copy(update={"seed": m, "monitor_every": 99})
        fit(one.model, one.stages, data[m], data[m], fixed, own, tmp_path / str(m), say=lambda line: None)
        torch.testing.assert_close(density.state_dict(), one.model.state_dict(), rtol=1e-3, atol=1e-4)
        assert int(density.state_dict()["encoder.network.net.1.num_batches_tracked"]) == 8


class Counting(Plain):
    """Counts its steps in a buffer, and a member that begins at 100 breaks at the third."""

    def terms(self, q, *, exact=False, progress=1.0):
        self.shift.add_(1.0)
        terms = super().terms(q - self.shift, exact=exact, progress=progress)
        return terms | {"break": (102.5 - self.shift[0]).sqrt().expand(len(q))}


def test_a_member_that_stops_keeps_the_buffers_from_before():
    pair, said = [Counting(0), Counting(0)], []
    pair[1].shift.fill_(100.0)
    found = fit_stacked(stages(*pair), [values(0), values(1)], SPEC, config(steps=5), [0, 1], say=said.append)
    assert [float(d.shift[0]) for d in found.densities] == [5.0, 102.0]
    assert list(found.stopped) == [1]
    assert "'break' is nan" in said[0]
    assert "stopped at step 3" in said[0]


def test_frozen_parts_stay_and_may_differ():
    pair = [Plain(0), Plain(1)]
    before = [d.inward.weight.detach().clone() for d in pair]
    each = [[Stage("fit", d, frozen=(d.inward,))] for d in pair]
    found = fit_stacked(each, [values(0), values(1)], SPEC, BASE, [0, 1])
    for d, kept in zip(found.densities, before, strict=True):
        assert torch.equal(d.inward.weight, kept)
        assert d.inward.weight.requires_grad
        assert not torch.equal(d.outward.weight, Plain(found.densities.index(d)).outward.weight)


# What is refused


class Looking(Plain):
    def terms(self, q, *, exact=False, progress=1.0):
        terms = super().terms(q, exact=exact, progress=progress)
        return terms if float(terms["error"].detach().sum()) else {}


def shared():
    one = Plain(0)
    return [one, one]


REFUSED = {
    "other settings": (ConfigError, "differs from member 0 in its part 'model'", [Plain(0), Plain(1, scale=2.0)], {}),
    "other sizes": (ConfigError, "in its part 'inward'", [Plain(0), Plain(1, width=4)], {}),
    "one model twice": (ConfigError, "share weights", shared(), {}),
    "no vmap": (ModelError, "cannot train with stacked weights", [Looking(0), Looking(1)], {}),
    "members": (ConfigError, "There are 1 members, 2 sets of values", [Plain(0)], {}),
    "half asleep": (ConfigError, "half_asleep", [Plain(0), Plain(1)], {"half_asleep": 0.5}),
    "epochs": (ConfigError, "epochs", [Plain(0), Plain(1)], {"epochs": 2.0}),
    "processes": (ConfigError, "devices", [Plain(0), Plain(1)], {"devices": 2}),
    "best of nothing": (ConfigError, "needs validation", [Plain(0), Plain(1)], {"keep": "best"}),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_stacked_is_refused(case):
    kind, words, densities, changes = case
    with pytest.raises(kind, match=words):
        fit_stacked(stages(*densities), [values(0), values(1)], SPEC, config(**changes), [0, 1])


def test_recipes_stages_and_shapes_are_checked():
    pair, data = stages(Plain(0), Plain(1)), [values(0), values(1)]
    with pytest.raises(ConfigError, match=r"training\.learning_rate must be the same"):
        fit_stacked(pair, data, SPEC, [BASE, config(learning_rate=0.1)], [0, 1])
    with pytest.raises(ConfigError, match=r"Member 1 has the stages \['fit', 'fit'\]"):
        fit_stacked([pair[0], pair[1] * 2], data, SPEC, BASE, [0, 1])
    with pytest.raises(ConfigError, match="Member 0 has the stages"):
        fit_stacked([[Stage("fit", Plain(0), share=0)], pair[1]], data, SPEC, BASE, [0, 1])
    with pytest.raises(DataError, match="member 1 have the shape"):
        fit_stacked(pair, [data[0], data[1][:, :2]], SPEC, BASE, [0, 1])
    with pytest.raises(ConfigError, match="only then"):
        fit_stacked(pair, data, SPEC, BASE, [0, 1], validation=data[0])


def test_settings_are_compared_by_what_they_mean():
    def weight(beta):
        return lambda progress: beta * progress

    same = [
        (weight(2.0), weight(2.0)),
        (functools.partial(weight, 1.0), functools.partial(weight, 1.0)),
        (SimpleNamespace(a=[1, torch.ones(2)]), SimpleNamespace(a=[1, torch.ones(2)])),
        (Holder(1).value, Holder(1).value),
    ]
    for a, b in same:
        assert stacked._alike(a, b)
    unlike = [
        (weight(2.0), weight(3.0)),
        (functools.partial(weight, 1.0), functools.partial(weight, 2.0)),
        (SimpleNamespace(a=[1, torch.ones(2)]), SimpleNamespace(a=[1, torch.zeros(2)])),
        (Holder(1).value, Holder(2).value),
        (1, 1.0),
        ((1, 2), (1,)),
    ]
    for a, b in unlike:
        assert not stacked._alike(a, b)


class Holder:
    def __init__(self, x):
        self.x = x

    def value(self):
        return self.x


@pytest.mark.parametrize("name", ["diled", "lsgm", "diled_paper", "hierarchical_vae", "edm"])
def test_models_of_the_family_are_alike_across_seeds(name):
    a, b = (build(name, model_config(name, {}), NOISY, seed=m).stages[0].density for m in range(2))
    stacked._check_alike([a, b])
