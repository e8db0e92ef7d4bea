"""Train and measure the rows of a table of proteins.

    python -m diled.studies.proteins gifford --seeds 0 1 2
    python -m diled.studies.proteins gb1-low

Like `table`, with what proteins need beside it. Rows of `gifford` are trained on a part of Gifford's training file and measured
on the rest of it (in distribution); and again, under names that end with `/shifted`, on Gifford's test file, which has another
distribution and longer sequences, so that the rows have room for 20: without the sequences that its training file has too, and
with them as `/shifted,all`.

Reference: Liu et al. 2020 (Bioinformatics 36, 2126), Ens-Grad; Liu et al. 2024, section 4.3.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache, partial

from diled.config import PreprocessConfig, SequenceConfig
from diled.data import Data, open_data
from diled.evaluation.measure import Measured, bounds
from diled.evaluation.sequences import reconstruction, regression
from diled.model import Model
from diled.reporting import figures
from diled.studies.table import arguments, run_study

__all__ = ["main", "measured", "shifted"]


@cache
def shifted(overlap: str = "drop") -> Data:
    """Gifford's own division, without (`drop`) or with (`keep`) what its two files share."""
    return open_data("gifford", PreprocessConfig(sequence=SequenceConfig(overlap=overlap)))


def measured(model: Model, data: Data, study: str = "") -> dict[str, Measured]:
    """All figures of a row."""
    found = figures(model, data)
    if study == "gifford":
        for suffix, overlap in (("/shifted", "drop"), ("/shifted,all", "keep")):
            place = replace(data, test=shifted(overlap).test)
            more = bounds(model.density, place.test, data.spec, repeats=4)
            more |= reconstruction(model.density, place.test, data.spec)
            more |= regression(model.density, place, place.test, "enrichment")
            found |= {f"{name}{suffix}": m for name, m in more.items()}
    return found


def main(argv: list[str] | None = None) -> int:
    """Run a study from the command line."""
    chosen = arguments("proteins", "Train and measure a table of proteins.").parse_args(argv)
    return run_study("proteins", chosen, partial(measured, study=chosen.study))


if __name__ == "__main__":
    sys.exit(main())
