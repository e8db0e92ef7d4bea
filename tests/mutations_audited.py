"""Small mistakes in what an audit says of several models, and in what its cells depend on, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

CELLS = "test_audit_cells.py"

APART = f"{CELLS}::test_the_bootstrap_of_apart_sets_is_as_wide_as_their_variances_add_up_to"
PAIRED = f"{CELLS}::test_gaps_are_paired_over_training_examples_only_where_these_are_the_same"
AMORTIZATION = f"{CELLS}::test_differences_of_amortization_gaps_are_those_of_before_and_best"
BEST = f"{CELLS}::test_no_model_is_called_best_within_chance"
ERRORS = f"{CELLS}::test_figures_without_numbers_per_example_are_judged_by_their_errors"
STAR = f"{CELLS}::test_a_gap_that_is_the_smallest_by_chance_gets_no_star"
COLLAPSED = f"{CELLS}::test_a_collapsed_model_is_said_to_be_one_with_its_rate"
DATA = f"{CELLS}::test_a_cell_of_other_data_is_not_taken"
FITS = "test_data.py::test_rows_that_were_seen_are_found_whatever_their_type_in_less_memory_than_they_take"
KEPT = f"{CELLS}::test_only_refusals_that_follow_from_the_key_are_kept"
KILLED = f"{CELLS}::test_a_process_killed_between_arrays_and_record_leaves_no_cell"
FOLDS = f"{CELLS}::test_the_section_gets_as_many_folds_as_were_trained_on"
ONCE = f"{CELLS}::test_binarised_test_examples_are_drawn_once_and_are_the_same_beside_any_training_set"
MEASURES = f"{CELLS}::test_models_of_data_in_different_measures_are_not_compared"
PARTS = "test_audit_units.py::test_training_examples_beyond_the_first_come_in_parts"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "evaluation/audited.py": [
        ("sum(sign * v[rng", "sum(v[rng", "the signs of what is drawn", APART),
        ("value = sum(sign * v.mean()", "value = sum(v.mean()", "the signs of the value", APART),
        ("(1 + level) / 2]", "level]", "the upper end covers less", APART),
        ("(1, a - b), (-1, rest[0][0]), (1,", "(1, a - b), (1, rest[0][0]), (-1,", "training gaps are added", PAIRED),
        ("(1, a - b), (-1, rest[0][0])", "(1, b - a), (-1, rest[0][0])", "test bounds change places", PAIRED),
        ("minus=rest[0]", "minus=rest[0][::-1]", "training bounds change places", PAIRED),
        ('mine.train == theirs.train != ""', "len(mine.arrays) == len(theirs.arrays)", "pairs that are none", PAIRED),
        ("a - rest[0][0], b - rest[0][1]", "a + rest[0][0], b + rest[0][1]", "before plus best", AMORTIZATION),
        ("a - rest[0][0], b - rest[0][1]", "a - rest[0][1], b - rest[0][0]", "the other model's best", AMORTIZATION),
        ("(1, a), (-1, b)", "(1, a), (1, b)", "gaps are added", AMORTIZATION),
        ('metric.endswith("_train") and not same', "not same", "test examples are not paired", AMORTIZATION),
        ("interval.low > 0", "interval.high > 0", "the wrong end of the interval", BEST),
        ("key=lambda name: known[name])", "key=lambda name: -known[name])", "the largest leads", BEST),
        ("1.96 * math.hypot(", "1.0 * math.hypot(", "one standard error", ERRORS),
        ("> 1.96 * math.hypot(a.stderr or 0.0, b.stderr or 0.0)", "> 1.96 * ((a.stderr or 0.0) + (b.stderr or 0.0))",
         "errors are added up", ERRORS),
        ("seed)) > 1]", "seed)) > 2]", "two that tie are decided", STAR),
        ("0 < rate.value < EMPTY", "0 <= rate.value < EMPTY", "models without codes have collapsed", COLLAPSED),
        ("EMPTY = 0.1", "EMPTY = 0.05", "the threshold of collapse", COLLAPSED),
    ],
    "evaluation/cells.py": [
        ("    record.unlink(missing_ok=True)\n", "", "an old record beside new arrays", KILLED),
    ],
    "data/splits.py": [
        ("fit and _digest(row)", "_digest(row)", "what does not fit into the type was seen", FITS),
        ("{values.dtype.str} {values.shape};", "", "type and shape are not in the key", DATA),
    ],
    "auditing.py": [
        ('[data.spec.model_dump_json(exclude={"aligned", "reading"})]', '[""]', "the measure is not in the key", DATA),
        ("{name: hashed(column) for name, column in split.labels.items()}", "{}", "nor are labels", DATA),
        ("    except NoBound as refusal:", "    except (NoBound, DataError) as refusal:", "what may pass is kept", KEPT),
        ("subject.pool.folds * len(", "1 * len(", "one fold", FOLDS),
        ("seeded(seed, 6, i)", "seeded(6, i)", "draws do not depend on the seed", ONCE),
        ("if mine != theirs:", "if False:", "measures are not compared", MEASURES),
        ("_order(data.train)[MOST:]", "_order(data.train)[:0]", "copies of later examples are missed", PARTS),
    ],
}  # fmt: skip
