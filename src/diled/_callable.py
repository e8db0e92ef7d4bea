"""`diled.data` and `diled.models` are packages and verbs: calling the package calls the verb."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

__all__ = ["make_callable"]


def make_callable(module: str, verb: str) -> None:
    """Let `module(...)` call the verb of that name."""

    class CallableModule(ModuleType):
        def __call__(self, *args: Any, **options: Any) -> Any:
            from diled import verbs

            return getattr(verbs, verb)(*args, **options)

    sys.modules[module].__class__ = CallableModule
