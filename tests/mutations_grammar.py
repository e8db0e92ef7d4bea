"""Small mistakes in the grammar of sentences and in its probabilities, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_grammar.py"
BY_HAND = f"{TESTS}::test_a_probability_by_hand"
TWO_BY_HAND = f"{TESTS}::test_two_derivations_by_hand"
SLOWLY = f"{TESTS}::test_probabilities_are_the_sums_of_slow_derivations"
ONE = f"{TESTS}::test_probabilities_sum_to_one"
ENTROPY = f"{TESTS}::test_entropy_is_that_of_derivations_less_that_of_the_choice_between_two"
DRAWS = f"{TESTS}::test_draws_have_the_stated_probabilities"
SEED = f"{TESTS}::test_draws_depend_on_the_seed_only"
FORM = f"{TESTS}::test_sentences_are_well_formed"
AGREE = f"{TESTS}::test_words_agree"
READER = f"{TESTS}::test_attributes_that_a_reader_sees"
NONE = f"{TESTS}::test_what_is_no_sentence"
TABLE = f"{TESTS}::test_the_table_has_no_loops_gaps_or_leftovers"

MUTATIONS = {
    "data/grammar.py": [
        ("return -math.fsum(s.", "return math.fsum(s.", "the entropy's sign", ENTROPY),
        ("math.log(s.probability) for", "math.log2(s.probability) for", "bits, not nats", ENTROPY),
        ("s.probability * math", "math", "the entropy is not weighted by probability", ENTROPY),
        ("math.log(known[text]", "-math.log(known[text]", "the sign of log p", BY_HAND),
        ("weight / sum(options.values())", "weight / max(options.values())", "rules do not sum to one", BY_HAND),
        ("_Sentence(p * q, values)", "_Sentence(q, values)", "p(x | a) in place of p(x)", BY_HAND),
        ("total[text] += p", "total[text] = p", "one derivation of two", TWO_BY_HAND),
        ("total[a + b] += p * q", "total[a + b] += p", "what follows is certain", SLOWLY),
        ('texts = {"": probability}', 'texts = {"": 1.0}', "rules are not weighted", ONE),
        ("if text in known else -math.inf", "if text in known else 0.0", "what is no sentence is certain", NONE),
        ("list(probabilities.values()))[0]", "None)[0]", "draws are uniform", DRAWS),
        ("column.append(value)", "column.insert(0, value)", "labels of other sentences", DRAWS),
        ("random.Random(seed)", "random.Random()", "the seed is ignored", SEED),
        ("found |= {text[1:]:", "found |= {text:", "a blank comes first", FORM),
        ('{"negative": 0.4, "positive": 0.6}', '{"negative": 0.6, "positive": 0.4}', "stated for each other", BY_HAND),
        ('"THING": 9, "THING SPOT": 1}', '"THING": 8, "THING SPOT": 2}', "a weight", TWO_BY_HAND),
        ('"BE[past,many]": {"were"', '"BE[past,many]": {"was"', "number", AGREE),
        ("because they BE[tense,many]", "because it BE[tense,many]", "the pronoun's number", AGREE),
        ('"does not LIKES[positive,many]"', '"do not LIKES[positive,many]"', "the verb's person", READER),
        ('"LIKES[positive,one]": {"loves"', '"LIKES[positive,one]": {"love"', "the verb's person", AGREE),
        ('"WHEN[past]": {"last night"', '"WHEN[past]": {"every time"', "a time of both tenses", AGREE),
        ('"BE[past,one]": {"was"', '"BE[past,one]": {"is"', "sentences of both tenses", ONE),
        ('"GENERAL[negative]": {"PERSON[many] COM', '"GENERAL[negative]": {"EVENT COM', "a loop", TABLE),
    ],
}
