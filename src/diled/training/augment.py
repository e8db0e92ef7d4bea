"""Random changes of training images: one affine warp and one affine map of colours for each image.

    x'(p) = C x(G^-1 p),     G = G_k ... G_1,   C = C_l ... C_1,

where p are pixel coordinates about the centre of the image (x to the right, y down), x are values in [-1, 1], and every
factor is the identity unless its change is drawn, each with the same probability and independently. An image of which
nothing is drawn stays as it is, bit for bit.

The pipeline is that of Karras et al. 2020 (arXiv 2006.06676, appendix B); the policies are those of Xiao et al. 2024 (arXiv
2310.19653, appendix E). They list ranges [0, max]; here both signs are drawn, uniformly, since a turn or a scale of one sign
alone would move the data. The warp is bilinear, without the wavelet filter of the GAN pipeline.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diled.config import AugmentConfig, DataSpec, TrainingConfig
from diled.errors import ConfigError

__all__ = ["augmented", "draw_colours", "draw_geometry", "policy_for", "recolour", "rotation", "scaling", "translation",
           "warp"]  # fmt: skip

NAIVE = AugmentConfig(
    horizontal_flip="on", translation=3, scale=0.2, rotation=10, stretch=0.2, stretch_turned=0.5, brightness=0.2,
    contrast=0.25, hue=45, saturation=0.5,
)  # fmt: skip
TUNED_GREY = AugmentConfig(translation=3, scale=0.15, rotation=10, stretch=0.15, stretch_turned=0.4)
TUNED_COLOUR = AugmentConfig(
    horizontal_flip="always", vertical_flip="on", scale=0.2, rotation=360, stretch=0.2, stretch_turned=0.5
)

NOTHING = AugmentConfig(
    horizontal_flip="off", vertical_flip="off", translation=0, scale=0, rotation=0, stretch=0, stretch_turned=0,
    brightness=0, contrast=0, hue=0, saturation=0,
)  # fmt: skip

OF_COLOUR = {3: set(), 1: {"hue", "saturation"}}
"""Channels -> the changes of colour that mean nothing there; of other numbers of channels none means anything."""
ALL_COLOUR = {"brightness", "contrast", "hue", "saturation"}


def policy_for(config: TrainingConfig, spec: DataSpec) -> AugmentConfig | None:
    """The policy that is asked for, every change filled in; None where nothing is changed.

    Hue and saturation are left out for images that are not RGB, and all colours where there are neither 1 nor 3 channels.

    Raises:
        ConfigError: the data are no images, or a change that means nothing for them is asked for by name.
    """
    named = config.augment_values.changes
    if config.augment == "none" and not any(v not in (0, "off") for v in named.values()):
        return None
    if spec.kind != "image":
        raise ConfigError(f"training.augment changes images; these are {spec.kind}s: leave it out.")
    channels = spec.shape[0]
    without = OF_COLOUR.get(channels, ALL_COLOUR)
    wrong = sorted(key for key in without if named.get(key))
    if wrong:
        raise ConfigError(
            f"training.augment_values.{wrong[0]} means nothing for images of {channels} channel(s): leave it out."
        )
    tuned = TUNED_GREY if channels == 1 else TUNED_COLOUR
    base = {"none": NOTHING, "naive": NAIVE, "tuned": tuned}[config.augment]
    values = NOTHING.changes | base.changes | dict.fromkeys(without, 0) | named
    if not values["stretch"]:
        if named.get("stretch_turned"):
            raise ConfigError(
                "training.augment_values.stretch_turned has no effect, since nothing is stretched: give stretch as well."
            )
        values["stretch_turned"] = 0
    border = config.augment_values.border
    if border == "auto":
        border = "zeros" if channels == 1 else "reflection"
    return AugmentConfig(probability=config.augment_values.probability, border=border, **values)


def augmented(x: Tensor, policy: AugmentConfig) -> Tensor:
    """Images (B, C, H, W) in [-1, 1], changed at random by torch's generator; values may leave the range."""
    geometry, colours = draw_geometry(policy, len(x), x.device), draw_colours(policy, len(x), x.device)
    moved, tinted = (_changed(m) for m in (geometry, colours))
    x = x.clone()
    if len(moved):
        x[moved] = warp(x[moved], geometry[moved], policy.border)
    if len(tinted):
        x[tinted] = recolour(x[tinted], colours[tinted])
    return x


def _changed(matrices: Tensor) -> Tensor:
    """The rows whose matrix is not the identity."""
    return (matrices != torch.eye(matrices.shape[1]).to(matrices)).flatten(1).any(1).nonzero()[:, 0]


# Draws ----------------------------------------------------------------------------------------------------------------


def draw_geometry(policy: AugmentConfig, n: int, device: torch.device | str = "cpu") -> Tensor:
    """G of each image, (n, 3, 3), acting on (x, y, 1)."""
    draw, v = _Draws(policy.probability, n, device), policy
    zero = torch.zeros(n, device=device)
    mirrored = [
        scaling(1 - 2 * draw.coin(v.horizontal_flip), 1 + zero),
        scaling(1 + zero, 1 - 2 * draw.coin(v.vertical_flip)),
    ]
    applied = draw.applied()
    shifted = translation(*(torch.where(applied, draw.whole(v.translation or 0), zero) for _ in range(2)))
    size = torch.exp2(draw.uniform(v.scale))
    turned = rotation(draw.uniform(v.rotation) * (math.pi / 180))
    wide, axis = torch.exp2(draw.uniform(v.stretch)), math.pi * (2 * draw.rand() - 1)
    axis = torch.where(draw.rand() < (v.stretch_turned or 0), axis, zero)
    stretched = torch.where(
        (wide != 1)[:, None, None],
        rotation(axis) @ scaling(wide, 1 / wide) @ rotation(-axis),
        scaling(1 + zero, 1 + zero),
    )
    g = torch.eye(3, device=device).expand(n, 3, 3)
    for step in (*mirrored, shifted, scaling(size, size), turned, stretched):
        g = step @ g
    return g


def draw_colours(policy: AugmentConfig, n: int, device: torch.device | str = "cpu") -> Tensor:
    """C of each image, (n, 4, 4), acting on (red, green, blue, 1) in [-1, 1].

    With u the unit vector along grey: brightness b adds b to each channel, contrast 2^s scales all, hue turns about u, and
    saturation 2^s scales what is perpendicular to u: u u^T + 2^s (1 - u u^T).
    """
    draw, eye = _Draws(policy.probability, n, device), torch.eye(4, device=device)
    grey = torch.zeros(4, 4, device=device)
    grey[:3, :3] = 1 / 3
    shift, homogeneous = torch.zeros(4, 4, device=device), torch.zeros(4, 4, device=device)
    shift[:3, 3], homogeneous[3, 3] = 1, 1
    colour = eye - homogeneous
    brightness, contrast, hue, saturation = (
        draw.uniform(value)[:, None, None]
        for value in (policy.brightness, policy.contrast, policy.hue, policy.saturation)
    )
    c = eye + brightness * shift
    c = (eye + (torch.exp2(contrast) - 1) * colour) @ c
    c = _about_grey(hue * (math.pi / 180), eye, grey) @ c
    return (eye + (torch.exp2(saturation) - 1) * (colour - grey)) @ c


def _about_grey(angle: Tensor, eye: Tensor, grey: Tensor) -> Tensor:
    """The rotation about u = (1, 1, 1) / sqrt 3 (Rodrigues): 1 + sin a K + (1 - cos a) K^2, with K^2 = u u^T - 1 on colours."""
    k = torch.zeros_like(eye)
    k[:3, :3] = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    colour = torch.diag(torch.tensor([1.0, 1, 1, 0], device=eye.device))
    return eye + angle.sin() * k + (1 - angle.cos()) * (grey - colour)


class _Draws:
    """Random numbers of n images, each 0 unless its change is drawn."""

    def __init__(self, probability: float, n: int, device: torch.device | str) -> None:
        self.probability, self.n, self.device = probability, n, device

    def rand(self) -> Tensor:
        return torch.rand(self.n, device=self.device)

    def applied(self) -> Tensor:
        return self.rand() < self.probability

    def uniform(self, largest: float | None) -> Tensor:
        """In [-largest, largest]."""
        w = (2 * self.rand() - 1) * (largest or 0)
        return torch.where(self.applied(), w, torch.zeros_like(w))

    def whole(self, largest: int) -> Tensor:
        """One of -largest, ..., largest."""
        return torch.floor(self.rand() * (2 * largest + 1)) - largest

    def coin(self, flip: str | None) -> Tensor:
        """1 where the image is flipped."""
        drawn = self.applied() if flip == "on" else torch.full((self.n,), flip == "always", device=self.device)
        return (drawn & (self.rand() < 0.5)).float()


# Matrices and what they do ----------------------------------------------------------------------------------------------


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    """Rows of numbers (n,) -> (n, rows, columns)."""
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def scaling(sx: Tensor, sy: Tensor) -> Tensor:
    """x grows sx times and y sy times; -1 is a flip. (n,) -> (n, 3, 3)."""
    zero, one = torch.zeros_like(sx), torch.ones_like(sx)
    return _matrix([[sx, zero, zero], [zero, sy, zero], [zero, zero, one]])


def rotation(angle: Tensor) -> Tensor:
    """A turn by `angle` in radians from x towards y: clockwise as pictures are seen. (n,) -> (n, 3, 3)."""
    zero, one, c, s = torch.zeros_like(angle), torch.ones_like(angle), angle.cos(), angle.sin()
    return _matrix([[c, -s, zero], [s, c, zero], [zero, zero, one]])


def translation(tx: Tensor, ty: Tensor) -> Tensor:
    """A shift by tx pixels to the right and ty down. (n,) -> (n, 3, 3)."""
    zero, one = torch.zeros_like(tx), torch.ones_like(tx)
    return _matrix([[one, zero, tx], [zero, one, ty], [zero, zero, one]])


def warp(x: Tensor, g: Tensor, border: str = "zeros") -> Tensor:
    """x'(p) = x(G^-1 p), bilinear.

    Args:
        x: images (B, C, H, W) in [-1, 1].
        g: G, (B, 3, 3), in pixels about the centre.
        border: `zeros`, which are black (-1), or `reflection` about the outermost pixels.
    """
    b, _, h, w = x.shape
    ys, xs = torch.meshgrid(*(torch.arange(s, device=x.device) - (s - 1) / 2 for s in (h, w)), indexing="ij")
    p = torch.stack([xs.flatten(), ys.flatten(), torch.ones(h * w, device=x.device)]).to(x.dtype)
    from_where = (torch.linalg.inv(g.to(x.dtype)) @ p)[:, :2]
    unit = torch.tensor([max(w - 1, 1) / 2, max(h - 1, 1) / 2], device=x.device, dtype=x.dtype)
    grid = (from_where / unit[:, None]).transpose(1, 2).reshape(b, h, w, 2)
    read = torch.nn.functional.grid_sample(x + 1, grid, padding_mode=border, align_corners=True)
    return read - 1


def recolour(x: Tensor, c: Tensor) -> Tensor:
    """C (x, 1) of each pixel.

    Args:
        x: images (B, 3, H, W) or (B, 1, H, W) in [-1, 1]; a grey value stands for three equal channels, and their mean is
            taken back.
        c: C, (B, 4, 4).
    """
    matrix, shift = c[:, :3, :3], c[:, :3, 3]
    if x.shape[1] == 1:
        return x * matrix.sum(2).mean(1)[:, None, None, None] + shift.mean(1)[:, None, None, None]
    return torch.einsum("bij,bjhw->bihw", matrix, x) + shift[:, :, None, None]
