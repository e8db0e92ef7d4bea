"""Arithmetic on decoded pictures (C, H, W): channels, depth and size. Files and arrays take the same path through here.

Grey from colour is the luma of ITU-R BT.601, Y = 0.299 R + 0.587 G + 0.114 B, rounded exactly as Pillow rounds it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from diled.errors import DataError

__all__ = ["as_channels", "as_depth", "fit", "size_text"]


def as_channels(values: np.ndarray, channels: int) -> np.ndarray:
    """`values` (..., C, H, W) with 1 (grey), 3 (RGB) or 4 (RGBA) channels; transparency is dropped where there is no room.

    Raises:
        DataError: C is none of 1, 3 and 4, or a transparency is asked of floating-point values.
    """
    found = values.shape[-3]
    if found == channels:
        return values
    if found not in (1, 3, 4):
        raise DataError(
            f"Images with {found} channels cannot be turned into {channels}: only 1, 3 and 4 have a meaning."
        )
    colour = values[..., :3, :, :] if found == 4 else values
    if channels == 1:
        return _luma(colour)
    if colour.shape[-3] == 1:
        colour = np.repeat(colour, 3, axis=-3)
    if channels == 3:
        return colour
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError("Floating-point images have no agreed opaque value, so they cannot be given transparency.")
    opaque = np.full_like(colour[..., :1, :, :], np.iinfo(values.dtype).max)
    return np.concatenate([colour, opaque], axis=-3)


def _luma(rgb: np.ndarray) -> np.ndarray:
    """Grey (..., 1, H, W) of `rgb` (..., 3, H, W)."""
    if rgb.dtype == np.uint8:  # Pillow's fixed-point weights, which sum to 2^16
        wide = rgb.astype(np.uint32)
        red, green, blue = (wide[..., i : i + 1, :, :] for i in range(3))
        return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)
    grey = np.tensordot(np.array([0.299, 0.587, 0.114]), rgb.astype(np.float64), axes=(0, rgb.ndim - 3))
    grey = np.expand_dims(np.rint(grey) if np.issubdtype(rgb.dtype, np.integer) else grey, -3)
    return grey.astype(rgb.dtype)


def as_depth(values: np.ndarray, dtype: str) -> np.ndarray:
    """Integers of 8 or 16 bits as `uint8` or `uint16`, full scale to full scale (65,535 = 257 x 255)."""
    if values.dtype == dtype:
        return values
    if dtype == "uint16":
        return values.astype(np.uint16) * np.uint16(257)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def fit(values: np.ndarray, size: tuple[int, int], policy: str, name: str = "an image") -> np.ndarray:
    """`values` (C, H, W) brought to `size` = (height, width), of the same type and within its own range.

    `crop` fills the frame and cuts the centre, `pad` scales to fit inside and fills with zeros, `border` puts zeros around
    without scaling, `stretch` scales each side, and `exact` refuses another size.

    Raises:
        DataError: the size differs and `policy` is `exact`, or a side is larger and `policy` is `border`.
    """
    height, width = values.shape[-2:]
    h, w = size
    if (height, width) == (h, w):
        return values
    if policy == "exact":
        raise DataError(f"{name} is {size_text(height, width)}, where {size_text(h, w)} is wanted.")
    if policy == "border" and (height > h or width > w):
        raise DataError(
            f"{name} is {size_text(height, width)}, too large for a border within {size_text(h, w)}: choose a larger size, "
            "or the size policy 'pad'."
        )
    if policy == "stretch":
        return _scaled(values, h, w)
    if policy == "crop":
        ratio = max(h / height, w / width)
        tall, wide = max(h, round(height * ratio)), max(w, round(width * ratio))
        top, left = (tall - h) // 2, (wide - w) // 2
        return _scaled(values, tall, wide)[:, top : top + h, left : left + w]
    ratio = 1.0 if policy == "border" else min(h / height, w / width)
    tall, wide = min(h, max(1, round(height * ratio))), min(w, max(1, round(width * ratio)))
    top, left = (h - tall) // 2, (w - wide) // 2
    framed = np.zeros((values.shape[0], h, w), values.dtype)
    framed[:, top : top + tall, left : left + wide] = _scaled(values, tall, wide)
    return framed


def _scaled(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """`values` (C, H, W) resampled: the mean of whole blocks where they divide evenly, antialiased Lanczos elsewhere."""
    if values.shape[-2:] == (height, width):
        return values
    even = values.shape[-2] % height == 0 and values.shape[-1] % width == 0
    resample = Image.Resampling.BOX if even else Image.Resampling.LANCZOS
    if values.dtype == np.uint8 and values.shape[0] in (1, 3, 4):
        # All channels at once, because Pillow weighs colours by their opacity in RGBA.
        picture = Image.fromarray(values[0] if values.shape[0] == 1 else np.moveaxis(values, 0, -1).copy())
        scaled = np.asarray(picture.resize((width, height), resample))
        scaled = scaled[None] if scaled.ndim == 2 else np.moveaxis(scaled, -1, 0)
        extrema = np.array(picture.getextrema()).reshape(-1, 2)
    else:
        planes = [Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32)) for plane in values]
        scaled = np.stack([np.asarray(plane.resize((width, height), resample)) for plane in planes])
        extrema = np.array([plane.getextrema() for plane in planes])
        if np.issubdtype(values.dtype, np.integer):
            scaled = np.rint(scaled)
    # Lanczos overshoots at edges: a picture must not leave its own grey range.
    low, high = extrema.T[:, :, None, None]
    return np.clip(scaled, low, high).astype(values.dtype)


def size_text(height: int, width: int) -> str:
    """A size as people read it: `28x28`, and with words where the order matters."""
    return f"{height}x{width}" if height == width else f"{width}x{height} (width x height)"
