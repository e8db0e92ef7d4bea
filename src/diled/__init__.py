"""diled: generate, reconstruct and represent with one diffusion autoencoder, and say honestly how well it generalizes.

    >>> import diled
    >>> model = diled.train("digits")
    >>> model.sample(16).shape
    (16, 1, 8, 8)

Everything is imported when it is first used, so `import diled` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diled._version import __version__

if TYPE_CHECKING:
    from diled.api import Density, Distribution
    from diled.errors import DiledError, NoBound
    from diled.estimator import DiledTransformer
    from diled.model import Model, load
    from diled.models.autoencoder import Autoencoder
    from diled.models.check import check_model
    from diled.verbs import (
        audit,
        compare,
        data,
        demo,
        edit,
        encode,
        evaluate,
        interpolate,
        models,
        optimize,
        reconstruct,
        reproduce,
        sample,
        score,
        search,
        synthesize,
        train,
    )

_HOMES = {  # of what is no verb
    "Autoencoder": "diled.models.autoencoder",
    "Density": "diled.api",
    "DiledError": "diled.errors",
    "DiledTransformer": "diled.estimator",
    "Distribution": "diled.api",
    "Model": "diled.model",
    "NoBound": "diled.errors",
    "check_model": "diled.models.check",
    "load": "diled.model",
}

__all__ = [
    "Autoencoder",
    "Density",
    "DiledError",
    "DiledTransformer",
    "Distribution",
    "Model",
    "NoBound",
    "__version__",
    "audit",
    "check_model",
    "compare",
    "data",
    "demo",
    "edit",
    "encode",
    "evaluate",
    "interpolate",
    "load",
    "models",
    "optimize",
    "reconstruct",
    "reproduce",
    "sample",
    "score",
    "search",
    "synthesize",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "diled.verbs")), name)
    raise AttributeError(f"module 'diled' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
