"""Small mistakes in the sections of an audit and in the estimate of log p(x) that counts, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_audit_sections.py"

BOUNDS = f"{TESTS}::test_models_without_an_encoder_get_their_bounds"
KL = f"{TESTS}::test_the_amortization_gap_of_an_encoder_that_is_off_is_its_kl"
ODE = f"{TESTS}::test_a_diffusion_prior_keeps_its_weights_where_annealing_is_refused"
ANNEALED = f"{TESTS}::test_where_the_encoder_is_far_off_annealing_is_the_best_estimate_and_splits_the_gap"
WEIGHTED = f"{TESTS}::test_where_weights_are_exact_they_are_the_best_estimate_and_all_examples_count"
ALONE = f"{TESTS}::test_deterministic_codes_with_a_mixture_have_a_log_p_by_annealing_alone"
COMMON = f"{TESTS}::test_the_better_estimate_is_that_of_the_examples_that_both_were_run_on"
BY_HAND = f"{TESTS}::test_the_best_estimate_by_hand"
TOO_LOW = f"{TESTS}::test_an_estimate_counts_as_too_low_beyond_two_standard_errors"
EFFORT = f"{TESTS}::test_efforts_that_no_section_takes_are_refused_by_name"
PUBLISHED = f"{TESTS}::test_the_published_attack_is_the_papers_for_grey_and_for_colour"
ASKED = f"{TESTS}::test_what_is_asked_for_is_taken_instead"
ATTACKED = f"{TESTS}::test_codes_without_noise_are_attacked_like_codes_of_equal_noise"
BEFORE = f"{TESTS}::test_pictures_are_compared_with_the_images_before_binarisation"
ACTIVE = f"{TESTS}::test_slope_active_units_and_psnr_of_a_deterministic_model_by_hand"
UNITS = f"{TESTS}::test_of_codes_with_noise_the_section_has_all_and_reads_them_once"
LOWEST = f"{TESTS}::test_the_lowest_of_the_curve_is_between_two_images"
OWN = "test_audit_units.py::test_bounds_of_continuous_data_are_in_the_datas_own_units"
COPIES = "test_audit_units.py::test_copies_of_training_examples_beyond_the_first_are_seen"
TERMS = "test_audit_units.py::test_a_diffusion_prior_has_a_gap_of_its_path_and_of_its_last_kl"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "evaluation/audit.py": [
        ('"bound": unit - each.value', '"bound": unit + each.value', "the sign of a bound", BOUNDS),
        ('"bound": unit - each.value', '"bound": -each.value', "the unit of a bound", OWN),
        ("averaged(log_p.cpu() - examples.unit)", "averaged(log_p.cpu() + examples.unit)", "the sign of a unit", OWN),
        ("cpu().numpy() + examples.unit", "cpu().numpy() - examples.unit", "the sign of the best bound's unit", OWN),
        ("| own[name] for", "for", "terms of the rate are left out", TERMS),
        ('terms["train"]["bound"], terms["test"]["bound"]', 'terms["test"]["bound"], terms["train"]["bound"]',
         "the sign of the generalization gap", BOUNDS),
        ("amortization(before, after)", "amortization(after, before)", "the sign of the amortization gap", KL),
        ("largest = effort.ode_weights if ode", "largest = effort.weights if ode", "weights under an ODE", ODE),
        ("examples.test[: effort.annealed]", "examples.train[: effort.annealed]", "what is annealed", ANNEALED),
        (".gap.cpu()", ".lower.cpu()", "the gap of BDMC", ALONE),
        ("values[:n].mean()", "values.mean()", "means are over other examples", COMMON),
        ("best = max(means,", "best = min(means,", "the looser of two lower bounds", WEIGHTED),
        ('"colour": (0.05, 20, 100)', '"colour": (0.1, 20, 100)', "the radius for colour", PUBLISHED),
        ('"grey": (0.1, 50, 50)', '"grey": (0.1, 50, 100)', "the iterations for grey images", PUBLISHED),
        ("channels == 1 else", "channels != 1 else", "which images are grey", PUBLISHED),
        ("theirs if mine is None else mine for", "mine or theirs for", "a radius of 0 is not taken", ASKED),
        ('target = "skl" if isinstance', 'target = "means" if isinstance', "SKL is never maximised", ATTACKED),
        ("grey[: len(x)].split(size)", "x.cpu().split(size)", "PSNR of binarised images", BEFORE),
        ("curve[1:-1].min(0)", "curve.min(0)", "the ends of the way count", LOWEST),
        ("curve[1:-1].min(0)", "curve[1:-1].max(0)", "the highest between two images", LOWEST),
        (".sort(descending=True)", ".sort()", "the smallest unit comes first", UNITS),
    ],
    "evaluation/audit_pool.py": [
        ("chain([examples.train], examples.rest())", "[examples.train]", "later examples are left out", COPIES),
    ],
    "evaluation/effort.py": [
        ('"steps": 4}', '"steps": 3}', "a last quarter of no steps", EFFORT),
        ("self.samples > 1 and self", "self.samples > 5 and self", "odd numbers are taken", EFFORT),
    ],
    "evaluation/codes.py": [
        ("active_units(means).sum()", "(~active_units(means)).sum()", "units that are not active", ACTIVE),
    ],
    "evaluation/gaps.py": [
        ("np.array_equal(best, weighted[: len(best)])", "np.array_equal(best, weighted)", "all examples count", BY_HAND),
        (" and np.array_equal(best,", " and not np.array_equal(best,", "the worse estimate counts", BY_HAND),
    ],
    "evaluation/audited.py": [
        ("best_log_p(arrays, split)\n", 'arrays.get(f"likelihood/{split}_log_p")\n', "annealing is left out", ANNEALED),
        ("gap.value < -2 * (gap.stderr or 0.0)", "gap.value < -1 * (gap.stderr or 0.0)", "one standard error", TOO_LOW),
        ("gap.value < -2 * (gap.stderr or 0.0)", "gap.value < 2 * (gap.stderr or 0.0)", "the sign of it", TOO_LOW),
    ],
}  # fmt: skip
"""File -> changes."""
