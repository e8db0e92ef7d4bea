"""Networks, likelihoods and diffusions from their configurations: what the functions of `zoo.py` put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from diled.config import DataSpec
from diled.diffusion import (
    PARAMETERIZATIONS,
    DataDiffusion,
    Diffusion,
    NeuralProcess,
    Objective,
    edm,
    karras_levels,
    min_snr,
    simple,
    vlb,
)
from diled.diffusion.objectives import Weighting
from diled.diffusion.parameterization import EDM, Mixed
from diled.diffusion.schedule import (
    Cosine,
    LearnedLogSNR,
    Linear,
    LinearLogSNR,
    LogNormal,
    Schedule,
    constant_beta,
    ddpm_beta,
)
from diled.family import AutoencoderConfig, CodeConfig
from diled.models.autoencoder import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretizedLikelihood,
    GaussianLikelihood,
    Likelihood,
    LikelihoodDecoder,
    LogisticMixtureLikelihood,
)
from diled.models.autoregressive import AutoregressiveDecoder
from diled.models.pretrained import pretrained_decoder, pretrained_encoder
from diled.nn.causal import CausalTransformer
from diled.nn.image import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from diled.nn.latent import Flat, ResidualMLP
from diled.nn.residual import ResidualDecoder, ResidualEncoder
from diled.nn.sequence import SequenceMLPEncoder, TransformerDecoder, TransformerEncoder
from diled.nn.unet import UNet
from diled.parts import TRANSFORMERS, DataDiffusionConfig, DiffusionConfig, NetworkConfig, NoiseConfig

__all__ = [
    "data_diffusion",
    "data_network",
    "decoder",
    "diffusion",
    "encoder_network",
    "latent_dim",
    "likelihood",
    "schedule",
    "wrap",
]


def latent_dim(config: CodeConfig) -> int:
    """The resolved size of the code."""
    assert config.latent_dim is not None, "call ModelConfig.resolved(data) first"
    return config.latent_dim


def encoder_network(config: CodeConfig, data: DataSpec, out: int) -> nn.Module:
    """x (B, *shape) -> (B, out)."""
    net = config.network
    if net.kind == "pretrained":
        return pretrained_encoder(net, data, out)
    if data.sequential:
        encoders = {"mlp": SequenceMLPEncoder, "transformer": TransformerEncoder}
        return encoders[net.kind](data.numel, len(data.symbols), out, **_dials(net))
    if net.kind == "conv":
        return ConvEncoder(data.shape, out, **_dials(net))
    if net.kind == "residual":
        return ResidualEncoder(data.shape, out, channels=net.channels)
    return MLPEncoder(data.shape, out, **_dials(net))


def _dials(net: NetworkConfig) -> dict[str, Any]:
    """What is set of an MLP, of convolutions or of a transformer; beside a pretrained encoder, of the decoder."""
    own = {"conv": ("channels", "blocks"), **dict.fromkeys(TRANSFORMERS, ("width", "depth", "heads"))}
    return {key: getattr(net, key) for key in (*own.get(net.of_decoder, ("width", "depth", "activation")), "dropout")}


def decoder(config: AutoencoderConfig, data: DataSpec) -> LikelihoodDecoder | AutoregressiveDecoder:
    """z (B, D) -> p(x | z)."""
    net, p = config.network, likelihood(config, data)
    dim = latent_dim(config)
    if net.decoder_folder is not None:
        return AutoregressiveDecoder(pretrained_decoder(net, data, dim))
    if net.autoregressive:
        causal = CausalTransformer(
            data.numel,
            len(data.symbols),
            condition_dim=dim,
            inject=net.inject,
            word_dropout=net.word_dropout,
            tied=data.kind == "text",
            **_dials(net),
        )
        return AutoregressiveDecoder(causal)
    if data.sequential and net.of_decoder == "transformer":
        return LikelihoodDecoder(TransformerDecoder(dim, data.numel, len(data.symbols), **_dials(net)), p)
    out: tuple[int, ...] = (data.numel, len(data.symbols))
    if not data.sequential:
        out = (p.parameters_per_pixel(data.shape[0]), *data.shape[1:])
    if net.kind == "conv":
        return LikelihoodDecoder(ConvDecoder(dim, out, **_dials(net)), p)
    if net.kind == "residual":
        return LikelihoodDecoder(ResidualDecoder(dim, out, channels=net.channels), p)
    return LikelihoodDecoder(MLPDecoder(dim, out, **_dials(net)), p)


def likelihood(config: AutoencoderConfig, data: DataSpec) -> Likelihood:
    """p(x | z) in the data's own measure."""
    if config.likelihood == "categorical":
        return CategoricalLikelihood(ends=not data.sites)
    if config.likelihood == "bernoulli":
        return BernoulliLikelihood()
    if config.likelihood == "logistic_mixture":
        assert data.levels is not None
        return LogisticMixtureLikelihood(data.levels, config.components)
    if data.levels is not None:
        return DiscretizedLikelihood(data.levels, config.likelihood, std=config.std)
    return GaussianLikelihood(config.std, shape=data.shape if data.kind == "vector" else ())


def diffusion(config: DiffusionConfig, dim: int, goal: Objective | None = None) -> Diffusion:
    """A diffusion over vector codes."""
    denoiser = wrap(config, ResidualMLP(dim, config.width, config.blocks))
    return Diffusion(
        Mixed(denoiser, (dim,)) if config.mixed else denoiser,
        schedule(config, config.gamma_min),
        (dim,),
        timesteps=config.timesteps,
        times_per_code=config.times_per_code,
        objective=goal or objective(config),
    )


def data_diffusion(config: DataDiffusionConfig, data: DataSpec, condition_dim: int = 0, *, heun: bool = False,
                   learned_map: bool = False) -> DataDiffusion:  # fmt: skip
    """A diffusion over data.

    Args:
        config: resolved.
        data: what is known of the data.
        condition_dim: size of a code that the denoiser is given.
        heun: sample as EDM does: 18 steps of Heun's method, spaced by Karras et al.
        learned_map: as a neural diffusion model, with a learned map of x at each noise level.
    """
    levels = schedule(config, config.gamma_min)
    how = {"sampler": "heun", "steps": 18, "spacing": karras_levels} if heun else {}
    if learned_map:
        low, high = (float(end) for end in levels.ends)
        how = {"sampler": "ancestral", "steps": 100, "process": NeuralProcess(data_network(config, data), low, high)}
    prior = Diffusion(
        wrap(config, data_network(config, data, condition_dim)),
        levels,
        data.shape,
        timesteps=config.timesteps,
        times_per_code=config.times_per_example,
        objective=objective(config),
        **how,  # type: ignore[arg-type]
    )
    return DataDiffusion(prior, data.levels)


def data_network(config: DataDiffusionConfig, data: DataSpec, condition_dim: int = 0) -> nn.Module:
    """F(z_t, log SNR, condition), in the shape of z_t (B, *shape)."""
    if config.kind == "unet":
        return UNet(
            data.shape,
            channels=config.channels,
            blocks=config.blocks,
            attention=config.attention,
            condition_dim=condition_dim,
            levels=data.levels,
        )
    return Flat(ResidualMLP(data.numel, config.width, config.blocks, condition_dim=condition_dim))


def wrap(config: NoiseConfig, network: nn.Module) -> nn.Module:
    """The denoiser that a network becomes under the configured parameterisation."""
    if config.parameterization == "edm":
        return EDM(network, config.data_std)
    return PARAMETERIZATIONS[config.parameterization](network)


def objective(config: NoiseConfig) -> Objective:
    """The training weights, with the encoder's own where they differ."""
    own = getattr(config, "encoder_weighting", "same")
    encoder = None if own in ("same", config.weighting) else weighting(config, own)
    return Objective(weighting(config, config.weighting), encoder, getattr(config, "terminal", True))


def weighting(config: NoiseConfig, name: str) -> Weighting:
    """The training weights of that name."""
    kinds: dict[str, Callable[[], Weighting]] = {
        "vlb": lambda: vlb,
        "simple": simple,
        "ddpm": lambda: simple(reference=ddpm_beta()),
        "min_snr": min_snr,
        "edm": lambda: edm(config.data_std),
    }
    return kinds[name]()


def schedule(config: NoiseConfig, gamma_min: float | None) -> Schedule:
    """The noise schedule of that name."""
    if config.schedule == "ddpm":
        return ddpm_beta()
    if config.schedule == "constant_beta":
        return constant_beta()
    assert gamma_min is not None, "call ModelConfig.resolved(data) first"
    kinds: dict[str, Callable[[float, float], Schedule]] = {
        "linear_log_snr": LinearLogSNR,
        "learned_log_snr": LearnedLogSNR,
        "cosine": Cosine,
        "linear": Linear,
        "edm": LogNormal,
    }
    return kinds[config.schedule](gamma_min, config.gamma_max)
