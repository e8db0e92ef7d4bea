"""Denoisers compute once what depends on the noise level alone, where a sampler gives all examples the same one."""

from __future__ import annotations

import pytest
import torch
from test_sequences import apart, awake
from torch import nn

from diled.diffusion import LinearLogSNR
from diled.diffusion.parameterization import V
from diled.diffusion.samplers import ddim, levels
from diled.nn.latent import ResidualMLP
from diled.nn.unet import UNet, _Attention

NETWORKS = {
    "codes": (lambda c: ResidualMLP(3, 16, 2, condition_dim=c), (3,)),
    "pictures": (lambda c: UNet((1, 8, 8), channels=8, attention=True, condition_dim=c), (1, 8, 8)),
}


def rows_of_modulation(network: nn.Module) -> list[int]:
    """How many rows each block's modulation reads, as they come."""
    found: list[int] = []
    for name, module in network.named_modules():
        if name.endswith("modulate"):
            module.register_forward_pre_hook(lambda module, args: found.append(len(args[0])))
    return found


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("condition_dim", [0, 2])
def test_one_level_for_all_gives_what_as_many_equal_ones_give(kind: str, condition_dim: int):
    make, shape = NETWORKS[kind]
    network, z, level = (
        awake(make(condition_dim)).double(),
        torch.randn(5, *shape).double(),
        torch.tensor(-1.3).double(),
    )
    condition = torch.randn(5, condition_dim).double() if condition_dim else None
    sizes = rows_of_modulation(network)
    each = network(z, level.repeat(5), condition)
    assert set(sizes) == {5}
    sizes.clear()
    together = network(z, level.expand(5), condition)
    assert set(sizes) == ({5} if condition_dim else {1})
    torch.testing.assert_close(together, each)
    assert apart(network(z, torch.linspace(-3, 3, 5).double(), condition), each) > 1e-2, "the level matters"


@pytest.mark.parametrize(
    ("channels", "heads"), [(8, 1), (64, 1), (100, 1), (112, 1), (128, 2), (204, 3), (256, 4), (320, 5)]
)
def test_heads_of_attention_divide_the_channels(channels: int, heads: int):
    assert _Attention(channels).heads == heads
    x = torch.randn(2, channels, 2, 2)
    assert _Attention(channels)(x, x).shape == x.shape


def test_samples_are_those_of_a_level_for_each():
    network, z, gammas = (
        V(awake(ResidualMLP(3, 16, 2)).double()),
        torch.randn(40, 3).double(),
        levels(LinearLogSNR(), 12),
    )
    sizes = rows_of_modulation(network)
    with torch.no_grad():
        together = ddim(network, z, gammas)
        assert set(sizes) == {1}
        each = ddim(lambda z_t, log_snr: network(z_t, log_snr.clone()), z, gammas)
    torch.testing.assert_close(together, each)
