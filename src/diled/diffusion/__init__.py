"""Diffusion: schedules, the forward process, training objectives, samplers, and the density that they make."""

from diled.diffusion.consistency import Consistency, ConsistencyFunction
from diled.diffusion.data import Conditional, DataDiffusion, DiffusionDecoder
from diled.diffusion.diffusion import Diffusion
from diled.diffusion.objectives import Objective, edm, min_snr, simple, vlb
from diled.diffusion.parameterization import EDM, PARAMETERIZATIONS, Eps, Mixed, V, X
from diled.diffusion.process import GaussianProcess, NeuralProcess, Process
from diled.diffusion.samplers import SAMPLERS, ancestral, ddim, dpm_solver, heun, karras_levels
from diled.diffusion.schedule import (
    BetaTable,
    Cosine,
    LearnedLogSNR,
    Linear,
    LinearLogSNR,
    LogNormal,
    Schedule,
    constant_beta,
    ddpm_beta,
)

__all__ = [
    "EDM",
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "BetaTable",
    "Conditional",
    "Consistency",
    "ConsistencyFunction",
    "Cosine",
    "DataDiffusion",
    "Diffusion",
    "DiffusionDecoder",
    "Eps",
    "GaussianProcess",
    "LearnedLogSNR",
    "Linear",
    "LinearLogSNR",
    "LogNormal",
    "Mixed",
    "NeuralProcess",
    "Objective",
    "Process",
    "Schedule",
    "V",
    "X",
    "ancestral",
    "constant_beta",
    "ddim",
    "ddpm_beta",
    "dpm_solver",
    "edm",
    "heun",
    "karras_levels",
    "min_snr",
    "simple",
    "vlb",
]
