"""Small mistakes in the figures of texts, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TEXT = "test_text_metrics.py"

FORMULA = f"{TEXT}::test_ngrams_are_those_of_the_formula[some-3]"
ESTIMATED = f"{TEXT}::test_discounts_are_estimated_where_there_are_enough_ngrams"
ONE = f"{TEXT}::test_one_word_of_an_ngram_by_hand"
AREA = f"{TEXT}::test_mauve_is_the_area_under_its_curve[p0-q0-5.0]"
ERROR = f"{TEXT}::test_the_error_of_mauve_is_that_of_its_shares"
PACKAGE = f"{TEXT}::test_mauve_is_that_of_the_reference_package"
CURVE = f"{TEXT}::test_the_curve_begins_where_q_is_the_mixture"
DIRECTIONS = f"{TEXT}::test_clusters_find_the_directions_of_features"
COMPONENTS = f"{TEXT}::test_a_tenth_of_the_variance_is_left_out"
SELF_BLEU = f"{TEXT}::test_self_bleu_is_sacrebleus_of_each_against_the_others"
DIVERSITY = f"{TEXT}::test_diversity_and_copies_by_hand"
SMOOTH = f"{TEXT}::test_smoothness_by_hand"
ONCE = f"{TEXT}::test_a_judge_scores_every_token_once"
LEARNT = f"{TEXT}::test_a_judge_learns_each_token_of_a_long_text_once"
BEST = f"{TEXT}::test_training_stops_with_the_best_state"
PAIRS = f"{TEXT}::test_pairs_of_words_are_classified"
COLLAPSED = f"{TEXT}::test_figures_of_collapsed_samples_give_them_away"
FLOOR = f"{TEXT}::test_figures_of_real_texts_are_their_floor"

MUTATIONS = {
    "evaluation/ngrams.py": [
        ("np.where(begins, count, before)", "count", "raw counts in shorter n-grams", FORMULA),
        ("np.divide(a - d, total", "np.divide(a, total", "no discount", FORMULA),
        ("own.below[history] * p", "(1 - own.below[history]) * p", "what goes to the order below", FORMULA),
        ("y * n[i + 1] / n[i])", "y * n[i] / n[i])", "estimated discounts", ESTIMATED),
        ("(n[1] + 2 * n[2])", "(n[1] + n[2])", "a factor 2 of Y", ESTIMATED),
        ("USUAL = (0.5, 1.0, 1.5)", "USUAL = (0.5, 0.5, 0.5)", "discounts of a few sentences", ONE),
        ("(word_counts(texts) + 1).sum()", "word_counts(texts).sum()", "perplexity without the ends", ONE),
    ],
    "evaluation/mauve.py": [
        ("r = weight * p + (1 - weight) * q", "r = weight * q + (1 - weight) * p", "mixtures in reverse", CURVE),
        ("np.log(p[held] / r[held])", "np.log(r[held] / p[held])", "the divergence's sign", AREA),
        ("np.trapezoid(x, y)) / 2", "np.trapezoid(x, y))", "the area twice", PACKAGE),
        ("x = normalize(np.concatenate([p, q]))", "x = np.concatenate([p, q])", "rows of any length", DIRECTIONS),
        ("counts[1] / len(q)", "counts[1] / len(p)", "shares of the other set", DIRECTIONS),
        ("VARIANCE = 0.9", "VARIANCE = 0.999", "all components", f"{COMPONENTS}[left-out]"),
        (
            "rng.multinomial(n, h) / n for n, h in zip(sizes, (p, q)",
            "rng.multinomial(n, h) / n for n, h in zip(sizes, (p, p)",
            "error of equal sets",
            ERROR,
        ),
    ],
    "evaluation/text_metrics.py": [
        ("best[1] if count == best[0] else best[0]", "best[0]", "a text is its own reference", SELF_BLEU),
        ("(abs(s - len(words)), s)", "s", "the shortest reference", SELF_BLEU),
        ("return len(counts) / counts.total()", "return len(counts) / len(texts)", "distinct-n per text", DIVERSITY),
        ("e[:-1] / e[-1]", "e[:-1] / e[:-1].sum()", "detours cost nothing", SMOOTH),
        ("[s.max() for s in steps]", "[s.mean() for s in steps]", "leaps are not seen", SMOOTH),
    ],
    "evaluation/text_judge.py": [
        (">= first[some, None])", ">= 0)", "tokens of two windows count twice", f"{ONCE}[8]"),
        ("(rows.shape[1]) >= first[:, None]", "(rows.shape[1]) >= 0", "tokens of two windows are learnt twice", LEARNT),
        ("total / positions[:, None]", "total", "features grow with the length", f"{ONCE}[64]"),
        ("vain = 0 if nats < best else vain + 1", "vain = 0", "training goes on in vain", BEST),
        ("    network.load_state_dict(kept)\n    network.eval()", "    network.eval()", "the last state is kept", BEST),
        ("ngram_range=(1, 2)", "ngram_range=(1, 1)", "no pairs of words", PAIRS),
    ],
    "evaluation/text_figures.py": [
        ("reverse.perplexity(real)", "reverse.perplexity(some)", "samples under their own model", COLLAPSED),
        ("order[n : 2 * n]]", "order[:n]]", "the floor is of the same texts", FLOOR),
    ],
}
