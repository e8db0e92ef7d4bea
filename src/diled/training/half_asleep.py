"""Reverse half asleep: the encoder goes on learning on samples of its own model, which never run out.

    min over phi of   E_{z ~ p(z), x ~ p(x|z)} KL( q_phi(z|x) || p(z|x) )   =   min of E_x [bound(x)] + const,

since with decoder and prior fixed log p(x) is a constant. Zhang, Hayes & Barber 2022 (arXiv 2205.11640, section 4); in
contrast to the sleep phase of Hinton et al. 1995 the divergence is the reversed one, that of the bound itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diled.api import Density, NoBound, Noise, Posterior, Stage, Terms, evaluating
from diled.config import TrainingConfig
from diled.draws import seeded
from diled.errors import ConfigError

__all__ = ["HalfAsleep", "arrange"]


class HalfAsleep(Density):
    """An autoencoder that trains on as many samples of its own as it is given examples.

    Args:
        model: with `encoder`, `decoder` and `prior`; whoever trains this freezes the last two.
    """

    def __init__(self, model: Density) -> None:
        super().__init__()
        self.model = model

    @property
    def encoder(self) -> Any:
        """The model's encoder: what trains."""
        return self.model.encoder

    @property
    def decoder(self) -> Any:
        """The model's decoder."""
        return self.model.decoder

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """The model's bound on samples in place of x, whatever weights it was trained with; with `exact` on x itself."""
        if exact or not isinstance(q, Tensor):
            return self.model.terms(q, exact=exact)
        with torch.no_grad():
            x = self.model.sample(len(q))
        return self.model.terms(x, exact=True)

    def sample(self, n: int, *, noise: Noise | None = None) -> Tensor:
        """Of the model."""
        return self.model.sample(n, noise=noise)


def arrange(model: nn.Module, stages: list[Stage], x: Tensor, config: TrainingConfig) -> list[Stage]:
    """The stages of a training, with the half asleep one at the end where it is wanted.

    Args:
        model: what the stages train.
        stages: in order.
        x: an example or two in model space, (B, *shape).
        config: of the training.

    Raises:
        ConfigError: an option of the training has no effect on this model, or needs a bound that it has not.
    """
    trained = [stage for stage in stages if stage.share]
    wanted = {
        "augment": config.augment != "none" or bool(config.augment_values.changes),
        "mollify": config.mollify > 0,
        "input_noise": config.input_noise > 0,
        "corruption": config.corruption > 0,
        "half_asleep": config.half_asleep > 0,
        "keep": config.keep == "best",
    }
    first = next((key for key, is_wanted in wanted.items() if is_wanted), None)
    if not trained and first is not None:
        raise ConfigError(f"training.{first} has no effect: nothing of this model is trained step by step.")
    for key in ("input_noise", "corruption"):
        if wanted[key] and not any(_encoder_trains(stage) for stage in trained):
            raise ConfigError(f"training.{key} has no effect: this model has no encoder that trains.")
    if config.keep == "best":
        for stage in trained:
            _need_bound(
                stage.density, x, f"training.keep 'best' chooses by the bound, and stage '{stage.name}' has none"
            )
    if not config.half_asleep:
        return stages
    if not isinstance(model, Density) or not all(hasattr(model, name) for name in ("encoder", "decoder", "prior")):
        raise ConfigError("training.half_asleep needs an encoder, a decoder and a prior, which this model has not.")
    columns = getattr(model, "columns", ())
    if columns:
        raise ConfigError(
            f"training.half_asleep trains the encoder on samples, which have no '{columns[0]}', so the head that "
            "reads it would be left behind: leave out one of training.half_asleep and properties.columns."
        )
    _need_bound(model, x, "training.half_asleep trains the encoder on the bound, and this model has none")
    if not any(_encoder_trains(stage) for stage in trained):
        raise ConfigError("training.half_asleep trains the encoder alone, which is frozen: leave one of the two out.")
    share = config.half_asleep / (1 - config.half_asleep) * sum(stage.share for stage in trained)
    frozen = (model.decoder, model.prior)
    return [*stages, Stage("half asleep", HalfAsleep(model), share, frozen=frozen)]  # type: ignore[arg-type]


def _encoder_trains(stage: Stage) -> bool:
    """Whether a stage trains an encoder of x."""
    encoder = getattr(stage.density, "encoder", None)
    fixed = {id(p) for module in stage.frozen for p in module.parameters()}
    return encoder is not None and any(id(p) not in fixed for p in encoder.parameters())


def _need_bound(density: Density, x: Tensor, why: str) -> None:
    """Refuse a density without a bound; nothing is changed by looking."""
    try:
        with torch.no_grad(), seeded(0), evaluating(density):
            density.terms(x, exact=True)
    except NoBound as error:
        raise ConfigError(f"{why}: {error}") from None
