"""A posterior that is no Gaussian: a Gaussian draw, carried through an invertible map.

    z_0 ~ N(m(x), v(x)),    z = f(z_0; h(x)),      log q(z | x) = log N(z_0; m, v) - log |det df/dz_0|
    rate = E_q[ log q(z | x) - log p(z) ],         unbiased from one draw, so the bound stays a bound

The encoder's network gives m, v and the context h (Kingma et al. 2016, Algorithm 1), and f is a stack of affine couplings
in place of inverse autoregressive steps: its inverse is as cheap, so log q of any z is known, not only of its own draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from diled.api import Noise, scale_gradient, sum_dims
from diled.distributions import Normal
from diled.models.autoencoder import GaussianEncoder

__all__ = ["FlowEncoder", "FlowPosterior"]


@dataclass(frozen=True)
class FlowPosterior:
    """The distribution of scale * f(z_0; h) + shift, z_0 ~ N(m, v): a density.

    It makes one draw of its own: `sample()` without a noise gives the same z each time, and `entropy()` is -log q of that z.
    So the decoder reads the code whose rate is counted, and where q is the true posterior the bound has no variance at all.
    `sample(noise)`, or `repeat`, gives other draws.

    Args:
        base: N(m, v), codes (B, D).
        flow: f, a module (z, h, inverse=False) -> (image, log |det|).
        context: h, (B, C).
        scale, shift: of an affine map after f, broadcastable to (B, D).
        dial: how much of their gradient all parameters pass, those of f included; a number or a tensor ().
        drawn: the draw z and log q(z), where another posterior has made it.

    Reference: Rezende & Mohamed 2015 (arXiv 1505.05770), Eq. 5 to 7; Kingma et al. 2016 (arXiv 1606.04934).
    """

    base: Normal
    flow: nn.Module
    context: Tensor
    scale: Tensor | float = 1.0
    shift: Tensor | float = 0.0
    dial: Tensor | float = 1.0
    drawn: tuple[Tensor, Tensor] | None = None
    measure: ClassVar[str] = "density"

    @cached_property
    def own(self) -> tuple[Tensor, Tensor]:
        """The draw z (B, D) and log q(z) (B,)."""
        return self._image(self.base.sample()) if self.drawn is None else self.drawn

    @property
    def mean(self) -> Tensor:
        """The image of the Gaussian's mean, (B, D). The mean itself has no closed form; of the identity it is this."""
        return scale_gradient(self._image(self.base.mean)[0], self.dial)

    @property
    def mode(self) -> Tensor:
        """The image of the Gaussian's mean, which is the mode where the scales do not depend on z."""
        return self.mean

    def sample(self, noise: Noise | None = None) -> Tensor:
        """The draw of its own, or another one from `noise`; differentiable."""
        z = self.own[0] if noise is None else self._image(self.base.sample(noise))[0]
        return scale_gradient(z, self.dial)

    def nll(self, x: Tensor) -> Tensor:
        """-log N(z_0; m, v) + log |det df/dz_0| + sum log |scale| at the z_0 that leads to x, shape (B,)."""
        base, context = self.base.scale_gradient(self.dial), scale_gradient(self.context, self.dial)
        weights = {name: scale_gradient(p, self.dial) for name, p in self.flow.named_parameters()}
        before = (x - self.shift) / self.scale
        z_0, log_det = functional_call(self.flow, weights, (before, context), {"inverse": True})
        return base.nll(z_0) - log_det + self._log_scale()

    def entropy(self) -> Tensor:
        """-log q of its own draw, shape (B,): an unbiased estimate of the entropy."""
        return scale_gradient(-self.own[1], self.dial)

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> FlowPosterior:
        """The distribution of scale * x + shift, with its draw."""
        moved = replace(self, scale=scale * self.scale, shift=scale * self.shift + shift, drawn=None)
        z, log_q = self.own
        return replace(moved, drawn=(scale * z + shift, log_q + self._log_scale() - moved._log_scale()))

    def scale_gradient(self, r: Tensor | float) -> FlowPosterior:
        """The same distribution, with its draw, whose parameters pass r times their gradient; r is a number or a tensor ()."""
        return replace(self, dial=self.dial * r, drawn=self.own)

    def anew(self) -> FlowPosterior:
        """The same distribution, with another draw."""
        return replace(self, drawn=None)

    def repeat(self, k: int) -> FlowPosterior:
        """k copies of the batch, (k B, ...), copy-major, each with a draw of its own."""
        return replace(self, base=self.base.repeat(k), context=self.context.repeat(k, 1), drawn=None)

    def check(self, x: Tensor) -> None:
        """Refuse codes on a grid, as its Gaussian does."""
        self.base.check(x)

    def _image(self, z_0: Tensor) -> tuple[Tensor, Tensor]:
        """z and log q(z) of a draw of the Gaussian."""
        z, log_det = self.flow(z_0, self.context)
        return self.scale * z + self.shift, -self.base.nll(z_0) - log_det - self._log_scale()

    def _log_scale(self) -> Tensor:
        """sum log |scale|, (B,)."""
        mean = self.base.mean
        return sum_dims(torch.as_tensor(self.scale, dtype=mean.dtype, device=mean.device).abs().log().expand_as(mean))


class FlowEncoder(nn.Module):
    """q(z | x) as a flow whose first state is a Gaussian of learned diagonal variance.

    Args:
        network: x -> (B, 3 D): means, raw log-variances and the context of the flow.
        flow: a module (z, context, inverse=False) -> (image, log |det|), on codes (B, D) with a context (B, D).
        limit: of the log-variances, as for `GaussianEncoder`.

    Reference: Kingma et al. 2016 (arXiv 1606.04934), Algorithm 1.
    """

    def __init__(self, network: nn.Module, flow: nn.Module, *, limit: float = 10.0) -> None:
        super().__init__()
        self.network, self.flow = network, flow
        self.first = GaussianEncoder(nn.Identity(), limit=limit)

    def forward(self, x: Tensor) -> FlowPosterior:
        """The posterior of each example."""
        h = self.network(x).float()
        dim = h.shape[1] // 3
        return FlowPosterior(self.first(h[:, : 2 * dim]), self.flow, h[:, 2 * dim :])
