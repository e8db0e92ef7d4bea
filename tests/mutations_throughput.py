"""Small mistakes in the measures of a training's speed, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

TESTS = "test_throughput.py"
LAYERS = f"{TESTS}::test_operations_are_those_of_two_layers"
NOTHING = f"{TESTS}::test_counting_changes_nothing"
STEPS = f"{TESTS}::test_only_steps_count"
SPEEDS = f"{TESTS}::test_speeds_are_totals_by_seconds"
PRODUCT = f"{TESTS}::test_a_product_of_n_by_n_takes_two_n_cubed"
GO_ON = f"{TESTS}::test_totals_go_on_and_the_clock_is_that_of_this_session"
DRAWS = f"{TESTS}::test_draws_are_those_without_compiling"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "training/throughput.py": [
        ("torch.autograd.grad(loss(), parameters, allow_unused=True)", "loss()", "the forward pass alone", LAYERS),
        ("buffer.copy_(value)", "pass", "running means of one batch twice", NOTHING),
        ("forked(), Flop", "Flop", "other noise in the first step", NOTHING),
        ("2 if compiled else 1", "1", "the seconds of the compiler", STEPS),
        ("self.seconds += now - self.mark", "self.seconds += now", "seconds since some day", STEPS),
        ("self.mark += time.perf_counter() - start", "pass", "looks and checkpoints as steps", STEPS),
        ("self.examples - self.line[0]", "self.examples", "examples since the start", STEPS),
        ('totals["examples"] / totals["seconds"]', 'totals["seconds"] / totals["examples"]', "an inverse", SPEEDS),
        ('found["flops_per_second"] / peak', 'peak / found["flops_per_second"]', "an inverse share", SPEEDS),
        ("2.0 * side**3", "side**3", "products without sums", PRODUCT),
        ("best = min(best, ", "best = max(0, ", "the last product in place of the fastest", PRODUCT),
    ],
    "training/checkpoints.py": [
        ("**(throughput or {})", "", "a resumed training forgets its speed", GO_ON),
    ],
    "training/compiling.py": [
        ('{"fallback_random": True}', "{}", "other noise than without compiling", DRAWS),
    ],
}
