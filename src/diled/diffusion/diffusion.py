"""A diffusion model as a density.

For a posterior q = N(M, V_0) over z_0 the rate, KL between the forward and the reverse path, is

    KL(q || p) <= 1/2 int_0^1 gamma'(t) E || (sigma_t / sqrt V_t) e - e_hat(z_t, t) ||^2 dt + KL(q(z_1 | x) || N(0, I)),
    z_t = alpha_{t|0} M + sqrt(V_t) e,   V_t as in `process.py`.

Neither an entropy nor a residual at t = 0 appears: the encoder's noise is integrated out. With V_0 = sigma_0^2 it is the
diffusion loss of Kingma et al. 2021 (Eq. 15 to 17). In discrete time the integral becomes the sum over T steps of
KL(q(z_s | z_t, x) || p(z_s | z_t)), Gaussians of different variances. For the optimal denoiser both are equalities in
the limit of many steps.

Feeding a sample of q instead of q adds the first noise a second time: a bound too, but a looser and noisier one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diled.api import Density, NoBound, Noise, Posterior, Terms, normal_noise, sum_dims, with_gradient_of
from diled.diffusion.last_step import LastStep
from diled.diffusion.objectives import Objective, vlb
from diled.diffusion.process import GaussianProcess, Process, bridge
from diled.diffusion.samplers import SAMPLERS, Denoise, Sampler, invert, levels
from diled.diffusion.schedule import Schedule, alpha, sigma
from diled.distributions import Normal
from diled.draws import drawn_normal, drawn_times
from diled.errors import ConfigError

__all__ = ["Diffusion", "Spacing", "stratified_times"]

Spacing = Callable[[Schedule, int, torch.device | None], Tensor]
"""(schedule, steps, device) -> steps + 1 noise levels from gamma(1) down to gamma(0), where a sampler looks."""


class Diffusion(Density):
    """p(z) defined by a denoiser and a noise schedule.

    Args:
        denoiser: (z_t, log_snr (B,), condition) -> estimate of clean z.
        schedule: gamma(t).
        shape: the shape of one z.
        timesteps: T of a discrete chain; None: continuous time.
        times_per_code: noise levels drawn for each example in training (K); stratified over the batch.
        objective: training weights. `bound()` ignores them.
        process: the forward process.
        sampler, steps, spacing: how it is sampled unless one says otherwise; `steps` None: 25, or T of a discrete chain for
            the ancestral sampler.

    Raises:
        ValueError: parts that do not go together.

    Reference: Sohl-Dickstein et al. 2015; Ho et al. 2020; Kingma et al. 2021.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        schedule: Schedule,
        shape: tuple[int, ...],
        *,
        timesteps: int | None = None,
        times_per_code: int = 1,
        objective: Objective | None = None,
        process: Process | None = None,
        sampler: str = "ddim",
        steps: int | None = None,
        spacing: Spacing = levels,
    ) -> None:
        super().__init__()
        if timesteps is not None and timesteps < 1:
            raise ValueError(f"timesteps must be at least 1, got {timesteps}")
        if objective and not objective.is_bound and any(p.requires_grad for p in schedule.parameters()):
            raise ValueError(
                "a learned schedule is trained by the bound only: use the vlb weighting, with the terminal term"
            )
        if process is not None and not process.ode and (timesteps is None or sampler != "ancestral"):
            raise ValueError("a process that is no ODE needs a discrete chain (timesteps) and the ancestral sampler")
        self.denoiser = denoiser
        self.schedule = schedule
        self.shape = tuple(shape)
        self.timesteps = timesteps
        self.times_per_code = times_per_code
        self.objective = objective or Objective()
        self.process = process or GaussianProcess()
        self.sampler, self.steps, self.spacing = sampler, steps, spacing

    def terms(
        self,
        q: Tensor | Posterior,
        *,
        exact: bool = False,
        progress: Tensor | float = 1.0,
        condition: Tensor | None = None,
    ) -> Terms:
        """`diffusion` (the path) and `terminal` (the last KL) of a Gaussian posterior over z_0.

        A tensor x is seen through the chain's own first noise, q = N(alpha_0 x, sigma_0^2), and read back by
        p(x | z_0) = N(z_0 / alpha_0, sigma_0^2 / alpha_0^2), the term `last_step`: a density per unit of x.
        """
        if isinstance(q, Tensor):
            last = LastStep(self.schedule, levels=None)
            terms = self.terms(last.first_noise(q), exact=exact, progress=progress, condition=condition)
            return {**terms, "last_step": last.expected_nll(q)}
        if not isinstance(q, Normal):
            if exact:
                q.entropy()  # raises NoBound where there is none
                raise NoBound(f"A diffusion prior bounds KL(q || p) for Gaussian q, not for {type(q).__name__}.")
            return self.terms(q.sample(), progress=progress, condition=condition)
        k = 1 if exact else self.times_per_code
        path = self._path(q, k, exact, condition)
        terminal = self._terminal(q)
        if not exact and not self.objective.terminal:
            terminal = with_gradient_of(terminal, torch.zeros_like(terminal))
        return {"diffusion": path, "terminal": terminal}

    def _terminal(self, q: Normal) -> Tensor:
        gamma_0, gamma_1 = self.schedule.ends
        last = self.process.marginal(q, gamma_0, gamma_1)
        return last.kl(Normal(torch.zeros_like(last.mean), torch.zeros_like(last.log_var)))

    def _path(self, q: Normal, k: int, exact: bool, condition: Tensor | None) -> Tensor:
        """The path's KL, (B,): k noise levels an example, averaged. Values are nats; gradients, the objective's."""
        batch, steps = q.mean.shape[0], self.timesteps
        t = stratified_times(batch, k, q.mean)
        if steps is not None:
            t = (torch.floor(t * steps) + 1).clamp(max=steps) / steps
        gamma_0, gamma_1 = self.schedule.ends
        if steps is not None:
            gamma_s, gamma_t = self.schedule.gamma(t - 1 / steps), self.schedule.gamma(t)
            slope = steps * (gamma_t - gamma_s)
        elif exact:  # the bound depends on the ends only, and has least noise with levels uniform in log SNR
            gamma_t, slope = gamma_0 + (gamma_1 - gamma_0) * t, (gamma_1 - gamma_0).expand_as(t)
        else:
            gamma_t, slope = self.schedule.gamma(t), self.schedule.slope(t)
        weight, q = self._weights(q.repeat(k), gamma_t, slope, exact)
        at_t = self.process.marginal(q, gamma_0, gamma_t)
        e = drawn_normal(tuple(at_t.mean.shape), at_t.mean)
        std = (0.5 * at_t.log_var).exp()
        z_t = at_t.mean + std * e
        c = None if condition is None else condition.repeat(k, *[1] * (condition.ndim - 1))
        x_hat = self.denoiser(z_t, -gamma_t, c).to(z_t.dtype)
        residual = self._residual(z_t, x_hat, e, std, gamma_t)
        squares = 0.5 * slope * residual
        if steps is None:
            nats = squares
        else:
            at_s = self.process.marginal(q, gamma_0, gamma_s)
            forward = bridge(at_s, at_t, z_t, gamma_s, gamma_t)
            nats = steps * forward.kl(self.process.step(z_t, x_hat, gamma_s, gamma_t))
        if weight is not None:
            nats = with_gradient_of(nats, weight * squares)
        return nats.reshape(k, batch).mean(0)

    @staticmethod
    def _residual(z_t: Tensor, x_hat: Tensor, e: Tensor, std: Tensor, gamma_t: Tensor) -> Tensor:
        """|| (sigma_t / sqrt V_t) e - e_hat ||^2, (B,)."""
        column = (-1,) + (1,) * (z_t.ndim - 1)
        a, s = alpha(gamma_t).reshape(column), sigma(gamma_t).reshape(column)
        return sum_dims((s / std * e - (z_t - a * x_hat) / s) ** 2)

    def _weights(self, q: Normal, gamma: Tensor, slope: Tensor, exact: bool) -> tuple[Tensor | None, Normal]:
        """w of the objective (None: the bound's own) and q with the gradient share of the encoder's weights."""
        prior, encoder = self.objective.prior, self.objective.encoder
        if exact or (prior is vlb and encoder is None):
            return None, q
        dims = math.prod(self.shape)
        w = prior(gamma.detach(), slope.detach(), dims)
        if encoder is not None:
            share = encoder(gamma.detach(), slope.detach(), dims) / w
            q = q.scale_gradient(share.reshape((-1,) + (1,) * (q.mean.ndim - 1)))
        return w, q

    def sample(
        self,
        n: int,
        *,
        noise: Noise | None = None,
        steps: int | None = None,
        sampler: str | Sampler | None = None,
        condition: Tensor | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """z_0, (n, *shape).

        Args:
            n: how many.
            noise: source of z_1 and of the steps' noise.
            steps: sampler steps.
            sampler: a name of `SAMPLERS` or any function (denoise, z, gammas, noise).
            condition: passed to the denoiser.
            start: z_1, instead of noise.

        Raises:
            ConfigError: an ODE sampler for a process that is no ODE.
        """
        reference = self._reference()
        noise = noise or normal_noise(reference)
        sampler = self.sampler if sampler is None else sampler
        steps = self.sampling_steps(sampler) if steps is None else steps
        z = noise((n, *self.shape)) if start is None else start
        gammas, denoise = self.spacing(self.schedule, steps, reference.device), self._denoise(condition)
        if not self.process.ode:
            return self._chain(denoise, z, gammas, noise, sampler)
        run = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
        return run(denoise, z, gammas, noise)

    def sampling_steps(self, sampler: str | Sampler | None = None) -> int:
        """Steps that `sample` takes unless one says otherwise."""
        chain = self.timesteps if (sampler or self.sampler) == "ancestral" else None
        return self.steps or chain or 25

    def invert(self, z_0: Tensor, *, steps: int = 50, condition: Tensor | None = None) -> Tensor:
        """The z_1 from which DDIM returns to z_0 (see `samplers.invert`).

        Raises:
            ConfigError: the process is no ODE.
        """
        if not self.process.ode:
            raise ConfigError("A neural diffusion model has no inverse: its process is no ODE.")
        return invert(self._denoise(condition), z_0, self.spacing(self.schedule, steps, z_0.device))

    def _chain(self, denoise: Denoise, z: Tensor, gammas: Tensor, noise: Noise, sampler: str | Sampler) -> Tensor:
        """The reverse chain, step by step."""
        if sampler != "ancestral":
            raise ConfigError("A neural diffusion model has no ODE: sample it with sampler 'ancestral'.")
        for gamma_t, gamma_s in zip(gammas[:-1], gammas[1:], strict=True):
            x_hat = denoise(z, (-gamma_t).expand(len(z))).to(z.dtype)
            z = self.process.step(z, x_hat, gamma_s, gamma_t).sample(noise)
        return z

    def _denoise(self, condition: Tensor | None) -> Denoise:
        if condition is None:
            return self.denoiser
        return lambda z, log_snr: self.denoiser(z, log_snr, condition)

    def _reference(self) -> Tensor:
        return next(iter(self.parameters()), self.schedule.ends[0])


def stratified_times(batch: int, k: int, like: Tensor) -> Tensor:
    """k times for each of `batch` examples, (k * batch,) copy-major: one point in each of k * batch equal cells of [0, 1).

    All share one random offset (Kingma et al. 2021, appendix I), over all ranks of a distributed run, and the k times of
    an example lie 1/k apart. Within `draws.paired_pass` all are the same.
    """
    paired = drawn_times((batch * k,), like)
    if paired is not None:
        return paired
    ranks, rank, offset = 1, 0, torch.rand((), device=like.device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        torch.distributed.broadcast(offset, 0)
    cell = torch.randperm(batch, device=like.device).to(like.dtype) * ranks + rank
    strata = (cell + offset) / (batch * ranks)
    return ((strata + torch.arange(k, device=like.device).to(like.dtype).unsqueeze(1)) / k).flatten()
