"""Configurations of the parts that models are built from: networks and diffusions. No torch here.

`models/parts.py` builds what these describe; `family.py` says which model has which parts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from diled.config import Config, DataSpec, validated
from diled.errors import ConfigError, did_you_mean

__all__ = [
    "ArchitectureConfig",
    "DataDiffusionConfig",
    "DiffusionConfig",
    "NetworkConfig",
    "NoiseConfig",
    "PropertyConfig",
    "read_architecture",
    "refuse",
]


def refuse(config: Config, unused: set[str], why: str) -> None:
    """Complain about values that were set but have no effect, so that no knob is accepted and ignored."""
    for key in sorted(config.model_fields_set & unused):
        if getattr(config, key) != type(config).model_fields[key].default:
            raise ValueError(f"'{key}' has no effect, since {why}")


class ArchitectureConfig(Config):
    """A pretrained encoder without its weights: what a run keeps, so that it can be loaded where its folder is not."""

    values: dict[str, Any]
    """What its config.json says, less names of classes."""
    tokens: tuple[int, ...]
    """Its token of each symbol of the data; in place of the end of a sequence its own end token."""
    start: int | None = None
    """The token that it puts before a sequence; None: nothing."""
    pad: int
    """The token that fills rows up, which nothing looks at."""
    unknown: tuple[str, ...] = ()
    """Symbols that it has no token for, and reads as unknown."""
    sha256: str
    """Hash of its weights."""


TRANSFORMERS = ("transformer", "causal")
"""Kinds of a decoder that is a transformer."""


class NetworkConfig(Config):
    """Encoder and decoder networks: one size dial for each kind."""

    kind: Literal["auto", "mlp", "conv", "residual", "transformer", "pretrained"] = "auto"
    """`auto`: convolutions for images of more than 1,024 pixels or several channels and for signals, else an MLP. `residual`:
    the convolutions with BatchNorm of Xiao et al. 2024, whose code is `latent_dim` / (H W / 16) channels of a grid, for images
    whose sides are divisible by 4. `transformer`: for sequences. `pretrained`: for sequences, an encoder from `folder` and a
    decoder of ours, whose size the other options set."""
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
    """`pretrained`: folder of a Hugging Face encoder, such as ESM-2: its config.json, safetensors and tokenizer."""
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
    """`autoregressive`: how the code enters the decoder: an offset of every embedding, a memory of every block, or both."""
    word_dropout: float = Field(0.3, ge=0, lt=1)
    """`autoregressive`: share of the symbols that is hidden from the decoder in training, so that it listens to the code."""
    architecture: ArchitectureConfig | None = None
    """`pretrained`: filled in from `folder`, and kept with the run, which then needs the folder no more."""

    @field_validator("frozen", mode="before")
    @classmethod
    def _all_none_or_blocks(cls, value: Any) -> Any:
        if value not in ("all", "none") and not str(value).isdecimal():
            raise ValueError("all, none or a number of blocks is wanted")
        return value

    @model_validator(mode="after")
    def _nothing_ignored(self) -> NetworkConfig:
        of_mlp = {"width", "depth", "activation"}
        of_conv = {"channels", "blocks"}
        of_pretrained = {"folder", "frozen", "pace", "decoder", "architecture"}
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
        if self.of_decoder in TRANSFORMERS:
            refuse(self, {"activation"}, "the decoder is a transformer")

    @property
    def of_decoder(self) -> str:
        """The kind of the decoder's network; `causal` where it writes symbol by symbol."""
        if self.autoregressive:
            return "causal"
        return self.decoder if self.kind == "pretrained" else self.kind


SPECIAL = {
    "start": (("cls_token", "bos_token"), ("<cls>", "[CLS]", "<s>")),
    "end": (("eos_token", "sep_token"), ("<eos>", "[SEP]", "</s>")),
    "unknown": (("unk_token",), ("<unk>", "[UNK]")),
    "pad": (("pad_token",), ("<pad>", "[PAD]")),
}
"""Special tokens: what a tokenizer's configuration calls them, and their usual spelling where it does not say."""
UNREAD = ("_name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "id2label", "label2id")
"""What config.json says beside the architecture."""


def read_architecture(folder: str | Path, symbols: tuple[str, ...]) -> ArchitectureConfig:
    """What the folder of a Hugging Face encoder says of it; its weights are only hashed.

    A symbol is a token by itself, or with the mark of a new word before it (ProtT5), or in lower case. The hash is SHA-256 of
    the files of weights one after the other.

    Args:
        folder: with config.json, safetensors, and tokenizer.json, vocab.txt or vocab.json.
        symbols: of the data, the end first.

    Raises:
        ConfigError: something is missing or damaged, the weights are pickles, or the tokenizer knows none of the symbols.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ConfigError(
            f"network.folder: there is no folder {folder}: name that of a Hugging Face encoder, with config.json, "
            "safetensors and its tokenizer."
        )
    values = _json_of(place / "config.json")
    if not isinstance(values.get("model_type"), str):
        raise ConfigError(
            f"network.folder: {folder} is no Hugging Face model: it has no config.json with a 'model_type'."
        )
    weights = _weights_of(place)
    table = _vocabulary_of(place)
    said = _json_of(place / "special_tokens_map.json") | _json_of(place / "tokenizer_config.json")
    special = {role: _special_token(role, said, table) for role in SPECIAL}
    found = [next((table[t] for t in ("\u2581" + s, s, s.lower()) if t in table), None) for s in symbols[1:]]
    lost = tuple(symbol for symbol, token in zip(symbols[1:], found, strict=True) if token is None)
    if len(lost) == len(found) or special["end"] is None or (lost and special["unknown"] is None):
        what = "knows none of the symbols of these data" if len(lost) == len(found) else "has no end or unknown token"
        raise ConfigError(f"network.folder: the tokenizer of {folder} {what}: choose an encoder of such sequences.")
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            while block := file.read(2**22):
                digest.update(block)
    return ArchitectureConfig(
        values={key: value for key, value in values.items() if key not in UNREAD},
        tokens=(special["end"], *(special["unknown"] if token is None else token for token in found)),
        start=special["start"],
        pad=special["end"] if special["pad"] is None else special["pad"],
        unknown=lost,
        sha256=digest.hexdigest(),
    )


def _json_of(path: Path) -> dict[str, Any]:
    """A JSON file that holds keys and values; empty where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"network.folder: {path} cannot be read ({error}): copy it again.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"network.folder: {path} holds no keys and values: copy it again.")
    return values


def _weights_of(place: Path) -> list[Path]:
    """The files of weights, in the order of their names."""
    whole = place / "model.safetensors"
    parts = {str(name) for name in _json_of(place / "model.safetensors.index.json").get("weight_map", {}).values()}
    paths = [whole] if whole.is_file() else [place / name for name in sorted(parts)]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise ConfigError(f"network.folder: {missing} is missing: copy it again.")
    if not paths:
        pickles = sorted(path.name for path in place.glob("*.bin"))
        why = f"{pickles[0]} is a pickle, which can run any code when it is opened, so it is refused" if pickles else (
            "there is no model.safetensors"
        )  # fmt: skip
        raise ConfigError(
            f"network.folder: {place} has no weights that can be read: {why}. Where you trust the model, save it anew with "
            "transformers' save_pretrained, which writes safetensors."
        )
    return paths


def _vocabulary_of(place: Path) -> dict[str, int]:
    """Token -> number, by tokenizer.json, vocab.txt or vocab.json."""
    try:
        if (place / "tokenizer.json").is_file():
            read = _json_of(place / "tokenizer.json")
            table = read["model"]["vocab"]
            if isinstance(table, list):  # of pairs: piece, score
                table = {piece: i for i, (piece, _) in enumerate(table)}
            return {**table, **{token["content"]: token["id"] for token in read.get("added_tokens") or ()}}
        if (place / "vocab.txt").is_file():
            return {line.strip(): i for i, line in enumerate((place / "vocab.txt").read_text("utf-8").splitlines())}
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"network.folder: the tokenizer of {place} cannot be read ({error}): copy it again."
        ) from None
    table = _json_of(place / "vocab.json")
    if not table:
        raise ConfigError(
            f"network.folder: {place} has no tokenizer: tokenizer.json, vocab.txt or vocab.json is needed. "
            "transformers' AutoTokenizer writes one with save_pretrained."
        )
    return table


def _special_token(role: str, said: Mapping[str, Any], table: Mapping[str, int]) -> int | None:
    """The number of a special token; None where there is none."""
    keys, usual = SPECIAL[role]
    named = [said[key]["content"] if isinstance(said[key], dict) else said[key] for key in keys if said.get(key)]
    return next((table[text] for text in (*named, *usual) if text in table), None)


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
