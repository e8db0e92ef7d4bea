"""A training set from a model: samples in shards, with progress, by any number of processes, going on after any end.

    source -> draw(start, rows, seed) -> shards of raw values -> manifest

Sample i is drawn from noise that depends on (seed, i) alone. So the shards may be drawn in any order and by anyone, and
"fresh" samples for a training are those that a set of endless size would hold.

Reference: Xiao, Zenn and Bamler 2024 (arXiv 2310.19653), Algorithm 2, step 1.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diled.api import IN_FP32
from diled.arguments import data_of, is_run
from diled.config import DataSpec
from diled.data import Data, open_data, to_strings
from diled.data.sources import existing
from diled.data.splits import seen
from diled.data.synthesis import (
    MANIFEST,
    Shard,
    begin,
    complete,
    index_folder,
    is_finished,
    plan,
    read_manifest,
    write_shard,
)
from diled.drawing import Dtype, Source, is_pipeline, source_of
from diled.draws import BLOCK
from diled.errors import ConfigError, DiledError, Interrupted
from diled.evaluation.feature_nets import extract
from diled.evaluation.images import frechet
from diled.evaluation.measure import features_for
from diled.evaluation.sequence_distances import nearest_rows
from diled.evaluation.text_metrics import copied, distinct, unique
from diled.memory import kept_memory
from diled.model import Model
from diled.models.sampling import BATCH
from diled.progress import progress_bar
from diled.runs import provenance, rank
from diled.space import raw_tensor, to_space
from diled.training.signals import Signals

__all__ = ["SHARD_SIZE", "fresh", "synthesize"]

SHARD_SIZE = 10 * BATCH
"""Samples in a shard: 5,120."""

PROBED = 10_000
"""At most so many training examples, and samples, are compared in the probe of quality."""

NEAREST = 500
"""Of so many samples the nearest training example is looked for."""


def synthesize(
    source: str | Path | Model,
    n: int | None = None,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    draw: bool = False,
    seed: int = 0,
    dtype: Dtype = "fp32",
    shard_size: int = SHARD_SIZE,
    shard: str | None = None,
    batch: int | None = None,
    device: str = "auto",
    verify: bool = False,
    probe: bool = True,
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Draw a training set from a model into a folder, or go on with one; or write a manifest over samples that exist.

    Args:
        source: a run, a folder of a diffusers pipeline (DDPM or DDIM, of images), or a folder of samples.
        n: how many; of a folder of samples it may only say how many there are.
        out: folder of the set; for a folder of samples, that folder or nothing.
        data: training data that the probe compares with; default: those of the run, where they can be opened.
        steps: of every diffusion inside; default: the model's own.
        sampler: ancestral, ddim, heun or dpm_solver; default: the model's own.
        draw: draw from p(x | z) instead of taking its mean.
        seed: of the noise; sample i depends on the seed and i alone.
        dtype: of the networks; bf16 runs them under autocast, on a device that has instructions for it.
        shard_size: samples in a file.
        shard: i/n, 0 <= i < n: draw every n-th shard from shard i on; beside it, torchrun divides by itself.
        batch: samples computed at once, a multiple of 64; default: 2,048 on a GPU, else 512, or 64 with convolutions.
        device: where to compute; a model in memory is computed where it is.
        verify: check every byte of the shards that are finished, not only their size and number of rows.
        probe: measure the quality of the first shard.
        progress: show a bar.
        say: prints a line.

    Returns:
        The manifest; its `complete` is false where other processes have shards left to draw.

    Raises:
        ConfigError: settings that have no meaning for the source, or other ones than the folder was begun with.
        DiledError: the source cannot be read.
        Interrupted: by Ctrl-C or a termination signal; the same command goes on.
    """
    if not isinstance(source, Model) and _is_folder_of_samples(Path(source)):
        given = {"steps": steps, "sampler": sampler, "draw": draw, "seed": seed, "shard": shard, "batch": batch}
        given |= {"dtype": dtype != "fp32", "verify": verify, "shard_size": shard_size != SHARD_SIZE}
        given |= {"device": device != "auto"}
        return _index(existing(source), n, out, data, [key for key, value in given.items() if value], probe, say)
    if n is None or out is None:
        raise ConfigError(f"Say {'how many samples to draw: --n' if n is None else 'where to put the samples: --out'}.")
    if data is not None and not probe:
        raise ConfigError("data has no effect without the probe, which compares the samples with them.")
    folder, shards, size = Path(out), _Shares(plan(n, shard_size), *_part(shard)), _batch(batch)
    with _own_gpu(device):
        chosen = source_of(source, steps=steps, sampler=sampler, draw=draw, dtype=dtype, device=device)
        if chosen.settings["dtype"] != dtype:
            say(IN_FP32)
        place = None if data is None else _training_data(source, data, chosen.spec)

        def ask(values: np.ndarray) -> dict[str, Any]:
            return _quality(values, chosen.spec, place or _training_data(source, None, chosen.spec))

        own = {"seed": seed, "n": n, "shard_size": shard_size, "data": chosen.spec.model_dump(mode="json")}
        try:
            begin(folder, chosen.settings | own, {"source": chosen.named, "provenance": provenance(seed=seed)})
            left = shards.left(folder, verify, say)
            _draw_shards(chosen, folder, shards.mine, left, seed, size, progress and rank() == 0)
            if not complete(folder, shards.all, ask if probe else None, verify=verify):
                shards.tell_others(folder, say)
            elif left:
                say(f"{n:,} samples are in {folder}.")
        except OSError as error:
            raise ConfigError(f"Could not write to {folder}: {error.strerror or error}. {_again(folder)}") from None
    return read_manifest(folder)


def fresh(
    source: str | Path | Model,
    seed: int = 0,
    batch: int = 128,
    *,
    steps: int | None = None,
    sampler: str | None = None,
    draw: bool = False,
    dtype: Dtype = "fp32",
    device: str = "auto",
    check: Callable[[DataSpec], None] | None = None,
) -> Callable[..., np.ndarray]:
    """An endless source of new samples for a training: (step, rank, ranks) -> raw values (batch, *shape).

    Batch number b = step x ranks + rank holds the samples b x batch, ..., (b + 1) x batch - 1 of the seed, so it depends on
    the seed and on b alone, and no sample comes twice.

    Args:
        source: a run, a loaded model, or a folder of a diffusers pipeline.
        seed: of the noise.
        batch: samples in each batch; multiples of 64 waste nothing.
        steps, sampler, draw, dtype, device: as for `synthesize`.
        check: is called with what the source draws, before anything is drawn, and may raise.

    Raises:
        ConfigError: a batch below one, or settings that have no meaning for the source.
        DiledError: the source cannot be read.
    """
    if batch < 1:
        raise ConfigError(f"batch = {batch}: at least 1 is needed.")
    drawn_from = source_of(source, steps=steps, sampler=sampler, draw=draw, dtype=dtype, device=device)
    if check is not None:
        check(drawn_from.spec)

    def values(step: int, rank: int = 0, ranks: int = 1) -> np.ndarray:
        start = (step * ranks + rank) * batch
        return np.concatenate(list(drawn_from.values(start, start + batch, seed)))

    return values


# Drawing --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shares:
    """All shards of a set, and which of them fall to this process: every `parts`-th, from number `part` on."""

    all: list[Shard]
    part: int
    parts: int

    @property
    def mine(self) -> list[Shard]:
        return self.all[self.part :: self.parts]

    def left(self, folder: Path, verify: bool, say: Callable[[str], None]) -> list[Shard]:
        """Those of this process that are not finished; the first one that torchrun started says how many are."""
        left = [one for one in self.mine if not is_finished(folder, one, verify=verify)]
        if len(left) < len(self.mine) and rank() == 0:
            say(f"{len(self.mine) - len(left):,} of {len(self.mine):,} shards are there.")
        return left

    def tell_others(self, folder: Path, say: Callable[[str], None]) -> None:
        """Say how many shards the other processes have left to draw."""
        lacking = sum(not is_finished(folder, one) for one in self.all)
        if lacking and rank() == 0:
            say(f"{lacking:,} of {len(self.all):,} shards are left to other processes: with them {folder} is whole.")


def _draw_shards(
    source: Source, folder: Path, mine: list[Shard], left: list[Shard], seed: int, batch: int | None, shown: bool
) -> None:
    """Draw the shards that are left of this process's, and write each when it is full."""
    total = sum(one.stop - one.start for one in mine)
    done = total - sum(one.stop - one.start for one in left)
    bar, signals = progress_bar(shown and bool(left), "rate"), Signals(lambda: _again(folder))
    with signals, bar as report, _fast_layout(source), kept_memory(source.device):
        if report is not None:
            report("synthesize", done, total)
        for one in left:
            parts = []
            for values in source.values(one.start, one.stop, seed, batch):
                parts.append(values)
                done += len(values)
                if report is not None:
                    report("synthesize", done, total)
                if signals.asked:
                    break
            if sum(map(len, parts)) == one.stop - one.start:
                write_shard(folder, one, np.concatenate(parts), source.spec)
            if signals.asked:
                raise Interrupted(f"Stopped. {_again(folder)}")


@contextmanager
def _fast_layout(source: Source) -> Iterator[None]:
    """Channels last on a GPU, whose convolutions are faster so; on a processor it makes no difference, and bf16 slower."""
    if source.device.type != "cuda" or not source.convolves:
        yield
        return
    source.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield
    finally:
        source.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@contextmanager
def _own_gpu(device: str) -> Iterator[None]:
    """Under torchrun each process of a machine computes on a GPU of its own."""
    local, count = os.environ.get("LOCAL_RANK", ""), torch.cuda.device_count()
    with ExitStack() as stack:
        if device in ("auto", "cuda") and local.isdigit() and count > 1:
            stack.enter_context(torch.cuda.device(int(local) % count))
        yield


def _part(shard: str | None) -> tuple[int, int]:
    """Which part of the shards is this process's, of how many: from `shard`, and within it from torchrun."""
    part, parts = 0, 1
    if shard is not None:
        i, slash, n = shard.partition("/")
        if not slash or not i.isdigit() or not n.isdigit() or int(i) >= int(n):
            raise ConfigError(f"shard '{shard}': give i/n with 0 <= i < n, such as 0/4, 1/4, 2/4 and 3/4.")
        part, parts = int(i), int(n)
    rank, ranks = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    if rank.isdigit() and ranks.isdigit() and int(ranks) > 1:
        part, parts = part * int(ranks) + int(rank), parts * int(ranks)
    return part, parts


def _batch(batch: int | None) -> int | None:
    if batch is not None and (batch < 1 or batch % BLOCK):
        nearest = max(1, round(batch / BLOCK)) * BLOCK
        raise ConfigError(f"batch = {batch}: samples are computed in multiples of {BLOCK}, such as {nearest}.")
    return batch


def _again(folder: Path) -> str:
    return f"What is finished in {folder} is kept: the same command goes on."


# Samples of others, and quality ---------------------------------------------------------------------------------------


def _is_folder_of_samples(path: Path) -> bool:
    return path.is_dir() and not is_run(path) and not is_pipeline(path)


def _index(
    folder: Path,
    n: int | None,
    out: str | Path | None,
    data: str | Path | None,
    given: list[str],
    probe: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """A manifest over a folder of samples; where data are named, the samples are read as theirs."""
    if given:
        raise ConfigError(f"{folder} holds samples, which are indexed and not drawn: leave out {', '.join(given)}.")
    if out is not None and Path(out).resolve() != folder.resolve():
        raise ConfigError(f"The manifest of {folder} lies in that folder, beside the samples: leave out --out.")
    place = None if data is None else open_data(data)
    about = {"source": {"kind": "folder", "name": folder.resolve().name}, "provenance": provenance()}
    try:
        manifest = index_folder(
            folder,
            about,
            n=n,
            spec=None if place is None else place.spec,
            probe=(lambda values, spec: _quality(values, spec, place)) if probe else None,
        )
    except OSError as error:
        raise ConfigError(f"Could not write to {folder}: {error.strerror or error}.") from None
    say(
        f"{manifest['settings']['n']:,} samples of {folder} are in its {MANIFEST}: --pool.source {shlex.quote(str(folder))}"
    )
    return manifest


def _training_data(source: str | Path | Model, data: str | Path | None, spec: DataSpec) -> Data | None:
    """What the samples are compared with: the data named, else what the run was trained on; None where that is not here.

    Raises:
        DiledError: data that are named cannot be opened, or are of another shape or measure.
    """
    made = source.provenance if isinstance(source, Model) else {}
    described_only: Any = SimpleNamespace(spec=spec, provenance=made)  # all that is wanted of a model there
    try:
        return data_of(source, data, described_only)
    except DiledError:
        if data is not None:
            raise
        return None


def _quality(values: np.ndarray, spec: DataSpec, data: Data | None) -> dict[str, Any]:
    """The probe: how some samples look beside training data, at a glance.

    `mean` and `std` are of the raw values. `nearest_training` is the mean Euclidean distance, in model space, of a sample to
    the nearest training example, beside that of held-out real examples; the Frechet distance is to training examples.
    """
    if spec.kind == "text":
        return _quality_of_texts(values.tolist(), data)
    if spec.sequential:
        return _quality_of_sequences(values, data)
    raw = values.astype(np.float64)
    found: dict[str, Any] = {"samples": len(values), "mean": float(raw.mean()), "std": float(raw.std())}
    found |= {"nearest_training": None, "frechet_training": None}
    if data is None:
        return found
    grey = spec.model_copy(update={"binarize": "none"})
    order = np.random.default_rng(0).permutation(len(data.train))
    fake, train, held_out = (
        to_space(raw_tensor(v), grey) for v in (values, data.train.values[order], data.validation.values)
    )
    distances = [_nearest(x[:NEAREST], train) for x in (fake, held_out)]
    found["nearest_training"] = _nearness(distances)
    net = features_for(data)
    if net is not None and min(len(fake), len(train)) > 1:
        a, b = fake[:PROBED], train[:PROBED]
        value = frechet(extract(net, a), extract(net, b))
        found["frechet_training"] = {"value": value, "features": net.name, "n": [len(a), len(b)]}
    return found


def _quality_of_sequences(values: np.ndarray, data: Data | None) -> dict[str, Any]:
    """Different sequences, copies from training, and how many residues a sample differs by from the nearest training sequence,
    beside the same of held-out ones."""
    found: dict[str, Any] = {"samples": len(values), "unique": len(np.unique(values, axis=0)) / len(values)}
    if data is None:
        return found | {"copied": None, "nearest_training": None}
    order = np.random.default_rng(0).permutation(len(data.validation))[:NEAREST]
    train = np.unique(data.train.values, axis=0)
    distances = [nearest_rows(rows, train)[0] for rows in (values[:NEAREST], data.validation.values[order])]
    return found | {"copied": float(seen(values, data.train.values).mean()), "nearest_training": _nearness(distances)}


def _nearness(distances: Sequence[np.ndarray]) -> dict[str, Any]:
    """Distances of samples, and of held-out examples, to the nearest training examples."""
    mean = [float(d.mean()) if len(d) else None for d in distances]
    n = [len(d) for d in distances]
    return {"mean": mean[0], "least": float(distances[0].min()), "held_out_mean": mean[1], "n": n}


def _quality_of_texts(texts: list[str], data: Data | None) -> dict[str, Any]:
    """Words, different texts and pairs of words, and copies from training, beside the same of as many held-out texts."""
    found: dict[str, Any] = {"samples": len(texts), "empty": sum(not text.strip() for text in texts) / len(texts)}
    sets, train = {"": texts}, None
    if data is not None:
        order = np.random.default_rng(0).permutation(len(data.validation))[: len(texts)]
        held_out = to_strings(data.validation.values[order], data.spec)
        train, sets = to_strings(data.train.values, data.spec), {"": texts[: len(held_out)], "held_out_": held_out}
    for name, some in sets.items():
        found[f"{name}words"] = sum(len(text.split()) for text in some) / len(some)
        found |= {f"{name}unique": unique(some), f"{name}distinct_2": distinct(some, 2)}
        found[f"{name}copied"] = None if train is None else copied(some, train)
    return found


def _nearest(x: Tensor, others: Tensor) -> np.ndarray:
    """The Euclidean distance of each x to the nearest of the others, (B,)."""
    from sklearn.metrics import pairwise_distances_argmin_min

    distance: np.ndarray = pairwise_distances_argmin_min(x.flatten(1).numpy(), others.flatten(1).numpy())[1]
    return distance
