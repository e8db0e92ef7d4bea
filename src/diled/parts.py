"""Configurations of the parts that models are built from: networks and diffusions. No torch here.

`models/parts.py` builds what these describe; `family.py` says which model has which parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from diled.config import Config, DataSpec, validated
from diled.errors import ConfigError, did_you_mean

__all__ = ["DataDiffusionConfig", "DiffusionConfig", "NetworkConfig", "NoiseConfig", "PropertyConfig", "refuse"]


def refuse(config: Config, unused: set[str], why: str) -> None:
    """Complain about values that were set but have no effect, so that no knob is accepted and ignored."""
    for key in sorted(config.model_fields_set & unused):
        if getattr(config, key) != type(config).model_fields[key].default:
            raise ValueError(f"'{key}' has no effect, since {why}")


class NetworkConfig(Config):
    """Encoder and decoder networks: one size dial for each kind."""

    kind: Literal["auto", "mlp", "conv", "residual", "transformer"] = "auto"
    """`auto`: convolutions for images of more than 1,024 pixels or several channels and for signals, else an MLP. `residual`:
    the convolutions with BatchNorm of Xiao et al. 2024, whose code is `latent_dim` / (H W / 16) channels of a grid, for images
    whose sides are divisible by 4. `transformer`: for sequences."""
    width: int = Field(400, ge=1)
    """Hidden width of the MLP, or of the transformer, which has 128 unless told otherwise."""
    depth: int = Field(2, ge=1)
    """Hidden layers of the MLP, or blocks of the transformer."""
    heads: int = Field(4, ge=1)
    """Attention heads of the transformer, a divisor of its width."""
    activation: Literal["silu", "relu"] = "silu"
    """Nonlinearity of the MLP."""
    channels: int = Field(32, ge=1)
    """`conv`: channels of the first convolution, a multiple of 8; they double with each halving of the size, up to four-fold.
    `residual`: channels of every layer."""
    blocks: int = Field(1, ge=1)
    """Residual blocks at each size of the convolutional network."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the hidden values that are dropped while training, in encoder and decoder (not for `residual`)."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> NetworkConfig:
        of_mlp = {"width", "depth", "activation"}
        of_conv = {"channels", "blocks"}
        unused = {
            "mlp": of_conv | {"heads"},
            "conv": of_mlp | {"heads"},
            "residual": of_mlp | {"blocks", "dropout", "heads"},
            "transformer": of_conv | {"activation"},
            "auto": set(),
        }[self.kind]
        refuse(self, unused, f"network.kind is '{self.kind}'")
        if self.kind == "transformer" and "width" in self.model_fields_set and self.width % self.heads:
            raise ValueError(f"'width' = {self.width}: it must be a multiple of heads = {self.heads}")
        if self.kind != "residual" and self.channels % 8:
            raise ValueError(
                f"'channels' = {self.channels}: it must be a multiple of 8 unless network.kind is 'residual'"
            )
        return self


TABLES = ("ddpm", "constant_beta")
"""Schedules that are tables, with ends of their own."""


class PropertyConfig(Config):
    """A head that reads properties of an example from its code, trained together with the model."""

    columns: tuple[str, ...] = ()
    """Label columns that it predicts; none: there is no head."""
    weight: float = Field(1.0, gt=0)
    """Weight of its error beside the nats of the model: half the square of standardised numbers, the cross-entropy of
    classes. It trains the encoder too, and is no part of the bound."""
    width: int = Field(64, ge=1)
    """Width of its one hidden layer."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> PropertyConfig:
        if not self.columns:
            refuse(self, {"weight", "width"}, "properties.columns names no label column")
        twice = next((column for column in self.columns if self.columns.count(column) > 1), None)
        if twice is not None:
            raise ValueError(f"'columns' names '{twice}' twice: once is enough")
        return self

    def check(self, labels: Mapping[str, Any]) -> None:
        """Whether the data have these label columns.

        Raises:
            ConfigError: one is missing; the nearest is named.
        """
        unknown = next((column for column in self.columns if column not in labels), None)
        if unknown is not None:
            raise ConfigError(
                f"properties.columns: there is no label column '{unknown}'.{did_you_mean(unknown, labels)}"
            )


class NoiseConfig(Config):
    """What diffusions over codes and over data share: the schedule and the training weights."""

    parameterization: Literal["v", "eps", "x", "edm"] = "v"
    """What the network estimates; `v` starts as the exact denoiser of N(0, I), `edm` of N(0, `data_std`^2 I)."""
    data_std: float = Field(0.5, gt=0)
    """Standard deviation of the data that `edm` assumes."""
    schedule: Literal[
        "linear_log_snr", "learned_log_snr", "cosine", "linear", "edm", "ddpm", "constant_beta"
    ] = "linear_log_snr"  # fmt: skip
    """How log SNR falls with time."""
    gamma_max: float = 6.0
    """-log SNR at the noise end."""
    weighting: Literal["vlb", "simple", "min_snr", "edm"] = "vlb"
    """Weights of the denoiser's training; the bound always uses vlb."""
    timesteps: int | None = Field(None, ge=2)
    """T of a discrete chain; None: continuous time."""

    def overridden_by(self, values: dict[str, Any]) -> dict[str, Any]:
        """A schedule with ends of its own leaves none of a model's default ends behind."""
        mine = super().overridden_by(values)
        ends = {"gamma_min", "gamma_max"} - set(values) if values.get("schedule") in TABLES else set()
        return {key: value for key, value in mine.items() if key not in ends}

    @property
    def weightings(self) -> set[str]:
        """All weightings in use."""
        return {self.weighting}

    @model_validator(mode="after")
    def _consistent(self) -> NoiseConfig:
        if self.schedule in TABLES:
            refuse(self, {"gamma_min", "gamma_max"}, f"schedule '{self.schedule}' has ends of its own")
        low = getattr(self, "gamma_min", None)
        if low is not None and not low < self.gamma_max:
            raise ValueError(f"gamma_min ({low}) must lie below gamma_max ({self.gamma_max})")
        if self.schedule == "learned_log_snr" and self.weightings != {"vlb"}:
            raise ValueError("a learned schedule is trained by the bound: use weighting 'vlb'")
        if self.parameterization != "edm" and "edm" not in self.weightings:
            refuse(self, {"data_std"}, "neither parameterization nor weighting is 'edm'")
        return self


class DiffusionConfig(NoiseConfig):
    """A diffusion over vector codes: the denoiser, the schedule and the training weights."""

    width: int = Field(192, ge=1)
    """Width of the residual MLP that denoises."""
    blocks: int = Field(2, ge=1)
    """Its residual blocks."""
    mixed: bool = False
    """Mix the network's estimate with that of N(0, I), by a learned share for each dimension (LSGM's mixed score)."""
    gamma_min: float = -8.0
    """-log SNR at the clean end."""
    encoder_weighting: Literal["same", "vlb", "simple", "min_snr", "edm"] = "same"
    """Weights of the gradient that flows into the codes."""
    times_per_code: int = Field(4, ge=1)
    """Noise levels drawn for each code in a training step."""
    terminal: bool = True
    """Train with the last KL, of z_1 from N(0, I), which alone stops the codes from growing; the bound always has it."""

    @property
    def weightings(self) -> set[str]:
        """All weightings in use."""
        return {self.weighting} | ({self.encoder_weighting} - {"same"})

    @model_validator(mode="after")
    def _learned_by_the_bound(self) -> DiffusionConfig:
        if self.schedule == "learned_log_snr" and not self.terminal:
            raise ValueError("a learned schedule is trained by the bound: leave 'terminal' on")
        return self

    def refuse_on_fixed_codes(self) -> None:
        """Complain about what only matters to an encoder, where the prior is trained on codes that are fixed."""
        why = "the codes are fixed while the prior is trained"
        if not self.terminal:
            raise ValueError(f"prior.terminal has no effect, since {why}")
        if self.encoder_weighting != "same":
            raise ValueError(f"prior.encoder_weighting has no effect, since {why}")


class DataDiffusionConfig(NoiseConfig):
    """A diffusion over data: a U-Net (images, signals) or an MLP (vectors), the schedule and the training weights."""

    kind: Literal["auto", "unet", "mlp"] = "auto"
    """`auto`: a U-Net for images and signals of at least 8 pixels a side, else a residual MLP."""
    channels: int = Field(32, ge=4, multiple_of=4)
    """Channels of the U-Net at its finest size; twice as many after its first halving."""
    blocks: int = Field(1, ge=1)
    """Residual blocks at each size of the U-Net, or of the MLP."""
    attention: bool = False
    """Self-attention at the coarsest size of the U-Net."""
    width: int = Field(256, ge=1)
    """Width of the residual MLP."""
    gamma_min: float | None = None
    """-log SNR at the clean end; None: so clean that two neighbouring grey values lie eight standard deviations apart
    (-13.9 for 256 levels, -8.3 for 17), and -8 for continuous data."""
    gamma_max: float = 8.0
    """-log SNR at the noise end."""
    times_per_example: int = Field(1, ge=1)
    """Noise levels drawn for each example in a training step."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> DataDiffusionConfig:
        unused = {"mlp": {"channels", "attention"}, "unet": {"width"}, "auto": set()}[self.kind]
        refuse(self, unused, f"kind is '{self.kind}'")
        return self

    def resolved(self, data: DataSpec, where: str = "model") -> DataDiffusionConfig:
        """The same with what depends on the data filled in; `where` is its place, for complaints.

        Raises:
            ConfigError: a U-Net is wanted for data that it cannot read.
        """
        fits = data.kind != "vector" and min(data.shape[1:]) >= 8
        if self.kind == "unet" and not fits:
            raise ConfigError(
                f"{where}.kind 'unet' needs images or signals of at least 8 pixels a side, not {data.shape}: use 'mlp'."
            )
        values: dict[str, Any] = {key: getattr(self, key) for key in self.model_fields_set}
        values["kind"] = ("unet" if fits else "mlp") if self.kind == "auto" else self.kind
        if self.gamma_min is None and self.schedule not in TABLES:
            values["gamma_min"] = -8.0 if data.levels is None else round(-2 * math.log(4 * (data.levels - 1)), 2)
        return validated(type(self), values, where)
