"""Small mistakes in designing sequences and in what judges them, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

DESIGNS = "test_designs.py"
FIGURES = "test_sequence_figures.py"

UNIT = f"{DESIGNS}::test_an_ensemble_learns_known_functions_in_their_unit"
BEST_LOOK = f"{DESIGNS}::test_members_end_on_their_best_look_and_are_fitted_again"
GOALS = f"{DESIGNS}::test_goals_and_what_is_better"
OBJECTIVE = f"{DESIGNS}::test_the_objective_by_hand"
ASCENT = f"{DESIGNS}::test_ascent_reaches_the_maximum"
STEP = f"{DESIGNS}::test_one_step_of_ascent_is_as_long_as_it_says"
HILL = f"{DESIGNS}::test_a_hill_is_climbed_to_the_best_neighbour_and_never_down"
CHAIN = f"{DESIGNS}::test_the_chain_has_its_stationary_law_and_returns_its_best"
LINEAR = f"{DESIGNS}::test_a_linear_wish_moves_a_standard_normal_by_its_slope"
DENOISER = f"{DESIGNS}::test_the_denoiser_of_a_mixture_is_exact_and_its_unit_its_own"
ENDS = f"{DESIGNS}::test_no_end_before_a_residue_that_must_be"
MIXTURE = f"{DESIGNS}::test_a_mixture_keeps_its_mean_and_covariance_in_any_unit"
LED = f"{DESIGNS}::test_a_diffusion_is_led_like_the_gaussian_it_is_also_in_another_unit"
DECODED = f"{DESIGNS}::test_decoding_finds_the_most_likely_allowed_sequence"
REPAIR = f"{DESIGNS}::test_repair_gives_allowed_sequences_and_leaves_them_alone"
EVENLY = f"{DESIGNS}::test_symbols_are_drawn_evenly_among_the_allowed_ones"
FREE = f"{DESIGNS}::test_evolution_mutates_one_free_position_of_a_child"
EVOLUTION = f"{DESIGNS}::test_evolution_finds_the_best_of_an_additive_landscape"
COUNTED = f"{DESIGNS}::test_positions_are_counted_as_biologists_do"
UNITS = f"{DESIGNS}::test_the_leash_counts_in_what_training_examples_differ_by"
HELD = f"{DESIGNS}::test_models_without_codes_are_held_back_by_their_own_bound"
PARENT = f"{DESIGNS}::test_starts_are_around_a_parent_and_changes_those_that_are_worth_most"
CLIMB = f"{DESIGNS}::test_the_best_new_sequence_of_each_climb_counts"
AGAINST = f"{DESIGNS}::test_what_speaks_against_a_list_is_said"
RANKED = f"{DESIGNS}::test_designs_are_new_distinct_ranked_and_better_than_chance"
EDITS = f"{FIGURES}::test_edits_against_a_plain_table"
NEAREST = f"{FIGURES}::test_the_nearest_against_brute_force"
FREQUENCIES = f"{FIGURES}::test_errors_of_frequencies_against_brute_force"
ORACLE = f"{FIGURES}::test_the_oracle_sees_neither_training_sequences_nor_what_it_is_scored_on"
TRUTH = f"{FIGURES}::test_a_model_that_is_the_truth_ranks_by_it"
SMOOTH = f"{FIGURES}::test_smoothness_of_labels_at_its_limits"
ONE = f"{FIGURES}::test_one_substitution_is_the_best_of_all"
PREFERRED = f"{FIGURES}::test_candidates_are_those_that_the_gradient_prefers"
GAP = f"{FIGURES}::test_the_gap_is_nothing_without_substitutions_and_the_divergence_grows"
STEPS = "test_few_examples.py::test_few_examples_take_few_steps[20-256-4]"

PAIRED = "test_paired.py"
SAME = f"{PAIRED}::test_within_a_pass_all_rows_meet_the_same_noise_and_times_of_one_cell"
OPPOSITE = f"{PAIRED}::test_two_passes_of_a_cell_have_opposite_noise_and_the_next_cell_other"
EVERY_TIME = f"{PAIRED}::test_every_time_is_as_likely_over_passes_and_seeds"

LESS = "test_training_data.py::test_the_encoder_sees_a_share_of_the_values_less_and_only_while_it_trains"
CORRUPTED = "test_sequence_models.py::test_corruption_of_symbols_spares_the_ends"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "draws.py": [
        ("device=x.device) < share", "device=x.device) >= share", "what is hidden is what stays", LESS),
        ("away & (x != 0)", "away", "ends are hidden", CORRUPTED),
        ("torch.randint_like(x, 1, symbols)", "torch.randint_like(x, 0, symbols)", "symbols become ends", CORRUPTED),
        ("return -e if now.opposite else e", "return e", "the same noise twice", OPPOSITE),
        ("return 1 - u if now.opposite else u", "return -u if now.opposite else u", "noise outside [0, 1)", OPPOSITE),
        ("passes // share, bool", "passes, bool", "late times never come", EVERY_TIME),
        ("share = 1 if passes % 2 else 2", "share = 2", "a lone pass counts half", EVERY_TIME),
        ("e = torch.randn((1, *shape[1:])", "e = torch.randn(shape", "noise of its own for each row", SAME),
    ],
    "latent/predict.py": [
        ("PASSES * len(y) / batch", "PASSES * len(y)", "steps for examples", STEPS),
        ("self.center + self.unit *", "self.center + 2 * self.unit *", "the property's unit", UNIT),
        ("if e < b[0] else b", "if e < 1e9 else b", "the last weights, not the best", BEST_LOOK),
    ],
    "latent/optimize.py": [
        ("-0.5 * (f - (self.target", "0.5 * (f - (self.target", "away from the target", GOALS),
        ("found - self.caution", "found + self.caution", "uncertainty attracts", OBJECTIVE),
        ("found - self.leash", "found + self.leash", "the leash pushes", OBJECTIVE),
        ("objective.slope(z + scale * moved", "objective.slope(z + moved", "the slope elsewhere", ASCENT),
        ("return (z + scale * moved)", "return (z + moved)", "steps in units of the codes at the end", STEP),
        ("z + share * (target - z)", "z - share * (target - z)", "away from the neighbour", HILL),
        ("(after - now) / temperature", "(after - now) * temperature", "the temperature", CHAIN),
        ("scale * wanted(unit.back(z))", "scale * wanted(z)", "guided in another unit", LED),
        ("< mutations / free", "< mutations / length", "fixed positions are mutated too", FREE),
        ("x, height = both[order]", "x, height = child[: len(order)]", "all children survive", EVOLUTION),
    ],
    "latent/guidance.py": [
        ("sigma2(gamma) / alpha(gamma) * slope", "sigma2(gamma) * slope", "the size of guidance", LINEAR),
        ("a**2 * lam + s2", "a * lam + s2", "the variance at a noise level", DENOISER),
        ("+ (prior.roots**2).sum(2)", "", "the variance within components", DENOISER),
        ("u * self.width + self.center", "u + self.center", "codes in another unit", LED),
    ],
    "latent/constraints.py": [
        ("rank[..., None]).sum(-1)", "rank[..., None] + 1).sum(-1)", "the next one", EVENLY),
        ("self._kept(gain > 0, -gain)", "self._kept(gain > 0, gain)", "the least gain first", DECODED),
        (".logsumexp(2).cumsum(1)", ".logsumexp(2)", "lengths by one position", DECODED),
        (".flip(0).long().cumprod(0).flip(0)", ".long().cumprod(0)", "ends before residues that must be", ENDS),
    ],
    "optimizing.py": [
        ("{site + 1: i", "{site: i", "positions count from 0", COUNTED),
    ],
    "designing.py": [
        ("- self.settings.caution * std", "+ self.settings.caution * std", "the uncertain first", RANKED),
        ("found - self.settings.leash", "found + self.settings.leash", "a leash that pushes", HELD),
        ("energy(x) / spread", "energy(x)", "the leash counts nats", UNITS),
        ("NEAR * self.codes.std(0) * noise", "self.codes.std(0) * noise", "starts far from the parent", PARENT),
        ("gain.max(1)", "gain.min(1)", "the changes that are worth least", PARENT),
        ("self.worth(tried) - now[row]", "now[row] - self.worth(tried)", "the sign of a gain", PARENT),
        ("worth.reshape(len(rows), -1).argmax(0)", "worth.reshape(len(rows), -1).argmin(0)", "the worst", CLIMB),
        ("1e6 * (~self.fresh(together))", "0 * (~self.fresh(together))", "known ones count like new ones", CLIMB),
        ("features[scoring], held[1][scoring]", "of_sequences, self.y", "judged by what it was fitted to", AGAINST),
    ],
    "evaluation/sequence_distances.py": [
        ("(references != query[i])", "(references == query[i])", "what agrees costs", EDITS),
        ("np.flatnonzero(least < sub", "np.flatnonzero(least + 2 < sub", "near ones are not aligned", NEAREST),
    ],
    "evaluation/sequences.py": [
        ("(centred.T @ centred / len(x))", "(flat.T @ flat / len(x))", "covariances are not centred", FREQUENCIES),
        (
            "split = data.test.subset(fresh & ",
            "split = data.test.subset(",
            "the oracle learns training sequences",
            ORACLE,
        ),
        ("score = -torch.cat(each)", "score = torch.cat(each)", "the sign of the score", TRUTH),
    ],
    "evaluation/audit_sequences.py": [("/ (2 * y.var()", "/ (y.var()", "a factor of the smoothness", SMOOTH)],
    "evaluation/sequence_attack.py": [
        ("+ jacobian - own", "+ jacobian + own", "what is taken away", PREFERRED),
        ("(predicted**2 / variance", "(predicted**2 * variance", "the posterior's unit", PREFERRED),
        ("distance.argmax(1)", "distance.argmin(1)", "the weakest substitution", ONE),
        ("before - after, before", "after - before, before", "the gap's sign", GAP),
    ],
}
