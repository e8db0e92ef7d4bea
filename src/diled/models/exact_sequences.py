"""Densities of sequences without a code: a profile, a Potts model, and an autoregressive transformer.

    profile    p(x) = p_1(x_1) ... p_L(x_L)                                   each position by itself, in closed form
    Potts      p(x) = exp(-E(x)) / Z,   E(x) = -sum_i h_i(x_i) - sum_{i<j} J_ij(x_i, x_j)
    lm         p(x) = p(x_1) p(x_2 | x_1) ... p(x_L | x_1 ... x_{L-1})

The Potts model is fitted by pseudo-likelihood, sum_i -log p(x_i | all others), since Z sums over V^L rows. Where these can
be counted, log Z is exact, and with it the density, the entropy, the best row and the draws; elsewhere there is no bound,
and draws are those of a Gibbs sampler. Its rows are L symbols of V, the filling after the end included; one that goes on
after its end has a little of the probability too, and is cut there where it is drawn.

References: Ekeberg et al. 2013 (arXiv 1211.1281), pseudo-likelihood for Potts models of proteins; Vorberg et al. 2018
(PLoS Computational Biology 14, e1006526), decay towards a profile; Morcos et al. 2011.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diled.api import Density, NoBound, Noise, Posterior, Terms, normal_noise, sum_dims
from diled.models.properties import PropertyHead
from diled.models.trivial import batches_of
from diled.nn.causal import CausalTransformer, Decoding
from diled.nn.sequence import one_hot
from diled.sequences import END, TokenSequence, cut, kept_nll, pick, scored, trimmed, wide

__all__ = ["COUNTABLE", "LanguageModel", "Potts", "Profile", "ReadingLanguageModel"]

COUNTABLE = 2**20
"""Most rows over which a Potts model's partition function is summed."""


def counted(x: Tensor | Iterable[Tensor], like: Tensor, *, filling: bool) -> Tensor:
    """How often each symbol occurs at each position, and one half.

    Args:
        x: rows (N, L), or batches of them.
        like: of the shape (L, V).
        filling: count what follows the first end, too.
    """
    length, symbols = like.shape
    counts = torch.full((length * symbols,), 0.5, dtype=torch.float64)
    for part in batches_of(x):
        cell = torch.arange(length) * symbols + part.long()
        counts += torch.bincount(cell.flatten() if filling else cell[scored(part)], minlength=len(counts))
    return counts.view(length, symbols)


class Profile(Density):
    """Each position by itself, with the frequencies of the training sequences.

    Args:
        length: L.
        symbols: V, the end included.
    """

    certain = True
    logits: Tensor

    def __init__(self, length: int, symbols: int) -> None:
        super().__init__()
        self.symbols = symbols
        self.register_buffer("logits", torch.zeros(length, symbols))

    @torch.no_grad()
    def fit(self, x: Tensor | Iterable[Tensor]) -> None:
        """Frequencies among the sequences that reach a position, with one half added to each symbol.

        Args:
            x: sequences (N, L), or batches of them.
        """
        counts = counted(x, self.logits, filling=False)
        self.logits.copy_((counts / counts.sum(1, keepdim=True)).log())

    def distribution(self, n: int) -> TokenSequence:
        """p(x), n times."""
        return TokenSequence(self.logits.expand(n, -1, -1))

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """`nll`, which is exact."""
        if not isinstance(q, Tensor):
            return self.terms_of_sample(q, exact=exact, progress=progress)
        return {"nll": self.distribution(len(q)).nll(q)}

    def sample(self, n: int, *, noise: Noise | None = None) -> Tensor:
        """Draws, (n, L)."""
        return self.distribution(n).sample(noise)


class LanguageModel(Density):
    """An autoregressive density of sequences.

    Args:
        network: x (B, L) -> logits (B, L, V), each position from those before.
    """

    certain = True

    def __init__(self, network: CausalTransformer) -> None:
        super().__init__()
        self.network = network
        self.decoding = Decoding()

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """`nll`, which is exact."""
        if not isinstance(q, Tensor):
            return self.terms_of_sample(q, exact=exact, progress=progress)
        return {"nll": sum_dims(self.network.nll(q))}

    @torch.no_grad()
    def sample(self, n: int, *, noise: Noise | None = None) -> Tensor:
        """Draws, (n, L)."""
        e = (noise or normal_noise(self.network.embed.position))((n, self.network.length))
        return self.network.draw(n, lambda logits, i, rows: self.decoding.draw(logits, e[rows, i]))


class ReadingLanguageModel(LanguageModel):
    """A language model with a head that reads properties from what it knows of a sequence.

    That is the mean of its hidden states before each symbol and after the last one.

    Args:
        network: with `reads_last`.
        head: of the network's width.
    """

    def __init__(self, network: CausalTransformer, head: PropertyHead) -> None:
        super().__init__(network)
        self.head = head

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns that the head learns from."""
        return self.head.columns

    def terms(
        self,
        q: Tensor | Posterior,
        *,
        exact: bool = False,
        progress: Tensor | float = 1.0,
        labels: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Terms:
        """`nll`, which is exact, and in training the head's errors as `extra/property/...`."""
        if exact or not isinstance(q, Tensor):
            return super().terms(q, exact=exact, progress=progress)
        short = trimmed(q)
        states, kept = self.network.read(short), scored(short)
        errors = self.head.errors(_mean_state(states, short), labels)
        found = {"nll": sum_dims(kept_nll(self.network.logits(states[:, :-1][kept]), short, kept))}
        return found | {f"extra/property/{column}": self.head.weight * error for column, error in errors.items()}

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Mean hidden states of rows (B, L), (B, width): what the head reads a property from."""
        return _mean_state(self.network.read(x), x)


def _mean_state(states: Tensor, x: Tensor) -> Tensor:
    """The mean of states (B, L + 1, width) over the start and the symbols of rows (B, L) before their end, (B, width)."""
    symbols = (x != END).long().cumprod(1)
    weight = F.pad(symbols, (1, 0), value=1)[..., None].float()
    return (wide(states) * weight).sum(1) / weight.sum(1)


class Potts(Density):
    """Fields and pairwise couplings.

    Args:
        length: L.
        symbols: V.
        decay: weight of the couplings' squares in the training, in nats per example; half of it for the squares of what fields
            differ from those of a profile (`fit`).
        sweeps: of the Gibbs sampler, over all positions, where rows cannot be counted.
    """

    def __init__(self, length: int, symbols: int, *, decay: float = 1e-3, sweeps: int = 100) -> None:
        super().__init__()
        self.length, self.symbols, self.decay, self.sweeps = length, symbols, decay, sweeps
        self.fields = nn.Parameter(torch.zeros(length, symbols))
        self.register_buffer("profile", torch.zeros(length, symbols))
        pairs = length * (length - 1) // 2
        self.couplings = nn.Parameter(torch.zeros(pairs, symbols, symbols))
        first, second = torch.triu_indices(length, length, 1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)

    certain = True
    profile: Tensor
    first: Tensor
    second: Tensor

    @property
    def countable(self) -> bool:
        """Whether there are few enough rows to sum over."""
        return self.symbols**self.length <= COUNTABLE

    @torch.no_grad()
    def fit(self, x: Tensor | Iterable[Tensor]) -> None:
        """Begin with the logarithms of the frequencies at each position, one half added to each count.

        A symbol that never occurs needs a field of -10 or so, which decay would hold near 0, and small steps take long to.

        Args:
            x: rows (N, L), or batches of them.
        """
        counts = counted(x, self.profile, filling=True)
        self.profile.copy_(counts.log() - counts.log().mean(1, keepdim=True))
        self.fields.copy_(self.profile)

    def matrix(self) -> Tensor:
        """J with J_ij(a, b) = J_ji(b, a) and no J_ii, (L V, L V)."""
        length, v = self.length, self.symbols
        whole = self.couplings.new_zeros(length, length, v, v)
        whole = whole.index_put((self.first, self.second), self.couplings)
        whole = whole + whole.permute(1, 0, 3, 2)
        return whole.permute(0, 2, 1, 3).reshape(length * v, length * v)

    def logits(self, x: Tensor) -> Tensor:
        """h_i(a) + sum_j J_ij(a, x_j): log p(x_i = a | all others) up to a constant, (B, L, V)."""
        return self.fields + (one_hot(x, self.symbols).flatten(1) @ self.matrix()).unflatten(1, self.fields.shape)

    def energy(self, x: Tensor) -> Tensor:
        """E(x), shape (B,)."""
        rows = one_hot(x, self.symbols)
        return -(rows * (self.fields + 0.5 * (self.logits(x) - self.fields))).flatten(1).sum(1)

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """In training `pseudo_likelihood` and `extra/decay`; with `exact` the `nll`.

        Raises:
            NoBound: `exact` is wanted and there are too many rows to sum over.
        """
        if not isinstance(q, Tensor):
            return self.terms_of_sample(q, exact=exact, progress=progress)
        if exact:
            return {"nll": self.energy(q) + self.log_partition()}
        log_p = self.logits(q).log_softmax(2).gather(2, q.long()[..., None])
        size = 0.5 * (self.fields - self.profile).square().sum() + self.couplings.square().sum()
        return {"pseudo_likelihood": -sum_dims(log_p), "extra/decay": (self.decay * size).expand(len(q))}

    def energies(self) -> Tensor:
        """E of every row, in the order of the digits in base V, (V^L,).

        Raises:
            NoBound: there are too many.
        """
        if not self.countable:
            raise NoBound(
                f"A Potts model of {self.length} positions with {self.symbols} symbols has too many sequences to sum over, so "
                "it has no bound on -log p(x): its energy ranks sequences all the same."
            )
        length, v = self.length, self.symbols
        total = self.fields.new_zeros([1] * length)
        for i in range(length):
            total = total - self.fields[i].reshape([v if k == i else 1 for k in range(length)])
        for pair, (i, j) in enumerate(zip(self.first.tolist(), self.second.tolist(), strict=True)):
            total = total - self.couplings[pair].reshape([v if k in (i, j) else 1 for k in range(length)])
        return total.flatten()

    def log_partition(self) -> Tensor:
        """log Z = log sum_x exp(-E(x))."""
        return torch.logsumexp(-self.energies().double(), 0).to(self.fields.dtype)

    @torch.no_grad()
    def entropy(self) -> Tensor:
        """-sum_x p(x) log p(x), in nats."""
        log_p = (-self.energies().double()).log_softmax(0)
        return -(log_p.exp() * log_p).sum().to(self.fields.dtype)

    @torch.no_grad()
    def best(self, k: int = 1) -> Tensor:
        """The k most likely rows, (k, L)."""
        return self._rows(self.energies().topk(k, largest=False).indices)

    def _rows(self, index: Tensor) -> Tensor:
        """Numbers of rows as rows."""
        powers = self.symbols ** torch.arange(self.length - 1, -1, -1, device=index.device)
        return index[:, None] // powers % self.symbols

    @torch.no_grad()
    def sample(self, n: int, *, noise: Noise | None = None) -> Tensor:
        """Draws, (n, L): exact where rows can be counted, else the state of n Gibbs chains after all sweeps."""
        noise = noise or normal_noise(self.fields)
        if self.countable:
            edges = (-self.energies().double()).softmax(0).cumsum(0)
            u = torch.special.ndtr(noise((n, 1)).double())[:, 0]
            return cut(self._rows(torch.searchsorted(edges, u).clamp(max=len(edges) - 1)))
        x = pick(self.fields.expand(n, -1, -1), noise((n, self.length)))
        matrix = self.matrix().unflatten(1, self.fields.shape)
        reach = self.fields + torch.einsum("nk,klv->nlv", one_hot(x, self.symbols).flatten(1), matrix)
        for _ in range(self.sweeps):
            e = noise((n, self.length))
            for i in range(self.length):
                new, at = pick(reach[:, i], e[:, i]), i * self.symbols
                reach = reach + matrix[at + new] - matrix[at + x[:, i]]
                x[:, i] = new
        return cut(x)
