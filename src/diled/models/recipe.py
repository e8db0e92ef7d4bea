"""How models are put together and trained: in one stage, in rounds, in two stages, with a mixture or a head at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diled.api import Density, Stage
from diled.config import DataSpec
from diled.family import (
    AEConfig,
    CodeConfig,
    DiledConfig,
    DiledDiffusionDecoderConfig,
    LDMConfig,
    LSGMConfig,
    ModelConfig,
    TwoStageVAEConfig,
)
from diled.models.autoencoder import Autoencoder, DiracEncoder, Rate, RateWeight, portion, warmup
from diled.models.parts import latent_dim
from diled.models.priors import GaussianMixture, Standardized
from diled.models.properties import PropertyHead, head_of
from diled.models.sampling import BATCH
from diled.rows import rows_beside_training
from diled.sequence_family import TransformerConfig

__all__ = [
    "Recipe",
    "in_batches",
    "in_rounds",
    "in_two_stages",
    "jointly",
    "property_head",
    "ramp",
    "then_a_mixture",
    "with_properties",
]


@dataclass
class Recipe:
    """A model and the stages that train it."""

    model: Density
    stages: list[Stage]


def jointly(model: Density) -> Recipe:
    """One stage that trains everything."""
    return Recipe(model, [Stage("joint", model)])


def in_rounds(rounds: int, model: Autoencoder) -> Recipe:
    """Jointly where `rounds` is 0; else rounds of two stages in turn, each with what the other trains frozen.

    The weight of the rate follows the progress of the whole training, not of a stage.
    """
    if rounds == 0:
        return jointly(model)
    encoder, decoder, prior, stages = model.encoder, model.decoder, model.prior, []
    for k in range(rounds):
        weight = portion(model.rate_weight, k, rounds)
        outer = Autoencoder(encoder, decoder, prior, rate_weight=weight)
        stages += [
            Stage(f"autoencoder {k + 1}", outer, frozen=(prior,)),
            Stage(f"prior {k + 1}", Rate(encoder, prior), frozen=(encoder,)),
        ]
    return Recipe(model, stages)


def in_two_stages(share: float, first: Autoencoder, prior: Density) -> Recipe:
    """The autoencoder with its own simple prior, or none; then the prior proper, on the codes of the frozen encoder."""

    def fit(x: Tensor) -> None:
        if isinstance(prior, Standardized):
            prior.fit(in_batches(lambda part: first.encoder(part).sample(), x))

    model = Autoencoder(first.encoder, first.decoder, prior)
    stages = [
        Stage("autoencoder", first, share),
        Stage("prior", Rate(first.encoder, prior), 1 - share, frozen=(first.encoder,), prepare=fit),
    ]
    return Recipe(model, stages)


def then_a_mixture(config: AEConfig, first: Autoencoder, encoder: DiracEncoder) -> Recipe:
    """The autoencoder without a prior; then a Gaussian mixture is fitted to its codes."""
    prior = GaussianMixture(latent_dim(config), config.mixture)
    model = Autoencoder(encoder, first.decoder, prior)
    stages = [
        Stage("autoencoder", first),
        Stage("mixture", model, 0.0, prepare=lambda x: prior.fit(in_batches(lambda part: encoder(part).mean.cpu(), x))),
    ]
    return Recipe(model, stages)


def in_batches(codes: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Codes of many examples, batch after batch."""
    return torch.cat([codes(part) for part in x.split(rows_beside_training(codes, x[:1], BATCH))])


def ramp(config: DiledConfig | DiledDiffusionDecoderConfig | TwoStageVAEConfig | LDMConfig | LSGMConfig) -> RateWeight:
    """The warm-up of the rate to its weight."""
    assert config.rate_weight is not None, "call ModelConfig.resolved(data) first"
    return warmup(config.rate_weight, config.rate_warmup)


def property_head(config: CodeConfig | TransformerConfig, data: DataSpec, dim: int) -> PropertyHead:
    """A head that reads the wanted label columns from codes, or means of hidden states, (B, dim)."""
    wanted = config.properties
    classes = {column: len(data.labels[column]) for column in wanted.columns}
    return PropertyHead(dim, classes, width=wanted.width, weight=wanted.weight)


def with_properties(recipe: Recipe, config: ModelConfig, data: DataSpec) -> Recipe:
    """The same with a head that reads label columns from the code, wherever the encoder is trained."""
    if not isinstance(config, CodeConfig) or not config.properties.columns or head_of(recipe.model) is not None:
        return recipe
    head, encoder = property_head(config, data, latent_dim(config)), {id(m) for m in recipe.model.encoder.modules()}  # type: ignore[union-attr]
    for model in {id(d): d for d in (recipe.model, *(stage.density for stage in recipe.stages))}.values():
        if isinstance(model, Autoencoder) and encoder & {id(m) for m in model.encoder.modules()}:
            model.add(head)
    return recipe
