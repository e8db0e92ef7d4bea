"""One function for each verb: what notebooks call and what the command line calls. The composition root.

Names and arguments are those of the command line: `diled train digits --model vae` is `diled.train("digits", model="vae")`.
Where a verb takes a run, a folder or a loaded `Model` will do. Heavy imports happen inside, so that importing is cheap.
"""

from diled.verbs.designing import optimize
from diled.verbs.listing import data, demo, models
from diled.verbs.making import reproduce, synthesize
from diled.verbs.measuring import audit, compare, evaluate
from diled.verbs.using import edit, encode, interpolate, reconstruct, sample, score, search, train

__all__ = [
    "audit",
    "compare",
    "data",
    "demo",
    "edit",
    "encode",
    "evaluate",
    "interpolate",
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
