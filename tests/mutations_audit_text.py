"""Small mistakes in the audit and the synthetic sets of text, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_audit_text.py"

PROPOSES = f"{TESTS}::test_the_table_proposes_what_the_whole_jacobian_does"
SCORES = f"{TESTS}::test_scores_by_the_table_are_those_of_the_whole_jacobian"
SLOPES = f"{TESTS}::test_the_jacobian_of_vectors_times_the_table_is_that_of_symbols"
ORDER = f"{TESTS}::test_whatever_the_order_of_the_references_the_gap_is_that_of_each"
WORDS = f"{TESTS}::test_similarity_of_words_by_hand"
PARTS = f"{TESTS}::test_texts_go_through_a_decoder_in_parts_that_fit"
SECTIONS = f"{TESTS}::test_all_sections_of_text"
COME_IN = f"{TESTS}::test_tokens_that_come_in_occur_in_training"
UNSEEN = f"{TESTS}::test_unseen_texts_have_figures_of_their_own"
REFUSED = f"{TESTS}::test_what_cannot_be_attacked_or_compared_is_refused_in_words"
PROTEINS = "test_training_data.py::test_of_proteins_test_sequences_are_left_out_and_counted"
ALIKE = f"{TESTS}::test_shards_of_text_are_read_alike_by_datasets_and_by_us"
TOKENS = f"{TESTS}::test_a_set_is_read_in_the_tokens_of_the_data"
USED = f"{TESTS}::test_which_samples_are_used_by_hand"
NO_TEXT = f"{TESTS}::test_what_is_no_text_of_the_data_is_left_out"
PROBE = f"{TESTS}::test_the_probe_of_texts_stands_beside_held_out_ones"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "evaluation/sequence_attack.py": [
        ("moved - table.vectors[", "moved + table.vectors[", "what is taken away", SCORES),
        ("v.reciprocal()", "v", "the posterior's unit", SCORES),
        ("predicted.square()", "predicted.abs()", "another distance", SCORES),
        ("mean - origin[part]", "origin[part] - mean", "how far the code is already", SCORES),
        ("((row == ref) & (row != END))", "((row == ref) | (row != END))", "positions that are closed", SCORES),
        ("[0][:, places]", "[0][:, places.flip(0)]", "the other end of the text", SLOPES),
        ("open_.scatter(1, now[i].long()[:, None], False)", "open_", "a token in its own place", PROPOSES),
        ("[back] for rows", " for rows", "attacks on other texts", ORDER),
        ("or network.reread is not None", "", "tokens of another tokenizer", REFUSED),
    ],
    "evaluation/audit_sequences.py": [
        ("1 - word_edits(pair)[0]", "word_edits(pair)[0]", "a distance for a similarity", WORDS),
        ("max(1, *(len", "min(9, *(len", "the shorter text", WORDS),
        ("averaged(before - after)", "averaged(after - before)", "the gap's sign", SECTIONS),
        ("np.unique(examples.data.train.values)", "np.arange(len(spec.symbols))", "tokens that never occur", COME_IN),
        ("return ~seen(_raw(examples.test", "return seen(_raw(examples.test", "the texts that were seen", UNSEEN),
        ("amortization(before[fresh], best[fresh])", "amortization(best[fresh], before[fresh])", "the sign", UNSEEN),
        ("(train[single], test[fresh])", "(test[fresh], train[single])", "the sign", UNSEEN),
        ("rows[times > 1])", "rows[times > 2])", "texts that others repeat", UNSEEN),
    ],
    "evaluation/audit.py": [
        ("LOGITS // (self.data.spec.numel * len", "LOGITS // (len", "too many rows at once", PARTS),
    ],
    "data/synthetic_texts.py": [
        ("numbers < wanted", "numbers <= wanted", "one sample too many", USED),
        ("known | ~seen(first, test)", "~seen(first, test)", "texts that are known anyway", USED),
        ("int((~kept).sum())", "int(kept.sum())", "the others are counted", USED),
        ("wanted - len(first)", "wanted - int(kept.sum())", "test texts are counted twice", USED),
        ("(sizes <= spec.numel)", "(sizes <= spec.numel * 9)", "long texts are cut", NO_TEXT),
        ("fine[kept]", "np.flatnonzero(kept)", "numbers of other samples", NO_TEXT),
    ],
    "data/shards.py": [
        (
            "decode_rows(values, spec), pa.string()",
            "decode_rows(values[::-1], spec), pa.string()",
            "other numbers",
            ALIKE,
        ),
    ],
    "synthesizing.py": [
        ("copied(some, train)", "copied(train, some)", "training texts that were copied", PROBE),
    ],
    "pools.py": [
        ("numbers, wanted, data", "numbers, wanted - 2, data", "samples at the end", TOKENS),
        ("> MOST_HELD * wanted", "> 2 * MOST_HELD * wanted", "most are test sequences", PROTEINS),
    ],
}
