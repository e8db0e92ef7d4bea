"""A small Potts model as the truth behind sequences: everything about it is counted, with numpy alone.

    p(x) = exp(-E(x)) / Z,    E(x) = -sum_i h_i(x_i) - sum_{i<j} J_ij(x_i, x_j),    x in {0 ... V-1}^L

Nothing here uses a formula of the library. 0 is the end: without `ends` it has no probability, and all sequences are whole.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from diled.models.exact_sequences import Potts

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
NEVER = -40.0
"""Field of an end that does not occur."""


@dataclass(frozen=True)
class PottsData:
    """Sequences of at most `length` of `symbols` symbols, the end included; `strength` is the couplings' deviation."""

    length: int = 4
    symbols: int = 4
    seed: int = 0
    strength: float = 0.8
    ends: bool = False

    @cached_property
    def parameters(self) -> tuple[np.ndarray, np.ndarray]:
        """h (L, V) and J (L, L, V, V), of which only i < j is used."""
        rng = np.random.default_rng(self.seed)
        h = 0.5 * rng.standard_normal((self.length, self.symbols))
        if not self.ends:
            h[:, 0] = NEVER
        return h, self.strength * rng.standard_normal((self.length, self.length, self.symbols, self.symbols))

    @cached_property
    def rows(self) -> np.ndarray:
        """All rows, (V^L, L), in the order of their digits."""
        return np.array(list(itertools.product(range(self.symbols), repeat=self.length)))

    def energy(self, rows: np.ndarray) -> np.ndarray:
        """E of rows (N, L), term by term."""
        h, j = self.parameters
        return -np.array(
            [
                sum(h[i, x[i]] for i in range(self.length))
                + sum(j[i, k, x[i], x[k]] for i in range(self.length) for k in range(i + 1, self.length))
                for x in np.asarray(rows)
            ]
        )

    @cached_property
    def p(self) -> np.ndarray:
        """The probability of every row, (V^L,)."""
        weights = np.exp(-self.energy(self.rows))
        return weights / weights.sum()

    @property
    def entropy(self) -> float:
        """-sum p log p, in nats."""
        return float(-(self.p * np.log(self.p)).sum())

    @property
    def best(self) -> np.ndarray:
        """The most likely row, (L,)."""
        return self.rows[self.p.argmax()]

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """n rows, (n, L)."""
        chosen = np.random.default_rng(seed).choice(len(self.p), size=n, p=self.p)
        return torch.from_numpy(self.rows[chosen])

    def marginals(self, p: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """p(x_i = a), (L, V), and p(x_i = a, x_j = b), (L, L, V, V)."""
        one_hot = np.eye(self.symbols)[self.rows]
        p = self.p if p is None else p
        return np.einsum("r,ria->ia", p, one_hot), np.einsum("r,ria,rjb->ijab", p, one_hot, one_hot)

    def frequencies(self, x: Tensor) -> np.ndarray:
        """How often each row occurs among x (n, L), (V^L,)."""
        index = (x.numpy() * self.symbols ** np.arange(self.length - 1, -1, -1)).sum(1)
        return np.bincount(index, minlength=len(self.rows)) / len(x)

    def model(self) -> Potts:
        """The library's model with these parameters."""
        h, j = self.parameters
        potts = Potts(self.length, self.symbols)
        pairs = np.triu_indices(self.length, 1)
        potts.fields.data = torch.from_numpy(h).float()
        potts.couplings.data = torch.from_numpy(j[pairs]).float()
        return potts

    def texts(self, x: Tensor) -> list[str]:
        """Rows as letters."""
        return ["".join(LETTERS[s - 1] for s in row if s) for row in x.tolist()]
