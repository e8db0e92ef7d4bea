"""Figures of models of text, the same for every model.

bound_nats, rate_nats, distortion_nats    as for every model; shuffled_distortion_nats with the code of another text
bound_nats/unseen                         of the texts that do not occur in training
nats_per_token, perplexity                sum of bounds / sum of tokens, ends included, and its exponential
word_perplexity                           the same per word, which tokenizers of other sizes do not change
bleu, exact_match                         of texts decoded from mean codes, against themselves
bleu_shuffled                             against the text whose code it was, with codes of others: does the decoder listen?
probe_accuracy                            of a label, by logistic regression on codes
active_units                              code dimensions that vary over texts
samples and interpolations                see `text_figures.py`; of fewer texts than make a judge, without what it judges

Texts are decoded as `Model.writing` has it, greedily if nothing else is said, samples from codes of the prior; a model without
codes draws its samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from diled.api import Density, NoBound, device_of
from diled.data.splits import Data, Split, seen
from diled.data.strings import to_strings
from diled.draws import seeded
from diled.evaluation.codes import active_count, averaged
from diled.evaluation.measure import Measured, bounds_of_examples, finite, over_examples, probe
from diled.evaluation.ngrams import word_counts
from diled.evaluation.text_figures import comparable, interpolation_figures, sample_figures
from diled.evaluation.text_judge import judge_of, too_few
from diled.evaluation.text_metrics import bleu, bleu_order, exact_matches
from diled.latent.interpolate import between
from diled.models.autoregressive import described_writing
from diled.models.sampling import BATCH, described, sample_batches, takes_mean
from diled.sequences import lengths, scored
from diled.space import raw_tensor, to_space

__all__ = [
    "PATHS",
    "STEPS",
    "decoded_paths",
    "per_token",
    "text_bounds",
    "text_evaluation",
    "text_reconstruction",
    "unseen",
]

PATHS, STEPS = 300, 6
"""Pairs of test texts between which is interpolated, and the steps of each path."""


def text_evaluation(
    model: Density,
    data: Data,
    *,
    samples: int = 5000,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    limit: int = 10_000,
    repeats: int = 8,
) -> dict[str, Measured]:
    """Every figure that the model and the data admit, on the test split.

    Args:
        model: any density of texts.
        data: with its training and test split.
        samples: how many are drawn, at most as many as are compared.
        steps, sampler: of a diffusion inside.
        seed: of noise and pairs.
        limit: test examples at most.
        repeats: Monte-Carlo passes over the test split for the bound.
    """
    test = data.test.subset(np.random.default_rng(seed).permutation(len(data.test))[:limit])  # files may be sorted
    found = text_bounds(model, test, data, repeats=repeats, seed=seed)
    missing = too_few(len(data.train), len(data.validation))
    judge = None if missing else judge_of(data)
    texts = {name: to_strings(split.values, data.spec) for name, split in (("train", data.train), ("test", data.test))}
    if model.has_codes:
        found |= text_reconstruction(model, test, data, seed=seed)
        found |= probe(model, data.train, test, data.spec)
        paths = decoded_paths(model, test, data, seed=seed)
        if paths:
            found |= interpolation_figures(paths, judge, texts["test"], seed=seed)
    count = comparable(samples, len(test))
    drawn = torch.cat(list(sample_batches(model, count, steps=steps, sampler=sampler, seed=seed))).numpy()
    how = [f"decoded {described_writing(model)}"] if takes_mean(model) else ["drawn"]
    how += [said for said in [described(model, steps=steps, sampler=sampler)] if said]
    of_samples = sample_figures(to_strings(drawn, data.spec), texts["train"], texts["test"], judge, seed=seed)
    if missing:
        found["sample_perplexity"] = Measured(None, note=missing)
    for name, m in of_samples.items():
        note = m.note if name.endswith("/floor") else "; ".join([*how, *([m.note] if m.note else [])])
        found[name] = Measured(m.value, m.stderr, m.n, note)
    return found


def text_bounds(model: Density, test: Split, data: Data, *, repeats: int = 8, seed: int = 0) -> dict[str, Measured]:
    """The bound, per token and per word too, and of the texts that do not occur in training."""
    try:
        each = bounds_of_examples(model, test, data.spec, repeats=repeats, seed=seed)
    except NoBound as refusal:
        return {"bound_nats": Measured(None, note=str(refusal))}
    found = over_examples(each)
    found |= per_token(found, test, data)
    fresh = unseen(test, data)
    if 0 < fresh.sum() < len(test):
        found["bound_nats/unseen"] = over_examples({"": each["bound_nats"][torch.from_numpy(fresh)]})[""]
    return found


def per_token(found: dict[str, Measured], test: Split, data: Data) -> dict[str, Measured]:
    """The bound per token and per word, as perplexities."""
    nats = found["bound_nats"].value
    assert nats is not None
    tokens = float(scored(torch.from_numpy(test.values.astype(np.int64))).sum(1).double().mean())
    words = float(word_counts(to_strings(test.values, data.spec)).mean()) + 1  # and an end
    n = len(test)
    with np.errstate(over="ignore"):  # infinite, as under a judge
        of_tokens, of_words = float(np.exp(nats / tokens)), float(np.exp(nats / words))
    return {
        "nats_per_token": Measured(nats / tokens, n=n, note="ends included"),
        "perplexity": finite(of_tokens, n, "of the bound, per token, ends included"),
        "word_perplexity": finite(of_words, n, "of the bound, per word, ends included"),
    }


def unseen(test: Split, data: Data) -> np.ndarray:
    """Which test texts do not occur in training, (n,) bool."""
    return ~seen(test.values, data.train.values)


@torch.no_grad()
def text_reconstruction(model: Any, test: Split, data: Data, *, seed: int = 0) -> dict[str, Measured]:
    """What decoding of mean codes gives back, also with the code of the next text instead of its own."""
    codes, own, others, before = [], [], [], None
    with seeded(seed, 2):
        for raw in raw_tensor(test.values).split(BATCH):
            z = model.encode(to_space(raw.to(device_of(model)), data.spec))
            codes.append(z.flatten(1).cpu())
            own.append(model.decode(z).cpu())
            # A last batch of one text has no other's code: that of the text before it.
            others.append(model.decode(z.roll(1, 0) if len(z) > 1 or before is None else before).cpu())
            before = z[-1:]
    shown, wrong = (to_strings(torch.cat(rows).numpy(), data.spec) for rows in (own, others))
    real = to_strings(test.values, data.spec)
    note = f"corpus BLEU-{bleu_order(real)} of words, decoded {described_writing(model)} from mean codes"
    found = {
        "bleu": Measured(bleu(shown, real), n=len(real), note=note),
        "exact_match": averaged(exact_matches(shown, real)),
        "length_ratio": Measured(float(lengths(torch.cat(own)).sum()) / float((test.values != 0).sum()), n=len(real)),
    }
    if len(real) > 1:  # one text has no other's code, and codes vary over several
        found["bleu_shuffled"] = Measured(bleu(wrong, real), n=len(real), note="with the code of another text")
        found["active_units"] = active_count(torch.cat(codes))
    return found


@torch.no_grad()
def decoded_paths(
    model: Any, test: Split, data: Data, *, paths: int = PATHS, steps: int = STEPS, seed: int = 0
) -> list[list[str]]:
    """Texts on the way from one test text to another: (paths, steps + 1), the ends decoded as well."""
    n = min(paths, len(test) // 2)
    if n == 0:
        return []
    with seeded(seed, 4):
        x = to_space(raw_tensor(test.values[: 2 * n]).to(device_of(model)), data.spec)
        z = model.encode(x).flatten(1).cpu().numpy()
        way = torch.from_numpy(between(z[0::2], z[1::2], steps + 1, model.path)).to(device_of(model))
        rows = [model.decode(part).cpu() for part in way.flatten(0, 1).split(BATCH)]
    texts = to_strings(torch.cat(rows).numpy(), data.spec)
    return [texts[i : i + steps + 1] for i in range(0, len(texts), steps + 1)]
