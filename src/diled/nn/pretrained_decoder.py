"""Decoders that others have trained, which write a text from a code.

    h_0 = E[t(x_{i-1})] + A z           t(x_0): the model's own token for a beginning
    block l looks at positions 1 ... i, and at one key and one value before them:  (k_l, v_l) = M_l z
    log p(x_i | x_1 ... x_{i-1}, z) = log softmax of the model's logits over the tokens of the data

The offset A z and the prefix (k_l, v_l) are linear in z and new; everything else is the model's own, with positions counted
from x_0. The number k + 1 is its token k, and the end 0 is its end-of-sequence token, whose own number is next to impossible.
In training some of the rows E[t(x_{i-1})] give way to one learned vector (word dropout).

References: Li et al. 2020 (arXiv 2004.04092), Optimus, section 3.1; Radford et al. 2019, GPT-2; Bowman et al. 2016.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from diled.nn.causal import Inject, Writer
from diled.nn.pretrained import Borrowing

__all__ = ["PretrainedDecoder", "all_but"]

NEVER = 30.0
"""Nats by which the number of the end token is less likely than the end itself, which is the same token. A text never has it;
the number is finite so that every row has a bound."""


class PretrainedDecoder(Borrowing, Writer):
    """Rows (B, L) and a code (B, D) -> the logits of a pretrained decoder, (B, L, V), from the symbols before each.

    Args:
        model: called with `inputs_embeds`, `position_ids` and a cache, it returns `logits` of its tokens;
            `get_input_embeddings` is its table of tokens, `get_output_embeddings` what makes logits of states.
        length: L.
        symbols: V, the end included.
        dim: D.
        start, end: its tokens for the beginning and the end of a text.
        cache: makes an empty cache of its kind.
        inject: where the code enters.
        word_dropout: share of the symbols that is hidden from it in training.
        frozen, pace: as of `Borrowing.borrow`.
        scale: standard deviation of the new weights at the start.

    Raises:
        ValueError: it keeps no keys and values, takes no positions, or has no head.
    """

    tokens: Tensor
    shapes: list[torch.Size]

    def __init__(
        self,
        model: nn.Module,
        length: int,
        symbols: int,
        *,
        dim: int,
        start: int,
        end: int,
        cache: Callable[[], Any],
        inject: Inject = "both",
        word_dropout: float = 0.0,
        frozen: Sequence[nn.Module] = (),
        pace: float = 1.0,
        scale: float = 0.02,
    ) -> None:
        super().__init__(length, symbols, word_dropout)
        self.end, self.new_cache = end, cache
        takes = inspect.signature(model.forward).parameters
        if "position_ids" not in takes or model.get_output_embeddings() is None:  # type: ignore[operator]
            raise ValueError("it takes no positions, or has no head over its tokens")
        # `past_key_values` is what earlier versions of transformers call it.
        self.cache_name = "cache" if "cache" in takes else "past_key_values"
        width = model.get_input_embeddings().embedding_dim  # type: ignore[operator]
        tokens = [end, *range(symbols - 1), start]
        self.register_buffer("tokens", torch.tensor(tokens), persistent=False)
        self.blank = nn.Parameter(scale * torch.randn(width)) if word_dropout else None
        self.borrow(model, frozen, pace)
        self.shapes = self._shapes()
        self.offset = None if inject == "memory" else _linear(dim, width, scale)
        sizes = [shape.numel() for shape in self.shapes]
        self.memory = None if inject == "embedding" else _linear(dim, sum(sizes), scale)
        self.register_state_dict_post_hook(_without_twins)
        self.register_load_state_dict_pre_hook(_with_twins)

    @torch.no_grad()
    def _shapes(self) -> list[torch.Size]:
        """(heads, 1, size) of the key and the value of each block in turn, as one step of the model leaves them."""
        was, cache = self.training, self.new_cache()
        self.eval().run(self.embedded(torch.tensor([[self.start]])), 0, cache)
        self.train(was)
        parts = [
            part for layer in cache.layers for part in (getattr(layer, "keys", None), getattr(layer, "values", None))
        ]
        if not parts or any(not isinstance(part, Tensor) or part.ndim != 4 for part in parts):
            raise ValueError("not every block of it keeps keys and values")
        return [part.shape[1:] for part in parts if part is not None]

    def embedded(self, before: Tensor) -> Tensor:
        """What the model's table has for symbols, (n, l) -> (n, l, width)."""
        table = self.model.get_input_embeddings()  # type: ignore[operator]
        h: Tensor = table(self.tokens[before.clamp(max=self.start)])
        if self.blank is None:
            return h
        return torch.where((before == self.hidden)[..., None], self.blank.to(h.dtype), h)

    def offsets(self, code: Tensor | None) -> Tensor | None:
        """A z, of every position, (n, 1, width)."""
        return None if self.offset is None else self.offset(code)[:, None]

    def prefix(self, code: Tensor | None) -> Any:
        """A cache that holds the key and the value of each block that the code makes, before the first position."""
        cache = self.new_cache()
        if self.memory is not None:
            parts = self.memory(code).split([shape.numel() for shape in self.shapes], dim=1)
            parts = [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]
            for layer, (key, value) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
                cache.update(key, value, layer)
        return cache

    def run(self, h: Tensor, first: int, cache: Any) -> Tensor:
        """The model's own logits of vectors (n, l, width) at positions from `first` on, which join those in the cache."""
        places = torch.arange(first, first + h.shape[1], device=h.device).expand(len(h), -1)
        more: dict[str, Any] = {self.cache_name: cache, "use_cache": True}
        logits: Tensor = self.model(inputs_embeds=h, position_ids=places, **more).logits
        return logits

    def of_symbols(self, logits: Tensor) -> Tensor:
        """Logits of tokens (..., rows) as logits of symbols (..., V): the end first, the others one further."""
        own = torch.arange(self.symbols - 1, device=logits.device) == self.end
        return torch.cat([logits[..., self.end, None], logits[..., : self.symbols - 1] - NEVER * own], -1)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """(B, L) -> (B, L, V)."""
        h, offset = self.embedded(self.before(x)), self.offsets(code)
        return self.of_symbols(self.run(h if offset is None else h + offset, 0, self.prefix(code)))

    def logits_at(self, kept: Tensor, x: Tensor, code: Tensor | None = None) -> Tensor:
        """(N, V): the model's head gets only the states of the positions that are kept."""
        with self._only(kept):
            return self(x, code)[0]

    @contextmanager
    def _only(self, kept: Tensor) -> Iterator[None]:
        """Within the block the model's head is given states (1, N, width) in place of (B, L, width)."""
        head = self.model.get_output_embeddings()  # type: ignore[operator]
        handle = head.register_forward_pre_hook(lambda module, states: (states[0][kept][None],))
        try:
            yield
        finally:
            handle.remove()

    def writing(self, n: int, code: Tensor | None = None) -> _Writing:
        """With the keys and values of earlier positions kept, as the model keeps them."""
        return _Writing(self, code)


class _Writing:
    """The model's cache for the positions written so far, that of the code before them."""

    def __init__(self, network: PretrainedDecoder, code: Tensor | None) -> None:
        self.network, self.device = network, network.tokens.device
        self.offset, self.cache = network.offsets(code), network.prefix(code)

    def step(self, now: Tensor, i: int) -> Tensor:
        """Logits (n, V) at position i, where the symbol before it is `now` (n,)."""
        h = self.network.embedded(now[:, None])
        h = h if self.offset is None else h + self.offset
        return self.network.of_symbols(self.network.run(h, i, self.cache)[:, 0])

    def keep(self, rows: Tensor) -> None:
        """Go on with these sequences (m,), which may repeat."""
        self.cache.batch_select_indices(rows)
        self.offset = None if self.offset is None else self.offset[rows]


def all_but(model: nn.Module, trained: set[nn.Module]) -> Iterator[nn.Module]:
    """The largest parts of a model that hold none of the trained ones."""
    for part in model.children():
        if part in trained:
            continue
        if trained.isdisjoint(part.modules()):
            yield part
        else:
            yield from all_but(part, trained)


def _linear(dim: int, out: int, scale: float) -> nn.Linear:
    """A linear map with small weights, so that a model goes on nearly as it was."""
    layer = nn.Linear(dim, out)
    nn.init.normal_(layer.weight, std=scale)
    nn.init.zeros_(layer.bias)
    return layer


def _twins(module: nn.Module) -> dict[str, str]:
    """Name of a weight that is the same as an earlier one -> the name of that one."""
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(p), name) for name, p in module.named_parameters(remove_duplicate=False)}
    return {name: other for name, other in names.items() if name != other}


def _without_twins(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Weights that are tied are kept once."""
    for name in _twins(module):
        state.pop(prefix + name, None)


def _with_twins(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Weights that are tied are read from the one that was kept."""
    for name, other in _twins(module).items():
        if prefix + other in state:
            state.setdefault(prefix + name, state[prefix + other])
