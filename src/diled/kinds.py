"""What the configurations of models share: a row of the family table, and defaults that depend on the data. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from diled.config import Config, DataSpec, validated
from diled.errors import ConfigError
from diled.folders import architecture, decoder_architecture
from diled.parts import DataDiffusionConfig, NetworkConfig, PropertyConfig, refuse

__all__ = ["AutoencoderConfig", "CodeConfig", "ModelConfig", "Row", "WarmupConfig", "default_code", "rate_weight"]


@dataclass(frozen=True)
class Row:
    """A model's row of the family table."""

    title: str
    encoder: str
    decoder: str
    prior: str
    training: str
    bound: str
    citation: str


class ModelConfig(Config):
    """What all models share: a row of the family table, and defaults that depend on the data."""

    row: ClassVar[Row]
    reads: ClassVar[tuple[str, ...]] = ("numbers",)
    """What it models: `numbers` (images, signals, vectors), `symbols` (sequences), or both."""

    def choices(self, data: DataSpec) -> dict[str, Any]:
        """What this type fills in for these data, by key.

        Raises:
            ConfigError: a choice does not fit the data.
        """
        diffusions = {key: getattr(self, key) for key in type(self).model_fields}
        return {
            key: d.resolved(data, f"model.{key}") for key, d in diffusions.items() if isinstance(d, DataDiffusionConfig)
        }

    def code_size(self, data: DataSpec) -> int | None:
        """D, the size of a code; None where there are no codes."""
        return None

    def resolved(self, data: DataSpec) -> ModelConfig:
        """The same with every `auto` and None that depends on the data filled in.

        Raises:
            ConfigError: a choice does not fit the data.
        """
        if ("symbols" if data.sequential else "numbers") not in self.reads:
            raise ConfigError(
                f"{self.row.title} models {self.reads[0]}, and an example of these data is "
                f"{'a sequence of symbols' if data.sequential else 'made of numbers'}: choose another model (diled models)."
            )
        given = {key: getattr(self, key) for key in self.model_fields_set}
        return validated(type(self), given | self.choices(data), "model")


def rate_weight(given: float | None, data: DataSpec, otherwise: float = 1.0) -> float:
    """The weight of the rate, where it depends on the data."""
    return (0.1 if data.sequential else otherwise) if given is None else given


def default_code(data: DataSpec) -> int:
    """Size of a code where none is given: a quarter of the dimensions, of proteins twice their number, within limits; of
    text 128."""
    if data.kind == "text":
        return 128
    if data.sequential:
        return max(2, min(2 * data.numel, 32))
    return max(2, min(data.numel // 4, 32 if data.numel <= 1024 else 128))


def whole_channels(latent_dim: int | None, data: DataSpec) -> int:
    """The size of a code that fills channels of the residual network's grid; None: one channel.

    Raises:
        ConfigError: the data are no images whose sides are divisible by 4, or a channel would be filled in part.
    """
    if data.kind != "image" or any(side % 4 for side in data.shape[1:]):
        raise ConfigError(
            f"network.kind 'residual' needs images whose sides are divisible by 4, not {data.shape}: bring them there "
            "(--preprocess.size 32 --preprocess.size_policy border), or use 'conv' or 'mlp'."
        )
    cells = data.shape[1] * data.shape[2] // 16
    dim = cells if latent_dim is None else latent_dim
    if dim % cells:
        raise ConfigError(
            f"latent_dim = {dim} does not fill the grid of network.kind 'residual', which has {cells} cells for images of "
            f"{data.shape[1]} x {data.shape[2]}: use a multiple, such as {max(1, round(dim / cells)) * cells}."
        )
    return dim


def network_kind(kind: str, data: DataSpec) -> str:
    """The kind of network, with `auto` settled.

    Raises:
        ConfigError: it is not for such data.
    """
    if data.sequential:
        if kind not in ("auto", "mlp", "transformer", "pretrained"):
            raise ConfigError(f"network.kind '{kind}' is for pictures: of sequences use 'mlp' or 'transformer'.")
        if data.kind == "text":
            if kind == "mlp":
                raise ConfigError(
                    "network.kind 'mlp' reads all symbols at all places, too many for text: use 'transformer'."
                )
            return "transformer" if kind == "auto" else kind
        return "mlp" if kind == "auto" else kind
    if kind in ("transformer", "pretrained"):
        raise ConfigError(f"network.kind '{kind}' is for sequences, not for data of kind '{data.kind}'.")
    big = data.kind == "signal" or (data.kind == "image" and (data.numel > 1024 or data.shape[0] > 1))
    if kind == "auto":
        return "conv" if big and min(data.shape[1:], default=0) >= 8 else "mlp"
    if kind == "conv" and (data.kind == "vector" or min(data.shape[1:]) < 8):
        raise ConfigError(
            f"network.kind 'conv' needs images or signals of at least 8 pixels a side, not {data.shape}: use 'mlp'."
        )
    return kind


class CodeConfig(ModelConfig):
    """A model with an encoder network and vector codes."""

    latent_dim: int | None = Field(None, ge=1)
    """Size of the code; None: a quarter of the data's dimensions, at most 32 (128 for more than 1,024 dimensions); of proteins
    twice their length, at most 32; of text 128; for the network `residual` one channel of its grid, H W / 16."""
    network: NetworkConfig = NetworkConfig()
    """Encoder and decoder networks."""
    properties: PropertyConfig = PropertyConfig()
    """A head that predicts label columns from the code."""

    def choices(self, data: DataSpec) -> dict[str, Any]:
        """The size of the code and the kind of the network."""
        dim = self.latent_dim or default_code(data)
        kind = network_kind(self.network.kind, data)
        if kind == "residual":
            dim = whole_channels(self.latent_dim, data)
        self.properties.check(data.labels)
        network = {key: getattr(self.network, key) for key in self.network.model_fields_set}
        network["kind"] = kind
        if kind in ("transformer", "pretrained"):
            writes = self.network.autoregressive
            network["autoregressive"] = data.kind == "text" if writes is None else writes
        from_folder = self.network.decoder_folder is not None
        if not from_folder and ("transformer" in (kind, self.network.decoder) or network.get("autoregressive")):
            network.setdefault("width", 128)
        if kind == "pretrained":
            network["architecture"] = architecture(self.network, data)
        if from_folder:
            network["decoder_architecture"] = decoder_architecture(self.network, data)
        return super().choices(data) | {"latent_dim": dim, "network": network}

    def code_size(self, data: DataSpec) -> int | None:
        """The size of the latent code."""
        return self.latent_dim


class AutoencoderConfig(CodeConfig):
    """A model whose decoder's network gives the parameters of a likelihood."""

    reads: ClassVar[tuple[str, ...]] = ("numbers", "symbols")

    likelihood: Literal["auto", "bernoulli", "gaussian", "logistic", "logistic_mixture", "categorical"] = "auto"
    """p(x | z). `auto`: Bernoulli for two grey values, logistic for more, Gaussian for continuous data, categorical for
    sequences. On a grid of grey values `gaussian` and `logistic` are discretised, so that the bound is a probability."""
    std: float | None = Field(None, gt=0)
    """A fixed standard deviation for `gaussian`, in units of the range [-1, 1]; None: learned."""
    components: int = Field(5, ge=1)
    """Components of `logistic_mixture`."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> AutoencoderConfig:
        if self.likelihood not in ("auto", "gaussian"):
            refuse(self, {"std"}, f"likelihood is '{self.likelihood}'")
        if self.likelihood not in ("auto", "logistic_mixture"):
            refuse(self, {"components"}, f"likelihood is '{self.likelihood}'")
        return self

    def choices(self, data: DataSpec) -> dict[str, Any]:
        """The likelihood that fits the data's measure."""
        likelihood = self.likelihood
        if data.sequential and likelihood == "auto":
            likelihood = "categorical"
        if data.sequential != (likelihood == "categorical"):
            what = "a sequence of symbols" if data.sequential else f"a {data.kind}"
            raise ConfigError(
                f"likelihood '{likelihood}' is not for {what}; 'categorical' is for sequences, and only for them."
            )
        if data.sequential:
            return super().choices(data) | {"likelihood": likelihood}
        if likelihood == "auto":
            likelihood = {None: "gaussian", 2: "bernoulli"}.get(data.levels, "logistic")  # type: ignore[assignment]
        if likelihood == "bernoulli" and data.levels != 2:
            raise ConfigError(
                "likelihood 'bernoulli' is for two grey values: of others it is no probability, so there would be no bound. "
                "Binarise the data (--preprocess.binarize dynamic or threshold), or use 'logistic'."
            )
        if likelihood == "logistic_mixture" and (data.levels is None or data.kind == "vector"):
            raise ConfigError(
                "likelihood 'logistic_mixture' is for images or signals with a known number of grey values."
            )
        if likelihood == "logistic" and data.levels is None:
            raise ConfigError("likelihood 'logistic' is for data with a known number of grey values; use 'gaussian'.")
        return super().choices(data) | {"likelihood": likelihood}


class WarmupConfig(AutoencoderConfig):
    """A model whose rate is warmed up."""

    rate_warmup: float = Field(0.5, ge=0, le=1)
    """Share of the training over which the rate's weight in the encoder's gradient rises from 0."""
