"""The family: every model is a short function over the same parts.

    name           encoder                  decoder     prior                    training                a bound?
    diled          Gaussian, learned var.   likelihood  diffusion                joint, warm-up          yes
    diled_fixed    noise = first step       likelihood  diffusion                joint, warm-up          yes
    diled_paper    noise = first step       likelihood  diffusion                joint, paper's weights  yes
    diled_levels   n nested                 n nested    diffusion innermost      joint, warm-up          yes
    vae            Gaussian, learned var.   likelihood  standard normal          joint, warm-up          yes
    beta_vae       Gaussian, learned var.   likelihood  standard normal          joint, beta             yes (ignores beta)
    two_stage_vae  Gaussian, learned var.   likelihood  another VAE, on codes    two stages              yes
    ldm            Gaussian, small KL       likelihood  standardised, diffusion  two stages              yes

Each function takes the model's configuration (its defaults live there) and what is known of the data, and returns the
model with its training stages. The only place where networks meet mathematics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diled.api import Density, Stage
from diled.config import DataSpec
from diled.diffusion import PARAMETERIZATIONS, Diffusion, Objective, min_snr, simple, vlb
from diled.diffusion.objectives import Weighting
from diled.diffusion.schedule import Cosine, LearnedLogSNR, Linear, LinearLogSNR, Schedule, constant_beta, ddpm_beta
from diled.family import (
    FAMILY,
    BetaVAEConfig,
    DiffusionConfig,
    DiledConfig,
    DiledFixedConfig,
    DiledLevelsConfig,
    DiledPaperConfig,
    LDMConfig,
    ModelConfig,
    TwoStageVAEConfig,
    VAEConfig,
)
from diled.models.autoencoder import (
    Autoencoder,
    BernoulliLikelihood,
    DiscretizedLikelihood,
    FixedNoiseEncoder,
    GaussianEncoder,
    GaussianLikelihood,
    Likelihood,
    LikelihoodDecoder,
    LogisticMixtureLikelihood,
    Rate,
    warmup,
)
from diled.models.priors import Standardized, StandardNormal
from diled.nn.blocks import mlp
from diled.nn.image import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from diled.nn.latent import ResidualMLP

__all__ = ["ZOO", "Recipe", "build"]


@dataclass
class Recipe:
    """A model and the stages that train it."""

    model: Autoencoder
    stages: list[Stage]


def diled(config: DiledConfig, data: DataSpec) -> Recipe:
    """DiLED, also published as EDDPM: an autoencoder and its diffusion prior, trained jointly on the bound.

        x --E--> N(m, v) --> z_0 --D--> p(x | z_0)
                               \\--> diffusion: z_0 ... z_1 ~ N(0, I)

    With a learned variance this is LSGM's objective without mixed score and reweighting.

    References: Liu et al. 2024 (arXiv 2402.19009); Vahdat et al. 2021 (arXiv 2106.05931).
    """
    dim = latent_dim(config)
    prior = diffusion(config.prior, dim)
    encoder = GaussianEncoder(encoder_network(config, data, 2 * dim))
    weight = warmup(config.rate_weight, config.rate_warmup)
    return jointly(Autoencoder(encoder, decoder(config, data), prior, rate_weight=weight))


def diled_fixed(config: DiledFixedConfig, data: DataSpec) -> Recipe:
    """DiLED as the paper defines it: the encoder's noise is fixed and is the diffusion's first step.

    Trained on the exact bound rather than on the paper's weights. Reference: Liu et al. 2024, section 3.
    """
    dim = latent_dim(config)
    prior = diffusion(config.prior, dim)
    encoder = FixedNoiseEncoder(encoder_network(config, data, dim), prior.schedule)
    weight = warmup(config.rate_weight, config.rate_warmup)
    return jointly(Autoencoder(encoder, decoder(config, data), prior, rate_weight=weight))


def diled_paper(config: DiledPaperConfig, data: DataSpec) -> Recipe:
    """DiLED with the objective of the paper: reconstruction + w mean_D || e - e_hat ||^2, t uniform, no last KL.

    The reconstruction is always computed, which equals the paper's splitting of it over t (Eq. 30 to 33) in expectation.
    Its alignment term at the first step is the noise error there, with e the whole noise between E(x) and z_t. The
    reported bound is exact whatever was trained. Reference: Liu et al. 2024, Eq. 7.
    """
    dim = latent_dim(config)
    pixels = data.numel if config.reconstruction == "mean" else 1
    weight = simple(config.weight * pixels, mean=True)
    prior = diffusion(config.prior, dim, Objective(weight, terminal=False))
    encoder = FixedNoiseEncoder(encoder_network(config, data, dim), prior.schedule)
    return jointly(Autoencoder(encoder, decoder(config, data), prior))


def diled_levels(config: DiledLevelsConfig, data: DataSpec) -> Recipe:
    """DiLED with n > 1 learned levels: x -> z^1 -> ... -> z^n, and a diffusion over z^n.

    An autoencoder whose prior is an autoencoder whose prior is a diffusion. Reference: Liu et al. 2024, section 3.
    """
    dim, width = latent_dim(config), config.level_width
    prior: Density = diffusion(config.prior, dim)
    for _ in range(config.levels - 1):
        prior = Autoencoder(
            GaussianEncoder(mlp([dim, width, width, 2 * dim])),
            LikelihoodDecoder(mlp([dim, width, width, 2 * dim]), GaussianLikelihood(per_dimension=True)),
            prior,
        )
    encoder = GaussianEncoder(encoder_network(config, data, 2 * dim))
    weight = warmup(config.rate_weight, config.rate_warmup)
    return jointly(Autoencoder(encoder, decoder(config, data), prior, rate_weight=weight))


def vae(config: VAEConfig, data: DataSpec) -> Recipe:
    """The variational autoencoder. Reference: Kingma & Welling 2014 (arXiv 1312.6114)."""
    return jointly(gaussian_vae(config, data, warmup(1.0, config.rate_warmup)))


def beta_vae(config: BetaVAEConfig, data: DataSpec) -> Recipe:
    """A VAE whose rate is weighted with beta. Reference: Higgins et al. 2017 (ICLR)."""
    return jointly(gaussian_vae(config, data, warmup(config.beta, config.rate_warmup), config.free_bits))


def two_stage_vae(config: TwoStageVAEConfig, data: DataSpec) -> Recipe:
    """A VAE, then a second VAE on its codes as the prior. Reference: Dai & Wipf 2019 (arXiv 1903.05789)."""
    dim, width = latent_dim(config), config.second_width
    first = gaussian_vae(config, data, warmup(config.rate_weight, config.rate_warmup))
    second = Autoencoder(
        GaussianEncoder(mlp([dim, width, width, 2 * dim])),
        LikelihoodDecoder(mlp([dim, width, width, dim]), GaussianLikelihood()),
        StandardNormal((dim,)),
    )
    return in_two_stages(config.first_stage, first, second)


def ldm(config: LDMConfig, data: DataSpec) -> Recipe:
    """A latent diffusion model: an autoencoder with a small KL, then a diffusion on its standardised codes.

    Reference: Rombach et al. 2022 (arXiv 2112.10752), here with vector codes.
    """
    dim = latent_dim(config)
    first = gaussian_vae(config, data, warmup(config.rate_weight, config.rate_warmup))
    return in_two_stages(config.first_stage, first, Standardized(diffusion(config.prior, dim), (dim,)))


# The parts ------------------------------------------------------------------------------------------------------------


def jointly(model: Autoencoder) -> Recipe:
    """One stage that trains everything."""
    return Recipe(model, [Stage("joint", model)])


def in_two_stages(share: float, first: Autoencoder, prior: Density) -> Recipe:
    """The autoencoder with its own simple prior; then the prior proper, on the codes of the frozen encoder."""

    def fit(x: Tensor) -> None:
        if isinstance(prior, Standardized):
            prior.fit(first.encoder(x).sample())

    model = Autoencoder(first.encoder, first.decoder, prior)
    stages = [
        Stage("autoencoder", first, share),
        Stage("prior", Rate(first.encoder, prior), 1 - share, frozen=(first.encoder,), prepare=fit),
    ]
    return Recipe(model, stages)


def gaussian_vae(
    config: ModelConfig, data: DataSpec, weight: Callable[[Tensor | float], Tensor | float], free_bits: float = 0.0
) -> Autoencoder:
    """Gaussian encoder, likelihood decoder, N(0, I)."""
    dim = latent_dim(config)
    encoder = GaussianEncoder(encoder_network(config, data, 2 * dim))
    prior = StandardNormal((dim,), free_bits=free_bits)
    return Autoencoder(encoder, decoder(config, data), prior, rate_weight=weight)


def latent_dim(config: ModelConfig) -> int:
    """The resolved size of the code."""
    assert config.latent_dim is not None, "call ModelConfig.resolved(data) first"
    return config.latent_dim


def encoder_network(config: ModelConfig, data: DataSpec, out: int) -> nn.Module:
    """x (B, *shape) -> (B, out)."""
    net = config.network
    if net.kind == "conv":
        return ConvEncoder(data.shape, out, channels=net.channels, blocks=net.blocks)
    return MLPEncoder(data.shape, out, width=net.width, depth=net.depth)


def decoder(config: ModelConfig, data: DataSpec) -> LikelihoodDecoder:
    """z (B, D) -> p(x | z)."""
    net, p = config.network, likelihood(config, data)
    channels = data.shape[0]
    out = (channels * p.parameters_per_channel(channels), *data.shape[1:])
    dim = latent_dim(config)
    if net.kind == "conv":
        return LikelihoodDecoder(ConvDecoder(dim, out, channels=net.channels, blocks=net.blocks), p)
    return LikelihoodDecoder(MLPDecoder(dim, out, width=net.width, depth=net.depth), p)


def likelihood(config: ModelConfig, data: DataSpec) -> Likelihood:
    """p(x | z) in the data's own measure."""
    if config.likelihood == "bernoulli":
        return BernoulliLikelihood()
    if config.likelihood == "logistic_mixture":
        assert data.levels is not None
        return LogisticMixtureLikelihood(data.levels, config.components)
    if data.levels is not None:
        return DiscretizedLikelihood(data.levels, config.likelihood, std=config.std)
    return GaussianLikelihood(config.std, shape=data.shape if data.kind == "vector" else ())


def diffusion(config: DiffusionConfig, dim: int, objective: Objective | None = None) -> Diffusion:
    """A diffusion over vector codes."""
    noise_levels = schedule(config)
    if objective is None:
        encoder = (
            None if config.encoder_weighting in ("same", config.weighting) else weighting(config.encoder_weighting)
        )
        objective = Objective(weighting(config.weighting), encoder)
    network = ResidualMLP(dim, config.width, config.blocks)
    return Diffusion(
        PARAMETERIZATIONS[config.parameterization](network),
        noise_levels,
        (dim,),
        timesteps=config.timesteps,
        times_per_code=config.times_per_code,
        objective=objective,
    )


def schedule(config: DiffusionConfig) -> Schedule:
    """The noise schedule of that name."""
    if config.schedule == "ddpm":
        return ddpm_beta()
    if config.schedule == "constant_beta":
        return constant_beta()
    kinds = {"linear_log_snr": LinearLogSNR, "learned_log_snr": LearnedLogSNR, "cosine": Cosine, "linear": Linear}
    return kinds[config.schedule](config.gamma_min, config.gamma_max)


def weighting(name: str) -> Weighting:
    """The training weights of that name."""
    return {"vlb": vlb, "simple": simple(), "min_snr": min_snr()}[name]


ZOO: dict[str, Callable[..., Recipe]] = {
    f.__name__: f for f in (diled, diled_fixed, diled_paper, diled_levels, vae, beta_vae, two_stage_vae, ldm)
}
assert set(ZOO) == set(FAMILY), "every model has a function here and a configuration type in family.py"


def build(name: str, config: ModelConfig, data: DataSpec, seed: int = 0) -> Recipe:
    """The model called `name`, initialised from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ZOO[name](config.resolved(data), data)
