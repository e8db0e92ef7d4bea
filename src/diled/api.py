"""The contracts that every part keeps, and the two operations on terms that are done nowhere else.

Shapes: B examples, D latent dimensions, (B, C, H, W) images in [-1, 1], (B, L) int64 tokens. Time t is in [0, 1] and 0 is
clean. `log_snr` = log(alpha^2 / sigma^2) = -gamma. Every term of a loss or a bound has shape (B,) and is in nats;
`bound` is an upper bound on -log p(x), so lower is better.

Nouns: an `Encoder` maps x to a distribution q(z | x), a `Decoder` maps z to a distribution p(x | z), a `Density` bounds
-log p of a tensor and KL(q || p) of a distribution. An autoencoder is an encoder, a decoder and a prior; a diffusion
model is a density; an autoencoder is a density. So a prior can be a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from diled.draws import drawn_normal, paired_pass
from diled.errors import ConfigError, NoBound

__all__ = [
    "Batch",
    "Decoder",
    "Denoiser",
    "Density",
    "Distribution",
    "Encoder",
    "NoBound",
    "Noise",
    "Posterior",
    "Stage",
    "Terms",
    "choose_device",
    "computed_in",
    "device_of",
    "evaluating",
    "has_entropy",
    "identity_of",
    "normal_noise",
    "picture",
    "scale_gradient",
    "stack",
    "sum_dims",
    "total",
    "with_gradient_of",
]

Terms: TypeAlias = dict[str, Tensor]
"""Named contributions to a loss or a bound, each of shape (B,), in nats."""

Noise: TypeAlias = Callable[[tuple[int, ...]], Tensor]
"""A source of standard normal numbers of a given shape."""


@runtime_checkable
class Distribution(Protocol):
    """A batch of B distributions over x. All densities and entropies are in nats, one number per example."""

    @property
    def measure(self) -> str:
        """`counting` (probabilities of grid values or symbols) or `density` (per unit of x in model space)."""
        ...

    @property
    def mean(self) -> Tensor:
        """The mean, in the shape of x."""
        ...

    @property
    def mode(self) -> Tensor:
        """The most likely x (exactly, or up to the unimodality that the class states)."""
        ...

    def sample(self, noise: Noise | None = None) -> Tensor:
        """One draw for each example; differentiable where the class can."""
        ...

    def nll(self, x: Tensor) -> Tensor:
        """-log p(x), shape (B,)."""
        ...

    def entropy(self) -> Tensor:
        """The entropy, shape (B,). Raises `NoBound` where there is none."""
        ...

    def check(self, x: Tensor) -> None:
        """Raise `NoBound` unless `nll(x)` is minus the log of a probability (density) of these x."""
        ...


class Posterior(Distribution, Protocol):
    """A distribution over codes: what an encoder returns and a prior is asked about."""

    def affine(self, scale: Tensor | float, shift: Tensor | float) -> Posterior:
        """The distribution of scale * x + shift."""
        ...

    def scale_gradient(self, r: Tensor | float) -> Posterior:
        """The same distribution whose parameters pass r times their gradient."""
        ...


class Density(nn.Module):
    """A model p(x): it bounds -log p(x) of a tensor, and KL(q || p) of a distribution q over x.

    A subclass writes `terms` for tensors and `sample`. The terms of a distribution default to -H(q) + terms(z), z ~ q.
    Where examples have codes, it also has `encode(x, noise, sample)` -> (B, D), `decode(z, noise, draw)` -> x and
    `reconstruct(x, noise, sample_code, invert)`.
    """

    has_codes: bool = False
    """Whether there are `encode`, `decode` and `reconstruct`."""
    implicit: bool = False
    """Whether decoding a code takes a sampler's many steps."""
    certain: bool = False
    """Whether `terms(x, exact=True)` of a tensor draw nothing, so that one pass says as much as many."""
    path: str = "linear"
    """The way from one code to another: `linear`, or `spherical` where codes are noise."""

    def terms(self, q: Tensor | Posterior, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """The named terms whose sum bounds -log p(x) (of a tensor) or KL(q || p) (of a distribution).

        Args:
            q: a tensor (B, ...) or a distribution over such tensors.
            exact: every weight one and no extras, on every level: the sum is the bound. Otherwise the values are nats all
                the same, but their gradients are those of the training objective.
            progress: share of the training done, in [0, 1], for warm-ups.

        Raises:
            NoBound: `exact` is wanted and some part admits no bound.
        """
        raise NotImplementedError(f"{type(self).__name__} must define terms()")

    def terms_of_sample(self, q: Distribution, *, exact: bool = False, progress: Tensor | float = 1.0) -> Terms:
        """KL(q || p) <= -H(q) + terms(z), z ~ q: what `terms` of a distribution is where there is nothing sharper."""
        if not exact and not has_entropy(q):
            return self.terms(q.sample(), progress=progress)
        return {"negative_entropy": -q.entropy(), **self.terms(q.sample(), exact=exact, progress=progress)}

    def bound(self, x: Tensor) -> Tensor:
        """An upper bound on -log p(x) in nats, shape (B,): one Monte-Carlo estimate, unbiased for the bound.

        It is a mean over noise and times: never use it as a log-weight (in importance weighting, say).
        """
        return total(self.terms(x, exact=True))

    def paired_bound(self, x: Tensor, *, passes: int = 64, seed: tuple[int, ...] = (0,)) -> Tensor:
        """`bound` for comparing examples, (B,): the mean of passes in which all meet the same noise (`draws.paired_pass`).

        What it says of an example does not depend on the others, and most of its noise cancels in differences. One noise
        level drawn for each example would be noise first of all: on peptides it ranks them at a correlation of 0.4
        between two seeds after 16 passes, and this at 0.95. The noise that all share stays in their mean.
        """
        mean, passes = torch.zeros(len(x), device=x.device), 1 if self.certain else passes
        for i in range(passes):
            with paired_pass(i, passes, *seed):
                mean = mean + self.bound(x) / passes
        return mean

    def sample(self, n: int, *, noise: Noise | None = None) -> Tensor:
        """Draw `n` samples of x. The same `noise` gives the same samples."""
        raise NotImplementedError(f"{type(self).__name__} must define sample()")


@dataclass
class Stage:
    """One fit: a density, what of it stays fixed, and what to do before.

    Args:
        name: for logs and reports.
        density: what is trained; it shares its parts with the model and with other stages.
        share: of all training steps; 0: nothing is trained, only `prepare` is called.
        frozen: modules that are in evaluation mode and get no gradient.
        prepare: called once before the stage with (up to 10,000) training examples in model space.
        fit: called once before the stage with all training examples in model space, in batches.
    """

    name: str
    density: Density
    share: float = 1.0
    frozen: tuple[nn.Module, ...] = ()
    prepare: Callable[[Tensor], None] | None = None
    fit: Callable[[Iterable[Tensor]], None] | None = None

    @contextmanager
    def training(self) -> Iterator[None]:
        """Within the block frozen modules are in evaluation mode and get no gradient, and everything else trains.

        Afterwards the density is in evaluation mode, and what was frozen here may be trained again.
        """
        self.density.train()
        fixed = [p for module in self.frozen for p in module.parameters() if p.requires_grad]
        for module in self.frozen:
            module.eval()
        for p in fixed:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in fixed:
                p.requires_grad_(True)
            self.density.eval()


class Batch(NamedTuple):
    """Examples with their labels."""

    x: Tensor
    """(B, ...), raw or in model space."""
    labels: Mapping[str, Tensor] = MappingProxyType({})
    """Column -> (B,): class indices (-1 where missing) or real numbers (NaN where missing)."""


class Encoder(Protocol):
    """x -> q(z | x)."""

    def __call__(self, x: Tensor) -> Posterior:
        """The distribution of the code of each example."""
        ...


class Decoder(Protocol):
    """z -> p(x | z)."""

    def __call__(self, z: Tensor) -> Distribution:
        """The distribution of the data given each code."""
        ...


class Denoiser(Protocol):
    """(z_t, log_snr, condition) -> the estimate of clean z."""

    def __call__(self, z_t: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """E[z | z_t]: z_t (B, ...), log_snr (B,), condition (B, ...) or None -> (B, ...)."""
        ...


def picture(p: Distribution, noise: Noise | None = None) -> Tensor:
    """What is shown of p(x | z): its mean; of a diffusion a draw, since the mean of a density of pictures is a blur."""
    return p.picture(noise) if getattr(p, "implicit", False) else p.mean  # type: ignore[attr-defined]


def has_entropy(q: Distribution) -> bool:
    """Whether q has an entropy; a deterministic code has none."""
    return getattr(q, "has_entropy", True)


def stack(terms: Mapping[str, Tensor]) -> Tensor:
    """All terms in one tensor, (number of terms, B).

    Raises:
        ValueError: a term is not of shape (B,); it would broadcast silently to a wrong total.
    """
    shapes = {name: tuple(term.shape) for name, term in terms.items()}
    if len(set(shapes.values())) != 1 or any(len(s) != 1 for s in shapes.values()):
        raise ValueError(f"every term must have the same shape (B,), got {shapes}")
    return torch.stack(list(terms.values()))


def total(terms: Mapping[str, Tensor]) -> Tensor:
    """The sum of all terms, shape (B,). Terms are added nowhere else."""
    return stack(terms).sum(0)


def sum_dims(x: Tensor) -> Tensor:
    """(B, ...) -> (B,): the sum over everything but the batch, in fp32 or wider."""
    x = x if x.dtype == torch.float64 else x.float()
    return x.flatten(1).sum(1) if x.ndim > 1 else x


def scale_gradient(z: Tensor, r: Tensor | float) -> Tensor:
    """The value of z with r times its gradient: lerp(detach(z), z, r).

    One dial per edge of the model: r = 1 trains jointly, r = 0 stops the gradient (two stages), a number between is
    beta, a ramp is a warm-up, and r(t) = w_encoder(t) / w_prior(t) gives the two objectives of LSGM in one pass.
    """
    if isinstance(r, (int, float)):
        if r == 1:
            return z
        if r == 0:
            return z.detach()
    fixed = z.detach()
    return fixed + r * (z - fixed)


def with_gradient_of(value: Tensor, loss: Tensor) -> Tensor:
    """The value (nats, to be read) of one tensor with the gradient of another (the training objective)."""
    return value.detach() + (loss - loss.detach())


@contextmanager
def evaluating(*parts: Any) -> Iterator[None]:
    """Evaluation mode within the block; afterwards every module is as before.

    Args:
        parts: modules, or methods of modules; whatever else has no mode.
    """
    owners = [getattr(part, "__self__", part) for part in parts]
    training = [m for owner in owners if isinstance(owner, nn.Module) for m in owner.modules() if m.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def choose_device(device: str) -> torch.device:
    """`auto` takes CUDA, else the CPU, for training as for all else. Apple's MPS has no 64-bit numbers and has to be named.

    Raises:
        ConfigError: a device that is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if device not in there:
        raise ConfigError(f"device '{device}' is unknown. Known: auto, cpu, cuda, mps.")
    if not there[device]:
        raise ConfigError(f"device '{device}' is not available here; use auto or cpu.")
    return torch.device(device)


@cache
def has_bf16(kind: str) -> bool:
    """Whether a kind of device (`cpu`, `cuda`, `mps`) has instructions for bfloat16. PyTorch goes on without them, many times
    as slowly as in fp32."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return True


def computed_in(precision: str, kind: str) -> Literal["fp32", "bf16"]:
    """What networks compute in on this kind of device: `bf16` where that is asked for and it has instructions for it."""
    return "bf16" if precision == "bf16" and has_bf16(kind) else "fp32"


IN_FP32 = "This device has no instructions for bf16: networks run in fp32."
"""What is said where `computed_in` is not what was asked for."""


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters and buffers are; the processor where it has none."""
    return next((t.device for t in [*module.parameters(), *module.buffers()]), torch.device("cpu"))


def identity_of(module: nn.Module) -> str:
    """SHA-256 of a module's weights and buffers, with their names."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def normal_noise(like: Tensor) -> Noise:
    """Standard normal noise from torch's global generator on the device and in the type of `like` (`draws.drawn_normal`)."""
    return lambda shape: drawn_normal(shape, like)
