"""Small mistakes in what is made of the records of DMaaPx, as those of `mutations.py`.

File -> (a piece that occurs once, what it becomes, what this breaks, the test that notices).
"""

from __future__ import annotations

QUESTIONS = "test_questions_dmaapx.py"
PATH = f"{QUESTIONS}::test_the_path_grows_in_one_number_at_a_time"
DESCENT = f"{QUESTIONS}::test_the_descent_is_minus_the_elbo_along_the_path"

MUTATIONS: dict[str, list[tuple[str, str, str, str]]] = {
    "studies/questions_dmaapx.py": [
        ("(columns.count(n), n)", "n", "the widest in the middle", PATH),
        ("n == middle and m > least", "n == middle and m >= least", "the corner twice", PATH),
        ("n > middle and m == most", "n > middle and m == least", "the end at few latent channels", PATH),
        ('metric = f"bound_nats/{examples}"', 'metric = "bound_nats/test"', "training images are test images", DESCENT),
    ],
}
"""File -> changes."""
