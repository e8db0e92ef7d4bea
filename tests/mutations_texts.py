"""Small mistakes in the figures of models of text and in the study of edits, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS, TABLES = "test_texts.py", "test_texts_tables.py"
TOKENS = f"{TESTS}::test_perplexities_divide_by_tokens_and_by_words_with_their_ends"
SEEN = f"{TESTS}::test_what_was_seen_in_training_is_told"
FRESH = f"{TESTS}::test_the_bound_of_unseen_texts_is_the_mean_over_them"
ECHO = f"{TESTS}::test_a_model_that_gives_back_what_it_reads_is_perfect_and_listens"
PATHS = f"{TESTS}::test_paths_lead_from_one_text_to_the_next"
EDITS = f"{TESTS}::test_edits_are_measured_in_both_directions_together"
BOTH = f"{TABLES}::test_seconds_of_both_stages_count"
DRAWN = f"{TABLES}::test_a_picture_of_edits_has_the_better_way_at_equal_content"
EQUAL = f"{TABLES}::test_accuracy_is_compared_at_equal_content"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "evaluation/texts.py": [
        (".mean()) + 1  # and an end", ".mean())", "words without their end", TOKENS),
        ('"nats_per_token": Measured(nats / tokens', '"nats_per_token": Measured(nats / words', "the unit", TOKENS),
        (
            "float(np.exp(nats / tokens)), float",
            "float(np.exp(nats / words)), float",
            "the unit of a perplexity",
            TOKENS,
        ),
        ("return ~seen(test.values", "return seen(test.values", "seen for unseen", SEEN),
        (
            'each["bound_nats"][torch.from_numpy(fresh)]',
            'each["bound_nats"][torch.from_numpy(~fresh)]',
            "seen ones",
            FRESH,
        ),
        ("z.roll(1, 0)", "z", "codes are not exchanged", ECHO),
        ("averaged(exact_matches(shown, real))", "averaged(exact_matches(shown, shown))", "every text is right", ECHO),
        ("z[0::2], z[1::2], steps + 1", "z[0::2], z[0::2], steps + 1", "paths that lead nowhere", PATHS),
        ("i + steps + 1] for i in", "i + steps] for i in", "the end of a path is lost", PATHS),
    ],
    "studies/render.py": [
        ("own[seed] + before[seed] for", "own[seed] for", "the first stage costs nothing", BOTH),
    ],
    "studies/edit_pictures.py": [
        ("(content, max(a for", "(content, min(a for", "the worse way", DRAWN),
        ('[curves["ode"]]}', '[curves["vector"]]}', "LatentOps moves along vectors", DRAWN),
    ],
    "studies/render_texts.py": [
        (
            "for kept, accuracy in curve if kept >= content]",
            "for kept, accuracy in curve]",
            "content is not kept",
            EQUAL,
        ),
        (
            "(kept - content) / (kept - kept_next)",
            "(content - kept_next) / (kept - kept_next)",
            "the line's other end",
            EQUAL,
        ),
        (
            "of[seed, metric] / of[seed, FLOORS[metric]]",
            "of[seed, FLOORS[metric]] / of[seed, metric]",
            "its inverse",
            EQUAL,
        ),
    ],
    "studies/texts.py": [
        ("if share >= ENOUGH", "if share >= 0", "any strength is enough", EDITS),
    ],
    "evaluation/edits.py": [
        (
            "(m.value or 0.0) * k for m, k in parts) / n",
            "(m.value or 0.0) for m, k in parts) / 2",
            "a mean of directions",
            EDITS,
        ),
    ],
}
