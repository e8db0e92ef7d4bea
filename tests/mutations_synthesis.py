"""Small mistakes in synthetic training sets, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_synthesis.py"
THOSE_OF_THE_MODEL = f"{TESTS}::test_samples_are_those_of_the_model"
SHARDS_OR_BATCHES = f"{TESTS}::test_samples_do_not_depend_on_shards_or_batches"
WORKERS = f"{TESTS}::test_workers_make_the_files_of_one"
ENDLESS = f"{TESTS}::test_fresh_samples_are_those_of_an_endless_set"
PIPELINE = f"{TESTS}::test_a_pipeline_is_drawn_as_diffusers_draws_it"
GREY_COPIES = f"{TESTS}::test_binarised_copies_of_grey_test_images_are_found"
ZERO = f"{TESTS}::test_minus_zero_is_zero"
VERIFY = f"{TESTS}::test_verify_finds_changed_bytes_of_equal_number"
CHANGED = f"{TESTS}::test_other_bytes_or_rows_are_refused_by_the_shard"
OTHER_DATA = f"{TESTS}::test_a_pool_of_other_data_is_refused"
LISTS = f"{TESTS}::test_other_data_are_lists_of_their_raw_type"
PROBE = f"{TESTS}::test_the_probe_compares_with_training_data"
ROWS = f"{TESTS}::test_batches_from_a_number_on_are_rows_of_the_series"
BF16 = f"{TESTS}::test_bf16_is_near_fp32_and_is_said"
NO_BF16 = f"{TESTS}::test_bf16_without_instructions_for_it_is_fp32_and_says_so"
WEIGHTS = f"{TESTS}::test_hash_of_the_weights_is_that_of_the_saved_file"
COLOURS = f"{TESTS}::test_datasets_and_open_data_read_the_same_images"
LISTS_TESTS = "test_parquet_lists.py"
AS_ARRAYS = f"{LISTS_TESTS}::test_lists_of_others_are_read_as_arrays_are"
IN_ORDER = f"{LISTS_TESTS}::test_slices_and_chunks_are_read_in_order"
STATED = f"{LISTS_TESTS}::test_one_shard_says_by_itself_what_it_holds"
GREY_SCALE = f"{LISTS_TESTS}::test_grey_values_of_binarised_data_keep_a_scale_of_their_own"
UNTRUE = f"{LISTS_TESTS}::test_statements_that_are_not_true_are_refused"
INDEX = f"{TESTS}::test_folders_of_images_are_indexed"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "api.py": [
        ('precision == "bf16" and has_bf16(kind)', 'precision == "bf16"', "no matter what it takes", NO_BF16),
    ],
    "drawing.py": [
        ("rows, start=start, batch=rows", "rows, batch=rows", "every batch is the first", THOSE_OF_THE_MODEL),
        ("x[max(start - at, 0) : stop - at]", "x[: stop - start]", "a shard begins too early", SHARDS_OR_BATCHES),
        ('"mean": not draw}', '"mean": draw}', "draws for means", THOSE_OF_THE_MODEL),
        (
            '{"steps": steps, "sampler": sampler, "seed"',
            '{"sampler": sampler, "seed"',
            "other steps",
            THOSE_OF_THE_MODEL,
        ),
        ("seed_from(seed, i)) for", "seed_from(seed, i - start)) for", "every batch is the first", PIPELINE),
        ('{"generator": generators}', '{"generator": generators[::-1]}', "noise of other samples", PIPELINE),
        ("set_timesteps(steps, device", "set_timesteps(steps + 1, device", "a step more", PIPELINE),
        ('== "bf16"', '== "fp32"', "the other type", BF16),
        ("computed_in(dtype, model.device.type)", "dtype", "what was asked for, not what was done", NO_BF16),
        (".sample.float()", ".sample.float() * 0.9", "another output", PIPELINE),
        ('{"format": "pt"}', "{}", "the hash of another file", WEIGHTS),
    ],
    "models/sampling.py": [
        ("BlockNoise(seed, first, device", "BlockNoise(seed, start, device", "batches repeat", ROWS),
        ("start + n - first", "n", "a batch too long", ROWS),
    ],
    "synthesizing.py": [
        ("(step * ranks + rank) * batch", "(step + rank) * batch", "ranks repeat each other", ENDLESS),
        ("self.all[self.part :: self.parts]", "self.all[self.part :]", "workers draw each other's shards", WORKERS),
        ("part * int(ranks) + int(rank)", "part + int(rank)", "two processes draw one part", WORKERS),
        ('{"binarize": "none"}', '{"low": spec.low - 8.0}', "distances on another scale", PROBE),
        ("float(raw.std())", "float(raw.var())", "a variance", PROBE),
        ('{"mean": mean[0]', '{"mean": mean[1]', "the distance of real examples", PROBE),
    ],
    "data/shards.py": [
        ("(spec.low, spec.high) == (0, 255)", "spec.low == 0", "a scale of 0 to 16 as a dark picture", LISTS),
        ("np.moveaxis(values, 1, -1)", "np.moveaxis(values, 1, -1)[..., ::-1]", "blue for red", COLOURS),
        ("np.arange(start, start + len(numbers))", "numbers", "samples of another shard", CHANGED),
    ],
    "data/lists.py": [
        ("shape.append(lengths[0])", "shape.insert(1, lengths[0])", "axes in the wrong order", AS_ARRAYS),
        ("if len(chunk)]", "if len(chunk)][::-1]", "groups of rows in the wrong order", IN_ORDER),
        (
            "KEY in (metadata := schema.metadata or {})",
            "KEY in (metadata := {})",
            "what the file says is not read",
            STATED,
        ),
    ],
    "data/opening.py": [
        ('spec.binarize != "none"', "False", "two levels for grey values", GREY_SCALE),
        ("low < spec.low or high > spec.high", "low < spec.low", "values beyond the scale", UNTRUE),
        (
            'return spec.low, spec.high, spec.levels, [f"Values from',
            'return low, high, spec.levels, [f"Values from',
            "the scale of what is there",
            STATED,
        ),
    ],
    "data/synthesis.py": [
        ("(spec.low + spec.high) / 2", "spec.low", "cut elsewhere", GREY_COPIES),
        ("_row(row, kind) in known", "_row(row, kind) not in known", "the others", ZERO),
        ("return not verify or hashlib", "return not verify and hashlib", "all bytes unasked", VERIFY),
        ('(*keys, "low", "high"', '(*keys, "low"', "another scale", OTHER_DATA),
    ],
    "data/indexing.py": [
        ("        start += rows\n", "", "numbers begin anew", INDEX),
        ('!= record["sha256"]', '== ""', "changed files", INDEX),
    ],
}
