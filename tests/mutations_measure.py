"""Mistakes in the figures of a data set, and in what they recommend, that tests must notice; see `mutations.py`."""

from __future__ import annotations

TESTS = "test_measure.py"
ONCE = f"{TESTS}::test_bounds_encode_once_and_are_means_over_passes"
FLOW = f"{TESTS}::test_passes_of_a_flow_posterior_have_draws_of_their_own"
ANEW = f"{TESTS}::test_other_examples_are_encoded_anew"
MISSING = f"{TESTS}::test_missing_labels_are_no_class"
NEAR = f"{TESTS}::test_of_a_sorted_split_the_neighbours_are_random_ones"
DECODED = f"{TESTS}::test_of_a_sorted_split_a_sampler_decodes_random_ones"
FEWER = "test_recommend.py::test_real_data_tie_nothing_where_they_are_fewer_than_the_samples"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "evaluation/measure.py": [
        ("anew() if q is x else forward(q)", "anew()", "all examples have the codes of the first", ANEW),
        ("anew() if q is x else forward(q)", "forward(q)", "each pass encodes again", ONCE),
        (
            "kept.anew if isinstance(kept, FlowPosterior) else lambda: kept",
            "lambda: kept",
            "one draw for all passes",
            FLOW,
        ),
        ("del encoder.forward", "pass", "the codes stay when the examples change", ANEW),
        ("torch.zeros_like(term)) + term / repeats", "torch.zeros_like(term)) + term", "a sum over passes", ONCE),
        ("known = (labels >= 0)", "known = (labels >= -1)", "missing labels are a class", MISSING),
        ("real[some_rows(len(real), n)]", "real[:n]", "neighbours among the first real examples", NEAR),
        ("else fake[some_rows(len(fake), n)]", "else fake[:n]", "the floor is of the first real examples", NEAR),
        ("real[some_rows(len(test), FEW)]", "real[:FEW]", "beside other examples than are decoded", DECODED),
    ],
    "evaluation/recommend.py": [
        ("any((figure.n or 0) > n", "any((figure.n or 0) > 2 * n", "half as many real data tie", FEWER),
    ],
}
