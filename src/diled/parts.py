"""Configurations of the parts that models are built from: networks and diffusions. No torch here.

`models/parts.py` builds what these describe; `family.py` says which model has which parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from diled.config import Config, DataSpec, validated
from diled.errors import ConfigError, did_you_mean

__all__ = [
    "ArchitectureConfig",
    "DataDiffusionConfig",
    "DiffusionConfig",
    "NetworkConfig",
    "NoiseConfig",
    "PropertyConfig",
    "refuse",
]


def refuse(config: Config, unused: set[str], why: str) -> None:
    """Complain about values that were set but have no effect, so that no knob is accepted and ignored."""
    for key in sorted(config.model_fields_set & unused):
        if getattr(config, key) != type(config).model_fields[key].default:
            raise ValueError(f"'{key}' has no effect, since {why}")


class ArchitectureConfig(Config):
    """A pretrained network without its weights: what a run keeps, so that it can be loaded where its folder is not."""

    values: dict[str, Any]
    """What its config.json says, less names of classes."""
    tokens: tuple[int, ...]
    """Its token of each symbol of the data; in place of the end of a sequence its own end token. Of text that one alone, since
    the symbols are tokens already."""
    start: int | None = None
    """The token that it puts before a sequence; None: nothing."""
    pad: int
    """The token that fills rows up, which nothing looks at."""
    tokenizer: str | None = Field(None, repr=False)
    """Of an encoder of text that has other tokens than the data: its tokenizer, as JSON of the library `tokenizers`."""
    vocabulary: str | None = None
    """Of a network of text that has the tokens of the data: SHA-256 of these."""
    unknown: tuple[str, ...] = ()
    """Symbols that it has no token for, and reads as unknown."""
    sha256: str
    """Hash of its weights."""


TRANSFORMERS = ("transformer", "causal")
"""Kinds of a decoder that is a transformer."""
OF_DECODER_FOLDER = {"decoder_frozen", "decoder_pace", "new_blocks", "decoder_architecture"}
"""Options that are about a pretrained decoder."""


class NetworkConfig(Config):
    """Encoder and decoder networks: one size dial for each kind."""

    kind: Literal["auto", "mlp", "conv", "residual", "transformer", "pretrained"] = "auto"
    """`auto`: convolutions for images of more than 1,024 pixels or several channels and for signals, else an MLP. `residual`:
    the convolutions with BatchNorm of Xiao et al. 2024, whose code is `latent_dim` / (H W / 16) channels of a grid, for images
    whose sides are divisible by 4. `transformer`: for sequences. `pretrained`: for sequences, an encoder from `folder`, and a
    decoder from `decoder_folder` or one of ours, whose size the other options set."""
    width: int = Field(400, ge=1)
    """Hidden width of the MLP, or of the transformer, which has 128 unless told otherwise."""
    depth: int = Field(2, ge=1)
    """Hidden layers of the MLP, or blocks of the transformer."""
    heads: int = Field(4, ge=1)
    """Attention heads of the transformer, a divisor of its width; of `pretrained` also the weighted means over positions."""
    activation: Literal["silu", "relu"] = "silu"
    """Nonlinearity of the MLP."""
    channels: int = Field(32, ge=1)
    """`conv`: channels of the first convolution, a multiple of 8; they double with each halving of the size, up to four-fold.
    `residual`: channels of every layer."""
    blocks: int = Field(1, ge=1)
    """Residual blocks at each size of the convolutional network."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the hidden values that are dropped while training, in encoder and decoder (not for `residual`; an encoder
    that is `pretrained` has its own)."""
    folder: str | None = None
    """`pretrained`: folder of a Hugging Face encoder, such as ESM-2 or BERT: its config.json, safetensors and tokenizer; or
    `hub:owner/name`, to fetch them. One of text may have a tokenizer of its own: each text is then written out and read
    again."""
    frozen: Literal["all", "none"] | int = "all"
    """`pretrained`: what of it stays as it is: `all`, `none`, or a number N: its embeddings and first N blocks."""
    pace: float = Field(0.1, gt=0)
    """`pretrained`: learning rate of what of it is trained, as a share of that of the other parts."""
    decoder: Literal["mlp", "transformer"] = "mlp"
    """`pretrained`: the network of a decoder that gives all positions at once."""
    autoregressive: bool | None = None
    """Of sequences with `transformer` or `pretrained`: whether the decoder is a transformer that writes symbol by symbol, each
    given those before it. None: of text, yes; of proteins, no."""
    inject: Literal["both", "embedding", "memory"] = "both"
    """`autoregressive`: how the code enters the decoder: an offset of every embedding, a memory of every block (one key and
    value before the first symbol), or both."""
    word_dropout: float = Field(0.3, ge=0, lt=1)
    """`autoregressive`: share of the symbols that is hidden from the decoder in training, so that it listens to the code."""
    decoder_folder: str | None = None
    """`pretrained`, of text: folder of a Hugging Face decoder, such as GPT-2 or Llama: its config.json, safetensors and
    tokenizer, which must be that of the data (`--preprocess.text.tokenizer FOLDER`), or `hub:owner/name`. None: the decoder is
    ours."""
    decoder_frozen: Literal["all", "blocks", "none"] | int = "all"
    """`decoder_folder`: what of it stays as it is: `all`, so that only maps of the code are trained; `blocks`, so that its
    table of tokens and its head are trained too; `none`; or a number N: its embeddings and first N blocks."""
    decoder_pace: float = Field(0.1, gt=0)
    """`decoder_folder`: learning rate of what of it is trained, new blocks included, as a share of that of the other parts."""
    new_blocks: int = Field(0, ge=0)
    """`decoder_folder`: blocks with random weights that are put below its own and trained, whatever is frozen."""
    architecture: ArchitectureConfig | None = None
    """`pretrained`: filled in from `folder`, and kept with the run, which then needs the folder no more."""
    decoder_architecture: ArchitectureConfig | None = None
    """The same of `decoder_folder`."""

    @field_validator("frozen", "decoder_frozen", mode="before")
    @classmethod
    def _words_or_blocks(cls, value: Any, info: ValidationInfo) -> Any:
        words = ("all", "blocks", "none") if info.field_name == "decoder_frozen" else ("all", "none")
        if value not in words and not str(value).isdecimal():
            raise ValueError(f"{', '.join(words)} or a number of blocks is wanted")
        return value

    @model_validator(mode="after")
    def _nothing_ignored(self) -> NetworkConfig:
        of_mlp = {"width", "depth", "activation"}
        of_conv = {"channels", "blocks"}
        of_pretrained = {"folder", "frozen", "pace", "decoder", "architecture"}
        of_pretrained |= OF_DECODER_FOLDER | {"decoder_folder"}
        of_writing = {"autoregressive", "inject", "word_dropout"}
        unused = {
            "mlp": of_conv | {"heads"} | of_pretrained | of_writing,
            "conv": of_mlp | {"heads"} | of_pretrained | of_writing,
            "residual": of_mlp | {"blocks", "dropout", "heads"} | of_pretrained | of_writing,
            "transformer": of_conv | {"activation"} | of_pretrained,
            "pretrained": of_conv,
            "auto": of_pretrained,
        }[self.kind]
        refuse(self, unused, f"network.kind is '{self.kind}'")
        if self.autoregressive is False:
            refuse(self, of_writing - {"autoregressive"}, "network.autoregressive is false")
        if self.kind == "pretrained":
            self._check_pretrained()
        if self.of_decoder in TRANSFORMERS and "width" in self.model_fields_set and self.width % self.heads:
            raise ValueError(f"'width' = {self.width}: it must be a multiple of heads = {self.heads}")
        if self.kind != "residual" and self.channels % 8:
            raise ValueError(
                f"'channels' = {self.channels}: it must be a multiple of 8 unless network.kind is 'residual'"
            )
        return self

    def _check_pretrained(self) -> None:
        """Complain about a missing folder, and about values that have no effect beside others."""
        if self.folder is None:
            raise ValueError("'kind' = pretrained needs 'folder', that of a Hugging Face encoder")
        if self.frozen == "all":
            refuse(self, {"pace"}, "network.frozen is 'all', so nothing of the encoder is trained")
        if self.decoder_folder is None:
            refuse(self, OF_DECODER_FOLDER, "there is no network.decoder_folder")
            if self.of_decoder in TRANSFORMERS:
                refuse(self, {"activation"}, "the decoder is a transformer")
            return
        if self.autoregressive is False:
            raise ValueError(
                "'decoder_folder' names a network that writes symbol by symbol, and 'autoregressive' is false"
            )
        refuse(self, {"width", "depth", "activation", "dropout", "decoder"}, "the decoder is that of 'decoder_folder'")
        if self.decoder_frozen == "all" and not self.new_blocks:
            refuse(self, {"decoder_pace"}, "network.decoder_frozen is 'all', so nothing of the decoder is trained")

    @property
    def of_decoder(self) -> str:
        """The kind of the decoder's network; `causal` where it writes symbol by symbol."""
        if self.autoregressive:
            return "causal"
        return self.decoder if self.kind == "pretrained" else self.kind


TABLES = ("ddpm", "constant_beta")
"""Schedules that are tables, with ends of their own."""


class PropertyConfig(Config):
    """A head that reads properties of an example from its code, or hidden states, trained together with the model."""

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
    weighting: Literal["vlb", "simple", "ddpm", "min_snr", "edm"] = "vlb"
    """Weights of the denoiser's training (`simple`: the schedule's levels alike, `ddpm`: DDPM's); the bound always uses vlb."""
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
    encoder_weighting: Literal["same", "vlb", "simple", "ddpm", "min_snr", "edm"] = "same"
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
