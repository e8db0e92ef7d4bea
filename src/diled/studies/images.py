"""The layout of the paper's image table: generation, reconstruction and interpolation at several numbers of sampler steps.

    python -m diled.studies.images images-table --seeds 0 [--sampler-steps 10 20 50]

For the rows of a study (models that decode or sample by a diffusion) and T steps of every diffusion inside:

    frechet_samples/T=..                     samples
    frechet_reconstructions/random/T=..      from the code alone, with fresh x_T
    frechet_reconstructions/inverted/T=..    with the x_T that DDIM inversion finds
    frechet_midpoints/0.2/T=.., 0.4          between the codes of random pairs, each with one fresh x_T; where the code is x_T
                                             itself, on the sphere between the two
    frechet_floor                            training images in the same number

Where the decoder is no diffusion, a code says all there is and T changes nothing: such models have `frechet_reconstructions`
and `frechet_midpoints/0.2, 0.4` without T.

Reference: Liu et al. 2024, section 4.2; Preechakul et al. 2022, Table 1. Figures go to `results/<study>.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from diled.data import Data
from diled.draws import BlockNoise, seeded
from diled.errors import ConfigError
from diled.evaluation.feature_nets import extract
from diled.evaluation.images import frechet
from diled.evaluation.measure import Measured, bounds, features_for, reconstruction
from diled.latent.interpolate import at
from diled.model import Model
from diled.models.sampling import BATCH, described, sample_batches, sampled_with
from diled.space import raw_tensor, to_space
from diled.studies.table import arguments, run_study

__all__ = ["image_figures", "main"]

FEW_STEPS = (1, 2)
"""Further steps at which a consistency model is sampled."""


def image_figures(model: Model, data: Data, steps: list[int], *, n: int = 2000, seed: int = 0) -> dict[str, Measured]:
    """All distances of one model on n test images, and its bound where there is one.

    Raises:
        ConfigError: the data are no images.
    """
    net = features_for(data)
    if net is None:
        raise ConfigError(f"{data.name} holds no images: there are no features to compare them in.")
    net = net.to(model.device)
    test = data.test.subset(np.arange(min(n, len(data.test))))
    train = data.train.subset(np.random.default_rng(0).permutation(len(data.train))[: len(test)])
    x, other = (to_space(raw_tensor(split.values), data.spec, draw=False) for split in (test, train))
    real = extract(net, x)
    found = bounds(model.density, test, data.spec, repeats=4, seed=seed)
    found["frechet_floor"] = Measured(frechet(extract(net, other), real), n=len(x), note=net.name)
    if model.density.has_codes:
        found |= reconstruction(model.density, test, data.spec, seed=seed)

    def add(pictures: Iterator[tuple[str, Tensor]], name: str) -> None:
        note = f"{net.name}; {described(model.density)}"
        for metric, drawn in pictures:
            found[metric + name] = Measured(frechet(extract(net, drawn), real), n=len(drawn), note=note)

    if model.density.has_codes and not model.density.implicit:
        add(_decoded(model, x, seed), "")
    for count in [*FEW_STEPS, *steps] if model.name == "consistency" else steps:
        with sampled_with(model.density, steps=count):
            add(_pictures(model, x, seed), f"/T={count}")
    return found


@torch.no_grad()
def _pictures(model: Model, x: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Metric and pictures that the steps of a sampler make, as many as there are test images x."""
    density = model.density
    yield "frechet_samples", torch.cat(list(sample_batches(density, len(x), seed=seed)))
    if density.has_codes and density.implicit:
        inverted = _mapped(model, x, lambda x, noise: density.reconstruct(x, invert=True))
        yield "frechet_reconstructions/inverted", inverted
        for metric, pictures in _decoded(model, x, seed):
            yield metric.replace("reconstructions", "reconstructions/random"), pictures


@torch.no_grad()
def _decoded(model: Model, x: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Metric and pictures that are decoded from the codes of x, and from mixtures of two."""
    density = model.density
    if hasattr(density, "encoder"):
        yield "frechet_reconstructions", _mapped(model, x, lambda x, noise: density.reconstruct(x, noise=noise))
    codes = _mapped(model, x, lambda x, noise: density.encode(x).flatten(1))
    with seeded(seed, 4):
        order = torch.randperm(len(x))
    for share in (0.2, 0.4):
        mixed = torch.from_numpy(at(codes.numpy(), codes[order].numpy(), share, density.path))
        yield f"frechet_midpoints/{share}", _mapped(model, mixed, lambda z, noise: density.decode(z, noise=noise))


def _mapped(model: Model, values: Tensor, function) -> Tensor:  # type: ignore[no-untyped-def]
    """function(batch, noise) of all values, batch by batch, on the CPU."""
    out = []
    for start in range(0, len(values), BATCH):
        noise = BlockNoise(1, start, device=model.device)
        out.append(function(values[start : start + BATCH].to(model.device), noise).cpu())
    return torch.cat(out)


def main(argv: list[str] | None = None) -> int:
    """Train and measure from the command line."""
    parser = arguments("images", "Train and measure the image table.")
    parser.add_argument("--sampler-steps", type=int, nargs="+", default=[10, 20, 50], help="T")
    parser.add_argument("--examples", type=int, default=2000, help="test images")
    chosen = parser.parse_args(argv)
    return run_study(
        "images", chosen, lambda model, data: image_figures(model, data, chosen.sampler_steps, n=chosen.examples)
    )


if __name__ == "__main__":
    sys.exit(main())
