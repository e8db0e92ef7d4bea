"""The importance-weighted autoencoder's objective: a tighter bound to train on, from K codes of each example.

    L_K = -E log 1/K sum_k w_k,    w_k = p(x | z_k) p(z_k) / q(z_k | x),  z_k ~ q(z | x)
    -log p(x) <= L_K <= L_1,       the bound of the VAE                              (Burda et al. 2016, Theorem 1)

The gradient is that of one estimate of L_K through the draws: of sum_k w~_k log w_k with the normalised weights w~ held
fixed (their Eq. 14).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from diled.api import Decoder, Density, Encoder, Posterior, Terms, has_entropy, total
from diled.errors import ConfigError
from diled.models.autoencoder import Autoencoder
from diled.models.flow_posterior import FlowPosterior
from diled.models.priors import GaussianMixture, StandardNormal

__all__ = ["ImportanceWeighted"]


class ImportanceWeighted(Autoencoder):
    """An autoencoder that trains on the importance-weighted bound L_K; its `bound()` stays L_1, that of the VAE.

    x is encoded once, and its K codes are decoded in one batch. In training the terms add up to the estimate of L_K:
    `distortion` and `rate/kl` are the nats of L_1, means over the same K draws, and `extra/importance` <= 0 is what the
    weights gain. Only the sum has a gradient, that of L_K.

    Args:
        encoder: x -> q(z | x), a Gaussian or a flow.
        decoder: z -> p(x | z), a likelihood.
        prior: p(z), with a density in closed form.
        samples: K.

    Raises:
        ConfigError: K is less than 1; a prior or a decoder that only bounds its density, since the exponential of such a
            mean is no weight; or free bits, of which weights know nothing.

    Reference: Burda et al. 2016 (arXiv 1509.00519), Eq. 8 and 14.
    """

    def __init__(
        self, encoder: Encoder | nn.Module, decoder: Decoder | nn.Module, prior: Density, samples: int
    ) -> None:
        if samples < 1:
            raise ConfigError(f"importance = {samples}: give at least 1 sample.")
        if not isinstance(prior, StandardNormal | GaussianMixture):
            raise ConfigError(
                f"Importance weights need log p(z) in closed form, and a prior of type {type(prior).__name__} only bounds it: "
                "use a standard normal or a mixture of Gaussians."
            )
        if getattr(prior, "free_bits", 0):
            raise ConfigError("free_bits has no meaning beside importance weights, which hold no KL: leave one out.")
        if getattr(decoder, "implicit", False):
            raise ConfigError("Importance weights need log p(x | z), and a diffusion decoder only bounds it.")
        super().__init__(encoder, decoder, prior)
        self.samples = samples

    def terms(
        self,
        q: Tensor | Posterior,
        *,
        exact: bool = False,
        progress: Tensor | float = 1.0,
        labels: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Terms:
        """`distortion`, `rate/kl` and `extra/importance`; with `exact` those of the autoencoder."""
        if exact or not isinstance(q, Tensor):
            return super().terms(q, exact=exact, progress=progress)  # of a distribution it asks about a draw
        k, posterior = self.samples, self.encoder(q)
        z, log_q = _draws(posterior, k)
        distortion = self.decoder(z).nll(q.repeat(k, *[1] * (q.ndim - 1))).reshape(k, -1)
        rate = (log_q + total(self.prior.terms(z))).reshape(k, -1)
        objective = math.log(k) - torch.logsumexp(-distortion - rate, 0)
        terms = {"distortion": distortion.detach().mean(0), "rate/kl": rate.detach().mean(0)}
        return {**terms, "extra/importance": objective - total(terms)}


def _draws(posterior: Posterior, k: int) -> tuple[Tensor, Tensor]:
    """k codes of each example (k B, ...), all examples of the first copy first, and log q of each (k B,)."""
    if not has_entropy(posterior):
        posterior.entropy()  # raises NoBound
    copies = posterior.repeat(k)  # type: ignore[attr-defined]
    z = copies.sample()
    # A flow knows log q of its own draw; to ask for its nll would invert it.
    return z, -(copies.entropy() if isinstance(copies, FlowPosterior) else copies.nll(z))
