"""Small mistakes in training with stacked weights, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

STACKED = "test_stacked.py"

ALONE = f"{STACKED}::test_members_are_the_trainings_they_would_be_by_themselves"
PACE = f"{STACKED}::test_a_part_with_its_own_pace_is_a_group_of_its_own"
NAN = f"{STACKED}::test_a_member_that_meets_nan_stops_alone"
BUFFERS = f"{STACKED}::test_a_member_that_stops_keeps_the_buffers_from_before"
LOG = f"{STACKED}::test_log_holds_means_of_steps_for_each_member"
NOISE = f"{STACKED}::test_noise_differs_between_members_and_is_reproducible"
OWN = f"{STACKED}::test_members_may_have_data_and_augmentation_of_their_own"
BEST = f"{STACKED}::test_the_best_look_is_kept"
MEAN = f"{STACKED}::test_settings_are_compared_by_what_they_mean"
BF16 = f"{STACKED}::test_bf16_is_near_fp32_and_weights_stay_fp32"

TOGETHER = "test_together.py"
STUDY = f"{TOGETHER}::test_a_study_trained_together_has_the_runs_and_records_of_any_other"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "training/stacked.py": [
        ("total(terms).mean(), {", "total(terms).sum(), {", "the loss is a sum over the batch", f"{ALONE}[clipped]"),
        (
            "(config.clip / (norm + 1e-6))",
            "(config.clip / (norm.sum() + 1e-6))",
            "members share a norm",
            f"{ALONE}[clipped]",
        ),
        (
            ".clamp(max=1.0) if config.clip",
            ".clamp(min=1.0) if config.clip",
            "short gradients grow",
            f"{ALONE}[clipped]",
        ),
        ("for g in gradients]).norm(dim=0)", "for g in gradients]).sum(0)", "norms are added", f"{ALONE}[clipped]"),
        (
            "norms = [_norm([gradients[name] for name in group]) for group in self.groups]",
            "norms = [_norm(list(gradients.values())) for group in self.groups]",
            "groups share a norm",
            PACE,
        ),
        ('"lr": factor * config.learning_rate', '"lr": config.learning_rate', "a part's own pace is lost", PACE),
        (
            "(part[k] for part in others), v) / len(parts)",
            "(part[k] for part in others), v)",
            "micro-batches are added",
            f"{ALONE}[accumulated]",
        ),
        ("(step + 1) * every)", "step * every + 1)", "one micro-batch alone", f"{ALONE}[accumulated]"),
        (
            "min(config.ema, (1 + step)",
            "min(config.ema, (2 + step)",
            "the ramp begins a step late",
            f"{ALONE}[averaged]",
        ),
        ("1 - min(config.ema,", "min(config.ema,", "averages follow the wrong weight", f"{ALONE}[averaged]"),
        (
            "betas=config.betas, weight_decay=config.weight_decay",
            "betas=config.betas, weight_decay=0.0",
            "no weight decay",
            f"{ALONE}[decayed]",
        ),
        ("warmup = min(config.warmup_steps, config.steps // 10)", "warmup = 0", "no warm-up", f"{ALONE}[plain]"),
        ("seed=seed_from(own.seed, 0)", "seed=seed_from(0, 0)", "one order for all members", f"{ALONE}[plain]"),
        (
            "here, every = self.config, step / self.config.steps",
            "here, every = self.config, 1 + step / self.config.steps",
            "progress",
            f"{ALONE}[plain]",
        ),
        (
            "[p[m] for p in ends]",
            "[p[0] for p in ends]",
            "all get the first member's weights",
            f"{ALONE}[plain]",
        ),
        ("self.frozen.get(m) or [p[m]", "[p[m]", "a stopped member drifts on", f"{NAN}[value]"),
        (
            "stack([*means.values(), *norms])",
            "stack([*means.values()])",
            "gradients are not looked at",
            f"{NAN}[gradient]",
        ),
        (
            "isfinite().all(0)\n",
            "isfinite().all(0).all().expand(len(norms[0]))\n",
            "all stop together",
            f"{NAN}[value]",
        ),
        (
            "{name: self.fixed[name].clone() for",
            "{name: self.fixed[name] for",
            "buffers from after it stopped",
            BUFFERS,
        ),
        (
            "*(self.fixed[name] for name in self.moving)]",
            "*(self.fixed[name][:1].expand_as(self.fixed[name]) for name in self.moving)]",
            "all get the first member's moments",
            f"{STACKED}::test_members_with_batchnorm_have_running_moments_of_their_own",
        ),
        ('randomness="different"', 'randomness="same"', "members share their noise", NOISE),
        ("if k == j]) for j in alike}", "if k != j]) for j in alike}", "augmentations are mixed up", OWN),
        ("recent.clear()", "recent.copy()", "means over the whole training", LOG),
        ("self.configs[m].seed, 0, 2**42)", "self.configs[m].seed, 0, 2**41)", "other noise at looks", BEST),
        ("*(c.cell_contents for c in f.__closure__ or ())", "*()", "what functions hold is not compared", MEAN),
        ('precision_of(self.config) == "bf16")', "False)", "no autocast", BF16),
    ],
    "studies/together.py": [
        (
            '"pool": PoolConfig()}',
            '"pool": config.pool}',
            "pools are trained apart",
            f"{TOGETHER}::test_together_are_runs_of_one_model_recipe_and_data",
        ),
        ("values[m] for name", "values[0] for name", "all have the first member's log", STUDY),
        ("t / len(sessions)", "t", "each member cost what all did", f"{TOGETHER}::test_seconds_are_a_member_s_share"),
        (
            "if m in done.stopped:",
            "if False:",
            "what stopped is kept",
            f"{TOGETHER}::test_a_member_that_stopped_leaves_nothing",
        ),
        (
            "done.kept[m]",
            "done.kept[0]",
            "the first one's look",
            f"{TOGETHER}::test_the_best_look_is_at_validation_examples",
        ),
    ],
}
"""File -> changes."""
