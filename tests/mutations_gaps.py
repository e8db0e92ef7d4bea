"""Small mistakes in the gaps, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

GAPS = "test_gaps.py"

CLOSED_FORMS = f"{GAPS}::test_all_gaps_of_a_linear_gaussian_model_are_the_closed_forms"
PARTS = f"{GAPS}::test_rate_and_distortion_before_and_after_are_the_closed_forms"
FIXED = f"{GAPS}::test_fixed_noise_optimises_the_mean_alone_and_on_request_the_variance"
NOWHERE = f"{GAPS}::test_a_start_that_leads_nowhere_is_not_taken"
BETTER = f"{GAPS}::test_the_better_start_wins"
ZERO = f"{GAPS}::test_zero_is_mean_zero_and_variance_one"
PLATEAU = f"{GAPS}::test_the_plateau_check_tells_an_optimisation_that_goes_on"
QUARTER = f"{GAPS}::test_the_late_gain_is_that_of_the_last_quarter"
APART = f"{GAPS}::test_examples_do_not_interact"
DRAWS = f"{GAPS}::test_reported_draws_are_neither_those_that_were_optimised_nor_those_that_chose"
PAIRS = f"{GAPS}::test_antithetic_pairs_leave_no_error_in_what_is_linear"
OWN = f"{GAPS}::test_bound_is_the_models_own"
LEFT = f"{GAPS}::test_the_model_is_left_as_it_was"
UNWEIGHTED = f"{GAPS}::test_weights_of_the_training_change_nothing"
BY_HAND = f"{GAPS}::test_generalization_gap_by_hand"
CREMER = f"{GAPS}::test_cremers_split_by_hand"
ZHANG = f"{GAPS}::test_zhangs_split_by_hand"
COVERS = f"{GAPS}::test_bootstrap_of_examples_covers_as_often_as_it_says"
SEEDS = f"{GAPS}::test_bootstrap_over_seeds_adds_their_spread"
OF_GAPS = f"{GAPS}::test_bootstrap_of_generalization_gaps"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "evaluation/amortization.py": [
        ("return self.bound - self.best_bound", "return self.best_bound - self.bound", "the gap's sign", CLOSED_FORMS),
        ("term.reshape(-1, b).mean(0)", "term.reshape(-1, b).sum(0)", "a sum over draws", CLOSED_FORMS),
        ("term.reshape(-1, b).mean(0)", "term.reshape(b, -1).mean(1)", "examples are mixed up", APART),
        ('name != "distortion"', 'name == "distortion"', "the rate is the distortion", PARTS),
        ("torch.cat([e, -e])", "torch.cat([e, e])", "pairs are not antithetic", PAIRS),
        ("s / samples * term.double()", "term.double() / samples", "draws' share of the mean", OWN),
        ("loss.sum().backward()", "(-loss).sum().backward()", "the bound is maximised", CLOSED_FORMS),
        ("loss.sum().backward()", "loss.mean().mul(1e-9).backward()", "examples share a step", APART),
        (
            "q if self.closed_form else copies, exact=True",
            "q if self.closed_form else copies",
            "free bits enter the bound",
            UNWEIGHTED,
        ),
        (
            "adam = torch.optim.Adam([mean, log_var] if free_variance",
            "adam = torch.optim.Adam([mean] if free_variance",
            "the variance is not optimised",
            CLOSED_FORMS,
        ),
        ("free_variance = not isinstance(", "free_variance = isinstance(", "whose variance is free", FIXED),
        (
            "torch.zeros_like(q.log_var) if free_variance",
            "torch.ones_like(q.log_var) if free_variance",
            "the variance of the start",
            ZERO,
        ),
        ("torch.zeros_like(q.mean),", "torch.ones_like(q.mean),", "the mean of the start", ZERO),
        ("learning_rate *= FAR", "learning_rate /= FAR", "the start at zero does not arrive", CLOSED_FORMS),
        ("steps - steps // 4", "steps // 4", "the last quarter is three quarters", QUARTER),
        ("eta_min=learning_rate / 100", "eta_min=learning_rate", "the rate does not fall", QUARTER),
        ("chosen_by(q)[None], last]).argmin(0)", "chosen_by(q)[None], last]).argmax(0)", "the worst is kept", BETTER),
        (
            "late.gather(0, better) - last.gather(0, better)",
            "last.gather(0, better) - late.gather(0, better)",
            "sign of the late gain",
            PLATEAU,
        ),
        ("self.late_gain > self.threshold", "self.late_gain < self.threshold", "who is still improving", PLATEAU),
        ("few, CHOOSE)", "few, REPORT)", "the draws that chose are reported", DRAWS),
        ("problem.noise(OPTIMISE,", "problem.noise(REPORT,", "the draws that were optimised are reported", DRAWS),
        ("seed_from(seed, first + i)", "seed_from(seed, i)", "noise depends on the batch", APART),
        ("p.requires_grad_(True)", "p.requires_grad_(False)", "weights stay frozen", LEFT),
        ("with evaluating(model):", "with evaluating():", "dropout is on", LEFT),
    ],
    "evaluation/gaps.py": [
        (
            '_per_example(test, "test"), _per_example(train, "train")',
            '_per_example(train, "train"), _per_example(test, "test")',
            "sign of the generalization gap",
            BY_HAND,
        ),
        ("averaged(log_p + b)", "averaged(log_p - b)", "sign of the inference gap", CREMER),
        ("averaged(log_p + best)", "averaged(log_p + b)", "the approximation gap is the inference gap", CREMER),
        (
            "averaged(log_p + best), averaged(b - best)",
            "averaged(log_p + best), averaged(best - b)",
            "sign of the amortization gap",
            CREMER,
        ),
        (
            "_difference(best_test, best_train)",
            "_difference(best_train, best_test)",
            "sign of the generative part",
            ZHANG,
        ),
        (
            "_difference(test - best_test, train - best_train)",
            "_difference(test - best_test, best_train - train)",
            "sign of G_a on training examples",
            ZHANG,
        ),
        ("math.hypot(*errors)", "sum(errors)", "errors of independent means", BY_HAND),
        ("signs = (1.0, -1.0)", "signs = (1.0, 1.0)", "training gaps are added", OF_GAPS),
        ("draws) / s for s in seeds", "draws) / 1 for s in seeds", "weights of the seeds", SEEDS),
        (
            '- np.einsum("ds,sd->d", weights_b[part]',
            '+ np.einsum("ds,sd->d", weights_b[part]',
            "the second model is added",
            COVERS,
        ),
        ("b[:, chosen].mean(-1)", "b[:, rng.permutation(chosen)].mean(-1)", "examples are not paired", COVERS),
        ("[(1 - level) / 2, (1 + level) / 2]", "[1 - level, level]", "both tails are twice as large", COVERS),
    ],
}
"""File -> changes."""
