"""What the encoder costs: its q(z | x) against the best q of the same family for each example.

    amortization gap(x) = B(x; q(z | x)) - min_q B(x; q) >= 0                      (Cremer et al. 2018, Table 1)
    B(x; q) = E_{z ~ q} [ -log p(x | z) ] + KL(q || p(z)) >= -log p(x),      q = N(m, diag v)

Decoder and prior stay as they are, and m and log v of every example are found by Adam. All examples of a batch are optimised
at once, in one tensor: the loss is the sum of theirs, and Adam keeps moments of each element, so examples do not interact.

A bound that was minimised over noise may only be reported with other noise. There are three independent sets of draws: one
to optimise, one to choose among the candidates, one to report; the last is shared by the encoder's q and the chosen one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diled.api import Density, NoBound, Terms, evaluating, total
from diled.distributions import Normal
from diled.draws import seed_from, seeded
from diled.errors import ConfigError, DataError, did_you_mean
from diled.evaluation.likelihood import nll_slope
from diled.models.autoencoder import FixedNoiseEncoder
from diled.models.priors import StandardNormal

__all__ = ["ROWS", "STARTS", "Amortization", "ExampleNoise", "optimal_bounds"]

STARTS = ("encoder", "zero")
"""Where an optimisation may start: at the encoder's q, or at mean 0 and variance 1 (Cremer et al. 2018)."""
FAR = 10.0
"""How much faster the start at zero moves: codes lie several units away, and Adam's steps are no longer than its rate."""
UNCHANGED = "unchanged"
"""The candidate that is always there: the encoder's q as it is."""
ROWS = 1024
"""Decoder inputs that are evaluated together, where the batch has fewer examples."""
NUMBERS = 4096
"""Random numbers of an example that are drawn ahead."""
OPTIMISE, CHOOSE, REPORT = 1, 2, 3  # the three sets of draws


@dataclass(frozen=True)
class Amortization:
    """Per example, in nats: the bound with the encoder's q and with the best q that was found.

    Args:
        before, after: terms (B,) of the two bounds, `distortion` and `rate/...`, from the same draws.
        posterior: the best q.
        winner: (B,) which candidate it is, an index into `candidates`.
        candidates: `unchanged` (the encoder's q) and the starts.
        late_gain: (B,) what the last quarter of the steps still gained, of the better start.
        threshold: nats; an example that gained more than that was still improving.
    """

    before: Terms
    after: Terms
    posterior: Normal
    winner: Tensor
    candidates: tuple[str, ...]
    late_gain: Tensor
    threshold: float

    @property
    def bound(self) -> Tensor:
        """B(x; q(z | x)), the encoder's, (B,)."""
        return total(self.before)

    @property
    def best_bound(self) -> Tensor:
        """min_q B(x; q), (B,); minus this is the papers' ELBO*."""
        return total(self.after)

    @property
    def gap(self) -> Tensor:
        """The amortization gap, (B,): not negative in expectation."""
        return self.bound - self.best_bound

    @property
    def distortion(self) -> tuple[Tensor, Tensor]:
        """E[-log p(x | z)] before and after, (B,) each."""
        return self.before["distortion"], self.after["distortion"]

    @property
    def rate(self) -> tuple[Tensor, Tensor]:
        """KL(q || p) before and after, (B,) each."""
        return _rate(self.before), _rate(self.after)

    @property
    def still_improving(self) -> float:
        """The plateau check: the share of examples whose last quarter of steps gained more than `threshold`."""
        return (self.late_gain > self.threshold).double().mean().item()

    @property
    def won(self) -> dict[str, float]:
        """Candidate -> the share of examples whose best q it gave."""
        return {name: (self.winner == i).double().mean().item() for i, name in enumerate(self.candidates)}


def optimal_bounds(
    model: Density,
    x: Tensor,
    *,
    steps: int = 300,
    samples: int = 16,
    starts: Sequence[str] = STARTS,
    learning_rate: float = 1e-2,
    free_variance: bool | None = None,
    evaluation: int = 256,
    threshold: float = 0.1,
    batch: int = 250,
    rows: int = ROWS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Amortization:
    """The amortization gap: the bound with the encoder's q, and with a factorised Gaussian q optimised for each example.

        gap(x) = B(x; q(z | x)) - min_{m, v} B(x; N(m, diag v))

    It is the model's in use: in evaluation mode, with every weight one and no extras. Weights and modes are left as they
    were. What an example gets depends on its index and the seed alone, not on `batch`; only a prior that draws noise of its
    own (a diffusion, an autoencoder) gives other draws in other batches.

    Args:
        model: an autoencoder with a Gaussian encoder, and a prior that bounds KL(q || p).
        x: (B, ...) in model space, on the model's device.
        steps: of Adam.
        samples: of q in each step, in antithetic pairs (or a single one); a prior that draws noise levels gets as many.
        starts: some of `STARTS`. Of all candidates the best is kept, and the encoder's q is one.
        learning_rate: of Adam at first; along a cosine it falls to a hundredth. The start at zero, which has far to go, takes
            ten times as much: a coordinate moves by at most about `steps * learning_rate / 2`.
        free_variance: optimise log v too. None: unless the encoder's noise is fixed by its schedule. With True such an
            encoder has a second gap, which counts what its family lacks as well.
        evaluation: samples for the two bounds that are reported; a quarter of them, others, choose.
        threshold: nats, for `Amortization.still_improving`.
        batch: examples that are optimised at once, which bounds the memory: `batch * samples` decoder inputs.
        rows: decoder inputs that are evaluated at once, or as many.
        seed: of all noise.
        progress: called with the examples done and their number.

    Raises:
        NoBound: no encoder, a deterministic one, a diffusion as decoder, or a part that admits no bound of these x.
        ModelError: the decoder passes no gradient.
        ConfigError: a number or a start that has no meaning.
        DataError: x is empty.

    Reference: Cremer et al. 2018 (arXiv 1801.03558), Table 1; Xiao et al. 2024 (DMaaPx), Eq. 4.
    """
    _check_numbers(steps, samples, starts, learning_rate, evaluation, batch)
    if len(x) == 0:
        raise DataError("x holds no examples, so there is no amortization gap to measure: pass at least one.")
    found = []
    with evaluating(model):
        posteriors = [_posterior(model, part) for part in x.split(batch)]
        if free_variance is None:
            free_variance = not isinstance(getattr(model, "encoder", None), FixedNoiseEncoder)
        with _constant(model):
            for i, (part, q) in enumerate(zip(x.split(batch), posteriors, strict=True)):
                problem = _Problem(model, part, i * batch, samples, seed, rows)
                ends = {name: _optimise(problem, q, name, steps, learning_rate, free_variance) for name in starts}
                found.append(_best(problem, q, ends, evaluation, threshold))
                if progress is not None:
                    progress(i * batch + len(part), len(x))
    return _joined(found)


class ExampleNoise:
    """Standard normal noise for a batch of codes, a stream for each: it depends on (seed, index of the example) alone.

    Alone or in any batch an example gets the same numbers. (`BlockNoise` has one stream for 64 rows.)

    Args:
        seed: of all streams.
        first: index of the first example.
        like: (B, ...) codes, whose shape, type and device the noise has.
    """

    def __init__(self, seed: int, first: int, like: Tensor) -> None:
        self.generators = [torch.Generator().manual_seed(seed_from(seed, first + i)) for i in range(len(like))]
        self.like, self.shape = like, tuple(like.shape[1:])
        self.ahead = max(1, NUMBERS // max(1, self.shape_size))
        self.left = like.new_empty((0, *like.shape))

    @property
    def shape_size(self) -> int:
        """Numbers in one code."""
        return torch.Size(self.shape).numel()

    def take(self, n: int) -> Tensor:
        """The next n codes of noise of each stream, (n, B, ...)."""
        while len(self.left) < n:
            more = [torch.randn((self.ahead, *self.shape), generator=g) for g in self.generators]
            self.left = torch.cat([self.left, torch.stack(more, 1).to(self.like)])
        taken, self.left = self.left[:n], self.left[n:]
        return taken

    def pairs(self, n: int) -> Tensor:
        """n codes of noise as antithetic pairs e and -e, whose mean is exact for what is linear in them; or one alone."""
        if n == 1:
            return self.take(1)
        e = self.take(n // 2)
        return torch.cat([e, -e])


class _Problem:
    """B(x; q) of some examples as a function of q.

    Args:
        model: the autoencoder.
        x: (B, ...).
        first: index of the first example.
        samples: of q in a step of the optimisation.
        seed: of all noise.
        rows: decoder inputs that are evaluated at once.
    """

    def __init__(self, model: Any, x: Tensor, first: int, samples: int, seed: int, rows: int) -> None:
        self.decoder, self.prior, self.x = model.decoder, model.prior, x
        self.first, self.samples, self.seed, self.rows = first, samples, seed, rows
        self.closed_form = isinstance(model.prior, StandardNormal)
        self.repeated = x

    def terms(self, q: Normal, e: Tensor) -> Terms:
        """Distortion and rate, (B,) each: means over the draws m + sqrt(v) e of q, with e (S, B, ...)."""
        s, b = e.shape[:2]
        copies = q.repeat(s)
        z = copies.sample(lambda shape: e.reshape(shape))
        if len(self.repeated) != s * b:
            self.repeated = self.x.repeat(s, *[1] * (self.x.ndim - 1))
        terms = {"distortion": self.decoder(z).nll(self.repeated)}
        rate = self.prior.terms(q if self.closed_form else copies, exact=True)
        terms |= {f"rate/{name}": term for name, term in rate.items()}
        return {name: term.reshape(-1, b).mean(0) for name, term in terms.items()}

    def noise(self, purpose: int, like: Tensor) -> ExampleNoise:
        """The draws of one purpose, always from their beginning."""
        return ExampleNoise(seed_from(self.seed, purpose), self.first, like)

    @torch.no_grad()
    def evaluate(self, q: Normal, samples: int, purpose: int) -> Terms:
        """Terms from `samples` draws, in double precision: common random numbers for every q that is asked about."""
        noise, left = self.noise(purpose, q.mean), samples
        sums: Terms = {}
        with seeded(self.seed, purpose, self.first):
            while left:
                s = min(left, max(2, self.samples, self.rows // len(self.x) // 2 * 2))
                for name, term in self.terms(q, noise.pairs(s)).items():
                    sums[name] = sums.get(name, 0.0) + s / samples * term.double()
                left -= s
        return sums


def _optimise(
    problem: _Problem, q: Normal, name: str, steps: int, learning_rate: float, free_variance: bool
) -> tuple[Normal, Normal]:
    """q after three quarters of the steps, and after all, from the start of that name."""
    start = q
    if name == "zero":  # a variance that is not optimised stays the encoder's
        start = Normal(torch.zeros_like(q.mean), torch.zeros_like(q.log_var) if free_variance else q.log_var)
        learning_rate *= FAR
    mean, log_var = start.mean.clone().requires_grad_(), start.log_var.clone().requires_grad_(free_variance)
    adam = torch.optim.Adam([mean, log_var] if free_variance else [mean], lr=learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps, eta_min=learning_rate / 100)
    noise, late = problem.noise(OPTIMISE, start.mean), start
    with torch.enable_grad(), seeded(problem.seed, OPTIMISE, problem.first):
        for step in range(steps):
            if step == steps - steps // 4:
                late = Normal(mean.detach().clone(), log_var.detach().clone())
            loss = total(problem.terms(Normal(mean, log_var), noise.pairs(problem.samples)))
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
            cosine.step()
    return late, Normal(mean.detach(), log_var.detach())


def _best(
    problem: _Problem, q: Normal, ends: dict[str, tuple[Normal, Normal]], evaluation: int, threshold: float
) -> Amortization:
    """The best of the encoder's q and the ends of all starts, chosen with draws that are not reported."""
    few = max(2, evaluation // 8 * 2)

    def chosen_by(candidate: Normal) -> Tensor:
        return total(problem.evaluate(candidate, few, CHOOSE)).nan_to_num(nan=torch.inf, posinf=torch.inf)

    late, last = (torch.stack([chosen_by(end[i]) for end in ends.values()]) for i in (0, 1))
    better = last.argmin(0, keepdim=True)
    winner = torch.cat([chosen_by(q)[None], last]).argmin(0)
    all_q = [q, *(end for _, end in ends.values())]
    posterior = Normal(
        _picked(torch.stack([each.mean for each in all_q]), winner),
        _picked(torch.stack([each.log_var for each in all_q]), winner),
    )
    return Amortization(
        problem.evaluate(q, evaluation, REPORT),
        problem.evaluate(posterior, evaluation, REPORT),
        posterior,
        winner,
        (UNCHANGED, *ends),
        (late.gather(0, better) - last.gather(0, better))[0],
        threshold,
    )


def _picked(candidates: Tensor, winner: Tensor) -> Tensor:
    """Row i of candidate winner[i]: (candidates, B, ...) -> (B, ...)."""
    return candidates[winner, torch.arange(len(winner), device=winner.device)]


def _joined(parts: Sequence[Amortization]) -> Amortization:
    """The examples of all parts, one after another."""
    return Amortization(
        {name: torch.cat([p.before[name] for p in parts]) for name in parts[0].before},
        {name: torch.cat([p.after[name] for p in parts]) for name in parts[0].after},
        Normal(torch.cat([p.posterior.mean for p in parts]), torch.cat([p.posterior.log_var for p in parts])),
        torch.cat([p.winner for p in parts]),
        parts[0].candidates,
        torch.cat([p.late_gain for p in parts]),
        parts[0].threshold,
    )


def _rate(terms: Terms) -> Tensor:
    return total({name: term for name, term in terms.items() if name != "distortion"})


def _posterior(model: Any, x: Tensor) -> Normal:
    """The encoder's q(z | x) in full, where the model has an amortization gap on x.

    Raises:
        NoBound: otherwise.
        ModelError: the decoder passes no gradient.
    """
    kind = type(model).__name__
    if not all(hasattr(model, part) for part in ("encoder", "decoder", "prior")):
        raise NoBound(
            f"{kind} is no autoencoder with an encoder, a decoder and a prior, so it has no amortization gap: "
            "there is no q(z | x) to improve."
        )
    if getattr(model, "implicit", False):
        raise NoBound(
            "The decoder is a diffusion, which bounds -log p(x | z) by a path of its own, so the best q(z | x) of a single "
            "example is not defined by the code alone. Measure the amortization gap of a model with a likelihood decoder."
        )
    with torch.enable_grad():  # `check` looks whether a variance is learned
        q = model.encoder(x)
        if not isinstance(q, Normal):
            raise NoBound(
                f"The encoder gives a {type(q).__name__} and not a Gaussian, so there is no Gaussian q(z | x) to optimise. "
                "Train one with a Gaussian encoder (diled, or a vae with --model.posterior gaussian)."
            )
        model.decoder(q.mean).check(x)
        with seeded(0):
            z = q.mean[:1].detach().requires_grad_()
            nll_slope(model.decoder(z).nll(x[:1]), z)
    mean = q.mean.detach()
    return Normal(mean, q.log_var.detach().expand_as(mean).clone())


def _check_numbers(
    steps: int, samples: int, starts: Sequence[str], learning_rate: float, evaluation: int, batch: int
) -> None:
    if steps < 4:
        raise ConfigError(f"steps = {steps}: the optimisation takes at least 4, whose last quarter tells a plateau.")
    if samples < 1 or (samples > 1 and samples % 2):
        raise ConfigError(f"samples = {samples}: take 1 or an even number, for antithetic pairs.")
    if evaluation < 2 or evaluation % 2:
        raise ConfigError(f"evaluation = {evaluation}: take an even number of samples, for antithetic pairs.")
    if batch < 1:
        raise ConfigError(f"batch = {batch}: at least one example is optimised at a time.")
    if not learning_rate > 0:
        raise ConfigError(f"learning_rate = {learning_rate}: it must be positive.")
    if not starts:
        raise ConfigError(f"starts is empty: name at least one of {', '.join(STARTS)}.")
    for name in starts:
        if name not in STARTS:
            raise ConfigError(f"Unknown start '{name}'.{did_you_mean(name, STARTS)}")


@contextmanager
def _constant(model: torch.nn.Module) -> Iterator[None]:
    """Within the block no weight gets a gradient; afterwards those that did may again."""
    learning = [p for p in model.parameters() if p.requires_grad]
    for p in learning:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)
