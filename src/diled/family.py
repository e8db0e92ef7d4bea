"""The family: one configuration type for each model, with its defaults and its row of the table. No torch here.

`models/zoo.py` holds, under the same names, the short functions that build them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from diled.config import Config, DataSpec, validated
from diled.errors import ConfigError, did_you_mean

__all__ = ["FAMILY", "DiffusionConfig", "ModelConfig", "NetworkConfig", "Row", "family_table", "model_config"]


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


def refuse(config: Config, unused: set[str], why: str) -> None:
    """Complain about values that were set but have no effect, so that no knob is accepted and ignored."""
    for key in sorted(config.model_fields_set & unused):
        if getattr(config, key) != type(config).model_fields[key].default:
            raise ValueError(f"'{key}' has no effect, since {why}")


class NetworkConfig(Config):
    """Encoder and decoder networks: one size dial for each kind."""

    kind: Literal["auto", "mlp", "conv"] = "auto"
    """`auto`: convolutions for images of more than 1,024 pixels or several channels and for signals, else an MLP."""
    width: int = Field(400, ge=1)
    """Hidden width of the MLP."""
    depth: int = Field(2, ge=1)
    """Hidden layers of the MLP."""
    channels: int = Field(32, ge=8, multiple_of=8)
    """Channels of the first convolution; they double with each halving of the size, up to four-fold."""
    blocks: int = Field(1, ge=1)
    """Residual blocks at each size of the convolutional network."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> NetworkConfig:
        unused = {"mlp": {"channels", "blocks"}, "conv": {"width", "depth"}, "auto": set()}[self.kind]
        refuse(self, unused, f"network.kind is '{self.kind}'")
        return self


TABLES = ("ddpm", "constant_beta")
"""Schedules that are tables, with ends of their own."""


class DiffusionConfig(Config):
    """A diffusion over vector codes: the denoiser, the schedule and the training weights."""

    width: int = Field(192, ge=1)
    """Width of the residual MLP that denoises."""
    blocks: int = Field(2, ge=1)
    """Its residual blocks."""
    parameterization: Literal["v", "eps", "x"] = "v"
    """What the network estimates; `v` starts as the exact denoiser of N(0, I)."""
    schedule: Literal["linear_log_snr", "learned_log_snr", "cosine", "linear", "ddpm", "constant_beta"] = (
        "linear_log_snr"
    )
    """How log SNR falls with time."""
    gamma_min: float = -8.0
    """-log SNR at the clean end."""
    gamma_max: float = 6.0
    """-log SNR at the noise end."""
    weighting: Literal["vlb", "simple", "min_snr"] = "vlb"
    """Weights of the denoiser's training; the bound always uses vlb."""
    encoder_weighting: Literal["same", "vlb", "simple", "min_snr"] = "same"
    """Weights of the gradient that flows into the codes."""
    timesteps: int | None = Field(None, ge=2)
    """T of a discrete chain; None: continuous time."""
    times_per_code: int = Field(4, ge=1)
    """Noise levels drawn for each code in a training step."""

    def overridden_by(self, values: dict[str, Any]) -> dict[str, Any]:
        """A schedule with ends of its own leaves none of a model's default ends behind."""
        mine = super().overridden_by(values)
        ends = {"gamma_min", "gamma_max"} - set(values) if values.get("schedule") in TABLES else set()
        return {key: value for key, value in mine.items() if key not in ends}

    @model_validator(mode="after")
    def _consistent(self) -> DiffusionConfig:
        if self.schedule in TABLES:
            refuse(self, {"gamma_min", "gamma_max"}, f"schedule '{self.schedule}' has ends of its own")
        if not self.gamma_min < self.gamma_max:
            raise ValueError(f"gamma_min ({self.gamma_min}) must lie below gamma_max ({self.gamma_max})")
        if self.schedule == "learned_log_snr" and (
            self.weighting != "vlb" or self.encoder_weighting not in ("same", "vlb")
        ):
            raise ValueError("a learned schedule is trained by the bound: use weighting 'vlb'")
        return self


class ModelConfig(Config):
    """What all models share."""

    row: ClassVar[Row]

    latent_dim: int | None = Field(None, ge=1)
    """Size of the code; None: a quarter of the data's dimensions, at most 32 (128 for more than 1,024 dimensions)."""
    network: NetworkConfig = NetworkConfig()
    """Encoder and decoder networks."""
    likelihood: Literal["auto", "bernoulli", "gaussian", "logistic", "logistic_mixture"] = "auto"
    """p(x | z). `auto`: Bernoulli for two grey values, logistic for more, Gaussian for continuous data. On a grid of grey
    values `gaussian` and `logistic` are discretised, so that the bound is a probability."""
    std: float | None = Field(None, gt=0)
    """A fixed standard deviation for `gaussian`, in units of the range [-1, 1]; None: learned."""
    components: int = Field(5, ge=1)
    """Components of `logistic_mixture`."""

    @model_validator(mode="after")
    def _nothing_ignored(self) -> ModelConfig:
        if self.likelihood not in ("auto", "gaussian"):
            refuse(self, {"std"}, f"likelihood is '{self.likelihood}'")
        if self.likelihood not in ("auto", "logistic_mixture"):
            refuse(self, {"components"}, f"likelihood is '{self.likelihood}'")
        return self

    def resolved(self, data: DataSpec) -> ModelConfig:
        """The same with every `auto` and None that depends on the data filled in.

        Raises:
            ConfigError: a choice does not fit the data.
        """
        n = data.numel
        dim = self.latent_dim or max(2, min(n // 4, 32 if n <= 1024 else 128))
        kind = self.network.kind
        if kind == "auto":
            big = data.kind == "signal" or (data.kind == "image" and (n > 1024 or data.shape[0] > 1))
            kind = "conv" if big and min(data.shape[1:], default=0) >= 8 else "mlp"
        if kind == "conv" and (data.kind == "vector" or min(data.shape[1:]) < 8):
            raise ConfigError(
                f"network.kind 'conv' needs images or signals of at least 8 pixels a side, not {data.shape}: use 'mlp'."
            )
        likelihood = self.likelihood
        if likelihood == "auto":
            likelihood = {None: "gaussian", 2: "bernoulli"}.get(data.levels, "logistic")  # type: ignore[assignment]
        if likelihood == "logistic_mixture" and (data.levels is None or data.kind == "vector"):
            raise ConfigError(
                "likelihood 'logistic_mixture' is for images or signals with a known number of grey values."
            )
        if likelihood == "logistic" and data.levels is None:
            raise ConfigError("likelihood 'logistic' is for data with a known number of grey values; use 'gaussian'.")
        given = {k: getattr(self, k) for k in self.model_fields_set}
        network = {k: getattr(self.network, k) for k in self.network.model_fields_set}
        return validated(
            type(self),
            given | {"latent_dim": dim, "likelihood": likelihood, "network": network | {"kind": kind}},
            "model",
        )


class WarmupConfig(ModelConfig):
    """A model whose rate is warmed up."""

    rate_warmup: float = Field(0.5, ge=0, le=1)
    """Share of the training over which the rate's weight in the encoder's gradient rises from 0."""


class DiledConfig(WarmupConfig):
    """DiLED with a learned encoder variance: LSGM's objective without mixed score and reweighting."""

    row = Row(
        "DiLED (EDDPM), default", "Gaussian, learned variance", "likelihood", "diffusion", "joint, warm-up", "yes",
        "Liu et al. 2024; Vahdat et al. 2021",
    )  # fmt: skip
    rate_weight: float = Field(1.0, ge=0)
    """How much of the rate's gradient the encoder feels: 1 for the best bound, 0.3 for sharper reconstructions."""
    prior: DiffusionConfig = DiffusionConfig()
    """The diffusion over codes."""


class DiledFixedConfig(DiledConfig):
    """DiLED whose encoder noise is the diffusion's first step, trained on the exact bound."""

    row = Row(
        "DiLED, fixed variance", "Gaussian; its noise is the first diffusion step", "likelihood", "diffusion",
        "joint, warm-up", "yes", "Liu et al. 2024",
    )  # fmt: skip
    prior: DiffusionConfig = DiffusionConfig(gamma_min=-5.0)
    """The diffusion over codes; its clean end is the encoder's noise."""


class DiledPaperConfig(ModelConfig):
    """DiLED with the objective of the paper: unweighted noise error, no last KL, no warm-up."""

    row = Row(
        "DiLED, the paper's objective", "Gaussian; its noise is the first diffusion step", "likelihood", "diffusion",
        "joint; the paper's weights", "yes", "Liu et al. 2024, Eq. 7 and appendix",
    )  # fmt: skip
    weight: float = Field(1.0, gt=0)
    """w: weight of the noise error (a mean over code dimensions) beside the reconstruction."""
    reconstruction: Literal["sum", "mean"] = "sum"
    """Reconstruction summed over the pixels, or their mean as in the reference code (which all but collapses on MNIST)."""
    prior: DiffusionConfig = DiffusionConfig(
        schedule="constant_beta", parameterization="eps", weighting="simple", timesteps=999, times_per_code=1
    )
    """The diffusion over codes."""


class DiledLevelsConfig(DiledConfig):
    """DiLED with several learned encoding levels."""

    row = Row(
        "DiLED, n levels", "n nested", "n nested", "diffusion innermost", "joint, warm-up", "yes",
        "Liu et al. 2024, section 3",
    )  # fmt: skip
    levels: int = Field(2, ge=2)
    """n: learned encoders and decoders, the first included."""
    level_width: int = Field(256, ge=1)
    """Hidden width of the encoders and decoders between codes."""


class VAEConfig(WarmupConfig):
    """The VAE, with warm-up of its rate."""

    row = Row(
        "VAE", "Gaussian, learned variance", "likelihood", "standard normal", "joint, warm-up", "yes",
        "Kingma & Welling 2014",
    )  # fmt: skip


class BetaVAEConfig(WarmupConfig):
    """The beta-VAE."""

    row = Row(
        "beta-VAE", "Gaussian, learned variance", "likelihood", "standard normal", "joint; beta", "yes (ignores beta)",
        "Higgins et al. 2017",
    )  # fmt: skip
    beta: float = Field(4.0, ge=0)
    """Weight of the rate."""
    free_bits: float = Field(0.0, ge=0)
    """Nats per code dimension that cost nothing."""


class StagesConfig(WarmupConfig):
    """A model trained in two stages."""

    first_stage: float = Field(0.67, gt=0, lt=1)
    """Share of the steps that the first stage gets."""


class TwoStageVAEConfig(StagesConfig):
    """The two-stage VAE: a second VAE on the codes of the first."""

    row = Row(
        "two-stage VAE", "Gaussian, learned variance", "likelihood", "another VAE, on the codes", "two stages", "yes",
        "Dai & Wipf 2019",
    )  # fmt: skip
    rate_weight: float = Field(1.0, ge=0)
    """Weight of the first stage's rate."""
    second_width: int = Field(256, ge=1)
    """Hidden width of the second VAE."""


class LDMConfig(StagesConfig):
    """The latent diffusion model: an autoencoder with a small KL, then a diffusion on its standardised codes."""

    row = Row(
        "LDM", "Gaussian, small KL weight", "likelihood", "standardised, diffusion", "two stages", "yes",
        "Rombach et al. 2022",
    )  # fmt: skip
    rate_weight: float = Field(0.3, ge=0)
    """Weight of the first stage's KL; 0.3 was best on validation images of MNIST and digits."""
    prior: DiffusionConfig = DiffusionConfig()
    """The diffusion over codes."""


FAMILY: dict[str, type[ModelConfig]] = {
    "diled": DiledConfig,
    "diled_fixed": DiledFixedConfig,
    "diled_paper": DiledPaperConfig,
    "diled_levels": DiledLevelsConfig,
    "vae": VAEConfig,
    "beta_vae": BetaVAEConfig,
    "two_stage_vae": TwoStageVAEConfig,
    "ldm": LDMConfig,
}
"""Name of the zoo function -> its configuration type."""


def model_config(name: str, values: dict[str, Any] | None = None) -> ModelConfig:
    """The configuration of the model called `name`.

    Raises:
        ConfigError: no such model, key or value; the nearest is named.
    """
    if name not in FAMILY:
        raise ConfigError(f"Unknown model '{name}'.{did_you_mean(name, FAMILY)}")
    return validated(FAMILY[name], values or {}, "model")


def family_table() -> list[dict[str, str]]:
    """The rows of the family table, with the model's name first."""
    return [{"name": name, **vars(kind.row)} for name, kind in FAMILY.items()]
