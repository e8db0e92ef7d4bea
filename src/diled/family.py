"""The family: one configuration type for each model, with its defaults and its row of the table. No torch here.

`models/zoo.py` holds, under the same names, the short functions that build them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from diled.config import DataSpec, validated
from diled.errors import ConfigError, did_you_mean
from diled.kinds import AutoencoderConfig, CodeConfig, ModelConfig, Row, WarmupConfig, default_code, rate_weight
from diled.parts import DataDiffusionConfig, DiffusionConfig, refuse
from diled.sequence_family import LMConfig, NOSConfig, PottsConfig, ProfileConfig, TokenDiffusionConfig

__all__ = ["FAMILY", "AutoencoderConfig", "CodeConfig", "ModelConfig", "Row", "family_table", "model_config"]


class DiledConfig(WarmupConfig):
    """DiLED with a learned encoder variance: LSGM's objective without mixed score and reweighting."""

    row = Row(
        "DiLED (EDDPM), default", "Gaussian, learned variance", "likelihood", "diffusion", "joint, warm-up", "yes",
        "Liu et al. 2024; Vahdat et al. 2021",
    )  # fmt: skip
    rate_weight: float | None = Field(None, ge=0)
    """How much of the rate's gradient the encoder feels: 1 for the best bound, 0.3 for sharper reconstructions. None: 1, and
    0.1 for sequences, whose positions are so nearly random that a code is not worth its price."""
    prior: DiffusionConfig = DiffusionConfig()
    """The diffusion over codes."""
    rounds: int = Field(0, ge=0)
    """0: everything is trained jointly. k: k rounds of two equally long stages in turn, encoder and decoder against the
    frozen prior, then the prior on the codes of the frozen encoder."""

    def choices(self, data: DataSpec) -> dict[str, Any]:
        """The weight of the rate."""
        return super().choices(data) | {"rate_weight": rate_weight(self.rate_weight, data)}


class DiledFixedConfig(DiledConfig):
    """DiLED whose encoder noise is the diffusion's first step, trained on the exact bound."""

    row = Row(
        "DiLED, fixed variance", "Gaussian; its noise is the first diffusion step", "likelihood", "diffusion",
        "joint, warm-up", "yes", "Liu et al. 2024",
    )  # fmt: skip
    prior: DiffusionConfig = DiffusionConfig(gamma_min=-5.0)
    """The diffusion over codes; its clean end is the encoder's noise."""

    @model_validator(mode="after")
    def _noise_belongs_to_both(self) -> DiledFixedConfig:
        if self.rounds and self.prior.schedule == "learned_log_snr":
            raise ValueError("rounds: a learned schedule is part of encoder and prior, so no stage trains it: use 0")
        return self


class DiledPaperConfig(AutoencoderConfig):
    """DiLED with the objective of the paper: unweighted noise error, no last KL unless wanted, no warm-up."""

    row = Row(
        "DiLED, the paper's objective", "Gaussian; its noise is the first diffusion step", "likelihood", "diffusion",
        "joint; the paper's weights", "yes", "Liu et al. 2024, Eq. 7 and appendix",
    )  # fmt: skip
    weight: float = Field(1.0, gt=0)
    """w: weight of the noise error (a mean over code dimensions) beside the reconstruction."""
    reconstruction: Literal["sum", "mean"] | None = None
    """`sum`: the reconstruction is summed over the pixels, or the symbols of a sequence. `mean`: it is their mean, as in the
    reference code (which all but collapses on MNIST); of sequences, over the symbols of each and its end, times the mean of
    1 / (T lambda_t), so that w is the paper's. None: `mean` for sequences, else `sum`."""
    reconstruct_at: Literal["always", "split", "one"] = "always"
    """How the reconstruction meets the noise level t that is drawn for an example. `always`: at full weight, whatever t is;
    `split`: divided by the bound's weight of t, as in the paper (Eq. 30 to 33), with a mean weight of one; `one`: at the
    first of the T levels alone, with the weight T."""
    prior: DiffusionConfig = DiffusionConfig(
        schedule="constant_beta", parameterization="eps", weighting="simple", timesteps=999, times_per_code=1,
        terminal=False,
    )  # fmt: skip
    """The diffusion over codes."""

    @model_validator(mode="after")
    def _paper(self) -> DiledPaperConfig:
        if (self.prior.weighting, self.prior.encoder_weighting) != ("simple", "same"):
            raise ValueError("prior.weighting has no effect: the paper's objective has weights of its own; use 'diled'")
        if self.reconstruct_at != "always" and self.prior.timesteps is None:
            raise ValueError(f"reconstruct_at: '{self.reconstruct_at}' needs a discrete chain: give prior.timesteps")
        return self


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
    rate_weight: float = Field(0.01, ge=0)
    """How much of the rate's gradient the encoder feels. A diffusion decoder is a density itself, so at 1 it needs no
    code; at 0.01 it keeps one."""
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
    posterior: Literal["gaussian", "flow"] = "gaussian"
    """q(z | x): a Gaussian of learned diagonal variance, or that carried through a flow of affine couplings, which are given
    what the encoder says of x (Kingma et al. 2016; Dinh et al. 2017)."""
    flow_steps: int = Field(4, ge=1)
    """Couplings of the flow; each moves half of the dimensions."""
    importance: int = Field(1, ge=1)
    """K: codes of each example in training. More than one trains on the importance-weighted bound, which is tighter (Burda
    et al. 2016), at the price of K decodings; it needs rate_warmup 0. The more there are, the noisier is what the encoder
    learns from (Rainforth et al. 2018). Every reported bound is that of one code all the same."""

    @model_validator(mode="after")
    def _weights_and_flow(self) -> VAEConfig:
        if self.importance > 1 and self.properties.columns:
            raise ValueError(
                "importance: several codes share one bound, so a property has no code to be read from: use 1"
            )
        if self.importance > 1 and self.rate_warmup:
            raise ValueError(
                f"importance: {self.importance} weights need the rate in full from the start, since a scaled rate is part of "
                f"no weight: set rate_warmup to 0 (it is {self.rate_warmup:g})"
            )
        if self.posterior == "gaussian":
            refuse(self, {"flow_steps"}, "posterior is 'gaussian'")
        elif self.latent_dim == 1:
            raise ValueError("posterior: a flow couples dimensions of the code, and latent_dim is 1: use 'gaussian'")
        return self


class BetaVAEConfig(WarmupConfig):
    """The beta-VAE."""

    row = Row(
        "beta-VAE", "Gaussian, learned variance", "likelihood", "standard normal", "joint; beta", "yes (ignores beta)",
        "Higgins et al. 2017",
    )  # fmt: skip
    beta: float | None = Field(None, ge=0)
    """Weight of the rate. None: 4, and 0.1 for sequences, where no code outlives more than 1."""
    cycles: int = Field(1, ge=1)
    """Warm-ups in turn over the training, each over `rate_warmup` of its cycle (Fu et al. 2019); 1: a single one."""
    free_bits: float = Field(0.0, ge=0)
    """Nats per code dimension that cost nothing (Kingma et al. 2016)."""

    def choices(self, data: DataSpec) -> dict[str, Any]:
        """The weight of the rate."""
        return super().choices(data) | {"beta": rate_weight(self.beta, data, 4.0)}

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

    @model_validator(mode="after")
    def _codes_are_fixed(self) -> LDMConfig:
        self.prior.refuse_on_fixed_codes()
        return self


class LSGMConfig(WarmupConfig):
    """LSGM: a joint diffusion prior with mixed score, the prior and the encoder weighted apart."""

    row = Row(
        "LSGM", "Gaussian, learned variance", "likelihood", "diffusion, mixed score",
        "joint, warm-up; prior and encoder weighted apart", "yes", "Vahdat et al. 2021",
    )  # fmt: skip
    rate_weight: float | None = Field(None, ge=0)
    """How much of the rate's gradient the encoder feels. None: 1, and 0.1 for sequences."""
    prior: DiffusionConfig = DiffusionConfig(
        mixed=True, parameterization="eps", weighting="ddpm", encoder_weighting="vlb"
    )
    """The diffusion over codes."""

    def choices(self, data: DataSpec) -> dict[str, Any]:
        """The weight of the rate."""
        return super().choices(data) | {"rate_weight": rate_weight(self.rate_weight, data)}


class AEConfig(AutoencoderConfig):
    """The plain autoencoder."""

    row = Row(
        "AE", "deterministic", "likelihood", "Gaussian mixture, fitted afterwards", "reconstruction", "no",
        "Hinton & Salakhutdinov 2006; Ghosh et al. 2020",
    )  # fmt: skip
    mixture: int = Field(10, ge=1)
    """Components of the Gaussian mixture that is fitted to training codes, to sample from."""


class ReLSOConfig(AEConfig):
    """ReLSO: an autoencoder of sequences with a property head and regularisers for a code that can be climbed in."""

    row = Row(
        "ReLSO", "deterministic", "likelihood", "Gaussian mixture, fitted afterwards",
        "reconstruction, a property head, three regularisers", "no", "Castro et al. 2022",
    )  # fmt: skip
    reads = ("symbols",)
    norm: float = Field(0.001, ge=0)
    """Weight of the codes' squared norm."""
    interpolation: float = Field(0.02, ge=0)
    """Weight of what decoded midpoints of neighbours differ from both beyond what these differ from each other, per symbol."""
    negative: float = Field(0.8, ge=0)
    """Weight of the predictions' distance from `negative_floor` far outside the data."""
    negative_floor: float = -2.0
    """What is predicted there, in standard deviations from the mean of the training examples."""
    negative_reach: float = Field(4.0, gt=1)
    """How far outside, in distances of the farthest code from the centre."""

    @model_validator(mode="after")
    def _has_a_property(self) -> ReLSOConfig:
        if not self.properties.columns:
            raise ValueError("properties.columns: ReLSO learns a property: name a label column, or use 'ae'")
        return self

    def choices(self, data: DataSpec) -> dict[str, Any]:
        """Those of an autoencoder; predictions far outside are of real numbers."""
        chosen = super().choices(data)
        if chosen["network"].get("autoregressive"):
            raise ConfigError("network.autoregressive: ReLSO compares all positions at once: set it to false.")
        if self.negative and all(data.labels[column] for column in self.properties.columns):
            raise ConfigError(
                "properties.columns: none of them holds real numbers, and 'negative' draws those to negative_floor: name "
                "another column, or set negative to 0."
            )
        return chosen


class DAAEConfig(AEConfig):
    """The denoising adversarial autoencoder."""

    row = Row(
        "DAAE", "deterministic, of corrupted x", "likelihood", "adversarial; Gaussian mixture, fitted afterwards",
        "reconstruction and a critic", "no", "Makhzani et al. 2015; Creswell & Bharath 2018; Shen et al. 2020",
    )  # fmt: skip
    corruption: float = Field(0.1, ge=0, lt=1)
    """Share of the input's values that are hidden from the encoder while training."""
    critic_weight: float = Field(1.0, gt=0)
    """Weight of the critic's say in the encoder's gradient; 1 reconstructed best on validation images of digits."""
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
        if self.diffusion.schedule == "learned_log_snr":
            raise ValueError("diffusion.schedule: a learned map needs a schedule whose ends are fixed, not learned")
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

    @model_validator(mode="after")
    def _codes_are_fixed(self) -> DiffAEConfig:
        self.prior.refuse_on_fixed_codes()
        return self


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
        if self.diffusion.schedule == "learned_log_snr":
            raise ValueError("diffusion.schedule: a student needs a schedule whose ends are fixed, not learned")
        usual = type(self).model_fields["diffusion"].default
        for key in ("parameterization", "weighting", "times_per_example"):
            if not self.teacher and getattr(self.diffusion, key) != getattr(usual, key):
                raise ValueError(f"diffusion.{key} has no effect, since there is no teacher")
        return self


class IndependentConfig(ModelConfig):
    """Independent dimensions."""

    row = Row(
        "independent dimensions", "none", "none", "a histogram or Gaussian for each dimension", "in closed form", "exact",
        "what every model must beat",
    )  # fmt: skip


class PPCAConfig(ModelConfig):
    """Probabilistic principal component analysis."""

    row = Row(
        "PPCA", "linear", "linear Gaussian", "standard normal", "in closed form", "exact (on a grid: yes)",
        "Tipping & Bishop 1999",
    )  # fmt: skip
    latent_dim: int | None = Field(None, ge=1)
    """Principal directions; None: a quarter of the data's dimensions, at most 32 (128 for more than 1,024 dimensions)."""

    def choices(self, data: DataSpec) -> dict[str, Any]:
        """The number of directions."""
        return {"latent_dim": self.latent_dim or default_code(data)}

    def code_size(self, data: DataSpec) -> int | None:
        """As many as directions."""
        return self.latent_dim


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
    "relso": ReLSOConfig,
    "ddpm": DDPMConfig,
    "edm": EDMConfig,
    "ndm": NDMConfig,
    "diffae": DiffAEConfig,
    "consistency": ConsistencyConfig,
    "ppca": PPCAConfig,
    "independent": IndependentConfig,
    "profile": ProfileConfig,
    "potts": PottsConfig,
    "lm": LMConfig,
    "token_diffusion": TokenDiffusionConfig,
    "nos": NOSConfig,
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
