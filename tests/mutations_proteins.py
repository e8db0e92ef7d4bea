"""Small mistakes in how sequences are read, compared and divided, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_proteins_data.py"
NUMBERS = f"{TESTS}::test_numbers_of_symbols"
CLEANING = f"{TESTS}::test_cleaning"
SITES = f"{TESTS}::test_sites_of_whole_sequences"
GAP = f"{TESTS}::test_identity_is_the_best_place_of_one_gap"
GREEDY = f"{TESTS}::test_clusters_are_those_of_the_greedy_rule"
LONG = f"{TESTS}::test_clusters_of_long_sequences_count_beyond_a_byte"
NEAR = f"{TESTS}::test_who_is_alike_somebody_against_brute_force"
TOUCH = f"{TESTS}::test_clusters_that_touch_are_said_and_dropped"
WHOLE = f"{TESTS}::test_whole_clusters_go_to_one_split"
MUTANTS = f"{TESTS}::test_training_has_few_mutations"
TWICE = f"{TESTS}::test_sequences_that_training_has_too"
COLUMN = f"{TESTS}::test_splits_by_files_and_by_columns"
LENGTHS = f"{TESTS}::test_lengths_and_gaps"
ALIKE = f"{TESTS}::test_gaps_are_read_alike_in_training_and_afterwards"
LEFT_OUT = "test_proteins_bad_input.py::test_records_that_the_model_does_not_read_are_left_out"
BYTES = "test_text_bad_input.py::test_lines_that_the_model_does_not_read_are_left_out"

MUTATIONS = {
    "data/proteins.py": [
        ("range(1, len(symbols))))", "range(len(symbols) - 1)))", "the first residue is the end", NUMBERS),
        ('b"\\0", 1)[0]', 'b"\\0", 1)[-1]', "what follows the end is read", NUMBERS),
        ("len(text.lstrip(allowed))", "len(text.rstrip(allowed))", "the position of a fault", CLEANING),
        ("before + 1, filling", "before, filling", "positions count from 0", CLEANING),
        ("text[s] for s in sites", "text[s - 1] for s in sites", "sites are shifted", SITES),
        ("np.bincount(column).argmax()", "np.bincount(column).argmin()", "the rarest is the consensus", SITES),
        ("if len(kept.lengths) == 1", "if len(kept.lengths) > 1", "gaps of an alignment are removed", LENGTHS),
        ("whole) and spec.aligned else", "whole) else", "gaps that training had not", ALIKE),
    ],
    "data/sequence_splits.py": [
        ("(before + after[:, -1:] - after)", "(before + after[:, -1:])", "what precedes the gap counts twice", GAP),
        ("/ np.maximum(sizes, 1)", "/ np.maximum(n, 1)", "identity is of the shorter one", GAP),
        ("(~longer).sum(), n)", "(~longer).sum(), 1)", "identity with what is shorter", GAP),
        ("(sizes != n)\n", "(sizes == n)\n", "ends that are counted twice alone", NEAR),
        ("flatnonzero(~alike)", "flatnonzero(alike)", "what is alike stays", TOUCH),
        ("(sizes - n)[:, None]", "(sizes - n)[:, None] // 2", "the gap is half as wide", GAP),
        ("np.lexsort((first, -sizes))", "np.lexsort((-first, -sizes))", "the last of equals comes first", GREEDY),
        ("maybe[alike[0]]", "maybe[alike[-1]]", "the last cluster that is alike", GREEDY),
        ("np.floor(n / identity", "np.floor(n * identity", "longer ones are never alike", GREEDY),
        (
            "self.ends[i, low : low + shorter] == row[n - 1 - i]",
            "self.ends[i, low : low + shorter] == row[i]",
            "ends the wrong way round",
            GREEDY,
        ),
        (
            'len(sizes), np.dtype("u1" if 2 * n < 256',
            'len(sizes), np.dtype("u1" if 2 * n < 2560',
            "matches overflow a byte",
            LONG,
        ),
        ("len(whole) * part)", "len(whole) * part / 2)", "a split is half as large", WHOLE),
        ("count <= most", "count < most", "training lacks the most mutated", MUTANTS),
        ("(values != parent)", "(values == parent)", "mutations are what stayed", MUTANTS),
        ("new = np.array([row not in", "new = np.array([row in", "what is new is dropped", TWICE),
        ("known |= set(rows[split])", "known |= set()", "validation is unknown to test", TWICE),
    ],
    "data/sequence_examples.py": [
        ("values[where]", "values[: len(where)]", "measurements of what was left out", LEFT_OUT),
        ("sound[i]: fault for", "i: fault for", "another record has the fault", BYTES),
    ],
    "data/records.py": [
        ("for n in named]) for split", 'for n in named]) | (split == "test") for split', "all is test", COLUMN),
    ],
}
