"""Small mistakes that the mathematics tests must notice, and the worker that makes them.

Run by `test_mutations.py` as `python mutations.py PACKAGE RESULTS`. The worker imports torch and collects the tests once. For
each mutation it forks; the child gives the changed function of a copy of the package its new code and runs the named tests.
What is no function, or is not noticed so, is written into the copy, and a child imports it.
"""

from __future__ import annotations

import compileall
import contextlib
import faulthandler
import gc
import importlib
import inspect
import json
import os
import pkgutil
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

TESTS = Path(__file__).resolve().parent
HEAVY = (
    "hypothesis", "pydantic", "pytest", "scipy.stats", "scipy.optimize", "sklearn.mixture", "sklearn.linear_model",
    "sklearn.neighbors", "sklearn.svm", "sklearn.pipeline", "sklearn.datasets", "sklearn.manifold", "lightning.pytorch",
    "pyarrow.parquet", "PIL.Image", "matplotlib.figure", "torch.func", "docstring_parser", "rich.progress", "yaml",
    "safetensors.torch", "transformers", "diffusers",
)  # fmt: skip
"""Imported before the first fork, so that no child pays for them again."""
FAILED = {"AssertionError", "Failed"}
"""An assertion, not a crash: DID NOT RAISE is pytest's `Failed`."""
OPTIONS = ("-q", "-p", "no:cacheprovider", "--assert=plain", "--tb=line")
"""Of pytest. What a failure's values are is not asked here, and working it out takes longer than most of the tests."""
NO_ANSWER = -1
"""The code of a fork that was killed, or ended by itself before its tests did."""
MORE = [importlib.import_module(path.stem).MUTATIONS for path in sorted(TESTS.glob("mutations_*.py"))]
"""Lists of their own: file -> (a piece that occurs once, what it becomes, what this breaks, the test that notices)."""


@dataclass(frozen=True)
class Mutation:
    """`old`, which occurs once in `file`, becomes `new`; this `breaks` something that `tests` notice."""

    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]

    def made(self, text: str) -> str:
        """The file's text with the mistake."""
        return text.replace(self.old, self.new, 1)


RATE = "test_math_rate.py"
BOUNDS = "test_math_bounds.py"
SAMPLERS = "test_math_samplers.py"
SCHEDULES = "test_math_schedules.py"
OBJECTIVES = "test_math_objectives.py"
DISTRIBUTIONS = "test_math_distributions.py"
SCALE = "test_math_scale.py"
STEPS = "test_math_steps.py"

QUADRATURE = f"{RATE}::test_discrete_rate_is_the_path_form_by_quadrature"
CHAIN = f"{RATE}::test_marginals_and_bridges_are_those_of_the_chain"
PATH = f"{RATE}::test_discrete_rate_is_the_path_form_for_a_wrong_denoiser"
CONTINUOUS = f"{RATE}::test_continuous_rate_is_the_limit_of_the_path"
FIXED_NOISE = f"{RATE}::test_learned_variance_set_to_the_first_noise_is_the_fixed_noise_encoder"
SAMPLE_FORM = f"{RATE}::test_feeding_a_sample_adds_the_first_noise_again"
LSGM = f"{OBJECTIVES}::test_one_pass_gives_the_gradients_of_lsgms_two_passes"
WEIGHTS = f"{OBJECTIVES}::test_bound_ignores_the_weights_and_discrete_values_are_the_chains"
SIMPLE = f"{OBJECTIVES}::test_simple_weights_are_the_unweighted_noise_error"
DIAL = f"{OBJECTIVES}::test_the_dial_between_joint_and_two_stages"
STRATA = f"{OBJECTIVES}::test_stratified_times_fill_every_cell_once"
BETA = f"{BOUNDS}::test_beta_is_ignored_by_the_bound_and_one_is_a_vae"
TWO_LEVELS = f"{BOUNDS}::test_two_linear_gaussian_levels_with_exact_posteriors_give_the_evidence"
STANDARDIZED = f"{BOUNDS}::test_standardized_kl_needs_no_determinant_and_points_do"
NORMAL = f"{DISTRIBUTIONS}::test_normal_against_scipy"
NORMAL_KL = f"{DISTRIBUTIONS}::test_normal_kl_against_torch_and_monte_carlo"
AFFINE = f"{DISTRIBUTIONS}::test_affine_pushes_forward"
LOGISTIC = f"{DISTRIBUTIONS}::test_logistic_against_scipy"
BERNOULLI = f"{DISTRIBUTIONS}::test_bernoulli_against_torch"
DISCRETIZED = f"{DISTRIBUTIONS}::test_discretized_against_scipy"
LOGISTIC_BINS = f"{DISTRIBUTIONS}::test_discretized_against_scipy[256-logistic]"
BIN_SLOPES = f"{DISTRIBUTIONS}::test_slopes_of_logistic_bins_of_first_and_second_order[17]"
TAIL_GRADIENTS = f"{DISTRIBUTIONS}::test_discretized_gradients_in_float32_are_those_of_float64"
LOG_PHI = "test_math_distributions.py::test_log_phi_and_its_slope_are_scipys_on_both_sides_of_where_the_series_begins"
MIXTURE = f"{DISTRIBUTIONS}::test_mixture_by_hand"
REFUSALS = f"{DISTRIBUTIONS}::test_a_likelihood_of_the_wrong_data_has_no_bound"
GRID = f"{DISTRIBUTIONS}::test_round_to_grid_and_on_grid"
PARAMETERISATIONS = f"{DISTRIBUTIONS}::test_parameterisations_of_one_function_give_one_estimate"
ALPHA = f"{SCHEDULES}::test_alpha_and_sigma"
SLOPE = f"{SCHEDULES}::test_slope_is_the_derivative_and_positive"
TABLES = f"{SCHEDULES}::test_tables_are_the_products"
LEARNED = f"{SCHEDULES}::test_learned_ends_get_the_gradient_of_the_bound"
REFUSES = f"{SCHEDULES}::test_learned_ends_refuse_other_weights"
TIME = f"{SCHEDULES}::test_time_inverts_gamma"
ORDER = f"{SAMPLERS}::test_order_of_convergence_on_gaussian_data"
UNEVEN = f"{SAMPLERS}::test_order_holds_on_uneven_levels"
INVERSION = f"{SAMPLERS}::test_inversion_error_falls_at_order_one"
ANCESTRAL = f"{SAMPLERS}::test_ddim_at_eta_one_is_the_reverse_chain"
TABLE = f"{SCALE}::test_rate_is_the_table_less_its_constant"
CHAIN_SUM = f"{SCALE}::test_rate_of_the_chain_is_the_sum_of_its_steps[0.1]"
INFORMATION = f"{SCALE}::test_rate_is_the_information_in_the_code[0.1]"
UNEVEN_STEPS = f"{STEPS}::test_step_weights_of_uneven_steps"
SPLIT = f"{STEPS}::test_split_weights_are_inverse_step_weights_with_mean_one"
WEIGHED = f"{STEPS}::test_distortion_weights_enter_the_gradient_of_each_example_alone"
SHARE = f"{STEPS}::test_share_of_the_reconstruction_in_the_papers_schedule"
PER_TOKEN = f"{STEPS}::test_the_papers_w_of_sequences_is_beside_a_mean_over_tokens"
MEETS = f"{STEPS}::test_the_papers_model_meets_t_as_it_is_told"
LAST_KL = f"{STEPS}::test_the_last_kl_trains_where_it_is_wanted_and_always_counts"
ROUNDS = f"{STEPS}::test_rounds_train_one_part_at_a_time"
PORTION = f"{STEPS}::test_a_part_of_the_training_has_its_part_of_the_ramp"
LEVELS_HOLD = f"{STEPS}::test_what_two_linear_levels_hold"
LEVEL_RATES = f"{STEPS}::test_rates_of_levels_in_closed_form_add_up"
FLIPS = f"{STEPS}::test_flips_move_a_linear_code_as_far_as_they_say"
RUNAWAY = f"{SCALE}::test_only_the_last_kl_stops_the_codes_from_running_away"

MUTATIONS = [
    # api.py
    Mutation(
        "api.py", '"negative_entropy": -q.entropy()', '"negative_entropy": q.entropy()', "entropy's sign", (TWO_LEVELS,)
    ),
    Mutation("api.py", "return fixed + r * (z - fixed)", "return r * z", "the dial scales the value", (DIAL,)),
    Mutation("api.py", "stack(terms).sum(0)", "stack(terms).mean(0)", "terms are averaged, not added", (BETA,)),
    # distributions.py
    Mutation(
        "distributions.py",
        "0.5 * (LOG_2PI + self.log_var + (x",
        "(LOG_2PI + self.log_var + (x",
        "a factor 1/2 of the Gaussian nll",
        (NORMAL,),
    ),
    Mutation("distributions.py", "0.5 * (1 + LOG_2PI", "0.5 * (LOG_2PI", "the 1 of the Gaussian entropy", (NORMAL,)),
    Mutation("distributions.py", "square - 1 - log_ratio", "square - 1 + log_ratio", "a sign in the KL", (NORMAL_KL,)),
    Mutation(
        "distributions.py",
        "self.log_var + 2 * log_scale",
        "self.log_var + log_scale",
        "standardised variance",
        (AFFINE,),
    ),
    Mutation(
        "distributions.py",
        "(self.learned or self.log_var.requires_grad)",
        "self.log_var.requires_grad",
        "under no_grad a learned variance on grid data is accepted",
        (REFUSALS,),
    ),
    Mutation(
        "distributions.py", "range(2, levels + 1)", "(levels,)", "grids other than 256 values are not seen", (GRID,)
    ),
    Mutation("distributions.py", "(0.5 * (x + 1)).to(", "(0.5 * (1 - x)).to(", "black and white swapped", (BERNOULLI,)),
    Mutation("distributions.py", "u < torch.sigmoid(", "u > torch.sigmoid(", "Bernoulli draws inverted", (BERNOULLI,)),
    Mutation(
        "distributions.py",
        "sum_dims(self.log_scale - F.",
        "sum_dims(-self.log_scale - F.",
        "the logistic's scale",
        (LOGISTIC,),
    ),
    Mutation("distributions.py", "h = 1.0 / (levels - 1)", "h = 1.0 / levels", "width of a bin", (DISCRETIZED,)),
    Mutation(
        "distributions.py", "m = m + self.coefficients", "m = m - self.coefficients", "channel dependence", (MIXTURE,)
    ),
    # bins.py
    Mutation(
        "bins.py",
        "log_upper = torch.where(top, torch.zeros_like(log_upper), log_upper)",
        "log_upper = log_upper + 0 * top",
        "the last bin does not take its tail",
        (DISCRETIZED,),
    ),
    Mutation(
        "bins.py",
        "return torch.where(u < far, log_tail",
        "return torch.where(u > 1e9, log_tail",
        "gradients in the far tail",
        (TAIL_GRADIENTS,),
    ),
    Mutation(
        "bins.py",
        "series = (1 + series) * w * -odd",
        "series = (1 + series) * w * odd",
        "signs of the series for log Phi",
        (LOG_PHI,),
    ),
    Mutation(
        "bins.py",
        "torch.log(-math.sqrt(2 * math.pi) * tail)",
        "torch.log(-math.sqrt(math.pi) * tail)",
        "the constant of the series for log Phi",
        (LOG_PHI,),
    ),
    Mutation(
        "bins.py",
        "torch.log(0.5 * torch.erfc(-math",
        "torch.log(torch.erfc(-math",
        "Phi is half of erfc",
        (LOG_PHI,),
    ),
    Mutation("bins.py", "u.clamp(max=0) - v", "u.clamp(max=0) + v", "the upper tail of a logistic", (LOGISTIC_BINS,)),
    Mutation("bins.py", "by_c = rest - under", "by_c = rest + under", "slope of the mean", (BIN_SLOPES,)),
    Mutation("bins.py", "by_q = rest + under", "by_q = rest - under", "slope of the scale", (BIN_SLOPES,)),
    Mutation("bins.py", "(c * by_c + q", "(c * by_c - q", "a sign in the slope of the scale", (BIN_SLOPES,)),
    Mutation("bins.py", "return (2 * q + (", "return (q + (", "half of a bin's width", (LOGISTIC_BINS,)),
    Mutation("bins.py", "+ most.squeeze(dim)", "- most.squeeze(dim)", "the largest of a sum", (MIXTURE,)),
    # diffusion/schedule.py
    Mutation(
        "diffusion/schedule.py",
        "torch.sigmoid(-gamma).sqrt()",
        "torch.sigmoid(gamma).sqrt()",
        "alpha is sigma",
        (ALPHA,),
    ),
    Mutation(
        "diffusion/schedule.py",
        "return 2 * math.pi / torch.sin(",
        "return math.pi / torch.sin(",
        "cosine slope",
        (SLOPE,),
    ),
    Mutation("diffusion/schedule.py", "return 2 / (u * (1 - u))", "return 1 / (u * (1 - u))", "linear slope", (SLOPE,)),
    Mutation(
        "diffusion/schedule.py",
        "betas.double()).cumsum(0)",
        "betas.double()).cumsum(0) / 2",
        "alpha^2 is alpha",
        (TABLES,),
    ),
    Mutation(
        "diffusion/schedule.py",
        "self.low + self.log_range.exp()",
        "self.low.detach() + self.log_range.exp()",
        "an end",
        (LEARNED,),
    ),
    Mutation(
        "diffusion/schedule.py",
        "return (gamma - g0) / (g1 - g0)",
        "return (gamma - g0) / g1",
        "inverse of gamma",
        (TIME,),
    ),
    # diffusion/process.py
    Mutation("diffusion/process.py", "a**2 * q.log_var.exp() + added", "a * q.log_var.exp() + added", "V_t", (CHAIN,)),
    Mutation(
        "diffusion/process.py",
        "-sigma2(gamma_t) * torch.expm1",
        "-sigma2(gamma_s) * torch.expm1",
        "bridge",
        (QUADRATURE,),
    ),
    Mutation("diffusion/process.py", "gain = a * (at_s", "gain = (at_s", "gain of the bridge", (QUADRATURE,)),
    Mutation(
        "diffusion/process.py",
        "torch.log(added) + at_s.log_var - at_t.log_var",
        "torch.log(added)",
        "variance of the bridge",
        (PATH,),
    ),
    Mutation(
        "diffusion/process.py",
        "alpha(gamma_s) * added / sigma2",
        "alpha(gamma_t) * added / sigma2",
        "reverse mean",
        (PATH,),
    ),
    Mutation(
        "diffusion/process.py",
        "torch.log(added * sigma2(gamma_s) / sigma2(gamma_t))",
        "torch.log(added)",
        "the reverse step's variance is beta instead of the posterior's",
        (ANCESTRAL,),
    ),
    # diffusion/parameterization.py
    Mutation(
        "diffusion/parameterization.py",
        "return (z_t - s * self",
        "return (z_t + s * self",
        "sign of eps",
        (PARAMETERISATIONS,),
    ),
    Mutation(
        "diffusion/parameterization.py",
        "return a * z_t - s * self",
        "return s * z_t - a * self",
        "v's alpha, sigma",
        (PARAMETERISATIONS,),
    ),
    # diffusion/objectives.py
    Mutation(
        "diffusion/objectives.py", "(2 * scale / (dims", "(scale / (dims", "a factor 2 of the simple loss", (SIMPLE,)
    ),
    Mutation(
        "diffusion/objectives.py", "torch.exp(gamma), max", "torch.exp(-gamma), max", "SNR is its inverse", (SIMPLE,)
    ),
    Mutation(
        "diffusion/objectives.py", " and self.terminal", "", "dropping the last KL counts as the bound", (REFUSES,)
    ),
    Mutation("diffusion/objectives.py", "/ (2 * a_t)", "/ a_t", "a factor 2 of lambda_t", (UNEVEN_STEPS,)),
    Mutation("diffusion/objectives.py", "/ (2 * a_t)", "/ 2 * a_t", "a_t multiplies lambda_t", (UNEVEN_STEPS,)),
    Mutation(
        "diffusion/objectives.py", "return -torch.expm1(gamma_s", "return torch.expm1(gamma_s", "sign", (UNEVEN_STEPS,)
    ),
    Mutation(
        "diffusion/objectives.py",
        "gamma_s, gamma_t = gammas[:-1], gammas[1:]",
        "gamma_s, gamma_t = gammas[1:], gammas[:-1]",
        "the step goes backwards",
        (UNEVEN_STEPS,),
    ),
    Mutation(
        "diffusion/objectives.py",
        "inverse = 1 / step_weights",
        "inverse = step_weights",
        "the split is by lambda_t itself",
        (SPLIT,),
    ),
    Mutation("diffusion/objectives.py", "inverse / inverse.mean()", "inverse", "the mean weight is not one", (SPLIT,)),
    Mutation("diffusion/objectives.py", ".mean() / steps)", ".mean())", "a sum over the steps", (SHARE,)),
    Mutation("models/zoo.py", "share / scored(x).sum(1)", "share / x.shape[1]", "tokens after the end", (PER_TOKEN,)),
    Mutation(
        "models/zoo.py", "share / scored(x).sum(1)", "share * scored(x).sum(1)", "n times, not 1 / n", (PER_TOKEN,)
    ),
    Mutation(
        "diffusion/objectives.py",
        "return steps * (torch",
        "return 1 * (torch",
        "one step trains without the weight of all",
        (f"{STEPS}::test_one_step_trains_with_the_weight_of_all",),
    ),
    # diffusion/samplers.py
    Mutation(
        "diffusion/samplers.py",
        "torch.expm1(gamma_s - gamma_t) * sigma(gamma_s) ** 2",
        "torch.expm1(gamma_s - gamma_t) * sigma(gamma_t) ** 2",
        "noise of an ancestral step",
        (ANCESTRAL,),
    ),
    Mutation(
        "diffusion/samplers.py",
        "(sigma(gamma_s) ** 2 - c2)",
        "(sigma(gamma_s) ** 2)",
        "noise counted twice",
        (ANCESTRAL,),
    ),
    Mutation("diffusion/samplers.py", "0.5 * (d_t + d_s)", "d_t", "Heun is Euler", (ORDER,)),
    Mutation("diffusion/samplers.py", "(h / (2 * before[1]))", "(h / before[1])", "multistep extrapolation", (ORDER,)),
    Mutation("diffusion/samplers.py", "(h / (2 * before[1]))", "0.5", "uneven steps", (UNEVEN,)),
    Mutation(
        "diffusion/samplers.py",
        "z = alpha(gamma_t) * x_hat + sigma(gamma_t) * e_hat",
        "z = alpha(gamma_t) * x_hat + sigma(gamma_s) * e_hat",
        "inversion",
        (INVERSION,),
    ),
    # diffusion/diffusion.py
    Mutation(
        "diffusion/diffusion.py",
        "squares = 0.5 * slope",
        "squares = slope",
        "a factor 1/2 of the integral",
        (CONTINUOUS,),
    ),
    Mutation(
        "diffusion/diffusion.py", '"terminal": terminal}', '"terminal": 0 * terminal}', "no last KL", (RUNAWAY, TABLE)
    ),
    Mutation("diffusion/diffusion.py", "(s / std * e - (", "(e - (", "learned variance in the residual", (CONTINUOUS,)),
    Mutation("diffusion/diffusion.py", "a * x_hat) / s)", "s * x_hat) / s)", "alpha and sigma in e_hat", (CONTINUOUS,)),
    Mutation(
        "diffusion/diffusion.py",
        '{**terms, "last_step": last.expected_nll(q)}',
        "terms",
        "a diffusion of points reads nothing back",
        (SAMPLE_FORM,),
    ),
    Mutation(
        "diffusion/diffusion.py", "nats = steps * forward", "nats = forward", "one step stands for all", (QUADRATURE,)
    ),
    Mutation(
        "diffusion/diffusion.py",
        "forward.kl(self.process",
        "0.9 * forward.kl(self.process",
        "10 % of the rate",
        (QUADRATURE,),
    ),
    Mutation(
        "diffusion/diffusion.py",
        "nats = steps * forward",
        "nats = 0.9 * steps * forward",
        "10 % where codes overlap",
        (CHAIN_SUM,),
    ),
    Mutation(
        "diffusion/diffusion.py",
        "squares = 0.5 * slope",
        "squares = 0.48 * slope",
        "4 % where codes overlap",
        (INFORMATION,),
    ),
    Mutation("diffusion/diffusion.py", "gamma(t - 1 / steps)", "gamma(t - 2 / steps)", "steps overlap", (QUADRATURE,)),
    Mutation(
        "diffusion/diffusion.py",
        "reshape(k, batch).mean(0)",
        "reshape(k, batch).sum(0)",
        "several times add up",
        (f"{RATE}::test_times_per_code_average_the_same_rate",),
    ),
    Mutation(
        "diffusion/diffusion.py", "if exact or (prior", "if (prior", "training weights enter the bound", (WEIGHTS,)
    ),
    Mutation(
        "diffusion/diffusion.py",
        "if not exact and not self.objective.terminal",
        "if not self.objective.terminal",
        "no last KL in the bound's gradient",
        (WEIGHTS,),
    ),
    Mutation(
        "diffusion/diffusion.py",
        "slope.detach(), dims) / w",
        "slope.detach(), dims) * w",
        "LSGM's encoder weights",
        (LSGM,),
    ),
    Mutation("diffusion/diffusion.py", ".unsqueeze(1)) / k)", ".unsqueeze(1)))", "times beyond one", (STRATA,)),
    # models/priors.py
    Mutation("models/priors.py", '"log_det": self.std', '"log_det": -self.std', "determinant's sign", (STANDARDIZED,)),
    Mutation(
        "models/priors.py", "-self.mean / self.std)", "-self.mean)", "shift of standardised codes", (STANDARDIZED,)
    ),
    Mutation(
        "models/priors.py",
        "kl = kl.detach() + spent * (kl - kl.detach())",
        "kl = spent * kl",
        "free bits change the printed number",
        (f"{OBJECTIVES}::test_free_bits_stop_the_gradient_of_cheap_dimensions_only",),
    ),
    # models/autoencoder.py
    Mutation("models/autoencoder.py", "posterior.scale_gradient(r)", "posterior", "the dial has no effect", (DIAL,)),
    Mutation(
        "models/autoencoder.py", "r = 1.0 if exact else self", "r = self", "beta enters the bound's gradient", (BETA,)
    ),
    Mutation(
        "models/autoencoder.py",
        "        if not exact:\n            trained = distortion",
        "        if True:\n            trained = distortion",
        "the bound knows of the distortion's weights",
        (WEIGHED,),
    ),
    Mutation(
        "models/autoencoder.py",
        "distortion = with_gradient_of(distortion, trained)",
        "distortion = trained",
        "the printed distortion is weighted",
        (WEIGHED,),
    ),
    Mutation(
        "models/autoencoder.py",
        "distortion.detach()) * trained",
        "distortion.detach()).mean() * trained",
        "the weights are the batch's, not each example's",
        (WEIGHED,),
    ),
    Mutation(
        "models/autoencoder.py",
        "(index + progress) / count",
        "index / count + progress",
        "each part has all",
        (PORTION,),
    ),
    Mutation("models/autoencoder.py", "likelihood.check(x)", "pass", "no refusal", (REFUSALS,)),
    Mutation(
        "models/autoencoder.py",
        "Normal(alpha(gamma_0) * code",
        "Normal(code",
        "the encoder's first step",
        (FIXED_NOISE,),
    ),
    Mutation(
        "models/autoencoder.py",
        "        with torch.no_grad():\n            posterior",
        "        if True:\n            posterior",
        "the second stage trains the encoder",
        (f"{OBJECTIVES}::test_rate_alone_is_the_second_stage",),
    ),
    # models/parts.py, models/zoo.py and models/recipe.py
    Mutation("models/parts.py", 'getattr(config, "terminal", True)', "True", "the last KL always trains", (LAST_KL,)),
    Mutation("models/zoo.py", "terminal=config.prior.terminal", "terminal=False", "the paper's never does", (LAST_KL,)),
    Mutation(
        "models/zoo.py", 'if config.reconstruct_at == "split"', 'if config.reconstruct_at == "one"', "split", (MEETS,)
    ),
    Mutation("models/recipe.py", "outer, frozen=(prior,)", "outer", "the prior trains with the encoder", (ROUNDS,)),
    Mutation(
        "models/recipe.py",
        "weight = portion(model.rate_weight, k, rounds)",
        "weight = model.rate_weight",
        "ramp",
        (ROUNDS,),
    ),
    # evaluation/levels.py
    Mutation(
        "evaluation/levels.py", "** 2 / variance", "** 2 * variance", "units of the posterior", (LEVELS_HOLD, FLIPS)
    ),
    Mutation("evaluation/levels.py", "mean(1).sqrt()", "mean(1)", "a mean square in place of its root", (LEVELS_HOLD,)),
    Mutation("evaluation/levels.py", "x + NOISE * torch", "x + torch", "noise of another size", (LEVELS_HOLD,)),
    Mutation("evaluation/levels.py", "< FLIPPED, -x, x)", "< FLIPPED, 0 * x, x)", "pixels go grey", (FLIPS,)),
    Mutation(
        "evaluation/levels.py", "min(depth(name), n) == i", "min(depth(name), n) >= i", "levels overlap", (LEVEL_RATES,)
    ),
    Mutation(
        "evaluation/levels.py", 'len(name.split("rate/")) - 1', 'len(name.split("rate/"))', "the depth", (LEVEL_RATES,)
    ),
    Mutation(
        "evaluation/levels.py",
        "for part in reversed(self.parts[1:])",
        "for part in self.parts[1:0]",
        "the decoders of the levels below are passed by",
        (f"{STEPS}::test_decoding_goes_through_all_levels",),
    ),
    *(
        Mutation(file, old, new, breaks, (test,))
        for more in MORE
        for file, found in more.items()
        for old, new, breaks, test in found
    ),
]


# ------------------------------------------------------------------------------------------------------ the worker


class _Failures:
    """What made the tests fail."""

    def __init__(self) -> None:
        self.types: list[str] = []

    def pytest_exception_interact(self, call: Any) -> None:
        self.types.append(call.excinfo.typename)


def _look_below(root: Path) -> None:
    """Import the package from `root`."""
    sys.path[:] = [str(root), *[p for p in sys.path if not (Path(p) / "diled").is_dir()]]


def _run_tests(root: Path, tests: Iterable[str], first_only: bool = True) -> dict[str, Any]:
    """In a child: run the tests, as a rule up to the first that fails, with the package below `root`."""
    import pytest

    _look_below(root)
    failures = _Failures()
    options = [*OPTIONS, *(["-x"] if first_only else [])]
    code = pytest.main([*options, *(str(TESTS / t) for t in tests)], plugins=[failures])
    import diled.api

    assert Path(diled.api.__file__).is_relative_to(root), "the tests imported another copy"
    return {"code": int(code), "failures": failures.types}


def _unchanged(root: Path, mutations: Iterable[tuple[Mutation, float]]) -> dict[str, Any]:
    """What tests of these mutations say where nothing is changed: of each file one, of the mutation that took least seconds.

    One test of a file is enough, since all run by themselves as well.
    """
    quickest: dict[str, tuple[float, str]] = {}
    for mutation, seconds in mutations:
        for test in mutation.tests:
            file = test.split("::")[0]
            quickest[file] = min(quickest.get(file, (seconds, test)), (seconds, test))
    if not quickest:  # pytest would run all there are
        return {"code": 0, "failures": [], "output": ""}
    return _forked(lambda: _run_tests(root, [test for _, test in quickest.values()], first_only=False), seconds=900)


def _forked(work: Callable[[], dict[str, Any]], seconds: int = 90) -> dict[str, Any]:
    """What `work` answers in a fork within so many seconds, and its output.

    A fork that does not answer tells where it stood, and is made once more: a lock that some thread of a library held at the
    moment of the fork stays closed in the child.
    """
    found = _once(work, seconds)
    return found if found["code"] != NO_ANSWER else _once(work, seconds)


def _once(work: Callable[[], dict[str, Any]], seconds: int | None) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryFile("w+") as answer:
        start, child = time.monotonic(), os.fork()
        if child == 0:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            faulthandler.enable(log)
            if seconds is not None:  # a fork of this one would wait for the watching thread, which it does not have
                faulthandler.dump_traceback_later(seconds, exit=True, file=log)
            try:
                answer.write(json.dumps(work()))
                answer.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
        _, status = os.waitpid(child, 0)
        log.seek(0)
        answer.seek(0)
        text = answer.read()
        found = json.loads(text) if text else {"code": NO_ANSWER, "failures": []}
        said = log.read()[-3000:]
        found["seconds"] = round(time.monotonic() - start, 2)
        return {**found, "output": said if text else f"no answer, wait status {status}:\n{said}"}


def _functions_of(root: Path) -> dict[tuple[str, str, int], list[FunctionType]]:
    """Import all of the package below `root`; its functions, by file, name and line."""
    import diled

    for module in pkgutil.walk_packages(diled.__path__, "diled."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: dict[tuple[str, str, int], list[FunctionType]] = {}
    for f in gc.get_objects():
        if isinstance(f, FunctionType) and f.__code__.co_filename.startswith(str(root)):
            code = f.__code__
            found.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(f)
    return found


@cache
def _code(path: str, text: str) -> CodeType:
    return compile(text, path, "exec")


def _changed(old: CodeType, new: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    """The functions whose code differs, before and after; None where something else does, which takes an import."""
    inner = [[c for c in code.co_consts if isinstance(c, CodeType)] for code in (old, new)]
    outer = [(c.co_code, c.co_names, repr([k for k in c.co_consts if not isinstance(k, CodeType)])) for c in (old, new)]
    if outer[0] != outer[1] or len(inner[0]) != len(inner[1]):
        return None
    found = []
    for a, b in zip(*inner, strict=True):
        if a == b:
            continue
        if a.co_name.startswith("<") or a.co_freevars != b.co_freevars:
            return None
        if a.co_flags & inspect.CO_OPTIMIZED:
            found.append((a, b))
        else:  # the body of a class
            below = _changed(a, b)
            if below is None:
                return None
            found += below
    return found


class _NewCode:
    """In place of pytest's loop over all tests: for each mutation of a function, a fork that gives it its new code."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: list[dict[str, Any] | None] = []

    def pytest_runtestloop(self, session: Any) -> bool:
        """`found` is None where a mutation takes an import, and where no test fails: something may have been computed
        already."""
        named: dict[str, list[Any]] = {}
        for item in session.items:
            file = item.path.name
            name = f"{file}::{item.nodeid.split('::', 1)[1]}"
            for key in dict.fromkeys((file, name.split("[")[0], name)):
                named.setdefault(key, []).append(item)
        functions = _functions_of(self.root)
        gc.freeze()
        for mutation in MUTATIONS:
            path = self.root / "diled" / mutation.file
            text = path.read_text()
            pairs = _changed(_code(str(path), text), _code(str(path), mutation.made(text)))
            changed = [((str(path), a.co_qualname, a.co_firstlineno), b) for a, b in pairs or []]
            items = [item for test in mutation.tests for item in named[test]]

            def work(changed: Any = changed, items: list[Any] = items) -> dict[str, Any]:
                for key, code in changed:
                    for function in functions[key]:
                        function.__code__ = code
                return self._run(session, items)

            swapped = _forked(work) if changed and all(key in functions for key, _ in changed) else None
            self.found.append(
                swapped if swapped and swapped["code"] == 1 and set(swapped["failures"]) <= FAILED else None
            )
        return True

    def _run(self, session: Any, items: list[Any]) -> dict[str, Any]:
        """In a fork: the tests up to the first that fails."""
        failures = _Failures()
        session.config.pluginmanager.register(failures)
        for item, after in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if failures.types:
                break
        return {"code": int(bool(failures.types)), "failures": failures.types}


def _with_new_code(root: Path) -> dict[str, Any]:
    """In a child: import the package and collect the tests once, and fork for each mutation.

    That saves an import and a collection for each. `unchanged` is what tests of those that were noticed say without any
    mutation.
    """
    import pytest

    _look_below(root)
    loop, files = _NewCode(root), dict.fromkeys(t.split("::")[0] for m in MUTATIONS for t in m.tests)
    options = [*OPTIONS, "-s", f"--basetemp={root / 'tests'}"]
    code = pytest.main([*options, *(str(TESTS / file) for file in files)], plugins=[loop])
    if len(loop.found) != len(MUTATIONS):
        return {"code": int(code) or NO_ANSWER, "failures": []}
    noticed = [(m, one["seconds"]) for m, one in zip(MUTATIONS, loop.found, strict=True) if one is not None]
    return {"code": 0, "unchanged": _unchanged(root, noticed), "found": loop.found}


def _imported(root: Path, mutation: Mutation) -> dict[str, Any]:
    """What the tests say of a mutation whose module is imported anew."""
    path = root / "diled" / mutation.file
    text, times = path.read_text(), path.stat()
    path.write_text(mutation.made(text))
    os.utime(path, (0, 0))  # no compiled file is of that time
    try:
        return _forked(lambda: _run_tests(root, mutation.tests))
    finally:
        path.write_text(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def main(package: str, results: str) -> None:
    """Run the tests with no mutation and with each; one JSON object a line in `results`, with its `seconds`, the first two
    with none.

    These two are of the package that is imported once, and of one that is imported anew, where a mutation needs that.
    """
    import torch

    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)

    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    torch.testing.assert_close(torch.zeros(1), torch.zeros(1))  # its first use imports half a second of torch
    assert "diled" not in sys.modules
    gc.freeze()  # pytest collects garbage as it ends, and would go through all of torch in every child
    with tempfile.TemporaryDirectory() as folder, open(results, "w") as out:
        root = Path(folder).resolve()
        shutil.copytree(package, root / "diled", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
        compileall.compile_dir(root, quiet=2)
        once = _once(lambda: _with_new_code(root), seconds=None)
        noticed = once.get("found") or [None] * len(MUTATIONS)
        found = [one or _imported(root, m) for m, one in zip(MUTATIONS, noticed, strict=True)]
        anew = [(m, f["seconds"]) for m, f, one in zip(MUTATIONS, found, noticed, strict=True) if one is None]
        for one in (once.get("unchanged", once), _unchanged(root, anew), *found):
            print(json.dumps(one), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
