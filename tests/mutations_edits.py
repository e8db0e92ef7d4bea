"""Small mistakes in editing by attributes and in its figures, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

EDITS = "test_edits.py"

APART = f"{EDITS}::test_attributes_that_go_together_are_told_apart"
ONE = f"{EDITS}::test_one_attribute_is_the_difference_of_two_means_and_several_add_up"
MISSING = f"{EDITS}::test_examples_without_a_label_do_not_count"
BAYES = f"{EDITS}::test_a_wish_of_two_gaussian_classes_is_bayes_rule"
FITTED = f"{EDITS}::test_a_fitted_classifier_is_where_the_penalised_likelihood_is_flat"
CLOSED = f"{EDITS}::test_one_linear_energy_against_its_closed_form"
END = f"{EDITS}::test_of_the_way_along_energies_only_the_end_is_kept"
WALK = f"{EDITS}::test_several_energies_against_a_fine_walk_along_the_schedule"
LED = f"{EDITS}::test_a_gaussian_diffusion_leads_a_code_as_its_closed_form"
UNIT = f"{EDITS}::test_a_standardised_diffusion_leads_in_the_codes_own_unit"
MIXTURE = f"{EDITS}::test_a_mixture_leads_in_units_of_its_own"
FAR = f"{EDITS}::test_two_far_components_keep_a_code_in_its_own_where_little_noise_is_added_and_let_it_go_where_much_is"
AWAY = f"{EDITS}::test_of_two_classes_taking_one_away_gives_the_other"
KNOWN = f"{EDITS}::test_further_strengths_take_the_way_through_noise_that_is_known_and_give_the_same"
CHANGED = f"{EDITS}::test_a_prior_that_changes_takes_no_way_of_its_former_self"
SETS = f"{EDITS}::test_columns_come_from_the_first_data_set_that_has_them"
LABELS = f"{EDITS}::test_labels_that_are_missing_name_no_class"
FIGURES = "test_edit_figures.py::test_figures_of_edited_texts_by_hand"
SEVERAL = "test_edit_figures.py::test_several_directions_are_told_once_and_count_by_their_texts"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "latent/edit.py": [
        ("effect[own][0] - others", "effect[own][0] + others", "the sign of the others", ONE),
        ("others = table.sum(0) * ~own", "others = 1.0 * ~own", "classes weigh alike", APART),
        ("others = table.sum(0) * ~own", "others = table.sum(0)", "the class itself among the others", ONE),
        ("start += len(v)", "start += 1", "the effects of the next column", APART),
        ("return labels >= 0, labels", "return labels >= -1, labels", "examples without a label count", MISSING),
        ("np.sum([d.vector for d in directions], 0)", "np.mean([d.vector for d in directions], 0)", "a mean", LABELS),
        ("min(d.score", "max(d.score", "the best score for all", LABELS),
    ],
    "latent/attributes.py": [
        ("(BETA[0] + BETA[1]) / 4", "(BETA[0] + BETA[1]) / 2", "the half before beta", CLOSED),
        ("t_eval=[end], ", "", "all steps are kept", END),
        ("(z - self.mean.to(z)) /", "(z + self.mean.to(z)) /", "the centre of codes", BAYES),
        (".logsumexp(1) - logits", ".logsumexp(1) + logits", "the sign of the normaliser", BAYES),
        (".softmax(1) - logits.softmax(1)", ".softmax(1)", "the slope of the normaliser", BAYES),
        ("weight.to(z) / classifier", "weight.to(z) * classifier", "the unit of the slope", BAYES),
        ("k) ^ self.away", "k)", "away is towards", BAYES),
        ("C=1 / (DECAY * len(labels))", "C=1 / DECAY", "a penalty that depends on the number of codes", FITTED),
        ("DECAY = 0.01", "DECAY = 0.02", "the penalty", FITTED),
        ("np.sqrt(((codes - mean) ** 2).mean())", "((codes - mean) ** 2).mean()", "a variance for a scale", FITTED),
        ("[0 * weight, weight]", "[weight, 0 * weight]", "two classes change places", FITTED),
        ("end = strength * CLOCK", "end = CLOCK", "the strength along energies", CLOSED),
        ("t_eval=[end]", "t_eval=[0.0]", "the start in place of the end", WALK),
        ("strength * wish(unit.back(u))", "wish(unit.back(u))", "the strength", LED),
        ("heun(led, noisy, up.flip(0)) - back", "heun(led, noisy, up.flip(0)) + back", "the sign", LED),
        ("torch.linspace(0, depth, steps", "torch.linspace(0, 1, steps", "all the noise", LED),
        (" - back) * unit.width", " - back)", "back in another unit", UNIT),
        ("(z - unit.center) / unit.width, up)", "z, up)", "there in another unit", FAR),
        ("wish(unit.back(u))", "wish(u)", "guided in another unit", UNIT),
        ("_unled(self.prior, z, DEPTH if", "_unled(self.prior, -z, DEPTH if", "another code's way", KNOWN),
        (
            "{hashlib.sha256(np.ascontiguousarray(codes).tobytes()).hexdigest()}",
            "codes",
            "the way of the first codes",
            KNOWN,
        ),
        ("{identity_of(self.prior)}", "prior", "the way under former weights", CHANGED),
        ("Wish(self.goals, strength < 0)", "Wish(self.goals)", "a negative strength is a positive one", AWAY),
    ],
    "latent/guidance.py": [
        (
            "return Unit(*_denoiser(inner), center, width)",
            "return Unit(*_denoiser(prior))",
            "noise of another size",
            MIXTURE,
        ),
    ],
    "arguments.py": [
        ("for i in reversed(range(len(data)))", "for i in range(len(data))", "the last set that has a column", SETS),
    ],
    "evaluation/edits.py": [
        ("np.all(list(has.values()), 0)", "np.any(list(has.values()), 0)", "one attribute is enough", FIGURES),
        ("column, judges) == name", "column, judges) != name", "the share that was not edited", FIGURES),
        ("math.sqrt(p * (1 - p) / n)", "math.sqrt(p * (1 - p)) / n", "the standard error", FIGURES),
        ("bleu(after, before)", "bleu(after, after)", "content against itself", FIGURES),
        ("bleu(after, references)", "bleu(before, references)", "the texts before the edit", FIGURES),
        ("perplexity(after)", "perplexity(before + after)", "other texts", FIGURES),
        (
            "(task.texts, edited, judges, task.wanted)",
            "(task.texts, edited, judges, tasks[0].wanted)",
            "one way",
            SEVERAL,
        ),
    ],
}
