"""A diffusion over data, and the same given a code: the decoder of diffusion autoencoders.

The code is x itself, seen through the chain's first noise, q(z_0 | x) = N(alpha_0 x, sigma_0^2), and

    -log p(x) <= E_q [ -log p(x | z_0) ] + KL(path)            distortion + rate (Ho et al. 2020, section 4.3)

with a last step that reads x back from z_0 in the data's own measure: on a grid of grey values p(x | z_0) is proportional
to q(z_0 | x) (Kingma et al. 2021, Eq. 8), for continuous data it is N(z_0 / alpha_0, sigma_0^2 / alpha_0^2).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from diled.api import Density, Distribution, NoBound, Noise, Posterior, Terms, sum_dims, total
from diled.diffusion.diffusion import Diffusion
from diled.diffusion.schedule import Schedule, alpha, sigma, sigma2
from diled.distributions import LOG_2PI, NoisyGrid, Normal
from diled.errors import ConfigError

__all__ = ["Conditional", "DataDiffusion", "DiffusionDecoder", "LastStep"]


class LastStep:
    """Where data meet the chain: q(z_0 | x), and p(x | z_0) in the data's own measure.

    Args:
        schedule: its clean end is the first noise.
        levels: number of grey values of x in [-1, 1]; None: continuous, so that p(x | z_0) is a density.
    """

    def __init__(self, schedule: Schedule, levels: int | None) -> None:
        self.schedule, self.levels = schedule, levels
        self.reach: int | None = None
        self.learned = any(p.requires_grad for p in schedule.parameters())
        if levels is not None and not self.learned:
            self.reach = math.ceil(8 * math.exp(0.5 * float(schedule.ends[0])) * (levels - 1) / 2) + 1

    def first_noise(self, x: Tensor) -> Normal:
        """q(z_0 | x) = N(alpha_0 x, sigma_0^2)."""
        gamma_0 = self.schedule.ends[0]
        return Normal(alpha(gamma_0) * x, torch.log(sigma2(gamma_0)).expand_as(x))

    def given(self, z_0: Tensor) -> Normal | NoisyGrid:
        """p(x | z_0)."""
        gamma_0 = self.schedule.ends[0]
        read, std = z_0 / alpha(gamma_0), sigma(gamma_0) / alpha(gamma_0)
        if self.levels is None:
            return Normal(read, (2 * torch.log(std)).expand_as(read), self.learned)
        return NoisyGrid(read, std, self.levels, self.reach)

    def nll(self, x: Tensor, z_0: Tensor) -> Tensor:
        """-log p(x | z_0), (B,), of a z_0 drawn from q(z_0 | x); of continuous data its expectation, in closed form."""
        if self.levels is not None:
            return self.given(z_0).nll(x)
        gamma_0 = self.schedule.ends[0]
        return sum_dims((0.5 * (LOG_2PI + 1 + torch.log(sigma2(gamma_0))) - torch.log(alpha(gamma_0))).expand_as(x))


class DataDiffusion(Density):
    """p(x) as a diffusion and the step that reads x back.

    Its codes are x_T, flattened: the noise from which DDIM returns to x.

    Args:
        prior: the diffusion over z_0, of the shape of x.
        levels: number of grey values of x in [-1, 1]; None: continuous, so that bounds are densities.

    Reference: Ho et al. 2020 (arXiv 2006.11239); Kingma et al. 2021 (arXiv 2107.00630).
    """

    implicit = True
    path = "spherical"

    def __init__(self, prior: Diffusion, levels: int | None = None) -> None:
        super().__init__()
        self.prior, self.levels = prior, levels
        self.last = LastStep(prior.schedule, levels)

    @property
    def has_codes(self) -> bool:  # type: ignore[override]
        """Whether the ODE can take x to x_T."""
        return self.prior.process.ode

    def terms(
        self,
        q: Tensor | Posterior,
        *,
        exact: bool = False,
        progress: Tensor | float = 1.0,
        condition: Tensor | None = None,
    ) -> Terms:
        """`distortion` (the last step), and the path as `rate/...`."""
        if not isinstance(q, Tensor):
            return self.terms_of_sample(q, exact=exact, progress=progress)
        posterior = self.last.first_noise(q)
        z_0 = posterior.sample()
        if exact:
            self.last.given(z_0).check(q)
        distortion = self.last.nll(q, z_0)
        path = self.prior.terms(posterior, exact=exact, progress=progress, condition=condition)
        return {"distortion": distortion, **{f"rate/{name}": term for name, term in path.items()}}

    def sample(self, n: int, *, noise: Noise | None = None, mean: bool = False, **options: Any) -> Tensor:
        """x, (n, *shape): a draw of the last step, or with `mean` its mean. `options` go to the diffusion."""
        last = self.last.given(self.prior.sample(n, noise=noise, **options))
        return last.mean if mean else last.sample(noise)

    def encode(
        self, x: Tensor, *, noise: Noise | None = None, sample: bool = False, condition: Tensor | None = None
    ) -> Tensor:
        """x_T by DDIM inversion, (B, D).

        Raises:
            ConfigError: a draw is wanted, or the process is no ODE.
        """
        if sample:
            raise ConfigError("The code of a diffusion model, x_T, is a function of x: there is nothing to draw.")
        z_0 = self.last.first_noise(x).mean
        return self.prior.invert(z_0, steps=self.prior.sampling_steps("ddim"), condition=condition).flatten(1)

    def decode(
        self, z: Tensor, *, noise: Noise | None = None, draw: bool = False, condition: Tensor | None = None
    ) -> Tensor:
        """x from x_T (B, D) by DDIM, so that `encode` is its inverse; with `draw` the last step is drawn."""
        start = z.reshape(-1, *self.prior.shape)
        last = self.last.given(self.prior.sample(len(z), sampler="ddim", condition=condition, start=start))
        return last.sample(noise) if draw else last.mean

    def reconstruct(
        self, x: Tensor, *, noise: Noise | None = None, sample_code: bool = False, invert: bool = True
    ) -> Tensor:
        """x by way of x_T."""
        return self.decode(self.encode(x, sample=sample_code))

    def given(self, condition: Tensor) -> Conditional:
        """p(x | condition) as a distribution."""
        return Conditional(self, condition)


class Conditional:
    """A data diffusion given a code, as a distribution p(x | z): its nll is the sum of its terms."""

    implicit = True
    """Its pictures are draws: its mean is blurred, for want of a factorised likelihood."""

    def __init__(self, density: DataDiffusion, condition: Tensor) -> None:
        self.density, self.condition = density, condition

    @property
    def measure(self) -> str:
        """`counting` on a grid, else `density`."""
        return "density" if self.density.levels is None else "counting"

    def nll(self, x: Tensor) -> Tensor:
        """A bound on -log p(x | condition), (B,); its gradient is the objective's."""
        return total(self.density.terms(x, condition=self.condition))

    def sample(self, noise: Noise | None = None) -> Tensor:
        """A draw from fresh noise."""
        return self.density.sample(len(self.condition), noise=noise, condition=self.condition)

    def picture(self, noise: Noise | None = None) -> Tensor:
        """Like `sample`, with the last step's mean; without `noise`, by DDIM from one x_T that all examples share."""
        if noise is not None:
            return self.density.sample(len(self.condition), noise=noise, mean=True, condition=self.condition)
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(self.density.prior.shape, generator=generator).to(self.condition)
        return self.from_noise(start.flatten().expand(len(self.condition), -1))

    @property
    def mean(self) -> Tensor:
        """E[x | condition], which is what the denoiser says where there is nothing but noise."""
        prior = self.density.prior
        z = self.condition.new_zeros(len(self.condition), *prior.shape)
        x = prior.denoiser(z, (-prior.schedule.ends[1]).expand(len(z)), self.condition).to(z.dtype)
        return x if self.density.levels is None else x.clamp(-1, 1)

    @property
    def mode(self) -> Tensor:
        """DDIM from x_T = 0."""
        return self.from_noise(self.condition.new_zeros(len(self.condition), math.prod(self.density.prior.shape)))

    def from_noise(self, x_T: Tensor) -> Tensor:
        """What DDIM makes of x_T (B, D) given the condition: the inverse of `invert`."""
        return self.density.decode(x_T, condition=self.condition)

    def invert(self, x: Tensor) -> Tensor:
        """The x_T (B, D) that DDIM takes back to x."""
        return self.density.encode(x, condition=self.condition)

    def entropy(self) -> Tensor:
        """Raises `NoBound`."""
        raise NoBound("A diffusion decoder has no entropy in closed form.")

    def check(self, x: Tensor) -> None:
        """Refuse values off the grid."""
        self.density.last.given(self.density.last.first_noise(x).mean).check(x)


class DiffusionDecoder(nn.Module):
    """p(x | z) as a data diffusion whose denoiser is given z (Preechakul et al. 2022; Liu et al. 2024, section 4.2).

    Args:
        density: a data diffusion with a denoiser that takes a condition (B, D).
    """

    implicit = True

    def __init__(self, density: DataDiffusion) -> None:
        super().__init__()
        self.density = density

    def forward(self, z: Tensor) -> Distribution:
        """The distribution of x given each code."""
        return self.density.given(z)
