"""Attacks on sequences: r substitutions that move the code most, and the robustness gap under them.

The code's change under a single substitution i -> a is, to first order, J_ia - J_i,x_i, with J the Jacobian of the posterior
mean with respect to one-hot positions. From a sequence attacked so far, of all substitutions at positions that are still as in
the reference the `candidates` with the largest predicted

    sum_d (m_d + (J_ia - J_i,x_i)_d - m_d(x_r))^2 / v_d

are tried, and the one with the largest symmetric KL of the codes stays (largest squared distance of means, where codes are no
Gaussians). With similarity(x, y) the share of equal positions, the gap is

    G_r = E[ sim(x_r, x_a) - sim(x~_r, x~_a) ]                                         (Xiao et al. 2024, Eq. 5)

where x~ is the decoder's mode at a draw of the code, with the same noise for both: at r = 0 it is exactly 0.

References: Ebrahimi et al. 2018 (arXiv 1712.06751), substitutions by gradient; Xiao et al. 2024 (arXiv 2310.19653).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diled.api import evaluating
from diled.distributions import Normal
from diled.draws import seed_from, seeded
from diled.errors import ConfigError
from diled.evaluation.attack import noise_from, skl, squares
from diled.nn.sequence import one_hot
from diled.sequences import lengths

__all__ = ["SubstitutionGap", "agreement", "code_jacobian", "substitution_attack", "substitution_gaps"]


@dataclass(frozen=True, eq=False)
class SubstitutionGap:
    """The robustness gap at r substitutions.

    Attributes:
        substitutions: r; shorter sequences have as many as they have symbols.
        gaps, input_similarity, reconstruction_similarity: (B,), of each reference.
        skl: (B,), reached, in nats; None where codes are no Gaussians.
        reference, attacked: (B, L).
    """

    substitutions: int
    gaps: Tensor
    input_similarity: Tensor
    reconstruction_similarity: Tensor
    skl: Tensor | None
    reference: Tensor
    attacked: Tensor


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
    allowed = torch.zeros(symbols, dtype=torch.bool, device=x.device)
    allowed[list(residues)] = True
    found, now = [x], x
    for _ in range(substitutions):
        mean, jacobian = code_jacobian(encoder, now, symbols)
        own = jacobian.gather(2, now.long()[..., None, None].expand(-1, -1, 1, jacobian.shape[3]))
        predicted = (mean - start.mean.flatten(1))[:, None, None] + jacobian - own
        score = (predicted**2 / variance.flatten(1)[:, None, None]).sum(3)
        open_ = (now == x)[..., None] & (x != 0)[..., None] & allowed & (one_hot(now, symbols) == 0)
        score = score.masked_fill(~open_, float("-inf")).flatten(1)
        tried = score.topk(min(candidates, score.shape[1]), 1)
        now = _best(encoder, start, now, tried.indices, tried.values.isfinite(), symbols)
        found.append(now)
    return found


@torch.no_grad()
def _best(encoder: Any, start: Any, x: Tensor, places: Tensor, valid: Tensor, symbols: int) -> Tensor:
    """Of k substitutions (B, k), numbered position V + symbol, the one that moves each code most from where it started."""
    k = places.shape[1]
    rows = x.repeat_interleave(k, 0)
    position, symbol = (places // symbols).flatten(), (places % symbols).flatten()
    rows[torch.arange(len(rows), device=x.device), position] = symbol
    moved, origin = encoder(rows), start.mean.repeat_interleave(k, 0)
    if isinstance(moved, Normal):
        distance = skl(Normal(origin, start.log_var.expand_as(start.mean).repeat_interleave(k, 0)), moved)
    else:
        distance = squares(origin, moved.mean)
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
    most = max(substitutions)
    with evaluating(model), seeded(seed):
        parts = [
            substitution_attack(model.encoder, part, most, residues, symbols=symbols, candidates=candidates)
            for part in x.split(batch)
        ]
        attacked = [torch.cat(rows) for rows in zip(*parts, strict=True)]
        return [_gap(model, x, attacked[r], r, seed, batch) for r in substitutions]


def _gap(model: Any, x: Tensor, attacked: Tensor, r: int, seed: int, batch: int) -> SubstitutionGap:
    """The gap of attacks that were found."""
    reached, shown = [], []
    for first in range(0, len(x), batch):
        codes = [model.encoder(rows[first : first + batch]) for rows in (x, attacked)]
        decoded = [model.decode(q.sample(noise_from(seed_from(seed, 1), first, q.mean))) for q in codes]
        shown.append(agreement(*decoded))
        if all(isinstance(q, Normal) for q in codes):
            reached.append(skl(*codes))
    before, after = agreement(x, attacked), torch.cat(shown)
    return SubstitutionGap(r, before - after, before, after, torch.cat(reached) if reached else None, x, attacked)
