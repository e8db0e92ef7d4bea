"""Configurations of the models that are for sequences alone. No torch here; `models/sequence_zoo.py` builds them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from diled.config import DataSpec
from diled.kinds import ModelConfig, Row
from diled.parts import PropertyConfig

__all__ = ["LMConfig", "NOSConfig", "PottsConfig", "ProfileConfig", "TokenDiffusionConfig"]


class SymbolsConfig(ModelConfig):
    """A model of sequences alone."""

    reads = ("symbols",)


class ProfileConfig(SymbolsConfig):
    """A profile: each position by itself."""

    row = Row(
        "profile", "none", "none", "symbol frequencies of each position", "in closed form", "exact",
        "what every model of sequences must beat",
    )  # fmt: skip


class PottsConfig(SymbolsConfig):
    """A Potts model: fields and pairwise couplings."""

    row = Row(
        "Potts model", "none", "none", "fields and pairwise couplings", "pseudo-likelihood",
        "exact where its sequences can be counted, else no", "Ekeberg et al. 2013; Morcos et al. 2011",
    )  # fmt: skip
    decay: float = Field(1e-3, ge=0)
    """Weight of the couplings' squares in the training, in nats per example."""
    sweeps: int = Field(100, ge=1)
    """Sweeps of the Gibbs sampler, where the sequences cannot be counted."""


class TransformerConfig(SymbolsConfig):
    """A model with one transformer."""

    width: int = Field(128, ge=1)
    """Width of the transformer."""
    depth: int = Field(3, ge=1)
    """Its blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads, a divisor of the width."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the hidden values that are dropped while training."""
    properties: PropertyConfig = PropertyConfig()
    """A head that predicts label columns from the mean of the hidden states."""

    @model_validator(mode="after")
    def _divisible(self) -> TransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"width = {self.width}: it must be a multiple of heads = {self.heads}")
        return self

    def choices(self, data: DataSpec) -> dict[str, Any]:
        """None of its own; the label columns must be there."""
        self.properties.check(data.labels)
        return super().choices(data)


class LMConfig(TransformerConfig):
    """An autoregressive transformer."""

    row = Row(
        "language model", "none", "none", "an autoregressive transformer", "likelihood", "exact",
        "Vaswani et al. 2017; Radford et al. 2018",
    )  # fmt: skip


class TokenDiffusionConfig(TransformerConfig):
    """Diffusion over symbols that are hidden and filled in."""

    row = Row(
        "token diffusion", "none", "none", "masked diffusion over symbols", "the bound", "yes",
        "Austin et al. 2021; Sahoo et al. 2024; Shi et al. 2024",
    )  # fmt: skip
    steps: int | None = Field(None, ge=1)
    """Steps of the sampler; None: as many as positions, one position at a time, as the bound has it."""


class NOSConfig(TokenDiffusionConfig):
    """Token diffusion with a property head, whose samples are led to a property."""

    row = Row(
        "NOS", "none", "none", "masked diffusion over symbols", "the bound; a property head on hidden states", "yes",
        "Gruver et al. 2023",
    )  # fmt: skip

    @model_validator(mode="after")
    def _has_a_property(self) -> NOSConfig:
        if not self.properties.columns:
            raise ValueError(
                "properties.columns: NOS leads to a property: name a label column, or use 'token_diffusion'"
            )
        return self
