"""Decoders that write a sequence symbol by symbol: p(x | z) = p(x_1 | z) p(x_2 | x_1, z) ... , the first end scored.

Such a decoder is a density of sequences whatever the code, so it may stop listening to it: the posterior collapses, the rate
goes to 0. What keeps it listening is little weight on the rate, and a warm-up; hidden symbols do little.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diled.api import NoBound, Noise, normal_noise, sum_dims
from diled.errors import ConfigError
from diled.nn.causal import Decoding
from diled.sequences import check_rows

__all__ = ["AutoregressiveDecoder", "AutoregressiveSequence", "described_writing", "written_with"]


@dataclass(frozen=True)
class AutoregressiveSequence:
    """p(x | z) of sequences, each symbol given those before it.

    Args:
        network: with `nll(x, code)`, `draw(n, choose, code)` and `write(code, decoding)`, as `CausalTransformer`.
        code: (B, D).
        decoding: how draws and modes are written.
    """

    network: Any
    code: Tensor
    decoding: Decoding
    measure: ClassVar[str] = "counting"
    discrete: ClassVar[bool] = True

    @property
    def mean(self) -> Tensor:
        """Symbols have no mean: the mode, which is what is shown."""
        return self.mode

    @property
    def mode(self) -> Tensor:
        """The likeliest sequence as far as the search finds it, (B, L)."""
        with torch.no_grad():
            return self.network.write(self.code, self.decoding)

    def sample(self, noise: Noise | None = None) -> Tensor:
        """A draw, (B, L)."""
        with torch.no_grad():
            e = (noise or normal_noise(self.code))((len(self.code), self.network.length))
            return self.network.draw(
                len(self.code), lambda logits, i, rows: self.decoding.draw(logits, e[rows, i]), self.code
            )

    def nll(self, x: Tensor) -> Tensor:
        """-log p(x | z), shape (B,), of rows (B, L)."""
        return sum_dims(self.network.nll(x, self.code))

    def entropy(self) -> Tensor:
        """Raises `NoBound`: it is a sum over all sequences."""
        raise NoBound("The entropy of an autoregressive decoder is a sum over all sequences.")

    def check(self, x: Tensor) -> None:
        """Refuse what is no row of symbols with ends only at its end."""
        check_rows(x, self.network.symbols)


class AutoregressiveDecoder(nn.Module):
    """z -> p(x | z), written symbol by symbol.

    Args:
        network: as of `AutoregressiveSequence`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.decoding = Decoding()

    def forward(self, z: Tensor) -> AutoregressiveSequence:
        """The distribution of x given each code (B, D)."""
        return AutoregressiveSequence(self.network, z.float(), self.decoding)


def described_writing(model: nn.Module) -> str:
    """How a model's likeliest sequences are found, in words."""
    beams = max((part.decoding.beams for part in _writers(model)), default=1)
    return "greedily" if beams == 1 else f"by a search with {beams} beams"


@contextmanager
def written_with(
    model: nn.Module, *, beams: int | None = None, temperature: float | None = None, top_p: float | None = None
) -> Iterator[None]:
    """Within the block every part of a model that writes symbol by symbol does so as `Decoding` has it.

    Raises:
        ConfigError: something is asked of a model that writes none so, or a value is out of range.
    """
    options = {"beams": beams, "temperature": temperature, "top_p": top_p}
    asked = {name: value for name, value in options.items() if value is not None}
    parts = _writers(model)
    if asked and not parts:
        raise ConfigError(f"{' and '.join(asked)} have no meaning for a model that does not write symbol by symbol.")
    before = [part.decoding for part in parts]
    for part in parts:
        part.decoding = replace(part.decoding, **asked)
    try:
        yield
    finally:
        for part, was in zip(parts, before, strict=True):
            part.decoding = was


def _writers(model: nn.Module) -> list[Any]:
    """The parts of a model that write symbol by symbol."""
    return [part for part in model.modules() if isinstance(getattr(part, "decoding", None), Decoding)]
