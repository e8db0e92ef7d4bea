"""The family: one configuration type for each model, with its defaults and its row of the table. No torch here.

`models/zoo.py` holds, under the same names, the short functions that build them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from diled.config import Config, DataSpec, validated
from diled.errors import ConfigError, did_you_mean
from diled.parts import DataDiffusionConfig, DiffusionConfig, NetworkConfig, refuse

__all__ = ["FAMILY", "ModelConfig", "Row", "family_table", "model_config"]


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

    def choices(self, data: DataSpec) -> dict[str, Any]:
        """What this type fills in for these data, by key.

        Raises:
            ConfigError: a choice does not fit the data.
        """
        diffusions = {key: getattr(self, key) for key in type(self).model_fields}
        return {key: d.resolved(data) for key, d in diffusions.items() if isinstance(d, DataDiffusionConfig)}

    def code_size(self, data: DataSpec) -> int | None:
        """D, the size of a code; None where there are no codes."""
        return None

    def resolved(self, data: DataSpec) -> ModelConfig:
        """The same with every `auto` and None that depends on the data filled in.

        Raises:
            ConfigError: a choice does not fit the data.
        """
        given = {key: getattr(self, key) for key in self.model_fields_set}
        return validated(type(self), given | self.choices(data), "model")


class CodeConfig(ModelConfig):
    """A model with an encoder network and vector codes."""

    latent_dim: int | None = Field(None, ge=1)
    """Size of the code; None: a quarter of the data's dimensions, at most 32 (128 for more than 1,024 dimensions)."""
    network: NetworkConfig = NetworkConfig()
    """Encoder and decoder networks."""

    def choices(self, data: DataSpec) -> dict[str, Any]:
        """The size of the code and the kind of the network."""
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
        network = {key: getattr(self.network, key) for key in self.network.model_fields_set}
        return super().choices(data) | {"latent_dim": dim, "network": network | {"kind": kind}}

    def code_size(self, data: DataSpec) -> int | None:
        """The size of the latent code."""
        return self.latent_dim


class AutoencoderConfig(CodeConfig):
    """A model whose decoder's network gives the parameters of a likelihood."""

    likelihood: Literal["auto", "bernoulli", "gaussian", "logistic", "logistic_mixture"] = "auto"
    """p(x | z). `auto`: Bernoulli for two grey values, logistic for more, Gaussian for continuous data. On a grid of grey
    values `gaussian` and `logistic` are discretised, so that the bound is a probability."""
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


class DiledPaperConfig(AutoencoderConfig):
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


class DiledDiffusionDecoderConfig(CodeConfig):
    """DiLED for images: the decoder is a diffusion over pixels, given the code."""

    row = Row(
        "DiLED, diffusion decoder", "Gaussian, learned variance", "a conditional diffusion", "diffusion",
        "joint, warm-up", "yes (the decoder's VLB + the rate)", "Liu et al. 2024, section 4.2",
    )  # fmt: skip
    rate_weight: float = Field(0.1, ge=0)
    """How much of the rate's gradient the encoder feels. At 1 a diffusion decoder, a density itself, needs no code."""
    rate_warmup: float = Field(0.5, ge=0, le=1)
    """Share of the training over which the rate's weight in the encoder's gradient rises from 0."""
    decoder: DataDiffusionConfig = DataDiffusionConfig()
    """The diffusion over data, given the code."""
    prior: DiffusionConfig = DiffusionConfig()
    """The diffusion over codes."""


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
    cycles: int = Field(1, ge=1)
    """Warm-ups in turn over the training, each over `rate_warmup` of its cycle (Fu et al. 2019); 1: a single one."""
    free_bits: float = Field(0.0, ge=0)
    """Nats per code dimension that cost nothing (Kingma et al. 2016)."""

    @model_validator(mode="after")
    def _cycles_rise(self) -> BetaVAEConfig:
        if self.cycles > 1 and self.rate_warmup == 0:
            raise ValueError("'cycles' has no effect, since rate_warmup is 0: nothing rises in a cycle")
        return self


class HierarchicalVAEConfig(WarmupConfig):
    """A VAE whose prior is a VAE, and so on."""

    row = Row(
        "hierarchical VAE", "n nested", "n nested", "standard normal", "joint, warm-up", "yes",
        "Rezende et al. 2014; Sonderby et al. 2016",
    )  # fmt: skip
    levels: int = Field(2, ge=2)
    """n: encoders and decoders, the first included."""
    level_width: int = Field(256, ge=1)
    """Hidden width of the encoders and decoders between codes."""


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


class LSGMConfig(WarmupConfig):
    """LSGM: a joint diffusion prior with mixed score, the prior and the encoder weighted apart."""

    row = Row(
        "LSGM", "Gaussian, learned variance", "likelihood", "diffusion, mixed score",
        "joint, warm-up; prior and encoder weighted apart", "yes", "Vahdat et al. 2021",
    )  # fmt: skip
    rate_weight: float = Field(1.0, ge=0)
    """How much of the rate's gradient the encoder feels."""
    prior: DiffusionConfig = DiffusionConfig(
        mixed=True, parameterization="eps", weighting="simple", encoder_weighting="vlb"
    )
    """The diffusion over codes."""


class AEConfig(AutoencoderConfig):
    """The plain autoencoder."""

    row = Row(
        "AE", "deterministic", "likelihood", "Gaussian mixture, fitted afterwards", "reconstruction", "no",
        "Hinton & Salakhutdinov 2006; Ghosh et al. 2020",
    )  # fmt: skip
    mixture: int = Field(10, ge=1)
    """Components of the Gaussian mixture that is fitted to training codes, to sample from."""


class DAAEConfig(AEConfig):
    """The denoising adversarial autoencoder."""

    row = Row(
        "DAAE", "deterministic, of corrupted x", "likelihood", "adversarial; Gaussian mixture, fitted afterwards",
        "reconstruction and a critic", "no", "Makhzani et al. 2015; Creswell & Bharath 2018; Shen et al. 2020",
    )  # fmt: skip
    corruption: float = Field(0.3, ge=0, lt=1)
    """Share of the input's values that are hidden from the encoder while training."""
    critic_weight: float = Field(10.0, gt=0)
    """Weight of the critic's say in the encoder's gradient."""
    critic_width: int = Field(256, ge=1)
    """Hidden width of the critic."""
    critic_pace: float = Field(0.5, gt=0)
    """The critic's learning rate, relative to everything else's."""


class NoiseCodeConfig(ModelConfig):
    """A diffusion over data whose code is the noise that its ODE takes x to."""

    def code_size(self, data: DataSpec) -> int | None:
        """As many as x has dimensions."""
        return data.numel


class DDPMConfig(NoiseCodeConfig):
    """The denoising diffusion model of data, with DDIM sampling and inversion."""

    row = Row(
        "DDPM / DDIM", "the code is x itself", "the discretised last step", "diffusion",
        "unweighted noise error", "yes, whatever the training weights", "Ho et al. 2020; Song et al. 2021",
    )  # fmt: skip
    diffusion: DataDiffusionConfig = DataDiffusionConfig(
        schedule="ddpm", parameterization="eps", weighting="simple", timesteps=999
    )
    """The diffusion over data. 999 steps lie between the table's 1,000 noise levels; the last step reads x back."""


class EDMConfig(NoiseCodeConfig):
    """EDM: preconditioned denoiser, log-normal noise levels, Heun's method."""

    row = Row(
        "EDM", "the code is x itself", "the discretised last step", "diffusion, preconditioned",
        "EDM's weights", "yes, whatever the training weights", "Karras et al. 2022",
    )  # fmt: skip
    diffusion: DataDiffusionConfig = DataDiffusionConfig(schedule="edm", parameterization="edm", weighting="edm")
    """The diffusion over data."""


class NDMConfig(ModelConfig):
    """The neural diffusion model: x is transformed by a learned map at each noise level."""

    row = Row(
        "NDM", "x itself, through a learned map for each time", "the discretised last step", "diffusion, learned mean map",
        "the bound", "yes", "Bartosh et al. 2023",
    )  # fmt: skip
    diffusion: DataDiffusionConfig = DataDiffusionConfig(timesteps=1000)
    """The diffusion over data; the map has a network of the same size."""

    @model_validator(mode="after")
    def _discrete_and_bound(self) -> NDMConfig:
        if self.diffusion.timesteps is None:
            raise ValueError("diffusion.timesteps: a learned map needs a discrete chain: give a number of steps")
        if self.diffusion.weighting != "vlb":
            raise ValueError("diffusion.weighting: the map is trained by the bound: use weighting 'vlb'")
        return self


class DiffAEConfig(CodeConfig):
    """The diffusion autoencoder: a semantic code, a diffusion decoder, and a latent diffusion fitted afterwards."""

    row = Row(
        "DiffAE", "deterministic", "a conditional diffusion", "standardised, diffusion", "two stages", "no",
        "Preechakul et al. 2022",
    )  # fmt: skip
    first_stage: float = Field(0.67, gt=0, lt=1)
    """Share of the steps that the first stage gets."""
    decoder: DataDiffusionConfig = DataDiffusionConfig(
        schedule="ddpm", parameterization="eps", weighting="simple", timesteps=999
    )
    """The diffusion over data, given the code."""
    prior: DiffusionConfig = DiffusionConfig()
    """The diffusion over codes."""


class ConsistencyConfig(ModelConfig):
    """The consistency model: one network evaluation from noise to data, distilled from a diffusion or from scratch."""

    row = Row(
        "consistency model", "none", "none", "a consistency function", "distilled from an EDM, or from scratch", "no",
        "Song et al. 2023; Song & Dhariwal 2024",
    )  # fmt: skip
    teacher: bool = True
    """Train an EDM first and distil it; false: from scratch. With `--init-from RUN --freeze prior` RUN is the teacher."""
    first_stage: float = Field(0.5, gt=0, lt=1)
    """Share of the steps that the teacher gets."""
    diffusion: DataDiffusionConfig = DataDiffusionConfig(schedule="edm", parameterization="edm", weighting="edm")
    """The teacher, the noise levels and the size of the network."""
    coarsest: int = Field(10, ge=2)
    """Noise levels at the start of the training; they double at equal intervals."""
    finest: int = Field(160, ge=2)
    """Noise levels at its end."""

    @model_validator(mode="after")
    def _fits(self) -> ConsistencyConfig:
        if self.finest < self.coarsest:
            raise ValueError(f"finest ({self.finest}) must not lie below coarsest ({self.coarsest})")
        if not self.teacher:
            refuse(self, {"first_stage"}, "there is no teacher")
        if self.diffusion.timesteps is not None:
            raise ValueError("diffusion.timesteps has no effect: the noise levels are `coarsest` to `finest` in number")
        return self


FAMILY: dict[str, type[ModelConfig]] = {
    "diled": DiledConfig,
    "diled_fixed": DiledFixedConfig,
    "diled_paper": DiledPaperConfig,
    "diled_levels": DiledLevelsConfig,
    "diled_diffusion_decoder": DiledDiffusionDecoderConfig,
    "vae": VAEConfig,
    "beta_vae": BetaVAEConfig,
    "hierarchical_vae": HierarchicalVAEConfig,
    "two_stage_vae": TwoStageVAEConfig,
    "ldm": LDMConfig,
    "lsgm": LSGMConfig,
    "ae": AEConfig,
    "daae": DAAEConfig,
    "ddpm": DDPMConfig,
    "edm": EDMConfig,
    "ndm": NDMConfig,
    "diffae": DiffAEConfig,
    "consistency": ConsistencyConfig,
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
