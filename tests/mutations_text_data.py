"""Small mistakes in how text is read, divided and turned into tokens, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_text_data.py"
NUMBERS = f"{TESTS}::test_numbers_of_tokens"
ROWS = f"{TESTS}::test_rows_are_right_whatever_the_order_and_the_number_of_texts"
BYTES = f"{TESTS}::test_every_text_is_written_and_read_back"
TRAINED = f"{TESTS}::test_training_of_a_tokenizer"
GIVEN = f"{TESTS}::test_a_given_tokenizer"
SYMBOLS = f"{TESTS}::test_symbols_of_every_kind_of_tokenizer"
MANY = f"{TESTS}::test_more_tokens_than_two_bytes_count"
ALONE = f"{TESTS}::test_the_tokenizer_knows_training_texts_alone"
REPEATS = f"{TESTS}::test_repeats_of_a_text_are_in_one_split"
TWICE = f"{TESTS}::test_texts_that_training_has_too"
LENGTHS = f"{TESTS}::test_lengths"
KINDS = f"{TESTS}::test_proteins_or_text"
SETS = f"{TESTS}::test_known_sets"
FILES = f"{TESTS}::test_the_same_texts_from_every_kind_of_file"
FAULTS = "test_text_bad_input.py::test_a_fault_is_named_or_left_out"

MUTATIONS = {
    "data/text.py": [
        (
            "for row in ids for k in row), np.int32) + 1",
            "for row in ids for k in row), np.int32)",
            "0 is a token",
            NUMBERS,
        ),
        ("rows.astype(np.int64) - 1", "rows.astype(np.int64)", "tokens are one too high", NUMBERS),
        ("(rows == 0).argmax(1), rows", "(rows == 0).argmax(1) - 1, rows", "the last token is not read", NUMBERS),
        ("(rows == 0).argmax(1), rows.shape[1])", "(rows == 0).argmax(1), 0)", "full rows are empty", NUMBERS),
        ("np.cumsum(sizes) - sizes", "np.cumsum(sizes)", "rows begin before their start", ROWS),
        ("kept = column < spec.numel", "kept = column < spec.numel - 1", "the last token is cut", NUMBERS),
        ("ByteLevel(add_prefix_space=False)", "ByteLevel(add_prefix_space=True)", "a blank comes before", BYTES),
        ("min_frequency=2", "min_frequency=1", "pairs that occur once are joined", TRAINED),
        ("block, add_special_tokens=False", "block, add_special_tokens=True", "special tokens are added", GIVEN),
        (
            "in block], skip_special_tokens=True",
            "in block], skip_special_tokens=False",
            "special tokens are written",
            GIVEN,
        ),
        ('int(model["unk_id"]) + 1', 'int(model["unk_id"])', "the unknown token of Unigram", SYMBOLS),
        ("None if token is None else token + 1", "None if token is None else token", "the unknown token", GIVEN),
    ],
    "data/scale.py": [
        (
            "spec.sequential and spec.high > 65535",
            "spec.sequential and spec.high > 99999",
            "large tokens are floats",
            MANY,
        ),
    ],
    "data/text_files.py": [
        ('np.asarray(parts["train"].examples)', 'np.asarray(parts["test"].examples)', "trained on test texts", ALONE),
        ("found.start() + 1}", "found.start()}", "positions count from 0", FAULTS),
        ("most if given else int", "int", "max_length is not the length", LENGTHS),
    ],
    "data/tables.py": [
        ("byte.start() + 1}", "byte.start()}", "positions of bytes count from 0", FAULTS),
        ("yield reader.line_num + 1", "yield reader.line_num", "lines of tables count from 0", FAULTS),
    ],
    "data/sequence_splits.py": [
        ("np.isin(group, group[", "np.isin(group[rows], group[", "repeats are lost", REPEATS),
        ("rows = np.sort(first)", "rows = np.arange(len(whole))", "repeats are on both sides", REPEATS),
        ("rows[:, 0] if rows.dtype == object", "rows[:, 1] if rows.dtype == object", "places are compared", TWICE),
    ],
    "data/sequence_sources.py": [
        ("len(set(looked)) > CLASSES", "len(set(looked)) > 1", "two moods are proteins", KINDS),
        ("looked)) >= ENOUGH * len", "looked)) >= 0 * len", "words in lines are proteins", KINDS),
    ],
    "data/known_texts.py": [
        ("text not in texts for text", "text in texts for text", "only the texts of edits are left", SETS),
        ('("train", "validation"), ("test", "test")', '("train", "test"), ("test", "validation")', "splits swap", SETS),
        ('["negative", "positive"]', '["positive", "negative"]', "classes are swapped", SETS),
    ],
    "tokens.py": [
        ("encode_special_tokens = True", "encode_special_tokens = False", "words become special tokens", GIVEN),
        ('{added["id"]: added', '{added["id"] + 5: added', "added tokens elsewhere", SYMBOLS),
        ('("", *(tokens.get(number, "")', '("", *(tokens.get(number, "?")', "numbers without a token", SYMBOLS),
    ],
}
