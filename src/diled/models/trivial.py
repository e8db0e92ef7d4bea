"""What trivial models reach: independent dimensions, and probabilistic PCA. They are fitted in closed form.

    independent   p(x) = prod_d p_d(x_d)                                       the entropy of each dimension by itself
    PPCA          p(x) = N(m, W W^T + s^2 I),   W of rank k                    (Tipping & Bishop 1999)

A Gaussian has no probability on a grid of grey values, so PPCA sees x plus uniform noise of one cell's width there, and
-log P(x) <= E_u [ -log p(x + u) ] - D log h for cells of width h (Theis et al. 2016, section 3.1): a bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from diled.api import Density, Noise, Posterior, Terms, normal_noise, sum_dims
from diled.distributions import LOG_2PI, Normal, round_to_grid
from diled.draws import drawn_uniform
from diled.errors import ConfigError

__all__ = ["PPCA", "Independent", "batches_of", "moments"]


def batches_of(x: Tensor | Iterable[Tensor]) -> Iterable[Tensor]:
    """A tensor as the one batch that it is; batches as they are."""
    return (x,) if isinstance(x, Tensor) else x


def moments(parts: Iterable[Tensor], *, products: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and variance of each number over all rows of batches (N, *shape), in float64; with `products` the covariance (D, D).

    Sums are taken about the mean of the first batch, so that nothing is lost where the mean is large.
    """
    n, about, first, second = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for part in parts:
        rows = part.double()
        about = about if n else rows.mean(0)
        gap = rows - about
        first = first + gap.sum(0)
        second = second + (gap.T @ gap if products else gap.square().sum(0))
        n += len(rows)
    shift = first / n
    square = torch.outer(shift, shift) if products else shift.square()
    return about + shift, (second - n * square) / (n - 1)


class Independent(Density):
    """Each dimension by itself: a histogram over the grid, or a Gaussian for continuous data.

    Args:
        shape: of one example.
        levels: number of grey values in [-1, 1]; None: continuous.
    """

    certain = True
    log_p: Tensor
    mean: Tensor
    log_var: Tensor

    def __init__(self, shape: tuple[int, ...], levels: int | None) -> None:
        super().__init__()
        self.shape, self.levels = tuple(shape), levels
        if levels is not None:
            self.register_buffer("log_p", torch.full((levels, *shape), -math.log(levels)))
        else:
            self.register_buffer("mean", torch.zeros(shape))
            self.register_buffer("log_var", torch.zeros(shape))

    @torch.no_grad()
    def fit(self, x: Tensor | Iterable[Tensor]) -> None:
        """Frequencies with one half of an example added to each value; or mean and variance.

        Args:
            x: examples (N, *shape), or batches of them.
        """
        if self.levels is None:
            mean, var = moments(batches_of(x))
            self.mean.copy_(mean)
            self.log_var.copy_(var.clamp(min=1e-6).log())
            return
        counts = torch.full(self.log_p.shape, 0.5, dtype=torch.float64)
        for part in batches_of(x):
            index = self._index(part)
            counts.scatter_add_(0, index, torch.ones(()).to(counts).expand(index.shape))
        self.log_p.copy_((counts / counts.sum(0)).log())

    def _index(self, x: Tensor) -> Tensor:
        assert self.levels is not None
        return ((x + 1) * (0.5 * (self.levels - 1))).round().long()

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """`nll`, which is exact."""
        if not isinstance(q, Tensor):
            return self.terms_of_sample(q, exact=exact, progress=progress)
        if self.levels is None:
            return {"nll": Normal(self.mean.expand_as(q), self.log_var).nll(q)}
        index = self._index(q).clamp(0, self.levels - 1)
        return {"nll": -sum_dims(self.log_p.gather(0, index))}

    def sample(self, n: int, *, noise: Noise | None = None, mean: bool = False) -> Tensor:
        """Draws, (n, *shape). `mean` changes nothing: there is no code whose mean picture it could be."""
        reference = self.mean if self.levels is None else self.log_p
        e = (noise or normal_noise(reference))((n, *self.shape))
        if self.levels is None:
            return self.mean + (0.5 * self.log_var).exp() * e
        cdf, u = self.log_p.exp().cumsum(0), torch.special.ndtr(e)
        index = torch.stack([u > edge for edge in cdf[:-1]]).sum(0)
        return index.to(u) * (2 / (self.levels - 1)) - 1


class PPCA(Density):
    """A Gaussian with k principal directions and noise of equal variance in all others.

    Args:
        shape: of one example, D dimensions.
        levels: number of grey values in [-1, 1]; None: continuous.
        components: k < D.
    """

    has_codes = True
    mean: Tensor
    basis: Tensor
    scales: Tensor
    noise_var: Tensor

    def __init__(self, shape: tuple[int, ...], levels: int | None, components: int) -> None:
        super().__init__()
        self.shape, self.levels = tuple(shape), levels
        dims = math.prod(shape)
        if components >= dims:
            raise ConfigError(f"latent_dim = {components}: PPCA needs fewer than the data's {dims} dimensions.")
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("basis", torch.eye(dims, components))
        self.register_buffer("scales", torch.ones(components))
        self.register_buffer("noise_var", torch.ones(()))

    def _spread(self, x: Tensor) -> Tensor:
        """Flattened, and on a grid with uniform noise of one cell's width."""
        x = x.flatten(1)
        return x if self.levels is None else x + (drawn_uniform(tuple(x.shape), x) - 0.5) * (2 / (self.levels - 1))

    @torch.no_grad()
    def fit(self, x: Tensor | Iterable[Tensor]) -> None:
        """The maximum of the likelihood in closed form (Tipping & Bishop 1999, Eq. 14 and 15).

        Args:
            x: examples (N, *shape), or batches of them.
        """
        mean, covariance = moments((self._spread(part) for part in batches_of(x)), products=True)
        self.mean.copy_(mean)
        values, vectors = torch.linalg.eigh(covariance)
        k = len(self.scales)
        noise = values[:-k].mean().clamp(min=1e-8)
        self.noise_var.copy_(noise)
        self.basis.copy_(vectors[:, -k:])
        self.scales.copy_((values[-k:] - noise).clamp(min=0).sqrt())

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """`nll`: exact for continuous data, a bound by added noise on a grid."""
        if not isinstance(q, Tensor):
            return self.terms_of_sample(q, exact=exact, progress=progress)
        gap = self._spread(q) - self.mean
        along, var = gap @ self.basis, self.scales**2 + self.noise_var
        rest = (gap**2).sum(1) - (along**2).sum(1)
        left = len(self.mean) - len(self.scales)
        log_det = var.log().sum() + left * self.noise_var.log()
        nll = 0.5 * (len(self.mean) * LOG_2PI + log_det + (along**2 / var).sum(1) + rest / self.noise_var)
        cells = 0.0 if self.levels is None else len(self.mean) * math.log(2 / (self.levels - 1))
        return {"nll": (nll - cells).float()}

    def sample(self, n: int, *, noise: Noise | None = None, mean: bool = False) -> Tensor:
        """Draws, (n, *shape); with `mean` without the noise."""
        noise = noise or normal_noise(self.mean)
        z = noise((n, len(self.scales)))
        return self.decode(z, noise=noise, draw=not mean)

    def encode(self, x: Tensor, *, noise: Noise | None = None, sample: bool = False) -> Tensor:
        """E[z | x], (B, k), or a draw from the posterior."""
        var = self.scales**2 + self.noise_var
        z = (x.flatten(1) - self.mean) @ self.basis * self.scales / var
        if not sample:
            return z
        return z + (self.noise_var / var).sqrt() * (noise or normal_noise(z))(tuple(z.shape))

    def decode(self, z: Tensor, *, noise: Noise | None = None, draw: bool = False) -> Tensor:
        """m + W z, (B, *shape), within the range on a grid; with `draw` a draw, rounded to the grid."""
        x = self.mean + (z * self.scales) @ self.basis.T
        if draw:
            x = x + self.noise_var.sqrt() * (noise or normal_noise(x))(tuple(x.shape))
        if self.levels is not None:
            x = round_to_grid(x, self.levels) if draw else x.clamp(-1, 1)
        return x.reshape(-1, *self.shape)

    def reconstruct(
        self, x: Tensor, *, noise: Noise | None = None, sample_code: bool = False, invert: bool = False
    ) -> Tensor:
        """The picture of x's code.

        Raises:
            ConfigError: `invert`, which is for diffusion decoders.
        """
        if invert:
            raise ConfigError("invert has no meaning here: the decoder is no diffusion, so a code says all there is.")
        return self.decode(self.encode(x, noise=noise, sample=sample_code))
