"""Small mistakes in similarities, attacks and the robustness gap, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_attack.py"

LOOPS = f"{TESTS}::test_one_scale_is_ssim_by_loops"
KUZINA = f"{TESTS}::test_kuzina_by_loops"
STANDARD = f"{TESTS}::test_standard_by_loops"
PIXELS = f"{TESTS}::test_errors_of_pixels_by_hand"
UNITS = f"{TESTS}::test_the_two_units"
SKL = f"{TESTS}::test_skl_is_the_integral"
PUBLISHED = f"{TESTS}::test_the_published_loop_in_batches"
SLOW = f"{TESTS}::test_a_slow_fall_does_not_count_as_standing_still"
START = f"{TESTS}::test_the_paper_attack_starts_where_the_paper_does"
CAPTUM = f"{TESTS}::test_sign_pgd_is_captums"
STRONG = f"{TESTS}::test_sign_attack_is_the_best_of_its_restarts_and_beats_the_others"
SEED = f"{TESTS}::test_attacks_depend_on_the_seed_alone"
ZERO = f"{TESTS}::test_at_radius_zero_the_gap_is_exactly_zero"
BY_HAND = f"{TESTS}::test_the_gap_of_copies_by_hand"
PURIFIED = f"{TESTS}::test_purified_codes_in_closed_form"
JACOBIAN = f"{TESTS}::test_jacobian_of_a_linear_encoder"
LIPSCHITZ = f"{TESTS}::test_local_lipschitz_of_one_linear_dimension"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "evaluation/similarity.py": [
        ("return 0.5 * (x + 1)", "return 0.5 * x + 1", "where 0 lies", UNITS),
        ("_blur(x * y, taps) - m_x * m_y", "_blur(x * y, taps)", "the covariance", LOOPS),
        ("(2 * c_xy + C2)", "(c_xy + C2)", "a factor 2 of the covariance", LOOPS),
        ("- size // 2", "- (size - 1) / 2", "the published window is off its middle", KUZINA),
        ("last_power=4", "last_power=1", "the published power of the last factor", KUZINA),
        ("if m < len(WEIGHTS) else 1.0", "if m > len(WEIGHTS) else 1.0", "weights add up to one", STANDARD),
        ("1 - (x - y).abs()", "1 + (x - y).abs()", "a sign", PIXELS),
    ],
    "evaluation/attack.py": [
        ("0.5 * p.kl(q) + 0.5", "0.5 * p.kl(q) + 1.0", "a factor 1/2", SKL),
        ("e + like(rate, u) * gradient", "e - like(rate, u) * gradient", "it climbs down", PUBLISHED),
        ("torch.where(better, value, best)", "torch.maximum(value, best)", "the best is the last better one", SLOW),
        ("0.5 * rate, rate)", "0.25 * rate, rate)", "the factor of the rate", PUBLISHED),
        ("0.2 * noise", "noise", "the published start", START),
        ("2.5 * radius / steps", "2.0 * radius / steps", "the step of Madry et al.", CAPTUM),
        (
            "torch.where(like(value > best, u), here, found), torch.maximum(value, best)\n        here",
            "here, value\n        here",
            "the best iterate",
            CAPTUM,
        ),
        ("attack.reached.argmax(1)", "attack.reached.argmin(1)", "the worst restart", STRONG),
        ("first * restarts, rows)", "first, rows)", "starts depend on the batch", SEED),
    ],
    "evaluation/robustness.py": [
        (
            'mean["input"] - mean["reconstruction"]',
            'mean["reconstruction"] - mean["input"]',
            "the sign of the gap",
            BY_HAND,
        ),
        ("noise_from(seed_from(seed, 1), first, q.mean))", "None)", "the common noise", ZERO),
        ("alpha_ratio(gamma_0, gamma_t) * z_0", "alpha_ratio(gamma_t, gamma_0) * z_0", "alpha_{t|0}", PURIFIED),
        ("bridge_variance(gamma_0, gamma_t).sqrt()", "bridge_variance(gamma_0, gamma_t)", "a root", PURIFIED),
        ("z_0 = (z - shift) / scale", "z_0 = (z + shift) / scale", "standardised codes", PURIFIED),
        ("/ math.sqrt(count)", "/ count", "the mean over probes", JACOBIAN),
        ("q.var.detach().flatten(1).sqrt()", "q.var.detach().flatten(1)", "std, not variance", JACOBIAN),
        ("squares(to_unit(x_a), to_unit(x_r))", "squares(x_a, x_r)", "pixels in [0, 1]", LIPSCHITZ),
    ],
}
