"""Small mistakes in what codes hold and in how a pool is compared with data, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_codes_and_pools.py"

CHANNEL = f"{TESTS}::test_information_is_that_of_a_gaussian_channel"
KL = f"{TESTS}::test_kl_per_unit_against_torch"
CLOSED = f"{TESTS}::test_aggregate_of_a_linear_encoder_in_closed_form"
BY_HAND = f"{TESTS}::test_mixture_by_hand"
LIMIT = f"{TESTS}::test_information_stops_at_log_n"
DIMENSIONS = f"{TESTS}::test_collapse_of_dimensions"
DEAF = f"{TESTS}::test_collapse_of_the_decoder"
EXCHANGED = f"{TESTS}::test_another_code_costs_twice_the_variance_of_the_mean"
SMOOTH = f"{TESTS}::test_smoothness_of_a_linear_model_by_hand"
FRESH = f"{TESTS}::test_a_fresh_pool_is_as_near_to_test_as_to_training_examples"
COPIES = f"{TESTS}::test_copies_are_found"
DISTANCES = f"{TESTS}::test_distances_by_hand"
DELONG = f"{TESTS}::test_copying_is_mann_whitney_with_delongs_error"
BAYES = f"{TESTS}::test_two_samples_at_chance_and_at_the_bayes_rate"
OFFSET = f"{TESTS}::test_entropy_offset_is_the_difference_of_cross_entropies"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "evaluation/codes.py": [
        ("0.5 * torch.log1p(means.var(0)", "torch.log1p(means.var(0)", "a factor 1/2 of the channel", CHANNEL),
        ("torch.log1p(means.var(0) /", "torch.log(means.var(0) /", "the 1 of the channel", CHANNEL),
        (".kl_dims(Normal(torch.zeros_like(means)", ".kl_dims(Normal(torch.ones_like(means)", "the prior's mean", KL),
        ("told, limit = own - joint,", "told, limit = own + joint,", "the sign of log q(z)", CLOSED),
        ("averaged(joint - marginals, large)", "averaged(marginals - joint, large)", "the sign of TC", CLOSED),
        ("each.sum(2).logsumexp(1) - math.log(n)", "each.sum(2).logsumexp(1)", "the mixture's weights", LIMIT),
        ("(each.logsumexp(1) - math.log(n)).sum(1)", "each.logsumexp(1).sum(1) - math.log(n)", "of marginals", CLOSED),
        ("each.sum(2).logsumexp(1)", "each.sum(2).mean(1)", "a geometric mixture", BY_HAND),
        ("unused > MOST * dims", "unused >= MOST * dims", "90 % are not more than 90 %", DIMENSIONS),
        ("gain = other - own", "gain = own - other", "what another code costs", DEAF),
        ("z[order.roll(1)]", "z[order]", "each keeps its own code", EXCHANGED),
        ("torch.lerp(z_1, z_0,", "torch.lerp(z_0, z_1,", "alpha is the other way round", SMOOTH),
        ("rows.append(-model.encoder", "rows.append(model.encoder", "the sign of log q", SMOOTH),
    ],
    "evaluation/pools.py": [
        ("np.where(d_train == d_test, 0.5, d_train < d_test)", "1.0 * (d_train > d_test)", "nearer", COPIES),
        ("min(len(real), len(t))\n", "len(real)\n", "the larger set is nearer", FRESH),
        ("d_train <= d_test, i, m + j)", "d_train <= d_test, i, i)", "clusters of the errors", DISTANCES),
        ("1 - _share_above(fresh, own)", "_share_above(fresh, own) ** 2", "the error of the test set", DELONG),
        ("1 - 0.5 * (np.searchsorted", "0.5 * (np.searchsorted", "larger is smaller", DELONG),
        ('+ np.searchsorted(b, a, "right")', '+ np.searchsorted(b, a, "left")', "ties are lost", DELONG),
        ("np.repeat([0, 1], n)", "np.tile([0, 1], n)", "which is which", BAYES),
        ("n, share = len(right) // 2,", "n, share = len(right),", "errors are not independent", BAYES),
        ("math.sqrt(share * (1 - share) / n)", "math.sqrt(share / n)", "the error of a share", BAYES),
        ("(a.mean() - b.mean()).item()", "(b.mean() - a.mean()).item()", "easier is harder", OFFSET),
    ],
}
