"""The recommendation of `compare`: hand-made figures whose sentence is known."""

import math

import pytest

from diled.evaluation.measure import Measured
from diled.evaluation.recommend import advice, one_or_two_stages, recommend

ONCE = "Each was trained once, so chance in training is not in the errors."


def figures(bound=None, samples=None, mse=None, *, error=0.3, floor=0.7, n=10_000, seconds=None):
    """Figures of one model; what is None is not there."""
    found = {"bound_nats": Measured(None, note="no entropy") if bound is None else Measured(bound, error, n)}
    if samples is not None:
        found |= {"frechet_samples": Measured(samples), "frechet_floor": Measured(floor)}
    if mse is not None:
        found["reconstruction_mse"] = Measured(mse, 0.0002, n)
    if seconds is not None:
        found["train_seconds"] = Measured(seconds)
    return found


def test_one_model_wins_on_both_axes():
    """The figures of the MNIST table: the runner-up is named on each axis, with what it loses."""
    found = {
        "DiLED (EDDPM), default": figures(99.4, 34.8, error=0.2),
        "VAE": figures(105.2, 147.1),
        "LDM": figures(107.8, 69.1),
    }
    assert recommend(found) == (
        "Take DiLED (EDDPM): its bound of 99.4 ± 0.2 nats is 5.8 ± 0.4 nats below that of VAE, the runner-up, and its samples "
        f"(Frechet distance 34.8) are nearest to the data (the runner-up, LDM, 69.1; real data 0.700). {ONCE}"
    )


def test_two_models_win_on_different_axes():
    found = {"DiLED": figures(99.4, 34.8), "VAE": figures(95.0, 147.1), "LDM": figures(107.8, 69.1)}
    assert recommend(found).startswith(
        "Take DiLED for samples (Frechet distance 34.8; the next, LDM, 69.1; real data 0.700), and VAE where the bound "
        "matters (95.0 ± 0.3 nats; the next, DiLED, 4.4 ± 0.4 nats more)."
    )


@pytest.mark.parametrize(("gap", "tied"), [(0.99, True), (1.01, False)])
def test_bounds_closer_than_twice_the_combined_error_are_tied(gap, tied):
    """sqrt(0.3^2 + 0.4^2) = 0.5, so a difference of one nat is the limit."""
    found = {"A": figures(100.0, error=0.3), "B": figures(100.0 + gap, error=0.4)}
    told_apart = "Take A: its bound of 100.0 ± 0.3 nats is 1.0 ± 0.5 nats below that of B, the runner-up."
    tie = "A and B are tied in bound (A 100.0 ± 0.3 nats; B 101.0 ± 0.4 nats): take either."
    assert recommend(found).startswith(tie if tied else told_apart)


@pytest.mark.parametrize(
    ("samples", "tied"),
    [((9.1, 10.0), True), ((8.9, 10.0), False), ((0.1, 0.76), True), ((0.1, 0.78), False)],
)
def test_frechet_distances_within_a_tenth_or_below_the_floor_are_tied(samples, tied):
    """Real data are at 0.7: 0.1 and 0.76 are both as near as these, give or take a tenth."""
    found = {name: figures(100.0, x) for name, x in zip("AB", samples, strict=True)}
    assert recommend(found).startswith(
        "A and B are tied in bound" if tied else "Take A: its bound of 100.0 ± 0.3 nats is tied"
    )


@pytest.mark.parametrize(("n", "tied"), [(360, False), (1500, False), (2000, True), (5000, True)])
def test_real_data_tie_nothing_where_they_are_fewer_than_the_samples(n, tied):
    """Of 100 digits they are at 3.94 by their number alone, where two samples of 2,000 differ by a factor of four."""
    found = {name: figures(100.0, x, floor=3.94) for name, x in (("A", 0.9), ("B", 3.9))}
    for row in found.values():
        row["frechet_samples"] = Measured(row["frechet_samples"].value, n=2000)
        row["frechet_floor"] = Measured(3.94, n=n)
    said = recommend(found)
    assert said.startswith("A and B are tied in bound" if tied else "Take A: its bound of 100.0 ± 0.3 nats is tied")
    assert (f"real data 3.94, of only {n:,} examples" in said) is not tied
    assert "real data 3.94" in said


def test_reconstructions_settle_a_tie_and_then_seconds():
    found = {"A": figures(100.0, 10.0, 0.012, seconds=80.0), "B": figures(100.1, 10.1, 0.008, seconds=20.0)}
    assert recommend(found).startswith(
        "A and B are tied in bound (A 100.0 ± 0.3 nats; B 100.1 ± 0.3 nats) and samples (A 10.0; B 10.1; real data 0.700): "
        "take B, whose reconstructions are nearer (squared error 0.0080 ± 0.0002, A 0.0120 ± 0.0002)."
    )
    found["A"]["reconstruction_mse"] = found["B"]["reconstruction_mse"]
    assert "take B, which was trained faster (20 s, the next 80 s)." in recommend(found)
    found["B"]["train_seconds"] = Measured(79.0)
    assert "real data 0.700): take either." in recommend(found)


def test_better_reconstructions_of_another_are_said():
    said = recommend({"A": figures(90.0, 10.0, 0.012), "B": figures(100.0, 20.0, 0.008)})
    assert said.startswith("Take A:")
    assert "B reconstructs best (squared error 0.0080 ± 0.0002 against 0.0120 ± 0.0002)." in said
    assert "reconstructs best" not in recommend({"A": figures(90.0, 10.0, 0.0082), "B": figures(100.0, 20.0, 0.008)})


def test_an_error_that_the_answer_on_stages_names_is_not_said_again():
    found = {"D": figures(90.0, 10.0, 0.012), "L": figures(100.0, 20.0, 0.008)}
    said = advice(found, {"D": 1, "L": 2})
    assert said[1] == one_or_two_stages(found, {"D": 1, "L": 2})
    assert sum("0.0080 ± 0.0002 against 0.0120 ± 0.0002" in sentence for sentence in said) == 1
    third = advice(found | {"AE": figures(None, 30.0, 0.004)}, {"D": 1, "L": 2})
    assert "AE reconstructs best (squared error 0.0040 ± 0.0002 against 0.0120 ± 0.0002)." in third


def test_codes_as_large_as_the_data_do_not_compete_in_reconstructions():
    found = {"VAE": figures(90.0, 10.0, 0.012), "DDPM / DDIM": figures(100.0, 20.0, 0.0001)}
    assert "reconstructs best" not in recommend(found)
    found = {"VAE": figures(90.0, 10.0, 0.012), "DDPM / DDIM (runs/x)": figures(100.0, 20.0, 0.0001)}
    assert "reconstructs best" not in recommend(found)


def test_models_without_a_bound_compete_with_samples_only():
    said = recommend({"consistency model": figures(None, 5.0), "VAE": figures(90.0, 10.0), "LDM": figures(95.0, 20.0)})
    assert said.startswith(
        "Take consistency model for samples (Frechet distance 5.00; the next, VAE, 10.0; real data 0.700), and VAE where the "
        "bound matters (90.0 ± 0.3 nats; the next, LDM, 5.0 ± 0.4 nats more)."
    )
    assert "consistency model has no bound, so it competes with samples only." in said
    said = recommend({"AE": figures(None, 5.0, 0.01), "DAAE": figures(None, 10.0, 0.02)})
    assert said.startswith(
        "Take AE: its samples (Frechet distance 5.00) are nearest to the data (the runner-up, DAAE, 10.0"
    )
    assert "None has a bound." in said


def test_without_frechet_distances_the_bound_decides_and_without_a_bound_the_error():
    """Vectors and signals have no features to measure samples with."""
    said = recommend({"A": figures(-3.0, mse=0.02, error=0.1), "B": figures(4.0, mse=0.01, error=0.1)})
    assert said.startswith("Take A: its bound of -3.0 ± 0.1 nats is 7.0 ± 0.1 nats below that of B, the runner-up.")
    assert "B reconstructs best" in said
    said = recommend({"AE": figures(None, mse=0.02), "DAAE": figures(None, mse=0.01)})
    assert said.startswith("Take DAAE: its reconstructions (squared error 0.0100 ± 0.0002) are nearest to the data")


def test_a_single_model_is_no_choice():
    assert recommend({"VAE": figures(90.0, 10.0)}) == (
        "VAE alone was measured, so there is no choice to make: a bound of 90.0 ± 0.3 nats and samples at a Frechet distance "
        "of 10.0; real data 0.700."
    )


def test_figures_that_are_not_finite_do_not_win():
    found = {"A": figures(math.nan, math.nan), "B": figures(90.0, 10.0), "C": figures(100.0, 20.0)}
    said = recommend(found)
    assert said.startswith("Take B:")
    assert "Do not trust A: its bound and Frechet distance are not finite." in said
    assert recommend({"A": figures(math.nan), "B": figures(math.inf)}).startswith("No model has a finite figure")
    assert recommend({}).startswith("No model has a finite figure")


def test_few_test_examples_are_a_caveat():
    found = {"A": figures(90.0, n=30), "B": figures(100.0, n=30)}
    assert "With only 30 test examples another split may change the order." in recommend(found)
    found = {"A": figures(90.0, n=1), "B": figures(100.0, n=1)}
    assert "With only 1 test example another split may change the order." in recommend(found)


@pytest.mark.parametrize(
    ("one", "two", "answer"),
    [
        (
            figures(99.4, 34.8, 0.012),
            figures(107.8, 69.1, 0.008),
            "one, D, for the bound (99.4 ± 0.3 nats against 107.8 ± 0.3 nats) and samples (34.8 against 69.1), and two, L, for "
            "the reconstructions (0.0080 ± 0.0002 against 0.0120 ± 0.0002).",
        ),
        (figures(99.4), figures(107.8), "one, D, for the bound (99.4 ± 0.3 nats against 107.8 ± 0.3 nats)."),
        (figures(107.8), figures(99.4), "two, L, for the bound (99.4 ± 0.3 nats against 107.8 ± 0.3 nats)."),
        (figures(99.4), figures(99.5), "the figures tell no difference between one, D, and two, L."),
    ],
)
def test_one_stage_or_two(one, two, answer):
    found = {"D": one, "L": two, "VAE": figures(1.0, 1.0)}
    assert one_or_two_stages(found, {"D": 1, "L": 2}) == f"One stage or two: {answer}"
    assert one_or_two_stages(found, {"D": 1}) is None
    assert one_or_two_stages(found, {}) is None


def texts(bound, mauve, bleu, rate):
    """Figures of one model of text."""
    found = {"bound_nats": Measured(bound, 0.2, 5000), "mauve": Measured(mauve, 0.03), "mauve/floor": Measured(0.95)}
    return found | {"bleu": Measured(bleu), "rate_nats": Measured(rate)}


def test_models_of_text_compete_with_mauve_and_bleu_and_an_idle_code_is_named():
    found = {"DiLED (EDDPM), default": texts(60, 0.8, 62, 30), "VAE": texts(40, 0.3, 5, 0.2)}
    assert recommend(found) == (
        "Take DiLED (EDDPM) for samples (1 - MAUVE 0.20 ± 0.03; the next, VAE, 0.50 ± 0.04 more; real data 0.0500), and VAE "
        "where the bound matters (40.0 ± 0.2 nats; the next, DiLED (EDDPM), 20.0 ± 0.3 nats more). The code of VAE says "
        "nothing (a rate of 0.20 nats): it writes without listening, so it neither reconstructs nor represents, and is "
        f"taken for its bound alone. {ONCE}"
    )
    found["VAE"] = texts(60, 0.8, 30, 20)
    assert "whose reconstructions are nearer (100 - BLEU 38.0, VAE 70.0)" in recommend(found)


def test_mauve_within_its_errors_is_a_tie_and_few_texts_are_told_apart_by_bleu():
    """Of 300 texts each, two sets of one distribution had 0.863 and 0.830."""
    found = {"A": texts(60, 0.863, 50, 30), "B": texts(60, 0.790, 50, 30)}
    assert "are tied in bound" in recommend(found)
    found["B"] = texts(60, 0.77, 50, 30)
    assert recommend(found).startswith("Take A:")
    for one, bleu in (("A", 20), ("B", 90)):
        found[one] = {"bound_nats": Measured(40.0, 0.5, 15), "bleu": Measured(bleu, n=15)}
    assert "take B, whose reconstructions are nearer (100 - BLEU 10.0, A 80.0)" in recommend(found)
