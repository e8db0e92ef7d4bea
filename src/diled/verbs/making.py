"""Verbs that make training sets, and that reproduce a paper's tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from diled.verbs.types import Device, Run

__all__ = ["reproduce", "synthesize"]


def synthesize(
    source: Run,
    *,
    n: int | None = None,
    out: str | Path | None = None,
    data: str | Path | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    draw: bool = False,
    seed: int = 0,
    dtype: Literal["fp32", "bf16"] = "fp32",
    shard: str | None = None,
    batch: int | None = None,
    verify: bool = False,
    device: Device = "auto",
) -> dict[str, Any]:
    """Draw a training set from a trained model: Parquet shards with a manifest, for `train --pool.source` and for others.

    Stopped at any moment, it goes on with the shards that are missing. Sample i depends on the seed and i alone.

    Args:
        source: a run; a folder of a diffusers pipeline (DDPM or DDIM), or hub:owner/name; or a folder of samples that exist, to
            be indexed.
        n: how many samples.
        out: folder of the set; of a folder of samples, that folder or nothing.
        data: training data that the manifest's quality probe compares with; default: those of the run.
        steps: of every diffusion inside; default: the model's own.
        sampler: ancestral, ddim, heun or dpm_solver; default: the model's own.
        draw: draw from p(x | z) instead of taking its mean.
        seed: of the noise.
        dtype: fp32, or bf16 for networks under autocast, on a device that has instructions for it.
        shard: i/n: every n-th shard, from the i-th on, for several machines; processes of torchrun share by themselves.
        batch: samples at a time.
        verify: read finished shards again and compare their hashes.
        device: where to compute.

    Returns:
        The manifest.

    Raises:
        DiledError: no such source, a folder that was begun with other settings, or damaged shards.
    """
    from diled.synthesizing import synthesize as made

    options = {"steps": steps, "sampler": sampler, "draw": draw, "seed": seed, "dtype": dtype, "shard": shard}
    return made(source, n, out, data=data, batch=batch, verify=verify, device=device, **options)  # type: ignore[arg-type]


def reproduce(
    study: str | None = None,
    *,
    scale: str = "mini",
    seeds: Sequence[int] = (0,),
    only: Sequence[str] = (),
    steps: int | None = None,
    runs: str | Path = "runs",
    device: Device = "auto",
    stacked: bool = False,
) -> str:
    """Reproduce a paper's table: train every arm, audit it, and print the figures beside the paper's.

    What is done already is kept, so a stopped reproduction goes on.

    Args:
        study: its name, such as dmaapx-mnist; without it, the studies are listed.
        scale: mini (two cores), paper, or what else the study has.
        seeds: of the arms.
        only: arms, by name; default: all.
        steps: instead of those of all trainings, for a trial.
        runs: folder of the runs.
        device: where to compute.
        stacked: train together, with stacked weights, arms and seeds of one architecture and recipe, for a GPU; the others one
            by one.

    Returns:
        The table, in Markdown.

    Raises:
        DiledError: an unknown study, scale or arm; a finished run of other settings.
    """
    from diled.output import aligned
    from diled.studies.dmaapx import listed
    from diled.studies.dmaapx import reproduce as reproduced
    from diled.studies.render_dmaapx import beside_the_paper

    if study is None:
        return "\n".join(aligned([("study", "scales", "what it asks"), *listed()]))
    found = reproduced(
        study,
        scale,
        seeds=[int(s) for s in seeds],
        only=only,
        steps=steps,
        runs=Path(runs),
        results=None,
        device=device,
        stacked=stacked,
    )
    return beside_the_paper(study, {arm: list(by_seed.values()) for arm, by_seed in found.items()}, scale)
