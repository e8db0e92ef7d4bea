"""Networks that write sequences symbol by symbol, and a transformer that does, with or without a code to write from.

    h_0 = E[x_{i-1}] + position_i + A z          x_0 is a symbol of its own
    each block looks at positions 1 ... i, and at one key and value of its own that are linear in z
    logits_i = U norm(h),    U = E / sqrt(width) where tied

The code z enters as an offset of every embedding, as a memory of every block, or as both (Li et al. 2020, Optimus). In
training a share of the symbols x_{i-1} is hidden (word dropout, Bowman et al. 2016), so that the decoder listens to the code.
What follows from logits alone (nats, draws, the search for the likeliest sequence) is `Writer`, whatever the network.

References: Vaswani et al. 2017 (arXiv 1706.03762); Li et al. 2020 (arXiv 2004.04092); Bowman et al. 2016 (arXiv 1511.06349).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diled.errors import ConfigError
from diled.nn.sequence import Block, Embedding
from diled.sequences import END, kept_nll, pick, scored, trimmed, wide

__all__ = ["CausalTransformer", "Decoding", "Writer", "Writing"]

Inject = Literal["both", "embedding", "memory"]
FEW = 0.7
"""Sequences that have ended are dropped from the batch when no more than this share of it still goes on."""


@dataclass(frozen=True)
class Decoding:
    """How a sequence is written from its probabilities.

    Args:
        beams: of the search for the likeliest sequence; 1 takes the likeliest symbol at each position.
        temperature: of draws; below 1 they are safer.
        top_p: draws are among the likeliest symbols that together have this probability (Holtzman et al. 2020).
    """

    beams: int = 1
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ConfigError(f"beams = {self.beams}: at least 1 is needed.")
        if not self.temperature > 0:
            raise ConfigError(f"temperature = {self.temperature}: a number above 0 is needed; for 0, decode the mode.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p = {self.top_p}: a probability above 0 and up to 1 is needed.")

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Symbols (n,) drawn from logits (n, V) by standard normal noise (n,)."""
        logits = wide(logits) / self.temperature
        if self.top_p < 1:
            p, order = logits.softmax(1).sort(1, descending=True)
            unlikely = p.cumsum(1) - p >= self.top_p  # the likelier ones have enough already
            logits = logits.masked_fill(torch.zeros_like(unlikely).scatter(1, order, unlikely), float("-inf"))
        return pick(logits, noise)


class Writing(Protocol):
    """Sequences that are being written, with what a network keeps of the positions so far."""

    device: torch.device

    def step(self, now: Tensor, i: int) -> Tensor:
        """Logits (n, V) at position i, where the symbol before it is `now` (n,)."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these sequences (m,), which may repeat."""


class Writer(nn.Module):
    """A network that writes symbol by symbol: what follows from its logits, whatever gives them.

    A kind of it has `logits_at` and `writing`.

    Args:
        length: L.
        symbols: V, the end included; V stands for what is before the first, V + 1 in place of a hidden one.
        word_dropout: share of the symbols that is hidden from the network in training.
    """

    def __init__(self, length: int, symbols: int, word_dropout: float = 0.0) -> None:
        super().__init__()
        self.length, self.symbols, self.word_dropout = length, symbols, word_dropout
        self.start, self.hidden = symbols, symbols + 1

    def logits_at(self, kept: Tensor, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Logits (N, V) at the N positions of rows x (B, L) that are kept, (B, L) bool, from the symbols before each."""
        raise NotImplementedError

    def writing(self, n: int, code: Tensor | None = None) -> Writing:
        """The beginning of n sequences, with codes (n, D)."""
        raise NotImplementedError

    def before(self, x: Tensor) -> Tensor:
        """The symbol before each position, (B, L), of which some are hidden in training."""
        before = F.pad(x.long(), (1, 0), value=self.start)[:, :-1]
        if self.word_dropout and self.training:
            gone = torch.rand(before.shape, device=before.device) < self.word_dropout
            before = torch.where(gone & (before != self.start), self.hidden, before)
        return before

    def nll(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """-log p(x_i | x_1 ... x_{i-1}, z) at each position, (B, L), 0 after the first end.

        Logits are computed only where they count.
        """
        short = trimmed(x)
        kept = scored(short)
        found = kept_nll(self.logits_at(kept, short, code), short, kept)
        return F.pad(found, (0, x.shape[1] - short.shape[1]))

    # Writing ----------------------------------------------------------------------------------------------------------

    def draw(self, n: int, choose: Callable[[Tensor, int, Tensor], Tensor], code: Tensor | None = None) -> Tensor:
        """Sequences (n, L), symbol by symbol, with the keys and values of earlier positions kept.

        Args:
            n: how many.
            choose: (logits (m, V), position, which of the n sequences (m,)) -> symbols (m,).
            code: (n, D).
        """
        state = self.writing(n, code)
        rows = torch.arange(n, device=state.device)
        x = torch.zeros(n, self.length, dtype=torch.long, device=state.device)
        now = torch.full((n,), self.start, device=state.device)
        alive = torch.ones(n, dtype=torch.bool, device=state.device)
        for i in range(self.length):
            now = choose(state.step(now, i), i, rows) * alive
            x[rows, i], alive = now, now != END
            left = int(alive.sum())
            if not left:
                break
            if left <= FEW * len(rows):
                rows, now = rows[alive], now[alive]
                state.keep(alive.nonzero()[:, 0])
                alive = alive[alive]
        return x

    def write(self, code: Tensor, decoding: Decoding) -> Tensor:
        """The likeliest sequence of each code, (B, D) -> (B, L), as far as the search finds it."""
        if decoding.beams > 1:
            return self.search(code, decoding.beams)
        return self.draw(len(code), lambda logits, i, rows: logits.argmax(1), code)

    def search(self, code: Tensor, beams: int) -> Tensor:
        """Beam search for argmax p(x | z), (B, L): the k likeliest beginnings are kept; an end ends a sequence for good.

        A probability only falls as a sequence goes on, so a beginning that is less likely than a whole sequence is over, too.
        """
        n, k, few = len(code), beams, min(beams, self.symbols)
        state = self.writing(n * k, code.repeat_interleave(k, 0))
        found = torch.zeros(n, self.length, dtype=torch.long, device=state.device)
        rows = torch.arange(n, device=state.device)  # the codes whose search goes on
        x = torch.zeros(n, k, self.length, dtype=torch.long, device=state.device)
        score = torch.full((n, k), float("-inf"), device=state.device)
        score[:, 0] = 0.0  # all beginnings are the same one
        now = torch.full((n * k,), self.start, device=state.device)
        over = torch.zeros(n, k, dtype=torch.bool, device=state.device)
        for i in range(self.length):
            likeliest = wide(state.step(now, i)).log_softmax(1).topk(few, 1)  # no beam has more than k of the best k
            after = likeliest.values.new_full((len(rows), k, few), float("-inf"))
            after[..., 0] = 0.0  # what is over is followed by the end alone
            symbols = now.new_full(after.shape, END)
            after[~over], symbols[~over] = likeliest
            score, best = (after + score[..., None]).flatten(1).topk(k, 1)
            beam, symbol = best // few, symbols.flatten(1).gather(1, best)
            place = ((~over).flatten().cumsum(0) - 1).view_as(over).gather(1, beam)  # of each beginning in the state
            x, over = x.gather(1, beam[..., None].expand_as(x)), over.gather(1, beam)
            x[:, :, i] = symbol
            over = over | (symbol == END)
            over = over | (score < score.masked_fill(~over, float("-inf")).amax(1, keepdim=True))
            left = ~over.all(1) & (i + 1 < self.length)
            if left.sum() <= FEW * len(rows):
                found[rows] = x[torch.arange(len(rows), device=state.device), score.argmax(1)]
                rows, x, score, over, symbol, place = (part[left] for part in (rows, x, score, over, symbol, place))
                if not len(rows):
                    break
            state.keep(place[~over])
            now = symbol[~over]
        return found


class CausalTransformer(Writer):
    """x (B, L), and a code (B, D) where there is one -> logits (B, L, V), at each position from the symbols before it.

    Args:
        length: L.
        symbols: V, the end included.
        width, depth, heads: of the blocks.
        dropout: share of the hidden values that is dropped in training.
        condition_dim: D; 0: there is no code.
        inject: where the code enters.
        tied: the table of symbols is that of the logits too.
        word_dropout: share of the symbols that is hidden from the network in training.
        reads_last: there is a position after the last one, whose hidden state has seen all symbols (`read`).
    """

    def __init__(
        self,
        length: int,
        symbols: int,
        *,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        condition_dim: int = 0,
        inject: Inject = "both",
        tied: bool = False,
        word_dropout: float = 0.0,
        reads_last: bool = False,
    ) -> None:
        super().__init__(length, symbols, word_dropout)
        self.heads, self.width = heads, width
        self.embed = Embedding(length + reads_last, symbols + 1 + (word_dropout > 0), width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.out = nn.Sequential(nn.LayerNorm(width), *([] if tied else [nn.Linear(width, symbols)]))
        self.bias = nn.Parameter(torch.zeros(symbols)) if tied else None
        self.offset = self.memory = None
        if condition_dim and inject != "memory":
            self.offset = nn.Linear(condition_dim, width)
        if condition_dim and inject != "embedding":
            self.memory = nn.Linear(condition_dim, 2 * depth * width)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """(B, L) -> (B, L, V)."""
        return self.logits(self.states(x, code))

    def states(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """The last hidden states at each position, (B, L, width): of the symbols before it."""
        return self._through(self.before(x), code)

    def read(self, x: Tensor) -> Tensor:
        """With `reads_last`, the last hidden states of rows (B, L) before each symbol and after them all, (B, L + 1, width)."""
        return self._through(F.pad(x.long(), (1, 0), value=self.start))

    def _through(self, before: Tensor, code: Tensor | None = None) -> Tensor:
        """Symbols (B, M), the first of which is the start, as hidden states (B, M, width)."""
        h = self.embed(before)
        if self.offset is not None:
            h = h + self.offset(code)[:, None]
        memory = self.memories(code)
        for block, own in zip(self.blocks, memory, strict=True):
            h = block(h, causal=True, memory=own)
        return h

    def memories(self, code: Tensor | None) -> list[Tensor | None]:
        """The key and value of each block, (B, 1, 2 width)."""
        if self.memory is None:
            return [None] * len(self.blocks)
        return list(self.memory(code)[:, None].chunk(len(self.blocks), dim=2))

    def logits(self, h: Tensor) -> Tensor:
        """Of states (..., width), (..., V)."""
        h = self.out(h)
        if self.bias is None:
            return h
        return F.linear(h * self.width**-0.5, self.embed.symbol[: self.symbols], self.bias)

    def logits_at(self, kept: Tensor, x: Tensor, code: Tensor | None = None) -> Tensor:
        """(N, V): only where they count."""
        return self.logits(self.states(x, code)[kept])

    def writing(self, n: int, code: Tensor | None = None) -> Writing:
        """With the keys and values of earlier positions kept."""
        return _Writing(self, n, code)


class _Writing:
    """The keys and values of every block for the positions written so far."""

    def __init__(self, network: CausalTransformer, n: int, code: Tensor | None) -> None:
        self.network, self.device = network, network.embed.position.device
        self.offset = None if network.offset is None else network.offset(code)
        memory = network.memories(code)
        self.before = 0 if memory[0] is None else 1
        head = network.width // network.heads
        self.kept: list[tuple[Tensor, Tensor]] = []
        for own in memory:
            keys, values = (
                network.embed.position.new_empty(n, network.heads, self.before + network.length, head) for _ in range(2)
            )
            if own is not None:
                first = own.unflatten(2, (2, network.heads, head))  # (n, 1, 2, heads, head)
                keys[:, :, 0], values[:, :, 0] = first[:, 0, 0], first[:, 0, 1]
            self.kept.append((keys, values))

    def step(self, now: Tensor, i: int) -> Tensor:
        """Logits (n, V) at position i, where the symbol before it is `now` (n,)."""
        embed = self.network.embed
        h = embed.symbol[now] + embed.position[i]
        h = (h if self.offset is None else h + self.offset)[:, None]
        for block, (keys, values) in zip(self.network.blocks, self.kept, strict=True):
            h = block.step(h, keys, values, self.before + i)  # type: ignore[operator]
        return self.network.logits(h[:, 0])

    def keep(self, rows: Tensor) -> None:
        """Go on with these sequences (m,), which may repeat."""
        self.kept = [(keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in self.kept]
        self.offset = None if self.offset is None else self.offset[rows]
