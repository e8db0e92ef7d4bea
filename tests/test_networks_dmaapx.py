"""The second paper's networks: parameter counts, layout of codes, BatchNorm, likelihoods, and 28 x 28 images within 32 x 32."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tiny import diled as run
from torch import nn
from torch.nn import functional as F

import diled
from diled.config import DataSpec, PreprocessConfig
from diled.data.opening import open_data
from diled.data.pixels import fit
from diled.distributions import Bernoulli, Discretized, LogisticMixture
from diled.errors import ConfigError, DataError
from diled.family import FAMILY, model_config
from diled.models.autoencoder import LogisticMixtureLikelihood
from diled.models.batchnorm import recalibrate
from diled.models.check import check_model
from diled.models.zoo import build
from diled.nn.residual import ResidualBlock, ResidualDecoder, ResidualEncoder
from diled.space import raw_tensor, to_space

COLOUR = DataSpec(kind="image", shape=(3, 32, 32), levels=256)
BINARY = DataSpec(kind="image", shape=(1, 32, 32), levels=2, high=1.0)
GREY = DataSpec(kind="image", shape=(1, 32, 32), levels=256)
SMALL = DataSpec(kind="image", shape=(1, 8, 8), levels=17, high=16.0)


def vae(spec: DataSpec = SMALL, *, latent_dim: int | None = None, name: str = "vae", **values):
    network = {"kind": "residual", "channels": 3} | values.pop("network", {})
    return build(name, model_config(name, values | {"network": network, "latent_dim": latent_dim}), spec)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def examples(spec: DataSpec, n: int = 8) -> torch.Tensor:
    levels = spec.levels - 1
    return 2 * torch.randint(levels + 1, (n, *spec.shape)) / levels - 1


def moved(module: nn.Module) -> nn.Module:
    """Other BatchNorm weights and statistics than those it starts with, in evaluation mode."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.bias, layer.running_mean):
                nn.init.normal_(tensor, std=0.2)
            for tensor in (layer.weight, layer.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return module.eval()


# Sizes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "m"), [(256, 1), (256, 64), (512, 1), (512, 64), *itertools.product((1, 3, 8, 22), (1, 2, 16))]
)
def test_parameters_of_the_residual_network(n, m):
    """Xiao et al. 2024, figure 8: 88 n^2 + (174 + 3 m) n + 100 + 2 m with ten logistics over RGB."""
    with torch.device("meta"):
        model = vae(
            COLOUR, latent_dim=64 * m, likelihood="logistic_mixture", components=10, network={"channels": n}
        ).model
    assert parameters(model) == 88 * n**2 + (174 + 3 * m) * n + 100 + 2 * m
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) == 13


def test_parameters_that_are_read_off_the_paper():
    count = {}
    for n, m in ((256, 1), (256, 64), (512, 1), (512, 64), (8, 1)):
        with torch.device("meta"):
            encoder = ResidualEncoder((3, 32, 32), 128 * m, channels=n)
            count[n, m] = parameters(encoder) + parameters(ResidualDecoder(64 * m, (100, 32, 32), channels=n))
    paper = {(256, 1): 5.813e6, (256, 64): 5.861e6, (512, 1): 2.316e7, (512, 64): 2.326e7, (8, 1): 7142}
    assert count == {key: pytest.approx(value, rel=1.5e-3) for key, value in paper.items()}


def test_parameters_of_the_fully_connected_network():
    values = {"latent_dim": 16, "network": {"kind": "mlp", "width": 512, "depth": 2, "activation": "relu"}}
    model = build("vae", model_config("vae", values), BINARY).model
    assert parameters(model) == 1_600_544
    assert sum(isinstance(layer, nn.ReLU) for layer in model.modules()) == 4
    assert not any(isinstance(layer, nn.SiLU) for layer in model.modules())


def test_the_activation_is_silu_unless_told():
    model = build("vae", model_config("vae", {"network": {"kind": "mlp", "width": 8}}), BINARY).model
    assert sum(isinstance(layer, nn.SiLU) for layer in model.modules()) == 4


@pytest.mark.parametrize(("side", "cells"), [(32, 64), (28, 49), (8, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_codes_lie_on_the_coarse_grid(side, cells, channels):
    spec = DataSpec(kind="image", shape=(channels, side, side), levels=256)
    x = examples(spec, 2)
    for m in (None, 1, 2):
        model = vae(spec, latent_dim=None if m is None else m * cells).model.eval()
        code = model.encode(x)
        assert code.shape == (2, (m or 1) * cells)
        assert model.decode(code).shape == model.sample(2).shape == x.shape
        assert model.bound(x).shape == (2,)


def test_a_grid_needs_no_square():
    spec = DataSpec(kind="image", shape=(1, 8, 16), levels=2)
    model = vae(spec).model.eval()
    assert model.encode(examples(spec)).shape == (8, 8)
    assert model.sample(3).shape == (3, 1, 8, 16)


# The network is the paper's -------------------------------------------------------------------------------------------


def norm(x: torch.Tensor, layer: nn.BatchNorm2d) -> torch.Tensor:
    mean, var, weight, bias = (
        v[:, None, None] for v in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def block(h: torch.Tensor, module: ResidualBlock) -> torch.Tensor:
    wide, first, point, second = (module.net[i] for i in (1, 2, 4, 5))
    inner = norm(F.conv2d(h.relu(), wide.weight, padding=1), first)
    return h + norm(F.conv2d(inner.relu(), point.weight), second)


def test_a_residual_block_by_hand():
    module = moved(ResidualBlock(3))
    h = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(module(h), block(h, module))


def test_the_encoder_by_hand():
    module = moved(ResidualEncoder((2, 8, 12), 3 * 6, channels=8))
    x, net = torch.randn(2, 2, 8, 12), module.net
    h = norm(F.conv2d(x, net[0].weight, stride=2, padding=1), net[1]).relu()
    h = norm(F.conv2d(h, net[3].weight, stride=2, padding=1), net[4])
    h = block(block(h, net[5]), net[6])
    torch.testing.assert_close(module(x), F.conv2d(h, net[7].weight, net[7].bias).flatten(1))
    assert bool((module(x)[0] - module(x)[1]).abs().gt(1e-3).all())  # no part is silent


def test_the_decoder_by_hand():
    module = moved(ResidualDecoder(3 * 6, (5, 8, 12), channels=8))
    z, net = torch.randn(2, 3 * 6), module.net
    h = norm(F.conv2d(z.reshape(2, 3, 2, 3), net[0].weight), net[1])
    h = block(block(h, net[2]), net[3])
    for conv, layer in ((net[4], net[5]), (net[7], net[8])):
        h = norm(F.conv_transpose2d(h, conv.weight, stride=2, padding=1), layer).relu()
    torch.testing.assert_close(module(z), F.conv2d(h, net[10].weight, net[10].bias))
    assert bool((module(z)[0] - module(z)[1]).abs().gt(1e-3).float().mean() > 0.9)


def test_the_first_half_of_the_channels_are_means():
    """The encoder's 2 m channels are flattened one after another: the first m are the means, laid out as the decoder reads."""
    model = vae(latent_dim=8).model.eval()
    x = examples(SMALL)
    raw = model.encoder.network.net(x)
    assert raw.shape == (8, 4, 2, 2)
    posterior = model.encoder(x)
    torch.testing.assert_close(posterior.mean, raw[:, :2].reshape(8, 8))
    torch.testing.assert_close(posterior.log_var, 10 * torch.tanh(raw[:, 2:].reshape(8, 8) / 10))
    torch.testing.assert_close(posterior.mean.unflatten(1, (-1, *model.decoder.network.grid)), raw[:, :2])


def test_codes_and_pictures_correspond_place_by_place():
    """A corner of the picture moves codes near that corner only, and a code's corner moves pixels there only."""
    model = moved(vae(GREY, latent_dim=128, network={"channels": 8}).model)
    x = examples(GREY, 1)
    other = x.clone()
    other[..., :2, -2:] *= -1
    changed = (model.encode(x) - model.encode(other)).abs().reshape(2, 8, 8).amax(0) > 1e-6
    assert bool(changed[0, -1])
    assert not bool(changed[4:].any())
    assert not bool(changed[:, :4].any())
    z = torch.randn(1, 128)
    near = z.reshape(1, 2, 8, 8).clone()
    near[..., 0, -1] += 1
    network = model.decoder.network
    changed = (network(z) - network(near.flatten(1))).abs().amax((0, 1)) > 1e-6
    assert bool(changed[:4, -4:].any())
    assert not bool(changed[16:].any())
    assert not bool(changed[:, :16].any())


@pytest.mark.parametrize("name", ["vae", "diled", "ldm", "diled_levels", "ae"])
def test_the_residual_network_keeps_the_contract(name):
    parts = {"prior": {"width": 8, "blocks": 1}, "level_width": 8, "mixture": 2}
    values = {key: value for key, value in parts.items() if key in FAMILY[name].model_fields}
    recipe = vae(name=name, **values)
    check_model(recipe.model, examples(SMALL), stages=recipe.stages, rebuild=lambda: vae(name=name, **values).model)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "values", "said"),
    [
        (DataSpec(kind="image", shape=(1, 30, 32), levels=2), {}, "divisible by 4"),
        (DataSpec(kind="signal", shape=(1, 32)), {}, "needs images"),
        (DataSpec(kind="vector", shape=(64,)), {}, "needs images"),
        (BINARY, {"latent_dim": 100}, "64 cells for images of 32 x 32: use a multiple, such as 128"),
        (BINARY, {"latent_dim": 16}, "such as 64"),
        (BINARY, {"network": {"kind": "residual", "width": 8}}, "'width' has no effect"),
        (BINARY, {"network": {"kind": "residual", "blocks": 3}}, "'blocks' has no effect"),
        (BINARY, {"network": {"kind": "residual", "activation": "relu"}}, "'activation' has no effect"),
        (COLOUR, {"network": {"kind": "conv", "activation": "relu"}}, "'activation' has no effect"),
        (COLOUR, {"network": {"kind": "auto", "activation": "relu"}}, "'activation' has no effect"),
        (COLOUR, {"network": {"kind": "conv", "channels": 12}}, "multiple of 8"),
        (COLOUR, {"network": {"channels": 4}}, "multiple of 8"),
        (BINARY, {"network": {"kind": "mlp", "activation": "tanh"}}, "'silu' or 'relu'"),
    ],
)
def test_what_does_not_fit_is_refused(spec, values, said):
    values = {"network": {"kind": "residual"}} | values
    with pytest.raises(ConfigError, match=said):
        build("vae", model_config("vae", values), spec)


# Likelihoods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network", [{"kind": "residual", "channels": 3}, {"kind": "mlp", "width": 8, "activation": "relu"}]
)
@pytest.mark.parametrize(
    ("spec", "values", "kind", "outputs"),
    [
        (BINARY, {"likelihood": "bernoulli"}, Bernoulli, 1),
        (GREY, {"likelihood": "gaussian", "std": 0.2}, Discretized, 1),
        (GREY, {"likelihood": "logistic_mixture", "components": 10}, LogisticMixture, 30),
        (COLOUR, {"likelihood": "logistic_mixture", "components": 10}, LogisticMixture, 100),
    ],
)
def test_the_papers_likelihoods_are_there(spec, values, kind, outputs, network):
    config = model_config("vae", values | {"network": network, "latent_dim": 64, "rate_warmup": 0.0})
    model = build("vae", config, spec).model.eval()
    z = torch.randn(2, 64)
    assert model.decoder.network(z).shape == (2, outputs, 32, 32)
    p = model.decoder(z)
    assert isinstance(p, kind)
    if "std" in values:
        torch.testing.assert_close(p.base.var, torch.full((2, 1, 32, 32), 0.04))
    assert bool(model.bound(examples(spec, 2)).isfinite().all())


def test_a_mixture_reads_what_it_needs_and_leaves_the_rest():
    likelihood = LogisticMixtureLikelihood(256, 10)
    assert [likelihood.parameters_per_pixel(c) for c in (1, 2, 3)] == [30, 60, 100]
    raw, x = torch.randn(2, 100, 2, 2), torch.zeros(2, 3, 2, 2)
    more = torch.cat([raw, torch.randn(2, 2, 2, 2)], 1)
    torch.testing.assert_close(likelihood(raw).nll(x), likelihood(more).nll(x))


# BatchNorm ------------------------------------------------------------------------------------------------------------


def first_norm(model: nn.Module) -> nn.BatchNorm2d:
    return model.encoder.network.net[1]


def test_recalibrated_statistics_are_the_moments_of_all_examples():
    model, x = vae().model.eval(), examples(SMALL, 24)
    model.decoder.eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    assert recalibrate(model, [x[:5], x[5:]]) == 13
    assert torch.equal(state, torch.get_rng_state())
    h = model.encoder.network.net[0](x)
    torch.testing.assert_close(first_norm(model).running_mean, h.mean((0, 2, 3)))
    torch.testing.assert_close(first_norm(model).running_var, h.var((0, 2, 3), correction=0))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert not any(module.training for module in model.modules())
    assert all(int(layer.num_batches_tracked) == 0 for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))


def test_recalibrated_on_one_batch_evaluation_is_training():
    model, x = vae().model, examples(SMALL, 24)
    model.train()
    recalibrate(model, [x])
    assert all(module.training for module in model.modules())
    model.eval()
    evaluated = model.encoder(x).mean
    model.train()
    torch.testing.assert_close(evaluated, model.encoder(x).mean)


def test_there_must_be_something_to_recalibrate():
    with pytest.raises(ConfigError, match="no such layer"):
        recalibrate(vae().model, [])
    plain = build("vae", model_config("vae", {"network": {"kind": "mlp", "width": 4}}), SMALL).model
    with pytest.raises(ConfigError, match="no such layer"):
        recalibrate(plain, [examples(SMALL)])


def test_a_short_training_in_evaluation_mode(tmp_path):
    """Averaged weights with the statistics at hand: the bound falls, and the statistics were learned and saved."""
    options = ["--training.steps", 60, "--training.batch_size", 64, "--training.ema", 0.9, "--device", "cpu"]
    network = ["--model.network.kind", "residual", "--model.network.channels", 8, "--model.latent_dim", 8]
    assert run("train", "digits", "--model", "vae", "--out", tmp_path, "--report", "false", *network, *options) == 0
    model = diled.load(tmp_path).density
    assert not model.training
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(int(layer.num_batches_tracked) > 0 for layer in layers)
    assert all(bool((layer.running_var != 1).any()) for layer in layers)
    data = open_data("digits", PreprocessConfig())
    x = to_space(raw_tensor(data.test.values[:200]), data.spec)
    fresh = build(
        "vae", model_config("vae", {"network": {"kind": "residual", "channels": 8}, "latent_dim": 8}), data.spec
    )
    with torch.no_grad():
        trained, before = model.bound(x).mean(), fresh.model.eval().bound(x).mean()
        assert trained < 0.9 * before
        recalibrate(model, x.split(100))
        assert model.bound(x).mean() == pytest.approx(float(trained), rel=0.1)


# 28 x 28 within 32 x 32 -----------------------------------------------------------------------------------------------


def test_a_border_is_zeros_around_the_picture_as_it_is():
    image = np.random.default_rng(0).integers(1, 256, (1, 28, 28), dtype=np.uint8)
    framed = fit(image, (32, 32), "border")
    np.testing.assert_array_equal(framed, np.pad(image, ((0, 0), (2, 2), (2, 2))))
    assert not np.array_equal(framed, fit(image, (32, 32), "pad"))  # which enlarges it
    np.testing.assert_array_equal(fit(image, (28, 31), "border"), np.pad(image, ((0, 0), (0, 0), (1, 2))))


@pytest.mark.parametrize("size", [(27, 32), (32, 27), (14, 14)])
def test_a_border_has_no_room_around_a_larger_picture(size):
    with pytest.raises(DataError, match="too large for a border"):
        fit(np.zeros((1, 28, 28), np.uint8), size, "border")


def test_data_with_a_border(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8)
    np.save(tmp_path / "images.npy", values)
    choice = PreprocessConfig(size=32, size_policy="border", binarize="threshold")
    data = open_data(tmp_path / "images.npy", choice)
    assert (data.spec.shape, data.spec.size_policy, data.spec.levels) == ((1, 32, 32), "border", 2)
    seen = np.concatenate([data.train.values, data.validation.values, data.test.values])
    x = to_space(raw_tensor(seen), data.spec)
    assert float(x[..., :2, :].max()) == float(x[..., -2:].max()) == -1
    inside = sorted(picture.tobytes() for picture in seen[:, 0, 2:30, 2:30])
    assert inside == sorted(picture.tobytes() for picture in values)
