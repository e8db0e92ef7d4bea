"""Small mistakes in scores of single examples, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

SCORING = "test_scoring.py"

EXACT = f"{SCORING}::test_an_exact_model_scores_minus_log_p"
AVERAGE = f"{SCORING}::test_scores_are_what_evaluate_averages"
HEADS = f"{SCORING}::test_heads_say_values_and_names_of_classes"
BESIDE = f"{SCORING}::test_scores_are_set_beside_what_was_measured"
TABLE = f"{SCORING}::test_search_writes_a_table"
SHIFT = "test_sequence_figures.py::test_the_shift_of_frequencies_is_unbiased_and_known"
ALIKE = "test_sequence_figures.py::test_samples_are_compared_with_what_is_drawn_as_training"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "scoring.py": [
        (
            "bound / np.maximum(lengths_of(values), 1)",
            "bound * np.maximum(lengths_of(values), 1)",
            "per residue",
            EXACT,
        ),
        (
            "repeats=repeats, seed=seed, paired=True)\n        columns",
            "repeats=1, seed=seed, paired=True)\n        columns",
            "one estimate",
            AVERAGE,
        ),
        ("spearman(sign * scores", "spearman(scores", "a low bound ranks high", BESIDE),
        ("np.where(trained_on, np.nan, y)", "np.where(trained_on, y, np.nan)", "what was trained on is new", BESIDE),
        ("names[said.argmax(1).numpy()]", "names[said.argmin(1).numpy()]", "the least likely class", HEADS),
    ],
    "evaluation/sequences.py": [
        ("(((f - g) ** 2).sum(1) - noise)", "((f - g) ** 2).sum(1)", "chance as a shift", SHIFT),
        ("(f * g).sum(1)).sum()", "(f * f).sum(1)).sum()", "what varies in one of both", SHIFT),
        ("(p**2).sum(1) - 2 * (p**3)", "(p**2).sum(1) + 2 * (p**3)", "the covariance of frequencies", SHIFT),
        ("replace(data, test=data.validation), why", "data, why", "still the test split", ALIKE),
    ],
    "output.py": [
        ("[ids[i] for i in near]", "[ids[i] for i in range(len(near))]", "other names", TABLE),
    ],
}
