"""Small mistakes in how pretrained encoders read sequences and pretrained decoders write them, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_pretrained.py"
STATES = f"{TESTS}::test_states_are_those_of_the_model_itself"
MEANS = f"{TESTS}::test_probabilities_are_mean_rows_of_the_table"
SITES = f"{TESTS}::test_sites_are_read_in_the_whole_sequence"
FROZEN = f"{TESTS}::test_frozen_parts_get_no_gradient_and_stay_in_evaluation_mode"
PIECED = f"{TESTS}::test_blocks_in_pieces_cannot_be_frozen"
SHORT = f"{TESTS}::test_two_short_rows_tell_what_an_encoder_needs_and_change_nothing_else"
RESTED = f"{TESTS}::test_a_folder_that_is_no_encoder"
TOKENS = f"{TESTS}::test_what_a_tokenizer_says"
TRAINED = f"{TESTS}::test_a_training_changes_what_is_not_frozen_and_nothing_else"
GOES_ON = f"{TESTS}::test_a_stopped_training_goes_on_without_the_folder"

TEXT = "test_pretrained_text.py"
BY_HAND = f"{TEXT}::test_offset_and_prefix_by_hand"
ITSELF = f"{TEXT}::test_without_a_code_it_is_the_model_itself[gpt2]"
FORCED = f"{TEXT}::test_kept_keys_are_teacher_forcing[gpt2]"
ROTATED = f"{TEXT}::test_kept_keys_are_teacher_forcing[llama]"
COUNT = f"{TEXT}::test_nats_are_computed_where_they_count[llama]"
NEVER = f"{TEXT}::test_the_end_is_its_token_and_is_never_written_as_a_symbol"
HIDDEN = f"{TEXT}::test_hidden_symbols_are_one_learned_vector_in_training_alone"
BELOW = f"{TEXT}::test_new_blocks_lie_below_those_of_the_folder[llama]"
HELD = f"{TEXT}::test_frozen_parts_of_a_decoder"
TIED = f"{TEXT}::test_tied_weights_are_kept_once_and_stay_tied"
READS = f"{TEXT}::test_an_encoder_reads_texts_with_its_own_tokenizer"
LONG = f"{TEXT}::test_texts_that_are_too_long_for_an_encoder"
PIECES = f"{TEXT}::test_word_pieces_are_those_of_transformers"
FRAME = f"{TEXT}::test_the_frame_of_a_text_is_that_of_the_tokenizer"
SPOILT = f"{TEXT}::test_a_folder_that_is_no_decoder"
RUN = f"{TEXT}::test_a_training_changes_what_is_not_frozen_and_nothing_else"

MUTATIONS = {
    "nn/pretrained_decoder.py": [
        ("zip(parts[::2], parts[1::2], strict=True)", "zip(parts[1::2], parts[::2], strict=True)",
         "keys and values of the code change places", BY_HAND),
        ("cache.update(key, value, layer)", "cache.update(key, value, len(parts) // 2 - 1 - layer)",
         "the last block gets the prefix of the first", BY_HAND),
        ("h if offset is None else h + offset, 0", "h if offset is None else h - offset, 0", "the offset's sign", BY_HAND),
        ("tokens = [end, *range(symbols - 1), start]", "tokens = [end, *range(1, symbols), start]", "each symbol is the next",
         ITSELF),
        ("torch.arange(first, first + h.shape[1]", "torch.arange(1 + first, 1 + first + h.shape[1]",
         "the prefix takes a position", BY_HAND),
        ("self.network.run(h, i, self.cache)", "self.network.run(h, 0, self.cache)", "every step is the first", ROTATED),
        ("h = h if self.offset is None else h + self.offset", "h = h + 0.0", "draws know no offset", FORCED),
        ("self.cache.batch_select_indices(rows)", "self.cache.batch_select_indices(0 * rows)",
         "all go on with the keys of the first", FORCED),
        ("else self.offset[rows]", "else self.offset[0 * rows]", "all go on with the code of the first", FORCED),
        ("(states[0][kept][None],)", "(states[0][kept].flip(0)[None],)", "nats at other places", COUNT),
        ("- NEVER * own", "+ 0.0 * own", "the end has two numbers", NEVER),
        ("logits[..., self.end, None]", "logits[..., 0, None]", "another token ends a text", BY_HAND),
        ("(before == self.hidden)[..., None]", "(before != self.start)[..., None]", "every symbol is hidden", HIDDEN),
        ("state.pop(prefix + name, None)", "None", "tied weights are kept twice", TIED),
        ("if part in trained:", "if part not in trained:", "the frozen trains", HELD),
    ],
    "models/rereading.py": [
        ("[token + 1 for token in row]", "[token for token in row]", "each token is the one before", READS),
        ("[END] * (width", "[1] * (width", "the filling is text", READS),
        ("row[: self.most]", "row[: None]", "what is too long is not cut", LONG),
    ],
    "models/pretrained.py": [
        ("most - around)", "most - around + 1)", "one token too many is read", LONG),
        ("int(number) + by", "int(number)", "new blocks lie on top", BELOW),
        ("not changed <= CHANGED", "not changed <= 9", "what fills rows up counts", RESTED + "[what fills rows up counts]"),
        ("head: nn.Identity()", "head: None", "a pooler that is called stays", SHORT + "[layoutlm]"),
        ("limit - taken", "limit", "a window has no room for the code", SPOILT + "[a narrow window]"),
    ],
    "tokens.py": [
        ("lowercase=lowercase, handle", "lowercase=not lowercase, handle", "capitals stay", PIECES),
    ],
    "nn/pretrained.py": [
        ("mask = present(ended)", "mask = ended != 0", "the end is not seen", STATES),
        ("torch.arange(n, n + symbol.shape[1]", "torch.arange(symbol.shape[1]", "states are those of the token before", STATES),
        ("torch.tensor(sites, dtype=torch.long) + len(before)", "torch.tensor(sites, dtype=torch.long)", "sites shift", SITES),
        ("return rows.index_copy(1, places, mean", "return rows.index_copy(1, places, 0.5 * mean", "half a mean", MEANS),
        ("x.detach().argmax(2)", "x.detach().argmin(2)", "the end is where it is least likely", MEANS),
        ("            module.eval()", "            module.train()", "what is frozen drops values", FROZEN),
        ("for m in beside) > 1", "for m in beside) > 9", "the attentions alone are frozen", PIECED),
        ("*blocks[new : new + frozen])", "*blocks[:frozen])", "new blocks are frozen in place of its own", HELD),
        ("*blocks[new : new + frozen])", "*blocks[frozen:])", "the last blocks are frozen", FROZEN),
    ],
    "folders.py": [
        ("whole.ids[:first], whole.ids[stop:]", "whole.ids[stop:], whole.ids[:first]", "the frame is upside down", FRAME),
        ("lowercase=lower is not False", "lowercase=lower is True", "capitals are kept where nothing is said", PIECES),
        ('("\\u2581" + s, s, s.lower())', '(s, s.lower(), "\\u2581" + s)', "a piece inside a word comes first", TOKENS),
    ],
    "recipes.py": [
        ("load_pretrained(inside, folder, network.new_blocks if part == \"decoder\" else 0)", "inside.eval()",
         "the encoder starts with random weights", TRAINED),
        ("for part in PRETRAINED:", "for part in [*PRETRAINED][:1]:", "the decoder starts with random weights", RUN),
    ],
    "session.py": [
        (" or pretrained_states(self.recipe.model) is not None", "", "going on needs the folder", GOES_ON),
    ],
}  # fmt: skip
