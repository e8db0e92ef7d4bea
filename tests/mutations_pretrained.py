"""Small mistakes in how pretrained encoders read sequences, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_pretrained.py"
STATES = f"{TESTS}::test_states_are_those_of_the_model_itself"
MEANS = f"{TESTS}::test_probabilities_are_mean_rows_of_the_table"
SITES = f"{TESTS}::test_sites_are_read_in_the_whole_sequence"
FROZEN = f"{TESTS}::test_frozen_parts_get_no_gradient_and_stay_in_evaluation_mode"
TOKENS = f"{TESTS}::test_what_a_tokenizer_says"
TRAINED = f"{TESTS}::test_a_training_changes_what_is_not_frozen_and_nothing_else"
GOES_ON = f"{TESTS}::test_a_stopped_training_goes_on_without_the_folder"

MUTATIONS = {
    "nn/pretrained.py": [
        ("mask = present(ended)", "mask = ended != 0", "the end is not seen", STATES),
        ("torch.arange(n, n + symbol.shape[1]", "torch.arange(symbol.shape[1]", "states are those of the token before", STATES),
        ("torch.tensor(sites, dtype=torch.long) + len(before)", "torch.tensor(sites, dtype=torch.long)", "sites shift", SITES),
        ("return rows.index_copy(1, places, mean", "return rows.index_copy(1, places, 0.5 * mean", "half a mean", MEANS),
        ("x.detach().argmax(2)", "x.detach().argmin(2)", "the end is where it is least likely", MEANS),
        ("module.eval()", "module.train()", "what is frozen drops values", FROZEN),
        ("*blocks[:frozen])", "*blocks[frozen:])", "the last blocks are frozen", FROZEN),
    ],
    "parts.py": [
        ('("\\u2581" + s, s, s.lower())', '(s, s.lower(), "\\u2581" + s)', "a piece inside a word comes first", TOKENS),
    ],
    "recipes.py": [
        ("load_pretrained(states, network.folder)", "states.eval()", "the encoder starts with random weights", TRAINED),
    ],
    "session.py": [
        (" or pretrained_states(self.recipe.model) is not None", "", "going on needs the folder", GOES_ON),
    ],
}  # fmt: skip
