"""The verb that proposes sequences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diled.verbs.types import Device, Run

if TYPE_CHECKING:
    from diled.optimizing import Designs

__all__ = ["optimize"]


def optimize(
    run: Run,
    *,
    property: str | None = None,
    goal: str | float = "max",
    n: int = 100,
    method: str = "evolution",
    data: str | Path | None = None,
    parent: str | Path | None = None,
    max_mutations: int | None = None,
    fixed: Sequence[str] = (),
    allowed: Sequence[str] = (),
    column: str | None = None,
    start: Literal["train", "top", "prior"] = "train",
    steps: int | None = None,
    leash: float | None = None,
    caution: float = 1.0,
    scale: float | None = None,
    candidates: int = 4,
    members: int = 8,
    keep_known: bool = False,
    seed: int = 0,
    device: Device = "auto",
    out: str | Path | None = None,
) -> Designs:
    """Propose sequences with a property: breed them, or climb in the latent space and decode within constraints; rank.

    Each design comes with its prediction, the ensemble's disagreement on it, the model's bound, the distance to the nearest
    training sequence, and what an oracle of the test split alone predicts: climbs find the errors of their predictor, too.

    Args:
        run: a run's folder or a loaded model of sequences.
        property: the column of measured values; default: the only one.
        goal: max, min, or a number to come close to.
        n: how many.
        method: evolution, ascent, hill, stochastic_hill, mcmc, cycle, ode, or for NOS guidance.
        data: with measured values; default: what the run was trained on.
        column: of data, a table, which holds the sequences; default: as in training data.
        parent: a sequence, or a file with one, that designs are changes of.
        max_mutations: at most so many changes of the parent.
        fixed: positions that stay as they are in the parent, counted from 1, such as 1-5 8.
        allowed: residues that a position may have, such as 39:ACD 41:KR.
        start: where climbs begin: train (random training examples; with a parent, around its code), top (of the best tenth)
            or prior; ode and guidance begin with noise.
        steps: of each climb; default: 200, of ode 100, of evolution 50 generations, of guidance 5.
        leash: weight of the prior's bound against the property, of models without codes of their own bound, both in standard
            deviations over training examples; default: 0.2. ode and guidance draw from the prior instead, and refuse it.
        caution: standard deviations of the ensemble that are taken off a prediction.
        scale: how strongly ode and guidance lead to the property; default: 3. All others refuse it.
        candidates: climbs for each design.
        members: networks of the ensemble.
        keep_known: also propose sequences of the training split.
        seed: of everything.
        device: where to compute.
        out: a .csv file for the list; a .fasta file of the same name comes beside it.

    Returns:
        The designs, the best first, with what was measured of those that are validation or test sequences.

    Raises:
        DiledError: no sequences, no such property, a method that the model does not have, or constraints that nothing meets.
    """
    from diled import optimizing
    from diled.arguments import at_least_one, data_of, model_of
    from diled.latent.optimize import Goal

    at_least_one(n=n, max_mutations=max_mutations)
    optimizing.check_designs(out)
    given: dict[str, Any] = {name: value for name, value in (("leash", leash), ("scale", scale)) if value is not None}
    optimizing.check_used(method, given)
    given |= {"caution": caution, "candidates": candidates, "members": members, "keep_known": keep_known, "seed": seed}
    settings = optimizing.Settings(method, start, steps, **given)
    model = model_of(run, device)
    place = data_of(run, data, model, column=column)
    limits = optimizing.constraints_of(place, parent=parent, most=max_mutations, fixed=fixed, allowed=allowed)
    wish = Goal.parse(property or optimizing.property_of(place), goal)
    found = optimizing.designed(model, place, wish, n, settings, limits)
    if out is not None:
        optimizing.write_designs(found, place.spec, out)
    return found
