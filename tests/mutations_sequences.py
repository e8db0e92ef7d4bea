"""Small mistakes in the models of sequences and in what learns properties, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

SEQUENCES = "test_sequences.py"
MODELS = "test_sequence_models.py"
PROPERTIES = "test_properties.py"

SUM = f"{SEQUENCES}::test_probabilities_of_all_sequences_add_up_to_one"
AFTER = f"{SEQUENCES}::test_what_follows_the_end_costs_nothing"
ENTROPY = f"{SEQUENCES}::test_entropy_is_that_of_the_enumeration"
MODE = f"{SEQUENCES}::test_the_mode_is_the_most_likely_sequence_of_the_most_likely_length"
PICK = f"{SEQUENCES}::test_a_symbol_is_picked_by_the_distribution_function"
IGNORES = f"{SEQUENCES}::test_a_transformer_ignores_what_follows_the_end"
CAUSAL = f"{SEQUENCES}::test_a_causal_transformer_sees_only_what_comes_before"
FORCED = f"{SEQUENCES}::test_drawing_with_kept_keys_is_teacher_forcing_step_by_step"
FILLING = "test_closed_form.py::test_symbols_are_counted_with_and_without_the_filling"
PROFILE = f"{MODELS}::test_a_profile_has_the_frequencies_among_the_positions_that_are_reached"
ENERGY = f"{MODELS}::test_energies_are_those_of_fields_and_pairs"
COUNTED = f"{MODELS}::test_log_z_entropy_and_the_best_rows_are_counted"
CONDITIONALS = f"{MODELS}::test_logits_are_the_exact_conditionals"
BEGINS = f"{MODELS}::test_a_potts_model_begins_as_a_profile_and_decays_towards_it"
PSEUDO = f"{MODELS}::test_pseudo_likelihood_and_decay_by_hand"
EXACT = f"{MODELS}::test_exact_draws_have_their_probabilities"
GIBBS = f"{MODELS}::test_gibbs_draws_have_the_marginals_of_singles_and_pairs"
BOUND = f"{MODELS}::test_the_bound_of_exact_conditionals_is_minus_log_p"
HIDDEN = f"{MODELS}::test_every_number_of_symbols_and_every_place_is_hidden_equally_often"
JOINT = f"{MODELS}::test_one_position_at_a_time_draws_from_the_joint_and_all_at_once_do_not"
KEPT = f"{MODELS}::test_what_is_given_is_kept_and_the_rest_is_drawn_given_it"
NO_END = f"{MODELS}::test_no_end_is_drawn_before_a_symbol_that_is_kept"
GUIDED = f"{MODELS}::test_steps_of_guidance_by_hand"
STANDARD = f"{PROPERTIES}::test_real_columns_are_standardised_by_those_that_are_known"
ERRORS = f"{PROPERTIES}::test_errors_by_hand"
UNIT = f"{PROPERTIES}::test_predictions_are_in_the_unit_of_the_column"
TRAINS = f"{PROPERTIES}::test_properties_train_the_encoder_and_are_no_part_of_the_bound"
RELSO = f"{PROPERTIES}::test_terms_of_relso_by_hand"
OUTSIDE = f"{PROPERTIES}::test_points_outside_are_as_far_as_they_say_and_different"
BELONG = f"{PROPERTIES}::test_labels_belong_to_their_examples"
HANDED = f"{PROPERTIES}::test_a_session_hands_the_labels_over"
TENTH = f"{PROPERTIES}::test_the_weight_of_the_rate_is_a_tenth_for_sequences"

READS = "test_sequence_models.py::test_a_head_reads_what_a_language_model_knows_of_the_whole_sequence"
SINGLE = f"{SEQUENCES}::test_attention_on_a_processor_is_in_single_precision"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "sequences.py": [
        ("position <= lengths(x)", "position < lengths(x)", "the end is free", SUM),
        ("torch.where(scored(x), each, torch.zeros_like(each))", "each", "the filling costs", AFTER),
        ("+ F.pad(end, (0, 1))", "+ 0 * F.pad(end, (0, 1))", "the mode's end is free", MODE),
        ("reached * -(log_p.exp()", "-(log_p.exp()", "entropy of positions that are not reached", ENTROPY),
        (".clamp(max=1 - 1e-7)).cumsum(1)", ".clamp(max=1 - 1e-7))", "reached is one step back only", ENTROPY),
        ("> edges).sum(-1)", "< edges).sum(-1)", "draws go backwards", PICK),
    ],
    "nn/sequence.py": [
        ("h = block(h, mask)", "h = block(h)", "attention sees the filling", IGNORES),
        ('.masked_fill(~mask[..., None], float("-inf"))', "", "the mean is over the filling too", IGNORES),
        ("causal=causal and memory is None", "causal=False", "a position sees what comes after it", CAUSAL),
        ("is_causal=causal)", "is_causal=False)", "attention looks ahead", CAUSAL),
        ("q, k, v = q.float(), k.float(), v.float()", "pass", "attention in half precision", SINGLE),
        ("k[:, :, 0], v[:, :, 0]", "k[:, :, 0], k[:, :, 0]", "keys are kept as values", FORCED),
    ],
    "models/exact_sequences.py": [
        ("self.logits, filling=False", "self.logits, filling=True", "the filling is counted", PROFILE),
        ("symbols,), 0.5, dtype", "symbols,), 1.0, dtype", "what is added to counts", PROFILE),
        ("states[:, :-1][kept]", "states[:, 1:][kept]", "a position sees itself", READS),
        (" / weight.sum(1)", "", "the mean of states", READS),
        ("(wide(states) * weight)", "wide(states)", "the filling is read", READS),
        ("self.head.weight * error", "error", "the head's weight", READS),
        ("0.5 * (self.logits(x)", "(self.logits(x)", "pairs are counted twice", ENERGY),
        ("return -(rows", "return (rows", "the energy's sign", ENERGY),
        ("total - self.couplings", "total + self.couplings", "the sign of pairs in Z", ENERGY),
        ("whole.permute(1, 0, 3, 2)", "whole.permute(1, 0, 2, 3)", "J_ji(b, a) is not J_ij(a, b)", CONDITIONALS),
        ("self.energy(q) + self.log_p", "self.energy(q) - self.log_p", "the sign of log Z", COUNTED),
        ("return -(log_p.exp() * log_p)", "return (log_p.exp() * log_p)", "the entropy's sign", COUNTED),
        ("topk(k, largest=False)", "topk(k)", "the best are the worst", COUNTED),
        ("-sum_dims(log_p)", "sum_dims(log_p)", "the pseudo-likelihood's sign", PSEUDO),
        ("size = 0.5 * (self", "size = (self", "decay of the fields", PSEUDO),
        ("(self.fields - self.profile)", "self.fields", "the decay's centre", BEGINS),
        ("self.profile, filling=True", "self.profile, filling=False", "the filling is not counted", FILLING),
        ("(-self.energies().double()).softmax(0)", "self.energies().double().softmax(0)", "sign of draws", EXACT),
        (" - matrix[at + x[:, i]]", "", "a Gibbs step leaves the old symbol's pull", GIBBS),
    ],
    "models/token_diffusion.py": [
        ("self.length / count * sum_dims", "sum_dims", "the weight L / k", BOUND),
        ("states[hidden]), q, hidden)", "states[hidden]), q.flip(0), hidden)", "nats of others", BOUND),
        ("place < count[:, None]", "place <= count[:, None]", "one more is hidden", HIDDEN),
        ("left * (k + 1) // steps", "left", "all at once", JOINT),
        ("torch.where(free, x, given.long())", "given.long()", "nothing is drawn anew", KEPT),
        ("masked_fill(inside[now], -math.inf)", "masked_fill(inside[now], 0.0)", "an end before what is kept", NO_END),
        ("- guidance.scale * guidance", "+ guidance.scale * guidance", "guidance leads away", GUIDED),
        ("(before - after)", "(after - before)", "the divergence's sign", GUIDED),
        ("moved.mean(1)).sum()", "moved.sum(1)).sum()", "the mean of states", GUIDED),
        ("math.sqrt(2 * guidance", "math.sqrt(guidance", "a factor of the noise", GUIDED),
    ],
    "models/relso.py": [
        ("0.5 * self.norm", "self.norm", "a factor of the norm", RELSO),
        ("distances.argmin(1)", "distances.argmax(1)", "the nearest code", RELSO),
        ("(a + b) / 2", "(a + b)", "the midpoint", RELSO),
        ("left + right - ends", "left + right", "what the ends differ", RELSO),
        ("return 0.5 * (left", "return (left", "a factor of the way", RELSO),
        ("- self.floor) ** 2", "+ self.floor) ** 2", "the floor's sign", RELSO),
        ("away.norm(dim=1).max()", "away.norm(dim=1).mean()", "the farthest code", OUTSIDE),
        ("away[chosen] + 0.5 *", "0.5 *", "directions of no code", OUTSIDE),
    ],
    "models/properties.py": [
        ("std(correction=0)", "std(correction=1)", "the standard deviation", STANDARD),
        ("error = 0.5 * (target", "error = (target", "a factor 1/2 of the square", ERRORS),
        ("- self.mean[i]) / self.std[i]", "- self.mean[i])", "standard deviations", ERRORS),
        ("known = y >= 0", "known = y >= -1", "a missing class is learned", ERRORS),
        ("self.weight * error", "error", "the weight", ERRORS),
        ("out[:, 0] * self.std[i] + self.mean[i]", "out[:, 0] + self.mean[i]", "the column's unit", UNIT),
    ],
    "models/autoencoder.py": [("Batch(x, labels)", "Batch(x)", "labels do not arrive", TRAINS)],
    "training/data.py": [("seed) if self.labels", "seed + 1) if self.labels", "labels of other examples", BELONG)],
    "session.py": [("head.fit({column", "dict({column", "the head is not told the scale", HANDED)],
    "kinds.py": [("(0.1 if data.sequential", "(1.0 if data.sequential", "the rate's weight", TENTH)],
}
