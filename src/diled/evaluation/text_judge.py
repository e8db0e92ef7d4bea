"""What judges texts: a language model and a classifier, trained apart from every model that they judge.

    perplexity    exp(sum of -log p(text) / sum of (words + 1))        the end of each text counts as a word
    features      mean over positions of the last hidden states, (N, width)
    classifier    logistic regression on TF-IDF of words and pairs of words

The language model is an autoregressive transformer of tokens, with a byte-level BPE of its own, trained on the training split
and stopped by the validation split. It scores any text, and since nats are divided by words, not by tokens, its perplexity
compares models whatever their tokenizers. A figure holds for one judge: its name, which ends in a hash of its weights, and its
perplexity of test texts go beside it. Judges are kept on disk (`data/cache.py`), one for each set of training texts.

A text longer than the judge's L tokens is scored in windows that overlap by half: each token is predicted from at least the
L / 2 tokens before it, so the probabilities of all next tokens still add up to one.

References: Vaswani et al. 2017 (arXiv 1706.03762); Sennrich et al. 2016 (arXiv 1508.07909); Pillutla et al. 2021 on features.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from diled.config import DataSpec
from diled.data import Data, Split, to_strings
from diled.data.cache import cached
from diled.data.text import filled, text_spec, tokenized, train_tokenizer
from diled.draws import seeded
from diled.errors import ConfigError, DataError, did_you_mean
from diled.evaluation.ngrams import perplexity
from diled.nn.causal import CausalTransformer
from diled.sequences import END, scored, trimmed

__all__ = ["Classifier", "Judge", "Recipe", "classifier_of", "fit_judge", "judge_of", "too_few"]

LONGEST = 128
"""Tokens that a judge looks at, at most."""
FEWEST = 20
"""Texts to train on, at least."""
LEAST, SHORTEST = 10, 8
"""Steps and L, at least."""
TESTED = 5000
"""Test texts that a judge's quality is stated for, at most."""
ROWS = 256
"""Texts that are scored at once."""
POOL = 32
"""Batches whose texts are sorted by length, so that little of a batch is filling."""


@dataclass(frozen=True)
class Recipe:
    """How a judge is made; as it stands, in four minutes on one core at most.

    Args:
        vocabulary: tokens at most.
        width, depth, heads: of the transformer.
        batch: texts of a step.
        rate: the learning rate at its peak.
        tokens: so many are read, ...
        passes: ... but each text at most so often.
        checks: how often validation texts are scored.
        patience: how often in vain before training stops.
        watched: validation texts, at most; drawn by the seed.
    """

    vocabulary: int = 4000
    width: int = 128
    depth: int = 2
    heads: int = 4
    batch: int = 32
    rate: float = 4e-3
    tokens: int = 2_400_000
    passes: int = 6
    checks: int = 10
    patience: int = 2
    watched: int = 1000


RECIPE = Recipe()
"""The judge of `judge_of`."""


class Judge:
    """A language model that scores texts; `fit_judge` makes one.

    Args:
        spec: its tokenizer and L.
        network: over the tokens of `spec`.
        recipe: how it was made.
        about: what is known of it: `perplexity` of `n` test texts, training texts, steps.
    """

    def __init__(
        self, spec: DataSpec, network: CausalTransformer, recipe: Recipe = RECIPE, about: dict[str, float] | None = None
    ) -> None:
        self.spec, self.network, self.recipe, self.about = spec, network, recipe, about or {}
        network.eval().requires_grad_(False)

    @property
    def hash(self) -> str:
        """Of the tokenizer and the weights: twelve hexadecimal digits."""
        digest = hashlib.sha256((self.spec.tokenizer or "").encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    @property
    def name(self) -> str:
        """What goes beside every figure: the hash, and how well the judge knows real text."""
        stated = self.about.get("perplexity")
        known = "" if stated is None else f" (perplexity {stated:.1f} of {self.about['n']:,.0f} test texts)"
        return f"judge-{self.hash}{known}"

    def nll(self, texts: Sequence[str]) -> np.ndarray:
        """-log p(text), the end included, (N,) in nats.

        Raises:
            DataError: something in the list is no text.
        """
        return self._summed(texts, lambda x: self.network.nll(x)[..., None])[0][:, 0]

    def perplexity(self, texts: Sequence[str]) -> float:
        """`ngrams.perplexity` of texts (N,) under this model, for each word."""
        return perplexity(self.nll(texts), texts)

    def features(self, texts: Sequence[str]) -> np.ndarray:
        """Mean over positions, the end's included, of the last hidden states, (N, width)."""
        total, positions = self._summed(texts, self.network.states)
        return total / positions[:, None]

    @torch.no_grad()
    def _summed(self, texts: Sequence[str], of: Callable[[Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Sums over the positions of each text of what `of` says of rows, (B, L) -> (B, L, K); and how many there are."""
        if len(texts) == 0:
            return np.zeros((0, 1)), np.zeros(0)
        flat, sizes = tokenized(texts, self.spec)
        rows, first, text = _windows(flat, sizes, self.spec)
        used = scored(rows).sum(1)
        parts, order = [], used.argsort(stable=True)
        for some in order.split(ROWS):
            x = trimmed(rows[some])
            counts = scored(x) & (torch.arange(x.shape[1]) >= first[some, None])
            parts.append(torch.cat([(of(x).double() * counts[..., None]).sum(1), counts.sum(1, keepdim=True)], 1))
        every = torch.cat(parts)
        found = torch.zeros(len(texts), every.shape[1], dtype=torch.float64).index_add(0, text[order], every).numpy()
        return found[:, :-1], found[:, -1]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, as arrays that `from_arrays` takes."""
        about = {"tokenizer": self.spec.tokenizer, "length": self.spec.numel, "recipe": asdict(self.recipe)}
        weights = {f"weight/{k}": v.cpu().numpy() for k, v in self.network.state_dict().items()}
        return weights | {"about": np.frombuffer(json.dumps(about | {"about": self.about}).encode(), np.uint8)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Judge:
        """The judge that `arrays` was called on."""
        kept = json.loads(arrays["about"].tobytes())
        spec, recipe = text_spec(kept["length"], kept["tokenizer"]), Recipe(**kept["recipe"])
        network = _network(spec, recipe, 0)
        found = {k.split("/", 1)[1]: torch.from_numpy(v.copy()) for k, v in arrays.items() if k.startswith("weight/")}
        network.load_state_dict(found)
        return cls(spec, network, recipe, kept["about"])


def _network(spec: DataSpec, recipe: Recipe, seed: int) -> CausalTransformer:
    with seeded(seed, 47):
        return CausalTransformer(
            spec.numel, len(spec.symbols), width=recipe.width, depth=recipe.depth, heads=recipe.heads
        )


def _windows(flat: np.ndarray, sizes: np.ndarray, spec: DataSpec) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (W, L) of texts whose tokens stand one after the other, from which position each counts (W,), and its text (W,).

    A text of fewer than L tokens is one row, its end included. The others go on in further rows, each half a row further.
    """
    length, step = spec.numel, spec.numel // 2
    rows, first, text = [filled(flat, sizes, spec).astype(np.int64)], [0] * len(sizes), list(range(len(sizes)))
    ends = np.cumsum(sizes)
    for i in np.flatnonzero(sizes >= length):
        whole = np.append(flat[ends[i] - sizes[i] : ends[i]], END)
        for start in range(step, len(whole) - (length - step), step):
            part = whole[start : start + length]
            rows.append(np.pad(part, (0, length - len(part)))[None].astype(np.int64))
            first.append(length - step)
            text.append(int(i))
    return torch.from_numpy(np.concatenate(rows)), torch.tensor(first, dtype=torch.long), torch.tensor(text)


def fit_judge(
    train: Sequence[str],
    validation: Sequence[str],
    test: Sequence[str] = (),
    *,
    recipe: Recipe = RECIPE,
    seed: int = 0,
) -> Judge:
    """A judge of texts like `train`: AdamW on nats per token, a rise and fall of the learning rate, the best state kept.

    Args:
        train: texts to train on, and to train the tokenizer on.
        validation: texts that say when to stop.
        test: texts whose perplexity is stated as the judge's quality.
        recipe: sizes and dials.
        seed: of weights and order.

    Raises:
        DataError: fewer than 20 texts to train on, or no validation texts.
    """
    missing = too_few(len(train), len(validation))
    if missing:
        raise DataError(missing)
    tokenizer = train_tokenizer(train, recipe.vocabulary)
    flat, sizes = tokenized(train, text_spec(1, tokenizer))
    spec = text_spec(min(max(int(sizes.max()) + 1, SHORTEST), LONGEST), tokenizer)
    judge = Judge(spec, _network(spec, recipe, seed), recipe, {"train": len(train)})
    watched = _some(validation, recipe.watched, seed)
    rows, first, _ = _windows(flat, sizes, spec)
    steps = _train(judge.network, rows, first, lambda: float(judge.nll(watched).sum()), recipe, seed)
    judge.about |= {"steps": steps}
    if len(test):
        scored_on = _some(test, TESTED, seed)
        judge.about |= {"perplexity": judge.perplexity(scored_on), "n": len(scored_on)}
    return judge


def too_few(train: int, validation: int) -> str:
    """Why so many training and validation texts make no judge; empty where they do."""
    if train >= FEWEST and validation:
        return ""
    return f"A judge needs at least {FEWEST} texts to train on and one to validate on, found {train} and {validation}."


def _train(
    network: CausalTransformer, rows: Tensor, first: Tensor, watched: Callable[[], float], recipe: Recipe, seed: int
) -> int:
    """Train on rows (W, L), of which positions from `first` (W,) on count; keep the state with the fewest watched nats.

    Returns:
        How many steps were made.
    """
    counts = scored(rows) & (torch.arange(rows.shape[1]) >= first[:, None])
    positions = counts.sum(1)
    passes = min(recipe.passes, recipe.tokens / int(positions.sum()))
    steps = max(LEAST, math.ceil(passes * len(rows) / recipe.batch))
    optimiser = torch.optim.AdamW(network.requires_grad_(True).parameters(), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=steps, pct_start=0.2, cycle_momentum=False
    )
    batches, best, kept, vain = _batches(scored(rows).sum(1), recipe.batch, seed), math.inf, network.state_dict(), 0
    for step in range(1, steps + 1):
        some = next(batches)
        loss = (network.train().nll(rows[some]) * counts[some]).sum() / positions[some].sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        rate.step()
        if step % max(1, steps // recipe.checks) and step < steps:
            continue
        network.eval()
        nats = watched()
        vain = 0 if nats < best else vain + 1
        if nats < best:
            best, kept = nats, {k: v.clone() for k, v in network.state_dict().items()}
        if vain == recipe.patience:
            break
    network.load_state_dict(kept)
    network.eval().requires_grad_(False)
    return step


def _some(texts: Sequence[str], most: int, seed: int) -> list[str]:
    """So many of the texts at most, in an order that the seed decides."""
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))[:most].tolist()]


def _batches(positions: Tensor, batch: int, seed: int) -> Iterator[Tensor]:
    """Which rows come next, without end: of about one length each, in an order that the seed decides."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for pool in torch.randperm(len(positions), generator=generator).split(POOL * batch):
            parts = pool[positions[pool].argsort(stable=True)].split(batch)
            for i in torch.randperm(len(parts), generator=generator).tolist():
                yield parts[i]


_JUDGES: WeakKeyDictionary[Data, Judge] = WeakKeyDictionary()
_CLASSIFIERS: WeakKeyDictionary[Data, dict[str, Classifier]] = WeakKeyDictionary()


def judge_of(data: Data) -> Judge:
    """The judge of a data set, trained on its training split: from memory, from disk, or made and kept.

    Raises:
        DataError: the data are no texts, or there are too few.
    """
    if data not in _JUDGES:
        texts = [_texts(split, data.spec) for split in (data.train, data.validation, data.test)]
        said = json.dumps([asdict(RECIPE), LONGEST, texts])
        key = f"judge-{hashlib.sha256(said.encode()).hexdigest()}"
        _JUDGES[data] = Judge.from_arrays(cached(key, lambda: fit_judge(*texts).arrays()))
    return _JUDGES[data]


class Classifier:
    """Which class a text is of: logistic regression on TF-IDF of words and pairs of words, in scikit-learn.

    Args:
        texts: (N,), to train on.
        labels: (N,) whole numbers; -1 where the class is not known.
        held_out: texts and labels that the accuracy is measured on.

    Raises:
        DataError: texts and labels do not match, or there is only one class.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        *,
        held_out: tuple[Sequence[str], Sequence[int] | np.ndarray] | None = None,
    ) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        texts, y = _known(texts, labels)
        if len(set(y.tolist())) < 2:
            raise DataError("A classifier needs texts of at least two classes.")
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", lowercase=False, sublinear_tf=True)
        self.model = make_pipeline(words, LogisticRegression(C=10.0, max_iter=300)).fit(texts, y)
        self.n, self.held_out = len(texts), None if held_out is None else self.accuracy(*held_out)

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Classes (N,) of texts."""
        return self.model.predict(list(texts)) if len(texts) else np.zeros(0, np.int64)

    def accuracy(self, texts: Sequence[str], labels: Sequence[int] | np.ndarray) -> float:
        """Share of texts (N,) whose class is their label (N,); those with -1 are left out.

        Raises:
            DataError: texts and labels do not match, or none has a label.
        """
        texts, y = _known(texts, labels)
        return float((self.predict(texts) == y).mean())


def classifier_of(data: Data, column: str) -> Classifier:
    """A classifier of a label column, trained on the training split, with its accuracy on the test split; kept in memory.

    Raises:
        ConfigError: no such column, or one of real numbers.
        DataError: the data are no texts, or all are of one class.
    """
    classes = [name for name, values in data.spec.labels.items() if values]
    if column not in classes:
        raise ConfigError(f"No label column '{column}' with classes.{did_you_mean(column, classes)}")
    kept = _CLASSIFIERS.setdefault(data, {})
    if column not in kept:
        train, test = ((_texts(split, data.spec), split.labels[column]) for split in (data.train, data.test))
        kept[column] = Classifier(*train, held_out=test)
    return kept[column]


def _known(texts: Sequence[str], labels: Sequence[int] | np.ndarray) -> tuple[list[str], np.ndarray]:
    """Texts that have a class, and their classes."""
    y = np.asarray(labels)
    if y.shape != (len(texts),):
        raise DataError(f"{len(texts)} texts and labels of shape {y.shape} do not match: one label for each text.")
    rows = np.flatnonzero(y >= 0)
    if not len(rows):
        raise DataError("None of the texts has a label.")
    return [texts[i] for i in rows.tolist()], y[rows]


def _texts(split: Split, spec: DataSpec) -> list[str]:
    if spec.kind != "text":
        raise DataError(f"Texts are judged here, and these data are {spec.kind}s.")
    return to_strings(split.values, spec)
