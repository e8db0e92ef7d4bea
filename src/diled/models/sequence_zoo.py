"""The models that are for sequences alone, as short functions: see `zoo.py`.

name              encoder        decoder      prior                      training                        a bound?
relso             deterministic  categorical  a mixture, afterwards      reconstruction, regularisers    no
profile           none           none         each position by itself    in closed form                  exact
potts             none           none         fields and couplings       pseudo-likelihood               where countable
lm                none           none         autoregressive             likelihood                      exact
token_diffusion   none           none         masked diffusion           bound                           yes
nos               none           none         masked diffusion           bound, property head            yes
"""

from __future__ import annotations

from typing import Any

from diled.api import Stage
from diled.config import DataSpec
from diled.errors import ConfigError
from diled.family import ReLSOConfig
from diled.models.autoencoder import Autoencoder, DiracEncoder
from diled.models.exact_sequences import LanguageModel, Potts, Profile, ReadingLanguageModel
from diled.models.parts import decoder, encoder_network, latent_dim
from diled.models.priors import NoPrior
from diled.models.properties import PropertyHead
from diled.models.recipe import Recipe, jointly, property_head, then_a_mixture
from diled.models.relso import ReLSORegularizer
from diled.models.token_diffusion import TokenDiffusion
from diled.nn.causal import CausalTransformer
from diled.nn.sequence import MaskedTransformer
from diled.sequence_family import (
    LMConfig,
    NOSConfig,
    PottsConfig,
    ProfileConfig,
    TokenDiffusionConfig,
    TransformerConfig,
)

__all__ = ["lm", "nos", "potts", "profile", "relso", "token_diffusion"]

COUPLINGS = 2**28
"""Most couplings of a Potts model; training takes some 24 bytes for each."""


def relso(config: ReLSOConfig, data: DataSpec) -> Recipe:
    """An autoencoder with a property head, whose codes are kept smooth so that they can be climbed in.

    Reference: Castro et al. 2022 (arXiv 2201.09948).
    """
    dim = latent_dim(config)
    encoder, head = DiracEncoder(encoder_network(config, data, dim)), property_head(config, data, dim)
    smooth = ReLSORegularizer(
        head,
        norm=config.norm,
        interpolation=config.interpolation,
        negative=config.negative,
        floor=config.negative_floor,
        reach=config.negative_reach,
    )
    first = Autoencoder(encoder, decoder(config, data), NoPrior(), extras=(head, smooth))
    recipe = then_a_mixture(config, first, encoder)
    recipe.model.add(head)  # type: ignore[operator]
    return recipe


def profile(config: ProfileConfig, data: DataSpec) -> Recipe:
    """Each position by itself: what a model must beat to have learned anything of how they hang together."""
    model = Profile(data.numel, len(data.symbols))
    return Recipe(model, [Stage("fit", model, 0.0, fit=model.fit)])


def potts(config: PottsConfig, data: DataSpec) -> Recipe:
    """Fields and pairwise couplings, by pseudo-likelihood. Reference: Ekeberg et al. 2013 (arXiv 1211.1281).

    Raises:
        ConfigError: there are more couplings than a machine holds.
    """
    length, symbols = data.numel, len(data.symbols)
    couplings = length * (length - 1) // 2 * symbols**2
    if couplings > COUPLINGS:
        raise ConfigError(
            f"A Potts model of {length:,} positions with {symbols:,} symbols has {couplings:,} couplings, more than "
            f"{COUPLINGS:,}: take profile or lm, or of text a smaller vocabulary (--preprocess.text.vocabulary)."
        )
    model = Potts(length, symbols, decay=config.decay, sweeps=config.sweeps)
    return Recipe(model, [Stage("joint", model, fit=model.fit)])


def lm(config: LMConfig, data: DataSpec) -> Recipe:
    """An autoregressive transformer. Reference: Vaswani et al. 2017 (arXiv 1706.03762)."""
    head = _head(config, data)
    network = CausalTransformer(
        data.numel, len(data.symbols), tied=data.kind == "text", reads_last=head is not None, **_dials(config)
    )
    return jointly(LanguageModel(network) if head is None else ReadingLanguageModel(network, head))


def token_diffusion(config: TokenDiffusionConfig, data: DataSpec) -> Recipe:
    """Masked diffusion over symbols. References: Hoogeboom et al. 2022; Sahoo et al. 2024; Shi et al. 2024."""
    network = MaskedTransformer(data.numel, len(data.symbols), **_dials(config))
    return jointly(TokenDiffusion(network, data.numel, steps=config.steps, head=_head(config, data)))


def nos(config: NOSConfig, data: DataSpec) -> Recipe:
    """Masked diffusion with a property head on its hidden states. Reference: Gruver et al. 2023 (arXiv 2305.20009)."""
    return token_diffusion(config, data)


def _head(config: TransformerConfig, data: DataSpec) -> PropertyHead | None:
    """A head on means of hidden states, where label columns are named."""
    return property_head(config, data, config.width) if config.properties.columns else None


def _dials(config: TransformerConfig) -> dict[str, Any]:
    """The size of a transformer."""
    return {key: getattr(config, key) for key in ("width", "depth", "heads", "dropout")}
