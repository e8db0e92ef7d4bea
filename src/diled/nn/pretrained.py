"""Encoders that others have trained, as networks for sequences of symbols (B, L).

    x_1 ... x_n  ->  <start> t(x_1) ... t(x_n) <end>  --model-->  h_1 ... h_n, h_{n+1}  ->  attention-pooled  ->  (B, out)

t(v) is the model's token of symbol v. Of probabilities p (B, L, V) position i has the mean sum_v p_iv E[t(v)] in place of the
row E[t(x_i)] of the table of tokens, and everything after the table is the model's own. So one-hot rows give what symbols
give, and a gradient with respect to each symbol exists. The state of the end is pooled where x has room for an end. Where
only some sites of a whole sequence are modelled, the model reads all of it, and the mean is over the states of these sites.

References: Devlin et al. 2019 (arXiv 1810.04805); Lin et al. 2023 (Science 379), ESM-2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diled.nn.sequence import TransformerEncoder, present
from diled.sequences import END

__all__ = ["Borrowing", "PretrainedEncoder", "PretrainedStates", "blocks_of", "first_blocks"]


class Borrowing(nn.Module):
    """A network around a model that others have trained, of which some stays as it is."""

    model: nn.Module
    frozen: list[nn.Module]

    def borrow(self, model: nn.Module, frozen: Sequence[nn.Module] = (), pace: float = 1.0) -> None:
        """Take the model in.

        Args:
            model: of others.
            frozen: modules of it that get no gradient and stay in evaluation mode, also while the rest trains.
            pace: factor of the learning rate for what is not frozen.
        """
        self.model, self.frozen = model, list(frozen)
        model.learning_rate_factor = pace  # type: ignore[assignment]
        for module in self.frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Borrowing:
        """Training or evaluation mode, except for what is frozen, which stays in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


class PretrainedStates(Borrowing):
    """Symbols (B, L) or probabilities (B, L, V) -> the states (B, L, width) of a pretrained encoder at each position.

    Args:
        model: called with `input_ids` and `attention_mask`, it returns `last_hidden_state`; `get_input_embeddings` is
            its table of tokens.
        width: of its states.
        tokens: of each symbol, (V,); that of the end first.
        start: token before the sequence, or None.
        pad: token that fills rows up.
        frozen, pace: as of `Borrowing.borrow`.
        whole: symbols of the sequence of which only `sites` are modelled, or none.
        sites: their positions, counted from 0.
    """

    tokens: Tensor
    frame: Tensor
    places: Tensor

    def __init__(
        self,
        model: nn.Module,
        width: int,
        *,
        tokens: Sequence[int],
        start: int | None,
        pad: int,
        frozen: Sequence[nn.Module] = (),
        pace: float = 1.0,
        whole: Sequence[int] = (),
        sites: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.width, self.pad = width, pad
        before = [] if start is None else [start]
        frame = [*before, *(tokens[symbol] for symbol in whole), tokens[0]] if whole else before
        self.register_buffer("tokens", torch.tensor(tokens), persistent=False)
        self.register_buffer("frame", torch.tensor(frame, dtype=torch.long), persistent=False)
        self.register_buffer("places", torch.tensor(sites, dtype=torch.long) + len(before), persistent=False)
        self.borrow(model, frozen, pace)

    def read(self, symbol: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Symbols (B, L) as tokens (B, T), which of them may be looked at (B, T), and where the symbols are (L,)."""
        if len(self.places):
            ids = self.frame.repeat(len(symbol), 1)
            ids[:, self.places] = self.tokens[symbol]
            return ids, torch.ones_like(ids, dtype=torch.bool), self.places
        full = bool((symbol[:, -1] != END).any())
        ended = F.pad(symbol, (0, int(full)))  # a sequence that fills its row has an end too
        mask = present(ended)
        ids = torch.where(mask, self.tokens[ended], self.pad)
        n = len(self.frame)
        ids = torch.cat([self.frame.expand(len(ids), n), ids], 1)
        return ids, F.pad(mask, (n, 0), value=True), torch.arange(n, n + symbol.shape[1], device=ids.device)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L) or (B, L, V) -> (B, L, width)."""
        symbol = x.long() if x.ndim == 2 else x.detach().argmax(2)
        ids, mask, places = self.read(symbol)
        if x.ndim == 2:
            states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        else:
            with self._mixed(x, places):
                states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return states[:, places]

    @contextmanager
    def _mixed(self, p: Tensor, places: Tensor) -> Iterator[None]:
        """Within the block the table of tokens returns mean vectors at the places of the symbols."""
        table = self.model.get_input_embeddings()  # type: ignore[operator]
        mean = p @ table(self.tokens)
        called: list[bool] = []

        def replaced(module: nn.Module, arguments: Any, rows: Tensor) -> Tensor:
            called.append(True)
            return rows.index_copy(1, places, mean.to(rows.dtype))

        shared = [m for m in self.model.modules() if getattr(m, "weight", None) is table.weight]
        handles = [module.register_forward_hook(replaced) for module in shared]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if len(called) != 1:
            raise RuntimeError(f"{type(self.model).__name__} looks its tokens up {len(called)} times, not once.")


class PretrainedEncoder(TransformerEncoder):
    """x (B, L) or (B, L, V) -> (B, out): learned weighted means over the states of a pretrained encoder.

    Args:
        states: of the encoder.
        out: size of the result.
        heads: number of weighted means.
        reread: rows x as rows (B, T) of the encoder's own tokens, where it has others than the data.
    """

    embed: PretrainedStates  # type: ignore[assignment]

    def __init__(
        self, states: PretrainedStates, out: int, heads: int, reread: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(1, 1, out, width=states.width, depth=0, heads=heads)
        self.embed, self.reread = states, reread

    def forward(self, x: Tensor) -> Tensor:
        """(B, L) or (B, L, V) -> (B, out)."""
        return super().forward(x if self.reread is None else self.reread(x))


def blocks_of(model: nn.Module, layers: int) -> nn.ModuleList:
    """The blocks of a pretrained model.

    Raises:
        ValueError: they cannot be told apart.
    """
    blocks = next((m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == layers), None)
    beside = [] if blocks is None else [m for m in _holder(model, blocks).children() if isinstance(m, nn.ModuleList)]
    if blocks is None or sum(len(m) == layers for m in beside) > 1:  # several: each holds a piece of every block
        raise ValueError("its blocks cannot be told apart")
    return blocks


def _holder(model: nn.Module, inner: nn.Module) -> nn.Module:
    """The module that has another one as a child."""
    return next(m for m in model.modules() if any(part is inner for part in m.children()))


def first_blocks(model: nn.Module, layers: int, frozen: int, new: int = 0) -> tuple[nn.Module, ...]:
    """The embeddings and the first `frozen` blocks of a pretrained model.

    Args:
        model: with embeddings beside its blocks.
        layers: number of its blocks, new ones included.
        frozen: how many.
        new: blocks at the bottom that are not its own, and are left out.

    Raises:
        ValueError: it has fewer blocks, or they cannot be told apart.
    """
    blocks = blocks_of(model, layers)
    if frozen > layers - new:
        raise ValueError(f"it has {layers - new} blocks")
    parts = {part: set(part.modules()) for part in (*model.children(), *_holder(model, blocks).children())}
    tables = [
        part
        for part, inside in parts.items()
        if blocks not in inside and any(isinstance(m, nn.Embedding) for m in inside)
    ]
    return (*tables, *blocks[new : new + frozen])
