"""The log-probability of a bin of a grid under Gaussian and logistic distributions, precise in both tails, and fast.

A value x stands for [x - h, x + h], the two outermost ones of [-1, 1] for what lies beyond, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

__all__ = ["gaussian_bins", "log_ndtr", "log_sum_exp", "logistic_bins"]

PIECE = 2**17
"""Numbers in a tensor that the elementwise steps of a likelihood take at once: a few such tensors fit a core's cache."""


def gaussian_bins(x: Tensor, mean: Tensor, log_var: Tensor, h: float) -> Tensor:
    """log [ F(x + h) - F(x - h) ] under N(mean, exp(log_var)), elementwise."""
    # Reflect to the side where the distribution function is small: F(b) - F(a) = S(a) - S(b).
    sign = torch.where(x > mean, -1.0, 1.0).to(x.dtype)
    precision = (-0.5 * log_var).exp()
    log_upper = log_ndtr(sign * (x + sign * h - mean) * precision)
    log_lower = log_ndtr(sign * (x - sign * h - mean) * precision)
    # The outermost bin on the reflected side reaches to infinity: log F = 0; on the other side its lower end does.
    edge = 1 - 0.5 * h
    top, bottom = sign * x > edge, sign * x < -edge
    log_upper = torch.where(top, torch.zeros_like(log_upper), log_upper)
    gap = torch.where(bottom, torch.full_like(log_lower, -1e4), log_lower - log_upper).clamp(max=-1e-12)
    return log_upper + torch.log(-torch.expm1(gap))


def logistic_bins(x: Tensor, mean: Tensor, log_scale: Tensor, h: float) -> Tensor:
    """log [ F(x + h) - F(x - h) ] under logistic distributions, elementwise."""
    gap, log_scale = torch.broadcast_tensors(x - mean, log_scale)
    edge = 1 - 0.5 * h
    below, above = (torch.where(outermost, math.inf, 0.0).to(gap.dtype) for outermost in (x < -edge, x > edge))
    log_prob: Tensor = _LogisticBins.apply(gap, log_scale, below, above, h)
    return log_prob


class _LogisticBins(torch.autograd.Function):
    """log [ F(u) - F(v) ] of bins of logistic distributions, with its gradient in closed form.

    With F(u) = 1 / (1 + e^-u), the bin's ends u = c + q + above and v = c - q - below, c = (x - mean) / scale and
    q = h / scale,

        F(u) - F(v) = F(u) F(-v) (1 - e^(v - u)),        log F(u) = min(u, 0) + log F(|u|),

    so nothing cancels in either tail.

    Args:
        gap: x - mean.
        log_scale: in the same shape.
        below, above: infinity where the bin has no lower, or no upper, end, else 0; broadcastable. They get no gradient.
        h: half a bin's width.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(gap: Tensor, log_scale: Tensor, below: Tensor, above: Tensor, h: float) -> Tensor:
        """In the shape of `gap`."""
        return _in_pieces(partial(_log_bins, h=h), gap, log_scale, below, above)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the gradient needs."""
        ctx.save_for_backward(*inputs[:4])
        ctx.h = inputs[4]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        """d/dc = F(-u) - F(v) and d/dq = F(-u) + F(v) + 2 / (e^(u - v) - 1)."""
        gradients = _in_pieces(partial(_gradients_of_bins, h=ctx.h), *ctx.saved_tensors, grads[0])
        return *gradients, None, None, None


def _log_bins(gap: Tensor, log_scale: Tensor, below: Tensor, above: Tensor, h: float) -> tuple[Tensor]:
    inverse = log_scale.neg().exp_()
    c, q = gap * inverse, inverse * h
    u, v = c + q + above, c - q - below
    p = u.abs().sigmoid_() * v.abs().sigmoid_() * _width(q, below, above).neg_().expm1_().neg_()
    return (p.log_() + u.clamp(max=0) - v.clamp(min=0),)


def _gradients_of_bins(
    gap: Tensor, log_scale: Tensor, below: Tensor, above: Tensor, grad: Tensor, h: float
) -> tuple[Tensor, Tensor]:
    inverse = (-log_scale).exp()
    c, q = gap * inverse, h * inverse
    rest, under = torch.sigmoid(-(c + q + above)), torch.sigmoid(c - q - below)
    by_c = rest - under
    by_q = rest + under + 2 / torch.expm1(_width(q, below, above))
    return grad * by_c * inverse, -grad * (c * by_c + q * by_q)


def _in_pieces(f: Callable[..., tuple[Tensor, ...]], *parts: Tensor) -> list[Tensor]:
    """f of examples, a few at a time: on a processor, so few that what is between stays in its cache."""
    n = len(parts[0])
    few = max(1, PIECE * n // max(1, parts[0].numel()))
    if few >= n or parts[0].device.type != "cpu":
        return list(f(*parts))
    pieces = zip(*(part.expand(n, *part.shape[1:]).split(few) for part in parts), strict=True)
    return [torch.cat(out) for out in zip(*(f(*piece) for piece in pieces), strict=True)]


def _width(q: Tensor, below: Tensor, above: Tensor) -> Tensor:
    """u - v, at most 80: there 1 - e^-80 is 1, and e^-88 is so small a float that exp takes several times as long."""
    return (2 * q + (below + above)).clamp(max=80)


def log_sum_exp(x: Tensor, dim: int) -> Tensor:
    """torch.logsumexp of finite x, several times faster where terms are so small that exp underflows."""
    most = x.detach().amax(dim, keepdim=True)
    return (x - most).clamp(min=-80).exp().sum(dim).log() + most.squeeze(dim)


def log_ndtr(u: Tensor) -> Tensor:
    """log Phi(u), in a fifth of the time of torch's own, whose gradient is lost to rounding in fp32 below u = -1000.

    log Phi(u) = log(erfc(-u / sqrt(2)) / 2), and far below 0 (Abramowitz & Stegun 1964, 26.2.12)
    log Phi(u) = -u^2/2 - log(-u sqrt(2 pi)) + log(1 - 1/u^2 + 3/u^4 - 15/u^6 + ...).
    """
    # where the series begins erfc is still a number, and its terms are precise
    far, terms = (-30.0, 6) if u.dtype == torch.float64 else (-10.0, 3)
    tail = u.clamp(max=far)
    square = tail * tail
    w = 1 / square
    series = -(2 * terms - 1) * w
    for odd in range(2 * terms - 3, 0, -2):
        series = (1 + series) * w * -odd
    log_tail = -0.5 * square - torch.log(-math.sqrt(2 * math.pi) * tail) + torch.log1p(series)
    return torch.where(u < far, log_tail, torch.log(0.5 * torch.erfc(-math.sqrt(0.5) * u.clamp(min=far))))
