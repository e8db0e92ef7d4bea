"""Small mistakes in the differences between arms, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_intervals.py"
SIGNS = f"{TESTS}::test_intervals_have_the_signs_of_the_figures_and_pair_the_examples"
SEEDS = f"{TESTS}::test_seeds_are_resampled_with_the_examples"
OTHERS = f"{TESTS}::test_other_training_examples_are_no_pairs"
DIVIDED = f"{TESTS}::test_arms_with_other_test_examples_are_compared_among_themselves"
COVERS = f"{TESTS}::test_apart_covers_as_often_as_it_says"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "studies/intervals.py": [
        ("difference(theirs, mine, ", "difference(mine, theirs, ", "the bound in place of the ELBO", SIGNS),
        ("difference(mine, theirs, metric", "difference(theirs, mine, metric", "the first minus the arm", SIGNS),
        (
            "signs, drawn = np.random.default_rng(seed), (1.0, -1.0)",
            "signs, drawn = np.random.default_rng(seed), (1.0, 1.0)",
            "a sum of gaps",
            OTHERS,
        ),
        ("rows].mean(1) - c[:, own]", "rows].mean(1) + c[:, own]", "the sign of training examples in draws", COVERS),
        ("(a.mean() - c.mean())", "(a.mean() + c.mean())", "their sign in the difference", OTHERS),
        ("own].mean(1))[seeds].mean()", "own].mean(1)).mean()", "seeds are not resampled", SEEDS),
        ("c[:, own].mean(1)", "c.mean(1)", "training examples are not resampled", OTHERS),
        ("rng.integers(c.shape[1], size=c.shape[1])", "rows[rows < c.shape[1]]", "one draw for all examples", OTHERS),
        ("(1 - level) / 2, (1 + level) / 2", "(1 - level), level", "an interval of another level", COVERS),
        ("drawn.std(ddof=1)", "drawn.var(ddof=1)", "a variance", OTHERS),
        (" and one.test == together[first].test", "", "arms of another division make pairs", DIVIDED),
        ("arm not in drawn)", "arm in found)", "the first on real examples is not theirs", DIVIDED),
        ("not mine.train == theirs.train", "mine.train == theirs.train", "pairs where there are none", OTHERS),
        ('("low", one.low), ("high", one.high)', '("low", one.high), ("high", one.low)', "ends exchanged", SIGNS),
    ],
}
