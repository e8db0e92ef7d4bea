"""Small mistakes in the estimates of log p(x), as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_likelihood.py"
ZERO_VARIANCE = f"{TESTS}::test_exact_posteriors_give_weights_without_variance"
KNOWN_PRIORS = f"{TESTS}::test_priors_with_a_density_are_taken_as_they_are"
ON_DATA = f"{TESTS}::test_a_diffusion_on_data_has_the_evidence_of_its_gaussian"
ODE = f"{TESTS}::test_density_of_the_ode_of_a_gaussian_is_known"
ORDER = f"{TESTS}::test_density_of_the_ode_converges_at_order_four"
PATH = f"{TESTS}::test_path_weights_average_to_the_density_of_the_chain"
WRONG_PATH = f"{TESTS}::test_path_weights_of_a_wrong_denoiser_average_to_its_rate_in_the_log"
HUTCHINSON = f"{TESTS}::test_hutchinsons_trace_is_right_on_average_only"
LARGE = f"{TESTS}::test_large_codes_take_the_path_unless_one_says_otherwise"
BY_HAND = f"{TESTS}::test_importance_by_hand"
ELBO = f"{TESTS}::test_elbo_tells_rate_from_distortion"
COMPANY = f"{TESTS}::test_weights_do_not_depend_on_portions_or_company"
REFUSED = f"{TESTS}::test_data_that_the_likelihood_does_not_admit_are_refused"
TEMPERATURES = f"{TESTS}::test_temperatures_rise_from_zero_to_one"
LEAPFROG = f"{TESTS}::test_leapfrog_leads_back_and_keeps_the_energy_to_second_order"
POINT = f"{TESTS}::test_a_point_is_both_densities_and_their_gradients"
INVARIANT = f"{TESTS}::test_transitions_leave_the_posterior_as_it_is"
STEP_SIZES = f"{TESTS}::test_step_sizes_find_their_acceptance"
ONE_STEP = f"{TESTS}::test_one_step_up_is_too_low_and_one_step_down_too_high"
ANNEALED_ALONE = f"{TESTS}::test_annealing_does_not_depend_on_company_and_needs_no_encoder"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "evaluation/likelihood.py": [
        ("+ q.nll(z) - model", "- q.nll(z) - model", "the sign of -log q", ZERO_VARIANCE),
        ("- model.decoder(z).nll(x)", "+ model.decoder(z).nll(x)", "the sign of -log p(x | z)", ZERO_VARIANCE),
        ("return inner - model.std", "return inner + model.std", "the sign of the determinant", KNOWN_PRIORS),
        ("return -total(model", "return total(model", "the sign of an exact density", KNOWN_PRIORS),
        ("+ first.nll(z) - last", "- first.nll(z) - last", "the sign of -log q(z_0 | x)", ON_DATA),
        ("- last.nll(x)", "+ last.nll(x)", "the sign of the last step", ON_DATA),
        ('<= ODE_DIMENSIONS else "path"', '<= ODE_DIMENSIONS else "ode"', "which weight large codes get", LARGE),
        ("+ forward.nll(z_t) - reverse", "- forward.nll(z_t) - reverse", "the sign of the forward path", PATH),
        ("- reverse.nll(z_s)", "+ reverse.nll(z_s)", "the sign of the reverse path", PATH),
        ("return log_w - _standard", "return log_w + _standard", "the sign of the end of the path", PATH),
        ("alpha_ratio(gamma_s, gamma_t) * z_s", "z_s", "the forward kernel's mean", WRONG_PATH),
        ("torch.log(bridge_variance(g", "2 * torch.log(bridge_variance(g", "the forward kernel's variance", WRONG_PATH),
        (
            "_estimate(diffusion, z_t, gamma_t), gamma_s",
            "_estimate(diffusion, z_t, gamma_s), gamma_s",
            "level",
            WRONG_PATH,
        ),
        ("return 0.5 * alpha(gamma) * (alpha", "return alpha(gamma) * (alpha", "a factor 1/2 of the ODE", ODE),
        ("(alpha(gamma) * z - x_hat)", "(alpha(gamma) * z + x_hat)", "the sign of x_hat in the ODE", ODE),
        ("0.5 * alpha(gamma) * (alpha(gamma) * dims", "alpha(gamma) * (alpha(gamma) * dims", "1/2 of the volume", ODE),
        ("* dims - trace)", "* dims + trace)", "the sign of the trace", ODE),
        ("return volume - _standard", "return -volume - _standard", "the sign of the volume", ODE),
        ("z + 0.5 * h * z_2, gamma", "z + h * z_2, gamma", "the order of Runge and Kutta", ORDER),
        ("(volume_1 + 2 * volume_2", "(volume_1 + volume_2", "the weights of Runge and Kutta", ODE),
        ("/ math.sqrt(probes)", "/ probes", "the mean over probes", HUTCHINSON),
        (".logsumexp(1) - math.log(count)", ".logsumexp(1) + math.log(count)", "1/k", BY_HAND),
        ("(2 * log_w.logsumexp(0) -", "(log_w.logsumexp(0) -", "the square in the effective sample size", BY_HAND),
        ("(1 / ess - 1 / k)", "(1 / ess)", "the delta method", BY_HAND),
        ("groups.std(0) / math.sqrt(n)", "groups.std(0)", "the error of a mean over groups", BY_HAND),
        ("-nats.sum(0).mean(0)", "nats.sum(0).mean(0)", "the sign of the lower bound", ELBO),
        ("return -self.value - self.rate", "return -self.value + self.rate", "distortion", ELBO),
        ("std(0) / math.sqrt(samples)", "std(0)", "the error of a mean over samples", ELBO),
        ("streams.restart()", "pass", "draws depend on the size of portions", COMPANY),
        ("model.decoder(q.mean[:1]).check(x)", "pass", "grey values are taken", REFUSED),
    ],
    "evaluation/ais.py": [
        ("self.log_prior + beta * self", "self.log_prior - beta * self", "the sign of the likelihood in f", POINT),
        ("self.slope_prior + beta *", "self.slope_prior + beta**2 *", "the slope of f", POINT),
        (
            "p = p + 0.5 * e * point.slope(beta)\n        point",
            "p = p + e * point.slope(beta)\n        point",
            "half steps",
            LEAPFROG,
        ),
        ("point.z + e * p", "point.z - e * p", "the direction of the flow", LEAPFROG),
        (
            "end.log_f(beta) - point.log_f(beta)",
            "point.log_f(beta) - end.log_f(beta)",
            "which move is refused",
            INVARIANT,
        ),
        ("- 0.5 * sum_dims(p**2) +", "+ 0.5 * sum_dims(p**2) +", "the sign of the end's momentum", INVARIANT),
        ("+ 0.5 * sum_dims(momentum**2)", "+ 1.0 * sum_dims(momentum**2)", "1/2 of the momentum", INVARIANT),
        ("log_uniform < log_ratio", "log_uniform < log_ratio + 5", "what is accepted", INVARIANT),
        ("(beta - before) * point", "(before - beta) * point", "the sign of a weight", ONE_STEP),
        ("betas[::-1]", "betas", "the way down", ONE_STEP),
        ("uppers.append(-importance", "uppers.append(importance", "1 / p(x) and p(x)", ONE_STEP),
        ("FASTER, SLOWER = 1.02, 0.98", "FASTER, SLOWER = 0.98, 1.02", "the direction of adaptation", STEP_SIZES),
        ("torch.sigmoid(4 * (2 * t - 1))", "torch.sigmoid(2 * (2 * t - 1))", "the published schedule", TEMPERATURES),
        ("(raw - raw[0]) /", "raw /", "beta starts at 0", TEMPERATURES),
        (
            "x.repeat_interleave(len(z) // len(x), 0)",
            "x.repeat(len(z) // len(x), 1)",
            "chains get another example",
            ANNEALED_ALONE,
        ),
    ],
}
