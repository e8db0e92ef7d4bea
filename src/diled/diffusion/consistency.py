"""Consistency models: a function that takes every point of an ODE's path to its clean end.

With s = sigma / alpha and x_s = x + s e, a consistency function f(x_s, s) is the same along the whole path, and

    f(x, s) = c_skip x + c_out F(c_in x),   c_skip = d^2 / ((s - s_0)^2 + d^2),   c_out = d (s - s_0) / sqrt(s^2 + d^2)

is the identity at the clean end s_0 (Song et al. 2023, Eq. 25). It is trained on neighbouring levels s_n < s_{n+1}:

    loss = huber( f(x_{n+1}, s_{n+1}), stop(f(x_n, s_n)) ) / (s_{n+1} - s_n),   huber(a, b) = sqrt(||a - b||^2 + c^2) - c

where x_n is one step of a teacher's ODE from x_{n+1} (distillation), or x + s_n e with the same noise (from scratch).
Levels, their number and their distribution are those of Song & Dhariwal 2024 (arXiv 2310.14189, Table 1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diled.api import Density, NoBound, Noise, Posterior, Terms, normal_noise, sum_dims
from diled.diffusion.diffusion import Diffusion, stratified_times
from diled.diffusion.last_step import LastStep
from diled.diffusion.samplers import heun, karras_levels
from diled.diffusion.schedule import LogNormal, Schedule, alpha, like
from diled.errors import ConfigError

__all__ = ["Consistency", "ConsistencyFunction"]

RHO = 7.0
"""Levels are equally spaced in s^(1 / rho)."""


class ConsistencyFunction(nn.Module):
    """f with its boundary: the identity at the clean end.

    Args:
        network: (c_in x_s, log SNR, condition) -> F.
        gamma_min: -log SNR at the clean end; s_0 = exp(gamma_min / 2).
        sigma_data: d.
    """

    def __init__(self, network: nn.Module, gamma_min: float, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.network, self.clean, self.sigma_data = network, math.exp(0.5 * gamma_min), sigma_data

    def forward(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """z_t = alpha x_s (B, ...), log_snr (B,) -> x at the clean end."""
        d, s, x = self.sigma_data, like(torch.exp(-0.5 * log_snr), z_t), z_t / like(alpha(-log_snr), z_t)
        spread, way = (s**2 + d**2).sqrt(), s - self.clean
        return d**2 / (way**2 + d**2) * x + d * way / spread * self.network(x / spread, log_snr, condition)


class Consistency(Density):
    """Samples in one network evaluation, or a few. There is no bound.

    Args:
        student: a consistency function.
        schedule: its ends are the cleanest and the noisiest level.
        shape: of one example.
        levels: number of grey values; None: continuous data.
        prior: the teacher; None: from scratch.
        coarsest, finest: number of noise levels at the start and at the end of the training; it doubles in between.
        steps: evaluations when sampling.
    """

    def __init__(
        self,
        student: ConsistencyFunction,
        schedule: Schedule,
        shape: tuple[int, ...],
        levels: int | None = None,
        *,
        prior: Diffusion | None = None,
        coarsest: int = 10,
        finest: int = 160,
        steps: int = 2,
    ) -> None:
        super().__init__()
        self.student, self.prior = student, prior
        self.schedule, self.shape = schedule, tuple(shape)
        low, high = (float(end) for end in schedule.ends)
        self.proposal = LogNormal(low, high, mean=-1.1, std=2.0)
        self.last = LastStep(schedule, levels)
        self.coarsest, self.finest, self.steps = coarsest, finest, steps
        self.sampler: str | None = None

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """`consistency`, the loss above, in no unit of information.

        Raises:
            NoBound: `exact` is wanted.
        """
        if exact:
            raise NoBound(
                "A consistency model maps noise to data and has no likelihood, so it has no bound on -log p(x). "
                "Its samples can still be compared; its teacher has a bound."
            )
        x = q if isinstance(q, Tensor) else q.sample()
        low, high = self._neighbours(len(x), progress, x)
        noisy = x + like(high, x) * torch.randn_like(x)
        with torch.no_grad():
            less = self._step(noisy, high, low) if self.prior is not None else x + like(low / high, x) * (noisy - x)
            target = self._map(less, low)
        c = 0.00054 * math.sqrt(math.prod(self.shape))
        huber = (sum_dims((self._map(noisy, high) - target) ** 2) + c**2).sqrt() - c
        return {"consistency": huber / (high - low)}

    def count(self, progress: Tensor | float) -> Tensor:
        """N: noise levels at this share of the training; from `coarsest`, doubling at equal intervals up to `finest`."""
        doublings = math.ceil(math.log2(self.finest / self.coarsest))
        done = torch.as_tensor(progress, dtype=torch.float32)
        return (self.coarsest * 2 ** torch.floor(done * (doublings + 1))).clamp(max=self.finest)

    def _neighbours(self, batch: int, progress: Tensor | float, x: Tensor) -> tuple[Tensor, Tensor]:
        """s_n and s_{n+1}, (B,) each: the cell of N into which a log-normal noise level falls."""
        n = self.count(progress).to(x.device)
        first, last = (torch.exp(end / (2 * RHO)) for end in self.schedule.ends)
        s = torch.exp(self.proposal.gamma(stratified_times(batch, 1, x)) / (2 * RHO))
        cell = torch.floor(n * (s - first) / (last - first)).clamp(min=0)
        cell = torch.minimum(cell, n - 1)
        return tuple((first + (cell + i) / n * (last - first)) ** RHO for i in (0, 1))  # type: ignore[return-value]

    def _map(self, x: Tensor, s: Tensor) -> Tensor:
        gamma = 2 * torch.log(s)
        return self.student(like(alpha(gamma), x) * x, -gamma).to(x.dtype)

    def _step(self, x: Tensor, high: Tensor, low: Tensor) -> Tensor:
        """One step of Heun's method along the teacher's ODE."""
        assert self.prior is not None
        gammas = 2 * torch.log(torch.stack([high, low]))
        denoiser = self.prior.denoiser
        z = heun(lambda z, log_snr: denoiser(z, log_snr).to(z.dtype), like(alpha(gammas[0]), x) * x, gammas)
        return z / like(alpha(gammas[1]), x)

    def sample(
        self,
        n: int,
        *,
        noise: Noise | None = None,
        mean: bool = False,
        steps: int | None = None,
        sampler: str | None = None,
    ) -> Tensor:
        """x, (n, *shape), in `steps` evaluations: each but the first adds noise again (Song et al. 2023, Algorithm 1).

        Raises:
            ConfigError: a sampler is asked for.
        """
        if sampler or self.sampler:
            raise ConfigError("A consistency model is its own sampler: choose the number of steps only.")
        reference = self.schedule.ends[0]
        noise = noise or normal_noise(reference)
        s = torch.exp(0.5 * karras_levels(self.schedule, steps or self.steps, reference.device, rho=RHO))
        x = s[0] * noise((n, *self.shape))
        for i in range(len(s) - 1):
            if i:
                x = x + (s[i] ** 2 - s[-1] ** 2).sqrt() * noise((n, *self.shape))
            x = self._map(x, s[i].expand(n))
        last = self.last.given(alpha(self.schedule.ends[0]) * x)
        return last.mean if mean else last.sample(noise)
