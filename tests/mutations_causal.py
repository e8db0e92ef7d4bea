"""Small mistakes in what writes sequences symbol by symbol, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_causal.py"
CAUSAL = "test_sequences.py::test_a_causal_transformer_sees_only_what_comes_before"
FORCED = "test_sequences.py::test_drawing_with_kept_keys_is_teacher_forcing_step_by_step"
WITH_CODE = f"{TESTS}::test_kept_keys_with_a_memory_are_teacher_forcing"
MEMORY = f"{TESTS}::test_the_memory_is_a_key_and_a_value_that_every_position_looks_at"
SUM = f"{TESTS}::test_logits_are_those_of_states_of_earlier_symbols"
TIED = f"{TESTS}::test_tied_logits_are_products_with_the_table"
SEARCH = f"{TESTS}::test_a_wide_search_finds_the_likeliest_sequence_and_a_narrow_one_follows_the_likeliest_symbols"
NARROW = f"{TESTS}::test_a_search_keeps_the_likeliest_beginnings"
GOES_ON = f"{TESTS}::test_a_search_goes_on_with_what_may_still_be_the_likeliest"
NUCLEUS = f"{TESTS}::test_draws_at_a_temperature_and_among_the_likeliest_by_hand"
HIDDEN = f"{TESTS}::test_hidden_symbols_are_hidden_in_training_alone"
DRAWS = f"{TESTS}::test_draws_have_their_probabilities_given_the_code"
TOGETHER = f"{TESTS}::test_draws_do_not_depend_on_which_others_have_ended"
ALONE = f"{TESTS}::test_an_encoder_reads_rows_of_one_batch_as_it_reads_them_alone"
BUCKETS = f"{TESTS}::test_batches_have_nearly_equal_lengths_and_every_example_once_an_epoch"
READS = "test_sequence_models.py::test_a_head_reads_what_a_language_model_knows_of_the_whole_sequence"
HEAD = f"{TESTS}::test_buckets_begin_where_a_batch_begins"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "nn/causal.py": [
        ("value=self.start)[:, :-1]", "value=self.start)[:, 1:]", "a position sees itself", CAUSAL),
        ("embed.symbol[now] + embed.position[i]", "embed.symbol[now] + embed.position[0]", "all as the first", FORCED),
        ("self.before + i)", "i)", "the first symbol overwrites the memory", WITH_CODE),
        ("values[:, :, 0] = first[:, 0, 0], first[:, 0, 1]", "values[:, :, 0] = first[:, 0, 1], first[:, 0, 0]",
         "keys and values of the memory change places", WITH_CODE),
        ("h if self.offset is None else h + self.offset)", "h)", "draws know no offset", WITH_CODE),
        ("self.width**-0.5", "self.width**0.5", "the scale of tied logits", TIED),
        ("self.symbols], self.bias)", "self.symbols])", "tied logits without their bias", TIED),
        ("F.pad(x.long(), (1, 0), value=self.start))", "F.pad(x.long(), (0, 1), value=self.start))",
         "the start is read last", READS),
        ("gone & (before != self.start)", "gone", "the start is hidden too", HIDDEN),
        ("if self.word_dropout and self.training:", "if self.word_dropout:", "hidden in use as well", HIDDEN),
        ("wide(logits) / self.temperature", "wide(logits) * self.temperature", "hot is cold", NUCLEUS),
        ("p.cumsum(1) - p >= self.top_p", "p.cumsum(1) >= self.top_p", "the last likely symbol is left out", NUCLEUS),
        ("score[:, 0] = 0.0", "score[:] = 0.0", "all beams are one", SEARCH),
        ("now.new_full(after.shape, END)", "now.new_full(after.shape, 1)", "an end goes on", SEARCH),
        ("(after + score[..., None])", "after", "only the last symbol counts", SEARCH),
        ("symbols.flatten(1).gather(1, best)", "symbols.flatten(1)[:, : best.shape[1]]", "symbols of other beginnings", SEARCH),
        ("view_as(over).gather(1, beam)", "view_as(over)", "beams go on from others", NARROW),
        ("(score < score.masked_fill", "(score > score.masked_fill", "what may still win is over", NARROW),
        ("found[rows] = x[", "found[: len(rows)] = x[", "those that are done are taken for others", GOES_ON),
        ("rows, now = rows[alive], now[alive]", "rows, now = rows[: len(now[alive])], now[alive]",
         "those that go on are taken for others", TOGETHER),
    ],
    "sequences.py": [
        ("x[kept].long()", "x[kept].long().roll(1)", "nats of other symbols", SUM),
        ("masked_scatter(kept, each)", "masked_scatter(kept, each.flip(0))", "nats at other places", SUM),
    ],
    "models/autoregressive.py": [
        ("e[rows, i]), self.code", "e[rows, 0]), self.code", "one draw for all positions", DRAWS),
    ],
    "nn/sequence.py": [
        (".tril(memory.shape[1])", ".tril(0)", "the last symbol before is not seen", MEMORY),
        ("[before[0].to(k.dtype), k]", "[before[1].to(k.dtype), k]", "the memory's value as its key", MEMORY),
        ("mask, h = present(x), self.embed(x)", "mask, h = present(x) | True, self.embed(x)", "the filling is read", ALONE),
    ],
    "training/data.py": [
        ("window[sizes[window].argsort(stable=True)]", "window", "lengths are mixed", BUCKETS),
        ("torch.randperm(whole, generator=generator)", "torch.arange(whole)", "short ones come first", BUCKETS),
        ("order[head:].split(WINDOW * batch)", "order.split(WINDOW * batch)", "some come twice", BUCKETS),
        ("parts = [order[:head]]", "parts = [order[:0]]", "some never come", HEAD),
    ],
}  # fmt: skip
