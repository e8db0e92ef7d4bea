"""Signs of collapse and explosion, looked for while training and told in words.

Active units do not show collapse (they stay at 32 of 32 in a collapsed run with a diffusion prior), so the signs are:
the rate in nats; the reconstruction of codes that were shuffled among the examples (does the decoder listen?); the RMS of
the codes; and the nats that each code dimension carries, 1/2 log(1 + var mean / noise).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from diled.api import Density, NoBound, total
from diled.distributions import Normal
from diled.draws import seeded
from diled.rows import rows_beside_training

__all__ = ["Monitor", "health"]

SEQUENCES = 128
"""Of sequences, at most so many are looked at at once: each has a number for every symbol at all its positions."""


@dataclass
class Monitor:
    """What was seen on held-out data, in nats where nothing else is said."""

    values: dict[str, float] = field(default_factory=dict)

    def warnings(self, progress: float) -> dict[str, str]:
        """Sign -> a plain sentence on what looks wrong; none in the first third of the training, where a warm-up may be
        under way."""
        said: dict[str, str] = {}
        v = self.values
        if progress < 0.34:
            return said
        listens = v.get("shuffled_distortion", 0.0) - v.get("distortion", 0.0)
        if {"distortion", "shuffled_distortion"} <= v.keys() and listens < 0.02 * abs(v["distortion"]):
            said["unused code"] = (
                f"The decoder hardly uses the code: shuffling the codes costs only {listens:.1f} nats of reconstruction. "
                "The posterior has collapsed or is about to; lower the weight of the rate (rate_weight, beta) or "
                "lengthen rate_warmup."
            )
        if v.get("rate", 10.0) < 1.0:
            said["empty code"] = (
                f"The rate is {v['rate']:.2f} nats: the code carries almost nothing. Lower the weight of the rate "
                "(rate_weight, beta)."
            )
        if v.get("code_rms", 1.0) > 30:
            said["growing codes"] = (
                f"The codes are growing (RMS {v['code_rms']:.0f}): nothing holds their scale. "
                "Keep the terminal term, or use the vlb weighting."
            )
        return said


@torch.no_grad()
def health(density: Density, x: Tensor, space: Callable[[Tensor], Tensor] = lambda rows: rows) -> Monitor:
    """Look at a density on held-out examples, all of numbers at once where memory allows.

    Args:
        density: in evaluation mode.
        x: examples (N, *shape).
        space: brings some of them to model space, on the density's device; without it they are there.
    """
    values: dict[str, float] = {}
    first = space(x[:1])
    numbers = first.is_floating_point()
    rows = rows_beside_training(partial(_terms, density), first, len(x) if numbers else min(SEQUENCES, len(x)))
    pieces = x.split(rows)
    parts: Iterable[Tensor] = [space(x)] if len(pieces) == 1 else _Parts(pieces, space)
    try:
        found = [density.terms(part, exact=True) for part in parts]
        terms = {name: torch.cat([each[name] for each in found]) for name in found[0]}
        values["bound"] = total(terms).mean().item()
        rate = {name: t for name, t in terms.items() if name.startswith("rate")}
        if rate:
            values["rate"] = total(rate).mean().item()
    except NoBound:
        values["loss"] = torch.cat([total(density.terms(part)) for part in parts]).mean().item()
    encoder, decoder = getattr(density, "encoder", None), getattr(density, "decoder", None)
    if encoder is None:
        return Monitor(values)
    posteriors = [encoder(part) for part in parts]
    z = torch.cat([posterior.sample() for posterior in posteriors])
    values["code_rms"] = z.pow(2).mean().sqrt().item()
    if isinstance(posteriors[0], Normal) and len(x) > 1:
        mean, var = (torch.cat([getattr(posterior, name) for posterior in posteriors]) for name in ("mean", "var"))
        carried = 0.5 * torch.log1p(mean.var(0) / var.mean(0))
        values["code_nats_per_dim"] = carried.mean().item()
    if decoder is not None:
        shuffled = {"shuffled_distortion": z.roll(1, 0)} if len(x) > 1 else {}  # one example has no other's code
        for name, code in ({"distortion": z} | shuffled).items():
            with seeded(0):  # a diffusion decoder draws noise: the same for both
                some = zip(code.split(rows), parts, strict=True)
                values[name] = torch.cat([decoder(c).nll(part) for c, part in some]).mean().item()
        shown = (decoder(posterior.mean).mean for posterior in posteriors)
        if numbers:
            squares = [(y - part).pow(2).mean().item() * len(y) for y, part in zip(shown, parts, strict=True)]
            values["reconstruction_mse"] = sum(squares) / len(x) / 4
        else:  # symbols
            right = [(y == part)[part != 0] for y, part in zip(shown, parts, strict=True)]
            values["symbol_accuracy"] = torch.cat(right).double().mean().item()
    return Monitor(values)


def _terms(density: Density, x: Tensor) -> dict[str, Tensor]:
    """What a look sees of examples: the terms of the bound, or of the loss where there is none."""
    try:
        return density.terms(x, exact=True)
    except NoBound:
        return density.terms(x)


class _Parts:
    """Parts in model space, made anew each time they are gone through, since all together may be large; with the same draws."""

    def __init__(self, pieces: Sequence[Tensor], space: Callable[[Tensor], Tensor]) -> None:
        self.pieces, self.space = pieces, space

    def __iter__(self) -> Iterator[Tensor]:
        for k, piece in enumerate(self.pieces):
            with seeded(1, k):
                part = self.space(piece)
            yield part
