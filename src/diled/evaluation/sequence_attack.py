"""Attacks on sequences: r substitutions that move the code most, and the robustness gap under them.

The code's change under a single substitution i -> a is, to first order, J_ia - J_i,x_i, with J the Jacobian of the posterior
mean with respect to one-hot positions. An encoder that begins with a table E (V, W) of its symbols has J_ia = E_a G_i, with G_i
(W, D) the Jacobian with respect to the vector at position i: of thousands of tokens, J itself is never formed. From a sequence
attacked so far, of all substitutions at positions that are as in the reference the `candidates` with the largest predicted

    sum_d (m_d + (J_ia - J_i,x_i)_d - m_d(x_r))^2 / v_d

are tried, and the one with the largest symmetric KL of the codes stays (largest squared distance of means, where codes are no
Gaussians). With similarity(x, y) the share of equal positions, the gap is

    G_r = E[ sim(x_r, x_a) - sim(x~_r, x~_a) ]                                         (Xiao et al. 2024, Eq. 5)

where x~ is the decoder's mode at a draw of the code, with the same noise for both: at r = 0 it is exactly 0.

References: Ebrahimi et al. 2018 (arXiv 1712.06751), substitutions by gradient; Xiao et al. 2024 (arXiv 2310.19653).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diled.api import evaluating
from diled.distributions import Normal
from diled.draws import seed_from, seeded
from diled.errors import ConfigError
from diled.evaluation.attack import noise_from, skl, squares
from diled.nn.pretrained import PretrainedStates
from diled.nn.sequence import Embedding, one_hot
from diled.sequences import END, lengths, trimmed

__all__ = [
    "SubstitutionGap",
    "Table",
    "agreement",
    "code_jacobian",
    "substitution_attack",
    "substitution_gaps",
    "table_jacobian",
    "table_of",
]

NUMBERS = 2**23
"""Of the Jacobian with respect to vectors, as many as are held at once: 32 MiB in 32 bits, twice while they are stacked."""
ROWS = 1024
"""Rows that are encoded at once, of candidates."""


@dataclass(frozen=True, eq=False)
class SubstitutionGap:
    """The robustness gap at r substitutions.

    Attributes:
        substitutions: r; shorter sequences have as many as they have symbols.
        gaps, input_similarity, reconstruction_similarity: (B,), of each reference.
        skl: (B,), reached, in nats; None where codes are no Gaussians.
        reference, attacked: (B, L).
        decoded: what becomes of both, (B, L) each.
    """

    substitutions: int
    gaps: Tensor
    input_similarity: Tensor
    reconstruction_similarity: Tensor
    skl: Tensor | None
    reference: Tensor
    attacked: Tensor
    decoded: tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Table:
    """The table of symbols that an encoder begins with.

    Attributes:
        vectors: E (V, W).
        modules: of which one is called once, with the symbols or tokens of all rows; it returns their vectors.
        places: rows (B, L) -> at which of the vectors their symbols are, (L,).
    """

    vectors: Tensor
    modules: Sequence[nn.Module]
    places: Callable[[Tensor], Tensor]


def table_of(encoder: Any) -> Table | None:
    """The table that an encoder begins with; None where it has none, or one of other tokens than the data's."""
    network = getattr(encoder, "network", encoder)
    embed = getattr(network, "embed", None)
    if isinstance(embed, Embedding):
        return Table(embed.symbol.detach(), [embed], lambda x: torch.arange(x.shape[1], device=x.device))
    if not isinstance(embed, PretrainedStates) or network.reread is not None:
        return None
    table = embed.model.get_input_embeddings()  # type: ignore[operator]
    shared = [module for module in embed.model.modules() if getattr(module, "weight", None) is table.weight]
    return Table(table(embed.tokens).detach(), shared, lambda x: embed.read(x.long())[2])


def agreement(x: Tensor, y: Tensor) -> Tensor:
    """The share of equal positions among those up to the longer one's end, (B,)."""
    size = torch.maximum(lengths(x), lengths(y)).clamp(min=1)
    seen = torch.arange(x.shape[1], device=x.device) < size[:, None]
    return ((x == y) & seen).sum(1) / size


def code_jacobian(encoder: Any, x: Tensor, symbols: int) -> tuple[Tensor, Tensor]:
    """The posterior means (B, D) of rows (B, L), and their Jacobian (B, L, V, D) with respect to one-hot positions."""
    with torch.enable_grad():
        p = one_hot(x, symbols).requires_grad_(True)
        mean = encoder(p).mean.flatten(1)
        slopes = [torch.autograd.grad(mean[:, d].sum(), p, retain_graph=True)[0] for d in range(mean.shape[1])]
    return mean.detach(), torch.stack(slopes, -1)


def table_jacobian(encoder: Any, x: Tensor, table: Table) -> tuple[Tensor, Tensor]:
    """The posterior means (B, D) of rows (B, L), and their Jacobian G (B, l, W, D) with respect to the vectors of symbols.

    Positions go up to l, the first end of the longest row, or L.
    """
    short, found = trimmed(x), []

    def tap(module: nn.Module, arguments: Any, vectors: Tensor) -> Tensor:
        found.append(vectors.detach().requires_grad_(True))
        return found[-1]

    handles = [module.register_forward_hook(tap) for module in table.modules]
    try:
        with torch.enable_grad():
            mean = encoder(short).mean.flatten(1)
            sums = mean.sum(0).unbind()
    finally:
        for handle in handles:
            handle.remove()
    (vectors,), places = found, table.places(short)
    slopes = [torch.autograd.grad(each, vectors, retain_graph=True)[0][:, places] for each in sums]
    return mean.detach(), torch.stack(slopes, -1)


def substitution_attack(
    encoder: Any, x: Tensor, substitutions: int, residues: Sequence[int], *, symbols: int, candidates: int = 32
) -> list[Tensor]:
    """Rows (B, L) with 0, 1, ..., r substitutions by residues.

    Args:
        encoder: rows, or probabilities (B, L, V), -> q(z | x).
        x: references (B, L).
        substitutions: r.
        residues: symbols that may come in.
        symbols: V.
        candidates: substitutions that are tried at each step.

    Raises:
        ConfigError: a negative number of substitutions.
    """
    if substitutions < 0:
        raise ConfigError(f"substitutions = {substitutions}: an attack has none or more.")
    with torch.no_grad():
        start = encoder(x)
    variance = start.var if isinstance(start, Normal) else torch.ones_like(start.mean)
    table, origin, variance = table_of(encoder), start.mean.flatten(1), variance.flatten(1)
    known = sorted(set(residues))
    scores = (
        partial(_scores, symbols=symbols)
        if table is None
        else partial(_table_scores, table=table, known=known, reference=x)
    )
    allowed = torch.zeros(symbols, dtype=torch.bool, device=x.device)
    allowed[known] = True
    found, now = [x], x
    for _ in range(substitutions):
        places, values = [], []
        for i, score in enumerate(scores(encoder, now, origin, variance)):
            open_ = ((now[i] == x[i]) & (x[i] != END))[:, None] & allowed
            open_ = open_.scatter(1, now[i].long()[:, None], False)
            tried = score.masked_fill(~open_, float("-inf")).flatten().topk(min(candidates, score.numel()))
            places.append(tried.indices)
            values.append(tried.values)
        now = _best(encoder, start, now, torch.stack(places), torch.stack(values).isfinite(), symbols)
        found.append(now)
    return found


def _scores(encoder: Any, x: Tensor, origin: Tensor, variance: Tensor, *, symbols: int) -> Iterator[Tensor]:
    """The predicted distance of every substitution from `origin` (B, D), (L, V) for each row, from the whole Jacobian."""
    mean, jacobian = code_jacobian(encoder, x, symbols)
    own = jacobian.gather(2, x.long()[..., None, None].expand(-1, -1, 1, jacobian.shape[3]))
    predicted = (mean - origin)[:, None, None] + jacobian - own
    yield from (predicted**2 / variance[:, None, None]).sum(3)


def _table_scores(
    encoder: Any, x: Tensor, origin: Tensor, variance: Tensor, *, table: Table, known: list[int], reference: Tensor
) -> Iterator[Tensor]:
    """The same by a table, of the V' symbols `known` at the positions that are as in the reference; all else is 0.

    It takes L V' W D multiplications a row, and holds `NUMBERS` of the Jacobian, V' D and L V numbers beside the table.
    """
    vectors = table.vectors[known]
    rows = max(1, NUMBERS // (x.shape[1] * vectors.shape[1] * origin.shape[1]))
    for first in range(0, len(x), rows):
        part = slice(first, first + rows)
        mean, slopes = table_jacobian(encoder, x[part], table)
        for row, ref, moved, slope, v in zip(
            x[part], reference[part], mean - origin[part], slopes, variance[part], strict=True
        ):
            score = moved.new_zeros(len(row), len(table.vectors))
            for i in ((row == ref) & (row != END)).nonzero()[:, 0].tolist():
                rest = moved - table.vectors[row[i].long()] @ slope[i]
                predicted = torch.addmm(rest, vectors, slope[i])
                score[i, known] = predicted.square() @ v.reciprocal()
            yield score


@torch.no_grad()
def _best(encoder: Any, start: Any, x: Tensor, places: Tensor, valid: Tensor, symbols: int) -> Tensor:
    """Of k substitutions (B, k), numbered position V + symbol, the one that moves each code most from where it started."""
    k = places.shape[1]
    rows = x.repeat_interleave(k, 0)
    position, symbol = (places // symbols).flatten(), (places % symbols).flatten()
    rows[torch.arange(len(rows), device=x.device), position] = symbol
    origin = start.mean.repeat_interleave(k, 0)
    noise = start.log_var.expand_as(start.mean).repeat_interleave(k, 0) if isinstance(start, Normal) else origin
    each = []
    for part, mean, log_var in zip(rows.split(ROWS), origin.split(ROWS), noise.split(ROWS), strict=True):
        q = encoder(part)
        each.append(skl(Normal(mean, log_var), q) if isinstance(q, Normal) else squares(mean, q.mean))
    distance = torch.cat(each)
    distance = distance.unflatten(0, (-1, k)).masked_fill(~valid, float("-inf"))
    best = rows.unflatten(0, (-1, k))[torch.arange(len(x), device=x.device), distance.argmax(1)]
    return torch.where(valid.any(1)[:, None], best, x)


@torch.no_grad()
def substitution_gaps(
    model: Any,
    x: Tensor,
    *,
    substitutions: Sequence[int] = (1, 2, 4),
    residues: Sequence[int],
    symbols: int,
    candidates: int = 32,
    seed: int = 0,
    batch: int = 128,
) -> list[SubstitutionGap]:
    """The robustness gap at each number of substitutions.

    Args:
        model: an autoencoder of sequences.
        x: references (B, L).
        substitutions: numbers of them.
        residues, symbols, candidates: see `substitution_attack`.
        seed: of the codes that are decoded.
        batch: references in one pass.
    """
    most, order = max(substitutions), lengths(x).argsort()  # rows of alike lengths together: what fills up costs
    with evaluating(model), seeded(seed):
        parts = [
            substitution_attack(model.encoder, part, most, residues, symbols=symbols, candidates=candidates)
            for part in x[order].split(batch)
        ]
        back = order.argsort()
        attacked = [torch.cat(rows)[back] for rows in zip(*parts, strict=True)]
        return [_gap(model, x, attacked[r], r, seed, batch) for r in substitutions]


def _gap(model: Any, x: Tensor, attacked: Tensor, r: int, seed: int, batch: int) -> SubstitutionGap:
    """The gap of attacks that were found."""
    reached, shown = [], []
    for first in range(0, len(x), batch):
        codes = [model.encoder(rows[first : first + batch]) for rows in (x, attacked)]
        shown.append([model.decode(q.sample(noise_from(seed_from(seed, 1), first, q.mean))) for q in codes])
        if all(isinstance(q, Normal) for q in codes):
            reached.append(skl(*codes))
    plain, changed = (torch.cat(rows) for rows in zip(*shown, strict=True))
    before, after = agreement(x, attacked), agreement(plain, changed)
    moved = torch.cat(reached) if reached else None
    return SubstitutionGap(r, before - after, before, after, moved, x, attacked, (plain, changed))
