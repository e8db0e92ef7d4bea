"""Why a model has no such key where another one has it. No torch here.

A key that nothing has is a slip of the pen, and the nearest known one is named (`errors.did_you_mean`). One that belongs
elsewhere is a wish, and deserves the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diled.config import Config
from diled.errors import ConfigError
from diled.family import FAMILY
from diled.parts import DataDiffusionConfig, DiffusionConfig, NetworkConfig

__all__ = ["check_keys", "foreign"]

LIKELIHOOD = "A diffusion over data reads x back in the data's own measure, so there is no likelihood to choose."
DISTILLED = "Only a consistency model has a teacher and numbers of noise levels."
CRITIC = "Only daae has a critic."

WHY = {
    "beta": "With another prior the rate is weighed by rate_weight; a VAE with beta is beta_vae.",
    "free_bits": "Free bits need the KL of each code dimension in closed form, which only a standard normal prior has: take "
    "beta_vae (with beta 1 it is a VAE), or lower rate_weight where a model has it.",
    "rate_weight": "The rate of a VAE is weighed by the beta of beta_vae; a model without an encoder has nothing to weigh.",
    "rate_warmup": "Only a rate that an encoder is trained on is warmed up.",
    "likelihood": LIKELIHOOD,
    "std": LIKELIHOOD,
    "components": LIKELIHOOD,
    "latent_dim": "Its code is as large as the data, or there is none.",
    "network": "Without an encoder there is one network alone, which is set under model.diffusion.",
    "prior": "A diffusion over codes is found in diled, lsgm, ldm and diffae; one over data is set under model.diffusion.",
    "diffusion": "A diffusion over codes is set under model.prior, one that decodes under model.decoder.",
    "decoder": "Only a diffusion that decodes is set there; other decoders share model.network with the encoder.",
    "first_stage": "Everything is trained in one stage.",
    "levels": "For nested codes take diled_levels or hierarchical_vae.",
    "mixture": "Only autoencoders without a prior of their own get a mixture.",
    "teacher": DISTILLED,
    "coarsest": DISTILLED,
    "finest": DISTILLED,
    "corruption": "What an encoder does not see while it trains is set with training.corruption.",
    "critic_weight": CRITIC,
    "critic_width": CRITIC,
    "critic_pace": CRITIC,
}
"""Key of some models -> why the others have none, or what they have instead."""

PARTS: dict[type[Config], str] = {
    NetworkConfig: "encoder and decoder networks",
    DiffusionConfig: "a diffusion over codes",
    DataDiffusionConfig: "a diffusion over data",
}
WHY_PARTS = {
    "times_per_code": "There it is called times_per_example.",
    "times_per_example": "There it is called times_per_code.",
    "mixed": "LSGM's mixed score is for codes near N(0, I).",
    "encoder_weighting": "Nothing flows from it into an encoder.",
    "terminal": "Data cannot grow, so the last KL needs no switch.",
    "attention": "Its network is an MLP.",
    "depth": "It counts blocks.",
}
"""The same for the keys of a part."""


def foreign(name: str, path: Sequence[str]) -> str | None:
    """Why the model called `name` has no value at `path`, below `model`; None where no other has it either."""
    kind: Any = FAMILY[name]
    for i, key in enumerate(path):
        if key in kind.model_fields:
            kind = type(kind.model_fields[key].default)
            if not issubclass(kind, Config):
                return None
            continue
        where = ".".join(["model", *path[: i + 1]])
        top = kind is FAMILY[name]
        kinds: dict[str, Any] = dict(FAMILY) if top else {said: part for part, said in PARTS.items()}
        owners = [said for said, other in kinds.items() if key in other.model_fields]
        here, why = (name, WHY) if top else (PARTS[kind], WHY_PARTS)
        if not owners:
            return None
        some = ", ".join(owners[:3]) + (f" and {len(owners) - 3} more" if len(owners) > 3 else "")
        return f"'{where}' belongs to {some}; {here} has no such key.{' ' + why[key] if key in why else ''}"
    return None


def check_keys(name: str, values: dict[str, Any]) -> None:
    """Refuse values of other models.

    Raises:
        ConfigError: with the first of them, and the reason.
    """

    def check(values: dict[str, Any], path: tuple[str, ...]) -> None:
        for key, value in values.items():
            reason = foreign(name, (*path, str(key)))
            if reason is not None:
                raise ConfigError(reason)
            if isinstance(value, dict):
                check(value, (*path, str(key)))

    if name in FAMILY:
        check(values, ())
