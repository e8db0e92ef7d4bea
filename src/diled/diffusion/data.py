"""A diffusion over data, and the same given a code: the decoder of diffusion autoencoders.

The code is x itself, seen through the chain's first noise, q(z_0 | x) = N(alpha_0 x, sigma_0^2), and

    -log p(x) <= E_q [ -log p(x | z_0) ] + KL(path)            distortion + rate (Ho et al. 2020, section 4.3)

with a last step that reads x back from z_0 in the data's own measure (`last_step.py`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from diled.api import Density, Distribution, NoBound, Noise, Posterior, Terms, total
from diled.diffusion.diffusion import Diffusion
from diled.diffusion.last_step import LastStep
from diled.errors import ConfigError

__all__ = ["Conditional", "DataDiffusion", "DiffusionDecoder"]


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
        """`distortion` (the last step), and the path as `rate/...`.

        Raises:
            ConfigError: a condition is given with a distribution over x.
            NoBound: `exact` is wanted, and `check` refuses these x.
        """
        if not isinstance(q, Tensor):
            if condition is not None:
                raise ConfigError(
                    "A data diffusion takes a condition with examples (a tensor x), not with a distribution over x: "
                    "draw x from the distribution and pass the draws."
                )
            return self.terms_of_sample(q, exact=exact, progress=progress)
        if exact:
            self.check(q)
        return self.unchecked_terms(q, exact=exact, progress=progress, condition=condition)

    def unchecked_terms(
        self, x: Tensor, *, exact: bool, progress: Tensor | float = 1.0, condition: Tensor | None
    ) -> Terms:
        """`terms` of a tensor, also where they are no bound."""
        posterior = self.last.first_noise(x)
        distortion = self.last.nll(x, posterior.sample())
        path = self.prior.terms(posterior, exact=exact, progress=progress, condition=condition)
        return {"distortion": distortion, **{f"rate/{name}": term for name, term in path.items()}}

    def check(self, x: Tensor) -> None:
        """Refuse x of which the terms are no bound: values off the grid, or on one where the noise is learned."""
        self.last.given(self.last.first_noise(x).mean).check(x)

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
    """A data diffusion given a code, as a distribution p(x | z): its nll is the sum of its terms.

    While the diffusion is in training mode, the gradient of the nll is that of the training objective; in evaluation mode it
    is that of the bound, as every weight is one. The value is the bound's in both.
    """

    implicit = True
    """Its pictures are draws: its mean is blurred, for want of a factorised likelihood."""

    def __init__(self, density: DataDiffusion, condition: Tensor) -> None:
        self.density, self.condition = density, condition

    @property
    def measure(self) -> str:
        """`counting` on a grid, else `density`."""
        return "density" if self.density.levels is None else "counting"

    def nll(self, x: Tensor) -> Tensor:
        """A bound on -log p(x | condition), (B,), estimated from one draw."""
        terms = self.density.unchecked_terms(x, exact=not self.density.training, condition=self.condition)
        return total(terms)

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
        """Refuse x that the density refuses."""
        self.density.check(x)


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
