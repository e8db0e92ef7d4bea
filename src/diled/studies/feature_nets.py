"""Train the networks whose features the distances between sets of images are measured in, and write their weights.

    python -m diled.studies.feature_nets --data digits
    python -m diled.studies.feature_nets --data all --out features

Trains on the training split only, prints the accuracy on the test split, and beside it the floor: the Frechet distance
of real training images from the real test images, which no model should be expected to beat by much.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diled.data import Data, open_data, to_model
from diled.evaluation.feature_nets import (
    FeatureNet,
    accuracy,
    extract,
    fit_feature_net,
    load_feature_net,
    save_feature_net,
)
from diled.evaluation.images import frechet

__all__ = ["RECIPES", "VERSION", "floor", "main", "train_feature_net"]

VERSION = "v1"
"""Raised whenever a network changes: distances in the features of two networks do not compare."""

RECIPES: dict[str, dict[str, Any]] = {
    "digits": {"steps": 1500, "learning_rate": 2e-3, "noise": 0.2, "binarized": 0.5},
    "mnist": {"steps": 2400, "binarized": 0.5},
    "fashion-mnist": {"steps": 3000},
    "cifar10": {"steps": 4500, "noise": 0.05, "flip": True},
}
"""Arguments of `fit_feature_net` for each data set."""


def train_feature_net(name: str, data: Data, folder: Path) -> FeatureNet:
    """Train the network of one data set, write it to `folder/name.safetensors`, and return it as it was written.

    The accuracy in the file is that of the rounded weights, on the grey test images; for networks that also see binary
    images, the notes hold that on the test images cut at one half.

    Args:
        name: a key of `RECIPES`.
        data: `open_data(name)`, with raw values and the label column `label`.
        folder: where to write; made if missing.
    """
    train, test = data.train, data.test
    low, high = data.spec.low, data.spec.high
    net = fit_feature_net(
        train.values,
        train.labels["label"],
        low=low,
        high=high,
        held_out=(test.values, test.labels["label"]),
        name=name,
        **RECIPES[name],
    )
    net.name = f"{net.name}-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_feature_net(net, path)
    net = load_feature_net(path)
    images, labels = torch.from_numpy(to_model(test.values, data.spec)), test.labels["label"]
    net.accuracy = accuracy(net, images, labels)
    if RECIPES[name].get("binarized"):
        net.notes["accuracy_binary"] = accuracy(net, torch.where(images > 0, 1.0, -1.0), labels)
    save_feature_net(net, path)
    return net


def floor(net: FeatureNet, data: Data, n: int, seed: int = 0) -> float:
    """Frechet distance of n training images, drawn without replacement, from all test images."""
    index = np.sort(np.random.default_rng(seed).permutation(len(data.train.values))[:n])
    real = extract(net, to_model(data.train.values[index], data.spec))
    return frechet(real, extract(net, to_model(data.test.values, data.spec)))


def main(arguments: list[str] | None = None) -> None:
    """Train, write and print; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m diled.studies.feature_nets", description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=[*RECIPES, "all"], required=True, help="data set, or all in turn")
    default = Path(__file__).parent.parent / "evaluation" / "features"
    parser.add_argument("--out", type=Path, default=default, help="folder of the weights (default: the package's own)")
    options = parser.parse_args(arguments)
    for name in RECIPES if options.data == "all" else [options.data]:
        data, start = open_data(name), time.process_time()
        net = train_feature_net(name, data, options.out)
        seconds = time.process_time() - start
        notes = "".join(f", {k} {v:.4f}" for k, v in net.notes.items() if k.startswith("accuracy"))
        print(f"{net.name}: test accuracy {net.accuracy:.4f}{notes}, {seconds:.0f} CPU seconds")
        for n in (len(data.test.values) // 2, len(data.test.values)):
            found = floor(net, data, n)
            print(f"  floor: {n} training images from {len(data.test.values)} test images, Frechet {found:.3f}")


if __name__ == "__main__":
    main()
