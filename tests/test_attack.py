"""Attacks and the robustness gap, against closed forms of linear models, published code's optimiser, captum, and loops."""

from __future__ import annotations

import math
import warnings
from functools import partial

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from captum.robust import PGD
from closed_forms import GaussianDenoiser, alpha_sigma, mean_and_error
from torch import nn

from diled.api import NoBound
from diled.diffusion import Diffusion, LinearLogSNR
from diled.distributions import Normal
from diled.draws import BlockNoise
from diled.errors import ConfigError, DataError, ModelError
from diled.evaluation.attack import Attack, paper_attack, plateau_sgd, random_attack, sign_attack, sign_pgd, skl
from diled.evaluation.robustness import (
    jacobian_norm,
    local_lipschitz,
    purified,
    robustness,
    robustness_gap,
    stratified,
)
from diled.evaluation.similarity import (
    SIMILARITIES,
    closeness,
    from_unit,
    ms_ssim,
    ms_ssim_kuzina,
    psnr,
    ssim,
    to_unit,
)
from diled.models.autoencoder import Autoencoder, DiracEncoder, GaussianEncoder, GaussianLikelihood, LikelihoodDecoder
from diled.models.priors import Standardized, StandardNormal

WEIGHTS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
C1 = 1e-4


# ---------------------------------------------------------------------------------------------------- similarity


def loops(x: np.ndarray, y: np.ndarray, window: int) -> tuple[float, float]:
    """mean(l cs) and mean(cs) of one image (C, H, W), window after window."""
    k = min(window, *x.shape[1:])
    one = np.array([math.exp(-((i - k // 2) ** 2) / (2 * 1.5**2)) for i in range(k)])
    w = np.outer(one, one) / one.sum() ** 2
    both, contrast = [], []
    for c in range(x.shape[0]):
        for i in range(x.shape[1] - k + 1):
            for j in range(x.shape[2] - k + 1):
                a, b = x[c, i : i + k, j : j + k], y[c, i : i + k, j : j + k]
                m, n = (w * a).sum(), (w * b).sum()
                v_a, v_b, cov = (w * (a - m) ** 2).sum(), (w * (b - n) ** 2).sum(), (w * (a - m) * (b - n)).sum()
                contrast.append((2 * cov + 0.03**2) / (v_a + v_b + 0.03**2))
                both.append(contrast[-1] * (2 * m * n + 0.01**2) / (m**2 + n**2 + 0.01**2))
    return float(np.mean(both)), float(np.mean(contrast))


def halved(x: np.ndarray) -> np.ndarray:
    h, w = x.shape[1] // 2, x.shape[2] // 2
    return x[:, : 2 * h, : 2 * w].reshape(len(x), h, 2, w, 2).mean((2, 4)) if min(h, w) else x


def pair(size: tuple[int, ...], noise: float = 0.2, n: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth pictures and noisy ones, float64, in [0, 1]."""
    x = torch.rand(n, size[0], 4, 4, dtype=torch.float64)
    x = nn.functional.interpolate(x, size[1:], mode="bilinear")
    return x, (x + noise * torch.randn_like(x)).clamp(0, 1)


def test_one_scale_is_ssim_by_loops():
    x, y = pair((2, 13, 17))
    want = [loops(a.numpy(), b.numpy(), 11)[0] for a, b in zip(x, y, strict=True)]
    assert np.allclose(ssim(x, y), want, atol=1e-9)
    assert np.allclose(ms_ssim(x, y, scales=1), want, atol=1e-9)
    want = [loops(a.numpy(), b.numpy(), 6)[0] for a, b in zip(x, y, strict=True)]
    assert np.allclose(ssim(x, y, window=6), want, atol=1e-9)


@pytest.mark.parametrize("size", [(1, 28, 28), (3, 16, 16), (1, 8, 8)])
def test_kuzina_by_loops(size):
    """prod(cs_j^w_j * ssim_5^w_5) over the first four scales, as the published code has it."""
    x, y = pair(size)
    for i in range(len(x)):
        a, b, both, contrast = x[i].numpy(), y[i].numpy(), [], []
        for _ in range(5):
            for found, value in zip((both, contrast), loops(a, b, 14), strict=True):
                found.append(max(value, 0.0))
            a, b = halved(a), halved(b)
        want = np.prod([c**w * both[4] ** WEIGHTS[4] for c, w in zip(contrast[:4], WEIGHTS[:4], strict=True)])
        assert math.isclose(float(ms_ssim_kuzina(x, y)[i]), want, rel_tol=1e-8)


def test_standard_by_loops():
    """Two full windows fit into 28 pixels."""
    x, y = pair((1, 28, 28), n=1)
    a, b = x[0].numpy(), y[0].numpy()
    share = WEIGHTS[0] / (WEIGHTS[0] + WEIGHTS[1])
    want = loops(a, b, 11)[1] ** share * loops(halved(a), halved(b), 11)[0] ** (1 - share)
    assert math.isclose(float(ms_ssim(x, y)), want, rel_tol=1e-8)


@pytest.mark.parametrize(("size", "scales"), [(8, 1), (16, 1), (22, 2), (32, 2), (44, 3), (88, 4), (176, 5), (400, 5)])
def test_constant_images_by_hand(size, scales):
    """Without contrast only the luminance of the last scale counts."""
    a, b = 0.3, 0.8
    x, y = torch.full((2, 1, size, size), a).double(), torch.full((2, 1, size, size), b).double()
    luminance = (2 * a * b + C1) / (a**2 + b**2 + C1)
    last = WEIGHTS[scales - 1] / (sum(WEIGHTS[:scales]) if scales < 5 else 1)
    assert torch.allclose(ms_ssim(x, y), torch.tensor(luminance**last).double())
    assert torch.allclose(ssim(x, y), torch.tensor(luminance).double())
    assert torch.allclose(ms_ssim_kuzina(x, y), torch.tensor(luminance ** (4 * WEIGHTS[4])).double())


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("size", [(1, 8, 8), (3, 28, 20)])
def test_equal_is_one_symmetric_and_falling_with_noise(name, size):
    similarity = SIMILARITIES[name]
    x, y = pair(size)
    assert bool((similarity(x.float(), x.float()) == 1).all())  # exactly
    assert torch.allclose(similarity(x, y), similarity(y, x), atol=1e-12)
    noise = torch.randn_like(x)
    values = [similarity(x, (x + s * noise).clamp(0, 1)) for s in (0, 0.03, 0.1, 0.3, 1)]
    assert all(bool((a > b).all()) for a, b in zip(values[:-1], values[1:], strict=True))
    assert bool((values[-1] >= 0).all())


def test_opposite_contrast_counts_as_zero_at_many_scales():
    stripes = (torch.arange(16) % 2).double().expand(1, 1, 16, 16)
    assert float(ssim(stripes, 1 - stripes)) < -0.5
    assert float(ms_ssim(stripes, 1 - stripes)) == 0
    assert float(ms_ssim_kuzina(stripes, 1 - stripes)) == 0


def test_errors_of_pixels_by_hand():
    x, y = (torch.full((1, 5), v, dtype=torch.float64) for v in (0.4, 0.5))
    assert math.isclose(float(psnr(x, y)), 20)
    assert math.isclose(float(closeness(x, y)), 0.9)
    assert float(psnr(x, x)) == math.inf


def test_the_two_units():
    x = torch.tensor([-1.0, 0.0, 1.0])
    assert to_unit(x).tolist() == [0, 0.5, 1]
    assert torch.equal(from_unit(to_unit(x)), x)


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (torch.zeros(2, 5), torch.zeros(2, 5), "closeness"),
        (torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 9), "one shape"),
        (torch.full((1, 1, 8, 8), -1.0), torch.zeros(1, 1, 8, 8), "to_unit"),
        (torch.full((1, 1, 8, 8), math.nan), torch.zeros(1, 1, 8, 8), "finite"),
    ],
)
def test_similarity_refuses_in_words(x, y, says):
    with pytest.raises(DataError, match=says):
        ms_ssim(x, y)


def test_scales_and_windows_that_do_not_exist():
    x = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ConfigError, match="scales = 6"):
        ms_ssim(x, x, scales=6)
    with pytest.raises(ConfigError, match="window = 0"):
        ssim(x, x, window=0)


# --------------------------------------------------------------------------------------------------------- models

SIDE = 4
PIXELS = SIDE * SIDE


class Linear(nn.Module):
    """mean = W x, variance v."""

    def __init__(self, w: torch.Tensor, v: float | torch.Tensor = 1.0) -> None:
        super().__init__()
        self.w = nn.Parameter(w)
        self.v = torch.as_tensor(v, dtype=w.dtype)

    def forward(self, x: torch.Tensor) -> Normal:
        mean = x.flatten(1) @ self.w.T
        return Normal(mean, self.v.log().expand_as(mean))


class Times(nn.Module):
    """z -> k z, as images."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.k * z.reshape(-1, 1, SIDE, SIDE)


def copies(k: float, prior: nn.Module | None = None, v: float = 1e-4) -> Autoencoder:
    """The code is the image with a little noise, and is decoded as k times itself."""
    encoder = Linear(torch.eye(PIXELS, dtype=torch.float64), v)
    decoder = LikelihoodDecoder(Times(k), GaussianLikelihood(1.0))
    decoder.forward = lambda z: Normal(decoder.network(z), torch.zeros((), dtype=torch.float64))  # float64 throughout
    return Autoencoder(encoder, decoder, prior or StandardNormal((PIXELS,)))


def net(outputs: int, dropout: float = 0.0) -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(PIXELS, 24), nn.Dropout(dropout), nn.Tanh(), nn.Linear(24, outputs)]
    return nn.Sequential(*layers).double()


class Curved(nn.Module):
    """A Gaussian encoder in float64, steep enough to be worth an attack."""

    def __init__(self, d: int = 3) -> None:
        super().__init__()
        self.network = net(2 * d)

    def forward(self, x: torch.Tensor) -> Normal:
        mean, log_var = (2 * self.network(x)).chunk(2, 1)
        return Normal(mean, log_var)


def images(n: int = 6, low: float = -0.95, high: float = 0.95) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, 1, SIDE, SIDE, dtype=torch.float64)


def gain_of(encoder, u):  # type: ignore[no-untyped-def]
    """SKL to the code at u, written out."""
    with torch.no_grad():
        q = encoder(2 * u - 1)

    def gain(v: torch.Tensor) -> torch.Tensor:
        p = encoder(2 * v - 1)
        a, b, square = p.log_var.exp(), q.log_var.exp(), (p.mean - q.mean) ** 2
        return (0.25 * (a / b + b / a + square / a + square / b) - 0.5).expand_as(p.mean).sum(1)

    return gain


# -------------------------------------------------------------------------------------------------------- attacks


def test_skl_is_the_integral():
    """1/2 int (p - q) log(p / q), dimension by dimension."""
    m, s = torch.tensor([[0.3, -1.0]]).double(), torch.tensor([[0.5, 1.2]]).double()
    n, t = torch.tensor([[1.0, -0.4]]).double(), torch.tensor([[0.8, 0.6]]).double()
    want = 0.0
    for i in range(2):
        p, q = scipy.stats.norm(m[0, i].item(), s[0, i].item()), scipy.stats.norm(n[0, i].item(), t[0, i].item())
        want += scipy.integrate.quad(
            lambda z, p=p, q=q: 0.5 * (p.pdf(z) - q.pdf(z)) * (p.logpdf(z) - q.logpdf(z)), -9, 9, limit=200
        )[0]
    p, q = Normal(m, 2 * s.log()), Normal(n, 2 * t.log())
    assert math.isclose(float(skl(p, q)), want, rel_tol=1e-8)
    assert torch.allclose(skl(p, q), skl(q, p))
    v = torch.full_like(m, 0.3)
    assert torch.allclose(skl(Normal(m, v.log()), Normal(n, v.log())), ((m - n) ** 2).sum(1) / (2 * 0.3))


def test_the_best_attack_of_one_dimension_is_a_corner():
    """e* = +- radius sign(w); in pixels of [0, 1] the encoder's slope is 2 w."""
    w, v, radius = torch.randn(1, PIXELS, dtype=torch.float64), 0.4, 0.05
    x = images(3, -0.5, 0.5)
    found = sign_attack(Linear(w, v), x, radius)
    e = to_unit(found.attacked) - to_unit(x)[:, None]
    corner = radius * w.sign().reshape(1, 1, 1, SIDE, SIDE)
    assert bool((torch.isclose(e, corner) | torch.isclose(e, -corner)).all())
    assert torch.allclose(found.reached, ((radius * 2 * w.abs().sum()) ** 2 / (2 * v)).expand_as(found.reached))
    assert found.attacked.shape[1] == 1


def test_the_paper_attack_of_one_dimension_is_a_corner_within_the_range_of_the_image():
    """Of each restart one of the two corners, cut to the image's own range."""
    w, v, radius, x = torch.randn(1, PIXELS, dtype=torch.float64), 0.4, 0.05, images(3)
    found = paper_attack(Linear(w, v), x, radius)
    u, corner = to_unit(x), radius * w.sign().reshape(1, 1, SIDE, SIDE)
    low, high = (end.reshape(-1, 1, 1, 1) for end in (u.flatten(1).amin(1), u.flatten(1).amax(1)))
    two = torch.stack([(u + corner).clamp(low, high), (u - corner).clamp(low, high)], 1)
    same = torch.isclose(to_unit(found.attacked)[:, :, None], two[:, None]).flatten(3).all(3)
    assert bool((same.sum(2) == 1).all())
    skls = (2 * (two - u[:, None]).flatten(2) @ w[0]) ** 2 / (2 * v)
    assert torch.allclose(found.reached, (same * skls[:, None]).sum(2))
    assert found.attacked.shape[1] == 10


@pytest.mark.parametrize("attack", [sign_attack, paper_attack, random_attack])
@pytest.mark.parametrize("radius", [0.02, 0.3, 1.0])
def test_attacks_stay_in_the_ball_and_in_the_range(attack, radius):
    x = images()
    x[0, 0, 0, :2] = torch.tensor([-1.0, 1.0])
    u, found = to_unit(x)[:, None], to_unit(attack(Curved(), x, radius, restarts=4).attacked)
    assert float((found - u).abs().max()) <= radius + 1e-12
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    if attack is paper_attack:  # which stays in each image's own range
        assert bool((found.flatten(2).amin(2) >= u.flatten(2).amin(2) - 1e-12).all())
        assert bool((found.flatten(2).amax(2) <= u.flatten(2).amax(2) + 1e-12).all())


def one_by_one(gain, u, e, radius, steps, rate):  # type: ignore[no-untyped-def]
    """The published loop, with torch's own optimiser and scheduler, for one image."""
    e = nn.Parameter(e.clone())
    optimizer = torch.optim.SGD([e], lr=rate)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=20, factor=0.5)
    for _ in range(steps):
        e.data = torch.clamp(u + e.data, u.min(), u.max()) - u
        optimizer.zero_grad()
        loss = -gain(u + e)
        loss.backward()
        optimizer.step()
        scheduler.step(loss.item())
        e.data = torch.clamp(e.data, -radius, radius)
        if optimizer.param_groups[0]["lr"] < 1e-6:
            break
    return torch.clamp(u + e.data, u.min(), u.max()), optimizer.param_groups[0]["lr"]


def wavy(u: torch.Tensor) -> torch.Tensor:
    """No step of size one stands still on it."""
    return torch.sin(9 * u).flatten(1).mean(1) + 0.3 * torch.cos(31 * u).flatten(1).mean(1)


@pytest.mark.parametrize(("steps", "rate"), [(50, 1.0), (130, 1.0), (130, 5e-6)])
def test_the_published_loop_in_batches(steps, rate):
    """Rates are halved row by row, as by torch's scheduler, and end below 1e-6."""
    u, noise = to_unit(images(8)), 0.2 * torch.randn(8, 1, SIDE, SIDE, dtype=torch.float64)
    gain = wavy if rate == 1 else lambda v: -1e3 * v.flatten(1).sum(1) ** 2
    found, reached = plateau_sgd(gain, u, noise, 0.3, steps=steps, step_size=rate)
    rates = []
    for i in range(len(u)):
        want, last = one_by_one(gain, u[i : i + 1], noise[i : i + 1], 0.3, steps, rate)
        rates.append(last)
        assert torch.allclose(found[i : i + 1], want, atol=1e-9)
    assert torch.allclose(reached, gain(found))
    assert steps < 100 or min(rates) < rate


def test_a_rate_below_the_last_ends_the_ascent():
    """From a rate of 1.5e-6 the first halving ends it: after that nothing moves, whatever the steps."""
    u = to_unit(images(3))
    falling = [0.0]

    def gain(v: torch.Tensor) -> torch.Tensor:  # ever worse, with a steady gradient
        falling[0] += 1
        return 1e4 * v.flatten(1).sum(1) - 1e9 * falling[0]

    short, _ = plateau_sgd(gain, u, torch.zeros_like(u), 1.0, steps=22, step_size=1.5e-6)
    falling[0] = 0.0
    long, _ = plateau_sgd(gain, u, torch.zeros_like(u), 1.0, steps=60, step_size=1.5e-6)
    assert torch.equal(short, long)
    assert not torch.equal(short, u)


def test_a_slow_fall_does_not_count_as_standing_still():
    """Each gain is compared with the one before where that was better than 0.9999 times the best: torch's rule."""
    u, calls = torch.tensor([0.0, 0.5, 1.0]).double().expand(2, 3), [0]

    def gain(v: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        x = v.sum(1)
        return 1e-3 * (x - x.detach()) + 100 * (1 - 5e-5) ** calls[0]

    found, _ = plateau_sgd(gain, u, torch.zeros_like(u), 1.0, steps=60)
    assert torch.allclose(found[:, 1], torch.tensor(0.5 + 60 * 1e-3).double())


def test_the_paper_attack_starts_where_the_paper_does():
    """0.2 N(0, 1) for every restart of every example, in pixels of [0, 1]."""
    encoder, x = Curved(), images(3)
    rows = to_unit(x).repeat_interleave(4, 0)
    noise = BlockNoise(5, dtype=torch.float64)(tuple(rows.shape))
    want, reached = plateau_sgd(gain_of(encoder, rows), rows, 0.2 * noise, 0.1, steps=3, step_size=0.01)
    found = paper_attack(encoder, x, 0.1, restarts=4, steps=3, step_size=0.01, seed=5)
    assert torch.allclose(to_unit(found.attacked).flatten(0, 1), want, atol=1e-9)
    assert torch.allclose(found.reached.flatten(), reached)


class _From(PGD):
    """captum's PGD from a start that is given."""

    def _random_point(self, center, radius, norm, mask):  # type: ignore[no-untyped-def]
        return self.start


@pytest.mark.parametrize("curved", [True, False])
def test_sign_pgd_is_captums(curved):
    """Its iterates, of which ours keeps the best. captum climbs the loss unless the attack is `targeted`."""
    u, radius, steps = to_unit(images()), 0.3, 7
    start = radius * (2 * torch.rand_like(u) - 1)
    gain = gain_of(Curved(), u) if curved else wavy
    iterates = []
    for k in range(steps + 1):
        pgd = _From(gain, lambda out, target: out, lower_bound=0.0, upper_bound=1.0)
        pgd.start = (u + start).clamp(0, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum says that it sets `requires_grad`
            iterates.append(pgd.perturb(u, radius, 2.5 * radius / steps, k, target=0, random_start=True))
    values = torch.stack([gain(v) for v in iterates])
    found, reached = sign_pgd(gain, u, start, radius, steps=steps)
    assert torch.allclose(reached, values.max(0).values)
    best = torch.stack(iterates)[values.argmax(0), torch.arange(len(u))]
    assert torch.allclose(found, best, atol=1e-12)
    assert curved or int(values.argmax(0).min()) < steps - 1  # the last iterates would not do


def test_sign_attack_is_the_best_of_its_restarts_and_beats_the_others():
    encoder, x, radius = Curved(), images(12), 0.1
    some = sign_attack(encoder, x, radius, restarts=8).reached[:, 0]
    rows = to_unit(x).repeat_interleave(8, 0)
    noise = BlockNoise(0, dtype=torch.float64)(tuple(rows.shape))
    start = radius * (2 * torch.distributions.Normal(0, 1).cdf(noise) - 1)  # uniform in the ball
    _, each = sign_pgd(gain_of(encoder, rows), rows, start, radius)
    assert torch.allclose(some, each.reshape(12, 8).max(1).values)
    strong = sign_attack(encoder, x, radius).reached[:, 0]
    assert bool((strong >= random_attack(encoder, x, radius, restarts=50).reached.max(1).values).all())
    assert bool((strong >= paper_attack(encoder, x, radius).reached.max(1).values - 1e-9).all())


def test_random_corners():
    x = images(4, -0.5, 0.5)
    found = random_attack(Curved(), x, 0.1, restarts=30)
    e = to_unit(found.attacked) - to_unit(x)[:, None]
    assert torch.allclose(e.abs(), torch.full_like(e, 0.1))
    assert abs(float(e.sign().mean())) < 4 / math.sqrt(e.numel())


@pytest.mark.parametrize("target", ["means", "damage"])
def test_other_targets_of_copies_are_known(target):
    """Code and image move by 2 e: |2 e|^2; decoded pixels in [0, 1] by k e."""
    model, radius, k = copies(1.5), 0.05, 1.5
    found = sign_attack(model.encoder, images(3, -0.5, 0.5), radius, target=target, decode=model.decode, restarts=2)
    want = PIXELS * radius**2 * (4 if target == "means" else k**2)
    assert torch.allclose(found.reached, torch.tensor(want).double())


def test_attacks_depend_on_the_seed_alone():
    encoder, x = Curved(), images(7)
    for attack in (paper_attack, partial(sign_attack, steps=10), random_attack):
        state = torch.get_rng_state()
        one, same = attack(encoder, x, 0.1, restarts=3, seed=4), attack(encoder, x, 0.1, restarts=3, seed=4, batch=5)
        assert torch.allclose(one.attacked, same.attacked, atol=1e-8)
        assert torch.allclose(one.reached, same.reached)
        some = attack(encoder, x[:2], 0.1, restarts=3, seed=4)
        assert torch.allclose(one.attacked[:2], some.attacked, atol=1e-8)
        other = attack(encoder, x, 0.1, restarts=3, seed=5, **({} if attack is random_attack else {"steps": 1}))
        assert not torch.allclose(one.attacked, other.attacked)
        assert torch.equal(state, torch.get_rng_state())


def test_the_model_is_left_as_it_was():
    """Dropout is off under attack; modes, flags and gradients stay, whatever they were."""
    encoder = GaussianEncoder(net(6, dropout=0.5).float()).train()
    encoder.network[1].weight.requires_grad_(False)
    encoder.network[3].eval()
    before = [(m, m.training) for m in encoder.modules()], [p.requires_grad for p in encoder.parameters()]
    x = images(3).float()
    one, two = (sign_attack(encoder, x, 0.1, restarts=2, steps=5, batch=b) for b in (2, 100))
    assert torch.allclose(one.reached, two.reached, rtol=1e-4)
    jacobian_norm(encoder, x)
    assert before == ([(m, m.training) for m in encoder.modules()], [p.requires_grad for p in encoder.parameters()])
    assert all(p.grad is None for p in encoder.parameters())


# ------------------------------------------------------------------------------------------------------------ the gap


@pytest.mark.parametrize("attack", [paper_attack, sign_attack, random_attack])
def test_at_radius_zero_the_gap_is_exactly_zero(attack):
    model = copies(1.3, v=0.3)  # codes with much noise, the same for both
    found = robustness(model, images().float().double(), attack=attack, radii=(0.0,))[0]
    assert found.gap == 0
    assert float(found.gaps.abs().max()) == 0
    assert float(found.skl.max()) == 0
    assert (found.low, found.high) == (0, 0)


def test_the_gap_of_copies_by_hand():
    """A copy at k times the contrast differs by k e where the image does by e: with 1 - mean |.| the gap is (k - 1) |e|."""
    x, k, v = images(5, -0.3, 0.3), 1.4, 1e-4
    found = robustness(copies(k, v=v), x, attack=sign_attack, radii=(0.02, 0.1), similarity=closeness)
    for result, radius in zip(found, (0.02, 0.1), strict=True):
        assert torch.allclose(result.gaps, torch.tensor((k - 1) * radius).double())
        assert math.isclose(result.gap, (k - 1) * radius, rel_tol=1e-6)
        assert torch.allclose(result.input_similarity, torch.tensor(1 - radius).double())
        assert torch.allclose(result.reconstruction_similarity, torch.tensor(1 - k * radius).double())
        assert torch.allclose(result.skl, torch.tensor(PIXELS * (2 * radius) ** 2 / (2 * v)).double())
        assert result.radius == radius


def test_the_gap_grows_with_the_radius():
    for attack in (partial(paper_attack, restarts=3), partial(sign_attack, restarts=3, steps=20)):
        found = robustness(copies(2.0), images(8, -0.4, 0.4), attack=attack, radii=(0.0, 0.02, 0.05, 0.1))
        gaps = [r.gap for r in found]
        assert gaps[0] == 0
        assert all(a < b for a, b in zip(gaps[:-1], gaps[1:], strict=True))


def test_reconstructions_are_of_draws_with_common_noise():
    """Each restart is decoded from a draw of its own, and both images of a pair from the same."""
    model, x = copies(1.0, v=0.04), images(2, -0.2, 0.2)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watching(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append((a, b))
        return closeness(a, b)

    attacked = (x[:, None] + torch.tensor([0.1, -0.1]).double().reshape(1, 2, 1, 1, 1)).clamp(-1, 1)
    attack = Attack(x, attacked, torch.zeros(2, 2), 0.05, "skl")
    robustness_gap(model, attack, similarity=watching)
    (x_r, x_a), (shown_r, shown_a) = seen
    assert torch.allclose(shown_a - shown_r, x_a - x_r)
    noise = (shown_r - x_r) * 2 / 0.2
    assert 0.8 < float(noise.std()) < 1.2
    assert not torch.allclose(noise[0], noise[1])


def test_the_gap_does_not_depend_on_the_batch():
    model, x = copies(1.7, v=0.01), images(5)
    attack = random_attack(model.encoder, x, 0.1, restarts=3)
    one, two = (robustness_gap(model, attack, batch=b) for b in (4, 1000))
    assert torch.allclose(one.gaps, two.gaps)
    assert torch.allclose(one.skl, two.skl)


def test_the_interval_is_a_bootstrap_over_references():
    model, x = copies(1.7), images(40)
    found = robustness_gap(model, random_attack(model.encoder, x, 0.1, restarts=2), resamples=5000)
    want = scipy.stats.bootstrap(
        (found.gaps.numpy(),), np.mean, n_resamples=5000, method="percentile"
    ).confidence_interval
    width = want.high - want.low
    assert abs(found.low - want.low) < 0.05 * width
    assert abs(found.high - want.high) < 0.05 * width
    assert found.low < found.gap < found.high


def test_references_are_drawn_from_each_class_in_proportion():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    for n, counts in ((10, [6, 3, 1]), (50, [30, 15, 5]), (100, [60, 30, 10])):
        rows = stratified(labels, n, seed=1)
        assert np.bincount(labels[rows]).tolist() == counts
        assert len(np.unique(rows)) == n
    assert (stratified(labels, 20, 3) == stratified(labels, 20, 3)).all()
    assert (stratified(labels, 20, 3) != stratified(labels, 20, 4)).any()
    x = images(12)
    found = robustness(copies(1.0), x, attack=random_attack, references=4, labels=np.arange(12) % 4)[0]
    rows = stratified(np.arange(12) % 4, 4)
    assert torch.allclose(found.attack.reference, x[rows])
    with pytest.raises(DataError, match="13 references"):
        stratified(np.arange(12), 13)


# ----------------------------------------------------------------------------------------------------- purification

MEAN, VAR = torch.tensor(0.3).double(), torch.tensor(0.09).double()


def gaussian_prior() -> Diffusion:
    """The exact diffusion of codes ~ N(0.3, 0.09)."""

    class Exact(nn.Module):
        def forward(self, z, log_snr, condition=None):  # type: ignore[no-untyped-def]
            return GaussianDenoiser(MEAN, VAR)(z, log_snr)

    return Diffusion(Exact(), LinearLogSNR(-9.0, 6.0).double(), (PIXELS,), sampler="heun", steps=400)


def contraction(level: float) -> tuple[torch.Tensor, ...]:
    """(c, m_0, a m_0, b) of z' = m_0 + c (a z + b e - m_t): the ODE keeps (z - m_t) / std_t."""
    g0, gt = torch.tensor(-9.0).double(), torch.tensor(-9.0 + 15 * level).double()
    (a0, s0), (at, st) = alpha_sigma(g0), alpha_sigma(gt)
    a = at / a0
    c = ((a0**2 * VAR + s0**2) / (at**2 * VAR + st**2)).sqrt()
    return c, a0 * MEAN, at * MEAN, a, (st**2 - a**2 * s0**2).sqrt()


@pytest.mark.parametrize("level", [0.2, 0.5, 0.9])
def test_purified_codes_in_closed_form(level):
    z, e = torch.randn(4, PIXELS, dtype=torch.float64), torch.randn(4, PIXELS, dtype=torch.float64)
    c, m_0, m_t, a, b = contraction(level)
    want = m_0 + c * (a * z + b * e - m_t)
    found = purified(copies(1.0, gaussian_prior()), z, level, noise=lambda shape: e)
    assert torch.allclose(found, want, atol=2e-3)
    outer = Standardized(gaussian_prior(), (PIXELS,)).double()
    outer.mean.fill_(0.7)
    outer.std.fill_(3.0)
    assert torch.allclose(
        purified(copies(1.0, outer), 3 * z + 0.7, level, noise=lambda s: e), 3 * want + 0.7, atol=6e-3
    )


def test_purified_codes_of_the_prior_stay_codes_of_the_prior():
    z = MEAN + VAR.sqrt() * torch.randn(400, PIXELS, dtype=torch.float64)
    model = copies(1.0, gaussian_prior())
    assert torch.equal(purified(model, z, 0.0), z)
    found = purified(model, z, 0.6, steps=60).flatten()
    mean, error = mean_and_error(found)
    assert abs(mean - float(MEAN)) < 5 * error
    assert abs(float(found.std()) - 0.3) < 0.01
    assert abs(float(torch.corrcoef(torch.stack([found, z.flatten()]))[0, 1])) < 0.7


def test_purification_shrinks_the_gap_as_the_closed_form_says():
    """Codes that differ by d differ by c a d afterwards."""
    k, radius = 1.4, 0.05
    model, x = copies(k, gaussian_prior()), images(4, -0.2, 0.2)
    attack = random_attack(model.encoder, x, radius, restarts=2)
    for level in (0.0, 0.1, 0.4):
        c, _, _, a, _ = contraction(level)
        found = robustness_gap(model, attack, similarity=closeness, level=level)
        assert math.isclose(found.gap, (k * float(c * a) - 1) * radius, abs_tol=1e-4)


# ---------------------------------------------------------------------------------------------------------- steepness


def test_jacobian_of_a_linear_encoder():
    w, v = torch.randn(3, PIXELS, dtype=torch.float64), torch.tensor([0.5, 1.0, 4.0])
    x = images(5)
    found = jacobian_norm(Linear(w, v), x, batch=2)
    assert found.method == "exact"
    assert torch.allclose(found.norm, (2 * w.norm()).expand(5))
    assert torch.allclose(found.scaled, (2 * (w / v.sqrt()[:, None]).norm()).expand(5))
    guess = jacobian_norm(Linear(w, v), x, probes=4000)
    assert guess.method == "Hutchinson, 4000 probes"
    assert torch.allclose(guess.norm, found.norm, rtol=0.03)
    assert torch.allclose(guess.scaled, found.scaled, rtol=0.03)
    few = jacobian_norm(Linear(torch.eye(PIXELS).double(), 4.0), x, probes=3)  # orthogonal rows: any signs will do
    assert torch.allclose(few.norm, torch.tensor(2 * math.sqrt(PIXELS)).double())
    assert torch.allclose(few.scaled, torch.tensor(math.sqrt(PIXELS)).double())
    assert jacobian_norm(Linear(w, v), x, most=2).method == "Hutchinson, 32 probes"


def test_jacobian_of_a_curved_encoder_is_autograds_and_gives_the_skl_of_small_changes():
    encoder, x = Curved(), images(4)
    found = jacobian_norm(encoder, x)
    for i in range(4):
        jacobian = torch.func.jacrev(lambda u: encoder(2 * u[None] - 1).mean[0])(to_unit(x[i]))
        assert torch.allclose(found.norm[i], jacobian.norm())
        assert torch.allclose(
            found.scaled[i], (jacobian.flatten(1) / encoder(x[i : i + 1]).var[0].sqrt()[:, None]).norm()
        )
    w = torch.randn(2, PIXELS, dtype=torch.float64)  # E |J e|^2 = |J|_F^2 r^2 for random corners
    linear = Linear(w, 0.3)
    reached = random_attack(linear, images(2, -0.5, 0.5), 0.01, restarts=20_000).reached.mean(1)
    assert torch.allclose(reached, 0.5 * (0.01 * jacobian_norm(linear, x[:2]).scaled) ** 2, rtol=0.05)


def test_local_lipschitz_of_one_linear_dimension():
    w = torch.randn(1, PIXELS, dtype=torch.float64)
    encoder, x = Linear(w), images(3, -0.5, 0.5)
    worst = local_lipschitz(encoder, sign_attack(encoder, x, 0.1, target="means"))
    assert torch.allclose(worst, (2 * w.abs().sum() / math.sqrt(PIXELS)).expand(3))
    attack = random_attack(encoder, x, 0.1, restarts=7)
    e = (to_unit(attack.attacked) - to_unit(x)[:, None]).flatten(2)
    want = ((2 * e @ w[0]).abs() / e.norm(dim=2)).max(1).values
    assert torch.allclose(local_lipschitz(encoder, attack, batch=4), want)
    assert float(local_lipschitz(encoder, random_attack(encoder, x, 0.0)).max()) == 0


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("radius", [-0.1, 1.5, math.nan])
def test_a_radius_outside_the_range_is_named(radius):
    with pytest.raises(ConfigError, match=f"radius = {radius}"):
        sign_attack(Curved(), images(), radius)
    with pytest.raises(ConfigError, match=f"radius = {radius}"):
        robustness(copies(1.0), images(), radii=(0.1, radius))


def test_attacks_refuse_in_words():
    encoder, x = Curved(), images()
    with pytest.raises(ConfigError, match="Did you mean 'skl'"):
        paper_attack(encoder, x, 0.1, target="sk")
    with pytest.raises(ConfigError, match="give `decode`"):
        paper_attack(encoder, x, 0.1, target="damage")
    with pytest.raises(ConfigError, match="restarts = 0"):
        sign_attack(encoder, x, 0.1, restarts=0)
    with pytest.raises(ConfigError, match="steps = 0"):
        sign_attack(encoder, x, 0.1, steps=0)
    for wrong in (255 * x.abs(), x * math.nan, x[:0]):
        with pytest.raises(DataError, match=r"\[-1, 1\]"):
            sign_attack(encoder, wrong, 0.1)
    with pytest.raises(ModelError, match="no gradient"):
        sign_attack(lambda x: Normal(x.detach().flatten(1), torch.zeros(())), x, 0.1)
    with pytest.raises(ModelError, match="no gradient"):
        jacobian_norm(lambda x: Normal(x.detach().flatten(1), torch.zeros(())), x)
    with pytest.raises(ModelError, match="NaN"):
        sign_attack(lambda x: Normal(x.flatten(1) * math.nan, torch.zeros(())), x, 0.1)
    with pytest.raises(ConfigError, match="probes = 0"):
        jacobian_norm(encoder, x, probes=0)


def test_a_deterministic_code_has_no_skl_but_means():
    model = Autoencoder(DiracEncoder(net(PIXELS).float()), copies(1.0).decoder, StandardNormal((PIXELS,)))
    x = images(3).float()
    with pytest.raises(NoBound, match="Dirac"):
        robustness(model, x)
    found = robustness(model, x, attack=partial(sign_attack, target="means", steps=5))[0]
    assert found.skl is None
    assert jacobian_norm(model.encoder, x).scaled is None


def test_the_gap_refuses_in_words():
    x = images()
    with pytest.raises(ModelError, match="needs an autoencoder"):
        robustness(StandardNormal((3,)), x)
    with pytest.raises(DataError, match="closeness"):
        robustness(copies(1.0), x.flatten(1))
    with pytest.raises(ConfigError, match="number of `references`"):
        robustness(copies(1.0), x, labels=np.zeros(6))
    with pytest.raises(ModelError, match="StandardNormal"):
        purified(copies(1.0), torch.zeros(2, PIXELS), 0.1)
    model = copies(1.0, gaussian_prior())
    for level in (-0.1, 1.1):
        with pytest.raises(ConfigError, match=f"level = {level}"):
            purified(model, torch.zeros(2, PIXELS), level)
    with pytest.raises(ConfigError, match="steps = 0"):
        purified(model, torch.zeros(2, PIXELS), 0.5, steps=0)
    with pytest.raises(DataError, match="codes of shape"):
        purified(model, torch.zeros(2, 3), 0.5)


def test_vectors_with_a_similarity_of_their_own():
    """Where it is stated, data need not be images."""
    model = copies(1.4)
    found = robustness(model, images(3, -0.3, 0.3).flatten(1), attack=sign_attack, similarity=closeness)
    assert math.isclose(found[0].gap, 0.4 * 0.1, rel_tol=1e-6)
