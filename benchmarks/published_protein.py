"""The protein network of Liu et al. 2024, built anew from its description, under the objective of the paper.

    x --causal transformer--> E(x) --> z_0 = alpha_0 E(x) + sigma_0 e --convolutions--> p(x | z_0)
                                       \\--> diffusion, 1,000 steps with beta = 0.008

    -log p(x | z_0) + mean_D (e - e_hat)^2 + 1/2 (y - f(z_0))^2,     t uniform

Codes have 30 numbers and the denoiser of codes 78 million parameters.

Reference: Liu et al. 2024 (arXiv 2402.19009), section 4.3; Castro et al. 2022 (arXiv 2201.09948), encoder and decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diled.data import Data
from diled.diffusion import Diffusion, Objective, simple
from diled.diffusion.diffusion import stratified_times
from diled.diffusion.parameterization import Eps
from diled.diffusion.schedule import alpha, constant_beta, sigma
from diled.draws import seeded
from diled.models.autoencoder import Autoencoder, CategoricalLikelihood, FixedNoiseEncoder, LikelihoodDecoder
from diled.models.properties import PropertyHead
from diled.nn.blocks import LogSNREmbedding
from diled.nn.sequence import Embedding
from diled.sequences import token_nll

__all__ = ["PublishedDecoder", "PublishedEncoder", "SkipMLP", "labels_of", "published", "written_out"]

LATENT = 30


class PublishedEncoder(nn.Module):
    """x (B, L) -> (B, D): symbols and positions, a causal transformer, the mean over positions weighted by softmax(w h).

    Reference: Castro et al. 2022 (arXiv 2201.09948), the encoder of ReLSO.
    """

    mask: Tensor

    def __init__(self, length: int, symbols: int, dim: int, *, width: int = 100, dropout: float = 0.2) -> None:
        super().__init__()
        self.embed = Embedding(length, symbols, width)
        layer = nn.TransformerEncoderLayer(width, 4, 200, dropout, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length), persistent=False)
        self.weight, self.out = nn.Linear(width, 1), nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L) -> (B, D)."""
        h = self.blocks(self.embed(x), mask=self.mask, is_causal=True)
        return self.out((self.weight(h).softmax(1) * h).sum(1))


class PublishedDecoder(nn.Module):
    """z (B, D) -> logits (B, L, V): 100 channels at each position, a residual block to 200 of them, and a convolution.

    Reference: Castro et al. 2022 (arXiv 2201.09948), the decoder of ReLSO; He et al. 2016 (arXiv 1512.03385), the block.
    """

    def __init__(self, dim: int, length: int, symbols: int, *, width: int = 100) -> None:
        super().__init__()
        n = 2 * width
        self.into = nn.Sequential(nn.Linear(dim, width * length), nn.Unflatten(1, (width, length)))
        self.skip = self._normed(width, n, 1)
        self.block = nn.Sequential(self._normed(width, n, 3), nn.ReLU(), self._normed(n, n, 3))
        self.out = nn.Conv1d(n, symbols, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, L, V)."""
        h = self.into(z)
        return self.out(torch.relu(self.block(h) + self.skip(h))).transpose(1, 2)

    @staticmethod
    def _normed(n_in: int, n_out: int, kernel: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2, bias=False), nn.BatchNorm1d(n_out))


class SkipMLP(nn.Module):
    """F(z_t, log SNR), whose every layer reads z_t again: h <- silu(norm((1 + scale) W [h, z_t])), and at the end W [h, z_t].

    With n layers of width H and codes of D numbers, the layers but the first and the last have (n - 2) (H + D + 1) H weights.
    The noise level enters through its log SNR, as in our denoisers; the published one enters it as sines of the step that
    hardly tell neighbours apart.

    Reference: Preechakul et al. 2022 (arXiv 2111.15640), the denoiser of codes.
    """

    def __init__(self, dim: int, width: int = 2048, layers: int = 20) -> None:
        super().__init__()
        self.embed = LogSNREmbedding()
        self.time = nn.Sequential(nn.Linear(self.embed.features, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())
        sizes = [dim, *[width + dim] * (layers - 2)]
        self.layers = nn.ModuleList(nn.Linear(n, width) for n in sizes)
        self.scales = nn.ModuleList(nn.Linear(dim, width) for _ in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in sizes)
        self.out = nn.Linear(width + dim, dim)

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """z_t (B, D), log_snr (B,) -> (B, D). There is no condition."""
        level, joined = self.time(self.embed(log_snr)), z_t
        for layer, scale, norm in zip(self.layers, self.scales, self.norms, strict=True):
            h = F.silu(norm((1 + scale(level)) * layer(joined)))
            joined = torch.cat([h, z_t], 1)
        return self.out(joined)


def published(data: Data, *, width: int = 2048, layers: int = 20, seed: int = 0) -> Autoencoder:
    """DiLED as published for proteins: fixed variance, T = 1000 with beta = 0.008, a head for each label column."""
    spec, schedule = data.spec, constant_beta()
    length, symbols, objective = spec.numel, len(spec.symbols), Objective(simple(mean=True), terminal=False)
    with seeded(seed):
        encoder = FixedNoiseEncoder(PublishedEncoder(length, symbols, LATENT), schedule)
        decoder = LikelihoodDecoder(PublishedDecoder(LATENT, length, symbols), CategoricalLikelihood())
        denoiser = Eps(SkipMLP(LATENT, width, layers))
        head = PropertyHead(LATENT, {column: len(names) for column, names in spec.labels.items()})
    steps = len(schedule.table) - 1  # the encoder's noise is the first of the T
    prior = Diffusion(denoiser, schedule, (LATENT,), timesteps=steps, objective=objective)
    head.fit(labels_of(data))
    return Autoencoder(encoder, decoder, prior, extras=(head,))


def labels_of(data: Data) -> dict[str, Tensor]:
    """Label columns of the training examples."""
    return {column: torch.from_numpy(values) for column, values in data.train.labels.items()}


def written_out(model: Any, x: Tensor, labels: Mapping[str, Tensor], progress: float) -> Tensor:
    """-log p(x | z_0) + mean_D (e - e_hat)^2 + 1/2 (y - f(z_0))^2 with t uniform, the mean over a batch.

        z_0 = alpha_0 E(x) + sigma_0 e_0,     z_t = alpha_t E(x) + sigma_t e,     y standardised

    Reference: Liu et al. 2024, Eq. 7.
    """
    prior, (head,) = model.prior, model.extra
    code, gamma_0 = model.encoder.network(x), prior.schedule.ends[0]
    z_0 = alpha(gamma_0) * code + sigma(gamma_0) * torch.randn_like(code)
    loss = token_nll(model.decoder.network(z_0), x).sum(1)
    t = ((stratified_times(len(x), 1, code) * prior.timesteps).floor() + 1).clamp(max=prior.timesteps) / prior.timesteps
    gamma_t = prior.schedule.gamma(t)
    e = torch.randn_like(code)
    z_t = alpha(gamma_t)[:, None] * code + sigma(gamma_t)[:, None] * e
    loss = loss + (e - prior.denoiser.network(z_t, -gamma_t)).square().mean(1)
    for i, column in enumerate(head.columns):
        y = (labels[column].float() - head.mean[i]) / head.std[i]
        loss = loss + 0.5 * (y - head.networks[i](z_0)[:, 0]) ** 2
    return loss.mean()
