"""Randomness that does not depend on batch sizes, devices or workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "BLOCK",
    "BlockNoise",
    "drawn_normal",
    "drawn_times",
    "drawn_uniform",
    "forked",
    "hidden",
    "paired_pass",
    "reseed",
    "seed_from",
    "seeded",
]

BLOCK = 64
"""Rows of noise that share one generator."""

_MASK = 0xFFFFFFFFFFFFFFFF


def seed_from(*parts: int) -> int:
    """A well-mixed 63-bit seed from several integers (splitmix64 of each in turn)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = ((state ^ (part & _MASK)) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def reseed(seed: int) -> None:
    """Seed the generators of the CPU and of CUDA devices. `torch.manual_seed` does the same a hundred times slower,
    since it also visits accelerators that are not there; it would show in every training step."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def hidden(x: Tensor, share: float, symbols: int = 0) -> Tensor:
    """x (B, ...) with a share of its values hidden, by torch's generator.

    Hidden numbers are 0, the middle of the range; for a hidden symbol one is drawn uniformly, never the end.

    Args:
        x: numbers, or symbols of which 0 is the end.
        share: of the values, drawn one by one.
        symbols: V, the number of symbols with the end, of sequences; 0: x are numbers.
    """
    away = torch.rand(x.shape, device=x.device) < share
    return torch.where(away & (x != 0), torch.randint_like(x, 1, symbols), x) if symbols else x * ~away


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seed torch's generators within the block, and put them back afterwards."""
    with forked():
        reseed(seed_from(*parts))
        yield


def forked() -> AbstractContextManager[None]:
    """A block after which torch's generators are as they were before it."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    context: AbstractContextManager[None] = torch.random.fork_rng(devices=devices)
    return context


@dataclass(frozen=True)
class _Pass:
    cell: int
    cells: int
    opposite: bool


_PASS: ContextVar[_Pass | None] = ContextVar("_PASS", default=None)


@contextmanager
def paired_pass(index: int, passes: int, *seed: int) -> Iterator[None]:
    """One of several Monte-Carlo passes over a batch within which all its rows meet the same random numbers.

    What is estimated of a row then depends on the row and the seed alone, and most of the noise cancels in differences
    between rows; it does not cancel in their mean. Of an even number, two passes each share one point of one of passes / 2
    equal cells of time, with opposite noise; of an odd number, each has a cell of its own (common random numbers, stratified
    and antithetic; Owen 2013, chapter 8).

    It reaches whoever draws by `drawn_normal`, `drawn_uniform` and `drawn_times`.
    """
    share = 1 if passes % 2 else 2
    cell, opposite = divmod(index, share)
    with seeded(*seed, cell):
        token = _PASS.set(_Pass(cell, passes // share, bool(opposite)))
        try:
            yield
        finally:
            _PASS.reset(token)


def drawn_normal(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Standard normal noise on the device and in the type of `like`; within `paired_pass` the same for each row."""
    now = _PASS.get()
    if now is None:
        return torch.randn(shape, device=like.device, dtype=like.dtype)
    e = torch.randn((1, *shape[1:]), device=like.device, dtype=like.dtype).expand(shape)
    return -e if now.opposite else e


def drawn_uniform(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Uniform noise on [0, 1), as `drawn_normal`."""
    now = _PASS.get()
    if now is None:
        return torch.rand(shape, device=like.device, dtype=like.dtype)
    u = torch.rand((1, *shape[1:]), device=like.device, dtype=like.dtype).expand(shape)
    return 1 - u if now.opposite else u


def drawn_times(shape: tuple[int, ...], like: Tensor) -> Tensor | None:
    """Within `paired_pass` one time of its cell of [0, 1) for all; None elsewhere."""
    now = _PASS.get()
    if now is None:
        return None
    return ((now.cell + torch.rand((), device=like.device, dtype=like.dtype)) / now.cells).expand(shape)


class BlockNoise:
    """Standard normal noise whose row i depends on (seed, start + i) and on the number of calls before, on nothing else.

    So sample 137 of a seed is the same picture whether ten or ten thousand are drawn, and on any device.

    Args:
        seed: of the whole series.
        start: index of the first row, a multiple of `BLOCK`.
        device, dtype: of the result.
    """

    def __init__(
        self,
        seed: int,
        start: int = 0,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if start % BLOCK:
            raise ValueError(f"start must be a multiple of {BLOCK}, got {start}")
        self.seed, self.first, self.device, self.dtype = seed, start // BLOCK, device, dtype
        self._generators: list[torch.Generator] = []

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """Noise of the given shape; rows along the first dimension."""
        blocks = -(-shape[0] // BLOCK)
        for i in range(len(self._generators), blocks):
            self._generators.append(torch.Generator().manual_seed(seed_from(self.seed, self.first + i)))
        rows = [torch.randn((BLOCK, *shape[1:]), generator=g) for g in self._generators[:blocks]]
        return torch.cat(rows)[: shape[0]].to(self.device, self.dtype)
