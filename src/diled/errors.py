"""What can go wrong in a user's hands, each with one short sentence: what, where, and what to do.

The command line prints a `DiledError` without a traceback and exits with code 2. Anything else that is raised is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "DataError",
    "DataWarning",
    "DiledError",
    "Interrupted",
    "ModelError",
    "NoBound",
    "NoColumn",
    "TrainingError",
    "did_you_mean",
]


class DiledError(Exception):
    """The base of every error that a user can mend."""


class ConfigError(DiledError):
    """A key or value of a configuration is unknown or out of range."""


class DataError(DiledError, ValueError):
    """Data are missing, unreadable, empty, or of another shape or type than what they are wanted for."""


class NoColumn(DataError):
    """A table, or a file that is none, has no column of the name that is asked for."""


class DataWarning(UserWarning):
    """Inputs are read, but not as they are: something in them was changed or lost."""


class ModelError(DiledError):
    """A saved model is missing, truncated, of another version, or not a model at all."""


class TrainingError(DiledError):
    """Training stopped: a term became NaN or infinite, or the disk is full."""


class Interrupted(TrainingError):
    """Training was stopped by Ctrl-C or a termination signal; its state is saved."""


class NoBound(DiledError, TypeError):
    """A part of the model admits no bound on -log p(x), so no number in nats may be reported."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """` Did you mean 'latent_dim'?` where an option is close to `name`, else the options themselves."""
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(options)}." if options else ""
