"""Small networks whose penultimate layer is the space in which sets of images are compared.

No one network suits 8x8 digits and photographs, and Inception features of digits mean little, so each data set has a
small classifier of its own, trained on the training split alone and committed with its weights:

    cnn          x -> 4 convolutions, each with normalisation and ReLU, -> 4x4 -> linear -> ReLU = features -> classes
    mlp          x -> linear, ReLU -> linear, ReLU = features -> classes             small images, and vectors
    random-conv  x -> 4 convolutions with fixed random weights -> mean and deviation over the picture = features

Every network gives 64 features. One network serves all variants of a data set: those for `mnist` and `digits` are
trained half on grey images with mild noise and half on the same images with each pixel drawn as Bernoulli(grey value),
so that grey decoder means, binary draws and thresholded images all lie where the network has been. Those for
`fashion-mnist` and `cifar10`, whose models are not Bernoulli, see noisy images only.

A distance holds for one network: report `net.name` beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diled.errors import ConfigError, DataError, ModelError, did_you_mean

__all__ = [
    "FEATURES",
    "FeatureNet",
    "accuracy",
    "available",
    "extract",
    "feature_net",
    "fit_feature_net",
    "load_feature_net",
    "random_features",
    "save_feature_net",
]

FEATURES = 64
"""Number of features of every network."""

WIDTHS = (24, 48, 64, 64)  # channels of the convolutions
LARGEST_SIDE = 64  # larger pictures are averaged down to this before the first convolution
SMALL = 256  # up to this many values per example an mlp is used
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Architecture:
    """What is needed to build a `FeatureNet`: its kind, the shape of one example, and the number of classes."""

    kind: Literal["cnn", "mlp", "random-conv"]
    shape: tuple[int, ...]
    classes: int = 0
    seed: int = 0


class FeatureNet(nn.Module):
    """A fixed network from examples in model space, [-1, 1], to 64 features, and from those to class logits.

    Args:
        architecture: kind, shape and number of classes.
        name: goes beside every number that the features lead to, for example `mnist-cnn-v1`.
        accuracy: share of held-out examples classified rightly; None where there are no classes.
        notes: anything else that is known of the training, as plain values.

    Raises:
        DataError: a kind of convolutional network for examples that are no images.
    """

    def __init__(
        self, architecture: Architecture, name: str, accuracy: float | None = None, notes: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.architecture, self.name, self.accuracy, self.notes = architecture, name, accuracy, dict(notes or {})
        if architecture.kind != "mlp" and len(architecture.shape) != 3:
            raise DataError(f"A convolutional feature network needs images (C, H, W), found {architecture.shape}.")
        bodies = {"cnn": _cnn, "mlp": _mlp, "random-conv": _random_conv}
        self.body = bodies[architecture.kind](architecture)
        self.head = nn.Linear(FEATURES, architecture.classes) if architecture.classes else None

    def features(self, x: Tensor) -> Tensor:
        """The penultimate layer (B, 64) of examples x (B, *shape) in [-1, 1].

        Raises:
            DataError: x has another shape than the network was made for.
        """
        if x.shape[1:] != self.architecture.shape:
            wanted, found = self.architecture.shape, tuple(x.shape[1:])
            raise DataError(f"The feature network {self.name} takes examples of shape {wanted}, found {found}.")
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, classes) of examples x (B, *shape) in [-1, 1].

        Raises:
            ModelError: the network has no classes.
        """
        if self.head is None:
            raise ModelError(f"The feature network {self.name} has random weights and classifies nothing.")
        return self.head(self.features(x))

    def extra_repr(self) -> str:
        """Name and accuracy, for `print(net)`."""
        return f"name={self.name!r}, accuracy={self.accuracy}"


class _MeanAndDeviation(nn.Module):
    """Mean and standard deviation of each channel over the picture: (B, C, H, W) -> (B, 2 C)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return torch.cat([flat.mean(2), (flat.var(2, correction=0) + 1e-8).sqrt()], 1)  # a finite gradient where flat


class _Shrink(nn.Module):
    """Average a picture down so that no side exceeds `LARGEST_SIDE`."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if max(height, width) <= LARGEST_SIDE:
            return x
        return F.adaptive_avg_pool2d(x, (min(height, LARGEST_SIDE), min(width, LARGEST_SIDE)))


def _convolutions(shape: tuple[int, ...], widths: Sequence[int], normalised: bool) -> list[nn.Module]:
    """Shrink, then 3x3 convolutions that halve the picture; the first one only where a side is longer than 32."""
    layers: list[nn.Module] = [_Shrink()]
    strides = [2 if max(shape[1:]) > 32 else 1, *[2] * (len(widths) - 1)]
    for before, after, stride in zip([shape[0], *widths[:-1]], widths, strides, strict=True):
        layers.append(nn.Conv2d(before, after, 3, stride, 1, bias=not normalised))
        layers += [nn.BatchNorm2d(after), nn.ReLU()] if normalised else [nn.ReLU()]
    return layers


def _cnn(a: Architecture) -> nn.Module:
    pooled = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * WIDTHS[-1], FEATURES), nn.ReLU()]
    return nn.Sequential(*_convolutions(a.shape, WIDTHS, normalised=True), *pooled)


def _mlp(a: Architecture) -> nn.Module:
    hidden = 256
    layers = [nn.Linear(math.prod(a.shape), hidden), nn.ReLU(), nn.Linear(hidden, FEATURES), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers)


def _random_conv(a: Architecture) -> nn.Module:
    body = nn.Sequential(*_convolutions(a.shape, (*WIDTHS[:-1], FEATURES // 2), normalised=False), _MeanAndDeviation())
    generator = torch.Generator().manual_seed(a.seed)
    for layer in body:
        if isinstance(layer, nn.Conv2d):
            gain = math.sqrt(2 / layer.weight[0].numel())  # keeps the variance through a ReLU (He et al. 2015)
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * gain
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return body


def available() -> list[str]:
    """The data sets that a trained network is packaged for.

    Example:
        >>> "digits" in available()
        True
    """
    folder = resources.files("diled.evaluation") / "features"
    if not folder.is_dir():
        return []
    return sorted(f.name.removesuffix(SUFFIX) for f in folder.iterdir() if f.name.endswith(SUFFIX))


def feature_net(name: str) -> FeatureNet:
    """The packaged network for a data set, in evaluation mode; loaded once.

    Args:
        name: the data set; a variant after a slash is left out (`mnist/threshold` takes the network of `mnist`).

    Raises:
        ConfigError: no network is packaged for that name.
        ModelError: the file is damaged.

    Example:
        >>> net = feature_net("digits")
        >>> net.name, net.features(torch.zeros(2, 1, 8, 8)).shape
        ('digits-mlp-v1', torch.Size([2, 64]))
    """
    data = name.split("/")[0]
    if data not in available():
        hint = "For your own data use fit_feature_net (with labels) or random_features."
        raise ConfigError(f"No feature network is packaged for '{name}'.{did_you_mean(data, available())} {hint}")
    return _packaged(data)


@lru_cache
def _packaged(data: str) -> FeatureNet:
    with resources.as_file(resources.files("diled.evaluation") / "features" / f"{data}{SUFFIX}") as path:
        return load_feature_net(path)


def random_features(shape: Sequence[int], seed: int = 0) -> FeatureNet:
    """A fixed convolutional network with random weights, for images without labels or a network of their own.

    Its features are the mean and standard deviation over the picture of 32 random non-linear filters: they see texture,
    contrast and stroke, but no classes, so distances rank gross failures and are not comparable with those of a trained
    network. Its name, `random-conv` (with another seed `random-conv/seed=1`), says so in every report.

    Args:
        shape: (C, H, W) of the images.
        seed: of the weights; the same seed gives the same network everywhere.

    Raises:
        DataError: `shape` is not that of an image.

    Reference: Naeem et al., "Reliable fidelity and diversity metrics for generative models", 2020, on random
    embeddings.

    Example:
        >>> random_features((3, 40, 24)).features(torch.zeros(2, 3, 40, 24)).shape
        torch.Size([2, 64])
    """
    name = "random-conv" if seed == 0 else f"random-conv/seed={seed}"
    return FeatureNet(Architecture("random-conv", tuple(shape), seed=seed), name).eval().requires_grad_(False)


@torch.no_grad()
def extract(net: FeatureNet, images: Any, batch_size: int = 500) -> np.ndarray:
    """The features (N, 64) of images in model space, float32, on the CPU.

    Values outside [-1, 1], as a Gaussian decoder's means may have, are cut off: a screen would do the same.

    Args:
        net: the network; its device does the work.
        images: tensor or array (N, *shape) of floating-point values in [-1, 1].
        batch_size: images at a time.

    Raises:
        DataError: raw grey values instead of model space, NaN or infinite values, no images, or another shape.

    Example:
        >>> extract(feature_net("digits"), torch.zeros(3, 1, 8, 8)).shape
        (3, 64)
    """
    x = torch.as_tensor(images)
    if not x.is_floating_point():
        raise DataError(f"Features need images in [-1, 1] as floating-point numbers, found {x.dtype}.")
    if len(x) == 0:
        raise DataError("Features need at least one image.")
    low, high = (float(v) for v in torch.aminmax(x))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError("The images hold NaN or infinite values.")
    if low >= 0 and high > 2:
        raise DataError(f"Features need images in [-1, 1], found values from {low:g} to {high:g}.")
    parameter = next(net.parameters())
    was_training = net.training
    net.eval()  # running statistics, whatever the caller's state
    batches = (x[i : i + batch_size].to(parameter).clamp(-1, 1) for i in range(0, len(x), batch_size))
    features = torch.cat([net.features(batch).float().cpu() for batch in batches]).numpy()
    net.train(was_training)
    return features


@torch.no_grad()
def accuracy(net: FeatureNet, images: Any, labels: Any, batch_size: int = 500) -> float:
    """Share of images (N, *shape) in [-1, 1] whose most likely class is their label (N,)."""
    x, y = torch.as_tensor(images), torch.as_tensor(labels)
    parameter = next(net.parameters())
    net.eval()
    right = 0
    for i in range(0, len(x), batch_size):
        guess = net(x[i : i + batch_size].to(parameter).clamp(-1, 1)).argmax(1)
        right += int((guess == y[i : i + batch_size].to(guess.device)).sum())
    return right / len(x)


def fit_feature_net(
    values: Any,
    labels: Any,
    *,
    low: float = 0.0,
    high: float = 255.0,
    held_out: tuple[Any, Any] | None = None,
    name: str = "fitted",
    steps: int = 600,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    noise: float = 0.1,
    binarized: float = 0.0,
    flip: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> FeatureNet:
    """Train a feature network on a labelled training set: under a minute on one core with the default number of steps.

    Cross-entropy, AdamW with a linear warm-up over a tenth of the steps and a cosine to zero. The random state of the
    caller is left as it was.

    Args:
        values: raw values (N, *shape), of any numeric type; images of up to 256 values and other shapes get an mlp.
        labels: classes (N,), integers from 0.
        low: the raw value that becomes -1.
        high: the raw value that becomes +1.
        held_out: values and labels that the accuracy is measured on; without them, a tenth of the examples.
        name: of the network; the kind of network is put behind it, as in `faces-cnn`.
        steps: optimiser steps.
        batch_size: examples per step.
        learning_rate: its peak.
        weight_decay: decoupled weight decay.
        noise: standard deviation of Gaussian noise added to the images, in model space.
        binarized: share of training images with each pixel drawn as -1 or 1 with the grey value as its mean.
        flip: mirror half of the images left to right.
        seed: of weights, order and noise.
        device: where to train.

    Returns:
        The network in evaluation mode on the CPU, with its `accuracy`.

    Raises:
        DataError: fewer than 20 examples, fewer than 2 classes, labels that do not match the values, or low >= high.

    Example:
        >>> x = np.repeat([0, 255], 50)[:, None, None, None] * np.ones((1, 1, 4, 4), int)
        >>> net = fit_feature_net(x, np.repeat([0, 1], 50), steps=20)
        >>> net.name, net.accuracy
        ('fitted-mlp', 1.0)
    """
    x, y = _labelled(values, labels)
    if low >= high:
        raise DataError(f"low must be below high, found {low:g} and {high:g}.")
    generator = torch.Generator().manual_seed(seed)
    if held_out is None:
        order, cut = torch.randperm(len(x), generator=generator), max(1, len(x) // 10)
        x_test, y_test, x, y = x[order[:cut]], y[order[:cut]], x[order[cut:]], y[order[cut:]]
    else:
        x_test, y_test = _labelled(*held_out, least=1)
    shape = tuple(x.shape[1:])
    kind: Literal["cnn", "mlp"] = "cnn" if len(shape) == 3 and math.prod(shape) > SMALL else "mlp"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = FeatureNet(Architecture(kind, shape, int(max(y.max(), y_test.max())) + 1), f"{name}-{kind}").to(device)
    optimiser = torch.optim.AdamW(net.parameters(), learning_rate, weight_decay=weight_decay)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for index in _batches(len(x), batch_size, steps, generator):
            images = _augmented(_model_space(x[index], low, high), noise, binarized, flip, generator)
            yield images.to(device), y[index].to(device)

    _minimise(net, optimiser, batches(), steps)
    net = net.to("cpu").eval().requires_grad_(False)
    net.accuracy = accuracy(net, _model_space(x_test, low, high), y_test)
    net.notes = {"steps": steps, "batch_size": batch_size, "noise": noise, "binarized": binarized, "seed": seed}
    return net


def _minimise(
    net: FeatureNet, optimiser: torch.optim.Optimizer, batches: Iterator[tuple[Tensor, Tensor]], steps: int
) -> None:
    """Cross-entropy over `steps` batches: the learning rate rises for a tenth of them and follows a cosine to zero."""

    def factor(step: int) -> float:
        return min((step + 1) / max(1, steps // 10), 0.5 + 0.5 * math.cos(math.pi * step / steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    nn.utils.convert_conv2d_weight_memory_format(net.train(), torch.channels_last)  # twice as fast on a CPU
    for images, labels in batches:
        loss = F.cross_entropy(net(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def save_feature_net(net: FeatureNet, path: str | Path) -> None:
    """Write the weights, about 0.3 MB (matrices as float16, vectors as float32), and in the header what describes them."""
    from safetensors.torch import save

    weights = {k: (v.half() if v.is_floating_point() and v.ndim > 1 else v).contiguous() for k, v in _weights(net)}
    about = {"name": net.name, "accuracy": net.accuracy, "architecture": asdict(net.architecture), "notes": net.notes}
    Path(path).write_bytes(save(weights, {k: json.dumps(v) for k, v in about.items()}))


def load_feature_net(path: str | Path) -> FeatureNet:
    """Read what `save_feature_net` wrote: float32, evaluation mode, no gradients to the weights.

    Raises:
        ModelError: the file is missing, damaged, or not that of a feature network.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
            weights = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        values = {**about["architecture"], "shape": tuple(about["architecture"]["shape"])}
        net = FeatureNet(Architecture(**values), about["name"], about["accuracy"], about["notes"])
        net.load_state_dict({**dict(net.state_dict()), **weights})
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path} is not a feature network: {error}.") from None
    return net.eval().requires_grad_(False)


def _weights(net: FeatureNet) -> list[tuple[str, Tensor]]:
    """All parameters and buffers that matter in evaluation mode."""
    return [(k, v.detach().cpu()) for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")]


def _labelled(values: Any, labels: Any, least: int = 20) -> tuple[Tensor, Tensor]:
    """Values and labels as tensors, checked against each other."""
    x, y = torch.as_tensor(values), torch.as_tensor(labels)
    if x.ndim < 2 or y.shape != (len(x),):
        raise DataError(f"Values {tuple(x.shape)} and labels {tuple(y.shape)} do not match: one label per example.")
    if len(x) < least:
        raise DataError(f"A feature network needs at least {least} examples, found {len(x)}.")
    if y.is_floating_point() or int(y.min()) < 0 or (least > 1 and int(y.max()) < 1):
        raise DataError("Labels must be integers from 0, of at least 2 classes.")
    return x, y.long()


def _model_space(raw: Tensor, low: float, high: float) -> Tensor:
    return (raw.float() - low) * (2 / (high - low)) - 1


def _batches(n: int, batch_size: int, steps: int, generator: torch.Generator) -> list[Tensor]:
    """Indices of each step's batch, in epochs of a fresh order each; incomplete batches are left out."""
    size = min(batch_size, n)
    batches: list[Tensor] = []
    while len(batches) < steps:
        order = torch.randperm(n, generator=generator)
        batches += [order[i : i + size] for i in range(0, n - size + 1, size)]
    return batches[:steps]


def _augmented(x: Tensor, noise: float, binarized: float, flip: bool, generator: torch.Generator) -> Tensor:
    """Binarise a share of the images, add noise to all, and mirror half of them if asked."""
    each = (len(x), *[1] * (x.ndim - 1))
    if binarized:
        bits = 2.0 * (torch.rand(x.shape, generator=generator) < (x + 1) / 2) - 1
        x = torch.where(torch.rand(each, generator=generator) < binarized, bits, x)
    if flip:
        x = torch.where(torch.rand(each, generator=generator) < 0.5, x.flip(-1), x)
    return x + noise * torch.randn(x.shape, generator=generator) if noise else x
