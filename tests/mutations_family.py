"""Small mistakes in the parts that came with the whole family, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

RATE = "test_math_rate.py"
MODELS = "test_math_models.py"
PRIORS = "test_math_priors.py"
SAMPLERS = "test_math_samplers.py"
SCHEDULES = "test_math_schedules.py"
OBJECTIVES = "test_math_objectives.py"
CONSISTENCY = "test_math_consistency.py"
DISTRIBUTIONS = "test_math_distributions.py"
DATA = "test_math_data_diffusion.py"

BAYES = f"{DISTRIBUTIONS}::test_noisy_grid_is_the_posterior_of_a_uniform_prior"
DRAWS = f"{DISTRIBUTIONS}::test_noisy_grid_sums_to_one_and_samples_its_own_probabilities"
WINDOW = f"{DISTRIBUTIONS}::test_noisy_grid_leaves_out_what_is_impossible"
SILENT_EDM = f"{DISTRIBUTIONS}::test_a_silent_edm_is_the_exact_denoiser_of_a_gaussian"
EDM_IS_V = f"{DISTRIBUTIONS}::test_edm_of_unit_data_is_v_with_the_other_sign"
ONE_ESTIMATE = f"{DISTRIBUTIONS}::test_parameterisations_of_one_function_give_one_estimate"
MIXED = f"{DISTRIBUTIONS}::test_mixed_score_is_the_mixture_of_two_noise_estimates"
REACHED = f"{SCHEDULES}::test_ends_out_of_reach_are_refused_and_others_are_followed_in_single_precision"
TRUNCATED = f"{SCHEDULES}::test_noise_levels_of_edm_are_a_truncated_log_normal"
EDM_WEIGHTS = f"{OBJECTIVES}::test_edm_weights_are_the_published_ones"
EDM_LOSS = f"{OBJECTIVES}::test_edm_trains_on_its_published_loss"
CYCLES = f"{OBJECTIVES}::test_cycles_are_ramps_in_turn"
KARRAS = f"{SAMPLERS}::test_karras_levels_are_the_published_ones"
OWN_LEVELS = f"{SAMPLERS}::test_heun_takes_levels_of_its_own_for_each_example"
AS_IT_SAYS = f"{SAMPLERS}::test_a_diffusion_is_sampled_as_it_says"
OF_POINTS = f"{RATE}::test_learned_variance_set_to_the_first_noise_is_the_fixed_noise_encoder"
ENDS = f"{RATE}::test_the_bound_depends_on_the_ends_of_the_schedule_only"
CONTINUOUS = f"{RATE}::test_continuous_rate_is_the_limit_of_the_path"
NEURAL = f"{RATE}::test_a_step_of_a_neural_diffusion_costs_what_is_published"
KNOWING = f"{RATE}::test_a_neural_diffusion_that_knows_x_pays_nothing_on_its_path"
LAST_STEP = f"{DATA}::test_the_first_noise_and_the_last_step_are_one_gaussian_read_both_ways"
LAST_STEP_ON_GRID = f"{DATA}::test_distortion_of_grid_data_is_bayes_rule_under_a_uniform_prior"
DISTORTION = f"{DATA}::test_distortion_of_continuous_data_is_the_mean_over_its_noise"
REACH = f"{DATA}::test_what_the_last_step_leaves_out_is_eight_deviations_away"
LEARNED_NOISE = f"{DATA}::test_continuous_data_on_a_grid_need_their_levels_where_the_noise_is_learned"
BY_HAND = f"{DATA}::test_a_data_diffusion_is_an_autoencoder_composed_by_hand"
GRID_BOUND = f"{DATA}::test_bound_of_grid_data_with_the_exact_posterior_mean"
OFF_GRID = f"{DATA}::test_grid_data_off_the_grid_have_no_bound"
CODES = f"{DATA}::test_codes_are_the_ends_of_the_ode_and_lead_back"
CONDITION = f"{DATA}::test_bound_given_a_condition_is_that_of_the_shifted_gaussian"
UNWEIGHTED = f"{DATA}::test_training_weights_stay_out_of_the_bound_of_a_decoder_and_of_its_gradient"
IGNORED = f"{DATA}::test_a_condition_with_a_distribution_over_x_is_refused_and_not_ignored"
SHOWN = f"{DATA}::test_what_a_conditional_shows"
BOUNDARY = f"{CONSISTENCY}::test_the_boundary_is_the_identity"
SKIP_AND_OUT = f"{CONSISTENCY}::test_skip_and_out_are_the_published_ones"
COUNT = f"{CONSISTENCY}::test_the_number_of_levels_doubles_at_equal_intervals"
NEIGHBOURS = f"{CONSISTENCY}::test_neighbours_are_cells_of_a_discretised_log_normal"
SCRATCH = f"{CONSISTENCY}::test_loss_from_scratch_by_hand"
DISTILLED = f"{CONSISTENCY}::test_loss_of_distillation_by_hand"
TARGET = f"{CONSISTENCY}::test_the_target_gets_no_gradient"
VARIANCE = f"{CONSISTENCY}::test_samples_of_the_exact_function_have_the_known_variance"
NO_LIKELIHOOD = f"{CONSISTENCY}::test_no_bound_and_no_other_sampler"
MIXTURE_NLL = f"{PRIORS}::test_mixture_nll_against_scipy"
MIXTURE_MOMENTS = f"{PRIORS}::test_mixture_samples_have_its_moments"
RECOVERED = f"{PRIORS}::test_fit_recovers_a_known_mixture"
SKLEARN = f"{PRIORS}::test_fit_is_scikit_learns_on_standardised_codes"
FEW_CODES = f"{PRIORS}::test_fit_to_few_codes_takes_few_components"
NO_PRIOR = f"{PRIORS}::test_without_a_prior_there_is_no_bound"
JENSEN_SHANNON = f"{MODELS}::test_the_optimal_critic_measures_the_jensen_shannon_divergence"
SIDES = f"{MODELS}::test_each_part_of_the_critic_trains_one_side"
HIDDEN = f"{MODELS}::test_corruption_hides_a_share_while_training_only"
PACES = f"{MODELS}::test_parts_with_a_pace_of_their_own_are_groups_apart"
LSGM = f"{MODELS}::test_lsgm_of_the_family_trains_prior_and_encoder_apart"
DIALS = f"{MODELS}::test_the_dials_of_levels"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "distributions.py": [
        ("-0.5 * (gap / self.std) ** 2", "-((gap / self.std) ** 2)", "a factor 1/2 of the noise", BAYES),
        ("- self._exponent(self.observed - x)", "+ self._exponent(self.observed - x)", "sign of x's own term", BAYES),
        ("(exponent.softmax(-1) * values).sum(-1)", "(exponent.softmax(-1) * values).mean(-1)", "E[x | y]", BAYES),
        ("-sum_dims((log_p.exp() * log_p)", "sum_dims((log_p.exp() * log_p)", "the sign of its entropy", BAYES),
        ("* (2 / most) - 1", "* (2 / self.levels) - 1", "the spacing of the grid", BAYES),
        ("* (0.5 * most)).round()", "* most).round()", "the middle of the window", WINDOW),
        (".clamp(self.reach, most - self.reach)", "", "the window leaves the grid", WINDOW),
        ("cumsum(-1) < u[..., None]", "cumsum(-1) > u[..., None]", "draws are turned round", DRAWS),
    ],
    "diffusion/schedule.py": [
        ("(2 * (self.mean + self.std", "((self.mean + self.std", "gamma is log s^2, not log s", TRUNCATED),
        ("(self.mean + self.std * self._score", "(self.mean - self.std * self._score", "its direction", TRUNCATED),
        ("(2 * self.std * self.share", "(self.std * self.share", "a factor 2 of its slope", TRUNCATED),
        ("torch.exp(-0.5 * self._score", "torch.exp(-1.0 * self._score", "the density in its slope", TRUNCATED),
        ("(0.5 * ends - mean) / std", "(ends - mean) / std", "where it is cut", TRUNCATED),
        ("_normal_cdf(-cuts)", "1 - _normal_cdf(cuts)", "precision far out, at the noise end", TRUNCATED),
        ("above[0] - above[1])", "below[1] - below[0])", "precision between two ends far out", TRUNCATED),
        ("(u < rest, 1, -1)", "(u < rest, 1, 1)", "levels above the middle are reflected", TRUNCATED),
        ("self.share * (1 - t)", "self.share * t", "how much lies above a level", TRUNCATED),
        ("REACH = (-80.0, 20.0)", "REACH = (-80.0, 40.0)", "ends that single precision does not reach", REACHED),
        ("DEVIATIONS = 12", "DEVIATIONS = 20", "an infinite slope", REACHED),
        ("(0.5 * _wide(gamma) - self.mean)", "(0.5 * _wide(gamma) + self.mean)", "its inverse", TRUNCATED),
        ("torch.special.log_ndtr(x).exp()", "torch.special.ndtr(x)", "precision far out", TRUNCATED),
        ("mean: float = -1.2", "mean: float = 1.2", "the published mean of log s", EDM_LOSS),
        ("std: float = 1.2", "std: float = 2.4", "the published spread of log s", EDM_LOSS),
    ],
    "diffusion/objectives.py": [
        ("(torch.exp(gamma) + sigma_data**2)", "(torch.exp(-gamma) + sigma_data**2)", "s is 1 / s", EDM_WEIGHTS),
        ("(torch.exp(gamma) + sigma_data**2)", "(torch.exp(gamma) - sigma_data**2)", "a sign in lambda", EDM_WEIGHTS),
        ("sigma_data**2) / sigma_data**2", "sigma_data**2) / sigma_data", "an exponent in lambda", EDM_WEIGHTS),
    ],
    "diffusion/parameterization.py": [
        ("d**2 / spread**2 * x", "d / spread * x", "the exponents of c_skip", SILENT_EDM),
        ("x + s * d / spread", "x - s * d / spread", "the sign of c_out", EDM_IS_V),
        ("x + s * d / spread", "x + s / spread", "the d of c_out", ONE_ESTIMATE),
        ("self.network(x / spread,", "self.network(x,", "c_in", ONE_ESTIMATE),
        ("torch.exp(-0.5 * log_snr)", "torch.exp(0.5 * log_snr)", "s is 1 / s", SILENT_EDM),
        ("like(alpha(-log_snr), z_t) * z_t", "z_t", "the alpha of the normal part", MIXED),
        ("self.share.to(normal.dtype))", "1 - self.share.to(normal.dtype))", "the shares change places", MIXED),
        ("(logit / self.PACE)", "logit", "where the share starts", MIXED),
        ("self.PACE * self.pace", "self.pace", "the pace of the share", MIXED),
    ],
    "diffusion/samplers.py": [
        ("torch.exp(end / (2 * rho))", "torch.exp(end / rho)", "levels in s^2 instead of s", KARRAS),
        ("return 2 * rho * torch.log", "return rho * torch.log", "gamma is log s^2, not log s", KARRAS),
        ("place * (low - high)", "place**2 * (low - high)", "equal spacing", KARRAS),
        ("like(torch.exp(0.5 * gamma_s), z)", "torch.exp(0.5 * gamma_s)", "examples exchange their levels", OWN_LEVELS),
    ],
    "diffusion/diffusion.py": [
        ("elif exact:", "elif False:", "the bound's noise depends on the schedule's shape", ENDS),
        ("(gamma_1 - gamma_0).expand_as(t)", "gamma_1.expand_as(t)", "the range of the bound's levels", CONTINUOUS),
        (
            "condition.repeat(k, *[1] * (condition.ndim - 1))",
            "condition.repeat_interleave(k, 0)",
            "examples exchange their conditions",
            CONDITION,
        ),
        ("steps, reference.device), self._denoise", "steps + 1, reference.device), self._denoise", "steps", AS_IT_SAYS),
        ("gamma_s, gamma_t).sample(noise)", "gamma_s, gamma_t).mean", "the noise of the neural chain", KNOWING),
    ],
    "diffusion/process.py": [
        ("w = (gamma - self.low) / (self.high - self.low)", "w = (gamma - self.low) / self.high", "w(t)", NEURAL),
        ("return x + like(w, x) * self", "return x - like(w, x) * self", "the sign of the map", NEURAL),
        ("self.network(x, -gamma)", "self.network(x, gamma)", "the level that the map is told", NEURAL),
        ("x = q.mean / alpha(gamma_0)", "x = q.mean", "x out of z_0", NEURAL),
        ("like(alpha(gamma_t), x) * self", "like(alpha(gamma_0), x) * self", "the mean of z_t", NEURAL),
        (
            "Normal(mean, like(torch.log(sigma2(gamma_t)), x)",
            "Normal(mean, like(torch.log(sigma2(gamma_0)), x)",
            "the variance of z_t",
            NEURAL,
        ),
        ("self.transform(x_hat, g)", "self.transform(x_hat, gamma_t)", "F(x_hat, s) is F(x_hat, t)", NEURAL),
        ("like(alpha(g), x_hat) *", "like(alpha(gamma_s), x_hat) *", "alpha_t in the reverse step", NEURAL),
        (
            "level = torch.log(sigma2(gamma_s)), torch.log(sigma2(gamma_t))",
            "level = torch.log(sigma2(gamma_t)), torch.log(sigma2(gamma_s))",
            "the variances of the reverse step change places",
            NEURAL,
        ),
    ],
    "diffusion/last_step.py": [
        ("Normal(alpha(gamma_0) * x,", "Normal(x,", "the alpha of the first noise", LAST_STEP),
        ("read, std = z_0 / alpha(gamma_0)", "read, std = z_0", "x out of z_0", LAST_STEP),
        ("sigma(gamma_0) / alpha(gamma_0)", "sigma(gamma_0)", "the noise in units of x", LAST_STEP),
        ("sigma(gamma_0) / alpha(gamma_0)", "sigma(gamma_0) ** 2", "std is a variance", LAST_STEP_ON_GRID),
        ("(2 * torch.log(std))", "torch.log(std)", "variance and deviation", LAST_STEP),
        ("0.5 * (LOG_2PI + 1 + torch.log", "0.5 * (LOG_2PI + torch.log", "half a nat for each dimension", DISTORTION),
        ("- torch.log(alpha(gamma_0))", "+ torch.log(alpha(gamma_0))", "units of x", DISTORTION),
        ("Normal(alpha(gamma_0) * x,", "Normal(x,", "a point is not scaled by alpha_0", OF_POINTS),
        ("- torch.log(alpha(gamma_0))", "", "units of x in a diffusion of points", OF_POINTS),
        ("0.5 * (LOG_2PI + 1 + torch.log", "(LOG_2PI + 1 + torch.log", "a factor 1/2 of the last step", OF_POINTS),
        ("math.ceil(8 * math.exp", "math.ceil(3 * math.exp", "possible values are left out", REACH),
        ("math.exp(0.5 * float", "math.exp(float", "variance and deviation in the window", REACH),
        ("(levels - 1) / 2) + 1", "(levels - 1)) + 1", "a window twice as wide", REACH),
        (
            ".expand_as(read), self.learned)",
            ".expand_as(read))",
            "a learned noise is accepted on a grid",
            LEARNED_NOISE,
        ),
    ],
    "diffusion/data.py": [
        ("            self.check(q)", "            pass", "no refusal off the grid", OFF_GRID),
        ("self.prior.terms(posterior, exact", "self.prior.terms(posterior.sample(), exact", "a sample for q", BY_HAND),
        ('{"distortion": distortion,', '{"distortion": 0.9 * distortion,', "10 % of the distortion", GRID_BOUND),
        ("z_0 = self.last.first_noise(x).mean", "z_0 = x", "the alpha of a code's start", CODES),
        ("exact=not self.density.training", "exact=False", "training weights in a decoder's gradient", UNWEIGHTED),
        ("exact=not self.density.training", "exact=True", "a decoder trains without its weights", UNWEIGHTED),
        ("            if condition is not None:", "            if False:", "a condition is ignored", IGNORED),
        ("ends[1]).expand(len(z))", "ends[0]).expand(len(z))", "the mean is told that there is no noise", SHOWN),
    ],
    "diffusion/consistency.py": [
        ("d**2 / (way**2 + d**2) * x", "d**2 / (s**2 + d**2) * x", "no identity at the clean end", BOUNDARY),
        (".sqrt(), s - self.clean", ".sqrt(), s", "no identity at the clean end: c_out", BOUNDARY),
        ("math.exp(0.5 * gamma_min)", "math.exp(gamma_min)", "where the clean end is", BOUNDARY),
        ("x + d * way / spread", "x - d * way / spread", "the sign of c_out", SKIP_AND_OUT),
        ("d * way / spread", "way / spread", "the d of c_out", SKIP_AND_OUT),
        ("self.network(x / spread,", "self.network(x,", "c_in", SKIP_AND_OUT),
        ("done * (doublings + 1)", "done * doublings", "when the levels double", COUNT),
        ("math.log2(self.finest", "math.log(self.finest", "how often the levels double", COUNT),
        (".clamp(max=self.finest)", "", "the last doubling goes too far", COUNT),
        ("mean=-1.1", "mean=1.1", "the published mean of log s", NEIGHBOURS),
        ("std=2.0", "std=1.0", "the published spread of log s", NEIGHBOURS),
        ("torch.exp(end / (2 * RHO))", "torch.exp(end / RHO)", "levels in s^2 instead of s", NEIGHBOURS),
        ("x)) / (2 * RHO))", "x)) / RHO)", "log-normal s^2 instead of s", NEIGHBOURS),
        ("RHO = 7.0", "RHO = 3.0", "the published rho", NEIGHBOURS),
        ("(cell + i) / n", "(cell + 2 * i) / n", "neighbours", NEIGHBOURS),
        ("x + like(low / high, x) * (noisy - x)", "noisy", "the point at the cleaner level", SCRATCH),
        ("c = 0.00054 * math.sqrt(", "c = 0.00054 * (", "the constant of the Huber loss", SCRATCH),
        ("+ c**2).sqrt() - c", "+ c**2).sqrt()", "the Huber loss of nothing", SCRATCH),
        ("huber / (high - low)", "huber", "the weight of a pair", SCRATCH),
        ("gamma = 2 * torch.log(s)", "gamma = torch.log(s)", "gamma is log s^2, not log s", SCRATCH),
        ("self.student(like(alpha(gamma), x) * x", "self.student(x", "the scale that the student sees", SCRATCH),
        ("torch.stack([high, low])", "torch.stack([low, high])", "the teacher steps up", DISTILLED),
        ("return z / like(alpha(gammas[1]), x)", "return z", "the scale of the teacher's step", DISTILLED),
        ("like(alpha(gammas[0]), x) * x, gammas", "x, gammas", "the scale that the teacher sees", DISTILLED),
        ("        with torch.no_grad():", "        if True:", "the target trains", TARGET),
        ("x = s[0] * noise(", "x = noise(", "the noise that sampling starts from", VARIANCE),
        ("(s[i] ** 2 - s[-1] ** 2).sqrt()", "s[i]", "the noise that is left at the clean end", VARIANCE),
        ("torch.exp(0.5 * karras", "torch.exp(karras", "the levels of sampling", VARIANCE),
        ("given(alpha(self.schedule.ends[0]) * x)", "given(x)", "the scale of the last step", VARIANCE),
        ("        if exact:", "        if False:", "a loss is taken for a bound", NO_LIKELIHOOD),
    ],
    "models/priors.py": [
        ("- log_det - 0.5 *", "+ log_det - 0.5 *", "the determinant's sign in the mixture", MIXTURE_NLL),
        ("- log_det - 0.5 *", "- log_det - 1.0 *", "a factor 1/2 in the mixture", MIXTURE_NLL),
        ("self.log_weights - unit", "self.log_weights + unit", "the unit in the mixture", MIXTURE_NLL),
        ("0.5 * q.shape[1] * math.log", "q.shape[1] * math.log", "a factor 1/2 of the unit", MIXTURE_NLL),
        ("-torch.logsumexp(log_p, 1)", "torch.logsumexp(log_p, 1)", "the sign of the mixture's nll", MIXTURE_NLL),
        ("upper=False", "upper=True", "the correlations in the mixture", MIXTURE_NLL),
        (".log().sum(1)\n", ".log().mean(1)\n", "the determinant is a mean", MIXTURE_NLL),
        ("cumsum(0) < u", "cumsum(0) > u", "components are drawn the wrong way round", MIXTURE_MOMENTS),
        ("(self.roots[k] @", "(self.roots[k].transpose(1, 2) @", "L is its transpose", MIXTURE_MOMENTS),
        (".float() * scale + center", ".float() * scale - center", "where the components lie", RECOVERED),
        (".float() * scale + center", ".float() + center", "how far the components lie apart", RECOVERED),
        ("scale[:, None] * torch.linalg", "scale * torch.linalg", "the scale of correlated codes", SKLEARN),
        (
            "torch.linalg.cholesky(torch.from_numpy(found.covariances_))",
            "torch.from_numpy(found.covariances_)",
            "covariances are taken for their roots",
            RECOVERED,
        ),
        ("len(codes) // (2 * codes.shape[1])", "len(codes)", "a component for each code", FEW_CODES),
        ("self.log_weights.fill_(-math.inf)", "pass", "components of an earlier fit stay", FEW_CODES),
        ("raise NoBound(", "NoBound(", "a bound without a prior", NO_PRIOR),
    ],
    "models/autoencoder.py": [
        ("phase = progress * cycles", "phase = progress / cycles", "the number of cycles", CYCLES),
        ("min(math.floor(phase), cycles - 1)", "math.floor(phase)", "no weight at the end", CYCLES),
        (".floor().clamp(max=cycles - 1)", ".floor()", "no weight at the end, as a tensor", CYCLES),
    ],
    "models/critic.py": [
        ("F.softplus(-real) + F", "F.softplus(real) + F", "real codes are called false", JENSEN_SHANNON),
        ("+ F.softplus(fake)", "+ F.softplus(-fake)", "false codes are called real", JENSEN_SHANNON),
        ("F.softplus(-fooled)", "F.softplus(fooled)", "the encoder flees the prior", SIDES),
        ("self.weight * F.softplus", "F.softplus", "the weight of the encoder's part", SIDES),
        ("self.network(z.detach())", "self.network(z)", "the critic's loss trains the encoder", SIDES),
        ("{name: p.detach() for", "{name: p for", "the encoder's loss trains the critic", SIDES),
        ("if self.training and self.share", "if self.share", "values are hidden after the training", HIDDEN),
    ],
    "models/parts.py": [
        (
            'encoder = None if own in ("same", config.weighting)',
            "encoder = None if own",
            "one objective for both",
            LSGM,
        ),
        ("Mixed(denoiser, (dim,)) if config.mixed else denoiser", "denoiser", "no mixed score", LSGM),
        (
            '"ddpm": lambda: simple(reference=ddpm_beta())',
            '"ddpm": lambda: simple()',
            "the schedule's levels for DDPM's",
            LSGM,
        ),
    ],
    "models/zoo.py": [("range(config.levels - 1)", "range(config.levels)", "a level too many", DIALS)],
    "training/stages.py": [
        ("groups.append((factor, [", "groups.append((1.0, [", "the pace of a part", PACES),
        ("p.requires_grad and id(p) not in apart", "p.requires_grad", "a part trains in two groups", PACES),
        ("if p.requires_grad and id(p)", "if id(p)", "frozen parameters in a group", PACES),
    ],
}
