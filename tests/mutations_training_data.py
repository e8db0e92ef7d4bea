"""Small mistakes in what a model is trained on, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

AUGMENT = "test_augment.py"
DATA = "test_training_data.py"
CLOSED = "test_closed_form.py"

QUARTER = f"{AUGMENT}::test_a_quarter_turn_is_a_quarter_turn"
SHIFT = f"{AUGMENT}::test_a_shift_is_a_roll_with_what_comes_in_from_outside"
RAMP = f"{AUGMENT}::test_twice_the_size_stretches_a_ramp"
OFTEN = f"{AUGMENT}::test_every_change_is_drawn_with_its_probability_independently"
HALF = f"{AUGMENT}::test_a_flip_that_is_always_drawn_turns_half_of_the_images"
RANGES = f"{AUGMENT}::test_strengths_fill_their_ranges_on_both_sides"
STRETCH = f"{AUGMENT}::test_a_stretch_is_along_any_axis_where_it_is_turned"
HUE = f"{AUGMENT}::test_hue_turns_red_into_green_and_leaves_grey"
GREYS = f"{AUGMENT}::test_saturation_scales_the_distance_from_grey_and_contrast_that_from_the_middle"
ORDER = f"{AUGMENT}::test_changes_act_in_the_published_order"
MEASURE = f"{AUGMENT}::test_augmented_data_keep_their_measure"
MOMENTS = f"{CLOSED}::test_moments_of_batches_are_those_of_all_rows"
WHOLE = f"{CLOSED}::test_a_fit_sees_all_examples_once_and_a_preparation_some"
SHARED = f"{CLOSED}::test_a_mixture_is_fitted_at_its_share_and_drawn_examples_are_few"
FLOOR = f"{DATA}::test_example_i_is_real_where_the_floor_rises"
STREAMS = f"{DATA}::test_each_of_two_streams_goes_through_its_own_epochs_in_its_own_order"
EPOCHS = f"{DATA}::test_steps_of_epochs_are_rounded_up"
POOLS = f"{DATA}::test_what_a_run_is_trained_on"
SCHEDULE = f"{DATA}::test_the_noise_falls_as_published"
MOLLIFIED = f"{DATA}::test_mollified_data_have_their_measure_and_end_clean"
LESS = f"{DATA}::test_the_encoder_sees_a_share_of_the_values_less_and_only_while_it_trains"
NOISY = f"{DATA}::test_noise_is_on_the_encoders_input_alone_and_only_while_it_trains"
DROPOUT = f"{DATA}::test_dropout_is_in_the_hidden_layers_and_off_in_evaluation"
ENTROPY = f"{DATA}::test_asleep_the_loss_is_the_models_own_entropy_whatever_it_is_shown"
BOUND = f"{DATA}::test_asleep_the_bound_is_trained_whatever_the_weights"
SHARES = f"{DATA}::test_shares_of_the_stages"
LOOK = f"{DATA}::test_a_look_draws_every_example_equally_often"
LOWEST = f"{DATA}::test_the_lowest_look_is_kept_and_the_first_of_equal_ones"
CONSTANT = f"{DATA}::test_a_constant_learning_rate_stays"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "training/augment.py": [
        ("[[c, -s, zero], [s, c, zero]", "[[c, s, zero], [-s, c, zero]", "the sense of a turn", QUARTER),
        ("torch.linalg.inv(g.to(x.dtype))", "g.to(x.dtype)", "G in place of its inverse", SHIFT),
        ("(s - 1) / 2 for s in (h, w)", "s / 2 for s in (h, w)", "the centre of the image", RAMP),
        ("grid_sample(x + 1,", "grid_sample(x,", "what comes in is grey", SHIFT),
        ("        g = step @ g", "        g = g @ step", "the order of the changes", ORDER),
        ("self.rand() < self.probability", "self.rand() < self.probability**2", "how often a change is drawn", OFTEN),
        ("(drawn & (self.rand() < 0.5))", "drawn", "no coin", HALF),
        ("w = (2 * self.rand() - 1) * (largest", "w = self.rand() * (largest", "one sign alone", RANGES),
        ("self.rand() * (2 * largest + 1)) - largest", "self.rand() * 2 * largest) - largest", "the last pixel", RANGES),
        ("draw.uniform(v.rotation) * (math.pi / 180)", "draw.uniform(v.rotation)", "degrees and radians", RANGES),
        ("scaling(wide, 1 / wide)", "scaling(wide, wide)", "an area that is kept", RANGES),
        ("rotation(axis) @ scaling", "rotation(-axis) @ scaling", "the axis of a stretch", STRETCH),
        ("< (v.stretch_turned or 0)", "> (v.stretch_turned or 0)", "how often a stretch is turned", STRETCH),
        ("+ (1 - angle.cos()) * (grey", "- (1 - angle.cos()) * (grey", "Rodrigues' second term", HUE),
        ("angle.sin() * k", "-angle.sin() * k", "the sense of hue", HUE),
        ("(torch.exp2(saturation) - 1) * (colour - grey)", "(torch.exp2(saturation) - 1) * colour", "grey moves", GREYS),
        ("matrix.sum(2).mean(1)", "matrix.mean(2).mean(1)", "grey as three channels", GREYS),
    ],
    "training/inputs.py": [
        ("math.sqrt(1 - std**2) * x", "x", "the variance is not preserved", SCHEDULE),
        ("sigma * math.sqrt(", "sigma * (", "a variance for a deviation", SCHEDULE),
        ("min(progress / SHARE, 1.0)", "min(progress, 1.0)", "noise to the end", SCHEDULE),
        ("math.exp(-END * at / TEMPERATURE)", "math.exp(-END * at)", "the temperature of the schedule", SCHEDULE),
        ("(unit.clamp(0, 1) * gaps).round()", "(unit.clamp(0, 1) * gaps)", "values off the grid", MEASURE),
        ("(x + std * torch", "(x + std**2 * torch", "variance and deviation on the input", NOISY),
        ("if not module.training", "if not std", "noise in evaluation", NOISY),
        ("len(spec.symbols) if spec.sequential else 0", "0", "symbols are hidden as numbers are", LESS),
        ("to_space(unit * (spec.high", "to_space(x * (spec.high", "[-1, 1] is taken for [0, 1]", MOLLIFIED),
    ],
    "models/trivial.py": [
        ("(second - n * square)", "second", "the variance about the first batch's mean", MOMENTS),
        ("return about + shift", "return shift", "the first batch's mean is forgotten", MOMENTS),
    ],
    "training/data.py": [
        ("drawn / (1 - self.share)", "drawn / self.share", "more synthetic examples than there are", SHARED),
        ("diff() > 0", "diff() < 1", "real and synthetic change places", FLOOR),
        ("self.synthetic.take(first - before,", "self.synthetic.take(first,", "synthetic ones are skipped", STREAMS),
        ("math.ceil(Fraction(str(epochs)) * examples / batch)", "int(epochs * examples / batch)", "the last step", EPOCHS),
    ],
    "training/half_asleep.py": [
        ("x = self.model.sample(len(q))", "x = q", "real examples in place of samples", ENTROPY),
        ("return self.model.terms(x, exact=True)\n", "return self.model.terms(x, progress=progress)\n", "weights", BOUND),
        ("config.half_asleep / (1 - config.half_asleep)", "config.half_asleep", "the share of the last stage", SHARES),
    ],
    "training/best.py": [
        ("if bound < self.bound:", "if bound > self.bound:", "the worst look", LOWEST),
        ("math.ceil(DRAWS / len(raw))", "1", "too few draws", LOOK),
        ("total / (repeats * len(raw))", "total / len(raw)", "a sum for a mean", LOOK),
    ],
    "training/stages.py": [
        ('if schedule == "constant":', "if False:", "a constant learning rate falls", CONSTANT),
        ("for raw in source.all())", "for raw in [source.some(1000)])", "a fit sees a few", WHOLE),
    ],
    "nn/blocks.py": [("nn.Dropout(share)", "nn.Dropout(1 - share)", "what is dropped is what stays", DROPOUT)],
    "pools.py": [
        ("return samples.values[:wanted]", "return samples.values[-wanted:]", "which folds", POOLS),
        ("pool.folds * len(data.train)", "pool.folds * len(data.test)", "the size of a fold", POOLS),
    ],
}  # fmt: skip
