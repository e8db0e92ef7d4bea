"""Noise schedules: how the signal-to-noise ratio falls with time.

    z_t = alpha_t x + sigma_t e,   alpha_t^2 = sigmoid(-gamma(t)),   sigma_t^2 = sigmoid(gamma(t)),   gamma = -log SNR

with t in [0, 1] and 0 clean. Every schedule rises strictly from gamma(0) = `gamma_min` to gamma(1) = `gamma_max`: named
shapes (cosine, linear) are cut to the part between those ends. A likelihood depends on the ends only (Kingma et al.
2021, section 5.1); the shape decides where the training noise levels fall, p(gamma) = 1 / gamma'(t).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diled.errors import ConfigError

__all__ = [
    "BetaTable",
    "Cosine",
    "LearnedLogSNR",
    "Linear",
    "LinearLogSNR",
    "LogNormal",
    "Schedule",
    "alpha",
    "constant_beta",
    "ddpm_beta",
    "like",
    "sigma",
    "sigma2",
]

REACH = (-80.0, 20.0)
"""Ends between which a schedule that is cut in u, not in gamma, has them right to 0.002: u is close to 1 at the noise end."""
DEVIATIONS = 12
"""How far out a normal distribution may be cut: its slope there, exp(12^2 / 2), is still a number in single precision."""


def alpha(gamma: Tensor) -> Tensor:
    """alpha = sqrt(sigmoid(-gamma))."""
    return torch.sigmoid(-gamma).sqrt()


def sigma(gamma: Tensor) -> Tensor:
    """sigma = sqrt(sigmoid(gamma))."""
    return torch.sigmoid(gamma).sqrt()


def sigma2(gamma: Tensor) -> Tensor:
    """sigma^2 = sigmoid(gamma)."""
    return torch.sigmoid(gamma)


def like(v: Tensor, z: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1), to multiply z of shape (B, ...)."""
    return v.reshape(v.shape + (1,) * (z.ndim - v.ndim)) if v.ndim else v


class Schedule(nn.Module):
    """gamma(t), its slope, and its inverse. Abstract: a subclass writes the three."""

    def gamma(self, t: Tensor) -> Tensor:
        """-log SNR at time t, of t's shape."""
        raise NotImplementedError

    def slope(self, t: Tensor) -> Tensor:
        """d gamma / dt > 0."""
        raise NotImplementedError

    def time(self, gamma: Tensor) -> Tensor:
        """The t at which gamma(t) is the given value."""
        raise NotImplementedError

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """gamma(0) and gamma(1)."""
        t = torch.tensor([0.0, 1.0]).to(next(iter(self.buffers()), torch.empty(0)))
        g = self.gamma(t)
        return g[0], g[1]

    def forward(self, t: Tensor) -> Tensor:
        """gamma(t)."""
        return self.gamma(t)


class LinearLogSNR(Schedule):
    """gamma(t) = gamma_min + (gamma_max - gamma_min) t: noise levels uniform in log SNR."""

    _ends: Tensor

    def __init__(self, gamma_min: float = -8.0, gamma_max: float = 6.0) -> None:
        super().__init__()
        _check_ends(gamma_min, gamma_max)
        self.register_buffer("_ends", torch.tensor([float(gamma_min), float(gamma_max)]))

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """gamma(0) and gamma(1)."""
        return self._ends[0], self._ends[1]

    def gamma(self, t: Tensor) -> Tensor:
        """Linear."""
        g0, g1 = self.ends
        return g0 + (g1 - g0) * t

    def slope(self, t: Tensor) -> Tensor:
        """Constant."""
        g0, g1 = self.ends
        return (g1 - g0).expand_as(t)

    def time(self, gamma: Tensor) -> Tensor:
        """Linear."""
        g0, g1 = self.ends
        return (gamma - g0) / (g1 - g0)


class LearnedLogSNR(LinearLogSNR):
    """A linear log SNR whose two end points are parameters, trained by the bound (Kingma et al. 2021, appendix I).

    The shape between the ends changes only the variance of the estimate, so it stays linear. Under weights other than
    those of the bound the ends get no gradient.
    """

    def __init__(self, gamma_min: float = -8.0, gamma_max: float = 6.0) -> None:
        super().__init__(gamma_min, gamma_max)
        del self._ends
        self.low = nn.Parameter(torch.tensor(float(gamma_min)))
        self.log_range = nn.Parameter(torch.tensor(math.log(gamma_max - gamma_min)))

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """gamma(0) and gamma(1)."""
        return self.low, self.low + self.log_range.exp()


class Cosine(Schedule):
    """gamma = 2 log tan(pi u / 2), alpha = cos(pi u / 2): Nichol & Dhariwal 2021, cut to [gamma_min, gamma_max]."""

    cut: Tensor

    def __init__(self, gamma_min: float = -8.0, gamma_max: float = 6.0) -> None:
        super().__init__()
        _check_ends(gamma_min, gamma_max, "cosine", REACH)
        self.register_buffer("cut", torch.stack([self._u(torch.tensor(float(g))) for g in (gamma_min, gamma_max)]))

    @staticmethod
    def _u(gamma: Tensor) -> Tensor:
        return (2 / math.pi) * torch.atan(torch.exp(0.5 * gamma))

    def _at(self, t: Tensor) -> Tensor:
        return self.cut[0] + (self.cut[1] - self.cut[0]) * t

    def gamma(self, t: Tensor) -> Tensor:
        """2 log tan(pi u / 2)."""
        return 2 * torch.log(torch.tan(0.5 * math.pi * self._at(t)))

    def slope(self, t: Tensor) -> Tensor:
        """2 pi / sin(pi u) du/dt."""
        return 2 * math.pi / torch.sin(math.pi * self._at(t)) * (self.cut[1] - self.cut[0])

    def time(self, gamma: Tensor) -> Tensor:
        """From tan(pi u / 2) = exp(gamma / 2)."""
        return (self._u(gamma) - self.cut[0]) / (self.cut[1] - self.cut[0])


class Linear(Schedule):
    """alpha : sigma = (1 - u) : u, the straight path of flow matching in variance-preserving form (Lipman et al. 2023)."""

    cut: Tensor

    def __init__(self, gamma_min: float = -8.0, gamma_max: float = 6.0) -> None:
        super().__init__()
        _check_ends(gamma_min, gamma_max, "linear", REACH)
        self.register_buffer("cut", torch.sigmoid(torch.tensor([0.5 * gamma_min, 0.5 * gamma_max])))

    def _at(self, t: Tensor) -> Tensor:
        return self.cut[0] + (self.cut[1] - self.cut[0]) * t

    def gamma(self, t: Tensor) -> Tensor:
        """2 log (u / (1 - u))."""
        return 2 * torch.logit(self._at(t))

    def slope(self, t: Tensor) -> Tensor:
        """2 / (u (1 - u)) du/dt."""
        u = self._at(t)
        return 2 / (u * (1 - u)) * (self.cut[1] - self.cut[0])

    def time(self, gamma: Tensor) -> Tensor:
        """From u = sigmoid(gamma / 2)."""
        return (torch.sigmoid(0.5 * gamma) - self.cut[0]) / (self.cut[1] - self.cut[0])


class LogNormal(Schedule):
    """log(sigma / alpha) ~ N(mean, std^2), the noise levels of EDM's training, cut to [gamma_min, gamma_max].

    gamma(t) = 2 (mean + std Phi^-1(u)) with u rising linearly between the cuts (Karras et al. 2022, Table 1).
    """

    _ends: Tensor

    def __init__(
        self, gamma_min: float = -12.0, gamma_max: float = 8.0, *, mean: float = -1.2, std: float = 1.2
    ) -> None:
        super().__init__()
        _check_ends(gamma_min, gamma_max, "edm", (2 * (mean - DEVIATIONS * std), 2 * (mean + DEVIATIONS * std)))
        self.mean, self.std = mean, std
        ends = torch.tensor([gamma_min, gamma_max], dtype=torch.float64)
        cuts = (0.5 * ends - mean) / std
        below, above = _normal_cdf(cuts), _normal_cdf(-cuts)
        self.below, self.above = float(below[0]), float(above[1])
        self.share = float(below[1] - below[0] if cuts[0] < 0 else above[0] - above[1])
        self.register_buffer("_ends", ends.float())

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """gamma(0) and gamma(1)."""
        return self._ends[0], self._ends[1]

    def _score(self, t: Tensor) -> Tensor:
        """Phi^-1(u), from u or from 1 - u: the smaller of the two is the precise one."""
        t = _wide(t)
        u, rest = self.below + self.share * t, self.above + self.share * (1 - t)
        return torch.where(u < rest, 1, -1) * torch.special.ndtri(torch.minimum(u, rest))

    def gamma(self, t: Tensor) -> Tensor:
        """2 (mean + std Phi^-1(u))."""
        return (2 * (self.mean + self.std * self._score(t))).to(t.dtype)

    def slope(self, t: Tensor) -> Tensor:
        """2 std sqrt(2 pi) exp(Phi^-1(u)^2 / 2) du/dt: the inverse of the density of gamma."""
        density = torch.exp(-0.5 * self._score(t) ** 2) / math.sqrt(2 * math.pi)
        return (2 * self.std * self.share / density).to(t.dtype)

    def time(self, gamma: Tensor) -> Tensor:
        """From u = Phi((gamma / 2 - mean) / std)."""
        u = _normal_cdf((0.5 * _wide(gamma) - self.mean) / self.std)
        return ((u - self.below) / self.share).to(gamma.dtype)


class BetaTable(Schedule):
    """The table of a discrete chain: alpha_i^2 = prod_{j <= i} (1 - beta_j) at t = (i - 1) / (T - 1), gamma linear between.

    Exact at the table's own T steps, and a valid schedule (with an exact slope) at every t between.
    """

    table: Tensor

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        log_alpha2 = torch.log1p(-betas.double()).cumsum(0)
        gammas = torch.log(-torch.expm1(log_alpha2)) - log_alpha2
        self.register_buffer("table", gammas.float())

    def gamma(self, t: Tensor) -> Tensor:
        """Linear interpolation in the table."""
        table, i, part = self._cell(t)
        return torch.lerp(table[i], table[i + 1], part)

    def slope(self, t: Tensor) -> Tensor:
        """Constant within a cell of the table."""
        table, i, _ = self._cell(t)
        return (table[i + 1] - table[i]) * (len(table) - 1)

    def time(self, gamma: Tensor) -> Tensor:
        """Linear interpolation in the inverse table."""
        table = self._beside(gamma)
        gamma = gamma.to(table).contiguous()
        i = (torch.searchsorted(table, gamma) - 1).clamp(0, len(table) - 2)
        part = (gamma - table[i]) / (table[i + 1] - table[i])
        return (i + part) / (len(table) - 1)

    def _cell(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The table, and for each t (N,) which of its cells it is in and how far."""
        table = self._beside(t)
        x = t.to(table).clamp(0, 1) * (len(table) - 1)
        i = x.floor().long().clamp(max=len(table) - 2)
        return table, i, x - i

    def _beside(self, values: Tensor) -> Tensor:
        """The table where `values` are: the reference of a weighting is no part of a model, and does not move with it."""
        return self.table.to(values.device)


def ddpm_beta(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> BetaTable:
    """beta rising linearly from 1e-4 to 0.02 (Ho et al. 2020, section 4)."""
    return BetaTable(torch.linspace(first, last, steps, dtype=torch.float64))


def constant_beta(steps: int = 1000, beta: float = 0.008) -> BetaTable:
    """One beta for every step, the encoder's noise included (Liu et al. 2024: 0.008 and 1000)."""
    return BetaTable(torch.full((steps,), beta, dtype=torch.float64))


def _wide(x: Tensor) -> Tensor:
    """In float64 where the device has it."""
    return x if x.device.type == "mps" else x.double()


def _normal_cdf(x: Tensor) -> Tensor:
    """Phi(x); torch's own is 0 below -8.3, where the clean end of 16-bit images lies."""
    return torch.special.log_ndtr(x).exp()


def _check_ends(
    gamma_min: float, gamma_max: float, schedule: str = "", reach: tuple[float, float] | None = None
) -> None:
    """Refuse ends in the wrong order, and those where single precision can no longer follow a schedule's shape."""
    if not gamma_min < gamma_max:
        raise ValueError(f"gamma_min ({gamma_min}) must lie below gamma_max ({gamma_max})")
    for name, end in (("gamma_min", gamma_min), ("gamma_max", gamma_max)):
        if reach and not reach[0] <= end <= reach[1]:
            raise ConfigError(
                f"{name} = {end:g} is out of the reach of the schedule '{schedule}', which single precision follows from "
                f"{reach[0]:.1f} to {reach[1]:.1f} only: choose an end between the two, or another schedule."
            )
