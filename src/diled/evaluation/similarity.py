"""Structural similarity of images in [0, 1], and the one conversion between [0, 1] and model space.

With means m, variances v and covariance c under a Gaussian window, C1 = 0.01^2 and C2 = 0.03^2, at every pixel

    l = (2 m_x m_y + C1) / (m_x^2 + m_y^2 + C1),       cs = (2 c_xy + C2) / (v_x + v_y + C2),

    SSIM    = mean(l cs)                                                           (Wang et al. 2004, Eq. 13)
    MS-SSIM = SSIM_M^{w_M} prod_{j < M} mean(cs_j)^{w_j}                           (Wang et al. 2003, Eq. 7)

where scale j + 1 halves scale j. A window lies wholly within its image. Equal images have exactly 1; all functions are
symmetric, and give one number per pair of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from diled.errors import ConfigError, DataError

__all__ = [
    "SIMILARITIES",
    "Similarity",
    "closeness",
    "from_unit",
    "ms_ssim",
    "ms_ssim_kuzina",
    "psnr",
    "ssim",
    "to_unit",
]

Similarity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(x, y), both (B, ...) in [0, 1] -> (B,), larger for more similar pairs."""

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales, the finest first (Wang et al. 2003, section 3.2)."""
C1, C2 = 0.01**2, 0.03**2
SIGMA = 1.5


def to_unit(x: Tensor) -> Tensor:
    """Model space [-1, 1] -> [0, 1], in which attack radii and similarities are measured."""
    return 0.5 * (x + 1)


def from_unit(u: Tensor) -> Tensor:
    """[0, 1] -> model space [-1, 1]."""
    return 2 * u - 1


def ms_ssim(x: Tensor, y: Tensor, *, window: int = 11, scales: int | None = None, last_power: int = 1) -> Tensor:
    """Multi-scale structural similarity.

    SSIM_M^{k w_M} prod_{j < M} mean(cs_j)^{w_j}, k = `last_power`

    Fewer than five scales take the first weights, divided by their sum. Means below 0 count as 0.

    Args:
        x, y: images (B, C, H, W) in [0, 1].
        window: size in pixels of the Gaussian window (sigma 1.5); an image that is smaller is its own window.
        scales: M, at most 5; None: as many as hold a full window (1 at 16 pixels, 2 at 28 or 32, 3 at 64, 5 at 176).
        last_power: k, 1 in the definition.

    Returns:
        (B,), in [0, 1].

    Raises:
        DataError: no images, of different shapes, or outside [0, 1].
        ConfigError: a window or a number of scales that does not exist.

    Reference: Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality assessment", 2003.
    """
    _check_images(x, y, window)
    m = _full_scales(min(x.shape[2:]), window) if scales is None else scales
    if not 1 <= m <= len(WEIGHTS):
        raise ConfigError(f"scales = {m}: there are weights for 1 to {len(WEIGHTS)} scales.")
    whole = sum(WEIGHTS[:m]) if m < len(WEIGHTS) else 1.0  # the five published ones add up to 1.0001
    weights = [w / whole for w in WEIGHTS[:m]]
    product = torch.ones_like(x[:, 0, 0, 0])
    for w in weights[:-1]:
        product = product * _ssim_and_contrast(x, y, window)[1].relu() ** w
        x, y = _halved(x), _halved(y)
    return product * _ssim_and_contrast(x, y, window)[0].relu() ** (last_power * weights[-1])


def ms_ssim_kuzina(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM as in the published attacks on autoencoders, for comparison with their numbers only.

    It differs from the definition in four points: five scales whatever the size (an image of one pixel is not halved), a
    window of 14 pixels or as many as there are, whose centre is half a pixel off where its size is even, and the last
    factor enters four times, once for each scale before it.

    Args:
        x, y: images (B, C, H, W) in [0, 1].

    Raises:
        DataError: as for `ms_ssim`.

    Reference: Kuzina, Welling and Tomczak, "Alleviating adversarial attacks on variational autoencoders with MCMC", 2022,
    and its code; used by Xiao et al. 2024.
    """
    return ms_ssim(x, y, window=14, scales=5, last_power=4)


def ssim(x: Tensor, y: Tensor, *, window: int = 11) -> Tensor:
    """Structural similarity mean(l cs) at the images' own scale, (B,), in [-1, 1]; arguments and errors as for `ms_ssim`.

    Reference: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004.
    """
    _check_images(x, y, window)
    return _ssim_and_contrast(x, y, window)[0]


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio -10 log10 mean((x - y)^2) in decibels, (B,); infinite for equal images.

    Args:
        x, y: (B, ...) in [0, 1].

    Raises:
        DataError: different shapes, or values outside [0, 1].
    """
    _check_pair(x, y)
    return -10 / math.log(10) * ((x - y) ** 2).flatten(1).mean(1).log()


def closeness(x: Tensor, y: Tensor) -> Tensor:
    """1 - mean |x - y|, (B,), in [0, 1]: a similarity for data that are no images.

    Args:
        x, y: (B, ...) in [0, 1].

    Raises:
        DataError: different shapes, or values outside [0, 1].
    """
    _check_pair(x, y)
    return 1 - (x - y).abs().flatten(1).mean(1)


SIMILARITIES: dict[str, Similarity] = {
    "kuzina": ms_ssim_kuzina,
    "standard": ms_ssim,
    "ssim": ssim,
    "closeness": closeness,
}
"""By name, those that are finite for equal images."""


def _full_scales(size: int, window: int) -> int:
    """How many scales, at least one and at most five, hold a full window."""
    return 1 + sum(size >> j >= window for j in range(1, len(WEIGHTS)))


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2) if min(x.shape[2:]) > 1 else x


def _ssim_and_contrast(x: Tensor, y: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """mean(l cs) and mean(cs), over pixels and channels, both (B,)."""
    taps = _gaussian(min(window, *x.shape[2:]), x)
    m_x, m_y = _blur(x, taps), _blur(y, taps)
    v_x, v_y = _blur(x * x, taps) - m_x * m_x, _blur(y * y, taps) - m_y * m_y
    c_xy = _blur(x * y, taps) - m_x * m_y
    luminance = (2 * m_x * m_y + C1) / (m_x * m_x + m_y * m_y + C1)
    contrast = (2 * c_xy + C2) / (v_x + v_y + C2)
    return (luminance * contrast).flatten(1).mean(1), contrast.flatten(1).mean(1)


def _gaussian(size: int, like: Tensor) -> Tensor:
    """The window's taps, around pixel `size // 2`, adding up to one."""
    place = torch.arange(size, device=like.device, dtype=like.dtype) - size // 2
    taps = torch.exp(-(place**2) / (2 * SIGMA**2))
    return taps / taps.sum()


def _blur(x: Tensor, taps: Tensor) -> Tensor:
    """Each channel under the window, at the places where all of it fits."""
    flat = x.reshape(-1, 1, *x.shape[2:])
    blurred = F.conv2d(F.conv2d(flat, taps.reshape(1, 1, -1, 1)), taps.reshape(1, 1, 1, -1))
    return blurred.reshape(*x.shape[:2], *blurred.shape[2:])


def _check_pair(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise DataError(f"Only pairs of one shape can be compared, found {tuple(x.shape)} and {tuple(y.shape)}.")
    for values in (x, y):
        if not bool(((values > -1e-4) & (values < 1 + 1e-4)).all()):
            raise DataError("Similarity is of finite values in [0, 1]: take images from [-1, 1] there with `to_unit`.")


def _check_images(x: Tensor, y: Tensor, window: int) -> None:
    _check_pair(x, y)
    if x.ndim != 4:
        raise DataError(
            f"Structural similarity compares images (B, C, H, W), found {tuple(x.shape)}; for other data give another "
            "`similarity`, such as `closeness`."
        )
    if window < 1:
        raise ConfigError(f"window = {window}: a window has at least one pixel.")
