"""Text: writing against `transformers`, training against a plain loop, and what DiLED costs beside a VAE.

    python benchmarks/texts.py --run DILED --run BETA_VAE    # all parts, into results/texts-speed.json
    python benchmarks/texts.py --what generation --trial     # one part, printed only; --steps, --limit make it shorter

Models are the rows `diled@weight=0.5`, which hides no words, as the VAE hides none, and `vae` of the study `yelp`.
CPU-seconds on one thread, all in turn, every other round in reverse; ratios are taken within a round, and the median over
rounds is reported. The data are those of the study; where no folder of data is named (`DILED_DATA`), random rows with such
lengths, which are recorded as `synthetic`.

generation   `generation_ratio`: tokens per second of the row's decoder, which reads a code, relative to `generate` of a GPT-2
             of the same width, depth, heads, symbols and activation, which reads none. Both are fp32, with random weights,
             and keep keys and values. Both write the same number of tokens: every place of a row, or as many as texts of the
             data have, each with its end. The likeliest symbol each time, or a search with 4 beams.
step         `throughput_ratio`: examples per second of `diled.training.engine.fit`, relative to a plain loop over the same
             modules with the same batches of nearly equal lengths, in the row's precision.
epoch        `epoch_ratio`: a training step of DiLED relative to the VAE's, for each size of the denoiser and number of noise
             levels for each code. A second VAE tells how far to trust it.
convergence  `convergence_ratio`: what DiLED needs until its validation bound is within 1 % of its last one, over what the
             row `beta_vae` needs to come so near to its own; of two finished runs. Steps are as in `diled.studies.ablations`.
             That VAE's rate is warmed up as DiLED's is, and its network is the same: a bound cannot settle while a rate's
             weight still rises, so a shorter warm-up, as the row `vae` has, would settle sooner whatever the prior.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cost import relative
from loops import (
    Figure,
    examples,
    in_engine,
    in_loop,
    of_terms,
    parameters,
    report,
    settled,
    throughput_ratio,
    undisturbed,
)
from torch import Tensor

from diled.config import DataSpec, TrainingConfig
from diled.data import Data, Split, open_data
from diled.draws import seeded
from diled.errors import ConfigError
from diled.model import load
from diled.models.autoencoder import Autoencoder
from diled.models.autoregressive import AutoregressiveDecoder, written_with
from diled.models.recipe import jointly
from diled.models.zoo import build
from diled.nn.causal import CausalTransformer
from diled.runs import RunConfig, read_run
from diled.sequences import END, lengths
from diled.space import raw_tensor
from diled.studies.ablations import looks
from diled.studies.commands import exit_code, record_options, refuse_uncommitted, uncommitted
from diled.studies.table import rows
from diled.training.budget import ENGINE, seconds_per_step

STUDY = "texts-speed"
BATCHES = {1: 16, 16: 4, 128: 2}
"""Sequences that are written at once -> batches in a round."""
CASES = {"": (False, 1), "/ends": (True, 1), "/beams=4": (False, 4)}
"""What the metric adds -> whether sequences end as texts do, and beams."""
DENOISERS = {"192x2": {"width": 192, "blocks": 2}, "512x4": {"width": 512, "blocks": 4}}
TIMES = (1, 2, 4)
"""Noise levels for each code."""
NEVER = -1e9
"""Logit of what is not to be written."""
WITHIN = 0.01
"""Of a run's own last validation bound."""
SYNTHETIC = DataSpec(
    kind="text", shape=(28,), levels=6001, low=0, high=6000, symbols=("", *(f" {k}" for k in range(6000)))
)


@dataclass(frozen=True)
class Size:
    """How much is measured; a trial takes less (`HELP`)."""

    steps: int = 45
    rounds: int = 5
    limit: int | None = None


HELP = {
    "steps": (2, "timed training steps in a round: of 50, which is what texts are sorted in, 5 are not timed"),
    "rounds": (1, "of timing"),
    "limit": (500, "training examples"),
}
"""Field of `Size` -> its least value, and what it is."""


# Data and models -----------------------------------------------------------------------------------------------------

ROW = "diled@weight=0.5"
"""Of DiLED, on equal terms with the rows beside it."""


def config_of(row: str, seed: int = 0) -> RunConfig:
    """A row of the study `yelp`, on the processor."""
    return rows("yelp")[row].config({"training.device": "cpu"}, seed=seed)


def model_of(config: RunConfig, data: Data) -> Autoencoder:
    """The model of a configuration, untrained."""
    model = build(config.name, config.model, data.spec, config.training.seed).model
    assert isinstance(model, Autoencoder)
    return model


def data_of(config: RunConfig, limit: int | None = None) -> Data:
    """The data of a configuration; random ones where no folder of data is named."""
    if os.environ.get("DILED_DATA"):
        return open_data(config.data, config.preprocess.model_copy(update={"limit": limit}))
    return synthetic(limit or 20_000)


def synthetic(n: int, seed: int = 0) -> Data:
    """Random rows with lengths like those of Yelp's sentences: 2 to 28 tokens, 10 on average.

    A large piece of memory is freed, as opening a data set does: see `pictures` in `cost.py`.
    """
    torch.empty(30 * 2**20, dtype=torch.uint8)
    rng = np.random.default_rng(seed)
    (length,) = SYNTHETIC.shape

    def split(count: int) -> Split:
        size = rng.normal(9.8, 4.1, count).round().clip(2, length)
        values = rng.integers(1, len(SYNTHETIC.symbols), (count, length)) * (np.arange(length) < size[:, None])
        return Split(values.astype(np.uint16), {}, [str(i) for i in range(count)])

    few = max(100, n // 10)
    return Data("synthetic", SYNTHETIC, split(n), split(few), split(few), ["Random tokens."])


# Generation ----------------------------------------------------------------------------------------------------------


def decoder_of(data: Data, seed: int = 0) -> AutoregressiveDecoder:
    """The decoder of the row `diled`, which never ends a sequence by itself."""
    decoder = model_of(config_of(ROW, seed), data).decoder.eval()
    decoder.network.bias.data[END] = NEVER
    return decoder


def gpt2(network: CausalTransformer, seed: int = 0) -> Any:
    """GPT-2 in the size of a network; what it begins with is the symbol that ends."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=network.symbols,
        n_positions=network.length,
        n_embd=network.width,
        n_layer=len(network.blocks),
        n_head=network.heads,
        activation_function="gelu",
        bos_token_id=END,
        eos_token_id=None,
    )
    with seeded(seed):
        return GPT2LMHeadModel(config).eval()


def ours(decoder: AutoregressiveDecoder, code: Tensor, ends: Tensor | None, beams: int = 1) -> Tensor:
    """Rows (n, L) of codes (n, D); with `ends` (n,), the symbol there is the end."""
    if ends is None:
        with written_with(decoder, beams=beams):
            return decoder(code).mode

    def choose(logits: Tensor, i: int, which: Tensor) -> Tensor:
        return torch.where(ends[which] == i, END, logits.argmax(1))

    with torch.no_grad():
        return decoder.network.draw(len(code), choose, code)


def theirs(model: Any, n: int, ends: Tensor | None, beams: int = 1) -> Tensor:
    """n rows (n, L) by `generate`; with `ends` (n,), the symbol there is the end, and nowhere before."""
    from transformers import GenerationConfig, LogitsProcessorList

    def ended(written: Tensor, scores: Tensor) -> Tensor:
        scores[:, END] = torch.where(ends == written.shape[1] - 1, -NEVER, NEVER)
        return scores

    length, start = model.config.n_positions, torch.full((n, 1), END)
    config = GenerationConfig(
        max_new_tokens=length,
        do_sample=False,
        num_beams=beams,
        use_cache=True,
        bos_token_id=END,
        pad_token_id=END,
        eos_token_id=None if ends is None else END,
    )
    written = model.generate(
        start,
        attention_mask=torch.ones_like(start),
        generation_config=config,
        logits_processor=LogitsProcessorList([] if ends is None else [ended]),
    )[:, 1:]
    return F.pad(written, (0, length - written.shape[1]), value=END)


def clocked(run: Callable[[], Any]) -> Callable[[], float]:
    """CPU-seconds of a call."""

    def seconds() -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    return seconds


def generation(data: Data, size: Size, seed: int = 0) -> list[Figure]:
    """Tokens per second of the decoder relative to GPT-2's, for each number of sequences at once."""
    decoder, found = decoder_of(data, seed), []
    network = decoder.network
    assert isinstance(network, CausalTransformer)
    assert network.memory is not None
    model, length = gpt2(network, seed), network.length
    generator = torch.Generator().manual_seed(seed)
    texts = lengths(raw_tensor(data.train.values))
    for batch, repeats in BATCHES.items():
        codes = torch.randn(repeats, batch, network.memory.in_features, generator=generator)
        ends = texts[torch.randint(len(texts), (repeats, batch), generator=generator)]
        for case, (ended, beams) in CASES.items():
            of_each: Sequence[Tensor | None] = [*ends] if ended else [None] * repeats
            pairs = list(zip(codes, of_each, strict=True))
            runs = {
                "ours": clocked(lambda: [ours(decoder, code, end, beams) for code, end in pairs]),  # noqa: B023
                "theirs": clocked(lambda: [theirs(model, len(code), end, beams) for code, end in pairs]),  # noqa: B023
            }
            taken = settled(runs, size.rounds)
            value, stderr, n = relative(taken["theirs"], taken["ours"])
            tokens = int((ends + 1).clamp(max=length).sum()) if ended else length * ends.numel()
            note = (
                f"tokens per second relative to GPT-2's, {parameters(model):,} parameters; {tokens:,} tokens in {repeats} "
                f"batches, {tokens / sorted(taken['ours'])[n // 2]:,.0f} tokens per CPU-second of ours"
            )
            metric = f"generation_ratio/batch={batch}{case}"
            found.append(Figure("diled", metric, value, stderr, n, None, note, parameters(decoder)))
    return found


# Training ------------------------------------------------------------------------------------------------------------


def step(data: Data, size: Size, seed: int = 0) -> list[Figure]:
    """Examples per second in the engine, relative to the plain loop."""
    config = config_of(ROW, seed)
    model, training = model_of(config, data), undisturbed(config.training, size.steps)
    runs = {
        "engine": partial(in_engine, model, data, training),
        "loop": partial(in_loop, copy.deepcopy(model), of_terms, data, training),
    }
    return [throughput_ratio("diled", model, training, settled(runs, size.rounds))]


def epoch(data: Data, size: Size, seed: int = 0) -> list[Figure]:
    """A training step of DiLED relative to the VAE's, without what the engine adds for both alike."""
    vae, diled = config_of("vae", seed), config_of(ROW, seed)
    models = {"vae": model_of(vae, data)}
    for name, values in DENOISERS.items():
        for times in TIMES:
            prior = diled.model.prior.model_copy(update={**values, "times_per_code": times})  # type: ignore[attr-defined]
            config = diled.model_copy(update={"model": diled.model.model_copy(update={"prior": prior})})
            models[f"denoiser={name}/times={times}"] = model_of(config, data)
    runs = {name: steps_of(model, data, vae.training, size.steps) for name, model in models.items()}
    taken = settled({"base": steps_of(model_of(vae, data), data, vae.training, size.steps)} | runs, size.rounds)
    found = []
    for name, model in models.items():
        system, metric = ("vae", "epoch_ratio") if name == "vae" else ("diled", f"epoch_ratio/{name}")
        note = "CPU time of a training step relative to the VAE's" + ("; a second VAE" if name == "vae" else "")
        figures = relative(taken[name], taken["base"])
        found.append(Figure(system, metric, *figures, size.steps, note, parameters(model)))
    return found


def steps_of(model: Autoencoder, data: Data, training: TrainingConfig, steps: int) -> Callable[[], float]:
    """CPU-seconds of a training step by itself."""
    (stage,), source = jointly(model).stages, examples(model, data, training)
    return lambda: seconds_per_step(stage, source, data.spec, training, steps=steps, clock=time.process_time) - ENGINE


# Convergence ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """When a run's validation bound was first within 1 % of its last one."""

    steps: int
    cpu_seconds: float
    bound: float
    parameters: int
    every: int
    """Steps from one look to the next."""


def within_the_end(seen: Sequence[tuple[int, float]]) -> int:
    """The first step from which on all looks are `WITHIN` of the last one: a bound may pass through it on its way."""
    last = seen[-1][1]
    outside = [i for i, (_, bound) in enumerate(seen) if abs(bound - last) > WITHIN * abs(last)]
    return seen[outside[-1] + 1 if outside else 0][0]


def way(folder: Path) -> Way:
    """Of a finished run; CPU-seconds are taken in proportion to steps.

    Raises:
        ConfigError: there are no looks at validation data, or the run started from another one.
    """
    if read_run(folder).init_from is not None:
        raise ConfigError(
            f"{folder} started from another run, whose cost is not counted here: give a run from the start."
        )
    seen, model = looks(folder), load(folder)
    if not seen:
        raise ConfigError(f"{folder} has no looks at the validation bound in its log.jsonl.")
    last, made = seen[-1][1], model.provenance
    steps = within_the_end(seen)
    every = seen[1][0] - seen[0][0] if len(seen) > 1 else seen[0][0]
    return Way(steps, steps * made["cpu_seconds"] / made["steps"], last, model.parameters, every)


COMPARED = ("diled", "beta_vae")
"""Whose convergence is compared."""


def pair(runs: Sequence[Path], trial: bool) -> dict[str, Path]:
    """`diled` and `beta_vae` -> their runs.

    Raises:
        ConfigError: they are not one of each, or not comparable (data, training, warm-up of the rate, network), or
            made by uncommitted code and to be recorded.
    """
    configs = {folder: read_run(folder) for folder in runs}
    named = {config.name: folder for folder, config in configs.items()}
    if len(runs) != 2 or set(named) != set(COMPARED):
        raise ConfigError(
            "Convergence compares two finished runs: give --run DILED --run BETA_VAE, or other parts with --what."
        )
    mine, base = (configs[named[name]] for name in COMPARED)
    pairs = {key: (getattr(mine, key), getattr(base, key)) for key in ("data", "preprocess", "training")}
    pairs |= {
        f"model.{key}": (getattr(mine.model, key), getattr(base.model, key)) for key in ("rate_warmup", "network")
    }
    pairs["model.cycles"] = (1, base.model.cycles)  # type: ignore[attr-defined]
    for key, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise ConfigError(
                f"{named['diled']} and {named['beta_vae']} differ in {key}: give two runs on equal terms."
            )
    for folder in () if trial else runs:
        if uncommitted(load(folder).provenance.get("commit")):
            raise ConfigError(f"{folder} was trained by uncommitted code: train it again, or use --trial.")
    return named


def convergence(named: dict[str, Path]) -> list[Figure]:
    """Steps and CPU-seconds of DiLED to its own bound, relative to those of a VAE with the same warm-up to its own."""
    ways = {name: way(folder) for name, folder in named.items()}
    mine, base, found = ways["diled"], ways["beta_vae"], []
    trained = "; ".join(f"{name} trained at {load(folder).provenance.get('commit')}" for name, folder in named.items())
    shared = f"looks every {mine.every} steps; {trained}"
    for key in ("steps", "cpu_seconds"):
        ratio = getattr(mine, key) / getattr(base, key)
        note = f"until within {WITHIN:.0%} of the own last validation bound, relative to the VAE of the same warm-up; {shared}"
        found.append(Figure("diled", f"convergence_ratio/{key}", ratio, None, 1, mine.steps, note, mine.parameters))
    for name, one in ways.items():
        numbers = {
            f"steps_to/own+{WITHIN:.0%}": float(one.steps),
            f"cpu_seconds_to/own+{WITHIN:.0%}": one.cpu_seconds,
            "validation_bound_nats": one.bound,
        }
        for metric, value in numbers.items():
            found.append(Figure(name, metric, value, None, 1, one.steps, shared, one.parameters, one.cpu_seconds))
    return found


# The command ---------------------------------------------------------------------------------------------------------

TIMED = {"generation": generation, "step": step, "epoch": epoch}
PARTS = (*TIMED, "convergence")


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--what", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--run",
        type=Path,
        action="append",
        default=[],
        help=f"for convergence: one of the row {ROW}, one of the row beta_vae",
    )
    record_options(parser)
    trial = parser.add_argument_group("for a trial")
    for key, (_, words) in HELP.items():
        trial.add_argument(f"--{key}", type=int, default=getattr(Size, key), help=words)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    return exit_code(lambda: _run(chosen), "texts")


def _run(chosen: argparse.Namespace) -> None:
    size = Size(**{key: getattr(chosen, key) for key in asdict(Size())})
    for key, (least, _) in HELP.items():
        value = getattr(size, key)
        if value is not None and value < least:
            raise ConfigError(f"--{key} is {value}: give at least {least}.")
    if not chosen.trial:
        if size != Size():
            raise ConfigError("Results are recorded at full size only: add --trial, or leave the sizes as they are.")
        refuse_uncommitted()
    named = pair(chosen.run, chosen.trial) if "convergence" in chosen.what else {}
    timed = [part for part in chosen.what if part in TIMED]
    data = data_of(config_of(ROW, chosen.seed), size.limit) if timed else None
    command, results = "python benchmarks/texts.py", None if chosen.trial else chosen.results
    for part in timed:
        assert data is not None
        words = f"{command} --seed {chosen.seed} --what {part}"
        report(STUDY, data.name, TIMED[part](data, size, chosen.seed), seed=chosen.seed, command=words, results=results)
    if named:
        config = read_run(named["diled"])
        given = " ".join(f"--run {Path('runs', *named[name].resolve().parts[-2:])}" for name in COMPARED)
        words = f"{command} --what convergence {given}"
        report(STUDY, config.data, convergence(named), seed=config.training.seed, command=words, results=results)


if __name__ == "__main__":
    sys.exit(main())
