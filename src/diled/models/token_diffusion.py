"""Diffusion over symbols: hide them one after another, and learn to fill them in; with property guidance as in NOS.

Forward, the positions of a row are hidden in random order. With k of L hidden,

    -log p(x) <= E_{k ~ U{1..L}} E_order [ L / k  sum_{i hidden} -log p(x_i | what is not hidden) ]

which is the bound of an autoregressive model in random order (Hoogeboom et al. 2022, Eq. 4 and 7), and of masked diffusion in
continuous time with any schedule (Shi et al. 2024; Sahoo et al. 2024). A row is L symbols with the filling after the end.

Guidance (Gruver et al. 2023, section 4): before symbols are drawn, K steps on the network's hidden states h' from h,

    h' <- h' - rate grad [ KL( p(. | h) || p(. | h') ) - scale f(mean h') ] + sqrt(2 rate temperature) e

where f predicts a property from the mean of the hidden states.

References: Austin et al. 2021 (arXiv 2107.03006); Hoogeboom et al. 2022 (arXiv 2110.02037); Sahoo et al. 2024 (arXiv
2406.07524); Shi et al. 2024 (arXiv 2406.04329); Gruver et al. 2023 (arXiv 2305.20009).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from diled.api import Density, Noise, Posterior, Terms, normal_noise, sum_dims
from diled.diffusion.diffusion import stratified_times
from diled.draws import drawn_uniform
from diled.errors import ConfigError
from diled.models.properties import PropertyHead
from diled.nn.sequence import MaskedTransformer
from diled.sequences import END, cut, kept_nll, pick

__all__ = ["Guidance", "TokenDiffusion"]


@dataclass(frozen=True)
class Guidance:
    """How samples are led to a property.

    Args:
        value: means of hidden states (B, width) -> (B,), to be made large.
        scale: weight of the value against the divergence from the unguided prediction.
        steps: K, gradient steps before symbols are drawn.
        rate: their size.
        temperature: of the noise on them.
    """

    value: Callable[[Tensor], Tensor]
    scale: float = 1.0
    steps: int = 5
    rate: float = 0.5
    temperature: float = 0.0


class TokenDiffusion(Density):
    """A density of rows (B, L) by filling in hidden symbols.

    Args:
        network: a row with hidden symbols -> hidden states -> logits.
        length: L.
        steps: of the sampler, at most L; None: L, one position at a time, which is the exact chain.
        head: reads properties from the mean of the hidden states; trained on rows with hidden symbols.
    """

    def __init__(
        self, network: MaskedTransformer, length: int, *, steps: int | None = None, head: PropertyHead | None = None
    ) -> None:
        super().__init__()
        self.network, self.length, self.steps, self.head = network, length, steps, head

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns that the head learns from."""
        return self.head.columns if self.head is not None else ()

    def sampling_steps(self) -> int:
        """Steps of the sampler."""
        return min(self.steps or self.length, self.length)

    def terms(
        self,
        q: Tensor | Posterior,
        *,
        exact: bool = False,
        progress: Tensor | float = 1.0,
        labels: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Terms:
        """`diffusion`, and in training the head's errors as `extra/property/...`."""
        if not isinstance(q, Tensor):
            return self.terms_of_sample(q, exact=exact, progress=progress)
        hidden, count = self.hide(q.shape[0], q.device)
        states = self.network.hidden(torch.where(hidden, self.network.mask, q.long()))
        nll = kept_nll(self.network.out(states[hidden]), q, hidden)
        found = {"diffusion": self.length / count * sum_dims(nll)}
        if self.head is not None and not exact:
            errors = self.head.errors(states.mean(1), labels)
            found |= {f"extra/property/{column}": self.head.weight * error for column, error in errors.items()}
        return found

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Means of the hidden states of rows (B, L), none hidden, (B, width): what the head reads a property from."""
        return self.network.hidden(x.long()).float().mean(1)

    def hide(self, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Which positions are hidden, (n, L), and how many, (n,): stratified over the batch."""
        like = torch.zeros((), device=device)
        count = (stratified_times(n, 1, like) * self.length).long().clamp(max=self.length - 1) + 1
        place = drawn_uniform((n, self.length), like).argsort(1).argsort(1)
        return place < count[:, None], count

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        noise: Noise | None = None,
        guidance: Guidance | None = None,
        given: Tensor | None = None,
        free: Tensor | None = None,
    ) -> Tensor:
        """Rows (n, L), filled in in random order.

        Args:
            n: how many.
            noise: of the order and of the draws.
            guidance: leads to a property.
            given: rows (n, L) of which only some positions are drawn anew; no end is drawn before a symbol that is kept.
            free: these positions, (n, L) bool.

        Raises:
            ConfigError: only one of `given` and `free`.
        """
        if (given is None) != (free is None):
            raise ConfigError("given and free belong together: rows, and which of their positions are drawn anew.")
        noise = noise or normal_noise(self.network.embed.position)
        order = noise((n, self.length))
        x = torch.full((n, self.length), self.network.mask, device=order.device)
        inside = torch.zeros_like(x, dtype=torch.bool)
        if given is not None and free is not None:
            x, order = torch.where(free, x, given.long()), order.masked_fill(~free, math.inf)
            inside = (~free & (given != END)).flip(1).cumsum(1).flip(1) > 0
        left = (x == self.network.mask).sum(1)
        place, draws = order.argsort(1).argsort(1), noise((n, self.length))
        steps = self.sampling_steps()
        for k in range(steps):
            low, high = left * k // steps, left * (k + 1) // steps
            now = (place >= low[:, None]) & (place < high[:, None])
            states = self.network.hidden(x)
            if guidance is not None:
                states = self.guided(states, guidance, noise, free)
            logits = self.network.out(states[now])  # only where symbols are drawn
            logits[:, END] = logits[:, END].masked_fill(inside[now], -math.inf)
            x[now] = pick(logits, draws[now])
        return cut(x)

    def guided(self, states: Tensor, guidance: Guidance, noise: Noise, free: Tensor | None = None) -> Tensor:
        """Hidden states (B, L, width) after K steps to a larger value; only those of `free` positions (B, L) move."""
        before = self.network.out(states).float().log_softmax(2).detach()
        moved = states.detach()
        for _ in range(guidance.steps):
            with torch.enable_grad():
                moved = moved.requires_grad_(True)
                after = self.network.out(moved).float().log_softmax(2)
                divergence = (before.exp() * (before - after)).sum()
                loss = divergence - guidance.scale * guidance.value(moved.mean(1)).sum()
                (slope,) = torch.autograd.grad(loss, moved)
            moved = (moved - guidance.rate * slope).detach()
            if guidance.temperature:
                shape = (len(moved), moved.shape[1] * moved.shape[2])
                shaken = noise(shape).reshape(moved.shape)
                moved = moved + math.sqrt(2 * guidance.rate * guidance.temperature) * shaken
            if free is not None:
                moved = torch.where(free[..., None], moved, states)
        return moved
