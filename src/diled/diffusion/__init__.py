"""Diffusion: schedules, the forward process, training objectives, samplers, and the density that they make."""

from diled.diffusion.diffusion import Conditional, Diffusion
from diled.diffusion.objectives import Objective, min_snr, simple, vlb
from diled.diffusion.parameterization import PARAMETERIZATIONS, Eps, V, X
from diled.diffusion.process import GaussianProcess
from diled.diffusion.samplers import SAMPLERS, ancestral, ddim, dpm_solver, heun
from diled.diffusion.schedule import (
    BetaTable,
    Cosine,
    LearnedLogSNR,
    Linear,
    LinearLogSNR,
    Schedule,
    constant_beta,
    ddpm_beta,
)

__all__ = [
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "BetaTable",
    "Conditional",
    "Cosine",
    "Diffusion",
    "Eps",
    "GaussianProcess",
    "LearnedLogSNR",
    "Linear",
    "LinearLogSNR",
    "Objective",
    "Schedule",
    "V",
    "X",
    "ancestral",
    "constant_beta",
    "ddim",
    "ddpm_beta",
    "dpm_solver",
    "heun",
    "min_snr",
    "simple",
    "vlb",
]
