"""The family: every model is a short function over the same parts.

    name              encoder                  decoder        prior                     training                  a bound?
    diled             Gaussian, learned var.   likelihood     diffusion                 joint, warm-up            yes
    diled_fixed       noise = first step       likelihood     diffusion                 joint, warm-up            yes
    diled_paper       noise = first step       likelihood     diffusion                 joint, paper's weights    yes
    diled_levels      n nested                 n nested       diffusion innermost       joint, warm-up            yes
    diled_diffusion_  Gaussian, learned var.   a conditional  diffusion                 joint, warm-up            yes
        decoder                                diffusion
    vae               Gaussian, learned var.   likelihood     standard normal           joint, warm-up            yes
    beta_vae          Gaussian, learned var.   likelihood     standard normal           joint, beta               yes
    hierarchical_vae  n nested                 n nested       standard normal           joint, warm-up            yes
    two_stage_vae     Gaussian, learned var.   likelihood     another VAE, on codes     two stages                yes
    ldm               Gaussian, small KL       likelihood     standardised, diffusion   two stages                yes
    lsgm              Gaussian, learned var.   likelihood     diffusion, mixed score    joint, weighted apart     yes
    ae                deterministic            likelihood     a mixture, afterwards     reconstruction            no
    daae              deterministic, of noise  likelihood     a mixture, afterwards     reconstruction, critic    no
    ddpm              x itself                 last step      diffusion                 unweighted noise error    yes
    edm               x itself                 last step      diffusion                 EDM's weights             yes
    ndm               x, by a learned map      last step      diffusion                 bound                     yes
    diffae            deterministic            a conditional  standardised, diffusion   two stages                no
                                               diffusion
    consistency       none                     none           a consistency function    distilled, or scratch     no
    ppca              linear                   linear         standard normal           in closed form            yes
    independent       none                     none           each dimension by itself  in closed form            exact

and those for sequences alone in `sequence_zoo.py`: relso, profile, potts, lm, token_diffusion, nos.

Each function takes the model's configuration (its defaults live there) and what is known of the data, and returns the
model with its training stages. The only place where networks meet mathematics.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diled.api import Density, Stage
from diled.config import DataSpec
from diled.diffusion import Consistency, ConsistencyFunction, DiffusionDecoder, Objective, simple
from diled.diffusion.objectives import at_first_step, mean_share, split_over_steps
from diled.family import (
    FAMILY,
    AEConfig,
    AutoencoderConfig,
    BetaVAEConfig,
    ConsistencyConfig,
    DAAEConfig,
    DDPMConfig,
    DiffAEConfig,
    DiledConfig,
    DiledDiffusionDecoderConfig,
    DiledFixedConfig,
    DiledLevelsConfig,
    DiledPaperConfig,
    EDMConfig,
    HierarchicalVAEConfig,
    IndependentConfig,
    LDMConfig,
    LSGMConfig,
    ModelConfig,
    NDMConfig,
    PPCAConfig,
    TwoStageVAEConfig,
    VAEConfig,
    rate_weight,
)
from diled.models.autoencoder import (
    Autoencoder,
    DiracEncoder,
    FixedNoiseEncoder,
    GaussianEncoder,
    GaussianLikelihood,
    LikelihoodDecoder,
    RateWeight,
    cyclic,
    warmup,
)
from diled.models.critic import Corrupted, Critic
from diled.models.flow_posterior import FlowEncoder
from diled.models.iwae import ImportanceWeighted
from diled.models.parts import (
    data_diffusion,
    data_network,
    decoder,
    diffusion,
    encoder_network,
    latent_dim,
    schedule,
)
from diled.models.priors import NoPrior, Standardized, StandardNormal
from diled.models.recipe import Recipe, in_rounds, in_two_stages, jointly, ramp, then_a_mixture, with_properties
from diled.models.sequence_zoo import lm, nos, potts, profile, relso, token_diffusion
from diled.models.trivial import PPCA, Independent
from diled.nn.blocks import mlp
from diled.nn.flows import Flow
from diled.sequences import scored

__all__ = ["ZOO", "Recipe", "build"]


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
    weight = ramp(config)
    return in_rounds(config.rounds, Autoencoder(encoder, decoder(config, data), prior, rate_weight=weight))


def diled_fixed(config: DiledFixedConfig, data: DataSpec) -> Recipe:
    """DiLED as the paper defines it: the encoder's noise is fixed and is the diffusion's first step.

    Trained on the exact bound rather than on the paper's weights. Reference: Liu et al. 2024, section 3.
    """
    dim = latent_dim(config)
    prior = diffusion(config.prior, dim)
    encoder = FixedNoiseEncoder(encoder_network(config, data, dim), prior.schedule)
    weight = ramp(config)
    return in_rounds(config.rounds, Autoencoder(encoder, decoder(config, data), prior, rate_weight=weight))


def diled_paper(config: DiledPaperConfig, data: DataSpec) -> Recipe:
    """DiLED with the objective of the paper: reconstruction + w mean_D || e - e_hat ||^2, t uniform, no last KL.

    The reconstruction is always computed, and `reconstruct_at` says how it is weighted; the paper splits it over t (Eq. 30
    to 33). Its alignment term at the first step is the noise error there, with e the whole noise between E(x) and z_t. The
    reported bound is exact whatever was trained. Of sequences the reconstruction is that of the reference code, a mean over
    symbols times the mean of 1 / (T lambda_t): beside n summed nats w = 8 would weigh some 8 n / 0.22.

    Reference: Liu et al. 2024, Eq. 7.
    """
    dim = latent_dim(config)
    averaged = (config.reconstruction or ("mean" if data.sequential else "sum")) == "mean"
    weight = simple(config.weight * (data.numel if averaged and not data.sequential else 1), mean=True)
    prior = diffusion(config.prior, dim, Objective(weight, terminal=config.prior.terminal))
    encoder = FixedNoiseEncoder(encoder_network(config, data, dim), prior.schedule)
    meets = None
    if config.reconstruct_at != "always":
        steps = config.prior.timesteps
        assert steps is not None
        meets = split_over_steps(prior.schedule, steps) if config.reconstruct_at == "split" else at_first_step(steps)
    scale = None
    if averaged and data.sequential:
        scale = per_symbol(mean_share(prior.schedule, config.prior.timesteps or CONTINUOUS))
    model = Autoencoder(encoder, decoder(config, data), prior, distortion_weight=meets, distortion_scale=scale)
    return jointly(model)


CONTINUOUS = 1000
"""Steps by which a mean over continuous time is taken."""


def per_symbol(share: float) -> Callable[[Tensor], Tensor]:
    """x (B, L) -> `share` over the symbols that are scored in each sequence, its end included, (B,)."""
    return lambda x: share / scored(x).sum(1)


def diled_levels(config: DiledLevelsConfig, data: DataSpec) -> Recipe:
    """DiLED with n > 1 learned levels: x -> z^1 -> ... -> z^n, and a diffusion over z^n.

    An autoencoder whose prior is an autoencoder whose prior is a diffusion. Reference: Liu et al. 2024, section 3.
    """
    prior = levels(config, diffusion(config.prior, latent_dim(config)))
    encoder = GaussianEncoder(encoder_network(config, data, 2 * latent_dim(config)))
    weight = ramp(config)
    return in_rounds(config.rounds, Autoencoder(encoder, decoder(config, data), prior, rate_weight=weight))


def diled_diffusion_decoder(config: DiledDiffusionDecoderConfig, data: DataSpec) -> Recipe:
    """DiLED as the paper has it for images: the decoder is a diffusion over pixels, given the code.

        x --E--> N(m, v) --> z_0 --> p(x | z_0): x_T ... x, each step given z_0
                               \\--> diffusion: z_0 ... z_1 ~ N(0, I)

    The decoder's own bound plus the rate is a bound. Reference: Liu et al. 2024, section 4.2.
    """
    dim = latent_dim(config)
    encoder = GaussianEncoder(encoder_network(config, data, 2 * dim))
    pixels = DiffusionDecoder(data_diffusion(config.decoder, data, dim))
    weight = ramp(config)
    return jointly(Autoencoder(encoder, pixels, diffusion(config.prior, dim), rate_weight=weight))


def vae(config: VAEConfig, data: DataSpec) -> Recipe:
    """The variational autoencoder, with a Gaussian or a flow as posterior, trained on the bound of one code or of K.

    References: Kingma & Welling 2014 (arXiv 1312.6114); Kingma et al. 2016 (arXiv 1606.04934); Burda et al. 2016 (arXiv
    1509.00519).
    """
    dim, encoder = latent_dim(config), None
    if config.posterior == "flow":
        encoder = FlowEncoder(encoder_network(config, data, 3 * dim), Flow(dim, dim, config.flow_steps))
    model = gaussian_vae(config, data, warmup(1.0, config.rate_warmup), encoder=encoder)
    if config.importance == 1:
        return jointly(model)
    weighted = ImportanceWeighted(model.encoder, model.decoder, model.prior, config.importance)
    return Recipe(model, jointly(weighted).stages)


def beta_vae(config: BetaVAEConfig, data: DataSpec) -> Recipe:
    """A VAE whose rate is weighted with beta, after one warm-up or in cycles.

    References: Higgins et al. 2017 (ICLR); Fu et al. 2019 (arXiv 1903.10145); Kingma et al. 2016 (arXiv 1606.04934).
    """
    weight = cyclic(rate_weight(config.beta, data, 4.0), config.cycles, config.rate_warmup)
    return jointly(gaussian_vae(config, data, weight, config.free_bits))


def hierarchical_vae(config: HierarchicalVAEConfig, data: DataSpec) -> Recipe:
    """n > 1 levels of codes: a VAE whose prior is a VAE, down to N(0, I).

    References: Rezende et al. 2014 (arXiv 1401.4082); Sonderby et al. 2016 (arXiv 1602.02282), here bottom-up.
    """
    dim = latent_dim(config)
    encoder = GaussianEncoder(encoder_network(config, data, 2 * dim))
    prior = levels(config, StandardNormal((dim,)))
    weight = warmup(1.0, config.rate_warmup)
    return jointly(Autoencoder(encoder, decoder(config, data), prior, rate_weight=weight))


def two_stage_vae(config: TwoStageVAEConfig, data: DataSpec) -> Recipe:
    """A VAE, then a second VAE on its codes as the prior. Reference: Dai & Wipf 2019 (arXiv 1903.05789)."""
    dim, width = latent_dim(config), config.second_width
    first = gaussian_vae(config, data, ramp(config))
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
    first = gaussian_vae(config, data, ramp(config))
    return in_two_stages(config.first_stage, first, Standardized(diffusion(config.prior, dim), (dim,)))


def lsgm(config: LSGMConfig, data: DataSpec) -> Recipe:
    """LSGM: DiLED whose denoiser starts from that of N(0, I), trained on other weights than the encoder's.

    The denoiser learns from the unweighted noise error, the encoder from the bound: with r = w_encoder / w_prior on the edge
    between them, one pass serves both. Reference: Vahdat et al. 2021 (arXiv 2106.05931).
    """
    dim = latent_dim(config)
    encoder = GaussianEncoder(encoder_network(config, data, 2 * dim))
    weight = ramp(config)
    return jointly(Autoencoder(encoder, decoder(config, data), diffusion(config.prior, dim), rate_weight=weight))


def ae(config: AEConfig, data: DataSpec) -> Recipe:
    """The plain autoencoder; its prior is a Gaussian mixture fitted to its codes afterwards.

    References: Hinton & Salakhutdinov 2006 (Science 313); Ghosh et al. 2020 (arXiv 1903.12436).
    """
    encoder = DiracEncoder(encoder_network(config, data, latent_dim(config)))
    return then_a_mixture(config, Autoencoder(encoder, decoder(config, data), NoPrior()), encoder)


def daae(config: DAAEConfig, data: DataSpec) -> Recipe:
    """The denoising adversarial autoencoder: codes of corrupted x, matched to N(0, I) by a critic.

    References: Makhzani et al. 2015 (arXiv 1511.05644); Creswell & Bharath 2018 (arXiv 1703.01220); Shen et al. 2020
    (arXiv 1905.12777).
    """
    dim = latent_dim(config)
    encoder = DiracEncoder(encoder_network(config, data, dim))
    critic = Critic(dim, config.critic_width, weight=config.critic_weight, pace=config.critic_pace)
    shown = Corrupted(encoder, config.corruption, len(data.symbols))
    return then_a_mixture(config, Autoencoder(shown, decoder(config, data), NoPrior(), extras=(critic,)), encoder)


def ddpm(config: DDPMConfig, data: DataSpec) -> Recipe:
    """The denoising diffusion model; DDIM samples it, and takes x to its code x_T.

    References: Ho et al. 2020 (arXiv 2006.11239); Song et al. 2021 (arXiv 2010.02502).
    """
    return jointly(data_diffusion(config.diffusion, data))


def edm(config: EDMConfig, data: DataSpec) -> Recipe:
    """EDM: preconditioning, log-normal noise levels, Heun's method. Reference: Karras et al. 2022 (arXiv 2206.00364)."""
    return jointly(data_diffusion(config.diffusion, data, heun=True))


def ndm(config: NDMConfig, data: DataSpec) -> Recipe:
    """A neural diffusion model: at each noise level x goes through a learned map.

    Reference: Bartosh et al. 2023 (arXiv 2310.08337).
    """
    return jointly(data_diffusion(config.diffusion, data, learned_map=True))


def diffae(config: DiffAEConfig, data: DataSpec) -> Recipe:
    """The diffusion autoencoder: a deterministic code and a diffusion decoder; then a diffusion on standardised codes.

    Reference: Preechakul et al. 2022 (arXiv 2111.15640).
    """
    dim = latent_dim(config)
    encoder = DiracEncoder(encoder_network(config, data, dim))
    first = Autoencoder(encoder, DiffusionDecoder(data_diffusion(config.decoder, data, dim)), NoPrior())
    return in_two_stages(config.first_stage, first, Standardized(diffusion(config.prior, dim), (dim,)))


def consistency(config: ConsistencyConfig, data: DataSpec) -> Recipe:
    """The consistency model: an EDM, distilled into a function from any noise level to the data; or from scratch.

    References: Song et al. 2023 (arXiv 2303.01469); Song & Dhariwal 2024 (arXiv 2310.14189).
    """
    levels = schedule(config.diffusion, config.diffusion.gamma_min)
    network = data_network(config.diffusion, data)
    student = ConsistencyFunction(network, float(levels.ends[0]), config.diffusion.data_std)
    model = Consistency(student, levels, data.shape, data.levels, coarsest=config.coarsest, finest=config.finest)
    if not config.teacher:
        return jointly(model)
    teacher = data_diffusion(config.diffusion, data, heun=True)
    model.prior = teacher.prior

    fresh = {key: value.clone() for key, value in network.state_dict().items()}

    def start_from_teacher(x: Tensor) -> None:
        now = network.state_dict()
        if any(not torch.equal(now[key].cpu(), value) for key, value in fresh.items()):
            return  # the student of another run
        network.load_state_dict(teacher.prior.denoiser.network.state_dict())  # type: ignore[union-attr]

    stages = [
        Stage("teacher", teacher, config.first_stage),
        Stage("consistency", model, 1 - config.first_stage, frozen=(teacher,), prepare=start_from_teacher),
    ]
    return Recipe(model, stages)


def ppca(config: PPCAConfig, data: DataSpec) -> Recipe:
    """Probabilistic PCA: the linear Gaussian autoencoder, in closed form. Reference: Tipping & Bishop 1999 (JRSS B 61)."""
    assert config.latent_dim is not None, "call ModelConfig.resolved(data) first"
    model = PPCA(data.shape, data.levels, config.latent_dim)
    return Recipe(model, [Stage("fit", model, 0.0, fit=model.fit)])


def independent(config: IndependentConfig, data: DataSpec) -> Recipe:
    """Every dimension by itself: what a model must beat to have learned anything of how they hang together."""
    model = Independent(data.shape, data.levels)
    return Recipe(model, [Stage("fit", model, 0.0, fit=model.fit)])


# How they are put together -------------------------------------------------------------------------------------------


def gaussian_vae(
    config: AutoencoderConfig,
    data: DataSpec,
    weight: RateWeight,
    free_bits: float = 0.0,
    *,
    encoder: nn.Module | None = None,
) -> Autoencoder:
    """Gaussian encoder, unless another is given; likelihood decoder, N(0, I)."""
    dim = latent_dim(config)
    encoder = encoder or GaussianEncoder(encoder_network(config, data, 2 * dim))
    prior = StandardNormal((dim,), free_bits=free_bits)
    return Autoencoder(encoder, decoder(config, data), prior, rate_weight=weight)


def levels(config: DiledLevelsConfig | HierarchicalVAEConfig, innermost: Density) -> Density:
    """n - 1 autoencoders, each the prior of the one before, around the innermost density."""
    dim, width, prior = latent_dim(config), config.level_width, innermost
    for _ in range(config.levels - 1):
        prior = Autoencoder(
            GaussianEncoder(mlp([dim, width, width, 2 * dim])),
            LikelihoodDecoder(mlp([dim, width, width, 2 * dim]), GaussianLikelihood(per_dimension=True)),
            prior,
        )
    return prior


ZOO: dict[str, Callable[..., Recipe]] = {
    f.__name__: f
    for f in (
        diled, diled_fixed, diled_paper, diled_levels, diled_diffusion_decoder, vae, beta_vae, hierarchical_vae,
        two_stage_vae, ldm, lsgm, ae, daae, relso, ddpm, edm, ndm, diffae, consistency, ppca, independent,
        profile, potts, lm, token_diffusion, nos,
    )
}  # fmt: skip
assert list(ZOO) == list(FAMILY), "every model has a function here and a configuration type in family.py"


def build(name: str, config: ModelConfig, data: DataSpec, seed: int = 0) -> Recipe:
    """The model called `name`, initialised from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = config.resolved(data)
        return with_properties(ZOO[name](config, data), config, data)
