"""Which model to take: the figures of several models as a sentence with its reason.

The bound and the samples decide, reconstructions settle a tie. Two figures are tied

    with standard errors s_a, s_b     where |a - b| < 2 sqrt(s_a^2 + s_b^2)
    Frechet distances                 where |a - b| is below a tenth of the larger, or neither exceeds real data by a tenth

The distance of fewer examples is larger by their bias, so real data tie nothing where they are fewer than the samples.
Samples of text have 1 - MAUVE, which has a standard error, in place of the Frechet distance, and reconstructions 100 - BLEU in
place of the squared error.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from diled.evaluation.measure import Measured
from diled.family import FAMILY, NoiseCodeConfig

__all__ = ["Found", "advice", "one_or_two_stages", "recommend"]

Found = Mapping[str, Mapping[str, Measured]]
"""Model -> metric -> figure."""

FEW = 200
"""Test examples below which the sentence is a guess, and says so."""
ALIKE = 0.1
"""Share of a Frechet distance that is taken for chance, since it has no standard error."""
IDLE = 0.5
"""Nats of a rate below which a code says nothing."""
NOISE_CODES = tuple(kind.row.title for kind in FAMILY.values() if issubclass(kind, NoiseCodeConfig))
"""Models whose code is as large as the data, so that they reconstruct without having to represent."""


def recommend(found: Found) -> str:
    """Which model to take, with the reason in numbers, and what speaks against trusting it.

    Args:
        found: model -> metric -> `Measured`: `bound_nats`, `frechet_samples`, `frechet_floor` and `reconstruction_mse` are
            read. A figure that is missing, None or not finite does not compete.
    """
    return " ".join(advice(found))


def advice(found: Found, stages: Mapping[str, int] | None = None) -> list[str]:
    """The sentences of `recommend`, the recommendation first.

    Args:
        found: see `recommend`.
        stages: see `one_or_two_stages`, whose sentence comes second; what it says of reconstructions is not said again.
    """
    bound, samples, pictures = _axes(found)
    axes = [axis for axis in (bound, samples) if axis.figures] or [pictures]
    if not axes[0].figures:
        return ["No model has a finite figure, so there is nothing to recommend."]
    if len(found) == 1:
        return [_alone(next(iter(found)), bound, samples, pictures)]
    taken, said = _choose(axes, pictures, found)
    answer = one_or_two_stages(found, stages or {})
    remarks = _remarks(taken, bound, samples, pictures, found)
    best = _reconstructs_best(taken, pictures)
    if best and not (answer and f"({best[1]})" in answer):
        remarks = [f"{_short(best[0])} reconstructs best ({pictures.measure} {best[1]}).", *remarks]
    return [said, *([answer] if answer else []), *remarks]


def one_or_two_stages(found: Found, stages: Mapping[str, int]) -> str | None:
    """Whether training at once or in two stages did better; None where only one kind was trained.

    Args:
        found: see `recommend`.
        stages: model -> 1 or 2, for the models that differ in nothing but that.
    """
    axes = [axis.among(stages) for axis in _axes(found)]
    pair = [_best({name for name, n in stages.items() if n == k}, axes) for k in (1, 2)]
    if None in pair:
        return None
    one, two = pair
    assert one is not None
    assert two is not None
    won: dict[str, list[str]] = {one: [], two: []}
    answer = {one: f"one, {_short(one)},", two: f"two, {_short(two)},"}
    for axis in axes:
        if one in axis.figures and two in axis.figures and not axis.tied(one, two):
            first, second = sorted((one, two), key=lambda name: axis.figures[name].low)
            won[first].append(f"{axis.what} ({axis.said(first)} against {axis.said(second)})")
    said = [f"{answer[name]} for the {_and(reasons)}" for name, reasons in won.items() if reasons]
    if not said:
        return f"One stage or two: the figures tell no difference between {answer[one]} and {answer[two][:-1]}."
    return f"One stage or two: {', and '.join(said)}."


@dataclass(frozen=True)
class _Figure:
    """A finite number, lower is better."""

    low: float
    error: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class _Axis:
    """One figure of all models.

    Attributes:
        what: its name in a sentence.
        unit: behind the number.
        figures: name -> figure, of the models that have a finite one.
        floor: of real data; None for figures with standard errors.
        measure: what the number is.
    """

    what: str
    unit: str
    figures: dict[str, _Figure]
    floor: _Figure | None = None
    relative: bool = False
    measure: str = ""

    def among(self, names: Collection[str]) -> _Axis:
        """The same of these models only."""
        figures = {name: figure for name, figure in self.figures.items() if name in names}
        return replace(self, figures=figures)

    def tied(self, a: str, b: str) -> bool:
        """Whether two models cannot be told apart."""
        x, y = self.figures[a], self.figures[b]
        gap = abs(x.low - y.low)
        if self.relative:
            floor = -math.inf if self.floor is None or self.few() else self.floor.low
            both_there = max(x.low, y.low) <= (1 + ALIKE) * floor
            return both_there or gap < ALIKE * max(x.low, y.low)
        return gap == 0 or gap < 2 * math.hypot(x.error or 0.0, y.error or 0.0)

    def ranked(self) -> list[str]:
        """Names, the best first."""
        return sorted(self.figures, key=lambda name: self.figures[name].low)

    def leaders(self) -> list[str]:
        """The best and all that are tied with it."""
        ranked = self.ranked()
        return [name for name in ranked if self.tied(ranked[0], name)]

    def said(self, name: str) -> str:
        """The figure in words: `99.4 ± 0.2 nats`."""
        figure = self.figures[name]
        return _number(figure.low, figure.error) + self.unit

    def gap(self, a: str, b: str) -> str:
        """By how much b loses against a, with the combined error: `5.8 ± 0.4 nats`."""
        x, y = self.figures[a], self.figures[b]
        error = None if self.relative else math.hypot(x.error or 0.0, y.error or 0.0)
        return _number(y.low - x.low, error or None) + self.unit

    def few(self) -> int | None:
        """The examples behind the floor where they are fewer than the samples, so that it is too high."""
        n = None if self.floor is None else self.floor.n
        return n if n is not None and any((figure.n or 0) > n for figure in self.figures.values()) else None

    def real(self) -> str:
        """The floor in words."""
        if self.floor is None:
            return ""
        few = self.few()
        return f"; real data {_number(self.floor.low)}" + ("" if few is None else f", of only {few:,} examples")


def _axes(found: Found) -> tuple[_Axis, _Axis, _Axis]:
    """Bound, samples and reconstructions."""

    def finite(metric: str) -> dict[str, _Figure]:
        figures = {}
        for name, metrics in found.items():
            m = metrics.get(metric, Measured(None))
            if m.value is not None and math.isfinite(m.value):
                error = m.stderr if m.stderr is not None and math.isfinite(m.stderr) else None
                figures[name] = _Figure(m.value, error, m.n)
        return figures

    def short_of(metric: str, whole: float) -> dict[str, _Figure]:
        return {name: replace(f, low=whole - f.low) for name, f in finite(metric).items()}

    text = any(metric in metrics for metrics in found.values() for metric in ("mauve", "bleu"))
    if text:
        drawn, real = short_of("mauve", 1.0), short_of("mauve/floor", 1.0)
        shown, measures = short_of("bleu", 100.0), ("1 - MAUVE", "100 - BLEU")
    else:
        drawn, real, measures = (
            finite("frechet_samples"),
            finite("frechet_floor"),
            ("Frechet distance", "squared error"),
        )
        shown = {name: f for name, f in finite("reconstruction_mse").items() if not _noise_coded(name)}
    floor = min(real.values(), key=lambda figure: figure.low, default=None)
    return (
        _Axis("bound", " nats", finite("bound_nats")),
        _Axis("samples", "", drawn, floor, relative=not text, measure=measures[0]),
        _Axis("reconstructions", "", shown, measure=measures[1]),
    )


def _choose(axes: Sequence[_Axis], pictures: _Axis, found: Found) -> tuple[list[str], str]:
    """The models to take, and the sentence."""
    leaders = [axis.leaders() for axis in axes]
    everywhere = [name for name in leaders[0] if all(name in others for others in leaders)]
    if len(everywhere) == 1:
        name = everywhere[0]
        return everywhere, f"Take {_short(name)}: {', and '.join(_reason(axis, name) for axis in axes)}."
    if everywhere:
        return _broken_tie(everywhere, axes, pictures, found)
    bound, samples = axes
    by_bound = min(leaders[0], key=lambda name: samples.figures.get(name, _Figure(math.inf)).low)
    by_samples = min(leaders[1], key=lambda name: bound.figures.get(name, _Figure(math.inf)).low)
    return [by_samples, by_bound], (
        f"Take {_short(by_samples)} for samples ({samples.measure} {samples.said(by_samples)}"
        f"{_next(samples, by_samples)}{samples.real()}), and {_short(by_bound)} where the bound matters "
        f"({bound.said(by_bound)}{_next(bound, by_bound)})."
    )


def _next(axis: _Axis, name: str) -> str:
    """The best of the others on this axis, and by how much it loses."""
    others = [other for other in axis.ranked() if other != name]
    if not others:
        return ""
    if axis.tied(name, others[0]):
        return f", a tie with {_short(others[0])}, {axis.said(others[0])}"
    worse = axis.said(others[0]) if axis.relative else f"{axis.gap(name, others[0])} more"
    return f"; the next, {_short(others[0])}, {worse}"


def _broken_tie(tied: list[str], axes: Sequence[_Axis], pictures: _Axis, found: Found) -> tuple[list[str], str]:
    """A tie, settled by reconstructions, then by speed, or not at all."""
    figures = _and(
        [
            f"{axis.what} ({'; '.join(f'{_short(name)} {axis.said(name)}' for name in tied)}{axis.real()})"
            for axis in axes
        ]
    )
    said = f"{_and([_short(name) for name in tied])} are tied in {figures}"
    some = pictures.among(tied)
    if some is not axes[0] and len(some.figures) > 1 and len(some.leaders()) == 1:
        first, second = some.ranked()[:2]
        return [first], (
            f"{said}: take {_short(first)}, whose reconstructions are nearer ({some.measure} {some.said(first)}, "
            f"{_short(second)} {some.said(second)})."
        )
    seconds = {name: found[name].get("train_seconds", Measured(None)).value or math.inf for name in tied}
    fast, slow = sorted(seconds.values())[:2]
    if fast < 0.8 * slow and math.isfinite(slow):
        name = min(tied, key=lambda name: seconds[name])
        return [name], f"{said}: take {_short(name)}, which was trained faster ({fast:.0f} s, the next {slow:.0f} s)."
    return tied, f"{said}: take {'either' if len(tied) == 2 else 'any of them'}."


def _reason(axis: _Axis, name: str) -> str:
    """Why this model, on one axis on which it is best or tied."""
    others = [other for other in axis.ranked() if other != name]
    tied = [other for other in others if axis.tied(name, other)]
    said = f"its bound of {axis.said(name)} is"
    if axis.what != "bound":
        said = f"its {axis.what} ({axis.measure} {axis.said(name)}) are"
    if not others:
        return f"{said} the only figure of its kind here"
    if tied:
        figures = ", ".join(f"{_short(other)} {axis.said(other)}" for other in tied)
        return f"{said} tied for the best ({figures}{axis.real()})"
    second = others[0]
    if axis.what == "bound":
        return f"{said} {axis.gap(name, second)} below that of {_short(second)}, the runner-up"
    return f"{said} nearest to the data (the runner-up, {_short(second)}, {axis.said(second)}{axis.real()})"


def _reconstructs_best(taken: list[str], pictures: _Axis) -> tuple[str, str] | None:
    """The model that reconstructs better than all that are taken, and its figure against theirs."""
    best = pictures.leaders()[:1]
    rivals = [name for name in taken if name in pictures.figures]
    if not best or not rivals or any(pictures.tied(best[0], name) for name in rivals):
        return None
    return best[0], f"{pictures.said(best[0])} against {pictures.said(rivals[0])}"


def _remarks(taken: list[str], bound: _Axis, samples: _Axis, pictures: _Axis, found: Found) -> list[str]:
    """What else to know before trusting the choice."""
    said = []
    for name, m in found.items():
        rate = _value(m, "rate_nats")
        if name in taken and rate is not None and rate < IDLE and "bleu" in m:
            said.append(
                f"The code of {_short(name)} says nothing (a rate of {rate:.2f} nats): it writes without listening, so it "
                "neither reconstructs nor represents, and is taken for its bound alone."
            )
        axes = (("bound_nats", "bound", bound), ("frechet_samples", "Frechet distance", samples))
        broken = [what for metric, what, axis in axes if _value(m, metric) is not None and name not in axis.figures]
        if broken:
            verb = "is" if len(broken) == 1 else "are"
            said.append(f"Do not trust {_short(name)}: its {_and(broken)} {verb} not finite.")
    without = [name for name, m in found.items() if _value(m, "bound_nats") is None]
    if without and bound.figures:
        verb = "has no bound, so it competes" if len(without) == 1 else "have no bound, so they compete"
        said.append(f"{_and([_short(name) for name in without])} {verb} with samples only.")
    elif without:
        said.append("None has a bound.")
    n = min((m["bound_nats"].n or FEW for m in found.values() if "bound_nats" in m), default=FEW)
    few = f"With only {n} test example{'s' * (n > 1)} another split may change the order. " if n < FEW else ""
    said.append(f"{few}Each was trained once, so chance in training is not in the errors.")
    return said


def _alone(name: str, bound: _Axis, samples: _Axis, pictures: _Axis) -> str:
    figures = []
    if bound.figures:
        figures.append(f"a bound of {bound.said(name)}")
    if samples.figures:
        figures.append(f"samples at a {samples.measure} of {samples.said(name)}{samples.real()}")
    if pictures.figures and not figures:
        figures.append(f"reconstructions with a {pictures.measure} of {pictures.said(name)}")
    return f"{_short(name)} alone was measured, so there is no choice to make: {_and(figures)}."


def _best(names: Collection[str], axes: Sequence[_Axis]) -> str | None:
    """The one of these models that stands for them: the best on the first axis that any of them has."""
    return next((some.ranked()[0] for some in (axis.among(names) for axis in axes) if some.figures), None)


def _value(metrics: Mapping[str, Measured], metric: str) -> float | None:
    return metrics[metric].value if metric in metrics else None


def _noise_coded(name: str) -> bool:
    return any(name == title or name.startswith(f"{title} (") for title in NOISE_CODES)


def _short(name: str) -> str:
    """A model's name within a sentence."""
    return name.replace(", default", "", 1)


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _number(value: float, error: float | None = None) -> str:
    """Rounded to the first digit of the error, or to three digits."""
    if error:
        decimals = min(6, max(0, -math.floor(math.log10(error))))
        return f"{value:,.{decimals}f} ± {error:,.{decimals}f}"
    size = abs(value)
    decimals = 0 if size >= 1000 else 1 if size >= 10 else 3 if size == 0 else min(6, 2 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"
